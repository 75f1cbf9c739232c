// SPDX-License-Identifier: GPL-2.0

//! Making mapped stores durable: what fsync and msync do to the pages of a range.
//!
//! Per chunk with dirty pages, under its lock: write-protect the shared mappings of each run of
//! dirty pages that is contiguous in the file and on the device, so that the next store faults and
//! tags again; make the pages clean; write their cache lines back. Hot pages stay writable and dirty,
//! and are only written back; pages that are pinned stay dirty, too. After the last chunk one fence
//! makes all of it durable. A sync that finds nothing dirty and no other sync in flight does nothing
//! at all.
//!
//! Guarantee: when a sync returns without an error, every store to the range that was complete
//! when it began is durable, whether its mapping still exists or not, and has moved the times of the
//! file. Nothing outside the range is written back.

use kernel::alloc::flags::{GFP_KERNEL, GFP_KERNEL_ACCOUNT, GFP_NOWAIT};
use kernel::alloc::KBox;
use kernel::prelude::*;

use super::chunk::{Kept, Snapshot};
use super::density::SAMPLE;
use super::layout::unmap;
use super::page::Page;
use super::page_set::{PageSet, PAGES};
use super::tag;
use super::tracker::{Chunk, State, SyncWindow};
use crate::bindings;
use crate::env::nofs;
use crate::mutate::mutated;
use crate::vfs::inode::InodeInfo;
use crate::volume::pmem::Pmem;

/// Bytes to pages.
const PAGE_SHIFT: u32 = 12;

/// What becomes of hot pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hot {
    /// They stay writable, and what is pinned stays dirty.
    Keep,
    /// They are write-protected like all others: nothing is dirty or writable afterwards.
    Protect,
}

/// How a sync goes about it.
#[derive(Clone, Copy)]
struct How {
    hot: Hot,
    /// Lines are written back, and pages become clean.
    flush: bool,
}

/// Makes the stores to the bytes `start..=end` of the file durable. Fails with `EIO` if the device
/// does; every open file then learns of it at its next fsync, too. May sleep. No chunk lock of the
/// inode is held.
#[inline]
pub fn sync_range(info: &InodeInfo, start: u64, end: u64) -> Result {
    info.sb().counters.sync_calls.add(1);
    if info.tracker.is_quiet() {
        return Ok(());
    }
    write_back(info, start >> PAGE_SHIFT, end >> PAGE_SHIFT, Hot::Keep)
}

/// Writes back the dirty pages among `first..=last`, and waits for other syncs that are at it.
pub(super) fn write_back(info: &InodeInfo, first: u64, last: u64, hot: Hot) -> Result {
    let _chunks_stay = info.tracker.stay();
    // Reclaim must not evict an inode meanwhile: it waits for who is at its chunks.
    nofs(|| write_back_held(info, first, last, hot))
}

/// As [`write_back`]; the caller keeps the chunks from being freed.
pub(super) fn write_back_held(info: &InodeInfo, first: u64, last: u64, hot: Hot) -> Result {
    let sb = info.sb();
    let pmem = sb.volume.pmem();
    // Without a write cache stores are durable as they are. All else is done as with one; and what
    // is left alone stays dirty, for the case that the cache is declared volatile later.
    let how = How {
        hot,
        flush: hot == Hot::Protect || pmem.has_write_cache(),
    };
    let tracker = &info.tracker;
    tracker.sync(&sb.dirty.fenced, first, last, |sync| {
        let mut pages = 0;
        for chunk in tracker.chunks(first, last, true) {
            pages += write_back_chunk(info, sync, chunk, &chunk.clip(first, last), how);
        }
        if pages == 0 {
            return Ok(());
        }
        sb.counters.pages_written_back.add(pages);
        if mutated!("sync-wait") {
            linger();
        }
        if mutated!("sync-fence") {
            return Ok(());
        }
        pmem.fence().map_err(|_| {
            // Before others that wait for this fence look.
            stores_are_lost(info);
            EIO
        })
    })
}

/// Lets others run where a mistake was made: what would be rare becomes certain. (Not by sleeping:
/// the interrupt of a timer ends with a fence.)
fn linger() {
    // SAFETY: the task is running, and no spinning lock held.
    (0..100).for_each(|_| unsafe { kernel::bindings::yield_() });
}

