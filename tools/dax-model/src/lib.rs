// SPDX-License-Identifier: GPL-2.0

//! The pure part of rdax's dirty tracking, compiled for the host from the module's own files.
//!
//! `tests/` has property tests of the transitions and a model that runs them under a scheduler
//! which explores the interleavings of faults, stores, syncs, zaps and truncation.

#![forbid(unsafe_code)]

pub use rdax_volume::env;

#[path = "../../../src/dax/chunk.rs"]
pub mod chunk;
#[path = "../../../src/dax/density.rs"]
pub mod density;
#[path = "../../../src/dax/dirty_list.rs"]
pub mod dirty_list;
#[path = "../../../src/dax/heat.rs"]
pub mod heat;
#[path = "../../../src/dax/left.rs"]
pub mod left;
#[path = "../../../src/dax/page_set.rs"]
pub mod page_set;
#[path = "../../../src/dax/place.rs"]
pub mod place;
