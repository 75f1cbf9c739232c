// SPDX-License-Identifier: GPL-2.0

//! Scenes with mappings of 2 MiB.

use shuttle::sync::atomic::Ordering::SeqCst;

use super::machine::{File, Machine};
use super::memory::NR;
use super::mistakes::Mistake;
use super::scenes::{join, locked, run};

/// Both mappings are aligned.
const ALIGNED: [bool; 2] = [true, true];
/// The second mapping has entries of pages only.
const ONE_ALIGNED: [bool; 2] = [true, false];

/// Writers in two mappings of 2 MiB, syncs of a page and of all.
pub fn huge_stores_and_syncs(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ALIGNED);
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.sync(0, 0);
            m.store(0, 0);
        }),
        run(&m, |m| {
            m.store(1, 1);
            m.sync(1, 1);
        }),
        run(&m, |m| {
            m.store(0, 1);
            m.sync_file();
        }),
    ]);
    m.sync_file();
}

/// A page of 2 MiB was synced: the next store takes the folio apart, with the rest dirty, while
/// others store, read, sync and unmap.
pub fn huge_splits(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ALIGNED);
    m.store(0, 0);
    m.store(1, 1);
    m.sync(0, 0);
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| {
            m.store(1, 1);
            m.zap(1, 1);
            m.load(1, 0);
        }),
        run(&m, |m| m.sync(1, 1)),
    ]);
    m.sync_file();
}

/// A mapping is locked in memory after it was mapped in one piece.
pub fn huge_locked(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ALIGNED);
    // To wait for patience takes too long here.
    locked(&m, 0);
}

/// A mapping of 2 MiB is discarded while another thread stores through it, and others sync.
pub fn huge_zaps(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ALIGNED);
    m.store(0, 0);
    join(vec![
        run(&m, |m| m.discard(0)),
        run(&m, |m| {
            m.store(0, 1);
            m.store(0, 1);
            m.sync(1, 1);
        }),
        run(&m, |m| {
            m.sync_file();
            m.discard(0);
        }),
    ]);
    m.sync_file();
}

/// 2 MiB are unmapped for good while another thread stores through the entry in its TLB, and others
/// sync.
pub fn huge_unmapped(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ALIGNED);
    m.store(0, 0);
    join(vec![
        run(&m, |m| m.munmap(0)),
        run(&m, |m| {
            m.store_unmapped(0, 0);
            m.store_unmapped(0, 1);
        }),
        run(&m, |m| {
            m.sync_all();
            m.sync_all();
        }),
    ]);
    m.sync_file();
    m.assert_rest();
}

/// DMA into a page of 2 MiB while syncs run and a store wants small pages.
pub fn huge_dma(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ONE_ALIGNED);
    m.store(0, 0);
    join(vec![
        run(&m, |m| {
            m.dma(0, 1);
            m.sync(1, 1);
        }),
        run(&m, |m| {
            m.store(1, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| {
            m.freeze();
            m.store(0, 0);
        }),
    ]);
    m.sync_file();
}

/// Dirty pages are unmapped, and become a folio when they are read, while they are stored to,
/// synced and pinned.
pub fn huge_joins(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ONE_ALIGNED);
    m.store(1, 0);
    m.store(1, 1);
    join(vec![
        run(&m, |m| {
            m.map_anew(1);
            m.load(0, 0);
            m.load(0, 1);
        }),
        run(&m, |m| {
            m.sync(0, 0);
            m.dma(1, 1);
        }),
        run(&m, |m| {
            m.load(0, 1);
            m.store(0, 0);
        }),
    ]);
    m.sync_file();
}

/// A part of 2 MiB is cut off while they are stored to, pinned and synced.
pub fn huge_truncation(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ALIGNED);
    m.store(0, 0);
    join(vec![
        run(&m, |m| m.dma(0, 1)),
        run(&m, |m| {
            m.store(1, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| m.truncate(1)),
    ]);
    m.sync_file();
    m.truncate(0);
}

/// A hole of 2 MiB: read by pages, filled by a store to 2 MiB or by fallocate.
pub fn huge_holes(mistake: Mistake) {
    let m = Machine::new(mistake, File::HugeHole, ONE_ALIGNED);
    join(vec![
        run(&m, |m| m.load(1, 0)),
        run(&m, |m| m.fill_hole()),
        run(&m, |m| {
            m.store(0, 1);
            m.sync_file();
        }),
    ]);
    m.assert_no_zeroes(0..NR);
}

/// 2 MiB are stored to all over, while other stores come first and last: the sync finds out.
pub fn stored_all_over(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ALIGNED);
    join(vec![
        run(&m, |m| m.store(0, 0)),
        run(&m, |m| (0..NR).for_each(|page| m.store(0, page))),
        run(&m, |m| m.store(1, 0)),
    ]);
    m.sync_file();
    assert!(
        m.tracker
            .any_chunk()
            .state
            .lock()
            .unwrap()
            .may_map_huge(true),
        "stored to all over, and not noticed"
    );
}

