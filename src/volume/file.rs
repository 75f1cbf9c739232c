// SPDX-License-Identifier: GPL-2.0

//! The content of files: which blocks hold it, and how it grows, shrinks and gets holes.
//!
//! The caller stores data directly into the blocks; this module decides when a block becomes
//! reachable and how large the file is. A block is mapped only when its content is durable, in the
//! transaction that maps it, so nobody ever reads stale data from the media. Blocks may be
//! allocated before that, as *unwritten*: they belong to the file, but read as zeros whatever they
//! hold, until a transaction makes them data.
//!
//! Blocks beyond the size may be mapped, too (preallocated). Code that exposes bytes that were
//! beyond the size, and that the caller has not just stored, zeroes them first.

use core::ops::Range;

use zerocopy::little_endian::U64;

use super::alloc::{Reservation, Run, Several, Want};
use super::error::{Error, Result};
use super::extent::{self, Found, Mapping, Media, KEY_END};
use super::format::{RawInode, Time, BLOCK, CHUNK_BLOCKS, MAX_FILE};
use super::inode::{Before, Inode, LINE, WHOLE};
use super::pmem::Pmem;
use super::task::{Task, Work};
use super::Volume;
use crate::env::Vec;
use crate::mutate::mutated;

/// The first file block that no file reaches.
pub(super) const FILE_END: u64 = (MAX_FILE + 1) / BLOCK;
/// A run of this many blocks, half a chunk, is aligned with its file. Smaller consecutive ones
/// continue at their goal in the same chunk.
const LARGE: u64 = CHUNK_BLOCKS / 2;
/// The most blocks that one [`Volume::fill`] zeroes: 16 MiB, a few milliseconds.
const FILL_MAX: u64 = 4096;
/// The most holes to which one [`Volume::preallocate`] or [`Volume::fill_all`] maps blocks: half of
/// a split node has room for as many.
const HOLES_MAX: usize = 64;
/// The bits of a mode that hold the file type, and those of a regular file.
const S_IFMT: u16 = 0o170000;
const S_IFREG: u16 = 0o100000;

/// The content of a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// Nothing: it reads as zeros.
    Hole {
        /// File blocks, at least 1.
        len: u64,
    },
    /// Contiguous blocks of the device.
    Run {
        /// The first block.
        block: u64,
        /// Their number, at least 1.
        len: u64,
    },
    /// Contiguous blocks of the device that are unwritten: it reads as zeros.
    Unwritten {
        /// The first block.
        block: u64,
        /// Their number, at least 1.
        len: u64,
    },
}

impl Map {
    /// The number of its file blocks, at least 1.
    pub fn file_blocks(&self) -> u64 {
        let (Map::Hole { len } | Map::Run { len, .. } | Map::Unwritten { len, .. }) = *self;
        len
    }

    /// Its first `len` file blocks, which exist.
    pub(super) fn first(self, len: u64) -> Map {
        match self {
            Map::Hole { .. } => Map::Hole { len },
            Map::Run { block, .. } => Map::Run { block, len },
            Map::Unwritten { block, .. } => Map::Unwritten { block, len },
        }
    }
}

/// Blocks for holes of a file that are in one leaf of its tree.
struct ForHoles<'v, P: Pmem> {
    /// The mappings for the holes.
    new: Vec<Mapping>,
    /// The blocks of these.
    blocks: Vec<Reservation<'v, P>>,
    /// How many of them do not continue the mapping before them.
    apart: usize,
    /// Up to here every file block gets a block.
    end: u64,
}

/// Blocks that become part of a file in one transaction.
enum Part<'v, P: Pmem> {
    /// New blocks, as data or unwritten.
    New(Several<'v, P>, bool),
    /// This many blocks that the file has, unwritten until now.
    Own(u64),
}

/// Fails with [`Error::Invalid`] unless `inode` is a regular file.
pub(super) fn check_file(inode: &Inode) -> Result<()> {
    if inode.mode() & S_IFMT == S_IFREG {
        Ok(())
    } else {
        Err(Error::Invalid)
    }
}

/// The end of the file blocks `start..start + len`, which are at least one.
pub(super) fn end_of(start: u64, len: u64) -> Result<u64> {
    if len == 0 {
        return Err(Error::Invalid);
    }
    match start.checked_add(len) {
        Some(end) if end <= FILE_END => Ok(end),
        _ => Err(Error::TooBig),
    }
}

