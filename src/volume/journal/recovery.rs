// SPDX-License-Identifier: GPL-2.0

//! Recovery of the lanes at mount.

use zerocopy::IntoBytes;

use super::entry::{Entry, Word, WORD};
use super::{checksum, header_at, no_header, retire, retired_word, unretired_word, BODY_MAX};
use crate::env::{crc32c, Vec};
use crate::volume::error::{Error, Result, Structure};
use crate::volume::format::{LaneHeader, LANE_BODY};
use crate::volume::persist::{Dirty, Durable};
use crate::volume::pmem::{read_struct, Pmem};
use crate::volume::super_block::Geometry;

/// The state of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Its last transaction is retired.
    Retired,
    /// Its last transaction is logged and must be replayed.
    Logged,
    /// Its last transaction was not committed: its header is there, but not its body.
    Torn,
}

/// A lane after recovery.
pub(in crate::volume) struct Recovered {
    /// Sequence number of its last transaction.
    pub(in crate::volume) seq: u64,
    /// Change of the number of free blocks by all its transactions.
    pub(in crate::volume) free_blocks: i64,
    /// Change of the number of inodes in use, likewise.
    pub(in crate::volume) used_inodes: i64,
    /// Its state before.
    pub(in crate::volume) was: LaneState,
}

/// The entries of a lane's last transaction are in place.
struct Replayed;
/// A lane needs no further recovery.
struct Closed;

fn corrupt(at: u64) -> Error {
    Error::Corrupt {
        what: Structure::Lane,
        at,
    }
}

/// The header in `slot` of lane `index`, if it is valid.
fn read_header<P: Pmem + ?Sized>(
    pmem: &P,
    geo: &Geometry,
    index: u32,
    slot: u64,
) -> Result<Option<LaneHeader>> {
    let at = geo.lane_at(index);
    let header: LaneHeader = read_struct(pmem, header_at(at, slot))?;
    let good = header.crc.get() == checksum(&header, geo.seed)
        && header.lane.get() == index
        && header.seq.get() & 1 == slot
        && header.body_len.get() as usize <= BODY_MAX
        && header.body_len.get() as usize % WORD == 0;
    Ok(good.then_some(header))
}

/// Whether lane `index` has a header.
pub(in crate::volume) fn has_header<P: Pmem + ?Sized>(
    pmem: &P,
    geo: &Geometry,
    index: u32,
) -> bool {
    (0..2).any(|slot| matches!(read_header(pmem, geo, index, slot), Ok(Some(_))))
}

/// Reads lane `index`: the header that counts, and the state of the lane. If the last transaction
/// must be replayed, `body` has its entries. Writes nothing.
///
/// Fails with [`Error::Corrupt`] if neither header is valid, or nothing says whether the last
/// transaction is retired.
pub fn inspect<P: Pmem + ?Sized>(
    pmem: &P,
    geo: &Geometry,
    index: u32,
    body: &mut Vec<Word>,
) -> Result<(LaneHeader, LaneState)> {
    let at = geo.lane_at(index);
    body.clear();
    let even = read_header(pmem, geo, index, 0)?;
    let odd = read_header(pmem, geo, index, 1)?;
    let (last, before) = match (even, odd) {
        (Some(even), Some(odd)) if even.seq.get() > odd.seq.get() => (even, Some(odd)),
        (Some(even), Some(odd)) => (odd, Some(even)),
        (Some(only), None) | (None, Some(only)) => (only, None),
        (None, None) => return Err(corrupt(at)),
    };
    let seq = last.seq.get();
    if last.retired == retired_word(seq) {
        return Ok((last, LaneState::Retired));
    }
    if last.retired != unretired_word(seq) {
        return Err(corrupt(at));
    }
    // CAST: at most BODY_MAX.
    for _ in 0..last.body_len.get() as usize / WORD {
        body.push(Word::ZERO)?;
    }
    pmem.read(at + LANE_BODY, body.as_mut_bytes())?;
    if crc32c(geo.seed, body.as_bytes()) == last.body_crc.get() {
        return Ok((last, LaneState::Logged));
    }
    body.clear();
    // The lane's body was free for the last transaction because the one before was retired.
    match before {
        Some(before)
            if before.retired == retired_word(before.seq.get())
                && before.seq.get().checked_add(1) == Some(seq) =>
        {
            Ok((before, LaneState::Torn))
        }
        _ => Err(corrupt(at)),
    }
}

