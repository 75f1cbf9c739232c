// SPDX-License-Identifier: GPL-2.0

//! From virtual to physical, for operands that QEMU does not translate since it does not access
//! them: those of the write-back instructions.
//!
//! Linux maps all memory at one place ("direct map"), without KASLR at a known one. Addresses in it
//! are a subtraction, and through it the page tables of any other address can be read.

use crate::qemu;

/// Where Linux has its direct map with four levels of page tables, and with five. Neither range has
/// any use where the other one is the direct map.
const DIRECT: [u64; 2] = [0xffff_8880_0000_0000, 0xff11_0000_0000_0000];
/// Bytes of the smaller of the two.
const DIRECT_LEN: u64 = 1 << 46;
/// Bit of cr4: five levels.
const LA57: u64 = 1 << 12;
/// Bits of an entry: it is valid; it maps a large page.
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// Bits of an entry that are an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The physical address of `vaddr` if that is in the direct map.
pub fn direct(vaddr: u64) -> Option<u64> {
    let offsets = DIRECT.iter().map(|base| vaddr.wrapping_sub(*base));
    offsets.into_iter().find(|offset| *offset < DIRECT_LEN)
}

/// The physical address of `vaddr` under the page tables of `cr3` and `cr4`.
pub fn walk(vaddr: u64, cr3: u64, cr4: u64) -> Option<u64> {
    let (levels, map) = match cr4 & LA57 {
        0 => (4, DIRECT[0]),
        _ => (5, DIRECT[1]),
    };
    let mut table = cr3 & ADDRESS;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let index = (vaddr >> shift) & 511;
        let entry = qemu::read_memory(map + table + index * 8)?;
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 0 || entry & LARGE != 0 {
            let within = (1 << shift) - 1;
            return Some((entry & ADDRESS & !within) | (vaddr & within));
        }
        table = entry & ADDRESS;
    }
    None
}
