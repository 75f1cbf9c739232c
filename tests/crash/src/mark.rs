// SPDX-License-Identifier: GPL-2.0

//! Marks: an instruction that does nothing, which tells the tracer of the machine where the program
//! is. A number is in rdi, another in rsi.

use std::arch::asm;

/// Where the program is.
#[derive(Clone, Copy)]
pub enum Mark {
    /// An operation begins, the one of this number.
    Begins(usize),
    /// It has returned.
    Returned(usize),
    /// It has failed, with this error number.
    Failed(usize, u16),
    /// All is ready for the first operation, and nothing is decided yet.
    Ready,
    /// All operations have returned.
    Ended,
}

/// Emits a mark. What was stored before is stored before it.
pub fn mark(mark: Mark) {
    let (kind, number) = match mark {
        Mark::Begins(op) => (1_u64, op as u64),
        Mark::Returned(op) => (2, op as u64),
        Mark::Failed(op, errno) => (3, ((op as u64) << 16) | u64::from(errno)),
        Mark::Ready => (4, 0),
        Mark::Ended => (5, 0),
    };
    // SAFETY: nop dword ptr [rax + 0x504d4b52] accesses nothing and changes nothing.
    unsafe {
        asm!(
            ".byte 0x0f, 0x1f, 0x80, 0x52, 0x4b, 0x4d, 0x50",
            in("rdi") kind,
            in("rsi") number,
            options(nostack, preserves_flags),
        );
    }
}
