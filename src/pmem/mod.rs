// SPDX-License-Identifier: GPL-2.0

//! Persistent memory in the kernel: the device of a mount as one linear piece of the kernel's
//! address space.
//!
//! [`DirectMap`] implements the volume's [`Pmem`] over it, hands out physical page numbers to
//! `dax` and moves file data for `vfs`.
//!
//! # How something becomes durable here
//!
//! Stores reach the CPU cache; [`DirectMap::write_back`] (`clwb`) or non-temporal stores start
//! their way to the memory; [`DirectMap::fence`] completes it. On a device whose DAX is
//! *synchronous* (an NVDIMM), `sfence` is all that is needed: what left the cache is inside the
//! persistence domain, and this is exactly the promise on which `MAP_SYNC` lets user space rely
//! with its own `clwb` and `sfence`. A `blkdev_issue_flush` there would only write the region's
//! flush hint, which matters when the platform fails to drain its write queues at power loss; it
//! costs more than all the rest of a small fsync, and nobody who uses `MAP_SYNC` gets it. So it is
//! not issued. On an *asynchronous* device (virtio-pmem) the guest's `clwb` reaches the host's page
//! cache only; there each fence also is a `blkdev_issue_flush`.
//!
//! A fence covers what other CPUs wrote back before if a lock was handed over in between, or the
//! task migrated: both contain a locked instruction, which orders `clwb` like `sfence` does.
//!
//! # Memory errors
//!
//! Where a block is known to be bad (`poison`), loads fail with [`volume::Error::Media`] or end
//! early, and so do stores that do not overwrite all of it; write-back leaves it out.

use core::ffi::c_void;
use core::fmt;
use core::ops::Range;
use core::ptr;

use kernel::bindings as kernel_bindings;
use kernel::iov::{IovIterDest, IovIterSource};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

use crate::bindings;
use crate::mutate::mutated;
use crate::volume;
use crate::volume::pmem::{Pmem, LINE};

mod fingerprint;
mod nt;
mod poison;
#[cfg(rdax_shadow)]
mod shadow;

pub use fingerprint::Fingerprints;

/// Bytes in a page, which is a block of the volume.
const PAGE: u64 = 4096;

/// The DAX device of one mount, held exclusively until it is dropped.
///
/// # Invariants
///
/// `base` points to `bytes` bytes of the device, mapped linearly and writable as long as the device
/// is bound to its driver; `first_pfn` is the physical page of its first byte. `dax_dev` is held
/// with `holder`; `bdev` outlives this (the super block holds it). `bad_blocks` can be read as long as
/// the device is not gone.
pub struct DirectMap {
    dax_dev: *mut bindings::dax_device,
    bdev: *mut kernel_bindings::block_device,
    holder: *mut c_void,
    base: *mut u8,
    first_pfn: u64,
    bytes: u64,
    /// Where the block device starts in the DAX device, in bytes: a partition does not at 0.
    start: u64,
    synchronous: bool,
    fingerprints: bool,
    /// A [`Reach`].
    reach: Atomic<i32>,
    /// How many ranges of blocks the driver knows to be bad.
    bad_blocks: *const i32,
    /// What is durable, in test builds.
    #[cfg(rdax_shadow)]
    shadow: Option<shadow::Shadow>,
    journal_lines: Atomic<u64>,
    fences: Atomic<u64>,
}

/// What can be reached of the device; it only ever gets less.
enum Reach {
    /// All of it.
    Open,
    /// Nothing is read from it or written to it any more; its struct pages are there.
    Closed,
    /// It is removed, and its struct pages are or soon will be.
    Gone,
}

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// It has no DAX (`EOPNOTSUPP`).
    NoDax,
    /// Another file system holds its DAX device, or it is a partition that does not start and end
    /// at a page (`EBUSY`).
    InUse,
    /// It is put together of several pieces of memory (`EOPNOTSUPP`).
    NotLinear,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenError::NoDax => {
                "device has no DAX; for an NVDIMM: ndctl create-namespace -f -e NAMESPACE -m fsdax"
            }
            OpenError::InUse => {
                "its DAX device is in use, or the partition is not aligned to 4 KiB"
            }
            OpenError::NotLinear => "device is not one linear piece of memory",
        })
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NoDax | OpenError::NotLinear => EOPNOTSUPP,
            OpenError::InUse => EBUSY,
        }
    }
}

