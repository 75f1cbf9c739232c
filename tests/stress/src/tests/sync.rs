// SPDX-License-Identifier: GPL-2.0

//! Tests of the sync calls: what they promise, who may call them, how often.

use std::os::unix::fs::MetadataExt;

use anyhow::{ensure, Context, Result};
use rdax_test_sys::sync_file_range;

use crate::slots::{Owner, Rule, View};
use crate::sys::{self, PAGE};
use crate::test::{nothing, Test, Worker};

/// msync of random ranges, all workers dirtying the same pages.
pub const MSYNC: Test = Test {
    name: "msync",
    about: "stores to shared pages by all workers, msync of random ranges, now and then fsync",
    setup: |setup| {
        let (size, workers) = (setup.run().size, setup.run().workers);
        setup.half_filled("file", size, Owner::Slots(workers), Rule::Exact)
    },
    run: msync,
    finish: nothing,
    keep: true,
};

fn msync(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[0];
    let (fd, map) = file.open()?;
    while w.running() {
        let stores = w.rng.u64(1..=16);
        for _ in 0..stores {
            let slot = w.own(file, w.index);
            file.must_store(&w.log, &map, 0, slot)?;
        }
        match w.rng.u32(0..16) {
            0 => file.fsync(&w.log, &fd, false)?,
            1 => file.fsync(&w.log, &fd, true)?,
            2 => file.msync(&w.log, &map, 0, 0..file.bytes())?,
            _ => {
                let most = if w.one_in(4) { 64 } else { 4 };
                let range = w.pages(file, most);
                file.msync(&w.log, &map, 0, range)?;
            }
        }
        for _ in 0..4 {
            let slot = w.rng.u64(0..file.slots);
            let view = if w.rng.bool() {
                View::Map(&map)
            } else {
                View::Read(&fd)
            };
            file.check(view, slot)?;
        }
        w.count(stores + 1);
    }
    Ok(())
}

/// One half of the processes stores and never syncs, the other syncs and never maps.
pub const FSYNC_OTHER: Test = Test {
    name: "fsync-other",
    about: "half of the workers only store; fsync, fdatasync, syncfs come from the others",
    setup: |setup| {
        let (size, workers) = (setup.run().size / 2, setup.run().workers);
        setup.half_filled("file", size, Owner::Slots(workers.div_ceil(2)), Rule::Exact)
    },
    run: fsync_other,
    finish: nothing,
    keep: true,
};

fn fsync_other(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[0];
    if w.index % 2 == 0 {
        let (_, map) = file.open()?;
        while w.running() {
            let slot = w.own(file, w.index / 2);
            file.must_store(&w.log, &map, 0, slot)?;
            w.count(1);
            if w.one_in(64) {
                std::thread::yield_now();
            }
        }
        return Ok(());
    }
    let fd = sys::open(&file.path)?;
    while w.running() {
        match w.rng.u32(0..8) {
            0 => file
                .ledger
                .promise(&w.log, 0..file.slots, || sys::syncfs(&fd))
                .context("syncfs")?,
            1 => sync_file_range(&fd, 0, 0)?,
            2..=4 => file.fsync(&w.log, &fd, true)?,
            _ => file.fsync(&w.log, &fd, false)?,
        }
        let slot = w.rng.u64(0..file.slots);
        file.check(View::Read(&fd), slot)?;
        w.count(1);
    }
    Ok(())
}

/// Few pages, each stored to and synced again and again.
pub const HOT: Test = Test {
    name: "hot",
    about: "one page of all workers and one of each, stored and synced for ever; mtime moves",
    setup: |setup| {
        let workers = setup.run().workers;
        setup.half_filled("shared", PAGE, Owner::Slots(workers), Rule::Exact)?;
        for worker in 0..workers {
            let name = format!("own{worker}");
            setup.half_filled(&name, 8 * PAGE, Owner::Slots(1), Rule::Exact)?;
        }
        Ok(())
    },
    run: hot,
    finish: nothing,
    keep: true,
};

fn hot(w: &mut Worker) -> Result<()> {
    let shared = &w.run.files[0];
    let own = &w.run.files[1 + w.index as usize];
    let (_, shared_map) = shared.open()?;
    let (fd, map) = own.open()?;
    // tmpfs does not see stores to pages that are dirty already.
    let stamps = !sys::is_tmpfs(&fd)?;
    let mut times = [(0, 0); 2];
    while w.running() {
        let slot = w.own(own, 0) % (PAGE / crate::record::SLOT);
        own.must_store(&w.log, &map, 0, slot)?;
        match w.rng.u32(0..4) {
            0 => own.fsync(&w.log, &fd, false)?,
            1 => own.fsync(&w.log, &fd, true)?,
            _ => own.msync(&w.log, &map, 0, 0..PAGE)?,
        }
        if stamps {
            let stat = fd.metadata()?;
            let now = [
                (stat.mtime(), stat.mtime_nsec()),
                (stat.ctime(), stat.ctime_nsec()),
            ];
            // The last look at the times makes the next change of them show, however soon it comes.
            ensure!(
                now[0] != times[0] && now[1] != times[1],
                "MISMATCH {}: a store was synced, and mtime or ctime are what they were: {now:?}",
                own.path.display()
            );
            times = now;
        }
        let slot = w.own(shared, w.index);
        shared.must_store(&w.log, &shared_map, 0, slot)?;
        shared.msync(&w.log, &shared_map, 0, 0..shared.bytes())?;
        let slot = w.rng.u64(0..shared.slots);
        shared.check(View::Map(&shared_map), slot)?;
        w.count(2);
    }
    Ok(())
}
