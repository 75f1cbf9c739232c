// SPDX-License-Identifier: GPL-2.0

//! Taking pages from a file: before truncation, hole punching and eviction free the blocks under
//! them.
//!
//! Guarantee: when [`break_layout`] succeeds, no page table leads to the pages of the range, nobody
//! has one pinned, and none belongs to the file; so the blocks may be freed. Pins are those of
//! O_DIRECT, vmsplice and the like on a mapping of the file; they may last.

use kernel::bindings::address_space;
use kernel::prelude::*;

use super::owner::disown;
use super::page::Page;
use super::pins;
use super::sync::{self, Hot};
use super::tracker::{Chunk, State};
use crate::bindings;
use crate::env::Vec;
use crate::track::chunk::Run;
use crate::track::left::Pinned;
use crate::track::page_set::{PageSet, PAGES};
use crate::track::place::split;
use crate::vfs::inode::InodeInfo;
use crate::vfs::lock::InvalidateLock;

/// Takes the pages `first..=last` from the file. The caller holds `i_rwsem` exclusively, and `lock`
/// proves that faults are kept out; while a pinned page is waited for, they are let in.
///
/// Fails with `ERESTARTSYS` if a signal comes while waiting, and with `EIO` if the device does. The
/// file has all its pages then.
///
/// What was dirty is written back first. It would not have to be if the blocks were certain to go;
/// but until the change of the file is durable a crash brings them back, and an fsync that ran
/// meanwhile has promised what is in them.
pub fn break_layout(lock: &mut InvalidateLock<'_>, first: u64, last: u64) -> Result {
    let info = lock.info();
    if info.tracker.chunks(first, last, false).next().is_none() {
        // No fault was ever here.
        return Ok(());
    }
    let _access = info.sb().volume.pmem().access().ok_or(EIO)?;
    loop {
        unmap_folios(info, first, last);
        let Some(page) = find_pinned(info, first, last) else {
            break;
        };
        // Meanwhile the pages may be mapped, and pinned, again: start over.
        lock.unlocked(|| page.wait_idle(true))?;
    }
    if !info.tracker.is_quiet() {
        sync::write_back(info, first, last, Hot::Protect)?;
    }
    forget(info, first, last, |page| {
        page.dissociate();
    });
    Ok(())
}

/// Takes the entries for pages `first..=last` out of all page tables, and those of the huge folios
/// that they are part of.
fn unmap_folios(info: &InodeInfo, first: u64, last: u64) {
    let whole = |page: u64| {
        let (index, _) = split(page);
        let chunk = info.tracker.chunk(index);
        chunk.filter(|chunk| chunk.lock().is_huge())
    };
    let first = whole(first).map_or(first, |chunk| chunk.first_page());
    let last = whole(last).map_or(last, |chunk| chunk.last_page());
    unmap(info.mapping(), first, last);
}

/// Takes a huge chunk, which may be mapped, apart: its pages are mapped one by one from now on.
/// Returns whether it did: not if one of them is pinned.
pub(super) fn split_huge(info: &InodeInfo, chunk: &Chunk, state: &mut State) -> bool {
    unmap(info.mapping(), chunk.first_page(), chunk.last_page());
    let pmem = info.sb().volume.pmem();
    let first = state.block(0);
    if !Page::of_block(pmem, first).is_idle() {
        return false;
    }
    Page::of_block(pmem, first).reset();
    for i in 0..PAGES as u64 {
        // None was dirtied behind the back of the file: it owned them.
        let _ = Page::of_block(pmem, first + i).associate(info.mapping(), chunk.first_page() + i);
    }
    state.split();
    true
}

/// The pages of `pages` that belong to the file, and their blocks: of a huge folio, the first one
/// of it.
fn pages_of<'a>(state: &'a State, pages: &PageSet) -> impl Iterator<Item = (usize, u64)> + 'a {
    let pages = match state.is_huge() && !pages.is_empty() {
        true => PageSet::range(0, 0),
        false => *pages,
    };
    let each = |run: Run| (0..run.len).map(move |i| (run.page + i, run.block + i as u64));
    state.runs(&pages).flat_map(each)
}

/// Forgets the pages `first..=last`; `each` takes a page from the file. None is mapped or pinned.
pub(super) fn forget(info: &InodeInfo, first: u64, last: u64, each: impl Fn(Page)) {
    let pmem = info.sb().volume.pmem();
    for chunk in info.tracker.chunks(first, last, false) {
        let pages = chunk.clip(first, last);
        let mut state = chunk.lock();
        if state.is_huge() && pages != PageSet::ALL {
            let split = split_huge(info, chunk, &mut state);
            kernel::warn_on!(!split);
        }
        for (_, block) in pages_of(&state, &pages) {
            each(Page::of_block(pmem, block));
        }
        let _ = state.forget(&pages);
        info.tracker.forget(chunk, &pages);
    }
}

