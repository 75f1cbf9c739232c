// SPDX-License-Identifier: GPL-2.0

//! What is known in memory of a file's tree is what the media has: after every operation, also one
//! that failed for want of memory at any place, the file is shown as one that is read anew.

mod common;

use common::*;
use rdax_volume::env::{allocation_failed, fail_allocations_after};
use rdax_volume::volume::error::{Error, Result};
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::BLOCK;
use rdax_volume::volume::inode::Inode;

/// File blocks that are used: with a hole between each two, the tree has some nodes.
const END: u64 = 3000;

/// Of each block of a file where it is, and whether it is data.
type Shown = Vec<Option<(u64, bool)>>;

/// All that `inode` has.
fn all(vol: &Vol, inode: &mut Inode) -> Shown {
    let mut all = Vec::new();
    while (all.len() as u64) < 2 * END {
        let at = all.len() as u64;
        match vol.map(inode, at, 2 * END - at).unwrap() {
            Map::Hole { len } => all.extend((0..len).map(|_| None)),
            Map::Run { block, len } => all.extend((0..len).map(|i| Some((block + i, true)))),
            Map::Unwritten { block, len } => {
                all.extend((0..len).map(|i| Some((block + i, false))));
            }
        }
    }
    all
}

fn insert(vol: &Vol, file: &mut Inode, key: u64, len: u64) -> Result<()> {
    let reserved = vol.reserve_several(vol.want(file, key, len)?)?;
    vol.insert(file, key, reserved, None, time(2))
}

/// One operation, of any kind, anywhere.
fn change(vol: &Vol, file: &mut Inode, random: &mut Random) -> Result<()> {
    let (key, len) = (random.below(END), 1 + random.below(6));
    let far = 1 + random.below(END / 4);
    match random.below(12) {
        0..=3 => insert(vol, file, key, len),
        4 => vol.fill(file, key, len, None).map(drop),
        5 => vol.preallocate(file, key, len, time(3)).map(drop),
        6 => vol.unwrite(file, key, far, time(3)).map(drop),
        7 => vol.punch(file, key, len, time(3)),
        8 => vol.punch(file, key, far, time(3)),
        9 => vol.truncate(file, (END - far / 8) * BLOCK + 17, time(4)),
        10 => vol.collapse(file, key, len, time(4)),
        _ => vol.make_gap(file, key, len, time(4)),
    }
}

fn known_is_true(seed: u64) {
    let (vol, ram) = fresh(64 << 20);
    let mut dir = root(&vol);
    let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
    for key in (0..END).step_by(2) {
        insert(&vol, &mut file, key, 1).unwrap();
    }
    let mut random = Random(seed);
    let (mut failed, mut done) = (0, 0);
    for step in 0..600 {
        let end = END * BLOCK;
        vol.extend(&mut file, end, end, Some(time(5))).unwrap();
        // What is read again is known again.
        if random.below(8) == 0 {
            drop(file.take_knowledge());
        }
        if random.below(2) == 0 {
            fail_allocations_after(Some(random.below(12) as u32));
        }
        let result = change(&vol, &mut file, &mut random);
        fail_allocations_after(None);
        match result {
            Ok(()) => done += 1,
            Err(Error::NoMemory) => failed += 1,
            Err(Error::Exists | Error::Invalid) => {}
            Err(error) => panic!("step {step}: {error:?}"),
        }
        let mut anew = vol.iget(file.ino()).unwrap();
        let (known, there) = (all(&vol, &mut file), all(&vol, &mut anew));
        if let Some(at) = known.iter().zip(&there).position(|(a, b)| a != b) {
            panic!(
                "step {step}, block {at}: {:?}, not {:?}",
                known[at], there[at]
            );
        }
    }
    assert!(failed > 30 && done > 150, "{failed} failed, {done} done");
    assert!(file.raw().depth > 0, "the tree has no node");
    assert_clean(&*ram);
}

#[test]
fn what_is_known_is_what_is_there() {
    (1..=4).for_each(known_is_true);
}

/// Without memory for what would be known, the file is read all the same.
#[test]
fn reading_needs_no_memory() {
    let (vol, _ram) = fresh(64 << 20);
    let mut dir = root(&vol);
    let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
    for key in (0..END).step_by(2) {
        insert(&vol, &mut file, key, 1).unwrap();
    }
    let with = all(&vol, &mut file);
    drop(file.take_knowledge());
    fail_allocations_after(Some(0));
    let without = all(&vol, &mut file);
    fail_allocations_after(None);
    assert!(without == with);
    assert!(!file.has_knowledge());
}

