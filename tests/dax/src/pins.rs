// SPDX-License-Identifier: GPL-2.0

//! Pages that are pinned when their inode leaves memory: nobody waits for them, they stay what they
//! are, and when the last pin is gone, so is everything that it held up.

use std::fs::File;
use std::time::Duration;

use anyhow::{ensure, Result};
use rdax_test_sys::{freeze, Handle, Map, PAGE};
use rustix::io::Errno;
use rustix::pipe::pipe;

use crate::common::{
    drop_inodes, errno, filled, free_blocks, read_at, read_page, vmsplice, wait_until,
    waits_for_pin,
};
use crate::freeze::remount;
use crate::held::{read_held, HeldDevice, DEVICE_BYTE};
use crate::huge::{self, HUGE};
use crate::layout::{fill_free, Pinned};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    (
        "a pinned page of an unlinked file keeps its block",
        unlinked,
    ),
    (
        "the blocks of an unlinked file come back with its last pin",
        comes_back,
    ),
    ("those of 2 MiB", comes_back_huge),
    ("not while the file system is frozen", frozen),
    ("not while it is read-only, nor because it was", read_only),
    ("a handle of an unlinked file is stale", stale_handle),
    ("a pinned page of a file that leaves memory", evicted),
    (
        "a pinned page of 2 MiB of a file that leaves memory",
        evicted_huge,
    ),
    ("DMA that ends when its file has left memory", late_dma),
];

/// By then the kernel has looked twice whether a pin is gone.
const LATE: Duration = Duration::from_millis(2500);

/// Waits for the blocks of a file to be free.
fn come_back(place: &Place, free: u64) -> Result<()> {
    let back = || free_blocks(&place.dir).is_ok_and(|now| now == free);
    ensure!(
        wait_until(back),
        "{} blocks are free instead of {free}",
        free_blocks(&place.dir)?
    );
    Ok(())
}

fn unlinked(place: &Place) -> Result<()> {
    let free = free_blocks(&place.dir)?;
    // This does not wait for the pin, or the test would hang.
    let pin = Pinned::new(place)?.unlink()?;
    drop(fill_free(place, 0xee)?);
    std::fs::remove_file(place.dir.join("fill"))?;
    let page = read_page(&pin.0)?;
    ensure!(
        page[0] == 33 && page[1] == 2,
        "the pinned block was given to another file"
    );
    drop(pin);
    come_back(place, free)
}

