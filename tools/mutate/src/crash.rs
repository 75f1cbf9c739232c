// SPDX-License-Identifier: GPL-2.0

//! Crash exploration with a mistake each, bounded: rdax-crash does it, in one machine for all.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use serde::Deserialize;

use crate::make::Places;
use crate::mutation::Mutation;
use crate::results::{Layer, Results, Verdict};

/// The workloads that are explored of each: mapped files, written ones, and one operation on names.
const WORKLOADS: [&str; 4] = ["mmap:*", "data:*", "random:*", "ace1:*"];
/// States at each point: far fewer than where nothing is known to be wrong.
const PER_POINT: &str = "20";
/// Of one mutation.
const BUDGET: &str = "60s";
/// Mutations for which a machine is booted together.
const TOGETHER: usize = 50;

/// What rdax-crash says of one.
#[derive(Deserialize)]
struct Outcome {
    switch: u32,
    caught: Option<(String, String)>,
    workloads: usize,
}

/// Runs the layer for `mutations`.
pub fn layer(
    places: &Places,
    mutations: &[&Mutation],
    results: &mut Results,
    end: Instant,
) -> Result<()> {
    for some in mutations.chunks(TOGETHER) {
        let mut command = Command::new(places.top.join("build/bin/rdax-crash"));
        command
            .arg("switches")
            .args(some.iter().map(|m| m.id.to_string()));
        command.arg("--module").arg(places.module().join("rdax.ko"));
        command
            .arg("--top")
            .arg(&places.top)
            .arg("--out")
            .arg(places.out.join("crash"));
        command.args(["--per-point", PER_POINT, "--budget", BUDGET]);
        for workload in WORKLOADS {
            command.args(["--workload", workload]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = child.stdout.take().context("rdax-crash has no output")?;
        for line in BufReader::new(said).lines() {
            let outcome: Outcome = serde_json::from_str(&line?)?;
            let Some(mutation) = some.iter().find(|m| m.id == outcome.switch) else {
                continue;
            };
            match &outcome.caught {
                Some((workload, _)) => println!("caught by {workload}: {}", mutation.describe()),
                None => println!("survives {}: {}", outcome.workloads, mutation.describe()),
            }
            let verdict = Verdict {
                caught: outcome.caught,
                reaching: outcome.workloads,
                run: outcome.workloads,
            };
            results.put(&mutation.key, Layer::Crash, verdict)?;
            results.save()?;
            if Instant::now() > end {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(());
            }
        }
        let status = child.wait()?;
        ensure!(status.success(), "rdax-crash switches: {status}");
    }
    Ok(())
}
