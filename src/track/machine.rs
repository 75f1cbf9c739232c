// SPDX-License-Identifier: GPL-2.0

//! The interface of dirty tracking to the rest of the world: locks and chunks ([`Tracking`]), page
//! tables, pages, cache lines and blocks of a file ([`Machine`]), a page fault ([`Fault`]).
//!
//! The kernel's implementations are in `dax`. On the host `tools/dax-model` has a machine whose
//! every step a model checker interleaves with every other.
//!
//! Locks, outermost first: freeze protection; the [invalidate lock](Machine::keep_blocks); what
//! keeps [chunks](Tracking::stay); the chunk lock ([`Tracking::lock`]); the lock of the
//! [blocks](Machine::blocks); the tag lock ([`Tracking::lock_tags`]), which spins. Page numbers are
//! those of the file, block numbers those of the volume; both have 4 KiB.

use core::ops::{DerefMut, Range};

use super::ahead::Ask;
use super::chunk::{State, Tags};
use super::left::LeftBehind;
use super::page_set::{PageSet, PAGES};
use super::place::Place;
use super::windows::{Syncs, WindowList};
use crate::volume::alloc::Run;
use crate::volume::file::Map;

/// The table of blocks, or of fingerprints, of a chunk of `M`.
pub type TableOf<M> = <<M as Machine>::Tracker as Tracking>::Table;
/// A chunk of `M`.
pub type ChunkOf<M> = <<M as Machine>::Tracker as Tracking>::Chunk;
/// What the lock of a chunk of `M` guards.
pub type StateOf<M> = State<TableOf<M>>;

/// The chunks of one file, and the state of its syncs.
pub trait Tracking {
    /// A table of a block, or a fingerprint, for each page.
    type Table: DerefMut<Target = [u64; PAGES]>;
    /// The state of 512 pages.
    type Chunk;
    /// The lock of a chunk, held.
    type Guard<'a>: DerefMut<Target = State<Self::Table>>
    where
        Self: 'a;
    /// The tag lock, held. It spins: nothing sleeps meanwhile.
    type Locked<'a>
    where
        Self: 'a;
    /// The windows of the syncs in flight.
    type Windows: WindowList;

    /// The chunk `index`, if a fault made it. The caller keeps it from being freed: by the
    /// invalidate lock, by [`Tracking::stay`], or by a reference to a page of it.
    fn chunk(&self, index: u64) -> Option<&Self::Chunk>;
    /// The chunks with a page in `first..=last`, ascending; with dirty pages only if `dirty`.
    fn chunks(&self, first: u64, last: u64, dirty: bool) -> impl Iterator<Item = &Self::Chunk>;
    /// Whether the file was never mapped: there is no chunk, and nobody is freeing one.
    fn is_unused(&self) -> bool;
    /// Keeps existing chunks from being freed. May sleep.
    fn stay(&self) -> impl Sized + '_;
    /// Where a chunk is in its file.
    fn place(&self, chunk: &Self::Chunk) -> Place;
    /// Waits for the lock of a chunk.
    fn lock<'a>(&'a self, chunk: &'a Self::Chunk) -> Self::Guard<'a>;

    /// Waits for the tag lock.
    fn lock_tags(&self) -> Self::Locked<'_>;
    /// The tags of a chunk.
    fn tags<'a>(&self, locked: &'a mut Self::Locked<'_>, chunk: &'a Self::Chunk) -> &'a mut Tags;
    /// The syncs of the file.
    fn syncs<'a>(&self, locked: &'a mut Self::Locked<'_>) -> &'a mut Syncs<Self::Windows>;
    /// Sets or clears the mark of a chunk.
    fn set_mark(&self, locked: &mut Self::Locked<'_>, chunk: &Self::Chunk, marked: bool);
    /// Whether a chunk is marked, without the tag lock. Later reads see newer values.
    fn is_any_marked(&self) -> bool;

    /// Runs `f` with a place for the window of a sync. `f` removes what it inserts.
    fn with_slot<R>(&self, f: impl FnOnce(&mut <Self::Windows as WindowList>::Slot) -> R) -> R;
    /// How many syncs are in flight, without the tag lock.
    fn in_flight(&self) -> u32;
    /// Counts one more, or, if not `begins`, one fewer. The caller holds the tag lock. All CPUs see
    /// this before what the caller does next.
    fn count_in_flight(&self, begins: bool);
    /// How many syncs have failed, ever.
    fn failed(&self) -> u32;
    /// Counts one more. All CPUs see this before what the caller does next.
    fn count_failed(&self);
    /// Releases the tag lock, sleeps until [`Tracking::notify`], and takes the lock again.
    fn wait(&self, locked: &mut Self::Locked<'_>);
    /// Wakes all waiters.
    fn notify(&self);
}

/// Why an operation on mapped pages failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The device is gone, or has lost stores.
    Device,
    /// A block is used twice.
    UsedTwice,
}

