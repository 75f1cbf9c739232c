// SPDX-License-Identifier: GPL-2.0

//! The two superblocks, and which of them counts.

use super::super::error::{Error, Result, Structure};
use super::super::format::{
    LaneHeader, RawInode, Summary, SuperBlock, BLOCK, CHUNK_BLOCKS, INCOMPAT_KNOWN, LANE_BYTES,
    MAGIC, MAX_BYTES, MIN_BYTES, ROOT_INO, RO_COMPAT_KNOWN, TABLE_INO, VERSION,
};
use super::super::pmem::Pmem;
use super::fixed::is_header;
use super::media::{crc, get};
use super::{Kind, Problem};
use crate::env::crc32c;
use core::mem::offset_of;
use zerocopy::IntoBytes;

/// The most lanes of a volume.
const LANES_MAX: u32 = 256;

/// What is found where a superblock may be.
enum Found {
    /// A usable one.
    Sound(SuperBlock),
    /// One that this code, or this device, cannot use.
    Refused(SuperBlock, Error),
    /// What is wrong with it; [`Kind::Magic`] where there is none.
    Wrong(Kind),
}

/// The seed of the checksums of the other structures.
pub(super) fn seed(sb: &SuperBlock) -> u32 {
    crc32c(crc32c(0, &sb.uuid), &sb.hash_key)
}

fn checksum(sb: &SuperBlock) -> u32 {
    let (head, tail) = sb.as_bytes().split_at(offset_of!(SuperBlock, crc));
    crc32c(
        crc32c(crc32c(0, head), &[0; 4]),
        tail.get(4..).unwrap_or(&[]),
    )
}

fn look(pmem: &dyn Pmem, at: u64) -> Result<Found> {
    let Some(sb) = get::<SuperBlock>(pmem, at)? else {
        return Ok(Found::Wrong(Kind::Unreadable));
    };
    if sb.magic != MAGIC {
        return Ok(Found::Wrong(Kind::Magic));
    }
    if checksum(&sb) != sb.crc.get() {
        return Ok(Found::Wrong(Kind::Checksum));
    }
    let (found, bits) = (sb.version.get(), sb.incompat.get() & !INCOMPAT_KNOWN);
    if found != VERSION {
        return Ok(Found::Refused(sb, Error::Version { found }));
    }
    if bits != 0 {
        return Ok(Found::Refused(sb, Error::Unsupported { bits, ro: false }));
    }
    if let Err(why) = geometry(&sb) {
        return Ok(Found::Wrong(Kind::Geometry(why)));
    }
    let (stored, expected) = (sb.block.get(), at / BLOCK);
    if stored != expected {
        let field = "block";
        return Ok(Found::Wrong(Kind::Misplaced {
            field,
            stored,
            expected,
        }));
    }
    let end = sb.blocks.get() - 1;
    if at != 0 && expected != end {
        return Ok(Found::Wrong(Kind::Misplaced {
            field: "number of blocks",
            stored: end + 1,
            expected: expected + 1,
        }));
    }
    let (have, need) = (pmem.len(), sb.blocks.get() * BLOCK);
    if need > have {
        return Ok(Found::Refused(sb, Error::TooSmall { need, have }));
    }
    Ok(Found::Sound(sb))
}

/// The number of [`witnesses`] that are searched.
pub const WITNESSES: u32 = 3;

