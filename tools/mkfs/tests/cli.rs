// SPDX-License-Identifier: GPL-2.0

//! `mkfs.rdax` on image files: what it makes, what it refuses, and that a refusal writes nothing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use assert_cmd::assert::Assert;
use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use rdax_cli::signature;
use rdax_volume::image::Image;
use rdax_volume::volume::check::check;
use rdax_volume::volume::format::SuperBlock;
use rdax_volume::volume::super_block;
use tempfile::TempDir;

const SIZE: u64 = 16 << 20;
const UUID: &str = "6d4f2b0e-5c1a-4f7e-9d3b-0123456789ab";

fn mkfs(args: &[&str], device: &Path) -> Assert {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mkfs-rdax"));
    command.args(args).arg(device).assert()
}

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Place { dir }
    }

    fn missing(&self) -> PathBuf {
        self.dir.path().join("volume.img")
    }

    /// An image file of `len` bytes with `bytes` at `at`.
    fn image(&self, len: u64, at: u64, bytes: &[u8]) -> PathBuf {
        let path = self.missing();
        let file = File::create(&path).unwrap();
        file.set_len(len).unwrap();
        file.write_all_at(bytes, at).unwrap();
        path
    }
}

fn open(path: &Path) -> Image {
    Image::new(File::open(path).unwrap()).unwrap()
}

/// The superblock of a volume that the checker finds clean.
fn sound(path: &Path) -> SuperBlock {
    let image = open(path);
    let summary = check(&image, &mut |problem| panic!("{problem}")).unwrap();
    assert_eq!((summary.inodes, summary.orphans), (1, 0));
    super_block::read(&image).unwrap().sb
}

#[test]
fn makes_an_image_file() {
    let place = Place::new();
    let path = place.missing();
    mkfs(&["-s", "16M", "-L", "größer", "-U", UUID], &path)
        .success()
        .stdout(contains(path.to_str().unwrap()))
        .stdout(contains("größer"))
        .stdout(contains(UUID))
        .stdout(contains("16 MiB (4096 blocks of 4096 bytes)"))
        .stderr("");
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE);
    let sb = sound(&path);
    assert_eq!(uuid_text(&sb.uuid), UUID);
    let mut label = [0; 32];
    label[..8].copy_from_slice("größer".as_bytes());
    assert_eq!(sb.label, label);
}

fn uuid_text(bytes: &[u8; 16]) -> String {
    uuid::Uuid::from_bytes(*bytes).to_string()
}

#[test]
fn fills_an_existing_file() {
    let place = Place::new();
    let path = place.image(SIZE + 100, 0, b"");
    mkfs(&[], &path).success();
    assert_eq!(sound(&path).blocks.get(), SIZE / 4096);
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE + 100);
}

#[test]
fn uuids_and_hash_keys_are_random() {
    let place = Place::new();
    let path = place.image(SIZE, 0, b"");
    mkfs(&[], &path).success();
    let first = sound(&path);
    mkfs(&["-f"], &path).success();
    let second = sound(&path);
    assert_ne!(first.uuid, second.uuid);
    assert_ne!(first.hash_key, second.hash_key);
}

#[test]
fn quiet_says_nothing() {
    let place = Place::new();
    mkfs(&["-q", "-s", "8M"], &place.missing())
        .success()
        .stdout("")
        .stderr("");
    sound(&place.missing());
}

