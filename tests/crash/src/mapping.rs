// SPDX-License-Identifier: GPL-2.0

//! A shared mapping of a file, and what a program does to it.

use std::arch::asm;
use std::fs::File;
use std::ptr;

use rustix::io::Result;
use rustix::mm::{mmap, msync, munmap, MapFlags, MsyncFlags, ProtFlags};

const PAGE: u64 = 4096;
const LINE: u64 = 64;

/// A file mapped from its beginning, readable and writable.
pub struct Mapping {
    base: *mut u8,
    len: u64,
}

impl Mapping {
    /// Maps the first `len` bytes of `file`, in whole pages; with `MAP_SYNC` if `sync`.
    pub fn new(file: &File, len: u64, sync: bool) -> Result<Self> {
        let len = len.next_multiple_of(PAGE);
        let flags = match sync {
            true => MapFlags::SHARED_VALIDATE | MapFlags::SYNC,
            false => MapFlags::SHARED,
        };
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so no memory is replaced.
        let base = unsafe { mmap(ptr::null_mut(), len as usize, protection, flags, file, 0)? };
        Ok(Mapping {
            base: base.cast(),
            len,
        })
    }

    /// Bytes mapped.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The address of the `len` bytes at `at`.
    fn at(&self, at: u64, len: u64) -> *mut u8 {
        let end = at.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "outside the mapping"
        );
        self.base.wrapping_add(at as usize)
    }

    /// Stores `bytes` at `at`, both in multiples of 8, word by word in the order of their
    /// addresses.
    pub fn store(&self, at: u64, bytes: &[u8]) {
        let mut to = self.at(at, bytes.len() as u64).cast::<u64>();
        for word in bytes.chunks_exact(8) {
            let mut value = [0; 8];
            value.copy_from_slice(word);
            // SAFETY: within the mapping, see `at()`, and aligned, as `at` is. Nothing in this
            // program refers to mapped memory.
            unsafe { to.write_volatile(u64::from_ne_bytes(value)) };
            to = to.wrapping_add(1);
        }
    }

    /// Loads a byte of each page that the range touches.
    pub fn load(&self, at: u64, len: u64) {
        for page in at / PAGE..(at + len).div_ceil(PAGE) {
            // SAFETY: within the mapping, see `at()`.
            unsafe { self.at(page * PAGE, 1).read_volatile() };
        }
    }

    /// Writes the lines of the range back, and waits until they are durable: what a program may do
    /// by itself on a mapping with `MAP_SYNC`.
    pub fn flush(&self, at: u64, len: u64) {
        for line in at / LINE..(at + len).div_ceil(LINE) {
            let line = self.at(line * LINE, LINE);
            // SAFETY: within the mapping; clwb changes no content.
            unsafe { asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags)) };
        }
        // SAFETY: a fence.
        unsafe { asm!("sfence", options(nostack, preserves_flags)) };
    }

    /// `msync(MS_SYNC)` of the pages that the range touches.
    pub fn sync(&self, at: u64, len: u64) -> Result<()> {
        let start = at / PAGE * PAGE;
        let len = (at + len).next_multiple_of(PAGE) - start;
        // SAFETY: within the mapping, see `at()`; msync changes no memory.
        unsafe { msync(self.at(start, len).cast(), len as usize, MsyncFlags::SYNC) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing refers to it any more.
        let unmapped = unsafe { munmap(self.base.cast(), self.len as usize) };
        debug_assert!(unmapped.is_ok());
    }
}
