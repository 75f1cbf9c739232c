// SPDX-License-Identifier: GPL-2.0

//! Taking pages from a file: before truncation, hole punching and eviction free the blocks under
//! them.
//!
//! Guarantee: when [`break_layout`] succeeds, no page table leads to the pages of the range, nobody
//! has one pinned, and none belongs to the file; so the blocks may be freed. Pins are those of
//! O_DIRECT, vmsplice and the like on a mapping of the file; they may last.

use kernel::bindings::address_space;
use kernel::prelude::*;

use super::page::Page;
use super::sync::{self, Hot};
use crate::bindings;
use crate::vfs::inode::InodeInfo;
use crate::vfs::lock::InvalidateLock;
use crate::vfs::super_block::SbInfo;

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
        unmap(info.mapping(), first, last);
        let Some(page) = find_pinned(info, first, last) else {
            break;
        };
        // Meanwhile the pages may be mapped, and pinned, again: start over.
        lock.unlocked(|| page.wait_idle(true))?;
    }
    if !info.tracker.is_quiet() {
        sync::write_back(info, first, last, Hot::Protect)?;
    }
    forget(info, first, last, Page::dissociate);
    Ok(())
}

/// Forgets the pages `first..=last`; `each` takes a page from the file. None is mapped.
fn forget(info: &InodeInfo, first: u64, last: u64, each: impl Fn(Page)) {
    let pmem = info.sb().volume.pmem();
    for chunk in info.tracker.chunks(first, last, false) {
        let pages = chunk.clip(first, last);
        let mut state = chunk.lock();
        for run in state.runs(&pages) {
            for i in 0..run.len as u64 {
                each(Page::of_block(pmem, run.block + i));
            }
        }
        let _ = state.forget(&pages);
        info.tracker.forget(chunk, &pages);
    }
}

/// Takes all pages from the file because the device is going, and its struct pages with it: waits
/// for whoever pinned one. No mapping can come back.
pub(super) fn detach(info: &InodeInfo) {
    // SAFETY: the mapping is that of the inode. Faults that began before the device was marked as
    // gone end first; later ones fail.
    unsafe { bindings::rdax_filemap_invalidate_lock(info.mapping()) };
    unmap(info.mapping(), 0, u64::MAX);
    forget(info, 0, u64::MAX, |page| {
        let _ = page.wait_idle(false);
        page.dissociate();
    });
    // SAFETY: taken above.
    unsafe { bindings::rdax_filemap_invalidate_unlock(info.mapping()) };
}

/// Holes among the `nr` pages from `first` were filled by write(2) or fallocate: whoever has the
/// zero page mapped there faults again, and finds the block. To be called after the blocks are
/// in the file. May sleep; neither a chunk lock nor the meta lock of the inode is held.
pub fn hole_filled(info: &InodeInfo, first: u64, nr: u64) {
    if nr == 0 {
        return;
    }
    let last = first.saturating_add(nr - 1);
    for chunk in info.tracker.chunks(first, last, false) {
        let mut state = chunk.lock();
        let stale = state.fill(&chunk.clip(first, last));
        for (page, len) in stale.runs() {
            let page = chunk.first_page() + page as u64;
            unmap(info.mapping(), page, page + len as u64 - 1);
        }
    }
}

/// The last user of the inode is gone: its pages no longer belong to it, and what they hold is
/// durable, unless the file has no name left. Returns whether its blocks may be freed now: not if
/// a page of them is still pinned.
///
/// Does not wait for pins: the task that evicts may be the one that holds them. Whoever unmounts
/// calls [`wait_for_pins`] later.
#[must_use]
pub fn evict(info: &InodeInfo) -> bool {
    let tracker = &info.tracker;
    let sb = info.sb();
    let idle = match sb.volume.pmem().access() {
        Some(_access) => give_up_pages(info),
        // With the device, its struct pages are gone.
        None => false,
    };
    // From here on nothing tags a page: no mapping exists, and pinned pages lead nowhere.
    // SAFETY: the inode is alive, and nobody else uses it.
    let unlinked = unsafe { (*info.as_vfs()).__bindgen_anon_1.i_nlink } == 0;
    let result = sb.dirty.leave(tracker, || {
        // The shadow wants to see everything durable in the end.
        if (unlinked && !cfg!(rdax_shadow)) || tracker.is_quiet() {
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
    // SAFETY: no fault, sync or break of the layout is under way or can begin: they need a
    // reference to the inode, or `leave` waited for them.
    unsafe { tracker.free_chunks() };
    idle
}

/// Takes all pages from an inode that nobody uses any more. Returns whether all were idle.
fn give_up_pages(info: &InodeInfo) -> bool {
    let sb = info.sb();
    let mut idle = true;
    for chunk in info.tracker.chunks(0, u64::MAX, false) {
        let state = chunk.lock();
        for run in state.runs(state.present()) {
            for block in run.block..run.block + run.len as u64 {
                let page = Page::of_block(sb.volume.pmem(), block);
                if !page.is_idle() {
                    idle = false;
                    if sb.dirty.remember_pin(block).is_err() {
                        let _ = page.wait_idle(false);
                    }
                }
                page.dissociate();
            }
        }
    }
    idle
}

/// Waits until every page that was pinned when its inode was evicted is idle, as the next user of
/// the device must find it. Called when all inodes are gone, before the device is given up; and
/// when the device is being removed.
pub fn wait_for_pins(sb: &SbInfo) {
    while let Some(block) = sb.dirty.next_pin() {
        let _ = Page::of_block(sb.volume.pmem(), block).wait_idle(false);
    }
}

/// Takes the entries for pages `first..=last` out of all page tables. Private copies stay.
pub(super) fn unmap(mapping: *mut address_space, first: u64, last: u64) {
    // A count that wraps to 0 means to the end, as it should.
    let nr = last.wrapping_sub(first).wrapping_add(1);
    // SAFETY: the mapping is that of an inode that is alive.
    unsafe { bindings::unmap_mapping_pages(mapping, first as usize, nr as usize, false) };
}

/// A page of `first..=last`, which are mapped nowhere, that is pinned.
fn find_pinned(info: &InodeInfo, first: u64, last: u64) -> Option<Page> {
    let pmem = info.sb().volume.pmem();
    for chunk in info.tracker.chunks(first, last, false) {
        let state = chunk.lock();
        for run in state.runs(&chunk.clip(first, last)) {
            for i in 0..run.len as u64 {
                let page = Page::of_block(pmem, run.block + i);
                if !page.is_idle() {
                    return Some(page);
                }
            }
        }
    }
    None
}
