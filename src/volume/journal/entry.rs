// SPDX-License-Identifier: GPL-2.0

//! The entries of a transaction's body: written, read, and applied in place.

use zerocopy::IntoBytes;

use super::BODY_MAX;
use crate::env::{NoMemory, Vec};
use crate::volume::alloc::{bits, Run};
use crate::volume::error::{Error, Result};
use crate::volume::format::{
    BLOCK, ENTRY_ALLOC, ENTRY_COUNT_BITS, ENTRY_FREE, ENTRY_INODE_ALLOC, ENTRY_INODE_FREE,
    ENTRY_KIND_BITS, ENTRY_WRITE, ENTRY_ZERO, INODE_CHUNK_SLOTS,
};
use crate::volume::persist::Dirty;
use crate::volume::pmem::Pmem;
use crate::volume::super_block::Geometry;
use crate::volume::table;

/// Bytes of a word: the unit of the body and of its writes.
pub(super) const WORD: usize = size_of::<u64>();
/// Bits of a head below the place.
const PLACE_SHIFT: u32 = ENTRY_KIND_BITS + ENTRY_COUNT_BITS;

/// A word of the body, as it is on the media.
pub(super) type Word = zerocopy::little_endian::U64;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// Words to write.
    Write { at: u64, words: &'a [Word] },
    /// Blocks to mark.
    Blocks { run: Run, used: bool },
    /// Bytes of one block to zero.
    Zero { at: u64, len: u64 },
    /// An inode to mark: the byte address of its inode chunk's header, and its slot.
    Inode { header: u64, slot: u64, used: bool },
}

/// The head of an entry.
fn head(kind: u64, count: u64, place: u64) -> Word {
    Word::new(kind | (count << ENTRY_KIND_BITS) | (place << PLACE_SHIFT))
}

/// The body of a transaction being built: its entries, one after the other.
///
/// Methods that add an entry fail with [`Error::Invalid`] if it does not fit.
pub(super) struct Body {
    /// As many as a lane has room for.
    words: Vec<Word>,
    /// How many of them are in use.
    len: usize,
}

impl Body {
    /// An empty body.
    pub(super) fn new() -> Result<Self, NoMemory> {
        let mut words = Vec::with_capacity(BODY_MAX / WORD)?;
        for _ in 0..BODY_MAX / WORD {
            words.push(Word::ZERO)?;
        }
        Ok(Body { words, len: 0 })
    }

    /// The entries so far.
    #[inline]
    pub(super) fn words(&self) -> &[Word] {
        self.words.get(..self.len).unwrap_or(&[])
    }

    /// Bytes that still fit.
    pub(super) fn room(&self) -> usize {
        (self.words.len() - self.len) * WORD
    }

    /// Fails unless `words` more fit.
    #[inline]
    pub(super) fn need(&self, words: usize) -> Result<()> {
        if words > self.words.len() - self.len {
            return Err(Error::Invalid);
        }
        Ok(())
    }

    /// Removes all entries.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// The next `n` words, to be filled in.
    #[inline]
    fn take(&mut self, n: usize) -> Result<&mut [Word]> {
        let end = self.len + n;
        let words = self.words.get_mut(self.len..end).ok_or(Error::Invalid)?;
        self.len = end;
        Ok(words)
    }

    /// Adds the head of an entry that writes `words` words at `at`, which follow by
    /// [`Body::extend`]. `at` is a multiple of 8 inside the volume.
    #[inline]
    pub(super) fn write(&mut self, at: u64, words: usize) -> Result<()> {
        self.need(1 + words)?;
        self.extend(&[head(ENTRY_WRITE, words as u64, at / WORD as u64)])
    }

    /// Adds `words` of an entry whose head was added.
    #[inline]
    pub(super) fn extend(&mut self, words: &[Word]) -> Result<()> {
        self.take(words.len())?.copy_from_slice(words);
        Ok(())
    }

