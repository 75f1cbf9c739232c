// SPDX-License-Identifier: GPL-2.0

//! Random damage to the metadata of a volume with something of everything: the check ends, a repair
//! leaves nothing for a second one and a volume that can be used, and no inode is lost of which no
//! structure was hit. Where the check finds nothing, the volume can be used as well.
//!
//! RDAX_REPAIR_ROUNDS says how many volumes are damaged, RDAX_REPAIR_SEED which.

use std::collections::BTreeSet;
use std::panic::{catch_unwind, AssertUnwindSafe};

use rdax_fsck::trial;
use rdax_volume::env::crc32c;
use rdax_volume::overlay::Overlay;
use rdax_volume::sim::Sim;
use rdax_volume::volume::check::check;
use rdax_volume::volume::extent::unpack;
use rdax_volume::volume::format::*;
use rdax_volume::volume::pmem::{read_struct, Pmem};
use rdax_volume::volume::{Error, MountOptions, Volume};

use crate::bed::{Bed, BYTES, NOW};
use crate::common::tree::walk;
use crate::common::Random;
use crate::mended::{filled, kept, mend, sim_of, tree_of};

/// Volumes damaged, unless RDAX_REPAIR_ROUNDS says otherwise.
const ROUNDS: u64 = 300;

/// How the checksum of a structure is made to fit what it holds: damage as a mistake of a program
/// leaves it.
#[derive(Clone, Copy)]
enum Seal {
    /// There is none.
    None,
    /// It begins with the checksum of the rest, from this seed on.
    From(u32),
    SuperBlock,
    /// The last word of a lane's header is not covered.
    Lane,
    /// Behind the number of the inode, which it covers with that of the slot.
    Orphan(u64),
    /// Of a chunk's bitmap, in its summary.
    Bitmap(u64),
}

/// A structure: its place, and the inodes that may be lost with it.
struct Target {
    at: u64,
    len: u64,
    hit: Vec<u64>,
    seal: Seal,
}

/// Every structure with metadata, the larger ones by their parts.
fn targets(bed: &Bed) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut put = |at, len, hit: &[u64], seal| {
        let hit = hit.to_vec();
        targets.push(Target { at, len, hit, seal });
    };
    let seed = crate::bed::seed();
    for slot in 0..2 {
        for at in [bed.system_at(slot), bed.system_copy_at(slot)] {
            put(at, INODE_BYTES, &[], Seal::From(seed));
        }
    }
    for dir in ["/", "dir", "sub"] {
        let leaf = bed.leaf_at(dir);
        put(leaf, 32, &[], Seal::From(seed));
        let record = record_seed(seed, bed.ino(dir), leaf / BLOCK);
        let mut at = leaf + 32;
        while at < leaf + BLOCK {
            let head: Dirent = bed.get(at);
            let len = 24 + u64::from(head.name_len);
            put(at, len, &[], Seal::From(record));
            at += u64::from(head.rec_len.get());
        }
    }
    put(0, 512, &[], Seal::SuperBlock);
    put(BYTES - BLOCK, 512, &[], Seal::SuperBlock);
    for lane in 0..u64::from(LANE_COUNT) {
        put(bed.lane_at(lane), 64, &[], Seal::Lane);
        put(bed.lane_at(lane) + 64, 64, &[], Seal::Lane);
        put(bed.lane_at(lane) + LANE_BODY, 256, &[], Seal::None);
    }
    for chunk in 0..BYTES / BLOCK / CHUNK_BLOCKS {
        put(bed.summary_at(chunk), 8, &[], Seal::Bitmap(chunk));
        put(bed.bitmap_at(chunk), 64, &[], Seal::Bitmap(chunk));
    }
    for slot in 0..8 {
        put(bed.orphan_slot_at(slot), 32, &[], Seal::Orphan(slot));
    }
    let table: RawInode = bed.get(bed.system_at(0));
    let table = unpack(&table.root[0]);
    let inodes = table.len * BLOCK / INODE_BYTES;
    for ino in 0..inodes {
        let at = table.block * BLOCK + ino * INODE_BYTES;
        if ino % INODE_CHUNK_SLOTS == 0 {
            put(at, 64, &[], Seal::From(seed));
            continue;
        }
        let raw: RawInode = bed.get(at);
        if raw.ino.get() != ino {
            continue;
        }
        put(at, INODE_BYTES, &[ino], Seal::From(seed));
        let xattrs = raw.xattr_block.get() * BLOCK;
        if xattrs != 0 {
            let len = bed.get::<XattrHeader>(xattrs).len.get().into();
            for _ in 0..4 {
                put(xattrs, len, &[ino], Seal::From(seed));
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
                let len = 64 + 16 * u64::from(count);
                put(node, len, &[ino], Seal::From(seed));
            }
            extents = (0..count)
                .map(|i| bed.get(node + 64 + 16 * u64::from(i)))
                .collect();
        }
        for m in extents.iter().map(unpack).filter(|_| directory) {
            for _ in 0..4 {
                put(m.block * BLOCK, BLOCK, &[], Seal::None);
                put(m.block * BLOCK, 160, &[], Seal::None);
            }
        }
    }
    targets
}

