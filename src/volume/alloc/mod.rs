// SPDX-License-Identifier: GPL-2.0

//! Space allocation.
//!
//! Allocation state is on the media: a bitmap of 64 bytes for each chunk of 512 blocks (2 MiB) and
//! a summary of 8. Both are read in place; nothing is loaded at mount. In memory the chunks are
//! split into a few *groups*, each with a lock, so that threads on different CPUs allocate from
//! different places and lines.
//!
//! A group also records *busy* blocks: reserved, or being allocated or freed by a transaction that
//! is not retired. Nobody else gets them. So the logical entries of any two transactions that
//! recovery might replay concern different blocks, and a block is never allocated again before it
//! is durably free.
//!
//! The life of a block: [`Volume::reserve`] (in memory only; dropping the [`Reservation`] gives it
//! back) → [`Tx::take`](super::journal::Tx::take) → commit: in use.
//! [`Tx::free`](super::journal::Tx::free) → commit: free.
//!
//! Lock order: a group's lock is taken last, two never at a time.

pub(super) mod bits;
mod search;
mod windows;

use core::num::NonZero;
use core::ops::Range;

use super::error::{Error, Result, Structure};
use super::format::{BLOCK, CHUNK_BLOCKS, EXTENT_MAX};
use super::journal::Tx;
use super::num::{to_i64, to_u64, to_usize};
use super::pmem::Pmem;
use super::super_block::Geometry;
use super::Volume;
use crate::env::{Counter, Lock, NoMemory, Vec};
use windows::Windows;

/// Contiguous blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First block.
    pub block: u64,
    /// Number of blocks, at least 1.
    pub len: u64,
}

impl Run {
    /// The first block after it.
    pub fn end(&self) -> u64 {
        self.block + self.len
    }

    /// The chunks it touches.
    fn chunks(&self) -> Range<u64> {
        self.block / CHUNK_BLOCKS..self.end().div_ceil(CHUNK_BLOCKS)
    }
}

/// The use for which an allocation may take reserved blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// None.
    No,
    /// Nodes of extent trees: [`Geometry::reserve`].
    Nodes,
    /// The orphan file as well: [`Volume::kept_for_removal`].
    Removal,
}

/// What an allocation asks for.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// Blocks, at least 1. The run found may be shorter.
    pub len: u64,
    /// The fewest useful blocks, 1 to `len` and to the 512 of a chunk. Runs across the edge of a
    /// chunk may be missed if this is not 1.
    pub min: u64,
    /// The block at which the run would continue existing blocks.
    pub goal: Option<u64>,
    /// The file block it is for, if the run should have the same offset in its chunk as the file
    /// blocks in theirs, which a 2 MiB mapping needs.
    pub align_key: Option<u64>,
    /// With `align_key`: it is the first run in its chunk of the file, and others will follow. It
    /// goes to a wholly free chunk, if there is any.
    pub begins: bool,
    /// Which of the last free blocks it may use.
    pub kept: Kept,
    /// It is for a growing file, which may need the blocks after it next.
    pub grows: bool,
}

impl Want {
    /// Up to `len` blocks anywhere.
    pub fn blocks(len: u64) -> Self {
        Want {
            len,
            min: 1,
            goal: None,
            align_key: None,
            begins: false,
            kept: Kept::No,
            grows: false,
        }
    }

    /// Also from the reserved blocks. For a node of a tree: freeing a part of a file can need one.
    #[must_use]
    pub fn use_reserve(mut self) -> Self {
        self.kept = Kept::Nodes;
        self
    }

    /// Also from the blocks reserved for removing names. For the orphan file.
    #[must_use]
    pub fn for_removal(mut self) -> Self {
        self.kept = Kept::Removal;
        self
    }

    /// Preferably from `goal` on.
    #[must_use]
    pub fn near(mut self, goal: u64) -> Self {
        self.goal = Some(goal);
        self
    }

    /// For file blocks from `key` on, aligned.
    #[must_use]
    pub fn aligned(mut self, key: u64) -> Self {
        self.align_key = Some(key);
        self
    }

    /// For file blocks from `key` on, aligned, the first in their chunk.
    #[must_use]
    pub fn beginning(mut self, key: u64) -> Self {
        self.align_key = Some(key);
        self.begins = true;
        self
    }

