// SPDX-License-Identifier: GPL-2.0

//! Tests of what a process can do to its mappings while their pages are dirty.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{bail, ensure, Context, Result};
use rdax_test_sys::{End, Fault};

use crate::record::{describe_slot, Identity, SLOT};
use crate::slots::{Owner, Rule, Tracked, View, SLOTS_PER_PAGE};
use crate::sys::{self, Map, PAGE};
use crate::test::{nothing, Setup, Test, Worker};

/// A file in which every worker owns slots of every page.
fn shared_file(setup: &mut Setup) -> Result<()> {
    let (size, workers) = (setup.run().size / 2, setup.run().workers);
    setup.half_filled("file", size, Owner::Slots(workers), Rule::Exact)
}

/// Children store to an inherited mapping and go; the parent syncs.
pub const FORK: Test = Test {
    name: "fork",
    about: "parent and forked child store to one mapping, the child ends, the parent syncs",
    setup: shared_file,
    run: fork,
    finish: nothing,
    keep: true,
};

fn fork(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[0];
    let (fd, map) = file.open()?;
    while w.running() {
        let before = w.own(file, w.index);
        file.must_store(&w.log, &map, 0, before)?;
        let childs: [u64; 8] = std::array::from_fn(|_| w.own(file, w.index));
        let log = &w.log;
        let child = rdax_test_sys::fork(|| {
            for slot in childs {
                if !matches!(file.store(log, &map, 0, slot), Ok(Ok(()))) {
                    return 1;
                }
            }
            0
        })?;
        // Not while the child runs: a slot has one writer. Other slots are free to use.
        let meanwhile = w.rng.u64(0..file.slots);
        file.check(View::Map(&map), meanwhile)?;
        let end = child.wait()?;
        ensure!(
            end == End::Exit(0),
            "the child of a fork ended with {end:?}"
        );
        match w.rng.u32(0..3) {
            0 => file.msync(&w.log, &map, 0, 0..file.bytes())?,
            1 => file.fsync(&w.log, &fd, false)?,
            _ => {
                let page = childs[0] * SLOT / PAGE * PAGE;
                file.msync(&w.log, &map, 0, page..page + PAGE)?;
            }
        }
        for slot in childs {
            file.check(View::Read(&fd), slot)?;
        }
        w.count(childs.len() as u64 + 2);
    }
    Ok(())
}

/// Pages dirtied through a mapping that is gone before the sync.
pub const MUNMAP: Test = Test {
    name: "munmap",
    about: "dirty a window, munmap it, close the file, sync through a new descriptor",
    setup: shared_file,
    run: munmap,
    finish: nothing,
    keep: true,
};

fn munmap(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[0];
    while w.running() {
        let window = w.pages(file, 32);
        let fd = sys::open(&file.path)?;
        let len = window.end - window.start;
        let map = Map::shared(&fd, window.start, len).context("mmap")?;
        let mut stores = 0;
        for _ in 0..w.rng.u32(1..24) {
            let Some(slot) = own_within(w, file, &window) else {
                break;
            };
            file.must_store(&w.log, &map, window.start, slot)?;
            stores += 1;
        }
        if w.one_in(4) {
            // Part of it first: a hole in the middle.
            let first = w.rng.u64(0..len / PAGE) * PAGE;
            map.unmap(first..first + PAGE)?;
        }
        drop(map);
        let fd = if w.rng.bool() {
            drop(fd);
            sys::open(&file.path)?
        } else {
            fd
        };
        let data_only = w.rng.bool();
        file.fsync(&w.log, &fd, data_only)?;
        let slot = w.rng.u64(0..file.slots);
        file.check(View::Read(&fd), slot)?;
        w.count(stores + 2);
    }
    Ok(())
}

/// A slot of the worker's within `window`, if there is one.
fn own_within(w: &mut Worker, file: &Tracked, window: &Range<u64>) -> Option<u64> {
    let slots = file.covered(window);
    let start = w.rng.u64(slots.clone());
    (start..slots.end)
        .chain(slots.start..start)
        .find(|&slot| file.writer(slot) == w.index)
}

/// Dirty pages whose mapping moves or drops its page table entries before the sync.
pub const REMAP: Test = Test {
    name: "remap",
    about: "mremap, MADV_DONTNEED and process_vm_writev between the stores and the sync",
    setup: shared_file,
    run: remap,
    finish: nothing,
    keep: true,
};

fn remap(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[0];
    let (fd, mut map) = file.open()?;
    while w.running() {
        let stores = w.rng.u64(1..12);
        for _ in 0..stores {
            let slot = w.own(file, w.index);
            if w.one_in(4) {
                store_remotely(w, file, &map, slot)?;
            } else {
                file.must_store(&w.log, &map, 0, slot)?;
            }
            if w.one_in(4) {
                let page = slot * SLOT / PAGE * PAGE;
                map.drop_pages(page..page + PAGE).context("madvise")?;
            }
        }
        match w.rng.u32(0..4) {
            0 => map.relocate().context("mremap")?,
            1 => map.drop_pages(0..file.bytes()).context("madvise")?,
            _ => (),
        }
        if w.rng.bool() {
            file.fsync(&w.log, &fd, true)?;
        } else {
            let range = w.pages(file, 64);
            file.msync(&w.log, &map, 0, range)?;
        }
        let slot = w.rng.u64(0..file.slots);
        file.check(View::Map(&map), slot)?;
        w.count(stores + 1);
    }
    Ok(())
}

