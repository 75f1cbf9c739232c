// SPDX-License-Identifier: GPL-2.0

//! The machine: one file of up to 2 MiB, as the module and the memory manager keep it, and what
//! user space and the memory manager do with it.

use dax_model::track::chunk::{State, Tags, Window};
use dax_model::track::page_set::{PageSet, PAGES};
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use shuttle::thread;

use crate::memory::{Device, Pmd, Pte, NR};
use crate::mistakes::Mistake;

/// The last page of the chunk.
pub const LAST: usize = PAGES - 1;

pub type Chunk = State<Box<[u64; PAGES]>>;

pub struct TagState {
    pub tags: Tags,
    pub windows: Vec<Window>,
    pub next_seq: u64,
}

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
}

pub struct Machine {
    mistake: Mistake,
    pub invalidate: RwLock<()>,
    /// Which block each page of the file has.
    pub extents: Mutex<[Option<u64>; NR]>,
    /// All of the chunk is within the file.
    pub has_chunk: bool,
    pub chunk: Mutex<Chunk>,
    pub tags: Mutex<TagState>,
    pub fenced: Condvar,
    /// How many syncs have failed.
    pub failed: AtomicU64,
    /// The next fence fails.
    pub fence_fails: AtomicBool,
    /// The chunk's mark: read without a lock.
    pub mark: AtomicBool,
    /// How many of the mappings exist; the second may come late.
    pub writable: AtomicU64,
    /// The page table of each mapping.
    pub maps: [Mutex<Pmd>; 2],
    /// A folio of 2 MiB that a CPU may still store to, by an entry of the mapping that was zapped.
    tlbs: [Mutex<Option<u64>>; 2],
    /// Whether the mapping is aligned, so that 2 MiB can be mapped in one piece.
    pub aligned: [bool; 2],
    pub device: Mutex<Device>,
    /// Notified when a pin ends, or a TLB is flushed.
    pub idle: Condvar,
}

