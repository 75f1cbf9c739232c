// SPDX-License-Identifier: GPL-2.0

//! 2 MiB of zeros in memory, mapped read-only and in one piece where 2 MiB of a file are a hole or
//! unwritten.
//!
//! The kernel has such a folio, but not for modules. This one is allocated on first use, and freed
//! after unmount, when nobody uses it any more.

use core::ptr::NonNull;

use kernel::bindings::folio;
use kernel::sync::SetOnce;

use crate::bindings;

/// The most entries that may map the zeros of a mount at a time, half a TiB of holes; beyond that,
/// zeros are mapped by pages. Each takes a reference to the same folio, and the memory manager does
/// not check that count for overflow: anyone could cause one, with a sparse file.
const USERS_MAX: i32 = 1 << 18;

/// The zeros of a mount.
pub struct HugeZero(SetOnce<Zeros>);

impl HugeZero {
    /// Not allocated yet.
    pub const fn new() -> Self {
        HugeZero(SetOnce::new())
    }

    /// The folio; `None` if there is no memory for it at once, or if it is mapped too often. Does
    /// not sleep.
    pub fn get(&self) -> Option<&Zeros> {
        if self.0.as_ref().is_none() {
            // Another thread may have been faster: then this one is freed.
            self.0.populate(Zeros::new()?);
        }
        self.0.as_ref().filter(|zeros| zeros.users() < USERS_MAX)
    }
}

/// A folio of 2 MiB that nobody stores to, and a reference to it.
pub struct Zeros(NonNull<folio>);

// SAFETY: nothing in it changes but its reference count, which is atomic.
unsafe impl Send for Zeros {}
// SAFETY: as above.
unsafe impl Sync for Zeros {}

impl Zeros {
    fn new() -> Option<Self> {
        // SAFETY: allocates without sleeping; returns a folio with a reference for the caller, or
        // null.
        NonNull::new(unsafe { bindings::rdax_alloc_huge_zero() }).map(Zeros)
    }

    /// How many references there are: the one of this object, and those of entries and pins.
    fn users(&self) -> i32 {
        // SAFETY: the folio has a reference.
        unsafe { bindings::rdax_folio_ref_count(self.as_raw()) }
    }

    /// The folio.
    pub fn as_raw(&self) -> *mut folio {
        self.0.as_ptr()
    }
}

impl Drop for Zeros {
    fn drop(&mut self) {
        // SAFETY: the reference is this one's. Mappings and pins of the folio have others.
        unsafe { bindings::rdax_folio_put(self.as_raw()) };
    }
}
