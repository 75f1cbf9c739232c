// SPDX-License-Identifier: GPL-2.0

//! The state of the mapped pages of an inode: a tree of chunks, found by file offset, in which
//! those with dirty pages are marked.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)
//!
//! A chunk is created by the first fault in its 2 MiB of file. It exists until the inode is
//! evicted, or memory is short (`reclaim.rs`). A reference to a chunk comes with something that
//! prevents this: the invalidate lock of the mapping (faults, and code that takes pages from the
//! file), [`Tracker::stay`] (syncs, and code that fills holes), or a reference to a page of it (the
//! end of a mapping or a pin). A chunk has two locks:
//!
//! * the *chunk lock*, which sleeps: faults, syncs and layout breaks hold it, for as long as page
//!   tables, folios and cache lines have to agree with what it guards ([`State`]);
//! * the *tag lock*, which spins, one for all chunks of an inode: it guards the [`Tags`], the marks
//!   in the tree and the syncs in flight, and is also taken under a page table lock, when a dirty
//!   entry is zapped.
//!
//! The operations under the tag lock are in [`windows`].

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::alloc::KBox;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed};
use kernel::sync::barrier::{smp_mb, Read};
use kernel::sync::lock::mutex::MutexBackend;
use kernel::sync::lock::spinlock::SpinLockBackend;
use kernel::sync::lock::Guard;
use kernel::sync::{new_mutex, new_spinlock, LockedBy, Mutex, SpinLock};
use kernel::types::Opaque;

use super::ahead::FillAhead;
use super::dirty::DirtyEntry;
use super::inode::InodeInfo;
use super::lru::{self, Links, List};
use super::owner::Ownership;
use super::reclaim;
use crate::bindings;
use crate::track::chunk::{self, Tags, Window};
use crate::track::machine::Tracking;
use crate::track::page_set::PAGES;
use crate::track::place::{split, Place};
use crate::track::windows::{self, WindowList};

/// The table of blocks of a chunk that is not contiguous.
pub type Table = KBox<[u64; PAGES]>;
/// What the chunk lock guards.
pub type State = chunk::State<Table>;
/// Proof that a chunk lock is held.
pub type StateGuard<'a> = Guard<'a, State, MutexBackend>;

/// 512 pages, 2 MiB, of a file.
#[pin_data]
#[repr(C)]
pub struct Chunk {
    /// Links it into the list of those that the shrinker may free.
    #[pin]
    links: Links,
    /// The next one that the shrinker is about to free.
    pub(super) next: UnsafeCell<Option<NonNull<Chunk>>>,
    /// Whose it is.
    pub(super) tracker: NonNull<Tracker>,
    /// It was used since the shrinker looked at it last.
    used: Atomic<bool>,
    place: Place,
    #[pin]
    state: Mutex<State>,
    tags: LockedBy<Tags, Syncs>,
}

// SAFETY: `next` belongs to the shrinker that has taken the chunk from its list; the tracker is
// `Sync` and lives longer; all else is in locks, atomic or constant.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

static CHUNKS: List<Chunk> = List::new();

impl Chunk {
    /// The list of all chunks, from which memory is reclaimed.
    pub(super) fn list() -> &'static List<Chunk> {
        &CHUNKS
    }

    /// Records that it is used again.
    pub fn touch(&self) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    /// Whether it was used since the last call.
    pub(super) fn was_used(&self) -> bool {
        let used = self.used.load(Relaxed);
        self.used.store(false, Relaxed);
        used
    }
}

/// A table. May sleep.
pub fn table() -> Result<Table> {
    Ok(KBox::new([0; PAGES], GFP_KERNEL_ACCOUNT)?)
}

/// The windows of the syncs in flight, as the tag lock guards them.
///
/// # Invariants
///
/// `newest` starts a list of nodes that are alive: each is on the stack of a task inside
/// [`Tracker::with_slot`], which has it removed before it returns.
pub struct Windows {
    /// Each points to the one that began before it.
    newest: *mut SyncNode,
}

// SAFETY: by the invariant the nodes are alive, and under the tag lock any task may read them.
unsafe impl Send for Windows {}

/// The window of a sync in flight.
struct SyncNode {
    window: Window,
    older: *mut SyncNode,
}

/// Room for the window of a sync, on the stack of a task inside [`Tracker::with_slot`].
pub struct Slot(*mut SyncNode);

