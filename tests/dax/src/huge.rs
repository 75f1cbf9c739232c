// SPDX-License-Identifier: GPL-2.0

//! Mappings of 2 MiB: one fault for all, exact syncs all the same.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use anyhow::{ensure, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::fs::FallocateFlags;
use rustix::mm::MsyncFlags;
use rustix::pipe::pipe;

use crate::common::{
    create, fallocate, free_blocks, read_at, vmsplice, waits_for_pin, write_at, PUNCH,
};
use crate::times::moved;
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    // First: it needs 16 MiB of free space in one piece.
    ("a file that was written in any order", any_order),
    (
        "one fault maps 2 MiB, and one byte does not cost them twice",
        first_touch,
    ),
    ("2 MiB that are stored to all over", dense),
    ("a sync of one page writes back one page", one_page),
    ("2 MiB that were read, then stored to", read_then_write),
    (
        "what is too short or not aligned is mapped by pages",
        by_pages,
    ),
    ("private copies of 2 MiB", private),
    ("pages and 2 MiB of the same file side by side", mixed),
    ("punching a page out of 2 MiB", punch),
    ("truncation in the middle of 2 MiB", truncate),
    ("a pinned page of 2 MiB", pinned),
    ("2 MiB that somebody holds are unmapped by a sync", held),
    (
        "a hole that is written from one end to the other",
        sequential_hole,
    ),
    (
        "holes that are written backwards, by two, every second page",
        streams,
    ),
    ("a hole that is written here and there", scattered_hole),
    ("a hole that is written all over", dense_hole),
];

/// Bytes in a huge page, and pages.
pub const HUGE: usize = 2 << 20;
const PAGES: u64 = 512;

/// A file with `pieces` times 2 MiB of blocks, each page beginning with the number of its piece +
/// 1.
pub fn file(place: &Place, pieces: usize) -> Result<File> {
    let file = create(&place.fresh("huge"))?;
    fallocate(&file, FallocateFlags::empty(), 0, (pieces * HUGE) as u64)?;
    for page in 0..pieces * PAGES as usize {
        write_at(&file, &[(page / PAGES as usize) as u8 + 1], page * PAGE)?;
    }
    Ok(file)
}

fn first_touch(place: &Place) -> Result<()> {
    let file = file(place, 4)?;
    let map = Map::shared(&file, 4 * HUGE)?;
    place.counters.expect(
        &[
            ("huge_faults", 4),
            ("write_faults", 0),
            ("pages_tagged", 4 * PAGES),
        ],
        || {
            (0..4 * PAGES as usize).for_each(|page| map.store(page * PAGE, 9));
            Ok(())
        },
    )?;
    place
        .counters
        .expect(&[("pages_written_back", 4 * PAGES), ("fences", 1)], || {
            Ok(file.sync_data()?)
        })?;
    // Nobody knows which page is stored to: once.
    place
        .counters
        .expect(&[("huge_faults", 1), ("pages_written_back", PAGES)], || {
            map.store(HUGE, 9);
            Ok(file.sync_data()?)
        })?;
    for round in 0..2 {
        place.counters.expect(
            &[
                ("pages_written_back", 1),
                ("lines_flushed", 64),
                ("fences", 1),
            ],
            || {
                map.store(HUGE + 7 * PAGE, 100 + round);
                Ok(file.sync_data()?)
            },
        )?;
    }
    ensure!(read_at(&file, 1, HUGE + 7 * PAGE)? == [101]);
    ensure!((0..2048).all(|page| map.load(page * PAGE) == 9 || page == 519));
    Ok(())
}

/// What is stored to all over costs one fault for 2 MiB each time; what is not, one page.
fn dense(place: &Place) -> Result<()> {
    let file = file(place, 4)?;
    let map = Map::shared(&file, 4 * HUGE)?;
    let store_all = |value| (0..4 * PAGES as usize).for_each(|page| map.store(page * PAGE, value));
    for value in 10..20 {
        let seen = moved(&file, || {
            place.counters.expect(
                &[
                    ("huge_faults", 4),
                    ("mkwrite_faults", 0),
                    ("pages_written_back", 4 * PAGES),
                    ("fences", 1),
                ],
                || {
                    store_all(value);
                    Ok(file.sync_data()?)
                },
            )
        })?;
        ensure!(seen, "the times did not move");
    }
    // An eighth of one piece: it is not dense, and after that dirty page by page.
    let sparse = |value| {
        (0..PAGES as usize / 8).for_each(|page| map.store(8 * page * PAGE, value));
        Ok(file.sync_data()?)
    };
    place
        .counters
        .expect(&[("pages_written_back", PAGES)], || sparse(20))?;
    place
        .counters
        .expect(&[("pages_written_back", PAGES / 8)], || sparse(21))?;
    // Dense again, which a new mapping is the first to have something from.
    store_all(22);
    file.sync_data()?;
    drop(map);
    let map = Map::shared(&file, 4 * HUGE)?;
    place
        .counters
        .expect(&[("huge_faults", 4), ("mkwrite_faults", 0)], || {
            (0..4 * PAGES as usize).for_each(|page| map.store(page * PAGE, 23));
            Ok(())
        })
}

