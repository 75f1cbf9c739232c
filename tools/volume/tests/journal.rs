// SPDX-License-Identifier: GPL-2.0

//! Transactions against crashes at every fence: after recovery the volume is as before or as after.

mod media;

use std::mem::offset_of;
use std::sync::Arc;

use media::{bytes, empty_file, ensure, made, mount, try_used_blocks, try_used_inodes, SMALL};
use proptest::prelude::*;
use rdax_volume::env::fail_allocations_after;
use rdax_volume::sim::{Bounds, Image, Mistake, Sim, Trace};
use rdax_volume::volume::alloc::{Run, Want};
use rdax_volume::volume::error::{Error, Structure};
use rdax_volume::volume::format::{LaneHeader, RawInode, BLOCK, LANE_BODY, LANE_COUNT};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::journal::{retired_word, unretired_word, Tx, BODY_MAX};
use rdax_volume::volume::pmem::{read_struct, Pmem};
use rdax_volume::volume::{MountOptions, Volume};
use zerocopy::IntoBytes;

/// Bytes that transactions of the tests write to: one block.
const FIELD: u64 = BLOCK;

/// What a volume holds, as far as these tests change it. Read from the media, with every checksum
/// and count verified on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    field: Vec<u8>,
    used: Vec<bool>,
    inodes: Vec<(u64, Vec<u8>)>,
}

impl State {
    fn of<P: Pmem>(vol: &Volume<P>, field: u64) -> Result<State, String> {
        let used = try_used_blocks(vol)?;
        let inodes = try_used_inodes(vol)?;
        for (ino, bytes) in &inodes {
            let inode = vol.iget(*ino).map_err(|e| format!("inode {ino}: {e}"))?;
            ensure(inode.raw().as_bytes() == bytes, "an inode in its place")?;
        }
        let count = vol.statfs().inodes_used == inodes.len() as u64;
        ensure(count, "the count of inodes in use")?;
        Ok(State {
            field: bytes(vol.pmem(), field * BLOCK, FIELD),
            used,
            inodes,
        })
    }
}

/// What mounting the volume after `crash` gives, unless it is not sound.
fn recovered(sim: &Sim, field: u64) -> Result<State, String> {
    let mount = || Volume::mount(sim, MountOptions::default()).map_err(|e| format!("mount: {e}"));
    let state = State::of(&mount()?, field)?;
    // Once more: nothing is left to do, and the same is there.
    let vol = mount()?;
    let notes = vol.notes();
    ensure((notes.replayed, notes.cancelled) == (0, 0), "recovery ends")?;
    ensure(State::of(&vol, field)? == state, "recovery again")?;
    Ok(state)
}

/// A part of a transaction.
#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, len: usize, fill: u8 },
    Update { at: u64, len: usize, fill: u8 },
    Alloc { len: u64 },
    Free { pick: usize },
    CreateInode { fill: u8 },
    ChangeInode { pick: usize, fill: u8 },
    FreeInode { pick: usize },
}

/// A volume with what a test has put there.
struct Bench {
    vol: Volume<Arc<Sim>>,
    field: u64,
    runs: Vec<Run>,
    inodes: Vec<u64>,
}

impl Bench {
    /// On what a crash has left of another.
    fn on(sim: Arc<Sim>, field: u64) -> Bench {
        Bench {
            vol: mount(sim),
            field,
            runs: Vec::new(),
            inodes: Vec::new(),
        }
    }

    fn new() -> Bench {
        let mut bench = Bench::on(made(SMALL), 0);
        let mut tx = bench.vol.begin().unwrap();
        let field = tx.alloc(Want::blocks(1)).unwrap().block;
        tx.init_zero(field * BLOCK, FIELD).unwrap();
        tx.commit().unwrap();
        bench.field = field;
        bench
    }

    fn sim(&self) -> &Sim {
        self.vol.pmem()
    }

    fn state(&self) -> State {
        State::of(&self.vol, self.field).unwrap()
    }

