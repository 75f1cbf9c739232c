// SPDX-License-Identifier: GPL-2.0

//! A search for cliffs: draws workloads, measures each on all file systems, and simplifies those
//! that are more expensive on rdax than on the cheapest other one, or whose operations become more
//! expensive with their number.

use std::collections::HashSet;
use std::fs;

use anyhow::{ensure, Context, Result};
use rdax_bench::workload::{Cost, Workload};
use serde::Serialize;

use crate::vm::Vm;

/// Findings that are made simpler.
const FOUND: usize = 60;
/// Findings that are printed then.
const WORST: usize = 20;
/// Rounds of simplification: the number of dimensions of a workload of a file.
const ROUNDS: usize = 6;
/// What rdax may cost, as a multiple of the cheapest.
const MARGIN: f64 = 1.05;
/// What four times as many operations may take, each, in times of what few take.
const GROWTH: f64 = 1.5;
/// What is left of a finding that is made simpler is this much of it, at least.
const KEPT: f64 = 0.8;

/// Which workloads are measured.
#[derive(Clone)]
pub enum Plan {
    /// This many at random.
    Draw(usize),
    /// These.
    Named(Vec<Workload>),
}

/// Reads a plan: a number, or workloads with commas between them.
pub fn plan(text: &str) -> Result<Plan, String> {
    if let Ok(nr) = text.parse() {
        return match nr {
            1..=10_000 => Ok(Plan::Draw(nr)),
            _ => Err("not a number from 1 to 10000".into()),
        };
    }
    let words = text.split([' ', ',']).filter(|word| !word.is_empty());
    let all: Result<Vec<_>, _> = words.map(str::parse).collect();
    match all? {
        all if all.is_empty() => Err("neither a number nor a workload".into()),
        all => Ok(Plan::Named(all)),
    }
}

/// A workload on rdax, and on the best of the others.
#[derive(Clone, Serialize)]
struct Finding {
    workload: String,
    /// Instructions an operation on rdax: of few, of many.
    rdax: (f64, f64),
    /// The other file system that is cheapest for many, and its cost.
    best: String,
    best_cost: (f64, f64),
}

impl Finding {
    fn times(&self) -> f64 {
        self.rdax.1 / self.best_cost.1
    }

    fn growth(cost: (f64, f64)) -> f64 {
        cost.1 / cost.0
    }

    /// How much worse rdax is: 1 where it is as it should be.
    fn score(&self) -> f64 {
        let growth = Self::growth(self.rdax);
        let grows = match growth > GROWTH {
            true => growth / Self::growth(self.best_cost).max(1.0),
            false => 1.0,
        };
        self.times().max(grows)
    }

    fn is_worse(&self) -> bool {
        self.score() > MARGIN
    }
}

/// What was measured of some workloads.
struct Measured {
    findings: Vec<Finding>,
    /// What fails on rdax, and on another file system does not.
    failed: Vec<String>,
}

/// Surveys; true if all could be measured.
pub fn run(vm: &Vm<'_>, plan: &Plan, seed: u64, file_systems: &[&str]) -> Result<bool> {
    let peers: Vec<&str> = ["ext4", "xfs"]
        .into_iter()
        .filter(|fs| file_systems.contains(fs))
        .collect();
    ensure!(
        file_systems.contains(&"rdax") && !peers.is_empty(),
        "a survey compares rdax with ext4 or xfs"
    );
    let (workloads, is_drawn) = match plan {
        Plan::Draw(nr) => (draw(*nr, seed), true),
        Plan::Named(all) => (all.clone(), false),
    };
    let first = measure(vm, &workloads, &peers, "survey")?;
    let worse = first.findings.iter().filter(|each| each.is_worse()).count();
    let mut worst = first.findings.clone();
    if is_drawn {
        worst.retain(Finding::is_worse);
        sort(&mut worst, FOUND);
        for round in 1..=ROUNDS {
            if !simplify(vm, &mut worst, &peers, round)? {
                break;
            }
        }
        sort(&mut worst, WORST);
    }
    let path = vm.out.join("survey.json");
    let json = serde_json::to_string_pretty(&first.findings)? + "\n";
    fs::write(&path, json).with_context(|| path.display().to_string())?;
    print!("{}", table(&worst));
    first.failed.iter().for_each(|line| println!("{line}"));
    println!(
        "{} workloads measured{}, {worse} of them dearer on rdax; {}",
        first.findings.len(),
        if is_drawn {
            format!(" (seed {seed})")
        } else {
            String::new()
        },
        path.display()
    );
    if is_drawn && !worst.is_empty() {
        println!("One again: make bench SURVEY={}", worst[0].workload);
    }
    Ok(first.failed.is_empty())
}

/// The worst ones, `nr` at most.
fn sort(findings: &mut Vec<Finding>, nr: usize) {
    findings.sort_by(|a, b| b.score().total_cmp(&a.score()));
    findings.truncate(nr);
}

/// `nr` workloads, no two the same.
fn draw(nr: usize, seed: u64) -> Vec<Workload> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen = HashSet::new();
    std::iter::repeat_with(|| Workload::draw(&mut random))
        .filter(|each| seen.insert(*each))
        .take(nr)
        .collect()
}

