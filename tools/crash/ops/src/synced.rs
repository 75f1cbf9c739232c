// SPDX-License-Identifier: GPL-2.0

//! What every file system promises of data, for those that promise less than rdax: what fsync or
//! msync has covered is there, and nothing that was never in the file is.

use std::collections::BTreeMap;

use crate::model::{Id, Tree};
use crate::op::{Op, Path};
use crate::violation::{Kind, Violation};
use crate::workload::Workload;

/// Bytes of a page, and of a line.
const PAGE: u64 = 4096;
const LINE: u64 = 64;

/// Knows what of the content of files is promised, at each point of one workload.
pub struct Synced {
    ops: Vec<Op>,
    /// The tree before each operation, and after the last.
    trees: Vec<Tree>,
}

/// What an operation makes durable of a file.
enum Covers {
    Nothing,
    /// Bytes from the first up to the second.
    Range(u64, u64),
    /// All of it, with its size and its name.
    File,
}

fn covers(op: &Op, id: Id, tree: &Tree) -> Covers {
    let is = |path: Path| tree.names.get(path) == Some(&id);
    match *op {
        Op::Fsync { path }
        | Op::Fdatasync { path }
        | Op::FsyncOther { path }
        | Op::FdatasyncTwice { path }
            if is(path) =>
        {
            Covers::File
        }
        Op::Sync | Op::Freeze => Covers::File,
        Op::Msync { path, at, len } if is(path) => {
            Covers::Range(at / PAGE * PAGE, (at + len).next_multiple_of(PAGE))
        }
        Op::Flush { path, at, len } if is(path) => {
            Covers::Range(at / LINE * LINE, (at + len).next_multiple_of(LINE))
        }
        // Other file systems do not write mapped stores back by age.
        _ => Covers::Nothing,
    }
}

impl Synced {
    /// The oracle for `workload`, which begins on an empty file system.
    ///
    /// # Panics
    ///
    /// If an operation of the workload cannot succeed.
    pub fn new(workload: &Workload) -> Self {
        Synced {
            ops: workload.ops.clone(),
            trees: workload.trees(),
        }
    }

    /// What is wrong with `files`, the bytes of regular files by their paths, if the first
    /// `finished` operations of the workload had returned at the crash and, if `in_flight`, the
    /// next one had begun.
    pub fn check(
        &self,
        files: &BTreeMap<String, Vec<u8>>,
        finished: usize,
        in_flight: bool,
    ) -> Vec<Violation> {
        let last = finished + usize::from(in_flight);
        let mut found = Vec::new();
        let now = &self.trees[finished];
        for (path, id) in &now.names {
            // What had the name before may have it again.
            let mut had = self.trees[..=last].iter();
            let other = had.any(|tree| tree.names.get(path).is_some_and(|had| had != id));
            if other || self.content(finished, *id).is_none() {
                continue;
            }
            let since = self.last_covering(finished, *id, None);
            match files.get(path) {
                Some(bytes) => self.check_file(path, bytes, *id, finished, last, &mut found),
                None if since.is_some_and(|since| self.is_named(path, *id, since..=last)) => {
                    found.push(Violation::at(Kind::Missing, path, "should be there"));
                }
                None => {}
            }
        }
        found
    }

    /// Whether `path` stands for file `id` in all of those trees.
    fn is_named(&self, path: &str, id: Id, mut trees: std::ops::RangeInclusive<usize>) -> bool {
        trees.all(|n| self.trees[n].names.get(path) == Some(&id))
    }

    /// The content of file `id` in tree `n`, if it is there.
    fn content(&self, n: usize, id: Id) -> Option<&[u8]> {
        self.trees[n].content(id)
    }

    /// The tree after the last of the first `finished` operations that made `byte` of file `id`
    /// durable; without a byte, all of it.
    fn last_covering(&self, finished: usize, id: Id, byte: Option<u64>) -> Option<usize> {
        let does = |n: &usize| match covers(&self.ops[n - 1], id, &self.trees[*n]) {
            Covers::Nothing => false,
            Covers::File => true,
            Covers::Range(from, to) => byte.is_some_and(|byte| (from..to).contains(&byte)),
        };
        (1..=finished).rev().find(does)
    }

    fn check_file(
        &self,
        path: &str,
        bytes: &[u8],
        id: Id,
        finished: usize,
        last: usize,
        found: &mut Vec<Violation>,
    ) {
        let since = self.last_covering(finished, id, None).unwrap_or(0);
        let sizes = (since..=last).map(|n| self.content(n, id).map_or(0, <[u8]>::len));
        let (least, most) = (sizes.clone().min(), sizes.max());
        if Some(bytes.len()) < least || Some(bytes.len()) > most {
            let text = format!("{} bytes, not {least:?} to {most:?}", bytes.len());
            found.push(Violation::at(Kind::Size, path, text));
        }
        // Past the end there are zeros, and a file that is not there has as many.
        let was = |n: usize, at: usize| {
            let content = self.content(n, id).unwrap_or_default();
            content.get(at).copied().unwrap_or(0)
        };
        let now = self.content(finished, id).unwrap_or_default();
        for start in (0..bytes.len()).step_by(LINE as usize) {
            let end = bytes.len().min(start + LINE as usize);
            let line = &bytes[start..end];
            if now.get(start..end) == Some(line) {
                continue;
            }
            let since = self.last_covering(finished, id, Some(start as u64));
            let since = since.unwrap_or(0)..=last;
            let may_be = |at: usize, byte: u8| since.clone().any(|n| was(n, at) == byte);
            let wrong = (start..).zip(line).find(|(at, byte)| !may_be(*at, **byte));
            if let Some((at, _)) = wrong {
                let text = "not what it had since a sync covered it, or later";
                let mut violation = Violation::at(Kind::Data, path, text);
                violation.range = Some(at as u64..end as u64);
                found.push(violation);
            }
        }
    }
}
