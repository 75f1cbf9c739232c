// SPDX-License-Identifier: GPL-2.0

//! A hash of a page, to detect changes: four chains of AES rounds, each of which uses every fourth
//! 16 bytes as its next round key; at the end they are combined.
//!
//! A round is one instruction for 16 bytes, and data goes through one more round for each 64 bytes
//! that follow. Two contents of a page that were not constructed for it have the same fingerprint
//! with a probability of 2^-64. (It is no cryptographic hash: the rounds have no secret.)
//!
//! The instruction needs vector registers, and saving those of user space takes about as long as
//! one page: so a sync acquires them once for all its pages, see [`Fingerprints`].

use core::arch::asm;

use super::{DirectMap, PAGE};
use crate::bindings;

/// Pages between two checks whether another task needs the processor: some 100 microseconds, with
/// the write-back of each.
const BATCH: u32 = 32;

/// Whether the CPU has the instruction (AES-NI; all CPUs that support NVDIMMs do).
pub(super) fn is_supported() -> bool {
    // SAFETY: reads what was found out at boot.
    unsafe { bindings::rdax_cpu_has_aes() }
}

/// Takes the fingerprints of pages. While it exists, the task owns the vector registers: it must
/// not sleep.
pub struct Fingerprints<'a> {
    map: &'a DirectMap,
    /// How many were taken since the last check for other tasks.
    taken: u32,
}

impl<'a> Fingerprints<'a> {
    pub(super) fn new(map: &'a DirectMap) -> Self {
        Self::begin();
        Fingerprints { map, taken: 0 }
    }

    /// A hash of the content of `block`, which changes if the content does. `None` if the media or
    /// the CPU does not allow it.
    pub fn of(&mut self, block: u64) -> Option<u64> {
        if self.taken == BATCH {
            self.taken = 0;
            Self::end();
            Self::begin();
        }
        self.taken += 1;
        let page = self.map.memory.span(block * PAGE, PAGE).ok()?;
        // SAFETY: the span is a page; the registers are the task's, and the CPU was asked for the
        // instruction.
        unsafe { self.map.fingerprints.then(|| of_page(page.as_ptr()))? }
    }

    fn begin() {
        // Nothing uses floating point arithmetic, so its state need not be set up.
        // SAFETY: called by tasks only, with interrupts on, and never while one of these lives.
        unsafe { bindings::kernel_fpu_begin_mask(0) };
    }

    fn end() {
        // SAFETY: the task has the registers: each `end` comes after a `begin`.
        unsafe { bindings::kernel_fpu_end() };
    }
}

impl Drop for Fingerprints<'_> {
    fn drop(&mut self) {
        Self::end();
    }
}

/// The fingerprint of the page at `page`. `None` if the media cannot be read: a machine check is
/// caught.
///
/// # Safety
///
/// `page` is aligned and valid for reads of a page; its content may change at any time. The CPU has
/// AES-NI, and the task the vector registers.
unsafe fn of_page(page: *const u8) -> Option<u64> {
    let mut failed = 0u32;
    let hash: u64;
    // Each load has an entry in the exception table (struct exception_table_entry; type
    // EX_TYPE_DEFAULT_MCE_SAFE): if it fails, execution continues at 3, from any iteration, with
    // the registers as they are. SAFETY: reads one page at `page`, which the caller vouches for;
    // the registers are the task's.
    unsafe {
        asm!(
            ".macro rdax_aes state, offset",
            "9: aesenc \\state, xmmword ptr [{page} + \\offset]",
            ".pushsection __ex_table, \"a\"",
            ".balign 4",
            ".long 9b - .",
            ".long 3f - .",
            ".long {mce_safe}",
            ".popsection",
            ".endm",
            "pxor xmm0, xmm0",
            "pxor xmm1, xmm1",
            "pxor xmm2, xmm2",
            "pxor xmm3, xmm3",
            "2:",
            ".irp offset, 0, 64, 128, 192, 256, 320, 384, 448",
            "rdax_aes xmm0, \\offset",
            "rdax_aes xmm1, \\offset + 16",
            "rdax_aes xmm2, \\offset + 32",
            "rdax_aes xmm3, \\offset + 48",
            ".endr",
            "add {page}, 512",
            "dec {left:e}",
            "jnz 2b",
            // Each chain runs at least two rounds after its last data.
            "aesenc xmm0, xmm1",
            "aesenc xmm2, xmm3",
            "aesenc xmm0, xmm2",
            "aesenc xmm0, xmm1",
            "aesenc xmm0, xmm3",
            "jmp 4f",
            "3:",
            "mov {failed:e}, 1",
            "4:",
            "movq {hash}, xmm0",
            ".purgem rdax_aes",
            page = inout(reg) page => _,
            left = inout(reg) PAGE / 512 => _,
            failed = inout(reg) failed,
            hash = lateout(reg) hash,
            mce_safe = const bindings::RDAX_EX_TYPE_DEFAULT_MCE_SAFE,
            out("xmm0") _,
            out("xmm1") _,
            out("xmm2") _,
            out("xmm3") _,
            options(nostack, readonly),
        );
    }
    (failed == 0).then_some(hash)
}
