// SPDX-License-Identifier: GPL-2.0

//! A whole tree at once: reading all of it, and replacing it.

use zerocopy::little_endian::{U16, U64};

use super::edit::{add_blocks, sub_blocks};
use super::node::{pack, unpack, Media, Node, KEY_END};
use super::{owner, Mapping, Path, MAX_DEPTH};
use crate::env::Vec;
use crate::volume::alloc::{Run, Want};
use crate::volume::error::{Error, Result};
use crate::volume::format::{Extent, RawInode, BLOCK, NODE_EXTENTS, ROOT_EXTENTS};
use crate::volume::inode::Inode;
use crate::volume::journal::Tx;
use crate::volume::num::{to_u16, to_usize};
use crate::volume::pmem::Pmem;

/// The most bytes of the log that the change of an inode takes.
const INODE_LOG: usize = 2 * size_of::<RawInode>();

/// A tree, read.
pub struct Whole {
    /// The extents, in the order of their keys.
    pub extents: Vec<Mapping>,
    /// The blocks of the nodes.
    nodes: Vec<u64>,
}

/// Reads the tree of `inode`.
pub fn read_whole<P: Pmem>(media: &Media<'_, P>, inode: &Inode) -> Result<Whole> {
    let (raw, at) = (&inode.raw, inode.at);
    let (mut extents, mut nodes) = (Vec::new(), Vec::new());
    let mut path = Path::new(raw);
    let mut known = [0; MAX_DEPTH + 1];
    let mut key = 0;
    while key < KEY_END {
        path.descend(media, None, raw, at, key)?;
        for (step, known) in path.steps[1..=path.leaf].iter().zip(&mut known) {
            if *known != step.block {
                *known = step.block;
                nodes.push(step.block)?;
            }
        }
        extents.reserve(path.leaf().count())?;
        let mut pushed = Ok(());
        let mut visit = |_, e: &Extent| pushed = pushed.and_then(|()| extents.push(unpack(e)));
        path.scan_leaf(media, inode, &mut visit)?;
        pushed?;
        key = path.leaf().keys.1;
    }
    Ok(Whole { extents, nodes })
}

/// Replaces `old`, the tree of `inode`, by a tree of `extents`, in the order of their keys: writes
/// its nodes now, and frees those of `old`. The blocks of the extents are not counted.
///
/// Fails with [`Error::TooBig`] if there are more nodes than a transaction can hold.
pub fn replace<P: Pmem>(
    tx: &mut Tx<'_, P>,
    inode: &mut Inode,
    old: &Whole,
    extents: &[Mapping],
) -> Result<()> {
    // Freeing a node takes 16 bytes of the log, and so does allocating one, at most. All levels
    // together have fewer nodes than twice the leaves.
    let new = 2 * extents.len().div_ceil(NODE_EXTENTS);
    if (old.nodes.len() + new) * 16 + INODE_LOG > tx.room() {
        return Err(Error::TooBig);
    }
    for block in old.nodes.iter() {
        inode.nodes.forget(*block);
        tx.free(*block, 1)?;
    }
    let raw = &mut inode.raw;
    sub_blocks(raw, old.nodes.len() as u64);
    let mut level = Vec::with_capacity(extents.len())?;
    for m in extents {
        level.push(pack(*m))?;
    }
    raw.depth = 0;
    while level.len() > ROOT_EXTENTS {
        let mut left = level.len().div_ceil(NODE_EXTENTS) as u64;
        let mut above = Vec::with_capacity(to_usize(left))?;
        let mut run = Run { block: 0, len: 0 };
        for entries in level.chunks(NODE_EXTENTS) {
            if run.len == 0 {
                run = tx.alloc(Want::blocks(left).use_reserve())?;
                add_blocks(raw, run.len);
            }
            let block = run.block;
            (run.block, run.len, left) = (block + 1, run.len - 1, left - 1);
            let mut node = Node::new(block, raw.depth.into(), owner(raw), tx.seed())?;
            node.splice(0, 0, entries);
            tx.init(block * BLOCK, node.bytes())?;
            above.push(Extent {
                key: entries[0].key,
                value: U64::new(block),
            })?;
        }
        raw.depth += 1;
        level = above;
    }
    raw.root = [Extent::default(); ROOT_EXTENTS];
    raw.root[..level.len()].copy_from_slice(&level);
    raw.root_count = U16::new(to_u16(level.len()));
    Ok(())
}
