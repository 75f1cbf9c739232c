// SPDX-License-Identifier: GPL-2.0

//! The operations.

use std::fmt;

/// A path from the root of the file system, without a slash before it. Names that begin with an
/// upper-case letter are directories'.
pub type Path = &'static str;

/// How a name moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rename {
    /// To a name that is free.
    Plain,
    /// To a name that stands for something, which goes.
    Over,
    /// `RENAME_NOREPLACE`, to a name that is free.
    NoReplace,
    /// `RENAME_EXCHANGE`.
    Exchange,
}

/// One system call, or a few stores to a mapping.
///
/// Offsets and lengths are in bytes. Data that operation `n` of a workload writes or stores is
/// [`fill`](crate::fill)`(n, ..)`. A file is mapped, shared and as a whole, by the first store to
/// it, and stays so until it is unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `open(O_CREAT | O_EXCL, 0644)`.
    Creat { path: Path },
    /// `mkdir`, 0755.
    Mkdir { path: Path },
    /// `mknod(S_IFIFO | 0600)`.
    Mkfifo { path: Path },
    /// `mknod(S_IFCHR | 0600, 1:3)`.
    Mknod { path: Path },
    /// `symlink` to [`Op::target`] of `len` bytes.
    Symlink { path: Path, len: usize },
    /// `link`.
    Link { from: Path, to: Path },
    /// `unlink`.
    Unlink { path: Path },
    /// `rmdir`.
    Rmdir { path: Path },
    /// `renameat2`.
    Rename { from: Path, to: Path, how: Rename },
    /// `pwrite`, in one call.
    Write { path: Path, at: u64, len: u64 },
    /// `truncate`.
    Truncate { path: Path, size: u64 },
    /// `fallocate`, with `FALLOC_FL_KEEP_SIZE` if `keep_size`.
    Fallocate {
        path: Path,
        at: u64,
        len: u64,
        keep_size: bool,
    },
    /// `fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)`.
    Punch { path: Path, at: u64, len: u64 },
    /// `fallocate(FALLOC_FL_ZERO_RANGE)`.
    Zero { path: Path, at: u64, len: u64 },
    /// `fallocate(FALLOC_FL_WRITE_ZEROES)`.
    WriteZeroes { path: Path, at: u64, len: u64 },
    /// `chmod`.
    Chmod { path: Path, mode: u16 },
    /// `utimensat`: sets both times, in seconds.
    Utimes { path: Path, mtime: i64 },
    /// `setxattr` with `len` bytes, whether the attribute is there or not.
    Setxattr {
        path: Path,
        name: &'static str,
        len: usize,
    },
    /// `removexattr`.
    Removexattr { path: Path, name: &'static str },
    /// `fsync`.
    Fsync { path: Path },
    /// `fdatasync`.
    Fdatasync { path: Path },
    /// `fsync` by another process, which opens the file for itself.
    FsyncOther { path: Path },
    /// `fdatasync` while one by another thread is under way; the first to return ends the
    /// operation. (After `fsync` the times would be committed, with fences that complete the
    /// other's, too.)
    FdatasyncTwice { path: Path },
    /// Stores `len` bytes through a mapping, by 8 bytes each in the order of their addresses; both
    /// numbers are multiples of 8. They may go past the end of the file, in its last page.
    Store { path: Path, at: u64, len: u64 },
    /// The same while `fdatasync` by another thread is under way.
    StoreInSync { path: Path, at: u64, len: u64 },
    /// Stores 8 bytes through a mapping at `at`, a multiple of 8, and every 4096 bytes after it, as
    /// long as that begins in the range.
    Scatter { path: Path, at: u64, len: u64 },
    /// Loads a byte of each page through a mapping.
    Load { path: Path, at: u64, len: u64 },
    /// Maps the file with `MAP_SYNC`.
    MapSync { path: Path },
    /// `clwb` of the lines of the range by the program, and `sfence`. Its mapping is `MAP_SYNC`.
    Flush { path: Path, at: u64, len: u64 },
    /// `msync(MS_SYNC)` of the pages that the range touches.
    Msync { path: Path, at: u64, len: u64 },
    /// `munmap`.
    Unmap { path: Path },
    /// `syncfs`.
    Sync,
    /// Waits until the file system has written back by age what was stored.
    Age,
    /// `FIFREEZE` and `FITHAW`.
    Freeze,
    /// Drops the inodes that nobody uses from the kernel's memory.
    Evict,
}

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Largest symlink.
const TARGET_MAX: usize = 4095;

impl Op {
    /// The target of a symlink of `len` bytes.
    pub fn target(len: usize) -> String {
        "elsewhere/".chars().cycle().take(len).collect()
    }

    /// Whether it concerns a mapping, or what waits for a sync.
    pub fn is_mapped(&self) -> bool {
        matches!(
            self,
            Op::Store { .. }
                | Op::StoreInSync { .. }
                | Op::Scatter { .. }
                | Op::Load { .. }
                | Op::MapSync { .. }
                | Op::Flush { .. }
                | Op::Msync { .. }
                | Op::Unmap { .. }
                | Op::FsyncOther { .. }
                | Op::FdatasyncTwice { .. }
                | Op::Sync
                | Op::Age
                | Op::Freeze
                | Op::Evict
        )
    }

    /// Where [`Op::Scatter`] stores, if it is one.
    pub fn scattered(&self) -> impl Iterator<Item = u64> {
        let (start, end) = match *self {
            Op::Scatter { at, len, .. } => (at, at + len),
            _ => (0, 0),
        };
        (start..end).step_by(PAGE as usize)
    }

