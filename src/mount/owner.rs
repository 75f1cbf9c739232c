// SPDX-License-Identifier: GPL-2.0

//! Which inodes own pages of the device: removal of the device waits until none does.

use kernel::sync::atomic::{Atomic, Full, Relaxed};

use super::inode::InodeInfo;

/// Whether pages may belong to an inode.
pub struct Ownership(Atomic<i32>);

impl Ownership {
    /// None does.
    pub const fn new() -> Self {
        Ownership(Atomic::new(0))
    }

    /// Whether one may.
    pub fn is_held(&self) -> bool {
        self.0.load(Relaxed) != 0
    }
}

/// Pages may belong to the inode from now on. The caller has found the file system alive, and has
/// kept removal of the device from the inode since then: by the invalidate lock, or that of the
/// pins.
pub fn own(info: &InodeInfo) {
    let Ownership(held) = &info.tracker.ownership;
    if held.load(Relaxed) == 0 && held.cmpxchg(0, 1, Full).is_ok() {
        info.sb().volume.pmem().add_owner();
    }
}

/// No page belongs to the inode any more, and none will.
pub fn disown(info: &InodeInfo) {
    if info.tracker.ownership.0.xchg(0, Full) != 0 {
        info.sb().volume.pmem().remove_owner();
    }
}
