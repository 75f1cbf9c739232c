// SPDX-License-Identifier: GPL-2.0

//! Directories that are listed, and extended attributes.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{ensure, Result};

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

fn set(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    let (at, len) = (value.as_ptr().cast(), value.len());
    // SAFETY: the name is a string, and the value has so many bytes.
    match unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), at, len, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn get(file: &File, name: &CStr, value: &mut [u8]) -> io::Result<()> {
    let (at, len) = (value.as_mut_ptr().cast(), value.len());
    // SAFETY: the name is a string, and there is room for so many bytes.
    match unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), at, len) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn attributes(meter: &mut Meter, dir: &Path) -> Result<()> {
    const OPS: u64 = 512;
    let path = dir.join("attributes");
    let file = File::create_new(&path)?;
    let mut value = [7; 40];
    let supported = set(&file, c"user.name0", &value);
    if supported.is_err_and(|error| error.raw_os_error() == Some(libc::ENOTSUP)) {
        eprintln!("rdax-bench: there are no extended attributes here");
        return Ok(fs::remove_file(path)?);
    }
    let mut change = |meter: &mut Meter, operation| {
        meter.repeat(operation, OPS, |n| {
            value[0] = n as u8;
            Ok(set(&file, c"user.name0", &value)?)
        })
    };
    change(meter, "setxattr of 40 B, the only one")?;
    for n in 1..40 {
        let name = std::ffi::CString::new(format!("user.name{n}"))?;
        set(&file, &name, &[8; 40])?;
    }
    change(meter, "setxattr of 40 B, one of 40")?;
    meter.repeat("getxattr of 40 B, one of 40", OPS, |_| {
        Ok(get(&file, c"user.name20", &mut [0; 40])?)
    })?;
    drop(file);
    Ok(fs::remove_file(path)?)
}
