// SPDX-License-Identifier: GPL-2.0

//! The inode table: where inodes lie, and which of them are in use.
//!
//! The table is a file whose extents hang off a system inode, in chunks of 256 slots of which the
//! first is a header with the bitmap of the others. One chunk at a time is *open*: its free slots
//! are known in memory, and new inodes come from there. The next one is looked for only when it is
//! full; mount reads none.
//!
//! The life of an inode's number: [`Volume::reserve_inode`] (in memory only; dropping the
//! [`InodeReservation`] gives it back) →
//! [`Tx::create_inode_at`](super::journal::Tx::create_inode_at) → commit: in use.
//! [`Tx::free_inode`](super::journal::Tx::free_inode) → commit: free. Meanwhile it is *busy* and
//! nobody else gets it.
//!
//! Lock order: the table → a journal lane → the slots. Within a transaction the table's extents are
//! not read, so that the table can grow in transactions of its own.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::IntoBytes;

use super::alloc::Want;
use super::error::{Error, Result, Structure};
use super::extent::{self, Mapping};
use super::format::{
    InodeChunk, RawInode, BLOCK, INODES_PER_CHUNK, INODE_BYTES, INODE_CHUNK_BLOCKS,
    INODE_CHUNK_MAGIC,
};
use super::inode::{self, crc_of, Inode};
use super::num::{to_i64, to_usize};
use super::persist::Dirty;
use super::pmem::{read_struct, Pmem};
use super::verify::verify;
use super::Volume;
use crate::env::{Lock, NoMemory, Vec};

/// Bytes of a chunk.
const CHUNK_BYTES: u64 = INODE_CHUNK_BLOCKS * BLOCK;
/// Inodes that a chunk can hold.
const CHUNK_INODES: u64 = INODES_PER_CHUNK - 1;
/// Chunks that are remembered because inodes were freed in them.
const FREED_MAX: usize = 64;

/// The inode table in memory.
pub(super) struct Table {
    /// The system inode with the table's extents.
    inode: Lock<Inode>,
    slots: Lock<Slots>,
}

/// Which inodes can be had. Its lock also protects the headers of all chunks.
struct Slots {
    open: Option<Open>,
    /// Chunks where inodes were freed while they were not open.
    freed: Vec<u64>,
    /// The chunk to look into next.
    scan: u64,
    /// Inodes that are reserved, or being allocated or freed by unretired transactions.
    busy: Vec<u64>,
}

/// The chunk from which inodes are taken.
struct Open {
    index: u64,
    /// Byte address.
    at: u64,
    /// Bit set: in use or busy.
    used: [u64; 4],
}

/// An inode number that nobody else can get. Dropped, it gives it back; nothing is on the media.
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

    /// Makes the number the caller's to release, and returns it and the slot's byte address.
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

/// The header of chunk `index` in `block`, with the inodes of `slots` in use, in a volume of this
/// `seed`.
pub(super) fn header(seed: u32, index: u64, block: u64, slots: &[u64]) -> InodeChunk {
    let mut bitmap = [1, 0, 0, 0];
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
        reserved: [0; 6],
    };
    seal(&mut header, seed);
    header
}

/// Reads and verifies the header of chunk `index` at byte `at`.
fn read_header<P: Pmem>(pmem: &P, seed: u32, at: u64, index: u64) -> Result<InodeChunk> {
    let header: InodeChunk = read_struct(pmem, at)?;
    let good = header.crc.get() == crc_of(seed, header.as_bytes())
        && header.magic.get() == INODE_CHUNK_MAGIC
        && header.index.get() == index
        && header.block.get() * BLOCK == at;
    good.then_some(header).ok_or(corrupt(at))
}

/// Marks `slot`, 1 to 255, of the chunk whose header is at byte `at` in use or free. Doing it again
/// changes nothing. The caller holds the lock of the slots, or is recovery.
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

/// Inodes for which `free` blocks would hold slots.
pub(super) fn slots_in(free: u64) -> u64 {
    free / INODE_CHUNK_BLOCKS * CHUNK_INODES
}

