// SPDX-License-Identifier: GPL-2.0

//! The counters that rdax shows in /sys/fs/rdax, and what a piece of work added to them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

/// The counters of a mount.
pub struct Counters {
    dir: PathBuf,
}

impl Counters {
    /// Those of the file system that `path` is on.
    pub fn find(path: &Path) -> Result<Counters> {
        let device = fs::metadata(path)?.dev();
        let link = format!(
            "/sys/dev/block/{}:{}",
            rustix::fs::major(device),
            rustix::fs::minor(device)
        );
        let link = fs::read_link(&link).with_context(|| link)?;
        let name = link.file_name().context("no block device")?;
        let dir = Path::new("/sys/fs/rdax").join(name);
        if !dir.is_dir() {
            bail!("{} does not exist: not rdax?", dir.display());
        }
        Ok(Counters { dir })
    }

    /// The directory of the block device in /sys.
    pub fn device(&self) -> PathBuf {
        Path::new("/sys/block").join(self.dir.file_name().unwrap_or_default())
    }

    /// One counter.
    pub fn read(&self, name: &str) -> Result<u64> {
        let path = self.dir.join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().parse()?)
    }

    /// Runs `work` and checks by how much each of the counters named in `expect` moved.
    pub fn expect<T>(&self, expect: &[(&str, u64)], work: impl FnOnce() -> Result<T>) -> Result<T> {
        let before: Vec<u64> = expect
            .iter()
            .map(|(name, _)| self.read(name))
            .collect::<Result<_>>()?;
        let result = work()?;
        for ((name, expect), before) in expect.iter().zip(before) {
            let got = self.read(name)? - before;
            if got != *expect {
                bail!("{name} moved by {got}, expected {expect}");
            }
        }
        Ok(result)
    }
}
