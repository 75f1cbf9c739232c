// SPDX-License-Identifier: GPL-2.0

//! Attributes of an inode: permissions, owner, times, flags.

use zerocopy::little_endian::{U16, U32};

use super::S_IFMT;
use crate::volume::error::Result;
use crate::volume::format::Time;
use crate::volume::inode::{Inode, FIELDS};
use crate::volume::pmem::Pmem;
use crate::volume::Volume;

/// What to change of an inode; `None` stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permissions; the file type in it is ignored.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// File attributes, `FS_*_FL`.
    pub attrs: Option<u32>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of the content.
    pub mtime: Option<Time>,
    /// Last change of the inode.
    pub ctime: Option<Time>,
}

impl<P: Pmem> Volume<P> {
    /// Changes attributes of an inode, in one transaction; none if they are so already.
    pub fn set_attr(&self, inode: &mut Inode, set: &SetAttr) -> Result<()> {
        let before = inode.before::<FIELDS>();
        let raw = &mut inode.raw;
        if let Some(mode) = set.mode {
            raw.mode = U16::new(raw.mode.get() & S_IFMT | mode & !S_IFMT);
        }
        if let Some(uid) = set.uid {
            raw.uid = U32::new(uid);
        }
        if let Some(gid) = set.gid {
            raw.gid = U32::new(gid);
        }
        if let Some(attrs) = set.attrs {
            raw.attrs = U32::new(attrs);
        }
        if let Some(time) = set.atime {
            raw.set_atime(time);
        }
        if let Some(time) = set.mtime {
            raw.set_mtime(time);
        }
        if let Some(time) = set.ctime {
            raw.set_ctime(time);
        }
        if inode.is_still(&before) {
            return Ok(());
        }
        let result = self.begin().and_then(|mut tx| {
            inode.log_change(&mut tx, &before)?;
            tx.commit()
        });
        if result.is_err() {
            inode.restore(&before);
        }
        result
    }

    /// Sets the times of an inode.
    pub fn touch(&self, inode: &mut Inode, atime: Time, mtime: Time, ctime: Time) -> Result<()> {
        let set = SetAttr {
            atime: Some(atime),
            mtime: Some(mtime),
            ctime: Some(ctime),
            ..SetAttr::default()
        };
        self.set_attr(inode, &set)
    }
}
