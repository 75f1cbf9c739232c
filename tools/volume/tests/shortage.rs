// SPDX-License-Identifier: GPL-2.0

//! Every operation with too few free blocks, and with each allocation of memory failing in turn: it
//! succeeds, or nothing of it has happened, in memory or on the media.

mod common;

use common::operations::{sim, Operation, ALL, V};
use common::tree::{walk, Tree};
use common::*;
use rdax_volume::env::{allocation_failed, fail_allocations_after};
use rdax_volume::volume::alloc::Want;
use rdax_volume::volume::error::Error;
use rdax_volume::volume::format::{OrphanSlot, BLOCK, ORPHAN_BLOCKS};

/// Those that are several operations may have done a part.
const IN_PARTS: [&str; 4] = [
    "unlink_and_free_with_attributes",
    "unlink_and_free",
    "unlink_and_free_in_several",
    "link_a_temporary_file",
];

fn prepared(op: &Operation) -> (V, Tree, u64) {
    let sim = sim();
    (op.prepare)(&mount(sim.clone())).unwrap();
    let vol = mount(sim);
    let before = walk(&vol).unwrap();
    let free = vol.free_blocks();
    (vol, before, free)
}

/// What must hold after `op` has failed.
fn check_failed(op: &Operation, vol: &V, before: &Tree) {
    assert!(!vol.is_failed());
    let orphans = vol.statfs().inodes_used - before.len() as u64;
    if !IN_PARTS.contains(&op.name) {
        assert_eq!(&walk(vol).unwrap(), before, "{}", op.name);
        assert_eq!(orphans, 0, "{}", op.name);
    }
    let stat = vol.statfs();
    let pmem = vol.pmem().clone();
    assert_eq!(assert_clean(&*pmem), (stat.free, stat.inodes_used));
}

