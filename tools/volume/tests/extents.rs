// SPDX-License-Identifier: GPL-2.0

//! Extent trees against a sorted map: as many extents as make the tree three levels deep, in every
//! order, with holes punched through all of them.

mod common;

use std::collections::BTreeMap;

use common::*;
use proptest::prelude::*;
use rdax_volume::volume::alloc::Want;
use rdax_volume::volume::error::Error;
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::BLOCK;
use rdax_volume::volume::inode::Inode;

/// A file whose blocks are followed one by one: file block to block, and whether it is unwritten.
struct Mirror {
    vol: Vol,
    file: Inode,
    blocks: BTreeMap<u64, (u64, bool)>,
}

impl Mirror {
    fn new(bytes: u64) -> (Mirror, Shared<rdax_volume::ram::Ram>) {
        let (vol, ram) = fresh(bytes);
        let mut dir = root(&vol);
        let file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
        let blocks = BTreeMap::new();
        (Mirror { vol, file, blocks }, ram)
    }

    /// Maps `len` blocks at `key`, or as many as there are before the next extent.
    fn insert(&mut self, key: u64, len: u64) {
        if self.blocks.contains_key(&key) {
            assert_eq!(
                self.vol.want(&mut self.file, key, 1).unwrap_err(),
                Error::Exists
            );
            return;
        }
        let want = self.vol.want(&mut self.file, key, len).unwrap();
        let reserved = self.vol.reserve_several(want).unwrap();
        let mut at = key;
        let blocks: Vec<u64> = reserved
            .runs()
            .flat_map(|run| run.block..run.end())
            .collect();
        self.vol
            .insert(&mut self.file, key, reserved, None, time(2))
            .unwrap();
        for block in blocks {
            assert_eq!(self.blocks.insert(at, (block, false)), None);
            at += 1;
        }
    }

    /// Gives unwritten blocks to holes among the `len` blocks at `key`, as many as go at once.
    fn preallocate(&mut self, key: u64, len: u64) {
        let vol = &self.vol;
        let done = vol.preallocate(&mut self.file, key, len, time(2)).unwrap();
        assert!((1..=len).contains(&done));
        for key in key..key + done {
            let (block, unwritten) = match vol.map(&mut self.file, key, 1).unwrap() {
                Map::Run { block, .. } => (block, false),
                Map::Unwritten { block, .. } => (block, true),
                Map::Hole { .. } => panic!("{key} is a hole"),
            };
            // What was there is as it was, and what was not is unwritten.
            let old = self.blocks.insert(key, (block, unwritten));
            assert_eq!((block, unwritten), old.unwrap_or((block, true)));
        }
    }

    /// Makes data of the blocks at `key`, up to `len`, if they are unwritten.
    fn fill(&mut self, key: u64, len: u64) {
        let before = self.blocks.get(&key).copied();
        match self.vol.fill(&mut self.file, key, len, None) {
            Err(e) => assert!(e == Error::Exists && before.is_some_and(|b| !b.1), "{e:?}"),
            Ok(run) => {
                assert!(before.is_none_or(|b| b == (run.block, true)), "{before:?}");
                for i in 0..run.len {
                    let old = self.blocks.insert(key + i, (run.block + i, false));
                    assert_eq!(old, before.map(|b| (b.0 + i, true)));
                }
            }
        }
    }

    fn unwrite(&mut self, key: u64, len: u64) {
        self.vol.unwrite(&mut self.file, key, len, time(3)).unwrap();
        for (_, (_, unwritten)) in self.blocks.range_mut(key..key + len) {
            *unwritten = true;
        }
    }

    /// What [`Volume::map`] says of the blocks from `key` on is the mirror's.
    fn check_run(&self, key: u64, run: std::ops::Range<u64>, unwritten: bool) {
        for (i, block) in run.enumerate() {
            let key = key + i as u64;
            assert_eq!(self.blocks.get(&key), Some(&(block, unwritten)), "{key}");
        }
    }

    fn punch(&mut self, key: u64, len: u64) {
        self.vol.punch(&mut self.file, key, len, time(3)).unwrap();
        let gone: Vec<u64> = self.blocks.range(key..key + len).map(|(k, _)| *k).collect();
        for k in gone {
            self.blocks.remove(&k);
        }
    }

    fn truncate(&mut self, size: u64) {
        self.vol.truncate(&mut self.file, size, time(4)).unwrap();
        self.blocks.retain(|k, _| *k < size.div_ceil(BLOCK));
    }

