// SPDX-License-Identifier: GPL-2.0

//! A transaction: what it collects, and how it is committed.

use zerocopy::IntoBytes;

use super::entry::{self, Entry};
use super::{header_at, retire, seal, Applied, Lane, Logged, Pending, Prepared, Retired, BODY_MAX};
use crate::env::Guard;
use crate::volume::alloc::{Reservation, Run, Want};
use crate::volume::error::{Error, Result};
use crate::volume::format::{RawInode, LANE_BODY};
use crate::volume::inode::{self, Inode};
use crate::volume::orphan::OrphanReservation;
use crate::volume::persist::{Dirty, Durable, WrittenBack};
use crate::volume::pmem::{Pmem, LINE};
use crate::volume::table::InodeReservation;
use crate::volume::Volume;

/// Unit in which [`Tx::update`] compares, in bytes.
const WORD: usize = 8;

/// A transaction being built. Dropped instead of committed, it leaves no trace.
///
/// No method but `init*` reaches the media before [`Tx::commit`], and what those write must not be
/// reachable from anything there.
#[must_use = "a transaction that is dropped changes nothing"]
pub struct Tx<'v, P: Pmem> {
    vol: &'v Volume<P>,
    lane: Guard<'v, Lane>,
    prepared: Dirty<'v, P, Prepared>,
    /// Change of the number of free blocks, and of inodes in use.
    free_blocks: i64,
    used_inodes: i64,
}

impl<'v, P: Pmem> Tx<'v, P> {
    pub(super) fn new(vol: &'v Volume<P>, lane: Guard<'v, Lane>) -> Self {
        Tx {
            vol,
            lane,
            prepared: Dirty::new(&vol.pmem),
            free_blocks: 0,
            used_inodes: 0,
        }
    }

    /// Bytes that still fit in the log. A write takes 16 bytes more than its own, rounded up to 8;
    /// an allocation or a free takes 16.
    pub fn room(&self) -> usize {
        BODY_MAX - self.lane.body.len()
    }

    /// Fails with [`Error::Invalid`] unless an entry of `payload` bytes fits, and makes sure that
    /// it can be remembered: after that, [`Tx::log`] does not fail.
    fn need(&mut self, payload: usize) -> Result<()> {
        if entry::size(payload) > self.room() {
            return Err(Error::Invalid);
        }
        Ok(self.lane.pending.reserve(1)?)
    }

    fn log(&mut self, entry: Entry<'_>, pending: Pending) -> Result<()> {
        entry.log(&mut self.lane.body)?;
        Ok(self.lane.pending.push(pending)?)
    }

    /// Stores `bytes` at `at` now, where nothing on the media refers to yet: a fresh block.
    pub fn init(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.prepared.store(at, bytes)
    }

    /// Stores `len` zero bytes at `at` now, where nothing on the media refers to yet.
    pub fn init_zero(&mut self, at: u64, len: u64) -> Result<()> {
        self.prepared.zero(at, len)
    }

    /// The caller has stored data past the cache, or written it back, that must be durable before
    /// this transaction happens.
    pub fn ordered(&mut self) {
        self.prepared.ordered();
    }

