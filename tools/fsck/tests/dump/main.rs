// SPDX-License-Identifier: GPL-2.0

//! `rdax-dump`: every structure is shown with its address, damage is shown as such, nothing makes
//! it fail otherwise than by a message, and JSON says what the text says.

mod agree;
#[allow(dead_code)]
#[path = "../../../volume/tests/check/bed.rs"]
mod bed;

use agree::agree;
use assert_cmd::Command;
use bed::{mount, new_inode, Bed, BYTES, FILE_BLOCKS, NOW};
use rdax_volume::volume::format::{BLOCK, LANE_COUNT, ORPHAN_INO, ROOT_INO};
use rdax_volume::volume::journal::unretired_word;
use rdax_volume::volume::pmem::Pmem;
use serde_json::Value;

/// What is printed for the volume as text, and as JSON, which says the same.
#[track_caller]
fn both(bed: &Bed, args: &[&str]) -> (String, Value) {
    let text = dump(bed, args).unwrap();
    let json = dump(bed, &[args, &["--json"]].concat()).unwrap();
    let json = serde_json::from_str(&json).expect("JSON");
    agree(&text, &json);
    (text, json)
}

#[track_caller]
fn json(bed: &Bed, args: &[&str]) -> Value {
    both(bed, args).1
}

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
    let (text, _) = both(bed, args);
    for what in what {
        assert!(
            text.contains(what),
            "{args:?} does not show {what}:\n{text}"
        );
    }
}

/// The parts of a structure that are called `what`.
fn parts<'a>(node: &'a Value, what: &str) -> Vec<&'a Value> {
    let parts = node["parts"].as_array().expect("parts");
    parts.iter().filter(|part| part["what"] == what).collect()
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
        assert_eq!(dump(&bed, &[args, &["--json"]].concat()), Err(error));
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
        if dump(&bed, args).is_ok() {
            both(&bed, args);
        }
    }
    for block in ["0", "1", "2", "100"] {
        both(&bed, &["block", block]);
    }
}

#[test]
fn json_of_superblocks_and_free_space() {
    let bed = Bed::new();
    let both = json(&bed, &[]);
    assert_eq!(both["what"], "superblocks");
    for (at, sb) in [0, BYTES - BLOCK].iter().zip(parts(&both, "superblock")) {
        assert_eq!(sb["at"], *at);
        assert_eq!(sb["copy"], *at != 0);
        assert_eq!(sb["magic"], "rdax\0pm\u{1}");
        assert_eq!(sb["label"], "bed");
        assert_eq!(sb["uuid"], "30313233343536373839616263646566");
        assert_eq!(sb["blocks"], BYTES / BLOCK);
        assert_eq!(sb["made_sec"], NOW.sec);
        assert_eq!(sb["crc"], sb["crc_computed"]);
    }
    bed.one_super_block(0, |sb| sb.label[..3].copy_from_slice(b"\xfe\\x"));
    bed.put(60, b"?");
    let both = json(&bed, &["superblock"]);
    assert_eq!(both["parts"][0]["label_hex"], "fe5c78");
    assert_eq!(both["parts"][0].get("label"), None);
    assert_ne!(both["parts"][0]["crc"], both["parts"][0]["crc_computed"]);

    let space = json(&bed, &["alloc"]);
    let chunks = parts(&space, "chunk");
    assert_eq!(chunks.len() as u64, BYTES >> 21);
    for (n, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk["chunk"], n);
        assert_eq!(chunk["block"], n * 512);
        let runs = chunk["runs"].as_array().unwrap();
        let free: u64 = runs.iter().map(|run| run["len"].as_u64().unwrap()).sum();
        assert_eq!(chunk["free"], free);
    }
}

