// SPDX-License-Identifier: GPL-2.0

//! What the two programs of this crate exchange: rdax-bench measures one file system and writes
//! [`Results`] as JSON, rdax-bench-report boots a VM for each file system and compares them.

#![forbid(unsafe_code)]

pub mod workload;

use serde::{Deserialize, Serialize};

/// What rdax-bench puts in front of an operation's name on standard error once it has measured it.
pub const MEASURED: &str = "measured: ";

/// What one operation costs, on average over many.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Row {
    /// The operation.
    pub operation: String,
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

/// The rows of one file system.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Results {
    /// Type of the file system, as mount calls it.
    pub file_system: String,
    /// MiB of the file in the rows that speak of a large file.
    pub large_mib: usize,
    /// Entries of the directory in the row that speaks of a large directory.
    pub names: u64,
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
}
