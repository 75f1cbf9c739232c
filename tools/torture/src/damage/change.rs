// SPDX-License-Identifier: GPL-2.0

//! Changes of structures: each knows what it may destroy; all else must be there after a repair.

use std::collections::BTreeSet;

use fastrand::Rng;
use rdax_volume::volume::format::*;
use rdax_volume::volume::pmem::Pmem;

use super::cow::Cow;
use super::history::Base;
use super::place::{fields, Field, Kind, Place, Sort, KINDS};
use super::seal::seal;

/// What may be lost.
#[derive(Clone, Debug, Default)]
pub struct Hits {
    /// Anything: a transaction was changed, which may write anywhere.
    pub all: bool,
    /// These inodes.
    pub inodes: BTreeSet<u64>,
    /// Names of these directories.
    pub dirs: BTreeSet<u64>,
    /// These names of directories.
    pub names: BTreeSet<(u64, Vec<u8>)>,
    /// The superblocks that were changed, by their addresses.
    pub supers: BTreeSet<u64>,
}

impl Hits {
    /// What goes with the structure at `place`, whose checksum is `right` afterwards.
    fn add(&mut self, place: &Place, right: bool, base: &Base) {
        let ino = place.ino;
        match place.kind {
            Kind::SuperBlock => drop(self.supers.insert(place.at)),
            // Without its newest header, a lane has lost a transaction, if there was one.
            Kind::LaneHeader | Kind::LaneBody => self.all |= right || base.logged > 0,
            // They can be computed, or found by what they lead to.
            Kind::Summary | Kind::Bitmap | Kind::SystemInode => {}
            // What it marks free is checked separately.
            Kind::InodeChunk | Kind::OrphanSlot => {}
            Kind::Inode | Kind::Node | Kind::Xattrs if ino == 0 => {}
            Kind::Inode | Kind::Node | Kind::Xattrs => {
                self.inodes.insert(ino);
                self.dirs.insert(ino);
            }
            Kind::Record if !right => drop(self.names.insert((ino, place.name.clone()))),
            // A sound one may be longer than before: the entries behind it are free then.
            Kind::Record | Kind::LeafHeader => drop(self.dirs.insert(ino)),
        }
    }

    /// What goes with either.
    pub fn join(&mut self, other: &Hits) {
        self.all |= other.all;
        self.inodes.extend(&other.inodes);
        self.dirs.extend(&other.dirs);
        self.names.extend(other.names.iter().cloned());
        self.supers.extend(&other.supers);
    }
}

/// One change, as bytes that are stored.
#[derive(Clone)]
pub struct Change {
    /// In words.
    pub what: String,
    /// Addresses and bytes, in this order.
    pub patches: Vec<(u64, Vec<u8>)>,
    pub hits: Hits,
}

impl Change {
    /// Makes it.
    pub fn apply(&self, cow: &Cow<'_>) {
        for (at, bytes) in &self.patches {
            cow.store(*at, bytes).expect("stores");
        }
    }
}

/// A change that is being made up.
pub struct Draft<'c, 'b> {
    cow: &'c Cow<'b>,
    patches: Vec<(u64, Vec<u8>)>,
}

impl Draft<'_, '_> {
    /// What the media has at `at`, up to its end.
    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.cow.read(at, &mut bytes).expect("within the device");
        bytes
    }

    /// Changes it.
    pub fn store(&mut self, at: u64, bytes: &[u8]) {
        self.cow.store(at, bytes).expect("within the device");
        self.patches.push((at, bytes.to_vec()));
    }
}

/// Makes up changes of a volume.
pub struct Damager<'b, 'r> {
    pub base: &'b Base,
    pub rng: &'r mut Rng,
}

impl Damager<'_, '_> {
    /// A structure: each kind as often as the others.
    fn place(&mut self) -> Place {
        loop {
            let kind = KINDS[self.rng.usize(0..KINDS.len())];
            if let Some(place) = self.place_of(kind) {
                return place;
            }
        }
    }

    fn place_of(&mut self, kind: Kind) -> Option<Place> {
        let of: Vec<_> = self.base.places.iter().filter(|p| p.kind == kind).collect();
        self.rng.choice(of).cloned()
    }

    /// Changes something, and the device with it.
    pub fn change(&mut self, cow: &Cow<'_>) -> Change {
        let mut draft = Draft {
            cow,
            patches: Vec::new(),
        };
        let place = self.place();
        let before = draft.read(place.at, place.len);
        let mut hits = Hits::default();
        let sealed = self.rng.u8(0..4) > 0;
        let how = self.rng.u8(0..20);
        // As it was earlier, its checksum was right.
        let right = sealed || matches!(how, 14..=15);
        let what = match how {
            0..=8 => self.field(&mut draft, &place),
            9..=10 => self.swap(&mut draft, &place, sealed, &mut hits),
            11 => self.twin(&mut draft, &place),
            12..=13 => self.duplicate(&mut draft, &place, &mut hits),
            14..=15 => self.stale(&mut draft, &place),
            16..=17 => self.rot(&mut draft, &place),
            18 => self.blank(&mut draft, &place),
            _ => self.reserved(&mut draft, &place),
        };
        if sealed {
            seal(&mut draft, &place);
        }
        hits.add(&place, right, self.base);
        if place.kind == Kind::InodeChunk {
            self.marked_free(&place, &before, &draft, &mut hits);
        }
        let seal = if sealed { "right" } else { "old" };
        Change {
            what: format!(
                "{:?} at {:#x}{}: {what}, {seal} checksum",
                place.kind,
                place.at,
                match place.ino {
                    0 => String::new(),
                    ino => format!(" of inode {ino}"),
                }
            ),
            patches: draft.patches,
            hits,
        }
    }

