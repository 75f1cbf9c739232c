// SPDX-License-Identifier: GPL-2.0

//! fsync and msync: what a sync does to a chunk is the module's own code, on this machine; around it,
//! the windows of `tracker.rs` and the fence.

use std::cell::RefCell;

use dax_model::track::chunk::{Protected, Run, Taken, Window};
use dax_model::track::density::SAMPLE;
use dax_model::track::page_set::{PageSet, PAGES};
use dax_model::track::sync::{self, Fingerprints, Hot, How};
use shuttle::sync::atomic::Ordering::SeqCst;
use shuttle::thread;

use crate::machine::{Chunk, Machine, LAST};
use crate::memory::NR;
use crate::mistakes::Mistake;

/// What is on its way to the media: a block, and its content.
type UnderWay = Vec<(u64, u64)>;

impl Machine {
    /// clwb of a run: the content of now is there with the next fence.
    fn write_back_run(&self, run: Run, under_way: &mut UnderWay) {
        let pages = run.page..(run.page + run.len).min(NR);
        for block in pages.map(|page| run.block + (page - run.page) as u64) {
            let mut device = self.device.lock().unwrap();
            let content = device.block(block);
            assert!(!content.free, "a freed block written back");
            under_way.push((block, content.cache));
        }
    }

    /// Returns whether the device could.
    fn fence(&self, under_way: UnderWay) -> bool {
        if self.fence_fails.swap(false, SeqCst) {
            return false;
        }
        for (block, value) in under_way {
            let mut device = self.device.lock().unwrap();
            let media = &mut device.block(block).media;
            *media = value.max(*media);
        }
        true
    }

    /// `sync_range` of the pages `first..=last`, and whether it kept its promise. What one has lost
    /// that failed before is lost.
    pub fn sync(&self, first: usize, last: usize) {
        let wanted: Vec<(usize, u64, u64)> = {
            let extents = self.extents.lock().unwrap();
            let mut device = self.device.lock().unwrap();
            (first..NR.min(last + 1))
                .filter_map(|page| Some((page, extents[page]?)))
                .map(|(page, block)| (page, block, device.block(block).complete))
                .collect()
        };
        let failed = self.failed.load(SeqCst);
        if !self.sync_steps(first, last, true, failed) || failed > 0 {
            return;
        }
        let extents = self.extents.lock().unwrap();
        let mut device = self.device.lock().unwrap();
        for (page, block, value) in wanted {
            if extents[page] == Some(block) {
                let media = device.block(block).media;
                assert!(
                    media >= value,
                    "page {page}: {value} stored, {media} durable"
                );
            }
        }
    }

    /// fsync.
    pub fn sync_file(&self) {
        self.sync(0, LAST);
    }

    /// `sync_all` of `dirty.rs`: hot pages are write-protected, too.
    pub fn sync_all(&self) {
        self.sync_steps(0, LAST, false, self.failed.load(SeqCst));
    }

    /// `sample` of `src/track/sync.rs`.
    pub fn sample(&self, chunk: &Chunk) -> [u64; SAMPLE] {
        sync::sample(Contents(self), 0, chunk).expect("all can be read")
    }

    /// `write_back`, the fence, and the wait for others. Returns whether none of them failed;
    /// `failed` have before.
    pub fn sync_steps(&self, first: usize, last: usize, keep: bool, failed: u64) -> bool {
        let early = self.writable.load(SeqCst) > 0;
        let windows = !self.is(Mistake::NoWindow);
        if !self.mark.load(SeqCst) {
            if windows {
                self.wait_for_others(first, last, None);
            }
            return self.failed.load(SeqCst) == failed || self.is(Mistake::FailAlone);
        }
        let seq = {
            let mut t = self.tags.lock().unwrap();
            let window = Window {
                seq: t.next_seq,
                first: first as u64,
                end: first as u64,
            };
            t.next_seq += 1;
            t.windows.push(window);
            window.seq
        };
        let under_way = self.write_back_chunk(first, last, seq, early, keep);
        let fenced = self.fence(under_way);
        if !fenced && !self.is(Mistake::FailLate) {
            self.failed.fetch_add(1, SeqCst);
        }
        if windows {
            self.wait_for_others(first, last, Some(seq));
        }
        if !fenced && self.is(Mistake::FailLate) {
            self.failed.fetch_add(1, SeqCst);
        }
        fenced && (self.failed.load(SeqCst) == failed || self.is(Mistake::FailAlone))
    }

