// SPDX-License-Identifier: GPL-2.0

//! A volume with something of everything, and the tools to damage it: structures are read, changed
//! and given a right checksum again, so that the check behind the checksum is the one that fires.

use std::sync::OnceLock;

use rdax_volume::env::{crc32c, siphash24};
use rdax_volume::ram::Ram;
use rdax_volume::volume::check::{self, Kind, Name, Problem};
use rdax_volume::volume::error::Structure;
use rdax_volume::volume::format::*;
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::{NewInode, SetAttr};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::xattr::Must;
use rdax_volume::volume::{mkfs, super_block, MountOptions, Volume};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const BYTES: u64 = 16 << 20;
pub const UUID: [u8; 16] = *b"0123456789abcdef";
pub const HASH_KEY: [u8; 16] = [7; 16];
pub const NOW: Time = Time {
    sec: 1_700_000_000,
    nsec: 1,
};
/// Blocks of "file", each with a hole after it.
pub const FILE_BLOCKS: u64 = 20;

/// The volume, and where its inodes are: number and byte address.
pub struct Bed {
    pub ram: Ram,
    at: std::collections::HashMap<&'static str, (u64, u64)>,
}

pub fn new_inode(mode: u16, rdev: u32) -> NewInode {
    NewInode {
        mode,
        rdev,
        now: NOW,
        ..NewInode::default()
    }
}

pub fn format(ram: &Ram) {
    let options = mkfs::Options {
        uuid: UUID,
        label: "bed",
        hash_key: HASH_KEY,
        now: NOW,
        bytes: None,
    };
    mkfs::format(ram, &options).expect("mkfs");
}

pub fn mount(ram: &Ram) -> Volume<&Ram> {
    Volume::mount(ram, MountOptions::default()).expect("mount")
}

