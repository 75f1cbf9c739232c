// SPDX-License-Identifier: GPL-2.0

//! Directories that are listed, and extended attributes.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{ensure, Result};
use rustix::fs::{fgetxattr, fsetxattr, XattrFlags};
use rustix::io::Errno;

use crate::meter::Meter;

/// Measures the rows of listings and of extended attributes.
pub fn measure(meter: &mut Meter, dir: &Path) -> Result<()> {
    listing(meter, dir)?;
    attributes(meter, dir)
}

fn listing(meter: &mut Meter, dir: &Path) -> Result<()> {
    const NAMES: u64 = 4000;
    let path = dir.join("listed");
    fs::create_dir(&path)?;
    for n in 0..NAMES {
        File::create_new(path.join(format!("file{n}")))?;
    }
    for _ in 0..3 {
        meter.round("list a directory, a name", NAMES, || {
            let names = fs::read_dir(&path)?.count() as u64;
            ensure!(names == NAMES, "{names} names");
            Ok(())
        })?;
    }
    Ok(fs::remove_dir_all(path)?)
}

fn set(file: &File, name: &str, value: &[u8]) -> Result<(), Errno> {
    fsetxattr(file, name, value, XattrFlags::empty())
}

fn attributes(meter: &mut Meter, dir: &Path) -> Result<()> {
    const OPS: u64 = 512;
    let path = dir.join("attributes");
    let file = File::create_new(&path)?;
    let mut value = [7; 40];
    if set(&file, "user.name0", &value) == Err(Errno::NOTSUP) {
        eprintln!("rdax-bench: there are no extended attributes here");
        return Ok(fs::remove_file(path)?);
    }
    let mut change = |meter: &mut Meter, operation| {
        meter.repeat(operation, OPS, |n| {
            value[0] = n as u8;
            Ok(set(&file, "user.name0", &value)?)
        })
    };
    change(meter, "setxattr of 40 B, the only one")?;
    for n in 1..40 {
        set(&file, &format!("user.name{n}"), &[8; 40])?;
    }
    change(meter, "setxattr of 40 B, one of 40")?;
    meter.repeat("getxattr of 40 B, one of 40", OPS, |_| {
        fgetxattr(&file, "user.name20", &mut [0; 40][..])?;
        Ok(())
    })?;
    drop(file);
    Ok(fs::remove_file(path)?)
}
