// SPDX-License-Identifier: GPL-2.0

//! Page faults: mapping the blocks of a file.
//!
//! A shared write fault (nothing mapped, or mapped read-only) tags the page and inserts it
//! writable, both under the chunk lock; a hole gets its block there, and a full device is a SIGBUS
//! there and not an error later. All other faults insert read-only: a store to a private mapping
//! comes back through the memory manager, which copies the page.
//!
//! Locks, outermost first: the mapping's (the memory manager holds it); freeze protection; the
//! invalidate lock, shared, against truncation; the chunk lock. The blocks are looked up under the
//! chunk lock, so that what is inserted is what the file has.
//!
//! No fault is repeated for ever: an entry that is neither a page nor nothing is the memory manager's,
//! which waits (migration, device-exclusive), or ends the access (poison, guard). But at a marker of
//! userfaultfd it asks the file system, and there nothing can be inserted until
//! [the marker is gone](Fault::clear_marker).

use kernel::bindings::{
    vm_fault_reason_VM_FAULT_FALLBACK as VM_FAULT_FALLBACK,
    vm_fault_reason_VM_FAULT_HWPOISON as VM_FAULT_HWPOISON,
    vm_fault_reason_VM_FAULT_NOPAGE as VM_FAULT_NOPAGE,
    vm_fault_reason_VM_FAULT_OOM as VM_FAULT_OOM,
    vm_fault_reason_VM_FAULT_SIGBUS as VM_FAULT_SIGBUS,
};
use kernel::prelude::*;

use super::layout::{split_huge, unmap, unmap_zeroes};
use super::owner::own;
use super::page::Page;
use super::tag;
use super::tracker::{table, Chunk, State, Table};
use crate::bindings;
use crate::env::nofs;
use crate::mutate::mutated;
use crate::track::chunk::Entry;
use crate::track::page_set::{PageSet, PAGES};
use crate::track::place::split;
use crate::track::sync::sample;
use crate::vfs::inode::InodeInfo;
use crate::vfs::vm::{Fault, FaultResult};
use crate::volume::alloc::Run;
use crate::volume::file::Map;
use crate::volume::inode::Inode;

/// Bytes in a page.
const PAGE: u64 = 4096;

/// A store to a shared mapping.
pub fn write(fault: &Fault<'_>) -> FaultResult {
    let info = fault.info();
    let _freeze = FreezeProtection::new(info);
    let mapped = info
        .sb()
        .check_writable()
        .and_then(|()| fault.update_time())
        .and_then(|()| map(fault, true));
    mapped.unwrap_or_else(code)
}

/// A load, or a store to a private mapping.
pub fn read(fault: &Fault<'_>) -> FaultResult {
    map(fault, false).unwrap_or_else(code)
}

/// An access to 2 MiB that are not mapped, or a store to 2 MiB that are mapped read-only in one
/// piece: maps them in one piece if that can be.
pub fn huge(fault: &Fault<'_>) -> FaultResult {
    let write = fault.is_shared_write();
    // A private copy is made of a page.
    if !fault.fits_huge() || (fault.is_write() && !write) {
        return VM_FAULT_FALLBACK;
    }
    let info = fault.info();
    let result = if write {
        let _freeze = FreezeProtection::new(info);
        info.sb()
            .check_writable()
            .and_then(|()| map_huge(fault, true))
    } else {
        map_huge(fault, false)
    };
    match result {
        // What goes wrong goes wrong for a page, too, and is told there.
        Err(_) => VM_FAULT_FALLBACK,
        Ok(mapped) => {
            if mapped & VM_FAULT_FALLBACK == 0 {
                info.sb().counters.huge_faults.add(1);
            }
            mapped
        }
    }
}

/// Asked with the invalidate lock held, which whoever ends stores, or all use, takes from every
/// file when it has said so.
fn check_usable(info: &InodeInfo, write: bool) -> Result {
    match write {
        true => info.sb().check_writable(),
        false => info.sb().check_alive(),
    }
}

/// What the memory manager is told about an error.
pub fn code(error: Error) -> FaultResult {
    if error == ENOMEM {
        VM_FAULT_OOM
    } else {
        VM_FAULT_SIGBUS
    }
}

/// Runs `f` with the chunk of the page and the invalidate lock, shared. `None` if the page is past the
/// end of the file.
fn with_chunk(
    fault: &Fault<'_>,
    write: bool,
    mut f: impl FnMut(&Chunk) -> Result<FaultResult>,
) -> Result<Option<FaultResult>> {
    let info = fault.info();
    let (index, _) = split(fault.page());
    let mut made = false;
    loop {
        {
            let _invalidate = SharedInvalidateLock::new(info);
            check_usable(info, write)?;
            if fault.page() >= info.i_size().div_ceil(PAGE) {
                return Ok(None);
            }
            if let Some(chunk) = info.tracker.chunk(index) {
                own(info);
                if !made {
                    chunk.touch();
                }
                // Reclaim must not enter this file system: it evicts inodes, whose chunks and
                // journal it locks.
                return nofs(|| f(chunk)).map(Some);
            }
        }
        // Without a lock: the memory may have to come from other chunks of this file.
        info.tracker.make_chunk(index)?;
        made = true;
    }
}

