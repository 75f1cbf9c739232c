// SPDX-License-Identifier: GPL-2.0

//! Mistakes made on purpose, one at a time: each must be found, and is printed with what found it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rdax_crash_ops::{names, recover, workload, Oracle, Violation, Workload};
use rdax_volume::mutate::make_mistake;
use rdax_volume::sim::{Bounds, Crash, Image, Mistake, Sim, Trace};
use rdax_volume::volume::pmem::Pmem;

use crate::explore::{grow, record, tell, verdict};
use crate::host::empty;

const BOUNDS: Bounds = Bounds {
    per_fence: 30,
    seed: 3,
};

/// Operations of which every write-back and every fence matters; what follows them has nothing to
/// prepare, so that no fence of its own comes before its log.
const SWEPT: &[&str] = &[
    "ace2:creat-A.foo,chmod-foo-600",
    "ace2:mkdir-A,chmod-foo-600",
    "ace2:symlink-A.bar-1000,chmod-foo-600",
    "ace2:link-foo-A.bar,chmod-foo-600",
    "ace2:unlink-A.foo,chmod-foo-600",
    "ace2:rmdir-A.C,chmod-foo-600",
    "ace2:rename-A-B,chmod-foo-600",
    "ace2:replace-A.foo-B.bar,chmod-foo-600",
    "ace2:exchange-A.C-foo,chmod-foo-600",
    "ace2:write-foo-0+4096,chmod-foo-600",
    "ace2:write-foo-12188+50,chmod-foo-600",
    "ace2:truncate-foo-0,chmod-foo-600",
    "ace2:zero-foo-4000+5000,chmod-foo-600",
    "data:preallocated",
    "data:preallocated-append",
];

fn named(name: &str) -> Workload {
    workload(name, 1).unwrap_or_else(|| panic!("there is no {name}"))
}

/// The first thing that `judge` finds in the crashes of `trace`.
fn first<T>(trace: &Trace, judge: impl Fn(&Crash) -> Option<T>) -> Option<T> {
    let mut first = None;
    trace.for_each_crash(BOUNDS, |crash| {
        if first.is_none() {
            first = judge(crash);
        }
    });
    first
}

/// The first violation of the oracle in the crashes of `trace`.
fn found(workload: &Workload, trace: &Trace) -> Option<Violation> {
    let oracle = Oracle::new(workload);
    first(trace, |crash| {
        let finished = workload.setup + crash.marks.len();
        let found = verdict(&oracle, workload, &crash.sim, finished).err();
        found.and_then(|found| found.into_iter().next())
    })
}

/// The names of the mistakes that the volume can make, as in its source.
fn mistakes() -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../src/volume")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let text = fs::read_to_string(path).expect("text").leak();
            let calls = text.split("mutated!(\"").skip(1);
            names.extend(calls.filter_map(|rest| rest.split('"').next()));
        }
    }
    names
}

#[test]
fn each_named_mistake_is_found() {
    let image = empty();
    let names: Vec<String> = names()
        .into_iter()
        .filter(|name| !name.starts_with("ace2:") && !named(name).is_mapped())
        .chain(SWEPT.iter().map(|name| (*name).to_owned()))
        .collect();
    let mistakes = mistakes();
    assert!(mistakes.len() > 10, "{mistakes:?}");
    for mistake in mistakes {
        let caught = names.iter().find_map(|name| {
            let workload = named(name);
            let trace = record(&image, &workload, |_, _| make_mistake(Some(mistake)));
            make_mistake(None);
            let found = found(&workload, &trace).map(|violation| violation.to_string());
            found
                .or_else(|| {
                    first(&trace, |crash| {
                        make_mistake(Some(mistake));
                        let grown = grow(&crash.sim).err();
                        make_mistake(None);
                        grown
                    })
                })
                .map(|violation| (name, violation))
        });
        let (name, violation) = caught.unwrap_or_else(|| panic!("{mistake} is not found"));
        tell(&format!("{mistake:20} {name}: {violation}"));
    }
}

/// Makes `mistake` in the first operation of a workload; `None` if it has no place for it.
fn record_with(image: &Image, workload: &Workload, mistake: Mistake) -> Option<Trace> {
    let mut pending = false;
    let trace = record(image, workload, |sim, number| {
        if number == workload.setup {
            sim.inject(Some(mistake));
        } else {
            pending |= sim.mistake_pending();
            sim.inject(None);
        }
    });
    (!pending).then_some(trace)
}

/// Makes a mistake at each place in turn.
fn sweep(what: &str, make: fn(u64) -> Mistake) {
    let image = empty();
    let mut count = 0;
    for name in SWEPT {
        let workload = named(name);
        for n in 0.. {
            let Some(trace) = record_with(&image, &workload, make(n)) else {
                break;
            };
            let found = found(&workload, &trace);
            assert!(found.is_some(), "{name}: {:?} is not found", make(n));
            count += 1;
        }
    }
    tell(&format!("{count} {what}, each found"));
    assert!(count > SWEPT.len());
}

#[test]
fn each_fence_left_out_is_found() {
    sweep("fences left out", Mistake::Fence);
}

#[test]
fn each_write_back_left_out_is_found() {
    sweep("write-backs left out", Mistake::WriteBack);
}

/// What is stored before a fence exchanged with what is stored after it, up to the next one.
#[test]
fn each_swap_of_stores_is_found() {
    let image = empty();
    let mut count = 0;
    for name in SWEPT {
        let workload = named(name);
        let mut fences = 0;
        record(&image, &workload, |sim, number| {
            match number == workload.setup {
                true => sim.reset_stats(),
                false => fences = sim.stats().fences as usize,
            };
        });
        for n in 0..fences {
            let mut trace = record(&image, &workload, |_, _| {});
            trace.swap_around(n);
            let found = found(&workload, &trace);
            assert!(
                found.is_some(),
                "{name}: swapping around fence {n} is not found"
            );
            count += 1;
        }
    }
    tell(&format!("{count} swaps of stores, each found"));
    assert!(count > SWEPT.len());
}

/// What recovery leaves out is lost at the next crash: a line that it replays, or the fence before
/// the lane is retired.
#[test]
fn mistakes_in_recovery_are_found() {
    let image = empty();
    let workload = named(SWEPT[0]);
    let oracle = Oracle::new(&workload);
    let mut missed: Option<Vec<Mistake>> = None;
    record(&image, &workload, |_, _| {}).for_each_crash(BOUNDS, |crash| {
        let finished = workload.setup + crash.marks.len();
        let content = crash.sim.content();
        let volume = recover(&crash.sim).expect("recovers");
        if volume.notes().replayed == 0 {
            return;
        }
        // The last line retires the lane.
        let lines = crash.sim.stats().lines_written_back - 1;
        let missed = missed.get_or_insert_with(|| {
            let lines = (0..lines).map(Mistake::WriteBack);
            lines.chain([Mistake::Fence(0)]).collect()
        });
        missed.retain(|mistake| {
            let sim = Sim::from_image(crash.sim.len(), content.clone());
            sim.record();
            sim.inject(Some(*mistake));
            let recovered = recover(&sim).map(|_| ());
            assert_eq!(recovered, Ok(()));
            let again = first(&sim.take_trace(), |crash| {
                let found = verdict(&oracle, &workload, &crash.sim, finished).err();
                found.and_then(|found| found.into_iter().next())
            });
            again.is_none()
        });
    });
    assert_eq!(missed, Some(Vec::new()));
}
