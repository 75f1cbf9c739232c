// SPDX-License-Identifier: GPL-2.0

//! What the module's code asks of the machine: page tables, folios, cache lines, blocks.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use crate::track::ahead::Ask;
use crate::track::fault::{self, Outcome};
use crate::track::machine::{
    Blocks, Device, Event, Examined, Failure, Fault, FaultsOut, Fingerprints, Machine as Model,
};
use crate::track::page_set::{PageSet, PAGES};
use crate::track::windows;
use crate::volume::alloc::Run;
use crate::volume::file::Map;
use shuttle::sync::atomic::Ordering::SeqCst;
use shuttle::sync::{MutexGuard, RwLockWriteGuard};
use shuttle::thread;

use super::machine::{Machine, Step, LAST};
use super::memory::{nth, Pmd, Pte, FIRST, NR};
use super::mistakes::Mistake;
use super::scenes::maps_ahead;
use super::tracking::{Chunk, Tracker};

/// What is in the cache. Pages without a block in the model are stored to together with one that
/// has: each half of the chunk with one.
struct Contents<'m>(&'m Machine);

impl Fingerprints for Contents<'_> {
    fn of(&mut self, block: u64) -> Option<u64> {
        let nth = block as usize % PAGES;
        let stored = if nth < NR { nth } else { nth * NR / PAGES };
        let block = block - (nth - stored) as u64;
        Some(self.0.device.lock().unwrap().block(block).cache)
    }
}

/// The blocks of the file, locked.
pub struct Extents<'m> {
    machine: &'m Machine,
    extents: MutexGuard<'m, [Option<u64>; NR]>,
}

impl Blocks for Extents<'_> {
    type Error = Failure;

    fn find(&mut self, page: u64, len: u64) -> Result<Map, Failure> {
        let me = thread::current().id();
        let is_unwritten = self.machine.is_unwritten.load(SeqCst);
        let seen = self.machine.seen.lock().unwrap();
        let early = seen.iter().find(|(id, _)| *id == me);
        let extents = match early {
            Some((_, early)) if self.machine.is(Mistake::LookupEarly) => early,
            _ => &*self.extents,
        };
        let page = nth(page);
        let first = extents[page];
        let follows = |nth: usize| extents[nth] == first.map(|block| block + nth as u64);
        let all = self.machine.has_chunk && page == 0 && (0..NR).all(follows);
        let len = if all { len } else { 1 };
        Ok(match first {
            Some(block) if is_unwritten => Map::Unwritten { block, len },
            Some(block) => Map::Run { block, len },
            None => Map::Hole { len },
        })
    }

    fn fill(&mut self, page: u64, least: u64, len: u64) -> Result<Run, Failure> {
        assert!(
            len > 0 && page + len <= self.machine.pages(),
            "past the end of the file"
        );
        if let Some(block) = self.extents[nth(page)] {
            let len = if len == PAGES as u64 { len } else { 1 };
            assert!(
                !self.machine.is_bad(block, len),
                "a bad block that read as zeros becomes data"
            );
            self.machine.is_unwritten.store(false, SeqCst);
            return Ok(Run { block, len });
        }
        let is_fragmented = self.machine.is_fragmented.load(SeqCst);
        let left = &self.machine.left;
        let free = left.load(SeqCst);
        if free < least || (is_fragmented && least > 1) {
            return Err(Failure::Device);
        }
        let is_whole = len == PAGES as u64 && *self.extents == [None; NR];
        if is_whole && free >= len && !is_fragmented {
            left.fetch_sub(len, SeqCst);
            let block = self.machine.allocate_huge();
            *self.extents = std::array::from_fn(|page| Some(block + page as u64));
            return Ok(Run { block, len });
        }
        assert_eq!(
            least, 1,
            "no page of the model has others before it but in a chunk"
        );
        left.fetch_sub(1, SeqCst);
        let block = self.machine.allocate();
        self.extents[nth(page)] = Some(block);
        Ok(Run { block, len: 1 })
    }

    /// One at a time.
    fn fill_all(&mut self, page: u64, len: u64) -> Result<u64, Failure> {
        if self.machine.cannot_fill_all.load(SeqCst) {
            return Err(Failure::Device);
        }
        if self.extents[nth(page)].is_none() {
            self.fill(page, 1, len)?;
        }
        Ok(1)
    }
}

