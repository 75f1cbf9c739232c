// SPDX-License-Identifier: GPL-2.0

//! Changes of an extent tree, and the splits that make room for them.

use zerocopy::little_endian::{U16, U64};

use super::node::{pack, scan_root, unpack, Media, Node, KEY_END};
use super::{owner, Mapping, Path, MAX_DEPTH};
use crate::volume::alloc::Want;
use crate::volume::error::{Error, Result};
use crate::volume::format::{Extent, RawInode, BLOCK, EXTENT_MAX, NODE_EXTENTS, ROOT_EXTENTS};
use crate::volume::inode::Inode;
use crate::volume::journal::Tx;
use crate::volume::num::to_u16;
use crate::volume::pmem::Pmem;
use crate::volume::Volume;

/// Most extents that one [`cut`] frees, so that its log fits a lane beside what else the
/// transaction does: each takes an entry of 16 bytes, and the leaf itself takes up to a block.
pub const CUT_MAX: usize = NODE_EXTENTS;

/// Entries removed from a node and put in their place.
struct Change {
    at: usize,
    remove: usize,
    add: [Extent; 3],
    added: usize,
}

impl Change {
    /// Adds an extent after those added before, at most three.
    fn push(&mut self, m: Mapping) {
        if let Some(e) = self.add.get_mut(self.added) {
            *e = pack(m);
            self.added += 1;
        }
    }

    fn add(&self) -> &[Extent] {
        &self.add[..self.added]
    }

    /// How many entries a node of `count` has afterwards; `None` if the change is not one of it.
    fn count(&self, count: usize) -> Option<usize> {
        let kept = count.checked_sub(self.remove)?;
        (self.at <= kept).then_some(kept + self.added)
    }
}

/// Replaces entries of the root in `raw`.
fn splice_root(raw: &mut RawInode, change: &Change) -> Result<()> {
    let old = usize::from(raw.root_count.get()).min(ROOT_EXTENTS);
    let count = change.count(old).ok_or(Error::Invalid)?;
    if count > ROOT_EXTENTS {
        return Err(Error::Invalid);
    }
    let end = change.at + change.added;
    raw.root.copy_within(change.at + change.remove..old, end);
    raw.root[change.at..end].copy_from_slice(change.add());
    if count < old {
        raw.root[count..old].fill(Extent::default());
    }
    raw.root_count = U16::new(to_u16(count));
    if count == 0 {
        raw.depth = 0;
    }
    Ok(())
}

