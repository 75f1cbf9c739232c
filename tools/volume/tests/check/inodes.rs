// SPDX-License-Identifier: GPL-2.0

//! Inode chunks and the fields of inodes.

use rdax_volume::volume::check::Kind;
use rdax_volume::volume::error::Structure::{Bitmap, Inode, InodeChunk, Orphan, SuperBlock};
use rdax_volume::volume::format::{
    self, Extent, RawInode, BLOCK, INODE_CHUNK_SLOTS, ORPHAN_INO, ROOT_INO, TABLE_INO,
};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::IntoBytes;

use crate::bed::{of, problem, problems, Bed, Parts};

/// Address of the header of the chunk of the last inodes: damage there is far from the root.
fn chunk(bed: &Bed) -> u64 {
    bed.inode_chunk_at(bed.ino("last"), bed.at("last"))
}

#[test]
fn damaged_chunk_header() {
    let bed = Bed::new();
    let at = chunk(&bed);
    bed.spoil(at, |header: &mut format::InodeChunk| header.crc += 1);
    // Nothing is known of its inodes, so nothing else is said of them.
    bed.expect(&[problem(InodeChunk, at, Kind::Checksum)]);
    bed.inode_chunk(at, |header| header.magic = U32::ZERO);
    bed.expect(&[problem(InodeChunk, at, Kind::Magic)]);
}

#[test]
fn chunk_header_of_another_chunk() {
    let bed = Bed::new();
    let at = chunk(&bed);
    let expected = bed.ino("last") / INODE_CHUNK_SLOTS;
    bed.inode_chunk(at, |header| header.index = U64::new(77));
    let kind = Kind::Misplaced {
        field: "index",
        stored: 77,
        expected,
    };
    bed.expect(&[problem(InodeChunk, at, kind)]);
}

#[test]
fn counts_and_bits_of_a_chunk() {
    let bed = Bed::new();
    let at = chunk(&bed);
    let counted = bed.get::<format::InodeChunk>(at).free.get().into();
    bed.inode_chunk(at, |header| header.free = U16::new(300));
    let stored = 300;
    bed.expect(&[problem(InodeChunk, at, Kind::FreeCount { stored, counted })]);

    let bed = Bed::new();
    bed.inode_chunk(at, |header| {
        header.bitmap[0] &= !1;
        header.free += 1;
    });
    bed.expect(&[problem(InodeChunk, at, Kind::HeaderFree)]);

    let bed = Bed::new();
    bed.inode_chunk(at, |header| header.reserved[5] = 1);
    bed.expect(&[]);
}

#[test]
fn damaged_inode() {
    let bed = Bed::new();
    bed.spoil(bed.at("fifo"), |raw: &mut RawInode| raw.uid += 1);
    bed.expect(&[of(bed.ino("fifo"), Inode, bed.at("fifo"), Kind::Checksum)]);

    let bed = Bed::new();
    let expected = bed.ino("fifo");
    bed.inode("fifo", |raw| raw.ino = U64::new(3000));
    let kind = Kind::Misplaced {
        field: "inode number",
        stored: 3000,
        expected,
    };
    bed.expect(&[of(expected, Inode, bed.at("fifo"), kind)]);
}

#[test]
fn damaged_inode_with_blocks() {
    let bed = Bed::new();
    let block = bed.raw("small").root[0].block();
    bed.spoil(bed.at("small"), |raw: &mut RawInode| raw.uid += 1);
    let leaked = Kind::Leaked { block, len: 1 };
    bed.expect(&[
        of(bed.ino("small"), Inode, bed.at("small"), Kind::Checksum),
        problem(Bitmap, bed.bitmap_at(0) + block / 8, leaked),
    ]);
}

/// Expects one problem of the inode `name` after `change`.
#[track_caller]
fn one(name: &str, kind: Kind, change: impl FnOnce(&mut RawInode)) {
    let bed = Bed::new();
    bed.inode(name, change);
    bed.expect(&[of(bed.ino(name), Inode, bed.at(name), kind)]);
}

#[test]
fn impossible_types() {
    for mode in [0, 0o644, 0o030644, 0o170644] {
        one("fifo", Kind::Mode(mode), |raw| raw.mode = U16::new(mode));
    }
    // The root is a directory.
    let bed = Bed::new();
    bed.inode("/", |raw| raw.mode = U16::new(0o100644));
    let first = of(ROOT_INO, Inode, bed.at("/"), Kind::Mode(0o100644));
    assert_eq!(bed.problems()[0], first);
}

