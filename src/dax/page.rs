// SPDX-License-Identifier: GPL-2.0

//! The struct pages of the device, as far as a file system that maps them has to do with them.
//!
//! C headers: [`include/linux/memremap.h`](srctree/include/linux/memremap.h),
//! [`include/linux/page-flags.h`](srctree/include/linux/page-flags.h)
//!
//! A page of the device is idle with a reference count of 0. Each mapping and each pin (O_DIRECT,
//! vmsplice) holds a reference. While a file may have the page mapped, the page *belongs* to it:
//! its mapping and index lead to the inode, for zaps, pins and memory failures.

use kernel::bindings::{address_space, folio, page};
use kernel::error::to_result;
use kernel::prelude::*;

use crate::bindings;
use crate::pmem::DirectMap;

/// The page of a block.
///
/// # Invariants
///
/// Points to the struct page of a block of a device that is in use.
#[derive(Clone, Copy)]
pub struct Page(*mut page);

impl Page {
    /// The page of `block`.
    pub fn of_block(pmem: &DirectMap, block: u64) -> Self {
        // SAFETY: computes an address. INVARIANT: the device has struct pages, or it would have no
        // DAX.
        Page(unsafe { bindings::rdax_pfn_to_page(pmem.pfn(block) as usize) })
    }

    /// The C object.
    pub fn as_raw(self) -> *mut page {
        self.0
    }

    fn folio(self) -> *mut folio {
        // A page of order 0 is a folio.
        self.0.cast()
    }

    /// Whether the media under it is known to be bad.
    pub fn is_poisoned(self) -> bool {
        // SAFETY: by the invariant.
        unsafe { bindings::rdax_page_poisoned(self.0) }
    }

    /// Notes that the media under it is bad.
    pub fn set_poisoned(self) {
        // SAFETY: by the invariant.
        unsafe { bindings::rdax_page_set_poisoned(self.0) }
    }

    /// How many mappings and pins there are.
    pub fn ref_count(self) -> i32 {
        // SAFETY: by the invariant.
        unsafe { bindings::rdax_page_ref_count(self.0) }
    }

    /// Whether nobody maps or pins it.
    pub fn is_idle(self) -> bool {
        self.ref_count() == 0
    }

    /// Waits until it is idle; if `interruptible`, fails with `ERESTARTSYS` when a signal comes.
    pub fn wait_idle(self, interruptible: bool) -> Result {
        // SAFETY: by the invariant; the last reference wakes the waiters.
        to_result(unsafe { bindings::rdax_page_wait_idle(self.0, interruptible) })
    }

    /// Which file it belongs to, and where in it. The answer is stable under the chunk lock of that
    /// page of the file, or while a mapping or a pin is known to exist.
    pub fn owner(self) -> Option<(*mut address_space, u64)> {
        // SAFETY: by the invariant; the fields are words that are read as they are.
        let (mapping, index) = unsafe {
            let fields = &raw const (*self.folio()).__bindgen_anon_1.__bindgen_anon_1;
            (
                (&raw const (*fields).mapping).read_volatile(),
                (&raw const (*fields).__bindgen_anon_2.index).read_volatile(),
            )
        };
        (!mapping.is_null()).then_some((mapping, index as u64))
    }

    /// Gives the page, which belongs to nobody, to page `index` of the file of `mapping`. Returns
    /// whether it was dirtied meanwhile, by a pin that outlived its last owner. Called under the
    /// chunk lock of that page of the file.
    pub fn associate(self, mapping: *mut address_space, index: u64) -> bool {
        // SAFETY: by the invariant. The page belongs to nobody, so nobody but the file system,
        // which has the chunk locked, changes these fields. The index is set before the mapping
        // makes it meaningful.
        unsafe {
            let dirty = bindings::rdax_page_test_clear_dirty(self.0);
            let fields = &raw mut (*self.folio()).__bindgen_anon_1.__bindgen_anon_1;
            (&raw mut (*fields).__bindgen_anon_2.index).write_volatile(index as usize);
            (&raw mut (*fields).mapping).write_volatile(mapping);
            dirty
        }
    }

    /// Takes the page, which is mapped nowhere, from its file. One that is pinned is locked
    /// meanwhile: who dirties a page by a pin looks at its mapping under the page lock.
    pub fn dissociate(self) {
        let pinned = !self.is_idle();
        // SAFETY: by the invariant; locked and unlocked by this task.
        unsafe {
            if pinned {
                bindings::rdax_page_lock(self.0);
            }
            bindings::dax_folio_reset_order(self.folio());
            if pinned {
                bindings::rdax_page_unlock(self.0);
            }
        }
    }
}
