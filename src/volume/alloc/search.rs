// SPDX-License-Identifier: GPL-2.0

//! Where a run of free blocks is taken from.

use super::bits::{self, Mask};
use super::{Group, Groups, Run, State, Want};
use crate::env::cpu;
use crate::volume::error::{Error, Result};
use crate::volume::format::CHUNK_BLOCKS;
use crate::volume::num::to_usize;
use crate::volume::pmem::Pmem;
use crate::volume::super_block::Geometry;

/// A run of so many blocks is taken where it is found, even if more were asked for.
const GOOD: u64 = 64;
/// Partly used chunks without a good run that are looked into before a free chunk is used.
const TRIES: u32 = 8;
/// Chunks whose summaries are looked at before a free chunk is used.
const SCAN: u64 = 512;

/// A group with its lock held.
struct Locked<'a, P> {
    pmem: &'a P,
    geo: &'a Geometry,
    group: &'a Group,
    state: &'a mut State,
}

impl Groups {
    /// Finds a run for `want` and makes it busy.
    pub(super) fn search<P: Pmem>(&self, pmem: &P, geo: &Geometry, want: &Want) -> Result<Run> {
        let goal = want.goal.filter(|goal| geo.is_data(*goal, 1));
        let first = match goal {
            Some(goal) => self.index(goal),
            None => cpu(),
        };
        if let Some(goal) = goal {
            // Continuing a misaligned run for long would keep the rest of the file from 2 MiB
            // mappings.
            let aligned = match want.align_key {
                Some(key) => goal % CHUNK_BLOCKS == key % CHUNK_BLOCKS,
                None => true,
            };
            if aligned {
                let group = self.of(goal)?;
                if let Some(run) = group.locked(pmem, geo, |g| g.at(goal, want))? {
                    return Ok(run);
                }
            }
        }
        if let Some(key) = want.align_key {
            let offset = key % CHUNK_BLOCKS;
            for group in self.from(first) {
                if let Some(run) = group.locked(pmem, geo, |g| g.whole(offset, want))? {
                    return Ok(run);
                }
            }
        }
        for group in self.from(first) {
            if let Some(run) = group.locked(pmem, geo, |g| g.any(want))? {
                return Ok(run);
            }
        }
        Err(Error::NoSpace)
    }

    /// All groups, from number `first` on and around.
    fn from(&self, first: usize) -> impl Iterator<Item = &Group> {
        let first = first % self.groups.len().max(1);
        let (before, after) = self.groups.split_at(first);
        after.iter().chain(before)
    }
}

impl Group {
    /// Runs `f` under the lock and makes the run that it finds busy.
    fn locked<P: Pmem>(
        &self,
        pmem: &P,
        geo: &Geometry,
        f: impl FnOnce(&mut Locked<'_, P>) -> Result<Option<Run>>,
    ) -> Result<Option<Run>> {
        let mut state = self.state.lock();
        state.busy.reserve(1)?;
        let found = f(&mut Locked {
            pmem,
            geo,
            group: self,
            state: &mut state,
        })?;
        if let Some(run) = found {
            state.busy.push(run)?;
        }
        Ok(found)
    }
}

impl<P: Pmem> Locked<'_, P> {
    /// The blocks of `chunk` that are in use or busy.
    fn mask(&self, chunk: u64) -> Result<Mask> {
        let mut mask = bits::read(self.pmem, self.geo, chunk)?;
        for busy in self.state.busy.iter() {
            mask.add(*busy, chunk);
        }
        Ok(mask)
    }

    /// The chunk that follows `chunk`, from the last to the first.
    fn after(&self, chunk: u64) -> u64 {
        if chunk + 1 < self.group.chunks.end {
            chunk + 1
        } else {
            self.group.chunks.start
        }
    }

    /// The free run from `block` on, over chunks if need be, up to `len` blocks.
    fn extent(&self, block: u64, len: u64) -> Result<Run> {
        let mut run = Run { block, len: 0 };
        while run.len < len && run.end() < self.group.chunks.end * CHUNK_BLOCKS {
            let chunk = run.end() / CHUNK_BLOCKS;
            let free = self.mask(chunk)?.clear_from(run.end() % CHUNK_BLOCKS);
            run.len += free;
            if run.end() < (chunk + 1) * CHUNK_BLOCKS {
                break;
            }
        }
        run.len = run.len.min(len);
        Ok(run)
    }

