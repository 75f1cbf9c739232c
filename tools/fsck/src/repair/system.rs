// SPDX-License-Identifier: GPL-2.0

//! What the rest hangs from: superblocks, journal lanes, the inode table, the orphan file.

use std::collections::{BTreeMap, BTreeSet};

use rdax_volume::env;
use rdax_volume::volume::check::{self, Kind, Problem};
use rdax_volume::volume::error::{Error, Result, Structure};
use rdax_volume::volume::extent::{joins, Mapping};
use rdax_volume::volume::format::{
    Extent, RawInode, SuperBlock, BLOCK, INODE_CHUNK_BLOCKS, LANE_BYTES, ORPHAN_BLOCKS, ORPHAN_INO,
    TABLE_INO,
};
use rdax_volume::volume::journal::{self, LaneState};
use rdax_volume::volume::persist::{Dirty, Durable};
use rdax_volume::volume::pmem::{Pmem, LINE};
use rdax_volume::volume::super_block;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::inode::chunk_header;
use super::log::{give_up, reset_lane};
use super::{is_local, of, Line, Repair, Said};

/// A superblock is in place.
struct Restored;

fn store_super_block(pmem: &dyn Pmem, at: u64, sb: &SuperBlock) -> Result<()> {
    let mut block = vec![0; BLOCK as usize];
    if pmem.read(at, &mut block).is_err() {
        // Only a whole block makes bad media good. There is nothing else in it.
        block.fill(0);
        block[..size_of::<SuperBlock>()].copy_from_slice(sb.as_bytes());
        pmem.store_nt(at, &block)?;
        return pmem.fence();
    }
    let mut dirty: Dirty<'_, _, Restored> = Dirty::new(&pmem);
    dirty.store(at, sb.as_bytes())?;
    let _: Durable<Restored> = dirty.write_back().fence()?;
    Ok(())
}

/// Writes the valid superblock over the other one where that is damaged or differs. Where both are
/// damaged, and the lines that one has lost the other still has, one is put together: its checksum
/// says that it is right.
///
/// Fails as [`check::super_block`] does; with [`Error::Corrupt`] if neither can be trusted.
pub fn restore_super_blocks(pmem: &dyn Pmem, say: &mut dyn FnMut(Line)) -> Result<()> {
    let mut damaged = Vec::new();
    let mut found = check::super_block(pmem, &mut |problem| damaged.push(problem));
    for problem in &damaged {
        say(Line::Found(Box::new(problem.clone())));
    }
    let copy_at = super_block::copy_at(pmem.len());
    let mut from_both = false;
    if matches!(found, Err(Error::Corrupt { .. } | Error::NotRdax)) {
        // Geometry that cannot be, or a checksum that does not hold, in the first: the copy may do.
        let own = |sb: &SuperBlock| super_block::copy_at(sb.blocks.get() * BLOCK) == copy_at;
        let copy = super_block::read_at(pmem, copy_at).map(|(sb, _)| sb);
        let other = match copy {
            Ok(sb) if own(&sb) => Some(sb),
            _ => {
                from_both = true;
                join(pmem, copy_at).filter(own)
            }
        };
        if let (Some(sb), false) = (other, damaged.is_empty()) {
            found = Ok(sb);
        }
    }
    let sb = found?;
    let copy_at = super_block::copy_at(sb.blocks.get() * BLOCK);
    for at in [copy_at, 0] {
        let hit = damaged
            .iter()
            .any(|p| p.at == at && p.what == Structure::SuperBlock);
        let mut now = SuperBlock::new_zeroed();
        let same = pmem.read(at, now.as_mut_bytes()).is_ok() && now.as_bytes() == sb.as_bytes();
        let hit = hit
            && damaged
                .iter()
                .any(|p| p.at == at && !matches!(p.kind, Kind::Reserved(_)));
        if !hit || same {
            continue;
        }
        store_super_block(pmem, at, &sb)?;
        let from = match (from_both, at) {
            (true, _) => "what is left of both",
            (false, 0) => "its copy",
            (false, _) => "the first",
        };
        say(Line::Done(format!(
            "superblock at {at:#x} restored from {from}"
        )));
    }
    Ok(())
}

/// A superblock of lines of the first and of the copy, if some choice of them has the checksum that
/// it says.
fn join(pmem: &dyn Pmem, copy_at: u64) -> Option<SuperBlock> {
    const LINES: usize = size_of::<SuperBlock>() / LINE as usize;
    let (mut first, mut copy) = (SuperBlock::new_zeroed(), SuperBlock::new_zeroed());
    pmem.read(0, first.as_mut_bytes()).ok()?;
    pmem.read(copy_at, copy.as_mut_bytes()).ok()?;
    (0..1_u32 << LINES).find_map(|choice| {
        let mut bytes = first.as_bytes().to_vec();
        for line in (0..LINES).filter(|line| (choice >> line) & 1 == 1) {
            let range = line * LINE as usize..(line + 1) * LINE as usize;
            bytes[range.clone()].copy_from_slice(&copy.as_bytes()[range]);
        }
        let sb = SuperBlock::read_from_bytes(&bytes).ok()?;
        let holds = sb.crc.get() == super_block::checksum(&sb);
        (holds && sb.magic == rdax_volume::volume::format::MAGIC).then_some(sb)
    })
}

