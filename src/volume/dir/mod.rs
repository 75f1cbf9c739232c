// SPDX-License-Identifier: GPL-2.0

//! Directories: names in leaves, found by hash, listed by cookie.
//!
//! The leaves hang in the directory's extent tree by their smallest hash; a name lies in the leaf
//! with the greatest key not above its hash. The leaf with key 0 always exists; any other holds at
//! least one name, and goes in the transaction that takes its last.
//!
//! A name costs a transaction its own record and the head of what is left of the free space it
//! took. What would cost more, a split or a compaction, is done before in a transaction of its own
//! that changes no name ([`prepare`]).
//!
//! Callers are the operations of `namespace.rs`, which hold the directory: shared for what takes
//! `&Inode`, exclusive for what logs, until the transaction is committed.

mod leaf;
mod split;

use zerocopy::IntoBytes;

use super::error::{Error, Result, Structure};
use super::extent::{self, Mapping, Media, KEY_END};
use super::format::{RawInode, BLOCK, COOKIE_LOW_BITS, KEY_BITS, NAME_MAX};
use super::journal::Tx;
use super::pmem::{read_struct, Pmem};
use crate::env;
use leaf::{free_head, head, needed, Leaf, Record, HEAD, RECORDS_MAX};

pub use split::prepare;

/// A name being looked for, with its hash.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Its hash.
    pub hash: u64,
}

impl<'a> Name<'a> {
    /// `bytes` as a name, hashed under `key`.
    ///
    /// Fails with [`Error::NameTooLong`], and with [`Error::Invalid`] for a name that no directory
    /// can hold.
    pub fn new(key: &[u8; 16], bytes: &'a [u8]) -> Result<Name<'a>> {
        if bytes.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        if matches!(bytes, b"" | b"." | b"..") || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(Error::Invalid);
        }
        Ok(Name {
            bytes,
            hash: hash(key, bytes),
        })
    }
}

/// The hash of a name under the volume's key: 1 to 2^52 - 1.
pub fn hash(key: &[u8; 16], name: &[u8]) -> u64 {
    (env::siphash24(key, name) >> (u64::BITS - KEY_BITS)).max(1)
}

/// What a directory says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The inode.
    pub ino: u64,
    /// Its type, `DT_*`.
    pub file_type: u8,
    leaf: Leaf,
    record: Record,
    /// It is the only name in its leaf.
    alone: bool,
}

/// One name, as readdir shows it.
pub struct DirEntryRef<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode.
    pub ino: u64,
    /// Its type, `DT_*`.
    pub file_type: u8,
    /// Its position: at least 2048.
    pub cookie: u64,
}

/// The leaf where names of hash `hash` belong.
fn leaf_of<P: Pmem>(media: &Media<'_, P>, raw: &RawInode, at: u64, hash: u64) -> Result<Leaf> {
    let found = extent::lookup(media, raw, at, hash)?;
    match found.floor {
        Some(Mapping { key, block, len: 1 }) => Ok(Leaf {
            block,
            owner: raw.ino.get(),
            keys: (key, found.next.unwrap_or(KEY_END)),
        }),
        // No leaf with key 0, or an extent of a file.
        _ => Err(Error::Corrupt {
            what: Structure::Inode,
            at,
        }),
    }
}

/// Finds `name` in the directory `raw`, an inode at byte address `at`.
pub fn find<P: Pmem>(
    media: &Media<'_, P>,
    raw: &RawInode,
    at: u64,
    name: &Name<'_>,
) -> Result<Option<Entry>> {
    let leaf = leaf_of(media, raw, at, name.hash)?;
    let mut found = None;
    let mut names = 0u32;
    leaf.scan(media, &mut |record, bytes| {
        if !record.is_free() {
            names += 1;
            if record.hash() == name.hash && bytes == name.bytes {
                found = Some(*record);
            }
        }
        Ok(())
    })?;
    Ok(found.map(|record| Entry {
        ino: record.ino,
        file_type: record.file_type,
        leaf,
        record,
        alone: names == 1,
    }))
}

