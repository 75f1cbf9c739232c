// SPDX-License-Identifier: GPL-2.0

//! Syncs of a range, of an inode, and of all inodes of a mount.

use kernel::prelude::*;
use kernel::sync::barrier::{smp_mb, Full};

use crate::mount::dirty::Listed;
use crate::mount::inode::InodeInfo;
use crate::mount::super_block::SbInfo;
use crate::mutate::mutated;
use crate::track;
use crate::track::machine::Tracking;
use crate::track::{dirty_list, evict};

/// Bytes to pages.
const PAGE_SHIFT: u32 = 12;

/// Makes the stores to the bytes `start..=end` of the file durable. Fails with `EIO` if the device
/// fails; every open file then gets the error at its next fsync, too. May sleep. The caller holds
/// no chunk lock of the inode.
#[inline]
pub fn sync_range(info: &InodeInfo, start: u64, end: u64) -> Result {
    info.sb().counters.sync_calls.add(1);
    track::sync::sync_range(info, start >> PAGE_SHIFT, end >> PAGE_SHIFT)
}

/// Writes back every dirty page of the mount, including those that evicted inodes have left behind,
/// and write-protects its mappings, for sync, syncfs, freeze, remount and unmount. Hot pages stay
/// writable, unless the mount is about to be frozen. Waits for other tasks that write dirty inodes
/// back, including evictions. Returns the first error, after all inodes were processed. May sleep,
/// and evict inodes.
pub fn sync_all(sb: &SbInfo) -> Result {
    if mutated!("sync-all") {
        return Ok(());
    }
    let _serial = sb.dirty.serial.lock();
    evict::sync_all(sb, &sb.dirty, |inode| write_back(inode))
}

/// Writes back every dirty page of an inode, and write-protects its mappings, as [`sync_all`] does:
/// for the flusher and other callers that write inodes. The caller keeps the inode in memory. May
/// sleep.
pub fn sync_inode(info: &InodeInfo) -> Result {
    // sync(2) wakes the flusher, too, and does the same in `sync_all`: leaving out one may have no
    // visible effect.
    if mutated!("age") {
        return Ok(());
    }
    if mutated!("sync-all") {
        return Ok(());
    }
    let entry = Listed::new(&info.tracker);
    let result = dirty_list::sync_one(&info.sb().dirty, entry, || write_back(info));
    if info.tracker.is_any_marked() {
        info.begin_age();
    }
    result
}

/// Writes back an inode that was removed from the list.
fn write_back(info: &InodeInfo) -> Result {
    // Pairs with `note`.
    smp_mb(Full);
    track::sync::write_back_file(info)
}
