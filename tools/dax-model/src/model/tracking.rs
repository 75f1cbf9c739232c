// SPDX-License-Identifier: GPL-2.0

//! The locks, the chunk and the tags of the file, as the kernel's tracker has them.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex as Plain;

use crate::track::chunk::{State, Tags, Window};
use crate::track::machine::Tracking;
use crate::track::page_set::{PageSet, PAGES};
use crate::track::place::Place;
use crate::track::windows::{self, WindowList};
use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock};
use shuttle::thread::{self, ThreadId};

use super::memory::FIRST;
use super::mistakes::Mistake;

/// The number of the chunk.
const INDEX: u64 = FIRST / PAGES as u64;

/// What is known of its pages.
pub type ChunkState = State<Box<[u64; PAGES]>>;

/// The one chunk of the file. (Where the windows of syncs are tested, there is another one.)
pub struct Chunk {
    index: u64,
    pub state: Mutex<ChunkState>,
}

impl Chunk {
    /// Without a page.
    pub fn new(index: u64) -> Self {
        Chunk {
            index,
            state: Mutex::new(State::new()),
        }
    }
}

/// What the tag lock guards.
pub struct TagState {
    tags: Tags,
    syncs: windows::Syncs<Windows>,
}

/// The tag lock, held.
pub struct Locked<'a> {
    tracker: &'a Tracker,
    guard: Option<MutexGuard<'a, TagState>>,
    clear_late: bool,
}

impl Deref for Locked<'_> {
    type Target = TagState;

    fn deref(&self) -> &TagState {
        self.guard.as_ref().unwrap()
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut TagState {
        self.guard.as_mut().unwrap()
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        drop(self.guard.take());
        if self.clear_late {
            self.tracker.mark.store(false, SeqCst);
        }
    }
}

/// The windows of syncs, by number.
#[derive(Default)]
pub struct Windows(Vec<Window>);

impl WindowList for Windows {
    type Slot = Option<u64>;

    fn insert(&mut self, slot: &mut Option<u64>, window: Window) {
        assert_eq!(slot.replace(window.seq), None, "a window was open");
        self.0.push(window);
    }

    fn set_end(&mut self, slot: &mut Option<u64>, end: u64) {
        let seq = slot.expect("no window is open");
        let window = self.0.iter_mut().find(|w| w.seq == seq).unwrap();
        assert!(window.end <= end, "a window becomes shorter");
        window.end = end;
    }

    fn remove(&mut self, slot: &mut Option<u64>) {
        let seq = slot.take().expect("no window is open");
        self.0.retain(|window| window.seq != seq);
    }

    fn any(&self, f: impl Fn(&Window) -> bool) -> bool {
        self.0.iter().any(f)
    }
}

/// What each thread has seen, or has to do yet.
#[derive(Default)]
struct Notes {
    /// Whether the file was mapped writable, and how many syncs had failed, when the last sync of a
    /// thread began.
    begun: Vec<(ThreadId, bool, u32)>,
    /// How many syncs had failed when a thread checked last.
    seen: Vec<(ThreadId, u32)>,
    /// Threads whose sync has failed and has not reported it yet.
    failed: Vec<ThreadId>,
}

pub struct Tracker {
    mistake: Mistake,
    chunk: Chunk,
    /// A fault has made the chunk.
    is_made: AtomicBool,
    /// Held shared by holders of a reference to the chunk.
    lifetime: RwLock<()>,
    /// Reclaim may look at the chunk.
    is_in_list: AtomicBool,
    tags: Mutex<TagState>,
    /// Notified when a sync has its fence behind it.
    fenced: Condvar,
    /// The chunk's mark: read without a lock.
    mark: AtomicBool,
    in_flight: AtomicU32,
    failed: AtomicU32,
    /// How many mappings can be stored through.
    pub writable: AtomicU32,
    /// The first mapping is locked in memory.
    pub is_locked: AtomicBool,
    /// A mapping that cannot be stored through is locked in memory.
    pub is_locked_to_read: AtomicBool,
    /// How often waiters were notified.
    pub notified: Plain<u32>,
    /// The range of which chunks with dirty pages were looked up last.
    pub looked_up: Plain<(u64, u64)>,
    /// Which pages were hot when the chunk was locked last.
    pub was_hot: Plain<PageSet>,
    notes: Plain<Notes>,
}

