// SPDX-License-Identifier: GPL-2.0

//! Chunk bitmaps and their summaries, on the media.
//!
//! Changing a chunk's bitmap requires the lock of its allocation group; recovery runs alone.

use core::ops::Range;

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
/// Chunks whose summaries share a cache line: a scan reads them together.
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
        if to - from == CHUNK_BLOCKS {
            return Mask([u64::MAX; WORDS]);
        }
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

    /// Whether all bits of `other` are set.
    fn has(&self, other: &Mask) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .all(|(word, other)| word & other == *other)
    }

    /// The first bit from `from` on that is set; 512 if there is none.
    fn next_set(&self, from: u64) -> u64 {
        let skip = to_usize(from / 64);
        let mut wanted = u64::MAX << (from % 64);
        for (i, word) in self.0.iter().enumerate().skip(skip) {
            let word = word & wanted;
            if word != 0 {
                return i as u64 * 64 + u64::from(word.trailing_zeros());
            }
            wanted = u64::MAX;
        }
        CHUNK_BLOCKS
    }

    /// The number of clear bits from `from` on, up to the first set one.
    pub(super) fn clear_from(&self, from: u64) -> u64 {
        self.next_set(from) - from
    }

    /// The bits that are set together with the `by` bits, fewer than 512, after them.
    fn and_after(&self, by: u64) -> Mask {
        let (words, bits) = (to_usize(by / 64), by % 64);
        let word = |i: usize| self.0.get(i).copied().unwrap_or(0);
        Mask(core::array::from_fn(|i| {
            // Two shifts: a single shift by 64 would do nothing.
            let high = word(i + words + 1) << (63 - bits) << 1;
            word(i) & ((word(i + words) >> bits) | high)
        }))
    }

    /// The first run of at least `good` clear bits, 1 to 512, as first bit and length; if there is
    /// none, the first of the longest runs. A length of 0 if no bit is clear.
    pub(super) fn find(&self, good: u64) -> (u64, u64) {
        // Where `len` clear bits begin. Some runs may be longer, by less than `range`: that is
        // found by halving the range, but in steps that leave no gap between the bits that were
        // checked.
        let mut starts = Mask(self.0.map(|word| !word));
        let (mut len, mut range) = (1, good);
        while range > 1 {
            let step = (range / 2).min(len);
            let longer = starts.and_after(step);
            if longer.next_set(0) < CHUNK_BLOCKS {
                (starts, len, range) = (longer, len + step, range - step);
            } else {
                range = step;
            }
        }
        match starts.next_set(0) {
            CHUNK_BLOCKS => (0, 0),
            first => (first, self.clear_from(first)),
        }
    }
}

type Words = [U64; WORDS];

fn free_in(words: &Words) -> u16 {
    // (Counting is slow without an instruction for it, and most words are one of these two.)
    let free = |word: &U64| match word.get() {
        0 => u64::BITS,
        u64::MAX => 0,
        word => word.count_zeros(),
    };
    u16::try_from(words.iter().map(free).sum::<u32>()).unwrap_or(u16::MAX)
}

/// Computes `summary` for `chunk` with the bitmap `words`.
fn summarise(summary: &mut Summary, seed: u32, words: &Words, chunk: u64) {
    summary.free = U16::new(free_in(words));
    summary.crc = U32::new(checksum(seed, words, summary, chunk));
}

fn checksum(seed: u32, words: &Words, summary: &Summary, chunk: u64) -> u32 {
    let mut rest = [0; size_of::<Summary>() - size_of::<U32>() + size_of::<u64>()];
    let (fields, number) = rest.split_at_mut(size_of::<Summary>() - size_of::<U32>());
    fields.copy_from_slice(&summary.as_bytes()[size_of::<U32>()..]);
    number.copy_from_slice(&chunk.to_le_bytes());
    crc32c(crc32c(seed, words.as_bytes()), &rest)
}

/// The free blocks of the chunks `first..` that share a line of the summary with `first`, up to
/// `limit`: the number of these chunks, and their numbers of free blocks. Not verified: a hint.
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

/// The bitmap of `chunk` in `words`, if it is sound.
fn verified(geo: &Geometry, chunk: u64, words: &Words, summary: &Summary) -> Result<Mask> {
    if summary.crc.get() != checksum(geo.seed, words, summary, chunk)
        || summary.free.get() != free_in(words)
    {
        return Err(Error::Corrupt {
            what: Structure::Bitmap,
            at: geo.bitmap_at(chunk),
        });
    }
    Ok(Mask(words.map(U64::get)))
}

/// Reads and verifies the bitmap of `chunk`.
pub(super) fn read<P: Pmem>(pmem: &P, geo: &Geometry, chunk: u64) -> Result<Mask> {
    let words: Words = read_struct(pmem, geo.bitmap_at(chunk))?;
    let summary: Summary = read_struct(pmem, geo.summary_at(chunk))?;
    verified(geo, chunk, &words, &summary)
}

