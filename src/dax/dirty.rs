// SPDX-License-Identifier: GPL-2.0

//! Which inodes of a mount have dirty pages, so that sync, freeze and unmount find them.
//!
//! The VFS's own lists do not serve: they hold an inode only until its next write-back, which
//! finds no page cache here and forgets it. An inode enters this list when a page of it is tagged,
//! which also happens under a page table lock; it leaves it when [`sync_all`] or [`sync_inode`] has
//! written it back, or when it is evicted. Entering it also makes the inode dirty for the VFS, whose
//! flusher calls back after a while (`dirty_expire_centisecs`): that is how stores reach the media
//! without a sync call. The list holds no references: an unlinked file must go when its last user
//! does. Instead eviction waits for a `sync_all` that is at the inode, and the other way round.

use core::cell::UnsafeCell;
use core::ptr;

use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::barrier::{smp_mb, Full};
use kernel::sync::{new_condvar, new_mutex, new_spinlock, CondVar, Mutex, SpinLock};

use super::sync::{self, Hot};
use super::tracker::Tracker;
use crate::mutate::mutated;
use crate::vfs::inode::InodeInfo;
use crate::vfs::super_block::SbInfo;

/// The place of an inode in the list.
///
/// # Invariants
///
/// While `listed`, the entry's inode is alive and `links` are those of the list.
pub struct DirtyEntry {
    /// Changes under the list's lock, read without.
    listed: Atomic<bool>,
    /// Guarded by the list's lock.
    links: UnsafeCell<Links>,
}

struct Links {
    prev: *const DirtyEntry,
    next: *const DirtyEntry,
    /// Number in the order of listing.
    seq: u64,
    /// Somebody took it out of the list and writes it back.
    busy: bool,
    /// Eviction writes it back and takes it out of the list then.
    leaving: bool,
}

impl DirtyEntry {
    /// An entry that is not in the list.
    pub fn new() -> Self {
        DirtyEntry {
            listed: Atomic::new(false),
            links: UnsafeCell::new(Links {
                prev: ptr::null(),
                next: ptr::null(),
                seq: 0,
                busy: false,
                leaving: false,
            }),
        }
    }
}

/// The ends of the list. Whoever holds the lock around it may use the links of all entries.
struct List {
    head: *const DirtyEntry,
    tail: *const DirtyEntry,
    next_seq: u64,
}

// SAFETY: the entries are used under the lock around this only.
unsafe impl Send for List {}

impl List {
    /// The links of an entry.
    ///
    /// # Safety
    ///
    /// `entry` is alive. (That the list's lock is held is shown by `self`.)
    unsafe fn links(&mut self, entry: *const DirtyEntry) -> &mut Links {
        // SAFETY: alive by the caller's promise; links are only reached through the list, which is
        // borrowed mutably.
        unsafe { &mut *(*entry).links.get() }
    }

    fn push(&mut self, entry: &DirtyEntry) {
        let (tail, seq) = (self.tail, self.next_seq);
        self.next_seq += 1;
        // SAFETY: `entry` is a reference, `tail` is listed or null.
        unsafe {
            let links = self.links(entry);
            (links.prev, links.next, links.seq) = (tail, ptr::null(), seq);
            if tail.is_null() {
                self.head = entry;
            } else {
                self.links(tail).next = entry;
            }
        }
        self.tail = entry;
        entry.listed.store(true, Relaxed);
    }

    fn unlink(&mut self, entry: &DirtyEntry) {
        // SAFETY: `entry` is a reference; its neighbours are listed or null.
        unsafe {
            let links = self.links(entry);
            let (prev, next) = (links.prev, links.next);
            if prev.is_null() {
                self.head = next;
            } else {
                self.links(prev).next = next;
            }
            if next.is_null() {
                self.tail = prev;
            } else {
                self.links(next).prev = prev;
            }
        }
        entry.listed.store(false, Relaxed);
    }
}

/// The inodes of one mount that have dirty pages.
#[pin_data]
pub struct DirtyInodes {
    #[pin]
    list: SpinLock<List>,
    /// Notified when an entry stops to be busy, or has left.
    #[pin]
    changed: CondVar,
    /// Notified when a sync of any inode has its fence behind it.
    #[pin]
    pub(super) fenced: CondVar,
    /// One `sync_all` at a time.
    #[pin]
    serial: Mutex<()>,
}

