// SPDX-License-Identifier: GPL-2.0

//! Taking pages from a file: before truncation, hole punching and eviction free the blocks under
//! them. The steps, and what they guarantee, are those of [`track::layout`](layout); here is what
//! an inode has to do with it that leaves memory, or loses its device.

use kernel::prelude::*;

use super::pins;
use crate::bindings;
use crate::env::Vec;
use crate::mount::inode::InodeInfo;
use crate::mount::lock::InvalidateLock;
use crate::mount::owner::disown;
use crate::track::layout::{self, pages_of};
use crate::track::left::Pinned;
use crate::track::machine::{Machine, Tracking};
use crate::track::sync::{sync_pages, Purpose};
use crate::track::windows::is_quiet;

/// Takes the pages `first..=last` from the file: see [`layout::break_layout`]. The caller holds
/// `i_rwsem` exclusively, and `lock` proves that faults are kept out; while a pinned page is waited
/// for, they are let in. Fails with `ERESTARTSYS` if a signal comes while waiting, and with `EIO`
/// if the device does.
pub fn break_layout(lock: &mut InvalidateLock<'_>, first: u64, last: u64) -> Result {
    layout::break_layout(lock.info(), lock, first, last)
}

/// Waits until the private copies of holes are mapped that the memory manager was making when
/// faults were kept out, which `_faults_out` proves: so that whoever unmaps copies finds them. The
/// handler has returned by then, and holds no lock any more. (Of a block, its page is held until
/// then, which [`break_layout`] waits for.)
pub fn wait_for_copies(_faults_out: &InvalidateLock<'_>) {
    // SAFETY: no page is locked by this task, nor a spinning lock held. Who has the zero page locked
    // waits for memory at most, and for none of the locks of this inode.
    unsafe { bindings::rdax_wait_for_zero_copies() };
}

/// Takes all pages from the file because the device is going, and its struct pages with it: waits
/// for whoever pinned one. Faults are kept out, and no mapping can come back later.
pub(super) fn detach(info: &InodeInfo) {
    info.unmap(0, u64::MAX);
    layout::forget(info, 0, u64::MAX, |block| {
        let page = info.page_of(block);
        let _ = page.wait_idle(false);
        page.dissociate();
    });
    disown(info);
}

/// The last user of the inode is gone: its pages no longer belong to it, and what they hold is
/// durable, unless the file has no name left. Returns whether its blocks may be freed now: if a
/// page of them is still pinned, [`pins`] sees to that.
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
        // The VFS evicts no dirty inode: what is dirty was stored by DMA since it wrote this one,
        // or could not be written then. The shadow wants to see everything durable in the end.
        if (unlinked && !cfg!(rdax_shadow)) || is_quiet(tracker) || sb.check_alive().is_err() {
            return Ok(());
        }
        sync_pages(info, 0, u64::MAX, Purpose::End)
    });
    if result.is_err() {
        pr_err!(
            "{}: inode {}: mapped stores are lost\n",
            sb.name(),
            info.ino()
        );
    }
    // SAFETY: no fault, sync or break of the layout is under way or can begin: they need a
    // reference to the inode, which nobody can have any more, or are those of the flusher, for
    // whose end the VFS has waited.
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
        let state = info.tracker.lock(chunk);
        for (nth, block) in pages_of::<InodeInfo>(&state, state.present()) {
            if info.page_of(block).dissociate() {
                continue;
            }
            let page = Pinned {
                page: chunk.place().first_page() + nth as u64,
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
