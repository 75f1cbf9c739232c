// SPDX-License-Identifier: GPL-2.0

//! The block allocator against a set of blocks.

mod media;

use std::collections::BTreeSet;
use std::sync::Arc;

use media::{bytes, free_blocks, made, mount, used_blocks, Pausing, SMALL};
use proptest::prelude::*;
use rdax_volume::sim::Sim;
use rdax_volume::volume::alloc::{Kept, Reservation, Run, Want};
use rdax_volume::volume::error::{Error, Structure};
use rdax_volume::volume::format::{BLOCK, CHUNK_BLOCKS};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::Volume;

type Vol = Volume<Arc<Sim>>;

fn fresh(bytes: u64) -> Vol {
    mount(made(bytes))
}

fn blocks_of(run: Run) -> std::ops::Range<u64> {
    run.block..run.end()
}

/// Up to `len` blocks, also the last ones.
fn up_to(len: u64) -> Want {
    Want::blocks(len).use_reserve()
}

/// Commits the allocation of `want`.
fn alloc(vol: &Vol, want: Want) -> Result<Run, Error> {
    let mut tx = vol.begin().unwrap();
    let run = tx.alloc(want)?;
    tx.commit().unwrap();
    Ok(run)
}

fn free(vol: &Vol, run: Run) {
    let mut tx = vol.begin().unwrap();
    tx.free(run.block, run.len).unwrap();
    tx.commit().unwrap();
}

#[derive(Clone, Debug)]
enum Op {
    Reserve {
        want: Want,
        take: bool,
    },
    Truncate {
        pick: usize,
        len: u64,
    },
    Take {
        pick: usize,
        commit: bool,
    },
    GiveBack {
        pick: usize,
    },
    Free {
        pick: usize,
        part: (u64, u64),
        commit: bool,
    },
    Remount,
}

