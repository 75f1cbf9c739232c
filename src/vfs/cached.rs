// SPDX-License-Identifier: GPL-2.0

//! Files that are not DAX: read, written and mapped through the page cache. The kernel's own code
//! does this, and this file provides the pages.
//!
//! * A page has its block, zeroed durably, before it can be dirty: lack of space is an error of the
//!   write, or a SIGBUS at the store, and write-back only copies.
//! * Write-back makes a page durable before it marks the page as written back. So fsync only has to
//!   wait for that.
//! * The size on the media follows write-back: it never covers a byte that is not durable. Until
//!   then it is smaller than that of the kernel's inode. Operations that change the layout or the
//!   size by other means [make the two equal](flush_size) first, under `i_rwsem`; with nothing
//!   pending, and the cache of a range dropped or zeroed, the code for DAX files does the rest.
//! * On the media all bytes between the size and the end of its block are zero from the first
//!   append on, and write-back stores nothing beyond the size, so that a change of the size need
//!   not check the bytes that it uncovers.
//! * Pages leave the cache before their blocks leave the file, with faults kept out.

use kernel::bindings::vm_fault_reason_VM_FAULT_SIGBUS as VM_FAULT_SIGBUS;
use kernel::error::code::*;
use kernel::error::to_result;
use kernel::iov::{IovIterDest, IovIterSource};
use kernel::prelude::*;
use kernel::uaccess::UserPtr;

use super::allocate::{self, zero_edge, Blocks};
use super::file::Regular;
use super::io;
use super::table::cache::{CacheOperations, CacheTable, LockedPage};
use super::table::file::{FileOperations, FileTable, Kiocb, RegularTable};
use crate::bindings;
use crate::dax::fault;
use crate::dax::vm_fault::{Fault, FaultResult};
use crate::mount::inode::InodeInfo;
use crate::mount::lock::{Exclusive, InvalidateLock, SharedInodeLock};
use crate::mount::lock::{FreezeProtection, SharedInvalidateLock};
use crate::mount::object::File;
use crate::mount::table::Table;
use crate::volume::error::Error as VolumeError;
use crate::volume::file::Map;
use crate::volume::format::BLOCK;
use crate::volume::pmem::Pmem;

static FILE: FileTable = FileTable::new(bindings::file_operations {
    splice_read: Some(bindings::filemap_splice_read),
    splice_write: Some(bindings::iter_file_splice_write),
    setlease: Some(bindings::generic_setlease),
    ..RegularTable::<Cached>::OPERATIONS
});

static ADDRESS_SPACE: Table<bindings::address_space_operations> =
    CacheTable::<Cached>::address_space();

static MAPPING: Table<bindings::vm_operations_struct> = CacheTable::<Cached>::mapping();

/// Makes `info`, which others do not see yet, a file that goes through the page cache.
pub fn set_operations(info: &InodeInfo) {
    FILE.install(info);
    // SAFETY: nobody else uses the inode yet; the table is static.
    unsafe { (*info.mapping()).a_ops = ADDRESS_SPACE.as_ptr() };
}

/// The operations of such a file.
struct Cached;

impl FileOperations for Cached {
    fn open(info: &InodeInfo) -> Result {
        Regular::open(info)
    }

    fn llseek(file: &File, offset: i64, whence: i32) -> Result<i64> {
        Regular::llseek(file, offset, whence)
    }

    fn read(iocb: &mut Kiocb, to: &mut IovIterDest<'_>) -> Result<usize> {
        iocb.file().inode().sb().check_alive()?;
        let raw = iocb.as_raw();
        if iocb.is_direct() {
            // SAFETY: the control block is the caller's, lent for the call.
            to_result(unsafe { bindings::kiocb_write_and_wait(raw, to.len()) })?;
            return io::read(iocb, to);
        }
        // SAFETY: both are the caller's, lent for the call.
        count(unsafe { bindings::filemap_read(raw, to.as_raw(), 0) })
    }

    fn write(iocb: &mut Kiocb, from: &mut IovIterSource<'_>) -> Result<usize> {
        io::write_with(iocb, from, write_locked)
    }

    fn mmap(file: &File, desc: &mut bindings::vm_area_desc) -> Result {
        file.inode().sb().check_alive()?;
        file.accessed();
        desc.vm_ops = MAPPING.as_ptr();
        Ok(())
    }

    fn fsync(file: &File, start: u64, end: u64, datasync: bool) -> Result {
        let info = file.inode();
        info.sb().check_alive()?;
        info.sb().counters.sync_calls.add(1);
        let (start, end) = (i64::try_from(start)?, i64::try_from(end)?);
        // SAFETY: the file is open. Errors of earlier write-backs show here, once.
        to_result(unsafe { bindings::file_write_and_wait_range(file.as_raw(), start, end) })?;
        if datasync {
            return Ok(());
        }
        info.write_times()
    }

    fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> Result {
        Regular::fallocate(file, mode, offset, len)
    }

