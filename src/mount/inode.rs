// SPDX-License-Identifier: GPL-2.0

//! Inodes: the kernel's `struct inode` with rdax's own data beside it.
//!
//! The volume's inode, under [`MetaLock`], is what is on the media. The kernel's inode repeats what
//! the VFS reads without calling the file system (mode, owner, links, size, timestamps). Whoever
//! changes the volume's inode updates the other before releasing the locks.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use kernel::container_of;
use kernel::error::code::*;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel::types::Opaque;

use super::meta::{MetaGuard, MetaLock};
use super::object::{Dentry, SuperBlock};
use super::slab;
use super::state::State;
use super::super_block::SbInfo;
use super::target::Target;
use super::time::Times;
use super::tracker::Tracker;
use crate::bindings;
use crate::volume::format::{Time, BLOCK};
use crate::volume::inode::Inode;

/// An inode of rdax: every `struct inode` of one of its super blocks is embedded in one.
#[repr(C)]
pub struct InodeInfo {
    /// The kernel's part; first, so that a pointer to it is a pointer to the whole.
    vfs: Opaque<bindings::inode>,
    /// The volume's part.
    pub meta: MetaLock,
    /// Which pages of the file are mapped, and which of those may be dirty.
    pub tracker: Tracker,
    /// When the file was created. Set before others see the inode, and then only read.
    born: UnsafeCell<Time>,
    /// The file attributes, `FS_*_FL`, as the volume has them.
    attrs: Atomic<u32>,
    /// The bytes of the last block beyond the end of the file are known to be zero.
    tail_is_zero: Atomic<bool>,
    /// The target of a symlink. Set before others see the inode, and then only read, also under RCU
    /// alone.
    target: UnsafeCell<Option<Target>>,
}

// SAFETY: the fields are the kernel's, with the kernel's rules; or `Sync`; or, `born` and `target`,
// not changed while shared.
unsafe impl Sync for InodeInfo {}

impl InodeInfo {
    /// The rdax inode that `inode` is part of.
    ///
    /// # Safety
    ///
    /// `inode` belongs to a super block of rdax and stays alive for all of `'a`.
    pub unsafe fn from_vfs<'a>(inode: *mut bindings::inode) -> &'a InodeInfo {
        // SAFETY: `alloc` made it as the first field of an `InodeInfo`; what may change at any
        // time in it is inside `Opaque` or behind locks.
        unsafe { &*inode.cast::<InodeInfo>() }
    }

    /// The kernel's inode.
    pub fn as_vfs(&self) -> *mut bindings::inode {
        self.vfs.get()
    }

    /// Memory for an inode of `sb`, as `->alloc_inode` returns it.
    pub fn alloc(sb: &SuperBlock) -> Option<NonNull<bindings::inode>> {
        let inode = NonNull::new(slab::alloc(sb))?;
        let info = inode.as_ptr().cast::<InodeInfo>();
        // SAFETY: the memory is as large as an `InodeInfo` and ours alone; the fields are
        // initialised where they stay until `free`, but for those that the slab's constructor did.
        unsafe {
            (&raw mut (*info).born).write(UnsafeCell::new(Time::default()));
            (&raw mut (*info).attrs).write(Atomic::new(0));
            (&raw mut (*info).tail_is_zero).write(Atomic::new(false));
            (&raw mut (*info).target).write(UnsafeCell::new(None));
            pin_init::raw_init(&raw mut (*info).tracker, Tracker::new());
        }
        Some(inode)
    }

    /// Initialises what stays unchanged from one use of the memory to the next.
    ///
    /// # Safety
    ///
    /// `info` is fresh memory of the slab for an `InodeInfo`.
    pub unsafe fn construct(info: *mut InodeInfo) {
        // SAFETY: by the caller's promise.
        unsafe {
            bindings::inode_init_once(info.cast());
            MetaLock::init_at(&raw mut (*info).meta);
        }
    }

    /// Frees the memory of an inode, as `->free_inode`: an RCU grace period after the last use.
    ///
    /// # Safety
    ///
    /// `inode` comes from [`InodeInfo::alloc`] and nobody refers to it any more.
    pub unsafe fn free(inode: NonNull<bindings::inode>) {
        let info = inode.as_ptr().cast::<InodeInfo>();
        // SAFETY: `alloc` initialised the fields, and the caller gives the inode up.
        unsafe {
            (&raw mut (*info).target).drop_in_place();
            let meta = &mut (*info).meta;
            meta.reset();
            (&raw mut (*info).tracker).drop_in_place();
            slab::free(inode);
        }
    }

