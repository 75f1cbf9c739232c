// SPDX-License-Identifier: GPL-2.0

//! rdax: a DAX file system for persistent memory.

use kernel::prelude::*;
use zerocopy_derive::{Immutable, KnownLayout};

mod bindings;

module! {
    type: RdaxModule,
    name: "rdax",
    authors: ["The rdax authors"],
    description: "DAX file system for persistent memory",
    license: "GPL",
}

struct RdaxModule;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Magic {
    bytes: [u8; 4],
}

impl kernel::Module for RdaxModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let magic = Magic { bytes: *b"rdax" };
        // SAFETY: dax_write_cache_enabled and dax_alive only test a flag bit; arch_wb_cache_pmem
        // takes any kernel address.
        let cached = unsafe {
            bindings::arch_wb_cache_pmem(
                magic.as_bytes().as_ptr().cast_mut().cast(),
                magic.as_bytes().len(),
            );
            bindings::rdax_write_cache_enabled
        };
        pr_info!("loaded, {:?}, helper at {:p}\n", magic.as_bytes(), cached as *const ());
        Ok(RdaxModule)
    }
}
