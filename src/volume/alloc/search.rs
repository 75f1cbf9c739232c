// SPDX-License-Identifier: GPL-2.0

//! How a run of free blocks is chosen.

use super::bits::{self, Mask};
use super::windows::Next;
use super::{Count, Group, Groups, Run, State, Want};
use crate::env::cpu;
use crate::volume::error::{Error, Result};
use crate::volume::format::CHUNK_BLOCKS;
use crate::volume::num::to_usize;
use crate::volume::pmem::Pmem;
use crate::volume::super_block::Geometry;

/// A run of this many blocks is taken where it is found, even if more were asked for.
pub(super) const GOOD: u64 = 64;
/// How many partly used chunks without a good run are searched before a free chunk is used.
const TRIES: u32 = 8;
/// How many chunks' summaries are checked before a free chunk is used.
const SCAN: u64 = 512;
/// The most chunks that are left free before the first blocks of a file, for its earlier blocks.
const ROOM: u64 = 64;

/// A group with its lock held.
struct Locked<'a, P> {
    pmem: &'a P,
    geo: &'a Geometry,
    group: &'a Group,
    state: &'a mut State,
    /// Whether windows are left to their files.
    manners: Manners,
}

/// Whether a search skips the windows of growing files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    Polite,
    /// There are no other blocks.
    Needy,
}

