// SPDX-License-Identifier: GPL-2.0

//! What a single thread sees: how pages are mapped, and what is left when a call has ended. These
//! scenes do not check what must hold under every interleaving, but that optimisations happen when
//! nothing prevents them; without these checks, everything could be slow, but correct.

use crate::track::chunk::{Protected, READS, WAY};
use crate::track::evict;
use crate::track::machine::{Failure, Tracking};
use crate::track::page_set::{PageSet, PAGES};
use crate::track::windows;
use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
use shuttle::sync::Arc;
use shuttle::thread;

use super::machine::{File, Machine, LAST};
use super::memory::{Pmd, Pte, FIRST, NR};
use super::mistakes::Mistake;
use super::scenes::{join, make_hot, run, with_pages_ahead};

pub fn machine(file: File) -> Arc<Machine> {
    Machine::new(Mistake::None, file, [true, false])
}

pub fn is_huge(m: &Machine, write: bool) -> bool {
    let pmd = *m.maps[0].lock().unwrap();
    matches!(pmd, Pmd::Huge { writable, .. } if writable == write)
}

pub fn pte(m: &Machine, map: usize, page: usize) -> Pte {
    match *m.maps[map].lock().unwrap() {
        Pmd::Table(ptes) => ptes[page],
        pmd => panic!("no table of pages: {pmd:?}"),
    }
}

/// 2 MiB in one aligned piece are mapped in one, to be read, stored to, and synced.
pub fn two_mib() {
    let m = machine(File::Huge);
    m.load(0, 0);
    assert!(is_huge(&m, false));
    m.store(0, 1);
    assert!(is_huge(&m, true));
    m.sync_file();
    assert!(is_huge(&m, false));
    assert!(!m.tracker.is_any_marked(), "dirty after a sync");
    m.assert_rest();
}

/// A hole of 2 MiB that is written from one end to the other, and unwritten ones, are filled as
/// one by a store; a load sees zeros.
pub fn two_mib_are_filled() {
    for file in [File::HugeHole, File::Unwritten] {
        let m = machine(file);
        m.load(1, 1);
        assert_eq!(pte(&m, 1, 1), Pte::Zero);
        m.store(0, 0);
        assert!(is_huge(&m, true));
        m.assert_no_zeroes(0..NR);
        let m = machine(file);
        m.load(0, 0);
        assert_eq!(*m.maps[0].lock().unwrap(), Pmd::Zeros);
        m.load(1, 0);
        m.store(0, 1);
        assert!(is_huge(&m, true));
        m.assert_no_zeroes(0..NR);
        // Without memory for the zeros, by pages.
        let m = machine(file);
        m.load(1, 1);
        m.fails.store(true, SeqCst);
        m.load(0, 0);
        assert_eq!(pte(&m, 0, 0), Pte::Zero);
    }
}

/// A sync of all makes the times durable that stores to hot pages have moved.
pub fn times_of_hot_pages() {
    let m = machine(File::Pages);
    make_hot(&m);
    m.store(0, 0);
    m.sync_all();
    assert!(!m.life.are_times_dirty.load(SeqCst), "times are lost");
}

/// What DMA stored to a page that was left behind is lost: the sync says so.
pub fn left_and_lost() {
    let m = machine(File::Pages);
    let pinned = m.pin(1, 0).expect("a page that can be stored to");
    m.close(1);
    m.end_dma(pinned, 0, false);
    m.fence_fails.store(true, SeqCst);
    assert!(evict::sync_all(&*m, &*m, |_| Ok(())).is_err());
    assert!(m.told.load(SeqCst), "lost, and nobody knows");
}

