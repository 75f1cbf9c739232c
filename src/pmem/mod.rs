// SPDX-License-Identifier: GPL-2.0

//! Persistent memory in the kernel: the device of a mount as one linear piece of the kernel's
//! address space.
//!
//! [`DirectMap`] implements the volume's [`Pmem`] over it, hands out physical page numbers to
//! `dax` and moves file data for `vfs`.
//!
//! # How stores become durable here
//!
//! Stores reach the CPU cache; [`DirectMap::write_back`] (`clwb`) or non-temporal stores start
//! moving them to the memory; [`DirectMap::fence`] completes this. On a device whose DAX is
//! *synchronous* (an NVDIMM), `sfence` is all that is needed: what left the cache is inside the
//! persistence domain. This is exactly the promise on which `MAP_SYNC` lets user space rely with
//! its own `clwb` and `sfence`. A `blkdev_issue_flush` there would only write the region's flush
//! hint, which matters if the platform fails to drain its write queues at power loss. It costs more
//! than all the rest of a small fsync, and no user of `MAP_SYNC` gets it. So it is not issued. On
//! an *asynchronous* device (virtio-pmem) the guest's `clwb` reaches only the host's page cache;
//! there each fence is also a `blkdev_issue_flush`.
//!
//! A fence covers earlier write-backs by other CPUs if a lock was handed over in between, or the
//! task migrated: both contain a locked instruction, which orders `clwb` like `sfence` does.
//!
//! # Removal
//!
//! `memory` describes the uses of the device, and how removal waits for each or revokes it;
//! `removal` describes who is notified.
//!
//! # Memory errors
//!
//! Where a block is known to be bad (`poison`), loads fail with [`volume::Error::Media`] or end
//! early, and so do stores that do not overwrite all of it; write-back skips it.

use core::ops::Range;

use kernel::bindings as kernel_bindings;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

use crate::bindings;
use crate::mutate::mutated;
use crate::volume;
use crate::volume::pmem::{Pmem, LINE};

mod copy;
mod device;
mod fingerprint;
mod memory;
mod nt;
mod poison;
mod removal;
#[cfg(rdax_shadow)]
mod shadow;

pub use device::OpenError;
pub use fingerprint::Fingerprints;
pub use memory::Access;
pub use removal::{Notifications, User};

use copy::store_words;
use device::Device;
use memory::{Memory, Span};

/// Bytes in a page, which is a block of the volume.
const PAGE: u64 = 4096;

/// The DAX device of one mount, held exclusively until it is dropped.
///
/// # Invariants
///
/// `memory` is that of `device`; `bdev` outlives this (the super block holds it). `bad_blocks` can
/// be read as long as the memory is open.
pub struct DirectMap {
    memory: Memory,
    device: Device,
    bdev: *mut kernel_bindings::block_device,
    synchronous: bool,
    fingerprints: bool,
    /// How many ranges of blocks the driver knows to be bad.
    bad_blocks: *const i32,
    /// What is durable, in test builds.
    #[cfg(rdax_shadow)]
    shadow: Option<shadow::Shadow>,
    journal_lines: Atomic<u64>,
    fences: Atomic<u64>,
}

// SAFETY: the pointers are to objects that any task may use, under their own rules: the device is
// reference counted, and the memory is accessed through raw pointers only.
unsafe impl Send for DirectMap {}
// SAFETY: as above. The callers' locks decide who may access which bytes at a time.
unsafe impl Sync for DirectMap {}

impl DirectMap {
    /// Opens the DAX device of `bdev`.
    ///
    /// # Safety
    ///
    /// `bdev` is open, and stays so until the result is dropped.
    pub unsafe fn open(bdev: *mut kernel_bindings::block_device) -> Result<Self, OpenError> {
        // SAFETY: by the caller's promise.
        let device = unsafe { Device::open(bdev) }?;
        let memory = device.memory()?;
        #[cfg(rdax_shadow)]
        let shadow = shadow::Shadow::new(&memory).ok();
        #[cfg(rdax_shadow)]
        kernel::warn_on!(shadow.is_none());
        // INVARIANT: the driver, which counts bad blocks, stays until the memory is released.
        Ok(DirectMap {
            // SAFETY: the device is held.
            synchronous: unsafe { bindings::dax_synchronous(device.as_raw()) },
            // SAFETY: `bdev` is open.
            bad_blocks: unsafe { bindings::rdax_bdev_badblocks(bdev) },
            fingerprints: fingerprint::is_supported(),
            memory,
            device,
            bdev,
            #[cfg(rdax_shadow)]
            shadow,
            journal_lines: Atomic::new(0),
            fences: Atomic::new(0),
        })
    }

