// SPDX-License-Identifier: GPL-2.0

//! Page faults: mapping the blocks of a file.
//!
//! A shared write fault (nothing mapped, or mapped read-only) tags the page and inserts it
//! writable, both under the chunk lock; a hole gets its block there. All other faults insert
//! read-only: a store to a private mapping comes back through the memory manager, which copies the
//! page.
//!
//! The blocks are looked up under the chunk lock, so that the inserted entry is what the file has.
//! The chunk lock is taken with the invalidate lock held, so that the blocks stay in the file.

use core::ops::Range;

use super::ahead::Ask;
use super::chunk::Entry;
use super::layout::{split_huge, unmap_chunk, unmap_zeroes};
use super::machine::{
    Blocks, ChunkOf, Device, Event, Failure, Fault, Machine, StateOf, TableOf, Tracking,
};
use super::page_set::{PageSet, PAGES};
use super::place::split;
use super::sync::{cool, sample, tag, tag_page};
use super::windows;
use crate::mutate::mutated;
use crate::volume::alloc::Run;
use crate::volume::file::Map;

/// After this many pages stored to in a row, the next ones are mapped ahead.
const ROW: usize = 8;
/// The most pages that are mapped ahead.
const AHEAD: usize = 64;

/// How a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    /// An entry was inserted, or the insertion failed.
    Inserted(R),
    /// Retry the access: another thread was faster.
    Again,
    /// Map the 2 MiB by pages.
    ByPages,
    /// The page is past the end of the file.
    PastEnd,
    /// The page is bad.
    Poisoned,
}

type ErrorOf<F> = <<F as Fault>::File as Machine>::Error;
type Ends<F> = Result<Outcome<<F as Fault>::Inserted>, ErrorOf<F>>;

/// A store to a shared mapping of a page.
pub fn write<F: Fault>(fault: &F) -> Ends<F> {
    let file = fault.file();
    let _thawed = file.keep_thawed();
    file.check_usable(true)?;
    fault.update_time()?;
    map(fault, true)
}

/// A load, or a store to a private mapping, of a page.
pub fn read<F: Fault>(fault: &F) -> Ends<F> {
    map(fault, false)
}

/// A store, through a shared mapping, to 2 MiB that are not mapped, or are mapped read-only in one
/// piece: maps them in one piece if possible.
pub fn write_huge<F: Fault>(fault: &F) -> Ends<F> {
    let file = fault.file();
    let _thawed = file.keep_thawed();
    file.check_usable(true)?;
    map_huge(fault, true)
}

/// A load from 2 MiB that are not mapped: maps them in one piece if possible.
pub fn read_huge<F: Fault>(fault: &F) -> Ends<F> {
    map_huge(fault, false)
}

/// The result of work in a chunk: it ended, or needs a table to continue.
enum Step<R> {
    Ends(Outcome<R>),
    NeedsTable,
}

/// Runs `f` with the chunk of the page, and the invalidate lock held shared, if the page is in the
/// file.
fn with_chunk<F: Fault>(
    fault: &F,
    write: bool,
    mut f: impl FnMut(&ChunkOf<F::File>) -> Result<Step<F::Inserted>, ErrorOf<F>>,
) -> Result<Step<F::Inserted>, ErrorOf<F>> {
    let file = fault.file();
    let (index, _) = split(fault.page());
    let mut made = false;
    loop {
        {
            let _blocks_stay = file.keep_blocks();
            // Checked under that lock: whoever ends stores, or all use, first changes what is
            // checked here, and then takes this lock of every file.
            file.check_usable(write)?;
            if fault.page() >= file.pages() {
                return Ok(Step::Ends(Outcome::PastEnd));
            }
            if let Some(chunk) = file.tracker().chunk(index) {
                file.own();
                if !made {
                    file.use_chunk(chunk);
                }
                // Reclaim must not enter this file system: it evicts inodes, and locks their chunks
                // and the journal.
                return file.without_reclaim(|| f(chunk));
            }
        }
        // Without a lock: the memory may have to come from other chunks of this file.
        file.make_chunk(index)?;
        made = true;
    }
}