/// The extent that maps `key`, if `found`, the lookup of `key`, has it.
fn covering(found: &Found, key: u64) -> Option<Mapping> {
    found.floor.filter(|m| m.end() > key)
}

/// Sets the timestamps of a file whose content has changed.
pub(super) fn modified(raw: &mut RawInode, now: Time) {
    raw.set_mtime(now);
    raw.set_ctime(now);
}

impl<P: Pmem> Volume<P> {
    fn around(&self, inode: &mut Inode, key: u64) -> Result<Found> {
        check_file(inode)?;
        let nodes = Some(&mut inode.nodes);
        extent::lookup(&Media::of(self), nodes, &inode.raw, inode.at, key)
    }

    /// The mapping of `file_block` and, as far as it is contiguous, of the blocks after it, up to
    /// `max`.
    ///
    /// Fails with [`Error::TooBig`] past the largest file.
    pub fn map(&self, inode: &mut Inode, file_block: u64, max: u64) -> Result<Map> {
        let map = self.map_on_media(inode, file_block, max)?;
        Ok(match &inode.rest {
            Some(rest) => rest.shown(map, file_block),
            None => map,
        })
    }

    fn map_on_media(&self, inode: &mut Inode, file_block: u64, max: u64) -> Result<Map> {
        end_of(file_block, 1)?;
        let found = self.around(inode, file_block)?;
        let Some(m) = covering(&found, file_block) else {
            let len = (found.next.unwrap_or(FILE_END) - file_block).min(max.max(1));
            return Ok(Map::Hole { len });
        };
        let Mapping { block, len, .. } = m.part(file_block, m.end());
        let len = len.min(max.max(1));
        Ok(match m.unwritten {
            true => Map::Unwritten { block, len },
            false => Map::Run { block, len },
        })
    }

    /// Makes the first blocks of a hole, or of unwritten ones, at `file_block` data, all zeros: up
    /// to `len`, as many as are contiguous on the media and in the file, but never more than 16
    /// MiB. Sets the timestamps if `now` is given. Returns the blocks.
    ///
    /// Fails with [`Error::Exists`] if `file_block` is data already, and with [`Error::NoSpace`].
    pub fn fill(
        &self,
        inode: &mut Inode,
        file_block: u64,
        len: u64,
        now: Option<Time>,
    ) -> Result<Run> {
        self.fill_at_least(inode, file_block, 1, len, now)
    }

    /// As [`Volume::fill`], but fills at least `least` blocks of a hole, 1 to the 512 of a chunk,
    /// or fails with [`Error::NoSpace`]. The hole has at least as many.
    pub fn fill_at_least(
        &self,
        inode: &mut Inode,
        file_block: u64,
        least: u64,
        len: u64,
        now: Option<Time>,
    ) -> Result<Run> {
        end_of(file_block, len)?;
        self.finish_rest(inode)?;
        let found = self.around(inode, file_block)?;
        let len = len.min(FILL_MAX);
        let (part, run) = match covering(&found, file_block) {
            None => {
                let want = self.want_in(inode, &found, file_block, len);
                let blocks = self.reserve(want.at_least(least))?;
                let run = blocks.run();
                (Part::New(Several::one(blocks), false), run)
            }
            Some(m) if m.unwritten => {
                let Mapping { block, len, .. } = m.part(file_block, m.end().min(file_block + len));
                (Part::Own(len), Run { block, len })
            }
            Some(_) => return Err(Error::Exists),
        };
        if !mutated!("fill-zero") {
            self.pmem().zero_nt(run.block * BLOCK, run.len * BLOCK)?;
        }
        self.attach(inode, file_block, part, None, now)?;
        Ok(run)
    }

    /// Maps unwritten blocks to the holes among the `len` file blocks from `file_block` on: to as
    /// many as one transaction can, at least one if there is any. Sets the timestamps then. Returns
    /// the number of file blocks, from the first on, that are no hole any more.
    ///
    /// Fails with [`Error::NoSpace`] if there is no block for the first hole.
    pub fn preallocate(
        &self,
        inode: &mut Inode,
        file_block: u64,
        len: u64,
        now: Time,
    ) -> Result<u64> {
        let end = end_of(file_block, len)?;
        self.finish_rest(inode)?;
        let found = self.around(inode, file_block)?;
        if covering(&found, file_block).is_some() || found.next.is_some_and(|next| next < end) {
            return self.map_holes(inode, (file_block, end), true, Some(now));
        }
        let blocks = self.reserve_several(self.want_in(inode, &found, file_block, len))?;
        let done = blocks.blocks();
        self.attach(inode, file_block, Part::New(blocks, true), None, Some(now))?;
        Ok(done)
    }

