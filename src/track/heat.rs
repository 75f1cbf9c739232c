// SPDX-License-Identifier: GPL-2.0

//! Which pages of a chunk are hot: stored to between most syncs.
//!
//! To write-protect such a page at a sync only buys a fault. So it stays dirty and writable, and
//! every sync of it writes it back. Whether it was stored to, for the times of the file and for the
//! question whether it is still hot, its *fingerprint* tells, a hash of its content: one that did
//! not change over [`PATIENCE`] syncs cools down, and is write-protected like any other.
//! (Durability does not depend on it: what is dirty is written back, whatever the fingerprint.)
//!
//! A fault and its write-protection cost about as much as five syncs of a hot page that was left
//! alone. So a page becomes hot only if three syncs out of [`EPOCH`] find it dirty, and may be left
//! alone for [`PATIENCE`] - 1: pages that a program uses in turn, as a database with copies on
//! write does, are hot; pages that it hits by chance are not. Where most of many are left alone at
//! once, the program has gone on to something else, and none is waited for. Pages of a mapping that
//! is locked in memory are made hot by the first sync, and kept so: their stores shall not fault.
//!
//! Pure: no locks, no kernel. Part of what the chunk lock guards.

use core::ops::DerefMut;

use super::page_set::{PageSet, PAGES};

/// Syncs of a chunk after which what they found dirty is forgotten.
pub const EPOCH: u8 = 16;
/// How many syncs in a row find a hot page as it was, until it is cold.
pub const PATIENCE: u8 = 8;

/// What a sync finds out about a hot page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It was stored to since the last one.
    StoredTo,
    /// It was not, but is hot still.
    LeftAlone,
    /// It is not hot any more.
    Cold,
}

/// So many hot pages of a chunk need no table.
const FEW: usize = 4;
/// So many that are left alone, with an eighth of them stored to at most, are not waited for.
const MANY: usize = 32;
/// No page.
const NONE: u16 = u16::MAX;

/// The fingerprints of the hot pages, as of the last sync that covered them.
struct Fingerprints<T> {
    /// As long as they are few, and there is no table: pages, each with its fingerprint.
    few: [(u16, u64); FEW],
    table: Option<T>,
}

impl<T: DerefMut<Target = [u64; PAGES]>> Fingerprints<T> {
    const fn new() -> Self {
        Fingerprints {
            few: [(NONE, 0); FEW],
            table: None,
        }
    }

    /// That of `page`.
    fn get(&mut self, page: usize) -> Option<&mut u64> {
        match &mut self.table {
            Some(table) => table.get_mut(page),
            None => {
                let mut few = self.few.iter_mut();
                let (_, slot) = few.find(|(of, _)| usize::from(*of) == page)?;
                Some(slot)
            }
        }
    }

    /// Adds that of `page`; returns whether there is a place for it.
    fn insert(&mut self, page: usize, fingerprint: u64) -> bool {
        let slot = match &mut self.table {
            Some(table) => table.get_mut(page),
            None => {
                let mut few = self.few.iter_mut();
                few.find(|(of, _)| *of == NONE).map(|(of, slot)| {
                    // CAST: of 512.
                    *of = page as u16;
                    slot
                })
            }
        };
        slot.map(|slot| *slot = fingerprint).is_some()
    }

    /// From now on they are in `table`.
    fn move_to(&mut self, mut table: T) {
        for (page, fingerprint) in &mut self.few {
            if let Some(slot) = table.get_mut(usize::from(*page)) {
                *slot = *fingerprint;
            }
            *page = NONE;
        }
        self.table = Some(table);
    }

    /// Forgets those of `pages`; `none_left`: all there are.
    fn forget(&mut self, pages: &PageSet, none_left: bool) {
        for (page, _) in &mut self.few {
            if *page != NONE && pages.contains(usize::from(*page)) {
                *page = NONE;
            }
        }
        if none_left {
            self.table = None;
        }
    }
}

/// How hot the pages of a chunk are. `T` is a heap-allocated table of one fingerprint a page.
pub struct Heat<T> {
    /// How many syncs of this epoch there were.
    syncs: u8,
    /// A sync of this epoch made the page clean.
    once: PageSet,
    /// And so did another.
    twice: PageSet,
    hot: PageSet,
    /// How many syncs have left a hot page alone, in binary digits, the lowest first.
    left_alone: [PageSet; PATIENCE.ilog2() as usize],
    fingerprints: Fingerprints<T>,
}

impl<T: DerefMut<Target = [u64; PAGES]>> Heat<T> {
    /// All pages are cold.
    pub const fn new() -> Self {
        Heat {
            syncs: 0,
            once: PageSet::EMPTY,
            twice: PageSet::EMPTY,
            hot: PageSet::EMPTY,
            left_alone: [PageSet::EMPTY; PATIENCE.ilog2() as usize],
            fingerprints: Fingerprints::new(),
        }
    }

    /// The hot pages. Each is dirty.
    pub fn hot(&self) -> &PageSet {
        &self.hot
    }

    /// The pages that become hot if a sync finds them dirty, for the third time. None is hot.
    pub fn warm(&self) -> &PageSet {
        &self.twice
    }

