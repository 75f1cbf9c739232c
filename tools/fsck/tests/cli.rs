// SPDX-License-Identifier: GPL-2.0

//! `fsck.rdax` on image files: what it says, its exit codes, and that it writes only when asked to.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::assert::Assert;
use assert_cmd::Command;
use predicates::str::contains;
use rdax_volume::ram::Ram;
use rdax_volume::volume::format::{
    LaneHeader, Time, BLOCK, LANE_BYTES, LANE_COUNT, ROOT_INO, VERSION,
};
use rdax_volume::volume::journal::unretired_word;
use rdax_volume::volume::namespace::NewInode;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{mkfs, MountOptions, Volume};
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

const SIZE: u64 = 16 << 20;
const COPY: u64 = SIZE - BLOCK;
const NOW: Time = Time {
    sec: 1_700_000_000,
    nsec: 0,
};

fn fsck(args: &[&str], device: &Path) -> Assert {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fsck-rdax"));
    command.args(args).arg(device).assert()
}

/// An image in a directory of its own.
struct Bed {
    path: PathBuf,
    _dir: TempDir,
}

impl Bed {
    fn of(bytes: &[u8]) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume.img");
        fs::write(&path, bytes).unwrap();
        Bed { path, _dir: dir }
    }

    fn new() -> Bed {
        Bed::of(&content(&volume()))
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    /// Expects `code`, and that nothing was written.
    #[track_caller]
    fn unchanged(&self, args: &[&str], code: i32) -> Assert {
        let before = self.bytes();
        let result = fsck(args, &self.path).code(code);
        assert!(self.bytes() == before, "something was written");
        result
    }
}

/// A volume with a file of some blocks in it.
fn volume() -> Ram {
    let ram = Ram::new(SIZE);
    let options = mkfs::Options {
        uuid: [1; 16],
        label: "fsck",
        hash_key: [2; 16],
        now: NOW,
        bytes: None,
    };
    mkfs::format(&ram, &options).unwrap();
    let vol = mount(&ram);
    let new = NewInode {
        mode: 0o100644,
        now: NOW,
        ..NewInode::default()
    };
    let mut root = vol.iget(ROOT_INO).unwrap();
    let mut file = vol.create(&mut root, b"file", &new).unwrap();
    vol.fill(&mut file, 0, 5, Some(NOW)).unwrap();
    drop(vol);
    ram
}

fn mount(ram: &Ram) -> Volume<&Ram> {
    Volume::mount(ram, MountOptions::default()).unwrap()
}

