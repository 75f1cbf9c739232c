// SPDX-License-Identifier: GPL-2.0

//! What a single thread sees of syncs, and of files that leave memory: exactly what is written
//! back, protected, counted and noted, by scenes like those of [`single`](super::single).

use crate::env::fail_allocations_after;
use crate::track::heat::{EPOCH, PATIENCE};
use crate::track::machine::{Event, Failure, Mount, Tracking};
use crate::track::page_set::{PageSet, PAGES};
use crate::track::removal::Removal;
use crate::track::sync::dirty_page;
use crate::track::windows;
use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
use shuttle::sync::Arc;
use shuttle::thread;

use super::machine::{File, Machine, Step, LAST};
use super::memory::{Pte, FIRST, NR};
use super::scenes::{join, make_hot, run};
use super::single::{is_huge, machine, pte};
use super::tracking::Chunk;

fn is_dirty(m: &Machine) -> bool {
    m.tracker.is_any_marked()
}

fn is_writable(m: &Machine, page: usize) -> bool {
    matches!(pte(m, 0, page), Pte::Rw(_))
}

fn written_back(m: &Machine) -> u64 {
    m.counted(Event::WrittenBack)
}

/// A mapping of 2 MiB is being removed, and a CPU has the entry in its TLB: after a sync it does
/// not store by that any more.
pub fn stale_entries() {
    let m = machine(File::Huge);
    m.store(0, 0);
    let stale = m.zap_unflushed(0);
    m.sync_file();
    m.store(0, 1);
    m.flush_zapped(0, stale);
    m.sync_file();
}

/// The same while 2 MiB that were locked cool down: a last store by such an entry moves the times.
pub fn stale_and_cooling() {
    let m = machine(File::Huge);
    m.store(0, 0);
    m.tracker.is_locked.store(true, SeqCst);
    m.sync_file();
    let stale = m.zap_unflushed(0);
    m.do_at(Step::Unmap, |m| m.store(0, 1));
    m.end_stores();
    assert!(m.meanwhile.lock().unwrap().is_none());
    let first = m.extents.lock().unwrap()[0].unwrap();
    let stored = m.device.lock().unwrap().block(first + 1).stored;
    assert!(m.moved.load(SeqCst) > stored, "no time moved");
    m.flush_zapped(0, stale);
}

/// A sync of one page of 2 MiB protects all of them; one of a small page protects that page.
pub fn part_of_two_mib() {
    let m = machine(File::Huge);
    m.store(0, 0);
    m.sync(0, 0);
    assert!(is_huge(&m, false));
    let m = machine(File::Pages);
    m.store(0, 0);
    m.store(0, 1);
    m.sync(0, 0);
    assert!(!is_writable(&m, 0) && is_writable(&m, 1));
}

/// Small pages that are dirty from one end to the other may be one piece again.
pub fn small_pages_of_one() {
    let m = machine(File::Huge);
    let may_be_huge = || {
        let state = m.tracker.lock(m.tracker.any_chunk());
        assert!(!state.is_huge());
        state.may_map_huge(true)
    };
    m.store(0, 0);
    m.sync(0, 0);
    m.store(0, 0);
    assert!(!may_be_huge());
    m.sync_file();
    assert!(may_be_huge());
}

/// Reclaim frees no chunk in the middle of a sync, or while a file gets its pages back.
pub fn chunks_stay() {
    let m = machine(File::Pages);
    let look = |m: &Machine| assert!(m.tracker.has_users(), "a chunk in use may be freed");
    m.store(0, 0);
    assert!(!m.tracker.has_users());
    m.do_at(Step::WriteProtect, look);
    m.sync_file();
    assert!(m.meanwhile.lock().unwrap().is_none());
    let pinned = m.pin(0, 0).expect("a page that can be stored to");
    m.close(0);
    m.do_at(Step::Own, look);
    assert!(m.open());
    assert!(m.meanwhile.lock().unwrap().is_none());
    m.end_dma(pinned, 0, false);
    m.sync_file();
}

/// What was durable as it was has to be written back when the write cache is switched on.
pub fn switched_on() {
    let m = machine(File::Pages);
    m.has_cache.store(false, SeqCst);
    m.store(0, 0);
    m.sync_file();
    m.has_cache.store(true, SeqCst);
    m.sync_file();
    assert!(!is_dirty(&m));
}

