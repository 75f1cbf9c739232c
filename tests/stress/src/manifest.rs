// SPDX-License-Identifier: GPL-2.0

//! The list of files beside the logs of a ledger directory, and the verification of a later boot.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

use crate::ledger;
use crate::names;
use crate::rest;
use crate::slots::{Owner, Rule, SlotFile};
use crate::stream;
use crate::test::Run;

const NAME: &str = "manifest";

/// Starts the list of a run with `seed`.
pub fn start(ledger: &Path, seed: u64) -> Result<()> {
    fs::write(ledger.join(NAME), format!("seed {seed}\n")).context("ledger")
}

/// Adds the files of `run`, whose paths are kept relative to `dir`.
pub fn add(ledger: &Path, dir: &Path, run: &Run) -> Result<()> {
    let mut lines = String::new();
    for file in &run.files {
        let path = file.path.strip_prefix(dir)?;
        let rule = match file.rule {
            Rule::Exact => "exact",
            Rule::Own => "own",
            Rule::Append => "append",
            Rule::Names => "names",
        };
        let (owner, of) = match file.owner {
            Owner::Slots(of) => ("slots", of),
            Owner::Pages(of) => ("pages", of),
        };
        lines += &format!(
            "file {} {rule} {owner} {of} {} {} {}\n",
            file.id,
            file.cycle,
            file.slots,
            path.display()
        );
    }
    let mut file = OpenOptions::new()
        .append(true)
        .open(ledger.join(NAME))
        .context("ledger")?;
    file.write_all(lines.as_bytes()).context("ledger")
}

fn parse(line: &str, dir: &Path, seed: u64) -> Option<SlotFile> {
    let mut words = line.strip_prefix("file ")?.splitn(7, ' ');
    let id = words.next()?.parse().ok()?;
    let rule = match words.next()? {
        "exact" => Rule::Exact,
        "own" => Rule::Own,
        "append" => Rule::Append,
        "names" => Rule::Names,
        _ => return None,
    };
    let owner = match words.next()? {
        "slots" => Owner::Slots,
        "pages" => Owner::Pages,
        _ => return None,
    };
    let owner = owner(words.next()?.parse().ok().filter(|of| *of > 0)?);
    let cycle = words.next()?.parse().ok()?;
    let slots = words.next()?.parse().ok()?;
    Some(SlotFile {
        path: dir.join(words.next()?),
        slots,
        owner,
        rule,
        cycle,
        seed,
        id,
    })
}

/// Verifies the files of an earlier run under `dir` and prints a line for each. True if all hold.
pub fn verify(dir: &Path, ledger: &Path) -> Result<bool> {
    let text = fs::read_to_string(ledger.join(NAME))
        .with_context(|| format!("{} holds no ledger", ledger.display()))?;
    let mut lines = text.lines();
    let seed = lines
        .next()
        .and_then(|line| line.strip_prefix("seed ")?.parse().ok());
    let seed: u64 = seed.context("the ledger does not start with its seed")?;
    let promises = ledger::load(ledger)?;
    let none = ledger::Promises::default();
    let (mut held, mut failed, mut promised) = (0, 0, 0);
    for line in lines {
        let Some(file) = parse(line, dir, seed) else {
            bail!("ledger: not understood: {line}")
        };
        let promises = promises.get(&file.id).unwrap_or(&none);
        promised += promises.promised.len();
        let name = file.path.strip_prefix(dir)?.display();
        let how = if promises.closed {
            "at rest"
        } else {
            "cut short"
        };
        let result = match file.rule {
            Rule::Exact | Rule::Own => rest::verify(&file, promises),
            Rule::Append => stream::verify(&file, promises.allowed(0)).map(|()| 0),
            Rule::Names => names::verify(&file, promises).map(|()| 0),
        };
        match result {
            Ok(torn) => {
                held += 1;
                let kept = promises.promised.len();
                println!("ok   {name} ({how}, {kept} promises kept, {torn} torn)");
            }
            Err(error) => {
                failed += 1;
                println!("FAIL {name} ({how}, seed {seed}): {error:#}");
            }
        }
    }
    ensure!(held + failed > 0, "the ledger lists no file");
    ensure!(
        promised > 0,
        "the ledger holds no promise: there is nothing to verify"
    );
    println!("{held} files hold, {failed} do not; {promised} promises");
    Ok(failed == 0)
}
