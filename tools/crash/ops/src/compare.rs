// SPDX-License-Identifier: GPL-2.0

//! What was seen, against a tree of the model.

use std::collections::BTreeMap;

use rdax_volume::volume::format::BLOCK;

use crate::model::{Body, File, Id, Node, Tree, LINE};
use crate::op::Op;
use crate::seen::{Content, Entry, Seen};
use crate::violation::{Kind, Violation};

/// A file that an operation under way changes in place.
pub struct Partly<'a> {
    /// Which.
    pub id: Id,
    /// What it becomes.
    pub new: &'a File,
    /// The operation, one of those that need not happen wholly.
    pub op: &'a Op,
}

/// How `seen` differs from `tree`. The file that `partly` names may be in between.
pub fn differences(seen: &Seen, tree: &Tree, partly: Option<&Partly<'_>>) -> Vec<Violation> {
    let mut found = Vec::new();
    for path in seen.keys().filter(|path| !tree.names.contains_key(*path)) {
        found.push(Violation::at(Kind::Unexpected, path, "should not be there"));
    }
    let mut links: BTreeMap<Id, (&str, u64)> = BTreeMap::new();
    let mut owners: BTreeMap<u64, (&str, Id)> = BTreeMap::new();
    for (path, id) in &tree.names {
        let Some(entry) = seen.get(path) else {
            found.push(Violation::at(Kind::Missing, path, "should be there"));
            continue;
        };
        let (first, ino) = *links.entry(*id).or_insert((path, entry.ino));
        if ino != entry.ino {
            let text = format!("should be the same file as {first}");
            found.push(Violation::at(Kind::Links, path, text));
        }
        let (first, owner) = *owners.entry(entry.ino).or_insert((path, *id));
        if owner != *id {
            let text = format!("should not be the same file as {first}");
            found.push(Violation::at(Kind::Links, path, text));
        }
        let partly = partly.filter(|partly| partly.id == *id);
        compare_node(path, entry, &tree.nodes[id], partly, &mut found);
    }
    found
}

fn compare_node(
    path: &str,
    entry: &Entry,
    node: &Node,
    partly: Option<&Partly<'_>>,
    found: &mut Vec<Violation>,
) {
    let mut attribute = |text: String| found.push(Violation::at(Kind::Attributes, path, text));
    if entry.mode != node.mode {
        attribute(format!("mode {:o}, not {:o}", entry.mode, node.mode));
    }
    if let Some(mtime) = node.mtime.filter(|t| partly.is_none() && *t != entry.mtime) {
        attribute(format!("mtime {}, not {mtime}", entry.mtime));
    }
    for (name, value) in &entry.xattrs {
        match node.xattrs.get(name.as_str()) {
            Some(right) if right == value => {}
            Some(_) => attribute(format!("another value of {name}")),
            None => attribute(format!("{name} should not be there")),
        }
    }
    let is_missing = |name: &&&str| !entry.xattrs.contains_key(**name);
    for name in node.xattrs.keys().filter(is_missing) {
        attribute(format!("{name} should be there"));
    }
    match (&entry.content, &node.body) {
        (Content::File(bytes), Body::File(file)) => {
            let may_be_beyond = file.beyond || partly.is_some_and(|p| p.new.beyond);
            if entry.beyond && !may_be_beyond {
                let text = "blocks beyond its end";
                found.push(Violation::at(Kind::Beyond, path, text));
            }
            match partly {
                None => compare_file(path, bytes, file, found),
                Some(partly) => compare_partly(path, bytes, file, partly, found),
            }
        }
        (Content::Symlink(target), Body::Symlink(right)) => {
            if target != right.as_bytes() {
                attribute("another target".to_owned());
            }
        }
        (Content::Dir, Body::Dir)
        | (Content::Fifo, Body::Fifo)
        | (Content::Device, Body::Device) => {}
        (content, _) => attribute(match content {
            Content::File(_) => "is a regular file".to_owned(),
            other => format!("is of another type: {other:?}"),
        }),
    }
}

/// Collects wrong bytes into ranges.
struct Wrong<'a> {
    path: &'a str,
    range: Option<std::ops::Range<u64>>,
    found: &'a mut Vec<Violation>,
}

