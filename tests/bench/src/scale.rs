// SPDX-License-Identifier: GPL-2.0

//! The same operation where there is little and where there is much: its cost should not grow.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{fallocate, FallocateFlags};

use crate::mapped::{self, map, store_all, PAGE};
use crate::meter::Meter;
use crate::mount::Mount;

/// Bytes of the small file, entries of the small directory.
const SMALL: usize = 8 << 20;
/// Bytes that one mapping of the larger kind has.
const HUGE: usize = 2 << 20;
const FEW: u64 = 1000;

/// Measures a file of `large` bytes against a small one.
pub fn measure(meter: &mut Meter, dir: &Path, large: usize) -> Result<()> {
    one_page(
        meter,
        dir,
        "store to a page of a small file + msync of it",
        None,
        SMALL,
    )?;
    one_page(
        meter,
        dir,
        "store to a page of a large file + msync of it",
        Some("second store to a mapping of 2 MiB + msync of it"),
        large,
    )
}

/// Measures a directory of `many` entries against a small one; and with `mount`, which holds `dir`,
/// the mount of so many files.
pub fn names(meter: &mut Meter, dir: &Path, many: u64, mount: Option<&Mount>) -> Result<()> {
    for (entries, lookup, mounting) in [
        (
            FEW,
            "look for a name in a small directory",
            "mount, few files",
        ),
        (
            many,
            "look for a name in a large directory",
            "mount, many files",
        ),
    ] {
        let names = dir.join("names");
        look_for(meter, &names, lookup, entries)?;
        if let Some(mount) = mount {
            mount.again(meter, mounting)?;
        }
        fs::remove_dir_all(&names)?;
    }
    Ok(())
}

/// A page here and there of a file that is mapped whole and was stored to everywhere. The second
/// one of each 2 MiB, for which a file system that has learnt from the sync of the first may take a
/// larger mapping apart, is the row `second`.
fn one_page(
    meter: &mut Meter,
    dir: &Path,
    operation: &'static str,
    second: Option<&'static str>,
    bytes: usize,
) -> Result<()> {
    let path = dir.join("touched");
    let file = File::create_new(&path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)
        .with_context(|| format!("{operation}: fallocate of {} MiB", bytes >> 20))?;
    let mut map = map(&file)?;
    store_all(&mut map, 1);
    map.flush()?;
    let mut one_of_each = |value| {
        (0..bytes).step_by(HUGE).try_for_each(|at| {
            map[at] = value;
            Ok(map.flush_range(at, 1)?)
        })
    };
    one_of_each(2)?;
    match second {
        Some(second) => {
            let ops = bytes.div_ceil(HUGE) as u64;
            meter.round(second, ops, || one_of_each(3))?;
        }
        None => one_of_each(3)?,
    }
    let mut page = mapped::random(bytes / PAGE);
    meter.repeat(operation, 512, |n| {
        let at = page() * PAGE;
        map[at] = n as u8;
        Ok(map.flush_range(at, 1)?)
    })?;
    drop(map);
    Ok(fs::remove_file(path)?)
}

/// Names that are not there: what is there is found in the kernel's cache of names.
fn look_for(meter: &mut Meter, dir: &Path, operation: &'static str, names: u64) -> Result<()> {
    fs::create_dir(dir)?;
    let prefix = dir.to_string_lossy();
    let path = |kind: &str, n: u64| format!("{prefix}/{kind}{n}");
    for n in 0..names {
        File::create_new(path("name", n)).context(operation)?;
    }
    meter.repeat(operation, 512, |n| match fs::metadata(path("none", n)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => Ok(result.map(drop)?),
    })
}