fn content(ram: &Ram) -> Vec<u8> {
    let mut bytes = vec![0; ram.len() as usize];
    ram.read(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn clean() {
    let bed = Bed::new();
    let says = contains("clean; inodes in use: 2, blocks free: ");
    for args in [
        &[][..],
        &["-n"],
        &["-f"],
        &["-p"],
        &["-a"],
        &["-y"],
        &["-a", "-C0"],
        &["-C-1", "-a"],
        &["-C", "0", "-a"],
        &["-C"],
    ] {
        bed.unchanged(args, 0).stdout(says.clone()).stderr("");
    }
    bed.unchanged(&["-v"], 0)
        .stdout(contains("2 inodes in use"))
        .stdout(contains("1 of them directories"))
        .stdout(contains("blocks free ("));
}

#[test]
fn usage_is_16() {
    let bed = Bed::new();
    for args in [
        &["-n", "-p"][..],
        &["-n", "-y"],
        &["-p", "-y"],
        &["-x"],
        &["--no-such"],
        &["second"],
        &["-C", "0", "1"],
        &["-C0", "1"],
    ] {
        bed.unchanged(args, 16);
    }
    let program = || Command::new(env!("CARGO_BIN_EXE_fsck-rdax"));
    program().assert().code(16);
    program()
        .arg("-V")
        .assert()
        .success()
        .stdout(contains("fsck.rdax"));
    program()
        .arg("--help")
        .assert()
        .success()
        .stdout(contains("DEVICE"));
}

#[test]
fn what_cannot_be_checked_is_8() {
    fsck(&[], Path::new("/no/such/device"))
        .code(8)
        .stderr(contains("no such file"));
    fsck(&[], Path::new("/dev/null"))
        .code(8)
        .stderr(contains("neither a block device"));
    let empty = Bed::of(&vec![0; SIZE as usize]);
    for args in [&["-n"][..], &["-p"]] {
        empty
            .unchanged(args, 8)
            .stderr(contains("no rdax volume found"));
    }
    let small = Bed::of(b"");
    small.unchanged(&[], 8).stderr(contains("too small"));
}

#[test]
fn image_cut_in_half() {
    let bed = Bed::of(&content(&volume())[..SIZE as usize / 2]);
    for args in [&["-n"][..], &["-p"]] {
        bed.unchanged(args, 8)
            .stderr(contains("16777216 bytes needed, 8388608 there"));
    }
}

#[test]
fn newer_format() {
    let ram = volume();
    let sb: [u8; 512] = content(&ram)[..512].try_into().unwrap();
    let mut newer = sb;
    newer[12..16].copy_from_slice(&(VERSION + 1).to_le_bytes());
    newer[8..12].fill(0);
    let crc = rdax_volume::env::crc32c(0, &newer);
    newer[8..12].copy_from_slice(&crc.to_le_bytes());
    let bed = Bed::new();
    bed.write(0, &newer);
    bed.write(COPY, &newer);
    for args in [&["-n"][..], &["-y"]] {
        bed.unchanged(args, 8).stderr(contains("not supported"));
    }
}

#[test]
fn another_file_system_over_an_old_volume_is_left_alone() {
    // The copy of the superblock is still there, and would serve.
    let bed = Bed::new();
    bed.write(0, &[0; 65536]);
    bed.write(0x438, b"\x53\xef");
    for args in [&["-n"][..], &["-p"], &["-y"]] {
        bed.unchanged(args, 8)
            .stderr(contains("ext2, ext3 or ext4"));
    }
}

#[test]
fn first_superblock_damaged() {
    for damage in [&[0; 4096][..], &[0xff; 100]] {
        for option in ["-p", "-a", "-y"] {
            let bed = Bed::new();
            let sound = bed.bytes();
            bed.write(0, damage);
            bed.unchanged(&["-n"], 4)
                .stdout(contains("superblock at 0x0: magic number missing"))
                .stdout(contains("1 problem found"));
            fsck(&[option], &bed.path)
                .code(1)
                .stdout(contains("superblock at 0x0 restored from its copy"))
                .stdout(contains("clean"));
            assert!(bed.bytes()[..512] == sound[..512]);
            bed.unchanged(&["-p"], 0);
        }
    }
}

#[test]
fn copy_of_the_superblock_damaged() {
    let bed = Bed::new();
    let sound = bed.bytes();
    bed.write(COPY + 40, b"?");
    bed.unchanged(&[], 4)
        .stdout(contains("superblock at 0xfff000: checksum mismatch"));
    fsck(&["-p"], &bed.path)
        .code(1)
        .stdout(contains("restored from the first"));
    assert!(bed.bytes() == sound);
}

#[test]
fn both_superblocks_damaged() {
    let bed = Bed::new();
    bed.write(40, b"?");
    bed.write(COPY + 40, b"?");
    for args in [&["-n"][..], &["-p"]] {
        bed.unchanged(args, 4)
            .stdout(contains("superblock at 0x0: checksum mismatch"))
            .stdout(contains("superblock at 0xfff000: checksum mismatch"))
            .stdout(contains("both superblocks are damaged"));
    }
    bed.write(0, &[0; 8]);
    bed.write(COPY, &[0; 8]);
    bed.unchanged(&["-p"], 8)
        .stderr(contains("no rdax volume found"));
}

#[test]
fn damage_that_costs_a_file() {
    let bed = Bed::new();
    // Inode 2, the file: in the chunk after the header's slot and the root.
    let ram = volume();
    let at = mount(&ram).iget(2).unwrap().at();
    bed.write(at + 20, b"?");
    let says = format!("inode 2: inode at {at:#x}: checksum mismatch");
    bed.unchanged(&["-n"], 4)
        .stdout(contains(says.clone()))
        .stdout(contains("problems found"));
    bed.unchanged(&["-p"], 4)
        .stdout(contains(says.clone()))
        .stdout(contains("not all can be repaired safely: run fsck.rdax -y"));
    fsck(&["-y"], &bed.path)
        .code(1)
        .stdout(contains(says))
        .stdout(contains("inode 2: cannot be believed, cleared"))
        .stdout(contains(
            "inode 1: entry \"file\" removed: inode 2 is not in use",
        ))
        .stdout(contains("5 blocks that nothing uses freed"))
        .stdout(contains("clean; inodes in use: 1"));
    bed.unchanged(&["-y"], 0);
}

#[test]
fn damage_that_costs_nothing() {
    let bed = Bed::new();
    let ram = volume();
    let summary = mount(&ram).geometry().summary_at(1);
    bed.write(summary, b"?");
    bed.unchanged(&["-n"], 4)
        .stdout(contains("block bitmap at"));
    fsck(&["-p"], &bed.path)
        .code(1)
        .stdout(contains("block bitmaps corrected"))
        .stdout(contains("clean"));
    bed.unchanged(&["-p"], 0);
    assert!(bed.bytes()[summary as usize..][..8] == content(&ram)[summary as usize..][..8]);
}

/// The volume as it was before its file was removed, but for the lanes: they hold the transaction
/// that removes it, logged and not retired. And the volume after it.
fn journal_not_replayed() -> Bed {
    let ram = volume();
    let mut bytes = content(&ram);
    let vol = mount(&ram);
    let lanes = vol.geometry().lanes_block * BLOCK;
    let mut root = vol.iget(ROOT_INO).unwrap();
    let mut file = vol.iget(2).unwrap();
    vol.unlink(&mut root, b"file", &mut file, NOW).unwrap();
    drop(vol);
    let after = content(&ram);
    let mut changed = 0;
    for lane in 0..u64::from(LANE_COUNT) {
        let at = (lanes + lane * LANE_BYTES) as usize;
        let range = at..at + LANE_BYTES as usize;
        if bytes[range.clone()] == after[range.clone()] {
            continue;
        }
        bytes[range.clone()].copy_from_slice(&after[range]);
        // `retired` of the newest header.
        let headers = [0, 64].map(|slot| {
            let header = LaneHeader::read_from_bytes(&bytes[at + slot..at + slot + 64]).unwrap();
            (header.seq.get(), at + slot)
        });
        let (seq, newest) = headers.into_iter().max().unwrap();
        bytes[newest + 56..newest + 64].copy_from_slice(unretired_word(seq).as_bytes());
        changed += 1;
    }
    assert_eq!(changed, 1);
    Bed::of(&bytes)
}

#[test]
fn journal_is_replayed_in_memory_or_for_good() {
    let bed = journal_not_replayed();
    bed.unchanged(&["-n", "-v"], 0)
        .stdout(contains("journal not replayed; checking as if it were"))
        .stdout(contains("1 of them removed or being truncated"))
        .stdout(contains("clean; inodes in use: 2"));
    fsck(&["-p"], &bed.path)
        .code(1)
        .stdout(contains("journal replayed"))
        .stdout(contains("1 removed or truncated files finished"))
        .stdout(contains("clean; inodes in use: 1"));
    bed.unchanged(&["-p"], 0)
        .stdout(contains("clean; inodes in use: 1"));
}

#[test]
fn damaged_journal() {
    let bed = journal_not_replayed();
    let ram = volume();
    let lanes = mount(&ram).geometry().lanes_block * BLOCK;
    bed.write(lanes + 3 * LANE_BYTES, &[0xaa; 128]);
    bed.unchanged(&["-n"], 4)
        .stdout(contains("cannot be mounted: damaged journal lane"))
        .stdout(contains("no valid header"));
    bed.unchanged(&["-p"], 4)
        .stdout(contains("run fsck.rdax -y"));
    fsck(&["-y"], &bed.path)
        .code(1)
        .stdout(contains("journal lane at"))
        .stdout(contains("made anew"))
        .stdout(contains("journal replayed"));
    bed.unchanged(&["-n"], 0);
}

/// A check that takes long because nobody reads its problems: progress is shown on standard error
/// if that is a terminal, and nothing if it is not.
#[test]
fn progress_is_for_terminals() {
    use std::process::{Command, Stdio};
    // Each problem names the device: together they are more than a pipe holds.
    let dir = tempfile::tempdir().unwrap();
    let deep = ["a", "b", "c"].map(|part| part.repeat(250));
    let path = deep
        .iter()
        .fold(dir.path().to_owned(), |path, part| path.join(part));
    fs::create_dir_all(&path).unwrap();
    let path = path.join("volume.img");
    let ram = volume();
    let vol = mount(&ram);
    let mut root = vol.iget(ROOT_INO).unwrap();
    for n in 0..200 {
        let new = NewInode {
            mode: 0o100644,
            now: NOW,
            ..NewInode::default()
        };
        let inode = vol
            .create(&mut root, format!("{n}").as_bytes(), &new)
            .unwrap();
        ram.store(inode.at() + 20, b"?").unwrap();
    }
    drop(vol);
    fs::write(&path, content(&ram)).unwrap();

    let check = |stdout: Stdio, stderr: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fsck-rdax"));
        command.arg(&path).stdout(stdout).stderr(stderr);
        command.spawn().unwrap()
    };
    let (mut terminal, end) = pty();
    let on_terminal = check(Stdio::piped(), end.into());
    let on_pipe = check(Stdio::piped(), Stdio::piped());
    let (mut both, end) = pty();
    let mut on_both = check(end.try_clone().unwrap().into(), end.into());
    std::thread::sleep(Duration::from_secs(5));

    let on_terminal = on_terminal.wait_with_output().unwrap();
    let on_pipe = on_pipe.wait_with_output().unwrap();
    assert_eq!(on_terminal.status.code(), Some(4));
    assert_eq!(on_terminal.stdout, on_pipe.stdout);
    assert!(on_pipe.stdout.len() > 65536);
    assert_eq!(String::from_utf8_lossy(&on_pipe.stderr), "");
    let shown = read_slowly(&mut terminal);
    assert!(shown.contains("checking"), "{shown:?}");
    assert!(shown.contains(" read, 0 bytes written"), "{shown:?}");

    // A problem has a line of its own.
    let shown = read_slowly(&mut both);
    assert_eq!(on_both.wait().unwrap().code(), Some(4));
    for line in shown.lines() {
        let line = line.trim_end().rsplit('\r').next().unwrap();
        assert!(
            !line.contains("checking") || !line.contains("volume.img"),
            "{line:?}"
        );
    }
}

/// What is shown on a terminal until nobody has its other end open any more.
fn read_slowly(terminal: &mut File) -> String {
    let mut shown = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(len @ 1..) = terminal.read(&mut piece) {
        shown.extend(&piece[..len]);
        std::thread::sleep(Duration::from_millis(25));
    }
    String::from_utf8_lossy(&shown).into_owned()
}

/// Both ends of a new terminal: what is written to the second is read from the first.
fn pty() -> (File, File) {
    use rustix::pty::{grantpt, openpt, ptsname, unlockpt, OpenptFlags};
    let first = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&first).unwrap();
    unlockpt(&first).unwrap();
    let name = ptsname(&first, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let second = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty()).unwrap();
    (first.into(), second.into())
}

/// What is printed has no reader any more: the repair goes on to its end all the same.
#[test]
fn closed_output() {
    use std::process::{Command, Stdio};
    let bed = Bed::new();
    bed.write(0, &[0; 512]);
    // The reading end of its standard output and error is closed before it starts.
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(reader);
    let output = || Stdio::from(std::os::fd::OwnedFd::from(writer.try_clone().unwrap()));
    let run = |program: &str, args: &[&str], device: &Path| {
        let status = Command::new(program)
            .args(args)
            .arg(device)
            .stdout(output())
            .stderr(output())
            .status();
        status.unwrap().code()
    };
    let program = env!("CARGO_BIN_EXE_fsck-rdax");
    assert_eq!(run(program, &["-n"], &bed.path), Some(4));
    assert_eq!(run(program, &["-y"], &bed.path), Some(1));
    assert_eq!(run(program, &["-y"], &bed.path), Some(0));
    for args in [&[][..], &["--json"]] {
        let dump = env!("CARGO_BIN_EXE_rdax-dump");
        assert_eq!(run(dump, args, &bed.path), Some(0));
    }
    let there = Path::new("/nonexistent/device");
    assert_eq!(run(program, &["-n"], there), Some(8));
}