/// Stores to the file did not reach the media: every open file learns of it at its next sync, once.
pub(super) fn stores_are_lost(info: &InodeInfo) {
    // SAFETY: the mapping is that of the inode.
    unsafe { bindings::rdax_mapping_set_error(info.mapping(), EIO.to_errno()) };
}

/// Writes back the dirty pages among `pages` of one chunk, without the fence. Returns how many.
/// (None where nothing is flushed.)
fn write_back_chunk(
    info: &InodeInfo,
    sync: &mut SyncWindow<'_>,
    chunk: &Chunk,
    pages: &PageSet,
    how: How,
) -> u64 {
    let tracker = &info.tracker;
    let pmem = info.sb().volume.pmem();
    // From here to the write-back no fault makes a page of the chunk writable.
    let mut state = chunk.lock();
    let mut cold = tracker.dirty_in(chunk, &state, pages);
    if !how.flush {
        cold.leave_out(state.settled());
    }
    if cold.pages().is_empty() {
        return 0;
    }
    // Asked under the chunk lock: a first writable mapping that appears later faults later.
    // SAFETY: the mapping is that of the inode.
    let writable = unsafe { bindings::rdax_mapping_writably_mapped(info.mapping()) };
    let whole = *cold.pages() == PageSet::ALL;
    // The hot pages that do not stay so.
    let mut cooling = state.heat.hot().and(cold.pages());
    let mut pages = 0;
    if writable && how.hot == Hot::Keep {
        pages = keep_hot(info, &mut state, &mut cold, &mut cooling, how.flush);
        info.sb().counters.hot_pages.add(pages as u64);
    }
    if !cold.pages().is_empty() {
        let start_write_back = |state: &State, pages: &PageSet| {
            for run in state.runs(pages) {
                pmem.write_back_blocks(run.block, run.len as u64);
            }
        };
        let early = mutated!("write-back-early");
        if early {
            start_write_back(&state, cold.pages());
            linger();
        }
        if writable && !mutated!("write-protect") {
            write_protect(info, chunk, &state, cold.pages());
        }
        flush_zapped(info, chunk, &state);
        cool(info, &mut state, &cooling);
        let protected = cold.write_protected();
        state.heat.synced(protected.pages());
        if how.flush {
            let taken = tracker.take(sync, chunk, protected);
            forget_dirty(info, chunk, &state, taken.pages(), how.hot);
            if !early && !mutated!("sync-write-back") {
                start_write_back(&state, taken.pages());
            }
            pages += taken.written_back();
        } else {
            state.settle(&protected);
        }
    } else {
        state.heat.synced(&PageSet::EMPTY);
    }
    if state.is_huge() {
        let sample = whole.then(|| sample(info, chunk, &state)).flatten();
        if !state.density.end(sample) {
            // The next store makes small pages of it: or one byte would cost 2 MiB at each sync.
            state.store_small();
        }
    } else if whole {
        state.store_whole();
    }
    match how.flush {
        true => pages as u64,
        false => 0,
    }
}

/// Writes back those of the `dirty` pages of a chunk that may stay writable, and takes them out of it.
/// Moves the times of the file if one of them was stored to. Returns how many stay. `hot` are the hot
/// ones among `dirty`; afterwards, those of them that do not stay: they have to be [cooled](cool).
fn keep_hot(
    info: &InodeInfo,
    state: &mut State,
    dirty: &mut Snapshot,
    hot: &mut PageSet,
    flush: bool,
) -> usize {
    let pmem = info.sb().volume.pmem();
    let huge = state.is_huge();
    let (heat, blocks) = state.heat_and_blocks();
    // After its fingerprint was taken: a store in between is found by the next sync.
    let write_back = |kept: Kept, page| {
        if flush && !mutated!("hot-write-back") {
            pmem.write_back_blocks(blocks.block(page), 1);
        }
        kept.written_back()
    };
    let mut kept = 0;
    if !hot.is_empty() {
        let stored_to = {
            // Nothing below sleeps.
            let mut fingerprints = pmem.fingerprints();
            heat.review(
                hot,
                |page| fingerprints.of(blocks.block(page)),
                |page| kept += write_back(dirty.keep(page), page),
            )
        };
        if stored_to {
            // Under the chunk lock: another sync that finds no more change may rely on it.
            info.touch_data();
        }
    }
    if huge || !heat.warm().intersects(dirty.pages()) {
        return kept;
    }
    if heat.needs_table() {
        // Without reclaim, which could not free a chunk of this inode: no page needs to become hot.
        let at_once = GFP_NOWAIT | (GFP_KERNEL_ACCOUNT & !GFP_KERNEL);
        match KBox::new([0; PAGES], at_once) {
            Ok(table) => heat.set_table(table),
            Err(_) => return kept,
        }
    }
    let fresh = {
        let mut fingerprints = pmem.fingerprints();
        heat.heat_up(dirty.pages(), |page| fingerprints.of(blocks.block(page)))
    };
    let mut next = fresh.next(0);
    while let Some(page) = next {
        kept += write_back(dirty.keep(page), page);
        next = fresh.next(page + 1);
    }
    kept
}

