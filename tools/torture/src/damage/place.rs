// SPDX-License-Identifier: GPL-2.0

//! The structures of a volume: where they are, what fields they have, and whose they are.

use std::mem::offset_of;

use rdax_fsck::media::{file_type, Media, DT_DIR, DT_LNK};
use rdax_volume::volume::format::*;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::super_block;

use super::cow::Cow;

/// What a structure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    SuperBlock,
    LaneHeader,
    LaneBody,
    Summary,
    Bitmap,
    InodeChunk,
    SystemInode,
    Inode,
    Node,
    LeafHeader,
    Record,
    Xattrs,
    OrphanSlot,
}

/// Every kind.
pub const KINDS: [Kind; 13] = [
    Kind::SuperBlock,
    Kind::LaneHeader,
    Kind::LaneBody,
    Kind::Summary,
    Kind::Bitmap,
    Kind::InodeChunk,
    Kind::SystemInode,
    Kind::Inode,
    Kind::Node,
    Kind::LeafHeader,
    Kind::Record,
    Kind::Xattrs,
    Kind::OrphanSlot,
];

/// A structure on the media.
#[derive(Clone, Debug)]
pub struct Place {
    pub kind: Kind,
    /// Byte address and length.
    pub at: u64,
    pub len: usize,
    /// The inode that is damaged with it; 0 if none is.
    pub ino: u64,
    /// Of a record: its name.
    pub name: Vec<u8>,
    /// Its number among those of its kind, as its checksum has it.
    pub number: u64,
    /// Of the body of a lane: its header; of a bitmap and a summary: the summary.
    pub header: u64,
    /// Of a summary and a bitmap: the bitmap.
    pub bitmap: u64,
    /// What its checksum begins with.
    pub seed: u32,
}

impl Place {
    fn new(kind: Kind, at: u64, len: usize, ino: u64) -> Place {
        Place {
            kind,
            at,
            len,
            ino,
            name: Vec::new(),
            number: 0,
            header: 0,
            bitmap: 0,
            seed: 0,
        }
    }
}

/// What a field means, and so which values are worth trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Number,
    Block,
    Ino,
    /// The packed word of an extent.
    Run,
    /// Bytes that mean nothing yet.
    Reserved,
}

/// A field of a structure.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub at: usize,
    pub len: usize,
    pub sort: Sort,
}

const fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// The fields of a structure, with what they mean.
macro_rules! fields {
    ($of:ident: $($name:ident $sort:ident),*) => {
        &[$(Field {
            name: stringify!($name),
            at: offset_of!($of, $name),
            len: size_of_field(|t: &$of| &t.$name),
            sort: Sort::$sort,
        }),*]
    };
}

const SUPER_BLOCK: &[Field] = fields!(SuperBlock: magic Number, version Number, compat Number,
    ro_compat Number, incompat Number, uuid Number, label Number, blocks Block, system_block Block,
    lanes_block Block, lane_count Number, lane_bytes Number, summary_block Block,
    bitmap_block Block, chunks Number, data_block Block, free_blocks Number, used_inodes Number,
    root_ino Ino, hash_key Number, made_sec Number, block Block,
    generation Number, reserved Reserved);
const LANE_HEADER: &[Field] = fields!(LaneHeader: body_len Number, body_crc Number, lane Number,
    seq Number, free_blocks Number, used_inodes Number, reserved Reserved, retired Number);
const SUMMARY: &[Field] = fields!(Summary: free Number, reserved Reserved);
const INODE_CHUNK: &[Field] = fields!(InodeChunk: magic Number, index Number, bitmap Number,
    block Block, free Number, reserved Reserved);
const INODE: &[Field] = fields!(RawInode: mode Number, root_count Number, size Number,
    blocks Number, mtime_sec Number, ctime_sec Number, mtime_nsec Number, ctime_nsec Number,
    nlink Number, attrs Number, generation Number, depth Number, reserved0 Reserved, ino Ino,
    parent Ino, atime_sec Number, btime_sec Number, atime_nsec Number, btime_nsec Number,
    uid Number, gid Number, rdev Number, orphan Number, xattr_block Block);
const NODE: &[Field] = fields!(NodeHeader: magic Number, count Number, level Number,
    reserved0 Reserved, generation Number, owner Ino, block Block, reserved Reserved);
