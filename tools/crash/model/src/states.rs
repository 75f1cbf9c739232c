// SPDX-License-Identifier: GPL-2.0

//! Which of the states that a crash may leave at one moment are tried.

/// A small generator of random numbers (SplitMix64): a seed gives the same states always.
pub struct Random(u64);

impl Random {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not zero.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// A line that may be left in several contents.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// How many contents, at least 2. 0 is what is durable, the last one the newest.
    pub contents: usize,
    /// Recovery reads it: what it holds decides what recovery does.
    pub decides: bool,
}

/// Number of combinations of the contents of `lines`, at most `usize::MAX`.
fn product<'a>(lines: impl IntoIterator<Item = &'a Line>) -> usize {
    let contents = lines.into_iter().map(|line| line.contents);
    contents.fold(1, usize::saturating_mul)
}

/// Calls `visit` with states: for each of `lines` the number of its content. About `limit` of them:
///
/// * all there are, if these are no more;
/// * else no line and all lines, each line alone and all lines but one, all combinations of the
///   lines that decide with none and with all of the others if that is half of the limit, and
///   random ones. A state may come twice.
pub fn each(lines: &[Line], limit: usize, random: &mut Random, visit: &mut dyn FnMut(&[usize])) {
    let mut picks = vec![0; lines.len()];
    if product(lines) <= limit {
        let all: Vec<usize> = (0..lines.len()).collect();
        combine(lines, &all, &mut picks, visit);
        return;
    }
    let newest: Vec<usize> = lines.iter().map(|line| line.contents - 1).collect();
    visit(&picks);
    visit(&newest);
    // Where lines are many, a sample of them: the others get their turn at random.
    let step = (lines.len() * 4).div_ceil(limit).max(1);
    let first = random.below(step);
    for single in (first..lines.len()).step_by(step) {
        picks.fill(0);
        picks[single] = newest[single];
        visit(&picks);
        picks.copy_from_slice(&newest);
        picks[single] = 0;
        visit(&picks);
    }
    let deciding: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].decides).collect();
    let few = product(deciding.iter().map(|i| &lines[*i])) <= limit / 4;
    if few && !deciding.is_empty() {
        picks.fill(0);
        combine(lines, &deciding, &mut picks, visit);
        picks.copy_from_slice(&newest);
        combine(lines, &deciding, &mut picks, visit);
    }
    for round in 0..limit / 2 {
        // Random bits with a random bias: few lines, half of them, most of them. Every other time
        // the lines that decide nothing are all there, or none is.
        let bias = 1 + random.below(8);
        let rest = random.below(2);
        for (i, line) in lines.iter().enumerate() {
            picks[i] = match random.below(10) {
                _ if round % 2 == 0 && !line.decides && !few => rest * newest[i],
                0 => random.below(line.contents),
                roll if roll <= bias => newest[i],
                _ => 0,
            };
        }
        visit(&picks);
    }
}

/// Calls `visit` with every combination of the lines with the numbers `these`, the others as they
/// are in `picks`.
fn combine(lines: &[Line], these: &[usize], picks: &mut [usize], visit: &mut dyn FnMut(&[usize])) {
    for i in these {
        picks[*i] = 0;
    }
    loop {
        visit(picks);
        let Some(next) = these.iter().find(|i| {
            picks[**i] = (picks[**i] + 1) % lines[**i].contents;
            picks[**i] != 0
        }) else {
            return;
        };
        debug_assert!(picks[*next] > 0);
    }
}
