// SPDX-License-Identifier: GPL-2.0

//! The command lines of `fsck.rdax` and `rdax-dump`, for the programs, and for completions and
//! tests.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};

/// Check and repair an rdax volume.
///
/// Exit status: 0 no errors, 1 errors corrected, 4 errors left, 8 the check could not be done,
/// 16 wrong arguments.
#[derive(Parser)]
#[command(
    name = "fsck.rdax",
    bin_name = "fsck.rdax",
    version,
    disable_version_flag = true
)]
pub struct Fsck {
    /// Check only, write nothing (the default)
    #[arg(short = 'n', conflicts_with_all = ["preen", "yes"])]
    pub no: bool,

    /// Repair, unless that would lose data
    #[arg(short = 'p', short_alias = 'a')]
    pub preen: bool,

    /// Repair everything; damaged files and names are lost, the rest moves to lost+found
    #[arg(short = 'y', conflicts_with = "preen")]
    pub yes: bool,

    /// Accepted; every check is a full one
    #[arg(short)]
    pub force: bool,

    /// Also print what the volume holds
    #[arg(short)]
    pub verbose: bool,

    /// Accepted; progress is shown on a terminal when the check takes long
    #[arg(short = 'C')]
    pub progress: bool,

    /// Print the version
    #[arg(short = 'V', action = ArgAction::Version)]
    pub version: Option<bool>,

    /// Block device or image file
    pub device: PathBuf,
}

/// Show the structures of an rdax volume.
#[derive(Parser)]
#[command(name = "rdax-dump", version)]
pub struct Dump {
    /// Block device or image file
    pub device: PathBuf,

    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub what: Option<Structure>,
}

#[derive(Subcommand)]
pub enum Structure {
    /// Both superblocks (the default)
    Superblock,
    /// The journal lanes and their last transactions
    Journal,
    /// An inode by its number; 0 and 1 with --system: the inode table's and the orphan file's
    Inode {
        /// Number of the inode
        ino: u64,
        /// Slot of a system inode instead
        #[arg(long)]
        system: bool,
    },
    /// A directory with its leaves and entries
    Dir {
        /// Its inode number, or its path from the root of the volume
        dir: String,
    },
    /// The extent tree of an inode with its nodes
    Extents {
        /// Number of the inode
        ino: u64,
        /// Slot of a system inode instead
        #[arg(long)]
        system: bool,
    },
    /// The inode chunks and the inodes in use
    Inodes,
    /// Free space: chunks of blocks and what is free in them
    Alloc,
    /// The slots of the orphan file that are in use
    Orphans,
    /// A block: what it is, and its bytes
    Block {
        /// Number of the first block
        block: u64,
        /// How many
        #[arg(default_value_t = 1)]
        count: u64,
    },
}
