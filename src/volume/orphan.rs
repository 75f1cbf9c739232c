// SPDX-License-Identifier: GPL-2.0

//! The orphan file: inodes that the next mount has to process after a crash.
//!
//! An inode enters it in the transaction that removes its last link while it may still be in use,
//! or with the first transaction of an operation that takes several (`task.rs`), and leaves it in
//! the transaction that ends this. An inode records its slot
//! ([`RawInode::orphan`](super::format::RawInode::orphan)). [`Volume::recover_orphans`] completes
//! what a crash has interrupted.
//!
//! A system inode maps the file. Which slots are in use is known in memory; mount reads the file
//! once. It grows when it is full, and shrinks when its end is empty. Enough free blocks are
//! reserved for it to grow to a slot for each inode, so removing a name never fails for lack of
//! space.
//!
//! Lock order: the file → a journal lane → the slots.

use zerocopy::little_endian::{U32, U64};
use zerocopy::IntoBytes;

use super::alloc::Want;
use super::error::{Error, Result, Structure};
use super::extent::{self, Mapping, Media, KEY_END};
use super::file::check_file;
use super::format::{OrphanSlot, BLOCK, ORPHAN_BLOCKS, WORK_NONE};
use super::inode::{Before, Inode, WHOLE};
use super::num::{to_i64, to_u32, to_u64, to_usize};
use super::pmem::{read_struct, Pmem};
use super::super_block::Geometry;
use super::task::{Task, Work};
use super::Volume;
use crate::env::{crc32c, Counter, Lock, Vec};

/// Slots of a block.
const PER_BLOCK: u64 = BLOCK / SLOT;
/// Words of a block's bits.
const WORDS: usize = to_usize(PER_BLOCK / 64);
/// Nodes that the tree of the file may need at once.
const NODES: u64 = 8;
/// The end of the file is checked after this many slots were released.
const SHRINK_AFTER: u64 = 1024;
/// The most blocks of the file, so that 32 bits can hold any slot number plus one.
const BLOCKS_MAX: u64 = u32::MAX as u64 / PER_BLOCK;
/// Bytes of a slot.
const SLOT: u64 = size_of::<OrphanSlot>() as u64;

/// The orphan file in memory.
pub(super) struct Orphans {
    /// The system inode with the file's extents.
    inode: Lock<Inode>,
    slots: Lock<Slots>,
    /// The number of slots.
    count: Counter,
}

/// Where the slots are, and which are in use.
struct Slots {
    /// The blocks of the file.
    blocks: Vec<u64>,
    /// A bit for each slot, set if it is in use or reserved.
    used: Vec<u64>,
    /// The words of `used` before this one have no free slot.
    first: usize,
    /// Slots released since the end of the file was checked.
    released: u64,
    /// The last block with a slot in use at that time.
    last_used: usize,
}

/// A slot that nobody else can get. Dropping it releases the slot; nothing is on the media.
#[must_use = "dropping a reservation gives the slot back"]
pub struct OrphanReservation<'v, P: Pmem> {
    vol: &'v Volume<P>,
    slot: u32,
    /// Byte address.
    at: u64,
}

impl<P: Pmem> OrphanReservation<'_, P> {
    /// The slot's byte address, and its content for `ino` and its unfinished work.
    pub(super) fn content(&self, ino: u64, task: Option<Task>) -> (u64, [u8; to_usize(SLOT)]) {
        let mut bytes = [0; to_usize(SLOT)];
        let slot = seal(self.vol.geo.seed, ino, task, self.slot.into());
        bytes.copy_from_slice(slot.as_bytes());
        (self.at, bytes)
    }

    /// Transfers the slot to the caller, who releases it.
    pub(super) fn into_slot(self) -> u32 {
        let slot = self.slot;
        core::mem::forget(self);
        slot
    }
}

impl<P: Pmem> Drop for OrphanReservation<'_, P> {
    fn drop(&mut self) {
        self.vol.orphans.release(self.slot);
    }
}

fn corrupt(at: u64) -> Error {
    Error::Corrupt {
        what: Structure::Orphan,
        at,
    }
}

/// Slot `index` with inode `ino` and its unfinished `task`, in a volume of this `seed`.
fn seal(seed: u32, ino: u64, task: Option<Task>, index: u64) -> OrphanSlot {
    let (work, (from, to)) = match task {
        Some(task) => (task.work.on_media(), task.keys),
        None => (WORK_NONE, (0, 0)),
    };
    let mut slot = OrphanSlot {
        ino: U64::new(ino),
        crc: U32::ZERO,
        work: U32::new(work),
        from: U64::new(from),
        to: U64::new(to),
    };
    slot.crc = U32::new(checksum(seed, &slot, index));
    slot
}