/// A file with a hole between each two of `n` blocks.
fn sparse(vol: &Vol, mut file: Inode, n: u64) -> Inode {
    for key in (0..2 * n).step_by(2) {
        vol.fill(&mut file, key, 1, None).unwrap();
    }
    let end = 2 * n * BLOCK;
    vol.extend(&mut file, end, end, Some(time(2))).unwrap();
    file
}

/// Does `begin` to a file of many extents that `make` makes, with each number of allocations of
/// memory before they fail, and then `next`, which returns what the file has to hold, given what it
/// shows. Returns how many times something was left to be done later.
fn with_a_rest(
    make: impl Fn(&Vol) -> Inode,
    begin: impl Fn(&Vol, &mut Inode) -> Result<()>,
    next: impl Fn(&Vol, &mut Inode, Shown) -> Shown,
) -> u32 {
    let mut rests = 0;
    for left in 0.. {
        let (vol, ram) = fresh(16 << 20);
        let mut file = sparse(&vol, make(&vol), 600);
        fail_allocations_after(Some(left));
        let begun = begin(&vol, &mut file);
        let failed = allocation_failed();
        fail_allocations_after(None);
        if begun.is_err() {
            continue;
        }
        rests += u32::from(failed);
        let shown = all(&vol, &mut file);
        let expected = next(&vol, &mut file, shown);
        let size = file.size();
        assert!(all(&vol, &mut file) == expected, "{left}: in memory");
        let again = |vol: &Vol| {
            let mut file = vol.iget(file.ino()).unwrap();
            assert_eq!(file.size(), size);
            assert!(all(vol, &mut file) == expected, "{left}: read anew");
        };
        again(&vol);
        drop(vol);
        again(&mount(ram.clone()));
        assert_clean(&*ram);
        if !failed {
            break;
        }
    }
    rests
}

fn named(vol: &Vol) -> Inode {
    vol.create(&mut root(vol), b"file", &new(FILE, 1)).unwrap()
}

/// What is left to do to a range is done before the keys of that range are others.
#[test]
fn blocks_move_when_what_was_left_is_done() {
    let (mut collapsed, mut moved) = (0, 0);
    // Some of these end where a transaction has little to do first, and the next one more.
    for end in (600..1100).step_by(50) {
        let punch = |vol: &Vol, file: &mut Inode| vol.punch(file, 1, end - 1, time(3));
        collapsed += with_a_rest(named, punch, |vol, file, mut shown| {
            vol.collapse(file, 500, 600, time(4)).unwrap();
            shown.drain(500..1100);
            shown.extend([None; 600]);
            shown
        });
        moved += with_a_rest(named, punch, |vol, file, mut shown| {
            vol.make_gap(file, 500, 600, time(4)).unwrap();
            shown.splice(500..500, [None; 600]);
            shown.truncate(2 * END as usize);
            shown
        });
    }
    assert!(collapsed > 0 && moved > 0);
}

/// So it is before a file without a name, which the orphan file has anyway, gets one.
#[test]
fn a_name_is_given_when_what_was_left_is_done() {
    let make = |vol: &Vol| vol.tmpfile(&new(FILE, 1)).unwrap();
    let cut = |vol: &Vol, file: &mut Inode| vol.truncate(file, 3 * BLOCK, time(3));
    let rests = with_a_rest(make, cut, |vol, file, shown| {
        vol.link(&mut root(vol), b"name", file, time(4)).unwrap();
        shown
    });
    assert!(rests > 0);
}

/// A file without a name is freed by the next mount, also if it was cut in several transactions.
#[test]
fn a_file_without_a_name_stays_an_orphan() {
    let (vol, ram) = fresh(16 << 20);
    let mut file = sparse(&vol, vol.tmpfile(&new(FILE, 1)).unwrap(), 600);
    vol.truncate(&mut file, 3 * BLOCK, time(3)).unwrap();
    drop(vol);
    let vol = mount(ram.clone());
    assert_eq!(vol.statfs().inodes_used, 1);
    assert_clean(&*ram);
}
