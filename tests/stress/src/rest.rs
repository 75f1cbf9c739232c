// SPDX-License-Identifier: GPL-2.0

//! Files of slots at rest: verified as a whole, at the end of a run and in a later boot.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{ensure, Context, Result};

use crate::ledger::Promises;
use crate::record::{describe_slot, SlotBytes, SLOT};
use crate::slots::{Owner, Rule, SlotFile, Tracked};
use crate::sys::{self, Aligned, Map, PAGE};

/// All bytes of a file; what lies past its end is zero.
struct Whole(Aligned);

impl Whole {
    fn read(file: &SlotFile, fd: &File) -> Result<Whole> {
        let mut whole = Whole(Aligned::new(file.bytes()));
        let mut done = 0;
        while done < file.bytes() as usize {
            match fd.read_at(&mut whole.0.bytes()[done..], done as u64)? {
                0 => break,
                len => done += len,
            }
        }
        Ok(whole)
    }

    fn load(file: &SlotFile, map: &Map, length: u64) -> Result<Whole> {
        let mut whole = Whole(Aligned::new(file.bytes()));
        let pages = whole.0.bytes().chunks_exact_mut(PAGE as usize);
        for (page, at) in pages.zip((0..length).step_by(PAGE as usize)) {
            let loaded = map.load(at, page);
            ensure!(
                loaded.is_ok(),
                file.mismatch(at / SLOT, "a page".into(), format!("{loaded:?}"))
            );
        }
        Ok(whole)
    }

    fn slot(&mut self, slot: u64) -> SlotBytes {
        let at = (slot * SLOT) as usize;
        let mut bytes = [0; SLOT as usize];
        bytes.copy_from_slice(&self.0.bytes()[at..at + SLOT as usize]);
        bytes
    }
}

/// Checks a file that nobody uses: it is the same by read(2), by mapping and by O_DIRECT, and
/// every slot holds what the ledger says.
pub fn check_all(file: &Tracked) -> Result<()> {
    let (fd, map) = file.open()?;
    let length = fd.metadata()?.len();
    if file.rule == Rule::Exact {
        ensure!(
            length == file.bytes(),
            "MISMATCH {}: expected {} bytes, found {length}",
            file.path.display(),
            file.bytes()
        );
    }
    let mut read = Whole::read(file, &fd).context("read")?;
    let direct = Whole::read(file, &sys::open_direct(&file.path)?).context("O_DIRECT")?;
    let mapped = Whole::load(file, &map, length)?;
    for (mut other, how) in [(mapped, "mapped"), (direct, "O_DIRECT")] {
        if other.0.bytes() == read.0.bytes() {
            continue;
        }
        let differs = (0..file.slots).find(|&slot| other.slot(slot) != read.slot(slot));
        let slot = differs.unwrap_or(0);
        let expected = format!("{}, as read", describe_slot(&read.slot(slot)));
        let found = format!("{} ({how})", describe_slot(&other.slot(slot)));
        return Err(file.mismatch(slot, expected, found));
    }
    for slot in 0..file.slots {
        let bytes = read.slot(slot);
        if file.rule == Rule::Own {
            file.own(slot, &bytes, file.ledger.begun(slot) + 1, "at rest")?;
            continue;
        }
        let gen = file.ledger.stored(slot);
        if bytes != file.identity(slot).contents(gen) {
            let expected = format!("generation {gen} of writer {}", file.writer(slot));
            let found = format!("{} (at rest)", describe_slot(&bytes));
            return Err(file.mismatch(slot, expected, found));
        }
    }
    Ok(())
}

/// Verifies a file against what a ledger directory promises, in a later boot. Gives the number of
/// torn records.
pub fn verify(file: &SlotFile, promises: &Promises) -> Result<u64> {
    let fd = File::open(&file.path).with_context(|| file.path.display().to_string())?;
    let length = fd.metadata()?.len();
    ensure!(
        file.rule == Rule::Own || length >= file.bytes(),
        "MISMATCH {}: expected {} bytes, found {length}",
        file.path.display(),
        file.bytes()
    );
    let mut whole = Whole::read(file, &fd).context("read")?;
    let mut torn = 0;
    for slot in 0..file.slots {
        let bytes = whole.slot(slot);
        if file.rule == Rule::Own {
            file.own(slot, &bytes, promises.ceiling, "at rest")?;
            continue;
        }
        let allowed = promises.allowed(slot);
        match file.identity(slot).survived(&bytes, allowed.clone()) {
            Ok(halves) => torn += u64::from(halves),
            Err(what) => {
                let expected = match (allowed.start(), allowed.end()) {
                    (promised, newest) if promised == newest => format!("generation {promised}"),
                    (promised, newest) => format!("generation {promised} (promised) to {newest}"),
                };
                let found = format!("{what} in {}", describe_slot(&bytes));
                return Err(file.mismatch(slot, expected, found));
            }
        }
    }
    let (Owner::Slots(writers) | Owner::Pages(writers)) = file.owner;
    // Each writer can have been in the middle of one store; a write(2) tears no more.
    ensure!(
        torn <= u64::from(writers),
        file.mismatch(0, format!("at most {writers} torn"), torn.to_string())
    );
    Ok(torn)
}
