// SPDX-License-Identifier: GPL-2.0

//! The media format, version 5: every structure with its fields, units and limits.
//!
//! Little-endian throughout. Addresses named `at` are bytes from the start of the device, block
//! numbers count 4 KiB blocks from there. `Documentation/format.rst` is the prose; sizes are
//! checked at build time below.
//!
//! Every structure carries a CRC32C of all its bytes except the checksum. For all but the
//! superblock, it starts from the *seed* of the volume, the CRC32C of its UUID and its hash key, so
//! that a structure of another volume is not mistaken for one of this volume. Fields record the
//! location of the structure, so that a copy of it elsewhere is not mistaken for it either.
//!
//! Reserved bytes are zero in new structures. No check depends on them, and code that changes a
//! structure preserves them: they are for future versions.
//!
//! ```text
//! block 0        superblock                    last block        its copy
//! block 1        system inodes (the inode      block before it   their copy
//!                table's, the orphan file's)
//! lanes          LANE_COUNT journal lanes of LANE_BYTES
//! summary        8 bytes for each chunk of 512 blocks
//! bitmap         64 bytes for each chunk of 512 blocks
//! data           everything else, allocated by blocks
//! ```

use super::num::to_usize;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes in a block, the unit of allocation and of mapping.
pub const BLOCK: u64 = 4096;
/// log2 of [`BLOCK`].
pub const BLOCK_SHIFT: u32 = 12;
/// Blocks in a chunk: 2 MiB, the unit of the bitmaps and of a huge mapping.
pub const CHUNK_BLOCKS: u64 = 512;
/// Smallest device: one with room for some chunks of data beside the metadata.
pub const MIN_BYTES: u64 = 8 << 20;
/// Largest device, in bytes.
pub const MAX_BYTES: u64 = 1 << 52;
/// Largest file size, in bytes (2^63 - 1).
pub const MAX_FILE: u64 = i64::MAX as u64;
/// Longest name, in bytes.
pub const NAME_MAX: usize = 255;
/// Longest symlink target, in bytes.
pub const SYMLINK_MAX: usize = 4095;
/// Most links to one inode.
pub const LINK_MAX: u32 = i32::MAX as u32;

/// First bytes of a superblock.
pub const MAGIC: [u8; 8] = *b"rdax\x00pm\x01";
/// The type of the file system as `statfs` reports it ("rdax").
pub const STATFS_MAGIC: u64 = 0x7264_6178;
/// The version this code writes, and the only one it reads.
pub const VERSION: u32 = 5;

/// Incompatible features this code knows: none yet.
pub const INCOMPAT_KNOWN: u64 = 0;
/// Read-only-compatible features this code knows: none yet.
pub const RO_COMPAT_KNOWN: u64 = 0;

/// The superblock, at byte 0; its copy fills the last whole block of the volume.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SuperBlock {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// CRC32C of this structure.
    pub crc: U32,
    /// Format version.
    pub version: U32,
    /// Features that old code may ignore.
    pub compat: U64,
    /// Features with which old code may mount read-only.
    pub ro_compat: U64,
    /// Features that old code must refuse.
    pub incompat: U64,
    /// UUID, big-endian bytes as printed.
    pub uuid: [u8; 16],
    /// Label, UTF-8, padded with zero bytes.
    pub label: [u8; 32],
    /// Blocks of the volume, both superblocks included.
    pub blocks: U64,
    /// Block of the system inodes.
    pub system_block: U64,
    /// First block of the journal lanes.
    pub lanes_block: U64,
    /// Number of lanes.
    pub lane_count: U32,
    /// Bytes of a lane.
    pub lane_bytes: U32,
    /// First block of the chunk summary.
    pub summary_block: U64,
    /// First block of the chunk bitmaps.
    pub bitmap_block: U64,
    /// Chunks of the volume; the last one may be partial (its missing blocks are marked in use).
    pub chunks: U64,
    /// First block that files may use.
    pub data_block: U64,
    /// Free blocks when the volume was made. Now: this plus the sum over the lanes.
    pub free_blocks: U64,
    /// Inodes in use when the volume was made.
    pub used_inodes: U64,
    /// Inode number of the root directory.
    pub root_ino: U64,
    /// Key of the hash of names (SipHash-2-4).
    pub hash_key: [u8; 16],
    /// When the volume was made: seconds since 1970.
    pub made_sec: I64,
    /// Its own block.
    pub block: U64,
    /// Incremented each time the superblocks are written: of two that differ, the greater one is
    /// newer.
    pub generation: U64,
    /// Reserved; room to grow.
    pub reserved: [u8; 296],
}