impl WindowList for Windows {
    type Slot = Slot;

    fn insert(&mut self, slot: &mut Slot, window: Window) {
        let older = self.newest;
        // SAFETY: there is room; not linked yet, so nobody else knows the node.
        unsafe { slot.0.write(SyncNode { window, older }) };
        // INVARIANT: whoever has inserted the node removes it before `with_slot` returns.
        self.newest = slot.0;
    }

    #[inline]
    fn set_end(&mut self, slot: &mut Slot, end: u64) {
        // SAFETY: the node was inserted, and changes under the tag lock, of which `self` is proof.
        unsafe { (*slot.0).window.end = end };
    }

    fn remove(&mut self, slot: &mut Slot) {
        let mut link: *mut *mut SyncNode = &mut self.newest;
        // SAFETY: by the invariant, nodes in the list are alive; the last link is null.
        unsafe {
            while *link != slot.0 {
                link = &raw mut (**link).older;
            }
            *link = (*slot.0).older;
        }
    }

    fn any(&self, f: impl Fn(&Window) -> bool) -> bool {
        let mut node = self.newest;
        // SAFETY: by the invariant, nodes in the list are alive.
        while let Some(this) = unsafe { node.as_ref() } {
            if f(&this.window) {
                return true;
            }
            node = this.older;
        }
        false
    }
}

/// What the tag lock guards, except for the tags.
type Syncs = windows::Syncs<Windows>;

/// The dirty tracking of one inode.
#[pin_data(PinnedDrop)]
pub struct Tracker {
    /// The chunks by index (`*mut Chunk`). `MARK` is set for those with dirty pages.
    #[pin]
    chunks: Opaque<bindings::xarray>,
    /// Held shared by users of references to chunks, exclusively to free chunks.
    #[pin]
    lifetime: Opaque<bindings::rw_semaphore>,
    /// There may be chunks, or may have been.
    was_used: Atomic<bool>,
    /// The shrinker's data here while it holds `lifetime`.
    pub(super) reclaim: reclaim::Claim,
    #[pin]
    syncs: SpinLock<Syncs>,
    /// How many syncs are in flight: changes under the tag lock, read without it.
    in_flight: Atomic<u32>,
    /// How many syncs have failed: counted before they stop being in flight.
    failed: Atomic<u32>,
    /// How many blocks the next store to a hole gets.
    pub ahead: FillAhead,
    /// Whether pages may belong to the inode.
    pub ownership: Ownership,
    /// Links the inode into the super block's list of those with dirty pages.
    #[pin]
    pub(super) entry: DirtyEntry,
}

// SAFETY: the tree has its own lock, its chunks are `Sync`, and all else is in locks or atomic.
unsafe impl Send for Tracker {}
// SAFETY: as above.
unsafe impl Sync for Tracker {}

/// The mark of a chunk with dirty pages.
const MARK: bindings::xa_mark_t = bindings::RDAX_XA_MARK_1;

