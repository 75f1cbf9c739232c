// SPDX-License-Identifier: GPL-2.0

//! Directories: leaves repaired in place, or the whole rebuilt from the sound names.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rdax_volume::volume::check::{Kind, Problem};
use rdax_volume::volume::dir::{hash, leaf};
use rdax_volume::volume::error::{Result, Structure};
use rdax_volume::volume::extent::Mapping;
use rdax_volume::volume::format::{
    record_seed, Dirent, LeafHeader, RawInode, BLOCK, COOKIE_LOW_BITS, KEY_BITS,
};
use zerocopy::little_endian::U64;
use zerocopy::IntoBytes;

use super::{is_local, of, Repair};
use crate::media::{file_type, Media, DT_DIR};

const HEADER: usize = size_of::<LeafHeader>();
const HEAD: usize = size_of::<Dirent>();
/// Bytes of records put into a leaf: leaves some room for more.
const FILL: usize = (BLOCK as usize - HEADER) * 3 / 4;

/// A name for a directory that is being rebuilt.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) bytes: Vec<u8>,
    pub(super) ino: u64,
    pub(super) file_type: u8,
    /// Its old cookie; 0 for none.
    pub(super) cookie: u64,
}

/// Changes to a leaf in place.
#[derive(Default)]
struct Change {
    header: bool,
    /// Offsets of records to remove.
    remove: BTreeSet<usize>,
    /// Offsets of records with a wrong file type, and the right one.
    retype: BTreeMap<usize, u8>,
}