/// What cannot be one is mapped by pages: not aligned, sparse, fragmented, too short.
pub fn by_pages() {
    let store = |m: &Machine| {
        m.store(0, 0);
        assert!(matches!(pte(m, 0, 0), Pte::Rw(_)));
        m.sync_file();
        assert!(matches!(pte(m, 0, 0), Pte::Ro(_)));
        assert!(!m.tracker.is_any_marked(), "dirty after a sync");
    };
    store(&machine(File::Unaligned));
    store(&machine(File::Pages));
    store(&machine(File::Hole));
    let sparse = machine(File::HugeHole);
    sparse.fills_ahead.store(false, SeqCst);
    sparse.load(0, 1);
    store(&sparse);
    assert_eq!(sparse.extents.lock().unwrap()[1], None);
    // Zeros are mapped by pages from then on, even after the page was removed again.
    sparse.truncate(0);
    sparse.map_anew(0);
    sparse.load(0, 0);
    assert_eq!(pte(&sparse, 0, 0), Pte::Zero);
    let fragmented = machine(File::HugeHole);
    fragmented.is_fragmented.store(true, SeqCst);
    store(&fragmented);
    fragmented.store(0, 1);
    fragmented.sync_file();
}

/// The last free block is for the page that is stored to, not for one before it; the same holds for
/// any block if no two are contiguous. If few blocks are left, no page ahead gets one.
pub fn little_space() {
    for (left, is_fragmented) in [(1, false), (1, true), (PAGES as u64, true), (9, false)] {
        let m = machine(File::HugeHole);
        m.left.store(left, SeqCst);
        m.is_fragmented.store(is_fragmented, SeqCst);
        assert!(m.fault(1, 1, true), "SIGBUS with {left} blocks free");
        let extents = *m.extents.lock().unwrap();
        assert!(extents[0].is_none() && extents[1].is_some());
        assert_eq!(m.left.load(SeqCst), left - 1);
    }
    let m = machine(File::Hole);
    m.left.store(0, SeqCst);
    assert!(!m.fault(0, 0, true));
}

/// The holes of a chunk are filled when many were stored to, and not before; and where that fails,
/// the store gets its block.
pub fn many_holes() {
    for (many, fails, filled) in [
        (true, false, true),
        (false, false, false),
        (true, true, false),
    ] {
        let m = machine(File::Hole);
        m.fills_ahead.store(false, SeqCst);
        m.load(1, 0);
        if many {
            m.store_to_holes();
        }
        m.cannot_fill_all.store(fails, SeqCst);
        m.store(0, 1);
        let extents = *m.extents.lock().unwrap();
        assert!(extents[1].is_some() && extents[0].is_some() == filled);
        assert_eq!(pte(&m, 1, 0) == Pte::Zero, !filled);
    }
}

/// A store to a private mapping gets a page beside a thread that reads the 2 MiB all the time, of
/// blocks or of zeros; and they are mapped in one piece again afterwards.
pub fn copied_beside_a_reader() {
    for file in [File::Huge, File::HugeHole] {
        let m = machine(file);
        let read = || m.load(0, 0);
        read();
        let copied = (0..3).any(|_| m.copy(0, 1, read));
        assert!(copied, "the reader is faster each time");
        for _ in 0..WAY {
            m.map_anew(0);
            read();
        }
        let pmd = *m.maps[0].lock().unwrap();
        assert!(matches!(pmd, Pmd::Huge { .. } | Pmd::Zeros), "{pmd:?}");
    }
}

/// Unwritten blocks of which one is bad: a store to another one fills that page, and no more.
pub fn unwritten_and_bad() {
    for map in 0..2 {
        let m = machine(File::Unwritten);
        let first = m.extents.lock().unwrap()[0].unwrap();
        m.bad.store(first, SeqCst);
        m.store(map, 1);
        assert!(matches!(pte(&m, map, 1), Pte::Rw(_)));
    }
}

/// An access past the end of the file ends in SIGBUS, and moves no time.
pub fn past_the_end() {
    let m = Machine::new(Mistake::None, File::Pages, [false; 2]);
    assert!(!m.fault(0, NR, false));
    assert!(!m.fault(0, NR, true));
}

/// A chunk is given back when memory is short, with what is dirty on the media.
pub fn given_back() {
    for file in [File::Pages, File::Huge] {
        let m = machine(file);
        m.store(0, 0);
        m.reclaim();
        assert!(m.tracker.is_unused(), "it was not given back");
        let block = m.extents.lock().unwrap()[0].unwrap();
        assert_eq!(m.device.lock().unwrap().block(block).media, 1);
        m.store(0, 1);
        m.device.lock().unwrap().block(block).pins = 1;
        m.load(0, 0);
        m.reclaim();
        assert!(!m.tracker.is_unused(), "a page of it is pinned");
        m.device.lock().unwrap().block(block).pins = 0;
        m.reclaim();
        assert!(m.tracker.is_unused());
    }
}

