// SPDX-License-Identifier: GPL-2.0

//! What a test is: files to set up, a body that each worker runs until time is up, and what must
//! hold when all is quiet again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use anyhow::{Context, Result};
use rdax_test_sys::shared_counters;

use crate::ledger::{FileLedger, Log};
use crate::names;
use crate::record::SLOT;
use crate::rest;
use crate::slots::{Owner, Rule, SlotFile, Tracked, SLOTS_PER_PAGE};
use crate::stream;
use crate::sys::{self, PAGE};

/// A test. The functions are called in the order of the fields, `run` by every worker at once.
pub struct Test {
    /// Its name.
    pub name: &'static str,
    /// What it tries, in one line.
    pub about: &'static str,
    /// Makes the files.
    pub setup: fn(&mut Setup) -> Result<()>,
    /// The work, until [`Worker::running`] says no.
    pub run: fn(&mut Worker) -> Result<()>,
    /// Checks and work of its own after all workers have ended, before the files are verified.
    pub finish: fn(&Run) -> Result<()>,
    /// Whether the files stay, to be verified now and after a reboot.
    pub keep: bool,
}

/// Why a test cannot be run here.
#[derive(Debug)]
pub struct Skip(pub String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// What the command line says.
pub struct Config {
    /// Directory under test.
    pub dir: PathBuf,
    /// Directory of the ledger, if it has to outlive the run.
    pub ledger: Option<PathBuf>,
    /// Seed of everything random.
    pub seed: u64,
    /// Bytes that one test may use for its files.
    pub size: u64,
}

/// One test being run: its files and what its workers share.
pub struct Run {
    /// The test.
    pub test: &'static Test,
    /// What its directory and logs are named after.
    pub label: String,
    /// Directory of its files.
    pub dir: PathBuf,
    /// Its files.
    pub files: Vec<Tracked>,
    /// Number of workers.
    pub workers: u32,
    /// Operations done.
    pub ops: &'static AtomicU64,
    /// Not 0 once a worker has failed: the others stop.
    pub failed: &'static AtomicU64,
    /// For the test's own use.
    pub mark: &'static AtomicU64,
    /// Seed of the run.
    pub seed: u64,
    /// Bytes the test may use.
    pub size: u64,
}

/// Makes the files of a test.
pub struct Setup<'a> {
    run: Run,
    next_id: &'a mut u32,
}

impl<'a> Setup<'a> {
    /// Starts with an empty directory for `test`. Files are numbered from `next_id`.
    pub fn new(
        config: &Config,
        test: &'static Test,
        label: String,
        workers: u32,
        next_id: &'a mut u32,
    ) -> Result<Setup<'a>> {
        let dir = directory(&config.dir, &label);
        remove(&dir)?;
        fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        let words = shared_counters(3)?;
        let (ops, failed, mark, files) = (&words[0], &words[1], &words[2], Vec::new());
        let (seed, size) = (config.seed, config.size);
        let run = Run {
            test,
            label,
            dir,
            files,
            workers,
            ops,
            failed,
            mark,
            seed,
            size,
        };
        Ok(Setup { run, next_id })
    }

    /// The directory, and what is made so far.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Adds a file of `bytes` bytes (at least a page for every writer), all hole. Gives its size.
    pub fn file(&mut self, name: &str, bytes: u64, owner: Owner, rule: Rule) -> Result<u64> {
        let (Owner::Slots(writers) | Owner::Pages(writers)) = owner;
        let pages = (bytes / PAGE).max(u64::from(writers));
        let path = self.run.dir.join(name);
        let file = File::create_new(&path).with_context(|| path.display().to_string())?;
        file.set_len(pages * PAGE)?;
        self.add(path, pages * SLOTS_PER_PAGE, owner, rule)?;
        Ok(pages * PAGE)
    }

    /// Adds a file of `bytes` bytes whose first half has blocks, written with zeroes.
    pub fn half_filled(&mut self, name: &str, bytes: u64, owner: Owner, rule: Rule) -> Result<()> {
        let bytes = self.file(name, bytes, owner, rule)?;
        let mut file = sys::open(&self.run.dir.join(name))?;
        let zeroes = vec![0; 64 << 10];
        let mut left = bytes / 2;
        while left > 0 {
            let len = left.min(zeroes.len() as u64);
            file.write_all(&zeroes[..len as usize])?;
            left -= len;
        }
        Ok(())
    }

    /// Adds a stream ([`crate::stream`]) of at most `bytes` bytes; the caller makes the file.
    pub fn stream(&mut self, path: PathBuf, bytes: u64) -> Result<()> {
        self.add(path, bytes / SLOT, Owner::Slots(1), Rule::Append)
    }

    /// Adds a directory with `slots` names ([`crate::names`]); the caller makes it.
    pub fn names(&mut self, path: PathBuf, slots: u64, workers: u32) -> Result<()> {
        self.add(path, slots, Owner::Slots(workers), Rule::Names)
    }

    fn add(&mut self, path: PathBuf, slots: u64, owner: Owner, rule: Rule) -> Result<()> {
        let id = *self.next_id;
        *self.next_id += 1;
        let exact = matches!(rule, Rule::Append | Rule::Names);
        let ledger = FileLedger::new(id, slots, exact)?;
        let seed = self.run.seed;
        let file = SlotFile {
            path,
            slots,
            owner,
            rule,
            cycle: 0,
            seed,
            id,
        };
        self.run.files.push(Tracked { file, ledger });
        Ok(())
    }

    /// Sets the cycle ([`crate::record::Identity::cycle`]) of the file added last.
    pub fn cycle(&mut self, cycle: u64) {
        if let Some(last) = self.run.files.last_mut() {
            last.file.cycle = cycle;
        }
    }

    /// Makes the files and what workers share.
    pub fn build(mut self) -> Result<Run> {
        let result = (self.run.test.setup)(&mut self);
        if result.is_err() {
            remove(&self.run.dir)?;
        }
        result.map(|()| self.run)
    }
}

