// SPDX-License-Identifier: GPL-2.0

//! Files by handle: inode number and generation, which is new for each user of a number.

use kernel::error::code::*;
use kernel::prelude::*;

use super::inode::{cached, iget};
use super::table::export::{ExportOperations, ExportTable, Handle};
use crate::bindings;
use crate::mount::inode::{InodeInfo, InodeRef};
use crate::mount::object::SuperBlock;
use crate::mount::table::Table;

static EXPORT: Table<bindings::export_operations> = ExportTable::<Export>::table();

/// For the super block.
pub fn operations() -> *const bindings::export_operations {
    EXPORT.as_ptr()
}

/// The operations on handles.
struct Export;

impl ExportOperations for Export {
    fn find(sb: &SuperBlock, handle: Handle) -> Result<InodeRef> {
        let info = sb.info();
        info.check_alive()?;
        let found = match cached(info, handle.ino) {
            Some(inode) => inode,
            // Checked before it is read: an inode that is just being created, which an old handle
            // of its number must not touch, has another generation.
            None if info.check(info.volume.is_current(handle.ino, handle.generation))? => {
                iget(info, handle.ino)?
            }
            None => return Err(ESTALE),
        };
        if found.generation() != handle.generation {
            return Err(ESTALE);
        }
        Ok(found)
    }

    fn parent(dir: &InodeInfo) -> Result<InodeRef> {
        let sb = dir.sb();
        sb.check_alive()?;
        let parent = dir.meta().parent();
        iget(sb, parent)
    }
}
