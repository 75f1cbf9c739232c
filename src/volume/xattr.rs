// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: names with values that an inode carries.
//!
//! An inode with attributes refers to one block, with all names and the small values. A large value
//! has its own blocks, which are written once: another value gets other blocks. The changes to the
//! one block are part of the transaction, so that setting, replacing and removing are atomic.
//! Prefixes ("user.") are part of the names, and mean nothing here.
//!
//! Callers hold the inode as for any operation of the volume.

use core::ops::Range;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::alloc::Want;
use super::error::{Error, Result, Structure};
use super::extent::{add_blocks, pack, sub_blocks, unpack, Mapping};
use super::format::{
    Extent, RawInode, XattrHeader, XattrRecord, BLOCK, NAME_MAX, XATTR_INLINE_MAX, XATTR_MAGIC,
    XATTR_RUNS_MAX, XATTR_VALUE_MAX,
};
use super::inode::{crc_of, Before, Inode, FIELDS};
use super::journal::Tx;
use super::namespace::SetAttr;
use super::num::{to_u32, to_u8, to_usize};
use super::pmem::{read_struct, Pmem};
use super::Volume;
use crate::env::{crc32c, Vec};

/// Bytes of the header, and of the head of a record.
const HEADER: usize = size_of::<XattrHeader>();
const HEAD: usize = size_of::<XattrRecord>();
/// Bytes for names and small values, including the header.
const SET_MAX: usize = to_usize(BLOCK);

/// A name and a value.
pub type Xattr<'a> = (&'a [u8], &'a [u8]);

/// The required state of an attribute before it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// Any.
    Whatever,
    /// It must not exist, otherwise the error is [`Error::Exists`].
    BeNew,
    /// It must exist, otherwise the error is [`Error::NoXattr`].
    Exist,
}

/// A record, parsed.
struct Record<'a> {
    /// Its range in the set.
    place: Range<usize>,
    head: XattrRecord,
    name: &'a [u8],
    /// The value with its padding, or the runs that hold it.
    body: &'a [u8],
}

/// The records of a set from byte `at` on, until the end, or until the rest is not valid.
struct Records<'a> {
    set: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        let rest = self.set.get(self.at..)?;
        let (head, tail) = XattrRecord::read_from_prefix(rest).ok()?;
        let name_len = usize::from(head.name_len);
        match usize::from(head.runs) {
            0 if head.value_len() <= XATTR_INLINE_MAX => {}
            1..=XATTR_RUNS_MAX => {}
            _ => return None,
        }
        let padded = name_len.next_multiple_of(8);
        let end = padded + head.body_len();
        let (name, body) = (tail.get(..name_len)?, tail.get(padded..end)?);
        let place = self.at..self.at + HEAD + end;
        self.at = place.end;
        Some(Record {
            place,
            head,
            name,
            body,
        })
    }
}

impl Record<'_> {
    /// The runs of blocks that hold the value, and how many bytes of it are in each.
    fn runs(&self) -> impl Iterator<Item = (Mapping, usize)> + '_ {
        let words = if self.head.runs == 0 { &[] } else { self.body };
        let mut left = self.head.value_len();
        words.chunks_exact(size_of::<U64>()).map(move |word| {
            let mut value = U64::ZERO;
            value.as_mut_bytes().copy_from_slice(word);
            let run = unpack(&Extent {
                key: U64::ZERO,
                value,
            });
            let len = left.min(to_usize(run.len * BLOCK));
            left -= len;
            (run, len)
        })
    }
}

/// The extended attributes of an inode, read and checked: the bytes in use of their block, header
/// and records. Empty if there are none, or nothing is cached.
#[derive(Debug, Default)]
pub(super) struct Set(Vec<u8>);

/// The error for the attributes of `raw`, which are not valid.
fn corrupt(raw: &RawInode) -> Error {
    Error::Corrupt {
        what: Structure::Xattr,
        at: raw.xattr_block.get().saturating_mul(BLOCK),
    }
}

