// SPDX-License-Identifier: GPL-2.0

//! The pure part of rdax's dirty tracking, compiled for the host from the module's own files.
//!
//! [`model`] is a machine for it, and the scenes that run on it; `tests/` runs them under a
//! scheduler which explores the interleavings, and has property tests of the transitions.

#![forbid(unsafe_code)]

pub use rdax_volume::{env, volume};

/// Bugs on purpose, as in the volume.
pub mod mutate {
    pub use rdax_volume::mutate::make_mistake;

    /// Whether to make the bug `$name`.
    macro_rules! mutated {
        ($name:literal) => {
            rdax_volume::mutate::is_made($name)
        };
    }
    pub(crate) use mutated;
}

#[path = "../../../src/track/mod.rs"]
pub mod track;

pub mod model;