/// Slot `index` with inode `ino`, which only has to be freed.
pub fn unlinked(seed: u32, ino: u64, index: u64) -> OrphanSlot {
    seal(seed, ino, None, index)
}

/// The checksum of `slot`, which is slot `index`.
pub fn checksum(seed: u32, slot: &OrphanSlot, index: u64) -> u32 {
    let crc = crc32c(seed, slot.ino.as_bytes());
    let crc = crc32c(crc, slot.work.as_bytes());
    let crc = crc32c(crc, slot.from.as_bytes());
    let crc = crc32c(crc, slot.to.as_bytes());
    crc32c(crc, &index.to_le_bytes())
}

/// The work recorded in `slot`. `None` also if it is not valid.
fn task(slot: &OrphanSlot) -> Option<Task> {
    let work = Work::of_media(slot.work.get())?;
    let keys = (slot.from.get(), slot.to.get());
    (keys.0 < keys.1 && keys.1 <= KEY_END).then_some(Task { work, keys })
}

impl Slots {
    fn at(&self, slot: u32) -> Result<u64> {
        let slot = u64::from(slot);
        match self.blocks.get(to_usize(slot / PER_BLOCK)) {
            Some(block) => Ok(block * BLOCK + slot % PER_BLOCK * SLOT),
            None => Err(corrupt(0)),
        }
    }

    /// Takes the first free slot and returns it with its byte address.
    fn take(&mut self) -> Result<Option<(u32, u64)>> {
        while let Some(word) = self.used.get_mut(self.first) {
            if *word != u64::MAX {
                let bit = word.trailing_ones();
                *word |= 1 << bit;
                let slot = to_u32(self.first * 64) + bit;
                return Ok(Some((slot, self.at(slot)?)));
            }
            self.first += 1;
        }
        Ok(None)
    }

    /// The blocks of the file up to the last that has a slot in use.
    fn used_blocks(&self) -> usize {
        let words = self.used.iter().rposition(|word| *word != 0);
        words.map_or(0, |last| last / WORDS + 1)
    }

    /// Adds the blocks of `m`; the content of their slots is read from the media.
    fn add<P: Pmem>(&mut self, pmem: &P, geo: &Geometry, m: Mapping) -> Result<()> {
        if m.key != self.blocks.len() as u64 || !geo.is_data(m.block, m.len) {
            return Err(corrupt(m.block.saturating_mul(BLOCK)));
        }
        self.reserve(m.len)?;
        for block in m.block..m.block + m.len {
            let mut used = [0; WORDS];
            for (first, word) in (0..).step_by(64).zip(&mut used) {
                for bit in 0..64 {
                    let at = block * BLOCK + (first + bit) * SLOT;
                    let slot: OrphanSlot = read_struct(pmem, at)?;
                    if slot.ino.get() != 0 || slot.crc.get() != 0 {
                        *word |= 1 << bit;
                    }
                }
            }
            self.push(block, used)?;
        }
        Ok(())
    }

    /// Makes room for `blocks` more, so that as many can be pushed without an error.
    fn reserve(&mut self, blocks: u64) -> Result<()> {
        self.blocks.reserve(to_usize(blocks))?;
        Ok(self.used.reserve(to_usize(blocks) * WORDS)?)
    }

    /// Adds `block`; of its slots those in `used` are in use.
    fn push(&mut self, block: u64, used: [u64; WORDS]) -> Result<()> {
        self.used.extend_from_slice(&used)?;
        Ok(self.blocks.push(block)?)
    }

    /// Marks all slots from `block` on free, or unavailable.
    fn fill(&mut self, block: usize, word: u64) {
        if let Some(rest) = self.used.get_mut(block * WORDS..) {
            rest.fill(word);
        }
        self.first = self.first.min(block * WORDS);
    }

    /// Forgets the blocks after the first `count`.
    fn truncate(&mut self, count: usize) {
        self.blocks.truncate(count);
        self.used.truncate(count * WORDS);
    }
}

