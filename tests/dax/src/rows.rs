// SPDX-License-Identifier: GPL-2.0

//! Stores to pages in a row: pages that come next are mapped ahead of them. Each page that is
//! mapped so is dirty, and becomes durable, like any other; and none is where nothing may be.

use std::fs::File;

use anyhow::{ensure, Result};
use rdax_test_sys::{End, Map, Userfault, PAGE};
use rustix::process::Signal;

use crate::common::{dies_of_sigbus, fallocate, filled, free_blocks, spawn, PUNCH};
use crate::locked::map_locked;
use crate::times::moved;
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("stores in a row take few faults, up and down", few_faults),
    (
        "as many pages are mapped ahead as there are in the row",
        as_many,
    ),
    (
        "stores that are in no row map no page but their own",
        no_row,
    ),
    (
        "pages mapped ahead are write-protected by a sync",
        protected,
    ),
    ("a row beside a mapping that has other pages", two_mappings),
    ("no page is mapped past the end of a file or mapping", ends),
    ("no hole is filled ahead", holes),
    ("what else is in a page table stays", others),
    ("rows in mappings that are locked or watched", by_pages),
];

/// Fewer than 2 MiB: mapped by pages.
const PAGES: usize = 300;
/// What is mapped of a file: the address is aligned, and all of a file in one page table.
const LEN: usize = 2 << 20;
/// So many pages in a row, and the next ones are mapped ahead.
const ROW: usize = 8;

fn store(map: &Map, pages: impl IntoIterator<Item = usize>) -> Result<()> {
    pages
        .into_iter()
        .for_each(|page| map.store(page * PAGE + 5, 7));
    Ok(())
}

/// Stores to `pages`; `dirty` pages are dirty afterwards, and become durable.
fn dirties(place: &Place, file: &File, map: &Map, pages: &[usize], dirty: u64) -> Result<()> {
    let all = [("pages_tagged", dirty), ("pages_written_back", dirty)];
    place.counters.expect(&all, || {
        store(map, pages.iter().copied())?;
        Ok(file.sync_all()?)
    })
}

fn few_faults(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), PAGES)?;
    let map = Map::shared(&file, LEN)?;
    let up: Vec<_> = (0..PAGES).collect();
    let down: Vec<_> = (0..PAGES).rev().collect();
    // The first 8, and those of pages 8, 17, 35, 71, 136, 201 and 266.
    for (faults, pages) in [("write_faults", &up), ("mkwrite_faults", &down)] {
        place.counters.expect(&[(faults, 15)], || {
            dirties(place, &file, &map, pages, PAGES as u64)
        })?;
    }
    drop(map);
    // The pages belong to the file, and are not mapped.
    let map = Map::shared(&file, LEN)?;
    place
        .counters
        .expect(&[("write_faults", 15)], || store(&map, 0..PAGES))?;
    file.sync_all()?;
    Ok(())
}

fn as_many(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), PAGES)?;
    let map = Map::shared(&file, LEN)?;
    let up: Vec<_> = (100..=100 + ROW).collect();
    dirties(place, &file, &map, &up, 2 * ROW as u64 + 1)?;
    let down: Vec<_> = (200 - ROW..=200).rev().collect();
    dirties(place, &file, &map, &down, 2 * ROW as u64 + 1)?;
    // One page less is no row.
    dirties(place, &file, &map, &up[1..], ROW as u64)
}

fn no_row(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), PAGES)?;
    let map = Map::shared(&file, LEN)?;
    let sparse: Vec<_> = (0..PAGES).step_by(2).collect();
    dirties(place, &file, &map, &sparse, sparse.len() as u64)?;
    // Stores that are each followed by a sync, as those of a log.
    for page in 20..50 {
        dirties(place, &file, &map, &[page], 1)?;
    }
    Ok(())
}

