// SPDX-License-Identifier: GPL-2.0

//! One node of an extent tree: the entries of a root or of a block, read and verified.
//!
//! A node is not trusted before its checksum is valid, it names this tree and this place in it, and
//! its entries are in order, inside the keys that its parent promised, and point into the blocks
//! that files may own.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::{Around, Mapping};
use crate::env;
use crate::volume::error::{Error, Result, Structure};
use crate::volume::format::{
    Extent, NodeHeader, RawInode, BLOCK, EXTENT_MAX, KEY_BITS, NODE_EXTENTS, NODE_MAGIC,
    ROOT_EXTENTS,
};
use crate::volume::index::Index;
use crate::volume::num::{to_u16, to_usize};
use crate::volume::pmem::Pmem;
use crate::volume::super_block::Geometry;
use crate::volume::Volume;

/// The first key that no entry can have.
pub const KEY_END: u64 = 1 << KEY_BITS;
/// Bits of `Extent::value` that hold the block; the length lies above.
const BLOCK_BITS: u32 = 40;
/// The bit of `Extent::value` that says that the blocks are unwritten.
const UNWRITTEN: u64 = 1 << 63;
/// Bytes of a node's header.
const HEADER: usize = size_of::<NodeHeader>();
/// Bytes of the checksum, with which a node begins.
const CRC: usize = size_of::<U32>();
/// Bytes of an entry.
const ENTRY: usize = size_of::<Extent>();
/// No entry: the identity of `min` and `max`.
const NO_CHANGE: (usize, usize) = (usize::MAX, 0);
/// Entries that [`scan`] holds on the stack at a time.
const BATCH: usize = 32;

/// Where metadata is read from: the memory, and the blocks that files may own.
pub struct Media<'a, P> {
    /// The device.
    pub pmem: &'a P,
    /// The layout of the device.
    pub geo: &'a Geometry,
}

impl<'a, P: Pmem> Media<'a, P> {
    /// The media of `vol`.
    pub fn of(vol: &'a Volume<P>) -> Self {
        Media {
            pmem: vol.pmem(),
            geo: vol.geometry(),
        }
    }
}

impl<P> Clone for Media<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Media<'_, P> {}

/// The inode that a tree belongs to, as recorded in its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The inode number.
    pub ino: u64,
    /// The inode's generation.
    pub generation: u32,
}

/// What a node must be, given the entry that points to it.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// Its block.
    pub block: u64,
    /// Its height above the leaves.
    pub level: u16,
    /// Whose it is.
    pub owner: Owner,
    /// Its first key, and the first key it must not reach.
    pub keys: (u64, u64),
}

impl Expect {
    /// The error for this node.
    pub fn corrupt(&self) -> Error {
        Error::Corrupt {
            what: Structure::ExtentNode,
            at: self.block.saturating_mul(BLOCK),
        }
    }
}

/// The entry of a leaf for `m`.
pub fn pack(m: Mapping) -> Extent {
    Extent {
        key: U64::new(m.key),
        value: U64::new((m.len << BLOCK_BITS) | m.block | if m.unwritten { UNWRITTEN } else { 0 }),
    }
}

/// What the entry of a leaf says. Not verified.
pub fn unpack(e: &Extent) -> Mapping {
    let value = e.value.get();
    Mapping {
        key: e.key.get(),
        block: value & ((1 << BLOCK_BITS) - 1),
        len: (value & !UNWRITTEN) >> BLOCK_BITS,
        unwritten: value & UNWRITTEN != 0,
    }
}

/// Verifies the entries of one node one after the other.
struct Order {
    leaf: bool,
    /// The first key that the next entry may have.
    from: u64,
    /// The first key that no entry may reach.
    to: u64,
}

impl Order {
    fn accept<P>(&mut self, media: &Media<'_, P>, e: &Extent) -> bool {
        let key = e.key.get();
        if key < self.from || key >= self.to {
            return false;
        }
        let (block, len) = if self.leaf {
            let m = unpack(e);
            (m.block, m.len)
        } else {
            (e.value.get(), 1)
        };
        if len == 0 || len > EXTENT_MAX || len > self.to - key || !media.geo.is_data(block, len) {
            return false;
        }
        self.from = key + if self.leaf { len } else { 1 };
        true
    }
}

