// SPDX-License-Identifier: GPL-2.0

//! System calls, and actions of the kernel itself: each runs the module's code.

use crate::track::chunk::HOLES;
use crate::track::layout;
use crate::track::machine::{Machine as _, Tracking};
use crate::track::page_set::PageSet;
use crate::track::removal;
use crate::track::sync::{self, Purpose};
use crate::track::windows;
use shuttle::sync::atomic::Ordering::SeqCst;
use shuttle::thread;

use super::kernel::Invalidate;
use super::machine::{Machine, LAST};
use super::memory::{Pmd, Pte, FIRST, NR};

impl Machine {
    /// fsync or msync of the pages `first..=last`, and whether it kept its promise.
    pub fn sync(&self, first: usize, last: usize) {
        self.check_sync(first, last, || {
            sync::sync_range(self, FIRST + first as u64, FIRST + last as u64).is_ok()
        });
    }

    /// fsync.
    pub fn sync_file(&self) {
        self.sync(0, LAST);
    }

    /// Runs a sync, and checks whether it kept its promise. Stores that an earlier failed sync has
    /// lost stay lost.
    pub fn check_sync(&self, first: usize, last: usize, sync: impl FnOnce() -> bool) {
        struct Wanted {
            page: usize,
            block: u64,
            value: u64,
            stored: u64,
        }
        let begun = self.tick();
        // Without a cache there is no promise: stores are durable as they are.
        let had_cache = self.has_cache.load(SeqCst);
        let wanted: Vec<Wanted> = {
            let extents = self.extents.lock().unwrap();
            let mut device = self.device.lock().unwrap();
            let pages = first..NR.min(last + 1);
            let mut each = |page: usize| {
                let at = extents[page]?;
                let block = device.block(at);
                Some(Wanted {
                    page,
                    block: at,
                    value: block.complete,
                    stored: block.stored,
                })
            };
            pages.filter_map(&mut each).collect()
        };
        let before = *self.synced.lock().unwrap();
        let (failures, lost) = (self.tracker.failures(), self.lost.load(SeqCst));
        // Forgets what was before.
        self.tracker.failures_at_begin();
        let done = sync();
        // An open file gets the error of a sync that failed before this one began by the kernel's
        // own means.
        let told = self.tracker.failures_at_begin() != failures;
        if !done {
            assert!(self.lost.load(SeqCst) > 0, "a sync failed by itself");
            assert!(self.told.load(SeqCst), "no open file knows");
            return;
        }
        if told || lost > 0 || self.is_gone.load(SeqCst) {
            return;
        }
        let extents = self.extents.lock().unwrap();
        let mut device = self.device.lock().unwrap();
        let (moved, ended) = (self.moved.load(SeqCst), self.tick());
        for wanted in wanted {
            let page = wanted.page;
            if extents[page] == Some(wanted.block) && had_cache {
                let (media, value) = (device.block(wanted.block).media, wanted.value);
                assert!(
                    media >= value,
                    "page {page}: {value} stored, {media} durable"
                );
            }
            let (begun_before, ended_before) = before[page];
            if wanted.stored > ended_before {
                assert!(
                    moved > begun_before,
                    "page {page} was stored to, and no time moved"
                );
            }
            self.synced.lock().unwrap()[page] = (begun, ended);
        }
    }

    /// FIFREEZE, and what holds as long as it lasts.
    pub fn freeze(&self) {
        self.life.is_freezing.store(true, SeqCst);
        let frozen = self.frozen.write().unwrap();
        self.sync_all();
        self.sync_all();
        self.assert_no_stores();
        drop(frozen);
        self.life.is_freezing.store(false, SeqCst);
    }

    /// A read-only remount.
    pub fn end_stores(&self) {
        self.may_store.store(false, SeqCst);
        let _faults_out = Invalidate::new(self);
        self.check_sync(0, LAST, || {
            sync::sync_pages(self, 0, u64::MAX, Purpose::End).is_ok()
        });
        self.assert_no_stores();
    }

