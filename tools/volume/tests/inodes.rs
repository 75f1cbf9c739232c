// SPDX-License-Identifier: GPL-2.0

//! The inode table and the orphan file.

mod media;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use media::{bytes, empty_file, made, mount, Pausing, SMALL};
use proptest::prelude::*;
use rdax_volume::env::crc32c;
use rdax_volume::sim::{Bounds, Sim};
use rdax_volume::volume::alloc::Want;
use rdax_volume::volume::check;
use rdax_volume::volume::error::{Error, Structure};
use rdax_volume::volume::format::{
    InodeChunk, RawInode, BLOCK, INODE_BYTES, INODE_CHUNK_SLOTS, ORPHAN_BLOCKS, ROOT_INO,
};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::NewInode;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::Volume;
use zerocopy::{FromBytes, IntoBytes};

type Vol = Volume<Arc<Sim>>;

fn raw(vol: &Vol, fill: u8) -> RawInode {
    let mut raw = empty_file(vol);
    raw.uid = u32::from(fill).into();
    raw
}

fn create(vol: &Vol, fill: u8) -> Result<Inode, Error> {
    let slot = vol.reserve_inode()?;
    let raw = raw(vol, fill);
    let mut tx = vol.begin()?;
    let inode = tx.create_inode(slot, raw)?;
    tx.commit()?;
    Ok(inode)
}

fn remove(vol: &Vol, inode: &Inode) {
    let mut tx = vol.begin().unwrap();
    tx.free_inode(inode).unwrap();
    tx.commit().unwrap();
}

#[derive(Clone, Debug)]
enum Op {
    Create { fill: u8, commit: bool },
    Reserve,
    GiveBack(usize),
    Remove { pick: usize, commit: bool },
    Remount,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<u8>(), prop::bool::weighted(0.9))
            .prop_map(|(fill, commit)| Op::Create { fill, commit }),
        1 => Just(Op::Reserve),
        1 => any::<usize>().prop_map(Op::GiveBack),
        4 => (any::<usize>(), prop::bool::weighted(0.9))
            .prop_map(|(pick, commit)| Op::Remove { pick, commit }),
        1 => Just(Op::Remount),
    ]
}

