// SPDX-License-Identifier: GPL-2.0

//! The measuring program, on the host's own file system: the costs mean nothing there, but the rows
//! have to be there, and nothing may be left behind.

use std::collections::HashSet;
use std::fs;

use assert_cmd::Command;
use predicates::str::contains;
use rdax_bench::workload::Cost;
use rdax_bench::{Results, MEASURED};
use serde::Deserialize;

#[derive(Deserialize)]
struct Aims {
    aim: Vec<Aim>,
}

#[derive(Deserialize)]
struct Aim {
    operation: String,
    of: Option<String>,
}

#[test]
fn every_aim_is_measured_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("results");
    let output = Command::cargo_bin("rdax-bench")
        .unwrap()
        .args(["--large", "16", "--names", "2000", "--progress", "--dir"])
        .arg(dir.path())
        .arg("--json")
        .arg(&json)
        .assert()
        .success()
        .get_output()
        .clone();
    let results: Results = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!((results.large_mib, results.names), (16, 2000));
    assert!(!results.file_system.is_empty());
    let rows = &results.rows;
    assert!(rows.iter().all(|row| row.cost > 0.0 && row.faults >= 0.0));
    let names: HashSet<&str> = rows.iter().map(|row| row.operation.as_str()).collect();
    assert_eq!(names.len(), rows.len(), "an operation twice");

    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    for name in &names {
        assert!(stdout.contains(name), "{name} is not in the table");
        assert!(stderr.contains(&format!("{MEASURED}{name}\n")), "{name}");
    }
    // SQLite's rows need its program.
    let sqlite = !stderr.contains("there is no sqlite3 here");
    let aims: Aims = toml::from_str(include_str!("../aims.toml")).unwrap();
    let wanted = aims
        .aim
        .iter()
        .flat_map(|aim| [Some(&aim.operation), aim.of.as_ref()]);
    for name in wanted.flatten() {
        // Those of mounts need --remount, and a mount point.
        let left_out = name.starts_with("SQLite") && !sqlite || name.starts_with("mount, ");
        assert!(left_out || names.contains(name.as_str()), "no row {name}");
    }
    fs::remove_file(&json).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_failure_is_one_line() {
    let none = tempfile::tempdir().unwrap().path().join("none");
    let mut command = Command::cargo_bin("rdax-bench").unwrap();
    let assert = command.arg("--dir").arg(&none).assert().code(1);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("/none: No such file"), "{stderr}");
    let mut command = Command::cargo_bin("rdax-bench").unwrap();
    let assert = command.args(["--dir", ".", "--remount"]).assert().code(1);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(stderr.contains("is not a mount point"), "{stderr}");
    let mut command = Command::cargo_bin("rdax-bench").unwrap();
    let assert = command.args(["--dir", ".", "--large", "0"]).assert();
    assert.code(2).stderr(contains("--large"));
}

#[test]
fn workloads_of_a_survey_are_measured_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (list, json) = (dir.path().join("list"), dir.path().join("results"));
    // One for each history, reach and deed; without syncs, which take long on disks.
    let workloads = [
        "file/written/call/read/random/100/never/one",
        "file/hole/shared/write/streams/4k/never/one",
        "file/reserved/call/punch/down/4k/never/many",
        "file/stored/small/update/stride/8/never/one",
        "file/pieces/private/write/near/100/never/many",
        "file/scattered/anew/read/up/8/never/one",
        "file/torn/read/write/same/8/never/one",
        "file/empty/call/write/end/100/never/one",
        "file/pieces/call/seek/up/4k/never/one",
        "file/written/call/cut/random/4k/never/one",
        "name/create/none/order/never",
        "name/replace/many/random/never",
        "name/list/many/order/never",
        "name/miss/none/random/never",
        "name/rmdir/none/random/never",
    ];
    fs::write(&list, workloads.join("\n")).unwrap();
    let program = || {
        let mut program = Command::cargo_bin("rdax-bench").unwrap();
        program
            .arg("--dir")
            .arg(dir.path())
            .arg("--survey")
            .arg(&list);
        program
    };
    program().arg("--json").arg(&json).assert().success();
    let costs: Vec<Cost> = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let measured = costs.iter().map(|cost| cost.workload.as_str());
    assert!(measured.eq(workloads));
    for cost in &costs {
        assert_eq!(cost.error, None, "{}", cost.workload);
        assert!(cost.few > 0.0 && cost.many > 0.0, "{}", cost.workload);
    }
    assert!(!dir.path().join("rdax-bench").exists());

    fs::write(&list, "file/hole\n").unwrap();
    let refused = program().assert().failure();
    refused.stderr(contains("list: \"\" is not one of call, shared"));
}
