// SPDX-License-Identifier: GPL-2.0

//! What the file system keeps in memory because it may be wanted again, in lists by memory cgroup,
//! and the shrinker that gives it back when memory is short.
//!
//! C headers: [`include/linux/list_lru.h`](srctree/include/linux/list_lru.h),
//! [`include/linux/shrinker.h`](srctree/include/linux/shrinker.h)
//!
//! An object comes from a slab cache of its list, is charged to the memory cgroup of the task that
//! had it made, and is found by the shrinker when that one has no memory left. The lists of all
//! mounts are one, so that they last as long as the module is loaded.

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

/// `SHRINK_STOP` of linux/shrinker.h: nothing can be given back now.
const SHRINK_STOP: usize = usize::MAX;

/// What becomes of an object that is looked at.
pub enum Verdict {
    /// It was taken from the list.
    Taken,
    /// Somebody is at it.
    Busy,
    /// It was used since it was looked at last.
    Used,
}

/// What can be given back.
pub trait Object: Sized + 'static {
    /// The name of the slab cache.
    const NAME: &'static CStr;

    /// Where its list is.
    fn list() -> &'static List<Self>;

    /// What has been taken so far, while a list is walked.
    type Taken: Default;

    /// Decides about an object of the list, which stays in memory until this returns; takes it from
    /// the list by [`Place::take`]. Called with the lock of the list held, which spins.
    ///
    /// # Safety
    ///
    /// `object` is in the list.
    unsafe fn take(object: NonNull<Self>, place: Place, taken: &mut Self::Taken) -> Verdict;

    /// Gives back what was taken; returns how many objects that were. May sleep, and is called
    /// where a file system may be entered to reclaim memory.
    fn give_back(taken: Self::Taken) -> usize;
}

/// What puts an object into its list: its first field, so that a pointer to it is one to the
/// object.
pub type Links = Opaque<list_head>;

/// Links of what is in no list.
pub fn unlinked() -> impl PinInit<Links> {
    // SAFETY: initialises the links in their place, where they stay.
    Opaque::ffi_init(|slot| unsafe { bindings::rdax_init_list_head(slot) })
}

/// The place of an object that is being looked at.
pub struct Place(*mut list_lru_one, *mut list_head);

impl Place {
    /// Takes the object from its list.
    pub fn take(self) -> Verdict {
        // SAFETY: both are what `isolate` was called with, under the lock of the list.
        unsafe { bindings::list_lru_isolate(self.0, self.1) };
        Verdict::Taken
    }
}

/// The list of all objects of a type, the cache they come from, and the shrinker. Static; it is
/// there while a [`Lru`] is.
pub struct List<T> {
    cache: Atomic<*mut kmem_cache>,
    list: Opaque<list_lru>,
    object: PhantomData<fn(T)>,
}

// SAFETY: the list has locks of its own.
unsafe impl<T> Sync for List<T> {}

impl<T: Object> List<T> {
    /// Before there is a [`Lru`].
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

    /// Gives the memory of an object back.
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

    /// Takes an object from the list, if it is in it. When this returns, the shrinker does not look
    /// at it.
    ///
    /// # Safety
    ///
    /// `object` comes from [`List::alloc`] and was added once; its first field is its [`Links`].
    pub unsafe fn remove(&self, object: NonNull<T>) {
        // SAFETY: by the caller.
        unsafe { bindings::list_lru_del_obj(self.list.get(), object.as_ptr().cast()) };
    }
}

/// Owns the list, the cache and the shrinker of a type. Dropped when there is no object left.
pub struct Lru<T: Object> {
    shrinker: *mut shrinker,
    object: PhantomData<fn(T)>,
}

// SAFETY: the shrinker is only freed, once.
unsafe impl<T: Object> Send for Lru<T> {}
// SAFETY: as above.
unsafe impl<T: Object> Sync for Lru<T> {}

impl<T: Object> Lru<T> {
    /// Makes all three. Called once, at load.
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
    // Whoever allocates in a file system may hold its locks.
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
