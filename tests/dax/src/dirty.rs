// SPDX-License-Identifier: GPL-2.0

//! A page stays dirty until it is written back: over munmap, exit, mremap, fork, and whoever
//! stored to it.

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::{ensure, Result};
use rdax_test_sys::{freeze, End, Map, Ring, Stopped, PAGE};
use rustix::io::Errno;
use rustix::mm::Advice;
use rustix::pipe::pipe;

use crate::common::{drop_inodes, errno, filled, in_child, spawn, syncfs, wait_until};
use crate::held::{read_held, HeldDevice, DEVICE_BYTE, HELD};
use crate::hot::{PATIENCE, WARM_UP};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("dirty, munmap, fsync", munmap),
    ("dirty, exit, fsync by another process", exit),
    ("dirty, MADV_DONTNEED, fsync", dontneed),
    ("dirty, mremap, fsync", mremap),
    ("dirty before and after fork, by parent and child", fork),
    ("two processes, one page", two_processes),
    ("process_vm_writev into a page mapped for reading", vm_write),
    ("ptrace into a page that was synced", ptrace),
    ("DMA that ends after an fsync", late_dma),
    ("io_uring that ends after an fsync", late_uring),
    ("no pin that lasts", no_long_pin),
    ("dirty, close, and the inode leaves memory", evicted),
];

const ONE: [(&str, u64); 1] = [("pages_written_back", 1)];

fn munmap(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    map.store(PAGE, 9);
    drop(map);
    place.counters.expect(&ONE, || Ok(file.sync_all()?))?;
    place
        .counters
        .expect(&[("pages_written_back", 0)], || Ok(file.sync_all()?))
}

fn exit(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    in_child(|| {
        let map = Map::shared(&file, 4 * PAGE)?;
        map.store(0, 9);
        map.store(3 * PAGE, 9);
        std::mem::forget(map);
        Ok(())
    })?;
    place
        .counters
        .expect(&[("pages_written_back", 2)], || Ok(file.sync_all()?))
}

fn dontneed(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    map.store(0, 9);
    map.advise(0, PAGE, Advice::LinuxDontNeed)?;
    place
        .counters
        .expect(&[("read_faults", 1), ("write_faults", 0)], || {
            ensure!(map.load(0) == 9);
            Ok(())
        })?;
    place.counters.expect(&ONE, || Ok(file.sync_all()?))?;
    // Write-protected by the sync, though nothing said "dirty" in the page table.
    place.counters.expect(&[("mkwrite_faults", 1)], || {
        map.store(0, 8);
        Ok(())
    })
}

fn mremap(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let mut map = Map::shared(&file, 4 * PAGE)?;
    map.store(PAGE, 9);
    map.relocate()?;
    place
        .counters
        .expect(&[("mkwrite_faults", 0), ("write_faults", 0)], || {
            map.store(PAGE, 10);
            Ok(())
        })?;
    place.counters.expect(
        &[("pages_written_back", 1), ("pages_write_protected", 1)],
        || Ok(file.sync_all()?),
    )?;
    place.counters.expect(&[("mkwrite_faults", 1)], || {
        map.store(PAGE, 11);
        Ok(())
    })
}

fn fork(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    map.store(0, 1);
    in_child(|| {
        map.store(0, 2);
        map.store(PAGE, 2);
        Ok(())
    })?;
    map.store(2 * PAGE, 3);
    place
        .counters
        .expect(&[("pages_written_back", 3)], || Ok(file.sync_all()?))?;
    ensure!([map.load(0), map.load(PAGE), map.load(2 * PAGE)] == [2, 2, 3]);
    in_child(|| {
        map.store(0, 4);
        Ok(())
    })?;
    place.counters.expect(&ONE, || Ok(file.sync_all()?))
}

fn two_processes(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 1)?;
    let map = Map::shared(&file, PAGE)?;
    map.store(0, 1);
    let (go, went) = (pipe()?, pipe()?);
    let child = spawn(|| {
        let map = Map::shared(&file, PAGE)?;
        map.store(1, 1);
        signal(&went.1)?;
        wait(&go.0)?;
        map.store(1, 2);
        Ok(())
    })?;
    wait(&went.0)?;
    // Both mappings are protected, the page is written back once.
    place.counters.expect(
        &[("pages_written_back", 1), ("pages_write_protected", 2)],
        || Ok(file.sync_all()?),
    )?;
    place.counters.expect(&[("mkwrite_faults", 1)], || {
        signal(&go.1)?;
        ensure!(child.wait()? == End::Exit(0));
        Ok(())
    })?;
    place.counters.expect(&ONE, || Ok(file.sync_all()?))
}

fn signal(pipe: &OwnedFd) -> Result<()> {
    rustix::io::write(pipe, b"x")?;
    Ok(())
}

