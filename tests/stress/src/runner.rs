// SPDX-License-Identifier: GPL-2.0

//! Runs a group of tests: forks the processes, watches them, verifies what they leave.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdax_test_sys::{faults, fork, Child, End, Whose};
use rustix::process::{set_parent_process_death_signal, Signal};

use crate::counters::Counters;
use crate::ledger::Log;
use crate::manifest;
use crate::report::{Outcome, Row};
use crate::test::{remove, Config, Run, Setup, Skip, Test, Worker};

/// Tests that run at the same time.
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// The tests.
    pub tests: Vec<&'static Test>,
}

/// When time is up and no operation has ended for so long, a process still at work counts as hung.
const GRACE: Duration = Duration::from_secs(120);

/// Runs `group` for `time` and says how it went. An error is one of this program, not of the file
/// system under test.
pub fn run(
    config: &Config,
    group: &Group,
    (procs, threads): (u32, u32),
    time: Duration,
    next_id: &mut u32,
) -> Result<Row> {
    let start = Instant::now();
    let counters = Counters::find(&config.dir)?;
    let read = || -> Result<[Option<u64>; 2]> {
        Ok([
            counters.read("pages_written_back")?,
            counters.read("lines_flushed")?,
        ])
    };
    let (before, faults_before) = (read()?, faults(Whose::Children));
    let mut row = Row::new(group.name);
    match run_tests(config, group, (procs, threads), time, next_id, &mut row) {
        Ok(()) => (),
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(reason) => row.outcome = Outcome::Skipped(reason.to_string()),
            None => row.fail(format!("{error:#}")),
        },
    }
    let delta = |now: Option<u64>, then: Option<u64>| Some(now? - then?);
    let after = read()?;
    row.faults = faults(Whose::Children) - faults_before;
    row.pages = delta(after[0], before[0]);
    row.lines = delta(after[1], before[1]);
    row.time = start.elapsed();
    row.say();
    Ok(row)
}

fn run_tests(
    config: &Config,
    group: &Group,
    (procs, threads): (u32, u32),
    time: Duration,
    next_id: &mut u32,
    row: &mut Row,
) -> Result<()> {
    let alone = group.tests.len() == 1;
    // Roles go by the parity of a worker's number, and some tests have four of them.
    let workers = if alone { (procs * threads).max(4) } else { 4 };
    let mut runs = Vec::new();
    for &test in &group.tests {
        let label = if alone {
            test.name.into()
        } else {
            format!("{}.{}", group.name, test.name)
        };
        let run = Setup::new(config, test, label, workers, next_id)?
            .build()
            .with_context(|| format!("setup of {}", test.name))?;
        if let (Some(ledger), true) = (&config.ledger, test.keep) {
            manifest::add(ledger, &config.dir, &run)?;
        }
        runs.push(run);
    }
    let deadline = Instant::now() + time;
    let mut children = Vec::new();
    for process in 0..procs {
        let child = fork(|| {
            // Without it, who kills the program has the children to kill, too.
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            i32::from(!work(config, &runs, process, procs, deadline))
        })?;
        children.push((child, process));
    }
    let held = watch(row, &runs, children, deadline)?;
    row.ops = runs.iter().map(|run| run.ops.load(Relaxed)).sum();
    let result = match held {
        true => runs.iter().try_for_each(|run| rest(config, run)),
        false => {
            row.fail(String::new());
            Ok(())
        }
    };
    // What failed stays to be looked at, unless it fills the volume.
    let failed = !held || result.is_err();
    let stays = |run: &&Run| run.test.keep && (failed || config.ledger.is_some());
    for run in runs.iter().filter(|run| !stays(run)) {
        remove(&run.dir)?;
    }
    result
}

/// What is left to do for a run whose workers have ended well.
fn rest(config: &Config, run: &Run) -> Result<()> {
    let rest = || -> Result<()> {
        (run.test.finish)(run)?;
        if run.test.keep {
            run.verify(&Log::open(
                config.ledger.as_deref(),
                &format!("{}.end", run.label),
            )?)?;
        }
        Ok(())
    };
    rest().with_context(|| format!("{} at rest", run.label))
}

/// What one process does: the workers of every run whose number modulo `procs` is its own, a
/// thread each. Says what went wrong; true if nothing did.
fn work(config: &Config, runs: &[Run], process: u32, procs: u32, deadline: Instant) -> bool {
    let one = |run: &Run, index: u32| -> Result<()> {
        let mut worker = Worker::new(run, index, config.ledger.as_deref(), deadline)?;
        (run.test.run)(&mut worker)
    };
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for run in runs {
            for index in (0..run.workers).filter(|index| index % procs == process) {
                threads.push(scope.spawn(move || match one(run, index) {
                    Ok(()) => true,
                    Err(error) => {
                        run.failed.store(1, Relaxed);
                        // One write, so that lines of several processes stay whole.
                        let line = format!(
                            "{} worker {index} (seed {}): {error:#}\n",
                            run.label, run.seed
                        );
                        // Nobody is left to tell if this fails.
                        let _ = std::io::stderr().write_all(line.as_bytes());
                        false
                    }
                }));
            }
        }
        threads
            .into_iter()
            .all(|thread| thread.join().unwrap_or(false))
    })
}

/// Waits for the processes and shows how far they are. True if all ended well.
fn watch(
    row: &mut Row,
    runs: &[Run],
    mut children: Vec<(Child, u32)>,
    deadline: Instant,
) -> Result<bool> {
    let start = Instant::now();
    let terminal = std::io::stdout().is_terminal();
    let every = if terminal {
        Duration::from_millis(500)
    } else {
        Duration::from_secs(5)
    };
    let (mut shown, mut moved) = (start, start);
    let (mut ops, mut held) = (0, true);
    while !children.is_empty() {
        std::thread::sleep(Duration::from_millis(20));
        let now: u64 = runs.iter().map(|run| run.ops.load(Relaxed)).sum();
        if now != ops {
            (ops, moved) = (now, Instant::now());
        }
        let mut running = Vec::new();
        for (child, process) in children {
            match child.try_wait()? {
                None => running.push((child, process)),
                Some(End::Exit(0)) => (),
                Some(End::Exit(1)) => held = false,
                Some(end) => {
                    held = false;
                    eprintln!("{}: process {process} ended with {end:?}", row.name);
                }
            }
        }
        children = running;
        if !held {
            runs.iter().for_each(|run| run.failed.store(1, Relaxed));
        }
        if shown.elapsed() >= every {
            shown = Instant::now();
            crate::report::progress(row.name, start.elapsed(), deadline - start, ops, terminal);
        }
        if Instant::now() > moved.max(deadline) + GRACE {
            for (child, process) in &children {
                eprintln!(
                    "{}: HANG process {process}, no operation for {} s",
                    row.name,
                    GRACE.as_secs()
                );
                crate::report::stacks(child.pid());
                child.kill()?;
            }
            return Ok(false);
        }
    }
    Ok(held)
}
