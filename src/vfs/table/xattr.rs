// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: `struct xattr_handler`, `->listxattr`, and the initial attributes that
//! security modules give a new inode.

use core::ffi::CStr;
use core::marker::PhantomData;
use core::ptr::null;

use kernel::error::code::*;
use kernel::error::{from_result, to_result};
use kernel::ffi::{c_char, c_int, c_void};
use kernel::prelude::*;

use crate::bindings;
use crate::mount::inode::InodeInfo;
use crate::mount::lock::Exclusive;
use crate::mount::object::Dentry;
use crate::volume::xattr::Must;

/// Operations on extended attributes by their whole names, with prefix.
pub trait XattrOperations {
    /// The size of the value, which is copied to the buffer that `room` returns for that size.
    fn get<'b>(
        info: &InodeInfo,
        name: &[u8],
        room: impl FnOnce(usize) -> Option<&'b mut [u8]>,
    ) -> Result<usize>;

    /// Sets or removes the attribute. The VFS has checked the permission.
    fn set(inode: Exclusive<'_>, name: &[u8], value: Option<&[u8]>, must: Must) -> Result;

    /// Calls `each` with the name of every attribute that the caller may see.
    fn list(info: &InodeInfo, each: &mut dyn FnMut(&[u8])) -> Result;
}

/// The handlers for an [`XattrOperations`].
pub struct XattrTable<T>(PhantomData<T>);

/// An array of handlers that ends with null.
pub struct Handlers<const N: usize>([*const bindings::xattr_handler; N]);

// SAFETY: the handlers are static and constant.
unsafe impl<const N: usize> Sync for Handlers<N> {}

impl<const N: usize> Handlers<N> {
    /// For C.
    pub const fn as_ptr(&self) -> *const *const bindings::xattr_handler {
        self.0.as_ptr()
    }
}

impl<T: XattrOperations> XattrTable<T> {
    const fn handler(prefix: &'static CStr) -> bindings::xattr_handler {
        bindings::xattr_handler {
            prefix: prefix.to_bytes_with_nul().as_ptr().cast(),
            get: Some(Self::get),
            set: Some(Self::set),
            ..pin_init::zeroed()
        }
    }

    /// The handlers of the names that file systems store. POSIX ACLs do not use handlers.
    pub const fn handlers() -> Handlers<4> {
        Handlers([
            &const { Self::handler(c"user.") },
            &const { Self::handler(c"trusted.") },
            &const { Self::handler(c"security.") },
            null(),
        ])
    }

    /// # Safety
    ///
    /// `->get` of a handler, called by the VFS: `buffer` has `size` bytes.
    unsafe extern "C" fn get(
        handler: *const bindings::xattr_handler,
        _dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const c_char,
        buffer: *mut c_void,
        size: usize,
    ) -> c_int {
        // SAFETY: the inode is alive, and `name` what follows the prefix in a string.
        let (info, name) = unsafe {
            (
                InodeInfo::from_vfs(inode),
                CStr::from_char_ptr(bindings::xattr_full_name(handler, name)),
            )
        };
        let room = |len: usize| {
            // SAFETY: inside the buffer, which is the caller's, lent to us; zeroed, it is bytes.
            (1..=size).contains(&len).then(|| unsafe {
                core::ptr::write_bytes(buffer.cast::<u8>(), 0, len);
                core::slice::from_raw_parts_mut(buffer.cast(), len)
            })
        };
        from_result(|| {
            let len = T::get(info, name.to_bytes(), room)?;
            // Without a buffer, only the length is requested.
            if size != 0 && len > size {
                return Err(ERANGE);
            }
            Ok(c_int::try_from(len)?)
        })
    }