/// Bytes of a lane: two headers and the body.
pub const LANE_BYTES: u64 = 16384;
/// The number of lanes that mkfs creates; each takes one transaction at a time.
pub const LANE_COUNT: u32 = 16;
/// Where the body of a lane starts: after the two headers.
pub const LANE_BODY: u64 = 128;

/// Header of a journal lane, one cache line. A lane has two and uses them in turn (`seq & 1`), so
/// that a torn header leaves the other with the counters.
///
/// A transaction is committed once its header and body are durable; it is replayed at mount unless
/// `retired` is the word of `seq`.
#[derive(Clone, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LaneHeader {
    /// CRC32C of the header without `retired`, from the seed on.
    pub crc: U32,
    /// Bytes of the body in use.
    pub body_len: U32,
    /// CRC32C of the body, from the seed on.
    pub body_crc: U32,
    /// Index of the lane.
    pub lane: U32,
    /// Sequence number in this lane, from 1.
    pub seq: U64,
    /// Change of the number of free blocks by all transactions of this lane up to this one.
    pub free_blocks: I64,
    /// Change of the number of inodes in use, likewise.
    pub used_inodes: I64,
    /// Reserved. A header is written anew for each transaction.
    pub reserved: [u8; 16],
    /// The word of the last transaction of this slot that is durable in place: this one, or until
    /// then the one two before it. Not covered by `crc`, since it changes alone: eight bytes are
    /// never torn. It has its own checksum (`journal::retired_word`), so that no damaged bit turns
    /// the word of one transaction into that of another.
    pub retired: U64,
}

// The body of a transaction is entries of 8-byte words. The first word of an entry is its head: the
// kind in the low ENTRY_KIND_BITS bits, a count in the ENTRY_COUNT_BITS above, and a place above
// that, in units that depend on the kind.

/// Bits of an entry's head that hold its kind, `ENTRY_*`.
pub const ENTRY_KIND_BITS: u32 = 3;
/// Bits above these that hold the count.
pub const ENTRY_COUNT_BITS: u32 = 11;

/// Write the words that follow, as many as the count says, at the place: a byte address divided by
/// 8.
pub const ENTRY_WRITE: u64 = 1;
/// Mark the blocks from the place on in use, as many as the word that follows says; the summaries
/// of their chunks are recomputed. The count is 0.
pub const ENTRY_ALLOC: u64 = 2;
/// Mark the blocks from the place on free, likewise.
pub const ENTRY_FREE: u64 = 3;
/// Mark a slot, given by the count, in use, in the inode chunk whose header is at the place: a byte
/// address divided by 8. The header is recomputed. (By address, not by number: replay must not need
/// the extents of the inode table.)
pub const ENTRY_INODE_ALLOC: u64 = 4;
/// Mark the slot free, likewise.
pub const ENTRY_INODE_FREE: u64 = 5;
/// Zero bytes of one block: as many as the word that follows says, from the byte address 8 times
/// the place plus the count, 0 to 7, on.
pub const ENTRY_ZERO: u64 = 6;

/// Summary of a chunk of blocks, beside its 64-byte bitmap (bit set: block in use; bit 0 of byte
/// 0 is the first block).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Summary {
    /// CRC32C, from the seed on, of the 64 bytes of bitmap, then `free`, `reserved` and the number
    /// of the chunk as 8 bytes.
    pub crc: U32,
    /// Free blocks in the chunk, 0 to 512.
    pub free: U16,
    /// Reserved.
    pub reserved: U16,
}

/// Bytes of an inode.
pub const INODE_BYTES: u64 = 256;
/// Slots in an inode chunk, which is one block: so any free block has room for inodes. Slot 0 holds
/// the [`InodeChunk`] header, so inode number `n` is in slot `n % 16` of inode chunk `n / 16` and a
/// multiple of 16 is never an inode.
pub const INODE_CHUNK_SLOTS: u64 = BLOCK / INODE_BYTES;
/// Words of an inode chunk's bitmap.
pub const INODE_CHUNK_WORDS: usize = to_usize(INODE_CHUNK_SLOTS.div_ceil(64));
/// Inode chunks that mkfs makes, and by which the inode table grows where blocks are contiguous.
pub const INODE_CHUNKS: u64 = 16;
/// Inode number of the root directory.
pub const ROOT_INO: u64 = 1;
/// System inode whose extents map the inode table. It is in slot 0 of the system block; its number
/// is for messages and checksums only. System inodes are changed together with their copies.
pub const TABLE_INO: u64 = 0xffff_ffff_ffff_0000;
/// System inode whose extents map the orphan file. It is in slot 1 of the system block.
pub const ORPHAN_INO: u64 = 0xffff_ffff_ffff_0001;

