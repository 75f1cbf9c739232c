// SPDX-License-Identifier: GPL-2.0

//! The checker: reads every structure of a volume and reports what is wrong.
//!
//! It knows the format, but not the code that writes it: it shares the structures of
//! [`super::format`] and the checksum, but no operation, so that a bug there is not repeated here.
//! It never writes, trusts no structure, and ends on any content: it walks into each block once,
//! and each count is bounded by what was found on the device.
//!
//! It expects a volume that nobody changes and whose journal was replayed (it reports an unreplayed
//! lane, and the problems that the replay would fix as well). Memory: two bits a block, 56 bytes an
//! inode slot, 32 bytes a directory leaf. Host only: `fsck.rdax` and the tests.

mod bitmap;
mod dir;
mod extent;
mod fixed;
mod inode;
mod link;
mod media;
mod problem;
mod super_block;
mod xattr;

pub use media::crc;
pub use problem::{Kind, Name, Problem};

use super::error::{Result, Structure};
use super::format::SuperBlock;
use super::pmem::Pmem;
use crate::env::Vec;
use media::Bits;

/// The contents of a volume, as counted by [`check`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Blocks of the volume.
    pub blocks: u64,
    /// Clear bits in its bitmaps.
    pub free_blocks: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Of these, directories.
    pub directories: u64,
    /// Inodes in the orphan file: removed and still in use, or being truncated, when the volume was
    /// last written. The next mount for writing processes them; they are no problem.
    pub orphans: u64,
    /// Problems reported.
    pub problems: u64,
}

/// Checks the volume on `pmem` and calls `report` with each problem found.
///
/// Fails with [`super::Error::NotRdax`], [`super::Error::Unsupported`] or
/// [`super::Error::TooSmall`] if no volume of this format is found, with [`super::Error::Corrupt`]
/// if both superblocks are damaged, and with [`super::Error::NoMemory`]. Other damage is reported,
/// not returned.
pub fn check(pmem: &dyn Pmem, report: &mut dyn FnMut(Problem)) -> Result<Summary> {
    let mut problems = 0;
    let mut count = |problem| {
        problems += 1;
        report(problem)
    };
    let sb = super_block::super_blocks(pmem, &mut count)?;
    let blocks = sb.blocks.get();
    let mut checker = Checker {
        pmem,
        seed: super_block::seed(&sb),
        used: Bits::new(blocks)?,
        marked: Bits::new(blocks)?,
        sb,
        report: &mut count,
        slots: Vec::new(),
        table: Vec::new(),
        leaves: Vec::new(),
        all_inodes: true,
        all_bitmaps: true,
        summary: Summary {
            blocks,
            ..Summary::default()
        },
    };
    checker.run()?;
    let summary = checker.summary;
    Ok(Summary {
        problems,
        ..summary
    })
}

/// Checks only the superblocks, and returns the one that counts. Fails as [`check`] does.
pub fn super_block(pmem: &dyn Pmem, report: &mut dyn FnMut(Problem)) -> Result<SuperBlock> {
    super_block::super_blocks(pmem, report)
}

/// How many witnesses `sb` has, out of three: a system inode, a lane and the bitmap of the first
/// chunk, where it says; whatever its own checksum is.
pub fn super_block_bearing(pmem: &dyn Pmem, sb: &SuperBlock) -> Result<u32> {
    super_block::bearing(pmem, sb)
}

pub use super_block::WITNESSES;

/// The state of a slot of the inode table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its inode chunk cannot be read.
    Unknown,
    /// Not in use.
    Free,
    /// In use, but the inode cannot be trusted.
    Damaged,
    /// In use.
    Used,
}

/// A slot of the inode table: what the inode says, and what the directories say about it.
#[derive(Clone, Copy)]
struct Slot {
    state: State,
    /// `DT_*`.
    file_type: u8,
    /// As the inode says.
    nlink: u32,
    /// As the inode says: slot of the orphan file plus one.
    orphan: u32,
    /// As the inode says.
    parent: u64,
    /// Entries found with its number.
    links: u64,
    /// For a directory: entries found in it.
    entries: u64,
    /// Of these, for directories.
    subdirs: u64,
    /// The directory in which it was found first; 0 if it was not found yet.
    found_in: u64,
}

/// A run of blocks of the inode table.
struct TableRun {
    file_block: u64,
    block: u64,
    len: u64,
}

/// A leaf of a directory, found in the directory's tree.
struct Leaf {
    dir: u64,
    key: u64,
    /// Where the next leaf begins.
    end: u64,
    block: u64,
}

/// The state of one check.
struct Checker<'a> {
    pmem: &'a dyn Pmem,
    report: &'a mut dyn FnMut(Problem),
    sb: SuperBlock,
    /// The seed of the checksums of the volume.
    seed: u32,
    /// Blocks that something uses.
    used: Bits,
    /// Blocks that the bitmaps mark in use.
    marked: Bits,
    slots: Vec<Slot>,
    table: Vec<TableRun>,
    leaves: Vec<Leaf>,
    /// The inode table, and all inode chunks, could be read.
    all_inodes: bool,
    /// All bitmaps could be read.
    all_bitmaps: bool,
    summary: Summary,
}

impl Checker<'_> {
    fn run(&mut self) -> Result<()> {
        let lanes = self.check_lanes()?;
        self.read_bitmaps()?;
        let orphan_blocks = self.check_system_inodes()?;
        self.check_inodes()?;
        self.check_leaves()?;
        self.check_orphans(&orphan_blocks)?;
        self.check_links()?;
        self.compare_bitmaps()?;
        self.check_counters(&lanes);
        Ok(())
    }

    fn problem(&mut self, what: Structure, at: u64, ino: Option<u64>, kind: Kind) {
        (self.report)(Problem {
            what,
            at,
            ino,
            name: None,
            kind,
        });
    }

    /// Slot of inode `ino`; None beyond the table and for impossible numbers.
    fn slot(&mut self, ino: u64) -> Option<&mut Slot> {
        if ino % super::format::INODE_CHUNK_SLOTS == 0 {
            return None;
        }
        usize::try_from(ino)
            .ok()
            .and_then(|i| self.slots.get_mut(i))
    }
}
