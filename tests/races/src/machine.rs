// SPDX-License-Identifier: GPL-2.0

//! The device, the module and the mount that are raced over, and how they are brought back to where
//! a round begins.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use rdax_test_sys::freeze;
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};
use rustix::system::finit_module;

use crate::load::Load;

/// How long anything may take before it counts as hung.
pub const LONG: Duration = Duration::from_secs(60);

/// What all events work on.
pub struct Machine {
    /// The block device.
    pub block: PathBuf,
    /// Where it is mounted.
    pub at: PathBuf,
    /// The module, to be loaded again.
    pub module: PathBuf,
    /// Its users.
    pub load: Load,
    device: String,
    driver: PathBuf,
}

impl Machine {
    /// Finds the driver of `block`.
    pub fn new(block: &Path, at: &Path, module: &Path) -> Result<Self> {
        let name = block.file_name().context("no name")?;
        let device = fs::canonicalize(Path::new("/sys/block").join(name).join("device"))
            .with_context(|| block.display().to_string())?;
        fs::create_dir_all(at)?;
        Ok(Machine {
            block: block.into(),
            at: at.into(),
            module: module.into(),
            load: Load::new(at),
            device: device
                .file_name()
                .context("no device")?
                .to_string_lossy()
                .into_owned(),
            driver: fs::canonicalize(device.join("driver"))?,
        })
    }

    /// Takes the device from its driver.
    pub fn unbind(&self) -> io::Result<()> {
        fs::write(self.driver.join("unbind"), &self.device)
    }

    /// Gives it back.
    pub fn bind(&self) -> io::Result<()> {
        fs::write(self.driver.join("bind"), &self.device)
    }

    /// A file of the file system, to ask it for something.
    pub fn open(&self) -> io::Result<File> {
        let name = self.at.join("file0");
        OpenOptions::new().read(true).write(true).open(name)
    }

    /// Mounts it.
    pub fn mount(&self) -> io::Result<()> {
        let flags = MountFlags::empty();
        Ok(mount(&self.block, &self.at, "rdax", flags, None)?)
    }

    /// Loads the module.
    pub fn load_module(&self) -> io::Result<()> {
        Ok(finit_module(File::open(&self.module)?, c"", 0)?)
    }

    /// Ends all use, and unmounts it.
    pub fn unmount(&self) -> io::Result<()> {
        self.load.stop();
        Ok(unmount(&self.at, UnmountFlags::empty())?)
    }

    fn is_mounted(&self) -> Result<bool> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let at = self.at.to_string_lossy();
        Ok(mounts
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(&*at)))
    }

    /// Unmounts whatever is mounted, brings module and device back, and has the volume checked.
    pub fn settle(&self) -> Result<()> {
        self.load.stop();
        let start = Instant::now();
        while self.is_mounted()? {
            if let Ok(dir) = File::open(&self.at) {
                let _ = freeze(&dir, false);
            }
            if let Err(error) = unmount(&self.at, UnmountFlags::empty()) {
                ensure!(start.elapsed() < LONG, "cannot be unmounted: {error}");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        if !self.driver.join(&self.device).exists() {
            self.bind().context("cannot be bound")?;
        }
        while !self.block.exists() {
            ensure!(
                start.elapsed() < LONG,
                "{} does not come",
                self.block.display()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        if !Path::new("/sys/module/rdax").exists() {
            self.load_module().context("cannot be loaded")?;
        }
        self.check()
    }

    /// A new volume.
    pub fn make(&self) -> Result<()> {
        self.run("mkfs.rdax", &["-q", "-f"])
    }

    fn check(&self) -> Result<()> {
        self.run("fsck.rdax", &["-n"])
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<()> {
        let output = Command::new(program).args(args).arg(&self.block).output()?;
        if !output.status.success() {
            let (said, errors) = (&output.stdout, &output.stderr);
            bail!(
                "{program}: {}{}",
                String::from_utf8_lossy(said),
                String::from_utf8_lossy(errors)
            );
        }
        Ok(())
    }

    /// Mounts it and starts the load: where a round begins.
    pub fn begin(&self, processes: usize) -> Result<()> {
        self.mount().context("cannot be mounted")?;
        // For `open`.
        fs::write(self.at.join("file0"), [1; 64 << 10]).context("cannot be written to")?;
        self.load.start(processes)
    }
}
