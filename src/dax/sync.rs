// SPDX-License-Identifier: GPL-2.0

//! Making mapped stores durable: what fsync and msync do to the pages of a range.
//!
//! Per chunk with dirty pages, under its lock: write-protect the shared mappings of each run of
//! dirty pages that is contiguous in the file and on the device, so that the next store faults and
//! tags again; make the pages clean; write their cache lines back. After the last chunk one fence
//! makes all of it durable. A sync that finds nothing dirty and no other sync in flight does
//! nothing at all.
//!
//! Guarantee: when a sync returns without an error, every store to the range that was complete
//! when it began is durable, whether its mapping still exists or not. Nothing outside the range is
//! written back or write-protected.

use kernel::prelude::*;

use super::page_set::PageSet;
use super::tracker::{Chunk, SyncWindow};
use crate::bindings;
use crate::vfs::inode::InodeInfo;
use crate::volume::pmem::Pmem;

/// Bytes to pages.
const PAGE_SHIFT: u32 = 12;

/// Makes the stores to the bytes `start..=end` of the file durable. Fails with `EIO` if the device
/// does; every open file then learns of it at its next fsync, too. May sleep. No chunk lock of the
/// inode is held.
#[inline]
pub fn sync_range(info: &InodeInfo, start: u64, end: u64) -> Result {
    info.sb().counters.sync_calls.add(1);
    if info.tracker.is_quiet() {
        return Ok(());
    }
    write_back(info, start >> PAGE_SHIFT, end >> PAGE_SHIFT)
}

/// Writes back the dirty pages among `first..=last`, and waits for other syncs that are at it.
pub(super) fn write_back(info: &InodeInfo, first: u64, last: u64) -> Result {
    let sb = info.sb();
    let pmem = sb.volume.pmem();
    if !pmem.has_write_cache() {
        // Stores are durable as they are. The tags stay, for the case that the cache is declared
        // volatile later.
        return Ok(());
    }
    let tracker = &info.tracker;
    let result = tracker.sync(&sb.dirty.fenced, first, last, |sync| {
        let mut pages = 0;
        for chunk in tracker.chunks(first, last, true) {
            pages += write_back_chunk(info, sync, chunk, &chunk.clip(first, last));
        }
        if pages == 0 {
            return Ok(());
        }
        sb.counters.pages_written_back.add(pages);
        pmem.fence()
    });
    result.map_err(|_| {
        // SAFETY: the mapping is that of the inode.
        unsafe { bindings::rdax_mapping_set_error(info.mapping(), EIO.to_errno()) };
        EIO
    })
}

/// Writes back the dirty pages among `pages` of one chunk, without the fence. Returns how many.
fn write_back_chunk(
    info: &InodeInfo,
    sync: &mut SyncWindow<'_>,
    chunk: &Chunk,
    pages: &PageSet,
) -> u64 {
    let tracker = &info.tracker;
    let sb = info.sb();
    let pmem = sb.volume.pmem();
    // From here to the write-back no fault makes a page of the chunk writable.
    let state = chunk.lock();
    let seen = tracker.dirty_in(chunk, &state, pages);
    if seen.pages().is_empty() {
        return 0;
    }
    // Asked under the chunk lock: a first writable mapping that appears later faults later.
    // SAFETY: the mapping is that of the inode.
    if unsafe { bindings::rdax_mapping_writably_mapped(info.mapping()) } {
        let mut entries = 0;
        for run in state.runs(seen.pages()) {
            // SAFETY: the mapping is that of the inode; the blocks of the run are where the file
            // has these pages, as long as the chunk is locked.
            let n = unsafe {
                bindings::mapping_wrprotect_range(
                    info.mapping(),
                    (chunk.first_page() + run.page as u64) as usize,
                    pmem.pfn(run.block) as usize,
                    run.len,
                )
            };
            entries += u64::try_from(n).unwrap_or(0);
        }
        sb.counters.pages_write_protected.add(entries);
    }
    let taken = tracker.take(sync, chunk, seen.write_protected());
    let mut lines = 0;
    for run in state.runs(taken.pages()) {
        lines += pmem.write_back_blocks(run.block, run.len as u64);
    }
    sb.counters.lines_flushed.add(lines);
    taken.written_back() as u64
}