impl Device for Machine {
    fn access(&self) -> Option<impl Sized + '_> {
        let access = self.access.read().unwrap();
        (!self.has_ended.load(SeqCst)).then_some(access)
    }

    fn has_write_cache(&self) -> bool {
        self.has_cache.load(SeqCst)
    }

    fn write_back(&self, block: u64, len: u64) {
        for block in (block..block + len).filter(|block| *block as usize % PAGES < NR) {
            let mut device = self.device.lock().unwrap();
            let content = device.block(block);
            assert!(!content.free, "a freed block written back");
            let line = (thread::current().id(), block, content.cache);
            self.under_way.lock().unwrap().push(line);
        }
    }

    fn fence(&self) -> Result<(), Failure> {
        let me = thread::current().id();
        let mut mine = Vec::new();
        self.under_way.lock().unwrap().retain(|line| {
            let (id, block, content) = *line;
            if id == me {
                mine.push((block, content));
            }
            id != me
        });
        if self.fence_fails.swap(false, SeqCst) {
            self.lost.fetch_add(1, SeqCst);
            return Err(Failure::Device);
        }
        for (block, value) in mine {
            let mut device = self.device.lock().unwrap();
            let media = &mut device.block(block).media;
            *media = value.max(*media);
        }
        Ok(())
    }

    fn fingerprints(&self) -> impl Fingerprints + '_ {
        Contents(self)
    }

    fn is_idle(&self, block: u64) -> bool {
        let folio = self.device.lock().unwrap().folio_of(block);
        match self.mistake() {
            Mistake::PinnedIsIdle => !self.is_mapped(folio),
            _ => self.are_idle(folio),
        }
    }

    fn is_held(&self, block: u64) -> bool {
        !self.is(Mistake::NotHeld) && self.device.lock().unwrap().is_held(block)
    }

    fn forget_dirty(&self, block: u64) {
        let mut device = self.device.lock().unwrap();
        for block in device.folio_of(block) {
            device.block(block).has_pg_dirty = false;
        }
    }

    fn is_bad(&self, block: u64, len: u64) -> bool {
        (block..block + len).contains(&self.bad.load(SeqCst))
    }

    fn is_aligned(&self, block: u64) -> bool {
        self.is_aligned && block % PAGES as u64 == 0
    }

    fn is_huge(&self, block: u64) -> bool {
        self.device.lock().unwrap().is_huge(block)
    }

    fn wait_idle(&self, block: u64) {
        let mut device = self.device.lock().unwrap();
        while device.is_held(block) {
            device = self.idle.wait(device).unwrap();
            let is_removed = self.is_removed.load(SeqCst);
            assert!(!is_removed, "a page that is gone is waited for");
        }
    }

    fn reset(&self, block: u64) {
        let folio = self.device.lock().unwrap().folio_of(block);
        assert!(
            self.are_idle(folio.clone()),
            "a folio or page is taken from its file while in use"
        );
        let mut device = self.device.lock().unwrap();
        if device.is_huge(block) {
            device.set_folio(block, false);
        }
        folio.for_each(|block| device.block(block).owner = None);
        drop(device);
        if self.is(Mistake::SplitDropsTags) {
            self.drop_tags();
        }
    }
}

impl Model for Machine {
    type Tracker = Tracker;
    type Device = Machine;
    type Error = Failure;
    type Blocks<'a> = Extents<'a>;

    fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    fn device(&self) -> &Machine {
        self
    }

    fn count(&self, event: Event, nr: u64) {
        self.counts.lock().unwrap()[event as usize] += nr;
    }

    fn linger(&self) {
        thread::yield_now();
    }

    fn is_writably_mapped(&self) -> bool {
        self.tracker.is_writable()
    }

