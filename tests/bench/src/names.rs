// SPDX-License-Identifier: GPL-2.0

//! Names: made, looked up, moved, removed. Building the path is part of the operation.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::Result;

use crate::meter::Meter;

/// Names in a directory.
const NAMES: u64 = 512;
/// Directories that are measured, each new. Where names lie in them follows from hashes with a key
/// that is another in every volume: an average over less would not repeat.
const DIRECTORIES: u64 = 6;

/// Measures the rows of names.
pub fn measure(meter: &mut Meter, dir: &Path) -> Result<()> {
    // One more, to warm up.
    each(dir, 0..NAMES, |_, _, work| work())?;
    each(
        dir,
        NAMES..NAMES * (1 + DIRECTORIES),
        |operation, names, work| meter.round(operation, names, work),
    )
}

/// Calls `round` for every operation, with the number of names and the work to be done on them.
fn each(
    dir: &Path,
    names: Range<u64>,
    mut round: impl FnMut(&str, u64, &mut dyn FnMut() -> Result<()>) -> Result<()>,
) -> Result<()> {
    let dir = dir.to_string_lossy();
    for number in names.start / NAMES..names.end / NAMES {
        fs::create_dir(format!("{dir}/names{number}"))?;
    }
    let path = |kind: &str, n: u64| format!("{dir}/names{}/{kind}{n}", n / NAMES);
    let mut each = |operation, op: &dyn Fn(u64) -> io::Result<()>| {
        let mut work = || Ok(names.clone().try_for_each(op)?);
        round(operation, names.end - names.start, &mut work)
    };
    each("creat", &|n| File::create_new(path("f", n)).map(drop))?;
    each("stat", &|n| fs::metadata(path("f", n)).map(drop))?;
    each("rename", &|n| fs::rename(path("f", n), path("g", n)))?;
    each("unlink", &|n| fs::remove_file(path("g", n)))?;
    each("mkdir", &|n| fs::create_dir(path("d", n)))?;
    each("rmdir", &|n| fs::remove_dir(path("d", n)))?;
    each("creat + write 4 KiB + fsync", &|n| {
        let mut file = File::create_new(path("w", n))?;
        file.write_all(&[0x3c; 4096])?;
        file.sync_all()
    })
}
