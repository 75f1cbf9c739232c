// SPDX-License-Identifier: GPL-2.0

//! Link counts, parents, reachability, orphans.

use rdax_volume::volume::error::Structure::{DirLeaf, Inode};
use rdax_volume::volume::format::{LINK_MAX, ROOT_INO};
use zerocopy::little_endian::{U32, U64};

use crate::bed::{mount, new_inode, Bed};
use crate::mended::mended;

#[test]
fn link_counts() {
    for (name, delta) in [
        ("linked", 1),
        ("small", u32::MAX),
        ("dir", 5),
        ("/", u32::MAX),
    ] {
        mended(&[], true, |bed| {
            bed.inode(name, |raw| {
                raw.nlink = U32::new(raw.nlink.get().wrapping_add(delta))
            });
            (Inode, bed.at(name))
        });
    }
    mended(&[], true, |bed| {
        bed.inode("small", |raw| raw.nlink = U32::new(LINK_MAX + 9));
        (Inode, bed.at("small"))
    });
}

#[test]
fn parents() {
    for name in ["sub", "/"] {
        mended(&[], true, |bed| {
            bed.inode(name, |raw| raw.parent = U64::new(7));
            (Inode, bed.at(name))
        });
    }
}

fn lose(bed: &Bed, name: &str) {
    bed.remove(bed.record_at(bed.leaf_at("/"), name));
}

#[test]
fn unreachable() {
    for name in ["small", "dir", "many"] {
        let said = mended(&[], false, |bed| {
            lose(bed, name);
            (Inode, bed.at(name))
        });
        assert!(said.contains("put into lost+found as #"), "{said}");
    }
}

#[test]
fn lost_and_found_is_no_directory() {
    let said = mended(&[], false, |bed| {
        lose(bed, "dir");
        let vol = mount(&bed.ram);
        let mut root = vol.iget(ROOT_INO).unwrap();
        vol.create(&mut root, b"lost+found", &new_inode(0o100644, 0))
            .unwrap();
        (Inode, bed.at("dir"))
    });
    assert!(said.contains("/lost+found.1 made"), "{said}");
}

#[test]
fn directories_in_a_loop() {
    mended(&[], false, |bed| {
        lose(bed, "dir");
        bed.record(bed.record_at(bed.leaf_at("sub"), "other"), |head| {
            head.ino = U64::new(bed.ino("dir"));
            head.file_type = 4;
        });
        bed.inode("dir", |raw| raw.parent = U64::new(bed.ino("sub")));
        (Inode, bed.at("dir"))
    });
}

#[test]
fn second_name_of_a_directory() {
    for target in ["many", "/"] {
        mended(&[], false, |bed| {
            let at = bed.record_at(bed.leaf_at("sub"), "other");
            bed.record(at, |head| {
                head.ino = U64::new(bed.ino(target));
                head.file_type = 4;
            });
            (DirLeaf, at)
        });
    }
    // The directory that says it is in "sub" stays there.
    let said = mended(&[], false, |bed| {
        let at = bed.record_at(bed.leaf_at("sub"), "other");
        bed.record(at, |head| {
            head.ino = U64::new(bed.ino("many"));
            head.file_type = 4;
        });
        bed.inode("many", |raw| raw.parent = U64::new(bed.ino("sub")));
        (DirLeaf, at)
    });
    assert!(!said.contains("entry \"other\" removed"), "{said}");
}

#[test]
fn orphans_that_are_none() {
    // A slot that is empty, or past the file.
    for slot in [7, 1 << 30] {
        mended(&[], false, |bed| {
            bed.inode("small", |raw| raw.orphan = U32::new(slot + 1));
            (Inode, bed.at("small"))
        });
    }
    // Removed, with something in it.
    let said = mended(&[], false, |bed| {
        lose(bed, "dir");
        bed.inode("dir", |raw| {
            raw.nlink = U32::ZERO;
            raw.orphan = U32::new(3);
        });
        bed.orphan_slot(2, bed.ino("dir"));
        (Inode, bed.at("dir"))
    });
    assert!(said.contains("not removed"), "{said}");
    // Its truncation was under way when its name was lost.
    mended(&[], false, |bed| {
        lose(bed, "small");
        bed.inode("small", |raw| raw.orphan = U32::new(3));
        bed.orphan_slot(2, bed.ino("small"));
        (Inode, bed.at("small"))
    });
}
