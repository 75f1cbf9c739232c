// SPDX-License-Identifier: GPL-2.0

//! A file of three chunks with all its pages, mapped twice, and used by one thread.
//!
//! It checks what it is asked for: that a lock is held, a block is the file's, a page is idle.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use dax_model::model::tracking::Windows;
use dax_model::track::ahead::Ask;
use dax_model::track::chunk::{State, Tags};
use dax_model::track::fault::{self, Outcome};
use dax_model::track::machine::{
    Blocks, Device, Event, Examined, Failure, Fault, FaultsOut, Fingerprints, Machine, Tracking,
};
use dax_model::track::page_set::{PageSet, PAGES};
use dax_model::track::place::{split, Place};
use dax_model::track::sync;
use dax_model::track::windows::Syncs;
use dax_model::volume::alloc::Run;
use dax_model::volume::file::Map;

/// Pages of a chunk.
pub const CHUNK: u64 = PAGES as u64;
/// Chunks of the file.
const CHUNKS: usize = 3;
/// A page of no file.
const ELSEWHERE: u64 = u64::MAX;

type Table = Box<[u64; PAGES]>;

/// What the file has for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Has {
    Hole,
    Unwritten(u64),
    Data(u64),
}

impl Has {
    /// What follows it in the same extent, `n` pages on.
    pub fn plus(self, n: u64) -> Self {
        match self {
            Has::Hole => Has::Hole,
            Has::Unwritten(block) => Has::Unwritten(block + n),
            Has::Data(block) => Has::Data(block + n),
        }
    }
}

/// An entry of a page table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pte {
    Zero,
    Ro(u64),
    Rw(u64),
}

/// An entry for 2 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pmd {
    Zeros,
    Huge { block: u64, writable: bool },
}

/// The page table of one mapping.
#[derive(Default)]
struct PageTable {
    ptes: BTreeMap<u64, Pte>,
    pmds: BTreeMap<u64, Pmd>,
    /// Chunks with a table of entries of pages.
    tables: BTreeSet<u64>,
    /// Pages with a marker of userfaultfd.
    markers: BTreeSet<u64>,
}

impl PageTable {
    /// The block that `page` leads to.
    fn block(&self, page: u64) -> Option<u64> {
        let (index, nth) = split(page);
        match (self.pmds.get(&index), self.ptes.get(&page)) {
            (Some(Pmd::Huge { block, .. }), _) => Some(block + nth as u64),
            (_, Some(Pte::Ro(block) | Pte::Rw(block))) => Some(*block),
            _ => None,
        }
    }

    fn is_writable(&self, page: u64) -> bool {
        let pmd = self.pmds.get(&split(page).0);
        matches!(pmd, Some(Pmd::Huge { writable: true, .. }))
            || matches!(self.ptes.get(&page), Some(Pte::Rw(_)))
    }
}

pub struct Chunk {
    place: Place,
    is_made: Cell<bool>,
    state: RefCell<State<Table>>,
    mark: Cell<bool>,
}

/// What the tag lock guards.
pub struct TagState {
    tags: [Tags; CHUNKS],
    syncs: Syncs<Windows>,
}

pub struct Tracker {
    chunks: [Chunk; CHUNKS],
    tags: RefCell<TagState>,
    in_flight: Cell<u32>,
    failed: Cell<u32>,
    /// How many keep the chunks: by [`Tracking::stay`], or by the invalidate lock.
    keepers: Cell<u32>,
}

/// Counts one holder as long as it exists.
pub struct Count<'a>(&'a Cell<u32>);

