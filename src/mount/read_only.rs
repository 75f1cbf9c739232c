// SPDX-License-Identifier: GPL-2.0

//! How a mount becomes read-only while it is in use: by an emergency remount (sysrq u), which asks
//! nobody, or after an error (`errors=remount-ro`).
//!
//! First, whoever wants to change something is refused ([`SbInfo::check_writable`]). Then
//! [`dax::end_stores`](crate::dax::end_stores) waits for faults under way, and takes write access
//! from every mapping; what was stored before is durable then. A store after that faults, and ends
//! in SIGBUS. Calls under way may complete what they are at.
//!
//! Where an error is found, locks are held; so a thread of the kernel does the rest. It says so in
//! `s_flags` as well, but not while the file system is frozen: the VFS thaws in another way what is
//! read-only, and would leave every writer waiting.

use kernel::bindings::work_struct;
use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};

use super::super_block::SbInfo;
use super::work::{DelayedWork, Function};

/// When it is tried again, in milliseconds.
const INTERVAL: u32 = 1000;

/// Whether a mount is read-only, or becoming so.
#[pin_data]
pub struct ReadOnly {
    /// As the mount was asked to be.
    asked: Atomic<bool>,
    #[pin]
    work: DelayedWork,
}

impl ReadOnly {
    /// Of a mount that is read-only from its beginning if `asked`. `end_stores` is called with the
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

    /// The mount is asked to be read-only, or writable. Faults that do not see it are waited for by
    /// [`dax::end_stores`](crate::dax::end_stores).
    pub fn ask(&self, read_only: bool) {
        self.asked.xchg(read_only, Full);
    }

    /// After an error, all writing has ended: has a thread of the kernel take write access from the
    /// mappings. Does not sleep.
    pub fn end_stores_soon(&self) {
        self.work.queue(0);
    }

    /// Has it tried again, after a while.
    pub fn end_stores_later(&self) {
        self.work.queue(INTERVAL);
    }

    /// The end of a mount, which finds no error any more.
    pub fn finish(&self) {
        // It does not wait for what the caller holds.
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