impl DirtyInodes {
    /// An empty list.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(DirtyInodes {
            list <- new_spinlock!(
                List {
                    head: ptr::null(),
                    tail: ptr::null(),
                    next_seq: 0,
                },
                "rdax_dirty_inodes"
            ),
            changed <- new_condvar!("rdax_dirty_changed"),
            fenced <- new_condvar!("rdax_fenced"),
            serial <- new_mutex!((), "rdax_sync_all"),
        })
    }

    /// A page of the inode was tagged, just now. Does not sleep.
    #[inline]
    pub(super) fn note(&self, tracker: &Tracker) {
        // The tag is visible before the flag is read, and `sync_all` takes the flag away before it
        // looks for tags: one of the two sees the other.
        smp_mb(Full);
        if !tracker.entry.listed.load(Relaxed) {
            self.add(tracker);
        }
    }

    #[cold]
    fn add(&self, tracker: &Tracker) {
        let mut list = self.list.lock();
        if tracker.entry.listed.load(Relaxed) {
            return;
        }
        list.push(&tracker.entry);
        drop(list);
        // After it is in the list: the flusher clears the flags before it takes it out again.
        info_of(tracker).mark_dirty();
    }

    /// Runs `write_back` on an inode that is being evicted. A [`sync_all`] that is at the inode is
    /// waited for; one that comes later waits until `write_back` is done. Afterwards the inode is
    /// not in the list.
    pub(super) fn leave<R>(&self, tracker: &Tracker, write_back: impl FnOnce() -> R) -> R {
        let entry = &tracker.entry;
        let mut list = self.list.lock();
        // SAFETY: `entry` is part of the tracker.
        while unsafe { list.links(entry) }.busy {
            self.changed.wait(&mut list);
        }
        if !entry.listed.load(Relaxed) {
            drop(list);
            // Nothing was tagged since the last time it was written back.
            return write_back();
        }
        // SAFETY: as above.
        unsafe { list.links(entry) }.leaving = true;
        drop(list);
        let result = write_back();
        let mut list = self.list.lock();
        list.unlink(entry);
        drop(list);
        self.changed.notify_all();
        result
    }

    /// Takes the oldest inode listed before `limit` out of the list, to be written back; waits if
    /// it is being evicted.
    fn next(&self, limit: u64) -> Option<&Tracker> {
        let mut list = self.list.lock();
        loop {
            // SAFETY: what is listed is alive.
            let entry = unsafe { list.head.as_ref() }?;
            // SAFETY: as above.
            let links = unsafe { list.links(entry) };
            if links.seq >= limit {
                return None;
            }
            if links.leaving {
                self.changed.wait(&mut list);
                continue;
            }
            links.busy = true;
            list.unlink(entry);
            // SAFETY: entries are parts of trackers; eviction waits while it is busy.
            return Some(unsafe { &*container_of!(ptr::from_ref(entry), Tracker, entry) });
        }
    }

    /// Takes an inode out of the list, to be written back; false if it is not in it, or is being
    /// evicted.
    fn take(&self, tracker: &Tracker) -> bool {
        let entry = &tracker.entry;
        let mut list = self.list.lock();
        // SAFETY: `entry` is part of the tracker.
        let links = unsafe { list.links(entry) };
        if !entry.listed.load(Relaxed) || links.leaving {
            return false;
        }
        links.busy = true;
        list.unlink(entry);
        true
    }

    fn done(&self, tracker: &Tracker) {
        let mut list = self.list.lock();
        // SAFETY: `entry` is part of the tracker.
        unsafe { list.links(&tracker.entry) }.busy = false;
        drop(list);
        self.changed.notify_all();
    }
}

/// The inode that a tracker is part of.
fn info_of(tracker: &Tracker) -> &InodeInfo {
    // SAFETY: trackers are parts of inodes, and as alive as these.
    unsafe { &*container_of!(ptr::from_ref(tracker), InodeInfo, tracker) }
}

/// Writes back every dirty page of the mount, and write-protects its mappings: for sync, syncfs,
/// freeze, remount and unmount. Waits for evictions of dirty inodes that are under way. Returns the
/// first error, after all inodes had their turn. May sleep.
pub fn sync_all(sb: &SbInfo) -> Result {
    if mutated!("sync-all") {
        return Ok(());
    }
    let dirty = &sb.dirty;
    let _serial = dirty.serial.lock();
    let limit = dirty.list.lock().next_seq;
    let mut result = Ok(());
    while let Some(tracker) = dirty.next(limit) {
        result = result.and(sync_taken(sb, tracker));
    }
    result
}

/// Writes back every dirty page of an inode, and write-protects its mappings: for the flusher and
/// whoever writes inodes. The caller keeps the inode alive. May sleep.
pub fn sync_inode(info: &InodeInfo) -> Result {
    let sb = info.sb();
    // A sync does the same twice, here and in `sync_all`: leaving out one shows nothing.
    if mutated!("age") {
        return Ok(());
    }
    if mutated!("sync-all") {
        return Ok(());
    }
    // Nothing was tagged since it was taken out, or whoever took it out is at it.
    if !sb.dirty.take(&info.tracker) {
        return Ok(());
    }
    sync_taken(sb, &info.tracker)
}

/// Writes back an inode that was taken out of the list.
fn sync_taken(sb: &SbInfo, tracker: &Tracker) -> Result {
    // Pairs with `note`.
    smp_mb(Full);
    // The inode is alive while the entry is busy.
    let info = info_of(tracker);
    let mut result = Ok(());
    if !tracker.is_quiet() {
        result = sync::write_back(info, 0, u64::MAX, Hot::Protect);
        // Stores to hot pages moved the times just now.
        result = result.and(info.write_times());
    }
    sb.dirty.done(tracker);
    result
}
