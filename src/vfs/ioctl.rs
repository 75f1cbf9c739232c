// SPDX-License-Identifier: GPL-2.0

//! ioctl(2) on files and directories, as far as the VFS leaves it to the file system.

use kernel::error::code::*;
use kernel::ioctl::_IOR;
use kernel::prelude::*;
use kernel::uaccess::UserPtr;

use super::object::File;
use super::shutdown;

/// `FS_IOC_SHUTDOWN` of linux/fs.h.
const FS_IOC_SHUTDOWN: u32 = _IOR::<u32>(b'X' as u32, 125);

/// `->unlocked_ioctl`.
pub fn ioctl(file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
    match cmd {
        FS_IOC_SHUTDOWN => shutdown::ioctl(file.inode().sb(), arg).map(|()| 0),
        _ => Err(ENOTTY),
    }
}
