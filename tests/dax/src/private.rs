// SPDX-License-Identifier: GPL-2.0

//! Private mappings: they see the file, and never change it.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};

use anyhow::{anyhow, ensure, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::fs::FallocateFlags;

use crate::common::{
    create, dies_of_sigbus, fallocate, filled, in_child, read_at, wait_until, write_at, PUNCH,
};
use crate::huge::HUGE;
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    (
        "a private store stays private, in every order with shared ones",
        orders,
    ),
    (
        "a private copy survives truncation only inside the file",
        truncated_copy,
    ),
    (
        "a private store to a hole that is truncated",
        truncated_while_copied,
    ),
    ("a copy after fork", fork),
    ("a first private store takes one fault", one_fault),
    ("a private store beside a reader", beside_a_reader),
    ("private copies against punching", punched),
];

fn orders(place: &Place) -> Result<()> {
    for order in 0..8 {
        let file = filled(&place.fresh("a"), 1)?;
        let shared = Map::shared(&file, PAGE)?;
        let private = Map::private(&file, PAGE)?;
        if order & 1 != 0 {
            ensure!(private.load(0) == 1);
        }
        if order & 2 != 0 {
            shared.store(1, 50);
        }
        if order & 4 != 0 {
            file.sync_data()?;
        }
        place.counters.expect(&[("pages_tagged", 0)], || {
            private.store(0, 99);
            Ok(())
        })?;
        ensure!(
            shared.load(0) == 1,
            "order {order}: a private store shows in the file"
        );
        shared.store(0, 60);
        write_at(&file, &[61], 2)?;
        ensure!(
            private.load(0) == 99 && private.load(2) == 1,
            "order {order}: the copy changed"
        );
        ensure!(read_at(&file, 3, 0)? == [60, if order & 2 != 0 { 50 } else { 1 }, 61]);
    }
    Ok(())
}

fn truncated_copy(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 3)?;
    let map = Map::private(&file, 3 * PAGE)?;
    map.store(0, 9);
    map.store(2 * PAGE, 9);
    file.set_len(2 * PAGE as u64)?;
    ensure!(map.load(0) == 9);
    dies_of_sigbus("a private copy past the end", || {
        map.load(2 * PAGE);
    })
}

/// The file is cut while a hole of it is copied: the copy is not left past the end.
fn truncated_while_copied(place: &Place) -> Result<()> {
    const ROUNDS: usize = 6_000;
    let byte = filled(&place.fresh("byte"), 1)?;
    let copy = create(&place.fresh("copy"))?;
    let file = create(&place.fresh("a"))?;
    let (barrier, shared) = (Barrier::new(2), Mutex::new(None::<Map>));
    let spin = |times: usize| {
        (0..times).for_each(|nth| {
            std::hint::black_box(nth);
        })
    };
    let (mut left, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                barrier.wait();
                spin(round * 7919 % 3000);
                // A store by the kernel: past the end it is EFAULT, and no signal.
                if let Some(map) = shared.lock().unwrap().as_ref() {
                    let _ = map.read_into(0, 1, &byte, 0);
                }
                barrier.wait();
            }
        });
        for round in 0..ROUNDS {
            let grown = file.set_len(PAGE as u64);
            *shared.lock().unwrap() = Map::private(&file, PAGE).ok();
            barrier.wait();
            spin(round * 104_729 % 6000);
            let cut = grown.and(file.set_len(0));
            barrier.wait();
            let (Some(map), Ok(())) = (shared.lock().unwrap().take(), cut) else {
                failed += 1;
                continue;
            };
            left += usize::from(map.write_from(0, 1, &copy, 0).is_ok());
        }
    });
    ensure!(failed == 0, "{failed} calls failed");
    ensure!(left == 0, "{left} of {ROUNDS} copies are left past the end");
    Ok(())
}

fn fork(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 2)?;
    let map = Map::private(&file, 2 * PAGE)?;
    map.store(0, 5);
    in_child(|| {
        ensure!(map.load(0) == 5 && map.load(PAGE) == 2);
        map.store(0, 6);
        map.store(PAGE, 6);
        Ok(())
    })?;
    ensure!(map.load(0) == 5 && map.load(PAGE) == 2);
    ensure!(read_at(&file, 1, 0)? == [1] && read_at(&file, 1, PAGE)? == [2]);
    Ok(())
}

