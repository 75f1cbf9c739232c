// SPDX-License-Identifier: GPL-2.0

//! What is asked of files and file systems by ioctls, and by calls that rustix lacks.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, NoArg, Opcode, Updater};

use crate::{check, of, Result};

/// Freezes the file system of `file`, or thaws it.
pub fn freeze(file: &File, frozen: bool) -> Result<()> {
    const FIFREEZE: Opcode = opcode::read_write::<i32>(b'X', 119);
    const FITHAW: Opcode = opcode::read_write::<i32>(b'X', 120);
    // SAFETY: the two requests take no argument.
    unsafe {
        match frozen {
            true => ioctl(file, NoArg::<FIFREEZE>::new()).map_err(of("FIFREEZE")),
            false => ioctl(file, NoArg::<FITHAW>::new()).map_err(of("FITHAW")),
        }
    }
}

/// The generation of an inode.
pub fn generation(file: &File) -> Result<i32> {
    const FS_IOC_GETVERSION: Opcode = opcode::read::<libc::c_long>(b'v', 1);
    let mut generation = [0i32; 2];
    // SAFETY: the buffer has room for a long, though an int is filled.
    unsafe { ioctl(file, Updater::<FS_IOC_GETVERSION, _>::new(&mut generation)) }
        .map_err(of("FS_IOC_GETVERSION"))?;
    Ok(generation[0])
}

/// Where the file system of `file` is below /sys/fs.
pub fn sysfs_path(file: &File) -> Result<String> {
    const FS_IOC_GETFSSYSFSPATH: Opcode = opcode::read::<[u8; 129]>(0x15, 1);
    // A length, and 128 bytes.
    let mut path = [0u8; 129];
    // SAFETY: the buffer is a `struct fs_sysfs_path`.
    unsafe { ioctl(file, Updater::<FS_IOC_GETFSSYSFSPATH, _>::new(&mut path)) }
        .map_err(of("FS_IOC_GETFSSYSFSPATH"))?;
    let name = &path[1..][..usize::from(path[0])];
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// The block of the device that block `block` of a file is (FIBMAP); 0 for none.
pub fn block_of(file: &File, block: i32) -> Result<i32> {
    const FIBMAP: Opcode = opcode::none(0, 1);
    let mut at = block;
    // SAFETY: the call changes the number.
    unsafe { ioctl(file, Updater::<FIBMAP, _>::new(&mut at)) }.map_err(of("FIBMAP"))?;
    Ok(at)
}

/// sync_file_range(2) with all three flags, of `len` bytes from `at`; 0 bytes: to the end.
pub fn sync_file_range(file: &File, at: u64, len: u64) -> Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: takes no pointer.
    let status = unsafe { libc::sync_file_range(file.as_raw_fd(), at as i64, len as i64, flags) };
    check("sync_file_range", status)?;
    Ok(())
}

fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| of("a path")(Errno::INVAL))
}

/// swapon(2).
pub fn swapon(path: &Path) -> Result<()> {
    let path = c_string(path)?;
    // SAFETY: the path is a C string.
    check("swapon", unsafe { libc::swapon(path.as_ptr(), 0) })?;
    Ok(())
}

/// `struct file_handle` with room for the longest.
#[repr(C)]
pub struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

impl Handle {
    /// That of the file at `path`.
    pub fn of(path: &Path) -> Result<Handle> {
        let path = c_string(path)?;
        let mut handle = Handle {
            bytes: 128,
            kind: 0,
            handle: [0; 128],
        };
        let mut mount = 0;
        // SAFETY: the path is a C string, and the handle as long as it says.
        check("name_to_handle_at", unsafe {
            let handle = (&raw mut handle).cast();
            libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), handle, &mut mount, 0)
        })?;
        Ok(handle)
    }

    /// Opens it, for reading; `dir` is on its file system.
    pub fn open(&mut self, dir: &File) -> Result<File> {
        // SAFETY: the handle is as long as it says.
        let fd = check("open_by_handle_at", unsafe {
            let handle = (&raw mut *self).cast();
            libc::open_by_handle_at(dir.as_raw_fd(), handle, libc::O_RDONLY)
        })?;
        // SAFETY: the descriptor is new and ours.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
    }
}
