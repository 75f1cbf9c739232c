// SPDX-License-Identifier: GPL-2.0

//! What can be seen of a directory tree, to find out what has changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rdax_volume::env::crc32c;

/// The most bytes of a file that are compared.
const READ_MAX: u64 = 64 << 20;

/// What can be seen of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub mode: u32,
    pub owner: (u32, u32),
    pub links: u64,
    pub size: u64,
    pub blocks: u64,
    pub device: u64,
    pub times: [(i64, i64); 2],
    pub content: u32,
    pub target: Option<PathBuf>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A tree, and what the file system counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub entries: BTreeMap<PathBuf, Entry>,
    /// Free blocks and free inodes.
    pub free: (u64, u64),
}

fn xattrs(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 1 << 16];
    let len = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut found = BTreeMap::new();
    for name in names[..len]
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0; 1 << 16];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(len);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

fn entry(path: &Path) -> Result<Entry> {
    let info = fs::symlink_metadata(path)?;
    let mut content = 0;
    if info.is_file() {
        let mut bytes = Vec::new();
        fs::File::open(path)?
            .take(READ_MAX)
            .read_to_end(&mut bytes)?;
        content = crc32c(0, &bytes);
    }
    Ok(Entry {
        mode: info.mode(),
        owner: (info.uid(), info.gid()),
        links: info.nlink(),
        size: info.size(),
        blocks: info.blocks(),
        device: info.rdev(),
        times: [
            (info.mtime(), info.mtime_nsec()),
            (info.ctime(), info.ctime_nsec()),
        ],
        content,
        target: info.is_symlink().then(|| fs::read_link(path)).transpose()?,
        xattrs: xattrs(path)?,
    })
}

fn add(path: &Path, entries: &mut BTreeMap<PathBuf, Entry>) -> Result<()> {
    let found = entry(path).with_context(|| path.display().to_string())?;
    let is_dir = found.mode & libc::S_IFMT == libc::S_IFDIR;
    entries.insert(path.to_owned(), found);
    if is_dir {
        for entry in fs::read_dir(path)? {
            add(&entry?.path(), entries)?;
        }
    }
    Ok(())
}

impl Snapshot {
    /// Of `dir` and all below it.
    pub fn new(dir: &Path) -> Result<Snapshot> {
        let mut entries = BTreeMap::new();
        add(dir, &mut entries)?;
        let counts = rustix::fs::statvfs(dir)?;
        Ok(Snapshot {
            entries,
            free: (counts.f_bfree, counts.f_ffree),
        })
    }

    /// The first difference, in words.
    pub fn difference(&self, after: &Snapshot) -> Option<String> {
        for (path, was) in &self.entries {
            match after.entries.get(path) {
                None => return Some(format!("{} is gone", path.display())),
                Some(is) if is != was => {
                    return Some(format!("{} was {was:?} and is {is:?}", path.display()))
                }
                _ => {}
            }
        }
        let new = after
            .entries
            .keys()
            .find(|path| !self.entries.contains_key(*path));
        if let Some(path) = new {
            return Some(format!("{} is new", path.display()));
        }
        (self.free != after.free).then(|| {
            format!(
                "free blocks and inodes were {:?} and are {:?}",
                self.free, after.free
            )
        })
    }
}
