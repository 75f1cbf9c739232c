// SPDX-License-Identifier: GPL-2.0

//! What makes stores to a mapping durable.

use super::*;

pub const SCENARIOS: &[Scenario] = &[
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
];
