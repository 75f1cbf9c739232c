// SPDX-License-Identifier: GPL-2.0

//! The kernel's [`Device`]: what the steps of dirty tracking do to the cache lines and the struct
//! pages of a device.

use super::page::Page;
use crate::pmem::DirectMap;
use crate::track::machine::{Device, Failure, Fingerprints};
use crate::track::page_set::PAGES;
use crate::volume::pmem::Pmem;

impl Fingerprints for crate::pmem::Fingerprints<'_> {
    #[inline]
    fn of(&mut self, block: u64) -> Option<u64> {
        self.of(block)
    }
}

impl Device for DirectMap {
    fn access(&self) -> Option<impl Sized + '_> {
        self.access()
    }

    #[inline]
    fn has_write_cache(&self) -> bool {
        self.has_write_cache()
    }

    #[inline]
    fn write_back(&self, block: u64, len: u64) {
        self.write_back_blocks(block, len);
    }

    #[inline]
    fn fence(&self) -> Result<(), Failure> {
        Pmem::fence(self).map_err(|_| Failure::Device)
    }

    #[inline]
    fn fingerprints(&self) -> impl Fingerprints + '_ {
        self.fingerprints()
    }

    #[inline]
    fn is_bad(&self, block: u64, len: u64) -> bool {
        self.is_bad(block, len)
    }

    fn is_aligned(&self, block: u64) -> bool {
        self.pfn(block) % PAGES as u64 == 0
    }

    fn is_huge(&self, block: u64) -> bool {
        Page::of_block(self, block).is_huge()
    }

    #[inline]
    fn is_idle(&self, block: u64) -> bool {
        Page::of_block(self, block).is_idle()
    }

    #[inline]
    fn is_held(&self, block: u64) -> bool {
        Page::of_block(self, block).is_held()
    }

    fn wait_idle(&self, block: u64) {
        // Without signals it does not fail.
        let _ = Page::of_block(self, block).wait_idle(false);
    }

    #[inline]
    fn forget_dirty(&self, block: u64) {
        Page::of_block(self, block).clear_dirty();
    }

    fn reset(&self, block: u64) {
        Page::of_block(self, block).reset();
    }
}
