// SPDX-License-Identifier: GPL-2.0

//! The operations on names. The volume does them; this file locks its inodes, updates the kernel's,
//! and introduces new ones.
//!
//! The VFS has checked the permission and holds the `i_rwsem` of the directories, and of inodes
//! that lose a name.

use core::ffi::CStr;

use kernel::error::code::*;
use kernel::prelude::*;

use super::acl;
use super::attr::Attributes;
use super::flags;
use super::inode::{iget, FreshInode, NewInode};
use super::table::inode::{AttrOperations, DirOperations};
use super::xattr::Initial;
use crate::mount::inode::{InodeInfo, InodeRef};
use crate::mount::lock::Exclusive;
use crate::mount::meta::{lock_all, lock_two};
use crate::mount::object::{Dentry, File, IdMap};
use crate::mount::target::Target;
use crate::mount::time::touching;
use crate::volume;
use crate::volume::format::Time;
use crate::volume::inode::Inode;
use crate::volume::namespace::Rename;
use crate::volume::xattr::Xattr;
use crate::{bindings, volume::namespace};

/// The operations of directories.
pub struct Directory;

/// The names in `dir` have changed at `now`, and so has `meta`.
fn changed(dir: Exclusive<'_>, meta: &Inode, now: Time) {
    dir.set_mtime(now);
    dir.set_ctime(now);
    dir.set_nlink(meta.nlink());
    dir.set_i_size(meta.size());
    dir.update_blocks(meta);
}

/// Whether a new inode gets a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Yes,
    No,
}

