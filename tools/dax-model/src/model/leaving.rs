// SPDX-License-Identifier: GPL-2.0

//! Scenes of a file that is evicted while its pages are pinned.

use crate::env::fail_allocations_after;
use crate::track::machine::Mount;
use shuttle::sync::atomic::Ordering::SeqCst;
use shuttle::sync::Arc;

use super::machine::{File, Machine};
use super::memory::NR;
use super::mistakes::Mistake;
use super::scenes::{join, run};

fn machine(mistake: Mistake, file: File, users: u32) -> Arc<Machine> {
    let m = Machine::new(mistake, file, [true, false]);
    m.set_users(users);
    m
}

/// DMA into `page` that outlives its mapping, and the eviction of the file; then sync.
fn dma_outlives(m: &Machine, map: usize, page: usize) {
    let pinned = m.pin(map, page);
    m.close(map);
    if let Some(block) = pinned {
        m.end_dma(block, page, false);
    }
    m.sync_all();
}

/// All is over: nothing is pinned, so all is durable, and nobody has a page.
fn end(m: &Machine) {
    m.sync_all();
    m.unmount();
    let mut device = m.device.lock().unwrap();
    for block in m.extents.lock().unwrap().iter().flatten() {
        assert!(!device.is_huge(*block), "a folio of a file that is gone");
        let block = device.block(*block);
        assert_eq!(block.owner, None, "a page belongs to a file that is gone");
        assert_eq!(block.media, block.cache, "not durable after the end");
        assert!(!block.has_pg_dirty, "a page is dirty for its next owner");
    }
}

/// A file is closed while a page is pinned, and opened and synced by others.
pub fn closed(mistake: Mistake) {
    pinned_and_closed(mistake, File::Pages, 0);
}

/// The same, with 2 MiB in one piece.
pub fn huge_closed(mistake: Mistake) {
    pinned_and_closed(mistake, File::Huge, 1);
}

fn pinned_and_closed(mistake: Mistake, file: File, page: usize) {
    let m = machine(mistake, file, 2);
    join(vec![
        run(&m, move |m| dma_outlives(m, 0, page)),
        run(&m, move |m| {
            m.store(1, 1 - page);
            m.close(1);
            assert!(m.open());
            m.sync_file();
            m.close(1);
        }),
        run(&m, |m| {
            m.sync_all();
            m.flush();
            m.sync_all();
        }),
    ]);
    end(&m);
}

/// DMA ends while the file is opened again, and synced.
pub fn opened_again(mistake: Mistake) {
    dma_and_open(mistake, File::Pages);
}

/// The same, with 2 MiB in one piece.
pub fn huge_opened_again(mistake: Mistake) {
    dma_and_open(mistake, File::Huge);
}

fn dma_and_open(mistake: Mistake, file: File) {
    let m = machine(mistake, file, 1);
    let pinned = m.pin(0, 1).expect("a page that can be stored to");
    m.close(0);
    join(vec![
        run(&m, move |m| m.end_dma(pinned, 1, false)),
        run(&m, |m| {
            assert!(m.open());
            m.sync_file();
            m.close(0);
        }),
    ]);
    end(&m);
}

/// Two pages are pinned, and the file comes back and goes again: some of them are idle by then.
pub fn closed_twice(mistake: Mistake) {
    let m = machine(mistake, File::Pages, 2);
    // Not in one piece.
    m.extents.lock().unwrap().swap(0, 1);
    join(vec![
        run(&m, |m| dma_outlives(m, 0, 0)),
        run(&m, |m| dma_outlives(m, 1, 1)),
        run(&m, |m| {
            assert!(m.open());
            m.close(0);
            m.look();
            assert!(m.open());
            m.sync_file();
            m.close(0);
        }),
    ]);
    end(&m);
}

/// Two have the same page pinned: what the first stored is durable while the second goes on.
pub fn closed_with_two_pins(mistake: Mistake) {
    let m = machine(mistake, File::Pages, 2);
    join(vec![
        run(&m, |m| dma_outlives(m, 0, 0)),
        run(&m, |m| dma_outlives(m, 1, 0)),
        run(&m, |m| m.look()),
    ]);
    end(&m);
}

/// A freeze leaves all clean, pinned or not; then the file is closed, and the pin ends.
pub fn closed_and_frozen(mistake: Mistake) {
    let m = machine(mistake, File::Pages, 1);
    join(vec![
        run(&m, |m| dma_outlives(m, 0, 0)),
        run(&m, |m| m.freeze()),
        run(&m, |m| {
            m.sync_all();
            m.look();
        }),
    ]);
    end(&m);
}

