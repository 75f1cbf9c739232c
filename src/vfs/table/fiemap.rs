// SPDX-License-Identifier: GPL-2.0

//! `->fiemap`.

use core::marker::PhantomData;

use kernel::error::{from_result, to_result};
use kernel::ffi::c_int;
use kernel::prelude::*;

use crate::bindings;
use crate::mount::inode::InodeInfo;
use crate::volume::format::BLOCK;

/// A FIEMAP request and its result.
pub struct Request(*mut bindings::fiemap_extent_info);

impl Request {
    /// Reports the extent of `len` blocks from `block` of the device on that is at `file_block`; it
    /// is the last of the file if `last`. Copies to user memory. Returns whether the caller has no
    /// room for more.
    pub fn show(&self, extent: &Extent, last: bool) -> Result<bool> {
        let mut flags = 0;
        if last {
            flags |= bindings::FIEMAP_EXTENT_LAST;
        }
        if extent.unwritten {
            flags |= bindings::FIEMAP_EXTENT_UNWRITTEN;
        }
        // SAFETY: the request is the VFS's, alive for the call.
        let full = unsafe {
            bindings::fiemap_fill_next_extent(
                self.0,
                extent.file_block * BLOCK,
                extent.block * BLOCK,
                extent.len * BLOCK,
                flags,
            )
        };
        to_result(full)?;
        Ok(full != 0)
    }
}

/// A reported extent.
pub struct Extent {
    /// The first of its file blocks.
    pub file_block: u64,
    /// The first of its blocks on the device.
    pub block: u64,
    /// The number of blocks.
    pub len: u64,
    /// Allocated, and not written.
    pub unwritten: bool,
}

/// The operation.
pub trait FiemapOperations {
    /// Shows the extents that the bytes `start..start + len` touch, in their order.
    fn fiemap(info: &InodeInfo, request: &Request, start: u64, len: u64) -> Result;
}

/// The function for a [`FiemapOperations`].
pub struct FiemapTable<T>(PhantomData<T>);

impl<T: FiemapOperations> FiemapTable<T> {
    /// # Safety
    ///
    /// `->fiemap`, called by the VFS.
    pub unsafe extern "C" fn fiemap(
        inode: *mut bindings::inode,
        // Opaque in `kernel`; our binding has the fields.
        request: *mut kernel::bindings::fiemap_extent_info,
        start: u64,
        mut len: u64,
    ) -> c_int {
        let request = request.cast();
        from_result(|| {
            // SAFETY: the inode is alive; the request and the length are ours to use.
            let info = unsafe {
                to_result(bindings::fiemap_prep(inode, request, start, &mut len, 0))?;
                InodeInfo::from_vfs(inode)
            };
            T::fiemap(info, &Request(request), start, len).map(|()| 0)
        })
    }
}
