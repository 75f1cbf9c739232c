// SPDX-License-Identifier: GPL-2.0

//! The inode table: where inodes are, and which of them are in use.
//!
//! The table is a file mapped by a system inode, in inode chunks of one block with 16 slots, of
//! which the first is a header with the bitmap of the others. One inode chunk at a time is *open*:
//! its free slots are known in memory, and new inodes come from there. The next one is searched
//! only when it is full; mount reads none. Inode chunks at the end of the table without an inode
//! are freed.
//!
//! The life of an inode's number: [`Volume::reserve_inode`] (in memory only; dropping the
//! [`InodeReservation`] releases it) → [`Tx::create_inode_at`](super::journal::Tx::create_inode_at)
//! → commit: in use. [`Tx::free_inode`](super::journal::Tx::free_inode) → commit: free. Meanwhile
//! it is *busy* and nobody else gets it.
//!
//! Lock order: the table → a journal lane → the slots. The table's extents are not read within a
//! transaction, so that the table can grow in separate transactions.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::IntoBytes;

use super::alloc::Want;
use super::error::{Error, Result, Structure};
use super::extent::{self, Mapping, KEY_END};
use super::format::{
    InodeChunk, RawInode, BLOCK, INODE_BYTES, INODE_CHUNKS, INODE_CHUNK_MAGIC, INODE_CHUNK_SLOTS,
    INODE_CHUNK_WORDS,
};
use super::inode::{self, crc_of, Before, Inode, WHOLE};
use super::journal::Tx;
use super::num::{to_i64, to_u64, to_usize};
use super::persist::Dirty;
use super::pmem::{read_struct, Pmem};
use super::verify::verify;
use super::Volume;
use crate::env::{siphash24, Lock, NoMemory, Vec};

/// Bytes of a header.
const HEADER: u64 = size_of::<InodeChunk>() as u64;
/// Inodes that an inode chunk can hold.
const INODE_CHUNK_INODES: u64 = INODE_CHUNK_SLOTS - 1;
/// Bits of a header's bitmap for which there is no slot, in its last word.
const NO_SLOTS: u64 = match INODE_CHUNK_SLOTS % 64 {
    0 => 0,
    slots => u64::MAX << slots,
};
/// How many inode chunks are recorded because inodes were freed in them.
const FREED_MAX: usize = 64;
/// The end of the table is checked after this many inodes were freed.
const SHRINK_AFTER: u64 = 256;
/// Free slots that are never freed.
const SPARE: u64 = 2 * INODE_CHUNKS * INODE_CHUNK_INODES;
/// The most inode chunks that are freed at a time.
const SHRINK_MAX: u64 = 1024;

/// The inode table in memory.
pub(super) struct Table {
    /// The system inode with the table's extents.
    inode: Lock<Inode>,
    slots: Lock<Slots>,
}

/// Which inodes are available. Its lock also protects the headers of all inode chunks.
struct Slots {
    open: Option<Open>,
    /// Inode chunks where inodes were freed while they were not open.
    freed: Vec<u64>,
    /// The inode chunk to search next.
    scan: u64,
    /// Inodes that are reserved, or being allocated or freed by unretired transactions.
    busy: Vec<u64>,
    /// Inodes freed since the end of the table was checked.
    freed_since: u64,
    /// The last inode chunk with inodes at that time.
    last_used: u64,
}

/// The inode chunk from which inodes are taken.
struct Open {
    index: u64,
    /// Byte address.
    at: u64,
    /// Bit set: in use or busy.
    used: [u64; INODE_CHUNK_WORDS],
    /// The generation of an inode in a slot that was never used.
    generation: u32,
}

/// An inode taken from the open inode chunk.
struct Taken {
    ino: u64,
    /// Byte address of the inode chunk.
    chunk_at: u64,
    /// The generation of the inode if its slot was never used.
    generation: u32,
}

/// An inode number that nobody else can get. Dropping it releases it; nothing is on the media.
#[must_use = "dropping a reservation gives the inode back"]
pub struct InodeReservation<'v, P: Pmem> {
    vol: &'v Volume<P>,
    ino: u64,
    /// Byte address of the slot.
    at: u64,
    generation: u32,
}

impl<P: Pmem> InodeReservation<'_, P> {
    /// The inode number.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// The generation of the new inode: never 0, and not that of the number's last user.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Transfers the number to the caller, who releases it; returns it and the slot's byte address.
    pub(super) fn into_slot(self) -> (u64, u64) {
        let slot = (self.ino, self.at);
        core::mem::forget(self);
        slot
    }
}

