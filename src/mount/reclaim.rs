// SPDX-License-Identifier: GPL-2.0

//! Frees chunks when memory is short: the chunks of all files are in one list, by memory cgroup,
//! and the shrinker takes those that were not used for a while. It writes back what is dirty in
//! one, unmaps its pages and takes them from the file. The next access faults, and looks everything
//! up again.
//!
//! A chunk is freed under the lock of its inode that proves that nobody else has a reference to a
//! chunk ([`Tracker::try_freeing`]), with faults kept out, if none of its pages is pinned. Both
//! locks are only tried for: the task that needs memory may hold them.

use core::ptr::{null_mut, NonNull};

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

use super::inode::InodeInfo;
use super::lru::{List, Object, Place, Verdict};
use super::tracker::{free, Chunk, Tracker};
use crate::track::layout::reclaim;

/// The most inodes whose chunks are taken at once: each has a lock.
const INODES_MAX: u32 = 16;

/// Part of a tracker, under its lock: who has taken chunks of it, and how many.
pub struct Claim {
    by: Atomic<*mut Taken>,
    chunks: Atomic<u32>,
}

impl Claim {
    /// Nobody has.
    pub const fn new() -> Self {
        Claim {
            by: Atomic::new(null_mut()),
            chunks: Atomic::new(0),
        }
    }
}

/// Chunks that were taken from the list.
#[derive(Default)]
pub struct Taken {
    /// Linked by [`Chunk::next`].
    first: Option<NonNull<Chunk>>,
    inodes: u32,
}

impl Object for Chunk {
    const NAME: &'static CStr = c"rdax_chunk";

    type Taken = Taken;

    fn list() -> &'static List<Self> {
        Chunk::list()
    }

    unsafe fn take(chunk: NonNull<Self>, place: Place, taken: &mut Taken) -> Verdict {
        // SAFETY: it is in the list, from which it is taken before it is freed; its inode is there
        // as long as it is.
        let (this, tracker) = unsafe { (chunk.as_ref(), chunk.as_ref().tracker.as_ref()) };
        if this.was_used() {
            return Verdict::Used;
        }
        let (claim, me) = (&tracker.reclaim, &raw mut *taken);
        if claim.by.load(Relaxed) != me {
            if taken.inodes == INODES_MAX || !tracker.try_freeing() {
                return Verdict::Busy;
            }
            claim.by.store(me, Relaxed);
            claim.chunks.store(0, Relaxed);
            taken.inodes += 1;
        }
        claim.chunks.store(claim.chunks.load(Relaxed) + 1, Relaxed);
        // SAFETY: it is being taken from the list: nobody else uses the field.
        unsafe { *this.next.get() = taken.first.replace(chunk) };
        place.take()
    }

    fn give_back(taken: Taken) -> usize {
        let (mut next, mut freed) = (taken.first, 0);
        while let Some(chunk) = next {
            // SAFETY: it was taken from the list, and the lock of its tracker is held, so that both
            // are there still; nobody else uses `next`.
            let (this, tracker) = unsafe {
                next = (*chunk.as_ref().next.get()).take();
                (chunk.as_ref(), chunk.as_ref().tracker.as_ref())
            };
            let info = InodeInfo::of(tracker);
            let given_up = reclaim(info, this, || tracker.remove(this));
            // SAFETY: it is in no list. What was given up is in no tree either, and nobody has a
            // reference to it, by the lock that is held.
            unsafe {
                if given_up {
                    free(chunk);
                    freed += 1;
                    info.sb().counters.chunks_reclaimed.add(1);
                } else {
                    Chunk::list().add(chunk);
                }
            }
            leave(tracker);
        }
        freed
    }
}

/// Finishes with one of the chunks of `tracker` that were taken.
fn leave(tracker: &Tracker) {
    let claim = &tracker.reclaim;
    let left = claim.chunks.load(Relaxed) - 1;
    claim.chunks.store(left, Relaxed);
    if left == 0 {
        claim.by.store(null_mut(), Relaxed);
        // SAFETY: `take` has got the right for this task.
        unsafe { tracker.end_freeing() };
    }
}