    /// Adds `steps` to one transaction and commits or drops it. Within a transaction no block and
    /// no inode is touched twice.
    fn transact(&mut self, steps: &[Step], commit: bool) {
        let vol = &self.vol;
        // What needs reserving comes before the transaction.
        let mut slots: Vec<_> = steps
            .iter()
            .filter(|step| matches!(step, Step::CreateInode { .. }))
            .map(|_| vol.reserve_inode().unwrap())
            .collect();
        let loaded: Vec<Inode> = self.inodes.iter().map(|i| vol.iget(*i).unwrap()).collect();
        let mut tx = vol.begin().unwrap();
        let mut field = bytes(vol.pmem(), self.field * BLOCK, FIELD);
        let (mut runs, mut inodes) = (self.runs.clone(), loaded);
        let (mut new_runs, mut new_inodes) = (Vec::new(), Vec::new());
        for step in steps {
            match *step {
                Step::Write { at, len, fill } => {
                    let at = at / 8 * 8;
                    let len = (len.min((FIELD - at) as usize)) / 8 * 8;
                    field[at as usize..at as usize + len].fill(fill);
                    tx.write(self.field * BLOCK + at, &vec![fill; len]).unwrap();
                }
                Step::Update { at, len, fill } => {
                    let at = at / 8 * 8;
                    let len = (len.min((FIELD - at) as usize)) / 8 * 8;
                    let range = at as usize..at as usize + len;
                    let old = field[range.clone()].to_vec();
                    for byte in field[range.clone()].iter_mut().step_by(3) {
                        *byte = fill;
                    }
                    tx.update(self.field * BLOCK + at, &old, &field[range])
                        .unwrap();
                }
                Step::Alloc { len } => match tx.alloc(Want::blocks(len)) {
                    Ok(run) => new_runs.push(run),
                    Err(e) => assert_eq!(e, Error::NoSpace),
                },
                Step::Free { pick } if !runs.is_empty() => {
                    let run = runs.swap_remove(pick % runs.len());
                    tx.free(run.block, run.len).unwrap();
                }
                Step::CreateInode { fill } => {
                    let raw = raw_inode(vol, fill);
                    new_inodes.push(tx.create_inode(slots.pop().unwrap(), raw).unwrap().ino());
                }
                Step::ChangeInode { pick, fill } if !inodes.is_empty() => {
                    let inode = inodes.swap_remove(pick % inodes.len());
                    change(vol.geometry().seed, &mut tx, &inode, fill);
                    new_inodes.push(inode.ino());
                }
                Step::FreeInode { pick } if !inodes.is_empty() => {
                    let inode = inodes.swap_remove(pick % inodes.len());
                    tx.free_inode(&inode).unwrap();
                }
                _ => {}
            }
        }
        if commit {
            tx.commit().unwrap();
            runs.append(&mut new_runs);
            new_inodes.extend(inodes.iter().map(Inode::ino));
            (self.runs, self.inodes) = (runs, new_inodes);
            assert_eq!(field, bytes(vol.pmem(), self.field * BLOCK, FIELD));
        }
    }
}

fn raw_inode<P: Pmem>(vol: &Volume<P>, fill: u8) -> RawInode {
    let mut raw = empty_file(vol);
    raw.uid = u32::from(fill).into();
    raw.size = (u64::from(fill) << 32).into();
    raw
}

/// Logs a change of `inode`, in a volume of this `seed`, as the volume's own operations do, but
/// through the public functions.
fn change<P: Pmem>(seed: u32, tx: &mut Tx<'_, P>, inode: &Inode, fill: u8) {
    let mut raw = inode.raw().clone();
    raw.mtime_sec = i64::from(fill).into();
    raw.gid = u32::from(fill).into();
    rdax_volume::volume::inode::seal(&mut raw, seed);
    let old = inode.raw().as_bytes();
    let new = raw.as_bytes();
    tx.update(inode.at(), old, new).unwrap();
}

