// SPDX-License-Identifier: GPL-2.0

//! Runs a series of damaged volumes on all processors, and keeps what was found.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdax_torture::damage::series::{base, Image, PER_BASE};
use rdax_torture::damage::trial::{remember_panics, Fault, Seen};

use crate::Args;

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// A trial that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(120);

/// What many trials have seen.
#[derive(Default)]
struct Totals {
    images: u64,
    clean: u64,
    mounted: u64,
    met: u64,
    replayed: u64,
    repaired: u64,
    hopeless: u64,
    cut: u64,
    /// How often, and where it was found first.
    faults: BTreeMap<String, (u64, u64)>,
}

impl Totals {
    fn add(&mut self, seen: Seen) {
        self.images += 1;
        self.clean += u64::from(seen.clean);
        self.mounted += u64::from(seen.mounted);
        self.met += u64::from(seen.met);
        self.replayed += u64::from(seen.replayed);
        self.repaired += u64::from(seen.repaired);
        self.hopeless += u64::from(seen.hopeless);
        self.cut += u64::from(seen.cut);
    }
}

/// What the threads share.
struct Shared<'a> {
    args: &'a Args,
    started: Instant,
    next: AtomicU64,
    done: AtomicBool,
    totals: Mutex<Totals>,
    /// The image of each thread, and since when.
    at: Vec<Mutex<(u64, Instant)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared<'_> {
    fn is_over(&self) -> bool {
        self.args.images.is_none() && self.started.elapsed() > self.args.budget
    }

    /// The numbers of the next images that are made from one volume.
    fn take(&self) -> Option<std::ops::Range<u64>> {
        let first = self.next.fetch_add(PER_BASE, Ordering::Relaxed);
        let (from, to) = match self.args.images {
            Some(count) => (self.args.from, self.args.from.saturating_add(count)),
            None => (self.args.from, u64::MAX),
        };
        let range = first.max(from)..(first + PER_BASE).min(to);
        (!range.is_empty()).then_some(range)
    }

    fn work(&self, thread: usize) -> Result<()> {
        while let Some(range) = self.take() {
            *lock(&self.at[thread]) = (range.start, Instant::now());
            let base = base(self.args.seed, range.start);
            for number in range {
                if self.is_over() {
                    return Ok(());
                }
                *lock(&self.at[thread]) = (number, Instant::now());
                let image = Image::new(&base, self.args.seed, number);
                match image.run(image.all()) {
                    Ok(seen) => lock(&self.totals).add(seen),
                    Err(fault) => self.found(&image, fault)?,
                }
            }
        }
        Ok(())
    }

    fn found(&self, image: &Image<'_>, fault: Fault) -> Result<()> {
        let signature = fault.signature();
        {
            let mut totals = lock(&self.totals);
            totals.images += 1;
            let (count, _) = totals
                .faults
                .entry(signature.clone())
                .or_insert((0, image.number));
            *count += 1;
            if *count > 1 {
                return Ok(());
            }
        }
        let text = keep(image, fault, self.args.seed, &self.args.out)?;
        println!("FAULT {signature}\n{text}");
        Ok(())
    }

    /// Prints progress now and then, and gives up if a trial hangs.
    fn watch(&self) {
        let mut told = Instant::now();
        while !self.done.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            for at in &self.at {
                let (number, since) = *lock(at);
                if since.elapsed() > HANG && !self.done.load(Ordering::Relaxed) {
                    println!(
                        "FAULT image {number} hangs: {}",
                        command(self.args.seed, number)
                    );
                    std::process::exit(1);
                }
            }
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                let totals = lock(&self.totals);
                println!("damage: {}", self.figures(&totals));
            }
        }
    }

    fn figures(&self, totals: &Totals) -> String {
        let took = self.started.elapsed();
        let faults: u64 = totals.faults.values().map(|(count, _)| count).sum();
        format!(
            "{} images in {} s ({} an hour): {} sound all the same, {} mounted as they were \
             ({} with errors, {} after a replay), {} repaired ({} once more after a cut), \
             {} without a superblock; {faults} faults of {} kinds",
            totals.images,
            took.as_secs(),
            (totals.images as f64 / took.as_secs_f64() * 3600.0) as u64,
            totals.clean,
            totals.mounted,
            totals.met,
            totals.replayed,
            totals.repaired,
            totals.cut,
            totals.hopeless,
            totals.faults.len(),
        )
    }
}

fn command(seed: u64, number: u64) -> String {
    format!("build/bin/rdax-torture --seed {seed} --image {number}")
}

/// Keeps the image and what is known of the fault. Returns that as text.
fn keep(image: &Image<'_>, fault: Fault, seed: u64, out: &Path) -> Result<String> {
    let (keep, fault) = image.minimal(fault);
    let text = format!(
        "{}: {}\n{}again: {}\n",
        fault.rule,
        fault.detail.trim_end(),
        image.describe(keep),
        command(seed, image.number)
    );
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let name = format!("{seed}-{}", image.number);
    fs::write(out.join(format!("{name}.txt")), &text)?;
    let mut bytes = image.base.bytes.clone();
    image.device(keep).changed(|at, page| {
        bytes[at as usize..][..page.len()].copy_from_slice(page);
    });
    fs::write(out.join(format!("{name}.image")), bytes)?;
    Ok(text)
}

/// Tries until the time is up, or the images are. Whether all held.
pub fn many(args: &Args) -> Result<bool> {
    remember_panics();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let shared = Shared {
        args,
        started: Instant::now(),
        next: AtomicU64::new(args.from / PER_BASE * PER_BASE),
        done: AtomicBool::new(false),
        totals: Mutex::new(Totals::default()),
        at: (0..threads)
            .map(|_| Mutex::new((0, Instant::now())))
            .collect(),
    };
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| shared.watch());
        let workers: Vec<_> = (0..threads)
            .map(|n| {
                scope.spawn({
                    let shared = &shared;
                    move || shared.work(n)
                })
            })
            .collect();
        let mut result = Ok(());
        for worker in workers {
            let ended = worker.join();
            result = result.and(ended.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread paniced"))));
        }
        shared.done.store(true, Ordering::Relaxed);
        let _ = watcher.join();
        result
    })?;
    let totals = lock(&shared.totals);
    for (signature, (count, first)) in &totals.faults {
        println!(
            "{count} times: {signature}\n    {}",
            command(args.seed, *first)
        );
    }
    println!("damage: {}", shared.figures(&totals));
    Ok(totals.faults.is_empty() && totals.images > 0)
}

/// Tries one image and tells all about it.
pub fn one(seed: u64, number: u64, out: &Path) -> Result<bool> {
    remember_panics();
    let base = base(seed, number);
    println!(
        "volume of {} MiB, {} structures, {} inodes with names, {} orphans, {} transactions to complete{}",
        base.bytes.len() >> 20,
        base.places.len(),
        base.tree.len(),
        base.orphans,
        base.logged,
        if base.full { ", full" } else { "" }
    );
    let image = Image::new(&base, seed, number);
    print!("{}", image.describe(image.all()));
    match image.run(image.all()) {
        Ok(seen) => {
            println!("{seen:?}");
            Ok(true)
        }
        Err(fault) => {
            println!("{}", keep(&image, fault, seed, out)?);
            Ok(false)
        }
    }
}
