// SPDX-License-Identifier: GPL-2.0

//! The completions and the man pages name the options that the programs have.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command as Process;

use clap::{Arg, Command};
use clap_complete::Shell;
use rdax_completions::{completions, programs, SHELLS};

/// Some options, so that the tests below do not look for nothing.
const SOME: [(&str, &[&str]); 3] = [
    ("mkfs.rdax", &["--dry-run", "--label", "--help", "-L"]),
    ("fsck.rdax", &["--help", "-a", "-p", "-C"]),
    ("rdax-dump", &["--json", "--system", "--version", "-V"]),
];

/// The options of `program` and of its subcommands, as they are written on a command line.
fn options(program: &Command) -> BTreeSet<String> {
    fn add(command: &Command, options: &mut BTreeSet<String>) {
        let long = |arg: &Arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            let names = arg.get_long().into_iter().chain(aliases);
            names.map(|name| format!("--{name}")).collect::<Vec<_>>()
        };
        let short = |arg: &Arg| {
            let aliases = arg.get_all_short_aliases().unwrap_or_default();
            let names = arg.get_short().into_iter().chain(aliases);
            names.map(|name| format!("-{name}")).collect::<Vec<_>>()
        };
        options.extend(command.get_arguments().flat_map(long));
        options.extend(command.get_arguments().flat_map(short));
        for command in command.get_subcommands() {
            add(command, options);
        }
    }
    let mut program = program.clone();
    program.build();
    let mut found = BTreeSet::new();
    add(&program, &mut found);
    found
}

#[test]
fn options_are_found() {
    for (program, (name, some)) in programs().iter().zip(SOME) {
        assert_eq!(program.get_name(), name);
        let options = options(program);
        for option in some {
            assert!(options.contains(*option), "{name} {option}");
        }
    }
}

#[test]
fn completions_have_every_long_option() {
    for program in programs() {
        for shell in SHELLS {
            let text = completions(shell, program.clone()).unwrap();
            let words: Vec<_> = text
                .split(|c: char| !c.is_alphanumeric() && c != '-')
                .collect();
            for option in options(&program) {
                let Some(long) = option.strip_prefix("--") else {
                    continue;
                };
                let found = match shell {
                    Shell::Fish => words.windows(2).any(|pair| pair == ["-l", long]),
                    _ => words.contains(&option.as_str()),
                };
                assert!(found, "{shell}: {} {option}", program.get_name());
            }
        }
    }
}

/// What bash makes of the last word of `line`, by its completions of `program`.
fn completed(program: Command, line: &str) -> String {
    let function = program.get_name().replace('-', "__");
    let script = format!(
        "{}\nCOMP_WORDS=({line})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
         _{function} \"$COMP_WORDS\" \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"\n\
         echo \"${{COMPREPLY[*]}}\"",
        completions(Shell::Bash, program).unwrap(),
    );
    let output = Process::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn bash_completes() {
    let [mkfs, fsck, dump] = programs();
    assert_eq!(completed(mkfs, "mkfs.rdax --d"), "--dry-run");
    assert_eq!(completed(fsck, "fsck.rdax -f --h"), "--help");
    assert_eq!(
        completed(dump.clone(), "rdax-dump /dev/pmem0 or"),
        "orphans"
    );
    assert_eq!(
        completed(dump, "rdax-dump /dev/pmem0 inode --s"),
        "--system"
    );
}

#[test]
fn fish_looks_for_the_structure_behind_the_device() {
    let [.., dump] = programs();
    let text = completions(Shell::Fish, dump).unwrap();
    assert!(text.contains("    set -e argv[1]\n    if set -q argv[1]\n"));
}

/// The options that a man page names. Hyphens of options are escaped there, others are not.
fn named(page: &str) -> BTreeSet<String> {
    // How fsck(8) and mkfs(8) call the program.
    let text = page.replace(r"\-t rdax", "").replace(r"\-", "\0");
    text.split(|c: char| !c.is_alphanumeric() && c != '\0')
        .filter(|word| word.starts_with('\0') && word.len() > 1)
        .map(|word| word.replace('\0', "-"))
        .collect()
}

#[test]
fn man_pages_name_the_options_that_there_are() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Documentation/man");
    for program in programs() {
        let page = pages.join(format!("{}.8", program.get_name()));
        let text = fs::read_to_string(&page).unwrap();
        assert_eq!(named(&text), options(&program), "{}", page.display());
    }
}
