// SPDX-License-Identifier: GPL-2.0

//! Runs [`Workload`]s, and counts what an operation costs: of few operations, and of four times as
//! many, each on files that are new.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hint::black_box;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use memmap2::{Advice, MmapMut};
use rdax_bench::workload::{
    Action, Cost, Deed, Durable, FileWork, Files, History, NameWork, Order, Others, Pattern, Reach,
    Size, Sync, Workload,
};
use rdax_bench::MEASURED;
use rustix::fs::{seek, syncfs, FallocateFlags, SeekFrom, XattrFlags};

use crate::mapped::{map, map_private, PAGE};

/// Bytes of all files of a workload.
const TOTAL: usize = 16 << 20;
/// Operations of a workload; it is also run with a quarter of them.
const MANY: usize = 2048;
/// Names that a full directory has.
const OTHERS: usize = 4096;
/// How often a directory is listed.
const LISTINGS: usize = 4;

/// Runs the workloads in `dir`, where nothing is. With `progress` says on standard error which has
/// been measured.
pub fn run(dir: &Path, workloads: &[Workload], progress: bool) -> Result<Vec<Cost>> {
    let each = |workload: &Workload| {
        let measured = measure(dir, *workload, MANY / 4)
            .and_then(|few| Ok((few, measure(dir, *workload, MANY)?)));
        let (few, many) = *measured.as_ref().unwrap_or(&(0.0, 0.0));
        if progress {
            eprintln!("{MEASURED}{workload}");
        }
        Ok(Cost {
            workload: workload.to_string(),
            few,
            many,
            error: measured.err().map(|error| format!("{error:#}")),
        })
    };
    workloads.iter().map(each).collect()
}

/// What one of `ops` operations of a workload costs.
fn measure(dir: &Path, workload: Workload, ops: usize) -> Result<f64> {
    let dir = dir.join("survey");
    fs::create_dir(&dir)?;
    let result = match workload {
        Workload::File(work) => of_files(&dir, work, ops),
        Workload::Name(work) => of_names(&dir, work, ops),
    };
    fs::remove_dir_all(&dir)?;
    // What was removed is not to be paid for by the next one.
    syncfs(&File::open(dir.parent().context("no parent")?)?)?;
    Ok(result? / ops as f64)
}

/// What `work` takes.
fn cost(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_nanos() as f64)
}

fn fallocate(file: &File, mode: FallocateFlags, at: usize, len: usize) -> Result<()> {
    Ok(rustix::fs::fallocate(file, mode, at as u64, len as u64)?)
}

/// Makes a file of `len` bytes that has been through `history`.
fn file(path: &Path, history: History, len: usize, random: &mut fastrand::Rng) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).open(path)?;
    let pages = len / PAGE;
    let page = [0x5a; PAGE];
    if history != History::Empty {
        file.set_len(len as u64)?;
    }
    match history {
        History::Empty | History::Hole => {}
        History::Written => file.write_all_at(&vec![0x5a; len], 0)?,
        History::Reserved => fallocate(&file, FallocateFlags::empty(), 0, len)?,
        History::Stored => map(&file)?.fill(0x5a),
        History::Pieces => (0..pages)
            .step_by(2)
            .try_for_each(|nth| file.write_all_at(&page, (nth * PAGE) as u64))?,
        History::Scattered => {
            let mut order: Vec<_> = (0..pages).collect();
            random.shuffle(&mut order);
            order
                .into_iter()
                .try_for_each(|nth| file.write_all_at(&page, (nth * PAGE) as u64))?;
        }
        History::Torn => {
            let mut map = map(&file)?;
            map.fill(0x5a);
            map.flush()?;
            for _ in 0..2 {
                (0..pages)
                    .step_by(64)
                    .for_each(|nth| map[nth * PAGE] = map[nth * PAGE].wrapping_add(1));
                map.flush()?;
            }
        }
    }
    file.sync_all()?;
    Ok(file)
}

/// Bytes of an access.
fn len_of(size: Size) -> usize {
    match size {
        Size::Word => 8,
        Size::Record => 100,
        Size::Page => PAGE,
        Size::Large => 64 << 10,
    }
}

