// SPDX-License-Identifier: GPL-2.0

//! Extent trees: sorted maps from a 52-bit key to blocks, in the inode and in nodes of one block.
//!
//! Files use them from file block to blocks, and neighbours merge. Directories use them from the
//! smallest hash of a leaf to its block: one block each, never merged. The inode table and the
//! orphan file are files.
//!
//! The tree is a B+tree. The key of an entry of an index node is exactly the smallest key below, so
//! that a search for the greatest key not above a given one ([`lookup`]) needs one path. Nodes are
//! split when they are full and freed when they are empty; they are not merged, and a tree is as
//! deep as it once had to be until it is empty.
//!
//! A change of the tree touches each node at most once, so that it can be built from the media: one
//! leaf, the keys above it if its first key changes, and the nodes above it that become empty.
//! Splits, which need more, are done before in separate transactions that change no mapping
//! ([`make_room`]).
//!
//! Callers are the other modules of the volume. Reading a tree requires at least shared access to
//! its inode, changing it exclusive access until the transaction is committed.

mod edit;
mod node;
mod range;
mod rebuild;

use super::error::{Error, Result};
use super::format::{Extent, RawInode};
use super::inode::Inode;
use super::num::to_u16;
use super::pmem::Pmem;

pub use edit::{add_blocks, insert, joins, make_room, mark, sub_blocks, Edited};
pub use node::{pack, scan, scan_root, unpack, Expect, Media, Nodes, Owner, KEY_END};
pub use range::{cut, fill, holes, unwrite, verify};
pub use rebuild::{read_whole, replace, Whole};

/// The most levels of nodes below a root. A root of eight and nodes of 252 entries would hold more
/// extents than the largest device has blocks at a depth of five.
pub const MAX_DEPTH: usize = 7;

/// An extent: `len` blocks from `block`, for the keys from `key` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First key: a file block or a hash.
    pub key: u64,
    /// First block on the device.
    pub block: u64,
    /// Blocks, 1 to [`super::format::EXTENT_MAX`].
    pub len: u64,
    /// The blocks belong to the file, but hold no data yet: they read as zeros. Only in the trees
    /// of regular files.
    pub unwritten: bool,
}

impl Mapping {
    /// An extent that is written.
    pub fn new(key: u64, block: u64, len: u64) -> Mapping {
        Mapping {
            key,
            block,
            len,
            unwritten: false,
        }
    }

    /// The first key after this extent.
    pub fn end(&self) -> u64 {
        self.key + self.len
    }

    /// The part of it from key `from` up to `to`, which lie in it.
    pub fn part(&self, from: u64, to: u64) -> Mapping {
        Mapping {
            key: from,
            block: self.block + (from - self.key),
            len: to - from,
            ..*self
        }
    }
}

/// The mappings around a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The extent with the greatest key not above the given one. It may end before that key.
    pub floor: Option<Mapping>,
    /// The key of the extent after that.
    pub next: Option<u64>,
    /// That extent, if it is in the same leaf.
    pub after: Option<Mapping>,
}

/// The place of a path in one node. (Small: a path lies on the kernel's stack.)
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The node's block; meaningless for the root.
    block: u64,
    /// The node's first key, and the first key it must not reach.
    keys: (u64, u64),
    /// The entry that the path takes; in the leaf, the floor. The first entry if all keys are
    /// above.
    index: u16,
    /// Entries in the node.
    count: u16,
}

impl Step {
    fn index(&self) -> usize {
        usize::from(self.index)
    }

    fn count(&self) -> usize {
        usize::from(self.count)
    }
}

/// A path from the root to the leaf where a key belongs.
struct Path {
    steps: [Step; MAX_DEPTH + 1],
    /// Index of the leaf in `steps`: the tree's depth.
    leaf: usize,
    owner: Owner,
    /// The floor is below the path: entry `index` of each node has a greater key.
    before: bool,
    found: Found,
}

impl Path {
    fn leaf(&self) -> &Step {
        &self.steps[self.leaf]
    }

    /// What the node `level` steps below the root must be.
    fn expect(&self, level: usize) -> Expect {
        Expect {
            block: self.steps[level].block,
            level: to_u16(self.leaf - level),
            owner: self.owner,
            keys: self.steps[level].keys,
        }
    }

    /// Shows the entries of the leaf of this path, in the tree of `inode`, to `visit`, as [`scan`]
    /// does.
    fn scan_leaf<P: Pmem>(
        &self,
        media: &Media<'_, P>,
        inode: &Inode,
        visit: &mut impl FnMut(usize, &Extent),
    ) -> Result<usize> {
        match self.leaf {
            0 => scan_root(media, &inode.raw, inode.at, visit),
            _ => inode.nodes.scan(media, &self.expect(self.leaf), visit),
        }
    }

    /// The position in its leaf of an extent with the path's key.
    fn position(&self) -> usize {
        if self.before {
            0
        } else {
            self.leaf().index() + 1
        }
    }
}

/// Collects the entries around `key` from a node.
pub struct Around {
    key: u64,
    /// Index and entry of the floor, or of the first entry.
    at: (u16, Extent),
    /// The entry after that.
    next: Option<Extent>,
    before: bool,
}

impl Around {
    fn new(key: u64) -> Around {
        Around {
            key,
            at: (0, Extent::default()),
            next: None,
            before: false,
        }
    }

    fn key(&self) -> u64 {
        self.key
    }

    fn visit(&mut self, i: usize, e: &Extent) {
        // The first one shown may not be the first of the node, but then its key is not above
        // `key`.
        if i == 0 || e.key.get() <= self.key {
            self.at = (to_u16(i), *e);
            self.before = e.key.get() > self.key;
        } else if self.next.is_none() {
            self.next = Some(*e);
        }
    }
}

