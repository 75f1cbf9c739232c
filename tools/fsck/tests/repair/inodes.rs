// SPDX-License-Identifier: GPL-2.0

//! Inodes.

use rdax_volume::volume::error::Structure::Inode;
use rdax_volume::volume::format::RawInode;
use zerocopy::little_endian::{U16, U32, U64};

use crate::mended::mended;

/// One field of the inode `name` is changed; nothing is lost for that.
#[track_caller]
fn field(name: &str, safe: bool, change: impl Fn(&mut RawInode)) {
    mended(&[], safe, |bed| {
        bed.inode(name, &change);
        (Inode, bed.at(name))
    });
}

#[test]
fn checksum_of_a_file() {
    let said = mended(&["small"], false, |bed| {
        bed.put(bed.at("small") + 20, b"?");
        (Inode, bed.at("small"))
    });
    assert!(said.contains("cannot be believed, cleared"), "{said}");
    assert!(said.contains("entry \"small\" removed"), "{said}");
}

#[test]
fn checksum_of_directories() {
    for name in ["dir", "many"] {
        let said = mended(&[name], false, |bed| {
            bed.put(bed.at(name) + 20, b"?");
            (Inode, bed.at(name))
        });
        assert!(said.contains("put into lost+found as #"), "{said}");
    }
}

#[test]
fn root_directory() {
    let said = mended(&["/"], false, |bed| {
        bed.put(bed.at("/") + 30, b"?");
        (Inode, bed.at("/"))
    });
    assert!(said.contains("root directory: made anew"), "{said}");
    assert!(!said.contains("lost+found"), "its names were found: {said}");
    mended(&["/"], false, |bed| {
        bed.inode("/", |raw| raw.mode = U16::new(0o100644));
        (Inode, bed.at("/"))
    });
}

#[test]
fn number_and_type() {
    mended(&["small"], false, |bed| {
        bed.inode("small", |raw| raw.ino += 1);
        (Inode, bed.at("small"))
    });
    mended(&["small"], false, |bed| {
        bed.inode("small", |raw| raw.mode = U16::new(0o170644));
        (Inode, bed.at("small"))
    });
}

#[test]
fn fields_that_are_computed() {
    field("small", true, |raw| raw.blocks += 1);
    field("dir", true, |raw| raw.size += 4096);
    field("small", true, |raw| raw.parent = U64::new(9));
    field("small", true, |raw| raw.rdev = U32::new(9));
}

#[test]
fn fields_that_are_lost() {
    mended(&["small"], false, |bed| {
        bed.inode("small", |raw| raw.mtime_nsec = U32::new(u32::MAX));
        (Inode, bed.at("small"))
    });
    mended(&["small"], false, |bed| {
        bed.inode("small", |raw| raw.size = U64::new(1 << 63));
        (Inode, bed.at("small"))
    });
    field("fifo", false, |raw| raw.size = U64::new(1));
}

#[test]
fn symlinks() {
    mended(&["short"], false, |bed| {
        bed.inode("short", |raw| raw.size = U64::new(100));
        (Inode, bed.at("short"))
    });
    mended(&["long"], false, |bed| {
        bed.inode("long", |raw| raw.size = U64::ZERO);
        (Inode, bed.at("long"))
    });
}
