// SPDX-License-Identifier: GPL-2.0

//! File attributes (chattr(1), `FS_IOC_SETFLAGS`, `FS_IOC_FSSETXATTR`), and which files are DAX.
//!
//! The attributes are on the media ([`Inode::attrs`]). The VFS enforces immutable, append and
//! noatime by flags of the kernel's inode, which change at once; nodump is for programs. The
//! attribute DAX is a preference: `S_DAX`, which decides how a file is read, written and mapped, is
//! set when the inode is read and stays as it is until eviction. So a change of the attribute
//! requests eviction with the last user. (Documentation/filesystems/dax.rst in the kernel.)

use kernel::error::code::*;
use kernel::prelude::*;

use crate::bindings;
use crate::mount::inode::InodeInfo;
use crate::mount::lock::Exclusive;
use crate::mount::options::Dax;
use crate::mount::time::touching;
use crate::volume::format::{
    ATTRS_KNOWN, ATTR_APPEND, ATTR_DAX, ATTR_IMMUTABLE, ATTR_NOATIME, ATTR_NODUMP,
};
use crate::volume::inode::Inode;
use crate::volume::namespace::SetAttr;

/// The flags of the kernel's inode that follow the attributes at once.
const LIVE: u32 = bindings::RDAX_S_IMMUTABLE | bindings::RDAX_S_APPEND | bindings::RDAX_S_NOATIME;

/// Those that `attrs` ask for.
fn live(attrs: u32) -> u32 {
    [
        (ATTR_IMMUTABLE, bindings::RDAX_S_IMMUTABLE),
        (ATTR_APPEND, bindings::RDAX_S_APPEND),
        (ATTR_NOATIME, bindings::RDAX_S_NOATIME),
    ]
    .into_iter()
    .filter(|(attr, _)| attrs & attr != 0)
    .fold(0, |flags, (_, flag)| flags | flag)
}

/// Whether a file of type and mode `mode` is of the type `file_type`, `S_IF*`.
fn is(mode: u16, file_type: u32) -> bool {
    u32::from(mode) & bindings::S_IFMT == file_type
}

/// The flags of the kernel's inode for `meta`, which is being read: those above, and `S_DAX`.
pub fn of_inode(meta: &Inode, dax: Dax) -> u32 {
    let direct = match dax {
        Dax::Always => true,
        Dax::Inode => meta.attrs() & ATTR_DAX != 0,
        Dax::Never => false,
    };
    let direct = direct && is(meta.mode(), bindings::S_IFREG);
    live(meta.attrs()) | if direct { bindings::RDAX_S_DAX } else { 0 }
}

/// The attributes that a file of mode `mode` inherits from its directory, which has `attrs`.
pub fn inherited(attrs: u32, mode: u16) -> u32 {
    let all = if is(mode, bindings::S_IFREG) || is(mode, bindings::S_IFDIR) {
        ATTR_DAX | ATTR_NODUMP | ATTR_NOATIME
    } else {
        ATTR_NODUMP | ATTR_NOATIME
    };
    attrs & all
}

/// Adds what statx(2) shows of the attributes; the VFS adds whether the file is DAX.
pub fn fill_stat(info: &InodeInfo, stat: &mut bindings::kstat) {
    // SAFETY: the inode is alive, and `stat` the caller's.
    unsafe { bindings::generic_fill_statx_attr(info.as_vfs(), stat) };
    let nodump = u64::from(bindings::STATX_ATTR_NODUMP);
    stat.attributes_mask |= nodump;
    if info.attrs() & ATTR_NODUMP != 0 {
        stat.attributes |= nodump;
    }
}

/// Changes the attributes of `inode` to `attrs`, durably.
pub fn set(inode: Exclusive<'_>, attrs: u32) -> Result {
    if attrs & !ATTRS_KNOWN != 0 {
        return Err(EOPNOTSUPP);
    }
    let sb = inode.sb();
    sb.check_writable()?;
    let changed = sb.check(touching([Some(inode.info())], |now| {
        let mut meta = inode.meta();
        let changed = meta.attrs() ^ attrs;
        let new = SetAttr {
            attrs: Some(attrs),
            ctime: Some(now),
            ..SetAttr::default()
        };
        sb.volume.set_attr(&mut meta, &new)?;
        inode.set_attrs(&meta);
        Ok(changed)
    }))?;
    // SAFETY: the inode is alive and locked. It is asked to leave memory with its last user.
    unsafe {
        bindings::inode_set_flags(inode.as_vfs(), live(attrs), LIVE);
        if changed & ATTR_DAX != 0 && sb.options().dax == Dax::Inode && inode.is(bindings::S_IFREG)
        {
            bindings::d_mark_dontcache(inode.as_vfs());
        }
    }
    Ok(())
}