type Places = Vec<(&'static str, u64, u64)>;

fn fill_volume(ram: &Ram) -> Places {
    let vol = mount(ram);
    let mut places = Vec::new();
    let mut note = |name, inode: &Inode| places.push((name, inode.ino(), inode.at()));
    let mut root = vol.iget(ROOT_INO).unwrap();
    note("/", &root);

    let file = new_inode(0o100644, 0);
    let mut inode = vol.create(&mut root, b"file", &file).unwrap();
    for block in 0..FILE_BLOCKS {
        vol.fill(&mut inode, 2 * block, 1, Some(NOW)).unwrap();
    }
    let size = 2 * FILE_BLOCKS * BLOCK;
    vol.extend(&mut inode, size, size, Some(NOW)).unwrap();
    assert_eq!(inode.raw().depth, 1, "the file has a tree with nodes");
    note("file", &inode);
    for name in ["small", "twin1", "twin2"] {
        let mut inode = vol.create(&mut root, name.as_bytes(), &file).unwrap();
        vol.fill(&mut inode, 0, 1, Some(NOW)).unwrap();
        note(name, &inode);
    }
    for (name, mode, rdev) in [("fifo", 0o010600, 0), ("char", 0o020600, 0x103)] {
        let inode = vol
            .create(&mut root, name.as_bytes(), &new_inode(mode, rdev))
            .unwrap();
        note(name, &inode);
    }
    let link = new_inode(0o120777, 0);
    note(
        "short",
        &vol.symlink(&mut root, b"short", b"file", &link).unwrap(),
    );
    note(
        "long",
        &vol.symlink(&mut root, b"long", &[b'x'; 200], &link)
            .unwrap(),
    );

    let mut tagged = vol.create(&mut root, b"tagged", &file).unwrap();
    for (name, value) in [("user.small", &[1; 10][..]), ("user.large", &[2; 5000])] {
        let (name, set) = (name.as_bytes(), SetAttr::default());
        vol.set_xattr(&mut tagged, name, Some(value), Must::BeNew, &set)
            .unwrap();
    }
    note("tagged", &tagged);

    let directory = new_inode(0o040755, 0);
    let mut dir = vol.create(&mut root, b"dir", &directory).unwrap();
    let mut sub = vol.create(&mut dir, b"sub", &directory).unwrap();
    let mut linked = vol.create(&mut root, b"linked", &file).unwrap();
    vol.link(&mut sub, b"other", &mut linked, NOW).unwrap();
    note("dir", &dir);
    note("sub", &sub);
    note("linked", &linked);

    let mut many = vol.create(&mut root, b"many", &directory).unwrap();
    for n in 0..500 {
        let name = format!("{n:060}");
        let inode = vol.create(&mut many, name.as_bytes(), &file).unwrap();
        if n == 499 {
            note("last", &inode);
        }
    }
    assert_eq!(many.raw().depth, 1, "the directory has a tree with nodes");
    note("many", &many);
    note("orphan", &vol.tmpfile(&file).unwrap());
    places
}

impl Bed {
    pub fn new() -> Bed {
        static MADE: OnceLock<(Vec<u8>, Places)> = OnceLock::new();
        let (bytes, places) = MADE.get_or_init(|| {
            let ram = Ram::new(BYTES);
            format(&ram);
            let places = fill_volume(&ram);
            let mut bytes = vec![0; BYTES as usize];
            ram.read(0, &mut bytes).unwrap();
            (bytes, places)
        });
        let ram = Ram::new(BYTES);
        ram.store(0, bytes).unwrap();
        let at = places
            .iter()
            .map(|&(name, ino, at)| (name, (ino, at)))
            .collect();
        Bed { ram, at }
    }

    /// Number of the inode called `name`.
    pub fn ino(&self, name: &str) -> u64 {
        self.at[name].0
    }

    /// Byte address of the inode called `name`.
    pub fn at(&self, name: &str) -> u64 {
        self.at[name].1
    }

    pub fn get<T: FromBytes>(&self, at: u64) -> T {
        let mut bytes = vec![0; size_of::<T>()];
        self.ram.read(at, &mut bytes).unwrap();
        T::read_from_bytes(&bytes).unwrap()
    }

    pub fn put<T: IntoBytes + Immutable>(&self, at: u64, value: &T) {
        self.ram.store(at, value.as_bytes()).unwrap();
    }

    /// Changes a structure, and not its checksum.
    pub fn spoil<T: FromBytes + IntoBytes + Immutable>(
        &self,
        at: u64,
        change: impl FnOnce(&mut T),
    ) {
        let mut value = self.get(at);
        change(&mut value);
        self.put(at, &value);
    }

    /// Writes the checksum of the `len` bytes at `at`, which begin with it.
    fn seal(&self, at: u64, len: usize) {
        self.seal_from(seed(), at, len);
    }

    /// Writes the checksum, from `seed` on, of the `len` bytes at `at`, which begin with it.
    fn seal_from(&self, seed: u32, at: u64, len: usize) {
        let mut bytes = vec![0; len];
        self.ram.read(at, &mut bytes).unwrap();
        self.put(at, &U32::new(crc32c(seed, &bytes[4..])));
    }

    /// Changes both superblocks alike.
    pub fn super_block(&self, change: impl Fn(&mut SuperBlock)) {
        for at in [0, BYTES - BLOCK] {
            self.one_super_block(at, &change);
        }
    }

    pub fn one_super_block(&self, at: u64, change: impl Fn(&mut SuperBlock)) {
        self.spoil(at, |sb: &mut SuperBlock| {
            change(sb);
            sb.crc = U32::new(super_block::checksum(sb));
        });
    }

    pub fn lane_at(&self, lane: u64) -> u64 {
        self.get::<SuperBlock>(0).lanes_block.get() * BLOCK + lane * LANE_BYTES
    }

    /// Changes header `slot` of a lane. The checksum does not cover `retired`.
    pub fn lane(&self, lane: u64, slot: u64, change: impl FnOnce(&mut LaneHeader)) {
        let at = self.lane_at(lane) + slot * 64;
        self.spoil(at, change);
        self.seal(at, 56);
    }

    /// The last committed header of a lane and its slot.
    pub fn last_header(&self, lane: u64) -> (u64, LaneHeader) {
        (0..2)
            .map(|slot| (slot, self.get::<LaneHeader>(self.lane_at(lane) + slot * 64)))
            .filter(|(_, header)| header.crc.get() != 0)
            .max_by_key(|(_, header)| header.seq.get())
            .unwrap()
    }

    pub fn inode(&self, name: &str, change: impl FnOnce(&mut RawInode)) {
        self.inode_at(self.at(name), change);
    }

    /// Changes a system inode and its copy alike.
    pub fn system_inode(&self, slot: u64, change: impl Fn(&mut RawInode)) {
        for at in [self.system_at(slot), self.system_copy_at(slot)] {
            self.inode_at(at, &change);
        }
    }

    pub fn inode_at(&self, at: u64, change: impl FnOnce(&mut RawInode)) {
        self.spoil(at, change);
        self.seal(at, INODE_BYTES as usize);
    }

    pub fn raw(&self, name: &str) -> RawInode {
        self.get(self.at(name))
    }

    /// Byte address of a system inode: 0 the table's, 1 the orphan file's.
    pub fn system_at(&self, slot: u64) -> u64 {
        self.get::<SuperBlock>(0).system_block.get() * BLOCK + slot * INODE_BYTES
    }

    /// Byte address of the copy of a system inode.
    pub fn system_copy_at(&self, slot: u64) -> u64 {
        BYTES - 2 * BLOCK + slot * INODE_BYTES
    }

    pub fn inode_chunk_at(&self, ino: u64, at: u64) -> u64 {
        at - ino % INODE_CHUNK_SLOTS * INODE_BYTES
    }

    pub fn inode_chunk(&self, at: u64, change: impl FnOnce(&mut InodeChunk)) {
        self.spoil(at, change);
        self.seal(at, size_of::<InodeChunk>());
    }

    /// Changes a node of an extent tree with its entries in use.
    pub fn node(&self, at: u64, change: impl FnOnce(&mut NodeHeader, &mut [Extent])) {
        let mut header: NodeHeader = self.get(at);
        let mut entries: [Extent; NODE_EXTENTS] = self.get(at + 64);
        change(&mut header, &mut entries);
        self.put(at, &header);
        self.put(at + 64, &entries);
        let count = usize::from(header.count.get()).min(NODE_EXTENTS);
        self.seal(at, 64 + 16 * count);
    }

    /// Byte address of the only leaf of a directory without nodes.
    pub fn leaf_at(&self, dir: &str) -> u64 {
        let raw = self.raw(dir);
        assert_eq!((raw.depth, raw.root_count.get()), (0, 1));
        raw.root[0].block() * BLOCK
    }

    pub fn leaf_header(&self, at: u64, change: impl FnOnce(&mut LeafHeader)) {
        self.spoil(at, change);
        self.seal(at, size_of::<LeafHeader>());
    }

    /// Byte address of the record of `name` in the leaf at `leaf`.
    pub fn record_at(&self, leaf: u64, name: &str) -> u64 {
        let mut at = leaf + 32;
        while at < leaf + BLOCK {
            let head: Dirent = self.get(at);
            let mut bytes = vec![0; head.name_len.into()];
            self.ram.read(at + 24, &mut bytes).unwrap();
            if bytes == name.as_bytes() {
                return at;
            }
            at += u64::from(head.rec_len.get());
        }
        panic!("no record for {name}");
    }

    pub fn record(&self, at: u64, change: impl FnOnce(&mut Dirent)) {
        self.spoil(at, change);
        let head: Dirent = self.get(at);
        let header: LeafHeader = self.get(at - at % BLOCK);
        let seed = record_seed(seed(), header.owner.get(), at / BLOCK);
        self.seal_from(seed, at, 24 + usize::from(head.name_len));
    }

    /// Gives a record another name, with the cookie that fits.
    pub fn rename(&self, at: u64, name: &[u8]) {
        self.ram.store(at + 24, name).unwrap();
        self.record(at, |head| {
            head.name_len = name.len() as u8;
            head.cookie = U64::new(hash(name) << COOKIE_LOW_BITS);
        });
    }

    /// Makes a record free space.
    pub fn remove(&self, at: u64) {
        self.record(at, |head| {
            (head.name_len, head.file_type) = (0, 0);
            (head.ino, head.cookie) = (U64::ZERO, U64::ZERO);
        });
    }

    /// Byte address of the extended attributes of "tagged".
    pub fn xattrs_at(&self) -> u64 {
        self.raw("tagged").xattr_block.get() * BLOCK
    }

    /// Byte address of the record of its second attribute, which has a large value.
    pub fn second_xattr_at(&self) -> u64 {
        // The first record: head, name of 10 bytes, value of 10.
        self.xattrs_at() + 32 + (8 + 16 + 16)
    }

    /// The first of the two blocks of that value.
    pub fn value_block(&self) -> u64 {
        // Behind head and name.
        self.get::<U64>(self.second_xattr_at() + 24).get() & ((1 << 40) - 1)
    }

    /// Changes the extended attributes of "tagged": the header, and its first record.
    pub fn xattrs(&self, change: impl FnOnce(&mut XattrHeader, &mut XattrRecord)) {
        let at = self.xattrs_at();
        let mut header: XattrHeader = self.get(at);
        let len = header.len.get() as usize;
        let mut record = self.get(at + 32);
        change(&mut header, &mut record);
        self.put(at, &header);
        self.put(at + 32, &record);
        self.seal(at, len);
    }

    pub fn orphan_slot_at(&self, slot: u64) -> u64 {
        let orphans: RawInode = self.get(self.system_at(1));
        orphans.root[0].block() * BLOCK + slot * size_of::<OrphanSlot>() as u64
    }

    pub fn orphan_slot(&self, slot: u64, ino: u64) {
        self.orphan_work(slot, ino, 0, (0, 0));
    }

    /// Makes slot `slot` one that says that `work` is to be done to the blocks `keys` of `ino`.
    pub fn orphan_work(&self, slot: u64, ino: u64, work: u32, keys: (u64, u64)) {
        let mut value = OrphanSlot {
            ino: U64::new(ino),
            crc: U32::ZERO,
            work: U32::new(work),
            from: U64::new(keys.0),
            to: U64::new(keys.1),
        };
        let crc = crc32c(crc32c(seed(), &ino.to_le_bytes()), &value.as_bytes()[12..]);
        value.crc = U32::new(crc32c(crc, &slot.to_le_bytes()));
        self.put(self.orphan_slot_at(slot), &value);
    }

    pub fn summary_at(&self, chunk: u64) -> u64 {
        self.get::<SuperBlock>(0).summary_block.get() * BLOCK + chunk * 8
    }

    pub fn bitmap_at(&self, chunk: u64) -> u64 {
        self.get::<SuperBlock>(0).bitmap_block.get() * BLOCK + chunk * 64
    }

    /// Changes the bitmap of a chunk and its summary, which first gets the right count.
    pub fn bitmap(&self, chunk: u64, change: impl FnOnce(&mut [u8; 64], &mut Summary)) {
        let mut bitmap: [u8; 64] = self.get(self.bitmap_at(chunk));
        let mut summary: Summary = self.get(self.summary_at(chunk));
        change(&mut bitmap, &mut summary);
        let mut crc = crc32c(seed(), &bitmap);
        crc = crc32c(crc, &summary.as_bytes()[4..]);
        summary.crc = U32::new(crc32c(crc, &chunk.to_le_bytes()));
        self.put(self.bitmap_at(chunk), &bitmap);
        self.put(self.summary_at(chunk), &summary);
    }

    /// Marks a block in use or free, with right counts everywhere.
    pub fn mark(&self, block: u64, used: bool) {
        self.bitmap(block / CHUNK_BLOCKS, |bitmap, summary| {
            let bit = (block % CHUNK_BLOCKS) as usize;
            assert_eq!((bitmap[bit / 8] >> (bit % 8)) & 1 == 0, used);
            bitmap[bit / 8] ^= 1 << (bit % 8);
            let free: u32 = bitmap.iter().map(|byte| byte.count_zeros()).sum();
            summary.free = U16::new(free as u16);
        });
        self.super_block(|sb| {
            let free = sb.free_blocks.get();
            sb.free_blocks = U64::new(if used { free - 1 } else { free + 1 });
        });
    }

    /// A block that nothing uses.
    pub fn free_block(&self) -> u64 {
        let chunks = self.get::<SuperBlock>(0).chunks.get();
        (0..chunks * CHUNK_BLOCKS)
            .find(|block| {
                let at = self.bitmap_at(block / CHUNK_BLOCKS) + block % CHUNK_BLOCKS / 8;
                (self.get::<u8>(at) >> (block % 8)) & 1 == 0
            })
            .unwrap()
    }

    /// Byte address of the only node of the tree of "file" or "many".
    pub fn node_at(&self, name: &str) -> u64 {
        let raw = self.raw(name);
        assert_eq!((raw.depth, raw.root_count.get()), (1, 1));
        raw.root[0].value.get() * BLOCK
    }

    /// All that the checker reports.
    pub fn problems(&self) -> Vec<Problem> {
        problems(&self.ram).1
    }

    /// Fails unless the checker reports exactly `expected`, in this order.
    #[track_caller]
    pub fn expect(&self, expected: &[Problem]) {
        let found = self.problems();
        assert_eq!(found, expected, "\nreported:\n{}", lines(&found));
    }
}

pub fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// Checks a volume that has superblocks to go by.
pub fn problems(pmem: &dyn Pmem) -> (check::Summary, Vec<Problem>) {
    let mut found = Vec::new();
    let summary = check::check(pmem, &mut |problem| found.push(problem)).expect("check");
    assert_eq!(summary.problems, found.len() as u64);
    (summary, found)
}

/// What the checksums of the volume begin with.
pub fn seed() -> u32 {
    crc32c(crc32c(0, &UUID), &HASH_KEY)
}

pub fn hash(name: &[u8]) -> u64 {
    (siphash24(&HASH_KEY, name) >> 12).max(1)
}

/// A problem without an inode.
pub fn problem(what: Structure, at: u64, kind: Kind) -> Problem {
    Problem {
        what,
        at,
        ino: None,
        name: None,
        kind,
    }
}

/// A problem of an inode.
pub fn of(ino: u64, what: Structure, at: u64, kind: Kind) -> Problem {
    Problem {
        ino: Some(ino),
        ..problem(what, at, kind)
    }
}

/// A problem of a directory entry.
pub fn entry(dir: u64, at: u64, name: &[u8], kind: Kind) -> Problem {
    Problem {
        name: Some(Name::new(name)),
        ..of(dir, Structure::DirLeaf, at, kind)
    }
}

/// What a leaf entry says.
pub trait Parts {
    fn block(&self) -> u64;
    fn of(key: u64, block: u64, len: u64) -> Self;
}

impl Parts for Extent {
    fn block(&self) -> u64 {
        self.value.get() & ((1 << 40) - 1)
    }

    fn of(key: u64, block: u64, len: u64) -> Self {
        Extent {
            key: U64::new(key),
            value: U64::new((len << 40) | block),
        }
    }
}

impl Bed {
    /// Another volume than the usual one, without named inodes.
    pub fn on(ram: Ram) -> Bed {
        Bed {
            ram,
            at: Default::default(),
        }
    }
}
