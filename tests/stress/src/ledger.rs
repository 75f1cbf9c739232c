// SPDX-License-Identifier: GPL-2.0

//! The ledger: for every slot the generation that a store has begun, the one that a store has
//! finished, and the newest that was promised durable (a sync call that covers it returned).
//!
//! While a run lasts the ledger is memory shared by its processes. With `--ledger DIR` it is also
//! written to DIR, outside the file system under test, so that a later boot can verify what a
//! kill of the machine left: a promise is appended to a log after its sync call returned, and a
//! ceiling for generations before the first store above the previous one. The logs are written
//! with O_DSYNC, so that neither a file system nor 9p keeps them back.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use anyhow::{bail, Context, Result};
use rdax_test_sys::shared_counters;
use rustix::fs::OFlags;

/// One line of a log: 16 bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the file in the run.
    pub file: u32,
    /// Slot, perhaps with [`BEGUN`], or one of [`CEILING`] and [`CLOSED`].
    pub slot: u32,
    /// Generation promised or begun; the ceiling.
    pub gen: u64,
}

/// Slot of an entry that raises the ceiling of the generations in the file.
pub const CEILING: u32 = u32::MAX;
/// Slot of an entry that ends the file's log: all it holds was verified in place and synced.
pub const CLOSED: u32 = u32::MAX - 1;
/// Set in the slot of an entry that says what was begun rather than promised.
pub const BEGUN: u32 = 1 << 31;

/// Ceilings are raised by so much at a time.
const STEP: u64 = 32;

impl Entry {
    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.file.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.slot.to_le_bytes());
        bytes[8..].copy_from_slice(&self.gen.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Entry {
        let word = u64::from_le_bytes(bytes[..8].try_into().expect("16 bytes"));
        let gen = u64::from_le_bytes(bytes[8..16].try_into().expect("16 bytes"));
        Entry {
            file: word as u32,
            slot: (word >> 32) as u32,
            gen,
        }
    }
}

/// The log of one worker; of none if there is no ledger directory.
pub struct Log {
    file: Option<File>,
}

impl Log {
    /// Opens the log `name` in `dir` for appending.
    pub fn open(dir: Option<&Path>, name: &str) -> io::Result<Log> {
        let open = |dir: &Path| {
            let mut options = OpenOptions::new();
            options
                .create(true)
                .append(true)
                .custom_flags(OFlags::DSYNC.bits() as i32);
            options.open(dir.join(format!("{name}.log")))
        };
        Ok(Log {
            file: dir.map(open).transpose()?,
        })
    }

    /// Appends `entries`.
    pub fn append(&self, entries: &[Entry]) -> io::Result<()> {
        let Some(mut file) = self.file.as_ref() else {
            return Ok(());
        };
        if let [entry] = entries {
            // No allocation: a forked child may be the caller.
            return file.write_all(&entry.bytes());
        }
        let bytes: Vec<u8> = entries.iter().flat_map(Entry::bytes).collect();
        file.write_all(&bytes)
    }
}

/// The ledger of one file.
#[derive(Clone, Copy)]
pub struct FileLedger {
    /// Number of the file in the run.
    pub file: u32,
    begun: &'static [AtomicU64],
    stored: &'static [AtomicU64],
    promised: &'static [AtomicU64],
    ceiling: &'static AtomicU64,
    exact: bool,
}

impl FileLedger {
    /// A ledger of `slots` slots, all of generation 0. With `exact` the log names every
    /// generation that was begun; without, only a ceiling for all of them.
    pub fn new(file: u32, slots: u64, exact: bool) -> io::Result<FileLedger> {
        let slots = slots as usize;
        let words = shared_counters(slots * 3 + 1)?;
        Ok(FileLedger {
            file,
            begun: &words[..slots],
            stored: &words[slots..2 * slots],
            promised: &words[2 * slots..3 * slots],
            ceiling: &words[3 * slots],
            exact,
        })
    }

    /// Number of slots.
    pub fn slots(&self) -> u64 {
        self.begun.len() as u64
    }

    /// The generation that the newest store to `slot` is bringing, or has brought.
    pub fn begun(&self, slot: u64) -> u64 {
        self.begun[slot as usize].load(SeqCst)
    }

    /// The generation that the newest finished store to `slot` has brought.
    pub fn stored(&self, slot: u64) -> u64 {
        self.stored[slot as usize].load(SeqCst)
    }

    /// The newest generation of `slot` that is promised durable.
    pub fn promised(&self, slot: u64) -> u64 {
        self.promised[slot as usize].load(SeqCst)
    }

    /// To be called before the first byte of generation `gen` is stored to `slot`.
    pub fn begin(&self, log: &Log, slot: u64, gen: u64) -> io::Result<()> {
        if self.exact {
            log.append(&[Entry {
                file: self.file,
                slot: slot as u32 | BEGUN,
                gen,
            }])?;
        } else if gen > self.ceiling.load(SeqCst) {
            let ceiling = gen.div_ceil(STEP) * STEP;
            log.append(&[Entry {
                file: self.file,
                slot: CEILING,
                gen: ceiling,
            }])?;
            self.ceiling.fetch_max(ceiling, SeqCst);
        }
        self.begun[slot as usize].store(gen, SeqCst);
        Ok(())
    }

    /// To be called after the last byte of the generation begun is stored.
    pub fn finish(&self, slot: u64) {
        self.stored[slot as usize].store(self.begun(slot), SeqCst);
    }

    /// To be called if a store faulted before it changed anything.
    pub fn give_up(&self, slot: u64) {
        self.begun[slot as usize].store(self.stored(slot), SeqCst);
    }

