// SPDX-License-Identifier: GPL-2.0

//! Making a volume.
//!
//! First the superblocks of an old volume are wiped; the new ones are written last, each durable
//! before the next step: a device whose formatting was interrupted holds no volume.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::alloc::{bits, Run};
use super::dir;
use super::error::{Error, Result};
use super::extent::{self, Mapping};
use super::format::{
    RawInode, SuperBlock, Time, BLOCK, CHUNK_BLOCKS, INODE_BYTES, INODE_CHUNKS, LANE_BYTES,
    LANE_COUNT, MAGIC, MAX_BYTES, MIN_BYTES, ORPHAN_BLOCKS, ORPHAN_INO, ROOT_ATTRS, ROOT_INO,
    ROOT_MODE, TABLE_INO, VERSION,
};
use super::inode;
use super::journal;
use super::num::{to_u32, to_usize};
use super::persist::{Dirty, Durable};
use super::pmem::Pmem;
use super::super_block::{self, Geometry};
use super::table;

/// The choices of the caller.
pub struct Options<'a> {
    /// Its UUID, as printed.
    pub uuid: [u8; 16],
    /// Its label: at most 32 bytes of UTF-8.
    pub label: &'a str,
    /// Key of the hash of names: random, so that nobody can choose names that collide.
    pub hash_key: [u8; 16],
    /// The time.
    pub now: Time,
    /// Size in bytes, rounded down to blocks; the whole device if `None`.
    pub bytes: Option<u64>,
}

/// No superblock is left on the device.
struct Wiped;
/// Everything but the superblocks is written.
struct Filled;
/// The volume is made.
struct Made;

/// Makes an empty volume on `pmem`, whatever it holds.
///
/// Fails with [`Error::TooSmall`] if the device, or the requested size, is too small,
/// [`Error::TooBig`] if it is too large, and [`Error::Invalid`] for an invalid [`Options::label`].
pub fn format<P: Pmem>(pmem: &P, options: &Options<'_>) -> Result<()> {
    let have = pmem.len();
    let bytes = options.bytes.unwrap_or(have);
    if bytes > have || have < MIN_BYTES {
        let need = bytes.max(MIN_BYTES);
        return Err(Error::TooSmall { need, have });
    }
    if bytes < MIN_BYTES {
        let (need, have) = (MIN_BYTES, bytes);
        return Err(Error::TooSmall { need, have });
    }
    if bytes > MAX_BYTES {
        return Err(Error::TooBig);
    }
    let mut sb = plan(bytes / BLOCK, options)?;
    let geo = Geometry::of(&sb);
    let layout = Layout::of(&geo);
    if !geo.is_sound() || !geo.is_data(layout.table, layout.end - layout.table) {
        return Err(Error::Invalid);
    }
    let wiped = wipe(pmem, &geo)?;
    let (free, filled) = fill(pmem, &geo, &layout, options, wiped)?;
    sb.free_blocks = U64::new(free);
    finish(pmem, &geo, &sb, filled).map(|_| ())
}

/// The superblock of a volume of `blocks`, except for the number of free ones.
fn plan(blocks: u64, options: &Options<'_>) -> Result<SuperBlock> {
    let chunks = blocks.div_ceil(CHUNK_BLOCKS);
    let [system_block, lanes_block, summary_block, bitmap_block, data_block] =
        super_block::places(chunks, LANE_COUNT);
    Ok(SuperBlock {
        magic: MAGIC,
        crc: U32::ZERO,
        version: U32::new(VERSION),
        compat: U64::ZERO,
        ro_compat: U64::ZERO,
        incompat: U64::ZERO,
        uuid: options.uuid,
        label: super_block::label(options.label)?,
        blocks: U64::new(blocks),
        system_block: U64::new(system_block),
        lanes_block: U64::new(lanes_block),
        lane_count: U32::new(LANE_COUNT),
        lane_bytes: U32::new(to_u32(to_usize(LANE_BYTES))),
        summary_block: U64::new(summary_block),
        bitmap_block: U64::new(bitmap_block),
        chunks: U64::new(chunks),
        data_block: U64::new(data_block),
        free_blocks: U64::ZERO,
        used_inodes: U64::new(1),
        root_ino: U64::new(ROOT_INO),
        hash_key: options.hash_key,
        made_sec: I64::new(options.now.sec),
        block: U64::ZERO,
        generation: U64::new(1),
        reserved: [0; 296],
    })
}

/// Where the first files are: in the chunk that the metadata has begun, if there is room, so that
/// free chunks stay whole.
struct Layout {
    /// First block of the inode table.
    table: u64,
    /// First block of the orphan file.
    orphans: u64,
    /// First leaf of the root directory.
    root_leaf: u64,
    /// The first block after these.
    end: u64,
}

