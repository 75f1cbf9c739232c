// SPDX-License-Identifier: GPL-2.0

//! read(2) and write(2) of DAX files, and O_DIRECT of the others: copies between user memory and
//! the media, with no cache between them.
//!
//! A write is durable when it returns, O_DIRECT or not: data bypasses the CPU cache, and one fence
//! completes it before the size that covers it changes, or before the call returns. Only the
//! timestamp of an overwrite is written later.
//!
//! Only `i_rwsem` is held while user memory is copied: it may be a mapping of this very file, and
//! fault. `i_rwsem` is enough: blocks leave the file only under it. But a fault may fill a hole at
//! any time. So a write stores into reserved blocks first and then asks the volume to add them to
//! the file, if the hole still exists. It stores into unwritten blocks before they are data, and
//! then also checks whether a fault has made them data.
//!
//! Reading bytes of a block that is known to be bad, or turns out to be, fails with EIO. A write
//! that covers the block heals it; another one fails with EIO, since the rest of the block cannot
//! be kept.

use kernel::error::code::*;
use kernel::error::to_result;
use kernel::iov::{IovIterDest, IovIterSource};
use kernel::prelude::*;

use super::table::file::Kiocb;
use crate::mount::inode::InodeInfo;
use crate::mount::lock::{Exclusive, InodeLock, SharedInodeLock};
use crate::mount::meta::MetaGuard;
use crate::mutate::mutated;
use crate::volume::alloc::Want;
use crate::volume::error::Error as VolumeError;
use crate::volume::file::Map;
use crate::volume::format::{Time, BLOCK};
use crate::volume::inode::Inode;
use crate::volume::pmem::Pmem;
use crate::{bindings, dax, volume};

/// The most bytes to copy between two checks of the file, and for signals.
const PIECE: u64 = 16 << 20;

/// Whether the task is being killed. Lets other tasks run, too.
pub fn interrupted() -> bool {
    // SAFETY: both only concern the current task, which holds no spinlock here.
    unsafe {
        bindings::rdax_cond_resched();
        bindings::rdax_fatal_signal_pending()
    }
}

/// The blocks that the bytes `pos..pos + len` touch.
fn blocks(pos: u64, len: u64) -> u64 {
    (pos % BLOCK + len).div_ceil(BLOCK)
}

/// Why a copy to or from `iter`, with `left` bytes left, ended early. `fault_in` returns how many
/// of some bytes of user memory are not accessible. If all are, it was the media.
fn ended_early(
    iter: *const bindings::iov_iter,
    left: usize,
    fault_in: unsafe extern "C" fn(*const bindings::iov_iter, usize) -> usize,
) -> Error {
    // A copy may end a few bytes before the memory that it cannot access.
    // SAFETY: the iterator is the caller's, lent for the call.
    match unsafe { fault_in(iter, left.min(size_of::<u64>())) } {
        0 => EIO,
        _ => EFAULT,
    }
}

/// The result of a loop of copies: the number of bytes, or the error if there are none.
fn done(total: usize, result: Result) -> Result<usize> {
    match result {
        Err(error) if total == 0 => Err(error),
        _ => Ok(total),
    }
}

/// Whether a call may wait for locks and transactions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    May,
    /// It fails with `EAGAIN` instead.
    MustNot,
}

impl Wait {
    fn of(iocb: &Kiocb) -> Self {
        match iocb.is_nowait() {
            true => Wait::MustNot,
            false => Wait::May,
        }
    }

    /// The volume's view of the inode.
    fn meta(self, info: &InodeInfo) -> Result<MetaGuard<'_>> {
        match self {
            Wait::May => Ok(info.meta()),
            Wait::MustNot => info.meta.try_get().ok_or(EAGAIN),
        }
    }
}

/// `->read_iter`.
pub fn read(iocb: &mut Kiocb, to: &mut IovIterDest<'_>) -> Result<usize> {
    if to.is_empty() {
        return Ok(0);
    }
    let (mut pos, mut total, wait) = (iocb.pos(), 0, Wait::of(iocb));
    let result = {
        let info = iocb.file().inode();
        let _blocks_stay = match wait {
            Wait::May => SharedInodeLock::new(info),
            Wait::MustNot => SharedInodeLock::try_new(info).ok_or(EAGAIN)?,
        };
        read_locked(info, to, &mut pos, &mut total, wait)
    };
    iocb.set_pos(pos);
    iocb.file().accessed();
    done(total, result)
}

