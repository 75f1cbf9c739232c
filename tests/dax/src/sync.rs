// SPDX-License-Identifier: GPL-2.0

//! fsync, msync, sync: they write back what is dirty in their range, once, and nothing else.

use anyhow::{ensure, Result};
use rdax_test_sys::{Addresses, Map, PAGE};
use rustix::fs::FallocateFlags;
use rustix::mm::{MapFlags, MprotectFlags, MsyncFlags, ProtFlags};

use crate::common::{create, fallocate, filled, syncfs};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("msync of one page writes back one page", one_page),
    ("fsync with nothing dirty costs no fence", nothing_dirty),
    ("a range that ends inside pages", inside_pages),
    ("pages far apart, one fence", far_apart),
    ("ranges that end at every edge of 2 MiB", edges),
    ("neighbours in one run", one_run),
    ("fdatasync, syncfs, sync", other_calls),
    ("msync over two files, MS_ASYNC", msync_flags),
    (
        "a private and a read-only mapping do not hide a writer",
        other_mappings,
    ),
    ("mprotect does not make a clean page writable", protection),
];

/// What one page costs.
const ONE_PAGE: [(&str, u64); 4] = [
    ("pages_written_back", 1),
    ("lines_flushed", 64),
    ("fences", 1),
    ("pages_write_protected", 1),
];
/// What nothing costs.
const NOTHING: [(&str, u64); 4] = [
    ("pages_written_back", 0),
    ("lines_flushed", 0),
    ("fences", 0),
    ("pages_write_protected", 0),
];

fn one_page(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 64)?;
    let map = Map::shared(&file, 64 * PAGE)?;
    place.counters.expect(&[("pages_tagged", 64)], || {
        (0..64).for_each(|page| map.store(page * PAGE, 1));
        Ok(())
    })?;
    place.counters.expect(&[("pages_written_back", 64)], || {
        Ok(map.msync(0, 64 * PAGE, MsyncFlags::SYNC)?)
    })?;
    file.sync_all()?;
    place.counters.expect(
        &[
            ("pages_tagged", 2),
            ("mkwrite_faults", 2),
            ("write_faults", 0),
        ],
        || {
            map.store(3 * PAGE + 7, 2);
            map.store(40 * PAGE, 2);
            map.store(40 * PAGE + 1, 2);
            Ok(())
        },
    )?;
    // The times moved as well, and fdatasync-like msync leaves them alone.
    place.counters.expect(&ONE_PAGE, || {
        Ok(map.msync(3 * PAGE, PAGE, MsyncFlags::SYNC)?)
    })?;
    place.counters.expect(&NOTHING, || {
        Ok(map.msync(3 * PAGE, PAGE, MsyncFlags::SYNC)?)
    })?;
    place.counters.expect(&ONE_PAGE, || {
        Ok(map.msync(40 * PAGE, PAGE, MsyncFlags::SYNC)?)
    })?;
    place.counters.expect(&NOTHING, || {
        Ok(map.msync(0, 64 * PAGE, MsyncFlags::SYNC)?)
    })
}

fn nothing_dirty(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    place.counters.expect(&NOTHING, || Ok(file.sync_all()?))?;
    let map = Map::shared(&file, 4 * PAGE)?;
    map.store(0, 1);
    file.sync_all()?;
    place.counters.expect(&NOTHING, || Ok(file.sync_all()?))?;
    place.counters.expect(&NOTHING, || Ok(file.sync_data()?))
}

fn inside_pages(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 8)?;
    let map = Map::shared(&file, 8 * PAGE)?;
    (0..8).for_each(|page| map.store(page * PAGE, 1));
    // From page 2 to one byte into page 4.
    place
        .counters
        .expect(&[("pages_written_back", 3), ("fences", 1)], || {
            Ok(map.msync(2 * PAGE, 2 * PAGE + 1, MsyncFlags::SYNC)?)
        })?;
    place
        .counters
        .expect(&[("pages_written_back", 5)], || Ok(file.sync_data()?))
}

fn far_apart(place: &Place) -> Result<()> {
    let pages = 4096;
    let file = create(&place.fresh("a"))?;
    file.set_len((pages * PAGE) as u64)?;
    fallocate(&file, FallocateFlags::empty(), 0, (pages * PAGE) as u64)?;
    let map = Map::shared(&file, pages * PAGE)?;
    for i in 0..8 {
        map.store(i * 512 * PAGE + i * PAGE, 1);
    }
    // The first time, 2 MiB each.
    file.sync_data()?;
    for i in 0..8 {
        map.store(i * 512 * PAGE + i * PAGE, 2);
    }
    place.counters.expect(
        &[
            ("pages_written_back", 8),
            ("lines_flushed", 512),
            ("fences", 1),
        ],
        || Ok(map.msync(0, pages * PAGE, MsyncFlags::SYNC)?),
    )
}

