// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: the sound ones stay, the others are removed one by one, or all with their
//! block.

use std::collections::{BTreeMap, HashSet};

use rdax_volume::volume::alloc::Run;
use rdax_volume::volume::check::{Kind, Name, Problem};
use rdax_volume::volume::error::{Result, Structure};
use rdax_volume::volume::extent::{pack, Mapping};
use rdax_volume::volume::format::{RawInode, XattrHeader, BLOCK, XATTR_INLINE_MAX, XATTR_RUNS_MAX};
use rdax_volume::volume::{inode, xattr};
use zerocopy::little_endian::{U32, U64};
use zerocopy::IntoBytes;

use super::{is_local, Repair};
use crate::media::Xattr;

const HEADER: usize = size_of::<XattrHeader>();

/// The new attributes of an inode.
#[derive(Default)]
struct Set {
    /// The records.
    bytes: Vec<u8>,
    /// The blocks of their values.
    blocks: u64,
}

impl Set {
    fn push(&mut self, xattr: &Xattr) {
        for part in [xattr.head.as_bytes(), &xattr.name, &xattr.body] {
            self.bytes.extend_from_slice(part);
            self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        }
        self.blocks += xattr.runs().map(|run| run.len).sum::<u64>();
    }
}

impl Repair<'_, '_> {
    /// Inodes with damaged attributes. Blocks of these that another inode has, too, are copied, if
    /// the checksum proves that they are the attribute's.
    pub(super) fn xattrs(&mut self, problems: &[Problem]) -> Result<bool> {
        let mut inodes: BTreeMap<u64, Vec<Run>> = BTreeMap::new();
        for problem in problems {
            let Some(ino) = problem.ino else { continue };
            let (block, twice) = match problem.kind {
                Kind::UsedTwice { block, len } => (block, Some(Run { block, len })),
                Kind::OutsideData { block, .. } => (block, None),
                _ => (0, None),
            };
            let is_named = || {
                let inode = self.media.inode(ino);
                inode.is_some_and(|(_, raw)| block != 0 && raw.xattr_block.get() == block)
            };
            let hit = match problem.what {
                Structure::Xattr => true,
                Structure::Inode => is_named(),
                _ => false,
            };
            if hit {
                inodes.entry(ino).or_default().extend(twice);
            }
        }
        // First without copies: what is damaged may be what has the blocks of others.
        for copied in [false, true] {
            let mut done = false;
            for (&ino, twice) in &inodes {
                if let Some((at, raw)) = self.media.inode(ino) {
                    done |= self.mend_xattrs(at, raw, if copied { twice } else { &[] })?;
                }
            }
            if done {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Blocks of the extended attributes of an inode.
    pub(super) fn xattr_blocks(&self, raw: &RawInode) -> u64 {
        self.media.xattr_runs(raw).iter().map(|run| run.len).sum()
    }

    /// Repairs the attributes of one inode; other inodes have the blocks `twice`, too. False if
    /// there is nothing to do.
    fn mend_xattrs(&mut self, at: u64, raw: RawInode, twice: &[Run]) -> Result<bool> {
        let shared =
            |m: &Mapping| (twice.iter()).any(|t| t.block < m.block + m.len && m.block < t.end());
        let (ino, block) = (raw.ino.get(), raw.xattr_block.get());
        let Some((records, whole)) = self.media.xattrs(&raw) else {
            self.say(format!(
                "inode {ino}: all extended attributes removed: their block cannot be believed"
            ));
            self.put_xattrs(at, raw, 0, &Set::default())?;
            return Ok(true);
        };
        let mut changed = !whole;
        if !whole {
            self.say(format!(
                "inode {ino}: extended attributes behind a damaged record removed"
            ));
        }
        let (mut set, mut names) = (Set::default(), HashSet::new());
        let size = |xattr: &Xattr| {
            size_of_val(&xattr.head) + xattr.name.len().next_multiple_of(8) + xattr.body.len()
        };
        let mut room = BLOCK as usize - HEADER - records.iter().map(size).sum::<usize>();
        for mut xattr in records {
            if let Err(why) = self.judge(&xattr, &names) {
                changed = true;
                let name = Name::new(&xattr.name);
                self.say(format!("inode {ino}: attribute \"{name}\" removed: {why}"));
                continue;
            }
            if xattr.head.runs == 0 && xattr.head.value_crc.get() != 0 {
                xattr.head.value_crc = U32::ZERO;
                changed = true;
            }
            if xattr.runs().any(|run| shared(&run)) {
                changed = true;
                let name = Name::new(&xattr.name);
                if !self.copy_value(&mut xattr, &mut room)? {
                    self.say(format!(
                        "inode {ino}: attribute \"{name}\" removed: another inode has its blocks, \
                         and there is no space to copy them"
                    ));
                    continue;
                }
                self.say(format!(
                    "inode {ino}: attribute \"{name}\": blocks that another inode has, too, copied"
                ));
            }
            names.insert(xattr.name.clone());
            set.push(&xattr);
        }
        let mut to = block;
        let len = 1;
        if shared(&Mapping::new(0, block, len)) {
            changed = true;
            to = match self.take(1) {
                Ok(run) => run.block,
                Err(e) if is_local(&e) => {
                    set = Set::default();
                    self.say(format!(
                        "inode {ino}: all extended attributes removed: another inode has their \
                         block, and there is no space to copy it"
                    ));
                    0
                }
                Err(e) => return Err(e),
            };
        }
        if changed {
            self.say(format!("inode {ino}: extended attributes corrected"));
            self.put_xattrs(at, raw, to, &set)?;
        }
        Ok(changed)
    }

    /// Why an attribute cannot stay, if the inode has those called `names`.
    fn judge(&self, xattr: &Xattr, names: &HashSet<Vec<u8>>) -> Result<(), &'static str> {
        let len = xattr.head.value_len();
        let large = xattr.head.runs != 0;
        if xattr.name.is_empty() || xattr.name.contains(&0) {
            Err("a name that cannot be")
        } else if names.contains(&xattr.name) {
            Err("the second of this name")
        } else if large != (len > XATTR_INLINE_MAX) || xattr.head.runs as usize > XATTR_RUNS_MAX {
            Err("a length that cannot be")
        } else if large && self.media.xattr_value(xattr).is_none() {
            Err("its value is damaged")
        } else {
            Ok(())
        }
    }

    /// Copies the value of `xattr` to new blocks, and updates its record. False if there is no
    /// space, or if the record would grow by more than `room`.
    fn copy_value(&mut self, xattr: &mut Xattr, room: &mut usize) -> Result<bool> {
        let value = self.media.xattr_value(xattr).unwrap_or_default();
        let (mut rest, mut words) = (&value[..], Vec::new());
        while !rest.is_empty() {
            let run = match self.take((rest.len() as u64).div_ceil(BLOCK)) {
                Err(e) if is_local(&e) => return Ok(false),
                run => run?,
            };
            let (part, more) = rest.split_at(rest.len().min((run.len * BLOCK) as usize));
            let mut bytes = part.to_vec();
            bytes.resize((run.len * BLOCK) as usize, 0);
            self.media.pmem.store_nt(run.block * BLOCK, &bytes)?;
            let (key, block, len) = (0, run.block, run.len);
            words.extend_from_slice(pack(Mapping::new(key, block, len)).value.as_bytes());
            rest = more;
        }
        self.media.pmem.fence()?;
        let Some(left) = (*room + xattr.body.len()).checked_sub(words.len()) else {
            return Ok(false);
        };
        *room = left;
        xattr.head.runs = (words.len() / 8) as u8;
        xattr.body = words;
        Ok(true)
    }

    /// Writes the attributes `set` of the inode `raw` to `block`, and the inode with them.
    fn put_xattrs(&mut self, at: u64, mut raw: RawInode, block: u64, set: &Set) -> Result<()> {
        let mut writes = Vec::new();
        let old = raw.xattr_block.get();
        raw.xattr_block = U64::ZERO;
        let mut blocks = self.media.tree_blocks(&raw);
        if !set.bytes.is_empty() {
            let mut bytes = [&[0; HEADER], &set.bytes[..]].concat();
            xattr::seal(&mut bytes, &raw, block, self.media.geo.seed);
            if block == old {
                writes.push((block * BLOCK, bytes));
            } else {
                bytes.resize(BLOCK as usize, 0);
                self.media.pmem.store_nt(block * BLOCK, &bytes)?;
                self.media.pmem.fence()?;
            }
            raw.xattr_block = U64::new(block);
            blocks += 1 + set.blocks;
        }
        raw.blocks = U64::new(blocks);
        inode::seal(&mut raw, self.media.geo.seed);
        writes.push((at, raw.as_bytes().to_vec()));
        self.log.commit(&writes)
    }
}
