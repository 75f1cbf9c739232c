// SPDX-License-Identifier: GPL-2.0

//! Taking pages from a file, before truncation and hole punching free the blocks under them. The
//! steps, and what they guarantee, are those of [`track::layout`](layout).

use kernel::prelude::*;

use crate::bindings;
use crate::mount::lock::InvalidateLock;
use crate::track::layout;

/// Takes the pages `first..=last` from the file: see [`layout::break_layout`]. The caller holds
/// `i_rwsem` exclusively, and `lock` proves that faults are kept out; faults are let in during the
/// wait for a pinned page. Fails with `ERESTARTSYS` if a signal arrives during the wait, and with
/// `EIO` if the device fails.
pub fn break_layout(lock: &mut InvalidateLock<'_>, first: u64, last: u64) -> Result {
    layout::break_layout(lock.info(), lock, first, last)
}

/// Waits until the private copies of holes are mapped that the memory manager was making when
/// faults were kept out, which `_faults_out` proves: so that a later unmapping of copies finds
/// them. The fault handler has returned by then, and holds no lock any more. (For a block, its page
/// is held until then, and [`break_layout`] waits for that.)
pub fn wait_for_copies(_faults_out: &InvalidateLock<'_>) {
    // SAFETY: this task has no page locked, and holds no spinning lock. Whoever has the zero page
    // locked waits for memory at most, and for none of the locks of this inode.
    unsafe { bindings::rdax_wait_for_zero_copies() };
}
