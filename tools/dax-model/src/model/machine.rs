// SPDX-License-Identifier: GPL-2.0

//! The machine: one file of up to 2 MiB, as the module and the memory manager keep it, and what
//! user space and the memory manager do with it.

use crate::track::machine::{Event, Tracking};
use crate::track::page_set::{PageSet, PAGES};
use crate::track::sync;
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, Weak};
use shuttle::thread::{self, ThreadId};

use super::life::Life;
use super::memory::{Device, Pmd, Pte, FIRST, NR};
use super::mistakes::Mistake;
use super::tracking::Tracker;

/// The last page of the chunk.
pub const LAST: usize = PAGES - 1;

/// What a CPU has on its way to the media: blocks, and their content.
pub type UnderWay = Vec<(ThreadId, u64, u64)>;

/// What the file is when a scene begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// A few pages.
    Pages,
    /// A hole of a few pages.
    Hole,
    /// 2 MiB in one aligned piece.
    Huge,
    /// A hole of 2 MiB.
    HugeHole,
    /// 2 MiB in one piece that is not aligned.
    Unaligned,
    /// 2 MiB that are unwritten.
    Unwritten,
}

/// A step of the module's code, at which a scene can do something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    WriteProtect,
    Unmap,
    /// The file becomes an owner of pages.
    Own,
    /// The lock of what was left behind.
    Left,
}

/// What is done when the module's code comes to a step.
pub type Meanwhile = (Step, fn(&Machine));

pub struct Machine {
    mistake: Mistake,
    /// Held exclusively while the file system is frozen.
    pub frozen: RwLock<()>,
    /// The invalidate lock.
    pub invalidate: RwLock<()>,
    /// Which block each page of the file has.
    pub extents: Mutex<[Option<u64>; NR]>,
    /// All of the chunk is within the file.
    pub has_chunk: bool,
    /// The blocks of 2 MiB are aligned on the device.
    pub is_aligned: bool,
    /// The space of the file is there, and unwritten.
    pub is_unwritten: AtomicBool,
    /// A store to a hole gets all that follows.
    pub fills_ahead: AtomicBool,
    /// No two free blocks follow each other.
    pub is_fragmented: AtomicBool,
    /// How many blocks are free.
    pub left: AtomicU64,
    /// The next wait for a pin is interrupted.
    pub is_interrupted: AtomicBool,
    /// Itself.
    pub this: Weak<Machine>,
    pub life: Life,
    /// The locks of all struct pages.
    pub page_lock: Mutex<()>,
    /// Held shared by users of the device, which must not disappear meanwhile.
    pub access: RwLock<()>,
    /// The device, and its struct pages, are gone.
    pub is_removed: AtomicBool,
    /// The next allocation of memory, or change of times, fails.
    pub fails: AtomicBool,
    /// All holes of a chunk cannot be filled.
    pub cannot_fill_all: AtomicBool,
    /// A block that is bad.
    pub bad: AtomicU64,
    /// Every fault that begins knows of it.
    pub is_bad_known: AtomicBool,
    pub tracker: Tracker,
    /// A block may have two pages.
    pub is_damaged: AtomicBool,
    /// The mount may be stored to.
    pub may_store: AtomicBool,
    /// The device has a volatile write cache.
    pub has_cache: AtomicBool,
    /// The next fence fails.
    pub fence_fails: AtomicBool,
    /// The device is going: nothing that is stored stays.
    pub is_gone: AtomicBool,
    /// Nobody begins to use it any more.
    pub has_ended: AtomicBool,
    /// Open files know that stores are lost.
    pub told: AtomicBool,
    /// How many fences have failed.
    pub lost: AtomicU64,
    pub under_way: std::sync::Mutex<UnderWay>,
    /// The extents, as a thread has seen them before it locked the chunk.
    pub seen: std::sync::Mutex<Vec<(ThreadId, [Option<u64>; NR])>>,
    /// What is behind the end of the file in its last page may change.
    pub may_tail_change: AtomicBool,
    /// Counts what happens.
    pub clock: AtomicU64,
    /// When the timestamps of the file changed last.
    pub moved: AtomicU64,
    /// For each page, when the last completed sync of it began, and when it ended.
    pub synced: std::sync::Mutex<[(u64, u64); NR]>,
    /// The page table of each mapping.
    pub maps: [Mutex<Pmd>; 2],
    /// A folio of 2 MiB that a CPU may still store to, by an entry of the mapping that was zapped.
    tlbs: [Mutex<Option<u64>>; 2],
    /// Whether the mapping is aligned, so that 2 MiB can be mapped in one piece.
    pub aligned: [bool; 2],
    /// The mapping is going: it is not among those of the file any more.
    is_unlinked: [AtomicBool; 2],
    /// How many faults there were in each mapping.
    pub faults: [AtomicU64; 2],
    pub device: Mutex<Device>,
    /// Notified when a pin ends, or a TLB is flushed.
    pub idle: Condvar,
    /// How often each event has happened.
    pub counts: std::sync::Mutex<[u64; 4]>,
    /// What happens, once, at a step of the module's code.
    pub meanwhile: std::sync::Mutex<Option<Meanwhile>>,
}

