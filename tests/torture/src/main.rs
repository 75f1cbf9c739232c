// SPDX-License-Identifier: GPL-2.0

//! The parts of `make torture` that run in the VM: `tests/torture/run` boots it and calls this.

mod failures;
mod images;
mod load;
mod operations;
mod snapshot;
mod users;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "rdax-torture-guest")]
struct Cli {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Mount damaged volumes, look at everything, use them
    Images(images::Args),
    /// Make every operation fail at its first allocation, its second, and so on
    Failures(failures::Args),
    /// As many transactions as there can be, for a machine that is killed
    Load(load::Args),
    /// Every call with every kind of argument, by users without privileges
    Users(users::Args),
}

/// Where the file system under test is mounted.
#[derive(clap::Args)]
struct Mounted {
    #[arg(long, default_value = "/mnt/pmem")]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let result = match Cli::parse().part {
        Part::Images(args) => images::run(&args),
        Part::Failures(args) => failures::run(&args),
        Part::Load(args) => load::run(&args),
        Part::Users(args) => users::run(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("rdax-torture-guest: {e:#}");
            ExitCode::from(2)
        }
    }
}
