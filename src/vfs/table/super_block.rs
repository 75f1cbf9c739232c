// SPDX-License-Identifier: GPL-2.0

//! `struct super_operations`.

use core::marker::PhantomData;
use core::ptr::{null_mut, NonNull};

use kernel::error::from_result;
use kernel::ffi::c_int;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;

use crate::mount::inode::InodeInfo;
use crate::mount::object::SuperBlock;
use crate::mount::table::Table;
use crate::vfs::inode::evict;
use crate::{bindings, dax};

/// The operations of a super block.
pub trait SuperOperations {
    /// `->statfs`.
    fn statfs(sb: &SuperBlock, stat: &mut bindings::kstatfs) -> Result;

    /// `->sync_fs`, if it waits, and `->freeze_fs`: everything written is durable after it. A
    /// freeze calls both.
    fn sync(sb: &SuperBlock) -> Result;

    /// `->show_options`, as they appear in /proc/mounts.
    fn show_options(sb: &SuperBlock, seq: &SeqFile) -> Result;

    /// `->shutdown`: the block device is removed, or being removed.
    fn device_removed(sb: &SuperBlock);

    /// `->unfreeze_fs`: the device mapper may have changed the device meanwhile.
    fn thawed(sb: &SuperBlock);

    /// `->put_super`: the last inode is gone.
    ///
    /// # Safety
    ///
    /// Nobody uses what rdax keeps beside the super block any more.
    unsafe fn put(sb: &SuperBlock);
}

/// The table for a [`SuperOperations`].
pub struct SuperTable<T>(PhantomData<T>);

impl<T: SuperOperations> SuperTable<T> {
    /// The table.
    pub const fn table() -> Table<bindings::super_operations> {
        Table::new(bindings::super_operations {
            alloc_inode: Some(Self::alloc_inode),
            free_inode: Some(Self::free_inode),
            write_inode: Some(Self::write_inode),
            evict_inode: Some(Self::evict_inode),
            put_super: Some(Self::put_super),
            sync_fs: Some(Self::sync_fs),
            freeze_fs: Some(Self::freeze_fs),
            unfreeze_fs: Some(Self::unfreeze_fs),
            shutdown: Some(Self::shutdown),
            statfs: Some(Self::statfs),
            show_options: Some(Self::show_options),
            ..pin_init::zeroed()
        })
    }

    /// # Safety
    ///
    /// `->alloc_inode`, called by the VFS.
    unsafe extern "C" fn alloc_inode(sb: *mut bindings::super_block) -> *mut bindings::inode {
        // SAFETY: the super block is alive.
        let sb = unsafe { SuperBlock::from_raw(sb) };
        InodeInfo::alloc(sb).map_or(null_mut(), NonNull::as_ptr)
    }

    /// # Safety
    ///
    /// `->free_inode`, called by RCU when the last reader is gone.
    unsafe extern "C" fn free_inode(inode: *mut bindings::inode) {
        if let Some(inode) = NonNull::new(inode) {
            // SAFETY: `alloc_inode` made it; the VFS gives it up.
            unsafe { InodeInfo::free(inode) };
        }
    }

    /// # Safety
    ///
    /// `->write_inode`, called by write-back and sync.
    unsafe extern "C" fn write_inode(
        inode: *mut bindings::inode,
        wbc: *mut bindings::writeback_control,
    ) -> c_int {
        // SAFETY: write-back keeps the inode from being freed.
        let info = unsafe { InodeInfo::from_vfs(inode) };
        // SAFETY: write-back has made it.
        let is_of_sync = unsafe { bindings::rdax_wbc_is_of_sync(wbc) };
        from_result(|| {
            match is_of_sync {
                // `->sync_fs` comes next. Hot pages are written back once.
                true => info.sb().dirty.mark(&info.tracker),
                false => dax::sync_inode(info)?,
            }
            info.write_times()?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `->evict_inode`, called by the VFS once no user is left.
    unsafe extern "C" fn evict_inode(inode: *mut bindings::inode) {
        // SAFETY: the inode is ours until this returns.
        evict(unsafe { InodeInfo::from_vfs(inode) });
    }

    /// # Safety
    ///
    /// `->put_super`, called by the VFS at the end of an unmount.
    unsafe extern "C" fn put_super(sb: *mut bindings::super_block) {
        // SAFETY: the super block is alive, the last of its inodes is gone.
        unsafe { T::put(SuperBlock::from_raw(sb)) };
    }

    /// # Safety
    ///
    /// `->sync_fs`, called by the VFS.
    unsafe extern "C" fn sync_fs(sb: *mut bindings::super_block, wait: c_int) -> c_int {
        if wait == 0 {
            return 0;
        }
        // SAFETY: the super block is alive.
        let sb = unsafe { SuperBlock::from_raw(sb) };
        from_result(|| T::sync(sb).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->freeze_fs`, called by the VFS once nobody writes and all is synced.
    unsafe extern "C" fn freeze_fs(sb: *mut bindings::super_block) -> c_int {
        // SAFETY: the super block is alive.
        let sb = unsafe { SuperBlock::from_raw(sb) };
        from_result(|| T::sync(sb).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->unfreeze_fs`, called by the VFS.
    unsafe extern "C" fn unfreeze_fs(sb: *mut bindings::super_block) -> c_int {
        // SAFETY: the super block is alive.
        T::thawed(unsafe { SuperBlock::from_raw(sb) });
        0
    }

    /// # Safety
    ///
    /// `->shutdown`, called by the VFS with the super block locked and mounted.
    unsafe extern "C" fn shutdown(sb: *mut bindings::super_block) {
        // SAFETY: the super block is alive.
        T::device_removed(unsafe { SuperBlock::from_raw(sb) });
    }

    /// # Safety
    ///
    /// `->statfs`, called by the VFS.
    unsafe extern "C" fn statfs(
        dentry: *mut bindings::dentry,
        // Opaque in `kernel`; our binding has the fields.
        stat: *mut kernel::bindings::kstatfs,
    ) -> c_int {
        // SAFETY: the dentry holds its super block; `stat` is the caller's to fill.
        let (sb, stat) = unsafe { (SuperBlock::from_raw((*dentry).d_sb), &mut *stat.cast()) };
        from_result(|| T::statfs(sb, stat).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->show_options`, called by the VFS.
    unsafe extern "C" fn show_options(
        seq: *mut bindings::seq_file,
        root: *mut bindings::dentry,
    ) -> c_int {
        // SAFETY: the dentry holds its super block; the file is being read by the caller.
        let (sb, seq) = unsafe { (SuperBlock::from_raw((*root).d_sb), SeqFile::from_raw(seq)) };
        from_result(|| T::show_options(sb, seq).map(|()| 0))
    }
}
