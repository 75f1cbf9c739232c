// SPDX-License-Identifier: GPL-2.0

//! The operations tables of mapped files: page faults, and what the memory manager tells the file
//! system about pages.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)
//!
//! `->pfn_mkwrite` takes part in every first store to a page that was mapped for reading. There is
//! no `->page_mkwrite`: for pages of a DAX device it is never called. `->map_pages` maps nothing,
//! but has to be there: without it the memory manager takes every fault under the lock of the
//! whole address space instead of that of the mapping.

use kernel::bindings::{
    address_space, address_space_operations, fault_flag_FAULT_FLAG_WRITE, folio, vm_area_struct,
    vm_fault, vm_fault_reason_VM_FAULT_FALLBACK as VM_FAULT_FALLBACK, vm_fault_t,
    vm_operations_struct,
};
use kernel::error::to_result;
use kernel::prelude::*;

use super::inode::InodeInfo;
use super::io;
use crate::bindings;
use crate::dax::page::Page;
use crate::dax::{self, fault};

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
        // SAFETY: the fault is under way.
        unsafe { (*self.vmf).__bindgen_anon_1.pgoff as u64 }
    }

    /// Whether the access is a store that is to reach the file. (A private mapping, and a shared
    /// one of a file that is open for reading only, have no `VM_SHARED`.)
    pub fn is_shared_write(&self) -> bool {
        // SAFETY: the fault is under way, and the mapping locked.
        let (access, flags) = unsafe { ((*self.vmf).flags, (*self.vma).__bindgen_anon_2.vm_flags) };
        access & fault_flag_FAULT_FLAG_WRITE != 0 && flags & bindings::RDAX_VM_SHARED != 0
    }

    /// Moves mtime and ctime of the file.
    pub fn update_time(&self) -> Result {
        // SAFETY: the mapping holds its file.
        to_result(unsafe { bindings::file_update_time((*self.vma).vm_file) })
    }

    /// Whether the access is a store.
    pub fn is_write(&self) -> bool {
        // SAFETY: the fault is under way.
        unsafe { (*self.vmf).flags & fault_flag_FAULT_FLAG_WRITE != 0 }
    }

    /// Whether the 2 MiB of the file around the faulting page could be mapped here in one piece:
    /// they are aligned, and within the mapping.
    pub fn fits_huge(&self) -> bool {
        // SAFETY: the fault is under way, and the mapping locked.
        let (address, start, end) = unsafe {
            let range = &(*self.vma).__bindgen_anon_1.__bindgen_anon_1;
            let address = (*self.vmf).__bindgen_anon_1.address as u64;
            (address, range.vm_start as u64, range.vm_end as u64)
        };
        let first = address & !(HUGE - 1);
        let aligned = (address / PAGE) % (HUGE / PAGE) == self.page() % (HUGE / PAGE);
        aligned && first >= start && first + HUGE <= end
    }

    /// Whether nothing is mapped in the 2 MiB around the address.
    pub fn is_unmapped_huge(&self) -> bool {
        // SAFETY: the fault is under way.
        unsafe { bindings::rdax_pmd_is_none(self.vmf) }
    }

    /// Whether the 2 MiB around the address are mapped in one piece.
    pub fn is_mapped_huge(&self) -> bool {
        // SAFETY: the fault is under way.
        unsafe { bindings::rdax_pmd_is_huge(self.vmf) }
    }

    /// Uses the page table that the memory manager has ready, if one is missing: so that nothing is
    /// allocated when a page is inserted.
    pub fn install_page_table(&self) {
        // SAFETY: the fault is under way, and the mapping locked.
        unsafe { bindings::rdax_install_page_table(self.vmf) };
    }

    /// Takes out what userfaultfd has left at the faulting address to remember that it
    /// write-protects a page that is not mapped. The page counts as stored to, for who asks
    /// userfaultfd.
    pub fn clear_marker(&self) {
        // SAFETY: the fault is under way, and the mapping locked: its page table stays.
        unsafe { bindings::rdax_clear_pte_marker(self.vmf) };
    }

    /// Maps the huge folio of `page` around the faulting address; writable if `write`. What is
    /// mapped there already has to be the same folio.
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

    /// Maps `page` at the faulting address; writable if `write`. What is mapped there already has
    /// to be the same page.
    pub fn insert_page(&self, page: Page, write: bool) -> FaultResult {
        // SAFETY: the fault is under way. The page needs a reference to be inserted; idle pages
        // have none.
        unsafe {
            bindings::rdax_page_get(page.as_raw());
            let result = bindings::vmf_insert_page_mkwrite(self.vmf, page.as_raw(), write);
            bindings::rdax_page_put(page.as_raw());
            result
        }
    }

    /// Maps the zero page at the faulting address, read-only.
    pub fn insert_zero(&self) -> FaultResult {
        // SAFETY: the fault is under way; the zero page needs no reference.
        unsafe { bindings::vmf_insert_page_mkwrite(self.vmf, bindings::rdax_zero_page(), false) }
    }
}

