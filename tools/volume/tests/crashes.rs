// SPDX-License-Identifier: GPL-2.0

//! Every operation cut off at each fence, with any part of what was not durable yet: after recovery
//! the volume is as before the operation or as after it, and as after it once the operation has
//! returned. Then the checker has nothing to say, and nothing is lost.

mod common;

use common::operations::{sim, Operation, ALL};
use common::tree::{walk, Tree};
use common::*;
use rdax_volume::sim::{Bounds, Sim};
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::BLOCK;
use rdax_volume::volume::pmem::Pmem;

/// States looked at for each fence, unless RDAX_CRASH_STATES says otherwise.
const PER_FENCE: u64 = 50;

/// What is there after mount, with the orphans worked off.
fn recovered(op: &Operation, sim: &Sim) -> Tree {
    let vol = mount(sim);
    let tree = walk(&vol).unwrap();
    if op.name.starts_with("truncate") {
        // Nothing is left beyond the size.
        let ino = *tree.keys().next_back().unwrap();
        let mut file = vol.iget(ino).unwrap();
        let end = file.size().div_ceil(BLOCK);
        let rest = vol.map(&mut file, end, 1 << 40).unwrap();
        assert_eq!(rest, Map::Hole { len: 1 << 40 });
        let (last, used) = (file.size() / BLOCK, file.size() % BLOCK);
        if let (Map::Run { block, .. }, 1..) = (vol.map(&mut file, last, 1).unwrap(), used) {
            let mut beyond = vec![1; (BLOCK - used) as usize];
            sim.read(block * BLOCK + used, &mut beyond).unwrap();
            assert!(beyond.iter().all(|b| *b == 0), "old bytes beyond the end");
        }
    }
    let stat = vol.statfs();
    assert_eq!(stat.inodes_used, tree.len() as u64);
    assert_eq!(assert_clean(sim), (stat.free, stat.inodes_used));
    tree
}

fn cut_everywhere(op: &Operation) {
    let sim = sim();
    (op.prepare)(&mount(sim.clone())).unwrap();
    let vol = mount(sim.clone());
    let before = walk(&vol).unwrap();
    sim.record();
    (op.run)(&vol).unwrap();
    sim.mark(1);
    sim.fence().unwrap();
    let trace = sim.take_trace();
    drop(vol);
    let after = recovered(op, &sim);
    let (mut old, mut new) = (0, 0);
    let wanted = std::env::var("RDAX_CRASH_STATES").ok();
    let bounds = Bounds {
        per_fence: wanted.map_or(PER_FENCE, |n| n.parse().expect("a number")),
        seed: 1,
    };
    trace.for_each_crash(bounds, |crash| {
        let tree = recovered(op, &crash.sim);
        let returned = !crash.marks.is_empty();
        if tree == after {
            new += 1;
        } else if !returned && tree == before {
            old += 1;
        } else {
            panic!(
                "{}: {crash}\nbefore {before:?}\nfound {tree:?}\nafter {after:?}",
                op.name
            );
        }
    });
    let fences = trace.fences() - 1;
    println!("{}: {fences} fences; {old} old, {new} new", op.name);
    assert!(new > 0 && (old > 0 || before == after));
}

/// Every `n`th operation from `first` on: tests run side by side.
fn some(first: usize, n: usize) {
    for op in ALL.iter().skip(first).step_by(n) {
        cut_everywhere(op);
    }
}

#[test]
fn first_part() {
    some(0, 4);
}

#[test]
fn second_part() {
    some(1, 4);
}

#[test]
fn third_part() {
    some(2, 4);
}

#[test]
fn fourth_part() {
    some(3, 4);
}
