// SPDX-License-Identifier: GPL-2.0

//! The VFS objects that rdax gets, wrapped in place: references with safe methods for what rdax
//! needs of them.

use core::ffi::CStr;

use kernel::prelude::*;
use kernel::types::Opaque;

use super::inode::InodeInfo;
use super::super_block::SbInfo;
use crate::bindings;

/// A `struct super_block` of rdax.
#[repr(transparent)]
pub struct SuperBlock(Opaque<bindings::super_block>);

impl SuperBlock {
    /// # Safety
    ///
    /// `sb` is a super block of rdax that stays alive for all of `'a`.
    pub unsafe fn from_raw<'a>(sb: *mut bindings::super_block) -> &'a Self {
        // SAFETY: by the caller; the layout is the same, and `Opaque` allows C to change it.
        unsafe { &*sb.cast() }
    }

    /// The C object.
    pub fn as_raw(&self) -> *mut bindings::super_block {
        self.0.get()
    }

    /// rdax's data beside it.
    pub fn info(&self) -> &SbInfo {
        // SAFETY: `fill_super` sets it before the first inode is made or operation called, and
        // `put_super` clears it after the last.
        unsafe { &*(*self.as_raw()).s_fs_info.cast::<SbInfo>() }
    }

    /// The name of the device, as in messages of the kernel.
    pub fn name(&self) -> &CStr {
        // SAFETY: `s_id` is a string that ends with zero, set before `fill_super`.
        unsafe { CStr::from_char_ptr((&raw const (*self.as_raw()).s_id).cast()) }
    }

    /// The mount flags, `SB_*`.
    pub fn flags(&self) -> usize {
        // SAFETY: a plain word that the kernel reads and writes without a lock.
        unsafe { (&raw const (*self.as_raw()).s_flags).read_volatile() }
    }

    /// Whether it is frozen, or about to be: no page fault begins that stores.
    pub fn is_freezing(&self) -> bool {
        // SAFETY: the super block is alive.
        unsafe { bindings::rdax_sb_is_freezing(self.as_raw()) }
    }

    /// Whether it is mounted read-only.
    pub fn is_read_only(&self) -> bool {
        self.flags() & bindings::RDAX_SB_RDONLY != 0
    }
}

/// A `struct dentry` of rdax.
#[repr(transparent)]
pub struct Dentry(Opaque<bindings::dentry>);

impl Dentry {
    /// # Safety
    ///
    /// `dentry` is a dentry of rdax, alive for all of `'a`, and neither its name nor its inode
    /// changes meanwhile: its directory is locked.
    pub unsafe fn from_raw<'a>(dentry: *mut bindings::dentry) -> &'a Self {
        // SAFETY: by the caller; the layout is the same.
        unsafe { &*dentry.cast() }
    }

    /// The C object.
    pub fn as_raw(&self) -> *mut bindings::dentry {
        self.0.get()
    }

    /// The last component of the path.
    pub fn name(&self) -> &[u8] {
        // SAFETY: the name is stable while the directory is locked, and `len` bytes long.
        unsafe {
            let name = bindings::rdax_dentry_name(self.as_raw());
            let len = (*name).__bindgen_anon_1.__bindgen_anon_1.len;
            core::slice::from_raw_parts((*name).name, len as usize)
        }
    }

    /// The inode it names, if it names one.
    pub fn inode(&self) -> Option<&InodeInfo> {
        // SAFETY: stable while the directory is locked; the dentry holds a reference.
        unsafe {
            let inode = (*self.as_raw()).d_inode;
            if inode.is_null() {
                None
            } else {
                Some(InodeInfo::from_vfs(inode))
            }
        }
    }
}

/// The mapping of users and groups of a mount; only passed on.
#[repr(transparent)]
pub struct IdMap(Opaque<bindings::mnt_idmap>);

impl IdMap {
    /// # Safety
    ///
    /// `idmap` stays alive for all of `'a`.
    pub unsafe fn from_raw<'a>(idmap: *mut bindings::mnt_idmap) -> &'a Self {
        // SAFETY: by the caller.
        unsafe { &*idmap.cast() }
    }

    /// The C object.
    pub fn as_raw(&self) -> *mut bindings::mnt_idmap {
        self.0.get()
    }
}

/// An open `struct file` of rdax.
#[repr(transparent)]
pub struct File(Opaque<bindings::file>);

impl File {
    /// # Safety
    ///
    /// `file` is open on an inode of rdax and stays so for all of `'a`.
    pub unsafe fn from_raw<'a>(file: *mut bindings::file) -> &'a Self {
        // SAFETY: by the caller; the layout is the same.
        unsafe { &*file.cast() }
    }

    /// The C object.
    pub fn as_raw(&self) -> *mut bindings::file {
        self.0.get()
    }

    /// The inode it is open on.
    pub fn inode(&self) -> &InodeInfo {
        // SAFETY: set at open; the file holds a reference.
        unsafe { InodeInfo::from_vfs((*self.as_raw()).f_inode) }
    }

    /// Its dentry.
    pub fn dentry(&self) -> &Dentry {
        // SAFETY: set before the file system sees the file, which holds a reference. A file that is
        // being opened without a name has a dentry that nobody else knows.
        unsafe { Dentry::from_raw((*self.as_raw()).__bindgen_anon_1.f_path.dentry) }
    }

    /// Updates the access time, if the mount options ask for it.
    pub fn accessed(&self) {
        // SAFETY: the file is open.
        unsafe { bindings::rdax_file_accessed(self.as_raw()) };
    }
}
