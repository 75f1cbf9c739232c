// SPDX-License-Identifier: GPL-2.0

//! What a directory's inode in memory remembers of the leaves that were read.
//!
//! A leaf is read and verified whole once; from then on where its names and its free space lie is
//! known, and an operation reads the records it needs and no others. It is kept up to date by the
//! operations that commit a change of names, and goes with the inode. 24 bytes or so a name:
//! nothing beside the inodes and dentries of the names that are in use.

use super::leaf::{needed, Leaf, Record};
use super::Slot;
use crate::env::{NoMemory, Vec};
use crate::volume::error::{Error, Result};
use crate::volume::extent::Media;
use crate::volume::index::Index;
use crate::volume::num::to_u16;
use crate::volume::pmem::Pmem;

/// The known leaves of a directory, by their blocks.
#[derive(Debug, Default)]
pub struct Leaves(Index<Known>);

/// Where a record with a name lies in its leaf. (Bytes; both are below the size of a block.)
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub offset: u16,
    pub len: u16,
}

/// A run of adjacent free records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub offset: usize,
    pub len: usize,
}

/// What is known of one leaf.
#[derive(Debug)]
pub struct Known {
    /// The names, by their hashes.
    pub names: Index<Place>,
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

    /// What is known of a leaf without a record.
    pub fn new() -> Self {
        Known {
            names: Index::default(),
            gaps: Vec::new(),
            spare: 0,
        }
    }

    /// Adds `record`, which lies after all others so far.
    pub fn note(&mut self, record: &Record) -> Result<(), NoMemory> {
        self.spare += record.spare();
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
        let place = Place {
            offset: to_u16(slot.gap.offset),
            len: to_u16(len),
        };
        self.names.insert(slot.name.hash, place)
    }

    /// The name of `record` was removed.
    fn remove(&mut self, record: &Record) -> Result<(), NoMemory> {
        let at = place(record).offset;
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
}

/// Where `record` lies.
fn place(record: &Record) -> Place {
    Place {
        offset: to_u16(record.offset),
        len: to_u16(record.len),
    }
}

impl Leaves {
    /// Whether no leaf is known.
    pub fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// What is known of `leaf`, which is read if that is nothing.
    pub fn get<P: Pmem>(&mut self, media: &Media<'_, P>, leaf: &Leaf) -> Result<&Known> {
        if self.0.get(leaf.block).is_none() {
            self.0.insert(leaf.block, Known::read(media, leaf)?)?;
        }
        self.0.get(leaf.block).ok_or(Error::NoMemory)
    }

    /// Whether `leaf` holds no name. It is not remembered: a directory without names may be about
    /// to go.
    pub fn is_empty<P: Pmem>(&mut self, media: &Media<'_, P>, leaf: &Leaf) -> Result<bool> {
        if self.0.get(leaf.block).is_none() && leaf.only_record(media)?.is_some() {
            return Ok(true);
        }
        Ok(self.get(media, leaf)?.names.is_empty())
    }

    /// Remembers `known` of the leaf in `block`, of which nothing was known, if there is memory for
    /// it.
    pub fn set(&mut self, block: u64, known: Known) {
        // Else it is read when it is wanted.
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

    /// Changes what is known of `leaf`, or, without memory for that, forgets it.
    fn update(&mut self, leaf: &Leaf, f: impl FnOnce(&mut Known) -> Result<(), NoMemory>) {
        if let Some(known) = self.0.get_mut(leaf.block) {
            if f(known).is_err() {
                self.forget(leaf.block);
            }
        }
    }
}