impl<P: Pmem> Drop for InodeReservation<'_, P> {
    fn drop(&mut self) {
        self.vol.table.release(self.ino, false);
        self.vol.used_inodes.add(-1);
    }
}

fn corrupt(at: u64) -> Error {
    Error::Corrupt {
        what: Structure::InodeChunk,
        at,
    }
}

fn seal(header: &mut InodeChunk, seed: u32) {
    let free: u32 = header.bitmap.iter().map(|w| w.get().count_zeros()).sum();
    header.free = U16::new(u16::try_from(free).unwrap_or(u16::MAX));
    header.crc = U32::new(crc_of(seed, header.as_bytes()));
}

/// The header of inode chunk `index` in `block` with the inodes of `slots` in use, and the initial
/// generation of inodes, in a volume of this `seed`.
pub(super) fn header(
    seed: u32,
    (index, block): (u64, u64),
    slots: &[u64],
    generation: u32,
) -> InodeChunk {
    let mut bitmap = [0; INODE_CHUNK_WORDS];
    if let Some(word) = bitmap.last_mut() {
        *word = NO_SLOTS;
    }
    if let Some(word) = bitmap.first_mut() {
        *word |= 1;
    }
    for slot in slots {
        if let Some(word) = bitmap.get_mut(to_usize(slot / 64)) {
            *word |= 1 << (slot % 64);
        }
    }
    let mut header = InodeChunk {
        crc: U32::ZERO,
        magic: U32::new(INODE_CHUNK_MAGIC),
        index: U64::new(index),
        bitmap: bitmap.map(U64::new),
        block: U64::new(block),
        free: U16::ZERO,
        generation: U32::new(generation),
        reserved: [0; 26],
    };
    seal(&mut header, seed);
    header
}

/// Reads and verifies the header of inode chunk `index` at byte `at`.
fn read_header<P: Pmem>(pmem: &P, seed: u32, at: u64, index: u64) -> Result<InodeChunk> {
    let header: InodeChunk = read_struct(pmem, at)?;
    let good = header.crc.get() == crc_of(seed, header.as_bytes())
        && header.magic.get() == INODE_CHUNK_MAGIC
        && header.index.get() == index
        && at % BLOCK == 0
        && header.block.get() == at / BLOCK;
    good.then_some(header).ok_or(corrupt(at))
}

/// Marks `slot`, 1 to 15, of the inode chunk whose header is at byte `at` in use or free.
/// Idempotent. The caller holds the lock of the slots, or is recovery.
pub(super) fn apply<P: Pmem, S>(
    dirty: &mut Dirty<'_, P, S>,
    pmem: &P,
    seed: u32,
    at: u64,
    slot: u64,
    used: bool,
) -> Result<()> {
    // A crash may have torn the header, but not its magic, which never changes.
    let mut header: InodeChunk = read_struct(pmem, at)?;
    let word = header.bitmap.get_mut(to_usize(slot / 64));
    let (Some(word), INODE_CHUNK_MAGIC) = (word, header.magic.get()) else {
        return Err(corrupt(at));
    };
    let bit = 1 << (slot % 64);
    *word = U64::new(if used {
        word.get() | bit
    } else {
        word.get() & !bit
    });
    seal(&mut header, seed);
    dirty.store(at, header.as_bytes())
}

/// The number of inode slots that fit in `free` blocks.
pub(super) fn slots_in(free: u64) -> u64 {
    free * INODE_CHUNK_INODES
}

impl Open {
    /// The word of `used`, and the bit in it, of `ino` if it is in this inode chunk.
    fn bit(&mut self, ino: u64) -> Option<(&mut u64, u64)> {
        if ino / INODE_CHUNK_SLOTS != self.index {
            return None;
        }
        let slot = ino % INODE_CHUNK_SLOTS;
        let word = self.used.get_mut(to_usize(slot / 64))?;
        Some((word, 1 << (slot % 64)))
    }

    /// Takes the first free inode.
    fn take(&mut self) -> Option<u64> {
        let base = self.index * INODE_CHUNK_SLOTS;
        for (first, word) in (base..).step_by(64).zip(self.used.iter_mut()) {
            if *word != u64::MAX {
                let bit = word.trailing_ones();
                *word |= 1 << bit;
                return Some(first + u64::from(bit));
            }
        }
        None
    }
}

impl Slots {
    /// Takes a free inode of the open inode chunk.
    fn take(&mut self) -> Result<Option<Taken>> {
        self.busy.reserve(1)?;
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        let Some(ino) = open.take() else {
            return Ok(None);
        };
        self.busy.push(ino)?;
        Ok(Some(Taken {
            ino,
            chunk_at: open.at,
            generation: open.generation,
        }))
    }

