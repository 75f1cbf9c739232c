// SPDX-License-Identifier: GPL-2.0

//! Named workloads: what can go wrong with mapped files, and at the edges of writes.

mod layout;
mod sync;

use crate::op::{Op, Path};

/// The file of most of them.
const FILE: Path = "file";
/// Its pages.
const PAGES: u64 = 8;
const PAGE: u64 = 4096;
/// What one entry of a page table can map.
const HUGE: u64 = 2 << 20;

const fn creat(path: Path) -> Op {
    Op::Creat { path }
}

const fn write(path: Path, at: u64, len: u64) -> Op {
    Op::Write { path, at, len }
}

const fn store(at: u64, len: u64) -> Op {
    Op::Store {
        path: FILE,
        at,
        len,
    }
}

const fn scatter(at: u64, len: u64) -> Op {
    Op::Scatter {
        path: FILE,
        at,
        len,
    }
}

const fn load(at: u64, len: u64) -> Op {
    Op::Load {
        path: FILE,
        at,
        len,
    }
}

const fn msync(at: u64, len: u64) -> Op {
    Op::Msync {
        path: FILE,
        at,
        len,
    }
}

const fn flush(at: u64, len: u64) -> Op {
    Op::Flush {
        path: FILE,
        at,
        len,
    }
}

const fn truncate(size: u64) -> Op {
    Op::Truncate { path: FILE, size }
}

const fn punch(at: u64, len: u64) -> Op {
    Op::Punch {
        path: FILE,
        at,
        len,
    }
}

const fn zero(at: u64, len: u64) -> Op {
    Op::Zero {
        path: FILE,
        at,
        len,
    }
}

const fn zeroes(at: u64, len: u64) -> Op {
    Op::WriteZeroes {
        path: FILE,
        at,
        len,
    }
}

const fn allocate(len: u64) -> Op {
    Op::Fallocate {
        path: FILE,
        at: 0,
        len,
        keep_size: false,
    }
}

const STORE_IN_SYNC: Op = Op::StoreInSync {
    path: FILE,
    at: 64,
    len: 64,
};
const FSYNC: Op = Op::Fsync { path: FILE };
const FDATASYNC: Op = Op::Fdatasync { path: FILE };
const FSYNC_OTHER: Op = Op::FsyncOther { path: FILE };
const FDATASYNC_TWICE: Op = Op::FdatasyncTwice { path: FILE };
const CHMOD: Op = Op::Chmod {
    path: FILE,
    mode: 0o600,
};
const MAP_SYNC: Op = Op::MapSync { path: FILE };
const UNMAP: Op = Op::Unmap { path: FILE };

/// A file of [`PAGES`] pages that is durable.
const FILLED: &[Op] = &[creat(FILE), write(FILE, 0, PAGES * PAGE), FSYNC];
/// A file that is one hole.
const SPARSE: &[Op] = &[creat(FILE), truncate(PAGES * PAGE), FSYNC];
/// A file whose first 2 MiB can be mapped by one entry, and a bit.
const LARGE: &[Op] = &[creat(FILE), allocate(HUGE + 4 * PAGE), FSYNC];
/// A file of one page of data and others that are preallocated.
const PREALLOCATED: &[Op] = &[
    creat(FILE),
    allocate(PAGES * PAGE),
    write(FILE, 0, PAGE),
    FSYNC,
];
/// A page, and others preallocated beyond the end.
const PREALLOCATED_BEYOND: &[Op] = &[
    creat(FILE),
    write(FILE, 0, PAGE - 64),
    Op::Fallocate {
        path: FILE,
        at: PAGE,
        len: PAGES * PAGE,
        keep_size: true,
    },
    FSYNC,
];
/// A hole as large.
const LARGE_HOLE: &[Op] = &[creat(FILE), truncate(2 * HUGE), FSYNC];
/// Nothing.
const EMPTY: &[Op] = &[];

/// A name, what comes before, and the operations it is about.
type Scenario = (&'static str, &'static [Op], &'static [Op]);

/// All of them.
fn all() -> impl Iterator<Item = &'static Scenario> {
    sync::SCENARIOS.iter().chain(layout::SCENARIOS)
}

/// The name of each.
pub fn names() -> Vec<String> {
    all().map(|(name, ..)| (*name).to_owned()).collect()
}

/// What comes before, and the operations.
pub fn ops(name: &str) -> Option<(Vec<Op>, Vec<Op>)> {
    all()
        .find(|scenario| scenario.0 == name)
        .map(|(_, setup, ops)| (setup.to_vec(), ops.to_vec()))
}
