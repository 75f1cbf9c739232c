// SPDX-License-Identifier: GPL-2.0

//! Without a sync call, a store is durable after a while all the same (`dirty_expire_centisecs`).

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::mm::MsyncFlags;

use crate::common::{filled, long, wait_until, Sysctl};
use crate::times::moved;
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("a dirty page is written back by age", by_age),
    ("so is one whose mapping is gone", unmapped),
    ("so is a hot one, which moves the times", hot),
    ("a page that is stored to all the time is, too", never_quiet),
];

/// Makes the flusher quick, as long as it lives.
pub fn quick() -> Result<[Sysctl; 2]> {
    Ok([
        Sysctl::set("dirty_expire_centisecs", "30")?,
        Sysctl::set("dirty_writeback_centisecs", "10")?,
    ])
}

/// Waits until `count` more pages were written back since `before`.
pub fn written_back(place: &Place, before: u64, count: u64) -> Result<()> {
    let is_written = || {
        place
            .counters
            .read("pages_written_back")
            .is_ok_and(|now| now >= before + count)
    };
    ensure!(wait_until(is_written), "not written back");
    Ok(())
}

fn by_age(place: &Place) -> Result<()> {
    let _quick = quick()?;
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    // Not so often that it becomes hot.
    for round in 0..2 {
        let before = place.counters.read("pages_written_back")?;
        map.store(0, round);
        map.store(2 * PAGE, round);
        map.msync(0, 4 * PAGE, MsyncFlags::ASYNC)?;
        written_back(place, before, 2)?;
        // Nothing is left for a sync.
        place
            .counters
            .expect(&[("pages_written_back", 0)], || Ok(file.sync_data()?))?;
    }
    Ok(())
}

fn unmapped(place: &Place) -> Result<()> {
    let _quick = quick()?;
    let file = filled(&place.fresh("a"), 1)?;
    let before = place.counters.read("pages_written_back")?;
    let map = Map::shared(&file, PAGE)?;
    map.store(0, 1);
    drop((map, file));
    written_back(place, before, 1)
}

fn hot(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 1)?;
    let map = Map::shared(&file, PAGE)?;
    for round in 0..5 {
        map.store(0, round);
        map.msync(0, PAGE, MsyncFlags::SYNC)?;
    }
    // It stays hot, and is found again.
    let _quick = quick()?;
    place.counters.expect(&[("mkwrite_faults", 0)], || {
        for round in 0..5 {
            let seen = moved(&file, || {
                let before = place.counters.read("pages_written_back")?;
                map.store(0, 77 + round);
                written_back(place, before, 1)
            })?;
            ensure!(seen, "the times did not move");
        }
        Ok(())
    })?;
    // Until nobody stores to it any more.
    let is_clean = || {
        let before = place.counters.read("pages_written_back");
        std::thread::sleep(Duration::from_millis(1500));
        let after = place.counters.read("pages_written_back");
        before.is_ok_and(|before| after.is_ok_and(|after| before == after))
    };
    ensure!(wait_until(is_clean), "written back for ever");
    Ok(())
}

fn never_quiet(place: &Place) -> Result<()> {
    let _quick = quick()?;
    let file = filled(&place.fresh("a"), 1)?;
    let map = Map::shared(&file, PAGE)?;
    let before = place.counters.read("pages_written_back")?;
    let start = Instant::now();
    let mut value = 0;
    while place.counters.read("pages_written_back")? < before + 3 {
        ensure!(start.elapsed() < long(), "not every round");
        value = u8::wrapping_add(value, 1);
        map.store(0, value);
    }
    Ok(())
}