    /// Opens inode chunk `index` at byte `at`, whose header is `header`, if it has a free inode.
    fn open(&mut self, index: u64, at: u64, header: &InodeChunk) -> bool {
        let used = header.bitmap.map(U64::get);
        let mut open = Open {
            index,
            at,
            used,
            generation: header.generation.get(),
        };
        for ino in self.busy.iter() {
            if let Some((word, bit)) = open.bit(*ino) {
                *word |= bit;
            }
        }
        let free = open.used.iter().any(|word| *word != u64::MAX);
        if free {
            self.open = Some(open);
        }
        free
    }
}

impl Table {
    /// The table whose system inode is `inode`.
    pub(super) fn new(inode: Inode) -> Result<Self, NoMemory> {
        Ok(Table {
            inode: Lock::new(inode)?,
            slots: Lock::new(Slots {
                open: None,
                freed: Vec::with_capacity(FREED_MAX)?,
                scan: 0,
                busy: Vec::new(),
                freed_since: 0,
                last_used: u64::MAX,
            })?,
        })
    }

    /// Runs `f` under the lock of the slots.
    pub(super) fn locked<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let _slots = self.slots.lock();
        f()
    }

    /// Makes `ino`, an inode in use, busy because it is about to be freed.
    pub(super) fn begin_free(&self, ino: u64) -> Result<()> {
        Ok(self.slots.lock().busy.push(ino)?)
    }

    /// Ends the busy state of `ino`; `used` if it is in use now.
    pub(super) fn release(&self, ino: u64, used: bool) {
        let mut slots = self.slots.lock();
        if let Some(i) = slots.busy.iter().position(|busy| *busy == ino) {
            slots.busy.swap_remove(i);
        }
        if used {
            return;
        }
        slots.freed_since += match ino / INODE_CHUNK_SLOTS == slots.last_used {
            true => SHRINK_AFTER,
            false => 1,
        };
        if let Some((word, bit)) = slots.open.as_mut().and_then(|open| open.bit(ino)) {
            *word &= !bit;
            return;
        }
        let index = ino / INODE_CHUNK_SLOTS;
        if slots.freed.len() < FREED_MAX && !slots.freed.contains(&index) {
            // Within its capacity. Without the hint the scan finds the inode chunk.
            let _ = slots.freed.push(index);
        }
    }
}

