// SPDX-License-Identifier: GPL-2.0

//! `->get_inode_acl` and `->set_acl`.

use core::marker::PhantomData;

use kernel::error::code::*;
use kernel::error::from_result;
use kernel::ffi::c_int;
use kernel::prelude::*;

use crate::bindings;
use crate::mount::inode::InodeInfo;
use crate::mount::lock::Exclusive;
use crate::mount::object::IdMap;
use crate::vfs::acl::{Acl, Kind};

/// Operations on POSIX ACLs.
pub trait AclOperations {
    /// The ACL of the inode; the VFS caches it.
    fn get(info: &InodeInfo, kind: Kind) -> Result<Option<Acl>>;

    /// Makes `acl`, which is lent, the ACL of the inode; null removes it.
    fn set(
        idmap: &IdMap,
        inode: Exclusive<'_>,
        kind: Kind,
        acl: *mut bindings::posix_acl,
    ) -> Result;
}

/// The functions for an [`AclOperations`].
pub struct AclTable<T>(PhantomData<T>);

impl<T: AclOperations> AclTable<T> {
    /// # Safety
    ///
    /// `->get_inode_acl`, called by the VFS.
    pub unsafe extern "C" fn get(
        inode: *mut bindings::inode,
        kind: c_int,
        rcu: bool,
    ) -> *mut bindings::posix_acl {
        // An ACL that is not in the cache has to be read, which sleeps.
        if rcu {
            return ECHILD.to_ptr();
        }
        // SAFETY: the inode is alive.
        let info = unsafe { InodeInfo::from_vfs(inode) };
        match Kind::from_raw(kind).and_then(|kind| T::get(info, kind)) {
            Ok(acl) => Acl::into_raw(acl),
            Err(error) => error.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// `->set_acl`, called by the VFS with `i_rwsem` held exclusively.
    pub unsafe extern "C" fn set(
        idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        acl: *mut bindings::posix_acl,
        kind: c_int,
    ) -> c_int {
        // SAFETY: the caller holds the dentry, its inode, and that one's i_rwsem.
        let (idmap, inode) = unsafe {
            (
                IdMap::from_raw(idmap),
                Exclusive::held(InodeInfo::from_vfs((*dentry).d_inode)),
            )
        };
        from_result(|| T::set(idmap, inode, Kind::from_raw(kind)?, acl).map(|()| 0))
    }
}
