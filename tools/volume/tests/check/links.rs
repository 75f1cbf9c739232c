// SPDX-License-Identifier: GPL-2.0

//! Link counts, parents, reachability, orphans.

use rdax_volume::volume::check::Kind;
use rdax_volume::volume::error::Structure::{Inode, Orphan, SuperBlock};
use rdax_volume::volume::format::{OrphanSlot, INODE_CHUNK_SLOTS, LINK_MAX, ROOT_INO};
use zerocopy::little_endian::{U32, U64};

use crate::bed::{entry, mount, new_inode, of, problem, problems, Bed, NOW};

/// Expects one problem of the inode `name`.
#[track_caller]
fn one(bed: &Bed, name: &str, kind: Kind) {
    bed.expect(&[of(bed.ino(name), Inode, bed.at(name), kind)]);
}

#[test]
fn link_counts() {
    // A file with two names, a directory with one in it, the root with two.
    for (name, counted) in [
        ("linked", 2),
        ("small", 1),
        ("dir", 3),
        ("many", 2),
        ("/", 4),
    ] {
        for stored in [counted + 1, counted - 1] {
            let bed = Bed::new();
            bed.inode(name, |raw| raw.nlink = U32::new(stored as u32));
            one(&bed, name, Kind::Links { stored, counted });
        }
    }
}

#[test]
fn more_links_than_can_be_counted() {
    let bed = Bed::new();
    let stored = u64::from(LINK_MAX) + 1;
    bed.inode("small", |raw| raw.nlink = U32::new(stored as u32));
    let links = |counted| {
        let kind = Kind::Links { stored, counted };
        of(bed.ino("small"), Inode, bed.at("small"), kind)
    };
    bed.expect(&[links(LINK_MAX.into()), links(1)]);
}

#[test]
fn parents() {
    let bed = Bed::new();
    bed.inode("sub", |raw| raw.parent = U64::new(ROOT_INO));
    let found = bed.ino("dir");
    one(&bed, "sub", Kind::Parent { stored: 1, found });

    let bed = Bed::new();
    bed.inode("/", |raw| raw.parent = U64::new(7));
    let found = ROOT_INO;
    one(&bed, "/", Kind::Parent { stored: 7, found });
}

#[test]
fn unreachable() {
    let bed = Bed::new();
    bed.remove(bed.record_at(bed.leaf_at("/"), "fifo"));
    one(&bed, "fifo", Kind::Unreachable);
}

#[test]
fn unreachable_directory() {
    let bed = Bed::new();
    bed.remove(bed.record_at(bed.leaf_at("/"), "dir"));
    bed.inode("/", |raw| raw.nlink -= 1);
    // What is below it has its names, and is not reported again.
    one(&bed, "dir", Kind::Unreachable);
}

#[test]
fn directories_in_a_loop() {
    let bed = Bed::new();
    let (dir, sub) = (bed.ino("dir"), bed.ino("sub"));
    bed.remove(bed.record_at(bed.leaf_at("/"), "dir"));
    bed.inode("/", |raw| raw.nlink -= 1);
    // "other" in "sub" becomes "dir", which has "sub" in it.
    bed.record(bed.record_at(bed.leaf_at("sub"), "other"), |head| {
        head.ino = U64::new(dir);
        head.file_type = 4;
    });
    bed.inode("sub", |raw| raw.nlink += 1);
    bed.inode("dir", |raw| raw.parent = U64::new(sub));
    bed.inode("linked", |raw| raw.nlink -= 1);
    bed.expect(&[
        of(dir, Inode, bed.at("dir"), Kind::Loop),
        of(sub, Inode, bed.at("sub"), Kind::Loop),
    ]);
}

#[test]
fn second_name_of_a_directory() {
    let bed = Bed::new();
    let at = bed.record_at(bed.leaf_at("sub"), "other");
    bed.inode("linked", |raw| raw.nlink -= 1);
    bed.inode("sub", |raw| raw.nlink += 1);
    // The root must have no name at all.
    for target in [bed.ino("many"), ROOT_INO] {
        bed.record(at, |head| {
            head.ino = U64::new(target);
            head.file_type = 4;
        });
        // Which name is the second depends on the order of inodes: "sub" comes last.
        bed.expect(&[entry(bed.ino("sub"), at, b"other", Kind::SecondName)]);
    }
}