impl Layout {
    fn of(geo: &Geometry) -> Layout {
        let table = geo.data_block;
        let orphans = table + INODE_CHUNKS;
        let root_leaf = orphans + ORPHAN_BLOCKS;
        Layout {
            table,
            orphans,
            root_leaf,
            end: root_leaf + 1,
        }
    }
}

/// Invalidates any volume on the device: erases its first block, its last, and the last of the new
/// volume.
fn wipe<P: Pmem>(pmem: &P, geo: &Geometry) -> Result<Durable<Wiped>> {
    let mut dirty = Dirty::new(pmem);
    let copies = [
        0,
        super_block::copy_at(pmem.len()),
        super_block::copy_at(geo.blocks * BLOCK),
    ];
    for at in copies {
        dirty.zero(at, BLOCK)?;
    }
    dirty.write_back().fence()
}

/// Writes everything but the superblocks. Returns the number of free blocks.
fn fill<P: Pmem>(
    pmem: &P,
    geo: &Geometry,
    layout: &Layout,
    options: &Options<'_>,
    _wiped: Durable<Wiped>,
) -> Result<(u64, Durable<Filled>)> {
    let mut dirty = Dirty::new(pmem);
    for index in 0..geo.lane_count {
        journal::format(&mut dirty, geo, index)?;
    }
    let used = [
        Run {
            block: 0,
            len: layout.end,
        },
        // The copies, and the missing blocks of the last chunk.
        Run {
            block: geo.data_end(),
            len: geo.chunks * CHUNK_BLOCKS - geo.data_end(),
        },
    ];
    let mut free = 0;
    for chunk in 0..geo.chunks {
        free += bits::format(&mut dirty, geo, chunk, &used)?;
    }

    let system = [
        (TABLE_INO, layout.table, INODE_CHUNKS),
        (ORPHAN_INO, layout.orphans, ORPHAN_BLOCKS),
    ];
    for copies in [geo.system_inode_at(0), geo.system_copy_at(0)] {
        dirty.zero(copies, BLOCK)?;
    }
    for (slot, (ino, block, len)) in (0..).zip(system) {
        let at = block * BLOCK;
        dirty.zero(at, len * BLOCK)?;
        let mapping = Mapping::new(0, block, len);
        let raw = new_inode(geo, ino, 0, options.now, extent::pack(mapping), len);
        for at in [geo.system_inode_at(slot), geo.system_copy_at(slot)] {
            dirty.store(at, raw.as_bytes())?;
        }
    }
    let table_at = layout.table * BLOCK;
    for index in 0..INODE_CHUNKS {
        let slots: &[u64] = if index == 0 { &[ROOT_INO] } else { &[] };
        let block = layout.table + index;
        let header = table::header(geo.seed, (index, block), slots, 1);
        dirty.store(block * BLOCK, header.as_bytes())?;
    }

    let (extent, leaf) = dir::first_leaf(geo.seed, ROOT_INO, layout.root_leaf);
    let leaf_at = layout.root_leaf * BLOCK;
    dirty.zero(leaf_at, BLOCK)?;
    dirty.store(leaf_at, leaf.as_ref())?;
    let mut root = new_inode(geo, ROOT_INO, ROOT_MODE, options.now, extent, 1);
    root.nlink = U32::new(2);
    root.parent = U64::new(ROOT_INO);
    root.attrs = U32::new(ROOT_ATTRS);
    inode::seal(&mut root, geo.seed);
    dirty.store(table_at + ROOT_INO * INODE_BYTES, root.as_bytes())?;
    Ok((free, dirty.write_back().fence()?))
}

/// An inode with `extent`, of `blocks` blocks, as its content.
fn new_inode(
    geo: &Geometry,
    ino: u64,
    mode: u16,
    now: Time,
    extent: super::format::Extent,
    blocks: u64,
) -> RawInode {
    let mut raw = RawInode::new_zeroed();
    raw.ino = U64::new(ino);
    raw.mode = U16::new(mode);
    raw.generation = U32::new(1);
    raw.nlink = U32::new(1);
    raw.size = U64::new(blocks * BLOCK);
    raw.blocks = U64::new(blocks);
    raw.root_count = U16::new(1);
    if let Some(first) = raw.root.first_mut() {
        *first = extent;
    }
    raw.set_atime(now);
    raw.set_btime(now);
    raw.set_mtime(now);
    raw.set_ctime(now);
    inode::seal(&mut raw, geo.seed);
    raw
}

/// Writes the superblocks, the copy first.
fn finish<P: Pmem>(
    pmem: &P,
    geo: &Geometry,
    sb: &SuperBlock,
    _filled: Durable<Filled>,
) -> Result<Durable<Made>> {
    let mut dirty = Dirty::new(pmem);
    let mut sb = sb.clone();
    for at in [super_block::copy_at(geo.blocks * BLOCK), 0] {
        super_block::seal(&mut sb, at);
        dirty.store(at, sb.as_bytes())?;
    }
    dirty.write_back().fence()
}
