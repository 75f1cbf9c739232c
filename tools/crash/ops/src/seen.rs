// SPDX-License-Identifier: GPL-2.0

//! What can be seen of a volume: every name, and what it stands for.

use std::collections::BTreeMap;

use rdax_volume::files::readdir;
use rdax_volume::volume::error::Result;
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::{BLOCK, MAX_FILE, ROOT_INO, SYMLINK_MAX};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{Error, Volume};

/// Largest file that is read: workloads have none that is larger.
const FILE_MAX: u64 = 1 << 26;

/// What an inode contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes of a regular file.
    File(Vec<u8>),
    /// A directory; what is in it is seen by its names.
    Dir,
    /// Target of a symlink.
    Symlink(Vec<u8>),
    /// A fifo.
    Fifo,
    /// A character or block device, or a socket.
    Device,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A number that other names for the same inode have, too, and names for others have not.
    pub ino: u64,
    /// Permissions.
    pub mode: u16,
    /// Seconds of the last change of the content.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// What is in it.
    pub content: Content,
    /// A file has blocks beyond its end.
    pub beyond: bool,
}

/// Every name, from the root, without a slash before it.
pub type Seen = BTreeMap<String, Entry>;

/// Reads what can be seen of `volume`.
pub fn see<P: Pmem>(volume: &Volume<P>) -> Result<Seen> {
    let mut seen = Seen::new();
    let mut todo = vec![(String::new(), ROOT_INO)];
    while let Some((dir, ino)) = todo.pop() {
        let mut inode = volume.iget(ino)?;
        let mut names = Vec::new();
        readdir(volume, &mut inode, 1, &mut |entry| {
            let name = String::from_utf8_lossy(entry.name);
            let slash = if dir.is_empty() { "" } else { "/" };
            names.push((format!("{dir}{slash}{name}"), entry.ino));
            true
        })?;
        for (path, ino) in names {
            let mut inode = volume.iget(ino)?;
            let entry = see_inode(volume, &mut inode)?;
            if entry.content == Content::Dir {
                todo.push((path.clone(), ino));
            }
            if seen.insert(path, entry).is_some() {
                // The same name twice, or directories in a circle.
                return Err(Error::Exists);
            }
        }
    }
    Ok(seen)
}

fn see_inode<P: Pmem>(volume: &Volume<P>, inode: &mut Inode) -> Result<Entry> {
    let mut beyond = false;
    let content = match inode.mode() >> 12 {
        0o10 => {
            let end = inode.size().div_ceil(BLOCK);
            let rest = (MAX_FILE + 1) / BLOCK - end;
            beyond = volume.map(inode, end, rest)? != Map::Hole { len: rest };
            Content::File(read(volume, inode)?)
        }
        0o4 => Content::Dir,
        0o12 => {
            let mut target = vec![0; SYMLINK_MAX];
            let len = volume.read_link(inode, &mut target)?;
            target.truncate(len);
            Content::Symlink(target)
        }
        0o1 => Content::Fifo,
        _ => Content::Device,
    };
    Ok(Entry {
        ino: inode.ino(),
        mode: inode.mode() & 0o7777,
        mtime: inode.mtime().sec,
        xattrs: see_xattrs(volume, inode)?,
        content,
        beyond,
    })
}

fn see_xattrs<P: Pmem>(volume: &Volume<P>, inode: &mut Inode) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut names = Vec::new();
    volume.list_xattrs(inode, &mut |name| names.push(name.to_owned()))?;
    let mut xattrs = BTreeMap::new();
    for name in names {
        let mut value = vec![0; volume.get_xattr(inode, &name, |_| None)?];
        volume.get_xattr(inode, &name, |_| Some(&mut value))?;
        xattrs.insert(String::from_utf8_lossy(&name).into_owned(), value);
    }
    Ok(xattrs)
}

/// The bytes of a file.
fn read<P: Pmem>(volume: &Volume<P>, inode: &mut Inode) -> Result<Vec<u8>> {
    let size = inode.size();
    if size > FILE_MAX {
        return Err(Error::TooBig);
    }
    let mut bytes = vec![0; size as usize];
    let mut block = 0;
    while block * BLOCK < size {
        let left = size.div_ceil(BLOCK) - block;
        block += match volume.map(inode, block, left)? {
            Map::Hole { len } | Map::Unwritten { len, .. } => len,
            Map::Run { block: first, len } => {
                let end = size.min((block + len) * BLOCK);
                let part = &mut bytes[(block * BLOCK) as usize..end as usize];
                volume.pmem().read(first * BLOCK, part)?;
                len
            }
        };
    }
    Ok(bytes)
}
