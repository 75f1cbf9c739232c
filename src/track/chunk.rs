// SPDX-License-Identifier: GPL-2.0

//! The state machine of a chunk: what the file system knows about the mappings of 512 pages
//! (2 MiB) of a file.
//!
//! Pure: no locks, no kernel. The same file is compiled into the module and, on the host, into
//! `tools/dax-model`, where a model checker runs it under every interleaving of fault, fsync, zap
//! and truncate. The functions return what has to be done to page tables, folios and cache lines.
//! The caller (`fault.rs`, `sync.rs`, `layout.rs`) does it before it drops the lock.
//!
//! The chunk lock ([`State`]) protects, for each page, whether it is
//!
//! * *absent*: no page table entry leads to it,
//! * *zero*: a hole that was read; the shared zero page may be mapped there, or
//! * *present*: a block of the file may be mapped there, and its folio belongs to the file;
//!
//! and the tag lock ([`Tags`]) protects whether a present page is *dirty*: its cache lines may
//! hold stores that were not written back.
//!
//! Guarantees, if the callers obey:
//!
//! * A page that some page table maps writable is dirty. ("Tag before insert", under the chunk
//!   lock.)
//! * A page stops being dirty only after all its mappings were write-protected and before its lines
//!   are written back. The types enforce it: [`Tags::dirty_in`] returns a [`Snapshot`], which turns
//!   into [`Protected`]. Only that can be [taken](Tags::take), which returns [`Taken`], the pages
//!   that must be written back now. Hot pages are [kept](Snapshot::keep): written back, but still
//!   dirty.
//! * A *huge* chunk is one folio of 2 MiB, and may be mapped as that. Its pages become dirty all at
//!   once, and are write-protected all at once, but are taken and written back one by one.
//! * Pages that a sync has taken but not yet made durable are in a [`Window`], for which every
//!   later sync of an overlapping range waits.

use core::ops::DerefMut;

use super::density::Density;
use super::heat::Heat;
use super::page_set::{PageSet, PAGES};

/// What is known of a page under the chunk lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is mapped; what the file has there is unknown.
    Absent,
    /// A hole; the zero page may be mapped.
    Zero,
    /// This block of the volume may be mapped, and its folio belongs to the file.
    Present(u64),
}

/// What a fault must do before it inserts a block, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct MapBlock {
    /// Remove the zero page from all page tables: a different page cannot be inserted over it.
    pub unmap_zero: bool,
    /// Give the folio of the block to the file (mapping and index).
    pub associate: bool,
}

/// A run of pages of a chunk whose blocks are contiguous on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First page in the chunk.
    pub page: usize,
    /// Its block.
    pub block: u64,
    /// Number of pages, at least 1.
    pub len: usize,
}

/// The blocks of the present pages. Most chunks are contiguous: then the block of page 0 is enough.
/// Others need a table.
pub struct Blocks<T> {
    /// Where page 0 is, or would be; wraps below zero.
    origin: u64,
    table: Option<T>,
}

impl<T: DerefMut<Target = [u64; PAGES]>> Blocks<T> {
    /// As [`State::block`].
    pub fn block(&self, page: usize) -> u64 {
        match self.table.as_ref().and_then(|t| t.get(page)) {
            Some(block) => *block,
            None => self.origin.wrapping_add(page as u64),
        }
    }
}

/// How many loads make way for a store.
pub const WAY: u8 = 16;

/// After a chunk was split for a store, it is joined again for loads when this many have faulted: a
/// fault costs 1,500 instructions, and to join and split 512 pages 100,000.
pub const READS: u16 = 64;
/// The upper limit, however often the chunk was split.
const READS_MAX: u16 = 1 << 14;

/// After this many stores to holes of a chunk, each of which was given one block, all of its holes
/// are filled. Such a store costs 16,000 instructions, most of them for a transaction, and 2 MiB
/// filled at once 450,000. So to fill a chunk that is stored to all over costs less than twice what
/// it would at the first store, and one with fewer stores stays sparse.
pub const HOLES: u8 = 16;

/// What the chunk lock guards. `T` is a heap-allocated table of one block number a page.
pub struct State<T> {
    present: PageSet,
    zero: PageSet,
    /// Dirty, but write-protected since the last store to them. Only where that sync had nothing to
    /// write back.
    settled: PageSet,
    blocks: Blocks<T>,
    /// All pages are present, and their blocks are one folio.
    huge: bool,
    /// Stores need small pages.
    small: bool,
    /// The chunk is never mapped as one.
    never_huge: bool,
    /// Zeros are mapped page by page.
    zeros_small: bool,
    /// How many more loads map page by page, for a store that waits.
    way: u8,
    /// How many loads must map page by page after the last split for a store, and how many still
    /// must.
    reads: u16,
    reads_left: u16,
    /// How many stores to holes were given one block each.
    holes: u8,
    /// Which pages are hot; in a huge chunk none, unless it is locked in memory.
    pub heat: Heat<T>,
    /// Whether all of a huge chunk is stored to.
    pub density: Density,
}