// SAFETY: the pointers are to objects that any task may use, under their own rules: the device is
// reference counted, and the memory is accessed through raw pointers only.
unsafe impl Send for DirectMap {}
// SAFETY: as above. Who may touch which bytes at a time is decided by the callers' locks.
unsafe impl Sync for DirectMap {}

impl DirectMap {
    /// Opens the DAX device of `bdev`. Memory failures, and the removal of the device, are reported
    /// to `ops` from now on, where `dax_holder()` gives `holder`.
    ///
    /// # Safety
    ///
    /// `bdev` is open, and stays so until the result is dropped; `ops` can cope with `holder` for as
    /// long.
    pub unsafe fn open(
        bdev: *mut kernel_bindings::block_device,
        holder: *mut c_void,
        ops: &'static bindings::dax_holder_operations,
    ) -> Result<Self, OpenError> {
        let mut start = 0;
        // SAFETY: `bdev` is open, and `holder` and `ops` are good until fs_put_dax(), by the
        // caller's promise.
        let dax_dev = unsafe { bindings::fs_dax_get_by_bdev(bdev, &mut start, holder, ops) };
        if dax_dev.is_null() {
            // SAFETY: `bdev` is open.
            return Err(match unsafe { bindings::rdax_bdev_has_dax(bdev) } {
                true => OpenError::InUse,
                false => OpenError::NoDax,
            });
        }
        let mut map = DirectMap {
            dax_dev,
            bdev,
            holder,
            base: ptr::null_mut(),
            first_pfn: 0,
            start,
            // SAFETY: `bdev` is open.
            bytes: unsafe { bindings::rdax_bdev_bytes(bdev) },
            // SAFETY: `dax_dev` is held.
            synchronous: unsafe { bindings::dax_synchronous(dax_dev) },
            fingerprints: fingerprint::is_supported(),
            reach: Atomic::new(Reach::Open as i32),
            // SAFETY: `bdev` is open.
            bad_blocks: unsafe { bindings::rdax_bdev_badblocks(bdev) },
            #[cfg(rdax_shadow)]
            shadow: None,
            journal_lines: Atomic::new(0),
            fences: Atomic::new(0),
        };
        map.locate().map_err(|_| OpenError::NotLinear)?;
        #[cfg(rdax_shadow)]
        {
            // SAFETY: `locate` found the device there.
            map.shadow = unsafe { shadow::Shadow::new(map.base, map.bytes as usize) }.ok();
            kernel::warn_on!(map.shadow.is_none());
        }
        Ok(map)
    }

    /// Finds the device in memory.
    fn locate(&mut self) -> Result {
        let (first, pages) = (self.start / PAGE, self.bytes / PAGE);
        if pages == 0 {
            return Err(EINVAL);
        }
        // Asks in the mode that also answers for pages with bad blocks.
        let mode = bindings::dax_access_mode_DAX_RECOVERY_WRITE;
        let (found, base, pfn) = self.direct_access(first, pages, mode)?;
        if found < pages {
            // Bad blocks cut the answer short, and so does a device put together of several. The
            // former is still in one piece: its last page is where it should be.
            let (_, last, last_pfn) = self.direct_access(first + pages - 1, 1, mode)?;
            let distance = pages - 1;
            if last_pfn.checked_sub(pfn) != Some(distance)
                || (last as u64).checked_sub(base as u64) != Some(distance * PAGE)
            {
                return Err(EOPNOTSUPP);
            }
        }
        self.base = base;
        self.first_pfn = pfn;
        Ok(())
    }

    /// How many pages from `first` lie in one piece, where they are mapped, and their physical
    /// page number. In the mode `DAX_ACCESS` it fails with `EHWPOISON` where one is bad.
    fn direct_access(
        &self,
        first: u64,
        pages: u64,
        mode: bindings::dax_access_mode,
    ) -> Result<(u64, *mut u8, u64)> {
        let mut kaddr = ptr::null_mut();
        let mut pfn = 0;
        let _access = self.access().ok_or(EIO)?;
        // SAFETY: `dax_dev` is held, and the out pointers are to locals.
        let found = unsafe {
            bindings::dax_direct_access(
                self.dax_dev,
                first as usize,
                pages as isize,
                mode,
                &mut kaddr,
                &mut pfn,
            )
        };
        let found = u64::try_from(found).map_err(|_| Error::from_errno(found as i32))?;
        Ok((found.min(pages), kaddr.cast(), pfn as u64))
    }

    /// The DAX device, for `mmap` to check against.
    pub fn dax_device(&self) -> *mut bindings::dax_device {
        self.dax_dev
    }

