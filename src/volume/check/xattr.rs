// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: the block of names, its records, and the blocks of large values.

use super::super::error::{Result, Structure};
use super::super::format::{
    RawInode, XattrHeader, XattrRecord, BLOCK, NAME_MAX, XATTR_INLINE_MAX, XATTR_MAGIC,
    XATTR_RUNS_MAX,
};
use super::super::num::to_usize;
use super::extent::Walked;
use super::media::{crc, read, view};
use super::problem::Name;
use super::{Checker, Kind, Problem};
use crate::env::{crc32c, Vec};

const HEADER: usize = size_of::<XattrHeader>();
const HEAD: usize = size_of::<XattrRecord>();

/// The block of names of an inode.
struct Block {
    ino: u64,
    at: u64,
}

impl Checker<'_> {
    /// Checks the extended attributes of inode `ino` and claims their blocks.
    pub(super) fn xattrs(&mut self, inode_at: u64, ino: u64, raw: &RawInode) -> Result<Walked> {
        let mut walked = Walked {
            blocks: 0,
            whole: true,
        };
        let block = raw.xattr_block.get();
        if block == 0 {
            return Ok(walked);
        }
        walked.whole = self.claim(Structure::Inode, inode_at, ino, block, 1);
        if !walked.whole {
            return Ok(walked);
        }
        walked.blocks = 1;
        let at = block * BLOCK;
        let mut bytes = Vec::<u8>::zeroed(to_usize(BLOCK))?;
        if !read(self.pmem, at, &mut bytes)? {
            walked.whole = self.bad_xattrs(ino, at, Kind::Unreadable);
            return Ok(walked);
        }
        let header: XattrHeader = view(&bytes);
        let len = header.len.get() as usize;
        let fields = [
            ("owner", header.owner.get(), ino),
            ("block", header.block.get(), block),
            (
                "generation",
                header.generation.get().into(),
                raw.generation.get().into(),
            ),
        ];
        let wrong = if header.magic.get() != XATTR_MAGIC {
            Some(Kind::Magic)
        } else if len <= HEADER || len > to_usize(BLOCK) || len % 8 != 0 {
            Some(Kind::Size(len as u64))
        } else if crc(self.seed, &bytes[..len]) != header.crc.get() {
            Some(Kind::Checksum)
        } else {
            fields
                .into_iter()
                .find(|(_, stored, expected)| stored != expected)
                .map(|(field, stored, expected)| Kind::Misplaced {
                    field,
                    stored,
                    expected,
                })
        };
        match wrong {
            Some(kind) => walked.whole = self.bad_xattrs(ino, at, kind),
            None => self.xattr_records(&Block { ino, at }, &bytes[..len], &mut walked)?,
        }
        Ok(walked)
    }

    /// Checks the records of `block`, which `bytes` holds.
    fn xattr_records(&mut self, block: &Block, bytes: &[u8], walked: &mut Walked) -> Result<()> {
        let (mut from, mut names) = (HEADER, Vec::<&[u8]>::new());
        while from < bytes.len() {
            let rest = &bytes[from..];
            let head: XattrRecord = view(rest);
            let (name_len, value_len) = (usize::from(head.name_len), head.value_len());
            let body_at = HEAD + name_len.next_multiple_of(8);
            let len = body_at + head.body_len();
            if len > rest.len() {
                let len = len as u64;
                walked.whole = self.bad_xattrs(block.ino, block.at, Kind::RecordLength { len });
                return Ok(());
            }
            let name = &rest[HEAD..HEAD + name_len];
            let large = head.runs != 0;
            let wrong = if !(1..=NAME_MAX).contains(&name_len) || name.contains(&0) {
                Some(Kind::BadName)
            } else if names.contains(&name) {
                Some(Kind::NameTwice)
            } else if large != (value_len > XATTR_INLINE_MAX)
                || usize::from(head.runs) > XATTR_RUNS_MAX
            {
                Some(Kind::Size(value_len as u64))
            } else if !large && head.value_crc.get() != 0 {
                Some(Kind::Reserved("value_crc"))
            } else {
                None
            };
            if let Some(kind) = wrong {
                self.bad_xattr(block, name, kind);
            }
            names.push(name)?;
            if large {
                let runs = &rest[body_at..len];
                self.xattr_value(block, (name, &head), runs, walked)?;
            }
            from += len;
        }
        Ok(())
    }

    /// Checks a value that has the blocks `runs`, and claims them.
    fn xattr_value(
        &mut self,
        block: &Block,
        (name, head): (&[u8], &XattrRecord),
        runs: &[u8],
        walked: &mut Walked,
    ) -> Result<()> {
        let value_len = head.value_len();
        let (mut sum, mut left, mut blocks) = (0, value_len, 0);
        for word in runs.chunks_exact(8) {
            let value = view::<zerocopy::little_endian::U64>(word).get();
            let (first, len) = (value & ((1 << 40) - 1), value >> 40);
            if len == 0 {
                walked.whole = false;
                self.bad_xattr(block, name, Kind::Size(value_len as u64));
                return Ok(());
            }
            if !self.claim(Structure::Xattr, block.at, block.ino, first, len) {
                walked.whole = false;
                return Ok(());
            }
            blocks += len;
            let part = left.min(to_usize(len * BLOCK));
            let mut bytes = Vec::<u8>::zeroed(part)?;
            if !read(self.pmem, first * BLOCK, &mut bytes)? {
                self.bad_xattr(block, name, Kind::Unreadable);
                // No further problem of this value is reported.
                (sum, left) = (head.value_crc.get(), 0);
                continue;
            }
            sum = crc32c(sum, &bytes);
            left -= part;
        }
        walked.blocks += blocks;
        if blocks != (value_len as u64).div_ceil(BLOCK) {
            self.bad_xattr(block, name, Kind::Size(value_len as u64));
        } else if sum != head.value_crc.get() {
            self.bad_xattr(block, name, Kind::Checksum);
        }
        Ok(())
    }

    /// Reports an unusable block of names; its names are unknown then.
    fn bad_xattrs(&mut self, ino: u64, at: u64, kind: Kind) -> bool {
        self.problem(Structure::Xattr, at, Some(ino), kind);
        false
    }

    /// Reports what is wrong with one attribute.
    fn bad_xattr(&mut self, block: &Block, name: &[u8], kind: Kind) {
        (self.report)(Problem {
            what: Structure::Xattr,
            at: block.at,
            ino: Some(block.ino),
            name: Some(Name::new(name)),
            kind,
        });
    }
}