/// Maps the page, writable if `write`.
fn map(fault: &Fault<'_>, write: bool) -> Result<FaultResult> {
    let mut spare = None;
    loop {
        match with_chunk(fault, write, |chunk| {
            map_in_chunk(fault, chunk, write, &mut spare)
        }) {
            // Made without a lock, as chunks are.
            Err(error) if error == EAGAIN && spare.is_none() => spare = Some(table()?),
            mapped => return Ok(mapped?.unwrap_or(VM_FAULT_SIGBUS)),
        }
    }
}

/// Maps the page of `chunk`. Fails with `EAGAIN` if that needs a table, and there is no `spare` one.
fn map_in_chunk(
    fault: &Fault<'_>,
    chunk: &Chunk,
    write: bool,
    spare: &mut Option<Table>,
) -> Result<FaultResult> {
    let info = fault.info();
    let sb = info.sb();
    let (_, page) = split(fault.page());
    let mut state = chunk.lock();
    if fault.is_mapped_huge() {
        // Another thread was faster; if that does not do, the next fault is not huge.
        return Ok(VM_FAULT_NOPAGE);
    }
    fault.install_page_table();
    fault.clear_marker();
    if write && state.is_huge() {
        // Of a huge folio, a zap of one page would make all of them dirty. That is right, too, and
        // what happens as long as one is pinned.
        split_huge(info, chunk, &mut state);
    }
    let block = match state.entry(page) {
        Entry::Present(block) => Some(block),
        Entry::Absent | Entry::Zero => find_block(info, chunk, &mut state, page, write)?,
    };
    let Some(block) = block else {
        state.map_zero(page);
        sb.counters.hole_faults.add(1);
        return Ok(fault.insert_zero());
    };
    let struct_page = Page::of_block(sb.volume.pmem(), block);
    // Another file's, or another page's of this one: its block is used twice.
    let owner = struct_page.owner();
    if kernel::warn_on!(owner.is_some_and(|owner| owner != (info.mapping(), fault.page()))) {
        return Err(EUCLEAN);
    }
    if sb.volume.pmem().is_bad(block, 1) {
        return Ok(VM_FAULT_HWPOISON);
    }
    let table = match state.needs_table(page, block) {
        true => Some(spare.take().ok_or(EAGAIN)?),
        false => None,
    };
    let todo = state.map_block(page, block, table);
    if todo.unmap_zero {
        unmap(info.mapping(), fault.page(), fault.page());
    }
    let mut dirty = write;
    if todo.associate {
        dirty |= struct_page.associate(info.mapping(), fault.page());
    }
    if dirty {
        state.unsettle(Some(page));
    }
    if dirty && !mutated!("tag") {
        // Before the page can be stored to, and a store be followed by a sync.
        tag(info, chunk, Some(page));
    }
    // Under the chunk lock: or a sync in between would clean the page, and leave it writable.
    Ok(fault.insert(struct_page, write))
}

/// The block of `page` of `chunk`; `None` for a hole that need not be filled.
fn find_block(
    info: &InodeInfo,
    chunk: &Chunk,
    state: &mut State,
    page: usize,
    write: bool,
) -> Result<Option<u64>> {
    let at = chunk.first_page() + page as u64;
    let sb = info.sb();
    let mut meta = info.meta();
    match sb.check(sb.volume.map(&meta, at, 1))? {
        Map::Run { block, .. } => Ok(Some(block)),
        Map::Hole { .. } | Map::Unwritten { .. } if !write => Ok(None),
        Map::Hole { .. } | Map::Unwritten { .. } => {
            let asked = info.tracker.ahead.ask(at);
            Ok(Some(
                fill_hole(info, chunk, state, &mut meta, page, asked)?.block,
            ))
        }
    }
}

/// Fills the hole, or makes data of the unwritten blocks, from `page` of `chunk` on: up to `asked`
/// blocks, as far as the chunk and the file go. They are zero, and durably so, before anyone can see
/// them.
fn fill_hole(
    info: &InodeInfo,
    chunk: &Chunk,
    state: &mut State,
    meta: &mut Inode,
    page: usize,
    asked: u64,
) -> Result<Run> {
    let sb = info.sb();
    let at = chunk.first_page() + page as u64;
    let end = info.i_size().div_ceil(PAGE).min(chunk.last_page() + 1);
    let len = asked.min(end.saturating_sub(at)).max(1);
    let run = sb.check(sb.volume.fill(meta, at, len, None))?;
    info.update_blocks(meta);
    info.tracker.ahead.filled(at, asked, run.len);
    let filled = PageSet::range(page, page + run.len as usize - 1);
    unmap_zeroes(info, chunk, state, &filled);
    Ok(run)
}

