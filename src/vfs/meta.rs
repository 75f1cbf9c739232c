// SPDX-License-Identifier: GPL-2.0

//! The lock around the volume's view of an inode.
//!
//! It protects a [`volume::Inode`](crate::volume::inode::Inode): what the volume works on in place
//! of the kernel's `struct inode`. It nests below the chunk locks of the dirty tracking and above
//! the journal; it is never held while user memory is copied, for that may fault on this very
//! file. Several are taken in the order of their addresses, so no two tasks wait for each other.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

use kernel::prelude::*;
use kernel::static_lock_class;
use kernel::types::Opaque;

use super::inode::InodeInfo;
use crate::bindings;
use crate::volume::inode::Inode;

/// A mutex around the volume's inode; empty until the inode was read, and after it was freed.
pub struct MetaLock {
    mutex: Opaque<bindings::mutex>,
    inode: UnsafeCell<Option<Inode>>,
}

// SAFETY: `inode` is only reached through a guard, that is with the mutex held, or by `get_mut`.
unsafe impl Send for MetaLock {}
// SAFETY: as above.
unsafe impl Sync for MetaLock {}

impl MetaLock {
    /// Makes an empty one in place.
    ///
    /// # Safety
    ///
    /// `slot` is valid for writes and does not move until the lock is dropped.
    pub unsafe fn init_at(slot: *mut MetaLock) {
        // SAFETY: by the caller, `slot` is valid for writes; the class is static.
        unsafe {
            (&raw mut (*slot).inode).write(UnsafeCell::new(None));
            bindings::__mutex_init(
                Opaque::cast_into(&raw const (*slot).mutex),
                c"rdax_meta".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
        }
    }

    /// Waits for the lock. `rank` counts the locks of this kind that the task holds already.
    fn lock(&self, rank: u32) -> MetaGuard<'_> {
        // SAFETY: initialised by `init_at`, the only way to make one; the guard unlocks.
        unsafe { bindings::rdax_mutex_lock_nested(self.mutex.get(), rank) };
        MetaGuard(self)
    }

    /// Waits for the lock of an inode that was read, alone.
    pub fn get(&self) -> MetaGuard<'_> {
        self.lock(0)
    }

    /// Fills in what was read from the volume, or made there.
    pub fn set(&self, inode: Inode) {
        let guard = self.lock(0);
        // SAFETY: the guard holds the mutex.
        unsafe { *guard.0.inode.get() = Some(inode) };
    }

    /// Takes the volume's inode away, before it is freed. `None` if it was never read.
    pub fn take(&self) -> Option<Inode> {
        let guard = self.lock(0);
        // SAFETY: the guard holds the mutex.
        unsafe { (*guard.0.inode.get()).take() }
    }
}

/// Waits for the locks of several distinct inodes, in the order that all tasks keep.
pub fn lock_all<'a, const N: usize>(
    infos: [Option<&'a InodeInfo>; N],
) -> [Option<MetaGuard<'a>>; N] {
    let mut guards = [const { None }; N];
    for rank in 0..N {
        // The lowest address of those not yet locked. N is at most 4.
        let next = (0..N)
            .filter(|&i| infos[i].is_some() && guards[i].is_none())
            .min_by_key(|&i| infos[i].map(core::ptr::from_ref));
        let Some(next) = next else { break };
        // CAST: a rank is less than 4.
        guards[next] = infos[next].map(|info| info.meta.lock(rank as u32));
    }
    guards
}

/// Waits for the locks of two distinct inodes.
pub fn lock_two<'a>(a: &'a InodeInfo, b: &'a InodeInfo) -> (MetaGuard<'a>, MetaGuard<'a>) {
    let [Some(a), Some(b)] = lock_all([Some(a), Some(b)]) else {
        unreachable!()
    };
    (a, b)
}

/// The right to use the volume's view of an inode, until it is dropped.
pub struct MetaGuard<'a>(&'a MetaLock);

impl Deref for MetaGuard<'_> {
    type Target = Inode;

    fn deref(&self) -> &Inode {
        // SAFETY: the guard holds the mutex.
        match unsafe { &*self.0.inode.get() } {
            Some(inode) => inode,
            // An inode is filled before anyone else sees it, and emptied after everyone is gone.
            None => unreachable!(),
        }
    }
}

impl DerefMut for MetaGuard<'_> {
    fn deref_mut(&mut self) -> &mut Inode {
        // SAFETY: the guard holds the mutex, and is borrowed mutably.
        match unsafe { &mut *self.0.inode.get() } {
            Some(inode) => inode,
            None => unreachable!(),
        }
    }
}

impl Drop for MetaGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: the guard was made by locking, by this task.
        unsafe { bindings::mutex_unlock(self.0.mutex.get()) };
    }
}
