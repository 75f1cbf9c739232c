// SPDX-License-Identifier: GPL-2.0

//! How the dirty pages of a chunk reach the media: the order of steps.
//!
//! Under the chunk lock: write-protect the shared mappings of each run of dirty pages that is contiguous
//! in the file and on the device, so that the next store faults and tags again; make the pages clean; write
//! their cache lines back. Hot pages stay writable and dirty, and are only written back; pages that are
//! pinned stay dirty, too. A fence, later, makes it durable.
//!
//! What these steps are made of is the [`Machine`]'s.

use core::ops::DerefMut;

use super::chunk::{Kept, Protected, Run, Snapshot, State, Taken};
use super::density::SAMPLE;
use super::page_set::{PageSet, PAGES};
use crate::mutate::mutated;

/// What becomes of hot pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hot {
    /// They stay writable, and what is pinned stays dirty.
    Keep,
    /// They are write-protected like all others: nothing is dirty or writable afterwards.
    Protect,
}

/// How a sync goes about it.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// What becomes of hot pages.
    pub hot: Hot,
    /// Lines are written back, and pages become clean.
    pub flush: bool,
}

/// What a sync has done to a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Pages of which the write-back was started: a fence has to follow.
    pub written_back: usize,
    /// Pages among them that stay writable.
    pub hot: usize,
}

/// Tells what the pages of a device hold: as long as it is there, nothing sleeps.
pub trait Fingerprints {
    /// The fingerprint of what `block` holds; `None` if it cannot be read.
    fn of(&mut self, block: u64) -> Option<u64>;
}

/// The memory manager, the processor and the tags of one chunk of a file, as a sync sees them. The chunk
/// lock is held.
pub trait Machine {
    /// A table of a block, or a fingerprint, for each page.
    type Table: DerefMut<Target = [u64; PAGES]>;

    /// The number of the chunk in its file.
    fn index(&self) -> u64;

    /// Makes pages clean that were write-protected; opens the window of the sync before.
    fn take(&mut self, pages: Protected) -> Taken;
    /// Stores may reach `page`, which has become clean.
    fn tag(&self, page: usize);

    /// Whether the file may be mapped writable. A first mapping that appears later faults later.
    fn is_writably_mapped(&self) -> bool;
    /// Write-protects all shared mappings of the pages of `run`.
    fn write_protect(&self, run: Run);
    /// Takes the whole chunk out of all page tables, and waits for who is at it.
    fn unmap(&self);

    /// Starts the write-back of the lines of `run`.
    fn write_back(&self, run: Run);
    /// What pages hold.
    fn fingerprints(&self) -> impl Fingerprints + '_;

    /// Whether somebody holds the page of `block`, or another one of its folio, besides page tables.
    fn is_held(&self, block: u64) -> bool;
    /// Forgets that the page of `block`, or its folio, was dirtied by who had it pinned.
    fn forget_dirty(&self, block: u64);

    /// A page was stored to: moves the times of the file.
    fn touch(&self);
    /// Memory for a table, if there is some at once.
    fn table(&self) -> Option<Self::Table>;
    /// Lets others run where a mistake was made: what would be rare becomes certain.
    fn linger(&self);
}

/// Writes back pages of a chunk that were seen dirty under the chunk lock, without the fence. From then to
/// the write-back no fault makes a page of the chunk writable.
pub fn write_back<M: Machine>(
    machine: &mut M,
    state: &mut State<M::Table>,
    dirty: Snapshot,
    how: How,
) -> Done {
    let mut cold = dirty;
    if !how.flush {
        cold.leave_out(state.settled());
    }
    if cold.pages().is_empty() {
        return Done::default();
    }
    // Asked under the chunk lock.
    let writable = machine.is_writably_mapped();
    let whole = *cold.pages() == PageSet::ALL;
    // The hot pages that do not stay so.
    let mut cooling = state.heat.hot().and(cold.pages());
    let mut done = Done::default();
    if writable && how.hot == Hot::Keep {
        done.hot = keep_hot(machine, state, &mut cold, &mut cooling, how.flush);
        done.written_back = done.hot;
    }
    if cold.pages().is_empty() {
        state.heat.synced(&PageSet::EMPTY);
    } else {
        let early = mutated!("write-back-early");
        if early {
            start_write_back(machine, state, cold.pages());
            machine.linger();
        }
        if writable && !mutated!("write-protect") {
            write_protect(machine, state, cold.pages());
        }
        flush_zapped(machine, state);
        cool(machine, state, &cooling);
        let protected = cold.write_protected();
        state.heat.synced(protected.pages());
        if how.flush {
            let taken = machine.take(protected);
            forget_dirty(machine, state, taken.pages(), how.hot);
            if !early && !mutated!("sync-write-back") {
                start_write_back(machine, state, taken.pages());
            }
            done.written_back += taken.written_back();
        } else {
            state.settle(&protected);
        }
    }
    if state.is_huge() {
        let sample = whole
            .then(|| sample(machine.fingerprints(), machine.index(), state))
            .flatten();
        if !state.density.end(sample) {
            // The next store makes small pages of it: or one byte would cost 2 MiB at each sync.
            state.store_small();
        }
    } else if whole {
        state.store_whole();
    }
    match how.flush {
        true => done,
        false => Done {
            written_back: 0,
            ..done
        },
    }
}