    /// Fails if all or part of the device is not where it was when it was opened: the device mapper
    /// can load another table.
    pub fn check_place(&self) -> Result<(), OpenError> {
        let place = self.device.locate()?;
        match place == self.memory.place() {
            true => Ok(()),
            false => Err(OpenError::NotLinear { page: 0 }),
        }
    }

    /// From now on `user` is notified of events of the device. Fails with `ENODEV` if it is already
    /// being removed.
    ///
    /// # Safety
    ///
    /// `user` is alive until [`DirectMap::detach`] has returned.
    pub unsafe fn attach(&self, user: &dyn User) -> Result {
        // SAFETY: by the caller's promise.
        unsafe { self.device.registration().attach(user)? };
        // If it is not alive, the DAX core may have looked for a holder before there was one.
        match self.device.is_alive() {
            true => Ok(()),
            false => Err(ENODEV),
        }
    }

    /// From now on nobody is notified; waits for notifications in progress.
    pub fn detach(&self) {
        self.device.registration().detach();
    }

    /// The block device is removed: notifies the user, if the DAX core has not.
    pub fn removed(&self) {
        self.device.registration().removed();
    }

    /// The DAX device, for `mmap` to check against.
    pub fn dax_device(&self) -> *mut bindings::dax_device {
        self.device.as_raw()
    }

    /// Whether stores are not durable until they are written back and fenced. Root can switch this
    /// off in sysfs for a platform whose caches are inside the persistence domain. An asynchronous
    /// device has a volatile cache in any case.
    pub fn has_write_cache(&self) -> bool {
        // SAFETY: the device is held.
        let enabled = unsafe { bindings::dax_write_cache_enabled(self.device.as_raw()) };
        let has = !self.synchronous || enabled;
        #[cfg(rdax_shadow)]
        if let (Some(shadow), false) = (&self.shadow, has) {
            shadow.void();
        }
        has
    }

    /// The physical page number of `block`, which must be inside the device.
    pub fn pfn(&self, block: u64) -> u64 {
        self.memory.pfn(block)
    }

    /// The blocks that the `len` bytes at `at` of the DAX device touch.
    pub fn blocks_at(&self, at: u64, len: u64) -> Range<u64> {
        let (first, end) = (
            self.device.inside(at),
            self.device.inside(at.saturating_add(len)),
        );
        first / PAGE..end.div_ceil(PAGE)
    }

    /// Whether a fence is only an `sfence`: it does not wait.
    pub fn is_synchronous(&self) -> bool {
        self.synchronous
    }

    /// Keeps the device present, for work that may sleep or uses its struct pages. `None` if it is
    /// gone.
    pub fn access(&self) -> Option<Access> {
        self.memory.access()
    }

    /// Pages of the device belong to one more inode, in which [`User::removed`] looks for them. The
    /// caller keeps that from running meanwhile.
    pub fn add_owner(&self) {
        self.memory.add_owner();
    }

    /// No page belongs to an inode of [`DirectMap::add_owner`] any more.
    pub fn remove_owner(&self) {
        self.memory.remove_owner();
    }

    /// Ends all use: every access fails from now on, and a fence in progress may fail. Copies in
    /// progress may complete.
    pub fn close(&self) {
        self.memory.close();
    }

    /// The device is being removed, and this is closed: when this returns, nothing accesses its
    /// memory any more, and nobody has an [`Access`]. May sleep.
    pub fn set_gone(&self) {
        self.memory.set_gone();
    }

    /// Waits until no page of the device belongs to an inode.
    pub fn wait_for_owners(&self) {
        self.memory.wait_for_owners();
    }

    /// Releases the device: nobody maps or pins a page of it, and none belongs to an inode.
    pub fn release(&self) {
        self.memory.release();
    }

    fn is_closed(&self) -> bool {
        !self.memory.is_open()
    }

    /// Starts the write-back of `nr` blocks from `block`, for the DAX sync path.
    #[inline]
    pub fn write_back_blocks(&self, block: u64, nr: u64) {
        self.write_back_good(block * PAGE, nr * PAGE);
    }

