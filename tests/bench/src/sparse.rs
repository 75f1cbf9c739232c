// SPDX-License-Identifier: GPL-2.0

//! Holes that are mapped, in the orders that programs have, and private mappings.

use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;

use anyhow::Result;
use memmap2::MmapMut;

use crate::mapped::{map, map_private, PAGE, SIZE};
use crate::meter::Meter;

const PAGES: usize = SIZE / PAGE;

/// Measures the rows of holes and of private mappings.
pub fn measure(meter: &mut Meter, dir: &Path) -> Result<()> {
    hole(meter, dir, "store to a hole backwards, a page", |map| {
        (0..PAGES).rev().for_each(|page| map[page * PAGE] = 1);
    })?;
    hole(
        meter,
        dir,
        "store to a hole by two streams, a page",
        |map| {
            for page in 0..PAGES / 2 {
                map[page * PAGE] = 1;
                map[(PAGES / 2 + page) * PAGE] = 1;
            }
        },
    )?;
    hole(
        meter,
        dir,
        "store to every second page of a hole, a page",
        |map| {
            (0..PAGES).step_by(2).for_each(|page| map[page * PAGE] = 1);
        },
    )?;
    hole(meter, dir, "load a page of a hole", |map| {
        for page in 0..PAGES {
            black_box(map[page * PAGE]);
        }
    })?;
    hole(meter, dir, "load and store, a page of a hole", |map| {
        for page in 0..PAGES {
            map[page * PAGE] = black_box(map[page * PAGE]) + 1;
        }
    })?;
    private(meter, dir)
}

/// A row of what `work` does with a hole of as many pages as it is said to take.
fn hole(meter: &mut Meter, dir: &Path, operation: &str, work: impl Fn(&mut MmapMut)) -> Result<()> {
    let path = dir.join("hole");
    for _ in 0..2 {
        let file = File::create_new(&path)?;
        file.set_len(SIZE as u64)?;
        let mut map = map(&file)?;
        meter.round(operation, PAGES as u64, || {
            work(&mut map);
            Ok(())
        })?;
        drop(map);
        fs::remove_file(&path)?;
    }
    Ok(())
}

/// First stores to pages of private mappings.
fn private(meter: &mut Meter, dir: &Path) -> Result<()> {
    const FEW: usize = 2048;
    let path = dir.join("private");
    let file = File::create_new(&path)?;
    file.set_len((2 * FEW * PAGE) as u64)?;
    let mut data = map(&file)?;
    data[..FEW * PAGE].fill(0x5a);
    data.flush()?;
    drop(data);
    for (operation, first) in [
        ("first store to a private page", 0),
        ("first store to a private page of a hole", FEW),
    ] {
        for _ in 0..2 {
            let mut map = map_private(&file)?;
            meter.round(operation, FEW as u64, || {
                for page in first..first + FEW {
                    map[page * PAGE] = 1;
                }
                black_box(&map);
                Ok(())
            })?;
        }
    }
    drop(file);
    Ok(fs::remove_file(path)?)
}
