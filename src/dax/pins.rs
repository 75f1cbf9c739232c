// SPDX-License-Identifier: GPL-2.0

//! Pages that are pinned when their inode leaves memory.
//!
//! The last close of a file must not wait for pins (O_DIRECT, vmsplice): the task may hold them
//! itself. So eviction takes such pages from the inode and leaves them here. They belong to nobody
//! until
//!
//! * the inode comes to memory again: [`adopt`] gives them back to it; or
//! * the last pin of each is gone. What was stored to one meanwhile is written back; and when all
//!   of an inode that has no name left are idle, its blocks are freed.
//!
//! The kernel tells nobody but a waiter that a page of a device is idle, so a thread of the kernel
//! looks once a second while there is something to look at; [`settle`], at a sync, looks, too.
//!
//! An inode without a name that is evicted while the file system is frozen waits here, too.
//!
//! Guarantee: no block is freed that is pinned, and none stays behind for a pin that is gone. An
//! inode without a name is in the orphan file until it is freed, for the next mount to find after a
//! crash.

use kernel::bindings::work_struct;
use kernel::prelude::*;

use super::page::Page;
use crate::env::{nofs, Vec};
use crate::mount::inode::InodeInfo;
use crate::mount::lock::{InternalWrite, MountLock};
use crate::mount::owner::own;
use crate::mount::pins::Pins;
use crate::mount::super_block::SbInfo;
use crate::mount::tracker::table_for;
use crate::track::left::Pinned;
use crate::track::machine::Tracking;
use crate::track::page_set::{PageSet, PAGES};
use crate::track::place::split;
use crate::track::sync::{tag, tag_page};
use crate::volume::pmem::Pmem;

/// Takes over what an inode leaves that is being evicted: `pages` belong to nobody any more.
/// Returns whether there is nothing to wait for.
pub(super) fn leave(info: &InodeInfo, unlinked: bool, pages: Vec<Pinned>) -> bool {
    if pages.is_empty() {
        return true;
    }
    let sb = info.sb();
    let added = sb.pins.left.lock().add(info.ino(), unlinked, pages);
    if let Err(pages) = added {
        // Without a place to remember them there is no other way.
        pages.iter().for_each(|page| wait_for(sb, page));
        return true;
    }
    sb.pins.look_later();
    false
}

/// The inode `ino`, which has no name, is evicted while it cannot be freed, as the file system is
/// frozen: frees it afterwards.
pub fn free_later(sb: &SbInfo, ino: u64) {
    let added = sb.pins.left.lock().add(ino, true, Vec::new());
    // Where there is no memory to remember it, the next mount finds it in the orphan file.
    if added.is_ok() {
        sb.pins.look_later();
    }
}

/// Waits for the last pin of a page, and makes it an ordinary one.
pub(super) fn wait_for(sb: &SbInfo, pinned: &Pinned) {
    let page = Page::of_block(sb.volume.pmem(), pinned.block);
    let _ = page.wait_idle(false);
    page.reset();
}

/// Gives the pages that were pinned when the inode was evicted back to it, so that truncation finds
/// them. Called before others see the inode.
pub fn adopt(info: &InodeInfo) -> Result {
    let sb = info.sb();
    let _chunks_stay = info.tracker.stay();
    let mut all = sb.pins.left.lock();
    all.give_back(info.ino(), |pinned| {
        // With the lock held: removal of the device looks for them afterwards.
        sb.check_alive()?;
        // Reclaim must not evict inodes: they leave pages here.
        nofs(|| adopt_page(info, pinned))
    })
}

fn adopt_page(info: &InodeInfo, pinned: &Pinned) -> Result {
    let (index, nth) = split(pinned.page);
    own(info);
    info.tracker.make_chunk(index)?;
    let chunk = info.tracker.chunk(index).ok_or(ENOMEM)?;
    let mut state = info.tracker.lock(chunk);
    let page = Page::of_block(info.sb().volume.pmem(), pinned.block);
    // Whoever has it pinned may have stored to it.
    if page.is_huge() {
        page.adopt_huge(info.mapping(), pinned.page);
        let _ = state.map_huge(pinned.block);
        tag(info, chunk, &PageSet::ALL);
    } else {
        let table = table_for(&state, nth, pinned.block)?;
        let _ = state.map_block(nth, pinned.block, table);
        page.associate(info.mapping(), pinned.page);
        tag_page(info, chunk, nth);
    }
    Ok(())
}