/// Looks at the crash states of `trace`: at mark `n`, the state must be number `n` of `states` or
/// the next. Returns how many states were looked at, and those that were not so.
fn violations(trace: &Trace, bounds: Bounds, states: &[State], field: u64) -> (u64, Vec<String>) {
    let mut bad = Vec::new();
    let count = trace.for_each_crash(bounds, |crash| {
        let before = crash.marks.last().map_or(0, |n| *n as usize);
        let allowed = &states[before..states.len().min(before + 2)];
        match recovered(&crash.sim, field) {
            Ok(state) if allowed.contains(&state) => {}
            Ok(_) => bad.push(format!("another state: {crash}")),
            Err(e) => bad.push(format!("{e}: {crash}")),
        }
    });
    (count, bad)
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..FIELD;
    let len = prop_oneof![3 => 1..64_usize, 1 => 64..1500_usize];
    prop_oneof![
        3 => (at.clone(), len.clone(), any::<u8>())
            .prop_map(|(at, len, fill)| Step::Write { at, len, fill }),
        3 => (at, len, any::<u8>()).prop_map(|(at, len, fill)| Step::Update { at, len, fill }),
        2 => (1..600_u64).prop_map(|len| Step::Alloc { len }),
        1 => any::<usize>().prop_map(|pick| Step::Free { pick }),
        2 => any::<u8>().prop_map(|fill| Step::CreateInode { fill }),
        2 => (any::<usize>(), any::<u8>())
            .prop_map(|(pick, fill)| Step::ChangeInode { pick, fill }),
        1 => any::<usize>().prop_map(|pick| Step::FreeInode { pick }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_transactions(
        transactions in prop::collection::vec(
            (prop::collection::vec(step(), 1..6), prop::bool::weighted(0.85)), 1..7),
        seed: u64,
    ) {
        let mut bench = Bench::new();
        let mut states = vec![bench.state()];
        bench.sim().record();
        for (steps, commit) in &transactions {
            bench.transact(steps, *commit);
            states.push(bench.state());
            bench.sim().mark(states.len() as u64 - 1);
        }
        let trace = bench.sim().take_trace();
        let bounds = Bounds { per_fence: 24, seed };
        let (_, bad) = violations(&trace, bounds, &states, bench.field);
        prop_assert!(bad.is_empty(), "{bad:#?}");
    }
}

/// The transaction that creating a file makes: an inode, a record and the directory's inode.
fn create_steps(fill: u8) -> [Step; 5] {
    [
        Step::Alloc { len: 1 },
        Step::CreateInode { fill },
        Step::Update {
            at: 32,
            len: 64,
            fill,
        },
        Step::Write {
            at: 1000,
            len: 40,
            fill,
        },
        Step::Free { pick: 0 },
    ]
}

/// [`create_steps`], then others on the same bytes, so that it shows if the first was not brought
/// to an end. The one that follows has nothing to prepare, so that no fence of its own comes before
/// its log.
fn create_twice(bench: &mut Bench, mistake: Option<Mistake>) -> Vec<State> {
    bench.transact(&create_steps(1), true);
    let mut states = vec![bench.state()];
    bench.sim().record();
    for (n, fill) in (1..).zip([2, 3, 4]) {
        if n == 1 {
            bench.sim().inject(mistake);
        }
        let steps = create_steps(fill);
        bench.transact(if n == 2 { &steps[2..4] } else { &steps }, true);
        if n == 1 && mistake.is_some() {
            assert!(!bench.sim().mistake_pending(), "{mistake:?} was not made");
        }
        states.push(bench.state());
        bench.sim().mark(n);
    }
    states
}

const THOROUGH: Bounds = Bounds {
    per_fence: 600,
    seed: 11,
};

#[test]
fn creating_survives_every_crash() {
    let mut bench = Bench::new();
    let states = create_twice(&mut bench, None);
    let trace = bench.sim().take_trace();
    let (count, bad) = violations(&trace, THOROUGH, &states, bench.field);
    assert!(bad.is_empty(), "{} of {count}: {bad:#?}", bad.len());
    assert!(count > 1000, "only {count} states");
}

/// Lines that one transaction of [`create_twice`] writes back, and its fences.
fn cost() -> (u64, u64) {
    let mut bench = Bench::new();
    create_twice(&mut bench, None);
    bench.sim().reset_stats();
    let slot = bench.vol.reserve_inode().unwrap();
    let raw = raw_inode(&bench.vol, 9);
    let mut tx = bench.vol.begin().unwrap();
    let at = bench.field * BLOCK;
    tx.create_inode(slot, raw).unwrap();
    tx.write(at + 512, &[5; 40]).unwrap();
    tx.update(at + 64, &[0; 64], &[1; 64]).unwrap();
    tx.commit().unwrap();
    let stats = bench.sim().stats();
    assert_eq!(stats.needless_write_backs, 0);
    assert_eq!(stats.needless_fences, 0);
    (stats.lines_written_back, stats.fences)
}

#[test]
fn a_small_transaction_touches_few_lines() {
    let (lines, fences) = cost();
    // Of the inode: its first two lines. Log: header and 2 lines. In place: the record, the
    // directory's line, the header of the inode chunk. Retired: 1.
    assert_eq!((lines, fences), (9, 4));
}

#[test]
fn nothing_is_fenced_twice_or_for_nothing() {
    let mut bench = Bench::new();
    bench.sim().reset_stats();
    bench.vol.begin().unwrap().commit().unwrap();
    drop(bench.vol.begin().unwrap());
    assert_eq!(bench.sim().stats().fences, 0);
    // Without anything to prepare, a fence less.
    bench.transact(
        &[Step::Write {
            at: 0,
            len: 8,
            fill: 1,
        }],
        true,
    );
    assert_eq!(bench.sim().stats().fences, 3);
    assert_eq!(bench.sim().stats().lines_written_back, 2 + 1 + 1);
    assert_eq!(bench.sim().stats().needless_write_backs, 0);
    // Data of the caller's own is ordered before the log.
    let mut tx = bench.vol.begin().unwrap();
    tx.ordered();
    tx.commit().unwrap();
    assert_eq!(bench.sim().stats().fences, 4);
}

/// Every write-back and every fence of a transaction left out in turn: the crash states must show
/// it. Returns the mistakes that do not show.
fn unnoticed(mistake: fn(u64) -> Mistake, count: u64) -> Vec<u64> {
    let mut unnoticed = Vec::new();
    for n in 0..count {
        let mut bench = Bench::new();
        let states = create_twice(&mut bench, Some(mistake(n)));
        let trace = bench.sim().take_trace();
        let (_, bad) = violations(&trace, THOROUGH, &states, bench.field);
        if bad.is_empty() {
            unnoticed.push(n);
        }
    }
    unnoticed
}

/// Write-backs and fences of the first recorded transaction of [`create_twice`].
fn first_transaction() -> (u64, u64) {
    let mut bench = Bench::new();
    create_twice(&mut bench, None);
    bench.sim().reset_stats();
    bench.transact(&create_steps(5), true);
    let stats = bench.sim().stats();
    (stats.lines_written_back, stats.fences)
}

#[test]
fn a_fence_left_out_is_noticed() {
    let (_, fences) = first_transaction();
    assert_eq!(fences, 4);
    assert_eq!(unnoticed(Mistake::Fence, fences), []);
}

#[test]
fn a_write_back_left_out_is_noticed() {
    let (lines, _) = first_transaction();
    assert_eq!(unnoticed(Mistake::WriteBack, lines), []);
}

#[test]
fn a_crash_in_recovery_and_one_after_it() {
    let mut bench = Bench::new();
    let states = create_twice(&mut bench, None);
    let field = bench.field;
    let first = bench.sim().take_trace();
    let (mut replayed, mut cancelled, mut seed) = (0, 0, 0);
    let few = |seed| Bounds {
        per_fence: 12,
        seed,
    };
    first.for_each_crash(few(1), |crash| {
        let sim = Arc::new(Sim::from_image(SMALL, crash.sim.content()));
        let before = recovered(&crash.sim, field).unwrap();
        assert!(states.contains(&before));
        sim.record();
        let mut bench = Bench::on(sim.clone(), field);
        let notes = bench.vol.notes();
        (replayed, cancelled) = (replayed + notes.replayed, cancelled + notes.cancelled);
        assert_eq!(bench.state(), before);
        sim.mark(0);
        let mut states = vec![before];
        for n in 1..3 {
            // The same lane, the same bytes, and half of the log as it was before.
            let fill = 2 + n as u8;
            let steps = [
                Step::Update {
                    at: 32,
                    len: 64,
                    fill: 2,
                },
                Step::Write {
                    at: 1000,
                    len: 40,
                    fill,
                },
                Step::Alloc { len: 3 },
            ];
            bench.transact(&steps, true);
            states.push(bench.state());
            sim.mark(n);
        }
        seed += 1;
        let (_, bad) = violations(&sim.take_trace(), few(seed), &states, field);
        assert!(bad.is_empty(), "after {crash}: {bad:#?}");
    });
    assert!(replayed > 0 && cancelled > 0, "{replayed} {cancelled}");
}

#[test]
fn transactions_in_many_lanes_at_a_time() {
    let bench = Bench::new();
    let vol = &bench.vol;
    let at = |i: u64| bench.field * BLOCK + i * 64;
    bench.sim().record();
    let mut states = vec![bench.state()];
    let slots: Vec<_> = (0..8).map(|_| vol.reserve_inode().unwrap()).collect();
    let mut open = Vec::new();
    for (i, slot) in (0..).zip(slots) {
        let mut tx = vol.begin().unwrap();
        tx.create_inode(slot, raw_inode(vol, i as u8)).unwrap();
        tx.alloc(Want::blocks(i + 1)).unwrap();
        tx.write(at(i), &[i as u8 + 1; 48]).unwrap();
        open.push(tx);
    }
    // All lanes have transactions under way; they share lines of the bitmap and of the inode chunk.
    for (n, i) in (1..).zip([3, 6, 0, 0, 2, 1, 1]) {
        if n == 4 {
            drop(open.remove(i));
        } else {
            open.remove(i).commit().unwrap();
        }
        bench.sim().mark(n);
        states.push(media_state(&bench));
    }
    drop(open);
    assert_eq!(bench.state(), *states.last().unwrap());
    let bounds = Bounds {
        per_fence: 200,
        seed: 4,
    };
    let trace = bench.sim().take_trace();
    let (_, bad) = violations(&trace, bounds, &states, bench.field);
    assert!(bad.is_empty(), "{bad:#?}");
}

/// The state of a volume that has open transactions: what a second mount of its media shows.
fn media_state(bench: &Bench) -> State {
    let sim = Sim::from_image(SMALL, bench.sim().content());
    State::of(&mount(&sim), bench.field).unwrap()
}

#[test]
fn all_lanes_taken_wait_for_one() {
    let bench = Bench::new();
    let mut open: Vec<_> = (0..LANE_COUNT)
        .map(|_| bench.vol.begin().unwrap())
        .collect();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut tx = bench.vol.begin().unwrap();
            tx.write(bench.field * BLOCK, &[1; 8]).unwrap();
            tx.commit().unwrap();
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiting.is_finished());
        open.clear();
        waiting.join().unwrap();
    });
}

