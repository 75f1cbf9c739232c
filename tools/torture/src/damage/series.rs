// SPDX-License-Identifier: GPL-2.0

//! The series of damaged volumes of a seed: number `n` is always the same one.

use fastrand::Rng;

use super::change::{Change, Damager, Hits};
use super::cow::Cow;
use super::history::Base;
use super::trial::{Fault, Seen, Trial};

/// Images that are made from one volume.
pub const PER_BASE: u64 = 256;

/// A number for `what` that is unrelated to that of its neighbours (SplitMix64).
fn mix(seed: u64, what: u64) -> u64 {
    let mut z = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(what)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The undamaged volume from which the images from `number` on are made, up to the next multiple of
/// [`PER_BASE`].
pub fn base(seed: u64, number: u64) -> Base {
    Base::new(mix(seed, u64::MAX - number / PER_BASE))
}

/// A damaged volume.
pub struct Image<'b> {
    pub base: &'b Base,
    pub number: u64,
    pub changes: Vec<Change>,
    seed: u64,
}

impl<'b> Image<'b> {
    /// Image `number` of the series, which is made from `base`.
    pub fn new(base: &'b Base, seed: u64, number: u64) -> Self {
        let seed = mix(seed, number);
        let mut rng = Rng::with_seed(seed);
        let cow = Cow::new(&base.bytes);
        let count = rng.usize(1..=4);
        let mut damager = Damager {
            base,
            rng: &mut rng,
        };
        let changes = (0..count).map(|_| damager.change(&cow)).collect();
        Image {
            base,
            number,
            changes,
            seed,
        }
    }

    /// The device with the changes of which `keep` has the bit set.
    pub fn device(&self, keep: u32) -> Cow<'b> {
        let cow = Cow::new(&self.base.bytes);
        self.kept(keep).for_each(|change| change.apply(&cow));
        cow
    }

    fn kept(&self, keep: u32) -> impl Iterator<Item = &Change> {
        let changes = self.changes.iter().enumerate();
        let kept = changes.filter(move |(n, _)| (keep >> n) & 1 == 1);
        kept.map(|(_, change)| change)
    }

    /// All changes, for [`Image::device`] and [`Image::run`].
    pub fn all(&self) -> u32 {
        (1 << self.changes.len()) - 1
    }

    /// Runs the trial with the changes of which `keep` has the bit set.
    pub fn run(&self, keep: u32) -> Result<Seen, Fault> {
        let mut hits = Hits::default();
        self.kept(keep).for_each(|change| hits.join(&change.hits));
        let trial = Trial {
            base: self.base,
            hits,
            seed: self.seed,
        };
        trial.run(&self.device(keep))
    }

    /// The smallest set of changes that still breaks the rule that `fault` has found, and the
    /// fault.
    pub fn minimal(&self, fault: Fault) -> (u32, Fault) {
        let (mut keep, mut found) = (self.all(), fault);
        for n in 0..self.changes.len() {
            let fewer = keep & !(1 << n);
            match self.run(fewer) {
                Err(fault) if fault.rule == found.rule => (keep, found) = (fewer, fault),
                _ => {}
            }
        }
        (keep, found)
    }

    /// The changes of which `keep` has the bit set, in words.
    pub fn describe(&self, keep: u32) -> String {
        let mut text = String::new();
        for change in self.kept(keep) {
            text += "  ";
            text += &change.what;
            text.push('\n');
        }
        text
    }
}
