// SPDX-License-Identifier: GPL-2.0

//! A shared mapping of a file, and what a program does to it.

use std::fs::File;

use rdax_test_sys::{Map, PAGE};
use rustix::io::Result;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

/// A file mapped from its beginning, readable and writable.
pub struct Mapping(Map);

impl Mapping {
    /// Maps the first `len` bytes of `file`, in whole pages; with `MAP_SYNC` if `sync`.
    pub fn new(file: &File, len: u64, sync: bool) -> Result<Self> {
        let len = (len as usize).next_multiple_of(PAGE);
        let flags = match sync {
            true => MapFlags::SHARED_VALIDATE | MapFlags::SYNC,
            false => MapFlags::SHARED,
        };
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        Ok(Mapping(Map::new(file, len, protection, flags)?))
    }

    /// Bytes mapped.
    pub fn len(&self) -> u64 {
        self.0.size() as u64
    }

    /// Stores `bytes` at `at`, both in multiples of 8, word by word in the order of their
    /// addresses.
    pub fn store(&self, at: u64, bytes: &[u8]) {
        self.0.store_words(at as usize, bytes);
    }

    /// Loads a byte of each page that the range touches.
    pub fn load(&self, at: u64, len: u64) {
        let (at, len) = (at as usize, len as usize);
        for page in at / PAGE..(at + len).div_ceil(PAGE) {
            self.0.load(page * PAGE);
        }
    }

    /// Writes the lines of the range back, and waits until they are durable: what a program may do
    /// by itself on a mapping with `MAP_SYNC`.
    pub fn flush(&self, at: u64, len: u64) {
        self.0.write_back(at as usize, len as usize);
    }

    /// `msync(MS_SYNC)` of the pages that the range touches.
    pub fn sync(&self, at: u64, len: u64) -> Result<()> {
        let (at, len) = (at as usize, len as usize);
        let start = at / PAGE * PAGE;
        let len = (at + len).next_multiple_of(PAGE) - start;
        Ok(self.0.msync(start, len, MsyncFlags::SYNC)?)
    }
}
