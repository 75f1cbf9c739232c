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
//! * What a page can be, and what a sync does to a chunk, is in [`track`](crate::track): pure code,
//!   which is model-checked on the host.
//! * [`tracker`] keeps the chunks and tags of an inode, [`dirty`] the dirty inodes of a mount.
//! * [`fault`], [`sync`], [`layout`], [`pins`], [`reclaim`] and [`failure`] are the edge to the memory
//!   manager.
//!
//! Called by `vfs` alone. `Documentation/dirty-tracking.rst` has the whole picture: the states of a
//! page, the lock order, and each race with what closes it.

mod ahead;
mod dirty;
mod failure;
pub mod fault;
mod layout;
mod owner;
pub mod page;
pub mod pins;
mod reclaim;
mod sync;
mod tracker;

pub use dirty::{sync_all, sync_inode, DirtyInodes};
pub use failure::{end_stores, unmap_all};
pub use layout::{break_layout, evict, hole_filled};
pub use pins::Pins;
pub use sync::sync_range;
pub use tracker::{Chunk, Tracker};

use crate::mutate::mutated;
use crate::track::place::split;
use crate::vfs::inode::InodeInfo;

/// Page `page` of the file was stored to, or any page of its chunk if `huge`: by a mapping that is
/// being zapped, or by a pin that ends. Returns whether one was clean. Does not sleep; a page table lock may be held.
pub fn dirty_page(info: &InodeInfo, page: u64, huge: bool) -> bool {
    let (index, page) = split(page);
    let Some(chunk) = info.tracker.chunk(index) else {
        // Only pages that belong to the file get here, and a fault made them so.
        return false;
    };
    tag(info, chunk, (!huge).then_some(page))
}

/// Stores may reach `page` of `chunk` from now on, or have; any page if it is `None`. Returns whether
/// one was clean. Does not sleep; a page table lock may be held.
#[inline]
fn tag(info: &InodeInfo, chunk: &tracker::Chunk, page: Option<usize>) -> bool {
    info.tail_may_change();
    let newly = info.tracker.tag(chunk, page);
    info.sb().counters.pages_tagged.add(newly as u64);
    if !mutated!("note") {
        info.sb().dirty.note(&info.tracker);
    }
    newly > 0
}