/// Without a write cache, syncs do not make a page hot that was stored to once.
pub fn left_out() {
    let m = machine(File::Pages);
    m.has_cache.store(false, SeqCst);
    m.store(0, 0);
    (0..4).for_each(|_| m.sync_file());
    m.store(0, 0);
    m.sync_file();
    assert!(!is_writable(&m, 0), "hot, after two stores");
}

/// Without a write cache, a sync of a file writes nothing back and leaves it dirty, hot or not; one
/// of all files does not.
pub fn no_cache() {
    let m = machine(File::Pages);
    m.has_cache.store(false, SeqCst);
    m.store(0, 1);
    make_hot(&m);
    assert!(is_writable(&m, 0));
    m.store(0, 0);
    m.sync_file();
    assert!(is_dirty(&m));
    assert!(m.under_way.lock().unwrap().is_empty() && written_back(&m) == 0);
    let m = machine(File::Pages);
    m.has_cache.store(false, SeqCst);
    m.store(0, 0);
    m.sync_all();
    assert!(!is_dirty(&m), "dirty after a sync of all");
}

/// A file is noted as long as it is dirty: after a sync of all, if a page is hot.
pub fn not_dirty() {
    let m = machine(File::Pages);
    m.store(0, 0);
    m.sync_all();
    assert!(!m.is_noted(), "the flusher comes for ever");
    make_hot(&m);
    m.sync_all();
    assert!(m.is_noted());
}

/// Pages of a mapping that is locked, but cannot be stored through, are not hot; and they stay.
pub fn locked_to_read() {
    let m = machine(File::Pages);
    m.tracker.is_locked_to_read.store(true, SeqCst);
    m.store(0, 0);
    m.sync_file();
    assert!(!is_writable(&m, 0));
    m.reclaim();
    assert!(!m.tracker.is_unused(), "what is locked is given back");
}

/// A page that a locked mapping has left alone for long stays hot, whatever becomes of others: a
/// store to it moves the times.
pub fn locked_and_left_alone() {
    let m = machine(File::Huge);
    m.store(0, 0);
    m.sync(0, 0);
    // By pages from here on.
    m.store(0, 0);
    m.sync_file();
    m.tracker.is_locked.store(true, SeqCst);
    m.store(0, 0);
    for _ in 0..PATIENCE {
        m.sync(0, 0);
    }
    assert!(is_writable(&m, 0));
    dirty_page(&*m, FIRST, true);
    m.fails.store(true, SeqCst);
    m.sync_file();
    assert!(!m.fails.load(SeqCst) && is_writable(&m, 0));
    m.store(0, 0);
    m.sync_file();
}

/// What is counted: pages that become dirty, are written back, and stay writable.
pub fn counted() {
    let m = machine(File::Pages);
    let counts = |m: &Machine| {
        let events = [Event::Tagged, Event::WrittenBack, Event::Hot];
        events.map(|event| m.counted(event))
    };
    m.store(0, 0);
    m.store(0, 1);
    m.store(0, 1);
    assert_eq!(counts(&m), [2, 0, 0]);
    m.sync(0, 0);
    assert_eq!(counts(&m), [2, 1, 0]);
    m.sync_file();
    assert_eq!(counts(&m), [2, 2, 0]);
    m.sync_file();
    assert_eq!(counts(&m), [2, 2, 0]);
    let m = machine(File::Pages);
    make_hot(&m);
    assert_eq!(counts(&m), [3, 3, 1]);
    m.store(0, 0);
    m.sync_file();
    assert_eq!(counts(&m), [3, 4, 2]);
    m.load(0, 0);
    m.sync_all();
    assert_eq!(counts(&m), [3, 5, 3]);
}

/// Without memory for fingerprints, pages of a locked mapping are like others.
pub fn no_memory() {
    let m = machine(File::Huge);
    m.store(0, 0);
    m.tracker.is_locked.store(true, SeqCst);
    m.fails.store(true, SeqCst);
    m.sync_file();
    assert!(!m.fails.load(SeqCst));
    assert_eq!((written_back(&m), m.counted(Event::Hot)), (PAGES as u64, 0));
    assert!(is_huge(&m, false) && !is_dirty(&m));
}

/// Who dirties a page learns whether it was clean.
pub fn newly_dirty() {
    let m = machine(File::Pages);
    let m = &*m;
    m.store(0, 0);
    assert!(!dirty_page(m, FIRST, false));
    assert!(dirty_page(m, FIRST + 1, false) && !dirty_page(m, FIRST + 1, false));
    assert!(dirty_page(m, FIRST, true) && !dirty_page(m, FIRST, true));
}

