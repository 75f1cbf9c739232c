// SPDX-License-Identifier: GPL-2.0

//! fsync and msync, as in `src/dax/sync.rs`, with the windows of `tracker.rs`.

use dax_model::chunk::{Run, Snapshot, Window};
use dax_model::density::SAMPLE;
use dax_model::page_set::{PageSet, PAGES};
use shuttle::sync::atomic::Ordering::SeqCst;

use crate::machine::{Chunk, Machine, LAST};
use crate::memory::NR;
use crate::mistakes::Mistake;

fn without(pages: &PageSet, gone: &PageSet) -> PageSet {
    let mut rest = *pages;
    rest.remove_all(gone);
    rest
}

/// What is on its way to the media: a block, and its content.
type UnderWay = Vec<(u64, u64)>;

impl Machine {
    /// clwb of a run: the content of now is there with the next fence.
    fn write_back(&self, run: Run, under_way: &mut UnderWay) {
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

    /// The fingerprint of a page: what is in the cache. Those without a block in the model are stored
    /// to together with one that has: each half of the chunk with one.
    fn fingerprint(&self, block: impl Fn(usize) -> u64, page: usize) -> u64 {
        let page = if page < NR { page } else { page * NR / PAGES };
        self.device.lock().unwrap().block(block(page)).cache
    }

    /// `sample`.
    pub fn sample(&self, chunk: &Chunk) -> [u64; SAMPLE] {
        let pages = chunk.density.pages(0);
        pages.map(|page| self.fingerprint(|page| chunk.block(page), page))
    }

    /// `keep_hot`, without the write-back: returns the pages that stay.
    fn keep_hot(&self, chunk: &mut Chunk, dirty: &mut Snapshot, may_stay: bool) -> PageSet {
        let huge = chunk.is_huge();
        let mut hot = chunk.heat.hot().and(dirty.pages());
        if !may_stay {
            chunk.heat.cool(&hot);
            return PageSet::EMPTY;
        }
        let (heat, blocks) = chunk.heat_and_blocks();
        let fingerprint = |page| Some(self.fingerprint(|page| blocks.block(page), page));
        let mut kept = PageSet::EMPTY;
        heat.review(&mut hot, fingerprint, |page| {
            kept.insert(page);
        });
        heat.cool(&hot);
        if !huge && !heat.warm().is_empty() {
            if heat.needs_table() {
                heat.set_table(Box::new([0; PAGES]));
            }
            kept.insert_all(&heat.heat_up(dirty.pages(), fingerprint));
        }
        let written_back: usize = (0..PAGES)
            .filter(|page| kept.contains(*page))
            .map(|page| dirty.keep(page).written_back())
            .sum();
        assert_eq!(written_back, kept.count());
        kept
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
        let mut under_way = Vec::new();
        let writable = || match self.mistake() {
            Mistake::WritableCheckedEarly => early,
            _ => self.writable.load(SeqCst) > 0,
        };
        self.write_back_chunk(first, last, seq, writable, keep, &mut under_way);
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

    /// `write_back_chunk`.
    fn write_back_chunk(
        &self,
        first: usize,
        last: usize,
        seq: u64,
        writable: impl FnOnce() -> bool,
        keep: bool,
        under_way: &mut UnderWay,
    ) {
        let range = PageSet::range(first, last);
        let mut chunk = self.chunk.lock().unwrap();
        let was_hot = *chunk.heat.hot();
        let seen = self.tags.lock().unwrap().tags.dirty_in(&range);
        if seen.pages().is_empty() {
            return;
        }
        let runs: Vec<_> = chunk.runs(seen.pages()).collect();
        let mut flush = |runs: &[Run]| {
            for run in runs {
                self.write_back(*run, under_way);
            }
        };
        if self.is(Mistake::FlushBeforeProtect) {
            flush(&runs);
        }
        let writable = writable();
        let whole = *seen.pages() == PageSet::ALL;
        let mut cold = seen;
        let stay = self.keep_hot(&mut chunk, &mut cold, writable && keep);
        let (hot, cold) = match self.mistake() {
            Mistake::TakeHot => (PageSet::EMPTY, seen),
            Mistake::TakeFolio if chunk.is_huge() => {
                let all = self.tags.lock().unwrap().tags.dirty_in(&PageSet::ALL);
                (stay, all)
            }
            _ => (stay, cold),
        };
        let runs: Vec<_> = match self.mistake() {
            Mistake::TrustHot => chunk.runs(&without(seen.pages(), &hot)).collect(),
            _ => runs,
        };
        let open = match self.mistake() {
            Mistake::TakeHot => stay,
            Mistake::CoolUnprotected => was_hot,
            _ => hot,
        };
        let protect = match chunk.is_huge() {
            true => PageSet::ALL,
            false => without(seen.pages(), &open),
        };
        if writable && !self.is(Mistake::TakeBeforeProtect) {
            self.write_protect(&protect);
        }
        if chunk.is_huge() && !self.is(Mistake::TakeHeld) {
            let held = self.device.lock().unwrap().is_held(chunk.block(0));
            if held {
                self.unmap(&PageSet::ALL);
            }
        }
        let (taken, clear) = {
            let mut t = self.tags.lock().unwrap();
            for w in t.windows.iter_mut().filter(|w| w.seq == seq) {
                w.end = last as u64 + 1;
            }
            let (taken, clear) = t.tags.take(cold.write_protected());
            if clear && !self.is(Mistake::ClearMarkLate) {
                self.mark.store(false, SeqCst);
            }
            (taken, clear)
        };
        if clear && self.is(Mistake::ClearMarkLate) {
            self.mark.store(false, SeqCst);
        }
        if !self.is(Mistake::FlushBeforeProtect) {
            flush(&runs);
        }
        if writable && self.is(Mistake::TakeBeforeProtect) {
            self.write_protect(taken.pages());
        }
        chunk.heat.synced(taken.pages());
        taken.written_back();
        if chunk.is_huge() {
            let sample = whole.then(|| self.sample(&chunk));
            if !chunk.density.end(sample) {
                chunk.store_small();
            }
        } else if whole {
            chunk.store_whole();
        }
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