fn one_fault(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 8)?;
    file.set_len(16 * PAGE as u64)?;
    let map = Map::private(&file, 16 * PAGE)?;
    let one_each = [
        ("read_faults", 16),
        ("write_faults", 0),
        ("mkwrite_faults", 0),
        ("pages_tagged", 0),
    ];
    place.counters.expect(&one_each, || {
        (0..16).for_each(|page| map.store(page * PAGE + 1, 99));
        Ok(())
    })?;
    for page in 0..16 {
        let in_file = if page < 8 { page as u8 + 1 } else { 0 };
        ensure!(map.load(page * PAGE) == in_file && map.load(page * PAGE + 1) == 99);
        ensure!(read_at(&file, 2, page * PAGE)? == [in_file; 2]);
    }
    ensure!(file.metadata()?.blocks() == 8 * 8, "st_blocks");
    // Of 2 MiB that are mapped in one piece to be read, and of a hole.
    let file = create(&place.fresh("b"))?;
    fallocate(&file, FallocateFlags::empty(), 0, 2 * HUGE as u64)?;
    write_at(&file, &vec![5; HUGE], 0)?;
    let map = Map::private(&file, 2 * HUGE)?;
    ensure!(map.load(0) == 5 && map.load(HUGE) == 0);
    let one_each = [("read_faults", 2), ("huge_faults", 0)];
    place.counters.expect(&one_each, || {
        map.store(PAGE, 6);
        map.store(HUGE + PAGE, 6);
        Ok(())
    })?;
    ensure!(map.load(PAGE) == 6 && map.load(PAGE + 1) == 5 && map.load(2 * PAGE) == 5);
    ensure!(map.load(HUGE + PAGE) == 6 && map.load(HUGE + PAGE + 1) == 0);
    Ok(())
}

/// A store to 2 MiB that another thread reads all the time: it gets its page before long, and the
/// reader loses the 2 MiB a few times at most.
fn beside_a_reader(place: &Place) -> Result<()> {
    const ROUNDS: usize = 20;
    let data = create(&place.fresh("a"))?;
    fallocate(&data, FallocateFlags::empty(), 0, HUGE as u64)?;
    write_at(&data, &vec![5; HUGE], 0)?;
    let hole = create(&place.fresh("b"))?;
    hole.set_len(HUGE as u64)?;
    for file in [&data, &hole] {
        for _ in 0..ROUNDS {
            let map = Map::private(file, HUGE)?;
            let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
            let moved = std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(SeqCst) {
                        map.load(100 * PAGE);
                        reads.fetch_add(1, SeqCst);
                    }
                });
                let reads = || reads.load(SeqCst) > 100;
                let result = (wait_until(reads).then_some(()))
                    .ok_or(anyhow!("no reads"))
                    .and_then(|()| place.counters.read("huge_faults"));
                let moved = result.and_then(|before| {
                    map.store(0, 9);
                    Ok(place.counters.read("huge_faults")? - before)
                });
                done.store(true, SeqCst);
                moved
            })?;
            ensure!(map.load(0) == 9 && read_at(file, 1, 0)? != [9]);
            ensure!(moved < 16, "2 MiB were mapped {moved} times before a store");
        }
    }
    Ok(())
}

/// Pages are punched out of a file, and others written into it, while they are copied; the blocks
/// go to another file meanwhile, whose bytes nobody may see.
fn punched(place: &Place) -> Result<()> {
    const PAGES: usize = 16;
    const OTHERS: u8 = 0xee;
    let file = create(&place.fresh("a"))?;
    file.set_len((PAGES * PAGE) as u64)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let copies = scope.spawn(|| -> Result<usize> {
            let mut copies = 0;
            while !done.load(SeqCst) {
                let map = Map::private(&file, PAGES * PAGE)?;
                for page in 0..PAGES {
                    map.store(page * PAGE, 1);
                    let rest = page * PAGE + 1..(page + 1) * PAGE;
                    let first = map.load(rest.start);
                    ensure!(first != OTHERS, "a page of another file");
                    for at in rest {
                        ensure!(map.load(at) == first, "half a page");
                    }
                    copies += 1;
                }
            }
            Ok(copies)
        });
        let mut rounds = 0;
        let result = wait_until(|| {
            rounds += 1;
            let round = || -> Result<()> {
                fallocate(&file, PUNCH, 0, (PAGES * PAGE) as u64)?;
                let other = create(&place.fresh("b"))?;
                write_at(&other, &[OTHERS; PAGES * PAGE], 0)?;
                let fresh = rounds as u8 % 100 + 1;
                for page in 0..PAGES {
                    write_at(&file, &[fresh; PAGE], page * PAGE)?;
                }
                Ok(())
            };
            round().is_err() || rounds == 300
        });
        done.store(true, SeqCst);
        ensure!(result && rounds == 300, "{rounds} rounds");
        let copies = copies.join().expect("no panic")?;
        ensure!(copies > PAGES, "{copies} copies");
        Ok(())
    })
}
