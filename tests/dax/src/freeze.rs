// SPDX-License-Identifier: GPL-2.0

//! Freezing: afterwards nothing is dirty, and stores wait until it is over. Becoming read-only: the
//! same, and refused while somebody could store.

use std::fs::File;
use std::time::Duration;

use anyhow::{ensure, Result};
use rdax_test_sys::{freeze, Map, PAGE};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::mount::{mount_remount, MountFlags};

use crate::common::{errno, filled, free_blocks, syncfs, wait_until};
use crate::huge::{self, HUGE};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("freeze with a mapped writer", writer),
    (
        "a store to 2 MiB waits for the end of a freeze",
        huge_writer,
    ),
    ("files go while the file system is frozen", files_go),
    ("read-only, once nothing is mapped to be written", read_only),
];

fn writer(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    map.store(0, 1);
    map.store(PAGE, 1);
    let expect = [("pages_written_back", 2), ("pages_write_protected", 2)];
    stands_still(place, &map, &expect)?;
    place
        .counters
        .expect(&[("pages_written_back", 2)], || Ok(file.sync_all()?))
}

/// The file of four pages that is mapped at `map`, of which the first was stored to, does not
/// change while it is frozen. What freezing does to the counters is `expect`.
pub fn stands_still(place: &Place, map: &Map, expect: &[(&str, u64)]) -> Result<()> {
    let dir = File::open(&place.dir)?;
    place.counters.expect(expect, || Ok(freeze(&dir, true)?))?;
    let result = std::thread::scope(|scope| {
        let stores = [0, 2].map(|page| scope.spawn(move || map.store(page * PAGE, 2)));
        std::thread::sleep(Duration::from_millis(300));
        let through = stores.iter().filter(|store| store.is_finished()).count();
        let seen = map.load(0);
        // A load goes on.
        let other = map.load(3 * PAGE);
        freeze(&dir, false)?;
        ensure!(through == 0 && seen == 1, "{through} stores came through");
        ensure!(other == 4);
        Ok(())
    });
    result?;
    ensure!(map.load(0) == 2 && map.load(2 * PAGE) == 2);
    Ok(())
}

/// The first store to 2 MiB, which are mapped in one piece then, and one to 2 MiB that were only
/// read.
fn huge_writer(place: &Place) -> Result<()> {
    let file = huge::file(place, 2)?;
    let map = Map::shared(&file, 2 * HUGE)?;
    map.load(HUGE);
    let dir = File::open(&place.dir)?;
    place.counters.expect(&[("huge_faults", 2)], || {
        freeze(&dir, true)?;
        std::thread::scope(|scope| {
            let map = &map;
            let stores = [PAGE, HUGE].map(|at| scope.spawn(move || map.store(at, 77)));
            std::thread::sleep(Duration::from_millis(300));
            let through = stores.iter().filter(|store| store.is_finished()).count();
            freeze(&dir, false)?;
            ensure!(through == 0, "{through} stores came through");
            Ok(())
        })
    })?;
    ensure!(map.load(PAGE) == 77 && map.load(HUGE) == 77);
    Ok(())
}

/// The last close of a file without a name does not wait for the end, for who closes may be needed
/// for that; nor does a sync. Its blocks come back afterwards.
fn files_go(place: &Place) -> Result<()> {
    let dir = File::open(&place.dir)?;
    let path = place.fresh("a");
    let free = free_blocks(&place.dir)?;
    let file = filled(&path, 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    map.store(0, 1);
    std::fs::remove_file(&path)?;
    freeze(&dir, true)?;
    let closing = std::thread::spawn(|| drop((map, file)));
    let closed = wait_until(|| closing.is_finished());
    let synced = syncfs(&dir);
    let kept = free_blocks(&place.dir);
    freeze(&dir, false)?;
    synced?;
    ensure!(closed, "the close waits for the end of the freeze");
    ensure!(kept? < free, "freed while frozen");
    let back = || free_blocks(&place.dir).is_ok_and(|now| now == free);
    ensure!(wait_until(back), "the blocks do not come back");
    // Who closed has left no trace in the number of writers that freezing waits for.
    let freezing =
        std::thread::spawn(move || freeze(&dir, true).and_then(|()| freeze(&dir, false)));
    let frozen = wait_until(|| freezing.is_finished());
    ensure!(frozen, "it cannot be frozen a second time");
    Ok(freezing.join().expect("it does not panic")?)
}

/// Remounts what is mounted on the directory, read-only or not.
pub fn remount(place: &Place, read_only: bool) -> Result<()> {
    let flags = match read_only {
        true => MountFlags::RDONLY,
        false => MountFlags::empty(),
    };
    mount_remount(&place.dir, flags, "")?;
    Ok(())
}

fn read_only(place: &Place) -> Result<()> {
    let path = place.fresh("a");
    let file = filled(&path, 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    drop(file);
    // The mapping alone keeps it, stored to or not.
    for store in [false, true] {
        if store {
            map.store(0, 9);
        }
        let refused = errno(remount(place, true));
        ensure!(refused == Some(Errno::BUSY), "{refused:?} instead of EBUSY");
    }
    map.store(PAGE, 9);
    drop(map);
    let expect = [("pages_written_back", 2)];
    place.counters.expect(&expect, || remount(place, true))?;
    let seen = (|| {
        let file = File::open(&path)?;
        let shared = Map::new(&file, 4 * PAGE, ProtFlags::READ, MapFlags::SHARED)?;
        let private = Map::private(&file, 4 * PAGE)?;
        ensure!(shared.load(0) == 9 && shared.load(2 * PAGE) == 3);
        private.store(2 * PAGE, 1);
        ensure!(shared
            .protect(0, 4 * PAGE, MprotectFlags::READ | MprotectFlags::WRITE)
            .is_err());
        let write = errno(File::options().write(true).open(&path));
        ensure!(write == Some(Errno::ROFS), "{write:?} instead of EROFS");
        Ok(())
    })();
    remount(place, false)?;
    seen
}
