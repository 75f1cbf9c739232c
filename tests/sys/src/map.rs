// SPDX-License-Identifier: GPL-2.0

//! Mappings. No reference to their memory is ever made: it changes behind the back of the program,
//! and an access may end in a signal.

use std::arch::asm;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::AtomicU64;

use rustix::mm::{self, Advice, MapFlags, MprotectFlags, MremapFlags, MsyncFlags, ProtFlags};

use crate::guard::{self, Fault};
use crate::{check, check_len, of, Result, PAGE};

/// Bytes in a line of the CPU cache.
const LINE: usize = 64;

const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// A mapping; offsets are bytes from its start. An access outside of it panics, one that the
/// kernel cannot serve ends in a signal.
pub struct Map {
    base: *mut u8,
    len: usize,
}

// SAFETY: memory is accessed by volatile loads and stores, by the guarded copy and by the kernel,
// never through references; racing accesses are what tests are about.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes of `file` from 0, shared, readable and writable.
    pub fn shared(file: impl AsFd, len: usize) -> Result<Map> {
        Map::new(file, len, READ_WRITE, MapFlags::SHARED)
    }

    /// As [`Map::shared`], from `offset`.
    pub fn shared_at(file: impl AsFd, offset: u64, len: usize) -> Result<Map> {
        Map::at_offset(file, len, READ_WRITE, MapFlags::SHARED, offset)
    }

    /// Maps `len` bytes of `file` from 0, private, readable and writable.
    pub fn private(file: impl AsFd, len: usize) -> Result<Map> {
        Map::new(file, len, READ_WRITE, MapFlags::PRIVATE)
    }

    /// Maps `len` bytes of `file` from 0.
    pub fn new(file: impl AsFd, len: usize, protection: ProtFlags, flags: MapFlags) -> Result<Map> {
        Map::at_offset(file, len, protection, flags, 0)
    }

    fn at_offset(
        file: impl AsFd,
        len: usize,
        protection: ProtFlags,
        flags: MapFlags,
        offset: u64,
    ) -> Result<Map> {
        assert!(!flags.intersects(MapFlags::FIXED));
        // SAFETY: the kernel chooses the address, so no memory is replaced.
        let base = unsafe { mm::mmap(null_mut(), len, protection, flags, file, offset) };
        let base = base.map_err(of("mmap"))?.cast();
        Ok(Map { base, len })
    }

    /// Maps `len` bytes of memory that is no file's, readable and writable.
    pub fn anonymous(len: usize) -> Result<Map> {
        Map::nobodys(len, READ_WRITE)
    }

    fn nobodys(len: usize, protection: ProtFlags) -> Result<Map> {
        // SAFETY: as in `at_offset`.
        let base = unsafe { mm::mmap_anonymous(null_mut(), len, protection, MapFlags::PRIVATE) };
        let base = base.map_err(of("mmap"))?.cast();
        Ok(Map { base, len })
    }

    /// Bytes mapped.
    pub fn size(&self) -> usize {
        self.len
    }

    /// Where it begins, for calls that are to go wrong.
    pub fn address(&self) -> usize {
        self.base as usize
    }

    /// The address of the `len` bytes at `at`.
    pub(crate) fn at(&self, at: usize, len: usize) -> *mut u8 {
        assert!(
            len <= self.len && at <= self.len - len,
            "{len} bytes at {at} are outside of a mapping of {}",
            self.len
        );
        self.base.wrapping_add(at)
    }

    /// Stores one byte.
    pub fn store(&self, at: usize, value: u8) {
        // SAFETY: inside the mapping; a fault that fails ends the process, as some want it to.
        unsafe { self.at(at, 1).write_volatile(value) };
    }

    /// Loads one byte.
    pub fn load(&self, at: usize) -> u8 {
        // SAFETY: as for `store`.
        unsafe { self.at(at, 1).read_volatile() }
    }

    /// Stores `bytes` at `at`, both multiples of 8, word by word in the order of their addresses.
    pub fn store_words(&self, at: usize, bytes: &[u8]) {
        assert!(at % 8 == 0 && bytes.len() % 8 == 0);
        let mut to = self.at(at, bytes.len()).cast::<u64>();
        for word in bytes.chunks_exact(8) {
            let mut value = [0; 8];
            value.copy_from_slice(word);
            // SAFETY: inside the mapping, and aligned, as `at` is.
            unsafe { to.write_volatile(u64::from_ne_bytes(value)) };
            to = to.wrapping_add(1);
        }
    }

    /// Loads `to.len()` bytes, a multiple of 8, after [`catch_faults`](crate::catch_faults).
    pub fn try_load(&self, at: usize, to: &mut [u8]) -> std::result::Result<(), Fault> {
        let from = self.at(at, to.len());
        // SAFETY: `from` lies within the mapping, which lives as long as `self`; `to` is private.
        unsafe { guard::copy(to.as_mut_ptr(), from, to.len()) }
    }

    /// Stores `from`, a multiple of 8 bytes, after [`catch_faults`](crate::catch_faults).
    pub fn try_store(&self, at: usize, from: &[u8]) -> std::result::Result<(), Fault> {
        let to = self.at(at, from.len());
        // SAFETY: `to` lies within the mapping, which lives as long as `self`; `from` is private.
        unsafe { guard::copy(to, from.as_ptr(), from.len()) }
    }

    /// Writes the cache lines of the range back, and waits until they are durable: what a program
    /// may do by itself on a mapping with `MAP_SYNC`.
    pub fn write_back(&self, at: usize, len: usize) {
        for line in at / LINE..(at + len).div_ceil(LINE) {
            let line = self.at(line * LINE, LINE);
            // SAFETY: inside the mapping; clwb changes no content.
            unsafe { asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags)) };
        }
        // SAFETY: a fence.
        unsafe { asm!("sfence", options(nostack, preserves_flags)) };
    }

    /// msync(2).
    pub fn msync(&self, at: usize, len: usize, flags: MsyncFlags) -> Result<()> {
        // SAFETY: changes no memory.
        unsafe { mm::msync(self.at(at, len).cast(), len, flags) }.map_err(of("msync"))
    }

    /// madvise(2).
    pub fn advise(&self, at: usize, len: usize, advice: Advice) -> Result<()> {
        // SAFETY: the mapping holds nothing that Rust relies on.
        unsafe { mm::madvise(self.at(at, len).cast(), len, advice) }.map_err(of("madvise"))
    }

    /// Makes whole pages guard pages (`MADV_GUARD_INSTALL`), or what they were.
    pub fn guard(&self, at: usize, len: usize, install: bool) -> Result<()> {
        const MADV_GUARD_INSTALL: libc::c_int = 102;
        const MADV_GUARD_REMOVE: libc::c_int = 103;
        let advice = if install {
            MADV_GUARD_INSTALL
        } else {
            MADV_GUARD_REMOVE
        };
        // SAFETY: as for `advise`; rustix does not know these two.
        check("madvise", unsafe {
            libc::madvise(self.at(at, len).cast(), len, advice)
        })?;
        Ok(())
    }

    /// mprotect(2).
    pub fn protect(&self, at: usize, len: usize, flags: MprotectFlags) -> Result<()> {
        // SAFETY: as for `advise`.
        unsafe { mm::mprotect(self.at(at, len).cast(), len, flags) }.map_err(of("mprotect"))
    }

    /// mlock(2).
    pub fn lock(&self, at: usize, len: usize) -> Result<()> {
        // SAFETY: changes no memory.
        unsafe { mm::mlock(self.at(at, len).cast(), len) }.map_err(of("mlock"))
    }

    /// Takes whole pages out of the mapping. Their addresses stay reserved: accesses are SIGSEGV.
    pub fn unmap(&self, at: usize, len: usize) -> Result<()> {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        let at = self.at(at, len).cast();
        // SAFETY: replaces pages of this mapping only, and keeps their addresses from being given
        // to anybody else.
        let reserved = unsafe { mm::mmap_anonymous(at, len, ProtFlags::empty(), flags) };
        reserved.map_err(of("mmap"))?;
        Ok(())
    }

    /// Unmaps all but the first `len` bytes.
    pub fn shorten(&mut self, len: usize) -> Result<()> {
        let rest = self.len - len;
        // SAFETY: ours, and from now on outside of the mapping.
        unsafe { mm::munmap(self.at(len, rest).cast(), rest) }.map_err(of("munmap"))?;
        self.len = len;
        Ok(())
    }

    /// Moves the mapping to another address (mremap).
    pub fn relocate(&mut self) -> Result<()> {
        let to = ManuallyDrop::new(Map::nobodys(self.len, ProtFlags::empty())?);
        let (old, flags) = (self.base.cast(), MremapFlags::MAYMOVE);
        // SAFETY: moves this mapping over a reservation that only this function knows; nobody
        // uses the old addresses, as nobody else borrows `self`.
        let moved = unsafe { mm::mremap_fixed(old, self.len, self.len, flags, to.base.cast()) };
        self.base = moved.map_err(of("mremap"))?.cast();
        Ok(())
    }

    /// pread(2) of `len` bytes at `from` of `file`, straight into the mapping.
    pub fn read_into(&self, at: usize, len: usize, file: &File, from: u64) -> Result<usize> {
        let (fd, to) = (file.as_raw_fd(), self.at(at, len).cast());
        // SAFETY: the kernel writes within the mapping only, or fails with EFAULT. (For rustix it
        // would have to be a slice.)
        check_len("pread", unsafe { libc::pread(fd, to, len, from as i64) })
    }

    /// pwrite(2) of `len` bytes straight out of the mapping to `to` of `file`.
    pub fn write_from(&self, at: usize, len: usize, file: &File, to: u64) -> Result<usize> {
        let (fd, from) = (file.as_raw_fd(), self.at(at, len).cast());
        // SAFETY: as for `read_into`.
        check_len("pwrite", unsafe { libc::pwrite(fd, from, len, to as i64) })
    }

    /// process_vm_writev(2) of this process into the mapping: the kernel dirties the page through
    /// its struct page, not through the page table.
    pub fn write_remotely(&self, at: usize, bytes: &[u8]) -> Result<usize> {
        let local = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let remote = self.vector(at, bytes.len());
        // SAFETY: reads `bytes`, writes within the mapping only, or fails with EFAULT.
        let len = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
        check_len("process_vm_writev", len)
    }

    /// Puts `len` bytes into `pipe`, uncopied (vmsplice): their pages are pinned until somebody
    /// reads them.
    pub fn splice(&self, at: usize, len: usize, pipe: &OwnedFd) -> Result<usize> {
        let vector = self.vector(at, len);
        // SAFETY: the kernel reads within the mapping only. (For rustix it would have to be a
        // slice.)
        check_len("vmsplice", unsafe {
            libc::vmsplice(pipe.as_raw_fd(), &vector, 1, 0)
        })
    }

    pub(crate) fn vector(&self, at: usize, len: usize) -> libc::iovec {
        libc::iovec {
            iov_base: self.at(at, len).cast(),
            iov_len: len,
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing refers to it after the drop.
        let unmapped = unsafe { mm::munmap(self.base.cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

/// A range of addresses in which nothing is mapped but what is put there.
pub struct Addresses {
    start: usize,
    len: usize,
}

impl Addresses {
    /// `len` of them, while nobody else maps anything.
    pub fn new(len: usize) -> Result<Addresses> {
        let start = Map::nobodys(len, ProtFlags::empty())?.base as usize;
        Ok(Addresses { start, len })
    }

    /// Maps the first `len` bytes of `file`, shared, readable and writable, at byte `at` of the
    /// range.
    pub fn map(&self, at: usize, file: &File, len: usize) -> Result<Map> {
        assert!(at + len <= self.len);
        let flags = MapFlags::SHARED | MapFlags::FIXED_NOREPLACE;
        let to = (self.start + at) as *mut _;
        // SAFETY: nothing is mapped there, or it fails.
        let base = unsafe { mm::mmap(to, len, READ_WRITE, flags, file, 0) };
        let base = base.map_err(of("mmap"))?.cast();
        Ok(Map { base, len })
    }

    /// msync(2) of all of it.
    pub fn msync(&self, flags: MsyncFlags) -> Result<()> {
        // SAFETY: changes no memory.
        unsafe { mm::msync(self.start as *mut _, self.len, flags) }.map_err(of("msync"))
    }
}

/// `count` zeroed counters that this process shares with the children it forks later. They are
/// never given back.
pub fn shared_counters(count: usize) -> Result<&'static [AtomicU64]> {
    let len = (count * 8).next_multiple_of(PAGE).max(PAGE);
    // SAFETY: the kernel chooses the address, so no memory is replaced.
    let base = unsafe { mm::mmap_anonymous(null_mut(), len, READ_WRITE, MapFlags::SHARED) };
    let base = base.map_err(of("mmap"))?.cast::<AtomicU64>();
    // SAFETY: the memory is zeroed, page-aligned, never unmapped, and only used as atomics.
    Ok(unsafe { std::slice::from_raw_parts(base, count) })
}
