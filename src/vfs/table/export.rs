// SPDX-License-Identifier: GPL-2.0

//! `struct export_operations`: files by handle, for NFS and `open_by_handle_at(2)`.

use core::marker::PhantomData;

use kernel::ffi::c_int;
use kernel::prelude::*;

use crate::bindings;
use crate::mount::inode::{InodeInfo, InodeRef};
use crate::mount::object::SuperBlock;
use crate::mount::table::Table;

/// A handle's identification of an inode: its number and its generation.
#[derive(Clone, Copy)]
pub struct Handle {
    /// Inode number.
    pub ino: u64,
    /// Its generation: each user of the number has another.
    pub generation: u32,
}

/// Words of 32 bits that a [`Handle`] takes.
const WORDS: usize = 3;
/// The types of the handles: of an inode, and of one with its directory.
const ALONE: u32 = bindings::fid_type_FILEID_INO64_GEN;
const WITH_PARENT: u32 = bindings::fid_type_FILEID_INO64_GEN_PARENT;

/// Finding inodes by what identifies them.
pub trait ExportOperations {
    /// The inode of a handle. Fails with ESTALE if it no longer exists.
    fn find(sb: &SuperBlock, handle: Handle) -> Result<InodeRef>;

    /// The parent directory of `dir`, a directory.
    fn parent(dir: &InodeInfo) -> Result<InodeRef>;
}

/// The table for an [`ExportOperations`].
pub struct ExportTable<T>(PhantomData<T>);

/// The words of the handle of `info`.
fn encode(info: &InodeInfo) -> [u32; WORDS] {
    let ino = info.ino();
    // CAST: the halves of a number.
    [ino as u32, (ino >> 32) as u32, info.generation()]
}

/// A dentry for `found`.
fn dentry(found: Result<InodeRef>) -> *mut bindings::dentry {
    match found {
        // SAFETY: the reference passes to the dentry.
        Ok(inode) => unsafe { bindings::d_obtain_alias(inode.into_raw()) },
        Err(error) => error.to_ptr(),
    }
}

impl<T: ExportOperations> ExportTable<T> {
    /// The table.
    pub const fn table() -> Table<bindings::export_operations> {
        Table::new(bindings::export_operations {
            encode_fh: Some(Self::encode_fh),
            fh_to_dentry: Some(Self::fh_to_dentry),
            fh_to_parent: Some(Self::fh_to_parent),
            get_parent: Some(Self::get_parent),
            ..pin_init::zeroed()
        })
    }

    /// # Safety
    ///
    /// `->encode_fh`, called by the VFS: `words` has room for `max` words.
    unsafe extern "C" fn encode_fh(
        inode: *mut bindings::inode,
        words: *mut u32,
        max: *mut c_int,
        parent: *mut bindings::inode,
    ) -> c_int {
        let (need, kind) = if parent.is_null() {
            (WORDS, ALONE)
        } else {
            (2 * WORDS, WITH_PARENT)
        };
        // SAFETY: the caller's to read and write; the inodes are alive. CAST: small numbers.
        unsafe {
            let room = max.replace(need as c_int);
            if room < need as c_int {
                return bindings::fid_type_FILEID_INVALID as c_int;
            }
            words
                .cast::<[u32; WORDS]>()
                .write(encode(InodeInfo::from_vfs(inode)));
            if !parent.is_null() {
                let parent = InodeInfo::from_vfs(parent);
                words
                    .add(WORDS)
                    .cast::<[u32; WORDS]>()
                    .write(encode(parent));
            }
        }
        kind as c_int
    }

    /// The inode of the handle at word `at` of `fid`, which has `len` words.
    ///
    /// # Safety
    ///
    /// As below.
    unsafe fn find(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        len: c_int,
        at: usize,
    ) -> *mut bindings::dentry {
        if usize::try_from(len).unwrap_or(0) < at + WORDS {
            return core::ptr::null_mut();
        }
        // SAFETY: the handle is the caller's, and has as many words; the super block is alive.
        let (sb, [low, high, generation]) = unsafe {
            (
                SuperBlock::from_raw(sb),
                fid.cast::<u32>().add(at).cast::<[u32; WORDS]>().read(),
            )
        };
        dentry(T::find(
            sb,
            Handle {
                ino: u64::from(high) << 32 | u64::from(low),
                generation,
            },
        ))
    }

    /// # Safety
    ///
    /// `->fh_to_dentry`, called by the VFS: `fid` has `len` words.
    unsafe extern "C" fn fh_to_dentry(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        len: c_int,
        kind: c_int,
    ) -> *mut bindings::dentry {
        match u32::try_from(kind) {
            // SAFETY: by the caller.
            Ok(ALONE | WITH_PARENT) => unsafe { Self::find(sb, fid, len, 0) },
            _ => core::ptr::null_mut(),
        }
    }

    /// # Safety
    ///
    /// `->fh_to_parent`, called by the VFS: `fid` has `len` words.
    unsafe extern "C" fn fh_to_parent(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        len: c_int,
        kind: c_int,
    ) -> *mut bindings::dentry {
        match u32::try_from(kind) {
            // SAFETY: by the caller.
            Ok(WITH_PARENT) => unsafe { Self::find(sb, fid, len, WORDS) },
            _ => core::ptr::null_mut(),
        }
    }

    /// # Safety
    ///
    /// `->get_parent`, called by the VFS.
    unsafe extern "C" fn get_parent(child: *mut bindings::dentry) -> *mut bindings::dentry {
        // SAFETY: the caller holds the dentry, which is a directory's.
        dentry(T::parent(unsafe { InodeInfo::from_vfs((*child).d_inode) }))
    }
}
