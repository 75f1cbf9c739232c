// SPDX-License-Identifier: GPL-2.0

//! Taking pages from a file before truncation, hole punching and reclaim free their blocks or
//! state.
//!
//! Guarantee: when [`break_layout`] succeeds, no page table leads to the pages of the range, nobody
//! has one pinned, and none belongs to the file; so the blocks may be freed. Pins are those of
//! O_DIRECT, vmsplice and the like on a mapping of the file; they may last.

use super::chunk::Run;
use super::machine::{ChunkOf, Device, Failure, FaultsOut, Machine, StateOf, Tracking};
use super::page_set::{PageSet, PAGES};
use super::place::split;
use super::sync::{sync_held, sync_pages, Purpose};
use super::windows;

/// Takes the pages `first..=last` from the file. `lock` keeps faults out; faults are let in while
/// this waits for a pinned page.
///
/// Fails if a signal arrives during the wait, or if the device fails. The file keeps all its pages
/// then.
///
/// Dirty pages are written back first. This would be unnecessary if the blocks were certain to be
/// freed; but until the change of the file is durable a crash brings them back, and an fsync
/// meanwhile has promised their content.
pub fn break_layout<M: Machine>(
    file: &M,
    lock: &mut impl FaultsOut,
    first: u64,
    last: u64,
) -> Result<(), M::Error> {
    if file.tracker().chunks(first, last, false).next().is_none() {
        // No fault ever happened here.
        return Ok(());
    }
    let _access = file.device().access().ok_or(Failure::Device)?;
    loop {
        unmap_folios(file, first, last);
        let Some(block) = find_pinned(file, first, last) else {
            break;
        };
        // Meanwhile the pages may be mapped, and pinned, again: start over.
        lock.unlocked(|| file.wait_idle(block))?;
    }
    if !windows::is_quiet(file.tracker()) {
        sync_pages(file, first, last, Purpose::End)?;
    }
    forget(file, first, last, |block| file.dissociate(block));
    Ok(())
}

/// Gives `chunk` up, if possible now: writes back what is dirty, and takes its pages from the file;
/// then `remove` removes it from the tree. Nobody else has a reference to the chunk. Returns
/// whether it was given up.
pub fn reclaim<M: Machine>(file: &M, chunk: &ChunkOf<M>, remove: impl FnOnce()) -> bool {
    // Until it is out of the tree: otherwise a fault finds it there, and maps a page.
    let Some(_faults_out) = file.try_keep_faults_out() else {
        return false;
    };
    let given_up = give_up(file, chunk);
    if given_up {
        remove();
    }
    given_up
}

/// Writes back what is dirty, and takes all pages of `chunk` from the file, with faults kept out;
/// false if that is not possible now. Nobody else has a reference to the chunk.
fn give_up<M: Machine>(file: &M, chunk: &ChunkOf<M>) -> bool {
    // The struct pages disappear with the device.
    let Some(_access) = file.device().access() else {
        return false;
    };
    let place = file.tracker().place(chunk);
    let (first, last) = (place.first_page(), place.last_page());
    // An access to memory that is locked must not fault.
    if !file.locked(first, false).is_empty() {
        return false;
    }
    if is_dirty(file, chunk)
        && (file.check_usable(false).is_err()
            || sync_held(file, first, last, Purpose::End).is_err())
    {
        return false;
    }
    file.unmap(first, last);
    // A pinned page may have been stored to up to now.
    if find_pinned(file, first, last).is_some() || is_dirty(file, chunk) {
        return false;
    }
    forget(file, first, last, |block| file.dissociate(block));
    true
}

/// The media under `page` of the file is bad: unmaps it, and makes its neighbours be mapped one by
/// one, so that only accesses to the bad page get a signal. Faults are kept out. Stores to the page
/// since it was last written back are lost.
pub fn fail_page<M: Machine>(file: &M, page: u64) {
    let tracker = file.tracker();
    let (index, page) = split(page);
    let Some(chunk) = tracker.chunk(index) else {
        return;
    };
    let mut state = tracker.lock(chunk);
    state.never_huge();
    unmap_chunk(file, chunk);
    let dirty = windows::dirty_in(tracker, chunk, &PageSet::range(page, page));
    if !dirty.pages().is_empty() {
        file.stores_are_lost();
    }
}

/// Takes all pages from the file because the device is going, and its struct pages with it: waits
/// for whoever pinned one. Faults are kept out, and no mapping can come back later.
pub fn detach<M: Machine>(file: &M) {
    file.unmap(0, u64::MAX);
    forget(file, 0, u64::MAX, |block| {
        file.device().wait_idle(block);
        file.dissociate(block);
    });
    file.disown();
}

/// Whether a page of `chunk` is dirty.
fn is_dirty<M: Machine>(file: &M, chunk: &ChunkOf<M>) -> bool {
    let dirty = windows::dirty_in(file.tracker(), chunk, &PageSet::ALL);
    !dirty.pages().is_empty()
}

