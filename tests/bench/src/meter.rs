// SPDX-License-Identifier: GPL-2.0

//! Counts what happens between two moments, and keeps the rows of the table.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use rdax_bench::{Row, MEASURED};
use rdax_test_sys::Whose;

/// Measures rows.
pub struct Meter {
    counters: Option<PathBuf>,
    progress: bool,
    rows: Vec<Row>,
}

/// What has been counted at one moment.
struct Moment {
    time: Instant,
    faults: u64,
    counters: [Option<u64>; 3],
}

/// What happened between two moments: nanoseconds, page faults, counters.
#[derive(Clone, Copy)]
struct Span {
    nanoseconds: f64,
    faults: f64,
    counters: [Option<f64>; 3],
}

const COUNTERS: [&str; 3] = ["lines_flushed", "journal_lines", "fences"];

impl Meter {
    /// A meter for the file system that holds `dir`. With `progress` it says on standard error
    /// what has been measured.
    pub fn new(dir: &Path, progress: bool) -> Result<Meter> {
        let device = fs::metadata(dir)?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let counters = fs::read_link(format!("/sys/dev/block/{major}:{minor}"))
            .ok()
            .and_then(|link| Some(Path::new("/sys/fs/rdax").join(link.file_name()?)))
            .filter(|dir| dir.is_dir());
        Ok(Meter {
            counters,
            progress,
            rows: Vec::new(),
        })
    }

    /// All rows.
    pub fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    fn counters(&self) -> Result<[Option<u64>; 3]> {
        let mut values = [None; 3];
        let Some(dir) = &self.counters else {
            return Ok(values);
        };
        for (value, name) in values.iter_mut().zip(COUNTERS) {
            let path = dir.join(name);
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            *value = Some(text.trim().parse()?);
        }
        Ok(values)
    }

    fn moment(&self, before: bool) -> Result<Moment> {
        // The clock is read next to what it measures.
        if before {
            let (counters, faults) = (self.counters()?, faults());
            return Ok(Moment {
                time: Instant::now(),
                faults,
                counters,
            });
        }
        let time = Instant::now();
        Ok(Moment {
            time,
            faults: faults(),
            counters: self.counters()?,
        })
    }

    fn span(&self, work: impl FnOnce() -> Result<()>) -> Result<Span> {
        let start = self.moment(true)?;
        work()?;
        let end = self.moment(false)?;
        let counted = |index: usize| Some((end.counters[index]? - start.counters[index]?) as f64);
        Ok(Span {
            nanoseconds: (end.time - start.time).as_nanos() as f64,
            faults: (end.faults - start.faults) as f64,
            counters: [counted(0), counted(1), counted(2)],
        })
    }

    /// Notes that `ops` times `operation` took `span`; if there is such a row already, the cheaper
    /// of the two stays.
    fn note(&mut self, operation: &str, ops: u64, span: Span) {
        let each = |count: f64| count / ops as f64;
        let row = Row {
            operation: operation.into(),
            cost: each(span.nanoseconds),
            faults: each(span.faults),
            lines_flushed: span.counters[0].map(each),
            journal_lines: span.counters[1].map(each),
            fences: span.counters[2].map(each),
        };
        match self.rows.iter_mut().find(|old| old.operation == operation) {
            Some(old) if old.cost <= row.cost => (),
            Some(old) => *old = row,
            None => {
                self.rows.push(row);
                if self.progress {
                    eprintln!("{MEASURED}{operation}");
                }
            }
        }
    }

    /// Runs `round`, which does `ops` operations, and notes the cost of one as a row `operation`;
    /// if there is one already, the cheaper of the two stays.
    pub fn round(
        &mut self,
        operation: &str,
        ops: u64,
        round: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let span = self.span(round).with_context(|| String::from(operation))?;
        self.note(operation, ops, span);
        Ok(())
    }

    /// Notes what `work`, one `operation`, takes, without the counters, which a mount starts anew;
    /// of several, the cheapest stays.
    pub fn time(&mut self, operation: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let (start, before) = (Instant::now(), faults());
        work()?;
        let span = Span {
            nanoseconds: start.elapsed().as_nanos() as f64,
            faults: (faults() - before) as f64,
            counters: [None; 3],
        };
        self.note(operation, 1, span);
        Ok(())
    }

    /// Warms up, then measures `ops` times `op`, which gets a number that is new each time. There
    /// have to be enough for what happens only now and then, as a new mtime at a tick of the clock.
    pub fn repeat(
        &mut self,
        operation: &str,
        ops: u64,
        mut op: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let warm = ops / 4;
        (0..warm)
            .try_for_each(&mut op)
            .with_context(|| String::from(operation))?;
        self.round(operation, ops, || (warm..warm + ops).try_for_each(&mut op))
    }

    /// Measures a program, from its start to its end: `command` makes one that does the given
    /// number of operations. The difference between few and many is recorded.
    pub fn program(
        &mut self,
        operation: &str,
        few: u64,
        many: u64,
        mut command: impl FnMut(u64) -> Result<Command>,
    ) -> Result<()> {
        let mut span = |ops| {
            let mut command = command(ops)?;
            self.span(|| {
                let output = command.output()?;
                let errors = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "{}", errors.trim());
                Ok(())
            })
        };
        let small = span(few).with_context(|| String::from(operation))?;
        let large = span(many).with_context(|| String::from(operation))?;
        let counted = |index: usize| Some(large.counters[index]? - small.counters[index]?);
        let span = Span {
            nanoseconds: large.nanoseconds - small.nanoseconds,
            // Those at start and end are not always the same.
            faults: (large.faults - small.faults).max(0.0),
            counters: [counted(0), counted(1), counted(2)],
        };
        self.note(operation, many - few, span);
        Ok(())
    }
}

/// Page faults of this process and of the children it has waited for.
fn faults() -> u64 {
    rdax_test_sys::faults(Whose::Own) + rdax_test_sys::faults(Whose::Children)
}
