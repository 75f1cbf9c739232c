// SPDX-License-Identifier: GPL-2.0

//! A persistent memory that models the CPU cache, for crash tests.
//!
//! A store is visible at once. It is durable when its line was written back, or it went past the
//! cache, and a fence of the same thread followed. Until then the line may reach the media at
//! any moment (the cache may evict it) or be lost: after a crash it holds any of the contents that
//! it had since it was last durable, and of a store of several 8-byte words any of the words. Lines
//! are independent of each other; the stores to one are in order.
//!
//! [`Sim::record`] starts a [`Trace`]; [`Trace::for_each_crash`] walks through the states in which
//! a crash may have left the media. Besides, a [`Sim`] counts what the program does ([`Stats`]),
//! and makes mistakes for it on demand ([`Sim::inject`]), with which tests show that they would
//! notice.

mod crash;
mod image;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::volume::error::{Error, Result};
use crate::volume::pmem::{Pmem, LINE};

pub use crash::{Bounds, Crash, Trace};
pub use image::Image;

use crash::Event;

/// What a program did since the [`Sim`] was made or [`Sim::reset_stats`] was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls of `read`.
    pub reads: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Lines stored to through the cache, counted for each call.
    pub lines_stored: u64,
    /// Lines stored past the cache.
    pub lines_nt: u64,
    /// Lines written back.
    pub lines_written_back: u64,
    /// Of these, lines that had nothing to write back: a waste.
    pub needless_write_backs: u64,
    /// Fences.
    pub fences: u64,
    /// Of these, fences before which nothing was written back or stored past the cache: a waste.
    pub needless_fences: u64,
}

/// A bug that the memory makes in the program's place, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Leaves out the write-back of one line: the one after `n` others.
    WriteBack(u64),
    /// Leaves out a fence: the one after `n` others.
    Fence(u64),
    /// Leaves out a fence, the one after `n` others, and reports [`Error::Media`].
    FailFence(u64),
    /// Reports [`Error::Media`] for a read: the one after `n` others.
    FailRead(u64),
}

/// What a line waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    WriteBack,
    Fence,
}

struct Inner {
    len: u64,
    content: Image,
    /// Lines with content that is not durable.
    waiting: BTreeMap<u64, Waits>,
    poisoned: BTreeSet<u64>,
    mistake: Option<Mistake>,
    stats: Stats,
    trace: Option<Trace>,
}

/// The simulated memory.
pub struct Sim {
    inner: Mutex<Inner>,
}

/// The lines that `at..at + len` touches.
fn lines(at: u64, len: u64) -> impl Iterator<Item = u64> {
    (at / LINE..(at + len).div_ceil(LINE)).map(|line| line * LINE)
}

impl Sim {
    /// `len` zero bytes.
    pub fn new(len: u64) -> Self {
        Sim::from_image(len, Image::default())
    }

