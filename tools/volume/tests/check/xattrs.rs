// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.

use rdax_volume::volume::check::{Kind, Name, Problem};
use rdax_volume::volume::error::Error;
use rdax_volume::volume::error::Structure::{Inode, Xattr};
use rdax_volume::volume::format::*;
use rdax_volume::volume::pmem::Pmem;
use zerocopy::little_endian::{U16, U32, U64};

use crate::bed::{mount, of, Bed, Parts};

/// A problem of the attributes of "tagged".
fn bad(bed: &Bed, kind: Kind) -> Problem {
    of(bed.ino("tagged"), Xattr, bed.xattrs_at(), kind)
}

/// A problem of one of them.
fn of_one(bed: &Bed, name: &str, kind: Kind) -> Problem {
    Problem {
        name: Some(Name::new(name.as_bytes())),
        ..bad(bed, kind)
    }
}

/// How many blocks `found`, which has nothing else, says are leaked.
fn leaked(found: &[Problem]) -> u64 {
    let len = |p: &Problem| match p.kind {
        Kind::Leaked { len, .. } => len,
        kind => panic!("{kind:?}"),
    };
    found.iter().map(len).sum()
}

/// What a mount gives for the value of "user.large".
fn large_value(bed: &Bed) -> Result<usize, Error> {
    let vol = mount(&bed.ram);
    let mut tagged = vol.iget(bed.ino("tagged")).unwrap();
    let mut value = [0; 10_000];
    vol.get_xattr(&mut tagged, b"user.large", |_| Some(&mut value))
}

/// Fails unless the attributes as a whole are found to be wrong as `kind` says, and a mount gives
/// none of them.
#[track_caller]
fn expect_whole(bed: &Bed, kind: Kind) {
    let vol = mount(&bed.ram);
    let mut tagged = vol.iget(bed.ino("tagged")).unwrap();
    let listed = vol.list_xattrs(&mut tagged, &mut |_| ());
    assert!(matches!(listed, Err(Error::Corrupt { .. })), "{listed:?}");
    let read = large_value(bed);
    assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    let found = bed.problems();
    assert_eq!(found[0], bad(bed, kind));
    // The blocks of the value are not found then.
    assert_eq!(leaked(&found[1..]), 2);
}

/// As [`expect_whole`], because `field` says that they are another's.
#[track_caller]
fn expect_misplaced(bed: &Bed, field: &'static str, stored: u64, expected: u64) {
    let kind = Kind::Misplaced {
        field,
        stored,
        expected,
    };
    expect_whole(bed, kind);
}

#[test]
fn damaged_header() {
    let bed = Bed::new();
    bed.spoil(bed.xattrs_at(), |header: &mut XattrHeader| header.crc += 1);
    expect_whole(&bed, Kind::Checksum);

    let bed = Bed::new();
    bed.xattrs(|header, _| header.magic = U32::ZERO);
    expect_whole(&bed, Kind::Magic);

    let bed = Bed::new();
    bed.xattrs(|header, _| header.len = U32::new(4104));
    expect_whole(&bed, Kind::Size(4104));

    let bed = Bed::new();
    bed.xattrs(|header, _| header.owner = U64::new(3000));
    expect_misplaced(&bed, "owner", 3000, bed.ino("tagged"));

    let bed = Bed::new();
    bed.xattrs(|header, _| header.block = U64::new(1));
    expect_misplaced(&bed, "block", 1, bed.xattrs_at() / BLOCK);

    let bed = Bed::new();
    let expected = bed.raw("tagged").generation.get().into();
    bed.xattrs(|header, _| header.generation += 5);
    expect_misplaced(&bed, "generation", expected + 5, expected);
}

#[test]
fn damaged_records() {
    let bed = Bed::new();
    bed.xattrs(|_, record| record.value_len = U16::new(500));
    expect_whole(&bed, Kind::RecordLength { len: 8 + 16 + 504 });

    let bed = Bed::new();
    bed.xattrs(|_, record| record.value_crc = U32::new(1));
    bed.expect(&[of_one(&bed, "user.small", Kind::Reserved("value_crc"))]);

    let bed = Bed::new();
    bed.ram
        .store(bed.xattrs_at() + 32 + 8, b"user\0small")
        .unwrap();
    bed.xattrs(|_, _| ());
    bed.expect(&[of_one(&bed, "user\0small", Kind::BadName)]);

    let bed = Bed::new();
    bed.ram
        .store(bed.xattrs_at() + 32 + 8, b"user.large")
        .unwrap();
    bed.xattrs(|_, _| ());
    bed.expect(&[of_one(&bed, "user.large", Kind::NameTwice)]);
}

#[test]
fn damaged_value() {
    let refused = |bed: &Bed| {
        let read = large_value(bed);
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    };
    let bed = Bed::new();
    assert_eq!(large_value(&bed), Ok(5000));
    bed.put(bed.value_block() * BLOCK + 100, &7u8);
    refused(&bed);
    bed.expect(&[of_one(&bed, "user.large", Kind::Checksum)]);

    let bed = Bed::new();
    bed.spoil(bed.second_xattr_at(), |record: &mut XattrRecord| {
        record.value_len = U16::new(9000);
    });
    bed.xattrs(|_, _| ());
    refused(&bed);
    bed.expect(&[of_one(&bed, "user.large", Kind::Size(9000))]);

    // Blocks of somebody else.
    let bed = Bed::new();
    let block = bed.raw("small").root[0].block();
    bed.put(bed.second_xattr_at() + 24, &U64::new((2 << 40) | (1 << 39)));
    bed.xattrs(|_, _| ());
    refused(&bed);
    let outside = Kind::OutsideData {
        block: 1 << 39,
        len: 2,
    };
    let found = bed.problems();
    assert_eq!(found[0], bad(&bed, outside));
    assert_eq!(leaked(&found[1..]), 2);

    bed.put(bed.second_xattr_at() + 24, &U64::new((1 << 40) | block));
    bed.xattrs(|_, _| ());
    let found = bed.problems();
    let twice = Kind::UsedTwice { block, len: 1 };
    assert!(found.contains(&bad(&bed, twice)), "{found:?}");
}

#[test]
fn block_outside_or_not_there() {
    let bed = Bed::new();
    bed.inode("tagged", |raw| raw.xattr_block = U64::new(1 << 50));
    let outside = Kind::OutsideData {
        block: 1 << 50,
        len: 1,
    };
    let found = bed.problems();
    assert_eq!(
        found[0],
        of(bed.ino("tagged"), Inode, bed.at("tagged"), outside)
    );
    assert_eq!(leaked(&found[1..]), 3);

    let bed = Bed::new();
    bed.inode("tagged", |raw| raw.blocks += 1);
    let (stored, counted) = (4, 3);
    let kind = Kind::Blocks { stored, counted };
    bed.expect(&[of(bed.ino("tagged"), Inode, bed.at("tagged"), kind)]);
}
