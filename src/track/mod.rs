// SPDX-License-Identifier: GPL-2.0

//! Which pages of a file may hold stores that are not on the media, and what a sync does about them.
//!
//! Pure: no `unsafe`, no kernel. The same files are compiled into the module and, on the host, into
//! `tools/dax-model`, where a model checker runs them in a machine of its own, under every interleaving of
//! faults, stores, syncs, zaps and truncation.
//!
//! * [`chunk`] is the state machine of 512 pages, [`page_set`] a set of them, [`place`] where they are in
//!   their file; [`heat`] tells which are stored to again and again, [`density`] whether 2 MiB are stored
//!   to all over.
//! * [`sync`] is the order of steps by which the dirty pages of a chunk reach the media.
//! * [`dirty_list`] has the inodes of a mount that have dirty pages, [`left`] the pages that a pin kept
//!   when their inode was evicted.
//!
//! `dax` gives all of it memory, locks, page tables and cache lines.

pub mod chunk;
pub mod density;
pub mod dirty_list;
pub mod heat;
pub mod left;
pub mod page_set;
pub mod place;
pub mod sync;
