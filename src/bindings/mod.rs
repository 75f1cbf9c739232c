// SPDX-License-Identifier: GPL-2.0

//! The kernel's C interface: `kernel::bindings`, and what those lack (more headers, and the C
//! helpers of `helpers.c`). Generated at build time; nothing but `env`, `pmem`, `vfs` and the mm
//! edge of `dax` may use it.

#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unused_imports,
    unsafe_op_in_unsafe_fn
)]

pub(crate) use kernel::bindings::*;
use kernel::ffi;
use pin_init::{MaybeZeroable, Zeroable};

include!(env!("RDAX_BINDINGS"));
