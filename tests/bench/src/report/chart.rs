// SPDX-License-Identifier: GPL-2.0

//! The chart: for each operation a bar of every file system and a mark for the aim.

use std::path::Path;

use anyhow::{anyhow, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use rdax_bench::Results;

use crate::compare::Line;

const BAR: u32 = 8;
const GAP: u32 = 10;
const LABELS: u32 = 350;
const FONT: &str = "sans-serif";

/// Colours that stay apart for the colour-blind too.
fn colour(fs: &str) -> RGBColor {
    match fs {
        "rdax" => RGBColor(0xd5, 0x5e, 0x00),
        "ext4" => RGBColor(0x00, 0x72, 0xb2),
        "xfs" => RGBColor(0x00, 0x9e, 0x73),
        _ => RGBColor(0xaa, 0xaa, 0xaa),
    }
}

/// A number of instructions on the axis.
fn short(number: &f64) -> String {
    match *number {
        n if n >= 1e6 => format!("{:.0}M", n / 1e6),
        n if n >= 1e3 => format!("{:.0}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// Draws the chart of `lines` to `path`, a file for SVG.
pub fn draw(path: &Path, lines: &[Line], measured: &[Results]) -> Result<()> {
    // The library's error borrows what it was given.
    try_draw(path, lines, measured).map_err(|error| anyhow!("{error}"))
}

fn try_draw<'a>(
    path: &'a Path,
    lines: &[Line],
    measured: &[Results],
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    let group = BAR * measured.len() as u32 + GAP;
    let height = group * lines.len() as u32 + 90;
    let area = SVGBackend::new(path, (1100, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let costs = || {
        lines
            .iter()
            .flat_map(|line| line.instructions.values().chain(&line.bound))
    };
    // Bars of a logarithmic scale have no natural beginning: the power of ten below the least.
    let least = costs().fold(f64::INFINITY, |least, cost| least.min(*cost));
    let start = 10f64.powf(least.clamp(1.0, 1e9).log10().floor());
    let end = costs().fold(start * 10.0, |most, cost| most.max(*cost)) * 1.5;
    let mut chart = ChartBuilder::on(&area)
        .caption("Instructions per operation (less is better)", (FONT, 18))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(35)
        .set_label_area_size(LabelAreaPosition::Left, LABELS)
        .build_cartesian_2d((start..end).log_scale(), lines.len() as f64..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .x_label_formatter(&short)
        .light_line_style(TRANSPARENT)
        .draw()?;
    let bar = f64::from(BAR) / f64::from(group);
    let top = |index: usize| index as f64 + f64::from(GAP) / f64::from(group) / 2.0;
    for (nth, results) in measured.iter().enumerate() {
        let colour = colour(&results.file_system);
        let bars = lines.iter().enumerate().filter_map(|(index, line)| {
            let cost = line.instructions.get(&results.file_system)?;
            let from = top(index) + nth as f64 * bar;
            Some(Rectangle::new(
                [(start, from), (*cost, from + bar)],
                colour.filled(),
            ))
        });
        chart
            .draw_series(bars)?
            .label(results.file_system.as_str())
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.filled()));
    }
    let aims = lines.iter().enumerate().filter_map(|(index, line)| {
        let (aim, from) = (line.bound?, top(index));
        let to = from + bar * measured.len() as f64;
        Some(PathElement::new(
            [(aim, from), (aim, to)],
            BLACK.stroke_width(2),
        ))
    });
    chart
        .draw_series(aims)?
        .label("aim of rdax")
        .legend(|(x, y)| PathElement::new([(x + 7, y - 5), (x + 7, y + 5)], BLACK.stroke_width(2)));
    let right = Pos::new(HPos::Right, VPos::Center);
    let style = (FONT, 13).into_text_style(&area).pos(right);
    for (index, line) in lines.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(start, index as f64 + 0.5));
        area.draw(&Text::new(
            line.operation.as_str(),
            (x - 8, y),
            style.clone(),
        ))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .label_font((FONT, 13))
        .draw()?;
    area.present()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::compare::compare;
    use rdax_bench::Row;

    #[test]
    fn every_operation_has_its_bars_and_its_name() {
        let row = |operation: &str, cost| Row {
            operation: operation.into(),
            cost,
            faults: 0.0,
            lines_flushed: None,
            journal_lines: None,
            fences: None,
        };
        let results = |fs: &str, rows| Results {
            file_system: fs.into(),
            large_mib: 1,
            names: 1,
            rows,
        };
        let both = vec![row("creat & more", 40_000.0), row("stat", 15.0)];
        let measured = [
            results("rdax", both),
            results("xfs", vec![row("stat", 900.0)]),
        ];
        let file = tempfile::NamedTempFile::new().unwrap();
        draw(file.path(), &compare(&measured, &[]), &measured).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let bars = |colour: &str| text.matches(&format!("fill=\"{colour}\"")).count();
        // And one each in the legend.
        assert_eq!((bars("#D55E00"), bars("#009E73")), (3, 2), "{text}");
        let coloured = ["#D55E00", "#009E73"];
        let lines = text
            .lines()
            .filter(|line| coloured.iter().any(|c| line.contains(c)));
        let tops: HashSet<_> = lines.filter_map(|line| line.split('"').nth(3)).collect();
        assert_eq!(tops.len(), 5, "bars lie on one another: {text}");
        assert!(text.contains("creat &amp; more") && text.contains("stat"));
    }
}
