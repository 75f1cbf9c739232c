// SPDX-License-Identifier: GPL-2.0

//! `struct file_operations`, for files and for directories.

use core::marker::PhantomData;

use kernel::error::from_result;
use kernel::ffi::{c_int, c_long, c_uint, c_ulong};
use kernel::iov::{IovIterDest, IovIterSource};
use kernel::prelude::*;
use kernel::uaccess::UserPtr;

use crate::bindings;
use crate::mount::inode::InodeInfo;
use crate::mount::object::File;
use crate::mount::table::Table;

/// A static `struct file_operations`.
pub struct FileTable(Table<bindings::file_operations>);

impl FileTable {
    /// Wraps `operations`.
    pub const fn new(operations: bindings::file_operations) -> Self {
        FileTable(Table::new(operations))
    }

    /// Makes it the table of files opened on `info`, which others do not see yet.
    pub fn install(&'static self, info: &InodeInfo) {
        // SAFETY: nobody else uses the inode yet; the table is static.
        unsafe { (*info.as_vfs()).__bindgen_anon_3.i_fop = self.0.as_ptr() };
    }
}

/// A read or write in progress: the file, its position and flags.
#[repr(transparent)]
pub struct Kiocb(kernel::types::Opaque<bindings::kiocb>);

impl Kiocb {
    /// The C object.
    pub fn as_raw(&self) -> *mut bindings::kiocb {
        self.0.get()
    }

    /// The file.
    pub fn file(&self) -> &File {
        // SAFETY: the caller of read or write holds the file.
        unsafe { File::from_raw((*self.as_raw()).ki_filp) }
    }

    /// The position in bytes.
    pub fn pos(&self) -> u64 {
        // SAFETY: the control block is ours for the call. The VFS refuses negative positions.
        u64::try_from(unsafe { (*self.as_raw()).ki_pos }).unwrap_or(0)
    }

    /// Whether the transfer goes past the page cache.
    pub fn is_direct(&self) -> bool {
        // SAFETY: the control block is ours for the call.
        unsafe { (*self.as_raw()).ki_flags & bindings::RDAX_IOCB_DIRECT != 0 }
    }

    /// Whether it must not wait, but fail with `EAGAIN` (`RWF_NOWAIT`, io_uring).
    pub fn is_nowait(&self) -> bool {
        // SAFETY: the control block is ours for the call.
        unsafe { (*self.as_raw()).ki_flags & bindings::RDAX_IOCB_NOWAIT != 0 }
    }

    /// Whether the written data has to be synced before the call returns.
    pub fn is_sync(&self) -> bool {
        // SAFETY: the control block is ours for the call.
        unsafe { (*self.as_raw()).ki_flags & bindings::RDAX_IOCB_DSYNC != 0 }
    }

    /// Sets the position to byte `pos`.
    pub fn set_pos(&mut self, pos: u64) {
        let pos = i64::try_from(pos).unwrap_or(i64::MAX);
        // SAFETY: the control block is ours for the call.
        unsafe { (*self.as_raw()).ki_pos = pos };
    }
}

/// The operations of a regular file.
pub trait FileOperations {
    /// `->open`: whether `info` may be opened, permissions aside.
    fn open(info: &InodeInfo) -> Result;

    /// `->llseek`: the new position.
    fn llseek(file: &File, offset: i64, whence: i32) -> Result<i64>;