#[test]
fn without_space() {
    let mut refused = 0;
    for op in ALL {
        for left in 0.. {
            let (vol, before, free) = prepared(op);
            // Several runs, since the free blocks need not be one.
            let mut held = Vec::new();
            let mut more = free.saturating_sub(left);
            while more > 0 {
                held.push(vol.reserve(Want::blocks(more).use_reserve()).unwrap());
                more -= held.last().unwrap().run().len;
            }
            assert_eq!(vol.free_blocks(), left.min(free));
            let result = (op.run)(&vol);
            drop(held);
            match result {
                Ok(()) => break,
                Err(Error::NoSpace) => refused += 1,
                Err(e) => panic!("{}: {e}", op.name),
            }
            check_failed(op, &vol, &before);
            // With space, it works after all.
            if !IN_PARTS.contains(&op.name) {
                (op.run)(&vol).unwrap();
            }
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn what_frees_needs_no_space() {
    for op in ALL {
        let frees = ["unlink", "remove", "truncate_in"];
        if !frees.iter().any(|f| op.name.starts_with(f)) {
            continue;
        }
        let (vol, _, free) = prepared(op);
        let mut held = Vec::new();
        while vol.free_blocks() > 0 {
            held.push(vol.reserve(Want::blocks(free).use_reserve()).unwrap());
        }
        (op.run)(&vol).unwrap_or_else(|e| panic!("{}: {e}", op.name));
    }
}

#[test]
fn holes_in_a_full_device() {
    let (vol, ram) = fresh(8 << 20);
    let mut top = root(&vol);
    let mut file = |name: &[u8]| vol.create(&mut top, name, &new(FILE, 1)).unwrap();
    let (mut holed, mut hog) = (file(b"holed"), file(b"hog"));
    vol.fill(&mut holed, 0, 1200, Some(time(1))).unwrap();
    let size = 1200 * BLOCK;
    vol.extend(&mut holed, size, size, None).unwrap();
    let mut at = 0;
    let mut fill_up = || loop {
        match vol.fill(&mut hog, at, 1 << 20, Some(time(1))) {
            Ok(run) => at += run.len,
            Err(e) => break assert_eq!(e, Error::NoSpace),
        }
    };
    fill_up();
    let kept = vol.geometry().reserve();
    assert_eq!((vol.free_blocks(), vol.available_blocks()), (kept, 0));
    assert_eq!(vol.statfs().available, 0);
    // Every hole is an extent more, and what it frees is taken at once.
    for hole in 0..600 {
        vol.punch(&mut holed, 2 * hole, 1, time(2)).unwrap();
        fill_up();
        // What is freed fills the reserve before others have it.
        assert_eq!(vol.available_blocks(), 0);
    }
    assert!(holed.raw().depth > 0);
    // All nodes are made anew, before the old ones are free.
    vol.collapse(&mut holed, 100, 8, time(3)).unwrap();
    assert_eq!(assert_clean(&*ram).0, vol.free_blocks());
}

/// What was promised by preallocation can be written, though it takes nodes.
#[test]
fn unwritten_in_a_full_device() {
    let (vol, ram) = fresh(8 << 20);
    let mut top = root(&vol);
    let mut file = vol.create(&mut top, b"file", &new(FILE, 1)).unwrap();
    let mut blocks = 0;
    loop {
        match vol.preallocate(&mut file, blocks, 1 << 20, time(1)) {
            Ok(len) => blocks += len,
            Err(e) => break assert_eq!(e, Error::NoSpace),
        }
    }
    assert_eq!(vol.available_blocks(), 0);
    for at in (0..blocks).step_by(2) {
        vol.fill(&mut file, at, 1, None).unwrap();
    }
    assert!(file.raw().depth > 0);
    assert_eq!(assert_clean(&*ram).0, vol.free_blocks());
}

#[test]
fn without_memory() {
    for op in ALL {
        let mut refused = 0;
        for left in 0.. {
            let (vol, before, _) = prepared(op);
            fail_allocations_after(Some(left));
            let result = (op.run)(&vol);
            fail_allocations_after(None);
            match result {
                Ok(()) => break,
                Err(Error::NoMemory) => refused += 1,
                Err(e) => panic!("{}: {e} after {left} allocations", op.name),
            }
            check_failed(op, &vol, &before);
            if !IN_PARTS.contains(&op.name) {
                (op.run)(&vol).unwrap();
            }
        }
        println!("{}: {refused} allocations", op.name);
    }
}

#[test]
fn a_device_filled_to_the_last_block() {
    let (vol, ram) = fresh(8 << 20);
    let mut top = root(&vol);
    let mut random = Random(11);
    let mut n = 0u64;
    let mut full = 0;
    while full < 40 {
        n += 1;
        let name = format!("{n}-{}", "x".repeat(random.below(200) as usize));
        let done = match random.below(4) {
            0 => vol
                .create(&mut top, name.as_bytes(), &new(DIR, 1))
                .map(drop),
            1 => vol
                .symlink(&mut top, name.as_bytes(), &[b't'; 500], &new(0o777, 1))
                .map(drop),
            2 => vol
                .create(&mut top, name.as_bytes(), &new(FIFO, 1))
                .map(drop),
            _ => vol
                .create(&mut top, name.as_bytes(), &new(FILE, 1))
                .and_then(|mut f| {
                    let size = 1 + random.below(30_000);
                    write(
                        &vol,
                        &mut f,
                        random.below(1 << 20),
                        &vec![9; size as usize],
                        time(2),
                    )
                }),
        };
        match done {
            Ok(()) => {}
            Err(Error::NoSpace) => full += 1,
            Err(e) => panic!("{e}"),
        }
        if full == 1 {
            let left = vol.available_blocks();
            assert!(left < 16, "{left}");
        }
    }
    assert_eq!(assert_clean(&*ram).0, vol.free_blocks());
    // All of it can go again.
    for (_, name, ino, kind) in list(&vol, &mut top, 64).unwrap() {
        let mut inode = vol.iget(ino).unwrap();
        if kind == 4 {
            vol.rmdir(&mut top, &name, &mut inode, time(3)).unwrap();
        } else {
            vol.unlink(&mut top, &name, &mut inode, time(3)).unwrap();
        }
        vol.free_inode(&mut inode).unwrap();
    }
    assert_eq!(vol.statfs().inodes_used, 1);
    assert_eq!(top.size(), 4096);
    assert_clean(&*ram);
}

/// Inodes can be made where no two free blocks lie together, and the search for them is short.
#[test]
fn inodes_in_a_volume_in_pieces() {
    let (vol, ram) = fresh(64 << 20);
    let mut top = root(&vol);
    let mut hog = vol.create(&mut top, b"hog", &new(FILE, 1)).unwrap();
    let mut blocks = 0;
    loop {
        match vol.preallocate(&mut hog, blocks, 1 << 20, time(1)) {
            Ok(len) => blocks += len,
            Err(e) => break assert_eq!(e, Error::NoSpace),
        }
    }
    for at in (0..blocks).step_by(2) {
        vol.punch(&mut hog, at, 1, time(2)).unwrap();
    }
    let free = vol.available_blocks();
    assert!(free > blocks / 2 - 300, "{free} of {blocks}");
    for n in 0..20_000 {
        vol.create(&mut top, format!("{n}").as_bytes(), &new(FIFO, 1))
            .unwrap_or_else(|e| panic!("{n}: {e}, {} blocks free", vol.available_blocks()));
    }
    assert_eq!(assert_clean(&*ram).0, vol.free_blocks());
}

/// However many files are open and have no name, and however full the volume is, a name can be
/// removed.
#[test]
fn names_can_be_removed_from_a_full_volume() {
    let (vol, ram) = fresh(32 << 20);
    let mut top = root(&vol);
    let mut hog = vol.create(&mut top, b"hog", &new(FILE, 1)).unwrap();
    let mut files = Vec::new();
    for n in 0..9_000 {
        let name = format!("{n}");
        files.push(
            vol.create(&mut top, name.as_bytes(), &new(FILE, 1))
                .unwrap(),
        );
    }
    // All that can be had, and the nodes that its conversion takes.
    let mut blocks = 0;
    loop {
        match vol.preallocate(&mut hog, blocks, 1 << 20, time(1)) {
            Ok(len) => blocks += len,
            Err(e) => break assert_eq!(e, Error::NoSpace),
        }
    }
    let mut held = Vec::new();
    while let Ok(reserved) = vol.reserve(Want::blocks(1).use_reserve()) {
        held.push(reserved);
    }
    // With the space goes the last that could be made.
    let mut more = 0;
    while vol.tmpfile(&new(FILE, 1)).is_ok() {
        more += 1;
        assert!(more < 100_000);
    }
    for (n, file) in files.iter_mut().enumerate() {
        let name = format!("{n}");
        vol.unlink(&mut top, name.as_bytes(), file, time(2))
            .unwrap_or_else(|e| panic!("{n}: {e}, {} blocks free", vol.free_blocks()));
    }
    drop(held);
    let stat = vol.statfs();
    assert_eq!(assert_clean(&*ram), (stat.free, stat.inodes_used));
}

/// The chunk of an inode that is reserved stays, however empty the table is.
#[test]
fn a_reserved_inode_keeps_its_chunk() {
    let (vol, ram) = fresh(32 << 20);
    let make = || vol.tmpfile(&new(FIFO, 1)).unwrap();
    let mut files: Vec<_> = (0..5_000).map(|_| make()).collect();
    let reserved = vol.reserve_inode().unwrap();
    let ino = reserved.ino();
    assert!(files.iter().all(|file| file.ino() < ino));
    let before = vol.free_blocks();
    let mut raw = files[0].raw().clone();
    raw.orphan.set(0);
    raw.nlink.set(1);
    for file in &mut files {
        vol.free_inode(file).unwrap();
    }
    // What may be had is had, so that a chunk that is given back is another's.
    let mut held = Vec::new();
    while let Ok(reservation) = vol.reserve(Want::blocks(1 << 20)) {
        held.push(reservation);
    }
    let mut tx = vol.begin().unwrap();
    let made = tx.create_inode(reserved, raw).unwrap();
    tx.commit().unwrap();
    assert_eq!(vol.iget(ino).unwrap().raw(), made.raw());
    let mut tx = vol.begin().unwrap();
    tx.free_inode(&made).unwrap();
    tx.commit().unwrap();
    drop(held);
    // It goes with the next that is freed.
    for _ in 0..2 {
        let mut more: Vec<_> = (0..300).map(|_| make()).collect();
        for file in &mut more {
            vol.free_inode(file).unwrap();
        }
    }
    assert!(vol.free_blocks() > before + 250);
    assert_eq!(assert_clean(&*ram).0, vol.free_blocks());
}

/// The orphan file serves after an allocation of memory has failed while it grew.
#[test]
fn the_orphan_file_grows_after_a_failure() {
    let slots = ORPHAN_BLOCKS * BLOCK / size_of::<OrphanSlot>() as u64;
    for left in 0.. {
        let (vol, ram) = fresh(16 << 20);
        let mut held: Vec<_> = (0..slots).map(|_| vol.reserve_orphan().unwrap()).collect();
        fail_allocations_after(Some(left));
        let grown = vol.reserve_orphan();
        let failed = allocation_failed();
        fail_allocations_after(None);
        assert_eq!(grown.is_err(), failed);
        held.extend(grown);
        for _ in 0..2 * slots {
            let next = vol.reserve_orphan();
            held.push(next.unwrap_or_else(|e| panic!("after {left} allocations: {e}")));
        }
        drop(held);
        assert_eq!(assert_clean(&*ram).0, vol.free_blocks());
        if !failed {
            break;
        }
    }
}

/// The same where it shrinks.
#[test]
fn the_orphan_file_grows_after_it_could_not_shrink() {
    let slots = ORPHAN_BLOCKS * BLOCK / size_of::<OrphanSlot>() as u64;
    for left in 0.. {
        let (vol, ram) = fresh(16 << 20);
        // Not in one piece: what it takes to free it is not there already.
        let grow = || {
            let mut held = (Vec::new(), Vec::new());
            for n in 0..12 * slots {
                if n % slots == 0 {
                    held.0.push(vol.reserve(Want::blocks(1)).unwrap());
                }
                let slot = vol.reserve_orphan();
                let slot = slot.unwrap_or_else(|e| panic!("after {left} allocations: {e}"));
                held.1.push(slot);
            }
        };
        let free = || vol.free_inode(&mut vol.tmpfile(&new(FILE, 1)).unwrap());
        let before = vol.free_blocks();
        let mut file = vol.tmpfile(&new(FILE, 1)).unwrap();
        grow();
        fail_allocations_after(Some(left));
        let done = vol.free_inode(&mut file);
        let failed = allocation_failed();
        fail_allocations_after(None);
        if done.is_err() {
            vol.free_inode(&mut file).unwrap();
        }
        grow();
        free().unwrap();
        let lost = before - vol.free_blocks();
        assert!(lost < 40, "{lost} blocks after {left} allocations");
        assert_eq!(assert_clean(&*ram).0, vol.free_blocks());
        if !failed {
            break;
        }
    }
}

/// What inodes and orphans took is given back.
#[test]
fn the_inode_table_and_the_orphan_file_shrink() {
    let (vol, ram) = fresh(32 << 20);
    let mut top = root(&vol);
    let free = vol.free_blocks();
    let mut files = Vec::new();
    for n in 0..30_000 {
        let name = format!("{n}");
        files.push(
            vol.create(&mut top, name.as_bytes(), &new(FIFO, 1))
                .unwrap(),
        );
    }
    for (n, file) in files.iter_mut().enumerate() {
        let name = format!("{n}");
        vol.unlink(&mut top, name.as_bytes(), file, time(2))
            .unwrap();
    }
    let remembered = (files[20_000].ino(), files[20_000].generation());
    for file in &mut files {
        vol.free_inode(file).unwrap();
    }
    let lost = free - vol.free_blocks();
    assert!(lost < 100, "{lost} blocks are not given back");
    assert_eq!(vol.iget(remembered.0).err(), Some(Error::Stale));
    assert_eq!(assert_clean(&*ram).0, vol.free_blocks());
    // A number that is used again is another inode's.
    for n in 0..30_000 {
        let name = format!("again {n}");
        let file = vol
            .create(&mut top, name.as_bytes(), &new(FIFO, 1))
            .unwrap();
        assert!(
            (file.ino(), file.generation()) != remembered,
            "the generation of inode {} comes again",
            remembered.0
        );
    }
    // Nothing is left to read for the next mount.
    drop(vol);
    let vol = mount(ram.clone());
    assert_eq!(assert_clean(&*ram).0, vol.free_blocks());
}