/// Creates an inode owned as `mode` and the process say: a kernel inode, and, by `make`, the
/// volume's.
fn make_inode(
    idmap: &IdMap,
    (dir, name, named): (Exclusive<'_>, &Dentry, Named),
    mode: u16,
    rdev: u32,
    target: Option<Target>,
    make: impl FnOnce(&namespace::NewInode, &[Xattr<'_>], &mut Inode) -> volume::Result<()>,
) -> Result<NewInode> {
    let sb = dir.sb();
    sb.check_writable()?;
    // First the steps that can fail without a trace.
    let fresh = FreshInode::new(sb)?;
    let vfs = fresh.as_vfs();
    let mut initial = Initial::default();
    // SAFETY: the new inode is ours alone; setgid directories pass on their group here.
    unsafe { bindings::inode_init_owner(idmap.as_raw(), vfs, dir.as_vfs(), mode) };
    acl::inherit(vfs, dir, &mut initial)?;
    initial.add_security(vfs, dir, name)?;
    let xattrs = initial.as_xattrs()?;
    // A file without a name changes nothing in the directory.
    let changed = match named {
        Named::Yes => dir.info(),
        Named::No => fresh.info(),
    };
    let made = touching([Some(changed)], |now| {
        // SAFETY: the new inode is ours alone.
        let new = unsafe {
            namespace::NewInode {
                mode: (*vfs).i_mode,
                uid: bindings::rdax_i_uid_read(vfs),
                gid: bindings::rdax_i_gid_read(vfs),
                rdev,
                attrs: flags::inherited(dir.attrs(), (*vfs).i_mode),
                now,
            }
        };
        make(&new, &xattrs, &mut fresh.meta())
    });
    sb.check(made)?;
    fresh.fill(target)
}

impl DirOperations for Directory {
    fn lookup(dir: &InodeInfo, dentry: &Dentry) -> Result<Option<InodeRef>> {
        let sb = dir.sb();
        if dentry.name().len() > volume::format::NAME_MAX {
            return Err(ENAMETOOLONG);
        }
        sb.check_alive()?;
        let found = sb.check(sb.volume.lookup(&mut dir.meta(), dentry.name()))?;
        let Some(entry) = found else {
            return Ok(None);
        };
        match iget(sb, entry.ino) {
            // An inode with a name must be in use. ESTALE would make the VFS retry.
            Err(error) if error == ESTALE => sb.check(Err(entry.corrupt())),
            inode => inode.map(Some),
        }
    }

    fn make(idmap: &IdMap, dir: Exclusive<'_>, dentry: &Dentry, mode: u16, rdev: u32) -> Result {
        let inode = make_inode(
            idmap,
            (dir, dentry, Named::Yes),
            mode,
            rdev,
            None,
            |new, xattrs, inode| {
                let mut meta = dir.meta();
                let volume = &dir.sb().volume;
                volume.create_into(&mut meta, dentry.name(), new, xattrs, inode)?;
                changed(dir, &meta, new.now);
                Ok(())
            },
        )?;
        inode.instantiate(dentry);
        Ok(())
    }

    fn symlink(idmap: &IdMap, dir: Exclusive<'_>, dentry: &Dentry, target: &CStr) -> Result {
        // CAST: the bits of a type and of permissions are within 16.
        let mode = (bindings::S_IFLNK | 0o777) as u16;
        let kept = Some(Target::new(target)?);
        let inode = make_inode(
            idmap,
            (dir, dentry, Named::Yes),
            mode,
            0,
            kept,
            |new, xattrs, inode| {
                let mut meta = dir.meta();
                let volume = &dir.sb().volume;
                volume.symlink_into(
                    &mut meta,
                    dentry.name(),
                    target.to_bytes(),
                    new,
                    xattrs,
                    inode,
                )?;
                changed(dir, &meta, new.now);
                Ok(())
            },
        )?;
        inode.instantiate(dentry);
        Ok(())
    }

    fn tmpfile(idmap: &IdMap, dir: Exclusive<'_>, file: &File, mode: u16) -> Result {
        let inode = make_inode(
            idmap,
            (dir, file.dentry(), Named::No),
            mode,
            0,
            None,
            |new, xattrs, inode| dir.sb().volume.tmpfile_into(new, xattrs, inode),
        )?;
        inode.open_unnamed(file);
        Ok(())
    }

    fn link(inode: Exclusive<'_>, dir: Exclusive<'_>, dentry: &Dentry) -> Result {
        let sb = dir.sb();
        sb.check_writable()?;
        sb.check(touching([Some(dir.info()), Some(inode.info())], |now| {
            let (mut dir_meta, mut meta) = lock_two(dir.info(), inode.info());
            let volume = &sb.volume;
            volume.link(&mut dir_meta, dentry.name(), &mut meta, now)?;
            changed(dir, &dir_meta, now);
            inode.set_nlink(meta.nlink());
            inode.set_ctime(now);
            Ok(())
        }))?;
        inode.join(dentry);
        Ok(())
    }

    fn unlink(dir: Exclusive<'_>, dentry: &Dentry, inode: Exclusive<'_>) -> Result {
        remove(dir, inode, |dir_meta, meta, now| {
            dir.sb().volume.unlink(dir_meta, dentry.name(), meta, now)
        })
    }

    fn rmdir(dir: Exclusive<'_>, dentry: &Dentry, inode: Exclusive<'_>) -> Result {
        remove(dir, inode, |dir_meta, meta, now| {
            dir.sb().volume.rmdir(dir_meta, dentry.name(), meta, now)
        })
    }

    fn rename(
        idmap: &IdMap,
        old_dir: Exclusive<'_>,
        old: &Dentry,
        new_dir: Exclusive<'_>,
        new: &Dentry,
        flags: u32,
    ) -> Result {
        let known =
            bindings::RENAME_NOREPLACE | bindings::RENAME_EXCHANGE | bindings::RENAME_WHITEOUT;
        if flags & !known != 0 {
            return Err(EINVAL);
        }
        let sb = old_dir.sb();
        sb.check_writable()?;
        // The VFS has checked that the new name is free if RENAME_NOREPLACE asks for it.
        let exchange = flags & bindings::RENAME_EXCHANGE != 0;
        if flags & bindings::RENAME_WHITEOUT == 0 {
            return sb.check(rename((old_dir, old), (new_dir, new), |r| {
                sb.volume.rename(Rename { exchange, ..r })
            }));
        }
        // CAST: the bits of a type are within 16.
        let mode = bindings::S_IFCHR as u16;
        let whiteout = make_inode(
            idmap,
            (old_dir, old, Named::Yes),
            mode,
            0,
            None,
            |new_inode, xattrs, inode| {
                rename((old_dir, old), (new_dir, new), |r| {
                    sb.volume.rename_whiteout(r, new_inode, xattrs, inode)
                })
            },
        )?;
        whiteout.release();
        Ok(())
    }
}

/// Renames `old` to `new`, each a name in a directory, by `rename`.
fn rename(
    (old_dir, old): (Exclusive<'_>, &Dentry),
    (new_dir, new): (Exclusive<'_>, &Dentry),
    rename: impl FnOnce(Rename<'_>) -> volume::Result<()>,
) -> volume::Result<()> {
    let moved = old.inode().ok_or(volume::Error::NotFound)?;
    let replaced = new.inode();
    let across = (old_dir.ino() != new_dir.ino()).then_some(new_dir.info());
    let concerned = [Some(old_dir.info()), across, Some(moved), replaced];
    touching(concerned, |now| {
        let locks = lock_all(concerned);
        let [Some(mut src_meta), mut dst_meta, Some(mut moved_meta), mut replaced_meta] = locks
        else {
            unreachable!()
        };
        rename(Rename {
            src_dir: &mut src_meta,
            dst_dir: dst_meta.as_deref_mut(),
            src_name: old.name(),
            dst_name: new.name(),
            moved: &mut moved_meta,
            replaced: replaced_meta.as_deref_mut(),
            exchange: false,
            now,
        })?;
        changed(old_dir, &src_meta, now);
        if let Some(meta) = &dst_meta {
            changed(new_dir, meta, now);
        }
        for (info, meta) in [
            (Some(moved), Some(&moved_meta)),
            (replaced, replaced_meta.as_ref()),
        ] {
            if let (Some(info), Some(meta)) = (info, meta) {
                info.set_nlink(meta.nlink());
                info.set_ctime(now);
            }
        }
        Ok(())
    })
}

/// Removes the name of `inode` from `dir`, by `remove`.
fn remove(
    dir: Exclusive<'_>,
    inode: Exclusive<'_>,
    remove: impl FnOnce(&mut Inode, &mut Inode, Time) -> volume::Result<()>,
) -> Result {
    let sb = dir.sb();
    sb.check_writable()?;
    sb.check(touching([Some(dir.info()), Some(inode.info())], |now| {
        let (mut dir_meta, mut meta) = lock_two(dir.info(), inode.info());
        remove(&mut dir_meta, &mut meta, now)?;
        changed(dir, &dir_meta, now);
        inode.set_nlink(meta.nlink());
        inode.set_ctime(now);
        Ok(())
    }))
}

impl AttrOperations for Directory {
    fn getattr(idmap: &IdMap, info: &InodeInfo, mask: u32, stat: &mut bindings::kstat) -> Result {
        Attributes::getattr(idmap, info, mask, stat)
    }

    fn setattr(
        idmap: &IdMap,
        dentry: &Dentry,
        inode: Exclusive<'_>,
        attr: &mut bindings::iattr,
    ) -> Result {
        Attributes::setattr(idmap, dentry, inode, attr)
    }

    fn flags(info: &InodeInfo) -> Result<u32> {
        Attributes::flags(info)
    }

    fn set_flags(inode: Exclusive<'_>, flags: u32) -> Result {
        Attributes::set_flags(inode, flags)
    }
}