    /// Whether stores stay in the CPU cache until they are written back. Root can switch it off in
    /// sysfs for a platform whose caches are inside the persistence domain.
    pub fn has_write_cache(&self) -> bool {
        // SAFETY: `dax_dev` is held.
        let has = unsafe { bindings::dax_write_cache_enabled(self.dax_dev) };
        #[cfg(rdax_shadow)]
        if let (Some(shadow), false) = (&self.shadow, has) {
            shadow.void();
        }
        has
    }

    /// The physical page number of `block`, which must be inside the device.
    pub fn pfn(&self, block: u64) -> u64 {
        debug_assert!(block < self.bytes / PAGE);
        self.first_pfn + block
    }

    /// The blocks that the `len` bytes at `at` of the DAX device touch.
    pub fn blocks_at(&self, at: u64, len: u64) -> Range<u64> {
        let first = at.saturating_sub(self.start);
        let end = at
            .saturating_add(len)
            .saturating_sub(self.start)
            .min(self.bytes);
        first / PAGE..end.div_ceil(PAGE)
    }

    /// The device is being removed: every access fails from now on. When this returns, none is
    /// under way but those that hold an [`Access`], for which the device's driver waits. May sleep.
    pub fn set_gone(&self) {
        self.reach.store(Reach::Gone as i32, Relaxed);
        // All other accesses look at the flag and do not sleep until they are done.
        // SAFETY: waits until each task has slept or left the kernel once.
        unsafe { bindings::rdax_synchronize_rcu_tasks() };
    }

    /// Keeps the device from going away, for work that may sleep or uses its struct pages. `None`
    /// if it is gone.
    pub fn access(&self) -> Option<Access> {
        // SAFETY: an SRCU read lock, dropped with the guard.
        let access = Access(unsafe { bindings::dax_read_lock() });
        (self.reach.load(Relaxed) < Reach::Gone as i32).then_some(access)
    }

    /// Ends all use: every access fails from now on, and a fence that is under way may. Copies that
    /// are under way may complete.
    pub fn close(&self) {
        let _ = self
            .reach
            .cmpxchg(Reach::Open as i32, Reach::Closed as i32, Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.reach.load(Relaxed) != Reach::Open as i32
    }

    /// Starts the write-back of `nr` blocks from `block`, for the DAX sync path.
    #[inline]
    pub fn write_back_blocks(&self, block: u64, nr: u64) {
        self.becomes_durable(block * PAGE, nr * PAGE);
        self.write_back_good(block * PAGE, nr * PAGE);
    }

    /// To see whether pages change. The caller must not sleep until it is dropped.
    pub fn fingerprints(&self) -> Fingerprints<'_> {
        Fingerprints::new(self)
    }

    /// Starts the write-back of the lines of `len` bytes at `at`, but of bad blocks: what was stored
    /// there is lost, and has been reported.
    #[inline]
    fn write_back_good(&self, at: u64, len: u64) {
        match self.good_at(at, len) {
            // SAFETY: `good_at()` checked that the range is inside the mapping.
            Ok(from) => unsafe { bindings::arch_wb_cache_pmem(from.cast(), len as usize) },
            Err(_) => self.write_back_around(at, len),
        }
    }

    /// As [`DirectMap::write_back_good`], where some blocks are bad.
    #[cold]
    fn write_back_around(&self, mut at: u64, len: u64) {
        let end = at.saturating_add(len);
        while at < end {
            let good = self.readable(at, end - at);
            if let (Ok(from), true) = (self.at(at, good), good > 0) {
                // SAFETY: `at()` checked that the range is inside the mapping.
                unsafe { bindings::arch_wb_cache_pmem(from.cast(), good as usize) };
            }
            at = ((at + good) / PAGE + 1) * PAGE;
        }
    }

    /// Copies `len` bytes from `offset` bytes into `block` (and on into the blocks after it) to
    /// `iter`. Returns how many were copied: less if user memory faults, or the media cannot be
    /// read.
    ///
    /// User memory may be a mapping of this very file: no lock that a fault takes may be held.
    pub fn copy_to_iter(
        &self,
        block: u64,
        offset: u64,
        len: usize,
        iter: &mut IovIterDest<'_>,
    ) -> usize {
        let from = block.saturating_mul(PAGE).saturating_add(offset);
        match self.at(from, len as u64) {
            Ok(at) => {
                let len = self.readable(from, len as u64) as usize;
                // SAFETY: `at()` checked that the range is inside the mapping; machine checks on
                // the way end the copy.
                unsafe { kernel_bindings::_copy_mc_to_iter(at.cast(), len, iter.as_raw()) }
            }
            Err(_) => 0,
        }
    }

