// SPDX-License-Identifier: GPL-2.0

//! `rdax-completions DIR`: writes the shell completions of the programs to a directory.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Write the shell completions of mkfs.rdax, fsck.rdax and rdax-dump.
#[derive(Parser)]
#[command(name = "rdax-completions", version)]
struct Args {
    /// Directory for the files; it is made if it is missing
    dir: PathBuf,
}

fn main() -> Result<()> {
    rdax_completions::write(&Args::parse().dir)
}