impl Machine {
    pub fn new(mistake: Mistake, file: File, aligned: [bool; 2]) -> Arc<Self> {
        let mut device = Device::default();
        let extents = match file {
            File::Pages => [(); NR].map(|()| Some(device.allocate())),
            File::Huge | File::Unaligned | File::Unwritten => {
                let first = device.allocate_huge();
                std::array::from_fn(|page| Some(first + page as u64))
            }
            File::Hole | File::HugeHole => [None; NR],
        };
        Arc::new_cyclic(|this| Machine {
            this: this.clone(),
            life: Life::default(),
            page_lock: Mutex::new(()),
            mistake,
            frozen: RwLock::new(()),
            invalidate: RwLock::new(()),
            extents: Mutex::new(extents),
            has_chunk: !matches!(file, File::Pages | File::Hole),
            is_aligned: file != File::Unaligned,
            is_unwritten: AtomicBool::new(file == File::Unwritten),
            fills_ahead: AtomicBool::new(true),
            is_fragmented: AtomicBool::new(false),
            left: AtomicU64::new(1 << 20),
            is_interrupted: AtomicBool::new(false),
            access: RwLock::new(()),
            is_removed: AtomicBool::new(false),
            fails: AtomicBool::new(false),
            cannot_fill_all: AtomicBool::new(false),
            bad: AtomicU64::new(u64::MAX),
            is_bad_known: AtomicBool::new(false),
            tracker: Tracker::new(mistake),
            is_damaged: AtomicBool::new(false),
            may_store: AtomicBool::new(true),
            has_cache: AtomicBool::new(true),
            fence_fails: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            told: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            under_way: Default::default(),
            seen: Default::default(),
            may_tail_change: AtomicBool::new(false),
            clock: AtomicU64::new(1),
            moved: AtomicU64::new(0),
            synced: std::sync::Mutex::new([(0, 0); NR]),
            maps: [0, 1].map(|_| Mutex::new(Pmd::None)),
            tlbs: [0, 1].map(|_| Mutex::new(None)),
            aligned,
            is_unlinked: Default::default(),
            faults: Default::default(),
            device: Mutex::new(device),
            idle: Condvar::new(),
            counts: Default::default(),
            meanwhile: Default::default(),
        })
    }