/// Whether the directory holds no name.
pub fn is_empty<P: Pmem>(media: &Media<'_, P>, raw: &RawInode, at: u64) -> Result<bool> {
    let leaf = leaf_of(media, raw, at, 0)?;
    let mut names = 0u32;
    leaf.scan(media, &mut |record, _| {
        names += u32::from(!record.is_free());
        Ok(())
    })?;
    // A leaf beside the first holds a name.
    Ok(names == 0 && leaf.keys.1 == KEY_END)
}

/// Sorts what one leaf holds, by insertion: a few dozen records, nearly in order as often as not.
/// (The kernel's objtool does not follow the panics in the sorts of `core`.)
fn sort_by_key<T>(items: &mut [T], key: impl Fn(&T) -> u64) {
    for i in 1..items.len() {
        for j in (1..=i).rev() {
            if key(&items[j - 1]) <= key(&items[j]) {
                break;
            }
            items.swap(j - 1, j);
        }
    }
}

/// Shows the names with a cookie above `after` to `emit`, in the order of their cookies, until it
/// returns false.
pub fn read<P: Pmem>(
    media: &Media<'_, P>,
    raw: &RawInode,
    at: u64,
    after: u64,
    emit: &mut dyn FnMut(&DirEntryRef<'_>) -> bool,
) -> Result<()> {
    let mut key = after >> COOKIE_LOW_BITS;
    let mut order = env::Vec::with_capacity(RECORDS_MAX)?;
    let mut name = [0; NAME_MAX];
    // The key grows from leaf to leaf, so this ends.
    while key < KEY_END {
        let leaf = leaf_of(media, raw, at, key)?;
        order.clear();
        leaf.scan(media, &mut |record, _| {
            if !record.is_free() && record.cookie > after {
                // Offsets are below the size of a block.
                order.push((record.cookie, record.offset as u16))?;
            }
            Ok(())
        })?;
        sort_by_key(&mut order, |&(cookie, _)| cookie);
        for &(_, offset) in order.iter() {
            let record = leaf.record(media, usize::from(offset), &mut name)?;
            let entry = DirEntryRef {
                name: &name[..record.name_len],
                ino: record.ino,
                file_type: record.file_type,
                cookie: record.cookie,
            };
            if !emit(&entry) {
                return Ok(());
            }
        }
        key = leaf.keys.1;
    }
    Ok(())
}

/// A run of adjacent free records.
#[derive(Clone, Copy, Default)]
struct Gap {
    offset: usize,
    len: usize,
}

/// What an insertion needs to know of a leaf.
#[derive(Default)]
struct Survey {
    /// The name is there already.
    exists: bool,
    /// The first run of free records that the name fits in.
    gap: Option<Gap>,
    /// Bytes that names could use if the leaf were compacted.
    spare: usize,
    /// Numbers taken by names of the same hash.
    numbers: u128,
}

impl Survey {
    /// Surveys `leaf` for `name`.
    fn new<P: Pmem>(media: &Media<'_, P>, leaf: &Leaf, name: &Name<'_>) -> Result<Survey> {
        let need = needed(name.bytes.len());
        let mut survey = Survey::default();
        let mut gap = Gap::default();
        leaf.scan(media, &mut |record, bytes| {
            survey.spare += record.spare();
            if record.is_free() {
                if gap.offset + gap.len != record.offset {
                    gap = Gap {
                        offset: record.offset,
                        len: 0,
                    };
                }
                gap.len += record.len;
                // Up to here; what follows may make it longer.
                match &mut survey.gap {
                    Some(best) if best.offset == gap.offset => *best = gap,
                    None if gap.len >= need => survey.gap = Some(gap),
                    _ => {}
                }
            } else if record.hash() == name.hash {
                survey.exists |= bytes == name.bytes;
                let number = record.cookie & ((1 << COOKIE_LOW_BITS) - 1);
                // A leaf has fewer names than this has bits, so one is always free.
                survey.numbers |= 1u128.checked_shl(number as u32).unwrap_or(0);
            }
            Ok(())
        })?;
        Ok(survey)
    }

    /// Where in `leaf`, which was surveyed, `name` goes, if it fits.
    fn slot<'a>(&self, leaf: &Leaf, name: &Name<'a>) -> Option<Slot<'a>> {
        Some(Slot {
            name: *name,
            leaf: *leaf,
            gap: self.gap?,
            cookie: (name.hash << COOKIE_LOW_BITS) | u64::from(self.numbers.trailing_ones()),
        })
    }
}

