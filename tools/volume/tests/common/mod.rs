// SPDX-License-Identifier: GPL-2.0

//! What the tests of operations share: a volume in memory, the whole tree for comparison, and the
//! verdict of the checker.

#![allow(dead_code)] // Each test is a crate of its own and uses a part of this.

pub mod operations;
pub mod tree;

pub use rdax_volume::files::{list, read, write};

use std::sync::Arc;

use rdax_volume::ram::Ram;
use rdax_volume::volume::check::check;
use rdax_volume::volume::format::{Time, ROOT_INO};
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