/// Replaces entries of the leaf that `path` leads to, and carries its first key, or that it is
/// gone, up the path. A node is touched at most once.
///
/// Fails with [`Error::Invalid`] if the leaf has no room: [`make_room`] was not called.
fn splice<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    raw: &mut RawInode,
    path: &Path,
    mut change: Change,
) -> Result<()> {
    for level in (1..=path.leaf).rev() {
        let step = &path.steps[level];
        let count = change.count(step.count()).ok_or(Error::Invalid)?;
        let above = path.steps[level - 1].index();
        if count == 0 {
            tx.free(step.block, 1)?;
            sub_blocks(raw, 1);
            change = Change {
                at: above,
                remove: 1,
                add: [Extent::default(); 3],
                added: 0,
            };
            continue;
        }
        if count > NODE_EXTENTS {
            return Err(Error::Invalid);
        }
        let mut node = Node::load(media, &path.expect(level))?;
        node.splice(change.at, change.remove, change.add());
        node.changes(&mut |at, bytes| tx.write(at, bytes))?;
        let first = node.get(0).key;
        if first.get() == step.keys.0 {
            return Ok(());
        }
        let entry = Extent {
            key: first,
            value: U64::new(step.block),
        };
        change = Change {
            at: above,
            remove: 1,
            add: [entry; 3],
            added: 1,
        };
    }
    splice_root(raw, &change)
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

/// Whether `b` continues `a`, on the media too, and one entry can hold both.
pub fn joins(a: &Mapping, b: &Mapping) -> bool {
    a.end() == b.key
        && a.block + a.len == b.block
        && a.unwritten == b.unwritten
        && a.len + b.len <= EXTENT_MAX
}

/// Makes one extent of `new`, which `change` is about to add, and its neighbours where they continue each
/// other: they go, and `new` has their blocks as well.
fn merge(change: &mut Change, new: &mut Mapping, before: Option<Mapping>, after: Option<Mapping>) {
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

/// Inserts `m` into the tree of `raw`, an inode at byte address `at`, and counts its blocks. With
/// `join`, it becomes one extent with neighbours in the same node where they continue each other.
///
/// Fails with [`Error::Exists`] if a key of `m` is mapped, [`Error::Invalid`] if `m` is no possible
/// extent or there is no room because [`make_room`] was not called for its key. On an error the
/// transaction must be dropped, and `raw` with it.
pub fn insert<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    raw: &mut RawInode,
    at: u64,
    m: Mapping,
    join: bool,
) -> Result<()> {
    if m.key >= KEY_END
        || m.len == 0
        || m.len > EXTENT_MAX
        || m.len > KEY_END - m.key
        || !media.geo.is_data(m.block, m.len)
    {
        return Err(Error::Invalid);
    }
    let mut path = Path::new(raw);
    path.descend(media, raw, at, m.key)?;
    let floor = path.found.floor;
    if floor.is_some_and(|f| f.end() > m.key) || path.found.next.is_some_and(|n| n < m.end()) {
        return Err(Error::Exists);
    }
    let mut new = m;
    let mut change = Change {
        at: path.position(),
        remove: 0,
        add: [Extent::default(); 3],
        added: 0,
    };
    if join {
        merge(&mut change, &mut new, floor, path.after);
    }
    change.push(new);
    splice(tx, media, raw, &path, change)?;
    add_blocks(raw, m.len);
    Ok(())
}

/// Makes the keys `from..to`, which lie in one extent of the tree of `raw`, an inode at byte address
/// `at`, `unwritten` or not. They become one extent with neighbours in the same node where they
/// continue each other.
///
/// The part before and the part after may need two more entries: [`make_room`] must have been
/// called for `from`. Fails with [`Error::Exists`] if the keys are not in one extent, or are already
/// what they are to be. On an error the transaction must be dropped, and `raw` with it.
pub fn mark<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    raw: &mut RawInode,
    at: u64,
    (from, to): (u64, u64),
    unwritten: bool,
) -> Result<()> {
    let mut path = Path::new(raw);
    path.descend(media, raw, at, from)?;
    let whole = |m: &Mapping| from < to && to <= m.end() && m.unwritten != unwritten;
    let old = path.found.floor.filter(whole).ok_or(Error::Exists)?;
    let index = path.leaf().index();
    let mut before = None;
    let mut visit = |i: usize, e: &Extent| {
        if i + 1 == index {
            before = Some(unpack(e));
        }
    };
    path.scan_leaf(media, raw, at, &mut visit)?;
    let mut new = Mapping {
        unwritten,
        ..old.part(from, to)
    };
    let mut change = Change {
        at: index,
        remove: 1,
        add: [Extent::default(); 3],
        added: 0,
    };
    if from > old.key {
        change.push(old.part(old.key, from));
    }
    merge(&mut change, &mut new, before, path.after);
    change.push(new);
    if to < old.end() {
        change.push(old.part(to, old.end()));
    }
    splice(tx, media, raw, &path, change)
}

