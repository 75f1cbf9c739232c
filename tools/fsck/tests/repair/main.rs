// SPDX-License-Identifier: GPL-2.0

//! Repairs: one test for each kind of damage, each also cut off at every fence, and random damage.

// The volume with something of everything is that of the checker's tests.
#[allow(dead_code)]
#[path = "../../../volume/tests/check/bed.rs"]
mod bed;
#[path = "../../../volume/tests/common/mod.rs"]
mod common;

mod entries;
mod fixed;
mod inodes;
mod links;
mod media;
mod mended;
mod random;
mod trees;
mod weighed;
mod xattrs;
