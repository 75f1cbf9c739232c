// SPDX-License-Identifier: GPL-2.0

//! A device that may be written without changing the one below it: what is stored stays in memory
//! and is read back from there. `fsck.rdax -n` replays the journal into one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::volume::pmem::Pmem;
use crate::volume::Result;

/// Bytes kept together.
const PAGE: u64 = 4096;

type Pages = HashMap<u64, Box<[u8; PAGE as usize]>>;

/// A copy-on-write view of `below`.
pub struct Overlay<'a> {
    below: &'a dyn Pmem,
    pages: Mutex<Pages>,
}

impl<'a> Overlay<'a> {
    /// A view of `below` in which nothing is changed yet.
    pub fn new(below: &'a dyn Pmem) -> Self {
        Overlay {
            below,
            pages: Mutex::new(HashMap::new()),
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `part` with each page that `at..at + len` touches: its number, the first byte in it,
    /// and the range of bytes of the request.
    fn split(
        at: u64,
        len: usize,
        mut part: impl FnMut(u64, usize, std::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < len {
            let byte = at + done as u64;
            let first = (byte % PAGE) as usize;
            let count = (PAGE as usize - first).min(len - done);
            part(byte / PAGE, first, done..done + count)?;
            done += count;
        }
        Ok(())
    }
}

impl Pmem for Overlay<'_> {
    fn len(&self) -> u64 {
        self.below.len()
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let pages = self.pages();
        Self::split(at, buf.len(), |page, first, range| match pages.get(&page) {
            Some(bytes) => {
                let last = first + range.len();
                buf[range].copy_from_slice(&bytes[first..last]);
                Ok(())
            }
            None => self.below.read(page * PAGE + first as u64, &mut buf[range]),
        })
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let mut pages = self.pages();
        Self::split(at, bytes.len(), |page, first, range| {
            let whole = match pages.entry(page) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    let mut whole = Box::new([0; PAGE as usize]);
                    // The device may end within its last page.
                    let there = (self.below.len() - page * PAGE).min(PAGE) as usize;
                    if range.len() < there {
                        self.below.read(page * PAGE, &mut whole[..there])?;
                    }
                    entry.insert(whole)
                }
            };
            whole[first..first + range.len()].copy_from_slice(&bytes[range]);
            Ok(())
        })
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.store(at, bytes)
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<()> {
        const ZERO: [u8; PAGE as usize] = [0; PAGE as usize];
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(PAGE);
            self.store(at + done, &ZERO[..piece as usize])?;
            done += piece;
        }
        Ok(())
    }

    fn write_back(&self, _at: u64, _len: u64) {}

    fn fence(&self) -> Result<()> {
        Ok(())
    }
}
