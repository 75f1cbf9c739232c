// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.

use std::collections::BTreeSet;

use rdax_volume::volume::error::Structure::{Inode, Xattr};
use rdax_volume::volume::format::{Extent, SuperBlock, XattrHeader, XattrRecord, BLOCK};
use rdax_volume::volume::pmem::Pmem;
use zerocopy::little_endian::{U16, U32, U64};

use crate::bed::{Bed, Parts};
use crate::common::mount_only;
use crate::common::tree::walk;
use crate::mended::{filled, mend, mended, sim_of};

/// Which attributes "tagged" has after the repair.
#[track_caller]
fn left(damage: impl Fn(&Bed), expected: &[&str]) {
    let bed = filled();
    damage(&bed);
    let sim = sim_of(&bed);
    let said = mend(&sim).unwrap();
    let seen = &walk(&mount_only(&sim)).unwrap()[&bed.ino("tagged")];
    let names: BTreeSet<&[u8]> = seen.xattrs.keys().map(|name| &name[..]).collect();
    let expected: BTreeSet<&[u8]> = expected.iter().map(|name| name.as_bytes()).collect();
    assert_eq!(names, expected, "{said}");
    assert!(seen.xattrs.values().all(|v| [10, 5000].contains(&v.len())));
    assert!(!said.contains("fields corrected"), "wrong counts: {said}");
}

/// The attributes of "tagged" are damaged, and only those called `rest` are left.
#[track_caller]
fn loses(rest: &[&str], says: &str, damage: impl Fn(&Bed)) {
    let said = mended(&["tagged"], false, |bed| {
        damage(bed);
        (Xattr, bed.xattrs_at())
    });
    assert!(said.contains(says), "{said}");
    left(damage, rest);
}

/// A run of a large value with a bit that no run can have, or of no blocks.
#[test]
fn run_that_cannot_be() {
    for change in [|word: u64| word | (1 << 63), |word| word & 0xff_ffff_ffff] {
        loses(&["user.small"], "its value is damaged", |bed| {
            let at = bed.second_xattr_at() + 24;
            let word: U64 = bed.get(at);
            bed.put(at, &U64::new(change(word.get())));
            bed.xattrs(|_, _| {});
        });
    }
}

/// A value with the blocks of all others, and with all that is free: it is what is removed.
#[test]
fn value_over_everything() {
    let said = mended(&["tagged"], false, |bed| {
        let sb: SuperBlock = bed.get(0);
        let (from, end) = (sb.data_block.get(), sb.blocks.get() - 2);
        let all = Extent::of(0, from, end - from);
        bed.put(bed.second_xattr_at() + 24, &all.value);
        bed.xattrs(|_, _| ());
        (Xattr, bed.xattrs_at())
    });
    assert!(!said.contains("no space"), "{said}");
}

#[test]
fn block() {
    let all = "all extended attributes removed";
    loses(&[], all, |bed| {
        bed.spoil(bed.xattrs_at(), |header: &mut XattrHeader| header.crc += 1)
    });
    loses(&[], all, |bed| {
        bed.xattrs(|header, _| header.magic = U32::ZERO)
    });
    loses(&[], all, |bed| {
        bed.xattrs(|header, _| header.len = U32::new(4104))
    });
    loses(&[], all, |bed| bed.xattrs(|header, _| header.owner += 1));
    loses(&[], all, |bed| bed.xattrs(|header, _| header.block += 1));
    loses(&[], all, |bed| {
        bed.xattrs(|header, _| header.generation += 1)
    });
}

#[test]
fn block_outside() {
    for block in [3, 1 << 50] {
        let damage = |bed: &Bed| bed.inode("tagged", |raw| raw.xattr_block = U64::new(block));
        mended(&["tagged"], false, |bed| {
            damage(bed);
            (Inode, bed.at("tagged"))
        });
        left(damage, &[]);
    }
    // A short symlink keeps its target.
    let said = mended(&["short"], false, |bed| {
        bed.inode("short", |raw| raw.xattr_block = U64::new(3));
        (Inode, bed.at("short"))
    });
    assert!(!said.contains("cleared"), "{said}");
}

#[test]
fn records() {
    let large = &["user.large"];
    loses(&[], "behind a damaged record", |bed| {
        bed.xattrs(|_, record| record.value_len = U16::new(500))
    });
    // What comes before the one that is too long stays.
    loses(&["user.small"], "behind a damaged record", |bed| {
        bed.spoil(bed.second_xattr_at(), |record: &mut XattrRecord| {
            record.runs = 200;
        });
        bed.xattrs(|_, _| ())
    });
    let name = |bed: &Bed, name: &[u8]| {
        bed.ram.store(bed.xattrs_at() + 32 + 8, name).unwrap();
        bed.xattrs(|_, _| ())
    };
    loses(large, "a name that cannot be", |bed| {
        name(bed, b"user\0small")
    });
    // The first of a name stays, and that is a small one here.
    loses(large, "the second of this name", |bed| {
        name(bed, b"user.large")
    });
}

