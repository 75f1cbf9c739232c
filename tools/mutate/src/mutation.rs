// SPDX-License-Identifier: GPL-2.0

//! What a mutation is, and the list of them all.

use std::fs;
use std::hash::Hasher;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

/// What is done to the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `<` for `<=` and the like.
    Boundary,
    /// `==` for `!=`, or the other way round.
    Equality,
    /// A condition, or a constant of type bool, is the opposite.
    Negated,
    /// What is conditional never happens; a loop is not entered; a pattern does not match.
    Never,
    /// `&&` for `||`, or the other way round.
    Logic,
    /// `+` for `-`, `&` for `|`, or the other way round.
    Operator,
    /// A number is one more or less.
    OffByOne,
    /// A division rounds to the other side.
    Rounding,
    /// `.min()` or `.max()` is left out.
    Limit,
    /// A range is one shorter.
    Range,
    /// A statement is left out.
    Dropped,
    /// An error is ignored where `?` would return it.
    Forgiven,
    /// What is held until the end of a block is let go at once.
    Guard,
    /// Two neighbouring statements change places.
    Swapped,
    /// A function returns at once, with this.
    Returned,
}

/// One mutation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mutation {
    /// What switches it on, in this build.
    pub id: u32,
    /// What it is called in every build: it follows from the text of the function.
    pub key: String,
    /// The directory below src/.
    pub room: String,
    pub file: String,
    pub line: usize,
    pub function: String,
    pub kind: Kind,
    /// The code that is changed.
    pub original: String,
    /// What becomes of it.
    pub mutated: String,
    /// Among those of the function that look the same.
    pub nth: usize,
}

impl Mutation {
    /// In one line.
    pub fn describe(&self) -> String {
        let kind = serde_json::to_value(self.kind).unwrap_or_default();
        format!(
            "{}:{} {} {}: {} -> {}",
            self.file,
            self.line,
            self.function,
            kind.as_str().unwrap_or_default(),
            self.original,
            self.mutated
        )
    }
}

/// A number that follows from `parts` alone, in every build and on every machine.
pub fn hash(parts: &[&str]) -> u64 {
    let mut hasher = SipHasher24::new();
    for part in parts {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff);
    }
    hasher.finish()
}

/// Reads the list of `dir`.
pub fn load(dir: &Path) -> Result<Vec<Mutation>> {
    let path = dir.join("manifest.json");
    let text = fs::read(&path)
        .with_context(|| format!("{}: rdax-mutants make writes it", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}
