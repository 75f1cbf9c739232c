// SPDX-License-Identifier: GPL-2.0

//! Superblocks, lanes, counters.

use rdax_volume::volume::check::{check, Kind, Problem};
use rdax_volume::volume::error::Structure::{Lane, SuperBlock};
use rdax_volume::volume::format::{BLOCK, MIN_BYTES};
use rdax_volume::volume::journal::unretired_word;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{format, Error};
use zerocopy::little_endian::{I64, U32, U64};

use crate::bed::{problem, Bed, BYTES};

const COPY: u64 = BYTES - BLOCK;

/// What is reported where the check fails.
fn failure(bed: &Bed) -> (Error, Vec<Problem>) {
    let mut found = Vec::new();
    let error = check(&bed.ram, &mut |problem| found.push(problem)).expect_err("no volume");
    (error, found)
}

#[test]
fn first_superblock_damaged_the_copy_serves() {
    let bed = Bed::new();
    bed.spoil(0, |sb: &mut format::SuperBlock| sb.label[0] ^= 1);
    bed.expect(&[problem(SuperBlock, 0, Kind::Checksum)]);
    bed.ram.zero_nt(0, BLOCK).unwrap();
    bed.expect(&[problem(SuperBlock, 0, Kind::Magic)]);
}

#[test]
fn copy_damaged() {
    let bed = Bed::new();
    bed.spoil(COPY, |sb: &mut format::SuperBlock| sb.label[0] ^= 1);
    bed.expect(&[problem(SuperBlock, COPY, Kind::Checksum)]);
    bed.ram.zero_nt(COPY, BLOCK).unwrap();
    bed.expect(&[problem(SuperBlock, COPY, Kind::Magic)]);
}

#[test]
fn superblocks_differ() {
    let bed = Bed::new();
    bed.one_super_block(COPY, |sb| sb.made_sec = I64::new(1));
    bed.expect(&[problem(SuperBlock, COPY, Kind::CopiesDiffer)]);
}

#[test]
fn a_label_that_reached_one_superblock_is_no_damage() {
    let bed = Bed::new();
    bed.one_super_block(0, |sb| {
        sb.label[0] = b'x';
        sb.generation += 1;
    });
    bed.expect(&[]);
    // Without a greater generation nobody has written it.
    bed.one_super_block(0, |sb| sb.generation -= 1);
    bed.expect(&[problem(SuperBlock, COPY, Kind::CopiesDiffer)]);
}

/// A superblock without witnesses on the device loses against its copy, whichever of them is the
/// first and whichever claims to be newer.
#[test]
fn the_superblock_with_more_witnesses_counts() {
    type Change = fn(&mut format::SuperBlock);
    let cases: [Change; 6] = [
        |sb| sb.uuid[3] ^= 1,
        |sb| sb.hash_key[3] ^= 1,
        |sb| sb.lanes_block += 1,
        |sb| (sb.summary_block, sb.generation) = (sb.summary_block + 1, sb.generation + 1),
        |sb| sb.system_block -= 1,
        |sb| sb.data_block += 1,
    ];
    for (case, change) in cases.into_iter().enumerate() {
        for at in [0, COPY] {
            let bed = Bed::new();
            // Room to move each area to.
            bed.one_super_block(at, change);
            let found = bed.problems();
            let at = problem(SuperBlock, at, Kind::CopiesDiffer);
            let geometry = found.iter().any(|p| matches!(p.kind, Kind::Geometry(_)));
            assert!(found == [at] || geometry, "{case}: {found:?}");
            let vol = rdax_volume::volume::Volume::mount(&bed.ram, Default::default()).unwrap();
            assert_eq!(vol.super_block().uuid, crate::bed::UUID, "{case}");
            vol.iget(format::ROOT_INO).unwrap();
            let want = rdax_volume::volume::alloc::Want::blocks(1);
            drop(vol.reserve(want).unwrap());
        }
    }
}

