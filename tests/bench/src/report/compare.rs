// SPDX-License-Identifier: GPL-2.0

//! Sets what was measured side by side and judges rdax by its aims.

use std::collections::BTreeMap;

use rdax_bench::{Results, Row};
use serde::Serialize;

use crate::aims::Aim;

/// One operation on all file systems.
#[derive(Debug, Serialize)]
pub struct Line {
    /// The operation.
    pub operation: String,
    /// Instructions on each file system that was measured.
    pub instructions: BTreeMap<String, f64>,
    /// The cheapest of the other file systems that are durable.
    pub best_other: Option<f64>,
    /// Page faults on rdax.
    pub faults: Option<f64>,
    /// Cache lines that rdax wrote back.
    pub lines: Option<f64>,
    /// Fences of rdax.
    pub fences: Option<f64>,
    /// What rdax may take.
    pub aim: Option<Aim>,
    /// Instructions that it may take, by the aim.
    pub bound: Option<f64>,
    /// Whether the aim is reached; `None` without one, or if rdax was not measured.
    pub verdict: Option<Verdict>,
}

/// What came of an aim.
#[derive(Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// All its bounds are kept.
    pub reached: bool,
    /// How far the instructions are from their bound, in percent of it; negative: below.
    pub percent: Option<f64>,
    /// What else keeps it from being reached.
    pub others: Vec<String>,
}

impl Line {
    /// The row is there for each of `measured`.
    pub fn is_whole(&self, measured: &[Results]) -> bool {
        self.instructions.len() == measured.len()
    }
}

impl Verdict {
    /// In a few words.
    pub fn text(&self) -> String {
        let mut text = String::from(if self.reached { "reached" } else { "missed" });
        if let Some(percent) = self.percent {
            text += &format!(" {percent:+.0}%");
        }
        for other in &self.others {
            text += &format!(", {other}");
        }
        text
    }
}

fn row<'a>(results: &'a Results, operation: &str) -> Option<&'a Row> {
    results.rows.iter().find(|row| row.operation == operation)
}

/// Cache lines written back, for data and for metadata.
fn lines(row: &Row) -> Option<f64> {
    Some(row.lines_flushed? + row.journal_lines?)
}

/// A line for every operation that was measured or has an aim, in the order of measurement.
pub fn compare(measured: &[Results], aims: &[Aim]) -> Vec<Line> {
    let mut operations: Vec<&str> = Vec::new();
    let rows = measured.iter().flat_map(|results| &results.rows);
    let names = rows.map(|row| row.operation.as_str());
    for operation in names.chain(aims.iter().map(|aim| aim.operation.as_str())) {
        if !operations.contains(&operation) {
            operations.push(operation);
        }
    }
    let rdax = measured
        .iter()
        .find(|results| results.file_system == "rdax");
    operations
        .into_iter()
        .map(|operation| {
            let costs = measured.iter().filter_map(|results| {
                let row = row(results, operation)?;
                Some((results.file_system.clone(), row.cost))
            });
            let instructions: BTreeMap<String, f64> = costs.collect();
            let durable = ["ext4", "xfs"].map(|fs| instructions.get(fs).copied());
            let own = rdax.and_then(|rdax| row(rdax, operation));
            let aim = aims.iter().find(|aim| aim.operation == operation);
            let bound = aim.and_then(|aim| bound(aim, rdax));
            Line {
                operation: operation.into(),
                best_other: durable.into_iter().flatten().min_by(f64::total_cmp),
                faults: own.map(|row| row.faults),
                lines: own.and_then(lines),
                fences: own.and_then(|row| row.fences),
                aim: aim.cloned(),
                bound,
                verdict: aim.zip(own).map(|(aim, row)| judge(row, aim, bound)),
                instructions,
            }
        })
        .collect()
}

/// The bound of the instructions: that of the aim, or what follows from another row of rdax.
fn bound(aim: &Aim, rdax: Option<&Results>) -> Option<f64> {
    let of = || Some(aim.times? * row(rdax?, aim.of.as_ref()?)?.cost);
    aim.instructions.or_else(of)
}