/// Carries out `ops` on a volume that has `start` inodes more than the root; of these, every third
/// is removed again.
fn run(ops: &[Op], start: u32) {
    let sim = made(SMALL);
    let mut vol = mount(sim.clone());
    let mut live: BTreeMap<u64, Inode> = BTreeMap::new();
    // The generation that each number had last.
    let mut generations: BTreeMap<u64, u32> = BTreeMap::new();
    for _ in 0..start {
        let inode = create(&vol, 0).unwrap();
        generations.insert(inode.ino(), inode.generation());
        live.insert(inode.ino(), inode);
    }
    for ino in live.keys().copied().step_by(3).collect::<Vec<_>>() {
        remove(&vol, &live.remove(&ino).unwrap());
    }
    let mut ops = ops.iter().peekable();
    while ops.peek().is_some() {
        let mut reserved = Vec::new();
        for op in ops.by_ref() {
            match op {
                Op::Create { fill, commit } => {
                    let slot = vol.reserve_inode().unwrap();
                    let ino = slot.ino();
                    assert!(ino != ROOT_INO && ino % INODE_CHUNK_SLOTS != 0);
                    assert!(!live.contains_key(&ino), "{ino} is in use");
                    assert_ne!(Some(&slot.generation()), generations.get(&ino));
                    let raw = raw(&vol, *fill);
                    let mut tx = vol.begin().unwrap();
                    let inode = tx.create_inode(slot, raw).unwrap();
                    if *commit {
                        tx.commit().unwrap();
                        generations.insert(ino, inode.generation());
                        live.insert(ino, inode);
                    }
                }
                Op::Reserve => {
                    let slot = vol.reserve_inode().unwrap();
                    assert!(!live.contains_key(&slot.ino()));
                    reserved.push(slot);
                }
                Op::GiveBack(pick) if !reserved.is_empty() => {
                    drop(reserved.swap_remove(pick % reserved.len()));
                }
                Op::Remove { pick, commit } if !live.is_empty() => {
                    let ino = *live.keys().nth(pick % live.len()).unwrap();
                    let mut tx = vol.begin().unwrap();
                    tx.free_inode(&live[&ino]).unwrap();
                    if *commit {
                        tx.commit().unwrap();
                        live.remove(&ino);
                    }
                }
                Op::Remount => break,
                _ => {}
            }
            let numbers: BTreeSet<u64> = reserved.iter().map(|slot| slot.ino()).collect();
            assert_eq!(numbers.len(), reserved.len());
            let used = 1 + live.len() + reserved.len();
            assert_eq!(vol.statfs().inodes_used, used as u64);
        }
        drop(reserved);
        drop(vol);
        vol = mount(sim.clone());
    }
    let slots = vol.statfs().inodes_free;
    for ino in 0..slots + 300 {
        match vol.iget(ino) {
            Ok(inode) if ino == ROOT_INO => assert_eq!(inode.ino(), ROOT_INO),
            Ok(inode) => assert_eq!(inode.raw(), live[&ino].raw()),
            Err(Error::Stale) => assert!(!live.contains_key(&ino) && ino != ROOT_INO),
            Err(e) => panic!("{e}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_number_is_given_twice(
        ops in prop::collection::vec(op(), 1..80),
        start in prop_oneof![Just(0), Just(250), Just(800)],
    ) {
        run(&ops, start);
    }
}

#[test]
fn the_table_grows_until_no_space_is_left() {
    let mut vol = mount(made(SMALL));
    let mut count = 1;
    let error = loop {
        match create(&vol, 1) {
            Ok(inode) => {
                count += 1;
                let again = vol.iget(inode.ino()).unwrap();
                assert_eq!(again.raw(), inode.raw());
            }
            Err(e) => break e,
        }
    };
    assert_eq!(error, Error::NoSpace);
    // Less than a chunk of the table is left.
    let left = vol.available_blocks();
    assert!(left < 32, "{left} blocks");
    assert!(count > 20_000, "only {count} inodes");
    assert_eq!(vol.statfs().inodes_used, count);
    // One that is removed can be made again, also where the chunk is found by the scan only.
    for ino in [ROOT_INO + 1, 5_000, count / 2] {
        let inode = vol.iget(ino).unwrap();
        let again = |vol: &Vol| {
            let made = create(vol, 2).unwrap();
            assert_eq!(made.ino(), ino);
            assert_ne!(made.generation(), inode.generation());
            assert_eq!(create(vol, 3).err(), Some(Error::NoSpace));
            made
        };
        remove(&vol, &inode);
        let made = again(&vol);
        remove(&vol, &made);
        vol = mount(vol.pmem().clone());
        again(&vol);
    }
}

#[test]
fn growing_survives_every_crash() {
    let vol = mount(made(SMALL));
    let slots = 16 * (INODE_CHUNK_SLOTS - 1);
    for _ in 1..slots {
        create(&vol, 1).unwrap();
    }
    let free = vol.free_blocks();
    vol.pmem().record();
    let inode = create(&vol, 9).unwrap();
    assert_eq!(inode.ino(), 16 * INODE_CHUNK_SLOTS + 1);
    assert_eq!(vol.free_blocks(), free - 16);
    let trace = vol.pmem().take_trace();
    let (mut before, mut grown, mut after) = (0, 0, 0);
    let bounds = Bounds {
        per_fence: 150,
        seed: 8,
    };
    trace.for_each_crash(bounds, |crash| {
        let sim = Arc::new(Sim::from_image(SMALL, crash.sim.content()));
        let vol = mount(sim);
        let used = vol.statfs().inodes_used;
        match (free - vol.free_blocks(), used - slots) {
            (0, 0) => before += 1,
            (16, 0) => grown += 1,
            (16, 1) => after += 1,
            other => panic!("{other:?}: {crash}"),
        }
        media::used_blocks(&vol);
        // There is always room for two more, wherever it comes from.
        let made = [create(&vol, 3).unwrap(), create(&vol, 4).unwrap()];
        assert!(made
            .iter()
            .all(|inode| inode.ino() > 16 * INODE_CHUNK_SLOTS));
        assert_eq!(vol.statfs().inodes_used, used + 2);
    });
    assert!(
        before > 0 && grown > 0 && after > 0,
        "{before} {grown} {after}"
    );
}

#[test]
fn damaged_inodes_and_headers_are_refused() {
    let vol = mount(made(SMALL));
    let inode = create(&vol, 1).unwrap();
    let header = inode.at() - inode.ino() * INODE_BYTES;
    let corrupt = |what, at| Some(Error::Corrupt { what, at });
    let sim = vol.pmem();
    for (at, error) in [
        (inode.at() + 3, corrupt(Structure::Inode, inode.at())),
        (inode.at() + 255, corrupt(Structure::Inode, inode.at())),
        (header + 4, corrupt(Structure::InodeChunk, header)),
        (header + 40, corrupt(Structure::InodeChunk, header)),
    ] {
        let old = bytes(sim, at, 1);
        sim.store(at, &[old[0] ^ 0x80]).unwrap();
        assert_eq!(vol.iget(inode.ino()).err(), error);
        sim.store(at, &old).unwrap();
    }
    // A sound header of another chunk, and one that lies elsewhere.
    let old = bytes(sim, header, size_of::<InodeChunk>() as u64);
    let misplaced: [fn(&mut InodeChunk); 2] = [|h| h.index += 1, |h| h.block += 1];
    for change in misplaced {
        let mut new = InodeChunk::read_from_bytes(&old).unwrap();
        change(&mut new);
        let crc = crc32c(vol.geometry().seed, &new.as_bytes()[4..]);
        new.crc.set(crc);
        sim.store(header, new.as_bytes()).unwrap();
        let error = corrupt(Structure::InodeChunk, header);
        assert_eq!(vol.iget(inode.ino()).err(), error);
    }
    sim.store(header, &old).unwrap();
    vol.iget(inode.ino()).unwrap();
    // A sound inode of another number.
    let other = create(&vol, 2).unwrap();
    let copy = bytes(sim, other.at(), INODE_BYTES);
    sim.store(inode.at(), &copy).unwrap();
    let error = corrupt(Structure::Inode, inode.at());
    assert_eq!(vol.iget(inode.ino()).err(), error);
    sim.poison(other.at(), 1);
    let at = other.at();
    assert_eq!(vol.iget(other.ino()).err(), Some(Error::Media { at }));
    for ino in [0, 255, 256, 257, 1 << 40, u64::MAX] {
        assert_eq!(vol.iget(ino).err(), Some(Error::Stale), "{ino}");
    }
}

fn new_file(n: u32) -> NewInode {
    NewInode {
        mode: 0o100_600,
        uid: n,
        gid: 0,
        rdev: 0,
        attrs: 0,
        now: media::NOW,
    }
}

#[test]
fn orphans_are_freed_at_mount_and_the_file_grows() {
    let sim = made(64 << 20);
    let vol = mount(sim.clone());
    let before = (vol.free_blocks(), vol.statfs().inodes_used);
    let slots = (ORPHAN_BLOCKS * BLOCK / 16) as usize;
    let files: Vec<Inode> = (0..slots + 10)
        .map(|n| vol.tmpfile(&new_file(n as u32)).unwrap())
        .collect();
    let numbers: BTreeSet<u32> = files.iter().map(|f| f.raw().orphan.get()).collect();
    assert_eq!(numbers.len(), files.len());
    assert!(!numbers.contains(&0));
    // Slots that are given back are used again.
    let mut files = files.into_iter();
    let mut first = files.next().unwrap();
    let slot = first.raw().orphan.get();
    vol.free_inode(&mut first).unwrap();
    let again = vol.tmpfile(&new_file(0)).unwrap();
    assert_eq!(again.raw().orphan.get(), slot);
    let count = files.len() as u64 + 1;
    drop(vol);

    let vol = mount(sim.clone());
    assert_eq!(vol.statfs().inodes_used, before.1 + count);
    assert_eq!(vol.recover_orphans(), Ok(count));
    assert_eq!(vol.statfs().inodes_used, before.1);
    assert_eq!(vol.recover_orphans(), Ok(0));
    // The table and the orphan file stay as large as they are.
    let grown = before.0 - vol.free_blocks();
    assert!(
        grown > ORPHAN_BLOCKS && grown < ORPHAN_BLOCKS + 17 * 16,
        "{grown}"
    );
    let mut problems = Vec::new();
    check::check(&*sim, &mut |p| problems.push(p.to_string())).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(mount(sim).recover_orphans(), Ok(0));
}

#[test]
fn an_orphan_is_freed_by_its_number() {
    let vol = mount(made(SMALL));
    let used = vol.statfs().inodes_used;
    let files: Vec<Inode> = (0..2).map(|n| vol.tmpfile(&new_file(n)).unwrap()).collect();
    let ino = files[0].ino();
    drop(files);
    vol.free_orphan(ino).unwrap();
    assert_eq!(vol.iget(ino).err(), Some(Error::Stale));
    assert_eq!(vol.free_orphan(ino), Err(Error::Stale));
    assert_eq!(vol.free_orphan(ROOT_INO), Err(Error::Invalid));
    assert_eq!(vol.statfs().inodes_used, used + 1);
    assert_eq!(vol.recover_orphans(), Ok(1));
}

#[test]
fn a_damaged_orphan_does_not_keep_the_others() {
    let sim = made(SMALL);
    let vol = mount(sim.clone());
    let files: Vec<Inode> = (0..3).map(|n| vol.tmpfile(&new_file(n)).unwrap()).collect();
    let bad = files[1].at();
    drop(vol);
    sim.store(bad + 100, &[0xee]).unwrap();
    let vol = mount(sim);
    let what = Structure::Inode;
    assert_eq!(vol.recover_orphans(), Err(Error::Corrupt { what, at: bad }));
    assert_eq!(vol.statfs().inodes_used, 2);
    // The volume goes on, and does not use the slot again.
    let file = vol.tmpfile(&new_file(7)).unwrap();
    assert_eq!(file.raw().orphan.get(), 1);
    let file = vol.tmpfile(&new_file(8)).unwrap();
    assert_eq!(file.raw().orphan.get(), 3);
}

#[test]
fn an_orphan_slot_is_given_back_with_its_transaction() {
    let vol = mount(made(SMALL));
    let mut raw = raw(&vol, 1);
    let slot = vol.reserve_orphan().unwrap();
    let mut tx = vol.begin().unwrap();
    tx.attach_orphan(slot, &mut raw, None).unwrap();
    assert_eq!(raw.orphan.get(), 1);
    drop(tx);
    drop(vol.reserve_orphan().unwrap());
    let slots: Vec<_> = (0..3).map(|_| vol.reserve_orphan().unwrap()).collect();
    let mut tx = vol.begin().unwrap();
    for (n, slot) in (1..).zip(slots) {
        tx.attach_orphan(slot, &mut raw, None).unwrap();
        assert_eq!(raw.orphan.get(), n);
    }
    tx.detach_orphan(&mut raw).unwrap();
    assert_eq!(raw.orphan.get(), 0);
    tx.detach_orphan(&mut raw).unwrap();
    assert_eq!(vol.free_blocks(), media::free_blocks(&vol));
    assert!(vol.reserve(Want::blocks(1)).is_ok());
}

#[test]
fn reserved_numbers_are_not_found_free_on_the_media() {
    let vol = mount(made(SMALL));
    let slots: Vec<_> = (0..600).map(|_| vol.reserve_inode().unwrap()).collect();
    let numbers: BTreeSet<u64> = slots.iter().map(|slot| slot.ino()).collect();
    assert_eq!(numbers.len(), slots.len());
    assert!(!numbers.contains(&ROOT_INO));
    // A chunk that is opened again while numbers in it are reserved.
    let (mut first, others): (Vec<_>, Vec<_>) = slots
        .into_iter()
        .partition(|slot| slot.ino() < 16 * INODE_CHUNK_SLOTS);
    let given_back = first.swap_remove(100).ino();
    let more: Vec<_> = (0..200).map(|_| vol.reserve_inode().unwrap()).collect();
    let mut numbers: Vec<u64> = [&first, &others, &more]
        .iter()
        .flat_map(|slots| slots.iter().map(|slot| slot.ino()))
        .collect();
    assert!(numbers.contains(&given_back));
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
    drop((first, others, more));
    // All of them can be had again: the table has not grown for nothing.
    let free = vol.free_blocks();
    let again: Vec<_> = (0..600).map(|_| vol.reserve_inode().unwrap()).collect();
    assert_eq!(vol.free_blocks(), free);
    drop(again);
}

/// A freed inode's bit is clear on the media before the transaction is retired. Given away then, it
/// could be freed again by the replay of that transaction.
#[test]
fn a_freed_number_is_busy_until_its_transaction_is_retired() {
    let sim = made(SMALL);
    let first: Vec<Inode> = {
        let vol = mount(sim.clone());
        (0..260).map(|_| create(&vol, 1).unwrap()).collect()
    };
    let (victim, other) = (&first[52], &first[50]);
    assert_eq!(
        victim.ino() / INODE_CHUNK_SLOTS,
        other.ino() / INODE_CHUNK_SLOTS
    );
    // Held before the fences of log, of the change in place, and of `retired`.
    for fences in 0..3 {
        // No chunk is open after a mount, and the other one makes it look into the first.
        let vol = mount(Pausing::new(sim.clone()));
        let [inode, gone] = [victim, other].map(|inode| vol.iget(inode.ino()).unwrap());
        let mut tx = vol.begin().unwrap();
        tx.free_inode(&gone).unwrap();
        tx.commit().unwrap();
        vol.pmem().at_fence(
            fences,
            || {
                let mut tx = vol.begin().unwrap();
                tx.free_inode(&inode).unwrap();
                tx.commit().unwrap();
            },
            || {
                let slots: Vec<_> = (0..300).map(|_| vol.reserve_inode().unwrap()).collect();
                assert!(slots.iter().any(|slot| slot.ino() == other.ino()));
                assert!(
                    slots.iter().all(|slot| slot.ino() != victim.ino()),
                    "{fences}"
                );
            },
        );
        let slots: Vec<_> = (0..600).map(|_| vol.reserve_inode().unwrap()).collect();
        for slot in slots {
            if [victim.ino(), other.ino()].contains(&slot.ino()) {
                let mut tx = vol.begin().unwrap();
                tx.create_inode(slot, victim.raw().clone()).unwrap();
                tx.commit().unwrap();
            }
        }
        assert_eq!(vol.statfs().inodes_used, 261);
    }
}

/// A new inode is stored only where its slot holds something else. What a transaction that was
/// dropped has left there must be on the media by then, also if another thread comes next.
#[test]
fn what_a_dropped_transaction_left_in_a_slot_is_durable() {
    let vol = mount(made(SMALL));
    let ino = vol.reserve_inode().unwrap().ino();
    vol.pmem().record();
    std::thread::scope(|scope| {
        let dropped = scope.spawn(|| {
            let slot = vol.reserve_inode().unwrap();
            let raw = raw(&vol, 9);
            let mut tx = vol.begin().unwrap();
            tx.create_inode(slot, raw).unwrap();
        });
        dropped.join().unwrap();
    });
    let made = create(&vol, 9).unwrap();
    assert_eq!(made.ino(), ino);
    vol.pmem().mark(1);
    let bounds = Bounds {
        per_fence: 300,
        seed: 1,
    };
    vol.pmem()
        .take_trace()
        .for_each_crash(bounds, |crash| match mount(&crash.sim).iget(ino) {
            Ok(inode) => assert_eq!(inode.raw(), made.raw(), "{crash}"),
            Err(e) => assert!(e == Error::Stale && crash.marks.is_empty(), "{e}: {crash}"),
        });
}
