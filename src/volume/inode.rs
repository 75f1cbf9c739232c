// SPDX-License-Identifier: GPL-2.0

//! Inodes: the copy of one in memory, its checksum, and how a change of it is logged.
//!
//! An operation works on a clone of [`Inode::raw`], logs the difference with [`Inode::log`] and,
//! once the transaction is committed, makes the clone the inode with [`Inode::set`]. So an error
//! leaves the inode as it was, in memory and on the media.
//!
//! The caller of the volume holds an inode under its own lock: shared for `&Inode`, exclusive for
//! `&mut Inode`, until the operation returns.

use core::mem::offset_of;

use zerocopy::little_endian::{I64, U32};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::dir::Leaves;
use super::error::{Error, Result, Structure};
use super::extent::{Edited, Nodes};
use super::format::{RawInode, Time, INODE_BYTES, INODE_CHUNK_SLOTS, SYSTEM_INODES, TABLE_INO};
use super::journal::Tx;
use super::num::to_usize;
use super::pmem::Pmem;
use super::task::Rest;
use super::xattr;
use crate::env::crc32c;

/// An inode in memory.
#[derive(Debug)]
pub struct Inode {
    pub(super) at: u64,
    pub(super) raw: RawInode,
    /// For a file: its unfinished work.
    pub(super) rest: Option<Rest>,
    /// The cached nodes of its tree.
    pub(super) nodes: Nodes,
    /// For a directory: its cached leaves.
    pub(super) leaves: Leaves,
    /// Its extended attributes, if they are cached.
    pub(super) xattrs: xattr::Set,
}

/// Cached metadata of a file beyond its inode: from its tree, its block of extended attributes and
/// the leaves of a directory.
#[derive(Debug, Default)]
pub struct Knowledge {
    _nodes: Nodes,
    _leaves: Leaves,
    _xattrs: xattr::Set,
}

/// A copy, without the cached metadata.
impl Clone for Inode {
    fn clone(&self) -> Self {
        Inode {
            at: self.at,
            raw: self.raw.clone(),
            rest: self.rest,
            ..Inode::blank()
        }
    }
}

/// The checksum of a structure, whose first field it is, in a volume of this `seed`.
pub(super) fn crc_of(seed: u32, bytes: &[u8]) -> u32 {
    crc32c(seed, bytes.get(size_of::<U32>()..).unwrap_or(&[]))
}

/// The checksum of an inode in a volume of this `seed`.
pub fn checksum(raw: &RawInode, seed: u32) -> u32 {
    crc_of(seed, raw.as_bytes())
}

/// Sets the checksum of `raw`.
pub fn seal(raw: &mut RawInode, seed: u32) {
    raw.crc = U32::new(checksum(raw, seed));
}

/// Reads the inode `ino` of a volume of this `seed` at byte `at` into `inode` and checks it. After
/// an error, `inode` is blank.
pub(super) fn read<P: Pmem>(
    pmem: &P,
    seed: u32,
    at: u64,
    ino: u64,
    inode: &mut Inode,
) -> Result<()> {
    inode.at = 0;
    pmem.read(at, inode.raw.as_mut_bytes())?;
    if inode.raw.crc.get() != checksum(&inode.raw, seed) || inode.raw.ino.get() != ino {
        return Err(Error::Corrupt {
            what: Structure::Inode,
            at,
        });
    }
    inode.at = at;
    Ok(())
}

/// Where `raw` is in the system block, if it is a system inode.
fn system_slot(raw: &RawInode) -> Option<u64> {
    let slot = raw.ino.get().checked_sub(TABLE_INO)?;
    (slot < SYSTEM_INODES).then_some(slot)
}

/// Bytes of an inode's first line: size, links, timestamps of changes.
pub(super) const LINE: usize = to_usize(super::pmem::LINE);
/// Bytes of all its fields: all but the root of its tree.
pub(super) const FIELDS: usize = offset_of!(RawInode, root);
/// Bytes of all of it.
pub(super) const WHOLE: usize = to_usize(INODE_BYTES);

/// The first `N` bytes of an inode as they were before an operation that changes them in place.
pub(super) struct Before<const N: usize>([u8; N]);

impl Before<WHOLE> {
    /// The inode.
    pub(super) fn raw(&self) -> Result<RawInode> {
        RawInode::read_from_bytes(&self.0).map_err(|_| Error::Invalid)
    }
}

impl Inode {
    /// No inode: to be filled in by [`Volume::create_into`](super::Volume::create_into) and
    /// [`Volume::iget`](super::Volume::iget). (Inodes are large; they are built in place.) The
    /// content of its `raw` does not matter.
    #[inline(always)]
    pub fn blank() -> Self {
        Inode {
            at: 0,
            raw: RawInode::new_zeroed(),
            rest: None,
            nodes: Nodes::default(),
            leaves: Leaves::default(),
            xattrs: xattr::Set::default(),
        }
    }

    /// Makes it blank.
    pub fn reset(&mut self) {
        self.at = 0;
        self.rest = None;
        self.nodes = Nodes::default();
        self.leaves = Leaves::default();
        self.xattrs = xattr::Set::default();
    }

    /// Whether it has cached metadata.
    #[inline]
    pub fn has_knowledge(&self) -> bool {
        !self.leaves.is_unknown() || !self.nodes.is_unknown() || !self.xattrs.is_unknown()
    }

    /// Removes and returns its cached metadata. It is read again when it is needed.
    pub fn take_knowledge(&mut self) -> Knowledge {
        Knowledge {
            _nodes: core::mem::take(&mut self.nodes),
            _leaves: core::mem::take(&mut self.leaves),
            _xattrs: core::mem::take(&mut self.xattrs),
        }
    }

