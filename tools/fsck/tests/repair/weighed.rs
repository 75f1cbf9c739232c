// SPDX-License-Identifier: GPL-2.0

//! Redundant information is compared: the repair trusts the version that more structures confirm,
//! and gives up only what cannot be trusted.

use rdax_fsck::repair::{repair, Level};
use rdax_fsck::trial;
use rdax_volume::env::crc32c;
use rdax_volume::volume::check::Kind;
use rdax_volume::volume::error::Structure::{self, DirLeaf, Inode, Lane};
use rdax_volume::volume::extent::{pack, unpack};
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::*;
use rdax_volume::volume::inode;
use rdax_volume::volume::journal::unretired_word;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::MountOptions;
use rdax_volume::volume::Volume;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::IntoBytes;

use crate::bed::{mount, seed, Bed, Parts, BYTES, NOW};
use crate::common::mount_only;
use crate::mended::{filled, kept, mend, mended, sim_of, tree_of};

/// The block of data of "small".
pub fn block_of_small(bed: &Bed) -> u64 {
    bed.raw("small").root[0].block()
}

/// The block of the first chunk of the inode table.
fn first_chunk(bed: &Bed) -> u64 {
    bed.inode_chunk_at(ROOT_INO, bed.at("/")) / BLOCK
}

/// A user has copied the header of a chunk of the inode table into a file, from this volume or from
/// the image of another, and the inode of the table is lost.
#[test]
fn chunk_headers_in_a_file() {
    for other_volume in [false, true] {
        let bed = filled();
        let content = block_of_small(&bed);
        let mut header: InodeChunk = bed.get(first_chunk(&bed) * BLOCK);
        if other_volume {
            header.block = U64::new(content);
            let crc = crc32c(crc32c(0, b"another volume.."), &header.as_bytes()[4..]);
            header.crc = U32::new(crc);
        }
        bed.put(content * BLOCK, &header);
        let before = tree_of(&bed);
        for at in [bed.system_at(0), bed.system_copy_at(0)] {
            bed.put(at, &[0x55_u8; 256]);
        }
        let sim = sim_of(&bed);
        let said = mend(&sim).unwrap();
        kept(&sim, &before, &Default::default()).unwrap_or_else(|e| panic!("{e}\n{said}"));
    }
}

/// The tree of the inode table, and of its copy, leads one block too far.
#[test]
fn inode_table_shifted_by_a_block() {
    mended(&[], false, |bed| {
        bed.system_inode(0, |raw| raw.root[0].value += 1);
        let raw: RawInode = bed.get(bed.system_at(0));
        (Structure::InodeChunk, raw.root[0].block() * BLOCK)
    });
}

/// The one inode of the inode table that is sound is from before it grew: the other chunks are
/// found.
#[test]
fn inode_table_as_it_was_earlier() {
    let said = mended(&[], false, table_as_it_was);
    assert!(!said.contains("lost+found"), "{said}");
}

/// Damages the inode of the inode table so that it is from before it grew.
fn table_as_it_was(bed: &Bed) -> (Structure, u64) {
    bed.system_inode(0, |raw| {
        let mut m = unpack(&raw.root[0]);
        m.len = m.len.min(20);
        raw.root.fill(Extent::default());
        raw.root[0] = pack(m);
        raw.root_count = U16::new(1);
        raw.size = U64::new(m.len * BLOCK);
        raw.blocks = U64::new(m.len);
    });
    let copy = bed.system_copy_at(0);
    bed.put(copy, &[0x55_u8; 256]);
    (Inode, copy)
}

