// SPDX-License-Identifier: GPL-2.0

//! Files that shrink, are punched and recycled under stores.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{bail, ensure, Context, Result};
use rdax_test_sys::Fault;

use crate::record::{describe_slot, RECORD, SLOT};
use crate::slots::{Owner, Rule, Tracked, View};
use crate::sys::{self, Map, PAGE};
use crate::test::{Run, Setup, Test, Worker};

/// Truncation and punching under writers, with other files waiting for the blocks.
pub const TRUNCATE: Test = Test {
    name: "truncate",
    about: "truncate and punch under stores: SIGBUS, zeroes or own records, never foreign bytes",
    setup,
    run,
    finish,
    keep: true,
};

fn setup(setup: &mut Setup) -> Result<()> {
    let (size, workers) = (setup.run().size / 2, setup.run().workers);
    setup.file("victim", size, Owner::Slots(workers), Rule::Own)?;
    for worker in 0..workers {
        // Whoever does not recycle leaves it empty.
        let bytes = size / 2 / u64::from(workers);
        setup.file(
            &format!("recycled{worker}"),
            bytes,
            Owner::Slots(1),
            Rule::Own,
        )?;
    }
    Ok(())
}

fn run(w: &mut Worker) -> Result<()> {
    match w.index % 4 {
        0 => cut(w),
        2 => recycle(w),
        _ => store(w),
    }
}

/// Makes the victim shorter, longer, hollow.
fn cut(w: &mut Worker) -> Result<()> {
    let victim = &w.run.files[0];
    let fd = sys::open(&victim.path)?;
    let size = victim.bytes();
    let tail = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(w.run.dir.join(format!("tail{}", w.index)))?;
    while w.running() {
        match w.rng.u32(0..8) {
            0 => fd.set_len(w.rng.u64(0..size))?,
            1 => {
                fd.set_len(w.rng.u64(0..size))?;
                fd.set_len(size)?;
            }
            2..=4 => {
                let offset = w.rng.u64(0..size);
                let len = w.rng.u64(1..=(size - offset).min(64 * PAGE));
                sys::punch(&fd, offset, len).context("punch")?;
            }
            5 => {
                let first = w.rng.u64(0..size / PAGE);
                sys::fallocate(&fd, first * PAGE, PAGE).context("fallocate")?;
            }
            6 => check_tail(w, &tail)?,
            _ => fd.sync_all()?,
        }
        if w.one_in(2) {
            fd.set_len(size)?;
        }
        w.count(1);
    }
    fd.set_len(size)?;
    Ok(())
}

/// Cuts a file of its own at an odd place, stores past the end, and lets it grow again: all past
/// the cut is zero, all before it is kept.
fn check_tail(w: &mut Worker, file: &File) -> Result<()> {
    const PAGES: u64 = 3;
    const LEN: usize = (PAGES * PAGE) as usize;
    file.set_len(0)?;
    file.set_len(PAGES * PAGE)?;
    let map = Map::shared(file, 0, PAGES * PAGE).context("mmap")?;
    let fault = |fault: Fault| anyhow::anyhow!("{fault:?} inside of the file");
    map.store(0, &[0xab; LEN]).map_err(fault)?;
    if w.rng.bool() {
        map.sync(0..PAGES * PAGE)?;
    }
    let cut = w.rng.u64(1..PAGES * PAGE);
    file.set_len(cut)?;
    let end = cut.next_multiple_of(PAGE);
    // Allowed, and not part of the file. tmpfs is known to forget that.
    if w.rng.bool() && end - cut >= 8 && !sys::is_tmpfs(file)? {
        map.store(end - 8, &[0xcd; 8]).map_err(fault)?;
    }
    if end < PAGES * PAGE {
        ensure!(
            map.store(end, &[0xcd; 8]) == Err(Fault::Bus),
            "a store past the last page of the file did not fault"
        );
    }
    let grown = w.rng.u64(cut + 1..=PAGES * PAGE + PAGE);
    file.set_len(grown)?;
    let mut read = vec![0xee; grown as usize];
    file.read_exact_at(&mut read, 0)?;
    // What lies in the last page past the end is nobody's business.
    let mut mapped = vec![0; LEN.min(grown.next_multiple_of(8) as usize)];
    map.load(0, &mut mapped).map_err(fault)?;
    mapped.truncate(grown as usize);
    for (how, bytes) in [("read", &read), ("mapped", &mapped)] {
        let expected = |at: usize| if (at as u64) < cut { 0xab } else { 0 };
        let wrong = bytes
            .iter()
            .enumerate()
            .find(|(at, byte)| **byte != expected(*at));
        if let Some((at, byte)) = wrong {
            bail!(
                "MISMATCH tail{} offset {at:#x}: expected {:#x}, found {byte:#x} ({how}; {} bytes \
                 cut to {cut}, grown to {grown})",
                w.index,
                expected(at),
                PAGES * PAGE
            );
        }
    }
    Ok(())
}