    /// The super block.
    pub fn super_block(&self) -> &SuperBlock {
        // SAFETY: `i_sb` is set before anyone sees the inode and the super block outlives it.
        unsafe { SuperBlock::from_raw((*self.as_vfs()).i_sb) }
    }

    /// rdax's data beside the super block.
    pub fn sb(&self) -> &SbInfo {
        self.super_block().info()
    }

    /// The mapping: page faults and the reverse map use it.
    pub fn mapping(&self) -> *mut bindings::address_space {
        // SAFETY: `i_mapping` is set when the inode is made and not changed by rdax.
        unsafe { (*self.as_vfs()).i_mapping }
    }

    /// Inode number.
    pub fn ino(&self) -> u64 {
        // SAFETY: set before anyone else sees the inode.
        unsafe { (*self.as_vfs()).i_ino }
    }

    /// Distinguishes the users of one inode number over time.
    pub fn generation(&self) -> u32 {
        // SAFETY: set before anyone else sees the inode.
        unsafe { (*self.as_vfs()).i_generation }
    }

    /// Type and permissions.
    pub fn mode(&self) -> u16 {
        // SAFETY: a plain field; racing with chmod is the kernel's normal case.
        unsafe { (&raw const (*self.as_vfs()).i_mode).read_volatile() }
    }

    /// Whether it is a file of the type `S_IF*`.
    pub fn is(&self, file_type: u32) -> bool {
        u32::from(self.mode()) & bindings::S_IFMT == file_type
    }

    /// Whether the file is mapped directly, and not through the page cache.
    pub fn is_dax(&self) -> bool {
        // SAFETY: the flag does not change once others see the inode.
        unsafe { (&raw const (*self.as_vfs()).i_flags).read_volatile() & bindings::RDAX_S_DAX != 0 }
    }

    /// Bytes, as readers see it.
    pub fn i_size(&self) -> u64 {
        // SAFETY: the inode is alive.
        let size = unsafe { bindings::rdax_i_size_read(self.as_vfs()) };
        u64::try_from(size).unwrap_or(0)
    }