    /// The block of a page turns out to be bad: `->notify_failure`.
    pub fn fail(&self, page: usize) {
        let block = self.extents.lock().unwrap()[page];
        let block = block.expect("a page with a block");
        self.bad.store(block, SeqCst);
        let _faults_out = Invalidate::new(self);
        // From here on faults find out.
        self.is_bad_known.store(true, SeqCst);
        let is_dirty = || {
            let chunk = self.tracker.any_chunk();
            let _state = self.tracker.lock(chunk);
            let pages = PageSet::range(page, page);
            let dirty = windows::dirty_in(&self.tracker, chunk, &pages);
            !dirty.pages().is_empty()
        };
        let was_dirty = is_dirty();
        layout::fail_page(self, FIRST + page as u64);
        assert!(!self.is_mapped(block..block + 1), "a bad block is mapped");
        // No sync has made it clean meanwhile.
        if was_dirty && is_dirty() {
            assert!(self.told.load(SeqCst), "stores are lost, and nobody knows");
        }
        // What was stored to it is lost.
        self.lost.fetch_add(1, SeqCst);
    }

    /// The device goes.
    pub fn remove_device(&self) {
        removal::remove(self);
        assert!(self.is_removed.load(SeqCst), "the device is kept");
        assert!(
            !self.tracker.is_any_marked(),
            "a page is dirty that nobody has"
        );
    }

    /// Memory is short.
    pub fn reclaim(&self) {
        self.tracker.reclaim(|chunk| {
            let mut removed = false;
            let remove = || {
                self.tracker.remove();
                removed = true;
            };
            let given_up = layout::reclaim(self, chunk, remove);
            assert_eq!(
                given_up, removed,
                "a chunk in the tree is freed, or none is"
            );
        });
    }

    /// The file gives up its blocks from page `first` on, if nothing keeps it from that.
    pub fn truncate(&self, first: usize) {
        self.punch(first, LAST);
    }

    /// The file gives up its blocks of the pages `first..=last`, if nothing keeps it from that.
    pub fn punch(&self, first: usize, last: usize) {
        let mut faults_out = Invalidate::new(self);
        let interrupted = self.is_interrupted.load(SeqCst);
        let pages = (FIRST + first as u64, FIRST + last as u64);
        let broken = layout::break_layout(self, &mut faults_out, pages.0, pages.1);
        if broken.is_err() {
            let is_why = interrupted || self.is_gone.load(SeqCst);
            assert!(is_why, "a truncation failed by itself");
            return;
        }
        // Until this is durable, a crash brings the blocks back.
        thread::yield_now();
        for page in first..NR.min(last + 1) {
            let block = self.extents.lock().unwrap()[page].take();
            if let Some(block) = block {
                self.free(block);
            }
        }
    }

    /// write(2) into a hole of one page; a read through a mapping must see it.
    pub fn write_hole(&self, page: usize) {
        {
            let mut extents = self.extents.lock().unwrap();
            if extents[page].is_none() {
                extents[page] = Some(self.allocate());
            }
        }
        layout::hole_filled(self, FIRST + page as u64, 1);
        self.assert_no_zeroes(page..page + 1);
    }

    /// As many stores to holes of the chunk, which is in memory, were given a block each that the
    /// next one fills them all.
    pub fn store_to_holes(&self) {
        let chunk = self.tracker.chunk(1).unwrap();
        let mut state = self.tracker.lock(chunk);
        (1..HOLES).for_each(|_| assert!(!state.store_to_hole(), "a sparse file is filled"));
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
        layout::hole_filled(self, FIRST, self.pages() - FIRST);
        self.assert_no_zeroes(0..NR);
    }

    pub fn assert_no_zeroes(&self, pages: std::ops::Range<usize>) {
        for map in &self.maps {
            let some = match *map.lock().unwrap() {
                Pmd::Zeros => true,
                Pmd::Table(ptes) => pages.clone().any(|page| ptes[page] == Pte::Zero),
                Pmd::None | Pmd::Huge { .. } => false,
            };
            assert!(!some, "zeroes are read where the file has a block");
        }
    }
}
