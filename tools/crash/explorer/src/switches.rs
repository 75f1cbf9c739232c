// SPDX-License-Identifier: GPL-2.0

//! Mutations that are switches at run time: one VM for all of them.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use crate::run::explore_on;
use crate::vm::Machine;
use crate::{Run, Switches};

/// What became of one mutation.
#[derive(Serialize)]
struct Outcome {
    switch: u32,
    /// The workload that showed it, and how.
    caught: Option<(String, String)>,
    workloads: usize,
    states: usize,
}

/// Tries each of the mutations with the workloads, until one finds it.
pub fn switches(args: &Switches) -> Result<()> {
    let run = Run {
        until_found: true,
        kernel_every: 0,
        ..args.run.clone()
    };
    let top = run.top.canonicalize()?;
    let machine = Machine::boot(&top, run.module.as_deref(), run.fs, true)?;
    for switch in &args.switch {
        let report = explore_on(&run, &machine, None, Some(*switch))?;
        let caught = report.workloads.iter().find_map(|line| {
            let violation = line.violations.first().map(|v| v.kind.clone());
            Some((line.name.clone(), violation.or(line.failed.clone())?))
        });
        let outcome = Outcome {
            switch: *switch,
            caught,
            workloads: report.workloads.len(),
            states: report.states(),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
        out.flush()?;
    }
    Ok(())
}
