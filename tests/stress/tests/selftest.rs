// SPDX-License-Identifier: GPL-2.0

//! The stress program has to notice. Each test here lets it run on the host's own file system,
//! where all holds, then does to its files what a broken file system would do, and expects the
//! report.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

// What a record looks like is the program's own business.
#[allow(dead_code)]
#[path = "../src/record.rs"]
mod record;

use record::Identity;

/// Bytes of a slot, and of a record in it.
const SLOT: usize = 128;
const RECORD: usize = 64;

/// A directory under test and a ledger beside it.
struct Scene {
    root: TempDir,
}

impl Scene {
    fn new() -> Scene {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("fs")).unwrap();
        Scene { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("fs").join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdax-stress"));
        command.arg("--dir").arg(self.root.path().join("fs"));
        command.arg("--ledger").arg(self.root.path().join("ledger"));
        command.args(["--size", "1"]).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, only: &str) {
        let output = self
            .command(&["--seconds", "1", "--only", only])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    /// Lets it run for a while and kills all its processes.
    fn run_and_kill(&self, only: &str) {
        let ledger = self.root.path().join("ledger");
        let mut child = self
            .command(&["--seconds", "60", "--only", only])
            .spawn()
            .unwrap();
        let size = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
        let written = || fs::read_dir(&ledger).map_or(0, |logs| logs.map(size).sum());
        while written() < 16384 {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill(&mut child);
    }

    fn verify(&self) -> Output {
        self.command(&["--verify"]).output().unwrap()
    }

    fn holds(&self) {
        let output = self.verify();
        assert!(output.status.success(), "{}", text(&output));
    }

    /// The verification fails and its report has all of `words`.
    fn fails(&self, words: &[&str]) {
        let output = self.verify();
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let report = text.lines().find(|line| line.starts_with("FAIL"));
        let report = report.unwrap_or_else(|| panic!("no report: {text}"));
        for word in words {
            assert!(report.contains(word), "{word} is not in: {report}");
        }
    }
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Kills the program, and waits until the processes that it has forked are gone too.
fn kill(child: &mut Child) {
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let forked = fs::read_to_string(children).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let lives = |pid| fs::read_link(Path::new("/proc").join(pid).join("exe")).is_ok();
    while forked.split_whitespace().any(lives) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn change(path: &Path, offset: usize, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset as u64).unwrap();
}

/// Offset of the first slot that holds two records, the newer of which is at the second place
/// returned.
fn full_slot(path: &Path) -> (usize, usize) {
    let bytes = fs::read(path).unwrap();
    let gen = |at: usize| u64::from_le_bytes(bytes[at + 24..at + 32].try_into().unwrap());
    let slot = (0..bytes.len())
        .step_by(SLOT)
        .find(|&at| gen(at) > 0 && gen(at + RECORD) > 0);
    let slot = slot.expect("a slot stored to twice");
    (
        slot,
        if gen(slot) > gen(slot + RECORD) {
            slot
        } else {
            slot + RECORD
        },
    )
}

/// All tests that can run here.
const ALL: &str = "msync,fsync-other,fork,munmap,remap,mprotect,private,append,holes,truncate,\
                   direct,names,readdir,mixed";

#[test]
fn what_holds_is_said_to_hold() {
    let scene = Scene::new();
    let output = scene
        .command(&["--seconds", "6", "--only", ALL])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    scene.holds();
}

#[test]
fn one_wrong_bit() {
    let scene = Scene::new();
    scene.run("msync");
    let file = scene.path("rdax-stress.msync/file");
    let (_, newest) = full_slot(&file);
    let byte = fs::read(&file).unwrap()[newest + 44] ^ 0x10;
    change(&file, newest + 44, &[byte]);
    let offset = format!("offset {:#x}", newest / SLOT * SLOT);
    scene.fails(&["rdax-stress.msync/file", &offset, "a broken record"]);
}

#[test]
fn a_lost_store() {
    let scene = Scene::new();
    scene.run("msync");
    let file = scene.path("rdax-stress.msync/file");
    let (slot, newest) = full_slot(&file);
    change(&file, newest, &[0; RECORD]);
    scene.fails(&[&format!("offset {slot:#x}"), "expected generation"]);
}

#[test]
fn a_lost_store_after_a_kill() {
    let scene = Scene::new();
    scene.run_and_kill("fsync-other");
    scene.holds();
    let file = scene.path("rdax-stress.fsync-other/file");
    // Not every slot was promised at its newest generation; none may be zero.
    let bytes = fs::read(&file).unwrap();
    for at in (0..bytes.len()).step_by(SLOT) {
        if bytes[at..at + SLOT] != [0; SLOT] {
            change(&file, at, &[0; SLOT]);
        }
    }
    scene.fails(&["cut short", "(promised)", "zeroes | zeroes"]);
}

#[test]
fn a_record_never_written() {
    let scene = Scene::new();
    scene.run_and_kill("msync");
    scene.holds();
    // The record of a generation that its writer was far from beginning.
    let file = scene.path("rdax-stress.msync/file");
    let bytes = fs::read(&file).unwrap();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (slot, at) = full_slot(&file);
    let identity = Identity {
        seed: number(at + 32),
        file: number(at + 8) as u32,
        writer: (number(at + 8) >> 32) as u32,
        slot: number(at + 16) / SLOT as u64,
        cycle: 0,
    };
    assert_eq!(identity.record(number(at + 24)), bytes[at..at + RECORD]);
    change(&file, at, &identity.record(number(at + 24) + (1 << 20)));
    scene.fails(&[&format!("offset {slot:#x}")]);
}

#[test]
fn a_misplaced_store() {
    let scene = Scene::new();
    scene.run("holes");
    let file = scene.path("rdax-stress.holes/file");
    let (slot, _) = full_slot(&file);
    let moved = fs::read(&file).unwrap()[slot..slot + SLOT].to_vec();
    let target = if slot < 4096 {
        slot + 4096
    } else {
        slot - 4096
    };
    change(&file, target, &moved);
    scene.fails(&["rdax-stress.holes/file", &format!("offset {target:#x}")]);
}

#[test]
fn a_page_of_another_file() {
    let scene = Scene::new();
    scene.run("truncate,msync");
    let file = scene.path("rdax-stress.msync/file");
    let (slot, _) = full_slot(&file);
    let stale = fs::read(&file).unwrap()[slot..slot + SLOT].to_vec();
    change(&scene.path("rdax-stress.truncate/victim"), 0, &stale);
    scene.fails(&[
        "rdax-stress.truncate/victim",
        "offset 0x0",
        "expected zeroes or records",
    ]);
}

#[test]
fn a_size_that_was_lost() {
    let scene = Scene::new();
    scene.run("append");
    let path = scene.path("rdax-stress.append/log0");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - 1).unwrap();
    scene.fails(&["rdax-stress.append/log0", &format!("found {}", length - 1)]);
}

#[test]
fn an_append_without_its_data() {
    let scene = Scene::new();
    scene.run("append");
    let path = scene.path("rdax-stress.append/log0");
    let bytes = fs::read(&path).unwrap();
    // Records have zeroes of their own, and the file ends anywhere in one.
    let lost = bytes.len().saturating_sub(RECORD);
    let first = lost + bytes[lost..].iter().position(|byte| *byte != 0).unwrap();
    change(&path, lost, &vec![0; bytes.len() - lost]);
    scene.fails(&["rdax-stress.append/log0", &format!("at {first:#x}")]);
}

/// Names of one kind in the tree of the test `names`.
fn names(scene: &Scene, kind: fn(&fs::FileType) -> bool) -> Vec<PathBuf> {
    let tree = scene.path("rdax-stress.names/tree");
    let dirs = (0..4).flat_map(|dir| fs::read_dir(tree.join(format!("d{dir}"))).unwrap());
    dirs.map(|entry| entry.unwrap())
        .filter(|entry| kind(&entry.file_type().unwrap()))
        .map(|entry| entry.path())
        .collect()
}

#[test]
fn a_name_that_was_lost() {
    let scene = Scene::new();
    scene.run("names");
    fs::remove_file(&names(&scene, fs::FileType::is_symlink)[0]).unwrap();
    scene.fails(&["rdax-stress.names/tree", "found []"]);
}

#[test]
fn a_name_in_two_places() {
    let scene = Scene::new();
    scene.run("names");
    let name = &names(&scene, fs::FileType::is_file)[0];
    let tree = scene.path("rdax-stress.names/tree");
    let others = (0..4).map(|dir| tree.join(format!("d{dir}")).join(name.file_name().unwrap()));
    fs::hard_link(
        name,
        others.into_iter().find(|other| !other.exists()).unwrap(),
    )
    .unwrap();
    scene.fails(&["rdax-stress.names/tree", "found [State"]);
}

#[test]
fn a_name_that_nobody_made() {
    let scene = Scene::new();
    scene.run("names");
    File::create(scene.path("rdax-stress.names/tree/d0/stranger")).unwrap();
    scene.fails(&["a name that nobody made"]);
}

#[test]
fn damage_while_it_runs() {
    for (only, file) in [("msync", "file"), ("fork", "file"), ("direct", "file0")] {
        let scene = Scene::new();
        let child = scene
            .command(&["--seconds", "60", "--only", only])
            .spawn()
            .unwrap();
        let path = scene.path(&format!("rdax-stress.{only}/{file}"));
        // Until the first bytes are there, and then some.
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(300));
        for at in (0..256 << 10).step_by(4096) {
            change(&path, at, &[0x77; 4096]);
        }
        let output = child.wait_with_output().unwrap();
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        // A record may be looked at when a part of it has been changed.
        let says = |what| text.contains(what);
        let is_seen = says("foreign bytes 7777") || says("found") && says("a broken record");
        assert!(says("MISMATCH") && is_seen, "{text}");
        assert!(text.contains(&format!("--seed 1 --only {only}")), "{text}");
    }
}

#[test]
fn a_ledger_without_promises_verifies_nothing() {
    let scene = Scene::new();
    assert_eq!(scene.verify().status.code(), Some(2));
    fs::create_dir(scene.root.path().join("ledger")).unwrap();
    fs::write(scene.root.path().join("ledger/manifest"), "seed 1\n").unwrap();
    assert_eq!(scene.verify().status.code(), Some(2));
}
