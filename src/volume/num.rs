// SPDX-License-Identifier: GPL-2.0

//! Conversions between number widths.
//!
//! None of these truncates. A number that may not fit saturates: no valid count and no valid length
//! is so large, and a reader refuses what is written with it.

/// A number of bytes or of items in memory.
pub const fn to_usize(n: u64) -> usize {
    const { assert!(usize::BITS == u64::BITS) };
    #[allow(clippy::cast_possible_truncation)] // Both have 64 bits.
    {
        n as usize
    }
}

/// `n` as a signed number, for subtraction.
pub fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A sum of changes, which counts things and is not below zero.
pub fn to_u64(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// `n` in 32 bits.
pub fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// `n` in 16 bits.
pub fn to_u16(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

/// `n` in 8 bits.
pub fn to_u8(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}