/// What is counted, for observers of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A page was tagged that was clean.
    Tagged,
    /// A page was written back.
    WrittenBack,
    /// A page was written back that stays writable.
    Hot,
    /// A hole was read.
    HoleRead,
}

/// The result of examining the 512 pages of 2 MiB of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Examined {
    /// No page is mapped, pinned, bad, or belongs to another file.
    pub free: bool,
    /// One of them was dirtied by a pin that outlived its last owner.
    pub dirty: bool,
}

/// Computes fingerprints of pages of the device. Nothing sleeps while it exists.
pub trait Fingerprints {
    /// The fingerprint of the content of `block`; `None` if it cannot be read.
    fn of(&mut self, block: u64) -> Option<u64>;
}

/// The blocks of a file, locked.
pub trait Blocks {
    /// What can go wrong.
    type Error;
    /// What the file has from `page` on, up to `len` pages.
    fn find(&mut self, page: u64, len: u64) -> Result<Map, Self::Error>;
    /// Fills a hole, or makes data of unwritten blocks, from `page` on, up to `len` pages: returns
    /// the first block, and the number of blocks. They are zero, durably. Fails, and does nothing,
    /// if there is no space for `least` contiguous pages; the hole has at least as many.
    fn fill(&mut self, page: u64, least: u64, len: u64) -> Result<Run, Self::Error>;
    /// Fills holes among the `len` pages from `page` on. Returns the number of pages, from the first
    /// on, that are no hole any more, at least 1. They are zero, durably.
    fn fill_all(&mut self, page: u64, len: u64) -> Result<u64, Self::Error>;
}

/// The device of a mount: its cache lines and media, and the struct page of each block. What is
/// said of a page holds for all pages of a folio of 2 MiB.
pub trait Device {
    /// Keeps the device present; `None` if it is gone.
    fn access(&self) -> Option<impl Sized + '_>;

    /// Whether lines have to be written back; false where stores are durable as they are.
    fn has_write_cache(&self) -> bool;
    /// Starts the write-back of the lines of blocks.
    fn write_back(&self, block: u64, len: u64);
    /// Makes durable what was written back.
    fn fence(&self) -> Result<(), Failure>;
    /// Access to fingerprints of pages.
    fn fingerprints(&self) -> impl Fingerprints + '_;

    /// Whether one of the blocks is known to be bad.
    fn is_bad(&self, block: u64, len: u64) -> bool;
    /// Whether it could be the first one of a folio of 2 MiB.
    fn is_aligned(&self, block: u64) -> bool;
    /// Whether it is part of a folio of 2 MiB.
    fn is_huge(&self, block: u64) -> bool;
    /// Whether nobody maps or pins it.
    fn is_idle(&self, block: u64) -> bool;
    /// Whether somebody has it pinned, or a CPU may still have a zapped entry for it in its TLB.
    fn is_held(&self, block: u64) -> bool;
    /// Waits until it is idle. Nothing maps it again.
    fn wait_idle(&self, block: u64);
    /// Clears the flag that the holder of a pin dirtied it.
    fn forget_dirty(&self, block: u64);
    /// Makes it, which is idle, an ordinary page that belongs to nobody; for a folio, all pages.
    fn reset(&self, block: u64);
}

/// A mount, as eviction and the return of files use it.
pub trait Mount {
    /// Its device.
    type Device: Device;
    /// The lock of the pages and files that were left behind, held.
    type Left<'a>: DerefMut<Target = LeftBehind>
    where
        Self: 'a;

