// SPDX-License-Identifier: GPL-2.0

//! ioctl(2) on files and directories: the commands that the VFS leaves to the file system.

use kernel::error::code::*;
use kernel::error::to_result;
use kernel::ioctl::{_IOR, _IOW, _IOWR};
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

use super::shutdown;
use crate::bindings;
use crate::mount::object::File;

/// A label in user memory, `FSLABEL_MAX` bytes.
type Label = [u8; 256];

/// `FS_IOC_SHUTDOWN`, `FS_IOC_GETFSLABEL` and `FS_IOC_SETFSLABEL` of linux/fs.h.
const FS_IOC_SHUTDOWN: u32 = _IOR::<u32>(b'X' as u32, 125);
const FS_IOC_GETFSLABEL: u32 = _IOR::<Label>(0x94, 49);
const FS_IOC_SETFSLABEL: u32 = _IOW::<Label>(0x94, 50);
/// `FS_IOC_GETVERSION` of linux/fs.h, and its number for 32-bit programs. Both use an `int`.
const FS_IOC_GETVERSION: u32 = _IOR::<u64>(b'v' as u32, 1);
const FS_IOC32_GETVERSION: u32 = _IOR::<u32>(b'v' as u32, 1);
/// `FITRIM` of linux/fs.h; the argument is three 64-bit numbers.
const FITRIM: u32 = _IOWR::<[u64; 3]>(b'X' as u32, 121);

/// `->unlocked_ioctl`.
pub fn ioctl(file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
    match cmd {
        FS_IOC_SHUTDOWN => shutdown::ioctl(file.inode().sb(), arg)?,
        FS_IOC_GETFSLABEL => get_label(file, arg)?,
        FS_IOC_SETFSLABEL => set_label(file, arg)?,
        FS_IOC_GETVERSION | FS_IOC32_GETVERSION => get_version(file, arg)?,
        // Persistent memory does not need it.
        FITRIM => return Err(EOPNOTSUPP),
        _ => return Err(ENOTTY),
    }
    Ok(0)
}

fn get_label(file: &File, arg: UserPtr) -> Result {
    let sb = file.inode().sb();
    sb.check_alive()?;
    let (label, mut bytes) = (sb.volume.label(), [0; size_of::<Label>()]);
    bytes[..label.len()].copy_from_slice(&label);
    UserSlice::new(arg, bytes.len())
        .writer()
        .write_slice(&bytes)
}

fn get_version(file: &File, arg: UserPtr) -> Result {
    let info = file.inode();
    info.sb().check_alive()?;
    UserSlice::new(arg, size_of::<u32>())
        .writer()
        .write_slice(&info.generation().to_ne_bytes())
}

fn set_label(file: &File, arg: UserPtr) -> Result {
    // SAFETY: looks at the credentials of the current task. CAST: a small constant.
    if !unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as i32) } {
        return Err(EPERM);
    }
    let mut bytes: Label = [0; size_of::<Label>()];
    UserSlice::new(arg, bytes.len())
        .reader()
        .read_slice(&mut bytes)?;
    let label = bytes.split(|&b| b == 0).next().unwrap_or(&[]);
    let label = core::str::from_utf8(label).map_err(|_| EINVAL)?;
    let sb = file.inode().sb();
    // SAFETY: the file is open.
    to_result(unsafe { bindings::mnt_want_write_file(file.as_raw()) })?;
    let result = sb
        .check_writable()
        .and_then(|()| sb.check(sb.volume.set_label(label)));
    // SAFETY: taken above.
    unsafe { bindings::mnt_drop_write_file(file.as_raw()) };
    result
}