const LEAF: &[Field] = fields!(LeafHeader: magic Number, owner Ino, key Number, block Block);
const RECORD: &[Field] = fields!(Dirent: rec_len Number, name_len Number, file_type Number,
    ino Ino, cookie Number);
const XATTRS: &[Field] = fields!(XattrHeader: magic Number, owner Ino, block Block,
    generation Number, len Number);
/// Bytes of a slot of the orphan file.
const SLOT: usize = size_of::<OrphanSlot>();

const ORPHAN: &[Field] = fields!(OrphanSlot: ino Ino, work Number, from Number, to Number);

fn word(name: &'static str, at: usize, sort: Sort) -> Field {
    let len = 8;
    Field {
        name,
        at,
        len,
        sort,
    }
}

/// The fields of the structure at `place`.
pub fn fields(place: &Place) -> Vec<Field> {
    let fixed = match place.kind {
        Kind::SuperBlock => SUPER_BLOCK,
        Kind::LaneHeader => LANE_HEADER,
        Kind::LaneBody | Kind::Bitmap => &[],
        Kind::Summary => SUMMARY,
        Kind::InodeChunk => INODE_CHUNK,
        Kind::SystemInode | Kind::Inode => INODE,
        Kind::Node => NODE,
        Kind::LeafHeader => LEAF,
        Kind::Record => RECORD,
        Kind::Xattrs => XATTRS,
        Kind::OrphanSlot => ORPHAN,
    };
    let mut fields = fixed.to_vec();
    let words = |from: usize| (from..place.len / 8 * 8).step_by(8);
    let mut extents = |from: usize| {
        for at in (from..place.len).step_by(size_of::<Extent>()) {
            fields.push(word("key", at, Sort::Number));
            fields.push(word("value", at + 8, Sort::Run));
        }
    };
    match place.kind {
        Kind::Inode | Kind::SystemInode => extents(offset_of!(RawInode, root)),
        Kind::Node => extents(size_of::<NodeHeader>()),
        Kind::LaneBody => fields.extend(words(0).map(|at| word("word", at, Sort::Number))),
        Kind::Bitmap => fields.extend(words(0).map(|at| word("bits", at, Sort::Number))),
        Kind::Xattrs => {
            let from = size_of::<XattrHeader>();
            fields.extend(words(from).map(|at| word("record", at, Sort::Run)));
        }
        // A free record may have no byte behind its head: the next one is another's.
        Kind::Record if place.len > size_of::<Dirent>() => {
            fields.push(Field {
                name: "name",
                at: size_of::<Dirent>(),
                len: 1,
                sort: Sort::Number,
            });
        }
        _ => {}
    }
    fields
}

fn fixed_places(cow: &Cow<'_>, media: &Media<'_>, put: &mut dyn FnMut(Place)) {
    let (sb, geo) = (&media.sb, &media.geo);
    let size = size_of::<SuperBlock>();
    put(Place::new(Kind::SuperBlock, 0, size, 0));
    let copy = super_block::copy_at(sb.blocks.get() * BLOCK);
    put(Place::new(Kind::SuperBlock, copy, size, 0));
    for lane in 0..sb.lane_count.get() {
        let at = geo.lane_at(lane);
        for slot in 0..2 {
            let header_at = at + slot * size_of::<LaneHeader>() as u64;
            put(Place::new(
                Kind::LaneHeader,
                header_at,
                size_of::<LaneHeader>(),
                0,
            ));
            let Some(header) = media.get::<LaneHeader>(header_at) else {
                continue;
            };
            let len = u64::from(header.body_len.get()).min(LANE_BYTES - LANE_BODY);
            if len > 0 {
                put(Place {
                    header: header_at,
                    ..Place::new(Kind::LaneBody, at + LANE_BODY, len as usize, 0)
                });
            }
        }
    }
    for chunk in 0..sb.chunks.get() {
        let place = |kind, at, len| Place {
            number: chunk,
            header: geo.summary_at(chunk),
            bitmap: geo.bitmap_at(chunk),
            ..Place::new(kind, at, len, 0)
        };
        put(place(
            Kind::Summary,
            geo.summary_at(chunk),
            size_of::<Summary>(),
        ));
        put(place(Kind::Bitmap, geo.bitmap_at(chunk), 64));
    }
    for (slot, ino) in [(0, TABLE_INO), (1, ORPHAN_INO)] {
        let at = geo.system_inode_at(slot);
        for at in [at, geo.system_copy_at(slot)] {
            put(Place::new(Kind::SystemInode, at, INODE_BYTES as usize, 0));
        }
        let Some(raw) = media.inode_in(at, ino) else {
            continue;
        };
        nodes(cow, &raw, 0, put);
        if ino == ORPHAN_INO {
            let mut number = 0;
            for m in media.extents(&raw) {
                for at in (m.block * BLOCK..(m.block + m.len) * BLOCK).step_by(SLOT) {
                    if number < 8 || media.get::<[u8; SLOT]>(at) != Some([0; SLOT]) {
                        let place = Place::new(Kind::OrphanSlot, at, SLOT, 0);
                        put(Place { number, ..place });
                    }
                    number += 1;
                }
            }
        }
    }
}

