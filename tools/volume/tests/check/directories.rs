// SPDX-License-Identifier: GPL-2.0

//! Directory leaves and entries.

use rdax_volume::volume::check::{Kind, Problem};
use rdax_volume::volume::error::Structure::{DirLeaf, Inode};
use rdax_volume::volume::format::{Dirent, LeafHeader, BLOCK, COOKIE_LOW_BITS, ROOT_INO};
use zerocopy::little_endian::{U16, U32, U64};

use crate::bed::{entry, hash, of, Bed};

/// The leaf of "sub", whose only entry is "other", a second name of "linked".
fn sub(bed: &Bed) -> u64 {
    bed.leaf_at("sub")
}

/// What a lost "other" means for "linked".
fn link_lost(bed: &Bed) -> Problem {
    let kind = Kind::Links {
        stored: 2,
        counted: 1,
    };
    of(bed.ino("linked"), Inode, bed.at("linked"), kind)
}

#[test]
fn damaged_headers() {
    let bed = Bed::new();
    let at = sub(&bed);
    let ino = bed.ino("sub");
    bed.spoil(at, |header: &mut LeafHeader| header.crc += 1);
    bed.expect(&[of(ino, DirLeaf, at, Kind::Checksum), link_lost(&bed)]);
    bed.leaf_header(at, |header| header.magic = U32::ZERO);
    bed.expect(&[of(ino, DirLeaf, at, Kind::Magic), link_lost(&bed)]);

    type Change = fn(&mut LeafHeader);
    let cases: [(&str, u64, Change); 3] = [
        ("owner", ino, |header| header.owner = U64::new(99)),
        ("key", 0, |header| header.key = U64::new(99)),
        ("block", at / BLOCK, |header| header.block = U64::new(99)),
    ];
    for (field, expected, change) in cases {
        let bed = Bed::new();
        bed.leaf_header(at, change);
        let kind = Kind::Misplaced {
            field,
            stored: 99,
            expected,
        };
        bed.expect(&[of(ino, DirLeaf, at, kind), link_lost(&bed)]);
    }
}

#[test]
fn no_leaf_for_the_smallest_hashes() {
    let bed = Bed::new();
    bed.inode("sub", |raw| raw.root[0].key = U64::new(1));
    bed.leaf_header(sub(&bed), |header| header.key = U64::new(1));
    bed.expect(&[of(bed.ino("sub"), Inode, bed.at("sub"), Kind::NoFirstLeaf)]);
}

#[test]
fn chain_of_records() {
    let bed = Bed::new();
    let at = bed.record_at(sub(&bed), "other");
    for len in [0, 16, 33, 5000, 65528] {
        bed.record(at, |head| head.rec_len = U16::new(len));
        let kind = Kind::RecordLength { len: len.into() };
        bed.expect(&[of(bed.ino("sub"), DirLeaf, at, kind), link_lost(&bed)]);
    }
    // Too short for its name.
    bed.record(at, |head| head.rec_len = U16::new(24));
    let kind = Kind::RecordLength { len: 24 };
    bed.expect(&[of(bed.ino("sub"), DirLeaf, at, kind), link_lost(&bed)]);
}

#[test]
fn leaf_not_filled() {
    let bed = Bed::new();
    let leaf = sub(&bed);
    // The last record ends eight bytes before the leaf.
    let mut at = leaf + 32;
    loop {
        let len = u64::from(bed.get::<Dirent>(at).rec_len.get());
        if at + len == leaf + BLOCK {
            break;
        }
        at += len;
    }
    bed.record(at, |head| head.rec_len -= 8);
    let end = leaf + BLOCK - 8;
    let kind = Kind::RecordLength { len: 8 };
    bed.expect(&[of(bed.ino("sub"), DirLeaf, end, kind)]);
}

#[test]
fn damaged_record() {
    let bed = Bed::new();
    let at = bed.record_at(sub(&bed), "other");
    bed.spoil(at, |head: &mut Dirent| head.crc += 1);
    let kind = Kind::Checksum;
    bed.expect(&[of(bed.ino("sub"), DirLeaf, at, kind), link_lost(&bed)]);
}

