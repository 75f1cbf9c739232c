// SPDX-License-Identifier: GPL-2.0

//! The file in memory, as the VFS keeps it: used, evicted, read again; the list of files with dirty
//! pages, and the pages and files that eviction leaves behind.

use std::ops::{Deref, DerefMut};

use crate::track::dirty_list::{self, Environment, Links, List};
use crate::track::evict::{self, Evicted};
use crate::track::left::LeftBehind;
use crate::track::machine::{Event, Failure, Mount, Tracking};
use crate::track::page_set::PageSet;
use crate::track::removal::Removal;
use crate::track::sync::write_back_file;
use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
use shuttle::thread;

use super::kernel::Invalidate;
use super::machine::{Machine, Step, LAST};

/// The number of the file.
const INO: u64 = 1;

/// Whether the file is in memory.
#[derive(Default)]
struct State {
    users: u32,
    /// `I_FREEING`.
    is_leaving: bool,
    is_gone: bool,
}

/// The life of the file, and of its mount.
pub struct Life {
    state: Mutex<State>,
    /// Notified when it has left memory.
    has_left: Condvar,
    /// It was evicted once.
    pub was_evicted: AtomicBool,
    /// It has no name.
    pub unlinked: AtomicBool,
    /// Pages may belong to it.
    pub is_owner: AtomicBool,
    /// Times have moved that are not durable.
    pub are_times_dirty: AtomicBool,
    /// The file system is frozen, or about to be.
    pub is_freezing: AtomicBool,
    list: Mutex<List<()>>,
    listed: AtomicBool,
    links: Mutex<Links<()>>,
    /// Notified when the list, or the work on an entry removed from it, has changed.
    changed: Condvar,
    /// One sync of all at a time.
    pub serial: Mutex<()>,
    left: Mutex<LeftBehind>,
    /// A thread of the kernel is going to look what can be released.
    is_looked_after: AtomicBool,
}

impl Default for Life {
    fn default() -> Self {
        Life {
            state: Mutex::new(State {
                users: 1,
                ..State::default()
            }),
            has_left: Condvar::new(),
            was_evicted: AtomicBool::new(false),
            unlinked: AtomicBool::new(false),
            is_owner: AtomicBool::new(false),
            are_times_dirty: AtomicBool::new(false),
            is_freezing: AtomicBool::new(false),
            list: Mutex::new(List::new()),
            listed: AtomicBool::new(false),
            links: Mutex::new(Links::NONE),
            changed: Condvar::new(),
            serial: Mutex::new(()),
            left: Mutex::new(LeftBehind::new()),
            is_looked_after: AtomicBool::new(false),
        }
    }
}

/// A reference to the file.
pub struct Held(Arc<Machine>);

impl Deref for Held {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.put();
    }
}

/// The lock of the list, held.
pub struct Locked<'a>(Option<MutexGuard<'a, List<()>>>);

impl Deref for Locked<'_> {
    type Target = List<()>;

    fn deref(&self) -> &List<()> {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut List<()> {
        self.0.as_mut().unwrap()
    }
}

impl Environment for Machine {
    type Entry = ();
    type Held = Held;
    type Error = Failure;
    type Locked<'a> = Locked<'a>;

    fn lock(&self) -> Locked<'_> {
        Locked(Some(self.life.list.lock().unwrap()))
    }

    fn wait(&self, list: &mut Locked<'_>) {
        let guard = list.0.take().unwrap();
        list.0 = Some(self.life.changed.wait(guard).unwrap());
    }

    fn notify(&self) {
        self.life.changed.notify_all();
    }

    fn grab(&self, _entry: ()) -> Option<Held> {
        self.grab()
    }

    fn is_listed(&self, _entry: ()) -> bool {
        self.life.listed.load(SeqCst)
    }

    fn set_listed(&self, _entry: (), listed: bool) {
        self.life.listed.store(listed, SeqCst);
    }

    fn links(&self, _list: &List<()>, _entry: ()) -> Links<()> {
        *self.life.links.lock().unwrap()
    }

    fn set_links(&self, _list: &mut List<()>, _entry: (), links: Links<()>) {
        *self.life.links.lock().unwrap() = links;
    }
}

impl Mount for Machine {
    type Device = Machine;
    type Left<'a> = MutexGuard<'a, LeftBehind>;

    fn device(&self) -> &Machine {
        self
    }

    fn left(&self) -> MutexGuard<'_, LeftBehind> {
        self.begins(Step::Left);
        self.life.left.lock().unwrap()
    }

    fn release_later(&self) {
        self.life.is_looked_after.store(true, SeqCst);
    }

    fn count_written_back(&self, nr: u64) {
        self.counts.lock().unwrap()[Event::WrittenBack as usize] += nr;
    }

    fn stores_are_lost(&self) {
        self.told.store(true, SeqCst);
    }

    fn without_reclaim<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }
}

impl Removal for Machine {
    type File = Machine;

    fn shut_down(&self) {
        self.may_store.store(false, SeqCst);
        self.is_gone.store(true, SeqCst);
        self.for_each_file(|file| file.unmap_pages(&PageSet::ALL));
    }

    fn end_access(&self) {
        self.has_ended.store(true, SeqCst);
        // Whoever has begun to use the device is waited for.
        drop(self.access.write().unwrap());
    }

    fn for_each_file(&self, mut each: impl FnMut(&Machine)) {
        if let Some(file) = self.grab() {
            let _faults_out = Invalidate::new(&file);
            each(&file);
        }
    }

    fn wait_for_owners(&self) {
        while self.life.is_owner.load(SeqCst) {
            thread::yield_now();
        }
    }

