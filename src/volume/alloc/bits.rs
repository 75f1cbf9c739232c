// SPDX-License-Identifier: GPL-2.0

//! Chunk bitmaps and their summaries, on the media.
//!
//! Whoever changes a chunk's holds the lock of its allocation group; recovery is alone.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::Run;
use crate::env::crc32c;
use crate::volume::error::{Error, Result, Structure};
use crate::volume::format::{Summary, BLOCK, CHUNK_BLOCKS};
use crate::volume::num::to_usize;
use crate::volume::persist::Dirty;
use crate::volume::pmem::{read_struct, Pmem};
use crate::volume::super_block::Geometry;

/// Words of a chunk's bitmap.
const WORDS: usize = to_usize(CHUNK_BLOCKS / 64);
/// Chunks whose summaries share a cache line: what a scan reads at a time.
pub(super) const BATCH: u64 = 8;

/// The blocks of a chunk that cannot be allocated: bit set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mask([u64; WORDS]);

impl Mask {
    /// The blocks `run` that lie in `chunk`.
    fn of(run: Run, chunk: u64) -> Mask {
        let base = chunk * CHUNK_BLOCKS;
        let from = run.block.clamp(base, base + CHUNK_BLOCKS) - base;
        let to = run.end().clamp(base, base + CHUNK_BLOCKS) - base;
        let mut mask = [0; WORDS];
        let mut at = from;
        while at < to {
            let end = to.min((at / 64 + 1) * 64);
            if let Some(word) = mask.get_mut(to_usize(at / 64)) {
                *word = (u64::MAX >> (64 - (end - at))) << (at % 64);
            }
            at = end;
        }
        Mask(mask)
    }

    /// Adds the blocks of `run` that lie in `chunk`.
    pub(super) fn add(&mut self, run: Run, chunk: u64) {
        for (word, more) in self.0.iter_mut().zip(Mask::of(run, chunk).0) {
            *word |= more;
        }
    }

    /// The first bit from `from` on that is set, or clear if not `set`; 512 if there is none.
    fn next(&self, from: u64, set: bool) -> u64 {
        let skip = to_usize(from / 64);
        for (i, word) in self.0.iter().enumerate().skip(skip) {
            let mut word = if set { *word } else { !*word };
            if i == skip {
                word &= u64::MAX << (from % 64);
            }
            if word != 0 {
                return i as u64 * 64 + u64::from(word.trailing_zeros());
            }
        }
        CHUNK_BLOCKS
    }

    /// Clear bits from `from` on, up to the first set one.
    pub(super) fn clear_from(&self, from: u64) -> u64 {
        self.next(from, true) - from
    }

    /// The first run of at least `good` clear bits, as first bit and length, and else the longest
    /// one. A length of 0 if no bit is clear.
    pub(super) fn find(&self, good: u64) -> (u64, u64) {
        let mut best = (0, 0);
        let mut from = 0;
        loop {
            let first = self.next(from, false);
            if first == CHUNK_BLOCKS {
                return best;
            }
            let len = self.clear_from(first);
            if len > best.1 {
                best = (first, len);
                if len >= good {
                    return best;
                }
            }
            from = first + len;
            if from == CHUNK_BLOCKS {
                return best;
            }
        }
    }
}

type Words = [U64; WORDS];

fn free_in(words: &Words) -> u16 {
    let free: u32 = words.iter().map(|w| w.get().count_zeros()).sum();
    u16::try_from(free).unwrap_or(u16::MAX)
}

/// Makes `summary` that of `chunk` with the bitmap `words`.
fn summarise(summary: &mut Summary, seed: u32, words: &Words, chunk: u64) {
    summary.free = U16::new(free_in(words));
    summary.crc = U32::new(checksum(seed, words, summary, chunk));
}

fn checksum(seed: u32, words: &Words, summary: &Summary, chunk: u64) -> u32 {
    let crc = crc32c(seed, words.as_bytes());
    let crc = crc32c(crc, summary.free.as_bytes());
    let crc = crc32c(crc, summary.reserved.as_bytes());
    crc32c(crc, &chunk.to_le_bytes())
}

/// The free blocks of the chunks `first..` that share a line of the summary with `first`, as far as
/// `limit`: how many chunks that are, and their numbers of free blocks. Not verified: a hint.
pub(super) fn read_free<P: Pmem>(
    pmem: &P,
    geo: &Geometry,
    first: u64,
    limit: u64,
) -> Result<(u64, [u16; to_usize(BATCH)])> {
    let n = (BATCH - first % BATCH).min(limit - first);
    let mut line = <[Summary; to_usize(BATCH)]>::new_zeroed();
    let bytes = line.as_mut_bytes();
    if let Some(bytes) = bytes.get_mut(..to_usize(n) * size_of::<Summary>()) {
        pmem.read(geo.summary_at(first), bytes)?;
    }
    Ok((n, line.map(|s| s.free.get())))
}

