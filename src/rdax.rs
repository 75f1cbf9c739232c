// SPDX-License-Identifier: GPL-2.0

//! rdax: a DAX file system for persistent memory.

// A module exports nothing: `pub` marks the interface between its parts.
#![allow(unreachable_pub)]

use kernel::prelude::*;

mod bindings;
mod dax;
mod env;
mod mount;
mod mutate;
mod pmem;
mod track;
mod vfs;
// The host tools use items that the module does not.
#[allow(dead_code, unused_imports)]
mod volume;

module! {
    type: RdaxModule,
    name: "rdax",
    authors: ["The rdax authors"],
    description: "DAX file system for persistent memory",
    license: "GPL",
    alias: ["fs-rdax"],
}

/// What the module holds while it is loaded.
struct RdaxModule {
    _fs: vfs::FileSystem,
}

impl kernel::Module for RdaxModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(RdaxModule {
            _fs: vfs::FileSystem::register()?,
        })
    }
}
