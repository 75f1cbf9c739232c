// SPDX-License-Identifier: GPL-2.0

//! Every name is a workload whose operations are possible, and the oracle tells an empty volume
//! from what it makes.

use std::collections::HashSet;

use rdax_crash_ops::{names, recover, workload, Kind, Oracle};
use rdax_volume::ram::Ram;
use rdax_volume::volume::format::Time;
use rdax_volume::volume::mkfs;

#[test]
fn every_name_is_a_workload() {
    let names = names();
    let unique: HashSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    for kind in ["mmap:", "data:", "random:", "ace1:", "ace2:"] {
        let count = names.iter().filter(|name| name.starts_with(kind)).count();
        println!("{kind} {count}");
        assert!(count > 3, "{kind}");
    }
    for name in &names {
        for seed in 0..10 {
            let workload = workload(name, seed).expect("a workload");
            assert!(workload.setup < workload.ops.len(), "{name}");
            // Fails if an operation cannot be.
            Oracle::new(&workload);
            if !name.starts_with("random:") {
                break;
            }
        }
    }
    assert!(workload("ace2:creat-foo,creat-foo", 0).is_none());
    assert!(workload("ace3:creat-foo,unlink-foo,creat-foo", 0).is_none());
    assert!(workload("nothing", 0).is_none());
}

#[test]
fn a_seed_makes_the_same_workload_always() {
    let make = |seed| workload("random:all", seed).expect("a workload");
    assert_eq!(make(7), make(7));
    assert_ne!(make(7).ops, make(8).ops);
}

#[test]
fn an_empty_volume_is_the_beginning_and_no_more() {
    let ram = Ram::new(8 << 20);
    let options = mkfs::Options {
        uuid: [1; 16],
        label: "",
        hash_key: [2; 16],
        now: Time::default(),
        bytes: None,
    };
    mkfs::format(&ram, &options).expect("formats");
    let volume = recover(&ram).expect("mounts");
    let workload = workload("ace1:link-foo-A.bar", 0).expect("a workload");
    println!("{workload}");
    let oracle = Oracle::new(&workload);
    assert_eq!(oracle.check(&volume, 0, false), []);
    // The first operation may not have happened yet, the second not have begun.
    assert_eq!(oracle.check(&volume, 0, true), []);
    let found = oracle.check(&volume, 1, true);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, Kind::Missing);
    assert!(!oracle.check(&volume, workload.ops.len(), false).is_empty());
}
