// SPDX-License-Identifier: GPL-2.0

//! The contents that verify themselves.
//!
//! A file under test is an array of slots of 128 bytes. A slot holds two records of 64 bytes, one
//! for the even and one for the odd generations of its contents, so that while one is being
//! written the other is whole. A record says whose it is (seed, file, writer), where (the offset
//! of its slot) and when (generation), and has a CRC32C; it follows from these alone, so a torn
//! record can be told from foreign bytes.

use std::ops::RangeInclusive;

/// Bytes of a record.
pub const RECORD: u64 = 64;
/// Bytes of a slot.
pub const SLOT: u64 = 128;

const MAGIC: u32 = u32::from_le_bytes(*b"RDXS");

/// One record as it lies in memory.
pub type Bytes = [u8; RECORD as usize];

/// Both records of a slot.
pub type SlotBytes = [u8; SLOT as usize];

/// What makes the records of one slot different from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the file in the run.
    pub file: u32,
    /// Who stores to the slot: one worker only.
    pub writer: u32,
    /// Index of the slot in its file.
    pub slot: u64,
    /// The slot is zero in every generation that is a multiple of this power of two: it was
    /// punched. 0: only before the first generation.
    pub cycle: u64,
}

fn word(bytes: &Bytes, index: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
    u64::from_le_bytes(word)
}

