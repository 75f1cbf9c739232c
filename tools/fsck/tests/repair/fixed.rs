// SPDX-License-Identifier: GPL-2.0

//! What lies at fixed places: superblocks, lanes, bitmaps, counters, the system inodes.

use rdax_volume::env::crc32c;
use rdax_volume::volume::error::Structure::{
    Bitmap, Inode, InodeChunk, Lane, Orphan, SuperBlock as Super,
};
use rdax_volume::volume::format::*;
use rdax_volume::volume::journal::unretired_word;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::IntoBytes;

use crate::bed::{self, Bed, Parts, BYTES, NOW};
use crate::mended::mended;

const COPY: u64 = BYTES - BLOCK;

#[test]
fn first_super_block() {
    mended(&[], true, |bed| {
        bed.put(0, &[0xaa_u8; 512]);
        (Super, 0)
    });
}

#[test]
fn copy_of_the_super_block() {
    mended(&[], true, |bed| {
        bed.put(COPY, &[0_u8; 512]);
        (Super, COPY)
    });
}

#[test]
fn super_blocks_that_differ() {
    mended(&[], true, |bed| {
        bed.one_super_block(COPY, |sb| sb.made_sec += 1);
        (Super, COPY)
    });
}

/// Where nothing else tells them apart, features that are not known are not true.
#[test]
fn features_of_the_first_super_block() {
    mended(&[], true, |bed| {
        bed.one_super_block(0, |sb| sb.ro_compat.set(1));
        (Super, 0)
    });
}

/// The first is written before the copy, so a copy with them is not newer, whatever it says.
#[test]
fn features_of_the_copy() {
    mended(&[], true, |bed| {
        bed.one_super_block(COPY, |sb| {
            sb.ro_compat.set(1);
            sb.generation += 1;
        });
        (Super, COPY)
    });
}

#[test]
fn label_of_the_first_super_block() {
    mended(&[], true, |bed| {
        bed.put(60, b"?");
        (Super, 0)
    });
}

#[test]
fn geometry_of_the_first_super_block() {
    mended(&[], true, |bed| {
        bed.one_super_block(0, |sb| sb.chunks += 1);
        (Super, 0)
    });
}

#[test]
fn both_super_blocks_in_different_lines() {
    let said = mended(&[], true, |bed| {
        bed.put(60, b"?");
        bed.put(COPY + 130, b"?");
        (Super, COPY)
    });
    assert!(said.contains("what is left of both"), "{said}");
}

/// The copy is sound, but of a volume that is not there; of the first only the checksum is wrong.
#[test]
fn a_super_block_that_all_bears_out_but_its_checksum() {
    let said = mended(&[], true, |bed| {
        bed.spoil(0, |sb: &mut SuperBlock| sb.free_blocks.set(0));
        bed.one_super_block(COPY, |sb| sb.hash_key[3] ^= 1);
        (Super, 0)
    });
    assert!(said.contains("what is left of both"), "{said}");
}

#[test]
fn system_inodes_restored_from_their_copies() {
    for slot in 0..2 {
        for at in [Bed::system_at, Bed::system_copy_at] {
            mended(&[], true, |bed| {
                let at = at(bed, slot);
                bed.put(at + 100, &[0x77_u8; 9]);
                (Inode, at)
            });
            // One that nothing bears out loses.
            mended(&[], false, |bed| {
                let copy = bed.system_copy_at(slot);
                bed.inode_at(at(bed, slot), |raw| raw.root[0].value += 1);
                (Inode, copy)
            });
        }
    }
}

/// Each system inode is sound in a place of the other, and nowhere else.
#[test]
fn system_inodes_that_changed_places() {
    let said = mended(&[], false, |bed| {
        let inodes = [0, 1].map(|slot| bed.get::<RawInode>(bed.system_at(slot)));
        for slot in [0, 1] {
            let at = bed.system_copy_at(slot);
            bed.put(bed.system_at(slot), &inodes[1 - slot as usize]);
            bed.put(at + 44, &[0x77_u8; 4]);
        }
        (Inode, bed.system_copy_at(0))
    });
    assert!(!said.contains("rebuilt"), "{said}");
    // The copy of the first is sound, and is written over the second.
    let said = mended(&[], false, |bed| {
        let orphans: RawInode = bed.get(bed.system_at(1));
        bed.put(bed.system_at(0), &orphans);
        for at in [bed.system_at(1), bed.system_copy_at(1)] {
            bed.put(at + 44, &[0x77_u8; 4]);
        }
        (Inode, bed.system_at(1))
    });
    assert!(!said.contains("rebuilt"), "{said}");
}

