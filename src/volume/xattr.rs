// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: names with values that an inode carries.
//!
//! An inode that has some names one block, in which are all their names and the small values. A
//! large value has blocks of its own, which are written once: another value gets other blocks. What
//! is in the one block changes in the transaction, so that setting, replacing and removing are
//! atomic. Prefixes ("user.") are part of the names, and mean nothing here.
//!
//! Callers hold the inode as for any operation of the volume.

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
/// Bytes that names and small values have, with the header.
const SET_MAX: usize = to_usize(BLOCK);

/// A name and a value.
pub type Xattr<'a> = (&'a [u8], &'a [u8]);

/// What an attribute that is to be set has to be before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// There or not.
    Whatever,
    /// Not there, else the error is [`Error::Exists`].
    BeNew,
    /// There, else the error is [`Error::NoXattr`].
    Exist,
}

/// A record, taken apart.
struct Record<'a> {
    /// All its bytes.
    bytes: &'a [u8],
    head: XattrRecord,
    name: &'a [u8],
    /// The value with its padding, or the runs that have it.
    body: &'a [u8],
}

/// Takes the first record off `rest`. `None` if that is none.
fn next<'a>(rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let (head, tail) = XattrRecord::read_from_prefix(rest).ok()?;
    let name_len = usize::from(head.name_len);
    match usize::from(head.runs) {
        0 if head.value_len() <= XATTR_INLINE_MAX => {}
        1..=XATTR_RUNS_MAX => {}
        _ => return None,
    }
    let body_len = head.body_len();
    let name = tail.get(..name_len)?;
    let padded = name_len.next_multiple_of(8);
    let body = tail.get(padded..padded + body_len)?;
    let bytes = rest.get(..HEAD + padded + body_len)?;
    *rest = rest.get(bytes.len()..)?;
    Some(Record {
        bytes,
        head,
        name,
        body,
    })
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

/// The extended attributes of an inode, read and checked.
struct Set {
    /// Byte address of their block; 0 if there are none.
    at: u64,
    /// The bytes in use, header and records.
    bytes: Vec<u8>,
}

impl Set {
    /// The error for attributes that cannot be as they are.
    fn corrupt(&self) -> Error {
        Error::Corrupt {
            what: Structure::Xattr,
            at: self.at,
        }
    }

    /// Calls `each` with every record, until it returns false.
    fn each<'a>(&'a self, each: &mut dyn FnMut(Record<'a>) -> Result<bool>) -> Result<()> {
        let mut rest = self.bytes.get(HEADER..).unwrap_or(&[]);
        while !rest.is_empty() {
            if !each(next(&mut rest).ok_or(self.corrupt())?)? {
                break;
            }
        }
        Ok(())
    }

    /// The record of `name`.
    fn find(&self, name: &[u8]) -> Result<Option<Record<'_>>> {
        let mut found = None;
        self.each(&mut |record| {
            if record.name == name {
                found = Some(record);
            }
            Ok(found.is_none())
        })?;
        Ok(found)
    }
}

/// Appends `bytes`, and zeros up to a multiple of 8.
fn append(set: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    set.extend_from_slice(bytes)?;
    let padding = bytes.len().next_multiple_of(8) - bytes.len();
    Ok(set.extend_from_slice(&[0; 8][..padding])?)
}

/// Appends the record of an attribute. A large value goes to blocks of its own now, which `raw` has
/// then.
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
        // The longest does not fit, and is zero.
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

/// Room for a header, and records after it.
fn blank() -> Result<Vec<u8>> {
    let mut set = Vec::with_capacity(SET_MAX)?;
    set.extend_from_slice(&[0; HEADER])?;
    Ok(set)
}

/// Completes the header of `set`, room for it and the records of the inode `raw`, in block `block`
/// of a volume of this `seed`.
pub fn seal(set: &mut [u8], raw: &RawInode, block: u64, seed: u32) {
    let mut header = XattrHeader {
        crc: U32::ZERO,
        magic: U32::new(XATTR_MAGIC),
        owner: raw.ino,
        block: U64::new(block),
        generation: raw.generation,
        len: U32::new(to_u32(set.len())),
    };
    set[..HEADER].copy_from_slice(header.as_bytes());
    header.crc = U32::new(crc_of(seed, set));
    set[..HEADER].copy_from_slice(header.as_bytes());
}

/// Gives `set`, a header and records, a block of its own; `raw`, whose number and generation are
/// set, names it.
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
    let mut set = blank()?;
    for xattr in xattrs {
        add(tx, raw, &mut set, *xattr)?;
    }
    attach(tx, raw, &mut set)
}

