// SPDX-License-Identifier: GPL-2.0

//! The replay of a recording, and the crashes looked at on the way.
//!
//! Between two fences nothing becomes durable for certain, and nothing that might have reached the
//! media earlier is excluded later. So the states that a crash right before a fence may leave
//! include those of a crash at any earlier moment since the fence before, and it is enough to look
//! before each fence, and before each mark, since there the oracle's knowledge changes.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;

use anyhow::{bail, ensure, Result};
use pmem_crash_model::media::{change, line, Content, Media};
use pmem_crash_model::states::{self, Line, Random};
use pmem_crash_model::trace::{Event, Trace};
use rdax_crash_ops::{recover, Oracle, Violation, Workload};

use crate::image::{Image, Scratch};

/// Marks of the guest's program: an operation begins, has succeeded, has failed.
const BEGINS: u64 = 1;
const SUCCEEDED: u64 = 2;
const FAILED: u64 = 3;

/// How much is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// About so many states at each point.
    pub per_point: usize,
    /// Chooses them where there are more.
    pub seed: u64,
    /// Look at one state only: point and number of the state.
    pub only: Option<(usize, usize)>,
}

/// A moment at which crashes were looked at.
#[derive(Clone, Debug)]
pub struct Point {
    /// Fences before it.
    pub fences: usize,
    /// Operations that had returned.
    pub finished: usize,
    /// Another one had begun.
    pub in_flight: bool,
    /// Lines that a crash may leave in several contents.
    pub open: usize,
    /// Different states that were checked and had not been before.
    pub states: usize,
    /// Of these, states that may not be.
    pub violations: usize,
}

/// A state that may not be.
pub struct Found {
    /// The number of the point, and of the state there: with the recording, the seed and the states
    /// a point, they lead back here.
    pub point: usize,
    pub state: usize,
    /// What was violated.
    pub violations: Vec<Violation>,
    /// The state made as small as it gets: the lines that lack stores, how many contents each had
    /// in order, and which of them it has.
    pub missing: Vec<(u64, usize, usize)>,
    /// The device if nothing had been lost, to name the lines by.
    pub whole: Vec<u8>,
}

/// One state as an image, for others to recover.
pub struct Sample {
    /// The device.
    pub image: Vec<u8>,
    /// Operations that had returned, and whether another one had begun.
    pub finished: usize,
    pub in_flight: bool,
}

/// What became of one recording.
#[derive(Default)]
pub struct Explored {
    /// A state chosen at random.
    pub sample: Option<Sample>,
    pub points: Vec<Point>,
    /// The first state of each point that may not be, up to a few.
    pub found: Vec<Found>,
}

/// States that may not be are worked out for so many points.
const FOUND_MAX: usize = 3;

/// One replay.
struct Explorer<'a> {
    oracle: Oracle,
    setup: usize,
    device: Range<u64>,
    bounds: Bounds,
    /// Told of each number of states checked.
    progress: &'a (dyn Fn(usize) + Sync),
    media: Media,
    scratch: RefCell<Scratch>,
    /// States that were checked: their sums, and what had been done.
    seen: HashSet<(u128, usize, bool)>,
    fences: usize,
    finished: usize,
    in_flight: bool,
    /// Something happened since the last point.
    dirty: bool,
    explored: Explored,
}