#[test]
fn the_newer_superblock_counts() {
    for (at, loser) in [(0, COPY), (COPY, 0)] {
        let bed = Bed::new();
        bed.one_super_block(at, |sb| {
            sb.made_sec = I64::new(1);
            sb.generation += 1;
        });
        bed.expect(&[problem(SuperBlock, loser, Kind::CopiesDiffer)]);
    }
}

/// Newer code writes the first before the copy.
#[test]
fn unknown_features_of_the_copy_alone_do_not_count() {
    let bed = Bed::new();
    bed.one_super_block(COPY, |sb| {
        sb.ro_compat = U64::new(8);
        sb.generation += 1;
    });
    bed.expect(&[problem(SuperBlock, COPY, Kind::CopiesDiffer)]);
    let vol = rdax_volume::volume::Volume::mount(&bed.ram, Default::default()).unwrap();
    assert_eq!(vol.super_block().ro_compat.get(), 0);
    drop(vol);
    // A newer first does, and so does a copy with more witnesses.
    let bed = Bed::new();
    bed.one_super_block(0, |sb| {
        sb.ro_compat = U64::new(8);
        sb.generation += 1;
    });
    let newer = Error::Unsupported { bits: 8, ro: false };
    assert_eq!(failure(&bed).0, newer);
    let bed = Bed::new();
    bed.one_super_block(COPY, |sb| sb.ro_compat = U64::new(8));
    bed.one_super_block(0, |sb| sb.hash_key[3] ^= 1);
    assert_eq!(failure(&bed).0, newer);
}

/// A superblock that is refused, and a copy of which nothing is there: neither is believed.
#[test]
fn a_copy_without_witnesses_does_not_replace_a_newer_format() {
    let bed = Bed::new();
    bed.one_super_block(0, |sb| sb.incompat = U64::new(4));
    bed.one_super_block(COPY, |sb| sb.hash_key[3] ^= 1);
    let newer = Error::Unsupported { bits: 4, ro: false };
    assert_eq!(failure(&bed), (newer, vec![]));
    let mounted = rdax_volume::volume::Volume::mount(&bed.ram, Default::default());
    assert_eq!(mounted.err(), Some(newer));
}

/// A version, or features, that the other superblock knows nothing of.
#[test]
fn a_superblock_that_is_refused_for_damage() {
    type Change = fn(&mut format::SuperBlock);
    let cases: [Change; 4] = [
        |sb| sb.version += 1,
        |sb| sb.incompat = U64::new(4),
        // Of another volume, though all that the copy names is there.
        |sb| (sb.version, sb.uuid[3]) = (sb.version + 1, sb.uuid[3] ^ 1),
        |sb| (sb.blocks, sb.chunks) = (sb.blocks + 512, sb.chunks + 1),
    ];
    for change in cases {
        for at in [0, COPY] {
            let bed = Bed::new();
            bed.one_super_block(at, change);
            let found = bed.problems();
            assert!(
                matches!(
                    found[..],
                    [Problem {
                        what: SuperBlock,
                        ..
                    }]
                ),
                "{found:?}"
            );
            rdax_volume::volume::Volume::mount(&bed.ram, Default::default()).unwrap();
        }
        // One that is newer is none.
        let bed = Bed::new();
        bed.one_super_block(0, |sb| {
            change(sb);
            sb.generation += 1;
        });
        failure(&bed);
    }
}

/// Another volume, of a version that is not known, has stored over something that the copy names.
#[test]
fn a_superblock_of_another_volume_is_refused() {
    let bed = Bed::new();
    bed.one_super_block(0, |sb| {
        sb.version += 1;
        sb.uuid[3] ^= 1;
    });
    bed.put(bed.summary_at(0), &[0_u8; 8]);
    let (error, _) = failure(&bed);
    assert!(matches!(error, Error::Version { .. }), "{error}");
    let mounted = rdax_volume::volume::Volume::mount(&bed.ram, Default::default());
    assert!(matches!(mounted.err(), Some(Error::Version { .. })));
}