impl<'a> Count<'a> {
    fn new(cell: &'a Cell<u32>) -> Self {
        cell.set(cell.get() + 1);
        Count(cell)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The extents of the file, locked.
pub struct Extents<'a>(&'a World, RefMut<'a, Vec<Has>>);

pub struct World {
    pub tracker: Tracker,
    extents: RefCell<Vec<Has>>,
    /// Pages that begin an extent, even if it continues the one before.
    pub cuts: RefCell<BTreeSet<u64>>,
    /// The size of the file in pages.
    pub pages: Cell<u64>,
    maps: RefCell<[PageTable; 2]>,
    /// What was taken from the page tables, in order.
    pub unmapped: RefCell<Vec<(u64, u64)>>,
    /// The pages that the page table of any address has.
    pub reach: RefCell<Range<u64>>,
    /// Nothing is mapped ahead in the first mapping.
    pub is_watched: Cell<bool>,
    pub is_locked: Cell<bool>,

    /// The next block that is allocated, how many are free, and how many of them follow each other.
    next: Cell<u64>,
    pub free: Cell<u64>,
    pub piece: Cell<u64>,
    pub is_scarce: Cell<bool>,
    /// How many pages [`Blocks::fill_all`] can fill.
    pub fills_all: Cell<u64>,
    /// What the next stores to holes ask for, instead of one page.
    pub asks: RefCell<Option<Ask>>,
    /// What was [filled](Machine::filled) last.
    pub filled: RefCell<Option<(Ask, u64, u64)>>,

    pub bad: RefCell<BTreeSet<u64>>,
    pub pins: RefCell<BTreeSet<u64>>,
    folios: RefCell<BTreeSet<u64>>,
    /// The page that each block belongs to.
    owners: RefCell<BTreeMap<u64, u64>>,
    stores: Cell<u64>,
    content: RefCell<BTreeMap<u64, u64>>,
    pub has_cache: Cell<bool>,
    pub fence_fails: Cell<bool>,
    pub is_gone: Cell<bool>,
    pub is_usable: Cell<bool>,
    pub times_fail: Cell<bool>,
    pub no_memory: Cell<bool>,
    /// Attempts to make a chunk.
    pub attempts: Cell<u32>,
    /// How often chunks were used again, and tables allocated.
    pub uses: Cell<u32>,
    pub tables: Cell<u32>,
    is_owner: Cell<bool>,
    pub was_told: Cell<bool>,
    /// How often a sync, or the end of a page's heat, moved the times.
    pub touched: Cell<u32>,
    pub was_not_idle: Cell<bool>,
    pub counts: RefCell<Vec<(Event, u64)>>,
}

impl World {
    /// A hole of three chunks.
    pub fn new() -> Self {
        let chunk = |index: usize| Chunk {
            place: Place::new(index as u64),
            is_made: Cell::new(false),
            state: RefCell::new(State::new()),
            mark: Cell::new(false),
        };
        let syncs = Syncs::new(Windows::default());
        let tags = [const { Tags::new() }; CHUNKS];
        World {
            tracker: Tracker {
                chunks: std::array::from_fn(chunk),
                tags: RefCell::new(TagState { tags, syncs }),
                in_flight: Cell::new(0),
                failed: Cell::new(0),
                keepers: Cell::new(0),
            },
            extents: RefCell::new(vec![Has::Hole; CHUNKS * PAGES]),
            cuts: Default::default(),
            pages: Cell::new(CHUNKS as u64 * CHUNK),
            maps: Default::default(),
            unmapped: Default::default(),
            reach: RefCell::new(0..CHUNKS as u64 * CHUNK),
            is_watched: Cell::new(false),
            is_locked: Cell::new(false),
            next: Cell::new(100 * CHUNK + 7),
            free: Cell::new(1 << 20),
            piece: Cell::new(1 << 20),
            is_scarce: Cell::new(false),
            fills_all: Cell::new(u64::MAX),
            asks: Default::default(),
            filled: Default::default(),
            bad: Default::default(),
            pins: Default::default(),
            folios: Default::default(),
            owners: Default::default(),
            stores: Cell::new(0),
            content: Default::default(),
            has_cache: Cell::new(true),
            fence_fails: Cell::new(false),
            is_gone: Cell::new(false),
            is_usable: Cell::new(true),
            times_fail: Cell::new(false),
            no_memory: Cell::new(false),
            attempts: Cell::new(0),
            uses: Cell::new(0),
            tables: Cell::new(0),
            is_owner: Cell::new(false),
            was_told: Cell::new(false),
            touched: Cell::new(0),
            was_not_idle: Cell::new(false),
            counts: Default::default(),
        }
    }

    /// The file has, from `page` on, `len` pages of an extent that begins with `has`.
    pub fn with(self, page: u64, len: u64, has: Has) -> Self {
        self.set(page, len, has);
        self
    }

    pub fn set(&self, page: u64, len: u64, has: Has) {
        let mut extents = self.extents.borrow_mut();
        (0..len).for_each(|n| extents[(page + n) as usize] = has.plus(n));
    }

    pub fn has(&self, page: u64) -> Has {
        self.extents.borrow()[page as usize]
    }

    /// The block belongs to another file.
    pub fn give_away(&self, block: u64) {
        self.owners.borrow_mut().insert(block, ELSEWHERE);
    }

    /// The page that a block belongs to.
    pub fn owner(&self, block: u64) -> Option<u64> {
        self.owners.borrow().get(&block).copied()
    }

    pub fn pte(&self, map: usize, page: u64) -> Option<Pte> {
        self.maps.borrow()[map].ptes.get(&page).copied()
    }

    pub fn pmd(&self, map: usize, index: u64) -> Option<Pmd> {
        self.maps.borrow()[map].pmds.get(&index).copied()
    }

    /// The pages that a mapping can store to by entries of pages.
    pub fn writable(&self, map: usize) -> BTreeSet<u64> {
        let maps = self.maps.borrow();
        let is_writable = |(page, pte): (&u64, &Pte)| matches!(pte, Pte::Rw(_)).then_some(*page);
        maps[map].ptes.iter().filter_map(is_writable).collect()
    }

    /// Userfaultfd write-protects a page that is not mapped.
    pub fn mark(&self, map: usize, page: u64) {
        self.maps.borrow_mut()[map].markers.insert(page);
    }

    /// The mapping is made anew.
    pub fn map_anew(&self, map: usize) {
        self.zap(map, 0, u64::MAX);
        self.maps.borrow_mut()[map] = PageTable::default();
    }

    /// A fault of a page.
    pub fn fault(&self, map: usize, page: u64, write: bool) -> Result<Outcome<()>, Failure> {
        let access = Access::new(self, map, page, write);
        match write {
            true => fault::write(&access),
            false => fault::read(&access),
        }
    }

    /// A fault of 2 MiB.
    pub fn fault_huge(&self, map: usize, page: u64, write: bool) -> Result<Outcome<()>, Failure> {
        let access = Access::new(self, map, page, write);
        match write {
            true => fault::write_huge(&access),
            false => fault::read_huge(&access),
        }
    }

    /// A load instruction, in a mapping that is mapped by pages.
    pub fn load(&self, map: usize, page: u64) {
        assert_eq!(self.fault(map, page, false), Ok(Outcome::Inserted(())));
    }

    /// A store instruction, likewise; returns whether it took a fault.
    pub fn store(&self, map: usize, page: u64) -> bool {
        let faults = !self.maps.borrow()[map].is_writable(page);
        if faults {
            assert_eq!(self.fault(map, page, true), Ok(Outcome::Inserted(())));
        }
        let maps = self.maps.borrow();
        assert!(maps[map].is_writable(page), "a store faults for ever");
        let block = maps[map].block(page).unwrap();
        self.stores.set(self.stores.get() + 1);
        self.content.borrow_mut().insert(block, self.stores.get());
        faults
    }

    pub fn sync(&self) -> Result<(), Failure> {
        sync::sync_range(self, 0, u64::MAX)
    }

    /// Which pages of the chunk are dirty.
    pub fn dirty(&self, index: usize) -> PageSet {
        *self.tracker.tags.borrow().tags[index]
            .dirty_in(&PageSet::ALL)
            .pages()
    }

    pub fn chunk(&self, index: u64) -> &Chunk {
        self.tracker.chunk(index).expect("no fault made it")
    }

    /// What the lock of the chunk guards.
    pub fn state(&self, index: u64) -> RefMut<'_, State<Table>> {
        self.chunk(index).state.borrow_mut()
    }

    /// Each page that a chunk knows belongs to the file, and no other block does.
    pub fn assert_owned(&self) {
        let mut known = 0;
        for chunk in self
            .tracker
            .chunks
            .iter()
            .filter(|chunk| chunk.is_made.get())
        {
            let state = chunk.state.borrow();
            for nth in state.present().iter() {
                let page = chunk.place.first_page() + nth as u64;
                assert_eq!(self.owner(state.block(nth)), Some(page), "of page {page}");
                known += 1;
            }
        }
        let owners = self.owners.borrow();
        let mine = owners.values().filter(|page| **page != ELSEWHERE);
        assert_eq!(
            mine.count(),
            known,
            "a page is the file's, and no chunk knows"
        );
    }

    /// `work` with faults kept out.
    pub fn without_faults<R>(&self, work: impl FnOnce(&mut NoFaults<'_>) -> R) -> R {
        work(&mut NoFaults(Count::new(&self.tracker.keepers)))
    }

    fn zap(&self, map: usize, first: u64, last: u64) {
        for page in first..=last.min(CHUNKS as u64 * CHUNK - 1) {
            let (index, _) = split(page);
            let (pmd, pte) = {
                let table = &mut self.maps.borrow_mut()[map];
                (table.pmds.remove(&index), table.ptes.remove(&page))
            };
            if matches!(pmd, Some(Pmd::Huge { writable: true, .. })) {
                sync::dirty_page(self, page, true);
            }
            if matches!(pte, Some(Pte::Rw(_))) {
                sync::dirty_page(self, page, false);
            }
        }
    }

    /// The blocks that have one struct page with `block`.
    fn folio(&self, block: u64) -> Range<u64> {
        let first = block - block % CHUNK;
        match self.folios.borrow().contains(&first) {
            true => first..first + CHUNK,
            false => block..block + 1,
        }
    }

    fn is_mapped(&self, blocks: &Range<u64>) -> bool {
        let maps = self.maps.borrow();
        let leads = |map: &PageTable| {
            (0..CHUNKS as u64 * CHUNK)
                .any(|page| map.block(page).is_some_and(|block| blocks.contains(&block)))
        };
        maps.iter().any(leads)
    }
}

/// The invalidate lock, held exclusively.
pub struct NoFaults<'a>(Count<'a>);

impl FaultsOut for NoFaults<'_> {
    fn unlocked<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let keepers = self.0 .0;
        keepers.set(keepers.get() - 1);
        let result = f();
        keepers.set(keepers.get() + 1);
        result
    }
}

