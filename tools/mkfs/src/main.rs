// SPDX-License-Identifier: GPL-2.0

//! `mkfs.rdax`: makes an rdax volume on a device or in an image file.
//!
//! Nothing is written before everything was checked: the arguments, that nobody uses the device,
//! that it holds nothing else, its size. Then the old content is invalidated, and the superblocks
//! are written last, so an unfinished volume is not mistaken for a finished one.

#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{bail, Context, Result};
use clap::Parser;
use rdax_cli::device::{self, Target};
use rdax_cli::{complain, human, progress, say, signature};
use rdax_mkfs::Args;
use rdax_volume::image::Image;
use rdax_volume::volume::format::{Time, BLOCK, MAX_BYTES, MIN_BYTES};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{mkfs, super_block, Error};
use uuid::Uuid;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain!("mkfs.rdax: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let path = &args.device;
    let name = path.display();
    let target = device::target(path)?;

    // All checks come first.
    let image = match target {
        Target::Missing if args.size.is_none() => {
            bail!("{name} does not exist; with -s SIZE it is made as an image file")
        }
        Target::Missing => None,
        Target::Block | Target::File => Some(open(args)?),
    };
    let there = image.as_ref().map_or(0, |image| image.len());
    let size = volume_size(args, target, there)?;
    let mut found = match &image {
        Some(image) => signature::probe(image).map_err(|e| explain(image, e))?,
        None => Vec::new(),
    };
    if let Some(first) = found.first().filter(|_| !args.force) {
        bail!(
            "{name} is not empty: {}; use -f to overwrite it",
            describe(first, image.as_ref())
        );
    }
    let uuid = args.uuid.unwrap_or_else(Uuid::new_v4);
    if args.dry_run {
        if !args.quiet {
            say!(
                "{name}: would make a volume of {} ({} blocks of {BLOCK} bytes); nothing written",
                human(size / BLOCK * BLOCK),
                size / BLOCK
            );
        }
        return Ok(());
    }

    let image = match image {
        Some(image) if there == size || matches!(target, Target::Block) => image,
        grown => {
            drop(grown);
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .and_then(|file| file.set_len(size))
                .with_context(|| format!("cannot make {name} {} large", human(size)))?;
            open(args)?
        }
    };
    // The found signature may have been cut off.
    found.retain(|signature| signature.at + signature.magic.len() as u64 <= image.len());
    let mut hash_key = [0; 16];
    getrandom::fill(&mut hash_key).map_err(|e| anyhow::anyhow!("no random numbers: {e}"))?;
    let options = mkfs::Options {
        uuid: *uuid.as_bytes(),
        label: &args.label,
        hash_key,
        now: now(),
        bytes: Some(size),
    };
    progress::watch("formatting", &image, |_| {
        signature::wipe(&image, &found)?;
        mkfs::format(&image, &options)
    })
    .map_err(|e| explain(&image, e))
    .with_context(|| format!("{name} is not formatted"))?;
    if !args.quiet {
        summary(args, &image).map_err(|e| explain(&image, e))?;
    }
    Ok(())
}

fn open(args: &Args) -> Result<Image> {
    let file = device::open(&args.device, !args.dry_run)?;
    Image::new(file).with_context(|| format!("cannot find the size of {}", args.device.display()))
}

/// Decides how large the device is to be, and whether that can be.
fn volume_size(args: &Args, target: Target, there: u64) -> Result<u64> {
    let name = args.device.display();
    let size = match (args.size, target) {
        (None, _) => there,
        (Some(size), Target::Block) if size > there => {
            bail!("{name} has {there} bytes, fewer than {size}")
        }
        (Some(size), Target::File) if size < there && !args.force => {
            bail!("{name} has {there} bytes, more than {size}; use -f to cut it, or remove it")
        }
        (Some(size), _) => size,
    };
    if size < MIN_BYTES {
        bail!(
            "{name} is too small: {size} bytes, at least {MIN_BYTES} ({}) are needed",
            human(MIN_BYTES)
        );
    }
    if size > MAX_BYTES {
        bail!(
            "{name} is too large: {size} bytes, at most {MAX_BYTES} ({}) are possible",
            human(MAX_BYTES)
        );
    }
    Ok(size)
}

/// What is on the device, for the message that refuses to overwrite it.
fn describe(found: &signature::Signature, image: Option<&Image>) -> String {
    let volume = image.and_then(|image| super_block::read(image).ok());
    match volume.filter(|_| found.name == signature::RDAX) {
        Some(read) => format!(
            "{} (UUID {}, label \"{}\")",
            found.name,
            Uuid::from_bytes(read.sb.uuid),
            label_of(&read.sb.label)
        ),
        None => found.name.to_string(),
    }
}

fn label_of(bytes: &[u8; 32]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The volume's error, or the system's behind it.
fn explain(image: &Image, error: Error) -> anyhow::Error {
    match image.take_error() {
        Some(cause) => anyhow::Error::new(cause).context(error.to_string()),
        None => anyhow::anyhow!("{error}"),
    }
}

fn now() -> Time {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Time {
            sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nsec: since.subsec_nanos(),
        },
        // A clock before 1970 is not set.
        Err(_) => Time::default(),
    }
}

/// Prints what was made, as it stands on the media now.
fn summary(args: &Args, image: &Image) -> rdax_volume::volume::Result<()> {
    let read = super_block::read(image)?;
    let (sb, geo) = (&read.sb, &read.geo);
    let bytes = geo.blocks * BLOCK;
    let mut rows = vec![
        ("device", args.device.display().to_string()),
        ("label", label_of(&sb.label)),
        ("uuid", Uuid::from_bytes(sb.uuid).to_string()),
        (
            "size",
            format!("{} ({} blocks of {BLOCK} bytes)", human(bytes), geo.blocks),
        ),
        (
            "free",
            format!(
                "{} ({} blocks)",
                human(sb.free_blocks.get() * BLOCK),
                sb.free_blocks.get()
            ),
        ),
        (
            "journal",
            format!(
                "{} lanes of {}",
                geo.lane_count,
                human(sb.lane_bytes.get().into())
            ),
        ),
        (
            "data",
            format!(
                "from block {}, {} chunks of 2 MiB",
                geo.data_block, geo.chunks
            ),
        ),
    ];
    if sb.label[0] == 0 {
        rows.remove(1);
    }
    for (name, value) in rows {
        say!("{name:<9}{value}");
    }
    Ok(())
}