#[test]
fn both_superblocks_damaged() {
    let bed = Bed::new();
    for at in [0, COPY] {
        bed.spoil(at, |sb: &mut format::SuperBlock| sb.label[0] ^= 1);
    }
    let (error, found) = failure(&bed);
    let corrupt = Error::Corrupt {
        what: SuperBlock,
        at: 0,
    };
    assert_eq!(error, corrupt);
    let both = [0, COPY].map(|at| problem(SuperBlock, at, Kind::Checksum));
    assert_eq!(found, both);
}

#[test]
fn no_volume() {
    let bed = Bed::new();
    bed.ram.zero_nt(0, BLOCK).unwrap();
    bed.ram.zero_nt(COPY, BLOCK).unwrap();
    assert_eq!(failure(&bed), (Error::NotRdax, vec![]));
    let small = rdax_volume::ram::Ram::new(MIN_BYTES - BLOCK);
    let error = check(&small, &mut |_| {}).unwrap_err();
    let (need, have) = (MIN_BYTES, MIN_BYTES - BLOCK);
    assert_eq!(error, Error::TooSmall { need, have });
}

#[test]
fn newer_formats_are_refused() {
    let bed = Bed::new();
    bed.super_block(|sb| sb.version = U32::new(format::VERSION + 1));
    let found = format::VERSION + 1;
    assert_eq!(failure(&bed), (Error::Version { found }, vec![]));
    let newer = |bits| (Error::Unsupported { bits, ro: false }, vec![]);
    let bed = Bed::new();
    bed.super_block(|sb| sb.incompat = U64::new(4));
    assert_eq!(failure(&bed), newer(4));
    let bed = Bed::new();
    bed.super_block(|sb| sb.ro_compat = U64::new(8));
    assert_eq!(failure(&bed), newer(8));
    // What old code may ignore is no reason.
    let bed = Bed::new();
    bed.super_block(|sb| sb.compat = U64::new(1));
    bed.expect(&[]);
}

#[test]
fn volume_larger_than_its_device() {
    let bed = Bed::new();
    bed.super_block(|sb| (sb.blocks, sb.chunks) = (sb.blocks + 512, sb.chunks + 1));
    let (need, have) = (BYTES + (2 << 20), BYTES);
    assert_eq!(failure(&bed), (Error::TooSmall { need, have }, vec![]));
}

#[test]
fn impossible_geometry() {
    type Change = fn(&mut format::SuperBlock);
    let cases: [(Change, &str); 9] = [
        (|sb| sb.blocks = U64::new(17), "number of blocks is not"),
        (|sb| sb.chunks += 1, "number of chunks"),
        (|sb| sb.lane_count = U32::ZERO, "lanes are not possible"),
        (|sb| sb.lane_bytes = U32::new(100), "lanes are not possible"),
        (|sb| sb.lanes_block = sb.system_block, "overlap"),
        (|sb| sb.bitmap_block = sb.summary_block, "overlap"),
        (|sb| sb.data_block += 1, "a gap between areas"),
        (|sb| sb.data_block = U64::MAX_VALUE, "a gap between areas"),
        (|sb| sb.root_ino = U64::new(256), "root directory"),
    ];
    for (change, text) in cases {
        let bed = Bed::new();
        bed.super_block(change);
        let (error, found) = failure(&bed);
        assert!(
            matches!(
                error,
                Error::Corrupt {
                    what: SuperBlock,
                    at: 0
                }
            ),
            "{text}: {error}"
        );
        assert!(found[0].to_string().contains(text), "{text}: {}", found[0]);
    }
}

#[test]
fn reserved_bytes_of_the_superblock() {
    let bed = Bed::new();
    bed.super_block(|sb| sb.reserved[295] = 1);
    bed.expect(&[]);
}