/// Shows the verified entries of the root in `raw` to `visit`, and returns how many there are.
/// `at` is the byte address of the inode, for the error.
pub fn scan_root<P: Pmem>(
    media: &Media<'_, P>,
    raw: &RawInode,
    at: u64,
    visit: &mut impl FnMut(usize, &Extent),
) -> Result<usize> {
    let corrupt = Error::Corrupt {
        what: Structure::Inode,
        at,
    };
    let count = usize::from(raw.root_count.get());
    if count > ROOT_EXTENTS
        || usize::from(raw.depth) > super::MAX_DEPTH
        || (raw.depth > 0 && count == 0)
    {
        return Err(corrupt);
    }
    let mut order = Order {
        leaf: raw.depth == 0,
        from: 0,
        to: KEY_END,
    };
    for (i, e) in raw.root.iter().take(count).enumerate() {
        if !order.accept(media, e) {
            return Err(corrupt);
        }
        visit(i, e);
    }
    Ok(count)
}

/// Reads and verifies the node that `expect` describes. Shows its entries to `visit`, which must
/// not act on them before this returns: only then does the checksum hold. Returns how many there
/// are, at least one.
pub fn scan<P: Pmem>(
    media: &Media<'_, P>,
    expect: &Expect,
    visit: &mut impl FnMut(usize, &Extent),
) -> Result<usize> {
    if !media.geo.is_data(expect.block, 1) {
        return Err(expect.corrupt());
    }
    let at = expect.block * BLOCK;
    let mut header = [0u8; HEADER];
    media.pmem.read(at, &mut header)?;
    let count = check_header(&header, expect)?;
    let mut crc = env::crc32c(media.geo.seed, &header[CRC..]);
    let mut order = Order {
        leaf: expect.level == 0,
        from: expect.keys.0,
        to: expect.keys.1,
    };
    let mut batch = [Extent::default(); BATCH];
    let mut done = 0;
    while done < count {
        let n = (count - done).min(BATCH);
        let entries = &mut batch[..n];
        media
            .pmem
            .read(at + (HEADER + done * ENTRY) as u64, entries.as_mut_bytes())?;
        crc = env::crc32c(crc, entries.as_bytes());
        for (i, e) in entries.iter().enumerate() {
            let first = done + i == 0;
            if !order.accept(media, e) || (first && e.key.get() != expect.keys.0) {
                return Err(expect.corrupt());
            }
            visit(done + i, e);
        }
        done += n;
    }
    if crc != stored_crc(&header) {
        return Err(expect.corrupt());
    }
    Ok(count)
}

/// The number of entries that a node's header says, if the header is that of `expect`.
fn check_header(bytes: &[u8; HEADER], expect: &Expect) -> Result<usize> {
    let h = NodeHeader::ref_from_bytes(bytes).map_err(|_| expect.corrupt())?;
    let count = usize::from(h.count.get());
    if h.magic.get() != NODE_MAGIC
        || count == 0
        || count > NODE_EXTENTS
        || h.level.get() != expect.level
        || h.generation.get() != expect.owner.generation
        || h.owner.get() != expect.owner.ino
        || h.block.get() != expect.block
    {
        return Err(expect.corrupt());
    }
    Ok(count)
}

fn stored_crc(header: &[u8; HEADER]) -> u32 {
    u32::from_le_bytes([header[0], header[1], header[2], header[3]])
}

/// The nodes of one tree that were read, in DRAM: each is verified once. A node that is not cached
/// is read; without memory for it, it is read each time.
///
/// A change of the tree removes the nodes that it touches before it logs how they change, and puts
/// the changed nodes back after the commit. In between, nothing of the tree is read.
#[derive(Debug, Default)]
pub struct Nodes {
    nodes: Index<Node>,
    /// The root was verified.
    root: bool,
}

