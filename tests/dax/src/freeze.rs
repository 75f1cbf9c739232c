// SPDX-License-Identifier: GPL-2.0

//! Freezing: afterwards nothing is dirty, and stores wait until it is over.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{ensure, Result};

use crate::sys::{check, filled, Map, PAGE};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[("freeze with a mapped writer", writer)];

const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

fn ioctl(dir: &File, request: libc::c_ulong) -> Result<()> {
    // SAFETY: the two requests take no argument.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), request, 0) })?;
    Ok(())
}

fn writer(place: &Place) -> Result<()> {
    let dir = File::open(&place.dir)?;
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    map.store(0, 1);
    map.store(PAGE, 1);
    let expect = [("pages_written_back", 2), ("pages_write_protected", 2)];
    place.counters.expect(&expect, || ioctl(&dir, FIFREEZE))?;
    let result = std::thread::scope(|scope| {
        let stores = [0, 2].map(|page| {
            let map = &map;
            scope.spawn(move || map.store(page * PAGE, 2))
        });
        std::thread::sleep(Duration::from_millis(300));
        let through = stores.iter().filter(|store| store.is_finished()).count();
        let seen = map.load(0);
        // A load goes on.
        let other = map.load(3 * PAGE);
        ioctl(&dir, FITHAW)?;
        ensure!(through == 0 && seen == 1, "{through} stores came through");
        ensure!(other == 4);
        Ok(())
    });
    result?;
    ensure!(map.load(0) == 2 && map.load(2 * PAGE) == 2);
    place
        .counters
        .expect(&[("pages_written_back", 2)], || Ok(file.sync_all()?))
}
