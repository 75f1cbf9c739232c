// SPDX-License-Identifier: GPL-2.0

//! Sets of pages of one chunk (512 pages, 2 MiB of file), as bitmaps.
//!
//! Pure: no locks, no kernel. Who may change a set is decided by whoever owns it.

/// log2 of [`PAGES`].
pub const PAGES_SHIFT: u32 = 9;
/// Pages in a chunk.
pub const PAGES: usize = 1 << PAGES_SHIFT;

const WORDS: usize = PAGES / 64;

/// A set of page numbers in `0..PAGES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageSet([u64; WORDS]);

impl PageSet {
    /// No page.
    pub const EMPTY: PageSet = PageSet([0; WORDS]);

    /// The pages `first..=last`; both below [`PAGES`]. Empty if `first > last`.
    pub fn range(first: usize, last: usize) -> Self {
        let mut set = Self::EMPTY;
        for (i, word) in set.0.iter_mut().enumerate() {
            let base = i * 64;
            if last < base || first >= base + 64 || first > last {
                continue;
            }
            let low = first.saturating_sub(base);
            let high = (last - base).min(63);
            *word = (u64::MAX << low) & (u64::MAX >> (63 - high));
        }
        set
    }

    /// Whether `page` is in the set; false for a number past the last page.
    pub fn contains(&self, page: usize) -> bool {
        self.0
            .get(page / 64)
            .is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    /// Adds `page`; true if it was not there. A number past the last page is ignored.
    pub fn insert(&mut self, page: usize) -> bool {
        let bit = 1 << (page % 64);
        match self.0.get_mut(page / 64) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }

    /// Takes `page` out; true if it was there.
    pub fn remove(&mut self, page: usize) -> bool {
        let bit = 1 << (page % 64);
        match self.0.get_mut(page / 64) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                true
            }
            _ => false,
        }
    }

    /// The pages in both sets.
    pub fn and(&self, other: &PageSet) -> PageSet {
        let mut set = *self;
        for (a, b) in set.0.iter_mut().zip(other.0) {
            *a &= b;
        }
        set
    }

    /// The pages of this set that are not in `other`.
    pub fn without(&self, other: &PageSet) -> PageSet {
        let mut set = *self;
        for (a, b) in set.0.iter_mut().zip(other.0) {
            *a &= !b;
        }
        set
    }

    /// Whether there is no page in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// How many pages are in the set.
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The smallest page of the set that is not below `from`.
    pub fn next(&self, from: usize) -> Option<usize> {
        let mut mask = u64::MAX << (from % 64);
        for (i, word) in self.0.iter().enumerate().skip(from / 64) {
            let rest = word & mask;
            if rest != 0 {
                return Some(i * 64 + rest.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }

    /// The maximal runs of neighbouring pages, ascending, as (first page, number of pages).
    pub fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let gaps = PageSet(self.0.map(|word| !word));
        let mut from = 0;
        core::iter::from_fn(move || {
            let first = self.next(from)?;
            let end = gaps.next(first).unwrap_or(PAGES);
            from = end;
            Some((first, end - first))
        })
    }
}
