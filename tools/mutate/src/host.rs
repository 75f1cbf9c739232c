// SPDX-License-Identifier: GPL-2.0

//! The tests of the crates in tools/, run with a mistake each: those alone that reach it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::build::build_host;
use crate::mutation::{hash, Mutation};
use crate::process::{run, End, SLOWER};
use crate::results::{Layer, Results, Verdict};

/// The packages whose tests run the code of `src/`.
const PACKAGES: [&str; 5] = [
    "rdax-volume",
    "dax-model",
    "rdax-mkfs",
    "rdax-fsck",
    "rdax-crash-ops",
];

/// A test program.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Program {
    path: PathBuf,
    /// Where cargo would run it.
    dir: PathBuf,
    name: String,
}

/// A test, and what is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Test {
    program: Program,
    name: String,
    seconds: f64,
    reached: BTreeSet<u32>,
}

/// What the tests reach, of one build.
#[derive(Serialize, Deserialize)]
struct Coverage {
    build: u64,
    tests: Vec<Test>,
}

/// How the layer is run.
pub struct Settings<'a> {
    pub top: &'a Path,
    pub out: &'a Path,
    /// These packages alone, unless there are none.
    pub packages: &'a [String],
    /// Of these, the test programs with these names alone, unless there are none.
    pub programs: &'a [String],
    /// At a time.
    pub jobs: usize,
    /// Tests of one mutation that take longer together are not all run.
    pub patience: Duration,
    /// A test that takes longer is not used.
    pub longest: Duration,
}

impl Test {
    fn describe(&self) -> String {
        format!("{}: {}", self.program.name, self.name)
    }

    fn command(&self, mutation: u32) -> Command {
        let mut command = Command::new(&self.program.path);
        command
            .args(["--exact", &self.name, "--test-threads=1"])
            .current_dir(&self.program.dir)
            .env("RDAX_MUTATE", mutation.to_string())
            // What a property is tried with is the same each time, and the least failure is of no
            // interest.
            .env("PROPTEST_RNG_SEED", "1")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            .env("CARGO_MANIFEST_DIR", &self.program.dir)
            .env("RUST_BACKTRACE", "0");
        command
    }
}

/// The test programs in what cargo said.
fn programs(said: &str) -> Vec<Program> {
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).ok()?;
        if !value["profile"]["test"].as_bool()? {
            return None;
        }
        let manifest = Path::new(value["manifest_path"].as_str()?);
        let package = manifest.parent()?.file_name()?.to_str()?;
        Some(Program {
            path: value["executable"].as_str()?.into(),
            dir: manifest.parent()?.into(),
            name: format!("{package}/{}", value["target"]["name"].as_str()?),
        })
    };
    said.lines().filter_map(parse).collect()
}

/// The names of the tests of `program`, without those that are ignored.
fn names(program: &Program) -> Result<Vec<String>> {
    let list = |more: &[&str]| -> Result<BTreeSet<String>> {
        let output = Command::new(&program.path)
            .args(["--list", "--format", "terse"])
            .args(more)
            .current_dir(&program.dir)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| program.path.display().to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    };
    let ignored = list(&["--ignored"])?;
    Ok(list(&[])?.difference(&ignored).cloned().collect())
}

/// The numbers in a file of `RDAX_MUTATE_REACHED`.
fn reached(path: &Path) -> BTreeSet<u32> {
    let bytes = fs::read(path).unwrap_or_default();
    let number = |chunk: &[u8]| chunk.try_into().map(u32::from_le_bytes).ok();
    bytes.chunks(4).filter_map(number).collect()
}

/// Calls `f` with each number below `count`, on some threads; an error ends it.
fn in_parallel(jobs: usize, count: usize, f: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || loop {
        let i = next.fetch_add(1, Ordering::Relaxed);
        if i >= count {
            return Ok(());
        }
        if let Err(e) = f(i) {
            next.store(count, Ordering::Relaxed);
            return Err(e);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or(Ok(())))
    })
}