    /// A memory of `len` bytes that holds `content`, all of it durable.
    pub fn from_image(len: u64, content: Image) -> Self {
        Sim {
            inner: Mutex::new(Inner {
                len,
                content,
                waiting: BTreeMap::new(),
                poisoned: BTreeSet::new(),
                mistake: None,
                stats: Stats::default(),
                trace: None,
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the program sees now.
    pub fn content(&self) -> Image {
        self.inner().content.clone()
    }

    /// Starts recording. What is there now counts as durable.
    pub fn record(&self) {
        let mut inner = self.inner();
        inner.waiting.clear();
        inner.trace = Some(Trace::new(inner.len, inner.content.clone()));
    }

    /// Records that the program has reached point `n`, for the code that judges the crash states:
    /// usually, that operation `n` has returned.
    pub fn mark(&self, n: u64) {
        if let Some(trace) = &mut self.inner().trace {
            trace.push(Event::Mark(n));
        }
    }

    /// Ends the recording and returns it.
    ///
    /// # Panics
    ///
    /// If nothing is being recorded.
    pub fn take_trace(&self) -> Trace {
        self.inner().trace.take().expect("recording")
    }

    /// Lines whose content a crash could lose.
    pub fn not_durable(&self) -> usize {
        self.inner().waiting.len()
    }

    /// What the program did so far.
    pub fn stats(&self) -> Stats {
        self.inner().stats
    }

    /// Starts counting afresh.
    pub fn reset_stats(&self) {
        self.inner().stats = Stats::default();
    }

    /// Makes `mistake` once, counted from now; `None` makes none any more.
    pub fn inject(&self, mistake: Option<Mistake>) {
        self.inner().mistake = mistake;
    }

    /// Whether the mistake that was asked for is still to come.
    pub fn mistake_pending(&self) -> bool {
        self.inner().mistake.is_some()
    }

    /// Makes reading any of the lines that `at..at + len` touches a memory error.
    pub fn poison(&self, at: u64, len: u64) {
        self.inner().poisoned.extend(lines(at, len));
    }

    /// Makes all lines readable.
    pub fn clear_poison(&self) {
        self.inner().poisoned.clear();
    }
}

impl Inner {
    /// Fails if a line that `at..at + len` touches is poisoned.
    fn check_good(&self, at: u64, len: u64) -> Result<()> {
        match self.poisoned.range(at - at % LINE..at + len).next() {
            Some(line) => Err(Error::Media { at: *line }),
            None => Ok(()),
        }
    }

    fn check(&self, at: u64, len: u64) {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(inside, "access outside the device: {len} bytes at {at:#x}");
    }

    fn store(&mut self, at: u64, bytes: &[u8], nt: bool) {
        self.check(at, bytes.len() as u64);
        self.content.write(at, bytes);
        let mut done = 0;
        while done < bytes.len() {
            let byte = at + done as u64;
            let line = byte - byte % LINE;
            let n = ((line + LINE - byte) as usize).min(bytes.len() - done);
            if nt {
                // A line that also waits for its write-back still does: the store past the cache
                // pushes the older ones out before it.
                self.waiting.insert(line, Waits::Fence);
                self.stats.lines_nt += 1;
            } else {
                self.waiting.insert(line, Waits::WriteBack);
                self.stats.lines_stored += 1;
            }
            if let Some(trace) = &mut self.trace {
                trace.push(Event::Store {
                    line,
                    offset: (byte - line) as u8,
                    bytes: bytes[done..done + n].into(),
                    nt: nt.then(|| thread::current().id()),
                });
            }
            done += n;
        }
    }

    /// Whether the mistake that `of` recognises is due now. `of` returns how many others come
    /// before it.
    fn mistake_due(&mut self, of: impl Fn(&mut Mistake) -> Option<&mut u64>) -> bool {
        match self.mistake.as_mut().and_then(of) {
            Some(0) => {
                self.mistake = None;
                true
            }
            Some(n) => {
                *n -= 1;
                false
            }
            None => false,
        }
    }
}

impl Pmem for Sim {
    fn len(&self) -> u64 {
        self.inner().len
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let mut inner = self.inner();
        inner.check(at, buf.len() as u64);
        inner.stats.reads += 1;
        inner.stats.bytes_read += buf.len() as u64;
        inner.check_good(at, buf.len() as u64)?;
        if inner.mistake_due(|m| match m {
            Mistake::FailRead(n) => Some(n),
            _ => None,
        }) {
            return Err(Error::Media { at });
        }
        inner.content.read(at, buf);
        Ok(())
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let mut inner = self.inner();
        inner.check_good(at, bytes.len() as u64)?;
        inner.store(at, bytes, false);
        Ok(())
    }

    fn check_storable(&self, at: u64, len: u64) -> Result<()> {
        self.inner().check_good(at, len)
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.inner().store(at, bytes, true);
        Ok(())
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<()> {
        let mut inner = self.inner();
        let mut done = 0;
        while done < len {
            let zeros = [0; LINE as usize];
            let n = (LINE - (at + done) % LINE).min(len - done);
            inner.store(at + done, &zeros[..n as usize], true);
            done += n;
        }
        Ok(())
    }

    fn write_back(&self, at: u64, len: u64) {
        let by = thread::current().id();
        let mut inner = self.inner();
        inner.check(at, len);
        for line in lines(at, len) {
            inner.stats.lines_written_back += 1;
            if inner.mistake_due(|m| match m {
                Mistake::WriteBack(n) => Some(n),
                _ => None,
            }) {
                continue;
            }
            if inner.waiting.get(&line) == Some(&Waits::WriteBack) {
                inner.waiting.insert(line, Waits::Fence);
            } else {
                inner.stats.needless_write_backs += 1;
            }
            if let Some(trace) = &mut inner.trace {
                trace.push(Event::WriteBack { line, by });
            }
        }
    }

    fn fence(&self) -> Result<()> {
        let by = thread::current().id();
        let mut inner = self.inner();
        inner.stats.fences += 1;
        if inner.mistake_due(|m| match m {
            Mistake::Fence(n) => Some(n),
            _ => None,
        }) {
            return Ok(());
        }
        if inner.mistake_due(|m| match m {
            Mistake::FailFence(n) => Some(n),
            _ => None,
        }) {
            return Err(Error::Media { at: 0 });
        }
        let before = inner.waiting.len();
        inner.waiting.retain(|_, waits| *waits != Waits::Fence);
        if inner.waiting.len() == before {
            inner.stats.needless_fences += 1;
        }
        if let Some(trace) = &mut inner.trace {
            trace.push(Event::Fence { by });
        }
        Ok(())
    }
}

/// Several owners of one memory: a volume, and the test that watches it.
impl<P: Pmem + ?Sized> Pmem for Arc<P> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        (**self).read(at, buf)
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<()> {
        (**self).store(at, bytes)
    }

    fn check_storable(&self, at: u64, len: u64) -> Result<()> {
        (**self).check_storable(at, len)
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<()> {
        (**self).store_nt(at, bytes)
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<()> {
        (**self).zero_nt(at, len)
    }

    fn write_back(&self, at: u64, len: u64) {
        (**self).write_back(at, len);
    }

    fn fence(&self) -> Result<()> {
        (**self).fence()
    }
}
