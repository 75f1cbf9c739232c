// SPDX-License-Identifier: GPL-2.0

//! What an inode knows about its mapped pages: a tree of chunks, found by file offset, in which
//! those with dirty pages are marked.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)
//!
//! A chunk is made by the first fault in its 2 MiB of file. It stays until the inode leaves memory, or
//! memory is short (`reclaim.rs`). Whoever has a reference to one keeps that from happening: by the
//! invalidate lock of the mapping (faults, and what takes pages from the file), by
//! [`Tracker::stay`] (syncs, and what fills holes), or by a reference to a page of it (the end of a
//! mapping or a pin). A chunk has two locks:
//!
//! * the *chunk lock*, which sleeps: faults, syncs and layout breaks hold it, for as long as page
//!   tables, folios and cache lines have to agree with what it guards ([`State`]);
//! * the *tag lock*, which spins, one for all chunks of an inode: it guards the [`Tags`], the marks
//!   in the tree and the syncs in flight, and is also taken under a page table lock, when a dirty
//!   entry is zapped.
//!
//! Whether an inode has anything dirty or in flight can be read without a lock
//! ([`Tracker::is_quiet`]), because a mark changes under the tag lock together with the tags.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::alloc::KBox;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed};
use kernel::sync::barrier::{smp_mb, Read};
use kernel::sync::lock::mutex::MutexBackend;
use kernel::sync::lock::Guard;
use kernel::sync::{new_mutex, new_spinlock, CondVar, LockedBy, Mutex, SpinLock};
use kernel::types::Opaque;

use super::ahead::FillAhead;
use super::dirty::DirtyEntry;
use super::owner::Ownership;
use super::reclaim;
use crate::bindings;
use crate::mutate::mutated;
use crate::track::chunk::{self, Protected, Snapshot, Tags, Taken, Window};
use crate::track::page_set::{PageSet, PAGES};
use crate::track::place::{split, Place};
use crate::vfs::lru::{self, Links, List};

/// The table of blocks of a chunk that does not lie in one piece.
pub type Table = KBox<[u64; PAGES]>;
/// What the chunk lock guards.
pub type State = chunk::State<Table>;
/// Proof that a chunk lock is held.
pub type StateGuard<'a> = Guard<'a, State, MutexBackend>;

/// 512 pages, 2 MiB, of a file.
#[pin_data]
#[repr(C)]
pub struct Chunk {
    /// In the list of those that the shrinker may give back.
    #[pin]
    links: Links,
    /// The next one that it is about to give back.
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

// SAFETY: `next` belongs to the shrinker that has taken the chunk from its list; the tracker is `Sync`
// and lives longer; all else is in locks, atomic or constant.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

static CHUNKS: List<Chunk> = List::new();

impl Chunk {
    /// The list of all chunks, from which memory is reclaimed.
    pub(super) fn list() -> &'static List<Chunk> {
        &CHUNKS
    }

    /// Notes that it is used again.
    pub fn touch(&self) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    /// Whether it was used since this was asked last.
    pub(super) fn was_used(&self) -> bool {
        let used = self.used.load(Relaxed);
        self.used.store(false, Relaxed);
        used
    }

    /// Waits for the chunk lock.
    pub fn lock(&self) -> StateGuard<'_> {
        self.state.lock()
    }

    /// Where in the file it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The number of its first page in the file.
    pub fn first_page(&self) -> u64 {
        self.place.first_page()
    }

    /// The number of its last page in the file.
    pub fn last_page(&self) -> u64 {
        self.place.last_page()
    }

    /// The pages of the chunk among the pages `first..=last` of the file.
    pub fn clip(&self, first: u64, last: u64) -> PageSet {
        self.place.clip(first, last)
    }
}

/// A table. May sleep.
pub fn table() -> Result<Table> {
    Ok(KBox::new([0; PAGES], GFP_KERNEL_ACCOUNT)?)
}

/// The table that [`State::map_block`] may need, and that is allocated before.
pub fn table_for(state: &State, page: usize, block: u64) -> Result<Option<Table>> {
    Ok(match state.needs_table(page, block) {
        true => Some(table()?),
        false => None,
    })
}