#[test]
fn a_log_without_room_refuses() {
    let mut bench = Bench::new();
    let before = bench.state();
    let at = bench.field * BLOCK;
    let mut tx = bench.vol.begin().unwrap();
    assert_eq!(tx.room(), BODY_MAX);
    while tx.room() >= 912 {
        tx.write(at, &[1; 904]).unwrap();
    }
    let room = tx.room();
    assert_eq!(tx.write(at, &[1; 904]), Err(Error::Invalid));
    assert_eq!(tx.room(), room);
    while tx.room() >= 16 {
        tx.write(at, &[1; 8]).unwrap();
    }
    if tx.room() > 0 {
        tx.write(at, &[]).unwrap();
    }
    assert_eq!(tx.room(), 0);
    let reservation = bench.vol.reserve(Want::blocks(7)).unwrap();
    assert_eq!(tx.take(reservation).unwrap_err(), Error::Invalid);
    assert_eq!(tx.alloc(Want::blocks(1)).unwrap_err(), Error::Invalid);
    assert_eq!(tx.free(bench.field, 1), Err(Error::Invalid));
    tx.commit().unwrap();
    bench.transact(
        &[Step::Write {
            at: 0,
            len: 4096,
            fill: 0,
        }],
        true,
    );
    assert_eq!(bench.state(), before);
    // Places that no transaction may write.
    let mut tx = bench.vol.begin().unwrap();
    assert_eq!(tx.write(SMALL, &[1; 8]), Err(Error::Invalid));
    assert_eq!(tx.write(u64::MAX - 7, &[1; 8]), Err(Error::Invalid));
    assert_eq!(tx.write(at, &[1; 4]), Err(Error::Invalid));
    assert_eq!(tx.write(at + 4, &[1; 8]), Err(Error::Invalid));
    assert_eq!(tx.update(at + 4, &[0; 8], &[1; 8]), Err(Error::Invalid));
    assert_eq!(tx.update(at, &[0; 8], &[1; 16]), Err(Error::Invalid));
}

