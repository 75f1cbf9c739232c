// SPDX-License-Identifier: GPL-2.0

//! Making room for a name: compaction and split of a leaf, each a separate transaction that changes
//! no name and no cookie.

use zerocopy::IntoBytes;

use super::known::Known;
use super::leaf::{needed, Image, Leaf, Record, LEAF, RECORDS_MAX, RECORD_MAX};
use super::{leaf_of, sort_by_key, Name, Slot};
use crate::env;
use crate::volume::alloc::Want;
use crate::volume::error::{Error, Result};
use crate::volume::extent::{self, Mapping, Media};
use crate::volume::format::{BLOCK, COOKIE_LOW_BITS};
use crate::volume::inode::{Inode, WHOLE};
use crate::volume::journal::Tx;
use crate::volume::pmem::Pmem;
use crate::volume::Volume;

/// A leaf that gains this much is compacted, otherwise it is split: a nearly full leaf would be
/// compacted again and again.
const COMPACT: usize = LEAF / 4;
/// A split leaves at least half a leaf free if it can, and then one compaction makes room for any
/// name. Names of one hash cannot be separated, and may need more rounds.
const ROUNDS: usize = 8;

/// Finds the place for `name` in the directory, making room if there is none.
///
/// Fails with [`Error::Exists`] if the name is there, and with [`Error::NoSpace`] if there is no
/// block for a leaf, or if the leaf is full of names with this very hash.
#[inline(never)]
pub fn prepare<'a, P: Pmem>(vol: &Volume<P>, dir: &mut Inode, name: &Name<'a>) -> Result<Slot<'a>> {
    let media = Media::of(vol);
    let need = needed(name.bytes.len());
    for _ in 0..ROUNDS {
        let leaf = leaf_of(&media, dir, name.hash)?;
        let known = dir.leaves.get(&media, &leaf)?;
        if let Some(gap) = known.gap(need) {
            let cookie = cookie(&media, &leaf, known, name)?;
            return Ok(Slot {
                name: *name,
                leaf,
                gap,
                cookie,
            });
        }
        // A name that exists must not cost a split.
        cookie(&media, &leaf, known, name)?;
        let fits = known.spare >= need;
        if fits && known.spare >= COMPACT {
            compact(vol, &media, dir, &leaf)?;
            continue;
        }
        match split(vol, &media, dir, &leaf) {
            Err(Error::NoSpace) if fits => compact(vol, &media, dir, &leaf)?,
            result => result?,
        }
    }
    Err(Error::NoSpace)
}

/// The cookie of `name`, which is to be inserted into `leaf`.
///
/// Fails with [`Error::Exists`] if the name is there.
#[inline(never)]
fn cookie<P: Pmem>(
    media: &Media<'_, P>,
    leaf: &Leaf,
    known: &Known,
    name: &Name<'_>,
) -> Result<u64> {
    // Numbers taken by names of the same hash.
    let mut numbers = 0u128;
    for place in known.names.all(name.hash) {
        let offset = usize::from(place.offset);
        if leaf.matches(media, offset, name.bytes)?.is_some() {
            return Err(Error::Exists);
        }
        let record = leaf.record(media, offset, &mut [0; RECORD_MAX])?;
        let number = record.cookie & ((1 << COOKIE_LOW_BITS) - 1);
        // A leaf has fewer names than this has bits, so one is always free.
        numbers |= 1u128.checked_shl(number as u32).unwrap_or(0);
    }
    Ok((name.hash << COOKIE_LOW_BITS) | u64::from(numbers.trailing_ones()))
}

/// Moves the names of a leaf together, so that its free space is one record.
// Not inlined, as `split`: most names need neither, and the kernel's stack is small.
#[inline(never)]
fn compact<P: Pmem>(
    vol: &Volume<P>,
    media: &Media<'_, P>,
    dir: &mut Inode,
    leaf: &Leaf,
) -> Result<()> {
    let old = leaf.load(media)?;
    let mut image = Image::new(leaf)?;
    leaf.scan(&old, &mut |record| {
        if !record.is_free() {
            image.add(&old, record);
        }
        Ok(())
    })?;
    dir.leaves.forget(leaf.block);
    let mut tx = vol.begin()?;
    let (_, new) = image.finish();
    tx.update(leaf.at(), &old[..new.len()], new)?;
    tx.commit()
}

