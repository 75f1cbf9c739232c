// SPDX-License-Identifier: GPL-2.0

//! DAX: files mapped straight onto the media, and which of their pages may be dirty.
//!
//! User space stores to mapped pages without the kernel's knowledge, and the stores wait in the CPU
//! cache. So the first store to a page faults; the fault tags the page as dirty and makes it
//! writable. fsync and msync go over the tagged pages of their range, write-protect them, so that
//! the next store faults again, and write their cache lines back.
//!
//! Guarantees: a store that was complete when a sync of its range began is durable when the sync
//! returns; a block is not freed while a page table or a pin leads to it; what a mapping shows is
//! what the file has.
//!
//! * The steps, and what is known of each page, are in [`track`]: pure code, which is model-checked
//!   on the host.
//! * [`machine`] and [`fault`] are what the steps do to page tables, pages and cache lines;
//!   [`tracker`] keeps the chunks of an inode, [`dirty`] the dirty inodes of a mount.
//! * [`layout`], [`pins`], [`reclaim`] and [`failure`] are for what goes: inodes, memory, devices.
//!
//! Called by `vfs` alone. `Documentation/dirty-tracking.rst` has the whole picture: the states of a
//! page, the lock order, and each race with what closes it.

mod ahead;
mod dirty;
mod failure;
pub mod fault;
mod layout;
mod machine;
mod owner;
pub mod page;
pub mod pins;
mod reclaim;
mod tracker;

pub use dirty::{sync_all, sync_inode, DirtyInodes};
pub use failure::{end_stores, unmap_all};
pub use layout::{break_layout, evict};
pub use pins::Pins;
pub use tracker::{Chunk, Tracker};

pub use crate::track::layout::hole_filled;
pub use crate::track::sync::dirty_page;

use kernel::prelude::*;

use crate::track;
use crate::vfs::inode::InodeInfo;

/// Bytes to pages.
const PAGE_SHIFT: u32 = 12;

/// Makes the stores to the bytes `start..=end` of the file durable. Fails with `EIO` if the device
/// does; every open file then learns of it at its next fsync, too. May sleep. No chunk lock of the
/// inode is held.
#[inline]
pub fn sync_range(info: &InodeInfo, start: u64, end: u64) -> Result {
    info.sb().counters.sync_calls.add(1);
    track::sync::sync_range(info, start >> PAGE_SHIFT, end >> PAGE_SHIFT)
}
