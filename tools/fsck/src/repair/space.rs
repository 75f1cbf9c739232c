// SPDX-License-Identifier: GPL-2.0

//! Bitmaps and counters: corrected, and used to find blocks for rebuilt structures.

use std::collections::BTreeMap;

use rdax_volume::env::crc32c;
use rdax_volume::volume::alloc::Run;
use rdax_volume::volume::check::{Kind, Problem};
use rdax_volume::volume::error::{Error, Result, Structure};
use rdax_volume::volume::format::{RawInode, Summary, CHUNK_BLOCKS, ORPHAN_INO, TABLE_INO};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::IntoBytes;

use super::log::{Log, Write};
use super::{of, Repair};

type Bitmap = [u8; 64];

/// Bitmaps of some chunks.
pub(super) type Named = BTreeMap<u64, Bitmap>;

/// Whether `block` is among `named`.
pub(super) fn is_named(named: &Named, block: u64) -> bool {
    let bitmap = named.get(&(block / CHUNK_BLOCKS));
    bitmap.is_some_and(|bitmap| is_set(bitmap, block % CHUNK_BLOCKS))
}

fn is_set(bitmap: &Bitmap, bit: u64) -> bool {
    (bitmap[(bit / 8) as usize] >> (bit % 8)) & 1 == 1
}

fn set(bitmap: &mut Bitmap, bit: u64, used: bool) {
    let mask = 1 << (bit % 8);
    let byte = &mut bitmap[(bit / 8) as usize];
    *byte = if used { *byte | mask } else { *byte & !mask };
}

/// The summary of `chunk` with `bitmap`, in a volume of this `seed`. `reserved` is what it had
/// there.
fn summary_of(seed: u32, chunk: u64, bitmap: &Bitmap, reserved: U16) -> Summary {
    let free: u32 = bitmap.iter().map(|byte| byte.count_zeros()).sum();
    let mut summary = Summary {
        crc: U32::ZERO,
        free: U16::new(free as u16),
        reserved,
    };
    let crc = crc32c(crc32c(seed, bitmap), &summary.as_bytes()[4..]);
    summary.crc = U32::new(crc32c(crc, &chunk.to_le_bytes()));
    summary
}

/// Runs of blocks by the chunks they lie in.
fn by_chunk(chunks: &mut BTreeMap<u64, Vec<Run>>, block: u64, len: u64) {
    let (mut block, end) = (block, block + len);
    while block < end {
        let chunk = block / CHUNK_BLOCKS;
        let stop = end.min((chunk + 1) * CHUNK_BLOCKS);
        let len = stop - block;
        chunks.entry(chunk).or_default().push(Run { block, len });
        block = stop;
    }
}

impl Repair<'_, '_> {
    /// Marks everything in use as used, and computes the summary of every bitmap. Frees nothing.
    pub(super) fn bitmaps(&mut self, problems: &[Problem]) -> Result<bool> {
        let mut chunks = BTreeMap::new();
        for problem in of(problems, Structure::Bitmap) {
            match problem.kind {
                Kind::MarkedFree { block, len } => by_chunk(&mut chunks, block, len),
                Kind::Leaked { .. } | Kind::Unreadable => {}
                _ => {
                    let chunk = (problem.at - self.media.geo.summary_at(0)) / 8;
                    chunks.entry(chunk).or_default();
                }
            }
        }
        self.mark(&chunks, true)?;
        if !chunks.is_empty() {
            self.say("block bitmaps corrected: what is in use is marked so".into());
        }
        Ok(!chunks.is_empty())
    }

    /// Frees unused blocks. Done last: while anything else is wrong, they may be part of that;
    /// unless it is only wrong because it lacks space, and has been searched for.
    pub(super) fn leaks(&mut self, problems: &[Problem]) -> Result<bool> {
        let (mut chunks, mut freed) = (BTreeMap::new(), 0);
        for problem in problems {
            match (problem.kind, problem.what) {
                (Kind::Leaked { block, len }, _) => {
                    by_chunk(&mut chunks, block, len);
                    freed += len;
                }
                (Kind::OrphanSlot { .. }, _) | (_, Structure::InodeChunk) if self.short => {}
                _ if self.short && matches!(problem.ino, Some(TABLE_INO | ORPHAN_INO)) => {}
                _ => return Ok(false),
            }
        }
        if freed == 0 {
            return Ok(false);
        }
        self.mark(&chunks, false)?;
        self.say(format!("{freed} blocks that nothing uses freed"));
        Ok(true)
    }