    /// Copies `len` bytes from `iter` to `offset` bytes into `block` (and on into the blocks after
    /// it), past the cache: durable after [`Pmem::fence`]. Returns how many were copied: less if
    /// user memory faults, or a bad block is not overwritten whole or cannot be healed.
    ///
    /// User memory may be a mapping of this very file: no lock that a fault takes may be held.
    pub fn copy_from_iter(
        &self,
        block: u64,
        offset: u64,
        len: usize,
        iter: &mut IovIterSource<'_>,
    ) -> usize {
        let to = block.saturating_mul(PAGE).saturating_add(offset);
        match self.at(to, len as u64) {
            Ok(at) => {
                let len = self.writable(to, len as u64) as usize;
                let copy = match mutated!("write-data") {
                    false => kernel_bindings::_copy_from_iter_flushcache,
                    true => kernel_bindings::_copy_from_iter,
                };
                // SAFETY: `at()` checked that the range is inside the mapping, and it is good.
                let copied = unsafe { copy(at.cast(), len, iter.as_raw()) };
                self.becomes_durable(to, copied as u64);
                copied
            }
            Err(_) => 0,
        }
    }

    /// Stores `len` bytes from `from` to the start of `block`, past the cache: durable after
    /// [`Pmem::fence`].
    ///
    /// # Safety
    ///
    /// `from` is good for reads of `len` bytes. Others may store there meanwhile; then either value
    /// is stored here.
    pub unsafe fn store_page(&self, block: u64, from: *const u8, len: u64) -> volume::Result<()> {
        let to = self.at(block * PAGE, len)?;
        // SAFETY: `at()` checked the destination; the source is the caller's promise.
        unsafe { kernel_bindings::__memcpy_flushcache(to.cast(), from.cast(), len as usize) };
        self.becomes_durable(block * PAGE, len);
        Ok(())
    }

    /// In test builds, notes that the lines of a range are on their way to the media.
    #[inline]
    fn becomes_durable(&self, _at: u64, _len: u64) {
        #[cfg(rdax_shadow)]
        if let (Some(shadow), Ok(_)) = (&self.shadow, self.at(_at, _len)) {
            if _len > 0 {
                // SAFETY: the shadow is that of `base`, and the range was checked.
                unsafe { shadow.durable(self.base, _at, _len) };
            }
        }
    }

    /// Lines written back for metadata since the mount.
    pub fn journal_lines(&self) -> u64 {
        self.journal_lines.load(Relaxed)
    }

    /// Fences since the mount.
    pub fn fences(&self) -> u64 {
        self.fences.load(Relaxed)
    }

    /// The address of the `len` bytes at `at`.
    fn at(&self, at: u64, len: u64) -> volume::Result<*mut u8> {
        if self.is_closed() {
            return Err(volume::Error::Media { at });
        }
        self.inside(at, len).ok_or(volume::Error::Invalid)
    }

    /// The address of the `len` bytes at `at`, if they are inside the device.
    #[inline(always)]
    fn inside(&self, at: u64, len: u64) -> Option<*mut u8> {
        let end = at.checked_add(len)?;
        // Inside the mapping, so that the sum does not wrap.
        (end <= self.bytes).then_some(self.base.wrapping_add(at as usize))
    }

    /// The address of the `len` bytes at `at`, of which none is known to be bad.
    #[inline(always)]
    fn good_at(&self, at: u64, len: u64) -> volume::Result<*mut u8> {
        match self.inside(at, len) {
            Some(address) if self.is_sound() => Ok(address),
            _ => self.good_at_closely(at, len),
        }
    }

    /// As [`DirectMap::good_at`], where something may stand in the way.
    #[cold]
    fn good_at_closely(&self, at: u64, len: u64) -> volume::Result<*mut u8> {
        let address = self.at(at, len)?;
        self.check_good(at, len)?;
        Ok(address)
    }
}

