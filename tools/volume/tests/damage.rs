// SPDX-License-Identifier: GPL-2.0

//! Damaged media: bytes of the metadata are changed, with and without a checksum that fits, and
//! everything is tried on the volume. No operation may panic or go on for ever; what it returns
//! does not matter, but a changed byte under a checksum must be noticed.

mod common;

use std::panic::{catch_unwind, AssertUnwindSafe};

use common::tree::walk;
use common::*;
use rdax_volume::env::crc32c;
use rdax_volume::files::readdir;
use rdax_volume::sim::Sim;
use rdax_volume::volume::error::{Error, Result};
use rdax_volume::volume::format::{
    record_seed, SuperBlock, BLOCK, INODE_BYTES, INODE_CHUNK_MAGIC, INODE_CHUNK_SLOTS, LEAF_MAGIC,
    NODE_MAGIC,
};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::Rename;
use rdax_volume::volume::pmem::{read_struct, Pmem};
use rdax_volume::volume::{super_block, MountOptions, Volume};
use zerocopy::{FromBytes, IntoBytes};

const BYTES: u64 = 8 << 20;

/// A volume with some of everything.
fn rich() -> Sim {
    let sim = Sim::new(BYTES);
    format(&sim);
    let vol = mount(&sim);
    let mut top = root(&vol);
    let mut dir = vol.create(&mut top, b"dir", &new(DIR, 1)).unwrap();
    for i in 0..200 {
        let name = format!("{i}-{}", "n".repeat(i % 70));
        vol.create(&mut dir, name.as_bytes(), &new(FIFO, 1))
            .unwrap();
    }
    vol.create(&mut dir, b"sub", &new(DIR, 1)).unwrap();
    let mut file = vol.create(&mut top, b"file", &new(FILE, 1)).unwrap();
    for i in 0..280 {
        write(&vol, &mut file, i * 2 * BLOCK, b"content", time(2)).unwrap();
    }
    let mut small = vol.create(&mut top, b"small", &new(FILE, 1)).unwrap();
    write(&vol, &mut small, 0, &[1; 20_000], time(2)).unwrap();
    let link = new(0o777, 1);
    vol.symlink(&mut top, b"short", b"to", &link).unwrap();
    vol.symlink(&mut top, b"long", &[b't'; 999], &link).unwrap();
    vol.tmpfile(&new(FILE, 1)).unwrap();
    drop(vol);
    sim
}

/// A structure on the media: its place, and if it begins with a checksum of itself, the seed of
/// that.
#[derive(Clone, Copy, Debug)]
struct Target {
    at: u64,
    len: usize,
    seed: Option<u32>,
}

fn bytes(sim: &Sim, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    sim.read(at, &mut bytes).unwrap();
    bytes
}

/// Every structure of the volume, found by magic numbers.
fn targets(sim: &Sim) -> Vec<Target> {
    let mut all = vec![Target {
        at: 0,
        len: 512,
        seed: None,
    }];
    let sb: SuperBlock = read_struct(sim, 0).unwrap();
    let seed = super_block::seed(&sb);
    let mut add = |at, len, seed| all.push(Target { at, len, seed });
    // System inodes; lanes, summary and bitmaps without checksums of their own here.
    add(BLOCK, 256, Some(seed));
    add(BLOCK + 256, 256, Some(seed));
    for at in (2 * BLOCK..72 * BLOCK).step_by(64) {
        add(at, 64, None);
    }
    for block in 2..BYTES / BLOCK - 1 {
        let at = block * BLOCK;
        let b = bytes(sim, at, BLOCK as usize);
        let half = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        let word = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        if word(4) == LEAF_MAGIC {
            for _ in 0..20 {
                add(at, 32, Some(seed));
            }
            let mut offset = 32;
            while offset < BLOCK as usize {
                let name = usize::from(b[offset + 6]);
                let owner = u64::from_le_bytes(b[8..16].try_into().unwrap());
                let seed = record_seed(seed, owner, block);
                add(at + offset as u64, 24 + name, Some(seed));
                offset += usize::from(half(offset + 4));
            }
        } else if half(4) == NODE_MAGIC && half(8) < 8 {
            let len = 64 + 16 * usize::from(half(6));
            for _ in 0..100 {
                add(at, len, Some(seed));
            }
        } else if word(4) == INODE_CHUNK_MAGIC {
            add(at, 64, Some(seed));
            for slot in 1..INODE_CHUNK_SLOTS {
                let at = at + slot * INODE_BYTES;
                let used = bytes(sim, at, 256).iter().any(|b| *b != 0);
                if used {
                    add(at, 256, Some(seed));
                }
            }
        }
    }
    all
}

