// SPDX-License-Identifier: GPL-2.0

//! What is done to a range of keys, however many extents have them: one leaf in a transaction, from
//! the end of the range to its start.

use super::edit::{joins, splice, sub_blocks, Change, Edited, Small};
use super::node::{pack, unpack, Media, KEY_END};
use super::{Mapping, Path};
use crate::env::Vec;
use crate::volume::error::Result;
use crate::volume::format::{Extent, RawInode, NODE_EXTENTS};
use crate::volume::inode::Inode;
use crate::volume::journal::Tx;
use crate::volume::pmem::Pmem;

/// Most extents that one [`cut`] frees, so that its log fits a lane beside what else the
/// transaction does: each takes an entry of 16 bytes, and the leaf itself takes up to a block.
pub const CUT_MAX: usize = NODE_EXTENTS;

/// Removes the keys `from..to` from the last leaf of the tree of `inode` that maps any of them, and
/// frees their blocks: at most [`CUT_MAX`] extents. Returns the new `to` if keys before it may be
/// left, and the leaf: the caller commits and goes on in a new transaction, since this one is built
/// from what the nodes were.
///
/// A cut inside one extent leaves two, so [`make_room`](super::edit::make_room) must have been
/// called for `from`; any other needs no room. On an error the transaction must be dropped, and
/// `inode` restored.
pub fn cut<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    inode: &mut Inode,
    (from, to): (u64, u64),
) -> Result<(Option<u64>, Edited)> {
    if from >= to || to > KEY_END || inode.raw.root_count.get() == 0 {
        return Ok((None, Edited::NONE));
    }
    let path = Path::to(media, inode, to - 1)?;
    if path.found.floor.is_none_or(|f| f.end() <= from) {
        return Ok((None, Edited::NONE));
    }
    let last = path.leaf().index();
    let lowest = (last + 1).saturating_sub(CUT_MAX);
    let mut change = Small::new(0, 0);
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
    path.scan_leaf(media, inode, &mut visit)?;
    result?;
    let leftmost = change.at == 0 && path.steps[..path.leaf].iter().all(|s| s.index() == 0);
    let edited = splice(tx, media, inode, &path, &change.change())?;
    sub_blocks(&mut inode.raw, freed);
    let left = (first_key > from && !leftmost).then_some(first_key);
    Ok((left, edited))
}

/// Makes unwritten what is data of the keys `from..to` in the last leaf of the tree of `inode` that
/// maps any of them. Neighbours in the leaf become one extent where they continue each other.
/// Returns the new `to` if keys before it may be left, and the leaf, as [`cut`].
///
/// The ends of the range may be inside extents, which become two:
/// [`make_room`](super::edit::make_room) must have been called for `from` with 2, and for the last
/// key with 1. On an error the transaction must be dropped, and `inode` restored.
pub fn unwrite<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    inode: &mut Inode,
    (from, to): (u64, u64),
) -> Result<(Option<u64>, Edited)> {
    if from >= to || to > KEY_END || inode.raw.root_count.get() == 0 {
        return Ok((None, Edited::NONE));
    }
    let path = Path::to(media, inode, to - 1)?;
    if path.found.floor.is_none_or(|f| f.end() <= from) {
        return Ok((None, Edited::NONE));
    }
    let count = path.leaf().count();
    let mut old = Vec::with_capacity(count)?;
    let mut pushed = Ok(());
    path.scan_leaf(media, inode, &mut |_, e| {
        pushed = pushed.and_then(|()| old.push(*e));
    })?;
    pushed?;
    let mut new: Vec<Mapping> = Vec::with_capacity(count + 2)?;
    let mut first_key = from;
    let mut add = |m: Mapping| match new.last_mut() {
        Some(last) if joins(last, &m) => {
            last.len += m.len;
            Ok(())
        }
        _ => new.push(m),
    };
    for (i, m) in old.iter().map(unpack).enumerate() {
        let (start, end) = (m.key.max(from), m.end().min(to));
        if i == 0 {
            first_key = m.key;
        }
        if m.unwritten || start >= end {
            add(m)?;
            continue;
        }
        if m.key < start {
            add(m.part(m.key, start))?;
        }
        add(Mapping {
            unwritten: true,
            ..m.part(start, end)
        })?;
        if end < m.end() {
            add(m.part(end, m.end()))?;
        }
    }
    let mut entries = Vec::with_capacity(new.len())?;
    for m in new.iter() {
        entries.push(pack(*m))?;
    }
    // The entries that stay, before and after.
    let same = |(a, b): &(&Extent, &Extent)| a == b;
    let before = old.iter().zip(entries.iter()).take_while(same).count();
    let most = old.len().min(entries.len()) - before;
    let after = old.iter().rev().zip(entries.iter().rev());
    let after = after.take(most).take_while(same).count();
    let change = Change {
        at: before,
        remove: old.len() - before - after,
        add: &entries[before..entries.len() - after],
    };
    let edited = splice(tx, media, inode, &path, &change)?;
    let leftmost = path.steps[..path.leaf].iter().all(|s| s.index() == 0);
    let left = (first_key > from && !leftmost).then_some(first_key);
    Ok((left, edited))
}

/// Reads and verifies what is below the root of the leaves that map any of the keys `from..to`.
pub fn verify<P: Pmem>(
    media: &Media<'_, P>,
    raw: &RawInode,
    at: u64,
    (from, to): (u64, u64),
) -> Result<()> {
    let mut path = Path::new(raw);
    let mut key = from;
    while key < to {
        path.descend(media, None, raw, at, key)?;
        key = path.leaf().keys.1;
    }
    Ok(())
}
