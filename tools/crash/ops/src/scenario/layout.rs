// SPDX-License-Identifier: GPL-2.0

//! Mappings of files whose blocks, size or name change, and the edges of writes.

use super::*;

pub const SCENARIOS: &[Scenario] = &[
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
        "data:preallocated",
        PREALLOCATED,
        &[write(FILE, 2 * PAGE + 100, 2 * PAGE), CHMOD],
    ),
    (
        "data:preallocated-again",
        PREALLOCATED,
        &[
            write(FILE, 2 * PAGE + 100, 2 * PAGE),
            write(FILE, PAGE, PAGE),
            zero(PAGE, 2 * PAGE),
            zeroes(0, 3 * PAGE),
            write(FILE, 2 * PAGE - 8, 16),
        ],
    ),
    (
        "data:preallocated-append",
        PREALLOCATED_BEYOND,
        &[write(FILE, 2 * PAGE + 100, PAGE), CHMOD],
    ),
    (
        "data:preallocated-appends",
        PREALLOCATED_BEYOND,
        &[
            write(FILE, 2 * PAGE + 100, PAGE),
            write(FILE, 3 * PAGE + 100, 100),
            truncate(6 * PAGE + 7),
        ],
    ),
    (
        "mmap:preallocated",
        PREALLOCATED,
        &[
            store(2 * PAGE + 64, 64),
            load(4 * PAGE, 8),
            store(4 * PAGE, 8),
            write(FILE, 5 * PAGE - 4, 8),
            store(5 * PAGE + 64, 8),
            FSYNC,
            zero(2 * PAGE, 3 * PAGE),
            store(3 * PAGE, 8),
            FSYNC,
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
        "data:zeroed",
        FILLED,
        &[
            zero(100, 10),
            zero(PAGE - 3, 6),
            zero(PAGE, 2 * PAGE),
            zero(64, 64),
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
