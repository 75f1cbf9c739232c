// SPDX-License-Identifier: GPL-2.0

//! A run: workload after workload, on all processors, until the time is over.

use std::cell::RefCell;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use pmem_crash_model::trace::{Event, Trace};
use rayon::prelude::*;
use rdax_crash_ops::recover;

use crate::explore::{explore, Bounds, Explored, Sample};
use crate::image::{Image, Scratch};
use crate::page::page;
use crate::peer;
use crate::replay::keep;
use crate::report::{Line, Report};
use crate::subject::{all_names, Judge, Subject};
use crate::vm::{FileSystem, Machine};
use crate::walk::Recorded;
use crate::Run;

/// Recordings of this many workloads with violations are kept.
const KEPT_MAX: usize = 10;

/// The workloads that other file systems run, by the beginnings of the names.
const PEERS: &[&str] = &["mmap:", "data:", "random:mmap", "random:data"];
/// The workload that is recorded to leave something out.
const MISTAKEN: &str = "mmap:msync";
/// It must be found wrong in this many states at most.
const MISTAKEN_STATES: usize = 60;

/// The names that are asked for, in an order in which those come first that find most.
fn chosen(args: &Run) -> Result<Vec<String>> {
    let mut all = all_names();
    if args.fs != FileSystem::Rdax {
        // Those about data: names are durable when others want them to be.
        all.retain(|name| PEERS.iter().any(|beginning| name.starts_with(beginning)));
    }
    if !args.workload.is_empty() {
        all.retain(|name| {
            args.workload
                .iter()
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(beginning) => name.starts_with(beginning),
                    None => name == pattern,
                })
        });
        ensure!(
            !all.is_empty(),
            "no workload is called {}",
            args.workload.join(" ")
        );
        return Ok(all);
    }
    // Pairs are many: from another one on with each seed.
    let is_pair = |name: &String| name.starts_with("ace2:");
    let (mut pairs, mut order): (Vec<_>, Vec<_>) = all.into_iter().partition(is_pair);
    let pairs_len = pairs.len().max(1);
    pairs.rotate_left((args.seed as usize).wrapping_mul(7919) % pairs_len);
    order.extend(pairs);
    Ok(order)
}

/// The workloads: each one chosen, and then, unless some were asked for by name, random ones with
/// other seeds for ever.
fn workloads(args: &Run) -> Result<Box<dyn Iterator<Item = (String, u64)> + Send>> {
    let chosen = chosen(args)?;
    let random: Vec<String> = chosen
        .iter()
        .filter(|name| Subject::is_seeded(name))
        .cloned()
        .collect();
    let seed = args.seed;
    let once = chosen.into_iter().map(move |name| (name, seed));
    if !args.workload.is_empty() || random.is_empty() {
        return Ok(Box::new(once));
    }
    let more = (1..).flat_map(move |round| {
        let seeded = random.clone().into_iter();
        seeded.map(move |name| (name, seed.wrapping_add(round)))
    });
    Ok(Box::new(once.chain(more)))
}

/// Processor time that this thread has had, in seconds: what else runs on the machine does not
/// matter to it.
fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What the workers share.
struct Shared<'a> {
    args: &'a Run,
    machine: Machine,
    /// For mounting crash images, if that is asked for.
    bare: Option<Machine>,
    started: AtomicUsize,
    lines: Mutex<Vec<Line>>,
    states: AtomicUsize,
    bad: AtomicUsize,
    stop: AtomicBool,
    bar: ProgressBar,
    start: Instant,
}

