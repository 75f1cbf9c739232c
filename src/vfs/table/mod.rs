// SPDX-License-Identifier: GPL-2.0

//! The operation tables of the VFS: one trait for each, and the C functions that call it.
//!
//! Everything unsafe about being called by C is here and nowhere else: a callback turns pointers
//! into references, calls the trait, and turns the result into what C expects. It relies on the
//! rules of Documentation/filesystems/locking.rst in the kernel: the objects passed in are valid
//! and referenced for the duration of the call, and locked as written there.

pub mod acl;
pub mod cache;
pub mod context;
pub mod export;
pub mod fiemap;
pub mod file;
pub mod inode;
pub mod super_block;
pub mod xattr;

use crate::bindings;

/// The module, for `owner`: objects in use by the VFS keep it loaded.
pub const THIS_MODULE: *mut bindings::module =
    kernel::module::this_module::<crate::RdaxModule>().as_ptr();