    /// For a growing file: others get the blocks after it only when no others are left.
    #[must_use]
    pub fn growing(mut self) -> Self {
        self.grows = true;
        self
    }

    /// At least `min` blocks.
    #[must_use]
    pub fn at_least(mut self, min: u64) -> Self {
        self.min = min;
        self
    }
}

/// Blocks that nobody else can allocate. Dropping it releases them; nothing is on the media.
#[must_use = "dropping a reservation gives its blocks back"]
pub struct Reservation<'v, P: Pmem> {
    vol: &'v Volume<P>,
    run: Run,
}

impl<P: Pmem> Reservation<'_, P> {
    /// The blocks.
    pub fn run(&self) -> Run {
        self.run
    }

    /// Releases the blocks after the first `len`; `len` is 1 to the current number.
    pub fn truncate(&mut self, len: u64) {
        if (1..self.run.len).contains(&len) {
            let kept = Run { len, ..self.run };
            self.vol.groups.rename(self.run, kept);
            self.vol.free.add(to_i64(self.run.len - len));
            self.run = kept;
        }
    }

    /// Transfers the blocks to the caller, who releases them.
    pub(super) fn into_run(self) -> Run {
        let run = self.run;
        core::mem::forget(self);
        run
    }
}

impl<P: Pmem> Drop for Reservation<'_, P> {
    fn drop(&mut self) {
        self.vol.groups.release(self.run, true);
        self.vol.free.add(to_i64(self.run.len));
    }
}

/// The most runs of [`Several`].
pub const RUNS_MAX: usize = 8;

/// Blocks for consecutive file blocks: one run, or several if free space is fragmented.
#[must_use = "dropping a reservation gives its blocks back"]
pub struct Several<'v, P: Pmem> {
    first: Reservation<'v, P>,
    /// Nearly always empty. (Not an array: it is moved often in every write.)
    more: Vec<Reservation<'v, P>>,
}

impl<'v, P: Pmem> Several<'v, P> {
    /// Those of one run.
    pub fn one(first: Reservation<'v, P>) -> Self {
        Several {
            first,
            more: Vec::new(),
        }
    }

    /// The runs, in the order of the file blocks.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let more = self.more.iter().map(Reservation::run);
        core::iter::once(self.first.run()).chain(more)
    }

    /// The first run and the last, which may be the same.
    pub fn ends(&self) -> (Run, Run) {
        let first = self.first.run();
        (first, self.runs().last().unwrap_or(first))
    }

    /// How many runs they are.
    pub(super) fn count(&self) -> usize {
        1 + self.more.len()
    }

    /// Their number of blocks.
    pub fn blocks(&self) -> u64 {
        self.runs().map(|run| run.len).sum()
    }

    /// Releases the blocks after the first `len`; `len` is 1 to the current number.
    pub fn truncate(&mut self, len: u64) {
        self.first.truncate(len);
        let mut left = len.saturating_sub(self.first.run().len);
        let mut kept = 0;
        for run in self.more.iter_mut() {
            if left == 0 {
                break;
            }
            run.truncate(left);
            left -= run.run().len;
            kept += 1;
        }
        self.more.truncate(kept);
    }

    /// Allocates the blocks in `tx`.
    pub(super) fn take(mut self, tx: &mut Tx<'_, P>) -> Result<()> {
        tx.take(self.first)?;
        while let Some(run) = self.more.pop() {
            tx.take(run)?;
        }
        Ok(())
    }
}

/// The most groups.
const GROUPS_MAX: u64 = 16;
/// The fewest chunks that are worth a group.
const GROUP_CHUNKS_MIN: u64 = 64;

/// The count of free blocks, as an allocation sees it.
struct Count<'v> {
    free: &'v Counter,
    /// How many must be left.
    kept: u64,
    /// Fewer are useless.
    min: u64,
}

impl Count<'_> {
    /// Takes `run`, or as many of its first blocks as others have left meanwhile.
    ///
    /// Called under the lock of its group, where it becomes busy: whoever finds it busy finds it
    /// counted, and no count lacks blocks that are not taken after all.
    fn take(&self, run: Run) -> Option<Run> {
        let (min, len) = (to_i64(self.min), to_i64(run.len));
        let len = self.free.take(min, len, to_i64(self.kept))?;
        Some(Run {
            block: run.block,
            len: to_u64(len),
        })
    }
}