/// 2 MiB are given back, frozen, and made again.
pub fn huge_reclaim(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ONE_ALIGNED);
    m.store(0, 0);
    join(vec![
        run(&m, |m| {
            m.reclaim();
            m.freeze();
        }),
        run(&m, |m| {
            m.store(0, 1);
            m.sync(1, 1);
            m.dma(0, 0);
        }),
        run(&m, |m| {
            m.store(1, 0);
            m.reclaim();
        }),
    ]);
    m.sync_file();
    m.reclaim();
    m.truncate(0);
}

/// As [`dma_told_early`](super::scenes::dma_told_early), of pages of one folio.
pub fn huge_dma_told_early(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ALIGNED);
    join(vec![
        run(&m, |m| m.dma_told_early(0, 0)),
        run(&m, |m| m.dma_told_early(1, 1)),
        run(&m, |m| {
            m.sync_file();
            m.sync(1, 1);
        }),
    ]);
    m.sync_file();
}

/// A block of 2 MiB turns out to be bad.
pub fn huge_bad_block(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ALIGNED);
    m.store(0, 0);
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.load(1, 0);
            m.store(1, 1);
        }),
        run(&m, |m| m.fail(0)),
        run(&m, |m| m.sync_file()),
    ]);
    m.load(0, 0);
    m.store(0, 1);
}

/// 2 MiB in one piece that cannot be one folio.
pub fn not_aligned(mistake: Mistake) {
    let m = Machine::new(mistake, File::Unaligned, ALIGNED);
    join(vec![run(&m, |m| m.store(0, 0)), run(&m, |m| m.load(1, 1))]);
    m.sync_file();
    m.truncate(1);
}

/// The file system is frozen, and becomes read-only, while 2 MiB are stored to.
pub fn huge_ends_of_stores(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ALIGNED);
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.store(0, 0);
        }),
        run(&m, |m| {
            m.store(1, 1);
            m.sync(1, 1);
            m.store(1, 1);
        }),
        run(&m, |m| {
            m.freeze();
            m.end_stores();
        }),
    ]);
    m.assert_no_stores();
}

/// Unwritten space of 2 MiB: read, then stored to.
pub fn unwritten(mistake: Mistake) {
    let m = Machine::new(mistake, File::Unwritten, ONE_ALIGNED);
    join(vec![
        run(&m, |m| {
            m.load(0, 0);
            m.store(0, 0);
        }),
        run(&m, |m| {
            m.load(1, 1);
            m.store(1, 1);
            m.sync_file();
        }),
    ]);
    m.sync_file();
    m.assert_no_zeroes(0..NR);
}

/// A hole of 2 MiB in a sparse file: a store fills a page.
pub fn sparse(mistake: Mistake) {
    let m = Machine::new(mistake, File::HugeHole, ALIGNED);
    m.fills_ahead.store(false, SeqCst);
    join(vec![
        run(&m, |m| {
            m.load(0, 0);
            m.store(0, 0);
        }),
        run(&m, |m| {
            m.store(1, 1);
            m.sync_file();
        }),
        run(&m, |m| m.load(1, 0)),
    ]);
    m.sync_file();
    m.assert_rest();
    m.assert_no_zeroes(0..NR);
}

/// A hole of 2 MiB is read in one piece, while it is filled, by a store, by fallocate, and cut.
pub fn huge_zeros(mistake: Mistake) {
    let m = Machine::new(mistake, File::HugeHole, ALIGNED);
    join(vec![
        run(&m, |m| {
            m.load(0, 0);
            m.load(1, 1);
        }),
        run(&m, |m| {
            m.fill_hole();
            m.load(0, 1);
        }),
        run(&m, |m| {
            m.load(1, 0);
            m.store(1, 0);
            m.sync_file();
        }),
    ]);
    m.assert_no_zeroes(0..NR);
    m.truncate(0);
    m.load(0, 0);
}

/// Where a fault of 2 MiB has found nothing, a table of pages appears, and is empty again.
pub fn huge_over_table(mistake: Mistake) {
    let m = Machine::new(mistake, File::Huge, ONE_ALIGNED);
    m.load(1, 1);
    join(vec![
        run(&m, |m| m.load(0, 0)),
        run(&m, |m| {
            m.load(0, 1);
            m.zap(0, 1);
        }),
        run(&m, |m| m.zap(1, 1)),
    ]);
}
