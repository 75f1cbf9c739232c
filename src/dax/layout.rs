// SPDX-License-Identifier: GPL-2.0

//! Taking pages from a file, before truncation and hole punching free the blocks under them. The
//! steps, and what they guarantee, are those of [`track::layout`](layout).

use kernel::prelude::*;

use crate::bindings;
use crate::mount::lock::InvalidateLock;
use crate::track::layout;

/// Takes the pages `first..=last` from the file: see [`layout::break_layout`]. The caller holds
/// `i_rwsem` exclusively, and `lock` proves that faults are kept out; while a pinned page is waited
/// for, they are let in. Fails with `ERESTARTSYS` if a signal comes while waiting, and with `EIO`
/// if the device does.
pub fn break_layout(lock: &mut InvalidateLock<'_>, first: u64, last: u64) -> Result {
    layout::break_layout(lock.info(), lock, first, last)
}

/// Waits until the private copies of holes are mapped that the memory manager was making when
/// faults were kept out, which `_faults_out` proves: so that whoever unmaps copies finds them. The
/// handler has returned by then, and holds no lock any more. (Of a block, its page is held until
/// then, which [`break_layout`] waits for.)
pub fn wait_for_copies(_faults_out: &InvalidateLock<'_>) {
    // SAFETY: no page is locked by this task, nor a spinning lock held. Who has the zero page locked
    // waits for memory at most, and for none of the locks of this inode.
    unsafe { bindings::rdax_wait_for_zero_copies() };
}
