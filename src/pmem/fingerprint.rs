// SPDX-License-Identifier: GPL-2.0

//! A hash of a page, to see whether it changed: four CRC-32C over every fourth word, mixed.
//!
//! A CRC sees every change within 32 bits, such as a counter's, and misses others with a
//! probability of 2^-32 for each of the four that is concerned. The instruction for it takes a word
//! at a time and needs no vector registers.

use core::arch::asm;

use crate::bindings;

/// Bytes in a page.
const PAGE: usize = 4096;

/// Whether the CPU has the instruction (SSE4.2: all that have NVDIMMs do).
pub(super) fn is_supported() -> bool {
    // SAFETY: reads what was found out at boot.
    unsafe { bindings::rdax_cpu_has_crc32() }
}

/// The fingerprint of the page at `page`. `None` if the media cannot be read: a machine check is
/// caught.
///
/// # Safety
///
/// `page` is valid for reads of a page; its content may change at any time. The CPU has the
/// instruction.
pub(super) unsafe fn of_page(page: *const u8) -> Option<u64> {
    let (mut a, mut b, mut c, mut d) = (1u64, 2u64, 3u64, 4u64);
    let mut failed = 0u32;
    // SAFETY: reads one page at `page`, which the caller vouches for. Each load has an entry in the
    // exception table (struct exception_table_entry; type EX_TYPE_DEFAULT_MCE_SAFE): should it
    // fail, execution goes on at 3, from any iteration, with the registers as they are.
    unsafe {
        asm!(
            ".macro rdax_crc crc, offset",
            "9: crc32 \\crc, qword ptr [{page} + \\offset]",
            ".pushsection __ex_table, \"a\"",
            ".balign 4",
            ".long 9b - .",
            ".long 3f - .",
            ".long {mce_safe}",
            ".popsection",
            ".endm",
            "2:",
            ".irp offset, 0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, 480",
            "rdax_crc {a}, \\offset",
            "rdax_crc {b}, \\offset + 8",
            "rdax_crc {c}, \\offset + 16",
            "rdax_crc {d}, \\offset + 24",
            ".endr",
            "add {page}, 512",
            "dec {left:e}",
            "jnz 2b",
            "jmp 4f",
            "3:",
            "mov {failed:e}, 1",
            "4:",
            ".purgem rdax_crc",
            page = inout(reg) page => _,
            left = inout(reg) PAGE / 512 => _,
            a = inout(reg) a,
            b = inout(reg) b,
            c = inout(reg) c,
            d = inout(reg) d,
            failed = inout(reg) failed,
            mce_safe = const bindings::RDAX_EX_TYPE_DEFAULT_MCE_SAFE,
            options(nostack, readonly),
        );
    }
    // Odd factors, so that equal changes in two of the sums do not cancel out.
    let mixed = (a | b << 32)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add((c | d << 32).wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
    (failed == 0).then_some(mixed)
}
