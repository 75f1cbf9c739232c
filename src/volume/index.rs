// SPDX-License-Identifier: GPL-2.0

//! A hash table in memory: a cache of the media, under keys whose low bits are spread well (hashes
//! of names, numbers of blocks). Several values may have the same key.

use super::num::{to_u32, to_usize};
use crate::env::{NoMemory, Vec};

/// The end of a chain.
const NONE: u32 = u32::MAX;
/// Chains that a table starts with; a power of two.
const CHAINS: usize = 4;

/// Values of `T` by key. Chained through their positions in one array, so that it takes two
/// allocations whatever its size.
#[derive(Debug)]
pub struct Index<T> {
    /// The first item of each chain: a power of two of them, or none.
    heads: Vec<u32>,
    items: Vec<Item<T>>,
}

#[derive(Debug)]
struct Item<T> {
    key: u64,
    next: u32,
    value: T,
}

/// An empty table; allocates nothing.
impl<T> Default for Index<T> {
    fn default() -> Self {
        Index {
            heads: Vec::new(),
            items: Vec::new(),
        }
    }
}

impl<T> Index<T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The chain of `key`, which exists.
    fn chain(&self, key: u64) -> usize {
        to_usize(key) & (self.heads.len().wrapping_sub(1))
    }

    /// The first position of the chain of `key`.
    fn first(&self, key: u64) -> u32 {
        self.heads.get(self.chain(key)).copied().unwrap_or(NONE)
    }

    /// The item at `position`, unless it is the end of a chain.
    fn item(&self, position: u32) -> Option<&Item<T>> {
        self.items.get(position as usize)
    }

    /// The values of `key`, the newest first.
    pub fn all(&self, key: u64) -> impl Iterator<Item = &T> {
        let first = self.item(self.first(key));
        core::iter::successors(first, |item| self.item(item.next))
            .filter(move |item| item.key == key)
            .map(|item| &item.value)
    }

    /// All values with their keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.items.iter().map(|item| (item.key, &item.value))
    }

    /// The value at `position`, below [`Index::len`], with its key. Removing a value, and no other
    /// change, gives its position to another.
    pub fn at(&self, position: usize) -> Option<(u64, &T)> {
        self.items.get(position).map(|item| (item.key, &item.value))
    }

    /// The newest value of `key`.
    pub fn get(&self, key: u64) -> Option<&T> {
        self.all(key).next()
    }

    /// The newest value of `key`, to change.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let mut at = self.first(key);
        while self.item(at)?.key != key {
            at = self.item(at)?.next;
        }
        self.items.get_mut(at as usize).map(|item| &mut item.value)
    }

    /// Adds `value` under `key`.
    pub fn insert(&mut self, key: u64, value: T) -> Result<(), NoMemory> {
        if self.items.len() >= self.heads.len() {
            self.grow()?;
        }
        let chain = self.chain(key);
        let position = u32::try_from(self.items.len()).map_err(|_| NoMemory)?;
        if position == NONE {
            return Err(NoMemory);
        }
        let next = self.first(key);
        self.items.push(Item { key, next, value })?;
        if let Some(head) = self.heads.get_mut(chain) {
            *head = position;
        }
        Ok(())
    }

    /// Removes the newest value of `key` that `is` accepts, and returns it.
    pub fn remove(&mut self, key: u64, is: impl Fn(&T) -> bool) -> Option<T> {
        let mut found = self.first(key);
        while let Some(item) = self.item(found) {
            if item.key == key && is(&item.value) {
                break;
            }
            found = item.next;
        }
        let item = self.item(found)?;
        let (next, last) = (item.next, to_u32(self.items.len() - 1));
        self.relink(key, found, next);
        if let Some(moved) = self.item(last).filter(|_| last != found) {
            self.relink(moved.key, last, found);
        }
        let item = self.items.swap_remove(found as usize)?;
        Some(item.value)
    }

    /// Redirects the link to position `from` in the chain of `key` to `to`.
    fn relink(&mut self, key: u64, from: u32, to: u32) {
        let chain = self.chain(key);
        let mut link = self.heads.get_mut(chain);
        while let Some(at) = link {
            if *at == from {
                *at = to;
                return;
            }
            let next = *at as usize;
            link = self.items.get_mut(next).map(|item| &mut item.next);
        }
    }

    /// Doubles the number of chains.
    fn grow(&mut self) -> Result<(), NoMemory> {
        let chains = (self.heads.len() * 2).max(CHAINS);
        let mut heads = Vec::with_capacity(chains)?;
        for _ in 0..chains {
            heads.push(NONE)?;
        }
        self.items.reserve(chains - self.items.len())?;
        self.heads = heads;
        for position in 0..self.items.len() {
            let key = self.items[position].key;
            let chain = self.chain(key);
            // In the order of insertion, so that the newest is found first.
            self.items[position].next =
                core::mem::replace(&mut self.heads[chain], to_u32(position));
        }
        Ok(())
    }
}
