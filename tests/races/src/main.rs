// SPDX-License-Identifier: GPL-2.0

//! rdax-races: every two events in the life of a mount, against each other, under load.
//!
//! In each round a volume is mounted and used by several processes; then two events happen at about
//! the same time. Afterwards everything must come to an end, the volume be clean, and the kernel
//! have reported nothing. Runs as root in a VM of its own, which it may crash: see tests/races/run.

#![forbid(unsafe_code)]

mod events;
mod load;
mod machine;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use clap::Parser;

use events::{Event, EVENTS};
use machine::{Machine, LONG};

/// Races every two events in the life of a mount against each other.
#[derive(Parser)]
struct Args {
    /// How long, in seconds; but each pair is raced once at least
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Which order of pairs, and which delays
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this pair, as mount,unbind; may be given more than once
    #[arg(long, value_name = "EVENT,EVENT")]
    pair: Vec<String>,
    /// Processes that use the file system meanwhile
    #[arg(long, default_value_t = 3)]
    processes: usize,
    /// The device; what is on it is lost
    #[arg(long, default_value = "/dev/pmem0")]
    device: PathBuf,
    /// Where it is mounted
    #[arg(long, default_value = "/mnt/pmem")]
    at: PathBuf,
    /// The module
    #[arg(long, default_value = "/rdax/rdax.ko")]
    module: PathBuf,
    /// Be a process that uses the file system at this place
    #[arg(long, hide = true)]
    load: Option<PathBuf>,
    /// Be one that has a page of it fail
    #[arg(long, hide = true)]
    memory_error: Option<PathBuf>,
}

/// What the kernel says when something is wrong: a string a line.
const REPORTS: &str = include_str!("../../../qemu/reports");

const MARK: &str = "rdax-races: round";

/// The first report of the kernel since the last mark.
fn report() -> Result<Option<String>> {
    let log = std::process::Command::new("dmesg").output()?;
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let since = log.rfind(MARK).map_or("", |at| &log[at..]);
    let report = since
        .lines()
        .find(|line| REPORTS.lines().any(|report| line.contains(report)));
    Ok(report.map(str::to_owned))
}

/// What was done.
#[derive(Default)]
struct Figures {
    pairs: BTreeSet<(usize, usize)>,
    rounds: u64,
    happened: u64,
    failed: u64,
}

/// Which round it is.
static ROUND: AtomicU64 = AtomicU64::new(0);

/// Ends the program when a round takes too long, and says where everybody is.
fn watch(round: &AtomicU64) {
    let mut last = (0, Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = round.load(SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > LONG {
            println!("FAULT: round {now} does not end");
            let _ = fs::write("/proc/sysrq-trigger", "w");
            std::thread::sleep(Duration::from_secs(2));
            // Not by way of destructors: they would wait, too.
            std::process::exit(1);
        }
    }
}

/// Both events, each a few times, after delays of their own.
fn race(machine: &Machine, pair: [&Event; 2], random: &mut fastrand::Rng) -> (u64, u64) {
    let (happened, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for event in pair {
            let mut random = random.fork();
            let (happened, failed) = (&happened, &failed);
            scope.spawn(move || {
                let times = random.u32(1..4);
                for _ in 0..times {
                    let delay = 1u64 << random.u32(..15);
                    std::thread::sleep(Duration::from_micros(random.u64(..delay)));
                    match (event.run)(machine, &mut random) {
                        Ok(()) => happened.fetch_add(1, SeqCst),
                        Err(_) => failed.fetch_add(1, SeqCst),
                    };
                }
            });
        }
    });
    (happened.into_inner(), failed.into_inner())
}

/// The pairs to be tried: those asked for, or all.
fn pairs(args: &Args) -> Result<Vec<(usize, usize)>> {
    let find = |name: &str| {
        let at = EVENTS.iter().position(|event| event.name == name);
        at.with_context(|| {
            let names: Vec<_> = EVENTS.iter().map(|event| event.name).collect();
            format!("no event {name}; there are {}", names.join(", "))
        })
    };
    if args.pair.is_empty() {
        let all = 0..EVENTS.len();
        return Ok(all
            .flat_map(|a| (a..EVENTS.len()).map(move |b| (a, b)))
            .collect());
    }
    args.pair
        .iter()
        .map(|pair| {
            let (a, b) = pair.split_once(',').context("a pair is EVENT,EVENT")?;
            let (a, b) = (find(a)?, find(b)?);
            Ok((a.min(b), a.max(b)))
        })
        .collect()
}

fn run(args: &Args, figures: &mut Figures) -> Result<()> {
    let mut pairs = pairs(args)?;
    let mut random = fastrand::Rng::with_seed(args.seed);
    let machine = Machine::new(&args.device, &args.at, &args.module)?;
    // The report is looked for here: as long as the machine lives.
    fs::write("/proc/sys/kernel/panic_on_oops", "0")?;
    machine.make()?;
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let done = &AtomicBool::new(false);
    std::thread::spawn(|| watch(&ROUND));
    std::thread::scope(|scope| {
        scope.spawn(|| machine.load.keep_up(done));
        let result = (|| {
            // Each pair once, however long that takes.
            let mut is_first = true;
            while is_first || Instant::now() < end {
                random.shuffle(&mut pairs);
                for &(a, b) in &pairs {
                    if !is_first && Instant::now() >= end {
                        break;
                    }
                    ROUND.fetch_add(1, SeqCst);
                    one_round(&machine, args, (a, b), &mut random, figures)?;
                }
                is_first = false;
            }
            Ok(())
        })();
        done.store(true, SeqCst);
        machine.load.stop();
        result
    })
}

fn one_round(
    machine: &Machine,
    args: &Args,
    (a, b): (usize, usize),
    random: &mut fastrand::Rng,
    figures: &mut Figures,
) -> Result<()> {
    let (first, second) = (EVENTS[a].name, EVENTS[b].name);
    figures.rounds += 1;
    let what = format!("{} {}: {first} against {second}", MARK, figures.rounds);
    fs::write("/dev/kmsg", &what)?;
    let result = (|| {
        machine.begin(args.processes)?;
        std::thread::sleep(Duration::from_millis(random.u64(..30)));
        let (happened, failed) = race(machine, [&EVENTS[a], &EVENTS[b]], random);
        figures.happened += happened;
        figures.failed += failed;
        machine.settle()
    })();
    if let Some(report) = report()? {
        bail!("{what}: {report}");
    }
    result.with_context(|| what)?;
    figures.pairs.insert((a, b));
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(dir) = &args.load {
        let _ = load::run(dir, args.seed);
        return ExitCode::FAILURE;
    }
    if let Some(dir) = &args.memory_error {
        let failed = events::fail_memory(dir, &mut fastrand::Rng::with_seed(args.seed));
        return ExitCode::from(u8::from(failed.is_err()));
    }
    let mut figures = Figures::default();
    let start = Instant::now();
    let result = run(&args, &mut figures);
    println!(
        "races: {} of {} pairs, {} rounds, {} events ({} refused), {} faults, {} s, seed {}",
        figures.pairs.len(),
        EVENTS.len() * (EVENTS.len() + 1) / 2,
        figures.rounds,
        figures.happened + figures.failed,
        figures.failed,
        u8::from(result.is_err()),
        start.elapsed().as_secs(),
        args.seed
    );
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAULT: {error:#}");
            ExitCode::FAILURE
        }
    }
}