/// The syncs in flight, as the tag lock guards them.
///
/// # Invariants
///
/// `newest` starts a list of nodes that are alive: each is on the stack of a task inside
/// [`Tracker::sync`], which takes its node out before it returns.
pub struct Syncs {
    /// Each points to the one that began before it.
    newest: *mut SyncNode,
    next_seq: u64,
    waiters: u32,
}

// SAFETY: by the invariant the nodes are alive, and under the tag lock any task may read them.
unsafe impl Send for Syncs {}

/// A sync in flight.
struct SyncNode {
    window: Window,
    older: *mut SyncNode,
}

impl Syncs {
    /// Whether a sync of `first..=last` that drew the number `now` has to wait for another.
    fn covers(&self, now: u64, first: u64, last: u64) -> bool {
        let mut node = self.newest;
        // SAFETY: by the invariant, nodes in the list are alive.
        while let Some(this) = unsafe { node.as_ref() } {
            if this.window.covers(now, first, last) {
                return true;
            }
            node = this.older;
        }
        false
    }

    fn unlink(&mut self, gone: *mut SyncNode) {
        let mut link: *mut *mut SyncNode = &mut self.newest;
        // SAFETY: by the invariant, nodes in the list are alive; the last link is null.
        unsafe {
            while *link != gone {
                link = &raw mut (**link).older;
            }
            *link = (*gone).older;
        }
    }
}

/// The right to take pages of an inode for a sync, inside [`Tracker::sync`].
pub struct SyncWindow<'a> {
    tracker: &'a Tracker,
    first: u64,
    node: *mut SyncNode,
    linked: bool,
}

impl SyncWindow<'_> {
    /// Extends the window up to the page before `end`; the first time, opens it.
    fn reach(&mut self, syncs: &mut Syncs, end: u64) {
        if self.linked {
            // SAFETY: the node is on the stack of `Tracker::sync`, and changes under the tag lock,
            // of which `syncs` is proof.
            unsafe { (*self.node).window.end = end };
            return;
        }
        let window = Window {
            seq: syncs.next_seq,
            first: self.first,
            end,
        };
        syncs.next_seq += 1;
        // SAFETY: as above; not linked yet, so nobody else knows the node.
        unsafe {
            self.node.write(SyncNode {
                window,
                older: syncs.newest,
            });
        }
        syncs.newest = self.node;
        self.linked = true;
        // Full: pages are made clean, and marks cleared, after it. See `is_quiet`.
        self.tracker.in_flight.fetch_add(1, Full);
    }
}

