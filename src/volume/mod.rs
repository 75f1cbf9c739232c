// SPDX-License-Identifier: GPL-2.0

//! The volume: the media format of rdax and every operation on it.
//!
//! Pure logic over [`pmem::Pmem`], a small trait for byte-addressable persistent memory. The same
//! files are compiled into the kernel module and, as an ordinary crate, into the host tools and
//! tests. Nothing here depends on the kernel; the differences between the two worlds (locks,
//! growable arrays, checksums, the CPU number) are in `crate::env`.
//!
//! Guarantees:
//!
//! * Each operation of [`Volume`] that changes metadata is one journal transaction: after a crash
//!   at any store it has happened completely or not at all, and it is durable when the call
//!   returns.
//! * Persistence order is in the types of [`persist`]: a step that needs something durable takes a
//!   token that only a fence creates.
//! * No block is visible to a reader before its content is durable.
//!
//! `Documentation/format.rst` describes the media; [`mod@format`] is its executable form.

#![forbid(unsafe_code)]
// Numbers are not truncated: a narrowing is checked, or masked where it is evident that it fits.
#![deny(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]
// What is public here is the API of the host crate; inside the module it is only crate-wide.
#![allow(unreachable_pub)]

pub mod alloc;
// The kernel does not need it.
#[cfg(not(MODULE))]
pub mod check;
pub mod dir;
pub mod error;
pub mod extent;
pub mod file;
pub mod format;
pub mod index;
pub mod inode;
pub mod journal;
pub mod mkfs;
pub mod namespace;
pub(crate) mod num;
pub mod orphan;
pub mod persist;
pub mod pmem;
pub mod shift;
pub mod super_block;
pub mod table;
pub mod task;
mod verify;
pub mod xattr;

// The struct of the same name.
#[allow(clippy::module_inception)]
mod volume;

pub use error::{Error, Result};
pub use volume::{MountOptions, Notes, StatFs, Volume};