impl Tracking for Tracker {
    type Table = Table;
    type Chunk = Chunk;
    type Guard<'a> = RefMut<'a, State<Table>>;
    type Locked<'a> = RefMut<'a, TagState>;
    type Windows = Windows;

    fn chunk(&self, index: u64) -> Option<&Chunk> {
        let chunk = self.chunks.get(index as usize)?;
        chunk.is_made.get().then_some(chunk)
    }

    fn chunks(&self, first: u64, last: u64, dirty: bool) -> impl Iterator<Item = &Chunk> {
        let (first, last) = (split(first).0, split(last).0);
        self.chunks.iter().filter(move |chunk| {
            let index = chunk.place.index();
            let is_in = chunk.is_made.get() && first <= index && index <= last;
            is_in && (!dirty || chunk.mark.get())
        })
    }

    fn is_unused(&self) -> bool {
        !self.chunks.iter().any(|chunk| chunk.is_made.get())
    }

    fn stay(&self) -> impl Sized + '_ {
        Count::new(&self.keepers)
    }

    fn place(&self, chunk: &Chunk) -> Place {
        chunk.place
    }

    fn lock<'a>(&'a self, chunk: &'a Chunk) -> RefMut<'a, State<Table>> {
        assert!(self.keepers.get() > 0, "the chunk may be freed meanwhile");
        chunk.state.borrow_mut()
    }

    fn lock_tags(&self) -> RefMut<'_, TagState> {
        self.tags.borrow_mut()
    }

    fn tags<'a>(&self, locked: &'a mut RefMut<'_, TagState>, chunk: &'a Chunk) -> &'a mut Tags {
        &mut locked.tags[chunk.place.index() as usize]
    }

    fn syncs<'a>(&self, locked: &'a mut RefMut<'_, TagState>) -> &'a mut Syncs<Windows> {
        &mut locked.syncs
    }

    fn set_mark(&self, _locked: &mut RefMut<'_, TagState>, chunk: &Chunk, marked: bool) {
        chunk.mark.set(marked);
    }

    fn is_any_marked(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.mark.get())
    }

    fn with_slot<R>(&self, f: impl FnOnce(&mut Option<u64>) -> R) -> R {
        f(&mut None)
    }

    fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    fn count_in_flight(&self, begins: bool) {
        let now = self.in_flight.get();
        self.in_flight.set(if begins { now + 1 } else { now - 1 });
    }

    fn failed(&self) -> u32 {
        self.failed.get()
    }

    fn count_failed(&self) {
        self.failed.set(self.failed.get() + 1);
    }

    fn wait(&self, _locked: &mut RefMut<'_, TagState>) {
        panic!("waits for itself");
    }

    fn notify(&self) {}
}

