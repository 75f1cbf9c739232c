// SPDX-License-Identifier: GPL-2.0

//! Eviction of an inode, and its return to memory, while its pages may be pinned. The steps, and
//! what they guarantee, are those of [`track::evict`](crate::track::evict).
//!
//! The kernel tells only a waiter that a page of a device is idle. So a work item checks once a
//! second while there is something to check; a sync of the mount checks, too.
//!
//! An inode without a name is in the orphan file until it is freed, for the next mount to find
//! after a crash.

use kernel::bindings::work_struct;
use kernel::prelude::*;

#[cfg(rdax_shadow)]
use super::page::Page;
use crate::mount::dirty::Listed;
use crate::mount::inode::InodeInfo;
use crate::mount::lock::{InternalWrite, MountLock};
use crate::mount::owner::disown;
use crate::mount::pins::Pins;
use crate::mount::super_block::SbInfo;
use crate::track::evict::{self, Evicted};
use crate::track::machine::Tracking;

/// The last user of the inode is gone: its pages no longer belong to it, and their content is
/// durable, unless the file has no name left. Returns whether its blocks may be freed now: not if
/// one of its pages is still pinned. Does not wait for pins.
#[must_use]
pub fn evict(info: &InodeInfo) -> bool {
    let tracker = &info.tracker;
    if tracker.is_unused() {
        // So no page was ever tagged, and nobody else knows the tracker.
        disown(info);
        return true;
    }
    tracker.leave_list();
    let sb = info.sb();
    // SAFETY: the inode is alive, and nobody else uses it.
    let unlinked = unsafe { (*info.as_vfs()).__bindgen_anon_1.i_nlink } == 0;
    let evicted = Evicted {
        file: info,
        mount: sb,
        dirty: &sb.dirty,
        entry: Listed::new(tracker),
        ino: info.ino(),
        unlinked,
        // The shadow needs everything durable in the end.
        discard: unlinked && !cfg!(rdax_shadow),
    };
    // SAFETY: no fault, sync or layout break is in progress or can begin: they need a reference to
    // the inode, which nobody can have any more, or are those of the flusher, for whose end the VFS
    // has waited.
    let free_chunks = || unsafe { tracker.free_chunks() };
    let (idle, result) = evict::evict(&evicted, free_chunks);
    if result.is_err() {
        pr_err!(
            "{}: inode {}: mapped stores are lost\n",
            sb.name(),
            info.ino()
        );
    }
    idle
}

/// The inode `ino`, which has no name, is evicted, but cannot be freed because the file system is
/// frozen or read-only: frees it afterwards.
pub fn free_later(sb: &SbInfo, ino: u64) {
    evict::free_later(sb, ino);
}

/// Gives the pages that were pinned when the inode was evicted back to it, so that truncation finds
/// them. Called before others see the inode.
pub fn adopt(info: &InodeInfo) -> Result {
    evict::adopt(info, info.sb(), info.ino())
}

/// Makes stores through pins to pages of evicted files durable, and gives up the pages that are
/// idle by now. Fails with `EIO` if the device fails. May sleep.
pub fn release(sb: &SbInfo) -> Result {
    Ok(evict::release(sb)?)
}

/// Frees the inodes without a name that have no pinned page any more, if the volume may be written:
/// otherwise the next mount frees them. The file system is not frozen. May sleep.
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

/// The work that [`Pins::look_later`] queues.
///
/// # Safety
///
/// Called by the kernel's work queues with the work of a [`Pins`].
pub unsafe extern "C" fn look(work: *mut work_struct) {
    // SAFETY: the mount waits for this before it ends.
    let sb = unsafe { Pins::mount_of(work) };
    // Unmount checks itself. If the mount is read-only, or frozen, nothing changes.
    if let Some(mount) = MountLock::try_new(sb) {
        if mount.may_change() && release(sb).is_ok() {
            free(sb);
        }
    }
    if !sb.pins.left.lock().is_empty() {
        sb.pins.look_later();
    }
}

/// The end of a mount, when all inodes are gone: waits for every pin.
pub fn finish(sb: &SbInfo) {
    // The work item does not wait for anything that the caller holds.
    sb.pins.stop_looking();
    evict::finish(sb);
    if !sb.super_block().is_read_only() {
        free(sb);
    }
    #[cfg(rdax_shadow)]
    check_owners(sb);
}

/// In test builds: warns if a page of the device still belongs to a file. No inode is left.
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
