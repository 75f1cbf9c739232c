// SPDX-License-Identifier: GPL-2.0

//! Inodes: the kernel's `struct inode` with what rdax keeps beside it, from reading to eviction.
//!
//! The volume's inode, under [`MetaLock`], is what is on the media. The kernel's inode repeats of
//! it what the VFS wants to read without asking (mode, owner, links, size, times); whoever changes
//! the one through the volume brings the other up to date before it lets go of the locks.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use kernel::container_of;
use kernel::error::code::*;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel::types::Opaque;

use super::lock::InternalWrite;
use super::meta::{MetaGuard, MetaLock};
use super::object::{Dentry, File, SuperBlock};
use super::shutdown::State;
use super::super_block::SbInfo;
use super::time::Times;
use super::{attr, dir, file, flags, slab, symlink};
use crate::volume::format::{Time, BLOCK};
use crate::volume::inode::Inode;
use crate::{bindings, dax};

/// An inode of rdax: what every `struct inode` of one of its super blocks is embedded in.
#[repr(C)]
pub struct InodeInfo {
    /// The kernel's part; first, so that a pointer to it is a pointer to the whole.
    vfs: Opaque<bindings::inode>,
    /// The volume's part.
    pub meta: MetaLock,
    /// Which pages of the file are mapped, and which of those may be dirty.
    pub tracker: dax::Tracker,
    /// When the file was made. Set before others see the inode, and then only read.
    born: UnsafeCell<Time>,
    /// The file attributes, `FS_*_FL`, as the volume has them.
    attrs: Atomic<u32>,
    /// What the last block holds beyond the end of the file is known to be zero.
    tail_is_zero: Atomic<bool>,
    /// Of a symlink: where it points. Set before others see the inode, and then only read, also
    /// under RCU alone.
    target: UnsafeCell<Option<symlink::Target>>,
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
            pin_init::raw_init(&raw mut (*info).tracker, dax::Tracker::new());
        }
        Some(inode)
    }

    /// Initialises what stays as it is from one use of the memory to the next.
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

    /// Gives the memory of an inode back, as `->free_inode`: an RCU grace period after the last
    /// use.
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

    /// What rdax keeps beside the super block.
    pub fn sb(&self) -> &SbInfo {
        self.super_block().info()
    }

    /// The mapping: page faults and the reverse map go by it.
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

    /// Joins one more name to the inode.
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

    /// A copy of the volume's view of a directory. Valid as long as `i_rwsem`, shared or exclusive,
    /// keeps changes out. (The blocks of a file change under the meta lock alone.)
    pub fn snapshot(&self) -> Inode {
        self.meta().clone()
    }

    /// Sets the mode and the owner of the kernel's inode, before others see it.
    fn fill_owner(&self) {
        let vfs = self.as_vfs();
        let meta = self.meta();
        // SAFETY: nobody else uses the inode yet: it is `I_NEW`.
        unsafe {
            (*vfs).i_mode = meta.mode();
            bindings::rdax_i_uid_write(vfs, meta.uid());
            bindings::rdax_i_gid_write(vfs, meta.gid());
        }
    }

    /// Makes the kernel's inode, which has its mode and owner, repeat the rest of the volume's,
    /// before others see it.
    fn fill(&self, target: Option<symlink::Target>) {
        let vfs = self.as_vfs();
        let meta = self.meta();
        // SAFETY: nobody else uses the inode yet: it is not hashed or still `I_NEW`.
        unsafe {
            (*vfs).i_ino = meta.ino();
            (*vfs).i_generation = meta.generation();
            bindings::set_nlink(vfs, meta.nlink());
            (*vfs).i_flags |= flags::of_inode(&meta, self.sb().options().dax);
            if !meta.has_xattrs() {
                bindings::rdax_cache_no_acl(vfs);
            }
            *self.born.get() = meta.btime();
        }
        self.set_attrs(&meta);
        self.set_i_size(meta.size());
        self.update_blocks(&meta);
        self.set_times(Times {
            atime: meta.atime(),
            mtime: meta.mtime(),
            ctime: meta.ctime(),
        });
        match u32::from(meta.mode()) & bindings::S_IFMT {
            bindings::S_IFREG => file::set_operations(self),
            bindings::S_IFDIR => dir::set_operations(self),
            bindings::S_IFLNK => {
                // SAFETY: as above: nobody reads it yet.
                let kept = unsafe { &mut *self.target.get() };
                *kept = target;
                symlink::set_operations(self, kept.as_ref());
            }
            _ => {
                attr::set_operations(self);
                // SAFETY: as above.
                unsafe {
                    let rdev = bindings::rdax_decode_dev(meta.rdev());
                    bindings::init_special_inode(vfs, meta.mode(), rdev);
                }
            }
        }
    }

    /// When the file was made.
    pub fn born(&self) -> Time {
        // SAFETY: not changed since others see the inode.
        unsafe { *self.born.get() }
    }

    /// The file attributes, `FS_*_FL`.
    pub fn attrs(&self) -> u32 {
        self.attrs.load(Relaxed)
    }

    /// Brings the file attributes that [`InodeInfo::attrs`] returns up to date.
    pub fn set_attrs(&self, meta: &Inode) {
        self.attrs.store(meta.attrs(), Relaxed);
    }

    /// A mapping may store to the file from now on, also beyond its end. Does not sleep.
    pub fn tail_may_change(&self) {
        if self.tail_is_zero.load(Relaxed) {
            self.tail_is_zero.store(false, Relaxed);
        }
    }

    /// Runs `zero`, which zeroes what the last block holds beyond the end of the file, unless that is
    /// known to be zero. The caller holds `i_rwsem` exclusively.
    pub fn clean_tail(&self, zero: impl FnOnce() -> Result) -> Result {
        // First: a store that comes meanwhile takes it back.
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

    /// Brings the number of blocks that the VFS sees up to date.
    pub fn update_blocks(&self, meta: &Inode) {
        let sectors = meta.blocks().saturating_mul(BLOCK / 512);
        // SAFETY: the inode is alive; whoever changes `meta` holds its lock.
        unsafe { (&raw mut (*self.as_vfs()).i_blocks).write_volatile(sectors) };
    }

    /// The inode that `tracker` is part of.
    pub fn of(tracker: &dax::Tracker) -> &Self {
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

    /// Has the flusher write the inode after a while. Does not sleep; a page table lock may be held.
    pub fn mark_dirty(&self) {
        // SAFETY: the inode is alive.
        unsafe { bindings::__mark_inode_dirty(self.as_vfs(), bindings::RDAX_I_DIRTY_SYNC) };
    }

    /// Makes the times that moved only in memory durable.
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
            // They end here.
            State::ReadOnly => return Ok(()),
            State::ShutDown => return Err(EIO),
        }
        sb.check(sb.volume.touch(&mut meta, now.atime, now.mtime, now.ctime))
    }

    /// The last use of the inode is over: what it still has in flight ends, and if no name is
    /// left, so do its blocks. (`->evict_inode`)
    pub fn evict(&self) {
        let idle = dax::evict(self);
        let vfs = self.as_vfs();
        // SAFETY: the VFS marked the inode as freeing and calls this once; no user is left.
        let unlinked = unsafe {
            bindings::truncate_inode_pages_final(&raw mut (*vfs).i_data);
            (*vfs).__bindgen_anon_1.__i_nlink == 0
        };
        let sb = self.sb();
        // One that stays behind is in the orphan file: if somebody still has a page of it pinned,
        // or the file system is frozen or read-only, until that is over; after an error, for the
        // next mount.
        if unlinked && idle && sb.check_sound().is_ok() {
            self.free_blocks();
        }
        self.meta.leave_list();
        // SAFETY: as above; this is the last step of an eviction.
        unsafe { bindings::clear_inode(vfs) };
    }
}