impl Repair<'_, '_> {
    /// Damaged leaves and entries.
    pub(super) fn leaves(&mut self, problems: &[Problem]) -> Result<bool> {
        // Whether to search for its leaves.
        let mut rebuild: BTreeMap<u64, bool> = BTreeMap::new();
        let mut leaves: BTreeMap<(u64, u64), Change> = BTreeMap::new();
        for problem in of(problems, Structure::DirLeaf) {
            let Some(dir) = problem.ino else { continue };
            let (block, offset) = (problem.at / BLOCK, (problem.at % BLOCK) as usize);
            let change = leaves.entry((dir, block)).or_default();
            match problem.kind {
                _ if offset == 0 => match self.media.leaf_header(dir, block) {
                    Some(_) if !matches!(problem.kind, Kind::Unreadable) => change.header = true,
                    _ => {
                        rebuild.insert(dir, true);
                    }
                },
                Kind::Cookie { .. } | Kind::CookieTwice { .. } | Kind::WrongLeaf { .. } => {
                    rebuild.entry(dir).or_default();
                }
                Kind::EntryType { inode, .. } => {
                    change.retype.insert(offset, inode);
                }
                Kind::SecondName => {
                    if !self.keep_second_name(dir, block, offset)? {
                        change.remove.insert(offset);
                    }
                }
                Kind::BadName | Kind::NameTwice | Kind::NoInode { .. } => {
                    change.remove.insert(offset);
                }
                // Checksum, RecordLength: found again when the leaf is scanned.
                _ => {}
            }
            if let Some(name) = problem
                .name
                .as_ref()
                .filter(|_| change.remove.contains(&offset))
            {
                self.say(format!(
                    "inode {dir}: entry \"{name}\" removed: {}",
                    problem.kind
                ));
            }
        }
        let mut done = false;
        for ((dir, block), change) in leaves {
            if !rebuild.contains_key(&dir) && !self.mend_leaf(dir, block, &change)? {
                rebuild.insert(dir, false);
            }
            done = true;
        }
        let mut rebuilt = false;
        for (dir, search) in rebuild {
            let Some((at, raw)) = self.media.inode(dir) else {
                continue;
            };
            match self.rebuild_directory(dir, at, raw, search, Vec::new()) {
                Ok(()) => rebuilt = true,
                Err(e) if is_local(&e) => {
                    self.say(format!("inode {dir}: not repaired: {e}"));
                    done = false;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(done || rebuilt)
    }

    /// Of two names of a directory, keeps the one in the directory's `parent`. True if that is this
    /// one, and the other was removed.
    fn keep_second_name(&mut self, dir: u64, block: u64, offset: usize) -> Result<bool> {
        let entries = self.media.entries(dir, block);
        let Some(entry) = entries.iter().find(|entry| entry.offset == offset) else {
            return Ok(false);
        };
        let parent = self.media.inode(entry.ino).map(|(_, raw)| raw.parent.get());
        if parent != Some(dir) || entry.ino == self.media.sb.root_ino.get() {
            return Ok(false);
        }
        let others: Vec<_> = self.names_of(entry.ino);
        let others = others.into_iter().filter(|&(other, _, _)| other != dir);
        let mut removed = false;
        for (other, block, offset) in others.collect::<Vec<_>>() {
            removed |= self.remove_entry(other, block, offset)?;
        }
        Ok(removed)
    }

    /// All entries for an inode: directory, block of the leaf, offset.
    pub(super) fn names_of(&self, ino: u64) -> Vec<(u64, u64, usize)> {
        let mut found = Vec::new();
        for (dir, raw) in self.media.inodes() {
            if file_type(&raw) != DT_DIR {
                continue;
            }
            for m in self.media.extents(&raw) {
                let entries = self.media.entries(dir, m.block).into_iter();
                let named = entries.filter(|entry| entry.ino == ino);
                found.extend(named.map(|entry| (dir, m.block, entry.offset)));
            }
        }
        found
    }

    /// Removes one entry. False if its directory has to be rebuilt for that, but could not be.
    pub(super) fn remove_entry(&mut self, dir: u64, block: u64, offset: usize) -> Result<bool> {
        let change = Change {
            remove: BTreeSet::from([offset]),
            ..Change::default()
        };
        if self.mend_leaf(dir, block, &change)? {
            return Ok(true);
        }
        // The only name of a leaf: its leaf is removed.
        let Some((at, raw)) = self.media.inode(dir) else {
            return Ok(false);
        };
        let mut names = self.names_in(&raw, &[]);
        let gone = self.media.entries(dir, block);
        let gone = gone.iter().find(|entry| entry.offset == offset);
        names.retain(|name| gone.is_none_or(|gone| gone.name != name.bytes));
        match self.write_directory(at, raw, names) {
            Ok(()) => Ok(true),
            Err(e) if is_local(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Changes a leaf in place. Returns false without a change if it would have no name then, and
    /// must be removed, or if it cannot be read.
    fn mend_leaf(&mut self, dir: u64, block: u64, change: &Change) -> Result<bool> {
        let Some((at, mut bytes)) = self
            .media
            .bytes(block * BLOCK, BLOCK as usize)
            .map(|bytes| (block * BLOCK, bytes))
        else {
            return Ok(false);
        };
        let Some((_, raw)) = self.media.inode(dir) else {
            return Ok(true);
        };
        let Some(key) = self.key_of(&raw, block) else {
            return Ok(false);
        };
        if change.header {
            let header = self.leaf(dir, key, block).header();
            bytes[..HEADER].copy_from_slice(header.as_bytes());
            self.say(format!(
                "inode {dir}: header of the leaf at {at:#x} rebuilt"
            ));
        }
        let (mut live, mut lost, mut lengths, mut edits) = (0, 0, 0, Vec::new());
        let leaf = self.leaf(dir, key, block);
        let seed = record_seed(leaf.seed, dir, block);
        let mut mend = |offset: usize, len, record: Option<(Dirent, &[u8])>| {
            let kept = record
                .as_ref()
                .filter(|(head, _)| head.ino.get() != 0 && !change.remove.contains(&offset));
            let Some((head, name)) = kept else {
                lost += usize::from(record.is_none());
                edits.push((offset, leaf.free_head(len)));
                return;
            };
            live += 1;
            let right = change.retype.get(&offset);
            let (ino, cookie) = (head.ino.get(), head.cookie.get());
            let new = leaf.new_head(len, name, *right.unwrap_or(&head.file_type), ino, cookie);
            let same = bytes[offset..offset + HEAD] == *new.as_bytes();
            lengths += usize::from(!same && right.is_none());
            edits.push((offset, new));
        };
        let end = Media::records(&bytes, seed, &self.media.nameless, &mut mend);
        // A piece shorter than a head cannot become a free record.
        let ends = edits.iter().skip(1).map(|(offset, _)| *offset);
        if edits
            .iter()
            .zip(ends.chain([end]))
            .any(|((at, _), end)| end - at < HEAD)
        {
            return Ok(false);
        }
        if live == 0 && key != 0 {
            return Ok(false);
        }
        if end < bytes.len() {
            // The rest becomes one free record, which needs room for its head.
            if bytes.len() - end < HEAD {
                return Ok(false);
            }
            lost += 1;
            edits.push((end, leaf.free_head(bytes.len() - end)));
        }
        for (offset, head) in edits {
            bytes[offset..offset + HEAD].copy_from_slice(head.as_bytes());
        }
        if lengths > 0 {
            self.say(format!(
                "inode {dir}: lengths of entries of the leaf at {at:#x} corrected"
            ));
        }
        if lost > 0 {
            self.say(format!(
                "inode {dir}: damaged entries of the leaf at {at:#x} dropped"
            ));
        }
        self.log.commit(&[(at, bytes)])?;
        Ok(true)
    }

    /// The key of the leaf in `block`.
    fn key_of(&self, raw: &RawInode, block: u64) -> Option<u64> {
        let found = self.media.extents(raw);
        found.iter().find(|m| m.block == block).map(|m| m.key)
    }

    /// Rebuilds a directory from the sound names in its leaves and `more`. With `search`, searches
    /// the whole device for leaves that its tree does not lead to any more.
    pub(super) fn rebuild_directory(
        &mut self,
        ino: u64,
        at: u64,
        raw: RawInode,
        search: bool,
        more: Vec<Name>,
    ) -> Result<()> {
        let strays = if search {
            self.stray_leaves(ino)
        } else {
            Vec::new()
        };
        let mut names = self.names_in(&raw, &strays);
        let taken: HashSet<Vec<u8>> = names.iter().map(|name| name.bytes.clone()).collect();
        names.extend(more.into_iter().filter(|name| !taken.contains(&name.bytes)));
        let count = names.len();
        self.write_directory(at, raw, names)?;
        self.say(format!("inode {ino}: directory rebuilt with {count} names"));
        Ok(())
    }

    /// The sound names in the leaves of a directory, each once.
    fn names_in(&self, raw: &RawInode, strays: &[u64]) -> Vec<Name> {
        let ino = raw.ino.get();
        let tree = self.media.extents(raw).into_iter().map(|m| m.block);
        let mut blocks = HashSet::new();
        let mut names = HashMap::new();
        for block in tree.chain(strays.iter().copied()) {
            if !blocks.insert(block) || self.media.leaf_header(ino, block).is_none() {
                continue;
            }
            for entry in self.media.entries(ino, block) {
                let bad = matches!(&entry.name[..], b"" | b"." | b"..");
                let inode = self.media.inode(entry.ino);
                let Some((_, target)) = inode.filter(|_| !bad) else {
                    continue;
                };
                if entry.name.iter().any(|b| matches!(b, b'/' | 0)) {
                    continue;
                }
                names.entry(entry.name.clone()).or_insert(Name {
                    bytes: entry.name,
                    ino: entry.ino,
                    file_type: file_type(&target),
                    cookie: entry.cookie,
                });
            }
        }
        names.into_values().collect()
    }

    /// Blocks in use that hold a sound leaf of `dir`, and are no content of a file or an attribute.
    fn stray_leaves(&self, dir: u64) -> Vec<u64> {
        let sound = |block: &u64| {
            let header = self.media.leaf_header(dir, *block);
            header.is_some_and(|(_, sound)| sound)
        };
        let mut found: Vec<u64> = self.media.used_blocks().filter(sound).collect();
        for (_, raw) in self.media.inodes() {
            if found.is_empty() {
                break;
            }
            let mut content = self.media.xattr_runs(&raw);
            if file_type(&raw) != DT_DIR {
                content.extend(self.media.extents(&raw));
            }
            for m in content {
                // In order, as they were found.
                let from = found.partition_point(|&block| block < m.block);
                let to = found.partition_point(|&block| block < m.block + m.len);
                found.drain(from..to);
            }
        }
        found
    }

    /// Writes the leaves and the tree of a directory with exactly `names` into new blocks, and then
    /// the inode `raw` with them.
    fn write_directory(&mut self, at: u64, mut raw: RawInode, names: Vec<Name>) -> Result<()> {
        let ino = raw.ino.get();
        let leaves = self.arrange(names);
        let blocks = self.take_all(leaves.len())?;
        let mut extents = Vec::new();
        for ((key, names), block) in leaves.into_iter().zip(blocks) {
            self.write_leaf(ino, key, block, &names)?;
            extents.push(Mapping::new(key, block, 1));
        }
        raw.size = U64::new(extents.len() as u64 * BLOCK);
        self.grow_tree(&mut raw, &extents)?;
        self.put_inode(at, raw)
    }

    /// Sorts names into leaves, by their hashes, and gives them cookies: the old ones, if they fit.
    fn arrange(&self, names: Vec<Name>) -> Vec<(u64, Vec<Name>)> {
        let mut by_hash: BTreeMap<u64, Vec<Name>> = BTreeMap::new();
        for name in names {
            let hash = hash(&self.media.sb.hash_key, &name.bytes);
            by_hash.entry(hash).or_default().push(name);
        }
        let mut leaves: Vec<(u64, Vec<Name>)> = vec![(0, Vec::new())];
        let mut filled = 0;
        for (hash, mut names) in by_hash {
            names.sort_by(|a, b| (a.cookie, &a.bytes).cmp(&(b.cookie, &b.bytes)));
            let mut used = HashSet::new();
            for name in &mut names {
                let low = 1 << COOKIE_LOW_BITS;
                if name.cookie / low != hash || !used.insert(name.cookie) {
                    let free = (hash * low..(hash + 1) * low).find(|cookie| used.insert(*cookie));
                    name.cookie = free.unwrap_or(hash * low);
                }
            }
            let room: usize = names.iter().map(|n| leaf::needed(n.bytes.len())).sum();
            if filled + room > FILL && filled > 0 {
                leaves.push((hash, Vec::new()));
                filled = 0;
            }
            filled += room;
            if let Some((_, last)) = leaves.last_mut() {
                last.extend(names);
            }
        }
        leaves
    }

    /// The leaf with `key` of the directory `dir` in `block`.
    fn leaf(&self, dir: u64, key: u64, block: u64) -> leaf::Leaf {
        leaf::Leaf {
            block,
            owner: dir,
            keys: (key, 1 << KEY_BITS),
            seed: self.media.geo.seed,
        }
    }

    fn write_leaf(&self, dir: u64, key: u64, block: u64, names: &[Name]) -> Result<()> {
        let mut image = leaf::Image::new(&self.leaf(dir, key, block))?;
        for name in names {
            // Where a record is copied from: a head, and the name.
            let from = [&[0; HEAD][..], &name.bytes].concat();
            let record = leaf::Record {
                offset: 0,
                len: leaf::needed(name.bytes.len()),
                name_len: name.bytes.len(),
                file_type: name.file_type,
                ino: name.ino,
                cookie: name.cookie,
            };
            image.add(&from, &record);
        }
        let (_, used) = image.finish();
        let mut bytes = used.to_vec();
        bytes.resize(BLOCK as usize, 0);
        self.media.pmem.store_nt(block * BLOCK, &bytes)?;
        self.media.pmem.fence()
    }
}
