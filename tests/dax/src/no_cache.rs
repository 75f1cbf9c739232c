// SPDX-License-Identifier: GPL-2.0

//! A device that says that its write cache is not volatile: nothing is written back by fsync, and
//! all else is as with a volatile one.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{ensure, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

use crate::common::filled;
use crate::freeze::{remount, stands_still};
use crate::hot::PATIENCE;
use crate::times::moved;
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    (
        "what was stored is written back when the cache has become volatile",
        switched,
    ),
    ("a store after each sync moves the times", times),
    ("freeze with a mapped writer", freeze),
    ("freeze with hot pages", freeze_hot),
    ("read-only, and writable again", read_only),
];

/// The write cache of the device is not volatile, until this is dropped.
pub struct NoCache(PathBuf);

impl NoCache {
    pub fn new(place: &Place) -> Result<Self> {
        let setting = place.counters.device().join("dax/write_cache");
        std::fs::write(&setting, "0")?;
        Ok(NoCache(setting))
    }
}

impl Drop for NoCache {
    fn drop(&mut self) {
        std::fs::write(&self.0, "1").expect("write_cache");
    }
}

const NOTHING: [(&str, u64); 4] = [
    ("pages_written_back", 0),
    ("lines_flushed", 0),
    ("fences", 0),
    ("pages_write_protected", 0),
];

fn file(place: &Place, pages: usize) -> Result<(File, Map)> {
    let file = filled(&place.fresh("a"), pages)?;
    let map = Map::shared(&file, pages * PAGE)?;
    Ok((file, map))
}

fn switched(place: &Place) -> Result<()> {
    let (file, map) = file(place, 4)?;
    let off = NoCache::new(place)?;
    (0..4).for_each(|page| map.store(page * PAGE, 1));
    if place.is_synchronous()? {
        let protected = [
            NOTHING[0],
            NOTHING[1],
            NOTHING[2],
            ("pages_write_protected", 4),
        ];
        place
            .counters
            .expect(&protected, || Ok(file.sync_data()?))?;
        // What is left alone costs nothing more.
        place.counters.expect(&NOTHING, || Ok(file.sync_data()?))?;
        place
            .counters
            .expect(&[("mkwrite_faults", 1), ("write_faults", 0)], || {
                map.store(0, 2);
                Ok(map.msync(0, 4 * PAGE, MsyncFlags::SYNC)?)
            })?;
        file.set_len(2 * PAGE as u64)?;
        drop(off);
        return place
            .counters
            .expect(&[("pages_written_back", 2), ("fences", 1)], || {
                Ok(file.sync_data()?)
            });
    }
    // What lies behind the cache is volatile, whatever the setting says.
    place
        .counters
        .expect(&[("pages_written_back", 4), ("fences", 1)], || {
            Ok(file.sync_data()?)
        })
}

/// Also on the way from hot to cold.
fn times(place: &Place) -> Result<()> {
    let (file, map) = file(place, 4)?;
    let _off = NoCache::new(place)?;
    for round in 0..6 {
        let seen = moved(&file, || {
            map.store(0, round);
            Ok(file.sync_all()?)
        })?;
        ensure!(seen, "round {round}: the times did not move");
    }
    for quiet in 1..=PATIENCE + 1 {
        let seen = moved(&file, || (0..quiet).try_for_each(|_| Ok(file.sync_all()?)))?;
        ensure!(!seen, "the times moved without a store");
        let seen = moved(&file, || {
            map.store(8, 100 + quiet as u8);
            Ok(map.msync(0, PAGE, MsyncFlags::SYNC)?)
        })?;
        ensure!(seen, "not after {quiet} syncs without a store");
    }
    Ok(())
}

fn freeze(place: &Place) -> Result<()> {
    let (file, map) = file(place, 4)?;
    let _off = NoCache::new(place)?;
    map.store(PAGE, 7);
    file.sync_data()?;
    map.store(0, 1);
    stands_still(place, &map, &[("pages_write_protected", 1)])?;
    Ok(file.sync_all()?)
}

fn freeze_hot(place: &Place) -> Result<()> {
    let (file, map) = file(place, 4)?;
    let _off = NoCache::new(place)?;
    for round in 0..6 {
        map.store(0, 10 + round);
        file.sync_data()?;
    }
    map.store(0, 1);
    stands_still(place, &map, &[("pages_write_protected", 1)])
}

fn read_only(place: &Place) -> Result<()> {
    let (file, map) = file(place, 4)?;
    let off = NoCache::new(place)?;
    map.store(0, 9);
    file.sync_data()?;
    drop((file, map));
    remount(place, true)?;
    let file = File::open(place.dir.join("a"))?;
    let kept = Map::new(&file, PAGE, ProtFlags::READ, MapFlags::SHARED)?.load(0);
    remount(place, false)?;
    drop(off);
    ensure!(kept == 9);
    // All was written back before.
    place.counters.expect(&NOTHING, || Ok(file.sync_data()?))
}