    /// Logs that `bytes` are to be written at `at`. They are covered by a lock that the caller holds
    /// until `commit` has returned.
    ///
    /// Fails with [`Error::Invalid`] if the log has no room, or the place lies outside the volume.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if !self.vol.geo.contains(at, bytes.len() as u64) {
            return Err(Error::Invalid);
        }
        Entry::Write { at, bytes }.log(&mut self.lane.body)
    }

    /// Logs those words by which `new` differs from `old`, the content of the media at `at`. `at`
    /// and the lengths, which are equal, are multiples of 8. For the rest as [`Tx::write`].
    pub fn update(&mut self, at: u64, old: &[u8], new: &[u8]) -> Result<()> {
        if at % WORD as u64 != 0 || old.len() % WORD != 0 || old.len() != new.len() {
            return Err(Error::Invalid);
        }
        // Equal words between two that differ are logged too where a head of their own would not
        // take less.
        let mut run: Option<(usize, usize)> = None;
        let words = old.chunks_exact(WORD).zip(new.chunks_exact(WORD));
        for (i, (old, now)) in words.enumerate() {
            if old == now {
                continue;
            }
            let (from, to) = (i * WORD, (i + 1) * WORD);
            run = match run {
                Some((first, end)) if from - end <= entry::HEAD => Some((first, to)),
                Some((first, end)) => {
                    self.write(at + first as u64, new.get(first..end).unwrap_or(&[]))?;
                    Some((from, to))
                }
                None => Some((from, to)),
            };
        }
        match run {
            Some((first, end)) => self.write(at + first as u64, new.get(first..end).unwrap_or(&[])),
            None => Ok(()),
        }
    }

    /// Allocates a run of blocks; it may be shorter than asked for. See [`Volume::reserve`].
    pub fn alloc(&mut self, want: Want) -> Result<Run> {
        let reservation = self.vol.reserve(want)?;
        self.take(reservation)
    }

    /// Allocates the blocks of `reservation`. They cannot be freed in the same transaction.
    pub fn take(&mut self, reservation: Reservation<'_, P>) -> Result<Run> {
        self.need(0)?;
        let run = reservation.into_run();
        self.free_blocks -= run.len as i64;
        self.log(Entry::Blocks { run, used: true }, Pending::Alloc(run))?;
        Ok(run)
    }

    /// Frees `len` blocks from `block` on, which are in use. Others can have them once the
    /// transaction is committed.
    ///
    /// Fails with [`Error::Corrupt`] if not all of them are in use.
    pub fn free(&mut self, block: u64, len: u64) -> Result<()> {
        let end = block.checked_add(len).ok_or(Error::Invalid)?;
        let mut left = Run { block, len };
        while left.len > 0 {
            self.need(0)?;
            let run = self.vol.groups.part(left);
            self.vol
                .groups
                .begin_free(&self.vol.pmem, &self.vol.geo, run)?;
            self.free_blocks += run.len as i64;
            self.log(Entry::Blocks { run, used: false }, Pending::Free(run))?;
            left = Run {
                block: run.end(),
                len: end - run.end(),
            };
        }
        Ok(())
    }

    /// Puts a new inode into the slot that was reserved for it: `raw` with its number, generation
    /// and checksum set. It is on the media at once, and in use when the transaction is committed.
    pub fn create_inode(
        &mut self,
        reservation: InodeReservation<'_, P>,
        mut raw: RawInode,
    ) -> Result<Inode> {
        self.need(0)?;
        raw.ino = reservation.ino().into();
        raw.generation = reservation.generation().into();
        inode::seal(&mut raw);
        let (ino, at) = reservation.into_slot();
        let inode = Inode::new(at, raw);
        let (header, slot) = inode.slot();
        self.used_inodes += 1;
        let used = true;
        let entry = Entry::Inode { header, slot, used };
        self.log(entry, Pending::InodeAlloc(ino))?;
        // Most lines of most inodes hold what a free slot holds: zeros. What a slot holds is
        // durable, since each transaction fences what it has stored, dropped or not.
        let mut line = [0; LINE as usize];
        for (line_at, bytes) in (at..)
            .step_by(line.len())
            .zip(inode.raw().as_bytes().chunks_exact(line.len()))
        {
            self.vol.pmem.read(line_at, &mut line)?;
            if line != bytes {
                self.prepared.store(line_at, bytes)?;
            }
        }
        Ok(inode)
    }

    /// Frees the number of `inode`, which is in use and has no blocks. Others can have it once the
    /// transaction is committed.
    pub fn free_inode(&mut self, inode: &Inode) -> Result<()> {
        self.need(0)?;
        self.vol.table.begin_free(inode.ino())?;
        let (header, slot) = inode.slot();
        self.used_inodes -= 1;
        let used = false;
        let entry = Entry::Inode { header, slot, used };
        self.log(entry, Pending::InodeFree(inode.ino()))
    }

    /// Enters `raw`, an inode whose change this transaction logs, in the orphan file.
    pub fn attach_orphan(
        &mut self,
        reservation: OrphanReservation<'_, P>,
        raw: &mut RawInode,
    ) -> Result<()> {
        let (at, bytes) = reservation.content(raw.ino.get());
        self.need(bytes.len())?;
        let slot = reservation.into_slot();
        self.log(
            Entry::Write { at, bytes: &bytes },
            Pending::OrphanAttach(slot),
        )?;
        raw.orphan = (slot + 1).into();
        Ok(())
    }

    /// Takes `raw`, an inode whose change this transaction logs, out of the orphan file. Nothing to
    /// do if it is not in it.
    pub fn detach_orphan(&mut self, raw: &mut RawInode) -> Result<()> {
        let Some(slot) = raw.orphan.get().checked_sub(1) else {
            return Ok(());
        };
        let (at, bytes) = self.vol.orphans.empty(slot)?;
        self.need(bytes.len())?;
        self.log(
            Entry::Write { at, bytes: &bytes },
            Pending::OrphanDetach(slot),
        )?;
        raw.orphan = 0.into();
        Ok(())
    }

    /// Makes the transaction happen. Afterwards it is durable, and in place.
    ///
    /// If it fails with [`Volume::is_failed`] true, whether the transaction has happened is known
    /// only after the next mount; the caller must shut the file system down. Else it has not.
    pub fn commit(mut self) -> Result<()> {
        self.vol.check_failed()?;
        let prepared = self.prepared.take().write_back().fence()?;
        if self.lane.body.is_empty() {
            return Ok(());
        }
        self.commit_log(prepared).inspect_err(|_| {
            // Recovery will decide; until then nobody may have what this transaction took.
            self.vol.fail(self.lane.at);
            self.lane.pending.clear();
        })
    }

    fn commit_log(&mut self, prepared: Durable<Prepared>) -> Result<()> {
        let seq = self.lane.seq.checked_add(1).ok_or(Error::Invalid)?;
        let logged = self.write_log(seq, prepared)?.fence()?;
        let applied = self.apply(logged)?.fence()?;
        let retired = self.retire(seq, applied)?.fence()?;
        self.settle(seq, retired);
        Ok(())
    }

    fn write_log(
        &mut self,
        seq: u64,
        _prepared: Durable<Prepared>,
    ) -> Result<WrittenBack<'v, P, Logged>> {
        let (free_blocks, used_inodes) = self.counters();
        let header = seal(&self.lane, seq, free_blocks, used_inodes);
        let mut dirty = Dirty::new(&self.vol.pmem);
        dirty.store(header_at(self.lane.at, seq), header.as_bytes())?;
        dirty.store(self.lane.at + LANE_BODY, &self.lane.body)?;
        Ok(dirty.write_back())
    }

    fn apply(&mut self, _logged: Durable<Logged>) -> Result<WrittenBack<'v, P, Applied>> {
        let vol = self.vol;
        let mut dirty = Dirty::new(&vol.pmem);
        let mut body: &[u8] = &self.lane.body;
        while !body.is_empty() {
            let entry = Entry::parse(&mut body, &vol.geo).ok_or(Error::Invalid)?;
            let mut apply = || entry.apply(&mut dirty, &vol.pmem, &vol.geo);
            match entry {
                Entry::Write { .. } => apply()?,
                Entry::Blocks { run, .. } => vol.groups.locked(run.block, apply)?,
                Entry::Inode { .. } => vol.table.locked(apply)?,
            }
        }
        Ok(dirty.write_back())
    }

    fn retire(
        &mut self,
        seq: u64,
        _applied: Durable<Applied>,
    ) -> Result<WrittenBack<'v, P, Retired>> {
        let mut dirty = Dirty::new(&self.vol.pmem);
        retire(&mut dirty, self.lane.at, seq)?;
        Ok(dirty.write_back())
    }

    /// Gives up in memory what the transaction has made busy: it is retired.
    fn settle(&mut self, seq: u64, _retired: Durable<Retired>) {
        let vol = self.vol;
        (self.lane.free_blocks, self.lane.used_inodes) = self.counters();
        self.lane.seq = seq;
        self.lane.body.clear();
        while let Some(pending) = self.lane.pending.pop() {
            match pending {
                Pending::Alloc(run) => vol.groups.release(run, false),
                Pending::Free(run) => {
                    vol.groups.release(run, true);
                    vol.free.add(run.len as i64);
                }
                Pending::InodeAlloc(ino) => vol.table.release(ino, true),
                Pending::InodeFree(ino) => {
                    vol.table.release(ino, false);
                    vol.used_inodes.add(-1);
                }
                Pending::OrphanAttach(_) => {}
                Pending::OrphanDetach(slot) => vol.orphans.release(slot),
            }
        }
    }

    /// The lane's counters with this transaction.
    fn counters(&self) -> (i64, i64) {
        (
            self.lane.free_blocks.wrapping_add(self.free_blocks),
            self.lane.used_inodes.wrapping_add(self.used_inodes),
        )
    }
}

impl<P: Pmem> Drop for Tx<'_, P> {
    fn drop(&mut self) {
        let vol = self.vol;
        // What is in the cache of a slot must be on the media too: `create_inode` relies on it. If
        // the fence fails, so will the next one.
        let _ = self.prepared.take().write_back().fence();
        self.lane.body.clear();
        while let Some(pending) = self.lane.pending.pop() {
            match pending {
                Pending::Alloc(run) => {
                    vol.groups.release(run, false);
                    vol.free.add(run.len as i64);
                }
                Pending::Free(run) => vol.groups.release(run, false),
                Pending::InodeAlloc(ino) => {
                    vol.table.release(ino, false);
                    vol.used_inodes.add(-1);
                }
                Pending::InodeFree(ino) => vol.table.release(ino, true),
                Pending::OrphanAttach(slot) => vol.orphans.release(slot),
                Pending::OrphanDetach(_) => {}
            }
        }
    }
}
