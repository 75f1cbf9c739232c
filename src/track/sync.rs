// SPDX-License-Identifier: GPL-2.0

//! Making mapped stores durable: the order of steps of fsync and msync.
//!
//! For each chunk with dirty pages, under its lock: write-protect the shared mappings of each run
//! of dirty pages that is contiguous in the file and on the device, so that the next store faults
//! and tags again; make the pages clean; write their cache lines back. Hot pages, and those of a
//! mapping that is locked in memory, stay writable and dirty, and are only written back; pinned
//! pages stay dirty, too. After the last chunk one fence makes all of it durable.
//!
//! Guarantee: when a sync returns without an error, every store to the range that was complete when
//! it began is durable, whether its mapping still exists or not, and has updated the timestamps of
//! the file. Nothing outside the range is written back.

use super::chunk::{Kept, Snapshot};
use super::density::SAMPLE;
use super::layout::unmap_chunk;
use super::machine::{ChunkOf, Device, Event, Fingerprints, Machine, StateOf, Tracking};
use super::page_set::PageSet;
use super::place::split;
use super::windows::{self, Taking};
use crate::mutate::mutated;

/// What a sync is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// fsync and msync: stores are durable afterwards. Without a write cache, the pages stay dirty.
    File,
    /// sync, syncfs and the flusher: pages that are not hot or pinned are clean afterwards.
    All,
    /// The end of stores: nothing is dirty or writable afterwards.
    End,
}

/// How a sync is done.
#[derive(Clone, Copy)]
struct How {
    purpose: Purpose,
    /// Lines are written back, and pages become clean.
    flush: bool,
}

/// What a sync did to a chunk.
#[derive(Default)]
struct Done {
    /// Pages whose write-back was started: a fence has to follow.
    written_back: usize,
    /// Pages among them that stay writable.
    hot: usize,
}

/// Stores may reach `page` of `chunk` from now on, or have. Returns how many pages were clean, and
/// the length of the row of dirty pages beside it. Does not sleep; a page table lock may be held.
#[inline]
pub fn tag_page<M: Machine>(machine: &M, chunk: &ChunkOf<M>, page: usize) -> (usize, usize) {
    machine.tail_may_change();
    let (newly, row) = windows::tag_page(machine.tracker(), chunk, page);
    tagged(machine, newly);
    (newly, row)
}

/// Stores may reach any of `pages` of `chunk`, of which there is at least one, from now on, or
/// have. Returns how many were clean. Does not sleep; a page table lock may be held.
#[inline]
pub fn tag<M: Machine>(machine: &M, chunk: &ChunkOf<M>, pages: &PageSet) -> usize {
    machine.tail_may_change();
    let newly = windows::tag(machine.tracker(), chunk, pages);
    tagged(machine, newly);
    newly
}

/// Pages were tagged, of which `newly` were clean.
#[inline]
fn tagged<M: Machine>(machine: &M, newly: usize) {
    machine.count(Event::Tagged, newly as u64);
    if !mutated!("note") {
        machine.note();
    }
}

/// `page` of the file was stored to, or any page of its chunk if `huge`: through a mapping that is
/// being zapped, or a pin that ends. Returns whether one was clean. Does not sleep; a page table
/// lock may be held.
pub fn dirty_page<M: Machine>(machine: &M, page: u64, huge: bool) -> bool {
    let (index, page) = split(page);
    let Some(chunk) = machine.tracker().chunk(index) else {
        // Only pages that belong to the file get here, and a fault gave them to it.
        return false;
    };
    let newly = match huge {
        true => tag(machine, chunk, &PageSet::ALL),
        false => tag_page(machine, chunk, page).0,
    };
    newly > 0
}

/// Makes the stores to the pages `first..=last` durable. May sleep. No chunk lock of the file is
/// held.
#[inline]
pub fn sync_range<M: Machine>(machine: &M, first: u64, last: u64) -> Result<(), M::Error> {
    if windows::is_quiet(machine.tracker()) {
        return Ok(());
    }
    sync_pages(machine, first, last, Purpose::File)
}

