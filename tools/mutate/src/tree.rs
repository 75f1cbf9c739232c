// SPDX-License-Identifier: GPL-2.0

//! The mutated tree: a copy of the checkout in which src/ has the switches.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::edit::Edited;
use crate::find::find;
use crate::mutation::Mutation;

/// What of the checkout the tree has.
const COPIED: [&str; 4] = ["Kbuild", "src", "tests", "tools"];
/// What of `src/` is no code of a room, or belongs to the generated ones.
const NO_ROOMS: [&str; 1] = ["bindings"];

const HOST: &str = include_str!("../runtime/host.rs");
const KERNEL: &str = include_str!("../runtime/kernel.rs");
const PARAMETERS: &str = include_str!("../runtime/kernel.c");
const OPERATIONS: &str = include_str!("../runtime/operations.rs");
/// The object file of [`PARAMETERS`].
const OBJECT: &str = "src/switch_parameters";

/// The mutated tree, in a directory of its own.
pub struct Tree {
    pub dir: PathBuf,
    /// Mutations that are in it, by number.
    pub mutations: BTreeMap<u32, Mutation>,
    /// Where they are, by the name of the file.
    pub places: BTreeMap<String, BTreeMap<u32, Range<usize>>>,
    /// The directories of the crates on the host that compile something of `src/`.
    pub crates: Vec<PathBuf>,
}

/// Writes `text` to `path` unless it is there: what has not changed is not built anew.
fn write(path: &Path, text: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// The files below `path`, which lies in `top`, by their names there.
fn files(top: &Path, path: &Path, list: &mut BTreeSet<String>) -> Result<()> {
    let whole = top.join(path);
    if whole.is_file() {
        list.insert(path.to_string_lossy().into_owned());
        return Ok(());
    }
    let mut entries = fs::read_dir(&whole)
        .with_context(|| whole.display().to_string())?
        .collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        if entry.file_name() != "target" {
            files(top, &path.join(entry.file_name()), list)?;
        }
    }
    Ok(())
}

/// Whether `file` is code in which mistakes are made.
fn is_room(file: &str) -> bool {
    let mut parts = file.split('/');
    let (src, room, more) = (parts.next(), parts.next(), parts.next());
    src == Some("src")
        && more.is_some()
        && file.ends_with(".rs")
        && !room.is_some_and(|room| NO_ROOMS.contains(&room))
}

/// The file of a crate on the host that compiles something of `src/`, as its own.
fn takes_src(file: &str, text: &str) -> bool {
    let path =
        |line: &str| line.trim_start().starts_with("#[path = \"../") && line.contains("/src/");
    file.starts_with("tools/") && file.ends_with(".rs") && text.lines().any(path)
}

impl Tree {
    /// Makes the tree of the checkout `top` in `dir`, with the mutations that `wanted` names.
    pub fn make(top: &Path, dir: &Path, wanted: &dyn Fn(&Mutation) -> bool) -> Result<Self> {
        let mut names = BTreeSet::new();
        for name in COPIED {
            files(top, Path::new(name), &mut names)?;
        }
        let mut tree = Tree {
            dir: dir.to_owned(),
            mutations: BTreeMap::new(),
            places: BTreeMap::new(),
            crates: Vec::new(),
        };
        let mut next = 1;
        let mut roots = Vec::new();
        for name in &names {
            let bytes = fs::read(top.join(name)).with_context(|| name.clone())?;
            let Ok(text) = std::str::from_utf8(&bytes) else {
                write(&dir.join(name), &bytes)?;
                continue;
            };
            if is_room(name) {
                let edited = tree.mutate(name, text, &mut next, wanted)?;
                write(&dir.join(name), edited.text.as_bytes())?;
                tree.places.insert(name.clone(), edited.places);
            } else if name == "src/rdax.rs" || takes_src(name, text) {
                roots.push((name, text.to_owned()));
            } else if name == "Kbuild" {
                let more = format!("{text}\nrdax-y += {OBJECT}.o\n");
                write(&dir.join(name), more.as_bytes())?;
            } else {
                write(&dir.join(name), &bytes)?;
            }
        }
        ensure!(
            next > 1,
            "{} has no code to mutate",
            top.join("src").display()
        );
        for (name, text) in roots {
            if let Some(package) = Path::new(name).parent().and_then(Path::parent) {
                if name.starts_with("tools/") {
                    tree.crates.push(dir.join(package));
                }
            }
            tree.add_runtime(name, &text, next)?;
        }
        write(&dir.join(OBJECT).with_extension("c"), PARAMETERS.as_bytes())?;
        tree.remove_others(&names)?;
        Ok(tree)
    }

    fn mutate(
        &mut self,
        name: &str,
        text: &str,
        next: &mut u32,
        wanted: &dyn Fn(&Mutation) -> bool,
    ) -> Result<Edited> {
        let found = find(name, text, next, wanted).with_context(|| name.to_owned())?;
        for mutation in found.mutations {
            self.mutations.insert(mutation.id, mutation);
        }
        Ok(found.edits.apply(text))
    }

    /// Gives the crate whose root is `name` the module that has the switches.
    fn add_runtime(&self, name: &str, text: &str, count: u32) -> Result<()> {
        let path = self.dir.join(name);
        let module = path.with_file_name("switch.rs");
        let kind = if name.starts_with("src/") {
            KERNEL
        } else {
            HOST
        };
        let count =
            format!("\n/// Numbers of mutations, 0 among them.\nconst COUNT: usize = {count};\n");
        write(&module, (kind.to_owned() + &count + OPERATIONS).as_bytes())?;
        // After the attributes of the crate, before its first module.
        let at = text
            .find("\nmod ")
            .into_iter()
            .chain(text.find("\npub mod "))
            .chain(text.find("\n#[path"))
            .min()
            .with_context(|| format!("{name} has no modules"))?;
        let text = format!("{}\nmod switch;{}", &text[..at], &text[at..]);
        write(&path, text.as_bytes())
    }

    /// Removes what an earlier checkout had and this one has not.
    fn remove_others(&self, names: &BTreeSet<String>) -> Result<()> {
        let mut there = BTreeSet::new();
        for name in ["src", "tests", "tools"] {
            files(&self.dir, Path::new(name), &mut there)?;
        }
        for name in there.difference(names) {
            let ours = name.ends_with("/switch.rs") || name.starts_with(OBJECT);
            let source = name.ends_with(".rs") || name.ends_with(".toml");
            if source && !ours {
                fs::remove_file(self.dir.join(name))?;
            }
        }
        Ok(())
    }
}
