// SPDX-License-Identifier: GPL-2.0

//! Builds the mutated tree, and finds the mutations that do not compile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::mutation::{Kind, Mutation};
use crate::tree::Tree;

/// Mistakes make what is denied elsewhere, such as constants that overflow. (Not `allow`: cargo
/// reads the warnings when it asks what the compiler can do.)
const FLAGS: &str = "--cap-lints=warn";
/// Where cargo builds the tree, within the toolchain root: not among what is built of the checkout,
/// since the programs have the same names.
const TARGET: &str = "\"$CARGO_TARGET_DIR/mutants\"";

/// What the compiler says, as JSON.
#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    message: String,
    #[serde(default)]
    spans: Vec<Span>,
    #[serde(default)]
    children: Vec<Diagnostic>,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    byte_start: usize,
    byte_end: usize,
    is_primary: bool,
}

/// Runs `script` with bash in the toolchain root. Returns what it said, and whether it succeeded.
fn in_root(top: &Path, script: &str) -> Result<(String, String, bool)> {
    let output = Command::new(top.join("scripts/in-root"))
        .args(["bash", "-c", script])
        .current_dir(top)
        .stdin(Stdio::null())
        .output()
        .context("scripts/in-root")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((
        text(&output.stdout),
        text(&output.stderr),
        output.status.success(),
    ))
}

/// `path` for the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// Cargo's `command` in the tools of the tree.
fn cargo(dir: &Path, command: &str) -> String {
    format!(
        "cd {} && export CARGO_TARGET_DIR={TARGET} && \
         export RUSTFLAGS='-C target-feature=+crt-static {FLAGS}' && \
         cargo {command} --message-format=json",
        quoted(&dir.join("tools")),
    )
}

/// The names of the packages in `dirs`.
fn packages(dirs: &[PathBuf]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Manifest {
        package: Package,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
    }
    dirs.iter()
        .map(|dir| {
            let text = std::fs::read_to_string(dir.join("Cargo.toml"))?;
            Ok(toml::from_str::<Manifest>(&text)?.package.name)
        })
        .collect()
}

fn package_arguments(names: &[String]) -> String {
    names.iter().flat_map(|name| [" -p ", name]).collect()
}

/// The diagnostics in the lines of `text`, cargo's or the compiler's own.
fn diagnostics(text: &str) -> Vec<Diagnostic> {
    let parse = |line: &str| {
        let mut value: Value = serde_json::from_str(line).ok()?;
        let value = match value.get_mut("message") {
            Some(inner) if inner.is_object() => inner.take(),
            _ => value,
        };
        serde_json::from_value(value).ok()
    };
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines.filter_map(parse).collect()
}

/// The mutations that `span` points at: the innermost around it, else those in it.
fn at(places: &BTreeMap<u32, Range<usize>>, span: &Range<usize>) -> Vec<u32> {
    let around = places
        .iter()
        .filter(|(_, place)| place.start <= span.start && span.end <= place.end)
        .min_by_key(|(_, place)| place.len());
    if let Some((id, _)) = around {
        return vec![*id];
    }
    let within = |place: &Range<usize>| span.start < place.end && place.start < span.end;
    let within = places.iter().filter(|(_, place)| within(place));
    within.map(|(id, _)| *id).collect()
}

/// The mutations that may have made an error at `span` of the file `name`, which is in no mutation
/// itself: those of the function that change the type of something, or where control goes.
fn around(tree: &Tree, name: &str, span: &Range<usize>) -> BTreeSet<u32> {
    let places = tree.places.get(name).into_iter().flatten();
    let distance = |place: &Range<usize>| place.start.abs_diff(span.start);
    let nearest = places.min_by_key(|(_, place)| distance(place));
    let nearest = nearest.and_then(|(id, _)| tree.mutations.get(id));
    let suspect = |mutation: &&Mutation| {
        let leaves = ["return", "break", "continue"];
        let leaves = leaves
            .iter()
            .any(|word| mutation.original.starts_with(word));
        matches!(mutation.kind, Kind::Forgiven | Kind::Guard)
            || (mutation.kind == Kind::Dropped && leaves)
    };
    let of_function = |mutation: &&Mutation| {
        nearest.is_some_and(|n| n.file == mutation.file && n.function == mutation.function)
    };
    let all = tree.mutations.values().filter(of_function).filter(suspect);
    all.map(|mutation| mutation.id).collect()
}

