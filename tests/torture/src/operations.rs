// SPDX-License-Identifier: GPL-2.0

//! One of each operation on a directory, with what it needs: what is tried with allocations that
//! fail.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{chown, symlink, FileExt, OpenOptionsExt};
use std::path::Path;

use rdax_test_sys::{Map, PAGE};
use rustix::fs::{
    fallocate, mknodat, renameat_with, setxattr, FallocateFlags, FileType, Mode, RenameFlags,
    XattrFlags, CWD,
};
use rustix::mm::MsyncFlags;

/// An operation.
pub struct Operation {
    pub name: &'static str,
    /// Makes what it needs in the directory, which is empty.
    pub prepare: fn(&Path) -> io::Result<()>,
    pub run: fn(&Path) -> io::Result<()>,
    /// It only reads, or what it changes may be there in part: stores through a mapping.
    pub changes_content: bool,
}

fn nothing(_: &Path) -> io::Result<()> {
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// A file of some blocks, with an attribute.
fn file(dir: &Path) -> io::Result<()> {
    let path = dir.join("file");
    fs::write(&path, vec![7; 50_000])?;
    setxattr(&path, "user.a", b"value", XattrFlags::empty())?;
    open(&path)?.sync_all()
}

fn two_files(dir: &Path) -> io::Result<()> {
    file(dir)?;
    fs::create_dir(dir.join("sub"))?;
    fs::write(dir.join("sub/other"), vec![9; 9000])
}

fn directory(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir.join("sub"))
}

/// A file with enough extents that its tree has nodes.
fn holes(dir: &Path) -> io::Result<()> {
    let file = File::create_new(dir.join("file"))?;
    for n in 0..40 {
        file.write_all_at(&[n + 1; 4096], u64::from(n) * 8192)?;
    }
    file.sync_all()
}

fn unwritten(dir: &Path) -> io::Result<()> {
    let file = File::create_new(dir.join("file"))?;
    Ok(fallocate(&file, FallocateFlags::empty(), 0, 400_000)?)
}

/// A directory whose next name needs another leaf: of the 4064 bytes for records, with 24 bytes for
/// the head of each, nothing is left. Names are long, for this is made again and again.
fn full_leaf(dir: &Path) -> io::Result<()> {
    for n in 0..15 {
        File::create_new(dir.join(format!("{n:0240}")))?;
    }
    File::create_new(dir.join("n".repeat(80))).map(drop)
}

fn ranged(dir: &Path, flags: FallocateFlags, at: u64, len: u64) -> io::Result<()> {
    Ok(fallocate(open(&dir.join("file"))?, flags, at, len)?)
}

fn rename(dir: &Path, from: &str, to: &str, flags: RenameFlags) -> io::Result<()> {
    Ok(renameat_with(
        CWD,
        dir.join(from),
        CWD,
        dir.join(to),
        flags,
    )?)
}

/// Stores to a shared mapping of the first page, and syncs it.
fn store(dir: &Path, len: usize) -> io::Result<()> {
    let file = open(&dir.join("file"))?;
    let map = Map::shared(&file, len)?;
    (0..len).step_by(PAGE).for_each(|at| map.store(at, 3));
    Ok(map.msync(0, len, MsyncFlags::SYNC)?)
}

/// Lists operations: a name, what it needs, what it does.
macro_rules! operations {
    ($($name:literal $prepare:ident $changes:literal |$dir:ident| $run:expr;)*) => {
        pub const ALL: &[Operation] = &[$(Operation {
            name: $name,
            prepare: $prepare,
            run: |$dir: &Path| -> io::Result<()> { $run },
            changes_content: $changes,
        }),*];
    };
}

const KEEP: FallocateFlags = FallocateFlags::KEEP_SIZE;