impl Tracker {
    /// Without a chunk.
    pub fn new(mistake: Mistake) -> Self {
        Tracker {
            mistake,
            chunk: Chunk::new(INDEX),
            is_made: AtomicBool::new(false),
            lifetime: RwLock::new(()),
            is_in_list: AtomicBool::new(true),
            tags: Mutex::new(TagState {
                tags: Tags::new(),
                syncs: windows::Syncs::new(Windows::default()),
            }),
            fenced: Condvar::new(),
            mark: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            writable: AtomicU32::new(2),
            is_locked: AtomicBool::new(false),
            is_locked_to_read: AtomicBool::new(false),
            notified: Plain::default(),
            looked_up: Plain::default(),
            was_hot: Plain::new(PageSet::EMPTY),
            notes: Plain::default(),
        }
    }

    /// The chunk, which was made.
    pub fn any_chunk(&self) -> &Chunk {
        &self.chunk
    }

    /// Makes the chunk.
    pub fn make(&self) {
        self.is_made.store(true, SeqCst);
    }

    /// Removes the chunk from the tree: the next user makes a new one.
    pub fn remove(&self) {
        assert!(
            !self.mark.load(SeqCst),
            "a chunk is given back with its mark"
        );
        *self.chunk.state.lock().unwrap() = State::new();
        self.is_made.store(false, SeqCst);
    }

    /// Runs `reclaim` with the chunk, if nobody has a reference to it.
    pub fn reclaim(&self, reclaim: impl FnOnce(&Chunk)) {
        if let (Ok(_nobody), Some(chunk)) = (self.lifetime.try_write(), self.chunk(INDEX)) {
            if self.is_in_list.load(SeqCst) {
                reclaim(chunk);
            }
        }
    }

    /// Whether somebody keeps the chunks from being freed.
    pub fn has_users(&self) -> bool {
        self.lifetime.try_write().is_err()
    }

    /// Keeps reclaim away from the chunk, for good: the file leaves memory.
    pub fn leave_list(&self) {
        let _nobody = self.lifetime.write().unwrap();
        self.is_in_list.store(false, SeqCst);
    }

    /// The file has left memory, and its tracker goes. Who reads it again makes a new one.
    pub fn end(&self) {
        assert_eq!(self.in_flight.load(SeqCst), 0, "a sync of what is gone");
        let mut tags = self.tags.lock().unwrap();
        tags.tags = Tags::new();
        self.mark.store(false, SeqCst);
        *self.chunk.state.lock().unwrap() = State::new();
        self.is_made.store(false, SeqCst);
        self.is_in_list.store(true, SeqCst);
    }

    fn note_begin(&self, me: ThreadId, writable: bool) {
        let mut notes = self.notes.lock().unwrap();
        let failed = notes.seen.iter().find(|(id, _)| *id == me);
        let failed = failed.map_or(0, |(_, failed)| *failed);
        notes.begun.push((me, writable, failed));
    }

    /// How many syncs have failed. (What this thread has seen of it is as before.)
    pub fn failures(&self) -> u32 {
        self.failed.load(SeqCst)
    }

    /// How many had, when the sync began that this thread has run since it asked last; by now, if
    /// it has found nothing to do.
    pub fn failures_at_begin(&self) -> u32 {
        let me = thread::current().id();
        let begun = {
            let begun = &mut self.notes.lock().unwrap().begun;
            let at = begun.iter().position(|(id, ..)| *id == me);
            at.map(|at| begun.swap_remove(at))
        };
        begun.map_or_else(|| self.failures(), |(_, _, failed)| failed)
    }

    /// Whether the file can be stored to through a mapping.
    pub fn is_writable(&self) -> bool {
        let early = self.mistake == Mistake::WritableCheckedEarly;
        let me = thread::current().id();
        let notes = self.notes.lock().unwrap();
        let seen = notes.begun.iter().find(|(id, ..)| *id == me);
        match seen {
            Some((_, seen, _)) if early => *seen,
            _ => {
                drop(notes);
                self.writable.load(SeqCst) > 0
            }
        }
    }
}

impl Tracking for Tracker {
    type Table = Box<[u64; PAGES]>;
    type Chunk = Chunk;
    type Guard<'a> = MutexGuard<'a, ChunkState>;
    type Locked<'a> = Locked<'a>;
    type Windows = Windows;

