// SPDX-License-Identifier: GPL-2.0

//! Many at once: nothing hangs, and nothing is lost that can be seen without a crash.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::fs::FallocateFlags;
use rustix::mm::MsyncFlags;

use crate::common::{create, fallocate, filled, wait_until, write_at, PUNCH};
use crate::hot::PATIENCE;
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("syncs of one page by four threads", syncs),
    ("faults of many threads on one hole", one_hole),
    (
        "write(2) to preallocated blocks, and stores beside it",
        one_unwritten,
    ),
    ("stores, syncs, truncation, punching", storm),
    ("faults while pages are taken away", taken_away),
    ("syncs of the file system while files come and go", sync_all),
];

/// What threads do together, in rounds.
#[derive(Default)]
struct Rounds {
    done: AtomicU64,
    stop: AtomicBool,
}

impl Rounds {
    fn each(&self, mut work: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let mut round = 0;
        while !self.stop.load(Relaxed) {
            work(round)?;
            round += 1;
            self.done.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

/// What a thread does.
type Thread<'a> = Box<dyn Fn(&Rounds) -> Result<()> + Send + Sync + 'a>;

/// Runs for three seconds and at least `enough` rounds of all threads together, however long these
/// take as long as there is a next one.
fn run(enough: u64, threads: Vec<Thread<'_>>) -> Result<()> {
    let rounds = Rounds::default();
    let ended = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let handles: Vec<_> = threads
            .iter()
            .map(|thread| {
                scope.spawn(|| {
                    let result = thread(&rounds);
                    ended.fetch_add(1, Relaxed);
                    result
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(3));
        let mut done = rounds.done.load(Relaxed);
        let mut moves = true;
        // One that fails ends early.
        while moves && done < enough && ended.load(Relaxed) == 0 {
            let before = done;
            moves = wait_until(|| {
                done = rounds.done.load(Relaxed);
                done != before || ended.load(Relaxed) > 0
            });
        }
        rounds.stop.store(true, Relaxed);
        if !wait_until(|| ended.load(Relaxed) == threads.len()) {
            // A hung thread cannot be joined.
            println!("FAILED  a thread hangs");
            std::process::exit(1);
        }
        for handle in handles {
            handle.join().unwrap()?;
        }
        ensure!(done >= enough, "less than {enough} rounds");
        Ok(())
    })
}

fn syncs(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    let (map, file) = (&map, &file);
    let before = place.counters.read("pages_tagged")?;
    let back = place.counters.read("pages_written_back")?;
    let hot = place.counters.read("hot_pages")?;
    let threads = (0..4)
        .map(|thread| -> Thread<'_> {
            Box::new(move |rounds| {
                rounds.each(|round| {
                    map.store(thread, round as u8);
                    if thread == 0 {
                        Ok(file.sync_data()?)
                    } else {
                        Ok(map.msync(0, PAGE, MsyncFlags::SYNC)?)
                    }
                })
            })
        })
        .collect();
    run(100, threads)?;
    // The first may find the last stores; the others find nothing, and leave no page hot.
    (0..=PATIENCE + 1).try_for_each(|_| file.sync_data())?;
    let tagged = place.counters.read("pages_tagged")? - before;
    let written = place.counters.read("pages_written_back")? - back;
    let hot = place.counters.read("hot_pages")? - hot;
    ensure!(
        tagged == written - hot,
        "{tagged} tags, {written} write-backs, {hot} of hot pages"
    );
    Ok(())
}

fn one_hole(place: &Place) -> Result<()> {
    for round in 0..200 {
        let file = create(&place.fresh("a"))?;
        file.set_len(PAGE as u64)?;
        let maps: Vec<Map> = (0..4)
            .map(|_| Map::shared(&file, PAGE))
            .collect::<Result<_, _>>()?;
        std::thread::scope(|scope| {
            for (i, map) in maps.iter().enumerate() {
                scope.spawn(move || {
                    if i % 2 == 0 {
                        map.load(0);
                    }
                    map.store(i * 64, 1);
                });
            }
        });
        for i in 0..4 {
            for map in &maps {
                ensure!(map.load(i * 64) == 1, "round {round}: store {i} is lost");
            }
        }
    }
    Ok(())
}

/// A write that begins and ends within preallocated blocks takes long, for its buffer faults; what
/// is stored beside it meanwhile must stay.
fn one_unwritten(place: &Place) -> Result<()> {
    let source = create(&place.fresh("source"))?;
    source.set_len(3 * PAGE as u64)?;
    for round in 0..300 {
        let file = create(&place.fresh("a"))?;
        fallocate(&file, FallocateFlags::empty(), 0, 3 * PAGE as u64)?;
        let map = Map::shared(&file, 3 * PAGE)?;
        let buffer = Map::private(&source, 3 * PAGE)?;
        let begins = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let write = scope.spawn(|| {
                begins.store(true, Relaxed);
                buffer.write_from(PAGE - 100, PAGE + 200, &file, 3900)
            });
            while !begins.load(Relaxed) {
                std::hint::spin_loop();
            }
            for i in 0..round % 100 * 200 {
                std::hint::black_box(i);
            }
            map.store(10, 1);
            map.store(3 * PAGE - 10, 2);
            ensure!(write.join().unwrap()? == PAGE + 200);
            Ok(())
        })?;
        let stored = (map.load(10), map.load(3 * PAGE - 10));
        ensure!(
            stored == (1, 2),
            "round {round}: {stored:?} is left of (1, 2)"
        );
    }
    Ok(())
}

fn storm(place: &Place) -> Result<()> {
    let pages = 1100;
    let file = create(&place.fresh("a"))?;
    file.set_len((pages * PAGE) as u64)?;
    // The first pages are never cut off: stores there must not fail.
    let keep = 64;
    let map = Map::shared(&file, pages * PAGE)?;
    let (map, file) = (&map, &file);
    let threads: Vec<Thread<'_>> = vec![
        Box::new(move |rounds| {
            rounds.each(|round| {
                map.store((round as usize * 7 % keep) * PAGE, round as u8);
                Ok(())
            })
        }),
        Box::new(move |rounds| {
            rounds.each(|round| {
                let page = round as usize * 13 % keep;
                map.store(page * PAGE + 8, round as u8);
                map.msync(page * PAGE, PAGE, MsyncFlags::SYNC)?;
                ensure!(map.load(page * PAGE + 8) == round as u8, "a store is lost");
                Ok(())
            })
        }),
        Box::new(move |rounds| {
            rounds.each(|round| {
                file.set_len(((keep + round as usize * 31 % (pages - keep)) * PAGE) as u64)?;
                Ok(())
            })
        }),
        Box::new(move |rounds| {
            rounds.each(|round| {
                let at = keep + round as usize * 17 % (pages - keep);
                fallocate(file, FallocateFlags::empty(), at * PAGE, 2 * PAGE as u64)?;
                fallocate(file, PUNCH, at * PAGE, 3 * PAGE as u64)?;
                Ok(())
            })
        }),
        Box::new(move |rounds| rounds.each(|_| Ok(file.sync_all()?))),
    ];
    run(100, threads)
}

