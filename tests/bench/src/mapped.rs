// SPDX-License-Identifier: GPL-2.0

//! Stores to mapped files, and the sync calls that make them durable.

use std::fs::File;
use std::hint::black_box;
use std::path::Path;

use anyhow::{Context, Result};
use memmap2::{Advice, MmapMut, MmapOptions};

use crate::meter::Meter;

/// Bytes of the file.
pub const SIZE: usize = 64 << 20;
/// Bytes of a page.
pub const PAGE: usize = 4096;
const PAGES: u64 = (SIZE / PAGE) as u64;

/// A mapping of a file that only this program uses. (Of memmap2: it is a slice, as programs have
/// it, to be copied to and from at once.)
pub fn map(file: &File) -> Result<MmapMut> {
    // SAFETY: nobody truncates the file or stores to it while it is mapped.
    Ok(unsafe { MmapMut::map_mut(file) }?)
}

/// A private mapping of a file that only this program uses.
pub fn map_private(file: &File) -> Result<MmapMut> {
    // SAFETY: as in `map`.
    Ok(unsafe { MmapOptions::new().map_copy(file) }?)
}

/// A file of [`SIZE`] bytes, all stored to through a mapping before. That is how a file gets 2 MiB
/// mappings from every file system that gives them for a hole of that size.
pub fn whole_file(path: &Path) -> Result<File> {
    let file = File::create_new(path)?;
    file.set_len(SIZE as u64)?;
    let mut map = map(&file)?;
    map.fill(0x5a);
    map.flush()?;
    drop(map);
    file.sync_all()?;
    Ok(file)
}

/// Stores to every page of `map`.
pub fn store_all(map: &mut MmapMut, value: u8) {
    for at in (0..map.len()).step_by(PAGE) {
        map[at] = value;
    }
    black_box(map);
}

/// Numbers below `bound` in no order, others every time: a linear congruential generator.
pub fn random(bound: usize) -> impl FnMut() -> usize {
    let mut random = 1u64;
    move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as usize % bound
    }
}

/// Measures the rows of mapped files.
pub fn measure(meter: &mut Meter, dir: &Path) -> Result<()> {
    let path = dir.join("mapped");
    let file = whole_file(&path).with_context(|| path.display().to_string())?;
    one_page(meter, &file)?;
    every_page(
        meter,
        &mut map(&file)?,
        "store to every page + msync, a page",
    )?;
    first_touch(meter, &file)?;
    scattered(meter, &file)?;
    drop(file);
    std::fs::remove_file(path)?;
    small_mappings(meter, dir)?;
    holes(meter, dir)
}

fn one_page(meter: &mut Meter, file: &File) -> Result<()> {
    let mut map = map(file)?;
    let hot = SIZE / 2 + 3 * PAGE;
    meter.repeat("store to one hot page + msync of it", 2048, |n| {
        map[hot] = n as u8;
        Ok(map.flush_range(hot, 1)?)
    })?;
    meter.repeat("store to one hot page + fsync", 2048, |n| {
        map[hot] = n as u8;
        Ok(file.sync_all()?)
    })?;
    meter.repeat("store to one hot page + fdatasync", 2048, |n| {
        map[hot] = n as u8;
        Ok(file.sync_data()?)
    })?;
    meter.repeat("fsync, nothing dirty", 2048, |_| Ok(file.sync_all()?))?;
    meter.repeat(
        "msync, nothing dirty",
        256,
        |_| Ok(map.flush_range(hot, 1)?),
    )
}

fn scattered(meter: &mut Meter, file: &File) -> Result<()> {
    let mut map = map(file)?;
    store_all(&mut map, 1);
    map.flush()?;
    let mut page = random(SIZE / PAGE);
    meter.repeat("32 scattered stores + msync of the mapping", 128, |n| {
        for _ in 0..32 {
            map[page() * PAGE] = n as u8;
        }
        Ok(map.flush()?)
    })?;
    // The steady state: no page is hot, and all were touched through this mapping.
    meter.repeat(
        "store to a page of a touched file + msync of it",
        512,
        |n| {
            let at = page() * PAGE;
            map[at] = n as u8;
            Ok(map.flush_range(at, 1)?)
        },
    )
}

fn every_page(meter: &mut Meter, map: &mut MmapMut, operation: &str) -> Result<()> {
    for value in 2..6 {
        let every = || {
            store_all(map, value);
            Ok(map.flush()?)
        };
        meter.round(operation, PAGES, every)?;
    }
    Ok(())
}

/// A file that was never mapped but by pages of 4 KiB.
fn small_mappings(meter: &mut Meter, dir: &Path) -> Result<()> {
    let path = dir.join("small");
    let file = File::create_new(&path)?;
    file.set_len(SIZE as u64)?;
    let mut map = map(&file)?;
    map.advise(Advice::NoHugePage)
        .context("madvise(MADV_NOHUGEPAGE)")?;
    store_all(&mut map, 1);
    map.flush()?;
    let operation = "store to every page + msync, 4 KiB maps, a page";
    every_page(meter, &mut map, operation)?;
    drop(map);
    Ok(std::fs::remove_file(path)?)
}

fn first_touch(meter: &mut Meter, file: &File) -> Result<()> {
    for value in 6..9 {
        let mut fresh = map(file)?;
        let write = || {
            store_all(&mut fresh, value);
            Ok(())
        };
        meter.round("first write to a mapped page", PAGES, write)?;
        fresh.flush()?;
        drop(fresh);
        let mut fresh = map(file)?;
        let read = || {
            for at in (0..SIZE).step_by(PAGE) {
                black_box(fresh[at]);
            }
            Ok(())
        };
        meter.round("first read of a mapped page", PAGES, read)?;
        let write = || {
            store_all(&mut fresh, value);
            Ok(())
        };
        meter.round("write to a page after its read", PAGES, write)?;
        fresh.flush()?;
    }
    Ok(())
}

fn holes(meter: &mut Meter, dir: &Path) -> Result<()> {
    let path = dir.join("hole");
    for _ in 0..3 {
        let file = File::create_new(&path)?;
        file.set_len(SIZE as u64)?;
        let mut map = map(&file)?;
        let fill = || {
            store_all(&mut map, 1);
            Ok(())
        };
        meter.round("write to a hole by mmap, a page", PAGES, fill)?;
        meter.round("msync after that, a page", PAGES, || Ok(map.flush()?))?;
        drop(map);
        std::fs::remove_file(&path)?;
    }
    Ok(())
}
