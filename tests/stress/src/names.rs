// SPDX-License-Identifier: GPL-2.0

//! Names whose history is known: each goes through states that follow from the seed, one
//! operation a generation, so that what must be found under it can be computed at any time.
//!
//! The names of a directory tree live in `DIRS` directories and are owned by one worker each. The
//! ledger has one slot for each name. An operation is atomic: a name is in the state before or
//! after it, also after a crash.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::{symlink, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::{mknodat, FileType, Mode, CWD};

use crate::slots::{SlotFile, Tracked};

/// Directories that the names live in.
const DIRS: u64 = 4;

/// What kind of file a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A symlink whose target is its generation.
    Symlink,
    /// A file that holds the record of its generation.
    File,
    /// A directory that holds a file named after its generation.
    Directory,
    /// A FIFO; it cannot say its generation.
    Fifo,
}

/// What is found under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Its kind.
    pub kind: Kind,
    /// Which directory it is in.
    pub dir: u64,
    /// The generation that made it.
    pub made: u64,
}

/// Random but fixed for a name and a generation.
fn dice(file: &SlotFile, slot: u64, gen: u64) -> fastrand::Rng {
    let salt = file.identity(slot).record(gen);
    let mut seed = [0; 8];
    seed.copy_from_slice(&salt[40..48]);
    fastrand::Rng::with_seed(u64::from_le_bytes(seed) ^ file.seed)
}

/// The state that generation `gen` makes of the state before it.
pub fn next(file: &SlotFile, slot: u64, gen: u64, before: Option<State>) -> Option<State> {
    let mut dice = dice(file, slot, gen);
    let fresh = |dice: &mut fastrand::Rng| match dice.u32(0..8) {
        0..=2 => Kind::Symlink,
        3..=4 => Kind::File,
        5..=6 => Kind::Directory,
        _ => Kind::Fifo,
    };
    let Some(before) = before else {
        let kind = fresh(&mut dice);
        return Some(State {
            kind,
            dir: dice.u64(0..DIRS),
            made: gen,
        });
    };
    match dice.u32(0..4) {
        // Replaced in place by something that rename can put over it.
        0 if before.kind != Kind::Directory => {
            let kind = if dice.bool() {
                Kind::File
            } else {
                Kind::Symlink
            };
            Some(State {
                kind,
                dir: before.dir,
                made: gen,
            })
        }
        // Moved to another directory.
        1 | 2 => Some(State {
            dir: (before.dir + dice.u64(1..DIRS)) % DIRS,
            ..before
        }),
        _ => None,
    }
}

/// The state in generation `gen`.
pub fn state(file: &SlotFile, slot: u64, gen: u64) -> Option<State> {
    (1..=gen).fold(None, |state, gen| next(file, slot, gen, state))
}

/// Path of a name in directory `dir`.
pub fn path(file: &SlotFile, slot: u64, dir: u64) -> PathBuf {
    // Of many lengths, up to the longest.
    let long = if slot % 7 == 0 {
        200
    } else {
        slot as usize % 40
    };
    file.path
        .join(format!("d{dir}"))
        .join(format!("name{slot}{}", "x".repeat(long)))
}

/// Where a worker builds what it then renames into place.
fn scratch(file: &SlotFile, slot: u64) -> PathBuf {
    file.path.join(format!("scratch{slot}"))
}

/// Makes the empty tree.
pub fn make(root: &Path) -> io::Result<()> {
    fs::create_dir(root)?;
    (0..DIRS).try_for_each(|dir| fs::create_dir(root.join(format!("d{dir}"))))
}

fn mkfifo(path: &Path) -> io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(mknodat(CWD, path, FileType::Fifo, mode, 0)?)
}

fn write_record(file: &SlotFile, slot: u64, gen: u64, path: &Path) -> io::Result<()> {
    let mut fd = File::create_new(path)?;
    fd.write_all(&file.identity(slot).record(gen))?;
    fd.sync_all()
}

/// Takes a name from state `before` to state `after`, that of generation `gen`, in one atomic step
/// (with preparations and cleaning that are not seen under the name).
pub fn apply(
    file: &SlotFile,
    slot: u64,
    gen: u64,
    before: Option<State>,
    after: Option<State>,
) -> Result<()> {
    let scratch = scratch(file, slot);
    let at = |state: State| path(file, slot, state.dir);
    let step = || -> io::Result<()> {
        match (before, after) {
            (None, None) => Ok(()),
            (Some(before), None) if before.kind == Kind::Directory => {
                fs::rename(at(before), &scratch)?;
                fs::remove_file(scratch.join(format!("g{}", before.made)))?;
                fs::remove_dir(&scratch)
            }
            (Some(before), None) => fs::remove_file(at(before)),
            (Some(before), Some(after)) if before.made == after.made => {
                fs::rename(at(before), at(after))
            }
            (_, Some(after)) => create(file, slot, gen, &scratch, after, before.is_some()),
        }
    };
    step().with_context(|| format!("{before:?} to {after:?} under {}", file.path.display()))
}

