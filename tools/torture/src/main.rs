// SPDX-License-Identifier: GPL-2.0

//! The part of `make torture` that needs no VM: damaged volumes, tried one after the other until
//! the time is up. `tests/torture/run` is what calls it.

#![forbid(unsafe_code)]

mod run;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Try the checker, the repair and the volume on damaged volumes
#[derive(Parser)]
#[command(name = "rdax-torture")]
struct Args {
    /// End after this time (90s, 10m)
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    budget: Duration,
    /// Which series of volumes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of the first
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// This many, however long it takes
    #[arg(long)]
    images: Option<u64>,
    /// Only this one; tells all about it
    #[arg(long)]
    image: Option<u64>,
    /// Where faults are kept, one file each
    #[arg(long, default_value = "build/torture/damage")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.image {
        Some(number) => run::one(args.seed, number, &args.out),
        None => run::many(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("rdax-torture: {e:#}");
            ExitCode::from(2)
        }
    }
}