/// Maps the page, writable if `write`.
fn map<F: Fault>(fault: &F, write: bool) -> Ends<F> {
    let mut spare = None;
    loop {
        let step = with_chunk(fault, write, |chunk| {
            map_in_chunk(fault, chunk, write, &mut spare)
        });
        match step? {
            Step::Ends(outcome) => return Ok(outcome),
            // Allocated without a lock, as chunks are.
            Step::NeedsTable => spare = Some(fault.file().table()?),
        }
    }
}

/// Maps the page of `chunk`; asks for a table if it needs one and `spare` is empty.
fn map_in_chunk<F: Fault>(
    fault: &F,
    chunk: &ChunkOf<F::File>,
    write: bool,
    spare: &mut Option<TableOf<F::File>>,
) -> Result<Step<F::Inserted>, ErrorOf<F>> {
    let file = fault.file();
    let (_, page) = split(fault.page());
    let mut state = file.tracker().lock(chunk);
    if fault.is_mapped_huge() {
        // Another thread was faster. A store still needs a page: it will retry, and others must not
        // be faster for ever.
        if fault.is_write() {
            state.make_way();
        }
        return Ok(Step::Ends(Outcome::Again));
    }
    fault.prepare();
    if write && state.is_huge() {
        // In a huge folio, a zap of one page would make all of them dirty. That would be correct,
        // too, and happens while a page is pinned.
        if split_huge(file, chunk, &mut state) {
            state.was_split();
        }
    }
    if !write {
        state.read_page();
    }
    let block = match state.entry(page) {
        Entry::Present(block) => Some(block),
        Entry::Absent | Entry::Zero => find_block(file, chunk, &mut state, page, write)?,
    };
    let Some(block) = block else {
        state.map_zero(page);
        file.count(Event::HoleRead, 1);
        return Ok(Step::Ends(Outcome::Inserted(fault.insert_zero())));
    };
    if file.is_of_another(block, fault.page()) {
        return Err(Failure::UsedTwice.into());
    }
    if file.device().is_bad(block, 1) {
        return Ok(Step::Ends(Outcome::Poisoned));
    }
    let mut table = None;
    if state.needs_table(page, block) {
        table = spare.take();
        if table.is_none() {
            return Ok(Step::NeedsTable);
        }
    }
    let todo = state.map_block(page, block, table);
    if todo.unmap_zero {
        file.unmap(fault.page(), fault.page());
    }
    let mut dirty = write;
    if todo.associate {
        dirty |= file.associate(block, fault.page());
    }
    let mut row = 0;
    if dirty {
        let was_settled = state.unsettle_page(page);
        if !mutated!("tag") {
            // Before the page can be stored to, and before a sync can follow the store.
            let (newly, beside) = tag_page(file, chunk, page);
            // Pages that another mapping has stored to already are no row of this one.
            if newly > 0 || was_settled {
                row = beside;
            }
        }
    }
    // Under the chunk lock: otherwise a sync in between would clean the page, and leave it
    // writable.
    let inserted = fault.insert(block, write);
    if write && fault.ahead(row) > 0 {
        map_ahead(fault, chunk, &mut state);
    }
    Ok(Step::Ends(Outcome::Inserted(inserted)))
}

/// How many further pages to map for a store next to a row of `row` writable pages: as many, at
/// most [`AHEAD`]. Mapping one ahead, write-protecting it and writing it back costs a third of a
/// fault; so if the row ends there, all of it has cost a third more.
pub fn ahead(row: usize) -> usize {
    match row < ROW {
        true => 0,
        false => row.min(AHEAD),
    }
}