impl Shared<'_> {
    fn one(&self, name: &str, seed: u64) -> Result<Line> {
        let subject = Subject::find(name, seed)?;
        let line = self.explore(&subject);
        Ok(line.unwrap_or_else(|e| Line::failed(&subject, format!("{e:#}"))))
    }

    fn explore(&self, subject: &Subject) -> Result<Line> {
        let run = self.machine.record(&subject.command())?;
        let start = thread_seconds();
        if self.args.fs != FileSystem::Rdax {
            let explored = self.explore_peer(subject, &run.trace, self.args.mounted, false)?;
            return Ok(Line::new(
                subject,
                &run,
                &explored,
                thread_seconds() - start,
            ));
        }
        let bounds = Bounds {
            per_point: self.args.per_point,
            seed: self.args.seed,
            only: None,
        };
        let judge = subject.judge(&self.args.top)?;
        let recorded = self.recorded(subject, &run.trace);
        let progress = |states| self.progress(states);
        let explored = explore(&*judge, &recorded, bounds, &progress)?;
        let mut line = Line::new(subject, &run, &explored, thread_seconds() - start);
        let nth = self.started.fetch_add(1, Ordering::Relaxed);
        let bare = self
            .bare
            .as_ref()
            .filter(|_| nth % self.args.kernel_every == 0);
        if !line.is_good() && self.bad.load(Ordering::Relaxed) < KEPT_MAX {
            keep(&self.args.out, subject, &run.trace, &self.machine.base)?;
        }
        if let (true, Some(bare), Some(sample)) = (line.is_good(), bare, explored.sample) {
            compare(bare, &*judge, &sample)?;
            line.kernel = true;
        }
        Ok(line)
    }

    fn recorded<'r>(&'r self, subject: &Subject, trace: &'r Trace) -> Recorded<'r> {
        Recorded {
            trace,
            base: &self.machine.base,
            device: self.machine.device.clone(),
            operations: subject.ops.len(),
            setup: subject.setup,
        }
    }

    fn explore_peer(
        &self,
        subject: &Subject,
        trace: &Trace,
        states: usize,
        until_found: bool,
    ) -> Result<Explored> {
        let bounds = peer::Bounds {
            states,
            seed: self.args.seed,
            until_found,
        };
        let recorded = self.recorded(subject, trace);
        let bare = self.bare.as_ref().context("no VM to mount with")?;
        let progress = |states| self.progress(states);
        peer::explore(subject, &recorded, self.args.fs, bare, bounds, &progress)
    }

    /// Fails unless a recording without its write-backs is noticed: an explorer that finds nothing
    /// on another file system must be able to find something.
    fn leave_out_write_backs(&self) -> Result<()> {
        let subject = Subject::find(MISTAKEN, self.args.seed)?;
        let mut trace = self.machine.record(&subject.command())?.trace;
        trace
            .events
            .retain(|event| !matches!(event, Event::WriteBack { .. }));
        let explored = self.explore_peer(&subject, &trace, MISTAKEN_STATES, true)?;
        let states: usize = explored.points.iter().map(|point| point.states).sum();
        ensure!(
            !explored.found.is_empty(),
            "that a recording of {MISTAKEN} has no write-backs is not noticed, in {states} states"
        );
        self.bar.suspend(|| {
            println!("{MISTAKEN} with its write-backs left out is found wrong, in state {states}")
        });
        Ok(())
    }

    fn progress(&self, states: usize) {
        let states = self.states.fetch_add(states, Ordering::Relaxed) + states;
        let rate = states as f64 / self.start.elapsed().as_secs_f64().max(1e-9);
        let bad = self.bad.load(Ordering::Relaxed);
        self.bar
            .set_message(format!("{states} states, {rate:.0}/s, {bad} bad"));
        self.bar.tick();
    }

    fn done(&self, line: Line) {
        if !line.is_good() {
            self.bad.fetch_add(1, Ordering::Relaxed);
            if !self.args.until_found {
                self.bar
                    .suspend(|| print!("{}", line.trouble(self.args.fs)));
            }
            let found = self.args.until_found && !line.violations.is_empty();
            self.stop.fetch_or(found, Ordering::Relaxed);
        }
        self.bar.set_prefix(line.name.clone());
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }
}

/// Fails unless what the kernel makes of the crash `sample` is allowed, too.
fn compare(bare: &Machine, judge: &dyn Judge, sample: &Sample) -> Result<()> {
    let image = bare
        .try_image(&sample.image, FileSystem::Rdax.mount())?
        .map_err(|said| anyhow!("the kernel cannot mount a crash image: {said}"))?;
    let scratch = RefCell::new(Scratch::new(image.len()));
    let image = Image::new(&image, &scratch, []);
    let volume = recover(image).map_err(|violation| anyhow!("after the kernel: {violation}"))?;
    let found = judge.check(&volume, sample.moment.finished, sample.moment.in_flight);
    match found.first() {
        Some(violation) => bail!("after the kernel has recovered it: {violation}"),
        None => Ok(()),
    }
}

/// Runs workloads and says what was found. False if something was.
pub fn run(args: &Run) -> Result<bool> {
    let report = explore_all(args)?;
    println!("{}", report.summary());
    Ok(report.is_good())
}

/// Runs workloads and writes the report.
pub fn explore_all(args: &Run) -> Result<Report> {
    fs::create_dir_all(&args.out)?;
    let top = args.top.canonicalize()?;
    let boot = |mounted| Machine::boot(&top, args.module.as_deref(), args.fs, mounted);
    let peer = args.fs != FileSystem::Rdax;
    let wanted = args.kernel_every > 0 || peer;
    let (machine, bare) = rayon::join(|| boot(true), || wanted.then(|| boot(false)).transpose());
    let shared = Shared {
        args,
        machine: machine?,
        bare: bare?,
        started: AtomicUsize::new(0),
        lines: Mutex::new(Vec::new()),
        states: AtomicUsize::new(0),
        bad: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        bar: ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
            "{spinner} {elapsed} {msg}  {prefix}",
        )?),
        start: Instant::now(),
    };
    shared.bar.enable_steady_tick(Duration::from_millis(200));
    if peer {
        shared.leave_out_write_backs()?;
    }
    workloads(args)?
        .take_while(|_| {
            !shared.stop.load(Ordering::Relaxed) && shared.start.elapsed() < args.budget
        })
        .par_bridge()
        .try_for_each(|(name, seed)| shared.one(&name, seed).map(|line| shared.done(line)))?;
    shared.bar.finish_and_clear();
    let device = shared.machine.device.clone();
    let lines = shared
        .lines
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let wanted = if args.workload.is_empty() {
        0
    } else {
        chosen(args)?.len()
    };
    let mut report = Report {
        fs: args.fs,
        seed: args.seed,
        per_point: args.per_point,
        device: (device.start, device.end),
        seconds: shared.start.elapsed().as_secs_f64(),
        not_reached: wanted.saturating_sub(lines.len()),
        workloads: lines,
    };
    report
        .workloads
        .sort_by(|a, b| (&a.name, a.seed).cmp(&(&b.name, b.seed)));
    fs::write(args.out.join("crash.json"), serde_json::to_vec(&report)?)?;
    fs::write(args.out.join("crash.html"), page(&report))?;
    Ok(report)
}
