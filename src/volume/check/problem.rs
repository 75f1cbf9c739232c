// SPDX-License-Identifier: GPL-2.0

//! The checker's findings: one value per problem, one line of text each.

use super::super::error::Structure;
use super::super::format::{NAME_MAX, ORPHAN_INO, TABLE_INO};
use super::super::num::to_u8;
use core::fmt;

/// One thing that is wrong on a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The structure that is wrong, or that contains something wrong.
    pub what: Structure,
    /// Its byte address on the device.
    pub at: u64,
    /// The inode it belongs to, if it belongs to one.
    pub ino: Option<u64>,
    /// The name of the directory entry or of the attribute, if the problem concerns one.
    pub name: Option<Name>,
    /// What is wrong.
    pub kind: Kind,
}

/// A name from a directory entry, as it is there: any bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; NAME_MAX],
    len: u8,
}

impl Name {
    /// Takes the first [`NAME_MAX`] bytes of `name`.
    pub fn new(name: &[u8]) -> Self {
        let mut bytes = [0; NAME_MAX];
        let len = name.len().min(NAME_MAX);
        bytes[..len].copy_from_slice(&name[..len]);
        Name {
            bytes,
            len: to_u8(len),
        }
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for Name {
    /// Printable ASCII and UTF-8 as they are, all else escaped, so that one name is one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.as_bytes().utf8_chunks() {
            for c in part.valid().chars() {
                if c.is_control() || c == '"' || c == '\\' {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for b in part.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What is wrong with a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The media cannot be read there.
    Unreadable,
    /// The checksum does not match the content.
    Checksum,
    /// The first bytes are not those of the structure.
    Magic,
    /// A field that must be zero is not.
    Reserved(&'static str),

    /// A system inode is damaged and its copy is not, or the other way round.
    OneOfTwo,
    /// A superblock, or a system inode, and its copy are both valid and differ.
    CopiesDiffer,
    /// The superblock's geometry contradicts itself or the device.
    Geometry(&'static str),

    /// The lane has no header that identifies its last transaction.
    NoHeader,
    /// The lane holds a committed transaction that may not be in place.
    NotReplayed {
        /// Its sequence number.
        seq: u64,
    },
    /// A header of the lane says neither that its transaction is retired nor that it is not.
    Retired {
        /// Its sequence number.
        seq: u64,
    },

    /// A free count of a chunk does not match the number of clear bits beside it.
    FreeCount {
        /// What the media says.
        stored: u64,
        /// What the bitmap says.
        counted: u64,
    },
    /// Blocks past the end of the volume are marked free.
    FreePastEnd,
    /// Blocks are marked in use, but nothing uses them.
    Leaked {
        /// First block.
        block: u64,
        /// Number of blocks.
        len: u64,
    },
    /// Blocks are in use, but marked free.
    MarkedFree {
        /// First block.
        block: u64,
        /// Number of blocks.
        len: u64,
    },
    /// Blocks are also in use by something else.
    UsedTwice {
        /// First of them.
        block: u64,
        /// Number of blocks from the first such block to the last.
        len: u64,
    },
    /// The number of free blocks from superblock and lanes together is wrong.
    FreeBlocks {
        /// Their number.
        stored: i128,
        /// Clear bits in the bitmaps.
        counted: u64,
    },
    /// The number of inodes in use from superblock and lanes together is wrong.
    UsedInodes {
        /// Their number.
        stored: i128,
        /// Set bits in the inode chunks.
        counted: u64,
    },

    /// A structure names another place or owner than where it was found.
    Misplaced {
        /// Which field.
        field: &'static str,
        /// What it says.
        stored: u64,
        /// What it should say.
        expected: u64,
    },
    /// Slot 0 of an inode chunk, its own header, is marked free.
    HeaderFree,
    /// The inode table or the orphan file has no block at this place.
    SystemHole {
        /// The file block.
        file_block: u64,
    },

    /// No such file type, or one that does not fit the place.
    Mode(u16),
    /// An impossible size.
    Size(u64),
    /// Nanoseconds of a second or more.
    Nanoseconds {
        /// Which timestamp.
        time: &'static str,
        /// Its nanoseconds.
        nsec: u32,
    },
    /// `blocks` is not the number of blocks found.
    Blocks {
        /// What the inode says.
        stored: u64,
        /// Found in its tree and for its extended attributes.
        counted: u64,
    },
    /// A directory's size does not match its leaves.
    DirSize {
        /// What the inode says.
        stored: u64,
        /// The size of its leaves.
        counted: u64,
    },
    /// A wrong link count, or links to an inode that has none.
    Links {
        /// What the inode says.
        stored: u64,
        /// What the directories say.
        counted: u64,
    },
    /// A symlink's target has a NUL in it, or is not where it should be.
    SymlinkTarget,
    /// The directory's `parent` is not the directory that names it.
    Parent {
        /// What the inode says.
        stored: u64,
        /// The directory with its name; 0 if it was removed, but `stored` cannot be a directory.
        found: u64,
    },
    /// No directory names this inode, and it is not in the orphan file.
    Unreachable,
    /// A directory that is its own ancestor.
    Loop,
    /// A directory that a second entry names.
    SecondName,
    /// A removed directory has entries.
    RemovedNotEmpty,

    /// More levels than a tree can have, or no entries above the lowest level.
    TreeDepth(u64),
    /// More entries than there is room for, or none.
    TreeCount(u64),
    /// Entries out of order, or overlapping the one before.
    ExtentOrder {
        /// The entry's key.
        key: u64,
    },
    /// A key outside the range that the entry above gives.
    ExtentRange {
        /// The entry's key.
        key: u64,
    },
    /// An entry with bits beyond its key, or one of unwritten blocks where these are not allowed.
    ExtentFlags {
        /// The entry's key, with the bits beyond it.
        key: u64,
    },
    /// An extent of no blocks, or of more than one in a directory.
    ExtentLength {
        /// The entry's key.
        key: u64,
        /// Its length.
        len: u64,
    },
    /// Blocks outside the data area.
    OutsideData {
        /// First block.
        block: u64,
        /// Number of blocks.
        len: u64,
    },

    /// The directory has no leaf for the smallest hashes.
    NoFirstLeaf,
    /// The records of a leaf do not fill it.
    RecordLength {
        /// The record's length.
        len: u64,
    },
    /// A name that is empty, "." or "..", or has a '/' or a NUL in it.
    BadName,
    /// An entry whose hash belongs in another leaf.
    WrongLeaf {
        /// The hash of the name.
        hash: u64,
    },
    /// A cookie that does not match the name's hash.
    Cookie {
        /// The cookie.
        cookie: u64,
        /// The hash of the name.
        hash: u64,
    },
    /// Two entries with the same cookie.
    CookieTwice {
        /// The cookie.
        cookie: u64,
    },
    /// Two entries with the same name.
    NameTwice,
    /// An entry's file type is not that of its inode.
    EntryType {
        /// `DT_*` in the entry.
        stored: u8,
        /// `DT_*` of the inode.
        inode: u8,
    },
    /// An entry for an inode that is not in use or cannot exist.
    NoInode {
        /// The inode number.
        target: u64,
    },

    /// An orphan slot for an inode that is not in use, or that names no slot or another one.
    OrphanInode {
        /// The inode number in the slot.
        target: u64,
    },
    /// The inode is in the orphan file, has names, and is no file that can be cut.
    OrphanNamed,
    /// An orphan slot with impossible work.
    Work {
        /// What the slot says.
        work: u32,
    },
    /// The inode is not in the orphan slot that it names.
    OrphanSlot {
        /// The slot.
        slot: u64,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ino {
            Some(TABLE_INO) => f.write_str("inode table: ")?,
            Some(ORPHAN_INO) => f.write_str("orphan file: ")?,
            Some(ino) => write!(f, "inode {ino}: ")?,
            None => {}
        }
        write!(f, "{} at {:#x}: ", self.what, self.at)?;
        if let Some(name) = &self.name {
            write!(f, "entry \"{name}\": ")?;
        }
        write!(f, "{}", self.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Kind::Unreadable => f.write_str("memory error, cannot be read"),
            Kind::Checksum => f.write_str("checksum mismatch"),
            Kind::Magic => f.write_str("magic number missing"),
            Kind::Reserved(field) => write!(f, "{field} is not zero"),
            Kind::OneOfTwo => f.write_str("damaged; its other copy is sound"),
            Kind::CopiesDiffer => f.write_str("differs from its other copy"),
            Kind::Geometry(why) => f.write_str(why),
            Kind::NoHeader => f.write_str("no valid header"),
            Kind::NotReplayed { seq } => {
                write!(
                    f,
                    "journal not replayed: transaction {seq} is committed, not retired"
                )
            }
            Kind::Retired { seq } => {
                write!(f, "nothing says whether transaction {seq} is retired")
            }
            Kind::FreeCount { stored, counted } => {
                write!(f, "free count is {stored}, {counted} are free")
            }
            Kind::FreePastEnd => f.write_str("blocks past the end of the volume are marked free"),
            Kind::Leaked { block, len } => {
                write!(
                    f,
                    "{} marked in use, but nothing uses them",
                    Blocks(block, len)
                )
            }
            Kind::MarkedFree { block, len } => {
                write!(f, "{} in use, but marked free", Blocks(block, len))
            }
            Kind::UsedTwice { block, len } => {
                write!(f, "{} in use twice", Blocks(block, len))
            }
            Kind::FreeBlocks { stored, counted } => {
                write!(f, "counters give {stored} free blocks, {counted} are free")
            }
            Kind::UsedInodes { stored, counted } => {
                write!(
                    f,
                    "counters give {stored} inodes in use, {counted} are in use"
                )
            }
            Kind::Misplaced {
                field,
                stored,
                expected,
            } => write!(f, "{field} is {stored}, should be {expected}"),
            Kind::HeaderFree => f.write_str("the header's own slot is marked free"),
            Kind::SystemHole { file_block } => write!(f, "no block mapped at {file_block}"),
            Kind::Mode(mode) => write!(f, "file type of mode {mode:#o} is not possible here"),
            Kind::Size(size) => write!(f, "size {size} is not possible"),
            Kind::Nanoseconds { time, nsec } => write!(f, "{time} has {nsec} nanoseconds"),
            Kind::Blocks { stored, counted } => {
                write!(f, "block count is {stored}, {counted} found")
            }
            Kind::DirSize { stored, counted } => {
                write!(f, "directory size is {stored}, its leaves give {counted}")
            }
            Kind::Links { stored, counted } => {
                write!(f, "link count is {stored}, should be {counted}")
            }
            Kind::SymlinkTarget => f.write_str("symlink target is damaged"),
            Kind::Parent { stored, found: 0 } => {
                write!(f, "parent is {stored}, which no inode is")
            }
            Kind::Parent { stored, found } => {
                write!(f, "parent is {stored}, but directory {found} names it")
            }
            Kind::Unreachable => f.write_str("in use, but no directory names it"),
            Kind::Loop => f.write_str("directory is among its own ancestors"),
            Kind::SecondName => f.write_str("second name of a directory"),
            Kind::RemovedNotEmpty => f.write_str("removed directory is not empty"),
            Kind::TreeDepth(depth) => write!(f, "extent tree of {depth} levels is not possible"),
            Kind::TreeCount(count) => write!(f, "{count} entries are not possible"),
            Kind::ExtentOrder { key } => {
                write!(
                    f,
                    "entry {key:#x} overlaps the one before or is out of order"
                )
            }
            Kind::ExtentRange { key } => {
                write!(
                    f,
                    "entry {key:#x} is outside the range of its place in the tree"
                )
            }
            Kind::ExtentFlags { key } => write!(f, "entry {key:#x} has flags that it cannot have"),
            Kind::ExtentLength { key, len } => {
                write!(f, "entry {key:#x} has an impossible length of {len} blocks")
            }
            Kind::OutsideData { block, len } => {
                write!(f, "{} outside the data area", Blocks(block, len))
            }
            Kind::NoFirstLeaf => f.write_str("the first leaf does not begin at hash 0"),
            Kind::RecordLength { len } => write!(f, "record length {len} is not possible"),
            Kind::BadName => f.write_str("name is not allowed"),
            Kind::WrongLeaf { hash } => write!(f, "hash {hash:#x} belongs into another leaf"),
            Kind::Cookie { cookie, hash } => {
                write!(f, "cookie {cookie:#x} does not fit hash {hash:#x}")
            }
            Kind::CookieTwice { cookie } => write!(f, "cookie {cookie:#x} is there twice"),
            Kind::NameTwice => f.write_str("name is there twice"),
            Kind::EntryType { stored, inode } => {
                write!(f, "file type is {stored}, the inode's is {inode}")
            }
            Kind::NoInode { target } => write!(f, "inode {target} is not in use"),
            Kind::OrphanInode { target } => {
                write!(f, "inode {target} is not in use or does not name this slot")
            }
            Kind::OrphanNamed => {
                f.write_str("is in the orphan file, but has names, and nothing to be cut off")
            }
            Kind::Work { work } => write!(f, "work {work} on these blocks is not possible"),
            Kind::OrphanSlot { slot } => write!(f, "is not in orphan slot {slot}, as it says"),
        }
    }
}

/// A run of blocks, for display.
struct Blocks(u64, u64);

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            1 => write!(f, "block {}", self.0),
            len => write!(
                f,
                "blocks {} to {}",
                self.0,
                u128::from(self.0) + u128::from(len.max(1)) - 1
            ),
        }
    }
}