    /// Calls `sync`, which makes `slots` durable, and then promises what was stored before.
    pub fn promise(
        &self,
        log: &Log,
        slots: Range<u64>,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut entries: Vec<Entry> = slots
            .filter(|&slot| self.stored(slot) > self.promised(slot))
            .map(|slot| Entry {
                file: self.file,
                slot: slot as u32,
                gen: self.stored(slot),
            })
            .collect();
        sync()?;
        entries.retain(|entry| {
            self.promised[entry.slot as usize].fetch_max(entry.gen, SeqCst) < entry.gen
        });
        if entries.is_empty() {
            return Ok(());
        }
        log.append(&entries)
    }

    /// Ends the log: every slot holds its newest generation, verified and synced.
    pub fn close(&self, log: &Log) -> io::Result<()> {
        self.promise(log, 0..self.slots(), || Ok(()))?;
        log.append(&[Entry {
            file: self.file,
            slot: CLOSED,
            gen: 0,
        }])
    }
}

/// What a ledger directory says of one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Promises {
    /// Newest promised generation of each slot that has one.
    pub promised: HashMap<u64, u64>,
    /// Newest generation begun in each slot, where the log names it.
    pub begun: HashMap<u64, u64>,
    /// No store above this generation can have begun where the log does not name it.
    pub ceiling: u64,
    /// The run ended well: the promised generation is the only one that may be found.
    pub closed: bool,
}

impl Promises {
    /// The generations that may be found in `slot`.
    pub fn allowed(&self, slot: u64) -> RangeInclusive<u64> {
        let promised = self.promised.get(&slot).copied().unwrap_or(0);
        let newest = match self.begun.get(&slot) {
            _ if self.closed => promised,
            Some(&begun) => begun,
            None => self.ceiling,
        };
        promised..=newest.max(promised)
    }
}

fn raise(map: &mut HashMap<u64, u64>, slot: u32, gen: u64) {
    let newest = map.entry(u64::from(slot)).or_default();
    *newest = gen.max(*newest);
}

/// Reads all logs in `dir`, by number of file. A last entry that a kill cut short is left out.
pub fn load(dir: &Path) -> Result<HashMap<u32, Promises>> {
    let mut files: HashMap<u32, Promises> = HashMap::new();
    for path in logs(dir)? {
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        for entry in bytes.chunks_exact(16).map(Entry::parse) {
            let promises = files.entry(entry.file).or_default();
            match entry.slot {
                CEILING => promises.ceiling = promises.ceiling.max(entry.gen),
                CLOSED => promises.closed = true,
                slot if slot & BEGUN != 0 => raise(&mut promises.begun, slot & !BEGUN, entry.gen),
                slot => raise(&mut promises.promised, slot, entry.gen),
            }
        }
    }
    Ok(files)
}

fn logs(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Makes `dir` an empty ledger. Refuses a directory that holds anything but an old ledger.
pub fn clear(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let known = path.extension().is_some_and(|extension| extension == "log");
        if !known && !path.ends_with("manifest") {
            bail!(
                "{} is not part of a ledger: choose another directory",
                path.display()
            );
        }
        fs::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_says_later_what_was_promised() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(Some(dir.path()), "w").unwrap();
        let ledger = FileLedger::new(5, 4, false).unwrap();
        ledger.begin(&log, 2, 1).unwrap();
        ledger.finish(2);
        ledger.promise(&log, 0..4, || Ok(())).unwrap();
        ledger.begin(&log, 2, 2).unwrap();
        ledger.finish(2);
        ledger.begin(&log, 3, 40).unwrap();
        let found = load(dir.path()).unwrap();
        assert_eq!(found[&5].allowed(2), 1..=64);
        assert_eq!(found[&5].allowed(0), 0..=64);
        ledger.give_up(3);
        ledger.close(&log).unwrap();
        let found = load(dir.path()).unwrap();
        assert_eq!(found[&5].allowed(2), 2..=2);
        assert_eq!(found[&5].allowed(0), 0..=0);
    }

    #[test]
    fn an_exact_ledger_names_what_was_begun() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(Some(dir.path()), "w").unwrap();
        let ledger = FileLedger::new(5, 2, true).unwrap();
        ledger.begin(&log, 1, 1).unwrap();
        ledger.finish(1);
        ledger.promise(&log, 0..2, || Ok(())).unwrap();
        ledger.begin(&log, 1, 2).unwrap();
        let found = load(dir.path()).unwrap();
        assert_eq!(found[&5].allowed(1), 1..=2);
        assert_eq!(found[&5].allowed(0), 0..=0);
    }

    #[test]
    fn a_failed_sync_promises_nothing() {
        let ledger = FileLedger::new(1, 1, false).unwrap();
        let log = Log::open(None, "w").unwrap();
        ledger.begin(&log, 0, 1).unwrap();
        ledger.finish(0);
        let error = || Err(io::Error::from(rustix::io::Errno::IO));
        assert!(ledger.promise(&log, 0..1, error).is_err());
        assert_eq!(ledger.promised(0), 0);
    }

    #[test]
    fn a_store_during_the_sync_is_not_promised() {
        let ledger = FileLedger::new(1, 1, false).unwrap();
        let log = Log::open(None, "w").unwrap();
        ledger.begin(&log, 0, 1).unwrap();
        ledger.finish(0);
        let racing_store = || {
            ledger.begin(&log, 0, 2)?;
            ledger.finish(0);
            Ok(())
        };
        ledger.promise(&log, 0..1, racing_store).unwrap();
        assert_eq!((ledger.promised(0), ledger.stored(0)), (1, 2));
    }
}
