// SPDX-License-Identifier: GPL-2.0

//! Mistakes made on purpose, one at a time, in test builds: `make module MUTATE=NAME`. A crash test
//! that does not find them all has a hole.
//!
//! Each place where something can be left out asks [`mutated!`](mutated) with a name of its own,
//! which is a constant false in every other build. `scripts/mutations` lists the names. On the host
//! (`tools/volume/src/mutate.rs`) those of the volume are made while a test runs.

/// Whether this build makes the mistake `$name`.
macro_rules! mutated {
    ($name:literal) => {
        cfg!(rdax_mutate = $name)
    };
}
pub(crate) use mutated;
