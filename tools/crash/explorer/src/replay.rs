// SPDX-License-Identifier: GPL-2.0

//! One state again, from a kept recording.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use pmem_crash_model::trace::{Trace, Writer};

use crate::explore::{explore, Bounds};
use crate::report::{Line, Report};
use crate::subject::Subject;
use crate::vm::Recording;
use crate::walk::Recorded;
use crate::Replay;

/// The file that keeps the recording of a workload.
fn kept(out: &Path, name: &str, seed: u64) -> PathBuf {
    out.join(format!("{}.{seed}.trace", name.replace(['/', ':'], "_")))
}

/// Keeps a recording, and the first content of the memory.
pub fn keep(out: &Path, subject: &Subject, trace: &Trace, base: &[u8]) -> Result<()> {
    fs::write(out.join("base"), base)?;
    let file = File::create(kept(out, &subject.name, subject.seed))?;
    let mut writer = Writer::new(std::io::BufWriter::new(file), trace.len)?;
    for event in &trace.events {
        writer.push(event)?;
    }
    Ok(writer.finish()?)
}

/// Checks one state again and reports everything about it. False if it is not allowed.
pub fn replay(args: &Replay) -> Result<bool> {
    let read = |name: &str| {
        let path = args.out.join(name);
        fs::read(&path).with_context(|| path.display().to_string())
    };
    let report: Report = serde_json::from_slice(&read("crash.json")?)?;
    let path = kept(&args.out, &args.workload, args.seed);
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let run = Recording {
        trace: Trace::read(file)?,
        took: Duration::ZERO,
        processor: Duration::ZERO,
    };
    let subject = Subject::find(&args.workload, args.seed)?;
    let bounds = Bounds {
        per_point: report.per_point,
        seed: report.seed,
        only: Some((args.point, args.state)),
    };
    let recorded = Recorded {
        trace: &run.trace,
        base: &read("base")?,
        device: report.device.0..report.device.1,
        operations: subject.ops.len(),
        setup: subject.setup,
    };
    let judge = subject.judge(&args.top)?;
    let explored = explore(&*judge, &recorded, bounds, &|_| {})?;
    let line = Line::new(&subject, &run, &explored, 0.0);
    for (n, op) in subject.ops.iter().enumerate() {
        println!("{n:3} {op}");
    }
    match line.states {
        0 => println!("there is no such state"),
        _ if line.is_good() => println!("nothing is wrong with this state"),
        _ => print!("{}", line.trouble(report.fs)),
    }
    Ok(line.states > 0 && line.is_good())
}
