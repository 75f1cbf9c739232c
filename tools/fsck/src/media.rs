// SPDX-License-Identifier: GPL-2.0

//! Reading a damaged volume: returns sound structures and skips the others.

use std::collections::HashSet;

use rdax_volume::env::crc32c;
use rdax_volume::volume::check::crc;
use rdax_volume::volume::extent::{unpack, Mapping, KEY_END, MAX_DEPTH};
use rdax_volume::volume::format::{
    record_seed, Dirent, Extent, InodeChunk, LeafHeader, NodeHeader, RawInode, SuperBlock,
    XattrHeader, XattrRecord, BLOCK, CHUNK_BLOCKS, EXTENT_MAX, INODE_BYTES, INODE_CHUNK_MAGIC,
    INODE_CHUNK_SLOTS, LEAF_MAGIC, MAX_FILE, NODE_EXTENTS, NODE_MAGIC, ROOT_EXTENTS, TABLE_INO,
    XATTR_MAGIC, XATTR_RUNS_MAX,
};
use rdax_volume::volume::inode;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::super_block::Geometry;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

/// A directory, as the type in its entry says.
pub const DT_DIR: u8 = 4;
/// A regular file.
pub const DT_REG: u8 = 8;
/// A symlink.
pub const DT_LNK: u8 = 10;

/// `DT_*` of an inode.
pub fn file_type(raw: &RawInode) -> u8 {
    (raw.mode.get() >> 12) as u8
}

/// Called with the records of a leaf: offset, length, and, if it is sound, head and name.
pub type Visit<'v> = dyn FnMut(usize, usize, Option<(Dirent, &[u8])>) + 'v;

/// A sound record of a leaf with a name.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Byte offset in the leaf.
    pub offset: usize,
    pub name: Vec<u8>,
    pub ino: u64,
    pub cookie: u64,
}

/// An extended attribute, as its record has it.
#[derive(Clone)]
pub struct Xattr {
    pub head: XattrRecord,
    pub name: Vec<u8>,
    /// The value and its padding, or the words of the runs that hold it.
    pub body: Vec<u8>,
}

impl Xattr {
    /// The runs of blocks that hold the value, as the record says. Not verified.
    pub fn runs(&self) -> impl Iterator<Item = Mapping> + '_ {
        let words = if self.head.runs == 0 {
            &[]
        } else {
            &self.body[..]
        };
        words.chunks_exact(8).filter_map(|word| {
            let value = U64::read_from_bytes(word).ok()?;
            let key = U64::ZERO;
            Some(unpack(&Extent { key, value }))
        })
    }
}

const HEAD: usize = size_of::<Dirent>();
/// Record lengths are multiples of this.
const WORD: usize = 8;

/// The record at `offset` of a leaf, its head and its name, if it is sound under `seed`; with
/// `len`, if it is sound with that length instead of its own.
fn record_in(
    bytes: &[u8],
    seed: u32,
    offset: usize,
    len: Option<usize>,
) -> Option<(Dirent, &[u8])> {
    let (mut head, rest) = Dirent::read_from_prefix(bytes.get(offset..)?).ok()?;
    if let Some(len) = len {
        head.rec_len.set(len as u16);
    }
    let len = usize::from(head.rec_len.get());
    let name = rest.get(..head.name_len.into())?;
    let fits = len % 8 == 0 && (HEAD + name.len()..=bytes.len() - offset).contains(&len);
    let sound = crc32c(crc(seed, head.as_bytes()), name) == head.crc.get();
    (fits && sound).then_some((head, name))
}

/// A volume with sound superblocks.
pub struct Media<'a> {
    pub pmem: &'a dyn Pmem,
    pub sb: SuperBlock,
    pub geo: Geometry,
    /// The extents of the inode table, as far as they are known.
    pub table: Vec<Mapping>,
    /// Inodes in use that have fewer entries than they say, as far as known.
    pub nameless: HashSet<u64>,
}

