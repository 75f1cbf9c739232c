// SPDX-License-Identifier: GPL-2.0

//! A copy of what is durable, in test builds (`make module SHADOW=1`).
//!
//! Every write-back copies its lines here, before it starts, and every store past the cache copies
//! what it stored. At unmount, nothing may be left in the CPU cache alone: a line that differs
//! between the device and the copy was stored to and never written back afterwards. Its page was
//! cleaned too early, or its tag was lost.
//!
//! This detects, at full speed and on several CPUs, what killing an emulator cannot: there a store
//! survives whether it was written back or not.

use core::ptr;

use kernel::alloc::flags::GFP_KERNEL;
use kernel::alloc::VVec;
use kernel::prelude::*;
use kernel::sync::atomic::{AtomicFlag, Relaxed};

use super::memory::Memory;
use super::PAGE;
use crate::volume::pmem::LINE;

/// A copy of a device.
pub(super) struct Shadow {
    copy: VVec<u8>,
    void: AtomicFlag,
}

impl Shadow {
    /// The copy of `memory`, all of which is durable.
    pub(super) fn new(memory: &Memory) -> Result<Self> {
        let len = memory.bytes() as usize;
        let mut copy = VVec::with_capacity(len, GFP_KERNEL)?;
        let from = memory.span(0, memory.bytes()).map_err(|_| EIO)?;
        // SAFETY: the span and the vector have as many bytes.
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr(), copy.as_mut_ptr(), len);
            copy.inc_len(len);
        }
        Ok(Shadow {
            copy,
            void: AtomicFlag::new(false),
        })
    }

    /// The lines that `at..at + len` touches are being written back, or were stored past the cache.
    pub(super) fn durable(&self, memory: &Memory, at: u64, len: u64) {
        let start = at / LINE * LINE;
        let end = (at + len)
            .next_multiple_of(LINE)
            .min(self.copy.len() as u64);
        let Some(len) = end.checked_sub(start).filter(|_| len > 0) else {
            return;
        };
        let Ok(from) = memory.span(start, len) else {
            return;
        };
        // SAFETY: inside both. Copies of the same lines may race, as may stores of user space; each
        // is followed by another write-back, or was a bug that must be found.
        unsafe {
            let to = self.copy.as_ptr().cast_mut().add(start as usize);
            ptr::copy(from.as_ptr(), to, len as usize);
        }
    }

    /// Nothing is written back for a while, because the cache is declared persistent: differences
    /// mean nothing any more.
    pub(super) fn void(&self) {
        self.void.store(true, Relaxed);
    }

    /// Warns if `memory`, to which nobody stores, differs, with the first place and the number of
    /// lines. Skips blocks for which `is_bad` is true: they hold nothing.
    pub(super) fn compare(&self, memory: &Memory, is_bad: impl Fn(u64) -> bool) {
        if self.void.load(Relaxed) {
            return;
        }
        let mut first = None;
        let mut lines = 0u64;
        for (i, line) in self.copy.chunks(LINE as usize).enumerate() {
            let at = i * LINE as usize;
            if is_bad(at as u64 / PAGE) {
                continue;
            }
            let Ok(device) = memory.span(at as u64, line.len() as u64) else {
                return;
            };
            // SAFETY: the span has as many bytes.
            let device = unsafe { core::slice::from_raw_parts(device.as_ptr(), line.len()) };
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
