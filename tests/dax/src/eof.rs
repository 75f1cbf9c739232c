// SPDX-License-Identifier: GPL-2.0

//! The end of the file: SIGBUS past the last page, and no byte past the end ever becomes content.

use std::fs::File;

use anyhow::{ensure, Context, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::fs::FallocateFlags;

use crate::common::{create, dies_of_sigbus, fallocate, filled, read_at, write_at, PUNCH};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    (
        "SIGBUS past the last page, in every kind of access",
        past_the_end,
    ),
    (
        "bytes stored past the end are zero when truncate grows the file",
        grown,
    ),
    (
        "bytes stored past the end are zero when write(2) grows the file",
        written,
    ),
    (
        "bytes stored past the end are zero when fallocate grows the file",
        allocated,
    ),
    ("shrunk and grown: zeroes, under a mapping", shrunk),
    ("an empty file", empty),
    ("appends, and stores past the end between them", appends),
    (
        "bytes stored past the end are past no later end, whatever moves it",
        moved,
    ),
];

fn past_the_end(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 2)?;
    file.set_len(PAGE as u64 + 100)?;
    let shared = Map::shared(&file, 4 * PAGE)?;
    let private = Map::private(&file, 4 * PAGE)?;
    ensure!(
        shared.load(2 * PAGE - 1) == 0,
        "the rest of the last page is not zero"
    );
    shared.store(2 * PAGE - 1, 1);
    dies_of_sigbus("shared load", || {
        shared.load(2 * PAGE);
    })?;
    dies_of_sigbus("shared store", || shared.store(3 * PAGE, 1))?;
    dies_of_sigbus("private load", || {
        private.load(2 * PAGE);
    })?;
    dies_of_sigbus("private store", || private.store(2 * PAGE, 1))?;
    ensure!(file.metadata()?.len() == PAGE as u64 + 100);
    Ok(())
}

fn grown(place: &Place) -> Result<()> {
    let file = create(&place.fresh("a"))?;
    write_at(&file, b"12345", 0)?;
    let map = Map::shared(&file, PAGE)?;
    map.store(5, 77);
    map.store(PAGE - 1, 77);
    file.sync_all()?;
    map.store(6, 77);
    file.set_len(3 * PAGE as u64)?;
    let data = read_at(&file, 3 * PAGE, 0)?;
    ensure!(&data[..5] == b"12345");
    ensure!(
        data[5..].iter().all(|byte| *byte == 0),
        "bytes past the old end show"
    );
    Ok(())
}

fn written(place: &Place) -> Result<()> {
    let file = create(&place.fresh("a"))?;
    write_at(&file, b"12345", 0)?;
    let map = Map::shared(&file, PAGE)?;
    map.store(5, 77);
    map.store(100, 77);
    map.store(PAGE - 1, 77);
    write_at(&file, b"x", 50)?;
    let data = read_at(&file, 51, 0)?;
    ensure!(
        data[5..50].iter().all(|byte| *byte == 0),
        "bytes past the old end show"
    );
    map.store(51, 77);
    write_at(&file, b"y", 2 * PAGE)?;
    let data = read_at(&file, 2 * PAGE, 0)?;
    ensure!(
        data[51..].iter().all(|byte| *byte == 0),
        "bytes past the second end show"
    );
    Ok(())
}

fn allocated(place: &Place) -> Result<()> {
    for from in [0, 2 * PAGE] {
        let file = create(&place.fresh("a"))?;
        write_at(&file, b"12345", 0)?;
        // Blocks past the end are there already, with stores in the first.
        fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 4 * PAGE as u64)?;
        let map = Map::shared(&file, PAGE)?;
        map.store(5, 77);
        map.store(PAGE - 1, 77);
        fallocate(
            &file,
            FallocateFlags::empty(),
            from,
            (3 * PAGE - from) as u64,
        )?;
        let data = read_at(&file, 3 * PAGE, 0)?;
        ensure!(&data[..5] == b"12345");
        ensure!(
            data[5..].iter().all(|byte| *byte == 0),
            "bytes past the old end show, allocated from {from} on"
        );
    }
    Ok(())
}

fn shrunk(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    (0..4).for_each(|page| map.store(page * PAGE + 200, 9));
    file.set_len(100)?;
    ensure!(map.load(0) == 1 && map.load(200) == 0 && map.load(99) == 1 && map.load(100) == 0);
    dies_of_sigbus("a truncated page", || {
        map.load(PAGE);
    })?;
    file.set_len(4 * PAGE as u64)?;
    for at in [100, 200, PAGE, PAGE + 200, 3 * PAGE, 4 * PAGE - 1] {
        ensure!(map.load(at) == 0, "byte {at} came back");
    }
    map.store(PAGE, 3);
    ensure!(read_at(&file, 1, PAGE)? == [3]);
    Ok(())
}

