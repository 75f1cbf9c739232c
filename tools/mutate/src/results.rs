// SPDX-License-Identifier: GPL-2.0

//! What became of each mutation, kept from run to run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Tests that can find a mistake, the cheapest first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The tests of the crates in tools/.
    Host,
    /// The tests in tests/vm.
    Vm,
}

/// What a layer has to say of a mutation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The test that found it, and how that ended.
    pub caught: Option<(String, String)>,
    /// Tests that reach the place.
    pub reaching: usize,
    /// Of these, how many were run.
    pub run: usize,
}

/// The file with the verdicts.
pub struct Results {
    path: PathBuf,
    /// By the key of the mutation.
    verdicts: BTreeMap<String, BTreeMap<Layer, Verdict>>,
    saved: Instant,
}

impl Results {
    /// None yet, to be kept in `dir`.
    pub fn new(dir: &Path) -> Self {
        Results {
            path: dir.join("results.json"),
            verdicts: BTreeMap::new(),
            saved: Instant::now(),
        }
    }

    /// Those in `dir`, if there are.
    pub fn load(dir: &Path) -> Result<Self> {
        let mut results = Results::new(dir);
        if let Ok(text) = fs::read(&results.path) {
            let parsed = serde_json::from_slice(&text);
            results.verdicts = parsed.with_context(|| results.path.display().to_string())?;
        }
        Ok(results)
    }

    pub fn get(&self, key: &str, layer: Layer) -> Option<&Verdict> {
        self.verdicts.get(key)?.get(&layer)
    }

    /// The first layer that caught it.
    pub fn caught(&self, key: &str) -> Option<(Layer, &Verdict)> {
        let verdicts = self.verdicts.get(key)?.iter();
        let mut caught = verdicts.filter(|(_, verdict)| verdict.caught.is_some());
        caught.next().map(|(layer, verdict)| (*layer, verdict))
    }

    /// Takes down a verdict. On the disk it is a while later, or with [`Results::save`].
    pub fn put(&mut self, key: &str, layer: Layer, verdict: Verdict) -> Result<()> {
        let place = self.verdicts.entry(key.to_owned()).or_default();
        place.insert(layer, verdict);
        if self.saved.elapsed() > Duration::from_secs(5) {
            self.save()?;
        }
        Ok(())
    }

    pub fn save(&mut self) -> Result<()> {
        self.saved = Instant::now();
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&self.verdicts)?)?;
        fs::rename(&new, &self.path).with_context(|| self.path.display().to_string())
    }
}
