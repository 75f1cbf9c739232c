// SPDX-License-Identifier: GPL-2.0

//! The superblock and its copy: which volume a device holds, and its layout.
//!
//! [`read`] trusts nothing: it returns a superblock only if every place it names is the one that
//! follows from its numbers of blocks and lanes, so that the rest of the volume may compute with a
//! [`Geometry`] without further checks. Nothing here writes but [`seal`]'s callers (mkfs, and the
//! label).
//!
//! If two superblocks differ, the one with more [`witnesses`] counts; if these are as many, the
//! first if the copy alone has unknown features (newer code writes the first before the copy), then
//! the one with the greater generation, at the same generation the one without unknown features,
//! otherwise the first.

use core::mem::offset_of;

use zerocopy::little_endian::U32;
use zerocopy::IntoBytes;

use super::alloc::bits;
use super::error::{Error, Result, Structure};
use super::format::{
    Summary, SuperBlock, BLOCK, CHUNK_BLOCKS, INCOMPAT_KNOWN, INODE_BYTES, LANE_BYTES, MAGIC,
    MAX_BYTES, MIN_BYTES, ROOT_INO, RO_COMPAT_KNOWN, TABLE_INO, VERSION,
};
use super::inode::{self, Inode};
use super::journal;
use super::num::to_usize;
use super::pmem::{read_struct, Pmem, LINE};
use crate::env::crc32c;

/// The most lanes of a volume.
const LANES_MAX: u32 = 256;

/// The layout of a volume, in blocks unless a name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks of the volume.
    pub blocks: u64,
    /// Chunks of the volume.
    pub chunks: u64,
    /// Block of the system inodes.
    pub system_block: u64,
    /// First block of the lanes.
    pub lanes_block: u64,
    /// Number of lanes.
    pub lane_count: u32,
    /// First block of the summary.
    pub summary_block: u64,
    /// First block of the bitmaps.
    pub bitmap_block: u64,
    /// First block that files may use.
    pub data_block: u64,
    /// The seed of the checksums of its structures.
    pub seed: u32,
}

impl Geometry {
    /// Byte address of lane `index`.
    pub fn lane_at(&self, index: u32) -> u64 {
        self.lanes_block * BLOCK + u64::from(index) * LANE_BYTES
    }

    /// Byte address of the summary of `chunk`.
    pub fn summary_at(&self, chunk: u64) -> u64 {
        self.summary_block * BLOCK + chunk * 8
    }

    /// Byte address of the bitmap of `chunk`.
    pub fn bitmap_at(&self, chunk: u64) -> u64 {
        self.bitmap_block * BLOCK + chunk * (CHUNK_BLOCKS / 8)
    }

    /// Byte address of the system inode in `slot`.
    pub fn system_inode_at(&self, slot: u64) -> u64 {
        self.system_block * BLOCK + slot * INODE_BYTES
    }

    /// Byte address of its copy.
    pub fn system_copy_at(&self, slot: u64) -> u64 {
        self.data_end() * BLOCK + slot * INODE_BYTES
    }

    /// First block after those that files may use: the copy of the system inodes. The copy of the
    /// superblock follows.
    pub fn data_end(&self) -> u64 {
        self.blocks - 2
    }

    /// The number of free blocks reserved for nodes of extent trees, so that a hole can be punched
    /// in a full volume.
    pub fn reserve(&self) -> u64 {
        (self.blocks / 128).min(1024)
    }

    /// Whether files may use the blocks `block..block + len`.
    pub fn is_data(&self, block: u64, len: u64) -> bool {
        block >= self.data_block && len <= self.data_end() && block <= self.data_end() - len
    }

    /// Whether transactions may write the bytes `at..at + len`: they are in the volume, and not in
    /// the journal lanes.
    #[inline]
    pub(super) fn is_logged(&self, at: u64, len: u64) -> bool {
        let bytes = self.blocks * BLOCK;
        let lanes = self.lane_at(0)..self.summary_block * BLOCK;
        len <= bytes && at <= bytes - len && (at >= lanes.end || at + len <= lanes.start)
    }

