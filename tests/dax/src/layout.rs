// SPDX-License-Identifier: GPL-2.0

//! Truncation, punching and unlinking against pages that are mapped or pinned: no block gets a new
//! owner before its last user is gone. (Pins that outlive the inode are in `pins`.)

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{ensure, Result};
use rdax_test_sys::{interrupt_every, Map, PAGE};
use rustix::fs::{ftruncate, FallocateFlags};
use rustix::io::Errno;
use rustix::mm::MsyncFlags;
use rustix::pipe::pipe;

use crate::common::{
    create, dies_of_sigbus, fallocate, filled, free_blocks, in_child, read_at, vmsplice,
    wait_until, waits_for_pin, write_at, PUNCH,
};
use crate::held::{read_held, HeldDevice};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("punch a hole under a mapping", punch),
    ("truncate a dirty mapping, and write on", truncate_dirty),
    ("zero a range under a mapping", zero_range),
    ("zeros at the edges of a range are durable", zero_edges),
    (
        "truncation waits for a pinned page, and a signal ends the wait",
        truncate_pinned,
    ),
    ("punching waits for a pinned page", punch_pinned),
    ("truncation waits for O_DIRECT into its page", truncate_dma),
    ("unlink while mapped", unlink_mapped),
];

fn punch(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 8)?;
    let map = Map::shared(&file, 8 * PAGE)?;
    let private = Map::private(&file, 8 * PAGE)?;
    (0..8).for_each(|page| map.store(page * PAGE, 100));
    private.store(3 * PAGE, 55);
    let free = free_blocks(&place.dir)?;
    fallocate(&file, PUNCH, 2 * PAGE + 10, 3 * PAGE as u64)?;
    ensure!(
        free_blocks(&place.dir)? == free + 2,
        "two whole pages were punched"
    );
    ensure!(map.load(2 * PAGE) == 100 && map.load(2 * PAGE + 10) == 0);
    ensure!(map.load(3 * PAGE) == 0 && map.load(4 * PAGE) == 0);
    ensure!(map.load(5 * PAGE) == 0 && map.load(5 * PAGE + 10) == 6);
    ensure!(private.load(3 * PAGE) == 55, "a private copy was punched");
    map.store(3 * PAGE, 7);
    ensure!(read_at(&file, 2, 3 * PAGE)? == [7, 0]);
    file.sync_all()?;
    ensure!(map.load(7 * PAGE) == 100);
    Ok(())
}

fn truncate_dirty(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 32)?;
    let map = Map::shared(&file, 32 * PAGE)?;
    for round in 0..10u8 {
        (0..32).for_each(|page| map.store(page * PAGE, round));
        file.set_len(0)?;
        dies_of_sigbus("a truncated page", || map.store(0, 1))?;
        file.set_len(32 * PAGE as u64)?;
        place
            .counters
            .expect(&[("pages_written_back", 0)], || Ok(file.sync_all()?))?;
        ensure!((0..32).all(|page| map.load(page * PAGE) == 0));
    }
    Ok(())
}

fn zero_range(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    (0..4).for_each(|page| map.store(page * PAGE, 9));
    fallocate(&file, FallocateFlags::ZERO_RANGE, PAGE, 2 * PAGE as u64)?;
    ensure!(map.load(0) == 9 && map.load(PAGE) == 0 && map.load(2 * PAGE) == 0);
    ensure!(map.load(3 * PAGE) == 9 && map.load(PAGE + 1) == 0);
    map.store(PAGE, 4);
    ensure!(read_at(&file, 1, PAGE)? == [4]);
    Ok(())
}

/// What is no whole block is made zero in place, and a fence follows.
fn zero_edges(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 8)?;
    let keep = FallocateFlags::KEEP_SIZE;
    for mode in [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE] {
        for (at, len) in [
            // Within a block, at its begin, at its end, across two.
            (PAGE + 100, 50),
            (2 * PAGE, 100),
            (3 * PAGE - 100, 100),
            (4 * PAGE - 50, 100),
        ] {
            let before = [9; 2 * PAGE];
            write_at(&file, &before, at - PAGE)?;
            // Whatever moves the times, not what is asked about.
            file.sync_all()?;
            place.counters.expect(&[("fences", 1)], || {
                Ok(fallocate(&file, mode | keep, at, len as u64)?)
            })?;
            let after = read_at(&file, 2 * PAGE, at - PAGE)?;
            let zeros = |i: &usize| (PAGE..PAGE + len).contains(i);
            ensure!((0..2 * PAGE).all(|i| after[i] == if zeros(&i) { 0 } else { 9 }));
        }
    }
    Ok(())
}

/// A file of four pages, mapped. Page 1 is dirty, begins with 33, and is pinned by a pipe.
pub struct Pinned {
    pub path: PathBuf,
    pub file: File,
    pub map: Map,
    /// The pipe: (read end, write end).
    pub pin: (OwnedFd, OwnedFd),
}

