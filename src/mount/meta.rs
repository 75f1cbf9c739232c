// SPDX-License-Identifier: GPL-2.0

//! The lock around the volume's view of an inode.
//!
//! It protects a [`volume::Inode`](crate::volume::inode::Inode): what the volume works on instead
//! of the kernel's `struct inode`. It nests below the chunk locks of the dirty tracking and above
//! the journal. It is never held while user memory is copied, because that may fault on this very
//! file. Several are taken in the order of their addresses, so no two tasks wait for each other.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use kernel::prelude::*;
use kernel::static_lock_class;
use kernel::types::Opaque;

use super::inode::InodeInfo;
use super::known::Known;
use crate::bindings;
use crate::env::nofs;
use crate::volume::inode::{Inode, Knowledge};

/// A mutex around the volume's inode; blank until the inode was read or created, and after it was
/// freed. It stays as it is, blank, from one use of an inode's memory to the next.
pub struct MetaLock {
    mutex: Opaque<bindings::mutex>,
    inode: UnsafeCell<Inode>,
    /// Its place in the list of files with cached metadata. Guarded by the mutex.
    known: UnsafeCell<Option<NonNull<Known>>>,
}

/// The rank of the lock of an inode that is being created: beyond those of [`lock_all`].
const FRESH: u32 = 4;

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
            (&raw mut (*slot).inode).write(UnsafeCell::new(Inode::blank()));
            (&raw mut (*slot).known).write(UnsafeCell::new(None));
            bindings::__mutex_init(
                Opaque::cast_into(&raw const (*slot).mutex),
                c"rdax_meta".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
        }
    }

    /// Makes the inode blank. Nobody else has it, so this does not wait for the lock.
    pub fn reset(&mut self) {
        self.inode.get_mut().reset();
    }

    /// Removes and returns the cached metadata of the file, if nobody is using it. The caller then
    /// owns `place`, its place in the list. Does not sleep.
    pub fn try_forget(&self, place: NonNull<Known>) -> Option<Knowledge> {
        let mut guard = self.try_get()?;
        // SAFETY: the guard holds the mutex.
        let known = unsafe { &mut *self.known.get() };
        // Otherwise `leave_list` is removing it from the list.
        known.take_if(|known| *known == place)?;
        Some(guard.take_knowledge())
    }

    /// The inode is being evicted: removes it from the list. Nobody else has it, so this does not
    /// wait for the lock long.
    pub fn leave_list(&self) {
        let mut guard = self.lock(0);
        drop(guard.take_knowledge());
        // SAFETY: the guard holds the mutex.
        if let Some(known) = unsafe { (*self.known.get()).take() } {
            drop(guard);
            // SAFETY: taken from where alone it was known. (Not with the lock held: the shrinker
            // tries to get that with the lock of the list held.)
            unsafe { Known::remove(known) };
        }
    }

    /// Keeps a file in the list while it has cached metadata. The mutex is held.
    fn note_known(&self) {
        // SAFETY: the mutex is held.
        let (inode, known) = unsafe { (&*self.inode.get(), &mut *self.known.get()) };
        if !inode.has_knowledge() {
            return;
        }
        match *known {
            // SAFETY: it is in the list as long as it is here.
            Some(known) => unsafe { Known::touch(known) },
            // Reclaim must not evict inodes: that takes locks like this one.
            None => *known = nofs(|| Known::note(self)),
        }
    }

    /// Waits for the lock. `rank` counts the locks of this kind that the task holds already.
    fn lock(&self, rank: u32) -> MetaGuard<'_> {
        // SAFETY: initialised by `init_at`, the only way to make one; the guard unlocks.
        unsafe { bindings::rdax_mutex_lock_nested(self.mutex.get(), rank) };
        MetaGuard(self)
    }

    /// Takes the lock of an inode that nobody else knows yet. The task may wait for others with it
    /// held.
    pub fn get_fresh(&self) -> MetaGuard<'_> {
        self.lock(FRESH)
    }

    /// Takes the lock, alone, if it can be had without waiting.
    pub fn try_get(&self) -> Option<MetaGuard<'_>> {
        // SAFETY: initialised by `init_at`, the only way to make one; the guard unlocks.
        unsafe { bindings::rdax_mutex_trylock(self.mutex.get()) }.then(|| MetaGuard(self))
    }

    /// Waits for the lock, alone. The inode in it is not blank, since nobody else knows the inode
    /// before it is read or created.
    pub fn get(&self) -> MetaGuard<'_> {
        self.lock(0)
    }
}

/// Waits for the locks of several distinct inodes, in the same order in all tasks.
pub fn lock_all<'a, const N: usize>(
    infos: [Option<&'a InodeInfo>; N],
) -> [Option<MetaGuard<'a>>; N] {
    // Sorted by insertion: N is at most 4.
    let mut order: [usize; N] = core::array::from_fn(|i| i);
    for end in 1..N {
        let mut i = end;
        while i > 0 && address(infos[order[i]]) < address(infos[order[i - 1]]) {
            order.swap(i, i - 1);
            i -= 1;
        }
    }
    let mut guards = [const { None }; N];
    for (rank, i) in (0..).zip(order) {
        guards[i] = infos[i].map(|info| info.meta.lock(rank));
    }
    guards
}

/// The address of an inode, or null.
fn address(info: Option<&InodeInfo>) -> *const InodeInfo {
    info.map_or(core::ptr::null(), core::ptr::from_ref)
}

/// Waits for the locks of two distinct inodes.
pub fn lock_two<'a>(a: &'a InodeInfo, b: &'a InodeInfo) -> (MetaGuard<'a>, MetaGuard<'a>) {
    let [Some(a), Some(b)] = lock_all([Some(a), Some(b)]) else {
        unreachable!()
    };
    (a, b)
}

/// Access to the volume's view of an inode, until it is dropped.
pub struct MetaGuard<'a>(&'a MetaLock);

impl Deref for MetaGuard<'_> {
    type Target = Inode;

    fn deref(&self) -> &Inode {
        // SAFETY: the guard holds the mutex.
        unsafe { &*self.0.inode.get() }
    }
}

impl DerefMut for MetaGuard<'_> {
    fn deref_mut(&mut self) -> &mut Inode {
        // SAFETY: the guard holds the mutex, and is borrowed mutably.
        unsafe { &mut *self.0.inode.get() }
    }
}

impl Drop for MetaGuard<'_> {
    fn drop(&mut self) {
        self.0.note_known();
        // SAFETY: the guard was made by locking, by this task.
        unsafe { bindings::mutex_unlock(self.0.mutex.get()) };
    }
}
