// SPDX-License-Identifier: GPL-2.0

//! Measures what an operation costs on the file system that holds a directory: time, page faults,
//! and, where rdax counts them, cache lines written back and fences.
//!
//! Under `qemu/vm --icount` a nanosecond of the guest is an instruction, of the program and the
//! kernel together, and runs repeat closely: that is how file systems are to be compared. On other
//! machines the same column holds nanoseconds. Copies count once a byte under icount.

mod mapped;
mod meter;
mod names;
mod written;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::meter::{Meter, Row};

/// Measures what operations cost on the file system that holds DIR.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// Directory on the file system to measure; about 200 MiB must be free
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Also write the results to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
    let dir = args.dir.join("rdax-bench");
    fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
    let mut meter = Meter::new(&dir)?;
    let result = mapped::measure(&mut meter, &dir)
        .and_then(|()| written::measure(&mut meter, &dir))
        .and_then(|()| names::measure(&mut meter, &dir));
    fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    result?;
    let file_system = file_system(&args.dir)?;
    print(&file_system, meter.rows());
    if let Some(path) = &args.json {
        let json = json(&file_system, meter.rows());
        fs::write(path, json).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The type of the file system that holds `dir`, as mount calls it.
fn file_system(dir: &std::path::Path) -> Result<String> {
    let dir = fs::canonicalize(dir)?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let holds = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (target, kind) = (words.next()?, words.next()?);
        dir.starts_with(target)
            .then(|| (target.len(), kind.to_string()))
    };
    // The longest target; of several, the last mounted.
    let found = mounts.lines().filter_map(holds).max_by_key(|(len, _)| *len);
    Ok(found.context("no file system holds the directory")?.1)
}

fn print(file_system: &str, rows: &[Row]) {
    println!("{file_system}: per operation, instructions under icount, else nanoseconds");
    println!(
        "{:<40} {:>12} {:>8} {:>11} {:>12} {:>7}",
        "operation", "instructions", "faults", "lines, sync", "lines, meta", "fences"
    );
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    for row in rows {
        println!(
            "{:<40} {:>12.0} {:>8.3} {:>11} {:>12} {:>7}",
            row.operation,
            row.cost,
            row.faults,
            number(row.lines_flushed),
            number(row.journal_lines),
            number(row.fences)
        );
    }
}

fn json(file_system: &str, rows: &[Row]) -> String {
    let number = |value: Option<f64>| value.map_or("null".into(), |value| format!("{value:.4}"));
    let rows: Vec<String> = rows
        .iter()
        .map(|row| {
            format!(
                "    {{\"operation\": \"{}\", \"cost\": {:.1}, \"faults\": {:.4}, \
                 \"lines_flushed\": {}, \"journal_lines\": {}, \"fences\": {}}}",
                row.operation,
                row.cost,
                row.faults,
                number(row.lines_flushed),
                number(row.journal_lines),
                number(row.fences)
            )
        })
        .collect();
    format!(
        "{{\n  \"file_system\": \"{file_system}\",\n  \"rows\": [\n{}\n  ]\n}}\n",
        rows.join(",\n")
    )
}
