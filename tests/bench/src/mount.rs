// SPDX-License-Identifier: GPL-2.0

//! The mounted file system that is measured, and what it costs to mount it.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};

use crate::meter::Meter;

/// Mounts of which the cheapest counts.
const ROUNDS: usize = 5;

/// A line of `/proc/mounts`.
pub struct Mount {
    source: String,
    target: PathBuf,
    /// The type, as mount calls it.
    pub kind: String,
    options: String,
}

impl Mount {
    /// The one that holds `dir`.
    pub fn holding(dir: &Path) -> Result<Mount> {
        let dir = fs::canonicalize(dir).with_context(|| dir.display().to_string())?;
        let mounts = fs::read_to_string("/proc/mounts")?;
        let parse = |line: &str| {
            let mut words = line.split(' ').map(String::from);
            Some(Mount {
                source: words.next()?,
                target: words.next()?.into(),
                kind: words.next()?,
                options: words.next()?,
            })
        };
        // The longest target; of several, the last mounted.
        mounts
            .lines()
            .filter_map(parse)
            .filter(|mount| dir.starts_with(&mount.target))
            .max_by_key(|mount| mount.target.as_os_str().len())
            .context("no file system holds the directory")
    }

    /// Fails if `dir` is not where it is mounted.
    pub fn is_at(&self, dir: &Path) -> Result<()> {
        ensure!(
            fs::canonicalize(dir)? == self.target,
            "{} is not a mount point, and only one can be mounted again; {} is",
            dir.display(),
            self.target.display()
        );
        Ok(())
    }

    /// Unmounts it and mounts it again, and measures that as a row `operation`. Nothing on it is
    /// open. Of tmpfs, which keeps nothing, another one is mounted on top of it and unmounted.
    pub fn again(&self, meter: &mut Meter, operation: &str) -> Result<()> {
        let keeps = self.kind != "tmpfs";
        for _ in 0..ROUNDS {
            if keeps {
                self.unmount()?;
            }
            meter.time(operation, || self.mount())?;
            if !keeps {
                self.unmount()?;
            }
        }
        Ok(())
    }

    fn mount(&self) -> Result<()> {
        // Those that are flags of mount(2), and which every mount has here.
        let own = |option: &&str| !["rw", "relatime"].contains(option);
        let data: Vec<_> = self.options.split(',').filter(own).collect();
        let data = CString::new(data.join(","))?;
        let (source, flags) = (&*self.source, MountFlags::empty());
        mount(source, &self.target, &*self.kind, flags, &*data)
            .with_context(|| format!("mount {}", self.target.display()))
    }

    fn unmount(&self) -> Result<()> {
        unmount(&self.target, UnmountFlags::empty())
            .with_context(|| format!("umount {}", self.target.display()))
    }
}
