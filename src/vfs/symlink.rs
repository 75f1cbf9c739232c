// SPDX-License-Identifier: GPL-2.0

//! Symbolic links. The target is read with the inode and stays in memory with it, so that path
//! walks follow it without a lock and without sleeping.

use core::ffi::CStr;

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::error::code::*;
use kernel::prelude::*;

use super::attr::Attributes;
use super::inode::InodeInfo;
use super::super_block::SbInfo;
use super::table::inode::{AttrTable, InodeTable};
use crate::bindings;
use crate::volume::inode::Inode;

static INODE: InodeTable = InodeTable::new(bindings::inode_operations {
    get_link: Some(bindings::simple_get_link),
    // A symlink has no permissions of its own.
    get_inode_acl: None,
    set_acl: None,
    ..AttrTable::<Attributes>::OPERATIONS
});

/// Where a symlink points: bytes that end with a zero.
pub struct Target(KVec<u8>);

impl Target {
    /// A copy of `path`.
    pub fn new(path: &CStr) -> Result<Self> {
        let mut bytes = KVec::new();
        bytes.extend_from_slice(path.to_bytes_with_nul(), GFP_KERNEL_ACCOUNT)?;
        Ok(Target(bytes))
    }

    /// The target of `inode`, if that is a symlink.
    pub fn read(sb: &SbInfo, inode: &Inode) -> Result<Option<Self>> {
        if u32::from(inode.mode()) & bindings::S_IFMT != bindings::S_IFLNK {
            return Ok(None);
        }
        // Verified when the inode was read: SYMLINK_MAX at most.
        let len = usize::try_from(inode.size())?;
        let size = len.checked_add(1).ok_or(EOVERFLOW)?;
        let mut bytes = KVec::from_elem(0, size, GFP_KERNEL_ACCOUNT)?;
        let path = bytes.get_mut(..len).ok_or(EIO)?;
        let read = sb.check(sb.volume.read_link(inode, path))?;
        if read != len || path.contains(&0) {
            return Err(EIO);
        }
        Ok(Some(Target(bytes)))
    }

    /// The target without the zero at its end.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split_last().map_or(&[], |(_zero, path)| path)
    }
}

/// Makes `info`, which others do not see yet, a symlink to `target`, which it keeps.
pub fn set_operations(info: &InodeInfo, target: Option<&Target>) {
    INODE.install(info);
    let Some(Target(bytes)) = target else { return };
    let len = i32::try_from(target.map_or(0, |t| t.as_bytes().len())).unwrap_or(0);
    // SAFETY: the bytes end with their only zero, do not move (the target is not changed once it
    // is set) and are freed with the inode, an RCU grace period after the last path walk.
    unsafe {
        bindings::rdax_set_cached_link(info.as_vfs(), bytes.as_ptr().cast_mut().cast(), len);
    }
}
