// SPDX-License-Identifier: GPL-2.0

//! Directories: names in leaves, found by hash, listed by cookie.
//!
//! The directory's extent tree refers to the leaves by their smallest hash; a name is in the leaf
//! with the greatest key not above its hash. The leaf with key 0 always exists; any other holds at
//! least one name, and is freed in the transaction that removes its last one.
//!
//! To insert a name, a transaction logs only its record and the head of the rest of the free space
//! it took. Anything more expensive, a split or a compaction, is done before in a separate
//! transaction that changes no name ([`prepare`]).
//!
//! Callers are the operations of `namespace.rs`, which hold the directory: shared for functions
//! with `&Inode`, exclusive for those that log, until the transaction is committed.

mod known;
pub mod leaf;
mod split;

use zerocopy::IntoBytes;

use super::error::{Error, Result};
use super::extent::{self, Mapping, Media, KEY_END};
use super::format::{BLOCK, COOKIE_LOW_BITS, KEY_BITS, NAME_MAX};
use super::inode::Inode;
use super::journal::Tx;
use super::pmem::{read_struct, Pmem};
use super::Volume;
use crate::env;
use known::{Gap, Place};
use leaf::{needed, Leaf, Record, HEAD, RECORD_MAX};

pub use known::Leaves;
pub use split::prepare;

/// A name to look up, with its hash.
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

/// What a directory says about a name.
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

impl Entry {
    /// The address of its record.
    pub fn at(&self) -> u64 {
        self.leaf.at().saturating_add(self.record.offset as u64)
    }
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

/// The leaf where names of hash `hash` belong in the directory `dir`.
fn leaf_of<P: Pmem>(media: &Media<'_, P>, dir: &mut Inode, hash: u64) -> Result<Leaf> {
    let found = extent::lookup(media, Some(&mut dir.nodes), &dir.raw, dir.at, hash)?;
    Leaf::found(&found, dir, media.geo.seed)
}

/// Finds `name` in the directory `dir`.
#[inline(never)]
pub fn find<P: Pmem>(
    media: &Media<'_, P>,
    dir: &mut Inode,
    name: &Name<'_>,
) -> Result<Option<Entry>> {
    let leaf = leaf_of(media, dir, name.hash)?;
    let known = dir.leaves.get(media, &leaf)?;
    for place in known.names.all(name.hash) {
        if let Some(record) = leaf.matches(media, usize::from(place.offset), name.bytes)? {
            return Ok(Some(Entry {
                ino: record.ino,
                file_type: record.file_type,
                leaf,
                record,
                alone: known.names.len() == 1,
            }));
        }
    }
    Ok(None)
}

/// Whether the directory holds no name.
pub fn is_empty<P: Pmem>(media: &Media<'_, P>, dir: &mut Inode) -> Result<bool> {
    let leaf = leaf_of(media, dir, 0)?;
    // A leaf other than the first holds a name.
    Ok(leaf.keys.1 == KEY_END && dir.leaves.is_empty(media, &leaf)?)
}

/// Sorts the contents of one leaf, by insertion: a few dozen records, often nearly in order. (The
/// kernel's objtool does not follow the panics in the sorts of `core`.)
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

/// How many names are listed at a time.
const LISTED: usize = 32;

/// The next names of a directory, in the order of their cookies: where they are. Valid while no
/// name is added or removed.
pub struct Listing {
    leaf: Leaf,
    /// Their cookies are not below this.
    from: u64,
    places: [Place; LISTED],
    /// How many there are.
    count: usize,
    /// There are more names in the leaf.
    more: bool,
}

/// The names of the directory `dir` with a cookie of `from` or above: the first of them.
pub fn list<P: Pmem>(media: &Media<'_, P>, dir: &mut Inode, from: u64) -> Result<Option<Listing>> {
    let key = from >> COOKIE_LOW_BITS;
    if key >= KEY_END {
        return Ok(None);
    }
    let leaf = leaf_of(media, dir, key)?;
    let mut places = [Place::default(); LISTED];
    let all = dir.leaves.list(media, &leaf, from, &mut places)?;
    Ok(Some(Listing {
        leaf,
        from,
        places,
        count: all.min(LISTED),
        more: all > LISTED,
    }))
}

impl Listing {
    /// Shows the names to `emit` until it returns false. Returns where the next listing begins, if
    /// all were shown and there may be more.
    pub fn show<P: Pmem>(
        &self,
        vol: &Volume<P>,
        emit: &mut dyn FnMut(&DirEntryRef<'_>) -> bool,
    ) -> Result<Option<u64>> {
        let media = Media::of(vol);
        let mut from = self.from;
        let mut buffer = [0; RECORD_MAX];
        for place in self.places.iter().take(self.count) {
            let (offset, len) = (usize::from(place.offset), usize::from(place.len));
            let bytes = &mut buffer[..len.min(RECORD_MAX)];
            let record = self.leaf.record(&media, offset, bytes)?;
            if record.is_free() || record.cookie < from {
                return Err(self.leaf.corrupt(offset));
            }
            from = record.cookie + 1;
            let entry = DirEntryRef {
                name: &bytes[HEAD..HEAD + record.name_len],
                ino: record.ino,
                file_type: record.file_type,
                cookie: record.cookie,
            };
            if !emit(&entry) {
                return Ok(None);
            }
        }
        let end = self.leaf.keys.1;
        Ok(match self.more {
            true => Some(from),
            false => (end < KEY_END).then_some(end << COOKIE_LOW_BITS),
        })
    }
}

const _: () = assert!(leaf::ROOM / (HEAD + 8) < u128::BITS as usize);

/// The place for a name that is to be inserted: the result of [`prepare`]. Valid while nothing else
/// is inserted into the directory.
pub struct Slot<'a> {
    name: Name<'a>,
    leaf: Leaf,
    gap: Gap,
    cookie: u64,
}

impl Slot<'_> {
    /// Bytes of the record, and of the free record that is left of its gap.
    fn record(&self) -> (usize, usize) {
        let need = needed(self.name.bytes.len());
        match self.gap.len - need {
            rest if rest < HEAD => (self.gap.len, 0),
            rest => (need, rest),
        }
    }
}

