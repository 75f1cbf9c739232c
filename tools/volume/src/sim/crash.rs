// SPDX-License-Identifier: GPL-2.0

//! The states in which a crash may leave the media.
//!
//! Between two fences nothing becomes durable for certain, and nothing that might have reached the
//! media earlier is excluded later. So the states that a crash right before a fence may leave
//! include those of a crash at any earlier moment since the fence before, and it is enough to look
//! before each fence, and at the end.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;
use std::thread::ThreadId;

use super::{Image, Sim};
use crate::volume::pmem::LINE;

/// Bytes that are never torn.
const WORD: usize = 8;
/// Torn contents that are considered for each store of several words.
const TORN: u64 = 2;

/// Something the program did.
pub(super) enum Event {
    /// Stored `bytes`, which lie in one line.
    Store {
        line: u64,
        offset: u8,
        bytes: Box<[u8]>,
        /// The thread that stored past the cache.
        nt: Option<ThreadId>,
    },
    WriteBack {
        line: u64,
        by: ThreadId,
    },
    Fence {
        by: ThreadId,
    },
    Mark(u64),
}

/// A recording of what a program did to a memory.
pub struct Trace {
    len: u64,
    start: Image,
    events: Vec<Event>,
}

/// How many states to look at.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// States for each fence. If there are fewer, all are looked at, but of the torn contents of a
    /// line only a sample. Else: no line, all lines, each content of a line alone, all lines but
    /// one, and random ones.
    pub per_fence: u64,
    /// Chooses the random ones.
    pub seed: u64,
}

/// One state of the media after a crash.
pub struct Crash {
    /// The memory after the crash, all of it durable.
    pub sim: Sim,
    /// The marks before the crash.
    pub marks: Rc<[u64]>,
    /// Fences before the crash.
    pub fences: u64,
    /// Which of the lines that were not durable hold what.
    lines: Vec<(u64, Choice)>,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "crash after {} fences and mark {:?}:",
            self.fences,
            self.marks.last()
        )?;
        for (line, choice) in &self.lines {
            write!(f, " {line:#x}:{}", choice.stores)?;
            if choice.torn != 0 {
                write!(f, "+{:08b}", choice.torn)?;
            }
        }
        Ok(())
    }
}

/// What a line holds after a crash: its first `stores` stores since it was durable, and of the next
/// one the words in `torn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    stores: usize,
    torn: u8,
}

/// A line that is not durable.
#[derive(Default)]
struct Line {
    stores: Vec<(u8, Box<[u8]>)>,
    /// How many of the stores become durable at the next fence of the thread.
    written_back: HashMap<ThreadId, usize>,
}

/// A small generator of random numbers (SplitMix64), so that a seed gives the same states always.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn apply(content: &mut [u8; LINE as usize], offset: u8, bytes: &[u8]) {
    let offset = usize::from(offset);
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Line {
    /// The contents it may have after a crash; the first is none of its stores, the last all.
    fn choices(&self, random: &mut Random) -> Vec<Choice> {
        let mut choices = Vec::new();
        for (stores, (offset, bytes)) in self.stores.iter().enumerate() {
            choices.push(Choice { stores, torn: 0 });
            let first = usize::from(*offset) / WORD;
            let end = (usize::from(*offset) + bytes.len()).div_ceil(WORD);
            let all = (first..end).fold(0_u8, |mask, word| mask | (1 << word));
            if end - first < 2 {
                continue;
            }
            for _ in 0..TORN {
                let torn = all & random.next() as u8;
                let choice = Choice { stores, torn };
                if torn != 0 && torn != all && !choices.contains(&choice) {
                    choices.push(choice);
                }
            }
        }
        let stores = self.stores.len();
        choices.push(Choice { stores, torn: 0 });
        choices
    }

    fn apply(&self, choice: Choice, content: &mut [u8; LINE as usize]) {
        for (offset, bytes) in &self.stores[..choice.stores] {
            apply(content, *offset, bytes);
        }
        if choice.torn != 0 {
            let (offset, bytes) = &self.stores[choice.stores];
            let mut whole = *content;
            apply(&mut whole, *offset, bytes);
            for word in (0..LINE as usize / WORD).filter(|word| choice.torn & (1 << word) != 0) {
                let range = word * WORD..(word + 1) * WORD;
                content[range.clone()].copy_from_slice(&whole[range]);
            }
        }
    }
}

/// The media while the trace is replayed.
struct Replay<'a> {
    trace: &'a Trace,
    durable: Image,
    lines: BTreeMap<u64, Line>,
    marks: Rc<[u64]>,
    fences: u64,
}