    /// `->read_iter`: bytes read.
    fn read(iocb: &mut Kiocb, to: &mut IovIterDest<'_>) -> Result<usize>;

    /// `->write_iter`: bytes written.
    fn write(iocb: &mut Kiocb, from: &mut IovIterSource<'_>) -> Result<usize>;

    /// `->mmap_prepare`.
    fn mmap(file: &File, desc: &mut bindings::vm_area_desc) -> Result;

    /// `->fsync` of the bytes `start..=end`.
    fn fsync(file: &File, start: u64, end: u64, datasync: bool) -> Result;

    /// `->fallocate`; `mode` is of `FALLOC_FL_*`.
    fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> Result;

    /// `->unlocked_ioctl`; `arg` is a pointer for all that rdax knows.
    fn ioctl(file: &File, cmd: u32, arg: UserPtr) -> Result<isize>;
}

/// The table for a [`FileOperations`].
pub struct RegularTable<T>(PhantomData<T>);

impl<T: FileOperations> RegularTable<T> {
    /// The operations; others may be added.
    pub const OPERATIONS: bindings::file_operations = bindings::file_operations {
        owner: super::THIS_MODULE,
        llseek: Some(Self::llseek),
        read_iter: Some(Self::read_iter),
        write_iter: Some(Self::write_iter),
        mmap_prepare: Some(Self::mmap_prepare),
        open: Some(Self::open),
        fsync: Some(Self::fsync),
        fallocate: Some(Self::fallocate),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `->open`, called by the VFS.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: both are alive. O_DIRECT works on all files, and is what reads and writes of DAX
        // files are anyway; neither has to wait for a device.
        let (info, opened) = unsafe {
            bindings::rdax_set_open_direct(file);
            let opened = bindings::generic_file_open(inode, file);
            (InodeInfo::from_vfs(inode), opened)
        };
        from_result(|| T::open(info).map(|()| opened))
    }

    /// # Safety
    ///
    /// `->llseek`, called by the VFS.
    unsafe extern "C" fn llseek(file: *mut bindings::file, offset: i64, whence: c_int) -> i64 {
        // SAFETY: the file is open.
        let file = unsafe { File::from_raw(file) };
        from_result(|| T::llseek(file, offset, whence))
    }

    /// # Safety
    ///
    /// `->read_iter`, called by the VFS.
    unsafe extern "C" fn read_iter(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: both are the caller's, lent for the call; the layout of `Kiocb` is the same.
        let (iocb, to) = unsafe { (&mut *iocb.cast::<Kiocb>(), IovIterDest::from_raw(to)) };
        from_result(|| T::read(iocb, to).map(|n| n as isize))
    }

    /// # Safety
    ///
    /// `->write_iter`, called by the VFS.
    unsafe extern "C" fn write_iter(
        iocb: *mut bindings::kiocb,
        from: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: as for `read_iter`.
        let (iocb, from) = unsafe { (&mut *iocb.cast::<Kiocb>(), IovIterSource::from_raw(from)) };
        from_result(|| T::write(iocb, from).map(|n| n as isize))
    }

    /// # Safety
    ///
    /// `->mmap_prepare`, called by the core of mm.
    unsafe extern "C" fn mmap_prepare(desc: *mut bindings::vm_area_desc) -> c_int {
        // SAFETY: the description is the caller's, lent for the call, and names an open file.
        let (file, desc) = unsafe { (File::from_raw((*desc).file), &mut *desc) };
        from_result(|| T::mmap(file, desc).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->fsync`, called by the VFS.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        start: i64,
        end: i64,
        datasync: c_int,
    ) -> c_int {
        // SAFETY: the file is open.
        let file = unsafe { File::from_raw(file) };
        from_result(|| {
            let (start, end) = (u64::try_from(start)?, u64::try_from(end)?);
            T::fsync(file, start, end, datasync != 0).map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// `->fallocate`, called by the VFS.
    unsafe extern "C" fn fallocate(
        file: *mut bindings::file,
        mode: c_int,
        offset: i64,
        len: i64,
    ) -> c_long {
        // SAFETY: the file is open.
        let file = unsafe { File::from_raw(file) };
        from_result(|| {
            let (offset, len) = (u64::try_from(offset)?, u64::try_from(len)?);
            T::fallocate(file, mode, offset, len).map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// `->unlocked_ioctl`, called by the VFS.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: the file is open.
        let file = unsafe { File::from_raw(file) };
        from_result(|| T::ioctl(file, cmd, UserPtr::from_addr(arg)))
    }
}

/// A directory being read: where to continue, and the caller's buffer.
#[repr(transparent)]
pub struct DirContext(kernel::types::Opaque<bindings::dir_context>);

impl DirContext {
    /// The position: 0 and 1 are the dots.
    pub fn pos(&self) -> u64 {
        // SAFETY: the context is ours for the call. The VFS refuses negative positions.
        u64::try_from(unsafe { (*self.0.get()).pos }).unwrap_or(0)
    }

    /// Sets the position.
    pub fn set_pos(&mut self, pos: u64) {
        // SAFETY: the context is ours for the call.
        unsafe { (*self.0.get()).pos = i64::try_from(pos).unwrap_or(i64::MAX) };
    }

    /// Passes an entry to the caller; false if there is no room for it. May fault in user memory.
    pub fn emit(&mut self, name: &[u8], ino: u64, file_type: u8) -> bool {
        let Ok(len) = i32::try_from(name.len()) else {
            return false;
        };
        // SAFETY: the context is ours for the call; the name is `len` bytes.
        unsafe {
            let name = name.as_ptr().cast();
            bindings::rdax_dir_emit(self.0.get(), name, len, ino, file_type.into())
        }
    }

    /// Emits `.` and `..` of `file` if the position is before them; false if there was no room.
    pub fn emit_dots(&mut self, file: &File) -> bool {
        // SAFETY: the context is ours for the call, and the directory open.
        unsafe { bindings::rdax_dir_emit_dots(file.as_raw(), self.0.get()) }
    }
}

/// The operations of an open directory.
pub trait DirFileOperations {
    /// `->llseek`: the new position.
    fn llseek(file: &File, offset: i64, whence: i32) -> Result<i64>;

    /// `->iterate_shared`: emits entries from the position on; `i_rwsem` is held shared.
    fn iterate(file: &File, ctx: &mut DirContext) -> Result;

    /// `->fsync`.
    fn fsync(file: &File, datasync: bool) -> Result;

    /// `->unlocked_ioctl`; `arg` is a pointer for all that rdax knows.
    fn ioctl(file: &File, cmd: u32, arg: UserPtr) -> Result<isize>;
}

/// The table for a [`DirFileOperations`].
pub struct DirFileTable<T>(PhantomData<T>);

impl<T: DirFileOperations> DirFileTable<T> {
    /// The operations; others may be added.
    pub const OPERATIONS: bindings::file_operations = bindings::file_operations {
        owner: super::THIS_MODULE,
        llseek: Some(Self::llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(Self::iterate_shared),
        fsync: Some(Self::fsync),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `->llseek`, called by the VFS.
    unsafe extern "C" fn llseek(file: *mut bindings::file, offset: i64, whence: c_int) -> i64 {
        // SAFETY: the file is open.
        let file = unsafe { File::from_raw(file) };
        from_result(|| T::llseek(file, offset, whence))
    }

    /// # Safety
    ///
    /// `->iterate_shared`, called by the VFS with `i_rwsem` held shared.
    unsafe extern "C" fn iterate_shared(
        file: *mut bindings::file,
        ctx: *mut bindings::dir_context,
    ) -> c_int {
        // SAFETY: the file is open; the context is the caller's, lent for the call, and the
        // layout of `DirContext` is the same.
        let (file, ctx) = unsafe { (File::from_raw(file), &mut *ctx.cast::<DirContext>()) };
        from_result(|| T::iterate(file, ctx).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->fsync`, called by the VFS.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        _start: i64,
        _end: i64,
        datasync: c_int,
    ) -> c_int {
        // SAFETY: the file is open.
        let file = unsafe { File::from_raw(file) };
        from_result(|| T::fsync(file, datasync != 0).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->unlocked_ioctl`, called by the VFS.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: the file is open.
        let file = unsafe { File::from_raw(file) };
        from_result(|| T::ioctl(file, cmd, UserPtr::from_addr(arg)))
    }
}
