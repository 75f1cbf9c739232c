// SPDX-License-Identifier: GPL-2.0

//! Plain memory as a volume's device, shared by threads. Nothing is ever lost: for tests of
//! concurrency and for measurements, not of crashes.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::volume::error::Result;
use crate::volume::pmem::Pmem;

/// Bytes of a word.
const WORD: u64 = 8;

/// A device in memory. Threads may read and store at the same time; eight aligned bytes are never
/// torn.
pub struct Ram {
    words: std::vec::Vec<AtomicU64>,
}

impl Ram {
    /// `bytes` zero bytes, rounded down to 8.
    pub fn new(bytes: u64) -> Self {
        let count = usize::try_from(bytes / WORD).expect("fits the address space");
        Ram {
            words: (0..count).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Calls `f` with each word that `at..at + len` touches, the first byte in the word, and the
    /// range of bytes it takes of the buffer.
    fn each(&self, at: u64, len: usize, mut f: impl FnMut(&AtomicU64, usize, usize, usize)) {
        let mut done = 0;
        while done < len {
            let byte = at + done as u64;
            let first = (byte % WORD) as usize;
            let n = (WORD as usize - first).min(len - done);
            f(&self.words[(byte / WORD) as usize], first, done, done + n);
            done += n;
        }
    }
}

impl Pmem for Ram {
    fn len(&self) -> u64 {
        self.words.len() as u64 * WORD
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.each(at, buf.len(), |word, first, from, to| {
            let bytes = word.load(Ordering::Acquire).to_le_bytes();
            buf[from..to].copy_from_slice(&bytes[first..first + (to - from)]);
        });
        Ok(())
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.each(at, bytes.len(), |word, first, from, to| {
            let put = |old: u64| {
                let mut new = old.to_le_bytes();
                new[first..first + (to - from)].copy_from_slice(&bytes[from..to]);
                u64::from_le_bytes(new)
            };
            if to - from == WORD as usize {
                word.store(put(0), Ordering::Release);
            } else {
                word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| Some(put(old)))
                    .expect("the closure never declines");
            }
        });
        Ok(())
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.store(at, bytes)
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<()> {
        const ZERO: [u8; 4096] = [0; 4096];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(ZERO.len() as u64);
            self.store(at + done, &ZERO[..n as usize])?;
            done += n;
        }
        Ok(())
    }

    fn write_back(&self, at: u64, len: u64) {
        debug_assert!(at + len <= self.len());
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }
}
