// SPDX-License-Identifier: GPL-2.0

//! Names: made, looked up, moved, removed. Building the path is part of the operation.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::Result;

use crate::meter::Meter;

const NAMES: u64 = 512;

/// Measures the rows of names.
pub fn measure(meter: &mut Meter, dir: &Path) -> Result<()> {
    // In a directory of its own: one that has room for the names already is cheaper.
    (0..3).try_for_each(|round| one_round(meter, &dir.join(format!("names{round}"))))
}

fn one_round(meter: &mut Meter, dir: &Path) -> Result<()> {
    fs::create_dir(dir)?;
    let dir = dir.to_string_lossy();
    let path = |kind: &str, n: u64| format!("{dir}/{kind}{n}");
    let mut each = |operation, op: &dyn Fn(u64) -> std::io::Result<()>| {
        meter.round(operation, NAMES, || Ok((0..NAMES).try_for_each(op)?))
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
