// SPDX-License-Identifier: GPL-2.0

//! The report as a page: a row for each workload, a bar for each fence.

use std::fmt::Write;

use crate::report::{Line, Report};

/// Height of the bars, in pixels.
const HEIGHT: f64 = 40.0;
/// Width of one.
const BAR: usize = 5;

const HEAD: &str =
    "<!DOCTYPE html>\n<meta charset=\"utf-8\"><title>Crash exploration</title>\n<style>
body { font: 14px sans-serif; margin: 2em } td { padding: 2px 12px 2px 0; vertical-align: bottom }
.n { text-align: right } rect { fill: #0072b2 } rect.bad { fill: #d55e00 } pre { color: #d55e00 }
</style>\n";

/// Text that is no markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

/// The bars of a workload: for each point one, as high as the logarithm of its states.
fn bars(line: &Line, most: usize) -> String {
    let scale = HEIGHT / (1.0 + most as f64).log2();
    let width = line.points.len() * BAR;
    let mut svg = format!("<svg width=\"{width}\" height=\"{HEIGHT}\">");
    for (i, point) in line.points.iter().enumerate() {
        let height = (1.0 + point.states as f64).log2() * scale;
        let class = if point.violations > 0 {
            " class=\"bad\""
        } else {
            ""
        };
        let _ = write!(
            svg,
            "<rect{class} x=\"{}\" y=\"{:.1}\" width=\"{}\" height=\"{height:.1}\"><title>{}: {} lines open, {} states, {} violations</title></rect>",
            i * BAR,
            HEIGHT - height,
            BAR - 1,
            escape(&point.operation),
            point.open,
            point.states,
            point.violations,
        );
    }
    svg + "</svg>"
}

/// The page.
pub fn page(report: &Report) -> String {
    let points = report.workloads.iter().flat_map(|line| &line.points);
    let most = points.map(|point| point.states).max().unwrap_or(1).max(1);
    let mut html = format!(
        "{HEAD}<h1>Crash exploration</h1>\n<pre style=\"color: black\">{}</pre>\n",
        escape(&report.summary())
    );
    for line in &report.workloads {
        let trouble = line.trouble(report.fs);
        if !trouble.is_empty() {
            let _ = writeln!(html, "<pre>{}</pre>", escape(&trouble));
        }
    }
    html += "<p>A bar for each moment at which crashes were looked at (before a fence, or between \
             operations), as high as the logarithm of the number of states that were new there.</p>\n\
             <table><tr><td>workload<td class=\"n\">operations<td class=\"n\">events\
             <td class=\"n\">states<td>states by fence\n";
    for line in &report.workloads {
        let _ = writeln!(
            html,
            "<tr><td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td>{}",
            escape(&line.name),
            line.operations,
            line.events,
            line.states,
            bars(line, most),
        );
    }
    html + "</table>\n"
}
