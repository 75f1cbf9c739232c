// SPDX-License-Identifier: GPL-2.0

//! Extent trees.

use rdax_volume::volume::check::{Kind, Problem};
use rdax_volume::volume::error::Error;
use rdax_volume::volume::error::Structure::{Bitmap, ExtentNode, Inode};
use rdax_volume::volume::format::{NodeHeader, BLOCK, KEY_BITS};
use zerocopy::little_endian::{U16, U32, U64};

use crate::bed::{mount, of, Bed, Parts, FILE_BLOCKS};

/// Expects `first` and, since the tree is lost or a part of it, nothing but leaked blocks.
#[track_caller]
fn first_then_leaks(bed: &Bed, first: Problem) {
    let found = bed.problems();
    let lines = crate::bed::lines(&found);
    assert_eq!(found[0], first, "{lines}");
    assert!(found.len() > 1, "{lines}");
    let leak = |p: &Problem| p.what == Bitmap && matches!(p.kind, Kind::Leaked { .. });
    assert!(found[1..].iter().all(leak), "{lines}");
}

/// Fails unless a mount refuses to follow the tree of "file".
#[track_caller]
fn refused(bed: &Bed) {
    let vol = mount(&bed.ram);
    let read = vol.iget(bed.ino("file"));
    let read = read.and_then(|mut file| vol.map(&mut file, 0, 1));
    assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
}

/// A damaged node of "file", whose checksum is right.
#[track_caller]
fn node(kind: Kind, change: impl FnOnce(&mut NodeHeader)) {
    let bed = Bed::new();
    let at = bed.node_at("file");
    bed.node(at, |header, _| change(header));
    refused(&bed);
    first_then_leaks(&bed, of(bed.ino("file"), ExtentNode, at, kind));
}

#[test]
fn headers_of_nodes() {
    let bed = Bed::new();
    let at = bed.node_at("file");
    bed.spoil(at, |header: &mut NodeHeader| header.crc += 1);
    refused(&bed);
    first_then_leaks(&bed, of(bed.ino("file"), ExtentNode, at, Kind::Checksum));

    node(Kind::Magic, |header| header.magic = U16::ZERO);
    node(Kind::TreeCount(0), |header| header.count = U16::ZERO);
    node(Kind::TreeCount(253), |header| header.count = U16::new(253));
    let misplaced = |field, stored, expected| Kind::Misplaced {
        field,
        stored,
        expected,
    };
    let (raw, ino) = (bed.raw("file"), bed.ino("file"));
    let generation = raw.generation.get();
    node(misplaced("level", 1, 0), |header| {
        header.level = U16::new(1)
    });
    node(misplaced("owner", 5, ino), |header| {
        header.owner = U64::new(5)
    });
    node(
        misplaced("generation", u64::from(generation) + 1, generation.into()),
        |header| header.generation = U32::new(generation + 1),
    );
    node(misplaced("block", 5, at / BLOCK), |header| {
        header.block = U64::new(5)
    });
}

#[test]
fn reserved_bytes_of_a_node() {
    let change: [fn(&mut NodeHeader); 2] = [
        |header| header.reserved0 = U16::new(1),
        |header| header.reserved[31] = 1,
    ];
    for change in change {
        let bed = Bed::new();
        let at = bed.node_at("file");
        bed.node(at, |header, _| change(header));
        bed.expect(&[]);
    }
}

/// A damaged entry of the node of "file": that extent is lost, the others are not.
#[track_caller]
fn entry(kind: Kind, change: impl FnOnce(&mut [rdax_volume::volume::format::Extent])) {
    let bed = Bed::new();
    let at = bed.node_at("file");
    bed.node(at, |_, entries| change(entries));
    first_then_leaks(&bed, of(bed.ino("file"), ExtentNode, at, kind));
}

#[test]
fn entries_of_nodes() {
    let last = FILE_BLOCKS as usize - 1;
    // Keys are 0, 2, 4 and so on, each of one block.
    entry(Kind::ExtentOrder { key: 3 }, |e| e[3].key = U64::new(3));
    entry(Kind::ExtentOrder { key: 4 }, |e| e[3].key = U64::new(4));
    let flags = (1 << KEY_BITS) | 8;
    entry(Kind::ExtentFlags { key: flags }, |e| {
        e[4].key = U64::new(flags)
    });
    let end = (1 << 51) - 1;
    entry(Kind::ExtentRange { key: end + 1 }, |e| {
        e[last].key = U64::new(end + 1)
    });
    let kind = Kind::ExtentLength { key: 8, len: 0 };
    entry(kind, |e| e[4] = Parts::of(8, e[4].block(), 0));

    // The last block that a file can have is possible.
    let bed = Bed::new();
    bed.node(bed.node_at("file"), |_, e| e[last].key = U64::new(end));
    bed.expect(&[]);
}