impl<P: Pmem> Volume<P> {
    /// Reads the extended attributes of `inode`.
    fn xattrs(&self, inode: &Inode) -> Result<Set> {
        let block = inode.raw.xattr_block.get();
        let mut set = Set {
            at: 0,
            bytes: Vec::new(),
        };
        if block == 0 {
            return Ok(set);
        }
        set.at = block.saturating_mul(BLOCK);
        if !self.geo.is_data(block, 1) {
            return Err(set.corrupt());
        }
        let header: XattrHeader = read_struct(&self.pmem, set.at)?;
        let len = header.len.get() as usize;
        if header.magic.get() != XATTR_MAGIC
            || header.owner != inode.raw.ino
            || header.block.get() != block
            || header.generation != inode.raw.generation
            || !(HEADER..=SET_MAX).contains(&len)
        {
            return Err(set.corrupt());
        }
        set.bytes = Vec::zeroed(len)?;
        self.pmem.read(set.at, &mut set.bytes)?;
        if header.crc.get() != crc_of(self.geo.seed, &set.bytes) {
            return Err(set.corrupt());
        }
        Ok(set)
    }

    /// Returns how many bytes the value of attribute `name` has, and copies it to the start of
    /// `buf` if it fits there.
    ///
    /// Fails with [`Error::NoXattr`], and with [`Error::Corrupt`].
    pub fn get_xattr(&self, inode: &Inode, name: &[u8], buf: &mut [u8]) -> Result<usize> {
        let set = self.xattrs(inode)?;
        let record = set.find(name)?.ok_or(Error::NoXattr)?;
        let len = record.head.value_len();
        let Some(buf) = buf.get_mut(..len) else {
            return Ok(len);
        };
        if record.head.runs == 0 {
            buf.copy_from_slice(&record.body[..len]);
            return Ok(len);
        }
        let mut done = 0;
        for (run, part) in record.runs() {
            if run.unwritten || !self.geo.is_data(run.block, run.len) {
                return Err(set.corrupt());
            }
            self.pmem
                .read(run.block * BLOCK, &mut buf[done..done + part])?;
            done += part;
        }
        if done != len || record.head.value_crc.get() != crc32c(0, buf) {
            return Err(set.corrupt());
        }
        Ok(len)
    }

    /// Calls `each` with the name of every attribute.
    pub fn list_xattrs(&self, inode: &Inode, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.xattrs(inode)?.each(&mut |record| {
            each(record.name);
            Ok(true)
        })
    }

    /// Gives attribute `name` the value `value`, or removes it if that is `None`, and changes what
    /// `set` says of the inode, all in one transaction. The name has 1 to 255 bytes, the value up
    /// to
    /// [`XATTR_VALUE_MAX`].
    ///
    /// Fails with [`Error::NoSpace`] also where the names and small values of the inode would take
    /// more than one block, and as `must` says.
    pub fn set_xattr(
        &self,
        inode: &mut Inode,
        name: &[u8],
        value: Option<&[u8]>,
        must: Must,
        set: &SetAttr,
    ) -> Result<()> {
        let old = self.xattrs(inode)?;
        match (must, old.find(name)?.is_some()) {
            (Must::BeNew, true) => return Err(Error::Exists),
            (Must::Exist, false) => return Err(Error::NoXattr),
            _ => {}
        }
        let before = inode.before();
        set.apply(&mut inode.raw);
        let result = self.replace_xattr(inode, &before, &old, (name, value));
        if result.is_err() {
            inode.restore(&before);
        }
        result
    }

    fn replace_xattr(
        &self,
        inode: &mut Inode,
        before: &Before<FIELDS>,
        old: &Set,
        (name, value): (&[u8], Option<&[u8]>),
    ) -> Result<()> {
        let raw = &mut inode.raw;
        let mut new = blank()?;
        let mut tx = self.begin()?;
        old.each(&mut |record| {
            if record.name == name {
                free_runs(&mut tx, raw, &record)?;
            } else {
                new.extend_from_slice(record.bytes)?;
            }
            Ok(true)
        })?;
        if let Some(value) = value {
            add(&mut tx, raw, &mut new, (name, value))?;
        }
        let block = raw.xattr_block.get();
        match (block, new.len() > HEADER) {
            (0, false) => {}
            (0, true) => attach(&mut tx, raw, &mut new)?,
            (_, false) => free_block(&mut tx, raw)?,
            (_, true) => {
                seal(&mut new, raw, block, self.geo.seed);
                let mut media = Vec::zeroed(new.len())?;
                self.pmem.read(old.at, &mut media)?;
                tx.update(old.at, &media, &new)?;
            }
        }
        inode.log_change(&mut tx, before)?;
        tx.commit()
    }

    /// Frees all attributes of `inode`, which has no name and no user, in a transaction of their
    /// own.
    pub(super) fn free_xattrs(&self, inode: &mut Inode) -> Result<()> {
        if inode.raw.xattr_block.get() == 0 {
            return Ok(());
        }
        let set = self.xattrs(inode)?;
        let before = inode.before::<FIELDS>();
        let result = self.begin().and_then(|mut tx| {
            set.each(&mut |record| {
                free_runs(&mut tx, &mut inode.raw, &record)?;
                Ok(true)
            })?;
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

/// Frees the blocks that the value of `record` has of its own.
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