#[test]
fn no_root() {
    let bed = Bed::new();
    let at = bed.at("/");
    let inodes = problems(&bed.ram).0.inodes;
    bed.inode_chunk(bed.inode_chunk_at(ROOT_INO, at), |header| {
        header.bitmap[0] &= !2;
        header.free += 1;
    });
    let found = bed.problems();
    let kind = Kind::NoInode { target: ROOT_INO };
    assert!(found.contains(&of(ROOT_INO, Inode, at, kind)));
    let (stored, counted) = (inodes.into(), inodes - 1);
    let kind = Kind::UsedInodes { stored, counted };
    assert!(found.contains(&problem(SuperBlock, 0, kind)));
}

#[test]
fn orphans_are_no_problem() {
    let bed = Bed::new();
    let (summary, found) = problems(&bed.ram);
    assert_eq!((summary.orphans, found.len()), (1, 0));
    // Nor is a file with a name there: its truncation was under way.
    bed.orphan_slot(5, bed.ino("small"));
    bed.inode("small", |raw| raw.orphan = U32::new(6));
    let (summary, found) = problems(&bed.ram);
    assert_eq!((summary.orphans, found.len()), (2, 0));
}

/// Removing it for good needs an inode that the volume accepts.
#[test]
fn removed_directory_with_an_impossible_parent() {
    for parent in [0, 3 * INODE_CHUNK_SLOTS] {
        let bed = Bed::new();
        let vol = mount(&bed.ram);
        let mut root = vol.iget(ROOT_INO).unwrap();
        let directory = new_inode(0o040755, 0);
        let mut gone = vol.create(&mut root, b"gone", &directory).unwrap();
        vol.rmdir(&mut root, b"gone", &mut gone, NOW).unwrap();
        let (ino, at) = (gone.ino(), gone.at());
        drop((gone, root, vol));
        bed.expect(&[]);
        bed.inode_at(at, |raw| raw.parent = U64::new(parent));
        let (stored, found) = (parent, 0);
        bed.expect(&[of(ino, Inode, at, Kind::Parent { stored, found })]);
    }
}

#[test]
fn damaged_orphan_slots() {
    let bed = Bed::new();
    let at = bed.orphan_slot_at(0);
    bed.spoil(at, |slot: &mut OrphanSlot| slot.crc += 1);
    bed.expect(&[problem(Orphan, at, Kind::Checksum)]);

    let bed = Bed::new();
    let at = bed.orphan_slot_at(9);
    bed.spoil(at, |slot: &mut OrphanSlot| slot.crc += 1);
    bed.expect(&[problem(Orphan, at, Kind::Checksum)]);
    bed.put(at, &[0_u8; 32]);
    bed.spoil(at, |slot: &mut OrphanSlot| slot.work += 1);
    bed.expect(&[problem(Orphan, at, Kind::Checksum)]);
}

#[test]
fn work_that_cannot_be_done() {
    for (work, keys) in [
        (3, (0, 1)),
        (1, (7, 7)),
        (2, (0, (1 << 52) + 1)),
        (0, (0, 1)),
    ] {
        let bed = Bed::new();
        let at = bed.orphan_slot_at(0);
        bed.orphan_work(0, bed.ino("orphan"), work, keys);
        bed.expect(&[problem(Orphan, at, Kind::Work { work })]);
    }
    let bed = Bed::new();
    bed.orphan_work(0, bed.ino("orphan"), 1, (7, 1 << 52));
    bed.expect(&[]);
}

#[test]
fn slot_and_inode_that_do_not_agree() {
    // The slot names an inode that knows nothing of it.
    let bed = Bed::new();
    let target = bed.ino("small");
    bed.orphan_slot(3, target);
    let at = bed.orphan_slot_at(3);
    bed.expect(&[problem(Orphan, at, Kind::OrphanInode { target })]);

    // The inode names a slot that is empty, or past the file.
    for slot in [7, 1 << 30] {
        let bed = Bed::new();
        bed.inode("small", |raw| raw.orphan = U32::new(slot + 1));
        let slot = slot.into();
        one(&bed, "small", Kind::OrphanSlot { slot });
    }

    // No links, and in no slot.
    let bed = Bed::new();
    bed.put(bed.orphan_slot_at(0), &[0_u8; 32]);
    bed.inode("orphan", |raw| raw.orphan = U32::ZERO);
    one(&bed, "orphan", Kind::Unreachable);
}

#[test]
fn removed_directory_with_entries() {
    let bed = Bed::new();
    bed.remove(bed.record_at(bed.leaf_at("/"), "dir"));
    bed.inode("/", |raw| raw.nlink -= 1);
    bed.inode("dir", |raw| {
        raw.nlink = U32::ZERO;
        raw.orphan = U32::new(3);
    });
    bed.orphan_slot(2, bed.ino("dir"));
    one(&bed, "dir", Kind::RemovedNotEmpty);
}
