// SPDX-License-Identifier: GPL-2.0

//! The operation tables of mapped files: page faults, and notifications of the memory manager about
//! pages.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)
//!
//! `->pfn_mkwrite` is called for every first store to a page that was mapped for reading. There is
//! no `->page_mkwrite`: it is never called for pages of a DAX device. `->map_pages` maps nothing,
//! but has to exist: without it the memory manager takes every fault under the lock of the whole
//! address space instead of that of the mapping.

use kernel::bindings::{
    address_space, address_space_operations, folio, vm_area_struct, vm_fault,
    vm_fault_reason_VM_FAULT_FALLBACK as VM_FAULT_FALLBACK, vm_fault_t, vm_operations_struct,
};

use super::io;
use crate::bindings;
use crate::dax::vm_fault::Fault;
use crate::dax::{self, fault};
use crate::mount::inode::InodeInfo;
use crate::mount::table::Table;

/// The operations of mappings of files: for `vm_area_desc.vm_ops`. Mappings that are `locked` in
/// memory have an `->open`: the memory manager does not record this for DAX files.
pub fn vm_operations(locked: bool) -> *const vm_operations_struct {
    match locked {
        true => LOCKED_OPERATIONS.as_ptr(),
        false => VM_OPERATIONS.as_ptr(),
    }
}

/// The operations of the page tree of files: for `address_space.a_ops`.
pub fn address_space_operations() -> *const address_space_operations {
    ADDRESS_SPACE_OPERATIONS.as_ptr()
}

static VM_OPERATIONS: Table<vm_operations_struct> = Table::new(operations(None));

static LOCKED_OPERATIONS: Table<vm_operations_struct> = Table::new(operations(Some(vm_open)));

const fn operations(
    open: Option<unsafe extern "C" fn(*mut vm_area_struct)>,
) -> vm_operations_struct {
    vm_operations_struct {
        open,
        fault: Some(vm_fault),
        huge_fault: Some(vm_huge_fault),
        map_pages: Some(vm_map_pages),
        pfn_mkwrite: Some(vm_pfn_mkwrite),
        ..pin_init::zeroed()
    }
}

static ADDRESS_SPACE_OPERATIONS: Table<address_space_operations> =
    Table::new(address_space_operations {
        dirty_folio: Some(aops_dirty_folio),
        bmap: Some(aops_bmap),
        ..pin_init::zeroed()
    });

/// `vm_operations_struct.open`, of a locked mapping: a part of it, or a copy.
///
/// # Safety
///
/// Called by the memory manager, with a mapping of an rdax file that is not in use yet.
unsafe extern "C" fn vm_open(vma: *mut vm_area_struct) {
    // SAFETY: the mapping is new; the operations are static.
    unsafe { bindings::rdax_vma_is_copied(vma, VM_OPERATIONS.as_ptr()) };
}

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
/// address; or it is mapped read-only in one piece, and stored to. If this returns
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

/// `address_space_operations.bmap`, for `FIBMAP`, which uses 0 for a hole. (This does not mislead
/// swapon(2), which requires files that go through the page cache.)
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