/// Logs the name of `slot` for inode `ino` of type `file_type`. After the commit, call
/// [`inserted`].
pub fn insert<P: Pmem>(tx: &mut Tx<'_, P>, slot: &Slot<'_>, ino: u64, file_type: u8) -> Result<()> {
    let name = slot.name.bytes;
    let (len, rest) = slot.record();
    let head = slot.leaf.new_head(len, name, file_type, ino, slot.cookie);
    let at = slot.leaf.at() + slot.gap.offset as u64;
    let tail = slot.leaf.free_head(rest);
    let tail = if rest > 0 { tail.as_bytes() } else { &[] };
    tx.write_name(at, head.as_bytes(), name, tail)
}

/// Logs that the name of `entry` now means inode `ino` of type `file_type`. Its cookie stays.
pub fn replace<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    entry: &Entry,
    ino: u64,
    file_type: u8,
) -> Result<()> {
    let mut bytes = [0; RECORD_MAX];
    let record = entry.leaf.record(media, entry.record.offset, &mut bytes)?;
    let new = entry.leaf.new_head(
        record.len,
        &bytes[HEAD..HEAD + record.name_len],
        file_type,
        ino,
        record.cookie,
    );
    log_head(tx, media, entry, &new)
}

/// Whether the leaf of `entry` is removed with it: it is empty then, and not the first.
/// `keep_leaf_of` is a name that the same transaction inserts, if any.
pub fn takes_leaf(entry: &Entry, keep_leaf_of: Option<&Name<'_>>) -> bool {
    let (key, end) = entry.leaf.keys;
    let kept = keep_leaf_of.is_some_and(|name| (key..end).contains(&name.hash));
    entry.alone && !kept && key != 0
}

/// Logs the removal of `entry` from the directory `dir`, with its leaf if [`takes_leaf`]: that
/// changes the root of its tree. After the commit, call [`removed`].
pub fn remove<P: Pmem>(
    tx: &mut Tx<'_, P>,
    media: &Media<'_, P>,
    dir: &mut Inode,
    entry: &Entry,
    keep_leaf_of: Option<&Name<'_>>,
) -> Result<()> {
    if !takes_leaf(entry, keep_leaf_of) {
        return log_head(tx, media, entry, &entry.leaf.free_head(entry.record.len));
    }
    let key = entry.leaf.keys.0;
    dir.leaves.forget(entry.leaf.block);
    extent::cut(tx, media, dir, (key, key + 1))?;
    let size = dir.raw.size.get();
    dir.raw.size.set(size.saturating_sub(BLOCK));
    Ok(())
}

/// The transaction that removes `entry` from `dir` was committed.
pub fn removed(dir: &mut Inode, entry: &Entry) {
    dir.leaves.removed(&entry.leaf, &entry.record);
}

/// The transaction that inserts the name of `slot` into `dir` was committed.
pub fn inserted(dir: &mut Inode, slot: &Slot<'_>) {
    dir.leaves.inserted(slot);
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

/// The first leaf of a new directory `ino` in `block` of a volume of this `seed`: its extent, and
/// its first bytes; the rest does not matter.
pub(super) fn first_leaf(
    seed: u32,
    ino: u64,
    block: u64,
) -> (super::format::Extent, impl AsRef<[u8]>) {
    let leaf = Leaf {
        block,
        owner: ino,
        keys: (0, KEY_END),
        seed,
    };
    let extent = extent::pack(Mapping::new(0, block, 1));
    (extent, leaf.empty())
}

/// Pre-writes the first leaf of a new directory `ino` into `block`, and returns its extent.
pub fn init<P: Pmem>(tx: &mut Tx<'_, P>, ino: u64, block: u64) -> Result<super::format::Extent> {
    let (extent, bytes) = first_leaf(tx.seed(), ino, block);
    tx.init(block * BLOCK, bytes.as_ref())?;
    Ok(extent)
}
