// SPDX-License-Identifier: GPL-2.0

//! A page fault, as the memory manager describes it.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use core::ops::Range;

use kernel::bindings::{
    fault_flag_FAULT_FLAG_WRITE, folio, vm_area_struct, vm_fault,
    vm_fault_reason_VM_FAULT_LOCKED as VM_FAULT_LOCKED, vm_fault_t,
};
use kernel::error::to_result;
use kernel::prelude::*;

use super::page::Page;
use crate::bindings;
use crate::mount::huge_zero::Zeros;
use crate::mount::inode::InodeInfo;

/// Bytes in a page.
const PAGE: u64 = 4096;
/// Bytes in a huge folio.
const HUGE: u64 = 2 << 20;

/// What a fault handler returns, `VM_FAULT_*`.
pub type FaultResult = vm_fault_t;

/// A page fault in a mapping of a file of rdax. Lives on the stack of the memory manager, with the
/// mapping locked.
pub struct Fault<'a> {
    vmf: *mut vm_fault,
    vma: *mut vm_area_struct,
    info: &'a InodeInfo,
}

impl Fault<'_> {
    /// # Safety
    ///
    /// `vmf` is what the memory manager called a fault handler of rdax with, which has not
    /// returned.
    pub unsafe fn from_raw<'a>(vmf: *mut vm_fault) -> Fault<'a> {
        // SAFETY: by the caller's promise; the file of a mapping is set for as long as it exists,
        // and holds its inode.
        unsafe {
            let vma = (*vmf).__bindgen_anon_1.vma;
            let info = InodeInfo::from_vfs((*(*vma).vm_file).f_inode);
            Fault { vmf, vma, info }
        }
    }

    /// The file.
    pub fn info(&self) -> &InodeInfo {
        self.info
    }

    /// The page of the file.
    pub fn page(&self) -> u64 {
        // SAFETY: the fault is in progress.
        unsafe { (*self.vmf).__bindgen_anon_1.pgoff as u64 }
    }

    /// Whether the access is a store that reaches the file. (A private mapping, and a shared one of
    /// a file that is open for reading only, have no `VM_SHARED`.)
    pub fn is_shared_write(&self) -> bool {
        // SAFETY: the fault is in progress, and the mapping locked.
        let (access, flags) = unsafe { ((*self.vmf).flags, (*self.vma).__bindgen_anon_2.vm_flags) };
        access & fault_flag_FAULT_FLAG_WRITE != 0 && flags & bindings::RDAX_VM_SHARED != 0
    }

    /// Whether the mapping is locked in memory (`mlock`), and its stores reach the file: a sync
    /// must not make them fault.
    pub fn is_locked(&self) -> bool {
        // SAFETY: the fault is in progress, which keeps the mapping.
        unsafe { bindings::rdax_vma_is_locked(self.vma) }
    }

    /// Whether userfaultfd watches the mapping: it may put a page table where nothing was mapped,
    /// or where 2 MiB were mapped in one piece, with no lock that keeps faults out.
    pub fn is_watched(&self) -> bool {
        // SAFETY: the fault is in progress, which keeps the mapping.
        unsafe { bindings::rdax_vma_is_watched(self.vma) }
    }

    /// Updates mtime and ctime of the file.
    pub fn update_time(&self) -> Result {
        // SAFETY: the mapping holds its file.
        to_result(unsafe { bindings::file_update_time((*self.vma).vm_file) })
    }

    /// Whether the access is a store.
    pub fn is_write(&self) -> bool {
        // SAFETY: the fault is in progress.
        unsafe { (*self.vmf).flags & fault_flag_FAULT_FLAG_WRITE != 0 }
    }

    /// The faulting address, rounded down to its page, and where the mapping begins and ends.
    fn addresses(&self) -> (u64, u64, u64) {
        // SAFETY: the fault is in progress, and the mapping locked.
        unsafe {
            let range = &(*self.vma).__bindgen_anon_1.__bindgen_anon_1;
            let address = (*self.vmf).__bindgen_anon_1.address as u64;
            (address, range.vm_start as u64, range.vm_end as u64)
        }
    }

    /// Whether the 2 MiB of the file around the faulting page could be mapped here in one piece:
    /// they are aligned, and within the mapping.
    pub fn fits_huge(&self) -> bool {
        let (address, start, end) = self.addresses();
        let first = address & !(HUGE - 1);
        let aligned = (address / PAGE) % (HUGE / PAGE) == self.page() % (HUGE / PAGE);
        aligned && first >= start && first + HUGE <= end
    }

    /// Whether nothing is mapped in the 2 MiB around the address.
    pub fn is_unmapped_huge(&self) -> bool {
        // SAFETY: the fault is in progress.
        unsafe { bindings::rdax_pmd_is_none(self.vmf) }
    }

    /// Whether the 2 MiB around the address are mapped in one piece.
    pub fn is_mapped_huge(&self) -> bool {
        // SAFETY: the fault is in progress.
        unsafe { bindings::rdax_pmd_is_huge(self.vmf) }
    }

    /// Whether the access is a store to a private mapping where nothing is mapped: it will get a
    /// copy of the page.
    pub fn is_copied(&self) -> bool {
        // SAFETY: the fault is in progress.
        unsafe { !(*self.vmf).cow_page.is_null() }
    }

    /// Uses the page table that the memory manager has ready, if one is missing, so that inserting
    /// a page allocates nothing.
    pub fn install_page_table(&self) {
        // SAFETY: the fault is in progress, and the mapping locked.
        unsafe { bindings::rdax_install_page_table(self.vmf) };
    }

    /// Removes the marker that userfaultfd has left at the faulting address to record that it
    /// write-protects a page that is not mapped. Userfaultfd then reports the page as stored to.
    pub fn clear_marker(&self) {
        // SAFETY: the fault is in progress, and the mapping locked: its page table stays.
        unsafe { bindings::rdax_clear_pte_marker(self.vmf) };
    }

    /// Maps the huge folio of `page` around the faulting address; writable if `write`. If something
    /// is mapped there already, it must be the same folio.
    pub fn insert_folio(&self, page: Page, write: bool) -> FaultResult {
        // SAFETY: as in `insert_page`; the page is the first of its folio.
        unsafe {
            bindings::rdax_page_get(page.as_raw());
            let result =
                bindings::vmf_insert_folio_pmd(self.vmf, page.as_raw().cast::<folio>(), write);
            bindings::rdax_page_put(page.as_raw());
            result
        }
    }

    /// Maps 2 MiB of zeros around the faulting address, read-only.
    pub fn insert_zeros(&self, zeros: &Zeros) -> FaultResult {
        // SAFETY: the fault is in progress, and the folio, of 2 MiB, has a reference.
        unsafe { bindings::vmf_insert_folio_pmd(self.vmf, zeros.as_raw(), false) }
    }

    /// Maps `page` at the faulting address; writable if `write`. If something is mapped there
    /// already, it must be the same page. For a store to a private mapping, makes the memory
    /// manager map a copy of it.
    pub fn insert_page(&self, page: Page, write: bool) -> FaultResult {
        if self.is_copied() {
            // While it is being copied, it behaves like a pinned one: it belongs to the file, and
            // whoever would take it from the file waits.
            // SAFETY: the fault is in progress. The reference is the memory manager's to drop.
            unsafe {
                bindings::rdax_page_get(page.as_raw());
                (*self.vmf).page = page.as_raw();
            }
            return 0;
        }
        // SAFETY: the fault is in progress. The page needs a reference to be inserted; idle pages
        // have none.
        unsafe {
            bindings::rdax_page_get(page.as_raw());
            let result = bindings::vmf_insert_page_mkwrite(self.vmf, page.as_raw(), write);
            bindings::rdax_page_put(page.as_raw());
            result
        }
    }

    /// The pages of the file that the mapping has, or may have, in the page table of the faulting
    /// address.
    pub fn neighbours(&self) -> Range<u64> {
        let (address, start, end) = self.addresses();
        let first = address & !(HUGE - 1);
        let (before, after) = (
            (address - first.max(start)) / PAGE,
            ((first + HUGE).min(end) - address).div_ceil(PAGE),
        );
        self.page() - before..self.page() + after
    }

    /// Maps the `len` pages from `first` on, at most 64, writable, at the addresses from page
    /// `page` of the file on, which is one of the [`neighbours`](Fault::neighbours). Skips
    /// addresses where something else is mapped.
    pub fn insert_writable(&self, page: u64, first: Page, len: usize) {
        let (address, ..) = self.addresses();
        let at = address.wrapping_add(page.wrapping_sub(self.page()).wrapping_mul(PAGE));
        // SAFETY: the fault is in progress, and the mapping locked; the addresses are in it, and in
        // the page table of the faulting one.
        unsafe {
            bindings::rdax_insert_writable(self.vmf, at as usize, first.as_raw(), len as u32)
        };
    }

    /// Maps the zero page at the faulting address, read-only. For a store to a private mapping,
    /// makes the memory manager map a copy of it, or else leaves that to the next fault.
    pub fn insert_zero(&self) -> FaultResult {
        // SAFETY: the fault is in progress.
        if self.is_copied() && unsafe { bindings::rdax_cow_zero(self.vmf) } {
            return VM_FAULT_LOCKED;
        }
        // SAFETY: the fault is in progress; the zero page needs no reference.
        unsafe { bindings::vmf_insert_page_mkwrite(self.vmf, bindings::rdax_zero_page(), false) }
    }
}