#[test]
fn impossible_sizes() {
    let max = i64::MAX as u64;
    one("small", Kind::Size(max + 1), |raw| {
        raw.size = U64::new(max + 1)
    });
    one("fifo", Kind::Size(1), |raw| raw.size = U64::new(1));
    one("char", Kind::Size(4096), |raw| raw.size = U64::new(4096));
    one("short", Kind::Size(0), |raw| raw.size = U64::ZERO);
    let bed = Bed::new();
    bed.inode("small", |raw| raw.size = U64::new(max));
    bed.expect(&[]);
}

#[test]
fn impossible_times() {
    type Change = fn(&mut RawInode, U32);
    let fields: [(&str, Change); 4] = [
        ("mtime", |raw, nsec| raw.mtime_nsec = nsec),
        ("ctime", |raw, nsec| raw.ctime_nsec = nsec),
        ("atime", |raw, nsec| raw.atime_nsec = nsec),
        ("birth time", |raw, nsec| raw.btime_nsec = nsec),
    ];
    for (time, change) in fields {
        let nsec = 1_000_000_000;
        let kind = Kind::Nanoseconds { time, nsec };
        one("small", kind, |raw| change(raw, U32::new(nsec)));
        let bed = Bed::new();
        bed.inode("small", |raw| change(raw, U32::new(nsec - 1)));
        bed.expect(&[]);
    }
}

#[test]
fn fields_that_must_be_zero() {
    one("small", Kind::Reserved("rdev"), |raw| {
        raw.rdev = U32::new(9)
    });
    one("small", Kind::Reserved("parent"), |raw| {
        raw.parent = U64::new(1)
    });
}

#[test]
fn block_counts() {
    for name in ["small", "file", "dir", "many", "long", "short", "fifo"] {
        let counted = Bed::new().raw(name).blocks.get();
        let stored = counted + 7;
        one(name, Kind::Blocks { stored, counted }, |raw| {
            raw.blocks = U64::new(stored)
        });
    }
    assert_eq!(
        Bed::new().raw("file").blocks.get(),
        crate::bed::FILE_BLOCKS + 1
    );
}

#[test]
fn directory_sizes() {
    let counted = Bed::new().raw("many").size.get();
    let stored = counted - BLOCK;
    one("many", Kind::DirSize { stored, counted }, |raw| {
        raw.size = U64::new(stored)
    });
}

#[test]
fn symlink_targets() {
    let target = |name, change: fn(&mut RawInode)| one(name, Kind::SymlinkTarget, change);
    target("short", |raw| raw.root.as_mut_bytes()[2] = 0);
    target("short", |raw| raw.root_count = U16::new(1));
    target("short", |raw| raw.depth = 1);
    // The block holds more bytes than the target, zeros: a longer one has a NUL in it.
    target("long", |raw| raw.size = U64::new(300));
    target("long", |raw| raw.root[0].key = U64::new(1));

    let bed = Bed::new();
    let at = bed.raw("long").root[0].block() * BLOCK;
    bed.spoil(at, |bytes: &mut [u8; 200]| bytes[199] = 0);
    let kind = Kind::SymlinkTarget;
    bed.expect(&[of(bed.ino("long"), Inode, bed.at("long"), kind)]);

    let bed = Bed::new();
    bed.inode("long", |raw| raw.size = U64::new(4096));
    let (ino, at, kind) = (bed.ino("long"), bed.at("long"), Kind::Size(4096));
    assert_eq!(bed.problems()[0], of(ino, Inode, at, kind));
}

#[test]
fn blocks_of_what_has_none() {
    let bed = Bed::new();
    let block = bed.free_block();
    bed.mark(block, true);
    bed.inode("fifo", |raw| {
        raw.root[0] = Extent::of(0, block, 1);
        raw.root_count = U16::new(1);
        raw.blocks = U64::new(1);
    });
    let kind = Kind::TreeCount(1);
    bed.expect(&[of(bed.ino("fifo"), Inode, bed.at("fifo"), kind)]);
}