fn judge(row: &Row, aim: &Aim, bound: Option<f64>) -> Verdict {
    let mut others = Vec::new();
    // What is compared is what is shown: averages of many operations are seldom whole.
    let faults = (row.faults * 100.0).round() / 100.0;
    if aim.faults.is_some_and(|most| faults > most) {
        others.push(format!("{faults:.2} faults"));
    }
    let counted = [
        ("lines", aim.lines, lines(row)),
        ("fences", aim.fences, row.fences),
    ];
    for (name, most, count) in counted {
        match (most, count) {
            (None, _) => (),
            (Some(_), None) => others.push(format!("{name} not counted")),
            (Some(most), Some(count)) if count.round() > most => {
                others.push(format!("{:.0} {name}", count.round()));
            }
            (Some(_), Some(_)) => (),
        }
    }
    if aim.of.is_some() && bound.is_none() {
        others.push("nothing to compare with".into());
    }
    let kept = bound.is_none_or(|bound| row.cost.round() <= bound);
    Verdict {
        reached: kept && others.is_empty(),
        percent: bound.map(|bound| (row.cost / bound - 1.0) * 100.0),
        others,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(fs: &str, rows: &[(&str, f64)]) -> Results {
        let row = |&(operation, cost): &(&str, f64)| Row {
            operation: operation.into(),
            cost,
            faults: 0.001,
            lines_flushed: (fs == "rdax").then_some(60.0),
            journal_lines: (fs == "rdax").then_some(4.4),
            fences: (fs == "rdax").then_some(2.0),
        };
        Results {
            file_system: fs.into(),
            large_mib: 1,
            names: 1,
            rows: rows.iter().map(row).collect(),
        }
    }

    fn aim(operation: &str) -> Aim {
        Aim {
            operation: operation.into(),
            ..Aim::default()
        }
    }

    fn verdict(aim: Aim) -> String {
        let measured = [measured("rdax", &[("small", 100.0), ("large", 150.0)])];
        let lines = compare(&measured, &[aim]);
        let line = lines.iter().find(|line| line.verdict.is_some()).unwrap();
        line.verdict.as_ref().unwrap().text()
    }

    #[test]
    fn verdicts_of_instructions() {
        let instructions = |bound| Aim {
            instructions: Some(bound),
            ..aim("small")
        };
        assert_eq!(verdict(instructions(100.0)), "reached +0%");
        assert_eq!(verdict(instructions(200.0)), "reached -50%");
        assert_eq!(verdict(instructions(40.0)), "missed +150%");
    }

    #[test]
    fn every_bound_counts() {
        let all = |faults, lines, fences| Aim {
            instructions: Some(200.0),
            faults: Some(faults),
            lines: Some(lines),
            fences: Some(fences),
            ..aim("small")
        };
        assert_eq!(verdict(all(0.0, 64.0, 2.0)), "reached -50%");
        assert_eq!(verdict(all(0.0, 63.0, 2.0)), "missed -50%, 64 lines");
        assert_eq!(verdict(all(0.0, 64.0, 1.0)), "missed -50%, 2 fences");
        assert_eq!(verdict(all(-1.0, 64.0, 2.0)), "missed -50%, 0.00 faults");
    }

    #[test]
    fn a_bound_may_follow_from_another_row() {
        let times = |times, of: &str| Aim {
            times: Some(times),
            of: Some(of.into()),
            ..aim("large")
        };
        assert_eq!(verdict(times(1.5, "small")), "reached +0%");
        assert_eq!(verdict(times(1.2, "small")), "missed +25%");
        assert_eq!(
            verdict(times(1.2, "gone")),
            "missed, nothing to compare with"
        );
    }

    #[test]
    fn what_nobody_counts_is_not_reached() {
        let mut results = measured("rdax", &[("small", 1.0)]);
        results.rows[0].fences = None;
        let bound = Aim {
            fences: Some(9.0),
            ..aim("small")
        };
        let lines = compare(&[results], &[bound]);
        assert_eq!(
            lines[0].verdict.as_ref().unwrap().text(),
            "missed, fences not counted"
        );
    }

    #[test]
    fn missing_rows_leave_gaps() {
        let measured = [
            measured("rdax", &[("a", 5.0)]),
            measured("ext4", &[("a", 7.0), ("b", 8.0)]),
            measured("xfs", &[("a", 6.0)]),
            measured("tmpfs", &[("a", 1.0), ("b", 1.0)]),
        ];
        let lines = compare(&measured, &[aim("a"), aim("c")]);
        let [a, b, c] = &lines[..] else {
            panic!("{lines:?}")
        };
        assert_eq!(a.best_other, Some(6.0), "tmpfs is not durable");
        assert!(a.is_whole(&measured));
        assert_eq!((b.best_other, b.instructions.len()), (Some(8.0), 2));
        assert!(!b.is_whole(&measured) && b.faults.is_none());
        assert!(c.instructions.is_empty() && c.verdict.is_none());
        assert_eq!(c.operation, "c");
    }

    #[test]
    fn without_rdax_there_is_no_verdict() {
        let bound = Aim {
            instructions: Some(9.0),
            ..aim("a")
        };
        let lines = compare(&[measured("xfs", &[("a", 6.0)])], &[bound]);
        assert_eq!((lines[0].bound, &lines[0].verdict), (Some(9.0), &None));
    }
}