impl<T: DerefMut<Target = [u64; PAGES]>> State<T> {
    /// A chunk without mapped pages.
    pub fn new() -> Self {
        State {
            present: PageSet::EMPTY,
            zero: PageSet::EMPTY,
            settled: PageSet::EMPTY,
            blocks: Blocks {
                origin: 0,
                table: None,
            },
            huge: false,
            small: false,
            never_huge: false,
            zeros_small: false,
            way: 0,
            reads: 0,
            reads_left: 0,
            holes: 0,
            heat: Heat::new(),
            density: Density::new(),
        }
    }

    /// Whether the chunk is one folio of 2 MiB.
    pub fn is_huge(&self) -> bool {
        self.huge
    }

    /// Whether the chunk may be mapped as one folio, for a store if `write`.
    pub fn may_map_huge(&self, write: bool) -> bool {
        let may = match write {
            true => !self.small,
            false => self.huge || self.reads_left == 0,
        };
        may && !self.never_huge
    }

    /// The folio was split for a store. It becomes one again for loads after [`READS`] loads have
    /// faulted, which cost as much as that; and after twice as many each following time.
    pub fn was_split(&mut self) {
        self.reads = (2 * self.reads).clamp(READS, READS_MAX);
        self.reads_left = self.reads;
    }

    /// A load maps one page.
    pub fn read_page(&mut self) {
        self.reads_left = self.reads_left.saturating_sub(1);
    }

    /// A store to a hole is to be given one block. Returns whether it is time to fill all holes of
    /// the chunk instead.
    #[must_use]
    pub fn store_to_hole(&mut self) -> bool {
        self.holes = (self.holes + 1) % HOLES;
        self.holes == 0
    }

    /// From now on, the chunk becomes dirty page by page: it was dirty as a whole, but only some
    /// pages were stored to.
    pub fn store_small(&mut self) {
        self.small = true;
    }

    /// From now on, the chunk may become dirty as a whole: all its pages were stored to.
    pub fn store_whole(&mut self) {
        self.small = false;
        (self.reads, self.reads_left) = (0, 0);
    }

    /// Whether 2 MiB of zeros may be mapped in one piece.
    pub fn may_map_zeros_huge(&self) -> bool {
        !self.zeros_small
    }

    /// A store is about to fill a page of a hole: from now on, zeros are mapped page by page.
    /// Otherwise readers could map them in one piece again and again before the store gets there.
    pub fn zeros_small(&mut self) {
        self.zeros_small = true;
    }

    /// A store needs a page and found the chunk mapped in one piece: the next [`WAY`] loads must
    /// not map it that way. One of them leaves a page table at the address of the store, and then
    /// nothing is in its way any more; those of other address spaces do not matter.
    pub fn make_way(&mut self) {
        self.way = WAY;
    }

    /// Whether a load must not map the chunk in one piece, for the sake of a store.
    #[must_use]
    pub fn gives_way(&mut self) -> bool {
        let gives = self.way > 0;
        self.way = self.way.saturating_sub(1);
        gives
    }

    /// From now on, the chunk is mapped page by page.
    pub fn never_huge(&mut self) {
        self.never_huge = true;
    }

    /// The blocks from `block` on were made one folio, which is going to be mapped. Only zero pages
    /// may have been mapped; returns whether they have to be unmapped.
    #[must_use]
    pub fn map_huge(&mut self, block: u64) -> bool {
        debug_assert!(self.present.is_empty());
        self.blocks.origin = block;
        self.present = PageSet::ALL;
        self.huge = true;
        !core::mem::replace(&mut self.zero, PageSet::EMPTY).is_empty()
    }

    /// The dirty pages that were write-protected since the last store to them, by a sync for which
    /// they were durable as they were. They stay dirty, in case the next sync must write them back.
    pub fn settled(&self) -> &PageSet {
        &self.settled
    }

    /// The pages become [`settled`](State::settled).
    pub fn settle(&mut self, pages: &Protected) {
        self.settled.insert_all(&pages.0);
    }

    /// A store may happen to `page` from now on. Returns whether it was settled.
    pub fn unsettle_page(&mut self, page: usize) -> bool {
        self.settled.remove(page)
    }

    /// A store may happen to one of `pages` from now on.
    pub fn unsettle(&mut self, pages: &PageSet) {
        self.settled.remove_all(pages);
    }

    /// The pages, which are mapped nowhere, are about to be one folio: forgets where they were.
    /// Their [`Tags`] stay.
    pub fn join(&mut self) {
        self.present = PageSet::EMPTY;
        self.blocks.table = None;
        self.heat.cool(&PageSet::ALL);
    }