impl Groups {
    /// Finds a run for `want`, takes it from `count`, and makes it busy.
    pub(super) fn search<P: Pmem>(
        &self,
        pmem: &P,
        geo: &Geometry,
        count: &Count<'_>,
        want: &Want,
    ) -> Result<Run> {
        let goal = want.goal.filter(|goal| geo.is_data(*goal, 1));
        let first = match goal {
            Some(goal) => self.index(goal),
            None => cpu(),
        };
        // The length of the next window of the file.
        let mut ahead = None;
        // A long misaligned run would prevent 2 MiB mappings in the rest of the file.
        let aligned = |goal: u64| match want.align_key {
            Some(key) => goal % CHUNK_BLOCKS == key % CHUNK_BLOCKS,
            None => true,
        };
        if let Some(goal) = goal.filter(|goal| aligned(*goal) || want.grows) {
            let group = self.of(goal)?;
            let found = group.locked(pmem, geo, count, Manners::Needy, |g| {
                let fits = aligned(goal) && (!want.begins || g.is_whole(goal / CHUNK_BLOCKS)?);
                let run = if fits { g.at(goal, want)? } else { None };
                g.begin_chunk(run, want);
                if want.grows {
                    ahead = g.go_on(goal, run);
                }
                Ok(run)
            })?;
            if let Some(run) = found {
                return Ok(run);
            }
        }
        if let Some(key) = want.align_key {
            let whole = |g: &mut Locked<'_, P>| {
                let run = g.whole(key, want)?;
                g.begin_chunk(run, want);
                Ok(run)
            };
            if let Some(run) = self.anywhere(pmem, geo, count, first, ahead, whole)? {
                return Ok(run);
            }
        }
        if let Some(goal) = goal.filter(|goal| want.begins && aligned(*goal)) {
            let at = |g: &mut Locked<'_, P>| g.at(goal, want);
            let found = self
                .of(goal)?
                .locked(pmem, geo, count, Manners::Needy, at)?;
            if let Some(run) = found {
                return Ok(run);
            }
        }
        self.anywhere(pmem, geo, count, first, ahead, |g| g.any(want))?
            .ok_or(Error::NoSpace)
    }

    /// The first run that `find` finds, outside windows if possible, in the groups from number
    /// `first` on; the file's next window is after it.
    fn anywhere<P: Pmem>(
        &self,
        pmem: &P,
        geo: &Geometry,
        count: &Count<'_>,
        first: usize,
        ahead: Option<Next>,
        mut find: impl FnMut(&mut Locked<'_, P>) -> Result<Option<Run>>,
    ) -> Result<Option<Run>> {
        for manners in [Manners::Polite, Manners::Needy] {
            for group in self.from(first) {
                let found = group.locked(pmem, geo, count, manners, |g| {
                    let run = find(g)?;
                    g.begin_window(run, ahead);
                    Ok(run)
                })?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// Finds more runs, of `len` blocks together at most, in the chunk of `block`, takes them from
    /// `count`, and makes them busy.
    pub(super) fn beside<P: Pmem>(
        &self,
        pmem: &P,
        geo: &Geometry,
        count: &Count<'_>,
        block: u64,
        len: u64,
        found: &mut [Option<Run>],
    ) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let chunk = block / CHUNK_BLOCKS;
        self.of(block)?.with(pmem, geo, Manners::Polite, |g| {
            g.state.busy.reserve(found.len())?;
            let mut mask = g.mask(chunk)?;
            let mut left = len;
            for slot in found {
                let (first, len) = mask.find(left.min(GOOD));
                let run = Run {
                    block: chunk * CHUNK_BLOCKS + first,
                    len: len.min(left),
                };
                if run.len == 0 {
                    break;
                }
                let Some(run) = count.take(run) else {
                    break;
                };
                mask.add(run, chunk);
                g.state.busy.push(run)?;
                left -= run.len;
                *slot = Some(run);
            }
            Ok(())
        })
    }

    /// All groups, from number `first` on, wrapping around.
    fn from(&self, first: usize) -> impl Iterator<Item = &Group> {
        let first = first % self.groups.len().max(1);
        let (before, after) = self.groups.split_at(first);
        after.iter().chain(before)
    }
}

impl Group {
    /// Runs `f` under the lock.
    fn with<P: Pmem, T>(
        &self,
        pmem: &P,
        geo: &Geometry,
        manners: Manners,
        f: impl FnOnce(&mut Locked<'_, P>) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state.lock();
        f(&mut Locked {
            pmem,
            geo,
            group: self,
            state: &mut state,
            manners,
        })
    }

    /// Runs `f` under the lock, takes the run that it finds from `count`, and makes it busy.
    fn locked<P: Pmem>(
        &self,
        pmem: &P,
        geo: &Geometry,
        count: &Count<'_>,
        manners: Manners,
        f: impl FnOnce(&mut Locked<'_, P>) -> Result<Option<Run>>,
    ) -> Result<Option<Run>> {
        self.with(pmem, geo, manners, |g| {
            g.state.busy.reserve(1)?;
            let Some(run) = f(g)? else {
                return Ok(None);
            };
            let run = count.take(run).ok_or(Error::NoSpace)?;
            g.state.busy.push(run)?;
            Ok(Some(run))
        })
    }
}

impl<P: Pmem> Locked<'_, P> {
    /// The blocks of `chunk` that are in use, busy, or left to others.
    fn mask(&self, chunk: u64) -> Result<Mask> {
        let mut mask = bits::read(self.pmem, self.geo, chunk)?;
        for busy in self.state.busy.iter() {
            mask.add(*busy, chunk);
        }
        if self.manners == Manners::Polite {
            self.state.windows.hide(&mut mask, chunk);
        }
        Ok(mask)
    }

    /// The chunk after `chunk`; after the last one the first.
    fn after(&self, chunk: u64) -> u64 {
        if chunk + 1 < self.group.chunks.end {
            chunk + 1
        } else {
            self.group.chunks.start
        }
    }

    /// The free run from `block` on, across chunks if needed, up to `len` blocks.
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

    /// A growing file continues at `goal`, with `run`, or elsewhere if that is `None`. Returns the
    /// length of its next window, if that is still to be found.
    fn go_on(&mut self, goal: u64, run: Option<Run>) -> Option<Next> {
        if run.is_some_and(|run| self.state.windows.advance(run)) {
            return None;
        }
        let next = self.state.windows.end(goal);
        if run.is_some() {
            self.begin_window(run, Some(next));
            return None;
        }
        Some(next)
    }

    /// If `want` begins a chunk of a file, and got `run`: leaves the chunk to the file.
    fn begin_chunk(&mut self, run: Option<Run>, want: &Want) {
        if let (Some(run), true) = (run, want.begins) {
            self.state.windows.begin_chunk(run);
        }
    }

    /// Begins the window `next` after `run`, with as many blocks as are free there.
    fn begin_window(&mut self, run: Option<Run>, next: Option<Next>) {
        let (Some(run), Some(next)) = (run, next) else {
            return;
        };
        self.manners = Manners::Polite;
        // Damage there does not concern the owner of `run`.
        if let Ok(left) = self.extent(run.end(), next.size) {
            self.state.windows.begin(left, next);
        }
    }

    /// A run in a wholly free chunk, where file block `key` would be in a chunk of the file. If
    /// that is not the file's first chunk, preferably at the same distance after another free one.
    fn whole(&mut self, key: u64, want: &Want) -> Result<Option<Run>> {
        let (before, offset) = ((key / CHUNK_BLOCKS).min(ROOM), key % CHUNK_BLOCKS);
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
                    if self.is_whole(chunk)? {
                        let later = chunk + before;
                        let has_room =
                            before > 0 && later < self.group.chunks.end && self.is_whole(later)?;
                        for chunk in has_room.then_some(later).into_iter().chain([chunk]) {
                            let run = self.extent(chunk * CHUNK_BLOCKS + offset, want.len)?;
                            if run.len >= want.min {
                                self.state.whole_cursor = chunk;
                                return Ok(Some(run));
                            }
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

    /// Whether all of a chunk is free, and left to no one.
    fn is_whole(&self, chunk: u64) -> Result<bool> {
        Ok(self.mask(chunk)?.clear_from(0) == CHUNK_BLOCKS)
    }

    /// The best run, from partly used chunks first.
    fn any(&mut self, want: &Want) -> Result<Option<Run>> {
        let polite = self.manners == Manners::Polite;
        if self.state.full || polite && self.state.windows.only {
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
                if polite && self.state.windows.is_begun(chunk) {
                    // Left to its file.
                } else if !used && whole.is_none() {
                    if self.is_whole(chunk)? {
                        whole = Some(chunk);
                    } else {
                        // Free on the media, but a part is reserved: as good as used.
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
            self.state.windows.only |= polite && best.len == 0;
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
