// SPDX-License-Identifier: GPL-2.0

//! Attributes: what stat shows, and what chmod, chown, utimes and truncate change.

use kernel::error::code::*;
use kernel::error::to_result;
use kernel::prelude::*;

use super::acl::{self, Kind};
use super::table::inode::{AttrOperations, AttrTable, InodeTable};
use super::{cached, flags};
use crate::mount::inode::InodeInfo;
use crate::mount::lock::{Exclusive, InvalidateLock};
use crate::mount::object::{Dentry, IdMap};
use crate::mount::time::touching;
use crate::volume::format::BLOCK;
use crate::volume::namespace::SetAttr;
use crate::{bindings, dax};

static INODE: InodeTable = InodeTable::new(AttrTable::<Attributes>::OPERATIONS);

/// Gives `info`, which others do not see yet, the operations of an inode that has attributes only.
pub fn set_operations(info: &InodeInfo) {
    INODE.install(info);
}

/// The alignment for direct I/O that programs get.
const SECTOR: u32 = 512;

/// The attribute operations, of inodes of all types.
pub struct Attributes;

impl AttrOperations for Attributes {
    fn getattr(idmap: &IdMap, info: &InodeInfo, mask: u32, stat: &mut bindings::kstat) -> Result {
        info.sb().check_alive()?;
        // SAFETY: the inode is alive.
        unsafe { bindings::generic_fillattr(idmap.as_raw(), mask, info.as_vfs(), stat) };
        stat.btime = info.born().into();
        stat.result_mask |= bindings::STATX_BTIME;
        if mask & bindings::STATX_DIOALIGN != 0 && info.is(bindings::S_IFREG) {
            // O_DIRECT copies, with any alignment. Programs expect a sector at least: they use it
            // as their block size, or as the alignment of memory.
            stat.dio_mem_align = SECTOR;
            stat.dio_offset_align = SECTOR;
            stat.result_mask |= bindings::STATX_DIOALIGN;
        }
        // The VFS adds STATX_ATTR_DAX.
        flags::fill_stat(info, stat);
        Ok(())
    }

    fn setattr(
        idmap: &IdMap,
        dentry: &Dentry,
        inode: Exclusive<'_>,
        attr: &mut bindings::iattr,
    ) -> Result {
        inode.sb().check_writable()?;
        // SAFETY: the dentry is that of the inode, which is locked.
        to_result(unsafe { bindings::setattr_prepare(idmap.as_raw(), dentry.as_raw(), attr) })?;
        if attr.ia_valid & bindings::ATTR_SIZE != 0 {
            truncate(inode, u64::try_from(attr.ia_size)?)?;
        }
        change(idmap, inode, attr)
    }

    fn flags(info: &InodeInfo) -> Result<u32> {
        info.sb().check_alive()?;
        Ok(info.attrs())
    }

    fn set_flags(inode: Exclusive<'_>, flags: u32) -> Result {
        flags::set(inode, flags)
    }
}

/// Changes owner, mode and timestamps, in memory and on the volume.
fn change(idmap: &IdMap, inode: Exclusive<'_>, attr: &bindings::iattr) -> Result {
    let vfs = inode.as_vfs();
    let sb = inode.sb();
    let acl = if attr.ia_valid & bindings::ATTR_MODE != 0 {
        acl::with_mode(inode, attr.ia_mode)?
    } else {
        None
    };
    let mut meta = inode.meta();
    let before = inode.times();
    // SAFETY: the inode is locked, and the change allowed. This clears setgid where it has to.
    unsafe { bindings::setattr_copy(idmap.as_raw(), vfs, attr) };
    let times = inode.times();
    let new = SetAttr {
        mode: Some(inode.mode()),
        // SAFETY: the inode is alive.
        uid: Some(unsafe { bindings::rdax_i_uid_read(vfs) }),
        // SAFETY: as above.
        gid: Some(unsafe { bindings::rdax_i_gid_read(vfs) }),
        atime: Some(times.atime),
        mtime: Some(times.mtime),
        ctime: Some(times.ctime),
        ..SetAttr::default()
    };
    let result = match &acl {
        None => sb.check(sb.volume.set_attr(&mut meta, &new)),
        Some(_) => acl::store(inode, &mut meta, Kind::Access, acl.as_ref(), &new),
    };
    if result.is_err() {
        // The kernel's inode is restored.
        inode.set_times(before);
        // SAFETY: the inode is locked.
        unsafe {
            (&raw mut (*vfs).i_mode).write_volatile(meta.mode());
            bindings::rdax_i_uid_write(vfs, meta.uid());
            bindings::rdax_i_gid_write(vfs, meta.gid());
        }
    }
    result
}

/// Sets the size of the file to `size`. The lock is that of truncation: no reads or writes run.
fn truncate(inode: Exclusive<'_>, size: u64) -> Result {
    if !inode.is(bindings::S_IFREG) {
        return Err(EINVAL);
    }
    let info = inode.info();
    let sb = info.sb();
    if !info.is_dax() {
        if size > info.i_size() {
            cached::zero_cached_tail(inode)?;
        } else {
            cached::flush_size_to(info, size)?;
        }
    }
    let mut faults_out = InvalidateLock::new(inode);
    if size < info.i_size() {
        dax::break_layout(&mut faults_out, size.div_ceil(BLOCK), u64::MAX)?;
        // Pages of the cache are dropped before their blocks are freed, and private copies of pages
        // beyond the end, too.
        info.set_i_size(size);
        dax::wait_for_copies(&faults_out);
        // SAFETY: the inode is alive, and its size set.
        unsafe { bindings::truncate_pagecache(info.as_vfs(), i64::try_from(size)?) };
    }
    sb.check(touching([Some(info)], |now| {
        let mut meta = info.meta();
        let result = sb.volume.truncate(&mut meta, size, now);
        // After an error the size is the old one.
        info.set_i_size(meta.size());
        info.update_blocks(&meta);
        result?;
        info.set_mtime(now);
        Ok(())
    }))
}
