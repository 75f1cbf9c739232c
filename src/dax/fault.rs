// SPDX-License-Identifier: GPL-2.0

//! Page faults, from the memory manager's point of view: its requests and the results. The steps
//! between are those of [`track::fault`].
//!
//! A full device causes SIGBUS at the first store and not an error later.
//!
//! Locks, outermost first: the mapping's (the memory manager holds it); freeze protection; the
//! invalidate lock, shared, against truncation; the chunk lock.
//!
//! No fault is repeated for ever. The memory manager handles an entry that is neither a page nor
//! empty: it waits (migration, device-exclusive), or ends the access (poison, guard). But at a
//! marker of userfaultfd it calls the file system, and nothing can be inserted there until [the
//! marker is gone](Fault::clear_marker). And a store to a page that finds 2 MiB mapped in one piece
//! makes loads [give way](crate::track::chunk::State::make_way).

use core::ops::Range;

use kernel::bindings::{
    vm_fault_reason_VM_FAULT_FALLBACK as VM_FAULT_FALLBACK,
    vm_fault_reason_VM_FAULT_HWPOISON as VM_FAULT_HWPOISON,
    vm_fault_reason_VM_FAULT_NOPAGE as VM_FAULT_NOPAGE,
    vm_fault_reason_VM_FAULT_OOM as VM_FAULT_OOM,
    vm_fault_reason_VM_FAULT_SIGBUS as VM_FAULT_SIGBUS,
};
use kernel::prelude::*;

use super::vm_fault::{Fault, FaultResult};
use crate::mount::inode::InodeInfo;
use crate::track;
use crate::track::fault::Outcome;

/// A store to a shared mapping.
pub fn write(fault: &Fault<'_>) -> FaultResult {
    track::fault::write(fault).map_or_else(code, result)
}

/// A load, or a store to a private mapping.
pub fn read(fault: &Fault<'_>) -> FaultResult {
    track::fault::read(fault).map_or_else(code, result)
}

/// An access to 2 MiB that are not mapped, or a store to 2 MiB that are mapped read-only in one
/// piece: maps them in one piece if possible.
pub fn huge(fault: &Fault<'_>) -> FaultResult {
    let write = fault.is_shared_write();
    // The private copy is of one page.
    let is_copied = fault.is_write() && !write;
    // Each sync writes back all that stays writable.
    let stays_writable = fault.is_locked() && fault.is_unmapped_huge();
    // If a page table appears meanwhile, 2 MiB cannot be inserted writable: the memory manager
    // would warn. (A load is told to try again.)
    let may_appear = write && fault.is_watched();
    if !fault.fits_huge() || is_copied || stays_writable || may_appear {
        return VM_FAULT_FALLBACK;
    }
    let outcome = match write {
        true => track::fault::write_huge(fault),
        false => track::fault::read_huge(fault),
    };
    // An error also happens to the fault of the page, which reports it.
    let mapped = outcome.map_or(VM_FAULT_FALLBACK, result);
    if mapped & VM_FAULT_FALLBACK == 0 {
        fault.info().sb().counters.huge_faults.add(1);
    }
    mapped
}

/// The result for the memory manager.
fn result(outcome: Outcome<FaultResult>) -> FaultResult {
    match outcome {
        Outcome::Inserted(result) => result,
        Outcome::Again => VM_FAULT_NOPAGE,
        Outcome::ByPages => VM_FAULT_FALLBACK,
        Outcome::PastEnd => VM_FAULT_SIGBUS,
        Outcome::Poisoned => VM_FAULT_HWPOISON,
    }
}

/// The result for the memory manager in case of an error.
pub fn code(error: Error) -> FaultResult {
    if error == ENOMEM {
        VM_FAULT_OOM
    } else {
        VM_FAULT_SIGBUS
    }
}

impl track::machine::Fault for Fault<'_> {
    type File = InodeInfo;
    type Inserted = FaultResult;

    #[inline]
    fn file(&self) -> &InodeInfo {
        self.info()
    }

    #[inline]
    fn page(&self) -> u64 {
        self.page()
    }

    #[inline]
    fn is_write(&self) -> bool {
        self.is_write()
    }

    #[inline]
    fn update_time(&self) -> Result {
        self.update_time()
    }

    #[inline]
    fn is_mapped_huge(&self) -> bool {
        self.is_mapped_huge()
    }

    #[inline]
    fn is_unmapped_huge(&self) -> bool {
        self.is_unmapped_huge()
    }

    #[inline]
    fn prepare(&self) {
        // Also for a copy, which is mapped after the chunk lock is released: otherwise a load could
        // map 2 MiB in one piece before that.
        self.install_page_table();
        // The memory manager handles the markers of these.
        if !self.is_copied() {
            self.clear_marker();
        }
    }

    #[inline]
    fn insert(&self, block: u64, write: bool) -> FaultResult {
        self.insert_page(self.info().page_of(block), write)
    }

    #[inline]
    fn ahead(&self, row: usize) -> usize {
        match track::fault::ahead(row) {
            0 => 0,
            // Each sync writes back every page of a locked mapping that was ever dirty; and
            // userfaultfd must see each page.
            _ if self.is_locked() || self.is_watched() => 0,
            nr => nr,
        }
    }

    fn neighbours(&self) -> Range<u64> {
        self.neighbours()
    }

    fn insert_writable(&self, page: u64, block: u64, len: usize) {
        self.insert_writable(page, self.info().page_of(block), len);
    }

    #[inline]
    fn insert_zero(&self) -> FaultResult {
        self.insert_zero()
    }

    fn insert_huge(&self, block: u64, write: bool) -> FaultResult {
        self.insert_folio(self.info().page_of(block), write)
    }

    fn insert_huge_zero(&self) -> Option<FaultResult> {
        let zeros = self.info().sb().huge_zero.get()?;
        Some(self.insert_zeros(zeros))
    }
}