    /// The run at exactly `goal`.
    fn at(&mut self, goal: u64, want: &Want) -> Result<Option<Run>> {
        let run = self.extent(goal, want.len)?;
        Ok((run.len >= want.min).then_some(run))
    }

    /// A run that starts `offset` blocks into a wholly free chunk.
    fn whole(&mut self, offset: u64, want: &Want) -> Result<Option<Run>> {
        if self.state.no_whole {
            return Ok(None);
        }
        let mut chunk = self.state.whole_cursor;
        let mut left = self.group.chunks.end - self.group.chunks.start;
        let mut seen = false;
        while left > 0 {
            let (n, free) = bits::read_free(self.pmem, self.geo, chunk, self.group.chunks.end)?;
            for free in free.iter().take(to_usize(n.min(left))) {
                if u64::from(*free) == CHUNK_BLOCKS {
                    seen = true;
                    if self.mask(chunk)?.clear_from(0) == CHUNK_BLOCKS {
                        let run = self.extent(chunk * CHUNK_BLOCKS + offset, want.len)?;
                        if run.len >= want.min {
                            self.state.whole_cursor = chunk;
                            return Ok(Some(run));
                        }
                    }
                }
                chunk = self.after(chunk);
            }
            left -= n.min(left);
        }
        self.state.no_whole = !seen;
        Ok(None)
    }

    /// The run that serves best, from partly used chunks first.
    fn any(&mut self, want: &Want) -> Result<Option<Run>> {
        if self.state.full {
            return Ok(None);
        }
        let good = want.len.min(GOOD).max(want.min);
        let mut best = Run { block: 0, len: 0 };
        let mut whole = None;
        let (mut seen, mut tries, mut scanned) = (false, 0, 0);
        let mut chunk = self.state.cursor;
        let mut left = self.group.chunks.end - self.group.chunks.start;
        'scan: while left > 0 {
            let (n, free) = bits::read_free(self.pmem, self.geo, chunk, self.group.chunks.end)?;
            for free in free
                .iter()
                .map(|f| u64::from(*f))
                .take(to_usize(n.min(left)))
            {
                seen |= free > 0;
                let used = free < CHUNK_BLOCKS || self.state.opened == Some(chunk);
                if !used && whole.is_none() {
                    if self.mask(chunk)?.clear_from(0) == CHUNK_BLOCKS {
                        whole = Some(chunk);
                    } else {
                        // Free on the media, but somebody has reserved a part: as good as used.
                        best = self.better(best, chunk, good)?;
                    }
                } else if used && free > 0 {
                    tries += 1;
                    best = self.better(best, chunk, good)?;
                }
                if best.len >= good {
                    break 'scan;
                }
                chunk = self.after(chunk);
            }
            scanned += n;
            left -= n.min(left);
            let enough = tries >= TRIES || scanned >= SCAN;
            if enough && (whole.is_some() || best.len >= want.min) {
                break;
            }
        }
        self.state.full = !seen;
        if let (true, Some(chunk)) = (best.len < good, whole) {
            self.state.cursor = chunk;
            self.state.opened = Some(chunk);
            return Ok(Some(self.extent(chunk * CHUNK_BLOCKS, want.len)?));
        }
        if best.len < want.min {
            return Ok(None);
        }
        self.state.cursor = best.block / CHUNK_BLOCKS;
        best.len = best.len.min(want.len);
        Ok(Some(best))
    }

    /// The longer of `best` and the first good run of `chunk`.
    fn better(&self, best: Run, chunk: u64, good: u64) -> Result<Run> {
        let (first, len) = self.mask(chunk)?.find(good);
        Ok(if len > best.len {
            Run {
                block: chunk * CHUNK_BLOCKS + first,
                len,
            }
        } else {
            best
        })
    }
}