/// Whether the bitmap of `chunk` is valid.
pub(in crate::volume) fn is_sound<P: Pmem>(pmem: &P, geo: &Geometry, chunk: u64) -> bool {
    read(pmem, geo, chunk).is_ok()
}

/// Bitmaps of consecutive chunks, with their summaries, which share a cache line.
struct Chunks<const N: usize> {
    first: u64,
    count: usize,
    words: [Words; N],
    summaries: [Summary; N],
}

impl<const N: usize> Chunks<N> {
    /// Empty: `read` fills it in place, since it is large.
    #[inline(always)]
    fn none() -> Self {
        Chunks {
            first: 0,
            count: 0,
            words: [[U64::ZERO; WORDS]; N],
            summaries: FromZeros::new_zeroed(),
        }
    }

    /// Reads those of the first of `chunks`, up to `N`.
    fn read<P: Pmem>(&mut self, pmem: &P, geo: &Geometry, chunks: &Range<u64>) -> Result<()> {
        let first = chunks.start;
        let most = (BATCH - first % BATCH).min(chunks.end - first);
        let count = to_usize(most).min(N);
        (self.first, self.count) = (first, count);
        pmem.read(geo.bitmap_at(first), self.words[..count].as_mut_bytes())?;
        pmem.read(
            geo.summary_at(first),
            self.summaries[..count].as_mut_bytes(),
        )
    }

    /// The first chunk after them.
    fn end(&self) -> u64 {
        self.first + self.count as u64
    }
}

/// Fails unless all blocks of `run` are data blocks in use.
pub(super) fn check_used<P: Pmem>(pmem: &P, geo: &Geometry, run: Run) -> Result<()> {
    if !geo.is_data(run.block, run.len) {
        return Err(Error::Corrupt {
            what: Structure::Bitmap,
            at: run.block.saturating_mul(BLOCK),
        });
    }
    let chunks = run.chunks();
    match chunks.end - chunks.start {
        1 => check_used_by::<P, 1>(pmem, geo, run),
        _ => check_used_by::<P, { to_usize(BATCH) }>(pmem, geo, run),
    }
}

/// The same, for `N` chunks at a time.
fn check_used_by<P: Pmem, const N: usize>(pmem: &P, geo: &Geometry, run: Run) -> Result<()> {
    let mut chunks = run.chunks();
    let mut some = Chunks::<N>::none();
    while !chunks.is_empty() {
        some.read(pmem, geo, &chunks)?;
        let both = some.words.iter().zip(&some.summaries).take(some.count);
        for (chunk, (words, summary)) in (some.first..).zip(both) {
            if !verified(geo, chunk, words, summary)?.has(&Mask::of(run, chunk)) {
                return Err(Error::Corrupt {
                    what: Structure::Bitmap,
                    at: geo.bitmap_at(chunk),
                });
            }
        }
        chunks.start = some.end();
    }
    Ok(())
}

/// Marks the blocks of `run`, which are data blocks, in use or free, and recomputes the summaries.
/// Idempotent.
pub(in crate::volume) fn apply<P: Pmem, S>(
    dirty: &mut Dirty<'_, P, S>,
    pmem: &P,
    geo: &Geometry,
    run: Run,
    used: bool,
) -> Result<()> {
    let chunks = run.chunks();
    match chunks.end - chunks.start {
        1 => apply_by::<P, S, 1>(dirty, pmem, geo, run, used),
        _ => apply_by::<P, S, { to_usize(BATCH) }>(dirty, pmem, geo, run, used),
    }
}

/// The same, for `N` chunks at a time.
fn apply_by<P: Pmem, S, const N: usize>(
    dirty: &mut Dirty<'_, P, S>,
    pmem: &P,
    geo: &Geometry,
    run: Run,
    used: bool,
) -> Result<()> {
    let mut chunks = run.chunks();
    let mut some = Chunks::<N>::none();
    while !chunks.is_empty() {
        some.read(pmem, geo, &chunks)?;
        // The words that change are adjacent, except for those that already have the right value.
        let (mut first, mut end) = (usize::MAX, 0);
        let both = some.words.iter_mut().zip(&mut some.summaries);
        for (i, (words, summary)) in both.take(some.count).enumerate() {
            let chunk = some.first + i as u64;
            for (j, (word, mask)) in words.iter_mut().zip(Mask::of(run, chunk).0).enumerate() {
                let old = word.get();
                let new = if used { old | mask } else { old & !mask };
                if new != old {
                    *word = U64::new(new);
                    first = first.min(i * WORDS + j);
                    end = i * WORDS + j + 1;
                }
            }
            summarise(summary, geo.seed, words, chunk);
        }
        // Bitmaps first, then the line of their summaries, so that each line is written back once.
        if let Some(changed) = some.words.as_flattened().get(first..end) {
            let at = geo.bitmap_at(some.first) + (first * size_of::<U64>()) as u64;
            dirty.store(at, changed.as_bytes())?;
        }
        let summaries = &some.summaries[..some.count];
        dirty.store(geo.summary_at(some.first), summaries.as_bytes())?;
        chunks.start = some.end();
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