/// Lets go of the pages that are idle by now. What was stored to those of files with a name is
/// durable then; fails with `EIO` if the device does. May sleep.
pub fn settle(sb: &SbInfo) -> Result {
    let mut all = sb.pins.left.lock();
    if all.is_empty() {
        return Ok(());
    }
    let pmem = sb.volume.pmem();
    let Some(_access) = pmem.access() else {
        return Ok(());
    };
    let mut written = 0;
    for left in all.iter_mut() {
        let mut i = 0;
        while let Some(pinned) = left.pages.get(i) {
            let page = Page::of_block(pmem, pinned.block);
            if !page.is_idle() {
                i += 1;
                continue;
            }
            if !left.unlinked {
                let nr = if page.is_huge() { PAGES as u64 } else { 1 };
                page.clear_dirty();
                pmem.write_back_blocks(pinned.block, nr);
                written += nr;
            }
            page.reset();
            left.pages.swap_remove(i);
        }
    }
    sb.counters.pages_written_back.add(written);
    // With the lock held: an inode that comes to memory now has nothing dirty.
    let result = match written {
        0 => Ok(()),
        // Reclaim must not evict inodes: they leave pages here.
        _ => nofs(|| pmem.fence()),
    };
    all.remove_settled();
    result.map_err(|_| {
        pr_err!("{}: stores by way of pins are lost\n", sb.name());
        EIO
    })
}

/// Frees the inodes without a name of which no page is pinned any more, if the volume may be
/// written: else the next mount frees them. The file system is not frozen. May sleep.
fn free(sb: &SbInfo) {
    let Some(_write) = InternalWrite::try_new(sb) else {
        return;
    };
    if sb.check_writable().is_err() {
        return;
    }
    loop {
        let Some(ino) = sb.pins.left.lock().take_free() else {
            return;
        };
        if let Err(error) = sb.check(sb.volume.free_orphan(ino)) {
            pr_err!(
                "{}: an unlinked inode was not freed: {error:?}\n",
                sb.name()
            );
        }
    }
}

/// What [`Pins::look_later`] has done.
///
/// # Safety
///
/// Called by the kernel's work queues with the work of a [`Pins`].
pub unsafe extern "C" fn look(work: *mut work_struct) {
    // SAFETY: the mount waits for this before it ends.
    let sb = unsafe { Pins::mount_of(work) };
    // A mount that is ending looks for itself. One that is read-only, or frozen, stays as it is.
    if let Some(mount) = MountLock::try_new(sb) {
        if mount.may_change() && settle(sb).is_ok() {
            free(sb);
        }
    }
    if !sb.pins.left.lock().is_empty() {
        sb.pins.look_later();
    }
}

/// Waits for who is giving pages back to an inode. After a shutdown nobody begins to.
pub fn wait_for_adoption(sb: &SbInfo) {
    drop(sb.pins.left.lock());
}

/// Waits until every page that was pinned when its inode was evicted is idle, as the next user of
/// the device must find it. Called when the device is being removed.
pub fn wait_for_all(sb: &SbInfo) {
    loop {
        // Not to be held while waiting.
        let Some(left) = sb.pins.left.lock().pop() else {
            break;
        };
        left.pages.iter().for_each(|page| wait_for(sb, page));
    }
}

/// The end of a mount, when all inodes are gone: waits for every pin.
pub fn finish(sb: &SbInfo) {
    // It does not wait for what the caller holds.
    sb.pins.stop_looking();
    let pinned = || sb.pins.left.lock().any_page();
    while let (Some(pinned), Some(_access)) = (pinned(), sb.volume.pmem().access()) {
        let _ = Page::of_block(sb.volume.pmem(), pinned.block).wait_idle(false);
        // It has said so if stores are lost.
        let _ = settle(sb);
    }
    if !sb.super_block().is_read_only() {
        free(sb);
    }
    #[cfg(rdax_shadow)]
    check_owners(sb);
}

/// In test builds: warns if a page of the device says that it belongs to a file. No inode is left.
#[cfg(rdax_shadow)]
fn check_owners(sb: &SbInfo) {
    let pmem = sb.volume.pmem();
    let Some(_access) = pmem.access() else {
        return;
    };
    let owned = |block: &u64| Page::of_block(pmem, *block).owner().is_some();
    let first = (0..sb.volume.geometry().blocks).find(owned);
    if let Some(block) = first {
        pr_err!("{}: block {block} belongs to a file still\n", sb.name());
    }
    kernel::warn_on!(first.is_some());
}
