// SPDX-License-Identifier: GPL-2.0

//! Crash exploration of rdax: runs workloads on the module in a VM, records what they do to the
//! persistent memory, makes the states in which a crash may have left it, recovers each with the
//! module's own code, and asks the oracle. `Documentation/crash-exploration.rst` tells more.

#![forbid(unsafe_code)]

mod client;
mod cost;
mod explore;
mod image;
mod mutate;
mod names;
mod page;
mod peer;
mod replay;
mod report;
mod run;
mod subject;
mod vm;
mod walk;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Explore the states in which crashes may leave an rdax volume
#[derive(Parser)]
#[command(name = "rdax-crash")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run workloads in the VM and check what crashes may leave of them
    Run(Run),
    /// Build the module with mistakes, one at a time, and see whether each is found
    Mutate(Mutate),
    /// Measure what recording costs
    Cost {
        /// The checkout, with the module and the tools built
        #[arg(long, default_value = ".")]
        top: PathBuf,
    },
    /// Check one state again, of a recording that a run has kept
    Replay(Replay),
}

#[derive(Args)]
struct Mutate {
    /// Names of mistakes, as scripts/mutations lists them, or all
    #[arg(required = true)]
    mutation: Vec<String>,
    #[command(flatten)]
    run: Run,
}

#[derive(Args, Clone)]
struct Run {
    /// The checkout, with the module and the tools built
    #[arg(long, default_value = ".")]
    top: PathBuf,
    /// The file system; of ext4 and xfs, whose crashes only the kernel recovers, few states
    #[arg(long, value_enum, default_value = "rdax")]
    fs: vm::FileSystem,
    /// Of ext4 and xfs, mount this many states of each workload
    #[arg(long, default_value_t = 12)]
    mounted: usize,
    /// This module instead of the one built there
    #[arg(long)]
    module: Option<PathBuf>,
    /// Start no workload after this time (90s, 10m, 2h)
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    budget: std::time::Duration,
    /// Chooses states and random workloads
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// About this many states at each point
    #[arg(long, default_value_t = 200)]
    per_point: usize,
    /// Only these workloads: a name, or the beginning of names and a *; each once
    #[arg(long)]
    workload: Vec<String>,
    /// The kernel recovers a crash of one in this many workloads, too; 0: of none
    #[arg(long, default_value_t = 8)]
    kernel_every: usize,
    /// End at the first violation, and do not report it
    #[arg(skip)]
    until_found: bool,
    /// Where the report goes
    #[arg(long, default_value = "build/crash")]
    out: PathBuf,
}

#[derive(Args)]
struct Replay {
    /// The checkout, with the tools built
    #[arg(long, default_value = ".")]
    top: PathBuf,
    /// Where the report of the run is
    #[arg(long, default_value = "build/crash")]
    out: PathBuf,
    /// The workload
    workload: String,
    /// The seed of the workload
    seed: u64,
    /// The point
    point: usize,
    /// The state
    state: usize,
}

fn main() -> ExitCode {
    let result = match Cli::parse().what {
        What::Run(args) => run::run(&args),
        What::Mutate(args) => mutate::mutate(&args),
        What::Cost { top } => cost::cost(&top),
        What::Replay(args) => replay::replay(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("rdax-crash: {e:#}");
            ExitCode::from(2)
        }
    }
}