/// The file has no name: its blocks are freed when no pin is left, and not before.
pub fn unlinked(mistake: Mistake) {
    let m = machine(mistake, File::Pages, 2);
    m.life.unlinked.store(true, SeqCst);
    join(vec![
        run(&m, |m| dma_outlives(m, 0, 0)),
        run(&m, |m| {
            m.store(1, 1);
            m.sync_file();
            m.close(1);
            m.look();
        }),
        run(&m, |m| {
            m.sync_all();
            m.look();
        }),
    ]);
    m.unmount();
    assert_eq!(*m.extents.lock().unwrap(), [None; NR], "blocks are lost");
}

/// The same while the file system is frozen: they are freed afterwards.
pub fn unlinked_and_frozen(mistake: Mistake) {
    let m = machine(mistake, File::Pages, 1);
    m.life.unlinked.store(true, SeqCst);
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.close(0);
        }),
        run(&m, |m| m.freeze()),
        run(&m, |m| m.look()),
    ]);
    m.unmount();
    assert_eq!(*m.extents.lock().unwrap(), [None; NR], "blocks are lost");
}

/// The mount becomes read-only while the file is closed: what was stored is durable all the same.
pub fn closed_and_read_only(mistake: Mistake) {
    let m = machine(mistake, File::Pages, 1);
    join(vec![
        run(&m, |m| dma_outlives(m, 0, 0)),
        run(&m, |m| {
            if let Some(file) = m.grab() {
                file.end_stores();
            }
        }),
        run(&m, |m| m.flush()),
    ]);
    end(&m);
}

/// The mount ends while a page is pinned: it waits.
pub fn closed_and_unmounted(mistake: Mistake) {
    let m = machine(mistake, File::Pages, 1);
    join(vec![
        run(&m, |m| {
            let pinned = m.pin(0, 0).expect("a page that can be stored to");
            m.close(0);
            m.end_dma(pinned, 0, false);
        }),
        run(&m, |m| {
            m.wait_until_gone();
            m.unmount();
        }),
    ]);
    end(&m);
}

/// There is no memory to remember a page that is pinned: the eviction waits for it.
pub fn not_remembered(mistake: Mistake) {
    // For what the file leaves; for the list of the mount.
    for (allocations, file) in [(0, File::Pages), (1, File::Pages), (1, File::Huge)] {
        let m = machine(mistake, file, 1);
        let pinned = m.pin(0, 0).expect("a page that can be stored to");
        let dma = run(&m, move |m| m.end_dma(pinned, 0, false));
        fail_allocations_after(Some(allocations));
        m.close(0);
        fail_allocations_after(None);
        assert!(m.left().is_empty(), "remembered without memory");
        join(vec![dma]);
        end(&m);
    }
}

/// The device goes while the file is closed, and opened again.
pub fn closed_and_removed(mistake: Mistake) {
    let m = machine(mistake, File::Pages, 2);
    join(vec![
        run(&m, |m| dma_outlives(m, 0, 0)),
        run(&m, |m| {
            m.store(1, 1);
            m.close(1);
            if m.open() {
                m.close(1);
            }
        }),
        run(&m, |m| m.remove_device()),
    ]);
}

/// Memory is short when the file is read again: pages that it has not got stay behind.
pub fn not_read(mistake: Mistake) {
    let m = machine(mistake, File::Pages, 2);
    join(vec![
        run(&m, |m| dma_outlives(m, 0, 0)),
        run(&m, |m| dma_outlives(m, 1, 1)),
        run(&m, |m| {
            m.fails.store(true, SeqCst);
            if m.open() {
                m.close(0);
            }
        }),
    ]);
    m.fails.store(false, SeqCst);
    end(&m);
}

/// Memory is short when the file is evicted: chunks are freed.
pub fn closed_and_reclaimed(mistake: Mistake) {
    let m = machine(mistake, File::Pages, 2);
    join(vec![
        run(&m, |m| dma_outlives(m, 0, 0)),
        run(&m, |m| {
            m.store(1, 1);
            m.close(1);
            assert!(m.open());
            m.close(1);
        }),
        run(&m, |m| {
            m.reclaim();
            m.reclaim();
            m.reclaim();
        }),
    ]);
    end(&m);
}
