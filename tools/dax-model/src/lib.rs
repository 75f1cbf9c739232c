// SPDX-License-Identifier: GPL-2.0

//! The pure part of rdax's dirty tracking, compiled for the host from the module's own files.
//!
//! [`model`] is a machine for it, and what is done there; `tests/` runs that under a scheduler
//! which explores the interleavings, and has property tests of the transitions.

#![forbid(unsafe_code)]

pub use rdax_volume::{env, volume};

/// Mistakes made on purpose, as in the volume.
pub mod mutate {
    pub use rdax_volume::mutate::make_mistake;

    /// Whether the mistake `$name` is to be made.
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