/// Gives lane 5 a transaction that must be replayed and writes a word at `place`.
fn transaction(bed: &Bed, place: u64) {
    let head = ENTRY_WRITE | (1 << ENTRY_KIND_BITS);
    let head = head | ((place / 8) << (ENTRY_KIND_BITS + ENTRY_COUNT_BITS));
    let body = [head, 0x5555].map(U64::new);
    bed.put(bed.lane_at(5) + LANE_BODY, &body);
    let (slot, _) = bed.last_header(5);
    bed.lane(5, slot, |header| {
        header.body_len = U32::new(16);
        header.body_crc = U32::new(crc32c(bed::seed(), body.as_bytes()));
        header.seq += 2;
        header.retired = unretired_word(header.seq.get());
    });
}

/// A transaction never writes a lane, whatever a lane says.
#[test]
fn transaction_that_writes_a_lane() {
    for lane in [0, 3] {
        let said = mended(&[], false, |bed| {
            transaction(bed, bed.lane_at(lane));
            (Lane, bed.lane_at(5))
        });
        assert!(said.contains("given up"), "{said}");
    }
}

/// It writes superblocks, though: that of a damaged one is restored after it was replayed.
#[test]
fn transaction_that_damages_a_super_block() {
    for at in [0, COPY] {
        mended(&[], true, |bed| {
            transaction(bed, at + 64);
            (Super, at)
        });
    }
}

#[test]
fn lane_without_a_header() {
    for lane in [0, 3] {
        mended(&[], false, |bed| {
            bed.put(bed.lane_at(lane), &[0xaa_u8; 128]);
            (Lane, bed.lane_at(lane))
        });
    }
}

#[test]
fn transaction_that_cannot_be_replayed() {
    let said = mended(&[], false, |bed| {
        // An entry of no kind, whose checksum holds.
        let body = 7_u64.to_le_bytes();
        bed.put(bed.lane_at(5) + LANE_BODY, &body);
        let (slot, _) = bed.last_header(5);
        bed.lane(5, slot, |header| {
            header.body_len = U32::new(8);
            header.body_crc = U32::new(crc32c(bed::seed(), &body));
            header.seq += 2;
            header.retired = unretired_word(header.seq.get());
        });
        (Lane, bed.lane_at(5))
    });
    assert!(said.contains("given up"), "{said}");
}

#[test]
fn transaction_that_may_not_be_in_place() {
    let said = mended(&[], false, |bed| {
        let (slot, _) = bed.last_header(5);
        bed.lane(5, slot, |header| header.retired ^= U64::new(1 << 33));
        (Lane, bed.lane_at(5))
    });
    assert!(said.contains("given up"), "{said}");
}

/// After such a number none is left.
#[test]
fn number_of_a_transaction_far_too_large() {
    for lane in [0, 5] {
        mended(&[], false, |bed| {
            bed.put(bed.lane_at(lane) + 64, &bed.last_header(lane).1);
            bed.lane(lane, 1, |header| header.seq.set(u64::MAX));
            (Lane, bed.lane_at(lane))
        });
    }
}

#[test]
fn summary() {
    mended(&[], true, |bed| {
        bed.put(bed.summary_at(2), &[0x5a_u8; 8]);
        (Bitmap, bed.summary_at(2))
    });
}

#[test]
fn free_count_of_a_chunk() {
    mended(&[], true, |bed| {
        bed.bitmap(1, |_, summary| summary.free += 1);
        (Bitmap, bed.summary_at(1))
    });
}

#[test]
fn bitmap_lost() {
    mended(&[], true, |bed| {
        bed.put(bed.bitmap_at(0), &[0_u8; 64]);
        (Bitmap, bed.summary_at(0))
    });
}

#[test]
fn block_in_use_marked_free() {
    mended(&[], true, |bed| {
        let block = bed.raw("small").root[0].block();
        bed.mark(block, false);
        (Bitmap, bed.bitmap_at(0) + block / 8)
    });
}