impl Orphans {
    /// Reads the orphan file whose system inode is `inode`.
    pub(super) fn read<P: Pmem>(media: &Media<'_, P>, inode: Inode) -> Result<Self> {
        let mut slots = Slots {
            blocks: Vec::new(),
            used: Vec::new(),
            first: 0,
            released: 0,
            last_used: usize::MAX,
        };
        let end = inode.size() / BLOCK;
        if end > BLOCKS_MAX {
            return Err(corrupt(inode.at()));
        }
        let mut key = 0;
        while key < end {
            let found = extent::lookup(media, None, inode.raw(), inode.at(), key)?;
            let m = found.floor.ok_or(corrupt(inode.at()))?;
            if m.key != key || m.unwritten {
                return Err(corrupt(inode.at()));
            }
            slots.add(media.pmem, media.geo, m)?;
            key = m.end();
        }
        Ok(Orphans {
            count: Counter::new(to_i64(end * PER_BLOCK)),
            inode: Lock::new(inode)?,
            slots: Lock::new(slots)?,
        })
    }

    /// The byte address of `slot`, and the content of an empty slot.
    pub(super) fn empty(&self, slot: u32) -> Result<(u64, [u8; to_usize(SLOT)])> {
        Ok((self.slots.lock().at(slot)?, [0; to_usize(SLOT)]))
    }

    /// Makes `slot`, empty on the media, free.
    pub(super) fn release(&self, slot: u32) {
        let mut slots = self.slots.lock();
        let at = slot as usize / 64;
        if let Some(word) = slots.used.get_mut(at) {
            *word &= !(1 << (slot % 64));
        }
        slots.first = slots.first.min(at);
        slots.released += match at / WORDS == slots.last_used {
            true => SHRINK_AFTER,
            false => 1,
        };
    }

    /// The first slot in use from `from` on, and its byte address.
    fn next_used(&self, from: u32) -> Result<Option<(u32, u64)>> {
        let slots = self.slots.lock();
        let mut slot = from;
        while let Some(word) = slots.used.get((slot / 64) as usize) {
            let rest = word >> (slot % 64);
            if rest != 0 {
                slot += rest.trailing_zeros();
                return Ok(Some((slot, slots.at(slot)?)));
            }
            slot = (slot / 64 + 1) * 64;
        }
        Ok(None)
    }
}

