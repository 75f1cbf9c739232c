// SPDX-License-Identifier: GPL-2.0

//! Objects that the file system caches in memory, in lists by memory cgroup, and the shrinker that
//! frees them when memory is short.
//!
//! C headers: [`include/linux/list_lru.h`](srctree/include/linux/list_lru.h),
//! [`include/linux/shrinker.h`](srctree/include/linux/shrinker.h)
//!
//! An object is allocated from a slab cache of its list and charged to the memory cgroup of the
//! task that needed it. The shrinker finds it when that cgroup has no memory left. All mounts share
//! the lists, so that they exist as long as the module is loaded.

use core::marker::PhantomData;
use core::ptr::{null_mut, NonNull};

use kernel::bindings::{
    kmem_cache, list_head, list_lru, list_lru_one, lru_status, shrink_control, shrinker,
};
use kernel::error::code::ENOMEM;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::types::Opaque;

use crate::bindings;

/// `SHRINK_STOP` of linux/shrinker.h: nothing can be freed now.
const SHRINK_STOP: usize = usize::MAX;

/// The shrinker's decision about an object.
pub enum Verdict {
    /// It was removed from the list.
    Taken,
    /// Somebody is using it.
    Busy,
    /// It was used since the shrinker looked at it last.
    Used,
}

/// What can be freed.
pub trait Object: Sized + 'static {
    /// The name of the slab cache.
    const NAME: &'static CStr;

    /// Where its list is.
    fn list() -> &'static List<Self>;

    /// What was taken so far, while a list is walked.
    type Taken: Default;

    /// Decides about an object of the list, which stays in memory until this returns; removes it
    /// from the list by [`Place::take`]. Called with the lock of the list held, which spins.
    ///
    /// # Safety
    ///
    /// `object` is in the list.
    unsafe fn take(object: NonNull<Self>, place: Place, taken: &mut Self::Taken) -> Verdict;

    /// Frees what was taken; returns the number of objects. May sleep, and is called where a file
    /// system may be entered to reclaim memory.
    fn give_back(taken: Self::Taken) -> usize;
}

/// Links an object into its list: its first field, so that a pointer to it is one to the object.
pub type Links = Opaque<list_head>;

/// Links of an object in no list.
pub fn unlinked() -> impl PinInit<Links> {
    // SAFETY: initialises the links in their place, where they stay.
    Opaque::ffi_init(|slot| unsafe { bindings::rdax_init_list_head(slot) })
}

/// The place of the object that the shrinker is looking at.
pub struct Place(*mut list_lru_one, *mut list_head);

impl Place {
    /// Removes the object from its list.
    pub fn take(self) -> Verdict {
        // SAFETY: both are what `isolate` was called with, under the lock of the list.
        unsafe { bindings::list_lru_isolate(self.0, self.1) };
        Verdict::Taken
    }
}

/// The list of all objects of a type, their slab cache, and the shrinker. Static; usable while a
/// [`Lru`] exists.
pub struct List<T> {
    cache: Atomic<*mut kmem_cache>,
    list: Opaque<list_lru>,
    object: PhantomData<fn(T)>,
}

// SAFETY: the list has locks of its own.
unsafe impl<T> Sync for List<T> {}

impl<T: Object> List<T> {
    /// Before a [`Lru`] exists.
    pub const fn new() -> Self {
        List {
            cache: Atomic::new(null_mut()),
            list: Opaque::zeroed(),
            object: PhantomData,
        }
    }

    /// Memory for an object. May sleep.
    pub fn alloc(&self) -> Result<NonNull<T>> {
        // SAFETY: the module is loaded, and the list and its cache made.
        let object = unsafe { bindings::rdax_alloc_lru(self.cache.load(Relaxed), self.list.get()) };
        NonNull::new(object.cast()).ok_or(ENOMEM)
    }

    /// Frees the memory of an object.
    ///
    /// # Safety
    ///
    /// `object` comes from [`List::alloc`], is in no list, and nothing refers to it any more.
    pub unsafe fn free(&self, object: NonNull<T>) {
        // SAFETY: by the caller.
        unsafe { bindings::kmem_cache_free(self.cache.load(Relaxed), object.as_ptr().cast()) };
    }

    /// Puts an object into the list, at its end; the shrinker may look at it from then on.
    ///
    /// # Safety
    ///
    /// `object` comes from [`List::alloc`], and is in no list. Its first field is its [`Links`].
    pub unsafe fn add(&self, object: NonNull<T>) {
        // SAFETY: by the caller.
        unsafe { bindings::list_lru_add_obj(self.list.get(), object.as_ptr().cast()) };
    }

