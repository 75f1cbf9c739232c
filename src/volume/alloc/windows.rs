// SPDX-License-Identifier: GPL-2.0

//! Blocks after the ends of growing files, where these files can continue.
//!
//! Otherwise files that grow in turn would interleave, and become extents of one block each. A
//! *window* is where searches for other files take nothing as long as there are blocks elsewhere.
//! It is only a hint: it is not on the media, has no owner, and need not be released. The file
//! finds it by the block at which it continues. Each time a window is used up, the next one is
//! twice as long. It ends with the file, or with the part of the file that it follows; a window
//! that is not used is forgotten when others need its slot.
//!
//! In the same way a chunk is left to the file that has *begun* it ([`Want::begins`]): one block of
//! another file, or of a node, would keep it from being mapped by 2 MiB.
//!
//! [`Want::begins`]: super::Want::begins
//!
//! Similar to the reservation windows of ext3 (`fs/ext3/balloc.c` of Linux 2.6.10 to 4.2), which
//! belong to inodes and are held against others.

use super::bits::Mask;
use super::Run;
use crate::env::Vec;
use crate::volume::format::CHUNK_BLOCKS;

/// The most windows of a group.
const WINDOWS: usize = 64;
/// The most begun chunks of a group.
const BEGUN: usize = 64;
/// Blocks of a file's first window.
const FIRST: u64 = 8;
/// The most blocks of a window.
const MOST: u64 = CHUNK_BLOCKS / 2;

/// Free blocks, or none, that follow the last block of a file.
struct Window {
    /// Where the file continues, and what is left. (Its length may be 0, unlike that of other
    /// runs.)
    left: Run,
    /// How many blocks were asked for.
    size: u64,
}

/// The length of the next window of a file.
#[derive(Clone, Copy)]
pub(super) struct Next {
    /// Blocks to ask for.
    pub(super) size: u64,
    /// The file had one before.
    had_one: bool,
}

/// The windows of a group. No two begin at the same block.
pub(super) struct Windows {
    all: Vec<Window>,
    /// The chunks that files have begun last.
    begun: Vec<u64>,
    /// Bit `n % 64` is set if chunk `n` is begun, or if there are, or have been, blocks of windows
    /// in it.
    chunks: u64,
    /// The window that is replaced next, in turn, and the begun chunk.
    victim: usize,
    begun_victim: usize,
    /// The last search that skipped them found nothing else in the group: until a window ends or
    /// blocks become free, no such search is needed.
    pub(super) only: bool,
}

/// The bit of [`Windows::chunks`] for `chunk`.
fn bit(chunk: u64) -> u64 {
    1 << (chunk % 64)
}

impl Windows {
    /// None.
    pub(super) fn new() -> Self {
        Windows {
            all: Vec::new(),
            begun: Vec::new(),
            chunks: 0,
            victim: 0,
            begun_victim: 0,
            only: false,
        }
    }

    fn position(&self, block: u64) -> Option<usize> {
        self.all.iter().position(|w| w.left.block == block)
    }

    /// Recomputes in which chunks the windows are, and which are begun.
    fn update_chunks(&mut self) {
        let windows = self.all.iter().flat_map(|w| w.left.chunks());
        let chunks = windows.chain(self.begun.iter().copied());
        self.chunks = chunks.fold(0, |bits, chunk| bits | bit(chunk));
    }

    /// Whether `chunk` is left to the file that has begun it.
    pub(super) fn is_begun(&self, chunk: u64) -> bool {
        self.chunks & bit(chunk) != 0 && self.begun.iter().any(|begun| *begun == chunk)
    }

    /// A file has begun a chunk by `run`.
    pub(super) fn begin_chunk(&mut self, run: Run) {
        let chunk = run.block / CHUNK_BLOCKS;
        if run.len >= CHUNK_BLOCKS || self.is_begun(chunk) {
            return;
        }
        match self.begun.get_mut(self.begun_victim) {
            Some(old) => {
                *old = chunk;
                self.only = false;
            }
            // Without memory for it nothing is left to the file.
            None => drop(self.begun.push(chunk)),
        }
        self.begun_victim = (self.begun_victim + 1) % BEGUN;
        self.update_chunks();
    }

    /// `run` is being freed: what is free in its chunks may be taken by all.
    pub(super) fn end_chunks(&mut self, run: Run) {
        let chunks = run.chunks();
        if !chunks.clone().any(|chunk| self.chunks & bit(chunk) != 0) {
            return;
        }
        while let Some(at) = self.begun.iter().position(|begun| chunks.contains(begun)) {
            self.begun.swap_remove(at);
            self.begun_victim = self.begun.len();
            self.only = false;
        }
        self.update_chunks();
    }

    /// Adds the blocks of all windows in `chunk`, or all of it if it is begun, to `mask`.
    pub(super) fn hide(&self, mask: &mut Mask, chunk: u64) {
        if self.chunks & bit(chunk) == 0 {
            return;
        }
        let base = chunk * CHUNK_BLOCKS;
        if self.is_begun(chunk) {
            let all = Run {
                block: base,
                len: CHUNK_BLOCKS,
            };
            mask.add(all, chunk);
            return;
        }
        for window in self.all.iter() {
            if window.left.block < base + CHUNK_BLOCKS && window.left.end() > base {
                mask.add(window.left, chunk);
            }
        }
    }

    /// A growing file has got `run`, where it continued. Returns whether its window continues after
    /// that.
    pub(super) fn advance(&mut self, run: Run) -> bool {
        let Some(window) = self.position(run.block).and_then(|i| self.all.get_mut(i)) else {
            return false;
        };
        let goes_on = window.left.len > run.len;
        if goes_on {
            window.left = Run {
                block: run.end(),
                len: window.left.len - run.len,
            };
        }
        goes_on
    }

    /// Ends the window of a file that would continue at `block`, if there is one.
    pub(super) fn end(&mut self, block: u64) -> Next {
        let ended = self.position(block).and_then(|i| self.all.swap_remove(i));
        match ended {
            Some(window) => {
                self.update_chunks();
                self.only &= window.left.len == 0;
                Next {
                    size: MOST.min(window.size * 2),
                    had_one: true,
                }
            }
            None => Next {
                size: FIRST,
                had_one: false,
            },
        }
    }

    /// Begins a window of `left`, which may have no block.
    pub(super) fn begin(&mut self, left: Run, next: Next) {
        // In fragmented space windows are useless.
        if left.len == 0 && !next.had_one {
            return;
        }
        let window = Window {
            left,
            size: next.size,
        };
        let full = (self.all.len() == WINDOWS).then_some(self.victim);
        match self.position(left.block).or(full) {
            Some(i) => {
                if let Some(old) = self.all.get_mut(i) {
                    self.only &= old.left.len == 0;
                    *old = window;
                    self.victim = (self.victim + 1) % WINDOWS;
                }
            }
            // Without memory for it the file has no window.
            None => drop(self.all.push(window)),
        }
        self.update_chunks();
    }
}
