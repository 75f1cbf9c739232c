// SPDX-License-Identifier: GPL-2.0

//! A model of dirty tracking under every interleaving the scheduler finds.
//!
//! The module's own state machine (`chunk.rs`) runs in a small machine: a file of a few pages, two
//! mappings with page table entries, a cache and a media per block. Threads store through the
//! mappings, fault, sync, zap, finish DMA, truncate. The drivers below follow `src/dax/fault.rs`,
//! `sync.rs` and `layout.rs` step by step; a [`Mistake`] bends one step.
//!
//! What must hold, in every interleaving:
//!
//! * when a sync returns, the media holds every store to its range that was complete when the
//!   sync began;
//! * a block that is freed is mapped nowhere and pinned by nobody;
//! * after write(2) filled a hole, nobody reads the zero page there.
//!
//! Each mistake must break one of them, or the model would be blind to it.

use std::panic::{catch_unwind, AssertUnwindSafe};

use dax_model::chunk::{Entry, Run, Snapshot, State, Tags, Window};
use dax_model::heat::Found;
use dax_model::page_set::{PageSet, PAGES};
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use shuttle::sync::{Arc, Condvar, Mutex, RwLock};
use shuttle::thread;

const NR: usize = 2;

type Chunk = State<Box<[u64; PAGES]>>;

fn one(page: usize) -> PageSet {
    PageSet::range(page, page)
}

fn without(pages: &PageSet, gone: &PageSet) -> PageSet {
    let mut rest = *pages;
    rest.remove_all(gone);
    rest
}

/// One step done wrongly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mistake {
    None,
    /// Lines are written back while stores can still reach them.
    FlushBeforeProtect,
    /// Taken before write-protected: a store in between is seen by nobody.
    TakeBeforeProtect,
    /// The entry is writable before the page is tagged.
    TagAfterInsert,
    /// `pfn_mkwrite` returns 0: the entry is made writable after the chunk lock was dropped.
    InsertAfterUnlock,
    /// A sync that finds nothing dirty does not wait for one in flight.
    NoWindow,
    /// The mark is cleared by what was seen before the tag lock was taken.
    ClearMarkLate,
    /// Whether the file is mapped writable is looked up before the chunk lock is taken.
    WritableCheckedEarly,
    /// `dirty_folio` does nothing.
    IgnoreDma,
    /// Truncation does not look at pinned pages.
    FreePinned,
    /// Truncation drops tags while the file still has the pages.
    DropTags,
    /// Truncation frees before it unmaps.
    FreeMapped,
    /// A fault looks the block up before it takes the chunk lock.
    LookupEarly,
    /// write(2) into a hole does not unmap the zero page.
    LeaveZero,
    /// A hot page is not written back.
    TrustHot,
    /// A hot page that did not change is made clean, and left writable.
    CoolUnprotected,
    /// A hot page is made clean like the others, and left writable.
    TakeHot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pte {
    None,
    Zero,
    Ro(u64),
    Rw(u64),
}

#[derive(Default)]
struct Block {
    cache: u64,
    /// The newest store that is complete: what a sync that begins now must make durable.
    complete: u64,
    media: u64,
    pins: u32,
    free: bool,
}

struct Mapping {
    ptes: Mutex<[Pte; NR]>,
}

struct TagState {
    tags: Tags,
    windows: Vec<Window>,
    next_seq: u64,
}

struct Machine {
    mistake: Mistake,
    invalidate: RwLock<()>,
    /// Which block each page of the file has.
    extents: Mutex<[Option<u64>; NR]>,
    chunk: Mutex<Chunk>,
    tags: Mutex<TagState>,
    fenced: Condvar,
    /// The chunk's mark: read without a lock.
    mark: AtomicBool,
    /// How many of the mappings exist; the second comes late.
    writable: AtomicU64,
    maps: [Mapping; 2],
    blocks: Mutex<Vec<Block>>,
    idle: Condvar,
}

