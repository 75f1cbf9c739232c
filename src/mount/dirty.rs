// SPDX-License-Identifier: GPL-2.0

//! Which inodes of a mount have dirty pages, so that sync, freeze and unmount find them.
//!
//! The VFS's own lists are not enough: they hold an inode only until its next write-back, which
//! finds no page cache here and forgets it. An inode enters this list when a page of it is tagged,
//! which also happens under a page table lock. It leaves the list when
//! [`dax::sync_all`](crate::dax::sync_all) or [`dax::sync_inode`](crate::dax::sync_inode) has
//! written it back, unless a page stays hot, or when it is evicted. Entering the list also makes
//! the inode dirty for the VFS, whose flusher calls back later (`dirty_expire_centisecs`): that is
//! how stores reach the media without a sync call. The rules between these are in [`dirty_list`],
//! which is model-checked on the host; here is the kernel's side of it.

use core::cell::UnsafeCell;

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::barrier::{smp_mb, Full};
use kernel::sync::lock::spinlock::SpinLockBackend;
use kernel::sync::lock::Guard;
use kernel::sync::{new_condvar, new_mutex, new_spinlock, CondVar, Mutex, SpinLock};

use super::inode::{InodeInfo, InodeRef};
use super::tracker::Tracker;
use crate::track::dirty_list::{self, Environment, Links, List};

/// The place of an inode in the list: part of its tracker.
pub struct DirtyEntry {
    /// Changes under the list's lock, read without it.
    listed: Atomic<bool>,
    /// Guarded by the list's lock.
    links: UnsafeCell<Links<Listed>>,
}

impl DirtyEntry {
    /// An entry that is not in the list.
    pub fn new() -> Self {
        DirtyEntry {
            listed: Atomic::new(false),
            links: UnsafeCell::new(Links::NONE),
        }
    }
}

/// Names an inode in the list.
///
/// # Invariants
///
/// Points to the tracker of an inode that is in the list, or is known to be in memory by whoever
/// has this.
#[derive(Clone, Copy, PartialEq)]
pub struct Listed(*const Tracker);

// SAFETY: a name; what it points to may be used by any task.
unsafe impl Send for Listed {}

impl Listed {
    /// The inode of `tracker`. INVARIANT: the holder of the reference knows that the inode is in
    /// memory.
    pub fn new(tracker: &Tracker) -> Self {
        Listed(tracker)
    }

    /// The inode.
    ///
    /// # Safety
    ///
    /// It stays in memory for all of `'a`.
    unsafe fn info<'a>(self) -> &'a InodeInfo {
        // SAFETY: as alive as the inode, by the caller's promise.
        InodeInfo::of(unsafe { &*self.0 })
    }

    fn entry(&self) -> &DirtyEntry {
        // SAFETY: by the invariant.
        unsafe { &(*self.0).entry }
    }
}

/// The inodes of one mount that have dirty pages.
#[pin_data]
pub struct DirtyInodes {
    #[pin]
    list: SpinLock<List<Listed>>,
    /// Notified when a task has finished writing an inode back, or evicting it.
    #[pin]
    changed: CondVar,
    /// Notified when the fence of a sync of any inode is done.
    #[pin]
    pub(super) fenced: CondVar,
    /// One `sync_all` at a time.
    #[pin]
    pub serial: Mutex<()>,
}

impl DirtyInodes {
    /// An empty list.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(DirtyInodes {
            list <- new_spinlock!(List::new(), "rdax_dirty_inodes"),
            changed <- new_condvar!("rdax_dirty_changed"),
            fenced <- new_condvar!("rdax_fenced"),
            serial <- new_mutex!((), "rdax_sync_all"),
        })
    }

    /// A page of the inode was tagged, just now. Does not sleep.
    #[inline]
    pub fn note(&self, tracker: &Tracker) {
        // The tag is visible before the flag is read, and `sync_all` clears the flag before it
        // looks for tags: one of the two sees the other.
        smp_mb(Full);
        if !tracker.entry.listed.load(Relaxed) {
            self.add(tracker);
        }
    }

    /// Makes the flusher visit the inode later, if it is in the list.
    pub fn mark(&self, tracker: &Tracker) {
        if tracker.entry.listed.load(Relaxed) {
            InodeInfo::of(tracker).mark_dirty();
        }
    }

    #[cold]
    fn add(&self, tracker: &Tracker) {
        let entry = Listed::new(tracker);
        if dirty_list::note(self, entry) {
            // SAFETY: the reference to the tracker keeps the inode in memory.
            unsafe { entry.info() }.mark_dirty();
        }
    }
}

impl Environment for DirtyInodes {
    type Entry = Listed;
    type Held = InodeRef;
    type Error = Error;
    type Locked<'a> = Guard<'a, List<Listed>, SpinLockBackend>;

    fn lock(&self) -> Self::Locked<'_> {
        self.list.lock()
    }

    fn wait(&self, list: &mut Self::Locked<'_>) {
        self.changed.wait(list);
    }

    fn notify(&self) {
        self.changed.notify_all();
    }

    fn grab(&self, entry: Listed) -> Option<InodeRef> {
        // SAFETY: what is in the list is in memory, and the list is locked.
        unsafe { entry.info() }.grab()
    }

    fn is_listed(&self, entry: Listed) -> bool {
        entry.entry().listed.load(Relaxed)
    }

    fn set_listed(&self, entry: Listed, listed: bool) {
        entry.entry().listed.store(listed, Relaxed);
    }

    fn links(&self, _list: &List<Listed>, entry: Listed) -> Links<Listed> {
        // SAFETY: the links are guarded by the lock of the list, of which `_list` is proof.
        unsafe { *entry.entry().links.get() }
    }

    fn set_links(&self, _list: &mut List<Listed>, entry: Listed, links: Links<Listed>) {
        // SAFETY: as above.
        unsafe { *entry.entry().links.get() = links };
    }
}
