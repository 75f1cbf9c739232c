// SPDX-License-Identifier: GPL-2.0

//! Structures at fixed places: the journal lanes, and their counters.

use super::super::error::{Result, Structure};
use super::super::format::{LaneHeader, BLOCK, LANE_BODY, LANE_BYTES};
use super::super::num::to_usize;
use super::media::{crc, get, read};
use super::{Checker, Kind};
use crate::env::{crc32c, Vec};
use core::mem::{offset_of, size_of};
use zerocopy::IntoBytes;

/// What the lanes add to the counters of the superblock.
pub(super) struct LaneTotals {
    free_blocks: i128,
    used_inodes: i128,
    /// Every lane could be read.
    complete: bool,
}

/// The word of transaction `seq` in `retired`.
fn word(seq: u64) -> u64 {
    (seq << 32 >> 32) | (u64::from(crc32c(0, &seq.to_le_bytes())) << 32)
}

fn is_retired(header: &LaneHeader) -> bool {
    header.retired.get() == word(header.seq.get())
}

/// Whether the checksum of a lane's header holds.
pub(super) fn is_header(seed: u32, header: &LaneHeader) -> bool {
    let covered = &header.as_bytes()[..offset_of!(LaneHeader, retired)];
    crc(seed, covered) == header.crc.get()
}

impl Checker<'_> {
    /// Checks the headers of all lanes: one must be valid, and nothing may be left to replay. If a
    /// lane does not say whether its transaction is retired, no counters are known.
    pub(super) fn check_lanes(&mut self) -> Result<LaneTotals> {
        let mut totals = LaneTotals {
            free_blocks: 0,
            used_inodes: 0,
            complete: true,
        };
        for lane in 0..self.sb.lane_count.get() {
            let at = self.sb.lanes_block.get() * BLOCK
                + u64::from(lane) * u64::from(self.sb.lane_bytes.get());
            match self.lane(at, lane)? {
                Some((free_blocks, used_inodes)) => {
                    totals.free_blocks += i128::from(free_blocks);
                    totals.used_inodes += i128::from(used_inodes);
                }
                None => totals.complete = false,
            }
        }
        Ok(totals)
    }

    /// The counters of the lane at `at`: those of its last committed transaction. `None` if they
    /// are unknown, which has been reported.
    fn lane(&mut self, at: u64, lane: u32) -> Result<Option<(i64, i64)>> {
        if !self.lane_readable(at)? {
            return Ok(None);
        }
        let mut newest: [Option<LaneHeader>; 2] = [None, None];
        for (slot, found) in newest.iter_mut().enumerate() {
            let size = size_of::<LaneHeader>() as u64;
            let Some(header) = get::<LaneHeader>(self.pmem, at + slot as u64 * size)? else {
                return Ok(None);
            };
            *found = Some(header).filter(|header| {
                is_header(self.seed, header)
                    && header.lane.get() == lane
                    && u64::from(header.body_len.get()) <= LANE_BYTES - LANE_BODY
                    && header.body_len.get() % 8 == 0
                    && header.seq.get() % 2 == slot as u64
            });
        }
        newest.sort_by_key(|header| header.as_ref().map(|header| header.seq.get()));
        let mut known = true;
        for header in newest.iter().flatten() {
            let seq = header.seq.get();
            if !is_retired(header) && header.retired.get() != word(seq.wrapping_sub(2)) {
                self.problem(Structure::Lane, at, None, Kind::Retired { seq });
                known = false;
            }
        }
        if !known {
            return Ok(None);
        }
        let [older, newer] = newest;
        let Some(newer) = newer else {
            self.problem(Structure::Lane, at, None, Kind::NoHeader);
            return Ok(None);
        };
        if !is_retired(&newer) {
            if self.body_holds(at, &newer)? {
                self.problem(
                    Structure::Lane,
                    at,
                    None,
                    Kind::NotReplayed {
                        seq: newer.seq.get(),
                    },
                );
            } else {
                // Never committed: the transaction before it is the last, and is in place, or the
                // body would not have been overwritten.
                let before = older.filter(|older| {
                    is_retired(older) && older.seq.get().checked_add(1) == Some(newer.seq.get())
                });
                if before.is_none() {
                    self.problem(Structure::Lane, at, None, Kind::NoHeader);
                }
                return Ok(
                    before.map(|before| (before.free_blocks.get(), before.used_inodes.get()))
                );
            }
        }
        Ok(Some((newer.free_blocks.get(), newer.used_inodes.get())))
    }

    /// Whether all of the lane at `at` can be read; reports the blocks that cannot. Blocks outside
    /// any transaction count as well: the next one is written there.
    fn lane_readable(&mut self, at: u64) -> Result<bool> {
        let mut bytes = Vec::<u8>::zeroed(to_usize(BLOCK))?;
        let mut whole = true;
        for block in 0..LANE_BYTES / BLOCK {
            let at = at + block * BLOCK;
            if !read(self.pmem, at, &mut bytes)? {
                self.problem(Structure::Lane, at, None, Kind::Unreadable);
                whole = false;
            }
        }
        Ok(whole)
    }

    fn body_holds(&self, at: u64, header: &LaneHeader) -> Result<bool> {
        let mut body = Vec::<u8>::zeroed(to_usize(header.body_len.get().into()))?;
        Ok(read(self.pmem, at + LANE_BODY, &mut body)?
            && crc32c(self.seed, &body) == header.body_crc.get())
    }

    /// Compares the counters with the numbers found. Does nothing if either could not be completely
    /// read: that was reported, and the sums are meaningless.
    pub(super) fn check_counters(&mut self, lanes: &LaneTotals) {
        if !lanes.complete {
            return;
        }
        let stored = i128::from(self.sb.free_blocks.get()) + lanes.free_blocks;
        let counted = self.summary.free_blocks;
        if self.all_bitmaps && stored != i128::from(counted) {
            self.problem(
                Structure::SuperBlock,
                0,
                None,
                Kind::FreeBlocks { stored, counted },
            );
        }
        let stored = i128::from(self.sb.used_inodes.get()) + lanes.used_inodes;
        let counted = self.summary.inodes;
        if self.all_inodes && stored != i128::from(counted) {
            self.problem(
                Structure::SuperBlock,
                0,
                None,
                Kind::UsedInodes { stored, counted },
            );
        }
    }
}