/// Stores to the victim and looks at it.
fn store(w: &mut Worker) -> Result<()> {
    let victim = &w.run.files[0];
    let (fd, map) = victim.open()?;
    while w.running() {
        let slot = w.own(victim, w.index);
        match victim.store(&w.log, &map, 0, slot)? {
            Ok(()) => (),
            Err(Fault::Bus) => std::thread::yield_now(),
            Err(Fault::Segv) => bail!("SIGSEGV in a mapping that is writable"),
        }
        let slot = w.rng.u64(0..victim.slots);
        let view = if w.rng.bool() {
            View::Map(&map)
        } else {
            View::Read(&fd)
        };
        victim.check_own(view, slot)?;
        match w.rng.u32(0..32) {
            0 => fd.sync_data()?,
            1..=3 => {
                let range = w.pages(victim, 16);
                map.sync(range)?;
            }
            _ => (),
        }
        w.count(1);
    }
    Ok(())
}

/// Makes and empties a file again and again, so that blocks wander between it and the victim.
fn recycle(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[1 + w.index as usize];
    let victim = &w.run.files[0];
    let (fd, map) = file.open()?;
    let victim_map = victim.open()?.1;
    while w.running() {
        fd.set_len(0)?;
        fd.set_len(file.bytes())?;
        for _ in 0..8 {
            let slot = w.own(file, 0);
            let fresh = View::Map(&map).slot(slot)?;
            let used_before = fresh != Some([0; SLOT as usize]);
            file.must_store(&w.log, &map, 0, slot)?;
            if !used_before {
                check_first(file, &map, slot)?;
            }
            file.check_own(View::Read(&fd), slot)?;
            let slot = w.rng.u64(0..victim.slots);
            victim.check_own(View::Map(&victim_map), slot)?;
        }
        w.count(8);
        if w.one_in(8) {
            fd.sync_all()?;
        }
    }
    Ok(())
}

/// Checks a slot that was zero before the store just made.
fn check_first(file: &Tracked, map: &Map, slot: u64) -> Result<()> {
    let gen = file.ledger.stored(slot);
    let mut expected = [0; SLOT as usize];
    let at = ((gen & 1) * RECORD) as usize;
    expected[at..at + RECORD as usize].copy_from_slice(&file.identity(slot).record(gen));
    let found = View::Map(map).slot(slot)?.unwrap_or([0; SLOT as usize]);
    ensure!(
        found == expected,
        file.mismatch(
            slot,
            format!("generation {gen} alone"),
            describe_slot(&found)
        )
    );
    Ok(())
}

/// What is truncated to nothing and grows again is zero everywhere.
fn finish(run: &Run) -> Result<()> {
    let victim = &run.files[0];
    let (fd, map) = victim.open()?;
    fd.set_len(0)?;
    fd.set_len(victim.bytes())?;
    for slot in 0..victim.slots {
        for view in [View::Map(&map), View::Read(&fd)] {
            let found = view.slot(slot)?.unwrap_or([1; SLOT as usize]);
            ensure!(
                found == [0; SLOT as usize],
                victim.mismatch(
                    slot,
                    "zeroes after truncation".into(),
                    describe_slot(&found)
                )
            );
        }
    }
    Ok(())
}
