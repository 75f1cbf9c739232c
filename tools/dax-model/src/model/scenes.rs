// SPDX-License-Identifier: GPL-2.0

//! Scenes with mappings of pages.

use std::cell::Cell;

use shuttle::sync::atomic::Ordering::SeqCst;
use shuttle::sync::Arc;
use shuttle::thread;

use crate::mutate::make_mistake;
use crate::track::heat::PATIENCE;
use crate::track::machine::Tracking;

use super::machine::{File, Machine};
use super::memory::{nth, Pte};
use super::mistakes::Mistake;

/// One scene: what its threads do.
pub type Scene = fn(Mistake);

/// Runs a scene under many schedules, twice: random ones, and PCT with three changes.
pub fn explore(scene: Scene, mistake: Mistake, rounds: usize) {
    // All threads of the model run on this one.
    make_mistake(mistake.switch());
    shuttle::check_random(move || scene(mistake), rounds);
    shuttle::check_pct(move || scene(mistake), rounds, 3);
}

thread_local! {
    static MAPS_AHEAD: Cell<bool> = const { Cell::new(false) };
}

/// Whether a store also maps the page after its own, as the next one in a row.
pub fn maps_ahead() -> bool {
    MAPS_AHEAD.get()
}

/// Runs `work` with pages mapped ahead.
pub fn with_pages_ahead(work: impl FnOnce()) {
    MAPS_AHEAD.set(true);
    work();
    MAPS_AHEAD.set(false);
}

/// As [`explore`], with pages mapped ahead.
pub fn explore_ahead(scene: Scene, mistake: Mistake, rounds: usize) {
    with_pages_ahead(|| explore(scene, mistake, rounds));
}

pub fn join(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

pub fn run(
    machine: &Arc<Machine>,
    f: impl FnOnce(&Machine) + Send + 'static,
) -> thread::JoinHandle<()> {
    let machine = machine.clone();
    thread::spawn(move || f(&machine))
}

fn machine(mistake: Mistake, file: File) -> Arc<Machine> {
    Machine::new(mistake, file, [false; 2])
}

/// Makes the first page hot.
pub fn make_hot(m: &Machine) {
    for _ in 0..3 {
        m.store(0, 0);
        m.sync(0, 0);
    }
}

/// Writers in two mappings, two syncs, of one page and of both.
pub fn stores_and_syncs(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.store(0, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| {
            m.store(1, 0);
            m.store(1, 1);
            m.sync_file();
        }),
        run(&m, |m| {
            m.store(0, 0);
            m.sync_file();
        }),
    ]);
    m.sync_file();
}

/// A fence fails, while others sync the same page.
pub fn failing_fence(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    m.store(0, 0);
    m.fence_fails.store(true, SeqCst);
    join(vec![
        run(&m, |m| m.sync(0, 0)),
        run(&m, |m| m.sync_file()),
        run(&m, |m| {
            m.store(1, 0);
            m.sync(0, 0);
        }),
    ]);
}

/// A page that became hot is stored to, left alone, and unmapped while syncs run.
pub fn hot_pages(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    make_hot(&m);
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.sync(0, 0);
            m.store(0, 0);
            m.sync_file();
        }),
        run(&m, |m| {
            m.store(1, 1);
            m.sync_file();
            m.store(1, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| m.sync_all()),
    ]);
    m.sync_file();
    // What nobody stores to cools down, and moves no time.
    let moved = m.moved.load(SeqCst);
    for _ in 0..=PATIENCE {
        m.sync_file();
    }
    m.sync_all();
    assert_eq!(m.moved.load(SeqCst), moved, "times move without a store");
}

/// A hot page that is about to be given up is stored to while syncs run.
pub fn cooling_pages(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    make_hot(&m);
    for _ in 1..PATIENCE {
        m.sync_file();
    }
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| {
            m.sync_file();
            m.store(1, 0);
        }),
        run(&m, |m| m.sync_all()),
    ]);
    m.sync_file();
}

/// Pages of a mapping that is locked in memory, and stored to through another one, too, are synced.
pub fn locked_pages(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    m.tracker.is_locked.store(true, SeqCst);
    locked(&m, PATIENCE);
}