    /// Sets the size that readers see. The caller holds `i_rwsem` exclusively.
    pub fn set_i_size(&self, size: u64) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        // SAFETY: the inode is alive; `i_rwsem` serialises writers.
        unsafe { bindings::rdax_i_size_write(self.as_vfs(), size) };
    }

    /// Sets the number of links that the VFS sees. The caller holds `i_rwsem` exclusively.
    pub fn set_nlink(&self, nlink: u32) {
        // SAFETY: the inode is alive; `i_rwsem` serialises writers.
        unsafe { bindings::set_nlink(self.as_vfs(), nlink) };
    }

    /// Gives the inode one more name.
    pub fn join(&self, dentry: &Dentry) {
        // SAFETY: the VFS gave a negative dentry with its directory locked; the reference taken
        // here passes to it.
        unsafe {
            bindings::ihold(self.as_vfs());
            bindings::d_instantiate(dentry.as_raw(), self.as_vfs());
        }
    }

    /// Waits for the volume's view of the inode.
    pub fn meta(&self) -> MetaGuard<'_> {
        self.meta.get()
    }

    /// Stores when the file was created, and the target of a symlink.
    ///
    /// # Safety
    ///
    /// Nobody else uses the inode yet.
    pub unsafe fn keep(&self, born: Time, target: Option<Target>) -> Option<&Target> {
        // SAFETY: by the caller nobody reads them yet.
        unsafe {
            *self.born.get() = born;
            let kept = &mut *self.target.get();
            *kept = target;
            kept.as_ref()
        }
    }

    /// When the file was created.
    pub fn born(&self) -> Time {
        // SAFETY: not changed since others see the inode.
        unsafe { *self.born.get() }
    }

    /// The file attributes, `FS_*_FL`.
    pub fn attrs(&self) -> u32 {
        self.attrs.load(Relaxed)
    }

    /// Updates the file attributes that [`InodeInfo::attrs`] returns.
    pub fn set_attrs(&self, meta: &Inode) {
        self.attrs.store(meta.attrs(), Relaxed);
    }

    /// A mapping may store to the file from now on, also beyond its end. Does not sleep.
    pub fn tail_may_change(&self) {
        if self.tail_is_zero.load(Relaxed) {
            self.tail_is_zero.store(false, Relaxed);
        }
    }

    /// Runs `zero`, which zeroes the bytes of the last block beyond the end of the file, unless
    /// they are known to be zero. The caller holds `i_rwsem` exclusively.
    pub fn clean_tail(&self, zero: impl FnOnce() -> Result) -> Result {
        // First: a store meanwhile clears it again.
        if self.tail_is_zero.xchg(true, Full) {
            return Ok(());
        }
        let zeroed = zero();
        // SAFETY: the mapping is that of the inode.
        let mapped = unsafe { bindings::rdax_mapping_writably_mapped(self.mapping()) };
        if mapped || zeroed.is_err() {
            self.tail_is_zero.store(false, Relaxed);
        }
        zeroed
    }

    /// Updates the number of blocks that the VFS sees.
    pub fn update_blocks(&self, meta: &Inode) {
        let sectors = meta.blocks().saturating_mul(BLOCK / 512);
        // SAFETY: the inode is alive; whoever changes `meta` holds its lock.
        unsafe { (&raw mut (*self.as_vfs()).i_blocks).write_volatile(sectors) };
    }

    /// The inode that `tracker` is part of.
    pub fn of(tracker: &Tracker) -> &Self {
        // SAFETY: trackers are parts of inodes, and as alive as these.
        unsafe { &*container_of!(core::ptr::from_ref(tracker), InodeInfo, tracker) }
    }

    /// A reference to the inode, unless its eviction has begun. Does not sleep.
    pub fn grab(&self) -> Option<InodeRef> {
        // SAFETY: the inode is alive, whether or not it may be referred to.
        let inode = NonNull::new(unsafe { bindings::igrab(self.as_vfs()) })?;
        // SAFETY: the reference is passed on.
        Some(unsafe { InodeRef::from_raw(inode) })
    }

    /// Makes the flusher write the inode later. Does not sleep; a page table lock may be held.
    pub fn mark_dirty(&self) {
        // SAFETY: the inode is alive.
        unsafe { bindings::__mark_inode_dirty(self.as_vfs(), bindings::RDAX_I_DIRTY_SYNC) };
    }

    /// Data that is still dirty when `->write_inode` has written the inode back counts as dirtied
    /// now: the flusher comes back when it has the age, and not at once. Called by `->write_inode`.
    pub fn begin_age(&self) {
        // SAFETY: the inode is alive. The caller of `->write_inode` owns it exclusively (`I_SYNC`),
        // and puts it into the list of the dirty ones, by that age, when it returns.
        unsafe { bindings::rdax_inode_dirtied_now(self.as_vfs()) };
    }

    /// Makes timestamps durable that were updated only in memory.
    pub fn write_times(&self) -> Result {
        let sb = self.sb();
        if sb.super_block().is_read_only() {
            return Ok(());
        }
        let mut meta = self.meta();
        let now = self.times();
        let durable = Times {
            atime: meta.atime(),
            mtime: meta.mtime(),
            ctime: meta.ctime(),
        };
        if now == durable {
            return Ok(());
        }
        match sb.state() {
            State::Running => {}
            // They are lost here.
            State::ReadOnly => return Ok(()),
            State::ShutDown => return Err(EIO),
        }
        sb.check(sb.volume.touch(&mut meta, now.atime, now.mtime, now.ctime))
    }
}

/// A counted reference to an inode.
pub struct InodeRef(NonNull<InodeInfo>);

impl InodeRef {
    /// Takes over a reference.
    ///
    /// # Safety
    ///
    /// `inode` is an inode of rdax, and the caller gives away one reference to it.
    pub unsafe fn from_raw(inode: NonNull<bindings::inode>) -> Self {
        InodeRef(inode.cast())
    }

    /// Gives the reference to C.
    pub fn into_raw(self) -> *mut bindings::inode {
        let inode = self.as_vfs();
        core::mem::forget(self);
        inode
    }
}

impl core::ops::Deref for InodeRef {
    type Target = InodeInfo;

    fn deref(&self) -> &InodeInfo {
        // SAFETY: the reference keeps the inode alive.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for InodeRef {
    fn drop(&mut self) {
        // SAFETY: the reference is ours to give back.
        unsafe { bindings::iput(self.as_vfs()) };
    }
}
