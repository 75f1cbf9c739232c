// SPDX-License-Identifier: GPL-2.0

//! System calls that std lacks.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes in a page.
pub const PAGE: usize = 4096;

const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

fn check(status: libc::c_int) -> io::Result<()> {
    match status {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// mount(2) of rdax.
pub fn mount(device: &Path, at: &Path) -> io::Result<()> {
    let (device, at) = (text(device)?, text(at)?);
    // SAFETY: the strings end with zero, and no data is given.
    check(unsafe {
        let name = c"rdax".as_ptr();
        libc::mount(device.as_ptr(), at.as_ptr(), name, 0, std::ptr::null())
    })
}

/// Makes a mount writable, or not.
pub fn remount(at: &Path, read_only: bool) -> io::Result<()> {
    let at = text(at)?;
    let flags = libc::MS_REMOUNT | if read_only { libc::MS_RDONLY } else { 0 };
    // SAFETY: as above.
    check(unsafe {
        let none = std::ptr::null();
        libc::mount(none, at.as_ptr(), none, flags, std::ptr::null())
    })
}

/// umount2(2).
pub fn unmount(at: &Path, flags: i32) -> io::Result<()> {
    let at = text(at)?;
    // SAFETY: the string ends with zero.
    check(unsafe { libc::umount2(at.as_ptr(), flags) })
}

/// Freezes the file system of `file`, or thaws it.
pub fn freeze(file: &File, frozen: bool) -> io::Result<()> {
    let request = if frozen { FIFREEZE } else { FITHAW };
    // SAFETY: these requests take no argument.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, 0) })
}

/// sync(2).
pub fn sync() {
    // SAFETY: takes no argument.
    unsafe { libc::sync() };
}

/// syncfs(2).
pub fn syncfs(file: &File) -> io::Result<()> {
    // SAFETY: a plain system call.
    check(unsafe { libc::syncfs(file.as_raw_fd()) })
}

/// Loads a module.
pub fn insmod(module: &Path) -> io::Result<()> {
    let file = File::open(module)?;
    // SAFETY: the parameters are an empty string.
    let status =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    check(status as i32)
}

/// Unloads the module rdax.
pub fn rmmod() -> io::Result<()> {
    // SAFETY: the name ends with zero.
    let status =
        unsafe { libc::syscall(libc::SYS_delete_module, c"rdax".as_ptr(), libc::O_NONBLOCK) };
    check(status as i32)
}

/// A shared mapping of the start of a file.
pub struct Map {
    base: *mut u8,
    len: usize,
}

impl Map {
    /// Maps `len` bytes.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: the kernel picks the address.
        let base = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let fd = file.as_raw_fd();
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Map {
            base: base.cast(),
            len,
        })
    }

    /// Stores a byte. A signal may be the answer.
    pub fn store(&self, at: usize, value: u8) {
        // SAFETY: inside the mapping.
        unsafe { self.base.add(at % self.len).write_volatile(value) };
    }

    /// Loads a byte. A signal may be the answer.
    pub fn load(&self, at: usize) -> u8 {
        // SAFETY: inside the mapping.
        unsafe { self.base.add(at % self.len).read_volatile() }
    }

    /// msync(2) of all of it.
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: changes no memory.
        check(unsafe { libc::msync(self.base.cast(), self.len, libc::MS_SYNC) })
    }

    /// madvise(2) of the page at `at`.
    pub fn advise(&self, at: usize, advice: i32) -> io::Result<()> {
        // SAFETY: inside the mapping, which holds nothing that Rust relies on.
        check(unsafe {
            let page = self.base.add(at % self.len / PAGE * PAGE);
            libc::madvise(page.cast(), PAGE, advice)
        })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}
