// SPDX-License-Identifier: GPL-2.0

//! Symbolic links. The target is read with the inode and kept in memory, so that path walks follow
//! it without a lock and without sleeping.

use super::attr::Attributes;
use super::table::inode::{AttrTable, InodeTable};
use crate::bindings;
use crate::mount::inode::InodeInfo;
use crate::mount::target::Target;

static INODE: InodeTable = InodeTable::new(bindings::inode_operations {
    get_link: Some(bindings::simple_get_link),
    // A symlink has no permissions of its own.
    get_inode_acl: None,
    set_acl: None,
    ..AttrTable::<Attributes>::OPERATIONS
});

/// Makes `info`, which others do not see yet, a symlink to `target`, which it keeps.
pub fn set_operations(info: &InodeInfo, target: Option<&Target>) {
    INODE.install(info);
    let Some(target) = target else { return };
    let len = i32::try_from(target.as_bytes().len()).unwrap_or(0);
    // SAFETY: the bytes end with their only zero, do not move (the target is not changed once it
    // is set) and are freed with the inode, an RCU grace period after the last path walk.
    unsafe {
        bindings::rdax_set_cached_link(
            info.as_vfs(),
            target.as_bytes().as_ptr().cast_mut().cast(),
            len,
        );
    }
}