/// Where access number `nth` of a file of `len` bytes is; an access has `size`.
fn place(
    pattern: Pattern,
    nth: usize,
    len: usize,
    size: usize,
    random: &mut fastrand::Rng,
) -> usize {
    let slot = size.max(PAGE);
    let slots = len / slot;
    let slot_nth = match pattern {
        Pattern::Up | Pattern::End => nth % slots,
        Pattern::Down => slots - 1 - nth % slots,
        Pattern::Stride => nth * 3 % slots,
        Pattern::Streams => (nth % 4 * (slots / 4) + nth / 4) % slots,
        Pattern::Random => random.usize(..slots),
        Pattern::Near => random.usize(..slots.div_ceil(16)),
        Pattern::Same => slots / 2,
    };
    slot_nth * slot
}

/// A file, and how it is accessed.
struct Target {
    file: File,
    map: Option<MmapMut>,
    /// Its size.
    len: usize,
    /// Where the next byte is appended.
    end: usize,
}

impl Target {
    fn new(file: File, reach: Reach, len: usize, end: usize) -> Result<Target> {
        let map = match reach {
            Reach::Call | Reach::Anew => None,
            Reach::Private => Some(map_private(&file)?),
            Reach::Shared | Reach::Read | Reach::Small => Some(map(&file)?),
        };
        if let Some(map) = &map {
            if reach == Reach::Small {
                map.advise(Advice::NoHugePage)?;
            }
            if reach == Reach::Read {
                (0..len).step_by(PAGE).for_each(|at| {
                    black_box(map[at]);
                });
            }
        }
        Ok(Target {
            file,
            map,
            len,
            end,
        })
    }

    /// One operation, `size` bytes at `at`.
    fn access(&mut self, work: &FileWork, at: usize, buffer: &mut [u8]) -> Result<()> {
        let size = buffer.len();
        let (reads, writes) = match work.action {
            Action::Read => (true, false),
            Action::Write => (false, true),
            Action::Update => (true, true),
            other => return self.change(other, at, size),
        };
        let mut anew = match work.reach {
            Reach::Anew => Some(map(&self.file)?),
            _ => None,
        };
        match self.map.as_mut().or(anew.as_mut()) {
            Some(map) => {
                if reads {
                    buffer.copy_from_slice(&map[at..at + size]);
                }
                if writes {
                    // Another value, or the page would pass for one that nobody stored to.
                    buffer[0] = buffer[0].wrapping_add(1);
                    map[at..at + size].copy_from_slice(buffer);
                }
            }
            None => {
                if reads {
                    self.file.read_exact_at(buffer, at as u64)?;
                }
                if writes {
                    self.file.write_all_at(buffer, at as u64)?;
                }
            }
        }
        if work.sync == Sync::Range {
            if let Some(map) = self.map.as_ref().or(anew.as_ref()) {
                map.flush_range(at, size)?;
            }
        }
        Ok(())
    }

    fn change(&self, action: Action, at: usize, size: usize) -> Result<()> {
        let file = &self.file;
        match action {
            Action::Punch => {
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(file, mode, at, size)?;
            }
            Action::Zero => fallocate(file, FallocateFlags::ZERO_RANGE, at, size)?,
            Action::Reserve => fallocate(file, FallocateFlags::empty(), at, size)?,
            Action::Cut => {
                file.set_len(at as u64 + 1)?;
                file.set_len(self.len as u64)?;
            }
            _ => {
                // That there is no data is an answer, too.
                let _ = black_box(seek(file, SeekFrom::Data(at as u64)));
            }
        }
        Ok(())
    }
}