    fn locked(&self, _first: u64, writable: bool) -> PageSet {
        let is_to_be_read = !writable && self.tracker.is_locked_to_read.load(SeqCst);
        match is_to_be_read || self.tracker.is_locked.load(SeqCst) {
            true => PageSet::ALL,
            false => PageSet::EMPTY,
        }
    }

    fn write_protect(&self, page: u64, block: u64, len: usize) {
        self.begins(Step::WriteProtect);
        let page = nth(page);
        for nth in (page..page + len).filter(|page| *page < NR) {
            let mapped = block + (nth - page) as u64;
            let extents = self.extents.lock().unwrap();
            assert_eq!(extents[nth], Some(mapped), "another block is protected");
        }
        let mut pages = PageSet::range(page, page + len - 1);
        if self.is(Mistake::CoolUnprotected) {
            pages.remove_all(&self.tracker.was_hot.lock().unwrap());
        }
        self.write_protect_pages(&pages);
    }

    fn unmap(&self, first: u64, last: u64) {
        self.begins(Step::Unmap);
        if last < FIRST {
            return;
        }
        let (first, last) = (nth(first.max(FIRST)), nth(last).min(LAST));
        self.unmap_pages(&PageSet::range(first, last));
    }

    fn is_of_another(&self, block: u64, page: u64) -> bool {
        let owner = self.device.lock().unwrap().block(block).owner;
        let another = owner.is_some_and(|owner| owner != page);
        let is_damaged = self.is_damaged.load(SeqCst);
        assert!(!another || is_damaged, "a block is used twice");
        another
    }

    fn associate(&self, block: u64, page: u64) -> bool {
        if nth(page) >= NR {
            return false;
        }
        let mut device = self.device.lock().unwrap();
        let block = device.block(block);
        let owner = block.owner.replace(page);
        assert_eq!(owner, None, "the page belongs to the file already");
        std::mem::replace(&mut block.has_pg_dirty, false)
    }

    fn is_not_idle(&self) {
        panic!("a folio that is not idle is taken apart");
    }

    fn dissociate(&self, block: u64) {
        self.reset(block);
    }

    fn leave_behind(&self, block: u64) -> bool {
        if self.device().is_idle(block) {
            self.reset(block);
            return true;
        }
        let _locked = match self.mistake() {
            Mistake::DissociateUnlocked => None,
            _ => Some(self.page_lock.lock().unwrap()),
        };
        let mut device = self.device.lock().unwrap();
        for block in device.folio_of(block) {
            device.block(block).owner = None;
        }
        false
    }

    fn examine(&self, block: u64) -> Examined {
        let blocks = block..block + NR as u64;
        let is_dirty = |block| self.device.lock().unwrap().block(block).has_pg_dirty;
        Examined {
            free: self.is(Mistake::JoinMapped) || self.are_idle(blocks.clone()),
            dirty: blocks.into_iter().any(is_dirty),
        }
    }

    fn make_huge(&self, block: u64, page: u64) {
        assert!(self.is_aligned(block), "a folio is not aligned");
        let blocks = block..block + NR as u64;
        assert!(
            self.are_idle(blocks.clone()),
            "a folio is made of pages in use"
        );
        let mut device = self.device.lock().unwrap();
        device.set_folio(block, true);
        for (nth, block) in blocks.enumerate() {
            device.block(block).owner = Some(page + nth as u64);
        }
        drop(device);
        if self.is(Mistake::JoinDropsTags) {
            self.drop_tags();
        }
    }

    fn adopt_huge(&self, block: u64, page: u64) {
        let mut device = self.device.lock().unwrap();
        for (nth, block) in device.folio_of(block).enumerate() {
            let block = device.block(block);
            block.has_pg_dirty = false;
            let owner = block.owner.replace(page + nth as u64);
            assert_eq!(owner, None, "the folio belongs to a file already");
        }
    }

    fn wait_idle(&self, block: u64) -> Result<(), Failure> {
        if self.is_interrupted.swap(false, SeqCst) {
            return Err(Failure::Device);
        }
        Device::wait_idle(self, block);
        Ok(())
    }