#[test]
fn equal_words_are_not_logged() {
    let bench = Bench::new();
    let mut tx = bench.vol.begin().unwrap();
    let at = bench.field * BLOCK;
    let mut used = 0;
    let mut logs = |new: &[u8], bytes: usize| {
        tx.update(at, &[0; 64], new).unwrap();
        used += bytes;
        assert_eq!(BODY_MAX - tx.room(), used);
    };
    logs(&[0; 64], 0);
    logs(&[1; 64], 8 + 64);
    let mut new = [0; 64];
    new[63] = 1;
    logs(&new, 8 + 8);
    // One equal word between is logged, two are not.
    new[40] = 1;
    logs(&new, 8 + 24);
    new[40] = 0;
    new[32] = 1;
    logs(&new, 2 * (8 + 8));
}

#[test]
fn what_is_not_in_use_is_not_freed() {
    let bench = Bench::new();
    let vol = &bench.vol;
    let before = vol.free_blocks();
    let reservation = vol.reserve(Want::blocks(4)).unwrap();
    let block = reservation.run().block;
    let geo = *vol.geometry();
    let mut tx = vol.begin().unwrap();
    let corrupt = |at| Error::Corrupt {
        what: Structure::Bitmap,
        at,
    };
    // Reserved, and neither reserved nor in use.
    assert_eq!(tx.free(block, 1), Err(corrupt(block * BLOCK)));
    let bitmap = corrupt(geo.bitmap_at(block / 512));
    assert_eq!(tx.free(block + 4, 1), Err(bitmap));
    drop(reservation);
    assert_eq!(tx.free(block, 1), Err(bitmap));
    assert_eq!(tx.free(bench.field, 2), Err(bitmap));
    assert_eq!(
        tx.free(geo.data_block - 1, 1),
        Err(corrupt((geo.data_block - 1) * BLOCK))
    );
    assert_eq!(
        tx.free(geo.blocks - 1, 1),
        Err(corrupt((geo.blocks - 1) * BLOCK))
    );
    assert_eq!(tx.free(u64::MAX, 1), Err(Error::Invalid));
    tx.free(bench.field, 1).unwrap();
    assert_eq!(tx.free(bench.field, 1), Err(corrupt(bench.field * BLOCK)));
    // Another transaction neither.
    let mut other = vol.begin().unwrap();
    assert_eq!(
        other.free(bench.field, 1),
        Err(corrupt(bench.field * BLOCK))
    );
    drop((tx, other));
    assert_eq!(vol.free_blocks(), before);
    bench.state();
}

