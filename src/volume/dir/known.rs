// SPDX-License-Identifier: GPL-2.0

//! What a directory's inode in memory caches of the leaves that were read.
//!
//! A leaf is completely read and verified once. From then on the locations of its names and of its
//! free space are known, and an operation reads only the records it needs. The operations that
//! commit a change of names update the cache; it is freed with the inode. About 24 bytes a name:
//! little compared with the inodes and dentries of the names that are in use.

use super::leaf::{needed, Leaf, Record};
use super::Slot;
use crate::env::{NoMemory, Vec};
use crate::volume::error::{Error, Result};
use crate::volume::extent::Media;
use crate::volume::format::COOKIE_LOW_BITS;
use crate::volume::index::Index;
use crate::volume::num::{to_u16, to_usize};
use crate::volume::pmem::Pmem;

/// The cached leaves of a directory, by their blocks.
#[derive(Debug, Default)]
pub struct Leaves(Index<Known>);

/// Where a record with a name is in its leaf. (Bytes; both are below the size of a block.)
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    pub offset: u16,
    pub len: u16,
    /// The bits of its cookie below the hash.
    number: u16,
}

/// A run of adjacent free records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub offset: usize,
    pub len: usize,
}

/// What is cached of one leaf.
#[derive(Debug)]
pub struct Known {
    /// The names, by their hashes.
    pub names: Index<Place>,
    /// The positions of all names in `names`, in the order of their cookies, once that was needed.
    /// None after a change.
    order: Vec<u16>,
    /// The free records.
    gaps: Vec<Gap>,
    /// Bytes that names could use if the leaf were compacted.
    pub spare: usize,
}

impl Known {
    /// Reads and verifies `leaf`.
    fn read<P: Pmem>(media: &Media<'_, P>, leaf: &Leaf) -> Result<Known> {
        let mut known = Known::new();
        match leaf.only_record(media)? {
            Some(record) => known.note(&record)?,
            None => leaf.scan(&leaf.load(media)?, &mut |record| Ok(known.note(record)?))?,
        }
        Ok(known)
    }

    /// The cache of a leaf without a record.
    pub fn new() -> Self {
        Known {
            names: Index::default(),
            order: Vec::new(),
            gaps: Vec::new(),
            spare: 0,
        }
    }

    /// Adds `record`, which is after all others so far.
    pub fn note(&mut self, record: &Record) -> Result<(), NoMemory> {
        self.spare += record.spare();
        self.order.clear();
        if !record.is_free() {
            return self.names.insert(record.hash(), place(record));
        }
        if let Some(gap) = self.gaps.last_mut() {
            if gap.offset + gap.len == record.offset {
                gap.len += record.len;
                return Ok(());
            }
        }
        self.gaps.push(Gap {
            offset: record.offset,
            len: record.len,
        })
    }

    /// A gap of at least `need` bytes.
    pub fn gap(&self, need: usize) -> Option<Gap> {
        self.gaps.iter().find(|gap| gap.len >= need).copied()
    }

    /// The name of `slot` was put into its gap.
    fn insert(&mut self, slot: &Slot<'_>) -> Result<(), NoMemory> {
        let (len, rest) = slot.record();
        let Some(i) = self.gaps.iter().position(|gap| *gap == slot.gap) else {
            return Err(NoMemory);
        };
        if rest == 0 {
            self.gaps.swap_remove(i);
        } else if let Some(gap) = self.gaps.get_mut(i) {
            *gap = Gap {
                offset: gap.offset + len,
                len: rest,
            };
        }
        self.spare -= needed(slot.name.bytes.len());
        self.order.clear();
        let place = Place {
            offset: to_u16(slot.gap.offset),
            len: to_u16(len),
            number: number_of(slot.cookie),
        };
        self.names.insert(slot.name.hash, place)
    }

    /// The name of `record` was removed.
    fn remove(&mut self, record: &Record) -> Result<(), NoMemory> {
        let at = place(record).offset;
        self.order.clear();
        self.names.remove(record.hash(), |place| place.offset == at);
        self.spare += needed(record.name_len);
        let mut gap = Gap {
            offset: record.offset,
            len: record.len,
        };
        while let Some(i) = self
            .gaps
            .iter()
            .position(|g| g.offset + g.len == gap.offset || gap.offset + gap.len == g.offset)
        {
            gap.offset = gap.offset.min(self.gaps[i].offset);
            gap.len += self.gaps[i].len;
            self.gaps.swap_remove(i);
        }
        self.gaps.push(gap)
    }

