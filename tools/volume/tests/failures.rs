// SPDX-License-Identifier: GPL-2.0

//! Every operation with a failure at each of its steps in turn: no memory, no space, media that
//! cannot be read, a fence that fails. What has failed has changed nothing: names, content,
//! attributes, where the content lies, and the free space but for nodes that were split, which hold
//! the same as before. The inodes in memory are what the media says.

mod common;

use common::operations::{sim, take_dropped, Operation, ALL, BYTES, V};
use common::tree::{walk, Body, Tree};
use common::*;
use rdax_volume::env::fail_allocations_after;
use rdax_volume::sim::{Image, Mistake, Sim};
use rdax_volume::volume::error::Error;
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::BLOCK;

/// Those that are several operations, of which the first may have happened.
const SEVERAL: [&str; 5] = [
    "unlink_and_free_with_attributes",
    "unlink_and_free",
    "unlink_and_free_in_several",
    "link_a_temporary_file",
    "temporary_file",
];

/// Steps of which each is tried; of later ones it is every second, third and so on.
const STRIDE: u64 = 40;

/// What a tree does not have of an inode.
#[derive(PartialEq, Eq)]
struct Rest {
    ino: u64,
    /// Of a file, what holds its blocks.
    maps: Vec<Map>,
    /// Owners, attributes, generation.
    numbers: [u32; 4],
    /// Of access and birth.
    times: [i64; 4],
}

/// All that can be seen of a volume.
#[derive(PartialEq, Eq)]
struct Seen {
    tree: Tree,
    inodes: Vec<Rest>,
    label: [u8; 32],
}

/// Looks at a volume. Returns also how many blocks hold no content and are not free: metadata.
fn look(vol: &V) -> (Seen, u64) {
    let tree = walk(vol).unwrap();
    let mut inodes = Vec::new();
    let mut content = 0;
    for (ino, seen) in &tree {
        let mut inode = vol.iget(*ino).unwrap();
        let mut maps = Vec::new();
        if let Body::File(_) = &seen.body {
            let mut at = 0;
            while at < 1 << 30 {
                let map = vol.map(&mut inode, at, (1 << 30) - at).unwrap();
                at += map.file_blocks();
                if let Map::Run { len, .. } | Map::Unwritten { len, .. } = map {
                    content += len;
                }
                maps.push(map);
            }
        }
        let numbers = [inode.uid(), inode.gid(), inode.attrs(), inode.generation()];
        let (atime, btime) = (inode.atime(), inode.btime());
        let times = [atime.sec, atime.nsec.into(), btime.sec, btime.nsec.into()];
        inodes.push(Rest {
            ino: *ino,
            maps,
            numbers,
            times,
        });
    }
    let stat = vol.statfs();
    let label = vol.label();
    let seen = Seen {
        tree,
        inodes,
        label,
    };
    (seen, stat.blocks - stat.free - content)
}

/// What a device holds that was prepared for `op`.
fn prepared(op: &Operation) -> Image {
    let sim = sim();
    (op.prepare)(&mount(sim.clone())).unwrap();
    sim.content()
}

/// A volume on a device that holds `content`.
fn mounted(content: &Image) -> V {
    mount(Shared::new(Sim::from_image(BYTES, content.clone())))
}

/// What must hold after `op` has failed with `error`, for the reason `why`.
fn check_failed(op: &Operation, vol: &V, before: &(Seen, u64), why: &str) {
    let dropped = take_dropped();
    if vol.is_failed() {
        // What has happened is known after the next mount, and that is all or nothing.
        let again = mount(vol.pmem().clone());
        assert_clean(&**again.pmem());
        return;
    }
    let (seen, metadata) = look(vol);
    if !SEVERAL.contains(&op.name) {
        for (ino, now) in &seen.tree {
            let old = &before.0.tree[ino];
            assert!(now == old, "{}, {why}: inode {ino}", op.name);
        }
        assert!(seen == before.0, "{}, {why}", op.name);
        assert_eq!(
            vol.statfs().inodes_used,
            seen.tree.len() as u64,
            "{}, {why}: an inode without a name",
            op.name
        );
        // A split of each level of a tree, a leaf, a chunk of inodes.
        assert!(
            metadata <= before.1 + 20,
            "{}, {why}: {metadata} blocks of metadata, before {}",
            op.name,
            before.1
        );
        for inode in dropped {
            let now = vol.iget(inode.ino()).unwrap();
            let mut held = inode.raw().clone();
            // A restored inode may have a checksum that was not computed yet.
            held.crc = now.raw().crc;
            assert_eq!(&held, now.raw(), "{}, {why}: in memory", op.name);
        }
    }
    let stat = vol.statfs();
    let pmem = vol.pmem().clone();
    assert_eq!(assert_clean(&*pmem), (stat.free, stat.inodes_used), "{why}");
    if !SEVERAL.contains(&op.name) {
        // Nothing is in the way of another try.
        (op.run)(vol).unwrap_or_else(|e| panic!("{}, after {why}: {e}", op.name));
        assert_clean(&*pmem);
    }
}

