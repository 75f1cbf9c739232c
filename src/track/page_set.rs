// SPDX-License-Identifier: GPL-2.0

//! Sets of pages of one chunk (512 pages, 2 MiB of file), as bitmaps.
//!
//! Most sets are small: a second bitmap tells which words are not zero, so that operations skip the
//! others.
//!
//! Pure: no locks, no kernel. The owner of a set decides who may change it.

/// log2 of [`PAGES`].
pub const PAGES_SHIFT: u32 = 9;
/// Pages in a chunk.
pub const PAGES: usize = 1 << PAGES_SHIFT;

/// Words of a bitmap of all pages.
pub const WORDS: usize = PAGES / 64;

/// A set of page numbers in `0..PAGES`.
///
/// # Invariants
///
/// Bit `i` of `some` is set exactly if `words[i]` is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageSet {
    words: [u64; WORDS],
    some: u8,
}

/// The numbers of the bits that are set in `some`, ascending.
#[inline]
fn bits(mut some: u8) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        if some == 0 {
            return None;
        }
        let bit = some.trailing_zeros() as usize;
        some &= some - 1;
        Some(bit)
    })
}

impl PageSet {
    /// No page.
    pub const EMPTY: PageSet = PageSet {
        words: [0; WORDS],
        some: 0,
    };
    /// Every page.
    pub const ALL: PageSet = PageSet {
        words: [u64::MAX; WORDS],
        some: u8::MAX,
    };

    /// The pages `first..=last`; both below [`PAGES`]. Empty if `first > last`.
    pub fn range(first: usize, last: usize) -> Self {
        let mut set = Self::EMPTY;
        if first > last {
            return set;
        }
        let (low, high) = (first / 64, last / 64);
        let (from, to) = (u64::MAX << (first % 64), u64::MAX >> (63 - last % 64));
        if low == high {
            set.put(low, from & to);
            return set;
        }
        set.put(low, from);
        for word in low + 1..high.min(WORDS) {
            set.put(word, u64::MAX);
        }
        set.put(high, to);
        set
    }

    /// The pages whose bits are set; the first page has the lowest bit of the first word.
    pub fn from_words(words: [u64; WORDS]) -> Self {
        let mut set = Self::EMPTY;
        for (word, value) in words.into_iter().enumerate() {
            set.put(word, value);
        }
        set
    }

    #[inline]
    fn word(&self, word: usize) -> u64 {
        self.words.get(word).copied().unwrap_or(0)
    }

    #[inline]
    fn put(&mut self, word: usize, value: u64) {
        if let Some(slot) = self.words.get_mut(word) {
            *slot = value;
            let bit = 1 << word;
            self.some = self.some & !bit | if value != 0 { bit } else { 0 };
        }
    }

    /// Whether `page` is in the set; false for a number past the last page.
    #[inline]
    pub fn contains(&self, page: usize) -> bool {
        self.word(page / 64) & (1 << (page % 64)) != 0
    }

    /// Adds `page`; true if it was not there. A number past the last page is ignored.
    pub fn insert(&mut self, page: usize) -> bool {
        let (word, bit) = (page / 64, 1 << (page % 64));
        let old = self.word(word);
        if word >= WORDS || old & bit != 0 {
            return false;
        }
        self.put(word, old | bit);
        true
    }

    /// Takes `page` out; true if it was there.
    #[inline]
    pub fn remove(&mut self, page: usize) -> bool {
        let (word, bit) = (page / 64, 1 << (page % 64));
        let old = self.word(word);
        if old & bit == 0 {
            return false;
        }
        self.put(word, old & !bit);
        true
    }

    /// The pages in both sets.
    #[inline]
    pub fn and(&self, other: &PageSet) -> PageSet {
        let mut set = Self::EMPTY;
        for word in bits(self.some & other.some) {
            set.put(word, self.word(word) & other.word(word));
        }
        set
    }

    /// Whether a page is in both sets.
    #[inline]
    pub fn intersects(&self, other: &PageSet) -> bool {
        bits(self.some & other.some).any(|word| self.word(word) & other.word(word) != 0)
    }

    /// Adds the pages of `other`.
    #[inline]
    pub fn insert_all(&mut self, other: &PageSet) {
        for word in bits(other.some) {
            self.put(word, self.word(word) | other.word(word));
        }
    }

    /// Takes the pages of `other` out.
    #[inline]
    pub fn remove_all(&mut self, other: &PageSet) {
        for word in bits(self.some & other.some) {
            self.put(word, self.word(word) & !other.word(word));
        }
    }

    /// Whether there is no page in the set.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.some == 0
    }

    /// How many pages are in the set.
    pub fn count(&self) -> usize {
        bits(self.some)
            .map(|word| self.word(word).count_ones() as usize)
            .sum()
    }

    /// The smallest page of the set that is not below `from`.
    #[inline]
    pub fn next(&self, from: usize) -> Option<usize> {
        let first = from / 64;
        if first >= WORDS {
            return None;
        }
        let rest = self.word(first) & (u64::MAX << (from % 64));
        let (word, value) = if rest != 0 {
            (first, rest)
        } else {
            let word = bits(self.some & (0xfe << first)).next()?;
            (word, self.word(word))
        };
        Some(word * 64 + value.trailing_zeros() as usize)
    }

    /// The pages, ascending.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let page = self.next(from)?;
            from = page + 1;
            Some(page)
        })
    }

    /// The smallest page not below `from` that is not in the set; [`PAGES`] if there is none.
    #[inline]
    pub fn next_gap(&self, from: usize) -> usize {
        let mut mask = u64::MAX << (from % 64);
        for word in from / 64..WORDS {
            let rest = !self.word(word) & mask;
            if rest != 0 {
                return word * 64 + rest.trailing_zeros() as usize;
            }
            mask = u64::MAX;
        }
        PAGES
    }

    /// How many consecutive pages right before `page`, which is below [`PAGES`], are in the set.
    #[inline]
    pub fn run_before(&self, page: usize) -> usize {
        let (mut word, mut bits) = (page / 64, page % 64);
        let mut run = 0;
        loop {
            if bits > 0 {
                // The bits before it are the highest of the shifted word.
                let found = (self.word(word) << (64 - bits)).leading_ones() as usize;
                run += found.min(bits);
                if found < bits {
                    return run;
                }
            }
            if word == 0 {
                return run;
            }
            (word, bits) = (word - 1, 64);
        }
    }

    /// How many consecutive pages right after `page` are in the set.
    #[inline]
    pub fn run_after(&self, page: usize) -> usize {
        self.next_gap(page + 1) - (page + 1)
    }

    /// The maximal runs of neighbouring pages, ascending, as (first page, number of pages).
    pub fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let first = self.next(from)?;
            from = self.next_gap(first);
            Some((first, from - first))
        })
    }
}
