// SPDX-License-Identifier: GPL-2.0

//! System calls that sync, or have to leave alone, what a mapping has dirtied.

use std::fs::File;
use std::io::IoSlice;

use anyhow::{ensure, Context, Result};
use rdax_test_sys::{sync_file_range, Addresses, Map, PAGE};
use rustix::fs::{fadvise, OFlags};
use rustix::io::{pwritev2, Errno, ReadWriteFlags};
use rustix::mm::{Advice, MsyncFlags};

use crate::common::{errno, filled, open, read_at, syncfs, write_at};
use crate::counters::Counters;
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("msync over files of two file systems", two_file_systems),
    ("msync over holes: ENOMEM, after the rest", holes),
    ("MS_INVALIDATE, and flags that make no sense", flags),
    ("O_SYNC, O_DSYNC, RWF_SYNC, RWF_DSYNC", synchronous_writes),
    ("sync_file_range leaves mapped stores alone", file_range),
    ("write(2) over a dirty page", write_over),
    ("O_DIRECT on a file that is mapped", direct),
    ("caches are dropped, dirty pages are not", drop_caches),
    ("syncfs of another file system", other_syncfs),
];

const ONE: [(&str, u64); 1] = [("pages_written_back", 1)];
const NONE: [(&str, u64); 1] = [("pages_written_back", 0)];

/// A second file system of rdax, set up by the caller.
fn other_place() -> Result<Place> {
    let dir = std::env::var("OTHER_MNT").context("OTHER_MNT is not set")?;
    Ok(Place {
        counters: Counters::find(dir.as_ref())?,
        dir: dir.into(),
    })
}

fn two_file_systems(place: &Place) -> Result<()> {
    let other = other_place()?;
    let (a, b) = (filled(&place.fresh("a"), 1)?, filled(&other.fresh("b"), 1)?);
    let range = Addresses::new(2 * PAGE)?;
    let (first, second) = (range.map(0, &a, PAGE)?, range.map(PAGE, &b, PAGE)?);
    first.store(0, 9);
    second.store(0, 9);
    place.counters.expect(&ONE, || {
        other
            .counters
            .expect(&ONE, || Ok(range.msync(MsyncFlags::SYNC)?))
    })?;
    // Each is clean now.
    place.counters.expect(&NONE, || Ok(a.sync_all()?))?;
    other.counters.expect(&NONE, || Ok(b.sync_all()?))
}

fn holes(place: &Place) -> Result<()> {
    let files = ["a", "b", "c"].map(|name| filled(&place.fresh(name), 1));
    let [a, b, c] = files;
    let (a, b, c) = (a?, b?, c?);
    // Nothing at 0, 2 and 4.
    let range = Addresses::new(6 * PAGE)?;
    let maps: Vec<Map> = [(1, &a), (3, &b), (5, &c)]
        .into_iter()
        .map(|(page, file)| range.map(page * PAGE, file, PAGE))
        .collect::<Result<_, _>>()?;
    maps.iter().for_each(|map| map.store(0, 9));
    place.counters.expect(&[("pages_written_back", 3)], || {
        let error = range.msync(MsyncFlags::SYNC);
        ensure!(errno(error) == Some(Errno::NOMEM), "not ENOMEM");
        Ok(())
    })
}

fn flags(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 2)?;
    let map = Map::shared(&file, 2 * PAGE)?;
    map.store(0, 9);
    // The mapping is the file: there is nothing to invalidate, and nothing is lost.
    for flags in [
        MsyncFlags::INVALIDATE,
        MsyncFlags::ASYNC,
        MsyncFlags::INVALIDATE | MsyncFlags::ASYNC,
    ] {
        map.msync(0, 2 * PAGE, flags)?;
        ensure!(map.load(0) == 9 && read_at(&file, 1, 0)? == [9]);
    }
    place.counters.expect(&ONE, || {
        Ok(map.msync(0, 2 * PAGE, MsyncFlags::INVALIDATE | MsyncFlags::SYNC)?)
    })?;
    for (at, flags) in [
        (0, MsyncFlags::SYNC | MsyncFlags::ASYNC),
        (1, MsyncFlags::SYNC),
    ] {
        let error = map.msync(at, PAGE, flags);
        ensure!(
            errno(error) == Some(Errno::INVAL),
            "msync({at}, {flags:#x})"
        );
    }
    // mlock makes MS_INVALIDATE fail.
    if map.lock(0, PAGE).is_ok() {
        // Pages of a DAX mapping are in memory as it is, and the kernel takes no note.
        map.msync(0, PAGE, MsyncFlags::INVALIDATE)?;
    }
    Ok(())
}

/// pwritev2(2) of three bytes at `at`.
fn write_flags(file: &File, at: usize, flags: ReadWriteFlags) -> Result<()> {
    let n = pwritev2(file, &[IoSlice::new(b"xyz")], at as u64, flags)?;
    ensure!(n == 3, "{n} of 3 bytes written");
    Ok(())
}

