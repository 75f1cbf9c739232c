// SPDX-License-Identifier: GPL-2.0

//! Files against an array of bytes and a set of mapped blocks: written, filled, cut and punched,
//! with mounts in between.

mod common;

use std::collections::BTreeMap;

use common::*;
use proptest::prelude::*;
use rdax_volume::ram::Ram;
use rdax_volume::volume::alloc::{Reservation, Want};
use rdax_volume::volume::error::Error;
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::{BLOCK, MAX_FILE};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::pmem::Pmem;

/// Blocks that the operations reach.
const SPAN: u64 = 96;

struct Mirror {
    vol: Vol,
    ram: Shared<Ram>,
    file: Inode,
    content: Vec<u8>,
    /// The blocks that the file has, and whether they are data.
    mapped: BTreeMap<u64, bool>,
    clock: i64,
}

impl Mirror {
    fn new() -> Mirror {
        let (vol, ram) = fresh(16 << 20);
        // No block is zero by chance.
        let reserved = vol.reserve(Want::blocks(2048)).unwrap();
        for block in reserved.run().block..reserved.run().end() {
            ram.store_nt(block * BLOCK, &[0xee; BLOCK as usize])
                .unwrap();
        }
        drop(reserved);
        let mut dir = root(&vol);
        let file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
        Mirror {
            vol,
            ram,
            file,
            content: Vec::new(),
            mapped: BTreeMap::new(),
            clock: 1,
        }
    }

    fn run(&mut self, op: &Op) {
        self.clock += 1;
        let now = time(self.clock);
        match *op {
            Op::Write(pos, len, byte) => {
                let data = vec![byte; len as usize];
                write(&self.vol, &mut self.file, pos, &data, now).unwrap();
                let end = pos + len;
                if self.content.len() < end as usize {
                    self.content.resize(end as usize, 0);
                }
                self.content[pos as usize..end as usize].copy_from_slice(&data);
                let blocks = pos / BLOCK..end.div_ceil(BLOCK);
                self.mapped.extend(blocks.map(|block| (block, true)));
            }
            Op::StrayStore(pos, byte) => {
                // As a program may through its mapping: beyond the size, in the last block.
                let last = self.file.size() / BLOCK;
                let at = self.file.size() % BLOCK + pos % (BLOCK - self.file.size() % BLOCK);
                if let Map::Run { block, .. } = self.vol.map(&mut self.file, last, 1).unwrap() {
                    self.ram.store(block * BLOCK + at, &[byte]).unwrap();
                }
            }
            Op::Fill(block, len) => {
                let is_mapped = self.mapped.get(&block).copied();
                match self.vol.fill(&mut self.file, block, len, Some(now)) {
                    Err(e) => assert!(is_mapped == Some(true) && e == Error::Exists),
                    Ok(run) => {
                        assert!(run.len <= len && run.len > 0);
                        for i in 0..run.len {
                            assert_eq!(
                                self.mapped.insert(block + i, true),
                                is_mapped.map(|_| false)
                            );
                            let mut bytes = [1; BLOCK as usize];
                            self.ram.read((run.block + i) * BLOCK, &mut bytes).unwrap();
                            assert_eq!(bytes, [0; BLOCK as usize]);
                        }
                        assert_eq!(self.file.ctime(), now);
                    }
                }
            }
            Op::Preallocate(block, len) => {
                let vol = &self.vol;
                let len = vol.preallocate(&mut self.file, block, len, now).unwrap();
                let before = self.mapped.len();
                for block in block..block + len {
                    self.mapped.entry(block).or_insert(false);
                }
                assert!(self.file.ctime() == now || self.mapped.len() == before);
            }
            Op::Unwrite(block, len) => {
                self.vol.unwrite(&mut self.file, block, len, now).unwrap();
                for (_, data) in self.mapped.range_mut(block..block + len) {
                    *data = false;
                }
                self.zero(block, len);
            }
            Op::Truncate(size) => {
                let shorter = size <= self.file.size();
                self.vol.truncate(&mut self.file, size, now).unwrap();
                let last = self.vol.map(&mut self.file, size / BLOCK, 1).unwrap();
                if let (Map::Run { block, .. }, true) = (last, shorter && size % BLOCK > 0) {
                    // A mapping shows what lies beyond the size.
                    let mut tail = vec![1; (BLOCK - size % BLOCK) as usize];
                    let at = block * BLOCK + size % BLOCK;
                    self.ram.read(at, &mut tail).unwrap();
                    assert!(tail.iter().all(|b| *b == 0));
                }
                if size as usize <= self.content.len() {
                    self.mapped.retain(|b, _| *b < size.div_ceil(BLOCK));
                }
                self.content.resize(size as usize, 0);
                assert_eq!(self.file.mtime(), now);
            }
            Op::Punch(block, len) => {
                self.vol.punch(&mut self.file, block, len, now).unwrap();
                self.mapped.retain(|b, _| !(block..block + len).contains(b));
                self.zero(block, len);
            }
            Op::Remount => {
                self.vol = mount(self.ram.clone());
                self.file = self.vol.iget(self.file.ino()).unwrap();
            }
        }
    }