#[test]
fn free_record_with_a_type() {
    let bed = Bed::new();
    let at = bed.record_at(sub(&bed), "other");
    bed.remove(at);
    bed.record(at, |head| head.file_type = 8);
    let kind = Kind::Reserved("a free record's name");
    bed.expect(&[of(bed.ino("sub"), DirLeaf, at, kind), link_lost(&bed)]);
}

#[test]
fn names_that_are_not_allowed() {
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"nul\0"] {
        let bed = Bed::new();
        let at = bed.record_at(sub(&bed), "other");
        bed.rename(at, name);
        bed.expect(&[entry(bed.ino("sub"), at, name, Kind::BadName)]);
    }
    for name in [&b"..."[..], b"\xff\x01", b" ", b"a.b"] {
        let bed = Bed::new();
        bed.rename(bed.record_at(sub(&bed), "other"), name);
        bed.expect(&[]);
    }
}

#[test]
fn cookies() {
    let bed = Bed::new();
    let at = bed.record_at(sub(&bed), "other");
    let hash = hash(b"other");
    let cookie = (hash ^ 1) << COOKIE_LOW_BITS;
    bed.record(at, |head| head.cookie = U64::new(cookie));
    let kind = Kind::Cookie { cookie, hash };
    bed.expect(&[entry(bed.ino("sub"), at, b"other", kind)]);
    // The number among names of one hash is free.
    bed.record(at, |head| {
        head.cookie = U64::new((hash << COOKIE_LOW_BITS) | 2047)
    });
    bed.expect(&[]);
}

#[test]
fn name_twice() {
    let bed = Bed::new();
    let root = bed.leaf_at("/");
    let at = bed.record_at(root, "twin2");
    let first = bed.record_at(root, "twin1");
    let cookie = bed.get::<Dirent>(first).cookie.get();
    bed.rename(at, b"twin1");
    bed.record(at, |head| head.cookie = U64::new(cookie + 1));
    let later = at.max(first);
    bed.expect(&[entry(ROOT_INO, later, b"twin1", Kind::NameTwice)]);
    // With one cookie for both.
    bed.record(at, |head| head.cookie = U64::new(cookie));
    bed.expect(&[
        entry(ROOT_INO, later, b"twin1", Kind::CookieTwice { cookie }),
        entry(ROOT_INO, later, b"twin1", Kind::NameTwice),
    ]);
}

#[test]
fn entry_in_a_leaf_of_other_hashes() {
    let bed = Bed::new();
    // The first leaf of "many" has the smallest hashes: a name with a great one does not belong.
    let node = bed.node_at("many");
    let entries: [rdax_volume::volume::format::Extent; 2] = bed.get(node + 64);
    let leaf = crate::bed::Parts::block(&entries[0]) * BLOCK;
    let end = entries[1].key.get();
    let mut at = leaf + 32;
    while bed.get::<Dirent>(at).name_len != 60 {
        at += u64::from(bed.get::<Dirent>(at).rec_len.get());
    }
    let name = (0..)
        .map(|n| format!("{n:060}x"))
        .map(|name| name[1..].to_string())
        .find(|name| hash(name.as_bytes()) >= end)
        .unwrap();
    bed.rename(at, name.as_bytes());
    let hash = hash(name.as_bytes());
    let kind = Kind::WrongLeaf { hash };
    bed.expect(&[entry(bed.ino("many"), at, name.as_bytes(), kind)]);
}

#[test]
fn types_of_entries() {
    let bed = Bed::new();
    let at = bed.record_at(sub(&bed), "other");
    bed.record(at, |head| head.file_type = 10);
    let kind = Kind::EntryType {
        stored: 10,
        inode: 8,
    };
    bed.expect(&[entry(bed.ino("sub"), at, b"other", kind)]);
}

#[test]
fn entries_without_an_inode() {
    // One that is not in use, the header's own slot, one past the table.
    for target in [1023, 256, 1 << 40, u64::MAX] {
        let bed = Bed::new();
        let at = bed.record_at(sub(&bed), "other");
        bed.record(at, |head| head.ino = U64::new(target));
        let kind = Kind::NoInode { target };
        bed.expect(&[entry(bed.ino("sub"), at, b"other", kind), link_lost(&bed)]);
    }
}
