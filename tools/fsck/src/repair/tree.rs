// SPDX-License-Identifier: GPL-2.0

//! Extent trees: rebuilt from the sound extents.

use std::collections::{BTreeMap, BTreeSet};

use rdax_volume::volume::alloc::Run;
use rdax_volume::volume::check::{crc, Kind, Problem};
use rdax_volume::volume::error::{Result, Structure};
use rdax_volume::volume::extent::{pack, Mapping};
use rdax_volume::volume::format::{
    Extent, NodeHeader, RawInode, BLOCK, NODE_EXTENTS, NODE_MAGIC, ORPHAN_INO, ROOT_EXTENTS,
    TABLE_INO,
};
use rdax_volume::volume::inode;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::space::is_named;
use super::{is_local, Repair};
use crate::media::{file_type, DT_DIR, DT_LNK, DT_REG};

/// Entries put into a node: leaves some room for more.
const FILL: usize = NODE_EXTENTS * 3 / 4;
/// Blocks copied at a time.
const PIECE: u64 = 64;

impl Repair<'_, '_> {
    /// Files with an impossible tree, or with more or fewer blocks than they say, that have blocks
    /// of others. These are theirs: what the file has of them is copied, or cut where there is no
    /// space. An extent longer than all that the inode says to have is none. First: the others have
    /// nothing wrong then.
    pub(super) fn wrong_trees(&mut self, problems: &[Problem]) -> Result<bool> {
        let is_shared = |p: &Problem| matches!(p.kind, Kind::UsedTwice { .. });
        if !problems.iter().any(is_shared) {
            return Ok(false);
        }
        let is_wrong = |p: &Problem| matches!(p.kind, Kind::Blocks { .. }) || is_of_tree(p);
        // The checker does not count the blocks of a file that has some with another.
        let has_more = |ino| {
            let Some((_, raw)) = self.media.inode(ino) else {
                return false;
            };
            let blocks = self
                .media
                .blocks_of(&raw)
                .iter()
                .map(|m| m.len)
                .sum::<u64>();
            blocks > raw.blocks.get()
        };
        let mut wrong = BTreeSet::new();
        for problem in problems {
            let Some(ino) = problem.ino else { continue };
            if is_wrong(problem) || is_shared(problem) && !wrong.contains(&ino) && has_more(ino) {
                wrong.insert(ino);
            }
        }
        if wrong.is_empty() {
            return Ok(false);
        }
        let others = self.media.inodes().filter(|(ino, _)| !wrong.contains(ino));
        let others = self.blocks_named_by(others.map(|(_, raw)| raw));
        let mut inodes = BTreeMap::new();
        for ino in wrong {
            let Some((_, raw)) = self
                .media
                .inode(ino)
                .filter(|(_, raw)| file_type(raw) == DT_REG)
            else {
                continue;
            };
            let extents = self.media.extents(&raw);
            let blocks = extents.iter().flat_map(|m| m.block..m.block + m.len);
            let shared = blocks.filter(|block| is_named(&others, *block));
            let shared: Vec<Run> = shared.map(|block| Run { block, len: 1 }).collect();
            if !shared.is_empty() {
                inodes.insert(ino, shared);
            }
        }
        self.rebuild_trees(inodes, true)
    }

    /// Files with a damaged tree: sound extents stay, and the rest becomes a hole. Blocks that
    /// another file has, too, are copied, so that both keep their content.
    pub(super) fn trees(&mut self, problems: &[Problem]) -> Result<bool> {
        let mut inodes: BTreeMap<u64, Vec<Run>> = BTreeMap::new();
        for problem in problems {
            let Some(ino) = problem
                .ino
                .filter(|&ino| ino != TABLE_INO && ino != ORPHAN_INO)
                .filter(|_| problem.what != Structure::Xattr)
            else {
                continue;
            };
            if let Kind::UsedTwice { block, len } = problem.kind {
                inodes.entry(ino).or_default().push(Run { block, len });
            } else if is_of_tree(problem) {
                inodes.entry(ino).or_default();
            }
        }
        self.rebuild_trees(inodes, false)
    }

