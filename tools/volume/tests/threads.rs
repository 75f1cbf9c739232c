// SPDX-License-Identifier: GPL-2.0

//! Many threads on one volume: what one does is never lost or seen torn by another, counts stay
//! exact, and a crash in the middle leaves each thread's last transaction whole or not at all.

mod media;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use media::{empty_file, free_blocks, made, mount, used_blocks, SMALL};
use rdax_volume::ram::Ram;
use rdax_volume::sim::Bounds;
use rdax_volume::volume::alloc::{Run, Want};
use rdax_volume::volume::error::Error;
use rdax_volume::volume::format::{BLOCK, INODE_BYTES};
use rdax_volume::volume::namespace::NewInode;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::Volume;

const THREADS: u64 = 6;

/// A small generator of random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn is_shared<T: Send + Sync>() {}

#[test]
fn a_volume_can_be_shared() {
    is_shared::<Volume<Ram>>();
}

/// Blocks and inodes that some thread owns.
#[derive(Default)]
struct Owned {
    blocks: BTreeSet<u64>,
    inodes: BTreeSet<u64>,
}

impl Owned {
    fn add(&mut self, run: Run) {
        for block in run.block..run.end() {
            assert!(self.blocks.insert(block), "{block} was given twice");
        }
    }

    fn remove(&mut self, run: Run) {
        for block in run.block..run.end() {
            assert!(self.blocks.remove(&block));
        }
    }
}

/// What one thread does: allocate, free, reserve, create and remove inodes.
fn work(vol: &Volume<Arc<Ram>>, owned: &Mutex<Owned>, thread: u64, rounds: u64) {
    let mut random = Random(thread);
    let mut runs: Vec<Run> = Vec::new();
    let mut inodes = Vec::new();
    for _ in 0..rounds {
        match random.below(10) {
            0..=3 => {
                let want = Want::blocks(1 + random.below(12));
                let mut tx = vol.begin().unwrap();
                match tx.alloc(want) {
                    Ok(run) => {
                        // Before the commit: nobody else may have it from here on.
                        owned.lock().unwrap().add(run);
                        tx.commit().unwrap();
                        runs.push(run);
                    }
                    Err(e) => assert_eq!(e, Error::NoSpace),
                }
            }
            4..=6 if !runs.is_empty() => {
                let run = runs.swap_remove(random.below(runs.len() as u64) as usize);
                let mut tx = vol.begin().unwrap();
                tx.free(run.block, run.len).unwrap();
                if random.below(4) == 0 {
                    drop(tx);
                    runs.push(run);
                    continue;
                }
                // Others may have it at any time after this.
                owned.lock().unwrap().remove(run);
                tx.commit().unwrap();
            }
            7 => {
                if let Ok(reservation) = vol.reserve(Want::blocks(1 + random.below(100))) {
                    let run = reservation.run();
                    owned.lock().unwrap().add(run);
                    std::thread::yield_now();
                    owned.lock().unwrap().remove(run);
                }
            }
            8 => {
                let slot = vol.reserve_inode().unwrap();
                let ino = slot.ino();
                assert!(owned.lock().unwrap().inodes.insert(ino), "{ino} twice");
                let mut raw = empty_file(vol);
                raw.uid = (thread as u32).into();
                let mut tx = vol.begin().unwrap();
                let inode = tx.create_inode(slot, raw).unwrap();
                tx.commit().unwrap();
                inodes.push(inode);
            }
            _ if !inodes.is_empty() => {
                let inode = inodes.swap_remove(random.below(inodes.len() as u64) as usize);
                let again = vol.iget(inode.ino()).unwrap();
                assert_eq!(again.raw(), inode.raw());
                let mut tx = vol.begin().unwrap();
                tx.free_inode(&inode).unwrap();
                assert!(owned.lock().unwrap().inodes.remove(&inode.ino()));
                tx.commit().unwrap();
            }
            _ => {}
        }
    }
}

fn contend(bytes: u64, rounds: u64) {
    let ram = Arc::new(Ram::new(bytes));
    media::format(&ram);
    let vol = mount(ram.clone());
    let used = used_blocks(&vol);
    let owned = Mutex::new(Owned::default());
    owned.lock().unwrap().blocks = (0..used.len() as u64)
        .filter(|b| used[*b as usize])
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (vol, owned) = (&vol, &owned);
            scope.spawn(move || work(vol, owned, thread, rounds));
        }
    });
    let owned = owned.into_inner().unwrap();
    for vol in [vol, mount(ram)] {
        // The table may have grown.
        let grown = vol.statfs().inodes_used > 255;
        let used = used_blocks(&vol);
        for block in &owned.blocks {
            assert!(used[*block as usize], "{block} is lost");
        }
        let extra = used.iter().filter(|u| **u).count() - owned.blocks.len();
        assert!(extra == 0 || grown, "{extra} blocks in use by nobody");
        free_blocks(&vol);
        assert_eq!(vol.statfs().inodes_used, owned.inodes.len() as u64 + 1);
        for ino in &owned.inodes {
            assert_eq!(vol.iget(*ino).unwrap().ino(), *ino);
        }
    }
}

#[test]
fn threads_share_a_small_volume() {
    contend(SMALL, 3_000);
}

#[test]
fn threads_share_a_volume_of_groups() {
    contend(512 << 20, 3_000);
}