/// The syncs of a file do not make the stores of a locked mapping fault, and move its times only
/// for a store, for more than `left_alone` syncs without one. When it is not locked any more, the
/// file is like any other.
pub fn locked(m: &Arc<Machine>, left_alone: u8) {
    m.store(0, 0);
    m.store(0, 1);
    m.tracker.is_locked.store(true, SeqCst);
    let faults = m.faults[0].load(SeqCst);
    join(vec![
        run(m, |m| {
            m.store(0, 0);
            m.sync(0, 0);
            m.store(0, 0);
            m.sync_file();
        }),
        run(m, |m| {
            m.store(1, 1);
            m.sync_all();
            m.store(0, 1);
        }),
        run(m, |m| {
            m.sync_all();
            m.sync_file();
        }),
    ]);
    m.sync_file();
    let moved = m.moved.load(SeqCst);
    for _ in 0..=left_alone {
        m.sync_file();
    }
    m.sync_all();
    assert_eq!(m.moved.load(SeqCst), moved, "times move without a store");
    m.store(0, 0);
    m.store(0, 1);
    assert_eq!(
        m.faults[0].load(SeqCst),
        faults,
        "a sync made a store fault"
    );
    m.reclaim();
    assert!(!m.tracker.is_unused(), "what is locked is given back");
    m.assert_rest();
    m.freeze();
    m.store(0, 0);
    m.tracker.is_locked.store(false, SeqCst);
    for _ in 0..=left_alone {
        m.sync_all();
    }
    if left_alone == 0 {
        m.freeze();
    }
    m.assert_no_stores();
    assert!(!m.tracker.is_any_marked(), "dirty after a sync of all");
}

/// A page is tagged outside of a fault while syncs run, and unmapped while dirty.
pub fn zaps_and_dma(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    join(vec![
        run(&m, |m| {
            m.dma(0, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| {
            m.store(1, 0);
            m.zap(1, 0);
            m.store(1, 1);
            m.sync_file();
        }),
        run(&m, |m| {
            m.sync_all();
            m.zap(0, 0);
        }),
    ]);
    m.sync_file();
}

/// DMA ends after a freeze, which leaves all clean, pinned or not.
pub fn dma_and_freeze(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    join(vec![
        run(&m, |m| {
            m.dma(0, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| {
            m.freeze();
            m.store(1, 1);
        }),
    ]);
    m.sync_file();
}

/// The first writable mapping appears while a sync of pages dirtied by an earlier one runs.
pub fn late_mapping(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    m.store(0, 0);
    m.zap(0, 0);
    m.tracker.writable.store(0, SeqCst);
    join(vec![
        run(&m, |m| m.sync(0, 0)),
        run(&m, |m| {
            m.tracker.writable.store(1, SeqCst);
            m.store(1, 0);
            m.store(1, 0);
            m.sync(0, 0);
        }),
    ]);
}

/// Truncation against writers, pins and syncs.
pub fn truncation(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    join(vec![
        run(&m, |m| m.dma(0, 0)),
        run(&m, |m| {
            m.store(1, 0);
            m.sync_file();
        }),
        run(&m, |m| m.truncate(0)),
    ]);
    m.sync_file();
}

/// Holes: read, filled by a write fault of one mapping and by write(2).
pub fn holes(mistake: Mistake) {
    let m = machine(mistake, File::Hole);
    join(vec![
        run(&m, |m| m.load(0, 0)),
        run(&m, |m| m.write_hole(0)),
        run(&m, |m| {
            m.store(1, 1);
            m.sync_file();
        }),
    ]);
}

/// A store fills all holes, one of which is read, stored to and filled by others.
pub fn all_holes(mistake: Mistake) {
    let m = machine(mistake, File::Hole);
    m.fills_ahead.store(false, SeqCst);
    m.load(1, 1);
    m.store_to_holes();
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.sync_file();
        }),
        run(&m, |m| m.write_hole(1)),
        run(&m, |m| {
            m.load(1, 1);
            m.store(1, 1);
            m.sync_file();
        }),
    ]);
    m.sync_file();
    m.assert_no_zeroes(0..2);
}

/// A page is mapped, stored to and synced while the chunk is given back.
pub fn reclaim(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    m.store(0, 0);
    join(vec![
        run(&m, |m| {
            m.reclaim();
            m.reclaim();
        }),
        run(&m, |m| {
            m.store(1, 0);
            m.sync(0, 0);
            m.store(1, 1);
        }),
        run(&m, |m| {
            m.load(0, 1);
            m.dma(0, 0);
            m.sync_file();
        }),
    ]);
    m.sync_file();
    m.reclaim();
    m.truncate(0);
}

/// The file system is frozen, and becomes read-only, while pages that are hot and cold are stored
/// to.
pub fn ends_of_stores(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    make_hot(&m);
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.store(0, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| {
            m.store(1, 1);
            m.store(1, 0);
        }),
        run(&m, |m| {
            m.freeze();
            m.end_stores();
        }),
    ]);
    m.assert_no_stores();
}

