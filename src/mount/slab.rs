// SPDX-License-Identifier: GPL-2.0

//! The slab cache that inodes are allocated from.

use core::ptr::{null_mut, NonNull};

use kernel::error::code::ENOMEM;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

use super::inode::InodeInfo;
use super::object::SuperBlock;
use crate::bindings;

/// The cache while the module is loaded: RCU frees inodes when no super block leads to it any more.
static CACHE: Atomic<*mut bindings::kmem_cache> = Atomic::new(null_mut());

/// Owns the cache. Dropped when no super block is left.
pub struct InodeCache;

impl InodeCache {
    /// Creates the cache. Called once, at load.
    pub fn new() -> Result<Self> {
        let size = u32::try_from(size_of::<InodeInfo>())?;
        let mut args = bindings::kmem_cache_args {
            align: u32::try_from(align_of::<InodeInfo>())?,
            ctor: Some(construct),
            ..pin_init::zeroed()
        };
        // SAFETY: the name is static and `args` lives through the call.
        let cache = unsafe {
            bindings::__kmem_cache_create_args(
                c"rdax_inode".as_char_ptr(),
                size,
                &mut args,
                bindings::RDAX_SLAB_FLAGS,
            )
        };
        if cache.is_null() {
            return Err(ENOMEM);
        }
        CACHE.store(cache, Relaxed);
        Ok(InodeCache)
    }
}

impl Drop for InodeCache {
    fn drop(&mut self) {
        // SAFETY: no inode is in use: the file system type is unregistered. The barrier waits for
        // those that RCU has yet to free.
        unsafe {
            bindings::rcu_barrier();
            bindings::kmem_cache_destroy(CACHE.load(Relaxed));
        }
    }
}

/// Initialises what survives from one use of the memory to the next.
///
/// # Safety
///
/// Called by the slab allocator with fresh memory for an `InodeInfo`.
unsafe extern "C" fn construct(object: *mut c_void) {
    // SAFETY: the cache is one of `InodeInfo`s.
    unsafe { InodeInfo::construct(object.cast()) };
}

/// Memory for an inode of `sb`; null if there is none.
pub fn alloc(sb: &SuperBlock) -> *mut bindings::inode {
    // SAFETY: a super block exists, so the module is loaded and the cache made.
    unsafe { bindings::rdax_alloc_inode_sb(sb.as_raw(), CACHE.load(Relaxed)) }
}

/// Gives memory back.
///
/// # Safety
///
/// `inode` comes from [`alloc`], and nothing refers to it any more.
pub unsafe fn free(inode: NonNull<bindings::inode>) {
    // SAFETY: the cache lives until every inode is freed; the caller gives the memory up.
    unsafe { bindings::kmem_cache_free(CACHE.load(Relaxed), inode.as_ptr().cast()) };
}