    /// Makes the holes among the `len` file blocks from `file_block` on data, all zeros: as many as
    /// one transaction can, at least one if there is any. Sets the timestamps if `now` is given.
    /// Returns the number of file blocks, from the first on, that are no hole any more.
    ///
    /// Fails with [`Error::NoSpace`] if there is no block for the first hole.
    pub fn fill_all(
        &self,
        inode: &mut Inode,
        file_block: u64,
        len: u64,
        now: Option<Time>,
    ) -> Result<u64> {
        let end = end_of(file_block, len)?;
        self.finish_rest(inode)?;
        self.map_holes(inode, (file_block, end), false, now)
    }

    /// Maps blocks to the holes among the file blocks `from..to`, as [`Volume::preallocate`] does if
    /// `unwritten`, and as [`Volume::fill_all`] otherwise.
    fn map_holes(
        &self,
        inode: &mut Inode,
        (from, to): (u64, u64),
        unwritten: bool,
        now: Option<Time>,
    ) -> Result<u64> {
        let mut holes = self.reserve_holes(inode, (from, to), unwritten)?;
        let Some(first) = holes.new.first().map(|m| m.key) else {
            return Ok(holes.end - from);
        };
        // One leaf may have become two.
        let leaf_end = extent::make_room(self, inode, first, holes.apart)?;
        while let Some(m) = holes.new.last().filter(|m| m.key >= leaf_end) {
            holes.end = m.key;
            holes.new.pop();
            holes.blocks.pop();
        }
        let done = holes.end - from;
        let before = inode.before::<WHOLE>();
        if let Some(now) = now {
            modified(&mut inode.raw, now);
        }
        let result = self.fill_holes(inode, holes, unwritten, &before);
        if result.is_err() {
            inode.restore(&before);
        }
        result.map(|()| done)
    }

