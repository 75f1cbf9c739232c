// SPDX-License-Identifier: GPL-2.0

//! The DAX device of a mount: holding it, and finding where its memory is.

use core::fmt;
use core::ptr;

use kernel::bindings as kernel_bindings;
use kernel::error::to_result;
use kernel::prelude::*;

use super::memory::{Memory, Place};
use super::removal::{self, Registration};
use super::PAGE;
use crate::bindings;

/// The most pages to ask for at a time: the driver counts their sectors in 32 bits.
const STRETCH: u64 = 1 << 28;

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// It has no DAX (`EOPNOTSUPP`).
    NoDax,
    /// Another file system holds its DAX device (`EBUSY`).
    InUse,
    /// A file system on another partition of the device holds it (`EBUSY`): a DAX device has one
    /// holder.
    PartitionInUse,
    /// It, or a part of it, does not start and end at a page of the memory below (`EOPNOTSUPP`).
    Unaligned,
    /// Page `page` of it is not in the memory after the page before (`EOPNOTSUPP`).
    NotLinear {
        /// The first such page.
        page: u64,
    },
    /// It is being removed (`ENODEV`).
    Removed,
    /// There is no memory for its state (`ENOMEM`).
    NoMemory,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenError::NoDax => {
                "device has no DAX; for an NVDIMM: ndctl create-namespace -f -e NAMESPACE -m fsdax"
            }
            OpenError::InUse => "its DAX device is in use by another file system",
            OpenError::PartitionInUse => {
                "a file system on another partition of this device is mounted, and DAX serves one \
                 at a time; give each a namespace instead of a partition: ndctl create-namespace"
            }
            OpenError::Unaligned => {
                "device, or a part of it, is not aligned to 4 KiB of its memory"
            }
            OpenError::NotLinear { page } => {
                return write!(
                    f,
                    "device is not one linear piece of memory: what is at byte {} lies elsewhere; \
                     a logical volume has to be contiguous, on one device, and not striped",
                    page * PAGE
                );
            }
            OpenError::Removed => "device is being removed",
            OpenError::NoMemory => "out of memory",
        })
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NoDax | OpenError::Unaligned | OpenError::NotLinear { .. } => EOPNOTSUPP,
            OpenError::InUse | OpenError::PartitionInUse => EBUSY,
            OpenError::Removed => ENODEV,
            OpenError::NoMemory => ENOMEM,
        }
    }
}

/// A DAX device, or the part of one that is a block device, held exclusively until it is dropped.
///
/// # Invariants
///
/// `raw` is referred to, and held with `registration`.
pub(super) struct Device {
    raw: *mut bindings::dax_device,
    registration: Registration,
    /// Where the block device starts in the DAX device, in bytes; not 0 for a partition.
    start: u64,
    bytes: u64,
}

/// The DAX core's lock, under which a device that is alive stays so.
struct Alive(i32);

impl Alive {
    fn new() -> Self {
        // SAFETY: an SRCU read lock; `drop` matches.
        Alive(unsafe { bindings::dax_read_lock() })
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // SAFETY: taken in `new`, by this task.
        unsafe { bindings::dax_read_unlock(self.0) };
    }
}

impl Device {
    /// Takes hold of the DAX device of `bdev`.
    ///
    /// # Safety
    ///
    /// `bdev` is open, and stays so until the result is dropped.
    pub(super) unsafe fn open(bdev: *mut kernel_bindings::block_device) -> Result<Self, OpenError> {
        let registration = Registration::new().map_err(|_| OpenError::NoMemory)?;
        let mut start = 0;
        // SAFETY: `bdev` is open. The operations are static, and only compare the holder.
        let raw = unsafe {
            bindings::fs_dax_get_by_bdev(
                bdev,
                &mut start,
                registration.as_holder(),
                &removal::OPERATIONS,
            )
        };
        if raw.is_null() {
            // SAFETY: `bdev` is open.
            return Err(unsafe { why_refused(bdev) });
        }
        let device = Device {
            raw,
            registration,
            start,
            // SAFETY: `bdev` is open.
            bytes: unsafe { bindings::rdax_bdev_bytes(bdev) },
        };
        // The device mapper rounds down where a table begins.
        // SAFETY: `bdev` is open.
        match unsafe { kernel_bindings::bdev_alignment_offset(bdev) } {
            0 => Ok(device),
            _ => Err(OpenError::Unaligned),
        }
    }