/// Who loads from a page while it is punched may see what was in it; once the call has returned
/// nobody does. The loads are faults, most of them: each write, and each punch, takes the mapping
/// away.
fn taken_away(place: &Place) -> Result<()> {
    const PAGES: usize = 16;
    let file = create(&place.fresh("a"))?;
    file.set_len((PAGES * PAGE) as u64)?;
    let map = Map::shared(&file, PAGES * PAGE)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for step in [1, 5] {
            let (map, stop) = (&map, &stop);
            scope.spawn(move || {
                let mut page = 0;
                while !stop.load(Relaxed) {
                    map.load(page * PAGE);
                    page = (page + step) % PAGES;
                }
            });
        }
        // Some are enough, if they take long.
        let end = Instant::now() + Duration::from_secs(10);
        let mut rounds = (0..3000).take_while(|_| Instant::now() < end);
        let result = rounds.try_for_each(|round: usize| {
            write_at(&file, &[1; PAGES * PAGE], 0)?;
            fallocate(&file, PUNCH, 0, (PAGES * PAGE) as u64)?;
            let old = (0..PAGES).filter(|page| map.load(page * PAGE) != 0).count();
            ensure!(
                old == 0,
                "round {round}: {old} pages are there after they were punched"
            );
            Ok(())
        });
        stop.store(true, Relaxed);
        result
    })
}

fn sync_all(place: &Place) -> Result<()> {
    let threads = (0..3)
        .map(|thread| -> Thread<'_> {
            Box::new(move |rounds| {
                rounds.each(|round| {
                    if thread == 0 {
                        rustix::fs::sync();
                        return Ok(());
                    }
                    let path = place.fresh(&format!("{thread}-{}", round % 5));
                    let file = filled(&path, 2)?;
                    let map = Map::shared(&file, 2 * PAGE)?;
                    map.store(0, 1);
                    drop((map, file));
                    if round % 2 == 0 {
                        std::fs::remove_file(&path)?;
                    } else if round % 7 == 0 {
                        std::fs::write("/proc/sys/vm/drop_caches", "2")?;
                    }
                    Ok(())
                })
            })
        })
        .collect();
    run(50, threads)
}