    /// What is at `key`, by tree and by mirror.
    fn check_at(&mut self, key: u64) {
        match self.vol.map(&mut self.file, key, 1 << 40).unwrap() {
            Map::Run { block, len } => self.check_run(key, block..block + len, false),
            Map::Unwritten { block, len } => self.check_run(key, block..block + len, true),
            Map::Hole { len } => {
                assert_eq!(
                    self.blocks.range(key..key + len).next(),
                    None,
                    "{key} {len}"
                );
                let next = self.blocks.range(key..).next().map(|(k, _)| *k);
                let shown = len < 1 << 40;
                assert!(!shown || next == Some(key + len), "{key} {len} {next:?}");
            }
        }
    }

    fn check_all(&mut self) {
        let mut key = 0;
        let mut seen = 0;
        while key < 1 << 50 {
            self.check_at(key);
            let map = self.vol.map(&mut self.file, key, 1 << 50).unwrap();
            if !matches!(map, Map::Hole { .. }) {
                seen += map.file_blocks();
            }
            key += map.file_blocks();
        }
        assert_eq!(seen, self.blocks.len() as u64);
        assert!(self.file.blocks() >= seen);
    }
}

fn grind(seed: u64, keys: u64, steps: u64, order: impl Fn(u64, &mut Random) -> u64) {
    let (mut m, ram) = Mirror::new(256 << 20);
    let empty = m.vol.free_blocks();
    let mut random = Random(seed);
    for step in 0..steps {
        let key = order(step, &mut random) % keys;
        m.insert(key, 1);
        if random.below(500) == 0 {
            let len = 1 + random.below(keys / 20);
            m.punch(random.below(keys), len);
        }
        if step % 64 == 0 {
            m.check_at(random.below(keys));
        }
    }
    m.check_all();
    assert_clean(&*ram);
    let depth = m.file.raw().depth;
    // A truncation cuts what is beyond the new size only if that is not above the old one.
    let end = keys * BLOCK;
    m.vol.extend(&mut m.file, end, end, Some(time(5))).unwrap();
    let size = keys / 2 * BLOCK + 17;
    m.truncate(size);
    m.check_all();
    assert_eq!(m.file.raw().orphan.get(), 0);
    let (free, _) = assert_clean(&*ram);
    assert_eq!(free, m.vol.free_blocks());
    m.truncate(0);
    assert_eq!(m.file.blocks(), 0);
    assert_eq!(m.vol.free_blocks(), empty);
    assert_clean(&*ram);
    println!("depth {depth}");
}

#[test]
fn random_order() {
    // Every second block, so that no two extents merge; more than one node of nodes.
    grind(1, 40_000, 12_000, |_, r| r.next() & !1);
}

#[test]
fn ascending_order_fills_the_nodes() {
    let (mut m, ram) = Mirror::new(64 << 20);
    for i in 0..6_000 {
        m.insert(i * 2, 1);
    }
    m.check_all();
    // 6000 extents in full nodes of 252.
    let nodes = m.file.blocks() - 6_000;
    assert!(nodes <= 6_000 / 252 + 3, "{nodes} nodes");
    assert_clean(&*ram);
}

#[test]
fn descending_order() {
    grind(2, 20_000, 9_000, |i, _| 20_000 - 2 * (i + 1));
}

#[test]
fn mixed_order_with_neighbours() {
    grind(3, 6_000, 12_000, |_, r| r.next());
}

/// Extents of the file's tree, as many as [`Volume::map`] tells apart.
fn extents(m: &mut Mirror) -> usize {
    let (mut key, mut count) = (0, 0);
    while key < 1 << 50 {
        let map = m.vol.map(&mut m.file, key, 1 << 50).unwrap();
        count += usize::from(!matches!(map, Map::Hole { .. }));
        key += map.file_blocks();
    }
    count
}

#[test]
fn unwritten_and_back() {
    let (mut m, ram) = Mirror::new(64 << 20);
    let mut random = Random(4);
    const KEYS: u64 = 4_000;
    for step in 0..9_000 {
        let (key, len) = (random.below(KEYS), 1 + random.below(30));
        match random.below(20) {
            0..=4 => m.preallocate(key, len),
            5..=10 => m.fill(key, 1 + len % 4),
            11..=12 => m.insert(key, 1),
            13..=17 => m.unwrite(key, 1 + len % 8),
            18 => m.punch(key, len),
            _ => m.check_at(key),
        }
        if step % 1_000 == 0 {
            m.check_all();
            assert_clean(&*ram);
        }
    }
    assert!(m.file.raw().depth > 0);
    m.check_all();
    m.unwrite(0, KEYS + 40);
    m.check_all();
    assert!(m.blocks.values().all(|b| b.1));
    let (free, _) = assert_clean(&*ram);
    assert_eq!(free, m.vol.free_blocks());
    m.punch(0, KEYS + 40);
    assert_eq!(m.file.blocks(), 0);
    assert_clean(&*ram);
}

