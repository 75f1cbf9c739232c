// SPDX-License-Identifier: GPL-2.0

//! The locks of an inode that the VFS knows, as guards.
//!
//! `i_rwsem` orders reads, writes and changes of the layout; the invalidate lock (of the mapping)
//! keeps page faults out while blocks are freed. `Documentation/locking.rst` has the whole order.

use core::ops::Deref;

use super::inode::InodeInfo;
use super::super_block::SbInfo;
use crate::bindings;

/// Proof that the current task holds the `i_rwsem` of an inode exclusively.
#[derive(Clone, Copy)]
pub struct Exclusive<'a>(&'a InodeInfo);

impl<'a> Exclusive<'a> {
    /// Records that the VFS called with the lock held.
    ///
    /// # Safety
    ///
    /// The caller holds the `i_rwsem` of `info` exclusively for all of `'a`.
    pub unsafe fn held(info: &'a InodeInfo) -> Self {
        Exclusive(info)
    }

    /// The inode, for as long as the lock is held.
    pub fn info(self) -> &'a InodeInfo {
        self.0
    }
}

impl Deref for Exclusive<'_> {
    type Target = InodeInfo;

    fn deref(&self) -> &InodeInfo {
        self.0
    }
}

/// Holds the `i_rwsem` of an inode exclusively.
pub struct InodeLock<'a>(&'a InodeInfo);

impl<'a> InodeLock<'a> {
    /// Waits for the lock.
    pub fn new(info: &'a InodeInfo) -> Self {
        // SAFETY: the inode is alive; the guard releases what is taken here.
        unsafe { bindings::rdax_inode_lock(info.as_vfs()) };
        InodeLock(info)
    }

    /// Takes the lock if it can be had without waiting.
    pub fn try_new(info: &'a InodeInfo) -> Option<Self> {
        // SAFETY: as in `new`.
        unsafe { bindings::rdax_inode_trylock(info.as_vfs()) }.then(|| InodeLock(info))
    }

    /// The proof, while the guard lives.
    pub fn exclusive(&self) -> Exclusive<'_> {
        Exclusive(self.0)
    }
}

impl Drop for InodeLock<'_> {
    fn drop(&mut self) {
        // SAFETY: taken in `new` by this task; kernel tasks do not pass guards on.
        unsafe { bindings::rdax_inode_unlock(self.0.as_vfs()) };
    }
}

/// Holds the `i_rwsem` of an inode shared.
pub struct SharedInodeLock<'a>(&'a InodeInfo);

impl<'a> SharedInodeLock<'a> {
    /// Waits for the lock.
    pub fn new(info: &'a InodeInfo) -> Self {
        // SAFETY: the inode is alive; the guard releases what is taken here.
        unsafe { bindings::rdax_inode_lock_shared(info.as_vfs()) };
        SharedInodeLock(info)
    }

    /// Takes the lock if it can be had without waiting.
    pub fn try_new(info: &'a InodeInfo) -> Option<Self> {
        // SAFETY: as in `new`.
        unsafe { bindings::rdax_inode_trylock_shared(info.as_vfs()) }.then(|| SharedInodeLock(info))
    }
}

impl Drop for SharedInodeLock<'_> {
    fn drop(&mut self) {
        // SAFETY: taken in `new` by this task.
        unsafe { bindings::rdax_inode_unlock_shared(self.0.as_vfs()) };
    }
}

/// Holds the invalidate lock of an inode's mapping exclusively: no page fault is in progress in it
/// and none starts. Code that takes blocks from the file must hold `i_rwsem` too, and uses
/// [`InvalidateLock`].
pub struct FaultsOut<'a>(&'a InodeInfo);

impl<'a> FaultsOut<'a> {
    /// Waits for the lock.
    pub fn new(info: &'a InodeInfo) -> Self {
        let lock = FaultsOut(info);
        lock.acquire();
        lock
    }

    /// Takes the lock if it can be had without waiting.
    pub fn try_new(info: &'a InodeInfo) -> Option<Self> {
        // SAFETY: the mapping is the inode's, which is alive; `release` matches.
        let taken = unsafe { bindings::rdax_filemap_invalidate_trylock(info.mapping()) };
        taken.then(|| FaultsOut(info))
    }

    /// The inode whose mapping is locked.
    pub fn info(&self) -> &'a InodeInfo {
        self.0
    }

    fn acquire(&self) {
        // SAFETY: the mapping is the inode's, which is alive; `release` matches.
        unsafe { bindings::rdax_filemap_invalidate_lock(self.0.mapping()) };
    }

    fn release(&self) {
        // SAFETY: private; called only where `acquire` was, by the same task.
        unsafe { bindings::rdax_filemap_invalidate_unlock(self.0.mapping()) };
    }
}

impl Drop for FaultsOut<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

