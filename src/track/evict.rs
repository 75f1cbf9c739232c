// SPDX-License-Identifier: GPL-2.0

//! Eviction of a file, and its return to memory, while its pages may be pinned.
//!
//! The last close of a file must not wait for pins (O_DIRECT, vmsplice): the task may hold them
//! itself. So eviction takes such pages from the file and leaves them behind. They belong to nobody
//! until
//!
//! * the file is read again: [`adopt`] gives them back to it; or
//! * the last pin of each ends: then [`release`] gives it up. It writes back what DMA stored to it.
//!   If it was the last page of a file without a name, the file may be freed.
//!
//! A file without a name that is evicted while the file system is frozen is left behind, too.
//!
//! Guarantees: no block is freed that is pinned, and no page stays behind for a pin that has ended.
//! When [`sync_all`] has returned, what DMA had stored by then is durable, whether its file is in
//! memory, being read, or evicted.

use super::dirty_list::{self, Environment};
use super::layout::pages_of;
use super::left::Pinned;
use super::machine::{Device, Failure, Machine, Mount, Tracking};
use super::page_set::{PageSet, PAGES};
use super::place::split;
use super::sync::{sync_pages, tag, tag_page, Purpose};
use super::windows;
use crate::env::Vec;

/// A file that nobody uses any more.
pub struct Evicted<'a, M, N, L: Environment> {
    pub file: &'a M,
    pub mount: &'a N,
    pub dirty: &'a L,
    /// The file in the list `dirty`.
    pub entry: L::Entry,
    pub ino: u64,
    /// It has no name left.
    pub unlinked: bool,
    /// Its stores need not be durable.
    pub discard: bool,
}

/// Takes all pages from a file that was mapped once, and writes back what is dirty. `free_chunks`
/// ends its tracking: nobody has a reference to a chunk then. Returns whether no page of it is
/// pinned, so that its blocks may be freed; `Err` if stores are lost.
///
/// No mapping of it exists, and nobody else uses it or its chunks. But pins may end, and the sync
/// of all files waits for this one.
pub fn evict<M: Machine, N: Mount, L: Environment>(
    evicted: &Evicted<'_, M, N, L>,
    free_chunks: impl FnOnce(),
) -> (bool, Result<(), M::Error>) {
    let file = evicted.file;
    // After removal of the device its struct pages are gone, and the file is no owner any more.
    // While it is an owner, removal waits.
    let idle = file.is_owner() && leave_pages(evicted);
    // From here on nothing tags a page: no mapping exists, and pinned pages belong to nobody.
    let result = dirty_list::leave(evicted.dirty, evicted.entry, || {
        let is_quiet = windows::is_quiet(file.tracker());
        if evicted.discard || is_quiet || file.check_usable(false).is_err() {
            return Ok(());
        }
        sync_pages(file, 0, u64::MAX, Purpose::End)
    });
    free_chunks();
    file.disown();
    (idle, result)
}

/// Takes all pages from the file, and leaves the pinned ones behind. Returns whether there are
/// none.
fn leave_pages<M: Machine, N: Mount, L: Environment>(evicted: &Evicted<'_, M, N, L>) -> bool {
    let (file, mount) = (evicted.file, evicted.mount);
    let wait_for = |block| {
        file.device().wait_idle(block);
        file.dissociate(block);
    };
    let mut pinned = Vec::new();
    for chunk in file.tracker().chunks(0, u64::MAX, false) {
        let state = file.tracker().lock(chunk);
        for (nth, block) in pages_of::<M>(&state, state.present()) {
            if file.device().is_idle(block) {
                file.dissociate(block);
                continue;
            }
            let page = Pinned {
                page: file.tracker().place(chunk).first_page() + nth as u64,
                block,
            };
            if pinned.push(page).is_err() {
                // Without memory to record it, waiting is the only way.
                wait_for(block);
            }
        }
    }
    if pinned.is_empty() {
        return true;
    }
    // A release of pages waits until these are recorded: stores of DMA from here on tag no page.
    let mut left = mount.left();
    if left.reserve(evicted.ino, pinned.len()).is_err() {
        // Not to be held while waiting.
        drop(left);
        pinned.iter().for_each(|page| wait_for(page.block));
        return true;
    }
    pinned.retain(|page| !file.leave_behind(page.block));
    if pinned.is_empty() {
        return true;
    }
    // There is room.
    let _ = left.add(evicted.ino, evicted.unlinked, pinned);
    mount.release_later();
    false
}

/// The file `ino`, which has no name, is evicted while it cannot be freed: leaves it behind.
/// Without memory to record it, the next mount finds it.
pub fn free_later<N: Mount>(mount: &N, ino: u64) {
    let added = mount.left().add(ino, true, Vec::new());
    if added.is_ok() {
        mount.release_later();
    }
}

