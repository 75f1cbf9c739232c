// SPDX-License-Identifier: GPL-2.0

//! Whether an inode record is a possible inode of a volume. A valid checksum proves that a record
//! is as it was written, not that this code wrote it: nothing of it is trusted before each field
//! was compared with what its file type, the other fields and the volume allow.
//!
//! Whatever depends on other structures (links, the parent's entry, the slot of the orphan file,
//! the nodes of the tree, the records of extended attributes) is verified when these are read.
//! Owner, group, seconds, generation and permissions may have any value; unknown attributes mean
//! nothing.
//!
//! `check` has the same rules, in separate code, and reports whatever is refused here.

use super::error::{Error, Result, Structure};
use super::extent::{scan_root, unpack, Media};
use super::file::FILE_END;
use super::format::{
    RawInode, BLOCK, INLINE_MAX, INODE_CHUNK_SLOTS, LINK_MAX, MAX_FILE, ROOT_INO, SYMLINK_MAX,
};
use super::num::to_usize;
use super::pmem::Pmem;
use zerocopy::IntoBytes;

const NSEC: u32 = 1_000_000_000;

/// The file types as far as the rules differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Directory,
    Regular,
    Symlink,
    /// A character or a block device.
    Device,
    /// A FIFO or a socket.
    Channel,
}

impl Type {
    fn of(mode: u16) -> Option<Self> {
        Some(match mode >> 12 {
            0o04 => Type::Directory,
            0o10 => Type::Regular,
            0o12 => Type::Symlink,
            0o02 | 0o06 => Type::Device,
            0o01 | 0o14 => Type::Channel,
            _ => return None,
        })
    }
}

/// Fails with [`Error::Corrupt`] unless the record `raw`, of the inode at byte `at`, is possible.
pub(super) fn verify<P: Pmem>(media: &Media<'_, P>, raw: &RawInode, at: u64) -> Result<()> {
    let holds = match Type::of(raw.mode.get()) {
        Some(kind) => {
            (raw.ino.get() != ROOT_INO || kind == Type::Directory)
                && times(raw)
                && links(raw, kind)
                && size(raw, kind)
                && (kind == Type::Device || raw.rdev.get() == 0)
                && blocks(media, raw, kind, at)?
        }
        None => false,
    };
    if holds {
        return Ok(());
    }
    Err(Error::Corrupt {
        what: Structure::Inode,
        at,
    })
}

fn times(raw: &RawInode) -> bool {
    [
        raw.atime_nsec,
        raw.mtime_nsec,
        raw.ctime_nsec,
        raw.btime_nsec,
    ]
    .iter()
    .all(|nsec| nsec.get() < NSEC)
}

/// Checks links, parent, and whether it is in the orphan file. (Its slot may have any number.)
fn links(raw: &RawInode, kind: Type) -> bool {
    let (nlink, orphan, parent) = (raw.nlink.get(), raw.orphan.get(), raw.parent.get());
    let counted = match kind {
        Type::Directory => nlink != 1 && nlink <= LINK_MAX,
        _ => nlink <= LINK_MAX,
    };
    // The orphan file has inodes without a name, and files that are being truncated.
    let in_orphans = match nlink {
        0 => orphan != 0,
        _ => orphan == 0 || kind == Type::Regular,
    };
    let placed = match kind {
        Type::Directory if raw.ino.get() == ROOT_INO => parent == ROOT_INO,
        Type::Directory => parent % INODE_CHUNK_SLOTS != 0,
        _ => parent == 0,
    };
    counted && in_orphans && placed
}

fn size(raw: &RawInode, kind: Type) -> bool {
    let size = raw.size.get();
    match kind {
        // A directory that is being freed has lost some of its leaves.
        Type::Directory => {
            size != 0
                && size % BLOCK == 0
                && (raw.nlink.get() == 0 || size / BLOCK <= raw.blocks.get())
        }
        Type::Regular => size <= MAX_FILE,
        Type::Symlink => (1..=SYMLINK_MAX as u64).contains(&size),
        Type::Device | Type::Channel => size == 0,
    }
}

/// Checks the root of the tree, or the target in its place; the block of the extended attributes;
/// the number of blocks.
fn blocks<P: Pmem>(media: &Media<'_, P>, raw: &RawInode, kind: Type, at: u64) -> Result<bool> {
    let xattr_block = raw.xattr_block.get();
    let xattrs = u64::from(xattr_block != 0);
    if xattrs != 0 && !media.geo.is_data(xattr_block, 1) {
        return Ok(false);
    }
    let size = raw.size.get();
    if kind == Type::Symlink && size <= INLINE_MAX as u64 {
        let target = raw.root.as_bytes().get(..to_usize(size));
        let no_tree = raw.root_count.get() == 0 && raw.depth == 0;
        let holds = no_tree && target.is_some_and(|target| !target.contains(&0));
        return Ok(holds && count(media, raw, (0, 0), xattrs));
    }
    let (mut mapped, mut holds) = (0, true);
    let entries = scan_root(media, raw, at, &mut |i, entry| {
        let first_key = i > 0 || entry.key.get() == 0;
        if raw.depth > 0 {
            holds &= kind == Type::Regular || (kind == Type::Directory && first_key);
            return;
        }
        let extent = unpack(entry);
        mapped += extent.len;
        holds &= match kind {
            Type::Directory => first_key && extent.len == 1 && !extent.unwritten,
            // A range that is still to be cut off may lie beyond the largest offset.
            Type::Regular => raw.orphan.get() != 0 || extent.end() <= FILE_END,
            Type::Symlink => i == 0 && first_key && extent.len == 1 && !extent.unwritten,
            Type::Device | Type::Channel => false,
        };
    })?;
    let some = entries > 0 || !matches!(kind, Type::Directory | Type::Symlink);
    Ok(holds && some && count(media, raw, (entries, mapped), xattrs))
}

/// Whether the number of blocks is possible, with `entries` entries in the root, which map the
/// given number of blocks if it is a leaf, and at least the given number of blocks of extended
/// attributes.
fn count<P>(
    media: &Media<'_, P>,
    raw: &RawInode,
    (entries, mapped): (usize, u64),
    xattrs: u64,
) -> bool {
    let (stored, depth) = (raw.blocks.get(), u64::from(raw.depth));
    let least = match depth {
        0 => mapped,
        // A path of nodes below each entry, and an extent.
        _ => entries as u64 * (depth + 1),
    } + xattrs;
    stored >= least && stored <= media.geo.blocks && (depth > 0 || xattrs > 0 || stored == least)
}