/// Ends the heat of `pages`, which nobody can store to any more: a store up to then moves the times of
/// the file.
fn cool(info: &InodeInfo, state: &mut State, pages: &PageSet) {
    if pages.is_empty() {
        return;
    }
    let stored_to = {
        let (heat, blocks) = state.heat_and_blocks();
        let mut fingerprints = info.sb().volume.pmem().fingerprints();
        heat.cool_down(pages, |page| fingerprints.of(blocks.block(page)))
    };
    if stored_to {
        info.touch_data();
    }
}

/// The fingerprints of the pages that tell whether a huge chunk is stored to all over.
pub(super) fn sample(info: &InodeInfo, chunk: &Chunk, state: &State) -> Option<[u64; SAMPLE]> {
    let mut fingerprints = info.sb().volume.pmem().fingerprints();
    let mut sample = [0; SAMPLE];
    for (slot, page) in sample
        .iter_mut()
        .zip(state.density.pages(chunk.place().index()))
    {
        *slot = fingerprints.of(state.block(page))?;
    }
    Some(sample)
}

/// Sees to it that no CPU stores to a huge chunk, which is write-protected, by an entry that it still
/// has in its TLB. Where 2 MiB are zapped, the memory manager flushes that after it has unlocked the
/// page table; it holds a reference to the folio until then, as a pin does. Unmapping flushes it for
/// whoever is at it.
fn flush_zapped(info: &InodeInfo, chunk: &Chunk, state: &State) {
    let pmem = info.sb().volume.pmem();
    if state.is_huge() && Page::of_block(pmem, state.block(0)).is_held() {
        unmap(info.mapping(), chunk.first_page(), chunk.last_page());
    }
}

/// Takes PG_dirty from `pages`, which were taken and are not yet written back: who ends a pin of a page
/// that has it does not tell the file system. KVM sets it, for a page that it has mapped, and so not
/// after the page was write-protected.
///
/// Those that are pinned are tagged again, unless all are to be clean: DMA may reach them as long as that
/// lasts. Its end tags as well, but who waits for an asynchronous read may be told of its end before the
/// kernel dirties the page (`blkdev_bio_end_io_async()`), and call fsync in between. What is not pinned
/// now is all there, and is about to be written back.
fn forget_dirty(info: &InodeInfo, chunk: &Chunk, state: &State, pages: &PageSet, hot: Hot) {
    let pmem = info.sb().volume.pmem();
    let is_pinned = |page| {
        let page = Page::of_block(pmem, state.block(page));
        page.clear_dirty();
        hot == Hot::Keep && page.is_held()
    };
    // All pages of a huge folio have one flag and one count.
    let huge = state.is_huge();
    if huge && !is_pinned(0) {
        return;
    }
    let mut next = pages.next(0);
    while let Some(page) = next {
        if huge || is_pinned(page) {
            tag(info, chunk, Some(page));
        }
        next = pages.next(page + 1);
    }
}

/// Write-protects all shared mappings of `pages`.
fn write_protect(info: &InodeInfo, chunk: &Chunk, state: &State, pages: &PageSet) {
    // A mapping of 2 MiB is protected as a whole or not at all.
    let pages = if state.is_huge() {
        &PageSet::ALL
    } else {
        pages
    };
    let mut entries = 0;
    for run in state.runs(pages) {
        // SAFETY: the mapping is that of the inode; the blocks of the run are where the file has
        // these pages, as long as the chunk is locked.
        let n = unsafe {
            bindings::mapping_wrprotect_range(
                info.mapping(),
                (chunk.first_page() + run.page as u64) as usize,
                info.sb().volume.pmem().pfn(run.block) as usize,
                run.len,
            )
        };
        entries += u64::try_from(n).unwrap_or(0);
    }
    info.sb().counters.pages_write_protected.add(entries);
}
