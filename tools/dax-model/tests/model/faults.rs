// SPDX-License-Identifier: GPL-2.0

//! Page faults, as in `src/dax/fault.rs`.

use dax_model::track::chunk::Entry;
use dax_model::track::page_set::{PageSet, PAGES};

use crate::machine::{Chunk, Machine, LAST};
use crate::memory::{Pmd, Pte, NR};
use crate::mistakes::Mistake;

impl Machine {
    /// What the memory manager does about an access that finds no entry, or, if `write`, none that
    /// is writable: it tries 2 MiB first, where no table of pages is.
    pub fn fault(&self, map: usize, page: usize, write: bool) {
        if self.aligned[map] && self.has_chunk {
            let seen = *self.maps[map].lock().unwrap();
            match seen {
                Pmd::Huge { writable, .. } if writable || !write => return,
                Pmd::None | Pmd::Huge { .. } => {
                    if self.fault_huge(map, page, write) {
                        return;
                    }
                    // As `__split_huge_pmd` does for files.
                    self.zap_huge(&mut self.maps[map].lock().unwrap());
                }
                Pmd::Table(_) => {}
            }
        }
        self.fault_page(map, page, write);
    }

    /// `map` and `map_in_chunk`.
    fn fault_page(&self, map: usize, page: usize, write: bool) {
        let _invalidate = self.invalidate.read().unwrap();
        let early = self.extents.lock().unwrap()[page];
        let mut chunk = self.chunk.lock().unwrap();
        let mapped_huge = matches!(*self.maps[map].lock().unwrap(), Pmd::Huge { .. });
        if mapped_huge && !self.is(Mistake::PageUnderHuge) {
            return;
        }
        if write && chunk.is_huge() {
            self.split_huge(&mut chunk);
        }
        let found = match chunk.entry(page) {
            Entry::Present(block) => Some(block),
            _ if self.is(Mistake::LookupEarly) => early,
            _ => self.extents.lock().unwrap()[page],
        };
        let block = match found {
            Some(block) => block,
            None if write => {
                let block = self.allocate();
                *self.extents.lock().unwrap()[page].insert(block)
            }
            None => {
                chunk.map_zero(page);
                let mut pmd = self.maps[map].lock().unwrap();
                let pte = pmd.pte(page);
                if *pte == Pte::None {
                    *pte = Pte::Zero;
                }
                return;
            }
        };
        let table = chunk.needs_table(page, block).then(|| Box::new([0; PAGES]));
        if chunk.map_block(page, block, table).unmap_zero {
            self.unmap(&PageSet::range(page, page));
        }
        let late = self.is(Mistake::TagAfterInsert);
        if write && !late {
            self.tag(Some(page));
        }
        let unlocked = if self.is(Mistake::InsertAfterUnlock) {
            drop(chunk);
            None
        } else {
            Some(chunk)
        };
        self.insert(map, page, block, write);
        if write && late {
            self.tag(Some(page));
        }
        drop(unlocked);
    }

    /// `vmf_insert_page_mkwrite`.
    fn insert(&self, map: usize, page: usize, block: u64, write: bool) {
        let mut pmd = self.maps[map].lock().unwrap();
        let pte = pmd.pte(page);
        match *pte {
            Pte::Zero => panic!("a block inserted over the zero page"),
            Pte::None | Pte::Ro(_) if write => *pte = Pte::Rw(block),
            Pte::None => *pte = Pte::Ro(block),
            _ => {}
        }
    }

    /// `map_huge`; false for `VM_FAULT_FALLBACK`.
    fn fault_huge(&self, map: usize, page: usize, write: bool) -> bool {
        let _invalidate = self.invalidate.read().unwrap();
        let mut chunk = self.chunk.lock().unwrap();
        if matches!(*self.maps[map].lock().unwrap(), Pmd::Table(_)) {
            return false;
        }
        if !chunk.may_map_huge(write) {
            if write && chunk.is_huge() {
                self.split_huge(&mut chunk);
            }
            return false;
        }
        if !chunk.is_huge() && !self.join(&mut chunk, write) {
            return false;
        }
        let tagged = match self.mistake() {
            Mistake::TagOneOfHuge => Some(page),
            _ => None,
        };
        let (tag_late, sample_late) = (
            self.is(Mistake::TagHugeAfterInsert),
            self.is(Mistake::SampleAfterInsert),
        );
        let begin = |chunk: &mut Chunk| {
            if !chunk.density.has_begun() || self.is(Mistake::SampleAgain) {
                let sample = self.sample(chunk);
                chunk.density.begin(Some(sample));
            }
        };
        if write && !sample_late {
            begin(&mut chunk);
        }
        if write && !tag_late {
            self.tag(tagged);
        }
        self.insert_huge(map, chunk.block(0), write);
        if write && tag_late {
            self.tag(tagged);
        }
        if write && sample_late {
            begin(&mut chunk);
        }
        true
    }

    /// `vmf_insert_folio_pmd`.
    fn insert_huge(&self, map: usize, first: u64, write: bool) {
        let mut pmd = self.maps[map].lock().unwrap();
        match &mut *pmd {
            Pmd::Table(_) => panic!("2 MiB mapped in one piece where a table of pages is"),
            Pmd::Huge { block, writable } => {
                assert_eq!(*block, first);
                *writable |= write;
            }
            none => {
                *none = Pmd::Huge {
                    block: first,
                    writable: write,
                }
            }
        }
    }

    /// `join`. A store to a hole of 2 MiB fills all of it, as if it were the next one of a file that
    /// is written from one end to the other.
    fn join(&self, chunk: &mut Chunk, write: bool) -> bool {
        let first = {
            let mut extents = self.extents.lock().unwrap();
            match extents[0] {
                None if write && *extents == [None; NR] => {
                    let first = self.allocate_huge();
                    *extents = std::array::from_fn(|page| Some(first + page as u64));
                    drop(extents);
                    self.unmap_zeroes(chunk, &PageSet::ALL);
                    first
                }
                Some(first)
                    if first % PAGES as u64 == 0
                        && (0..NR).all(|page| extents[page] == Some(first + page as u64)) =>
                {
                    first
                }
                _ => return false,
            }
        };
        if !self.is(Mistake::JoinMapped) && !self.is_idle(first) {
            return false;
        }
        chunk.join();
        if self.is(Mistake::JoinDropsTags) {
            self.forget_tags(&PageSet::ALL);
        }
        self.set_folio(first, true);
        if chunk.map_huge(first) && !self.is(Mistake::LeaveZeroUnderHuge) {
            self.unmap(&PageSet::range(0, LAST));
        }
        true
    }
}
