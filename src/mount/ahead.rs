// SPDX-License-Identifier: GPL-2.0

//! The streams of stores to the holes of a file: how many blocks ahead they get, see
//! [`track::ahead`](crate::track::ahead).

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::track::ahead::{Ask, Stream};

/// How many streams of a file are tracked.
const STREAMS: usize = 4;

/// The last stores to holes of a file.
pub struct FillAhead {
    streams: [Atomic<u64>; STREAMS],
    /// Counts the streams that have begun: a new one replaces the oldest.
    begun: Atomic<u32>,
}

impl FillAhead {
    /// No store yet.
    pub const fn new() -> Self {
        FillAhead {
            streams: [const { Atomic::new(Stream::NONE.bits()) }; STREAMS],
            begun: Atomic::new(0),
        }
    }

    /// Which blocks a store to `page` asks for.
    pub fn ask(&self, page: u64) -> Ask {
        let next = |(nth, stream): (usize, &Atomic<u64>)| {
            Stream::from_bits(stream.load(Relaxed)).next(page, nth)
        };
        let streams = self.streams.iter().enumerate();
        streams.filter_map(next).next().unwrap_or(Ask::page(page))
    }

    /// `ask` was given `len` blocks, at least 1, from page `first` on.
    pub fn filled(&self, ask: &Ask, first: u64, len: u64) {
        let nth = match ask.stream {
            Some(nth) => nth,
            None => self.begun.fetch_add(1, Relaxed) as usize,
        };
        let stream = Stream::of(ask, first, len);
        self.streams[nth % STREAMS].store(stream.bits(), Relaxed);
    }
}