    pub fn is(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    pub fn mistake(&self) -> Mistake {
        self.mistake
    }

    pub fn allocate(&self) -> u64 {
        self.device.lock().unwrap().allocate()
    }

    pub fn allocate_huge(&self) -> u64 {
        self.device.lock().unwrap().allocate_huge()
    }

    /// Now.
    pub fn tick(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    /// `aops.dirty_folio`, for the folio of `page` of the file.
    fn dirty_folio(&self, block: u64, page: usize) {
        if self.is(Mistake::IgnoreDma) {
            return;
        }
        let (huge, owner) = {
            let mut device = self.device.lock().unwrap();
            (device.is_huge(block), device.block(block).owner)
        };
        // By that the kernel finds the file.
        let is_known = owner == Some(FIRST + page as u64);
        assert!(is_known, "page {page} is dirtied, but belongs to {owner:?}");
        match huge {
            true if self.is(Mistake::DmaTagsFirst) => sync::dirty_page(self, FIRST, false),
            true => sync::dirty_page(self, FIRST, true),
            false => sync::dirty_page(self, FIRST + page as u64, false),
        };
    }

    /// `set_page_dirty_lock`, by the holder of a pin: a page that belongs to nobody is only marked.
    fn dirty_pinned(&self, block: u64, page: usize) {
        // A page that is dirty already, as far as the flag says, is passed over.
        if self.device.lock().unwrap().block(block).has_pg_dirty {
            return;
        }
        let _locked = self.page_lock.lock().unwrap();
        let is_lost = {
            let mut device = self.device.lock().unwrap();
            let is_lost = device.block(block).owner.is_none();
            if is_lost {
                for block in device.folio_of(block) {
                    device.block(block).has_pg_dirty = true;
                }
            }
            is_lost
        };
        if is_lost {
            let was_evicted = self.life.was_evicted.load(SeqCst);
            assert!(was_evicted, "page {page} is pinned, and belongs to nobody");
            return;
        }
        thread::yield_now();
        self.dirty_folio(block, page);
    }

    /// Takes the entry for 2 MiB out, if it is one.
    pub fn zap_huge(&self, pmd: &mut MutexGuard<'_, Pmd>) {
        match **pmd {
            Pmd::Huge { block, writable } => {
                if writable {
                    self.dirty_folio(block, 0);
                }
                **pmd = Pmd::None;
            }
            Pmd::Zeros if !self.is(Mistake::LeaveZero) => **pmd = Pmd::None,
            Pmd::None | Pmd::Table(_) | Pmd::Zeros => {}
        }
    }

    /// Takes the entries for `pages` out of one page table, and one for all of them. One that is
    /// writable is dirty. One of 2 MiB that goes as a whole is flushed from the TLB only when the
    /// page table is unlocked again; up to then the folio has a reference.
    fn zap_pages(&self, map: usize, pages: &PageSet) {
        let mut pmd = self.maps[map].lock().unwrap();
        let first = pmd.writable(0);
        let stale = first.filter(|_| *pages == PageSet::ALL && matches!(*pmd, Pmd::Huge { .. }));
        if let Some(first) = stale {
            self.device.lock().unwrap().zapped(first);
            *self.tlbs[map].lock().unwrap() = Some(first);
        }
        self.zap_huge(&mut pmd);
        if *pages == PageSet::ALL {
            drop(pmd);
            // Also what another thread has zapped, and not flushed yet.
            *self.tlbs[map].lock().unwrap() = None;
            if let Some(first) = stale {
                self.device.lock().unwrap().flushed(first);
                self.idle.notify_all();
            }
            pmd = self.maps[map].lock().unwrap();
        }
        for page in (0..NR).filter(|page| pages.contains(*page)) {
            let Pmd::Table(ptes) = &mut *pmd else {
                return;
            };
            if ptes[page] == Pte::Zero && self.is(Mistake::LeaveZero) {
                continue;
            }
            if let Pte::Rw(block) = std::mem::replace(&mut ptes[page], Pte::None) {
                self.dirty_folio(block, page);
            }
        }
    }

    /// `unmap_mapping_pages`.
    pub fn unmap_pages(&self, pages: &PageSet) {
        if self.is(Mistake::UnmapNothing) {
            return;
        }
        let linked = |map: &usize| !self.is_unlinked[*map].load(SeqCst);
        let maps = (0..self.maps.len()).filter(linked);
        maps.for_each(|map| self.zap_pages(map, pages));
    }

    /// `munmap` of 2 MiB that are mapped in one piece, while other threads use them: their TLBs are
    /// flushed at the end, when nobody finds the mapping by the file any more.
    pub fn munmap(&self, map: usize) {
        let stale = self.zap_unflushed(map);
        self.is_unlinked[map].store(true, SeqCst);
        thread::yield_now();
        self.flush_zapped(map, stale);
    }

    /// The first half of a zap of 2 MiB that are mapped in one piece: up to where the page table is
    /// unlocked.
    pub fn zap_unflushed(&self, map: usize) -> Option<u64> {
        let mut pmd = self.maps[map].lock().unwrap();
        let stale = pmd.writable(0);
        if let Some(first) = stale {
            self.device.lock().unwrap().zapped(first);
            *self.tlbs[map].lock().unwrap() = Some(first);
        }
        self.zap_huge(&mut pmd);
        stale
    }

    /// The second half: no CPU has the entry in its TLB any more.
    pub fn flush_zapped(&self, map: usize, stale: Option<u64>) {
        *self.tlbs[map].lock().unwrap() = None;
        if let Some(first) = stale {
            self.device.lock().unwrap().flushed(first);
            self.idle.notify_all();
        }
    }

    /// A store instruction of a thread that has the entry in its TLB; without one, it ends. Whether
    /// it updates the timestamps is not checked: it may as well have come before.
    pub fn store_unmapped(&self, map: usize, page: usize) {
        let tlb = self.tlbs[map].lock().unwrap();
        if let Some(first) = *tlb {
            self.change(first + page as u64, None);
        }
    }

    fn change(&self, block: u64, now: Option<u64>) {
        let mut device = self.device.lock().unwrap();
        let block = device.block(block);
        assert!(!block.free, "a store to a freed block");
        let is_known = self.may_tail_change.load(SeqCst);
        assert!(is_known, "a store behind the end would go unnoticed");
        block.cache += 1;
        block.complete = block.cache;
        block.stored = now.unwrap_or(block.stored);
    }

    fn store_to(&self, block: u64) {
        self.change(block, Some(self.tick()));
    }

    /// `madvise(MADV_DONTNEED)` of one page in one mapping.
    pub fn zap(&self, map: usize, page: usize) {
        self.zap_pages(map, &PageSet::range(page, page));
    }

    /// `madvise(MADV_DONTNEED)` of one mapping.
    pub fn discard(&self, map: usize) {
        self.zap_pages(map, &PageSet::ALL);
    }

    /// `munmap`, and `mmap` again.
    pub fn map_anew(&self, map: usize) {
        self.zap_pages(map, &PageSet::ALL);
        *self.maps[map].lock().unwrap() = Pmd::None;
    }

    /// `mapping_wrprotect_range`: a mapping of 2 MiB is protected as a whole, if all of it is given.
    pub fn write_protect_pages(&self, pages: &PageSet) {
        for map in &self.maps {
            let mut pmd = map.lock().unwrap();
            match &mut *pmd {
                Pmd::None | Pmd::Zeros => {}
                Pmd::Huge { writable, .. } => {
                    let is_all = *pages == PageSet::ALL;
                    *writable &= !is_all || self.is(Mistake::ProtectPagesOnly);
                }
                Pmd::Table(ptes) => {
                    for page in (0..NR).filter(|page| pages.contains(*page)) {
                        if let Pte::Rw(block) = ptes[page] {
                            ptes[page] = Pte::Ro(block);
                        }
                    }
                }
            }
        }
    }

    /// A store instruction: retried until no fault stops it, or the file may not be stored to any
    /// more.
    pub fn store(&self, map: usize, page: usize) {
        loop {
            if self.has_chunk {
                let tlb = self.tlbs[map].lock().unwrap();
                if let Some(first) = *tlb {
                    return self.store_to(first + page as u64);
                }
            }
            {
                let pmd = self.maps[map].lock().unwrap();
                if let Some(block) = pmd.writable(page) {
                    return self.store_to(block);
                }
            }
            if !self.fault(map, page, true) {
                return;
            }
        }
    }

    /// A load instruction.
    pub fn load(&self, map: usize, page: usize) {
        self.fault(map, page, false);
    }

    /// O_DIRECT or vmsplice into the mapping: pin, write later, tag, unpin.
    pub fn dma(&self, map: usize, page: usize) {
        self.dma_told(map, page, false);
    }

    /// The same, but the read completes for its waiter before the page is tagged.
    pub fn dma_told_early(&self, map: usize, page: usize) {
        self.dma_told(map, page, true);
    }

    fn dma_told(&self, map: usize, page: usize, early: bool) {
        if let Some(block) = self.pin(map, page) {
            self.end_dma(block, page, early);
        }
    }

    /// Pins a page that can be stored to: its block.
    pub fn pin(&self, map: usize, page: usize) -> Option<u64> {
        loop {
            {
                let pmd = self.maps[map].lock().unwrap();
                if let Some(block) = pmd.writable(page) {
                    self.device.lock().unwrap().block(block).pins += 1;
                    return Some(block);
                }
            }
            if !self.fault(map, page, true) {
                return None;
            }
        }
    }

    /// DMA into the block of `page` that is pinned, and its end.
    pub fn end_dma(&self, at: u64, page: usize, early: bool) {
        thread::yield_now();
        let value = {
            let mut device = self.device.lock().unwrap();
            let block = device.block(at);
            assert!(!block.free, "DMA into a freed block");
            block.cache += 1;
            if early {
                block.complete = block.cache;
            }
            block.cache
        };
        thread::yield_now();
        self.dirty_pinned(at, page);
        let mut device = self.device.lock().unwrap();
        let block = device.block(at);
        block.complete = block.complete.max(value);
        block.pins -= 1;
        self.idle.notify_all();
    }

    /// KVM sets `PG_dirty`, of a page that it has mapped writable.
    pub fn set_pg_dirty(&self, map: usize, page: usize) {
        let pmd = self.maps[map].lock().unwrap();
        if let Some(block) = pmd.writable(page) {
            let mut device = self.device.lock().unwrap();
            for block in device.folio_of(block) {
                device.block(block).has_pg_dirty = true;
            }
        }
    }

    /// Nobody uses the file any more, and its state agrees; if a page is dirty, the mount knows.
    pub fn assert_rest(&self) {
        assert_eq!(self.tracker.in_flight(), 0, "a sync is in flight for ever");
        assert!(
            self.is_noted() || !self.tracker.is_any_marked(),
            "no sync of the mount finds the file"
        );
    }

    /// Whether an entry leads to one of the blocks.
    pub fn is_mapped(&self, blocks: std::ops::Range<u64>) -> bool {
        let leads = |map: &Mutex<Pmd>| map.lock().unwrap().leads_to(blocks.clone());
        self.maps.iter().any(leads)
    }

    /// Whether nobody maps or pins one of the blocks.
    pub fn are_idle(&self, blocks: std::ops::Range<u64>) -> bool {
        let held = |block: u64| self.device.lock().unwrap().is_held(block);
        !self.is_mapped(blocks.clone()) && !blocks.clone().any(held)
    }

    /// No entry can be stored through.
    pub fn assert_no_stores(&self) {
        for map in &self.maps {
            let map = map.lock().unwrap();
            let writable = (0..NR).any(|page| map.writable(page).is_some());
            assert!(!writable, "stores go on");
        }
    }

    /// How often an event has happened.
    pub fn counted(&self, event: Event) -> u64 {
        self.counts.lock().unwrap()[event as usize]
    }

    /// Runs `f`, once, when the module's code begins the next `step`.
    pub fn do_at(&self, step: Step, f: fn(&Machine)) {
        *self.meanwhile.lock().unwrap() = Some((step, f));
    }

    /// The module's code begins a step.
    pub fn begins(&self, step: Step) {
        let is_now = |(at, _): &mut (Step, fn(&Machine))| *at == step;
        let meanwhile = self.meanwhile.lock().unwrap().take_if(is_now);
        if let Some((_, f)) = meanwhile {
            f(self);
        }
    }

    /// Frees a block, which nobody may use any more.
    pub fn free(&self, block: u64) {
        for map in &self.maps {
            let leads = map.lock().unwrap().leads_to(block..block + 1);
            assert!(!leads, "a freed block is still mapped");
        }
        let mut device = self.device.lock().unwrap();
        assert!(!device.is_huge(block), "a freed block is part of a folio");
        let block = device.block(block);
        assert_eq!(block.pins, 0, "a freed block is pinned");
        assert_eq!(block.owner, None, "a freed block belongs to a page");
        block.free = true;
    }
}