/// Copies as much as `to` has room for, up to the end of the file.
fn read_locked(
    info: &InodeInfo,
    to: &mut IovIterDest<'_>,
    pos: &mut u64,
    total: &mut usize,
    wait: Wait,
) -> Result {
    let sb = info.sb();
    let pmem = sb.volume.pmem();
    sb.check_alive()?;
    while !to.is_empty() {
        let left = info.i_size().saturating_sub(*pos);
        let want = left.min(to.len() as u64).min(PIECE);
        if want == 0 {
            break;
        }
        if interrupted() {
            return Err(EINTR);
        }
        let map = {
            let mut meta = wait.meta(info)?;
            sb.check(sb.volume.map(&mut meta, *pos / BLOCK, blocks(*pos, want)))?
        };
        let want = want.min(map.file_blocks() * BLOCK - *pos % BLOCK) as usize;
        let copied = match map {
            Map::Run { block, .. } => pmem.copy_to_iter(block, *pos % BLOCK, want, to),
            Map::Hole { .. } | Map::Unwritten { .. } => {
                // SAFETY: the iterator is the caller's, lent for the call.
                unsafe { bindings::iov_iter_zero(want, to.as_raw()) }
            }
        };
        *pos += copied as u64;
        *total += copied;
        if copied < want {
            sb.check_alive()?;
            return Err(ended_early(
                to.as_raw(),
                to.len(),
                bindings::fault_in_iov_iter_writeable,
            ));
        }
    }
    Ok(())
}

/// `->write_iter`.
pub fn write(iocb: &mut Kiocb, from: &mut IovIterSource<'_>) -> Result<usize> {
    write_with(iocb, from, |inode, iocb, from| {
        if iocb.is_nowait() {
            overwrites(inode.info(), iocb, from.len() as u64)?;
        }
        store(inode, iocb.pos(), from)
    })
}

/// `->write_iter`, with `body` to write the bytes: it is called with the inode locked, after all
/// checks, and returns how many it wrote.
pub fn write_with(
    iocb: &mut Kiocb,
    from: &mut IovIterSource<'_>,
    body: impl FnOnce(Exclusive<'_>, &Kiocb, &mut IovIterSource<'_>) -> Result<usize>,
) -> Result<usize> {
    let (start, written) = {
        let file = iocb.file();
        let lock = match Wait::of(iocb) {
            Wait::May => InodeLock::new(file.inode()),
            Wait::MustNot => InodeLock::try_new(file.inode()).ok_or(EAGAIN)?,
        };
        file.inode().sb().check_writable()?;
        // Cuts `from` to the limits, and moves the position for O_APPEND.
        // SAFETY: both are the caller's, lent for the call, and the inode is locked.
        let count = unsafe { bindings::generic_write_checks(iocb.as_raw(), from.as_raw()) };
        if count <= 0 {
            // CAST: an errno is small.
            to_result(count as i32)?;
            return Ok(0);
        }
        // Clears setuid and setgid, and updates the timestamps.
        // SAFETY: the control block is the caller's, and the inode is locked.
        to_result(unsafe { bindings::kiocb_modified(iocb.as_raw()) })?;
        (iocb.pos(), body(lock.exclusive(), iocb, from)?)
    };
    iocb.set_pos(start.saturating_add(written as u64));
    // SAFETY: the control block is the caller's; the inode is not locked.
    let synced = unsafe { bindings::rdax_generic_write_sync(iocb.as_raw(), written as isize) };
    // CAST: an errno is small.
    to_result(synced.min(0) as i32)?;
    Ok(written)
}

/// Fails with `EAGAIN` if a write of `len` bytes has to wait. It need not if it stores to blocks
/// that are data of the file already, and an `sfence` completes it.
fn overwrites(info: &InodeInfo, iocb: &Kiocb, len: u64) -> Result {
    let sb = info.sb();
    let end = iocb.pos().checked_add(len).ok_or(EFBIG)?;
    if end > info.i_size() || iocb.is_sync() || !sb.volume.pmem().is_synchronous() {
        return Err(EAGAIN);
    }
    let mut meta = Wait::MustNot.meta(info)?;
    let (mut block, last) = (iocb.pos() / BLOCK, end.div_ceil(BLOCK));
    while block < last {
        match sb.check(sb.volume.map(&mut meta, block, last - block))? {
            Map::Run { len, .. } => block += len,
            Map::Hole { .. } | Map::Unwritten { .. } => return Err(EAGAIN),
        }
    }
    Ok(())
}

