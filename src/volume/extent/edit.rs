// SPDX-License-Identifier: GPL-2.0

//! Changes of an extent tree, and the splits that make room for them.

use zerocopy::little_endian::{U16, U64};

use super::node::{pack, scan_root, unpack, Media, Node, Nodes, KEY_END};
use super::{owner, Mapping, Path, MAX_DEPTH};
use crate::volume::alloc::{Want, RUNS_MAX};
use crate::volume::error::{Error, Result};
use crate::volume::format::{
    Extent, RawInode, BLOCK, EXTENT_MAX, NODE_EXTENTS, ORPHAN_INO, ROOT_EXTENTS,
};
use crate::volume::inode::Inode;
use crate::volume::journal::Tx;
use crate::volume::num::to_u16;
use crate::volume::pmem::Pmem;
use crate::volume::super_block::Geometry;
use crate::volume::Volume;

/// Entries removed from a node and put in their place.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) at: usize,
    pub(super) remove: usize,
    pub(super) add: &'a [Extent],
}

impl Change<'_> {
    /// How many entries a node of `count` has afterwards; `None` if the change does not apply to
    /// it.
    fn count(&self, count: usize) -> Option<usize> {
        let kept = count.checked_sub(self.remove)?;
        (self.at <= kept).then_some(kept + self.add.len())
    }
}

/// The most entries that a change adds: a mapping of each run, and those of an extent that is cut
/// into three.
const ADD_MAX: usize = RUNS_MAX;

/// A change being assembled, of at most [`ADD_MAX`] new entries.
pub(super) struct Small {
    pub(super) at: usize,
    pub(super) remove: usize,
    add: [Extent; ADD_MAX],
    added: usize,
}

impl Small {
    /// A change that begins at entry `at` and removes `remove` entries.
    pub(super) fn new(at: usize, remove: usize) -> Self {
        Small {
            at,
            remove,
            add: [Extent::default(); ADD_MAX],
            added: 0,
        }
    }

    /// Adds an extent after those added before, at most [`ADD_MAX`].
    pub(super) fn push(&mut self, m: Mapping) {
        if let Some(e) = self.add.get_mut(self.added) {
            *e = pack(m);
            self.added += 1;
        }
    }

    pub(super) fn change(&self) -> Change<'_> {
        Change {
            at: self.at,
            remove: self.remove,
            add: &self.add[..self.added],
        }
    }
}

/// Replaces entries of the root in `raw`.
fn splice_root(raw: &mut RawInode, change: &Change<'_>) -> Result<()> {
    let old = usize::from(raw.root_count.get()).min(ROOT_EXTENTS);
    let count = change.count(old).ok_or(Error::Invalid)?;
    if count > ROOT_EXTENTS {
        return Err(Error::Invalid);
    }
    let end = change.at + change.add.len();
    raw.root.copy_within(change.at + change.remove..old, end);
    raw.root[change.at..end].copy_from_slice(change.add);
    if count < old {
        raw.root[count..old].fill(Extent::default());
    }
    raw.root_count = U16::new(to_u16(count));
    if count == 0 {
        raw.depth = 0;
    }
    Ok(())
}

/// A leaf that a transaction changes: to be [kept](Inode::keep) once that is committed.
pub struct Edited(Option<Node>);

impl Edited {
    /// No leaf was changed.
    pub(super) const NONE: Edited = Edited(None);

    /// From now on it is cached.
    pub fn keep_in(self, nodes: &mut Nodes) {
        if let Some(node) = self.0 {
            nodes.keep(node);
        }
    }
}

/// Replaces entries of the leaf that `path` leads to, and propagates its new first key, or its
/// removal, up the path. A node is touched at most once.
///
/// Fails with [`Error::Invalid`] if the leaf has no room: [`make_room`] was not called.
pub(super) fn splice<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    inode: &mut Inode,
    path: &Path,
    change: &Change<'_>,
) -> Result<Edited> {
    let mut change = *change;
    let mut edited = Edited::NONE;
    let mut carries;
    for level in (1..=path.leaf).rev() {
        let step = &path.steps[level];
        let count = change.count(step.count()).ok_or(Error::Invalid)?;
        let above = path.steps[level - 1].index();
        if count == 0 {
            inode.nodes.forget(step.block);
            tx.free(step.block, 1)?;
            sub_blocks(&mut inode.raw, 1);
            change = Change {
                at: above,
                remove: 1,
                add: &[],
            };
            continue;
        }
        if count > NODE_EXTENTS {
            return Err(Error::Invalid);
        }
        let mut node = inode.nodes.take(media, &path.expect(level))?;
        node.splice(change.at, change.remove, change.add);
        node.changes(&mut |at, bytes| tx.write(at, bytes))?;
        let first = node.get(0).key;
        edited.0.get_or_insert(node);
        if first.get() == step.keys.0 {
            return Ok(edited);
        }
        carries = [Extent {
            key: first,
            value: U64::new(step.block),
        }];
        change = Change {
            at: above,
            remove: 1,
            add: &carries,
        };
    }
    splice_root(&mut inode.raw, &change)?;
    Ok(edited)
}