/// Fingerprints are the contents.
pub struct Contents<'a>(&'a World);

impl Fingerprints for Contents<'_> {
    fn of(&mut self, block: u64) -> Option<u64> {
        Some(self.0.content.borrow().get(&block).copied().unwrap_or(0))
    }
}

impl Blocks for Extents<'_> {
    type Error = Failure;

    fn find(&mut self, page: u64, len: u64) -> Result<Map, Failure> {
        assert!(len > 0, "nothing is looked for");
        let Extents(world, extents) = self;
        let first = extents[page as usize];
        let cuts = world.cuts.borrow();
        let continues = |n: &u64| {
            let at = page + n;
            extents.get(at as usize) == Some(&first.plus(*n)) && !cuts.contains(&at)
        };
        let len = 1 + (1..len).take_while(continues).count() as u64;
        Ok(match first {
            Has::Hole => Map::Hole { len },
            Has::Unwritten(block) => Map::Unwritten { block, len },
            Has::Data(block) => Map::Run { block, len },
        })
    }

    fn fill(&mut self, page: u64, least: u64, len: u64) -> Result<Run, Failure> {
        assert!(0 < least && least <= len, "{least} of {len} pages");
        let found = self.find(page, len)?;
        let Extents(world, extents) = self;
        assert!(page + len <= world.pages.get(), "past the end of the file");
        let run = match found {
            Map::Run { .. } => panic!("page {page} has a block"),
            Map::Unwritten { block, len } => {
                let bad = world.bad.borrow();
                let is_bad = (block..block + len).any(|block| bad.contains(&block));
                assert!(!is_bad, "a bad block that read as zeros becomes data");
                assert!(least <= len, "it is not all unwritten");
                Run { block, len }
            }
            Map::Hole { len } => {
                assert!(least <= len, "it is not all a hole");
                let len = len.min(world.free.get()).min(world.piece.get());
                if len < least {
                    return Err(Failure::Device);
                }
                let next = world.next.get();
                let block = match len {
                    CHUNK => next.next_multiple_of(CHUNK),
                    // No block follows the one that was allocated before.
                    _ => next + 1,
                };
                world.next.set(block + len);
                world.free.set(world.free.get() - len);
                Run { block, len }
            }
        };
        for n in 0..run.len {
            extents[(page + n) as usize] = Has::Data(run.block + n);
        }
        Ok(run)
    }

    fn fill_all(&mut self, page: u64, len: u64) -> Result<u64, Failure> {
        assert!(page + len <= self.0.pages.get(), "past the end of the file");
        // In several steps.
        let len = len.min(self.0.fills_all.get()).min(48);
        if len == 0 {
            return Err(Failure::Device);
        }
        self.0.fills_all.set(self.0.fills_all.get() - len);
        for page in page..page + len {
            if self.1[page as usize] == Has::Hole {
                self.fill(page, 1, 1)?;
            }
        }
        Ok(len)
    }
}

