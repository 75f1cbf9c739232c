// SPDX-License-Identifier: GPL-2.0

//! The oracle itself: what it finds, and what it allows.

use std::sync::Arc;

use rdax_crash_ops::{recover, Kind, Op, Oracle, Rename, Workload};
use rdax_volume::sim::Sim;
use rdax_volume::volume::alloc::Want;
use rdax_volume::volume::Volume;

use crate::host::{empty, Host};

const CREAT: Op = Op::Creat { path: "foo" };
const MKDIR: Op = Op::Mkdir { path: "A" };

const fn write(at: u64, len: u64) -> Op {
    Op::Write {
        path: "foo",
        at,
        len,
    }
}

const fn store(at: u64, len: u64) -> Op {
    Op::Store {
        path: "foo",
        at,
        len,
    }
}

const fn msync(at: u64, len: u64) -> Op {
    Op::Msync {
        path: "foo",
        at,
        len,
    }
}

/// The volume after `done`, operations with their numbers.
fn volume(done: &[(usize, Op)]) -> Volume<Arc<Sim>> {
    let host = Host::new(empty());
    for (number, op) in done {
        host.perform(*number, op).expect("is possible");
    }
    recover(host.sim.clone()).expect("recovers")
}

/// What the oracle for `planned` says after `done`, the first `finished` having returned.
fn kinds(planned: &[Op], done: &[(usize, Op)], finished: usize) -> Vec<Kind> {
    let workload = Workload {
        name: "test".to_owned(),
        seed: 0,
        ops: planned.to_vec(),
        setup: 0,
    };
    let in_flight = finished < planned.len();
    let found = Oracle::new(&workload).check(&volume(done), finished, in_flight);
    found.iter().map(|violation| violation.kind).collect()
}

/// What it says if all of `planned` had returned, and `done` is what has happened.
fn after_all(planned: &[Op], done: &[Op]) -> Vec<Kind> {
    let done: Vec<(usize, Op)> = done.iter().copied().enumerate().collect();
    kinds(planned, &done, planned.len())
}

#[test]
fn names() {
    let link = Op::Link {
        from: "foo",
        to: "bar",
    };
    let bar = Op::Creat { path: "bar" };
    let rename = Op::Rename {
        from: "foo",
        to: "bar",
        how: Rename::Plain,
    };
    assert_eq!(after_all(&[CREAT, link], &[CREAT, link]), []);
    assert_eq!(after_all(&[CREAT, link], &[CREAT, bar]), [Kind::Links]);
    assert_eq!(after_all(&[CREAT, bar], &[CREAT, link]), [Kind::Links]);
    assert_eq!(after_all(&[CREAT, bar], &[CREAT]), [Kind::Missing]);
    assert_eq!(after_all(&[CREAT], &[CREAT, bar]), [Kind::Unexpected]);
    // Half of a rename.
    let both = [Kind::Unexpected];
    assert_eq!(kinds(&[CREAT, rename], &[(0, CREAT), (1, link)], 1), both);
    // One that has happened, and one that has not.
    assert_eq!(kinds(&[CREAT, rename], &[(0, CREAT), (1, rename)], 1), []);
    assert_eq!(kinds(&[CREAT, rename], &[(0, CREAT)], 1), []);
    let undone = kinds(&[CREAT, rename], &[(0, CREAT)], 2);
    assert_eq!(undone, [Kind::Unexpected, Kind::Missing]);
}

#[test]
fn attributes() {
    let chmod = Op::Chmod {
        path: "foo",
        mode: 0o600,
    };
    let utimes = Op::Utimes {
        path: "foo",
        mtime: 77,
    };
    let fifo = Op::Mkfifo { path: "foo" };
    let long = Op::Symlink {
        path: "foo",
        len: 500,
    };
    let short = Op::Symlink {
        path: "foo",
        len: 50,
    };
    for (planned, done) in [
        (&[CREAT, chmod][..], &[CREAT][..]),
        (&[CREAT, utimes], &[CREAT]),
        (&[long], &[short]),
        (&[MKDIR], &[Op::Mkfifo { path: "A" }]),
    ] {
        let found = after_all(planned, done);
        assert!(!found.is_empty() && found.iter().all(|kind| *kind == Kind::Attributes));
    }
    assert!(after_all(&[CREAT], &[fifo]).contains(&Kind::Attributes));
    assert_eq!(
        after_all(&[CREAT, utimes, chmod], &[CREAT, utimes, chmod]),
        []
    );
}

