// SPDX-License-Identifier: GPL-2.0

//! Databases on the file system: what their transactions do, and what their table contains after a
//! number of them.
//!
//! Each has one table of numbers and values. A transaction is an operation of a workload: it is
//! there once the library has said so, and before that wholly or not at all. How that becomes
//! durable is the library's business, and the file system has to be such that it comes out right.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::data::fill;

/// Transactions of one run. The first makes the table.
pub const TRANSACTIONS: usize = 24;
/// Keys are smaller than this.
const KEYS: u64 = 48;

/// A library, in a way of using it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// LMDB with `MDB_WRITEMAP`: stores to a shared mapping, and msync.
    LmdbWriteMap,
    /// LMDB without: write and fdatasync, but it reads by a mapping.
    Lmdb,
    /// SQLite with a write-ahead log: write and fdatasync, and an index in a shared mapping.
    SqliteWal,
    /// SQLite with a journal that is deleted at each commit: write, fdatasync, unlink.
    SqliteDelete,
}

/// The clients, by name.
const CLIENTS: &[(&str, Client)] = &[
    ("lmdb:writemap", Client::LmdbWriteMap),
    ("lmdb:write", Client::Lmdb),
    ("sqlite:wal", Client::SqliteWal),
    ("sqlite:delete", Client::SqliteDelete),
];

/// What a transaction does to the table, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This value for the key, which may have one.
    Put(u64, Vec<u8>),
    /// The key goes; it is there.
    Delete(u64),
}

/// The table: keys and values.
pub type Table = BTreeMap<u64, Vec<u8>>;

impl Client {
    /// The client of that name.
    pub fn find(name: &str) -> Option<Self> {
        CLIENTS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, client)| *client)
    }

    /// The names of all.
    pub fn names() -> Vec<String> {
        CLIENTS.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}

/// What transaction `number`, which is not 0, of the run with `seed` does to `table`.
pub fn changes(seed: u64, number: usize, table: &Table) -> Vec<Change> {
    let mut random = Rng::with_seed(seed.wrapping_mul(1 << 20).wrapping_add(number as u64));
    let mut table = table.clone();
    let count = random.usize(1..5);
    let mut changes = Vec::new();
    while changes.len() < count {
        let key = random.u64(..KEYS);
        let change = match table.contains_key(&key) && random.u8(..3) == 0 {
            true => Change::Delete(key),
            false => {
                // Small ones for the most part; some that do not fit in a page.
                let len = match random.u8(..8) {
                    0 => random.usize(4000..10000),
                    1 | 2 => random.usize(500..2000),
                    _ => random.usize(8..200),
                };
                let mut value = vec![0; len];
                fill(number, key << 16, &mut value);
                Change::Put(key, value)
            }
        };
        apply(&mut table, &change);
        changes.push(change);
    }
    changes
}

fn apply(table: &mut Table, change: &Change) {
    match change {
        Change::Put(key, value) => table.insert(*key, value.clone()),
        Change::Delete(key) => table.remove(key),
    };
}

/// The table before each transaction but the first, and after the last: nothing after the first.
pub fn tables(seed: u64) -> Vec<Table> {
    let mut table = Table::new();
    let mut tables = vec![table.clone()];
    for number in 1..TRANSACTIONS {
        for change in changes(seed, number, &table) {
            apply(&mut table, &change);
        }
        tables.push(table.clone());
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_change_with_each_transaction() {
        let tables = tables(1);
        assert_eq!(tables.len(), TRANSACTIONS);
        assert!(tables[0].is_empty());
        assert!(tables.windows(2).all(|pair| pair[0] != pair[1]));
        assert_ne!(tables[5], super::tables(2)[5]);
        let large = |table: &Table| table.values().any(|value| value.len() > 4096);
        assert!(tables.iter().any(large));
    }
}
