// SPDX-License-Identifier: GPL-2.0

//! What a page table holds that is neither a page nor nothing: the markers of userfaultfd where no
//! page is mapped, and guard pages. Accesses there end, in every kind of mapping.

use std::fs::File;

use anyhow::{ensure, Result};
use rdax_test_sys::{alarm, End, Map, Userfault, PAGE};
use rustix::mm::Advice;
use rustix::process::Signal;

use crate::common::{create, filled, in_child, read_at, spawn, write_at};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    (
        "loads and stores at markers of userfaultfd end, and reach the file",
        write_protect_markers,
    ),
    (
        "2 MiB that userfaultfd write-protects are loaded from and stored to",
        huge_markers,
    ),
    (
        "a marker that a sync or a truncation leaves behind",
        markers_left,
    ),
    ("guard pages end in SIGSEGV, and go", guard_pages),
];

const HUGE: usize = 2 << 20;
/// A fault that never ends is found by this, in seconds.
const LIMIT: u32 = 30;

/// Runs `work` in a child that is killed if it takes too long.
fn ends(work: impl FnOnce() -> Result<()>) -> Result<()> {
    in_child(|| {
        alarm(LIMIT);
        work()
    })
}

/// A file of four pages: the first two have blocks, the others are holes.
fn half(place: &Place) -> Result<File> {
    let file = filled(&place.fresh("a"), 2)?;
    file.set_len(4 * PAGE as u64)?;
    Ok(file)
}

fn write_protect_markers(place: &Place) -> Result<()> {
    let file = half(place)?;
    ends(|| {
        let map = Map::shared(&file, 4 * PAGE)?;
        let watch = Userfault::stores(&map, 4 * PAGE)?;
        watch.protect(&map, 0, 4 * PAGE)?;
        ensure!(map.load(PAGE) == 2 && map.load(3 * PAGE) == 0);
        (0..4).for_each(|page| map.store(page * PAGE + 9, 7));
        // What was write-protected while it was mapped, and is unmapped then.
        watch.protect(&map, 0, 4 * PAGE)?;
        map.advise(0, 4 * PAGE, Advice::LinuxDontNeed)?;
        (0..4).for_each(|page| map.store(page * PAGE + 10, map.load(page * PAGE + 9)));
        Ok(())
    })?;
    for page in 0..4 {
        ensure!(read_at(&file, 2, page * PAGE + 9)? == [7, 7]);
    }
    ends(|| {
        let map = Map::private(&file, 4 * PAGE)?;
        let watch = Userfault::stores(&map, 4 * PAGE)?;
        watch.protect(&map, 0, 4 * PAGE)?;
        ensure!(map.load(9) == 7);
        map.store(9, 8);
        map.store(PAGE + 9, 8);
        ensure!(map.load(9) == 8 && map.load(PAGE + 9) == 8);
        Ok(())
    })?;
    ensure!(read_at(&file, 1, 9)? == [7], "a private store shows");
    Ok(())
}

fn huge_markers(place: &Place) -> Result<()> {
    let file = create(&place.fresh("a"))?;
    write_at(&file, &vec![5; 2 * HUGE], 0)?;
    ends(|| {
        let map = Map::shared(&file, 2 * HUGE)?;
        let watch = Userfault::stores(&map, 2 * HUGE)?;
        // The first is mapped by then, the second is not.
        place.counters.expect(&[("huge_faults", 0)], || {
            map.store(0, 6);
            Ok(())
        })?;
        watch.protect(&map, 0, 2 * HUGE)?;
        for at in [0, 3 * PAGE, HUGE, HUGE + 3 * PAGE] {
            ensure!(map.load(at + 1) == 5);
            map.store(at, 7);
            map.store(at + PAGE, 8);
        }
        Ok(())
    })?;
    file.sync_all()?;
    for at in [0, 3 * PAGE, HUGE, HUGE + 3 * PAGE] {
        ensure!(read_at(&file, 1, at)? == [7] && read_at(&file, 1, at + PAGE)? == [8]);
    }
    Ok(())
}

fn markers_left(place: &Place) -> Result<()> {
    let file = half(place)?;
    ends(|| {
        let map = Map::shared(&file, 4 * PAGE)?;
        let watch = Userfault::stores(&map, 4 * PAGE)?;
        (0..4).for_each(|page| map.store(page * PAGE, 7));
        watch.protect(&map, 0, 4 * PAGE)?;
        file.sync_all()?;
        file.set_len(PAGE as u64)?;
        file.set_len(4 * PAGE as u64)?;
        ensure!(map.load(0) == 7 && map.load(2 * PAGE) == 0);
        watch.protect(&map, 0, 4 * PAGE)?;
        // A hole that was loaded from, and is filled behind the back of the mapping.
        write_at(&file, &[9], 2 * PAGE)?;
        ensure!(map.load(2 * PAGE) == 9);
        map.store(2 * PAGE, 10);
        map.store(3 * PAGE, 10);
        Ok(())
    })?;
    ensure!(read_at(&file, 1, 2 * PAGE)? == [10] && read_at(&file, 1, 3 * PAGE)? == [10]);
    Ok(())
}

fn guard_pages(place: &Place) -> Result<()> {
    let file = half(place)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    map.guard(0, 4 * PAGE, true)?;
    let dies = |access: &dyn Fn()| -> Result<()> {
        let child = spawn(|| {
            alarm(LIMIT);
            access();
            Ok(())
        })?;
        let end = child.wait()?;
        ensure!(
            end == End::Signal(Signal::SEGV.as_raw()),
            "{end:?}, not SIGSEGV"
        );
        Ok(())
    };
    for page in 0..4 {
        dies(&|| {
            map.load(page * PAGE);
        })?;
        dies(&|| map.store(page * PAGE, 1))?;
    }
    map.guard(0, 4 * PAGE, false)?;
    ensure!(map.load(PAGE) == 2 && map.load(2 * PAGE) == 0);
    map.store(2 * PAGE, 3);
    ensure!(read_at(&file, 1, 2 * PAGE)? == [3]);
    Ok(())
}