fn start_write_back<M: Machine>(machine: &M, state: &State<M::Table>, pages: &PageSet) {
    for run in state.runs(pages) {
        machine.write_back(run);
    }
}

/// Writes back those of the `dirty` pages of a chunk that may stay writable, and takes them out of it.
/// Moves the times of the file if one of them was stored to. Returns how many stay. `hot` are the hot
/// ones among `dirty`; afterwards, those of them that do not stay: they have to be [cooled](cool).
fn keep_hot<M: Machine>(
    machine: &M,
    state: &mut State<M::Table>,
    dirty: &mut Snapshot,
    hot: &mut PageSet,
    flush: bool,
) -> usize {
    let huge = state.is_huge();
    let (heat, blocks) = state.heat_and_blocks();
    // After its fingerprint was taken: a store in between is found by the next sync.
    let write_back = |kept: Kept, page| {
        if flush && !mutated!("hot-write-back") {
            let block = blocks.block(page);
            machine.write_back(Run {
                page,
                block,
                len: 1,
            });
        }
        kept.written_back()
    };
    let mut kept = 0;
    if !hot.is_empty() {
        let stored_to = {
            let mut fingerprints = machine.fingerprints();
            heat.review(
                hot,
                |page| fingerprints.of(blocks.block(page)),
                |page| kept += write_back(dirty.keep(page), page),
            )
        };
        if stored_to {
            // Under the chunk lock: another sync that finds no more change may rely on it.
            machine.touch();
        }
    }
    if huge || !heat.warm().intersects(dirty.pages()) {
        return kept;
    }
    if heat.needs_table() {
        // No page needs to become hot.
        match machine.table() {
            Some(table) => heat.set_table(table),
            None => return kept,
        }
    }
    let fresh = {
        let mut fingerprints = machine.fingerprints();
        heat.heat_up(dirty.pages(), |page| fingerprints.of(blocks.block(page)))
    };
    let mut next = fresh.next(0);
    while let Some(page) = next {
        kept += write_back(dirty.keep(page), page);
        next = fresh.next(page + 1);
    }
    kept
}

/// Ends the heat of `pages`, which nobody can store to any more: a store up to then moves the times of
/// the file.
fn cool<M: Machine>(machine: &M, state: &mut State<M::Table>, pages: &PageSet) {
    if pages.is_empty() {
        return;
    }
    let stored_to = {
        let (heat, blocks) = state.heat_and_blocks();
        let mut fingerprints = machine.fingerprints();
        heat.cool_down(pages, |page| fingerprints.of(blocks.block(page)))
    };
    if stored_to {
        machine.touch();
    }
}

/// The fingerprints of the pages that tell whether a huge chunk, number `index` of its file, is stored to
/// all over.
pub fn sample<T: DerefMut<Target = [u64; PAGES]>>(
    mut fingerprints: impl Fingerprints,
    index: u64,
    state: &State<T>,
) -> Option<[u64; SAMPLE]> {
    let mut sample = [0; SAMPLE];
    for (slot, page) in sample.iter_mut().zip(state.density.pages(index)) {
        *slot = fingerprints.of(state.block(page))?;
    }
    Some(sample)
}

/// Sees to it that no CPU stores to a huge chunk, which is write-protected, by an entry that it still
/// has in its TLB. Where 2 MiB are zapped, the memory manager flushes that after it has unlocked the
/// page table; it holds a reference to the folio until then, as a pin does. Unmapping flushes it for
/// whoever is at it.
fn flush_zapped<M: Machine>(machine: &M, state: &State<M::Table>) {
    if state.is_huge() && machine.is_held(state.block(0)) && !mutated!("flush-zapped") {
        machine.unmap();
    }
}

/// Takes PG_dirty from `pages`, which were taken and are not yet written back: who ends a pin of a page
/// that has it does not tell the file system. KVM sets it, for a page that it has mapped, and so not
/// after the page was write-protected.
///
/// Those that are pinned are tagged again, unless all are to be clean: DMA may reach them as long as that
/// lasts. Its end tags as well, but who waits for an asynchronous read may be told of its end before the
/// kernel dirties the page (`blkdev_bio_end_io_async()`), and call fsync in between. What is not pinned
/// now is all there, and is about to be written back.
fn forget_dirty<M: Machine>(machine: &M, state: &State<M::Table>, pages: &PageSet, hot: Hot) {
    let is_pinned = |page| {
        let block = state.block(page);
        machine.forget_dirty(block);
        hot == Hot::Keep && machine.is_held(block)
    };
    // All pages of a huge folio have one flag and one count.
    let huge = state.is_huge();
    if huge && !is_pinned(0) {
        return;
    }
    let mut next = pages.next(0);
    while let Some(page) = next {
        if huge || is_pinned(page) {
            machine.tag(page);
        }
        next = pages.next(page + 1);
    }
}

/// Write-protects all shared mappings of `pages`.
fn write_protect<M: Machine>(machine: &M, state: &State<M::Table>, pages: &PageSet) {
    // A mapping of 2 MiB is protected as a whole or not at all.
    let pages = if state.is_huge() {
        &PageSet::ALL
    } else {
        pages
    };
    for run in state.runs(pages) {
        machine.write_protect(run);
    }
}
