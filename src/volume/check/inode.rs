// SPDX-License-Identifier: GPL-2.0

//! Inodes: the two system inodes, the inode chunks, every inode in use.

use super::super::error::{Error, Result, Structure};
use super::super::format::{
    InodeChunk, RawInode, BLOCK, INLINE_MAX, INODE_BYTES, INODE_CHUNK_MAGIC, INODE_CHUNK_SLOTS,
    LINK_MAX, MAX_FILE, ORPHAN_INO, ROOT_EXTENTS, SYMLINK_MAX, TABLE_INO,
};
use super::super::num::to_usize;
use super::extent::{Tree, Walked};
use super::media::{crc, get, read};
use super::{Checker, Kind, Leaf, Slot, State, TableRun};
use crate::env::Vec;
use zerocopy::IntoBytes;

const NSEC: u32 = 1_000_000_000;

/// File types, as in the high four bits of a mode and as in `DT_*`.
pub(super) const DT_FIFO: u8 = 1;
pub(super) const DT_CHR: u8 = 2;
pub(super) const DT_DIR: u8 = 4;
pub(super) const DT_BLK: u8 = 6;
pub(super) const DT_REG: u8 = 8;
pub(super) const DT_LNK: u8 = 10;
pub(super) const DT_SOCK: u8 = 12;

