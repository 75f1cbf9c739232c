// SPDX-License-Identifier: GPL-2.0

//! The table for people.

use std::fmt::Write;

use rdax_bench::Results;

use crate::compare::Line;

const GAP: &str = "-";

/// A number with its thousands apart.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The table and what there is to say below it.
pub fn table(lines: &[Line], measured: &[Results]) -> String {
    let mut rows = vec![header(measured)];
    rows.extend(lines.iter().map(|line| cells(line, measured)));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    // The operation, and the verdict after the last of the numbers that it judges.
    let left = |column: usize| column == 0 || column == measured.len() + 3;
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match left(column) {
                true => write!(line, "{cell:<width$}  "),
                false => write!(line, "{cell:>width$}  "),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text + &notes(lines, measured)
}

fn header(measured: &[Results]) -> Vec<String> {
    let names = measured.iter().map(|results| results.file_system.as_str());
    let more = ["best other", "aim", "verdict", "faults", "lines", "fences"];
    let columns = ["operation"].into_iter().chain(names).chain(more);
    columns.map(String::from).collect()
}

fn cells(line: &Line, measured: &[Results]) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or(GAP.into(), grouped);
    let small = |value: Option<f64>| value.map_or(GAP.into(), |value| format!("{value:.2}"));
    let mut cells = vec![line.operation.clone()];
    for results in measured {
        cells.push(number(line.instructions.get(&results.file_system).copied()));
    }
    let verdict = line
        .verdict
        .as_ref()
        .map_or(GAP.into(), |verdict| verdict.text());
    cells.extend([
        number(line.best_other),
        bound(line),
        verdict,
        small(line.faults),
        small(line.lines),
        small(line.fences),
    ]);
    cells
}

/// What the aim allows: instructions, or else what it speaks of.
fn bound(line: &Line) -> String {
    let aim = line.aim.as_ref();
    let other = |count: Option<f64>, what| Some(format!("{} {what}", count?));
    line.bound
        .map(grouped)
        .or_else(|| other(aim?.faults, "faults"))
        .or_else(|| other(aim?.lines, "lines"))
        .or_else(|| other(aim?.fences, "fences"))
        .unwrap_or(GAP.into())
}

fn notes(lines: &[Line], measured: &[Results]) -> String {
    let mut text = String::from(
        "\nInstructions per operation, program and kernel together. best other: of ext4 and xfs \
         (tmpfs is not durable).\nFaults, cache lines written back and fences: of rdax.",
    );
    if let Some(results) = measured.first() {
        let _ = writeln!(
            text,
            " Large file: {} MiB; large directory: {} names.",
            results.large_mib, results.names
        );
    }
    let verdicts: Vec<_> = lines
        .iter()
        .filter_map(|line| line.verdict.as_ref())
        .collect();
    if !verdicts.is_empty() {
        let reached = verdicts.iter().filter(|verdict| verdict.reached).count();
        let _ = writeln!(text, "{reached} of {} aims reached.", verdicts.len());
    }
    let gap = |line: &&Line| !line.is_whole(measured);
    let gaps: Vec<&str> = lines
        .iter()
        .filter(gap)
        .map(|line| line.operation.as_str())
        .collect();
    if !gaps.is_empty() {
        let _ = writeln!(text, "Not measured everywhere: {}.", gaps.join("; "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aims::Aim;
    use crate::compare::compare;
    use rdax_bench::Row;

    #[test]
    fn thousands() {
        let texts = [0.4, 999.0, 1000.0, 123_456.0, 1_234_567.0].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn aims_of_other_things_than_instructions() {
        let aim = |lines, instructions| Aim {
            operation: "creat".into(),
            lines,
            instructions,
            ..Aim::default()
        };
        let text = |aim| bound(&compare(&[], &[aim])[0]);
        assert_eq!(text(aim(Some(64.0), None)), "64 lines");
        assert_eq!(text(aim(Some(64.0), Some(1500.0))), "1,500");
    }

    #[test]
    fn gaps_are_shown_and_said() {
        let row = Row {
            operation: "creat".into(),
            cost: 50_000.0,
            faults: 0.0,
            lines_flushed: Some(1.0),
            journal_lines: Some(9.0),
            fences: Some(4.0),
        };
        let results = |fs: &str, rows| Results {
            file_system: fs.into(),
            large_mib: 64,
            names: 500,
            rows,
        };
        let measured = [results("rdax", vec![row]), results("xfs", vec![])];
        let aim = Aim {
            operation: "creat".into(),
            instructions: Some(40_000.0),
            ..Aim::default()
        };
        let text = table(&compare(&measured, &[aim]), &measured);
        let lines: Vec<&str> = text.lines().collect();
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(
            words,
            ["creat", "50,000", "-", "-", "40,000", "missed", "+25%", "0.00", "10.00", "4.00"]
        );
        assert!(text.contains("Large file: 64 MiB; large directory: 500 names."));
        assert!(text.contains("0 of 1 aims reached."));
        assert!(text.contains("Not measured everywhere: creat."));
    }
}
