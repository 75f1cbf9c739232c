// SPDX-License-Identifier: GPL-2.0

//! Compares file systems: boots one VM for each, lets rdax-bench measure there, and sets the rows
//! side by side with the aims of rdax, as a table, as JSON and as a chart.

#![forbid(unsafe_code)]

mod aims;
mod chart;
mod compare;
mod survey;
mod table;
mod vm;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use rdax_bench::Results;
use serde::Serialize;

use crate::compare::Line;
use crate::survey::Plan;
use crate::vm::Vm;

/// Counts the instructions that operations take on rdax, ext4-DAX, XFS-DAX and tmpfs, each in a VM
/// of its own, and compares them with one another and with the aims of rdax.
///
/// Exit status: 0 if all was measured, whether the aims are reached or not; 1 if something could
/// not be measured (the table shows the rest); 2 for a bad option.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// File systems to measure, separated by spaces or commas
    #[arg(long, value_name = "LIST", default_value = "rdax ext4 xfs tmpfs", value_parser = list)]
    fs: List,
    /// Directory for bench.json, bench.svg and what each VM measured
    #[arg(long, value_name = "DIR", default_value = "build/bench")]
    out: PathBuf,
    /// Program that boots the VM
    #[arg(long, value_name = "FILE", default_value = "qemu/vm")]
    vm: PathBuf,
    /// Size of the file in the rows that speak of a large file; the VM gets twice as much memory
    #[arg(long, value_name = "MIB", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(1..1 << 20))]
    large: u64,
    /// Entries of the directory in the row that speaks of a large directory
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    names: u64,
    /// Look for workloads that are slower on rdax than on ext4 and XFS: this many random ones, or
    /// the named ones, instead
    #[arg(long, value_name = "N|WORKLOAD,...", value_parser = survey::plan)]
    survey: Option<Plan>,
    /// What the random workloads are drawn by
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Seconds that one VM may take
    #[arg(long, value_name = "S", default_value_t = 1800)]
    timeout: u64,
}

/// Names of file systems.
#[derive(Clone)]
struct List(Vec<&'static str>);

/// All that can be compared, in the order of the table.
const FILE_SYSTEMS: [&str; 4] = ["rdax", "ext4", "xfs", "tmpfs"];

fn list(text: &str) -> Result<List, String> {
    let words = || text.split([' ', ',']).filter(|word| !word.is_empty());
    if let Some(word) = words().find(|word| !FILE_SYSTEMS.contains(word)) {
        return Err(format!("{word} is not one of {}", FILE_SYSTEMS.join(", ")));
    }
    let chosen = FILE_SYSTEMS.into_iter();
    let chosen: Vec<_> = chosen
        .filter(|fs| words().any(|word| word == *fs))
        .collect();
    match chosen.is_empty() {
        true => Err("no file system".into()),
        false => Ok(List(chosen)),
    }
}

/// What bench.json holds.
#[derive(Serialize)]
struct Report<'a> {
    unit: &'static str,
    table: &'a [Line],
    measured: &'a [Results],
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rdax-bench-report: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True if all was measured.
fn run(args: &Args) -> Result<bool> {
    let aims = aims::read()?;
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let vm = Vm {
        program: &args.vm,
        out: &args.out,
        timeout: args.timeout,
    };
    if let Some(plan) = &args.survey {
        return survey::run(&vm, plan, args.seed, &args.fs.0);
    }
    let (mut measured, mut whole) = (Vec::new(), true);
    for (index, fs) in args.fs.0.iter().enumerate() {
        let place = format!("[{}/{}] {fs}", index + 1, args.fs.0.len());
        match vm.measure(fs, &place, args.large, args.names) {
            Ok(results) => measured.push(results),
            Err(error) => {
                eprintln!("rdax-bench-report: {fs}: {error:#}");
                whole = false;
            }
        }
    }
    anyhow::ensure!(!measured.is_empty(), "nothing was measured");
    let lines = compare::compare(&measured, &aims);
    whole &= lines.iter().all(|line| line.is_whole(&measured));
    print!("{}", table::table(&lines, &measured));
    let json = args.out.join("bench.json");
    let report = Report {
        unit: "instructions per operation",
        table: &lines,
        measured: &measured,
    };
    let text = serde_json::to_string_pretty(&report)? + "\n";
    fs::write(&json, text).with_context(|| json.display().to_string())?;
    let svg = args.out.join("bench.svg");
    chart::draw(&svg, &lines, &measured).with_context(|| svg.display().to_string())?;
    println!("{} {}", json.display(), svg.display());
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_file_systems() {
        assert_eq!(list("tmpfs,rdax").unwrap().0, ["rdax", "tmpfs"]);
        assert_eq!(list(" xfs  xfs ").unwrap().0, ["xfs"]);
        assert!(list("").is_err());
        assert!(list("rdax btrfs").is_err());
    }
}
