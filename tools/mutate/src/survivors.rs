// SPDX-License-Identifier: GPL-2.0

//! Mutations that no test has to find, with the reason: `tests/mutants/survivors.toml`.

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use serde::Deserialize;

use crate::mutation::{Kind, Mutation};

/// An entry of the list. What is not given may be anything.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survivor {
    pub file: String,
    pub function: Option<String>,
    pub kind: Option<Kind>,
    pub original: Option<String>,
    pub mutated: Option<String>,
    pub reason: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    survivor: Vec<Survivor>,
}

fn fits<T: PartialEq>(wanted: &Option<T>, is: &T) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted == is)
}

impl Survivor {
    pub fn is(&self, mutation: &Mutation) -> bool {
        self.file == mutation.file
            && fits(&self.function, &mutation.function)
            && fits(&self.kind, &mutation.kind)
            && fits(&self.original, &mutation.original)
            && fits(&self.mutated, &mutation.mutated)
    }
}

/// The list in the file `path`.
pub fn load(path: &Path) -> Result<Vec<Survivor>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let list: List = toml::from_str(&text).with_context(|| path.display().to_string())?;
    for entry in &list.survivor {
        let narrow = entry.function.is_some() || entry.original.is_some();
        ensure!(
            narrow && !entry.reason.trim().is_empty(),
            "{}: an entry for {} lacks a reason, or what it is about",
            path.display(),
            entry.file
        );
    }
    Ok(list.survivor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_needs_a_reason() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("survivors.toml");
        let entry = "[[survivor]]\nfile = 'src/a/b.rs'\nfunction = 'f'\nkind = 'off-by-one'\n";
        fs::write(&path, format!("{entry}reason = ' '\n")).expect("written");
        assert!(load(&path).is_err());
        fs::write(&path, format!("{entry}reason = 'a hint'\n")).expect("written");
        let list = load(&path).expect("the list is good");
        assert_eq!(list[0].kind, Some(Kind::OffByOne));
    }
}