fn want() -> impl Strategy<Value = Want> {
    let len = prop_oneof![4 => 1..20_u64, 2 => 20..600_u64, 1 => 600..3000_u64];
    let goal = prop::option::of(0..5000_u64);
    let key = prop::option::of(0..5000_u64);
    let limited = prop::bool::weighted(0.2);
    let flags = (any::<bool>(), any::<bool>());
    (len, 1..600_u64, limited, goal, key, flags).prop_map(
        |(len, min, limited, goal, key, (grows, begins))| Want {
            len,
            min: if limited {
                min.min(len).min(CHUNK_BLOCKS)
            } else {
                1
            },
            goal,
            align_key: key,
            begins: begins && key.is_some(),
            kept: Kept::Removal,
            grows,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let pick = any::<usize>;
    prop_oneof![
        8 => (want(), any::<bool>()).prop_map(|(want, take)| Op::Reserve { want, take }),
        1 => (pick(), 1..40_u64).prop_map(|(pick, len)| Op::Truncate { pick, len }),
        3 => (pick(), any::<bool>()).prop_map(|(pick, commit)| Op::Take { pick, commit }),
        1 => pick().prop_map(|pick| Op::GiveBack { pick }),
        5 => (pick(), any::<(u64, u64)>(), prop::bool::weighted(0.8))
            .prop_map(|(pick, part, commit)| Op::Free { pick, part, commit }),
        1 => Just(Op::Remount),
    ]
}

/// What is in use and reserved, block by block.
struct Model {
    free: BTreeSet<u64>,
    runs: Vec<Run>,
}

impl Model {
    /// `run` is what the allocator gave for `want`.
    fn take(&mut self, run: Run, want: &Want) {
        assert!(
            run.len >= want.min && run.len <= want.len,
            "{run:?} {want:?}"
        );
        // A goal that is free is used, unless alignment matters more.
        let goal = want.goal.filter(|goal| self.free.contains(goal));
        let aligned = |block: u64| match want.align_key {
            Some(key) => block % CHUNK_BLOCKS == key % CHUNK_BLOCKS,
            None => true,
        };
        let whole = |chunk: u64| {
            (chunk * CHUNK_BLOCKS..(chunk + 1) * CHUNK_BLOCKS).all(|b| self.free.contains(&b))
        };
        let room = |chunk: u64| {
            let block = chunk * CHUNK_BLOCKS + want.align_key.unwrap_or(0) % CHUNK_BLOCKS;
            whole(chunk) && (block..block + want.min).all(|b| self.free.contains(&b))
        };
        let has_room = (0..16).any(room);
        if let Some(goal) = goal {
            let enough = (goal..goal + want.min).all(|block| self.free.contains(&block));
            let continues = !want.begins || whole(goal / CHUNK_BLOCKS) || !has_room;
            if aligned(goal) && enough && continues {
                assert_eq!(run.block, goal, "{want:?}");
                let len = (goal..)
                    .take_while(|block| self.free.contains(block))
                    .count() as u64;
                assert_eq!(run.len, len.min(want.len), "{want:?}");
            }
        }
        // What asks for it is aligned where a wholly free chunk exists.
        if want.align_key.is_some() && has_room {
            assert!(aligned(run.block), "{run:?} {want:?}");
        }
        if want.begins && has_room {
            assert!(whole(run.block / CHUNK_BLOCKS), "{run:?} {want:?}");
        }
        for block in blocks_of(run) {
            assert!(self.free.remove(&block), "{block} is not free: {run:?}");
        }
    }

    fn give_back(&mut self, run: Run) {
        for block in blocks_of(run) {
            assert!(self.free.insert(block));
        }
    }

    /// There is a run of `min` free blocks in some chunk.
    fn has(&self, min: u64) -> bool {
        let mut len = 0;
        let mut next = None;
        self.free.iter().any(|block| {
            let joins = next == Some(*block) && block % CHUNK_BLOCKS != 0;
            len = if joins { len + 1 } else { 1 };
            next = Some(block + 1);
            len >= min
        })
    }
}

fn run_ops(bytes: u64, ops: &[Op]) {
    let sim = made(bytes);
    let mut vol = mount(sim.clone());
    let used = used_blocks(&vol);
    let mut model = Model {
        free: (0..used.len() as u64)
            .filter(|b| !used[*b as usize])
            .collect(),
        runs: Vec::new(),
    };
    let mut ops = ops.iter().peekable();
    while ops.peek().is_some() {
        if with_mount(&vol, &mut model, &mut ops) {
            drop(vol);
            vol = mount(sim.clone());
        }
    }
}

/// Carries out `ops` until one says that the volume is to be mounted again.
fn with_mount<'a>(
    vol: &Vol,
    model: &mut Model,
    ops: &mut std::iter::Peekable<impl Iterator<Item = &'a Op>>,
) -> bool {
    let mut reserved: Vec<Reservation<'_, Arc<Sim>>> = Vec::new();
    let mut again = false;
    for op in ops.by_ref() {
        match op {
            Op::Reserve { want, take } => {
                match vol.reserve(*want) {
                    Ok(reservation) => {
                        model.take(reservation.run(), want);
                        reserved.push(reservation);
                    }
                    Err(Error::NoSpace) => assert!(!model.has(want.min), "{want:?}"),
                    Err(e) => panic!("{e}"),
                }
                if let Some(reservation) = take.then(|| reserved.pop()).flatten() {
                    let mut tx = vol.begin().unwrap();
                    model.runs.push(tx.take(reservation).unwrap());
                    tx.commit().unwrap();
                }
            }
            Op::Truncate { pick, len } if !reserved.is_empty() => {
                let i = pick % reserved.len();
                let old = reserved[i].run();
                reserved[i].truncate(*len);
                let new = reserved[i].run();
                assert_eq!((new.block, new.len), (old.block, old.len.min(*len)));
                if new != old {
                    model.give_back(Run {
                        block: new.end(),
                        len: old.len - new.len,
                    });
                }
            }
            Op::Take { pick, commit } if !reserved.is_empty() => {
                let reservation = reserved.swap_remove(pick % reserved.len());
                let mut tx = vol.begin().unwrap();
                let run = tx.take(reservation).unwrap();
                if *commit {
                    tx.commit().unwrap();
                    model.runs.push(run);
                } else {
                    drop(tx);
                    model.give_back(run);
                }
            }
            Op::GiveBack { pick } if !reserved.is_empty() => {
                let reservation = reserved.swap_remove(pick % reserved.len());
                model.give_back(reservation.run());
            }
            Op::Free { pick, part, commit } if !model.runs.is_empty() => {
                // A part of what a file could have: runs that touch are one.
                let i = pick % model.runs.len();
                let run = model.runs.swap_remove(i);
                let first = part.0 % run.len;
                let len = 1 + part.1 % (run.len - first);
                let mut tx = vol.begin().unwrap();
                tx.free(run.block + first, len).unwrap();
                if *commit {
                    tx.commit().unwrap();
                    model.give_back(Run {
                        block: run.block + first,
                        len,
                    });
                    let last = first + len;
                    let rest = [
                        Run {
                            block: run.block,
                            len: first,
                        },
                        Run {
                            block: run.block + last,
                            len: run.len - last,
                        },
                    ];
                    model
                        .runs
                        .extend(rest.into_iter().filter(|run| run.len > 0));
                } else {
                    drop(tx);
                    model.runs.push(run);
                }
            }
            Op::Remount => {
                again = true;
                break;
            }
            _ => {}
        }
        assert_eq!(vol.free_blocks(), model.free.len() as u64);
    }
    for reservation in reserved.drain(..) {
        model.give_back(reservation.run());
    }
    let used = used_blocks(vol);
    for (block, used) in (0..).zip(used) {
        assert_eq!(model.free.contains(&block), !used, "block {block}");
    }
    again
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_block_is_given_twice_and_none_is_lost(ops in prop::collection::vec(op(), 1..160)) {
        run_ops(SMALL, &ops);
    }

    /// Two groups.
    #[test]
    fn nor_with_groups(ops in prop::collection::vec(op(), 1..60)) {
        run_ops(260 << 20, &ops);
    }
}

#[test]
fn every_block_can_be_had_and_given_back() {
    for (size, len) in [
        (SMALL, 1),
        (SMALL, 7),
        (300 << 20, 512),
        (300 << 20, 100_000),
    ] {
        let vol = fresh(size);
        let free = free_blocks(&vol);
        let mut reserved = Vec::new();
        let mut total = 0;
        while let Ok(reservation) = vol.reserve(up_to(len)) {
            total += reservation.run().len;
            reserved.push(reservation);
        }
        assert_eq!((total, vol.free_blocks()), (free, 0));
        assert_eq!(alloc(&vol, up_to(1)), Err(Error::NoSpace));
        drop(reserved);
        assert_eq!(vol.free_blocks(), free);
        let mut runs = Vec::new();
        while let Ok(run) = alloc(&vol, up_to(len)) {
            runs.push(run);
        }
        assert_eq!(free_blocks(&vol), 0);
        assert_eq!(vol.reserve(up_to(1)).err(), Some(Error::NoSpace));
        // Full is full only until something is freed, in any group.
        for run in [runs[0], runs[runs.len() - 1]] {
            free_and_take_again(&vol, run);
        }
    }
}

fn free_and_take_again(vol: &Vol, run: Run) {
    free(vol, run);
    let mut got = 0;
    while let Ok(run) = alloc(vol, up_to(512)) {
        got += run.len;
    }
    assert_eq!(got, run.len);
}

#[test]
fn a_begun_chunk_is_left_to_its_file() {
    let vol = mount(made(64 << 20));
    // Nothing is free in chunks that are partly in use.
    while alloc(&vol, up_to(1)).unwrap().block % CHUNK_BLOCKS != CHUNK_BLOCKS - 1 {}
    let begun = alloc(&vol, Want::blocks(1).beginning(7)).unwrap();
    let chunk = begun.block / CHUNK_BLOCKS;
    for len in (1..200).step_by(19) {
        let other = alloc(&vol, up_to(len)).unwrap();
        assert_ne!(other.block / CHUNK_BLOCKS, chunk, "{len} blocks");
    }
    // The file itself goes on there, and others when nothing else is left.
    let next = alloc(&vol, Want::blocks(1).near(begun.block + 1)).unwrap();
    assert_eq!(next.block, begun.block + 1);
    let mut last = None;
    while let Ok(run) = alloc(&vol, up_to(1)) {
        last = Some(run.block / CHUNK_BLOCKS);
    }
    assert_eq!(last, Some(chunk));
}

#[test]
fn a_begun_chunk_that_shrinks_is_for_all() {
    let vol = mount(made(64 << 20));
    while alloc(&vol, up_to(1)).unwrap().block % CHUNK_BLOCKS != CHUNK_BLOCKS - 1 {}
    let begun = alloc(&vol, Want::blocks(2).beginning(7)).unwrap();
    let last = Run {
        block: begun.block + 1,
        len: 1,
    };
    free(&vol, last);
    let other = alloc(&vol, up_to(4)).unwrap();
    assert_eq!(other.block / CHUNK_BLOCKS, begun.block / CHUNK_BLOCKS);
}

#[test]
fn begun_chunks_do_not_count_as_searched() {
    let vol = mount(made(64 << 20));
    while alloc(&vol, up_to(1)).unwrap().block % CHUNK_BLOCKS != CHUNK_BLOCKS - 1 {}
    for _ in 0..13 {
        alloc(&vol, Want::blocks(1).beginning(CHUNK_BLOCKS)).unwrap();
    }
    let partly = alloc(&vol, up_to(CHUNK_BLOCKS + 5).aligned(0)).unwrap();
    let small = alloc(&vol, up_to(4)).unwrap();
    assert_eq!(small.block, partly.end());
}

#[test]
fn a_long_run_ends_before_a_begun_chunk() {
    let vol = mount(made(64 << 20));
    let begun = alloc(&vol, Want::blocks(1).beginning(3 * CHUNK_BLOCKS + 7)).unwrap();
    let chunk = begun.block / CHUNK_BLOCKS;
    let long = Want::blocks(8 * CHUNK_BLOCKS).aligned(0);
    let mut ends = Vec::new();
    while let Ok(run) = alloc(&vol, long.at_least(CHUNK_BLOCKS)) {
        ends.push(run.end());
    }
    assert!(ends.contains(&(chunk * CHUNK_BLOCKS)), "{ends:?}");
}

#[test]
fn small_runs_leave_free_chunks_whole() {
    let vol = fresh(64 << 20);
    let chunks = |vol: &Vol| {
        let used = used_blocks(vol);
        used.chunks(CHUNK_BLOCKS as usize)
            .filter(|chunk| chunk.iter().all(|used| !used))
            .count()
    };
    let before = chunks(&vol);
    // The partly used chunks at both ends have room for all of these.
    for _ in 0..100 {
        alloc(&vol, up_to(4)).unwrap();
    }
    assert_eq!(chunks(&vol), before);
    // What does not fit well there takes a free chunk, and those that follow share it.
    let runs: Vec<Run> = (0..8).map(|_| alloc(&vol, up_to(60)).unwrap()).collect();
    assert!(runs.iter().all(|run| run.len == 60));
    assert!(chunks(&vol) >= before - 1);
}

/// The runs of free blocks among `used`, as first block and length.
fn free_runs(used: &[bool]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for block in (0..used.len() as u64).filter(|block| !used[*block as usize]) {
        match runs.last_mut() {
            Some((first, len)) if *first + *len == block => *len += 1,
            _ => runs.push((block, 1)),
        }
    }
    runs
}

/// Most blocks that a search looks for before it takes what it finds.
const GOOD: u64 = 64;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn of_one_chunk_the_first_good_run_is_taken_or_the_longest(
        lens in prop::collection::vec(prop_oneof![4 => 1..5_u64, 2 => 5..70_u64, 1 => 60..140_u64], 1..300),
        len in prop_oneof![3 => 1..80_u64, 1 => 80..600_u64],
    ) {
        let vol = fresh(SMALL);
        while alloc(&vol, up_to(CHUNK_BLOCKS)).is_ok() {}
        // Free and used runs in turn.
        let mut at = CHUNK_BLOCKS;
        for (i, len) in lens.into_iter().enumerate() {
            let len = len.min(2 * CHUNK_BLOCKS - at);
            if i % 2 == 1 && len > 0 {
                free(&vol, Run { block: at, len });
            }
            at += len;
        }
        let runs = free_runs(&used_blocks(&vol));
        let good = len.min(GOOD).min(vol.free_blocks());
        let longest = runs.iter().rev().max_by_key(|run| run.1);
        let best = runs.iter().find(|run| run.1 >= good).or(longest);
        let found = vol.reserve(Want::blocks(len).for_removal());
        match best {
            Some((first, run)) => {
                let expected = Run { block: *first, len: len.min(*run) };
                prop_assert_eq!(found.unwrap().run(), expected);
            }
            None => prop_assert!(matches!(found, Err(Error::NoSpace))),
        }
    }
}