#[test]
fn damaged_inode_table() {
    let bed = Bed::new();
    let (at, copy) = (bed.system_at(0), bed.system_copy_at(0));
    for at in [at, copy] {
        bed.spoil(at, |raw: &mut RawInode| raw.uid += 1);
    }
    // Nothing can be reached: what is said beside it is of the blocks.
    let found = bed.problems();
    let both = [at, copy].map(|at| of(TABLE_INO, Inode, at, Kind::Checksum));
    assert_eq!(found[..2], both);
    let rest = |p: &_| {
        matches!(
            p,
            rdax_volume::volume::check::Problem {
                kind: Kind::Leaked { .. } | Kind::OrphanInode { .. },
                ..
            }
        )
    };
    assert!(found[2..].iter().all(rest), "{}", crate::bed::lines(&found));
}

#[test]
fn size_of_the_inode_table() {
    let bed = Bed::new();
    let at = bed.system_at(0);
    let size = bed.get::<RawInode>(at).size.get() - BLOCK;
    bed.system_inode(0, |raw| raw.size = U64::new(size));
    bed.expect(&[of(TABLE_INO, Inode, at, Kind::Size(size))]);
}

#[test]
fn hole_in_the_orphan_file() {
    let bed = Bed::new();
    let at = bed.system_at(1);
    bed.system_inode(1, |raw| {
        let (block, len) = (raw.root[0].block(), raw.blocks.get());
        raw.root[0] = Extent::of(0, block, 1);
        raw.root[1] = Extent::of(2, block + 1, len - 1);
        raw.root_count = U16::new(2);
        raw.size += BLOCK;
    });
    let kind = Kind::SystemHole { file_block: 1 };
    bed.expect(&[of(ORPHAN_INO, Inode, at, kind)]);
}

#[test]
fn damaged_orphan_file() {
    let bed = Bed::new();
    let at = bed.system_at(1);
    let blocks = bed.get::<RawInode>(at).blocks.get();
    let block = bed.orphan_slot_at(0) / BLOCK;
    let copy = bed.system_copy_at(1);
    for at in [at, copy] {
        bed.spoil(at, |raw: &mut RawInode| raw.uid += 1);
    }
    let kind = Kind::OrphanSlot { slot: 0 };
    let leaked = Kind::Leaked { block, len: blocks };
    bed.expect(&[
        of(ORPHAN_INO, Inode, at, Kind::Checksum),
        of(ORPHAN_INO, Inode, copy, Kind::Checksum),
        of(bed.ino("orphan"), Inode, bed.at("orphan"), kind),
        problem(Bitmap, bed.bitmap_at(0) + block / 8, leaked),
    ]);
}

#[test]
fn system_inode_and_its_copy() {
    for (slot, ino) in [(0, TABLE_INO), (1, ORPHAN_INO)] {
        for at in [Bed::system_at, Bed::system_copy_at] {
            let bed = Bed::new();
            let at = at(&bed, slot);
            bed.spoil(at, |raw: &mut RawInode| raw.uid += 1);
            bed.expect(&[of(ino, Inode, at, Kind::OneOfTwo)]);
            // The other one serves.
            let vol = rdax_volume::volume::Volume::mount(&bed.ram, Default::default()).unwrap();
            vol.iget(bed.ino("last")).unwrap();
            drop(vol);
            bed.inode_at(at, |_| {});
            let copy = bed.system_copy_at(slot);
            bed.expect(&[of(ino, Inode, copy, Kind::CopiesDiffer)]);
        }
    }
}

#[test]
fn inode_marked_free() {
    let bed = Bed::new();
    let (ino, at) = (bed.ino("orphan"), bed.at("orphan"));
    let header = bed.inode_chunk_at(ino, at);
    let inodes = problems(&bed.ram).0.inodes;
    bed.inode_chunk(header, |header| {
        header.bitmap[(ino % INODE_CHUNK_SLOTS / 64) as usize] &=
            !(1 << (ino % INODE_CHUNK_SLOTS % 64));
        header.free += 1;
    });
    let slot = bed.orphan_slot_at(0);
    let (stored, counted) = (inodes.into(), inodes - 1);
    bed.expect(&[
        problem(Orphan, slot, Kind::OrphanInode { target: ino }),
        problem(SuperBlock, 0, Kind::UsedInodes { stored, counted }),
    ]);
}
