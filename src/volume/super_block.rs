// SPDX-License-Identifier: GPL-2.0

//! The superblock and its copy: which volume a device holds, and where on it everything lies.
//!
//! [`read`] trusts nothing: it returns a superblock only if every place it names lies inside the
//! device and in its order, so that the rest of the volume may compute with a [`Geometry`] without
//! further checks. Nothing here writes but [`seal`]'s callers (mkfs, and the label).

use core::mem::offset_of;

use zerocopy::little_endian::U32;
use zerocopy::IntoBytes;

use super::error::{Error, Result, Structure};
use super::format::{
    SuperBlock, BLOCK, CHUNK_BLOCKS, INCOMPAT_KNOWN, LANE_BYTES, MAGIC, MAX_BYTES, MIN_BYTES,
    ROOT_INO, RO_COMPAT_KNOWN, VERSION,
};
use super::num::to_usize;
use super::pmem::{read_struct, Pmem, LINE};
use crate::env::crc32c;

/// Most lanes a volume may have.
const LANES_MAX: u32 = 256;

/// Where the parts of a volume lie, in blocks unless a name says otherwise.
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
        self.system_block * BLOCK + slot * super::format::INODE_BYTES
    }

    /// First block after those that files may use: the copy of the superblock.
    pub fn data_end(&self) -> u64 {
        self.blocks - 1
    }

    /// The last free blocks, which are kept for nodes of extent trees, so that a hole can be punched
    /// in a full volume.
    pub fn reserve(&self) -> u64 {
        (self.blocks / 128).min(1024)
    }

    /// Whether the blocks `block..block + len` are some that files may use.
    pub fn is_data(&self, block: u64, len: u64) -> bool {
        block >= self.data_block && len <= self.data_end() && block <= self.data_end() - len
    }

    /// Whether the bytes `at..at + len` lie in the volume.
    pub fn contains(&self, at: u64, len: u64) -> bool {
        let bytes = self.blocks * BLOCK;
        len <= bytes && at <= bytes - len
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
        }
    }

    /// The parts follow each other, do not overlap and fit their contents.
    pub(super) fn is_sound(&self) -> bool {
        // No sum below overflows: blocks is at most 2^40, the others are below it.
        let ends_by = |start: u64, bytes: u64, limit: u64| {
            start < limit && bytes <= (limit - start).saturating_mul(BLOCK)
        };
        (MIN_BYTES / BLOCK..=MAX_BYTES / BLOCK).contains(&self.blocks)
            && self.chunks == self.blocks.div_ceil(CHUNK_BLOCKS)
            && (1..=LANES_MAX).contains(&self.lane_count)
            && self.system_block >= 1
            && self.data_block < self.blocks - 1
            && ends_by(self.system_block, BLOCK, self.lanes_block)
            && ends_by(
                self.lanes_block,
                u64::from(self.lane_count) * LANE_BYTES,
                self.summary_block,
            )
            && ends_by(self.summary_block, self.chunks * 8, self.bitmap_block)
            && ends_by(
                self.bitmap_block,
                self.chunks * (CHUNK_BLOCKS / 8),
                self.data_block,
            )
    }
}

/// A superblock that passed every check.
pub struct Read {
    /// It.
    pub sb: SuperBlock,
    /// Where things lie.
    pub geo: Geometry,
    /// Why the first superblock could not serve, if this is its copy.
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

/// Sets the checksum of `sb`.
pub fn seal(sb: &mut SuperBlock) {
    sb.crc = U32::new(checksum(sb));
}

/// `label` as the superblock holds it. Fails with [`Error::Invalid`] if it is longer than 32 bytes
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
    // The version says how to read what follows, the features whether that is safe.
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
    if !geo.is_sound() || lane_bytes != LANE_BYTES || sb.root_ino.get() != ROOT_INO {
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

/// Whether block 0 holds something that is no part of a volume behind the place of the superblock,
/// where mkfs leaves zeros: then the device was given to something else since.
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

/// Reads the superblock of a device: the first, or where that is unreadable or damaged, its copy in
/// the last block of the device.
///
/// Another file system made over the volume leaves the copy where it is. So where the first has
/// lost even its magic, the copy serves only if nothing else has moved in.
///
/// Fails with what is wrong with the first, if the copy does not serve either: with
/// [`Error::NotRdax`], [`Error::Corrupt`], [`Error::Media`], [`Error::TooSmall`], or
/// [`Error::Unsupported`] for a newer format.
#[inline(never)]
pub fn read<P: Pmem + ?Sized>(pmem: &P) -> Result<Read> {
    let (sb, geo, copy_served) = match read_at(pmem, 0) {
        Ok((sb, geo)) => (sb, geo, None),
        Err(Error::NotRdax) if is_foreign(pmem)? => return Err(Error::NotRdax),
        Err(why @ (Error::NotRdax | Error::Corrupt { .. } | Error::Media { .. })) => {
            let copy = copy_at(pmem.len());
            match read_at(pmem, copy) {
                // A copy that is not at the end of its own volume belongs to something else.
                Ok((sb, geo)) if copy_at(geo.blocks * BLOCK) == copy => (sb, geo, Some(why)),
                Err(e @ (Error::Unsupported { .. } | Error::TooSmall { .. })) => return Err(e),
                Ok(_) | Err(_) => return Err(why),
            }
        }
        Err(e) => return Err(e),
    };
    let unknown_ro_compat = sb.ro_compat.get() & !RO_COMPAT_KNOWN;
    Ok(Read {
        sb,
        geo,
        copy_served,
        unknown_ro_compat,
    })
}
