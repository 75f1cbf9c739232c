// SPDX-License-Identifier: GPL-2.0

//! What every file system promises of data: what may be found, and what may not.

use std::collections::BTreeMap;

use rdax_crash_ops::{fill, workload, Kind, Op, Synced, Workload};

const PAGE: usize = 4096;

/// Its operations: creat, write, fsync; two stores; msync of both; a store.
fn msync() -> Workload {
    workload("mmap:msync", 1).expect("there is one")
}

/// What the file has after the first `count` operations, if nothing is lost.
fn content(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (n, op) in msync().ops.iter().take(count).enumerate() {
        if let Op::Write { at, len, .. } | Op::Store { at, len, .. } = *op {
            let end = (at + len) as usize;
            bytes.resize(bytes.len().max(end), 0);
            fill(n, at, &mut bytes[at as usize..end]);
        }
    }
    bytes
}

/// What is said of a file with these bytes, after so many operations.
fn said(bytes: &[u8], finished: usize, in_flight: bool) -> Vec<Kind> {
    let files = BTreeMap::from([("file".to_owned(), bytes.to_vec())]);
    let found = Synced::new(&msync()).check(&files, finished, in_flight);
    found.into_iter().map(|violation| violation.kind).collect()
}

#[test]
fn what_was_synced_is_there() {
    assert!(matches!(msync().ops[5], Op::Msync { .. }), "{}", msync());
    // Stores that nothing has covered may be lost, and are as soon as they were made what may be.
    for lost in [3, 4, 5] {
        assert_eq!(said(&content(lost), 5, true), []);
    }
    assert_eq!(said(&content(5), 6, false), []);
    assert_eq!(said(&content(6), 6, true), []);
    assert_eq!(said(&content(7), 6, true), []);
    // Both stores were covered.
    assert_eq!(said(&content(4), 6, false), [Kind::Data]);
    assert_eq!(said(&content(3), 6, false), [Kind::Data; 3]);
    assert_eq!(said(&content(3), 7, false), [Kind::Data; 3]);
}

#[test]
fn what_was_never_there_is_not() {
    let mut old = content(3);
    old[5 * PAGE..5 * PAGE + 64].fill(0xee);
    assert_eq!(said(&old, 3, false), [Kind::Data]);
    // A hole where data was.
    old[5 * PAGE..5 * PAGE + 64].fill(0);
    assert_eq!(said(&old, 4, true), [Kind::Data]);
    // What will be stored only later.
    assert_eq!(said(&content(4), 3, false), [Kind::Data; 2]);
}

#[test]
fn what_was_synced_has_its_name_and_size() {
    let short = content(3)[..7 * PAGE].to_vec();
    assert_eq!(said(&short, 3, false), [Kind::Size]);
    // Before the fsync it may have any of the sizes that it had.
    assert_eq!(said(&[], 2, false), []);
    let nothing = BTreeMap::new();
    let found = |finished| Synced::new(&msync()).check(&nothing, finished, false);
    assert_eq!(found(2), []);
    assert_eq!(found(3).len(), 1);
    assert_eq!(found(3)[0].kind, Kind::Missing);
}