/// Completes or cancels the last transaction of each lane, and returns the lanes.
///
/// With `write` false nothing is written: if a lane would need it, `None` is returned. Nothing is
/// written either before all lanes have been found sound. After a crash at any time, another
/// recovery has the same result.
pub(in crate::volume) fn recover<P: Pmem>(
    pmem: &P,
    geo: &Geometry,
    write: bool,
) -> Result<Option<Vec<Recovered>>> {
    let mut body = Vec::new();
    let mut lanes = Vec::with_capacity(geo.lane_count as usize)?;
    for index in 0..geo.lane_count {
        let (header, was) = inspect(pmem, geo, index, &mut body)?;
        check_entries(geo, index, &body)?;
        if was != LaneState::Retired && !write {
            return Ok(None);
        }
        lanes.push(Recovered {
            seq: header.seq.get(),
            free_blocks: header.free_blocks.get(),
            used_inodes: header.used_inodes.get(),
            was,
        })?;
    }
    for index in (0..).take(lanes.len()) {
        recover_lane(pmem, geo, index, &mut body)?;
    }
    Ok(Some(lanes))
}

/// Fails unless `body` consists of entries for this volume.
fn check_entries(geo: &Geometry, index: u32, mut body: &[Word]) -> Result<()> {
    while !body.is_empty() {
        if Entry::parse(&mut body, geo).is_none() {
            return Err(corrupt(geo.lane_at(index)));
        }
    }
    Ok(())
}

/// Completes or cancels the last transaction of one lane; returns its former state. `body` is room
/// for the entries.
///
/// Fails with [`Error::Corrupt`] if the state of the lane is unknown, or if the transaction cannot
/// be applied completely. Then it is not retired, and it does not matter how much of it is in
/// place.
pub fn recover_lane<P: Pmem>(
    pmem: &P,
    geo: &Geometry,
    index: u32,
    body: &mut Vec<Word>,
) -> Result<LaneState> {
    let at = geo.lane_at(index);
    let (header, was) = inspect(pmem, geo, index, body)?;
    check_entries(geo, index, body)?;
    let seq = header.seq.get();
    match was {
        LaneState::Retired => {}
        LaneState::Logged => {
            let replayed = replay(pmem, geo, at, body)?;
            close(pmem, at, seq, replayed)?;
        }
        LaneState::Torn => cancel(pmem, at, seq + 1)?,
    }
    Ok(was)
}

fn replay<P: Pmem>(
    pmem: &P,
    geo: &Geometry,
    at: u64,
    mut body: &[Word],
) -> Result<Durable<Replayed>> {
    let mut dirty = Dirty::new(pmem);
    while !body.is_empty() {
        let entry = Entry::parse(&mut body, geo).ok_or(corrupt(at))?;
        entry.apply(&mut dirty, pmem, geo)?;
    }
    dirty.write_back().fence()
}

/// As [`recover_lane`] for a lane whose transaction cannot be applied completely: applies what it
/// can. Returns how many of its entries it could not apply.
#[cfg(not(MODULE))]
pub fn salvage_lane<P: Pmem>(
    pmem: &P,
    geo: &Geometry,
    index: u32,
    body: &mut Vec<Word>,
) -> Result<u64> {
    let (header, _) = inspect(pmem, geo, index, body)?;
    check_entries(geo, index, body)?;
    let (mut rest, mut left): (&[Word], _) = (body, 0);
    let mut dirty: Dirty<'_, P, Replayed> = Dirty::new(pmem);
    while let Some(entry) = Entry::parse(&mut rest, geo) {
        match entry.apply(&mut dirty, pmem, geo) {
            Err(Error::Corrupt { .. }) => left += 1,
            result => result?,
        }
    }
    let replayed = dirty.write_back().fence()?;
    close(pmem, geo.lane_at(index), header.seq.get(), replayed)?;
    Ok(left)
}

fn close<P: Pmem>(pmem: &P, at: u64, seq: u64, _replayed: Durable<Replayed>) -> Result<()> {
    let mut dirty: Dirty<'_, P, Closed> = Dirty::new(pmem);
    retire(&mut dirty, at, seq)?;
    dirty.write_back().fence().map(|_| ())
}

/// Invalidates the header of transaction `seq`, whose body never became durable. Otherwise it could
/// match a body that a later transaction of the same number leaves half written.
fn cancel<P: Pmem>(pmem: &P, at: u64, seq: u64) -> Result<()> {
    let mut dirty: Dirty<'_, P, Closed> = Dirty::new(pmem);
    dirty.store(header_at(at, seq), no_header(seq).as_bytes())?;
    dirty.write_back().fence().map(|_| ())
}
