// SPDX-License-Identifier: GPL-2.0

//! What `fsck.rdax` does beyond checking, as a library for the programs and the tests: [`repair`],
//! [`trial`], a mount in memory, and [`media`], which reads a damaged volume, also for `rdax-dump`.
//! [`args`] are the command lines of both.

#![forbid(unsafe_code)]

pub mod args;
pub mod media;
pub mod repair;
pub mod trial;
