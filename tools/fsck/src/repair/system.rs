// SPDX-License-Identifier: GPL-2.0

//! The base of all others: superblocks, journal lanes, the inode table, the orphan file.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rdax_volume::env;
use rdax_volume::volume::check::{self, Kind, Problem};
use rdax_volume::volume::error::{Error, Result, Structure};
use rdax_volume::volume::extent::{joins, Mapping};
use rdax_volume::volume::format::{
    Extent, InodeChunk, OrphanSlot, RawInode, SuperBlock, BLOCK, INODE_BYTES, INODE_CHUNK_SLOTS,
    INODE_CHUNK_WORDS, LANE_BYTES, ORPHAN_BLOCKS, ORPHAN_INO, TABLE_INO,
};
use rdax_volume::volume::inode;
use rdax_volume::volume::journal::{self, LaneState};
use rdax_volume::volume::orphan;
use rdax_volume::volume::persist::{Dirty, Durable};
use rdax_volume::volume::pmem::{Pmem, LINE};
use rdax_volume::volume::super_block::{self, Geometry};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::inode::inode_chunk_header;
use super::log::{give_up, reset_lane};
use super::{is_local, of, Line, Repair, Said};

/// A superblock is in place.
struct Restored;

/// Blocks with a sound header of an inode chunk.
type Strays = BTreeMap<u64, InodeChunk>;

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

/// Writes the superblock that counts over the other one if that is damaged or differs. If both are
/// damaged, and one still has the lines that the other has lost, one is put together: its checksum
/// proves that it is right, and it has a witness. Otherwise one whose checksum is wrong is used, if
/// it has all witnesses: then the wrong part does not matter.
///
/// Fails as [`check::super_block`] does; with [`Error::Corrupt`] if neither can be trusted.
pub fn restore_super_blocks(pmem: &dyn Pmem, say: &mut dyn FnMut(Line)) -> Result<()> {
    let mut damaged = Vec::new();
    let found = check::super_block(pmem, &mut |problem| damaged.push(problem));
    for problem in &damaged {
        say(Line::Found(Box::new(problem.clone())));
    }
    let joined = match found {
        Err(Error::Corrupt { .. } | Error::NotRdax) if !damaged.is_empty() => {
            join(pmem, super_block::copy_at(pmem.len()))
        }
        _ => None,
    };
    let from_both = joined.is_some();
    let mut sb = joined.map_or(found, Ok)?;
    if damaged.is_empty() {
        return Ok(());
    }
    let from_first = sb.block.get() == 0;
    for at in [super_block::copy_at(sb.blocks.get() * BLOCK), 0] {
        super_block::seal(&mut sb, at);
        let mut now = SuperBlock::new_zeroed();
        let same = pmem.read(at, now.as_mut_bytes()).is_ok() && now.as_bytes() == sb.as_bytes();
        if same {
            continue;
        }
        store_super_block(pmem, at, &sb)?;
        let from = match (from_both, from_first) {
            (true, _) => "what is left of both",
            (false, false) => "its copy",
            (false, true) => "the first",
        };
        say(Line::Done(format!(
            "superblock at {at:#x} restored from {from}"
        )));
    }
    Ok(())
}

/// A superblock assembled from lines of the first and of the copy, if some choice of them is sound
/// in one of the two places; or one of the two, if it has all witnesses and only a wrong checksum.
fn join(pmem: &dyn Pmem, copy_at: u64) -> Option<SuperBlock> {
    const LINES: usize = size_of::<SuperBlock>() / LINE as usize;
    let (mut first, mut copy) = (SuperBlock::new_zeroed(), SuperBlock::new_zeroed());
    pmem.read(0, first.as_mut_bytes()).ok()?;
    pmem.read(copy_at, copy.as_mut_bytes()).ok()?;
    let named = |sb: &SuperBlock| check::super_block_bearing(pmem, sb).unwrap_or(0);
    let mut choices = (0..1_u32 << LINES).filter_map(|choice| {
        let mut bytes = first.as_bytes().to_vec();
        for line in (0..LINES).filter(|line| (choice >> line) & 1 == 1) {
            let range = line * LINE as usize..(line + 1) * LINE as usize;
            bytes[range.clone()].copy_from_slice(&copy.as_bytes()[range]);
        }
        let sb = SuperBlock::read_from_bytes(&bytes).ok()?;
        // The number of its own block may be that of the other one.
        [0, copy_at].into_iter().find_map(|at| {
            let mut sb = sb.clone();
            sb.block = U64::new(at / BLOCK);
            let holds = sb.crc.get() == super_block::checksum(&sb)
                && sb.magic == rdax_volume::volume::format::MAGIC
                && super_block::copy_at(sb.blocks.get().checked_mul(BLOCK)?) == copy_at;
            holds.then_some(sb)
        })
    });
    choices.find(|sb| named(sb) > 0).or_else(|| {
        let mut both = [first, copy].into_iter();
        both.find(|sb| named(sb) == check::WITNESSES)
    })
}