    pub(super) fn of(sb: &SuperBlock) -> Geometry {
        Geometry {
            blocks: sb.blocks.get(),
            chunks: sb.chunks.get(),
            system_block: sb.system_block.get(),
            lanes_block: sb.lanes_block.get(),
            lane_count: sb.lane_count.get(),
            summary_block: sb.summary_block.get(),
            bitmap_block: sb.bitmap_block.get(),
            data_block: sb.data_block.get(),
            seed: seed(sb),
        }
    }

    /// Whether the parts are where they must be in a volume of this many blocks and lanes.
    pub(super) fn is_sound(&self) -> bool {
        let places = [
            self.system_block,
            self.lanes_block,
            self.summary_block,
            self.bitmap_block,
            self.data_block,
        ];
        (MIN_BYTES / BLOCK..=MAX_BYTES / BLOCK).contains(&self.blocks)
            && self.chunks == self.blocks.div_ceil(CHUNK_BLOCKS)
            && (1..=LANES_MAX).contains(&self.lane_count)
            && places == self::places(self.chunks, self.lane_count)
    }
}

/// Where the parts of a volume of this many chunks and lanes begin, in blocks: the system inodes,
/// the lanes, the summaries, the bitmaps, the data. (On the smallest volume the most lanes take
/// half of it.)
pub(super) fn places(chunks: u64, lanes: u32) -> [u64; 5] {
    let lens = [
        1,
        1,
        u64::from(lanes) * LANE_BYTES / BLOCK,
        (chunks * size_of::<Summary>() as u64).div_ceil(BLOCK),
        (chunks * (CHUNK_BLOCKS / 8)).div_ceil(BLOCK),
    ];
    let mut end = 0;
    lens.map(|len| {
        end += len;
        end
    })
}

/// A superblock that passed every check.
pub struct Read {
    /// The superblock.
    pub sb: SuperBlock,
    /// Its layout.
    pub geo: Geometry,
    /// Why the first superblock could not be used, if this is its copy.
    pub copy_served: Option<Error>,
    /// Read-only-compatible features that this code does not know: the volume must not be written.
    pub unknown_ro_compat: u64,
}

/// CRC32C of `sb` with its `crc` taken as zero.
pub fn checksum(sb: &SuperBlock) -> u32 {
    let (head, tail) = sb.as_bytes().split_at(offset_of!(SuperBlock, crc));
    let tail = tail.get(size_of::<U32>()..).unwrap_or(&[]);
    crc32c(crc32c(crc32c(0, head), &[0; size_of::<U32>()]), tail)
}

/// Makes `sb` the one at byte `at`, and sets its checksum.
pub fn seal(sb: &mut SuperBlock, at: u64) {
    sb.block.set(at / BLOCK);
    sb.crc = U32::new(checksum(sb));
}

/// The seed of the checksums of all other structures of the volume.
pub fn seed(sb: &SuperBlock) -> u32 {
    crc32c(crc32c(0, &sb.uuid), &sb.hash_key)
}

/// `label` as stored in the superblock. Fails with [`Error::Invalid`] if it is longer than 32 bytes
/// or has zero bytes.
pub fn label(label: &str) -> Result<[u8; 32]> {
    let mut padded = [0; 32];
    let bytes = label.as_bytes();
    match padded.get_mut(..bytes.len()) {
        Some(place) if !bytes.contains(&0) => place.copy_from_slice(bytes),
        _ => return Err(Error::Invalid),
    }
    Ok(padded)
}

/// Byte address of the copy on a device, or a volume, of `bytes` bytes.
pub fn copy_at(bytes: u64) -> u64 {
    (bytes / BLOCK).saturating_sub(1) * BLOCK
}