/// After the store of `fault` has mapped its page: maps the next pages of the row writable, too, up
/// or down, except those that would need a block, or memory.
#[inline(never)]
fn map_ahead<F: Fault>(fault: &F, chunk: &ChunkOf<F::File>, state: &mut StateOf<F::File>) {
    let file = fault.file();
    let first = file.tracker().place(chunk).first_page();
    let mut writable = windows::dirty_in(file.tracker(), chunk, &PageSet::ALL);
    writable.leave_out(state.settled());
    let writable = writable.pages();
    let range = next_in_row(fault, chunk, writable);
    // As for 2 MiB: stores to these pages will not update the timestamps, and a sync may just have
    // been here.
    if state.is_huge() || range.is_empty() || fault.update_time().is_err() {
        return;
    }
    let mut found = None;
    let mut pages = PageSet::EMPTY;
    for at in range.clone() {
        let (_, page) = split(at);
        if writable.contains(page) {
            continue;
        }
        let block = match state.entry(page) {
            Entry::Present(block) => block,
            Entry::Zero => continue,
            Entry::Absent => {
                let found = found.get_or_insert_with(|| {
                    file.blocks().find(at, range.end - at).map(|map| (at, map))
                });
                match *found {
                    Ok((from, Map::Run { block, len })) if at - from < len => block + (at - from),
                    _ => continue,
                }
            }
        };
        let is_usable = !file.is_of_another(block, at) && !file.device().is_bad(block, 1);
        if !is_usable || state.needs_table(page, block) {
            continue;
        }
        if state.map_block(page, block, None).associate {
            // It is going to be tagged in any case.
            let _ = file.associate(block, at);
        }
        pages.insert(page);
    }
    if pages.is_empty() {
        return;
    }
    state.unsettle(&pages);
    if !mutated!("tag-ahead") {
        tag(file, chunk, &pages);
    }
    for run in state.runs(&pages) {
        fault.insert_writable(first + run.page as u64, run.block, run.len);
    }
}

/// The pages of the file that come next in the row of `writable` pages of `chunk` that `fault`
/// continues, as many as are to be mapped ahead.
fn next_in_row<F: Fault>(fault: &F, chunk: &ChunkOf<F::File>, writable: &PageSet) -> Range<u64> {
    let file = fault.file();
    let place = file.tracker().place(chunk);
    let (at, (_, page)) = (fault.page(), split(fault.page()));
    let (below, above) = (writable.run_before(page), writable.run_after(page));
    let nr = fault.ahead(below.max(above)) as u64;
    let range = match below >= above {
        true => at + 1..at + 1 + nr,
        false => at.saturating_sub(nr)..at,
    };
    let reach = fault.neighbours();
    let start = range.start.max(reach.start).max(place.first_page());
    start..range.end.min(reach.end).min(place.end()).min(file.pages())
}

/// The block of `page` of `chunk`; `None` for a hole if `write` is false.
fn find_block<M: Machine>(
    file: &M,
    chunk: &ChunkOf<M>,
    state: &mut StateOf<M>,
    page: usize,
    write: bool,
) -> Result<Option<u64>, M::Error> {
    let at = file.tracker().place(chunk).first_page() + page as u64;
    let mut blocks = file.blocks();
    match blocks.find(at, 1)? {
        Map::Run { block, .. } => Ok(Some(block)),
        Map::Hole { .. } | Map::Unwritten { .. } if !write => Ok(None),
        found => {
            let ask = ask(file, at, found);
            let is_alone = matches!(found, Map::Hole { .. }) && ask == Ask::page(at);
            if is_alone && !file.is_space_scarce() && state.store_to_hole() {
                fill_chunk(file, chunk, state, &mut blocks);
                if let Map::Run { block, .. } = blocks.find(at, 1)? {
                    return Ok(Some(block));
                }
            }
            let run = fill_hole(file, chunk, state, &mut blocks, at, ask)?;
            Ok(Some(run.block))
        }
    }
}

/// Fills the holes of `chunk`, as far as there is space. They are zero, durably, before anyone can
/// see them.
#[inline(never)]
fn fill_chunk<M: Machine>(
    file: &M,
    chunk: &ChunkOf<M>,
    state: &mut StateOf<M>,
    blocks: &mut M::Blocks<'_>,
) {
    let place = file.tracker().place(chunk);
    let (first, end) = (place.first_page(), place.end().min(file.pages()));
    let mut at = first;
    while at < end {
        // Nobody asked for it: only the page that is stored to can fail, afterwards.
        let Ok(filled) = blocks.fill_all(at, end - at) else {
            break;
        };
        at += filled;
    }
    if at > first {
        let filled = PageSet::range(0, (at - first) as usize - 1);
        unmap_zeroes(file, chunk, state, &filled);
    }
}

