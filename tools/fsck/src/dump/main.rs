// SPDX-License-Identifier: GPL-2.0

//! `rdax-dump`: shows any structure of an rdax volume, sound or damaged. It writes nothing.

#![forbid(unsafe_code)]

mod node;
mod show;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, Context, Result};
use clap::{Parser, Subcommand};
use rdax_cli::{complain, device};
use rdax_fsck::media::Media;
use rdax_volume::image::Image;
use rdax_volume::volume::format::ROOT_INO;
use rdax_volume::volume::super_block;

/// Show the structures of an rdax volume.
#[derive(Parser)]
#[command(name = "rdax-dump", version)]
struct Args {
    /// Block device or image file
    device: PathBuf,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
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

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain!("rdax-dump: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let name = args.device.display();
    let image = Image::new(device::open(&args.device, false)?)
        .with_context(|| format!("cannot find the size of {name}"))?;
    let what = args.what.as_ref().unwrap_or(&What::Superblock);
    let shown = if let What::Superblock = what {
        // Also of a device that is no volume any more.
        show::super_blocks(&image)
    } else {
        let media = open(&image).with_context(|| name.to_string())?;
        match what {
            What::Superblock => show::super_blocks(&image),
            What::Journal => show::journal(&media),
            What::Inode { ino, system } => show::inode(&media, find(&media, *ino, *system)?),
            What::Dir { dir } => show::directory(&media, directory(&media, dir)?)?,
            What::Extents { ino, system } => show::tree(&media, find(&media, *ino, *system)?)?,
            What::Inodes => show::inodes(&media),
            What::Alloc => show::alloc(&media),
            What::Orphans => show::orphans(&media),
            What::Block { block, count } => show::blocks(&media, *block, *count)?,
        }
    };
    let mut out = std::io::stdout().lock();
    let written = match args.json {
        true => writeln!(out, "{}", shown.json()),
        false => write!(out, "{shown}"),
    };
    match written {
        // The reader has closed the output.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write"),
    }
}

/// The volume by the superblock that counts.
fn open(image: &Image) -> Result<Media<'_>> {
    let read = super_block::read(image).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(Media::new(image, read.sb, read.geo))
}

/// Byte address of an inode.
fn find(media: &Media<'_>, ino: u64, system: bool) -> Result<u64> {
    match (system, ino) {
        (true, 0 | 1) => Ok(media.geo.system_inode_at(ino)),
        (true, _) => bail!("the system inodes are 0, the inode table's, and 1, the orphan file's"),
        (false, _) => media
            .inode_at(ino)
            .with_context(|| format!("the inode table has no inode {ino}")),
    }
}

/// The number of a directory, given by number or path.
fn directory(media: &Media<'_>, dir: &str) -> Result<u64> {
    if let Ok(ino) = dir.parse() {
        return Ok(ino);
    }
    let mut ino = ROOT_INO;
    for part in dir.split('/').filter(|part| !part.is_empty()) {
        let (_, raw) = media
            .inode(ino)
            .with_context(|| format!("inode {ino} is not in use or damaged"))?;
        let leaves = media.extents(&raw).into_iter();
        let mut entries = leaves.flat_map(|m| media.entries(ino, m.block));
        ino = entries
            .find(|entry| entry.name == part.as_bytes())
            .with_context(|| format!("{dir}: inode {ino} has no name \"{part}\""))?
            .ino;
    }
    Ok(ino)
}
