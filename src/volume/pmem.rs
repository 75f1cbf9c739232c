// SPDX-License-Identifier: GPL-2.0

//! Persistent memory as the volume sees it.
//!
//! Stores go to the CPU cache. A line becomes durable when it was written back *and* a fence
//! followed; until then a crash may keep either its old or its new content, line by line, in any
//! order. Eight aligned bytes are never torn. Byte addresses count from the start of the device.
//!
//! Implementations: the direct map (`src/pmem/`, in the kernel), an image file (the tools), a
//! simulated memory that enumerates crash states (host tests).

use zerocopy::{FromBytes, IntoBytes};

use super::error::Result;

/// Bytes in a cache line: the unit of write-back.
pub const LINE: u64 = 64;

/// Byte-addressable persistent memory.
///
/// All methods take `&self`: the callers' locks decide who may access which bytes at a time.
/// Addresses outside `0..len()` are a programming error; implementations may panic on the host and
/// must refuse with [`super::Error::Corrupt`] or [`super::Error::Invalid`] in the kernel.
// A device of no bytes is no device.
#[allow(clippy::len_without_is_empty)]
pub trait Pmem {
    /// Bytes of the device.
    fn len(&self) -> u64;

    /// Copies `buf.len()` bytes at `at` into `buf`. Fails with [`super::Error::Media`] where the
    /// media cannot be read.
    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()>;

    /// Stores `bytes` at `at`: visible at once, durable after `write_back` and `fence`.
    fn store(&self, at: u64, bytes: &[u8]) -> Result<()>;

    /// Stores `bytes` past the cache (non-temporal): durable after `fence` alone. For large data.
    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<()>;

    /// Stores `len` zero bytes past the cache: durable after `fence` alone. Bad media may stay bad:
    /// then it still cannot be read.
    fn zero_nt(&self, at: u64, len: u64) -> Result<()>;

    /// Makes sure that the `len` bytes at `at`, whole blocks whose content nobody needs, can be
    /// stored to. Fails with [`super::Error::Media`] at the first block that is bad and stays bad.
    fn heal(&self, _at: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    /// Fails with [`super::Error::Media`] if one of the `len` bytes at `at` is known to be bad:
    /// checked before a store while the operation can still fail.
    fn check_storable(&self, _at: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    /// Starts the write-back of every line that `at..at + len` touches (`clwb`).
    fn write_back(&self, at: u64, len: u64);

    /// Orders and completes: every earlier `write_back`, `store_nt` and `zero_nt` is durable when
    /// it returns (`sfence`, and a device flush where the device needs one).
    fn fence(&self) -> Result<()>;
}

/// A reference to a memory is a memory.
impl<P: Pmem + ?Sized> Pmem for &P {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        (**self).read(at, buf)
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<()> {
        (**self).store(at, bytes)
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<()> {
        (**self).store_nt(at, bytes)
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<()> {
        (**self).zero_nt(at, len)
    }

    fn heal(&self, at: u64, len: u64) -> Result<()> {
        (**self).heal(at, len)
    }

    fn check_storable(&self, at: u64, len: u64) -> Result<()> {
        (**self).check_storable(at, len)
    }

    fn write_back(&self, at: u64, len: u64) {
        (**self).write_back(at, len);
    }

    fn fence(&self) -> Result<()> {
        (**self).fence()
    }
}

/// Reads one structure at `at`.
pub fn read_struct<T: FromBytes + IntoBytes, P: Pmem + ?Sized>(pmem: &P, at: u64) -> Result<T> {
    let mut value = T::new_zeroed();
    pmem.read(at, value.as_mut_bytes())?;
    Ok(value)
}
