// SPDX-License-Identifier: GPL-2.0

//! How many blocks a store to a hole gets at once.
//!
//! A block for one page costs a whole transaction. A file that is written through its mapping from
//! one end to the other, in either direction, gets twice as many each time, up to 2 MiB, which may
//! then be mapped in one piece. The same holds for several such *streams* in one file, and for one
//! that skips a few pages. Any other store gets the one block it needs: a sparse file stays sparse.
//! Unwritten blocks are handled likewise.
//!
//! Only a hint: a wrong guess costs space that a hole would not take, and nothing else. So rdax
//! does not guess when space is scarce, and a store whose page has no block yet has priority.
//!
//! Pure: no locks, no kernel.

use core::ops::Range;

use super::page_set::{PAGES, PAGES_SHIFT};

/// Pages that a stream may skip, but never more than it was given last.
const SLACK: u64 = 16;

/// The blocks that a store to a hole asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The pages of the file that they are for: the one that is stored to, and others around it.
    pub pages: Range<u64>,
    /// How many are asked for, as a power of two.
    order: u32,
    /// The stream that the store is part of.
    pub stream: Option<usize>,
}

impl Ask {
    /// For a store that is part of no stream.
    pub fn page(page: u64) -> Self {
        Ask {
            pages: page..page + 1,
            order: 0,
            stream: None,
        }
    }

    /// For `page` alone; the stream continues from there, in small steps again.
    #[must_use]
    pub fn alone(self, page: u64) -> Self {
        Ask {
            stream: self.stream,
            ..Ask::page(page)
        }
    }

    /// All of the chunk of `page`.
    pub fn chunk(page: u64) -> Self {
        let first = page & !(PAGES as u64 - 1);
        Ask {
            pages: first..first + PAGES as u64,
            order: PAGES_SHIFT,
            stream: None,
        }
    }
}

/// Consecutive stores: what the last one was given, in one word, so that no lock is needed. From
/// the low bits up: the order that was asked for (4 bits), the number of pages less one (9), the
/// first page (51).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(u64);

const ORDER_BITS: u32 = 4;

impl Stream {
    /// No store.
    pub const NONE: Stream = Stream(u64::MAX);

    /// From its bits.
    pub fn from_bits(bits: u64) -> Self {
        Stream(bits)
    }

    /// Its bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// `ask` was given `len` pages, 1 to 512, from `first` on.
    pub fn of(ask: &Ask, first: u64, len: u64) -> Self {
        let len = (len - 1) & (PAGES as u64 - 1);
        Stream((((first << PAGES_SHIFT) | len) << ORDER_BITS) | u64::from(ask.order))
    }

    /// What a store to `page` asks for if it is the next one of this stream, which has number
    /// `nth`.
    pub fn next(self, page: u64, nth: usize) -> Option<Ask> {
        if self == Stream::NONE {
            return None;
        }
        // CAST: four bits.
        let order = (self.0 & ((1 << ORDER_BITS) - 1)) as u32;
        let first = self.0 >> (ORDER_BITS + PAGES_SHIFT);
        let end = first + ((self.0 >> ORDER_BITS) & (PAGES as u64 - 1)) + 1;
        let slack = SLACK.min(1 << order);
        let is_after = page >= end && page - end <= slack;
        let is_before = page < first && first - page - 1 <= slack;
        if !is_after && !is_before {
            return None;
        }
        let order = PAGES_SHIFT.min(order + 1);
        let pages = match is_after {
            _ if order == PAGES_SHIFT => Ask::chunk(page).pages,
            true => end..page + (1 << order),
            false => (page + 1).saturating_sub(1 << order)..first,
        };
        Some(Ask {
            pages,
            order,
            stream: Some(nth),
        })
    }
}