#[test]
fn large_files_are_aligned() {
    let vol = fresh(64 << 20);
    // From the start of a file; further on, where it continues; after a hole.
    let first = alloc(&vol, up_to(1024).aligned(0)).unwrap();
    assert_eq!((first.block % CHUNK_BLOCKS, first.len), (0, 1024));
    let next = alloc(&vol, up_to(700).aligned(1024).near(first.end())).unwrap();
    assert_eq!((next.block, next.len), (first.end(), 700));
    let hole = alloc(&vol, up_to(600).aligned(5000)).unwrap();
    assert_eq!(
        (hole.block % CHUNK_BLOCKS, hole.len),
        (5000 % CHUNK_BLOCKS, 600)
    );
    // A file that began misaligned gets aligned space once it is worth it.
    let small = alloc(&vol, up_to(3)).unwrap();
    let more = alloc(&vol, up_to(2000).aligned(3).near(small.end())).unwrap();
    assert_eq!((more.block % CHUNK_BLOCKS, more.len), (3, 2000));
    // And small pieces just continue.
    let piece = alloc(&vol, up_to(16).near(more.end())).unwrap();
    assert_eq!((piece.block, piece.len), (more.end(), 16));
}

#[test]
fn nonsense_is_refused() {
    let vol = fresh(SMALL);
    for (len, min) in [(0, 0), (0, 1), (1, 0), (4, 5), (1000, 513)] {
        let refused = vol.reserve(up_to(len).at_least(min)).err();
        assert_eq!(refused, Some(Error::Invalid), "{len} {min}");
    }
    // Goals that are nowhere, or in the metadata, do no harm.
    for goal in [0, 1, SMALL / BLOCK - 1, SMALL / BLOCK, u64::MAX] {
        let run = alloc(&vol, up_to(2).near(goal)).unwrap();
        assert!(vol.geometry().is_data(run.block, run.len));
    }
}