operations! {
    "creat" nothing false |d| File::create_new(d.join("new")).map(drop);
    "creat in a full leaf" full_leaf false |d| File::create_new(d.join("new")).map(drop);
    "mkdir" nothing false |d| fs::create_dir(d.join("new"));
    "mkfifo" nothing false |d| Ok(mknodat(CWD, d.join("new"), FileType::Fifo, Mode::RUSR, 0)?);
    "symlink, short" nothing false |d| symlink("target", d.join("new"));
    "symlink, long" nothing false |d| symlink("t".repeat(900), d.join("new"));
    "tmpfile" nothing false |d| {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_TMPFILE).open(d).map(drop)
    };
    "link" two_files false |d| fs::hard_link(d.join("file"), d.join("sub/linked"));
    "unlink" file false |d| fs::remove_file(d.join("file"));
    "unlink of many extents" holes false |d| fs::remove_file(d.join("file"));
    "rmdir" directory false |d| fs::remove_dir(d.join("sub"));
    "rename" two_files false |d| rename(d, "file", "sub/new", RenameFlags::empty());
    "rename of a directory" two_files false |d| rename(d, "sub", "new", RenameFlags::empty());
    "rename over" two_files false |d| rename(d, "file", "sub/other", RenameFlags::empty());
    "exchange" two_files false |d| rename(d, "file", "sub", RenameFlags::EXCHANGE);
    "whiteout" two_files false |d| rename(d, "file", "new", RenameFlags::WHITEOUT);
    "write into a hole" file false |d| open(&d.join("file"))?.write_at(&[5; 9000], 100_000).map(drop);
    "append" file false |d| open(&d.join("file"))?.write_at(&[5; 9000], 50_000).map(drop);
    "overwrite" file false |d| open(&d.join("file"))?.write_at(&[5; 9000], 100).map(drop);
    "write to unwritten blocks" unwritten false
        |d| open(&d.join("file"))?.write_at(&[5; 5000], 90_000).map(drop);
    "truncate to less" file false |d| open(&d.join("file"))?.set_len(10_001);
    "truncate to more" file false |d| open(&d.join("file"))?.set_len(90_001);
    "truncate of many extents" holes false |d| open(&d.join("file"))?.set_len(9000);
    "fallocate" file false |d| ranged(d, FallocateFlags::empty(), 40_000, 300_000);
    "fallocate beyond the end" file false |d| ranged(d, KEEP, 90_000, 300_000);
    "punch" holes false |d| ranged(d, FallocateFlags::PUNCH_HOLE | KEEP, 5000, 200_000);
    "zero range" file false |d| ranged(d, FallocateFlags::ZERO_RANGE, 5000, 20_000);
    "collapse range" holes false |d| ranged(d, FallocateFlags::COLLAPSE_RANGE, 8192, 40_960);
    "insert range" holes false |d| ranged(d, FallocateFlags::INSERT_RANGE, 8192, 40_960);
    "chmod" file false |d| Ok(rustix::fs::chmod(d.join("file"), Mode::RUSR)?);
    "chown" file false |d| chown(d.join("file"), Some(1000), Some(100));
    "utimes" file false |d| open(&d.join("file"))?.set_modified(std::time::UNIX_EPOCH);
    "setxattr, small" file false
        |d| Ok(setxattr(d.join("file"), "user.b", &[5; 90], XattrFlags::empty())?);
    "setxattr, large" file false
        |d| Ok(setxattr(d.join("file"), "user.b", &[5; 30_000], XattrFlags::empty())?);
    "setxattr, replace" file false
        |d| Ok(setxattr(d.join("file"), "user.a", &[5; 5000], XattrFlags::REPLACE)?);
    "removexattr" file false |d| Ok(rustix::fs::removexattr(d.join("file"), "user.a")?);
    "set attributes" file false |d| {
        let file = open(&d.join("file"))?;
        Ok(rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::NODUMP)?)
    };
    "read" file true |d| fs::read(d.join("file")).map(drop);
    "read of many extents" holes true |d| fs::read(d.join("file")).map(drop);
    "readdir" full_leaf true |d| fs::read_dir(d)?.try_for_each(|e| e.map(drop));
    "stat" two_files true |d| fs::metadata(d.join("sub/other")).map(drop);
    "store" file true |d| store(d, 4096);
    "store to many pages" file true |d| store(d, 49_152);
    "store into unwritten blocks" unwritten true |d| store(d, 65_536);
    "fsync" file false |d| open(&d.join("file"))?.sync_all();
    "syncfs" file false |d| Ok(rustix::fs::syncfs(File::open(d)?)?);
}