/// The allocation groups of a volume.
pub(super) struct Groups {
    groups: Vec<Group>,
    /// Chunks of each group except the last; a multiple of [`bits::BATCH`], so that no two groups
    /// share a line of the summary or a bitmap.
    chunks: NonZero<u64>,
}

struct Group {
    /// Its chunks.
    chunks: Range<u64>,
    state: Lock<State>,
}

/// What a group's lock protects, in addition to the bitmaps and summaries of its chunks.
struct State {
    /// Chunk where the next search starts.
    cursor: u64,
    /// The last free chunk from which small runs were taken. It counts as partly used even while
    /// all of it is free, so that it need not be searched again.
    opened: Option<u64>,
    /// Chunk where the next search for a free chunk starts.
    whole_cursor: u64,
    /// No summary of the group shows a free block.
    full: bool,
    /// No summary of the group shows a free chunk.
    no_whole: bool,
    /// Blocks that are reserved or belong to unretired transactions.
    busy: Vec<Run>,
    /// The windows of growing files.
    windows: Windows,
}

impl Groups {
    pub(super) fn new(geo: &Geometry) -> Result<Self, NoMemory> {
        let count = (geo.chunks / GROUP_CHUNKS_MIN).clamp(1, GROUPS_MAX);
        let chunks = geo.chunks.div_ceil(count).next_multiple_of(bits::BATCH);
        let mut groups = Vec::new();
        let mut first = 0;
        while first < geo.chunks {
            let end = geo.chunks.min(first + chunks);
            groups.push(Group {
                chunks: first..end,
                state: Lock::new(State {
                    cursor: first,
                    opened: None,
                    whole_cursor: first,
                    full: false,
                    no_whole: false,
                    busy: Vec::new(),
                    windows: Windows::new(),
                })?,
            })?;
            first = end;
        }
        let chunks = NonZero::new(chunks).unwrap_or(NonZero::<u64>::MIN);
        Ok(Groups { groups, chunks })
    }

    /// The index of the group of `block`.
    fn index(&self, block: u64) -> usize {
        to_usize(block / CHUNK_BLOCKS / self.chunks)
    }

    /// The group of `block`, a block of the volume.
    fn of(&self, block: u64) -> Result<&Group> {
        self.groups.get(self.index(block)).ok_or(Error::Corrupt {
            what: Structure::Bitmap,
            at: block.saturating_mul(BLOCK),
        })
    }

    /// The part of `run` in the group of its first block.
    pub(super) fn part(&self, run: Run) -> Run {
        let group_blocks = self.chunks.get() * CHUNK_BLOCKS;
        let left = group_blocks - run.block % group_blocks;
        Run {
            block: run.block,
            len: run.len.min(left).min(u64::from(u32::MAX)),
        }
    }

    /// Makes `run`, blocks in use of one group, busy because they are about to be freed.
    ///
    /// Fails with [`Error::Corrupt`] if some of them are not in use, or busy already: a tree points
    /// where it must not.
    pub(super) fn begin_free<P: Pmem>(&self, pmem: &P, geo: &Geometry, run: Run) -> Result<()> {
        let corrupt = Error::Corrupt {
            what: Structure::Bitmap,
            at: run.block.saturating_mul(BLOCK),
        };
        let mut state = self.of(run.block)?.state.lock();
        if state
            .busy
            .iter()
            .any(|b| b.block < run.end() && run.block < b.end())
        {
            return Err(corrupt);
        }
        bits::check_used(pmem, geo, run)?;
        state.busy.push(run)?;
        // A file that ended there does not continue.
        state.windows.end(run.end());
        state.windows.end_chunks(run);
        Ok(())
    }

    /// Runs `f` under the lock of the group of `block`.
    pub(super) fn locked<T>(&self, block: u64, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let _state = self.of(block)?.state.lock();
        f()
    }

    /// Ends the busy state of `run`; `free` if it is free now.
    pub(super) fn release(&self, run: Run, free: bool) {
        let Ok(group) = self.of(run.block) else {
            return;
        };
        let mut state = group.state.lock();
        if let Some(i) = state.busy.iter().position(|b| *b == run) {
            state.busy.swap_remove(i);
        }
        if free {
            state.full = false;
            state.no_whole = false;
            state.windows.only = false;
        }
    }