/// Lanes that prevent a mount: one without a header is reset, and a transaction that cannot be
/// replayed is given up.
pub(super) fn lanes(pmem: &dyn Pmem, problems: &[Problem], said: &mut Said<'_>) -> Result<bool> {
    let (_, geo) = super_block::read_at(pmem, 0)?;
    let index = |problem: &Problem| ((problem.at - geo.lane_at(0)) / LANE_BYTES) as u32;
    let mut done = false;
    for problem in of(problems, Structure::Lane) {
        let at = problem.at;
        match problem.kind {
            // No transaction has such a number, and hardly one could follow it.
            Kind::Retired {
                seq: 0x8000_0000_0000_0000..,
            }
            | Kind::NoHeader => {
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
    let mut body = env::Vec::new();
    for lane in 0..geo.lane_count {
        let at = geo.lane_at(lane);
        // Each separately: one that cannot be replayed is no reason to give up those of others.
        match journal::recover_lane(&pmem, &geo, lane, &mut body) {
            Ok(LaneState::Retired) => continue,
            Ok(LaneState::Torn) => {}
            Ok(LaneState::Logged) => said.say(format!("journal lane at {at:#x}: replayed")),
            Err(Error::Corrupt { .. }) => give_up_rest(pmem, &geo, lane, said)?,
            Err(e) => return Err(e),
        }
        done = true;
    }
    Ok(done)
}

/// Applies as much as possible of a transaction that cannot be replayed, and gives up the rest.
fn give_up_rest(pmem: &dyn Pmem, geo: &Geometry, lane: u32, said: &mut Said<'_>) -> Result<()> {
    let (at, mut body) = (geo.lane_at(lane), env::Vec::new());
    let (header, _) = journal::inspect(pmem, geo, lane, &mut body)?;
    let seq = header.seq.get();
    let what = match journal::salvage_lane(&pmem, geo, lane, &mut body) {
        Ok(left) => format!("{left} entries of transaction {seq} cannot be replayed, given up"),
        Err(Error::Corrupt { .. }) => {
            give_up(pmem, at, seq)?;
            format!("transaction {seq} cannot be replayed, given up")
        }
        Err(e) => return Err(e),
    };
    said.say(format!("journal lane at {at:#x}: {what}"));
    Ok(())
}

/// The name of a system inode in messages.
fn name(slot: u64) -> &'static str {
    match slot {
        0 => "inode table",
        _ => "orphan file",
    }
}

impl Repair<'_, '_> {
    /// Writes both superblocks.
    pub(super) fn put_super_block(&mut self, mut sb: SuperBlock) -> Result<()> {
        sb.generation.set(sb.generation.get().wrapping_add(1));
        for at in [0, super_block::copy_at(sb.blocks.get() * BLOCK)] {
            super_block::seal(&mut sb, at);
            store_super_block(self.media.pmem, at, &sb)?;
        }
        Ok(())
    }

    /// The inode of the inode table, and its tree.
    pub(super) fn inode_table(&mut self, problems: &[Problem]) -> Result<bool> {
        match self.copies(0, problems)? {
            None => self.rebuild_table(&BTreeSet::new()),
            Some(done) => Ok(done),
        }
    }

    /// The inode of the orphan file, and its tree. After the inode table, which may seem to have
    /// blocks of it.
    pub(super) fn orphan_file(&mut self, problems: &[Problem]) -> Result<bool> {
        match self.copies(1, problems)? {
            None => self.rebuild_orphans(problems),
            Some(done) => Ok(done),
        }
    }

    /// Makes the system inode in `slot` and its copy the same. `None` if they do not differ,
    /// otherwise whether something was done.
    fn copies(&mut self, slot: u64, problems: &[Problem]) -> Result<Option<bool>> {
        let mut found = problems
            .iter()
            .filter(|p| p.ino == Some(TABLE_INO + slot))
            .peekable();
        if found.peek().is_none() {
            return Ok(Some(false));
        }
        let (raw, what) = match self.media.system_inodes(slot) {
            [Some(first), Some(copy)] if first != copy => (
                self.better(slot, first, copy),
                "that of its inodes kept by which more is sound",
            ),
            [Some(one), None] | [None, Some(one)]
                if found.all(|p| p.kind == Kind::OneOfTwo) && !(slot == 0 && self.is_older()) =>
            {
                (one, "its inode restored from the other copy")
            }
            [None, None] => match self.media.misplaced_system_inode(slot) {
                Some(raw) => (raw, "its inode restored from the place of another"),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        self.write_system_inode(slot, raw)?;
        self.say(format!("{}: {what}", name(slot)));
        Ok(Some(true))
    }

    /// Whether the inode of the inode table is from before it grew: inode chunks are found behind
    /// its end, in blocks that it does not have.
    fn is_older(&self) -> bool {
        let (end, table) = (self.media.inode_chunks(), &self.media.table);
        let has = |block| {
            let mut runs = table.iter();
            runs.any(|m| (m.block..m.block + m.len).contains(&block))
        };
        let mut strays = self.stray_inode_chunks().into_iter();
        strays.any(|(index, block)| index >= end && !has(block))
    }

    /// Of two sound system inodes in `slot` that differ, the one with more structures where it
    /// says; the first if these are as many.
    fn better(&self, slot: u64, first: RawInode, copy: RawInode) -> RawInode {
        let found = |raw: &RawInode| {
            let extents = self.media.extents(raw);
            let blocks: u64 = extents.iter().map(|m| m.len).sum();
            let whole = raw.size.get() == blocks * BLOCK && raw.blocks.get() >= blocks;
            let sound = extents
                .iter()
                .flat_map(|m| (m.key..m.end()).map(move |key| (key, m.block + (key - m.key))));
            let sound = sound.filter(|&(key, block)| match slot {
                0 => self
                    .media
                    .inode_chunk_in(block * BLOCK)
                    .is_some_and(|header| header.index.get() == key),
                _ => self.is_orphan_block(key, block),
            });
            (sound.count(), whole)
        };
        if found(&copy) > found(&first) {
            copy
        } else {
            first
        }
    }

    /// Whether block `key` of the orphan file may be `block`: all its slots are empty, or sound.
    fn is_orphan_block(&self, key: u64, block: u64) -> bool {
        let per_block = BLOCK / size_of::<OrphanSlot>() as u64;
        (0..per_block).all(|i| {
            let at = block * BLOCK + i * size_of::<OrphanSlot>() as u64;
            let slot: Option<OrphanSlot> = self.media.get(at);
            slot.is_some_and(|slot| {
                let sum = orphan::checksum(self.media.geo.seed, &slot, key * per_block + i);
                let empty = slot.as_bytes().iter().all(|b| *b == 0);
                empty || slot.ino.get() != 0 && slot.crc.get() == sum
            })
        })
    }

    /// Rebuilds the inode table: inode chunks that its tree still leads to, then inode chunks with
    /// a sound header elsewhere, then empty ones. Those in `lost` are not where the tree says.
    pub(super) fn rebuild_table(&mut self, lost: &BTreeSet<u64>) -> Result<bool> {
        let old = self.media.system_inode(0);
        let said = old.as_ref().map_or(0, |raw| raw.size.get() / BLOCK);
        let mapped: u64 = self.media.table.iter().map(|m| m.len).sum();
        let most = said.max(mapped);
        // First where the tree leads and a header agrees; then where only a header says so; then
        // where only the tree leads.
        let mut chunks: BTreeMap<u64, u64> = BTreeMap::new();
        let mut doubtful = Vec::new();
        for m in self.media.table.clone() {
            for index in m.key..m.end() {
                let block = m.block + index - m.key;
                match self.media.inode_chunk_in(block * BLOCK) {
                    Some(header) if header.index.get() == index => {
                        chunks.insert(index, block);
                    }
                    // A sound header of another inode chunk proves that the key is wrong.
                    Some(header) if header.index.get() < most => {}
                    // The size and the number of blocks prove it, too, if there is no header.
                    _ if index < most && !lost.contains(&index) => doubtful.push((index, block)),
                    _ => {}
                }
            }
        }
        let mut strays = self.stray_inode_chunks();
        strays.retain(|(_, block)| doubtful.iter().all(|(_, other)| other != block));
        for (index, block) in strays.into_iter().chain(doubtful) {
            let taken = chunks.values().any(|taken| *taken == block);
            if !taken && !chunks.contains_key(&index) {
                chunks.insert(index, block);
            }
        }
        // Ignores a single header with a number far beyond the others.
        while let Some((&last, _)) = chunks.last_key_value() {
            if last < said.max(2 * chunks.len() as u64) {
                break;
            }
            chunks.remove(&last);
        }
        let last = chunks.last_key_value().map_or(0, |(index, _)| *index);
        // An impossibly large size does not count.
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
                None => match self.empty_inode_chunk(index) {
                    Ok(block) => block,
                    Err(e) if is_local(&e) => return Ok(self.lacks_space(0)),
                    Err(e) => return Err(e),
                },
            };
            push(&mut extents, index, block, 1);
        }
        match self.put_system_inode(0, old, &extents) {
            Err(e) if is_local(&e) => return Ok(self.lacks_space(0)),
            result => result?,
        }
        self.say(format!("inode table: rebuilt with {} chunks", count));
        Ok(true)
    }

    /// Inode chunks that begin, according to a sound header, at a block in use which is not known
    /// to be a file's: their index and block. If two places look like one inode chunk, the one with
    /// more inodes in use comes first, or else the one with more sound inodes.
    fn stray_inode_chunks(&self) -> Vec<(u64, u64)> {
        let inode_chunk_in = |block| Some((block, self.media.inode_chunk_in(block * BLOCK)?));
        let mut found: Strays = self
            .media
            .used_blocks()
            .filter_map(inode_chunk_in)
            .collect();
        for (_, raw) in self.media.inodes() {
            if found.is_empty() {
                break;
            }
            self.leave_out(&mut found, &raw);
        }
        let ranked = found.iter().map(|(&block, header)| {
            let (used, sound) = self.inodes_in(block, header);
            (Reverse((used.len(), sound)), block)
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort();
        let mut kept = Vec::new();
        for (_, block) in ranked {
            // A file of an earlier one may have the remains of a freed inode chunk.
            let Some(header) = found.remove(&block) else {
                continue;
            };
            kept.push((header.index.get(), block));
            for raw in self.inodes_in(block, &header).0 {
                self.leave_out(&mut found, &raw);
            }
        }
        kept.sort_by_key(|&(index, _)| index);
        kept
    }

    /// Removes from `found` the blocks in the content of `raw`.
    fn leave_out(&self, found: &mut Strays, raw: &RawInode) {
        let mut content = self.media.xattr_runs(raw);
        content.extend(self.media.extents(raw));
        for m in content {
            let inside: Vec<u64> = found
                .range(m.block..m.block + m.len)
                .map(|f| *f.0)
                .collect();
            for block in inside {
                found.remove(&block);
            }
        }
    }

    /// The sound inodes of the inode chunk in `block` that its header marks in use, and that have a
    /// link or a place in the orphan file; and the number of sound ones, in use or not.
    fn inodes_in(&self, block: u64, header: &InodeChunk) -> (Vec<RawInode>, usize) {
        let first = header.index.get().saturating_mul(INODE_CHUNK_SLOTS);
        let (mut used, mut sound) = (Vec::new(), 0);
        for slot in 1..INODE_CHUNK_SLOTS {
            let at = block * BLOCK + slot * INODE_BYTES;
            let Some(raw) = self.media.inode_in(at, first.saturating_add(slot)) else {
                continue;
            };
            sound += 1;
            let bit = (header.bitmap[(slot / 64) as usize].get() >> (slot % 64)) & 1;
            if bit == 1 && (raw.nlink.get() > 0 || raw.orphan.get() > 0) {
                used.push(raw);
            }
        }
        (used, sound)
    }

    /// A new inode chunk, without an inode.
    fn empty_inode_chunk(&mut self, index: u64) -> Result<u64> {
        let geo = self.media.geo;
        let run = self.take(1)?;
        self.media
            .pmem
            .zero_nt(run.block * BLOCK, run.len * BLOCK)?;
        let place = (index, run.block);
        let header = inode_chunk_header(geo.seed, place, [0; INODE_CHUNK_WORDS], (1, [0; 26]));
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
    fn rebuild_orphans(&mut self, problems: &[Problem]) -> Result<bool> {
        let old = self.media.system_inode(1);
        let twice = |block: u64| {
            let mut of_file = problems.iter().filter(|p| p.ino == Some(ORPHAN_INO));
            of_file.any(|p| match p.kind {
                Kind::UsedTwice { block: first, len } => (first..first + len).contains(&block),
                _ => false,
            })
        };
        let mut extents: Vec<Mapping> = Vec::new();
        'file: for m in old
            .as_ref()
            .map_or(Vec::new(), |raw| self.media.extents(raw))
        {
            for (key, block) in (m.key..).zip(m.block..m.block + m.len) {
                let next = key == extents.last().map_or(0, Mapping::end);
                if !next || twice(block) || !self.is_orphan_block(key, block) {
                    break 'file;
                }
                push(&mut extents, key, block, 1);
            }
        }
        if extents.is_empty() {
            let blocks = match self.take_all(ORPHAN_BLOCKS as usize) {
                Err(e) if is_local(&e) => return Ok(self.lacks_space(1)),
                blocks => blocks?,
            };
            for (key, block) in (0..).zip(blocks) {
                self.media.pmem.zero_nt(block * BLOCK, BLOCK)?;
                push(&mut extents, key, block, 1);
            }
            self.media.pmem.fence()?;
        }
        match self.put_system_inode(1, old, &extents) {
            Err(e) if is_local(&e) => return Ok(self.lacks_space(1)),
            result => result?,
        }
        self.say("orphan file: rebuilt".into());
        Ok(true)
    }

    /// The system inode in `slot` is not repaired for lack of space. Always false.
    fn lacks_space(&mut self, slot: u64) -> bool {
        self.say(format!("{}: not repaired: {}", name(slot), Error::NoSpace));
        self.short = true;
        false
    }

    fn put_system_inode(
        &mut self,
        slot: u64,
        old: Option<RawInode>,
        extents: &[Mapping],
    ) -> Result<()> {
        let mut raw = old.unwrap_or_else(|| {
            let mut raw = RawInode::new_zeroed();
            raw.ino = U64::new(TABLE_INO + slot);
            raw.generation = U32::new(1);
            raw.nlink = U32::new(1);
            raw
        });
        raw.root.fill(Extent::default());
        (raw.root_count, raw.depth) = (U16::ZERO, 0);
        raw.xattr_block = U64::ZERO;
        raw.size = U64::new(extents.last().map_or(0, Mapping::end) * BLOCK);
        self.grow_tree(&mut raw, extents)?;
        self.write_system_inode(slot, raw)
    }

    /// Writes the system inode in `slot`, sealed, and its copy. If what is overwritten is all that
    /// there is of the other one, that is written to its own places.
    fn write_system_inode(&mut self, slot: u64, raw: RawInode) -> Result<()> {
        let geo = self.media.geo;
        let mut inodes = vec![(slot, raw)];
        if let [None, None] = self.media.system_inodes(1 - slot) {
            let other = self.media.misplaced_system_inode(1 - slot);
            inodes.extend(other.map(|raw| (1 - slot, raw)));
        }
        let mut writes = Vec::new();
        for (slot, mut raw) in inodes {
            inode::seal(&mut raw, geo.seed);
            let places = [geo.system_inode_at(slot), geo.system_copy_at(slot)];
            writes.extend(places.map(|at| (at, raw.as_bytes().to_vec())));
        }
        self.log.commit(&writes)
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