/// Adds `n` to the blocks in use of an inode.
pub fn add_blocks(raw: &mut RawInode, n: u64) {
    // Both are below 2^41 on any device; a damaged count must not stop the kernel.
    raw.blocks = U64::new(raw.blocks.get().saturating_add(n));
}

/// Takes `n` from the blocks in use of an inode.
pub fn sub_blocks(raw: &mut RawInode, n: u64) {
    raw.blocks = U64::new(raw.blocks.get().saturating_sub(n));
}

/// Whether `b` continues `a`, also on the media, and one entry can hold both.
pub fn joins(a: &Mapping, b: &Mapping) -> bool {
    a.end() == b.key
        && a.block + a.len == b.block
        && a.unwritten == b.unwritten
        && a.len + b.len <= EXTENT_MAX
}

/// Merges `new`, which `change` is about to add, with its neighbours if they continue each other:
/// their entries are removed, and `new` gets their blocks as well.
fn merge(change: &mut Small, new: &mut Mapping, before: Option<Mapping>, after: Option<Mapping>) {
    if let Some(before) = before.filter(|b| joins(b, new)) {
        *new = Mapping {
            len: before.len + new.len,
            ..before
        };
        change.at -= 1;
        change.remove += 1;
    }
    if let Some(after) = after.filter(|a| joins(new, a)) {
        new.len += after.len;
        change.remove += 1;
    }
}

/// Whether `m` is a valid extent.
pub(super) fn is_possible(m: &Mapping, geo: &Geometry) -> bool {
    m.key < KEY_END
        && (1..=EXTENT_MAX.min(KEY_END - m.key)).contains(&m.len)
        && geo.is_data(m.block, m.len)
}

/// Inserts `first` and `others`, at most [`RUNS_MAX`] extents with consecutive keys, into the tree
/// of `inode`, and counts their blocks. With `join`, merges them with each other and with
/// neighbours in the same node if they continue each other.
///
/// Fails with [`Error::Exists`] if one of their keys is mapped, [`Error::Invalid`] if one is no
/// valid extent or there is no room because [`make_room`] was not called for the first key. After
/// an error the transaction must be dropped, and `inode` restored.
pub fn insert<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    inode: &mut Inode,
    first: Mapping,
    others: &[Mapping],
    join: bool,
) -> Result<Edited> {
    let new = core::iter::once(&first).chain(others);
    if !new.clone().all(|m| is_possible(m, media.geo)) {
        return Err(Error::Invalid);
    }
    let last = others.last().unwrap_or(&first);
    let path = Path::to(media, inode, first.key)?;
    let floor = path.found.floor;
    if floor.is_some_and(|f| f.end() > first.key) || path.found.next.is_some_and(|n| n < last.end())
    {
        return Err(Error::Exists);
    }
    let mut change = Small::new(path.position(), 0);
    let mut m = first;
    if join {
        merge(&mut change, &mut m, floor, None);
    }
    for other in others {
        if join && joins(&m, other) {
            m.len += other.len;
        } else {
            change.push(m);
            m = *other;
        }
    }
    if join {
        merge(&mut change, &mut m, None, path.found.after);
    }
    change.push(m);
    let edited = splice(tx, media, inode, &path, &change.change())?;
    add_blocks(&mut inode.raw, new.map(|m| m.len).sum());
    Ok(edited)
}

/// Makes the keys `from..to`, which are unwritten and in one extent of the tree of `inode`, data.
/// Merges them with neighbours in the same node if they continue each other.
///
/// The part before and the part after may need two more entries: [`make_room`] must have been
/// called for `from`. Fails with [`Error::Exists`] if the keys are not in one extent, or are data
/// already. After an error the transaction must be dropped, and `inode` restored.
pub fn mark<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    inode: &mut Inode,
    (from, to): (u64, u64),
) -> Result<Edited> {
    let path = Path::to(media, inode, from)?;
    let whole = |m: &Mapping| from < to && to <= m.end() && m.unwritten;
    let old = path.found.floor.filter(whole).ok_or(Error::Exists)?;
    let index = path.leaf().index();
    let mut before = None;
    let mut visit = |i: usize, e: &Extent| {
        if i + 1 == index {
            before = Some(unpack(e));
        }
    };
    path.scan_leaf(media, inode, &mut visit)?;
    let mut new = Mapping {
        unwritten: false,
        ..old.part(from, to)
    };
    let mut change = Small::new(index, 1);
    if from > old.key {
        change.push(old.part(old.key, from));
    }
    merge(&mut change, &mut new, before, path.found.after);
    change.push(new);
    if to < old.end() {
        change.push(old.part(to, old.end()));
    }
    splice(tx, media, inode, &path, &change.change())
}

