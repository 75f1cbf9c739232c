// SPDX-License-Identifier: GPL-2.0

//! Random damage to the metadata of a volume with something of everything: the check ends, a repair
//! leaves nothing for a second one, and no inode is lost of which no structure was hit.
//!
//! RDAX_REPAIR_ROUNDS says how many volumes are damaged, RDAX_REPAIR_SEED which.

use std::collections::BTreeSet;
use std::panic::{catch_unwind, AssertUnwindSafe};

use rdax_volume::env::crc32c;
use rdax_volume::sim::Sim;
use rdax_volume::volume::extent::unpack;
use rdax_volume::volume::format::*;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{MountOptions, Volume};

use crate::bed::{Bed, BYTES};
use crate::common::tree::walk;
use crate::common::Random;
use crate::mended::{filled, kept, mend, sim_of, tree_of};

/// Volumes damaged, unless RDAX_REPAIR_ROUNDS says otherwise.
const ROUNDS: u64 = 300;

/// A structure: its place, and the inodes that may be lost with it.
struct Target {
    at: u64,
    len: u64,
    hit: Vec<u64>,
    /// It begins with a checksum over all of it, which may be made to fit what it then holds: damage
    /// as a mistake of the program leaves it.
    sealable: bool,
}

/// Every structure with metadata, the larger ones by their parts.
fn targets(bed: &Bed) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut put = |at, len, hit: &[u64], sealable| {
        let hit = hit.to_vec();
        targets.push(Target {
            at,
            len,
            hit,
            sealable,
        });
    };
    for slot in 0..2 {
        put(bed.system_at(slot), INODE_BYTES, &[], true);
    }
    for dir in ["/", "dir", "sub"] {
        let leaf = bed.leaf_at(dir);
        put(leaf, 32, &[], true);
        let mut at = leaf + 32;
        while at < leaf + BLOCK {
            let head: Dirent = bed.get(at);
            put(at, 24 + u64::from(head.name_len), &[], true);
            at += u64::from(head.rec_len.get());
        }
    }
    let mut add = |at, len, hit: &[u64]| put(at, len, hit, !hit.is_empty());
    add(0, 512, &[]);
    add(BYTES - BLOCK, 512, &[]);
    for lane in 0..u64::from(LANE_COUNT) {
        add(bed.lane_at(lane), 64, &[]);
        add(bed.lane_at(lane) + 64, 64, &[]);
        add(bed.lane_at(lane) + LANE_BODY, 256, &[]);
    }
    for chunk in 0..BYTES / BLOCK / CHUNK_BLOCKS {
        add(bed.summary_at(chunk), 8, &[]);
        add(bed.bitmap_at(chunk), 64, &[]);
    }
    for slot in 0..8 {
        add(bed.orphan_slot_at(slot), 16, &[]);
    }
    let table: RawInode = bed.get(bed.system_at(0));
    let table = unpack(&table.root[0]);
    let inodes = table.len * BLOCK / INODE_BYTES;
    for ino in 0..inodes {
        let at = table.block * BLOCK + ino * INODE_BYTES;
        if ino % INODES_PER_CHUNK == 0 {
            add(at, 64, &[]);
            continue;
        }
        let raw: RawInode = bed.get(at);
        if raw.ino.get() != ino {
            continue;
        }
        add(at, INODE_BYTES, &[ino]);
        let xattrs = raw.xattr_block.get() * BLOCK;
        if xattrs != 0 {
            let len = bed.get::<XattrHeader>(xattrs).len.get().into();
            for _ in 0..4 {
                add(xattrs, len, &[ino]);
            }
        }
        if raw.mode.get() >> 12 == 0o12 && raw.size.get() > INLINE_MAX as u64 {
            continue;
        }
        let directory = raw.mode.get() >> 12 == 0o4;
        let mut extents = raw.root[..usize::from(raw.root_count.get()).min(ROOT_EXTENTS)].to_vec();
        if raw.depth == 1 {
            let node = extents[0].value.get() * BLOCK;
            let count = bed.get::<NodeHeader>(node).count.get();
            for _ in 0..8 {
                add(node, 64 + 16 * u64::from(count), &[ino]);
            }
            extents = (0..count)
                .map(|i| bed.get(node + 64 + 16 * u64::from(i)))
                .collect();
        }
        for m in extents.iter().map(unpack).filter(|_| directory) {
            for _ in 0..4 {
                add(m.block * BLOCK, BLOCK, &[]);
                add(m.block * BLOCK, 160, &[]);
            }
        }
    }
    targets
}

fn damage(sim: &Sim, target: &Target, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = target.at + random.below(target.len);
        let len = match random.below(4) {
            0 => 1,
            1 => 1 + random.below(8),
            _ => 1,
        };
        for at in at..(at + len).min(target.at + target.len) {
            let mut byte = [0];
            sim.read(at, &mut byte).unwrap();
            byte[0] = match random.below(3) {
                0 => byte[0] ^ (1 << random.below(8)),
                1 => 0,
                _ => random.next() as u8,
            };
            sim.store(at, &byte).unwrap();
        }
    }
    if target.sealable && random.below(2) == 0 {
        let mut bytes = vec![0; target.len as usize];
        sim.read(target.at, &mut bytes).unwrap();
        bytes[..4].fill(0);
        let crc = crc32c(0, &bytes);
        sim.store(target.at, &crc.to_le_bytes()).unwrap();
    }
    sim.write_back(target.at, target.len);
    sim.fence().unwrap();
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().expect("a number"))
}

#[test]
fn random_damage() {
    let bed = filled();
    let before = tree_of(&bed);
    let targets = targets(&bed);
    let content = sim_of(&bed).content();
    let seed = number("RDAX_REPAIR_SEED", 1);
    let (mut found, mut hopeless) = (0, 0);
    for round in 0..number("RDAX_REPAIR_ROUNDS", ROUNDS) {
        let mut random = Random(seed.wrapping_mul(1 << 32).wrapping_add(round));
        let sim = Sim::from_image(BYTES, content.clone());
        let (mut hit, mut places) = (BTreeSet::new(), Vec::new());
        for _ in 0..1 + random.below(4) {
            let target = &targets[random.below(targets.len() as u64) as usize];
            hit.extend(target.hit.iter().copied());
            places.push((target.at, target.len));
            damage(&sim, target, &mut random);
        }
        let tried = catch_unwind(AssertUnwindSafe(|| {
            // What a kernel would do with it.
            let copy = Sim::from_image(BYTES, sim.content());
            let mounted = Volume::mount(&copy, MountOptions::default()).map(|vol| {
                let _ = vol.recover_orphans();
                walk(&vol).is_err()
            });
            match mend(&sim) {
                Ok(said) => {
                    found += u64::from(!said.is_empty());
                    kept(&sim, &before, &hit)
                }
                Err(e) if e.contains("superblock") && mounted.is_err() => {
                    hopeless += 1;
                    Ok(())
                }
                Err(e) => Err(e),
            }
        }));
        let at: Vec<_> = places
            .iter()
            .map(|(at, len)| format!("{at:#x}+{len}"))
            .collect();
        match tried {
            Ok(Ok(())) => {}
            Ok(Err(e)) => panic!("seed {seed} round {round}, damaged {at:?}: {e}"),
            Err(_) => panic!("seed {seed} round {round}, damaged {at:?}: panicked"),
        }
    }
    println!("{found} repaired, {hopeless} without a superblock");
    assert!(found > 0);
}
