// SPDX-License-Identifier: GPL-2.0

//! A file of slots: stores by mapping and by write(2), sync calls that promise, and checks by
//! anybody at any time.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{bail, ensure, Context, Result};
use rdax_test_sys::Fault;

use crate::ledger::{FileLedger, Log};
use crate::record::{describe_slot, Identity, SlotBytes, RECORD, SLOT};
use crate::sys::{self, Map, PAGE};

/// Slots in a page.
pub const SLOTS_PER_PAGE: u64 = PAGE / SLOT;

/// Which worker stores to which slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Slot by slot in turn, so that all workers dirty every page.
    Slots(u32),
    /// Page by page in turn.
    Pages(u32),
}

/// How strictly the file can be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Every slot holds what the ledger says.
    Exact,
    /// Stores race with truncation: a slot is zero or holds records of its own.
    Own,
    /// One slot whose generation counts rounds and bytes: see the test `append`.
    Append,
    /// One slot for each name in a directory: see the module `names`.
    Names,
}

/// A file of slots.
#[derive(Clone)]
pub struct SlotFile {
    /// Its path.
    pub path: PathBuf,
    /// Number of slots.
    pub slots: u64,
    /// Who stores where.
    pub owner: Owner,
    /// How it is verified.
    pub rule: Rule,
    /// See [`Identity::cycle`].
    pub cycle: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the file in the run.
    pub id: u32,
}

/// A slot that does not hold what it must.
#[derive(Debug)]
pub struct Mismatch {
    /// The file.
    pub path: PathBuf,
    /// Byte offset in it.
    pub offset: u64,
    /// What should be there.
    pub expected: String,
    /// What is there, and how it was read.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MISMATCH {} offset {:#x}: expected {}, found {}",
            self.path.display(),
            self.offset,
            self.expected,
            self.found
        )
    }
}

impl std::error::Error for Mismatch {}

/// How a check reads.
#[derive(Clone, Copy)]
pub enum View<'a> {
    /// Through a mapping of the file from offset 0.
    Map(&'a Map),
    /// By read(2).
    Read(&'a File),
}

impl View<'_> {
    /// Reads a slot; bytes past the end of the file read as `None`.
    pub fn slot(self, slot: u64) -> Result<Option<SlotBytes>> {
        let mut bytes = [0; SLOT as usize];
        match self {
            View::Map(map) => match map.load(slot * SLOT, &mut bytes) {
                Ok(()) => Ok(Some(bytes)),
                Err(Fault::Bus) => Ok(None),
                Err(Fault::Segv) => bail!("SIGSEGV in a mapping that is readable"),
            },
            View::Read(file) => match file.read_exact_at(&mut bytes, slot * SLOT) {
                Ok(()) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                Err(error) => Err(error).context("read"),
            },
        }
    }

    fn name(self) -> &'static str {
        match self {
            View::Map(_) => "mapped",
            View::Read(_) => "read",
        }
    }
}

impl SlotFile {
    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.slots * SLOT
    }

    /// Number of pages.
    pub fn pages(&self) -> u64 {
        self.bytes() / PAGE
    }

    /// Opens the file and maps all of it, shared.
    pub fn open(&self) -> Result<(File, Map)> {
        let context = || self.path.display().to_string();
        let file = sys::open(&self.path).with_context(context)?;
        let map = Map::shared(&file, 0, self.bytes()).with_context(context)?;
        Ok((file, map))
    }

    /// Who may store to `slot`.
    pub fn writer(&self, slot: u64) -> u32 {
        match self.owner {
            Owner::Slots(of) => (slot % u64::from(of)) as u32,
            Owner::Pages(of) => (slot / SLOTS_PER_PAGE % u64::from(of)) as u32,
        }
    }

    /// A slot of `writer`, the `nth` of them modulo their number.
    pub fn nth_own(&self, writer: u32, nth: u64) -> u64 {
        let writer = u64::from(writer);
        match self.owner {
            Owner::Slots(of) => {
                let of = u64::from(of);
                nth % ((self.slots - writer).div_ceil(of)) * of + writer
            }
            Owner::Pages(of) => {
                let of = u64::from(of);
                let pages = (self.pages() - writer).div_ceil(of);
                let page = nth / SLOTS_PER_PAGE % pages * of + writer;
                page * SLOTS_PER_PAGE + nth % SLOTS_PER_PAGE
            }
        }
    }

    /// What the records of `slot` carry.
    pub fn identity(&self, slot: u64) -> Identity {
        let (seed, file, cycle) = (self.seed, self.id, self.cycle);
        Identity {
            seed,
            file,
            writer: self.writer(slot),
            slot,
            cycle,
        }
    }

    /// Slots that `range`, bytes at page boundaries, covers.
    pub fn covered(&self, range: &Range<u64>) -> Range<u64> {
        range.start / SLOT..(range.end / SLOT).min(self.slots)
    }

    /// An error that says what `slot` should hold.
    pub fn mismatch(&self, slot: u64, expected: String, found: String) -> anyhow::Error {
        Mismatch {
            path: self.path.clone(),
            offset: slot * SLOT,
            expected,
            found,
        }
        .into()
    }
}