#[test]
fn leaked_block() {
    mended(&[], true, |bed| {
        let block = bed.free_block();
        bed.mark(block, true);
        (Bitmap, bed.bitmap_at(0) + block / 8)
    });
}

#[test]
fn counters() {
    for (free, used) in [
        (1, 0),
        (0, 1),
        (7, u64::MAX),
        (u64::MAX / 2, 0),
        (u64::MAX - 9, 5),
    ] {
        mended(&[], true, |bed| {
            bed.super_block(|sb| {
                sb.free_blocks.set(sb.free_blocks.get().wrapping_add(free));
                sb.used_inodes.set(sb.used_inodes.get().wrapping_add(used));
            });
            (Super, 0)
        });
    }
}

/// The repair writes a superblock of the next generation.
#[test]
fn counters_in_the_last_generation() {
    mended(&[], true, |bed| {
        bed.super_block(|sb| {
            sb.free_blocks.set(u64::MAX / 2);
            sb.generation.set(u64::MAX);
        });
        (Super, 0)
    });
}

/// Lanes that say what no other lane can make up for.
#[test]
fn counters_of_lanes() {
    for lane in [0, 3] {
        mended(&[], true, |bed| {
            let (slot, _) = bed.last_header(lane);
            bed.lane(lane, slot, |header| {
                header.used_inodes.set(i64::MIN);
                header.free_blocks.set(i64::MIN + 5);
            });
            (Super, 0)
        });
    }
}

/// Damages the header of the first chunk of the inode table.
fn chunk(bed: &Bed, damage: impl FnOnce(u64)) -> (rdax_volume::volume::error::Structure, u64) {
    let at = bed.inode_chunk_at(ROOT_INO, bed.at("/"));
    damage(at);
    (InodeChunk, at)
}

#[test]
fn inode_chunk_header() {
    mended(&[], false, |bed| {
        chunk(bed, |at| bed.put(at, &[0x11_u8; 64]))
    });
    mended(&[], false, |bed| chunk(bed, |at| bed.put(at, &[0_u8; 64])));
    mended(&[], false, |bed| {
        chunk(bed, |at| bed.inode_chunk(at, |header| header.index += 1))
    });
}

/// Whatever is computed from it must not overflow.
#[test]
fn numbers_of_blocks_far_too_large() {
    for block in [1 << 52, 1 << 60, u64::MAX] {
        mended(&[], false, |bed| {
            chunk(bed, |at| {
                bed.inode_chunk(at, |header| header.block = U64::new(block))
            })
        });
        for at in [0, COPY] {
            mended(&[], true, |bed| {
                bed.one_super_block(at, |sb| sb.block = U64::new(block));
                (Super, at)
            });
        }
    }
}

/// An index that no chunk of the table has is no evidence against the table, whose tree leads to
/// the chunk.
#[test]
fn impossible_index_of_an_inode_chunk() {
    let damage = |bed: &Bed| {
        chunk(bed, |at| {
            bed.inode_chunk(at, |header| header.index += 1 << 63)
        })
    };
    // With one sound inode of the table, and with a table that must be rebuilt.
    mended(&[], false, |bed| {
        bed.put(bed.system_copy_at(0) + 44, &[0x77_u8; 4]);
        damage(bed)
    });
    mended(&[], false, |bed| {
        bed.system_inode(0, |raw| raw.blocks += 1);
        damage(bed)
    });
    mended(&[], false, |bed| {
        bed.system_inode(0, |raw| raw.size += BLOCK);
        damage(bed)
    });
}

#[test]
fn fields_of_an_inode_chunk_header() {
    mended(&[], true, |bed| {
        chunk(bed, |at| bed.inode_chunk(at, |header| header.free += 1))
    });
    mended(&[], true, |bed| {
        chunk(bed, |at| {
            bed.inode_chunk(at, |header| {
                header.bitmap[0] &= !1;
                header.free += 1;
            })
        })
    });
}