/// Reads and checks the superblock at byte `at`.
#[inline(never)]
pub fn read_at<P: Pmem + ?Sized>(pmem: &P, at: u64) -> Result<(SuperBlock, Geometry)> {
    let have = pmem.len();
    if have < MIN_BYTES {
        return Err(Error::TooSmall {
            need: MIN_BYTES,
            have,
        });
    }
    let sb: SuperBlock = read_struct(pmem, at)?;
    if sb.magic != MAGIC {
        return Err(Error::NotRdax);
    }
    if sb.crc.get() != checksum(&sb) {
        return Err(Error::Corrupt {
            what: Structure::SuperBlock,
            at,
        });
    }
    // The version says how to read the rest, the features whether that is safe.
    if sb.version.get() != VERSION {
        return Err(Error::Version {
            found: sb.version.get(),
        });
    }
    let unknown = sb.incompat.get() & !INCOMPAT_KNOWN;
    if unknown != 0 {
        return Err(Error::Unsupported {
            bits: unknown,
            ro: false,
        });
    }
    let geo = Geometry::of(&sb);
    let lane_bytes = u64::from(sb.lane_bytes.get());
    let here = geo.is_sound()
        && sb.block.get() == at / BLOCK
        && (at == 0 || at == copy_at(geo.blocks * BLOCK));
    if !here || lane_bytes != LANE_BYTES || sb.root_ino.get() != ROOT_INO {
        return Err(Error::Corrupt {
            what: Structure::SuperBlock,
            at,
        });
    }
    let need = geo.blocks * BLOCK;
    if need > have {
        return Err(Error::TooSmall { need, have });
    }
    Ok((sb, geo))
}