impl Machine {
    fn new(mistake: Mistake, mapped: u64, holes: bool) -> Arc<Self> {
        let mut blocks = Vec::new();
        let mut extents = [None; NR];
        if !holes {
            for extent in &mut extents {
                *extent = Some(blocks.len() as u64);
                blocks.push(Block::default());
            }
        }
        Arc::new(Machine {
            mistake,
            invalidate: RwLock::new(()),
            extents: Mutex::new(extents),
            chunk: Mutex::new(State::new()),
            tags: Mutex::new(TagState {
                tags: Tags::new(),
                windows: Vec::new(),
                next_seq: 0,
            }),
            fenced: Condvar::new(),
            mark: AtomicBool::new(false),
            writable: AtomicU64::new(mapped),
            maps: [0, 1].map(|_| Mapping {
                ptes: Mutex::new([Pte::None; NR]),
            }),
            blocks: Mutex::new(blocks),
            idle: Condvar::new(),
        })
    }

    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    fn allocate(&self) -> u64 {
        let mut blocks = self.blocks.lock().unwrap();
        blocks.push(Block::default());
        blocks.len() as u64 - 1
    }

    /// `Tracker::tag`.
    fn tag(&self, page: usize) {
        let mut t = self.tags.lock().unwrap();
        if t.tags.set(page).set_mark {
            self.mark.store(true, SeqCst);
        }
    }

    /// unmap_mapping_pages(): with dirty entries tagging, as a zap does.
    fn unmap(&self, pages: &PageSet) {
        for map in &self.maps {
            for page in (0..NR).filter(|page| pages.contains(*page)) {
                let mut ptes = map.ptes.lock().unwrap();
                if let Pte::Rw(_) = ptes[page] {
                    if !self.is(Mistake::IgnoreDma) {
                        self.tag(page);
                    }
                }
                ptes[page] = Pte::None;
            }
        }
    }

