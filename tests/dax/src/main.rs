// SPDX-License-Identifier: GPL-2.0

//! rdax-dax-test GROUP: what a mapped file of rdax promises, checked one scenario at a time by
//! contents, signals, times and the counters in /sys/fs/rdax.
//!
//! Runs as root in a directory on rdax (`$MNT`, else /mnt/pmem), which it may fill up. Prints a
//! line for each scenario; exits with 0 if all of the group passed.

#![forbid(unsafe_code)]

mod aging;
mod answers;
mod calls;
mod common;
mod concurrent;
mod counters;
mod dirty;
mod eof;
mod evict;
mod flush;
mod freeze;
mod held;
mod holes;
mod hot;
mod huge;
mod layout;
mod locked;
mod markers;
mod memory;
mod no_cache;
mod pins;
mod private;
mod races;
mod removal;
mod rows;
mod sync;
mod times;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use rustix::mm::{mlockall, munlockall, MlockAllFlags};

use common::Sysctl;
use counters::Counters;

/// Where a scenario runs.
pub struct Place {
    /// A directory on rdax.
    pub dir: PathBuf,
    /// The counters of that file system.
    pub counters: Counters,
}

impl Place {
    /// A path in the directory. What was there is removed.
    pub fn fresh(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        let _ = std::fs::remove_file(&path);
        path
    }
}

/// A promise and how it is checked.
pub type Scenario = (&'static str, fn(&Place) -> Result<()>);

const GROUPS: [(&str, &[Scenario]); 24] = [
    ("sync", sync::SCENARIOS),
    ("answers", answers::SCENARIOS),
    ("calls", calls::SCENARIOS),
    ("flush", flush::SCENARIOS),
    ("dirty", dirty::SCENARIOS),
    ("hot", hot::SCENARIOS),
    ("rows", rows::SCENARIOS),
    ("locked", locked::SCENARIOS),
    ("huge", huge::SCENARIOS),
    ("aging", aging::SCENARIOS),
    ("times", times::SCENARIOS),
    ("holes", holes::SCENARIOS),
    ("private", private::SCENARIOS),
    ("eof", eof::SCENARIOS),
    ("layout", layout::SCENARIOS),
    ("markers", markers::SCENARIOS),
    ("memory", memory::SCENARIOS),
    ("pins", pins::SCENARIOS),
    ("freeze", freeze::SCENARIOS),
    ("concurrent", concurrent::SCENARIOS),
    ("races", races::SCENARIOS),
    ("removal", removal::SCENARIOS),
    ("no_cache", no_cache::SCENARIOS),
    ("evict", evict::SCENARIOS),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let group = args.next().unwrap_or_default();
    let Some((_, scenarios)) = GROUPS.iter().find(|(name, _)| *name == group) else {
        let names: Vec<_> = GROUPS.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: rdax-dax-test {} [SCENARIO]", names.join("|"));
        return ExitCode::from(2);
    };
    let only = args.next();
    let dir = std::env::var("MNT").unwrap_or_else(|_| "/mnt/pmem".into());
    let place = match Counters::find(dir.as_ref()) {
        Ok(counters) => Place {
            dir: dir.into(),
            counters,
        },
        Err(error) => {
            eprintln!("{dir}: {error:#}");
            return ExitCode::from(2);
        }
    };
    // The flusher would move counters at any time; what it does, `aging` checks.
    let _no_flusher = match Sysctl::set("dirty_writeback_centisecs", "0") {
        Ok(set) => set,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::from(2);
        }
    };
    // Who counts faults does not mean those of the program's own pages.
    if let Err(error) = mlockall(MlockAllFlags::CURRENT).and_then(|()| munlockall()) {
        eprintln!("mlockall: {error}");
        return ExitCode::from(2);
    }
    let mut run = 0;
    let mut failed = 0;
    for (name, scenario) in *scenarios {
        if only.as_deref().is_some_and(|only| only != *name) {
            continue;
        }
        run += 1;
        // What an earlier scenario left dirty is none of this one's.
        rustix::fs::sync();
        match scenario(&place) {
            Ok(()) => println!("ok      {name}"),
            Err(error) => {
                println!("FAILED  {name}: {error:#}");
                failed += 1;
            }
        }
    }
    if failed > 0 || run == 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
