// SPDX-License-Identifier: GPL-2.0

//! Open directories: readdir and its positions.
//!
//! The position after a name is the name's cookie, which never changes while the name exists and
//! orders the names of the directory. So a position stays valid however the directory changes.

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::uaccess::UserPtr;

use super::ioctl;
use super::namei::Directory;
use super::table::file::{DirContext, DirFileOperations, DirFileTable, FileTable};
use super::table::inode::{DirTable, InodeTable};
use crate::bindings;
use crate::mount::inode::InodeInfo;
use crate::mount::object::File;

static INODE: InodeTable = InodeTable::new(DirTable::<Directory>::OPERATIONS);

static FILE: FileTable = FileTable::new(bindings::file_operations {
    setlease: Some(bindings::generic_setlease),
    ..DirFileTable::<OpenDirectory>::OPERATIONS
});

/// Makes `info`, which others do not see yet, a directory.
pub fn set_operations(info: &InodeInfo) {
    INODE.install(info);
    FILE.install(info);
}

/// The operations of an open directory.
struct OpenDirectory;

impl DirFileOperations for OpenDirectory {
    fn llseek(file: &File, offset: i64, whence: i32) -> Result<i64> {
        // Positions are cookies of 63 bits.
        // SAFETY: the file is open.
        let pos = unsafe {
            bindings::generic_file_llseek_size(file.as_raw(), offset, whence, i64::MAX, i64::MAX)
        };
        result(pos)
    }

    fn iterate(file: &File, ctx: &mut DirContext) -> Result {
        let dir = file.inode();
        let sb = dir.sb();
        sb.check_alive()?;
        if !ctx.emit_dots(file) {
            return Ok(());
        }
        // The names after the one at the position.
        let mut next = Some(ctx.pos() + 1);
        while let Some(from) = next {
            let listing = sb.check(sb.volume.readdir(&mut dir.meta(), from))?;
            let Some(listing) = listing else { break };
            // `emit` may fault in user memory, so no lock of ours is held. i_rwsem keeps the names
            // unchanged.
            next = sb.check(listing.show(&sb.volume, &mut |entry| {
                if !ctx.emit(entry.name, entry.ino, entry.file_type) {
                    return false;
                }
                ctx.set_pos(entry.cookie);
                true
            }))?;
        }
        Ok(())
    }

    fn fsync(file: &File, datasync: bool) -> Result {
        file.inode().sb().check_alive()?;
        // Names are durable when the call that created them returns.
        if datasync {
            return Ok(());
        }
        file.inode().write_times()
    }

    fn ioctl(file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
        ioctl::ioctl(file, cmd, arg)
    }
}

/// A position, or an error as a negative number.
pub fn result(pos: i64) -> Result<i64> {
    if pos < 0 {
        // CAST: an errno is small.
        to_result(pos as i32)?;
    }
    Ok(pos)
}
