// SPDX-License-Identifier: GPL-2.0

//! Attributes of an inode: permissions, owner, timestamps, flags.

use zerocopy::little_endian::{U16, U32};

use super::S_IFMT;
use crate::volume::error::Result;
use crate::volume::format::{RawInode, Time};
use crate::volume::inode::{Inode, FIELDS};
use crate::volume::pmem::Pmem;
use crate::volume::Volume;

/// The attributes to change; `None` keeps the old one.
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

impl SetAttr {
    /// Changes `raw`.
    pub(in crate::volume) fn apply(&self, raw: &mut RawInode) {
        if let Some(mode) = self.mode {
            raw.mode = U16::new(raw.mode.get() & S_IFMT | mode & !S_IFMT);
        }
        if let Some(uid) = self.uid {
            raw.uid = U32::new(uid);
        }
        if let Some(gid) = self.gid {
            raw.gid = U32::new(gid);
        }
        if let Some(attrs) = self.attrs {
            raw.attrs = U32::new(attrs);
        }
        if let Some(time) = self.atime {
            raw.set_atime(time);
        }
        if let Some(time) = self.mtime {
            raw.set_mtime(time);
        }
        if let Some(time) = self.ctime {
            raw.set_ctime(time);
        }
    }
}

impl<P: Pmem> Volume<P> {
    /// Changes attributes of an inode, in one transaction; in none if nothing changes.
    pub fn set_attr(&self, inode: &mut Inode, set: &SetAttr) -> Result<()> {
        let before = inode.before::<FIELDS>();
        set.apply(&mut inode.raw);
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

    /// Sets the timestamps of an inode.
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
