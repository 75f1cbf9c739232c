// SPDX-License-Identifier: GPL-2.0

//! The journal: a redo log that makes each change of metadata atomic, and durable when it returns.
//!
//! The log is split into lanes, so that as many transactions run side by side; a lane holds one
//! transaction at a time. [`Volume::begin`] takes a lane, the methods of [`Tx`] collect the changes
//! in memory, and [`Tx::commit`] makes them, in four steps of which each waits until the one before
//! is durable:
//!
//! 1. *prepare*: everything that nothing refers to yet (a new inode, a fresh block, file data) is
//!    on the media;
//! 2. *log*: the body with its entries, and a header with the checksum of both. From here on the
//!    transaction is committed;
//! 3. *apply*: the same changes in place;
//! 4. *retire*: the header's `retired` says that recovery can ignore it.
//!
//! After a crash [`recover`] replays each lane's last transaction if it was logged and is not
//! retired. Transactions in different lanes may be replayed in any order, because no two of them
//! concern the same bytes: the writes of a transaction are covered by locks that its caller holds
//! until `commit` has returned, that is, until it is retired; and the blocks and inodes that it
//! allocates or frees are busy for others as long. The bits themselves are changed by logical
//! entries, under the lock of the allocation group or the inode table, so that they may share a
//! line.
//!
//! Lock order: inode table or orphan file (when they grow) → lane → orphan slots, inode slots,
//! allocation group. A thread has one transaction at a time, and neither [`Volume::iget`] nor
//! [`Volume::reserve_inode`] nor [`Volume::reserve_orphan`] is called within one.

mod entry;
mod recovery;
mod tx;

use core::mem::offset_of;

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::IntoBytes;

use super::alloc::Run;
use super::error::{Error, Result};
use super::format::{LaneHeader, LANE_BODY, LANE_BYTES};
use super::num::{to_u32, to_usize};
use super::persist::Dirty;
use super::pmem::Pmem;
use super::super_block::Geometry;
use super::Volume;
use crate::env::{cpu, crc32c, Guard, Lock, NoMemory, Vec};

use entry::Body;

#[cfg(not(MODULE))]
pub use recovery::salvage_lane;
pub(super) use recovery::{has_header, recover, Recovered};
pub use recovery::{inspect, recover_lane, LaneState};
pub use tx::Tx;

/// The most bytes of entries that a transaction can log.
pub const BODY_MAX: usize = to_usize(LANE_BYTES - LANE_BODY);

/// Step 1 of a commit.
pub struct Prepared;
/// Step 2 of a commit.
pub struct Logged;
/// Step 3 of a commit.
pub struct Applied;
/// Step 4 of a commit.
pub struct Retired;

/// What must be undone in memory when a transaction is dropped, or completed when it is retired.
#[derive(Clone, Copy)]
enum Pending {
    Alloc(Run),
    Free(Run),
    InodeAlloc(u64),
    InodeFree(u64),
    OrphanAttach(u32),
    OrphanDetach(u32),
}

/// A lane in memory: the state after its last retired transaction, and the one being built.
struct Lane {
    index: u32,
    /// Byte address.
    at: u64,
    /// Sequence number of the last transaction.
    seq: u64,
    /// Counters of its header: changes by all transactions so far.
    free_blocks: i64,
    used_inodes: i64,
    /// The entries so far.
    body: Body,
    pending: Vec<Pending>,
}

/// The lanes of a volume.
pub(super) struct Journal {
    lanes: Vec<Lock<Lane>>,
}

impl Journal {
    /// The lanes as recovery has left them.
    pub(super) fn new(recovered: &[Recovered], geo: &Geometry) -> Result<Self, NoMemory> {
        let mut lanes = Vec::with_capacity(recovered.len())?;
        for (index, r) in (0..).zip(recovered) {
            lanes.push(Lock::new(Lane {
                index,
                at: geo.lane_at(index),
                seq: r.seq,
                free_blocks: r.free_blocks,
                used_inodes: r.used_inodes,
                body: Body::new()?,
                pending: Vec::new(),
            })?)?;
        }
        Ok(Journal { lanes })
    }