impl<'a> Media<'a> {
    pub fn new(pmem: &'a dyn Pmem, sb: SuperBlock, geo: Geometry) -> Self {
        let mut media = Media {
            pmem,
            sb,
            geo,
            table: Vec::new(),
            nameless: HashSet::new(),
        };
        if let Some(raw) = media.system_inode(0) {
            media.table = media.extents(&raw);
        }
        media
    }

    /// The system inode in `slot`, or its copy if that is damaged; if both are, what is in a place
    /// of the other system inode.
    pub fn system_inode(&self, slot: u64) -> Option<RawInode> {
        let [first, copy] = self.system_inodes(slot);
        first.or(copy).or_else(|| self.misplaced_system_inode(slot))
    }

    /// The system inode of `slot` in a place of the other one, if it is sound.
    pub fn misplaced_system_inode(&self, slot: u64) -> Option<RawInode> {
        let others = [
            self.geo.system_inode_at(1 - slot),
            self.geo.system_copy_at(1 - slot),
        ];
        let mut found = others.into_iter();
        found.find_map(|at| self.inode_in(at, TABLE_INO + slot))
    }

    /// The system inode in `slot` and its copy, if they are sound.
    pub fn system_inodes(&self, slot: u64) -> [Option<RawInode>; 2] {
        [
            self.geo.system_inode_at(slot),
            self.geo.system_copy_at(slot),
        ]
        .map(|at| self.inode_in(at, TABLE_INO + slot))
    }

    /// `len` bytes at `at`; `None` where they cannot be read.
    pub fn bytes(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let end = at.checked_add(len as u64)?;
        let mut bytes = vec![0; len];
        (end <= self.pmem.len() && self.pmem.read(at, &mut bytes).is_ok()).then_some(bytes)
    }

    /// The structure at `at`.
    pub fn get<T: FromBytes + IntoBytes>(&self, at: u64) -> Option<T> {
        T::read_from_bytes(&self.bytes(at, size_of::<T>())?).ok()
    }

    /// The inode `ino` in the slot at `at`, if it is that and sound.
    pub fn inode_in(&self, at: u64, ino: u64) -> Option<RawInode> {
        self.get::<RawInode>(at).filter(|raw| {
            raw.crc.get() == inode::checksum(raw, self.geo.seed) && raw.ino.get() == ino
        })
    }

    /// Byte address of the slot of inode `ino`.
    pub fn inode_at(&self, ino: u64) -> Option<u64> {
        let per_block = BLOCK / INODE_BYTES;
        let key = ino / per_block;
        let run = self.table.iter().find(|m| m.key <= key && key < m.end())?;
        Some((run.block + key - run.key) * BLOCK + ino % per_block * INODE_BYTES)
    }

    /// The inode `ino`, if it is in use and sound, and its byte address.
    pub fn inode(&self, ino: u64) -> Option<(u64, RawInode)> {
        let (_, header) = self.inode_chunk(ino / INODE_CHUNK_SLOTS)?;
        let slot = ino % INODE_CHUNK_SLOTS;
        let used = (header.bitmap[(slot / 64) as usize].get() >> (slot % 64)) & 1 == 1;
        let at = self.inode_at(ino).filter(|_| used && slot != 0)?;
        Some((at, self.inode_in(at, ino)?))
    }

    /// The number of inode chunks.
    pub fn inode_chunks(&self) -> u64 {
        self.table.last().map_or(0, Mapping::end)
    }

    /// The header of an inode chunk, if it is sound, and its byte address.
    pub fn inode_chunk(&self, index: u64) -> Option<(u64, InodeChunk)> {
        let at = self.inode_at(index.checked_mul(INODE_CHUNK_SLOTS)?)?;
        Some((
            at,
            self.inode_chunk_in(at).filter(|c| c.index.get() == index)?,
        ))
    }

    /// The header of any inode chunk at `at`, if it is sound.
    pub fn inode_chunk_in(&self, at: u64) -> Option<InodeChunk> {
        self.get::<InodeChunk>(at).filter(|header| {
            header.magic.get() == INODE_CHUNK_MAGIC
                && header.crc.get() == crc(self.geo.seed, header.as_bytes())
                && header.block.get() == at / BLOCK
        })
    }