    /// What `write_back_held` of `src/dax/sync.rs` does with a chunk.
    fn write_back_chunk(
        &self,
        first: usize,
        last: usize,
        seq: u64,
        writable_early: bool,
        keep: bool,
    ) -> UnderWay {
        let mut chunk = self.chunk.lock().unwrap();
        let range = match self.mistake() {
            Mistake::TakeFolio if chunk.is_huge() => PageSet::ALL,
            _ => PageSet::range(first, last),
        };
        let dirty = self.tags.lock().unwrap().tags.dirty_in(&range);
        let mut synced = Synced {
            machine: self,
            range,
            last,
            seq,
            was_hot: *chunk.heat.hot(),
            writable_early,
            under_way: RefCell::default(),
        };
        let how = How {
            hot: if keep { Hot::Keep } else { Hot::Protect },
            flush: true,
        };
        sync::write_back(&mut synced, &mut chunk, dirty, how);
        synced.under_way.into_inner()
    }

    /// Ends the own window, then waits for the fences of those that were begun before.
    fn wait_for_others(&self, first: usize, last: usize, own: Option<u64>) {
        let mut t = self.tags.lock().unwrap();
        t.windows.retain(|w| Some(w.seq) != own);
        self.fenced.notify_all();
        let now = t.next_seq;
        while t
            .windows
            .iter()
            .any(|w| w.covers(now, first as u64, last as u64))
        {
            t = self.fenced.wait(t).unwrap();
        }
    }
}

/// What is in the cache. Pages without a block in the model are stored to together with one that has:
/// each half of the chunk with one.
struct Contents<'m>(&'m Machine);

impl Fingerprints for Contents<'_> {
    fn of(&mut self, block: u64) -> Option<u64> {
        let nth = block as usize % PAGES;
        let stored = if nth < NR { nth } else { nth * NR / PAGES };
        let block = block - (nth - stored) as u64;
        Some(self.0.device.lock().unwrap().block(block).cache)
    }
}

/// The chunk, as a sync sees it.
struct Synced<'m> {
    machine: &'m Machine,
    range: PageSet,
    last: usize,
    seq: u64,
    was_hot: PageSet,
    /// Whether there was a writable mapping before the chunk was locked.
    writable_early: bool,
    under_way: RefCell<UnderWay>,
}

impl Synced<'_> {
    fn is(&self, mistake: Mistake) -> bool {
        self.machine.is(mistake)
    }
}

impl sync::Machine for Synced<'_> {
    type Table = Box<[u64; PAGES]>;

    fn index(&self) -> u64 {
        0
    }

    fn take(&mut self, mut pages: Protected) -> Taken {
        let mut t = self.machine.tags.lock().unwrap();
        for w in t.windows.iter_mut().filter(|w| w.seq == self.seq) {
            w.end = self.last as u64 + 1;
        }
        if self.is(Mistake::TakeHot) {
            pages = t.tags.dirty_in(&self.range).write_protected();
        }
        let (taken, clear) = t.tags.take(pages);
        if clear && !self.is(Mistake::ClearMarkLate) {
            self.machine.mark.store(false, SeqCst);
        }
        drop(t);
        if clear && self.is(Mistake::ClearMarkLate) {
            self.machine.mark.store(false, SeqCst);
        }
        taken
    }

    fn tag(&self, page: usize) {
        self.machine.tag(Some(page));
    }

    fn is_writably_mapped(&self) -> bool {
        match self.is(Mistake::WritableCheckedEarly) {
            true => self.writable_early,
            false => self.machine.writable.load(SeqCst) > 0,
        }
    }

    fn write_protect(&self, run: Run) {
        let mut pages = PageSet::range(run.page, run.page + run.len - 1);
        if self.is(Mistake::CoolUnprotected) {
            pages.remove_all(&self.was_hot);
        }
        self.machine.write_protect(&pages);
    }

    fn unmap(&self) {
        self.machine.unmap(&PageSet::ALL);
    }

    fn write_back(&self, run: Run) {
        let mut under_way = self.under_way.borrow_mut();
        self.machine.write_back_run(run, &mut under_way);
    }

    fn fingerprints(&self) -> impl Fingerprints + '_ {
        Contents(self.machine)
    }

    fn is_held(&self, block: u64) -> bool {
        self.machine.device.lock().unwrap().is_held(block)
    }

    fn forget_dirty(&self, _block: u64) {}

    fn touch(&self) {}

    fn table(&self) -> Option<Self::Table> {
        Some(Box::new([0; PAGES]))
    }

    fn linger(&self) {
        thread::yield_now();
    }
}
