// SPDX-License-Identifier: GPL-2.0

//! Memory failures and the removal of the device, as the DAX device reports them to its holder.
//!
//! A failing page of a file is unmapped from all page tables: the next access gets SIGBUS with its
//! address, from the fault, until write(2) overwrites all of the page. If stores to it were not
//! durable yet, the next sync fails. A failure in the volume's own fixed structures counts as
//! damage. Failures elsewhere are noticed when the block is used (`pmem`): free blocks are healed
//! or skipped when they are allocated. The removal of the device ends all access.

use kernel::bindings::work_struct;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::rcu;

use super::page::Page;
use crate::bindings;
use crate::mount::inode::{InodeInfo, InodeRef};
use crate::mount::lock::{FaultsOut, MountLock};
use crate::mount::read_only::ReadOnly;
use crate::mount::super_block::SbInfo;
use crate::pmem::User;
use crate::track;
use crate::track::machine::Machine;
use crate::track::removal::{self, Removal};
use crate::track::sync::{sync_pages, Purpose};
use crate::volume;

/// Bytes in a page.
const PAGE: u64 = 4096;

impl User for SbInfo {
    fn removed(&self) {
        removal::remove(self);
    }

    fn failed(&self, at: u64, len: u64) {
        for block in self.volume.pmem().blocks_at(at, len) {
            fail_block(self, block);
        }
    }
}

impl Removal for SbInfo {
    type File = InodeInfo;

    fn shut_down(&self) {
        shut_down(self, "device is being removed");
        // The name becomes free for the next device.
        self.hide_counters();
    }

    fn end_access(&self) {
        self.volume.pmem().set_gone();
    }

    fn for_each_file(&self, mut each: impl FnMut(&InodeInfo)) {
        for_each_file(self, |info| {
            let _faults = FaultsOut::new(info);
            each(info);
        });
    }

    fn wait_for_owners(&self) {
        self.volume.pmem().wait_for_owners();
    }

    fn release_device(&self) {
        self.volume.pmem().release();
    }
}

/// The media under `block` is bad.
fn fail_block(sb: &SbInfo, block: u64) {
    let pmem = sb.volume.pmem();
    pmem.set_poisoned(block);
    let page = Page::of_block(pmem, block);
    if let Some(owner) = owner_of(page) {
        pr_err!(
            "{}: memory error in block {block}, inode {}\n",
            sb.name(),
            owner.ino()
        );
        let _faults = FaultsOut::new(&owner);
        if let Some((_, index)) = page.owner() {
            track::layout::fail_page(&*owner, index);
        }
        return;
    }
    if sb.volume.geometry().is_data(block, 1) {
        pr_err!("{}: memory error in block {block}\n", sb.name());
    } else {
        let _ = sb.check::<()>(Err(volume::Error::Media { at: block * PAGE }));
    }
}

/// The inode that `page` belongs to, with a reference to it.
fn owner_of(page: Page) -> Option<InodeRef> {
    let _rcu = rcu::read_lock();
    let (mapping, _) = page.owner()?;
    // SAFETY: a mapping that a page belongs to is that of an inode of ours, which is freed an RCU
    // grace period after its pages were taken from it.
    unsafe { InodeInfo::from_vfs((*mapping).host) }.grab()
}

/// Ends everything: nothing is read or written any more, no page is mapped, and stores that were
/// not durable are lost. Calls in progress may still complete. `why` is for the log. May sleep;
/// takes the invalidate lock of every file.
pub fn shut_down(sb: &SbInfo, why: &str) {
    sb.close(why);
    unmap_all(sb);
}

/// Removes every page of the mount from all page tables, and from the page cache. None comes back
/// if [`SbInfo::check_alive`] fails by now. Waits for faults in progress, not for pins.
fn unmap_all(sb: &SbInfo) {
    for_each_file(sb, |info| {
        let _faults = FaultsOut::new(info);
        info.unmap(0, u64::MAX);
        // SAFETY: the mapping is that of the inode. Dirty data in the cache is lost.
        unsafe { bindings::truncate_inode_pages(info.mapping(), 0) };
    });
}

/// Makes all earlier stores durable, and removes write access from every mapping of the mount. It
/// does not come back if [`SbInfo::check_writable`] fails by now. Returns the first error, after
/// all files were processed. Waits for faults in progress.
pub fn end_stores(sb: &SbInfo) -> Result {
    let mut result = Ok(());
    for_each_file(sb, |info| {
        let _faults = FaultsOut::new(info);
        let written = match info.is_dax() {
            true => sync_pages(info, 0, u64::MAX, Purpose::End),
            // SAFETY: the mapping is that of the inode.
            false => to_result(unsafe {
                bindings::filemap_write_and_wait_range(info.mapping(), 0, i64::MAX)
            }),
        };
        result = result.and(written).and(info.write_times());
    });
    result
}

/// [`end_stores`], after an error: the work that [`ReadOnly::end_stores_soon`] queues.
///
/// # Safety
///
/// Called by the kernel's work queues with the work of a [`ReadOnly`].
pub unsafe extern "C" fn end_stores_work(work: *mut work_struct) {
    // SAFETY: the mount waits for this before it ends.
    let sb = unsafe { ReadOnly::mount_of(work) };
    match MountLock::try_new(sb) {
        Some(mount) if !mount.is_frozen() => {
            mount.set_read_only();
            // It has reported lost stores itself.
            let _ = end_stores(sb);
        }
        // Nothing is stored to while it is frozen, and nothing is mapped after unmount.
        _ => sb.read_only.end_stores_later(),
    }
}

/// Runs `each` for every regular file in memory, with a reference to it. May sleep.
fn for_each_file(sb: &SbInfo, mut each: impl FnMut(&InodeInfo)) {
    let raw = sb.as_raw();
    // SAFETY: the super block is alive; the lock guards the list of its inodes.
    let lock = unsafe { &raw mut (*raw).s_inode_list_lock };
    let mut last = None;
    // SAFETY: the list is walked under its lock. Where the lock is dropped, a reference to the
    // inode at hand keeps it in the list; it is given back after the lock was dropped again, since
    // that may evict.
    unsafe {
        let head = &raw const (*raw).s_inodes;
        bindings::spin_lock(lock);
        let mut link = (*head).next.cast_const();
        while link != head {
            let inode = kernel::container_of!(link, bindings::inode, i_sb_list).cast_mut();
            if let Some(owner) = InodeInfo::from_vfs(inode).grab() {
                bindings::spin_unlock(lock);
                if owner.is(bindings::S_IFREG) {
                    each(&owner);
                }
                last = Some(owner);
                bindings::spin_lock(lock);
            }
            link = (*link).next;
        }
        bindings::spin_unlock(lock);
    }
    drop(last);
}
