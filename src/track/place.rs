// SPDX-License-Identifier: GPL-2.0

//! Which pages of a file are in which chunk.
//!
//! Pure: no locks, no kernel.

use super::page_set::{PageSet, PAGES, PAGES_SHIFT};

/// The chunk of the page `page` of a file, and the number of the page in it.
pub fn split(page: u64) -> (u64, usize) {
    (page >> PAGES_SHIFT, (page % PAGES as u64) as usize)
}

/// The place of a chunk in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// The place of the chunk number `index`.
    pub fn new(index: u64) -> Self {
        Place(index)
    }

    /// The number of the chunk.
    pub fn index(self) -> u64 {
        self.0
    }

    /// The number of its first page in the file.
    pub fn first_page(self) -> u64 {
        self.0 << PAGES_SHIFT
    }

    /// The number of its last page in the file.
    pub fn last_page(self) -> u64 {
        self.end() - 1
    }

    /// The number of the page that follows it.
    pub fn end(self) -> u64 {
        self.first_page() + PAGES as u64
    }

    /// The pages of the chunk among the pages `first..=last` of the file.
    pub fn clip(self, first: u64, last: u64) -> PageSet {
        let start = self.first_page();
        if last < start || first >= self.end() {
            return PageSet::EMPTY;
        }
        if first <= start && last >= self.last_page() {
            return PageSet::ALL;
        }
        let low = first.saturating_sub(start) as usize;
        PageSet::range(low, (last.min(self.last_page()) - start) as usize)
    }
}
