// SPDX-License-Identifier: GPL-2.0

//! Hot pages: what is stored to before every sync costs no fault, is written back at each, and
//! moves the times; and what is not stored to any more cools down.

use std::fs::File;
use std::time::SystemTime;

use anyhow::{ensure, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::mm::MsyncFlags;

use crate::common::{filled, syncfs};
use crate::times::moved;
use crate::{huge, Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("a hot page costs no fault and one write-back", no_fault),
    ("a page that is not hot any more cools down", cools_down),
    ("pages stored to in turn are hot", in_turn),
    ("pages stored to by chance are not", by_chance),
    ("the times move with every store, and not without", times),
    (
        "the times move with a store to any part of a hot page",
        parts,
    ),
    ("the times move while a hot page cools down", times_cooling),
    (
        "a hot page that is unmapped is still written back",
        unmapped,
    ),
    ("a hot page that becomes part of 2 MiB", joined),
    ("a sync of all leaves hot pages hot", sync_all),
    ("a hot page in two mappings", two_mappings),
    ("a hot page that is truncated away", truncated),
];

/// Syncs in a row that find a page dirty before it is hot.
pub const WARM_UP: u8 = 3;

/// What a sync of one hot page costs.
const HOT: [(&str, u64); 7] = [
    ("write_faults", 0),
    ("mkwrite_faults", 0),
    ("pages_write_protected", 0),
    ("pages_written_back", 1),
    ("hot_pages", 1),
    ("lines_flushed", 64),
    ("fences", 1),
];

fn store_and_sync(map: &Map, at: usize, value: u8) -> Result<()> {
    map.store(at, value);
    Ok(map.msync(at - at % PAGE, PAGE, MsyncFlags::SYNC)?)
}

/// A file of `pages` with the first page hot.
fn hot(place: &Place, pages: usize) -> Result<(File, Map)> {
    let file = filled(&place.fresh("hot"), pages)?;
    let map = Map::shared(&file, pages * PAGE)?;
    (0..WARM_UP).try_for_each(|round| store_and_sync(&map, 0, 100 + round))?;
    Ok((file, map))
}

fn no_fault(place: &Place) -> Result<()> {
    let (file, map) = hot(place, 4)?;
    for round in 0..20 {
        place
            .counters
            .expect(&HOT, || store_and_sync(&map, 0, round))?;
        place.counters.expect(&HOT, || {
            map.store(64, round);
            Ok(file.sync_data()?)
        })?;
    }
    // Its neighbour is not.
    place.counters.expect(
        &[
            ("write_faults", 1),
            ("hot_pages", 0),
            ("pages_written_back", 1),
        ],
        || store_and_sync(&map, PAGE, 1),
    )
}

/// Syncs in a row that find a hot page left alone and keep it hot.
pub const PATIENCE: usize = 7;

fn cools_down(place: &Place) -> Result<()> {
    let (file, map) = hot(place, 4)?;
    for _ in 0..PATIENCE {
        place.counters.expect(&HOT, || Ok(file.sync_data()?))?;
    }
    // A store in between, and all begins anew.
    place.counters.expect(&HOT, || store_and_sync(&map, 0, 9))?;
    for _ in 0..PATIENCE {
        place.counters.expect(&HOT, || Ok(file.sync_data()?))?;
    }
    place.counters.expect(
        &[
            ("pages_write_protected", 1),
            ("pages_written_back", 1),
            ("hot_pages", 0),
        ],
        || Ok(file.sync_data()?),
    )?;
    place
        .counters
        .expect(&[("pages_written_back", 0), ("fences", 0)], || {
            Ok(file.sync_data()?)
        })?;
    // The next store is seen, and the page has to earn it again.
    place.counters.expect(
        &[
            ("mkwrite_faults", 1),
            ("hot_pages", 0),
            ("pages_written_back", 1),
        ],
        || store_and_sync(&map, 0, 7),
    )
}

fn times(place: &Place) -> Result<()> {
    let (file, map) = hot(place, 4)?;
    for round in 0..5 {
        let seen = moved(&file, || store_and_sync(&map, 8, round))?;
        ensure!(seen, "round {round}: the times did not move");
    }
    for _ in 0..=PATIENCE {
        let seen = moved(&file, || Ok(map.msync(0, PAGE, MsyncFlags::SYNC)?))?;
        ensure!(!seen, "the times moved without a store");
    }
    let seen = moved(&file, || {
        map.store(8, 99);
        Ok(file.sync_all()?)
    })?;
    ensure!(seen, "the times did not move after it cooled down");
    Ok(())
}

/// Each 16 bytes of the page, as the fingerprint takes them in.
fn parts(place: &Place) -> Result<()> {
    let (file, map) = hot(place, 4)?;
    let rounds = PAGE / 16;
    place.counters.expect(
        &[("mkwrite_faults", 0), ("hot_pages", rounds as u64)],
        || {
            for nth in 0..rounds {
                // No clock has such a grain.
                file.set_modified(SystemTime::UNIX_EPOCH)?;
                let at = 16 * nth + nth % 16;
                store_and_sync(&map, at, 200)?;
                ensure!(
                    file.metadata()?.modified()? != SystemTime::UNIX_EPOCH,
                    "the times did not move with a store to byte {at}"
                );
            }
            Ok(())
        },
    )
}

/// After any number of syncs that leave the page alone, also where a sync finds another page of the
/// chunk dirty.
fn times_cooling(place: &Place) -> Result<()> {
    for other in [false, true] {
        for quiet in 1..3 * PATIENCE {
            let (file, map) = hot(place, 8)?;
            for left in (0..quiet).rev() {
                if other && left == 0 {
                    map.store(4 * PAGE, 1);
                }
                file.sync_all()?;
            }
            let seen = moved(&file, || {
                map.store(0, 99);
                Ok(file.sync_all()?)
            })?;
            ensure!(seen, "{quiet} syncs without a store, other page: {other}");
        }
    }
    Ok(())
}

/// As the pages of a database that copies on write, of which each commit stores to some.
fn in_turn(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 8)?;
    let map = Map::shared(&file, 8 * PAGE)?;
    let commit = |round: usize| {
        map.store(round % 4 * PAGE, round as u8);
        Ok(file.sync_data()?)
    };
    (0..12).try_for_each(commit)?;
    for round in 12..40 {
        place
            .counters
            .expect(&[("mkwrite_faults", 0), ("pages_written_back", 4)], || {
                commit(round)
            })?;
    }
    Ok(())
}

