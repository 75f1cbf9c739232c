// SPDX-License-Identifier: GPL-2.0

//! The kernel's [`Machine`]: what the steps of dirty tracking do to page tables, folios, cache
//! lines and blocks of an inode.
//!
//! C headers: [`include/linux/rmap.h`](srctree/include/linux/rmap.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use kernel::alloc::flags::{GFP_KERNEL, GFP_KERNEL_ACCOUNT, GFP_NOWAIT};
use kernel::alloc::KBox;
use kernel::prelude::*;
use kernel::sync::lock::mutex::MutexBackend;
use kernel::sync::lock::Guard;

use super::page::Page;
use crate::bindings;
use crate::env::nofs;
use crate::mount::inode::InodeInfo;
use crate::mount::lock::{FaultsOut, InvalidateLock};
use crate::mount::lock::{FreezeProtection, SharedInvalidateLock};
use crate::mount::meta::MetaGuard;
use crate::mount::owner::{disown, own};
use crate::mount::super_block::SbInfo;
use crate::mount::tracker::{table, Chunk, Table, Tracker};
use crate::pmem::DirectMap;
use crate::track::ahead::Ask;
use crate::track::left::LeftBehind;
use crate::track::machine::{self, Event, Examined, Failure, Machine, Mount};
use crate::track::page_set::{PageSet, PAGES, WORDS};
use crate::volume::alloc::Run;
use crate::volume::error::{Error as VolumeError, Structure};
use crate::volume::file::Map;

/// Bytes in a page.
const PAGE: u64 = 4096;
/// Below this many free blocks, 16 MiB, none are given for stores that may never happen.
const SCARCE: u64 = 8 * PAGES as u64;

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Device => EIO,
            Failure::UsedTwice => EUCLEAN,
        }
    }
}

impl machine::FaultsOut for InvalidateLock<'_> {
    fn unlocked<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.unlocked(f)
    }
}

/// The blocks of an inode, with its meta lock.
pub struct Blocks<'a> {
    info: &'a InodeInfo,
    meta: MetaGuard<'a>,
}

impl machine::Blocks for Blocks<'_> {
    type Error = Error;

    #[inline]
    fn find(&mut self, page: u64, len: u64) -> Result<Map> {
        let sb = self.info.sb();
        sb.check(sb.volume.map(&mut self.meta, page, len))
    }

    fn fill(&mut self, page: u64, least: u64, len: u64) -> Result<Run> {
        let sb = self.info.sb();
        let filled = sb
            .volume
            .fill_at_least(&mut self.meta, page, least, len, None);
        let run = sb.check(filled)?;
        self.info.update_blocks(&self.meta);
        Ok(run)
    }

    fn fill_all(&mut self, page: u64, len: u64) -> Result<u64> {
        let sb = self.info.sb();
        let filled = sb.check(sb.volume.fill_all(&mut self.meta, page, len, None))?;
        self.info.update_blocks(&self.meta);
        Ok(filled)
    }
}

impl InodeInfo {
    /// The struct page of a block.
    pub(super) fn page_of(&self, block: u64) -> Page {
        Page::of_block(self.device(), block)
    }
}

impl Mount for SbInfo {
    type Device = DirectMap;
    type Left<'a> = Guard<'a, LeftBehind, MutexBackend>;

    fn device(&self) -> &DirectMap {
        self.volume.pmem()
    }

    fn left(&self) -> Self::Left<'_> {
        self.pins.left.lock()
    }

    fn release_later(&self) {
        self.pins.look_later();
    }

    fn count_written_back(&self, nr: u64) {
        self.counters.pages_written_back.add(nr);
    }

    fn stores_are_lost(&self) {
        pr_err!("{}: stores by way of pins are lost\n", self.name());
    }

    fn without_reclaim<R>(&self, f: impl FnOnce() -> R) -> R {
        nofs(f)
    }
}

impl Machine for InodeInfo {
    type Tracker = Tracker;
    type Device = DirectMap;
    type Error = Error;
    type Blocks<'a> = Blocks<'a>;

    #[inline]
    fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    #[inline]
    fn device(&self) -> &DirectMap {
        self.sb().volume.pmem()
    }

    #[inline]
    fn count(&self, event: Event, nr: u64) {
        let counters = &self.sb().counters;
        match event {
            Event::Tagged => counters.pages_tagged.add(nr),
            Event::WrittenBack => counters.pages_written_back.add(nr),
            Event::Hot => counters.hot_pages.add(nr),
            Event::HoleRead => counters.hole_faults.add(nr),
        }
    }

    /// Does not sleep: the interrupt of a timer ends with a fence.
    fn linger(&self) {
        // SAFETY: the task is running, and no spinning lock held.
        (0..100).for_each(|_| unsafe { kernel::bindings::yield_() });
    }

    #[inline]
    fn is_writably_mapped(&self) -> bool {
        // SAFETY: the mapping is that of the inode.
        unsafe { bindings::rdax_mapping_writably_mapped(self.mapping()) }
    }

