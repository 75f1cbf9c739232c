// SPDX-License-Identifier: GPL-2.0

//! rdax as a file system of the VFS: the operation tables, and the code between them and `mount`,
//! `dax`, `volume` and `pmem`.
//!
//! * [`table`] has for each operation table a trait and the C functions that call it.
//! * [`inode`] and [`super_block`] read inodes and volumes.
//! * [`namei`], [`dir`], [`attr`], [`xattr`], [`acl`], [`symlink`], [`mod@file`], [`io`],
//!   [`cached`], [`allocate`], [`vm`], [`flags`], [`ioctl`], [`mod@export`], [`fiemap`],
//!   [`shutdown`] and [`context`] are the operations.
//!
//! `Documentation/locking.rst` has the order of the locks.

mod acl;
mod allocate;
mod attr;
mod cached;
mod context;
mod dir;
mod export;
mod fiemap;
mod file;
mod flags;
mod inode;
mod io;
mod ioctl;
mod namei;
mod shutdown;
mod super_block;
mod symlink;
mod table;
mod vm;
mod xattr;

use kernel::error::to_result;
use kernel::prelude::*;

use crate::mount::table::Table;
use crate::mount::{counters, known, lru, slab, tracker};
use crate::{bindings, pmem};
use table::THIS_MODULE;

static TYPE: Table<bindings::file_system_type> = Table::new(bindings::file_system_type {
    owner: THIS_MODULE,
    name: c"rdax".to_bytes_with_nul().as_ptr().cast(),
    fs_flags: (bindings::FS_REQUIRES_DEV | bindings::FS_ALLOW_IDMAP | bindings::FS_MGTIME) as i32,
    init_fs_context: Some(context::init),
    kill_sb: Some(bindings::kill_block_super),
    ..pin_init::zeroed()
});

/// The file system type, registered with the VFS until it is dropped, when the module is unloaded
/// and no mount is left.
pub struct FileSystem {
    // Dropped in this order.
    _type: Registration,
    _counters: counters::Root,
    _chunks: lru::Lru<tracker::Chunk>,
    _known: lru::Lru<known::Known>,
    _inodes: slab::InodeCache,
    _notifications: pmem::Notifications,
}

impl FileSystem {
    /// Registers the type.
    pub fn register() -> Result<Self> {
        let notifications = pmem::Notifications::new();
        let inodes = slab::InodeCache::new()?;
        let (chunks, known) = (lru::Lru::new()?, lru::Lru::new()?);
        let counters = counters::Root::new()?;
        // SAFETY: the type is static, and unregistered when `Registration` is dropped.
        to_result(unsafe { bindings::register_filesystem(TYPE.as_ptr()) })?;
        Ok(FileSystem {
            _type: Registration,
            _counters: counters,
            _chunks: chunks,
            _known: known,
            _inodes: inodes,
            _notifications: notifications,
        })
    }
}

/// The type is registered.
struct Registration;

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: it was registered. The VFS holds the module while it is mounted.
        unsafe { bindings::unregister_filesystem(TYPE.as_ptr()) };
    }
}