/// A chunk of the table that was given back has left its header, and inodes that are sound, in a
/// block that a file has since, or nobody. The file is one of those to be found.
#[test]
fn chunks_that_were_given_back() {
    let bed = filled();
    let table: RawInode = bed.get(bed.system_at(0));
    let (count, last) = (table.size.get() / BLOCK, bed.ino("last"));
    assert!(count > 20 && last / INODE_CHUNK_SLOTS > 20);
    for (of_file, index) in [
        (false, last / INODE_CHUNK_SLOTS),
        (true, last / INODE_CHUNK_SLOTS),
        (true, count),
    ] {
        let bed = filled();
        let block = if of_file {
            let vol = mount(&bed.ram);
            let mut file = vol.iget(last).unwrap();
            vol.preallocate(&mut file, 0, 1, NOW).unwrap();
            match vol.map(&mut file, 0, 1).unwrap() {
                Map::Unwritten { block, .. } => block,
                map => panic!("{map:?}"),
            }
        } else {
            bed.free_block()
        };
        let before = tree_of(&bed);
        if !of_file {
            bed.mark(block, true);
        }
        let header: InodeChunk = bed.get(bed.inode_chunk_at(last, bed.at("last")));
        bed.put(block * BLOCK, &header);
        bed.inode_chunk(block * BLOCK, |header| {
            header.index = U64::new(index);
            header.block = U64::new(block);
            header.bitmap.fill(U64::ZERO);
            header.free = U16::new(INODE_CHUNK_SLOTS as u16 - 1);
        });
        for slot in 1..INODE_CHUNK_SLOTS {
            let mut raw = bed.raw("last");
            raw.ino = U64::new(index * INODE_CHUNK_SLOTS + slot);
            inode::seal(&mut raw, seed());
            bed.put(block * BLOCK + slot * INODE_BYTES, &raw);
        }
        table_as_it_was(&bed);
        let sim = sim_of(&bed);
        let said = mend(&sim).unwrap();
        kept(&sim, &before, &Default::default()).unwrap_or_else(|e| panic!("{e}\n{said}"));
        let rebuilt = format!("rebuilt with {count} chunks");
        assert!(said.contains(&rebuilt), "{said}");
    }
}

/// One bit of the header of a chunk says that an inode is free which has a name and a link.
#[test]
fn inode_in_use_marked_free() {
    for name in ["small", "dir", "many", "/"] {
        let said = mended(&[], false, |bed| {
            let (ino, at) = (bed.ino(name), bed.at(name));
            let header = bed.inode_chunk_at(ino, at);
            bed.inode_chunk(header, |header| {
                let slot = ino % INODE_CHUNK_SLOTS;
                header.bitmap[(slot / 64) as usize] &= U64::new(!(1 << (slot % 64)));
                header.free += 1;
            });
            let root_leaf = bed.leaf_at("/");
            match name {
                "/" => (Inode, at),
                name => (DirLeaf, bed.record_at(root_leaf, name)),
            }
        });
        assert!(said.contains("in use, as"), "{name}: {said}");
        assert!(!said.contains("lost+found"), "{name}: {said}");
    }
}

/// The other way round: a bit says that an inode is in use which was removed.
#[test]
fn removed_inode_marked_in_use() {
    let bed = filled();
    let vol = crate::bed::mount(&bed.ram);
    let mut root = vol.iget(ROOT_INO).unwrap();
    let new = crate::bed::new_inode(0o100644, 0);
    let made = vol.create(&mut root, b"gone", &new).unwrap();
    let (ino, at) = (made.ino(), made.at());
    vol.unlink(
        &mut root,
        b"gone",
        &mut vol.iget(ino).unwrap(),
        crate::bed::NOW,
    )
    .unwrap();
    vol.free_orphan(ino).unwrap();
    drop(vol);
    let before = tree_of(&bed);
    bed.inode_chunk(bed.inode_chunk_at(ino, at), |header| {
        let slot = ino % INODE_CHUNK_SLOTS;
        header.bitmap[(slot / 64) as usize] |= U64::new(1 << (slot % 64));
        header.free -= 1;
    });
    let sim = sim_of(&bed);
    let said = mend(&sim).unwrap();
    assert_eq!(tree_of(&bed).len(), before.len());
    kept(&sim, &before, &Default::default()).unwrap();
    assert!(!said.contains("lost+found"), "{said}");
}

/// A byte of the length of a record: the names behind it are still there.
#[test]
fn record_lengths() {
    for (name, len) in [
        ("file", 24),
        ("file", 4096),
        ("small", 33),
        ("many", 0),
        ("dir", 72),
    ] {
        let said = mended(&[], false, |bed| {
            let at = bed.record_at(bed.leaf_at("/"), name);
            bed.spoil(at, |head: &mut Dirent| head.rec_len = U16::new(len));
            (DirLeaf, at)
        });
        assert!(!said.contains("lost+found"), "{name}: {said}");
    }
    // More of the record is gone: only its own name goes.
    let said = mended(&[], false, |bed| {
        let at = bed.record_at(bed.leaf_at("/"), "file");
        bed.put(at + 4, &[0xff_u8; 6]);
        (DirLeaf, at)
    });
    assert_eq!(said.matches("put into lost+found").count(), 1, "{said}");
}

