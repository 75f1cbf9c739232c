// SPDX-License-Identifier: GPL-2.0

//! What mount makes of the lanes.

use zerocopy::IntoBytes;

use super::entry::{Entry, Word, WORD};
use super::{checksum, header_at, no_header, retire, retired_word, unretired_word, BODY_MAX};
use crate::env::{crc32c, Vec};
use crate::volume::error::{Error, Result, Structure};
use crate::volume::format::{LaneHeader, LANE_BODY};
use crate::volume::persist::{Dirty, Durable};
use crate::volume::pmem::{read_struct, Pmem};
use crate::volume::super_block::Geometry;

/// What a lane holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Its last transaction is retired.
    Retired,
    /// Its last transaction is logged and must be replayed.
    Logged,
    /// Its last transaction did not happen: its header is there, but not its body.
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
    /// What it held before.
    pub(in crate::volume) was: LaneState,
}

/// The entries of a lane's last transaction are in place.
struct Replayed;
/// A lane needs no further look.
struct Closed;

fn corrupt(at: u64) -> Error {
    Error::Corrupt {
        what: Structure::Lane,
        at,
    }
}

/// The header in `slot` of lane `index` at byte `at`, if it is one.
fn read_header<P: Pmem + ?Sized>(
    pmem: &P,
    at: u64,
    index: u32,
    slot: u64,
) -> Result<Option<LaneHeader>> {
    let header: LaneHeader = read_struct(pmem, header_at(at, slot))?;
    let good = header.crc.get() == checksum(&header)
        && header.lane.get() == index
        && header.seq.get() & 1 == slot
        && header.body_len.get() as usize <= BODY_MAX
        && header.body_len.get() as usize % WORD == 0;
    Ok(good.then_some(header))
}

/// Reads lane `index`: the header that counts, and what is to be done. If the last transaction must
/// be replayed, `body` has its entries. Writes nothing.
///
/// Fails with [`Error::Corrupt`] if neither header is one, or nothing says whether the last
/// transaction is retired.
pub fn inspect<P: Pmem + ?Sized>(
    pmem: &P,
    geo: &Geometry,
    index: u32,
    body: &mut Vec<Word>,
) -> Result<(LaneHeader, LaneState)> {
    let at = geo.lane_at(index);
    body.clear();
    let even = read_header(pmem, at, index, 0)?;
    let odd = read_header(pmem, at, index, 1)?;
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
    if crc32c(0, body.as_bytes()) == last.body_crc.get() {
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
/// written either before all lanes have been found sound. A crash at any time, and another
/// recovery, give the same.
pub(in crate::volume) fn recover<P: Pmem>(
    pmem: &P,
    geo: &Geometry,
    write: bool,
) -> Result<Option<Vec<Recovered>>> {
    let mut body = Vec::new();
    let mut lanes = Vec::with_capacity(geo.lane_count as usize)?;
    for index in 0..geo.lane_count {
        let (header, was) = inspect(pmem, geo, index, &mut body)?;
        let mut rest: &[Word] = &body;
        while !rest.is_empty() {
            if Entry::parse(&mut rest, geo).is_none() {
                return Err(corrupt(geo.lane_at(index)));
            }
        }
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
    for (index, lane) in (0..).zip(lanes.iter()) {
        let at = geo.lane_at(index);
        match lane.was {
            LaneState::Retired => {}
            LaneState::Logged => {
                inspect(pmem, geo, index, &mut body)?;
                let replayed = replay(pmem, geo, at, &body)?;
                close(pmem, at, lane.seq, replayed)?;
            }
            LaneState::Torn => cancel(pmem, at, lane.seq + 1)?,
        }
    }
    Ok(Some(lanes))
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

fn close<P: Pmem>(pmem: &P, at: u64, seq: u64, _replayed: Durable<Replayed>) -> Result<()> {
    let mut dirty: Dirty<'_, P, Closed> = Dirty::new(pmem);
    retire(&mut dirty, at, seq)?;
    dirty.write_back().fence().map(|_| ())
}

/// Makes the header of transaction `seq`, whose body never became durable, no header. Left alone,
/// it could match a body that a later transaction of the same number leaves half written.
fn cancel<P: Pmem>(pmem: &P, at: u64, seq: u64) -> Result<()> {
    let mut dirty: Dirty<'_, P, Closed> = Dirty::new(pmem);
    dirty.store(header_at(at, seq), no_header(seq).as_bytes())?;
    dirty.write_back().fence().map(|_| ())
}