    fn chunk(&self, index: u64) -> Option<&Chunk> {
        (index == INDEX && self.is_made.load(SeqCst)).then_some(&self.chunk)
    }

    fn chunks(&self, first: u64, last: u64, dirty: bool) -> impl Iterator<Item = &Chunk> {
        if dirty {
            *self.looked_up.lock().unwrap() = (first, last);
        }
        let is_asked_for = first / PAGES as u64 <= INDEX && INDEX <= last / PAGES as u64;
        self.chunk(INDEX)
            .filter(|_| is_asked_for && (!dirty || self.mark.load(SeqCst)))
            .into_iter()
    }

    fn is_unused(&self) -> bool {
        !self.is_made.load(SeqCst)
    }

    fn stay(&self) -> impl Sized + '_ {
        self.lifetime.read().unwrap()
    }

    fn place(&self, chunk: &Chunk) -> Place {
        Place::new(chunk.index)
    }

    fn lock<'a>(&'a self, chunk: &'a Chunk) -> MutexGuard<'a, ChunkState> {
        assert!(
            self.is_made.load(SeqCst),
            "a chunk that was given back is in use"
        );
        let state = chunk.state.lock().unwrap();
        let is_cold = state.heat.hot().is_empty();
        let may_be_hot = !state.is_huge() || self.is_locked.load(SeqCst);
        assert!(is_cold || may_be_hot, "a page of a folio is hot");
        *self.was_hot.lock().unwrap() = *state.heat.hot();
        state
    }

    fn lock_tags(&self) -> Locked<'_> {
        Locked {
            tracker: self,
            guard: Some(self.tags.lock().unwrap()),
            clear_late: false,
        }
    }

    fn tags<'a>(&self, locked: &'a mut Locked<'_>, _chunk: &'a Chunk) -> &'a mut Tags {
        &mut locked.tags
    }

    fn syncs<'a>(&self, locked: &'a mut Locked<'_>) -> &'a mut windows::Syncs<Windows> {
        &mut locked.syncs
    }

    fn set_mark(&self, locked: &mut Locked<'_>, _chunk: &Chunk, marked: bool) {
        if !marked && self.mistake == Mistake::ClearMarkLate {
            locked.clear_late = true;
        } else {
            self.mark.store(marked, SeqCst);
        }
    }

    fn is_any_marked(&self) -> bool {
        self.mark.load(SeqCst)
    }

    fn with_slot<R>(&self, f: impl FnOnce(&mut Option<u64>) -> R) -> R {
        let me = thread::current().id();
        let writable = self.writable.load(SeqCst) > 0;
        self.note_begin(me, writable);
        let mut slot = None;
        let result = f(&mut slot);
        assert_eq!(slot, None, "a window stays open");
        result
    }

    fn in_flight(&self) -> u32 {
        self.in_flight.load(SeqCst)
    }

    fn count_in_flight(&self, begins: bool) {
        match begins {
            true => self.in_flight.fetch_add(1, SeqCst),
            false => self.in_flight.fetch_sub(1, SeqCst),
        };
    }

    fn failed(&self) -> u32 {
        let me = thread::current().id();
        let late = {
            let mut notes = self.notes.lock().unwrap();
            let before = notes.failed.len();
            notes.failed.retain(|id| *id != me);
            notes.failed.len() < before
        };
        if late {
            self.failed.fetch_add(1, SeqCst);
        }
        let failed = self.failed.load(SeqCst);
        let mut notes = self.notes.lock().unwrap();
        notes.seen.retain(|(id, _)| *id != me);
        notes.seen.push((me, failed));
        match self.mistake {
            Mistake::FailAlone => 0,
            _ => failed,
        }
    }

    fn count_failed(&self) {
        if self.mistake == Mistake::FailLate {
            let me = thread::current().id();
            self.notes.lock().unwrap().failed.push(me);
        } else {
            self.failed.fetch_add(1, SeqCst);
        }
    }

    fn wait(&self, locked: &mut Locked<'_>) {
        let guard = locked.guard.take().unwrap();
        locked.guard = Some(self.fenced.wait(guard).unwrap());
    }

    fn notify(&self) {
        *self.notified.lock().unwrap() += 1;
        self.fenced.notify_all();
    }
}