/// The nodes of the extent tree of `raw`.
fn nodes(cow: &Cow<'_>, raw: &RawInode, ino: u64, put: &mut dyn FnMut(Place)) {
    let mut level = raw.root[..usize::from(raw.root_count.get()).min(ROOT_EXTENTS)].to_vec();
    for _ in 0..raw.depth {
        let mut below = Vec::new();
        for entry in level {
            let at = entry.value.get() * BLOCK;
            let mut header = [0; size_of::<NodeHeader>()];
            if at + BLOCK > cow.len() || cow.read(at, &mut header).is_err() {
                continue;
            }
            let count = u16::from_le_bytes([header[6], header[7]]);
            let count = usize::from(count).min(NODE_EXTENTS);
            let len = size_of::<NodeHeader>() + count * size_of::<Extent>();
            put(Place::new(Kind::Node, at, len, ino));
            for n in 0..count {
                let mut extent = Extent::default();
                let at = at + (size_of::<NodeHeader>() + n * size_of::<Extent>()) as u64;
                let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut extent);
                cow.read(at, bytes).expect("reads");
                below.push(extent);
            }
        }
        level = below;
    }
}

fn leaves(media: &Media<'_>, ino: u64, raw: &RawInode, put: &mut dyn FnMut(Place)) {
    for m in media.extents(raw) {
        let leaf = m.block * BLOCK;
        put(Place::new(
            Kind::LeafHeader,
            leaf,
            size_of::<LeafHeader>(),
            ino,
        ));
        let bytes = media.bytes(leaf, BLOCK as usize).unwrap_or_default();
        let seed = record_seed(media.geo.seed, ino, m.block);
        Media::records(&bytes, seed, &media.nameless, &mut |offset, _, record| {
            let name = record.map_or(&[][..], |(_, name)| name);
            let len = size_of::<Dirent>() + name.len();
            let place = Place::new(Kind::Record, leaf + offset as u64, len, ino);
            let name = name.to_vec();
            put(Place { name, ..place });
        });
    }
}

/// Every structure of the sound volume on `cow`.
pub fn places(cow: &Cow<'_>) -> Vec<Place> {
    let mut found = Vec::new();
    let put = &mut |place| found.push(place);
    let (sb, geo) = super_block::read_at(cow, 0).expect("a sound superblock");
    let media = Media::new(cow, sb, geo);
    fixed_places(cow, &media, put);
    for index in 0..media.inode_chunks() {
        if let Some((at, _)) = media.inode_chunk(index) {
            let len = size_of::<InodeChunk>();
            put(Place {
                number: index,
                ..Place::new(Kind::InodeChunk, at, len, 0)
            });
        }
    }
    for (ino, raw) in media.inodes() {
        let Some(at) = media.inode_at(ino) else {
            continue;
        };
        put(Place::new(Kind::Inode, at, INODE_BYTES as usize, ino));
        let xattrs = raw.xattr_block.get() * BLOCK;
        if xattrs != 0 {
            let len = media.get::<XattrHeader>(xattrs).map_or(0, |h| h.len.get());
            let len = (len as usize).clamp(size_of::<XattrHeader>(), BLOCK as usize);
            put(Place::new(Kind::Xattrs, xattrs, len, ino));
        }
        let inline = file_type(&raw) == DT_LNK && raw.size.get() <= INLINE_MAX as u64;
        if !inline {
            nodes(cow, &raw, ino, put);
        }
        if file_type(&raw) == DT_DIR {
            leaves(&media, ino, &raw, put);
        }
    }
    for place in &mut found {
        place.seed = match place.kind {
            Kind::Record => record_seed(geo.seed, place.ino, place.at / BLOCK),
            _ => geo.seed,
        };
    }
    found
}
