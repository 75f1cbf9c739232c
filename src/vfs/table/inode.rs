// SPDX-License-Identifier: GPL-2.0

//! `struct inode_operations`.

use core::ffi::CStr;
use core::marker::PhantomData;
use core::ptr::null_mut;

use kernel::error::code::EOPNOTSUPP;
use kernel::error::from_result;
use kernel::ffi::{c_char, c_int, c_uint};
use kernel::prelude::*;

use super::acl::AclTable;
use super::xattr::XattrTable;
use crate::bindings;
use crate::mount::inode::{InodeInfo, InodeRef};
use crate::mount::lock::Exclusive;
use crate::mount::object::{Dentry, File, IdMap};
use crate::mount::table::Table;
use crate::vfs::acl::Acls;
use crate::vfs::xattr::Xattrs;

/// A static `struct inode_operations`.
pub struct InodeTable(Table<bindings::inode_operations>);

impl InodeTable {
    /// Wraps `operations`.
    pub const fn new(operations: bindings::inode_operations) -> Self {
        InodeTable(Table::new(operations))
    }

    /// Makes it the table of `info`, which others do not see yet.
    pub fn install(&'static self, info: &InodeInfo) {
        // SAFETY: nobody else uses the inode yet; the table is static.
        unsafe { (*info.as_vfs()).i_op = self.0.as_ptr() };
    }
}

/// The operations that inodes of all types have.
pub trait AttrOperations {
    /// `->getattr`: fills in `stat`.
    fn getattr(idmap: &IdMap, info: &InodeInfo, mask: u32, stat: &mut bindings::kstat) -> Result;

    /// `->setattr`: changes what `attr.ia_valid` names, if the caller may.
    fn setattr(
        idmap: &IdMap,
        dentry: &Dentry,
        inode: Exclusive<'_>,
        attr: &mut bindings::iattr,
    ) -> Result;

    /// `->fileattr_get`: the file attributes, `FS_*_FL`.
    fn flags(info: &InodeInfo) -> Result<u32>;

