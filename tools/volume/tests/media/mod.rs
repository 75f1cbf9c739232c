// SPDX-License-Identifier: GPL-2.0

//! What the tests of the volume share: making one, and looking at the media without its code.

#![allow(dead_code)] // Each test crate uses its part.

use std::sync::Arc;

use rdax_volume::env::crc32c;
use rdax_volume::sim::Sim;
use rdax_volume::volume::format::{Time, BLOCK, CHUNK_BLOCKS, INODES_PER_CHUNK, INODE_BYTES};
use rdax_volume::volume::mkfs;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::MountOptions;
use rdax_volume::volume::Volume;

/// Bytes of the smallest volume.
pub const SMALL: u64 = 8 << 20;

/// The time of all that tests make.
pub const NOW: Time = Time {
    sec: 1_700_000_000,
    nsec: 123_456_789,
};

/// Makes a volume on `pmem`.
pub fn format<P: Pmem>(pmem: &P) {
    let options = mkfs::Options {
        uuid: *b"0123456789abcdef",
        label: "test",
        hash_key: [7; 16],
        now: NOW,
        bytes: None,
    };
    mkfs::format(pmem, &options).expect("mkfs");
}

/// A simulated memory of `bytes` with a new volume.
pub fn made(bytes: u64) -> Arc<Sim> {
    let sim = Arc::new(Sim::new(bytes));
    format(&sim);
    sim
}

/// Mounts what `pmem` holds.
pub fn mount<P: Pmem>(pmem: P) -> Volume<P> {
    Volume::mount(pmem, MountOptions::default()).expect("mount")
}

/// `len` bytes at `at`.
pub fn bytes<P: Pmem>(pmem: &P, at: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    pmem.read(at, &mut bytes).expect("read");
    bytes
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The blocks in use, by the bitmaps, whose summaries are verified.
pub fn used_blocks<P: Pmem>(vol: &Volume<P>) -> Vec<bool> {
    let geo = *vol.geometry();
    let mut used = Vec::new();
    for chunk in 0..geo.chunks {
        let bitmap = bytes(vol.pmem(), geo.bitmap_at(chunk), CHUNK_BLOCKS / 8);
        let summary = bytes(vol.pmem(), geo.summary_at(chunk), 8);
        let free: u32 = bitmap.iter().map(|b| b.count_zeros()).sum();
        let crc = crc32c(
            crc32c(crc32c(0, &bitmap), &summary[4..]),
            &chunk.to_le_bytes(),
        );
        assert_eq!(summary[..4], crc.to_le_bytes(), "checksum of chunk {chunk}");
        assert_eq!(
            summary[4..6],
            (free as u16).to_le_bytes(),
            "free of {chunk}"
        );
        used.extend((0..CHUNK_BLOCKS).map(|i| bitmap[(i / 8) as usize] >> (i % 8) & 1 == 1));
    }
    used
}

/// The inodes in use in the first chunk of the table, by its header, which is verified, and their
/// bytes.
pub fn used_inodes<P: Pmem>(vol: &Volume<P>) -> Vec<(u64, Vec<u8>)> {
    let table = bytes(vol.pmem(), vol.geometry().system_block * BLOCK, INODE_BYTES);
    let at = (u64_at(&table, 128 + 8) & ((1 << 40) - 1)) * BLOCK;
    let mut header = bytes(vol.pmem(), at, 64);
    let crc = header[..4].to_vec();
    header[..4].fill(0);
    assert_eq!(
        crc,
        crc32c(0, &header).to_le_bytes(),
        "checksum of the inode chunk"
    );
    let used: Vec<u64> = (1..INODES_PER_CHUNK)
        .filter(|i| header[16 + (i / 8) as usize] >> (i % 8) & 1 == 1)
        .collect();
    let free = INODES_PER_CHUNK - 1 - used.len() as u64;
    assert_eq!(header[48..50], (free as u16).to_le_bytes(), "free inodes");
    used.into_iter()
        .map(|ino| (ino, bytes(vol.pmem(), at + ino * INODE_BYTES, INODE_BYTES)))
        .collect()
}

/// Free blocks by the bitmaps; equal to what the volume counts, or the test fails.
pub fn free_blocks<P: Pmem>(vol: &Volume<P>) -> u64 {
    let free = used_blocks(vol).iter().filter(|used| !**used).count() as u64;
    assert_eq!(vol.free_blocks(), free, "the count of free blocks");
    free
}