/// The generation of the first inodes in inode chunks that transaction `number` makes. (An earlier
/// inode chunk with the same index may have had inodes for which handles exist.)
fn generation(key: &[u8; 16], number: u64) -> u32 {
    let [a, b, c, d, ..] = siphash24(key, &number.to_le_bytes()).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Inode chunks of the table whose system inode is `table`.
fn inode_chunks(table: &Inode) -> u64 {
    table.size() / BLOCK
}

/// Byte address of inode chunk `index`, which the table has.
fn inode_chunk_at<P: Pmem>(vol: &Volume<P>, table: &Inode, index: u64) -> Result<u64> {
    let found = extent::lookup(&vol.media(), None, table.raw(), table.at(), index)?;
    match found.floor {
        Some(m) if !m.unwritten && index < m.end() => Ok((m.block + (index - m.key)) * BLOCK),
        _ => Err(corrupt(table.at())),
    }
}

impl<P: Pmem> Volume<P> {
    /// Reads the inode `ino` into `inode`, a blank one. Not called within a transaction.
    ///
    /// Fails with [`Error::Stale`] if there is no such inode or it is not in use, and with
    /// [`Error::Corrupt`] if it, or the header of its inode chunk, is damaged; `inode` stays blank
    /// then.
    pub fn iget_into(&self, ino: u64, inode: &mut Inode) -> Result<()> {
        let seed = self.geo.seed;
        self.used(ino, |at| inode::read(&self.pmem, seed, at, ino, inode))?;
        let read =
            verify(&self.media(), inode.raw(), inode.at()).and_then(|()| self.read_rest(inode));
        if read.is_err() {
            inode.reset();
        }
        read
    }

    /// Whether inode `ino` is in use, and has generation `generation`. Others may change it
    /// meanwhile.
    pub fn is_current(&self, ino: u64, generation: u32) -> Result<bool> {
        match self.used(ino, |at| self.generation_at(at)) {
            Err(Error::Stale) => Ok(false),
            found => Ok(found? == generation),
        }
    }

    /// The generation in the slot at byte `at`: of the inode there, or of the last.
    fn generation_at(&self, at: u64) -> Result<u32> {
        let field = core::mem::offset_of!(RawInode, generation) as u64;
        let generation: U32 = read_struct(&self.pmem, at + field)?;
        Ok(generation.get())
    }

    /// Calls `f` with the byte address of inode `ino`, which is in use; otherwise the error is
    /// [`Error::Stale`]. Meanwhile the table does not shrink.
    fn used<T>(&self, ino: u64, f: impl FnOnce(u64) -> Result<T>) -> Result<T> {
        let (index, slot) = (ino / INODE_CHUNK_SLOTS, ino % INODE_CHUNK_SLOTS);
        let table = self.table.inode.lock();
        if slot == 0 || index >= inode_chunks(&table) {
            return Err(Error::Stale);
        }
        let at = inode_chunk_at(self, &table, index)?;
        let header = self
            .table
            .locked(|| read_header(&self.pmem, self.geo.seed, at, index))?;
        let word = header.bitmap.get(to_usize(slot / 64));
        if word.is_none_or(|word| word.get() & (1 << (slot % 64)) == 0) {
            return Err(Error::Stale);
        }
        f(at + slot * INODE_BYTES)
    }

    /// Reads the inode `ino`: as [`Volume::iget_into`].
    pub fn iget(&self, ino: u64) -> Result<Inode> {
        let mut inode = Inode::blank();
        self.iget_into(ino, &mut inode)?;
        Ok(inode)
    }

    /// Reserves the number of an inode to be created, growing the table if needed. Not called
    /// within a transaction.
    ///
    /// Fails with [`Error::NoSpace`] if no inode is free and the table cannot grow.
    pub fn reserve_inode(&self) -> Result<InodeReservation<'_, P>> {
        let taken = self.table.slots.lock().take()?;
        let taken = match taken {
            Some(taken) => taken,
            None => self.open_inode_chunk()?,
        };
        self.used_inodes.add(1);
        let mut reservation = InodeReservation {
            vol: self,
            ino: taken.ino,
            at: taken.chunk_at + taken.ino % INODE_CHUNK_SLOTS * INODE_BYTES,
            generation: 0,
        };
        // So that it can be removed again, whatever else takes space.
        if self.kept_for_removal() > self.free_blocks() {
            return Err(Error::NoSpace);
        }
        reservation.generation = match self.generation_at(reservation.at)? {
            0 => taken.generation.max(1),
            last => last.wrapping_add(1).max(1),
        };
        Ok(reservation)
    }

    /// Opens an inode chunk with a free inode, an old one or a new one, and takes an inode from it.
    fn open_inode_chunk(&self) -> Result<Taken> {
        let mut table = self.table.inode.lock();
        // While this thread waited, another may have done it.
        if let Some(taken) = self.table.slots.lock().take()? {
            return Ok(taken);
        }
        let count = inode_chunks(&table);
        // Twice around: inodes freed meanwhile count, too. The hints come on top.
        let mut left = count + FREED_MAX as u64;
        while left > 0 && self.used_inodes.get() < to_i64(count * INODE_CHUNK_INODES) {
            left -= 1;
            let index = {
                let mut slots = self.table.slots.lock();
                let next = slots.freed.pop().unwrap_or_else(|| {
                    let scan = slots.scan;
                    slots.scan = (scan + 1) % count;
                    scan
                });
                next.min(count - 1)
            };
            let at = inode_chunk_at(self, &table, index)?;
            let mut slots = self.table.slots.lock();
            let header = read_header(&self.pmem, self.geo.seed, at, index)?;
            if slots.open(index, at, &header) {
                if let Some(taken) = slots.take()? {
                    return Ok(taken);
                }
            }
        }
        self.grow_table(&mut table)
    }

    /// Adds inode chunks to the table, opens the first, and takes an inode from it.
    fn grow_table(&self, table: &mut Inode) -> Result<Taken> {
        let index = inode_chunks(table);
        let goal = match index.checked_sub(1) {
            Some(last) => Some(inode_chunk_at(self, table, last)? / BLOCK + 1),
            None => None,
        };
        let reservation = self.reserve(Want {
            goal,
            ..Want::blocks(INODE_CHUNKS)
        })?;
        extent::make_room(self, table, index, 1)?;
        let mut tx = self.begin()?;
        let run = tx.take(reservation)?;
        let generation = generation(&self.super_block().hash_key, tx.number());
        for (index, block) in (index..).zip(run.block..run.end()) {
            tx.init_zero(block * BLOCK + HEADER, BLOCK - HEADER)?;
            let header = header(self.geo.seed, (index, block), &[], generation);
            tx.init(block * BLOCK, header.as_bytes())?;
        }
        let before = table.before::<WHOLE>();
        let result = self.map_at_end(tx, table, &before, Mapping::new(index, run.block, run.len));
        if result.is_err() {
            table.restore(&before);
            result?;
        }
        // Until this one is taken, others find none.
        let mut slots = self.table.slots.lock();
        let header = header(self.geo.seed, (index, run.block), &[], generation);
        slots.open(index, run.block * BLOCK, &header);
        slots.scan = index + 1;
        slots.take()?.ok_or(Error::NoSpace)
    }

    /// Appends `new` to a system file, which has room for it, and commits `tx`.
    pub(super) fn map_at_end(
        &self,
        mut tx: Tx<'_, P>,
        file: &mut Inode,
        before: &Before<WHOLE>,
        new: Mapping,
    ) -> Result<()> {
        let media = self.media();
        extent::insert(&mut tx, &media, file, new, &[], true)?;
        file.raw.size = U64::new(new.end() * BLOCK);
        file.log_change(&mut tx, before)?;
        tx.commit()
    }

    /// Inodes that the table has slots for.
    pub(super) fn inode_slots(&self) -> u64 {
        inode_chunks(&self.table.inode.lock()) * INODE_CHUNK_INODES
    }

    /// Frees the inode chunks at the end of the table without an inode, if there are many free
    /// slots. Not called within a transaction.
    pub(super) fn shrink_table(&self) -> Result<()> {
        while self.table.slots.lock().freed_since >= SHRINK_AFTER {
            self.shrink_table_once()?;
        }
        Ok(())
    }

    /// Frees at most [`SHRINK_MAX`] inode chunks, so that nobody waits long for the table.
    fn shrink_table_once(&self) -> Result<()> {
        let mut table = self.table.inode.lock();
        self.table.slots.lock().freed_since = 0;
        let count = inode_chunks(&table);
        // Keeps so many inode chunks that about half of the slots are in use, plus some.
        let keep = (2 * to_u64(self.used_inodes.get()) + SPARE).div_ceil(INODE_CHUNK_INODES);
        let keep = keep.max(INODE_CHUNKS).max(count.saturating_sub(SHRINK_MAX));
        let mut end = count;
        while end > keep && self.is_empty_inode_chunk(&table, end - 1)? {
            end -= 1;
        }
        self.table.slots.lock().last_used = end.saturating_sub(1);
        if end == count {
            return Ok(());
        }
        if count - end == SHRINK_MAX {
            // There may be more.
            self.table.slots.lock().freed_since = SHRINK_AFTER;
        }
        let mut to = KEY_END;
        loop {
            let before = table.before::<WHOLE>();
            match self.cut_table(&mut table, &before, (end, to)) {
                Ok(Some(left)) => to = left,
                Ok(None) => return Ok(()),
                Err(error) => {
                    table.restore(&before);
                    return Err(error);
                }
            }
        }
    }

    /// Whether inode chunk `index` has no inode, and cannot get one while the caller holds the
    /// table.
    fn is_empty_inode_chunk(&self, table: &Inode, index: u64) -> Result<bool> {
        let at = inode_chunk_at(self, table, index)?;
        let mut slots = self.table.slots.lock();
        let of_it = |ino: &u64| ino / INODE_CHUNK_SLOTS == index;
        if slots.busy.iter().any(of_it) {
            return Ok(false);
        }
        let free = read_header(&self.pmem, self.geo.seed, at, index)?
            .free
            .get();
        let empty = u64::from(free) == INODE_CHUNK_INODES;
        if empty && slots.open.as_ref().is_some_and(|open| open.index == index) {
            // Whoever needs an inode waits for the table.
            slots.open = None;
        }
        Ok(empty)
    }

    /// Removes as many of the inode chunks `from..to` from the end of the table as one transaction
    /// can.
    fn cut_table(
        &self,
        table: &mut Inode,
        before: &Before<WHOLE>,
        (from, to): (u64, u64),
    ) -> Result<Option<u64>> {
        let mut tx = self.begin()?;
        let (left, edited) = extent::cut(&mut tx, &self.media(), table, (from, to))?;
        // The size is where the inode chunks end.
        table.raw.size = U64::new(left.unwrap_or(from) * BLOCK);
        table.log_change(&mut tx, before)?;
        tx.commit()?;
        table.keep(edited);
        Ok(left)
    }
}
