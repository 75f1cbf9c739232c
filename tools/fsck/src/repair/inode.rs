// SPDX-License-Identifier: GPL-2.0

//! Inodes and the headers of inode chunks.

use std::collections::{BTreeMap, BTreeSet};

use rdax_volume::volume::check::{crc, Kind, Problem};
use rdax_volume::volume::error::{Result, Structure};
use rdax_volume::volume::extent::Mapping;
use rdax_volume::volume::format::{
    Extent, InodeChunk, OrphanSlot, RawInode, Time, BLOCK, INODE_CHUNK_MAGIC, INODE_CHUNK_SLOTS,
    INODE_CHUNK_WORDS, MAX_FILE, ORPHAN_INO, ROOT_ATTRS, ROOT_INO, ROOT_MODE, TABLE_INO,
};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::{is_local, of, Repair};
use crate::media::{file_type, DT_DIR, DT_LNK, DT_REG};

/// The fields of a header that do not follow from the rest.
fn kept(header: &InodeChunk) -> (u32, [u8; 26]) {
    (header.generation.get(), header.reserved)
}

/// The header of inode chunk `index` in `block`, with the slots of `bitmap` in use, in a volume of
/// this `seed`. `kept` has the old generation and reserved bytes.
pub(super) fn inode_chunk_header(
    seed: u32,
    (index, block): (u64, u64),
    mut bitmap: [u64; INODE_CHUNK_WORDS],
    (generation, reserved): (u32, [u8; 26]),
) -> InodeChunk {
    bitmap[0] |= 1;
    for slot in INODE_CHUNK_SLOTS..INODE_CHUNK_WORDS as u64 * 64 {
        bitmap[(slot / 64) as usize] |= 1 << (slot % 64);
    }
    let free: u32 = bitmap.iter().map(|word| word.count_zeros()).sum();
    let mut header = InodeChunk {
        crc: U32::ZERO,
        magic: U32::new(INODE_CHUNK_MAGIC),
        index: U64::new(index),
        bitmap: bitmap.map(U64::new),
        block: U64::new(block),
        free: U16::new(free as u16),
        generation: U32::new(generation),
        reserved,
    };
    header.crc = U32::new(crc(seed, header.as_bytes()));
    header
}

impl Repair<'_, '_> {
    /// Headers of inode chunks. A damaged one is rebuilt from the inodes in its inode chunk. If
    /// there is none, the block may not be an inode chunk at all, and the inode chunk gets another
    /// block.
    pub(super) fn inode_chunks(&mut self, problems: &[Problem]) -> Result<bool> {
        let mut lost = BTreeSet::new();
        let mut done = self.named_inodes(problems)?;
        for problem in of(problems, Structure::InodeChunk) {
            let table = &self.media.table;
            let block = problem.at / BLOCK;
            let run = table
                .iter()
                .find(|m| (m.block..m.block + m.len).contains(&block));
            let Some(index) = run.map(|m| m.key + block - m.block) else {
                continue;
            };
            let (bitmap, kept) = match self.media.inode_chunk(index) {
                Some((_, header)) => (header.bitmap.map(U64::get), kept(&header)),
                None => match self.slots_in_use(index) {
                    bitmap if bitmap.iter().all(|word| *word == 0) => {
                        lost.insert(index);
                        continue;
                    }
                    bitmap => {
                        self.say(format!(
                            "inode chunk header at {:#x}: rebuilt from the inodes in its chunk",
                            problem.at
                        ));
                        (bitmap, (1, [0; 26]))
                    }
                },
            };
            let header = inode_chunk_header(self.media.geo.seed, (index, block), bitmap, kept);
            self.log
                .commit(&[(problem.at, header.as_bytes().to_vec())])?;
            done = true;
        }
        if !done && !lost.is_empty() {
            // An empty one takes a free block, so blocks in use are marked first.
            done = self.bitmaps(problems)? || self.rebuild_table(&lost)?;
        }
        Ok(done)
    }

