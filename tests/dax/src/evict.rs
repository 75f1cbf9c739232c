// SPDX-License-Identifier: GPL-2.0

//! Files leave memory while the file system is synced: nothing hangs, and nobody uses what was
//! freed (which shows on a kernel that poisons freed memory).

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{ensure, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::process::setpriority_process;
use rustix::thread::{gettid, sched_setaffinity, CpuSet};

use crate::common::{create, syncfs, wait_until};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[(
    "syncs of the file system while files without a name go",
    unlinked_go,
)];

/// Files that come and go.
const FILES: usize = 800;
/// Threads that sync when a file was stored to.
const SYNCERS: u64 = 8;
/// Pages of a file.
const PAGES: usize = 512;

/// Keeps the calling thread on one processor, of two.
pub fn run_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)?;
    Ok(())
}

/// What the threads share.
#[derive(Default)]
struct Race {
    stop: AtomicBool,
    /// Syncs that were asked for, and those that have begun.
    wanted: AtomicU64,
    begun: AtomicU64,
    ended: AtomicUsize,
}

impl Race {
    /// One syncs at low priority beside a busy thread, so that it is often stopped in the middle.
    fn sync_slowly(&self, dir: &File) -> Result<()> {
        run_on(1)?;
        setpriority_process(Some(gettid()), 19)?;
        while !self.stop.load(Relaxed) {
            syncfs(dir)?;
        }
        Ok(())
    }

    fn be_busy(&self) -> Result<()> {
        run_on(1)?;
        while !self.stop.load(Relaxed) {
            std::hint::spin_loop();
        }
        Ok(())
    }

    fn sync_when_told(&self, dir: &File) -> Result<()> {
        run_on(0)?;
        while !self.stop.load(Relaxed) {
            let begun = self.begun.load(Relaxed);
            let wanted = begun < self.wanted.load(Relaxed);
            let take = |from| {
                self.begun
                    .compare_exchange(from, from + 1, Relaxed, Relaxed)
            };
            if wanted && take(begun).is_ok() {
                syncfs(dir)?;
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    fn make_files(&self, place: &Place) -> Result<()> {
        run_on(0)?;
        for round in 0..FILES {
            let path = place.dir.join("going");
            let file = create(&path)?;
            file.set_len((PAGES * PAGE) as u64)?;
            let map = Map::shared(&file, PAGES * PAGE)?;
            std::fs::remove_file(&path)?;
            for page in (0..9).map(|i| (1 << i) - 1) {
                map.store(page * PAGE, 1);
            }
            self.wanted.fetch_add(1, Relaxed);
            std::thread::sleep(Duration::from_millis(3 + round as u64 * 7 % 6));
            drop((map, file));
        }
        Ok(())
    }
}

fn unlinked_go(place: &Place) -> Result<()> {
    let dir = File::open(&place.dir)?;
    let (race, dir) = (Race::default(), &dir);
    std::thread::scope(|scope| {
        let race = &race;
        type Work<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;
        let mut works: Vec<Work<'_>> = vec![
            Box::new(|| race.be_busy()),
            Box::new(|| race.sync_slowly(dir)),
        ];
        works.extend((0..SYNCERS).map(|_| -> Work<'_> { Box::new(|| race.sync_when_told(dir)) }));
        let count = works.len();
        let threads: Vec<_> = works
            .into_iter()
            .map(|work| {
                scope.spawn(|| {
                    let result = work();
                    race.ended.fetch_add(1, Relaxed);
                    result
                })
            })
            .collect();
        let made = race.make_files(place);
        race.stop.store(true, Relaxed);
        if !wait_until(|| race.ended.load(Relaxed) == count) {
            // A hung thread cannot be joined.
            println!("FAILED  a sync hangs");
            std::process::exit(1);
        }
        made?;
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap())?;
        ensure!(race.begun.load(Relaxed) > 0, "nobody has synced");
        Ok(())
    })
}
