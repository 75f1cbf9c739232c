// SPDX-License-Identifier: GPL-2.0

//! What the tests of the volume share: making one, and looking at the media without its code.

#![allow(dead_code)] // Each test crate uses its part.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Barrier};

use rdax_volume::env::crc32c;
use rdax_volume::sim::Sim;
use rdax_volume::volume::error::Error;
use rdax_volume::volume::format::{
    RawInode, Time, BLOCK, CHUNK_BLOCKS, INODE_BYTES, INODE_CHUNKS, INODE_CHUNK_SLOTS, ROOT_INO,
};
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

/// The record of an empty file, for tests that create an inode without a name.
pub fn empty_file<P: Pmem>(vol: &Volume<P>) -> RawInode {
    let mut raw = vol.iget(ROOT_INO).unwrap().raw().clone();
    raw.mode = 0o100_644.into();
    raw.nlink = 1.into();
    raw.parent = 0.into();
    raw.size = 0.into();
    raw.blocks = 0.into();
    raw.root = Default::default();
    raw.root_count = 0.into();
    raw.depth = 0;
    raw
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

/// Fails with `message` unless `condition`. Not a panic: after a seeded mistake, many crash states
/// are expected to be unsound.
pub fn ensure(condition: bool, message: &str) -> Result<(), String> {
    condition.then_some(()).ok_or_else(|| message.to_string())
}

/// The blocks in use, by the bitmaps, whose summaries are verified.
pub fn try_used_blocks<P: Pmem>(vol: &Volume<P>) -> Result<Vec<bool>, String> {
    let geo = *vol.geometry();
    let mut used = Vec::new();
    for chunk in 0..geo.chunks {
        let bitmap = bytes(vol.pmem(), geo.bitmap_at(chunk), CHUNK_BLOCKS / 8);
        let summary = bytes(vol.pmem(), geo.summary_at(chunk), 8);
        let free: u32 = bitmap.iter().map(|b| b.count_zeros()).sum();
        let crc = crc32c(
            crc32c(crc32c(geo.seed, &bitmap), &summary[4..]),
            &chunk.to_le_bytes(),
        );
        ensure(summary[..4] == crc.to_le_bytes(), "checksum of a bitmap")?;
        let free = (free as u16).to_le_bytes();
        ensure(summary[4..6] == free, "free blocks of a chunk")?;
        used.extend((0..CHUNK_BLOCKS).map(|i| (bitmap[(i / 8) as usize] >> (i % 8)) & 1 == 1));
    }
    let free = used.iter().filter(|used| !**used).count() as u64;
    ensure(vol.free_blocks() == free, "the count of free blocks")?;
    Ok(used)
}

/// The inodes in use in the chunks of the table that mkfs has made, by their headers, which are
/// verified, and their bytes.
pub fn try_used_inodes<P: Pmem>(vol: &Volume<P>) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let table = bytes(vol.pmem(), vol.geometry().system_block * BLOCK, INODE_BYTES);
    let first = u64_at(&table, 128 + 8) & ((1 << 40) - 1);
    let mut inodes = Vec::new();
    for chunk in 0..INODE_CHUNKS {
        let at = (first + chunk) * BLOCK;
        let header = bytes(vol.pmem(), at, 64);
        let sum = crc32c(vol.geometry().seed, &header[4..]).to_le_bytes();
        ensure(header[..4] == sum, "checksum of an inode chunk")?;
        let used: Vec<u64> = (1..INODE_CHUNK_SLOTS)
            .filter(|i| (header[16 + (i / 8) as usize] >> (i % 8)) & 1 == 1)
            .collect();
        let free = (INODE_CHUNK_SLOTS - 1 - used.len() as u64) as u16;
        ensure(header[32..34] == free.to_le_bytes(), "free inodes")?;
        inodes.extend(used.into_iter().map(|slot| {
            let inode = bytes(vol.pmem(), at + slot * INODE_BYTES, INODE_BYTES);
            (chunk * INODE_CHUNK_SLOTS + slot, inode)
        }));
    }
    Ok(inodes)
}

/// [`try_used_blocks`] of a volume that must be sound.
pub fn used_blocks<P: Pmem>(vol: &Volume<P>) -> Vec<bool> {
    try_used_blocks(vol).unwrap()
}

/// [`try_used_inodes`] of a volume that must be sound.
pub fn used_inodes<P: Pmem>(vol: &Volume<P>) -> Vec<(u64, Vec<u8>)> {
    try_used_inodes(vol).unwrap()
}

/// Free blocks by the bitmaps; equal to what the volume counts.
pub fn free_blocks<P: Pmem>(vol: &Volume<P>) -> u64 {
    used_blocks(vol).iter().filter(|used| !**used).count() as u64
}

/// A memory on which one thread can be held at a fence while others go on.
pub struct Pausing {
    below: Arc<Sim>,
    /// Fences until the one at which the thread is held; negative: none.
    left: AtomicI64,
    barrier: Barrier,
}

impl Pausing {
    /// On `below`; nobody is held.
    pub fn new(below: Arc<Sim>) -> Self {
        Pausing {
            below,
            left: AtomicI64::new(-1),
            barrier: Barrier::new(2),
        }
    }

    /// Runs `op` on a thread of its own and `meanwhile` while that is held at the fence after
    /// `fences` others, before it takes effect.
    pub fn at_fence(&self, fences: i64, op: impl FnOnce() + Send, meanwhile: impl FnOnce()) {
        self.left.store(fences, Ordering::SeqCst);
        std::thread::scope(|scope| {
            scope.spawn(op);
            self.barrier.wait();
            let result = catch_unwind(AssertUnwindSafe(meanwhile));
            // Also after a failure: else the thread would be held for ever.
            self.barrier.wait();
            if let Err(panic) = result {
                resume_unwind(panic);
            }
        });
    }
}

impl Pmem for Pausing {
    fn len(&self) -> u64 {
        self.below.len()
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.below.read(at, buf)
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.below.store(at, bytes)
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.below.store_nt(at, bytes)
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<(), Error> {
        self.below.zero_nt(at, len)
    }

    fn write_back(&self, at: u64, len: u64) {
        self.below.write_back(at, len);
    }

    fn fence(&self) -> Result<(), Error> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.barrier.wait();
            self.barrier.wait();
        }
        self.below.fence()
    }
}
