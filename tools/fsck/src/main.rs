// SPDX-License-Identifier: GPL-2.0

//! `fsck.rdax`: checks an rdax volume, called directly or by fsck(8).
//!
//! Without -p, -a or -y nothing is written: the journal is replayed in memory and what a mount
//! would find is checked. With one of them the volume is repaired: `rdax_fsck::repair`.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{bail, Context, Result};
use clap::Parser;
use rdax_cli::{complain, device, human, progress, say, signature};
use rdax_fsck::args::Fsck;
use rdax_fsck::repair::{self, Level, Line};
use rdax_fsck::trial;
use rdax_volume::image::Image;
use rdax_volume::overlay::Overlay;
use rdax_volume::volume::check::{self, Summary};
use rdax_volume::volume::format::BLOCK;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{Error, MountOptions, Volume};

/// Exit codes, as fsck(8) adds them up.
const CLEAN: u8 = 0;
const CORRECTED: u8 = 1;
const UNCORRECTED: u8 = 4;
const OPERATIONAL: u8 = 8;
const USAGE: u8 = 16;

fn main() -> ExitCode {
    let args = match Fsck::try_parse_from(without_fd(std::env::args_os())) {
        Ok(args) => args,
        Err(e) => {
            let code = if e.use_stderr() { USAGE } else { CLEAN };
            // If this fails, there is nobody to report it to.
            let _ = e.print();
            return code.into();
        }
    };
    match run(&args) {
        Ok(code) => code.into(),
        Err(e) => {
            complain!("fsck.rdax: {e:#}");
            OPERATIONAL.into()
        }
    }
}

/// Removes the number of a file descriptor that fsck(8) and e2fsck(8) have with -C, in the same
/// argument or in the next.
fn without_fd(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut may_follow = false;
    for arg in args {
        let text = arg.to_str().unwrap_or_default();
        let with_fd = text.strip_prefix("-C").is_some_and(is_fd);
        let skip = may_follow && is_fd(text);
        may_follow = text == "-C";
        if !skip {
            kept.push(if with_fd { "-C".into() } else { arg });
        }
    }
    kept
}

