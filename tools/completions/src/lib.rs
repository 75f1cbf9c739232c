// SPDX-License-Identifier: GPL-2.0

//! The command lines of the programs that users of rdax call, and their shell completions.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::{generate, Generator, Shell};
use rdax_fsck::args::{Dump, Fsck};
use rdax_mkfs::Args as Mkfs;

/// The shells that there are completions for.
pub const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// The command lines of `mkfs.rdax`, `fsck.rdax` and `rdax-dump`.
pub fn programs() -> [Command; 3] {
    [Mkfs::command(), Fsck::command(), Dump::command()]
}

/// The completions of `program` for `shell`.
pub fn completions(shell: Shell, mut program: Command) -> Result<String> {
    let name = program.get_name().to_owned();
    let mut text = Vec::new();
    generate(shell, &mut program, &name, &mut text);
    let text = String::from_utf8(text)?;
    Ok(match shell {
        // clap_complete writes the hyphen of a name with subcommands in two ways, and then finds no
        // option of a subcommand (clap-rs/clap, issue 6421).
        Shell::Bash => text.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__")),
        // It looks for the subcommand in the first argument, but that is the device.
        Shell::Fish => text.replace(
            "    if set -q argv[1]\n",
            "    set -e argv[1]\n    if set -q argv[1]\n",
        ),
        _ => text,
    })
}

/// Writes the completions of each program for each shell to `dir`, which is made if it is missing:
/// `NAME.bash`, `_NAME` for zsh, and `NAME.fish`.
pub fn write(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    for program in programs() {
        for shell in SHELLS {
            let path = dir.join(shell.file_name(program.get_name()));
            let text = completions(shell, program.clone())?;
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}
