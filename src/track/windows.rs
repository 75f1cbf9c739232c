// SPDX-License-Identifier: GPL-2.0

//! Which pages are dirty, and which syncs are in flight: what the tag lock guards.
//!
//! Whether anything is dirty or in flight can be read without a lock ([`is_quiet`]), because a
//! chunk's mark changes under the tag lock together with its tags, and a sync counts itself before
//! it clears a mark.
//!
//! Guarantee: when [`sync`] returns, whatever it found clean was made durable by the sync that made
//! it clean, or [`sync`] fails.

use super::chunk::{Protected, Snapshot, Taken, Window};
use super::machine::{Failure, Tracking};
use super::page_set::PageSet;
use crate::mutate::mutated;

/// The windows of syncs; each sync owns its window.
pub trait WindowList {
    /// Where a sync keeps its window.
    type Slot;
    /// Adds `window`, which is kept in `slot` until it is removed.
    fn insert(&mut self, slot: &mut Self::Slot, window: Window);
    /// Moves the end of one that is in the list.
    fn set_end(&mut self, slot: &mut Self::Slot, end: u64);
    /// Removes one that is in the list.
    fn remove(&mut self, slot: &mut Self::Slot);
    /// Whether `f` holds for one of them.
    fn any(&self, f: impl Fn(&Window) -> bool) -> bool;
}

/// The syncs of a file.
pub struct Syncs<L> {
    windows: L,
    next_seq: u64,
    waiters: u32,
}

impl<L> Syncs<L> {
    /// None in flight.
    pub const fn new(windows: L) -> Self {
        Syncs {
            windows,
            next_seq: 0,
            waiters: 0,
        }
    }
}

/// Whether nothing is dirty and no sync is in flight. Sees everything that was tagged, or taken by
/// a sync, before the call.
#[inline]
pub fn is_quiet<T: Tracking>(tracking: &T) -> bool {
    // A sync raises the count before it clears a mark, so the count is read after the mark.
    !tracking.is_any_marked() && tracking.in_flight() == 0
}

/// Records that stores may reach `page` of `chunk` from now on, or have. Returns how many pages
/// were clean, and the length of the row of dirty pages beside it. Does not sleep; may be called
/// under a page table lock.
#[inline]
pub fn tag_page<T: Tracking>(tracking: &T, chunk: &T::Chunk, page: usize) -> (usize, usize) {
    let mut locked = tracking.lock_tags();
    let tags = tracking.tags(&mut locked, chunk);
    let row = tags.row_beside(page);
    let tagged = tags.set_page(page);
    if tagged.set_mark {
        tracking.set_mark(&mut locked, chunk, true);
    }
    (tagged.newly, row)
}

/// Records that stores may reach any of `pages`, of which there is at least one. Returns how many
/// were clean. Does not sleep; may be called under a page table lock.
#[inline]
pub fn tag<T: Tracking>(tracking: &T, chunk: &T::Chunk, pages: &PageSet) -> usize {
    let mut locked = tracking.lock_tags();
    let tagged = tracking.tags(&mut locked, chunk).set(pages);
    if tagged.set_mark {
        tracking.set_mark(&mut locked, chunk, true);
    }
    tagged.newly
}

/// The dirty pages among `pages`. The caller holds the chunk lock until they were written back.
#[inline]
pub fn dirty_in<T: Tracking>(tracking: &T, chunk: &T::Chunk, pages: &PageSet) -> Snapshot {
    let mut locked = tracking.lock_tags();
    tracking.tags(&mut locked, chunk).dirty_in(pages)
}

/// Forgets the tags of pages that are being taken from the file.
pub fn forget<T: Tracking>(tracking: &T, chunk: &T::Chunk, pages: &PageSet) {
    let mut locked = tracking.lock_tags();
    if tracking.tags(&mut locked, chunk).forget(pages) {
        tracking.set_mark(&mut locked, chunk, false);
    }
}

/// The right to take pages of a file for a sync, inside [`sync`].
pub struct Taking<'a, T: Tracking> {
    tracking: &'a T,
    first: u64,
    slot: &'a mut <T::Windows as WindowList>::Slot,
    is_open: bool,
}

impl<T: Tracking> Taking<'_, T> {
    /// Makes pages clean that were write-protected; the caller writes them back before it drops the
    /// chunk lock.
    #[inline]
    pub fn take(&mut self, chunk: &T::Chunk, pages: Protected) -> Taken {
        let mut locked = self.tracking.lock_tags();
        // Before the pages become clean: whoever finds them clean must find the window.
        self.reach(&mut locked, self.tracking.place(chunk).end());
        let (taken, clear) = self.tracking.tags(&mut locked, chunk).take(pages);
        if clear {
            self.tracking.set_mark(&mut locked, chunk, false);
        }
        taken
    }

    /// Extends the window up to the page before `end`; opens it the first time.
    #[inline]
    fn reach(&mut self, locked: &mut T::Locked<'_>, end: u64) {
        let syncs = self.tracking.syncs(locked);
        if self.is_open {
            syncs.windows.set_end(self.slot, end);
            return;
        }
        let window = Window {
            seq: syncs.next_seq,
            first: self.first,
            end,
        };
        syncs.next_seq += 1;
        syncs.windows.insert(self.slot, window);
        self.is_open = true;
        // Pages become clean, and marks are cleared, only after this.
        self.tracking.count_in_flight(true);
    }

    /// Closes the window, which is open.
    fn close(&mut self, locked: &mut T::Locked<'_>) {
        let syncs = self.tracking.syncs(locked);
        syncs.windows.remove(self.slot);
        self.tracking.count_in_flight(false);
        if syncs.waiters > 0 {
            self.tracking.notify();
        }
    }
}

/// Runs a sync of the pages `first..=last`: `walk` takes pages, writes them back and issues the
/// fence. Then waits for the fence of every other sync that took pages of the range before now.
/// Fails if one of them failed, because pages that `walk` found clean may be those that it has
/// lost. May sleep.
pub fn sync<T: Tracking, E: From<Failure>>(
    tracking: &T,
    first: u64,
    last: u64,
    walk: impl FnOnce(&mut Taking<'_, T>) -> Result<(), E>,
) -> Result<(), E> {
    // Before it looks at a page: a page that another sync takes meanwhile is not missed.
    let failed = tracking.failed();
    let result = tracking.with_slot(|slot| {
        let mut taking = Taking {
            tracking,
            first,
            slot,
            is_open: false,
        };
        let result = walk(&mut taking);
        if result.is_err() {
            // Before the window closes: a waiter looks when it is closed.
            tracking.count_failed();
        }
        if taking.is_open || (tracking.in_flight() != 0 && !mutated!("sync-wait")) {
            let mut locked = tracking.lock_tags();
            if taking.is_open {
                taking.close(&mut locked);
            }
            wait_for_others(tracking, &mut locked, first, last);
        }
        result
    });
    result?;
    match tracking.failed() == failed {
        true => Ok(()),
        false => Err(Failure::Device.into()),
    }
}

/// Waits for the syncs that took pages of `first..=last` before now.
fn wait_for_others<T: Tracking>(tracking: &T, locked: &mut T::Locked<'_>, first: u64, last: u64) {
    let now = tracking.syncs(locked).next_seq;
    let covers = |window: &Window| window.covers(now, first, last);
    while tracking.syncs(locked).windows.any(covers) {
        tracking.syncs(locked).waiters += 1;
        tracking.wait(locked);
        tracking.syncs(locked).waiters -= 1;
    }
}
