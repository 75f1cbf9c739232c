// SPDX-License-Identifier: GPL-2.0

//! POSIX ACLs: two extended attributes, which the kernel understands and caches.
//!
//! They are stored as `getxattr` shows them, with the ids of the initial user namespace. A change
//! that affects an ACL and the mode changes both in one transaction.

use core::mem::ManuallyDrop;
use core::ptr::{null_mut, NonNull};

use kernel::alloc::flags::GFP_KERNEL;
use kernel::error::code::*;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;

use super::table::acl::AclOperations;
use super::table::xattr::XattrOperations;
use super::xattr::{Initial, Xattrs};
use crate::bindings;
use crate::mount::inode::InodeInfo;
use crate::mount::lock::Exclusive;
use crate::mount::object::IdMap;
use crate::mount::time::touching;
use crate::volume::inode::Inode;
use crate::volume::namespace::SetAttr;
use crate::volume::xattr::Must;

/// Which of the two ACLs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The permissions of the inode.
    Access,
    /// In a directory: the permissions of new inodes in it.
    Default,
}

impl Kind {
    /// From `ACL_TYPE_*`.
    pub fn from_raw(kind: i32) -> Result<Self> {
        match u32::try_from(kind) {
            Ok(bindings::ACL_TYPE_ACCESS) => Ok(Kind::Access),
            Ok(bindings::ACL_TYPE_DEFAULT) => Ok(Kind::Default),
            _ => Err(EINVAL),
        }
    }

    /// `ACL_TYPE_*`.
    fn as_raw(self) -> i32 {
        // CAST: small numbers.
        match self {
            Kind::Access => bindings::ACL_TYPE_ACCESS as i32,
            Kind::Default => bindings::ACL_TYPE_DEFAULT as i32,
        }
    }

    /// The name of the attribute.
    fn name(self) -> &'static [u8] {
        match self {
            Kind::Access => b"system.posix_acl_access",
            Kind::Default => b"system.posix_acl_default",
        }
    }
}

/// A counted reference to an ACL.
pub struct Acl(NonNull<bindings::posix_acl>);

impl Acl {
    /// Takes over a reference; null means none.
    ///
    /// # Safety
    ///
    /// The caller gives away a reference to `acl`, if that is not null.
    unsafe fn from_raw(acl: *mut bindings::posix_acl) -> Option<Self> {
        NonNull::new(acl).map(Acl)
    }

    /// Gives the reference to C; none becomes null.
    pub fn into_raw(acl: Option<Self>) -> *mut bindings::posix_acl {
        acl.map_or(null_mut(), |acl| {
            let raw = acl.0.as_ptr();
            core::mem::forget(acl);
            raw
        })
    }

    /// Calls `f` with the bytes of the attribute.
    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        let mut len = 0;
        // SAFETY: the ACL is alive, and `len` set to the length of what is returned.
        let bytes = unsafe {
            bindings::posix_acl_to_xattr(
                &raw mut bindings::init_user_ns,
                self.0.as_ptr(),
                &mut len,
                bindings::GFP_KERNEL,
            )
        };
        if bytes.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: `len` bytes were allocated and filled.
        let result = f(unsafe { core::slice::from_raw_parts(bytes.cast::<u8>(), len) });
        // SAFETY: nobody else has the bytes.
        unsafe { bindings::kvfree(bytes) };
        result
    }
}

impl Drop for Acl {
    fn drop(&mut self) {
        // SAFETY: the reference is ours to give back.
        unsafe { bindings::rdax_posix_acl_release(self.0.as_ptr()) };
    }
}

/// The operations on ACLs.
pub struct Acls;