fn empty(place: &Place) -> Result<()> {
    let file = create(&place.fresh("a"))?;
    let map = Map::shared(&file, PAGE)?;
    dies_of_sigbus("a load from an empty file", || {
        map.load(0);
    })?;
    file.set_len(1)?;
    map.store(0, 1);
    ensure!(read_at(&file, 1, 0)? == [1]);
    Ok(())
}

/// A mapping that is writable already stores past the end without a fault, after each append.
fn appends(place: &Place) -> Result<()> {
    let file = create(&place.fresh("a"))?;
    write_at(&file, &[1; 1000], 0)?;
    let map = Map::shared(&file, PAGE)?;
    for round in 0..5 {
        let end = 1000 + 100 * round;
        map.store(end + 50, 77);
        map.store(end + 800, 77);
        write_at(&file, &[1; 100], end)?;
        ensure!(read_at(&file, 100, end)? == [1; 100]);
        let left = (end + 100..PAGE).find(|at| map.load(*at) != 0);
        ensure!(left.is_none(), "append {round}: byte {left:?} is behind it");
    }
    Ok(())
}

/// What moves the end of a file, or its last block, and its effect on the content.
struct Move {
    name: &'static str,
    run: fn(&File) -> Result<()>,
    content: fn(&mut Vec<u8>),
}

/// The file of [`moved`]: it ends in the middle of its third page.
const SIZE: usize = 2 * PAGE + 1000;

const MOVES: &[Move] = &[
    Move {
        name: "truncation upwards within the block",
        run: |file| Ok(file.set_len(SIZE as u64 + 500)?),
        content: |data| data.resize(SIZE + 500, 0),
    },
    Move {
        name: "truncation to the end of the block",
        run: |file| Ok(file.set_len(3 * PAGE as u64)?),
        content: |data| data.resize(3 * PAGE, 0),
    },
    Move {
        name: "truncation beyond the block",
        run: |file| Ok(file.set_len(4 * PAGE as u64 + 1)?),
        content: |data| data.resize(4 * PAGE + 1, 0),
    },
    Move {
        name: "truncation downwards within the block",
        run: |file| Ok(file.set_len(SIZE as u64 - 500)?),
        content: |data| data.truncate(SIZE - 500),
    },
    Move {
        name: "truncation to another block",
        run: |file| Ok(file.set_len(PAGE as u64 + 100)?),
        content: |data| data.truncate(PAGE + 100),
    },
    Move {
        name: "an append within the block",
        run: |file| write_at(file, &[3; 700], SIZE),
        content: |data| data.extend([3; 700]),
    },
    Move {
        name: "a write across the end",
        run: |file| write_at(file, &[3; PAGE], SIZE + 300 - PAGE),
        content: |data| {
            data.truncate(SIZE + 300 - PAGE);
            data.extend([3; PAGE]);
        },
    },
    Move {
        name: "a write behind the end, within the block",
        run: |file| write_at(file, &[3; 100], SIZE + 200),
        content: |data| {
            data.resize(SIZE + 200, 0);
            data.extend([3; 100]);
        },
    },
    Move {
        name: "an append that ends in another block",
        run: |file| write_at(file, &[3; PAGE], SIZE),
        content: |data| data.extend([3; PAGE]),
    },
    Move {
        name: "a write in another block",
        run: |file| write_at(file, &[3; 100], 4 * PAGE),
        content: |data| {
            data.resize(4 * PAGE, 0);
            data.extend([3; 100]);
        },
    },
    Move {
        name: "allocation within the block",
        run: |file| {
            Ok(fallocate(
                file,
                FallocateFlags::empty(),
                0,
                SIZE as u64 + 600,
            )?)
        },
        content: |data| data.resize(SIZE + 600, 0),
    },
    Move {
        name: "allocation beyond the block",
        run: |file| {
            Ok(fallocate(
                file,
                FallocateFlags::empty(),
                SIZE,
                2 * PAGE as u64,
            )?)
        },
        content: |data| data.resize(SIZE + 2 * PAGE, 0),
    },
    Move {
        name: "allocation that keeps the size",
        run: |file| {
            Ok(fallocate(
                file,
                FallocateFlags::KEEP_SIZE,
                0,
                4 * PAGE as u64,
            )?)
        },
        content: |_| (),
    },
    Move {
        name: "zeros within the block, beyond the end",
        run: |file| {
            let at = SIZE - 300;
            Ok(fallocate(file, FallocateFlags::ZERO_RANGE, at, 600)?)
        },
        content: |data| {
            data.truncate(SIZE - 300);
            data.resize(SIZE + 300, 0);
        },
    },
    Move {
        name: "zeros up to the end",
        run: |file| {
            let at = PAGE + 10;
            let len = (SIZE - at) as u64;
            Ok(fallocate(file, FallocateFlags::ZERO_RANGE, at, len)?)
        },
        content: |data| data[PAGE + 10..].fill(0),
    },
    Move {
        name: "zeros beyond the end that keep the size",
        run: |file| {
            let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            Ok(fallocate(file, mode, SIZE - 10, 200)?)
        },
        content: |data| data[SIZE - 10..].fill(0),
    },
    Move {
        name: "a hole up to the end",
        run: |file| Ok(fallocate(file, PUNCH, SIZE - 10, 10)?),
        content: |data| data[SIZE - 10..].fill(0),
    },
    Move {
        name: "a range inserted",
        run: |file| {
            let mode = FallocateFlags::INSERT_RANGE;
            Ok(fallocate(file, mode, PAGE, PAGE as u64)?)
        },
        content: |data| {
            data.splice(PAGE..PAGE, [0; PAGE]);
        },
    },
    Move {
        name: "a range inserted before the last block",
        run: |file| {
            let mode = FallocateFlags::INSERT_RANGE;
            Ok(fallocate(file, mode, 2 * PAGE, PAGE as u64)?)
        },
        content: |data| {
            data.splice(2 * PAGE..2 * PAGE, [0; PAGE]);
        },
    },
    Move {
        name: "a range collapsed",
        run: |file| {
            let mode = FallocateFlags::COLLAPSE_RANGE;
            Ok(fallocate(file, mode, PAGE, PAGE as u64)?)
        },
        content: |data| drop(data.drain(PAGE..2 * PAGE)),
    },
];