    /// Adds an entry that marks `run` in use or free.
    pub(super) fn blocks(&mut self, run: Run, used: bool) -> Result<()> {
        let kind = if used { ENTRY_ALLOC } else { ENTRY_FREE };
        self.extend(&[head(kind, 0, run.block), Word::new(run.len)])
    }

    /// Adds an entry that zeroes `len` bytes at `at`, of one block.
    pub(super) fn zero(&mut self, at: u64, len: u64) -> Result<()> {
        let word = WORD as u64;
        self.extend(&[head(ENTRY_ZERO, at % word, at / word), Word::new(len)])
    }

    /// Adds an entry that marks `slot` of the inode chunk whose header is at byte `at` in use or
    /// free.
    pub(super) fn inode(&mut self, at: u64, slot: u64, used: bool) -> Result<()> {
        let kind = if used {
            ENTRY_INODE_ALLOC
        } else {
            ENTRY_INODE_FREE
        };
        self.extend(&[head(kind, slot, at / WORD as u64)])
    }
}

impl Entry<'_> {
    /// Removes the first entry from `body`. `None` if it is not valid, or names a forbidden place.
    #[inline(always)]
    pub(super) fn parse<'a>(body: &mut &'a [Word], geo: &Geometry) -> Option<Entry<'a>> {
        let (head, rest) = body.split_first()?;
        let head = head.get();
        let count = (head >> ENTRY_KIND_BITS) & ((1 << ENTRY_COUNT_BITS) - 1);
        let place = head >> PLACE_SHIFT;
        *body = rest;
        match head & ((1 << ENTRY_KIND_BITS) - 1) {
            ENTRY_WRITE => {
                // CAST: below 2^ENTRY_COUNT_BITS.
                let words = rest.get(..count as usize)?;
                *body = rest.get(words.len()..)?;
                let at = place * WORD as u64;
                geo.is_logged(at, size_of_val(words) as u64)
                    .then_some(Entry::Write { at, words })
            }
            kind @ (ENTRY_ALLOC | ENTRY_FREE) => {
                let (len, rest) = rest.split_first()?;
                *body = rest;
                let run = Run {
                    block: place,
                    len: len.get(),
                };
                let used = kind == ENTRY_ALLOC;
                (run.len > 0 && geo.is_data(run.block, run.len))
                    .then_some(Entry::Blocks { run, used })
            }
            ENTRY_ZERO => {
                let (len, rest) = rest.split_first()?;
                *body = rest;
                let at = place * WORD as u64 + count;
                let len = len.get();
                let inside = count < WORD as u64
                    && geo.is_data(at / BLOCK, 1)
                    && (1..=BLOCK - at % BLOCK).contains(&len);
                inside.then_some(Entry::Zero { at, len })
            }
            kind @ (ENTRY_INODE_ALLOC | ENTRY_INODE_FREE) => {
                let used = kind == ENTRY_INODE_ALLOC;
                let at = place * WORD as u64;
                let inside = at % BLOCK == 0
                    && geo.is_data(at / BLOCK, 1)
                    && (1..INODE_CHUNK_SLOTS).contains(&count);
                inside.then_some(Entry::Inode {
                    header: at,
                    slot: count,
                    used,
                })
            }
            _ => None,
        }
    }

    /// Makes the change in place. Idempotent. The caller holds the lock of the allocation group or
    /// of the inode slots, or is recovery.
    pub(super) fn apply<P: Pmem, S>(
        self,
        dirty: &mut Dirty<'_, P, S>,
        pmem: &P,
        geo: &Geometry,
    ) -> Result<()> {
        match self {
            Entry::Write { at, words } => dirty.store(at, words.as_bytes()),
            Entry::Zero { at, len } => dirty.zero(at, len),
            Entry::Blocks { run, used } => bits::apply(dirty, pmem, geo, run, used),
            Entry::Inode { header, slot, used } => {
                table::apply(dirty, pmem, geo.seed, header, slot, used)
            }
        }
    }
}