/// A store to a mount that is read-only moves no time.
pub fn refused() {
    let m = machine(File::Pages);
    m.store(0, 0);
    m.end_stores();
    let moved = m.moved.load(SeqCst);
    m.store(0, 0);
    m.store(0, 1);
    assert_eq!(
        m.moved.load(SeqCst),
        moved,
        "a refused store moves the times"
    );
}

/// A truncation that waits for a pin is interrupted by a signal: the file has its pages.
pub fn interrupted() {
    let m = machine(File::Pages);
    m.store(0, 0);
    let block = m.extents.lock().unwrap()[0].unwrap();
    m.device.lock().unwrap().block(block).pins = 1;
    m.is_interrupted.store(true, SeqCst);
    m.truncate(0);
    assert_eq!(m.extents.lock().unwrap()[0], Some(block), "it went on");
    m.device.lock().unwrap().block(block).pins = 0;
    m.store(0, 0);
    m.sync_file();
    m.truncate(0);
}

/// A pin has outlived the last owner of its page, and has stored to it: the next owner's sync
/// writes it back.
pub fn dirtied_before() {
    for file in [File::Pages, File::Huge] {
        let m = machine(file);
        let block = m.extents.lock().unwrap()[0].unwrap();
        {
            let mut device = m.device.lock().unwrap();
            let block = device.block(block);
            (block.cache, block.complete, block.has_pg_dirty) = (1, 1, true);
        }
        m.load(0, 0);
        m.sync_file();
        m.assert_rest();
    }
}

/// A page that was hot is part of a folio: it is hot no more.
pub fn hot_before() {
    let m = machine(File::Huge);
    for _ in 0..3 {
        m.store(1, 0);
        m.sync_file();
    }
    m.store(1, 0);
    m.map_anew(1);
    m.load(0, 0);
    assert!(is_huge(&m, false));
    m.sync_file();
}

/// Without a write cache 2 MiB are made clean, or left as they are, like pages: each store after a
/// sync moves the times.
pub fn no_cache() {
    let m = machine(File::Huge);
    m.has_cache.store(false, SeqCst);
    for _ in 0..4 {
        (0..NR).for_each(|page| m.store(0, page));
        m.sync_file();
        assert!(is_huge(&m, false));
    }
}

/// A part of 2 MiB is cut off, or punched out, that another mapping has by pages, of the rest.
pub fn a_part_goes() {
    for (kept, goes) in [(0, 1..=LAST), (1, 0..=0)] {
        let m = machine(File::Huge);
        m.store(0, kept);
        m.load(1, kept);
        m.punch(*goes.start(), *goes.end());
        assert_eq!(m.extents.lock().unwrap()[1 - kept], None);
        m.sync_file();
    }
}

/// Scattered pages become contiguous when the file has got other blocks: their old places do not
/// matter any more.
pub fn one_piece_again() {
    let m = machine(File::Huge);
    let first = m.extents.lock().unwrap()[0].unwrap();
    let elsewhere = m.allocate();
    m.extents.lock().unwrap()[1] = Some(elsewhere);
    m.load(1, 0);
    m.load(1, 1);
    m.truncate(1);
    m.extents.lock().unwrap()[1] = Some(first + 1);
    m.map_anew(1);
    m.load(0, 0);
    assert!(is_huge(&m, false));
    let chunk = m.tracker.any_chunk();
    assert_eq!(m.tracker.lock(chunk).block(1), first + 1);
    m.store(0, 1);
    m.sync_file();
}