impl Set {
    /// Whether nothing is cached.
    pub(super) fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// The records.
    fn records(&self) -> Records<'_> {
        self.records_from(HEADER)
    }

    /// The record at byte `at`, where one begins or all end, and those after it.
    fn records_from(&self, at: usize) -> Records<'_> {
        Records { set: &self.0, at }
    }

    /// Logs that the records at `place` are replaced by `record`. Returns the new header.
    fn log<P: Pmem>(
        &self,
        tx: &mut Tx<'_, P>,
        raw: &RawInode,
        place: &Range<usize>,
        record: &[u8],
    ) -> Result<XattrHeader> {
        let block = raw.xattr_block.get();
        let before = self.0.get(HEADER..place.start).unwrap_or(&[]);
        let after = self.0.get(place.end..).unwrap_or(&[]);
        let new = sealed(raw, block, tx.seed(), &[before, record, after]);
        tx.update(block * BLOCK, &self.0[..HEADER], new.as_bytes())?;
        let at = block * BLOCK + place.start as u64;
        if place.len() == record.len() {
            tx.update(at, &self.0[place.clone()], record)?;
            return Ok(new);
        }
        // The records after it move.
        for (at, bytes) in [(at, record), (at + record.len() as u64, after)] {
            if !bytes.is_empty() {
                tx.write(at, bytes)?;
            }
        }
        Ok(new)
    }

    /// The transaction that [`Set::log`] was part of is committed. There is room for the record.
    fn splice(&mut self, header: &XattrHeader, place: Range<usize>, record: &[u8]) {
        let (end, tail) = (place.start + record.len(), place.end..self.0.len());
        let len = end + tail.len();
        let more = record.get(..record.len().saturating_sub(place.len()));
        if self.0.extend_from_slice(more.unwrap_or(&[])).is_err() {
            // It is read when it is needed.
            *self = Set::default();
            return;
        }
        self.0.copy_within(tail, end);
        self.0[place.start..end].copy_from_slice(record);
        self.0.truncate(len);
        self.0[..HEADER].copy_from_slice(header.as_bytes());
    }

    /// The record of `name`.
    fn find(&self, name: &[u8]) -> Option<Record<'_>> {
        // Names of the same length often differ in their last byte.
        let is = |record: &Record<'_>| {
            record.name.len() == name.len()
                && record.name.last() == name.last()
                && record.name == name
        };
        self.records().find(is)
    }
}

/// Appends `bytes`, and zeros up to a multiple of 8.
fn append(set: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    set.extend_from_slice(bytes)?;
    let padding = bytes.len().next_multiple_of(8) - bytes.len();
    Ok(set.extend_from_slice(&[0; 8][..padding])?)
}

/// The most bytes that the record of an attribute takes.
fn record_max((name, value): Xattr<'_>) -> usize {
    let body = match value.len() {
        len if len <= XATTR_INLINE_MAX => len.next_multiple_of(8),
        _ => XATTR_RUNS_MAX * size_of::<U64>(),
    };
    HEAD + name.len().next_multiple_of(8) + body
}

/// Appends the record of an attribute. Writes a large value to its own blocks now, which `raw`
/// counts then.
fn add<P: Pmem>(
    tx: &mut Tx<'_, P>,
    raw: &mut RawInode,
    set: &mut Vec<u8>,
    (name, value): Xattr<'_>,
) -> Result<()> {
    if !(1..=NAME_MAX).contains(&name.len()) || value.len() > XATTR_VALUE_MAX {
        return Err(Error::Invalid);
    }
    let mut runs = [U64::ZERO; XATTR_RUNS_MAX];
    let mut count = 0;
    let mut crc = 0;
    if value.len() > XATTR_INLINE_MAX {
        crc = crc32c(0, value);
        let mut rest = value;
        while !rest.is_empty() {
            let run = tx.alloc(Want::blocks((rest.len() as u64).div_ceil(BLOCK)))?;
            let (part, more) = rest.split_at(rest.len().min(to_usize(run.len * BLOCK)));
            tx.init(run.block * BLOCK, part)?;
            add_blocks(raw, run.len);
            let slot = runs.get_mut(count).ok_or(Error::Invalid)?;
            *slot = pack(Mapping::new(0, run.block, run.len)).value;
            (count, rest) = (count + 1, more);
        }
    }
    let head = XattrRecord {
        // The largest does not fit, and is stored as zero.
        value_len: U16::new(u16::try_from(value.len()).unwrap_or(0)),
        name_len: to_u8(name.len()),
        runs: to_u8(count),
        value_crc: U32::new(crc),
    };
    append(set, head.as_bytes())?;
    append(set, name)?;
    match count {
        0 => append(set, value)?,
        _ => append(set, runs[..count].as_bytes())?,
    }
    if set.len() > SET_MAX {
        return Err(Error::NoSpace);
    }
    Ok(())
}

/// Room for a header, and `room` bytes of records after it.
fn blank(room: usize) -> Result<Vec<u8>> {
    let mut set = Vec::with_capacity(HEADER + room)?;
    set.extend_from_slice(&[0; HEADER])?;
    Ok(set)
}