#[test]
fn without_memory_nothing_is_left_behind() {
    let mut bench = Bench::new();
    bench.transact(
        &[Step::Alloc { len: 9 }, Step::CreateInode { fill: 1 }],
        true,
    );
    let before = bench.state();
    let inode = bench.vol.iget(bench.inodes[0]).unwrap();
    let attempt = |vol: &Volume<Arc<Sim>>| -> Result<(), Error> {
        let slot = vol.reserve_inode()?;
        let orphan = vol.reserve_orphan()?;
        let mut raw = raw_inode(vol, 2);
        let mut tx = vol.begin()?;
        for len in 1..4 {
            tx.alloc(Want::blocks(len))?;
        }
        tx.free(bench.runs[0].block, 9)?;
        tx.attach_orphan(orphan, &mut raw, None)?;
        tx.create_inode(slot, raw)?;
        tx.free_inode(&inode)?;
        tx.commit()
    };
    let mut failures = 0;
    loop {
        // A volume without a memory of former attempts.
        let vol = mount(bench.vol.pmem().clone());
        fail_allocations_after(Some(failures));
        let result = attempt(&vol);
        fail_allocations_after(None);
        if result.is_ok() {
            break;
        }
        assert_eq!(result, Err(Error::NoMemory));
        assert_eq!(State::of(&vol, bench.field).unwrap(), before);
        // All that it took can be had again.
        let all = vol.free_blocks();
        let mut runs = Vec::new();
        while let Ok(run) = vol.reserve(Want::blocks(512).use_reserve()) {
            runs.push(run);
        }
        assert_eq!(runs.iter().map(|r| r.run().len).sum::<u64>(), all);
        failures += 1;
    }
    assert!(failures >= 4, "only {failures} allocations");
}

