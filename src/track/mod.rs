// SPDX-License-Identifier: GPL-2.0

//! Dirty tracking: which pages of a mapped file may hold stores that are not on the media, and the
//! order of steps by which faults make them dirty, syncs make them durable, and truncation takes
//! them from the file.
//!
//! Pure: no `unsafe`, no kernel. The same files are compiled into the module and, on the host, into
//! `tools/dax-model`. There a model checker runs them in its own machine, under every interleaving
//! of faults, stores, syncs, zaps, pins, truncation and reclaim. `dax` is the kernel's machine.
//!
//! * [`machine`] defines the interface to the rest of the world: the traits.
//! * [`fault`] maps a page: a shared write fault tags it before it becomes writable. [`sync`]
//!   writes back and write-protects tagged pages. [`layout`] takes pages from the file.
//! * [`windows`] has the tags, the marks of chunks, and the syncs in flight, each with its window.
//! * [`chunk`] is the state machine of 512 pages, [`page_set`] a set of them, [`place`] where they
//!   are in their file; [`heat`] tells which are stored to again and again, [`density`] whether all
//!   of 2 MiB is stored to, [`ahead`] how many blocks a store to a hole gets.
//! * [`dirty_list`] has the inodes of a mount that have dirty pages. [`evict`] takes the pages from
//!   an inode that is evicted; [`left`] has those that were still pinned then.

#![forbid(unsafe_code)]

pub mod ahead;
pub mod chunk;
pub mod density;
pub mod dirty_list;
pub mod evict;
pub mod fault;
pub mod heat;
pub mod layout;
pub mod left;
pub mod machine;
pub mod page_set;
pub mod place;
pub mod removal;
pub mod sync;
pub mod windows;