/// All blocks are marked in use, and a chunk of the table needs another one.
#[test]
fn inode_chunk_lost_without_a_free_block() {
    let damage = |bed: &Bed| {
        let at = chunk_of_free_inodes(bed);
        bed.inode_chunk(at, |header| header.magic += 1);
        for chunk in 0..bed.get::<SuperBlock>(0).chunks.get() {
            bed.put(bed.bitmap_at(chunk), &[0xff_u8; 64]);
        }
        (InodeChunk, at)
    };
    mended(&[], false, damage);
}

/// The last chunk of the table, whose inodes are all removed.
fn chunk_of_free_inodes(bed: &Bed) -> u64 {
    let vol = bed::mount(&bed.ram);
    let mut root = vol.iget(ROOT_INO).unwrap();
    let chunks = bed.get::<RawInode>(bed.system_at(0)).size.get() / BLOCK;
    let file = bed::new_inode(0o100644, 0);
    let (mut count, mut at) = (0, 0);
    while bed.get::<RawInode>(bed.system_at(0)).size.get() / BLOCK == chunks {
        let name = format!("more {count}");
        at = vol.create(&mut root, name.as_bytes(), &file).unwrap().at();
        count += 1;
    }
    let name = format!("more {}", count - 1);
    let target = vol.lookup(&mut root, name.as_bytes()).unwrap().unwrap();
    let mut inode = vol.iget(target.ino).unwrap();
    vol.unlink(&mut root, name.as_bytes(), &mut inode, NOW)
        .unwrap();
    vol.free_inode(&mut inode).unwrap();
    let now = bed.get::<RawInode>(bed.system_at(0)).size.get() / BLOCK;
    assert!(now > chunks, "the table has shrunk");
    at - at % BLOCK
}

#[test]
fn inode_table() {
    mended(&[], false, |bed| {
        for at in [bed.system_at(0), bed.system_copy_at(0)] {
            bed.put(at + 100, &[0x77_u8; 9]);
        }
        (Inode, bed.system_at(0))
    });
    mended(&[], false, |bed| {
        bed.system_inode(0, |raw| raw.root[0].key = U64::new(3));
        (Inode, bed.system_at(0))
    });
    mended(&[], false, |bed| {
        bed.system_inode(0, |raw| raw.root_count = U16::ZERO);
        (Inode, bed.system_at(0))
    });
}

#[test]
fn inode_table_far_too_large() {
    // An extent that lies far off and is too long: no chunks are where it says.
    mended(&[], false, |bed| {
        bed.system_inode(0, |raw| {
            raw.root[0] = Parts::of(1 << 30, raw.root[0].block(), 20 * 16);
        });
        (Inode, bed.system_at(0))
    });
}

#[test]
fn inode_table_leads_elsewhere() {
    // The second chunk is said to be where it is not; what is there is nobody's table.
    mended(&[], false, |bed| {
        let system = bed.system_at(0);
        let raw: RawInode = bed.get(system);
        let first = raw.root[0].block();
        assert!(raw.root_count.get() >= 1 && raw.size.get() >= 2 * 65536);
        let free = bed.free_block() + 100;
        bed.system_inode(0, |raw| {
            raw.root[0] = Parts::of(0, first, 16);
            raw.root[1] = Parts::of(16, free, 16);
            raw.root_count = U16::new(2);
            raw.size = U64::new(2 * 65536);
            raw.blocks = U64::new(32);
        });
        (InodeChunk, free * BLOCK)
    });
}

#[test]
fn orphan_file() {
    mended(&[], false, |bed| {
        for at in [bed.system_at(1), bed.system_copy_at(1)] {
            bed.put(at + 100, &[0x77_u8; 9]);
        }
        (Inode, bed.system_at(1))
    });
    mended(&[], false, |bed| {
        bed.system_inode(1, |raw| raw.root[0].key = U64::new(1));
        (Inode, bed.system_at(1))
    });
}

#[test]
fn orphan_slots() {
    mended(&[], false, |bed| {
        let at = bed.orphan_slot_at(9);
        bed.put(at, &[3_u8; 16]);
        (Orphan, at)
    });
    mended(&[], false, |bed| {
        bed.orphan_slot(3, bed.ino("small"));
        (Orphan, bed.orphan_slot_at(3))
    });
    // The one in use.
    mended(&[], false, |bed| {
        let at = bed.orphan_slot_at(0);
        bed.spoil(at, |slot: &mut OrphanSlot| slot.crc += 1);
        (Orphan, at)
    });
}
