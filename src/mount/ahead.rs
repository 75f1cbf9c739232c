// SPDX-License-Identifier: GPL-2.0

//! How many blocks a store to a hole is given at once.
//!
//! A block for one page costs a whole transaction. A file that is written through its mapping from
//! one end to the other gets twice as many each time, up to 2 MiB, which may then be mapped in one
//! piece. Any other store gets the one block it needs: a sparse file stays sparse. Unwritten blocks
//! are handled likewise.
//!
//! Only a hint: wrong guesses cost space that a hole would not take, and nothing else.

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::track::page_set::PAGES;

/// What the last store to a hole of a file was given.
pub struct FillAhead {
    /// The page after it.
    next: Atomic<u64>,
    /// How many blocks were asked for.
    asked: Atomic<u64>,
}

impl FillAhead {
    /// No store yet.
    pub const fn new() -> Self {
        FillAhead {
            next: Atomic::new(u64::MAX),
            asked: Atomic::new(0),
        }
    }

    /// How many blocks from `page` on to ask for: 1 to 512.
    pub fn ask(&self, page: u64) -> u64 {
        if self.next.load(Relaxed) != page {
            return 1;
        }
        (self.asked.load(Relaxed) * 2).min(PAGES as u64)
    }

    /// Asked for `asked` blocks, `filled` were given from `page` on.
    pub fn filled(&self, page: u64, asked: u64, filled: u64) {
        self.next.store(page.saturating_add(filled), Relaxed);
        self.asked.store(asked, Relaxed);
    }
}
