// SPDX-License-Identifier: GPL-2.0

//! What evicted inodes have left behind: their pinned pages, and inodes without a name that could
//! not be freed.
//!
//! Pure: no locks, no kernel. [`evict`](super::evict) says what becomes of them.

use crate::env::{NoMemory, Vec};

/// A page that was pinned when its inode was evicted; or the first one of a huge folio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Where it was in the file.
    pub page: u64,
    /// Where it is on the device.
    pub block: u64,
}

/// What an inode has left behind.
pub struct Left {
    ino: u64,
    /// It has no name: it is to be freed when no page is left.
    pub unlinked: bool,
    /// Its pages that belong to nobody.
    pub pages: Vec<Pinned>,
}

/// What the inodes of one mount have left behind, with one entry per inode.
pub struct LeftBehind(Vec<Left>);

impl LeftBehind {
    /// Nothing.
    pub const fn new() -> Self {
        LeftBehind(Vec::new())
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Left> {
        self.0.iter_mut()
    }

    /// Any page.
    pub fn any_page(&self) -> Option<Pinned> {
        self.0.iter().find_map(|left| left.pages.first().copied())
    }

    /// Makes room for `nr` more pages of an inode.
    pub fn reserve(&mut self, ino: u64, nr: usize) -> Result<(), NoMemory> {
        match self.0.iter_mut().find(|left| left.ino == ino) {
            Some(left) => left.pages.reserve(nr),
            None => self.0.reserve(1),
        }
    }

    /// Adds what an inode leaves; returns `pages` if memory is short. Pages that
    /// [`LeftBehind::give_back`] removed before it failed need no memory.
    pub fn add(&mut self, ino: u64, unlinked: bool, pages: Vec<Pinned>) -> Result<(), Vec<Pinned>> {
        if let Some(left) = self.0.iter_mut().find(|left| left.ino == ino) {
            if left.pages.extend_from_slice(&pages).is_err() {
                return Err(pages);
            }
            left.unlinked |= unlinked;
            return Ok(());
        }
        if self.0.reserve(1).is_err() {
            return Err(pages);
        }
        let left = Left {
            ino,
            unlinked,
            pages,
        };
        // There is room.
        let _ = self.0.push(left);
        Ok(())
    }

    /// Gives the pages of an inode back to it, one by one, by `adopt`. If that fails, the others
    /// stay here.
    pub fn give_back<E>(
        &mut self,
        ino: u64,
        mut adopt: impl FnMut(&Pinned) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(at) = self.0.iter().position(|left| left.ino == ino) else {
            return Ok(());
        };
        if let Some(left) = self.0.get_mut(at) {
            while let Some(pinned) = left.pages.last().copied() {
                adopt(&pinned)?;
                left.pages.pop();
            }
        }
        self.0.swap_remove(at);
        Ok(())
    }

    /// Removes the entries of inodes that have a name and no page left.
    pub fn remove_released(&mut self) {
        let mut i = 0;
        while let Some(left) = self.0.get(i) {
            if left.pages.is_empty() && !left.unlinked {
                self.0.swap_remove(i);
            } else {
                i += 1;
            }
        }
    }

    /// Removes an inode that has neither a name nor a page left.
    pub fn take_free(&mut self) -> Option<u64> {
        let idle = |left: &Left| left.unlinked && left.pages.is_empty();
        let at = self.0.iter().position(idle)?;
        let ino = self.0.get(at).map(|left| left.ino);
        self.0.swap_remove(at);
        ino
    }

    /// Removes any entry.
    pub fn pop(&mut self) -> Option<Left> {
        self.0.pop()
    }
}

impl Default for LeftBehind {
    fn default() -> Self {
        Self::new()
    }
}