fn synchronous_writes(place: &Place) -> Result<()> {
    for (name, open_flags, flags) in [
        ("O_SYNC", OFlags::SYNC, ReadWriteFlags::empty()),
        ("O_DSYNC", OFlags::DSYNC, ReadWriteFlags::empty()),
        ("RWF_SYNC", OFlags::empty(), ReadWriteFlags::SYNC),
        ("RWF_DSYNC", OFlags::empty(), ReadWriteFlags::DSYNC),
    ] {
        synchronous_write(place, open_flags, flags).context(name)?;
    }
    Ok(())
}

/// What the call wrote is durable when it returns, and so are the stores to the same pages.
fn synchronous_write(place: &Place, open_flags: OFlags, flags: ReadWriteFlags) -> Result<()> {
    let path = place.fresh("a");
    let file = filled(&path, 3)?;
    let map = Map::shared(&file, 3 * PAGE)?;
    let writer = open(&path, OFlags::WRONLY | open_flags)?;
    let dirty = || (0..3).for_each(|page| map.store(page * PAGE + 100, 9));
    dirty();
    place
        .counters
        .expect(&ONE, || write_flags(&writer, PAGE, flags))?;
    place.counters.expect(&[("mkwrite_faults", 1)], || {
        dirty();
        Ok(())
    })?;
    place
        .counters
        .expect(&[("pages_written_back", 2)], || {
            write_flags(&writer, 2 * PAGE - 1, flags)
        })
        .context("over the edge of a page")?;
    // A write without any of it leaves them alone.
    dirty();
    place
        .counters
        .expect(&NONE, || write_at(&file, b"x", PAGE))?;
    place
        .counters
        .expect(&[("pages_written_back", 3)], || Ok(file.sync_data()?))
}

/// It promises no durability, and the kernel asks the page cache alone, in which there is nothing.
fn file_range(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 2)?;
    let map = Map::shared(&file, 2 * PAGE)?;
    map.store(0, 9);
    sync_file_range(&file, 0, PAGE as u64)?;
    // Whether that wrote it back or not: it is durable after the next sync.
    map.store(PAGE, 9);
    let before = place.counters.read("pages_written_back")?;
    file.sync_data()?;
    ensure!(place.counters.read("pages_written_back")? == before + 2);
    place.counters.expect(&NONE, || Ok(file.sync_data()?))
}

fn write_over(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 2)?;
    let map = Map::shared(&file, 2 * PAGE)?;
    map.store(PAGE + 7, 9);
    write_at(&file, b"over", PAGE)?;
    ensure!(map.load(PAGE) == b'o' && map.load(PAGE + 7) == 9 && map.load(PAGE + 8) == 2);
    // Still dirty, and mapped as it was.
    place.counters.expect(&[("mkwrite_faults", 0)], || {
        map.store(PAGE + 8, 10);
        Ok(())
    })?;
    place.counters.expect(&ONE, || Ok(file.sync_data()?))?;
    ensure!(read_at(&file, 10, PAGE)? == b"over\x02\x02\x02\x09\x0a\x02");
    Ok(())
}

fn direct(place: &Place) -> Result<()> {
    let path = place.fresh("a");
    let file = filled(&path, 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    (0..4).for_each(|page| map.store(page * PAGE, 50));
    let direct = open(&path, OFlags::RDWR | OFlags::DIRECT)?;
    // It reads what was stored, and what it writes is seen; without invalidating anything.
    ensure!(read_at(&direct, PAGE, PAGE)?[..2] == [50, 2]);
    place.counters.expect(
        &[
            ("read_faults", 0),
            ("mkwrite_faults", 0),
            ("write_faults", 0),
        ],
        || {
            write_at(&direct, &[60; PAGE], 2 * PAGE)?;
            ensure!(map.load(2 * PAGE) == 60 && map.load(3 * PAGE) == 50);
            map.store(2 * PAGE + 1, 61);
            Ok(())
        },
    )?;
    ensure!(read_at(&direct, 3, 2 * PAGE)? == [60, 61, 60]);
    place
        .counters
        .expect(&[("pages_written_back", 4)], || Ok(file.sync_data()?))
}

fn drop_caches(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 3)?;
    let map = Map::shared(&file, 3 * PAGE)?;
    (0..3).for_each(|page| map.store(page * PAGE, 9));
    // Whether the pages are written back when what is known of them is given back, or by the sync:
    // each is, and once.
    place.counters.expect(&[("pages_written_back", 3)], || {
        fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).context("posix_fadvise")?;
        std::fs::write("/proc/sys/vm/drop_caches", "3")?;
        for advice in [Advice::LinuxCold, Advice::LinuxPageOut] {
            map.advise(0, 3 * PAGE, advice)?;
        }
        ensure!((0..3).all(|page| map.load(page * PAGE) == 9));
        Ok(file.sync_data()?)
    })
}

fn other_syncfs(place: &Place) -> Result<()> {
    let other = other_place()?;
    let (a, b) = (filled(&place.fresh("a"), 1)?, filled(&other.fresh("b"), 1)?);
    let (first, second) = (Map::shared(&a, PAGE)?, Map::shared(&b, PAGE)?);
    first.store(0, 9);
    second.store(0, 9);
    place
        .counters
        .expect(&NONE, || other.counters.expect(&ONE, || syncfs(&b)))?;
    place.counters.expect(&ONE, || {
        rustix::fs::sync();
        Ok(())
    })
}
