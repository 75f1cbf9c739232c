// SPDX-License-Identifier: GPL-2.0

//! Storms of names: create, link, rename, remove, and readdir among them.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{ensure, Context, Result};

use crate::names;
use crate::sys;
use crate::test::{nothing, Run, Test, Worker};

/// Names of each worker.
const NAMES_EACH: u64 = 64;

/// Every name in a state that is known at all times.
pub const NAMES: Test = Test {
    name: "names",
    about: "files, directories, symlinks, FIFOs made, linked, replaced, moved, removed; verified",
    setup: |setup| {
        let path = setup.run().dir.join("tree");
        names::make(&path)?;
        let workers = setup.run().workers;
        setup.names(path, NAMES_EACH * u64::from(workers), workers)
    },
    run: names,
    finish: nothing,
    keep: true,
};

fn names(w: &mut Worker) -> Result<()> {
    let tree = &w.run.files[0];
    let root = File::open(&tree.path)?;
    // rdax promises every operation when it returns, others at the next sync.
    let durable = crate::counters::is_rdax(&tree.path)?;
    let mut states = vec![None; NAMES_EACH as usize];
    let mut rounds = 0u64;
    while w.running() {
        let nth = w.rng.u64(0..NAMES_EACH);
        let slot = tree.nth_own(w.index, nth);
        let before = states[nth as usize];
        let gen = tree.ledger.stored(slot) + 1;
        let after = names::next(tree, slot, gen, before);
        tree.ledger.begin(&w.log, slot, gen)?;
        names::apply(tree, slot, gen, before, after)?;
        tree.ledger.finish(slot);
        states[nth as usize] = after;
        if durable {
            tree.ledger.promise(&w.log, slot..slot + 1, || Ok(()))?;
        }
        if w.one_in(4) {
            let nth = w.rng.u64(0..NAMES_EACH);
            let slot = tree.nth_own(w.index, nth);
            let gen = tree.ledger.stored(slot);
            names::check(tree, slot, gen..=gen)?;
        }
        rounds += 1;
        if !durable && rounds % 512 == 0 {
            tree.ledger
                .promise(&w.log, 0..tree.slots, || sys::syncfs(&root))?;
        }
        w.count(1);
    }
    Ok(())
}

/// Files that stay while others come and go.
const STABLE: usize = 300;

/// A directory read while its names change.
pub const READDIR: Test = Test {
    name: "readdir",
    about: "half of the workers churn names, the others read the directory: none lost, none twice",
    setup: |setup| {
        let dir = setup.run().dir.clone();
        (0..STABLE).try_for_each(|n| File::create_new(stable(&dir, n)).map(drop))?;
        Ok(())
    },
    run: readdir,
    finish: |run| read_once(run).map(drop),
    keep: true,
};

fn stable(dir: &std::path::Path, n: usize) -> PathBuf {
    dir.join(format!("stable{n}"))
}

fn readdir(w: &mut Worker) -> Result<()> {
    let dir = w.run.dir.clone();
    if w.index % 2 == 1 {
        while w.running() {
            let entries = read_once(w.run)?;
            w.count(entries);
        }
        return Ok(());
    }
    let own = |n: u32| dir.join(format!("churn{}-{n}", w.index));
    let mut there = [false; 200];
    let mut rng = w.rng.fork();
    while w.running() {
        let n = rng.u32(0..200);
        let target = rng.u32(0..200);
        let result = match (there[n as usize], there[target as usize]) {
            (false, _) => {
                there[n as usize] = true;
                File::create_new(own(n)).map(drop)
            }
            (true, false) => {
                there[n as usize] = false;
                there[target as usize] = true;
                fs::rename(own(n), own(target))
            }
            (true, true) => {
                there[n as usize] = false;
                fs::remove_file(own(n))
            }
        };
        result.with_context(|| format!("{} to {}", own(n).display(), own(target).display()))?;
        w.count(1);
    }
    for n in (0..200).filter(|n| there[*n as usize]) {
        fs::remove_file(own(n))?;
    }
    Ok(())
}

/// Reads the directory to its end. Gives the number of names.
fn read_once(run: &Run) -> Result<u64> {
    let mut seen = [0u32; STABLE];
    let mut count = 0;
    for entry in fs::read_dir(&run.dir)? {
        let name = entry?.file_name();
        let name = name.to_str().unwrap_or("(not UTF-8)");
        count += 1;
        if let Some(n) = name
            .strip_prefix("stable")
            .and_then(|n| n.parse::<usize>().ok())
        {
            seen[n.min(STABLE - 1)] += 1;
            continue;
        }
        ensure!(
            name.starts_with("churn"),
            "MISMATCH {}: a name that nobody made: {name}",
            run.dir.display()
        );
    }
    for (n, times) in seen.iter().enumerate() {
        ensure!(
            *times == 1,
            "MISMATCH {}: expected stable{n} once, found it {times} times in one pass",
            run.dir.display()
        );
    }
    Ok(count)
}
