// SPDX-License-Identifier: GPL-2.0

//! A transaction: collecting changes, and the commit.

use core::mem::offset_of;

use zerocopy::{FromBytes, IntoBytes};

use super::entry::{Entry, Word, WORD};
use super::{header_at, retire, seal, Applied, Lane, Logged, Pending, Prepared, Retired};
use crate::env::Guard;
use crate::volume::alloc::{Reservation, Run, Want};
use crate::volume::error::{Error, Result};
use crate::volume::format::{RawInode, LANE_BODY};
use crate::volume::inode::{self, Inode};
use crate::volume::num::{to_i64, to_usize};
use crate::volume::orphan::OrphanReservation;
use crate::volume::persist::{Dirty, Durable, WrittenBack};
use crate::volume::pmem::{read_struct, Pmem, LINE};
use crate::volume::table::InodeReservation;
use crate::volume::task::Task;
use crate::volume::Volume;

/// Where the root of the extent tree is in an inode.
const ROOT_AT: usize = offset_of!(RawInode, root);
/// Words of a line.
const LINE_WORDS: usize = to_usize(LINE) / WORD;
/// Lines of the root.
const ROOT_LINES: usize = (size_of::<RawInode>() - ROOT_AT) / to_usize(LINE);

/// A transaction being built. If it is dropped instead of committed, it leaves no trace.
///
/// Only the methods `init*` reach the media before [`Tx::commit`], and what they write must not be
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

/// `bytes` as words: their number must be a multiple of 8, otherwise the error is
/// [`Error::Invalid`].
#[inline]
fn words(bytes: &[u8]) -> Result<&[Word]> {
    <[Word]>::ref_from_bytes(bytes).map_err(|_| Error::Invalid)
}

impl<'v, P: Pmem> Tx<'v, P> {
    #[inline]
    pub(super) fn new(vol: &'v Volume<P>, lane: Guard<'v, Lane>) -> Self {
        Tx {
            vol,
            lane,
            prepared: Dirty::new(&vol.pmem),
            free_blocks: 0,
            used_inodes: 0,
        }
    }

    /// The seed of the checksums of the volume.
    #[inline]
    pub(in crate::volume) fn seed(&self) -> u32 {
        self.vol.geo.seed
    }

    /// A number that no other transaction of the volume has.
    pub(in crate::volume) fn number(&self) -> u64 {
        // There are 256 lanes at most.
        (self.lane.seq << 8) | u64::from(self.lane.index)
    }

    /// Logs `raw`, the system inode in `slot`, and its copy, each completely: this repairs a
    /// damaged one.
    #[inline(never)]
    pub(in crate::volume) fn write_system_inode(
        &mut self,
        slot: u64,
        raw: &RawInode,
    ) -> Result<()> {
        let geo = &self.vol.geo;
        for at in [geo.system_inode_at(slot), geo.system_copy_at(slot)] {
            self.write(at, raw.as_bytes())?;
        }
        Ok(())
    }

    /// Bytes that still fit in the log. A write takes 8 bytes more than its own; an allocation or a
    /// free takes 16.
    pub fn room(&self) -> usize {
        self.lane.body.room()
    }

    /// Fails with [`Error::Invalid`] unless an entry of `words` words fits, and makes sure that it
    /// can be recorded: after that, neither fails.
    fn need(&mut self, words: usize) -> Result<()> {
        self.lane.body.need(words)?;
        Ok(self.lane.pending.reserve(1)?)
    }

    /// Stores `bytes` at `at` now, where nothing on the media refers to yet: a fresh block.
    pub fn init(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.prepared.store(at, bytes)
    }

    /// Stores `len` zero bytes at `at` now, where nothing on the media refers to yet.
    pub fn init_zero(&mut self, at: u64, len: u64) -> Result<()> {
        self.prepared.zero(at, len)
    }

    /// The caller has stored data past the cache, or written it back. The data must be durable
    /// before this transaction is committed.
    pub fn ordered(&mut self) {
        self.prepared.ordered();
    }