/// The block that holds block `index` of the file, for `FIBMAP`. `None` if it reads as zeros
/// whatever is there.
pub fn block_of(info: &InodeInfo, index: u64) -> Result<Option<u64>> {
    let sb = info.sb();
    sb.check_alive()?;
    if index >= info.i_size().div_ceil(BLOCK) {
        return Ok(None);
    }
    let mut meta = info.meta();
    match sb.check(sb.volume.map(&mut meta, index, 1))? {
        Map::Run { block, .. } => Ok(Some(block)),
        Map::Hole { .. } | Map::Unwritten { .. } => Ok(None),
    }
}

/// As [`ended_early`], for the source of a write.
fn source_ended(from: &mut IovIterSource<'_>) -> Error {
    ended_early(
        from.as_raw(),
        from.len(),
        bindings::fault_in_iov_iter_readable,
    )
}

/// Writes `from` at byte `pos` to the media. Returns the number of bytes.
pub fn store(inode: Exclusive<'_>, pos: u64, from: &mut IovIterSource<'_>) -> Result<usize> {
    let mut writer = Writer::new(inode, pos);
    let result = writer.write(from);
    // Without the fence nothing was written.
    writer.fence()?;
    done(writer.total, result)
}

/// Where a write is stored.
enum Place {
    /// In the blocks of the file from this one on.
    Data(u64),
    /// Likewise, but they are unwritten.
    Unwritten(u64),
    /// In other blocks, for a hole.
    New(Want),
}

/// A write in progress.
struct Writer<'a> {
    inode: Exclusive<'a>,
    /// Where the next byte goes.
    pos: u64,
    /// Bytes written.
    total: usize,
    /// Something was stored past the cache without a fence.
    stored: bool,
    /// The time of the change.
    now: Time,
}

impl<'a> Writer<'a> {
    fn new(inode: Exclusive<'a>, pos: u64) -> Self {
        Writer {
            inode,
            pos,
            total: 0,
            stored: false,
            now: inode.times().ctime,
        }
    }

    /// Makes what was stored durable.
    fn fence(&mut self) -> Result {
        if !core::mem::take(&mut self.stored) || mutated!("write-fence") {
            return Ok(());
        }
        let sb = self.inode.sb();
        sb.check(sb.volume.pmem().fence())
    }

    /// Writes all of `from`.
    fn write(&mut self, from: &mut IovIterSource<'_>) -> Result {
        let info = self.inode.info();
        let sb = info.sb();
        while !from.is_empty() {
            if interrupted() {
                return Err(EINTR);
            }
            sb.check_writable()?;
            let want = PIECE.min(from.len() as u64);
            let (first, nr) = (self.pos / BLOCK, blocks(self.pos, want));
            let (len, place) = {
                let mut meta = info.meta();
                match sb.check(sb.volume.map(&mut meta, first, nr))? {
                    Map::Run { block, len } => (len, Place::Data(block)),
                    Map::Unwritten { block, len } => {
                        // Under the meta lock: nobody can have stored to it. If it stays bad, the
                        // copy ends early.
                        let _ = sb.volume.pmem().heal(block * BLOCK, len * BLOCK);
                        (len, Place::Unwritten(block))
                    }
                    Map::Hole { len } => {
                        let want = sb.check(sb.volume.want(&mut meta, first, len))?;
                        (len, Place::New(want))
                    }
                }
            };
            let want = want.min(len * BLOCK - self.pos % BLOCK);
            match place {
                Place::Data(block) => self.overwrite(from, block, want)?,
                Place::Unwritten(block) => self.convert(from, block, want)?,
                Place::New(wanted) => self.fill(from, want, wanted)?,
            }
        }
        Ok(())
    }

    /// Counts `copied` bytes as written.
    fn advance(&mut self, copied: usize) {
        self.pos += copied as u64;
        self.total += copied;
    }

