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
    verdicts: Verdicts,
    /// Those that are not in the file yet.
    new: Vec<(String, Layer, Verdict)>,
    saved: Instant,
}

/// By the key of the mutation.
type Verdicts = BTreeMap<String, BTreeMap<Layer, Verdict>>;

/// What is in the file `path`: nothing if there is none.
fn read(path: &Path) -> Result<Verdicts> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| path.display().to_string()),
        Err(_) => Ok(Verdicts::new()),
    }
}

impl Results {
    /// None yet, to be kept in `dir`.
    pub fn new(dir: &Path) -> Self {
        Results {
            path: dir.join("results.json"),
            verdicts: Verdicts::new(),
            new: Vec::new(),
            saved: Instant::now(),
        }
    }

    /// Those in `dir`, if there are.
    pub fn load(dir: &Path) -> Result<Self> {
        let mut results = Results::new(dir);
        results.verdicts = read(&results.path)?;
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
        place.insert(layer, verdict.clone());
        self.new.push((key.to_owned(), layer, verdict));
        if self.saved.elapsed() > Duration::from_secs(5) {
            self.save()?;
        }
        Ok(())
    }

    /// Adds the new verdicts to the file, to which a run of another layer may be adding its own.
    pub fn save(&mut self) -> Result<()> {
        self.saved = Instant::now();
        let mut all = read(&self.path)?;
        for (key, layer, verdict) in self.new.drain(..) {
            all.entry(key).or_default().insert(layer, verdict);
        }
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&all)?)?;
        fs::rename(&new, &self.path).with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_two_layers_keep_the_verdicts_of_each_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let [mut host, mut vm] = [(); 2].map(|()| Results::load(dir.path()).expect("none yet"));
        let verdict = Verdict {
            caught: None,
            reaching: 2,
            run: 1,
        };
        host.put("a", Layer::Host, verdict.clone()).expect("noted");
        vm.put("a", Layer::Vm, verdict.clone()).expect("noted");
        vm.put("b", Layer::Vm, verdict).expect("noted");
        host.save().expect("saved");
        vm.save().expect("saved");
        let both = Results::load(dir.path()).expect("loaded");
        assert!(both.get("a", Layer::Host).is_some() && both.get("a", Layer::Vm).is_some());
        assert!(both.get("b", Layer::Vm).is_some());
    }
}