    /// The cookie of the name at `position` in `names`.
    fn cookie(&self, position: u16) -> u64 {
        let named = self.names.at(usize::from(position));
        named.map_or(0, |(hash, place)| {
            (hash << COOKIE_LOW_BITS) | u64::from(place.number)
        })
    }

    /// Puts the names in order, by insertion: a few dozen.
    fn sort(&mut self) -> Result<(), NoMemory> {
        if self.order.len() == self.names.len() {
            return Ok(());
        }
        self.order.reserve(self.names.len())?;
        for position in 0..to_u16(self.names.len()) {
            let cookie = self.cookie(position);
            let at = self.order.partition_point(|p| self.cookie(*p) < cookie);
            let end = self.order.len();
            self.order.push(position)?;
            self.order.copy_within(at..end, at + 1);
            self.order[at] = position;
        }
        Ok(())
    }

    /// The places of the first names with a cookie of `from` or above, in the order of their
    /// cookies, as many as `places` takes. Returns how many there are in all.
    fn list(&mut self, from: u64, places: &mut [Place]) -> Result<usize, NoMemory> {
        self.sort()?;
        let first = self.order.partition_point(|p| self.cookie(*p) < from);
        let rest = self.order.get(first..).unwrap_or(&[]);
        for (to, position) in places.iter_mut().zip(rest) {
            if let Some((_, place)) = self.names.at(usize::from(*position)) {
                *to = *place;
            }
        }
        Ok(rest.len())
    }
}

/// Where `record` is.
fn place(record: &Record) -> Place {
    Place {
        offset: to_u16(record.offset),
        len: to_u16(record.len),
        number: number_of(record.cookie),
    }
}

/// The bits of `cookie` below the hash.
fn number_of(cookie: u64) -> u16 {
    to_u16(to_usize(cookie & ((1 << COOKIE_LOW_BITS) - 1)))
}

impl Leaves {
    /// Whether no leaf is cached.
    pub fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// What is cached of `leaf`, which is read if it is not cached.
    pub fn get<P: Pmem>(&mut self, media: &Media<'_, P>, leaf: &Leaf) -> Result<&Known> {
        if self.0.get(leaf.block).is_none() {
            self.0.insert(leaf.block, Known::read(media, leaf)?)?;
        }
        self.0.get(leaf.block).ok_or(Error::NoMemory)
    }

    /// The places of the first names of `leaf` with a cookie of `from` or above, in the order of
    /// their cookies, as many as `places` takes. Returns how many there are in all.
    pub fn list<P: Pmem>(
        &mut self,
        media: &Media<'_, P>,
        leaf: &Leaf,
        from: u64,
        places: &mut [Place],
    ) -> Result<usize> {
        self.get(media, leaf)?;
        let known = self.0.get_mut(leaf.block).ok_or(Error::NoMemory)?;
        Ok(known.list(from, places)?)
    }

    /// Whether `leaf` holds no name. Caches nothing: a directory without names may be about to be
    /// removed.
    pub fn is_empty<P: Pmem>(&mut self, media: &Media<'_, P>, leaf: &Leaf) -> Result<bool> {
        if self.0.get(leaf.block).is_none() && leaf.only_record(media)?.is_some() {
            return Ok(true);
        }
        Ok(self.get(media, leaf)?.names.is_empty())
    }

    /// Caches `known` for the leaf in `block`, of which nothing was cached, if there is memory for
    /// it.
    pub fn set(&mut self, block: u64, known: Known) {
        // Otherwise it is read when it is needed.
        let _ = self.0.insert(block, known);
    }

    /// Forgets the leaf in `block`.
    pub fn forget(&mut self, block: u64) {
        self.0.remove(block, |_| true);
    }

    /// The transaction that inserts the name of `slot` was committed.
    pub fn inserted(&mut self, slot: &Slot<'_>) {
        self.update(&slot.leaf, |known| known.insert(slot));
    }

    /// The transaction that removes the name of `record` in `leaf` was committed.
    pub(super) fn removed(&mut self, leaf: &Leaf, record: &Record) {
        self.update(leaf, |known| known.remove(record));
    }

    /// Changes the cache of `leaf`, or, without memory for that, forgets it.
    fn update(&mut self, leaf: &Leaf, f: impl FnOnce(&mut Known) -> Result<(), NoMemory>) {
        if let Some(known) = self.0.get_mut(leaf.block) {
            if f(known).is_err() {
                self.forget(leaf.block);
            }
        }
    }
}