#[test]
fn damaged_bitmaps_are_refused() {
    let vol = fresh(SMALL);
    let geo = *vol.geometry();
    let at = geo.bitmap_at(1);
    let run = alloc(&vol, up_to(1).near(512)).unwrap();
    assert_eq!(run.block, 512);
    let old = bytes(vol.pmem(), at, 64);
    let corrupt = Error::Corrupt {
        what: Structure::Bitmap,
        at,
    };
    for (addr, value) in [
        (at, 0),
        (at + 63, 1),
        (geo.summary_at(1) + 4, 3),
        (geo.summary_at(1), 7),
    ] {
        let before = bytes(vol.pmem(), addr, 1);
        vol.pmem().store(addr, &[value]).unwrap();
        assert_eq!(
            vol.reserve(up_to(1).near(600)).err(),
            Some(corrupt),
            "{addr:#x}"
        );
        let mut tx = vol.begin().unwrap();
        assert_eq!(tx.free(512, 1), Err(corrupt));
        drop(tx);
        vol.pmem().store(addr, &before).unwrap();
    }
    assert_eq!(bytes(vol.pmem(), at, 64), old);
    vol.pmem().poison(at, 1);
    assert_eq!(
        vol.reserve(up_to(1).near(600)).err(),
        Some(Error::Media { at })
    );
    vol.pmem().clear_poison();
    free(&vol, run);
}

