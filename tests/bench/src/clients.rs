// SPDX-License-Identifier: GPL-2.0

//! Programs that people use: LMDB in this process, and SQLite's command line if there is one.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Result};
use heed::types::Bytes;
use heed::{Database, EnvFlags, EnvOpenOptions};

use crate::meter::Meter;

const TRANSACTIONS: u64 = 2048;
/// Fewer than fill SQLite's log, so that it grows all the while, and is copied at the end.
const INSERTS: u64 = 512;

/// Measures the rows of LMDB and SQLite.
pub fn measure(meter: &mut Meter, dir: &Path) -> Result<()> {
    let synced = EnvFlags::WRITE_MAP;
    let not_synced = EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC;
    for _ in 0..2 {
        lmdb(
            meter,
            dir,
            "LMDB, a put a transaction, MDB_WRITEMAP",
            synced,
        )?;
        lmdb(meter, dir, "LMDB, a put a transaction", EnvFlags::empty())?;
        lmdb(meter, dir, "LMDB, the same without a sync", not_synced)?;
    }
    if let Err(error) = Command::new("sqlite3").arg("-version").output() {
        ensure!(error.kind() == ErrorKind::NotFound, "sqlite3: {error}");
        eprintln!("rdax-bench: there is no sqlite3 here: its rows are left out");
        return Ok(());
    }
    sqlite(meter, dir, "SQLite, an insert a transaction, WAL", "WAL")?;
    sqlite(
        meter,
        dir,
        "SQLite, an insert a transaction, DELETE",
        "DELETE",
    )
}

fn lmdb(meter: &mut Meter, dir: &Path, operation: &str, flags: EnvFlags) -> Result<()> {
    let dir = dir.join("lmdb");
    fs::create_dir(&dir)?;
    let mut options = EnvOpenOptions::new();
    options.map_size(64 << 20);
    // SAFETY: the environment is new and this process, which has no other in this place, its only
    // user; nobody writes to its map but LMDB.
    let env = unsafe { options.flags(flags).open(&dir) }?;
    let mut txn = env.write_txn()?;
    let database: Database<Bytes, Bytes> = env.create_database(&mut txn, None)?;
    txn.commit()?;
    meter.repeat(operation, TRANSACTIONS, |n| {
        let mut txn = env.write_txn()?;
        database.put(&mut txn, &n.to_be_bytes(), &[0x69; 100])?;
        Ok(txn.commit()?)
    })?;
    drop(env);
    Ok(fs::remove_dir_all(dir)?)
}

/// What an insert costs, with the parsing of its statement.
fn sqlite(meter: &mut Meter, dir: &Path, operation: &str, journal: &str) -> Result<()> {
    // Not on the file system to measure.
    let script = std::env::temp_dir().join(format!("rdax-bench-{}.sql", std::process::id()));
    let result = meter.program(operation, 64, 64 + INSERTS, |inserts| {
        let mut text = format!(
            "PRAGMA journal_mode={journal};\nPRAGMA synchronous=FULL;\n\
             CREATE TABLE entries (id INTEGER PRIMARY KEY, value TEXT);\n"
        );
        for n in 0..inserts {
            text += &format!("INSERT INTO entries VALUES ({n}, 'the value of entry {n}');\n");
        }
        fs::write(&script, text)?;
        let mut command = Command::new("sqlite3");
        command
            .args(["-batch", "-bail", "-init", "/dev/null"])
            .arg(dir.join(format!("{journal}-{inserts}")))
            .stdin(File::open(&script)?);
        Ok(command)
    });
    let removed = fs::remove_file(&script);
    result?;
    Ok(removed?)
}
