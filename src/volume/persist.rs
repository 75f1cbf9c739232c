// SPDX-License-Identifier: GPL-2.0

//! Persistence order as types.
//!
//! The stores of one step of a protocol go through a [`Dirty`]; written back it is a
//! [`WrittenBack`]; a fence makes it [`Durable`]. A function whose operand must be durable takes
//! the `Durable` of that step, and only a fence creates one: code that leaves out a write-back or a
//! fence does not compile.
//!
//! Metadata is stored nowhere else: [`Pmem::store`], [`Pmem::write_back`] and [`Pmem::fence`] are
//! called by this module only (file data goes past the cache and is ordered by
//! [`Dirty::ordered`]).

use core::marker::PhantomData;

use super::error::Result;
use super::format::MAX_BYTES;
use super::pmem::{Pmem, LINE};
use crate::mutate::mutated;

/// How many ranges of lines can wait at a time.
const RANGES: usize = 6;

/// The stores of step `S`, in the CPU cache at least.
///
/// A few ranges of lines wait here to be written back, so that a line that several stores of a step
/// change is written back once: the records of a directory, a bitmap and its summary.
#[must_use = "stores are lost in a crash unless they are written back and fenced"]
pub struct Dirty<'p, P: Pmem, S> {
    pmem: &'p P,
    /// Lines stored and not yet written back.
    ranges: [Lines; RANGES],
    /// The number of ranges.
    count: u8,
    /// Something waits for a fence.
    unfenced: bool,
    step: PhantomData<S>,
}

/// The stores of step `S`, on their way to the media.
#[must_use = "stores are lost in a crash unless they are fenced"]
pub struct WrittenBack<'p, P: Pmem, S> {
    pmem: &'p P,
    unfenced: bool,
    step: PhantomData<S>,
}

/// Proof that the stores of step `S` are on the media.
#[must_use = "the next step takes it"]
pub struct Durable<S> {
    step: PhantomData<S>,
}

/// Adjacent lines: the first one's number above [`COUNT_BITS`], and their number. (Small: a commit
/// moves a few of these.)
#[derive(Clone, Copy, Default)]
struct Lines(u64);

/// Bits of [`Lines`] that hold the number of lines: those that a line number leaves free.
const COUNT_BITS: u32 = u64::BITS - (MAX_BYTES / LINE).ilog2();

impl Lines {
    /// The lines from `first` up to `end`. `None` if they are more than a range can count.
    fn new(first: u64, end: u64) -> Option<Self> {
        let count = end - first;
        (count < 1 << COUNT_BITS).then_some(Lines((first << COUNT_BITS) | count))
    }

    fn first(self) -> u64 {
        self.0 >> COUNT_BITS
    }

    fn end(self) -> u64 {
        self.first() + (self.0 & ((1 << COUNT_BITS) - 1))
    }

    fn write_back<P: Pmem>(self, pmem: &P) {
        pmem.write_back(self.first() * LINE, (self.end() - self.first()) * LINE);
    }
}

impl<'p, P: Pmem, S> Dirty<'p, P, S> {
    /// A step that has stored nothing yet.
    #[inline]
    pub fn new(pmem: &'p P) -> Self {
        Dirty {
            pmem,
            ranges: [Lines::default(); RANGES],
            count: 0,
            unfenced: false,
            step: PhantomData,
        }
    }

    /// Stores `bytes` at `at` through the cache.
    pub fn store(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.unfenced = true;
        self.pmem.store(at, bytes)?;
        let (first, end) = (at / LINE, (at + bytes.len() as u64).div_ceil(LINE));
        for range in self.ranges.iter_mut().take(usize::from(self.count)) {
            if first <= range.end() && end >= range.first() {
                let joined = Lines::new(range.first().min(first), range.end().max(end));
                if let Some(joined) = joined {
                    *range = joined;
                    return Ok(());
                }
            }
        }
        let Some(lines) = Lines::new(first, end) else {
            self.pmem.write_back(first * LINE, (end - first) * LINE);
            return Ok(());
        };
        if usize::from(self.count) == RANGES {
            // Makes room: the oldest is written back.
            self.ranges[0].write_back(self.pmem);
            self.ranges.rotate_left(1);
            self.count -= 1;
        }
        if let Some(range) = self.ranges.get_mut(usize::from(self.count)) {
            *range = lines;
            self.count += 1;
        }
        Ok(())
    }

    /// Stores `len` zero bytes at `at` past the cache.
    pub fn zero(&mut self, at: u64, len: u64) -> Result<()> {
        self.unfenced = true;
        self.pmem.zero_nt(at, len)
    }

    /// Adds stores to this step that the caller made past the cache, or has written back.
    pub fn ordered(&mut self) {
        self.unfenced = true;
    }

    /// Whether nothing was stored.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.unfenced
    }

    /// Writes back what was not written back yet.
    #[inline]
    pub fn write_back(self) -> WrittenBack<'p, P, S> {
        let count = match lacks_write_back::<S>() {
            false => usize::from(self.count),
            true => 0,
        };
        for range in self.ranges.iter().take(count) {
            range.write_back(self.pmem);
        }
        WrittenBack {
            pmem: self.pmem,
            unfenced: self.unfenced,
            step: PhantomData,
        }
    }

    /// Ends the step and starts a new one: for owners that cannot be moved out of.
    #[inline]
    pub fn take(&mut self) -> Self {
        core::mem::replace(self, Dirty::new(self.pmem))
    }
}

impl<P: Pmem, S> WrittenBack<'_, P, S> {
    /// Waits until the media has the stores. Costs nothing if there were none.
    pub fn fence(self) -> Result<Durable<S>> {
        if self.unfenced && !lacks_fence::<S>() {
            self.pmem.fence()?;
        }
        Ok(Durable { step: PhantomData })
    }
}

/// Whether step `S` is the one called `name`.
#[inline(always)]
fn is<S>(name: &str) -> bool {
    core::any::type_name::<S>().ends_with(name)
}

/// Whether this build leaves out the write-back of step `S`.
#[inline(always)]
#[allow(clippy::nonminimal_bool)] // Clippy mistakes the names for one another.
fn lacks_write_back<S>() -> bool {
    mutated!("prepared-write-back") && is::<S>("::Prepared")
        || mutated!("log-write-back") && is::<S>("::Logged")
        || mutated!("apply-write-back") && is::<S>("::Applied")
        || mutated!("retire-write-back") && is::<S>("::Retired")
}

/// Whether this build leaves out the fence of step `S`.
#[inline(always)]
#[allow(clippy::nonminimal_bool)] // Clippy mistakes the names for one another.
fn lacks_fence<S>() -> bool {
    mutated!("prepared-fence") && is::<S>("::Prepared")
        || mutated!("log-fence") && is::<S>("::Logged")
        || mutated!("apply-fence") && is::<S>("::Applied")
        || mutated!("retire-fence") && is::<S>("::Retired")
}