/// The header of the attributes of the inode `raw`, in block `block` of a volume of this `seed`.
/// `records` are the pieces of their records.
fn sealed(raw: &RawInode, block: u64, seed: u32, records: &[&[u8]]) -> XattrHeader {
    let len: usize = records.iter().map(|piece| piece.len()).sum();
    let mut header = XattrHeader {
        crc: U32::ZERO,
        magic: U32::new(XATTR_MAGIC),
        owner: raw.ino,
        block: U64::new(block),
        generation: raw.generation,
        len: U32::new(to_u32(HEADER + len)),
    };
    let crc = crc_of(seed, header.as_bytes());
    header.crc = U32::new(records.iter().fold(crc, |crc, piece| crc32c(crc, piece)));
    header
}

/// Completes the header of `set`, room for it and the records of the inode `raw`, in block `block`
/// of a volume of this `seed`.
pub fn seal(set: &mut [u8], raw: &RawInode, block: u64, seed: u32) {
    let (place, records) = set.split_at_mut(HEADER);
    place.copy_from_slice(sealed(raw, block, seed, &[records]).as_bytes());
}

/// Gives `set`, a header and records, its block; `raw`, whose number and generation are set, refers
/// to it.
fn attach<P: Pmem>(tx: &mut Tx<'_, P>, raw: &mut RawInode, set: &mut [u8]) -> Result<()> {
    let block = tx.alloc(Want::blocks(1))?.block;
    seal(set, raw, block, tx.seed());
    tx.init(block * BLOCK, set)?;
    raw.xattr_block = U64::new(block);
    add_blocks(raw, 1);
    Ok(())
}