impl Wrong<'_> {
    fn byte(&mut self, at: u64) {
        match &mut self.range {
            // What lies between two bytes of a line is as good as wrong, too.
            Some(range) if at < range.end + LINE => range.end = at + 1,
            _ => {
                self.end();
                self.range = Some(at..at + 1);
            }
        }
    }

    fn end(&mut self) {
        if let Some(range) = self.range.take() {
            let mut violation = Violation::at(Kind::Data, self.path, "");
            violation.range = Some(range);
            self.found.push(violation);
        }
    }
}

/// A file that no operation is changing.
fn compare_file(path: &str, bytes: &[u8], file: &File, found: &mut Vec<Violation>) {
    if bytes.len() != file.data.len() {
        let text = format!("{} bytes, not {}", bytes.len(), file.data.len());
        found.push(Violation::at(Kind::Size, path, text));
        return;
    }
    if bytes == file.data {
        return;
    }
    let mut wrong = Wrong {
        path,
        range: None,
        found,
    };
    let line = LINE as usize;
    for (n, (is, right)) in bytes.chunks(line).zip(file.data.chunks(line)).enumerate() {
        if is == right {
            continue;
        }
        let choices = file.open.get(&(n as u64));
        if choices.is_some_and(|choices| choices.iter().any(|choice| choice[..is.len()] == *is)) {
            continue;
        }
        for i in (0..is.len()).filter(|&i| is[i] != right[i]) {
            wrong.byte((n * line + i) as u64);
        }
    }
    wrong.end();
}

/// Whether byte `at` of `file` may be `byte`.
fn may_be(file: &File, at: u64, byte: u8) -> bool {
    file.data.get(at as usize) == Some(&byte)
        || file.open.get(&(at / LINE)).is_some_and(|choices| {
            choices
                .iter()
                .any(|choice| choice[(at % LINE) as usize] == byte)
        })
}

/// A file that `partly.op` is changing from `old` to `partly.new`.
fn compare_partly(
    path: &str,
    bytes: &[u8],
    old: &File,
    partly: &Partly<'_>,
    found: &mut Vec<Violation>,
) {
    let (old_size, size) = (old.data.len() as u64, bytes.len() as u64);
    let new_size = partly.new.data.len() as u64;
    let (from, to) = match *partly.op {
        Op::Write { at, len, .. }
        | Op::Punch { at, len, .. }
        | Op::Zero { at, len, .. }
        | Op::WriteZeroes { at, len, .. } => (at, at + len),
        _ => (0, 0),
    };
    // A write may grow it over whole new blocks first.
    let in_pieces = matches!(partly.op, Op::Write { .. }) && size < new_size && size % BLOCK == 0;
    let grows = old_size < size && (size == new_size || in_pieces);
    if size != old_size && !grows {
        let text = format!("{size} bytes, not {old_size} growing to {new_size}");
        found.push(Violation::at(Kind::Size, path, text));
        return;
    }
    let mut wrong = Wrong {
        path,
        range: None,
        found,
    };
    let mut at = 0;
    while at < size {
        let block_end = (at / BLOCK + 1) * BLOCK;
        if matches!(partly.op, Op::Punch { .. })
            && at % BLOCK == 0
            && from <= at
            && block_end <= to
            && bytes[at as usize..block_end.min(size) as usize]
                .iter()
                .all(|byte| *byte == 0)
        {
            at = block_end;
            continue;
        }
        let byte = bytes[at as usize];
        let is_new = byte == partly.new.data[at as usize];
        let right = if at >= old_size {
            is_new
        } else if !(from..to).contains(&at) {
            may_be(old, at, byte)
        } else if matches!(partly.op, Op::Punch { .. }) && inside(at, from, to) {
            // A block that is punched is whole, or was found to be a hole above.
            may_be(old, at, byte)
        } else if size > old_size {
            // The new size is durable after the data.
            is_new
        } else {
            is_new || may_be(old, at, byte)
        };
        if !right {
            wrong.byte(at);
        }
        at += 1;
    }
    wrong.end();
}

/// Whether the block of byte `at` lies wholly in `from..to`.
fn inside(at: u64, from: u64, to: u64) -> bool {
    let block = at / BLOCK * BLOCK;
    from <= block && block + BLOCK <= to
}
