// SPDX-License-Identifier: GPL-2.0

//! The volume of rdax as an ordinary crate, for the tools and for tests.
//!
//! [`volume`] is compiled from the kernel module's own files. [`env`](mod@env) is the host's side
//! of what they take from their surroundings; [`sim`] is a persistent memory that models the CPU
//! cache, for crash tests; [`ram`] is one that threads share; [`files`] reads and writes as the VFS
//! layer does.

#![forbid(unsafe_code)]

pub mod env;
pub mod files;
pub mod image;
pub mod mutate;
pub mod overlay;
pub mod ram;
pub mod sim;

#[path = "../../../src/volume/mod.rs"]
pub mod volume;
