// SPDX-License-Identifier: GPL-2.0

//! `rdax-dump`: every structure is shown with its address, damage is shown as such, nothing makes
//! it fail otherwise than by a message.

#[allow(dead_code)]
#[path = "../../volume/tests/check/bed.rs"]
mod bed;

use assert_cmd::Command;
use bed::{Bed, BYTES};
use rdax_volume::volume::format::{BLOCK, ROOT_INO};
use rdax_volume::volume::pmem::Pmem;
use serde_json::Value;

/// What is printed for the volume, or the message if it fails.
fn dump(bed: &Bed, args: &[&str]) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.img");
    let mut bytes = vec![0; BYTES as usize];
    bed.ram.read(0, &mut bytes).unwrap();
    std::fs::write(&image, &bytes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rdax-dump"));
    let output = command.arg(&image).args(args).output().unwrap();
    assert!(
        std::fs::read(&image).unwrap() == bytes,
        "something was written"
    );
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match output.status.code() {
        Some(0) => Ok(text(output.stdout)),
        Some(1 | 2) => Err(text(output.stderr)),
        _ => panic!("{output:?}"),
    }
}

#[track_caller]
fn shows(bed: &Bed, args: &[&str], what: &[&str]) {
    let text = dump(bed, args).unwrap();
    for what in what {
        assert!(
            text.contains(what),
            "{args:?} does not show {what}:\n{text}"
        );
    }
    let json = dump(bed, &[args, &["--json"]].concat()).unwrap();
    serde_json::from_str::<Value>(&json).expect("JSON");
}

#[test]
fn every_structure() {
    let bed = Bed::new();
    let number = |name: &str| bed.ino(name).to_string();
    let at = |name: &str| format!("inode slot at {:#x}", bed.at(name));
    shows(&bed, &[], &["superblock at 0x0", "label          bed"]);
    shows(
        &bed,
        &["superblock"],
        &["copy of the superblock at 0xfff000"],
    );
    let lane = format!("lane 3 at {:#x}", bed.lane_at(3));
    shows(&bed, &["journal"], &[&lane, "state          quiet", "seq"]);
    shows(
        &bed,
        &["inode", &number("char")],
        &[&at("char"), "mode           0o20600"],
    );
    shows(&bed, &["inode", &number("short")], &["target         file"]);
    let block = format!("extended attributes in block {}", bed.xattrs_at() / BLOCK);
    let large = "value_damaged  false";
    shows(
        &bed,
        &["inode", &number("tagged")],
        &[&block, "name user.small  len 10  value \\x01", large],
    );
    shows(
        &bed,
        &["inode", "0", "--system"],
        &["ino            18446744073709486080"],
    );
    shows(
        &bed,
        &["inodes"],
        &["chunk 0 at", "inode 1 ", "mode 0o40755"],
    );
    let leaf = format!("leaf at {:#x}", bed.leaf_at("dir"));
    for dir in ["/dir", "dir/", &number("dir")] {
        shows(&bed, &["dir", dir], &[&leaf, "name sub", "free true"]);
    }
    shows(&bed, &["dir", "/dir/sub"], &["name other"]);
    let node = format!("node in block {}", bed.node_at("file") / BLOCK);
    shows(
        &bed,
        &["extents", &number("file")],
        &[&node, "extent  key 0x26"],
    );
    shows(&bed, &["alloc"], &["chunk 7, blocks from 3584"]);
    let orphan = format!(
        "slot 0 at {:#x}  ino {}",
        bed.orphan_slot_at(0),
        bed.ino("orphan")
    );
    shows(&bed, &["orphans"], &[&orphan]);
    let block = (bed.leaf_at("dir") / BLOCK).to_string();
    shows(
        &bed,
        &["block", &block, "2"],
        &["area           data", &leaf, "0x040"],
    );
}

#[test]
fn damage() {
    let bed = Bed::new();
    bed.put(60, b"?");
    shows(&bed, &[], &["WRONG, should be"]);
    shows(&bed, &["alloc"], &["chunk 0"]);
    bed.put(bed.at("small") + 9, b"?");
    shows(
        &bed,
        &["inode", &bed.ino("small").to_string()],
        &["WRONG", "in_use         false"],
    );
    let tagged = bed.ino("tagged").to_string();
    bed.put(bed.value_block() * BLOCK, b"?");
    shows(&bed, &["inode", &tagged], &["value_damaged  true"]);
    bed.put(bed.xattrs_at(), b"?");
    shows(&bed, &["inode", &tagged], &["damaged true"]);
    bed.put(bed.leaf_at("dir") + 40, b"?");
    shows(&bed, &["dir", "/dir"], &["damaged true"]);
    bed.put(bed.node_at("file") + 80, b"?");
    shows(&bed, &["extents", &bed.ino("file").to_string()], &["WRONG"]);
    bed.put(bed.at("/"), &[0xff_u8; 256]);
    let error = dump(&bed, &["dir", "/dir"]).unwrap_err();
    assert!(
        error.contains(&format!("inode {ROOT_INO} is not in use or damaged")),
        "{error}"
    );
}

#[test]
fn what_is_not_there() {
    let bed = Bed::new();
    for (args, says) in [
        (
            &["inode", "99999"][..],
            "the inode table has no inode 99999",
        ),
        (&["dir", "/nothing"], "has no name \"nothing\""),
        (&["dir", "/small"], "is no directory"),
        (&["block", "4096"], "the device has no block 4096"),
        (&["block", "18446744073709551615", "3"], "no such block"),
        (&["inode", "7", "--system"], "the system inodes are"),
        (&["nonsense"], "unexpected argument 'nonsense'"),
    ] {
        let error = dump(&bed, args).unwrap_err();
        assert!(error.contains(says), "{args:?}: {error}");
    }
}

#[test]
fn any_content() {
    // Noise behind the superblock: it ends, whatever it shows.
    let bed = Bed::new();
    let mut state = 1_u64;
    for at in (BLOCK..BYTES / 8).step_by(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bed.put(at, &state.to_le_bytes());
    }
    for args in [
        &["journal"][..],
        &["inodes"],
        &["alloc"],
        &["orphans"],
        &["extents", "0", "--system"],
    ] {
        let _ = dump(&bed, args);
    }
    for block in ["0", "1", "2", "100"] {
        let _ = dump(&bed, &["block", block]);
    }
}