    fn ioctl(file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
        Regular::ioctl(file, cmd, arg)
    }
}

/// A number of bytes, or an error as a negative number.
fn count(done: isize) -> Result<usize> {
    // CAST: an errno is small.
    usize::try_from(done).map_err(|_| Error::from_errno(done as i32))
}

/// Writes all of `from`, at the position of `iocb`.
fn write_locked(inode: Exclusive<'_>, iocb: &Kiocb, from: &mut IovIterSource<'_>) -> Result<usize> {
    let info = inode.info();
    if iocb.is_nowait() {
        // Only O_DIRECT gets here: the VFS refuses all else. It would wait for write-back.
        return Err(EAGAIN);
    }
    let (start, end) = (iocb.pos(), iocb.pos().saturating_add(from.len() as u64));
    let size = info.i_size();
    if start > size {
        // There may be pages that were written back before a crash, without the size.
        let sb = info.sb();
        sb.check(sb.volume.zero_gap(&mut info.meta(), size, start))?;
    }
    if end > size {
        zero_tail(inode)?;
        info.clean_tail(|| zero_cached_end(info))?;
    }
    if iocb.is_direct() {
        flush_size(inode)?;
        // SAFETY: the control block is the caller's, lent for the call.
        let gone = unsafe { bindings::kiocb_invalidate_pages(iocb.as_raw(), from.len()) };
        // A page that is dirtied again and again is written through the cache.
        if gone != EBUSY.to_errno() {
            to_result(gone)?;
            let written = io::store(inode, start, from);
            // A reader may have cached old pages meanwhile.
            // SAFETY: the mapping is that of the inode.
            unsafe {
                bindings::invalidate_inode_pages2_range(
                    info.mapping(),
                    (start / BLOCK) as usize,
                    (end / BLOCK) as usize,
                )
            };
            return written;
        }
    }
    // Bytes that cannot be copied get no blocks.
    // SAFETY: the iterator is the caller's, lent for the call.
    let missing = unsafe { bindings::fault_in_iov_iter_readable(from.as_raw(), from.len()) };
    let len = from.len().saturating_sub(missing);
    if len == 0 {
        return Err(EFAULT);
    }
    // SAFETY: as above.
    unsafe { bindings::rdax_iov_iter_truncate(from.as_raw(), len) };
    let end = start + len as u64;
    if end - start > BLOCK {
        // Everything in few transactions. Blocks that this cannot get are reported page by page,
        // below.
        let _ = allocate::provide(info, start, end, end, Blocks::Data);
    }
    // SAFETY: both are the caller's, lent for the call; the inode is locked.
    count(unsafe { bindings::generic_perform_write(iocb.as_raw(), from.as_raw()) })
}

/// Zeroes the media between the size and the end of its block, before a larger size can follow
/// write-back. If the sizes differ, this has been done.
fn zero_tail(inode: Exclusive<'_>) -> Result {
    let (size, durable) = (inode.i_size(), inode.meta().size());
    if size != durable {
        return Ok(());
    }
    zero_edge(inode.info(), size, size.next_multiple_of(BLOCK))?;
    Ok(())
}

/// Settles, and zeroes the cache between the size and the end of its page, before the size is
/// raised by other means than a write to the cache. A mapping may have stored there.
pub fn zero_cached_tail(inode: Exclusive<'_>) -> Result {
    flush_size(inode)?;
    zero_cached_end(inode.info())
}

/// Zeroes the cache between the size and the end of its page.
fn zero_cached_end(info: &InodeInfo) -> Result {
    let size = info.i_size();
    let end = size.next_multiple_of(BLOCK);
    if size == end {
        return Ok(());
    }
    let from = i64::try_from(size)?;
    // SAFETY: the mapping is that of the inode.
    unsafe { bindings::truncate_inode_pages_range(info.mapping(), from, end - 1) };
    Ok(())
}

/// Makes the size on the media equal to that of the kernel's inode, with the data below it durable.
pub fn flush_size(inode: Exclusive<'_>) -> Result {
    flush_size_to(inode.info(), inode.i_size())
}

/// As [`flush_size`], up to byte `end`. The caller holds `i_rwsem`, shared or exclusive.
pub fn flush_size_to(info: &InodeInfo, end: u64) -> Result {
    let durable = info.meta().size();
    if durable >= end {
        return Ok(());
    }
    let (from, last) = (i64::try_from(durable)?, i64::try_from(end - 1)?);
    // SAFETY: the mapping is that of the inode.
    to_result(unsafe { bindings::filemap_write_and_wait_range(info.mapping(), from, last) })?;
    // If an error was reported to another task, nobody else retries.
    Cached::written_back(info, end)
}

