// SPDX-License-Identifier: GPL-2.0

//! The interface of `volume` to the kernel: growable arrays, locks, counters, checksums. The host
//! tools implement the same names with the standard library.
//!
//! Memory is allocated without recursing into file systems: the volume allocates with its locks
//! held, and reclaim may evict an inode of this very file system, which takes them. Growing arrays
//! are charged to the memory cgroup of the task, unless that has no memory left at the moment:
//! reclaim in the cgroup may need those locks, and the task must not be killed for that.

use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use kernel::alloc::flags::{GFP_KERNEL, GFP_KERNEL_ACCOUNT, GFP_NOWAIT, __GFP_ZERO};
use kernel::alloc::kvec::PushError;
use kernel::alloc::{AllocError, Flags, KBox, KVVec};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{LockClassKey, Mutex, MutexGuard};

use crate::bindings;

/// An allocation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl From<AllocError> for NoMemory {
    fn from(_: AllocError) -> Self {
        NoMemory
    }
}

impl From<NoMemory> for Error {
    fn from(_: NoMemory) -> Self {
        ENOMEM
    }
}

/// Runs `f`; no allocation in it enters a file system to reclaim memory.
pub fn nofs<R>(f: impl FnOnce() -> R) -> R {
    /// Restores the task's flags, also where `f` returns early.
    struct Scope(u32);
    impl Drop for Scope {
        fn drop(&mut self) {
            // SAFETY: the value comes from the matching save, on the same task: `Scope` does not
            // leave this function.
            unsafe { bindings::rdax_memalloc_nofs_restore(self.0) };
        }
    }
    // SAFETY: changes flags of the current task only.
    let _scope = Scope(unsafe { bindings::rdax_memalloc_nofs_save() });
    f()
}

/// Runs `f`, an allocation with the given flags; if it fails, runs it again with other flags.
fn charged<T>(mut f: impl FnMut(Flags) -> Result<T, AllocError>) -> Result<T, AllocError> {
    let at_once = GFP_NOWAIT | (GFP_KERNEL_ACCOUNT & !GFP_KERNEL);
    f(at_once).or_else(|_| nofs(|| f(GFP_KERNEL)))
}

/// A growable array whose growth can fail.
#[derive(Debug)]
pub struct Vec<T>(ManuallyDrop<KVVec<T>>);

