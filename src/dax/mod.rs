// SPDX-License-Identifier: GPL-2.0

//! DAX: files mapped directly from the media, and which of their pages may be dirty.
//!
//! User space stores to mapped pages without the kernel's knowledge, and the stores stay in the CPU
//! cache. So the first store to a page faults; the fault tags the page as dirty and makes it
//! writable. fsync and msync visit the tagged pages of their range, write-protect them, so that the
//! next store faults again, and write their cache lines back.
//!
//! Guarantees: a store that was complete when a sync of its range began is durable when the sync
//! returns; a block is not freed while a page table or a pin leads to it; what a mapping shows is
//! what the file has.
//!
//! * The steps, and the state of each page, are in [`track`](crate::track): pure code, which is
//!   model-checked on the host.
//! * [`machine`], [`device`] and [`fault`] are what the steps do to page tables, pages and cache
//!   lines. (`mount` keeps the state of mapped pages, with the inode.)
//! * [`layout`], [`pins`] and [`failure`] handle truncation, eviction, memory errors and removal of
//!   the device.
//!
//! Only `vfs` calls this. `Documentation/dirty-tracking.rst` has the whole picture: the states of a
//! page, the lock order, and each race with what closes it.

mod device;
mod failure;
pub mod fault;
mod layout;
mod machine;
mod page;
pub mod pins;
mod sync;
pub mod vm_fault;

pub use failure::{end_stores, end_stores_work, shut_down};
pub use layout::{break_layout, wait_for_copies};
pub use pins::evict;
pub use sync::{sync_all, sync_inode, sync_range};

pub use crate::track::layout::hole_filled;
pub use crate::track::sync::dirty_page;