fn mix(value: u64) -> u64 {
    // The finalizer of splitmix64.
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Identity {
    /// The record of generation `gen`.
    pub fn record(&self, gen: u64) -> Bytes {
        let mut bytes = [0; RECORD as usize];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.file.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.writer.to_le_bytes());
        bytes[16..24].copy_from_slice(&(self.slot * SLOT).to_le_bytes());
        bytes[24..32].copy_from_slice(&gen.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.seed.to_le_bytes());
        for (index, chunk) in bytes[40..].chunks_exact_mut(8).enumerate() {
            let value = mix(gen ^ mix(self.slot ^ mix(u64::from(self.file)))) ^ index as u64;
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn is_zero(&self, gen: u64) -> bool {
        gen == 0 || (self.cycle != 0 && gen % self.cycle == 0)
    }

    /// The generation whose record lies in half `half` (0 even, 1 odd) of a slot of generation
    /// `gen`; `None` if that half is zero.
    fn holds(&self, half: u64, gen: u64) -> Option<u64> {
        if self.is_zero(gen) {
            return None;
        }
        let newest = if gen & 1 == half { gen } else { gen - 1 };
        (!self.is_zero(newest)).then_some(newest)
    }

    /// The whole slot once generation `gen` is stored.
    pub fn contents(&self, gen: u64) -> SlotBytes {
        let mut bytes = [0; SLOT as usize];
        for half in 0..2 {
            if let Some(newest) = self.holds(half, gen) {
                let at = (half * RECORD) as usize;
                bytes[at..at + RECORD as usize].copy_from_slice(&self.record(newest));
            }
        }
        bytes
    }

    /// What lies in a slot: the newest generation whose record is whole (0: none), and the number
    /// of halves that are neither zero nor one of its records.
    pub fn read(&self, bytes: &SlotBytes) -> (u64, u32) {
        let (mut newest, mut bad) = (0, 0);
        for half in halves(bytes) {
            if half == [0; RECORD as usize] {
                continue;
            }
            let gen = word(&half, 3);
            if self.record(gen) == half {
                newest = newest.max(gen);
            } else {
                bad += 1;
            }
        }
        (newest, bad)
    }

    /// Checks a slot after a crash: each half must be made of words that its records had in one of
    /// `gens`, where the first is promised durable and the last is the newest that can have been
    /// stored. Gives the number of torn halves, or says what is wrong.
    pub fn survived(&self, bytes: &SlotBytes, gens: RangeInclusive<u64>) -> Result<u32, String> {
        let (newest, _) = self.read(bytes);
        if gens.contains(&newest) && *bytes == self.contents(newest) {
            return Ok(0);
        }
        let mut torn = 0;
        for (half, found) in (0u64..).zip(halves(bytes)) {
            let mut candidates = Vec::new();
            for gen in gens.clone() {
                let bytes = self
                    .holds(half, gen)
                    .map_or([0; RECORD as usize], |gen| self.record(gen));
                if candidates.last() != Some(&bytes) {
                    candidates.push(bytes);
                }
            }
            if candidates.contains(&found) {
                continue;
            }
            let explained = (0..RECORD as usize / 8).all(|index| {
                candidates
                    .iter()
                    .any(|c| word(c, index) == word(&found, index))
            });
            if !explained {
                return Err(describe(&found));
            }
            torn += 1;
        }
        Ok(torn)
    }

    /// Whether every byte of a slot that was truncated and stored to in any order is zero or from
    /// one of its own records up to generation `newest`. Words come from one record each.
    pub fn owns(&self, bytes: &SlotBytes, newest: u64) -> bool {
        (0u64..).zip(halves(bytes)).all(|(parity, half)| {
            let mut strange: Vec<usize> = (0..RECORD as usize / 8)
                .filter(|&index| word(&half, index) != 0)
                .collect();
            // The newest are the likeliest.
            let mut gen = newest;
            while !strange.is_empty() && gen > 0 {
                if gen & 1 == parity {
                    let record = self.record(gen);
                    strange.retain(|&index| {
                        let at = index * 8..index * 8 + 8;
                        let mut pairs = half[at.clone()].iter().zip(&record[at]);
                        !pairs.all(|(found, own)| *found == 0 || found == own)
                    });
                }
                gen -= 1;
            }
            strange.is_empty()
        })
    }
}

fn halves(bytes: &SlotBytes) -> [Bytes; 2] {
    let mut halves = [[0; RECORD as usize]; 2];
    for (half, chunk) in halves.iter_mut().zip(bytes.chunks_exact(RECORD as usize)) {
        half.copy_from_slice(chunk);
    }
    halves
}

/// Says in a few words what 64 bytes are.
pub fn describe(bytes: &Bytes) -> String {
    if bytes == &[0; RECORD as usize] {
        return "zeroes".into();
    }
    let crc = (word(bytes, 0) >> 32) as u32;
    if word(bytes, 0) as u32 != MAGIC {
        return format!("foreign bytes {:016x}..", word(bytes, 0).swap_bytes());
    }
    let what = if crc == crc32c::crc32c(&bytes[8..]) {
        "a record"
    } else {
        "a broken record"
    };
    format!(
        "{what} of seed {} file {} writer {} offset {:#x} generation {}",
        word(bytes, 4),
        word(bytes, 1) as u32,
        word(bytes, 1) >> 32,
        word(bytes, 2),
        word(bytes, 3)
    )
}

/// Says in a few words what a slot is.
pub fn describe_slot(bytes: &SlotBytes) -> String {
    let [even, odd] = halves(bytes);
    format!("{} | {}", describe(&even), describe(&odd))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Identity = Identity {
        seed: 7,
        file: 3,
        writer: 2,
        slot: 99,
        cycle: 0,
    };

    #[test]
    fn contents_read_back_as_their_generation() {
        for gen in 0..20 {
            assert_eq!(ID.read(&ID.contents(gen)), (gen, 0));
        }
    }

    #[test]
    fn a_cycle_makes_slots_zero() {
        let id = Identity { cycle: 4, ..ID };
        assert_eq!(id.contents(4), [0; 128]);
        assert_eq!(id.contents(5)[..64], [0; 64]);
        assert_eq!(id.contents(5)[64..], id.record(5));
        assert_eq!(id.contents(6)[..64], id.record(6));
    }

    #[test]
    fn one_wrong_bit_is_seen() {
        for bit in 0..128 * 8 {
            let mut bytes = ID.contents(6);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(ID.read(&bytes), (6, 0), "bit {bit}");
            assert!(ID.survived(&bytes, 6..=6).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_place_is_foreign() {
        for other in [
            Identity { seed: 8, ..ID },
            Identity { file: 4, ..ID },
            Identity { writer: 1, ..ID },
            Identity { slot: 98, ..ID },
        ] {
            assert_eq!(ID.read(&other.contents(5)).1, 2);
            assert!(ID.survived(&other.contents(5), 1..=9).is_err());
        }
    }

    #[test]
    fn survivors_are_promised_or_newer() {
        for promised in 0..8 {
            for found in 0..10 {
                let held = ID.survived(&ID.contents(found), promised..=8).is_ok();
                assert_eq!(held, (promised..=8).contains(&found), "{promised} {found}");
            }
        }
    }

    #[test]
    fn a_slot_owns_its_records_cut_anywhere_and_no_others() {
        for cut in 0..128 {
            let mut bytes = ID.contents(6);
            bytes[cut..].fill(0);
            assert!(ID.owns(&bytes, 6), "{cut}");
            bytes[cut] = 0x11;
            assert!(!ID.owns(&bytes, 6), "{cut}");
        }
        assert!(!ID.owns(&ID.contents(6), 5));
        let other = Identity { file: 4, ..ID };
        assert!(!ID.owns(&other.contents(5), 6));
    }

    #[test]
    fn torn_records_are_told_from_lost_ones() {
        let mut bytes = ID.contents(4);
        bytes[64..96].copy_from_slice(&ID.record(5)[..32]);
        assert_eq!(ID.survived(&bytes, 4..=5), Ok(1));
        assert!(ID.survived(&bytes, 5..=6).is_err());
        assert!(ID.survived(&bytes, 4..=4).is_err());
    }
}