/// A damaged record with a length that spans others, as that of a record that had room behind it:
/// what they name has no other name.
#[test]
fn record_that_spans_others() {
    let said = mended(&[], false, |bed| {
        let at = bed.record_at(bed.leaf_at("/"), "file");
        let (first, second): (Dirent, Dirent) = {
            let first: Dirent = bed.get(at);
            let next = at + u64::from(first.rec_len.get());
            (first, bed.get(next))
        };
        let len = first.rec_len.get() + second.rec_len.get();
        bed.spoil(at, |head: &mut Dirent| {
            head.rec_len = U16::new(len);
            head.crc = U32::new(1);
            head.cookie += 1;
        });
        (DirLeaf, at)
    });
    assert_eq!(said.matches("put into lost+found").count(), 1, "{said}");
}

/// A record that was copied over another from a leaf eight blocks away: its checksum holds if it is
/// eight bytes longer, for what a checksum begins with differs there in the bit that its length
/// then does. What follows keeps its name.
#[test]
fn record_of_another_leaf() {
    let said = mended(&[], false, |bed| {
        let leaf = bed.leaf_at("/");
        let at = bed.record_at(leaf, "file");
        let head: Dirent = bed.get(at);
        assert_eq!(head.rec_len.get() & 8, 0);
        let mut bytes = vec![0; size_of::<Dirent>() + "file".len()];
        bed.ram.read(at, &mut bytes).unwrap();
        let elsewhere = record_seed(seed(), ROOT_INO, (leaf / BLOCK) ^ 8);
        bed.put(at, &U32::new(crc32c(elsewhere, &bytes[4..])));
        (DirLeaf, at)
    });
    assert!(!said.contains("lost+found"), "{said}");
}

/// Writes a transaction of one entry, which is not retired, to a lane.
pub fn log(bed: &Bed, lane: u64, body: &[u64]) {
    let bytes: Vec<u8> = body.iter().flat_map(|word| word.to_le_bytes()).collect();
    bed.ram
        .store(bed.lane_at(lane) + LANE_BODY, &bytes)
        .unwrap();
    let (slot, last) = bed.last_header(lane);
    let seq = last.seq.get() + 1;
    bed.put(bed.lane_at(lane) + (1 - slot) * 64, &last);
    bed.lane(lane, 1 - slot, |header| {
        header.seq = U64::new(seq);
        header.body_len = U32::new(bytes.len() as u32);
        header.body_crc = U32::new(crc32c(seed(), &bytes));
        header.retired = unretired_word(seq);
    });
}

/// An entry that writes one word at byte `at`.
pub fn write(at: u64, word: u64) -> [u64; 2] {
    let place = at / 8;
    let head =
        ENTRY_WRITE | (1 << ENTRY_KIND_BITS) | (place << (ENTRY_KIND_BITS + ENTRY_COUNT_BITS));
    [head, word]
}

/// A lane that cannot be replayed, whatever the reason, costs nothing that other lanes hold.
#[test]
fn one_lane_that_cannot_be_replayed() {
    type Damage = fn(&Bed);
    let damages: [Damage; 4] = [
        |bed| log(bed, 2, &[7]),
        |bed| bed.put(bed.lane_at(2), &[0xaa_u8; 128]),
        |bed| {
            log(bed, 2, &write(0, 0));
            bed.lane(2, 0, |header| header.retired ^= U64::new(1 << 40));
            bed.lane(2, 1, |header| header.retired ^= U64::new(1 << 40));
        },
        // An inode of a chunk whose header has lost its magic.
        |bed| {
            let header = bed.inode_chunk_at(ROOT_INO, bed.at("/"));
            let kind = ENTRY_INODE_ALLOC | (ROOT_INO << ENTRY_KIND_BITS);
            let place = header / 8;
            log(
                bed,
                2,
                &[kind | (place << (ENTRY_KIND_BITS + ENTRY_COUNT_BITS))],
            );
            bed.put(header + 4, &[0_u8; 4]);
        },
    ];
    for damage in damages {
        let bed = filled();
        let content = block_of_small(&bed) * BLOCK;
        for lane in [0, 1, 3, 15] {
            log(
                &bed,
                lane,
                &write(content + 8 * lane, 0x0123_4567_89ab_cdef),
            );
        }
        damage(&bed);
        let sim = sim_of(&bed);
        let said = mend(&sim).unwrap();
        for lane in [0, 1, 3, 15] {
            let mut word = [0; 8];
            sim.read(content + 8 * lane, &mut word).unwrap();
            assert_eq!(
                u64::from_le_bytes(word),
                0x0123_4567_89ab_cdef,
                "lane {lane}: {said}"
            );
        }
        trial::mount(&sim).unwrap();
    }
}

