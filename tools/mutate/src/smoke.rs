// SPDX-License-Identifier: GPL-2.0

//! A few mutations that the host's tests are known to catch: whether they still do.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};

use crate::choice::{named, Choice, Named, NamedList};
use crate::host::{self, Settings};
use crate::make::{make, Places};
use crate::mutation;
use crate::results::{Layer, Results};

/// The test programs that the smoke part runs: they are built in a moment.
const PACKAGE: &str = "rdax-volume";
const PROGRAMS: [&str; 1] = ["index"];
const JOBS: usize = 2;
/// Of one mutation.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than it ever takes.
const BUDGET: Duration = Duration::from_secs(3600);

/// Prints as a list those of `choice` that the host's tests have caught.
pub fn pick(places: &Places, choice: &Choice) -> Result<()> {
    let all = mutation::load(&places.out)?;
    let results = Results::load(&places.out)?;
    let mut list = Vec::new();
    for mutation in choice.of(&all) {
        if results
            .caught(&mutation.key)
            .is_some_and(|(layer, _)| layer == Layer::Host)
        {
            list.push(Named::from(mutation));
        }
    }
    list.sort();
    print!("{}", toml::to_string(&NamedList { mutation: list })?);
    Ok(())
}

/// Makes a tree with the mutations in the file `list` alone, and runs the tests. Whether all that
/// are still there are caught; the last line counts them.
pub fn smoke(places: &Places, list: &Path) -> Result<bool> {
    let list = named(&places.top.join(list))?;
    let places = Places::new(&places.top, &places.out.join("smoke"))?;
    make(&places, false, &|mutation| {
        list.contains(&Named::from(mutation))
    })?;
    let all = mutation::load(&places.out)?;
    let there: std::collections::BTreeSet<Named> = all.iter().map(Named::from).collect();
    for gone in list.difference(&there) {
        println!(
            "no longer there: {} {} {}",
            gone.file, gone.function, gone.original
        );
    }
    ensure!(
        there.len() * 2 > list.len(),
        "most of the list is no longer there: rdax-mutants pick makes a new one"
    );
    let mut results = Results::new(&places.out);
    let packages = [PACKAGE.to_owned()];
    let programs = PROGRAMS.map(str::to_owned);
    let settings = Settings {
        top: &places.top,
        out: &places.out,
        packages: &packages,
        programs: &programs,
        jobs: JOBS,
        patience: PATIENCE,
        longest: PATIENCE,
    };
    let chosen: Vec<_> = all.iter().collect();
    host::layer(&settings, &chosen, &mut results, Instant::now() + BUDGET)?;
    let caught = all
        .iter()
        .filter(|m| results.caught(&m.key).is_some())
        .count();
    println!("{caught} passed, {} failed", all.len() - caught);
    Ok(caught == all.len())
}