    /// The C object.
    pub(super) fn as_raw(&self) -> *mut bindings::dax_device {
        self.raw
    }

    /// The object that is notified of events of the device.
    pub(super) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// The offset in this device of the byte `at` of the DAX device; 0 if the byte is before it.
    pub(super) fn inside(&self, at: u64) -> u64 {
        at.saturating_sub(self.start).min(self.bytes)
    }

    /// Its memory.
    pub(super) fn memory(&self) -> Result<Memory, OpenError> {
        let _alive = Alive::new();
        let place = self.locate()?;
        // SAFETY: `locate` found all of it there, and the device is alive until this returns.
        unsafe { Memory::new(place, self.bytes / PAGE * PAGE) }
            .map_err(|_| OpenError::NotLinear { page: 0 })
    }

    /// Finds each page of it in memory. One call answers for a whole stretch, which ends at
    /// boundaries in a table of the device mapper, and at bad blocks.
    pub(super) fn locate(&self) -> Result<Place, OpenError> {
        let pages = self.bytes / PAGE;
        // The mode that also answers for pages with bad blocks.
        let mode = bindings::dax_access_mode_DAX_RECOVERY_WRITE;
        let mut first = None;
        let mut page = 0;
        while page < pages {
            let (found, place) = self
                .direct_access(page, (pages - page).min(STRETCH), mode)
                .map_err(|error| match error {
                    ENXIO => OpenError::Removed,
                    _ => OpenError::NotLinear { page },
                })?;
            let first = *first.get_or_insert(place);
            let expected = Place {
                base: first.base.wrapping_add((page * PAGE) as usize),
                first_pfn: first.first_pfn + page,
            };
            if place != expected {
                return Err(OpenError::NotLinear { page });
            }
            page += found;
        }
        first.ok_or(OpenError::NotLinear { page: 0 })
    }

    /// How many pages from `page` on are contiguous, at most `pages`, and where they are. In the
    /// mode `DAX_ACCESS` it fails with `EHWPOISON` if one is bad.
    pub(super) fn direct_access(
        &self,
        page: u64,
        pages: u64,
        mode: bindings::dax_access_mode,
    ) -> Result<(u64, Place)> {
        let mut kaddr = ptr::null_mut();
        let mut pfn = 0;
        let _alive = Alive::new();
        // SAFETY: `raw` is held, and the out pointers are to locals.
        let found = unsafe {
            bindings::dax_direct_access(
                self.raw,
                (self.start / PAGE + page) as usize,
                pages as isize,
                mode,
                &mut kaddr,
                &mut pfn,
            )
        };
        // CAST: an errno is small.
        let found = u64::try_from(found).map_err(|_| Error::from_errno(found as i32))?;
        let place = Place {
            base: kaddr.cast(),
            first_pfn: pfn as u64,
        };
        Ok((found.min(pages), place))
    }

    /// Clears an error in `page`: on the media, in the driver's list, and in the kernel's map.
    pub(super) fn clear_error(&self, page: u64) -> Result {
        let _alive = Alive::new();
        let page = self.start / PAGE + page;
        // SAFETY: `raw` is held.
        to_result(unsafe { bindings::dax_zero_page_range(self.raw, page as usize, 1) })
    }

    /// Whether it is not being removed. If it is, and was alive when it was opened, there may be no
    /// notification.
    pub(super) fn is_alive(&self) -> bool {
        let _alive = Alive::new();
        // SAFETY: `raw` is held, and the lock taken.
        unsafe { bindings::dax_alive(self.raw) }
    }
}

/// Why the DAX core refuses the device of `bdev`.
///
/// # Safety
///
/// `bdev` is open.
unsafe fn why_refused(bdev: *mut kernel_bindings::block_device) -> OpenError {
    // SAFETY: `bdev` is open.
    let (has_dax, start, bytes) = unsafe {
        (
            bindings::rdax_bdev_has_dax(bdev),
            bindings::rdax_bdev_start(bdev),
            bindings::rdax_bdev_bytes(bdev),
        )
    };
    match start {
        _ if !has_dax => OpenError::NoDax,
        _ if start % PAGE != 0 || bytes % PAGE != 0 => OpenError::Unaligned,
        0 => OpenError::InUse,
        _ => OpenError::PartitionInUse,
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: `open` got the device with this holder.
        unsafe { bindings::fs_put_dax(self.raw, self.registration.as_holder()) };
    }
}
