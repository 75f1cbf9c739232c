// SPDX-License-Identifier: GPL-2.0

//! Named workloads: what can go wrong with mapped files, and at the edges of writes.

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

const fn allocate(len: u64) -> Op {
    Op::Fallocate {
        path: FILE,
        at: 0,
        len,
        keep_size: false,
    }
}

const FSYNC: Op = Op::Fsync { path: FILE };
const FDATASYNC: Op = Op::Fdatasync { path: FILE };
const FSYNC_OTHER: Op = Op::FsyncOther { path: FILE };
const FSYNC_TWICE: Op = Op::FsyncTwice { path: FILE };
const MAP_SYNC: Op = Op::MapSync { path: FILE };
const UNMAP: Op = Op::Unmap { path: FILE };

/// A file of [`PAGES`] pages that is durable.
const FILLED: &[Op] = &[creat(FILE), write(FILE, 0, PAGES * PAGE), FSYNC];
/// A file that is one hole.
const SPARSE: &[Op] = &[creat(FILE), truncate(PAGES * PAGE), FSYNC];
/// A file whose first 2 MiB can be mapped by one entry, and a bit.
const LARGE: &[Op] = &[creat(FILE), allocate(HUGE + 4 * PAGE), FSYNC];
/// A hole as large.
const LARGE_HOLE: &[Op] = &[creat(FILE), truncate(2 * HUGE), FSYNC];
/// Nothing.
const EMPTY: &[Op] = &[];