    /// Its device.
    fn device(&self) -> &Self::Device;
    /// Waits for the lock. May sleep.
    fn left(&self) -> Self::Left<'_>;
    /// Schedules a [release](super::evict::release) of them.
    fn release_later(&self);
    /// Counts pages that were written back.
    fn count_written_back(&self, nr: u64);
    /// Reports that stores to pages that were left behind are lost.
    fn stores_are_lost(&self);
    /// Runs `f`, in which memory reclaim does not enter a file system.
    fn without_reclaim<R>(&self, f: impl FnOnce() -> R) -> R;
}

/// One file: the memory manager, the processor and the volume, as dirty tracking sees them.
pub trait Machine {
    /// Its chunks.
    type Tracker: Tracking;
    /// Where its blocks are.
    type Device: Device;
    /// What can go wrong.
    type Error: From<Failure>;
    /// Its blocks, locked.
    type Blocks<'a>: Blocks<Error = Self::Error>
    where
        Self: 'a;

    /// Its chunks.
    fn tracker(&self) -> &Self::Tracker;
    /// Where its blocks are.
    fn device(&self) -> &Self::Device;
    /// Counts an event that happened `nr` times.
    fn count(&self, event: Event, nr: u64);
    /// Lets other tasks run at a seeded bug, so that a rare race becomes certain.
    fn linger(&self);

    // Page tables.

    /// Whether the file may be mapped writable. A first such mapping that appears later faults
    /// later.
    fn is_writably_mapped(&self) -> bool;
    /// Which of the 512 pages from `first` on are in a mapping that is locked in memory; if
    /// `writable`, only in one that can be stored through.
    fn locked(&self, first: u64, writable: bool) -> PageSet;
    /// Write-protects all shared mappings of the `len` pages from `page` on, which have the blocks
    /// from `block` on. A mapping of 2 MiB is protected as a whole, if all of it is given.
    fn write_protect(&self, page: u64, block: u64, len: usize);
    /// Removes the entries for pages `first..=last` from all page tables, and waits for tasks that
    /// are using them. Private copies stay.
    fn unmap(&self, first: u64, last: u64);

    // The struct pages of its blocks.

    /// Whether it belongs to another file, or to a page of this one other than `page`.
    fn is_of_another(&self, block: u64, page: u64) -> bool;
    /// Gives the page, which is part of no folio of 2 MiB, to `page` of the file. Returns whether
    /// it was dirtied meanwhile by a pin that outlived its last owner.
    fn associate(&self, block: u64, page: u64) -> bool;
    /// Warns: a folio that should be idle is not.
    fn is_not_idle(&self);
    /// Takes it, which is mapped nowhere, from the file; if it is idle, it is an ordinary page
    /// afterwards.
    fn dissociate(&self, block: u64);
    /// The same, for a page that may be pinned: returns whether it was idle. The end of a pin
    /// afterwards does not notify the file.
    fn leave_behind(&self, block: u64) -> bool;
    /// Examines the 512 pages from `block` on.
    fn examine(&self, block: u64) -> Examined;
    /// Makes one folio of the 512 pages from `block` on, and gives it to those of the file from
    /// `page` on. [`Machine::examine`] found them free.
    fn make_huge(&self, block: u64, page: u64);
    /// Gives the folio, which was left behind, to the pages of the file from `page` on.
    fn adopt_huge(&self, block: u64, page: u64);
    /// Waits until it is idle. Fails when a signal arrives, and returns after a moment in any case:
    /// it may have been mapped again.
    fn wait_idle(&self, block: u64) -> Result<(), Self::Error>;

    // The file.

    /// Its size in pages.
    fn pages(&self) -> u64;
    /// Updates its timestamps: a page was stored to.
    fn touch(&self);
    /// The bytes past its end in the last page may change.
    fn tail_may_change(&self);
    /// Tells every open file that stores are lost.
    fn stores_are_lost(&self);
    /// Makes timestamps durable that were updated only in memory.
    fn write_times(&self) -> Result<(), Self::Error>;
    /// A page was tagged just now: a sync of all files, and the flusher, must find this one.
    fn note(&self);
    /// Pages may belong to it from now on.
    fn own(&self);
    /// Whether pages may belong to it.
    fn is_owner(&self) -> bool;
    /// No page belongs to it any more, and none will.
    fn disown(&self);
    /// Its blocks.
    fn blocks(&self) -> Self::Blocks<'_>;
    /// Whether so few blocks are free that pages get one only when they are stored to.
    fn is_space_scarce(&self) -> bool;
    /// Which blocks a store to a hole at `page` asks for.
    fn ask(&self, page: u64) -> Ask;
    /// `ask` was given `len` blocks from page `first` on.
    fn filled(&self, ask: &Ask, first: u64, len: u64);