/// A directory, or another inode that cannot be cut, that says it is being truncated.
#[test]
fn orphan_that_is_no_file() {
    for name in ["dir", "short", "fifo"] {
        mended(&[name], false, |bed| {
            bed.orphan_slot(5, bed.ino(name));
            bed.inode(name, |raw| raw.orphan = U32::new(6));
            (Inode, bed.at(name))
        });
    }
}

/// A header of a lane that the kernel does not take for one is none for the check either.
#[test]
fn what_a_mount_refuses_is_found() {
    for len in [4, LANE_BYTES as u32] {
        let bed = filled();
        for slot in 0..2 {
            bed.lane(4, slot, |header| header.body_len = U32::new(len));
        }
        let sim = sim_of(&bed);
        assert!(trial::mount(&sim).is_err());
        let found = crate::bed::problems(&sim).1;
        assert!(found
            .iter()
            .any(|p| p.what == Lane && p.kind == Kind::NoHeader));
        mend(&sim).unwrap();
        trial::mount(&sim).unwrap();
    }
}

/// Reserved bytes and bits of `compat` are somebody's: a repair keeps them, and so do changes.
#[test]
fn reserved_bytes_are_kept() {
    let bed = filled();
    bed.super_block(|sb| {
        sb.reserved[100] = 7;
        sb.compat = U64::new(1 << 40);
    });
    let chunk = first_chunk(&bed) * BLOCK;
    bed.inode_chunk(chunk, |header| header.reserved[2] = 7);
    bed.bitmap(0, |_, summary| summary.reserved = U16::new(7));
    bed.inode("small", |raw| raw.reserved0[1] = 7);
    bed.node(bed.node_at("file"), |header, _| header.reserved[9] = 7);
    let left = |get: &dyn Fn(u64, &mut [u8])| {
        let byte = |at: u64| {
            let mut byte = [0];
            get(at, &mut byte);
            byte[0]
        };
        for at in [0, BYTES - BLOCK] {
            assert_eq!(
                byte(at + std::mem::offset_of!(SuperBlock, reserved) as u64 + 100),
                7
            );
            assert_eq!(
                byte(at + std::mem::offset_of!(SuperBlock, compat) as u64 + 5),
                1
            );
        }
        assert_eq!(
            byte(chunk + std::mem::offset_of!(InodeChunk, reserved) as u64 + 2),
            7
        );
        assert_eq!(byte(bed.summary_at(0) + 6), 7);
        let small = bed.at("small") + std::mem::offset_of!(RawInode, reserved0) as u64;
        assert_eq!(byte(small + 1), 7);
        let node = bed.node_at("file") + std::mem::offset_of!(NodeHeader, reserved) as u64;
        assert_eq!(byte(node + 9), 7);
    };
    // Nothing is wrong with them.
    let sim = sim_of(&bed);
    assert_eq!(crate::bed::problems(&sim).1, []);
    mend(&sim).unwrap();
    left(&|at, bytes| sim.read(at, bytes).unwrap());
    // Each is repaired for something else: counts and a block bitmap.
    bed.inode_chunk(chunk, |header| header.free += 1);
    bed.bitmap(0, |_, summary| summary.free += 1);
    bed.inode("small", |raw| raw.blocks += 1);
    bed.super_block(|sb| sb.free_blocks = U64::new(1 << 60));
    let sim = sim_of(&bed);
    mend(&sim).unwrap();
    left(&|at, bytes| sim.read(at, bytes).unwrap());
    // And changed by the volume.
    let vol = Volume::mount(&sim, MountOptions::default()).unwrap();
    vol.set_label("another").unwrap();
    let mut root = vol.iget(ROOT_INO).unwrap();
    let new = crate::bed::new_inode(0o100644, 0);
    let mut made = vol.create(&mut root, b"new", &new).unwrap();
    let mut small = vol.iget(bed.ino("small")).unwrap();
    let mut file = vol.iget(bed.ino("file")).unwrap();
    for inode in [&mut made, &mut small, &mut file] {
        vol.fill(inode, 101, 1, Some(crate::bed::NOW)).unwrap();
    }
    drop(vol);
    left(&|at, bytes| sim.read(at, bytes).unwrap());
    assert_eq!(crate::bed::problems(&sim).1, []);
    mount_only(&sim);
}

/// A repair that is asked for nothing but what is safe says so of each of these, and writes
/// nothing.
#[test]
fn safe_repairs_write_nothing_else() {
    let bed = filled();
    log(&bed, 2, &[7]);
    let sim = sim_of(&bed);
    let outcome = repair(&sim, Level::Safe, &mut |_| {}).unwrap();
    assert!(!outcome.left.is_empty());
}