    fn pages(&self) -> u64 {
        FIRST + if self.has_chunk { PAGES } else { NR } as u64
    }

    fn touch(&self) {
        self.moved.fetch_max(self.tick(), SeqCst);
        self.life.are_times_dirty.store(true, SeqCst);
    }

    fn tail_may_change(&self) {
        self.may_tail_change.store(true, SeqCst);
    }

    fn stores_are_lost(&self) {
        self.told.store(true, SeqCst);
    }

    fn write_times(&self) -> Result<(), Failure> {
        self.life.are_times_dirty.store(false, SeqCst);
        Ok(())
    }

    fn note(&self) {
        self.note_dirty();
    }

    fn own(&self) {
        self.begins(Step::Own);
        self.life.is_owner.store(true, SeqCst);
    }

    fn is_owner(&self) -> bool {
        self.life.is_owner.load(SeqCst)
    }

    fn disown(&self) {
        self.life.is_owner.store(false, SeqCst);
    }

    fn blocks(&self) -> Extents<'_> {
        Extents {
            machine: self,
            extents: self.extents.lock().unwrap(),
        }
    }

    fn is_space_scarce(&self) -> bool {
        self.left.load(SeqCst) < PAGES as u64
    }

    /// As if the file were written from one end to the other, or not at all so. A file without a
    /// chunk is asked for more than there is, on both sides.
    fn ask(&self, page: u64) -> Ask {
        match self.fills_ahead.load(SeqCst) {
            true if self.has_chunk => Ask::chunk(page),
            true => {
                let mut ask = Ask::page(page);
                ask.pages = FIRST - 5..self.pages() + 5;
                ask
            }
            false => Ask::page(page),
        }
    }

    fn filled(&self, _ask: &Ask, _first: u64, _len: u64) {}

    fn check_usable(&self, write: bool) -> Result<(), Failure> {
        let is_usable = match write {
            true => self.may_store.load(SeqCst),
            false => !self.is_gone.load(SeqCst),
        };
        is_usable.then_some(()).ok_or(Failure::Device)
    }

    fn is_freezing(&self) -> bool {
        self.life.is_freezing.load(SeqCst)
    }

    fn keep_thawed(&self) -> impl Sized + '_ {
        self.frozen.read().unwrap()
    }

    fn keep_blocks(&self) -> impl Sized + '_ {
        let guard = self.invalidate.read().unwrap();
        let me = thread::current().id();
        let extents = *self.extents.lock().unwrap();
        let mut seen = self.seen.lock().unwrap();
        seen.retain(|(id, _)| *id != me);
        seen.push((me, extents));
        guard
    }

    fn try_keep_faults_out(&self) -> Option<impl Sized + '_> {
        self.invalidate.try_write().ok()
    }

    fn without_reclaim<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    fn make_chunk(&self, _index: u64) -> Result<(), Failure> {
        self.may_fail()?;
        self.tracker.make();
        Ok(())
    }

    fn use_chunk(&self, _chunk: &Chunk) {}

    fn table(&self) -> Result<Box<[u64; PAGES]>, Failure> {
        self.may_fail()?;
        Ok(Box::new([0; PAGES]))
    }

    fn table_at_once(&self) -> Option<Box<[u64; PAGES]>> {
        self.may_fail().ok()?;
        Some(Box::new([0; PAGES]))
    }
}

impl Machine {
    fn may_fail(&self) -> Result<(), Failure> {
        match self.fails.swap(false, SeqCst) {
            true => Err(Failure::Device),
            false => Ok(()),
        }
    }

    fn drop_tags(&self) {
        let chunk = self.tracker.any_chunk();
        windows::forget(&self.tracker, chunk, &PageSet::ALL);
    }

