// SPDX-License-Identifier: GPL-2.0

//! Runs the workloads of crash tests on a mounted file system.
//!
//! Marks tell the tracer of the machine where the program is; see [`mark`](mod@mark). With
//! `--choose` the workload is chosen after the mark "ready", so that one saved machine serves for
//! all of them.

mod age;
mod client;
mod mapping;
mod mark;
mod run;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{ensure, Context, Result};
use clap::{Parser, Subcommand};
use rdax_crash_ops::client::Client;
use rdax_crash_ops::{names, recover, workload, Oracle, Synced, Violation, Workload};
use rdax_volume::image::Image;

use crate::mark::{mark, Mark};
use crate::run::Runner;

/// Runs the workloads of crash tests.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the names of all workloads
    Names,
    /// List the names of the clients
    Clients,
    /// Show the operations of a workload
    Show(Choice),
    /// Run a workload on an empty file system, with marks
    Run {
        /// Where the file system is mounted
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Read "NAME SEED" from the first line of this file, pipe or port, once all is ready
        #[arg(long, value_name = "FILE", conflicts_with = "name")]
        choose: Option<PathBuf>,
        #[command(flatten)]
        choice: Option<Choice>,
    },
    /// Check that an rdax volume, not mounted, is what a workload leaves
    Check {
        /// Its device or image
        #[arg(long, value_name = "FILE")]
        device: PathBuf,
        #[command(flatten)]
        choice: Choice,
    },
    /// Check the files of a mounted file system: what the syncs of a workload have covered
    CheckFiles {
        /// Where it is mounted
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        #[command(flatten)]
        choice: Choice,
        #[command(flatten)]
        crash: Crash,
    },
    /// Open the database of a client, and compare it with what its transactions have made of it
    CheckClient {
        /// Where its files are
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        #[command(flatten)]
        choice: Choice,
        #[command(flatten)]
        crash: Crash,
    },
    /// Open a file and fsync it
    #[command(hide = true)]
    Fsync { path: PathBuf },
}

#[derive(clap::Args)]
struct Choice {
    /// Name of the workload, or of a client of the file system
    name: String,
    /// Seed; only clients and those called random: depend on it
    #[arg(default_value_t = 1)]
    seed: u64,
}

/// When a crash was.
#[derive(clap::Args)]
struct Crash {
    /// Operations that had returned
    #[arg(long, value_name = "N")]
    finished: usize,
    /// Another one had begun
    #[arg(long)]
    in_flight: bool,
}

impl Choice {
    fn workload(&self) -> Result<Workload> {
        workload(&self.name, self.seed)
            .with_context(|| format!("there is no workload {} (names lists them)", self.name))
    }
}

fn main() -> ExitCode {
    match execute(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rdax-crash-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Names => {
            for name in names() {
                println!("{name}");
            }
            Ok(())
        }
        Command::Clients => {
            for name in Client::names() {
                println!("{name}");
            }
            Ok(())
        }
        Command::Show(choice) => {
            print!("{}", choice.workload()?);
            Ok(())
        }
        Command::Run {
            dir,
            choose,
            choice,
        } => {
            let mut runner = Runner::new(&dir)?;
            mark(Mark::Ready);
            let choice = match (choose, choice) {
                (Some(file), _) => chosen(&file)?,
                (None, choice) => choice.context("run needs a name, or --choose")?,
            };
            match Client::find(&choice.name) {
                Some(client) => client::run(client, choice.seed, &dir),
                None => runner.run(&choice.workload()?),
            }
        }
        Command::Check { device, choice } => check(&device, &choice.workload()?),
        Command::CheckFiles { dir, choice, crash } => {
            let oracle = Synced::new(&choice.workload()?);
            said(&oracle.check(&files(&dir)?, crash.finished, crash.in_flight))
        }
        Command::CheckClient { dir, choice, crash } => {
            let client = Client::find(&choice.name).context("there is no such client")?;
            client::check(client, choice.seed, &dir, crash.finished, crash.in_flight)
        }
        Command::Fsync { path } => {
            let file = OpenOptions::new().write(true).open(&path);
            Ok(file.and_then(|file| file.sync_all())?)
        }
    }
}

/// What `file` says.
fn chosen(file: &Path) -> Result<Choice> {
    let context = || file.display().to_string();
    let mut line = String::new();
    BufReader::new(File::open(file).with_context(context)?)
        .read_line(&mut line)
        .with_context(context)?;
    let line = line.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    let (name, seed) = line.split_once(' ').unwrap_or((line, "1"));
    Ok(Choice {
        name: name.to_owned(),
        seed: seed.parse().with_context(|| format!("seed {seed}"))?,
    })
}

fn check(device: &Path, workload: &Workload) -> Result<()> {
    let context = || device.display().to_string();
    let file = OpenOptions::new().read(true).write(true).open(device);
    let image = file.and_then(Image::new).with_context(context)?;
    let volume = recover(image).map_err(|violation| anyhow::anyhow!("{violation}"))?;
    said(&Oracle::new(workload).check(&volume, workload.ops.len(), false))
}

/// Says what was found. Fails if it is something.
fn said(found: &[Violation]) -> Result<()> {
    for violation in found {
        eprintln!("{violation}");
    }
    ensure!(found.is_empty(), "{} violations", found.len());
    Ok(())
}

/// The bytes of all regular files below `dir`, by their paths from there.
fn files(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(dir.join(&path))? {
            let entry = entry?;
            let path = path.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() {
                let name = path.to_string_lossy().into_owned();
                files.insert(name, fs::read(entry.path())?);
            }
        }
    }
    Ok(files)
}
