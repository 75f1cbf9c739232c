// SPDX-License-Identifier: GPL-2.0

//! Any content: the check ends, with a report or with an error, and never by a panic.

use std::ops::Range;

use proptest::prelude::*;
use rdax_volume::env::crc32c;
use rdax_volume::ram::Ram;
use rdax_volume::volume::check::{check, Kind};
use rdax_volume::volume::error::Structure;
use rdax_volume::volume::format::*;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{Error, Result};

use crate::bed::{of, problem, Bed, BYTES};

/// Places and sizes of structures that begin with a checksum of themselves, and its seed. (The
/// superblock has no seed, and its checksum at byte 8.)
fn sealed(bed: &Bed) -> Vec<(u64, usize, Option<u32>)> {
    let seed = Some(crate::bed::seed());
    let mut places = vec![
        (0, size_of::<SuperBlock>(), None),
        (bed.system_at(0), 256, seed),
        (bed.system_at(1), 256, seed),
        (bed.inode_chunk_at(ROOT_INO, bed.at("/")), 64, seed),
        (bed.lane_at(0), 56, seed),
        (bed.lane_at(0) + 64, 56, seed),
    ];
    for name in [
        "/", "file", "small", "short", "long", "dir", "many", "orphan",
    ] {
        places.push((bed.at(name), 256, seed));
    }
    let xattrs: XattrHeader = bed.get(bed.xattrs_at());
    places.push((bed.xattrs_at(), xattrs.len.get() as usize, seed));
    for name in ["file", "many"] {
        let at = bed.node_at(name);
        let count = usize::from(bed.get::<NodeHeader>(at).count.get());
        places.push((at, 64 + 16 * count, seed));
    }
    for (dir, name) in [
        ("/", "file"),
        ("/", "dir"),
        ("dir", "sub"),
        ("sub", "other"),
    ] {
        let leaf = bed.leaf_at(dir);
        places.push((leaf, 32, seed));
        let owner = bed.get::<LeafHeader>(leaf).owner.get();
        let seed = record_seed(crate::bed::seed(), owner, leaf / BLOCK);
        places.push((bed.record_at(leaf, name), 24 + name.len(), Some(seed)));
    }
    places
}

