// SPDX-License-Identifier: GPL-2.0

//! Which pages of a chunk are hot: stored to between any two syncs.
//!
//! To write-protect such a page at a sync only buys a fault. So it stays dirty and writable, and
//! every sync of it writes it back. Whether it was stored to, for the times of the file and for the
//! question whether it is still hot, its *fingerprint* tells, a hash of its content: one that did
//! not change since the last sync cools down, and is write-protected like any other. (Durability
//! does not depend on it: what is dirty is written back, whatever the fingerprint.)
//!
//! Pure: no locks, no kernel. Part of what the chunk lock guards.

use core::ops::DerefMut;

use super::page_set::{PageSet, PAGES};

/// How hot the pages of a chunk are. `T` is a heap-allocated table of one fingerprint a page.
pub struct Heat<T> {
    /// A sync made the page clean since it was last known to be cold.
    once: PageSet,
    /// And so did another.
    twice: PageSet,
    hot: PageSet,
    /// Of the hot pages, as of the last sync that covered them.
    fingerprints: Option<T>,
}

impl<T: DerefMut<Target = [u64; PAGES]>> Heat<T> {
    /// All pages are cold.
    pub const fn new() -> Self {
        Heat {
            once: PageSet::EMPTY,
            twice: PageSet::EMPTY,
            hot: PageSet::EMPTY,
            fingerprints: None,
        }
    }

    /// The hot pages. Each is dirty.
    pub fn hot(&self) -> &PageSet {
        &self.hot
    }

    /// The pages that become hot if a sync finds them dirty, for the third time.
    pub fn warm(&self) -> &PageSet {
        &self.twice
    }

    /// Whether [`Heat::add`] has to be given a table.
    pub fn needs_table(&self) -> bool {
        self.fingerprints.is_none()
    }

    /// Gives the table that [`Heat::needs_table`] asked for.
    pub fn set_table(&mut self, table: T) {
        self.fingerprints = Some(table);
    }

    /// `page`, which is dirty, is hot from now on. Ignored without a table.
    pub fn add(&mut self, page: usize, fingerprint: u64) {
        if let Some(slot) = self.slot(page) {
            *slot = fingerprint;
            self.hot.insert(page);
        }
    }

    /// A sync found the hot `page` with this fingerprint. Returns whether it was stored to since
    /// the last one.
    #[inline]
    pub fn compare(&mut self, page: usize, fingerprint: u64) -> bool {
        match self.slot(page) {
            Some(slot) => core::mem::replace(slot, fingerprint) != fingerprint,
            None => false,
        }
    }

    fn slot(&mut self, page: usize) -> Option<&mut u64> {
        self.fingerprints.as_mut().and_then(|t| t.get_mut(page))
    }

    /// A sync made `pages` clean, of which none is hot.
    pub fn taken(&mut self, pages: &PageSet) {
        self.twice.insert_all(&self.once.and(pages));
        self.once.insert_all(pages);
    }

    /// The pages are cold: they were left alone, left the file, or are mapped in another way.
    pub fn cool(&mut self, pages: &PageSet) {
        self.once.remove_all(pages);
        self.twice.remove_all(pages);
        self.hot.remove_all(pages);
        if self.hot.is_empty() {
            self.fingerprints = None;
        }
    }
}

impl<T: DerefMut<Target = [u64; PAGES]>> Default for Heat<T> {
    fn default() -> Self {
        Self::new()
    }
}
