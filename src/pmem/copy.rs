// SPDX-License-Identifier: GPL-2.0

//! File data between the media and memory that is not the media.
//!
//! User memory may be anything: not present yet, on a slow device, or held back by another task of
//! the user with userfaultfd(2) for as long as it likes. Removal of the device must not wait for
//! that, and nothing may be stored after it. So user memory is copied with page faults disabled,
//! without sleeping. Where that ends early, the pages are faulted in with no pointer into the media
//! held, and the device is checked again. If they disappear again before they are copied, some
//! bytes go through a buffer.

use kernel::bindings as kernel_bindings;
use kernel::iov::{IovIterDest, IovIterSource};

use super::{DirectMap, PAGE};
use crate::bindings;
use crate::mutate::mutated;
use crate::volume;
use crate::volume::pmem::{Pmem, LINE};

/// Most bytes that are faulted in at a time.
const FAULT_IN: usize = 1 << 20;

/// Bytes of the buffer.
const BUFFER: usize = 256;

impl DirectMap {
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
        let copied = self.load(from, len, iter);
        if copied == len {
            return copied;
        }
        copied + self.load_slowly(from + copied as u64, len - copied, iter)
    }

    /// Copies up to `len` bytes at `from` to `iter`, without sleeping.
    #[inline]
    fn load(&self, from: u64, len: usize, iter: &mut IovIterDest<'_>) -> usize {
        let Ok(source) = self.memory.span(from, len as u64) else {
            return 0;
        };
        // CAST: not more than `len`.
        let len = self.readable(from, len as u64) as usize;
        // SAFETY: the span has as many bytes; machine checks on the way end the copy.
        unsafe { bindings::rdax_copy_mc_to_iter(source.as_ptr().cast(), len, iter.as_raw().cast()) }
    }

    /// As [`DirectMap::load`], for the rest when that has ended early. May sleep.
    #[cold]
    fn load_slowly(&self, from: u64, len: usize, iter: &mut IovIterDest<'_>) -> usize {
        let mut done = 0;
        while done < len {
            let (at, left) = (from + done as u64, (len - done).min(FAULT_IN));
            // CAST: not more than `left`.
            let left = self.readable(at, left as u64) as usize;
            // SAFETY: the iterator is the caller's, lent for the call.
            let left = left - unsafe { bindings::fault_in_iov_iter_writeable(iter.as_raw(), left) };
            let mut copied = self.load(at, left, iter);
            if copied == 0 {
                copied = self.load_by_buffer(at, left, iter);
            }
            if copied == 0 {
                break;
            }
            done += copied;
        }
        done
    }

    /// Copies some of `len` bytes at `from` to `iter`. Returns 0 if the media cannot be read, or
    /// user memory cannot be written. May sleep.
    fn load_by_buffer(&self, from: u64, len: usize, iter: &mut IovIterDest<'_>) -> usize {
        let mut buffer = [0; BUFFER];
        let len = len.min(BUFFER);
        let Some(part) = buffer.get_mut(..len) else {
            return 0;
        };
        // The bytes before the first one that cannot be read.
        let read = match self.read(from, part) {
            Ok(()) => len,
            Err(volume::Error::Media { at }) => at.saturating_sub(from) as usize,
            Err(_) => 0,
        };
        // SAFETY: as many bytes are in the buffer.
        unsafe { kernel_bindings::_copy_to_iter(buffer.as_ptr().cast(), read, iter.as_raw()) }
    }

    /// Copies `len` bytes from `iter` to `offset` bytes into `block` (and on into the blocks after
    /// it), past the cache: durable after [`Pmem::fence`]. Returns how many were copied: less if
    /// user memory faults, or a bad block is only partly overwritten or cannot be healed.
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
        // CAST: not more than `len`.
        let len = self.writable(to, len as u64) as usize;
        let copied = self.store_from(to, len, iter);
        if copied == len {
            return copied;
        }
        copied + self.store_slowly(to + copied as u64, len - copied, iter)
    }

    /// Copies up to `len` bytes from `iter` to `to`, without sleeping.
    #[inline]
    fn store_from(&self, to: u64, len: usize, iter: &mut IovIterSource<'_>) -> usize {
        let Ok(target) = self.good_at(to, len as u64) else {
            return 0;
        };
        let copy = match mutated!("write-data") {
            false => bindings::rdax_copy_from_iter_flushcache,
            true => bindings::rdax_copy_from_iter,
        };
        // SAFETY: the span has as many bytes, none of which is known to be bad.
        let copied = unsafe { copy(target.as_ptr().cast(), len, iter.as_raw().cast()) };
        if copied < len {
            // Where it ends early, the last bytes may have been stored through the cache.
            let last = copied.min(LINE as usize);
            let start = target.as_ptr().wrapping_add(copied - last);
            // SAFETY: inside the span.
            unsafe { bindings::arch_wb_cache_pmem(start.cast(), last) };
        }
        self.becomes_durable(to, copied as u64);
        copied
    }

    /// As [`DirectMap::store_from`], for the rest when that has ended early. May sleep.
    #[cold]
    fn store_slowly(&self, to: u64, len: usize, iter: &mut IovIterSource<'_>) -> usize {
        let mut done = 0;
        while done < len {
            let (at, left) = (to + done as u64, (len - done).min(FAULT_IN));
            // CAST: not more than `left`.
            let left = self.writable(at, left as u64) as usize;
            // SAFETY: the iterator is the caller's, lent for the call.
            let left = left - unsafe { bindings::fault_in_iov_iter_readable(iter.as_raw(), left) };
            let mut copied = self.store_from(at, left, iter);
            if copied == 0 {
                copied = self.store_by_buffer(at, left, iter);
            }
            if copied == 0 {
                break;
            }
            done += copied;
        }
        done
    }

    /// Copies some of `len` bytes from `iter` to `to`. Returns 0 if user memory cannot be read, or
    /// the media cannot be written. May sleep.
    fn store_by_buffer(&self, to: u64, len: usize, iter: &mut IovIterSource<'_>) -> usize {
        let mut buffer = [0; BUFFER];
        // SAFETY: the buffer has as many bytes.
        let taken = unsafe {
            let buffer = buffer.as_mut_ptr().cast();
            kernel_bindings::_copy_from_iter(buffer, len.min(BUFFER), iter.as_raw())
        };
        match buffer.get(..taken).map(|bytes| self.store_nt(to, bytes)) {
            Some(Ok(())) => taken,
            _ => {
                // SAFETY: as many bytes were taken just now.
                unsafe { iter.revert(taken) };
                0
            }
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
        let to = self.memory.span(block * PAGE, len)?;
        // SAFETY: the span is the destination; the source is the caller's promise.
        unsafe {
            kernel_bindings::__memcpy_flushcache(to.as_ptr().cast(), from.cast(), len as usize)
        };
        self.becomes_durable(block * PAGE, len);
        Ok(())
    }
}

/// Stores `bytes` at `to`, word by word: memcpy() may store byte by byte, and an aligned word must
/// not be torn.
///
/// # Safety
///
/// `to` is good for writes of as many bytes.
#[inline(always)]
pub(super) unsafe fn store_words(mut to: *mut u8, bytes: &[u8]) {
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
