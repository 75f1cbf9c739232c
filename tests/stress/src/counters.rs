// SPDX-License-Identifier: GPL-2.0

//! The counters that rdax shows in `/sys/fs/rdax/<dev>/`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where the counters of the file system that holds a directory are.
pub struct Counters {
    dir: Option<PathBuf>,
}

/// Whether `path` is on rdax.
pub fn is_rdax(path: &Path) -> Result<bool> {
    Ok(Counters::find(path)?.dir.is_some())
}

impl Counters {
    /// Finds them; none are found on other file systems.
    pub fn find(path: &Path) -> Result<Counters> {
        let device = fs::metadata(path)
            .with_context(|| path.display().to_string())?
            .dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok();
        let dir = link
            .and_then(|link| Some(Path::new("/sys/fs/rdax").join(link.file_name()?)))
            .filter(|dir| dir.is_dir());
        Ok(Counters { dir })
    }

    /// Reads one; `None` on other file systems.
    pub fn read(&self, name: &str) -> Result<Option<u64>> {
        let Some(dir) = &self.dir else {
            return Ok(None);
        };
        let path = dir.join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Some(
            text.trim()
                .parse()
                .with_context(|| path.display().to_string())?,
        ))
    }
}