/// Runs the check, whatever it finds.
fn survive(pmem: &dyn Pmem) {
    let mut lines = 0;
    let result = check(pmem, &mut |problem| lines += problem.to_string().len());
    if let Ok(summary) = result {
        assert!((summary.problems == 0) == (lines == 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Bytes changed anywhere in what is metadata for the most part.
    #[test]
    fn any_bytes_changed(changes in prop::collection::vec((0..BYTES / 4, any::<u8>()), 1..40)) {
        let bed = Bed::new();
        for (at, byte) in changes {
            bed.put(at, &byte);
        }
        survive(&bed.ram);
    }

    /// Structures changed and given their right checksum: the damage gets behind the first check.
    #[test]
    fn any_field_changed(changes in prop::collection::vec(
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..12)
    ) {
        let bed = Bed::new();
        let places = sealed(&bed);
        for (place, byte, value) in changes {
            let &(at, len, seed) = place.get(&places);
            bed.put(at + byte.index(len) as u64, &value);
            let Some(seed) = seed else {
                bed.one_super_block(at, |_| {});
                continue;
            };
            let mut bytes = vec![0; len];
            bed.ram.read(at, &mut bytes).unwrap();
            bed.put(at, &crc32c(seed, &bytes[4..]).to_le_bytes());
        }
        survive(&bed.ram);
    }

    /// Whole blocks exchanged: right checksums at wrong places.
    #[test]
    fn blocks_exchanged(pairs in prop::collection::vec((0..400_u64, 0..400_u64), 1..20)) {
        let bed = Bed::new();
        for (a, b) in pairs {
            let (first, second) = (bed.get::<[u8; 4096]>(a * BLOCK), bed.get::<[u8; 4096]>(b * BLOCK));
            bed.put(a * BLOCK, &second);
            bed.put(b * BLOCK, &first);
        }
        survive(&bed.ram);
    }

    /// Noise behind a superblock that is right.
    #[test]
    fn noise(seed in any::<u64>()) {
        let bed = Bed::new();
        let mut state = seed | 1;
        for at in (BLOCK..BYTES / 8).step_by(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bed.put(at, &state.to_le_bytes());
        }
        survive(&bed.ram);
    }
}

/// A memory with bytes that cannot be read.
struct Bad<'a> {
    ram: &'a Ram,
    bad: Range<u64>,
}

impl Pmem for Bad<'_> {
    fn len(&self) -> u64 {
        self.ram.len()
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        if at < self.bad.end && at + buf.len() as u64 > self.bad.start {
            return Err(Error::Media { at });
        }
        self.ram.read(at, buf)
    }

    fn store(&self, _: u64, _: &[u8]) -> Result<()> {
        panic!("the checker writes")
    }

    fn store_nt(&self, _: u64, _: &[u8]) -> Result<()> {
        panic!("the checker writes")
    }

    fn zero_nt(&self, _: u64, _: u64) -> Result<()> {
        panic!("the checker writes")
    }

    fn write_back(&self, _: u64, _: u64) {
        panic!("the checker writes")
    }

    fn fence(&self) -> Result<()> {
        panic!("the checker writes")
    }
}

#[test]
fn nothing_is_written() {
    let bed = Bed::new();
    let (summary, found) = crate::bed::problems(&Bad {
        ram: &bed.ram,
        bad: 0..0,
    });
    assert_eq!((summary.problems, found.len()), (0, 0));
}

#[test]
fn memory_errors_are_reported_where_they_are() {
    let bed = Bed::new();
    let unreadable = |at: u64, expected| {
        let ram = &bed.ram;
        let bad = at..at + 1;
        let (_, found) = crate::bed::problems(&Bad { ram, bad });
        assert!(found.contains(&expected), "{}", crate::bed::lines(&found));
    };
    let kind = Kind::Unreadable;
    unreadable(0, problem(Structure::SuperBlock, 0, kind));
    let copy = BYTES - BLOCK;
    unreadable(copy, problem(Structure::SuperBlock, copy, kind));
    let at = bed.summary_at(1);
    unreadable(at, problem(Structure::Bitmap, at, kind));
    let at = bed.inode_chunk_at(bed.ino("last"), bed.at("last"));
    unreadable(at, problem(Structure::InodeChunk, at, kind));
    let at = bed.at("small");
    unreadable(at, of(bed.ino("small"), Structure::Inode, at, kind));
    let at = bed.system_at(0);
    unreadable(at, of(TABLE_INO, Structure::Inode, at, kind));
    let at = bed.node_at("file");
    unreadable(at, of(bed.ino("file"), Structure::ExtentNode, at, kind));
    let at = bed.leaf_at("sub");
    unreadable(at, of(bed.ino("sub"), Structure::DirLeaf, at, kind));
    let at = bed.orphan_slot_at(100);
    unreadable(at, problem(Structure::Orphan, at, kind));
    let at = bed.raw("long").root[0].value.get() % (1 << 40) * BLOCK;
    let target = of(
        bed.ino("long"),
        Structure::Inode,
        bed.at("long"),
        Kind::SymlinkTarget,
    );
    unreadable(at, target);
    // Either header of a lane may be the newest.
    let at = bed.lane_at(3);
    unreadable(at, problem(Structure::Lane, at, kind));
    unreadable(at + 64, problem(Structure::Lane, at, kind));
    // The next transaction is written behind them.
    let at = at + BLOCK;
    unreadable(at, problem(Structure::Lane, at, kind));
}

#[test]
fn one_line_a_problem() {
    let bed = Bed::new();
    let at = bed.record_at(bed.leaf_at("sub"), "other");
    bed.rename(at, b"a/\n\"\xff");
    let lines: Vec<String> = bed.problems().iter().map(|p| p.to_string()).collect();
    let ino = bed.ino("sub");
    let expected = format!(
        "inode {ino}: directory leaf at {at:#x}: entry \"a/\\n\\\"\\xff\": name is not allowed"
    );
    assert_eq!(lines, [expected]);
}