impl Device for World {
    fn access(&self) -> Option<impl Sized + '_> {
        (!self.is_gone.get()).then_some(())
    }

    fn has_write_cache(&self) -> bool {
        self.has_cache.get()
    }

    fn write_back(&self, _block: u64, _len: u64) {}

    fn fence(&self) -> Result<(), Failure> {
        match self.fence_fails.get() {
            true => Err(Failure::Device),
            false => Ok(()),
        }
    }

    fn fingerprints(&self) -> impl Fingerprints + '_ {
        Contents(self)
    }

    fn is_bad(&self, block: u64, len: u64) -> bool {
        self.bad.borrow().range(block..block + len).next().is_some()
    }

    fn is_aligned(&self, block: u64) -> bool {
        block % CHUNK == 0
    }

    fn is_huge(&self, block: u64) -> bool {
        self.folio(block).contains(&(block ^ 1))
    }

    fn is_idle(&self, block: u64) -> bool {
        !self.is_mapped(&self.folio(block)) && !self.is_held(block)
    }

    fn is_held(&self, block: u64) -> bool {
        let pins = self.pins.borrow();
        pins.range(self.folio(block)).next().is_some()
    }

    fn wait_idle(&self, block: u64) {
        assert!(!self.is_mapped(&self.folio(block)), "it is mapped");
        self.pins.borrow_mut().clear();
    }

    fn forget_dirty(&self, _block: u64) {}

    fn reset(&self, block: u64) {
        assert!(self.is_idle(block), "block {block} is in use");
        let folio = self.folio(block);
        self.folios.borrow_mut().remove(&folio.start);
        for block in folio {
            self.owners.borrow_mut().remove(&block);
        }
    }
}