    fn access(&self, map: usize, page: usize, write: bool) -> Access<'_> {
        Access {
            machine: self,
            map,
            page,
            late: RefCell::new(None),
            times_moved: Cell::new(false),
            write,
        }
    }

    /// What it does for a store to a private mapping; returns whether it can insert a copy. It
    /// removes 2 MiB without asking; `meanwhile` others may have mapped them again.
    pub fn copy(&self, map: usize, page: usize, meanwhile: impl Fn()) -> bool {
        self.zap_huge(&mut self.maps[map].lock().unwrap());
        meanwhile();
        let fault = self.access(map, page, true);
        let outcome = fault::read(&fault);
        meanwhile();
        let is_table = matches!(*self.maps[map].lock().unwrap(), Pmd::Table(_));
        outcome == Ok(Outcome::Inserted(())) && is_table
    }

    /// What the memory manager does about an access that finds no entry, or, if `write`, none that
    /// is writable: it tries 2 MiB first, where no table of pages is. False for SIGBUS.
    pub fn fault(&self, map: usize, page: usize, write: bool) -> bool {
        let fault = self.access(map, page, write);
        self.faults[map].fetch_add(1, SeqCst);
        if self.aligned[map] {
            let seen = *self.maps[map].lock().unwrap();
            let is_locked = map == 0 && self.tracker.is_locked.load(SeqCst);
            match seen {
                Pmd::None if is_locked => {}
                Pmd::Huge { writable, .. } if writable || !write => return true,
                Pmd::Zeros if !write => return true,
                Pmd::None | Pmd::Huge { .. } | Pmd::Zeros => {
                    let outcome = match write {
                        true => fault::write_huge(&fault),
                        false => fault::read_huge(&fault),
                    };
                    if let Ok(Outcome::Inserted(())) = outcome {
                        return true;
                    }
                    // As `__split_huge_pmd` does for files.
                    self.zap_huge(&mut self.maps[map].lock().unwrap());
                }
                Pmd::Table(_) => {}
            }
        }
        let outcome = match write {
            true => fault::write(&fault),
            false => fault::read(&fault),
        };
        if let Some((block, write)) = fault.late.take() {
            fault.insert_now(block, write);
        }
        match outcome {
            Ok(Outcome::Inserted(()) | Outcome::Again) => true,
            // SIGBUS.
            Ok(Outcome::Poisoned | Outcome::PastEnd) => false,
            Ok(Outcome::ByPages) => panic!("2 MiB were not asked for"),
            Err(_) => false,
        }
    }
}

/// An access that faults.
struct Access<'m> {
    machine: &'m Machine,
    map: usize,
    page: usize,
    /// What is inserted when the handler has returned.
    late: RefCell<Option<(u64, bool)>>,
    times_moved: Cell<bool>,
    /// It is a store.
    write: bool,
}

impl Access<'_> {
    /// The times that the fault has moved are those of the store that it is for, though a sync may
    /// have come between.
    fn is_about_to_store(&self) {
        if self.times_moved.get() {
            self.machine.touch();
        }
    }

    fn assert_not_bad(&self, block: u64, len: u64) {
        let known = self.machine.is_bad_known.load(SeqCst);
        assert!(
            !known || !self.machine.is_bad(block, len),
            "a bad block is mapped"
        );
    }

    /// `vmf_insert_page_mkwrite`.
    fn insert_now(&self, block: u64, write: bool) {
        assert!(
            !write || self.times_moved.get(),
            "a store would move no time"
        );
        self.assert_not_bad(block, 1);
        self.is_about_to_store();
        let mut pmd = self.machine.maps[self.map].lock().unwrap();
        let pte = pmd.pte(self.page);
        match *pte {
            Pte::Zero => panic!("a block inserted over the zero page"),
            Pte::None | Pte::Ro(_) if write => *pte = Pte::Rw(block),
            Pte::None => *pte = Pte::Ro(block),
            _ => {}
        }
    }
}