fn wait(pipe: &OwnedFd) -> Result<()> {
    rustix::io::read(pipe, &mut [0])?;
    Ok(())
}

fn vm_write(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 2)?;
    let map = Map::shared(&file, 2 * PAGE)?;
    ensure!(map.load(0) == 1);
    place.counters.expect(&[("pages_tagged", 1)], || {
        ensure!(map.write_remotely(0, b"hello")? == 5);
        Ok(())
    })?;
    place.counters.expect(&ONE, || Ok(file.sync_all()?))?;
    ensure!(map.load(0) == b'h');
    Ok(())
}

fn ptrace(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 1)?;
    let map = Map::shared(&file, PAGE)?;
    map.store(8, 5);
    let child = Stopped::after(|| {
        map.load(0);
    })?;
    place.counters.expect(&ONE, || Ok(file.sync_all()?))?;
    place
        .counters
        .expect(&[("pages_tagged", 1)], || Ok(child.poke(&map, 0, 77)?))?;
    drop(child);
    ensure!(map.load(0) == 77 && map.load(8) == 5);
    place.counters.expect(&ONE, || Ok(file.sync_all()?))
}

/// As [`late_dma`], with nobody waiting in the kernel.
fn late_uring(place: &Place) -> Result<()> {
    let device = HeldDevice::new()?;
    let file = filled(&place.fresh("a"), 1)?;
    let map = Map::shared(&file, PAGE)?;
    let ring = Ring::new()?;
    ring.begin_read(&device.file, HELD, &map, 0)?;
    device.wait_for_read()?;
    late(place, &file, || {
        device.let_go();
        let read = ring.wait()?;
        ensure!(read == PAGE as i32, "io_uring read {read}");
        Ok(())
    })?;
    ensure!(map.load(0) == DEVICE_BYTE);
    device.disconnect()
}

/// A buffer that stays pinned could never be truncated: the kernel refuses it.
fn no_long_pin(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 1)?;
    let map = Map::shared(&file, PAGE)?;
    let error = errno(Ring::new()?.register(&map, 0));
    ensure!(error == Some(Errno::OPNOTSUPP), "a long pin: {error:?}");
    Ok(file.set_len(0)?)
}

/// The page is pinned, synced, and only then written to.
fn late_dma(place: &Place) -> Result<()> {
    let device = HeldDevice::new()?;
    let file = filled(&place.fresh("a"), 1)?;
    let map = Map::shared(&file, PAGE)?;
    let block = &device.file;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_held(block, &map, 0));
        device.wait_for_read()?;
        let result = late(place, &file, || {
            device.let_go();
            reader.join().unwrap()
        });
        if result.is_err() {
            // The reader must not wait for ever.
            device.let_go();
        }
        result
    })?;
    ensure!(map.load(0) == DEVICE_BYTE);
    device.disconnect()
}

/// The one page of `file` is pinned for writing, which is done by `end`.
fn late(place: &Place, file: &File, end: impl FnOnce() -> Result<()>) -> Result<()> {
    // The pin made it writable, and so dirty. That it stays as long as it is pinned, for every
    // fsync: who is told that the read is over may be told before the kernel dirties the page.
    // (It becomes hot, and is not any more.)
    for _ in 0..=WARM_UP as usize + PATIENCE {
        place.counters.expect(&ONE, || Ok(file.sync_all()?))?;
    }
    for _ in 0..3 {
        place.counters.expect(&ONE, || syncfs(file))?;
    }
    // A freeze leaves nothing dirty behind; then it is the end of the pin that tags.
    let dir = File::open(&place.dir)?;
    place.counters.expect(&ONE, || Ok(freeze(&dir, true)?))?;
    freeze(&dir, false)?;
    let tagged = place.counters.read("pages_tagged")?;
    place.counters.expect(&[("mkwrite_faults", 0)], end)?;
    let is_tagged = || {
        let now = place.counters.read("pages_tagged");
        now.is_ok_and(|now| now == tagged + 1)
    };
    ensure!(wait_until(is_tagged), "the end of a pin did not tag");
    place.counters.expect(&ONE, || Ok(file.sync_all()?))?;
    // The pin is over, at the latest after a moment.
    let is_clean = || {
        let nothing = [("pages_written_back", 0)];
        let synced = place.counters.expect(&nothing, || Ok(file.sync_all()?));
        synced.is_ok()
    };
    ensure!(wait_until(is_clean), "the page stays dirty");
    Ok(())
}

fn evicted(place: &Place) -> Result<()> {
    let path = place.fresh("a");
    let file = filled(&path, 3)?;
    let map = Map::shared(&file, 3 * PAGE)?;
    map.store(0, 9);
    map.store(PAGE, 9);
    drop((map, file));
    drop_inodes(place, 2)
}