/// Removes the keys `from..to` from the last leaf of the tree of `raw` that maps any of them, and
/// frees their blocks: at most [`CUT_MAX`] extents. Returns the new `to` if keys before it may be
/// left: the caller commits and goes on with that in a new transaction, since this one is built from
/// what the nodes were.
///
/// A cut inside one extent leaves two, so [`make_room`] must have been called for `from`; any other
/// needs no room. On an error the transaction must be dropped, and `raw` with it.
pub fn cut<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    raw: &mut RawInode,
    at: u64,
    from: u64,
    to: u64,
) -> Result<Option<u64>> {
    if from >= to || to > KEY_END || raw.root_count.get() == 0 {
        return Ok(None);
    }
    let mut path = Path::new(raw);
    path.descend(media, raw, at, to - 1)?;
    if path.found.floor.is_none_or(|f| f.end() <= from) {
        return Ok(None);
    }
    let last = path.leaf().index();
    let lowest = (last + 1).saturating_sub(CUT_MAX);
    let mut change = Change {
        at: 0,
        remove: 0,
        add: [Extent::default(); 3],
        added: 0,
    };
    let mut first_key = from;
    let mut freed = 0;
    let mut result = Ok(());
    let mut visit = |i: usize, e: &Extent| {
        let m = unpack(e);
        // The path has verified this node, so its sums do not overflow. Until the scan has done so
        // again, saturate.
        let end = m.key.saturating_add(m.len);
        if i < lowest || i > last || end <= from {
            return;
        }
        if change.remove == 0 {
            change.at = i;
            first_key = m.key;
        }
        change.remove += 1;
        let start = m.key.max(from);
        let skip = start - m.key;
        let len = end.min(to).saturating_sub(start);
        if skip > 0 {
            change.push(Mapping { len: skip, ..m });
        }
        if end > to {
            change.push(Mapping {
                key: to,
                block: m.block.saturating_add(to.saturating_sub(m.key)),
                len: end - to,
                ..m
            });
        }
        freed += len;
        if result.is_ok() {
            result = tx.free(m.block.saturating_add(skip), len);
        }
    };
    path.scan_leaf(media, raw, at, &mut visit)?;
    result?;
    let leftmost = change.at == 0 && path.steps[..path.leaf].iter().all(|s| s.index() == 0);
    splice(tx, media, raw, &path, change)?;
    sub_blocks(raw, freed);
    Ok((first_key > from && !leftmost).then_some(first_key))
}

/// Splits nodes, each in a transaction of its own, until the leaf where `key` belongs has room for
/// `need` more entries, at most 2. No mapping changes.
///
/// Fails with [`Error::NoSpace`] if there is no block for a node; what was split until then stays.
pub fn make_room<P: Pmem>(vol: &Volume<P>, inode: &mut Inode, key: u64, need: usize) -> Result<()> {
    let raw = inode.raw();
    if raw.depth == 0 && usize::from(raw.root_count.get()) + need <= ROOT_EXTENTS {
        return Ok(());
    }
    let media = Media::of(vol);
    // Each round but the last splits or grows one level.
    for _ in 0..2 * MAX_DEPTH + 2 {
        let mut path = Path::new(inode.raw());
        path.descend(&media, inode.raw(), inode.at(), key)?;
        if path.leaf().count() + need <= capacity(path.leaf) {
            return Ok(());
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
    let block = tx.alloc(Want::blocks(1).use_reserve())?.block;
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
            add: [entry; 3],
            added: 1,
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
/// Where the path's key would come last, only the last entry moves: a file that grows at its end
/// fills its nodes.
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
    let block = tx.alloc(Want::blocks(1).use_reserve())?.block;
    let mut left = Node::load(media, &path.expect(level))?;
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
        add: [entry; 3],
        added: 1,
    };
    if level == 1 {
        splice_root(&mut raw, &change)?;
    } else {
        let mut parent = Node::load(media, &path.expect(level - 1))?;
        parent.splice(change.at, 0, change.add());
        parent.changes(&mut |at, bytes| tx.write(at, bytes))?;
    }
    add_blocks(&mut raw, 1);
    inode.log(&mut tx, &mut raw)?;
    tx.commit()?;
    inode.set(raw);
    Ok(())
}
