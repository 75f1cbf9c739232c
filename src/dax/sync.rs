// SPDX-License-Identifier: GPL-2.0

//! Making mapped stores durable: what fsync and msync do to the pages of a range.
//!
//! Per chunk with dirty pages, under its lock, the steps of [`track::sync`]: here is what they do to
//! page tables, folios and cache lines. After the last chunk one fence makes all of it durable. A sync
//! that finds nothing dirty and no other sync in flight does nothing at all.
//!
//! Guarantee: when a sync returns without an error, every store to the range that was complete
//! when it began is durable, whether its mapping still exists or not, and has moved the times of the
//! file. Nothing outside the range is written back.

use kernel::alloc::flags::{GFP_KERNEL, GFP_KERNEL_ACCOUNT, GFP_NOWAIT};
use kernel::alloc::KBox;
use kernel::prelude::*;

use super::layout::unmap;
use super::page::Page;
use super::tag;
use super::tracker::{Chunk, SyncWindow, Table};
use crate::bindings;
use crate::env::nofs;
use crate::mutate::mutated;
use crate::pmem::DirectMap;
use crate::track;
use crate::track::chunk::{Protected, Run, Taken};
use crate::track::page_set::PAGES;
pub(super) use crate::track::sync::Hot;
use crate::track::sync::{Fingerprints, How, Machine};
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
    tracker.sync(&sb.dirty.fenced, first, last, |window| {
        let mut pages = 0;
        for chunk in tracker.chunks(first, last, true) {
            let mut state = chunk.lock();
            let dirty = tracker.dirty_in(chunk, &state, &chunk.clip(first, last));
            let mut synced = Synced {
                info,
                chunk,
                window: &mut *window,
            };
            let done = track::sync::write_back(&mut synced, &mut state, dirty, how);
            sb.counters.hot_pages.add(done.hot as u64);
            pages += done.written_back as u64;
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

/// One chunk, as a sync of its inode sees it.
struct Synced<'a, 'w> {
    info: &'a InodeInfo,
    chunk: &'a Chunk,
    window: &'a mut SyncWindow<'w>,
}

impl Synced<'_, '_> {
    fn pmem(&self) -> &DirectMap {
        self.info.sb().volume.pmem()
    }
}

impl Fingerprints for crate::pmem::Fingerprints<'_> {
    #[inline]
    fn of(&mut self, block: u64) -> Option<u64> {
        self.of(block)
    }
}

impl Machine for Synced<'_, '_> {
    type Table = Table;

    fn index(&self) -> u64 {
        self.chunk.place().index()
    }

    #[inline]
    fn take(&mut self, pages: Protected) -> Taken {
        self.info.tracker.take(self.window, self.chunk, pages)
    }

    fn tag(&self, page: usize) {
        tag(self.info, self.chunk, Some(page));
    }

    #[inline]
    fn is_writably_mapped(&self) -> bool {
        // SAFETY: the mapping is that of the inode.
        unsafe { bindings::rdax_mapping_writably_mapped(self.info.mapping()) }
    }

    #[inline]
    fn write_protect(&self, run: Run) {
        // SAFETY: the mapping is that of the inode; the blocks of the run are where the file has
        // these pages, as long as the chunk is locked.
        let entries = unsafe {
            bindings::mapping_wrprotect_range(
                self.info.mapping(),
                (self.chunk.first_page() + run.page as u64) as usize,
                self.pmem().pfn(run.block) as usize,
                run.len,
            )
        };
        let entries = u64::try_from(entries).unwrap_or(0);
        self.info.sb().counters.pages_write_protected.add(entries);
    }

    fn unmap(&self) {
        let (first, last) = (self.chunk.first_page(), self.chunk.last_page());
        unmap(self.info.mapping(), first, last);
    }

    #[inline]
    fn write_back(&self, run: Run) {
        self.pmem().write_back_blocks(run.block, run.len as u64);
    }

    #[inline]
    fn fingerprints(&self) -> impl Fingerprints + '_ {
        self.pmem().fingerprints()
    }

    #[inline]
    fn is_held(&self, block: u64) -> bool {
        Page::of_block(self.pmem(), block).is_held()
    }

    #[inline]
    fn forget_dirty(&self, block: u64) {
        Page::of_block(self.pmem(), block).clear_dirty();
    }

    fn touch(&self) {
        self.info.touch_data();
    }

    fn table(&self) -> Option<Table> {
        // Without reclaim, which could not free a chunk of this inode.
        let at_once = GFP_NOWAIT | (GFP_KERNEL_ACCOUNT & !GFP_KERNEL);
        KBox::new([0; PAGES], at_once).ok()
    }

    fn linger(&self) {
        linger();
    }
}
