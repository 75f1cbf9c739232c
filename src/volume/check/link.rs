// SPDX-License-Identifier: GPL-2.0

//! The links between structures: orphan slots, link counts, parents, reachability from the root.

use super::super::error::{Result, Structure};
use super::super::format::{
    OrphanSlot, BLOCK, INODE_CHUNK_SLOTS, KEY_BITS, WORK_CUT, WORK_NONE, WORK_UNWRITE,
};
use super::super::num::to_usize;
use super::inode::{DT_DIR, DT_REG};
use super::media::get;
use super::{Checker, Kind, State};
use crate::env::{crc32c, Vec};
use core::mem::{offset_of, size_of};
use zerocopy::IntoBytes;

/// The offset of the work in a slot.
const WORK_AT: usize = offset_of!(OrphanSlot, work);

impl Checker<'_> {
    /// Checks every slot of the orphan file, and that the slot and the inode refer to each other.
    pub(super) fn check_orphans(&mut self, blocks: &[u64]) -> Result<()> {
        let size = size_of::<OrphanSlot>() as u64;
        let per_block = BLOCK / size;
        for (index, block) in (0..).zip(blocks) {
            for offset in 0..per_block {
                self.orphan_slot(index * per_block + offset, block * BLOCK + offset * size)?;
            }
        }
        // The other direction: inodes that name a slot which does not name them.
        let slots = blocks.len() as u64 * per_block;
        for ino in 1..self.slots.len() as u64 {
            let Some(&mut slot) = self.slot(ino) else {
                continue;
            };
            if slot.state != State::Used || slot.orphan == 0 {
                continue;
            }
            let index = u64::from(slot.orphan) - 1;
            let names_it = index < slots
                && match blocks.get(to_usize(index / per_block)) {
                    Some(block) => {
                        let at = block * BLOCK + index % per_block * size;
                        get::<OrphanSlot>(self.pmem, at)?.is_some_and(|s| s.ino.get() == ino)
                    }
                    None => false,
                };
            if names_it && slot.nlink > 0 && slot.file_type != DT_REG {
                let at = self.inode_at(ino).unwrap_or(0);
                self.problem(Structure::Inode, at, Some(ino), Kind::OrphanNamed);
            } else if names_it {
                self.summary.orphans += 1;
            } else {
                let at = self.inode_at(ino).unwrap_or(0);
                let kind = Kind::OrphanSlot { slot: index };
                self.problem(Structure::Inode, at, Some(ino), kind);
            }
        }
        Ok(())
    }

    fn orphan_slot(&mut self, index: u64, at: u64) -> Result<()> {
        let Some(slot) = get::<OrphanSlot>(self.pmem, at)? else {
            self.problem(Structure::Orphan, at, None, Kind::Unreadable);
            return Ok(());
        };
        let target = slot.ino.get();
        if slot.as_bytes().iter().all(|b| *b == 0) {
            return Ok(());
        }
        let crc = crc32c(
            crc32c(self.seed, &target.to_le_bytes()),
            slot.as_bytes().get(WORK_AT..).unwrap_or(&[]),
        );
        let crc = crc32c(crc, &index.to_le_bytes());
        if crc != slot.crc.get() {
            self.problem(Structure::Orphan, at, None, Kind::Checksum);
            return Ok(());
        }
        let keys = (slot.from.get(), slot.to.get());
        let possible = match slot.work.get() {
            WORK_NONE => keys == (0, 0),
            WORK_CUT | WORK_UNWRITE => keys.0 < keys.1 && keys.1 <= 1 << KEY_BITS,
            _ => false,
        };
        if !possible {
            let kind = Kind::Work {
                work: slot.work.get(),
            };
            self.problem(Structure::Orphan, at, None, kind);
            return Ok(());
        }
        let holds = self.slot(target).is_some_and(|inode| match inode.state {
            State::Used => u64::from(inode.orphan) == index + 1,
            State::Free => false,
            // Nothing is known of it that the slot could contradict.
            State::Damaged | State::Unknown => true,
        });
        if !holds {
            self.problem(Structure::Orphan, at, None, Kind::OrphanInode { target });
        }
        Ok(())
    }

    /// Compares link counts and parents with the directory entries, and finds inodes that none of
    /// them leads to.
    pub(super) fn check_links(&mut self) -> Result<()> {
        let root = self.sb.root_ino.get();
        let known = self.all_inodes;
        if self
            .slot(root)
            .map_or(known, |slot| slot.state == State::Free)
        {
            let at = self.inode_at(root).unwrap_or(0);
            let kind = Kind::NoInode { target: root };
            self.problem(Structure::Inode, at, Some(root), kind);
        }
        for ino in 1..self.slots.len() as u64 {
            let Some(&mut slot) = self.slot(ino) else {
                continue;
            };
            if slot.state != State::Used {
                continue;
            }
            let at = self.inode_at(ino).unwrap_or(0);
            let root = ino == self.sb.root_ino.get();
            let directory = slot.file_type == DT_DIR;
            if slot.links == 0 && !root {
                if slot.orphan == 0 {
                    self.problem(Structure::Inode, at, Some(ino), Kind::Unreachable);
                    continue;
                }
                if directory && slot.entries != 0 {
                    self.problem(Structure::Inode, at, Some(ino), Kind::RemovedNotEmpty);
                }
            }
            let counted = match (directory, root || slot.links > 0) {
                // Extra names of a directory were reported where they are.
                (true, true) => 2 + slot.subdirs,
                (true, false) => 0,
                (false, _) => slot.links,
            };
            if u64::from(slot.nlink) != counted {
                let stored = slot.nlink.into();
                let kind = Kind::Links { stored, counted };
                self.problem(Structure::Inode, at, Some(ino), kind);
            }
            let found = if root { ino } else { slot.found_in };
            let possible = slot.parent % INODE_CHUNK_SLOTS != 0;
            if directory && (slot.parent != found && found != 0 || !possible) {
                let stored = slot.parent;
                let kind = Kind::Parent { stored, found };
                self.problem(Structure::Inode, at, Some(ino), kind);
            }
        }
        self.find_loops()
    }

    /// Finds directories that are their own ancestors, and so not reachable from the root. Follows
    /// each chain of `found_in` until a directory that was seen before. If it was seen in this
    /// chain, the chain is a loop; if in an earlier one, the rest is known.
    fn find_loops(&mut self) -> Result<()> {
        let mut chain = Vec::with_capacity(self.slots.len())?;
        for _ in 0..self.slots.len() {
            chain.push(0)?;
        }
        for start in 1..self.slots.len() as u64 {
            let mut ino = start;
            while ino != self.sb.root_ino.get() && self.next_up(ino) != 0 {
                let Some(seen) = chain.get_mut(to_usize(ino)) else {
                    break;
                };
                if *seen == start {
                    self.report_loop(ino);
                }
                if *seen != 0 {
                    break;
                }
                *seen = start;
                ino = self.next_up(ino);
            }
        }
        Ok(())
    }

    /// The directory that names directory `ino`; 0 for none, and if `ino` is no directory.
    fn next_up(&mut self, ino: u64) -> u64 {
        self.slot(ino)
            .filter(|slot| slot.state == State::Used && slot.file_type == DT_DIR)
            .map_or(0, |slot| slot.found_in)
    }

    fn report_loop(&mut self, start: u64) {
        let mut ino = start;
        loop {
            let at = self.inode_at(ino).unwrap_or(0);
            self.problem(Structure::Inode, at, Some(ino), Kind::Loop);
            ino = self.next_up(ino);
            if ino == start || ino == 0 {
                return;
            }
        }
    }
}
