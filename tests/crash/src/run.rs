// SPDX-License-Identifier: GPL-2.0

//! The operations as system calls.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rdax_crash_ops::{fill, Op, Rename, Workload};
use rdax_test_sys::freeze;
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::io::{Errno, Result as SysResult};
use rustix::{fs, process};

use crate::age;
use crate::mapping::Mapping;
use crate::mark::{mark, Mark};

/// How often the processor is given to a thread that is to get into a system call. (Not by
/// sleeping: the interrupt of a timer ends with a fence.)
const HEAD_START: u32 = 20;

/// A program that runs the operations of one workload.
pub struct Runner {
    path: PathBuf,
    /// The root of the file system.
    dir: File,
    /// By inode number: a file may have got another name.
    mappings: HashMap<u64, Mapping>,
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

impl Runner {
    /// A program that works in `path`, the root of a file system.
    pub fn new(path: &Path) -> Result<Self> {
        process::umask(Mode::empty());
        Ok(Runner {
            path: path.to_owned(),
            dir: File::open(path).with_context(|| path.display().to_string())?,
            mappings: HashMap::new(),
        })
    }

    /// Runs all operations, with marks. Fails where the first one does.
    pub fn run(&mut self, workload: &Workload) -> Result<()> {
        for (number, op) in workload.ops.iter().enumerate() {
            let mut data = vec![0; written(op) as usize];
            let at = match *op {
                Op::Write { at, .. }
                | Op::Store { at, .. }
                | Op::StoreInSync { at, .. }
                | Op::Scatter { at, .. } => at,
                _ => 0,
            };
            fill(number, at, &mut data);
            mark(Mark::Begins(number));
            let result = self.perform(op, &data);
            match result {
                Ok(_) => mark(Mark::Returned(number)),
                Err(e) => mark(Mark::Failed(number, e.raw_os_error() as u16)),
            }
            let left = result.with_context(|| format!("operation {number}, {op}"))?;
            if let Some(thread) = left {
                thread.join().unwrap_or(Err(Errno::IO))?;
            }
        }
        mark(Mark::Ended);
        Ok(())
    }

    fn open(&self, path: &str, flags: OFlags) -> SysResult<File> {
        let fd = fs::openat(&self.dir, path, flags | OFlags::CLOEXEC, Mode::empty())?;
        Ok(File::from(fd))
    }

    fn open_rw(&self, path: &str) -> SysResult<File> {
        self.open(path, OFlags::RDWR)
    }

    /// A file or a directory, for its attributes.
    fn open_any(&self, path: &str) -> SysResult<File> {
        self.open(path, OFlags::RDONLY)
    }

    /// The mapping of the file at `path`, made if there is none that reaches to `end`.
    fn mapping(&mut self, path: &str, end: u64, sync: bool) -> SysResult<&Mapping> {
        let file = self.open_rw(path)?;
        let meta = file.metadata().map_err(errno)?;
        let ino = meta.ino();
        let enough = self.mappings.get(&ino).is_some_and(|m| m.len() >= end);
        if !enough || sync {
            self.mappings.remove(&ino);
            let mapping = Mapping::new(&file, meta.len(), sync)?;
            self.mappings.insert(ino, mapping);
        }
        self.mappings.get(&ino).ok_or(Errno::NOENT)
    }