fn create(
    file: &SlotFile,
    slot: u64,
    gen: u64,
    scratch: &Path,
    state: State,
    replace: bool,
) -> io::Result<()> {
    let at = path(file, slot, state.dir);
    match state.kind {
        Kind::Symlink if replace => {
            symlink(gen.to_string(), scratch)?;
            fs::rename(scratch, at)
        }
        Kind::Symlink => symlink(gen.to_string(), at),
        Kind::File if replace || gen % 2 == 0 => {
            write_record(file, slot, gen, scratch)?;
            fs::rename(scratch, at)
        }
        Kind::File => {
            write_record(file, slot, gen, scratch)?;
            fs::hard_link(scratch, at)?;
            fs::remove_file(scratch)
        }
        Kind::Directory => {
            fs::create_dir(scratch)?;
            File::create_new(scratch.join(format!("g{gen}")))?;
            fs::rename(scratch, at)
        }
        Kind::Fifo => mkfifo(&at),
    }
}

/// What is found in directory `dir` under the name; `made` is 0 if the kind cannot say it.
fn look(file: &SlotFile, slot: u64, dir: u64) -> Result<Option<State>> {
    let path = path(file, slot, dir);
    let meta = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.with_context(|| path.display().to_string())?,
    };
    let kind = meta.file_type();
    let state = |kind, made| Ok(Some(State { kind, dir, made }));
    if kind.is_symlink() {
        let target = fs::read_link(&path)?;
        let made = target.to_str().and_then(|target| target.parse().ok());
        let Some(made) = made else {
            bail!("MISMATCH {}: a symlink to {target:?}", path.display());
        };
        return state(Kind::Symlink, made);
    }
    if kind.is_fifo() {
        return state(Kind::Fifo, 0);
    }
    if kind.is_dir() {
        let names: Vec<_> = fs::read_dir(&path)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()?;
        let made = match &names[..] {
            [name] => name
                .to_str()
                .and_then(|name| name.strip_prefix('g')?.parse().ok()),
            _ => None,
        };
        let Some(made) = made else {
            bail!("MISMATCH {}: a directory with {names:?}", path.display());
        };
        return state(Kind::Directory, made);
    }
    let bytes = fs::read(&path)?;
    let made = bytes.get(24..32).map_or(0, |gen| {
        u64::from_le_bytes(gen.try_into().expect("8 bytes"))
    });
    ensure!(
        bytes == file.identity(slot).record(made),
        "MISMATCH {}: expected a record of writer {}, found {} bytes of something else",
        path.display(),
        file.writer(slot),
        bytes.len()
    );
    state(Kind::File, made)
}

/// Checks one name that nobody changes: it must be in the state of one of the generations
/// `allowed`, and in one directory at most.
pub fn check(file: &SlotFile, slot: u64, allowed: RangeInclusive<u64>) -> Result<()> {
    let found: Vec<State> = (0..DIRS)
        .filter_map(|dir| look(file, slot, dir).transpose())
        .collect::<Result<_>>()?;
    let mut expected = state(file, slot, *allowed.start());
    let mut any = Vec::new();
    for gen in allowed.clone() {
        if gen > *allowed.start() {
            expected = next(file, slot, gen, expected);
        }
        let held = match (expected, &found[..]) {
            (None, []) => true,
            (Some(expected), [found]) => {
                let made = if expected.kind == Kind::Fifo {
                    0
                } else {
                    expected.made
                };
                *found == State { made, ..expected }
            }
            _ => false,
        };
        if held {
            return Ok(());
        }
        any.push(expected);
    }
    bail!(
        "MISMATCH {} name {slot}: expected {any:?} (generations {allowed:?}), found {found:?}",
        file.path.display()
    );
}

/// Checks that the tree holds known names only; scratch files too if `clean` is false.
fn check_strangers(file: &SlotFile, clean: bool) -> Result<()> {
    let mut known = HashMap::new();
    for slot in 0..file.slots {
        let path = path(file, slot, 0);
        known.insert(path.file_name().map(OsStr::to_owned), slot);
    }
    for dir in 0..DIRS {
        let path = file.path.join(format!("d{dir}"));
        let mut count = 0;
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name();
            ensure!(
                known.contains_key(&Some(name.clone())),
                "MISMATCH {}: a name that nobody made: {name:?}",
                path.display()
            );
            count += u64::from(entry.file_type()?.is_dir());
        }
        let links = fs::metadata(&path)?.nlink();
        // Some file systems do not count subdirectories and say 1.
        ensure!(
            links == count + 2 || links == 1,
            "MISMATCH {}: {links} links with {count} subdirectories",
            path.display()
        );
    }
    for entry in fs::read_dir(&file.path)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let held = name.starts_with('d') || (!clean && name.starts_with("scratch"));
        ensure!(
            held,
            "MISMATCH {}: left behind: {name}",
            file.path.display()
        );
    }
    Ok(())
}

/// Checks a tree that nobody uses.
pub fn check_all(file: &Tracked) -> Result<()> {
    for slot in 0..file.slots {
        let gen = file.ledger.stored(slot);
        check(file, slot, gen..=gen)?;
    }
    check_strangers(file, true)
}

/// Verifies a tree in a later boot.
pub fn verify(file: &SlotFile, promises: &crate::ledger::Promises) -> Result<()> {
    for slot in 0..file.slots {
        check(file, slot, promises.allowed(slot))?;
    }
    check_strangers(file, promises.closed)
}
