// SPDX-License-Identifier: GPL-2.0

//! How an inode gets into memory, read or created, and how it is evicted.

use core::ptr::NonNull;

use kernel::error::code::*;
use kernel::prelude::*;

use super::{attr, dir, file, flags, symlink};
use crate::mount::inode::{InodeInfo, InodeRef};
use crate::mount::lock::InternalWrite;
use crate::mount::meta::MetaGuard;
use crate::mount::object::{Dentry, File};
use crate::mount::super_block::SbInfo;
use crate::mount::target::Target;
use crate::mount::time::Times;
use crate::volume::inode::Inode;
use crate::{bindings, dax};

/// Sets the mode and the owner of the kernel's inode, before others see it.
fn fill_owner(info: &InodeInfo) {
    let vfs = info.as_vfs();
    let meta = info.meta();
    // SAFETY: nobody else uses the inode yet: it is `I_NEW`.
    unsafe {
        (*vfs).i_mode = meta.mode();
        bindings::rdax_i_uid_write(vfs, meta.uid());
        bindings::rdax_i_gid_write(vfs, meta.gid());
    }
}

/// Copies the rest of the volume's inode to the kernel's inode, which has its mode and owner,
/// before others see it.
fn fill(info: &InodeInfo, target: Option<Target>) {
    let vfs = info.as_vfs();
    let meta = info.meta();
    // SAFETY: nobody else uses the inode yet: it is not hashed or still `I_NEW`.
    unsafe {
        (*vfs).i_ino = meta.ino();
        (*vfs).i_generation = meta.generation();
        bindings::set_nlink(vfs, meta.nlink());
        (*vfs).i_flags |= flags::of_inode(&meta, info.sb().options().dax);
        if !meta.has_xattrs() {
            bindings::rdax_cache_no_acl(vfs);
        }
    }
    // SAFETY: as above.
    let target = unsafe { info.keep(meta.btime(), target) };
    info.set_attrs(&meta);
    info.set_i_size(meta.size());
    info.update_blocks(&meta);
    info.set_times(Times {
        atime: meta.atime(),
        mtime: meta.mtime(),
        ctime: meta.ctime(),
    });
    match u32::from(meta.mode()) & bindings::S_IFMT {
        bindings::S_IFREG => file::set_operations(info),
        bindings::S_IFDIR => dir::set_operations(info),
        bindings::S_IFLNK => symlink::set_operations(info, target),
        _ => {
            attr::set_operations(info);
            // SAFETY: as above.
            unsafe {
                let rdev = bindings::rdax_decode_dev(meta.rdev());
                bindings::init_special_inode(vfs, meta.mode(), rdev);
            }
        }
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
            // Evicted and without a name: it waits for a pin to end.
            .and_then(|()| {
                if meta.nlink() > 0 {
                    Ok(())
                } else {
                    Err(ESTALE)
                }
            })
            .and_then(|()| Target::read(sb, &meta))
    };
    let read = read.and_then(|target| {
        fill_owner(info);
        fill(info, target);
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

/// A kernel inode for a file that is being created: owned by the caller, unknown to all others.
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

    /// The inode so far: only what the caller set.
    pub fn as_vfs(&self) -> *mut bindings::inode {
        self.0.as_vfs()
    }

    /// Our part of it.
    pub fn info(&self) -> &InodeInfo {
        &self.0
    }

    /// The volume's part, to be filled by the volume.
    pub fn meta(&self) -> MetaGuard<'_> {
        self.0.meta.get_fresh()
    }

    /// Makes it the inode that the volume created, with its mode and owner, and adds it to the
    /// inode hash.
    pub fn fill(self, target: Option<Target>) -> Result<NewInode> {
        fill(&self.0, target);
        // SAFETY: the inode is ours alone, and not hashed.
        let result = unsafe { bindings::insert_inode_locked(self.0.as_vfs()) };
        if result < 0 {
            // A live inode has the number that the volume returned as free.
            let sb = self.0.sb();
            pr_err!(
                "{}: inode {} is in use twice; run fsck.rdax\n",
                sb.name(),
                self.0.ino()
            );
            // Its number belongs to the other one: eviction must not free it.
            *self.0.meta() = Inode::blank();
            return Err(EIO);
        }
        Ok(NewInode(self.0))
    }
}

/// A kernel inode that is complete and hashed, but still locked as new: lookups wait.
pub struct NewInode(InodeRef);

impl NewInode {
    /// Attaches it to `dentry` and makes it visible to others.
    pub fn instantiate(self, dentry: &Dentry) {
        let inode = self.0.into_raw();
        // SAFETY: the VFS gave a negative dentry with its directory locked; the inode is new, and
        // our reference to it passes to the dentry.
        unsafe { bindings::d_instantiate_new(dentry.as_raw(), inode) };
    }

    /// Makes it visible to others, by its name in the volume.
    pub fn release(self) {
        // SAFETY: the inode is new and ours to unlock; the reference is dropped after that.
        unsafe { bindings::unlock_new_inode(self.0.as_vfs()) };
    }

    /// Attaches it, which has no name, to the dentry of `file`, which is being opened.
    pub fn open_unnamed(self, file: &File) {
        // The VFS decrements the link count, so it must not be 0.
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

/// Evicts the inode: ends its write-back, and frees its blocks if it has no name left.
/// (`->evict_inode`)
pub fn evict(info: &InodeInfo) {
    let idle = dax::evict(info);
    let vfs = info.as_vfs();
    // SAFETY: the VFS marked the inode as freeing and calls this once; no user is left.
    let unlinked = unsafe {
        bindings::truncate_inode_pages_final(&raw mut (*vfs).i_data);
        (*vfs).__bindgen_anon_1.__i_nlink == 0
    };
    let sb = info.sb();
    // An inode that is not freed here is in the orphan file: if a page of it is pinned, or the file
    // system is frozen or read-only, until that is over; after an error, for the next mount.
    if unlinked && idle && sb.check_sound().is_ok() {
        free_blocks(info);
    }
    info.meta.leave_list();
    // SAFETY: as above; this is the last step of an eviction.
    unsafe { bindings::clear_inode(vfs) };
}

/// Frees the inode, which has no name left, on the media; later if the file system is frozen or
/// read-only now. Does not wait for the end of that: the evicting task may be freezing, or hold
/// `s_umount`, for which the end of the freeze waits.
fn free_blocks(info: &InodeInfo) {
    let sb = info.sb();
    let may_write = sb.check_writable().is_ok();
    let write = may_write.then(|| InternalWrite::try_new(sb)).flatten();
    let mut meta = info.meta();
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
