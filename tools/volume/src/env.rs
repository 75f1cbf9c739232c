// SPDX-License-Identifier: GPL-2.0

//! What the volume takes from its surroundings, on the host. `src/env.rs` is the kernel's side of
//! the same names.

use std::cell::Cell;
use std::collections::TryReserveError;
use std::hash::Hasher;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use siphasher::sip::SipHasher24;

/// An allocation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl From<TryReserveError> for NoMemory {
    fn from(_: TryReserveError) -> Self {
        NoMemory
    }
}

thread_local! {
    /// Allocations of this thread that still succeed; negative: all of them.
    static ALLOCATIONS_LEFT: Cell<i64> = const { Cell::new(-1) };
    /// One of them has failed.
    static ALLOCATION_FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Makes every allocation of this thread after the next `count` fail, until it is called with
/// `None`. For tests of what a failure leaves behind.
pub fn fail_allocations_after(count: Option<u32>) {
    ALLOCATIONS_LEFT.set(count.map_or(-1, i64::from));
    ALLOCATION_FAILED.set(false);
}

/// Whether an allocation was made to fail since then.
pub fn allocation_failed() -> bool {
    ALLOCATION_FAILED.get()
}

fn may_allocate() -> Result<(), NoMemory> {
    match ALLOCATIONS_LEFT.get() {
        0 => {
            ALLOCATION_FAILED.set(true);
            Err(NoMemory)
        }
        n if n < 0 => Ok(()),
        n => {
            ALLOCATIONS_LEFT.set(n - 1);
            Ok(())
        }
    }
}

/// A growable array whose growth can fail.
#[derive(Debug, Default)]
pub struct Vec<T>(std::vec::Vec<T>);

impl<T> Vec<T> {
    /// An empty array.
    pub const fn new() -> Self {
        Vec(std::vec::Vec::new())
    }

    /// An empty array with room for `n` elements.
    pub fn with_capacity(n: usize) -> Result<Self, NoMemory> {
        let mut v = Vec::new();
        v.reserve(n)?;
        Ok(v)
    }

    /// Makes room for `n` more elements, so that as many pushes cannot fail.
    pub fn reserve(&mut self, n: usize) -> Result<(), NoMemory> {
        if self.0.capacity() - self.0.len() < n {
            may_allocate()?;
            self.0.try_reserve(n)?;
        }
        Ok(())
    }

    /// Appends `value`.
    pub fn push(&mut self, value: T) -> Result<(), NoMemory> {
        self.reserve(1)?;
        self.0.push(value);
        Ok(())
    }

    /// Takes the last element.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Drops all elements and keeps the room.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Drops the elements after the first `n`.
    pub fn truncate(&mut self, n: usize) {
        self.0.truncate(n);
    }

    /// Takes out element `i`, which must exist, and returns it; the last one moves to its place.
    pub fn swap_remove(&mut self, i: usize) -> Option<T> {
        Some(self.0.swap_remove(i))
    }

    /// Appends `values`.
    pub fn retain(&mut self, f: impl FnMut(&T) -> bool) {
        self.0.retain(f);
    }

    pub fn extend_from_slice(&mut self, values: &[T]) -> Result<(), NoMemory>
    where
        T: Copy,
    {
        self.reserve(values.len())?;
        self.0.extend_from_slice(values);
        Ok(())
    }
}

impl Vec<u8> {
    /// `n` zero bytes.
    pub fn zeroed(n: usize) -> Result<Self, NoMemory> {
        let mut v = Vec::with_capacity(n)?;
        v.0.resize(n, 0);
        Ok(v)
    }
}

impl<T> Deref for Vec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Vec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// A mutex that may sleep.
#[derive(Debug)]
pub struct Lock<T>(Mutex<T>);

/// The right to touch what a [`Lock`] protects; released when dropped.
pub type Guard<'a, T> = MutexGuard<'a, T>;

impl<T> Lock<T> {
    /// An open lock around `value`.
    pub fn new(value: T) -> Result<Self, NoMemory> {
        may_allocate()?;
        Ok(Lock(Mutex::new(value)))
    }

    /// Takes the lock, waiting for it.
    pub fn lock(&self) -> Guard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock unless somebody has it.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A number that many threads add to; orders nothing else.
#[derive(Debug)]
pub struct Counter(AtomicI64);

impl Counter {
    /// Starts at `value`.
    pub const fn new(value: i64) -> Self {
        Counter(AtomicI64::new(value))
    }

    /// Adds `delta`, wrapping. Returns the sum.
    pub fn add(&self, delta: i64) -> i64 {
        self.0
            .fetch_add(delta, Ordering::Relaxed)
            .wrapping_add(delta)
    }

    /// Takes `most` from it in one step, or less, but not less than `least`, so that `kept` is
    /// left. Returns how much it took.
    pub fn take(&self, least: i64, most: i64, kept: i64) -> Option<i64> {
        let take = |value: i64| {
            let taken = most.min(value.saturating_sub(kept));
            (taken >= least).then_some(taken)
        };
        let update = |value| take(value).map(|taken| value - taken);
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        before.ok().and_then(take)
    }

    /// The present value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// CRC-32C of `bytes`, continued from `seed` (0 to start).
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(seed, bytes)
}

/// SipHash-2-4 of `data`, with `key` as two little-endian words.
pub fn siphash24(key: &[u8; 16], data: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(data);
    hasher.finish()
}

thread_local! {
    static CPU: Cell<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Cell::new(NEXT.fetch_add(1, Ordering::Relaxed))
    };
}

/// A number that differs between threads that run at a time: a hint that spreads them.
pub fn cpu() -> usize {
    CPU.get()
}

/// Makes `number` what [`cpu`] says in this thread: for what has to be the same in every run.
pub fn set_cpu(number: usize) {
    CPU.set(number);
}
