// SPDX-License-Identifier: GPL-2.0

//! LMDB.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use anyhow::{ensure, Result};
use heed::types::Bytes;
use heed::{Env, EnvFlags, EnvOpenOptions};
use rdax_crash_ops::client::{Change, Table};

use super::Database;

/// Bytes of the map, and with `MDB_WRITEMAP` of the file.
const MAP: usize = 1 << 20;

/// Bytes of a page: the first two are the meta pages, of which each commit writes one.
const PAGE: usize = 4096;
/// More than what a commit writes there: as a whole, LMDB takes for granted.
const META: Range<usize> = 0..192;

/// An environment with one database.
pub struct Lmdb {
    env: Env,
    database: heed::Database<Bytes, Bytes>,
}

impl Lmdb {
    /// Opens or makes it in `dir`; with `MDB_WRITEMAP` if `write_map`.
    pub fn open(dir: &Path, write_map: bool) -> Result<Self> {
        let mode = match write_map {
            true => EnvFlags::WRITE_MAP,
            false => EnvFlags::empty(),
        };
        Self::open_with(dir, mode)
    }

    fn open_with(dir: &Path, flags: EnvFlags) -> Result<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP);
        // SAFETY: this process, which has no other environment in this place, is its only user;
        // nobody writes to its map but LMDB.
        let env = unsafe { options.flags(flags).open(dir) }?;
        let mut txn = env.write_txn()?;
        let database = env.create_database(&mut txn, None)?;
        txn.commit()?;
        Ok(Lmdb { env, database })
    }
}

/// What counts of the two meta pages.
pub type Metas = [Vec<u8>; 2];

/// The meta pages of the environment in `dir`.
pub fn metas(dir: &Path) -> Result<Metas> {
    let mut pages = vec![0; 2 * PAGE];
    File::open(dir.join("data.mdb"))?.read_exact(&mut pages)?;
    Ok([0, PAGE].map(|at| pages[at + META.start..at + META.end].to_vec()))
}

/// Whether one of the `found` meta pages is a mixture of what `commits` have made of it. On a disk
/// it cannot be: it is a part of one sector. In memory it is three lines, and a crash in a commit
/// may leave those of two of them. Uses `dir`.
pub fn is_torn(found: &Metas, dir: &Path, commits: &[Vec<Change>]) -> Result<bool> {
    // The same again gives the same pages.
    let again = dir.join("again");
    fs::create_dir(&again)?;
    let mut database = Lmdb::open_with(&again, EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC)?;
    let mut whole = [false; 2];
    let mut note = || -> Result<()> {
        for (whole, (found, made)) in whole.iter_mut().zip(found.iter().zip(metas(&again)?)) {
            *whole |= *found == made;
        }
        Ok(())
    };
    note()?;
    for changes in commits {
        database.commit(changes)?;
        note()?;
    }
    Ok(whole != [true; 2])
}

impl Database for Lmdb {
    fn commit(&mut self, changes: &[Change]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        for change in changes {
            match change {
                Change::Put(key, value) => {
                    self.database.put(&mut txn, &key.to_be_bytes(), value)?;
                }
                Change::Delete(key) => {
                    ensure!(self.database.delete(&mut txn, &key.to_be_bytes())?);
                }
            }
        }
        Ok(txn.commit()?)
    }

    fn table(&mut self) -> Result<Table> {
        let txn = self.env.read_txn()?;
        let mut table = Table::new();
        for entry in self.database.iter(&txn)? {
            let (key, value) = entry?;
            table.insert(u64::from_be_bytes(key.try_into()?), value.to_owned());
        }
        let counted = self.database.len(&txn)?;
        ensure!(
            counted == table.len() as u64,
            "{} entries, {counted} counted",
            table.len()
        );
        Ok(table)
    }
}