/// Which blocks a store to page `at` of the file asks for, if the file has `found` there. Filling a
/// hole takes space.
fn ask<M: Machine>(file: &M, at: u64, found: Map) -> Ask {
    match found {
        Map::Hole { .. } if file.is_space_scarce() => Ask::page(at),
        _ => file.ask(at),
    }
}

/// Fills the hole, or makes data of the unwritten blocks, at page `at` of the file, which is in
/// `chunk`, and the pages around it that `ask` names, within the hole, the chunk and the file.
/// Returns the blocks from `at` on. They are zero, durably, before anyone can see them.
fn fill_hole<M: Machine>(
    file: &M,
    chunk: &ChunkOf<M>,
    state: &mut StateOf<M>,
    blocks: &mut M::Blocks<'_>,
    at: u64,
    mut ask: Ask,
) -> Result<Run, M::Error> {
    let place = file.tracker().place(chunk);
    let mut end = ask.pages.end.min(file.pages()).min(place.end()).max(at + 1);
    let mut first = ask.pages.start.max(place.first_page()).min(at);
    // Whether everything from `first` to the page, and what follows, can be filled. A bad block
    // reads as zeros while it is unwritten: a store to another page must not make it data.
    let mut can_be_filled = |first: u64| -> Result<bool, M::Error> {
        Ok(match blocks.find(first, end - first)? {
            Map::Hole { len } => at - first < len,
            Map::Unwritten { block, len } => at - first < len && !file.device().is_bad(block, len),
            Map::Run { .. } => false,
        })
    };
    if first < at && !can_be_filled(first)? {
        first = at;
    }
    if first == at && at + 1 < end && !can_be_filled(at)? {
        end = at + 1;
    }
    // The pages before this one are filled with it, or not at all: it may get the last free block.
    let run = match blocks.fill(first, at + 1 - first, end - first) {
        Err(_) if first < at => {
            first = at;
            ask = ask.alone(at);
            blocks.fill(at, 1, 1)?
        }
        filled => filled?,
    };
    file.filled(&ask, first, run.len);
    let page = (first - place.first_page()) as usize;
    let filled = PageSet::range(page, page + run.len as usize - 1);
    unmap_zeroes(file, chunk, state, &filled);
    let before = at - first;
    Ok(Run {
        block: run.block + before,
        len: run.len - before,
    })
}

/// Maps the 2 MiB around the page in one piece, writable if `write`.
fn map_huge<F: Fault>(fault: &F, write: bool) -> Ends<F> {
    let step = with_chunk(fault, write, |chunk| {
        map_chunk(fault, chunk, write).map(Step::Ends)
    });
    match step? {
        Step::Ends(Outcome::Inserted(result)) => Ok(Outcome::Inserted(result)),
        _ => Ok(Outcome::ByPages),
    }
}