/// Measures workloads on rdax and its peers.
fn measure(vm: &Vm<'_>, workloads: &[Workload], peers: &[&str], place: &str) -> Result<Measured> {
    let on = |fs: &str| {
        let costs = vm.survey(fs, &format!("{place} {fs}"), workloads);
        costs.with_context(|| String::from(fs))
    };
    let own = on("rdax")?;
    let others: Vec<(&str, Vec<Cost>)> = peers
        .iter()
        .map(|fs| Ok((*fs, on(fs)?)))
        .collect::<Result<_>>()?;
    Ok(judge(&own, &others))
}

/// Sets what was measured side by side; all lists are of the same workloads.
fn judge(own: &[Cost], others: &[(&str, Vec<Cost>)]) -> Measured {
    let mut measured = Measured {
        findings: Vec::new(),
        failed: Vec::new(),
    };
    for (nth, cost) in own.iter().enumerate() {
        let can = others
            .iter()
            .map(|(fs, costs)| (*fs, &costs[nth]))
            .filter(|(_, cost)| cost.error.is_none());
        let Some((best, best_cost)) = can.min_by(|a, b| a.1.many.total_cmp(&b.1.many)) else {
            continue;
        };
        match &cost.error {
            Some(error) => measured.failed.push(format!("{}: {error}", cost.workload)),
            None => measured.findings.push(Finding {
                workload: cost.workload.clone(),
                rdax: (cost.few, cost.many),
                best: best.into(),
                best_cost: (best_cost.few, best_cost.many),
            }),
        }
    }
    measured
}

/// Puts in the place of each finding a simpler one that is as bad, if there is one; false if there
/// was none for any.
fn simplify(vm: &Vm<'_>, worst: &mut Vec<Finding>, peers: &[&str], round: usize) -> Result<bool> {
    let simpler: Vec<Vec<Workload>> = worst
        .iter()
        .map(|finding| finding.workload.parse().map(Workload::simpler))
        .collect::<Result<_, String>>()
        .map_err(anyhow::Error::msg)?;
    let mut all: Vec<Workload> = simpler.iter().flatten().copied().collect();
    let mut seen = HashSet::new();
    all.retain(|each| seen.insert(*each));
    if all.is_empty() {
        return Ok(false);
    }
    let measured = measure(vm, &all, peers, &format!("simpler, round {round},"))?;
    let mut found = false;
    for (finding, simpler) in worst.iter_mut().zip(simpler) {
        let bad = |each: &&Finding| each.is_worse() && each.score() >= KEPT * finding.score();
        let best = simpler
            .iter()
            .filter_map(|workload| {
                let name = workload.to_string();
                measured.findings.iter().find(|each| each.workload == name)
            })
            .filter(bad)
            .max_by(|a, b| a.score().total_cmp(&b.score()));
        if let Some(best) = best {
            *finding = best.clone();
            found = true;
        }
    }
    let mut seen = HashSet::new();
    worst.retain(|finding| seen.insert(finding.workload.clone()));
    Ok(found)
}

fn table(findings: &[Finding]) -> String {
    let mut text = format!(
        "{:>6} {:>12} {:>12} {:>7} {:>7}  workload\n",
        "times", "rdax", "best", "growth", "its"
    );
    for each in findings {
        text += &format!(
            "{:>6.2} {:>12.0} {:>12.0} {:>7.2} {:>7.2}  {} ({})\n",
            each.times(),
            each.rdax.1,
            each.best_cost.1,
            Finding::growth(each.rdax),
            Finding::growth(each.best_cost),
            each.workload,
            each.best
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(few: f64, many: f64) -> Cost {
        Cost {
            workload: "name/create/none/order/never".into(),
            few,
            many,
            error: None,
        }
    }

    #[test]
    fn the_best_of_those_that_can_is_compared_with() {
        let mut broken = cost(1.0, 1.0);
        broken.error = Some("EOPNOTSUPP".into());
        let others = [
            ("ext4", vec![broken.clone(), cost(100.0, 110.0)]),
            ("xfs", vec![cost(90.0, 100.0), cost(50.0, 60.0)]),
        ];
        let measured = judge(&[cost(300.0, 300.0), cost(10.0, 40.0)], &others);
        let [first, second] = &measured.findings[..] else {
            panic!("not both");
        };
        assert_eq!((first.best.as_str(), first.score()), ("xfs", 3.0));
        // Cheaper, but four times as expensive when there are more.
        assert!(second.times() < 1.0 && second.is_worse());
        assert!(measured.failed.is_empty());
        let measured = judge(&[broken, cost(1.0, 1.0)], &others);
        assert_eq!((measured.findings.len(), measured.failed.len()), (1, 1));
    }

    #[test]
    fn a_plan_is_a_number_or_names() {
        assert!(matches!(plan("12"), Ok(Plan::Draw(12))));
        let named = plan("name/create/none/order/never,file/hole/call/read/up/4k/never/one");
        assert!(matches!(named, Ok(Plan::Named(all)) if all.len() == 2));
        for bad in ["0", "", "-3", "file/hole"] {
            assert!(plan(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_drawn_is_drawn_again_by_its_seed() {
        assert_eq!(draw(50, 3), draw(50, 3));
        assert_ne!(draw(50, 3), draw(50, 4));
    }
}