impl InodeInfo {
    /// Frees the inode, which has no name left, on the media; later where the file system is frozen
    /// or read-only now. Does not wait for the end of that: who evicts may be at freezing, or hold
    /// `s_umount`, for which the end of it waits.
    fn free_blocks(&self) {
        let sb = self.sb();
        let may_write = sb.check_writable().is_ok();
        let write = may_write.then(|| InternalWrite::try_new(sb)).flatten();
        let mut meta = self.meta();
        if meta.is_blank() {
            return;
        }
        let ino = meta.ino();
        if write.is_none() {
            drop(meta);
            return dax::pins::free_later(sb, ino);
        }
        if let Err(error) = sb.check(sb.volume.free_inode(&mut meta)) {
            pr_err!("{}: inode {ino} was not freed: {error:?}\n", sb.name());
        }
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
    unsafe fn from_raw(inode: NonNull<bindings::inode>) -> Self {
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

/// The inode `ino`, from memory or from the volume. May sleep.
pub fn iget(sb: &SbInfo, ino: u64) -> Result<InodeRef> {
    // SAFETY: the super block is alive.
    let inode = unsafe { bindings::iget_locked(sb.as_raw(), ino) };
    let inode = NonNull::new(inode).ok_or(ENOMEM)?;
    // SAFETY: a reference came with it, and it belongs to our super block.
    let info = unsafe { InodeInfo::from_vfs(inode.as_ptr()) };
    // SAFETY: the inode is alive.
    if !unsafe { bindings::rdax_inode_is_new(inode.as_ptr()) } {
        // SAFETY: the reference of iget_locked is passed on.
        return Ok(unsafe { InodeRef::from_raw(inode) });
    }
    let read = {
        let mut meta = info.meta();
        sb.check(sb.volume.iget_into(ino, &mut meta))
            // Out of memory and without a name: it waits for a pin to end.
            .and_then(|()| {
                if meta.nlink() > 0 {
                    Ok(())
                } else {
                    Err(ESTALE)
                }
            })
            .and_then(|()| symlink::Target::read(sb, &meta))
    };
    let read = read.and_then(|target| {
        info.fill_owner();
        info.fill(target);
        dax::pins::adopt(info)
    });
    match read {
        Ok(()) => {
            // SAFETY: the inode is new and we were the one to fill it; the reference is passed on.
            unsafe {
                bindings::unlock_new_inode(inode.as_ptr());
                Ok(InodeRef::from_raw(inode))
            }
        }
        Err(error) => {
            // SAFETY: the inode is new; this takes it out of sight and drops our reference.
            unsafe { bindings::iget_failed(inode.as_ptr()) };
            Err(error)
        }
    }
}

/// The inode `ino`, if it is in memory. May sleep.
pub fn cached(sb: &SbInfo, ino: u64) -> Option<InodeRef> {
    // SAFETY: the super block is alive.
    let inode = NonNull::new(unsafe { bindings::ilookup(sb.as_raw(), ino) })?;
    // SAFETY: a reference came with it.
    Some(unsafe { InodeRef::from_raw(inode) })
}

/// A kernel inode for a file that is being made: owned by the caller, unknown to all others.
pub struct FreshInode(InodeRef);

impl FreshInode {
    /// Memory for a new inode.
    pub fn new(sb: &SbInfo) -> Result<Self> {
        // SAFETY: the super block is alive.
        let inode = unsafe { bindings::new_inode(sb.as_raw()) };
        let inode = NonNull::new(inode).ok_or(ENOMEM)?;
        // SAFETY: a reference came with it.
        Ok(FreshInode(unsafe { InodeRef::from_raw(inode) }))
    }

    /// The inode so far: nothing but what the caller set.
    pub fn as_vfs(&self) -> *mut bindings::inode {
        self.0.as_vfs()
    }

    /// Where the volume makes its part.
    pub fn meta(&self) -> MetaGuard<'_> {
        self.0.meta.get_fresh()
    }

    /// Makes it the inode that the volume made, of the mode and the owner that it has, and known as
    /// that.
    pub fn fill(self, target: Option<symlink::Target>) -> Result<NewInode> {
        self.0.fill(target);
        // SAFETY: the inode is ours alone, and not hashed.
        let result = unsafe { bindings::insert_inode_locked(self.0.as_vfs()) };
        if result < 0 {
            // A live inode has the number that the volume gave out as free.
            let sb = self.0.sb();
            pr_err!(
                "{}: inode {} is in use twice; run fsck.rdax\n",
                sb.name(),
                self.0.ino()
            );
            // Its number belongs to the other: eviction must not free it.
            *self.0.meta() = Inode::blank();
            return Err(EIO);
        }
        Ok(NewInode(self.0))
    }
}

/// A kernel inode that is complete and known, but still locked as new: who looks it up waits.
pub struct NewInode(InodeRef);

impl NewInode {
    /// Joins it to `dentry` and lets others have it.
    pub fn instantiate(self, dentry: &Dentry) {
        let inode = self.0.into_raw();
        // SAFETY: the VFS gave a negative dentry with its directory locked; the inode is new, and
        // our reference to it passes to the dentry.
        unsafe { bindings::d_instantiate_new(dentry.as_raw(), inode) };
    }

    /// Lets others have it, by its name in the volume.
    pub fn release(self) {
        // SAFETY: the inode is new and ours to unlock; the reference is dropped after that.
        unsafe { bindings::unlock_new_inode(self.0.as_vfs()) };
    }

    /// Joins it, which has no name, to the dentry of `file`, which is being opened.
    pub fn open_unnamed(self, file: &File) {
        // The VFS takes one link away, and has to find one.
        self.0.set_nlink(1);
        let inode = self.0.into_raw();
        // SAFETY: the inode is new and ours to unlock; our reference to it passes to the dentry of
        // the file, which has no inode yet.
        unsafe {
            bindings::unlock_new_inode(inode);
            bindings::d_tmpfile(file.as_raw(), inode);
        }
    }
}