/// Reads and verifies the bitmap of `chunk`.
pub(super) fn read<P: Pmem>(pmem: &P, geo: &Geometry, chunk: u64) -> Result<Mask> {
    let words: Words = read_struct(pmem, geo.bitmap_at(chunk))?;
    let summary: Summary = read_struct(pmem, geo.summary_at(chunk))?;
    if summary.crc.get() != checksum(geo.seed, &words, &summary, chunk)
        || summary.free.get() != free_in(&words)
    {
        return Err(Error::Corrupt {
            what: Structure::Bitmap,
            at: geo.bitmap_at(chunk),
        });
    }
    Ok(Mask(words.map(U64::get)))
}

/// Whether the bitmap of `chunk` is there.
pub(in crate::volume) fn is_sound<P: Pmem>(pmem: &P, geo: &Geometry, chunk: u64) -> bool {
    read(pmem, geo, chunk).is_ok()
}

/// Fails unless all blocks of `run` are data blocks in use.
pub(super) fn check_used<P: Pmem>(pmem: &P, geo: &Geometry, run: Run) -> Result<()> {
    if !geo.is_data(run.block, run.len) {
        return Err(Error::Corrupt {
            what: Structure::Bitmap,
            at: run.block.saturating_mul(BLOCK),
        });
    }
    for chunk in run.chunks() {
        let mask = read(pmem, geo, chunk)?;
        let mut with = mask;
        with.add(run, chunk);
        if with != mask {
            return Err(Error::Corrupt {
                what: Structure::Bitmap,
                at: geo.bitmap_at(chunk),
            });
        }
    }
    Ok(())
}

/// Marks the blocks of `run`, which are data blocks, in use or free, and recomputes the summaries.
/// Doing it again changes nothing.
pub(in crate::volume) fn apply<P: Pmem, S>(
    dirty: &mut Dirty<'_, P, S>,
    pmem: &P,
    geo: &Geometry,
    run: Run,
    used: bool,
) -> Result<()> {
    let mut chunks = run.chunks();
    while chunks.start < chunks.end {
        // Bitmaps first, then the line of their summaries, so that each line is written back once.
        let n = (BATCH - chunks.start % BATCH).min(chunks.end - chunks.start);
        let mut summaries = <[Summary; to_usize(BATCH)]>::new_zeroed();
        if let Some(summaries) = summaries.get_mut(..to_usize(n)) {
            pmem.read(geo.summary_at(chunks.start), summaries.as_mut_bytes())?;
        }
        for (chunk, summary) in (chunks.start..chunks.start + n).zip(&mut summaries) {
            let at = geo.bitmap_at(chunk);
            let mut words: Words = read_struct(pmem, at)?;
            for ((i, word), mask) in words.iter_mut().enumerate().zip(Mask::of(run, chunk).0) {
                let old = word.get();
                let new = if used { old | mask } else { old & !mask };
                if new != old {
                    *word = U64::new(new);
                    dirty.store(at + i as u64 * 8, word.as_bytes())?;
                }
            }
            summarise(summary, geo.seed, &words, chunk);
        }
        if let Some(summaries) = summaries.get(..to_usize(n)) {
            dirty.store(geo.summary_at(chunks.start), summaries.as_bytes())?;
        }
        chunks.start += n;
    }
    Ok(())
}

/// Writes the bitmap and the summary of `chunk`, with exactly the blocks of `used` in use: for
/// mkfs.
pub(in crate::volume) fn format<P: Pmem, S>(
    dirty: &mut Dirty<'_, P, S>,
    geo: &Geometry,
    chunk: u64,
    used: &[Run],
) -> Result<u64> {
    let mut mask = Mask([0; WORDS]);
    for run in used {
        mask.add(*run, chunk);
    }
    let words: Words = mask.0.map(U64::new);
    let mut summary = Summary::new_zeroed();
    summarise(&mut summary, geo.seed, &words, chunk);
    dirty.store(geo.bitmap_at(chunk), words.as_bytes())?;
    dirty.store(geo.summary_at(chunk), summary.as_bytes())?;
    Ok(u64::from(summary.free.get()))
}