impl Nodes {
    /// Whether no node is cached.
    pub fn is_unknown(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Shows the entries of the root in `raw`, an inode at byte address `at`, to `around`. Returns
    /// how many there are.
    pub fn search_root<P: Pmem>(
        &mut self,
        media: &Media<'_, P>,
        raw: &RawInode,
        at: u64,
        around: &mut Around,
    ) -> Result<usize> {
        if !self.root {
            scan_root(media, raw, at, &mut |_, _| ())?;
            self.root = true;
        }
        let count = usize::from(raw.root_count.get());
        for (i, e) in raw.root.iter().take(count).enumerate() {
            around.visit(i, e);
        }
        Ok(count)
    }

    /// Shows the entries of the node that `expect` describes to `around`: those that matter to it.
    /// Returns how many there are.
    pub fn search<P: Pmem>(
        &mut self,
        media: &Media<'_, P>,
        expect: &Expect,
        around: &mut Around,
    ) -> Result<usize> {
        if let Some(node) = self.known(expect)? {
            node.search(around);
            return Ok(node.count);
        }
        match Node::load(media, expect) {
            Ok(node) => {
                node.search(around);
                let count = node.count;
                self.keep(node);
                Ok(count)
            }
            Err(Error::NoMemory) => scan(media, expect, &mut |i, e| around.visit(i, e)),
            Err(error) => Err(error),
        }
    }

    /// Shows all entries of the node that `expect` describes to `visit`, as [`scan`] does.
    pub fn scan<P: Pmem>(
        &self,
        media: &Media<'_, P>,
        expect: &Expect,
        visit: &mut impl FnMut(usize, &Extent),
    ) -> Result<usize> {
        let Some(node) = self.known(expect)? else {
            return scan(media, expect, visit);
        };
        (0..node.count).for_each(|i| visit(i, &node.get(i)));
        Ok(node.count)
    }

    /// The node that `expect` describes, if it is cached.
    fn known(&self, expect: &Expect) -> Result<Option<&Node>> {
        match self.nodes.get(expect.block) {
            Some(node) if node.get(0).key.get() != expect.keys.0 => Err(expect.corrupt()),
            node => Ok(node),
        }
    }

    /// Removes the node that `expect` describes, to change it.
    pub fn take<P: Pmem>(&mut self, media: &Media<'_, P>, expect: &Expect) -> Result<Node> {
        match self.forget(expect.block) {
            Some(node) => Ok(node),
            None => Node::load(media, expect),
        }
    }

    /// Forgets the node in `block`, which is about to change, or to be freed.
    pub fn forget(&mut self, block: u64) -> Option<Node> {
        self.nodes.remove(block, |_| true)
    }

    /// Adds a node as it is on the media now.
    pub fn keep(&mut self, node: Node) {
        self.forget(node.block);
        // Without memory it is read again.
        let _ = self.nodes.insert(node.block, node);
    }
}

/// A node in DRAM that is being changed. It is written with [`Node::changes`], or whole with
/// [`Node::bytes`] if nothing points to its block yet.
#[derive(Debug)]
pub struct Node {
    block: u64,
    /// The seed of its checksum.
    seed: u32,
    buf: env::Vec<u8>,
    count: usize,
    /// The entries that may differ from the media: first and end, `NO_CHANGE` if none.
    changed: (usize, usize),
}

impl Node {
    /// A node of a volume of this `seed` that is not on the media yet, with room for all entries
    /// and none in it.
    pub fn new(block: u64, level: u16, owner: Owner, seed: u32) -> Result<Node> {
        let mut node = Node {
            block,
            seed,
            buf: env::Vec::zeroed(to_usize(BLOCK))?,
            count: 0,
            changed: NO_CHANGE,
        };
        let header = NodeHeader {
            crc: U32::ZERO,
            magic: U16::new(NODE_MAGIC),
            count: U16::ZERO,
            level: U16::new(level),
            reserved0: U16::ZERO,
            generation: U32::new(owner.generation),
            owner: U64::new(owner.ino),
            block: U64::new(block),
            reserved: [0; 32],
        };
        node.buf[..HEADER].copy_from_slice(header.as_bytes());
        Ok(node)
    }