    /// Inodes that a chunk's header does not have in use any more.
    fn marked_free(&self, place: &Place, before: &[u8], draft: &Draft<'_, '_>, hits: &mut Hits) {
        let at = std::mem::offset_of!(InodeChunk, bitmap);
        let after = draft.read(place.at, place.len);
        for n in 0..INODE_CHUNK_SLOTS {
            let byte = at + n as usize / 8;
            if ((before[byte] & !after[byte]) >> (n % 8)) & 1 == 1 {
                hits.inodes.insert(place.number * INODE_CHUNK_SLOTS + n);
            }
        }
    }

    /// A value for a field of `len` bytes, up to 8, that has `old` now.
    fn number(&mut self, old: u64, len: usize) -> u64 {
        let bits = 8 * len as u32;
        let max = u64::MAX >> (64 - bits);
        let value = match self.rng.u8(0..14) {
            0 => 0,
            1 => 1,
            2 => max,
            3 => max - 1,
            4 => max >> 1,
            5 => (max >> 1) + 1,
            6 | 7 => old.wrapping_add(1),
            8 => old.wrapping_sub(1),
            9 => old << 1,
            10 => self.rng.u64(0..1000),
            11 => 1 << self.rng.u32(0..bits),
            12 => self.rng.u64(..),
            _ => old ^ (1 << self.rng.u32(0..bits)),
        };
        value & max
    }

    /// A block that is worth pointing to.
    fn block(&mut self, old: u64) -> u64 {
        let blocks = self.base.bytes.len() as u64 / BLOCK;
        let first_data = self.base.places.iter().map(|p| p.at / BLOCK);
        match self.rng.u8(0..10) {
            0 => self.rng.u64(0..16),
            1 => blocks - self.rng.u64(0..2),
            2 => blocks + self.rng.u64(0..600),
            3 => old.wrapping_add(1),
            4 => old.wrapping_sub(1),
            5 => self.rng.u64(..),
            6 => old.wrapping_add(self.rng.u64(0..20)),
            7 => self.rng.u64(0..blocks),
            _ => {
                let places: Vec<u64> = first_data.collect();
                places[self.rng.usize(0..places.len())]
            }
        }
    }

    fn ino(&mut self, old: u64) -> u64 {
        let known: Vec<u64> = self.base.tree.keys().copied().collect();
        match self.rng.u8(0..6) {
            0 => 0,
            1 => ROOT_INO,
            2 => self.rng.u64(0..6) * INODE_CHUNK_SLOTS,
            3 => self.number(old, 8),
            _ => known[self.rng.usize(0..known.len())],
        }
    }

    /// The packed word of an extent: block, length, whether it is unwritten.
    fn run(&mut self, old: u64) -> u64 {
        const BLOCK_BITS: u32 = 40;
        let block = old & ((1 << BLOCK_BITS) - 1);
        let rest = old & !((1 << BLOCK_BITS) - 1);
        match self.rng.u8(0..8) {
            0..=3 => rest | (self.block(block) & ((1 << BLOCK_BITS) - 1)),
            4 => old.wrapping_add(1 << BLOCK_BITS),
            5 => old.wrapping_sub(1 << BLOCK_BITS),
            6 => old ^ (1 << 63),
            _ => block | (self.rng.u64(..) << BLOCK_BITS),
        }
    }

