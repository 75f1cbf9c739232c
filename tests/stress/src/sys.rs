// SPDX-License-Identifier: GPL-2.0

//! Files and mappings of them, with offsets as files have them.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rdax_test_sys::Fault;
use rustix::fs::{fstatfs, FallocateFlags, OFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MprotectFlags, MsyncFlags};

/// Bytes in a page.
pub const PAGE: u64 = rdax_test_sys::PAGE as u64;

/// A mapping of part of a file, readable and writable unless [`Map::protect`] says otherwise.
/// Offsets are bytes from its start. Every access may end in a [`Fault`].
pub struct Map(rdax_test_sys::Map);

impl Map {
    /// Maps `len` bytes of `file` from `offset`, both multiples of a page, shared: stores reach the
    /// file.
    pub fn shared(file: &File, offset: u64, len: u64) -> io::Result<Map> {
        let map = rdax_test_sys::Map::shared_at(file, offset, len as usize)?;
        Ok(Map(map))
    }

    /// Maps `len` bytes of `file`, private: stores stay with the process.
    pub fn private(file: &File, len: u64) -> io::Result<Map> {
        Ok(Map(rdax_test_sys::Map::private(file, len as usize)?))
    }

    /// Loads `to.len()` bytes, a multiple of 8.
    pub fn load(&self, offset: u64, to: &mut [u8]) -> Result<(), Fault> {
        self.0.try_load(offset as usize, to)
    }

    /// Stores `from`, a multiple of 8 bytes.
    pub fn store(&self, offset: u64, from: &[u8]) -> Result<(), Fault> {
        self.0.try_store(offset as usize, from)
    }

    /// msync(MS_SYNC) of whole pages.
    pub fn sync(&self, range: Range<u64>) -> io::Result<()> {
        let (at, len) = place(range);
        Ok(self.0.msync(at, len, MsyncFlags::SYNC)?)
    }

    /// madvise(MADV_DONTNEED) of whole pages.
    pub fn drop_pages(&self, range: Range<u64>) -> io::Result<()> {
        let (at, len) = place(range);
        Ok(self.0.advise(at, len, Advice::LinuxDontNeed)?)
    }

    /// mprotect of whole pages to read-only or to readable and writable.
    pub fn protect(&self, range: Range<u64>, writable: bool) -> io::Result<()> {
        let (at, len) = place(range);
        let mut flags = MprotectFlags::READ;
        flags.set(MprotectFlags::WRITE, writable);
        Ok(self.0.protect(at, len, flags)?)
    }

    /// munmap of whole pages; the addresses stay reserved and fault.
    pub fn unmap(&self, range: Range<u64>) -> io::Result<()> {
        let (at, len) = place(range);
        Ok(self.0.unmap(at, len)?)
    }

    /// mremap of the whole to another address.
    pub fn relocate(&mut self) -> io::Result<()> {
        Ok(self.0.relocate()?)
    }

    /// pread from `file` straight into the mapping.
    pub fn read_into(&self, offset: u64, len: u64, file: &File, from: u64) -> io::Result<usize> {
        Ok(self
            .0
            .read_into(offset as usize, len as usize, file, from)?)
    }

    /// pwrite to `file` straight out of the mapping.
    pub fn write_from(&self, offset: u64, len: u64, file: &File, to: u64) -> io::Result<usize> {
        Ok(self.0.write_from(offset as usize, len as usize, file, to)?)
    }

    /// process_vm_writev of this process into the mapping.
    pub fn write_remotely(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.0.write_remotely(offset as usize, bytes)?)
    }
}

/// A range as offset and length.
fn place(range: Range<u64>) -> (usize, usize) {
    (range.start as usize, (range.end - range.start) as usize)
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

/// fallocate.
pub fn fallocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let mode = FallocateFlags::empty();
    Ok(rustix::fs::fallocate(file, mode, offset, len)?)
}

/// fallocate that makes a hole of whole pages.
pub fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, mode, offset, len)?)
}

/// syncfs.
pub fn syncfs(file: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

/// Whether tmpfs holds `file`.
pub fn is_tmpfs(file: &File) -> io::Result<bool> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    Ok(fstatfs(file)?.f_type == TMPFS_MAGIC)
}

/// Free bytes of the file system that holds `file`.
pub fn free_space(file: &File) -> io::Result<u64> {
    let stat = fstatfs(file)?;
    Ok(stat.f_bavail * stat.f_bsize as u64)
}

/// Opens for reading and writing.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Opens with O_DIRECT; where the file system has none, without.
pub fn open_direct(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECT.bits() as i32;
    let mut options = OpenOptions::new();
    match options
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
    {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => open(path),
        result => result,
    }
}
