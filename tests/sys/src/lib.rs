// SPDX-License-Identifier: GPL-2.0

//! The system calls of the tests that rustix has no safe function for: mappings, child processes,
//! ioctls, io_uring, userfaultfd. What rustix has one for, the tests call as it is.

mod file;
mod guard;
mod map;
pub mod nbd;
mod process;
mod uring;
mod userfault;

use std::{fmt, io};

use rustix::io::Errno;

pub use file::{block_of, freeze, generation, swapon, sync_file_range, sysfs_path, Handle};
pub use guard::{catch_faults, Fault};
pub use map::{shared_counters, Addresses, Map};
pub use process::{
    alarm, faults, fork, interrupt_every, run_when_idle, Child, End, Stopped, Whose,
};
pub use uring::Ring;
pub use userfault::Userfault;

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// A system call that failed. Its source is the [`Errno`].
#[derive(Debug)]
pub struct Error {
    call: &'static str,
    errno: Errno,
}

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Why it failed.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.call)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.errno)
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Errno {
        error.errno
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        error.errno.into()
    }
}

/// For `map_err`: the error of a call of that name.
fn of(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error { call, errno }
}

/// The result of a function of the C library that returns -1 on failure.
fn check(call: &'static str, status: libc::c_int) -> Result<libc::c_int> {
    match status {
        -1 => Err(last(call)),
        status => Ok(status),
    }
}

/// As [`check`], for those that return a length.
fn check_len(call: &'static str, len: isize) -> Result<usize> {
    usize::try_from(len).map_err(|_| last(call))
}

fn last(call: &'static str) -> Error {
    let errno = Errno::from_io_error(&io::Error::last_os_error());
    of(call)(errno.unwrap_or(Errno::IO))
}