    /// `->fileattr_set`: changes the file attributes to `flags`, of which the VFS has checked those
    /// that need a capability.
    fn set_flags(inode: Exclusive<'_>, flags: u32) -> Result;
}

/// The table for an [`AttrOperations`].
pub struct AttrTable<T>(PhantomData<T>);

impl<T: AttrOperations> AttrTable<T> {
    /// The operations; others may be added.
    pub const OPERATIONS: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(Self::getattr),
        setattr: Some(Self::setattr),
        fileattr_get: Some(Self::fileattr_get),
        fileattr_set: Some(Self::fileattr_set),
        listxattr: Some(XattrTable::<Xattrs>::list),
        get_inode_acl: Some(AclTable::<Acls>::get),
        set_acl: Some(AclTable::<Acls>::set),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `->getattr`, called by the VFS.
    unsafe extern "C" fn getattr(
        idmap: *mut bindings::mnt_idmap,
        path: *const bindings::path,
        stat: *mut bindings::kstat,
        mask: u32,
        _flags: c_uint,
    ) -> c_int {
        // SAFETY: the path holds its dentry, and that its inode, which is set: it was opened or
        // looked up. `stat` is the caller's to fill.
        let (idmap, info, stat) = unsafe {
            (
                IdMap::from_raw(idmap),
                InodeInfo::from_vfs((*(*path).dentry).d_inode),
                &mut *stat,
            )
        };
        from_result(|| T::getattr(idmap, info, mask, stat).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->setattr`, called by the VFS with `i_rwsem` held exclusively.
    unsafe extern "C" fn setattr(
        idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attr: *mut bindings::iattr,
    ) -> c_int {
        // SAFETY: the caller holds the dentry, its inode and that one's i_rwsem; `attr` is the
        // caller's, lent to us.
        let (idmap, dentry, inode, attr) = unsafe {
            (
                IdMap::from_raw(idmap),
                Dentry::from_raw(dentry),
                Exclusive::held(InodeInfo::from_vfs((*dentry).d_inode)),
                &mut *attr,
            )
        };
        from_result(|| T::setattr(idmap, dentry, inode, attr).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->fileattr_get`, called by the VFS.
    unsafe extern "C" fn fileattr_get(
        dentry: *mut bindings::dentry,
        // Opaque in `kernel`; our binding has the fields.
        attr: *mut kernel::bindings::file_kattr,
    ) -> c_int {
        // SAFETY: the caller holds the dentry, which has an inode.
        let info = unsafe { InodeInfo::from_vfs((*dentry).d_inode) };
        from_result(|| {
            let flags = T::flags(info)?;
            // SAFETY: `attr` is the caller's to fill.
            unsafe { bindings::fileattr_fill_flags(attr.cast(), flags) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `->fileattr_set`, called by the VFS with `i_rwsem` held exclusively.
    unsafe extern "C" fn fileattr_set(
        _idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attr: *mut kernel::bindings::file_kattr,
    ) -> c_int {
        // SAFETY: the caller holds the dentry, its inode and that one's i_rwsem; `attr` is the
        // caller's, lent to us.
        let (inode, flags, more) = unsafe {
            let attr: *mut bindings::file_kattr = attr.cast();
            (
                locked((*dentry).d_inode),
                (*attr).flags,
                bindings::rdax_fileattr_has_fsx(attr),
            )
        };
        from_result(|| {
            // Attributes that rdax lacks: sizes of extents, projects.
            if more {
                return Err(EOPNOTSUPP);
            }
            T::set_flags(inode, flags).map(|()| 0)
        })
    }
}

/// The operations of a directory. Each is called with the `i_rwsem` of the directory held,
/// exclusively except for `lookup`; also that of an inode that loses or gains a name.
pub trait DirOperations {
    /// `->lookup`: the inode that `dentry` names, if there is one.
    fn lookup(dir: &InodeInfo, dentry: &Dentry) -> Result<Option<InodeRef>>;

    /// `->create`, `->mkdir`, `->mknod`: creates a file of the type in `mode`.
    fn make(idmap: &IdMap, dir: Exclusive<'_>, dentry: &Dentry, mode: u16, rdev: u32) -> Result;

    /// `->symlink`.
    fn symlink(idmap: &IdMap, dir: Exclusive<'_>, dentry: &Dentry, target: &CStr) -> Result;

    /// `->tmpfile`: creates a file without a name.
    fn tmpfile(idmap: &IdMap, dir: Exclusive<'_>, file: &File, mode: u16) -> Result;

    /// `->link`: gives `inode` one more name.
    fn link(inode: Exclusive<'_>, dir: Exclusive<'_>, dentry: &Dentry) -> Result;

    /// `->unlink`: removes the name.
    fn unlink(dir: Exclusive<'_>, dentry: &Dentry, inode: Exclusive<'_>) -> Result;

    /// `->rmdir`: removes the name of an empty directory.
    fn rmdir(dir: Exclusive<'_>, dentry: &Dentry, inode: Exclusive<'_>) -> Result;

    /// `->rename`: `old` in `old_dir` becomes `new` in `new_dir`, which may be the same, and
    /// replaces what has that name. `flags` are `RENAME_*`.
    fn rename(
        idmap: &IdMap,
        old_dir: Exclusive<'_>,
        old: &Dentry,
        new_dir: Exclusive<'_>,
        new: &Dentry,
        flags: u32,
    ) -> Result;
}

/// The table for a [`DirOperations`].
pub struct DirTable<T>(PhantomData<T>);

/// The directory in `dir`, which the VFS locked exclusively.
///
/// # Safety
///
/// `dir` is alive and so locked for all of `'a`.
unsafe fn locked<'a>(dir: *mut bindings::inode) -> Exclusive<'a> {
    // SAFETY: by the caller.
    unsafe { Exclusive::held(InodeInfo::from_vfs(dir)) }
}

impl<T: DirOperations + AttrOperations> DirTable<T> {
    /// The operations.
    pub const OPERATIONS: bindings::inode_operations = bindings::inode_operations {
        lookup: Some(Self::lookup),
        create: Some(Self::create),
        mkdir: Some(Self::mkdir),
        mknod: Some(Self::mknod),
        symlink: Some(Self::symlink),
        tmpfile: Some(Self::tmpfile),
        link: Some(Self::link),
        unlink: Some(Self::unlink),
        rmdir: Some(Self::rmdir),
        rename: Some(Self::rename),
        ..AttrTable::<T>::OPERATIONS
    };

    /// # Safety
    ///
    /// `->lookup`, called by the VFS with the directory locked.
    unsafe extern "C" fn lookup(
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        _flags: c_uint,
    ) -> *mut bindings::dentry {
        // SAFETY: both are alive and locked by the caller.
        let (info, name) = unsafe { (InodeInfo::from_vfs(dir), Dentry::from_raw(dentry)) };
        let inode = match T::lookup(info, name) {
            Ok(found) => found.map_or(null_mut(), InodeRef::into_raw),
            Err(error) => error.to_ptr(),
        };
        // SAFETY: takes an inode with its reference, null or an error.
        unsafe { bindings::d_splice_alias(inode, dentry) }
    }

    /// # Safety
    ///
    /// `->create`, called by the VFS with the directory locked exclusively.
    unsafe extern "C" fn create(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
    ) -> c_int {
        // SAFETY: all are alive, and the directory is locked.
        let (idmap, dir, dentry) = unsafe {
            (
                IdMap::from_raw(idmap),
                locked(dir),
                Dentry::from_raw(dentry),
            )
        };
        from_result(|| T::make(idmap, dir, dentry, mode, 0).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->mkdir`, called by the VFS with the directory locked exclusively.
    unsafe extern "C" fn mkdir(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
    ) -> *mut bindings::dentry {
        // SAFETY: all are alive, and the directory is locked.
        let (idmap, dir, dentry) = unsafe {
            (
                IdMap::from_raw(idmap),
                locked(dir),
                Dentry::from_raw(dentry),
            )
        };
        // CAST: the bits of a type are within 16.
        match T::make(idmap, dir, dentry, mode | bindings::S_IFDIR as u16, 0) {
            // Null means that the given dentry is the one to use.
            Ok(()) => null_mut(),
            Err(error) => error.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// `->mknod`, called by the VFS with the directory locked exclusively.
    unsafe extern "C" fn mknod(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
        rdev: bindings::dev_t,
    ) -> c_int {
        // SAFETY: all are alive, and the directory is locked.
        let (idmap, dir, dentry, rdev) = unsafe {
            (
                IdMap::from_raw(idmap),
                locked(dir),
                Dentry::from_raw(dentry),
                bindings::rdax_encode_dev(rdev),
            )
        };
        from_result(|| T::make(idmap, dir, dentry, mode, rdev).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->symlink`, called by the VFS with the directory locked exclusively.
    unsafe extern "C" fn symlink(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        target: *const c_char,
    ) -> c_int {
        // SAFETY: all are alive, the directory is locked, and the target ends with a zero.
        let (idmap, dir, dentry, target) = unsafe {
            (
                IdMap::from_raw(idmap),
                locked(dir),
                Dentry::from_raw(dentry),
                CStr::from_char_ptr(target),
            )
        };
        from_result(|| T::symlink(idmap, dir, dentry, target).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->tmpfile`, called by the VFS with the directory locked exclusively.
    unsafe extern "C" fn tmpfile(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        file: *mut bindings::file,
        mode: bindings::umode_t,
    ) -> c_int {
        // SAFETY: all are alive, and the directory is locked.
        let (idmap, dir) = unsafe { (IdMap::from_raw(idmap), locked(dir)) };
        // SAFETY: `make` uses no more of the file than its dentry, until it is opened below.
        let opening = unsafe { File::from_raw(file) };
        from_result(|| {
            T::tmpfile(idmap, dir, opening, mode)?;
            // SAFETY: the file's dentry has an inode by now.
            Ok(unsafe { bindings::rdax_finish_open_simple(file, 0) })
        })
    }

    /// # Safety
    ///
    /// `->link`, called by the VFS with the directory and the inode locked exclusively.
    unsafe extern "C" fn link(
        old: *mut bindings::dentry,
        dir: *mut bindings::inode,
        new: *mut bindings::dentry,
    ) -> c_int {
        // SAFETY: all are alive, the directory and the inode are locked.
        let (inode, dir, new) =
            unsafe { (locked((*old).d_inode), locked(dir), Dentry::from_raw(new)) };
        from_result(|| T::link(inode, dir, new).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->unlink`, called by the VFS with the directory and the inode locked exclusively.
    unsafe extern "C" fn unlink(dir: *mut bindings::inode, dentry: *mut bindings::dentry) -> c_int {
        // SAFETY: both are alive, the directory and the inode of the dentry are locked.
        let (dir, inode, dentry) = unsafe {
            (
                locked(dir),
                locked((*dentry).d_inode),
                Dentry::from_raw(dentry),
            )
        };
        from_result(|| T::unlink(dir, dentry, inode).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->rmdir`, called by the VFS with the directory and the inode locked exclusively.
    unsafe extern "C" fn rmdir(dir: *mut bindings::inode, dentry: *mut bindings::dentry) -> c_int {
        // SAFETY: both are alive, the directory and the inode of the dentry are locked.
        let (dir, inode, dentry) = unsafe {
            (
                locked(dir),
                locked((*dentry).d_inode),
                Dentry::from_raw(dentry),
            )
        };
        from_result(|| T::rmdir(dir, dentry, inode).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->rename`, called by the VFS with the directories locked exclusively.
    unsafe extern "C" fn rename(
        idmap: *mut bindings::mnt_idmap,
        old_dir: *mut bindings::inode,
        old: *mut bindings::dentry,
        new_dir: *mut bindings::inode,
        new: *mut bindings::dentry,
        flags: c_uint,
    ) -> c_int {
        // SAFETY: all are alive, and both directories are locked.
        let (idmap, old_dir, old, new_dir, new) = unsafe {
            (
                IdMap::from_raw(idmap),
                locked(old_dir),
                Dentry::from_raw(old),
                locked(new_dir),
                Dentry::from_raw(new),
            )
        };
        from_result(|| T::rename(idmap, old_dir, old, new_dir, new, flags).map(|()| 0))
    }
}
