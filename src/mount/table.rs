// SPDX-License-Identifier: GPL-2.0

//! Operation tables: functions that C calls.

use core::cell::UnsafeCell;

/// A table that C reads through a pointer, as a static.
#[repr(transparent)]
pub struct Table<T>(UnsafeCell<T>);

// SAFETY: operation tables are constant once they are made; the file system type, the only one
// that C writes to, is written under locks of the kernel's.
unsafe impl<T> Sync for Table<T> {}

impl<T> Table<T> {
    /// Wraps `table`.
    pub const fn new(table: T) -> Self {
        Table(UnsafeCell::new(table))
    }

    /// For C.
    pub const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }
}