impl Trace {
    pub(super) fn new(len: u64, start: Image) -> Self {
        Trace {
            len,
            start,
            events: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Fences in the recording.
    pub fn fences(&self) -> u64 {
        self.events
            .iter()
            .filter(|event| matches!(event, Event::Fence { .. }))
            .count() as u64
    }

    /// Swaps the stores and write-backs between fence `n`, counted from 0, and the fence before it,
    /// with those between it and the next one: an ordering bug, for tests.
    ///
    /// # Panics
    ///
    /// If there is no fence after it.
    pub fn swap_around(&mut self, n: usize) {
        let fences: Vec<usize> = (0..self.events.len())
            .filter(|i| matches!(self.events[*i], Event::Fence { .. }))
            .collect();
        let start = n.checked_sub(1).map_or(0, |before| fences[before] + 1);
        let (fence, end) = (fences[n], fences[n + 1]);
        // The later part, the fence, the earlier part; marks stay where they are in theirs.
        self.events[start..end].rotate_left(fence + 1 - start);
        let later = end - fence - 1;
        self.events[start + later..end].rotate_right(1);
    }

    /// Calls `visit` with states in which a crash may have left the media. Returns how many.
    pub fn for_each_crash(&self, bounds: Bounds, mut visit: impl FnMut(&Crash)) -> u64 {
        let mut random = Random(bounds.seed);
        let mut replay = Replay {
            trace: self,
            durable: self.start.clone(),
            lines: BTreeMap::new(),
            marks: [].into(),
            fences: 0,
        };
        let mut count = 0;
        for event in &self.events {
            match event {
                Event::Store {
                    line,
                    offset,
                    bytes,
                    nt,
                } => {
                    let line = replay.lines.entry(*line).or_default();
                    line.stores.push((*offset, bytes.clone()));
                    if let Some(by) = nt {
                        line.written_back.insert(*by, line.stores.len());
                    }
                }
                Event::WriteBack { line, by } => {
                    if let Some(line) = replay.lines.get_mut(line) {
                        line.written_back.insert(*by, line.stores.len());
                    }
                }
                Event::Fence { by } => {
                    count += replay.crashes(bounds.per_fence, &mut random, &mut visit);
                    replay.fence(*by);
                }
                Event::Mark(n) => {
                    replay.marks = replay.marks.iter().copied().chain([*n]).collect();
                }
            }
        }
        count + replay.crashes(bounds.per_fence, &mut random, &mut visit)
    }
}

impl Replay<'_> {
    /// A fence waits for what its own thread has written back.
    fn fence(&mut self, by: ThreadId) {
        self.fences += 1;
        for (at, line) in &mut self.lines {
            let Some(durable) = line.written_back.remove(&by) else {
                continue;
            };
            let mut content = [0; LINE as usize];
            self.durable.read(*at, &mut content);
            for (offset, bytes) in line.stores.drain(..durable) {
                apply(&mut content, offset, &bytes);
            }
            for other in line.written_back.values_mut() {
                *other = other.saturating_sub(durable);
            }
            self.durable.write(*at, &content);
        }
        self.lines.retain(|_, line| !line.stores.is_empty());
    }

    fn crashes(&self, limit: u64, random: &mut Random, visit: &mut impl FnMut(&Crash)) -> u64 {
        let choices: Vec<(u64, Vec<Choice>)> = self
            .lines
            .iter()
            .map(|(at, line)| (*at, line.choices(random)))
            .collect();
        let states = choices.iter().fold(1_u64, |product, (_, choices)| {
            product.saturating_mul(choices.len() as u64)
        });
        let mut count = 0;
        let mut crash = |pick: &mut dyn FnMut(usize, usize) -> usize| {
            if count < limit.max(1) {
                count += 1;
                visit(&self.crash(&choices, pick));
            }
        };
        if states <= limit {
            for mut state in 0..states {
                crash(&mut |_, n| {
                    let i = state % n as u64;
                    state /= n as u64;
                    i as usize
                });
            }
            return count;
        }
        crash(&mut |_, _| 0);
        crash(&mut |_, n| n - 1);
        // Each content of each line alone, and each line missing; where they are many, a sample of
        // them: the others get their turn at random.
        let singles: Vec<(usize, usize)> = choices
            .iter()
            .enumerate()
            .flat_map(|(line, (_, choices))| (0..choices.len()).map(move |choice| (line, choice)))
            .collect();
        let step = (singles.len() * 2).div_ceil(limit.max(1) as usize).max(1);
        let start = random.below(step);
        for &(line, choice) in singles.iter().skip(start).step_by(step) {
            match choice {
                0 => crash(&mut |i, n| if i == line { 0 } else { n - 1 }),
                _ => crash(&mut |i, _| if i == line { choice } else { 0 }),
            }
        }
        for _ in 0..limit {
            // Random bits with a random bias: few lines, half of them, most of them.
            let bias = random.below(9);
            crash(&mut |_, n| match random.below(10) {
                0 => random.below(n),
                roll if roll <= bias => n - 1,
                _ => 0,
            });
        }
        count
    }

    /// The crash in which line `i` of `choices`, which has `n`, holds the one that `pick` says.
    fn crash(
        &self,
        choices: &[(u64, Vec<Choice>)],
        pick: &mut dyn FnMut(usize, usize) -> usize,
    ) -> Crash {
        let mut image = self.durable.clone();
        let mut lines = Vec::new();
        for (i, (at, choices)) in choices.iter().enumerate() {
            let choice = choices[pick(i, choices.len())];
            if choice == (Choice { stores: 0, torn: 0 }) {
                continue;
            }
            let mut content = [0; LINE as usize];
            image.read(*at, &mut content);
            self.lines[at].apply(choice, &mut content);
            image.write(*at, &content);
            lines.push((*at, choice));
        }
        Crash {
            sim: Sim::from_image(self.trace.len, image),
            marks: self.marks.clone(),
            fences: self.fences,
            lines,
        }
    }
}
