// SPDX-License-Identifier: GPL-2.0

//! The report, with a program in the place of qemu/vm.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use assert_cmd::assert::Assert;
use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_match};
use tempfile::TempDir;

/// A directory for the results and, beside it, a program that is called as qemu/vm is and does
/// `script`, in which `$fs` is the file system and `$out` the file for its results.
struct Scene {
    root: TempDir,
}

impl Scene {
    fn new(script: &str) -> Scene {
        let root = tempfile::tempdir().unwrap();
        let vm = root.path().join("vm");
        let parse = r#"#!/bin/sh
echo "$*" >>"$(dirname "$0")/calls"
while [ $# -gt 0 ]; do
	case $1 in --fs) fs=$2 ;; --share) share=$2 ;; esac
	for last; do :; done
	shift
done
out=$share/${last##*/}
row() { printf '{"operation": "%s", "cost": %s, "faults": 0, "lines_flushed": 64,
	"journal_lines": 0, "fences": 1}' "$1" "$2"; }
all() { comma=; while read -r name; do printf "$comma"; row "$name" $1; comma=,
	done <"$(dirname "$0")/operations"; }
results() { printf '{"file_system": "%s", "large_mib": 7, "names": 3, "rows": [%s]}' "$@"; }
"#;
        fs::write(&vm, format!("{parse}{script}\n")).unwrap();
        let aims: toml::Table = include_str!("../aims.toml").parse().unwrap();
        let names = aims["aim"].as_array().unwrap().iter();
        let names = names.flat_map(|aim| [Some(&aim["operation"]), aim.get("of")]);
        let names = names
            .flatten()
            .map(|name| format!("{}\n", name.as_str().unwrap()));
        fs::write(root.path().join("operations"), names.collect::<String>()).unwrap();
        fs::set_permissions(&vm, fs::Permissions::from_mode(0o755)).unwrap();
        Scene { root }
    }

    fn out(&self) -> PathBuf {
        self.root.path().join("out")
    }

    fn report(&self, args: &[&str]) -> Assert {
        let mut command = Command::cargo_bin("rdax-bench-report").unwrap();
        command.arg("--vm").arg(self.root.path().join("vm"));
        command.arg("--out").arg(self.out()).args(args).assert()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.root.path().join("calls")).unwrap_or_default()
    }
}

const GOOD: &str = r#"
echo "measured: creat" >&2
[ $fs = rdax ] && cost=6894 || cost=50000
results $fs "$(all $cost)" >"$out""#;