    /// Makes zeros of blocks of the content.
    fn zero(&mut self, block: u64, len: u64) {
        let size = self.content.len();
        let from = ((block * BLOCK) as usize).min(size);
        let to = (((block + len) * BLOCK) as usize).min(size);
        self.content[from..to].fill(0);
    }

    fn check(&mut self) {
        assert_eq!(self.file.size(), self.content.len() as u64);
        assert_eq!(
            self.file.blocks() as usize,
            self.mapped.len() + self.nodes()
        );
        let bytes = read(&self.vol, &mut self.file, 0, u64::MAX / 2).unwrap();
        if let Some(at) = bytes.iter().zip(&self.content).position(|(a, b)| a != b) {
            panic!("byte {at}: {:#x}, not {:#x}", bytes[at], self.content[at]);
        }
        let size = self.content.len() as u64;
        for at in (0..size + BLOCK).step_by(1777) {
            let inside = |a: &u64| *a < size;
            let from = |b: u64| (b * BLOCK).max(at);
            let mut data = self.mapped.range(at / BLOCK..).filter(|b| *b.1);
            let data = data.next().map(|b| from(*b.0));
            let data = data.filter(inside).filter(|_| at < size);
            assert_eq!(self.vol.seek_data(&mut self.file, at).unwrap(), data);
            let is_hole = |b: &u64| self.mapped.get(b) != Some(&true);
            let hole = (at / BLOCK..).find(is_hole).map(from);
            let hole = hole.map(|a| a.min(size)).filter(|_| at < size);
            assert_eq!(self.vol.seek_hole(&mut self.file, at).unwrap(), hole);
        }
    }