/// Number of system inodes.
pub const SYSTEM_INODES: u64 = 2;

/// First bytes of an inode chunk header.
pub const INODE_CHUNK_MAGIC: u32 = 0x6b43_6e49; // "InCk"

/// Header of an inode chunk, one cache line at the start of slot 0.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct InodeChunk {
    /// CRC32C of the bytes after it, from the seed on.
    pub crc: U32,
    /// [`INODE_CHUNK_MAGIC`].
    pub magic: U32,
    /// Index of the inode chunk in the table.
    pub index: U64,
    /// Bit set: the inode is in use. Bit 0, the header's own, is always set, and so are the bits of
    /// slots that do not exist.
    pub bitmap: [U64; INODE_CHUNK_WORDS],
    /// Its own block.
    pub block: U64,
    /// Free inodes in the inode chunk.
    pub free: U16,
    /// Generation of the first inode in a slot that was not used since the inode chunk was made. It
    /// differs from that of an earlier inode chunk with this index.
    pub generation: U32,
    /// Reserved.
    pub reserved: [u8; 26],
}

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub sec: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nsec: u32,
}

/// A file attribute ([`RawInode::attrs`]): nothing of the file changes except its access time.
pub const ATTR_IMMUTABLE: u32 = 0x10;
/// Data is only appended, names are only added.
pub const ATTR_APPEND: u32 = 0x20;
/// Backups skip it.
pub const ATTR_NODUMP: u32 = 0x40;
/// Its access time is not updated.
pub const ATTR_NOATIME: u32 = 0x80;
/// With the mount option `dax=inode` it is mapped directly.
pub const ATTR_DAX: u32 = 0x0200_0000;
/// The attributes that this code knows.
pub const ATTRS_KNOWN: u32 = ATTR_IMMUTABLE | ATTR_APPEND | ATTR_NODUMP | ATTR_NOATIME | ATTR_DAX;

/// Mode of a new root directory: `S_IFDIR | 0755`.
pub const ROOT_MODE: u16 = 0o040_755;
/// Attributes of a new root directory. Files created below it inherit [`ATTR_DAX`].
pub const ROOT_ATTRS: u32 = ATTR_DAX;

/// An inode, four cache lines: what a store changes, what seldom changes, and the root of its
/// extent tree (or the target of a symlink up to [`INLINE_MAX`] bytes).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawInode {
    /// CRC32C of the bytes after it, from the seed on.
    pub crc: U32,
    /// File type and permissions (`S_IFMT | 07777`).
    pub mode: U16,
    /// Entries in `root`.
    pub root_count: U16,
    /// Bytes. For a directory: its leaves times [`BLOCK`]. For a symlink: of its target.
    pub size: U64,
    /// Blocks in use: data, leaves, nodes of the extent tree, extended attributes.
    pub blocks: U64,
    /// Last change of the content: seconds.
    pub mtime_sec: I64,
    /// Last change of the inode: seconds.
    pub ctime_sec: I64,
    /// Nanoseconds of `mtime_sec`.
    pub mtime_nsec: U32,
    /// Nanoseconds of `ctime_sec`.
    pub ctime_nsec: U32,
    /// Links. A directory has 2 and one for each directory in it.
    pub nlink: U32,
    /// File attributes, `ATTR_*`: values of `FS_*_FL` of linux/fs.h.
    pub attrs: U32,
    /// Distinguishes the users of one inode number over time.
    pub generation: U32,
    /// Levels of nodes below `root`: 0 if `root` holds the extents themselves.
    pub depth: u8,
    /// Reserved.
    pub reserved0: [u8; 3],

    /// Its own number.
    pub ino: U64,
    /// For a directory: its parent directory (the root: itself). Otherwise zero.
    pub parent: U64,
    /// Last access: seconds.
    pub atime_sec: I64,
    /// Birth: seconds.
    pub btime_sec: I64,
    /// Nanoseconds of `atime_sec`.
    pub atime_nsec: U32,
    /// Nanoseconds of `btime_sec`.
    pub btime_nsec: U32,
    /// Owner.
    pub uid: U32,
    /// Group.
    pub gid: U32,
    /// For a device node: its number, as the kernel's `new_encode_dev`. Otherwise zero.
    pub rdev: U32,
    /// Slot in the orphan file plus one, zero if it has none.
    pub orphan: U32,
    /// Block of the extended attributes ([`XattrHeader`]), zero if there are none.
    pub xattr_block: U64,

    /// Root of the extent tree, or the target of a short symlink as bytes.
    pub root: [Extent; ROOT_EXTENTS],
}