    /// Removes an object from the list, if it is in it. When this returns, the shrinker is not
    /// looking at it.
    ///
    /// # Safety
    ///
    /// `object` comes from [`List::alloc`] and was added once; its first field is its [`Links`].
    pub unsafe fn remove(&self, object: NonNull<T>) {
        // SAFETY: by the caller.
        unsafe { bindings::list_lru_del_obj(self.list.get(), object.as_ptr().cast()) };
    }
}

/// Owns the list, the cache and the shrinker of a type. Dropped when no object is left.
pub struct Lru<T: Object> {
    shrinker: *mut shrinker,
    object: PhantomData<fn(T)>,
}

// SAFETY: the shrinker is only freed, once.
unsafe impl<T: Object> Send for Lru<T> {}
// SAFETY: as above.
unsafe impl<T: Object> Sync for Lru<T> {}

impl<T: Object> Lru<T> {
    /// Creates all three. Called once, at load.
    pub fn new() -> Result<Self> {
        let mut args = bindings::kmem_cache_args {
            align: u32::try_from(align_of::<T>())?,
            ..pin_init::zeroed()
        };
        let list = T::list();
        // SAFETY: the names are static and `args` lives through the call; the shrinker is ours
        // until it is registered, which comes last.
        unsafe {
            let cache = bindings::__kmem_cache_create_args(
                T::NAME.as_char_ptr(),
                u32::try_from(size_of::<T>())?,
                &mut args,
                bindings::RDAX_SLAB_FLAGS,
            );
            if cache.is_null() {
                return Err(ENOMEM);
            }
            list.cache.store(cache, Relaxed);
            let shrinker =
                bindings::shrinker_alloc(bindings::RDAX_SHRINKER_FLAGS, T::NAME.as_char_ptr());
            let made = match shrinker.is_null() {
                true => Err(ENOMEM),
                false => to_result(bindings::rdax_list_lru_init(list.list.get(), shrinker)),
            };
            if let Err(error) = made {
                bindings::shrinker_free(shrinker);
                bindings::kmem_cache_destroy(cache);
                return Err(error);
            }
            (*shrinker).count_objects = Some(count::<T>);
            (*shrinker).scan_objects = Some(scan::<T>);
            bindings::shrinker_register(shrinker);
            Ok(Lru {
                shrinker,
                object: PhantomData,
            })
        }
    }
}

impl<T: Object> Drop for Lru<T> {
    fn drop(&mut self) {
        let list = T::list();
        // SAFETY: made in `new`; freeing the shrinker waits until it is not running. No object is
        // left: the last super block is gone.
        unsafe {
            bindings::shrinker_free(self.shrinker);
            bindings::list_lru_destroy(list.list.get());
            bindings::kmem_cache_destroy(list.cache.load(Relaxed));
        }
    }
}

/// `shrinker.count_objects`.
///
/// # Safety
///
/// Called by the shrinker of a [`Lru`].
unsafe extern "C" fn count<T: Object>(_: *mut shrinker, sc: *mut shrink_control) -> usize {
    // SAFETY: the list is there while its shrinker is.
    unsafe { bindings::rdax_list_lru_count(T::list().list.get(), sc) }
}

/// `shrinker.scan_objects`.
///
/// # Safety
///
/// As for [`count`].
unsafe extern "C" fn scan<T: Object>(_: *mut shrinker, sc: *mut shrink_control) -> usize {
    // An allocation inside a file system may hold its locks.
    // SAFETY: the control block is the caller's.
    if unsafe { (*sc).gfp_mask } & bindings::RDAX_GFP_FS == 0 {
        return SHRINK_STOP;
    }
    let mut taken = T::Taken::default();
    // SAFETY: as above; `isolate` is called with `taken` until this returns.
    unsafe {
        bindings::rdax_list_lru_walk(
            T::list().list.get(),
            sc,
            Some(isolate::<T>),
            (&raw mut taken).cast(),
        )
    };
    T::give_back(taken)
}

/// `list_lru_walk_cb`.
///
/// # Safety
///
/// Called by [`scan`] alone, under the lock of the list, with an object in it.
unsafe extern "C" fn isolate<T: Object>(
    item: *mut list_head,
    list: *mut list_lru_one,
    taken: *mut c_void,
) -> lru_status {
    let Some(object) = NonNull::new(item.cast::<T>()) else {
        return lru_status::LRU_SKIP;
    };
    // SAFETY: the links are the first field of the object, which is in the list; `taken` is that of
    // `scan`.
    match unsafe { T::take(object, Place(list, item), &mut *taken.cast::<T::Taken>()) } {
        Verdict::Taken => lru_status::LRU_REMOVED,
        Verdict::Busy => lru_status::LRU_SKIP,
        Verdict::Used => lru_status::LRU_ROTATE,
    }
}