/// Pages that are hit by chance are never hot, however often there is a sync.
fn by_chance(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 400)?;
    let map = Map::shared(&file, 400 * PAGE)?;
    for round in 0..1000 {
        place
            .counters
            .expect(&[("hot_pages", 0), ("pages_written_back", 1)], || {
                store_and_sync(&map, round * 7 % 400 * PAGE, round as u8)
            })?;
    }
    Ok(())
}

fn unmapped(place: &Place) -> Result<()> {
    let (file, map) = hot(place, 1)?;
    map.store(0, 5);
    drop(map);
    let seen = moved(&file, || {
        place.counters.expect(
            &[("pages_written_back", 1), ("hot_pages", 0), ("fences", 1)],
            || Ok(file.sync_data()?),
        )
    })?;
    ensure!(seen, "the times did not move");
    place
        .counters
        .expect(&[("pages_written_back", 0)], || Ok(file.sync_data()?))
}

fn joined(place: &Place) -> Result<()> {
    let file = huge::file(place, 1)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    (0..WARM_UP).try_for_each(|round| store_and_sync(&map, 0, 100 + round))?;
    map.store(0, 5);
    drop(map);
    let whole = Map::shared(&file, huge::HUGE)?;
    let seen = moved(&file, || {
        place.counters.expect(&[("huge_faults", 1)], || {
            ensure!(whole.load(0) == 5);
            Ok(file.sync_data()?)
        })
    })?;
    ensure!(seen, "the times did not move");
    Ok(())
}

fn sync_all(place: &Place) -> Result<()> {
    let (file, map) = hot(place, 1)?;
    // Times that have moved become durable, too.
    let [costs @ .., (_fences, _)] = HOT;
    // It finds them each time.
    for round in 0..20 {
        let seen = moved(&file, || {
            place.counters.expect(&costs, || {
                map.store(0, round);
                syncfs(&file)
            })
        })?;
        ensure!(seen, "the times did not move");
    }
    let seen = moved(&file, || {
        (0..PATIENCE).try_for_each(|_| place.counters.expect(&HOT, || syncfs(&file)))
    })?;
    ensure!(!seen, "the times moved");
    // And those that are not hot any more, once.
    let cools = [
        ("pages_write_protected", 1),
        ("pages_written_back", 1),
        ("hot_pages", 0),
    ];
    place.counters.expect(&cools, || syncfs(&file))?;
    place
        .counters
        .expect(&[("pages_written_back", 0)], || syncfs(&file))
}

fn two_mappings(place: &Place) -> Result<()> {
    let (file, map) = hot(place, 1)?;
    let other = Map::shared(&file, PAGE)?;
    // One fault makes the second mapping writable; after it, both are hot.
    store_and_sync(&other, 8, 201)?;
    for round in 2..10 {
        place
            .counters
            .expect(&HOT, || store_and_sync(&map, 0, round))?;
        place
            .counters
            .expect(&HOT, || store_and_sync(&other, 8, round))?;
    }
    // Neither is writable when it has cooled down.
    (0..=PATIENCE).try_for_each(|_| file.sync_data())?;
    place.counters.expect(&[("mkwrite_faults", 2)], || {
        map.store(0, 6);
        other.store(8, 6);
        Ok(())
    })
}

fn truncated(place: &Place) -> Result<()> {
    let (file, map) = hot(place, 4)?;
    file.set_len(0)?;
    file.set_len(4 * PAGE as u64)?;
    place
        .counters
        .expect(&[("pages_written_back", 0)], || Ok(file.sync_data()?))?;
    ensure!(map.load(0) == 0, "old contents");
    place
        .counters
        .expect(&[("pages_written_back", 1), ("hot_pages", 0)], || {
            store_and_sync(&map, 0, 3)
        })
}