/// Splits nodes, each in a separate transaction, until the leaf where `key` belongs has room for
/// `need` more entries, at most half of a node. No mapping changes. Returns the first key beyond
/// the leaf.
///
/// Fails with [`Error::NoSpace`] if there is no block for a node; what was split until then stays.
pub fn make_room<P: Pmem>(
    vol: &Volume<P>,
    inode: &mut Inode,
    key: u64,
    need: usize,
) -> Result<u64> {
    let raw = inode.raw();
    if raw.depth == 0 && usize::from(raw.root_count.get()) + need <= ROOT_EXTENTS {
        return Ok(KEY_END);
    }
    let media = Media::of(vol);
    // Each round but the last splits or adds one level.
    for _ in 0..2 * MAX_DEPTH + 2 {
        let path = Path::to(&media, inode, key)?;
        if path.leaf().count() + need <= capacity(path.leaf) {
            return Ok(path.leaf().keys.1);
        }
        // The lowest node on the path whose parent has room for one more.
        let mut level = path.leaf;
        while level > 0 && path.steps[level - 1].count() >= capacity(level - 1) {
            level -= 1;
        }
        if level == 0 {
            grow(vol, &media, inode)?;
        } else {
            split(vol, &media, inode, &path, level)?;
        }
    }
    Err(Error::NoSpace)
}

/// Entries that a node `level` steps below the root can hold.
fn capacity(level: usize) -> usize {
    if level == 0 {
        ROOT_EXTENTS
    } else {
        NODE_EXTENTS
    }
}

/// A block for a node of the tree of `raw`.
fn a_node(raw: &RawInode) -> Want {
    match raw.ino.get() {
        ORPHAN_INO => Want::blocks(1).for_removal(),
        _ => Want::blocks(1).use_reserve(),
    }
}

/// Moves the entries of the root into a new node below it.
// Not inlined, as `split`: most calls of `make_room` need neither, and the kernel's stack is small.
#[inline(never)]
fn grow<P: Pmem>(vol: &Volume<P>, media: &Media<'_, P>, inode: &mut Inode) -> Result<()> {
    let mut raw = inode.raw().clone();
    let depth = usize::from(raw.depth);
    if depth >= MAX_DEPTH {
        return Err(Error::NoSpace);
    }
    let mut tx = vol.begin()?;
    let block = tx.alloc(a_node(&raw))?.block;
    let mut node = Node::new(block, u16::from(raw.depth), owner(&raw), tx.seed())?;
    let count = scan_root(media, &raw, inode.at(), &mut |_, _| ())?;
    node.splice(0, 0, &raw.root[..count]);
    tx.init(block * BLOCK, node.bytes())?;
    let entry = Extent {
        key: raw.root[0].key,
        value: U64::new(block),
    };
    raw.depth += 1;
    splice_root(
        &mut raw,
        &Change {
            at: 0,
            remove: count,
            add: &[entry],
        },
    )?;
    add_blocks(&mut raw, 1);
    inode.log(&mut tx, &mut raw)?;
    tx.commit()?;
    inode.set(raw);
    Ok(())
}

/// Splits the node `level` steps below the root of `path`, whose parent has room.
///
/// If the path's key would come last, only the last entry moves: a file that grows at its end fills
/// its nodes.
#[inline(never)]
fn split<P: Pmem>(
    vol: &Volume<P>,
    media: &Media<'_, P>,
    inode: &mut Inode,
    path: &Path,
    level: usize,
) -> Result<()> {
    let step = &path.steps[level];
    let above = &path.steps[level - 1];
    let position = if level == path.leaf {
        path.position()
    } else {
        step.index() + 1
    };
    let keep = if position == step.count() {
        step.count() - 1
    } else {
        step.count() / 2
    };
    let mut raw = inode.raw().clone();
    let mut tx = vol.begin()?;
    let block = tx.alloc(a_node(&raw))?.block;
    let mut left = inode.nodes.take(media, &path.expect(level))?;
    if keep == 0 || keep >= left.count() {
        return Err(path.expect(level).corrupt());
    }
    let mut right = Node::new(block, to_u16(path.leaf - level), path.owner, tx.seed())?;
    right.take_tail(&mut left, keep);
    tx.init(block * BLOCK, right.bytes())?;
    left.changes(&mut |at, bytes| tx.write(at, bytes))?;
    let entry = Extent {
        key: right.get(0).key,
        value: U64::new(block),
    };
    let change = Change {
        at: above.index() + 1,
        remove: 0,
        add: &[entry],
    };
    if level == 1 {
        splice_root(&mut raw, &change)?;
    } else {
        let mut parent = inode.nodes.take(media, &path.expect(level - 1))?;
        parent.splice(change.at, 0, change.add);
        parent.changes(&mut |at, bytes| tx.write(at, bytes))?;
    }
    add_blocks(&mut raw, 1);
    inode.log(&mut tx, &mut raw)?;
    tx.commit()?;
    inode.set(raw);
    Ok(())
}