/// A program that maps 2 MiB anew each time, loads, and stores a byte, does not make rdax join and
/// split them each time; one that loads a lot makes rdax join them.
pub fn taken_apart_once() {
    let m = machine(File::Huge);
    let store = |nth: usize| {
        m.map_anew(0);
        m.load(0, nth % NR);
        m.store(0, nth % NR);
        m.sync_file();
    };
    (0..3).for_each(store);
    for _ in 0..10 {
        m.map_anew(0);
        m.load(0, 0);
        assert!(matches!(pte(&m, 0, 0), Pte::Ro(_)));
        m.store(0, 0);
        assert!(matches!(pte(&m, 0, 0), Pte::Rw(_)));
        m.sync_file();
    }
    for _ in 0..usize::from(READS) {
        m.map_anew(0);
        m.load(0, 0);
    }
    m.map_anew(0);
    m.load(0, 0);
    assert!(is_huge(&m, false), "never one again");
    // After the next time, twice as many.
    store(0);
    for _ in 0..usize::from(READS) {
        m.map_anew(0);
        m.load(0, 0);
        assert!(matches!(pte(&m, 0, 0), Pte::Ro(_)));
    }
}

/// What is mapped ahead of a store: the next page, if it is the file's, and sound; and a sync
/// write-protects it, with a write cache and without.
pub fn mapped_ahead() {
    with_pages_ahead(|| {
        for has_cache in [true, false] {
            let m = machine(File::Pages);
            m.has_cache.store(has_cache, SeqCst);
            for _ in 0..2 {
                m.store(0, 0);
                assert!(matches!(pte(&m, 0, 1), Pte::Rw(_)));
                m.sync_file();
                assert!(matches!(pte(&m, 0, 1), Pte::Ro(_)));
            }
        }
        // Stores through another mapping are no row of this one.
        let m = machine(File::Pages);
        m.store(0, 0);
        m.zap(0, 1);
        m.store(1, 0);
        assert_eq!(pte(&m, 1, 1), Pte::None);
        let m = machine(File::Hole);
        m.store(0, 0);
        m.load(0, 1);
        m.store(0, 0);
        assert_eq!(pte(&m, 0, 1), Pte::Zero);
        let second = |m: &Machine| m.extents.lock().unwrap()[1].unwrap();
        let m = machine(File::Pages);
        m.bad.store(second(&m), SeqCst);
        m.store(0, 0);
        assert_eq!(pte(&m, 0, 1), Pte::None, "a bad block is mapped");
        let m = machine(File::Pages);
        m.is_damaged.store(true, SeqCst);
        m.device.lock().unwrap().block(second(&m)).owner = Some(7);
        m.store(0, 0);
        assert_eq!(
            pte(&m, 0, 1),
            Pte::None,
            "the block of another page is mapped"
        );
    });
}

/// A sync that takes pages twice has one window.
pub fn one_window() {
    let m = machine(File::Pages);
    m.store(0, 0);
    m.store(0, 1);
    let (tracker, chunk) = (&m.tracker, m.tracker.any_chunk());
    let (through, mut other) = (Arc::new(AtomicBool::new(false)), None);
    windows::sync::<_, Failure>(tracker, FIRST, FIRST + 1, |taking| {
        let taken = |page| -> Protected {
            let pages = PageSet::range(page, page);
            windows::dirty_in(tracker, chunk, &pages).write_protected()
        };
        let _ = taking.take(chunk, taken(0));
        let _ = taking.take(chunk, taken(1));
        assert_eq!(tracker.in_flight(), 1);
        // It is of all of the chunk, and of nothing else.
        let is_through = through.clone();
        other = Some(run(&m, move |m| {
            let last = FIRST + LAST as u64;
            windows::sync::<_, Failure>(&m.tracker, last, last, |_| Ok(())).unwrap();
            is_through.store(true, SeqCst);
        }));
        (0..100).for_each(|_| thread::yield_now());
        let waited = !through.load(SeqCst);
        assert!(waited, "a sync of the last page is through before this one");
        windows::sync::<_, Failure>(tracker, 0, FIRST - 1, |_| Ok(()))?;
        let behind = FIRST + LAST as u64 + 1;
        windows::sync(tracker, behind, behind, |_| Ok(()))
    })
    .unwrap();
    join(other.into_iter().collect());
    m.assert_rest();
}