fn protected(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), PAGES)?;
    let map = Map::shared(&file, LEN)?;
    store(&map, 0..=ROW)?;
    // Mapped ahead, stored to without a fault.
    let none = [("write_faults", 0), ("mkwrite_faults", 0)];
    place.counters.expect(&none, || store(&map, [ROW + 3]))?;
    file.sync_all()?;
    for page in [ROW + 3, 2 * ROW] {
        let one = [("mkwrite_faults", 1)];
        let store = || place.counters.expect(&one, || store(&map, [page]));
        ensure!(moved(&file, store)?, "page {page}: the times stay");
    }
    Ok(())
}

fn two_mappings(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), PAGES)?;
    let map = Map::shared(&file, LEN)?;
    let other = Map::shared(&file, LEN)?;
    (0..2 * ROW).for_each(|page| assert_eq!(other.load(page * PAGE), page as u8 + 1));
    store(&map, 0..=ROW)?;
    ensure!((0..=ROW).all(|page| other.load(page * PAGE + 5) == 7));
    // What the one has writable, the other has not.
    let faults = [("mkwrite_faults", 1), ("pages_tagged", 0)];
    place
        .counters
        .expect(&faults, || store(&other, [ROW + 1]))?;
    place
        .counters
        .expect(&[("pages_written_back", 2 * ROW as u64 + 1)], || {
            Ok(file.sync_all()?)
        })?;
    for map in [&map, &other] {
        let faults = [("mkwrite_faults", 1)];
        place.counters.expect(&faults, || store(map, [ROW + 1]))?;
    }
    file.sync_all()?;
    Ok(())
}

fn ends(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), ROW + 4)?;
    let row: Vec<_> = (0..=ROW).collect();
    let map = Map::shared(&file, LEN)?;
    dirties(place, &file, &map, &row, ROW as u64 + 4)?;
    dies_of_sigbus("a store past the end", || map.store((ROW + 4) * PAGE, 1))?;
    drop(map);
    let file = filled(&place.fresh("a"), PAGES)?;
    let mut map = Map::shared(&file, LEN)?;
    map.shorten((ROW + 3) * PAGE)?;
    dirties(place, &file, &map, &row, ROW as u64 + 3)?;
    drop(map);
    let map = Map::shared_at(&file, 50 * PAGE as u64, LEN)?;
    let down: Vec<_> = (2..=2 + ROW).rev().collect();
    dirties(place, &file, &map, &down, ROW as u64 + 3)
}

fn holes(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), PAGES)?;
    fallocate(&file, PUNCH, 12 * PAGE, 2 * PAGE as u64)?;
    let map = Map::shared(&file, LEN)?;
    let row: Vec<_> = (0..=ROW).collect();
    let free = free_blocks(&place.dir)?;
    // Those up to the hole.
    dirties(place, &file, &map, &row, ROW as u64 + 4)?;
    // Zeros that were read are there still.
    ensure!(map.load(13 * PAGE) == 0);
    dirties(place, &file, &map, &row, ROW as u64 + 4)?;
    ensure!(map.load(12 * PAGE) == 0 && map.load(14 * PAGE) == 15);
    ensure!(free_blocks(&place.dir)? == free, "a hole was filled");
    Ok(())
}

fn others(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), PAGES)?;
    let map = Map::shared(&file, LEN)?;
    map.guard(12 * PAGE, PAGE, true)?;
    store(&map, 0..=ROW)?;
    let end = spawn(|| store(&map, [12]))?.wait()?;
    ensure!(
        end == End::Signal(Signal::SEGV.as_raw()),
        "a guard page: {end:?}"
    );
    // Those around it are mapped.
    let none = [("write_faults", 0), ("mkwrite_faults", 0)];
    place.counters.expect(&none, || store(&map, [11, 13]))?;
    file.sync_all()?;
    Ok(())
}

fn by_pages(place: &Place) -> Result<()> {
    let row: Vec<_> = (0..=ROW).collect();
    let file = filled(&place.fresh("a"), PAGES)?;
    let map = map_locked(&file, LEN)?;
    dirties(place, &file, &map, &row, ROW as u64 + 1)?;
    drop(map);
    let file = filled(&place.fresh("a"), PAGES)?;
    let map = Map::shared(&file, LEN)?;
    let _watch = Userfault::stores(&map, LEN)?;
    dirties(place, &file, &map, &row, ROW as u64 + 1)
}