/// Changes a structure. With `seal`, its checksum fits what it then holds.
fn damage(sim: &Sim, target: &Target, random: &mut Random, seal: bool) {
    let mut b = bytes(sim, target.at, target.len);
    for _ in 0..1 + random.below(3) {
        let at = random.below(target.len as u64) as usize;
        match random.below(3) {
            0 => b[at] ^= 1 << random.below(8),
            1 => b[at] = random.next() as u8,
            _ => {
                let at = at & !7;
                let old = b.get(at..at + 8).map(|w| w.try_into().unwrap());
                let old = u64::from_le_bytes(old.unwrap_or_default());
                let new = match random.below(8) {
                    0 => 0,
                    1 => u64::MAX,
                    2 => 1 << random.below(64),
                    3 => old.wrapping_add(1),
                    4 => old.wrapping_sub(1),
                    5 => old << 1,
                    6 => i64::MAX as u64,
                    _ => random.next(),
                };
                for (b, n) in b[at..].iter_mut().zip(new.to_le_bytes()) {
                    *b = n;
                }
            }
        }
    }
    match target.seed {
        Some(seed) if seal => {
            let sum = crc32c(seed, &b[4..]);
            b[..4].copy_from_slice(&sum.to_le_bytes());
        }
        None if seal && target.at == 0 => {
            let mut sb = SuperBlock::read_from_bytes(&b).unwrap();
            super_block::seal(&mut sb, 0);
            b.copy_from_slice(sb.as_bytes());
        }
        _ => {}
    }
    sim.store(target.at, &b).unwrap();
    sim.write_back(target.at, target.len as u64);
    sim.fence().unwrap();
}

/// Everything that reads, on one inode; no more names and bytes than there can be.
fn look(vol: &Volume<&Sim>, inode: &mut Inode) {
    let mut names = 0;
    let _ = readdir(vol, inode, 0, &mut |e| {
        names += 1;
        assert!(e.cookie >= 2048 && !e.name.is_empty());
        true
    });
    assert!(names < BYTES / 32);
    let _ = vol.lookup(inode, b"sub");
    let _ = vol.read_link(inode, &mut [0; 4096]);
    for at in [0, 1, 100, 555, 1 << 40, (1 << 51) - 1, 1 << 51, u64::MAX] {
        let _ = vol.map(inode, at, u64::MAX);
        let _ = vol.seek_data(inode, at);
        let _ = vol.seek_hole(inode, at);
    }
}