/// Writes back all of a file that was removed from the list of those with dirty pages: for sync,
/// syncfs, the flusher, freeze and unmount.
pub fn write_back_file<M: Machine>(machine: &M) -> Result<(), M::Error> {
    if windows::is_quiet(machine.tracker()) {
        return Ok(());
    }
    // A sync that removed the file from the list before a freeze began leaves hot pages, and adds
    // the file again. The first sync of the freeze waits for that, and the second finds the file.
    let purpose = match machine.is_freezing() {
        true => Purpose::End,
        false => Purpose::All,
    };
    let result = sync_pages(machine, 0, u64::MAX, purpose);
    // Stores to hot pages updated the timestamps just now.
    result.and(machine.write_times())
}

/// Writes back the dirty pages among `first..=last`, and waits for other syncs of these pages.
pub fn sync_pages<M: Machine>(
    machine: &M,
    first: u64,
    last: u64,
    purpose: Purpose,
) -> Result<(), M::Error> {
    let _chunks_stay = machine.tracker().stay();
    // Reclaim must not evict an inode meanwhile: eviction waits for users of its chunks.
    machine.without_reclaim(|| sync_held(machine, first, last, purpose))
}

/// As [`sync_pages`]; the caller keeps the chunks from being freed.
pub fn sync_held<M: Machine>(
    machine: &M,
    first: u64,
    last: u64,
    purpose: Purpose,
) -> Result<(), M::Error> {
    // Without a write cache stores are durable as they are. All other steps are the same; pages
    // that are not written back stay dirty, in case the cache is declared volatile later.
    let how = How {
        purpose,
        flush: purpose != Purpose::File || machine.device().has_write_cache(),
    };
    let tracker = machine.tracker();
    windows::sync(tracker, first, last, |taking| {
        let mut pages = 0;
        for chunk in tracker.chunks(first, last, true) {
            let mut state = tracker.lock(chunk);
            let range = tracker.place(chunk).clip(first, last);
            let dirty = windows::dirty_in(tracker, chunk, &range);
            let done = write_back(machine, taking, chunk, &mut state, dirty, how);
            machine.count(Event::Hot, done.hot as u64);
            pages += done.written_back as u64;
        }
        if pages == 0 {
            return Ok(());
        }
        machine.count(Event::WrittenBack, pages);
        if mutated!("sync-wait") {
            machine.linger();
        }
        if mutated!("sync-fence") {
            return Ok(());
        }
        let fenced = machine.device().fence();
        if fenced.is_err() {
            // Before other syncs that wait for this fence look.
            machine.stores_are_lost();
        }
        Ok(fenced?)
    })
}

/// Writes back pages of a chunk that were seen dirty under the chunk lock, without the fence. The
/// lock is held until then, so no fault makes a page of the chunk writable in between.
fn write_back<M: Machine>(
    machine: &M,
    taking: &mut Taking<'_, M::Tracker>,
    chunk: &ChunkOf<M>,
    state: &mut StateOf<M>,
    dirty: Snapshot,
    how: How,
) -> Done {
    let at = machine.tracker().place(chunk).first_page();
    let mut cold = dirty;
    if !how.flush {
        cold.leave_out(state.settled());
    }
    if cold.pages().is_empty() {
        return Done::default();
    }
    // Checked under the chunk lock.
    let writable = machine.is_writably_mapped();
    let whole = *cold.pages() == PageSet::ALL;
    // The hot pages that are about to cool down.
    let mut cooling = state.heat.hot().and(cold.pages());
    let mut done = Done::default();
    if writable && how.purpose != Purpose::End {
        done.hot = keep_hot(machine, state, &mut cold, &mut cooling, how.flush);
        if !cold.pages().is_empty() {
            done.hot += keep_locked(machine, at, state, &mut cold, &mut cooling, how.flush);
        }
        done.written_back = done.hot;
        if how.purpose == Purpose::All && done.hot > 0 {
            // The file was removed from the list of those with dirty pages, but still has some.
            machine.note();
        }
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
            write_protect(machine, at, state, cold.pages());
        }
        flush_zapped(machine, chunk, state);
        cool(machine, state, &cooling);
        let protected = cold.write_protected();
        state.heat.synced(protected.pages());
        if how.flush {
            let taken = taking.take(chunk, protected);
            forget_dirty(machine, chunk, state, taken.pages(), how.purpose);
            if !early && !mutated!("sync-write-back") {
                start_write_back(machine, state, taken.pages());
            }
            done.written_back += taken.written_back();
        } else {
            state.settle(&protected);
        }
    }
    if !state.is_huge() {
        if whole {
            state.store_whole();
        }
    } else if !cold.pages().is_empty() {
        let sample = whole.then(|| sample(machine, chunk, state)).flatten();
        if !state.density.end(sample) {
            // The next store splits it into small pages: otherwise one byte would cost 2 MiB at
            // each sync.
            state.store_small();
        }
    }
    match how.flush {
        true => done,
        false => Done {
            written_back: 0,
            ..done
        },
    }
}