    /// Logs that `bytes` are to be written at `at`; both `at` and their number are multiples of 8.
    /// They are covered by a lock that the caller holds until `commit` has returned.
    ///
    /// Fails with [`Error::Invalid`] if the log has no room, or the place lies outside the volume.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.write_at(at, bytes.len())?;
        self.lane.body.extend(words(bytes)?)
    }

    /// Logs that `head`, `name` with zeros up to a multiple of 8, and `tail` are to be written at
    /// `at`, one after the other: the name of a directory. Otherwise as [`Tx::write`].
    pub fn write_name(&mut self, at: u64, head: &[u8], name: &[u8], tail: &[u8]) -> Result<()> {
        let (whole, rest) = name.split_at(name.len() - name.len() % WORD);
        let mut last = [0; WORD];
        last[..rest.len()].copy_from_slice(rest);
        let last = if rest.is_empty() { &[] } else { &last[..] };
        let parts = [head, whole, last, tail];
        self.write_at(at, parts.iter().map(|part| part.len()).sum())?;
        for part in parts {
            self.lane.body.extend(words(part)?)?;
        }
        Ok(())
    }

    /// Logs the head of a write of `len` bytes at `at`, and makes sure that they fit.
    fn write_at(&mut self, at: u64, len: usize) -> Result<()> {
        if at % WORD as u64 != 0 || len % WORD != 0 || !self.vol.geo.is_logged(at, len as u64) {
            return Err(Error::Invalid);
        }
        // A committed transaction has to be applied: this is the last chance to find out that it
        // cannot.
        self.vol.pmem().check_storable(at, len as u64)?;
        self.lane.body.write(at, len / WORD)
    }

    /// Logs those words in which `new` differs from `old`, the content of the media at `at`. `at`
    /// and the lengths, which are equal, are multiples of 8. Otherwise as [`Tx::write`].
    pub fn update(&mut self, at: u64, old: &[u8], new: &[u8]) -> Result<()> {
        if at % WORD as u64 != 0 || old.len() % WORD != 0 || old.len() != new.len() {
            return Err(Error::Invalid);
        }
        let (old, new) = (words(old)?, words(new)?);
        let differs = |i: usize| match (old.get(i), new.get(i)) {
            (Some(old), Some(new)) => old.get() != new.get(),
            _ => false,
        };
        let mut next = 0;
        while let Some(start) = (next..new.len()).find(|i| differs(*i)) {
            let mut end = start + 1;
            next = end;
            // Logs an equal word between two that differ, too: a separate head takes as much.
            while next < new.len() && next <= end + 1 {
                if differs(next) {
                    end = next + 1;
                }
                next += 1;
            }
            let run = new.get(start..end).unwrap_or(&[]);
            self.write_at(at + (start * WORD) as u64, size_of_val(run))?;
            self.lane.body.extend(run)?;
        }
        Ok(())
    }

    /// Logs that `len` bytes at `at`, of one block of a file, are to become zero. They are covered
    /// by a lock that the caller holds until `commit` has returned.
    pub fn zero(&mut self, at: u64, len: u64) -> Result<()> {
        self.lane.body.zero(at, len)
    }

    /// Allocates a run of blocks; it may be shorter than asked for. See [`Volume::reserve`].
    pub fn alloc(&mut self, want: Want) -> Result<Run> {
        let reservation = self.vol.reserve(want)?;
        self.take(reservation)
    }

    /// Allocates the blocks of `reservation`. They cannot be freed in the same transaction.
    pub fn take(&mut self, reservation: Reservation<'_, P>) -> Result<Run> {
        self.need(2)?;
        let run = reservation.into_run();
        self.free_blocks -= to_i64(run.len);
        self.lane.body.blocks(run, true)?;
        self.lane.pending.push(Pending::Alloc(run))?;
        Ok(run)
    }

    /// Frees `len` blocks from `block` on, which are in use. Others can allocate them once the
    /// transaction is committed.
    ///
    /// Fails with [`Error::Corrupt`] if not all of them are in use.
    pub fn free(&mut self, block: u64, len: u64) -> Result<()> {
        let end = block.checked_add(len).ok_or(Error::Invalid)?;
        let mut left = Run { block, len };
        while left.len > 0 {
            self.need(2)?;
            let run = self.vol.groups.part(left);
            self.vol
                .groups
                .begin_free(&self.vol.pmem, &self.vol.geo, run)?;
            self.free_blocks += to_i64(run.len);
            self.lane.body.blocks(run, false)?;
            self.lane.pending.push(Pending::Free(run))?;
            left = Run {
                block: run.end(),
                len: end - run.end(),
            };
        }
        Ok(())
    }

    /// Puts a new inode into the slot that was reserved for it: `inode`, which is blank except for
    /// its `raw`, whose number, generation and checksum are set here. It is on the media at once,
    /// and in use when the transaction is committed; until then the caller treats it as blank.
    pub(in crate::volume) fn create_inode_at(
        &mut self,
        reservation: InodeReservation<'_, P>,
        inode: &mut Inode,
    ) -> Result<()> {
        self.need(1)?;
        inode.raw.ino = reservation.ino().into();
        inode.raw.generation = reservation.generation().into();
        inode::seal(&mut inode.raw, self.seed());
        let (ino, at) = reservation.into_slot();
        inode.at = at;
        let (header, slot) = inode.slot();
        self.used_inodes += 1;
        self.lane.body.inode(header, slot, true)?;
        self.lane.pending.push(Pending::InodeAlloc(ino))?;
        // The last two lines of most inodes are zeros, like those of a free slot. The content of a
        // slot is durable, since each transaction fences its stores, dropped or not.
        let (lines, root) = inode.raw.as_bytes().split_at(ROOT_AT);
        self.prepared.store(at, lines)?;
        let at = at + ROOT_AT as u64;
        let there: [[Word; LINE_WORDS]; ROOT_LINES] = read_struct(&self.vol.pmem, at)?;
        let wanted = words(root)?.chunks_exact(LINE_WORDS);
        for ((at, there), wanted) in (at..).step_by(to_usize(LINE)).zip(&there).zip(wanted) {
            if there.iter().zip(wanted).any(|(a, b)| a.get() != b.get()) {
                self.prepared.store(at, wanted.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Puts a new inode into the slot that was reserved for it: `raw` with its number, generation
    /// and checksum set. It is on the media at once, and in use when the transaction is committed.
    #[cfg(not(MODULE))]
    pub fn create_inode(
        &mut self,
        reservation: InodeReservation<'_, P>,
        raw: RawInode,
    ) -> Result<Inode> {
        let mut inode = Inode::blank();
        inode.raw = raw;
        self.create_inode_at(reservation, &mut inode)?;
        Ok(inode)
    }

    /// Frees the number of `inode`, which is in use and has no blocks. Others can allocate it once
    /// the transaction is committed.
    pub fn free_inode(&mut self, inode: &Inode) -> Result<()> {
        self.need(1)?;
        self.vol.table.begin_free(inode.ino())?;
        let (header, slot) = inode.slot();
        self.used_inodes -= 1;
        self.lane.body.inode(header, slot, false)?;
        Ok(self.lane.pending.push(Pending::InodeFree(inode.ino()))?)
    }

    /// Adds `raw`, an inode whose change this transaction logs, to the orphan file, with its
    /// unfinished work.
    pub fn attach_orphan(
        &mut self,
        reservation: OrphanReservation<'_, P>,
        raw: &mut RawInode,
        task: Option<Task>,
    ) -> Result<()> {
        let (at, bytes) = reservation.content(raw.ino.get(), task);
        self.need(0)?;
        self.write(at, &bytes)?;
        let slot = reservation.into_slot();
        self.lane.pending.push(Pending::OrphanAttach(slot))?;
        raw.orphan = (slot + 1).into();
        Ok(())
    }

    /// Removes `raw`, an inode whose change this transaction logs, from the orphan file. Does
    /// nothing if it is not in it.
    pub fn detach_orphan(&mut self, raw: &mut RawInode) -> Result<()> {
        let Some(slot) = raw.orphan.get().checked_sub(1) else {
            return Ok(());
        };
        let (at, bytes) = self.vol.orphans.empty(slot)?;
        self.need(0)?;
        self.write(at, &bytes)?;
        self.lane.pending.push(Pending::OrphanDetach(slot))?;
        raw.orphan = 0.into();
        Ok(())
    }

    /// Commits the transaction. Afterwards it is durable, and in place.
    ///
    /// If it fails with [`Volume::is_failed`] true, only the next mount decides whether the
    /// transaction was committed; the caller must shut the file system down. Otherwise it was not.
    pub fn commit(mut self) -> Result<()> {
        self.vol.check_failed()?;
        let prepared = self.prepared.take().write_back().fence()?;
        if self.lane.body.words().is_empty() {
            return Ok(());
        }
        self.commit_log(prepared).inspect_err(|_| {
            // Recovery will decide; until then nobody may get what this transaction took.
            self.vol.fail(self.lane.at);
            self.lane.pending.clear();
        })
    }

    fn commit_log(&mut self, prepared: Durable<Prepared>) -> Result<()> {
        let seq = self.lane.seq.checked_add(1).ok_or(Error::Invalid)?;
        let logged = self.write_log(seq, prepared)?.fence()?;
        let applied = self.apply(logged)?.fence()?;
        let retired = self.retire(seq, applied)?.fence()?;
        self.close(seq, retired);
        Ok(())
    }

    fn write_log(
        &mut self,
        seq: u64,
        _prepared: Durable<Prepared>,
    ) -> Result<WrittenBack<'v, P, Logged>> {
        let (free_blocks, used_inodes) = self.counters();
        let header = seal(&self.lane, self.seed(), seq, free_blocks, used_inodes);
        let mut dirty = Dirty::new(&self.vol.pmem);
        dirty.store(header_at(self.lane.at, seq), header.as_bytes())?;
        dirty.store(self.lane.at + LANE_BODY, self.lane.body.words().as_bytes())?;
        Ok(dirty.write_back())
    }

    fn apply(&mut self, _logged: Durable<Logged>) -> Result<WrittenBack<'v, P, Applied>> {
        let vol = self.vol;
        let mut dirty = Dirty::new(&vol.pmem);
        let mut body = self.lane.body.words();
        while !body.is_empty() {
            let entry = Entry::parse(&mut body, &vol.geo).ok_or(Error::Invalid)?;
            let apply = || entry.apply(&mut dirty, &vol.pmem, &vol.geo);
            match entry {
                Entry::Write { at, words } => dirty.store(at, words.as_bytes())?,
                Entry::Zero { at, len } => dirty.zero(at, len)?,
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

    /// Releases in memory what the transaction has made busy: it is retired.
    fn close(&mut self, seq: u64, _retired: Durable<Retired>) {
        let vol = self.vol;
        (self.lane.free_blocks, self.lane.used_inodes) = self.counters();
        self.lane.seq = seq;
        self.lane.body.clear();
        while let Some(pending) = self.lane.pending.pop() {
            match pending {
                Pending::Alloc(run) => vol.groups.release(run, false),
                Pending::Free(run) => {
                    vol.groups.release(run, true);
                    vol.free.add(to_i64(run.len));
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
        // Stores to a slot that are in the cache must be on the media, too: `create_inode` relies
        // on it. If the fence fails, so will the next one.
        if !self.prepared.is_empty() {
            let _ = self.prepared.take().write_back().fence();
        }
        self.lane.body.clear();
        while let Some(pending) = self.lane.pending.pop() {
            match pending {
                Pending::Alloc(run) => {
                    vol.groups.release(run, true);
                    vol.free.add(to_i64(run.len));
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
