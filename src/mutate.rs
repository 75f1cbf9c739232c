// SPDX-License-Identifier: GPL-2.0

//! Mistakes made on purpose, one at a time, in test builds: `make module MUTATE=NAME`. A crash test
//! that does not find them all has a hole.
//!
//! Each place where something can be left out asks [`mutated!`](mutated) with a name of its own,
//! which is a constant false in every other build. `scripts/mutations` lists the names. What two
//! places do that is not told apart in any state after a crash has no name: the last step of a
//! commit, of which the fence is implied by that of the next transaction in the lane.

/// Whether this build makes the mistake `$name`.
macro_rules! mutated {
    ($name:literal) => {
        cfg!(rdax_mutate = $name)
    };
}
pub(crate) use mutated;
