// SPDX-License-Identifier: GPL-2.0

//! userfaultfd: memory whose pages come when the program wants, or whose stores it wants to know.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::ioctl::{ioctl, opcode, Opcode, Updater};
use rustix::mm::{userfaultfd, UserfaultfdFlags};

use crate::{of, Map, Result};

/// Of linux/userfaultfd.h.
const UFFD_API: u64 = 0xaa;
const USER_MODE_ONLY: UserfaultfdFlags = UserfaultfdFlags::from_bits_retain(1);
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const REGISTER_MODE_MISSING: u64 = 1;
const REGISTER_MODE_WP: u64 = 1 << 1;
const WRITEPROTECT_MODE_WP: u64 = 1;
const UFFDIO_API: Opcode = opcode::read_write::<[u64; 3]>(0xaa, 0x3f);
const UFFDIO_REGISTER: Opcode = opcode::read_write::<[u64; 4]>(0xaa, 0);
const UFFDIO_COPY: Opcode = opcode::read_write::<[u64; 5]>(0xaa, 3);
const UFFDIO_WRITEPROTECT: Opcode = opcode::read_write::<[u64; 3]>(0xaa, 6);

/// What of a mapping is watched.
pub struct Userfault(OwnedFd);

impl Userfault {
    /// Who touches a page of the `len` bytes at `at` of `map` sleeps until the page comes.
    pub fn missing(map: &Map, at: usize, len: usize) -> Result<Userfault> {
        Userfault::new(
            UserfaultfdFlags::CLOEXEC,
            0,
            map,
            at,
            len,
            REGISTER_MODE_MISSING,
        )
    }

    /// Stores to the first `len` bytes of `map` are tracked by write-protecting it
    /// (`UFFD_FEATURE_WP_ASYNC`).
    pub fn stores(map: &Map, len: usize) -> Result<Userfault> {
        let flags = UserfaultfdFlags::CLOEXEC | USER_MODE_ONLY;
        Userfault::new(flags, UFFD_FEATURE_WP_ASYNC, map, 0, len, REGISTER_MODE_WP)
    }

    fn new(
        flags: UserfaultfdFlags,
        features: u64,
        map: &Map,
        at: usize,
        len: usize,
        mode: u64,
    ) -> Result<Userfault> {
        // SAFETY: of memory that nothing in Rust refers to.
        let fd = unsafe { userfaultfd(flags) }.map_err(of("userfaultfd"))?;
        let watch = Userfault(fd);
        watch.request::<UFFDIO_API, 3>("UFFDIO_API", [UFFD_API, features, 0])?;
        let range = [map.at(at, len) as u64, len as u64, mode, 0];
        watch.request::<UFFDIO_REGISTER, 4>("UFFDIO_REGISTER", range)?;
        Ok(watch)
    }

    /// Write-protects `len` bytes of `map` from `at`: pages that are not mapped get markers.
    pub fn protect(&self, map: &Map, at: usize, len: usize) -> Result<()> {
        let range = [map.at(at, len) as u64, len as u64, WRITEPROTECT_MODE_WP];
        self.request::<UFFDIO_WRITEPROTECT, 3>("UFFDIO_WRITEPROTECT", range)
    }

    /// Waits until somebody sleeps for a page; false if nobody does.
    pub fn wait_for_sleeper(&self, limit: Duration) -> Result<bool> {
        let limit = Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        if poll(&mut fds, Some(&limit)).map_err(of("poll"))? == 0 {
            return Ok(false);
        }
        let mut message = [0u8; 32];
        rustix::io::read(&self.0, &mut message).map_err(of("read of a userfaultfd"))?;
        Ok(true)
    }

    /// `bytes` come, whole pages, at `at` of `map`.
    pub fn come(&self, map: &Map, at: usize, bytes: &[u8]) -> Result<()> {
        let (to, from, len) = (map.at(at, bytes.len()), bytes.as_ptr(), bytes.len());
        let copy = [to as u64, from as u64, len as u64, 0, 0];
        self.request::<UFFDIO_COPY, 5>("UFFDIO_COPY", copy)
    }

    fn request<const REQUEST: Opcode, const N: usize>(
        &self,
        name: &'static str,
        mut argument: [u64; N],
    ) -> Result<()> {
        // SAFETY: the argument is as large as the request says, and the call fills it at most;
        // addresses in it are those of mappings, to which nothing in Rust refers.
        unsafe { ioctl(&self.0, Updater::<REQUEST, _>::new(&mut argument)) }.map_err(of(name))
    }
}