    fn release_device(&self) {
        assert!(self.has_ended.load(SeqCst), "the device is used, and gone");
        for map in &self.maps {
            let pmd = map.lock().unwrap();
            assert!(!pmd.leads_to(0..u64::MAX), "a page that is gone is mapped");
        }
        self.is_removed.store(true, SeqCst);
        assert!(
            self.device.lock().unwrap().is_idle(),
            "a page in use is gone"
        );
    }
}

impl Machine {
    /// The file has `users` from now on: threads that will [close](Machine::close) it.
    pub fn set_users(&self, users: u32) {
        self.life.state.lock().unwrap().users = users;
    }

    /// A reference, if the file is in memory and not about to leave it.
    pub fn grab(&self) -> Option<Held> {
        let mut state = self.life.state.lock().unwrap();
        if state.is_leaving || state.is_gone {
            return None;
        }
        state.users += 1;
        Some(Held(self.this.upgrade().unwrap()))
    }

    /// One user less. The last one evicts it.
    fn put(&self) {
        {
            let mut state = self.life.state.lock().unwrap();
            state.users -= 1;
            if state.users > 0 {
                return;
            }
            state.is_leaving = true;
        }
        self.leave_memory();
        self.assert_looked_after();
        let mut state = self.life.state.lock().unwrap();
        state.is_leaving = false;
        state.is_gone = true;
        self.life.has_left.notify_all();
    }

    fn leave_memory(&self) {
        self.life.was_evicted.store(true, SeqCst);
        if self.tracker.is_unused() {
            self.life.is_owner.store(false, SeqCst);
            return self.give_up_name(true);
        }
        self.tracker.leave_list();
        let unlinked = self.life.unlinked.load(SeqCst);
        let evicted = Evicted {
            file: self,
            mount: self,
            dirty: self,
            entry: (),
            ino: INO,
            unlinked,
            discard: unlinked,
        };
        let (idle, result) = evict::evict(&evicted, || self.tracker.end());
        assert!(
            result.is_ok() || self.lost.load(SeqCst) > 0,
            "an eviction failed by itself"
        );
        assert!(
            !self.life.is_owner.load(SeqCst),
            "it owns pages, and is gone"
        );
        self.give_up_name(idle);
    }

    /// The blocks of a file that has no name are freed, if none is pinned, and nothing frozen.
    fn give_up_name(&self, idle: bool) {
        if !idle || !self.life.unlinked.load(SeqCst) {
            return;
        }
        match self.frozen.try_read() {
            Ok(_thawed) => self.free_all(),
            Err(_) => evict::free_later(self, INO),
        }
    }

    fn assert_looked_after(&self) {
        assert!(
            self.left().is_empty() || self.life.is_looked_after.load(SeqCst),
            "what is left behind stays for ever"
        );
    }

    /// Waits until the file has left memory.
    pub fn wait_until_gone(&self) {
        let mut state = self.life.state.lock().unwrap();
        while !state.is_gone {
            state = self.life.has_left.wait(state).unwrap();
        }
    }

    fn free_all(&self) {
        let blocks: Vec<u64> = {
            let mut extents = self.extents.lock().unwrap();
            extents.iter_mut().filter_map(Option::take).collect()
        };
        blocks.into_iter().for_each(|block| self.free(block));
    }

    /// Opens the file; a new user. False if it cannot be read.
    pub fn open(&self) -> bool {
        {
            let mut state = self.life.state.lock().unwrap();
            while state.is_leaving {
                state = self.life.has_left.wait(state).unwrap();
            }
            state.users += 1;
            if !std::mem::replace(&mut state.is_gone, false) {
                return true;
            }
        }
        let adopted = evict::adopt(self, self, INO);
        if adopted.is_err() {
            self.put();
        }
        adopted.is_ok()
    }

    /// The last use of a mapping ends: munmap and close.
    pub fn close(&self, map: usize) {
        self.map_anew(map);
        self.put();
    }

    /// sync, syncfs, and whether it kept its promise: there is none for a file without a name.
    pub fn sync_all(&self) {
        let sync = || {
            let _serial = self.life.serial.lock().unwrap();
            evict::sync_all(self, self, |file: &Held| write_back_file(&**file)).is_ok()
        };
        if self.life.unlinked.load(SeqCst) {
            assert!(sync(), "a sync failed by itself");
        } else {
            self.check_sync(0, LAST, sync);
        }
    }

    /// The flusher visits the file.
    pub fn flush(&self) {
        let Some(file) = self.grab() else {
            return;
        };
        let result = dirty_list::sync_one(self, (), || write_back_file(&*file));
        assert!(
            result.is_ok() || self.lost.load(SeqCst) > 0,
            "the flusher failed by itself"
        );
    }

    /// A work item checks which pages are idle, and frees what has no name.
    pub fn look(&self) {
        let Ok(_thawed) = self.frozen.try_read() else {
            return;
        };
        let released = evict::release(self);
        assert!(released.is_ok() || self.lost.load(SeqCst) > 0);
        let free = self.left().take_free();
        if free.is_some() {
            self.free_all();
        }
    }

    /// The mount ends.
    pub fn unmount(&self) {
        evict::finish(self);
        assert!(self.left().any_page().is_none(), "a page stays behind");
        self.look();
        assert!(self.left().is_empty(), "a file stays behind");
    }

    /// A page was tagged.
    pub fn note_dirty(&self) {
        if !self.life.listed.load(SeqCst) {
            dirty_list::note(self, ());
        }
    }

    /// Whether a sync of all finds the file.
    pub fn is_noted(&self) -> bool {
        self.life.listed.load(SeqCst)
    }
}