    /// Does `op`, with `data` to write. What it returns is still under way.
    fn perform(&mut self, op: &Op, data: &[u8]) -> SysResult<Option<JoinHandle<SysResult<()>>>> {
        let dir = &self.dir;
        match *op {
            Op::Creat { path } => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                fs::openat(dir, path, flags, Mode::from(0o644))?;
            }
            Op::Mkdir { path } => fs::mkdirat(dir, path, Mode::from(0o755))?,
            Op::Mkfifo { path } => {
                fs::mknodat(dir, path, FileType::Fifo, Mode::from(0o600), 0)?;
            }
            Op::Mknod { path } => {
                let kind = FileType::CharacterDevice;
                fs::mknodat(dir, path, kind, Mode::from(0o600), fs::makedev(1, 3))?;
            }
            Op::Symlink { path, len } => fs::symlinkat(Op::target(len), dir, path)?,
            Op::Link { from, to } => fs::linkat(dir, from, dir, to, AtFlags::empty())?,
            Op::Unlink { path } => fs::unlinkat(dir, path, AtFlags::empty())?,
            Op::Rmdir { path } => fs::unlinkat(dir, path, AtFlags::REMOVEDIR)?,
            Op::Rename { from, to, how } => {
                let flags = match how {
                    Rename::Plain | Rename::Over => RenameFlags::empty(),
                    Rename::NoReplace => RenameFlags::NOREPLACE,
                    Rename::Exchange => RenameFlags::EXCHANGE,
                };
                fs::renameat_with(dir, from, dir, to, flags)?;
            }
            Op::Write { path, at, .. } => {
                let written = self.open_rw(path)?.write_at(data, at).map_err(errno)?;
                if written < data.len() {
                    return Err(Errno::NOSPC);
                }
            }
            Op::Truncate { path, size } => fs::ftruncate(self.open_rw(path)?, size)?,
            Op::Fallocate {
                path,
                at,
                len,
                keep_size,
            } => {
                let flags = match keep_size {
                    true => FallocateFlags::KEEP_SIZE,
                    false => FallocateFlags::empty(),
                };
                fs::fallocate(self.open_rw(path)?, flags, at, len)?;
            }
            Op::Punch { path, at, len } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fs::fallocate(self.open_rw(path)?, flags, at, len)?;
            }
            Op::Zero { path, at, len } => {
                fs::fallocate(self.open_rw(path)?, FallocateFlags::ZERO_RANGE, at, len)?;
            }
            Op::WriteZeroes { path, at, len } => {
                // FALLOC_FL_WRITE_ZEROES, which the crate does not know, and ext4 and XFS only
                // where the device has a command for it.
                let flags = FallocateFlags::from_bits_retain(0x80);
                let file = self.open_rw(path)?;
                match fs::fallocate(&file, flags, at, len) {
                    Err(Errno::OPNOTSUPP) => {
                        fs::fallocate(&file, FallocateFlags::ZERO_RANGE, at, len)?;
                    }
                    result => result?,
                }
            }
            Op::Chmod { path, mode } => {
                let mode = Mode::from(u32::from(mode));
                fs::chmodat(dir, path, mode, AtFlags::empty())?;
            }
            Op::Utimes { path, mtime } => {
                let time = Timespec {
                    tv_sec: mtime,
                    tv_nsec: 0,
                };
                let times = Timestamps {
                    last_access: time,
                    last_modification: time,
                };
                fs::utimensat(dir, path, &times, AtFlags::empty())?;
            }
            Op::Setxattr { path, name, .. } => {
                fs::fsetxattr(self.open_any(path)?, name, data, XattrFlags::empty())?;
            }
            Op::Removexattr { path, name } => fs::fremovexattr(self.open_any(path)?, name)?,
            Op::Fsync { path } => fs::fsync(self.open_rw(path)?)?,
            Op::Fdatasync { path } => fs::fdatasync(self.open_rw(path)?)?,
            Op::FsyncOther { path } => self.fsync_by_another(path)?,
            Op::FdatasyncTwice { path } => return self.fdatasync_twice(path).map(Some),
            Op::Store { path, at, len } => self.mapping(path, at + len, false)?.store(at, data),
            Op::StoreInSync { path, at, len } => {
                self.mapping(path, at + len, false)?;
                let thread = fdatasync_by_thread(self.open_rw(path)?);
                self.mapping(path, at + len, false)?.store(at, data);
                return Ok(Some(thread));
            }
            Op::Scatter { path, at, len } => {
                let mapping = self.mapping(path, at + len, false)?;
                for to in op.scattered() {
                    mapping.store(to, &data[(to - at) as usize..][..8]);
                }
            }
            Op::Load { path, at, len } => self.mapping(path, at + len, false)?.load(at, len),
            Op::MapSync { path } => {
                self.mapping(path, 0, true)?;
            }
            Op::Flush { path, at, len } => self.mapping(path, at + len, false)?.flush(at, len),
            Op::Msync { path, at, len } => self.mapping(path, at + len, false)?.sync(at, len)?,
            Op::Unmap { path } => {
                let meta = self.open_rw(path)?.metadata().map_err(errno)?;
                self.mappings.remove(&meta.ino());
            }
            Op::Sync => fs::syncfs(dir)?,
            Op::Age => age::wait().map_err(errno)?,
            Op::Evict => std::fs::write("/proc/sys/vm/drop_caches", "2").map_err(errno)?,
            Op::Freeze => {
                freeze(dir, true)?;
                freeze(dir, false)?;
            }
        }
        Ok(None)
    }

    fn fsync_by_another(&self, path: &str) -> SysResult<()> {
        let status = Command::new("/proc/self/exe")
            .arg("fsync")
            .arg(self.path.join(path))
            .status()
            .map_err(errno)?;
        match status.success() {
            true => Ok(()),
            false => Err(Errno::IO),
        }
    }

    /// Starts a thread that syncs, and syncs.
    fn fdatasync_twice(&self, path: &str) -> SysResult<JoinHandle<SysResult<()>>> {
        let file = self.open_rw(path)?;
        let thread = fdatasync_by_thread(file.try_clone().map_err(errno)?);
        fs::fdatasync(file)?;
        Ok(thread)
    }
}

/// Starts a thread that syncs `file`, and lets it get some way.
fn fdatasync_by_thread(file: File) -> JoinHandle<SysResult<()>> {
    let (begins, begun) = mpsc::channel();
    let thread = thread::spawn(move || {
        // The other end waits.
        let _ = begins.send(());
        fs::fdatasync(file)
    });
    let _ = begun.recv();
    (0..HEAD_START).for_each(|_| thread::yield_now());
    thread
}

/// Bytes that an operation writes or stores, or gives to an attribute.
fn written(op: &Op) -> u64 {
    match *op {
        Op::Write { len, .. } | Op::Store { len, .. } | Op::StoreInSync { len, .. } => len,
        Op::Setxattr { len, .. } => len as u64,
        // The last word may go past the range.
        Op::Scatter { len, .. } => len + 8,
        _ => 0,
    }
}