/// Lanes that keep the volume from being mounted: one without a header begins anew, and where a
/// transaction cannot be replayed it is given up.
pub(super) fn lanes(pmem: &dyn Pmem, problems: &[Problem], said: &mut Said<'_>) -> Result<bool> {
    let (_, geo) = super_block::read_at(pmem, 0)?;
    let index = |problem: &Problem| ((problem.at - geo.lane_at(0)) / LANE_BYTES) as u32;
    let mut done = false;
    for problem in of(problems, Structure::Lane) {
        let at = problem.at;
        match problem.kind {
            Kind::NoHeader => {
                reset_lane(pmem, &geo, index(problem))?;
                said.say(format!(
                    "journal lane at {at:#x}: made anew; what was in it is lost"
                ));
            }
            Kind::Retired { seq } => {
                give_up(pmem, at, seq)?;
                said.say(format!(
                    "journal lane at {at:#x}: transaction {seq} may not be in place, given up"
                ));
            }
            _ => continue,
        }
        done = true;
    }
    if done {
        super::replay(pmem, said);
        return Ok(true);
    }
    for lane in 0..geo.lane_count {
        let at = geo.lane_at(lane);
        match journal::inspect(pmem, &geo, lane, &mut env::Vec::new())? {
            (_, LaneState::Retired) => continue,
            (header, LaneState::Logged) => {
                give_up(pmem, at, header.seq.get())?;
                said.say(format!(
                    "journal lane at {at:#x}: transaction {} cannot be replayed, given up",
                    header.seq
                ));
            }
            // Mount would have cancelled it if all lanes were sound.
            (_, LaneState::Torn) => {
                super::replay(pmem, said);
                continue;
            }
        }
        done = true;
    }
    Ok(done)
}

impl Repair<'_, '_> {
    /// Writes both superblocks.
    pub(super) fn put_super_block(&mut self, mut sb: SuperBlock) -> Result<()> {
        super_block::seal(&mut sb);
        store_super_block(self.media.pmem, 0, &sb)?;
        let copy_at = super_block::copy_at(sb.blocks.get() * BLOCK);
        store_super_block(self.media.pmem, copy_at, &sb)
    }

    /// Fields of the superblock that must be zero.
    pub(super) fn super_block(&mut self, problems: &[Problem]) -> Result<bool> {
        let wrong = |p: &Problem| matches!(p.kind, Kind::Reserved(_));
        if !of(problems, Structure::SuperBlock).any(wrong) {
            return Ok(false);
        }
        let mut sb = self.media.sb.clone();
        sb.reserved.fill(0);
        self.put_super_block(sb)?;
        self.say("superblock: fields corrected".into());
        Ok(true)
    }

    /// The inodes of the inode table and of the orphan file, and their trees.
    pub(super) fn system_inodes(&mut self, problems: &[Problem]) -> Result<bool> {
        let hit = |ino| problems.iter().any(|problem| problem.ino == Some(ino));
        if hit(TABLE_INO) {
            return self.rebuild_table(&BTreeSet::new());
        }
        if hit(ORPHAN_INO) {
            return self.rebuild_orphans();
        }
        Ok(false)
    }

    /// Builds the inode table anew: chunks that its tree still leads to, then chunks with a sound
    /// header that lie somewhere, then empty ones. Those in `lost` are not where the tree says.
    pub(super) fn rebuild_table(&mut self, lost: &BTreeSet<u64>) -> Result<bool> {
        let geo = self.media.geo;
        let at = geo.system_inode_at(0);
        let old = self.media.inode_in(at, TABLE_INO);
        let said = old
            .as_ref()
            .map_or(0, |raw| raw.size.get() / BLOCK / INODE_CHUNK_BLOCKS);
        let mapped: u64 = self.media.table.iter().map(|m| m.len).sum();
        let most = said.max(mapped / INODE_CHUNK_BLOCKS);
        let mut chunks: BTreeMap<u64, u64> = BTreeMap::new();
        for m in self.media.table.clone() {
            let first = m.key.div_ceil(INODE_CHUNK_BLOCKS);
            for index in first..m.end() / INODE_CHUNK_BLOCKS {
                let block = m.block + index * INODE_CHUNK_BLOCKS - m.key;
                // A sound header of another chunk says that the key is wrong. So do the size and the
                // number of blocks, where there is no header.
                let header = self.media.chunk_in(block * BLOCK);
                let other = header.map_or(index >= most, |header| header.index.get() != index);
                if !other && !lost.contains(&index) {
                    chunks.insert(index, block);
                }
            }
        }
        let mut candidates: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for block in self.stray_chunks() {
            if let Some(header) = self.media.chunk_in(block * BLOCK) {
                candidates
                    .entry(header.index.get())
                    .or_default()
                    .push(block);
            }
        }
        for (index, found) in candidates {
            if chunks.contains_key(&index) {
                continue;
            }
            // Where mkfs.rdax puts the first one.
            let block = if index == 0 && found.contains(&geo.data_block) {
                geo.data_block
            } else if let [block] = found[..] {
                block
            } else {
                self.say(format!(
                    "inode table: {} places look like chunk {index}, so none is taken",
                    found.len()
                ));
                return Ok(false);
            };
            if !chunks
                .values()
                .any(|taken| taken.abs_diff(block) < INODE_CHUNK_BLOCKS)
            {
                chunks.insert(index, block);
            }
        }
        let last = chunks.last_key_value().map_or(0, |(index, _)| *index);
        // A size that is too large to be true has no weight.
        let count = if said <= 2 * (last + 1) {
            said.max(last + 1)
        } else {
            last + 1
        };
        if count as usize > 2 * chunks.len().max(1) {
            self.say("inode table: too little of it can be found".into());
            return Ok(false);
        }
        let mut extents: Vec<Mapping> = Vec::new();
        for index in 0..count {
            let block = match chunks.get(&index) {
                Some(block) => *block,
                None => match self.empty_chunk(index) {
                    Ok(block) => block,
                    Err(e) if is_local(&e) => return Ok(false),
                    Err(e) => return Err(e),
                },
            };
            push(
                &mut extents,
                index * INODE_CHUNK_BLOCKS,
                block,
                INODE_CHUNK_BLOCKS,
            );
        }
        self.put_system_inode(at, TABLE_INO, old, &extents)?;
        self.say(format!("inode table: rebuilt with {} chunks", count));
        Ok(true)
    }