impl Machine for World {
    type Tracker = Tracker;
    type Device = World;
    type Error = Failure;
    type Blocks<'a> = Extents<'a>;

    fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    fn device(&self) -> &World {
        self
    }

    fn count(&self, event: Event, nr: u64) {
        if nr > 0 {
            self.counts.borrow_mut().push((event, nr));
        }
    }

    fn linger(&self) {}

    fn is_writably_mapped(&self) -> bool {
        true
    }

    fn locked(&self, _first: u64, _writable: bool) -> PageSet {
        match self.is_locked.get() {
            true => PageSet::ALL,
            false => PageSet::EMPTY,
        }
    }

    fn write_protect(&self, page: u64, block: u64, len: usize) {
        for map in self.maps.borrow_mut().iter_mut() {
            for n in 0..len as u64 {
                let at = page + n;
                let there = map.block(at);
                assert!(
                    there.is_none_or(|there| there == block + n),
                    "another block"
                );
                if let Some(Pmd::Huge { writable, .. }) = map.pmds.get_mut(&split(at).0) {
                    *writable = false;
                }
                if let Some(pte) = map.ptes.get_mut(&at) {
                    *pte = Pte::Ro(block + n);
                }
            }
        }
    }

    fn unmap(&self, first: u64, last: u64) {
        self.unmapped.borrow_mut().push((first, last));
        (0..2).for_each(|map| self.zap(map, first, last));
    }

    fn is_of_another(&self, block: u64, page: u64) -> bool {
        self.owner(block).is_some_and(|owner| owner != page)
    }

