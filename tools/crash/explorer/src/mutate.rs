// SPDX-License-Identifier: GPL-2.0

//! Whether bugs are found: the module is built with one at a time, and explored.

use std::fs;
use std::process::Command;

use anyhow::{ensure, Context, Result};
use serde::Serialize;

use crate::run::explore_all;
use crate::{Mutate, Run};

/// The result for one bug.
#[derive(Serialize)]
struct Outcome {
    mutation: String,
    /// The workload that showed it, and what the oracle said first. Nothing if none did.
    caught: Option<(String, String)>,
    /// Workloads that could not be run with it.
    failed: usize,
    states: usize,
    seconds: f64,
}

impl Outcome {
    /// Of a mistake that could not be built or run.
    fn untried(mutation: String) -> Self {
        Outcome {
            mutation,
            caught: None,
            failed: 0,
            states: 0,
            seconds: 0.0,
        }
    }
}

/// The names that are meant: those given, or all that the module has.
fn names(args: &Mutate) -> Result<Vec<String>> {
    let mut list = Command::new(args.run.top.join("scripts/mutations"));
    if args.mutation != ["all"] {
        list.args(&args.mutation);
    }
    let list = list.output().context("scripts/mutations")?;
    let said = String::from_utf8_lossy(&list.stderr).into_owned();
    ensure!(list.status.success(), "{}", said.trim_end());
    if args.mutation != ["all"] {
        return Ok(args.mutation.clone());
    }
    let names = String::from_utf8_lossy(&list.stdout).into_owned();
    Ok(names.lines().map(str::to_owned).collect())
}

/// Builds the module with the mistake `name`, and explores it until that is found.
fn one(args: &Mutate, name: &str) -> Result<Outcome> {
    let top = &args.run.top;
    let build = Command::new("make")
        .args(["module", &format!("MUTATE={name}")])
        .current_dir(top)
        .output()
        .context("make")?;
    let said = String::from_utf8_lossy(&build.stderr).into_owned();
    ensure!(build.status.success(), "make module MUTATE={name}: {said}");
    let run = Run {
        module: Some(top.join("build/mutants").join(name).join("rdax.ko")),
        until_found: true,
        kernel_every: 0,
        out: args.run.out.join("mutants").join(name),
        ..args.run.clone()
    };
    let report = explore_all(&run)?;
    let found = report.workloads.iter().find_map(|line| {
        let violation = line.violations.first()?;
        Some((line.name.clone(), violation.kind.clone()))
    });
    Ok(Outcome {
        mutation: name.to_owned(),
        caught: found,
        failed: report
            .workloads
            .iter()
            .filter(|line| line.failed.is_some())
            .count(),
        states: report.states(),
        seconds: report.seconds,
    })
}

/// Tries the mistakes and says of each whether it was found. False if one was not.
pub fn mutate(args: &Mutate) -> Result<bool> {
    let mut outcomes = Vec::new();
    for name in names(args)? {
        // An error with one is no reason not to try the others.
        let outcome = match one(args, &name) {
            Ok(outcome) => outcome,
            Err(e) => {
                println!("FAIL {name}: not tried: {e:#}");
                outcomes.push(Outcome::untried(name));
                continue;
            }
        };
        let (states, seconds) = (outcome.states, outcome.seconds);
        match &outcome.caught {
            Some((workload, kind)) => {
                println!("ok {name}: {kind}, in {workload}; {states} states, {seconds:.0} s")
            }
            None => println!(
                "FAIL {name}: not found; {states} states, {seconds:.0} s, {} workloads failed",
                outcome.failed
            ),
        }
        outcomes.push(outcome);
    }
    fs::write(
        args.run.out.join("mutations.json"),
        serde_json::to_vec_pretty(&outcomes)?,
    )?;
    let caught = outcomes
        .iter()
        .filter(|outcome| outcome.caught.is_some())
        .count();
    let states: usize = outcomes.iter().map(|outcome| outcome.states).sum();
    println!("{} mutations, {states} states", outcomes.len());
    println!("{caught} passed, {} failed", outcomes.len() - caught);
    Ok(caught == outcomes.len())
}
