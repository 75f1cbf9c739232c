// SPDX-License-Identifier: GPL-2.0

//! Measures what an operation costs on the file system that holds a directory: time, page faults,
//! and, where rdax counts them, cache lines written back and fences.
//!
//! Under `qemu/vm --icount` a nanosecond of the guest is an instruction, of the program and the
//! kernel together, and runs repeat closely: that is how file systems are to be compared. On other
//! machines the same column holds nanoseconds. Copies count once a byte under icount.

mod clients;
mod listed;
mod mapped;
mod meter;
mod mount;
mod names;
mod scale;
mod sparse;
mod survey;
mod written;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use rdax_bench::workload::{Cost, Workload};
use rdax_bench::Results;
use serde::Serialize;

use crate::meter::Meter;
use crate::mount::Mount;

/// Measures what operations cost on the file system that holds DIR.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// Directory on the file system to measure; 200 MiB must be free there, or what the large
    /// file needs
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Size of the file in the rows that speak of a large file
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = mib)]
    large: usize,
    /// Entries of the directory in the row that speaks of a large directory
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    names: u64,
    /// DIR is a mount point: unmount it and mount it again, to measure that, too
    #[arg(long)]
    remount: bool,
    /// Measure the workloads in FILE, one a line, instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["large", "names", "remount"])]
    survey: Option<PathBuf>,
    /// Also write the results to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Say on standard error what has been measured
    #[arg(long)]
    progress: bool,
}

/// A number of MiB that is some and can be mapped.
fn mib(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(mib) if (1..1 << 24).contains(&mib) => Ok(mib),
        _ => Err("not a number of MiB".into()),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rdax-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let mount = Mount::holding(&args.dir)?;
    if args.remount {
        mount.is_at(&args.dir)?;
    }
    let dir = fs::canonicalize(&args.dir)
        .with_context(|| args.dir.display().to_string())?
        .join("rdax-bench");
    fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
    if let Some(list) = &args.survey {
        let costs = workloads(list).and_then(|list| survey::run(&dir, &list, args.progress));
        fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let costs = costs?;
        costs.iter().for_each(print_cost);
        return write_json(args, &costs);
    }
    let mut meter = Meter::new(&dir, args.progress)?;
    let result = mapped::measure(&mut meter, &dir)
        .and_then(|()| sparse::measure(&mut meter, &dir))
        .and_then(|()| written::measure(&mut meter, &dir))
        .and_then(|()| names::measure(&mut meter, &dir))
        .and_then(|()| listed::measure(&mut meter, &dir))
        .and_then(|()| clients::measure(&mut meter, &dir))
        .and_then(|()| scale::measure(&mut meter, &dir, args.large << 20))
        .and_then(|()| {
            let mount = args.remount.then_some(&mount);
            scale::names(&mut meter, &dir, args.names, mount)
        });
    fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    result?;
    let results = Results {
        file_system: mount.kind,
        large_mib: args.large,
        names: args.names,
        rows: meter.into_rows(),
    };
    print(&results);
    write_json(args, &results)
}

fn write_json(args: &Args, results: &impl Serialize) -> Result<()> {
    let Some(path) = &args.json else {
        return Ok(());
    };
    let json = serde_json::to_string_pretty(results)?;
    fs::write(path, json + "\n").with_context(|| path.display().to_string())
}

/// The workloads that a file has, one a line.
fn workloads(path: &Path) -> Result<Vec<Workload>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parse = |line: &str| line.parse().map_err(anyhow::Error::msg);
    let all: Result<_> = text.lines().map(parse).collect();
    all.with_context(|| path.display().to_string())
}

fn print_cost(cost: &Cost) {
    match &cost.error {
        None => println!("{:>12.0} {:>12.0}  {}", cost.few, cost.many, cost.workload),
        Some(error) => println!("{:>25}  {}: {error}", "-", cost.workload),
    }
}

fn print(results: &Results) {
    println!(
        "{}: per operation, instructions under icount, else nanoseconds",
        results.file_system
    );
    println!(
        "{:<52} {:>12} {:>8} {:>11} {:>12} {:>7}",
        "operation", "instructions", "faults", "lines, sync", "lines, meta", "fences"
    );
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    for row in &results.rows {
        println!(
            "{:<52} {:>12.0} {:>8.3} {:>11} {:>12} {:>7}",
            row.operation,
            row.cost,
            row.faults,
            number(row.lines_flushed),
            number(row.journal_lines),
            number(row.fences)
        );
    }
}
