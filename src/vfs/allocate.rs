// SPDX-License-Identifier: GPL-2.0

//! fallocate(2): preallocation, holes, and ranges of zeros.
//!
//! Allocated blocks are unwritten: the first store to one, or the first write, makes it data in a
//! separate transaction. `FALLOC_FL_WRITE_ZEROES` avoids this later transaction.

use kernel::error::code::*;
use kernel::error::to_result;
use kernel::prelude::*;

use super::cached;
use super::io::interrupted;
use crate::mount::inode::InodeInfo;
use crate::mount::lock::{Exclusive, InodeLock, InvalidateLock};
use crate::mount::object::File;
use crate::mutate::mutated;
use crate::pmem::DirectMap;
use crate::volume::file::Map;
use crate::volume::format::{Time, BLOCK};
use crate::volume::inode::Inode;
use crate::volume::pmem::Pmem;
use crate::volume::{self, Volume};
use crate::{bindings, dax};

/// The most blocks to zero between two checks for signals.
const PIECE: u64 = 4096;

/// The kind of request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Allocate,
    Punch,
    Zero,
    WriteZeroes,
    Collapse,
    Insert,
}

impl What {
    /// From `FALLOC_FL_*`, ignoring KEEP_SIZE.
    fn of(mode: i32) -> Result<Self> {
        Ok(match mode {
            // No blocks are shared, so there is nothing to unshare.
            0 | bindings::RDAX_FALLOC_FL_UNSHARE_RANGE => What::Allocate,
            bindings::RDAX_FALLOC_FL_PUNCH_HOLE => What::Punch,
            bindings::RDAX_FALLOC_FL_ZERO_RANGE => What::Zero,
            bindings::RDAX_FALLOC_FL_WRITE_ZEROES => What::WriteZeroes,
            bindings::RDAX_FALLOC_FL_COLLAPSE_RANGE => What::Collapse,
            bindings::RDAX_FALLOC_FL_INSERT_RANGE => What::Insert,
            _ => return Err(EOPNOTSUPP),
        })
    }
}

/// `->fallocate`.
pub fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> Result {
    let keep_size = mode & bindings::RDAX_FALLOC_FL_KEEP_SIZE != 0;
    let what = What::of(mode & !bindings::RDAX_FALLOC_FL_KEEP_SIZE)?;
    let info = file.inode();
    let end = offset.checked_add(len).ok_or(EFBIG)?;
    let lock = InodeLock::new(info);
    info.sb().check_writable()?;
    let size = info.i_size();
    let grown = match what {
        What::Punch | What::Collapse => None,
        What::Insert => Some(size.checked_add(len).ok_or(EFBIG)?),
        What::Allocate | What::Zero | What::WriteZeroes => {
            Some(end).filter(|&end| !keep_size && end > size)
        }
    };
    if let Some(size) = grown {
        let size = i64::try_from(size).map_err(|_| EFBIG)?;
        // SAFETY: the inode is alive and locked.
        to_result(unsafe { bindings::inode_newsize_ok(info.as_vfs(), size) })?;
    }
    // SAFETY: the file is open and its inode locked.
    to_result(unsafe { bindings::file_modified(file.as_raw()) })?;
    let mut stored = false;
    if !matches!(what, What::Collapse | What::Insert) {
        if info.is_dax() {
            stored = zero_tail(info)?;
        } else {
            cached::zero_cached_tail(lock.exclusive())?;
        }
    }
    // Bytes from here on become zero where blocks exist already: all of them, or those that were
    // past the end.
    let (zero_from, blocks) = match what {
        What::Punch => {
            stored |= clear(
                lock.exclusive(),
                offset,
                end,
                |volume, meta, first, len, now| volume.punch(meta, first, len, now).map(|()| true),
            )?;
            return complete(info, stored);
        }
        What::Collapse | What::Insert => return shift(lock.exclusive(), offset, len, what),
        What::Zero => {
            check_space(info, offset / BLOCK, end.div_ceil(BLOCK))?;
            stored |= clear(lock.exclusive(), offset, end, Volume::unwrite)?;
            (end, Blocks::Unwritten)
        }
        What::WriteZeroes => (offset, Blocks::Data),
        What::Allocate if grown.is_some() => (size.max(offset), Blocks::Unwritten),
        What::Allocate => (end, Blocks::Unwritten),
    };
    // In the cache, too.
    let mut _faults_out = None;
    if !info.is_dax() && zero_from < end {
        _faults_out = Some(cached::drop_range(lock.exclusive(), zero_from, end)?);
    }
    stored |= provide(info, offset, end, zero_from, blocks)?;
    if let Some(size) = grown {
        let sb = info.sb();
        let now = info.times().ctime;
        let mut meta = info.meta();
        let stored_from = info.i_size().max(offset);
        // This contains the fence.
        sb.check(sb.volume.extend(&mut meta, size, stored_from, Some(now)))?;
        info.set_i_size(size);
        return Ok(());
    }
    complete(info, stored)
}