/// Stores `bytes` at `to`, word by word: memcpy() may store byte by byte, and an aligned word must not
/// be torn.
///
/// # Safety
///
/// `to` is good for writes of as many bytes.
#[inline(always)]
unsafe fn store_words(mut to: *mut u8, bytes: &[u8]) {
    let (head, rest) = bytes.split_at(to.align_offset(8).min(bytes.len()));
    let words = rest.chunks_exact(8);
    let tail = words.remainder();
    for byte in head {
        // SAFETY: by the caller, as below.
        unsafe { to.write_volatile(*byte) };
        to = to.wrapping_add(1);
    }
    for word in words {
        let mut value = [0; 8];
        value.copy_from_slice(word);
        // SAFETY: as above, and aligned after the head.
        unsafe { to.cast::<u64>().write_volatile(u64::from_ne_bytes(value)) };
        to = to.wrapping_add(8);
    }
    for byte in tail {
        // SAFETY: as above.
        unsafe { to.write_volatile(*byte) };
        to = to.wrapping_add(1);
    }
}

/// The device does not go away while this lives.
pub struct Access(i32);

impl Drop for Access {
    fn drop(&mut self) {
        // SAFETY: matches the lock of `DirectMap::access`, by the same task.
        unsafe { bindings::dax_read_unlock(self.0) };
    }
}

impl Drop for DirectMap {
    fn drop(&mut self) {
        #[cfg(rdax_shadow)]
        if let (Some(shadow), false) = (&self.shadow, self.is_closed()) {
            // SAFETY: the shadow is that of `base`; the file system is unmounted.
            unsafe { shadow.compare(self.base) };
        }
        // SAFETY: `open` got the device with this holder.
        unsafe { bindings::fs_put_dax(self.dax_dev, self.holder) };
    }
}

impl Pmem for DirectMap {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> volume::Result<()> {
        let len = buf.len();
        let from = self.good_at(at, len as u64)?;
        // SAFETY: `good_at()` checked that the source is inside the mapping; the destination is a slice.
        // A machine check on the source ends the copy.
        match unsafe { bindings::rdax_read_mc(buf.as_mut_ptr().cast(), from.cast(), len) } {
            0 => Ok(()),
            rest => Err(volume::Error::Media {
                at: at + len.saturating_sub(rest) as u64,
            }),
        }
    }

    fn store(&self, at: u64, bytes: &[u8]) -> volume::Result<()> {
        let to = self.good_at(at, bytes.len() as u64)?;
        // SAFETY: `good_at()` checked the destination.
        unsafe { store_words(to, bytes) };
        Ok(())
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> volume::Result<()> {
        let to = self.good_at(at, bytes.len() as u64)?;
        // SAFETY: `good_at()` checked the destination; the source is a slice.
        unsafe {
            kernel_bindings::__memcpy_flushcache(to.cast(), bytes.as_ptr().cast(), bytes.len());
        }
        self.becomes_durable(at, bytes.len() as u64);
        Ok(())
    }

    fn zero_nt(&self, at: u64, len: u64) -> volume::Result<()> {
        let to = self.at(at, len)?;
        if self.check_good(at, len).is_ok() {
            // SAFETY: `at()` checked that the range is inside the mapping.
            unsafe { nt::zero(to, len as usize) };
        } else {
            self.zero_around(at, len);
        }
        self.becomes_durable(at, len);
        Ok(())
    }

    fn check_storable(&self, at: u64, len: u64) -> volume::Result<()> {
        self.check_good(at, len)
    }

    fn write_back(&self, at: u64, len: u64) {
        if len == 0 {
            return;
        }
        self.becomes_durable(at, len);
        if self.inside(at, len).is_none() {
            return;
        }
        self.write_back_good(at, len);
        let lines = (at + len - 1) / LINE - at / LINE + 1;
        self.journal_lines.add(lines, Relaxed);
    }

    fn heal(&self, at: u64, len: u64) -> volume::Result<()> {
        while let Err(volume::Error::Media { at }) = self.check_good(at, len) {
            self.heal_block(at / PAGE)
                .map_err(|_| volume::Error::Media { at })?;
        }
        Ok(())
    }

    fn fence(&self) -> volume::Result<()> {
        self.fences.add(1u64, Relaxed);
        if !mutated!("fence") {
            // SAFETY: a barrier.
            unsafe { bindings::rdax_pmem_wmb() };
        }
        if !self.synchronous {
            // SAFETY: the super block holds the device.
            let error = unsafe { kernel_bindings::blkdev_issue_flush(self.bdev) };
            if error != 0 {
                return Err(volume::Error::Media { at: 0 });
            }
        }
        // What was stored or written back since the device was closed did not reach it.
        if self.is_closed() {
            return Err(volume::Error::Media { at: 0 });
        }
        Ok(())
    }
}