/// What a damaged tree names is not freed if it is free, reserved, or being freed already.
#[test]
fn only_blocks_in_use_are_freed() {
    let vol = fresh(SMALL);
    let run = alloc(&vol, up_to(20)).unwrap();
    let reserved = vol.reserve(up_to(5).near(run.end())).unwrap();
    assert_eq!(reserved.run().block, run.end());
    let free = vol.free_blocks();
    let corrupt = Err(Error::Corrupt {
        what: Structure::Bitmap,
        at: vol.geometry().bitmap_at(run.block / CHUNK_BLOCKS),
    });
    let of_run = |block: u64| {
        Err(Error::Corrupt {
            what: Structure::Bitmap,
            at: block * BLOCK,
        })
    };
    let mut tx = vol.begin().unwrap();
    // Free: behind what is reserved, and from there on.
    let behind = reserved.run().end();
    assert_eq!(tx.free(behind, 1), corrupt);
    assert_eq!(tx.free(behind, 3), corrupt);
    for (block, len) in [(run.end(), 1), (run.end() - 1, 2), (run.block, 30)] {
        assert_eq!(tx.free(block, len), of_run(block), "reserved");
    }
    tx.free(run.block + 5, 5).unwrap();
    for (first, len) in [(5, 5), (9, 1), (0, 6), (4, 10), (9, 5)] {
        let block = run.block + first;
        assert_eq!(tx.free(block, len), of_run(block), "twice");
    }
    tx.commit().unwrap();
    assert_eq!(tx_free(&vol, run.block + 5), corrupt, "after the commit");
    drop(reserved);
    assert_eq!(vol.free_blocks(), free + 5 + 5);
    assert_eq!(free_blocks(&vol), vol.free_blocks());
}