fn start_write_back<M: Machine>(machine: &M, state: &StateOf<M>, pages: &PageSet) {
    for run in state.runs(pages) {
        machine.device().write_back(run.block, run.len as u64);
    }
}

/// Writes back those of the `dirty` pages of a chunk that are hot, or become so, and removes them
/// from it. Updates the timestamps of the file if one of them was stored to. Returns how many stay
/// writable. `hot` has the hot ones among `dirty`; afterwards, those of them that do not stay hot:
/// they have to be [cooled](cool).
fn keep_hot<M: Machine>(
    machine: &M,
    state: &mut StateOf<M>,
    dirty: &mut Snapshot,
    hot: &mut PageSet,
    flush: bool,
) -> usize {
    let mut kept = 0;
    if !hot.is_empty() {
        let (heat, blocks) = state.heat_and_blocks();
        let stored_to = {
            let mut fingerprints = machine.device().fingerprints();
            heat.review(
                hot,
                |page| fingerprints.of(blocks.block(page)),
                |page| kept += keep(machine, blocks.block(page), dirty.keep(page), flush),
            )
        };
        if stored_to {
            // Under the chunk lock: another sync that finds no further change may rely on it.
            machine.touch();
        }
    }
    if state.is_huge() || !state.heat.warm().intersects(dirty.pages()) {
        return kept;
    }
    let warm = state.heat.warm().and(dirty.pages());
    kept + heat_up(machine, state, dirty, &warm, flush)
}

/// Does the same with those of the `dirty` pages that a locked mapping can store to: they stay hot,
/// whether they are stored to or not, as long as it is locked. To avoid a write-back of 2 MiB for
/// each byte, such a mapping is mapped by pages, unless it was mapped before it was locked.
fn keep_locked<M: Machine>(
    machine: &M,
    at: u64,
    state: &mut StateOf<M>,
    dirty: &mut Snapshot,
    hot: &mut PageSet,
    flush: bool,
) -> usize {
    let mut fresh = machine.locked(at, true).and(dirty.pages());
    if fresh.is_empty() {
        return 0;
    }
    // Left alone for long; their fingerprints were taken just now.
    let known = hot.and(&fresh);
    hot.remove_all(&known);
    fresh.remove_all(&known);
    keep_all(machine, state, dirty, &known, flush) + heat_up(machine, state, dirty, &fresh, flush)
}

/// Makes `pages`, which are among the `dirty` ones, hot, and writes them back; except pages without
/// a fingerprint, and none if there is no memory for the fingerprints. Returns their number.
fn heat_up<M: Machine>(
    machine: &M,
    state: &mut StateOf<M>,
    dirty: &mut Snapshot,
    pages: &PageSet,
    flush: bool,
) -> usize {
    if state.heat.needs_table(pages) {
        // A page does not have to become hot.
        match machine.table_at_once() {
            Some(table) => state.heat.set_table(table),
            None => return 0,
        }
    }
    let fresh = {
        let (heat, blocks) = state.heat_and_blocks();
        let mut fingerprints = machine.device().fingerprints();
        heat.heat_up(pages, |page| fingerprints.of(blocks.block(page)))
    };
    keep_all(machine, state, dirty, &fresh, flush)
}