/// Runs `op` with a failure that `fail` makes at step `n`, for each of the first steps that it has,
/// and some of the others. `end` ends the failing, and says whether it came to that. Returns how
/// often the operation failed.
fn at_each_step(
    op: &Operation,
    name: &str,
    expected: impl Fn(Error) -> bool,
    fail: impl Fn(&V, u64),
    end: impl Fn(&V) -> bool,
) -> u64 {
    let (mut failed, mut next) = (0, 0);
    let start = prepared(op);
    let before = look(&mounted(&start));
    loop {
        let n = next;
        next += 1 + n / STRIDE;
        let vol = mounted(&start);
        take_dropped();
        fail(&vol, n);
        let result = (op.run)(&vol);
        let reached = end(&vol);
        match result {
            Ok(()) => {
                let stat = vol.statfs();
                let pmem = vol.pmem().clone();
                if reached {
                    // The operation has happened in spite of it: what is left is done later.
                    let seen = walk(&vol).unwrap();
                    drop(vol);
                    let again = mount(pmem.clone());
                    assert!(walk(&again).unwrap() == seen, "{}, {name} {n}", op.name);
                    assert_clean(&*pmem);
                    continue;
                }
                assert_eq!(assert_clean(&*pmem), (stat.free, stat.inodes_used));
                return failed;
            }
            Err(error) => {
                assert!(expected(error), "{}, {name} {n}: {error}", op.name);
                failed += 1;
                check_failed(op, &vol, &before, &format!("{name} {n}"));
            }
        }
    }
}

/// Every `n`th operation from `first` on: tests run side by side.
fn some(first: usize, n: usize) -> impl Iterator<Item = &'static Operation> {
    ALL.iter().skip(first).step_by(n)
}

fn without_memory(first: usize) {
    for op in some(first, 2) {
        let failed = at_each_step(
            op,
            "allocation",
            |e| e == Error::NoMemory,
            |_, n| fail_allocations_after(Some(n as u32)),
            |_| {
                let reached = rdax_volume::env::allocation_failed();
                fail_allocations_after(None);
                reached
            },
        );
        println!("{}: {failed} allocations", op.name);
    }
}

#[test]
fn without_memory_first_part() {
    without_memory(0);
}

#[test]
fn without_memory_second_part() {
    without_memory(1);
}

fn with_bad_media(first: usize) {
    for op in some(first, 2) {
        let failed = at_each_step(
            op,
            "read",
            |e| matches!(e, Error::Media { .. }),
            |vol, n| vol.pmem().inject(Some(Mistake::FailRead(n))),
            |vol| {
                let reached = !vol.pmem().mistake_pending();
                vol.pmem().inject(None);
                reached
            },
        );
        println!("{}: {failed} reads", op.name);
    }
}

#[test]
fn with_bad_media_first_part() {
    with_bad_media(0);
}

#[test]
fn with_bad_media_second_part() {
    with_bad_media(1);
}

#[test]
fn with_a_fence_that_fails() {
    for op in ALL {
        at_each_step(
            op,
            "fence",
            |e| matches!(e, Error::Media { .. }),
            |vol, n| vol.pmem().inject(Some(Mistake::FailFence(n))),
            |vol| {
                let reached = !vol.pmem().mistake_pending();
                vol.pmem().inject(None);
                reached
            },
        );
    }
}

/// A file of more extents than one transaction can move keeps them when that is refused.
#[test]
fn a_range_that_cannot_be_taken_out_stays() {
    let (vol, ram) = fresh(512 << 20);
    let mut file = vol.create(&mut root(&vol), b"file", &new(FILE, 1)).unwrap();
    // Each second block of an unwritten extent becomes data.
    let extents = 100_000;
    let mut at = 0;
    while at < extents {
        let len = extents - at;
        at += vol.preallocate(&mut file, at, len, time(2)).unwrap();
    }
    for block in (0..extents).step_by(2) {
        vol.fill(&mut file, block, 1, None).unwrap();
    }
    let size = extents * BLOCK;
    vol.extend(&mut file, size, size, None).unwrap();
    let (free, raw) = (vol.free_blocks(), file.raw().clone());
    let error = vol.collapse(&mut file, 1, 1000, time(3));
    assert_eq!(error, Err(Error::TooBig));
    assert_eq!((vol.free_blocks(), file.raw()), (free, &raw));
    for block in 0..1001 {
        let map = vol.map(&mut file, block, 1).unwrap();
        assert_eq!(matches!(map, Map::Run { .. }), block % 2 == 0, "{block}");
    }
    assert_eq!(assert_clean(&*ram).0, free);
}
