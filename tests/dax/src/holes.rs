// SPDX-License-Identifier: GPL-2.0

//! Holes: read as zeroes, filled in the fault, and never shown when they are filled otherwise.

use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{ensure, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::fs::{seek, FallocateFlags, SeekFrom};
use rustix::io::Errno;

use crate::common::{
    create, dies_of_sigbus, errno, fallocate, free_blocks, in_child, read_at, write_at,
};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    (
        "a read hole is filled by write(2) of another process",
        filled_by_write,
    ),
    (
        "a read hole is filled by fallocate, and then by a store",
        filled_by_fallocate,
    ),
    (
        "a store fills a hole by one block, exactly",
        filled_by_store,
    ),
    ("a hole read and then stored to", read_then_store),
    (
        "a full device is SIGBUS, and the count of free blocks exact",
        no_space,
    ),
    ("a hole in a private mapping", private_hole),
    ("2 MiB of a hole are read by one fault", huge_hole),
    ("2 MiB of zeros are not mapped without end", many_zeros),
    (
        "preallocated blocks are written by a store, and by no load",
        unwritten,
    ),
    (
        "a preallocated range of 2 MiB is written by one fault",
        unwritten_huge,
    ),
    (
        "read(2) and write(2) with buffers mapped from the same file",
        own_buffers,
    ),
];

fn sparse(place: &Place, name: &str, pages: usize) -> Result<std::fs::File> {
    let file = create(&place.fresh(name))?;
    file.set_len((pages * PAGE) as u64)?;
    Ok(file)
}

fn filled_by_write(place: &Place) -> Result<()> {
    let file = sparse(place, "a", 16)?;
    let map = Map::shared(&file, 16 * PAGE)?;
    let private = Map::private(&file, 16 * PAGE)?;
    place
        .counters
        .expect(&[("hole_faults", 32), ("pages_tagged", 0)], || {
            for page in 0..16 {
                ensure!(map.load(page * PAGE) == 0 && private.load(page * PAGE) == 0);
            }
            Ok(())
        })?;
    in_child(|| write_at(&file, b"seen", 5 * PAGE))?;
    ensure!(
        map.load(5 * PAGE) == b's',
        "the shared mapping shows a stale zero"
    );
    ensure!(
        private.load(5 * PAGE) == b's',
        "the private mapping shows a stale zero"
    );
    ensure!(map.load(5 * PAGE + 4) == 0);
    ensure!(map.load(4 * PAGE) == 0 && map.load(6 * PAGE) == 0);
    map.store(5 * PAGE + 4, b'!');
    ensure!(read_at(&file, 6, 5 * PAGE)? == b"seen!\0");
    Ok(())
}