#[test]
fn json_of_files() {
    let bed = Bed::new();
    let vol = mount(&bed.ram);
    let mut root = vol.iget(ROOT_INO).unwrap();
    let new = new_inode(0o100644, 0);
    let mut reserved = vol.create(&mut root, b"\xffcaf\xe9\\", &new).unwrap();
    vol.fill(&mut reserved, 0, 1, Some(NOW)).unwrap();
    vol.preallocate(&mut reserved, 3, 2, NOW).unwrap();
    let composed = vol.create(&mut root, "caf\u{e9} \"\n".as_bytes(), &new);
    let composed = composed.unwrap().ino();
    let (reserved, reserved_at) = (reserved.ino(), reserved.at());
    drop(vol);

    // Names that are UTF-8, and one that is not.
    let dir = json(&bed, &["dir", "/"]);
    let leaves = parts(&dir, "leaf").into_iter();
    let records: Vec<_> = leaves.flat_map(|leaf| parts(leaf, "record")).collect();
    let of = |ino: u64| *records.iter().find(|record| record["ino"] == ino).unwrap();
    assert_eq!(of(composed)["name"], "caf\u{e9} \"\n");
    assert_eq!(of(reserved)["name_hex"], "ff636166e95c");
    assert_eq!(of(reserved).get("name"), None);
    assert_eq!(of(bed.ino("short"))["type"], 10);
    assert!(records.iter().any(|record| record["free"] == true));

    // Data, a hole, unwritten extents.
    let tree = json(&bed, &["extents", &reserved.to_string()]);
    assert_eq!(
        (&tree["ino"], &tree["at"]),
        (&reserved.into(), &reserved_at.into())
    );
    let extents = parts(&tree, "extent").into_iter();
    let extents: Vec<_> = extents
        .map(|extent| {
            (
                extent["key"].as_u64(),
                extent["len"].as_u64(),
                extent["unwritten"].as_bool(),
            )
        })
        .collect();
    let (data, unwritten) = (Some(false), Some(true));
    assert_eq!(
        extents,
        [(Some(0), Some(1), data), (Some(3), Some(2), unwritten)]
    );

    // A tree with a node.
    let tree = json(&bed, &["extents", &bed.ino("file").to_string()]);
    let node = parts(parts(&tree, "child")[0], "node")[0];
    assert_eq!(node["in_block"], bed.node_at("file") / BLOCK);
    assert_eq!(node["owner"], bed.ino("file"));
    assert_eq!(parts(node, "extent").len() as u64, FILE_BLOCKS);

    // Inodes: a device, a symlink, attributes, and a system inode, whose number needs 64 bits.
    let inode = |name: &str| json(&bed, &["inode", &bed.ino(name).to_string()]);
    let char = inode("char");
    assert_eq!(
        (&char["mode"], &char["rdev"]),
        (&0o020600.into(), &0x103.into())
    );
    assert_eq!(
        (&char["mtime_sec"], &char["mtime_nsec"]),
        (&NOW.sec.into(), &NOW.nsec.into())
    );
    assert_eq!(inode("short")["target"], "file");
    let tagged = inode("tagged");
    let xattrs = parts(&tagged, "extended attributes")[0];
    let [small, large] = parts(xattrs, "attribute")[..] else {
        panic!("{xattrs:#}");
    };
    assert_eq!(small["value"], "\u{1}".repeat(10));
    assert_eq!(
        (&large["len"], &large["value_damaged"]),
        (&5000.into(), &false.into())
    );
    assert_eq!(parts(large, "run")[0]["block"], bed.value_block());
    let system = json(&bed, &["inode", "1", "--system"]);
    assert_eq!(system["ino"], ORPHAN_INO);

    // Those of the table, and the one in the orphan file.
    let table = json(&bed, &["inodes"]);
    let chunks = parts(&table, "inode chunk").into_iter();
    let inodes: Vec<_> = chunks.flat_map(|chunk| parts(chunk, "inode")).collect();
    assert!(inodes
        .iter()
        .any(|inode| inode["ino"] == reserved && inode["at"] == reserved_at));
    let orphans = json(&bed, &["orphans"]);
    assert_eq!(orphans["parts"][0]["ino"], bed.ino("orphan"));
    assert_eq!(orphans["parts"][0]["at"], bed.orphan_slot_at(0));
}

#[test]
fn json_of_damage() {
    let bed = Bed::new();
    // A lane that has lost both headers, and one of whose transaction nothing is known.
    bed.put(bed.lane_at(1), b"?");
    bed.put(bed.lane_at(1) + 64, b"?");
    let (slot, _) = bed.last_header(2);
    bed.lane(2, slot, |header| header.retired.set(7));
    let journal = json(&bed, &["journal"]);
    let lanes = parts(&journal, "lane");
    assert_eq!(
        (&lanes[0]["lane"], &lanes[0]["state"]),
        (&0.into(), &"retired".into())
    );
    assert_eq!(lanes[1]["state"], "damaged");
    let header = &parts(lanes[2], "header")[slot as usize];
    assert_eq!(
        (&header["retired"], &header["retired_word"]),
        (&Value::Null, &7.into())
    );

    bed.put(bed.leaf_at("dir") + 40, b"?");
    let dir = json(&bed, &["dir", "/dir"]);
    assert_eq!(parts(parts(&dir, "leaf")[0], "record")[0]["damaged"], true);

    bed.put(bed.node_at("file") + 4, b"?");
    let tree = json(&bed, &["extents", &bed.ino("file").to_string()]);
    assert_eq!(
        parts(parts(&tree, "child")[0], "node")[0]["misplaced"],
        true
    );

    bed.put(bed.xattrs_at(), b"?");
    let tagged = json(&bed, &["inode", &bed.ino("tagged").to_string()]);
    assert_eq!(parts(&tagged, "extended attributes")[0]["damaged"], true);

    let last = bed.ino("last");
    bed.put(bed.inode_chunk_at(last, bed.at("last")), b"?");
    let table = json(&bed, &["inodes"]);
    let chunk = parts(&table, "inode chunk")[(last / 16) as usize];
    assert_eq!(
        (&chunk["index"], &chunk["damaged"]),
        (&(last / 16).into(), &true.into())
    );

    bed.put(bed.bitmap_at(3), b"?");
    let space = json(&bed, &["alloc"]);
    assert_ne!(space["parts"][3]["crc"], space["parts"][3]["crc_computed"]);
}

#[test]
fn json_of_a_journal_to_replay() {
    let bed = Bed::new();
    // The lane that was used last has the entries of its last transaction still.
    let lane = (0..LANE_COUNT.into()).max_by_key(|lane| bed.last_header(*lane).1.seq.get());
    let lane = lane.unwrap();
    let (slot, header) = bed.last_header(lane);
    bed.lane(lane, slot, |h| h.retired = unretired_word(header.seq.get()));
    let journal = json(&bed, &["journal"]);
    let lane = parts(&journal, "lane")[lane as usize];
    assert_eq!(lane["state"], "logged");
    assert_eq!(parts(lane, "header")[slot as usize]["retired"], false);
    let entries = parts(lane, "entry");
    let write = entries.iter().find(|entry| entry["kind"] == "write");
    assert!(write.unwrap()["words"]
        .as_array()
        .unwrap()
        .iter()
        .all(Value::is_u64));
}