fn one_page(place: &Place) -> Result<()> {
    let file = file(place, 1)?;
    let map = Map::shared(&file, HUGE)?;
    map.store(0, 3);
    let one = [("pages_written_back", 1), ("fences", 1)];
    place
        .counters
        .expect(&one, || Ok(map.msync(5 * PAGE, PAGE, MsyncFlags::SYNC)?))?;
    // Now clean, and write-protected with its neighbours, which are dirty still.
    place.counters.expect(&one, || {
        map.store(5 * PAGE, 3);
        Ok(map.msync(5 * PAGE, PAGE, MsyncFlags::SYNC)?)
    })?;
    place
        .counters
        .expect(&[("pages_written_back", PAGES - 1)], || {
            Ok(file.sync_data()?)
        })?;
    place
        .counters
        .expect(&[("pages_written_back", 0)], || Ok(file.sync_data()?))
}

fn read_then_write(place: &Place) -> Result<()> {
    let file = file(place, 2)?;
    let map = Map::shared(&file, 2 * HUGE)?;
    place
        .counters
        .expect(&[("huge_faults", 2), ("read_faults", 0)], || {
            ensure!((0..1024).all(|page| map.load(page * PAGE) == (page / 512) as u8 + 1));
            Ok(())
        })?;
    place
        .counters
        .expect(&[("huge_faults", 1), ("pages_tagged", PAGES)], || {
            map.store(HUGE + 8, 4);
            Ok(())
        })?;
    place
        .counters
        .expect(&[("pages_written_back", PAGES)], || Ok(file.sync_data()?))
}

fn by_pages(place: &Place) -> Result<()> {
    let file = file(place, 2)?;
    let all = Map::shared(&file, 2 * HUGE)?;
    file.set_len(HUGE as u64 + 5)?;
    place
        .counters
        .expect(&[("huge_faults", 0), ("write_faults", 1)], || {
            all.store(HUGE + 1, 1);
            Ok(())
        })?;
    let short = Map::shared(&file, HUGE - PAGE)?;
    place
        .counters
        .expect(&[("huge_faults", 0), ("write_faults", 1)], || {
            short.store(0, 1);
            Ok(())
        })?;
    place
        .counters
        .expect(&[("pages_written_back", 2)], || Ok(file.sync_data()?))
}

fn private(place: &Place) -> Result<()> {
    let file = file(place, 1)?;
    let private = Map::private(&file, HUGE)?;
    let shared = Map::shared(&file, HUGE)?;
    ensure!(private.load(0) == 1);
    private.store(PAGE, 50);
    shared.store(2 * PAGE, 60);
    ensure!(private.load(PAGE) == 50 && shared.load(PAGE) == 1);
    ensure!(private.load(2 * PAGE) == 60 && shared.load(2 * PAGE) == 60);
    file.sync_data()?;
    shared.store(PAGE, 70);
    ensure!(private.load(PAGE) == 50 && read_at(&file, 1, PAGE)? == [70]);
    Ok(())
}

fn mixed(place: &Place) -> Result<()> {
    let file = file(place, 2)?;
    let huge = Map::shared(&file, 2 * HUGE)?;
    let small = Map::shared(&file, HUGE - PAGE)?;
    huge.store(0, 10);
    huge.store(HUGE, 11);
    // A page of the first piece in another mapping: it is mapped by pages from now on.
    small.store(3 * PAGE, 12);
    ensure!(huge.load(3 * PAGE) == 12 && small.load(0) == 10);
    huge.store(4 * PAGE, 13);
    ensure!(small.load(4 * PAGE) == 13);
    // Both pieces were dirty as a whole, and stay so until they are synced.
    place
        .counters
        .expect(&[("pages_written_back", 2 * PAGES), ("fences", 1)], || {
            Ok(file.sync_data()?)
        })?;
    small.store(5 * PAGE, 14);
    huge.store(6 * PAGE, 15);
    huge.store(HUGE + PAGE, 16);
    place
        .counters
        .expect(&[("pages_written_back", 3)], || Ok(file.sync_data()?))
}