/// The directory of the run `label` under `dir`.
pub fn directory(dir: &Path, label: &str) -> PathBuf {
    dir.join(format!("rdax-stress.{label}"))
}

/// Removes a directory and all in it, if it is there.
pub fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("rm -r {}", dir.display())),
    }
}

impl Run {
    /// Verifies all files while nobody uses them, makes them durable and ends their logs.
    pub fn verify(&self, log: &Log) -> Result<()> {
        for file in &self.files {
            match file.rule {
                Rule::Exact | Rule::Own => rest::check_all(file)?,
                Rule::Append => stream::check_all(file)?,
                Rule::Names => names::check_all(file)?,
            }
        }
        sys::syncfs(&File::open(&self.dir)?).context("syncfs")?;
        for file in &self.files {
            file.ledger.close(log)?;
        }
        Ok(())
    }
}

/// One worker of a run.
pub struct Worker<'a> {
    /// The run.
    pub run: &'a Run,
    /// Its number in the run, from 0. Workers of one parity are in the same processes.
    pub index: u32,
    /// Its random numbers, the same for the same seed, test and index.
    pub rng: fastrand::Rng,
    /// Its log.
    pub log: Log,
    deadline: Instant,
}

impl<'a> Worker<'a> {
    /// Worker number `index` of `run`, which works until `deadline`.
    pub fn new(
        run: &'a Run,
        index: u32,
        ledger: Option<&Path>,
        deadline: Instant,
    ) -> Result<Worker<'a>> {
        let salt = crc32c::crc32c(run.test.name.as_bytes());
        let seed = run.seed ^ (u64::from(salt) << 32) ^ u64::from(index);
        let log = Log::open(ledger, &format!("{}.{index}", run.label)).context("ledger")?;
        Ok(Worker {
            run,
            index,
            rng: fastrand::Rng::with_seed(seed),
            log,
            deadline,
        })
    }

    /// Whether to go on.
    pub fn running(&self) -> bool {
        self.run.failed.load(Relaxed) == 0 && Instant::now() < self.deadline
    }

    /// Counts operations.
    pub fn count(&self, ops: u64) {
        self.run.ops.fetch_add(ops, Relaxed);
    }

    /// A slot of `file` that writer `writer` owns.
    pub fn own(&mut self, file: &SlotFile, writer: u32) -> u64 {
        file.nth_own(writer, self.rng.u64(..))
    }

    /// A range of pages of `file`, at most `most` long, in bytes.
    pub fn pages(&mut self, file: &SlotFile, most: u64) -> std::ops::Range<u64> {
        let len = self.rng.u64(1..=most.min(file.pages()));
        let first = self.rng.u64(0..=file.pages() - len);
        first * PAGE..(first + len) * PAGE
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.rng.u32(0..n) == 0
    }
}

/// `finish` of a test that has nothing to do there.
pub fn nothing(_run: &Run) -> Result<()> {
    Ok(())
}
