// SPDX-License-Identifier: GPL-2.0

//! The struct pages of the device, as a file system that maps them uses them.
//!
//! C headers: [`include/linux/memremap.h`](srctree/include/linux/memremap.h),
//! [`include/linux/page-flags.h`](srctree/include/linux/page-flags.h)
//!
//! A page of the device is idle with a reference count of 0. Each mapping and each pin (O_DIRECT,
//! vmsplice) holds a reference. While a file may have the page mapped, the page *belongs* to it:
//! its mapping and index lead to the inode, for zaps, pins and memory failures.
//!
//! 512 pages may be one *huge* folio, to be mapped by one entry of 2 MiB. They belong to a file
//! together, and have one common reference count.

use kernel::bindings::{
    address_space, folio, page, pageflags_PG_dirty as PG_DIRTY,
    pageflags_PG_hwpoison as PG_HWPOISON,
};
use kernel::error::to_result;
use kernel::prelude::*;

use crate::bindings;
use crate::pmem::DirectMap;
use crate::track::machine::Examined;
use crate::track::page_set::PAGES;

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

    /// The folio that it is, or is part of.
    fn folio(self) -> *mut folio {
        // SAFETY: by the invariant.
        unsafe { bindings::rdax_page_folio(self.0) }
    }

    /// Whether it is part of a huge folio. The answer is stable as for [`Page::owner`].
    pub fn is_huge(self) -> bool {
        // SAFETY: by the invariant.
        unsafe { bindings::rdax_folio_is_huge(self.folio()) }
    }

    /// Whether nobody maps or pins it, nor any other page of its folio.
    pub fn is_idle(self) -> bool {
        // SAFETY: by the invariant.
        unsafe { bindings::rdax_folio_ref_count(self.folio()) == 0 }
    }

    /// Whether somebody refers to it, or another page of its folio, other than by page tables: by a
    /// pin; or because an entry was removed from a page table, and a CPU may still have it in its
    /// TLB. Called under the chunk lock: no entry is made meanwhile.
    pub fn is_held(self) -> bool {
        // SAFETY: by the invariant.
        unsafe { bindings::rdax_folio_is_held(self.folio()) }
    }

    /// Waits until it is idle. If `interruptible`, fails with `ERESTARTSYS` when a signal arrives,
    /// and returns after a moment in any case: it may have been mapped again, and the caller has to
    /// unmap it anew.
    pub fn wait_idle(self, interruptible: bool) -> Result {
        // SAFETY: by the invariant; the last reference wakes the waiters.
        to_result(unsafe { bindings::rdax_folio_wait_idle(self.folio(), interruptible) })
    }

    /// The file that it belongs to, and its index there. The answer is stable under the chunk lock
    /// of that page of the file, or while a mapping or a pin is known to exist.
    pub fn owner(self) -> Option<(*mut address_space, u64)> {
        let folio = self.folio();
        // SAFETY: by the invariant; the fields are words that are read as they are. Both pointers
        // are into the same array of struct pages.
        let (mapping, index, nth) = unsafe {
            let fields = &raw const (*folio).__bindgen_anon_1.__bindgen_anon_1;
            (
                (&raw const (*fields).mapping).read_volatile(),
                (&raw const (*fields).__bindgen_anon_2.index).read_volatile(),
                self.0.offset_from(folio.cast()) as usize,
            )
        };
        (!mapping.is_null()).then_some((mapping, (index + nth) as u64))
    }

    /// Gives the page, which belongs to nobody and to no huge folio, to page `index` of the file of
    /// `mapping`. Returns whether it was dirtied meanwhile, by a pin that outlived its last owner.
    /// Called under the chunk lock of that page of the file.
    pub fn associate(self, mapping: *mut address_space, index: u64) -> bool {
        // SAFETY: by the invariant; the page is its own folio.
        unsafe {
            let dirty = bindings::rdax_page_test_clear_dirty(self.0);
            set_owner(self.0.cast(), mapping, index);
            dirty
        }
    }

    /// Examines this and the 511 pages after it, which may belong to `mapping` or to nobody.
    pub fn examine(self, mapping: *mut address_space) -> Examined {
        let mut examined = Examined {
            free: true,
            dirty: false,
        };
        for i in 0..PAGES {
            // SAFETY: by the invariant, and the pages of the device are one array; the fields are
            // words that are read as they are.
            let (flags, count, owner) = unsafe {
                let fields = &raw const (*self.0.add(i).cast::<folio>())
                    .__bindgen_anon_1
                    .__bindgen_anon_1;
                (
                    (&raw const (*fields).flags.f).read_volatile(),
                    (&raw const (*fields)._refcount.counter).read_volatile(),
                    (&raw const (*fields).mapping).read_volatile(),
                )
            };
            examined.free &= flags & (1 << PG_HWPOISON) == 0
                && count == 0
                && (owner.is_null() || owner == mapping);
            examined.dirty |= flags & (1 << PG_DIRTY) != 0;
        }
        examined
    }

    /// Makes this and the 511 pages after it one huge folio and gives it to the pages of the file
    /// of `mapping` from `index` on. [`Page::examine`] found them free, under the chunk lock of
    /// those pages, and that is held.
    pub fn make_huge(self, mapping: *mut address_space, index: u64) {
        // SAFETY: by the invariant. Nobody refers to the pages, and nobody can while the chunk is
        // locked.
        unsafe {
            bindings::rdax_make_huge(self.0);
            set_owner(self.folio(), mapping, index);
        }
    }

    /// Gives the huge folio, which lost its owner while it was pinned, to `mapping` again. The
    /// caller treats it as stored to, whatever [`Page::associate`] would return.
    pub fn adopt_huge(self, mapping: *mut address_space, index: u64) {
        self.clear_dirty();
        // SAFETY: by the invariant. Nobody but the file system changes the owner.
        unsafe { set_owner(self.folio(), mapping, index) }
    }

    /// Takes the page, which is mapped nowhere, from its file; for a huge folio, all pages. If it
    /// is idle, it is an ordinary page afterwards. Returns whether it was idle: if not, it has to
    /// be [reset](Page::reset) once it is.
    ///
    /// A pinned page is locked meanwhile: the end of a pin that dirties the page looks at its
    /// mapping under the page lock.
    pub fn dissociate(self) -> bool {
        if self.is_idle() {
            self.reset();
            return true;
        }
        // SAFETY: by the invariant; locked and unlocked by this task.
        unsafe {
            let folio = self.folio();
            bindings::rdax_folio_lock(folio);
            let fields = &raw mut (*folio).__bindgen_anon_1.__bindgen_anon_1;
            (&raw mut (*fields).mapping).write_volatile(core::ptr::null_mut());
            bindings::rdax_folio_unlock(folio);
        }
        false
    }

    /// Clears the flag that it was dirtied, by a pin while it belonged to nobody, or by KVM.
    pub fn clear_dirty(self) {
        // SAFETY: by the invariant.
        unsafe { bindings::rdax_page_test_clear_dirty(self.folio().cast()) };
    }

    /// Makes the page, which is idle, an ordinary one that belongs to nobody; for a huge folio, all
    /// pages.
    pub fn reset(self) {
        // SAFETY: by the invariant. It is idle, so no mapping or pin needs the folio as it is.
        unsafe { bindings::dax_folio_reset_order(self.folio()) };
    }
}

/// Sets the owner. The index is set before the mapping makes it meaningful.
///
/// # Safety
///
/// `folio` is one of the device, and nobody else changes these fields.
unsafe fn set_owner(folio: *mut folio, mapping: *mut address_space, index: u64) {
    // SAFETY: by the caller's promise.
    unsafe {
        let fields = &raw mut (*folio).__bindgen_anon_1.__bindgen_anon_1;
        (&raw mut (*fields).__bindgen_anon_2.index).write_volatile(index as usize);
        (&raw mut (*fields).mapping).write_volatile(mapping);
    }
}