/// Moves the names from a hash in the middle on into a new leaf.
#[inline(never)]
fn split<P: Pmem>(
    vol: &Volume<P>,
    media: &Media<'_, P>,
    dir: &mut Inode,
    leaf: &Leaf,
) -> Result<()> {
    let key = middle(dir.leaves.get(media, leaf)?, leaf)?;
    let old = leaf.load(media)?;
    extent::make_room(vol, dir, key, 1)?;

    let mut tx = vol.begin()?;
    let right = Leaf {
        block: tx.alloc(Want::blocks(1))?.block,
        keys: (key, leaf.keys.1),
        ..*leaf
    };
    let mut image = Image::new(&right)?;
    let (mut left_known, mut right_known) = (Known::new(), Known::new());
    // In the old leaf, each run of records that are free now becomes one. The rest stays in place.
    let mut run = Run::default();
    leaf.scan(&old, &mut |record| {
        if !record.is_free() && record.hash() < key {
            run.log(&mut tx, leaf, &mut left_known)?;
            return Ok(left_known.note(record)?);
        }
        if !record.is_free() {
            right_known.note(&image.add(&old, record))?;
            run.changed = true;
        }
        if run.len == 0 {
            run.offset = record.offset;
        }
        run.len += record.len;
        Ok(())
    })?;
    run.log(&mut tx, leaf, &mut left_known)?;
    let (free, bytes) = image.finish();
    if let Some(free) = free {
        right_known.note(&free)?;
    }
    tx.init(right.at(), bytes)?;

    let before = dir.before::<WHOLE>();
    let mapping = Mapping::new(key, right.block, 1);
    dir.leaves.forget(leaf.block);
    let result = extent::insert(&mut tx, media, dir, mapping, &[], false).and_then(|edited| {
        dir.raw.size.set(dir.raw.size.get().saturating_add(BLOCK));
        dir.log_change(&mut tx, &before)?;
        tx.commit()?;
        dir.keep(edited);
        Ok(())
    });
    match result {
        Ok(()) => {
            dir.leaves.set(leaf.block, left_known);
            dir.leaves.set(right.block, right_known);
        }
        Err(_) => dir.restore(&before),
    }
    result
}

/// Adjacent records of a leaf that are free after a split.
#[derive(Default)]
struct Run {
    offset: usize,
    len: usize,
    /// One of them was not free before.
    changed: bool,
}

impl Run {
    /// Makes the run one free record, unless it is empty, and forgets it.
    fn log<P: Pmem>(&mut self, tx: &mut Tx<'_, P>, leaf: &Leaf, known: &mut Known) -> Result<()> {
        let run = core::mem::take(self);
        if run.len == 0 {
            return Ok(());
        }
        if run.changed {
            let head = leaf.free_head(run.len);
            tx.write(leaf.at() + run.offset as u64, head.as_bytes())?;
        }
        Ok(known.note(&Record::free(run.offset, run.len))?)
    }
}

/// The hash at which to split `leaf`, of which `known` is cached: the middle of its keys if that
/// divides the names well, as it does for evenly spread hashes, otherwise [`median`].
fn middle(known: &Known, leaf: &Leaf) -> Result<u64> {
    let middle = leaf.keys.0 + (leaf.keys.1 - leaf.keys.0) / 2;
    let (mut below, mut total) = (0, 0);
    for (hash, place) in known.names.iter() {
        total += usize::from(place.len);
        if hash < middle {
            below += usize::from(place.len);
        }
    }
    if (total / 4..=total - total / 4).contains(&below) && below > 0 && below < total {
        return Ok(middle);
    }
    let mut names = env::Vec::with_capacity(RECORDS_MAX)?;
    for (hash, place) in known.names.iter() {
        names.push((hash, usize::from(place.len)))?;
    }
    median(&mut names)
}

/// The hash that divides the names most evenly by their bytes. Sorts `names`, hashes and bytes.
///
/// Fails with [`Error::NoSpace`] if all have the same hash.
fn median(names: &mut [(u64, usize)]) -> Result<u64> {
    sort_by_key(names, |name| name.0);
    let total: usize = names.iter().map(|name| name.1).sum();
    let mut best: Option<(usize, u64)> = None;
    let mut below = 0;
    let mut before = None;
    for &(hash, bytes) in names.iter() {
        if before.is_some_and(|before| before < hash) {
            let off = total.abs_diff(2 * below);
            if best.is_none_or(|(least, _)| off < least) {
                best = Some((off, hash));
            }
        }
        before = Some(hash);
        below += bytes;
    }
    best.map(|(_, hash)| hash).ok_or(Error::NoSpace)
}