/// Fails with `ENOSPC` if the file has more holes among the blocks `first..last` than there are
/// free blocks for files. Checked before any is filled, which would take long and leave no space to
/// others.
fn check_space(info: &InodeInfo, first: u64, last: u64) -> Result {
    let sb = info.sb();
    let free = sb.volume.available_blocks();
    if last - first <= free {
        return Ok(());
    }
    let (mut block, mut holes) = (first, 0);
    while block < last {
        let mut meta = info.meta();
        let map = sb.check(sb.volume.map(&mut meta, block, last - block))?;
        if matches!(map, Map::Hole { .. }) {
            holes += map.file_blocks();
        }
        block += map.file_blocks();
        if holes > free {
            return Err(ENOSPC);
        }
    }
    Ok(())
}

/// What blocks that are not data become.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// Data, all zeros.
    Data,
    /// Allocated, and not written.
    Unwritten,
}

/// Allocates missing blocks of the bytes `start..end`, and makes the bytes from `zero_from` on
/// zero. Returns whether zeros were stored without a fence.
pub fn provide(
    info: &InodeInfo,
    start: u64,
    end: u64,
    zero_from: u64,
    blocks: Blocks,
) -> Result<bool> {
    let sb = info.sb();
    let now = info.times().ctime;
    let last = end.div_ceil(BLOCK);
    let mut block = start / BLOCK;
    let mut stored = false;
    check_space(info, block, last)?;
    // Before it, data stays as it is.
    let kept = if zero_from < end {
        zero_from / BLOCK
    } else {
        last
    };
    while block < last {
        if interrupted() {
            return Err(EINTR);
        }
        let mut meta = info.meta();
        let len = match sb.check(sb.volume.map(&mut meta, block, last - block))? {
            Map::Hole { len } if blocks == Blocks::Unwritten => {
                let len = len.max(kept.saturating_sub(block));
                let len = sb.check(sb.volume.preallocate(&mut meta, block, len, now))?;
                info.update_blocks(&meta);
                stored = false;
                len
            }
            Map::Unwritten { len, .. } if blocks == Blocks::Unwritten => len,
            Map::Hole { len } | Map::Unwritten { len, .. } => {
                let run = sb.check(sb.volume.fill(&mut meta, block, len, Some(now)))?;
                info.update_blocks(&meta);
                drop(meta);
                dax::hole_filled(info, block, run.len);
                stored = false;
                if sb.volume.pmem().is_bad(run.block, run.len) {
                    return Err(EIO);
                }
                run.len
            }
            Map::Run { block: at, len } => {
                drop(meta);
                let len = len.min(PIECE);
                let from = zero_from.max(start).max(block * BLOCK);
                let to = end.min((block + len) * BLOCK);
                if from < to {
                    zero(info, at * BLOCK + (from - block * BLOCK), to - from)?;
                    stored = true;
                }
                len
            }
        };
        block += len;
    }
    Ok(stored)
}

/// Makes zeros durable, if any were `stored`.
fn complete(info: &InodeInfo, stored: bool) -> Result {
    if !stored || mutated!("zero-fence") {
        return Ok(());
    }
    let sb = info.sb();
    sb.check(sb.volume.pmem().fence())
}