/// All of a file is written back by a sync of all, and at its eviction.
pub fn from_end_to_end() {
    for evicted in [false, true] {
        let m = machine(File::Pages);
        m.store(0, 0);
        match evicted {
            false => m.sync_all(),
            true => m.close(0),
        }
        let looked_up = *m.tracker.looked_up.lock().unwrap();
        assert_eq!(looked_up, (0, u64::MAX));
    }
}

/// DMA ends after a freeze, into a page that KVM had called dirty: a sync finds what it stored.
pub fn dirty_for_kvm() {
    for file in [File::Pages, File::Huge] {
        let m = machine(file);
        let pinned = m.pin(0, 0).expect("a page that can be stored to");
        m.set_pg_dirty(0, 0);
        m.freeze();
        assert!(!is_dirty(&m));
        m.end_dma(pinned, 0, false);
        assert!(is_dirty(&m));
        m.sync_file();
    }
}

/// Syncs that find nothing but hot pages count, too: what they do not find becomes cold.
pub fn epochs() {
    let m = machine(File::Pages);
    make_hot(&m);
    for _ in 0..2 {
        m.store(0, 1);
        m.sync_file();
    }
    for _ in 0..EPOCH {
        m.store(0, 0);
        m.sync_file();
    }
    assert!(is_writable(&m, 0));
    m.store(0, 1);
    m.sync_file();
    assert!(!is_writable(&m, 1), "hot, after one sync of this epoch");
}

/// A sync notifies others only while one waits.
pub fn nobody_to_notify() {
    let m = machine(File::Pages);
    m.store(0, 0);
    let (tracker, chunk) = (&m.tracker, m.tracker.any_chunk());
    let notified = || *tracker.notified.lock().unwrap();
    let mut other = None;
    windows::sync::<_, Failure>(tracker, FIRST, FIRST, |taking| {
        let page = PageSet::range(0, 0);
        let _ = taking.take(
            chunk,
            windows::dirty_in(tracker, chunk, &page).write_protected(),
        );
        other = Some(run(&m, |m| {
            windows::sync::<_, Failure>(&m.tracker, FIRST, FIRST, |_| Ok(())).unwrap();
        }));
        (0..100).for_each(|_| thread::yield_now());
        Ok(())
    })
    .unwrap();
    join(other.into_iter().collect());
    let before = notified();
    m.store(0, 1);
    m.sync(1, 1);
    assert_eq!(notified(), before, "nobody waits");
}

/// The window of a sync grows with each chunk of which it takes pages.
pub fn growing_window() {
    let m = machine(File::Pages);
    m.store(0, 0);
    m.store(0, 1);
    let (tracker, first) = (&m.tracker, m.tracker.any_chunk());
    let second = Chunk::new(2);
    let is_through = Arc::new(AtomicBool::new(false));
    let mut other = None;
    windows::sync::<_, Failure>(tracker, FIRST, FIRST + 2 * PAGES as u64, |taking| {
        for (nth, chunk) in [first, &second].into_iter().enumerate() {
            let page = PageSet::range(nth, nth);
            let dirty = windows::dirty_in(tracker, chunk, &page);
            let _ = taking.take(chunk, dirty.write_protected());
        }
        let through = is_through.clone();
        other = Some(run(&m, move |m| {
            let page = FIRST + PAGES as u64;
            windows::sync::<_, Failure>(&m.tracker, page, page, |_| Ok(())).unwrap();
            through.store(true, SeqCst);
        }));
        (0..100).for_each(|_| thread::yield_now());
        let waits = !is_through.load(SeqCst);
        assert!(
            waits,
            "a sync of the second chunk is through before this one"
        );
        Ok(())
    })
    .unwrap();
    join(other.into_iter().collect());
}

/// The error of a walk is the error of its sync.
pub fn error_of_a_walk() {
    let m = machine(File::Pages);
    let last = FIRST + LAST as u64;
    let result = windows::sync(&m.tracker, FIRST, last, |_| Err(Failure::UsedTwice));
    assert_eq!(result, Err(Failure::UsedTwice));
    assert_eq!(m.tracker.failures(), 1);
}

/// DMA ends after the mount has become read-only, and the file is closed: what it stored is
/// durable.
pub fn closed_and_read_only() {
    let m = machine(File::Pages);
    let pinned = m.pin(0, 0).expect("a page that can be stored to");
    m.end_stores();
    m.end_dma(pinned, 0, false);
    m.close(0);
    let mut device = m.device.lock().unwrap();
    let block = device.block(pinned);
    assert_eq!(block.media, block.cache, "closed, and not durable");
}