/// Gives the pages that were left behind by the file `ino` back to it, before others see it.
pub fn adopt<M: Machine, N: Mount>(file: &M, mount: &N, ino: u64) -> Result<(), M::Error> {
    let _chunks_stay = file.tracker().stay();
    let mut left = mount.left();
    left.give_back(ino, |pinned| {
        // With the lock held: removal of the device looks for the pages afterwards.
        file.check_usable(false)?;
        // Reclaim must not evict files: eviction leaves pages here.
        file.without_reclaim(|| adopt_page(file, pinned))
    })
}

fn adopt_page<M: Machine>(file: &M, pinned: &Pinned) -> Result<(), M::Error> {
    let (index, nth) = split(pinned.page);
    file.own();
    file.make_chunk(index)?;
    // It was made just now, and stays.
    let chunk = file.tracker().chunk(index).ok_or(Failure::Device)?;
    let mut state = file.tracker().lock(chunk);
    // The holder of the pin may have stored to it.
    if file.device().is_huge(pinned.block) {
        file.adopt_huge(pinned.block, pinned.page);
        let _ = state.map_huge(pinned.block);
        tag(file, chunk, &PageSet::ALL);
    } else {
        let table = match state.needs_table(nth, pinned.block) {
            true => Some(file.table()?),
            false => None,
        };
        let _ = state.map_block(nth, pinned.block, table);
        let _ = file.associate(pinned.block, pinned.page);
        tag_page(file, chunk, nth);
    }
    Ok(())
}

/// Gives up the pages left behind that are idle, after it has made stores to them durable, unless
/// their file has no name. Fails if the device fails. May sleep.
pub fn release<N: Mount>(mount: &N) -> Result<(), Failure> {
    write_back_left(mount, false)
}

/// As [`release`]; makes stores to the pages that are still pinned durable, too, if `pinned`.
fn write_back_left<N: Mount>(mount: &N, pinned: bool) -> Result<(), Failure> {
    let mut left = mount.left();
    let device = mount.device();
    if left.is_empty() {
        return Ok(());
    }
    let Some(_access) = device.access() else {
        return Ok(());
    };
    let mut written = 0;
    for file in left.iter_mut() {
        let unlinked = file.unlinked;
        file.pages.retain(|page| {
            let block = page.block;
            // Before it is written back: DMA may continue meanwhile.
            let is_idle = device.is_idle(block);
            if !unlinked && (is_idle || pinned) {
                let nr = if device.is_huge(block) {
                    PAGES as u64
                } else {
                    1
                };
                device.forget_dirty(block);
                device.write_back(block, nr);
                written += nr;
            }
            if is_idle {
                device.reset(block);
            }
            !is_idle
        });
    }
    // With the lock held: a file that is read now has nothing dirty.
    let result = match written {
        0 => Ok(()),
        // Reclaim must not evict files: eviction leaves pages here.
        _ => mount.without_reclaim(|| device.fence()),
    };
    left.remove_released();
    mount.count_written_back(written);
    if result.is_err() {
        mount.stores_are_lost();
    }
    result
}

/// Makes stores to any file of the mount durable, also those through pins: first those to pages
/// left behind, then, by `write_back`, those to the files in the list `dirty`. Returns the first
/// error, after all were processed. One at a time. May sleep, and evict files.
pub fn sync_all<N: Mount, L: Environment>(
    mount: &N,
    dirty: &L,
    write_back: impl Fn(&L::Held) -> Result<(), L::Error>,
) -> Result<(), L::Error>
where
    L::Error: From<Failure>,
{
    // First: pages that a file adopts later are dirty in the file then.
    let released = write_back_left(mount, true);
    let synced = dirty_list::sync_all(dirty, write_back);
    Ok(released?).and(synced)
}

/// Waits until every page that was left behind is idle, as the next user of the device must find
/// it. Called when the device is being removed.
pub fn wait_for_all<N: Mount>(mount: &N) {
    loop {
        // The lock must not be held while waiting.
        let Some(left) = mount.left().pop() else {
            break;
        };
        for page in left.pages.iter() {
            mount.device().wait_idle(page.block);
            mount.device().reset(page.block);
        }
    }
}

/// Waits for every pin, and releases all pages: all files are evicted, and the mount ends.
pub fn finish<N: Mount>(mount: &N) {
    loop {
        let Some(pinned) = mount.left().any_page() else {
            return;
        };
        {
            let Some(_access) = mount.device().access() else {
                return;
            };
            mount.device().wait_idle(pinned.block);
        }
        // It has reported lost stores itself.
        let _ = release(mount);
    }
}
