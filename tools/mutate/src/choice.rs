// SPDX-License-Identifier: GPL-2.0

//! Which mutations are meant.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;

use crate::mutation::{hash, Kind, Mutation};

/// A choice of mutations.
#[derive(Args, Clone)]
pub struct Choice {
    /// Of files whose names begin so (src/volume); several may be given
    #[arg(long)]
    part: Vec<String>,
    /// Those with these numbers (manifest.json has them)
    #[arg(long)]
    number: Vec<u32>,
    /// Of these, a random sample of this many; a larger sample includes a smaller one
    #[arg(long)]
    sample: Option<usize>,
    /// Chooses the sample
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Choice {
    /// The chosen ones of `all`, in the order in which they are tried.
    pub fn of<'a>(&self, all: &'a [Mutation]) -> Vec<&'a Mutation> {
        let is_part = |mutation: &&Mutation| {
            let mut parts = self.part.iter();
            self.part.is_empty() || parts.any(|part| mutation.file.starts_with(part.as_str()))
        };
        let is_meant = |mutation: &&Mutation| {
            is_part(mutation) && (self.number.is_empty() || self.number.contains(&mutation.id))
        };
        let mut chosen: Vec<&Mutation> = all.iter().filter(is_meant).collect();
        let seed = self.seed.to_string();
        chosen.sort_by_key(|mutation| hash(&[&seed, &mutation.key]));
        chosen.truncate(self.sample.unwrap_or(usize::MAX));
        chosen
    }
}

/// One of the mutations that a file lists: `[[mutation]]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    pub file: String,
    pub function: String,
    pub kind: Kind,
    pub original: String,
    pub mutated: String,
}

#[derive(Deserialize, serde::Serialize)]
pub struct NamedList {
    pub mutation: Vec<Named>,
}

impl From<&Mutation> for Named {
    fn from(mutation: &Mutation) -> Self {
        Named {
            file: mutation.file.clone(),
            function: mutation.function.clone(),
            kind: mutation.kind,
            original: mutation.original.clone(),
            mutated: mutation.mutated.clone(),
        }
    }
}

/// The list in the file `path`.
pub fn named(path: &Path) -> Result<BTreeSet<Named>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let list: NamedList = toml::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(list.mutation.into_iter().collect())
}
