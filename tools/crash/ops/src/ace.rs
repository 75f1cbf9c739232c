// SPDX-License-Identifier: GPL-2.0

//! All sequences of one and of two operations on a small namespace, each after the operations that
//! it depends on: what ACE does (Mohan et al., "Finding Crash-Consistency Bugs with Bounded
//! Black-Box Crash Testing", OSDI 2018).

use crate::model::{Refused, Tree};
use crate::op::{Op, Path, Rename};
use crate::workload::slug;

/// Bytes of a file that an operation depends on: not quite three blocks.
const FILLED: u64 = 3 * 4096 - 100;

const fn rename(from: Path, to: Path, how: Rename) -> Op {
    Op::Rename { from, to, how }
}

const fn write(path: Path, at: u64, len: u64) -> Op {
    Op::Write { path, at, len }
}

const fn truncate(path: Path, size: u64) -> Op {
    Op::Truncate { path, size }
}

const fn allocate(path: Path, at: u64, len: u64, keep_size: bool) -> Op {
    Op::Fallocate {
        path,
        at,
        len,
        keep_size,
    }
}

const fn setxattr(path: Path, name: &'static str, len: usize) -> Op {
    Op::Setxattr { path, name, len }
}

const fn removexattr(path: Path, name: &'static str) -> Op {
    Op::Removexattr { path, name }
}

/// The operations.
const OPS: &[Op] = &[
    Op::Creat { path: "foo" },
    Op::Creat { path: "A/foo" },
    Op::Mkdir { path: "A" },
    Op::Mkdir { path: "A/C" },
    Op::Mkfifo { path: "A/bar" },
    Op::Mknod { path: "bar" },
    Op::Symlink {
        path: "bar",
        len: 9,
    },
    Op::Symlink {
        path: "A/bar",
        len: 1000,
    },
    Op::Link {
        from: "foo",
        to: "bar",
    },
    Op::Link {
        from: "foo",
        to: "A/bar",
    },
    Op::Link {
        from: "A/foo",
        to: "B/foo",
    },
    Op::Unlink { path: "foo" },
    Op::Unlink { path: "bar" },
    Op::Unlink { path: "A/foo" },
    Op::Unlink { path: "A/bar" },
    Op::Rmdir { path: "A" },
    Op::Rmdir { path: "A/C" },
    rename("foo", "bar", Rename::Plain),
    rename("foo", "A/foo", Rename::Plain),
    rename("A/foo", "foo", Rename::Plain),
    rename("A", "B", Rename::Plain),
    rename("A/C", "B/C", Rename::Plain),
    rename("foo", "bar", Rename::Over),
    rename("A/foo", "A/bar", Rename::Over),
    rename("A/foo", "B/bar", Rename::Over),
    rename("A/C", "B/C", Rename::Over),
    rename("foo", "bar", Rename::NoReplace),
    rename("foo", "A/bar", Rename::Exchange),
    rename("A/C", "foo", Rename::Exchange),
    // Within a block, over the border of two, over all, at the end, over the end, past it.
    write("foo", 0, 4096),
    write("foo", 1001, 1999),
    write("foo", 4093, 17),
    write("foo", 100, 12000),
    write("foo", FILLED, 50),
    write("foo", FILLED, 8192),
    write("foo", FILLED - 33, 4200),
    write("foo", 5 * 4096 + 7, 100),
    write("A/foo", 0, 20000),
    truncate("foo", 0),
    truncate("foo", 4096),
    truncate("foo", 5000),
    truncate("foo", 8 * 4096),
    allocate("foo", 0, 5 * 4096, false),
    allocate("foo", 3 * 4096, 8192, true),
    Op::Punch {
        path: "foo",
        at: 4096,
        len: 4096,
    },
    Op::Punch {
        path: "foo",
        at: 1000,
        len: 9000,
    },
    Op::Zero {
        path: "foo",
        at: 4000,
        len: 5000,
    },
    Op::WriteZeroes {
        path: "foo",
        at: 4000,
        len: 5000,
    },
    Op::Chmod {
        path: "foo",
        mode: 0o600,
    },
    Op::Chmod {
        path: "A",
        mode: 0o1711,
    },
    Op::Utimes {
        path: "foo",
        mtime: 1_000_000_007,
    },
    // Values in the block of the attributes, and one with blocks of its own.
    setxattr("foo", "user.a", 20),
    setxattr("foo", "user.b", 5000),
    setxattr("A", "user.a", 300),
    removexattr("foo", "user.a"),
    removexattr("foo", "user.b"),
    Op::Fsync { path: "foo" },
    Op::Fdatasync { path: "A/foo" },
    Op::Store {
        path: "foo",
        at: 4000,
        len: 200,
    },
    Op::Store {
        path: "A/foo",
        at: 0,
        len: 64,
    },
    Op::Msync {
        path: "foo",
        at: 4096,
        len: 4096,
    },
    Op::Unmap { path: "foo" },
];