    /// Inodes that are in use according to a name and to themselves, but not to the header of their
    /// inode chunk, are in use. An inode that has neither a name nor a link nor a place in the
    /// orphan file is free.
    fn named_inodes(&mut self, problems: &[Problem]) -> Result<bool> {
        let mut done = false;
        for problem in problems {
            let (ino, used) = match (problem.kind, problem.what, problem.ino) {
                (Kind::NoInode { target }, ..) => (target, true),
                (Kind::Unreachable, Structure::Inode, Some(ino)) => (ino, false),
                _ => continue,
            };
            let index = ino / INODE_CHUNK_SLOTS;
            let Some((_, header)) = self.media.inode_chunk(index) else {
                continue;
            };
            let slot = ino % INODE_CHUNK_SLOTS;
            let is_used = (header.bitmap[(slot / 64) as usize].get() >> (slot % 64)) & 1 == 1;
            let Some(raw) = self
                .media
                .inode_at(ino)
                .and_then(|at| self.media.inode_in(at, ino))
            else {
                continue;
            };
            let removed = raw.nlink.get() == 0;
            if slot == 0 || is_used == used || removed == used || !used && raw.orphan.get() != 0 {
                continue;
            }
            self.set_used(ino, used)?;
            let what = if used {
                "in use, as its name says"
            } else {
                "free: it was removed"
            };
            self.say(format!("inode {ino}: marked {what}"));
            done = true;
        }
        Ok(done)
    }

    /// Which inodes of an inode chunk are in use, by their own content: sound ones with links, or
    /// in the orphan file. A removed inode has neither.
    fn slots_in_use(&self, index: u64) -> [u64; INODE_CHUNK_WORDS] {
        let mut bitmap = [0; INODE_CHUNK_WORDS];
        let first = index * INODE_CHUNK_SLOTS;
        for slot in 1..INODE_CHUNK_SLOTS {
            let at = self.media.inode_at(first + slot);
            let raw = at.and_then(|at| self.media.inode_in(at, first + slot));
            if raw.is_some_and(|raw| raw.nlink.get() > 0 || self.is_orphan(&raw)) {
                bitmap[(slot / 64) as usize] |= 1 << (slot % 64);
            }
        }
        bitmap
    }

    /// Byte address of a slot of the orphan file.
    pub(super) fn orphan_at(&self, slot: u64) -> Option<u64> {
        let size = size_of::<OrphanSlot>() as u64;
        let per_block = BLOCK / size;
        let key = slot / per_block;
        let file = self.media.extents(&self.media.system_inode(1)?);
        let run = file.iter().find(|m| m.key <= key && key < m.end())?;
        Some((run.block + key - run.key) * BLOCK + slot % per_block * size)
    }

    fn is_orphan(&self, raw: &RawInode) -> bool {
        let slot = raw.orphan.get().checked_sub(1);
        slot.and_then(|slot| self.orphan_at(slot.into()))
            .and_then(|at| self.media.get::<OrphanSlot>(at))
            .is_some_and(|slot| slot.ino == raw.ino)
    }

    /// Clears inodes that cannot be trusted; corrects fields of the others.
    pub(super) fn inodes(&mut self, problems: &[Problem]) -> Result<bool> {
        let mut bad = BTreeSet::new();
        let mut fields: BTreeMap<u64, Vec<Kind>> = BTreeMap::new();
        for problem in of(problems, Structure::Inode) {
            let Some(ino) = problem
                .ino
                .filter(|&ino| ino != TABLE_INO && ino != ORPHAN_INO)
            else {
                continue;
            };
            let symlink = || {
                let inode = self.media.inode(ino);
                inode.is_some_and(|(_, raw)| file_type(&raw) == DT_LNK)
            };
            match problem.kind {
                Kind::Checksum
                | Kind::Unreadable
                | Kind::Misplaced { .. }
                | Kind::Mode(_)
                | Kind::SymlinkTarget
                | Kind::NoInode { .. } => {
                    bad.insert(ino);
                }
                Kind::Size(_) if symlink() => {
                    bad.insert(ino);
                }
                Kind::Size(_)
                | Kind::Nanoseconds { .. }
                | Kind::Blocks { .. }
                | Kind::DirSize { .. }
                | Kind::Reserved(_) => fields.entry(ino).or_default().push(problem.kind),
                _ => {}
            }
        }
        let mut done = false;
        for &ino in &bad {
            let result = if ino == ROOT_INO {
                self.remake_root()
            } else {
                self.say(format!("inode {ino}: cannot be believed, cleared"));
                self.clear(ino)
            };
            match result {
                Ok(()) => done = true,
                Err(e) if is_local(&e) => self.say(format!("inode {ino}: not repaired: {e}")),
                Err(e) => return Err(e),
            }
        }
        fields.retain(|ino, _| !bad.contains(ino));
        for (ino, kinds) in fields {
            let Some((at, mut raw)) = self.media.inode(ino) else {
                continue;
            };
            for kind in &kinds {
                self.set_field(&mut raw, kind);
            }
            self.say(format!("inode {ino}: fields corrected"));
            self.put_inode(at, raw)?;
            done = true;
        }
        Ok(done)
    }

