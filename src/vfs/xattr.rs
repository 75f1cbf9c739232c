// SPDX-License-Identifier: GPL-2.0

//! Extended attributes, and the initial ones of a new inode.
//!
//! The volume stores them; the VFS checks permissions. An inode without attributes is known without
//! reading anything: `has_xattrs()`, and for ACLs the kernel's cache.

use kernel::prelude::*;

use super::table::xattr::{initial_security, Handlers, XattrOperations, XattrTable};
use crate::bindings;
use crate::env::Vec;
use crate::mount::inode::InodeInfo;
use crate::mount::lock::Exclusive;
use crate::mount::object::Dentry;
use crate::mount::time::touching;
use crate::volume::namespace::SetAttr;
use crate::volume::xattr::{Must, Xattr};

static HANDLERS: Handlers<4> = XattrTable::<Xattrs>::handlers();

/// For the super block.
pub fn handlers() -> *const *const bindings::xattr_handler {
    HANDLERS.as_ptr()
}

/// The operations on extended attributes.
pub struct Xattrs;

impl XattrOperations for Xattrs {
    fn get<'b>(
        info: &InodeInfo,
        name: &[u8],
        room: impl FnOnce(usize) -> Option<&'b mut [u8]>,
    ) -> Result<usize> {
        let sb = info.sb();
        sb.check_alive()?;
        let mut meta = info.meta();
        sb.check(sb.volume.get_xattr(&mut meta, name, room))
    }

    fn set(inode: Exclusive<'_>, name: &[u8], value: Option<&[u8]>, must: Must) -> Result {
        let sb = inode.sb();
        sb.check_writable()?;
        sb.check(touching([Some(inode.info())], |now| {
            let set = SetAttr {
                ctime: Some(now),
                ..SetAttr::default()
            };
            let mut meta = inode.meta();
            sb.volume.set_xattr(&mut meta, name, value, must, &set)?;
            inode.update_blocks(&meta);
            Ok(())
        }))
    }

    fn list(info: &InodeInfo, each: &mut dyn FnMut(&[u8])) -> Result {
        let sb = info.sb();
        sb.check_alive()?;
        // SAFETY: asks about the current task. CAST: a small number.
        let all = unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as i32) };
        let mut meta = info.meta();
        sb.check(sb.volume.list_xattrs(&mut meta, &mut |name| {
            if all || !name.starts_with(b"trusted.") {
                each(name);
            }
        }))
    }
}

/// The initial attributes of a new inode.
#[derive(Default)]
pub struct Initial(Vec<(Vec<u8>, Vec<u8>)>);

impl Initial {
    /// Adds one.
    pub fn add(&mut self, name: &[&[u8]], value: &[u8]) -> Result {
        let (mut whole, mut bytes) = (Vec::new(), Vec::new());
        for part in name {
            whole.extend_from_slice(part)?;
        }
        bytes.extend_from_slice(value)?;
        Ok(self.0.push((whole, bytes))?)
    }

    /// Adds those of the security modules, for `inode`, which is to be `name` in `dir`.
    pub fn add_security(
        &mut self,
        inode: *mut bindings::inode,
        dir: Exclusive<'_>,
        name: &Dentry,
    ) -> Result {
        initial_security(inode, dir, name, &mut |name, value| {
            self.add(&[b"security.", name], value)
        })
    }

    /// The same for the volume.
    pub fn as_xattrs(&self) -> Result<Vec<Xattr<'_>>> {
        let mut xattrs = Vec::new();
        for (name, value) in self.0.iter() {
            xattrs.push((&name[..], &value[..]))?;
        }
        Ok(xattrs)
    }
}