    /// Marks blocks in use or free, and writes the summaries of their chunks.
    fn mark(&mut self, chunks: &BTreeMap<u64, Vec<Run>>, used: bool) -> Result<()> {
        /// Chunks per transaction: the writes of this many fit a lane.
        const BATCH: usize = 128;
        let mut writes = Vec::new();
        for (&chunk, runs) in chunks {
            let mut bitmap = self.media.bitmap(chunk).unwrap_or([0xff; 64]);
            for run in runs {
                for block in run.block..run.end() {
                    set(&mut bitmap, block % CHUNK_BLOCKS, used);
                }
            }
            let first = chunk * CHUNK_BLOCKS;
            for block in self.media.geo.blocks.max(first)..first + CHUNK_BLOCKS {
                set(&mut bitmap, block - first, true);
            }
            writes.extend(self.bitmap_writes(chunk, &bitmap));
            if writes.len() >= 2 * BATCH {
                self.log.commit(&writes)?;
                writes.clear();
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.log.commit(&writes)
    }

    fn bitmap_writes(&self, chunk: u64, bitmap: &Bitmap) -> [Write; 2] {
        let geo = &self.media.geo;
        let old: Option<Summary> = self.media.get(geo.summary_at(chunk));
        let reserved = old.map_or(U16::ZERO, |old| old.reserved);
        let summary = summary_of(geo.seed, chunk, bitmap, reserved);
        [
            (geo.bitmap_at(chunk), bitmap.to_vec()),
            (geo.summary_at(chunk), summary.as_bytes().to_vec()),
        ]
    }

    /// The blocks that `inodes` name, as far as what names them is sound, but for extents longer
    /// than all that their inode counts.
    pub(super) fn blocks_named_by(&self, inodes: impl Iterator<Item = RawInode>) -> Named {
        let mut named = Named::new();
        for raw in inodes {
            let mut blocks = self.media.blocks_of(&raw);
            blocks.retain(|m| m.len <= raw.blocks.get());
            let mut chunks = BTreeMap::new();
            for m in blocks {
                by_chunk(&mut chunks, m.block, m.len);
            }
            for (chunk, runs) in chunks {
                let bitmap = named.entry(chunk).or_insert([0; 64]);
                for block in runs.iter().flat_map(|run| run.block..run.end()) {
                    set(bitmap, block % CHUNK_BLOCKS, true);
                }
            }
        }
        named
    }

    /// Takes up to `want` contiguous free blocks that nothing names, and marks them. They have no
    /// owner until something refers to them. Fails with [`Error::NoSpace`].
    pub(super) fn take(&mut self, want: u64) -> Result<Run> {
        if self.named.is_none() {
            // The checker does not mark those of a structure that it does not look into because
            // another one has its block, too.
            let system = (0..2).filter_map(|slot| self.media.system_inode(slot));
            let all = system.chain(self.media.inodes().map(|(_, raw)| raw));
            self.named = Some(self.blocks_named_by(all));
        }
        let chunks = self.media.geo.chunks;
        for chunk in (self.cursor..chunks).chain(0..self.cursor.min(chunks)) {
            let Some(mut bitmap) = self.media.bitmap(chunk) else {
                continue;
            };
            let stored: Option<Summary> = self.media.get(self.media.geo.summary_at(chunk));
            // A damaged bitmap may have anything marked free.
            let sound = stored.is_some_and(|stored| {
                let right = summary_of(self.media.geo.seed, chunk, &bitmap, stored.reserved);
                stored.as_bytes() == right.as_bytes()
            });
            if let Some(named) = self.named.as_ref().and_then(|named| named.get(&chunk)) {
                bitmap
                    .iter_mut()
                    .zip(named)
                    .for_each(|(byte, bits)| *byte |= bits);
            }
            let first = (0..CHUNK_BLOCKS).find(|&bit| !is_set(&bitmap, bit));
            let Some(first) = first.filter(|_| sound) else {
                continue;
            };
            let len = (first..CHUNK_BLOCKS.min(first + want))
                .take_while(|&bit| !is_set(&bitmap, bit))
                .count() as u64;
            for bit in first..first + len {
                set(&mut bitmap, bit, true);
            }
            let writes = self.bitmap_writes(chunk, &bitmap);
            self.log.commit(&writes)?;
            self.cursor = chunk;
            let block = chunk * CHUNK_BLOCKS + first;
            return Ok(Run { block, len });
        }
        Err(Error::NoSpace)
    }

    /// Takes exactly `count` free blocks, anywhere.
    pub(super) fn take_all(&mut self, count: usize) -> Result<Vec<u64>> {
        let mut blocks = Vec::new();
        while blocks.len() < count {
            let run = self.take((count - blocks.len()) as u64)?;
            blocks.extend(run.block..run.end());
        }
        Ok(blocks)
    }

    /// The volume's numbers of free blocks and inodes in use, from the bitmaps.
    pub(super) fn counters(&mut self, problems: &[Problem]) -> Result<bool> {
        let (mut free, mut used) = (0, 0);
        let (mut free_now, mut used_now) = (None, None);
        for problem in of(problems, Structure::SuperBlock) {
            match problem.kind {
                Kind::FreeBlocks { stored, counted } => {
                    free = i128::from(counted) - stored;
                    free_now = Some(counted);
                }
                Kind::UsedInodes { stored, counted } => {
                    used = i128::from(counted) - stored;
                    used_now = Some(counted);
                }
                _ => {}
            }
        }
        if free == 0 && used == 0 {
            return Ok(false);
        }
        self.say("numbers of free blocks and of inodes in use corrected".into());
        let lane = self.log.counters();
        let fits = |old: i64, delta: i128| i64::try_from(i128::from(old) + delta).is_ok();
        if let (Ok(f), Ok(u)) = (i64::try_from(free), i64::try_from(used)) {
            if fits(lane.0, free) && fits(lane.1, used) {
                self.log.commit_counted(&[], f, u)?;
                return Ok(true);
            }
        }
        // No lane can compensate for one that is so far off, nor for such a superblock: the numbers
        // go into the superblock, and the lanes become zero.
        let (mut free, mut used) = (i128::from(lane.0), i128::from(lane.1));
        self.log.clear_counters()?;
        for index in 1..self.media.geo.lane_count {
            let mut log = Log::open(self.media.pmem, &self.media.geo, index)?;
            free += i128::from(log.counters().0);
            used += i128::from(log.counters().1);
            log.clear_counters()?;
        }
        let mut sb = self.media.sb.clone();
        let sum = |now: Option<u64>, base: U64, lanes: i128| {
            let right = now.or_else(|| u64::try_from(i128::from(base.get()) + lanes).ok());
            right.map_or(base, U64::new)
        };
        sb.free_blocks = sum(free_now, sb.free_blocks, free);
        sb.used_inodes = sum(used_now, sb.used_inodes, used);
        self.put_super_block(sb)?;
        Ok(true)
    }
}
