// SPDX-License-Identifier: GPL-2.0

//! The memory of a device: who may access it, and until when.
//!
//! A device can be removed at any time, and its memory given to somebody else. Two rules keep that
//! from happening during an access:
//!
//! * **The memory exists as long as there is a reference to its page map.** [`Memory`] holds a
//!   reference from the time when the memory is found ([`Memory::new`]) until it is dropped, or
//!   removal has taken everything from it ([`Memory::release`]). The driver waits for that in
//!   `memunmap_pages()`, also where it has no way to notify: below a device mapper.
//! * **Nothing is accessed after [`Memory::set_gone`].** Each access is one of these, and that
//!   waits for all of them:
//!
//!   * a [`Span`], the only way to a pointer into the memory. Its holder does not sleep until it
//!     drops the span. So removal waits for it with RCU-tasks, and it costs nothing. (A kernel with
//!     `CONFIG_DEBUG_ATOMIC_SLEEP` reports violations.) Copies from and to user memory, which may
//!     sleep for as long as a user likes, are split into pieces that do not sleep
//!     ([`super::copy`]);
//!   * an [`Access`], an SRCU lock, for work that sleeps and uses struct pages, or calls the
//!     driver;
//!   * the pages of an inode, which is an owner ([`Memory::add_owner`]) from its first fault until
//!     it is evicted or removal takes them back; and their mappings and pins. Removal takes them
//!     from each inode in memory, and waits for inodes that are being evicted, and for pins.
//!
//! `dax` runs all of this, in the order in which it is written here (`failure.rs`).

use core::marker::PhantomData;

use kernel::bindings::dev_pagemap;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};

use super::PAGE;
use crate::bindings;
use crate::volume;

/// What can be done with the memory. It only ever decreases.
enum Reach {
    /// Everything.
    Open,
    /// It is no longer read or written; its struct pages are still used.
    Closed,
    /// Nothing: the device is being removed.
    Gone,
}

/// Where the memory of a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The address of its first byte.
    pub base: *mut u8,
    /// The physical page of it.
    pub first_pfn: u64,
}

/// The memory of a device.
///
/// # Invariants
///
/// While `pagemap` is not null, it is referred to, and `base` points to `bytes` bytes of memory,
/// mapped linearly and writable, with the struct pages of `pagemap` from `first_pfn` on.
pub(super) struct Memory {
    base: *mut u8,
    first_pfn: u64,
    bytes: u64,
    /// A [`Reach`].
    reach: Atomic<i32>,
    pagemap: Atomic<*mut dev_pagemap>,
    /// Inodes that pages of it belong to.
    owners: Atomic<i64>,
}

impl Memory {
    /// The `bytes` bytes at `place`. Fails with `ENXIO` if they are more than one piece of memory,
    /// or are being removed.
    ///
    /// # Safety
    ///
    /// They are mapped there, linearly and writable, and are not unmapped before this returns.
    pub(super) unsafe fn new(place: Place, bytes: u64) -> Result<Self> {
        // SAFETY: looks for the page map of physical pages.
        let pagemap = unsafe {
            bindings::rdax_pagemap_get(place.first_pfn as usize, (bytes / PAGE) as usize)
        };
        if pagemap.is_null() {
            return Err(ENXIO);
        }
        // INVARIANT: the reference is in `pagemap`; the rest is the caller's promise, and stays
        // true as long as the page map is referred to.
        Ok(Memory {
            base: place.base,
            first_pfn: place.first_pfn,
            bytes,
            reach: Atomic::new(Reach::Open as i32),
            pagemap: Atomic::new(pagemap),
            owners: Atomic::new(0),
        })
    }

    /// Where it is.
    pub(super) fn place(&self) -> Place {
        Place {
            base: self.base,
            first_pfn: self.first_pfn,
        }
    }

    /// Bytes.
    #[inline(always)]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The physical page number of `block`, which must be inside.
    #[inline(always)]
    pub(super) fn pfn(&self, block: u64) -> u64 {
        debug_assert!(block < self.bytes / PAGE);
        self.first_pfn + block
    }

    /// Whether everything can be done with it.
    #[inline(always)]
    pub(super) fn is_open(&self) -> bool {
        // Not by `Atomic::load`, which is a call: every access checks this.
        // SAFETY: an atomic, loaded whole like the kernel's READ_ONCE().
        unsafe { self.reach.as_ptr().read_volatile() == Reach::Open as i32 }
    }

