// SPDX-License-Identifier: GPL-2.0

//! Summaries, bitmaps, and which blocks are in use.

use rdax_volume::volume::check::Kind;
use rdax_volume::volume::error::Structure::{Bitmap, Inode};
use rdax_volume::volume::format::{Extent, Summary, SuperBlock, BLOCK, EXTENT_MAX};
use zerocopy::little_endian::{U16, U64};

use crate::bed::{of, problem, Bed, Parts, BYTES};

#[test]
fn checksum_of_a_chunk() {
    let bed = Bed::new();
    bed.spoil(bed.summary_at(3), |summary: &mut Summary| summary.crc += 1);
    bed.expect(&[problem(Bitmap, bed.summary_at(3), Kind::Checksum)]);
}

#[test]
fn free_count_of_a_chunk() {
    let bed = Bed::new();
    bed.bitmap(2, |_, summary| summary.free = U16::new(513));
    let bitmap: [u8; 64] = bed.get(bed.bitmap_at(2));
    let counted = bitmap
        .iter()
        .map(|byte| u64::from(byte.count_zeros()))
        .sum();
    let kind = Kind::FreeCount {
        stored: 513,
        counted,
    };
    bed.expect(&[problem(Bitmap, bed.summary_at(2), kind)]);
}

#[test]
fn reserved_bytes_of_a_summary() {
    let bed = Bed::new();
    bed.bitmap(2, |_, summary| summary.reserved = U16::new(1));
    bed.expect(&[]);
}

#[test]
fn leaked_blocks() {
    let bed = Bed::new();
    let block = BYTES / BLOCK - 100;
    for block in block..block + 5 {
        bed.mark(block, true);
    }
    let at = bed.bitmap_at(0) + block / 8;
    bed.expect(&[problem(Bitmap, at, Kind::Leaked { block, len: 5 })]);
}

#[test]
fn block_in_use_marked_free() {
    let bed = Bed::new();
    let block = bed.raw("small").root[0].block();
    bed.mark(block, false);
    let at = bed.bitmap_at(0) + block / 8;
    bed.expect(&[problem(Bitmap, at, Kind::MarkedFree { block, len: 1 })]);
}

#[test]
fn metadata_and_the_copy_are_in_use() {
    for block in [0, 1, 40, BYTES / BLOCK - 1] {
        let bed = Bed::new();
        bed.mark(block, false);
        let at = bed.bitmap_at(0) + block / 8;
        bed.expect(&[problem(Bitmap, at, Kind::MarkedFree { block, len: 1 })]);
    }
}

#[test]
fn blocks_past_the_end() {
    // A volume whose last chunk is partial.
    let ram = rdax_volume::ram::Ram::new(BYTES - 5 * BLOCK);
    crate::bed::format(&ram);
    let (summary, found) = crate::bed::problems(&ram);
    assert_eq!(found, []);
    assert_eq!(summary.blocks, BYTES / BLOCK - 5);
    let bed = Bed::on(ram);
    let last = bed.get::<SuperBlock>(0).chunks.get() - 1;
    bed.bitmap(last, |bitmap, summary| {
        bitmap[63] &= 0x7f;
        summary.free += 1;
    });
    let (stored, counted) = (summary.free_blocks as i128, summary.free_blocks + 1);
    bed.expect(&[
        problem(Bitmap, bed.summary_at(last), Kind::FreePastEnd),
        problem(
            rdax_volume::volume::error::Structure::SuperBlock,
            0,
            Kind::FreeBlocks { stored, counted },
        ),
    ]);
}

#[test]
fn block_in_two_files() {
    let bed = Bed::new();
    let (first, second) = (bed.raw("twin1").root[0], bed.raw("twin2").root[0]);
    bed.inode("twin2", |raw| raw.root[0].value = first.value);
    let twice = Kind::UsedTwice {
        block: first.block(),
        len: 1,
    };
    let block = second.block();
    let leaked = Kind::Leaked { block, len: 1 };
    bed.expect(&[
        of(bed.ino("twin2"), Inode, bed.at("twin2"), twice),
        problem(Bitmap, bed.bitmap_at(0) + block / 8, leaked),
    ]);
}

#[test]
fn overlap_in_the_middle_of_an_extent() {
    let bed = Bed::new();
    let used = bed.raw("small").root[0].block();
    // Ten blocks around it: what of them is in use elsewhere is named from the first to the last.
    bed.inode("twin1", |raw| raw.root[0] = Extent::of(0, used - 1, 2));
    let found = bed.problems();
    let twice: Vec<_> = found
        .iter()
        .filter_map(|problem| match problem.kind {
            Kind::UsedTwice { block, len } => Some((problem.ino, block, block + len)),
            _ => None,
        })
        .collect();
    assert_eq!(twice.len(), 1, "{}", crate::bed::lines(&found));
    let (ino, from, to) = twice[0];
    assert_eq!(ino, Some(bed.ino("twin1")));
    assert!(from <= used && used < to);
}

#[test]
fn blocks_outside_the_data_area() {
    let bed = Bed::new();
    let own = bed.raw("small").root[0].block();
    let sb: SuperBlock = bed.get(0);
    let outside = [
        (0, 1),
        (sb.data_block.get() - 1, 1),
        (BYTES / BLOCK - 1, 1),
        (BYTES / BLOCK - 3, 3),
        ((1 << 40) - 1, 1),
        (own, EXTENT_MAX),
    ];
    for (block, len) in outside {
        bed.inode("small", |raw| raw.root[0] = Extent::of(0, block, len));
        let kind = Kind::OutsideData { block, len };
        let leaked = Kind::Leaked { block: own, len: 1 };
        bed.expect(&[
            of(bed.ino("small"), Inode, bed.at("small"), kind),
            problem(Bitmap, bed.bitmap_at(0) + own / 8, leaked),
        ]);
    }
    // An index entry is a block number of 64 bits.
    let bed = Bed::new();
    bed.inode("file", |raw| raw.root[0].value = U64::MAX_VALUE);
    let block = u64::MAX;
    let kind = Kind::OutsideData { block, len: 1 };
    assert_eq!(
        bed.problems()[0],
        of(bed.ino("file"), Inode, bed.at("file"), kind)
    );
}
