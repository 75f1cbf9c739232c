// SPDX-License-Identifier: GPL-2.0

//! What the user sees: progress while it runs, a table at the end.

use std::fs;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::test::Config;

/// How a test ended.
pub enum Outcome {
    /// Everything held.
    Held,
    /// Something did not.
    Failed,
    /// It cannot run here, and why.
    Skipped(String),
}

/// One row of the table.
pub struct Row {
    /// The test.
    pub name: &'static str,
    /// Operations of its workers.
    pub ops: u64,
    /// Page faults of its processes.
    pub faults: u64,
    /// Pages written back meanwhile, if the file system counts them.
    pub pages: Option<u64>,
    /// Cache lines written back meanwhile, likewise.
    pub lines: Option<u64>,
    /// How long it took, verification included.
    pub time: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

impl Row {
    /// A row for `name` that held so far.
    pub fn new(name: &'static str) -> Row {
        let (pages, lines) = (None, None);
        Row {
            name,
            ops: 0,
            faults: 0,
            pages,
            lines,
            time: Duration::ZERO,
            outcome: Outcome::Held,
        }
    }

    /// Notes a failure and says why, if that was not said yet.
    pub fn fail(&mut self, why: String) {
        self.outcome = Outcome::Failed;
        if !why.is_empty() {
            eprintln!("{}: {why}", self.name);
        }
    }

    /// Says in a line how it ended.
    pub fn say(&self) {
        let clear = if std::io::stdout().is_terminal() {
            "\r\x1b[K"
        } else {
            ""
        };
        let result = self.result();
        println!(
            "{clear}{:<12} {result} after {:.1} s",
            self.name,
            self.time.as_secs_f64()
        );
    }

    fn result(&self) -> String {
        match &self.outcome {
            Outcome::Held => "ok".into(),
            Outcome::Failed => "FAIL".into(),
            Outcome::Skipped(why) => format!("skipped ({why})"),
        }
    }
}

/// Shows how far a test is.
pub fn progress(name: &str, elapsed: Duration, total: Duration, ops: u64, terminal: bool) {
    let (elapsed, total) = (elapsed.as_secs_f64(), total.as_secs_f64());
    let line = format!("{name:<12} {elapsed:>5.0} of {total:.0} s, {ops} operations");
    if terminal {
        print!("\r\x1b[K{line}");
    } else {
        println!("{line}");
    }
    // Progress that cannot be shown is no reason to stop.
    let _ = std::io::stdout().flush();
}

/// Prints where in the kernel the threads of a process are, as far as we may know.
pub fn stacks(pid: i32) {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return;
    };
    for thread in threads.flatten() {
        let stack = fs::read_to_string(thread.path().join("stack")).unwrap_or_default();
        eprintln!("  thread {}:", thread.file_name().to_string_lossy());
        stack.lines().for_each(|line| eprintln!("    {line}"));
    }
}

/// All rows.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds a row.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Whether no test failed.
    pub fn held(&self) -> bool {
        !self
            .rows
            .iter()
            .any(|row| matches!(row.outcome, Outcome::Failed))
    }

    /// Prints the table, and how to repeat what failed.
    pub fn print(&self, config: &Config) {
        println!();
        println!(
            "{:<12} {:>11} {:>11} {:>13} {:>13} {:>8}  result",
            "test", "operations", "faults", "pages written", "lines written", "seconds"
        );
        let count = |value: Option<u64>| value.map_or("-".into(), |value| value.to_string());
        for row in &self.rows {
            println!(
                "{:<12} {:>11} {:>11} {:>13} {:>13} {:>8.1}  {}",
                row.name,
                row.ops,
                row.faults,
                count(row.pages),
                count(row.lines),
                row.time.as_secs_f64(),
                row.result()
            );
        }
        let failed: Vec<&str> = self
            .rows
            .iter()
            .filter(|row| matches!(row.outcome, Outcome::Failed))
            .map(|row| row.name)
            .collect();
        if failed.is_empty() {
            println!("all tests held");
        } else {
            println!(
                "{} of {} tests FAILED; to repeat: --seed {} --only {}",
                failed.len(),
                self.rows.len(),
                config.seed,
                failed.join(",")
            );
        }
    }
}