impl Fault for Access<'_> {
    type File = Machine;
    type Inserted = ();

    fn file(&self) -> &Machine {
        self.machine
    }

    fn page(&self) -> u64 {
        FIRST + self.page as u64
    }

    fn is_write(&self) -> bool {
        self.write
    }

    fn update_time(&self) -> Result<(), Failure> {
        self.machine.may_fail()?;
        self.machine.touch();
        self.times_moved.set(true);
        Ok(())
    }

    fn is_mapped_huge(&self) -> bool {
        let pmd = self.machine.maps[self.map].lock().unwrap();
        let is_huge = matches!(*pmd, Pmd::Huge { .. } | Pmd::Zeros);
        is_huge && !self.machine.is(Mistake::PageUnderHuge)
    }

    fn is_unmapped_huge(&self) -> bool {
        *self.machine.maps[self.map].lock().unwrap() == Pmd::None
    }

    fn prepare(&self) {
        self.machine.maps[self.map].lock().unwrap().pte(self.page);
    }

    fn insert(&self, block: u64, write: bool) {
        if self.machine.is(Mistake::InsertAfterUnlock) {
            *self.late.borrow_mut() = Some((block, write));
        } else {
            self.insert_now(block, write);
        }
    }

    fn ahead(&self, _row: usize) -> usize {
        let is_locked = self.map == 0 && self.machine.tracker.is_locked.load(SeqCst);
        usize::from(maps_ahead() && !is_locked)
    }

    fn neighbours(&self) -> Range<u64> {
        FIRST..FIRST + NR as u64
    }

    fn insert_writable(&self, page: u64, block: u64, len: usize) {
        let first = nth(page);
        for nth in 0..len {
            let block = block + nth as u64;
            assert!(self.write, "a load has pages mapped to be stored to");
            assert!(self.times_moved.get(), "a store would move no time");
            self.assert_not_bad(block, 1);
            self.is_about_to_store();
            let mut pmd = self.machine.maps[self.map].lock().unwrap();
            let pte = pmd.pte(first + nth);
            match *pte {
                Pte::Zero => panic!("a block inserted over the zero page"),
                Pte::None => *pte = Pte::Rw(block),
                Pte::Ro(there) | Pte::Rw(there) => {
                    assert_eq!(there, block);
                    *pte = Pte::Rw(block);
                }
            }
        }
    }

    fn insert_zero(&self) {
        let mut pmd = self.machine.maps[self.map].lock().unwrap();
        let pte = pmd.pte(self.page);
        if *pte == Pte::None {
            *pte = Pte::Zero;
        }
    }

    /// `vmf_insert_folio_pmd`.
    fn insert_huge(&self, first: u64, write: bool) {
        assert!(
            !write || self.times_moved.get(),
            "a store would move no time"
        );
        self.assert_not_bad(first, NR as u64);
        self.is_about_to_store();
        let mut pmd = self.machine.maps[self.map].lock().unwrap();
        match &mut *pmd {
            Pmd::Table(_) => panic!("2 MiB mapped in one piece where a table of pages is"),
            Pmd::Zeros => panic!("blocks inserted over zeros"),
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

    fn insert_huge_zero(&self) -> Option<()> {
        self.machine.may_fail().ok()?;
        let mut pmd = self.machine.maps[self.map].lock().unwrap();
        match *pmd {
            Pmd::None => *pmd = Pmd::Zeros,
            Pmd::Zeros => {}
            Pmd::Table(_) => panic!("2 MiB of zeros mapped where a table of pages is"),
            Pmd::Huge { .. } => panic!("zeros mapped over blocks"),
        }
        Some(())
    }
}

/// The invalidate lock, held exclusively.
pub struct Invalidate<'m> {
    machine: &'m Machine,
    guard: Option<RwLockWriteGuard<'m, ()>>,
}

impl<'m> Invalidate<'m> {
    pub fn new(machine: &'m Machine) -> Self {
        Invalidate {
            machine,
            guard: Some(machine.invalidate.write().unwrap()),
        }
    }
}

impl FaultsOut for Invalidate<'_> {
    fn unlocked<R>(&mut self, f: impl FnOnce() -> R) -> R {
        drop(self.guard.take());
        let result = f();
        self.guard = Some(self.machine.invalidate.write().unwrap());
        result
    }
}