    /// A fault; `write` for one of a shared writable mapping.
    fn fault(&self, map: usize, page: usize, write: bool) {
        let _invalidate = self.invalidate.read().unwrap();
        let early = self.extents.lock().unwrap()[page];
        let mut chunk = self.chunk.lock().unwrap();
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
                let mut ptes = self.maps[map].ptes.lock().unwrap();
                if ptes[page] == Pte::None {
                    ptes[page] = Pte::Zero;
                }
                return;
            }
        };
        let table = chunk.needs_table(page, block).then(|| Box::new([0; PAGES]));
        if chunk.map_block(page, block, table).unmap_zero {
            self.unmap(&one(page));
        }
        let late = self.is(Mistake::TagAfterInsert);
        if write && !late {
            self.tag(page);
        }
        let unlocked = if self.is(Mistake::InsertAfterUnlock) {
            drop(chunk);
            None
        } else {
            Some(chunk)
        };
        {
            let mut ptes = self.maps[map].ptes.lock().unwrap();
            match ptes[page] {
                Pte::Zero => panic!("a block inserted over the zero page"),
                Pte::None | Pte::Ro(_) if write => ptes[page] = Pte::Rw(block),
                Pte::None => ptes[page] = Pte::Ro(block),
                _ => {}
            }
        }
        if write && late {
            self.tag(page);
        }
        drop(unlocked);
    }

    /// A store instruction: retried until no fault stops it. None past the end of the file.
    fn store(&self, map: usize, page: usize) {
        loop {
            {
                let ptes = self.maps[map].ptes.lock().unwrap();
                if let Pte::Rw(block) = ptes[page] {
                    let mut blocks = self.blocks.lock().unwrap();
                    let block = &mut blocks[block as usize];
                    assert!(!block.free, "a store to a freed block");
                    block.cache += 1;
                    block.complete = block.cache;
                    return;
                }
            }
            self.fault(map, page, true);
        }
    }

    /// O_DIRECT or vmsplice into the mapping: pin, write later, tag, unpin.
    fn dma(&self, map: usize, page: usize) {
        let block = loop {
            {
                let ptes = self.maps[map].ptes.lock().unwrap();
                if let Pte::Rw(block) = ptes[page] {
                    self.blocks.lock().unwrap()[block as usize].pins += 1;
                    break block;
                }
            }
            self.fault(map, page, true);
        };
        thread::yield_now();
        let value = {
            let mut blocks = self.blocks.lock().unwrap();
            let block = &mut blocks[block as usize];
            assert!(!block.free, "DMA into a freed block");
            block.cache += 1;
            block.cache
        };
        if !self.is(Mistake::IgnoreDma) {
            self.tag(page);
        }
        let mut blocks = self.blocks.lock().unwrap();
        let block = &mut blocks[block as usize];
        block.complete = block.complete.max(value);
        block.pins -= 1;
        self.idle.notify_all();
    }

    /// munmap of one page in one mapping.
    fn zap(&self, map: usize, page: usize) {
        let mut ptes = self.maps[map].ptes.lock().unwrap();
        if let Pte::Rw(_) = ptes[page] {
            if !self.is(Mistake::IgnoreDma) {
                self.tag(page);
            }
        }
        ptes[page] = Pte::None;
    }

    fn write_protect(&self, pages: &PageSet) {
        for map in &self.maps {
            for page in (0..NR).filter(|page| pages.contains(*page)) {
                let mut ptes = map.ptes.lock().unwrap();
                if let Pte::Rw(block) = ptes[page] {
                    ptes[page] = Pte::Ro(block);
                }
            }
        }
    }

    /// clwb: the content of now is on its way to the media, there with the next fence.
    fn write_back(&self, block: u64, under_way: &mut Vec<(u64, u64)>) {
        let blocks = self.blocks.lock().unwrap();
        assert!(!blocks[block as usize].free, "a freed block written back");
        under_way.push((block, blocks[block as usize].cache));
    }

    fn fence(&self, under_way: Vec<(u64, u64)>) {
        for (block, value) in under_way {
            let mut blocks = self.blocks.lock().unwrap();
            let media = &mut blocks[block as usize].media;
            *media = value.max(*media);
        }
    }

    /// `sync_range` of the pages `first..=last`.
    fn sync(&self, first: usize, last: usize) {
        let wanted: Vec<(usize, u64, u64)> = {
            let extents = self.extents.lock().unwrap();
            let blocks = self.blocks.lock().unwrap();
            (first..=last)
                .filter_map(|page| Some((page, extents[page]?)))
                .map(|(page, block)| (page, block, blocks[block as usize].complete))
                .collect()
        };
        self.sync_steps(first, last, true);
        let extents = self.extents.lock().unwrap();
        let blocks = self.blocks.lock().unwrap();
        for (page, block, value) in wanted {
            if extents[page] == Some(block) {
                let media = blocks[block as usize].media;
                assert!(
                    media >= value,
                    "page {page}: {value} stored, {media} durable"
                );
            }
        }
    }

    /// `keep_hot` of `sync.rs`, without the write-back: returns the pages that stay. The fingerprint
    /// of a block is what is in the cache.
    fn keep_hot(&self, chunk: &mut Chunk, dirty: &mut Snapshot, may_stay: bool) -> PageSet {
        let fingerprint = |block: u64| self.blocks.lock().unwrap()[block as usize].cache;
        let mut kept = PageSet::EMPTY;
        let mut from = 0;
        while let Some(page) = chunk.heat.hot().next_in(from, dirty.pages()) {
            from = page + 1;
            let block = chunk.block(page);
            if chunk.heat.compare(page, fingerprint(block)) != Found::Cold && may_stay {
                assert_eq!(dirty.keep(page).written_back(), 1);
                kept.insert(page);
            } else {
                chunk.heat.cool(&one(page));
            }
        }
        from = if may_stay { 0 } else { PAGES };
        while let Some(page) = chunk.heat.warm().next_in(from, dirty.pages()) {
            from = page + 1;
            if chunk.heat.needs_table() {
                chunk.heat.set_table(Box::new([0; PAGES]));
            }
            chunk.heat.add(page, fingerprint(chunk.block(page)));
            assert_eq!(dirty.keep(page).written_back(), 1);
            kept.insert(page);
        }
        kept
    }

    fn sync_steps(&self, first: usize, last: usize, keep: bool) {
        let range = PageSet::range(first, last);
        let early = self.writable.load(SeqCst) > 0;
        let windows = !self.is(Mistake::NoWindow);
        if !self.mark.load(SeqCst) {
            if windows {
                self.wait_for_others(first, last, None);
            }
            return;
        }
        let mut window = Window {
            seq: 0,
            first: first as u64,
            end: first as u64,
        };
        {
            let mut t = self.tags.lock().unwrap();
            window.seq = t.next_seq;
            t.next_seq += 1;
            t.windows.push(window);
        }
        let mut under_way = Vec::new();
        {
            let mut chunk = self.chunk.lock().unwrap();
            let was_hot = *chunk.heat.hot();
            let seen = self.tags.lock().unwrap().tags.dirty_in(&range);
            let runs: Vec<_> = chunk.runs(seen.pages()).collect();
            let flush = |runs: &[Run], under_way: &mut Vec<_>| {
                for run in runs {
                    for i in 0..run.len as u64 {
                        self.write_back(run.block + i, under_way);
                    }
                }
            };
            if self.is(Mistake::FlushBeforeProtect) {
                flush(&runs, &mut under_way);
            }
            let writable = match self.mistake {
                Mistake::WritableCheckedEarly => early,
                _ => self.writable.load(SeqCst) > 0,
            };
            let mut cold = seen;
            let stay = self.keep_hot(&mut chunk, &mut cold, writable && keep);
            let (hot, cold) = match self.mistake {
                Mistake::TakeHot => (PageSet::EMPTY, seen),
                _ => (stay, cold),
            };
            let runs: Vec<_> = match self.mistake {
                Mistake::TrustHot => chunk.runs(&without(seen.pages(), &hot)).collect(),
                _ => runs,
            };
            let mut open = hot;
            if self.is(Mistake::TakeHot) {
                open = stay;
            } else if self.is(Mistake::CoolUnprotected) {
                open = was_hot;
            }
            if writable && !self.is(Mistake::TakeBeforeProtect) {
                self.write_protect(&without(seen.pages(), &open));
            }
            let seen = cold;
            let taken = if self.is(Mistake::ClearMarkLate) {
                let mut t = self.tags.lock().unwrap();
                let (taken, clear) = t.tags.take(seen.write_protected());
                drop(t);
                if clear {
                    self.mark.store(false, SeqCst);
                }
                taken
            } else {
                let mut t = self.tags.lock().unwrap();
                for w in &mut t.windows {
                    if w.seq == window.seq {
                        w.end = last as u64 + 1;
                    }
                }
                let (taken, clear) = t.tags.take(seen.write_protected());
                if clear {
                    self.mark.store(false, SeqCst);
                }
                taken
            };
            if !self.is(Mistake::FlushBeforeProtect) {
                flush(&runs, &mut under_way);
            }
            if writable && self.is(Mistake::TakeBeforeProtect) {
                self.write_protect(taken.pages());
            }
            chunk.heat.synced(taken.pages());
            taken.written_back();
        }
        self.fence(under_way);
        if windows {
            self.wait_for_others(first, last, Some(window.seq));
        }
    }

    /// `sync_all` of `dirty.rs`: hot pages are write-protected, too.
    fn sync_all(&self) {
        self.sync_steps(0, NR - 1, false);
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

    /// `break_layout` and the freeing of the blocks: truncate(2) to nothing.
    fn truncate(&self) {
        let all = PageSet::range(0, NR - 1);
        let mut invalidate = self.invalidate.write().unwrap();
        loop {
            if !self.is(Mistake::FreeMapped) {
                self.unmap(&all);
            }
            let chunk = self.chunk.lock().unwrap();
            let busy: Vec<u64> = chunk
                .runs(&all)
                .flat_map(|run| run.block..run.block + run.len as u64)
                .collect();
            drop(chunk);
            let pinned = |blocks: &Vec<Block>| busy.iter().any(|b| blocks[*b as usize].pins > 0);
            if self.is(Mistake::FreePinned) || !pinned(&self.blocks.lock().unwrap()) {
                break;
            }
            drop(invalidate);
            let mut blocks = self.blocks.lock().unwrap();
            while pinned(&blocks) {
                blocks = self.idle.wait(blocks).unwrap();
            }
            drop(blocks);
            invalidate = self.invalidate.write().unwrap();
        }
        if !self.is(Mistake::DropTags) {
            self.sync_steps(0, NR - 1, false);
        }
        {
            let mut chunk = self.chunk.lock().unwrap();
            let _ = chunk.forget(&all);
            let mut t = self.tags.lock().unwrap();
            if t.tags.forget(&all) {
                self.mark.store(false, SeqCst);
            }
        }
        for page in 0..NR {
            let Some(block) = self.extents.lock().unwrap()[page].take() else {
                continue;
            };
            for map in &self.maps {
                let pte = map.ptes.lock().unwrap()[page];
                assert_eq!(pte, Pte::None, "a freed block is still mapped");
            }
            let mut blocks = self.blocks.lock().unwrap();
            assert_eq!(blocks[block as usize].pins, 0, "a freed block is pinned");
            blocks[block as usize].free = true;
        }
        if self.is(Mistake::FreeMapped) {
            self.unmap(&all);
        }
        drop(invalidate);
    }

    /// write(2) into a hole, then `hole_filled`; a read through a mapping must see it.
    fn write_hole(&self, page: usize) {
        {
            let mut extents = self.extents.lock().unwrap();
            if extents[page].is_none() {
                extents[page] = Some(self.allocate());
            }
        }
        if self.is(Mistake::LeaveZero) {
            let _ = self.chunk.lock().unwrap().fill(&one(page));
        } else {
            let mut chunk = self.chunk.lock().unwrap();
            let stale = chunk.fill(&one(page));
            self.unmap(&stale);
        }
        for map in &self.maps {
            let pte = map.ptes.lock().unwrap()[page];
            assert_ne!(pte, Pte::Zero, "zeroes are read where data was written");
        }
    }
}

