// SPDX-License-Identifier: GPL-2.0

//! Memory of which some pages come when a scenario wants (userfaultfd): who touches one sleeps.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::sys::{check, check_len, long, Map, PAGE};

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

/// Anonymous memory.
pub struct Missing {
    /// All of it.
    pub map: Map,
    pages: usize,
    present: usize,
    uffd: OwnedFd,
}

impl Missing {
    /// `pages` pages, of which the first `present` are full of `value`, and the others are missing.
    pub fn new(pages: usize, present: usize, value: u8) -> Result<Self> {
        let map = Map::anonymous(pages * PAGE)?;
        for at in 0..present * PAGE {
            map.store(at, value);
        }
        // SAFETY: a plain system call.
        let uffd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        let uffd = check(uffd as i32).context("userfaultfd")?;
        // SAFETY: the descriptor is new and ours.
        let uffd = unsafe { OwnedFd::from_raw_fd(uffd) };
        let mut api = [UFFD_API, 0, 0];
        let rest = map.at(present * PAGE) as u64;
        let len = ((pages - present) * PAGE) as u64;
        let mut register = [rest, len, UFFDIO_REGISTER_MODE_MISSING, 0];
        // SAFETY: both take the address of a structure of words, as long as these.
        unsafe {
            check(libc::ioctl(uffd.as_raw_fd(), UFFDIO_API, &mut api)).context("UFFDIO_API")?;
            check(libc::ioctl(
                uffd.as_raw_fd(),
                UFFDIO_REGISTER,
                &mut register,
            ))
            .context("UFFDIO_REGISTER")?;
        }
        Ok(Missing {
            map,
            pages,
            present,
            uffd,
        })
    }

    /// Waits until somebody sleeps for a page that is missing.
    pub fn wait_for_sleeper(&self) -> Result<()> {
        let mut poll = libc::pollfd {
            fd: self.uffd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one structure.
        let ready = check(unsafe { libc::poll(&mut poll, 1, long().as_millis() as i32) })?;
        ensure!(ready == 1, "nobody touched a missing page");
        let mut message = [0u8; 32];
        // SAFETY: the buffer has as many bytes.
        check_len(unsafe {
            let buffer = message.as_mut_ptr().cast();
            libc::read(self.uffd.as_raw_fd(), buffer, message.len())
        })?;
        // It is about to sleep.
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }

    /// The missing pages come, full of `value`.
    pub fn come(&self, value: u8) -> Result<()> {
        let page = [value; PAGE];
        for nth in self.present..self.pages {
            let to = self.map.at(nth * PAGE) as u64;
            let mut copy = [to, page.as_ptr() as u64, PAGE as u64, 0, 0];
            // SAFETY: the source is a page; the target is ours, and nobody in Rust refers to it.
            check(unsafe { libc::ioctl(self.uffd.as_raw_fd(), UFFDIO_COPY, &mut copy) })
                .context("UFFDIO_COPY")?;
        }
        Ok(())
    }
}
