// SPDX-License-Identifier: GPL-2.0

//! Whether a chunk that became dirty as a whole, by a mapping of 2 MiB, was stored to all over.
//!
//! Then it may become dirty as a whole again: one fault for 512 pages, and nothing is written back
//! that was not stored to. If one page was stored to, that would cost 2 MiB for 4 KiB at each sync.
//! A *sample* tells the two apart: the fingerprints of a few pages, others each time, from before
//! the first store and from the sync. Of a chunk with one page in ten stored to, one in ten
//! thousand passes for a dense one, once. (A guess: durability does not depend on it.)
//!
//! Pure: no locks, no kernel. Part of what the chunk lock guards.

use super::page_set::PAGES;

/// Pages in a sample.
pub const SAMPLE: usize = 4;
/// The pages of a chunk from which one is taken.
const STRATUM: usize = PAGES / SAMPLE;

/// The sample of one chunk.
#[derive(Default)]
pub struct Density {
    turn: u64,
    before: Option<[u64; SAMPLE]>,
}

impl Density {
    /// No sample.
    pub const fn new() -> Self {
        Density {
            turn: 0,
            before: None,
        }
    }

    /// The pages of the sample, for the chunk number `chunk`.
    pub fn pages(&self, chunk: u64) -> [usize; SAMPLE] {
        // Not those that a program with a regular stride hits, nor in every chunk the same.
        let mixed = (chunk ^ (self.turn << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        core::array::from_fn(|i| i * STRATUM + (mixed >> (8 * i)) as usize % STRATUM)
    }

    /// Whether [`Density::begin`] has been given a sample that no [`Density::end`] has used.
    pub fn has_begun(&self) -> bool {
        self.before.is_some()
    }

    /// The chunk is going to be mapped writable as a whole. `sample`: the fingerprints of the
    /// pages, if they could be taken.
    pub fn begin(&mut self, sample: Option<[u64; SAMPLE]>) {
        self.before = sample;
    }

    /// The chunk is write-protected. `sample`: the fingerprints of the same pages. Returns
    /// whether each of them was stored to since [`Density::begin`].
    pub fn end(&mut self, sample: Option<[u64; SAMPLE]>) -> bool {
        self.turn += 1;
        match (self.before.take(), sample) {
            (Some(before), Some(after)) => before.iter().zip(after).all(|(old, new)| *old != new),
            _ => false,
        }
    }
}
