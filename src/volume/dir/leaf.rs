// SPDX-License-Identifier: GPL-2.0

//! One directory leaf: a header, and records that fill the block.
//!
//! Each record is verified by its own checksum, so that one can be read without the others. A name
//! may use any run of adjacent free records; the rest of the run becomes one free record.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::env;
use crate::volume::error::{Error, Result, Structure};
use crate::volume::extent::{Found, Mapping, Media, KEY_END};
use crate::volume::format::{
    record_seed, Dirent, LeafHeader, BLOCK, COOKIE_LOW_BITS, LEAF_MAGIC, NAME_MAX,
};
use crate::volume::inode::{crc_of, Inode};
use crate::volume::num::{to_u16, to_u8, to_usize};
use crate::volume::pmem::Pmem;

/// Bytes of the header of a leaf.
pub const HEADER: usize = size_of::<LeafHeader>();
/// Bytes of the head of a record, and of the smallest record.
pub const HEAD: usize = size_of::<Dirent>();
/// Bytes of a leaf.
pub const LEAF: usize = to_usize(BLOCK);
/// Bytes that records share.
pub const ROOM: usize = LEAF - HEADER;
/// Bytes of a record with the longest name, without padding.
pub const RECORD_MAX: usize = HEAD + NAME_MAX;
/// Bytes of a name that are read with its head.
const SHORT: usize = 64;
/// The most records in a leaf.
pub const RECORDS_MAX: usize = ROOM / HEAD;

/// Where a leaf is, whose it is, and which hashes it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its block.
    pub block: u64,
    /// The directory.
    pub owner: u64,
    /// The first hash, its key in the directory's tree, and the first hash of the next leaf.
    pub keys: (u64, u64),
    /// The seed of the checksums of the volume.
    pub seed: u32,
}

/// A verified record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Byte offset in the leaf.
    pub offset: usize,
    /// Bytes, padding included.
    pub len: usize,
    /// Bytes of the name.
    pub name_len: usize,
    /// `DT_*`.
    pub file_type: u8,
    /// The inode, 0 if the record is free.
    pub ino: u64,
    /// Position for readdir.
    pub cookie: u64,
}

/// Bytes that a record with a name of `name_len` bytes needs.
pub fn needed(name_len: usize) -> usize {
    HEAD + name_len.next_multiple_of(8)
}

impl Record {
    /// A free record of `len` bytes at `offset`.
    pub fn free(offset: usize, len: usize) -> Record {
        Record {
            offset,
            len,
            name_len: 0,
            file_type: 0,
            ino: 0,
            cookie: 0,
        }
    }

    /// Whether it holds no name.
    pub fn is_free(&self) -> bool {
        self.ino == 0
    }

    /// Its name, in the bytes of its leaf.
    pub fn name<'a>(&self, leaf: &'a [u8]) -> &'a [u8] {
        let from = self.offset + HEAD;
        &leaf[from..from + self.name_len]
    }

    /// The hash of its name.
    pub fn hash(&self) -> u64 {
        self.cookie >> COOKIE_LOW_BITS
    }

    /// Bytes that a name could use if the leaf were compacted.
    pub fn spare(&self) -> usize {
        if self.is_free() {
            self.len
        } else {
            self.len - needed(self.name_len)
        }
    }
}

impl Leaf {
    /// The leaf of the directory `dir`, in a volume of this `seed`, where the names of a hash
    /// belong: `found` is the lookup in its tree.
    pub fn found(found: &Found, dir: &Inode, seed: u32) -> Result<Leaf> {
        match found.floor {
            Some(Mapping {
                key,
                block,
                len: 1,
                unwritten: false,
            }) => Ok(Leaf {
                block,
                owner: dir.ino(),
                keys: (key, found.next.unwrap_or(KEY_END)),
                seed,
            }),
            // No leaf with key 0, or an extent of a file.
            _ => Err(Error::Corrupt {
                what: Structure::Inode,
                at: dir.at(),
            }),
        }
    }

    /// Byte address on the device.
    pub fn at(&self) -> u64 {
        self.block * BLOCK
    }

    /// The error for the structure `offset` bytes into the leaf.
    pub fn corrupt(&self, offset: usize) -> Error {
        Error::Corrupt {
            what: Structure::DirLeaf,
            at: self.at().saturating_add(offset as u64),
        }
    }

    /// The header of this leaf.
    pub fn header(&self) -> LeafHeader {
        let mut header = LeafHeader {
            crc: U32::ZERO,
            magic: U32::new(LEAF_MAGIC),
            owner: U64::new(self.owner),
            key: U64::new(self.keys.0),
            block: U64::new(self.block),
        };
        header.crc = U32::new(crc_of(self.seed, header.as_bytes()));
        header
    }