#[test]
fn a_bad_target_is_found_before_the_commit() {
    let bench = Bench::new();
    let at = bench.field * BLOCK;
    bench.sim().poison(at, 64);
    let mut tx = bench.vol.begin().unwrap();
    assert_eq!(tx.write(at + 8, &[1; 8]), Err(Error::Media { at }));
    drop(tx);
    // Nothing has happened, and whatever is good can be changed.
    assert!(!bench.vol.is_failed());
    let mut tx = bench.vol.begin().unwrap();
    tx.write(at + 64, &[1; 8]).unwrap();
    tx.commit().unwrap();
}

/// The lanes are not written by transactions.
#[test]
fn what_no_transaction_may_write() {
    let bench = Bench::new();
    let (geo, len) = (bench.vol.geometry(), bench.sim().len());
    let lanes = geo.lane_at(0)..geo.lane_at(geo.lane_count);
    for (at, may) in [
        (0, true),
        (lanes.start - 16, true),
        (lanes.start - 8, false),
        (lanes.start, false),
        (lanes.end - 8, false),
        (lanes.end, true),
        (len - 16, true),
        (len - 8, false),
        (len, false),
    ] {
        let mut tx = bench.vol.begin().unwrap();
        let expected = may.then_some(()).ok_or(Error::Invalid);
        assert_eq!(tx.write(at, &[1; 16]), expected, "{at:#x}");
    }
}

#[test]
fn a_fence_that_fails_stops_the_volume_unless_nothing_has_happened() {
    for n in 0..4 {
        let mut bench = Bench::new();
        let before = bench.state();
        let slot = bench.vol.reserve_inode().unwrap();
        let raw = raw_inode(&bench.vol, 3);
        bench.sim().inject(Some(Mistake::FailFence(n)));
        let mut tx = bench.vol.begin().unwrap();
        tx.create_inode(slot, raw).unwrap();
        assert_eq!(tx.commit(), Err(Error::Media { at: 0 }));
        assert!(!bench.sim().mistake_pending());
        assert_eq!(bench.vol.is_failed(), n > 0, "fence {n}");
        if n == 0 {
            assert_eq!(bench.state(), before);
            bench.transact(&[Step::CreateInode { fill: 1 }], true);
            continue;
        }
        let lane = bench.vol.geometry().lane_at(0);
        let refused = bench.vol.begin().err();
        assert!(matches!(refused, Some(Error::Media { at }) if at >= lane));
        // The next mount decides.
        let vol = mount(bench.vol.pmem().clone());
        let after = State::of(&vol, bench.field).unwrap();
        assert_eq!(after.inodes.len(), before.inodes.len() + 1);
    }
}