    fn associate(&self, block: u64, page: u64) -> bool {
        assert!(self.is_owner.get(), "nobody waits for the file's pages");
        let before = self.owners.borrow_mut().insert(block, page);
        assert_eq!(before, None, "it belongs to a page already");
        false
    }

    fn is_not_idle(&self) {
        self.was_not_idle.set(true);
    }

    fn dissociate(&self, block: u64) {
        assert!(self.is_owner.get(), "nobody waits for the file's pages");
        self.reset(block);
    }

    fn leave_behind(&self, block: u64) -> bool {
        let is_idle = self.is_idle(block);
        self.owners.borrow_mut().remove(&block);
        is_idle
    }

    fn examine(&self, block: u64) -> Examined {
        Examined {
            free: (block..block + CHUNK).all(|block| self.is_idle(block)),
            dirty: false,
        }
    }

    fn make_huge(&self, block: u64, page: u64) {
        assert_eq!(block % CHUNK, 0, "a folio is not aligned");
        self.folios.borrow_mut().insert(block);
        let owners = (0..CHUNK).map(|n| (block + n, page + n));
        self.owners.borrow_mut().extend(owners);
    }

    fn adopt_huge(&self, block: u64, page: u64) {
        self.make_huge(block, page);
    }

    fn wait_idle(&self, block: u64) -> Result<(), Failure> {
        Device::wait_idle(self, block);
        Ok(())
    }

    fn pages(&self) -> u64 {
        self.pages.get()
    }

    fn touch(&self) {
        self.touched.set(self.touched.get() + 1);
    }

    fn tail_may_change(&self) {}

    fn stores_are_lost(&self) {
        self.was_told.set(true);
    }

    fn write_times(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn note(&self) {}

    fn own(&self) {
        self.is_owner.set(true);
    }

    fn is_owner(&self) -> bool {
        self.is_owner.get()
    }

    fn disown(&self) {
        self.is_owner.set(false);
    }

    fn blocks(&self) -> Extents<'_> {
        Extents(self, self.extents.borrow_mut())
    }

    fn is_space_scarce(&self) -> bool {
        self.is_scarce.get()
    }

    fn ask(&self, page: u64) -> Ask {
        let asked = self.asks.borrow().clone();
        asked.unwrap_or(Ask::page(page))
    }

    fn filled(&self, ask: &Ask, first: u64, len: u64) {
        *self.filled.borrow_mut() = Some((ask.clone(), first, len));
    }

    fn check_usable(&self, _write: bool) -> Result<(), Failure> {
        match self.is_usable.get() {
            true => Ok(()),
            false => Err(Failure::Device),
        }
    }

    fn is_freezing(&self) -> bool {
        false
    }

    fn keep_thawed(&self) -> impl Sized + '_ {}

    fn keep_blocks(&self) -> impl Sized + '_ {
        Count::new(&self.tracker.keepers)
    }

    fn try_keep_faults_out(&self) -> Option<impl Sized + '_> {
        Some(Count::new(&self.tracker.keepers))
    }

    fn without_reclaim<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    fn make_chunk(&self, index: u64) -> Result<(), Failure> {
        self.attempts.set(self.attempts.get() + 1);
        assert!(self.attempts.get() < 10, "tries for ever");
        if self.no_memory.get() {
            return Err(Failure::Device);
        }
        self.tracker.chunks[index as usize].is_made.set(true);
        Ok(())
    }

    fn use_chunk(&self, _chunk: &Chunk) {
        self.uses.set(self.uses.get() + 1);
    }

    fn table(&self) -> Result<Table, Failure> {
        self.tables.set(self.tables.get() + 1);
        Ok(Box::new([0; PAGES]))
    }

    fn table_at_once(&self) -> Option<Table> {
        Some(Box::new([0; PAGES]))
    }
}

/// An access that faults.
struct Access<'a> {
    world: &'a World,
    map: usize,
    page: u64,
    write: bool,
    times_moved: Cell<bool>,
}