fn filled_by_fallocate(place: &Place) -> Result<()> {
    let file = sparse(place, "a", 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    ensure!(map.load(PAGE) == 0);
    fallocate(&file, FallocateFlags::empty(), 0, 4 * PAGE as u64)?;
    ensure!(map.load(PAGE) == 0);
    map.store(PAGE, 5);
    ensure!(read_at(&file, 1, PAGE)? == [5]);
    place
        .counters
        .expect(&[("pages_written_back", 1)], || Ok(file.sync_data()?))
}

fn filled_by_store(place: &Place) -> Result<()> {
    let file = sparse(place, "a", 1000)?;
    // The first block may bring a node of the tree along.
    let map = Map::shared(&file, 1000 * PAGE)?;
    map.store(0, 1);
    let (blocks, free) = (file.metadata()?.blocks(), free_blocks(&place.dir)?);
    map.store(700 * PAGE + 10, 7);
    ensure!(file.metadata()?.blocks() == blocks + 8, "st_blocks");
    ensure!(free_blocks(&place.dir)? == free - 1, "free blocks");
    let page = read_at(&file, PAGE, 700 * PAGE)?;
    ensure!(page[10] == 7 && page.iter().filter(|byte| **byte != 0).count() == 1);
    place
        .counters
        .expect(&[("pages_written_back", 2)], || Ok(file.sync_data()?))
}

fn read_then_store(place: &Place) -> Result<()> {
    let file = sparse(place, "a", 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    let other = Map::shared(&file, 4 * PAGE)?;
    ensure!(map.load(PAGE) == 0 && other.load(PAGE) == 0);
    place
        .counters
        .expect(&[("mkwrite_faults", 1), ("pages_tagged", 1)], || {
            map.store(PAGE, 4);
            Ok(())
        })?;
    ensure!(
        other.load(PAGE) == 4,
        "the zero page stayed in the other mapping"
    );
    ensure!(read_at(&file, 1, PAGE)? == [4]);
    Ok(())
}

/// Leaves no free block behind, in the file that is returned.
fn fill_up(path: &Path, dir: &Path) -> Result<std::fs::File> {
    let file = create(path)?;
    let mut at = 0;
    let mut step = free_blocks(dir)?.next_power_of_two();
    while step > 0 {
        match fallocate(&file, FallocateFlags::empty(), at, step * PAGE as u64) {
            Ok(()) => at += step as usize * PAGE,
            Err(Errno::NOSPC) => step /= 2,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(file)
}

fn no_space(place: &Place) -> Result<()> {
    let file = sparse(place, "a", 600)?;
    let map = Map::shared(&file, 600 * PAGE)?;
    map.store(0, 1);
    let before = free_blocks(&place.dir)?;
    let hog_path = place.fresh("hog");
    let hog = fill_up(&hog_path, &place.dir)?;
    let left = free_blocks(&place.dir)?;
    ensure!(left <= 8, "{left} blocks are left");
    // The rest goes to stores, and then one is a SIGBUS.
    let mut stored = 0;
    dies_of_sigbus("a store to a hole on a full device", || {
        for page in 1..600 {
            map.store(page * PAGE, 1);
        }
    })?;
    for page in 1..600 {
        if file_has_block(&file, page)? {
            stored += 1;
        }
    }
    ensure!(stored as u64 <= left, "{stored} blocks came out of {left}");
    ensure!(free_blocks(&place.dir)? + stored as u64 <= left);
    // What has a block works, and so does reading the hole.
    map.store(0, 2);
    ensure!(map.load(599 * PAGE) == 0);
    let error = errno(write_at(&file, b"x", 599 * PAGE));
    ensure!(error == Some(Errno::NOSPC), "write(2): {error:?}");
    drop(hog);
    std::fs::remove_file(&hog_path)?;
    map.store(599 * PAGE, 3);
    ensure!(read_at(&file, 1, 599 * PAGE)? == [3]);
    drop((map, file));
    std::fs::remove_file(place.dir.join("a"))?;
    // The file had one block, and perhaps nodes, when the count was taken.
    let after = free_blocks(&place.dir)?;
    ensure!(
        after == before + 1,
        "{after} blocks are free, {} were",
        before + 1
    );
    Ok(())
}

fn file_has_block(file: &std::fs::File, page: usize) -> Result<bool> {
    let at = (page * PAGE) as u64;
    Ok(seek(file, SeekFrom::Data(at)) == Ok(at))
}

fn huge_hole(place: &Place) -> Result<()> {
    const PAGES: usize = 1024;
    let file = sparse(place, "a", PAGES)?;
    let maps = [
        Map::shared(&file, PAGES * PAGE)?,
        Map::shared(&file, PAGES * PAGE)?,
        Map::private(&file, PAGES * PAGE)?,
    ];
    let all_zero = |first: usize| {
        let mut loads = maps
            .iter()
            .flat_map(|map| (first..PAGES).map(move |page| map.load(page * PAGE + page)));
        ensure!(loads.all(|byte| byte == 0), "not zeros");
        Ok(())
    };
    let expected = [("huge_faults", 6), ("hole_faults", 6), ("read_faults", 0)];
    place.counters.expect(&expected, || all_zero(0))?;
    let blocks = file.metadata()?.blocks();
    ensure!(blocks == 0, "a load took {blocks} blocks");
    // A store takes one block, and leaves the other 2 MiB in one piece.
    maps[0].store(3 * PAGE, 7);
    ensure!(file.metadata()?.blocks() == 8, "st_blocks");
    ensure!(maps.iter().all(|map| map.load(3 * PAGE) == 7));
    ensure!(maps.iter().all(|map| map.load(4 * PAGE) == 0));
    let none = [("huge_faults", 0), ("hole_faults", 0)];
    place.counters.expect(&none, || all_zero(512))?;
    write_at(&file, b"seen", 700 * PAGE)?;
    ensure!(maps.iter().all(|map| map.load(700 * PAGE) == b's'));
    maps[1].store(701 * PAGE, 8);
    file.sync_data()?;
    ensure!(read_at(&file, 1, 701 * PAGE)? == [8] && read_at(&file, 1, 3 * PAGE)? == [7]);
    // What is not in the file any more cannot be read.
    file.set_len(0)?;
    dies_of_sigbus("a load past the end", || {
        maps[0].load(600 * PAGE);
    })?;
    file.set_len((PAGES * PAGE) as u64)?;
    all_zero(0)
}

/// One folio of zeros is mapped for all holes. What counts its users does not wrap: from some
/// number on, holes are mapped by pages.
fn many_zeros(place: &Place) -> Result<()> {
    const HUGE: usize = 512 * PAGE;
    const MOST: u64 = 1 << 18;
    let chunks = 1024;
    let file = sparse(place, "a", chunks * 512)?;
    let map = || -> Result<Map> {
        let map = Map::shared(&file, chunks * HUGE)?;
        ensure!((0..chunks).all(|nth| map.load(nth * HUGE) == 0));
        Ok(map)
    };
    let mut maps = Vec::new();
    let before = place.counters.read("huge_faults")?;
    for _ in 0..=MOST as usize / chunks {
        maps.push(map()?);
    }
    let entries = place.counters.read("huge_faults")? - before;
    ensure!(entries < MOST && entries > MOST / 2, "{entries} entries");
    drop(maps);
    let expected = [("huge_faults", chunks as u64), ("read_faults", 0)];
    place.counters.expect(&expected, || map().map(drop))
}

fn private_hole(place: &Place) -> Result<()> {
    let file = sparse(place, "a", 4)?;
    let blocks = file.metadata()?.blocks();
    let map = Map::private(&file, 4 * PAGE)?;
    map.store(0, 1);
    ensure!(map.load(PAGE) == 0);
    map.store(PAGE, 1);
    ensure!(
        file.metadata()?.blocks() == blocks,
        "a private store took a block"
    );
    ensure!(read_at(&file, 2 * PAGE, 0)?.iter().all(|byte| *byte == 0));
    Ok(())
}

/// The bytes from `at` on that are data, by lseek(2), up to the next that are not; `None` if there
/// are none.
fn data_from(file: &std::fs::File, at: usize) -> Result<Option<std::ops::Range<usize>>> {
    let to = |from: SeekFrom| Some(seek(file, from).ok()? as usize);
    let Some(from) = to(SeekFrom::Data(at as u64)) else {
        return Ok(None);
    };
    Ok(to(SeekFrom::Hole(from as u64)).map(|to| from..to))
}

fn unwritten(place: &Place) -> Result<()> {
    // Old data where the blocks will be.
    let old = create(&place.fresh("old"))?;
    write_at(&old, &[0xee; 16 * PAGE], 0)?;
    drop(old);
    std::fs::remove_file(place.dir.join("old"))?;
    let file = create(&place.fresh("a"))?;
    fallocate(&file, FallocateFlags::empty(), 0, 16 * PAGE as u64)?;
    let map = Map::shared(&file, 16 * PAGE)?;
    ensure!((0..16 * PAGE).step_by(512).all(|at| map.load(at) == 0));
    ensure!(data_from(&file, 0)?.is_none(), "a load made data");
    let free = free_blocks(&place.dir)?;
    map.store(5 * PAGE + 9, 1);
    ensure!(data_from(&file, 0)? == Some(5 * PAGE..6 * PAGE));
    ensure!(free_blocks(&place.dir)? == free, "free blocks");
    write_at(&file, b"across", 7 * PAGE - 3)?;
    ensure!(data_from(&file, 6 * PAGE)? == Some(6 * PAGE..8 * PAGE));
    ensure!(map.load(7 * PAGE - 1) == b'r' && map.load(7 * PAGE) == b'o');
    let mut expected = vec![0; 16 * PAGE];
    expected[5 * PAGE + 9] = 1;
    expected[7 * PAGE - 3..][..6].copy_from_slice(b"across");
    ensure!(read_at(&file, 16 * PAGE, 0)? == expected);
    // Zeros again, at once and for the mapping.
    let zero = FallocateFlags::ZERO_RANGE;
    fallocate(&file, zero, PAGE + 5, 14 * PAGE as u64)?;
    ensure!(data_from(&file, 0)?.is_none(), "data is left");
    ensure!(map.load(5 * PAGE + 9) == 0 && map.load(7 * PAGE) == 0);
    map.store(5 * PAGE, 3);
    ensure!(map.load(5 * PAGE + 9) == 0 && read_at(&file, 1, 5 * PAGE)? == [3]);
    ensure!(free_blocks(&place.dir)? == free, "free blocks");
    Ok(())
}

fn unwritten_huge(place: &Place) -> Result<()> {
    let huge = 512 * PAGE;
    let file = create(&place.fresh("a"))?;
    fallocate(&file, FallocateFlags::empty(), 0, 2 * huge as u64)?;
    let map = Map::shared(&file, 2 * huge)?;
    place
        .counters
        .expect(&[("huge_faults", 1), ("mkwrite_faults", 0)], || {
            (0..huge).step_by(PAGE).for_each(|at| map.store(at, 7));
            Ok(())
        })?;
    ensure!(data_from(&file, 0)? == Some(0..huge));
    ensure!(read_at(&file, 1, huge - PAGE)? == [7] && read_at(&file, 1, huge - 1)? == [0]);
    Ok(())
}

fn own_buffers(place: &Place) -> Result<()> {
    let path = place.fresh("a");
    drop(sparse(place, "a", 64)?);
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let map = Map::shared(&file, 64 * PAGE)?;
    let write = |from: usize, to: usize, len: usize| -> Result<()> {
        let n = map.write_from(from, len, &file, to as u64)?;
        ensure!(n == len, "{n} of {len} bytes written");
        Ok(())
    };
    let read = |from: usize, to: usize, len: usize| -> Result<()> {
        let n = map.read_into(to, len, &file, from as u64)?;
        ensure!(n == len, "{n} of {len} bytes read");
        Ok(())
    };
    // A hole written with itself, and with a neighbouring hole: zeroes.
    write(PAGE, PAGE, PAGE)?;
    write(2 * PAGE, 3 * PAGE, PAGE)?;
    ensure!(map.load(PAGE) == 0 && map.load(3 * PAGE) == 0);
    // A page written with itself, shifted, and over its end into a hole.
    map.store(10 * PAGE, 42);
    write(10 * PAGE, 10 * PAGE, PAGE)?;
    write(10 * PAGE, 10 * PAGE + 100, 50)?;
    write(10 * PAGE, 11 * PAGE - 1, 2)?;
    ensure!(map.load(10 * PAGE) == 42 && map.load(10 * PAGE + 100) == 42);
    ensure!(map.load(11 * PAGE - 1) == 42 && map.load(11 * PAGE) == 0);
    // read(2) into a hole, and of a page into itself.
    read(10 * PAGE, 20 * PAGE, PAGE)?;
    ensure!(map.load(20 * PAGE) == 42 && read_at(&file, 1, 20 * PAGE)? == [42]);
    read(10 * PAGE, 10 * PAGE, PAGE)?;
    ensure!(map.load(10 * PAGE) == 42);
    // Past the end of the file, from a mapping: the file grows meanwhile.
    write(0, 64 * PAGE, 64 * PAGE)?;
    ensure!(read_at(&file, 1, 74 * PAGE)? == [42]);
    Ok(())
}