/// A transaction that is in place is not replayed over what came after it, and one that has to be
/// is not forgotten, whichever bit of `retired` is damaged, in whichever header.
#[test]
fn damaged_retired_words_are_noticed() {
    let mut bench = Bench::new();
    create_twice(&mut bench, None);
    let trace = bench.sim().take_trace();
    let bounds = Bounds {
        per_fence: 8,
        seed: 3,
    };
    let lanes = (0..LANE_COUNT).map(|i| bench.vol.geometry().lane_at(i));
    let seq = |at| {
        read_struct::<LaneHeader, _>(bench.sim(), at)
            .unwrap()
            .seq
            .get()
    };
    let lane = lanes.max_by_key(|at| seq(*at)).unwrap();
    let (mut refused, mut kept) = (0, 0);
    let mut damage = |content: Image| {
        let state = recovered(&Sim::from_image(SMALL, content.clone()), bench.field);
        for bit in (0..64).chain(512..576) {
            let sim = Sim::from_image(SMALL, content.clone());
            let at = lane + offset_of!(LaneHeader, retired) as u64 + bit / 8;
            let mut byte = [0];
            sim.read(at, &mut byte).unwrap();
            sim.store(at, &[byte[0] ^ (1 << (bit % 8))]).unwrap();
            if Volume::mount(&sim, MountOptions::default()).is_err() {
                refused += 1;
                continue;
            }
            assert!(recovered(&sim, bench.field) == state, "bit {bit}");
            kept += 1;
        }
    };
    trace.for_each_crash(bounds, |crash| damage(crash.sim.content()));
    damage(bench.sim().content());
    // The last header's word is needed, the other one's rarely.
    assert!(refused > 0 && kept > 0, "{refused} refused, {kept} kept");
}

/// The words of a transaction and of the one two before differ in few ways, which are all tried.
#[test]
fn retired_words_differ_in_many_bits() {
    // The checksum of a difference is the difference of the checksums; and to take 2 from a number
    // changes all bits from 1 up to the lowest of these that is set.
    for bit in 1..64 {
        let seq = 1 << bit;
        let differ = (retired_word(seq) ^ unretired_word(seq)).get();
        assert!(differ.count_ones() >= 16, "2^{bit}: {differ:#x}");
    }
}

#[test]
fn damaged_lanes_are_refused_or_harmless() {
    let mut bench = Bench::new();
    create_twice(&mut bench, None);
    let trace = bench.sim().take_trace();
    let lanes = (0..LANE_COUNT).map(|i| bench.vol.geometry().lane_at(i));
    let mut refused = 0;
    for lane in lanes {
        // Both headers of a lane: nothing can be known.
        let sim = Arc::new(Sim::from_image(SMALL, bench.sim().content()));
        sim.store(lane, &[0xff; LANE_BODY as usize]).unwrap();
        let error = Volume::mount(sim.clone(), MountOptions::default()).err();
        let at = lane;
        let what = Structure::Lane;
        assert_eq!(error, Some(Error::Corrupt { what, at }));
        sim.poison(lane, 1);
        let error = Volume::mount(sim, MountOptions::default()).err();
        assert_eq!(error, Some(Error::Media { at }));
    }
    // Any byte of the log of a transaction that must be replayed.
    let bounds = Bounds {
        per_fence: 4,
        seed: 2,
    };
    trace.for_each_crash(bounds, |crash| {
        for lane in (0..LANE_COUNT).map(|i| bench.vol.geometry().lane_at(i)) {
            for byte in [0, 5, 20, 60, 64, 70, 100, 120, 130, 150, 200] {
                let sim = Sim::from_image(SMALL, crash.sim.content());
                let mut old = [0];
                sim.read(lane + byte, &mut old).unwrap();
                sim.store(lane + byte, &[old[0] ^ 0x10]).unwrap();
                match Volume::mount(&sim, MountOptions::default()) {
                    Err(Error::Corrupt {
                        what: Structure::Lane,
                        ..
                    }) => refused += 1,
                    Err(e) => panic!("{e}"),
                    Ok(_) => {}
                }
            }
        }
    });
    assert!(refused > 0);
}