impl Pinned {
    pub fn new(place: &Place) -> Result<Self> {
        let path = place.fresh("a");
        let file = filled(&path, 4)?;
        let map = Map::shared(&file, 4 * PAGE)?;
        map.store(PAGE, 33);
        let pin = pipe()?;
        vmsplice(&pin.1, &map, PAGE)?;
        Ok(Pinned {
            path,
            file,
            map,
            pin,
        })
    }

    /// Removes the file: the pin is what is left of it.
    pub fn unlink(self) -> Result<(OwnedFd, OwnedFd)> {
        std::fs::remove_file(&self.path)?;
        Ok(self.pin)
    }
}

fn truncate_pinned(place: &Place) -> Result<()> {
    let Pinned { file, map, pin, .. } = Pinned::new(place)?;
    let free = free_blocks(&place.dir)?;
    // A signal ends the wait, and the file is as it was.
    in_child(|| {
        // Again and again, should the first come before the call.
        interrupt_every(Duration::from_millis(500))?;
        // std's would try again.
        let error = ftruncate(&file, 0);
        ensure!(error == Err(Errno::INTR), "{error:?}");
        Ok(())
    })?;
    ensure!(file.metadata()?.len() == 4 * PAGE as u64 && map.load(PAGE) == 33);
    ensure!(free_blocks(&place.dir)? == free);
    let truncate = || Ok(file.set_len(0)?);
    waits_for_pin(pin, 33, truncate, || {
        // Faults are let in while it waits.
        map.store(2 * PAGE, 34);
        Ok(())
    })?;
    ensure!(free_blocks(&place.dir)? == free + 4);
    Ok(())
}

fn punch_pinned(place: &Place) -> Result<()> {
    let Pinned { file, map, pin, .. } = Pinned::new(place)?;
    let free = free_blocks(&place.dir)?;
    // Another page of the file is nobody's.
    fallocate(&file, PUNCH, 2 * PAGE, PAGE as u64)?;
    ensure!(free_blocks(&place.dir)? == free + 1);
    let punch = || Ok(fallocate(&file, PUNCH, 0, 2 * PAGE as u64)?);
    waits_for_pin(pin, 33, punch, || {
        // The page is mapped again meanwhile, and stays so.
        ensure!(map.load(PAGE) == 33 && free_blocks(&place.dir)? == free + 1);
        Ok(())
    })?;
    ensure!(map.load(0) == 0 && map.load(PAGE) == 0);
    ensure!(free_blocks(&place.dir)? == free + 3);
    Ok(())
}

fn truncate_dma(place: &Place) -> Result<()> {
    let device = HeldDevice::new()?;
    let file = filled(&place.fresh("a"), 2)?;
    let map = Map::shared(&file, 2 * PAGE)?;
    let free = free_blocks(&place.dir)?;
    let block = &device.file;
    std::thread::scope(|scope| {
        let read = scope.spawn(|| read_held(block, &map, 0));
        device.wait_for_read()?;
        let truncate = scope.spawn(|| file.set_len(0));
        std::thread::sleep(Duration::from_millis(200));
        let waited = !truncate.is_finished() && free_blocks(&place.dir)? == free;
        device.let_go();
        read.join().unwrap()?;
        truncate.join().unwrap()?;
        ensure!(waited, "truncation did not wait");
        Ok(())
    })?;
    device.disconnect()?;
    ensure!(free_blocks(&place.dir)? == free + 2);
    Ok(())
}

/// Takes every free block and fills it with `value`.
pub fn fill_free(place: &Place, value: u8) -> Result<File> {
    let file = create(&place.fresh("fill"))?;
    let buffer = vec![value; 1 << 20];
    let mut at = 0;
    loop {
        match std::os::unix::fs::FileExt::write_at(&file, &buffer, at) {
            Ok(n) => at += n as u64,
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(file)
}

fn unlink_mapped(place: &Place) -> Result<()> {
    let path = place.fresh("a");
    let free = free_blocks(&place.dir)?;
    let file = filled(&path, 64)?;
    let map = Map::shared(&file, 64 * PAGE)?;
    map.store(0, 5);
    drop(file);
    std::fs::remove_file(&path)?;
    drop(fill_free(place, 0xee)?);
    std::fs::remove_file(place.dir.join("fill"))?;
    ensure!(
        map.load(0) == 5 && map.load(63 * PAGE) == 64,
        "a block of an open file was reused"
    );
    map.store(63 * PAGE, 6);
    map.msync(0, 64 * PAGE, MsyncFlags::SYNC)?;
    drop(map);
    ensure!(
        wait_until(|| free_blocks(&place.dir).is_ok_and(|now| now == free)),
        "the blocks did not come back"
    );
    write_at(&create(&place.fresh("a"))?, b"x", 0)
}