#[test]
fn what_is_written_in_order_becomes_one_extent() {
    let (mut m, ram) = Mirror::new(16 << 20);
    m.preallocate(10, 300);
    assert_eq!(extents(&mut m), 1);
    for i in 0..100 {
        m.fill(10 + 3 * i, 3);
        assert_eq!(extents(&mut m), if i < 99 { 2 } else { 1 });
    }
    m.check_all();
    // Back from the end, and then from both sides of what is left.
    for i in (0..60).rev() {
        m.unwrite(250 + i, 1);
        assert_eq!(extents(&mut m), 2);
    }
    m.fill(260, 40);
    assert_eq!(extents(&mut m), 4);
    m.fill(250, 10);
    m.fill(300, 10);
    assert_eq!(extents(&mut m), 1);
    m.check_all();
    assert_clean(&*ram);
}

/// As many holes as one transaction fills, up to the end of a leaf; of one that is split, up to
/// where it is.
#[test]
fn holes_of_one_leaf_are_filled_at_once() {
    let (mut m, ram) = Mirror::new(16 << 20);
    for i in 0..256 {
        m.insert(2 * i, 1);
    }
    // The first leaf has 251 extents.
    assert_eq!(m.file.raw().root_count.get(), 2);
    for (key, len, filled) in [(240, 100, 11), (498, 10, 4), (100, 300, 129), (251, 9, 9)] {
        let vol = &m.vol;
        let done = vol.preallocate(&mut m.file, key, len, time(2)).unwrap();
        assert_eq!(done, filled, "{key}");
        // The mirror's are those that it finds.
        for key in (key..key + done).filter(|key| key % 2 == 1) {
            match m.vol.map(&mut m.file, key, 1).unwrap() {
                Map::Unwritten { block, .. } => m.blocks.insert(key, (block, true)),
                map => panic!("{key}: {map:?}"),
            };
        }
    }
    assert_eq!(m.file.raw().root_count.get(), 3);
    m.check_all();
    assert_clean(&*ram);
}

#[test]
fn holes_between_unwritten_blocks_take_no_entries() {
    let (mut m, ram) = Mirror::new(16 << 20);
    // Not more than a root has room for, as long as they are not apart.
    for i in 0..5 {
        m.insert(2 * i, 1);
    }
    m.unwrite(0, 10);
    m.preallocate(0, 10);
    m.check_all();
    assert_eq!((m.blocks.len(), extents(&mut m)), (10, 1));
    assert_eq!(m.file.raw().depth, 0);
    m.check_all();
    // Where nothing is a hole, nothing is to be done.
    let free = m.vol.free_blocks();
    assert_eq!(m.vol.preallocate(&mut m.file, 3, 7, time(3)), Ok(7));
    assert_eq!(m.vol.free_blocks(), free);
    assert!(m.file.ctime() != time(3));
    assert_clean(&*ram);
}

#[test]
fn very_large_keys() {
    let (mut m, ram) = Mirror::new(32 << 20);
    let last = (1 << 51) - 1;
    for key in [last, last - 2, 1 << 50, 5, last - 1] {
        m.insert(key, 1);
    }
    for key in [last, last - 1, 6, 5, 0, 1 << 50] {
        m.check_at(key);
    }
    assert_eq!(m.vol.map(&mut m.file, last + 1, 1), Err(Error::TooBig));
    assert_eq!(m.vol.fill(&mut m.file, last, 2, None), Err(Error::TooBig));
    m.truncate(0);
    assert_clean(&*ram);
}

#[test]
fn a_reservation_larger_than_the_hole_is_refused() {
    let (mut m, ram) = Mirror::new(16 << 20);
    m.insert(10, 1);
    let free = m.vol.free_blocks();
    let reserved = m.vol.reserve_several(Want::blocks(4)).unwrap();
    assert_eq!(reserved.blocks(), 4);
    let refused = m.vol.insert(&mut m.file, 8, reserved, None, time(9));
    assert_eq!(refused, Err(Error::Exists));
    assert_eq!(m.vol.free_blocks(), free);
    assert_clean(&*ram);
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, u64),
    Punch(u64, u64),
    Truncate(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..400u64, 1..20u64).prop_map(|(k, n)| Op::Insert(k, n)),
        3 => (0..400u64, 1..60u64).prop_map(|(k, n)| Op::Punch(k, n)),
        1 => (0..400 * BLOCK).prop_map(Op::Truncate),
    ]
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn few_extents_in_every_way(ops in proptest::collection::vec(op(), 1..120)) {
        let (mut m, ram) = Mirror::new(16 << 20);
        for op in ops {
            match op {
                Op::Insert(k, n) => m.insert(k, n),
                Op::Punch(k, n) => m.punch(k, n),
                // A truncation to more than the size, 0 here, makes the file longer.
                Op::Truncate(size) if size > m.file.size() => {}
                Op::Truncate(size) => m.truncate(size),
            }
            m.check_at(200);
        }
        m.check_all();
        assert_clean(&*ram);
    }
}
