// SPDX-License-Identifier: GPL-2.0

//! Inodes: the copy of one in memory, its checksum, and how a change of it is logged.
//!
//! An operation works on a clone of [`Inode::raw`], logs the difference with [`Inode::log`] and,
//! once the transaction is committed, makes the clone the inode with [`Inode::set`]. So an error
//! leaves the inode as it was, in memory and on the media.
//!
//! The caller of the volume holds an inode under a lock of its own: shared for `&Inode`, exclusive
//! for `&mut Inode`, until the operation returns.

use core::mem::offset_of;

use zerocopy::little_endian::{I64, U32};
use zerocopy::IntoBytes;

use super::error::{Error, Result, Structure};
use super::format::{RawInode, Time, INODES_PER_CHUNK, INODE_BYTES};
use super::journal::Tx;
use super::pmem::{read_struct, Pmem};
use crate::env::crc32c;

/// An inode in memory.
#[derive(Clone, Debug)]
pub struct Inode {
    at: u64,
    raw: RawInode,
}

/// CRC32C of an inode with its `crc` taken as zero.
pub fn checksum(raw: &RawInode) -> u32 {
    let bytes = raw.as_bytes();
    let tail = bytes.get(size_of::<U32>()..).unwrap_or(&[]);
    crc32c(crc32c(0, &[0; size_of::<U32>()]), tail)
}

/// Sets the checksum of `raw`.
pub fn seal(raw: &mut RawInode) {
    raw.crc = U32::new(checksum(raw));
}

/// Reads the inode `ino` at byte `at` and checks it.
pub(super) fn read<P: Pmem>(pmem: &P, at: u64, ino: u64) -> Result<Inode> {
    let raw: RawInode = read_struct(pmem, at)?;
    if raw.crc.get() != checksum(&raw) || raw.ino.get() != ino {
        return Err(Error::Corrupt {
            what: Structure::Inode,
            at,
        });
    }
    Ok(Inode { at, raw })
}

impl Inode {
    /// The inode `raw` that a transaction puts at byte `at`.
    pub(super) fn new(at: u64, raw: RawInode) -> Self {
        Inode { at, raw }
    }

    /// Byte address on the device.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The structure on the media.
    pub fn raw(&self) -> &RawInode {
        &self.raw
    }

    /// Seals `new` and logs how it differs from this inode. `new` becomes the inode with
    /// [`Inode::set`] once `tx` is committed.
    pub(super) fn log<P: Pmem>(&self, tx: &mut Tx<'_, P>, new: &mut RawInode) -> Result<()> {
        seal(new);
        tx.update(self.at, self.raw.as_bytes(), new.as_bytes())
    }

    /// Makes `new`, whose transaction is committed, the inode.
    pub(super) fn set(&mut self, new: RawInode) {
        self.raw = new;
    }

    /// Byte address of the header of the chunk of the inode table that it lies in, and its slot
    /// there.
    pub(super) fn slot(&self) -> (u64, u64) {
        let slot = self.ino() % INODES_PER_CHUNK;
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

    /// Of a directory: the one it is in.
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
    /// Sets the time of the last access.
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

const _: () = assert!(offset_of!(RawInode, crc) == 0);
