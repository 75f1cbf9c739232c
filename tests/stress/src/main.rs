// SPDX-License-Identifier: GPL-2.0

//! Stress of mapped and written files, with contents that verify themselves.
//!
//! Each test forks processes, each of which starts threads; these workers store, sync, fork,
//! truncate and rename until time is up, and check what they see on the way. Then everything is
//! verified at rest. With `--ledger DIR` what was promised durable is kept outside the file
//! system, and `--verify` holds the file system to it in a later boot, also after a kill.

#![forbid(unsafe_code)]

mod counters;
mod ledger;
mod manifest;
mod names;
mod record;
mod report;
mod rest;
mod runner;
mod slots;
mod stream;
mod sys;
mod test;
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use clap::Parser;

use crate::report::Table;
use crate::runner::Group;
use crate::test::{Config, Test};

/// Stresses a file system with mapped and written files whose contents verify themselves.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// Directory on the file system under test
    #[arg(long, value_name = "DIR", required_unless_present = "list")]
    dir: Option<PathBuf>,
    /// Seed of all random choices; the same seed gives each worker the same sequence
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Seconds for all tests together
    #[arg(long, value_name = "S", default_value_t = 30)]
    seconds: u64,
    /// Threads in each process
    #[arg(long, value_name = "T", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Processes
    #[arg(long, value_name = "P", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    procs: u32,
    /// MiB that the files of one test may take; all tests together take about 16 times as much
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    size: u64,
    /// Tests to run, by name; `mixed` is all of them at once
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    only: Vec<String>,
    /// Where to keep what was promised durable: outside of the file system under test
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
    /// Verify what an earlier run with the same --dir and --ledger left, and run nothing
    #[arg(long, requires = "ledger")]
    verify: bool,
    /// List the tests
    #[arg(long)]
    list: bool,
}

/// The test of all tests at once.
const MIXED: &str = "mixed";

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rdax-stress: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    if args.list {
        for test in tests::ALL {
            println!("{:<12} {}", test.name, test.about);
        }
        println!(
            "{MIXED:<12} all of them at once, but for {}",
            tests::ALONE.join(", ")
        );
        return Ok(true);
    }
    let dir = args.dir.clone().context("--dir is missing")?;
    ensure!(dir.is_dir(), "{} is not a directory", dir.display());
    if args.verify {
        return manifest::verify(&dir, args.ledger.as_deref().context("--ledger is missing")?);
    }
    let config = Config {
        dir,
        ledger: args.ledger.clone(),
        seed: args.seed,
        size: args.size << 20,
    };
    let groups = choose(&args.only)?;
    rdax_test_sys::catch_faults();
    if let Some(ledger) = &config.ledger {
        ledger::clear(ledger)?;
        manifest::start(ledger, config.seed)?;
    }
    // `mixed` gets a fifth of the time if there are others.
    let count = groups.len() as u32;
    let total = Duration::from_secs(args.seconds);
    let mixed_share = if count > 1 { total / 5 } else { total };
    let others = count - u32::from(groups.iter().any(|group| group.name == MIXED));
    let share = if others == count {
        total
    } else {
        total - mixed_share
    } / others.max(1);
    println!(
        "rdax-stress: {}, seed {}, {} processes of {} threads, {} s",
        config.dir.display(),
        config.seed,
        args.procs,
        args.threads,
        args.seconds
    );
    let mut table = Table::default();
    let mut next_id = 1;
    for group in &groups {
        let time = if group.name == MIXED {
            mixed_share
        } else {
            share
        };
        let row = runner::run(
            &config,
            group,
            (args.procs, args.threads),
            time,
            &mut next_id,
        )?;
        table.add(row);
    }
    table.print(&config);
    Ok(table.held())
}

/// The tests named, in the order they run; all and `mixed` if none is.
fn choose(only: &[String]) -> Result<Vec<Group>> {
    for name in only {
        if name != MIXED && !tests::ALL.iter().any(|test| test.name == name) {
            bail!("no test is called {name}; --list shows them");
        }
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|other| other == name);
    let single = |test: &&'static Test| Group {
        name: test.name,
        tests: vec![*test],
    };
    let mut groups: Vec<Group> = tests::ALL
        .iter()
        .filter(|test| wanted(test.name))
        .map(single)
        .collect();
    if wanted(MIXED) {
        let all = tests::ALL
            .iter()
            .filter(|test| !tests::ALONE.contains(&test.name));
        groups.push(Group {
            name: MIXED,
            tests: all.copied().collect(),
        });
    }
    Ok(groups)
}