fn punch(place: &Place) -> Result<()> {
    let file = file(place, 2)?;
    let map = Map::shared(&file, 2 * HUGE)?;
    map.store(0, 10);
    map.store(HUGE, 20);
    let free = free_blocks(&place.dir)?;
    fallocate(&file, PUNCH, 7 * PAGE, PAGE as u64)?;
    ensure!(free_blocks(&place.dir)? == free + 1);
    ensure!(map.load(7 * PAGE) == 0 && map.load(6 * PAGE) == 1 && map.load(0) == 10);
    // The others of the piece are dirty still.
    place
        .counters
        .expect(&[("pages_written_back", 2 * PAGES - 1)], || {
            Ok(file.sync_data()?)
        })?;
    map.store(7 * PAGE, 5);
    map.store(8 * PAGE, 6);
    place
        .counters
        .expect(&[("pages_written_back", 2)], || Ok(file.sync_data()?))?;
    ensure!(read_at(&file, 1, 7 * PAGE)? == [5] && map.load(HUGE) == 20);
    Ok(())
}

fn truncate(place: &Place) -> Result<()> {
    let file = file(place, 2)?;
    let map = Map::shared(&file, 2 * HUGE)?;
    map.store(0, 10);
    map.store(HUGE + 9 * PAGE, 20);
    let free = free_blocks(&place.dir)?;
    file.set_len((HUGE + 10 * PAGE) as u64)?;
    ensure!(free_blocks(&place.dir)? == free + PAGES - 10);
    ensure!(map.load(HUGE + 9 * PAGE) == 20 && map.load(0) == 10);
    file.set_len(2 * HUGE as u64)?;
    ensure!(map.load(HUGE + 10 * PAGE) == 0);
    place
        .counters
        .expect(&[("pages_written_back", PAGES + 10)], || {
            Ok(file.sync_data()?)
        })
}

fn pinned(place: &Place) -> Result<()> {
    let file = file(place, 1)?;
    let map = Map::shared(&file, HUGE)?;
    map.store(PAGE, 33);
    let (reader, writer) = pipe()?;
    vmsplice(&writer, &map, PAGE)?;
    file.sync_data()?;
    // It cannot be taken apart now: it is dirty as a whole again, or by pages, but never clean.
    map.store(2 * PAGE, 34);
    place
        .counters
        .expect(&[("fences", 1)], || Ok(file.sync_data()?))?;
    waits_for_pin((reader, writer), 33, || Ok(file.set_len(0)?), || Ok(()))
}

/// It may be a CPU that stores by an entry that another thread has zapped just now: a pin looks the
/// same, and stays.
fn held(place: &Place) -> Result<()> {
    let file = file(place, 2)?;
    let map = Map::shared(&file, 2 * HUGE)?;
    map.store(PAGE, 33);
    map.store(HUGE + PAGE, 34);
    let (_reader, writer) = pipe()?;
    vmsplice(&writer, &map, HUGE + PAGE)?;
    file.sync_data()?;
    let load = |at, value| {
        ensure!(map.load(at) == value);
        Ok(())
    };
    place
        .counters
        .expect(&[("huge_faults", 0), ("read_faults", 0)], || load(PAGE, 33))?;
    place
        .counters
        .expect(&[("huge_faults", 1), ("read_faults", 0)], || {
            load(HUGE + PAGE, 34)
        })
}

/// The blocks of such a file lie in one piece, though in many extents.
fn any_order(place: &Place) -> Result<()> {
    const PAGES: usize = 8 * HUGE / PAGE;
    let file = create(&place.fresh("a"))?;
    file.set_len((PAGES * PAGE) as u64)?;
    // A stride that comes to every page.
    for nth in 0..PAGES {
        let page = (1300 + nth * 999) % PAGES;
        write_at(&file, &[page as u8; PAGE], page * PAGE)?;
    }
    let map = Map::shared(&file, PAGES * PAGE)?;
    place.counters.expect(&[("huge_faults", 8)], || {
        (0..PAGES)
            .step_by(100)
            .for_each(|page| map.store(page * PAGE, 1));
        Ok(())
    })?;
    let at = |page: usize| map.load(page * PAGE + 9);
    ensure!((0..PAGES).all(|page| at(page) == page as u8));
    Ok(())
}