/// How stores of a mapping get past the end, before it is moved.
#[derive(Clone, Copy, Debug)]
enum Stored {
    /// By a mapping that stays.
    Mapped,
    /// By one that is gone, after a sync.
    Synced,
    /// By one that was there before the file became as short as it is.
    Shortened,
    /// By one that is gone, after something has been appended twice.
    Appended,
}

fn moved(place: &Place) -> Result<()> {
    use Stored::*;
    for stored in [Mapped, Synced, Shortened, Appended] {
        for step in MOVES {
            let case = format!("{}, {stored:?}", step.name);
            one_move(place, step, stored).context(case)?;
        }
    }
    Ok(())
}

fn one_move(place: &Place, step: &Move, stored: Stored) -> Result<()> {
    let mut data: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8 + 1).collect();
    let file = create(&place.fresh("a"))?;
    let short = match stored {
        Stored::Appended => SIZE - 100,
        _ => SIZE,
    };
    write_at(&file, &data[..short], 0)?;
    if let Stored::Appended = stored {
        (0..2).try_for_each(|i| write_at(&file, &data[short + 50 * i..][..50], short + 50 * i))?;
    }
    let mut map = Some(Map::shared(&file, 4 * PAGE)?);
    if let (Stored::Shortened, Some(map)) = (stored, &map) {
        file.set_len(3 * PAGE as u64)?;
        map.store(SIZE - 1, data[SIZE - 1]);
        file.set_len(SIZE as u64)?;
    }
    let dirty = |map: &Option<Map>| {
        let at = [SIZE, SIZE + 250, SIZE + 650, SIZE + 900, 3 * PAGE - 1];
        if let Some(map) = map {
            at.iter().for_each(|at| map.store(*at, 77));
        }
    };
    dirty(&map);
    if let Stored::Synced | Stored::Appended = stored {
        file.sync_all()?;
        map = None;
    }
    (step.run)(&file)?;
    (step.content)(&mut data);
    drop(map);
    ensure!(
        file.metadata()?.len() == data.len() as u64,
        "the size is another"
    );
    ensure!(
        read_at(&file, data.len(), 0)? == data,
        "the content is another"
    );
    let end = data.len().next_multiple_of(PAGE);
    let map = Map::shared(&file, end)?;
    let shown = (data.len()..end).find(|at| map.load(*at) != 0);
    ensure!(
        shown.is_none(),
        "byte {shown:?} is not zero, the end is at {}",
        data.len()
    );
    Ok(())
}
