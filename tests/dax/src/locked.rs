// SPDX-License-Identifier: GPL-2.0

//! Mappings that are locked in memory: no sync makes their stores fault, and yet all of them is
//! durable, and moves the times.

use std::fs::File;

use anyhow::{ensure, Result};
use rdax_test_sys::{faults, End, Map, Whose, PAGE};
use rustix::mm::{mlockall, munlockall, MapFlags, MlockAllFlags, MsyncFlags, ProtFlags};

use crate::aging;
use crate::common::{filled, spawn, syncfs, wait_until};
use crate::freeze::stands_still;
use crate::hot::PATIENCE;
use crate::huge::{self, HUGE};
use crate::no_cache::NoCache;
use crate::times::moved;
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("no sync makes a store fault", no_fault),
    ("nor where the mapping was stored to before", locked_late),
    ("nor where 2 MiB were mapped in one piece", mapped_huge),
    ("what is locked first is mapped by pages", by_pages),
    ("nor without a write cache", no_cache),
    ("nor does the flusher, again and again", by_age),
    ("what is locked is not given back", kept),
    ("the times move with every store, and not without", times),
    ("what is unlocked is like any other", unlocked),
    ("a child has a copy that is not locked", forked),
    ("a mapping that cannot be stored through", read_only),
    ("the file is frozen all the same", frozen),
];

const PAGES: usize = 64;

/// As long as it lives, what this process maps is locked in memory.
struct AllLocked;

impl AllLocked {
    fn new() -> Result<Self> {
        mlockall(MlockAllFlags::FUTURE)?;
        Ok(AllLocked)
    }
}

impl Drop for AllLocked {
    fn drop(&mut self) {
        let _ = munlockall();
    }
}

/// Maps `len` bytes of a file, locked in memory.
pub fn map_locked(file: &File, len: usize) -> Result<Map> {
    let flags = MapFlags::SHARED | MapFlags::LOCKED;
    Ok(Map::new(
        file,
        len,
        ProtFlags::READ | ProtFlags::WRITE,
        flags,
    )?)
}

/// `work` takes no fault.
fn without_faults<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = faults(Whose::Thread);
    let result = work()?;
    let taken = faults(Whose::Thread) - before;
    ensure!(taken == 0, "{taken} faults");
    Ok(result)
}

/// Stores to every page.
fn store_all(map: &Map, pages: usize, value: u8) {
    (0..pages).for_each(|page| map.store(page * PAGE, value));
}

/// Stores to all pages and syncs them, in every way, while nothing faults: each sync has `expect`.
fn no_sync_protects(
    file: &File,
    map: &Map,
    pages: usize,
    place: &Place,
    expect: &[(&str, u64)],
) -> Result<()> {
    type Sync = fn(&File, &Map, usize) -> Result<()>;
    let syncs: [Sync; 4] = [
        |_, map, pages| Ok(map.msync(0, pages * PAGE, MsyncFlags::SYNC)?),
        |file, _, _| Ok(file.sync_data()?),
        |file, _, _| Ok(file.sync_all()?),
        |file, _, _| syncfs(file),
    ];
    // More than a hot page is waited for.
    for round in 0..20 {
        // Others are left alone, for as long as they may be.
        let stored = if round % 10 == 9 { pages } else { 2 };
        for sync in syncs {
            place.counters.expect(expect, || {
                without_faults(|| {
                    store_all(map, stored, round);
                    sync(file, map, pages)
                })
            })?;
        }
    }
    // It has the flusher write back, too, at any time.
    for round in 0..10 {
        without_faults(|| {
            store_all(map, 2, round);
            rustix::fs::sync();
            Ok(())
        })?;
    }
    without_faults(|| {
        store_all(map, pages, 77);
        Ok(())
    })
}

/// What a sync of `pages` of a locked mapping costs.
fn cost(pages: usize) -> [(&'static str, u64); 4] {
    [
        ("write_faults", 0),
        ("mkwrite_faults", 0),
        ("pages_write_protected", 0),
        ("pages_written_back", pages as u64),
    ]
}

/// A file of which so many pages are mapped, locked, and stored to.
fn locked(place: &Place, pages: usize) -> Result<(File, Map)> {
    let file = filled(&place.fresh("a"), pages)?;
    let map = map_locked(&file, pages * PAGE)?;
    store_all(&map, pages, 1);
    Ok((file, map))
}

fn no_fault(place: &Place) -> Result<()> {
    let (file, map) = locked(place, PAGES)?;
    no_sync_protects(&file, &map, PAGES, place, &cost(PAGES))
}

fn locked_late(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), PAGES)?;
    let map = Map::shared(&file, PAGES * PAGE)?;
    store_all(&map, PAGES, 1);
    let _locked = AllLocked::new()?;
    no_sync_protects(&file, &map, PAGES, place, &cost(PAGES))?;
    // Of a sync that is not of all, the rest stays as it is.
    place.counters.expect(&cost(1), || {
        without_faults(|| {
            store_all(&map, PAGES, 2);
            Ok(map.msync(PAGE, PAGE, MsyncFlags::SYNC)?)
        })
    })
}

