// SPDX-License-Identifier: GPL-2.0

//! What runs in the guest, and what judges a recovered volume: a workload and its oracle, or a
//! database and its library.

use std::path::Path;

use anyhow::{Context, Result};
use rdax_crash_ops::client::{self, Client};
use rdax_crash_ops::{names, workload, Oracle, Violation, Workload};
use rdax_volume::volume::Volume;

use crate::client::Databases;
use crate::image::Image;

/// Reports what is wrong with a volume, as `recover` opened it, if `finished` operations had
/// returned at the crash and, if `in_flight`, the next one had begun.
pub trait Judge {
    fn check(&self, volume: &Volume<Image<'_>>, finished: usize, in_flight: bool)
        -> Vec<Violation>;
}

impl Judge for Oracle {
    fn check(
        &self,
        volume: &Volume<Image<'_>>,
        finished: usize,
        in_flight: bool,
    ) -> Vec<Violation> {
        Oracle::check(self, volume, finished, in_flight)
    }
}

/// What runs in the guest.
pub struct Subject {
    pub name: String,
    /// What it was made from besides.
    pub seed: u64,
    /// Its operations, in words.
    pub ops: Vec<String>,
    /// The number of operations that only prepare the others.
    pub setup: usize,
    /// None if it is a client.
    workload: Option<Workload>,
}

/// The names of all.
pub fn all_names() -> Vec<String> {
    let mut all = names();
    all.extend(Client::names());
    all
}

impl Subject {
    /// The one of that name and seed.
    pub fn find(name: &str, seed: u64) -> Result<Self> {
        if Client::find(name).is_some() {
            return Ok(Subject {
                name: name.to_owned(),
                seed,
                ops: (0..client::TRANSACTIONS)
                    .map(|n| format!("transaction {n}"))
                    .collect(),
                setup: 1,
                workload: None,
            });
        }
        let workload = workload(name, seed).with_context(|| format!("nothing is called {name}"))?;
        Ok(Subject {
            name: name.to_owned(),
            seed,
            ops: workload.ops.iter().map(ToString::to_string).collect(),
            setup: workload.setup,
            workload: Some(workload),
        })
    }

    /// Whether its name alone does not say what it does.
    pub fn is_seeded(name: &str) -> bool {
        name.starts_with("random:") || Client::find(name).is_some()
    }

    /// What runs it in the guest.
    pub fn command(&self) -> String {
        let (name, seed) = (&self.name, self.seed);
        format!("rdax-crash-guest run --dir /mnt/pmem {name} {seed}")
    }

    /// Its judge, with the programs of the checkout `top`.
    pub fn judge(&self, top: &Path) -> Result<Box<dyn Judge>> {
        Ok(match &self.workload {
            Some(workload) => Box::new(Oracle::new(workload)),
            None => Box::new(Databases::new(top, &self.name, self.seed)?),
        })
    }
}