/// Runs each test once without a mistake, to see what it reaches. A test that fails then is not
/// used.
fn cover(settings: &Settings<'_>, programs: &[Program]) -> Result<Vec<Test>> {
    let mut all = Vec::new();
    for program in programs {
        for name in names(program)? {
            all.push((program.clone(), name));
        }
    }
    let done = Mutex::new(Vec::new());
    in_parallel(settings.jobs, all.len(), &|i| {
        let (program, name) = all[i].clone();
        let file = settings.out.join(format!("reached.{i}"));
        let mut test = Test {
            program,
            name,
            seconds: 0.0,
            reached: BTreeSet::new(),
        };
        let start = Instant::now();
        let mut command = test.command(0);
        command.env("RDAX_MUTATE_REACHED", &file);
        let end = run(&mut command, settings.longest / SLOWER)?;
        test.seconds = start.elapsed().as_secs_f64();
        test.reached = reached(&file);
        // It has none if it reaches nothing.
        let _ = fs::remove_file(&file);
        match end {
            End::Failed(how) => eprintln!("not used: {} fails: {how}", test.describe()),
            End::Passed if test.reached.is_empty() => {}
            End::Passed => done
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(test),
        }
        Ok(())
    })?;
    let mut tests = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    tests.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    Ok(tests)
}

/// The tests of the build that there is, with what they reach.
fn coverage(settings: &Settings<'_>) -> Result<Vec<Test>> {
    let packages: Vec<String> = match settings.packages.is_empty() {
        true => PACKAGES.map(str::to_owned).to_vec(),
        false => settings.packages.to_vec(),
    };
    let tree = settings.out.join("tree");
    let said = build_host(settings.top, &tree, &packages, settings.programs)?;
    let programs = programs(&said);
    ensure!(!programs.is_empty(), "cargo built no test programs");
    let mut build = String::new();
    for program in &programs {
        let times = fs::metadata(&program.path)?.modified()?;
        build += &format!("{} {times:?}\n", program.path.display());
    }
    let build = hash(&[&build]);
    let path = settings.out.join("host-coverage.json");
    if let Ok(text) = fs::read(&path) {
        if let Ok(old) = serde_json::from_slice::<Coverage>(&text) {
            if old.build == build {
                return Ok(old.tests);
            }
        }
    }
    let tests = cover(settings, &programs)?;
    let seconds: f64 = tests.iter().map(|test| test.seconds).sum();
    println!("{} tests, {seconds:.0} s one after the other", tests.len());
    let coverage = Coverage { build, tests };
    fs::write(path, serde_json::to_vec(&coverage)?)?;
    Ok(coverage.tests)
}

/// Runs the tests that reach `mutation`, the fastest first, until one finds it.
fn judge(settings: &Settings<'_>, tests: &[Test], mutation: &Mutation) -> Result<Verdict> {
    let reaching = tests
        .iter()
        .filter(|test| test.reached.contains(&mutation.id));
    let mut verdict = Verdict {
        caught: None,
        reaching: reaching.clone().count(),
        run: 0,
    };
    let mut seconds = 0.0;
    for test in reaching {
        seconds += test.seconds;
        if verdict.run > 0 && seconds > settings.patience.as_secs_f64() {
            break;
        }
        verdict.run += 1;
        let usual = Duration::from_secs_f64(test.seconds);
        if let End::Failed(how) = run(&mut test.command(mutation.id), usual)? {
            verdict.caught = Some((test.describe(), how));
            break;
        }
    }
    Ok(verdict)
}

/// Runs the layer for `mutations`.
pub fn layer(
    settings: &Settings<'_>,
    mutations: &[&Mutation],
    results: &mut Results,
    limit: Instant,
) -> Result<()> {
    let tests = coverage(settings)?;
    let results = Mutex::new(results);
    in_parallel(settings.jobs, mutations.len(), &|i| {
        if Instant::now() > limit {
            return Ok(());
        }
        let verdict = judge(settings, &tests, mutations[i])?;
        if verdict.caught.is_none() {
            println!(
                "survives {} of {} tests: {}",
                verdict.run,
                verdict.reaching,
                mutations[i].describe()
            );
        }
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        results.put(&mutations[i].key, Layer::Host, verdict)
    })?;
    results
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .save()
}
