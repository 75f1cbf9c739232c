// SPDX-License-Identifier: GPL-2.0

//! Walking one extent tree.

use super::super::error::{Result, Structure};
use super::super::extent::{unpack, Mapping};
use super::super::format::{
    Extent, NodeHeader, BLOCK, KEY_BITS, MAX_FILE, NODE_EXTENTS, NODE_MAGIC,
};
use super::super::num::to_usize;
use super::media::{crc, read, view};
use super::{Checker, Kind};
use crate::env::Vec;
use core::mem::size_of;

/// The most levels of nodes: more than the largest file with the emptiest nodes needs.
const DEPTH_MAX: u8 = 7;

/// The bits of an entry's key that are its key.
const KEY_MASK: u64 = (1 << KEY_BITS) - 1;

/// A tree to walk: where its root is and what is allowed in it.
pub(super) struct Tree<'t> {
    pub(super) ino: u64,
    pub(super) generation: u32,
    pub(super) depth: u8,
    /// The inode's address.
    pub(super) at: u64,
    /// The entries in use of the root.
    pub(super) root: &'t [Extent],
    /// For a directory: extents are leaves, each of one block.
    pub(super) directory: bool,
    /// For a regular file: extents may be unwritten.
    pub(super) file: bool,
    /// For a file with unfinished work: the range to cut may lie beyond the largest offset.
    pub(super) in_work: bool,
}

/// What a walk found.
pub(super) struct Walked {
    /// Blocks of the extents and the nodes.
    pub(super) blocks: u64,
    /// Nothing was wrong and nothing was skipped.
    pub(super) whole: bool,
}

/// One node on the way down.
struct Level {
    entries: Vec<Extent>,
    next: usize,
    /// Height above the leaves.
    height: u8,
    /// Keys below this one are another node's.
    end: u64,
    what: Structure,
    at: u64,
}

