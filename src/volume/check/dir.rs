// SPDX-License-Identifier: GPL-2.0

//! Directory leaves: their headers, the chain of records, each entry and the inode it names.

use super::super::error::{Result, Structure};
use super::super::format::{
    record_seed, Dirent, LeafHeader, BLOCK, COOKIE_LOW_BITS, KEY_BITS, LEAF_MAGIC,
};
use super::super::num::to_usize;
use super::inode::DT_DIR;
use super::media::{crc, read, view};
use super::{Checker, Kind, Leaf, Name, Problem, State};
use crate::env::{siphash24, Vec};
use core::mem::size_of;
use zerocopy::IntoBytes;

const HEAD: usize = size_of::<Dirent>();

/// An entry of the current leaf.
struct Seen {
    cookie: u64,
    /// The range of its name in the leaf.
    name: core::ops::Range<usize>,
}

impl Checker<'_> {
    /// Checks every leaf that was found, and counts what their entries say of the inodes.
    pub(super) fn check_leaves(&mut self) -> Result<()> {
        let leaves = core::mem::replace(&mut self.leaves, Vec::new());
        let mut bytes = Vec::<u8>::zeroed(to_usize(BLOCK))?;
        let mut seen = Vec::new();
        for leaf in leaves.iter() {
            if read(self.pmem, leaf.block * BLOCK, &mut bytes)? {
                seen.clear();
                self.leaf(leaf, &bytes, &mut seen)?;
            } else {
                self.leaf_problem(leaf, 0, None, Kind::Unreadable);
            }
        }
        Ok(())
    }

    fn leaf_problem(&mut self, leaf: &Leaf, offset: usize, name: Option<&[u8]>, kind: Kind) {
        (self.report)(Problem {
            what: Structure::DirLeaf,
            at: leaf.block * BLOCK + offset as u64,
            ino: Some(leaf.dir),
            name: name.map(Name::new),
            kind,
        });
    }

    fn leaf(&mut self, leaf: &Leaf, bytes: &[u8], seen: &mut Vec<Seen>) -> Result<()> {
        let header: LeafHeader = view(bytes);
        if header.magic.get() != LEAF_MAGIC {
            self.leaf_problem(leaf, 0, None, Kind::Magic);
            return Ok(());
        }
        if crc(self.seed, header.as_bytes()) != header.crc.get() {
            self.leaf_problem(leaf, 0, None, Kind::Checksum);
            return Ok(());
        }
        let fields = [
            ("owner", header.owner.get(), leaf.dir),
            ("key", header.key.get(), leaf.key),
            ("block", header.block.get(), leaf.block),
        ];
        for (field, stored, expected) in fields {
            if stored != expected {
                let kind = Kind::Misplaced {
                    field,
                    stored,
                    expected,
                };
                self.leaf_problem(leaf, 0, None, kind);
                return Ok(());
            }
        }
        let mut offset = size_of::<LeafHeader>();
        while offset < bytes.len() {
            // The rest is a multiple of 8, as all lengths are; it may be less than a head.
            let Some(head) = bytes.get(offset..offset + HEAD) else {
                let len = (bytes.len() - offset) as u64;
                self.leaf_problem(leaf, offset, None, Kind::RecordLength { len });
                return Ok(());
            };
            let head: Dirent = view(head);
            let len = usize::from(head.rec_len.get());
            let name = offset + HEAD..offset + HEAD + usize::from(head.name_len);
            let end = offset + len;
            if len < HEAD || len % 8 != 0 || end > bytes.len() || name.end > end {
                self.leaf_problem(leaf, offset, None, Kind::RecordLength { len: len as u64 });
                return Ok(());
            }
            let seed = record_seed(self.seed, leaf.dir, leaf.block);
            if crc(seed, &bytes[offset..name.end]) != head.crc.get() {
                // Its length was valid so far, so the chain can still be followed.
                self.leaf_problem(leaf, offset, None, Kind::Checksum);
            } else if head.ino.get() != 0 {
                self.entry(leaf, bytes, offset, &head, name.clone(), seen)?;
                let cookie = head.cookie.get();
                seen.push(Seen { cookie, name })?;
            } else if head.name_len != 0 || head.file_type != 0 {
                self.leaf_problem(leaf, offset, None, Kind::Reserved("a free record's name"));
            }
            offset = end;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        leaf: &Leaf,
        bytes: &[u8],
        offset: usize,
        head: &Dirent,
        name: core::ops::Range<usize>,
        seen: &[Seen],
    ) -> Result<()> {
        let name = &bytes[name];
        if matches!(name, b"" | b"." | b"..") || name.iter().any(|&b| b == b'/' || b == 0) {
            self.leaf_problem(leaf, offset, Some(name), Kind::BadName);
        }
        let hash = (siphash24(&self.sb.hash_key, name) >> (64 - KEY_BITS)).max(1);
        let cookie = head.cookie.get();
        if cookie >> COOKIE_LOW_BITS != hash {
            self.leaf_problem(leaf, offset, Some(name), Kind::Cookie { cookie, hash });
        }
        if hash < leaf.key || hash >= leaf.end {
            self.leaf_problem(leaf, offset, Some(name), Kind::WrongLeaf { hash });
        }
        // Names of one hash, and so equal names and equal cookies, are in one leaf.
        if seen.iter().any(|other| other.cookie == cookie) {
            self.leaf_problem(leaf, offset, Some(name), Kind::CookieTwice { cookie });
        }
        if seen.iter().any(|other| &bytes[other.name.clone()] == name) {
            self.leaf_problem(leaf, offset, Some(name), Kind::NameTwice);
        }
        self.target(leaf, offset, head, name);
        Ok(())
    }

    /// Checks the inode that an entry names, and counts the link.
    fn target(&mut self, leaf: &Leaf, offset: usize, head: &Dirent, name: &[u8]) {
        if let Some(dir) = self.slot(leaf.dir) {
            dir.entries += 1;
        }
        let target = head.ino.get();
        let root = self.sb.root_ino.get();
        let known = self.all_inodes;
        let Some(slot) = self.slot(target).filter(|slot| slot.state != State::Free) else {
            // Past the end of a table that was not completely read, nothing is known.
            if known || self.slot(target).is_some() {
                self.leaf_problem(leaf, offset, Some(name), Kind::NoInode { target });
            }
            return;
        };
        slot.links += 1;
        let first = slot.found_in == 0;
        if first {
            slot.found_in = leaf.dir;
        }
        let (state, file_type) = (slot.state, slot.file_type);
        // If the inode cannot be trusted, only the entry counts.
        let believed = if state == State::Used {
            file_type
        } else {
            head.file_type
        };
        if believed == DT_DIR {
            if let Some(dir) = self.slot(leaf.dir) {
                dir.subdirs += 1;
            }
            if !first || target == root {
                self.leaf_problem(leaf, offset, Some(name), Kind::SecondName);
            }
        }
        if state == State::Used && head.file_type != file_type {
            let kind = Kind::EntryType {
                stored: head.file_type,
                inode: file_type,
            };
            self.leaf_problem(leaf, offset, Some(name), kind);
        }
    }
}
