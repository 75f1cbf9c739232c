// SPDX-License-Identifier: GPL-2.0

//! Cached metadata of files beyond their inodes: the nodes of their trees, their extended
//! attributes and the locations of the names of a directory. It is freed when memory is short, and
//! read again when it is needed. Each file with such metadata is in a list.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

use super::inode::InodeInfo;
use super::lru::{self, Links, List, Object, Place, Verdict};
use super::meta::MetaLock;
use crate::volume::inode::Knowledge;

/// The place of a file in the list.
#[pin_data]
#[repr(C)]
pub struct Known {
    #[pin]
    links: Links,
    /// Its lock. It is there while this is in the list.
    meta: NonNull<MetaLock>,
    /// It was used since the shrinker looked at it last.
    used: Atomic<bool>,
    /// The metadata that was taken from it, and the next taken entry.
    taken: UnsafeCell<(Knowledge, Option<NonNull<Known>>)>,
}

static LIST: List<Known> = List::new();

impl Known {
    /// Adds the file of `meta`, which is locked, to the list, if there is memory for it.
    pub fn note(meta: &MetaLock) -> Option<NonNull<Known>> {
        let memory = LIST.alloc().ok()?;
        let known = pin_init!(Known {
            links <- lru::unlinked(),
            meta: NonNull::from(meta),
            used: Atomic::new(false),
            taken: UnsafeCell::default(),
        });
        // SAFETY: the memory is ours alone; what is made there stays until it is freed.
        unsafe {
            pin_init::raw_init(memory.as_ptr(), known);
            LIST.add(memory);
        }
        Some(memory)
    }

    /// The file was used. Called with its lock held.
    ///
    /// # Safety
    ///
    /// `known` is what [`Known::note`] has returned for it, and is in the list.
    pub unsafe fn touch(known: NonNull<Known>) {
        // SAFETY: by the caller.
        unsafe { known.as_ref() }.used.store(true, Relaxed);
    }

    /// Removes a file from the list.
    ///
    /// # Safety
    ///
    /// As for [`Known::touch`]; nobody uses `known` any more.
    pub unsafe fn remove(known: NonNull<Known>) {
        // SAFETY: by the caller.
        unsafe {
            LIST.remove(known);
            free(known);
        }
    }
}

/// # Safety
///
/// `known` is in no list, and nobody uses it.
unsafe fn free(known: NonNull<Known>) {
    // SAFETY: by the caller.
    unsafe {
        known.drop_in_place();
        LIST.free(known);
    }
}

impl Object for Known {
    const NAME: &'static CStr = c"rdax_known";

    /// The first of those that were taken.
    type Taken = Option<NonNull<Known>>;

    fn list() -> &'static List<Self> {
        &LIST
    }

    unsafe fn take(known: NonNull<Self>, place: Place, taken: &mut Self::Taken) -> Verdict {
        // SAFETY: it is in the list, and so the lock is there: an inode that is evicted takes its
        // place from the list first, and its memory is freed an RCU grace period later.
        let (this, meta) = unsafe { (known.as_ref(), known.as_ref().meta.as_ref()) };
        if this.used.load(Relaxed) {
            this.used.store(false, Relaxed);
            return Verdict::Used;
        }
        let Some(knowledge) = meta.try_forget(known) else {
            return Verdict::Busy;
        };
        // SAFETY: the lock is part of an inode, as alive as it.
        let info = unsafe { &*container_of!(core::ptr::from_ref(meta), InodeInfo, meta) };
        info.sb().counters.inodes_forgotten.add(1);
        // SAFETY: the inode does not know of it any more, so it is ours alone.
        unsafe { *this.taken.get() = (knowledge, taken.replace(known)) };
        place.take()
    }

    fn give_back(taken: Self::Taken) -> usize {
        let (mut next, mut freed) = (taken, 0);
        while let Some(known) = next {
            // SAFETY: taken from the list by `take`, and ours alone.
            unsafe {
                next = (*known.as_ref().taken.get()).1;
                free(known);
            }
            freed += 1;
        }
        freed
    }
}