impl Around {
    /// What the node must be to which the entry found leads, `level` above the leaves of its tree.
    /// `end` is the first key that the node with the entry must not reach.
    fn below(&self, level: u8, owner: Owner, end: u64) -> Expect {
        Expect {
            block: self.at.1.value.get(),
            level: u16::from(level),
            owner,
            keys: (self.at.1.key.get(), self.next.map_or(end, |e| e.key.get())),
        }
    }
}

/// How the nodes of an inode's tree name it.
fn owner(raw: &RawInode) -> Owner {
    Owner {
        ino: raw.ino.get(),
        generation: raw.generation.get(),
    }
}

impl Path {
    /// An empty path: [`Path::descend`] fills it in place, since it is large.
    #[inline]
    fn new(raw: &RawInode) -> Path {
        Path {
            steps: [Step {
                block: 0,
                keys: (0, KEY_END),
                index: 0,
                count: 0,
            }; MAX_DEPTH + 1],
            leaf: usize::from(raw.depth),
            owner: owner(raw),
            before: true,
            found: Found {
                floor: None,
                next: None,
                after: None,
            },
        }
    }

    /// Walks from the root of `inode` to the leaf where `key` belongs.
    fn to<P: Pmem>(media: &Media<'_, P>, inode: &mut Inode, key: u64) -> Result<Path> {
        let mut path = Path::new(&inode.raw);
        path.descend(media, Some(&mut inode.nodes), &inode.raw, inode.at, key)?;
        Ok(path)
    }

    /// Walks from the root in `raw`, an inode at byte address `at`, to the leaf where `key`
    /// belongs. With `nodes`, does not read the parts of this tree again that were read before.
    fn descend<P: Pmem>(
        &mut self,
        media: &Media<'_, P>,
        mut nodes: Option<&mut Nodes>,
        raw: &RawInode,
        at: u64,
        key: u64,
    ) -> Result<()> {
        let mut around = Around::new(key);
        let count = search_root(media, &mut nodes, raw, at, &mut around)?;
        (self.steps[0].index, self.steps[0].count) = (around.at.0, to_u16(count));
        self.before = count == 0 || around.before;
        for level in 1..=self.leaf {
            let end = self.steps[level - 1].keys.1;
            let step = &mut self.steps[level];
            step.block = around.at.1.value.get();
            step.keys = (
                around.at.1.key.get(),
                around.next.map_or(end, |e| e.key.get()),
            );
            around = Around::new(key);
            let expect = self.expect(level);
            let count = search(media, &mut nodes, &expect, &mut around)?;
            self.steps[level].index = around.at.0;
            self.steps[level].count = to_u16(count);
        }
        let floor = (!self.before).then(|| unpack(&around.at.1));
        let after = if !self.before {
            around.next.map(|e| unpack(&e))
        } else if self.leaf().count() > 0 {
            Some(unpack(&around.at.1))
        } else {
            None
        };
        // The bound of a leaf is the key of the next leaf, and the end of all keys in the last.
        let end = self.leaf().keys.1;
        let bound = (end != KEY_END).then_some(end);
        self.found = Found {
            floor,
            next: after.map(|m| m.key).or(bound),
            after,
        };
        Ok(())
    }
}

/// Shows the entries of the root in `raw`, an inode at byte address `at`, to `around`; from
/// `nodes`, if they are given. Returns how many there are.
#[inline]
fn search_root<P: Pmem>(
    media: &Media<'_, P>,
    nodes: &mut Option<&mut Nodes>,
    raw: &RawInode,
    at: u64,
    around: &mut Around,
) -> Result<usize> {
    match nodes {
        Some(nodes) => nodes.search_root(media, raw, at, around),
        None => scan_root(media, raw, at, &mut |i, e| around.visit(i, e)),
    }
}

/// Shows entries of the node that `expect` describes to `around`: at least those that matter to it.
/// Returns how many there are in it.
#[inline]
fn search<P: Pmem>(
    media: &Media<'_, P>,
    nodes: &mut Option<&mut Nodes>,
    expect: &Expect,
    around: &mut Around,
) -> Result<usize> {
    match nodes {
        Some(nodes) => nodes.search(media, expect, around),
        None => scan(media, expect, &mut |i, e| around.visit(i, e)),
    }
}

/// The extents around `key` in the tree of `raw`, an inode at byte address `at`. With `nodes`, does
/// not read the parts of this tree again that were read before.
///
/// Fails with [`Error::Corrupt`] if a node on the path does, and with [`Error::Invalid`] if `key`
/// is no key.
pub fn lookup<P: Pmem>(
    media: &Media<'_, P>,
    mut nodes: Option<&mut Nodes>,
    raw: &RawInode,
    at: u64,
    key: u64,
) -> Result<Found> {
    if key >= KEY_END {
        return Err(Error::Invalid);
    }
    let mut around = Around::new(key);
    let mut count = search_root(media, &mut nodes, raw, at, &mut around)?;
    let mut end = KEY_END;
    for level in (0..raw.depth).rev() {
        let expect = around.below(level, owner(raw), end);
        end = expect.keys.1;
        around = Around::new(key);
        count = search(media, &mut nodes, &expect, &mut around)?;
    }
    let bound = (end != KEY_END).then_some(end);
    let at = (count > 0).then(|| unpack(&around.at.1));
    let (floor, after) = match around.before {
        true => (None, at),
        false => (at, around.next.map(|e| unpack(&e))),
    };
    Ok(Found {
        floor,
        next: after.map(|m| m.key).or(bound),
        after,
    })
}