/// Entries in the root of an extent tree, inside the inode.
pub const ROOT_EXTENTS: usize = 8;
/// Longest symlink target kept in the inode, in bytes.
pub const INLINE_MAX: usize = 128;

/// One entry of an extent tree.
///
/// In a leaf: `key` is the first file block, and `value` the first block on the media (low 40
/// bits), the number of blocks (the 23 bits above, 1 to [`EXTENT_MAX`]), and in the highest bit
/// whether they are unwritten: the file's, but read as zeros whatever they hold. For a directory,
/// `key` is the first hash of a leaf block, the number of blocks is 1, and the bit is clear, as in
/// the trees of system inodes. In an index node: `key` is the smallest key below and `value` the
/// block of the child. The high 12 bits of `key` are zero.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct Extent {
    /// File block, or hash; 52 bits.
    pub key: U64,
    /// Block and length, or child.
    pub value: U64,
}

/// The most blocks of one extent.
pub const EXTENT_MAX: u64 = (1 << 23) - 1;
/// Bits of a key: file blocks and hashes of names.
pub const KEY_BITS: u32 = 52;

/// First bytes of an extent node.
pub const NODE_MAGIC: u16 = 0x784e; // "Nx"
/// Entries of an extent node.
pub const NODE_EXTENTS: usize = 252;

/// Header of an extent node, one block: the header, then `count` entries sorted by key.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NodeHeader {
    /// CRC32C of the rest of the header and of the entries in use, from the seed on.
    pub crc: U32,
    /// [`NODE_MAGIC`].
    pub magic: U16,
    /// Entries in use, 1 to [`NODE_EXTENTS`].
    pub count: U16,
    /// Height above the leaves: 0 holds extents.
    pub level: U16,
    /// Reserved.
    pub reserved0: U16,
    /// Low half of the inode's generation: so a node of a former owner is not mistaken for this
    /// one's.
    pub generation: U32,
    /// The inode it belongs to.
    pub owner: U64,
    /// Its own block.
    pub block: U64,
    /// Reserved.
    pub reserved: [u8; 32],
}

/// First bytes of a directory leaf.
pub const LEAF_MAGIC: u32 = 0x664c_7244; // "DrLf"

/// Header of a directory leaf, one block: the header, then records that fill it exactly.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LeafHeader {
    /// CRC32C of the rest of the header, from the seed on.
    pub crc: U32,
    /// [`LEAF_MAGIC`].
    pub magic: U32,
    /// The directory.
    pub owner: U64,
    /// Smallest hash in this leaf: its key in the directory's extent tree.
    pub key: U64,
    /// Its own block.
    pub block: U64,
}

/// Head of a record in a directory leaf; the name follows, padded to 8 bytes.
///
/// A record with `ino` zero is free space. Records are unordered.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Dirent {
    /// CRC32C of the rest of the head and of the name, from [`record_seed`] on.
    pub crc: U32,
    /// Bytes of the record, head and padding included; a multiple of 8, at least 24.
    pub rec_len: U16,
    /// Bytes of the name, 1 to 255; 0 if free.
    pub name_len: u8,
    /// `DT_*` of the inode; 0 if free.
    pub file_type: u8,
    /// The inode; 0 if free.
    pub ino: U64,
    /// Position for readdir, unique in the directory and never changed while the name exists: the
    /// hash of the name (52 bits) and a number among names of the same hash (low 11 bits).
    pub cookie: U64,
}

/// The seed of the checksums of the records of a leaf: so a record that another leaf has left in
/// the block, or a copy of one elsewhere, is not valid.
pub fn record_seed(seed: u32, owner: u64, block: u64) -> u32 {
    let [a, b, c, d, e, f, g, h] = (block ^ owner.rotate_left(20)).to_le_bytes();
    seed ^ u32::from_le_bytes([a, b, c, d]) ^ u32::from_le_bytes([e, f, g, h])
}

/// Bits of a cookie below the hash.
pub const COOKIE_LOW_BITS: u32 = 11;

