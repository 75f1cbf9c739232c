// SPDX-License-Identifier: GPL-2.0

//! Taking pages from a file: before truncation, hole punching and reclaim free what is under them.
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

/// Takes the pages `first..=last` from the file. `lock` keeps faults out; while a pinned page is
/// waited for, they are let in.
///
/// Fails if a signal comes while waiting, or if the device does. The file has all its pages then.
///
/// What was dirty is written back first. It would not have to be if the blocks were certain to go;
/// but until the change of the file is durable a crash brings them back, and an fsync that ran
/// meanwhile has promised what is in them.
pub fn break_layout<M: Machine>(
    file: &M,
    lock: &mut impl FaultsOut,
    first: u64,
    last: u64,
) -> Result<(), M::Error> {
    if file.tracker().chunks(first, last, false).next().is_none() {
        // No fault was ever here.
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

/// Gives `chunk` up, if that can be now: takes its pages from the file, and writes back what is
/// dirty; then `remove` takes it out of the tree. Nobody else has a reference to a chunk. Returns
/// whether it did.
pub fn reclaim<M: Machine>(file: &M, chunk: &ChunkOf<M>, remove: impl FnOnce()) -> bool {
    // Until it is out of the tree: or a fault finds it there, and maps a page.
    let Some(_faults_out) = file.try_keep_faults_out() else {
        return false;
    };
    let given_up = give_up(file, chunk);
    if given_up {
        remove();
    }
    given_up
}

/// Takes all pages of `chunk` from the file, of which faults are kept out, and writes back what is
/// dirty; false if that cannot be now. Nobody else has a reference to a chunk.
fn give_up<M: Machine>(file: &M, chunk: &ChunkOf<M>) -> bool {
    // With the device, its struct pages go.
    let Some(_access) = file.device().access() else {
        return false;
    };
    let place = file.tracker().place(chunk);
    let (first, last) = (place.first_page(), place.last_page());
    // An access to what is locked in memory is not to fault.
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
    // What was pinned may have been stored to up to now.
    if find_pinned(file, first, last).is_some() || is_dirty(file, chunk) {
        return false;
    }
    forget(file, first, last, |block| file.dissociate(block));
    true
}

/// The media under `page` of the file is bad: unmaps it, and has its neighbours mapped one by one,
/// so that only who touches the bad one gets a signal. Faults are kept out. What was stored to it
/// since it was last written back is lost.
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

/// Takes the entries for pages `first..=last` out of all page tables, and those of the huge folios
/// that they are part of.
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

/// Takes the entries for a chunk out of all page tables.
pub(super) fn unmap_chunk<M: Machine>(file: &M, chunk: &ChunkOf<M>) {
    let place = file.tracker().place(chunk);
    file.unmap(place.first_page(), place.last_page());
}

/// Takes a huge chunk, which may be mapped, apart: its pages are mapped one by one from now on.
/// Returns whether it did: not if one of them is pinned.
pub fn split_huge<M: Machine>(file: &M, chunk: &ChunkOf<M>, state: &mut StateOf<M>) -> bool {
    unmap_chunk(file, chunk);
    let block = state.block(0);
    if !file.device().is_idle(block) {
        return false;
    }
    file.device().reset(block);
    let first = file.tracker().place(chunk).first_page();
    for i in 0..PAGES as u64 {
        // None was dirtied behind the back of the file: it owned them.
        let _ = file.associate(block + i, first + i);
    }
    state.split();
    true
}

/// The pages of `pages` that belong to the file, and their blocks: of a huge folio, the first one
/// of it.
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

/// Holes among the `nr` pages from `first` were filled by write(2) or fallocate: whoever has the
/// zero page mapped there faults again, and finds the block. To be called after the blocks are
/// in the file. May sleep; neither a chunk lock nor the meta lock of the inode is held.
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

/// Holes among `pages` of `chunk` were filled: takes the zero page out of all page tables there.
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

/// The block of a page of `first..=last`, which are mapped nowhere, that is pinned.
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