/// A name, what comes before, and the operations it is about.
type Scenario = (&'static str, &'static [Op], &'static [Op]);

const SCENARIOS: &[Scenario] = &[
    (
        "mmap:msync",
        FILLED,
        &[
            store(64, 128),
            store(PAGE, 8),
            msync(0, 2 * PAGE),
            store(72, 8),
        ],
    ),
    (
        "mmap:msync-of-a-part",
        FILLED,
        &[
            store(0, 64),
            store(3 * PAGE, 64),
            msync(0, PAGE),
            store(0, 8),
            msync(0, PAGE),
        ],
    ),
    (
        "mmap:fsync",
        FILLED,
        &[
            store(128, 64),
            store(5 * PAGE - 32, 64),
            FSYNC,
            store(128, 64),
            FDATASYNC,
        ],
    ),
    (
        "mmap:fsync-without-the-mapping",
        FILLED,
        &[
            store(0, 64),
            store(PAGE, 4096),
            UNMAP,
            FSYNC,
            store(8, 8),
            UNMAP,
            FDATASYNC,
        ],
    ),
    (
        "mmap:fsync-by-another",
        FILLED,
        &[
            store(192, 64),
            FSYNC_OTHER,
            store(192, 64),
            UNMAP,
            FSYNC_OTHER,
        ],
    ),
    (
        "mmap:two-fsyncs",
        FILLED,
        &[
            store(192, 64),
            store(2 * PAGE, 64),
            FSYNC_TWICE,
            store(192, 64),
            FSYNC_TWICE,
        ],
    ),
    (
        "mmap:read-then-written",
        FILLED,
        &[
            load(0, PAGES * PAGE),
            store(256, 64),
            FSYNC,
            load(0, PAGE),
            store(256, 8),
            FSYNC,
        ],
    ),
    (
        "mmap:stored-to-again",
        FILLED,
        &[
            store(0, 64),
            FSYNC,
            store(0, 64),
            FSYNC,
            store(0, 64),
            store(64, 64),
            FSYNC,
        ],
    ),
    (
        "mmap:hot",
        FILLED,
        &[
            store(0, 64),
            msync(0, PAGE),
            store(0, 64),
            msync(0, PAGE),
            store(0, 64),
            msync(0, PAGE),
            store(0, 64),
            store(512, 64),
            msync(0, PAGE),
            store(1024, 8),
            store(PAGE, 8),
            FSYNC,
            // It cools down, and is stored to once more.
            msync(0, PAGE),
            msync(0, PAGE),
            store(2048, 8),
            FSYNC,
        ],
    ),
    (
        "mmap:hot-and-frozen",
        FILLED,
        &[
            store(0, 64),
            FSYNC,
            store(0, 64),
            FSYNC,
            store(0, 64),
            FSYNC,
            store(0, 64),
            Op::Freeze,
            store(64, 64),
            Op::Sync,
        ],
    ),
    (
        "mmap:holes",
        SPARSE,
        &[
            store(PAGE, 64),
            FSYNC,
            store(2 * PAGE + 8, 8),
            load(5 * PAGE, 8),
            store(5 * PAGE, 8),
            FSYNC,
        ],
    ),
    (
        "mmap:holes-in-a-row",
        SPARSE,
        &[
            store(0, 8),
            store(PAGE, 8),
            store(2 * PAGE, 8),
            store(3 * PAGE, 8),
            store(7 * PAGE, 64),
            msync(0, PAGES * PAGE),
        ],
    ),
    (
        "mmap:hole-and-write",
        SPARSE,
        &[
            store(PAGE + 64, 64),
            write(FILE, PAGE, 100),
            store(PAGE + 96, 32),
            FSYNC,
        ],
    ),
    (
        "mmap:map-sync",
        FILLED,
        &[
            MAP_SYNC,
            store(0, 64),
            flush(0, 64),
            store(64, 8),
            store(PAGE, 128),
            flush(PAGE, 128),
        ],
    ),
    (
        "mmap:map-sync-of-holes",
        SPARSE,
        &[
            MAP_SYNC,
            store(0, 64),
            flush(0, 64),
            store(6 * PAGE, 192),
            flush(6 * PAGE, 192),
        ],
    ),
    (
        "mmap:huge",
        LARGE,
        &[
            store(0, 64),
            store(HUGE - 64, 64),
            msync(0, PAGE),
            FSYNC,
            store(PAGE, 64),
            FSYNC,
        ],
    ),
    (
        "mmap:huge-hole",
        LARGE_HOLE,
        &[store(0, 8), store(PAGE, 64), store(HUGE, 64), FSYNC],
    ),
    (
        "mmap:huge-map-sync",
        LARGE,
        &[
            MAP_SYNC,
            store(8 * PAGE, 64),
            flush(8 * PAGE, 64),
            store(HUGE - 8, 16),
            FSYNC,
        ],
    ),
    (
        "mmap:huge-cut",
        LARGE,
        &[
            store(0, 64),
            store(HUGE - PAGE, 64),
            truncate(HUGE - PAGE + 64),
            store(64, 64),
            FSYNC,
        ],
    ),
    (
        "mmap:aged",
        FILLED,
        &[store(0, 64), store(4 * PAGE, 64), Op::Age, store(64, 8)],
    ),
    (
        "mmap:aged-without-the-mapping",
        FILLED,
        &[store(0, 64), UNMAP, Op::Age],
    ),
    (
        "mmap:frozen",
        FILLED,
        &[store(0, 64), store(2 * PAGE, 64), Op::Freeze, store(0, 64)],
    ),
    ("mmap:sync", FILLED, &[store(320, 64), UNMAP, Op::Sync]),
    (
        "mmap:truncated",
        FILLED,
        &[
            store(PAGE, 128),
            store(4 * PAGE, 64),
            truncate(PAGE + 64),
            FSYNC,
            truncate(3 * PAGE),
            store(PAGE + 64, 64),
            FSYNC,
        ],
    ),
    (
        "mmap:grown",
        FILLED,
        &[
            truncate(3 * PAGE + 100),
            store(3 * PAGE, 64),
            truncate(6 * PAGE),
            store(5 * PAGE, 64),
            FSYNC,
        ],
    ),
    (
        "mmap:past-the-end",
        FILLED,
        &[
            truncate(3 * PAGE + 100),
            store(3 * PAGE + 64, 256),
            FSYNC,
            truncate(3 * PAGE + 200),
            store(3 * PAGE + 192, 64),
            write(FILE, 4 * PAGE, 100),
            FSYNC,
        ],
    ),
    (
        "mmap:punched",
        FILLED,
        &[
            store(PAGE, 64),
            store(2 * PAGE, 64),
            punch(PAGE, 2 * PAGE),
            store(PAGE, 64),
            FSYNC,
        ],
    ),
    (
        "mmap:punched-unaligned",
        FILLED,
        &[
            store(PAGE, 64),
            punch(PAGE - 5, 70),
            store(PAGE + 64, 64),
            FSYNC,
        ],
    ),
    (
        "mmap:overwritten",
        FILLED,
        &[
            store(0, 128),
            write(FILE, 32, 64),
            store(64, 64),
            write(FILE, 3, 5),
            FSYNC,
        ],
    ),
    (
        "mmap:appended",
        FILLED,
        &[
            store(7 * PAGE, 64),
            write(FILE, PAGES * PAGE, 100),
            store(8 * PAGE, 64),
            FSYNC,
        ],
    ),
    (
        "mmap:renamed",
        FILLED,
        &[
            store(0, 64),
            Op::Rename {
                from: FILE,
                to: "other",
                how: crate::op::Rename::Plain,
            },
            Op::Fsync { path: "other" },
        ],
    ),
    (
        "mmap:replaced",
        &[
            creat(FILE),
            write(FILE, 0, PAGE),
            creat("other"),
            write("other", 0, 2 * PAGE),
            Op::Sync,
        ],
        &[
            store(0, 64),
            FSYNC,
            Op::Rename {
                from: FILE,
                to: "other",
                how: crate::op::Rename::Over,
            },
            write("other", PAGE, PAGE),
        ],
    ),
    (
        "mmap:unlinked",
        FILLED,
        &[
            store(0, 4096),
            Op::Unlink { path: FILE },
            creat("other"),
            write("other", 0, 8 * PAGE),
        ],
    ),
    (
        "mmap:two-files",
        &[
            creat(FILE),
            write(FILE, 0, 2 * PAGE),
            creat("other"),
            write("other", 0, 2 * PAGE),
            Op::Sync,
        ],
        &[
            store(0, 64),
            Op::Store {
                path: "other",
                at: 0,
                len: 64,
            },
            FSYNC,
            store(64, 64),
            Op::Fsync { path: "other" },
        ],
    ),
    (
        "data:edges",
        FILLED,
        &[
            write(FILE, 1, 1),
            write(FILE, 7, 2),
            write(FILE, 63, 2),
            write(FILE, 60, 72),
            write(FILE, PAGE - 1, 2),
            write(FILE, 2 * PAGE - 7, PAGE + 14),
            write(FILE, 5, 3 * PAGE),
            write(FILE, 8, 8),
            write(FILE, 128, 64),
        ],
    ),
    (
        "data:appends",
        EMPTY,
        &[
            creat(FILE),
            write(FILE, 0, 1),
            write(FILE, 1, 6),
            write(FILE, 7, 64),
            write(FILE, 71, 4000),
            write(FILE, 4071, 100),
            write(FILE, 4171, 20000),
            write(FILE, 24171, 5),
        ],
    ),
    (
        "data:past-the-end",
        EMPTY,
        &[
            creat(FILE),
            write(FILE, 100, 10),
            write(FILE, 5000, 10),
            write(FILE, 3 * PAGE, PAGE),
            write(FILE, 20 * PAGE + 4095, 2),
        ],
    ),
    (
        "data:holes",
        SPARSE,
        &[
            write(FILE, 100, 10),
            write(FILE, 3 * PAGE - 3, 6),
            write(FILE, 0, 6 * PAGE),
            punch(PAGE, 4 * PAGE),
            write(FILE, 2 * PAGE, 10),
            write(FILE, 100, 7 * PAGE),
        ],
    ),
    (
        "data:short-and-long",
        FILLED,
        &[
            truncate(5000),
            truncate(10000),
            write(FILE, 9000, 2000),
            truncate(4097),
            write(FILE, 8200, 10),
            truncate(0),
            write(FILE, 0, 10),
        ],
    ),
];

/// The name of each.
pub fn names() -> Vec<String> {
    SCENARIOS
        .iter()
        .map(|(name, ..)| (*name).to_owned())
        .collect()
}

/// What comes before, and the operations.
pub fn ops(name: &str) -> Option<(Vec<Op>, Vec<Op>)> {
    SCENARIOS
        .iter()
        .find(|scenario| scenario.0 == name)
        .map(|(_, setup, ops)| (setup.to_vec(), ops.to_vec()))
}