impl Tracker {
    /// A tracker without chunks.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Tracker {
            // SAFETY: initialises the tree in its place.
            chunks <- Opaque::ffi_init(|slot| unsafe { bindings::rdax_xa_init(slot) }),
            // SAFETY: initialises the lock in its place, where it stays.
            lifetime <- Opaque::ffi_init(|slot| unsafe { bindings::rdax_init_rwsem(slot) }),
            was_used: Atomic::new(false),
            reclaim: reclaim::Claim::new(),
            syncs <- new_spinlock!(
                Syncs::new(Windows {
                    newest: ptr::null_mut(),
                }),
                "rdax_tags"
            ),
            in_flight: Atomic::new(0),
            failed: Atomic::new(0),
            ahead: FillAhead::new(),
            ownership: Ownership::new(),
            entry <- DirtyEntry::new(),
        })
    }

    /// Gets the right to free chunks, if nobody has a reference to one by [`Tracker::stay`]. The
    /// caller releases it with [`Tracker::end_freeing`].
    pub(super) fn try_freeing(&self) -> bool {
        // SAFETY: the lock is initialised.
        unsafe { bindings::down_write_trylock(self.lifetime.get()) != 0 }
    }

    /// Releases the right to free chunks. The tracker may be freed afterwards.
    ///
    /// # Safety
    ///
    /// The task has got it by [`Tracker::try_freeing`].
    pub(super) unsafe fn end_freeing(&self) {
        // SAFETY: by the caller. An inode is freed an RCU grace period after it was evicted, and
        // the kernel does not let others run while it unlocks.
        unsafe { bindings::up_write(self.lifetime.get()) };
    }

    /// Removes all chunks from the list of the shrinker, for good, and waits until it uses none of
    /// them: from now on, only the caller, who is evicting the inode, frees chunks.
    pub fn leave_list(&self) {
        // SAFETY: the lock is initialised.
        unsafe { bindings::down_write(self.lifetime.get()) };
        for chunk in self.chunks(0, u64::MAX, false) {
            // SAFETY: it was added when it was made.
            unsafe { CHUNKS.remove(NonNull::from(chunk)) };
        }
        // SAFETY: locked above.
        unsafe { bindings::up_write(self.lifetime.get()) };
    }

    /// Creates the chunk `index`, if it does not exist. May sleep, and free chunks of this and
    /// other inodes to get memory; the caller holds nothing that would prevent that. Unless the
    /// caller keeps chunks from being freed, the new one may disappear again at once.
    pub fn make_chunk(&self, index: u64) -> Result {
        self.was_used.store(true, Relaxed);
        let memory = CHUNKS.alloc()?;
        let fresh = pin_init!(Chunk {
            links <- lru::unlinked(),
            next: UnsafeCell::new(None),
            tracker: NonNull::from(self),
            used: Atomic::new(false),
            place: Place::new(index),
            state <- new_mutex!(State::new(), "rdax_chunk"),
            tags: LockedBy::new(&self.syncs, Tags::new()),
        });
        // SAFETY: the memory is for a chunk, and ours alone; the chunk stays in it until it is
        // freed.
        unsafe { pin_init::raw_init(memory.as_ptr(), fresh) };
        // SAFETY: the tree is alive, and takes any aligned pointer. Its lock is held, but for the
        // time that an allocation takes. What is in the tree is in the list, too: under the lock of
        // the tree nobody else finds the chunk.
        let there = unsafe {
            let tree = self.chunks.get();
            bindings::xa_lock(tree);
            let there = bindings::__xa_cmpxchg(
                tree,
                index as usize,
                ptr::null_mut(),
                memory.as_ptr().cast(),
                bindings::GFP_KERNEL,
            );
            if there.is_null() {
                CHUNKS.add(memory);
            }
            bindings::xa_unlock(tree);
            there
        };
        if there.is_null() {
            return Ok(());
        }
        // SAFETY: it was not stored, so it is still ours alone.
        unsafe { free(memory) };
        // SAFETY: checks whether the pointer is an error. If not, another fault has made the chunk.
        match unsafe { bindings::xa_err(there) } {
            0 => Ok(()),
            _ => Err(ENOMEM),
        }
    }

    /// Removes a chunk without any page state from the tree: nobody finds it any more. The caller
    /// frees it.
    pub(super) fn remove(&self, chunk: &Chunk) {
        // SAFETY: the tree is alive.
        unsafe { bindings::xa_erase(self.chunks.get(), chunk.place.index() as usize) };
    }

    /// Drops all chunks.
    ///
    /// # Safety
    ///
    /// Nobody holds a reference to a chunk, and nobody makes one; none is in the list of the
    /// shrinker.
    pub unsafe fn free_chunks(&self) {
        if self.is_unused() {
            return;
        }
        let mut index = 0;
        loop {
            // SAFETY: the tree is alive.
            let chunk = unsafe {
                bindings::xa_find(
                    self.chunks.get(),
                    &mut index,
                    usize::MAX,
                    bindings::RDAX_XA_PRESENT,
                )
            };
            let Some(chunk) = NonNull::new(chunk.cast::<Chunk>()) else {
                break;
            };
            // SAFETY: by the caller's promise nobody else has it.
            unsafe {
                self.remove(chunk.as_ref());
                free(chunk);
            }
        }
    }
}

impl Tracking for Tracker {
    type Table = Table;
    type Chunk = Chunk;
    type Guard<'a> = StateGuard<'a>;
    type Locked<'a> = Guard<'a, Syncs, SpinLockBackend>;
    type Windows = Windows;

    #[inline]
    fn chunk(&self, index: u64) -> Option<&Chunk> {
        // SAFETY: the tree is alive; the entries are chunks, which nobody frees meanwhile.
        unsafe {
            let entry = bindings::xa_load(self.chunks.get(), index as usize);
            entry.cast::<Chunk>().as_ref()
        }
    }

