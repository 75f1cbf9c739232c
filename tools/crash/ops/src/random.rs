// SPDX-License-Identifier: GPL-2.0

//! Random workloads, the same for the same seed.

use fastrand::Rng;

use crate::model::Tree;
use crate::op::{Op, Path, Rename};

/// Operations of one.
const LENGTH: usize = 24;
/// Bytes that offsets and sizes go up to.
const SIZE: u64 = 40000;

const FILES: &[Path] = &["foo", "bar", "A/foo", "A/bar", "B/foo", "A/C/foo"];
const DIRS: &[Path] = &["A", "B", "A/C", "B/C"];
const XATTRS: &[&str] = &["user.a", "user.b"];

/// What a random workload is made of: each kind of operation gets a number of lots.
struct Mix {
    name: &'static str,
    names: usize,
    data: usize,
    mapped: usize,
}

const MIXES: &[Mix] = &[
    Mix {
        name: "random:names",
        names: 8,
        data: 1,
        mapped: 0,
    },
    Mix {
        name: "random:data",
        names: 1,
        data: 6,
        mapped: 0,
    },
    Mix {
        name: "random:mmap",
        names: 1,
        data: 1,
        mapped: 6,
    },
    Mix {
        name: "random:all",
        names: 3,
        data: 3,
        mapped: 3,
    },
];

/// The name of each mix.
pub fn names() -> Vec<String> {
    MIXES.iter().map(|mix| mix.name.to_owned()).collect()
}

/// A workload of the mix `name`: nothing comes before it.
pub fn ops(name: &str, seed: u64) -> Option<(Vec<Op>, Vec<Op>)> {
    let mix = MIXES.iter().find(|mix| mix.name == name)?;
    let mut random = Rng::with_seed(seed);
    let mut tree = Tree::default();
    let mut ops = Vec::new();
    // What is there to work on.
    for op in [Op::Mkdir { path: "A" }, Op::Creat { path: "foo" }] {
        tree.apply(ops.len(), &op).ok()?;
        ops.push(op);
    }
    while ops.len() < LENGTH {
        let op = pick(mix, &mut random, &tree);
        let mut next = tree.clone();
        if next.apply(ops.len(), &op).is_ok() {
            tree = next;
            ops.push(op);
        }
    }
    Some((Vec::new(), ops))
}

/// An operation that may or may not be possible on `tree`.
fn pick(mix: &Mix, random: &mut Rng, tree: &Tree) -> Op {
    let lot = random.usize(..mix.names + mix.data + mix.mapped);
    if lot < mix.names {
        name_op(random)
    } else if lot < mix.names + mix.data {
        data_op(random)
    } else {
        mapped_op(random, tree)
    }
}

fn one(random: &mut Rng, paths: &[Path]) -> Path {
    paths[random.usize(..paths.len())]
}

fn any(random: &mut Rng) -> Path {
    match random.u8(..4) {
        0 => one(random, DIRS),
        _ => one(random, FILES),
    }
}

fn name_op(random: &mut Rng) -> Op {
    let path = one(random, FILES);
    match random.u8(..18) {
        16 => Op::Setxattr {
            path: any(random),
            name: one(random, XATTRS),
            len: match random.bool() {
                true => random.usize(1..500),
                false => random.usize(500..9000),
            },
        },
        17 => Op::Removexattr {
            path: any(random),
            name: one(random, XATTRS),
        },
        0..=3 => Op::Creat { path },
        4 | 5 => Op::Mkdir {
            path: one(random, DIRS),
        },
        6 => Op::Symlink {
            path,
            len: random.usize(1..300),
        },
        7 => Op::Mkfifo { path },
        8 => Op::Link {
            from: path,
            to: one(random, FILES),
        },
        9 | 10 => Op::Unlink { path },
        11 => Op::Rmdir {
            path: one(random, DIRS),
        },
        12 => Op::Chmod {
            path: any(random),
            mode: random.u16(..0o1000) | 0o600,
        },
        _ => {
            let (from, to) = match random.u8(..3) {
                0 => (one(random, DIRS), one(random, DIRS)),
                _ => (path, one(random, FILES)),
            };
            let how = match random.u8(..4) {
                0 => Rename::Plain,
                1 => Rename::NoReplace,
                2 => Rename::Over,
                _ => Rename::Exchange,
            };
            Op::Rename { from, to, how }
        }
    }
}

/// A place in a file: often at an edge of a line or a block.
fn place(random: &mut Rng) -> u64 {
    let any = random.u64(..SIZE);
    match random.u8(..4) {
        0 => any / 4096 * 4096,
        1 => any / 64 * 64,
        2 => (any / 4096 * 4096 + random.u64(..9)).saturating_sub(4),
        _ => any,
    }
}

fn data_op(random: &mut Rng) -> Op {
    let path = one(random, FILES);
    let (at, end) = (place(random), place(random));
    let (at, len) = (at.min(end), at.abs_diff(end).max(1));
    match random.u8(..12) {
        0..=4 => Op::Write { path, at, len },
        5 => Op::Write {
            path,
            at,
            len: random.u64(1..200),
        },
        6 | 7 => Op::Truncate { path, size: at },
        8 => Op::Fallocate {
            path,
            at,
            len,
            keep_size: random.bool(),
        },
        9 => Op::Zero { path, at, len },
        10 => Op::Utimes {
            path,
            mtime: random.i64(1..1 << 31),
        },
        _ => Op::Punch { path, at, len },
    }
}

fn mapped_op(random: &mut Rng, tree: &Tree) -> Op {
    let path = one(random, FILES);
    let size = tree.file(path).map_or(0, |file| file.data.len() as u64);
    let at = place(random).min(size) / 8 * 8;
    let len = (random.u64(1..20) * 8).min((size - at) / 8 * 8);
    match random.u8(..14) {
        0..=6 => Op::Store { path, at, len },
        7 | 8 => Op::Msync {
            path,
            at,
            len: len.max(8),
        },
        9 => Op::Fsync { path },
        10 => Op::Fdatasync { path },
        11 => Op::Unmap { path },
        12 => Op::FsyncOther { path },
        _ => match random.u8(..4) {
            0 => Op::Sync,
            1 => Op::Freeze,
            _ => Op::Load {
                path,
                at,
                len: len.max(8),
            },
        },
    }
}