fn comes_back(place: &Place) -> Result<()> {
    let before = free_blocks(&place.dir)?;
    let path = place.fresh("a");
    let file = filled(&path, 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    let (one, two) = (pipe()?, pipe()?);
    vmsplice(&one.1, &map, PAGE)?;
    vmsplice(&two.1, &map, 3 * PAGE)?;
    let free = free_blocks(&place.dir)?;
    std::fs::remove_file(&path)?;
    drop((map, file));
    drop(one);
    std::thread::sleep(LATE);
    ensure!(
        free_blocks(&place.dir)? == free,
        "freed with a page of it pinned"
    );
    ensure!(read_page(&two.0)?[0] == 4);
    drop(two);
    come_back(place, before)
}

fn comes_back_huge(place: &Place) -> Result<()> {
    let before = free_blocks(&place.dir)?;
    let file = huge::file(place, 2)?;
    let map = Map::shared(&file, 2 * HUGE)?;
    map.store(HUGE + PAGE, 33);
    let (reader, writer) = pipe()?;
    vmsplice(&writer, &map, HUGE + PAGE)?;
    std::fs::remove_file(place.dir.join("huge"))?;
    drop((map, file));
    drop(fill_free(place, 0xee)?);
    std::fs::remove_file(place.dir.join("fill"))?;
    ensure!(read_page(&reader)?[0] == 33);
    drop((reader, writer));
    come_back(place, before)?;
    // The pages are ordinary ones again.
    let file = huge::file(place, 2)?;
    let map = Map::shared(&file, 2 * HUGE)?;
    place
        .counters
        .expect(&[("huge_faults", 2), ("write_faults", 0)], || {
            map.store(0, 1);
            map.store(HUGE, 1);
            Ok(())
        })
}

fn frozen(place: &Place) -> Result<()> {
    let before = free_blocks(&place.dir)?;
    let dir = File::open(&place.dir)?;
    let pinned = Pinned::new(place)?;
    let free = free_blocks(&place.dir)?;
    let pin = pinned.unlink()?;
    freeze(&dir, true)?;
    drop(pin);
    std::thread::sleep(LATE);
    let now = free_blocks(&place.dir);
    freeze(&dir, false)?;
    ensure!(now? == free, "freed while frozen");
    come_back(place, before)
}

fn read_only(place: &Place) -> Result<()> {
    let before = free_blocks(&place.dir)?;
    let pinned = Pinned::new(place)?;
    let second = pipe()?;
    vmsplice(&second.1, &pinned.map, 2 * PAGE)?;
    let free = free_blocks(&place.dir)?;
    let pin = pinned.unlink()?;
    remount(place, true)?;
    // What a mount does first when it becomes writable must not take the block either.
    remount(place, false)?;
    drop(fill_free(place, 0xee)?);
    std::fs::remove_file(place.dir.join("fill"))?;
    ensure!(
        read_page(&pin.0)?[0] == 33,
        "the pinned block was given to another file"
    );
    ensure!(free_blocks(&place.dir)? == free);
    remount(place, true)?;
    drop((pin, second));
    std::thread::sleep(LATE);
    let now = free_blocks(&place.dir);
    remount(place, false)?;
    ensure!(now? == free, "freed while read-only");
    come_back(place, before)
}

fn stale_handle(place: &Place) -> Result<()> {
    let before = free_blocks(&place.dir)?;
    let dir = File::open(&place.dir)?;
    let pinned = Pinned::new(place)?;
    let mut handle = Handle::of(&pinned.path)?;
    let mut open = || errno(handle.open(&dir));
    let pin = pinned.unlink()?;
    let error = open();
    ensure!(
        error == Some(Errno::STALE),
        "{error:?} instead of ESTALE while it is pinned"
    );
    drop(pin);
    come_back(place, before)?;
    let error = open();
    ensure!(error == Some(Errno::STALE), "{error:?} instead of ESTALE");
    Ok(())
}

fn evicted(place: &Place) -> Result<()> {
    let Pinned {
        path,
        file,
        map,
        pin,
    } = Pinned::new(place)?;
    drop((map, file));
    drop_inodes(place, 1)?;
    // The file again: its page is mapped while the old pin lasts, and truncation waits for it.
    let file = File::options().read(true).write(true).open(&path)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    ensure!(map.load(PAGE) == 33);
    map.store(PAGE, 44);
    waits_for_pin(pin, 44, || Ok(file.set_len(0)?), || Ok(()))
}

fn evicted_huge(place: &Place) -> Result<()> {
    let path = place.dir.join("huge");
    let first = huge::file(place, 1)?;
    let map = Map::shared(&first, HUGE)?;
    map.store(PAGE, 33);
    let (reader, writer) = pipe()?;
    vmsplice(&writer, &map, PAGE)?;
    drop((map, first));
    drop_inodes(place, 512)?;
    let file = File::options().read(true).write(true).open(&path)?;
    // Nothing was mapped since: truncation has to know of the pin all the same.
    waits_for_pin((reader, writer), 33, || Ok(file.set_len(0)?), || Ok(()))
}

fn late_dma(place: &Place) -> Result<()> {
    let device = HeldDevice::new()?;
    let path = place.fresh("a");
    let file = filled(&path, 1)?;
    let map = Map::shared(&file, PAGE)?;
    let block = &device.file;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_held(block, &map, 0));
        device.wait_for_read()?;
        map.unmap(0, PAGE)?;
        drop(file);
        let result = drop_inodes(place, 1);
        // Nobody has the file open, and its inode is not in memory: what is written to it is
        // durable after a sync all the same.
        let end = || {
            device.let_go();
            reader.join().unwrap()?;
            rustix::fs::sync();
            Ok(())
        };
        let expected = [("pages_written_back", 1), ("fences", 1)];
        result.and(place.counters.expect(&expected, end))
    })?;
    device.disconnect()?;
    let file = File::open(&path)?;
    ensure!(read_at(&file, 1, 0)? == [DEVICE_BYTE]);
    Ok(())
}
