// SPDX-License-Identifier: GPL-2.0

//! `struct address_space_operations` and `struct vm_operations_struct` of files that go through
//! the page cache. Its folios are single pages, which are blocks.
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h),
//! [`include/linux/writeback.h`](srctree/include/linux/writeback.h)

use core::marker::PhantomData;
use core::ptr::{null_mut, NonNull};

use kernel::bindings::{
    address_space, address_space_operations, folio, swap_info_struct, vm_fault, vm_fault_t,
    vm_operations_struct, writeback_control,
};
use kernel::error::from_result;
use kernel::ffi::{c_int, c_uint, c_void};
use kernel::prelude::*;

use crate::bindings;
use crate::dax::vm_fault::{Fault, FaultResult};
use crate::mount::inode::InodeInfo;
use crate::mount::object::File;
use crate::mount::table::Table;
use crate::volume::format::BLOCK;

/// The most pages that are written back before one fence.
const BATCH: usize = 64;

/// A page of the cache that the current task has locked.
pub struct LockedPage(NonNull<folio>);

impl LockedPage {
    /// # Safety
    ///
    /// `folio` is a folio of one page, in the cache of a file of rdax, and locked by the current
    /// task as long as the result is used.
    unsafe fn from_raw(folio: NonNull<folio>) -> Self {
        LockedPage(folio)
    }

    fn as_raw(&self) -> *mut folio {
        self.0.as_ptr()
    }

    /// Its number in the file.
    pub fn index(&self) -> u64 {
        // SAFETY: a locked folio of the cache stays where it is.
        let index = unsafe {
            let fields = &(*self.as_raw()).__bindgen_anon_1.__bindgen_anon_1;
            fields.__bindgen_anon_2.index
        };
        index as u64
    }

    /// The [`BLOCK`] bytes. Tasks that have the page mapped or pinned may look at them, and those
    /// that have it pinned change them.
    pub fn as_ptr(&self) -> *mut u8 {
        // SAFETY: the folio is alive.
        unsafe { bindings::rdax_folio_address(self.as_raw()).cast() }
    }

    fn is_uptodate(&self) -> bool {
        // SAFETY: the folio is alive.
        unsafe { bindings::rdax_folio_test_uptodate(self.as_raw()) }
    }

    /// Makes `fill` provide the content, unless it is up to date.
    fn provide(&mut self, fill: impl FnOnce(u64, &mut [u8]) -> Result) -> Result {
        if self.is_uptodate() {
            return Ok(());
        }
        // SAFETY: what is not up to date is neither mapped nor read by anyone, and we have it
        // locked.
        let bytes = unsafe { core::slice::from_raw_parts_mut(self.as_ptr(), BLOCK as usize) };
        fill(self.index(), bytes)?;
        // SAFETY: the content is complete.
        unsafe { bindings::rdax_folio_mark_uptodate(self.as_raw()) };
        Ok(())
    }
}

/// The operations on pages of a file that goes through the page cache.
pub trait CacheOperations {
    /// The block of page `index`, once the cache is on the media; `None` if it has none.
    fn block(info: &InodeInfo, index: u64) -> Result<Option<u64>>;

    /// Reads page `index` into `bytes`: zeroes where the file has nothing.
    fn read(info: &InodeInfo, index: u64, bytes: &mut [u8]) -> Result;

    /// Ensures that page `index`, which is going to be dirty, can be written back: lack of space is
    /// an error here, and not later. The page, or the invalidate lock, keeps its block in the file.
    fn prepare(info: &InodeInfo, index: u64) -> Result;

    /// The bytes up to `end` were written to the cache; their last page is locked, and so is the
    /// inode.
    fn written(info: &InodeInfo, end: u64);

    /// Writes a page that was dirty to the media, without a fence.
    fn write_back(info: &InodeInfo, page: &LockedPage) -> Result;

    /// Makes written-back pages durable, and then a size that covers them: up to byte `end`.
    fn written_back(info: &InodeInfo, end: u64) -> Result;

    /// A page of a shared mapping is going to be stored to: calls `dirty` with the invalidate lock
    /// held, shared, and with protection against a freeze, and passes its result on.
    fn page_mkwrite(fault: &Fault<'_>, dirty: impl FnOnce() -> FaultResult) -> FaultResult;
}

/// The tables for a [`CacheOperations`].
pub struct CacheTable<T>(PhantomData<T>);

impl<T: CacheOperations> CacheTable<T> {
    /// The operations of the page cache.
    pub const fn address_space() -> Table<address_space_operations> {
        Table::new(address_space_operations {
            read_folio: Some(Self::read_folio),
            writepages: Some(Self::writepages),
            dirty_folio: Some(bindings::filemap_dirty_folio),
            write_begin: Some(Self::write_begin),
            write_end: Some(Self::write_end),
            migrate_folio: Some(bindings::filemap_migrate_folio),
            error_remove_folio: Some(bindings::generic_error_remove_folio),
            bmap: Some(Self::bmap),
            swap_activate: Some(Self::swap_activate),
            ..pin_init::zeroed()
        })
    }