/// Zeroes the bytes `start..end`. `change` makes the whole blocks among them a hole or unwritten,
/// and tells whether that included a fence. Returns whether zeros were stored without a fence.
fn clear(
    inode: Exclusive<'_>,
    start: u64,
    end: u64,
    change: impl FnOnce(&Volume<DirectMap>, &mut Inode, u64, u64, Time) -> volume::Result<bool>,
) -> Result<bool> {
    let info = inode.info();
    let sb = info.sb();
    let (first, last) = (start.div_ceil(BLOCK), end / BLOCK);
    let mut faults_out = if info.is_dax() {
        InvalidateLock::new(inode)
    } else {
        cached::drop_range(inode, start, end)?
    };
    if first < last {
        dax::break_layout(&mut faults_out, first, last - 1)?;
    }
    // The edges: one or two pieces, each within a block.
    let mut stored = zero_edge(info, start, end.min(first * BLOCK))?;
    if first <= last {
        stored |= zero_edge(info, last * BLOCK, end)?;
    }
    if first < last {
        let now = info.times().ctime;
        let mut meta = info.meta();
        let result = sb.check(change(&sb.volume, &mut meta, first, last - first, now));
        info.update_blocks(&meta);
        stored &= !result?;
    }
    // Private copies of the pages are removed, too.
    dax::wait_for_copies(&faults_out);
    // SAFETY: the inode is alive and locked; the range is not empty.
    unsafe {
        bindings::truncate_pagecache_range(
            info.as_vfs(),
            i64::try_from(start)?,
            i64::try_from(end - 1)?,
        );
    }
    Ok(stored)
}

/// Removes the `len` bytes at `start` from the file, or inserts as many there.
fn shift(inode: Exclusive<'_>, start: u64, len: u64, what: What) -> Result {
    let info = inode.info();
    let sb = info.sb();
    // Requests that the volume refuses, before anything is unmapped.
    let behind = if what == What::Collapse {
        start + len
    } else {
        start
    };
    if (start | len) % BLOCK != 0 || behind >= info.i_size() {
        return Err(EINVAL);
    }
    let mut faults_out = if info.is_dax() {
        InvalidateLock::new(inode)
    } else {
        cached::flush_and_drop(inode, start)?
    };
    dax::break_layout(&mut faults_out, start / BLOCK, u64::MAX)?;
    // Private copies of the pages that move are removed, too.
    dax::wait_for_copies(&faults_out);
    // SAFETY: the inode is alive and locked.
    unsafe { bindings::truncate_pagecache(info.as_vfs(), i64::try_from(start)?) };
    if info.is_dax() {
        // Durable with the transaction.
        zero_tail(info)?;
    }
    let now = info.times().ctime;
    let mut meta = info.meta();
    let (block, blocks) = (start / BLOCK, len / BLOCK);
    let result = sb.check(if what == What::Collapse {
        sb.volume.collapse(&mut meta, block, blocks, now)
    } else {
        sb.volume.make_gap(&mut meta, block, blocks, now)
    });
    info.set_i_size(meta.size());
    info.update_blocks(&meta);
    result
}

/// Zeroes the bytes of the last block of the file beyond its end, which a mapping may have stored
/// to. Without a fence. Returns whether it did. Ignores a bad block: nobody sees these bytes.
fn zero_tail(info: &InodeInfo) -> Result<bool> {
    let size = info.i_size();
    match zero_edge(info, size, size.next_multiple_of(BLOCK)) {
        Err(error) if error == EIO => info.sb().check_alive().map(|()| false),
        zeroed => zeroed,
    }
}

/// Zeroes the bytes `from..to`, which are within one block, if it is data of the file. Without a
/// fence. Returns whether it did.
pub fn zero_edge(info: &InodeInfo, from: u64, to: u64) -> Result<bool> {
    if from >= to {
        return Ok(false);
    }
    let sb = info.sb();
    let map = {
        let mut meta = info.meta();
        sb.check(sb.volume.map(&mut meta, from / BLOCK, 1))?
    };
    match map {
        Map::Hole { .. } | Map::Unwritten { .. } => Ok(false),
        Map::Run { block, .. } => {
            zero(info, block * BLOCK + from % BLOCK, to - from)?;
            Ok(true)
        }
    }
}

/// Zeroes the `len` bytes at byte `at` of the device, which are data of a file. Without a fence.
/// Fails with EIO if they are in a block that is bad and stays bad.
fn zero(info: &InodeInfo, at: u64, len: u64) -> Result {
    let sb = info.sb();
    let pmem = sb.volume.pmem();
    sb.check(pmem.zero_nt(at, len))?;
    let first = at / BLOCK;
    if pmem.is_bad(first, (at + len).div_ceil(BLOCK) - first) {
        return Err(EIO);
    }
    Ok(())
}