/// Whether block 0 holds foreign data behind the superblock, where mkfs leaves zeros: then the
/// device was reused since.
fn is_foreign<P: Pmem + ?Sized>(pmem: &P) -> Result<bool> {
    let mut line = [0; to_usize(LINE)];
    for at in (size_of::<SuperBlock>() as u64..BLOCK).step_by(line.len()) {
        pmem.read(at, &mut line)?;
        if line != [0; to_usize(LINE)] {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether two superblocks of one volume agree, each in its place.
fn agree(first: &SuperBlock, copy: &SuperBlock) -> bool {
    let mut same = copy.clone();
    (same.block, same.crc) = (first.block, first.crc);
    same.as_bytes() == first.as_bytes()
}

/// The number of things that [`witnesses`] searches.
const WITNESSES: usize = 3;

/// How many of the things that a superblock names are where it says, under the checksums of its
/// volume: a system inode, a journal lane, the bitmap of the first chunk.
#[inline(never)]
fn witnesses<P: Pmem + ?Sized>(pmem: &P, geo: &Geometry) -> usize {
    let pmem = &pmem;
    let system = [geo.system_inode_at(0), geo.system_copy_at(0)];
    let found: [bool; WITNESSES] = [
        system
            .iter()
            .any(|at| inode::read(pmem, geo.seed, *at, TABLE_INO, &mut Inode::blank()).is_ok()),
        (0..geo.lane_count).any(|lane| journal::has_header(pmem, geo, lane)),
        bits::is_sound(pmem, geo, 0),
    ];
    found.iter().filter(|found| **found).count()
}

/// A superblock, with the layout that it gives.
type Sound = (SuperBlock, Geometry);

/// Whether the copy counts instead of the first, from which it differs.
fn copy_counts<P: Pmem + ?Sized>(pmem: &P, first: &Sound, copy: &Sound) -> bool {
    let plain = |sb: &SuperBlock| sb.ro_compat.get() & !RO_COMPAT_KNOWN == 0;
    let weight = |(sb, geo): &Sound, may_be_newer: bool| {
        let newer = (sb.generation.get(), plain(sb));
        (witnesses(pmem, geo), may_be_newer.then_some(newer))
    };
    let may_be_newer = plain(&copy.0) || !plain(&first.0);
    weight(copy, may_be_newer) > weight(first, true)
}

/// Whether the first superblock, which this code must not use, says so only because it is damaged:
/// its copy is not older, and either of the same volume, or no other volume has overwritten what
/// the copy names.
fn is_refused_wrongly<P: Pmem + ?Sized>(
    pmem: &P,
    copy: &SuperBlock,
    geo: &Geometry,
) -> Result<bool> {
    let first: SuperBlock = read_struct(pmem, 0)?;
    let same = first.uuid == copy.uuid || witnesses(pmem, geo) == WITNESSES;
    Ok(same && first.generation.get() <= copy.generation.get())
}

/// Reads the superblock of a device: of the first and its copy, the one that counts. The copy is
/// where the first says, and without it in the last block of the device.
///
/// Another file system made over the volume leaves the copy in place. So if the first has lost even
/// its magic, the copy is used only if the device was not reused.
///
/// A single superblock without any witness on the device is not used.
///
/// Fails with the error of the first, if the copy is not usable either: with [`Error::NotRdax`],
/// [`Error::Corrupt`], [`Error::Media`], [`Error::TooSmall`], [`Error::Version`] or
/// [`Error::Unsupported`].
#[inline(never)]
pub fn read<P: Pmem + ?Sized>(pmem: &P) -> Result<Read> {
    let first = read_at(pmem, 0);
    let end = copy_at(pmem.len());
    let named = first.as_ref().map(|(_, geo)| copy_at(geo.blocks * BLOCK));
    // If the first is wrong about the size of the volume, it does not know where the copy is.
    let copy = match named.map(|at| read_at(pmem, at)) {
        Ok(Ok(copy)) => Ok(copy),
        Ok(Err(Error::Version { .. } | Error::Unsupported { .. } | Error::Corrupt { .. }))
        | Err(_)
        | Ok(Err(Error::NotRdax)) => read_at(pmem, end),
        Ok(Err(e)) => Err(e),
    };
    let damaged = Error::Corrupt {
        what: Structure::SuperBlock,
        at: 0,
    };
    let (sb, geo, copy_served) = match (first, copy) {
        (Ok((_, geo)), Err(_)) if witnesses(pmem, &geo) == 0 => return Err(damaged),
        (Ok((sb, geo)), Err(_)) => (sb, geo, None),
        (Ok((sb, geo)), Ok((copy, _))) if agree(&sb, &copy) => (sb, geo, None),
        (Ok(first), Ok(copy)) => match copy_counts(pmem, &first, &copy) {
            true => (copy.0, copy.1, Some(damaged)),
            false => (first.0, first.1, None),
        },
        (Err(Error::NotRdax), _) if is_foreign(pmem)? => return Err(Error::NotRdax),
        (Err(why), Ok((_, geo))) if witnesses(pmem, &geo) == 0 => return Err(why),
        (Err(why), Ok((copy, geo))) => match why {
            Error::NotRdax | Error::Corrupt { .. } | Error::Media { .. } => (copy, geo, Some(why)),
            Error::Version { .. } | Error::Unsupported { .. } | Error::TooSmall { .. }
                if is_refused_wrongly(pmem, &copy, &geo)? =>
            {
                (copy, geo, Some(damaged))
            }
            why => return Err(why),
        },
        // The copy may be all that is left of a volume that this code does not read.
        (
            Err(Error::NotRdax | Error::Corrupt { .. } | Error::Media { .. }),
            Err(e @ (Error::Version { .. } | Error::Unsupported { .. } | Error::TooSmall { .. })),
        ) => return Err(e),
        (Err(why), Err(_)) => return Err(why),
    };
    let unknown_ro_compat = sb.ro_compat.get() & !RO_COMPAT_KNOWN;
    Ok(Read {
        sb,
        geo,
        copy_served,
        unknown_ro_compat,
    })
}
