// SPDX-License-Identifier: GPL-2.0

//! `rdax-dump`: shows any structure of an rdax volume, sound or damaged. It writes nothing.

#![forbid(unsafe_code)]

mod node;
mod show;

use std::io::{BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::{bail, Context, Result};
use clap::Parser;
use node::Node;
use rdax_cli::{complain, device};
use rdax_fsck::args::{Dump, Structure};
use rdax_fsck::media::Media;
use rdax_volume::image::Image;
use rdax_volume::volume::format::ROOT_INO;
use rdax_volume::volume::super_block;

fn main() -> ExitCode {
    match run(&Dump::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain!("rdax-dump: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Dump) -> Result<()> {
    let name = args.device.display();
    let image = Image::new(device::open(&args.device, false)?)
        .with_context(|| format!("cannot find the size of {name}"))?;
    let what = args.what.as_ref().unwrap_or(&Structure::Superblock);
    let shown = if let Structure::Superblock = what {
        // Also of a device that is no volume any more.
        show::super_blocks(&image)
    } else {
        let media = open(&image).with_context(|| name.to_string())?;
        match what {
            Structure::Superblock => show::super_blocks(&image),
            Structure::Journal => show::journal(&media),
            Structure::Inode { ino, system } => show::inode(&media, find(&media, *ino, *system)?),
            Structure::Dir { dir } => show::directory(&media, directory(&media, dir)?)?,
            Structure::Extents { ino, system } => show::tree(&media, find(&media, *ino, *system)?)?,
            Structure::Inodes => show::inodes(&media),
            Structure::Alloc => show::alloc(&media),
            Structure::Orphans => show::orphans(&media),
            Structure::Block { block, count } => show::blocks(&media, *block, *count)?,
        }
    };
    match print(&shown, args.json) {
        // The reader has closed the output.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write"),
    }
}

fn print(shown: &Node, json: bool) -> std::io::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    if json {
        serde_json::to_writer_pretty(&mut out, shown)?;
        writeln!(out)?;
    } else {
        write!(out, "{shown}")?;
    }
    out.flush()
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