/// Writes back `pages`, which are hot, and removes them from `dirty`. Returns their number.
fn keep_all<M: Machine>(
    machine: &M,
    state: &StateOf<M>,
    dirty: &mut Snapshot,
    pages: &PageSet,
    flush: bool,
) -> usize {
    let kept = pages
        .iter()
        .map(|page| keep(machine, state.block(page), dirty.keep(page), flush));
    kept.sum()
}

/// Writes back a page that stays writable, which has `block`, after its fingerprint was taken: the
/// next sync finds a store in between.
#[inline]
fn keep<M: Machine>(machine: &M, block: u64, kept: Kept, flush: bool) -> usize {
    if flush && !mutated!("hot-write-back") {
        machine.device().write_back(block, 1);
    }
    kept.written_back()
}

/// Cools `pages` down, which nobody can store to any more: if one was stored to before, updates the
/// timestamps of the file.
pub(super) fn cool<M: Machine>(machine: &M, state: &mut StateOf<M>, pages: &PageSet) {
    if pages.is_empty() {
        return;
    }
    let stored_to = {
        let (heat, blocks) = state.heat_and_blocks();
        let mut fingerprints = machine.device().fingerprints();
        heat.cool_down(pages, |page| fingerprints.of(blocks.block(page)))
    };
    if stored_to {
        machine.touch();
    }
}

/// The fingerprints of the pages that tell whether all of a huge chunk is stored to.
pub(super) fn sample<M: Machine>(
    machine: &M,
    chunk: &ChunkOf<M>,
    state: &StateOf<M>,
) -> Option<[u64; SAMPLE]> {
    let mut fingerprints = machine.device().fingerprints();
    let index = machine.tracker().place(chunk).index();
    let mut sample = [0; SAMPLE];
    for (slot, page) in sample.iter_mut().zip(state.density.pages(index)) {
        *slot = fingerprints.of(state.block(page))?;
    }
    Some(sample)
}

/// Makes sure that no CPU stores to a huge chunk, which is write-protected, through an entry still
/// in its TLB. After a zap of 2 MiB, the memory manager flushes the TLB only after it has unlocked
/// the page table; until then it holds a reference to the folio, as a pin does. Unmapping flushes
/// the TLB for the other task as well.
fn flush_zapped<M: Machine>(machine: &M, chunk: &ChunkOf<M>, state: &StateOf<M>) {
    if state.is_huge() && machine.device().is_held(state.block(0)) {
        unmap_chunk(machine, chunk);
    }
}

/// Clears PG_dirty of `pages`, which were taken and are not yet written back: the end of a pin of a
/// page with the flag does not notify the file system. KVM sets it, for a page that it has mapped,
/// so not after the page was write-protected.
///
/// Pinned pages are tagged again, unless all are to be clean: DMA may reach them until the pin
/// ends. The end tags as well, but an asynchronous read may complete before the kernel dirties the
/// page (`blkdev_bio_end_io_async()`), and its waiter may call fsync in between. 2 MiB of a mapping
/// that is being removed are tagged again, too: a CPU may store to them through an entry in its
/// TLB, and the mapping, which no longer belongs to the file, cannot be [flushed](flush_zapped). A
/// page that is not held now has all its stores, and is about to be written back.
fn forget_dirty<M: Machine>(
    machine: &M,
    chunk: &ChunkOf<M>,
    state: &StateOf<M>,
    pages: &PageSet,
    purpose: Purpose,
) {
    let is_pinned = |page| {
        let block = state.block(page);
        machine.device().forget_dirty(block);
        purpose != Purpose::End && machine.device().is_held(block)
    };
    // All pages of a huge folio have one flag and one count.
    let huge = state.is_huge();
    if huge && !is_pinned(0) {
        return;
    }
    for page in pages.iter() {
        if huge || is_pinned(page) {
            tag_page(machine, chunk, page);
        }
    }
}

/// Write-protects all shared mappings of `pages` of the chunk whose first page is `at`.
fn write_protect<M: Machine>(machine: &M, at: u64, state: &StateOf<M>, pages: &PageSet) {
    // A mapping of 2 MiB is protected as a whole or not at all.
    let pages = if state.is_huge() {
        &PageSet::ALL
    } else {
        pages
    };
    for run in state.runs(pages) {
        machine.write_protect(at + run.page as u64, run.block, run.len);
    }
}