impl<T> Drop for Vec<T> {
    #[inline]
    fn drop(&mut self) {
        // Many never get an element: four per inode.
        if self.0.capacity() > 0 {
            // SAFETY: not used after this.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

impl<T> Default for Vec<T> {
    fn default() -> Self {
        Vec::new()
    }
}

impl<T> Vec<T> {
    /// An empty array; allocates nothing.
    pub const fn new() -> Self {
        Vec(ManuallyDrop::new(KVVec::new()))
    }

    /// An empty array with room for `n`.
    pub fn with_capacity(n: usize) -> Result<Self, NoMemory> {
        let vec = charged(|flags| KVVec::with_capacity(n, flags))?;
        Ok(Vec(ManuallyDrop::new(vec)))
    }

    /// Makes room for `n` more elements, so that as many pushes cannot fail.
    pub fn reserve(&mut self, n: usize) -> Result<(), NoMemory> {
        if self.0.capacity() - self.0.len() >= n {
            return Ok(());
        }
        Ok(charged(|flags| self.0.reserve(n, flags))?)
    }

    /// Appends `value`.
    pub fn push(&mut self, value: T) -> Result<(), NoMemory> {
        match self.0.push_within_capacity(value) {
            Ok(()) => Ok(()),
            Err(PushError(value)) => {
                charged(|flags| self.0.reserve(1, flags))?;
                // There is room.
                Ok(self.0.push(value, GFP_NOWAIT)?)
            }
        }
    }

    /// Takes the last element.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Drops all elements but the first `len`; keeps the memory.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Drops all elements; keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes element `i`, which must exist, and returns it; the last one moves to its place.
    pub fn swap_remove(&mut self, i: usize) -> Option<T> {
        let last = self.0.pop()?;
        Some(match self.0.get_mut(i) {
            Some(place) => core::mem::replace(place, last),
            None => last,
        })
    }

    /// Keeps the elements for which `f` holds, in their order.
    pub fn retain(&mut self, mut f: impl FnMut(&T) -> bool) {
        self.0.retain(|value| f(value));
    }

    /// Appends copies of `items`.
    pub fn extend_from_slice(&mut self, items: &[T]) -> Result<(), NoMemory>
    where
        T: Copy,
    {
        self.reserve(items.len())?;
        // There is room.
        Ok(self.0.extend_from_slice(items, GFP_NOWAIT)?)
    }
}

impl Vec<u8> {
    /// `n` zero bytes.
    pub fn zeroed(n: usize) -> Result<Self, NoMemory> {
        let mut vec = charged(|flags| KVVec::with_capacity(n, flags | __GFP_ZERO))?;
        // SAFETY: there is room for `n`, and the allocator has made it zero. (`from_elem` writes
        // byte by byte.)
        unsafe { vec.inc_len(n) };
        Ok(Vec(ManuallyDrop::new(vec)))
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

/// A sleeping lock around a `T`.
///
/// Each has its own lockdep class: with one static class for all, lockdep would mistake a lane's
/// lock and a group's for the same and report their nesting.
/// group's for the same and report their nesting.
pub struct Lock<T>(Pin<KBox<Inner<T>>>);

/// Access to what a [`Lock`] protects, until it is dropped.
pub type Guard<'a, T> = MutexGuard<'a, T>;

#[pin_data]
struct Inner<T> {
    // Dropped in this order: the mutex before its class.
    #[pin]
    mutex: Mutex<T>,
    #[pin]
    class: LockClassKey,
}

impl<T: Unpin> Lock<T> {
    /// A lock around `value`.
    pub fn new(value: T) -> Result<Self, NoMemory> {
        let init = pin_init!(&this in Inner {
            class <- LockClassKey::new_dynamic(),
            mutex <- {
                // SAFETY: `class` was initialised above, is pinned with the struct, and outlives
                // `mutex`, its only user: the mutex is dropped first and no reference to it
                // outlives the struct. So the class is as good as static to it.
                let class = unsafe { Pin::new_unchecked(&(*this.as_ptr()).class) };
                Mutex::new(value, c"rdax_volume", class)
            },
        });
        nofs(|| KBox::pin_init(init, GFP_KERNEL))
            .map(Lock)
            .map_err(|_| NoMemory)
    }

    /// Waits for the lock and takes it. May sleep.
    pub fn lock(&self) -> Guard<'_, T> {
        self.0.mutex.lock()
    }

    /// Takes the lock if nobody holds it.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.0.mutex.try_lock()
    }
}

/// A shared counter without ordering.
pub struct Counter(Atomic<i64>);

impl Counter {
    /// A counter at `value`.
    pub const fn new(value: i64) -> Self {
        Counter(Atomic::new(value))
    }

    /// Adds `delta` and returns the sum.
    pub fn add(&self, delta: i64) -> i64 {
        self.0.fetch_add(delta, Relaxed).wrapping_add(delta)
    }

    /// Takes up to `most` from it in one step, but at least `least`, so that `kept` is left.
    /// Returns how much it took.
    pub fn take(&self, least: i64, most: i64, kept: i64) -> Option<i64> {
        let mut value = self.get();
        loop {
            let taken = most.min(value.saturating_sub(kept));
            if taken < least {
                return None;
            }
            match self.0.cmpxchg(value, value - taken, Relaxed) {
                Ok(_) => return Some(taken),
                Err(now) => value = now,
            }
        }
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// CRC-32C of what `seed` is the CRC of (0: of nothing), followed by `bytes`.
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    // SAFETY: reads `bytes.len()` bytes of a live slice.
    !unsafe { bindings::crc32c(!seed, bytes.as_ptr().cast(), bytes.len()) }
}

/// SipHash-2-4 of `data`.
pub fn siphash24(key: &[u8; 16], data: &[u8]) -> u64 {
    // SAFETY: reads 16 bytes of `key` and `data.len()` of `data`, both live.
    unsafe { bindings::rdax_siphash24(key.as_ptr(), data.as_ptr().cast(), data.len()) }
}

/// The number of the CPU this ran on: a hint that spreads work, nothing more.
pub fn cpu() -> usize {
    // SAFETY: reads a per-CPU variable; that the task may move at once is part of the contract.
    let cpu = unsafe { bindings::raw_smp_processor_id() };
    usize::try_from(cpu).unwrap_or(0)
}
