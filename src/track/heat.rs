// SPDX-License-Identifier: GPL-2.0

//! Which pages of a chunk are hot: stored to between most syncs.
//!
//! Write-protecting such a page at a sync only causes a fault. So it stays dirty and writable, and
//! every sync of it writes it back. Its *fingerprint*, a hash of its content, tells whether it was
//! stored to, for the timestamps of the file and for whether it is still hot. A page whose
//! fingerprint did not change over [`PATIENCE`] syncs cools down, and is write-protected like any
//! other. (Durability does not depend on it: dirty pages are written back, whatever the
//! fingerprint.)
//!
//! A fault and its write-protection cost about as much as five syncs of a hot page that was left
//! alone. So a page becomes hot only if three syncs out of [`EPOCH`] find it dirty, and may be left
//! alone for [`PATIENCE`] - 1: pages that a program uses in turn, such as a copy-on-write database,
//! are hot; pages that it hits by chance are not. If most of many are left alone at once, the
//! program has moved on, and they cool down without waiting. Pages of a mapping that is locked in
//! memory become hot at the first sync, and stay so: stores to them must not fault.
//!
//! Pure: no locks, no kernel. Part of what the chunk lock guards.

use core::ops::DerefMut;

use super::page_set::{PageSet, PAGES};

/// After this many syncs of a chunk, what they found dirty is forgotten.
pub const EPOCH: u8 = 16;
/// After this many syncs in a row that find a hot page unchanged, it is cold.
pub const PATIENCE: u8 = 8;

/// What a sync finds out about a hot page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It was stored to since the last sync.
    StoredTo,
    /// It was not, but is still hot.
    LeftAlone,
    /// It is not hot any more.
    Cold,
}

/// This many hot pages of a chunk need no table.
const FEW: usize = 4;
/// If this many are left alone, and at most an eighth as many stored to, they cool down at once.
const MANY: usize = 32;
/// No page.
const NONE: u16 = u16::MAX;

/// The fingerprints of the hot pages, as of the last sync that covered them.
struct Fingerprints<T> {
    /// While they are few, and there is no table: pages, each with its fingerprint.
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

    /// The fingerprint of `page`.
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

    /// Adds the fingerprint of `page`; returns whether there is room for it.
    fn insert(&mut self, page: usize, fingerprint: u64) -> bool {
        let slot = match &mut self.table {
            Some(table) => table.get_mut(page),
            None => {
                let mut few = self.few.iter_mut();
                few.find(|(of, _)| *of == NONE).map(|(of, slot)| {
                    // CAST: below 512.
                    *of = page as u16;
                    slot
                })
            }
        };
        slot.map(|slot| *slot = fingerprint).is_some()
    }

    /// From now on the fingerprints are in `table`.
    fn move_to(&mut self, mut table: T) {
        for (page, fingerprint) in &mut self.few {
            if let Some(slot) = table.get_mut(usize::from(*page)) {
                *slot = *fingerprint;
            }
            *page = NONE;
        }
        self.table = Some(table);
    }

    /// Forgets the fingerprints of `pages`; `none_left`: there are no others.
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
    /// The number of syncs of this epoch.
    syncs: u8,
    /// A sync of this epoch made the page clean.
    once: PageSet,
    /// Another sync of this epoch did, too.
    twice: PageSet,
    hot: PageSet,
    /// How many syncs in a row left a hot page alone, in binary digits, the lowest first.
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

    /// The pages that become hot if a sync finds them dirty, for the third time. None is hot yet.
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
    /// with each that stays hot, and leaves the others in `pages`: they are to be write-protected,
    /// and then [cooled](Heat::cool_down). Returns whether one was stored to since the last sync:
    /// then the timestamps of the file have to be updated. `fingerprint` returns that of a page,
    /// `None` if the media cannot be read.
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
            // Without a fingerprint the page is cold: a sync write-protects it, and a fault will
            // tell.
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
        // The program does something else now: waiting would cost more than the faults.
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

    /// Makes `pages`, none of which is hot, hot; returns them, except those that have no room in
    /// the table, or whose fingerprint cannot be taken.
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
        // Otherwise they would still be warm when they cool down, and become hot again at once.
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
        // Adds one, with carry.
        for digit in &mut self.left_alone {
            if digit.insert(page) {
                return Found::LeftAlone;
            }
            digit.remove(page);
        }
        Found::Cold
    }

    /// Nobody can store to `pages`, which are hot, any more: they become cold. Returns whether one
    /// of them was stored to since the last sync. (If that were checked before they are
    /// write-protected, a store in between would not update the timestamps.)
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

    /// A sync write-protected `pages`, none of which is hot any more; perhaps no page at all.
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

    /// Makes the pages cold: they were left alone, left the file, or are mapped in another way.
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
