// SPDX-License-Identifier: GPL-2.0

//! The memory while a recording is replayed: what is on the media, and what is only in the cache.

use std::collections::BTreeMap;

use crate::trace::{Event, Through};

/// Bytes of a cache line.
pub const LINE: u64 = 64;
/// Bytes that are never torn.
const WORD: u64 = 8;

/// What a line holds.
pub type Content = [u8; LINE as usize];

/// A part of a store that cannot be torn.
#[derive(Clone, Copy)]
struct Store {
    offset: u8,
    len: u8,
    bytes: [u8; WORD as usize],
}

impl Store {
    fn apply(&self, content: &mut Content) {
        let offset = usize::from(self.offset);
        let len = usize::from(self.len);
        content[offset..offset + len].copy_from_slice(&self.bytes[..len]);
    }
}

/// A line of which not all stores are on the media.
#[derive(Clone, Default)]
struct Line {
    stores: Vec<Store>,
    /// How many of them become durable at the next fence.
    due: usize,
}

/// The memory at one moment of the replay.
pub struct Media {
    durable: Vec<u8>,
    /// Sum over the lines of the durable content: equal contents have equal sums.
    sum: u128,
    open: BTreeMap<u64, Line>,
}

/// The line that begins at byte `at` of `bytes`.
pub fn line(bytes: &[u8], at: u64) -> &Content {
    let at = at as usize;
    bytes[at..at + LINE as usize]
        .try_into()
        .expect("a slice of a line's length")
}

/// What the line at byte `at` adds to the sum of a memory when it changes from `old` to `new`. Of
/// two memories that started alike, the sums are equal where the contents are, and else differ but
/// for one case in 2^100.
pub fn change(at: u64, old: &Content, new: &Content) -> u128 {
    digest(at, new).wrapping_sub(digest(at, old))
}

/// A number for a line and its place.
fn digest(at: u64, content: &Content) -> u128 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd6e8_feb8_6659_fd93;
    let (mut low, mut high) = (at ^ A, at ^ B);
    for word in content.chunks_exact(WORD as usize) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        low = mix(low ^ word).wrapping_add(A);
        high = mix(high.wrapping_add(word)) ^ B;
    }
    (u128::from(mix(high)) << 64) | u128::from(mix(low))
}

/// The finaliser of SplitMix64.
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Media {
    /// A memory that holds `content`, whole lines, all of it durable.
    pub fn new(content: Vec<u8>) -> Self {
        assert_eq!(content.len() as u64 % LINE, 0, "whole lines");
        Media {
            durable: content,
            sum: 0,
            open: BTreeMap::new(),
        }
    }

    /// What is on the media for certain.
    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// A number that stands for what is on the media, counted from the first content.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Replays `event`. Its address must lie in the memory.
    pub fn replay(&mut self, event: &Event) {
        match event {
            Event::Store {
                at,
                len,
                value,
                through,
            } => self.store(*at, &value[..usize::from(*len)], *through),
            Event::WriteBack { at } => {
                if let Some(line) = self.open.get_mut(&(at - at % LINE)) {
                    line.due = line.stores.len();
                }
            }
            Event::Fence => self.fence(),
            Event::Mark { .. } => {}
        }
    }

    fn store(&mut self, mut at: u64, mut bytes: &[u8], through: Through) {
        while !bytes.is_empty() {
            let room = (WORD - at % WORD) as usize;
            let (part, rest) = bytes.split_at(room.min(bytes.len()));
            let mut store = Store {
                offset: (at % LINE) as u8,
                len: part.len() as u8,
                bytes: [0; WORD as usize],
            };
            store.bytes[..part.len()].copy_from_slice(part);
            let line = self.open.entry(at - at % LINE).or_default();
            line.stores.push(store);
            if through == Through::Past {
                // It pushes what the cache has of the line out before it.
                line.due = line.stores.len();
            }
            at += part.len() as u64;
            bytes = rest;
        }
    }

    fn fence(&mut self) {
        let (durable, sum) = (&mut self.durable, &mut self.sum);
        self.open.retain(|at, open| {
            if open.due > 0 {
                let old = *line(durable, *at);
                let mut new = old;
                for store in open.stores.drain(..open.due) {
                    store.apply(&mut new);
                }
                open.due = 0;
                *sum = sum.wrapping_add(change(*at, &old, &new));
                durable[*at as usize..][..LINE as usize].copy_from_slice(&new);
            }
            !open.stores.is_empty()
        });
    }

    /// The lines that a crash may leave in more than one content: where each begins, and the
    /// contents, the durable one first, the newest last.
    pub fn open(&self) -> Vec<(u64, Vec<Content>)> {
        let open = self.open.iter().map(|(at, open)| {
            let mut content = *line(&self.durable, *at);
            let mut contents = vec![content];
            for store in &open.stores {
                store.apply(&mut content);
                if contents.last() != Some(&content) {
                    contents.push(content);
                }
            }
            (*at, contents)
        });
        open.filter(|(_, contents)| contents.len() > 1).collect()
    }

    /// Everything that was stored is on the media: what the program sees.
    pub fn drain(mut self) -> Vec<u8> {
        for line in self.open.values_mut() {
            line.due = line.stores.len();
        }
        self.fence();
        self.durable
    }
}