    /// Writes `want` bytes to the blocks from `block` on, which the file has.
    fn overwrite(&mut self, from: &mut IovIterSource<'_>, block: u64, want: u64) -> Result {
        let info = self.inode.info();
        let sb = info.sb();
        let start = self.pos;
        let pmem = sb.volume.pmem();
        let copied = pmem.copy_from_iter(block, start % BLOCK, want as usize, from);
        self.stored = true;
        let (end, size) = (start + copied as u64, info.i_size());
        if copied > 0 && end > size {
            let edge = size.next_multiple_of(BLOCK);
            if end < edge {
                // Bytes that a mapping has stored beyond the end must not be beyond the new end.
                let at = block * BLOCK + (end - start / BLOCK * BLOCK);
                let zero = || sb.check(pmem.zero_nt(at, edge - end));
                info.clean_tail(zero)?;
            }
            let mut meta = info.meta();
            // This contains the fence.
            sb.check(sb.volume.extend(&mut meta, end, start, Some(self.now)))?;
            self.stored = false;
            info.set_i_size(end);
        }
        self.advance(copied);
        if (copied as u64) < want {
            return Err(source_ended(from));
        }
        Ok(())
    }

    /// Writes up to `want` bytes to a hole, into blocks as `wanted`.
    fn fill(&mut self, from: &mut IovIterSource<'_>, want: u64, wanted: Want) -> Result {
        let info = self.inode.info();
        let sb = info.sb();
        let (first, head) = (self.pos / BLOCK, self.pos % BLOCK);
        let mut reserved = sb.check(sb.volume.reserve_several(wanted))?;
        let pmem = sb.volume.pmem();
        let room = want.min(reserved.blocks() * BLOCK - head);
        let (mut at, mut copied) = (head, 0);
        for run in reserved.runs() {
            let part = (room - copied as u64).min(run.len * BLOCK - at) as usize;
            let done = pmem.copy_from_iter(run.block, at, part, from);
            copied += done;
            if done < part {
                break;
            }
            at = 0;
        }
        if copied == 0 {
            return Err(source_ended(from));
        }
        // The parts of the first and the last block outside the write become zero.
        let end = head + copied as u64;
        let used = end.div_ceil(BLOCK);
        reserved.truncate(used);
        let (begin, last) = reserved.ends();
        if !mutated!("write-zero-before") {
            sb.check(pmem.zero_nt(begin.block * BLOCK, head))?;
        }
        if !mutated!("write-zero-after") {
            let rest = used * BLOCK - end;
            sb.check(pmem.zero_nt(last.end() * BLOCK - rest, rest))?;
        }
        let size = self.pos + copied as u64;
        let now = self.now;
        self.becomes_data(from, (copied, room), |meta| {
            sb.volume.insert(meta, first, reserved, Some(size), now)
        })
    }

    /// Writes up to `want` bytes to the blocks from `block` on, which the file has, unwritten. If a
    /// fault makes them data meanwhile, the write is repeated, for data: until then, only the bytes
    /// of this write were stored.
    fn convert(&mut self, from: &mut IovIterSource<'_>, block: u64, want: u64) -> Result {
        let sb = self.inode.info().sb();
        let pmem = sb.volume.pmem();
        let start = self.pos;
        let copied = pmem.copy_from_iter(block, start % BLOCK, want as usize, from);
        if copied == 0 {
            return Err(source_ended(from));
        }
        self.stored = true;
        let end = start + copied as u64;
        let now = self.now;
        self.becomes_data(from, (copied, want), |meta| {
            sb.volume.convert(meta, start..end, Some(end), now)
        })
    }

    /// `copied` bytes of `from`, of at most `room`, are stored: `put` makes their blocks data of
    /// the file.
    fn becomes_data(
        &mut self,
        from: &mut IovIterSource<'_>,
        (copied, room): (usize, u64),
        put: impl FnOnce(&mut Inode) -> volume::Result<()>,
    ) -> Result {
        let info = self.inode.info();
        let sb = info.sb();
        let end = self.pos + copied as u64;
        let mut meta = info.meta();
        match put(&mut meta) {
            Err(VolumeError::Exists) => {
                // A fault came first. New blocks were freed, and the bytes go back to the iterator.
                // SAFETY: `copied` bytes were taken just now.
                unsafe { from.revert(copied) };
                return Ok(());
            }
            put => sb.check(put)?,
        }
        // That contained a fence.
        self.stored = false;
        if end > info.i_size() {
            info.set_i_size(end);
        }
        info.update_blocks(&meta);
        drop(meta);
        let first = self.pos / BLOCK;
        dax::hole_filled(info, first, end.div_ceil(BLOCK) - first);
        self.advance(copied);
        if (copied as u64) < room {
            return Err(source_ended(from));
        }
        Ok(())
    }
}