/// One scene: what its threads do.
type Scene = fn(Mistake);

fn join(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

fn run(
    machine: &Arc<Machine>,
    f: impl FnOnce(&Machine) + Send + 'static,
) -> thread::JoinHandle<()> {
    let machine = machine.clone();
    thread::spawn(move || f(&machine))
}

/// Writers in two mappings, two syncs, of one page and of both.
fn stores_and_syncs(mistake: Mistake) {
    let m = Machine::new(mistake, 2, false);
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.store(0, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| {
            m.store(1, 0);
            m.store(1, 1);
            m.sync(0, NR - 1);
        }),
        run(&m, |m| {
            m.store(0, 0);
            m.sync(0, NR - 1);
        }),
    ]);
    m.sync(0, NR - 1);
}

/// A page that became hot is stored to, left alone, and unmapped while syncs run.
fn hot_pages(mistake: Mistake) {
    let m = Machine::new(mistake, 2, false);
    for _ in 0..3 {
        m.store(0, 0);
        m.sync(0, 0);
    }
    join(vec![
        run(&m, |m| {
            m.store(0, 0);
            m.sync(0, 0);
            m.store(0, 0);
            m.sync(0, NR - 1);
        }),
        run(&m, |m| {
            m.sync(0, NR - 1);
            m.store(1, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| m.sync_all()),
    ]);
    m.sync(0, NR - 1);
}

/// A page is tagged outside of a fault while syncs run, and unmapped while dirty.
fn zaps_and_dma(mistake: Mistake) {
    let m = Machine::new(mistake, 2, false);
    join(vec![
        run(&m, |m| {
            m.dma(0, 0);
            m.sync(0, 0);
        }),
        run(&m, |m| {
            m.store(1, 0);
            m.zap(1, 0);
            m.store(1, 1);
            m.sync(0, NR - 1);
        }),
        run(&m, |m| {
            m.sync(0, 0);
            m.zap(0, 0);
        }),
    ]);
    m.sync(0, NR - 1);
}

/// The first writable mapping appears while a sync of pages dirtied by an earlier one runs.
fn late_mapping(mistake: Mistake) {
    let m = Machine::new(mistake, 1, false);
    m.store(0, 0);
    m.zap(0, 0);
    m.writable.store(0, SeqCst);
    join(vec![
        run(&m, |m| m.sync(0, 0)),
        run(&m, |m| {
            m.writable.store(1, SeqCst);
            m.store(1, 0);
            m.store(1, 0);
            m.sync(0, 0);
        }),
    ]);
}

/// Truncation against writers, pins and syncs.
fn truncation(mistake: Mistake) {
    let m = Machine::new(mistake, 2, false);
    join(vec![
        run(&m, |m| m.dma(0, 0)),
        run(&m, |m| {
            m.store(1, 0);
            m.sync(0, NR - 1);
        }),
        run(&m, |m| m.truncate()),
    ]);
    m.sync(0, NR - 1);
}

/// Holes: read, filled by a write fault of one mapping and by write(2).
fn holes(mistake: Mistake) {
    let m = Machine::new(mistake, 2, true);
    join(vec![
        run(&m, |m| m.fault(0, 0, false)),
        run(&m, |m| m.write_hole(0)),
        run(&m, |m| {
            m.store(1, 1);
            m.sync(0, NR - 1);
        }),
    ]);
}

const SCENES: [Scene; 6] = [
    stores_and_syncs,
    hot_pages,
    zaps_and_dma,
    late_mapping,
    truncation,
    holes,
];

fn explore(scene: Scene, mistake: Mistake, rounds: usize) {
    shuttle::check_random(move || scene(mistake), rounds);
    shuttle::check_pct(move || scene(mistake), rounds, 3);
}

/// How many schedules each scene is run under, twice (random, and PCT with three changes).
/// `DAX_MODEL_ROUNDS` for more.
fn rounds() -> usize {
    std::env::var("DAX_MODEL_ROUNDS").map_or(4000, |n| n.parse().expect("a number"))
}

#[test]
fn holds_in_every_interleaving() {
    for scene in SCENES {
        explore(scene, Mistake::None, rounds());
    }
}

#[test]
fn every_mistake_is_found() {
    let mistakes: [(Mistake, Scene); 16] = [
        (Mistake::FlushBeforeProtect, stores_and_syncs),
        (Mistake::TakeBeforeProtect, stores_and_syncs),
        (Mistake::TagAfterInsert, stores_and_syncs),
        (Mistake::InsertAfterUnlock, stores_and_syncs),
        (Mistake::NoWindow, stores_and_syncs),
        (Mistake::TrustHot, hot_pages),
        (Mistake::CoolUnprotected, hot_pages),
        (Mistake::TakeHot, hot_pages),
        (Mistake::ClearMarkLate, zaps_and_dma),
        (Mistake::WritableCheckedEarly, late_mapping),
        (Mistake::IgnoreDma, zaps_and_dma),
        (Mistake::FreePinned, truncation),
        (Mistake::DropTags, truncation),
        (Mistake::FreeMapped, truncation),
        (Mistake::LookupEarly, holes),
        (Mistake::LeaveZero, holes),
    ];
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let blind: Vec<Mistake> = mistakes
        .into_iter()
        .filter(|(mistake, scene)| {
            catch_unwind(AssertUnwindSafe(|| explore(*scene, *mistake, 40_000))).is_ok()
        })
        .map(|(mistake, _)| mistake)
        .collect();
    std::panic::set_hook(quiet);
    assert!(blind.is_empty(), "not found: {blind:?}");
}