    /// Replaces the busy `run` by `other`, a part of it.
    fn rename(&self, run: Run, other: Run) {
        let Ok(group) = self.of(run.block) else {
            return;
        };
        let mut state = group.state.lock();
        if let Some(busy) = state.busy.iter_mut().find(|b| **b == run) {
            *busy = other;
        }
        state.windows.only = false;
    }
}

impl<P: Pmem> Volume<P> {
    /// Reserves a run of free blocks.
    ///
    /// Bad blocks are healed, or skipped. The run continues at `want.goal` if that is free; with
    /// `want.align_key`, only if it is aligned with the file there; with `want.begins`, only if the
    /// whole chunk is free, or no other is. Otherwise an aligned run comes from wholly free chunks,
    /// if there are any. Any other run comes from chunks that are partly in use, so that free chunks
    /// stay whole, and not from the windows of other files, while there are other blocks.
    ///
    /// Fails with [`Error::NoSpace`] if no free run of `want.min` blocks exists, or only in the
    /// reserved blocks, which need permission; with [`Error::Invalid`] if `want.min` is out of
    /// range, and with [`Error::Corrupt`] if a bitmap is damaged.
    pub fn reserve(&self, want: Want) -> Result<Reservation<'_, P>> {
        if !(1..=CHUNK_BLOCKS.min(want.len)).contains(&want.min) {
            return Err(Error::Invalid);
        }
        let kept = self.kept_from(want.kept);
        let left = self.free_blocks().saturating_sub(kept);
        // A common case without a search: no block is left.
        if left < want.min {
            return Err(Error::NoSpace);
        }
        let want = Want {
            len: want.len.min(left).min(EXTENT_MAX),
            ..want
        };
        let count = Count {
            free: &self.free,
            kept,
            min: want.min,
        };
        loop {
            let run = self.groups.search(&self.pmem, &self.geo, &count, &want)?;
            if let Some(reservation) = self.healed(run) {
                return Ok(reservation);
            }
        }
    }

    /// The number of free blocks that an allocation must leave.
    fn kept_from(&self, kept: Kept) -> u64 {
        match kept {
            Kept::No => self.geo.reserve() + self.kept_for_removal(),
            Kept::Nodes => self.kept_for_removal(),
            Kept::Removal => 0,
        }
    }

    /// The reservation of a run that was found, with its media healed. If that fails, the bad block
    /// stays busy until unmount, so that nobody gets it, and the others are released.
    fn healed(&self, run: Run) -> Option<Reservation<'_, P>> {
        match self.pmem.heal(run.block * BLOCK, run.len * BLOCK) {
            Err(Error::Media { at }) => {
                let bad = Run {
                    block: at / BLOCK,
                    len: 1,
                };
                self.groups.rename(run, bad);
                self.free.add(to_i64(run.len - 1));
                None
            }
            _ => Some(Reservation { vol: self, run }),
        }
    }

    /// As [`Volume::reserve`]; if the run is short, adds others from the same chunk, up to
    /// [`RUNS_MAX`] together.
    pub fn reserve_several(&self, want: Want) -> Result<Several<'_, P>> {
        let mut several = Several::one(self.reserve(want)?);
        let run = several.first.run();
        let left = want.len.min(EXTENT_MAX) - run.len;
        if left == 0 || run.len >= search::GOOD || want.align_key.is_some() {
            return Ok(several);
        }
        several.more.reserve(RUNS_MAX - 1)?;
        let mut more = [None; RUNS_MAX - 1];
        let left = left.min(self.available_blocks());
        let count = Count {
            free: &self.free,
            kept: self.kept_from(Kept::No),
            min: 1,
        };
        self.groups
            .beside(&self.pmem, &self.geo, &count, run.block, left, &mut more)?;
        for run in more.into_iter().flatten() {
            if let Some(run) = self.healed(run) {
                several.more.push(run)?;
            }
        }
        Ok(several)
    }

    /// Free blocks, without reserved ones. Exact while nobody allocates or frees.
    pub fn free_blocks(&self) -> u64 {
        to_u64(self.free.get())
    }

    /// Those that are reserved neither for the nodes of trees nor for the orphan file.
    pub fn available_blocks(&self) -> u64 {
        self.free_blocks().saturating_sub(self.kept_from(Kept::No))
    }
}