/// Takes all pages from the file because the device is going, and its struct pages with it: waits
/// for whoever pinned one. Faults are kept out, and no mapping can come back later.
pub(super) fn detach(info: &InodeInfo) {
    unmap(info.mapping(), 0, u64::MAX);
    forget(info, 0, u64::MAX, |page| {
        let _ = page.wait_idle(false);
        page.dissociate();
    });
    disown(info);
}

/// Holes among the `nr` pages from `first` were filled by write(2) or fallocate: whoever has the
/// zero page mapped there faults again, and finds the block. To be called after the blocks are
/// in the file. May sleep; neither a chunk lock nor the meta lock of the inode is held.
pub fn hole_filled(info: &InodeInfo, first: u64, nr: u64) {
    if nr == 0 || info.tracker.is_unused() {
        return;
    }
    let last = first.saturating_add(nr - 1);
    let _chunks_stay = info.tracker.stay();
    for chunk in info.tracker.chunks(first, last, false) {
        unmap_zeroes(info, chunk, &mut chunk.lock(), &chunk.clip(first, last));
    }
}

/// Holes among `pages` of `chunk` were filled: takes the zero page out of all page tables there.
pub(super) fn unmap_zeroes(info: &InodeInfo, chunk: &Chunk, state: &mut State, pages: &PageSet) {
    for (page, len) in state.fill(pages).runs() {
        let page = chunk.first_page() + page as u64;
        unmap(info.mapping(), page, page + len as u64 - 1);
    }
}

/// The last user of the inode is gone: its pages no longer belong to it, and what they hold is
/// durable, unless the file has no name left. Returns whether its blocks may be freed now: if a page
/// of them is still pinned, [`pins`] sees to that.
///
/// Does not wait for pins: the task that evicts may be the one that holds them.
#[must_use]
pub fn evict(info: &InodeInfo) -> bool {
    let tracker = &info.tracker;
    if tracker.is_unused() {
        // So no page was ever tagged, and nobody knows the tracker.
        disown(info);
        return true;
    }
    tracker.leave_list();
    let sb = info.sb();
    // With the device, its struct pages are gone, and the inode is no owner any more. As long as it
    // is, removal waits.
    let pinned = tracker.ownership.is_held().then(|| give_up_pages(info));
    // From here on nothing tags a page: no mapping exists, and pinned pages lead nowhere.
    // SAFETY: the inode is alive, and nobody else uses it.
    let unlinked = unsafe { (*info.as_vfs()).__bindgen_anon_1.i_nlink } == 0;
    let result = sb.dirty.leave(tracker, || {
        // The VFS evicts no dirty inode: what is dirty was stored by DMA since it wrote this one, or
        // could not be written then. The shadow wants to see everything durable in the end.
        if (unlinked && !cfg!(rdax_shadow)) || tracker.is_quiet() || sb.check_alive().is_err() {
            return Ok(());
        }
        sync::write_back(info, 0, u64::MAX, Hot::Protect)
    });
    if result.is_err() {
        pr_err!(
            "{}: inode {}: mapped stores are lost\n",
            sb.name(),
            info.ino()
        );
    }
    // SAFETY: no fault, sync or break of the layout is under way or can begin: they need a reference
    // to the inode, which nobody can have any more, or are those of the flusher, for whose end the VFS
    // has waited.
    unsafe { tracker.free_chunks() };
    let idle = pinned.is_some_and(|pinned| pins::leave(info, unlinked, pinned));
    disown(info);
    idle
}

/// Takes all pages from an inode that nobody uses any more. Returns those that are pinned.
fn give_up_pages(info: &InodeInfo) -> Vec<Pinned> {
    let sb = info.sb();
    let mut pinned = Vec::new();
    for chunk in info.tracker.chunks(0, u64::MAX, false) {
        let state = chunk.lock();
        for (nth, block) in pages_of(&state, state.present()) {
            if Page::of_block(sb.volume.pmem(), block).dissociate() {
                continue;
            }
            let page = Pinned {
                page: chunk.first_page() + nth as u64,
                block,
            };
            if pinned.push(page).is_err() {
                // Without a place to remember it there is no other way.
                pins::wait_for(sb, &page);
            }
        }
    }
    pinned
}

/// Takes the entries for pages `first..=last` out of all page tables. Private copies stay.
pub(super) fn unmap(mapping: *mut address_space, first: u64, last: u64) {
    // A count that wraps to 0 means to the end, as it should.
    let nr = last.wrapping_sub(first).wrapping_add(1);
    // SAFETY: the mapping is that of an inode that is alive.
    unsafe { bindings::unmap_mapping_pages(mapping, first as usize, nr as usize, false) };
}

/// A page of `first..=last`, which are mapped nowhere, that is pinned.
pub(super) fn find_pinned(info: &InodeInfo, first: u64, last: u64) -> Option<Page> {
    let pmem = info.sb().volume.pmem();
    for chunk in info.tracker.chunks(first, last, false) {
        let state = chunk.lock();
        let pages = chunk.clip(first, last);
        let pinned = pages_of(&state, &pages)
            .map(|(_, block)| Page::of_block(pmem, block))
            .find(|page| !page.is_idle());
        if pinned.is_some() {
            return pinned;
        }
    }
    None
}
