// SPDX-License-Identifier: GPL-2.0

//! Databases as clients of the file system: their transactions, with marks, and what their library
//! says of the files that a crash has left.

mod lmdb;
mod sqlite;

use std::path::Path;

use anyhow::{bail, ensure, Result};
use rdax_crash_ops::client::{changes, tables, Change, Client, Table, TRANSACTIONS};

use crate::mark::{mark, Mark};

/// A database with the table of a client.
trait Database {
    /// Makes the changes in one transaction, which is durable when it returns.
    fn commit(&mut self, changes: &[Change]) -> Result<()>;

    /// What is in the table, after what the library has to say of the files. Without a table,
    /// nothing.
    fn table(&mut self) -> Result<Table>;
}

/// Opens the database of `client` in `dir`, or makes it if there is none.
fn open(client: Client, dir: &Path) -> Result<Box<dyn Database>> {
    Ok(match client {
        Client::LmdbWriteMap => Box::new(lmdb::Lmdb::open(dir, true)?),
        Client::Lmdb => Box::new(lmdb::Lmdb::open(dir, false)?),
        Client::SqliteWal => Box::new(sqlite::Sqlite::open(dir, "WAL")?),
        Client::SqliteDelete => Box::new(sqlite::Sqlite::open(dir, "DELETE")?),
    })
}

/// Runs all transactions of `client` in `dir`, with a mark before and after each. The first makes
/// the database.
pub fn run(client: Client, seed: u64, dir: &Path) -> Result<()> {
    let tables = tables(seed);
    mark(Mark::Begins(0));
    let mut database = open(client, dir)?;
    mark(Mark::Returned(0));
    for (number, table) in (1..TRANSACTIONS).zip(&tables) {
        let changes = changes(seed, number, table);
        mark(Mark::Begins(number));
        database.commit(&changes)?;
        mark(Mark::Returned(number));
    }
    mark(Mark::Ended);
    Ok(())
}

/// Fails unless the database of `client` in `dir` is sound, has the table after the first
/// `finished` transactions or, if `in_flight`, after one more, and takes another transaction. Of
/// LMDB nothing is said where a crash has torn a meta page.
pub fn check(
    client: Client,
    seed: u64,
    dir: &Path,
    finished: usize,
    in_flight: bool,
) -> Result<()> {
    let tables = tables(seed);
    let metas = match client {
        Client::LmdbWriteMap | Client::Lmdb => Some(lmdb::metas(dir)?),
        Client::SqliteWal | Client::SqliteDelete => None,
    };
    let result = compare(client, seed, dir, &tables, finished, in_flight);
    let (Err(_), Some(metas)) = (&result, metas) else {
        return result;
    };
    let commits: Vec<_> = (1..TRANSACTIONS)
        .zip(&tables)
        .map(|(number, table)| changes(seed, number, table))
        .collect();
    match lmdb::is_torn(&metas, dir, &commits)? {
        true => Ok(()),
        false => result,
    }
}

fn compare(
    client: Client,
    seed: u64,
    dir: &Path,
    tables: &[Table],
    finished: usize,
    in_flight: bool,
) -> Result<()> {
    let mut database = open(client, dir)?;
    let found = database.table()?;
    // The first transaction makes the empty table.
    let after = |transactions: usize| tables.get(transactions.saturating_sub(1));
    let may_be = [Some(finished), in_flight.then_some(finished + 1)];
    let mut expected = may_be.into_iter().flatten().filter_map(after);
    let Some(table) = expected.find(|table| **table == found) else {
        let keys = differences(&found, after(finished));
        bail!("not the table after {finished} transactions: other values for the keys {keys:?}");
    };
    // What it takes for free must be so.
    let changes = changes(seed, TRANSACTIONS, table);
    database.commit(&changes)?;
    drop(database);
    let mut expected = table.clone();
    for change in changes {
        match change {
            Change::Put(key, value) => expected.insert(key, value),
            Change::Delete(key) => expected.remove(&key),
        };
    }
    let found = open(client, dir)?.table()?;
    ensure!(found == expected, "another transaction went wrong");
    Ok(())
}

/// The keys whose values differ.
fn differences(found: &Table, expected: Option<&Table>) -> Vec<u64> {
    let keys = found
        .keys()
        .chain(expected.into_iter().flat_map(Table::keys));
    let mut keys: Vec<u64> = keys
        .copied()
        .filter(|key| found.get(key) != expected.and_then(|table| table.get(key)))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
