// SPDX-License-Identifier: GPL-2.0

//! What rdax is to reach: the numbers of aims.toml.

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};

/// Upper bounds for one operation, on average.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Aim {
    /// The operation.
    pub operation: String,
    /// Instructions.
    pub instructions: Option<f64>,
    /// Page faults.
    pub faults: Option<f64>,
    /// Cache lines written back.
    pub lines: Option<f64>,
    /// Fences.
    pub fences: Option<f64>,
    /// A multiple of the instructions of the operation `of`.
    pub times: Option<f64>,
    /// See `times`.
    pub of: Option<String>,
}

#[derive(Deserialize)]
struct File {
    aim: Vec<Aim>,
}

/// All aims.
pub fn read() -> Result<Vec<Aim>> {
    parse(include_str!("../../aims.toml")).context("aims.toml")
}

fn parse(text: &str) -> Result<Vec<Aim>> {
    let aims = toml::from_str::<File>(text)?.aim;
    for (index, aim) in aims.iter().enumerate() {
        let bounds = [
            aim.instructions,
            aim.faults,
            aim.lines,
            aim.fences,
            aim.times,
        ];
        let of = aim.of.is_some();
        ensure!(
            bounds.iter().any(Option::is_some)
                && aim.times.is_some() == of
                && !(of && aim.instructions.is_some()),
            "{}: no bound, or two for the instructions",
            aim.operation
        );
        ensure!(
            aims[..index]
                .iter()
                .all(|other| other.operation != aim.operation),
            "{}: two aims",
            aim.operation
        );
    }
    Ok(aims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aims_can_be_read() {
        assert!(read().unwrap().len() > 20);
    }

    #[test]
    fn an_aim_has_a_bound_and_only_one_for_instructions() {
        let aim = |bounds: &str| parse(&format!("[[aim]]\noperation = \"x\"\n{bounds}"));
        assert_eq!(aim("faults = 0").unwrap()[0].faults, Some(0.0));
        assert!(aim("").is_err());
        assert!(aim("times = 2").is_err());
        assert!(aim("times = 2\nof = \"y\"\ninstructions = 3").is_err());
        assert!(aim("instruction = 3").is_err());
        let two = "faults = 0\n[[aim]]\noperation = \"x\"\nlines = 1";
        assert!(aim(two).is_err());
    }
}