impl Checker<'_> {
    /// Walks a tree in the order of its keys, claims its blocks, and calls `each` with the key, the
    /// first block and the length of every usable extent.
    pub(super) fn walk(
        &mut self,
        tree: &Tree<'_>,
        each: &mut dyn FnMut(u64, u64, u64) -> Result<()>,
    ) -> Result<Walked> {
        let mut walked = Walked {
            blocks: 0,
            whole: true,
        };
        if tree.depth > DEPTH_MAX || (tree.depth > 0 && tree.root.is_empty()) {
            let kind = Kind::TreeDepth(tree.depth.into());
            self.problem(Structure::Inode, tree.at, Some(tree.ino), kind);
            walked.whole = false;
            return Ok(walked);
        }
        let mut root = Vec::new();
        root.extend_from_slice(tree.root)?;
        let mut path = Vec::new();
        path.push(Level {
            entries: root,
            next: 0,
            height: tree.depth,
            end: 1 << KEY_BITS,
            what: Structure::Inode,
            at: tree.at,
        })?;
        // Where the next extent may begin.
        let mut free_from = 0;
        while let Some(level) = path.last_mut() {
            let Some(&entry) = level.entries.get(level.next) else {
                path.pop();
                continue;
            };
            let key_at = |index: usize| level.entries.get(index).map(|e| e.key.get() & KEY_MASK);
            let before = level.next.checked_sub(1).and_then(key_at);
            let after = key_at(level.next + 1);
            level.next += 1;
            let (what, at, height, end) = (level.what, level.at, level.height, level.end);
            let key = entry.key.get();
            let wrong = if key >> KEY_BITS != 0 {
                Some(Kind::ExtentFlags { key })
            } else if before.is_some_and(|before| before >= key) || key < free_from {
                Some(Kind::ExtentOrder { key })
            } else if key >= end {
                Some(Kind::ExtentRange { key })
            } else {
                None
            };
            if let Some(kind) = wrong {
                self.problem(what, at, Some(tree.ino), kind);
                walked.whole = false;
                continue;
            }
            if height > 0 {
                let block = entry.value.get();
                if !self.claim(what, at, tree.ino, block, 1) {
                    walked.whole = false;
                    continue;
                }
                walked.blocks += 1;
                let end = after.map_or(end, |after| after.min(end));
                match self.node(tree, block, height - 1, key, end)? {
                    Some(level) => path.push(level)?,
                    None => walked.whole = false,
                }
                continue;
            }
            let run = unpack(&entry);
            if let Some(kind) = impossible(tree, &run) {
                self.problem(what, at, Some(tree.ino), kind);
                walked.whole = false;
                continue;
            }
            free_from = run.end();
            walked.blocks += run.len;
            if self.claim(what, at, tree.ino, run.block, run.len) {
                each(run.key, run.block, run.len)?;
            } else {
                walked.whole = false;
            }
        }
        Ok(walked)
    }

    /// Reads and checks the node in `block`, whose first key is `start` and end before `end`.
    fn node(
        &mut self,
        tree: &Tree<'_>,
        block: u64,
        height: u8,
        start: u64,
        end: u64,
    ) -> Result<Option<Level>> {
        let at = block * BLOCK;
        let mut bytes = Vec::<u8>::zeroed(to_usize(BLOCK))?;
        if !read(self.pmem, at, &mut bytes)? {
            return Ok(self.bad_node(tree, at, Kind::Unreadable));
        }
        let header: NodeHeader = view(&bytes);
        if header.magic.get() != NODE_MAGIC {
            return Ok(self.bad_node(tree, at, Kind::Magic));
        }
        let count = usize::from(header.count.get());
        if count == 0 || count > NODE_EXTENTS {
            return Ok(self.bad_node(tree, at, Kind::TreeCount(count as u64)));
        }
        let used = size_of::<NodeHeader>() + count * size_of::<Extent>();
        if crc(self.seed, &bytes[..used]) != header.crc.get() {
            return Ok(self.bad_node(tree, at, Kind::Checksum));
        }
        let fields = [
            ("level", header.level.get().into(), height.into()),
            ("owner", header.owner.get(), tree.ino),
            (
                "generation",
                header.generation.get().into(),
                tree.generation.into(),
            ),
            ("block", header.block.get(), block),
        ];
        for (field, stored, expected) in fields {
            if stored != expected {
                let kind = Kind::Misplaced {
                    field,
                    stored,
                    expected,
                };
                return Ok(self.bad_node(tree, at, kind));
            }
        }
        let mut entries = Vec::with_capacity(count)?;
        for entry in bytes[size_of::<NodeHeader>()..used].chunks_exact(size_of::<Extent>()) {
            entries.push(view::<Extent>(entry))?;
        }
        let key = entries[0].key.get();
        if key != start {
            return Ok(self.bad_node(tree, at, Kind::ExtentRange { key }));
        }
        Ok(Some(Level {
            entries,
            next: 0,
            height,
            end,
            what: Structure::ExtentNode,
            at,
        }))
    }

    fn bad_node(&mut self, tree: &Tree<'_>, at: u64, kind: Kind) -> Option<Level> {
        self.problem(Structure::ExtentNode, at, Some(tree.ino), kind);
        None
    }
}

/// Why an extent is impossible: without blocks, past the largest file offset, of several blocks in
/// a directory, or unwritten outside a file.
fn impossible(tree: &Tree<'_>, run: &Mapping) -> Option<Kind> {
    let Mapping { key, len, .. } = *run;
    if run.unwritten && !tree.file {
        return Some(Kind::ExtentFlags { key });
    }
    if len == 0 || (tree.directory && len != 1) {
        return Some(Kind::ExtentLength { key, len });
    }
    let file_blocks = match tree.in_work {
        true => 1 << KEY_BITS,
        false => (MAX_FILE + 1) / BLOCK,
    };
    if !tree.directory && key.checked_add(len).is_none_or(|end| end > file_blocks) {
        return Some(Kind::ExtentRange { key });
    }
    None
}