    /// Blocks in use that begin like a chunk of the inode table.
    fn stray_chunks(&self) -> Vec<u64> {
        let whole = |block: &u64| self.media.geo.is_data(*block, INODE_CHUNK_BLOCKS);
        let sound = |block: &u64| self.media.chunk_in(block * BLOCK).is_some();
        let used = self.media.used_blocks().filter(whole);
        used.filter(sound).collect()
    }

    /// A new chunk of the inode table, without an inode.
    fn empty_chunk(&mut self, index: u64) -> Result<u64> {
        // In a row, so runs that are too short are left, and freed in the end.
        let run = loop {
            let run = self.take(INODE_CHUNK_BLOCKS)?;
            if run.len == INODE_CHUNK_BLOCKS {
                break run;
            }
        };
        self.media
            .pmem
            .zero_nt(run.block * BLOCK, run.len * BLOCK)?;
        let header = chunk_header(index, [0; 4]);
        self.media
            .pmem
            .store_nt(run.block * BLOCK, header.as_bytes())?;
        self.media.pmem.fence()?;
        self.say(format!(
            "inode table: chunk {index} is lost, an empty one takes its place"
        ));
        Ok(run.block)
    }

    /// The orphan file: as far as it is whole, or an empty one.
    fn rebuild_orphans(&mut self) -> Result<bool> {
        let at = self.media.geo.system_inode_at(1);
        let old = self.media.inode_in(at, ORPHAN_INO);
        let mut extents = Vec::new();
        for m in old
            .as_ref()
            .map_or(Vec::new(), |raw| self.media.extents(raw))
        {
            if m.key == extents.last().map_or(0, Mapping::end) {
                push(&mut extents, m.key, m.block, m.len);
            }
        }
        if extents.is_empty() {
            let blocks = match self.take_all(ORPHAN_BLOCKS as usize) {
                Err(e) if is_local(&e) => return Ok(false),
                blocks => blocks?,
            };
            for (key, block) in (0..).zip(blocks) {
                self.media.pmem.zero_nt(block * BLOCK, BLOCK)?;
                push(&mut extents, key, block, 1);
            }
            self.media.pmem.fence()?;
        }
        self.put_system_inode(at, ORPHAN_INO, old, &extents)?;
        self.say("orphan file: rebuilt".into());
        Ok(true)
    }

    fn put_system_inode(
        &mut self,
        at: u64,
        ino: u64,
        old: Option<RawInode>,
        extents: &[Mapping],
    ) -> Result<()> {
        let mut raw = old.unwrap_or_else(|| {
            let mut raw = RawInode::new_zeroed();
            raw.ino = U64::new(ino);
            raw.generation = U32::new(1);
            raw.nlink = U32::new(1);
            raw
        });
        raw.root.fill(Extent::default());
        (raw.root_count, raw.depth) = (U16::ZERO, 0);
        raw.xattr_block = U64::ZERO;
        raw.size = U64::new(extents.last().map_or(0, Mapping::end) * BLOCK);
        self.grow_tree(&mut raw, extents)?;
        self.put_inode(at, raw)
    }
}

/// Appends an extent, to the last one if it continues that.
fn push(extents: &mut Vec<Mapping>, key: u64, block: u64, len: u64) {
    let new = Mapping::new(key, block, len);
    match extents.last_mut() {
        Some(last) if joins(last, &new) => last.len += len,
        _ => extents.push(new),
    }
}