/// Gives `raw`, a new inode whose number and generation are set, its first attributes.
pub(super) fn create<P: Pmem>(
    tx: &mut Tx<'_, P>,
    raw: &mut RawInode,
    xattrs: &[Xattr<'_>],
) -> Result<()> {
    if xattrs.is_empty() {
        return Ok(());
    }
    let mut set = blank(xattrs.iter().copied().map(record_max).sum())?;
    for xattr in xattrs {
        add(tx, raw, &mut set, *xattr)?;
    }
    attach(tx, raw, &mut set)
}

impl<P: Pmem> Volume<P> {
    /// Reads and verifies the extended attributes of `inode`, unless they are cached, or there are
    /// none.
    fn read_xattrs(&self, inode: &mut Inode) -> Result<()> {
        let block = inode.raw.xattr_block.get();
        if block == 0 || !inode.xattrs.is_unknown() {
            return Ok(());
        }
        let corrupt = corrupt(&inode.raw);
        if !self.geo.is_data(block, 1) {
            return Err(corrupt);
        }
        let at = block * BLOCK;
        let header: XattrHeader = read_struct(&self.pmem, at)?;
        let len = header.len.get() as usize;
        if header.magic.get() != XATTR_MAGIC
            || header.owner != inode.raw.ino
            || header.block.get() != block
            || header.generation != inode.raw.generation
            || !(HEADER..=SET_MAX).contains(&len)
        {
            return Err(corrupt);
        }
        let mut bytes = Vec::zeroed(len)?;
        self.pmem.read(at, &mut bytes)?;
        let set = Set(bytes);
        let end = set.records().last().map_or(HEADER, |last| last.place.end);
        if header.crc.get() != crc_of(self.geo.seed, &set.0) || end != len {
            return Err(corrupt);
        }
        inode.xattrs = set;
        Ok(())
    }

    /// Returns the size of the value of attribute `name`, and copies it to the buffer that `room`
    /// returns for that size, if any.
    ///
    /// Fails with [`Error::NoXattr`], and with [`Error::Corrupt`].
    pub fn get_xattr<'b>(
        &self,
        inode: &mut Inode,
        name: &[u8],
        room: impl FnOnce(usize) -> Option<&'b mut [u8]>,
    ) -> Result<usize> {
        self.read_xattrs(inode)?;
        let record = inode.xattrs.find(name).ok_or(Error::NoXattr)?;
        let len = record.head.value_len();
        let Some(buf) = room(len).and_then(|room| room.get_mut(..len)) else {
            return Ok(len);
        };
        if record.head.runs == 0 {
            buf.copy_from_slice(record.body.get(..len).unwrap_or(&[]));
            return Ok(len);
        }
        let mut done = 0;
        for (run, part) in record.runs() {
            if run.unwritten || !self.geo.is_data(run.block, run.len) {
                return Err(corrupt(&inode.raw));
            }
            self.pmem
                .read(run.block * BLOCK, &mut buf[done..done + part])?;
            done += part;
        }
        if done != len || record.head.value_crc.get() != crc32c(0, buf) {
            return Err(corrupt(&inode.raw));
        }
        Ok(len)
    }

    /// Calls `each` with the name of every attribute.
    pub fn list_xattrs(&self, inode: &mut Inode, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.read_xattrs(inode)?;
        for record in inode.xattrs.records() {
            each(record.name);
        }
        Ok(())
    }

    /// Sets attribute `name` to `value`, or removes it if that is `None`, and changes the inode by
    /// `set`, all in one transaction. The name has 1 to 255 bytes, the value up to
    /// [`XATTR_VALUE_MAX`].
    ///
    /// Fails with [`Error::NoSpace`] also if the names and small values of the inode would take
    /// more than one block, and as `must` says.
    pub fn set_xattr(
        &self,
        inode: &mut Inode,
        name: &[u8],
        value: Option<&[u8]>,
        must: Must,
        set: &SetAttr,
    ) -> Result<()> {
        self.read_xattrs(inode)?;
        let old = inode.xattrs.find(name).map(|record| record.place);
        match (must, old.is_some()) {
            (Must::BeNew, true) => return Err(Error::Exists),
            (Must::Exist, false) => return Err(Error::NoXattr),
            _ => {}
        }
        let before = inode.before();
        set.apply(&mut inode.raw);
        let result = self.replace_xattr(inode, &before, old, (name, value));
        if result.is_err() {
            inode.restore(&before);
        }
        result
    }

    /// Replaces `old`, the attribute of this name, or appends the new one.
    fn replace_xattr(
        &self,
        inode: &mut Inode,
        before: &Before<FIELDS>,
        old: Option<Range<usize>>,
        (name, value): (&[u8], Option<&[u8]>),
    ) -> Result<()> {
        let (raw, set) = (&mut inode.raw, &mut inode.xattrs);
        let mut tx = self.begin()?;
        let mut record = Vec::new();
        if let Some(value) = value {
            record.reserve(record_max((name, value)))?;
            add(&mut tx, raw, &mut record, (name, value))?;
        }
        let end = set.0.len().max(HEADER);
        let place = old.unwrap_or(end..end);
        if let Some(old) = set.records_from(place.start).next() {
            free_runs(&mut tx, raw, &old)?;
        }
        let len = end - place.len() + record.len();
        if len > SET_MAX {
            return Err(Error::NoSpace);
        }
        let block = raw.xattr_block.get();
        let mut new = Set::default();
        let mut header = None;
        match (block, len > HEADER) {
            (0, false) => {}
            (0, true) => {
                new.0 = blank(record.len())?;
                new.0.extend_from_slice(&record)?;
                attach(&mut tx, raw, &mut new.0)?;
            }
            (_, false) => free_block(&mut tx, raw)?,
            (_, true) => {
                set.0.reserve(record.len())?;
                header = Some(set.log(&mut tx, raw, &place, &record)?);
            }
        }
        inode.log_change(&mut tx, before)?;
        tx.commit()?;
        match header {
            Some(header) => inode.xattrs.splice(&header, place, &record),
            None => inode.xattrs = new,
        }
        Ok(())
    }

    /// Frees all attributes of `inode`, which has no name and no user, in a separate transaction.
    pub(super) fn free_xattrs(&self, inode: &mut Inode) -> Result<()> {
        if inode.raw.xattr_block.get() == 0 {
            return Ok(());
        }
        self.read_xattrs(inode)?;
        let before = inode.before::<FIELDS>();
        let set = core::mem::take(&mut inode.xattrs);
        let result = self.begin().and_then(|mut tx| {
            for record in set.records() {
                free_runs(&mut tx, &mut inode.raw, &record)?;
            }
            free_block(&mut tx, &mut inode.raw)?;
            inode.log_change(&mut tx, &before)?;
            tx.commit()
        });
        if result.is_err() {
            inode.restore(&before);
        }
        result
    }
}

/// Frees the blocks that the value of `record` has.
fn free_runs<P: Pmem>(tx: &mut Tx<'_, P>, raw: &mut RawInode, record: &Record<'_>) -> Result<()> {
    for (run, _) in record.runs() {
        tx.free(run.block, run.len)?;
        sub_blocks(raw, run.len);
    }
    Ok(())
}

/// Frees the block of names.
fn free_block<P: Pmem>(tx: &mut Tx<'_, P>, raw: &mut RawInode) -> Result<()> {
    tx.free(raw.xattr_block.get(), 1)?;
    raw.xattr_block = U64::ZERO;
    sub_blocks(raw, 1);
    Ok(())
}
