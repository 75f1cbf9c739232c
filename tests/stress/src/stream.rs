// SPDX-License-Identifier: GPL-2.0

//! Files that grow by appends of any length, as a stream of records.
//!
//! The ledger has one slot for such a file. Its generation counts rounds (a file that is long
//! enough is truncated to nothing, and the next round starts) and, in the lower 32 bits, bytes.

use std::fs::File;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;

use anyhow::{ensure, Context, Result};

use crate::record::{describe, SlotBytes, RECORD, SLOT};
use crate::slots::{SlotFile, Tracked};

/// The generation of `bytes` bytes in `round`.
pub fn generation(round: u64, bytes: u64) -> u64 {
    (round << 32) | bytes
}

/// Round and bytes of a generation.
pub fn position(generation: u64) -> (u64, u64) {
    (generation >> 32, generation & 0xffff_ffff)
}

/// What slot `slot` of the stream holds in `round`, from 1: both records.
pub fn contents(file: &SlotFile, round: u64, slot: u64) -> SlotBytes {
    file.identity(slot).contents(2 * round + 1)
}

/// Bytes `from..to` of the stream in `round`.
pub fn bytes(file: &SlotFile, round: u64, from: u64, to: u64) -> Vec<u8> {
    let slots = from / SLOT..to.div_ceil(SLOT);
    let mut bytes: Vec<u8> = slots.flat_map(|slot| contents(file, round, slot)).collect();
    bytes.drain(..(from % SLOT) as usize);
    bytes.truncate((to - from) as usize);
    bytes
}

/// Checks a file that nobody uses.
pub fn check_all(file: &Tracked) -> Result<()> {
    let gen = file.ledger.stored(0);
    verify(file, gen..=gen)
}

/// Checks a file that nobody uses: it must be in one of the generations `allowed`.
pub fn verify(file: &SlotFile, allowed: RangeInclusive<u64>) -> Result<()> {
    let fd = File::open(&file.path).with_context(|| file.path.display().to_string())?;
    let length = fd.metadata()?.len();
    let (first, last) = (position(*allowed.start()), position(*allowed.end()));
    let rounds = first.0..=last.0;
    ensure!(
        rounds
            .clone()
            .any(|round| allowed.contains(&generation(round, length))),
        "MISMATCH {}: expected {} bytes in round {} to {} in round {}, found {length}",
        file.path.display(),
        first.1,
        first.0,
        last.1,
        last.0
    );
    let mut found = vec![0; length as usize];
    fd.read_exact_at(&mut found, 0)?;
    let mut wrong = 0;
    for round in rounds
        .rev()
        .filter(|&round| allowed.contains(&generation(round, length)))
    {
        let expected = bytes(file, round, 0, length);
        match found
            .iter()
            .zip(&expected)
            .position(|(found, expected)| found != expected)
        {
            None => return Ok(()),
            Some(at) => wrong = wrong.max(at as u64),
        }
    }
    let at = wrong / RECORD * RECORD;
    let mut record = [0; RECORD as usize];
    let end = length.min(at + RECORD) as usize;
    record[..end - at as usize].copy_from_slice(&found[at as usize..end]);
    let expected = format!("the stream of round {} to {}", first.0, last.0);
    Err(file.mismatch(
        at / SLOT,
        expected,
        format!("{} at {wrong:#x}", describe(&record)),
    ))
}
