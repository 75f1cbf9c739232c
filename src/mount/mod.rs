// SPDX-License-Identifier: GPL-2.0

//! What is kept in memory of a mounted volume and its inodes, and the guards for it: what the
//! operations of the VFS (`vfs`) and the mapping of files (`dax`) both need.
//!
//! * [`super_block`] and [`inode`] are rdax's own state beside the kernel's: [`volume`] on its
//!   device, with its [`options`], [`state`], [`counters`], and whether it is [`read_only`].
//! * [`tracker`] is what an inode knows of its mapped pages, [`dirty`] which inodes have dirty
//!   ones, [`owner`] whether pages belong to it, [`pins`] what evicted ones have left, [`ahead`]
//!   what stores to holes are given, [`huge_zero`] what loads of them see. [`reclaim`] gives back
//!   what is known, as does [`known`] for the volume's; both by [`lru`].
//! * [`object`], [`lock`], [`meta`], [`table`], [`work`] wrap what the kernel hands over, and its
//!   locks.
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
