// SPDX-License-Identifier: GPL-2.0

//! The bytes that operations write: each word identifies the operation that wrote it, and its place
//! in the file. No byte is zero, so that missing data can be distinguished from a hole.

/// The word that operation `op` writes at byte `8 * word` of a file.
fn word(op: usize, word: u64) -> [u8; 8] {
    // SplitMix64's finish, of a number that is different for each.
    let mut z = (((op as u64 + 1) << 40) | word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31))
        .to_le_bytes()
        .map(|byte| if byte == 0 { 0xa5 } else { byte })
}

/// Fills `buf` with what operation `op` of a workload, counted from 0, writes at byte `at` of a
/// file.
pub fn fill(op: usize, at: u64, buf: &mut [u8]) {
    let mut done = 0;
    while done < buf.len() {
        let byte = at + done as u64;
        let skip = (byte % 8) as usize;
        let n = (8 - skip).min(buf.len() - done);
        buf[done..done + n].copy_from_slice(&word(op, byte / 8)[skip..skip + n]);
        done += n;
    }
}

/// Which of the operations `ops`, each a number and the range it writes, writes the word that
/// begins with `found`, and at which byte.
pub fn origin(
    found: &[u8],
    ops: impl Iterator<Item = (usize, std::ops::Range<u64>)>,
) -> Option<(usize, u64)> {
    for (op, range) in ops {
        for at in range.start.div_ceil(8)..range.end / 8 {
            if word(op, at).starts_with(found) {
                return Some((op, at * 8));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_the_whole() {
        let mut whole = [0; 100];
        fill(3, 1000, &mut whole);
        let mut piece = [0; 41];
        fill(3, 1013, &mut piece);
        assert_eq!(piece, whole[13..54]);
        assert!(!whole.contains(&0));
    }

    #[test]
    fn a_word_tells_where_it_is_from() {
        let mut buf = [0; 16];
        fill(7, 4096, &mut buf);
        let ops = || [(6, 0..8192), (7, 4000..8192)].into_iter();
        assert_eq!(origin(&buf[8..], ops()), Some((7, 4104)));
        assert_eq!(origin(&buf[8..13], ops()), Some((7, 4104)));
        assert_eq!(origin(&[0; 8], ops()), None);
    }
}
