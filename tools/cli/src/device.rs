// SPDX-License-Identifier: GPL-2.0

//! Opening a block device or an image file so that nobody else uses it meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{bail, Context, Result};

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A block device.
    Block,
    /// A regular file.
    File,
    /// Nothing yet.
    Missing,
}

/// Says what `path` names. Fails if that can hold no volume.
pub fn target(path: &Path) -> Result<Target> {
    match fs::metadata(path) {
        Ok(meta) if meta.file_type().is_block_device() => Ok(Target::Block),
        Ok(meta) if meta.is_file() => Ok(Target::File),
        Ok(_) => bail!(
            "{} is neither a block device nor an image file",
            path.display()
        ),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Target::Missing),
        Err(e) => Err(e).with_context(|| format!("cannot open {}", path.display())),
    }
}

/// Opens the device or image at `path`, for writing too if `write`.
///
/// Refuses one that is mounted or otherwise in use. A block device stays claimed while the file is
/// open, so that it cannot be mounted meanwhile.
pub fn open(path: &Path, write: bool) -> Result<File> {
    let block = match target(path)? {
        Target::Block => true,
        Target::File => false,
        Target::Missing => bail!("{}: no such file or device", path.display()),
    };
    if let Some(user) = user(path, block) {
        bail!("{} is {user}", path.display());
    }
    let mut options = OpenOptions::new();
    options.read(true).write(write);
    if block {
        // Of a block device: fails while the kernel uses it.
        options.custom_flags(libc::O_EXCL);
    }
    options.open(path).map_err(|e| {
        if e.raw_os_error() == Some(libc::EBUSY) {
            anyhow::anyhow!("{} is in use by the system", path.display())
        } else {
            anyhow::Error::new(e).context(format!("cannot open {}", path.display()))
        }
    })
}

/// The user of the device, according to /proc and /sys: the name of the mount point or loop device.
fn user(path: &Path, block: bool) -> Option<String> {
    if block {
        let dev = fs::metadata(path).ok()?.rdev();
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        return mount_point(&mounts, libc::major(dev), libc::minor(dev))
            .map(|dir| format!("mounted on {dir}"));
    }
    let path = fs::canonicalize(path).ok()?;
    for entry in fs::read_dir("/sys/block").ok()?.flatten() {
        // A loop device without a file has no such entry.
        let Ok(backing) = fs::read_to_string(entry.path().join("loop/backing_file")) else {
            continue;
        };
        if Path::new(backing.trim_end_matches('\n')) == path {
            return Some(format!(
                "in use by /dev/{}",
                entry.file_name().to_string_lossy()
            ));
        }
    }
    None
}

/// Finds the device in the text of /proc/self/mountinfo: `36 35 98:0 /root /mount/point ...`.
fn mount_point(mounts: &str, major: u32, minor: u32) -> Option<&str> {
    let device = format!("{major}:{minor}");
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        (fields.next()? == device).then_some(())?;
        fields.nth(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_by_device_number() {
        let text = "22 1 259:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
            36 22 259:10 / /mnt/pmem rw - rdax /dev/pmem0 rw\n";
        assert_eq!(mount_point(text, 259, 10), Some("/mnt/pmem"));
        assert_eq!(mount_point(text, 259, 0), Some("/"));
        assert_eq!(mount_point(text, 259, 1), None);
        assert_eq!(mount_point("", 259, 1), None);
    }

    #[test]
    fn what_can_hold_no_volume_is_refused() {
        assert!(target(Path::new("/dev/null")).is_err());
        assert!(target(Path::new("/")).is_err());
        let missing = target(Path::new("/no/such/file")).unwrap();
        assert_eq!(missing, Target::Missing);
    }
}