/// The write cache is off, and is switched on while stores and syncs go on.
pub fn cache_is_switched(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    m.has_cache.store(false, SeqCst);
    make_hot(&m);
    m.store(0, 1);
    m.sync_file();
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.sync(0, 0);
            m.store(0, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| {
            m.store(1, 1);
            m.sync_file();
            m.store(1, 1);
            m.sync(1, 1);
        }),
        run(&m, |m| m.has_cache.store(true, SeqCst)),
    ]);
    m.freeze();
    m.assert_no_stores();
}

/// A read with O_DIRECT completes for its waiter before the pages are tagged. The waiter calls
/// fsync, while another task has just done so.
pub fn dma_told_early(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    join(vec![
        run(&m, |m| m.dma_told_early(0, 0)),
        run(&m, |m| m.dma_told_early(1, 1)),
        run(&m, |m| {
            m.sync_file();
            m.sync(0, 0);
            m.sync(1, 1);
        }),
    ]);
    m.sync_file();
}

/// A block turns out to be bad while its page, and the one beside it, are stored to and synced.
pub fn bad_block(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    m.store(0, 0);
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.load(1, 0);
            m.store(1, 1);
        }),
        run(&m, |m| m.fail(0)),
        run(&m, |m| {
            m.store(1, 0);
            m.sync_file();
        }),
    ]);
    m.load(0, 0);
    m.store(0, 1);
}

/// KVM says that pages are dirty, and DMA into them ends after they were synced.
pub fn kvm(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    m.store(0, 0);
    m.store(0, 1);
    join(vec![
        run(&m, |m| {
            m.set_pg_dirty(0, 0);
            m.set_pg_dirty(0, 1);
        }),
        run(&m, |m| {
            m.sync_all();
            m.sync_file();
        }),
        run(&m, |m| {
            m.dma(0, 1);
            m.sync_file();
        }),
    ]);
    m.sync_file();
    m.assert_rest();
}

/// A hole is read, filled and stored to while the chunk is given back.
pub fn holes_and_reclaim(mistake: Mistake) {
    let m = machine(mistake, File::Hole);
    m.fills_ahead.store(false, SeqCst);
    m.load(0, 0);
    join(vec![
        run(&m, |m| {
            m.reclaim();
            m.load(0, 0);
            m.store(0, 0);
        }),
        run(&m, |m| m.write_hole(0)),
        run(&m, |m| {
            m.load(1, 1);
            m.reclaim();
            m.store(1, 1);
            m.sync_file();
        }),
    ]);
    m.sync_file();
    m.assert_no_zeroes(0..2);
}

/// The device goes while a truncation waits for a pin.
pub fn removal_and_truncation(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    join(vec![
        run(&m, |m| m.dma(0, 0)),
        run(&m, |m| m.truncate(0)),
        run(&m, |m| m.remove_device()),
    ]);
    m.assert_no_stores();
}

/// The device goes while pages are stored to, synced and pinned.
pub fn removal(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.store(0, 1);
        }),
        run(&m, |m| m.sync_file()),
        run(&m, |m| m.remove_device()),
    ]);
    m.assert_no_stores();
}

/// Memory is short, or the times cannot move, once.
pub fn failures(mistake: Mistake) {
    let m = machine(mistake, File::Hole);
    m.fails.store(true, SeqCst);
    join(vec![
        run(&m, |m| {
            m.store(0, 1);
            m.store(0, 1);
            m.sync_file();
        }),
        run(&m, |m| {
            m.store(1, 0);
            m.fails.store(true, SeqCst);
            m.store(1, 0);
            m.sync_file();
        }),
    ]);
    m.sync_file();
    m.assert_rest();
}

/// The volume is damaged: two pages have one block. The second one gets none.
pub fn used_twice(mistake: Mistake) {
    let m = machine(mistake, File::Pages);
    m.is_damaged.store(true, SeqCst);
    let block = {
        let mut extents = m.extents.lock().unwrap();
        extents[1] = extents[0];
        extents[0].unwrap()
    };
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.load(0, 1);
        }),
        run(&m, |m| {
            m.load(1, 1);
            m.store(1, 0);
        }),
    ]);
    let owner = m.device.lock().unwrap().block(block).owner;
    let owner = nth(owner.expect("one of them has it"));
    for map in &m.maps {
        let pte = *map.lock().unwrap().pte(1 - owner);
        assert_eq!(pte, Pte::None, "the block of another page is mapped");
    }
}
