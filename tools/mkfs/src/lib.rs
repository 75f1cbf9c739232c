// SPDX-License-Identifier: GPL-2.0

//! The command line of `mkfs.rdax`, for the program, and for completions and tests.

#![forbid(unsafe_code)]

mod size;

use std::path::PathBuf;

use clap::{ArgAction, Parser};
use uuid::Uuid;

/// Make an rdax volume on a persistent memory device or in an image file.
#[derive(Parser)]
#[command(
    name = "mkfs.rdax",
    bin_name = "mkfs.rdax",
    version,
    disable_version_flag = true
)]
pub struct Args {
    /// Overwrite what is on the device already
    #[arg(short, long)]
    pub force: bool,

    /// Label of the volume, at most 32 bytes of UTF-8
    #[arg(short = 'L', long, value_name = "LABEL", default_value = "", value_parser = label)]
    pub label: String,

    /// UUID of the volume; a random one if not given
    #[arg(short = 'U', long, value_name = "UUID")]
    pub uuid: Option<Uuid>,

    /// Size of the volume, as 64M or 2G; an image file is made or grown to that
    #[arg(short, long, value_name = "SIZE", value_parser = size::parse)]
    pub size: Option<u64>,

    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,

    /// Check and print everything, write nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    pub version: Option<bool>,

    /// Block device or image file
    pub device: PathBuf,
}

fn label(text: &str) -> Result<String, String> {
    if text.len() > 32 {
        return Err(format!("{} bytes, at most 32 are possible", text.len()));
    }
    if text.contains('\0') {
        return Err("a label cannot have a NUL in it".into());
    }
    Ok(text.into())
}