fn tx_free(vol: &Vol, block: u64) -> Result<(), Error> {
    let mut tx = vol.begin().unwrap();
    tx.free(block, 1)
}

#[test]
fn a_search_reads_little() {
    // A small allocation on a large volume, the first after a mount and the ones after.
    let vol = fresh(4 << 30);
    vol.pmem().reset_stats();
    drop(vol.reserve(up_to(1)).unwrap());
    let first = vol.pmem().stats().bytes_read;
    assert!(first < 16_000, "{first} bytes");
    vol.pmem().reset_stats();
    for _ in 0..10 {
        drop(vol.reserve(up_to(1)).unwrap());
    }
    let each = vol.pmem().stats().bytes_read / 10;
    assert!(each <= 160, "{each} bytes");
}

/// Where only windows are left, others' searches see that once, and again when blocks are freed.
#[test]
fn a_search_reads_little_where_only_windows_are_left() {
    let vol = fresh(4 << 30);
    // A file that grows until its window is long.
    let mut end = alloc(&vol, up_to(1)).unwrap().end();
    for _ in 0..300 {
        let run = alloc(&vol, up_to(1).near(end).growing()).unwrap();
        assert_eq!(run.block, end);
        end = run.end();
    }
    // All else.
    let last = 100;
    let mut others = Vec::new();
    while vol.free_blocks() > last {
        let len = vol.free_blocks() - last;
        others.push(alloc(&vol, up_to(len)).unwrap());
    }
    vol.pmem().reset_stats();
    let mut taken = Vec::new();
    for _ in 0..20 {
        taken.push(vol.reserve(up_to(1)).unwrap());
        let block = taken.last().unwrap().run().block;
        assert!((end..end + 512).contains(&block), "{block} after {end}");
    }
    let each = vol.pmem().stats().bytes_read / 20;
    assert!(each <= 400, "{each} bytes");
    let run = others[0];
    free(&vol, run);
    let next = vol.reserve(up_to(1)).unwrap().run();
    assert!((run.block..run.end()).contains(&next.block), "{next:?}");
}

/// Freed blocks are free on the media before the transaction is retired. Given away then, they
/// could be freed under their new owner by the replay of that transaction.
#[test]
fn freed_blocks_are_busy_until_their_transaction_is_retired() {
    let sim = made(SMALL);
    let run = alloc(&mount(sim.clone()), up_to(20)).unwrap();
    let vol = mount(Pausing::new(sim));
    // Held before the fences of log, of the change in place, and of `retired`.
    for fences in 0..3 {
        let free = vol.free_blocks();
        vol.pmem().at_fence(
            fences,
            || {
                let mut tx = vol.begin().unwrap();
                tx.free(run.block, run.len).unwrap();
                tx.commit().unwrap();
            },
            || {
                assert_eq!(vol.free_blocks(), free);
                let mut all = Vec::new();
                while let Ok(reservation) = vol.reserve(up_to(512)) {
                    all.push(reservation);
                }
                let total: u64 = all.iter().map(|reservation| reservation.run().len).sum();
                assert_eq!(total, free);
                let touches = |r: Run| r.block < run.end() && run.block < r.end();
                assert!(!all.iter().any(|reservation| touches(reservation.run())));
            },
        );
        assert_eq!(vol.free_blocks(), free + run.len);
        let mut tx = vol.begin().unwrap();
        assert_eq!(tx.alloc(up_to(run.len).near(run.block)), Ok(run));
        tx.commit().unwrap();
    }
}

/// Allocated blocks are free on the media until the change in place. They are busy meanwhile.
#[test]
fn allocated_blocks_are_busy_until_they_are_in_use() {
    let vol = mount(Pausing::new(made(SMALL)));
    for fences in 0..3 {
        let goal = 700 + fences as u64;
        let want = up_to(1).near(goal);
        vol.pmem().at_fence(
            fences,
            || {
                let mut tx = vol.begin().unwrap();
                assert_eq!(tx.alloc(want).unwrap().block, goal);
                tx.commit().unwrap();
            },
            || {
                let other = vol.reserve(want).unwrap();
                assert_ne!(other.run().block, goal);
            },
        );
    }
}