    /// Blocks for the holes among the file blocks `from..to`, in the leaf where `from` belongs and
    /// as many as one transaction takes.
    fn reserve_holes(
        &self,
        inode: &mut Inode,
        (from, to): (u64, u64),
        unwritten: bool,
    ) -> Result<ForHoles<'_, P>> {
        let (holes, end) = extent::holes(&Media::of(self), inode, (from, to), HOLES_MAX)?;
        let mut taken = ForHoles {
            new: Vec::with_capacity(holes.len())?,
            blocks: Vec::with_capacity(holes.len())?,
            apart: 0,
            end,
        };
        let mut taken_len = 0;
        for (key, around) in holes.iter() {
            let len = around.next.unwrap_or(FILE_END).min(to) - key;
            let blocks = match self.reserve(self.want_in(inode, around, *key, len)) {
                // The next transaction begins with this hole, or there is none.
                Err(Error::NoSpace) if taken_len > 0 => {
                    taken.end = *key;
                    break;
                }
                blocks => blocks?,
            };
            let run = blocks.run();
            let new = Mapping {
                unwritten,
                ..Mapping::new(*key, run.block, run.len)
            };
            let continues = around.floor.is_some_and(|m| extent::joins(&m, &new));
            taken.apart += usize::from(!continues);
            taken.new.push(new)?;
            taken.blocks.push(blocks)?;
            taken_len += new.len;
            if new.len < len || taken_len >= CHUNK_BLOCKS {
                taken.end = new.end();
                break;
            }
        }
        Ok(taken)
    }

    /// Maps the blocks of `holes`, and logs the other changes of `inode`.
    fn fill_holes(
        &self,
        inode: &mut Inode,
        mut holes: ForHoles<'_, P>,
        unwritten: bool,
        before: &Before<WHOLE>,
    ) -> Result<()> {
        if !unwritten && !mutated!("fill-zero") {
            for m in holes.new.iter() {
                self.pmem().zero_nt(m.block * BLOCK, m.len * BLOCK)?;
            }
        }
        let mut tx = self.begin()?;
        if !unwritten && !mutated!("insert-order") {
            tx.ordered();
        }
        while let Some(blocks) = holes.blocks.pop() {
            tx.take(blocks)?;
        }
        let edited = extent::fill(&mut tx, &Media::of(self), inode, &holes.new)?;
        inode.log_change(&mut tx, before)?;
        tx.commit()?;
        inode.keep(edited);
        Ok(())
    }

    /// The place where a block for `file_block` would continue the extent before it, or otherwise
    /// precede the one after it, with the same gap on the media as in the file. One of its own chunk
    /// comes first: the chunks of a file may lie anywhere.
    fn goal(&self, found: &Found, file_block: u64) -> Option<u64> {
        let start = file_block - file_block % CHUNK_BLOCKS;
        let in_chunk = |m: &Mapping| m.end() > start && m.key < start + CHUNK_BLOCKS;
        let (before, after) = (found.floor, found.after);
        let near = before.filter(in_chunk).or(after.filter(in_chunk));
        let m = near.or(before).or(after)?;
        let goal = match file_block.checked_sub(m.key) {
            Some(gap) => m.block.checked_add(gap),
            None => m.block.checked_sub(m.key - file_block),
        };
        goal.filter(|goal| self.geometry().is_data(*goal, 1))
    }

    /// The request for [`Volume::reserve`] to store up to `len` blocks from the hole at
    /// `file_block` on: not more than the hole has, and where they continue the file.
    ///
    /// Fails with [`Error::Exists`] if `file_block` is mapped.
    pub fn want(&self, inode: &mut Inode, file_block: u64, len: u64) -> Result<Want> {
        end_of(file_block, len)?;
        if let Some(rest) = &inode.rest {
            return Err(rest.why);
        }
        let found = self.around(inode, file_block)?;
        if covering(&found, file_block).is_some() {
            return Err(Error::Exists);
        }
        let want = self.want_in(inode, &found, file_block, len);
        let goes_on = found.floor.is_some_and(|m| m.end() == file_block);
        let grows = goes_on && file_block >= inode.size().div_ceil(BLOCK);
        Ok(if grows { want.growing() } else { want })
    }

    /// The request for up to `len` blocks for the hole at `file_block`, which was looked up.
    fn want_in(&self, inode: &Inode, found: &Found, file_block: u64, len: u64) -> Want {
        let hole = found.next.unwrap_or(FILE_END) - file_block;
        let want = Want::blocks(len.min(hole));
        // The first block in a chunk that is wholly a hole, where the size covers the chunk: more
        // will follow, in whatever order. But the middle of a file with more holes than there is
        // free space stays sparse, and must not use up all free chunks.
        let start = file_block - file_block % CHUNK_BLOCKS;
        let end = start + CHUNK_BLOCKS;
        let size = inode.size() / BLOCK;
        let begins = size >= end
            && found.floor.is_none_or(|m| m.end() <= start)
            && found.next.is_none_or(|next| next >= end)
            && (file_block == start
                || size.saturating_sub(inode.blocks()) <= self.available_blocks());
        let want = match (begins, want.len >= LARGE) {
            (true, _) => want.beginning(file_block),
            (false, true) => want.aligned(file_block),
            (false, false) => want,
        };
        match self.goal(found, file_block) {
            Some(goal) => want.near(goal),
            None => want,
        }
    }

    /// Maps the reserved `blocks` at `file_block`, all of them at once. The caller has stored their
    /// whole content, past the cache or written back; this issues the fence. With a `new_size`
    /// above the size, the file gets it, and mapped bytes between the old size and `file_block`
    /// become zero. Sets the timestamps.
    ///
    /// Fails with [`Error::Exists`] if a block of the range is mapped by now. After any error the
    /// reservation is released.
    pub fn insert(
        &self,
        inode: &mut Inode,
        file_block: u64,
        blocks: Several<'_, P>,
        new_size: Option<u64>,
        now: Time,
    ) -> Result<()> {
        let end = end_of(file_block, blocks.blocks())?;
        self.finish_rest(inode)?;
        let found = self.around(inode, file_block)?;
        if covering(&found, file_block).is_some() || found.next.is_some_and(|next| next < end) {
            return Err(Error::Exists);
        }
        let part = Part::New(blocks, false);
        self.attach(inode, file_block, part, new_size, Some(now))
    }

    /// Makes the unwritten blocks that hold the bytes `stored` of the file, at least one, data. The
    /// caller has stored these bytes, past the cache or written back; the other bytes of the blocks
    /// become zero, and this issues the fence. With a `new_size` above the size, the file gets it,
    /// and mapped bytes between the old size and the first of the blocks become zero. Sets the
    /// timestamps.
    ///
    /// Fails with [`Error::Exists`], and changes nothing, unless all blocks are in one unwritten
    /// extent: a fault may have come first.
    pub fn convert(
        &self,
        inode: &mut Inode,
        stored: Range<u64>,
        new_size: Option<u64>,
        now: Time,
    ) -> Result<()> {
        let first = stored.start / BLOCK;
        let len = stored.end.div_ceil(BLOCK).saturating_sub(first);
        end_of(first, len)?;
        self.finish_rest(inode)?;
        let block = match self.map(inode, first, len)? {
            Map::Unwritten { block, len: own } if own == len => block,
            _ => return Err(Error::Exists),
        };
        let (head, end) = (stored.start % BLOCK, stored.end - first * BLOCK);
        if !mutated!("convert-zero") {
            self.pmem().zero_nt(block * BLOCK, head)?;
            self.pmem()
                .zero_nt(block * BLOCK + end, len * BLOCK - end)?;
        }
        self.attach(inode, first, Part::Own(len), new_size, Some(now))
    }

    /// Makes data among the file blocks `file_block..file_block + len` unwritten, so they become
    /// zeros. Sets the timestamps. Returns whether there was any: earlier stores, past the cache or
    /// written back, are durable then.
    pub fn unwrite(&self, inode: &mut Inode, file_block: u64, len: u64, now: Time) -> Result<bool> {
        let end = end_of(file_block, len)?;
        self.finish_rest(inode)?;
        let mut first = file_block;
        loop {
            if first >= end {
                return Ok(false);
            }
            match self.map(inode, first, end - first)? {
                Map::Run { .. } => break,
                map => first += map.file_blocks(),
            }
        }
        let task = Task {
            work: Work::Unwrite,
            keys: (first, end),
        };
        self.room_for(inode, &task)?;
        self.carry_out(inode, task, |_, raw| {
            modified(raw, now);
            Ok(())
        })?;
        Ok(true)
    }

    /// Makes the file blocks of `range`, which are unwritten and in one extent, data, and logs the
    /// other changes of `inode`.
    fn mark_at(&self, inode: &mut Inode, range: (u64, u64), before: &Before<WHOLE>) -> Result<()> {
        let mut tx = self.begin()?;
        if !mutated!("convert-order") {
            tx.ordered();
        }
        let media = Media::of(self);
        let edited = extent::mark(&mut tx, &media, inode, range)?;
        inode.log_change(&mut tx, before)?;
        tx.commit()?;
        inode.keep(edited);
        Ok(())
    }

    /// Makes `part` part of the file at `file_block`. Its data is stored but not fenced.
    fn attach(
        &self,
        inode: &mut Inode,
        file_block: u64,
        part: Part<'_, P>,
        new_size: Option<u64>,
        now: Option<Time>,
    ) -> Result<()> {
        let grown = new_size.filter(|&size| size > inode.size());
        if grown.is_some_and(|size| size > MAX_FILE) {
            return Err(Error::TooBig);
        }
        if let Some(size) = grown {
            self.zero_mapped(inode, inode.size(), size.min(file_block * BLOCK))?;
        }
        let need = match &part {
            Part::New(blocks, _) => blocks.count(),
            // The part of its extent before it, and the part after it.
            Part::Own(_) => 2,
        };
        extent::make_room(self, inode, file_block, need)?;
        let before = inode.before::<WHOLE>();
        if let Some(size) = grown {
            inode.raw.size = U64::new(size);
        }
        if let Some(now) = now {
            modified(&mut inode.raw, now);
        }
        let result = match part {
            Part::New(blocks, unwritten) => {
                self.insert_at(inode, file_block, blocks, unwritten, &before)
            }
            Part::Own(len) => self.mark_at(inode, (file_block, file_block + len), &before),
        };
        if result.is_err() {
            inode.restore(&before);
        }
        result
    }

    /// Maps `blocks` at `file_block`, a hole, and logs the other changes of `inode`.
    fn insert_at(
        &self,
        inode: &mut Inode,
        file_block: u64,
        blocks: Several<'_, P>,
        unwritten: bool,
        before: &Before<WHOLE>,
    ) -> Result<()> {
        let mapping = |key, run: Run| Mapping {
            unwritten,
            ..Mapping::new(key, run.block, run.len)
        };
        let mut runs = blocks.runs();
        let Some(first) = runs.next().map(|run| mapping(file_block, run)) else {
            return Err(Error::Invalid);
        };
        let (mut others, mut key) = (Vec::new(), first.end());
        for run in runs {
            others.push(mapping(key, run))?;
            key += run.len;
        }
        let mut tx = self.begin()?;
        if !unwritten && !mutated!("insert-order") {
            tx.ordered();
        }
        blocks.take(&mut tx)?;
        let media = Media::of(self);
        let edited = extent::insert(&mut tx, &media, inode, first, &others, true)?;
        inode.log_change(&mut tx, before)?;
        tx.commit()?;
        inode.keep(edited);
        Ok(())
    }

    /// Extends the file to `new_size` bytes, if that is more than it has. The caller has stored the
    /// bytes from `stored_from` on, past the cache or written back. (If it has stored nothing,
    /// `stored_from` is `new_size`, and the rest of the old last block becomes zero, too.) Mapped
    /// bytes between the old size and `stored_from` become zero. This issues the fence. Sets the
    /// timestamps if `now` is given.
    pub fn extend(
        &self,
        inode: &mut Inode,
        new_size: u64,
        stored_from: u64,
        now: Option<Time>,
    ) -> Result<()> {
        check_file(inode)?;
        if new_size > MAX_FILE {
            return Err(Error::TooBig);
        }
        if new_size <= inode.size() {
            return Ok(());
        }
        self.finish_rest(inode)?;
        let to = match stored_from < new_size {
            true => stored_from,
            // To the end of the last block: a mapping shows all of that.
            false => new_size.max(inode.size().next_multiple_of(BLOCK)),
        };
        self.zero_mapped(inode, inode.size(), to)?;
        let before = inode.before::<LINE>();
        inode.raw.size = U64::new(new_size);
        if let Some(now) = now {
            modified(&mut inode.raw, now);
        }
        let result = self.begin().and_then(|mut tx| {
            if !mutated!("extend-order") {
                tx.ordered();
            }
            inode.log_change(&mut tx, &before)?;
            tx.commit()
        });
        if result.is_err() {
            inode.restore(&before);
        }
        result
    }

    /// Zeroes mapped bytes among `from..to`, which are beyond the end, past the cache and without a
    /// fence: a larger size is going to follow, with the bytes stored from `to` on.
    pub fn zero_gap(&self, inode: &mut Inode, from: u64, to: u64) -> Result<()> {
        check_file(inode)?;
        self.finish_rest(inode)?;
        self.zero_mapped(inode, from, to)
    }

    /// Zeroes mapped bytes among `from..to`, past the cache and without a fence.
    fn zero_mapped(&self, inode: &mut Inode, from: u64, to: u64) -> Result<()> {
        let mut at = from;
        while at < to {
            let block = at / BLOCK;
            let left = to.div_ceil(BLOCK) - block;
            at = match self.map(inode, block, left)? {
                Map::Hole { len } | Map::Unwritten { len, .. } => (block + len) * BLOCK,
                Map::Run { block: first, len } => {
                    let end = to.min((block + len) * BLOCK);
                    if !mutated!("extend-zero") {
                        self.pmem().zero_nt(first * BLOCK + at % BLOCK, end - at)?;
                    }
                    end
                }
            };
        }
        Ok(())
    }

    /// Sets the size of the file, frees the blocks beyond it, and, if the file shrinks, zeroes the
    /// rest of its last block. Sets the timestamps.
    pub fn truncate(&self, inode: &mut Inode, new_size: u64, now: Time) -> Result<()> {
        check_file(inode)?;
        if new_size > inode.size() {
            return self.extend(inode, new_size, new_size, Some(now));
        }
        self.finish_rest(inode)?;
        let (last, skip) = (new_size / BLOCK, new_size % BLOCK);
        let tail = match skip {
            0 => None,
            _ => match self.map(inode, last, 1)? {
                Map::Run { block, .. } => Some(block * BLOCK + skip),
                Map::Hole { .. } | Map::Unwritten { .. } => None,
            },
        };
        let task = Task {
            work: Work::Cut,
            keys: (new_size.div_ceil(BLOCK), KEY_END),
        };
        self.carry_out(inode, task, |tx, raw| {
            raw.size = U64::new(new_size);
            modified(raw, now);
            match tail {
                Some(at) => tx.zero(at, BLOCK - skip),
                None => Ok(()),
            }
        })
    }

    /// Makes the file blocks `file_block..file_block + len` a hole, and frees their blocks. Sets
    /// the timestamps.
    pub fn punch(&self, inode: &mut Inode, file_block: u64, len: u64, now: Time) -> Result<()> {
        check_file(inode)?;
        if file_block >= FILE_END || len == 0 {
            return Ok(());
        }
        self.finish_rest(inode)?;
        let end = file_block.saturating_add(len).min(FILE_END);
        let found = self.around(inode, file_block)?;
        if covering(&found, file_block).is_some_and(|m| m.key < file_block && m.end() > end) {
            extent::make_room(self, inode, file_block, 1)?;
        }
        let task = Task {
            work: Work::Cut,
            keys: (file_block, end),
        };
        self.carry_out(inode, task, |_, raw| {
            modified(raw, now);
            Ok(())
        })
    }

    /// The first byte at `offset` or after it that is data. `None` if there is none up to the size.
    pub fn seek_data(&self, inode: &mut Inode, offset: u64) -> Result<Option<u64>> {
        self.seek(inode, offset, |map| matches!(map, Map::Run { .. }))
    }

    /// The first byte at `offset` or after it that is in a hole or in unwritten blocks; the end of
    /// the file counts as one. `None` if `offset` is beyond that.
    pub fn seek_hole(&self, inode: &mut Inode, offset: u64) -> Result<Option<u64>> {
        let found = self.seek(inode, offset, |map| !matches!(map, Map::Run { .. }))?;
        Ok(found.or((offset < inode.size()).then_some(inode.size())))
    }

    /// The first byte at `offset` or after it, and below the size, whose mapping is `wanted`.
    fn seek(
        &self,
        inode: &mut Inode,
        offset: u64,
        wanted: impl Fn(&Map) -> bool,
    ) -> Result<Option<u64>> {
        check_file(inode)?;
        let mut block = offset / BLOCK;
        // The block grows with each step, so this ends.
        while offset.max(block * BLOCK) < inode.size() {
            let map = self.map(inode, block, u64::MAX)?;
            if wanted(&map) {
                return Ok(Some(offset.max(block * BLOCK)));
            }
            block += map.file_blocks();
        }
        Ok(None)
    }

    /// Frees an inode of any type that has no name and no user, with all its blocks. If this takes
    /// several transactions, a crash leaves the rest to the next mount.
    pub fn free_inode(&self, inode: &mut Inode) -> Result<()> {
        if inode.nlink() != 0 {
            return Err(Error::Invalid);
        }
        self.free_xattrs(inode)?;
        let mut to = KEY_END;
        loop {
            let before = inode.before::<WHOLE>();
            match self.free_part(inode, &before, to) {
                Ok(Some(end)) => to = end,
                Ok(None) => break,
                Err(error) => {
                    inode.restore(&before);
                    return Err(error);
                }
            }
        }
        // The inode is freed, whether or not this succeeds.
        let _ = self.shrink_table();
        let _ = self.shrink_orphans();
        Ok(())
    }

    /// Frees as many of the blocks before `to` as one transaction can, or, with the last of them,
    /// the inode. Returns the end of the rest.
    fn free_part(&self, inode: &mut Inode, before: &Before<WHOLE>, to: u64) -> Result<Option<u64>> {
        let media = Media::of(self);
        let mut tx = self.begin()?;
        let (left, _) = extent::cut(&mut tx, &media, inode, (0, to))?;
        match left {
            Some(_) => inode.log_change(&mut tx, before)?,
            // The slot stays as it is: it is free then.
            None => {
                tx.detach_orphan(&mut inode.raw)?;
                tx.free_inode(inode)?;
            }
        }
        tx.commit()?;
        Ok(left)
    }
}