fn is_fd(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn run(args: &Fsck) -> Result<u8> {
    let name = args.device.display();
    let repair = args.preen || args.yes;
    let file = device::open(&args.device, repair)?;
    let image = Image::new(file).with_context(|| format!("cannot find the size of {name}"))?;
    refuse_foreign(args, &image)?;
    if repair {
        check_and_repair(args, &image)
    } else {
        check_only(args, &image)
    }
}

/// A device whose first superblock was replaced by something else is not this volume any more, even
/// if the copy at its end still exists.
fn refuse_foreign(args: &Fsck, image: &Image) -> Result<()> {
    let found = signature::probe(image).map_err(|e| explain(image, e))?;
    let rdax_first = found.iter().any(|s| s.name == signature::RDAX && s.at == 0);
    match found.iter().find(|s| s.name != signature::RDAX) {
        Some(other) if !rdax_first => {
            bail!(
                "{}: no rdax volume, but: {}",
                args.device.display(),
                other.name
            )
        }
        _ => Ok(()),
    }
}

/// Checks the volume as the next mount would find it, and writes nothing.
fn check_only(args: &Fsck, image: &Image) -> Result<u8> {
    let name = args.device.display();
    let options = MountOptions::default();
    let view = Overlay::new(image);
    let summary = match Volume::mount(&view, options) {
        Ok(volume) => {
            if volume.notes().replayed > 0 {
                say!("{name}: journal not replayed; checking as if it were");
            }
            examine(args, image, &view)?
        }
        Err(e) => {
            // The check reports why, or fails with the reason itself.
            say!("{name}: cannot be mounted: {e}");
            examine(args, image, image)?
        }
    };
    let mut before = CLEAN;
    if summary.is_some_and(|summary| summary.problems == 0) {
        if let Err(e) = trial::mount(image) {
            say!("{name}: no problem found, and yet a mount reports: {e}");
            before = UNCORRECTED;
        }
    }
    Ok(verdict(args, summary, before, "found"))
}

/// Repairs the volume and prints what was found and done.
fn check_and_repair(args: &Fsck, image: &Image) -> Result<u8> {
    let name = args.device.display();
    let mut say = |line: Line| match line {
        Line::Found(problem) => say!("{name}: {problem}"),
        Line::Done(text) => say!("{name}: {text}"),
    };
    match repair::restore_super_blocks(image, &mut say) {
        Ok(()) => {}
        Err(Error::Corrupt { .. }) => {
            say!("{name}: both superblocks are damaged, and what is left of them is not enough");
            return Ok(UNCORRECTED);
        }
        Err(e) => return Err(explain(image, e).context(name.to_string())),
    }
    let level = if args.yes { Level::All } else { Level::Safe };
    let outcome = progress::watch("repairing", image, |progress| {
        repair::repair(image, level, &mut |line| progress.make_room(|| say(line)))
    });
    let outcome = outcome.map_err(|e| explain(image, e).context(name.to_string()))?;
    image.fence().map_err(|e| explain(image, e))?;
    let corrected = match image.bytes_written() {
        0 => CLEAN,
        _ => CORRECTED,
    };
    let before = corrected
        | if outcome.unfinished {
            UNCORRECTED
        } else {
            CLEAN
        };
    if level == Level::All {
        for problem in &outcome.left {
            say!("{name}: cannot be repaired: {problem}");
        }
    }
    let refused = level == Level::Safe && !outcome.left.iter().all(repair::is_safe);
    let left = match refused {
        true => "left; not all can be repaired safely: run fsck.rdax -y",
        false => "left",
    };
    Ok(verdict(args, Some(outcome.summary), before, left))
}

/// Checks what `view` shows and prints each problem.
fn examine(args: &Fsck, image: &Image, view: &dyn Pmem) -> Result<Option<Summary>> {
    let name = args.device.display();
    let result = progress::watch("checking", image, |progress| {
        check::check(view, &mut |problem| {
            progress.make_room(|| say!("{name}: {problem}"));
        })
    });
    match result {
        Ok(summary) => Ok(Some(summary)),
        Err(Error::Corrupt { .. }) => Ok(None),
        Err(e) => Err(explain(image, e).context(name.to_string())),
    }
}

/// Prints the result in one line and gives the exit code. No summary: both superblocks are damaged.
fn verdict(args: &Fsck, summary: Option<Summary>, before: u8, problems_are: &str) -> u8 {
    let name = args.device.display();
    let Some(summary) = summary else {
        say!("{name}: both superblocks are damaged");
        return before | UNCORRECTED;
    };
    if args.verbose {
        say!("{:>12} inodes in use", summary.inodes);
        say!("{:>12} of them directories", summary.directories);
        say!("{:>12} of them removed or being truncated", summary.orphans);
        let used = summary.blocks.saturating_sub(summary.free_blocks);
        say!("{:>12} blocks in use ({})", used, human(used * BLOCK));
        let free = summary.free_blocks;
        say!("{:>12} blocks free ({})", free, human(free * BLOCK));
    }
    match summary.problems {
        0 => {
            let state = match before & UNCORRECTED {
                0 => "clean",
                _ => "not clean",
            };
            say!(
                "{name}: {state}; inodes in use: {}, blocks free: {}",
                summary.inodes,
                summary.free_blocks
            );
            before
        }
        n => {
            let s = if n == 1 { "" } else { "s" };
            say!("{name}: {n} problem{s} {problems_are}");
            before | UNCORRECTED
        }
    }
}

/// The volume's error, or the system's behind it.
fn explain(image: &Image, error: Error) -> anyhow::Error {
    match image.take_error() {
        Some(cause) => anyhow::Error::new(cause).context(error.to_string()),
        None => anyhow::anyhow!("{error}"),
    }
}