    /// The transaction that has changed a node of its tree was committed.
    pub(super) fn keep(&mut self, edited: Edited) {
        edited.keep_in(&mut self.nodes);
    }

    /// Whether it is blank.
    pub fn is_blank(&self) -> bool {
        self.at == 0
    }

    /// Saves the first `N` bytes of the inode, which alone are about to change, for
    /// [`Inode::log_change`] and [`Inode::restore`].
    #[inline(always)]
    pub(super) fn before<const N: usize>(&self) -> Before<N> {
        const { assert!(N <= WHOLE) };
        Before(*self.raw.as_bytes().first_chunk().unwrap_or(&[0; N]))
    }

    /// Sets the checksum of the inode and logs the differences from `before`.
    pub(super) fn log_change<P: Pmem, const N: usize>(
        &mut self,
        tx: &mut Tx<'_, P>,
        before: &Before<N>,
    ) -> Result<()> {
        seal(&mut self.raw, tx.seed());
        if let Some(slot) = system_slot(&self.raw) {
            return tx.write_system_inode(slot, &self.raw);
        }
        tx.update(self.at, &before.0, &self.raw.as_bytes()[..N])
    }

    /// Restores the inode: the operation has failed.
    pub(super) fn restore<const N: usize>(&mut self, before: &Before<N>) {
        self.raw.as_mut_bytes()[..N].copy_from_slice(&before.0);
    }

    /// Whether the inode is unchanged.
    pub(super) fn is_still<const N: usize>(&self, before: &Before<N>) -> bool {
        self.raw.as_bytes()[..N] == before.0
    }

    /// Byte address on the device.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The structure on the media.
    pub fn raw(&self) -> &RawInode {
        &self.raw
    }

    /// Sets the checksum of `new` and logs the differences from this inode. `new` becomes the inode
    /// with [`Inode::set`] once `tx` is committed.
    pub(super) fn log<P: Pmem>(&self, tx: &mut Tx<'_, P>, new: &mut RawInode) -> Result<()> {
        seal(new, tx.seed());
        if let Some(slot) = system_slot(new) {
            return tx.write_system_inode(slot, new);
        }
        tx.update(self.at, self.raw.as_bytes(), new.as_bytes())
    }

    /// Makes `new`, whose transaction is committed, the inode.
    pub(super) fn set(&mut self, new: RawInode) {
        self.raw = new;
    }

    /// Byte address of the header of its inode chunk, and its slot there.
    pub(super) fn slot(&self) -> (u64, u64) {
        let slot = self.ino() % INODE_CHUNK_SLOTS;
        (self.at - slot * INODE_BYTES, slot)
    }

    /// Inode number.
    pub fn ino(&self) -> u64 {
        self.raw.ino.get()
    }

    /// File type and permissions.
    pub fn mode(&self) -> u16 {
        self.raw.mode.get()
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.raw.size.get()
    }

    /// Blocks in use.
    pub fn blocks(&self) -> u64 {
        self.raw.blocks.get()
    }

    /// Links.
    pub fn nlink(&self) -> u32 {
        self.raw.nlink.get()
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        self.raw.uid.get()
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        self.raw.gid.get()
    }

    /// Device number of a device node.
    pub fn rdev(&self) -> u32 {
        self.raw.rdev.get()
    }

    /// File attributes, `FS_*_FL`.
    pub fn attrs(&self) -> u32 {
        self.raw.attrs.get()
    }

    /// Distinguishes the users of one inode number over time.
    pub fn generation(&self) -> u32 {
        self.raw.generation.get()
    }

    /// Whether it has extended attributes.
    pub fn has_xattrs(&self) -> bool {
        self.raw.xattr_block.get() != 0
    }

    /// For a directory: its parent directory.
    pub fn parent(&self) -> u64 {
        self.raw.parent.get()
    }

    /// Last access.
    pub fn atime(&self) -> Time {
        time(self.raw.atime_sec, self.raw.atime_nsec)
    }

    /// Last change of the content.
    pub fn mtime(&self) -> Time {
        time(self.raw.mtime_sec, self.raw.mtime_nsec)
    }

    /// Last change of the inode.
    pub fn ctime(&self) -> Time {
        time(self.raw.ctime_sec, self.raw.ctime_nsec)
    }

    /// Birth.
    pub fn btime(&self) -> Time {
        time(self.raw.btime_sec, self.raw.btime_nsec)
    }
}

fn time(sec: I64, nsec: U32) -> Time {
    Time {
        sec: sec.get(),
        nsec: nsec.get(),
    }
}

impl RawInode {
    /// Sets the access time.
    pub fn set_atime(&mut self, t: Time) {
        self.atime_sec = I64::new(t.sec);
        self.atime_nsec = U32::new(t.nsec);
    }

    /// Sets the time of the last change of the content.
    pub fn set_mtime(&mut self, t: Time) {
        self.mtime_sec = I64::new(t.sec);
        self.mtime_nsec = U32::new(t.nsec);
    }

    /// Sets the time of the last change of the inode.
    pub fn set_ctime(&mut self, t: Time) {
        self.ctime_sec = I64::new(t.sec);
        self.ctime_nsec = U32::new(t.nsec);
    }

    /// Sets the time of birth.
    pub fn set_btime(&mut self, t: Time) {
        self.btime_sec = I64::new(t.sec);
        self.btime_nsec = U32::new(t.nsec);
    }
}

const _: () = assert!(offset_of!(RawInode, crc) == 0 && FIELDS == 2 * LINE);