#[test]
fn dry_run_writes_nothing() {
    let place = Place::new();
    mkfs(&["-n", "-s", "8M"], &place.missing())
        .success()
        .stdout(contains("8 MiB (2048 blocks of 4096 bytes)"))
        .stdout(contains("nothing written"));
    assert!(!place.missing().exists());
    let path = place.image(SIZE, 0, b"XFSB");
    let before = fs::read(&path).unwrap();
    mkfs(&["-n"], &path)
        .code(1)
        .stderr(contains("XFS file system"));
    mkfs(&["-n", "-f"], &path).success();
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn wrong_usage_is_2() {
    let place = Place::new();
    let path = place.image(SIZE, 0, b"");
    let before = fs::read(&path).unwrap();
    let long = "x".repeat(33);
    for args in [
        &["-L", &long][..],
        &["-U", "12345"],
        &["-s", "many"],
        &["-s", "1.5G"],
        &["--no-such-option"],
        &["another-device"],
    ] {
        mkfs(args, &path).code(2);
    }
    Command::new(env!("CARGO_BIN_EXE_mkfs-rdax"))
        .assert()
        .code(2);
    assert_eq!(fs::read(&path).unwrap(), before);
    // The longest label is possible.
    mkfs(&["-L", &long[1..]], &path).success();
    assert_eq!(sound(&path).label, [b'x'; 32]);
}

#[test]
fn version_and_help() {
    for option in ["-V", "--version", "-h", "--help"] {
        Command::new(env!("CARGO_BIN_EXE_mkfs-rdax"))
            .arg(option)
            .assert()
            .success()
            .stdout(contains("mkfs.rdax"));
    }
}

#[test]
fn missing_and_impossible_devices() {
    let place = Place::new();
    mkfs(&[], &place.missing())
        .code(1)
        .stderr(contains("does not exist"));
    assert!(!place.missing().exists());
    for path in ["/dev/null", "/"] {
        let text = "neither a block device nor an image file";
        mkfs(&["-f"], Path::new(path))
            .code(1)
            .stderr(contains(text));
    }
    let nowhere = Path::new("/no/such/directory/image");
    mkfs(&["-s", "8M"], nowhere)
        .code(1)
        .stderr(contains("No such file"));
}

#[test]
fn too_small_and_too_large() {
    let place = Place::new();
    let need = contains("at least 8388608 (8 MiB) are needed");
    mkfs(&["-s", "8388607"], &place.missing())
        .code(1)
        .stderr(need.clone());
    mkfs(&["-s", "5P"], &place.missing())
        .code(1)
        .stderr(contains("at most 4503599627370496 (4 PiB) are possible"));
    assert!(!place.missing().exists());
    let path = place.image((8 << 20) - 1, 77, b"precious");
    let before = fs::read(&path).unwrap();
    mkfs(&["-f"], &path).code(1).stderr(need);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn size_of_an_existing_file() {
    let place = Place::new();
    let path = place.image(SIZE, 0, b"");
    mkfs(&["-s", "32M"], &path).success();
    assert_eq!(fs::metadata(&path).unwrap().len(), 32 << 20);
    assert_eq!(sound(&path).blocks.get(), 8192);
    let before = fs::read(&path).unwrap();
    mkfs(&["-s", "8M"], &path)
        .code(1)
        .stderr(contains("use -f to cut it"));
    assert_eq!(fs::read(&path).unwrap(), before);
    mkfs(&["-f", "-s", "8M"], &path).success();
    assert_eq!(fs::metadata(&path).unwrap().len(), 8 << 20);
    sound(&path);
}

#[test]
fn what_is_there_already_is_named_and_kept() {
    let foreign: [(&str, u64, &[u8]); 14] = [
        ("ext2, ext3 or ext4 file system", 0x438, b"\x53\xef"),
        ("XFS file system", 0, b"XFSB"),
        ("btrfs file system", 0x10040, b"_BHRfS_M"),
        ("FAT file system", 0x52, b"FAT32   "),
        ("FAT file system", 0x36, b"FAT16   "),
        ("NTFS file system", 3, b"NTFS    "),
        ("swap space", 4086, b"SWAPSPACE2"),
        ("LVM physical volume", 512, b"LABELONE"),
        ("LUKS volume", 0, b"LUKS\xba\xbe"),
        ("NVDIMM BTT", 4096, b"BTT_ARENA_INFO\0"),
        ("MD RAID member", 4096, b"\xfc\x4e\x2b\xa9"),
        ("GPT partition table", 512, b"EFI PART"),
        ("GPT partition table", SIZE - 512, b"EFI PART"),
        ("boot sector or partition table", 510, b"\x55\xaa"),
    ];
    for (name, at, magic) in foreign {
        let place = Place::new();
        let path = place.image(SIZE, at, magic);
        let before = fs::read(&path).unwrap();
        mkfs(&[], &path)
            .code(1)
            .stdout("")
            .stderr(contains(name).and(contains("use -f")));
        assert!(fs::read(&path).unwrap() == before, "{name} was damaged");
        // Overwritten, it is not found any more.
        mkfs(&["-f"], &path).success();
        sound(&path);
        let left = signature::probe(&open(&path)).unwrap();
        assert!(
            left.iter().all(|s| s.name == signature::RDAX),
            "{name}: {left:?}"
        );
        assert_eq!(left.len(), 2);
    }
}

#[test]
fn a_volume_is_not_overwritten_either() {
    let place = Place::new();
    let path = place.image(SIZE, 0, b"");
    mkfs(&["-L", "mine", "-U", UUID], &path).success();
    let before = fs::read(&path).unwrap();
    let refused = || {
        contains("rdax volume")
            .and(contains(UUID))
            .and(contains("\"mine\""))
    };
    mkfs(&[], &path).code(1).stderr(refused());
    assert!(fs::read(&path).unwrap() == before);
    // Not with the first superblock gone, either.
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 4096], 0).unwrap();
    mkfs(&[], &path).code(1).stderr(refused());
    mkfs(&["-f"], &path).success();
    sound(&path);
}

#[test]
fn unwritable_image() {
    let place = Place::new();
    let path = place.image(SIZE, 0, b"");
    let file = File::open(&path).unwrap();
    // Root may write what nobody may: a file that is executed cannot be written by anybody.
    drop(file);
    let program = place.dir.path().join("program");
    fs::copy("/bin/sleep", &program).unwrap();
    let size = fs::metadata(&program).unwrap().len();
    let mut running = std::process::Command::new(&program)
        .arg("60")
        .spawn()
        .unwrap();
    let result = mkfs(&["-f", "-s", "8M"], &program).code(1);
    running.kill().unwrap();
    running.wait().unwrap();
    result.stderr(contains("Text file busy"));
    assert_eq!(fs::metadata(&program).unwrap().len(), size);
}