    /// The `len` bytes at `at`. Fails if the memory is closed.
    pub(super) fn span(&self, at: u64, len: u64) -> volume::Result<Span<'_>> {
        // Before the flag is checked: removal waits for whoever sees the memory open.
        let span = self.inside(at, len);
        if !self.is_open() {
            return Err(volume::Error::Media { at });
        }
        span.ok_or(volume::Error::Invalid)
    }

    /// The `len` bytes at `at`, if they are inside. The caller ensures that the memory is open.
    #[inline(always)]
    pub(super) fn inside(&self, at: u64, len: u64) -> Option<Span<'_>> {
        let end = at.checked_add(len)?;
        // Inside the mapping, so that the sum does not wrap.
        (end <= self.bytes).then(|| Span::new(self.base.wrapping_add(at as usize)))
    }

    /// Ends reading and writing: every access fails from now on. Those in progress may complete.
    pub(super) fn close(&self) {
        let (open, closed) = (Reach::Open as i32, Reach::Closed as i32);
        let _ = self.reach.cmpxchg(open, closed, Relaxed);
    }

    /// Ends all use: when this returns, there is no [`Span`] and no [`Access`], and there will be
    /// none. May sleep.
    pub(super) fn set_gone(&self) {
        self.reach.store(Reach::Gone as i32, Relaxed);
        // SAFETY: the first waits until each task has slept or left the kernel once, the second for
        // each `Access`.
        unsafe {
            bindings::rdax_synchronize_rcu_tasks();
            bindings::rdax_access_wait();
        }
    }

    /// Keeps the memory and its struct pages present, for work that may sleep. `None` if they are
    /// gone.
    pub(super) fn access(&self) -> Option<Access> {
        // SAFETY: an SRCU read lock, dropped with the guard.
        let access = Access(unsafe { bindings::rdax_access_begin() });
        (self.reach.load(Relaxed) < Reach::Gone as i32).then_some(access)
    }

    /// Pages belong to one more inode. The caller keeps removal from looking for it meanwhile.
    pub(super) fn add_owner(&self) {
        self.owners.add(1, Relaxed);
    }

    /// No page belongs to an inode of [`Memory::add_owner`] any more.
    pub(super) fn remove_owner(&self) {
        if self.owners.fetch_add(-1, Full) == 1 {
            // SAFETY: wakes the waiters for this address.
            unsafe { bindings::wake_up_var(self.owners.as_ptr().cast()) };
        }
    }

    /// Waits until no page belongs to an inode.
    pub(super) fn wait_for_owners(&self) {
        // SAFETY: the counter is there as long as `self`; it is changed by atomic operations alone.
        unsafe { bindings::rdax_wait_for_zero(self.owners.as_ptr()) };
    }

    /// Releases the device: nobody uses the memory or its struct pages any more.
    pub(super) fn release(&self) {
        let pagemap = self.pagemap.xchg(core::ptr::null_mut(), Full);
        if !pagemap.is_null() {
            // SAFETY: by the invariant it is referred to, and the reference was ours to take.
            unsafe { bindings::rdax_pagemap_put(pagemap) };
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.release();
    }
}

/// Bytes of the memory. The task that holds it must not sleep until it is dropped, and must not
/// have slept since it found the memory open.
pub(super) struct Span<'a> {
    start: *mut u8,
    _memory: PhantomData<&'a Memory>,
}

impl Span<'_> {
    #[inline(always)]
    fn new(start: *mut u8) -> Self {
        #[cfg(CONFIG_DEBUG_ATOMIC_SLEEP)]
        // SAFETY: counts in the current task; `drop` matches.
        unsafe {
            bindings::rdax_non_block_start();
        }
        Span {
            start,
            _memory: PhantomData,
        }
    }

    /// The address of the first byte: valid for as many as were asked for, as long as this lives.
    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.start
    }
}

#[cfg(CONFIG_DEBUG_ATOMIC_SLEEP)]
impl Drop for Span<'_> {
    fn drop(&mut self) {
        // SAFETY: `new` has counted, in this task: the pointer keeps it from being sent.
        unsafe { bindings::rdax_non_block_end() };
    }
}

/// The memory and its struct pages do not go away while this lives.
pub struct Access(i32);

impl Drop for Access {
    fn drop(&mut self) {
        // SAFETY: matches the lock of `Memory::access`, by the same task.
        unsafe { bindings::rdax_access_end(self.0) };
    }
}
