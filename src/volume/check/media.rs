// SPDX-License-Identifier: GPL-2.0

//! Reading structures, and the bit sets that the checker counts with.

use super::super::error::{Error, Result};
use super::super::pmem::Pmem;
use crate::env::{crc32c, Vec};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Reads `buf.len()` bytes at `at`. False if the media cannot be read or the device ends.
pub(super) fn read(pmem: &dyn Pmem, at: u64, buf: &mut [u8]) -> Result<bool> {
    match at.checked_add(buf.len() as u64) {
        Some(end) if end <= pmem.len() => {}
        _ => return Ok(false),
    }
    match pmem.read(at, buf) {
        Ok(()) => Ok(true),
        Err(Error::Media { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Reads one structure. None if [`read`] returns false.
pub(super) fn get<T: FromBytes + IntoBytes>(pmem: &dyn Pmem, at: u64) -> Result<Option<T>> {
    let mut t = T::new_zeroed();
    Ok(read(pmem, at, t.as_mut_bytes())?.then_some(t))
}

/// The structure at the start of `bytes`. `bytes` must be long enough: it is a buffer of this
/// module's callers, never a length from the media.
pub(super) fn view<T: FromBytes + Immutable>(bytes: &[u8]) -> T {
    match T::read_from_prefix(bytes) {
        Ok((t, _)) => t,
        Err(_) => T::new_zeroed(),
    }
}

/// CRC32C, from `seed` on, of a structure that begins with its checksum: of the bytes after it.
pub fn crc(seed: u32, bytes: &[u8]) -> u32 {
    crc32c(seed, bytes.get(4..).unwrap_or(&[]))
}

/// A set of small numbers.
pub(super) struct Bits {
    words: Vec<u64>,
    len: u64,
}

impl Bits {
    /// The empty set of numbers below `len`.
    pub(super) fn new(len: u64) -> Result<Self> {
        let count = usize::try_from(len.div_ceil(64)).map_err(|_| Error::NoMemory)?;
        let mut words = Vec::with_capacity(count)?;
        for _ in 0..count {
            words.push(0)?;
        }
        Ok(Bits { words, len })
    }

    /// Sets word `index`, if there is one.
    pub(super) fn set_word(&mut self, index: u64, value: u64) {
        let word = usize::try_from(index)
            .ok()
            .and_then(|i| self.words.get_mut(i));
        if let Some(word) = word {
            *word = value;
        }
    }

    /// Adds `start..start + len`, cut at the end of the set. Returns the first and the last of them
    /// that were already in the set.
    pub(super) fn add(&mut self, start: u64, len: u64) -> Option<(u64, u64)> {
        let end = start.saturating_add(len).min(self.len);
        let mut twice: Option<(u64, u64)> = None;
        let mut at = start;
        while at < end {
            let bit = at % 64;
            let count = (64 - bit).min(end - at);
            let mask = (u64::MAX >> (64 - count)) << bit;
            let Some(word) = self.words.get_mut((at / 64) as usize) else {
                break;
            };
            let both = *word & mask;
            if both != 0 {
                let base = at - bit;
                let last = base + 63 - u64::from(both.leading_zeros());
                let first = base + u64::from(both.trailing_zeros());
                twice = Some((twice.map_or(first, |(first, _)| first), last));
            }
            *word |= mask;
            at += count;
        }
        twice
    }

    /// Calls `each` with every run of numbers that are in `self` and not in `other`.
    pub(super) fn without(
        &self,
        other: &Bits,
        each: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut run: Option<u64> = None;
        for (index, (a, b)) in self.words.iter().zip(other.words.iter()).enumerate() {
            let base = index as u64 * 64;
            let mut bits = a & !b;
            if base + 64 > self.len {
                bits &= u64::MAX >> (base + 64 - self.len);
            }
            // A word in which no run begins or ends, as in most.
            if (bits == 0 && run.is_none()) || (bits == u64::MAX && run.is_some()) {
                continue;
            }
            for bit in 0..64 {
                let member = (bits >> bit) & 1 == 1;
                match run {
                    None if member => run = Some(base + bit),
                    Some(start) if !member => {
                        each(start, base + bit - start)?;
                        run = None;
                    }
                    _ => {}
                }
            }
        }
        match run {
            Some(start) => each(start, self.len - start),
            None => Ok(()),
        }
    }
}