/// The operations of mappings of files: for `vm_area_desc.vm_ops`.
pub fn vm_operations() -> *const vm_operations_struct {
    &VM_OPERATIONS.0
}

/// The operations of the page tree of files: for `address_space.a_ops`.
pub fn address_space_operations() -> *const address_space_operations {
    &ADDRESS_SPACE_OPERATIONS.0
}

/// A table of operations, which is only read.
struct Table<T>(T);

// SAFETY: the tables are never written.
unsafe impl<T> Sync for Table<T> {}

static VM_OPERATIONS: Table<vm_operations_struct> = Table(vm_operations_struct {
    fault: Some(vm_fault),
    huge_fault: Some(vm_huge_fault),
    map_pages: Some(vm_map_pages),
    pfn_mkwrite: Some(vm_pfn_mkwrite),
    ..pin_init::zeroed()
});

static ADDRESS_SPACE_OPERATIONS: Table<address_space_operations> =
    Table(address_space_operations {
        dirty_folio: Some(aops_dirty_folio),
        bmap: Some(aops_bmap),
        ..pin_init::zeroed()
    });

/// `vm_operations_struct.fault`: nothing is mapped at the address.
///
/// # Safety
///
/// Called by the memory manager, with a fault in a mapping of an rdax file.
unsafe extern "C" fn vm_fault(vmf: *mut vm_fault) -> vm_fault_t {
    // SAFETY: called by the memory manager.
    let vmf = unsafe { Fault::from_raw(vmf) };
    if vmf.is_shared_write() {
        vmf.info().sb().counters.write_faults.add(1);
        fault::write(&vmf)
    } else {
        vmf.info().sb().counters.read_faults.add(1);
        fault::read(&vmf)
    }
}

/// `vm_operations_struct.huge_fault`: nothing is mapped in a piece of 2 MiB, or more, around the
/// address; or it is mapped read-only in one piece, and stored to. Where this says
/// `VM_FAULT_FALLBACK`, it is mapped by pages.
///
/// # Safety
///
/// Called by the memory manager, with a fault in a mapping of an rdax file.
unsafe extern "C" fn vm_huge_fault(vmf: *mut vm_fault, order: core::ffi::c_uint) -> vm_fault_t {
    if order != bindings::RDAX_PMD_ORDER {
        return VM_FAULT_FALLBACK;
    }
    // SAFETY: called by the memory manager.
    fault::huge(&unsafe { Fault::from_raw(vmf) })
}

/// `vm_operations_struct.pfn_mkwrite`: a store to a shared mapping of a page, or of the zero page,
/// that is mapped read-only.
///
/// # Safety
///
/// Called by the memory manager, with a fault in a mapping of an rdax file.
unsafe extern "C" fn vm_pfn_mkwrite(vmf: *mut vm_fault) -> vm_fault_t {
    // SAFETY: called by the memory manager.
    let vmf = unsafe { Fault::from_raw(vmf) };
    vmf.info().sb().counters.mkwrite_faults.add(1);
    fault::write(&vmf)
}

/// `vm_operations_struct.map_pages`.
///
/// # Safety
///
/// Called by the memory manager, with a fault in a mapping of an rdax file.
unsafe extern "C" fn vm_map_pages(_: *mut vm_fault, _start: usize, _end: usize) -> vm_fault_t {
    0
}

/// `address_space_operations.bmap`, for `FIBMAP`, which takes 0 for a hole. (swapon(2) is not
/// misled by it: it wants files that go through the page cache.)
///
/// # Safety
///
/// Called by the kernel, with the mapping of an rdax inode that is alive.
unsafe extern "C" fn aops_bmap(mapping: *mut address_space, index: u64) -> u64 {
    // SAFETY: by the caller.
    let info = unsafe { InodeInfo::from_vfs((*mapping).host) };
    io::block_of(info, index).ok().flatten().unwrap_or(0)
}

/// `address_space_operations.dirty_folio`: a dirty entry was zapped, or a pin wrote to the page.
/// Does not sleep: the page table lock may be held.
///
/// # Safety
///
/// Called by the kernel, with the mapping of an rdax inode that is alive, and a folio of it.
unsafe extern "C" fn aops_dirty_folio(mapping: *mut address_space, folio: *mut folio) -> bool {
    // SAFETY: the memory manager keeps the mapping, and so the inode, alive during the call.
    let info = unsafe { InodeInfo::from_vfs((*mapping).host) };
    // SAFETY: the folio is mapped or pinned, so that it keeps belonging to the mapping.
    let index = unsafe {
        (*folio)
            .__bindgen_anon_1
            .__bindgen_anon_1
            .__bindgen_anon_2
            .index
    };
    // SAFETY: as above.
    let huge = unsafe { bindings::rdax_folio_is_huge(folio) };
    dax::dirty_page(info, index as u64, huge)
}