fn mapped_huge(place: &Place) -> Result<()> {
    let file = huge::file(place, 1)?;
    let map = Map::shared(&file, HUGE)?;
    place.counters.expect(&[("huge_faults", 1)], || {
        map.store(0, 1);
        Ok(())
    })?;
    let _locked = AllLocked::new()?;
    no_sync_protects(&file, &map, HUGE / PAGE, place, &cost(HUGE / PAGE))
}

fn by_pages(place: &Place) -> Result<()> {
    let file = huge::file(place, 1)?;
    let _map = place.counters.expect(&[("huge_faults", 0)], || {
        let map = map_locked(&file, HUGE)?;
        map.store(0, 1);
        Ok(map)
    })?;
    place.counters.expect(&cost(1), || Ok(file.sync_data()?))
}

fn no_cache(place: &Place) -> Result<()> {
    let (file, map) = locked(place, 4)?;
    file.sync_all()?;
    let off = NoCache::new(place)?;
    for round in 0..20 {
        let seen = moved(&file, || {
            place.counters.expect(&cost(0), || {
                without_faults(|| {
                    store_all(&map, 4, round);
                    Ok(file.sync_data()?)
                })
            })
        })?;
        ensure!(seen, "the times did not move");
    }
    drop(off);
    place.counters.expect(&cost(4), || Ok(file.sync_data()?))
}

fn by_age(place: &Place) -> Result<()> {
    let (_file, map) = locked(place, 4)?;
    let _quick = aging::quick()?;
    for round in 0..4 {
        let before = place.counters.read("pages_written_back")?;
        without_faults(|| {
            store_all(&map, 4, round);
            Ok(())
        })?;
        aging::written_back(place, before, 4)?;
    }
    Ok(())
}

fn kept(place: &Place) -> Result<()> {
    let (file, map) = locked(place, 4)?;
    file.sync_all()?;
    for _ in 0..5 {
        std::fs::write("/proc/sys/vm/drop_caches", "3")?;
    }
    without_faults(|| {
        ensure!((0..4).all(|page| map.load(page * PAGE) == 1));
        store_all(&map, 4, 2);
        Ok(())
    })
}

fn times(place: &Place) -> Result<()> {
    let (file, map) = locked(place, 4)?;
    file.sync_all()?;
    for round in 0..20 {
        let syncs = [
            |file: &File| syncfs(file),
            |file: &File| Ok(file.sync_all()?),
        ];
        for (nth, sync) in (0..).zip(syncs) {
            let seen = moved(&file, || {
                map.store(PAGE, 2 * round + nth + 5);
                sync(&file)
            })?;
            ensure!(seen, "the times did not move");
            ensure!(!moved(&file, || sync(&file))?, "the times moved");
        }
    }
    Ok(())
}

fn unlocked(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    let locked = AllLocked::new()?;
    store_all(&map, 4, 1);
    file.sync_all()?;
    drop(locked);
    // They cool down.
    for _ in 0..PATIENCE {
        place.counters.expect(&cost(4), || syncfs(&file))?;
    }
    let expect = [("pages_write_protected", 4), ("pages_written_back", 4)];
    place.counters.expect(&expect, || syncfs(&file))?;
    let expect = [("mkwrite_faults", 1), ("pages_written_back", 1)];
    place.counters.expect(&expect, || {
        map.store(0, 3);
        syncfs(&file)
    })
}

/// A child's copy of the mapping is not locked; the parent's is, still, and so is a part of it.
fn forked(place: &Place) -> Result<()> {
    let (file, mut map) = locked(place, 4)?;
    map.relocate()?;
    store_all(&map, 4, 2);
    place.counters.expect(&cost(4), || syncfs(&file))?;
    let child = spawn(|| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        store_all(&map, 4, 3);
        for _ in 0..=PATIENCE {
            place.counters.expect(&cost(4), || syncfs(&file))?;
        }
        let expect = [("pages_write_protected", 4), ("pages_written_back", 4)];
        place.counters.expect(&expect, || syncfs(&file))
    })?;
    drop(map);
    ensure!(child.wait()? == End::Exit(0));
    Ok(())
}

fn read_only(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    let other = Map::new(
        &file,
        4 * PAGE,
        ProtFlags::READ,
        MapFlags::SHARED | MapFlags::LOCKED,
    )?;
    for round in 0..2 {
        let expect = [("pages_write_protected", 1), ("pages_written_back", 1)];
        place.counters.expect(&expect, || {
            map.store(0, round);
            syncfs(&file)
        })?;
    }
    // Its loads do not fault.
    std::fs::write("/proc/sys/vm/drop_caches", "3")?;
    let first = without_faults(|| Ok(other.load(0)))?;
    ensure!(first == 1);
    Ok(())
}

fn frozen(place: &Place) -> Result<()> {
    let (file, map) = locked(place, 4)?;
    map.store(3 * PAGE, 4);
    file.sync_all()?;
    syncfs(&file)?;
    let expect = [("pages_written_back", 4), ("pages_write_protected", 4)];
    stands_still(place, &map, &expect)?;
    // While others sync and write back.
    let _quick = aging::quick()?;
    for _ in 0..10 {
        store_all(&map, 4, 1);
        let before = place.counters.read("pages_written_back")?;
        ensure!(wait_until(|| place
            .counters
            .read("pages_written_back")
            .is_ok_and(|now| now > before)));
        map.store(3 * PAGE, 4);
        stands_still(place, &map, &[])?;
    }
    Ok(())
}