fn of_files(dir: &Path, work: FileWork, ops: usize) -> Result<f64> {
    let files = match work.files {
        Files::One => 1,
        Files::Many => 64,
    };
    let (len, size) = (TOTAL / files, len_of(work.size));
    let mut random = fastrand::Rng::with_seed(7);
    let mut targets = Vec::new();
    for nth in 0..files {
        let file = file(&dir.join(nth.to_string()), work.history, len, &mut random)?;
        let end = file.metadata()?.len() as usize;
        targets.push(Target::new(file, work.reach, len, end)?);
    }
    let volume = File::open(dir)?;
    syncfs(&volume)?;
    let mut buffer = vec![0x3c; size];
    cost(|| {
        for op in 0..ops {
            let target = &mut targets[op % files];
            let at = match work.pattern {
                Pattern::End => target.end,
                pattern => place(pattern, op / files, len, size, &mut random),
            };
            target.access(&work, at, &mut buffer)?;
            target.end = target.end.max(at + size);
            match work.sync {
                Sync::Each => target.file.sync_all()?,
                Sync::Data => target.file.sync_data()?,
                Sync::Some if op % 32 == 31 => target.file.sync_all()?,
                Sync::All if op % 32 == 31 => syncfs(&volume)?,
                _ => {}
            }
        }
        if work.sync == Sync::End {
            targets
                .iter()
                .try_for_each(|target| target.file.sync_all())?;
        }
        Ok(())
    })
}

fn setxattr(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::setxattr(
        path,
        "user.a",
        &[7; 40],
        XattrFlags::empty(),
    )?)
}

fn getxattr(path: &Path) -> io::Result<()> {
    rustix::fs::getxattr(path, "user.a", &mut [0; 40][..])?;
    Ok(())
}

fn of_names(dir: &Path, work: NameWork, ops: usize) -> Result<f64> {
    let mut random = fastrand::Rng::with_seed(7);
    if work.others == Others::Many {
        (0..OTHERS).try_for_each(|nth| File::create_new(dir.join(format!("o{nth}"))).map(drop))?;
    }
    let mut order: Vec<_> = (0..ops).collect();
    if work.order == Order::Random {
        random.shuffle(&mut order);
    }
    let path = |kind: &str, nth: usize| dir.join(format!("{kind}{nth}"));
    let all: Vec<(PathBuf, PathBuf)> = order
        .iter()
        .map(|nth| (path("a", *nth), path("b", *nth)))
        .collect();
    let create = |path: &Path| File::create_new(path).map(drop);
    let mkdir = |path: &Path| DirBuilder::new().mode(0o755).create(path);
    // What has to be there, in the order of numbers.
    for nth in 0..ops {
        let (a, b) = (path("a", nth), path("b", nth));
        match work.deed {
            Deed::Create | Deed::Save | Deed::Symlink | Deed::Mkdir | Deed::Miss => {}
            Deed::Rmdir => mkdir(&a)?,
            Deed::Replace => {
                create(&a)?;
                create(&b)?;
            }
            Deed::Getxattr => {
                create(&a)?;
                setxattr(&a)?;
            }
            _ => create(&a)?,
        }
    }
    let volume = File::open(dir)?;
    syncfs(&volume)?;
    let act = |a: &Path, b: &Path| -> io::Result<()> {
        match work.deed {
            Deed::Create => create(a),
            Deed::Unlink => fs::remove_file(a),
            Deed::Rename | Deed::Replace => fs::rename(a, b),
            Deed::Link => fs::hard_link(a, b),
            Deed::Symlink => std::os::unix::fs::symlink("target", a),
            Deed::Mkdir => mkdir(a),
            Deed::Rmdir => fs::remove_dir(a),
            Deed::Stat => fs::metadata(a).map(drop),
            Deed::Miss => {
                black_box(fs::metadata(b).is_err());
                Ok(())
            }
            Deed::Open => File::open(a).map(drop),
            Deed::Chmod => fs::set_permissions(a, PermissionsExt::from_mode(0o600)),
            Deed::Setxattr => setxattr(a),
            Deed::Getxattr => getxattr(a),
            Deed::Save => {
                let file = File::create_new(a)?;
                file.write_all_at(&[0x3c; 1000], 0)?;
                file.sync_all()
            }
            Deed::List => Ok(()),
        }
    };
    if work.deed == Deed::List {
        let others = match work.others {
            Others::None => 0,
            Others::Many => OTHERS,
        };
        let spent = cost(|| {
            (0..LISTINGS).try_for_each(|_| {
                black_box(fs::read_dir(dir)?.count());
                Ok(())
            })
        })?;
        // As if each operation were one name.
        return Ok(spent / (LISTINGS * (ops + others)) as f64 * ops as f64);
    }
    cost(|| {
        for (a, b) in &all {
            act(a, b)?;
            if work.durable == Durable::Each {
                volume.sync_all()?;
            }
        }
        Ok(())
    })
}