/// First bytes of a block of extended attributes.
pub const XATTR_MAGIC: u32 = 0x7241_7478; // "xtAr"
/// Longest value of an extended attribute, in bytes.
pub const XATTR_VALUE_MAX: usize = 65536;
/// The most runs of blocks that hold one value.
pub const XATTR_RUNS_MAX: usize = XATTR_VALUE_MAX / to_usize(BLOCK);
/// Longest value that is stored beside its name, in bytes. A longer one has its own blocks.
pub const XATTR_INLINE_MAX: usize = 512;

/// Header of the extended attributes of an inode, one block: the header, then records, in no order
/// and without gaps. Names and small values of one inode have to fit.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct XattrHeader {
    /// CRC32C of the rest of the bytes in use, from the seed on.
    pub crc: U32,
    /// [`XATTR_MAGIC`].
    pub magic: U32,
    /// The inode.
    pub owner: U64,
    /// Its own block.
    pub block: U64,
    /// The inode's generation.
    pub generation: U32,
    /// Bytes in use, header and records: a multiple of 8, more than the header has.
    pub len: U32,
}

/// Head of the record of an extended attribute. The name follows, padded with zeros to 8 bytes;
/// then the value, padded likewise. If it is longer than [`XATTR_INLINE_MAX`], `runs` words follow
/// instead, each of blocks that hold the next part of it, as in [`Extent::value`].
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct XattrRecord {
    /// Bytes of the value; zero also for [`XATTR_VALUE_MAX`]: [`XattrRecord::value_len`].
    pub value_len: U16,
    /// Bytes of the name, its prefix ("user.") included: 1 to 255.
    pub name_len: u8,
    /// Runs of blocks that hold the value; 0 if it follows the name.
    pub runs: u8,
    /// CRC32C of a value in its own blocks, otherwise zero.
    pub value_crc: U32,
}

impl XattrRecord {
    /// Bytes of the value, 0 to [`XATTR_VALUE_MAX`]. An empty one has no blocks.
    pub fn value_len(&self) -> usize {
        match (self.runs, self.value_len.get()) {
            (1.., 0) => XATTR_VALUE_MAX,
            (_, len) => len.into(),
        }
    }

    /// Bytes after the name: the value with its padding, or the words of its runs.
    pub fn body_len(&self) -> usize {
        match usize::from(self.runs) {
            0 => self.value_len().next_multiple_of(8),
            runs => runs * size_of::<U64>(),
        }
    }
}

/// A slot of the orphan file: an inode without links that is still in use, or a file with an
/// operation that has taken effect but is not completed. An empty slot is all zero.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct OrphanSlot {
    /// The inode number, or 0.
    pub ino: U64,
    /// CRC32C, from the seed on, of the other fields and of the index of the slot as 8 bytes.
    pub crc: U32,
    /// The work to do on the file blocks `from..to`, `WORK_*`.
    pub work: U32,
    /// The first of them.
    pub from: U64,
    /// The first one after them. Both are zero if there is no work.
    pub to: U64,
}

/// No work: the inode is freed if it has no links.
pub const WORK_NONE: u32 = 0;
/// The file blocks become a hole.
pub const WORK_CUT: u32 = 1;
/// Data becomes unwritten.
pub const WORK_UNWRITE: u32 = 2;

/// Blocks of the orphan file that mkfs makes.
pub const ORPHAN_BLOCKS: u64 = 16;

const _: () = {
    use core::mem::size_of;
    assert!(size_of::<SuperBlock>() == 512);
    assert!(size_of::<LaneHeader>() == 64);
    assert!(MAX_BYTES / 8 <= 1 << (64 - ENTRY_KIND_BITS - ENTRY_COUNT_BITS));
    assert!(LANE_BYTES / 8 <= 1 << ENTRY_COUNT_BITS);
    assert!(size_of::<Summary>() == 8);
    assert!(size_of::<InodeChunk>() == 64);
    assert!(size_of::<RawInode>() == to_usize(INODE_BYTES));
    assert!(size_of::<Extent>() == 16);
    assert!(size_of::<NodeHeader>() == 64);
    assert!(size_of::<NodeHeader>() + NODE_EXTENTS * size_of::<Extent>() == to_usize(BLOCK));
    assert!(size_of::<LeafHeader>() == 32);
    assert!(size_of::<Dirent>() == 24);
    assert!(size_of::<XattrHeader>() == 32);
    assert!(size_of::<XattrRecord>() == 8);
    assert!(size_of::<OrphanSlot>() == 32);
    assert!(ROOT_EXTENTS * size_of::<Extent>() == INLINE_MAX);
};
