// SPDX-License-Identifier: GPL-2.0

//! Volumes that were in use and then damaged, structure by structure, with checksums made right:
//! the same ones for the same seed. The host tries the checker, the repair and the volume on them
//! (`rdax-torture damage`), the VM the module (`tests/torture`). `Documentation/torture.rst` tells
//! more.

#![forbid(unsafe_code)]

pub mod damage;
