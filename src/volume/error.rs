// SPDX-License-Identifier: GPL-2.0

//! Errors of a volume, in terms that a caller can act on.
//!
//! The kernel maps each value to one errno ([`Error::errno`]); the tools print it.

use core::fmt;

use super::format::VERSION;
use crate::env::NoMemory;

/// The structure whose check failed. Printed in front of its byte address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// The superblock or its copy.
    SuperBlock,
    /// A journal lane.
    Lane,
    /// The summary entry or the bitmap of a chunk of blocks.
    Bitmap,
    /// The header of an inode chunk.
    InodeChunk,
    /// An inode.
    Inode,
    /// A node of an extent tree.
    ExtentNode,
    /// A directory leaf or an entry in it.
    DirLeaf,
    /// A slot of the orphan file.
    Orphan,
    /// The extended attributes of an inode.
    Xattr,
    /// A block that two pages of files share.
    SharedBlock,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Structure::SuperBlock => "superblock",
            Structure::Lane => "journal lane",
            Structure::Bitmap => "block bitmap",
            Structure::InodeChunk => "inode chunk header",
            Structure::Inode => "inode",
            Structure::ExtentNode => "extent node",
            Structure::DirLeaf => "directory leaf",
            Structure::Orphan => "orphan slot",
            Structure::Xattr => "extended attributes",
            Structure::SharedBlock => "block, which is used twice,",
        })
    }
}

/// Why an operation on a volume was refused or failed. Unless it says otherwise, nothing on the
/// media has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No free block or inode is left (ENOSPC).
    NoSpace,
    /// No memory (ENOMEM).
    NoMemory,
    /// The name does not exist (ENOENT).
    NotFound,
    /// The name, or the mapping of a file block, exists already (EEXIST).
    Exists,
    /// The extended attribute does not exist (ENODATA).
    NoXattr,
    /// The directory is not empty (ENOTEMPTY).
    NotEmpty,
    /// Longer than 255 bytes, or a symlink target longer than 4095 (ENAMETOOLONG).
    NameTooLong,
    /// One link more than an inode can count (EMLINK).
    TooManyLinks,
    /// Past the largest file offset (EFBIG).
    TooBig,
    /// An inode number that names no allocated inode, for example from a stale handle (ESTALE).
    Stale,
    /// The arguments make no sense (EINVAL).
    Invalid,
    /// A structure on the media fails its check (EUCLEAN).
    Corrupt {
        /// What failed.
        what: Structure,
        /// Byte address on the device.
        at: u64,
    },
    /// The media reported an uncorrectable error (EIO).
    Media {
        /// Byte address on the device.
        at: u64,
    },
    /// The journal has to be recovered, and the device must not be written (EROFS).
    WriteProtected,
    /// The device holds no rdax volume (EINVAL).
    NotRdax,
    /// Another version of the format (EINVAL).
    Version {
        /// That of the volume.
        found: u32,
    },
    /// An unknown incompatible feature (EINVAL); `ro` is true where a read-only mount would be
    /// possible (EROFS).
    Unsupported {
        /// The feature bits that are not known.
        bits: u64,
        /// Only read-only-compatible features are unknown.
        ro: bool,
    },
    /// The device is smaller than the volume on it, or too small for a volume (ENOSPC at mkfs,
    /// EINVAL at mount).
    TooSmall {
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        have: u64,
    },
}

/// A result of an operation on a volume.
pub type Result<T, E = Error> = ::core::result::Result<T, E>;

impl From<NoMemory> for Error {
    fn from(_: NoMemory) -> Self {
        Error::NoMemory
    }
}

impl Error {
    /// The Linux errno, as a positive number.
    pub fn errno(self) -> i32 {
        match self {
            Error::NotFound => 2,
            Error::Media { .. } => 5,
            Error::NoMemory => 12,
            Error::Exists => 17,
            Error::Invalid | Error::NotRdax | Error::TooSmall { .. } | Error::Version { .. } => 22,
            Error::Unsupported { ro, .. } => {
                if ro {
                    30
                } else {
                    22
                }
            }
            Error::WriteProtected => 30,
            Error::TooBig => 27,
            Error::NoSpace => 28,
            Error::TooManyLinks => 31,
            Error::NameTooLong => 36,
            Error::NotEmpty => 39,
            Error::NoXattr => 61,
            Error::Stale => 116,
            Error::Corrupt { .. } => 117,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoSpace => f.write_str("no space left"),
            Error::NoMemory => f.write_str("out of memory"),
            Error::NotFound => f.write_str("no such name"),
            Error::Exists => f.write_str("exists already"),
            Error::NoXattr => f.write_str("no such attribute"),
            Error::NotEmpty => f.write_str("directory not empty"),
            Error::NameTooLong => f.write_str("name too long"),
            Error::TooManyLinks => f.write_str("too many links"),
            Error::TooBig => f.write_str("file too big"),
            Error::Stale => f.write_str("no such inode"),
            Error::Invalid => f.write_str("invalid argument"),
            Error::Corrupt { what, at } => write!(f, "damaged {what} at byte {at:#x}"),
            Error::Media { at } => write!(f, "memory error at byte {at:#x}"),
            Error::WriteProtected => {
                f.write_str("device is write-protected, and its journal has to be recovered")
            }
            Error::NotRdax => f.write_str("no rdax volume found"),
            Error::Version { found } => write!(
                f,
                "format version {found} is not supported, only {VERSION} is"
            ),
            Error::Unsupported { bits, ro } => write!(
                f,
                "format feature bits {bits:#x} are not supported{}",
                if *ro {
                    " for writing; mount read-only"
                } else {
                    ""
                }
            ),
            Error::TooSmall { need, have } => {
                write!(f, "device too small: {need} bytes needed, {have} there")
            }
        }
    }
}