    fn nodes(&self) -> usize {
        // SPAN blocks fit one node.
        usize::from(self.file.raw().depth)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write(u64, u64, u8),
    StrayStore(u64, u8),
    Fill(u64, u64),
    Preallocate(u64, u64),
    Unwrite(u64, u64),
    Truncate(u64),
    Punch(u64, u64),
    Remount,
}

fn op() -> impl Strategy<Value = Op> {
    let pos = 0..(SPAN - 16) * BLOCK;
    prop_oneof![
        6 => (pos.clone(), 1..8 * BLOCK, 1..=255u8).prop_map(|(p, n, b)| Op::Write(p, n, b)),
        2 => (pos.clone(), 1..200u64, 1..=255u8).prop_map(|(p, n, b)| Op::Write(p, n, b)),
        2 => (0..BLOCK, 1..=255u8).prop_map(|(p, b)| Op::StrayStore(p, b)),
        3 => (0..SPAN - 12, 1..12u64).prop_map(|(b, n)| Op::Fill(b, n)),
        3 => (0..SPAN - 12, 1..12u64).prop_map(|(b, n)| Op::Preallocate(b, n)),
        2 => (0..SPAN - 20, 1..20u64).prop_map(|(b, n)| Op::Unwrite(b, n)),
        3 => pos.prop_map(Op::Truncate),
        2 => (0..SPAN, 1..20u64).prop_map(|(b, n)| Op::Punch(b, n)),
        1 => Just(Op::Remount),
    ]
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn reads_what_was_written(ops in proptest::collection::vec(op(), 1..60)) {
        let mut m = Mirror::new();
        for op in &ops {
            m.run(op);
            m.check();
        }
        assert_clean(&*m.ram);
        let mut dir = root(&m.vol);
        m.vol.unlink(&mut dir, b"file", &mut m.file, time(99)).unwrap();
        m.vol.free_inode(&mut m.file).unwrap();
        assert_clean(&*m.ram);
        prop_assert_eq!(m.vol.statfs().inodes_used, 1);
    }
}

#[test]
fn append_stays_one_extent() {
    let (vol, ram) = fresh(32 << 20);
    let mut dir = root(&vol);
    let mut file = vol.create(&mut dir, b"log", &new(FILE, 1)).unwrap();
    for i in 0..1000 {
        write(&vol, &mut file, i * 5000, &[i as u8; 5000], time(2)).unwrap();
    }
    assert_eq!(file.size(), 5_000_000);
    assert!(file.raw().depth == 0 && file.raw().root_count.get() <= 3);
    for i in 0..1000 {
        let bytes = read(&vol, &mut file, i * 5000, 5000).unwrap();
        assert!(bytes.iter().all(|b| *b == i as u8));
    }
    assert_clean(&*ram);
}

/// The extents that hold `file`.
fn extents(vol: &Vol, file: &mut Inode) -> usize {
    let (mut at, mut n) = (0, 0);
    while at * BLOCK < file.size() {
        let map = vol.map(file, at, u64::MAX).unwrap();
        assert!(matches!(map, Map::Run { .. }), "{map:?}");
        at += map.file_blocks();
        n += 1;
    }
    n
}

#[test]
fn files_that_grow_in_turn_have_few_extents() {
    for (files, most) in [(2, 7), (16, 7), (60, 7)] {
        let (vol, ram) = fresh(128 << 20);
        let mut dir = root(&vol);
        let mut logs: Vec<Inode> = (0..files)
            .map(|i| vol.create(&mut dir, format!("log{i}").as_bytes(), &new(FILE, 1)))
            .collect::<Result<_, _>>()
            .unwrap();
        let free = vol.free_blocks();
        for round in 0..600 {
            for log in &mut logs {
                write(&vol, log, round * 1000, &[round as u8; 1000], time(2)).unwrap();
            }
        }
        for log in &mut logs {
            let n = extents(&vol, log);
            assert!(n <= most, "{n} extents of {files} files");
        }
        // The windows are free all the same.
        let used: u64 = logs.iter().map(Inode::blocks).sum();
        assert_eq!(vol.free_blocks(), free - used);
        assert_clean(&*ram);
    }
}

#[test]
fn what_files_may_want_next_is_had_by_others_in_need() {
    // A window of a few blocks, and one that reaches into the next chunk.
    had_by_others_in_need(20, 1, 32);
    had_by_others_in_need(260, 200, 256);
}

/// The block of a file block that is data.
fn block_of(vol: &Vol, file: &mut Inode, file_block: u64) -> u64 {
    match vol.map(file, file_block, 1).unwrap() {
        Map::Run { block, .. } => block,
        map => panic!("{map:?}"),
    }
}

/// Fills a volume on which a file has grown by `blocks`. At least `windows` blocks after these are
/// left until the last, all of which are at most `most`.
fn had_by_others_in_need(blocks: u64, windows: u64, most: usize) {
    let (vol, ram) = fresh(16 << 20);
    let mut dir = root(&vol);
    let mut log = vol.create(&mut dir, b"log", &new(FILE, 1)).unwrap();
    for i in 0..blocks {
        write(&vol, &mut log, i * BLOCK, &[1; BLOCK as usize], time(2)).unwrap();
    }
    let last = block_of(&vol, &mut log, blocks - 1);
    // Others leave the blocks after it, as long as they can.
    let mut got = Vec::new();
    while let Ok(reservation) = vol.reserve(Want::blocks(1).for_removal()) {
        got.push(reservation);
    }
    assert_eq!(vol.free_blocks(), 0);
    let next = |r: &Reservation<'_, _>| (last + 1..=last + windows).contains(&r.run().block);
    let first = got.iter().position(next).unwrap();
    assert!(got.len() - first <= most, "{first} of {}", got.len());
    // The file goes on elsewhere, and where it was when there is something again.
    let full = write(&vol, &mut log, blocks * BLOCK, &[2], time(3));
    assert_eq!(full, Err(Error::NoSpace));
    drop(got);
    write(
        &vol,
        &mut log,
        blocks * BLOCK,
        &[2; BLOCK as usize],
        time(3),
    )
    .unwrap();
    let map = vol.map(&mut log, 0, blocks + 10).unwrap();
    assert_eq!(map.file_blocks(), blocks + 1, "{map:?}");
    assert_clean(&*ram);
}

#[test]
fn holes_are_no_windows() {
    let (vol, ram) = fresh(16 << 20);
    let mut dir = root(&vol);
    let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
    let mut other = vol.create(&mut dir, b"other", &new(FILE, 1)).unwrap();
    for i in 0..8 {
        write(
            &vol,
            &mut file,
            2 * i * BLOCK,
            &[1; BLOCK as usize],
            time(2),
        )
        .unwrap();
    }
    let first = block_of(&vol, &mut file, 0);
    for i in 0..7 {
        let run = vol.fill(&mut other, 100 - i, 1, None).unwrap();
        assert_eq!(run.block, first + 1 + 2 * i);
    }
    assert_clean(&*ram);
}

#[test]
fn a_window_ends_with_its_file() {
    let (vol, ram) = fresh(16 << 20);
    let mut dir = root(&vol);
    let mut log = vol.create(&mut dir, b"log", &new(FILE, 1)).unwrap();
    let mut other = vol.create(&mut dir, b"other", &new(FILE, 1)).unwrap();
    let mut first = None;
    for (round, rest) in [3, 0, 1, 0, 5, 0].into_iter().enumerate() {
        for i in 0..8 {
            let at = log.size().next_multiple_of(BLOCK);
            write(&vol, &mut log, at, &[i; BLOCK as usize], time(2)).unwrap();
        }
        vol.truncate(&mut log, rest * BLOCK, time(3)).unwrap();
        // What follows is free for all, at once.
        let run = vol.fill(&mut other, 100 * round as u64, 16, None).unwrap();
        let begin = *first.get_or_insert(run.block - rest);
        assert_eq!(run.block, begin + rest, "round {round}");
        assert_eq!(run.len, 16, "round {round}");
        vol.punch(&mut other, 0, 1 << 20, time(3)).unwrap();
    }
    assert_clean(&*ram);
}

#[test]
fn large_fills_are_aligned_chunks() {
    let (vol, ram) = fresh(64 << 20);
    let mut dir = root(&vol);
    let mut small = vol.create(&mut dir, b"small", &new(FILE, 1)).unwrap();
    let mut file = vol.create(&mut dir, b"large", &new(FILE, 1)).unwrap();
    vol.fill(&mut small, 0, 3, None).unwrap();
    let mut at = 0;
    while at < 4096 {
        let run = vol.fill(&mut file, at, 4096 - at, None).unwrap();
        assert_eq!(run.block % 512, at % 512, "{run:?} at {at}");
        assert!(run.len >= 512);
        at += run.len;
    }
    assert_eq!(file.blocks(), 4096);
    assert_clean(&*ram);
}

#[test]
fn a_hole_filled_from_its_start_is_aligned() {
    let (vol, ram) = fresh(64 << 20);
    let mut dir = root(&vol);
    let mut small = vol.create(&mut dir, b"small", &new(FILE, 1)).unwrap();
    let mut file = vol.create(&mut dir, b"large", &new(FILE, 1)).unwrap();
    let next = vol.fill(&mut small, 0, 3, None).unwrap().end();
    vol.truncate(&mut file, 1024 * BLOCK + 1, time(2)).unwrap();
    let mut at = 0;
    while at < 1024 {
        let len = (1 << (at % 7)).min(1024 - at);
        let run = vol.fill(&mut file, at, len, None).unwrap();
        assert_eq!(run.block % 512, at % 512, "{run:?} at {at}");
        at += run.len;
    }
    // Not what is too short to be mapped as 2 MiB.
    let mut short = vol.create(&mut dir, b"short", &new(FILE, 1)).unwrap();
    vol.truncate(&mut short, 511 * BLOCK, time(2)).unwrap();
    assert_eq!(vol.fill(&mut short, 0, 1, None).unwrap().block, next);
    assert_clean(&*ram);
}

#[test]
fn a_hole_filled_in_any_order_is_aligned() {
    // A stride that reaches every block, no two in sequence; downwards; upwards.
    for stride in [999, 2047, 1] {
        let (vol, ram) = fresh(64 << 20);
        let mut dir = root(&vol);
        let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
        vol.truncate(&mut file, 2048 * BLOCK, time(2)).unwrap();
        for nth in 0..2048 {
            let at = (1300 + nth * stride) % 2048;
            let run = vol.fill(&mut file, at, 1, None).unwrap();
            assert_eq!(run.block % 512, at % 512, "{run:?} at {at}");
        }
        let whole = vol.map(&mut file, 0, 2048).unwrap();
        assert!(
            matches!(whole, Map::Run { len: 2048, .. }),
            "by {stride}: {whole:?}"
        );
        assert_clean(&*ram);
    }
}

#[test]
fn a_hole_filled_in_any_order_is_aligned_in_what_others_left() {
    // Every second chunk is another's, and of the chunks between a part of every second: the file
    // has no room in one piece, but each of its chunks has.
    let (vol, ram) = fresh(64 << 20);
    let mut dir = root(&vol);
    let mut other = vol.create(&mut dir, b"other", &new(FILE, 1)).unwrap();
    vol.truncate(&mut other, 24 * 512 * BLOCK, time(2)).unwrap();
    for chunk in 0..24 {
        vol.fill(&mut other, chunk * 512, 512, None).unwrap();
    }
    for chunk in (0..20).step_by(2) {
        let at = chunk * 512 + chunk % 4 * 100;
        let left = (chunk + 1) * 512 - at;
        vol.punch(&mut other, at, left, time(3)).unwrap();
    }
    let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
    vol.truncate(&mut file, 2048 * BLOCK, time(2)).unwrap();
    for nth in 0..2048 {
        let at = (1300 + nth * 999) % 2048;
        vol.fill(&mut file, at, 1, None).unwrap();
    }
    for chunk in 0..4 {
        let whole = vol.map(&mut file, chunk * 512, 512).unwrap();
        assert!(
            matches!(whole, Map::Run { block, len: 512 } if block % 512 == 0),
            "chunk {chunk}: {whole:?}"
        );
    }
    assert_clean(&*ram);
}

#[test]
fn a_file_that_cannot_be_filled_leaves_free_chunks_whole() {
    let (vol, ram) = fresh(64 << 20);
    let mut dir = root(&vol);
    let mut sparse = vol.create(&mut dir, b"sparse", &new(FILE, 1)).unwrap();
    vol.truncate(&mut sparse, 1 << 40, time(2)).unwrap();
    for chunk in 0..100 {
        vol.fill(&mut sparse, chunk * 1000 * 512 + 7, 1, None)
            .unwrap();
    }
    let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
    for chunk in 0..20 {
        let run = vol.fill(&mut file, chunk * 512, 512, None).unwrap();
        assert_eq!((run.block % 512, run.len), (0, 512), "chunk {chunk}");
    }
    assert_clean(&*ram);
}

#[test]
fn all_holes_of_a_range_are_filled() {
    let (vol, ram) = fresh(64 << 20);
    let mut dir = root(&vol);
    // What is free has old bytes.
    let mut old = vol.create(&mut dir, b"old", &new(FILE, 1)).unwrap();
    for at in 0..14_000 {
        write(&vol, &mut old, at * BLOCK, &[7; BLOCK as usize], time(2)).unwrap();
    }
    vol.truncate(&mut old, 0, time(2)).unwrap();
    let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
    vol.truncate(&mut file, 1024 * BLOCK, time(2)).unwrap();
    for at in (0..512).step_by(3) {
        let data = [at as u8 | 1; BLOCK as usize];
        write(&vol, &mut file, at * BLOCK, &data, time(3)).unwrap();
    }
    vol.preallocate(&mut file, 100, 2, time(3)).unwrap();
    let mtime = file.mtime();
    let mut at = 0;
    while at < 512 {
        let filled = vol.fill_all(&mut file, at, 512 - at, None).unwrap();
        assert!(filled > 0 && at + filled <= 512);
        at += filled;
    }
    assert_eq!(file.mtime(), mtime);
    for at in 0..512 {
        let first = read(&vol, &mut file, at * BLOCK, BLOCK).unwrap();
        let stored = if at % 3 == 0 { at as u8 | 1 } else { 0 };
        assert!(first.iter().all(|byte| *byte == stored), "block {at}");
        let found = vol.map(&mut file, at, 1).unwrap();
        let is_unwritten = matches!(found, Map::Unwritten { .. });
        assert!(is_unwritten == (at == 100 || at == 101), "{at}: {found:?}");
        assert!(!matches!(found, Map::Hole { .. }), "{at}");
    }
    assert!(matches!(
        vol.map(&mut file, 512, 512),
        Ok(Map::Hole { len: 512 })
    ));
    assert_clean(&*ram);
}

#[test]
fn the_largest_file() {
    let (vol, ram) = fresh(16 << 20);
    let mut dir = root(&vol);
    let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
    vol.truncate(&mut file, MAX_FILE, time(2)).unwrap();
    vol.fill(&mut file, MAX_FILE / BLOCK, 1, None).unwrap();
    assert_eq!(
        vol.seek_data(&mut file, 1),
        Ok(Some(MAX_FILE / BLOCK * BLOCK))
    );
    assert_eq!(vol.seek_hole(&mut file, MAX_FILE - 1), Ok(Some(MAX_FILE)));
    assert_eq!(
        vol.truncate(&mut file, MAX_FILE + 1, time(2)),
        Err(Error::TooBig)
    );
    assert_clean(&*ram);
    vol.truncate(&mut file, 0, time(3)).unwrap();
    assert_eq!(file.blocks(), 0);
    assert_clean(&*ram);
}

#[test]
fn a_size_between_needs_no_blocks() {
    // Growing over blocks that were preallocated, and written by somebody who did not get to
    // setting the size: none of it shows.
    let (vol, ram) = fresh(16 << 20);
    let mut dir = root(&vol);
    let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
    let run = vol.fill(&mut file, 0, 4, None).unwrap();
    assert_eq!((run.len, file.size()), (4, 0));
    ram.store_nt(run.block * BLOCK, &[9; 4 * BLOCK as usize])
        .unwrap();
    vol.truncate(&mut file, 3 * BLOCK, time(1)).unwrap();
    assert!(read(&vol, &mut file, 0, 3 * BLOCK)
        .unwrap()
        .iter()
        .all(|b| *b == 0));
    assert_clean(&*ram);
}

#[test]
fn a_size_moves_without_the_times() {
    let (vol, ram) = fresh(16 << 20);
    let mut dir = root(&vol);
    let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
    vol.touch(&mut file, time(2), time(3), time(4)).unwrap();
    vol.extend(&mut file, 100, 0, None).unwrap();
    let file = vol.iget(file.ino()).unwrap();
    let times = (file.mtime(), file.ctime());
    assert_eq!((file.size(), times), (100, (time(3), time(4))));
    assert_clean(&*ram);
}

#[test]
fn other_inodes_have_no_blocks() {
    let (vol, ram) = fresh(16 << 20);
    let mut dir = root(&vol);
    let mut fifo = vol.create(&mut dir, b"fifo", &new(FIFO, 1)).unwrap();
    for result in [
        vol.map(&mut dir, 0, 1).map(drop),
        vol.map(&mut fifo, 0, 1).map(drop),
        vol.fill(&mut fifo, 0, 1, None).map(drop),
        vol.truncate(&mut dir, 0, time(1)),
        vol.punch(&mut dir, 0, 9, time(1)),
        vol.preallocate(&mut fifo, 0, 1, time(1)).map(drop),
        vol.convert(&mut fifo, 0..1, None, time(1)),
        vol.unwrite(&mut dir, 0, 1, time(1)).map(drop),
        vol.extend(&mut fifo, 9, 9, Some(time(1))),
        vol.seek_data(&mut fifo, 0).map(drop),
    ] {
        assert_eq!(result, Err(Error::Invalid));
    }
    assert_clean(&*ram);
}
