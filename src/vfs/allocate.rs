// SPDX-License-Identifier: GPL-2.0

//! fallocate(2): space ahead of its use, holes, and ranges of zeros.
//!
//! Blocks that are allocated are zero on the media at once: there is no state between a hole and
//! data.

use kernel::error::code::*;
use kernel::error::to_result;
use kernel::prelude::*;

use super::cached;
use super::inode::InodeInfo;
use super::io::interrupted;
use super::lock::{Exclusive, InodeLock, InvalidateLock};
use super::object::File;
use crate::mutate::mutated;
use crate::volume::error::Error as VolumeError;
use crate::volume::file::Map;
use crate::volume::format::BLOCK;
use crate::volume::pmem::Pmem;
use crate::{bindings, dax};

/// Most blocks that are handled between two looks for signals.
const PIECE: u64 = 4096;

/// What fallocate is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Allocate,
    Punch,
    Zero,
    Collapse,
    Insert,
}

impl What {
    /// From `FALLOC_FL_*`, but for KEEP_SIZE.
    fn of(mode: i32) -> Result<Self> {
        Ok(match mode {
            // No blocks are shared, so that none are to be unshared.
            0 | bindings::RDAX_FALLOC_FL_UNSHARE_RANGE => What::Allocate,
            bindings::RDAX_FALLOC_FL_PUNCH_HOLE => What::Punch,
            bindings::RDAX_FALLOC_FL_ZERO_RANGE | bindings::RDAX_FALLOC_FL_WRITE_ZEROES => {
                What::Zero
            }
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
        What::Allocate | What::Zero => Some(end).filter(|&end| !keep_size && end > size),
    };
    if let Some(size) = grown {
        let size = i64::try_from(size).map_err(|_| EFBIG)?;
        // SAFETY: the inode is alive and locked.
        to_result(unsafe { bindings::inode_newsize_ok(info.as_vfs(), size) })?;
    }
    // SAFETY: the file is open and its inode locked.
    to_result(unsafe { bindings::file_modified(file.as_raw()) })?;
    // Bytes from here on become zero where blocks are there already: all of them, or those that
    // the size did not show.
    let zero_from = match what {
        What::Punch => return punch(lock.exclusive(), offset, end),
        What::Collapse | What::Insert => return shift(lock.exclusive(), offset, len, what),
        What::Zero => offset,
        What::Allocate if grown.is_some() => size.max(offset),
        What::Allocate => end,
    };
    // The cache, too.
    let mut _faults_out = None;
    if !info.is_dax() {
        cached::zero_cached_tail(lock.exclusive())?;
        if zero_from < end {
            _faults_out = Some(cached::drop_range(lock.exclusive(), zero_from, end)?);
        }
    }
    provide(info, offset, end, zero_from)?;
    if let Some(size) = grown {
        let sb = info.sb();
        let now = info.times().ctime;
        let mut meta = info.meta();
        let stored_from = info.i_size().max(offset);
        sb.check(sb.volume.extend(&mut meta, size, stored_from, Some(now)))?;
        info.set_i_size(size);
    }
    Ok(())
}

/// Fails with `ENOSPC` if the file has more holes among the blocks `first..last` than there are
/// blocks for files: before any is filled, for that takes long and leaves nothing to others.
fn check_space(info: &InodeInfo, first: u64, last: u64) -> Result {
    let sb = info.sb();
    let free = sb.volume.available_blocks();
    if last - first <= free {
        return Ok(());
    }
    let (mut block, mut holes) = (first, 0);
    while block < last {
        let meta = info.meta();
        block += match sb.check(sb.volume.map(&meta, block, last - block))? {
            Map::Hole { len } => {
                holes += len;
                len
            }
            Map::Run { len, .. } => len,
        };
        if holes > free {
            return Err(ENOSPC);
        }
    }
    Ok(())
}

/// Sees to it that the bytes `start..end` have blocks, and that those from `zero_from` on are zero,
/// durably.
pub fn provide(info: &InodeInfo, start: u64, end: u64, zero_from: u64) -> Result {
    let sb = info.sb();
    let pmem = sb.volume.pmem();
    let now = info.times().ctime;
    let last = end.div_ceil(BLOCK);
    let mut block = start / BLOCK;
    check_space(info, block, last)?;
    while block < last {
        if interrupted() {
            return Err(EINTR);
        }
        let mut meta = info.meta();
        let max = (last - block).min(PIECE);
        let len = match sb.check(sb.volume.map(&meta, block, max))? {
            Map::Hole { len } => match sb.volume.fill(&mut meta, block, len, Some(now)) {
                // A fault came between; not while the lock is held, but look again all the same.
                Err(VolumeError::Exists) => 0,
                filled => {
                    let run = sb.check(filled)?;
                    info.update_blocks(&meta);
                    drop(meta);
                    dax::hole_filled(info, block, run.len);
                    run.len
                }
            },
            Map::Run { block: at, len } => {
                drop(meta);
                let from = zero_from.max(start).max(block * BLOCK);
                let to = end.min((block + len) * BLOCK);
                if from < to {
                    zero(info, at * BLOCK + (from - block * BLOCK), to - from)?;
                }
                len
            }
        };
        block += len;
    }
    if mutated!("zero-fence") {
        return Ok(());
    }
    sb.check(pmem.fence())
}

/// Makes a hole of the bytes `start..end`: what is not whole blocks becomes zero.
fn punch(inode: Exclusive<'_>, start: u64, end: u64) -> Result {
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
    zero_edge(info, start, end.min(first * BLOCK))?;
    if first <= last {
        zero_edge(info, last * BLOCK, end)?;
    }
    if !mutated!("punch-fence") {
        sb.check(sb.volume.pmem().fence())?;
    }
    if first < last {
        let now = info.times().ctime;
        let mut meta = info.meta();
        let result = sb.check(sb.volume.punch(&mut meta, first, last - first, now));
        info.update_blocks(&meta);
        result?;
    }
    // Private copies of the pages go, too.
    // SAFETY: the inode is alive and locked; the range is not empty.
    unsafe {
        bindings::truncate_pagecache_range(
            info.as_vfs(),
            i64::try_from(start)?,
            i64::try_from(end - 1)?,
        );
    }
    Ok(())
}

/// Takes the `len` bytes at `start` out of the file, or makes room for as many there.
fn shift(inode: Exclusive<'_>, start: u64, len: u64, what: What) -> Result {
    let info = inode.info();
    let sb = info.sb();
    // What the volume refuses, before anything is unmapped.
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
    // Private copies of the pages that move go, too.
    // SAFETY: the inode is alive and locked.
    unsafe { bindings::truncate_pagecache(info.as_vfs(), i64::try_from(start)?) };
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

/// Zeroes the bytes `from..to`, which are within one block, if the file has it. Without a fence.
pub fn zero_edge(info: &InodeInfo, from: u64, to: u64) -> Result {
    if from >= to {
        return Ok(());
    }
    let sb = info.sb();
    let map = {
        let meta = info.meta();
        sb.check(sb.volume.map(&meta, from / BLOCK, 1))?
    };
    match map {
        Map::Hole { .. } => Ok(()),
        Map::Run { block, .. } => zero(info, block * BLOCK + from % BLOCK, to - from),
    }
}

/// Zeroes the `len` bytes at byte `at` of the device, which are data of a file. Without a fence.
/// Fails with EIO where they are in a block that is bad and stays so.
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
