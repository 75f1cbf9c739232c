// SPDX-License-Identifier: GPL-2.0

//! Bugs on purpose, one at a time, in test builds: `make module MUTATE=NAME`. Crash tests that do
//! not find them all have a hole.
//!
//! Each place where something can be left out asks [`mutated!`](mutated) with its own name, which
//! is a constant false in every other build. `scripts/mutations` lists the names. On the host
//! (`tools/volume/src/mutate.rs`) those of the volume are switched on while a test runs.

/// Whether this build has the bug `$name`.
macro_rules! mutated {
    ($name:literal) => {
        cfg!(rdax_mutate = $name)
    };
}
pub(crate) use mutated;
