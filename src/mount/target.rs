// SPDX-License-Identifier: GPL-2.0

//! The target of a symbolic link, kept in memory with the inode.

use core::ffi::CStr;

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::error::code::*;
use kernel::prelude::*;

use super::super_block::SbInfo;
use crate::bindings;
use crate::volume::error::{Error, Structure};
use crate::volume::inode::Inode;

/// The target of a symlink: bytes that end with a zero.
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
            return sb.check(Err(Error::Corrupt {
                what: Structure::Inode,
                at: inode.at(),
            }));
        }
        Ok(Some(Target(bytes)))
    }

    /// The target. A zero follows it.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split_last().map_or(&[], |(_zero, path)| path)
    }
}