impl Checker<'_> {
    /// Checks the two system inodes. Fills `table` and returns the blocks of the orphan file.
    pub(super) fn check_system_inodes(&mut self) -> Result<Vec<u64>> {
        let mut table = Vec::new();
        self.all_inodes = self.system_inode(0, TABLE_INO, &mut |file_block, block, len| {
            Ok(table.push(TableRun {
                file_block,
                block,
                len,
            })?)
        })?;
        self.table = table;
        let mut orphan_blocks = Vec::new();
        self.system_inode(1, ORPHAN_INO, &mut |_, block, len| {
            for block in block..block + len {
                orphan_blocks.push(block)?;
            }
            Ok(())
        })?;
        Ok(orphan_blocks)
    }

    /// Checks one of them and calls `each` with its extents. False if some may be missing.
    fn system_inode(
        &mut self,
        slot: u64,
        ino: u64,
        each: &mut dyn FnMut(u64, u64, u64) -> Result<()>,
    ) -> Result<bool> {
        let at = self.sb.system_block.get() * BLOCK + slot * INODE_BYTES;
        let copy_at = (self.sb.blocks.get() - 2) * BLOCK + slot * INODE_BYTES;
        let (first, copy) = (self.one_inode(at, ino)?, self.one_inode(copy_at, ino)?);
        let (raw, wrong) = match (first, copy) {
            (Ok(first), Ok(copy)) if first == copy => (first, None),
            (Ok(first), Ok(_)) => (first, Some((copy_at, Kind::CopiesDiffer))),
            // A block that cannot be read must be repaired first.
            (Ok(one), Err(Kind::Unreadable)) => (one, Some((copy_at, Kind::Unreadable))),
            (Err(Kind::Unreadable), Ok(one)) => (one, Some((at, Kind::Unreadable))),
            (Ok(one), Err(_)) => (one, Some((copy_at, Kind::OneOfTwo))),
            (Err(_), Ok(one)) => (one, Some((at, Kind::OneOfTwo))),
            (Err(first), Err(copy)) => {
                self.problem(Structure::Inode, at, Some(ino), first);
                self.problem(Structure::Inode, copy_at, Some(ino), copy);
                return Ok(false);
            }
        };
        if let Some((at, kind)) = wrong {
            self.problem(Structure::Inode, at, Some(ino), kind);
        }
        // Dense from block 0 to the size.
        let mut next = 0;
        let mut hole = None;
        let walked = self.walk_inode(at, ino, &raw, &mut |key, block, len| {
            if key != next && hole.is_none() {
                hole = Some(next);
            }
            next = key + len;
            each(key, block, len)
        })?;
        if let Some(file_block) = hole.filter(|_| walked.whole) {
            self.problem(
                Structure::Inode,
                at,
                Some(ino),
                Kind::SystemHole { file_block },
            );
        }
        self.check_blocks(at, ino, &raw, &walked)?;
        let size = raw.size.get();
        if walked.whole && size != next * BLOCK {
            self.problem(Structure::Inode, at, Some(ino), Kind::Size(size));
        }
        Ok(walked.whole)
    }

    /// Reads all inode chunks, fills `slots`, and checks every inode in use.
    pub(super) fn check_inodes(&mut self) -> Result<()> {
        let end = self.table.last().map_or(0, |run| run.file_block + run.len);
        // A table with wild extents may seem larger than the device; then the part beyond is not
        // checked, and the extents were reported.
        let chunks = end.min(self.sb.blocks.get());
        let count = usize::try_from(chunks * INODE_CHUNK_SLOTS).map_err(|_| Error::NoMemory)?;
        self.slots = Vec::with_capacity(count)?;
        for _ in 0..count {
            self.slots.push(Slot {
                state: State::Unknown,
                file_type: 0,
                nlink: 0,
                orphan: 0,
                parent: 0,
                links: 0,
                entries: 0,
                subdirs: 0,
                found_in: 0,
            })?;
        }
        for chunk in 0..chunks {
            self.inode_chunk(chunk)?;
        }
        Ok(())
    }

    /// Byte address of inode `ino`, or of the header of its inode chunk; None in a hole of the
    /// table.
    pub(super) fn inode_at(&self, ino: u64) -> Option<u64> {
        let per_block = BLOCK / INODE_BYTES;
        let file_block = ino / per_block;
        let index = self
            .table
            .partition_point(|run| run.file_block <= file_block)
            .checked_sub(1)?;
        let run = self.table.get(index)?;
        let offset = file_block - run.file_block;
        (offset < run.len).then(|| (run.block + offset) * BLOCK + ino % per_block * INODE_BYTES)
    }

    fn inode_chunk(&mut self, chunk: u64) -> Result<()> {
        let first = chunk * INODE_CHUNK_SLOTS;
        let Some(at) = self.inode_at(first) else {
            self.all_inodes = false;
            return Ok(());
        };
        let Some(header) = get::<InodeChunk>(self.pmem, at)? else {
            self.problem(Structure::InodeChunk, at, None, Kind::Unreadable);
            self.all_inodes = false;
            return Ok(());
        };
        let wrong = if header.magic.get() != INODE_CHUNK_MAGIC {
            Some(Kind::Magic)
        } else if crc(self.seed, header.as_bytes()) != header.crc.get() {
            Some(Kind::Checksum)
        } else if header.index.get() != chunk {
            Some(Kind::Misplaced {
                field: "index",
                stored: header.index.get(),
                expected: chunk,
            })
        } else if header.block.get() != at / BLOCK {
            Some(Kind::Misplaced {
                field: "block",
                stored: header.block.get(),
                expected: at / BLOCK,
            })
        } else {
            None
        };
        if let Some(kind) = wrong {
            self.problem(Structure::InodeChunk, at, None, kind);
            self.all_inodes = false;
            return Ok(());
        }
        if header.bitmap[0].get() & 1 == 0 {
            self.problem(Structure::InodeChunk, at, None, Kind::HeaderFree);
        }
        let no_slots = (INODE_CHUNK_SLOTS..header.bitmap.len() as u64 * 64)
            .any(|slot| (header.bitmap[to_usize(slot / 64)].get() >> (slot % 64)) & 1 == 0);
        if no_slots {
            self.problem(Structure::InodeChunk, at, None, Kind::FreePastEnd);
        }
        let free = header
            .bitmap
            .iter()
            .map(|word| u64::from(word.get().count_zeros()))
            .sum();
        if u64::from(header.free.get()) != free {
            let stored = header.free.get().into();
            let kind = Kind::FreeCount {
                stored,
                counted: free,
            };
            self.problem(Structure::InodeChunk, at, None, kind);
        }
        for index in 1..INODE_CHUNK_SLOTS {
            let ino = first + index;
            let word = header.bitmap[(index / 64) as usize].get();
            let state = if (word >> (index % 64)) & 1 == 1 {
                self.summary.inodes += 1;
                State::Damaged
            } else {
                State::Free
            };
            if let Some(slot) = self.slot(ino) {
                slot.state = state;
            }
            if state == State::Damaged {
                self.inode(ino)?;
            }
        }
        Ok(())
    }

    /// Checks one inode in use; its slot becomes [`State::Used`] if it can be trusted.
    fn inode(&mut self, ino: u64) -> Result<()> {
        let Some(at) = self.inode_at(ino) else {
            return Ok(());
        };
        let raw = match self.one_inode(at, ino)? {
            Ok(raw) => raw,
            Err(kind) => {
                self.problem(Structure::Inode, at, Some(ino), kind);
                return Ok(());
            }
        };
        let file_type = (raw.mode.get() >> 12) as u8;
        let possible = match file_type {
            DT_DIR => true,
            DT_REG | DT_LNK | DT_FIFO | DT_SOCK | DT_CHR | DT_BLK => ino != self.sb.root_ino.get(),
            _ => false,
        };
        if !possible {
            let kind = Kind::Mode(raw.mode.get());
            self.problem(Structure::Inode, at, Some(ino), kind);
            return Ok(());
        }
        if let Some(slot) = self.slot(ino) {
            *slot = Slot {
                state: State::Used,
                file_type,
                nlink: raw.nlink.get(),
                orphan: raw.orphan.get(),
                parent: raw.parent.get(),
                ..*slot
            };
        }
        self.check_fields(at, ino, &raw, file_type);
        match file_type {
            DT_DIR => self.directory(at, ino, &raw),
            DT_LNK => self.symlink(at, ino, &raw),
            _ => {
                let walked = self.walk_inode(at, ino, &raw, &mut |_, _, _| Ok(()))?;
                self.check_blocks(at, ino, &raw, &walked)?;
                let none = file_type != DT_REG;
                if raw.size.get() > MAX_FILE || (none && raw.size.get() != 0) {
                    let kind = Kind::Size(raw.size.get());
                    self.problem(Structure::Inode, at, Some(ino), kind);
                }
                if none && walked.blocks != 0 {
                    let kind = Kind::TreeCount(raw.root_count.get().into());
                    self.problem(Structure::Inode, at, Some(ino), kind);
                }
                Ok(())
            }
        }
    }

    /// The inode `ino` at byte `at`, if its checksum holds and it is this inode, or what is wrong.
    fn one_inode(&self, at: u64, ino: u64) -> Result<Result<RawInode, Kind>> {
        let Some(raw) = get::<RawInode>(self.pmem, at)? else {
            return Ok(Err(Kind::Unreadable));
        };
        Ok(if crc(self.seed, raw.as_bytes()) != raw.crc.get() {
            Err(Kind::Checksum)
        } else if raw.ino.get() != ino {
            Err(Kind::Misplaced {
                field: "inode number",
                stored: raw.ino.get(),
                expected: ino,
            })
        } else {
            Ok(raw)
        })
    }

    /// Fields that do not depend on anything else.
    fn check_fields(&mut self, at: u64, ino: u64, raw: &RawInode, file_type: u8) {
        let times = [
            ("mtime", raw.mtime_nsec.get()),
            ("ctime", raw.ctime_nsec.get()),
            ("atime", raw.atime_nsec.get()),
            ("birth time", raw.btime_nsec.get()),
        ];
        for (time, nsec) in times {
            if nsec >= NSEC {
                let kind = Kind::Nanoseconds { time, nsec };
                self.problem(Structure::Inode, at, Some(ino), kind);
            }
        }
        let device = matches!(file_type, DT_CHR | DT_BLK);
        let zero = [
            ("rdev", device || raw.rdev.get() == 0),
            ("parent", file_type == DT_DIR || raw.parent.get() == 0),
        ];
        for (field, holds) in zero {
            if !holds {
                let kind = Kind::Reserved(field);
                self.problem(Structure::Inode, at, Some(ino), kind);
            }
        }
        if raw.nlink.get() > LINK_MAX {
            let kind = Kind::Links {
                stored: raw.nlink.get().into(),
                counted: LINK_MAX.into(),
            };
            self.problem(Structure::Inode, at, Some(ino), kind);
        }
    }

    fn walk_inode(
        &mut self,
        at: u64,
        ino: u64,
        raw: &RawInode,
        each: &mut dyn FnMut(u64, u64, u64) -> Result<()>,
    ) -> Result<Walked> {
        let count = usize::from(raw.root_count.get());
        if count > ROOT_EXTENTS {
            let kind = Kind::TreeCount(count as u64);
            self.problem(Structure::Inode, at, Some(ino), kind);
            return Ok(Walked {
                blocks: 0,
                whole: false,
            });
        }
        let tree = Tree {
            ino,
            generation: raw.generation.get(),
            depth: raw.depth,
            at,
            root: &raw.root[..count],
            directory: raw.mode.get() >> 12 == DT_DIR.into(),
            file: raw.mode.get() >> 12 == DT_REG.into(),
            in_work: raw.mode.get() >> 12 == DT_REG.into() && raw.orphan.get() != 0,
        };
        self.walk(&tree, each)
    }

    /// Checks the extended attributes, and the number of blocks of an inode whose tree was walked.
    fn check_blocks(&mut self, at: u64, ino: u64, raw: &RawInode, walked: &Walked) -> Result<()> {
        let xattrs = self.xattrs(at, ino, raw)?;
        let stored = raw.blocks.get();
        let counted = walked.blocks + xattrs.blocks;
        if walked.whole && xattrs.whole && stored != counted {
            let kind = Kind::Blocks { stored, counted };
            self.problem(Structure::Inode, at, Some(ino), kind);
        }
        Ok(())
    }

    /// Walks a directory's tree and records its leaves, to be read once all inodes are known.
    fn directory(&mut self, at: u64, ino: u64, raw: &RawInode) -> Result<()> {
        self.summary.directories += 1;
        let before = self.leaves.len();
        let mut leaves = core::mem::replace(&mut self.leaves, Vec::new());
        let result = self.walk_inode(at, ino, raw, &mut |key, block, _| {
            if let Some(last) = leaves[before..].last_mut() {
                last.end = key;
            }
            Ok(leaves.push(Leaf {
                dir: ino,
                key,
                end: u64::MAX,
                block,
            })?)
        });
        self.leaves = leaves;
        let walked = result?;
        self.check_blocks(at, ino, raw, &walked)?;
        if walked.whole {
            let found = &self.leaves[before..];
            let counted = found.len() as u64 * BLOCK;
            let first = found.first().map(|leaf| leaf.key);
            if raw.size.get() != counted {
                let stored = raw.size.get();
                let kind = Kind::DirSize { stored, counted };
                self.problem(Structure::Inode, at, Some(ino), kind);
            }
            if first != Some(0) {
                self.problem(Structure::Inode, at, Some(ino), Kind::NoFirstLeaf);
            }
        }
        Ok(())
    }

    fn symlink(&mut self, at: u64, ino: u64, raw: &RawInode) -> Result<()> {
        let size = raw.size.get();
        if size == 0 || size > SYMLINK_MAX as u64 {
            self.problem(Structure::Inode, at, Some(ino), Kind::Size(size));
            return Ok(());
        }
        let len = to_usize(size);
        if len <= INLINE_MAX {
            // The target replaces the root of the tree: there must be no tree.
            let tree = raw.root_count.get() != 0 || raw.depth != 0;
            if tree || raw.root.as_bytes()[..len].contains(&0) {
                self.problem(Structure::Inode, at, Some(ino), Kind::SymlinkTarget);
            }
            let none = Walked {
                blocks: 0,
                whole: true,
            };
            self.check_blocks(at, ino, raw, &none)?;
            return Ok(());
        }
        let mut found = None;
        let walked = self.walk_inode(at, ino, raw, &mut |key, block, len| {
            found = Some((key, block, len));
            Ok(())
        })?;
        self.check_blocks(at, ino, raw, &walked)?;
        if !walked.whole {
            return Ok(());
        }
        let mut target = Vec::<u8>::zeroed(to_usize(BLOCK))?;
        let holds = match found {
            Some((0, block, 1)) if walked.blocks == 1 => {
                read(self.pmem, block * BLOCK, &mut target)? && !target[..len].contains(&0)
            }
            _ => false,
        };
        if !holds {
            self.problem(Structure::Inode, at, Some(ino), Kind::SymlinkTarget);
        }
        Ok(())
    }
}
