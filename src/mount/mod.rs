// SPDX-License-Identifier: GPL-2.0

//! In-memory state of a mounted volume and its inodes, and the guards for it: what both the
//! operations of the VFS (`vfs`) and the mapping of files (`dax`) need.
//!
//! * [`super_block`] and [`inode`] are rdax's own state beside the kernel's: [`volume`] on its
//!   device, with its [`options`], [`state`], [`counters`], and whether it is [`read_only`].
//! * [`tracker`] has the state of the mapped pages of an inode, [`dirty`] the inodes with dirty
//!   pages, [`owner`] whether pages belong to an inode, [`pins`] what evicted inodes have left,
//!   [`ahead`] the streams of stores to holes, [`huge_zero`] the zeros that loads of holes see.
//!   [`reclaim`] frees such state when memory is short, as does [`known`] for the volume's; both by
//!   [`lru`].
//! * [`object`], [`lock`], [`meta`], [`table`], [`work`] wrap objects of the kernel, and its locks.
//!
//! `Documentation/locking.rst` has the order of the locks.
//!
//! [`volume`]: crate::volume

pub mod ahead;
pub mod counters;
pub mod dirty;
pub mod huge_zero;
pub mod inode;
pub mod known;
pub mod lock;
pub mod lru;
pub mod meta;
pub mod object;
pub mod options;
pub mod owner;
pub mod pins;
pub mod read_only;
pub mod reclaim;
pub mod slab;
pub mod state;
pub mod super_block;
pub mod table;
pub mod target;
pub mod time;
pub mod tracker;
pub mod work;