    /// # Safety
    ///
    /// `->set` of a handler, called by the VFS with `i_rwsem` held exclusively: `buffer` has `size`
    /// bytes, or is null.
    unsafe extern "C" fn set(
        handler: *const bindings::xattr_handler,
        _idmap: *mut bindings::mnt_idmap,
        _dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const c_char,
        buffer: *const c_void,
        size: usize,
        flags: c_int,
    ) -> c_int {
        // SAFETY: the inode is alive and locked, and `name` what follows the prefix in a string.
        let (inode, name) = unsafe {
            (
                Exclusive::held(InodeInfo::from_vfs(inode)),
                CStr::from_char_ptr(bindings::xattr_full_name(handler, name)),
            )
        };
        let value = if buffer.is_null() {
            None
        } else {
            // SAFETY: the bytes are the caller's, and there as long as it waits.
            Some(unsafe { core::slice::from_raw_parts(buffer.cast::<u8>(), size) })
        };
        from_result(|| {
            // CAST: bits.
            let must = match flags as u32 & (bindings::XATTR_CREATE | bindings::XATTR_REPLACE) {
                0 => Must::Whatever,
                bindings::XATTR_CREATE => Must::BeNew,
                bindings::XATTR_REPLACE => Must::Exist,
                _ => {
                    // No attribute both exists and is new.
                    T::get(inode.info(), name.to_bytes(), |_| None)?;
                    return Err(EEXIST);
                }
            };
            T::set(inode, name.to_bytes(), value, must).map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// `->listxattr`, called by the VFS: `buffer` has `size` bytes.
    pub unsafe extern "C" fn list(
        dentry: *mut bindings::dentry,
        buffer: *mut c_char,
        size: usize,
    ) -> isize {
        // SAFETY: the caller holds the dentry, which has an inode.
        let info = unsafe { InodeInfo::from_vfs((*dentry).d_inode) };
        let mut len = 0;
        let listed = T::list(info, &mut |name| {
            let end = len + name.len() + 1;
            if end <= size {
                // SAFETY: the place is inside the buffer, which is the caller's, lent to us.
                unsafe {
                    let place = buffer.cast::<u8>().add(len);
                    core::ptr::copy_nonoverlapping(name.as_ptr(), place, name.len());
                    place.add(name.len()).write(0);
                }
            }
            len = end;
        });
        from_result(|| {
            listed?;
            if size != 0 && len > size {
                return Err(ERANGE);
            }
            Ok(isize::try_from(len)?)
        })
    }
}

/// Calls `each` with the attributes that security modules want for `inode`, a new one that is to be
/// in `dir`: names without their prefix "security.", and values.
pub fn initial_security(
    inode: *mut bindings::inode,
    dir: Exclusive<'_>,
    name: &Dentry,
    mut each: &mut dyn FnMut(&[u8], &[u8]) -> Result,
) -> Result {
    /// # Safety
    ///
    /// Called by `security_inode_init_security` with an array that ends with a name of null, and
    /// what `data` points to below.
    unsafe extern "C" fn collect(
        _inode: *mut bindings::inode,
        mut xattr: *const bindings::xattr,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: by the caller.
        let each = unsafe { &mut *data.cast::<&mut dyn FnMut(&[u8], &[u8]) -> Result>() };
        from_result(|| {
            // SAFETY: by the caller; each entry has a string and as many bytes as it says.
            unsafe {
                while !(*xattr).name.is_null() {
                    let name = CStr::from_char_ptr((*xattr).name);
                    let value = (*xattr).value.cast::<u8>().cast_const();
                    let value = core::slice::from_raw_parts(value, (*xattr).value_len);
                    each(name.to_bytes(), value)?;
                    xattr = xattr.add(1);
                }
            }
            Ok(0)
        })
    }
    // SAFETY: the inode is new and the caller's alone; the directory is alive and locked, and so is
    // the name; `collect` is called before this returns.
    let result = unsafe {
        bindings::rdax_security_inode_init_security(
            inode,
            dir.as_vfs(),
            bindings::rdax_dentry_name(name.as_raw()),
            Some(collect),
            (&raw mut each).cast(),
        )
    };
    to_result(result)
}
