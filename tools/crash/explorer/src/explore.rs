// SPDX-License-Identifier: GPL-2.0

//! The states that crashes may leave of rdax, each recovered with the module's own code and judged.

use std::cell::RefCell;
use std::collections::HashSet;

use anyhow::Result;
use pmem_crash_model::media::{change, line, Content, Media};
use pmem_crash_model::states::{self, Line, Random};
use rdax_crash_ops::{recover, Violation};

use crate::image::{Image, Scratch};
use crate::subject::Judge;
use crate::walk::{durable, image, lines, walk, Moment, Open, Recorded};

/// How many states are tried.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// About this many states at each point.
    pub per_point: usize,
    /// Chooses them where there are more.
    pub seed: u64,
    /// Look at one state only: point and number of the state.
    pub only: Option<(usize, usize)>,
}

/// A moment at which crashes were tried.
#[derive(Clone, Debug)]
pub struct Point {
    pub moment: Moment,
    /// Lines that a crash may leave in several contents.
    pub open: usize,
    /// Different states that were checked and had not been before.
    pub states: usize,
    /// Of these, states that are not allowed.
    pub violations: usize,
}

/// A state that is not allowed.
pub struct Found {
    /// The number of the point, and of the state there: with the recording, the seed and the states
    /// a point, they lead back here.
    pub point: usize,
    pub state: usize,
    /// What was violated.
    pub violations: Vec<Violation>,
    /// The minimal state: the lines that lack stores, how many contents each had in order, and
    /// which of them it has.
    pub missing: Vec<(u64, usize, usize)>,
    /// The device if nothing had been lost, to name the lines by.
    pub whole: Vec<u8>,
}

/// One state as an image, for others to recover.
pub struct Sample {
    /// The device.
    pub image: Vec<u8>,
    /// When the crash was.
    pub moment: Moment,
}

/// The result for one recording.
#[derive(Default)]
pub struct Explored {
    /// A state chosen at random.
    pub sample: Option<Sample>,
    pub points: Vec<Point>,
    /// The first forbidden state of each point, up to a few.
    pub found: Vec<Found>,
}

/// The bad states are worked out for this many points.
const FOUND_MAX: usize = 3;

/// One replay.
struct Explorer<'a> {
    judge: &'a dyn Judge,
    recorded: &'a Recorded<'a>,
    bounds: Bounds,
    /// Called with the number of states checked.
    progress: &'a (dyn Fn(usize) + Sync),
    scratch: RefCell<Scratch>,
    /// States that were checked: their sums, and what had been done.
    seen: HashSet<(u128, usize, bool)>,
    explored: Explored,
}

/// The memory at one moment, as the explorer's methods need it.
struct View<'a> {
    moment: Moment,
    media: &'a Media,
    open: &'a Open,
}

/// Tries the states that crashes may leave while what was `recorded` runs.
///
/// Fails if the recording does not have all the operations, or one of them failed.
pub fn explore(
    judge: &dyn Judge,
    recorded: &Recorded,
    bounds: Bounds,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Explored> {
    let device = recorded.device.clone();
    let mut explorer = Explorer {
        judge,
        recorded,
        bounds,
        progress,
        scratch: RefCell::new(Scratch::new((device.end - device.start) as usize)),
        seen: HashSet::new(),
        explored: Explored::default(),
    };
    walk(recorded, &mut |moment, media, open| {
        let mut point = Point {
            moment,
            open: open.len(),
            states: 0,
            violations: 0,
        };
        if bounds.only.is_none_or(|(only, _)| only == moment.number) {
            let view = View {
                moment,
                media,
                open,
            };
            explorer.look(&view, &mut point);
        }
        explorer.explored.points.push(point);
    })?;
    Ok(explorer.explored)
}

/// The newest content of each line.
fn newest(open: &Open) -> Vec<usize> {
    open.iter()
        .map(|(_, contents)| contents.len() - 1)
        .collect()
}

impl Explorer<'_> {
    /// The volume's image in which the open lines have the contents `picks`.
    fn image<'i>(&'i self, view: &View<'i>, picks: &[usize]) -> Image<'i> {
        let device = &self.recorded.device;
        let base = durable(view.media, device);
        Image::new(base, &self.scratch, lines(device, view.open, picks))
    }

    /// What is wrong with the state `picks`.
    fn check(&self, view: &View, picks: &[usize]) -> Vec<Violation> {
        let Moment {
            finished,
            in_flight,
            ..
        } = view.moment;
        match recover(self.image(view, picks)) {
            Ok(volume) => self.judge.check(&volume, finished, in_flight),
            Err(violation) => vec![violation],
        }
    }

    /// Which of the lines mounting reads, with none of the open ones on the media or with all.
    fn deciding(&self, view: &View) -> Vec<Line> {
        let none = vec![0; view.open.len()];
        let reads = [none, newest(view.open)].map(|picks| {
            let image = self.image(view, &picks);
            image.watch();
            // What it reads is of interest even if it fails then.
            let _ = recover(&image);
            image.watched()
        });
        let start = self.recorded.device.start;
        let lines = view.open.iter().map(|(at, contents)| Line {
            contents: contents.len(),
            decides: reads.iter().any(|read| read(at - start)),
        });
        lines.collect()
    }

    fn look(&mut self, view: &View, point: &mut Point) {
        let View {
            moment,
            media,
            open,
        } = *view;
        let lines = self.deciding(view);
        let deltas: Vec<Vec<u128>> = open
            .iter()
            .map(|(at, contents)| {
                let durable = line(media.durable(), *at);
                contents
                    .iter()
                    .map(|new: &Content| change(*at, durable, new))
                    .collect()
            })
            .collect();
        let number = moment.number;
        let mut random = Random::new(self.bounds.seed.wrapping_add((number as u64) << 32));
        // Of n points each is taken with the same chance.
        if random.below(number + 1) == 0 {
            let picks: Vec<usize> = lines
                .iter()
                .map(|line| random.below(line.contents))
                .collect();
            self.explored.sample = Some(Sample {
                image: image(media, &self.recorded.device, open, &picks),
                moment,
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
            let sum = changes.fold(media.sum(), u128::wrapping_add);
            let wanted = match self.bounds.only {
                Some((_, only)) => only == this,
                None => seen.insert((sum, moment.finished, moment.in_flight)),
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
            let violations = self.check(view, picks);
            if !violations.is_empty() {
                point.violations += 1;
                bad.get_or_insert_with(|| (this, picks.to_vec()));
            }
        });
        (self.progress)(unreported);
        self.seen = seen;
        if let Some((state, picks)) = bad.filter(|_| self.explored.found.len() < FOUND_MAX) {
            let found = self.found((number, state), view, picks);
            self.explored.found.push(found);
        }
    }

    /// Minimises a forbidden state: makes every line current as long as it stays forbidden.
    fn found(&self, (point, state): (usize, usize), view: &View, mut picks: Vec<usize>) -> Found {
        let newest = newest(view.open);
        for i in 0..picks.len() {
            let had = std::mem::replace(&mut picks[i], newest[i]);
            if had != picks[i] && self.check(view, &picks).is_empty() {
                picks[i] = had;
            }
        }
        let device = &self.recorded.device;
        let missing = view
            .open
            .iter()
            .zip(&picks)
            .map(|((at, contents), pick)| (at - device.start, contents.len(), *pick));
        Found {
            point,
            state,
            violations: self.check(view, &picks),
            missing: missing
                .filter(|(_, contents, pick)| pick + 1 < *contents)
                .collect(),
            whole: image(view.media, device, view.open, &newest),
        }
    }
}
