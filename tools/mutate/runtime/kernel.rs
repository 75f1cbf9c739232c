// SPDX-License-Identifier: GPL-2.0

//! The switches of the mutated tree, in the kernel: runtime/kernel.c has the parameters.

use core::sync::atomic::{AtomicU32, AtomicU8, Ordering::Relaxed};

/// The mistake that is made: the module's parameter `mutate`.
#[no_mangle]
static rdax_mutate: AtomicU32 = AtomicU32::new(0);
/// Which switches were asked.
#[no_mangle]
static rdax_mutate_reached: [AtomicU8; COUNT] = [const { AtomicU8::new(0) }; COUNT];
#[no_mangle]
static rdax_mutate_count: u32 = COUNT as u32;

/// Whether mistake `n` is made.
#[inline]
pub fn on(n: u32) -> bool {
    if let Some(asked) = rdax_mutate_reached.get(n as usize) {
        if asked.load(Relaxed) == 0 {
            asked.store(1, Relaxed);
        }
    }
    rdax_mutate.load(Relaxed) == n
}
