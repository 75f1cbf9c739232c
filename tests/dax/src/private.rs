// SPDX-License-Identifier: GPL-2.0

//! Private mappings: they see the file, and never change it.

use anyhow::{ensure, Result};

use crate::sys::{filled, in_child, read_at, write_at, Map, PAGE};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    (
        "a private store stays private, in every order with shared ones",
        orders,
    ),
    (
        "a private copy survives truncation only inside the file",
        truncated_copy,
    ),
    ("a copy after fork", fork),
];

fn orders(place: &Place) -> Result<()> {
    for order in 0..8 {
        let file = filled(&place.fresh("a"), 1)?;
        let shared = Map::shared(&file, PAGE)?;
        let private = Map::private(&file, PAGE)?;
        if order & 1 != 0 {
            ensure!(private.load(0) == 1);
        }
        if order & 2 != 0 {
            shared.store(1, 50);
        }
        if order & 4 != 0 {
            file.sync_data()?;
        }
        place.counters.expect(&[("pages_tagged", 0)], || {
            private.store(0, 99);
            Ok(())
        })?;
        ensure!(
            shared.load(0) == 1,
            "order {order}: a private store shows in the file"
        );
        shared.store(0, 60);
        write_at(&file, &[61], 2)?;
        ensure!(
            private.load(0) == 99 && private.load(2) == 1,
            "order {order}: the copy changed"
        );
        ensure!(read_at(&file, 3, 0)? == [60, if order & 2 != 0 { 50 } else { 1 }, 61]);
    }
    Ok(())
}

fn truncated_copy(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 3)?;
    let map = Map::private(&file, 3 * PAGE)?;
    map.store(0, 9);
    map.store(2 * PAGE, 9);
    file.set_len(2 * PAGE as u64)?;
    ensure!(map.load(0) == 9);
    crate::sys::dies_of_sigbus("a private copy past the end", || {
        map.load(2 * PAGE);
    })
}

fn fork(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 2)?;
    let map = Map::private(&file, 2 * PAGE)?;
    map.store(0, 5);
    in_child(|| {
        ensure!(map.load(0) == 5 && map.load(PAGE) == 2);
        map.store(0, 6);
        map.store(PAGE, 6);
        Ok(())
    })?;
    ensure!(map.load(0) == 5 && map.load(PAGE) == 2);
    ensure!(read_at(&file, 1, 0)? == [1] && read_at(&file, 1, PAGE)? == [2]);
    Ok(())
}
