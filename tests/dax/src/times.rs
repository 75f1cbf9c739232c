// SPDX-License-Identifier: GPL-2.0

//! mtime and ctime move when a mapping is stored to, and only then (xfstests generic/080, 215).

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{ensure, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::mm::MsyncFlags;

use crate::common::filled;
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    (
        "read, then write: the file system sees it, the times move",
        read_then_write,
    ),
    ("a store after each sync moves the times", after_sync),
    (
        "loads, and stores to private mappings, do not",
        not_without_a_store,
    ),
    ("the times are durable with fsync", durable),
];

fn times(file: &File) -> Result<(i128, i128)> {
    let meta = file.metadata()?;
    let ns = |s: i64, n: i64| i128::from(s) * 1_000_000_000 + i128::from(n);
    Ok((
        ns(meta.mtime(), meta.mtime_nsec()),
        ns(meta.ctime(), meta.ctime_nsec()),
    ))
}

/// Longer than the clock's grain.
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Whether the times of `file` move while `work` runs.
pub fn moved(file: &File, work: impl FnOnce() -> Result<()>) -> Result<bool> {
    let before = times(file)?;
    pause();
    work()?;
    let after = times(file)?;
    ensure!(
        (after.0 > before.0) == (after.1 > before.1),
        "only one of mtime and ctime moved"
    );
    Ok(after.0 > before.0)
}

fn read_then_write(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    ensure!(!moved(&file, || {
        place.counters.expect(&[("read_faults", 1)], || {
            ensure!(map.load(PAGE) == 2);
            Ok(())
        })
    })?);
    let seen = moved(&file, || {
        place.counters.expect(
            &[
                ("mkwrite_faults", 1),
                ("write_faults", 0),
                ("pages_tagged", 1),
            ],
            || {
                map.store(PAGE, 7);
                Ok(())
            },
        )
    })?;
    ensure!(seen, "the times did not move");
    place
        .counters
        .expect(&[("pages_written_back", 1)], || Ok(file.sync_all()?))
}

fn after_sync(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 1)?;
    let map = Map::shared(&file, PAGE)?;
    for round in 0..5 {
        let seen = moved(&file, || {
            map.store(0, round);
            Ok(map.msync(0, PAGE, MsyncFlags::SYNC)?)
        })?;
        ensure!(seen, "round {round}: the times did not move");
    }
    Ok(())
}

fn not_without_a_store(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let shared = Map::shared(&file, 4 * PAGE)?;
    let private = Map::private(&file, 4 * PAGE)?;
    let seen = moved(&file, || {
        ensure!(shared.load(0) == 1 && private.load(PAGE) == 2);
        private.store(0, 77);
        private.store(2 * PAGE, 77);
        shared.msync(0, 4 * PAGE, MsyncFlags::SYNC)?;
        Ok(file.sync_all()?)
    })?;
    ensure!(!seen, "the times moved without a store");
    Ok(())
}

fn durable(place: &Place) -> Result<()> {
    let path = place.fresh("a");
    let file = filled(&path, 1)?;
    let map = Map::shared(&file, PAGE)?;
    ensure!(moved(&file, || {
        map.store(0, 9);
        Ok(())
    })?);
    file.sync_all()?;
    let before = times(&file)?;
    drop((map, file));
    std::fs::write("/proc/sys/vm/drop_caches", "3")?;
    ensure!(times(&File::open(&path)?)? == before, "the times went back");
    Ok(())
}