    /// The folio, which is mapped nowhere, was split; each page still belongs to the file.
    pub fn split(&mut self) {
        self.huge = false;
    }

    /// What is known of `page`.
    pub fn entry(&self, page: usize) -> Entry {
        if self.present.contains(page) {
            Entry::Present(self.block(page))
        } else if self.zero.contains(page) {
            Entry::Zero
        } else {
            Entry::Absent
        }
    }

    /// The pages whose folios belong to the file.
    pub fn present(&self) -> &PageSet {
        &self.present
    }

    /// Whether [`State::map_block`] needs a table to record that `page` is at `block`.
    pub fn needs_table(&self, page: usize, block: u64) -> bool {
        self.blocks.table.is_none()
            && !self.present.is_empty()
            && self.blocks.origin.wrapping_add(page as u64) != block
    }

    /// A read fault found a hole: the zero page is going to be mapped at `page`, which must not be
    /// present.
    pub fn map_zero(&mut self, page: usize) {
        debug_assert!(!self.present.contains(page));
        self.zero.insert(page);
    }

    /// A read fault found a hole: 2 MiB of zeros are going to be mapped in one piece. No page is
    /// present.
    pub fn map_zeros(&mut self) {
        debug_assert!(self.present.is_empty());
        self.zero = PageSet::ALL;
    }

    /// A fault found `block` at `page` and is going to map it. `table` is used if
    /// [`State::needs_table`] said so.
    pub fn map_block(&mut self, page: usize, block: u64, table: Option<T>) -> MapBlock {
        let unmap_zero = self.zero.remove(page);
        if self.present.is_empty() {
            self.blocks.origin = block.wrapping_sub(page as u64);
        } else if self.needs_table(page, block) {
            self.blocks.table = table;
            if let Some(table) = self.blocks.table.as_mut() {
                for (i, slot) in table.iter_mut().enumerate() {
                    *slot = self.blocks.origin.wrapping_add(i as u64);
                }
            }
        }
        if let Some(slot) = self.blocks.table.as_mut().and_then(|t| t.get_mut(page)) {
            *slot = block;
        }
        MapBlock {
            unmap_zero,
            associate: self.present.insert(page),
        }
    }

    /// The holes among `pages` were filled by write(2) or fallocate: returns the pages where the
    /// zero page has to be unmapped. The next access faults and finds the block.
    #[must_use]
    pub fn fill(&mut self, pages: &PageSet) -> PageSet {
        let stale = self.zero.and(pages);
        self.zero.remove_all(&stale);
        stale
    }

    /// Forgets `pages`, which are mapped nowhere and whose folios are idle; returns those whose
    /// folios have to be taken from the file. [`Tags::forget`] forgets their [`Tags`]. In a huge
    /// chunk, `pages` must be all.
    #[must_use]
    pub fn forget(&mut self, pages: &PageSet) -> PageSet {
        self.heat.cool(pages);
        self.huge = false;
        let gone = self.present.and(pages);
        self.present.remove_all(&gone);
        self.zero.remove_all(pages);
        self.settled.remove_all(pages);
        if self.present.is_empty() {
            self.blocks.table = None;
        }
        gone
    }

    /// The block of `page`: meaningful for pages that are present, or were when the lock was
    /// taken.
    pub fn block(&self, page: usize) -> u64 {
        self.blocks.block(page)
    }

    /// The heat of the pages, and their blocks: the content of the blocks changes the heat.
    pub fn heat_and_blocks(&mut self) -> (&mut Heat<T>, &Blocks<T>) {
        (&mut self.heat, &self.blocks)
    }

    /// Cuts the present pages of `pages` into runs that are contiguous in the file and on the
    /// device, ascending.
    pub fn runs<'a>(&'a self, pages: &PageSet) -> impl Iterator<Item = Run> + 'a {
        let pages = self.present.and(pages);
        let mut from = 0;
        core::iter::from_fn(move || {
            let page = pages.next(from)?;
            let block = self.block(page);
            let mut len = pages.next_gap(page) - page;
            if self.blocks.table.is_some() {
                len = (1..len)
                    .find(|i| self.block(page + i) != block.wrapping_add(*i as u64))
                    .unwrap_or(len);
            }
            from = page + len;
            Some(Run { page, block, len })
        })
    }
}

impl<T: DerefMut<Target = [u64; PAGES]>> Default for State<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What the tag lock guards: a spinning lock, because pages are also tagged under a page table
/// lock, when a dirty entry is zapped. The chunk's mark in the tree of chunks is set exactly while
/// a page is dirty; both change together under that lock.
#[derive(Default)]
pub struct Tags {
    dirty: PageSet,
}

/// What tagging pages changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Tagged {
    /// How many of the pages were clean.
    pub newly: usize,
    /// The whole chunk was clean: set its mark.
    pub set_mark: bool,
}