    #[inline]
    fn chunks(&self, first: u64, last: u64, dirty: bool) -> impl Iterator<Item = &Chunk> {
        let filter = if dirty {
            MARK
        } else {
            bindings::RDAX_XA_PRESENT
        };
        let (end, _) = split(last);
        let mut next = Some(split(first).0);
        core::iter::from_fn(move || {
            let mut index = next? as usize;
            // SAFETY: as in `chunk`.
            let chunk = unsafe {
                bindings::xa_find(self.chunks.get(), &mut index, end as usize, filter)
                    .cast::<Chunk>()
                    .as_ref()
            };
            next = (index as u64).checked_add(1).filter(|next| *next <= end);
            chunk
        })
    }

    #[inline]
    fn is_unused(&self) -> bool {
        !self.was_used.load(Relaxed)
    }

    fn stay(&self) -> impl Sized + '_ {
        // SAFETY: the lock is initialised; the guard unlocks it.
        unsafe { bindings::down_read(self.lifetime.get()) };
        Stay(self)
    }

    #[inline]
    fn place(&self, chunk: &Chunk) -> Place {
        chunk.place
    }

    #[inline]
    fn lock<'a>(&'a self, chunk: &'a Chunk) -> StateGuard<'a> {
        chunk.state.lock()
    }

    #[inline]
    fn lock_tags(&self) -> Self::Locked<'_> {
        self.syncs.lock()
    }

    #[inline]
    fn tags<'a>(&self, locked: &'a mut Self::Locked<'_>, chunk: &'a Chunk) -> &'a mut Tags {
        chunk.tags.access_mut(&mut **locked)
    }

    #[inline]
    fn syncs<'a>(&self, locked: &'a mut Self::Locked<'_>) -> &'a mut Syncs {
        locked
    }

    #[inline]
    fn set_mark(&self, _locked: &mut Self::Locked<'_>, chunk: &Chunk, marked: bool) {
        let (tree, index) = (self.chunks.get(), chunk.place.index() as usize);
        // SAFETY: the tree is alive and has the chunk.
        unsafe {
            match marked {
                true => bindings::xa_set_mark(tree, index, MARK),
                false => bindings::xa_clear_mark(tree, index, MARK),
            }
        }
    }

    #[inline]
    fn is_any_marked(&self) -> bool {
        // SAFETY: reads the flags of a tree that is alive.
        let marked = unsafe { bindings::rdax_xa_marked(self.chunks.get(), MARK) };
        smp_mb(Read);
        marked
    }

    #[inline]
    fn with_slot<R>(&self, f: impl FnOnce(&mut Slot) -> R) -> R {
        let mut node = MaybeUninit::uninit();
        f(&mut Slot(node.as_mut_ptr()))
    }

    #[inline]
    fn in_flight(&self) -> u32 {
        self.in_flight.load(Acquire)
    }

    #[inline]
    fn count_in_flight(&self, begins: bool) {
        match begins {
            true => self.in_flight.fetch_add(1, Full),
            false => self.in_flight.fetch_sub(1, Full),
        };
    }

    #[inline]
    fn failed(&self) -> u32 {
        self.failed.load(Acquire)
    }

    fn count_failed(&self) {
        self.failed.fetch_add(1, Full);
    }

    fn wait(&self, locked: &mut Self::Locked<'_>) {
        InodeInfo::of(self).sb().dirty.fenced.wait(locked);
    }

    fn notify(&self) {
        InodeInfo::of(self).sb().dirty.fenced.notify_all();
    }
}

/// Frees the memory of a chunk.
///
/// # Safety
///
/// It was made by [`Tracker::make_chunk`], is in no tree and no list, and nobody has a reference to
/// it.
pub(super) unsafe fn free(chunk: NonNull<Chunk>) {
    // SAFETY: by the caller.
    unsafe {
        chunk.drop_in_place();
        CHUNKS.free(chunk);
    }
}

/// Keeps the chunks of a tracker from being freed.
pub struct Stay<'a>(&'a Tracker);

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        // SAFETY: taken in `Tracker::stay`, by this task.
        unsafe { bindings::up_read(self.0.lifetime.get()) };
    }
}

#[pinned_drop]
impl PinnedDrop for Tracker {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: nobody else has the tracker any more.
        unsafe { self.free_chunks() };
    }
}