#[test]
fn lane_without_a_header() {
    let bed = Bed::new();
    for slot in 0..2 {
        bed.spoil(
            bed.lane_at(5) + slot * 64,
            |header: &mut format::LaneHeader| {
                header.crc += 1;
            },
        );
    }
    // The counters are then no statement, so nothing is said of them.
    bed.expect(&[problem(Lane, bed.lane_at(5), Kind::NoHeader)]);
}

#[test]
fn header_of_another_lane() {
    let bed = Bed::new();
    for slot in 0..2 {
        bed.lane(5, slot, |header| header.lane = U32::new(6));
    }
    bed.expect(&[problem(Lane, bed.lane_at(5), Kind::NoHeader)]);
}

/// The lane that the bed's thread has used.
fn used_lane(bed: &Bed) -> (u64, u64, format::LaneHeader) {
    (0..16)
        .map(|lane| {
            let (slot, header) = bed.last_header(lane);
            (lane, slot, header)
        })
        .find(|(_, _, header)| header.seq.get() > 1)
        .expect("a lane was used")
}

#[test]
fn journal_not_replayed() {
    let bed = Bed::new();
    let (lane, slot, header) = used_lane(&bed);
    let seq = header.seq.get();
    bed.lane(lane, slot, |header| header.retired = unretired_word(seq));
    bed.expect(&[problem(Lane, bed.lane_at(lane), Kind::NotReplayed { seq })]);
}

/// No bit of `retired` makes a transaction that is in place one to be replayed, be the header the
/// last one or that before.
#[test]
fn damaged_retired_word() {
    let bed = Bed::new();
    let (lane, slot, header) = used_lane(&bed);
    let seq = header.seq.get();
    for (slot, seq) in [(slot, seq), (1 - slot, seq - 1)] {
        for bit in 0..64 {
            let flip = |header: &mut format::LaneHeader| header.retired ^= U64::new(1 << bit);
            bed.lane(lane, slot, flip);
            bed.expect(&[problem(Lane, bed.lane_at(lane), Kind::Retired { seq })]);
            bed.lane(lane, slot, flip);
        }
    }
    bed.expect(&[]);
}

#[test]
fn torn_transaction_is_none() {
    let bed = Bed::new();
    let (lane, slot, header) = used_lane(&bed);
    let seq = header.seq.get() + 1;
    // The header of the next transaction is there, with counters, but its body is not.
    let next = format::LaneHeader {
        seq: U64::new(seq),
        body_len: U32::new(64),
        body_crc: U32::new(0x1234_5678),
        retired: unretired_word(seq),
        free_blocks: I64::new(-1000),
        ..header.clone()
    };
    bed.put(bed.lane_at(lane) + (1 - slot) * 64, &next);
    bed.lane(lane, 1 - slot, |_| {});
    bed.expect(&[]);
    // The same with a transaction before it that was not retired cannot be.
    bed.lane(lane, slot, |header| {
        header.retired = unretired_word(header.seq.get());
    });
    bed.expect(&[problem(Lane, bed.lane_at(lane), Kind::NoHeader)]);
}

#[test]
fn wrong_counters() {
    let bed = Bed::new();
    let before = crate::bed::problems(&bed.ram).0;
    bed.super_block(|sb| sb.free_blocks += 1);
    let (stored, counted) = (before.free_blocks as i128 + 1, before.free_blocks);
    bed.expect(&[problem(SuperBlock, 0, Kind::FreeBlocks { stored, counted })]);

    let bed = Bed::new();
    let (lane, slot, _) = used_lane(&bed);
    bed.lane(lane, slot, |header| header.used_inodes -= 2);
    let (stored, counted) = (before.inodes as i128 - 2, before.inodes);
    bed.expect(&[problem(SuperBlock, 0, Kind::UsedInodes { stored, counted })]);
}
