// SPDX-License-Identifier: GPL-2.0

//! Counts what happens between two moments, and keeps the rows of the table.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

/// What one operation costs, on average over a round of many.
#[derive(Clone)]
pub struct Row {
    /// The operation.
    pub operation: &'static str,
    /// Nanoseconds: instructions under icount.
    pub cost: f64,
    /// Page faults.
    pub faults: f64,
    /// Cache lines that sync calls wrote back; `None` where nobody counts them.
    pub lines_flushed: Option<f64>,
    /// Cache lines of metadata written back.
    pub journal_lines: Option<f64>,
    /// Fences.
    pub fences: Option<f64>,
}

/// Measures rows.
pub struct Meter {
    counters: Option<PathBuf>,
    rows: Vec<Row>,
}

/// What has been counted at one moment.
struct Moment {
    time: Instant,
    faults: u64,
    counters: [Option<u64>; 3],
}

const COUNTERS: [&str; 3] = ["lines_flushed", "journal_lines", "fences"];

impl Meter {
    /// A meter for the file system that holds `dir`.
    pub fn new(dir: &Path) -> Result<Meter> {
        let device = fs::metadata(dir)?.dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let counters = fs::read_link(format!("/sys/dev/block/{major}:{minor}"))
            .ok()
            .and_then(|link| Some(Path::new("/sys/fs/rdax").join(link.file_name()?)))
            .filter(|dir| dir.is_dir());
        let rows = Vec::new();
        Ok(Meter { counters, rows })
    }

    /// All rows so far.
    pub fn rows(&self) -> &[Row] {
        &self.rows
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

    /// Runs `round`, which does `ops` operations, and notes the cost of one as a row `operation`;
    /// if there is one already, the cheaper of the two stays.
    pub fn round(
        &mut self,
        operation: &'static str,
        ops: u64,
        round: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let start = self.moment(true)?;
        round().context(operation)?;
        let end = self.moment(false)?;
        let each = |count: u64| count as f64 / ops as f64;
        let counted = |index: usize| Some(each(end.counters[index]? - start.counters[index]?));
        let row = Row {
            operation,
            cost: each((end.time - start.time).as_nanos() as u64),
            faults: each(end.faults - start.faults),
            lines_flushed: counted(0),
            journal_lines: counted(1),
            fences: counted(2),
        };
        match self.rows.iter_mut().find(|old| old.operation == operation) {
            Some(old) if old.cost <= row.cost => (),
            Some(old) => *old = row,
            None => self.rows.push(row),
        }
        Ok(())
    }

    /// Warms up, then measures `ops` times `op`, which gets a number that is new each time. There
    /// have to be enough for what happens only now and then, as a new mtime at a tick of the clock.
    pub fn repeat(
        &mut self,
        operation: &'static str,
        ops: u64,
        mut op: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let warm = ops / 4;
        (0..warm).try_for_each(&mut op).context(operation)?;
        self.round(operation, ops, || (warm..warm + ops).try_for_each(&mut op))
    }
}

/// Page faults of this process.
fn faults() -> u64 {
    // SAFETY: an all-zero rusage is valid and is filled in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    (usage.ru_minflt + usage.ru_majflt) as u64
}