    /// All inodes in use that are sound.
    pub fn inodes(&self) -> impl Iterator<Item = (u64, RawInode)> + '_ {
        let per_block = BLOCK / INODE_BYTES;
        // Not up to the last key, which may be far too large.
        let table = self.table.iter();
        table
            .flat_map(move |m| m.key * per_block..m.end() * per_block)
            .filter_map(|ino| self.inode(ino).map(|(_, raw)| (ino, raw)))
    }

    /// The bitmap of a chunk of blocks.
    pub fn bitmap(&self, chunk: u64) -> Option<[u8; 64]> {
        self.get(self.geo.bitmap_at(chunk))
    }

    /// Whether the bitmaps have `block` in use.
    pub fn is_used(&self, block: u64) -> bool {
        let bit = (block % CHUNK_BLOCKS) as usize;
        self.bitmap(block / CHUNK_BLOCKS)
            .is_some_and(|bitmap| (bitmap[bit / 8] >> (bit % 8)) & 1 == 1)
    }

    /// All blocks for files that the bitmaps have in use.
    pub fn used_blocks(&self) -> impl Iterator<Item = u64> + '_ {
        let in_chunk = |chunk: u64| {
            let bitmap = self.bitmap(chunk).unwrap_or([0; 64]);
            (0..CHUNK_BLOCKS)
                .filter(move |bit| (bitmap[(bit / 8) as usize] >> (bit % 8)) & 1 == 1)
                .map(move |bit| chunk * CHUNK_BLOCKS + bit)
        };
        let chunks = 0..self.geo.chunks;
        let blocks = chunks.flat_map(in_chunk);
        blocks.filter(|&block| self.geo.is_data(block, 1))
    }

    /// The extended attributes in the block that `raw` names, and whether the last record ends
    /// where they end. `None` if that block is not sound, or not this inode's.
    pub fn xattrs(&self, raw: &RawInode) -> Option<(Vec<Xattr>, bool)> {
        let block = raw.xattr_block.get();
        if !self.geo.is_data(block, 1) {
            return None;
        }
        let bytes = self.bytes(block * BLOCK, BLOCK as usize)?;
        let (header, _) = XattrHeader::read_from_prefix(&bytes).ok()?;
        let bytes = bytes.get(..header.len.get() as usize)?;
        let records = bytes.get(size_of::<XattrHeader>()..)?;
        let sound = header.magic.get() == XATTR_MAGIC
            && header.owner == raw.ino
            && header.block.get() == block
            && header.generation == raw.generation
            && !records.is_empty()
            && records.len() % 8 == 0
            && header.crc.get() == crc(self.geo.seed, bytes);
        sound.then(|| Self::xattr_records(records))
    }

    /// The records in `rest`, and whether they end where it ends.
    fn xattr_records(mut rest: &[u8]) -> (Vec<Xattr>, bool) {
        let mut found = Vec::new();
        while let Ok((head, tail)) = XattrRecord::read_from_prefix(rest) {
            let name_len = usize::from(head.name_len);
            let body_at = name_len.next_multiple_of(8);
            let body_len = head.body_len();
            let (Some(name), Some(body)) =
                (tail.get(..name_len), tail.get(body_at..body_at + body_len))
            else {
                break;
            };
            rest = &tail[body_at + body_len..];
            found.push(Xattr {
                head,
                name: name.to_vec(),
                body: body.to_vec(),
            });
        }
        (found, rest.is_empty())
    }

    /// The value of an attribute that has blocks of its own, if it is sound.
    pub fn xattr_value(&self, xattr: &Xattr) -> Option<Vec<u8>> {
        let len = xattr.head.value_len();
        let blocks: u64 = xattr.runs().map(|run| run.len).sum();
        if blocks != (len as u64).div_ceil(BLOCK) || xattr.head.runs as usize > XATTR_RUNS_MAX {
            return None;
        }
        let mut value = Vec::new();
        for run in xattr.runs() {
            if run.len == 0 || run.unwritten || !self.geo.is_data(run.block, run.len) {
                return None;
            }
            value.extend(self.bytes(run.block * BLOCK, (run.len * BLOCK) as usize)?);
        }
        value.truncate(len);
        (crc32c(0, &value) == xattr.head.value_crc.get()).then_some(value)
    }

    /// The blocks of the extended attributes of an inode: theirs, and those of large values.
    pub fn xattr_runs(&self, raw: &RawInode) -> Vec<Mapping> {
        let mut runs = Vec::new();
        if let Some((records, _)) = self.xattrs(raw) {
            let (key, block, len) = (0, raw.xattr_block.get(), 1);
            runs.push(Mapping::new(key, block, len));
            runs.extend(records.iter().flat_map(Xattr::runs));
        }
        runs.retain(|run| self.geo.is_data(run.block, run.len));
        runs
    }

    /// All blocks of an inode, as far as what names them is sound.
    pub fn blocks_of(&self, raw: &RawInode) -> Vec<Mapping> {
        let mut nodes = HashSet::new();
        let mut blocks = self.extents_and_nodes(raw, &mut nodes);
        blocks.extend(nodes.into_iter().map(|block| Mapping::new(0, block, 1)));
        blocks.extend(self.xattr_runs(raw));
        blocks
    }

    /// Blocks of the extents and the nodes of an inode, as far as they are sound.
    pub fn tree_blocks(&self, raw: &RawInode) -> u64 {
        let mut nodes = HashSet::new();
        let extents = self.extents_and_nodes(raw, &mut nodes);
        extents.iter().map(|m| m.len).sum::<u64>() + nodes.len() as u64
    }

    /// The sound extents of an inode, in order and without overlaps.
    pub fn extents(&self, raw: &RawInode) -> Vec<Mapping> {
        self.extents_and_nodes(raw, &mut HashSet::new())
    }

    fn extents_and_nodes(&self, raw: &RawInode, nodes: &mut HashSet<u64>) -> Vec<Mapping> {
        let count = usize::from(raw.root_count.get());
        let mut found = Vec::new();
        if count <= ROOT_EXTENTS && usize::from(raw.depth) <= MAX_DEPTH {
            self.walk(raw, &raw.root[..count], raw.depth, &mut found, nodes);
        }
        found
    }

    fn walk(
        &self,
        raw: &RawInode,
        entries: &[Extent],
        height: u8,
        found: &mut Vec<Mapping>,
        seen: &mut HashSet<u64>,
    ) {
        let directory = file_type(raw) == DT_DIR;
        for entry in entries {
            let key = entry.key.get();
            let from = found.last().map_or(0, Mapping::end);
            if key < from || key >= KEY_END {
                continue;
            }
            if height > 0 {
                let block = entry.value.get();
                if self.geo.is_data(block, 1) && seen.insert(block) {
                    let node = self.node(raw, block, height - 1);
                    self.walk(raw, &node, height - 1, found, seen);
                }
                continue;
            }
            let m = unpack(entry);
            if m.unwritten && file_type(raw) != DT_REG {
                continue;
            }
            let most = if directory { 1 } else { EXTENT_MAX };
            let end = if directory {
                KEY_END
            } else {
                (MAX_FILE + 1) / BLOCK
            };
            if (1..=most).contains(&m.len) && m.end() <= end && self.geo.is_data(m.block, m.len) {
                found.push(m);
            }
        }
    }

    /// The entries of the node in `block`, none if it is not one of the tree of `raw`.
    fn node(&self, raw: &RawInode, block: u64, level: u8) -> Vec<Extent> {
        let header = size_of::<NodeHeader>();
        let Some(bytes) = self.bytes(block * BLOCK, BLOCK as usize) else {
            return Vec::new();
        };
        let Ok((h, _)) = NodeHeader::read_from_prefix(&bytes) else {
            return Vec::new();
        };
        let count = usize::from(h.count.get());
        let used = header + count * size_of::<Extent>();
        let sound = h.magic.get() == NODE_MAGIC
            && count <= NODE_EXTENTS
            && crc(self.geo.seed, &bytes[..used]) == h.crc.get()
            && h.level.get() == u16::from(level)
            && h.owner == raw.ino
            && h.generation == raw.generation
            && h.block.get() == block;
        let entries = bytes[header..].chunks_exact(size_of::<Extent>());
        entries
            .take(if sound { count } else { 0 })
            .filter_map(|entry| Extent::read_from_bytes(entry).ok())
            .collect()
    }

    /// The header of the leaf in `block` and whether it is sound, if it belongs to the directory
    /// `dir`. Of a damaged one, two of the three fields that say so are enough.
    pub fn leaf_header(&self, dir: u64, block: u64) -> Option<(LeafHeader, bool)> {
        let h: LeafHeader = self.get(block * BLOCK)?;
        let says = [
            h.magic.get() == LEAF_MAGIC,
            h.owner.get() == dir,
            h.block.get() == block,
        ];
        let sound = h.crc.get() == crc(self.geo.seed, h.as_bytes());
        let fields = says.iter().filter(|holds| **holds).count();
        (fields == 3 || (fields == 2 && !sound)).then_some((h, sound && fields == 3))
    }

    /// Calls `each` with every record of the leaf that `bytes` hold: its offset, its length, and,
    /// if it is sound under `seed`, its head and its name.
    ///
    /// The length of a damaged record is the one that makes its checksum valid, and then it is
    /// sound; but if only its own leads to a sound record or to the end of the leaf, it is that:
    /// the checksum of a record of another leaf may be valid with a wrong length. If no length
    /// makes it valid, it is its own, or the next one, that leads there. A length that spans a
    /// sound record of an inode in `nameless` ends there, unless it is that of a sound record and
    /// leads to another. So the length may differ from the one in the head, and be shorter than a
    /// head. Returns the offset where the records end: the end of the leaf, or a record that
    /// nothing follows.
    pub fn records(
        bytes: &[u8],
        seed: u32,
        nameless: &HashSet<u64>,
        each: &mut Visit<'_>,
    ) -> usize {
        let mut offset = size_of::<LeafHeader>();
        while offset < bytes.len() {
            let lengths = || (WORD..=bytes.len() - offset).step_by(WORD);
            let leads = |len: &usize| {
                let to = offset + len;
                to == bytes.len() || record_in(bytes, seed, to, None).is_some()
            };
            let names = |len: &usize| {
                record_in(bytes, seed, offset + len, None)
                    .is_some_and(|(head, _)| nameless.contains(&head.ino.get()))
            };
            let sound = record_in(bytes, seed, offset, None)
                .or_else(|| lengths().find_map(|len| record_in(bytes, seed, offset, Some(len))));
            let own = bytes.get(offset + 4..offset + 6);
            let own = own.map_or(0, |own| usize::from(u16::from_le_bytes([own[0], own[1]])));
            let own = lengths().find(|len| *len == own && leads(len));
            let (end, least) = match (&sound, own) {
                (Some((head, name)), own) => {
                    let (found, least) = (head.rec_len.get().into(), HEAD + name.len());
                    let own = own.filter(|own| *own >= least && !leads(&found));
                    (own.unwrap_or(found), least)
                }
                (None, Some(own)) => (own, 0),
                (None, None) => match lengths().find(leads) {
                    Some(next) => (next, 0),
                    None => break,
                },
            };
            let len = match sound.is_some() && leads(&end) {
                true => end,
                false => lengths()
                    .take_while(|len| *len < end)
                    .find(|len| *len >= least && names(len))
                    .unwrap_or(end),
            };
            each(offset, len, sound);
            offset += len;
        }
        offset
    }

    /// The sound names in the leaf of the directory `dir` in `block`.
    pub fn entries(&self, dir: u64, block: u64) -> Vec<Entry> {
        let mut entries = Vec::new();
        let bytes = self
            .bytes(block * BLOCK, BLOCK as usize)
            .unwrap_or_default();
        let seed = record_seed(self.geo.seed, dir, block);
        Self::records(&bytes, seed, &self.nameless, &mut |offset, _, record| {
            if let Some((head, name)) = record.filter(|(head, _)| head.ino.get() != 0) {
                entries.push(Entry {
                    offset,
                    name: name.to_vec(),
                    ino: head.ino.get(),
                    cookie: head.cookie.get(),
                });
            }
        });
        entries
    }
}