    // What is allowed now.

    /// Whether the file may be used, or stored to if `write`.
    fn check_usable(&self, write: bool) -> Result<(), Self::Error>;
    /// Whether the file system is about to be frozen, or is.
    fn is_freezing(&self) -> bool;
    /// Waits until the file system is not frozen, and prevents freezing.
    fn keep_thawed(&self) -> impl Sized + '_;
    /// The invalidate lock, shared: keeps blocks in the file while they are being mapped.
    fn keep_blocks(&self) -> impl Sized + '_;

    /// The invalidate lock, exclusively, if it can be had without waiting.
    fn try_keep_faults_out(&self) -> Option<impl Sized + '_>;

    // Memory.

    /// Runs `f`, in which memory reclaim does not enter a file system.
    fn without_reclaim<R>(&self, f: impl FnOnce() -> R) -> R;
    /// Makes the chunk `index`, if it does not exist. May sleep, and free chunks, also of this
    /// file.
    fn make_chunk(&self, index: u64) -> Result<(), Self::Error>;
    /// Notes that a chunk is used again.
    fn use_chunk(&self, chunk: &ChunkOf<Self>);
    /// A table. May sleep, and free chunks, also of this file.
    fn table(&self) -> Result<TableOf<Self>, Self::Error>;
    /// A table, if there is memory without waiting.
    fn table_at_once(&self) -> Option<TableOf<Self>>;
}

/// A page fault in a mapping of a file.
pub trait Fault {
    /// The file.
    type File: Machine;
    /// The result of an insertion.
    type Inserted;

    /// The file.
    fn file(&self) -> &Self::File;
    /// The page of the file.
    fn page(&self) -> u64;
    /// Whether the access is a store, also to a private mapping.
    fn is_write(&self) -> bool;
    /// Updates the timestamps of the file.
    fn update_time(&self) -> Result<(), <Self::File as Machine>::Error>;
    /// Whether the 2 MiB around the address are mapped in one piece.
    fn is_mapped_huge(&self) -> bool;
    /// Whether nothing is mapped in the 2 MiB around the address.
    fn is_unmapped_huge(&self) -> bool;
    /// Prepares the page table for an entry of a page, also one that the memory manager inserts
    /// after the handler has returned: installs a page table, and removes a marker.
    fn prepare(&self);
    /// Maps a block at the address; writable if `write`. If something is mapped there already, it
    /// must be the same block.
    fn insert(&self, block: u64, write: bool) -> Self::Inserted;
    /// How many further pages to map for a store next to a row of `row` writable pages: the result
    /// of [`ahead`](super::fault::ahead), but none for a mapping that is watched or locked.
    fn ahead(&self, row: usize) -> usize;
    /// The pages of the file that the mapping has, or may have, in the page table of the address.
    fn neighbours(&self) -> Range<u64>;
    /// Maps `len` blocks from `block` on writable, at the addresses from `page` on, which is one of
    /// the [`neighbours`](Fault::neighbours). Skips addresses where something else is mapped.
    fn insert_writable(&self, page: u64, block: u64, len: usize);
    /// Maps the zero page at the address, read-only.
    fn insert_zero(&self) -> Self::Inserted;
    /// Maps the folio of 2 MiB from `block` on; writable if `write`.
    fn insert_huge(&self, block: u64, write: bool) -> Self::Inserted;
    /// Maps 2 MiB of zeros in one piece, read-only; `None` if there is no memory for them.
    fn insert_huge_zero(&self) -> Option<Self::Inserted>;
}

/// The invalidate lock, exclusively: keeps faults out.
pub trait FaultsOut {
    /// Runs `f` with the lock released, and takes it again. Whatever the caller learnt under the
    /// lock may be wrong afterwards.
    fn unlocked<R>(&mut self, f: impl FnOnce() -> R) -> R;
}