/// Pages that were seen dirty, and may be mapped writable.
#[derive(Clone, Copy)]
#[must_use]
pub struct Snapshot(PageSet);

/// A page that stays dirty, and may stay writable; its lines must be written back all the same.
#[must_use]
pub struct Kept(());

/// Pages whose mappings were all write-protected while the chunk lock was held, and still is.
#[must_use]
pub struct Protected(PageSet);

/// Pages that are no longer dirty and whose lines must be written back before the chunk lock is
/// dropped.
#[must_use]
pub struct Taken(PageSet);

impl Tags {
    /// A chunk without a dirty page.
    pub const fn new() -> Self {
        Tags {
            dirty: PageSet::EMPTY,
        }
    }

    /// A store may happen to `page` from now on, or has happened.
    pub fn set_page(&mut self, page: usize) -> Tagged {
        let set_mark = self.dirty.is_empty();
        Tagged {
            newly: usize::from(self.dirty.insert(page)),
            set_mark,
        }
    }

    /// As [`Tags::set_page`], for `pages`, of which there is at least one.
    pub fn set(&mut self, pages: &PageSet) -> Tagged {
        let set_mark = self.dirty.is_empty();
        let before = self.dirty.and(pages).count();
        self.dirty.insert_all(pages);
        Tagged {
            newly: pages.count() - before,
            set_mark,
        }
    }

    /// How many consecutive pages right before `page`, or right after it, are dirty: the larger
    /// number.
    #[inline]
    pub fn row_beside(&self, page: usize) -> usize {
        let before = self.dirty.run_before(page);
        before.max(self.dirty.run_after(page))
    }

    /// The dirty pages among `pages`. The chunk lock is held from here to the write-back, so that
    /// no fault makes one of them writable again in between.
    pub fn dirty_in(&self, pages: &PageSet) -> Snapshot {
        Snapshot(self.dirty.and(pages))
    }

    /// Makes `protected` clean; the caller then writes the returned pages back. This includes a
    /// page that a zap or the end of a DMA has tagged again since it was seen: its stores precede
    /// the write-back. The flag says that no page is left dirty: clear the chunk's mark.
    pub fn take(&mut self, protected: Protected) -> (Taken, bool) {
        self.dirty.remove_all(&protected.0);
        (Taken(protected.0), self.dirty.is_empty())
    }

    /// The pages are being taken from the file: their content does not matter any more. Returns
    /// whether the chunk's mark must be cleared.
    #[must_use]
    pub fn forget(&mut self, pages: &PageSet) -> bool {
        let some = !self.dirty.is_empty();
        self.dirty.remove_all(pages);
        some && self.dirty.is_empty()
    }
}

impl Snapshot {
    /// The pages.
    pub fn pages(&self) -> &PageSet {
        &self.0
    }

    /// Removes `pages` from the set: they stay as they are.
    pub fn leave_out(&mut self, pages: &PageSet) {
        self.0.remove_all(pages);
    }

    /// `page`, which is in the set, stays writable, and is removed from it.
    #[inline]
    pub fn keep(&mut self, page: usize) -> Kept {
        self.0.remove(page);
        Kept(())
    }

    /// Every shared mapping of every page was write-protected, or the file has no mapping that
    /// could be writable.
    pub fn write_protected(self) -> Protected {
        Protected(self.0)
    }
}

impl Protected {
    /// The pages.
    pub fn pages(&self) -> &PageSet {
        &self.0
    }
}

impl Kept {
    /// The write-back of every line of the page was started; returns the number of pages, 1. They
    /// are durable after a fence.
    pub fn written_back(self) -> usize {
        1
    }
}

impl Taken {
    /// The pages.
    pub fn pages(&self) -> &PageSet {
        &self.0
    }

    /// The write-back of every line of every page was started; returns the number of pages. They
    /// are durable after a fence.
    pub fn written_back(self) -> usize {
        self.0.count()
    }
}

/// A sync in flight: from before it takes its first page until its fence is done.
///
/// Another sync that finds one of those pages clean must not return before that fence. Windows are
/// kept per inode, under the tag lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Sequence number, per inode, in the order of opening.
    pub seq: u64,
    /// First page of the file that the sync may have taken.
    pub first: u64,
    /// One past the last page that it may have taken so far. It grows with each chunk, so that a
    /// long sync does not delay a sync of pages that it has not reached.
    pub end: u64,
}

impl Window {
    /// Whether a sync of the pages `first..=last`, which drew the number `now` after it had looked
    /// at all of them, must wait for this one. Later ones have taken nothing that it needs, so the
    /// wait ends.
    pub fn covers(&self, now: u64, first: u64, last: u64) -> bool {
        self.seq < now && self.first <= last && first < self.end
    }
}
