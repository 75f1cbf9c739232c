// SPDX-License-Identifier: GPL-2.0

//! Atomic writes to a volume that cannot be mounted: transactions in its first journal lane.
//!
//! The records are those of the volume's own journal, so an interrupted one is completed by the
//! next mount or the next repair. Unlike the volume's transactions these are made of plain writes
//! only: the allocator and the inode table in memory do not exist here.

use rdax_volume::env::{self, crc32c};
use rdax_volume::volume::check::crc;
use rdax_volume::volume::error::{Error, Result, Structure};
use rdax_volume::volume::format::{
    LaneHeader, ENTRY_COUNT_BITS, ENTRY_KIND_BITS, ENTRY_WRITE, LANE_BODY,
};
use rdax_volume::volume::journal::{
    self, no_header, retired_word, Applied, LaneState, Logged, Retired, BODY_MAX,
};
use rdax_volume::volume::persist::{Dirty, Durable};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::super_block::Geometry;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::IntoBytes;

const WORD: usize = 8;

/// A write: a place and bytes, both multiples of 8.
pub type Write = (u64, Vec<u8>);

/// A quiet journal lane.
pub struct Log<'a> {
    pmem: &'a dyn Pmem,
    at: u64,
    seed: u32,
    header: LaneHeader,
}

impl<'a> Log<'a> {
    /// The lane `index`. Fails with [`Error::Corrupt`] unless its last transaction is retired.
    pub fn open(pmem: &'a dyn Pmem, geo: &Geometry, index: u32) -> Result<Self> {
        let at = geo.lane_at(index);
        match journal::inspect(pmem, geo, index, &mut env::Vec::new())? {
            (header, LaneState::Retired) => {
                let seed = geo.seed;
                Ok(Log {
                    pmem,
                    at,
                    seed,
                    header,
                })
            }
            _ => Err(Error::Corrupt {
                what: Structure::Lane,
                at,
            }),
        }
    }

    /// Makes all `writes` or, after a crash, none; they are durable when it returns. They must fit
    /// a lane: three blocks do.
    pub fn commit(&mut self, writes: &[Write]) -> Result<()> {
        self.commit_counted(writes, 0, 0)
    }

    /// As [`Log::commit`]; also adds to the volume's numbers of free blocks and of inodes in use.
    pub fn commit_counted(&mut self, writes: &[Write], free: i64, used: i64) -> Result<()> {
        let mut body = Vec::new();
        for (at, bytes) in writes {
            debug_assert!(*at % WORD as u64 == 0 && bytes.len() % WORD == 0);
            let (count, place) = ((bytes.len() / WORD) as u64, at / WORD as u64);
            let head = ENTRY_WRITE
                | (count << ENTRY_KIND_BITS)
                | (place << (ENTRY_KIND_BITS + ENTRY_COUNT_BITS));
            body.extend_from_slice(&head.to_le_bytes());
            body.extend_from_slice(bytes);
        }
        if body.len() > BODY_MAX {
            return Err(Error::Invalid);
        }
        let seq = self.header.seq.get().checked_add(1).ok_or(Error::Invalid)?;
        let mut header = LaneHeader {
            body_len: U32::new(body.len() as u32),
            body_crc: U32::new(crc32c(self.seed, &body)),
            lane: self.header.lane,
            seq: U64::new(seq),
            free_blocks: I64::new(self.header.free_blocks.get().wrapping_add(free)),
            used_inodes: I64::new(self.header.used_inodes.get().wrapping_add(used)),
            ..no_header(seq)
        };
        seal(&mut header, self.seed);
        let logged = self.write_log(&header, &body)?;
        let applied = self.apply(writes, logged)?;
        let _: Durable<Retired> = self.retire(seq, applied)?;
        self.header = header;
        Ok(())
    }

    /// Changes of the numbers of free blocks and of inodes in use by this lane so far.
    pub fn counters(&self) -> (i64, i64) {
        (self.header.free_blocks.get(), self.header.used_inodes.get())
    }

    /// Resets them to zero.
    pub fn clear_counters(&mut self) -> Result<()> {
        let (free, used) = self.counters();
        self.commit_counted(&[], free.wrapping_neg(), used.wrapping_neg())
    }

    fn header_at(&self, seq: u64) -> u64 {
        self.at + (seq & 1) * size_of::<LaneHeader>() as u64
    }

    fn write_log(&self, header: &LaneHeader, body: &[u8]) -> Result<Durable<Logged>> {
        let mut dirty = Dirty::new(&self.pmem);
        dirty.store(self.header_at(header.seq.get()), header.as_bytes())?;
        dirty.store(self.at + LANE_BODY, body)?;
        dirty.write_back().fence()
    }

    fn apply(&self, writes: &[Write], _logged: Durable<Logged>) -> Result<Durable<Applied>> {
        let mut dirty = Dirty::new(&self.pmem);
        for (at, bytes) in writes {
            dirty.store(*at, bytes)?;
        }
        dirty.write_back().fence()
    }

    fn retire(&self, seq: u64, _applied: Durable<Applied>) -> Result<Durable<Retired>> {
        retire(self.pmem, self.at, seq)
    }
}

/// Sets the checksum of a lane's header in a volume of this `seed`.
fn seal(header: &mut LaneHeader, seed: u32) {
    let covered = &header.as_bytes()[..std::mem::offset_of!(LaneHeader, retired)];
    header.crc = U32::new(crc(seed, covered));
}

/// Retires transaction `seq` of the lane at byte `at`.
fn retire(pmem: &dyn Pmem, at: u64, seq: u64) -> Result<Durable<Retired>> {
    let slot = at + (seq & 1) * size_of::<LaneHeader>() as u64;
    let mut dirty = Dirty::new(&pmem);
    let at = slot + std::mem::offset_of!(LaneHeader, retired) as u64;
    dirty.store(at, retired_word(seq).as_bytes())?;
    dirty.write_back().fence()
}

/// Makes the lane `index` one without a transaction. Its counters are lost.
pub fn reset_lane(pmem: &dyn Pmem, geo: &Geometry, index: u32) -> Result<()> {
    let at = geo.lane_at(index);
    let mut header = LaneHeader {
        lane: U32::new(index),
        retired: retired_word(0),
        ..LaneHeader::default()
    };
    seal(&mut header, geo.seed);
    // The other one first, so that it cannot be mistaken for a newer one.
    let size = size_of::<LaneHeader>();
    for (at, bytes) in [
        (at + size as u64, no_header(1).as_bytes()),
        (at, header.as_bytes()),
    ] {
        let mut dirty: Dirty<'_, _, Retired> = Dirty::new(&pmem);
        dirty.store(at, bytes)?;
        let _: Durable<Retired> = dirty.write_back().fence()?;
    }
    Ok(())
}

/// Marks transaction `seq` of the lane at byte `at` as retired, although this is not known.
pub fn give_up(pmem: &dyn Pmem, at: u64, seq: u64) -> Result<()> {
    retire(pmem, at, seq).map(|_| ())
}