#[test]
fn reserved_fields() {
    let damage = |bed: &Bed| bed.xattrs(|_, record| record.value_crc = U32::new(1));
    mended(&[], true, |bed| {
        damage(bed);
        (Xattr, bed.xattrs_at())
    });
    left(damage, &["user.small", "user.large"]);
}

#[test]
fn values() {
    let small = &["user.small"];
    loses(small, "its value is damaged", |bed| {
        bed.put(bed.value_block() * BLOCK + 100, &7u8)
    });
    for len in [0, 100, 9000] {
        loses(small, "attribute \"user.large\" removed", |bed| {
            bed.spoil(bed.second_xattr_at(), |record: &mut XattrRecord| {
                record.value_len = U16::new(len);
            });
            bed.xattrs(|_, _| ())
        });
    }
    loses(small, "its value is damaged", |bed| {
        bed.put(bed.second_xattr_at() + 24, &Extent::of(0, 1 << 39, 2).value);
        bed.xattrs(|_, _| ())
    });
}

#[test]
fn blocks_of_another() {
    // A value in the block of a file that comes before: not what was written there.
    loses(&["user.small"], "its value is damaged", |bed| {
        let block = bed.raw("small").root[0].block();
        bed.put(bed.second_xattr_at() + 24, &Extent::of(0, block, 2).value);
        bed.xattrs(|_, _| ())
    });
    // Files that come before and after and have the blocks: each keeps what it had.
    let all = &["user.small", "user.large"];
    let give = |bed: &Bed, name: &str, block: u64| {
        bed.inode(name, |raw| {
            raw.root[0] = Parts::of(0, block, 1);
            raw.root_count = U16::new(1);
            raw.size = U64::new(BLOCK);
        });
    };
    for name in ["small", "linked"] {
        for block in [Bed::value_block, |bed: &Bed| bed.xattrs_at() / BLOCK] {
            let said = mended(&[name], false, |bed| {
                give(bed, name, block(bed));
                let value = block(bed) == bed.value_block();
                match (name, value) {
                    ("linked", _) => (Inode, bed.at("linked")),
                    (_, true) => (Xattr, bed.xattrs_at()),
                    (_, false) => (Inode, bed.at("tagged")),
                }
            });
            assert!(
                !said.contains("\" removed") && !said.contains("attributes removed"),
                "{said}"
            );
            left_whole(|bed| give(bed, name, block(bed)), all);
        }
    }
    // The attributes of another inode are not this one's.
    let damage = |bed: &Bed| {
        let block = bed.raw("small").xattr_block;
        bed.inode("tagged", |raw| raw.xattr_block = block);
    };
    mended(&["tagged"], false, |bed| {
        damage(bed);
        (Inode, bed.at("tagged"))
    });
    left(damage, &[]);
}

/// As [`left`], where the numbers of blocks may have been wrong.
#[track_caller]
fn left_whole(damage: impl Fn(&Bed), expected: &[&str]) {
    let bed = filled();
    damage(&bed);
    let sim = sim_of(&bed);
    mend(&sim).unwrap();
    let seen = &walk(&mount_only(&sim)).unwrap()[&bed.ino("tagged")];
    assert_eq!(seen.xattrs.len(), expected.len());
}

#[test]
fn content_is_no_directory() {
    // A value that looks like a leaf of a directory that is built anew.
    let bed = filled();
    let leaf = bed.leaf_at("sub");
    let mut forged = vec![0; BLOCK as usize];
    bed.ram.read(leaf, &mut forged).unwrap();
    let at = bed.value_block() * BLOCK;
    bed.ram.store(at, &forged).unwrap();
    bed.leaf_header(at, |header| header.block = U64::new(at / BLOCK));
    let mut value = vec![0; 5000];
    bed.ram.read(at, &mut value).unwrap();
    let crc = rdax_volume::env::crc32c(0, &value);
    bed.spoil(bed.second_xattr_at(), |record: &mut XattrRecord| {
        record.value_crc = U32::new(crc);
    });
    bed.xattrs(|_, _| ());
    bed.expect(&[]);
    bed.put(leaf, &[0x33_u8; BLOCK as usize]);
    let sim = sim_of(&bed);
    let said = mend(&sim).unwrap();
    assert!(said.contains("directory rebuilt with 0 names"), "{said}");
}
