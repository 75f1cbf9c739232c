// SPDX-License-Identifier: GPL-2.0

//! Memory errors: which blocks are known to be bad, and how they become good again.
//!
//! Two places record them: the struct page of the block, which is flagged when an error is reported
//! to the file system, and the driver's list of bad blocks, which a scrub of the device may extend
//! at any time. As long as neither has an error anywhere, [`DirectMap::is_sound`] says so after
//! three loads, and no further check is needed.
//!
//! A bad block may be missing in the kernel's map. Then a store to it, or the write-back of its
//! lines, would oops; only copies that expect machine checks may load from it. So every store
//! checks first. [`Pmem::heal`](volume::pmem::Pmem::heal) makes a block good whose content is not
//! needed: the device clears the error, if it can, and the block reads as zeroes.

use core::ops::Range;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

use super::{nt, DirectMap, PAGE};
use crate::bindings;
use crate::volume;

/// Not 0 if a struct page was ever flagged: the flags outlive mounts.
static FLAGGED: Atomic<i32> = Atomic::new(0);

/// The blocks that `len` bytes at `at` touch.
pub(super) fn blocks(at: u64, len: u64) -> Range<u64> {
    at / PAGE..at.saturating_add(len).div_ceil(PAGE)
}

impl DirectMap {
    /// Whether the device is open, and no block of it known to be bad.
    #[inline(always)]
    pub(super) fn is_sound(&self) -> bool {
        // Not by `Atomic::load`, which is a call: every access to the media checks this.
        self.memory.is_open()
            // SAFETY: an atomic, loaded whole like the kernel's READ_ONCE(). The driver's count is
            // there as long as the memory is, which is open when it is read.
            && unsafe {
                FLAGGED.as_ptr().read_volatile() == 0 && self.bad_blocks.read_volatile() == 0
            }
    }

    /// The media under `block`, which is inside the device, was reported as bad.
    pub fn set_poisoned(&self, block: u64) {
        // SAFETY: the device has struct pages, or it would have no DAX.
        unsafe { bindings::rdax_page_set_poisoned(self.page(block)) };
        FLAGGED.store(1, Relaxed);
    }

    /// Whether one of the `nr` blocks from `block` on is known to be bad.
    #[inline]
    pub fn is_bad(&self, block: u64, nr: u64) -> bool {
        self.first_bad(block..block.saturating_add(nr)).is_some()
    }

    /// The first of `blocks` that is known to be bad.
    #[inline]
    pub(super) fn first_bad(&self, blocks: Range<u64>) -> Option<u64> {
        if self.is_sound() {
            return None;
        }
        self.search_bad(blocks)
    }

    /// As [`DirectMap::first_bad`], where there may be one.
    #[cold]
    fn search_bad(&self, blocks: Range<u64>) -> Option<u64> {
        if self.is_closed() {
            // So are the flags and the list.
            return None;
        }
        (blocks.start..blocks.end.min(self.memory.bytes() / PAGE))
            .find(|block| self.is_flagged(*block) || self.is_listed(*block))
    }

    /// Fails if one of the `len` bytes at `at` is in a bad block.
    #[inline]
    pub(super) fn check_good(&self, at: u64, len: u64) -> volume::Result<()> {
        match self.first_bad(blocks(at, len)) {
            None => Ok(()),
            Some(block) => Err(volume::Error::Media {
                at: at.max(block * PAGE),
            }),
        }
    }

    /// How many of the `len` bytes at `at` are before the first bad block.
    #[inline]
    pub(super) fn readable(&self, at: u64, len: u64) -> u64 {
        match self.first_bad(blocks(at, len)) {
            None => len,
            Some(block) => (block * PAGE).saturating_sub(at),
        }
    }

    /// How many of the `len` bytes at `at`, which are about to be overwritten, can be written.
    /// Heals bad blocks that are overwritten whole.
    pub(super) fn writable(&self, at: u64, len: u64) -> u64 {
        let mut from = at;
        let end = at.saturating_add(len);
        while let Some(block) = self.first_bad(blocks(from, end - from)) {
            let (first, last) = (block * PAGE, (block + 1) * PAGE);
            if first < at || last > end || self.heal_block(block).is_err() {
                return first.saturating_sub(at);
            }
            from = last;
        }
        len
    }

    /// Zeroes the `len` bytes at `at`, with a bad block among them. Bad blocks that are zeroed
    /// whole are healed; nothing is stored to others, or to those that cannot be healed.
    pub(super) fn zero_around(&self, at: u64, len: u64) {
        for block in blocks(at, len) {
            let (first, last) = (block * PAGE, (block + 1) * PAGE);
            let (from, to) = (at.max(first), (at + len).min(last));
            if self.is_bad(block, 1) {
                if (from, to) == (first, last) {
                    let _ = self.heal_block(block);
                }
            } else if let Ok(start) = self.memory.span(from, to - from) {
                // SAFETY: the span has as many bytes; the block is good.
                unsafe { nt::zero(start.as_ptr(), (to - from) as usize) };
            }
        }
    }

    /// Makes a bad block good: it is zero, durably after the next fence. May sleep.
    pub(super) fn heal_block(&self, block: u64) -> Result {
        let _access = self.access().ok_or(EIO)?;
        if self.is_listed(block) {
            self.device.clear_error(block)?;
        }
        // SAFETY: the device has struct pages; nobody but us uses the block.
        to_result(unsafe { bindings::rdax_page_clear_poisoned(self.page(block)) })?;
        let start = self.memory.span(block * PAGE, PAGE).map_err(|_| EIO)?;
        // SAFETY: the span has as many bytes, which are good again.
        unsafe { nt::zero(start.as_ptr(), PAGE as usize) };
        Ok(())
    }

    /// Whether the struct page of `block` is flagged.
    fn is_flagged(&self, block: u64) -> bool {
        // SAFETY: the device has struct pages.
        unsafe { bindings::rdax_page_poisoned(self.page(block)) }
    }

    /// Whether the driver knows `block` to be bad.
    pub(super) fn is_listed(&self, block: u64) -> bool {
        let mode = bindings::dax_access_mode_DAX_ACCESS;
        self.device.direct_access(block, 1, mode).err() == Some(EHWPOISON)
    }

    fn page(&self, block: u64) -> *mut kernel::bindings::page {
        // SAFETY: computes an address.
        unsafe { bindings::rdax_pfn_to_page(self.pfn(block) as usize) }
    }
}
