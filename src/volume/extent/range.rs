// SPDX-License-Identifier: GPL-2.0

//! Operations on a range of keys, however many extents have them: one leaf per transaction, from
//! the end of the range to its start.

use super::edit::{add_blocks, is_possible, joins, splice, sub_blocks, Change, Edited, Small};
use super::node::{pack, unpack, Media, KEY_END};
use super::{Found, Mapping, Path};
use crate::env::Vec;
use crate::volume::error::{Error, Result};
use crate::volume::format::{Extent, RawInode, NODE_EXTENTS};
use crate::volume::inode::Inode;
use crate::volume::journal::Tx;
use crate::volume::pmem::Pmem;

/// The most extents that one [`cut`] frees, so that its log fits a lane together with the rest of
/// the transaction: each takes an entry of 16 bytes, and the leaf itself takes up to a block.
pub const CUT_MAX: usize = NODE_EXTENTS;

/// Removes the keys `from..to` from the last leaf of the tree of `inode` that maps any of them, and
/// frees their blocks: at most [`CUT_MAX`] extents. Returns the new `to` if keys before it may be
/// left, and the leaf: the caller commits and continues in a new transaction, since this one is
/// built from the old nodes.
///
/// A cut inside one extent leaves two, so [`make_room`](super::edit::make_room) must have been
/// called for `from`; any other needs no room. After an error the transaction must be dropped, and
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
        // The path has verified this node, so its sums do not overflow. Until the scan has verified
        // it again, saturate.
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

/// Makes data of the keys `from..to` unwritten in the last leaf of the tree of `inode` that maps
/// any of them. Merges neighbours in the leaf if they continue each other. Returns the new `to` if
/// keys before it may be left, and the leaf, as [`cut`].
///
/// The ends of the range may be inside extents, which become two:
/// [`make_room`](super::edit::make_room) must have been called for `from` with 2, and for the last
/// key with 1. After an error the transaction must be dropped, and `inode` restored.
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
    let edited = rewrite(tx, media, inode, &path, (from, to), &[])?;
    let first_key = path.leaf().keys.0;
    let leftmost = path.steps[..path.leaf].iter().all(|s| s.index() == 0);
    let left = (first_key > from && !leftmost).then_some(first_key);
    Ok((left, edited))
}

/// The holes among the keys `from..to` in the leaf where `from` belongs, up to `most` of them: the
/// first key that is not mapped, and the mappings around it. Also returns the key up to which the
/// list is complete.
pub fn holes<P: Pmem>(
    media: &Media<'_, P>,
    inode: &mut Inode,
    (from, to): (u64, u64),
    most: usize,
) -> Result<(Vec<(u64, Found)>, u64)> {
    let path = Path::to(media, inode, from)?;
    let bound = path.leaf().keys.1;
    let mut holes = Vec::new();
    let (mut key, mut end, mut floor) = (from, to.min(bound), None);
    let mut pushed = Ok(());
    // Where a hole may begin, and what is before and after it.
    let mut add = |key, floor, after: Option<Mapping>, bound| {
        let next = after.map(|m| m.key).or(bound);
        if key >= end || next.is_some_and(|next| next <= key) {
            return;
        }
        match holes.len() < most {
            true => {
                let found = Found { floor, next, after };
                pushed = pushed.and_then(|()| holes.push((key, found)));
            }
            false => end = key,
        }
    };
    path.scan_leaf(media, inode, &mut |_, e| {
        let m = unpack(e);
        add(key, floor, Some(m), None);
        floor = Some(m);
        // (Not verified before the scan has ended.)
        key = key.max(m.key.saturating_add(m.len));
    })?;
    add(key, floor, None, (bound != KEY_END).then_some(bound));
    pushed?;
    Ok((holes, end))
}

/// Maps `new`, unwritten extents in the order of their keys, in holes of one leaf of the tree of
/// `inode`, and counts their blocks. Merges neighbours in the leaf if they continue each other.
///
/// [`make_room`](super::edit::make_room) must have been called for the first key, with the number
/// of those that do not continue the mapping before them. Fails with [`Error::Exists`] if a key is
/// mapped, and with [`Error::Invalid`] if one is not of that leaf. After an error the transaction
/// must be dropped, and `inode` restored.
pub fn fill<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    inode: &mut Inode,
    new: &[Mapping],
) -> Result<Edited> {
    let first = new.first().ok_or(Error::Invalid)?;
    let path = Path::to(media, inode, first.key)?;
    rewrite(tx, media, inode, &path, (first.key, first.key), new)
}

/// Extents collected in the order of their keys. Those that continue each other are merged.
struct Joined(Vec<Mapping>);

impl Joined {
    /// Adds `m`. Fails with [`Error::Exists`] unless all its keys are above those before.
    fn add(&mut self, m: Mapping) -> Result<()> {
        match self.0.last_mut() {
            Some(last) if last.end() > m.key => return Err(Error::Exists),
            Some(last) if joins(last, &m) => last.len += m.len,
            _ => self.0.push(m)?,
        }
        Ok(())
    }
}

/// Makes data of the keys `from..to` unwritten in the leaf of `path`, and maps `new` there.
fn rewrite<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    inode: &mut Inode,
    path: &Path,
    (from, to): (u64, u64),
    new: &[Mapping],
) -> Result<Edited> {
    let last = new.last().map_or(to, Mapping::end);
    if last > path.leaf().keys.1.max(to) || !new.iter().all(|m| is_possible(m, media.geo)) {
        return Err(Error::Invalid);
    }
    // The entries that the keys touch, or are next to.
    let end = last.max(to);
    let (mut at, mut old) = (0, Vec::new());
    let mut pushed = Ok(());
    path.scan_leaf(media, inode, &mut |i, e| {
        let m = unpack(e);
        // (Not verified before the scan has ended.)
        if m.key.saturating_add(m.len) < from {
            at = i + 1;
        } else if m.key <= end {
            pushed = pushed.and_then(|()| old.push(m));
        }
    })?;
    pushed?;
    let mut made = Joined(Vec::with_capacity(old.len() + new.len() + 2)?);
    let mut ahead = new.iter().peekable();
    for m in old.iter() {
        while let Some(new) = ahead.next_if(|new| new.key < m.key) {
            made.add(*new)?;
        }
        let (start, end) = (m.key.max(from), m.end().min(to));
        if m.unwritten || start >= end {
            made.add(*m)?;
            continue;
        }
        if m.key < start {
            made.add(m.part(m.key, start))?;
        }
        made.add(Mapping {
            unwritten: true,
            ..m.part(start, end)
        })?;
        if end < m.end() {
            made.add(m.part(end, m.end()))?;
        }
    }
    ahead.try_for_each(|new| made.add(*new))?;
    // The entries that stay, before and after.
    let same = |(a, b): &(&Mapping, &Mapping)| a == b;
    let before = old.iter().zip(made.0.iter()).take_while(same).count();
    let most = old.len().min(made.0.len()) - before;
    let after = old.iter().rev().zip(made.0.iter().rev());
    let after = after.take(most).take_while(same).count();
    let mut add = Vec::with_capacity(made.0.len())?;
    for m in &made.0[before..made.0.len() - after] {
        add.push(pack(*m))?;
    }
    let change = Change {
        at: at + before,
        remove: old.len() - before - after,
        add: &add,
    };
    let edited = splice(tx, media, inode, path, &change)?;
    add_blocks(&mut inode.raw, new.iter().map(|m| m.len).sum());
    Ok(edited)
}

/// Reads and verifies the subtree of all leaves that map any of the keys `from..to`.
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
