// SPDX-License-Identifier: GPL-2.0

//! The end of the file: SIGBUS past the last page, and no byte past the end ever becomes content.

use anyhow::{ensure, Result};

use crate::sys::{create, dies_of_sigbus, fallocate, filled, read_at, write_at, Map, PAGE};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    (
        "SIGBUS past the last page, in every kind of access",
        past_the_end,
    ),
    (
        "bytes stored past the end are zero when truncate grows the file",
        grown,
    ),
    (
        "bytes stored past the end are zero when write(2) grows the file",
        written,
    ),
    (
        "bytes stored past the end are zero when fallocate grows the file",
        allocated,
    ),
    ("shrunk and grown: zeroes, under a mapping", shrunk),
    ("an empty file", empty),
];

fn past_the_end(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 2)?;
    file.set_len(PAGE as u64 + 100)?;
    let shared = Map::shared(&file, 4 * PAGE)?;
    let private = Map::private(&file, 4 * PAGE)?;
    ensure!(
        shared.load(2 * PAGE - 1) == 0,
        "the rest of the last page is not zero"
    );
    shared.store(2 * PAGE - 1, 1);
    dies_of_sigbus("shared load", || {
        shared.load(2 * PAGE);
    })?;
    dies_of_sigbus("shared store", || shared.store(3 * PAGE, 1))?;
    dies_of_sigbus("private load", || {
        private.load(2 * PAGE);
    })?;
    dies_of_sigbus("private store", || private.store(2 * PAGE, 1))?;
    ensure!(file.metadata()?.len() == PAGE as u64 + 100);
    Ok(())
}

fn grown(place: &Place) -> Result<()> {
    let file = create(&place.fresh("a"))?;
    write_at(&file, b"12345", 0)?;
    let map = Map::shared(&file, PAGE)?;
    map.store(5, 77);
    map.store(PAGE - 1, 77);
    file.sync_all()?;
    map.store(6, 77);
    file.set_len(3 * PAGE as u64)?;
    let data = read_at(&file, 3 * PAGE, 0)?;
    ensure!(&data[..5] == b"12345");
    ensure!(
        data[5..].iter().all(|byte| *byte == 0),
        "bytes past the old end show"
    );
    Ok(())
}

fn written(place: &Place) -> Result<()> {
    let file = create(&place.fresh("a"))?;
    write_at(&file, b"12345", 0)?;
    let map = Map::shared(&file, PAGE)?;
    map.store(5, 77);
    map.store(100, 77);
    map.store(PAGE - 1, 77);
    write_at(&file, b"x", 50)?;
    let data = read_at(&file, 51, 0)?;
    ensure!(
        data[5..50].iter().all(|byte| *byte == 0),
        "bytes past the old end show"
    );
    map.store(51, 77);
    write_at(&file, b"y", 2 * PAGE)?;
    let data = read_at(&file, 2 * PAGE, 0)?;
    ensure!(
        data[51..].iter().all(|byte| *byte == 0),
        "bytes past the second end show"
    );
    Ok(())
}

fn allocated(place: &Place) -> Result<()> {
    for from in [0, 2 * PAGE] {
        let file = create(&place.fresh("a"))?;
        write_at(&file, b"12345", 0)?;
        // Blocks past the end are there already, with stores in the first.
        fallocate(&file, libc::FALLOC_FL_KEEP_SIZE, 0, 4 * PAGE as u64)?;
        let map = Map::shared(&file, PAGE)?;
        map.store(5, 77);
        map.store(PAGE - 1, 77);
        fallocate(&file, 0, from, (3 * PAGE - from) as u64)?;
        let data = read_at(&file, 3 * PAGE, 0)?;
        ensure!(&data[..5] == b"12345");
        ensure!(
            data[5..].iter().all(|byte| *byte == 0),
            "bytes past the old end show, allocated from {from} on"
        );
    }
    Ok(())
}

fn shrunk(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    (0..4).for_each(|page| map.store(page * PAGE + 200, 9));
    file.set_len(100)?;
    ensure!(map.load(0) == 1 && map.load(200) == 0 && map.load(99) == 1 && map.load(100) == 0);
    dies_of_sigbus("a truncated page", || {
        map.load(PAGE);
    })?;
    file.set_len(4 * PAGE as u64)?;
    for at in [100, 200, PAGE, PAGE + 200, 3 * PAGE, 4 * PAGE - 1] {
        ensure!(map.load(at) == 0, "byte {at} came back");
    }
    map.store(PAGE, 3);
    ensure!(read_at(&file, 1, PAGE)? == [3]);
    Ok(())
}

fn empty(place: &Place) -> Result<()> {
    let file = create(&place.fresh("a"))?;
    let map = Map::shared(&file, PAGE)?;
    dies_of_sigbus("a load from an empty file", || {
        map.load(0);
    })?;
    file.set_len(1)?;
    map.store(0, 1);
    ensure!(read_at(&file, 1, 0)? == [1]);
    Ok(())
}