/// How many of the things that a superblock with possible geometry names are where it says: the
/// inode of the inode table, a journal lane, the bitmap of the first chunk.
fn witnesses(pmem: &dyn Pmem, sb: &SuperBlock) -> Result<u32> {
    let seed = seed(sb);
    let mut count = 0;
    for block in [sb.system_block.get(), sb.blocks.get() - 2] {
        let inode = get::<RawInode>(pmem, block * BLOCK)?;
        let sound = |raw: &RawInode| {
            raw.ino.get() == TABLE_INO && crc(seed, raw.as_bytes()) == raw.crc.get()
        };
        if inode.as_ref().is_some_and(sound) {
            count = 1;
        }
    }
    let mut lanes = 0;
    for slot in 0..2 * u64::from(sb.lane_count.get()) {
        let at = sb.lanes_block.get() * BLOCK + slot / 2 * LANE_BYTES + slot % 2 * 64;
        let header = get::<LaneHeader>(pmem, at)?.filter(|header| {
            is_header(seed, header)
                && u64::from(header.lane.get()) == slot / 2
                && header.seq.get() % 2 == slot % 2
        });
        lanes |= u32::from(header.is_some());
    }
    let summary: Option<Summary> = get(pmem, sb.summary_block.get() * BLOCK)?;
    let bitmap: Option<[u8; 64]> = get(pmem, sb.bitmap_block.get() * BLOCK)?;
    if let (Some(summary), Some(bitmap)) = (summary, bitmap) {
        let sum = crc32c(crc32c(seed, &bitmap), &summary.as_bytes()[4..]);
        let free: u32 = bitmap.iter().map(|byte| byte.count_zeros()).sum();
        let holds = crc32c(sum, &[0; 8]) == summary.crc.get() && free == summary.free.get().into();
        count += u32::from(holds);
    }
    Ok(count + lanes)
}

/// Whether `sb` has only known features.
fn plain(sb: &SuperBlock) -> bool {
    sb.ro_compat.get() & !RO_COMPAT_KNOWN == 0
}

/// Whether `copy` counts instead of `first`, from which it differs.
fn copy_counts(pmem: &dyn Pmem, first: &SuperBlock, copy: &SuperBlock) -> Result<bool> {
    let (by_first, by_copy) = (witnesses(pmem, first)?, witnesses(pmem, copy)?);
    if by_first != by_copy {
        return Ok(by_copy > by_first);
    }
    // Newer code writes the first before the copy, so features of the copy alone are not true,
    // however new it says to be.
    if plain(first) && !plain(copy) {
        return Ok(false);
    }
    let weight = |sb: &SuperBlock| (sb.generation.get(), plain(sb));
    Ok(weight(copy) > weight(first))
}

/// How the two differ.
enum Differ {
    No,
    /// By a new label, which is written to one after the other: a crash may have come between.
    ByALabel,
    Yes,
}

fn differ(first: &SuperBlock, copy: &SuperBlock) -> Differ {
    let mut same = copy.clone();
    (same.block, same.crc) = (first.block, first.crc);
    if same.as_bytes() == first.as_bytes() {
        return Differ::No;
    }
    let next = copy.generation.get().checked_add(1) == Some(first.generation.get());
    (same.label, same.generation) = (first.label, first.generation);
    if next && same.as_bytes() == first.as_bytes() {
        return Differ::ByALabel;
    }
    Differ::Yes
}

/// Accepts the superblock `sb` at `at`, the only one, if it has a witness. Otherwise it is wrong,
/// or everything is lost.
fn borne_out(
    pmem: &dyn Pmem,
    sb: SuperBlock,
    at: u64,
    problem: &mut dyn FnMut(u64, Kind),
) -> Result<SuperBlock> {
    if witnesses(pmem, &sb)? > 0 {
        return Ok(sb);
    }
    problem(at, Kind::Geometry("nothing of what it names is there"));
    let what = Structure::SuperBlock;
    Err(Error::Corrupt { what, at: 0 })
}

/// How many [`witnesses`] `sb` has, whatever its checksum is; 0 if it is not of this format.
pub(super) fn bearing(pmem: &dyn Pmem, sb: &SuperBlock) -> Result<u32> {
    let is_one = sb.magic == MAGIC
        && sb.version.get() == VERSION
        && sb.incompat.get() & !INCOMPAT_KNOWN == 0
        && geometry(sb).is_ok()
        && sb.blocks.get() * BLOCK <= pmem.len();
    match is_one {
        true => witnesses(pmem, sb),
        false => Ok(0),
    }
}

