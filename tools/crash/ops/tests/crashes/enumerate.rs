// SPDX-License-Identifier: GPL-2.0

//! Every workload that needs no kernel, on the volume in a simulated memory, cut off at each fence
//! with subsets of what was not durable yet: after recovery the oracle has to agree, also if
//! recovery is cut off, too. RDAX_CRASH_STATES is the number of states tried for each fence,
//! RDAX_CRASH_SEEDS the number of workloads of each random kind.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;

use rdax_crash_ops::{names, workload, Oracle, Workload};
use rdax_volume::sim::{Bounds, Image};

use crate::explore::{grow, record, tell, verdict};
use crate::host::empty;

/// One in this many states has its recovery cut off.
const SAMPLE: u64 = 50;
/// Seeds of each kind of random workload.
const RANDOM: u64 = 30;

/// The number that the environment gives as `name`, or else `default`.
fn wanted(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |n| n.parse().expect("a number"))
}

/// What was looked at.
#[derive(Default)]
struct Counts {
    workloads: AtomicU64,
    states: AtomicU64,
    recoveries: AtomicU64,
}

/// Cuts the workload off at each fence after the first `from` operations.
fn explore(image: &Image, workload: &Workload, from: usize, bounds: Bounds, counts: &Counts) {
    let oracle = Oracle::new(workload);
    let mut states = 0;
    // Not the same ones of each workload.
    let turn: u64 = workload.name.bytes().map(u64::from).sum();
    record(image, workload, |_, _| {}).for_each_crash(bounds, |crash| {
        let finished = workload.setup + crash.marks.len();
        if finished < from {
            return;
        }
        states += 1;
        let sampled = (states + turn) % SAMPLE == 0;
        if sampled {
            crash.sim.record();
        }
        let name = &workload.name;
        let seen = verdict(&oracle, workload, &crash.sim, finished)
            .unwrap_or_else(|found| panic!("{name}\n{workload}{crash}\n{found:#?}"));
        if sampled {
            let trace = crash.sim.take_trace();
            let few = Bounds {
                per_fence: 4,
                seed: states,
            };
            trace.for_each_crash(few, |again| {
                let cut = verdict(&oracle, workload, &again.sim, finished);
                let same = cut.as_ref() == Ok(&seen);
                assert!(
                    same,
                    "{name}\n{workload}{crash}, then {again}\n{cut:#?}, not {seen:#?}"
                );
                counts.recoveries.fetch_add(1, Relaxed);
            });
            assert_eq!(grow(&crash.sim), Ok(()), "{name}\n{workload}{crash}");
        }
    });
    counts.workloads.fetch_add(1, Relaxed);
    counts.states.fetch_add(states, Relaxed);
}

/// Explores the workloads of these names, on all processors.
fn explore_all(what: &str, choose: impl Fn(&str) -> bool, last_only: bool, per_fence: u64) {
    let names: Vec<String> = names().into_iter().filter(|name| choose(name)).collect();
    let per_fence = wanted("RDAX_CRASH_STATES", per_fence);
    let random_seeds = wanted("RDAX_CRASH_SEEDS", RANDOM);
    let image = empty();
    let counts = Counts::default();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Relaxed)) {
                    let seeds = match name.starts_with("random:") {
                        true => random_seeds,
                        false => 1,
                    };
                    for seed in 0..seeds {
                        let workload = workload(name, seed).expect("a workload");
                        if workload.is_mapped() {
                            continue;
                        }
                        let last = workload.ops.len() - 1;
                        let from = if last_only { last } else { 0 };
                        explore(&image, &workload, from, Bounds { per_fence, seed }, &counts);
                    }
                }
            });
        }
    });
    let [workloads, states, recoveries] =
        [&counts.workloads, &counts.states, &counts.recoveries].map(|n| n.load(Relaxed));
    tell(&format!(
        "{what}: {states} states of {workloads} workloads, {recoveries} cuts of recoveries"
    ));
    assert!(states > 10 * workloads && workloads > 0);
}

#[test]
fn single_operations() {
    explore_all("one operation", |name| name.starts_with("ace1:"), false, 40);
}

/// Every sequence, cut off in its last operation: the others end a sequence of their own.
#[test]
fn pairs_of_operations() {
    explore_all("two operations", |name| name.starts_with("ace2:"), true, 4);
}

#[test]
fn writes_and_random_sequences() {
    let choose = |name: &str| name.starts_with("data:") || name.starts_with("random:");
    explore_all("writes and random ones", choose, false, 6);
}
