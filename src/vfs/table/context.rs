// SPDX-License-Identifier: GPL-2.0

//! `struct fs_context_operations`: from the options of a mount to its super block.

use core::ffi::CStr;
use core::marker::PhantomData;
use core::ptr::null_mut;

use kernel::alloc::{flags::GFP_KERNEL, KBox};
use kernel::error::from_result;
use kernel::ffi::{c_int, c_void};
use kernel::prelude::*;
use kernel::str::CString;
use kernel::types::Opaque;

use crate::bindings;
use crate::mount::object::SuperBlock;
use crate::mount::table::Table;

/// A `struct fs_context`: a mount, or a change of one, being set up.
#[repr(transparent)]
pub struct Context(Opaque<bindings::fs_context>);

impl Context {
    /// # Safety
    ///
    /// `fc` is alive, and the caller's alone, for all of `'a`.
    unsafe fn from_raw<'a>(fc: *mut bindings::fs_context) -> &'a Self {
        // SAFETY: by the caller; the layout is the same.
        unsafe { &*fc.cast() }
    }

    /// The C object.
    pub fn as_raw(&self) -> *mut bindings::fs_context {
        self.0.get()
    }

    /// The `SB_*` flags requested for the mount.
    pub fn flags(&self) -> usize {
        // SAFETY: the context is the caller's alone.
        unsafe { (*self.as_raw()).sb_flags as usize }
    }

    /// Whether the mount is to be read-only.
    pub fn is_read_only(&self) -> bool {
        self.flags() & bindings::RDAX_SB_RDONLY != 0
    }

    /// Whether `sb`, which this changes, will be read-only afterwards. (Without the option it
    /// stays.)
    pub fn leaves_read_only(&self, sb: &SuperBlock) -> bool {
        // SAFETY: the context is the caller's alone.
        let asked = unsafe { (*self.as_raw()).sb_flags_mask as usize } & bindings::RDAX_SB_RDONLY;
        match asked != 0 {
            true => self.is_read_only(),
            false => sb.is_read_only(),
        }
    }

    /// Whether the mount is to change although it is in use: an emergency remount, to read-only.
    pub fn is_forced(&self) -> bool {
        self.flags() & bindings::RDAX_SB_FORCE != 0
    }

    /// The name that the user gave for the device.
    pub fn source(&self) -> &CStr {
        // SAFETY: the context is the caller's alone; a string that stays as long as it.
        unsafe {
            let source = (*self.as_raw()).source;
            if source.is_null() {
                c"(no device)"
            } else {
                CStr::from_char_ptr(source)
            }
        }
    }

    /// Refuses the mount: `reason` goes to the kernel's log, and to the creator of the context.
    pub fn refuse(&self, name: &CStr, reason: kernel::fmt::Arguments<'_>) {
        pr_err!("{}: {reason}\n", name);
        let Ok(message) = CString::try_from_fmt(reason) else {
            return;
        };
        // SAFETY: the message is copied.
        unsafe { bindings::rdax_fc_error(self.as_raw(), message.as_char_ptr()) };
    }
}

/// The value of a mount option.
pub enum Value<'a> {
    /// `name` alone.
    Flag,
    /// `name=value`.
    String(&'a CStr),
    /// A file descriptor or the like, through fsconfig(2).
    Other,
}

/// The operations of a mount being set up.
pub trait ContextOperations {
    /// The collected options; the default is none.
    type Options: Default;

    /// Parses one option. `None` leaves it to the VFS.
    fn parse(
        fc: &Context,
        options: &mut Self::Options,
        key: &CStr,
        value: Value<'_>,
    ) -> Option<Result>;

    /// Fills in the super block of a device that is not mounted.
    fn fill_super(fc: &Context, options: &Self::Options, sb: &SuperBlock) -> Result;

    /// Checks whether `sb`, which is mounted, can be mounted in one more place.
    fn share(fc: &Context, options: &Self::Options, sb: &SuperBlock) -> Result;

    /// Logs why the device itself could not be opened. `error` is what the VFS returned.
    fn no_device(fc: &Context, error: Error);

    /// Changes a mounted super block.
    fn reconfigure(fc: &Context, options: &Self::Options, sb: &SuperBlock) -> Result;
}

/// What a context carries.
struct Held<O> {
    options: O,
    /// The VFS opened the device, for this mount.
    device_found: bool,
}

/// The table for a [`ContextOperations`].
pub struct ContextTable<T>(PhantomData<T>);

impl<T: ContextOperations> ContextTable<T> {
    /// The table.
    pub const fn table() -> Table<bindings::fs_context_operations> {
        Table::new(bindings::fs_context_operations {
            free: Some(Self::free),
            parse_param: Some(Self::parse_param),
            get_tree: Some(Self::get_tree),
            reconfigure: Some(Self::reconfigure),
            ..pin_init::zeroed()
        })
    }