/// The mutations to be left out for `error`.
fn blamed(tree: &Tree, error: &Diagnostic) -> BTreeSet<u32> {
    let all = |primary: bool, find: &dyn Fn(&str, &Range<usize>) -> BTreeSet<u32>| {
        let mut found = BTreeSet::new();
        let spans = error.spans.iter();
        for span in spans.chain(error.children.iter().flat_map(|child| &child.spans)) {
            if span.is_primary != primary {
                continue;
            }
            let file = tree.places.keys().find(|name| {
                let name = format!("/{name}");
                format!("/{}", span.file_name).ends_with(&name)
            });
            if let Some(name) = file {
                found.extend(find(name, &(span.byte_start..span.byte_end)));
            }
        }
        found
    };
    let within = |name: &str, span: &Range<usize>| {
        let places = tree.places.get(name);
        places
            .map(|places| at(places, span).into_iter().collect())
            .unwrap_or_default()
    };
    let near = |name: &str, span: &Range<usize>| around(tree, name, span);
    let mut blamed = all(true, &within);
    if blamed.is_empty() {
        blamed = all(false, &within);
    }
    if blamed.is_empty() {
        blamed = all(true, &near);
    }
    blamed
}

/// What a build came to.
pub enum Outcome {
    Built,
    /// These do not compile.
    Wrong(BTreeSet<u32>),
}

fn judge(tree: &Tree, said: &str, rest: &str, success: bool) -> Result<Outcome> {
    if success {
        return Ok(Outcome::Built);
    }
    let mut wrong = BTreeSet::new();
    let mut unexplained = Vec::new();
    let all = diagnostics(said).into_iter().chain(diagnostics(rest));
    for error in all.filter(|d| d.level == "error") {
        let blamed = blamed(tree, &error);
        if blamed.is_empty() {
            unexplained.push(error.message);
        }
        wrong.extend(blamed);
    }
    if wrong.is_empty() {
        let lines = rest.lines().filter(|line| !line.starts_with('{')).take(40);
        bail!(
            "the mutated tree does not build, and no mutation is to blame: {}\n{}",
            unexplained.join("; "),
            lines.collect::<Vec<_>>().join("\n")
        );
    }
    Ok(Outcome::Wrong(wrong))
}

/// Whether the tree compiles on the host.
pub fn check_host(top: &Path, tree: &Tree) -> Result<Outcome> {
    let names = packages(&tree.crates)?;
    let command = format!("check --quiet --lib{}", package_arguments(&names));
    let (out, err, success) = in_root(top, &cargo(&tree.dir, &command))?;
    judge(tree, &out, &err, success)
}

/// Builds the test programs of the tree on the host: those of the `packages`, or the `programs`
/// among them alone. Returns what cargo says of them.
///
/// What runs for a moment, and has all mutations in it, is optimised less than the tests are
/// elsewhere.
pub fn build_host(
    top: &Path,
    dir: &Path,
    packages: &[String],
    programs: &[String],
) -> Result<String> {
    let mut command = format!("test --no-run{}", package_arguments(packages));
    for program in programs {
        command += &format!(" --test {program}");
    }
    for package in packages {
        let profile = format!("profile.test.package.{package}");
        command += &format!(" --config {profile}.opt-level=1 --config {profile}.debug=false");
    }
    let (out, err, success) = in_root(top, &cargo(dir, &command))?;
    ensure!(success, "cargo test --no-run: {err}");
    Ok(out)
}

/// Builds the module of the tree, with `module` beside it as the place for what is built.
pub fn build_kernel(top: &Path, tree: &Tree, module: &Path) -> Result<Outcome> {
    let kernel = Command::new(top.join("scripts/kernel"))
        .stderr(Stdio::inherit())
        .output()
        .context("scripts/kernel")?;
    ensure!(kernel.status.success(), "scripts/kernel failed");
    let kernel = PathBuf::from(String::from_utf8_lossy(&kernel.stdout).trim_end()).join("tree");
    let kernel = quoted(&kernel);
    std::fs::create_dir_all(module)?;
    let script = format!(
        "args=$(scripts/check-tree {kernel}) && \
         make -s -j\"$(nproc)\" -C {kernel} M={} MO={} $args \
         KRUSTFLAGS='{FLAGS} --error-format=json' modules",
        quoted(&tree.dir),
        quoted(module),
    );
    let (out, err, success) = in_root(top, &script)?;
    judge(tree, &out, &err, success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_is_blamed() {
        let places = BTreeMap::from([(1, 0..100), (2, 10..40), (3, 50..60)]);
        assert_eq!(at(&places, &(12..20)), [2]);
        assert_eq!(at(&places, &(45..60)), [1]);
        assert_eq!(at(&BTreeMap::from([(3, 50..60)]), &(40..70)), [3]);
    }
}