impl AclOperations for Acls {
    fn get(info: &InodeInfo, kind: Kind) -> Result<Option<Acl>> {
        let read = |room: Option<&mut [u8]>| match Xattrs::get(info, kind.name(), |_| room) {
            Err(error) if error == ENODATA => Ok(0),
            len => len,
        };
        // It may change in between.
        let bytes = loop {
            let len = read(None)?;
            let mut bytes = KVVec::from_elem(0, len, GFP_KERNEL)?;
            if read(Some(&mut bytes))? == len {
                break bytes;
            }
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        // SAFETY: reads a live slice; what is returned is an error or a reference of ours.
        unsafe {
            let acl = bindings::posix_acl_from_xattr(
                &raw mut bindings::init_user_ns,
                bytes.as_ptr().cast(),
                bytes.len(),
            );
            Ok(Acl::from_raw(from_err_ptr(acl)?))
        }
    }

    fn set(
        idmap: &IdMap,
        inode: Exclusive<'_>,
        kind: Kind,
        acl: *mut bindings::posix_acl,
    ) -> Result {
        let vfs = inode.as_vfs();
        let (mut acl, mut mode) = (acl, inode.mode());
        if kind == Kind::Default && !inode.is(bindings::S_IFDIR) {
            return if acl.is_null() { Ok(()) } else { Err(EACCES) };
        }
        inode.sb().check_writable()?;
        if kind == Kind::Access && !acl.is_null() {
            // An ACL that the mode can express becomes the mode.
            // SAFETY: the inode is alive and locked; `acl` stays or becomes null.
            to_result(unsafe {
                bindings::posix_acl_update_mode(idmap.as_raw(), vfs, &mut mode, &mut acl)
            })?;
        }
        // Only lent: the reference is the caller's.
        let acl = NonNull::new(acl).map(|acl| ManuallyDrop::new(Acl(acl)));
        touching([Some(inode.info())], |now| {
            let set = SetAttr {
                mode: Some(mode),
                ctime: Some(now),
                ..SetAttr::default()
            };
            store(inode, &mut inode.meta(), kind, acl.as_deref(), &set)
        })?;
        // SAFETY: the inode is locked.
        unsafe { (&raw mut (*vfs).i_mode).write_volatile(mode) };
        Ok(())
    }
}

/// Makes `acl` the ACL of `inode`, whose volume's part is `meta`, and changes the inode by `set`,
/// in one transaction.
pub fn store(
    inode: Exclusive<'_>,
    meta: &mut Inode,
    kind: Kind,
    acl: Option<&Acl>,
    set: &SetAttr,
) -> Result {
    let sb = inode.sb();
    let mut store = |value: Option<&[u8]>| {
        let (name, must) = (kind.name(), Must::Whatever);
        sb.check(sb.volume.set_xattr(meta, name, value, must, set))
    };
    match acl {
        None => store(None)?,
        Some(acl) => acl.with_bytes(|value| store(Some(value)))?,
    }
    inode.update_blocks(meta);
    let raw = acl.map_or(null_mut(), |acl| acl.0.as_ptr());
    // SAFETY: the inode is alive and locked; the cache takes a reference of its own.
    unsafe { bindings::set_cached_acl(inode.as_vfs(), kind.as_raw(), raw) };
    Ok(())
}

/// The ACL of `inode` after a change of the mode to `mode`, if it has an ACL.
pub fn with_mode(inode: Exclusive<'_>, mode: u16) -> Result<Option<Acl>> {
    let kind = Kind::Access.as_raw();
    // SAFETY: the inode is alive; what is returned is null, an error, or a reference of ours.
    let mut acl = from_err_ptr(unsafe { bindings::get_inode_acl(inode.as_vfs(), kind) })?;
    if acl.is_null() {
        return Ok(None);
    }
    // SAFETY: our reference is exchanged for one to a changed copy, or, after an error, for null.
    unsafe {
        to_result(bindings::__posix_acl_chmod(
            &mut acl,
            bindings::GFP_KERNEL,
            mode,
        ))?;
        Ok(Acl::from_raw(acl))
    }
}

/// Adds to `initial` the ACLs that a new inode, `vfs`, inherits from its directory, and reduces its
/// mode by them, or by the umask.
pub fn inherit(vfs: *mut bindings::inode, dir: Exclusive<'_>, initial: &mut Initial) -> Result {
    let (mut default, mut access) = (null_mut(), null_mut());
    // SAFETY: the inode is new and the caller's alone, the directory is alive. Both ACLs are null
    // or references of ours.
    let (default, access) = unsafe {
        let mode = &raw mut (*vfs).i_mode;
        to_result(bindings::posix_acl_create(
            dir.as_vfs(),
            mode,
            &mut default,
            &mut access,
        ))?;
        (Acl::from_raw(default), Acl::from_raw(access))
    };
    for (kind, acl) in [(Kind::Default, default), (Kind::Access, access)] {
        if let Some(acl) = acl {
            acl.with_bytes(|value| initial.add(&[kind.name()], value))?;
        }
    }
    Ok(())
}