    /// Whether [`Heat::heat_up`] of `pages` has to be given a table.
    pub fn needs_table(&self, pages: &PageSet) -> bool {
        self.fingerprints.table.is_none() && self.hot.count() + pages.count() > FEW
    }

    /// Gives the table that [`Heat::needs_table`] asked for.
    pub fn set_table(&mut self, table: T) {
        self.fingerprints.move_to(table);
    }

    /// A sync found the `pages`, which are hot, dirty, and may leave them writable. Calls `keep`
    /// with each that stays hot, and leaves in `pages` those that do not: they are to be
    /// write-protected, and then [cooled](Heat::cool_down). Returns whether one was stored to since
    /// the last sync: the times of the file have to move. `fingerprint` is that of a page, `None`
    /// where the media cannot be read.
    #[inline]
    pub fn review(
        &mut self,
        pages: &mut PageSet,
        mut fingerprint: impl FnMut(usize) -> Option<u64>,
        mut keep: impl FnMut(usize),
    ) -> bool {
        let (mut stays, mut left_alone) = (PageSet::EMPTY, PageSet::EMPTY);
        let (mut stored_to, mut alone) = (0, 0);
        // (An iterator costs 16 instructions a page more, of 500 for a hot one.)
        let mut next = pages.next(0);
        while let Some(page) = next {
            // Where there is no telling, who needs to know finds out.
            let found = match fingerprint(page) {
                Some(now) => self.compare(page, now),
                None => Found::Cold,
            };
            match found {
                Found::StoredTo => {
                    stored_to += 1;
                    stays.insert(page);
                }
                Found::LeftAlone => {
                    alone += 1;
                    left_alone.insert(page);
                }
                Found::Cold => {}
            }
            next = pages.next(page + 1);
        }
        // The program does something else now: to wait would cost more than the faults.
        if alone < MANY || stored_to > alone / 8 {
            stays.insert_all(&left_alone);
        }
        pages.remove_all(&stays);
        let mut next = stays.next(0);
        while let Some(page) = next {
            keep(page);
            next = stays.next(page + 1);
        }
        stored_to > 0
    }

    /// `pages`, none of which is hot, are hot from now on; returns them, but for those that have no
    /// place in the table, or whose fingerprint cannot be taken.
    pub fn heat_up(
        &mut self,
        pages: &PageSet,
        mut fingerprint: impl FnMut(usize) -> Option<u64>,
    ) -> PageSet {
        let mut fresh = PageSet::EMPTY;
        for page in pages.iter() {
            if fingerprint(page).is_some_and(|now| self.fingerprints.insert(page, now)) {
                fresh.insert(page);
            }
        }
        self.hot.insert_all(&fresh);
        // Else they would be warm still when they cool down, and hot again at once.
        self.once.remove_all(&fresh);
        self.twice.remove_all(&fresh);
        fresh
    }

    /// A sync found the hot `page` with this fingerprint.
    #[inline]
    fn compare(&mut self, page: usize, fingerprint: u64) -> Found {
        let Some(slot) = self.fingerprints.get(page) else {
            return Found::Cold;
        };
        let changed = core::mem::replace(slot, fingerprint) != fingerprint;
        if changed {
            for digit in &mut self.left_alone {
                digit.remove(page);
            }
            return Found::StoredTo;
        }
        // Counts one more: carries over digits that are one.
        for digit in &mut self.left_alone {
            if digit.insert(page) {
                return Found::LeftAlone;
            }
            digit.remove(page);
        }
        Found::Cold
    }

    /// Nobody can store to `pages`, which are hot, any more: they are cold. Returns whether one of
    /// them was stored to since the last sync. (If that were asked before they are write-protected,
    /// a store in between would not move the times.)
    pub fn cool_down(
        &mut self,
        pages: &PageSet,
        mut fingerprint: impl FnMut(usize) -> Option<u64>,
    ) -> bool {
        let mut stored_to = false;
        for page in pages.iter() {
            let now = fingerprint(page);
            let before = self.fingerprints.get(page).map(|slot| *slot);
            stored_to |= now.is_some() && now != before;
        }
        self.cool(pages);
        stored_to
    }

    /// A sync write-protected `pages`, of which none is hot any more; perhaps no page at all.
    pub fn synced(&mut self, pages: &PageSet) {
        self.syncs += 1;
        if self.syncs == EPOCH {
            self.syncs = 0;
            self.once = PageSet::EMPTY;
            self.twice = PageSet::EMPTY;
        }
        self.twice.insert_all(&self.once.and(pages));
        self.once.insert_all(pages);
    }

    /// The pages are cold: they were left alone, left the file, or are mapped in another way.
    pub fn cool(&mut self, pages: &PageSet) {
        self.once.remove_all(pages);
        self.twice.remove_all(pages);
        self.hot.remove_all(pages);
        self.left_alone
            .iter_mut()
            .for_each(|set| set.remove_all(pages));
        self.fingerprints.forget(pages, self.hot.is_empty());
    }
}

impl<T: DerefMut<Target = [u64; PAGES]>> Default for Heat<T> {
    fn default() -> Self {
        Self::new()
    }
}
