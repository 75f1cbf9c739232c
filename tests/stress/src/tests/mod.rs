// SPDX-License-Identifier: GPL-2.0

//! The tests.

mod append;
mod direct;
mod mapping;
mod names;
mod space;
mod sync;
mod truncate;

use crate::test::Test;

/// All of them, in the order they run.
pub const ALL: &[&Test] = &[
    &sync::MSYNC,
    &sync::FSYNC_OTHER,
    &sync::HOT,
    &mapping::FORK,
    &mapping::MUNMAP,
    &mapping::REMAP,
    &mapping::MPROTECT,
    &mapping::PRIVATE,
    &append::APPEND,
    &space::HOLES,
    &truncate::TRUNCATE,
    &direct::DIRECT,
    &names::NAMES,
    &names::READDIR,
    &space::ENOSPC,
];

/// Tests that need the file system for themselves and stay out of `mixed`.
pub const ALONE: &[&str] = &[space::ENOSPC.name];