#[test]
fn all_is_measured() {
    let scene = Scene::new(GOOD);
    // The aim of creat has 8 lines, and the rows here have 64.
    let row = r"creat +6,894 +50,000 +50,000 +50,000 +50,000 +13,788 +missed -50%, 64 lines +0.00";
    scene
        .report(&["--large", "7", "--names", "3"])
        .success()
        .stdout(is_match(row).unwrap())
        .stdout(contains("Large file: 7 MiB; large directory: 3 names."))
        .stderr(contains("[2/4] ext4: 1 operations in"));
    let json = fs::read(scene.out().join("bench.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let creat = json["table"].as_array().unwrap().iter();
    let creat = creat
        .clone()
        .find(|line| line["operation"] == "creat")
        .unwrap();
    assert_eq!(creat["instructions"]["rdax"], 6894.0);
    assert_eq!(creat["verdict"]["reached"], false);
    assert_eq!(json["measured"].as_array().unwrap().len(), 4);
    let svg = fs::read_to_string(scene.out().join("bench.svg")).unwrap();
    assert!(svg.contains("</svg>"));
    let calls = scene.calls();
    assert_eq!(calls.lines().count(), 4);
    let xfs = calls
        .lines()
        .find(|call| call.contains("--fs xfs"))
        .unwrap();
    assert!(xfs.contains("-m reflink=0"), "{xfs}");
    assert!(calls
        .lines()
        .all(|call| call.contains("--icount") && call.contains("--large 7")));
}

#[test]
fn some_file_systems_only() {
    let scene = Scene::new(GOOD);
    let assert = scene.report(&["--fs", "xfs rdax"]).success();
    assert.stdout(is_match(r"operation +rdax +xfs +best").unwrap());
    assert_eq!(scene.calls().lines().count(), 2);
    scene
        .report(&["--fs", "xfs,btrfs"])
        .code(2)
        .stderr(contains("btrfs is not one of rdax, ext4, xfs, tmpfs"));
}

#[test]
fn a_vm_that_fails() {
    let scene = Scene::new(&format!(
        "[ $fs != ext4 ] || {{ echo trouble >&2; exit 99; }}\n{GOOD}"
    ));
    // Its results of an earlier run are not taken.
    fs::create_dir(scene.out()).unwrap();
    fs::write(scene.out().join("ext4.json"), "{}").unwrap();
    let message = "rdax-bench-report: ext4: ";
    scene
        .report(&[])
        .code(1)
        .stderr(
            contains("trouble")
                .and(contains(message))
                .and(contains("exit status: 99")),
        )
        .stdout(is_match(r"operation +rdax +xfs +tmpfs +best").unwrap());
    assert!(!scene.out().join("ext4.json").exists());
    let scene = Scene::new("exit 125");
    let assert = scene.report(&["--fs", "xfs"]).code(1);
    assert.stderr(contains("rdax-bench-report: nothing was measured"));
}

#[test]
fn results_that_are_not_what_was_asked_for() {
    for (script, message) in [
        (r#"results tmpfs "" >"$out""#, "what was measured is tmpfs"),
        (r#"echo '{' >"$out""#, "xfs.json: EOF"),
        (":", "xfs.json: No such file"),
    ] {
        let scene = Scene::new(script);
        scene
            .report(&["--fs", "xfs"])
            .code(1)
            .stderr(contains(message));
    }
}

#[test]
fn a_row_that_is_missing_is_said() {
    let less = r#"[ $fs != xfs ] || results $fs "$(row creat 5)" >"$out""#;
    let scene = Scene::new(&format!("{GOOD}\n{less}"));
    scene
        .report(&["--fs", "rdax xfs"])
        .code(1)
        .stdout(is_match("(?m)^Not measured everywhere: .*stat").unwrap());
}

/// On rdax, torn files are three times as expensive, and links become more expensive with their
/// number.
const TORN: &str = r#"
cost() { printf '{"workload": "%s", "few": %s, "many": %s, "error": null}' "$@"; }
while read -r workload; do
	few=100 many=101
	case $fs/$workload in
	rdax/*/torn/*) few=300 many=303 ;;
	rdax/name/link/*) few=10 many=80 ;;
	esac
	printf "$comma"
	cost $workload $few $many
	comma=,
done <"$share/survey.txt" >"$out.part"
{ printf '['; cat "$out.part"; printf ']'; } >"$out""#;

#[test]
fn a_survey_finds_what_is_dear_and_makes_it_simple() {
    let scene = Scene::new(TORN);
    let survey = |args: &[&str]| scene.report(&[&["--fs", "rdax ext4"], args].concat());
    survey(&["--survey", "200", "--seed", "5"])
        .success()
        .stdout(contains("file/torn/call/write/up/4k/never/one (ext4)\n"))
        .stdout(contains("name/link/none/order/never (ext4)\n"))
        .stdout(is_match(r" 3\.00 +303 +101 +1\.01 +1\.01  file/torn/").unwrap())
        .stdout(is_match(r" 0\.79 +80 +101 +8\.00 +1\.01  name/link/").unwrap())
        .stdout(contains("200 workloads measured (seed 5)"))
        .stdout(contains("file/hole").not());
    let json = fs::read(scene.out().join("survey.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 200);

    // Those that are named are printed as they are.
    let named = "file/hole/call/read/down/8/never/one";
    let dear = "file/torn/call/read/down/8/never/one";
    survey(&["--survey", &format!("{named},{dear}")])
        .success()
        .stdout(contains(named).and(contains(dear)))
        .stdout(contains("2 workloads measured, 1 of them dearer on rdax"));
    survey(&["--survey", "file/hole"])
        .code(2)
        .stderr(contains("is not one of call"));
    scene
        .report(&["--fs", "ext4 xfs", "--survey", "3"])
        .code(1)
        .stderr(contains("a survey compares rdax with ext4 or xfs"));
}