impl Open {
    /// The word of `used`, and the bit in it, of `ino` if it lies in this chunk.
    fn bit(&mut self, ino: u64) -> Option<(&mut u64, u64)> {
        if ino / INODES_PER_CHUNK != self.index {
            return None;
        }
        let slot = ino % INODES_PER_CHUNK;
        let word = self.used.get_mut(to_usize(slot / 64))?;
        Some((word, 1 << (slot % 64)))
    }

    /// Takes the first free inode.
    fn take(&mut self) -> Option<u64> {
        let base = self.index * INODES_PER_CHUNK;
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
    /// Takes a free inode of the open chunk: its number, and the chunk's byte address.
    fn take(&mut self) -> Result<Option<(u64, u64)>> {
        self.busy.reserve(1)?;
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        let Some(ino) = open.take() else {
            return Ok(None);
        };
        self.busy.push(ino)?;
        Ok(Some((ino, open.at)))
    }

    /// Opens chunk `index` at byte `at`, whose header is `header`, if it has a free inode.
    fn open(&mut self, index: u64, at: u64, header: &InodeChunk) -> bool {
        let used = header.bitmap.map(U64::get);
        let mut open = Open { index, at, used };
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

    /// Ends what made `ino` busy; `used` if it is in use now.
    pub(super) fn release(&self, ino: u64, used: bool) {
        let mut slots = self.slots.lock();
        if let Some(i) = slots.busy.iter().position(|busy| *busy == ino) {
            slots.busy.swap_remove(i);
        }
        if used {
            return;
        }
        if let Some((word, bit)) = slots.open.as_mut().and_then(|open| open.bit(ino)) {
            *word &= !bit;
            return;
        }
        let chunk = ino / INODES_PER_CHUNK;
        if slots.freed.len() < FREED_MAX && !slots.freed.contains(&chunk) {
            // Within its capacity. Without the hint the chunk is found by the scan.
            let _ = slots.freed.push(chunk);
        }
    }
}

/// Chunks of the table whose system inode is `table`.
fn chunks(table: &Inode) -> u64 {
    table.size() / CHUNK_BYTES
}

/// Byte address of chunk `index`, which the table has.
fn chunk_at<P: Pmem>(vol: &Volume<P>, table: &Inode, index: u64) -> Result<u64> {
    let key = index * INODE_CHUNK_BLOCKS;
    let found = extent::lookup(&vol.media(), None, table.raw(), table.at(), key)?;
    match found.floor {
        Some(m) if !m.unwritten && key + INODE_CHUNK_BLOCKS <= m.end() => {
            Ok((m.block + (key - m.key)) * BLOCK)
        }
        _ => Err(corrupt(table.at())),
    }
}

impl<P: Pmem> Volume<P> {
    /// Reads the inode `ino` into `inode`, a blank one. Not called within a transaction.
    ///
    /// Fails with [`Error::Stale`] if there is no such inode or it is not in use, and with
    /// [`Error::Corrupt`] if it, or the header of its chunk, is damaged; `inode` stays blank then.
    pub fn iget_into(&self, ino: u64, inode: &mut Inode) -> Result<()> {
        inode::read(&self.pmem, self.geo.seed, self.used_at(ino)?, ino, inode)?;
        let verified = verify(&self.media(), inode.raw(), inode.at());
        if verified.is_err() {
            inode.reset();
        }
        verified
    }

    /// Whether inode `ino` is in use, and has generation `generation`. Others may change it
    /// meanwhile.
    pub fn is_current(&self, ino: u64, generation: u32) -> Result<bool> {
        let at = match self.used_at(ino) {
            Err(Error::Stale) => return Ok(false),
            at => at?,
        };
        Ok(self.generation_at(at)? == generation)
    }

    /// The generation in the slot at byte `at`: of the inode there, or of the last.
    fn generation_at(&self, at: u64) -> Result<u32> {
        let field = core::mem::offset_of!(RawInode, generation) as u64;
        let generation: U32 = read_struct(&self.pmem, at + field)?;
        Ok(generation.get())
    }

    /// The byte address of inode `ino`, which is in use, else the error is [`Error::Stale`].
    fn used_at(&self, ino: u64) -> Result<u64> {
        let (index, slot) = (ino / INODES_PER_CHUNK, ino % INODES_PER_CHUNK);
        let at = {
            let table = self.table.inode.lock();
            if slot == 0 || index >= chunks(&table) {
                return Err(Error::Stale);
            }
            chunk_at(self, &table, index)?
        };
        let header = self
            .table
            .locked(|| read_header(&self.pmem, self.geo.seed, at, index))?;
        let word = header.bitmap.get(to_usize(slot / 64));
        if word.is_none_or(|word| word.get() & (1 << (slot % 64)) == 0) {
            return Err(Error::Stale);
        }
        Ok(at + slot * INODE_BYTES)
    }

    /// Reads the inode `ino`: as [`Volume::iget_into`].
    pub fn iget(&self, ino: u64) -> Result<Inode> {
        let mut inode = Inode::blank();
        self.iget_into(ino, &mut inode)?;
        Ok(inode)
    }

    /// Reserves the number of an inode to be created, growing the table if need be. Not called
    /// within a transaction.
    ///
    /// Fails with [`Error::NoSpace`] if no inode is free and the table cannot grow.
    pub fn reserve_inode(&self) -> Result<InodeReservation<'_, P>> {
        let taken = self.table.slots.lock().take()?;
        let (ino, chunk_at) = match taken {
            Some(taken) => taken,
            None => self.open_chunk()?,
        };
        self.used_inodes.add(1);
        let mut reservation = InodeReservation {
            vol: self,
            ino,
            at: chunk_at + ino % INODES_PER_CHUNK * INODE_BYTES,
            generation: 0,
        };
        let last = self.generation_at(reservation.at)?;
        reservation.generation = last.wrapping_add(1).max(1);
        Ok(reservation)
    }

    /// Opens a chunk with a free inode, an old one or a new one, and takes an inode from it.
    fn open_chunk(&self) -> Result<(u64, u64)> {
        let mut table = self.table.inode.lock();
        // While this thread waited, another may have done it.
        if let Some(taken) = self.table.slots.lock().take()? {
            return Ok(taken);
        }
        let count = chunks(&table);
        // Twice around: what was freed meanwhile counts too. The hints come on top.
        let mut left = count + FREED_MAX as u64;
        while left > 0 && self.used_inodes.get() < to_i64(count * CHUNK_INODES) {
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
            let at = chunk_at(self, &table, index)?;
            let mut slots = self.table.slots.lock();
            let header = read_header(&self.pmem, self.geo.seed, at, index)?;
            if slots.open(index, at, &header) {
                if let Some(taken) = slots.take()? {
                    return Ok(taken);
                }
            }
        }
        self.grow_table(&mut table)?;
        self.table.slots.lock().take()?.ok_or(Error::NoSpace)
    }

    /// Adds a chunk to the table and opens it.
    fn grow_table(&self, table: &mut Inode) -> Result<()> {
        let index = chunks(table);
        let key = index * INODE_CHUNK_BLOCKS;
        let blocks = Want::blocks(INODE_CHUNK_BLOCKS).at_least(INODE_CHUNK_BLOCKS);
        let end = match index.checked_sub(1) {
            Some(last) => Some(chunk_at(self, table, last)? / BLOCK + INODE_CHUNK_BLOCKS),
            None => None,
        };
        let goal = Want {
            goal: end,
            ..blocks
        };
        let reservation = self.reserve(goal)?;
        extent::make_room(self, table, key, 1)?;
        let mut tx = self.begin()?;
        let run = tx.take(reservation)?;
        let at = run.block * BLOCK;
        let header = header(self.geo.seed, index, run.block, &[]);
        let header_bytes = size_of::<InodeChunk>() as u64;
        tx.init(at, header.as_bytes())?;
        tx.init_zero(at + header_bytes, CHUNK_BYTES - header_bytes)?;
        let mut new = table.raw().clone();
        let mapping = Mapping::new(key, run.block, run.len);
        extent::insert(&mut tx, &self.media(), &mut new, table.at(), mapping, true)?;
        new.size = U64::new((index + 1) * CHUNK_BYTES);
        table.log(&mut tx, &mut new)?;
        tx.commit()?;
        table.set(new);
        self.table.slots.lock().open(index, at, &header);
        Ok(())
    }

    /// Inodes that the table has slots for.
    pub(super) fn inode_slots(&self) -> u64 {
        chunks(&self.table.inode.lock()) * CHUNK_INODES
    }
}