/// [`FaultsOut`] of an inode whose `i_rwsem` is held exclusively: its layout may change.
pub struct InvalidateLock<'a>(FaultsOut<'a>);

impl<'a> InvalidateLock<'a> {
    /// Waits for the lock; `inode` is the proof that `i_rwsem`, which comes first, is held.
    pub fn new(inode: Exclusive<'a>) -> Self {
        InvalidateLock(FaultsOut::new(inode.info()))
    }

    /// The inode whose mapping is locked.
    pub fn info(&self) -> &'a InodeInfo {
        self.0.info()
    }

    /// Runs `f` with the lock released, and takes it again. Whatever the caller learnt under the
    /// lock may be wrong afterwards.
    pub fn unlocked<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.0.release();
        let result = f();
        self.0.acquire();
        result
    }
}

/// Keeps the file system from being frozen while a page becomes writable.
pub struct FreezeProtection(*mut bindings::super_block);

impl FreezeProtection {
    /// Waits until the file system of `info` is not frozen.
    pub fn new(info: &InodeInfo) -> Self {
        let sb = info.sb().as_raw();
        // SAFETY: the super block outlives its inodes; `drop` matches.
        unsafe { bindings::rdax_sb_start_pagefault(sb) };
        FreezeProtection(sb)
    }
}

impl Drop for FreezeProtection {
    fn drop(&mut self) {
        // SAFETY: started in `new`, by this task.
        unsafe { bindings::rdax_sb_end_pagefault(self.0) };
    }
}

/// Keeps blocks in the file while they are being mapped.
pub struct SharedInvalidateLock<'a>(&'a InodeInfo);

impl<'a> SharedInvalidateLock<'a> {
    /// Waits for the lock.
    pub fn new(info: &'a InodeInfo) -> Self {
        // SAFETY: the mapping is that of the inode; `drop` matches.
        unsafe { bindings::rdax_filemap_invalidate_lock_shared(info.mapping()) };
        SharedInvalidateLock(info)
    }
}

impl Drop for SharedInvalidateLock<'_> {
    fn drop(&mut self) {
        // SAFETY: taken in `new`, by this task.
        unsafe { bindings::rdax_filemap_invalidate_unlock_shared(self.0.mapping()) };
    }
}

/// Keeps the file system from being frozen while the kernel itself, not a system call, writes.
pub struct InternalWrite(*mut bindings::super_block);

impl InternalWrite {
    /// `None` if the file system is frozen, or about to be.
    pub fn try_new(sb: &SbInfo) -> Option<Self> {
        let sb = sb.as_raw();
        // SAFETY: the super block outlives what is kept beside it; `drop` matches.
        let started = unsafe { bindings::rdax_sb_start_intwrite_trylock(sb) };
        // Created only now: dropping one ends what was started.
        started.then(|| InternalWrite(sb))
    }
}

impl Drop for InternalWrite {
    fn drop(&mut self) {
        // SAFETY: started in `try_new`; the caller kept the super block alive until here.
        unsafe { bindings::rdax_sb_end_intwrite(self.0) };
    }
}

/// Holds the `s_umount` of a super block shared: the mount does not end meanwhile, is not frozen,
/// and does not become read-only or writable.
pub struct MountLock(*mut bindings::super_block);

impl MountLock {
    /// Takes the lock, unless one of these is in progress, or about to begin.
    pub fn try_new(sb: &SbInfo) -> Option<Self> {
        let sb = sb.as_raw();
        // SAFETY: the super block outlives what is kept beside it; `drop` matches.
        let taken = unsafe { bindings::down_read_trylock(&raw mut (*sb).s_umount) } != 0;
        taken.then(|| MountLock(sb))
    }

    /// Whether the file system is writable and not frozen.
    pub fn may_change(&self) -> bool {
        // SAFETY: changes under the lock, or from writable to read-only.
        let flags = unsafe { (&raw const (*self.0).s_flags).read_volatile() };
        flags & bindings::RDAX_SB_RDONLY == 0 && !self.is_frozen()
    }

    /// Whether the file system is frozen, or about to be.
    pub fn is_frozen(&self) -> bool {
        // SAFETY: changes under the lock alone.
        let frozen = unsafe { (*self.0).s_writers.frozen };
        i64::from(frozen) != i64::from(bindings::SB_UNFROZEN)
    }

    /// Makes the VFS refuse new writers. The file system is not frozen.
    pub fn set_read_only(&self) {
        // SAFETY: as other file systems do it: whoever changes other flags holds the lock
        // exclusively.
        unsafe {
            let flags = &raw mut (*self.0).s_flags;
            flags.write_volatile(flags.read_volatile() | bindings::RDAX_SB_RDONLY);
        }
    }
}

impl Drop for MountLock {
    fn drop(&mut self) {
        // SAFETY: taken in `try_new`; the caller kept the super block alive until here.
        unsafe { bindings::up_read(&raw mut (*self.0).s_umount) };
    }
}
