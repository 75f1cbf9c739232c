// SPDX-License-Identifier: GPL-2.0

//! Zeroing past the cache. The kernel has no such function: `__memcpy_flushcache` needs a source.

use core::arch::asm;

use crate::bindings;
use crate::mutate::mutated;

/// Bytes in a cache line.
const LINE: usize = 64;

/// Zeroes `len` bytes at `to` past the cache: durable after a fence.
///
/// # Safety
///
/// `to` is valid for writes of `len` bytes, and nobody else accesses them meanwhile but user space
/// through a mapping.
pub(super) unsafe fn zero(to: *mut u8, len: usize) {
    let head = to.align_offset(LINE).min(len);
    let lines = (len - head) / LINE;
    let tail = len - head - lines * LINE;
    // SAFETY: all three pieces are inside the `len` bytes at `to`; the middle one starts at a line.
    unsafe {
        zero_cached(to, head);
        zero_lines(to.add(head), lines);
        zero_cached(to.add(head + lines * LINE), tail);
    }
}

/// Zeroes a piece of a line through the cache and writes it back.
///
/// # Safety
///
/// As for [`zero`].
unsafe fn zero_cached(to: *mut u8, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: by the caller's promise.
    unsafe {
        to.write_bytes(0, len);
        if !mutated!("zero-write-back") {
            bindings::arch_wb_cache_pmem(to.cast(), len);
        }
    }
}

/// Zeroes whole lines with non-temporal stores.
///
/// # Safety
///
/// As for [`zero`]; `to` is aligned to a line.
unsafe fn zero_lines(to: *mut u8, lines: usize) {
    if lines == 0 {
        return;
    }
    // SAFETY: stores to `lines * 64` bytes at `to`, which the caller vouches for, and changes
    // nothing else but the registers named. movnti works on general registers.
    unsafe {
        asm!(
            "2:",
            "movnti qword ptr [{to}], {zero}",
            "movnti qword ptr [{to} + 8], {zero}",
            "movnti qword ptr [{to} + 16], {zero}",
            "movnti qword ptr [{to} + 24], {zero}",
            "movnti qword ptr [{to} + 32], {zero}",
            "movnti qword ptr [{to} + 40], {zero}",
            "movnti qword ptr [{to} + 48], {zero}",
            "movnti qword ptr [{to} + 56], {zero}",
            "add {to}, 64",
            "dec {lines}",
            "jnz 2b",
            to = inout(reg) to => _,
            lines = inout(reg) lines => _,
            zero = in(reg) 0u64,
            options(nostack),
        );
    }
}