impl<P: Pmem> Volume<P> {
    /// Reserves a slot of the orphan file, growing the file if needed. Not called within a
    /// transaction.
    pub fn reserve_orphan(&self) -> Result<OrphanReservation<'_, P>> {
        let taken = self.orphans.slots.lock().take()?;
        let (slot, at) = match taken {
            Some(taken) => taken,
            None => self.grow_orphans()?,
        };
        Ok(OrphanReservation {
            vol: self,
            slot,
            at,
        })
    }

    /// Adds blocks to the orphan file and takes a slot.
    fn grow_orphans(&self) -> Result<(u32, u64)> {
        let mut inode = self.orphans.inode.lock();
        // While this thread waited, another may have done it.
        if let Some(taken) = self.orphans.slots.lock().take()? {
            return Ok(taken);
        }
        let key = inode.size() / BLOCK;
        if key + ORPHAN_BLOCKS > BLOCKS_MAX {
            return Err(Error::NoSpace);
        }
        let reservation = self.reserve(Want::blocks(ORPHAN_BLOCKS).for_removal())?;
        // Once the file has grown, nothing can fail.
        self.orphans.slots.lock().reserve(reservation.run().len)?;
        extent::make_room(self, &mut inode, key, 1)?;
        let mut tx = self.begin()?;
        let run = tx.take(reservation)?;
        tx.init_zero(run.block * BLOCK, run.len * BLOCK)?;
        let mapping = Mapping::new(key, run.block, run.len);
        let before = inode.before::<WHOLE>();
        let result = self.map_at_end(tx, &mut inode, &before, mapping);
        if result.is_err() {
            inode.restore(&before);
            result?;
        }
        let mut slots = self.orphans.slots.lock();
        for block in run.block..run.end() {
            slots.push(block, [0; WORDS])?;
        }
        self.orphans.count.add(to_i64(run.len * PER_BLOCK));
        slots.take()?.ok_or(Error::NoSpace)
    }

    /// Free blocks that are reserved so that each inode in use can have a slot of the orphan file,
    /// including the nodes of its tree.
    pub fn kept_for_removal(&self) -> u64 {
        let lacking = self.used_inodes.get() - self.orphans.count.get();
        match to_u64(lacking).div_ceil(PER_BLOCK) {
            0 => 0,
            blocks => blocks + blocks / 126 + NODES,
        }
    }

    /// Frees the blocks at the end of the orphan file without a slot in use, if there are many. Not
    /// called within a transaction.
    pub(super) fn shrink_orphans(&self) -> Result<()> {
        if self.orphans.slots.lock().released < SHRINK_AFTER {
            return Ok(());
        }
        let mut inode = self.orphans.inode.lock();
        let (keep, count) = {
            let mut slots = self.orphans.slots.lock();
            slots.released = 0;
            let count = slots.blocks.len();
            let used = slots.used_blocks();
            slots.last_used = used.saturating_sub(1);
            let keep = used + to_usize(ORPHAN_BLOCKS);
            if keep >= count {
                return Ok(());
            }
            // From here on nobody can get them.
            slots.fill(keep, u64::MAX);
            (keep, count)
        };
        let count_from = |count| to_i64((count - keep as u64) * PER_BLOCK);
        self.orphans.count.add(-count_from(count as u64));
        let mut to = KEY_END;
        let result = loop {
            let before = inode.before::<WHOLE>();
            match self.cut_orphans(&mut inode, &before, (keep as u64, to)) {
                Ok(Some(left)) => to = left,
                Ok(None) => break Ok(()),
                Err(error) => {
                    inode.restore(&before);
                    break Err(error);
                }
            }
        };
        // After an error, some still exist.
        let count = inode.size() / BLOCK;
        let mut slots = self.orphans.slots.lock();
        slots.truncate(to_usize(count));
        slots.fill(keep, 0);
        self.orphans.count.add(count_from(count));
        result
    }

    /// Removes as many of the blocks `from..to` from the end of the file as one transaction can.
    fn cut_orphans(
        &self,
        inode: &mut Inode,
        before: &Before<WHOLE>,
        (from, to): (u64, u64),
    ) -> Result<Option<u64>> {
        let mut tx = self.begin()?;
        let (left, edited) = extent::cut(&mut tx, &self.media(), inode, (from, to))?;
        inode.raw.size = U64::new(left.unwrap_or(from) * BLOCK);
        inode.log_change(&mut tx, before)?;
        tx.commit()?;
        inode.keep(edited);
        Ok(left)
    }

    /// Frees the inodes that were unlinked but still in use, and completes the operations that were
    /// in progress, when the volume was last used. Called once, after mount and before anything
    /// else, if the volume may be written. Returns the number of inodes.
    ///
    /// An inode that cannot be recovered is left for a repair; the others are recovered all the
    /// same, and then the first error is returned.
    pub fn recover_orphans(&self) -> Result<u64> {
        let (mut count, mut first_error) = (0, Ok(()));
        let mut from = 0;
        while let Some((slot, at)) = self.orphans.next_used(from)? {
            from = slot + 1;
            match self.recover_orphan(slot, at) {
                Ok(()) => count += 1,
                Err(e) if first_error.is_ok() => first_error = Err(e),
                Err(_) => {}
            }
        }
        first_error.map(|()| count)
    }

    /// Frees the inode `ino`, which has no name and is in the orphan file, and which nobody uses.
    pub fn free_orphan(&self, ino: u64) -> Result<()> {
        self.free_inode(&mut self.iget(ino)?)
    }

    /// The unfinished work of `inode`, which refers to slot `slot`.
    pub(super) fn task_of(&self, inode: &Inode, slot: u32) -> Result<Option<Task>> {
        let Ok(at) = self.orphans.slots.lock().at(slot) else {
            return Err(Error::Corrupt {
                what: Structure::Inode,
                at: inode.at(),
            });
        };
        let entry: OrphanSlot = read_struct(&self.pmem, at)?;
        let names_it = entry.ino.get() == inode.ino()
            && entry.crc.get() == checksum(self.geo.seed, &entry, slot.into());
        Ok(task(&entry).filter(|_| names_it))
    }

    fn recover_orphan(&self, slot: u32, at: u64) -> Result<()> {
        let entry: OrphanSlot = read_struct(&self.pmem, at)?;
        let ino = entry.ino.get();
        if entry.crc.get() != checksum(self.geo.seed, &entry, slot.into()) {
            return Err(corrupt(at));
        }
        let mut inode = match self.iget(ino) {
            Err(Error::Stale) => return Err(corrupt(at)),
            inode => inode?,
        };
        if inode.raw().orphan.get() != slot + 1 {
            return Err(corrupt(at));
        }
        if inode.nlink() == 0 {
            return self.free_inode(&mut inode);
        }
        // Otherwise it is no file, and there can be no work.
        check_file(&inode).map_err(|_| corrupt(at))?;
        self.finish(&mut inode)
    }
}