impl Machine {
    pub fn new(mistake: Mistake, file: File, aligned: [bool; 2]) -> Arc<Self> {
        let mut device = Device::default();
        let extents = match file {
            File::Pages => [(); NR].map(|()| Some(device.allocate())),
            File::Huge => {
                let first = device.allocate_huge();
                std::array::from_fn(|page| Some(first + page as u64))
            }
            File::Hole | File::HugeHole => [None; NR],
        };
        Arc::new(Machine {
            mistake,
            invalidate: RwLock::new(()),
            extents: Mutex::new(extents),
            has_chunk: matches!(file, File::Huge | File::HugeHole),
            chunk: Mutex::new(State::new()),
            tags: Mutex::new(TagState {
                tags: Tags::new(),
                windows: Vec::new(),
                next_seq: 0,
            }),
            fenced: Condvar::new(),
            failed: AtomicU64::new(0),
            fence_fails: AtomicBool::new(false),
            mark: AtomicBool::new(false),
            writable: AtomicU64::new(2),
            maps: [0, 1].map(|_| Mutex::new(Pmd::None)),
            tlbs: [0, 1].map(|_| Mutex::new(None)),
            aligned,
            device: Mutex::new(device),
            idle: Condvar::new(),
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

    /// `Tracker::tag`; of all pages if `page` is `None`.
    pub fn tag(&self, page: Option<usize>) {
        let mut t = self.tags.lock().unwrap();
        let tagged = match page {
            Some(page) => t.tags.set(page),
            None => t.tags.set_all(),
        };
        if tagged.set_mark {
            self.mark.store(true, SeqCst);
        }
    }

    /// `Tracker::forget`.
    pub fn forget_tags(&self, pages: &PageSet) {
        let mut t = self.tags.lock().unwrap();
        if t.tags.forget(pages) {
            self.mark.store(false, SeqCst);
        }
    }

    /// `dirty_folio`, for the folio of `page` of the file.
    fn dirty_folio(&self, block: u64, page: usize) {
        if self.is(Mistake::IgnoreDma) {
            return;
        }
        let huge = self.device.lock().unwrap().is_huge(block);
        match huge {
            true if self.is(Mistake::DmaTagsFirst) => self.tag(Some(0)),
            true => self.tag(None),
            false => self.tag(Some(page)),
        }
    }

    /// Takes the entry for 2 MiB out, if it is one.
    pub fn zap_huge(&self, pmd: &mut MutexGuard<'_, Pmd>) {
        if let Pmd::Huge { block, writable } = **pmd {
            if writable {
                self.dirty_folio(block, 0);
            }
            **pmd = Pmd::None;
        }
    }

    /// Takes the entries for `pages` out of one page table, and one for all of them. One that is
    /// writable is dirty. One of 2 MiB that goes as a whole is flushed from the TLB only when the page
    /// table is unlocked again; up to then the folio has a reference.
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
            if let Pte::Rw(block) = std::mem::replace(&mut ptes[page], Pte::None) {
                self.dirty_folio(block, page);
            }
        }
    }

    /// `unmap_mapping_pages`.
    pub fn unmap(&self, pages: &PageSet) {
        if pages.is_empty() {
            return;
        }
        (0..self.maps.len()).for_each(|map| self.zap_pages(map, pages));
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

    /// `mapping_wrprotect_range`: a mapping of 2 MiB is protected as a whole.
    pub fn write_protect(&self, pages: &PageSet) {
        for map in &self.maps {
            let mut pmd = map.lock().unwrap();
            match &mut *pmd {
                Pmd::None => {}
                Pmd::Huge { writable, .. } => *writable &= self.is(Mistake::ProtectPagesOnly),
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

    /// A store instruction: retried until no fault stops it.
    pub fn store(&self, map: usize, page: usize) {
        let store = |block: u64| {
            let mut device = self.device.lock().unwrap();
            let block = device.block(block);
            assert!(!block.free, "a store to a freed block");
            block.cache += 1;
            block.complete = block.cache;
        };
        loop {
            if self.has_chunk {
                let tlb = self.tlbs[map].lock().unwrap();
                if let Some(first) = *tlb {
                    return store(first + page as u64);
                }
            }
            {
                let pmd = self.maps[map].lock().unwrap();
                if let Some(block) = pmd.writable(page) {
                    return store(block);
                }
            }
            self.fault(map, page, true);
        }
    }

    /// O_DIRECT or vmsplice into the mapping: pin, write later, tag, unpin.
    pub fn dma(&self, map: usize, page: usize) {
        let at = loop {
            {
                let pmd = self.maps[map].lock().unwrap();
                if let Some(block) = pmd.writable(page) {
                    self.device.lock().unwrap().block(block).pins += 1;
                    break block;
                }
            }
            self.fault(map, page, true);
        };
        thread::yield_now();
        let value = {
            let mut device = self.device.lock().unwrap();
            let block = device.block(at);
            assert!(!block.free, "DMA into a freed block");
            block.cache += 1;
            block.cache
        };
        self.dirty_folio(at, page);
        let mut device = self.device.lock().unwrap();
        let block = device.block(at);
        block.complete = block.complete.max(value);
        block.pins -= 1;
        self.idle.notify_all();
    }

    /// Whether no entry leads to the pages of the folio of 2 MiB at `first`, or that may become it.
    fn is_unmapped(&self, first: u64) -> bool {
        let blocks = first..first + NR as u64;
        let leads = |map: &Mutex<Pmd>| map.lock().unwrap().leads_to(blocks.clone());
        !self.maps.iter().any(leads)
    }

    /// Whether nobody holds one of those pages but by an entry.
    pub fn is_free(&self, first: u64) -> bool {
        let device = self.device.lock().unwrap();
        (first..first + NR as u64).all(|block| !device.is_held(block))
    }

    /// Whether the reference count of all of them is 0.
    pub fn is_idle(&self, first: u64) -> bool {
        self.is_unmapped(first) && self.is_free(first)
    }

    /// `Page::make_huge` of the 2 MiB at `first`, and `Page::reset`.
    pub fn set_folio(&self, first: u64, folio: bool) {
        assert!(
            self.is_idle(first),
            "a folio made or taken apart while in use"
        );
        self.device.lock().unwrap().set_folio(first, folio);
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
        block.free = true;
    }
}
