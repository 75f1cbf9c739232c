// SPDX-License-Identifier: GPL-2.0

//! Other file systems, which only their own kernel code can recover: of the states that crashes may
//! leave a few are chosen, and each is mounted and checked in the VM.

use std::collections::BTreeSet;

use anyhow::{ensure, Context, Result};
use pmem_crash_model::media::Media;
use pmem_crash_model::states::{self, Line, Random};
use rdax_crash_ops::{Kind, Violation};

use crate::explore::{Explored, Found, Point};
use crate::subject::Subject;
use crate::vm::{FileSystem, Machine};
use crate::walk::{image, walk, Moment, Open, Recorded};

/// Bytes that other file systems expect to be written as a whole.
const BLOCK: u64 = 4096;
/// States that are made at each moment, to choose from.
const PER_POINT: usize = 40;

/// How many states are tried.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// States of one recording.
    pub states: usize,
    /// Chooses them.
    pub seed: u64,
    /// End at the first violation.
    pub until_found: bool,
}

/// The states at one moment, always the same for the same seed: in each, the open lines of a block
/// are either all as they are on the media or all as they were last. Other states are possible,
/// too, but these file systems assume that a device writes a block atomically.
fn each_state(moment: Moment, open: &Open, seed: u64, visit: &mut dyn FnMut(&[usize])) {
    let mut blocks: Vec<u64> = open.iter().map(|(at, _)| at / BLOCK).collect();
    blocks.dedup();
    let either = Line {
        contents: 2,
        decides: false,
    };
    let lines = vec![either; blocks.len()];
    let mut random = Random::new(seed.wrapping_add((moment.number as u64) << 32));
    states::each(&lines, PER_POINT, &mut random, &mut |chosen| {
        let mut chosen = blocks.iter().zip(chosen).peekable();
        let picks = open.iter().map(|(at, contents)| {
            while chosen.next_if(|(block, _)| **block < at / BLOCK).is_some() {}
            match chosen.peek() {
                Some((_, 1)) => contents.len() - 1,
                _ => 0,
            }
        });
        visit(&picks.collect::<Vec<_>>());
    });
}

/// Chooses states: the number of the moment, and of the state there.
fn choose(recorded: &Recorded, bounds: Bounds) -> Result<BTreeSet<(usize, usize)>> {
    let mut counts = Vec::new();
    walk(recorded, &mut |moment, _, open| {
        let mut count = 0;
        each_state(moment, open, bounds.seed, &mut |_| count += 1);
        counts.push(count);
    })?;
    ensure!(!counts.is_empty(), "no moment to look at");
    let mut random = Random::new(bounds.seed);
    let all: usize = counts.iter().sum();
    let mut chosen = BTreeSet::new();
    // Moments have the same chance: most of the states are of those where much is open, which is
    // not where most is promised.
    while chosen.len() < bounds.states.min(all / 2 + 1) {
        let point = random.below(counts.len());
        chosen.insert((point, random.below(counts[point])));
    }
    Ok(chosen)
}

/// Has `machine` mount states of what was `recorded` of `subject`, and compares what it finds with
/// what every file system promises.
pub fn explore(
    subject: &Subject,
    recorded: &Recorded,
    fs: FileSystem,
    machine: &Machine,
    bounds: Bounds,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Explored> {
    let chosen = choose(recorded, bounds)?;
    let mut explored = Explored::default();
    let mut failed = None;
    walk(recorded, &mut |moment, media, open| {
        let mut point = Point {
            moment,
            open: open.len(),
            states: 0,
            violations: 0,
        };
        let mut state = 0;
        each_state(moment, open, bounds.seed, &mut |picks| {
            let ended = failed.is_some() || (bounds.until_found && !explored.found.is_empty());
            let wanted = chosen.contains(&(moment.number, state));
            state += 1;
            if ended || !wanted {
                return;
            }
            let check = || one(subject, recorded, fs, machine, (moment, media, open), picks);
            match check() {
                Ok(None) => {}
                Ok(Some(said)) => {
                    point.violations += 1;
                    let found = found(recorded, (moment, media, open), picks, state - 1, &said);
                    explored.found.push(found);
                }
                Err(e) => failed = Some(e),
            }
            point.states += 1;
            progress(1);
        });
        explored.points.push(point);
    })?;
    match failed {
        Some(e) => Err(e),
        None => Ok(explored),
    }
}

/// What is wrong with the state `picks`.
fn one(
    subject: &Subject,
    recorded: &Recorded,
    fs: FileSystem,
    machine: &Machine,
    (moment, media, open): (Moment, &Media, &Open),
    picks: &[usize],
) -> Result<Option<String>> {
    let in_flight = if moment.in_flight { "--in-flight" } else { "" };
    let command = format!(
        "{} && rdax-crash-guest check-files --dir /mnt/pmem {} {} --finished {} {in_flight}",
        fs.mount(),
        subject.name,
        subject.seed,
        moment.finished,
    );
    let image = image(media, &recorded.device, open, picks);
    let said = machine.try_image(&image, &command);
    Ok(said.context("a crash image")?.err())
}

fn found(
    recorded: &Recorded,
    (moment, media, open): (Moment, &Media, &Open),
    picks: &[usize],
    state: usize,
    said: &str,
) -> Found {
    let missing = open
        .iter()
        .zip(picks)
        .map(|((at, contents), pick)| (at - recorded.device.start, contents.len(), *pick));
    Found {
        point: moment.number,
        state,
        violations: said
            .lines()
            .map(|line| Violation::new(Kind::Data, line))
            .collect(),
        missing: missing
            .filter(|(_, contents, pick)| pick + 1 < *contents)
            .collect(),
        whole: image(media, &recorded.device, open, picks),
    }
}