    /// The operations of mappings.
    pub const fn mapping() -> Table<vm_operations_struct> {
        Table::new(vm_operations_struct {
            fault: Some(bindings::filemap_fault),
            map_pages: Some(bindings::filemap_map_pages),
            page_mkwrite: Some(Self::page_mkwrite),
            ..pin_init::zeroed()
        })
    }

    /// # Safety
    ///
    /// `->bmap`, called for `FIBMAP`, which takes 0 for a hole.
    unsafe extern "C" fn bmap(mapping: *mut address_space, index: u64) -> u64 {
        // SAFETY: the mapping is that of an inode in use.
        let info = unsafe { InodeInfo::from_vfs((*mapping).host) };
        T::block(info, index).ok().flatten().unwrap_or(0)
    }

    /// # Safety
    ///
    /// `->swap_activate`, called by swapon(2), which would otherwise use the blocks without the
    /// file system's knowledge.
    unsafe extern "C" fn swap_activate(
        _: *mut swap_info_struct,
        file: *mut bindings::file,
        _: *mut bindings::sector_t,
    ) -> c_int {
        // SAFETY: the file is open.
        let file = unsafe { File::from_raw(file) };
        let name = file.inode().sb().name();
        pr_err!("{name}: a file cannot be swap space here\n");
        EOPNOTSUPP.to_errno()
    }

    /// # Safety
    ///
    /// `->read_folio`, called with a locked folio, which it unlocks.
    unsafe extern "C" fn read_folio(_: *mut bindings::file, folio: *mut folio) -> c_int {
        let Some(folio) = NonNull::new(folio) else {
            return 0;
        };
        // SAFETY: the folio is locked, so it stays in the cache of its inode, and that in memory.
        let (mut page, info) = unsafe {
            (
                LockedPage::from_raw(folio),
                InodeInfo::from_vfs(host(folio)),
            )
        };
        let result = page.provide(|index, bytes| T::read(info, index, bytes));
        // SAFETY: locked by the caller for us to unlock.
        unsafe { bindings::folio_unlock(folio.as_ptr()) };
        from_result(|| result.map(|()| 0))
    }

