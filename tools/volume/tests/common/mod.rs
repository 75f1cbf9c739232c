// SPDX-License-Identifier: GPL-2.0

//! What the tests of operations share: a volume in memory, writing and reading as the VFS layer
//! does it, the whole tree for comparison, and the verdict of the checker.

#![allow(dead_code)] // Each test is a crate of its own and uses a part of this.

pub mod operations;
pub mod tree;

use std::sync::Arc;

use rdax_volume::ram::Ram;
use rdax_volume::volume::check::check;
use rdax_volume::volume::error::Result;
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::{Time, BLOCK, ROOT_INO};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::mkfs;
use rdax_volume::volume::namespace::NewInode;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{MountOptions, Volume};

/// Mode of a regular file.
pub const FILE: u16 = 0o100_644;
/// Mode of a directory.
pub const DIR: u16 = 0o040_755;
/// Mode of a fifo.
pub const FIFO: u16 = 0o010_600;

/// The key of the hash of names of every test volume.
pub const HASH_KEY: [u8; 16] = *b"an ordinary key!";

/// A device that outlives the volume mounted on it.
pub type Shared<P> = Arc<P>;

/// A volume in plain memory.
pub type Vol = Volume<Shared<Ram>>;

/// Time `n` of a test.
pub fn time(n: i64) -> Time {
    Time {
        sec: 1_000_000 + n,
        nsec: (n as u32).wrapping_mul(7919) % 1_000_000_000,
    }
}

/// A new inode of type and permissions `mode`, made at `time(n)`.
pub fn new(mode: u16, n: i64) -> NewInode {
    NewInode {
        mode,
        uid: 1000,
        gid: 100,
        now: time(n),
        ..NewInode::default()
    }
}

/// Makes an empty volume on `pmem`.
pub fn format<P: Pmem>(pmem: &P) {
    let options = mkfs::Options {
        uuid: *b"0123456789abcdef",
        label: "test",
        hash_key: HASH_KEY,
        now: time(0),
        bytes: None,
    };
    mkfs::format(pmem, &options).expect("formats");
}

/// Mounts as for use: with the orphans worked off.
pub fn mount<P: Pmem>(pmem: P) -> Volume<P> {
    let vol = mount_only(pmem);
    vol.recover_orphans().expect("recovers the orphans");
    vol
}

/// Mounts, and leaves the orphans.
pub fn mount_only<P: Pmem>(pmem: P) -> Volume<P> {
    Volume::mount(pmem, MountOptions::default()).expect("mounts")
}

/// An empty volume of `bytes` in memory, and its device.
pub fn fresh(bytes: u64) -> (Vol, Shared<Ram>) {
    let ram = Arc::new(Ram::new(bytes));
    format(&*ram);
    (mount(ram.clone()), ram)
}

/// The root directory.
pub fn root<P: Pmem>(vol: &Volume<P>) -> Inode {
    vol.iget(ROOT_INO).expect("the root is there")
}

/// Fails unless the checker finds nothing wrong. Returns the free blocks and the inodes.
pub fn assert_clean<P: Pmem>(pmem: &P) -> (u64, u64) {
    let mut problems = Vec::new();
    let summary = check(pmem, &mut |p| problems.push(format!("{p}"))).expect("checks");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    (summary.free_blocks, summary.inodes)
}

/// Writes `data` at `pos` as the VFS layer does: straight into blocks that are mapped, reserved
/// blocks for holes, the size last.
pub fn write<P: Pmem>(
    vol: &Volume<P>,
    inode: &mut Inode,
    pos: u64,
    data: &[u8],
    now: Time,
) -> Result<()> {
    let mut at = pos;
    let end = pos + data.len() as u64;
    while at < end {
        let block = at / BLOCK;
        let left = end.div_ceil(BLOCK) - block;
        let bytes = |from: u64, to: u64| &data[(from - pos) as usize..(to - pos) as usize];
        match vol.map(inode, block, left)? {
            Map::Run { block: first, len } => {
                let to = end.min((block + len) * BLOCK);
                vol.pmem()
                    .store_nt(first * BLOCK + at % BLOCK, bytes(at, to))?;
                at = to;
            }
            Map::Unwritten { block: first, len } => {
                let to = end.min((block + len) * BLOCK);
                vol.pmem()
                    .store_nt(first * BLOCK + at % BLOCK, bytes(at, to))?;
                // What fits one piece is one transaction with its size.
                let whole = at == pos && to == end;
                vol.convert(inode, at..to, whole.then_some(end), now)?;
                if whole {
                    return Ok(());
                }
                at = to;
            }
            Map::Hole { len } => {
                let reserved = vol.reserve(vol.want(inode, block, len)?)?;
                let run = reserved.run();
                let to = end.min((block + run.len) * BLOCK);
                let mut content = vec![0; (run.len * BLOCK) as usize];
                let skip = (at % BLOCK) as usize;
                content[skip..skip + (to - at) as usize].copy_from_slice(bytes(at, to));
                vol.pmem().store_nt(run.block * BLOCK, &content)?;
                // What fits one piece is one transaction with its size.
                let whole = at == pos && to == end;
                vol.insert(inode, block, reserved, whole.then_some(end), now)?;
                if whole {
                    return Ok(());
                }
                at = to;
            }
        }
    }
    if end <= inode.size() {
        return vol.pmem().fence();
    }
    vol.extend(inode, end, pos, Some(now))
}

/// Reads up to `len` bytes at `pos`, not past the size.
pub fn read<P: Pmem>(vol: &Volume<P>, inode: &Inode, pos: u64, len: u64) -> Result<Vec<u8>> {
    let end = (pos + len).min(inode.size());
    let mut out = Vec::new();
    let mut at = pos;
    while at < end {
        let block = at / BLOCK;
        let (to, from) = match vol.map(inode, block, end.div_ceil(BLOCK) - block)? {
            Map::Run { block: first, len } => (
                end.min((block + len) * BLOCK),
                Some(first * BLOCK + at % BLOCK),
            ),
            Map::Hole { len } | Map::Unwritten { len, .. } => {
                (end.min((block + len) * BLOCK), None)
            }
        };
        let mut part = vec![0; (to - at) as usize];
        if let Some(from) = from {
            vol.pmem().read(from, &mut part)?;
        }
        out.extend_from_slice(&part);
        at = to;
    }
    Ok(out)
}

/// A name as readdir shows it: cookie, name, inode number, type.
pub type Shown = (u64, Vec<u8>, u64, u8);

/// Every name of a directory, `batch` names a call.
pub fn list<P: Pmem>(vol: &Volume<P>, dir: &Inode, batch: usize) -> Result<Vec<Shown>> {
    let mut all: Vec<Shown> = Vec::new();
    loop {
        let after = all.last().map_or(1, |e| e.0);
        let mut n = 0;
        vol.readdir(dir, after, &mut |e| {
            all.push((e.cookie, e.name.to_vec(), e.ino, e.file_type));
            n += 1;
            n < batch
        })?;
        if n < batch {
            return Ok(all);
        }
    }
}

/// `n` random cases; a failure is printed, not kept in a file.
pub fn cases(n: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        cases: n,
        failure_persistence: None,
        ..Default::default()
    }
}

/// Numbers that look random and are the same in every run (SplitMix64).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