/// Changes a field, or some bytes, and maybe the checksum to fit.
fn damage(sim: &Sim, target: &Target, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        match random.below(2) {
            0 => spoil_field(sim, target, random),
            _ => spoil_bytes(sim, target, random),
        }
    }
    if random.below(3) > 0 {
        seal(sim, target);
    }
    sim.write_back(target.at, target.len);
    sim.fence().unwrap();
}

/// Gives an aligned field another value that programs like.
fn spoil_field(sim: &Sim, target: &Target, random: &mut Random) {
    let len = 1 << random.below(4);
    let at = target.at + random.below(target.len) / len * len;
    let mut bytes = [0; 8];
    let field = &mut bytes[..len as usize];
    sim.read(at, field).unwrap();
    let old = u64::from_le_bytes(bytes);
    let new = match random.below(9) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << random.below(8 * len),
        3 => old.wrapping_add(1),
        4 => old.wrapping_sub(1),
        5 => old << 1,
        6 => old ^ (1 << random.below(8 * len)),
        7 => random.below(4096),
        _ => random.next(),
    };
    sim.store(at, &new.to_le_bytes()[..len as usize]).unwrap();
}

fn spoil_bytes(sim: &Sim, target: &Target, random: &mut Random) {
    let at = target.at + random.below(target.len);
    let len = match random.below(4) {
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

fn bytes_at(sim: &Sim, at: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    sim.read(at, &mut bytes).unwrap();
    bytes
}

fn seal(sim: &Sim, target: &Target) {
    let mut bytes = bytes_at(sim, target.at, target.len);
    let seed = crate::bed::seed();
    let (at, crc) = match target.seal {
        Seal::None => return,
        Seal::From(seed) => (target.at, crc32c(seed, &bytes[4..])),
        Seal::Lane => (target.at, crc32c(seed, &bytes[4..56])),
        Seal::SuperBlock => {
            bytes[8..12].fill(0);
            (target.at + 8, crc32c(0, &bytes))
        }
        Seal::Orphan(slot) => {
            let crc = crc32c(crc32c(seed, &bytes[..8]), &bytes[12..]);
            (target.at + 8, crc32c(crc, &slot.to_le_bytes()))
        }
        Seal::Bitmap(chunk) => {
            let sb: SuperBlock = read_struct(sim, BYTES - BLOCK).unwrap();
            let summary_at = sb.summary_block.get() * BLOCK + chunk * 8;
            let bitmap = bytes_at(sim, sb.bitmap_block.get() * BLOCK + chunk * 64, 64);
            let free: u32 = bitmap.iter().map(|byte| byte.count_zeros()).sum();
            if target.len == 64 {
                sim.store(summary_at + 4, &(free as u16).to_le_bytes())
                    .unwrap();
            }
            let summary = bytes_at(sim, summary_at, 8);
            let crc = crc32c(crc32c(seed, &bitmap), &summary[4..]);
            (summary_at, crc32c(crc, &chunk.to_le_bytes()))
        }
    };
    sim.store(at, &crc.to_le_bytes()).unwrap();
    sim.write_back(at, 8);
}

/// What may be done with a volume: everything is read, a file is made and removed.
fn is_usable(sim: &Sim) -> Result<(), String> {
    let copy = Sim::from_image(BYTES, sim.content());
    let say = |what: &str| {
        let what = what.to_owned();
        move |e| format!("{what}: {e}")
    };
    trial::mount(&copy).map_err(say("the mount"))?;
    let vol = Volume::mount(&copy, MountOptions::default()).map_err(say("mounting"))?;
    vol.recover_orphans().map_err(say("orphans"))?;
    walk(&vol).map_err(say("walking"))?;
    let mut root = vol.iget(ROOT_INO).map_err(say("the root"))?;
    let new = crate::bed::new_inode(0o100644, 0);
    let name = b"made after the damage";
    match vol.create(&mut root, name, &new) {
        Ok(mut inode) => {
            vol.fill(&mut inode, 3, 1, Some(NOW))
                .map_err(say("filling"))?;
            let found = vol.lookup(&mut root, name).map_err(say("looking up"))?;
            found.map(|_| ()).ok_or("what was made is not there".into())
        }
        Err(Error::NoSpace) => Ok(()),
        Err(e) => Err(format!("creating: {e}")),
    }
}

/// Whether the check finds nothing, as `fsck.rdax -n` checks.
fn is_clean(sim: &Sim) -> bool {
    let view = Overlay::new(sim);
    let mounted = Volume::mount(&view, MountOptions::default()).is_ok();
    let checked = if mounted {
        check(&view, &mut |_| {})
    } else {
        check(sim, &mut |_| {})
    };
    checked.is_ok_and(|summary| summary.problems == 0)
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
            let usable = is_usable(&sim);
            if let (true, Err(e)) = (is_clean(&sim), &usable) {
                return Err(format!("nothing is found, but {e}"));
            }
            match mend(&sim) {
                Ok(said) => {
                    found += u64::from(!said.is_empty());
                    is_usable(&sim)
                        .and_then(|()| kept(&sim, &before, &hit))
                        .map_err(|e| format!("{e}\n{said}"))
                }
                Err(e) if e.contains("superblock") && usable.is_err() => {
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
