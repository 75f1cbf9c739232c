// SPDX-License-Identifier: GPL-2.0

//! What a run has found, for files and for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::explore::{Explored, Found};
use crate::names::Names;
use crate::subject::Subject;
use crate::vm::{FileSystem, Recording};
use crate::walk::Moment;

/// A whole run.
#[derive(Serialize, Deserialize)]
pub struct Report {
    pub fs: FileSystem,
    pub seed: u64,
    pub per_point: usize,
    /// Where the device begins and ends on the NVDIMM, in bytes.
    pub device: (u64, u64),
    pub seconds: f64,
    /// Workloads that were asked for and did not get their turn.
    pub not_reached: usize,
    pub workloads: Vec<Line>,
}

/// One workload.
#[derive(Serialize, Deserialize)]
pub struct Line {
    pub name: String,
    pub seed: u64,
    pub operations: usize,
    /// What the recording has.
    pub events: usize,
    /// Why there is no result.
    pub failed: Option<String>,
    /// How long the VM took; and the processor time of the check.
    pub vm_seconds: f64,
    pub check_seconds: f64,
    pub states: usize,
    /// One of the states was recovered by the kernel as well, and found good.
    pub kernel: bool,
    pub points: Vec<PointLine>,
    pub violations: Vec<Violation>,
}

/// One moment at which crashes were tried.
#[derive(Serialize, Deserialize)]
pub struct PointLine {
    pub fences: usize,
    /// The operation that was under way or, if none was, that comes next.
    pub operation: String,
    pub open: usize,
    pub states: usize,
    pub violations: usize,
}

/// One state that may not be.
#[derive(Serialize, Deserialize)]
pub struct Violation {
    pub point: usize,
    pub state: usize,
    /// When the crash was.
    pub when: String,
    /// What the oracle says.
    pub what: Vec<String>,
    /// The kind that the oracle says first.
    pub kind: String,
    /// The lines that lacked stores.
    pub missing: Vec<String>,
}

/// In words: when the crash of `point` was.
fn when(subject: &Subject, moment: &Moment) -> String {
    let op = |n: usize| {
        subject
            .ops
            .get(n)
            .map_or("the end".to_owned(), |op| format!("{n} {op}"))
    };
    match (moment.in_flight, moment.finished) {
        (true, n) => format!("during operation {}, after {} fences", op(n), moment.fences),
        (false, 0) => format!("before operation {}", op(0)),
        (false, n) => format!("after operation {} had returned", op(n - 1)),
    }
}

fn violation(subject: &Subject, explored: &Explored, found: &Found) -> Violation {
    let names = Names::new(&found.whole);
    let missing = found.missing.iter().map(|(at, contents, pick)| {
        let name = names.line(*at);
        format!("{name}: has {pick} of {} changes", contents - 1)
    });
    Violation {
        point: found.point,
        state: found.state,
        when: when(subject, &explored.points[found.point].moment),
        what: found.violations.iter().map(ToString::to_string).collect(),
        kind: found
            .violations
            .first()
            .map_or("none", |v| v.kind.name())
            .to_owned(),
        missing: missing.collect(),
    }
}