/// Finds the superblock that counts. If two differ, the one with more witnesses; if these are as
/// many, the first if the copy alone has unknown features, the one with the greater generation,
/// then the one without unknown features, otherwise the first.
pub(super) fn super_blocks(pmem: &dyn Pmem, report: &mut dyn FnMut(Problem)) -> Result<SuperBlock> {
    let have = pmem.len();
    if have < MIN_BYTES {
        let need = MIN_BYTES;
        return Err(Error::TooSmall { need, have });
    }
    let end_at = (have / BLOCK - 1) * BLOCK;
    let first = look(pmem, 0)?;
    let (mut copy_at, mut copy) = match &first {
        Found::Sound(sb) => ((sb.blocks.get() - 1) * BLOCK, None),
        _ => (end_at, None),
    };
    if copy_at != end_at {
        let named = look(pmem, copy_at)?;
        match (&named, look(pmem, end_at)?) {
            (Found::Wrong(_), found @ Found::Sound(_)) => (copy_at, copy) = (end_at, Some(found)),
            _ => copy = Some(named),
        }
    }
    let copy = match copy {
        Some(copy) => copy,
        None => look(pmem, copy_at)?,
    };
    if let (Found::Wrong(Kind::Magic), Found::Wrong(Kind::Magic)) = (&first, &copy) {
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
    // Why a superblock with another version, or other features, than a good copy is damaged.
    const REFUSED: Kind = Kind::Geometry("version, features or size are not those of its copy");
    let sb = match (first, copy) {
        (Found::Sound(first), Found::Sound(copy)) => match differ(&first, &copy) {
            Differ::No | Differ::ByALabel => first,
            Differ::Yes => {
                if copy_counts(pmem, &first, &copy)? {
                    problem(0, Kind::CopiesDiffer);
                    copy
                } else {
                    problem(copy_at, Kind::CopiesDiffer);
                    first
                }
            }
        },
        (Found::Sound(sb), Found::Wrong(kind)) => {
            problem(copy_at, kind);
            borne_out(pmem, sb, 0, &mut problem)?
        }
        (Found::Sound(sb), Found::Refused(..)) => {
            problem(copy_at, REFUSED);
            borne_out(pmem, sb, 0, &mut problem)?
        }
        (Found::Wrong(kind), Found::Sound(copy)) => {
            problem(0, kind);
            borne_out(pmem, copy, copy_at, &mut problem)?
        }
        (Found::Refused(first, why), Found::Sound(copy)) => {
            let newer = first.generation.get() > copy.generation.get();
            // Another volume made since would have overwritten some of what the copy names.
            let found = witnesses(pmem, &copy)?;
            let other = first.uuid != copy.uuid && found < WITNESSES;
            if other || newer || found == 0 {
                return Err(why);
            }
            problem(0, REFUSED);
            copy
        }
        (Found::Refused(_, why), _) | (_, Found::Refused(_, why)) => return Err(why),
        (Found::Wrong(first), Found::Wrong(copy)) => {
            problem(0, first);
            problem(copy_at, copy);
            return Err(Error::Corrupt {
                what: Structure::SuperBlock,
                at: 0,
            });
        }
    };
    // A feature that only forbids old code to write still has structures that this code cannot
    // judge.
    let bits = sb.ro_compat.get() & !RO_COMPAT_KNOWN;
    if bits != 0 {
        return Err(Error::Unsupported { bits, ro: false });
    }
    Ok(sb)
}

/// Checks that the areas follow each other without a gap.
fn geometry(sb: &SuperBlock) -> Result<(), &'static str> {
    let blocks = sb.blocks.get();
    if !(MIN_BYTES / BLOCK..=MAX_BYTES / BLOCK).contains(&blocks) {
        return Err("the number of blocks is not possible");
    }
    if sb.chunks.get() != blocks.div_ceil(CHUNK_BLOCKS) {
        return Err("the number of chunks does not fit the number of blocks");
    }
    let lane_bytes = u64::from(sb.lane_bytes.get());
    if !(1..=LANES_MAX).contains(&sb.lane_count.get()) || lane_bytes != LANE_BYTES {
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
        if start > end {
            return Err("there is a gap between areas of metadata");
        }
        // Far from the end: on the smallest volume the most lanes take half of it.
        end = start + len;
    }
    if sb.root_ino.get() != ROOT_INO {
        return Err("the number of the root directory is not possible");
    }
    Ok(())
}
