// SPDX-License-Identifier: GPL-2.0

//! Stores that race with one sync of their page each, and are the last that the page sees. On a
//! module built with SHADOW=1 each that was lost shows at unmount; on others nothing can be seen
//! but that the contents are right.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use anyhow::{ensure, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::fs::FallocateFlags;
use rustix::mm::{Advice, MsyncFlags};

use crate::common::{create, fallocate, read_at};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("stores against msync of the page", |place| {
        race(place, "a", Against::Msync)
    }),
    ("stores against fdatasync", |place| {
        race(place, "b", Against::Fdatasync)
    }),
    ("stores against zap and fdatasync", |place| {
        race(place, "c", Against::Zap)
    }),
    ("stores of two threads against one msync", |place| {
        race(place, "d", Against::Both)
    }),
];

#[derive(Clone, Copy, PartialEq)]
enum Against {
    Msync,
    Fdatasync,
    Zap,
    Both,
}

const PAGES: usize = 1500;

/// Waits, in short steps: there may be fewer processors than threads.
fn wait(mut until: impl FnMut() -> bool) {
    let mut spins = 0;
    while !until() {
        spins += 1;
        if spins % 200 == 0 {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

/// A cheap source of delays.
fn next(state: &mut u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state
}

fn race(place: &Place, name: &str, against: Against) -> Result<()> {
    let file = create(&place.fresh(name))?;
    fallocate(&file, FallocateFlags::empty(), 0, (PAGES * PAGE) as u64)?;
    let map = Map::shared(&file, PAGES * PAGE)?;
    let at = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let writers = if against == Against::Both { 2 } else { 1 };
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (map, at, done) = (&map, &at, &done);
            scope.spawn(move || {
                let mut random = 0x9e37_79b9 + writer as u32;
                for page in 0..PAGES {
                    wait(|| at.load(SeqCst) >= page);
                    let stores = next(&mut random) % 400;
                    for i in 0..=stores {
                        map.store(page * PAGE + writer * 2048 + (i as usize % 1024), i as u8);
                    }
                    done.fetch_add(1, SeqCst);
                }
            });
        }
        let mut random = 0x1234_5678;
        for page in 0..PAGES {
            at.store(page, SeqCst);
            // The first store faults: begin after it, somewhere in what follows.
            wait(|| map.load(page * PAGE + 1) != 0 || done.load(SeqCst) == (page + 1) * writers);
            for _ in 0..next(&mut random) % 300 {
                std::hint::spin_loop();
            }
            match against {
                Against::Msync | Against::Both => map.msync(page * PAGE, PAGE, MsyncFlags::SYNC)?,
                Against::Fdatasync => file.sync_data()?,
                Against::Zap => {
                    map.advise(page * PAGE, PAGE, Advice::LinuxDontNeed)?;
                    file.sync_data()?;
                }
            }
            wait(|| done.load(SeqCst) == (page + 1) * writers);
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let data = read_at(&file, PAGES * PAGE, 0)?;
    ensure!((0..data.len()).step_by(97).all(|i| data[i] == map.load(i)));
    Ok(())
}
