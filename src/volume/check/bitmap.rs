// SPDX-License-Identifier: GPL-2.0

//! Block bitmaps and their summaries: first read and checked by themselves, finally compared with
//! the blocks that were found in use.

use super::super::error::{Result, Structure};
use super::super::format::{Summary, BLOCK, CHUNK_BLOCKS};
use super::super::num::to_usize;
use super::media::{read, view};
use super::{Checker, Kind};
use crate::env::{crc32c, Vec};

/// Bytes of a chunk's bitmap.
const BITMAP_BYTES: u64 = CHUNK_BLOCKS / 8;
/// Chunks read at a time: one block of bitmaps.
const BATCH: u64 = BLOCK / BITMAP_BYTES;

impl Checker<'_> {
    /// Reads all bitmaps into `marked` and checks each against its summary. Marks the metadata at
    /// fixed places as used.
    pub(super) fn read_bitmaps(&mut self) -> Result<()> {
        let chunks = self.sb.chunks.get();
        let summary_at = self.sb.summary_block.get() * BLOCK;
        let bitmap_at = self.sb.bitmap_block.get() * BLOCK;
        let mut bitmaps = Vec::<u8>::zeroed(to_usize(BLOCK))?;
        let mut summaries = Vec::<u8>::zeroed(to_usize(BATCH * 8))?;
        let mut first = 0;
        while first < chunks {
            // The areas are whole blocks, so a batch never reads past its area's end.
            let readable = read(self.pmem, bitmap_at + first * BITMAP_BYTES, &mut bitmaps)?
                && read(self.pmem, summary_at + first * 8, &mut summaries)?;
            for chunk in first..chunks.min(first + BATCH) {
                let index = to_usize(chunk - first);
                let bitmap: [u8; to_usize(BITMAP_BYTES)] =
                    view(&bitmaps[index * to_usize(BITMAP_BYTES)..]);
                let summary: Summary = view(&summaries[index * 8..]);
                if readable {
                    self.chunk(chunk, &bitmap, &summary)?;
                } else {
                    self.summary_problem(chunk, Kind::Unreadable);
                    self.all_bitmaps = false;
                }
            }
            first += BATCH;
        }
        let blocks = self.sb.blocks.get();
        self.used.add(0, self.sb.data_block.get());
        // The copies of the system inodes and of the superblock.
        self.used.add(blocks - 2, 2);
        Ok(())
    }

    fn chunk(
        &mut self,
        chunk: u64,
        bitmap: &[u8; to_usize(BITMAP_BYTES)],
        summary: &Summary,
    ) -> Result<()> {
        let mut crc = crc32c(self.seed, bitmap);
        crc = crc32c(crc, &summary.free.get().to_le_bytes());
        crc = crc32c(crc, &summary.reserved.get().to_le_bytes());
        crc = crc32c(crc, &chunk.to_le_bytes());
        if crc != summary.crc.get() {
            self.summary_problem(chunk, Kind::Checksum);
        }
        let used: u64 = bitmap.iter().map(|b| u64::from(b.count_ones())).sum();
        let free = CHUNK_BLOCKS - used;
        if u64::from(summary.free.get()) != free {
            self.summary_problem(
                chunk,
                Kind::FreeCount {
                    stored: summary.free.get().into(),
                    counted: free,
                },
            );
        }
        self.summary.free_blocks += free;
        let past_end = (chunk * CHUNK_BLOCKS..(chunk + 1) * CHUNK_BLOCKS)
            .zip(0..)
            .filter(|&(block, _)| block >= self.sb.blocks.get())
            .any(|(_, bit): (u64, usize)| (bitmap[bit / 8] >> (bit % 8)) & 1 == 0);
        if past_end {
            self.summary_problem(chunk, Kind::FreePastEnd);
        }
        for (word, bytes) in bitmap.chunks_exact(8).enumerate() {
            let index = chunk * (CHUNK_BLOCKS / 64) + word as u64;
            self.marked.set_word(index, u64::from_le_bytes(view(bytes)));
        }
        Ok(())
    }

    fn summary_problem(&mut self, chunk: u64, kind: Kind) {
        let at = self.sb.summary_block.get() * BLOCK + chunk * 8;
        self.problem(Structure::Bitmap, at, None, kind);
    }

    /// Claims blocks for `ino`: they must be in the data area and not be used by anything else.
    /// `at` is the structure that names them. False if they must not be read.
    pub(super) fn claim(
        &mut self,
        what: Structure,
        at: u64,
        ino: u64,
        block: u64,
        len: u64,
    ) -> bool {
        let end = block.checked_add(len);
        if block < self.sb.data_block.get() || end.is_none_or(|end| end > self.sb.blocks.get() - 2)
        {
            self.problem(what, at, Some(ino), Kind::OutsideData { block, len });
            return false;
        }
        match self.used.add(block, len) {
            None => true,
            Some((first, last)) => {
                self.problem(
                    what,
                    at,
                    Some(ino),
                    Kind::UsedTwice {
                        block: first,
                        len: last - first + 1,
                    },
                );
                false
            }
        }
    }

    /// Compares the bitmaps with the blocks that were found in use.
    pub(super) fn compare_bitmaps(&mut self) -> Result<()> {
        let (used, marked) = (&self.used, &self.marked);
        let bitmap_at = self.sb.bitmap_block.get() * BLOCK;
        let report = &mut *self.report;
        let mut problem = |block: u64, kind| {
            report(super::Problem {
                what: Structure::Bitmap,
                at: bitmap_at + block / 8,
                ino: None,
                name: None,
                kind,
            })
        };
        marked.without(used, &mut |block, len| {
            problem(block, Kind::Leaked { block, len });
            Ok(())
        })?;
        used.without(marked, &mut |block, len| {
            problem(block, Kind::MarkedFree { block, len });
            Ok(())
        })
    }
}
