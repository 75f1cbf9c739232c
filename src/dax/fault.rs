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

use kernel::alloc::flags::GFP_KERNEL;
use kernel::alloc::KBox;
use kernel::bindings::{
    vm_fault_reason_VM_FAULT_HWPOISON as VM_FAULT_HWPOISON,
    vm_fault_reason_VM_FAULT_OOM as VM_FAULT_OOM,
    vm_fault_reason_VM_FAULT_SIGBUS as VM_FAULT_SIGBUS,
};
use kernel::prelude::*;

use super::layout::unmap;
use super::page::Page;
use super::page_set::PAGES;
use super::tracker::{split, Chunk};
use super::Entry;
use crate::bindings;
use crate::env::nofs;
use crate::vfs::inode::InodeInfo;
use crate::vfs::vm::{Fault, FaultResult};
use crate::volume::file::Map;

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

/// What the memory manager is told about an error.
fn code(error: Error) -> FaultResult {
    if error == ENOMEM {
        VM_FAULT_OOM
    } else {
        VM_FAULT_SIGBUS
    }
}

/// Maps the page, writable if `write`.
fn map(fault: &Fault<'_>, write: bool) -> Result<FaultResult> {
    let info = fault.info();
    let _invalidate = SharedInvalidateLock::new(info);
    if info.sb().volume.pmem().is_gone() {
        return Err(EIO);
    }
    if fault.page() >= info.i_size().div_ceil(PAGE) {
        return Ok(VM_FAULT_SIGBUS);
    }
    let (index, _) = split(fault.page());
    let chunk = info.tracker.make_chunk(index)?;
    // Reclaim must not enter this file system: it evicts inodes, whose chunks and journal it locks.
    nofs(|| map_in_chunk(fault, chunk, write))
}

/// Maps the page of `chunk`.
fn map_in_chunk(fault: &Fault<'_>, chunk: &Chunk, write: bool) -> Result<FaultResult> {
    let info = fault.info();
    let sb = info.sb();
    let (_, page) = split(fault.page());
    let mut state = chunk.lock();
    let block = match state.entry(page) {
        Entry::Present(block) => Some(block),
        Entry::Absent | Entry::Zero => find_block(info, fault.page(), write)?,
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
    if struct_page.is_poisoned() {
        return Ok(VM_FAULT_HWPOISON);
    }
    let table = if state.needs_table(page, block) {
        Some(KBox::new([0; PAGES], GFP_KERNEL)?)
    } else {
        None
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
        // Before the page can be stored to, and a store be followed by a sync.
        let newly = info.tracker.tag(chunk, Some(page));
        sb.counters.pages_tagged.add(newly as u64);
        sb.dirty.note(&info.tracker);
    }
    // Under the chunk lock: or a sync in between would clean the page, and leave it writable.
    Ok(fault.insert(struct_page, write))
}

/// The block of `page`; `None` for a hole that need not be filled.
fn find_block(info: &InodeInfo, page: u64, write: bool) -> Result<Option<u64>> {
    let sb = info.sb();
    let mut meta = info.meta();
    match sb.check(sb.volume.map(&meta, page, 1))? {
        Map::Run { block, .. } => Ok(Some(block)),
        Map::Hole { .. } if !write => Ok(None),
        Map::Hole { .. } => {
            // Zeroes, and durably so, before anyone can see it.
            let run = sb.check(sb.volume.fill(&mut meta, page, 1, None))?;
            info.update_blocks(&meta);
            Ok(Some(run.block))
        }
    }
}

/// Keeps the file system from being frozen while a page becomes writable.
struct FreezeProtection(*mut bindings::super_block);

impl FreezeProtection {
    fn new(info: &InodeInfo) -> Self {
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
struct SharedInvalidateLock<'a>(&'a InodeInfo);

impl<'a> SharedInvalidateLock<'a> {
    fn new(info: &'a InodeInfo) -> Self {
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