/// Removes the entries for pages `first..=last` from all page tables, and those of the huge folios
/// that the pages are part of.
fn unmap_folios<M: Machine>(file: &M, first: u64, last: u64) {
    let tracker = file.tracker();
    let whole = |page: u64| {
        let (index, _) = split(page);
        let chunk = tracker.chunk(index);
        chunk
            .filter(|chunk| tracker.lock(chunk).is_huge())
            .map(|chunk| tracker.place(chunk))
    };
    let first = whole(first).map_or(first, |place| place.first_page());
    let last = whole(last).map_or(last, |place| place.last_page());
    file.unmap(first, last);
}

/// Removes the entries for a chunk from all page tables.
pub(super) fn unmap_chunk<M: Machine>(file: &M, chunk: &ChunkOf<M>) {
    let place = file.tracker().place(chunk);
    file.unmap(place.first_page(), place.last_page());
}

/// Splits a huge chunk, which may be mapped: its pages are mapped one by one from now on. Returns
/// whether it did; it does not if one of them is pinned.
pub fn split_huge<M: Machine>(file: &M, chunk: &ChunkOf<M>, state: &mut StateOf<M>) -> bool {
    unmap_chunk(file, chunk);
    let block = state.block(0);
    if !file.device().is_idle(block) {
        return false;
    }
    file.device().reset(block);
    let first = file.tracker().place(chunk).first_page();
    for i in 0..PAGES as u64 {
        // None was dirtied without the file's knowledge: it owned them.
        let _ = file.associate(block + i, first + i);
    }
    state.split();
    true
}

/// The pages among `pages` that belong to the file, and their blocks; for a huge folio, only its
/// first page.
pub fn pages_of<'a, M: Machine>(
    state: &'a StateOf<M>,
    pages: &PageSet,
) -> impl Iterator<Item = (usize, u64)> + 'a {
    let pages = match state.is_huge() && !pages.is_empty() {
        true => PageSet::range(0, 0),
        false => *pages,
    };
    let each = |run: Run| (0..run.len).map(move |i| (run.page + i, run.block + i as u64));
    state.runs(&pages).flat_map(each)
}

/// Forgets the pages `first..=last`; `each` takes the page of a block from the file. None is mapped
/// or pinned.
fn forget<M: Machine>(file: &M, first: u64, last: u64, each: impl Fn(u64)) {
    let tracker = file.tracker();
    for chunk in tracker.chunks(first, last, false) {
        let pages = tracker.place(chunk).clip(first, last);
        let mut state = tracker.lock(chunk);
        if state.is_huge() && pages != PageSet::ALL && !split_huge(file, chunk, &mut state) {
            file.is_not_idle();
        }
        for (_, block) in pages_of::<M>(&state, &pages) {
            each(block);
        }
        let _ = state.forget(&pages);
        windows::forget(tracker, chunk, &pages);
    }
}

/// Holes among the `nr` pages from `first` were filled by write(2) or fallocate: an access through
/// a mapping of the zero page there faults again, and finds the block. Call this after the blocks
/// are in the file. May sleep; the caller holds neither a chunk lock nor the meta lock of the
/// inode.
pub fn hole_filled<M: Machine>(file: &M, first: u64, nr: u64) {
    let tracker = file.tracker();
    if nr == 0 || tracker.is_unused() {
        return;
    }
    let last = first.saturating_add(nr - 1);
    let _chunks_stay = tracker.stay();
    for chunk in tracker.chunks(first, last, false) {
        let pages = tracker.place(chunk).clip(first, last);
        unmap_zeroes(file, chunk, &mut tracker.lock(chunk), &pages);
    }
}

/// Holes among `pages` of `chunk` were filled: removes the zero page from all page tables there.
pub(super) fn unmap_zeroes<M: Machine>(
    file: &M,
    chunk: &ChunkOf<M>,
    state: &mut StateOf<M>,
    pages: &PageSet,
) {
    let at = file.tracker().place(chunk).first_page();
    for (page, len) in state.fill(pages).runs() {
        let first = at + page as u64;
        file.unmap(first, first + len as u64 - 1);
    }
}

/// The block of a pinned page among `first..=last`, which are mapped nowhere.
pub fn find_pinned<M: Machine>(file: &M, first: u64, last: u64) -> Option<u64> {
    let tracker = file.tracker();
    for chunk in tracker.chunks(first, last, false) {
        let state = tracker.lock(chunk);
        let pages = tracker.place(chunk).clip(first, last);
        let pinned = pages_of::<M>(&state, &pages)
            .map(|(_, block)| block)
            .find(|block| !file.device().is_idle(*block));
        if pinned.is_some() {
            return pinned;
        }
    }
    None
}
