// SPDX-License-Identifier: GPL-2.0

//! What lies at fixed places: the two superblocks and the journal lanes.

use super::super::error::{Error, Result, Structure};
use super::super::format::{
    LaneHeader, SuperBlock, BLOCK, CHUNK_BLOCKS, INCOMPAT_KNOWN, INODES_PER_CHUNK, LANE_BODY,
    MAGIC, MAX_BYTES, MIN_BYTES, RO_COMPAT_KNOWN, VERSION,
};
use super::super::num::to_usize;
use super::super::pmem::Pmem;
use super::media::{crc, crc_at, get, read};
use super::{Checker, Kind, Problem};
use crate::env::{crc32c, Vec};
use core::mem::{offset_of, size_of};
use zerocopy::IntoBytes;

/// The superblock at `at`, or what is wrong with it; [`Kind::Magic`] where there is none.
fn find(pmem: &dyn Pmem, at: u64) -> Result<Result<SuperBlock, Kind>> {
    let Some(sb) = get::<SuperBlock>(pmem, at)? else {
        return Ok(Err(Kind::Unreadable));
    };
    if sb.magic != MAGIC {
        return Ok(Err(Kind::Magic));
    }
    if crc_at(sb.as_bytes(), offset_of!(SuperBlock, crc)) != sb.crc.get() {
        return Ok(Err(Kind::Checksum));
    }
    Ok(Ok(sb))
}

/// Finds the superblock to go by: the first, or the copy if the first is damaged.
pub(super) fn super_blocks(pmem: &dyn Pmem, report: &mut dyn FnMut(Problem)) -> Result<SuperBlock> {
    let have = pmem.len();
    if have < MIN_BYTES {
        let need = MIN_BYTES;
        return Err(Error::TooSmall { need, have });
    }
    let first = find(pmem, 0)?;
    // Without the first superblock, the end of the device says where the copy is.
    let blocks = match &first {
        Ok(sb) => sb.blocks.get().clamp(1, have / BLOCK),
        Err(_) => have / BLOCK,
    };
    let copy_at = (blocks - 1) * BLOCK;
    let copy = find(pmem, copy_at)?;
    if let (Err(Kind::Magic), Err(Kind::Magic)) = (&first, &copy) {
        return Err(Error::NotRdax);
    }
    let mut problem = |at, kind| {
        report(Problem {
            what: Structure::SuperBlock,
            at,
            ino: None,
            name: None,
            kind,
        })
    };
    if let Err(kind) = first {
        problem(0, kind);
    }
    if let Err(kind) = copy {
        problem(copy_at, kind);
    }
    let (sb, at) = match (first, copy) {
        (Ok(first), Ok(copy)) => {
            // A new label reaches one after the other: a crash may come between.
            let mut same = copy.clone();
            (same.label, same.crc) = (first.label, first.crc);
            if first.as_bytes() != same.as_bytes() {
                problem(copy_at, Kind::CopiesDiffer);
            }
            (first, 0)
        }
        (Ok(first), Err(_)) => (first, 0),
        (Err(_), Ok(copy)) => (copy, copy_at),
        (Err(_), Err(_)) => {
            return Err(Error::Corrupt {
                what: Structure::SuperBlock,
                at: 0,
            })
        }
    };
    let version = sb.version.get();
    if version != VERSION {
        return Err(Error::Version { found: version });
    }
    // A feature that only forbids writing to old code is still no structure this code can judge.
    let unknown = (sb.incompat.get() & !INCOMPAT_KNOWN) | (sb.ro_compat.get() & !RO_COMPAT_KNOWN);
    if unknown != 0 {
        return Err(Error::Unsupported {
            bits: unknown,
            ro: false,
        });
    }
    let need = sb.blocks.get().saturating_mul(BLOCK);
    if need > have {
        return Err(Error::TooSmall { need, have });
    }
    if let Err(why) = geometry(&sb) {
        problem(at, Kind::Geometry(why));
        return Err(Error::Corrupt {
            what: Structure::SuperBlock,
            at,
        });
    }
    if sb.reserved.iter().any(|&b| b != 0) {
        problem(at, Kind::Reserved("reserved"));
    }
    Ok(sb)
}

/// Checks that all areas lie inside the device, in order, and are as long as they must be.
fn geometry(sb: &SuperBlock) -> Result<(), &'static str> {
    let blocks = sb.blocks.get();
    if !(MIN_BYTES / BLOCK..=MAX_BYTES / BLOCK).contains(&blocks) {
        return Err("the number of blocks is not possible");
    }
    if sb.chunks.get() != blocks.div_ceil(CHUNK_BLOCKS) {
        return Err("the number of chunks does not fit the number of blocks");
    }
    let lane_bytes = u64::from(sb.lane_bytes.get());
    if sb.lane_count.get() == 0 || lane_bytes % BLOCK != 0 || lane_bytes <= LANE_BODY {
        return Err("the journal lanes are not possible");
    }
    let areas = [
        (sb.system_block.get(), 1),
        (
            sb.lanes_block.get(),
            u64::from(sb.lane_count.get()) * (lane_bytes / BLOCK),
        ),
        (
            sb.summary_block.get(),
            (sb.chunks.get() * 8).div_ceil(BLOCK),
        ),
        (
            sb.bitmap_block.get(),
            (sb.chunks.get() * 64).div_ceil(BLOCK),
        ),
        (sb.data_block.get(), 1),
    ];
    let mut end = 1;
    for (start, len) in areas {
        if start < end {
            return Err("areas of metadata overlap");
        }
        end = start
            .checked_add(len)
            .filter(|&end| end < blocks)
            .ok_or("an area of metadata is outside the volume")?;
    }
    if sb.root_ino.get() % INODES_PER_CHUNK == 0 {
        return Err("the number of the root directory is not possible");
    }
    Ok(())
}

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

impl Checker<'_> {
    /// Checks the headers of all lanes: one must be valid, and nothing may be left to replay. If one
    /// does not say whether its transaction is retired, no counters are known.
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

    /// Counters of the lane at `at`: those of its last committed transaction. `None` if nothing
    /// tells what they are, which has been reported.
    fn lane(&mut self, at: u64, lane: u32) -> Result<Option<(i64, i64)>> {
        let mut newest: [Option<LaneHeader>; 2] = [None, None];
        for (slot, found) in newest.iter_mut().enumerate() {
            let size = size_of::<LaneHeader>() as u64;
            *found = get::<LaneHeader>(self.pmem, at + slot as u64 * size)?.filter(|header| {
                crc(&header.as_bytes()[..offset_of!(LaneHeader, retired)]) == header.crc.get()
                    && header.lane.get() == lane
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
                // body would not have been written over.
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

    fn body_holds(&self, at: u64, header: &LaneHeader) -> Result<bool> {
        let len = u64::from(header.body_len.get());
        if len > u64::from(self.sb.lane_bytes.get()) - LANE_BODY {
            return Ok(false);
        }
        let mut body = Vec::<u8>::zeroed(to_usize(len))?;
        Ok(
            read(self.pmem, at + LANE_BODY, &mut body)?
                && crc32c(0, &body) == header.body_crc.get(),
        )
    }

    /// Compares the counters with what was counted. Says nothing where either could not be read
    /// whole: that was reported, and the sums are then no statement.
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