    /// To detect whether pages change. The caller must not sleep until it is dropped.
    pub fn fingerprints(&self) -> Fingerprints<'_> {
        Fingerprints::new(self)
    }

    /// Starts the write-back of the lines of `len` bytes at `at`, except in bad blocks: the stores
    /// there are lost, and this has been reported.
    #[inline]
    fn write_back_good(&self, at: u64, len: u64) {
        match self.good_at(at, len) {
            Ok(from) => self.write_back_span(&from, at, len),
            Err(_) => self.write_back_around(at, len),
        }
    }

    /// As [`DirectMap::write_back_good`], of the `len` bytes at `from`, which are those at `at`.
    #[inline]
    fn write_back_span(&self, from: &Span<'_>, at: u64, len: u64) {
        self.becomes_durable(at, len);
        // SAFETY: the span has as many bytes.
        unsafe { bindings::arch_wb_cache_pmem(from.as_ptr().cast(), len as usize) };
    }

    /// As [`DirectMap::write_back_good`], where some blocks are bad.
    #[cold]
    fn write_back_around(&self, mut at: u64, len: u64) {
        let end = at.saturating_add(len);
        while at < end {
            let good = self.readable(at, end - at);
            if let (Ok(from), true) = (self.memory.span(at, good), good > 0) {
                self.write_back_span(&from, at, good);
            }
            at = ((at + good) / PAGE + 1) * PAGE;
        }
    }

    /// In test builds, records that the lines of a range are being written back.
    #[inline]
    fn becomes_durable(&self, _at: u64, _len: u64) {
        #[cfg(rdax_shadow)]
        if let Some(shadow) = &self.shadow {
            shadow.durable(&self.memory, _at, _len);
        }
    }

    /// Metadata lines written back since mount.
    pub fn journal_lines(&self) -> u64 {
        self.journal_lines.load(Relaxed)
    }

    /// Fences since mount.
    pub fn fences(&self) -> u64 {
        self.fences.load(Relaxed)
    }

    /// The `len` bytes at `at`, of which none is known to be bad.
    #[inline(always)]
    fn good_at(&self, at: u64, len: u64) -> volume::Result<Span<'_>> {
        match self.memory.inside(at, len) {
            Some(span) if self.is_sound() => Ok(span),
            _ => self.good_at_closely(at, len),
        }
    }

    /// As [`DirectMap::good_at`], if a quick check has failed.
    #[cold]
    fn good_at_closely(&self, at: u64, len: u64) -> volume::Result<Span<'_>> {
        self.check_good(at, len)?;
        self.memory.span(at, len)
    }
}

#[cfg(rdax_shadow)]
impl Drop for DirectMap {
    fn drop(&mut self) {
        if let Some(shadow) = &self.shadow {
            shadow.compare(&self.memory, |block| self.is_bad(block, 1));
        }
    }
}

impl Pmem for DirectMap {
    fn len(&self) -> u64 {
        self.memory.bytes()
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> volume::Result<()> {
        let len = buf.len();
        let from = self.good_at(at, len as u64)?;
        // SAFETY: the span is the source; the destination is a slice. A machine check on the source
        // ends the copy.
        match unsafe { bindings::rdax_read_mc(buf.as_mut_ptr().cast(), from.as_ptr().cast(), len) }
        {
            0 => Ok(()),
            rest => Err(volume::Error::Media {
                at: at + len.saturating_sub(rest) as u64,
            }),
        }
    }

    fn store(&self, at: u64, bytes: &[u8]) -> volume::Result<()> {
        let to = self.good_at(at, bytes.len() as u64)?;
        // SAFETY: the span is the destination.
        unsafe { store_words(to.as_ptr(), bytes) };
        Ok(())
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> volume::Result<()> {
        let to = self.good_at(at, bytes.len() as u64)?;
        // SAFETY: the span is the destination; the source is a slice.
        unsafe {
            let to = to.as_ptr().cast();
            kernel_bindings::__memcpy_flushcache(to, bytes.as_ptr().cast(), bytes.len());
        }
        self.becomes_durable(at, bytes.len() as u64);
        Ok(())
    }

    fn zero_nt(&self, at: u64, len: u64) -> volume::Result<()> {
        match self.good_at(at, len) {
            // SAFETY: the span has as many bytes.
            Ok(to) => unsafe { nt::zero(to.as_ptr(), len as usize) },
            Err(_) => {
                let _ = self.memory.span(at, len)?;
                self.zero_around(at, len);
            }
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
        if self.memory.inside(at, len).is_none() {
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
        // Stores and write-backs since the device was closed did not reach it.
        if self.is_closed() {
            return Err(volume::Error::Media { at: 0 });
        }
        Ok(())
    }
}