    /// Takes a free lane, or waits for one.
    fn take(&self) -> Option<Guard<'_, Lane>> {
        let first = cpu() % self.lanes.len().max(1);
        let (before, after) = self.lanes.split_at(first);
        let mut from_first = after.iter().chain(before);
        from_first
            .find_map(Lock::try_lock)
            .or_else(|| self.lanes.get(first).map(Lock::lock))
    }
}

impl<P: Pmem> Volume<P> {
    /// Starts a transaction, waiting for a lane if all are taken. If it is dropped instead of
    /// committed, it leaves no trace.
    ///
    /// Fails with [`Error::Media`] after a transaction could not be completed
    /// ([`Volume::is_failed`]).
    #[inline]
    pub fn begin(&self) -> Result<Tx<'_, P>> {
        self.check_failed()?;
        let lane = self.journal.take().ok_or(Error::Invalid)?;
        Ok(Tx::new(self, lane))
    }
}

/// Byte address of the header of transaction `seq` in the lane at byte `at`.
fn header_at(at: u64, seq: u64) -> u64 {
    at + (seq & 1) * size_of::<LaneHeader>() as u64
}

/// CRC32C of a header without `retired`, in a volume of this `seed`.
fn checksum(header: &LaneHeader, seed: u32) -> u32 {
    let bytes = header.as_bytes();
    let covered = bytes
        .get(size_of::<U32>()..offset_of!(LaneHeader, retired))
        .unwrap_or(&[]);
    crc32c(seed, covered)
}

/// The value of `retired` in a header once transaction `seq` is retired: the low half of the
/// number, and a checksum of all of it above. The words of a transaction and of the one two before
/// it, which a header has until then, differ in sixteen bits at least.
pub fn retired_word(seq: u64) -> U64 {
    let sum = crc32c(0, &seq.to_le_bytes());
    U64::new((u64::from(sum) << 32) | (seq & u64::from(u32::MAX)))
}

/// Its value before that: the slot's transaction before `seq` is retired. (There is none before
/// transaction 1, but it has a word all the same.)
pub fn unretired_word(seq: u64) -> U64 {
    retired_word(seq.wrapping_sub(2))
}

/// Writes lane `index` as one whose transaction 0 is retired and empty: for mkfs.
pub(super) fn format<P: Pmem, S>(
    dirty: &mut Dirty<'_, P, S>,
    geo: &Geometry,
    index: u32,
) -> Result<()> {
    let at = geo.lane_at(index);
    // The rest first: a header of an older volume must not outlive the new one.
    dirty.zero(at + LANE_BODY, LANE_BYTES - LANE_BODY)?;
    dirty.store(header_at(at, 1), no_header(1).as_bytes())?;
    let mut header = LaneHeader {
        lane: U32::new(index),
        retired: retired_word(0),
        ..LaneHeader::default()
    };
    header.crc = U32::new(checksum(&header, geo.seed));
    dirty.store(header_at(at, 0), header.as_bytes())
}

/// The content of the slot of transaction `seq` if it has no header.
pub fn no_header(seq: u64) -> LaneHeader {
    LaneHeader {
        // Not the checksum of a header of zeros.
        crc: U32::ZERO,
        retired: unretired_word(seq),
        ..LaneHeader::default()
    }
}

/// The header of transaction `seq`, in a volume of this `seed`.
fn seal(lane: &Lane, seed: u32, seq: u64, free_blocks: i64, used_inodes: i64) -> LaneHeader {
    let body = lane.body.words().as_bytes();
    let mut header = LaneHeader {
        crc: U32::ZERO,
        body_len: U32::new(to_u32(body.len())),
        body_crc: U32::new(crc32c(seed, body)),
        lane: U32::new(lane.index),
        seq: U64::new(seq),
        free_blocks: I64::new(free_blocks),
        used_inodes: I64::new(used_inodes),
        reserved: [0; 16],
        retired: unretired_word(seq),
    };
    header.crc = U32::new(checksum(&header, seed));
    header
}

/// Stores `seq` as retired.
fn retire<P: Pmem, S>(dirty: &mut Dirty<'_, P, S>, at: u64, seq: u64) -> Result<()> {
    let field = header_at(at, seq) + offset_of!(LaneHeader, retired) as u64;
    dirty.store(field, retired_word(seq).as_bytes())
}