/// The dirty tracking of one inode.
#[pin_data(PinnedDrop)]
pub struct Tracker {
    /// The chunks by index (`*mut Chunk`). `MARK` is set for those with dirty pages.
    #[pin]
    chunks: Opaque<bindings::xarray>,
    /// Held shared by who has references to chunks, exclusively by who frees some.
    #[pin]
    lifetime: Opaque<bindings::rw_semaphore>,
    /// There may be chunks, or have been some.
    was_used: Atomic<bool>,
    /// What the shrinker keeps here while it holds `lifetime`.
    pub(super) reclaim: reclaim::Claim,
    #[pin]
    syncs: SpinLock<Syncs>,
    /// How many syncs are in flight: changes under the tag lock, read without.
    in_flight: Atomic<u32>,
    /// How many syncs have failed: counted before they end to be in flight.
    failed: Atomic<u32>,
    /// What the next store to a hole is given.
    pub ahead: FillAhead,
    /// Whether pages may belong to the inode.
    pub(super) ownership: Ownership,
    /// The inode in the super block's list of those with dirty pages.
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
                Syncs {
                    newest: ptr::null_mut(),
                    next_seq: 0,
                    waiters: 0,
                },
                "rdax_tags"
            ),
            in_flight: Atomic::new(0),
            failed: Atomic::new(0),
            ahead: FillAhead::new(),
            ownership: Ownership::new(),
            entry <- DirtyEntry::new(),
        })
    }

    /// Whether nothing is dirty and no sync is in flight. What was tagged, or taken by a sync,
    /// before the call is not missed.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        // SAFETY: reads the flags of a tree that is alive.
        let marked = unsafe { bindings::rdax_xa_marked(self.chunks.get(), MARK) };
        // A sync raises the count before it clears a mark, so the count is read after the mark.
        smp_mb(Read);
        !marked && self.in_flight.load(Relaxed) == 0
    }

    /// Whether the file was never mapped: there is no chunk, and nobody is freeing one.
    #[inline]
    pub fn is_unused(&self) -> bool {
        !self.was_used.load(Relaxed)
    }

    /// Keeps the chunks there are from being freed. May sleep.
    pub fn stay(&self) -> Stay<'_> {
        // SAFETY: the lock is initialised; the guard unlocks it.
        unsafe { bindings::down_read(self.lifetime.get()) };
        Stay(self)
    }

    /// The right to free chunks, if nobody has a reference to one by [`Tracker::stay`]. The caller unlocks
    /// it with [`Tracker::end_freeing`].
    pub(super) fn try_freeing(&self) -> bool {
        // SAFETY: the lock is initialised.
        unsafe { bindings::down_write_trylock(self.lifetime.get()) != 0 }
    }

    /// Gives up the right to free chunks. The tracker may be gone afterwards.
    ///
    /// # Safety
    ///
    /// The task has got it by [`Tracker::try_freeing`].
    pub(super) unsafe fn end_freeing(&self) {
        // SAFETY: by the caller. An inode is freed an RCU grace period after it was evicted, and the
        // kernel does not let others run while it unlocks.
        unsafe { bindings::up_write(self.lifetime.get()) };
    }

    /// Takes all chunks from the list of the shrinker, for good, and waits until it is at none of them:
    /// from now on, nobody frees a chunk but the caller, who is evicting the inode.
    pub(super) fn leave_list(&self) {
        // SAFETY: the lock is initialised.
        unsafe { bindings::down_write(self.lifetime.get()) };
        for chunk in self.chunks(0, u64::MAX, false) {
            // SAFETY: it was added when it was made.
            unsafe { CHUNKS.remove(NonNull::from(chunk)) };
        }
        // SAFETY: locked above.
        unsafe { bindings::up_write(self.lifetime.get()) };
    }

    /// The chunk `index`, if a fault made it. The caller keeps it from being freed, see above.
    pub fn chunk(&self, index: u64) -> Option<&Chunk> {
        // SAFETY: the tree is alive; the entries are chunks, which nobody frees meanwhile.
        unsafe {
            let entry = bindings::xa_load(self.chunks.get(), index as usize);
            entry.cast::<Chunk>().as_ref()
        }
    }

    /// Makes the chunk `index`, if it is not there. May sleep, and free chunks of this and other
    /// inodes to get memory; nothing is held that would keep it from that. Unless the caller
    /// keeps chunks from being freed, the new one may be gone again at once.
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
        // SAFETY: the memory is for a chunk, and ours alone; the chunk stays in it until it is freed.
        unsafe { pin_init::raw_init(memory.as_ptr(), fresh) };
        // SAFETY: the tree is alive, and takes any aligned pointer. Its lock is held, but for
        // the time that an allocation takes. What is in the tree is in the list, too: under the lock of
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

    /// The chunks with a page in `first..=last`, ascending, with dirty pages only if `dirty`.
    pub fn chunks(&self, first: u64, last: u64, dirty: bool) -> impl Iterator<Item = &Chunk> {
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

    /// Notes that stores may reach `page` of `chunk` from now on, or have; any page if it is `None`.
    /// Returns how many were clean. Does not sleep; may be called under a page table lock.
    pub fn tag(&self, chunk: &Chunk, page: Option<usize>) -> usize {
        let mut syncs = self.syncs.lock();
        let tags = chunk.tags.access_mut(&mut syncs);
        let tagged = match page {
            Some(page) => tags.set(page),
            None => tags.set_all(),
        };
        if tagged.set_mark {
            // SAFETY: the tree is alive and has the chunk.
            unsafe { bindings::xa_set_mark(self.chunks.get(), chunk.place.index() as usize, MARK) };
        }
        tagged.newly
    }

    /// The dirty pages among `pages`. The chunk lock, of which `_state` is proof, is held until
    /// they were written back.
    pub fn dirty_in(&self, chunk: &Chunk, _state: &StateGuard<'_>, pages: &PageSet) -> Snapshot {
        let syncs = self.syncs.lock();
        chunk.tags.access(&syncs).dirty_in(pages)
    }

    /// Makes pages clean that were write-protected; the caller writes them back before it drops
    /// the chunk lock.
    pub fn take(&self, sync: &mut SyncWindow<'_>, chunk: &Chunk, pages: Protected) -> Taken {
        let mut syncs = self.syncs.lock();
        // Before the pages become clean: who finds them clean finds the window.
        sync.reach(&mut syncs, chunk.place.end());
        let (taken, clear) = chunk.tags.access_mut(&mut syncs).take(pages);
        if clear {
            self.clear_mark(chunk);
        }
        taken
    }

    /// Runs a sync of the pages `first..=last`: `walk` takes pages, writes them back and fences.
    /// Then waits until every other sync that took pages of the range before now has its fence
    /// behind it, too: `fenced` is notified when one has. Fails if one of them did, for what it
    /// found clean may be what the other has lost. May sleep.
    pub fn sync(
        &self,
        fenced: &CondVar,
        first: u64,
        last: u64,
        walk: impl FnOnce(&mut SyncWindow<'_>) -> Result,
    ) -> Result {
        // Before it looks at a page: one that another takes meanwhile is missed by neither.
        let failed = self.failed.load(Acquire);
        let mut node = MaybeUninit::uninit();
        let mut sync = SyncWindow {
            tracker: self,
            first,
            node: node.as_mut_ptr(),
            linked: false,
        };
        let result = walk(&mut sync);
        if result.is_err() {
            // Before the window closes: who waits for it looks when it is closed.
            self.failed.fetch_add(1, Full);
        }
        if !sync.linked && (self.in_flight.load(Acquire) == 0 || mutated!("sync-wait")) {
            return result.and(self.none_failed_since(failed));
        }
        let mut syncs = self.syncs.lock();
        if sync.linked {
            syncs.unlink(sync.node);
            self.in_flight.fetch_sub(1, Full);
            if syncs.waiters > 0 {
                fenced.notify_all();
            }
        }
        let now = syncs.next_seq;
        while syncs.covers(now, first, last) {
            syncs.waiters += 1;
            fenced.wait(&mut syncs);
            syncs.waiters -= 1;
        }
        drop(syncs);
        result.and(self.none_failed_since(failed))
    }

    fn none_failed_since(&self, failed: u32) -> Result {
        match self.failed.load(Acquire) == failed {
            true => Ok(()),
            false => Err(EIO),
        }
    }

    /// Forgets the tags of pages that are being taken out of the file.
    pub fn forget(&self, chunk: &Chunk, pages: &PageSet) {
        let mut syncs = self.syncs.lock();
        if chunk.tags.access_mut(&mut syncs).forget(pages) {
            self.clear_mark(chunk);
        }
    }

    /// Called with the tag lock held.
    fn clear_mark(&self, chunk: &Chunk) {
        // SAFETY: the tree is alive and has the chunk.
        unsafe { bindings::xa_clear_mark(self.chunks.get(), chunk.place.index() as usize, MARK) };
    }

    /// Frees a chunk that knows of no page, and is not in the list of the shrinker.
    ///
    /// # Safety
    ///
    /// Nobody but the caller has a reference to it, nor can get one.
    pub(super) unsafe fn free_chunk(&self, chunk: NonNull<Chunk>) {
        // SAFETY: the tree is alive and has the chunk, which is as the caller says.
        unsafe {
            bindings::xa_erase(self.chunks.get(), chunk.as_ref().place.index() as usize);
            free(chunk);
        }
    }

    /// Drops all chunks.
    ///
    /// # Safety
    ///
    /// Nobody holds a reference to a chunk, and nobody makes one; none is in the list of the shrinker.
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
            unsafe { self.free_chunk(chunk) };
        }
    }
}

/// Gives back the memory of a chunk.
///
/// # Safety
///
/// It was made by [`Tracker::make_chunk`], is in no tree and no list, and nobody has a reference to it.
unsafe fn free(chunk: NonNull<Chunk>) {
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
