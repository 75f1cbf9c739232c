// SPDX-License-Identifier: GPL-2.0

//! How a mount becomes read-only while it is in use: by an emergency remount (sysrq u), which asks
//! nobody, or after an error (`errors=remount-ro`).
//!
//! First, all changes are refused ([`SbInfo::check_writable`]). Then
//! [`dax::end_stores`](crate::dax::end_stores) waits for faults in progress, and removes write
//! access from every mapping; earlier stores are durable then. A later store faults, and gets
//! SIGBUS. Calls in progress may complete.
//!
//! Locks are held where an error is found, so a work item does the rest. It also sets `s_flags`,
//! but not while the file system is frozen: the VFS thaws a read-only file system differently, and
//! would leave every writer waiting.

use kernel::bindings::work_struct;
use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};

use super::super_block::SbInfo;
use super::work::{DelayedWork, Function};

/// The time until the next try, in milliseconds.
const INTERVAL: u32 = 1000;

/// Whether a mount is read-only, or becoming so.
#[pin_data]
pub struct ReadOnly {
    /// Whether the mount was asked to be read-only.
    asked: Atomic<bool>,
    #[pin]
    work: DelayedWork,
}

impl ReadOnly {
    /// For a mount that is read-only from its beginning if `asked`. `end_stores` is called with the
    /// work, and finds its mount by [`ReadOnly::mount_of`].
    pub fn new(asked: bool, end_stores: Function) -> impl PinInit<Self> {
        pin_init!(ReadOnly {
            asked: Atomic::new(asked),
            work <- DelayedWork::new(end_stores),
        })
    }

    /// Whether the mount was asked to be read-only.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Relaxed)
    }

    /// The mount is asked to be read-only, or writable. [`dax::end_stores`](crate::dax::end_stores)
    /// waits for faults that do not see this.
    pub fn ask(&self, read_only: bool) {
        self.asked.xchg(read_only, Full);
    }

    /// All writing has ended after an error: schedules a work item that removes write access from
    /// the mappings. Does not sleep.
    pub fn end_stores_soon(&self) {
        self.work.queue(0);
    }

    /// Schedules another try.
    pub fn end_stores_later(&self) {
        self.work.queue(INTERVAL);
    }

    /// The end of a mount, which will find no more errors.
    pub fn finish(&self) {
        // The work item does not wait for anything that the caller holds.
        self.work.cancel();
    }

    /// The mount that `work` is part of.
    ///
    /// # Safety
    ///
    /// `work` is that of the [`ReadOnly`] of a mount, which stays for all of `'a`.
    pub unsafe fn mount_of<'a>(work: *mut work_struct) -> &'a SbInfo {
        // SAFETY: by the caller.
        unsafe {
            let read_only = container_of!(DelayedWork::of(work), ReadOnly, work);
            &*container_of!(read_only, SbInfo, read_only)
        }
    }
}
