// SPDX-License-Identifier: GPL-2.0

//! Everything that is visible of a volume, to compare it with its former state. Data is recorded by
//! its checksums.

use std::collections::{BTreeMap, BTreeSet};

use rdax_volume::env::crc32c;
use rdax_volume::files::list;
use rdax_volume::volume::error::{Error, Result};
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::{Time, BLOCK, ROOT_INO, SYMLINK_MAX, XATTR_VALUE_MAX};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::Volume;

/// Names of a directory, with number and type.
pub type Names = BTreeMap<Vec<u8>, (u64, u8)>;

/// What an inode contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The blocks of a file that are not all zero, up to its end, by their checksums.
    File(BTreeMap<u64, u32>),
    /// Names of a directory.
    Dir(Names),
    /// Target of a symlink.
    Link(Vec<u8>),
    /// Anything else.
    Nothing,
}

/// What can be seen of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub mode: u16,
    pub owner: (u32, u32),
    pub size: u64,
    pub mtime: Time,
    /// Length and checksum of each value.
    pub xattrs: BTreeMap<Vec<u8>, (usize, u32)>,
    pub body: Body,
}

/// All inodes that have a name, by number.
pub type Tree = BTreeMap<u64, Seen>;

fn content<P: Pmem>(vol: &Volume<P>, inode: &mut Inode) -> Result<BTreeMap<u64, u32>> {
    let mut found = BTreeMap::new();
    let last = inode.size().div_ceil(BLOCK);
    let mut at = 0;
    while at < last {
        let map = vol.map(inode, at, last - at)?;
        if let Map::Run { block, len } = map {
            for (file_block, block) in (at..last).zip(block..block + len) {
                let mut bytes = [0; BLOCK as usize];
                vol.pmem().read(block * BLOCK, &mut bytes)?;
                // What lies beyond the end is nobody's.
                let end = (inode.size() - file_block * BLOCK).min(BLOCK) as usize;
                if bytes[..end].iter().any(|&b| b != 0) {
                    found.insert(file_block, crc32c(0, &bytes[..end]));
                }
            }
        }
        let (Map::Hole { len } | Map::Unwritten { len, .. } | Map::Run { len, .. }) = map;
        assert!(len > 0, "a mapping of no blocks at file block {at}");
        at += len;
    }
    Ok(found)
}

/// What can be seen of `inode`.
pub fn see<P: Pmem>(vol: &Volume<P>, inode: &mut Inode) -> Result<Seen> {
    let body = match inode.mode() >> 12 {
        0o10 => Body::File(content(vol, inode)?),
        0o4 => {
            let names = list(vol, inode, 50)?.into_iter();
            Body::Dir(names.map(|(_, n, ino, kind)| (n, (ino, kind))).collect())
        }
        0o12 => {
            let mut target = vec![0; SYMLINK_MAX];
            let len = vol.read_link(inode, &mut target)?;
            target.truncate(len);
            Body::Link(target)
        }
        _ => Body::Nothing,
    };
    let mut names = Vec::new();
    vol.list_xattrs(inode, &mut |name| names.push(name.to_vec()))?;
    let mut xattrs = BTreeMap::new();
    for name in names {
        let mut value = vec![0; XATTR_VALUE_MAX];
        let len = vol.get_xattr(inode, &name, |_| Some(&mut value))?;
        xattrs.insert(name, (len, crc32c(0, &value[..len])));
    }
    Ok(Seen {
        mode: inode.mode(),
        owner: (inode.uid(), inode.gid()),
        size: inode.size(),
        mtime: inode.mtime(),
        xattrs,
        body,
    })
}

/// Walks the whole volume from its root. Skips what cannot be read, and reports it.
pub fn walk<P: Pmem>(vol: &Volume<P>) -> (Tree, Vec<(u64, Error)>) {
    let (mut tree, mut errors) = (Tree::new(), Vec::new());
    let (mut todo, mut known) = (BTreeSet::from([ROOT_INO]), BTreeSet::from([ROOT_INO]));
    while let Some(ino) = todo.pop_first() {
        match vol.iget(ino).and_then(|mut inode| see(vol, &mut inode)) {
            Ok(seen) => {
                if let Body::Dir(names) = &seen.body {
                    todo.extend(names.values().map(|n| n.0).filter(|&ino| known.insert(ino)));
                }
                tree.insert(ino, seen);
            }
            Err(e) => errors.push((ino, e)),
        }
    }
    (tree, errors)
}