const _: () = assert!(leaf::ROOM / (HEAD + 8) < u128::BITS as usize);

/// The place of a name that is to be inserted: what [`prepare`] hands out. It is good while nothing
/// else is inserted into the directory.
pub struct Slot<'a> {
    name: Name<'a>,
    leaf: Leaf,
    gap: Gap,
    cookie: u64,
}

/// Logs the name of `slot` for inode `ino` of type `file_type`.
pub fn insert<P: Pmem>(tx: &mut Tx<'_, P>, slot: &Slot<'_>, ino: u64, file_type: u8) -> Result<()> {
    let name = slot.name.bytes;
    let need = needed(name.len());
    let rest = slot.gap.len - need;
    let len = if rest < HEAD { slot.gap.len } else { need };
    let mut bytes = [0; HEAD + NAME_MAX.next_multiple_of(8) + HEAD];
    let record = head(len, name, file_type, ino, slot.cookie);
    bytes[..HEAD].copy_from_slice(record.as_bytes());
    bytes[HEAD..HEAD + name.len()].copy_from_slice(name);
    let mut end = need;
    if len < slot.gap.len {
        bytes[end..end + HEAD].copy_from_slice(free_head(rest).as_bytes());
        end += HEAD;
    }
    tx.write(slot.leaf.at() + slot.gap.offset as u64, &bytes[..end])
}

/// Logs that the name of `entry` now means inode `ino` of type `file_type`. Its cookie stays.
pub fn replace<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    entry: &Entry,
    ino: u64,
    file_type: u8,
) -> Result<()> {
    let mut name = [0; NAME_MAX];
    let record = entry.leaf.record(media, entry.record.offset, &mut name)?;
    let new = head(
        record.len,
        &name[..record.name_len],
        file_type,
        ino,
        record.cookie,
    );
    log_head(tx, media, entry, &new)
}

/// Logs the removal of `entry` from the directory `raw`, with its leaf if that is empty then and
/// not the first. `keep_leaf_of` is a name that the same transaction inserts, if any.
pub fn remove<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    raw: &mut RawInode,
    at: u64,
    entry: &Entry,
    keep_leaf_of: Option<&Name<'_>>,
) -> Result<()> {
    let (key, end) = entry.leaf.keys;
    let kept = keep_leaf_of.is_some_and(|name| (key..end).contains(&name.hash));
    if !entry.alone || kept || key == 0 {
        return log_head(tx, media, entry, &free_head(entry.record.len));
    }
    extent::cut(tx, media, raw, at, key, key + 1)?;
    let size = raw.size.get();
    raw.size.set(size.saturating_sub(BLOCK));
    Ok(())
}

/// Logs `new` as the head of the record of `entry`.
fn log_head<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    entry: &Entry,
    new: &super::format::Dirent,
) -> Result<()> {
    let at = entry.leaf.at() + entry.record.offset as u64;
    let old: super::format::Dirent = read_struct(media.pmem, at)?;
    tx.update(at, old.as_bytes(), new.as_bytes())
}

/// The first leaf of a new directory `ino` in `block`: its extent, and the bytes with which it
/// begins; the rest does not matter.
pub(super) fn first_leaf(ino: u64, block: u64) -> (super::format::Extent, impl AsRef<[u8]>) {
    let leaf = Leaf {
        block,
        owner: ino,
        keys: (0, KEY_END),
    };
    let extent = extent::pack(Mapping {
        key: 0,
        block,
        len: 1,
    });
    (extent, leaf.empty())
}

/// Pre-writes the first leaf of a new directory `ino` into `block`, and returns its extent.
pub fn init<P: Pmem>(tx: &mut Tx<'_, P>, ino: u64, block: u64) -> Result<super::format::Extent> {
    let (extent, bytes) = first_leaf(ino, block);
    tx.init(block * BLOCK, bytes.as_ref())?;
    Ok(extent)
}
