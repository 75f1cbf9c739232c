// SPDX-License-Identifier: GPL-2.0

//! SQLite.

use std::path::Path;

use anyhow::{ensure, Result};
use rdax_crash_ops::client::{Change, Table};
use rusqlite::{params, Connection};

use super::Database;

/// A connection to a file with one table.
pub struct Sqlite(Connection);

impl Sqlite {
    /// Opens or makes it in `dir`, with that `journal_mode`.
    pub fn open(dir: &Path, journal: &str) -> Result<Self> {
        let connection = Connection::open(dir.join("database"))?;
        // A log that is copied to the file now and then, not only at the end.
        connection.execute_batch(&format!(
            "PRAGMA journal_mode={journal};
             PRAGMA synchronous=FULL;
             PRAGMA wal_autocheckpoint=12;
             CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, value BLOB);"
        ))?;
        Ok(Sqlite(connection))
    }
}

impl Database for Sqlite {
    fn commit(&mut self, changes: &[Change]) -> Result<()> {
        let transaction = self.0.transaction()?;
        for change in changes {
            match change {
                Change::Put(key, value) => {
                    let statement = "INSERT OR REPLACE INTO entries VALUES (?1, ?2)";
                    transaction.execute(statement, params![*key as i64, value])?;
                }
                Change::Delete(key) => {
                    let statement = "DELETE FROM entries WHERE id = ?1";
                    ensure!(transaction.execute(statement, params![*key as i64])? == 1);
                }
            }
        }
        Ok(transaction.commit()?)
    }

    fn table(&mut self) -> Result<Table> {
        let said: String = self
            .0
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        ensure!(said == "ok", "integrity_check: {said}");
        let mut statement = self.0.prepare("SELECT id, value FROM entries")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, Vec<u8>>(1)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
