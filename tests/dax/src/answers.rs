// SPDX-License-Identifier: GPL-2.0

//! Small answers of the file system: calls that may not wait, and what programs ask of a file and
//! of where it is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{ensure, Context, Result};

use crate::sys::{check, check_len, create, errno, fallocate, filled, read_at, write_at, PAGE};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("reads that may not wait", reads),
    (
        "writes that may not wait: overwrites, and nothing else",
        writes,
    ),
    ("the alignment of direct I/O, and any alignment", alignment),
    ("the generation of an inode", generation),
    ("the name in sysfs", sysfs_name),
    ("where a block is", block),
    ("swap space is refused", swap),
];

const FS_IOC_GETVERSION: u64 = 0x8008_7601;
const FS_IOC_GETFSSYSFSPATH: u64 = 0x8081_1501;
const FIBMAP: u64 = 1;

/// preadv2(2) or pwritev2(2) of `data` at byte `at`, which must not wait.
fn at_once(file: &File, write: bool, data: &mut [u8], at: usize) -> Result<usize> {
    let iov = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    let (fd, at, flags) = (file.as_raw_fd(), at as i64, libc::RWF_NOWAIT);
    // SAFETY: the vector describes `data`, which lives through the call.
    let done = unsafe {
        match write {
            true => libc::pwritev2(fd, &iov, 1, at, flags),
            false => libc::preadv2(fd, &iov, 1, at, flags),
        }
    };
    Ok(check_len(done)?)
}

fn reads(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 3)?;
    let mut data = [0; 2 * PAGE];
    ensure!(at_once(&file, false, &mut data, PAGE)? == 2 * PAGE && data[PAGE] == 3);
    ensure!(at_once(&file, false, &mut data[..100], PAGE - 50)? == 100);
    ensure!(data[49] == 1 && data[50] == 2);
    ensure!(at_once(&file, false, &mut data, 3 * PAGE)? == 0);
    ensure!(at_once(&file, false, &mut data, 3 * PAGE - 10)? == 10);
    Ok(())
}

fn writes(place: &Place) -> Result<()> {
    let path = place.fresh("a");
    let file = filled(&path, 3)?;
    fallocate(&file, libc::FALLOC_FL_KEEP_SIZE, 4 * PAGE, PAGE as u64)?;
    let direct = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)?;
    let waits = |file: &File, at, len| {
        let done = at_once(file, true, &mut vec![8; len], at);
        ensure!(errno(done) == Some(libc::EAGAIN), "{len} bytes at {at}");
        Ok(())
    };
    for file in [&file, &direct] {
        ensure!(at_once(file, true, &mut [9; PAGE + 10], PAGE - 5)? == PAGE + 10);
        ensure!(read_at(file, PAGE + 10, PAGE - 5)? == [9; PAGE + 10]);
        // An append, a write across the end.
        waits(file, 3 * PAGE, 1)?;
        waits(file, 3 * PAGE - 1, 2)?;
        ensure!(file.metadata()?.len() == 3 * PAGE as u64);
    }
    file.set_len(6 * PAGE as u64)?;
    // A hole, unwritten blocks, data and then a hole.
    waits(&file, 5 * PAGE, 10)?;
    waits(&file, 4 * PAGE, 10)?;
    waits(&file, 3 * PAGE - 5, 10)?;
    ensure!(
        read_at(&file, 5, 3 * PAGE - 5)? == [3; 5],
        "it was written in part"
    );
    Ok(())
}

fn alignment(place: &Place) -> Result<()> {
    let path = place.fresh("a");
    let file = filled(&path, 2)?;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: zero is a valid statx, filled by the call.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let mask = libc::STATX_DIOALIGN;
    // SAFETY: the name is a C string.
    check(unsafe { libc::statx(libc::AT_FDCWD, name.as_ptr(), 0, mask, &mut stat) })?;
    ensure!(stat.stx_mask & mask != 0, "not answered");
    let (memory, offset) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
    ensure!(
        (memory, offset) == (512, 512),
        "memory {memory}, offset {offset}"
    );
    drop(file);
    let direct = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)?;
    let data = [5; 101];
    write_at(&direct, &data[1..], PAGE - 33)?;
    ensure!(read_at(&direct, 100, PAGE - 33)? == data[1..]);
    Ok(())
}

fn generation(place: &Place) -> Result<()> {
    let of = |file: &File| -> Result<i32> {
        let mut generation = [0i32; 2];
        // SAFETY: the buffer has room for a long.
        check(unsafe {
            libc::ioctl(file.as_raw_fd(), FS_IOC_GETVERSION, generation.as_mut_ptr())
        })?;
        Ok(generation[0])
    };
    let path = place.fresh("a");
    let first = create(&path)?;
    ensure!(of(&first)? != 0 && of(&File::open(&path)?)? == of(&first)?);
    ensure!(of(&File::open(&place.dir)?)? != 0, "of a directory");
    Ok(())
}

fn sysfs_name(place: &Place) -> Result<()> {
    let mut path = [0u8; 129];
    let dir = File::open(&place.dir)?;
    // SAFETY: the buffer is a `struct fs_sysfs_path`: a length and 128 bytes.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), FS_IOC_GETFSSYSFSPATH, path.as_mut_ptr()) })?;
    let name = std::str::from_utf8(&path[1..][..usize::from(path[0])])?;
    let shown = std::path::Path::new("/sys/fs").join(name);
    ensure!(
        shown.join("fences").exists(),
        "{} is not it",
        shown.display()
    );
    Ok(())
}

fn block(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 2)?;
    file.set_len(4 * PAGE as u64)?;
    let of = |block: i32| -> io::Result<i32> {
        let mut at = block;
        // SAFETY: the call changes the number.
        check(unsafe { libc::ioctl(file.as_raw_fd(), FIBMAP, &mut at) })?;
        Ok(at)
    };
    ensure!(of(0)? > 0 && of(1)? == of(0)? + 1, "data");
    ensure!(of(2)? == 0 && of(100)? == 0, "a hole, and past the end");
    // It is where FIBMAP says.
    let device =
        std::path::Path::new("/dev").join(place.counters.device().file_name().context("device")?);
    let media = read_at(&File::open(device)?, 1, of(1)? as usize * PAGE)?;
    ensure!(media == [2], "something else is there");
    Ok(())
}

fn swap(place: &Place) -> Result<()> {
    let path = place.fresh("swap");
    let file = create(&path)?;
    let mut header = vec![0; PAGE];
    header[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
    // Version, last page.
    header[1024..1032].copy_from_slice(&[1, 0, 0, 0, 255, 0, 0, 0]);
    write_at(&file, &header, 0)?;
    write_at(&file, &vec![0; 255 * PAGE], PAGE)?;
    file.sync_all()?;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the name is a C string.
    let refused = check(unsafe { libc::swapon(name.as_ptr(), 0) });
    let error = refused.err().and_then(|error| error.raw_os_error());
    ensure!(
        matches!(error, Some(libc::EINVAL | libc::EOPNOTSUPP)),
        "{error:?}"
    );
    Ok(())
}
