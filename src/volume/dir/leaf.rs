// SPDX-License-Identifier: GPL-2.0

//! One directory leaf: a header, and records that fill the block.
//!
//! A leaf is read record by record, each verified by its own checksum, so a walk needs no memory
//! but the record in hand. A name may use any run of adjacent free records; what it leaves becomes
//! one free record. Only a split or a compaction works on an image of the whole leaf.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::IntoBytes;

use crate::env;
use crate::volume::error::{Error, Result, Structure};
use crate::volume::extent::Media;
use crate::volume::format::{Dirent, LeafHeader, BLOCK, COOKIE_LOW_BITS, LEAF_MAGIC, NAME_MAX};
use crate::volume::pmem::{read_struct, Pmem};

/// Bytes of the header of a leaf.
pub const HEADER: usize = size_of::<LeafHeader>();
/// Bytes of the head of a record, and of the smallest record.
pub const HEAD: usize = size_of::<Dirent>();
/// Bytes of a leaf.
pub const LEAF: usize = BLOCK as usize;
/// Bytes that records share.
pub const ROOM: usize = LEAF - HEADER;
/// Most records in a leaf.
pub const RECORDS_MAX: usize = ROOM / HEAD;

/// Where a leaf is, whose, and which hashes it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its block.
    pub block: u64,
    /// The directory.
    pub owner: u64,
    /// The first hash, its key in the directory's tree, and the first hash of the next leaf.
    pub keys: (u64, u64),
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

/// A head with its checksum.
pub fn head(len: usize, name: &[u8], file_type: u8, ino: u64, cookie: u64) -> Dirent {
    let mut head = Dirent {
        crc: U32::ZERO,
        // At most LEAF and NAME_MAX: the callers' sizes are those of a leaf.
        rec_len: U16::new(len as u16),
        name_len: name.len() as u8,
        file_type,
        ino: U64::new(ino),
        cookie: U64::new(cookie),
    };
    head.crc = U32::new(env::crc32c(env::crc32c(0, head.as_bytes()), name));
    head
}

/// The head of a free record of `len` bytes.
pub fn free_head(len: usize) -> Dirent {
    head(len, &[], 0, 0, 0)
}

impl Leaf {
    /// Byte address on the device.
    pub fn at(&self) -> u64 {
        self.block * BLOCK
    }

    /// The error for what lies `offset` bytes into the leaf.
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
        header.crc = U32::new(env::crc32c(0, header.as_bytes()));
        header
    }

    /// The first bytes of this leaf when it is empty; what follows them does not matter.
    pub fn empty(&self) -> [u8; HEADER + HEAD] {
        let mut bytes = [0; HEADER + HEAD];
        bytes[..HEADER].copy_from_slice(self.header().as_bytes());
        bytes[HEADER..].copy_from_slice(free_head(ROOM).as_bytes());
        bytes
    }

    /// Reads and verifies the record at `offset`, and its name into `name`.
    pub fn record<P: Pmem>(
        &self,
        media: &Media<'_, P>,
        offset: usize,
        name: &mut [u8; NAME_MAX],
    ) -> Result<Record> {
        let corrupt = self.corrupt(offset);
        if offset < HEADER || offset + HEAD > LEAF {
            return Err(corrupt);
        }
        let at = self.at() + offset as u64;
        let mut head: Dirent = read_struct(media.pmem, at)?;
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
        let name = &mut name[..record.name_len];
        media.pmem.read(at + HEAD as u64, name)?;
        let crc = head.crc.get();
        head.crc = U32::ZERO;
        if env::crc32c(env::crc32c(0, head.as_bytes()), name) != crc {
            return Err(corrupt);
        }
        let sound = if record.is_free() {
            record.name_len == 0
        } else {
            record.name_len > 0 && (self.keys.0..self.keys.1).contains(&record.hash())
        };
        if sound {
            Ok(record)
        } else {
            Err(corrupt)
        }
    }

    /// Verifies the whole leaf and shows each record with its name to `visit`, in the order in
    /// which they lie there.
    pub fn scan<P: Pmem>(
        &self,
        media: &Media<'_, P>,
        visit: &mut dyn FnMut(&Record, &[u8]) -> Result<()>,
    ) -> Result<()> {
        if !media.geo.is_data(self.block, 1) {
            return Err(self.corrupt(0));
        }
        let header: LeafHeader = read_struct(media.pmem, self.at())?;
        if header.as_bytes() != self.header().as_bytes() {
            return Err(self.corrupt(0));
        }
        let mut name = [0; NAME_MAX];
        let mut offset = HEADER;
        while offset < LEAF {
            let record = self.record(media, offset, &mut name)?;
            visit(&record, &name[..record.name_len])?;
            offset += record.len;
        }
        Ok(())
    }
}

/// The bytes of a leaf in DRAM, being put together.
pub struct Image {
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
            buf,
            end: HEADER,
            last: HEADER,
        })
    }

    /// Bytes for further records.
    pub fn room(&self) -> usize {
        LEAF - self.end
    }

    /// Appends a record of `len` bytes, head included, which must fit.
    pub fn push(&mut self, len: usize, name: &[u8], file_type: u8, ino: u64, cookie: u64) {
        let head = head(len, name, file_type, ino, cookie);
        let at = self.end;
        self.buf[at..at + HEAD].copy_from_slice(head.as_bytes());
        self.buf[at + HEAD..at + HEAD + name.len()].copy_from_slice(name);
        self.last = at;
        self.end += len;
    }

    /// Leaves `len` bytes as `old` has them, as one record: used to keep what does not change.
    pub fn keep(&mut self, old: &[u8], len: usize) {
        let at = self.end;
        self.buf[at..at + len].copy_from_slice(&old[at..at + len]);
        self.last = at;
        self.end += len;
    }

    /// Makes `len` bytes one free record whose content beside the head is as in `old`.
    pub fn free(&mut self, old: &[u8], len: usize) {
        self.keep(old, len);
        let at = self.last;
        self.buf[at..at + HEAD].copy_from_slice(free_head(len).as_bytes());
    }

    /// Fills what is left with a free record, or, where it is too small for one, with the last
    /// record. Returns the bytes of the leaf.
    pub fn finish(&mut self) -> &[u8] {
        let rest = self.room();
        if rest >= HEAD {
            self.push(rest, &[], 0, 0, 0);
        } else if rest > 0 {
            self.stretch_last(rest);
        }
        &self.buf
    }

    fn stretch_last(&mut self, more: usize) {
        let at = self.last;
        let len = self.end - at + more;
        let name_len = usize::from(self.buf[at + 6]);
        // rec_len lies at byte 4, after the checksum.
        self.buf[at + 4..at + 6].copy_from_slice(&(len as u16).to_le_bytes());
        self.buf[at..at + 4].fill(0);
        let crc = env::crc32c(0, &self.buf[at..at + HEAD + name_len]);
        self.buf[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        self.end += more;
    }
}