impl<'a> Access<'a> {
    fn new(world: &'a World, map: usize, page: u64, write: bool) -> Self {
        Access {
            world,
            map,
            page,
            write,
            times_moved: Cell::new(false),
        }
    }

    fn check(&self, page: u64, block: u64, write: bool) {
        let has = self.world.has(page);
        assert_eq!(has, Has::Data(block), "not the block of page {page}");
        assert!(!self.world.is_bad(block, 1), "a bad block is mapped");
        assert!(page < self.world.pages(), "mapped past the end");
        if write {
            assert!(self.times_moved.get(), "a store would move no time");
            let (index, nth) = split(page);
            let dirty = self.world.dirty(index as usize);
            assert!(dirty.contains(nth), "page {page} is not tagged");
        }
    }

    fn put(&self, page: u64, pte: Pte) {
        let table = &mut self.world.maps.borrow_mut()[self.map];
        let (index, _) = split(page);
        assert!(table.tables.contains(&index), "there is no page table");
        assert!(!table.markers.contains(&page), "a marker is in the way");
        let before = table.ptes.insert(page, pte);
        assert!(
            pte == Pte::Zero || before != Some(Pte::Zero),
            "a zero page is in the way"
        );
    }
}

impl Fault for Access<'_> {
    type File = World;
    type Inserted = ();

    fn file(&self) -> &World {
        self.world
    }

    fn page(&self) -> u64 {
        self.page
    }

    fn is_write(&self) -> bool {
        self.write
    }

    fn update_time(&self) -> Result<(), Failure> {
        if self.world.times_fail.get() {
            return Err(Failure::Device);
        }
        self.times_moved.set(true);
        Ok(())
    }

    fn is_mapped_huge(&self) -> bool {
        self.world.pmd(self.map, split(self.page).0).is_some()
    }

    fn is_unmapped_huge(&self) -> bool {
        let maps = self.world.maps.borrow();
        let (index, _) = split(self.page);
        !self.is_mapped_huge() && !maps[self.map].tables.contains(&index)
    }

    fn prepare(&self) {
        let table = &mut self.world.maps.borrow_mut()[self.map];
        table.tables.insert(split(self.page).0);
        table.markers.remove(&self.page);
    }

    fn insert(&self, block: u64, write: bool) {
        self.check(self.page, block, write);
        self.put(
            self.page,
            if write {
                Pte::Rw(block)
            } else {
                Pte::Ro(block)
            },
        );
    }

    fn ahead(&self, row: usize) -> usize {
        match self.map == 0 && self.world.is_watched.get() {
            true => 0,
            false => fault::ahead(row),
        }
    }

    fn neighbours(&self) -> Range<u64> {
        self.world.reach.borrow().clone()
    }

    fn insert_writable(&self, page: u64, block: u64, len: usize) {
        for n in 0..len as u64 {
            assert!(
                self.neighbours().contains(&(page + n)),
                "another page table"
            );
            self.check(page + n, block + n, true);
            self.put(page + n, Pte::Rw(block + n));
        }
    }

    fn insert_zero(&self) {
        assert!(!self.write, "a store gets the zero page");
        self.put(self.page, Pte::Zero);
    }

    fn insert_huge(&self, block: u64, write: bool) {
        let (index, _) = split(self.page);
        let first = index * CHUNK;
        (0..CHUNK).for_each(|n| self.check(first + n, block + n, write));
        let table = &mut self.world.maps.borrow_mut()[self.map];
        let pmd = Pmd::Huge {
            block,
            writable: write,
        };
        assert_ne!(table.pmds.insert(index, pmd), Some(Pmd::Zeros));
    }

    fn insert_huge_zero(&self) -> Option<()> {
        let (index, _) = split(self.page);
        self.world.maps.borrow_mut()[self.map]
            .pmds
            .insert(index, Pmd::Zeros);
        Some(())
    }
}