/// Stores the next generation of `slot` by process_vm_writev.
fn store_remotely(w: &Worker, file: &Tracked, map: &Map, slot: u64) -> Result<()> {
    let gen = file.next(slot);
    file.ledger.begin(&w.log, slot, gen)?;
    let record = file.identity(slot).record(gen);
    let at = slot * SLOT + (gen & 1) * crate::record::RECORD;
    let len = map
        .write_remotely(at, &record)
        .context("process_vm_writev")?;
    ensure!(len == record.len(), "process_vm_writev wrote {len} bytes");
    file.ledger.finish(slot);
    Ok(())
}

/// Protections that change around the stores.
pub const MPROTECT: Test = Test {
    name: "mprotect",
    about: "a second thread toggles the protection under the stores; read-only means read-only",
    setup: shared_file,
    run: mprotect,
    finish: nothing,
    keep: true,
};

fn mprotect(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[0];
    let (fd, map) = file.open()?;
    let mut toggles = w.rng.fork();
    let quit = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let toggler = scope.spawn(|| -> Result<()> {
            while !quit.load(std::sync::atomic::Ordering::Relaxed) {
                let len = toggles.u64(1..=file.pages());
                let first = toggles.u64(0..=file.pages() - len);
                let range = first * PAGE..(first + len) * PAGE;
                map.protect(range.clone(), false).context("mprotect")?;
                std::thread::yield_now();
                map.protect(range, true).context("mprotect")?;
                std::thread::yield_now();
            }
            Ok(())
        });
        let result = toggled_stores(w, file, &fd, &map);
        quit.store(true, std::sync::atomic::Ordering::Relaxed);
        result.and(toggler.join().expect("the toggler does not panic"))
    })?;
    // Alone again: a store to a read-only page must fault, also to one that was just written.
    map.protect(0..file.bytes(), false)?;
    let slot = w.own(file, w.index);
    ensure!(
        file.store(&w.log, &map, 0, slot)? == Err(Fault::Segv),
        "a store to a read-only mapping did not fault"
    );
    Ok(())
}

fn toggled_stores(w: &mut Worker, file: &Tracked, fd: &std::fs::File, map: &Map) -> Result<()> {
    while w.running() {
        let mut stores = 0;
        for _ in 0..8 {
            let slot = w.own(file, w.index);
            // The protection may change in the middle of a record, so it is finished later.
            let again = |fault| {
                std::thread::yield_now();
                fault == Fault::Segv
            };
            match file.store_until(&w.log, map, 0, slot, again)? {
                Ok(()) => stores += 1,
                Err(fault) => bail!("{fault:?} inside of the file"),
            }
        }
        if w.one_in(4) {
            let range = w.pages(file, 16);
            file.msync(&w.log, map, 0, range)?;
        } else if w.one_in(4) {
            file.fsync(&w.log, fd, false)?;
        }
        let slot = w.rng.u64(0..file.slots);
        file.check(View::Map(map), slot)?;
        w.count(stores + 1);
    }
    Ok(())
}

/// Private mappings beside shared ones.
pub const PRIVATE: Test = Test {
    name: "private",
    about: "stores to private mappings stay private, in every order with shared ones",
    setup: shared_file,
    run: private,
    finish: nothing,
    keep: true,
};

fn private(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[0];
    let (fd, map) = file.open()?;
    let mine = Map::private(&fd, file.bytes()).context("mmap")?;
    // Whom the stores to the private mapping claim to be: no writer of any file.
    let poison = |slot| Identity {
        writer: u32::MAX,
        ..file.identity(slot)
    };
    let mut poisoned: HashMap<u64, u64> = HashMap::new();
    let mut gen = 0;
    while w.running() {
        let slot = w.own(file, w.index);
        file.must_store(&w.log, &map, 0, slot)?;
        let target = w.rng.u64(0..file.slots);
        gen += 1;
        mine.store(target * SLOT, &poison(target).contents(gen))
            .map_err(|fault| {
                file.mismatch(
                    target,
                    "a store to a private mapping".into(),
                    format!("{fault:?}"),
                )
            })?;
        poisoned.insert(target, gen);
        let range = w.pages(file, 16);
        if w.one_in(8) {
            mine.sync(range.clone())
                .context("msync of a private mapping")?;
        }
        if w.one_in(16) {
            mine.drop_pages(range.clone()).context("madvise")?;
            let slots = file.covered(&range);
            poisoned.retain(|slot, _| !slots.contains(slot));
        }
        file.msync(&w.log, &map, 0, range)?;
        check_private(w, file, &mine, &poisoned, poison)?;
        let slot = w.rng.u64(0..file.slots);
        for view in [View::Map(&map), View::Read(&fd)] {
            file.check(view, slot)?;
            file.check(view, target)?;
        }
        w.count(3);
        if poisoned.len() as u64 > 32 * SLOTS_PER_PAGE {
            mine.drop_pages(0..file.bytes()).context("madvise")?;
            poisoned.clear();
        }
    }
    Ok(())
}

/// Checks one slot stored to in the private mapping, and one in a page never copied.
fn check_private(
    w: &mut Worker,
    file: &Tracked,
    mine: &Map,
    poisoned: &HashMap<u64, u64>,
    poison: impl Fn(u64) -> Identity,
) -> Result<()> {
    let slot = w.rng.u64(0..file.slots);
    if let Some(gen) = poisoned.get(&slot) {
        let found = View::Map(mine).slot(slot)?.unwrap_or([0; SLOT as usize]);
        ensure!(
            found == poison(slot).contents(*gen),
            file.mismatch(slot, "a private copy".into(), describe_slot(&found))
        );
        return Ok(());
    }
    let page = slot / SLOTS_PER_PAGE;
    let copied = poisoned.keys().any(|slot| slot / SLOTS_PER_PAGE == page);
    if copied {
        return Ok(());
    }
    file.check(View::Map(mine), slot)
}