    /// Rebuilds the trees of `inodes`, which have some blocks with others; `counted`: without
    /// extents that are longer than what the inode counts.
    fn rebuild_trees(&mut self, inodes: BTreeMap<u64, Vec<Run>>, counted: bool) -> Result<bool> {
        let mut done = false;
        for (ino, twice) in inodes {
            let Some((at, raw)) = self.media.inode(ino) else {
                continue;
            };
            let result = match file_type(&raw) {
                DT_DIR => self.rebuild_directory(ino, at, raw, true, Vec::new()),
                _ => {
                    let most = if counted { raw.blocks.get() } else { u64::MAX };
                    self.rebuild_file(at, raw, &twice, most)
                }
            };
            match result {
                Ok(()) => done = true,
                Err(e) if is_local(&e) => self.say(format!("inode {ino}: not repaired: {e}")),
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Rebuilds the tree of `raw` from its extents of at most `most` blocks.
    fn rebuild_file(&mut self, at: u64, mut raw: RawInode, twice: &[Run], most: u64) -> Result<()> {
        let ino = raw.ino.get();
        if !matches!(file_type(&raw), DT_REG | DT_LNK) {
            raw.root.fill(Extent::default());
            (raw.root_count, raw.depth) = (U16::ZERO, 0);
            raw.blocks = U64::new(self.xattr_blocks(&raw));
            self.say(format!("inode {ino}: blocks of a special file dropped"));
            return self.put_inode(at, raw);
        }
        let mut found = self.media.extents(&raw);
        found.retain(|m| m.len <= most);
        // The nodes come first: without them, nothing is left of the file.
        let entries = found.len() + twice.len();
        if entries > ROOT_EXTENTS {
            let lacking = entries.div_ceil(FILL).saturating_sub(self.spare.len());
            let nodes = self.take_all(lacking)?;
            self.spare.extend(nodes);
        }
        let (mut extents, mut copied, mut cut) = (Vec::new(), 0, 0);
        for m in found {
            let mut from = m.block;
            for shared in overlaps(&m, twice) {
                extents.push(part(&m, from, shared.block));
                from = shared.end();
                let copies = self.copy(&part(&m, shared.block, shared.end()))?;
                let len: u64 = copies.iter().map(|m| m.len).sum();
                copied += len;
                cut += shared.len - len;
                extents.extend(copies);
            }
            extents.push(part(&m, from, m.block + m.len));
        }
        extents.retain(|m| m.len > 0);
        let kept: u64 = extents.iter().map(|m| m.len).sum();
        let before = raw.blocks.get().saturating_sub(self.xattr_blocks(&raw));
        self.grow_tree(&mut raw, &extents)?;
        self.put_inode(at, raw)?;
        if copied > 0 {
            self.say(format!(
                "inode {ino}: {copied} blocks that another inode has, too, copied"
            ));
        }
        if cut > 0 {
            self.say(format!(
                "inode {ino}: {cut} blocks that another inode has cut: no space to copy them"
            ));
        }
        self.say(format!(
            "inode {ino}: extent tree rebuilt; it had {before} blocks, {kept} with data are left"
        ));
        Ok(())
    }

    /// Copies of `shared`; fewer blocks if there is no space.
    fn copy(&mut self, shared: &Mapping) -> Result<Vec<Mapping>> {
        let mut copies = Vec::new();
        let mut done = 0;
        while done < shared.len {
            let run = match self.take((shared.len - done).min(PIECE)) {
                Ok(run) => run,
                Err(e) if is_local(&e) => break,
                Err(e) => return Err(e),
            };
            for i in 0..run.len {
                let from = (shared.block + done + i) * BLOCK;
                // Unreadable bytes become zeros.
                let bytes = self.media.bytes(from, BLOCK as usize);
                let bytes = bytes.unwrap_or_else(|| vec![0; BLOCK as usize]);
                self.media.pmem.store_nt((run.block + i) * BLOCK, &bytes)?;
            }
            copies.push(Mapping {
                key: shared.key + done,
                block: run.block,
                len: run.len,
                ..*shared
            });
            done += run.len;
        }
        self.media.pmem.fence()?;
        Ok(copies)
    }

    /// Gives `raw` a tree of the extents `of`, with nodes in new blocks, and the number of its
    /// blocks and of its extended attributes. The inode is not written.
    pub(super) fn grow_tree(&mut self, raw: &mut RawInode, of: &[Mapping]) -> Result<()> {
        let mut entries: Vec<Extent> = of.iter().map(|m| pack(*m)).collect();
        let mut blocks = self.xattr_blocks(raw) + of.iter().map(|m| m.len).sum::<u64>();
        let mut depth = 0;
        while entries.len() > ROOT_EXTENTS {
            let mut above = Vec::new();
            let nodes = entries.len().div_ceil(FILL);
            // Evenly, so that no node has few entries.
            for part in entries.chunks(entries.len().div_ceil(nodes)) {
                let block = match self.spare.pop() {
                    Some(block) => block,
                    None => self.take(1)?.block,
                };
                self.write_node(raw, block, depth, part)?;
                above.push(Extent {
                    key: part[0].key,
                    value: U64::new(block),
                });
                blocks += 1;
            }
            entries = above;
            depth += 1;
        }
        self.media.pmem.fence()?;
        raw.root.fill(Extent::default());
        raw.root[..entries.len()].copy_from_slice(&entries);
        raw.root_count = U16::new(entries.len() as u16);
        raw.depth = depth;
        raw.blocks = U64::new(blocks);
        Ok(())
    }

    fn write_node(&self, raw: &RawInode, block: u64, level: u8, entries: &[Extent]) -> Result<()> {
        let mut header = NodeHeader::new_zeroed();
        header.magic = U16::new(NODE_MAGIC);
        header.count = U16::new(entries.len() as u16);
        header.level = U16::new(level.into());
        header.generation = raw.generation;
        header.owner = raw.ino;
        header.block = U64::new(block);
        let mut bytes = [header.as_bytes(), entries.as_bytes()].concat();
        header.crc = U32::new(crc(self.media.geo.seed, &bytes));
        bytes[..4].copy_from_slice(header.crc.as_bytes());
        bytes.resize(BLOCK as usize, 0);
        self.media.pmem.store_nt(block * BLOCK, &bytes)
    }

    /// Writes an inode, sealed.
    pub(super) fn put_inode(&mut self, at: u64, mut raw: RawInode) -> Result<()> {
        inode::seal(&mut raw, self.media.geo.seed);
        self.log.commit(&[(at, raw.as_bytes().to_vec())])
    }
}

/// Whether the extent tree of a file or directory is impossible.
fn is_of_tree(problem: &Problem) -> bool {
    match problem.kind {
        Kind::UsedTwice { .. } => false,
        Kind::TreeDepth(_)
        | Kind::TreeCount(_)
        | Kind::ExtentOrder { .. }
        | Kind::ExtentRange { .. }
        | Kind::ExtentFlags { .. }
        | Kind::ExtentLength { .. }
        | Kind::OutsideData { .. }
        | Kind::NoFirstLeaf => true,
        _ => problem.what == Structure::ExtentNode,
    }
}

/// The blocks of `m` that are in one of `twice`, in order and without overlaps.
fn overlaps(m: &Mapping, twice: &[Run]) -> Vec<Run> {
    let mut runs: Vec<Run> = twice
        .iter()
        .filter(|run| run.block < m.block + m.len && m.block < run.end())
        .copied()
        .collect();
    runs.sort_by_key(|run| run.block);
    let mut from = m.block;
    let mut parts = Vec::new();
    for run in runs {
        let block = run.block.max(from);
        let end = run.end().min(m.block + m.len);
        if block < end {
            parts.push(Run {
                block,
                len: end - block,
            });
            from = end;
        }
    }
    parts
}

/// The part of `m` on the blocks `from..to`.
fn part(m: &Mapping, from: u64, to: u64) -> Mapping {
    m.part(m.key + (from - m.block), m.key + (to - m.block))
}
