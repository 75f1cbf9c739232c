// SPDX-License-Identifier: GPL-2.0

//! What is known in memory of a file's tree is what the media has: after every operation, also one
//! that failed for want of memory at any place, the file is shown as one that is read anew.

mod common;

use common::*;
use rdax_volume::env::fail_allocations_after;
use rdax_volume::volume::error::{Error, Result};
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::BLOCK;
use rdax_volume::volume::inode::Inode;

/// File blocks that are used: with a hole between each two, the tree has some nodes.
const END: u64 = 3000;

/// All that `inode` has: of each of its blocks where it is, and whether it is data.
fn all(vol: &Vol, inode: &mut Inode) -> Vec<Option<(u64, bool)>> {
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