    fn set_field(&self, raw: &mut RawInode, kind: &Kind) {
        match *kind {
            Kind::Blocks { counted, .. } => raw.blocks = U64::new(counted),
            Kind::DirSize { counted, .. } => raw.size = U64::new(counted),
            Kind::Size(_) if file_type(raw) == DT_REG => {
                let end = self.media.extents(raw).last().map_or(0, Mapping::end);
                raw.size = U64::new((end * BLOCK).min(MAX_FILE));
            }
            Kind::Size(_) => raw.size = U64::ZERO,
            Kind::Nanoseconds { time, .. } => match time {
                "mtime" => raw.mtime_nsec = U32::ZERO,
                "ctime" => raw.ctime_nsec = U32::ZERO,
                "atime" => raw.atime_nsec = U32::ZERO,
                _ => raw.btime_nsec = U32::ZERO,
            },
            Kind::Reserved(field) => match field {
                "rdev" => raw.rdev = U32::ZERO,
                "parent" => raw.parent = U64::ZERO,
                _ => {}
            },
            _ => {}
        }
    }

    /// Marks an inode free, and clears its links, so that nothing claims any more that it is in
    /// use.
    fn clear(&mut self, ino: u64) -> Result<()> {
        let at = self.media.inode_at(ino);
        if let Some((at, mut raw)) = at.and_then(|at| Some((at, self.media.inode_in(at, ino)?))) {
            raw.nlink = U32::ZERO;
            self.put_inode(at, raw)?;
        }
        self.set_used(ino, false)
    }

    /// Marks an inode in use or free.
    fn set_used(&mut self, ino: u64, used: bool) -> Result<()> {
        let index = ino / INODE_CHUNK_SLOTS;
        let Some((at, header)) = self.media.inode_chunk(index) else {
            return Ok(());
        };
        let mut bitmap = header.bitmap.map(U64::get);
        let slot = ino % INODE_CHUNK_SLOTS;
        let (word, mask) = ((slot / 64) as usize, 1 << (slot % 64));
        bitmap[word] = if used {
            bitmap[word] | mask
        } else {
            bitmap[word] & !mask
        };
        let place = (index, at / BLOCK);
        let header = inode_chunk_header(self.media.geo.seed, place, bitmap, kept(&header));
        self.log.commit(&[(at, header.as_bytes().to_vec())])
    }

    /// Makes a root directory from the names in all leaves that say they belong to it.
    fn remake_root(&mut self) -> Result<()> {
        let Some(at) = self.media.inode_at(ROOT_INO) else {
            return Ok(());
        };
        // A sound inode that is no directory has no leaves either.
        let generation: Option<U32> = self
            .media
            .get(at + std::mem::offset_of!(RawInode, generation) as u64);
        let mut raw = RawInode::new_zeroed();
        raw.ino = U64::new(ROOT_INO);
        raw.parent = U64::new(ROOT_INO);
        raw.mode = U16::new(ROOT_MODE);
        raw.attrs = U32::new(ROOT_ATTRS);
        raw.nlink = U32::new(2);
        raw.generation = U32::new(generation.map_or(1, |g| g.get().wrapping_add(1).max(1)));
        raw.root.fill(Extent::default());
        let made = Time {
            sec: self.media.sb.made_sec.get(),
            nsec: 0,
        };
        raw.set_atime(made);
        raw.set_btime(made);
        raw.set_mtime(made);
        raw.set_ctime(made);
        debug_assert_eq!(file_type(&raw), DT_DIR);
        self.say("root directory: made anew, with the names that could be found".into());
        self.set_used(ROOT_INO, true)?;
        self.rebuild_directory(ROOT_INO, at, raw, true, Vec::new())
    }
}
