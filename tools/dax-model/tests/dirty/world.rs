// SPDX-License-Identifier: GPL-2.0

//! Inodes as the VFS keeps them: counted, flushed, evicted. Each has one page.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

use dax_model::track::dirty_list::{self, Environment, Links, List};
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use shuttle::sync::{Condvar, Mutex, MutexGuard};

/// One thing of the surroundings done wrongly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    None,
    /// A task removes an inode from the list without a reference to it.
    NoReference,
    /// A reference is given to an inode whose eviction has begun.
    GrabFreeing,
    /// The end of an eviction notifies nobody.
    NoNotify,
    /// An inode is put into the list before its page is tagged.
    NoteBeforeTag,
    /// The flusher is notified before the inode is in the list.
    MarkBeforeListed,
}

/// What `i_lock` guards.
#[derive(Default)]
struct State {
    refs: u32,
    /// `I_FREEING`.
    freeing: bool,
    /// `I_SYNC`: the flusher is writing it back.
    flushed: bool,
    /// The memory was freed.
    gone: bool,
}

struct Inode {
    has_name: bool,
    state: Mutex<State>,
    /// Notified when the flusher is done.
    changed: Condvar,
    listed: AtomicBool,
    links: Mutex<Links<usize>>,
    /// `I_DIRTY_SYNC`.
    marked: AtomicBool,
    tagged: AtomicBool,
    in_flight: AtomicU64,
    /// The chunk lock.
    chunk: Mutex<()>,
    cache: AtomicU64,
    media: AtomicU64,
}

/// The inodes of a mount.
pub struct World {
    this: Weak<World>,
    mistake: Mistake,
    inodes: Vec<Inode>,
    list: Mutex<List<usize>>,
    changed: Condvar,
    /// One sync of all at a time.
    serial: Mutex<()>,
    /// How often somebody has begun to wait for a change.
    pub waits: AtomicU64,
}

/// A reference to an inode.
pub struct Ref {
    world: Arc<World>,
    ino: usize,
}

/// The lock of the list, held.
pub struct Locked<'a>(Option<MutexGuard<'a, List<usize>>>);

impl Deref for Locked<'_> {
    type Target = List<usize>;

    fn deref(&self) -> &List<usize> {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut List<usize> {
        self.0.as_mut().unwrap()
    }
}

impl Environment for World {
    type Entry = usize;
    type Held = Ref;
    type Error = ();
    type Locked<'a> = Locked<'a>;

    fn lock(&self) -> Locked<'_> {
        Locked(Some(self.list.lock().unwrap()))
    }

    fn wait(&self, list: &mut Locked<'_>) {
        self.waits.fetch_add(1, SeqCst);
        let guard = list.0.take().unwrap();
        list.0 = Some(self.changed.wait(guard).unwrap());
    }

    fn notify(&self) {
        if self.mistake != Mistake::NoNotify {
            self.changed.notify_all();
        }
    }

    fn grab(&self, ino: usize) -> Option<Ref> {
        let mut state = self.alive(ino).state.lock().unwrap();
        if state.freeing && self.mistake != Mistake::GrabFreeing {
            return None;
        }
        if self.mistake != Mistake::NoReference {
            state.refs += 1;
        }
        let world = self.this.upgrade().unwrap();
        Some(Ref { world, ino })
    }

    fn is_listed(&self, ino: usize) -> bool {
        self.alive(ino).listed.load(SeqCst)
    }

    fn set_listed(&self, ino: usize, listed: bool) {
        self.alive(ino).listed.store(listed, SeqCst);
    }

    fn links(&self, _list: &List<usize>, ino: usize) -> Links<usize> {
        *self.alive(ino).links.lock().unwrap()
    }

    fn set_links(&self, _list: &mut List<usize>, ino: usize, links: Links<usize>) {
        *self.alive(ino).links.lock().unwrap() = links;
    }
}

impl World {
    /// A world with an inode for each of `names`, which says whether it has a name.
    pub fn new(mistake: Mistake, names: &[bool]) -> Arc<Self> {
        let inode = |has_name: &bool| Inode {
            has_name: *has_name,
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            listed: AtomicBool::new(false),
            links: Mutex::new(Links::NONE),
            marked: AtomicBool::new(false),
            tagged: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            chunk: Mutex::new(()),
            cache: AtomicU64::new(0),
            media: AtomicU64::new(0),
        };
        Arc::new_cyclic(|this| World {
            this: this.clone(),
            mistake,
            inodes: names.iter().map(inode).collect(),
            list: Mutex::new(List::new()),
            changed: Condvar::new(),
            serial: Mutex::new(()),
            waits: AtomicU64::new(0),
        })
    }

