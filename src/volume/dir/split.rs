// SPDX-License-Identifier: GPL-2.0

//! Making room for a name: compaction and split of a leaf, each a transaction of its own that
//! changes no name and no cookie.

use super::leaf::{needed, Image, Leaf, Record, LEAF, RECORDS_MAX};
use super::{leaf_of, sort_by_key, Name, Slot, Survey};
use crate::env;
use crate::volume::alloc::Want;
use crate::volume::error::{Error, Result};
use crate::volume::extent::{self, Mapping, Media};
use crate::volume::format::BLOCK;
use crate::volume::inode::Inode;
use crate::volume::pmem::Pmem;
use crate::volume::Volume;

/// A leaf with this much to gain is compacted, one with less is split: a leaf that is nearly full
/// would be compacted again and again.
const COMPACT: usize = LEAF / 4;
/// A split leaves half a leaf free at least if it can, and then one compaction makes room for any
/// name; names of one hash, which cannot be parted, may take some more rounds.
const ROUNDS: usize = 8;

/// Finds the place for `name` in the directory, making room if there is none.
///
/// Fails with [`Error::Exists`] if the name is there, and with [`Error::NoSpace`] if there is no
/// block for a leaf, or if the leaf is full of names with this very hash.
pub fn prepare<'a, P: Pmem>(vol: &Volume<P>, dir: &mut Inode, name: &Name<'a>) -> Result<Slot<'a>> {
    let media = Media::of(vol);
    for _ in 0..ROUNDS {
        let leaf = leaf_of(&media, dir.raw(), dir.at(), name.hash)?;
        let survey = Survey::new(&media, &leaf, name)?;
        if survey.exists {
            return Err(Error::Exists);
        }
        if let Some(slot) = survey.slot(&leaf, name) {
            return Ok(slot);
        }
        let fits = survey.spare >= needed(name.bytes.len());
        if fits && survey.spare >= COMPACT {
            compact(vol, &media, &leaf)?;
            continue;
        }
        match split(vol, &media, dir, &leaf) {
            Err(Error::NoSpace) if fits => compact(vol, &media, &leaf)?,
            result => result?,
        }
    }
    Err(Error::NoSpace)
}

/// The bytes of a leaf and its records, verified.
fn load<P: Pmem>(media: &Media<'_, P>, leaf: &Leaf) -> Result<(env::Vec<u8>, env::Vec<Record>)> {
    let mut records = env::Vec::with_capacity(RECORDS_MAX)?;
    leaf.scan(media, &mut |record, _| Ok(records.push(*record)?))?;
    let mut bytes = env::Vec::zeroed(LEAF)?;
    media.pmem.read(leaf.at(), &mut bytes)?;
    Ok((bytes, records))
}

/// Appends the name of `record`, which lies in `old`, to `image`.
fn move_to(image: &mut Image, old: &[u8], record: &Record) {
    image.push(
        needed(record.name_len),
        record.name(old),
        record.file_type,
        record.ino,
        record.cookie,
    );
}

/// Moves the names of a leaf together, so that its free space is one record.
// Not inlined, as `split`: most names need neither, and the kernel's stack is small.
#[inline(never)]
fn compact<P: Pmem>(vol: &Volume<P>, media: &Media<'_, P>, leaf: &Leaf) -> Result<()> {
    let (old, records) = load(media, leaf)?;
    let mut image = Image::new(leaf)?;
    for record in records.iter().filter(|r| !r.is_free()) {
        move_to(&mut image, &old, record);
    }
    let mut tx = vol.begin()?;
    tx.update(leaf.at(), &old, image.finish())?;
    tx.commit()
}

/// Moves the names from the median hash on into a new leaf.
#[inline(never)]
fn split<P: Pmem>(
    vol: &Volume<P>,
    media: &Media<'_, P>,
    dir: &mut Inode,
    leaf: &Leaf,
) -> Result<()> {
    let (old, mut records) = load(media, leaf)?;
    let key = median(&mut records)?;
    extent::make_room(vol, dir, key, 1)?;

    let mut tx = vol.begin()?;
    let right = Leaf {
        block: tx.alloc(Want::blocks(1))?.block,
        keys: (key, leaf.keys.1),
        ..*leaf
    };
    let moved = |r: &Record| !r.is_free() && r.hash() >= key;
    let mut image = Image::new(&right)?;
    for record in records.iter().filter(|r| moved(r)) {
        move_to(&mut image, &old, record);
    }
    tx.init(right.at(), image.finish())?;

    // In the old leaf, each run of records that are free now becomes one. The rest stays in place.
    sort_by_key(&mut records, |r| r.offset as u64);
    let mut image = Image::new(leaf)?;
    let mut free = 0;
    for record in records.iter() {
        if record.is_free() || moved(record) {
            free += record.len;
            continue;
        }
        if free > 0 {
            image.free(&old, free);
            free = 0;
        }
        image.keep(&old, record.len);
    }
    if free > 0 {
        image.free(&old, free);
    }
    tx.update(leaf.at(), &old, image.finish())?;

    let mut raw = dir.raw().clone();
    let mapping = Mapping {
        key,
        block: right.block,
        len: 1,
    };
    extent::insert(&mut tx, media, &mut raw, dir.at(), mapping, false)?;
    raw.size.set(raw.size.get().saturating_add(BLOCK));
    dir.log(&mut tx, &mut raw)?;
    tx.commit()?;
    dir.set(raw);
    Ok(())
}

/// The hash that parts the names most evenly by their bytes. Sorts the records.
///
/// Fails with [`Error::NoSpace`] if all have the same.
fn median(records: &mut [Record]) -> Result<u64> {
    sort_by_key(records, |r| r.cookie);
    let bytes = |r: &Record| {
        if r.is_free() {
            0
        } else {
            needed(r.name_len)
        }
    };
    let total: usize = records.iter().map(bytes).sum();
    let mut best: Option<(usize, u64)> = None;
    let mut below = 0;
    let mut before = None;
    for record in records.iter().filter(|r| !r.is_free()) {
        if before.is_some_and(|hash| hash < record.hash()) {
            let off = total.abs_diff(2 * below);
            if best.is_none_or(|(least, _)| off < least) {
                best = Some((off, record.hash()));
            }
        }
        before = Some(record.hash());
        below += bytes(record);
    }
    best.map(|(_, hash)| hash).ok_or(Error::NoSpace)
}