#[test]
fn space() {
    let allocate = Op::Fallocate {
        path: "foo",
        at: 0,
        len: 10000,
        keep_size: true,
    };
    assert_eq!(after_all(&[CREAT, allocate], &[CREAT, allocate]), []);
    assert_eq!(after_all(&[CREAT], &[CREAT, allocate]), [Kind::Beyond]);
    // Whether it has begun cannot be told.
    assert_eq!(
        kinds(&[CREAT, allocate], &[(0, CREAT), (1, allocate)], 1),
        []
    );

    let volume = volume(&[(0, CREAT)]);
    let workload = Workload {
        name: "test".to_owned(),
        seed: 0,
        ops: vec![CREAT],
        setup: 0,
    };
    let lost = volume.reserve(Want::blocks(1)).expect("has space");
    let found = Oracle::new(&workload).check(&volume, 1, false);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, Kind::Space);
    drop(lost);
    assert_eq!(Oracle::new(&workload).check(&volume, 1, false), []);
}

#[test]
fn a_write_in_part() {
    let filled = [(0, CREAT), (1, write(0, 8192))];
    let planned = [CREAT, write(0, 8192), write(100, 5000)];
    // A part, under way; and then not.
    let part = [filled[0], filled[1], (2, write(300, 1001))];
    assert_eq!(kinds(&planned, &part, 2), []);
    assert_eq!(kinds(&planned, &part, 3), [Kind::Data, Kind::Data]);
    // More than it writes, and something else.
    let more = [filled[0], filled[1], (2, write(0, 5100))];
    assert_eq!(kinds(&planned, &more, 2), [Kind::Data]);
    let other = [filled[0], filled[1], (7, write(300, 1001))];
    assert_eq!(kinds(&planned, &other, 2), [Kind::Data]);
    // A file grows by blocks, over what was written.
    let planned = [CREAT, write(0, 9000)];
    assert_eq!(kinds(&planned, &[(0, CREAT), (1, write(0, 4096))], 1), []);
    let torn = kinds(&planned, &[(0, CREAT), (1, write(0, 5000))], 1);
    assert_eq!(torn, [Kind::Size]);
    let hole = kinds(&planned, &[(0, CREAT), (1, write(4096, 4096))], 1);
    assert_eq!(hole, [Kind::Data]);
}

#[test]
fn a_hole_in_part() {
    let punch = Op::Punch {
        path: "foo",
        at: 1000,
        len: 9000,
    };
    let zero = |at, len| Op::Zero {
        path: "foo",
        at,
        len,
    };
    let planned = [CREAT, write(0, 12288), punch];
    let done = |op| [(0, CREAT), (1, write(0, 12288)), (2, op)];
    assert_eq!(kinds(&planned, &done(zero(1000, 500)), 2), []);
    assert_eq!(kinds(&planned, &done(zero(4096, 4096)), 2), []);
    // A block is a hole, or is not.
    assert_eq!(kinds(&planned, &done(zero(4096, 500)), 2), [Kind::Data]);
    assert_eq!(kinds(&planned, &done(zero(900, 500)), 2), [Kind::Data]);
}

#[test]
fn stores_to_a_mapping() {
    let filled = [(0, CREAT), (1, write(0, 8192))];
    let planned = [
        CREAT,
        write(0, 8192),
        store(64, 64),
        msync(0, 4096),
        store(128, 16),
    ];
    let with = |op| [filled[0], filled[1], (2, op)];
    // Any prefix of the stores to a line, as long as no sync has covered it.
    for finished in [2, 3] {
        assert_eq!(kinds(&planned, &filled, finished), []);
        assert_eq!(kinds(&planned, &with(write(64, 16)), finished), []);
        assert_eq!(kinds(&planned, &with(write(64, 64)), finished), []);
        assert_eq!(kinds(&planned, &with(write(72, 8)), finished), [Kind::Data]);
    }
    assert_eq!(kinds(&planned, &filled, 4), [Kind::Data]);
    assert_eq!(kinds(&planned, &with(write(64, 64)), 4), []);
    assert_eq!(kinds(&planned, &with(write(64, 64)), 5), []);
    // A sync of another page does nothing for it.
    let planned = [CREAT, write(0, 8192), store(64, 64), msync(4096, 4096)];
    assert_eq!(kinds(&planned, &filled, 4), []);
}