/// Maps `chunk` in one piece, if possible.
fn map_chunk<F: Fault>(fault: &F, chunk: &ChunkOf<F::File>, write: bool) -> Ends<F> {
    let file = fault.file();
    if file.tracker().place(chunk).last_page() >= file.pages() {
        return Ok(Outcome::ByPages);
    }
    let mut state = file.tracker().lock(chunk);
    if !fault.is_unmapped_huge() && !fault.is_mapped_huge() {
        return Ok(Outcome::ByPages);
    }
    if !write && state.gives_way() {
        return Ok(Outcome::ByPages);
    }
    let bad = state.is_huge() && file.device().is_bad(state.block(0), PAGES as u64);
    if bad || !state.may_map_huge(write) {
        if write && state.is_huge() && split_huge(file, chunk, &mut state) {
            state.was_split();
        }
        return Ok(Outcome::ByPages);
    }
    if !state.is_huge() {
        match join(file, chunk, &mut state, write.then_some(fault.page()))? {
            Join::Done => {}
            Join::Hole if state.may_map_zeros_huge() => {
                let Some(inserted) = fault.insert_huge_zero() else {
                    return Ok(Outcome::ByPages);
                };
                state.map_zeros();
                file.count(Event::HoleRead, 1);
                return Ok(Outcome::Inserted(inserted));
            }
            Join::Hole | Join::Pieces => {
                if write {
                    state.zeros_small();
                }
                return Ok(Outcome::ByPages);
            }
        }
    }
    if write {
        fault.update_time()?;
        // Another mapping may have been stored to already.
        if !state.density.has_begun() {
            let sample = sample(file, chunk, &state);
            state.density.begin(sample);
        }
        state.unsettle(&PageSet::ALL);
        if !mutated!("tag-huge") {
            tag(file, chunk, &PageSet::ALL);
        }
    }
    Ok(Outcome::Inserted(fault.insert_huge(state.block(0), write)))
}

/// What the file has from `page` on, up to `len` pages; a run may span several extents.
fn find_all<B: Blocks>(blocks: &mut B, page: u64, len: u64) -> Result<Map, B::Error> {
    let mut all = blocks.find(page, len)?;
    while let Map::Run { block, len: found } = &mut all {
        if *found >= len {
            break;
        }
        match blocks.find(page + *found, len - *found)? {
            Map::Run { block: next, len } if next == *block + *found => *found += len,
            _ => break,
        }
    }
    Ok(all)
}

/// What a fault that wants to map a chunk in one piece finds.
enum Join {
    /// The chunk is huge now.
    Done,
    /// The chunk reads as zeros, and the access is a load.
    Hole,
    /// The chunk is to be mapped by pages.
    Pieces,
}

/// Joins a chunk that is not huge, if its pages are mapped nowhere, and its blocks are contiguous
/// and aligned. A hole is filled only for a store to the page `stored`, of a file that is written
/// through its mapping from one end to the other; unwritten blocks become data for any store.
fn join<M: Machine>(
    file: &M,
    chunk: &ChunkOf<M>,
    state: &mut StateOf<M>,
    stored: Option<u64>,
) -> Result<Join, M::Error> {
    let (first, len) = (file.tracker().place(chunk).first_page(), PAGES as u64);
    let block = {
        let mut blocks = file.blocks();
        match (find_all(&mut blocks, first, len)?, stored) {
            (Map::Run { block, len: found }, _) if found == len => block,
            (hole @ Map::Hole { len: found }, Some(page)) if found == len => {
                let ask = ask(file, page, hole);
                if ask.pages != Ask::chunk(page).pages {
                    return Ok(Join::Pieces);
                }
                let run = fill_hole(file, chunk, state, &mut blocks, first, ask)?;
                if run.len < len {
                    return Ok(Join::Pieces);
                }
                run.block
            }
            // The file has the space; it only has to be zeroed.
            (Map::Unwritten { block, len: found }, Some(page))
                if found == len
                    && file.device().is_aligned(block)
                    && !file.device().is_bad(block, len) =>
            {
                let ask = Ask::chunk(page);
                fill_hole(file, chunk, state, &mut blocks, first, ask)?.block
            }
            (Map::Hole { len: found } | Map::Unwritten { len: found, .. }, None)
                if found == len =>
            {
                return Ok(Join::Hole);
            }
            _ => return Ok(Join::Pieces),
        }
    };
    if !file.device().is_aligned(block) || file.device().is_bad(block, len) {
        return Ok(Join::Pieces);
    }
    let examined = file.examine(block);
    if !examined.free {
        return Ok(Join::Pieces);
    }
    // Accounts for stores to hot pages up to now: nobody can store to them any more.
    let hot = *state.heat.hot();
    cool(file, state, &hot);
    state.join();
    file.make_huge(block, first);
    if state.map_huge(block) {
        unmap_chunk(file, chunk);
    }
    if examined.dirty {
        tag(file, chunk, &PageSet::ALL);
    }
    Ok(Join::Done)
}
