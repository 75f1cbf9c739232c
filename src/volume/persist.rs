// SPDX-License-Identifier: GPL-2.0

//! Persistence order as types.
//!
//! What one step of a protocol stores goes through a [`Dirty`]; written back it is a
//! [`WrittenBack`]; a fence makes it [`Durable`]. A function whose operand must be durable takes
//! the `Durable` of that step, and nothing but a fence makes one: a step with a flush or a fence
//! left out does not compile.
//!
//! Metadata is stored nowhere else: [`Pmem::store`], [`Pmem::write_back`] and [`Pmem::fence`] are
//! called by this module only (file data goes past the cache and is ordered by
//! [`Dirty::ordered`]).

use core::marker::PhantomData;

use super::error::Result;
use super::pmem::{Pmem, LINE};

/// Ranges of lines that wait at a time.
const RANGES: usize = 8;

/// The stores of step `S`, in the CPU cache at least.
///
/// A few ranges of lines wait here to be written back, so that a line that several stores of a step
/// change is written back once: the records of a directory, a bitmap and its summary.
#[must_use = "stores are lost in a crash unless they are written back and fenced"]
pub struct Dirty<'p, P: Pmem, S> {
    pmem: &'p P,
    /// Lines stored and not yet written back: first byte, and end. Empty ranges are `(0, 0)`.
    ranges: [(u64, u64); RANGES],
    /// The range that makes room for the next.
    oldest: usize,
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

impl<'p, P: Pmem, S> Dirty<'p, P, S> {
    /// A step that has stored nothing yet.
    pub fn new(pmem: &'p P) -> Self {
        Dirty {
            pmem,
            ranges: [(0, 0); RANGES],
            oldest: 0,
            unfenced: false,
            step: PhantomData,
        }
    }

    /// Stores `bytes` at `at` through the cache.
    pub fn store(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let first = at - at % LINE;
        let end = (at + bytes.len() as u64).next_multiple_of(LINE);
        let near =
            |range: &&mut (u64, u64)| range.0 < range.1 && first <= range.1 && end >= range.0;
        if let Some(range) = self.ranges.iter_mut().find(near) {
            *range = (range.0.min(first), range.1.max(end));
        } else if let Some(range) = self.ranges.get_mut(self.oldest) {
            let (first, end) = core::mem::replace(range, (first, end));
            if first < end {
                self.pmem.write_back(first, end - first);
            }
            self.oldest = (self.oldest + 1) % RANGES;
        }
        self.unfenced = true;
        self.pmem.store(at, bytes)
    }

    /// Stores `len` zero bytes at `at` past the cache.
    pub fn zero(&mut self, at: u64, len: u64) -> Result<()> {
        self.unfenced = true;
        self.pmem.zero_nt(at, len)
    }

    /// Counts stores that somebody else made past the cache, or has written back, to this step.
    pub fn ordered(&mut self) {
        self.unfenced = true;
    }

    /// Writes back what is not yet.
    pub fn write_back(self) -> WrittenBack<'p, P, S> {
        for (first, end) in self.ranges {
            if first < end {
                self.pmem.write_back(first, end - first);
            }
        }
        WrittenBack {
            pmem: self.pmem,
            unfenced: self.unfenced,
            step: PhantomData,
        }
    }

    /// Ends the step and starts it afresh: for owners that cannot be taken apart.
    pub fn take(&mut self) -> Self {
        core::mem::replace(self, Dirty::new(self.pmem))
    }
}

impl<P: Pmem, S> WrittenBack<'_, P, S> {
    /// Waits until the media has the stores. Costs nothing if there were none.
    pub fn fence(self) -> Result<Durable<S>> {
        if self.unfenced {
            self.pmem.fence()?;
        }
        Ok(Durable { step: PhantomData })
    }
}
