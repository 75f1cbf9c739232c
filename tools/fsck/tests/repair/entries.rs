// SPDX-License-Identifier: GPL-2.0

//! Directory leaves and their entries.

use rdax_volume::volume::error::Structure::DirLeaf;
use rdax_volume::volume::format::{Dirent, BLOCK, COOKIE_LOW_BITS};
use zerocopy::little_endian::{U16, U64};

use crate::bed::{Bed, Parts};
use crate::mended::mended;

/// Changes the entry of "small" in the root directory.
#[track_caller]
fn entry(safe: bool, says: &str, change: impl Fn(&Bed, u64)) {
    let said = mended(&[], safe, |bed| {
        let at = bed.record_at(bed.leaf_at("/"), "small");
        change(bed, at);
        (DirLeaf, at)
    });
    assert!(said.contains(says), "{said}");
}

#[test]
fn header() {
    for offset in [0, 5, 10, 20, 30] {
        let said = mended(&[], false, |bed| {
            let at = bed.leaf_at("/");
            bed.put(at + offset, b"?");
            (DirLeaf, at)
        });
        assert!(said.contains("header of the leaf at"), "{said}");
        assert!(!said.contains("lost+found"), "{said}");
    }
}

#[test]
fn whole_leaf() {
    let said = mended(&[], false, |bed| {
        let at = bed.leaf_at("dir");
        bed.put(at, &[0x33_u8; BLOCK as usize]);
        (DirLeaf, at)
    });
    assert!(said.contains("put into lost+found"), "{said}");
}

#[test]
fn one_leaf_of_many() {
    let said = mended(&[], false, |bed| {
        let leaf = bed.get::<[rdax_volume::volume::format::Extent; 4]>(bed.node_at("many") + 64)[2];
        bed.put(leaf.block() * BLOCK, &[0x33_u8; BLOCK as usize]);
        (DirLeaf, leaf.block() * BLOCK)
    });
    assert!(said.contains("put into lost+found"), "{said}");
}

#[test]
fn record() {
    entry(false, "put into lost+found", |bed, at| {
        bed.put(at + 24, b"?")
    });
    entry(false, "put into lost+found", |bed, at| {
        bed.put(at + 8, b"?")
    });
}

#[test]
fn record_length() {
    for len in [0, 17, 4096] {
        entry(false, "put into lost+found", |bed, at| {
            bed.record(at, |head| head.rec_len = U16::new(len));
        });
    }
}

#[test]
fn free_record() {
    mended(&[], true, |bed| {
        let leaf = bed.leaf_at("dir");
        let mut at = leaf + 32;
        while bed.get::<Dirent>(at).ino.get() != 0 {
            at += u64::from(bed.get::<Dirent>(at).rec_len.get());
        }
        bed.record(at, |head| head.file_type = 3);
        (DirLeaf, at)
    });
}

#[test]
fn names() {
    entry(false, "put into lost+found", |bed, at| {
        bed.rename(at, b"sm/ll")
    });
    let said = mended(&[], false, |bed| {
        let at = bed.record_at(bed.leaf_at("/"), "twin2");
        bed.rename(at, b"twin1");
        (DirLeaf, at)
    });
    assert!(said.contains("put into lost+found"), "{said}");
}

#[test]
fn cookies() {
    entry(false, "directory rebuilt", |bed, at| {
        bed.record(at, |head| head.cookie += 1 << COOKIE_LOW_BITS)
    });
    let said = mended(&[], false, |bed| {
        let leaf = bed.leaf_at("/");
        let (a, b) = (bed.record_at(leaf, "twin1"), bed.record_at(leaf, "twin2"));
        let cookie = bed.get::<Dirent>(a).cookie;
        bed.record(b, |head| head.cookie = cookie);
        (DirLeaf, b)
    });
    assert!(!said.contains("lost+found"), "{said}");
}

#[test]
fn wrong_leaf() {
    // The leaves of two entries of the tree change their places.
    mended(&[], false, |bed| {
        let at = bed.node_at("many");
        let mut leaf = 0;
        bed.node(at, |_, e| {
            leaf = e[3].block();
            let key = e[3].key;
            e[3] = Parts::of(key.get() + 1, leaf, 1);
        });
        (DirLeaf, leaf * BLOCK)
    });
}

#[test]
fn what_is_named() {
    entry(false, "removed", |bed, at| {
        bed.record(at, |head| head.ino = U64::new(5000));
    });
    entry(true, "", |bed, at| {
        bed.record(at, |head| head.file_type = 1)
    });
}
