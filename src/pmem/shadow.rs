// SPDX-License-Identifier: GPL-2.0

//! A copy of what is durable, in test builds (`make module SHADOW=1`).
//!
//! Every write-back copies its lines here, before they are on their way, and every store past the
//! cache what it stored. When the file system is unmounted, nothing may be left in the CPU cache
//! alone: a line that differs between the device and the copy was stored to and never written back
//! afterwards. Its page was cleaned too early, or its tag was lost.
//!
//! This sees at full speed, on several CPUs, what killing an emulator cannot: there a store
//! survives whether it was written back or not.

use core::ptr;

use kernel::alloc::flags::GFP_KERNEL;
use kernel::alloc::VVec;
use kernel::prelude::*;
use kernel::sync::atomic::{AtomicFlag, Relaxed};

use crate::volume::pmem::LINE;

/// A copy of a device.
pub(super) struct Shadow {
    copy: VVec<u8>,
    void: AtomicFlag,
}

impl Shadow {
    /// The copy of the `len` bytes at `base`, all of which are durable.
    ///
    /// # Safety
    ///
    /// `base` is valid for reads of `len` bytes.
    pub(super) unsafe fn new(base: *const u8, len: usize) -> Result<Self> {
        let mut copy = VVec::with_capacity(len, GFP_KERNEL)?;
        // SAFETY: by the caller's promise; the vector has room for as much.
        unsafe {
            ptr::copy_nonoverlapping(base, copy.as_mut_ptr(), len);
            copy.inc_len(len);
        }
        Ok(Shadow {
            copy,
            void: AtomicFlag::new(false),
        })
    }

    /// The lines that `at..at + len` touches are being written back, or were stored past the cache.
    ///
    /// # Safety
    ///
    /// `base` is that of `new`, and the range inside the device.
    pub(super) unsafe fn durable(&self, base: *const u8, at: u64, len: u64) {
        let start = at / LINE * LINE;
        let end = (at + len)
            .next_multiple_of(LINE)
            .min(self.copy.len() as u64);
        // SAFETY: inside both. Copies of the same lines may race, as may stores of user space; each
        // is followed by another write-back, or was a mistake that is to be found.
        unsafe {
            let to = self.copy.as_ptr().cast_mut().add(start as usize);
            ptr::copy(base.add(start as usize), to, (end - start) as usize);
        }
    }

    /// For a while nothing is written back, because the cache is said to be persistent: what differs
    /// says nothing any more.
    pub(super) fn void(&self) {
        self.void.store(true, Relaxed);
    }

    /// Warns if the device differs, with the first place and the number of lines.
    ///
    /// # Safety
    ///
    /// `base` is that of `new`, and nobody stores to the device.
    pub(super) unsafe fn compare(&self, base: *const u8) {
        if self.void.load(Relaxed) {
            return;
        }
        let mut first = None;
        let mut lines = 0u64;
        for (i, line) in self.copy.chunks(LINE as usize).enumerate() {
            let at = i * LINE as usize;
            // SAFETY: the copy is as long as the device.
            let device = unsafe { core::slice::from_raw_parts(base.add(at), line.len()) };
            if device != line {
                first.get_or_insert(at);
                lines += 1;
            }
        }
        if let Some(at) = first {
            pr_err!("shadow: {lines} lines were not written back, the first at byte {at:#x}\n");
        }
        kernel::warn_on!(first.is_some());
    }
}