#[test]
fn only_files_have_unwritten_blocks() {
    const UNWRITTEN: u64 = 1 << 63;
    let bed = Bed::new();
    for name in ["small", "file"] {
        if name == "small" {
            bed.inode(name, |raw| raw.root[0].value |= UNWRITTEN);
        } else {
            bed.node(bed.node_at(name), |_, e| e[4].value |= UNWRITTEN);
        }
        bed.expect(&[]);
    }
    for name in ["sub", "long"] {
        let bed = Bed::new();
        bed.inode(name, |raw| raw.root[0].value |= UNWRITTEN);
        let kind = Kind::ExtentFlags { key: 0 };
        assert_eq!(
            bed.problems()[0],
            of(bed.ino(name), Inode, bed.at(name), kind)
        );
        let read = mount(&bed.ram).iget(bed.ino(name));
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    }
}

#[test]
fn long_extent_overlaps_the_next() {
    let bed = Bed::new();
    let at = bed.node_at("file");
    let blocks: Vec<u64> = (0..20).map(|_| bed.free_block()).collect();
    let block = blocks[0];
    bed.node(at, |_, entries| entries[3] = Parts::of(6, block, 3));
    let found = bed.problems();
    let expected = of(
        bed.ino("file"),
        ExtentNode,
        at,
        Kind::ExtentOrder { key: 8 },
    );
    assert!(found.contains(&expected), "{}", crate::bed::lines(&found));
}

#[test]
fn first_key_is_that_of_the_entry_above() {
    let bed = Bed::new();
    bed.inode("file", |raw| raw.root[0].key = U64::new(1));
    let kind = Kind::ExtentRange { key: 0 };
    let at = bed.node_at("file");
    first_then_leaks(&bed, of(bed.ino("file"), ExtentNode, at, kind));
}

#[test]
fn keys_of_the_next_node() {
    let bed = Bed::new();
    let at = bed.node_at("file");
    // A second node, which begins within the keys of the first.
    let second = bed.free_block();
    bed.mark(second, true);
    let header: NodeHeader = bed.get(at);
    bed.put(second * BLOCK, &header);
    let block = bed.get::<[rdax_volume::volume::format::Extent; 20]>(at + 64)[19].block();
    bed.node(second * BLOCK, |header, entries| {
        header.block = U64::new(second);
        header.count = U16::new(1);
        entries[0] = Parts::of(38, block, 1);
    });
    bed.inode("file", |raw| {
        raw.root[1].key = U64::new(38);
        raw.root[1].value = U64::new(second);
        raw.root_count = U16::new(2);
        raw.blocks += 1;
    });
    // The first node still has it as well, where the second's keys have begun.
    let found = bed.problems();
    let kind = Kind::ExtentRange { key: 38 };
    assert_eq!(found, [of(bed.ino("file"), ExtentNode, at, kind)]);
    // Without it all is well.
    bed.node(at, |header, _| header.count -= 1);
    bed.expect(&[]);
}

#[test]
fn roots() {
    let bed = Bed::new();
    bed.inode("file", |raw| raw.root_count = U16::new(9));
    let first = |kind| of(bed.ino("file"), Inode, bed.at("file"), kind);
    first_then_leaks(&bed, first(Kind::TreeCount(9)));
    bed.inode("file", |raw| raw.root_count = U16::ZERO);
    first_then_leaks(&bed, first(Kind::TreeDepth(1)));
    bed.inode("file", |raw| {
        raw.root_count = U16::new(1);
        raw.depth = 8;
    });
    first_then_leaks(&bed, first(Kind::TreeDepth(8)));
}

#[test]
fn node_that_names_itself() {
    let bed = Bed::new();
    let at = bed.node_at("file");
    bed.inode("file", |raw| raw.depth = 3);
    bed.node(at, |header, entries| {
        header.level = U16::new(2);
        entries[0].value = U64::new(at / BLOCK);
        header.count = U16::new(1);
    });
    let kind = Kind::UsedTwice {
        block: at / BLOCK,
        len: 1,
    };
    first_then_leaks(&bed, of(bed.ino("file"), ExtentNode, at, kind));
}

#[test]
fn leaf_extents_are_single_blocks() {
    let bed = Bed::new();
    let block = bed.raw("dir").root[0].block();
    bed.inode("dir", |raw| raw.root[0] = Parts::of(0, block, 2));
    let kind = Kind::ExtentLength { key: 0, len: 2 };
    let found = bed.problems();
    assert_eq!(found[0], of(bed.ino("dir"), Inode, bed.at("dir"), kind));
}