/// A file of slots together with its ledger: what a worker uses.
#[derive(Clone)]
pub struct Tracked {
    /// The file.
    pub file: SlotFile,
    /// Its ledger.
    pub ledger: FileLedger,
}

impl std::ops::Deref for Tracked {
    type Target = SlotFile;

    fn deref(&self) -> &SlotFile {
        &self.file
    }
}

impl Tracked {
    /// The generation that a store brings to `slot`. It must not be [`full`](Self::full).
    pub fn next(&self, slot: u64) -> u64 {
        assert!(
            !self.full(slot),
            "a store to a slot that has to be punched first"
        );
        self.ledger.stored(slot) + 1
    }

    /// Whether the next generation of `slot` is a zero one: its page has to be punched.
    pub fn full(&self, slot: u64) -> bool {
        self.cycle != 0 && (self.ledger.stored(slot) + 1) % self.cycle == 0
    }

    /// Stores the next generation of `slot` through `map`, which maps the file from byte `base`.
    /// Does not allocate unless there is an error.
    pub fn store(&self, log: &Log, map: &Map, base: u64, slot: u64) -> Result<Result<(), Fault>> {
        self.store_until(log, map, base, slot, |_| false)
    }

    /// The same; after a fault for which `again` is true the store is repeated. Another fault
    /// leaves the slot as it was, if it came from the first word of the record.
    pub fn store_until(
        &self,
        log: &Log,
        map: &Map,
        base: u64,
        slot: u64,
        mut again: impl FnMut(Fault) -> bool,
    ) -> Result<Result<(), Fault>> {
        let gen = self.next(slot);
        self.ledger.begin(log, slot, gen)?;
        let record = self.identity(slot).record(gen);
        loop {
            match map.store(slot * SLOT + (gen & 1) * RECORD - base, &record) {
                Ok(()) => {
                    self.ledger.finish(slot);
                    return Ok(Ok(()));
                }
                Err(fault) if again(fault) => (),
                Err(fault) => {
                    self.ledger.give_up(slot);
                    return Ok(Err(fault));
                }
            }
        }
    }

    /// Stores the next generation of `slot`; a fault is an error.
    pub fn must_store(&self, log: &Log, map: &Map, base: u64, slot: u64) -> Result<()> {
        self.store(log, map, base, slot)?.map_err(|fault| {
            self.mismatch(
                slot,
                "a store".into(),
                format!("{fault:?} (no space, or too short)"),
            )
        })
    }