/// What is known of pages is kept for 2 MiB each: a range takes the pages up to its ends, of each.
fn edges(place: &Place) -> Result<()> {
    let (len, first, last) = (3 * 512, 511, 1024);
    let stored = [0, 1, 510, 511, 512, 513, 1022, 1023, 1024, 1025, 1535];
    for (start, end) in [
        (0, first),
        (1, first),
        (first, first),
        (first, first + 1),
        (first + 1, last - 1),
        (first + 1, last),
        (first + 2, last - 2),
        (1, last + 1),
        (last - 1, len - 1),
        (last, last),
    ] {
        let file = create(&place.fresh("a"))?;
        fallocate(&file, FallocateFlags::empty(), 0, (len * PAGE) as u64)?;
        let map = Map::shared(&file, len * PAGE)?;
        // The first time, 2 MiB each.
        (0..3).for_each(|i| map.store((i * 512 + 100) * PAGE, 1));
        file.sync_data()?;
        stored.iter().for_each(|page| map.store(page * PAGE, 2));
        let within = stored.iter().filter(|page| (start..=end).contains(page));
        let within = within.count() as u64;
        let expect = |pages| [("pages_written_back", pages), ("lines_flushed", pages * 64)];
        place.counters.expect(&expect(within), || {
            Ok(map.msync(start * PAGE, (end + 1 - start) * PAGE, MsyncFlags::SYNC)?)
        })?;
        let others = stored.len() as u64 - within;
        place
            .counters
            .expect(&expect(others), || Ok(file.sync_data()?))?;
    }
    Ok(())
}

fn one_run(place: &Place) -> Result<()> {
    // Up to the end of the file: none is mapped ahead that is not stored to.
    let file = filled(&place.fresh("a"), 180)?;
    let map = Map::shared(&file, 180 * PAGE)?;
    let stores = |value| {
        (0..180).for_each(|page| map.store(page * PAGE + 9, value));
        Ok(())
    };
    // Before they are hot.
    for round in 1..3 {
        place
            .counters
            .expect(&[("pages_tagged", 180)], || stores(round))?;
        // Dirty already: neither faults nor tags.
        place
            .counters
            .expect(&[("pages_tagged", 0), ("mkwrite_faults", 0)], || {
                stores(round)
            })?;
        place.counters.expect(
            &[
                ("pages_written_back", 180),
                ("pages_write_protected", 180),
                ("lines_flushed", 180 * 64),
                ("fences", 1),
            ],
            || Ok(map.msync(0, 180 * PAGE, MsyncFlags::SYNC)?),
        )?;
    }
    Ok(())
}

fn other_calls(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 8)?;
    let map = Map::shared(&file, 8 * PAGE)?;
    // A page each: none gets hot, which a sync and the flusher that it wakes both write back.
    map.store(0, 1);
    place
        .counters
        .expect(&[("pages_written_back", 1)], || Ok(file.sync_data()?))?;
    map.store(PAGE, 2);
    place
        .counters
        .expect(&[("pages_written_back", 1)], || syncfs(&file))?;
    map.store(2 * PAGE, 3);
    place.counters.expect(&[("pages_written_back", 1)], || {
        rustix::fs::sync();
        Ok(())
    })?;
    Ok(())
}

fn msync_flags(place: &Place) -> Result<()> {
    let a = filled(&place.fresh("a"), 2)?;
    let b = filled(&place.fresh("b"), 2)?;
    // Two files next to each other in one range of addresses.
    let all = Addresses::new(4 * PAGE)?;
    let (first, second) = (all.map(0, &a, 2 * PAGE)?, all.map(2 * PAGE, &b, 2 * PAGE)?);
    first.store(0, 1);
    second.store(0, 1);
    place.counters.expect(&[("pages_written_back", 0)], || {
        Ok(all.msync(MsyncFlags::ASYNC)?)
    })?;
    place
        .counters
        .expect(&[("pages_written_back", 2), ("fences", 2)], || {
            Ok(all.msync(MsyncFlags::SYNC)?)
        })
}

fn other_mappings(place: &Place) -> Result<()> {
    let path = place.fresh("a");
    let file = filled(&path, 4)?;
    let read_only = std::fs::File::open(&path)?;
    let first = Map::private(&file, 4 * PAGE)?;
    let second = Map::new(&read_only, 4 * PAGE, ProtFlags::READ, MapFlags::SHARED)?;
    let writer = Map::shared(&file, 4 * PAGE)?;
    let third = Map::private(&file, 4 * PAGE)?;
    for map in [&first, &second, &writer, &third] {
        (0..4).for_each(|page| ensure_loaded(map, page));
    }
    // Before they are hot.
    for round in 0..2 {
        place.counters.expect(&[("mkwrite_faults", 4)], || {
            (0..4).for_each(|page| writer.store(page * PAGE, 10 + round));
            Ok(())
        })?;
        place.counters.expect(
            &[("pages_written_back", 4), ("pages_write_protected", 4)],
            || Ok(file.sync_data()?),
        )?;
        ensure!(second.load(0) == 10 + round && first.load(PAGE) == 10 + round);
    }
    Ok(())
}

fn ensure_loaded(map: &Map, page: usize) {
    assert!(map.load(page * PAGE) > 0);
}

fn protection(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 2)?;
    let map = Map::shared(&file, 2 * PAGE)?;
    map.store(0, 1);
    file.sync_data()?;
    map.protect(0, 2 * PAGE, MprotectFlags::READ)?;
    map.protect(0, 2 * PAGE, MprotectFlags::READ | MprotectFlags::WRITE)?;
    place
        .counters
        .expect(&[("mkwrite_faults", 1), ("pages_tagged", 1)], || {
            map.store(0, 2);
            Ok(())
        })?;
    // And a dirty one stays dirty.
    map.protect(0, 2 * PAGE, MprotectFlags::READ)?;
    place
        .counters
        .expect(&[("pages_written_back", 1)], || Ok(file.sync_data()?))
}
