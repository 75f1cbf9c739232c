// SPDX-License-Identifier: GPL-2.0

//! Whether all of a chunk that became dirty as a whole, by a mapping of 2 MiB, was stored to.
//!
//! Then it may become dirty as a whole again: one fault for 512 pages, and everything that is
//! written back was stored to. If only one page was, that would cost 2 MiB for 4 KiB at each sync.
//! A *sample* tells the two apart: the fingerprints of a few pages, others each time, from before
//! the first store and from the sync. If one page in ten of a chunk is stored to, it passes for a
//! dense one once in ten thousand times. (A guess: durability does not depend on it.)
//!
//! Pure: no locks, no kernel. Part of what the chunk lock guards.

use super::page_set::PAGES;

/// Pages in a sample.
pub const SAMPLE: usize = 4;
/// The number of pages of a chunk from which one is chosen.
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
        // Neither the pages of a regular stride, nor the same ones in every chunk.
        let mixed = (chunk ^ (self.turn << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        core::array::from_fn(|i| i * STRATUM + (mixed >> (8 * i)) as usize % STRATUM)
    }

    /// Whether [`Density::begin`] was given a sample that no [`Density::end`] has used.
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