/// The name of each sequence.
pub fn names() -> Vec<String> {
    let one = OPS.iter().map(|op| vec![*op]);
    let two = OPS
        .iter()
        .flat_map(|first| OPS.iter().map(move |second| vec![*first, *second]));
    one.chain(two)
        .filter(|ops| complete(ops).is_some())
        .map(|ops| format!("ace{}:{}", ops.len(), slug(&ops)))
        .collect()
}

/// The sequence of that name: what it depends on, and the rest.
pub fn ops(name: &str) -> Option<(Vec<Op>, Vec<Op>)> {
    let (kind, sequence) = name.split_once(':')?;
    let find = |name: &str| OPS.iter().copied().find(|op| slug(&[*op]) == name);
    let ops: Option<Vec<Op>> = sequence.split(',').map(find).collect();
    let ops = ops.filter(|ops| kind == format!("ace{}", ops.len()) && ops.len() <= 2)?;
    complete(&ops)
}

/// What makes an operation possible that was refused because of `refused`: `None` if nothing does.
fn remedy(refused: Refused) -> Option<Vec<Op>> {
    let fill = |path| write(path, 0, FILLED);
    match refused {
        Refused::Missing(path) => {
            let name = path.rsplit('/').next().unwrap_or(path);
            Some(match name.starts_with(char::is_uppercase) {
                true => vec![Op::Mkdir { path }],
                false => vec![Op::Creat { path }, fill(path)],
            })
        }
        Refused::TooShort(path) => Some(vec![fill(path)]),
        Refused::NoXattr(path, name) => Some(vec![setxattr(path, name, 1000)]),
        Refused::Exists | Refused::NotEmpty | Refused::Senseless => None,
    }
}

/// Whether one of the paths is the other one, or leads to it.
fn overlap(a: Path, b: Path) -> bool {
    let leads = |a: Path, b: Path| b.strip_prefix(a).is_some_and(|r| r.starts_with('/'));
    a == b || leads(a, b) || leads(b, a)
}

/// The operations `ops` with all that they depend on: what comes before the first, and the rest.
/// `None` if they cannot follow each other.
fn complete(ops: &[Op]) -> Option<(Vec<Op>, Vec<Op>)> {
    let mut setup: Vec<Op> = Vec::new();
    let mut rest: Vec<Op> = Vec::new();
    for op in ops {
        loop {
            let mut tree = Tree::default();
            for (number, done) in setup.iter().chain(&rest).enumerate() {
                tree.apply(number, done).ok()?;
            }
            let Err(refused) = tree.apply(0, op) else {
                rest.push(*op);
                break;
            };
            let needed = remedy(refused)?;
            // It belongs before the sequence, unless the sequence is about the same thing.
            let early = needed.iter().flat_map(Op::paths).all(|needed| {
                let mut named = rest.iter().flat_map(Op::paths);
                !named.any(|named| overlap(needed, named))
            });
            match early {
                true => setup.extend(needed),
                false => rest.extend(needed),
            }
        }
    }
    Some((setup, rest))
}
