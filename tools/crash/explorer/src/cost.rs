// SPDX-License-Identifier: GPL-2.0

//! What recording costs: the processor time of QEMU with and without the plugin.

use std::path::Path;

use anyhow::{ensure, Result};

use crate::subject::Subject;
use crate::vm::{FileSystem, Machine};

/// One that does much, and one that does little, so that the difference is without what it takes to
/// resume and end the VM.
const MUCH: &str = "sqlite:wal";
const LITTLE: &str = "mmap:sync";
/// The minimum of this many measurements counts.
const ROUNDS: usize = 3;

/// Measures and prints how many times as long as without the plugin a run takes with it.
pub fn cost(top: &Path) -> Result<bool> {
    let machine = Machine::boot(top, None, FileSystem::Rdax, true)?;
    let seconds = |name: &str, traced: bool| -> Result<f64> {
        let command = Subject::find(name, 1)?.command();
        let mut least = f64::INFINITY;
        for _ in 0..ROUNDS {
            let seconds = match traced {
                true => machine.record(&command)?.processor,
                false => machine.run(&command)?,
            };
            least = least.min(seconds.as_secs_f64());
        }
        Ok(least)
    };
    let without = seconds(MUCH, false)? - seconds(LITTLE, false)?;
    let with = seconds(MUCH, true)? - seconds(LITTLE, true)?;
    ensure!(
        without > 0.0,
        "{MUCH} takes no longer than {LITTLE}: too much else runs here"
    );
    println!(
        "{MUCH} without {LITTLE}: {without:.2} s of processor time, recorded {with:.2} s: {:.1} times",
        with / without
    );
    Ok(true)
}