    /// The seed of the checksums of its records.
    #[inline]
    fn record_seed(&self) -> u32 {
        record_seed(self.seed, self.owner, self.block)
    }

    /// The head of a record of this leaf, with its checksum.
    pub fn new_head(
        &self,
        len: usize,
        name: &[u8],
        file_type: u8,
        ino: u64,
        cookie: u64,
    ) -> Dirent {
        let mut head = Dirent {
            crc: U32::ZERO,
            // At most LEAF and NAME_MAX: the callers' sizes are those of a leaf.
            rec_len: U16::new(to_u16(len)),
            name_len: to_u8(name.len()),
            file_type,
            ino: U64::new(ino),
            cookie: U64::new(cookie),
        };
        let crc = crc_of(self.record_seed(), head.as_bytes());
        head.crc = U32::new(env::crc32c(crc, name));
        head
    }

    /// The head of a free record of `len` bytes.
    pub fn free_head(&self, len: usize) -> Dirent {
        self.new_head(len, &[], 0, 0, 0)
    }

    /// The first bytes of this leaf when it is empty; the bytes after them do not matter.
    pub fn empty(&self) -> [u8; HEADER + HEAD] {
        let mut bytes = [0; HEADER + HEAD];
        bytes[..HEADER].copy_from_slice(self.header().as_bytes());
        bytes[HEADER..].copy_from_slice(self.free_head(ROOM).as_bytes());
        bytes
    }

    /// The record at `offset`, verified, if its name is `name`.
    pub fn matches<P: Pmem>(
        &self,
        media: &Media<'_, P>,
        offset: usize,
        name: &[u8],
    ) -> Result<Option<Record>> {
        let mut bytes = [0; HEAD + SHORT];
        let (first, rest) = name.split_at(name.len().min(SHORT));
        let read = (HEAD + first.len()).min(LEAF.saturating_sub(offset));
        let bytes = &mut bytes[..read];
        media.pmem.read(self.at() + offset as u64, bytes)?;
        let (head, record) = self.head(offset, bytes)?;
        if record.name_len != name.len() || bytes.get(HEAD..) != Some(first) {
            return self.other(media, offset);
        }
        let mut crc = crc_of(self.record_seed(), bytes);
        let mut at = self.at() + (offset + bytes.len()) as u64;
        let mut piece = [0; SHORT];
        for name in rest.chunks(SHORT) {
            let piece = &mut piece[..name.len()];
            media.pmem.read(at, piece)?;
            if piece != name {
                return self.other(media, offset);
            }
            crc = env::crc32c(crc, piece);
            at += piece.len() as u64;
        }
        self.verify(head, record, crc).map(Some)
    }

    /// If the record at `offset` is a name, it is another name of the same hash.
    #[inline(never)]
    fn other<P: Pmem>(&self, media: &Media<'_, P>, offset: usize) -> Result<Option<Record>> {
        self.record(media, offset, &mut [0; RECORD_MAX])?;
        Ok(None)
    }

    /// Reads and verifies the record at `offset`. Stores its head and its name in `bytes`, and need
    /// not fill it.
    pub fn record<P: Pmem>(
        &self,
        media: &Media<'_, P>,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<Record> {
        let read = bytes.len().min(LEAF.saturating_sub(offset));
        let bytes = &mut bytes[..read];
        media.pmem.read(self.at() + offset as u64, bytes)?;
        self.record_in(offset, bytes)
    }

    /// Verifies the record at `offset`, with which `bytes` begins.
    pub fn record_in(&self, offset: usize, bytes: &[u8]) -> Result<Record> {
        let (head, record) = self.head(offset, bytes)?;
        let covered = bytes.get(..HEAD + record.name_len);
        let covered = covered.ok_or(self.corrupt(offset))?;
        self.verify(head, record, crc_of(self.record_seed(), covered))
    }

    /// The head of the record at `offset`, with which `bytes` begins; the record fits the leaf.
    fn head(&self, offset: usize, bytes: &[u8]) -> Result<(Dirent, Record)> {
        let corrupt = self.corrupt(offset);
        let (head, _) = Dirent::read_from_prefix(bytes).map_err(|_| corrupt)?;
        let record = Record {
            offset,
            len: usize::from(head.rec_len.get()),
            name_len: usize::from(head.name_len),
            file_type: head.file_type,
            ino: head.ino.get(),
            cookie: head.cookie.get(),
        };
        if record.len < HEAD
            || record.len % 8 != 0
            || offset + record.len > LEAF
            || HEAD + record.name_len > record.len
        {
            return Err(corrupt);
        }
        Ok((head, record))
    }

    /// Verifies `record` with the head `head`; `crc` is its checksum.
    fn verify(&self, head: Dirent, record: Record, crc: u32) -> Result<Record> {
        let sound = if record.is_free() {
            record.name_len == 0
        } else {
            record.name_len > 0 && (self.keys.0..self.keys.1).contains(&record.hash())
        };
        if crc == head.crc.get() && sound {
            Ok(record)
        } else {
            Err(self.corrupt(record.offset))
        }
    }