    /// Writes the next generation of `slots`, all of one writer, with one write(2). `Ok(false)`:
    /// no space; the slots are as they were.
    pub fn write(&self, log: &Log, file: &File, slots: Range<u64>) -> Result<bool> {
        let mut bytes = Vec::with_capacity(((slots.end - slots.start) * SLOT) as usize);
        for slot in slots.clone() {
            let gen = self.next(slot);
            self.ledger.begin(log, slot, gen)?;
            bytes.extend_from_slice(&self.identity(slot).contents(gen));
        }
        match file.write_at(&bytes, slots.start * SLOT) {
            Ok(len) => ensure!(
                len == bytes.len(),
                "write(2) of {} wrote {len}",
                bytes.len()
            ),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                slots.for_each(|slot| self.ledger.give_up(slot));
                return Ok(false);
            }
            Err(error) => return Err(error).context("write"),
        }
        slots.for_each(|slot| self.ledger.finish(slot));
        Ok(true)
    }

    /// Punches the pages of `slots`, all of one writer; the file has a cycle. `Ok(false)`: no space
    /// to do so; the slots are as they were.
    pub fn punch(&self, log: &Log, file: &File, slots: Range<u64>) -> Result<bool> {
        for slot in slots.clone() {
            let gen = self.ledger.stored(slot).next_multiple_of(self.cycle);
            self.ledger.begin(log, slot, gen)?;
        }
        let offset = slots.start * SLOT;
        match sys::punch(file, offset, slots.end * SLOT - offset) {
            Ok(()) => slots.for_each(|slot| self.ledger.finish(slot)),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                slots.for_each(|slot| self.ledger.give_up(slot));
                return Ok(false);
            }
            Err(error) => return Err(error).context("punch"),
        }
        Ok(true)
    }

    /// msync of the pages in `range` (bytes of the file), mapped by `map` from byte `base`.
    pub fn msync(&self, log: &Log, map: &Map, base: u64, range: Range<u64>) -> Result<()> {
        let slots = self.covered(&range);
        self.ledger
            .promise(log, slots, || {
                map.sync(range.start - base..range.end - base)
            })
            .context("msync")
    }

    /// fsync, or fdatasync, which promise the same here: the size does not change.
    pub fn fsync(&self, log: &Log, file: &File, data_only: bool) -> Result<()> {
        self.ledger
            .promise(log, 0..self.slots, || {
                if data_only {
                    file.sync_data()
                } else {
                    file.sync_all()
                }
            })
            .context("fsync")
    }

    /// Checks `slot` while its writer may be storing to it: the newest whole record is no older
    /// than what was stored before the look and no newer than what was begun after it.
    pub fn check(&self, view: View<'_>, slot: u64) -> Result<()> {
        let identity = self.identity(slot);
        for _ in 0..100 {
            let (stored, begun) = (self.ledger.stored(slot), self.ledger.begun(slot));
            let Some(bytes) = view.slot(slot)? else {
                return Err(self.mismatch(slot, "a slot".into(), "the end of the file".into()));
            };
            let (gen, bad) = identity.read(&bytes);
            let quiet = self.ledger.begun(slot) == begun;
            if !quiet {
                continue;
            }
            let held = if stored == begun {
                bytes == identity.contents(stored)
            } else {
                bad <= 1 && identity.survived(&bytes, stored..=begun).is_ok()
            };
            if held {
                return Ok(());
            }
            return Err(self.mismatch(
                slot,
                format!("generation {stored}..{begun} of writer {}", identity.writer),
                format!("{} ({}, newest {gen})", describe_slot(&bytes), view.name()),
            ));
        }
        Ok(())
    }

    /// Checks a slot of a file that is truncated meanwhile: zero, past the end, or records of its
    /// own, whole or cut by zeroes.
    pub fn check_own(&self, view: View<'_>, slot: u64) -> Result<()> {
        let Some(bytes) = view.slot(slot)? else {
            return Ok(());
        };
        // One more, for a store that was seen and then taken back by a truncation.
        self.file
            .own(slot, &bytes, self.ledger.begun(slot) + 1, view.name())
    }
}

impl SlotFile {
    /// Checks that `bytes` are zero or from this slot's own records up to generation `newest`.
    pub fn own(&self, slot: u64, bytes: &SlotBytes, newest: u64, how: &str) -> Result<()> {
        let identity = self.identity(slot);
        if identity.owns(bytes, newest) {
            return Ok(());
        }
        let expected = format!(
            "zeroes or records of writer {} up to {newest}",
            identity.writer
        );
        Err(self.mismatch(slot, expected, format!("{} ({how})", describe_slot(bytes))))
    }
}