    /// Reads and verifies the node that `expect` describes.
    pub fn load<P: Pmem>(media: &Media<'_, P>, expect: &Expect) -> Result<Node> {
        let mut node = Node::new(expect.block, expect.level, expect.owner, media.geo.seed)?;
        let buf = &mut node.buf;
        node.count = scan(media, expect, &mut |i, e| {
            let at = HEADER + i * ENTRY;
            buf[at..at + ENTRY].copy_from_slice(e.as_bytes());
        })?;
        // Including its reserved bytes.
        media.pmem.read(expect.block * BLOCK, &mut buf[..HEADER])?;
        Ok(node)
    }

    /// Entries in use.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Entry `i`, which must be below [`Node::count`].
    pub fn get(&self, i: usize) -> Extent {
        let mut e = Extent::default();
        let at = HEADER + i * ENTRY;
        e.as_mut_bytes().copy_from_slice(&self.buf[at..at + ENTRY]);
        e
    }

    /// Shows `around` the last entry whose key is not above its own, or else the first, and the one
    /// after that.
    fn search(&self, around: &mut Around) {
        let (mut from, mut to) = (0, self.count);
        while to - from > 1 {
            let middle = from + (to - from) / 2;
            if self.get(middle).key.get() <= around.key() {
                from = middle;
            } else {
                to = middle;
            }
        }
        for i in from..self.count.min(from + 2) {
            around.visit(i, &self.get(i));
        }
    }

    /// Removes `remove` entries from entry `at` on and inserts `add` there. The caller has made
    /// sure that they exist and that there is room.
    pub fn splice(&mut self, at: usize, remove: usize, add: &[Extent]) {
        let tail = HEADER + (at + remove) * ENTRY..HEADER + self.count * ENTRY;
        let count = self.count - remove + add.len();
        self.buf
            .copy_within(tail, HEADER + (at + add.len()) * ENTRY);
        let gap = HEADER + at * ENTRY;
        self.buf[gap..gap + size_of_val(add)].copy_from_slice(add.as_bytes());
        let end = if remove == add.len() {
            at + remove
        } else {
            count
        };
        self.changed = (self.changed.0.min(at), self.changed.1.max(end).min(count));
        self.count = count;
    }

    /// Moves the entries of `left` from entry `keep` on to the end of this node. The caller has
    /// made sure that there is room.
    pub fn take_tail(&mut self, left: &mut Node, keep: usize) {
        let moved = left.count - keep;
        let from = HEADER + keep * ENTRY;
        let to = HEADER + self.count * ENTRY;
        let len = moved * ENTRY;
        self.buf[to..to + len].copy_from_slice(&left.buf[from..from + len]);
        self.count += moved;
        left.count = keep;
        left.changed.1 = left.changed.1.min(keep);
    }

    /// All bytes in use, with the checksum: for a block that nothing points to yet.
    pub fn bytes(&mut self) -> &[u8] {
        self.seal();
        &self.buf[..HEADER + self.count * ENTRY]
    }

    /// Sets the checksum and passes the differences from the media to `write`, as byte addresses
    /// and bytes.
    pub fn changes(&mut self, write: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.seal();
        let at = self.block * BLOCK;
        let (first, end) = core::mem::replace(&mut self.changed, NO_CHANGE);
        // The checksum, the magic and the count are the first eight bytes.
        write(at, &self.buf[..8])?;
        if first >= end {
            return Ok(());
        }
        let (from, to) = (HEADER + first * ENTRY, HEADER + end * ENTRY);
        write(at + from as u64, &self.buf[from..to])
    }

    fn seal(&mut self) {
        let count = to_u16(self.count).to_le_bytes();
        self.buf[6..8].copy_from_slice(&count);
        let crc = env::crc32c(self.seed, &self.buf[CRC..HEADER + self.count * ENTRY]);
        self.buf[..CRC].copy_from_slice(&crc.to_le_bytes());
    }
}