    /// The inode, which is in memory.
    fn alive(&self, ino: usize) -> &Inode {
        let inode = &self.inodes[ino];
        assert!(!inode.state.lock().unwrap().gone, "used after it was freed");
        inode
    }

    pub fn open(self: &Arc<Self>, ino: usize) -> Ref {
        self.inodes[ino].state.lock().unwrap().refs += 1;
        Ref {
            world: self.clone(),
            ino,
        }
    }

    /// `write_back()` of `src/dax/sync.rs`.
    fn write_back(&self, ino: usize) {
        let inode = self.alive(ino);
        if !inode.tagged.load(SeqCst) && inode.in_flight.load(SeqCst) == 0 {
            return;
        }
        inode.in_flight.fetch_add(1, SeqCst);
        let value = {
            let _chunk = inode.chunk.lock().unwrap();
            inode.tagged.store(false, SeqCst);
            inode.cache.load(SeqCst)
        };
        self.alive(ino).media.fetch_max(value, SeqCst);
        self.alive(ino).in_flight.fetch_sub(1, SeqCst);
    }

    /// syncfs(2), and whether it kept its promise.
    pub fn sync_all(self: &Arc<Self>) {
        let stored: Vec<u64> = self.inodes.iter().map(|i| i.cache.load(SeqCst)).collect();
        {
            let _serial = self.serial.lock().unwrap();
            let write_back = |inode: &Ref| {
                self.write_back(inode.ino);
                Ok(())
            };
            dirty_list::sync_all(&**self, write_back).unwrap();
        }
        for (inode, stored) in self.inodes.iter().zip(stored) {
            let media = inode.media.load(SeqCst);
            assert!(
                !inode.has_name || media >= stored,
                "{stored} stored, {media} durable"
            );
        }
    }

    /// `write_inode()`, by the flusher.
    pub fn flush(&self, ino: usize) {
        let inode = &self.inodes[ino];
        {
            let mut state = inode.state.lock().unwrap();
            if state.freeing || state.flushed {
                return;
            }
            state.flushed = true;
        }
        if inode.marked.swap(false, SeqCst) {
            let write_back = || {
                self.write_back(ino);
                Ok(())
            };
            dirty_list::sync_one(self, ino, write_back).unwrap();
        }
        inode.state.lock().unwrap().flushed = false;
        inode.changed.notify_all();
    }

    /// The shrinker finds the inode without a user.
    pub fn reclaim(&self, ino: usize) {
        let mut state = self.inodes[ino].state.lock().unwrap();
        // The flusher's are passed over, and so are dirty ones.
        if state.refs == 0 && !state.freeing && !state.flushed {
            state.freeing = true;
            self.evict(ino, state);
        }
    }

    fn evict(&self, ino: usize, mut state: MutexGuard<'_, State>) {
        let inode = &self.inodes[ino];
        while state.flushed {
            state = inode.changed.wait(state).unwrap();
        }
        drop(state);
        dirty_list::leave(self, ino, || {
            if inode.has_name {
                self.write_back(ino);
            }
        });
        assert!(!inode.listed.load(SeqCst), "freed, and in the list");
        inode.state.lock().unwrap().gone = true;
    }

    /// Whether the lists lead to all that is dirty.
    pub fn check_lists(&self) {
        for inode in &self.inodes {
            if !inode.state.lock().unwrap().gone {
                let listed = inode.listed.load(SeqCst);
                assert!(
                    listed || !inode.tagged.load(SeqCst),
                    "dirty, and not in the list"
                );
                let marked = inode.marked.load(SeqCst);
                assert!(marked || !listed, "in the list, and nobody will come");
            }
        }
    }
}

impl Ref {
    /// A store to the page, and what a fault does before it.
    pub fn store(&self) {
        let world = &*self.world;
        let inode = world.alive(self.ino);
        let _chunk = inode.chunk.lock().unwrap();
        let tag = || inode.tagged.store(true, SeqCst);
        if world.mistake != Mistake::NoteBeforeTag {
            tag();
        }
        if !inode.listed.load(SeqCst) {
            if world.mistake == Mistake::MarkBeforeListed {
                inode.marked.store(true, SeqCst);
                dirty_list::note(world, self.ino);
            } else if dirty_list::note(world, self.ino) {
                inode.marked.store(true, SeqCst);
            }
        }
        if world.mistake == Mistake::NoteBeforeTag {
            tag();
        }
        inode.cache.fetch_add(1, SeqCst);
    }
}

impl Drop for Ref {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let inode = &self.world.inodes[self.ino];
        let mut state = inode.state.lock().unwrap();
        if state.refs == 0 && self.world.mistake == Mistake::NoReference {
            return;
        }
        state.refs -= 1;
        if state.refs == 0 && !inode.has_name && !state.freeing {
            state.freeing = true;
            self.world.evict(self.ino, state);
        }
    }
}