/// An eviction writes nothing back that nobody wants, or that has nowhere to go.
pub fn in_vain() {
    let unlinked = machine(File::Pages);
    unlinked.store(0, 0);
    unlinked.life.unlinked.store(true, SeqCst);
    let gone = machine(File::Pages);
    gone.store(0, 0);
    gone.shut_down();
    for m in [unlinked, gone] {
        assert!(is_dirty(&m));
        m.close(0);
        assert_eq!(written_back(&m), 0);
    }
}

/// The blocks of a file without a name are freed at once where the pin ends during the eviction.
pub fn unpinned_meanwhile() {
    let m = machine(File::Pages);
    m.pin(0, 0).expect("a page that can be stored to");
    m.life.unlinked.store(true, SeqCst);
    m.do_at(Step::Left, |m| {
        let block = m.extents.lock().unwrap()[0].unwrap();
        m.end_dma(block, 0, false);
    });
    m.close(0);
    assert_eq!(*m.extents.lock().unwrap(), [None; NR], "blocks are lost");
}

/// The same where there is no memory to remember what is pinned.
pub fn unlinked_and_not_remembered() {
    for allocations in 0..2 {
        let m = machine(File::Pages);
        let pinned = m.pin(0, 0).expect("a page that can be stored to");
        m.life.unlinked.store(true, SeqCst);
        let dma = run(&m, move |m| {
            while !m.life.was_evicted.load(SeqCst) {
                thread::yield_now();
            }
            (0..50).for_each(|_| thread::yield_now());
            m.end_dma(pinned, 0, false);
        });
        fail_allocations_after(Some(allocations));
        m.close(0);
        fail_allocations_after(None);
        join(vec![dma]);
        assert_eq!(*m.extents.lock().unwrap(), [None; NR], "blocks are lost");
    }
}

/// A page that is left behind is written back, and counted, when its pin has ended, and not before;
/// not at all for a file without a name.
pub fn released_once() {
    for unlinked in [false, true] {
        let m = machine(File::Pages);
        let pinned = m.pin(0, 0).expect("a page that can be stored to");
        m.life.unlinked.store(unlinked, SeqCst);
        m.close(0);
        let before = written_back(&m);
        m.look();
        assert_eq!(written_back(&m), before, "it is pinned");
        m.end_dma(pinned, 0, false);
        m.look();
        let after = before + u64::from(!unlinked);
        assert_eq!(written_back(&m), after);
        assert!(m.left().is_empty());
        m.look();
        assert_eq!(written_back(&m), after);
    }
}

/// 2 MiB that were left behind are ordinary pages when the device is gone.
pub fn removed_with_two_mib() {
    let m = machine(File::Huge);
    let pinned = m.pin(0, 1).expect("a page that can be stored to");
    m.close(0);
    m.end_dma(pinned, 1, false);
    m.remove_device();
}

/// A file that is read after the device was shut down does not get its pages back.
pub fn removed_before_it_is_read() {
    let m = machine(File::Pages);
    let pinned = m.pin(0, 0).expect("a page that can be stored to");
    m.close(0);
    m.end_dma(pinned, 0, false);
    m.shut_down();
    assert!(!m.open());
    assert!(m.left().any_page().is_some());
    m.remove_device();
}

/// A file that is read after the mount has become read-only gets its pages back.
pub fn read_only_and_read() {
    let m = machine(File::Pages);
    let pinned = m.pin(0, 0).expect("a page that can be stored to");
    m.close(0);
    m.may_store.store(false, SeqCst);
    assert!(m.open());
    assert!(m.left().is_empty());
    m.end_dma(pinned, 0, false);
    m.sync_file();
}

/// The device goes while a file is being read: the pages that it gets are taken from it.
pub fn removed_while_it_is_read() {
    let m = machine(File::Pages);
    let pinned = m.pin(0, 0).expect("a page that can be stored to");
    m.close(0);
    m.end_dma(pinned, 0, false);
    m.do_at(Step::Own, |m| {
        let _ = run(&m.this.upgrade().unwrap(), |m| m.remove_device());
        (0..200).for_each(|_| thread::yield_now());
    });
    assert!(m.open());
    while !m.is_removed.load(SeqCst) {
        thread::yield_now();
    }
}