impl Line {
    /// Of a workload that could not be run or recorded.
    pub fn failed(subject: &Subject, why: String) -> Self {
        Line {
            name: subject.name.clone(),
            seed: subject.seed,
            operations: subject.ops.len(),
            events: 0,
            failed: Some(why),
            vm_seconds: 0.0,
            check_seconds: 0.0,
            states: 0,
            kernel: false,
            points: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Of one that was explored.
    pub fn new(subject: &Subject, run: &Recording, explored: &Explored, seconds: f64) -> Self {
        let points = explored.points.iter().map(|point| PointLine {
            fences: point.moment.fences,
            operation: when(subject, &point.moment),
            open: point.open,
            states: point.states,
            violations: point.violations,
        });
        Line {
            events: run.trace.events.len(),
            failed: None,
            vm_seconds: run.took.as_secs_f64(),
            check_seconds: seconds,
            states: explored.points.iter().map(|point| point.states).sum(),
            points: points.collect(),
            violations: explored
                .found
                .iter()
                .map(|f| violation(subject, explored, f))
                .collect(),
            ..Line::failed(subject, String::new())
        }
    }

    /// Whether all is as it should be.
    pub fn is_good(&self) -> bool {
        self.failed.is_none() && self.violations.is_empty()
    }

    /// What is wrong, with what it takes to see it again; nothing if all is well.
    pub fn trouble(&self, fs: FileSystem) -> String {
        let mut text = String::new();
        if let Some(why) = &self.failed {
            let _ = writeln!(text, "FAIL {} (seed {}): {why}", self.name, self.seed);
        }
        for v in &self.violations {
            let _ = writeln!(
                text,
                "VIOLATION {} (seed {}): a crash {}",
                self.name, self.seed, v.when
            );
            for what in v.what.iter().take(8) {
                let _ = writeln!(text, "    {what}");
            }
            if v.missing.is_empty() {
                let _ = writeln!(text, "  though every store had reached the media");
            } else {
                let _ = writeln!(text, "  with these lines not as they were last:");
            }
            for line in v.missing.iter().take(16) {
                let _ = writeln!(text, "    {line}");
            }
            if v.missing.len() > 16 {
                let _ = writeln!(text, "    and {} more", v.missing.len() - 16);
            }
            let (name, seed) = (&self.name, self.seed);
            let anew = match fs {
                FileSystem::Rdax => {
                    let again = format!("'{name}' {seed} {} {}", v.point, v.state);
                    let _ = writeln!(text, "  again: build/bin/rdax-crash replay {again}");
                    String::new()
                }
                other => format!(" CRASH_FS={}", other.name()),
            };
            let _ = writeln!(
                text,
                "  anew: make crash WORKLOAD='{name}' SEED={seed}{anew}"
            );
        }
        text
    }
}

/// Of a group of workloads, or of all.
#[derive(Default)]
struct Sum {
    workloads: usize,
    points: usize,
    states: usize,
    bad: usize,
    vm: f64,
    check: f64,
}

impl Sum {
    fn add(&mut self, line: &Line) {
        self.workloads += 1;
        self.points += line.points.len();
        self.states += line.states;
        self.bad += usize::from(!line.is_good());
        self.vm += line.vm_seconds;
        self.check += line.check_seconds;
    }
}

impl Report {
    /// States in all.
    pub fn states(&self) -> usize {
        self.workloads.iter().map(|line| line.states).sum()
    }

    /// Whether no workload failed, none was violated, and something was checked.
    pub fn is_good(&self) -> bool {
        self.states() > 0 && self.workloads.iter().all(Line::is_good)
    }

    /// A table by groups of workloads, the sum, and the workloads without and with violations.
    pub fn summary(&self) -> String {
        let mut groups = BTreeMap::<&str, Sum>::new();
        let mut all = Sum::default();
        for line in &self.workloads {
            let group = line.name.split(':').next().unwrap_or_default();
            groups.entry(group).or_default().add(line);
            all.add(line);
        }
        let mut text =
            String::from("group     workloads  points   states  bad  VM s  states/s/core\n");
        for (group, sum) in &groups {
            let _ = writeln!(
                text,
                "{group:<10}{:>9}{:>8}{:>9}{:>5}{:>6.1}{:>15.0}",
                sum.workloads,
                sum.points,
                sum.states,
                sum.bad,
                sum.vm / sum.workloads as f64,
                sum.states as f64 / sum.check.max(1e-9),
            );
        }
        let _ = write!(
            text,
            "{}: {} states of {} workloads in {:.0} s, seed {}; {} states by the kernel{}\n\
             {} passed, {} failed",
            self.fs.name(),
            all.states,
            all.workloads,
            self.seconds,
            self.seed,
            match self.fs {
                FileSystem::Rdax => self.workloads.iter().filter(|line| line.kernel).count(),
                _ => all.states,
            },
            match self.not_reached {
                0 => String::new(),
                n => format!("; no time for {n} workloads"),
            },
            all.workloads - all.bad,
            all.bad
        );
        text
    }
}