/// Everything that changes.
fn use_all(vol: &Volume<&Sim>, random: &mut Random) -> Result<()> {
    let get = |ino: u64| vol.iget(ino);
    let mut top = get(1)?;
    for ino in 0..260 {
        if let Ok(mut inode) = get(ino) {
            look(vol, &mut inode);
        }
    }
    let mut errors = 0;
    let mut go = |result: Result<()>| errors += u32::from(result.is_err());
    for step in 0..6 {
        let name = format!("new{step}-{}", "y".repeat(random.below(200) as usize));
        let find = |dir: &mut Inode, name: &[u8]| match vol.lookup(dir, name)? {
            Some(entry) => get(entry.ino),
            None => Err(Error::NotFound),
        };
        for dir_name in [&b"dir"[..], b""] {
            let Ok(mut dir) = find(&mut top, dir_name).or(get(1)) else {
                continue;
            };
            let mode = [FILE, DIR, FIFO][random.below(3) as usize];
            go(vol
                .create(&mut dir, name.as_bytes(), &new(mode, 3))
                .map(drop));
            if let Ok(mut file) = find(&mut top, b"small") {
                go(vol.link(&mut dir, name.as_bytes(), &mut file, time(3)));
            }
            let victim = format!("{}-{}", step, "n".repeat(step));
            if let Ok(mut file) = find(&mut dir, victim.as_bytes()) {
                go(vol.unlink(&mut dir, victim.as_bytes(), &mut file, time(4)));
                go(vol.free_inode(&mut file));
            }
            if let Ok(mut sub) = find(&mut dir, b"sub") {
                go(vol.rename(Rename {
                    src_dir: &mut dir,
                    dst_dir: Some(&mut top),
                    src_name: b"sub",
                    dst_name: b"moved",
                    moved: &mut sub,
                    replaced: None,
                    exchange: false,
                    now: time(5),
                }));
                go(vol.rmdir(&mut dir, b"sub", &mut sub, time(5)));
            }
        }
        for file in [&b"file"[..], b"small"] {
            let Ok(mut file) = find(&mut top, file) else {
                continue;
            };
            let at = random.below(600);
            go(vol.fill(&mut file, at, 3, None).map(drop));
            if file.size() < BYTES {
                go(write(vol, &mut file, at * 999, &[3; 9999], time(6)));
            }
            go(vol.punch(&mut file, random.below(600), random.below(90), time(6)));
            if step == 5 {
                go(vol.truncate(&mut file, random.below(90_000), time(6)));
            }
        }
    }
    Ok(())
}

fn fuzz(seed: u64, rounds: u64) {
    let clean = rich();
    let image = clean.content();
    let targets = targets(&clean);
    assert!(targets.len() > 500, "{}", targets.len());
    let mut random = Random(seed);
    for round in 0..rounds {
        let sim = Sim::from_image(BYTES, image.clone());
        let target = &targets[random.below(targets.len() as u64) as usize];
        let seal = random.below(4) > 0;
        damage(&sim, target, &mut random, seal);
        let tried = catch_unwind(AssertUnwindSafe(|| {
            let Ok(vol) = Volume::mount(&sim, MountOptions::default()) else {
                return;
            };
            let _ = vol.recover_orphans();
            let _ = use_all(&vol, &mut random);
        }));
        assert!(tried.is_ok(), "round {round} of seed {seed}: {target:?}");
    }
}

#[test]
fn nothing_panics() {
    let rounds = std::env::var("RDAX_DAMAGE_ROUNDS").ok();
    fuzz(1, rounds.map_or(1_000, |n| n.parse().expect("a number")));
}

#[test]
fn a_changed_byte_is_noticed() {
    let clean = rich();
    let image = clean.content();
    let whole = walk(&mount(&clean)).unwrap();
    let mut random = Random(2);
    let mut noticed = 0;
    for target in targets(&clean) {
        // Inodes that the root does not lead to, and free records, are not looked at by a walk.
        let first = bytes(&clean, target.at, target.len);
        if target.seed.is_none() || random.below(8) != 0 {
            continue;
        }
        let sim = Sim::from_image(BYTES, image.clone());
        let mut changed = first.clone();
        let at = random.below(target.len as u64) as usize;
        changed[at] ^= 1 << random.below(8);
        sim.store(target.at, &changed).unwrap();
        let found = Volume::mount(&sim, MountOptions::default()).and_then(|vol| walk(&vol));
        match found {
            Err(Error::Corrupt { .. }) => noticed += 1,
            Err(e) => panic!("{target:?} byte {at}: {e}"),
            // A table or an orphan that nothing here needed.
            Ok(tree) => assert_eq!(tree, whole, "{target:?} byte {at}"),
        }
    }
    assert!(noticed > 50, "{noticed}");
}