    /// One field to another value.
    fn field(&mut self, draft: &mut Draft<'_, '_>, place: &Place) -> String {
        let all = fields(place);
        let Some(field) = self.rng.choice(&all).copied() else {
            return self.rot(draft, place);
        };
        let (at, len) = self.part(&field);
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&draft.read(place.at + at as u64, len));
        let old = u64::from_le_bytes(bytes);
        let new = match field.sort {
            Sort::Number | Sort::Reserved => self.number(old, len),
            Sort::Block => self.block(old),
            Sort::Ino => self.ino(old),
            Sort::Run => self.run(old),
        };
        draft.store(place.at + at as u64, &new.to_le_bytes()[..len]);
        format!("{} at {at} from {old:#x} to {new:#x}", field.name)
    }

    /// A part of a field of at most 8 bytes: where, and how many.
    fn part(&mut self, field: &Field) -> (usize, usize) {
        match field.len {
            0..=8 => (field.at, field.len),
            len => (field.at + self.rng.usize(0..len / 8) * 8, 8),
        }
    }

    /// Two structures of a kind change their places.
    fn swap(
        &mut self,
        draft: &mut Draft<'_, '_>,
        place: &Place,
        sealed: bool,
        hits: &mut Hits,
    ) -> String {
        let other = self.place_of(place.kind).expect("it is one itself");
        let len = place.len.min(other.len);
        let (a, b) = (draft.read(place.at, len), draft.read(other.at, len));
        draft.store(place.at, &b);
        draft.store(other.at, &a);
        // The other one's checksum is as it was, or fits as this one's does.
        if sealed {
            seal(draft, &other);
        }
        // The checksum of a record holds everywhere in its leaf.
        let holds = place.kind == Kind::Record && place.at / BLOCK == other.at / BLOCK;
        hits.add(&other, sealed || holds, self.base);
        if place.kind == Kind::InodeChunk {
            self.marked_free(&other, &b, draft, hits);
        }
        format!("swapped with that at {:#x}", other.at)
    }

    /// A field gets the value that it has in another structure of the kind.
    fn twin(&mut self, draft: &mut Draft<'_, '_>, place: &Place) -> String {
        let other = self.place_of(place.kind).expect("it is one itself");
        let all = fields(place);
        let Some(field) = self.rng.choice(&all).copied() else {
            return self.rot(draft, place);
        };
        let (at, len) = self.part(&field);
        if at + len > other.len {
            return self.rot(draft, place);
        }
        let bytes = draft.read(other.at + at as u64, len);
        draft.store(place.at + at as u64, &bytes);
        format!("{} at {at} as in that at {:#x}", field.name, other.at)
    }

    /// The block of the structure is also somewhere else: in a file, in another structure's place,
    /// in a free block.
    fn duplicate(&mut self, draft: &mut Draft<'_, '_>, place: &Place, hits: &mut Hits) -> String {
        let last = self.base.bytes.len() as u64 / BLOCK - 1;
        let to = match self.rng.u8(0..3) {
            0 => self.place().at / BLOCK,
            1 => {
                let owned: Vec<u64> = self.base.owned().collect();
                self.rng.choice(owned).unwrap_or(last)
            }
            _ => self.rng.u64(0..last),
        };
        let (from, to) = ((place.at / BLOCK).min(last), to.min(last));
        let bytes = draft.read(from * BLOCK, BLOCK as usize);
        draft.store(to * BLOCK, &bytes);
        let gone = to * BLOCK..(to + 1) * BLOCK;
        for lost in self.base.places.iter().filter(|p| {
            // A node and attributes begin their block, all else is smaller than its block.
            gone.contains(&p.at)
                || p.kind == Kind::LaneBody && p.at < gone.end && gone.start < p.at + p.len as u64
        }) {
            hits.add(lost, true, self.base);
            if lost.kind == Kind::InodeChunk {
                let first = lost.number * INODE_CHUNK_SLOTS;
                hits.inodes.extend(first..first + INODE_CHUNK_SLOTS);
            }
        }
        hits.inodes.extend(self.base.owner(to));
        hits.dirs.extend(self.base.owner(to));
        format!("its block copied to block {to}")
    }

    /// It is as it was at an earlier time, or its block is.
    fn stale(&mut self, draft: &mut Draft<'_, '_>, place: &Place) -> String {
        let at = place.at as usize;
        let bytes = self.base.stale[at..at + place.len].to_vec();
        draft.store(place.at, &bytes);
        "as it was earlier".into()
    }

    /// Some bytes are others.
    fn rot(&mut self, draft: &mut Draft<'_, '_>, place: &Place) -> String {
        let mut said = String::from("bytes at");
        for _ in 0..self.rng.usize(1..5) {
            let at = self.rng.usize(0..place.len);
            let old = draft.read(place.at + at as u64, 1)[0];
            let new = match self.rng.u8(0..3) {
                0 => old ^ (1 << self.rng.u32(0..8)),
                1 => 0,
                _ => self.rng.u8(..),
            };
            draft.store(place.at + at as u64, &[new]);
            said += &format!(" {at}");
        }
        said
    }

    /// All of it, or a line of it, is one value.
    fn blank(&mut self, draft: &mut Draft<'_, '_>, place: &Place) -> String {
        let byte = [0, 0xff, 0x5a][self.rng.usize(0..3)];
        let (from, len) = match self.rng.bool() {
            true => (0, place.len),
            false => {
                let from = self.rng.usize(0..place.len.div_ceil(64)) * 64;
                (from, (place.len - from).min(64))
            }
        };
        draft.store(place.at + from as u64, &vec![byte; len]);
        format!("{len} bytes at {from} all {byte:#x}")
    }

    /// Bits in bytes that mean nothing yet.
    fn reserved(&mut self, draft: &mut Draft<'_, '_>, place: &Place) -> String {
        let all = fields(place);
        let of: Vec<_> = all.iter().filter(|f| f.sort == Sort::Reserved).collect();
        let Some(field) = self.rng.choice(of).copied() else {
            return self.field(draft, place);
        };
        let at = field.at + self.rng.usize(0..field.len);
        draft.store(place.at + at as u64, &[1 << self.rng.u32(0..8)]);
        format!("a bit of {} at {at}", field.name)
    }
}