/// Maps the 2 MiB around the page in one piece, writable if `write`.
fn map_huge(fault: &Fault<'_>, write: bool) -> Result<FaultResult> {
    let info = fault.info();
    with_chunk(fault, write, |chunk| {
        if chunk.last_page() >= info.i_size().div_ceil(PAGE) {
            return Ok(VM_FAULT_FALLBACK);
        }
        let mut state = chunk.lock();
        if !fault.is_unmapped_huge() && !fault.is_mapped_huge() {
            return Ok(VM_FAULT_FALLBACK);
        }
        let pmem = info.sb().volume.pmem();
        let bad = state.is_huge() && pmem.is_bad(state.block(0), PAGES as u64);
        if bad || !state.may_map_huge(write) {
            if write && state.is_huge() {
                split_huge(info, chunk, &mut state);
            }
            return Ok(VM_FAULT_FALLBACK);
        }
        if !state.is_huge() && !join(info, chunk, &mut state, write)? {
            return Ok(VM_FAULT_FALLBACK);
        }
        let page = Page::of_block(pmem, state.block(0));
        if write {
            fault.update_time()?;
            // Another mapping may have been stored to already.
            if !state.density.has_begun() {
                let sample = sample(pmem.fingerprints(), chunk.place().index(), &state);
                state.density.begin(sample);
            }
            state.unsettle(None);
            if !mutated!("tag-huge") {
                tag(info, chunk, None);
            }
        }
        Ok(fault.insert_huge(page, write))
    })
    .map(|mapped| mapped.unwrap_or(VM_FAULT_FALLBACK))
}

/// Makes a huge chunk of one that is not, if its pages are mapped nowhere, and its blocks in one
/// aligned piece. A hole is filled only for a file that is written through its mapping from one end
/// to the other, unwritten blocks become data for any store.
fn join(info: &InodeInfo, chunk: &Chunk, state: &mut State, write: bool) -> Result<bool> {
    let sb = info.sb();
    let pmem = sb.volume.pmem();
    let (first, len) = (chunk.first_page(), PAGES as u64);
    let block = {
        let mut meta = info.meta();
        match sb.check(sb.volume.map(&meta, first, len))? {
            Map::Run { block, len: found } if found == len => block,
            Map::Hole { len: found } if found == len && write => {
                if info.tracker.ahead.ask(first) < len {
                    return Ok(false);
                }
                let run = fill_hole(info, chunk, state, &mut meta, 0, len)?;
                if run.len < len {
                    return Ok(false);
                }
                run.block
            }
            // The file has the space; it only takes zeros.
            Map::Unwritten { block, len: found }
                if found == len && write && pmem.pfn(block) % len == 0 =>
            {
                fill_hole(info, chunk, state, &mut meta, 0, len)?.block
            }
            _ => return Ok(false),
        }
    };
    if pmem.pfn(block) % len != 0 || pmem.is_bad(block, len) {
        return Ok(false);
    }
    let page = Page::of_block(pmem, block);
    let examined = page.examine(info.mapping());
    if !examined.free {
        return Ok(false);
    }
    state.join();
    page.make_huge(info.mapping(), first);
    if state.map_huge(block) {
        unmap(info.mapping(), first, chunk.last_page());
    }
    if examined.dirty {
        tag(info, chunk, None);
    }
    Ok(true)
}

/// Keeps the file system from being frozen while a page becomes writable.
pub struct FreezeProtection(*mut bindings::super_block);

impl FreezeProtection {
    /// Waits until the file system of `info` is not frozen.
    pub fn new(info: &InodeInfo) -> Self {
        let sb = info.sb().as_raw();
        // SAFETY: the super block outlives its inodes; `drop` matches.
        unsafe { bindings::rdax_sb_start_pagefault(sb) };
        FreezeProtection(sb)
    }
}

impl Drop for FreezeProtection {
    fn drop(&mut self) {
        // SAFETY: started in `new`, by this task.
        unsafe { bindings::rdax_sb_end_pagefault(self.0) };
    }
}

/// Keeps blocks in the file while they are being mapped.
pub struct SharedInvalidateLock<'a>(&'a InodeInfo);

impl<'a> SharedInvalidateLock<'a> {
    /// Waits for the lock.
    pub fn new(info: &'a InodeInfo) -> Self {
        // SAFETY: the mapping is that of the inode; `drop` matches.
        unsafe { bindings::rdax_filemap_invalidate_lock_shared(info.mapping()) };
        SharedInvalidateLock(info)
    }
}

impl Drop for SharedInvalidateLock<'_> {
    fn drop(&mut self) {
        // SAFETY: taken in `new`, by this task.
        unsafe { bindings::rdax_filemap_invalidate_unlock_shared(self.0.mapping()) };
    }
}
