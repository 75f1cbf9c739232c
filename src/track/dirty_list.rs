// SPDX-License-Identifier: GPL-2.0

//! The list of the inodes of a mount that have dirty pages, and who removes inodes from it: a sync
//! of all, the flusher, eviction.
//!
//! Pure: no unsafe code, no kernel. Locks and inodes are those of an [`Environment`]; the host has
//! one in which a model checker runs every interleaving (`tools/dax-model/tests/dirty/`).
//!
//! The list itself holds no references: an unlinked file must be freed with its last user. So an
//! inode in it may be in eviction. Whoever removes an inode from it to write it back first takes a
//! reference ([`Environment::Held`]), which keeps eviction from beginning. If that fails, eviction
//! has begun, and the caller waits for it: eviction writes the inode back, and removes it from the
//! list.
//!
//! Guarantees:
//!
//! * An inode that is being written back, or in the list, is in memory.
//! * When [`sync_all`] returns, everything stored before it began was written back, by itself or by
//!   another task.

use core::ops::DerefMut;

/// What the list needs of the world around it.
pub trait Environment {
    /// Names an inode in the list. Valid while the inode is in the list, or known to be in memory.
    type Entry: Copy + PartialEq;
    /// A reference to an inode, which stays in memory until this is dropped. The drop may evict it,
    /// so the caller holds no lock then that eviction takes.
    type Held;
    /// What went wrong.
    type Error;
    /// The lock of the list, held. It spins: nothing sleeps meanwhile.
    type Locked<'a>: DerefMut<Target = List<Self::Entry>>
    where
        Self: 'a;

    /// Waits for the lock.
    fn lock(&self) -> Self::Locked<'_>;

    /// Lets go of the lock, sleeps until [`Environment::notify`], and takes the lock again.
    fn wait(&self, list: &mut Self::Locked<'_>);

    /// Wakes all who wait.
    fn notify(&self);

    /// A reference to an inode that is in the list; `None` if its eviction has begun.
    fn grab(&self, entry: Self::Entry) -> Option<Self::Held>;

    /// Whether the inode is in the list: read with or without the lock, changed under it.
    fn is_listed(&self, entry: Self::Entry) -> bool;

    /// See [`Environment::is_listed`].
    fn set_listed(&self, entry: Self::Entry, listed: bool);

    /// The links of an inode in the list, whose lock is `list`.
    fn links(&self, list: &List<Self::Entry>, entry: Self::Entry) -> Links<Self::Entry>;

    /// See [`Environment::links`].
    fn set_links(
        &self,
        list: &mut List<Self::Entry>,
        entry: Self::Entry,
        links: Links<Self::Entry>,
    );
}

/// The place of an inode in the list.
#[derive(Clone, Copy)]
pub struct Links<E> {
    prev: Option<E>,
    next: Option<E>,
    /// Number in the order of listing.
    seq: u64,
}

impl<E> Links<E> {
    /// For an inode that is not in the list.
    pub const NONE: Self = Links {
        prev: None,
        next: None,
        seq: 0,
    };
}

/// What the lock guards.
pub struct List<E> {
    head: Option<E>,
    tail: Option<E>,
    next_seq: u64,
    /// How many [`sync_one`] are running, by the turn in which they began.
    at_work: [u32; 2],
    /// The turn of those that begin now.
    turn: usize,
}

impl<E: Copy> List<E> {
    /// An empty list.
    pub const fn new() -> Self {
        List {
            head: None,
            tail: None,
            next_seq: 0,
            at_work: [0; 2],
            turn: 0,
        }
    }

    fn push<W: Environment<Entry = E>>(&mut self, world: &W, entry: E) {
        let links = Links {
            prev: self.tail,
            next: None,
            seq: self.next_seq,
        };
        self.next_seq += 1;
        world.set_links(self, entry, links);
        match self.tail {
            None => self.head = Some(entry),
            Some(tail) => {
                let before = world.links(self, tail);
                let next = Some(entry);
                world.set_links(self, tail, Links { next, ..before });
            }
        }
        self.tail = Some(entry);
        world.set_listed(entry, true);
    }

    fn unlink<W: Environment<Entry = E>>(&mut self, world: &W, entry: E) {
        let Links { prev, next, .. } = world.links(self, entry);
        match prev {
            None => self.head = next,
            Some(prev) => {
                let before = world.links(self, prev);
                world.set_links(self, prev, Links { next, ..before });
            }
        }
        match next {
            None => self.tail = prev,
            Some(next) => {
                let after = world.links(self, next);
                world.set_links(self, next, Links { prev, ..after });
            }
        }
        world.set_listed(entry, false);
    }
}

impl<E: Copy> Default for List<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// Adds an inode, of which a page was tagged just now, to the list. Returns whether it was not
/// there: then it has to be marked dirty for the flusher, which clears that mark before it comes
/// here. Does not sleep. The inode is known to be in memory.
pub fn note<W: Environment>(world: &W, entry: W::Entry) -> bool {
    let mut list = world.lock();
    if world.is_listed(entry) {
        return false;
    }
    list.push(world, entry);
    true
}

/// Runs `write_back` on every inode that was in the list when this began, and waits for those that
/// others had removed by then. Returns the first error, after all were processed. One at a time.
/// May sleep.
pub fn sync_all<W: Environment>(
    world: &W,
    write_back: impl Fn(&W::Held) -> Result<(), W::Error>,
) -> Result<(), W::Error> {
    let limit = world.lock().next_seq;
    let mut result = Ok(());
    while let Some(inode) = take_before(world, limit) {
        result = result.and(write_back(&inode));
        // If its last user is gone, this evicts it.
        drop(inode);
    }
    let mut list = world.lock();
    let turn = list.turn;
    // Does not wait for those that begin from here on, or it might never end.
    list.turn = 1 - turn;
    while list.at_work[turn] > 0 {
        world.wait(&mut list);
    }
    result
}

/// Removes the oldest inode listed before `limit` from the list, with a reference; waits if it is
/// being evicted.
fn take_before<W: Environment>(world: &W, limit: u64) -> Option<W::Held> {
    let mut list = world.lock();
    loop {
        let entry = list.head?;
        if world.links(&list, entry).seq >= limit {
            return None;
        }
        if let Some(inode) = world.grab(entry) {
            list.unlink(world, entry);
            return Some(inode);
        }
        world.wait(&mut list);
    }
}

/// Runs `write_back` on one inode, if it is in the list. The caller keeps it in memory. May sleep.
pub fn sync_one<W: Environment>(
    world: &W,
    entry: W::Entry,
    write_back: impl FnOnce() -> Result<(), W::Error>,
) -> Result<(), W::Error> {
    let turn = {
        let mut list = world.lock();
        if !world.is_listed(entry) {
            // Nothing was tagged since it was removed, or whoever removed it is writing it back.
            return Ok(());
        }
        list.unlink(world, entry);
        let turn = list.turn;
        list.at_work[turn] += 1;
        turn
    };
    let result = write_back();
    world.lock().at_work[turn] -= 1;
    world.notify();
    result
}

/// Runs `write_back` on an inode that is being evicted: nobody has a reference to it, and nothing
/// tags a page any more. A [`sync_all`] that meets it meanwhile waits. Afterwards it is not in the
/// list.
pub fn leave<W: Environment, R>(world: &W, entry: W::Entry, write_back: impl FnOnce() -> R) -> R {
    let result = write_back();
    let mut list = world.lock();
    let was_listed = world.is_listed(entry);
    if was_listed {
        list.unlink(world, entry);
    }
    drop(list);
    if was_listed {
        world.notify();
    }
    result
}