    fn locked(&self, first: u64, writable: bool) -> PageSet {
        let mut words = [0; WORDS];
        // SAFETY: the mapping is that of the inode; there is room for 512 bits.
        unsafe {
            bindings::rdax_mapping_locked(
                self.mapping(),
                first as usize,
                PAGES,
                writable,
                words.as_mut_ptr().cast(),
            )
        };
        PageSet::from_words(words)
    }

    #[inline]
    fn write_protect(&self, page: u64, block: u64, len: usize) {
        // SAFETY: the mapping is that of the inode; the blocks are where the file has these pages,
        // as long as their chunk is locked.
        let entries = unsafe {
            bindings::mapping_wrprotect_range(
                self.mapping(),
                page as usize,
                self.device().pfn(block) as usize,
                len,
            )
        };
        let entries = u64::try_from(entries).unwrap_or(0);
        self.sb().counters.pages_write_protected.add(entries);
    }

    fn unmap(&self, first: u64, last: u64) {
        // A count that wraps to 0 means "to the end", which is right.
        let nr = last.wrapping_sub(first).wrapping_add(1);
        // SAFETY: the mapping is that of an inode that is alive.
        unsafe {
            bindings::unmap_mapping_pages(self.mapping(), first as usize, nr as usize, false)
        };
    }

    #[inline]
    fn is_of_another(&self, block: u64, page: u64) -> bool {
        let owner = self.page_of(block).owner();
        let another = owner.is_some_and(|owner| owner != (self.mapping(), page));
        if another {
            // This logs the damage and acts on it; the caller returns its own error.
            let _ = self.sb().check::<()>(Err(VolumeError::Corrupt {
                what: Structure::SharedBlock,
                at: block * PAGE,
            }));
        }
        another
    }

    #[inline]
    fn associate(&self, block: u64, page: u64) -> bool {
        self.page_of(block).associate(self.mapping(), page)
    }

    fn is_not_idle(&self) {
        kernel::warn_on!(true);
    }

    #[inline]
    fn dissociate(&self, block: u64) {
        self.page_of(block).dissociate();
    }

    fn leave_behind(&self, block: u64) -> bool {
        self.page_of(block).dissociate()
    }

    fn examine(&self, block: u64) -> Examined {
        self.page_of(block).examine(self.mapping())
    }

    fn make_huge(&self, block: u64, page: u64) {
        self.page_of(block).make_huge(self.mapping(), page);
    }

    fn adopt_huge(&self, block: u64, page: u64) {
        self.page_of(block).adopt_huge(self.mapping(), page);
    }

    fn wait_idle(&self, block: u64) -> Result {
        self.page_of(block).wait_idle(true)
    }

    #[inline]
    fn pages(&self) -> u64 {
        self.i_size().div_ceil(PAGE)
    }

    fn touch(&self) {
        self.touch_data();
    }

    #[inline]
    fn tail_may_change(&self) {
        self.tail_may_change();
    }

    fn stores_are_lost(&self) {
        // SAFETY: the mapping is that of the inode.
        unsafe { bindings::rdax_mapping_set_error(self.mapping(), EIO.to_errno()) };
    }

    fn write_times(&self) -> Result {
        self.write_times()
    }

    #[inline]
    fn note(&self) {
        self.sb().dirty.note(&self.tracker);
    }

    #[inline]
    fn own(&self) {
        own(self);
    }

    fn is_owner(&self) -> bool {
        self.tracker.ownership.is_held()
    }

    fn disown(&self) {
        disown(self);
    }

    #[inline]
    fn blocks(&self) -> Blocks<'_> {
        Blocks {
            info: self,
            meta: self.meta(),
        }
    }

    fn is_space_scarce(&self) -> bool {
        self.sb().volume.available_blocks() < SCARCE
    }

    fn ask(&self, page: u64) -> Ask {
        self.tracker.ahead.ask(page)
    }

    fn filled(&self, ask: &Ask, first: u64, len: u64) {
        self.tracker.ahead.filled(ask, first, len);
    }

    #[inline]
    fn check_usable(&self, write: bool) -> Result {
        match write {
            true => self.sb().check_writable(),
            false => self.sb().check_alive(),
        }
    }

    fn is_freezing(&self) -> bool {
        self.sb().super_block().is_freezing()
    }

    #[inline]
    fn keep_thawed(&self) -> impl Sized + '_ {
        FreezeProtection::new(self)
    }

    #[inline]
    fn keep_blocks(&self) -> impl Sized + '_ {
        SharedInvalidateLock::new(self)
    }

    fn try_keep_faults_out(&self) -> Option<impl Sized + '_> {
        FaultsOut::try_new(self)
    }

    #[inline]
    fn without_reclaim<R>(&self, f: impl FnOnce() -> R) -> R {
        nofs(f)
    }

    fn make_chunk(&self, index: u64) -> Result {
        self.tracker.make_chunk(index)
    }

    #[inline]
    fn use_chunk(&self, chunk: &Chunk) {
        chunk.touch();
    }

    fn table(&self) -> Result<Table> {
        table()
    }

    fn table_at_once(&self) -> Option<Table> {
        // Without reclaim, which could not free a chunk of this inode.
        let at_once = GFP_NOWAIT | (GFP_KERNEL_ACCOUNT & !GFP_KERNEL);
        KBox::new([0; PAGES], at_once).ok()
    }
}