    /// # Safety
    ///
    /// `->write_begin`, called with the inode locked exclusively.
    unsafe extern "C" fn write_begin(
        _: *const bindings::kiocb,
        mapping: *mut address_space,
        pos: i64,
        len: c_uint,
        foliop: *mut *mut folio,
        _: *mut *mut c_void,
    ) -> c_int {
        from_result(|| {
            let pos = u64::try_from(pos)?;
            // SAFETY: the mapping is that of an inode in use. The folio comes locked, and with a
            // reference.
            let folio = unsafe {
                let folio = bindings::rdax_folio_to_write(mapping, (pos / BLOCK) as usize);
                kernel::error::from_err_ptr(folio)?
            };
            let folio = NonNull::new(folio).ok_or(ENOMEM)?;
            // SAFETY: as above.
            let (mut page, info) = unsafe {
                (
                    LockedPage::from_raw(folio),
                    InodeInfo::from_vfs((*mapping).host),
                )
            };
            let prepared = T::prepare(info, page.index()).and_then(|()| {
                // A page that is overwritten whole is not read.
                if u64::from(len) == BLOCK {
                    return Ok(());
                }
                page.provide(|index, bytes| T::read(info, index, bytes))
            });
            if prepared.is_err() {
                // SAFETY: it was locked and referenced for us.
                unsafe { release(folio) };
            } else {
                // SAFETY: the caller's to fill.
                unsafe { *foliop = folio.as_ptr() };
            }
            prepared.map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// `->write_end`, called after [`Self::write_begin`] succeeded.
    unsafe extern "C" fn write_end(
        _: *const bindings::kiocb,
        mapping: *mut address_space,
        pos: i64,
        len: c_uint,
        copied: c_uint,
        folio: *mut folio,
        _: *mut c_void,
    ) -> c_int {
        let Some(folio) = NonNull::new(folio) else {
            return 0;
        };
        // SAFETY: the folio is locked, and the inode in use.
        let (page, info) = unsafe {
            (
                LockedPage::from_raw(folio),
                InodeInfo::from_vfs((*mapping).host),
            )
        };
        let mut taken = copied;
        if !page.is_uptodate() {
            if copied < len {
                // The part that was not copied was not read either: the caller tries again.
                taken = 0;
            } else {
                // SAFETY: all of it was written.
                unsafe { bindings::rdax_folio_mark_uptodate(folio.as_ptr()) };
            }
        }
        if taken > 0 {
            T::written(info, pos as u64 + u64::from(taken));
            // SAFETY: the folio is locked.
            unsafe { bindings::folio_mark_dirty(folio.as_ptr()) };
        }
        // SAFETY: `write_begin` locked and referenced it.
        unsafe { release(folio) };
        taken as c_int
    }

    /// # Safety
    ///
    /// `->writepages`, called by write-back and sync.
    unsafe extern "C" fn writepages(
        mapping: *mut address_space,
        wbc: *mut writeback_control,
    ) -> c_int {
        // SAFETY: the mapping is that of an inode in use.
        let info = unsafe { InodeInfo::from_vfs((*mapping).host) };
        let mut batch = Batch::<T>::new(info);
        let mut error = 0;
        let mut folio = null_mut();
        loop {
            // SAFETY: the mapping and the control block are the caller's; `folio` and `error` are
            // what the last round left.
            folio = unsafe { bindings::writeback_iter(mapping, wbc, folio, &mut error) };
            let Some(locked) = NonNull::new(folio) else {
                break;
            };
            // SAFETY: the folio is locked, was dirty and is not being written back. No task can
            // make it writable before it is unlocked.
            let result = unsafe {
                bindings::__folio_start_writeback(folio, false);
                let result = T::write_back(info, &LockedPage::from_raw(locked));
                bindings::folio_unlock(folio);
                result
            };
            error = result.map_or_else(|error| failed(info, error), |()| 0);
            batch.push(locked);
        }
        drop(batch);
        error
    }

    /// # Safety
    ///
    /// `->page_mkwrite`, called by the memory manager.
    unsafe extern "C" fn page_mkwrite(vmf: *mut vm_fault) -> vm_fault_t {
        // SAFETY: called by the memory manager.
        let fault = unsafe { Fault::from_raw(vmf) };
        let mapping = fault.info().mapping();
        // SAFETY: the memory manager holds a reference to the page, and has no lock on it.
        let folio = unsafe { bindings::rdax_page_folio((*vmf).page) };
        T::page_mkwrite(&fault, || {
            // SAFETY: as above; what belongs to the mapping once it is locked, does until it is
            // unlocked, which the memory manager does when it is mapped.
            unsafe {
                bindings::rdax_folio_lock(folio);
                if (*folio).__bindgen_anon_1.__bindgen_anon_1.mapping != mapping {
                    bindings::folio_unlock(folio);
                    return kernel::bindings::vm_fault_reason_VM_FAULT_NOPAGE;
                }
                bindings::folio_mark_dirty(folio);
                bindings::folio_wait_stable(folio);
                kernel::bindings::vm_fault_reason_VM_FAULT_LOCKED
            }
        })
    }
}

/// The inode of a folio of the cache.
///
/// # Safety
///
/// The folio is locked, and in the cache.
unsafe fn host(folio: NonNull<folio>) -> *mut bindings::inode {
    // SAFETY: by the caller.
    unsafe {
        let fields = &(*folio.as_ptr()).__bindgen_anon_1.__bindgen_anon_1;
        (*fields.mapping).host
    }
}

/// Unlocks a folio and drops a reference to it.
///
/// # Safety
///
/// Both are the caller's.
unsafe fn release(folio: NonNull<folio>) {
    // SAFETY: by the caller.
    unsafe {
        bindings::folio_unlock(folio.as_ptr());
        bindings::rdax_folio_put(folio.as_ptr());
    }
}

/// Records that a page of `info` could not be written back: every open file gets the error at its
/// next fsync. Returns the errno, negative.
fn failed(info: &InodeInfo, error: Error) -> c_int {
    // SAFETY: the mapping is that of the inode.
    unsafe { bindings::rdax_mapping_set_error(info.mapping(), error.to_errno()) };
    error.to_errno()
}

/// Pages whose write-back has begun and waits for a fence.
struct Batch<'a, T: CacheOperations> {
    info: &'a InodeInfo,
    pages: [Option<NonNull<folio>>; BATCH],
    len: usize,
    /// The end of the last page, in bytes.
    end: u64,
    operations: PhantomData<T>,
}

impl<'a, T: CacheOperations> Batch<'a, T> {
    fn new(info: &'a InodeInfo) -> Self {
        Batch {
            info,
            pages: [None; BATCH],
            len: 0,
            end: 0,
            operations: PhantomData,
        }
    }

    /// Adds a page; it stays in the cache while it is being written back.
    fn push(&mut self, folio: NonNull<folio>) {
        // SAFETY: it does not move in the file meanwhile.
        let index = unsafe { LockedPage::from_raw(folio) }.index();
        self.end = (index + 1) * BLOCK;
        self.pages[self.len] = Some(folio);
        self.len += 1;
        if self.len == BATCH {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if self.len == 0 {
            return;
        }
        if let Err(error) = T::written_back(self.info, self.end) {
            failed(self.info, error);
        }
        for folio in self.pages.iter_mut().filter_map(Option::take) {
            // SAFETY: its write-back was started, by this task.
            unsafe { bindings::folio_end_writeback(folio.as_ptr()) };
        }
        self.len = 0;
    }
}

impl<T: CacheOperations> Drop for Batch<'_, T> {
    fn drop(&mut self) {
        self.finish();
    }
}