#[test]
fn what_is_full_serves_again_when_others_free() {
    let ram = Arc::new(Ram::new(SMALL));
    media::format(&ram);
    let vol = mount(ram);
    let total = vol.free_blocks();
    // All threads together want twice what there is: some must wait for others to free.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut got = 0;
                while got < 2 * total && !done.load(Ordering::Relaxed) {
                    let Ok(reservation) = vol.reserve(Want::blocks(total / 2)) else {
                        std::thread::yield_now();
                        continue;
                    };
                    let mut tx = vol.begin().unwrap();
                    let run = tx.take(reservation).unwrap();
                    tx.commit().unwrap();
                    let mut tx = vol.begin().unwrap();
                    tx.free(run.block, run.len).unwrap();
                    tx.commit().unwrap();
                    got += run.len;
                }
            });
        }
    });
    done.store(true, Ordering::Relaxed);
    assert_eq!(free_blocks(&vol), total);
}

/// However many threads take all that they can, what is kept stays.
#[test]
fn kept_blocks_stay_when_threads_take_all() {
    for _ in 0..200 {
        let ram = Arc::new(Ram::new(SMALL));
        media::format(&ram);
        let vol = mount(ram);
        let held = Mutex::new(Vec::new());
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (vol, held, start) = (&vol, &held, &start);
                // Runs that are short bring others with them.
                let want = Want::blocks(if thread < 2 { 1 << 20 } else { 40 });
                scope.spawn(move || {
                    start.wait();
                    loop {
                        match vol.reserve_several(want) {
                            Ok(several) => held.lock().unwrap().push(several),
                            Err(e) => break assert_eq!(e, Error::NoSpace),
                        }
                    }
                });
            }
        });
        let kept = vol.geometry().reserve() + vol.kept_for_removal();
        assert_eq!(vol.free_blocks(), kept);
    }
}

thread_local! {
    /// Whether reads of inodes take long in this thread.
    static SLOW: Cell<bool> = const { Cell::new(false) };
}

/// A memory in which the reads of inodes of some threads take long.
struct Slow(Ram);

impl Pmem for Slow {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), Error> {
        if SLOW.get() && buf.len() as u64 == INODE_BYTES {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.0.read(at, buf)
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.0.store(at, bytes)
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.0.store_nt(at, bytes)
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<(), Error> {
        self.0.zero_nt(at, len)
    }

    fn write_back(&self, at: u64, len: u64) {
        self.0.write_back(at, len);
    }

    fn fence(&self) -> Result<(), Error> {
        self.0.fence()
    }
}

/// Whoever holds the number of an inode that is freed, with its chunk, meanwhile, finds it or finds
/// that it is gone.
#[test]
fn numbers_are_looked_up_while_the_table_shrinks() {
    let slow = Slow(Ram::new(16 << 20));
    media::format(&slow);
    let vol = mount(slow);
    let file = NewInode {
        mode: 0o100_644,
        ..NewInode::default()
    };
    let done = AtomicBool::new(false);
    let (mut there, mut gone) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let mut files: Vec<_> = (0..2000).map(|_| vol.tmpfile(&file).unwrap()).collect();
                for file in &mut files {
                    vol.free_inode(file).unwrap();
                }
            }
        });
        SLOW.set(true);
        let mut random = Random(3);
        while there < 50 || gone < 50 {
            // Behind what is always there.
            match vol.iget(800 + random.below(1200)) {
                Ok(_) => there += 1,
                Err(Error::Stale) => gone += 1,
                Err(e) => {
                    done.store(true, Ordering::Relaxed);
                    panic!("{e}, after {there} and {gone}");
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Bytes of its own that each thread writes.
const SLICE: u64 = 256;

#[test]
fn crashes_while_threads_commit() {
    let sim = made(SMALL);
    let vol = mount(sim.clone());
    let mut tx = vol.begin().unwrap();
    let field = tx.alloc(Want::blocks(1)).unwrap().block;
    tx.init_zero(field * BLOCK, BLOCK).unwrap();
    tx.commit().unwrap();
    const ROUNDS: u64 = 12;
    sim.record();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (vol, sim) = (&vol, &sim);
            scope.spawn(move || {
                let at = field * BLOCK + thread * SLICE;
                let mut last: Option<Run> = None;
                for round in 1..=ROUNDS {
                    // Bitmaps and their summaries are shared, the slice is not.
                    let mut tx = vol.begin().unwrap();
                    let run = tx.alloc(Want::blocks(1)).unwrap();
                    tx.write(at, &[round as u8; SLICE as usize - 8]).unwrap();
                    tx.write(at + SLICE - 8, &run.block.to_le_bytes()).unwrap();
                    if let Some(run) = last.replace(run) {
                        tx.free(run.block, run.len).unwrap();
                    }
                    tx.commit().unwrap();
                    sim.mark((thread << 32) | round);
                }
            });
        }
    });
    let trace = sim.take_trace();
    let before = used_blocks(&mount(made(SMALL)));
    let bounds = Bounds {
        per_fence: 25,
        seed: 5,
    };
    let count = trace.for_each_crash(bounds, |crash| {
        let vol = mount(&crash.sim);
        let used = used_blocks(&vol);
        let mut expected = before.clone();
        expected[field as usize] = true;
        for thread in 0..4 {
            let done = crash.marks.iter().filter(|m| *m >> 32 == thread).count() as u64;
            let at = field * BLOCK + thread * SLICE;
            let slice = media::bytes(vol.pmem(), at, SLICE);
            let round = u64::from(slice[0]);
            assert!(
                round == done || round == done + 1,
                "{round} after {done}: {crash}"
            );
            let (fill, block) = slice.split_at(SLICE as usize - 8);
            assert!(fill.iter().all(|b| u64::from(*b) == round), "torn: {crash}");
            if round > 0 {
                let block = u64::from_le_bytes(block.try_into().unwrap());
                assert!(
                    !expected[block as usize],
                    "two threads have {block}: {crash}"
                );
                expected[block as usize] = true;
            }
        }
        assert_eq!(used, expected, "{crash}");
    });
    assert!(count > 1_000, "{count}");
}
