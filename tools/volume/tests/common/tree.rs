// SPDX-License-Identifier: GPL-2.0

//! Everything that can be seen of a volume, to compare it with what it should be.

use std::collections::{BTreeMap, BTreeSet};

use rdax_volume::volume::error::Result;
use rdax_volume::volume::format::{Time, ROOT_INO, XATTR_VALUE_MAX};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::Volume;

use super::{list, read};

/// Bytes of a file that are looked at: damage can make it of any size.
const READ_MAX: u64 = 16 << 20;

/// What an inode contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Bytes of a file.
    File(Vec<u8>),
    /// Names of a directory, with number and type.
    Dir(BTreeMap<Vec<u8>, (u64, u8)>),
    /// Target of a symlink.
    Link(Vec<u8>),
    /// Anything else.
    Nothing,
}

/// What can be seen of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub mode: u16,
    pub nlink: u32,
    pub parent: u64,
    pub mtime: Time,
    pub ctime: Time,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub body: Body,
}

/// All inodes that have a name, by number.
pub type Tree = BTreeMap<u64, Seen>;

/// What can be seen of `inode`.
pub fn see<P: Pmem>(vol: &Volume<P>, inode: &mut Inode) -> Result<Seen> {
    let body = match inode.mode() >> 12 {
        0o10 => Body::File(read(vol, inode, 0, inode.size().min(READ_MAX))?),
        0o4 => Body::Dir(
            list(vol, inode, 9)?
                .into_iter()
                .map(|(_, name, ino, kind)| (name, (ino, kind)))
                .collect(),
        ),
        0o12 => {
            let mut target = vec![0; 4095];
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
        value.truncate(len);
        xattrs.insert(name, value);
    }
    Ok(Seen {
        mode: inode.mode(),
        nlink: inode.nlink(),
        parent: inode.parent(),
        mtime: inode.mtime(),
        ctime: inode.ctime(),
        xattrs,
        body,
    })
}

/// Walks the whole volume from its root.
pub fn walk<P: Pmem>(vol: &Volume<P>) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut todo = BTreeSet::from([ROOT_INO]);
    while let Some(ino) = todo.pop_first() {
        let seen = see(vol, &mut vol.iget(ino)?)?;
        if let Body::Dir(names) = &seen.body {
            let new = names.values().map(|(ino, _)| *ino);
            todo.extend(new.filter(|ino| !tree.contains_key(ino)));
        }
        tree.insert(ino, seen);
    }
    Ok(tree)
}
