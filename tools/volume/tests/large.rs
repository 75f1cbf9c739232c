// SPDX-License-Identifier: GPL-2.0

//! Sizes that tests seldom see: what one transaction does on a device of terabytes, of which the
//! memory holds only what was stored.

mod common;

use common::*;
use rdax_volume::sim::{Bounds, Sim};
use rdax_volume::volume::extent::{pack, unpack, Mapping};
use rdax_volume::volume::format::{Extent, BLOCK, EXTENT_MAX, KEY_BITS, MAX_BYTES};
use rdax_volume::volume::persist::Dirty;
use rdax_volume::volume::pmem::{Pmem, LINE};

/// Bytes of the devices: the groups of blocks are larger than what [`FREED`] counts.
const BYTES: u64 = 2 << 40;
/// Blocks that one transaction frees: their bitmaps are more lines than 16 bits count.
const FREED: u64 = (160 << 30) / BLOCK;

/// The step of the tests' own stores.
struct Stored;

#[test]
fn a_transaction_that_frees_more_lines_than_sixteen_bits_count() {
    let sim = Shared::new(Sim::new(BYTES));
    format(&*sim);
    let vol = mount(sim.clone());
    let mut file = vol.create(&mut root(&vol), b"file", &new(FILE, 1)).unwrap();
    let mut blocks = 0;
    while blocks < FREED {
        blocks += vol
            .preallocate(&mut file, blocks, FREED - blocks, time(2))
            .unwrap();
    }
    assert_eq!(file.raw().depth, 0, "one transaction frees all");
    sim.record();
    vol.truncate(&mut file, 0, time(3)).unwrap();
    sim.mark(1);
    let free = vol.free_blocks();
    let mut looked_at = 0;
    let bounds = Bounds {
        per_fence: 1,
        seed: 1,
    };
    sim.take_trace().for_each_crash(bounds, |crash| {
        if crash.marks.is_empty() {
            return;
        }
        looked_at += 1;
        assert_eq!(mount(&crash.sim).free_blocks(), free);
        assert_eq!(assert_clean(&crash.sim).0, free);
    });
    assert_eq!(looked_at, 1);
}

/// The lines of many stores next to each other, and of one store, are all written back.
#[test]
fn ranges_of_lines_that_are_too_long_to_count() {
    let sim = Sim::new(64 << 20);
    let piece = vec![1; 1 << 20];
    let mut dirty = Dirty::<_, Stored>::new(&sim);
    for at in (0..32 << 20).step_by(piece.len()) {
        dirty.store(at, &piece).unwrap();
    }
    dirty.store(32 << 20, &vec![2; 32 << 20]).unwrap();
    let _durable = dirty.write_back().fence().unwrap();
    assert_eq!(sim.not_durable(), 0);
}

/// The last lines, blocks and keys that there can be.
#[test]
fn the_end_of_the_largest_device() {
    let sim = Sim::new(MAX_BYTES);
    let mut dirty = Dirty::<_, Stored>::new(&sim);
    for line in 1..=20 {
        dirty.store(MAX_BYTES - line * LINE, &[3; 64]).unwrap();
    }
    let _durable = dirty.write_back().fence().unwrap();
    assert_eq!(sim.not_durable(), 0);
    let mut last = [0; 64];
    sim.read(MAX_BYTES - LINE, &mut last).unwrap();
    assert_eq!(last, [3; 64]);

    let mapping = Mapping {
        key: (1 << KEY_BITS) - EXTENT_MAX,
        block: MAX_BYTES / BLOCK - EXTENT_MAX,
        len: EXTENT_MAX,
        unwritten: true,
    };
    let entry: Extent = pack(mapping);
    assert_eq!(unpack(&entry), mapping);
}
