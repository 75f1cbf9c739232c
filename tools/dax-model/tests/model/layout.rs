// SPDX-License-Identifier: GPL-2.0

//! Pages that leave the file, folios that are taken apart, holes that are filled: as in
//! `src/dax/layout.rs`.

use dax_model::track::page_set::PageSet;
use shuttle::sync::atomic::Ordering::SeqCst;

use crate::machine::{Chunk, Machine, LAST};
use crate::memory::{Pmd, Pte, NR};
use crate::mistakes::Mistake;

impl Machine {
    /// `split_huge`.
    pub fn split_huge(&self, chunk: &mut Chunk) -> bool {
        if !self.is(Mistake::SplitMapped) {
            self.unmap(&PageSet::ALL);
        }
        let first = chunk.block(0);
        let idle = match self.mistake() {
            Mistake::SplitMapped => self.is_free(first),
            Mistake::SplitPinned => true,
            _ => self.is_idle(first),
        };
        if !idle {
            return false;
        }
        self.set_folio(first, false);
        chunk.split();
        if self.is(Mistake::SplitDropsTags) {
            self.forget_tags(&PageSet::ALL);
        }
        true
    }

    /// Frees the pages from `first` on: `break_layout`, and then the file gives up its blocks.
    pub fn truncate(&self, first: usize) {
        let gone = PageSet::range(first, LAST);
        let mut invalidate = self.invalidate.write().unwrap();
        loop {
            if !self.is(Mistake::FreeMapped) {
                let huge = self.chunk.lock().unwrap().is_huge();
                self.unmap(if huge { &PageSet::ALL } else { &gone });
            }
            let busy: Vec<u64> = {
                let chunk = self.chunk.lock().unwrap();
                let pages = (first..NR).filter(|page| chunk.present().contains(*page));
                pages.map(|page| chunk.block(page)).collect()
            };
            let mut device = self.device.lock().unwrap();
            if self.is(Mistake::FreePinned) || !busy.iter().any(|b| device.is_held(*b)) {
                break;
            }
            drop(device);
            drop(invalidate);
            device = self.device.lock().unwrap();
            while busy.iter().any(|b| device.is_held(*b)) {
                device = self.idle.wait(device).unwrap();
            }
            drop(device);
            invalidate = self.invalidate.write().unwrap();
        }
        if !self.is(Mistake::DropTags) {
            self.sync_steps(first, LAST, false, self.failed.load(SeqCst));
        }
        self.forget(&gone);
        for page in first..NR {
            let block = self.extents.lock().unwrap()[page].take();
            if let Some(block) = block {
                self.free(block);
            }
        }
        if self.is(Mistake::FreeMapped) {
            self.unmap(&gone);
        }
        drop(invalidate);
    }

    /// `forget`.
    fn forget(&self, gone: &PageSet) {
        let mut chunk = self.chunk.lock().unwrap();
        if chunk.is_huge() && !self.is(Mistake::ForgetUnsplit) {
            if *gone == PageSet::ALL {
                self.set_folio(chunk.block(0), false);
            } else {
                assert!(self.split_huge(&mut chunk), "a folio that is not idle");
            }
        }
        let _ = chunk.forget(gone);
        self.forget_tags(match self.mistake() {
            Mistake::ForgetAllTags => &PageSet::ALL,
            _ => gone,
        });
    }

    /// `unmap_zeroes`.
    pub fn unmap_zeroes(&self, chunk: &mut Chunk, filled: &PageSet) {
        let stale = chunk.fill(filled);
        if !self.is(Mistake::LeaveZero) {
            self.unmap(&stale);
        }
    }

    /// write(2) into a hole of one page, then `hole_filled`; a read through a mapping must see it.
    pub fn write_hole(&self, page: usize) {
        {
            let mut extents = self.extents.lock().unwrap();
            if extents[page].is_none() {
                extents[page] = Some(self.allocate());
            }
        }
        let filled = PageSet::range(page, page);
        self.unmap_zeroes(&mut self.chunk.lock().unwrap(), &filled);
        self.assert_no_zeroes(page..page + 1);
    }

    /// The same of 2 MiB: fallocate(2), if nothing is there yet.
    pub fn fill_hole(&self) {
        {
            let mut extents = self.extents.lock().unwrap();
            if *extents == [None; NR] {
                let first = self.allocate_huge();
                *extents = std::array::from_fn(|page| Some(first + page as u64));
            }
        }
        self.unmap_zeroes(&mut self.chunk.lock().unwrap(), &PageSet::ALL);
        self.assert_no_zeroes(0..NR);
    }

    pub fn assert_no_zeroes(&self, pages: std::ops::Range<usize>) {
        for map in &self.maps {
            if let Pmd::Table(ptes) = *map.lock().unwrap() {
                assert!(
                    pages.clone().all(|page| ptes[page] != Pte::Zero),
                    "zeroes are read where the file has a block"
                );
            }
        }
    }
}
