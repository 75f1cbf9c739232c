// SPDX-License-Identifier: GPL-2.0

//! read(2) and write(2).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::mapped::{map, whole_file, PAGE, SIZE};
use crate::meter::Meter;

/// Measures the rows of written files.
pub fn measure(meter: &mut Meter, dir: &Path) -> Result<()> {
    let path = dir.join("written");
    let file = whole_file(&path).with_context(|| path.display().to_string())?;
    overwrite(meter, &file)?;
    drop(file);
    std::fs::remove_file(path)?;
    append(meter, dir, "append 1 KiB", 1024, false)?;
    append(meter, dir, "append 16 KiB", 16384, false)?;
    append(meter, dir, "append 1 KiB + fsync", 1024, true)?;
    in_turn(meter, dir)?;
    synced_each(meter, dir)?;
    fragmented(meter, dir)
}

/// A file of as many extents as blocks, with a hole after each.
fn fragmented(meter: &mut Meter, dir: &Path) -> Result<()> {
    const EXTENTS: u64 = 10_000;
    let path = dir.join("fragmented");
    let file = File::create_new(&path)?;
    let page = [0xa5; PAGE];
    // Far from each other, and each once.
    let at = |n: u64| 2 * (n * 7919 % EXTENTS) * PAGE as u64;
    for n in 0..EXTENTS {
        file.write_all_at(&page, 2 * n * PAGE as u64)?;
    }
    let mut buffer = [0; 100];
    meter.repeat("read 100 B of 10,000 extents", 2048, |n| {
        Ok(file.read_exact_at(&mut buffer, at(n))?)
    })?;
    meter.repeat("overwrite 4 KiB of 10,000 extents", 2048, |n| {
        Ok(file.write_all_at(&page, at(n))?)
    })?;
    meter.repeat("fill 4 KiB between 10,000 extents", 1024, |n| {
        Ok(file.write_all_at(&page, at(n) + PAGE as u64)?)
    })?;
    drop(file);
    std::fs::remove_file(path)?;
    Ok(())
}

/// Logs that grow together.
fn in_turn(meter: &mut Meter, dir: &Path) -> Result<()> {
    const LOGS: u64 = 16;
    let path = |n: u64| dir.join(format!("log{n}"));
    let logs = (0..LOGS)
        .map(|n| File::create_new(path(n)))
        .collect::<Result<Vec<_>, _>>()?;
    let bytes = [0xc3; 1000];
    meter.repeat("append 1,000 B to one of 16 files", 4096, |n| {
        let (round, log) = (n / LOGS, n % LOGS);
        Ok(logs[log as usize].write_all_at(&bytes, round * 1000)?)
    })?;
    drop(logs);
    Ok((0..LOGS).try_for_each(|n| std::fs::remove_file(path(n)))?)
}

/// Many files, each with one page that was stored to.
fn synced_each(meter: &mut Meter, dir: &Path) -> Result<()> {
    const FILES: u64 = 256;
    let path = |n: u64| dir.join(format!("one{n}"));
    let mut files = Vec::new();
    for n in 0..FILES {
        let file = File::create_new(path(n))?;
        file.set_len(PAGE as u64)?;
        let map = map(&file)?;
        files.push((file, map));
    }
    for value in 0..8 {
        files.iter_mut().for_each(|(_, map)| map[0] = value);
        let operation = "fsync of one of 256 files with a dirty page";
        meter.round(operation, FILES, || {
            Ok(files.iter().try_for_each(|(file, _)| file.sync_all())?)
        })?;
    }
    drop(files);
    Ok((0..FILES).try_for_each(|n| std::fs::remove_file(path(n)))?)
}

fn overwrite(meter: &mut Meter, file: &File) -> Result<()> {
    let page = [0xa5; PAGE];
    // Page after page, and around.
    let at = |n: u64| n * PAGE as u64 % SIZE as u64;
    meter.repeat("overwrite 4 KiB", 2048, |n| {
        Ok(file.write_all_at(&page, at(n))?)
    })?;
    meter.repeat("overwrite 4 KiB + fsync", 2048, |n| {
        file.write_all_at(&page, at(n))?;
        Ok(file.sync_all()?)
    })?;
    meter.repeat("overwrite 64 B + fdatasync", 2048, |n| {
        file.write_all_at(&page[..64], at(n))?;
        Ok(file.sync_data()?)
    })?;
    let mut buffer = [0; PAGE];
    meter.repeat("read 4 KiB", 2048, |n| {
        Ok(file.read_exact_at(&mut buffer, at(n))?)
    })
}

fn append(
    meter: &mut Meter,
    dir: &Path,
    operation: &'static str,
    len: usize,
    sync: bool,
) -> Result<()> {
    let path = dir.join("appended");
    let file = File::create_new(&path)?;
    let bytes = vec![0xc3; len];
    let mut end = 0;
    meter.repeat(operation, 1024, |_| {
        file.write_all_at(&bytes, end)?;
        end += len as u64;
        if sync {
            file.sync_all()?;
        }
        Ok(())
    })?;
    Ok(std::fs::remove_file(path)?)
}