fn sequential_hole(place: &Place) -> Result<()> {
    let file = create(&place.fresh("huge"))?;
    file.set_len(4 * HUGE as u64)?;
    let map = Map::shared(&file, 4 * HUGE)?;
    let before = place.counters.read("huge_faults")?;
    for page in 0..4 * PAGES as usize {
        map.store(page * PAGE, page as u8);
        ensure!(map.load(page * PAGE + 8) == 0, "stale bytes");
    }
    let huge = place.counters.read("huge_faults")? - before;
    ensure!(huge == 3, "{huge} of 3 pieces were mapped at once");
    file.sync_data()?;
    ensure!((0..2048).all(|page| map.load(page * PAGE) == page as u8));
    Ok(())
}

fn streams(place: &Place) -> Result<()> {
    let pages = 4 * PAGES as usize;
    let backwards: Vec<usize> = (0..pages).rev().collect();
    let by_two: Vec<usize> = (0..pages / 2)
        .flat_map(|page| [page, pages / 2 + page])
        .collect();
    let every_second: Vec<usize> = (0..pages).step_by(2).collect();
    for order in [backwards, by_two, every_second] {
        let file = create(&place.fresh("huge"))?;
        file.set_len(4 * HUGE as u64)?;
        let map = Map::shared(&file, 4 * HUGE)?;
        let before = place.counters.read("huge_faults")?;
        for page in &order {
            map.store(page * PAGE, *page as u8 | 1);
            ensure!(map.load(page * PAGE + 8) == 0, "stale bytes");
        }
        let huge = place.counters.read("huge_faults")? - before;
        ensure!(huge >= 2, "{huge} pieces were mapped at once");
        file.sync_data()?;
        let found = read_at(&file, pages * PAGE, 0)?;
        for page in 0..pages {
            let stored = if order.contains(&page) {
                page as u8 | 1
            } else {
                0
            };
            let bytes = &found[page * PAGE..][..PAGE];
            ensure!(bytes[0] == stored, "page {page}: {}", bytes[0]);
            ensure!(bytes[1..].iter().all(|byte| *byte == 0), "page {page}");
        }
        let extra = file.metadata()?.blocks() / 8 - pages as u64;
        ensure!(extra <= 1, "{extra} blocks too many");
    }
    Ok(())
}

fn scattered_hole(place: &Place) -> Result<()> {
    let file = create(&place.fresh("huge"))?;
    file.set_len(4 * HUGE as u64)?;
    let map = Map::shared(&file, 4 * HUGE)?;
    let free = free_blocks(&place.dir)?;
    // At most 14 in 2 MiB.
    (0..55).for_each(|i| map.store(i * 37 * PAGE, 1));
    let used = free - free_blocks(&place.dir)?;
    // And a few for the extents.
    ensure!(used <= 61, "55 stores took {used} blocks");
    Ok(())
}

fn dense_hole(place: &Place) -> Result<()> {
    let file = create(&place.fresh("huge"))?;
    file.set_len(2 * HUGE as u64)?;
    let map = Map::shared(&file, 2 * HUGE)?;
    let free = free_blocks(&place.dir)?;
    let page = |i| (i * 37) % PAGES as usize;
    let used = || -> Result<u64> { Ok(free - free_blocks(&place.dir)?) };
    (0..15).for_each(|i| map.store(page(i) * PAGE, 1));
    ensure!(used()? <= 20, "15 stores took {} blocks", used()?);
    map.store(page(15) * PAGE, 1);
    let filled = used()?;
    ensure!(
        (512..=520).contains(&filled),
        "{filled} blocks after 16 stores"
    );
    (16..PAGES as usize).for_each(|i| map.store(page(i) * PAGE, 1));
    ensure!(used()? == filled, "{} blocks after 512 stores", used()?);
    file.sync_data()?;
    let found = read_at(&file, HUGE, 0)?;
    for (at, byte) in found.iter().enumerate() {
        ensure!(*byte == u8::from(at % PAGE == 0), "byte {at}: {byte}");
    }
    Ok(())
}