    /// The paths it names.
    pub fn paths(&self) -> impl Iterator<Item = Path> {
        let (first, second) = match *self {
            Op::Link { from, to } | Op::Rename { from, to, .. } => (Some(from), Some(to)),
            Op::Creat { path }
            | Op::Mkdir { path }
            | Op::Mkfifo { path }
            | Op::Mknod { path }
            | Op::Symlink { path, .. }
            | Op::Unlink { path }
            | Op::Rmdir { path }
            | Op::Write { path, .. }
            | Op::Truncate { path, .. }
            | Op::Fallocate { path, .. }
            | Op::Punch { path, .. }
            | Op::Zero { path, .. }
            | Op::WriteZeroes { path, .. }
            | Op::Chmod { path, .. }
            | Op::Utimes { path, .. }
            | Op::Setxattr { path, .. }
            | Op::Removexattr { path, .. }
            | Op::Fsync { path }
            | Op::Fdatasync { path }
            | Op::FsyncOther { path }
            | Op::FdatasyncTwice { path }
            | Op::Store { path, .. }
            | Op::StoreInSync { path, .. }
            | Op::Scatter { path, .. }
            | Op::Load { path, .. }
            | Op::MapSync { path }
            | Op::Flush { path, .. }
            | Op::Msync { path, .. }
            | Op::Unmap { path } => (Some(path), None),
            Op::Sync | Op::Age | Op::Freeze | Op::Evict => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// Whether the numbers in it make sense.
    pub(crate) fn is_sound(&self) -> bool {
        match *self {
            Op::Symlink { len, .. } => (1..=TARGET_MAX).contains(&len),
            Op::Store { at, len, .. } | Op::StoreInSync { at, len, .. } => {
                at % 8 == 0 && len % 8 == 0 && len > 0
            }
            Op::Scatter { at, len, .. } => at % 8 == 0 && len > 0,
            Op::Write { len, .. }
            | Op::Fallocate { len, .. }
            | Op::Punch { len, .. }
            | Op::Zero { len, .. }
            | Op::WriteZeroes { len, .. }
            | Op::Load { len, .. }
            | Op::Flush { len, .. }
            | Op::Msync { len, .. } => len > 0,
            _ => true,
        }
    }
}

/// Compact: `write A/foo 100+4096`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Op::Creat { path } => write!(f, "creat {path}"),
            Op::Mkdir { path } => write!(f, "mkdir {path}"),
            Op::Mkfifo { path } => write!(f, "mkfifo {path}"),
            Op::Mknod { path } => write!(f, "mknod {path}"),
            Op::Symlink { path, len } => write!(f, "symlink {path} {len}"),
            Op::Link { from, to } => write!(f, "link {from} {to}"),
            Op::Unlink { path } => write!(f, "unlink {path}"),
            Op::Rmdir { path } => write!(f, "rmdir {path}"),
            Op::Rename { from, to, how } => match how {
                Rename::Plain => write!(f, "rename {from} {to}"),
                Rename::Over => write!(f, "replace {from} {to}"),
                Rename::NoReplace => write!(f, "noreplace {from} {to}"),
                Rename::Exchange => write!(f, "exchange {from} {to}"),
            },
            Op::Write { path, at, len } => write!(f, "write {path} {at}+{len}"),
            Op::Truncate { path, size } => write!(f, "truncate {path} {size}"),
            Op::Fallocate {
                path,
                at,
                len,
                keep_size: false,
            } => write!(f, "fallocate {path} {at}+{len}"),
            Op::Fallocate { path, at, len, .. } => write!(f, "allocate {path} {at}+{len}"),
            Op::Punch { path, at, len } => write!(f, "punch {path} {at}+{len}"),
            Op::Zero { path, at, len } => write!(f, "zero {path} {at}+{len}"),
            Op::WriteZeroes { path, at, len } => write!(f, "zeroes {path} {at}+{len}"),
            Op::Chmod { path, mode } => write!(f, "chmod {path} {mode:o}"),
            Op::Utimes { path, mtime } => write!(f, "utimes {path} {mtime}"),
            Op::Setxattr { path, name, len } => write!(f, "setxattr {path} {name} {len}"),
            Op::Removexattr { path, name } => write!(f, "removexattr {path} {name}"),
            Op::Fsync { path } => write!(f, "fsync {path}"),
            Op::Fdatasync { path } => write!(f, "fdatasync {path}"),
            Op::FsyncOther { path } => write!(f, "fsync-other {path}"),
            Op::FdatasyncTwice { path } => write!(f, "fdatasync-twice {path}"),
            Op::Store { path, at, len } => write!(f, "store {path} {at}+{len}"),
            Op::StoreInSync { path, at, len } => write!(f, "store-in-sync {path} {at}+{len}"),
            Op::Scatter { path, at, len } => write!(f, "scatter {path} {at}+{len}"),
            Op::Load { path, at, len } => write!(f, "load {path} {at}+{len}"),
            Op::MapSync { path } => write!(f, "map-sync {path}"),
            Op::Flush { path, at, len } => write!(f, "flush {path} {at}+{len}"),
            Op::Msync { path, at, len } => write!(f, "msync {path} {at}+{len}"),
            Op::Unmap { path } => write!(f, "munmap {path}"),
            Op::Sync => f.write_str("sync"),
            Op::Age => f.write_str("age"),
            Op::Freeze => f.write_str("freeze"),
            Op::Evict => f.write_str("evict"),
        }
    }
}
