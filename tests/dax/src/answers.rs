// SPDX-License-Identifier: GPL-2.0

//! Small answers of the file system: calls that may not wait, and what programs ask of a file and
//! of where it is.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};

use anyhow::{ensure, Context, Result};
use rdax_test_sys::{block_of, generation, swapon, sysfs_path, PAGE};
use rustix::fs::{statx, AtFlags, FallocateFlags, OFlags, StatxFlags, CWD};
use rustix::io::{preadv2, pwritev2, Errno, ReadWriteFlags};

use crate::common::{create, errno, fallocate, filled, open, read_at, write_at};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("reads that may not wait", reads),
    (
        "writes that may not wait: overwrites, and nothing else",
        writes,
    ),
    ("the alignment of direct I/O, and any alignment", alignment),
    ("the generation of an inode", generations),
    ("the name in sysfs", sysfs_name),
    ("where a block is", block),
    ("swap space is refused", swap),
];

/// preadv2(2) or pwritev2(2) of `data` at byte `at`, which must not wait.
fn at_once(file: &File, write: bool, data: &mut [u8], at: usize) -> Result<usize> {
    let (at, flags) = (at as u64, ReadWriteFlags::NOWAIT);
    Ok(match write {
        true => pwritev2(file, &[IoSlice::new(data)], at, flags)?,
        false => preadv2(file, &mut [IoSliceMut::new(data)], at, flags)?,
    })
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
    fallocate(&file, FallocateFlags::KEEP_SIZE, 4 * PAGE, PAGE as u64)?;
    let direct = open(&path, OFlags::RDWR | OFlags::DIRECT)?;
    let waits = |file: &File, at, len| {
        let done = at_once(file, true, &mut vec![8; len], at);
        ensure!(errno(done) == Some(Errno::AGAIN), "{len} bytes at {at}");
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
    let stat = statx(CWD, &path, AtFlags::empty(), StatxFlags::DIOALIGN)?;
    let answered = StatxFlags::from_bits_retain(stat.stx_mask);
    ensure!(answered.contains(StatxFlags::DIOALIGN), "not answered");
    let (memory, offset) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
    ensure!(
        (memory, offset) == (512, 512),
        "memory {memory}, offset {offset}"
    );
    drop(file);
    let direct = open(&path, OFlags::RDWR | OFlags::DIRECT)?;
    let data = [5; 101];
    write_at(&direct, &data[1..], PAGE - 33)?;
    ensure!(read_at(&direct, 100, PAGE - 33)? == data[1..]);
    Ok(())
}

fn generations(place: &Place) -> Result<()> {
    let path = place.fresh("a");
    let first = create(&path)?;
    let number = generation(&first)?;
    ensure!(number != 0 && generation(&File::open(&path)?)? == number);
    ensure!(generation(&File::open(&place.dir)?)? != 0, "of a directory");
    Ok(())
}

fn sysfs_name(place: &Place) -> Result<()> {
    let name = sysfs_path(&File::open(&place.dir)?)?;
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
    let of = |block| block_of(&file, block);
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
    let error = errno(swapon(&path));
    ensure!(
        matches!(error, Some(Errno::INVAL | Errno::OPNOTSUPP)),
        "{error:?}"
    );
    Ok(())
}