/// Looks at the states that crashes may leave while `workload` runs as `trace` recorded it, from
/// the content `base` of the watched memory, in which the device has the bytes `device`.
///
/// Fails if the recording is not one of that workload, or one of its operations failed.
pub fn explore(
    workload: &Workload,
    trace: &Trace,
    base: &[u8],
    device: Range<u64>,
    bounds: Bounds,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Explored> {
    let mut explorer = Explorer {
        oracle: Oracle::new(workload),
        setup: workload.setup,
        scratch: RefCell::new(Scratch::new((device.end - device.start) as usize)),
        device,
        bounds,
        progress,
        media: Media::new(base.to_vec()),
        seen: HashSet::new(),
        fences: 0,
        finished: 0,
        in_flight: false,
        dirty: true,
        explored: Explored::default(),
    };
    for event in &trace.events {
        if matches!(event, Event::Fence | Event::Mark { .. }) {
            explorer.point();
        }
        explorer.step(event)?;
    }
    let (finished, ops) = (explorer.finished, workload.ops.len());
    ensure!(
        finished == ops,
        "only {finished} of {ops} operations are in the recording"
    );
    Ok(explorer.explored)
}

impl Explorer<'_> {
    fn step(&mut self, event: &Event) -> Result<()> {
        self.media.replay(event);
        match *event {
            Event::Store { .. } => self.dirty = true,
            Event::WriteBack { .. } => {}
            Event::Fence => self.fences += 1,
            Event::Mark { kind, number } => match kind {
                BEGINS => {
                    ensure!(
                        number as usize == self.finished,
                        "operation {number} begins too soon"
                    );
                    self.in_flight = true;
                }
                SUCCEEDED => {
                    ensure!(
                        number as usize == self.finished,
                        "operation {number} ends too soon"
                    );
                    self.finished += 1;
                    self.in_flight = false;
                    self.dirty = true;
                }
                FAILED => bail!(
                    "operation {} failed: errno {}",
                    number >> 16,
                    number & 0xffff
                ),
                _ => {}
            },
        }
        Ok(())
    }

    /// Looks at the crashes at this moment.
    fn point(&mut self) {
        // That an operation has begun allows more, and excludes nothing.
        if !self.dirty || self.finished < self.setup {
            return;
        }
        self.dirty = false;
        let number = self.explored.points.len();
        let mut point = Point {
            fences: self.fences,
            finished: self.finished,
            in_flight: self.in_flight,
            open: 0,
            states: 0,
            violations: 0,
        };
        if self.bounds.only.is_none_or(|(only, _)| only == number) {
            let mut open = self.media.open();
            open.retain(|(at, _)| self.device.contains(at));
            point.open = open.len();
            self.look(number, &open, &mut point);
        }
        self.explored.points.push(point);
    }

    fn base(&self) -> &[u8] {
        &self.media.durable()[self.device.start as usize..self.device.end as usize]
    }

    /// What is wrong with the state in which `open` has the contents `picks`.
    fn check(&self, open: &[(u64, Vec<Content>)], picks: &[usize]) -> Vec<Violation> {
        let lines = self.lines(open, picks);
        let image = Image::new(self.base(), &self.scratch, lines);
        match recover(&image) {
            Ok(volume) => self.oracle.check(&volume, self.finished, self.in_flight),
            Err(violation) => vec![violation],
        }
    }

    /// The lines of the device that are not as they are on the media, in the state `picks`.
    fn lines<'l>(
        &self,
        open: &'l [(u64, Vec<Content>)],
        picks: &'l [usize],
    ) -> impl Iterator<Item = (u64, &'l Content)> {
        let start = self.device.start;
        let changed = open.iter().zip(picks).filter(|(_, pick)| **pick > 0);
        changed.map(move |((at, contents), pick)| (at - start, &contents[*pick]))
    }

    /// The device in the state `picks`.
    fn whole(&self, open: &[(u64, Vec<Content>)], picks: &[usize]) -> Vec<u8> {
        let mut whole = self.base().to_vec();
        for (at, content) in self.lines(open, picks) {
            whole[at as usize..][..content.len()].copy_from_slice(content);
        }
        whole
    }

    /// Which of the lines mounting reads, with none of `open` on the media or with all of them.
    fn deciding(&self, open: &[(u64, Vec<Content>)]) -> Vec<Line> {
        let newest: Vec<usize> = open
            .iter()
            .map(|(_, contents)| contents.len() - 1)
            .collect();
        let none = vec![0; open.len()];
        let reads = [none, newest].map(|picks| {
            let image = Image::new(self.base(), &self.scratch, self.lines(open, &picks));
            image.watch();
            // What it reads is of interest even if it fails then.
            let _ = recover(&image);
            image.watched()
        });
        let lines = open.iter().map(|(at, contents)| Line {
            contents: contents.len(),
            decides: reads.iter().any(|read| read(at - self.device.start)),
        });
        lines.collect()
    }

    fn look(&mut self, number: usize, open: &[(u64, Vec<Content>)], point: &mut Point) {
        let lines = self.deciding(open);
        let deltas: Vec<Vec<u128>> = open
            .iter()
            .map(|(at, contents)| {
                let durable = line(self.media.durable(), *at);
                contents
                    .iter()
                    .map(|new| change(*at, durable, new))
                    .collect()
            })
            .collect();
        let mut random = Random::new(self.bounds.seed.wrapping_add((number as u64) << 32));
        // Of n points each is taken with the same chance.
        if random.below(number + 1) == 0 {
            let picks: Vec<usize> = lines
                .iter()
                .map(|line| random.below(line.contents))
                .collect();
            self.explored.sample = Some(Sample {
                image: self.whole(open, &picks),
                finished: self.finished,
                in_flight: self.in_flight,
            });
        }
        let mut seen = std::mem::take(&mut self.seen);
        let (mut state, mut bad, mut unreported) = (0, None, 0);
        states::each(&lines, self.bounds.per_point, &mut random, &mut |picks| {
            let this = state;
            state += 1;
            let changes = picks
                .iter()
                .zip(&deltas)
                .map(|(pick, deltas)| deltas[*pick]);
            let sum = changes.fold(self.media.sum(), u128::wrapping_add);
            let wanted = match self.bounds.only {
                Some((_, only)) => only == this,
                None => seen.insert((sum, self.finished, self.in_flight)),
            };
            if !wanted {
                return;
            }
            point.states += 1;
            unreported += 1;
            if unreported == 64 {
                (self.progress)(unreported);
                unreported = 0;
            }
            let violations = self.check(open, picks);
            if !violations.is_empty() {
                point.violations += 1;
                bad.get_or_insert_with(|| (this, picks.to_vec()));
            }
        });
        (self.progress)(unreported);
        self.seen = seen;
        if let Some((state, picks)) = bad.filter(|_| self.explored.found.len() < FOUND_MAX) {
            let found = self.found((number, state), open, picks);
            self.explored.found.push(found);
        }
    }

    /// Works a state out that may not be: gives it what can be given without making it good.
    fn found(
        &self,
        (point, state): (usize, usize),
        open: &[(u64, Vec<Content>)],
        mut picks: Vec<usize>,
    ) -> Found {
        for i in 0..picks.len() {
            let had = std::mem::replace(&mut picks[i], open[i].1.len() - 1);
            if had != picks[i] && self.check(open, &picks).is_empty() {
                picks[i] = had;
            }
        }
        let missing = open
            .iter()
            .zip(&picks)
            .map(|((at, contents), pick)| (at - self.device.start, contents.len(), *pick));
        let newest: Vec<usize> = open
            .iter()
            .map(|(_, contents)| contents.len() - 1)
            .collect();
        Found {
            point,
            state,
            violations: self.check(open, &picks),
            missing: missing
                .filter(|(_, contents, pick)| pick + 1 < *contents)
                .collect(),
            whole: self.whole(open, &newest),
        }
    }
}
