// SPDX-License-Identifier: GPL-2.0

//! The system calls that std lacks, as safe functions: mappings, shared memory, child processes.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use crate::guard::{self, Fault};

/// Bytes in a page.
pub const PAGE: u64 = 4096;

fn check(status: libc::c_int) -> io::Result<()> {
    if status == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn check_len(status: isize) -> io::Result<usize> {
    usize::try_from(status).map_err(|_| io::Error::last_os_error())
}

/// Who sees the stores to a mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// MAP_SHARED: stores reach the file.
    Shared,
    /// MAP_PRIVATE: stores stay with the process.
    Private,
}

/// A mapping of part of a file, readable and writable unless [`Map::protect`] says otherwise.
/// Offsets are bytes from its start. Every access may end in a [`Fault`].
pub struct Map {
    base: *mut u8,
    len: usize,
}

// SAFETY: the memory is only touched by the guarded copy and by the kernel; racing accesses to it
// are what the tests are about and never go through references.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes of `file` from `offset`, both multiples of a page.
    pub fn new(file: &File, offset: u64, len: u64, sharing: Sharing) -> io::Result<Map> {
        let flags = match sharing {
            Sharing::Shared => libc::MAP_SHARED,
            Sharing::Private => libc::MAP_PRIVATE,
        };
        // SAFETY: the kernel chooses the address, so no existing memory is replaced.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                file.as_raw_fd(),
                offset as i64,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Map {
            base: base.cast(),
            len: len as usize,
        })
    }

    fn at(&self, offset: u64, len: usize) -> *mut u8 {
        let offset = offset as usize;
        assert!(
            len <= self.len && offset <= self.len - len,
            "access outside of the mapping"
        );
        // SAFETY: just checked to lie within the mapping.
        unsafe { self.base.add(offset) }
    }

    /// Loads `to.len()` bytes, a multiple of 8.
    pub fn load(&self, offset: u64, to: &mut [u8]) -> Result<(), Fault> {
        let from = self.at(offset, to.len());
        // SAFETY: `from` lies within the mapping, which lives as long as `self`; `to` is private.
        unsafe { guard::copy(to.as_mut_ptr(), from, to.len()) }
    }

    /// Stores `from`, a multiple of 8 bytes.
    pub fn store(&self, offset: u64, from: &[u8]) -> Result<(), Fault> {
        let to = self.at(offset, from.len());
        // SAFETY: `to` lies within the mapping, which lives as long as `self`; `from` is private.
        unsafe { guard::copy(to, from.as_ptr(), from.len()) }
    }

    /// msync(MS_SYNC) of whole pages.
    pub fn sync(&self, range: Range<u64>) -> io::Result<()> {
        let len = (range.end - range.start) as usize;
        // SAFETY: the range lies within the mapping; msync changes no memory.
        check(unsafe { libc::msync(self.at(range.start, len).cast(), len, libc::MS_SYNC) })
    }

    /// madvise(MADV_DONTNEED) of whole pages.
    pub fn drop_pages(&self, range: Range<u64>) -> io::Result<()> {
        let len = (range.end - range.start) as usize;
        let at = self.at(range.start, len);
        // SAFETY: the range lies within a file mapping, whose pages are only used by the copy.
        check(unsafe { libc::madvise(at.cast(), len, libc::MADV_DONTNEED) })
    }

    /// mprotect of whole pages to read-only or to readable and writable.
    pub fn protect(&self, range: Range<u64>, writable: bool) -> io::Result<()> {
        let len = (range.end - range.start) as usize;
        let prot = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        // SAFETY: the range lies within the mapping; a store against it ends as a Fault.
        check(unsafe { libc::mprotect(self.at(range.start, len).cast(), len, prot) })
    }

    /// munmap of whole pages; the addresses stay reserved and fault.
    pub fn unmap(&self, range: Range<u64>) -> io::Result<()> {
        let len = (range.end - range.start) as usize;
        // SAFETY: replaces pages of this mapping only, and keeps their addresses from being given
        // to anybody else.
        let base = unsafe {
            libc::mmap(
                self.at(range.start, len).cast(),
                len,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// mremap of the whole to another address.
    pub fn relocate(self) -> io::Result<Map> {
        // SAFETY: reserves fresh addresses, which only this function knows.
        let target = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                self.len,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if target == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: moves this mapping over the reservation; `self` is consumed, so that nobody
        // uses the old addresses.
        let base = unsafe {
            libc::mremap(
                self.base.cast(),
                self.len,
                self.len,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                target,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let len = self.len;
        std::mem::forget(self);
        Ok(Map {
            base: base.cast(),
            len,
        })
    }

    /// pread from `file` straight into the mapping.
    pub fn read_into(&self, offset: u64, len: u64, file: &File, from: u64) -> io::Result<usize> {
        let to = self.at(offset, len as usize);
        // SAFETY: the kernel writes within the mapping only, or fails with EFAULT.
        check_len(unsafe { libc::pread(file.as_raw_fd(), to.cast(), len as usize, from as i64) })
    }

    /// pwrite to `file` straight out of the mapping.
    pub fn write_from(&self, offset: u64, len: u64, file: &File, to: u64) -> io::Result<usize> {
        let from = self.at(offset, len as usize);
        // SAFETY: the kernel reads within the mapping only, or fails with EFAULT.
        check_len(unsafe { libc::pwrite(file.as_raw_fd(), from.cast(), len as usize, to as i64) })
    }

    /// process_vm_writev of this process into the mapping: the kernel dirties the page through its
    /// struct page, not through the page table.
    pub fn write_remotely(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let local = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let remote = libc::iovec {
            iov_base: self.at(offset, bytes.len()).cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: reads `bytes`, writes within the mapping only, or fails with EFAULT.
        check_len(unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing refers to it after the drop.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Page-aligned memory for O_DIRECT.
pub struct Aligned {
    raw: Vec<u8>,
    skip: usize,
}

impl Aligned {
    /// `len` zero bytes.
    pub fn new(len: u64) -> Aligned {
        let raw = vec![0u8; (len + PAGE) as usize];
        let skip = raw.as_ptr().align_offset(PAGE as usize);
        Aligned { raw, skip }
    }

    /// The memory.
    pub fn bytes(&mut self) -> &mut [u8] {
        let end = self.skip + self.raw.len() - PAGE as usize;
        &mut self.raw[self.skip..end]
    }
}

/// `count` zeroed counters that this process shares with the children it forks later. They are
/// never given back.
pub fn shared_words(count: usize) -> io::Result<&'static [AtomicU64]> {
    let len = (count * 8).max(1);
    // SAFETY: fresh anonymous memory at an address of the kernel's choice.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the memory is zeroed, page-aligned, never unmapped, and only used as atomics.
    Ok(unsafe { std::slice::from_raw_parts(base.cast::<AtomicU64>(), count) })
}

/// Runs `body` in a child process, which ends with its result as exit status. With other threads
/// in the parent `body` must not allocate or take locks.
pub fn fork(body: impl FnOnce() -> i32) -> io::Result<libc::pid_t> {
    // SAFETY: the child runs `body` and leaves by _exit, without unwinding into the parent's
    // frames or running its exit handlers.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: ends the child.
            unsafe { libc::_exit(status.unwrap_or(101)) }
        }
        pid => Ok(pid),
    }
}

/// Has the kernel kill this process when the thread that forked it ends.
pub fn die_with_parent() {
    // SAFETY: takes no pointer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Waits for a child. `None`: it still runs (only with `block` false). Otherwise its exit status,
/// or minus the signal that ended it.
pub fn wait(pid: libc::pid_t, block: bool) -> io::Result<Option<i32>> {
    let mut status = 0;
    let flags = if block { 0 } else { libc::WNOHANG };
    // SAFETY: `status` outlives the call.
    match unsafe { libc::waitpid(pid, &mut status, flags) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ if libc::WIFEXITED(status) => Ok(Some(libc::WEXITSTATUS(status))),
        _ => Ok(Some(-libc::WTERMSIG(status))),
    }
}

/// Kills a child that this process started.
pub fn kill(pid: libc::pid_t) {
    // SAFETY: `pid` is a child that was not waited for, so the number cannot be somebody else's.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Page faults of the children that were waited for.
pub fn child_faults() -> u64 {
    // SAFETY: an all-zero rusage is valid and is filled in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    (usage.ru_minflt + usage.ru_majflt) as u64
}

/// fallocate.
pub fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) })
}

/// fallocate that makes a hole of whole pages.
pub fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    fallocate(
        file,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        offset,
        len,
    )
}

/// sync_file_range over the whole file, all three flags.
pub fn sync_file_range(file: &File) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: takes no pointer.
    check(unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) })
}

/// syncfs.
pub fn syncfs(file: &File) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::syncfs(file.as_raw_fd()) })
}

/// [`magic`] of tmpfs.
pub const TMPFS: i64 = libc::TMPFS_MAGIC;

fn statfs(file: &File) -> io::Result<libc::statfs> {
    // SAFETY: an all-zero statfs is valid and is filled in.
    unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(file.as_raw_fd(), &mut stat))?;
        Ok(stat)
    }
}

/// What the file system that holds `file` is, as statfs says.
pub fn magic(file: &File) -> io::Result<i64> {
    Ok(statfs(file)?.f_type)
}

/// Free bytes of the file system that holds `file`.
pub fn free_space(file: &File) -> io::Result<u64> {
    let stat = statfs(file)?;
    Ok(stat.f_bavail * stat.f_bsize as u64)
}

/// Opens for reading and writing.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Opens with O_DIRECT; where the file system has none, without.
pub fn open_direct(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(path),
        result => result,
    }
}