    /// The record of an empty leaf, as in a new directory, verified. `None` if there are more.
    pub fn only_record<P: Pmem>(&self, media: &Media<'_, P>) -> Result<Option<Record>> {
        let mut bytes = [0; HEADER + HEAD];
        if !media.geo.is_data(self.block, 1) {
            return Err(self.corrupt(0));
        }
        media.pmem.read(self.at(), &mut bytes)?;
        self.check_header(&bytes)?;
        let (_, record) = self.head(HEADER, &bytes[HEADER..])?;
        if !record.is_free() || record.len < ROOM {
            return Ok(None);
        }
        self.record_in(HEADER, &bytes[HEADER..]).map(Some)
    }

    /// Fails unless `bytes` begin with the header of this leaf.
    fn check_header(&self, bytes: &[u8]) -> Result<()> {
        if bytes.get(..HEADER) == Some(self.header().as_bytes()) {
            Ok(())
        } else {
            Err(self.corrupt(0))
        }
    }

    /// The bytes of the leaf. Its header is verified; its records are not.
    pub fn load<P: Pmem>(&self, media: &Media<'_, P>) -> Result<env::Vec<u8>> {
        if !media.geo.is_data(self.block, 1) {
            return Err(self.corrupt(0));
        }
        let mut bytes = env::Vec::zeroed(LEAF)?;
        media.pmem.read(self.at(), &mut bytes)?;
        self.check_header(&bytes)?;
        Ok(bytes)
    }

    /// Verifies each record in `bytes`, those of the leaf, and shows it to `visit`, in the order of
    /// their offsets.
    pub fn scan(&self, bytes: &[u8], visit: &mut impl FnMut(&Record) -> Result<()>) -> Result<()> {
        let mut offset = HEADER;
        while offset < LEAF {
            let record = self.record_in(offset, bytes.get(offset..).unwrap_or(&[]))?;
            visit(&record)?;
            offset += record.len;
        }
        Ok(())
    }
}

/// The bytes of a leaf in DRAM, being assembled.
pub struct Image {
    leaf: Leaf,
    buf: env::Vec<u8>,
    /// End of the records so far.
    end: usize,
    /// Offset of the last record.
    last: usize,
}

impl Image {
    /// `leaf` without a record.
    pub fn new(leaf: &Leaf) -> Result<Image> {
        let mut buf = env::Vec::zeroed(LEAF)?;
        buf[..HEADER].copy_from_slice(leaf.header().as_bytes());
        Ok(Image {
            leaf: *leaf,
            buf,
            end: HEADER,
            last: HEADER,
        })
    }

    /// Bytes for further records.
    pub fn room(&self) -> usize {
        LEAF - self.end
    }

    /// Appends the name of `record`, which is in `old`; it must fit. Returns its new record.
    pub fn add(&mut self, old: &[u8], record: &Record) -> Record {
        let len = needed(record.name_len);
        let name = record.name(old);
        let moved = Record {
            offset: self.end,
            len,
            ..*record
        };
        self.push(len, name, record.file_type, record.ino, record.cookie);
        moved
    }

    /// Appends a record of `len` bytes, head included, which must fit.
    fn push(&mut self, len: usize, name: &[u8], file_type: u8, ino: u64, cookie: u64) {
        let head = self.leaf.new_head(len, name, file_type, ino, cookie);
        let at = self.end;
        self.buf[at..at + HEAD].copy_from_slice(head.as_bytes());
        self.buf[at + HEAD..at + HEAD + name.len()].copy_from_slice(name);
        self.last = at;
        self.end += len;
    }

    /// Fills the rest with a free record, or, if it is too small for one, extends the last record
    /// over it. Returns that record if it is a free one, and the bytes of the leaf in use.
    pub fn finish(&mut self) -> (Option<Record>, &[u8]) {
        let rest = self.room();
        let (offset, end) = (self.end, self.end + HEAD);
        if rest >= HEAD {
            self.push(rest, &[], 0, 0, 0);
            return (Some(Record::free(offset, rest)), &self.buf[..end]);
        }
        if rest > 0 {
            self.stretch_last(rest);
        }
        (None, &self.buf)
    }

    fn stretch_last(&mut self, more: usize) {
        let at = self.last;
        let len = self.end - at + more;
        let name_len = usize::from(self.buf[at + 6]);
        // rec_len is at byte 4, after the checksum.
        self.buf[at + 4..at + 6].copy_from_slice(&to_u16(len).to_le_bytes());
        let record = &self.buf[at..at + HEAD + name_len];
        let crc = crc_of(self.leaf.record_seed(), record);
        self.buf[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        self.end += more;
    }
}