/// Drops the pages of the bytes `start..end` from the cache, and zeroes the bytes of the range in
/// pages at its edges, before the media is changed there. Faults are kept out while the result is
/// held.
pub fn drop_range<'a>(inode: Exclusive<'a>, start: u64, end: u64) -> Result<InvalidateLock<'a>> {
    flush_size(inode)?;
    let faults_out = InvalidateLock::new(inode);
    let (from, last) = (i64::try_from(start)?, i64::try_from(end - 1)?);
    // SAFETY: the inode is alive and locked, and the range not empty.
    unsafe { bindings::truncate_pagecache_range(inode.as_vfs(), from, last) };
    Ok(faults_out)
}

/// Writes back the cache from byte `start` on, and drops it: the data is going to move in the file.
/// Faults are kept out while the result is held.
pub fn flush_and_drop<'a>(inode: Exclusive<'a>, start: u64) -> Result<InvalidateLock<'a>> {
    flush_size(inode)?;
    let faults_out = InvalidateLock::new(inode);
    let from = i64::try_from(start)?;
    // SAFETY: the inode is alive and locked. A page that was written back is written to again by a
    // fault only, which waits.
    unsafe {
        to_result(bindings::filemap_write_and_wait_range(
            inode.mapping(),
            from,
            i64::MAX,
        ))?;
        bindings::truncate_pagecache_range(inode.as_vfs(), from, i64::MAX);
    }
    Ok(faults_out)
}

impl CacheOperations for Cached {
    fn block(info: &InodeInfo, index: u64) -> Result<Option<u64>> {
        let _size_stays = SharedInodeLock::new(info);
        flush_size_to(info, info.i_size())?;
        io::block_of(info, index)
    }

    fn read(info: &InodeInfo, index: u64, bytes: &mut [u8]) -> Result {
        let sb = info.sb();
        sb.check_alive()?;
        let size = info.i_size().saturating_sub(index * BLOCK).min(BLOCK);
        let (head, rest) = bytes.split_at_mut(size as usize);
        rest.fill(0);
        let map = {
            let mut meta = info.meta();
            sb.check(sb.volume.map(&mut meta, index, 1))?
        };
        match map {
            Map::Hole { .. } | Map::Unwritten { .. } => head.fill(0),
            Map::Run { block, .. } => {
                // A bad block of the file is no error of the volume.
                sb.volume
                    .pmem()
                    .read(block * BLOCK, head)
                    .map_err(|_| EIO)?;
            }
        }
        Ok(())
    }

    fn prepare(info: &InodeInfo, index: u64) -> Result {
        let sb = info.sb();
        sb.check_writable()?;
        let mut meta = info.meta();
        match sb.volume.fill(&mut meta, index, 1, None) {
            Err(VolumeError::Exists) => Ok(()),
            filled => {
                sb.check(filled)?;
                info.update_blocks(&meta);
                Ok(())
            }
        }
    }

    fn written(info: &InodeInfo, end: u64) {
        if end > info.i_size() {
            info.set_i_size(end);
        }
    }

    fn write_back(info: &InodeInfo, page: &LockedPage) -> Result {
        let sb = info.sb();
        sb.check_sound()?;
        let index = page.index();
        let len = info.i_size().saturating_sub(index * BLOCK).min(BLOCK);
        if len == 0 {
            // Beyond the end: it is being truncated.
            return Ok(());
        }
        let map = {
            let mut meta = info.meta();
            sb.check(sb.volume.map(&mut meta, index, 1))?
        };
        let Map::Run { block, .. } = map else {
            kernel::warn_on!(true);
            return Err(EUCLEAN);
        };
        // SAFETY: a page has a block's bytes, and `len` is not more.
        let stored = unsafe { sb.volume.pmem().store_page(block, page.as_ptr(), len) };
        sb.check(stored)?;
        sb.counters.cached_pages_written_back.add(1);
        Ok(())
    }

    fn written_back(info: &InodeInfo, end: u64) -> Result {
        let sb = info.sb();
        let mut meta = info.meta();
        // Read under the meta lock: a truncation lowers the kernel's size before the other.
        let (size, durable) = (end.min(info.i_size()), meta.size());
        if size <= durable {
            drop(meta);
            return sb.check(sb.volume.pmem().fence());
        }
        // Contains the fence. All bytes from the old size on are as they should be.
        sb.check(sb.volume.extend(&mut meta, size, durable, None))
    }

    fn page_mkwrite(fault: &Fault<'_>, dirty: impl FnOnce() -> FaultResult) -> FaultResult {
        let info = fault.info();
        let _freeze = FreezeProtection::new(info);
        let ready = info.sb().check_writable();
        let ready = ready.and_then(|()| fault.update_time());
        let _blocks_stay = SharedInvalidateLock::new(info);
        if fault.page() >= info.i_size().div_ceil(BLOCK) {
            return VM_FAULT_SIGBUS;
        }
        // The mount may have become read-only while this waited: `prepare` checks again.
        match ready.and_then(|()| Self::prepare(info, fault.page())) {
            Ok(()) => {
                info.tail_may_change();
                dirty()
            }
            Err(error) => fault::code(error),
        }
    }
}
