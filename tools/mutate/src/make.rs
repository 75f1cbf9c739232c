// SPDX-License-Identifier: GPL-2.0

//! Makes the mutated tree: again and again, without what did not compile, until it builds.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Result};

use crate::build::{build_kernel, check_host, Outcome};
use crate::mutation::Mutation;
use crate::tree::Tree;

/// Rounds of leaving out what does not compile; more are not needed unless something is wrong.
const ROUNDS: usize = 30;

/// Where things are.
pub struct Places {
    /// The checkout.
    pub top: PathBuf,
    /// What is made and known.
    pub out: PathBuf,
}

impl Places {
    pub fn new(top: &Path, out: &Path) -> Result<Self> {
        fs::create_dir_all(out)?;
        Ok(Places {
            top: top.canonicalize()?,
            out: out.canonicalize()?,
        })
    }

    pub fn tree(&self) -> PathBuf {
        self.out.join("tree")
    }

    /// Where the module is built.
    pub fn module(&self) -> PathBuf {
        self.out.join("module")
    }

    /// The keys of what does not compile, from earlier builds.
    fn left_out(&self) -> PathBuf {
        self.out.join("left-out")
    }
}

/// Makes the tree with the mutations that `wanted` names, for the kernel as well if `kernel`, and
/// the list of those that are in it.
pub fn make(places: &Places, kernel: bool, wanted: &dyn Fn(&Mutation) -> bool) -> Result<()> {
    let text = fs::read_to_string(places.left_out()).unwrap_or_default();
    let mut left_out: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let mut host_built = false;
    for _ in 0..ROUNDS {
        let wanted = |mutation: &Mutation| wanted(mutation) && !left_out.contains(&mutation.key);
        let tree = Tree::make(&places.top, &places.tree(), &wanted)?;
        let outcome = match host_built {
            false => check_host(&places.top, &tree)?,
            true => build_kernel(&places.top, &tree, &places.module())?,
        };
        match outcome {
            Outcome::Wrong(ids) => {
                let mutations = ids.iter().filter_map(|id| tree.mutations.get(id));
                let before = left_out.len();
                left_out.extend(mutations.map(|mutation| mutation.key.clone()));
                let new = left_out.len() - before;
                ensure!(new > 0, "what does not compile was left out already");
                println!("{new} mutations do not compile");
                let keys: Vec<&str> = left_out.iter().map(String::as_str).collect();
                fs::write(places.left_out(), keys.join("\n") + "\n")?;
            }
            Outcome::Built if kernel && !host_built => host_built = true,
            Outcome::Built => {
                let list: Vec<&Mutation> = tree.mutations.values().collect();
                let path = places.out.join("manifest.json");
                fs::write(path, serde_json::to_vec_pretty(&list)?)?;
                println!("{} mutations, {} left out", list.len(), left_out.len());
                return Ok(());
            }
        }
    }
    bail!("after {ROUNDS} rounds there are still mutations that do not compile")
}