    /// Gives `fc` its operations and its options. Call this from `->init_fs_context`.
    pub fn init(
        fc: *mut bindings::fs_context,
        table: &'static Table<bindings::fs_context_operations>,
    ) -> Result {
        let held = Held {
            options: T::Options::default(),
            device_found: false,
        };
        // SAFETY: `->init_fs_context` has the context to itself.
        unsafe {
            (*fc).fs_private = KBox::into_raw(KBox::new(held, GFP_KERNEL)?).cast();
            (*fc).ops = table.as_ptr();
        }
        Ok(())
    }

    /// # Safety
    ///
    /// `fc` went through [`Self::init`] and is the caller's alone.
    unsafe fn held<'a>(fc: *mut bindings::fs_context) -> &'a mut Held<T::Options> {
        // SAFETY: `init` put it there.
        unsafe { &mut *(*fc).fs_private.cast() }
    }

    /// # Safety
    ///
    /// `->free`, called by the VFS once.
    unsafe extern "C" fn free(fc: *mut bindings::fs_context) {
        // SAFETY: the context is going away; `init` made the box.
        unsafe {
            let held: *mut c_void = core::mem::replace(&mut (*fc).fs_private, null_mut());
            if !held.is_null() {
                drop(KBox::<Held<T::Options>>::from_raw(held.cast()));
            }
        }
    }

    /// # Safety
    ///
    /// `->parse_param`, called by the VFS.
    unsafe extern "C" fn parse_param(
        fc: *mut bindings::fs_context,
        param: *mut bindings::fs_parameter,
    ) -> c_int {
        // SAFETY: the context and the parameter are the caller's, lent for the call. A parameter
        // of the type string has the string in its union.
        let (context, held, key, value) = unsafe {
            let value = match (*param).type_() {
                bindings::fs_value_type_fs_value_is_flag => Value::Flag,
                bindings::fs_value_type_fs_value_is_string => {
                    Value::String(CStr::from_char_ptr((*param).__bindgen_anon_1.string))
                }
                _ => Value::Other,
            };
            (
                Context::from_raw(fc),
                Self::held(fc),
                CStr::from_char_ptr((*param).key),
                value,
            )
        };
        match T::parse(context, &mut held.options, key, value) {
            Some(result) => from_result(|| result.map(|()| 0)),
            // CAST: an errno is small.
            None => -(bindings::ENOPARAM as c_int),
        }
    }

    /// # Safety
    ///
    /// `->get_tree`, called by the VFS.
    unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> c_int {
        // SAFETY: the context is the caller's, lent for the call.
        let (context, held, result) = unsafe {
            let result = bindings::get_tree_bdev(fc, Some(Self::fill_super));
            (Context::from_raw(fc), Self::held(fc), result)
        };
        if held.device_found {
            return result;
        }
        if result < 0 {
            T::no_device(context, Error::from_errno(result));
            return result;
        }
        // The device is mounted. Its options stay, and must not silently differ from those
        // requested.
        // SAFETY: `get_tree_bdev` succeeded: the root is set, and its super block locked and alive.
        let (root, sb) = unsafe { ((*fc).root, (*(*fc).root).d_sb) };
        // SAFETY: as above.
        let shared = T::share(context, &held.options, unsafe { SuperBlock::from_raw(sb) });
        if shared.is_err() {
            // SAFETY: the context gives up its references to root and super block, and the lock, as
            // the VFS does with a tree that it cannot use.
            unsafe {
                (*fc).root = null_mut();
                bindings::dput(root);
                bindings::deactivate_locked_super(sb);
            }
        }
        from_result(|| shared.map(|()| 0))
    }

    /// # Safety
    ///
    /// Called by `get_tree_bdev` with a new super block, to which the device is attached.
    unsafe extern "C" fn fill_super(
        sb: *mut bindings::super_block,
        fc: *mut bindings::fs_context,
    ) -> c_int {
        // SAFETY: both are the caller's, lent for the call.
        let (context, held, sb) = unsafe {
            (
                Context::from_raw(fc),
                Self::held(fc),
                SuperBlock::from_raw(sb),
            )
        };
        held.device_found = true;
        from_result(|| T::fill_super(context, &held.options, sb).map(|()| 0))
    }

    /// # Safety
    ///
    /// `->reconfigure`, called by the VFS with the super block locked.
    unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> c_int {
        // SAFETY: the context is the caller's, lent for the call, and holds the root.
        let (context, held, sb) = unsafe {
            (
                Context::from_raw(fc),
                Self::held(fc),
                SuperBlock::from_raw((*(*fc).root).d_sb),
            )
        };
        from_result(|| T::reconfigure(context, &held.options, sb).map(|()| 0))
    }
}
