// SPDX-License-Identifier: GPL-2.0

//! The oracle: which volumes may be found after a crash.

use std::ops::Range;

use rdax_volume::volume::check::check;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{MountOptions, Volume};

use crate::compare::{differences, Partly};
use crate::data::origin;
use crate::model::Tree;
use crate::op::Op;
use crate::seen::{see, Content, Seen};
use crate::violation::{Kind, Violation};
use crate::workload::Workload;

/// Mounts the volume on `pmem` as after a crash: with the journal replayed and the orphans worked
/// off, as [`Oracle::check`] wants it.
pub fn recover<P: Pmem>(pmem: P) -> Result<Volume<P>, Violation> {
    let unreadable = |what| move |e| Violation::new(Kind::Unreadable, format!("{what}: {e}"));
    let volume = Volume::mount(pmem, MountOptions::default()).map_err(unreadable("mount"))?;
    volume.recover_orphans().map_err(unreadable("orphans"))?;
    Ok(volume)
}

/// Knows which states of a volume are allowed, at each point of one workload.
pub struct Oracle {
    ops: Vec<Op>,
    /// The tree before each operation, and after the last.
    trees: Vec<Tree>,
}

impl Oracle {
    /// The oracle for `workload`, which begins on an empty volume.
    ///
    /// # Panics
    ///
    /// If an operation of the workload cannot succeed.
    pub fn new(workload: &Workload) -> Self {
        Oracle {
            ops: workload.ops.clone(),
            trees: workload.trees(),
        }
    }

    /// What is wrong with `volume`, as [`recover`] opened it, if the first `finished` operations of
    /// the workload had returned at the crash and, if `in_flight`, the next one had begun. Nothing
    /// if it is one of the allowed states, which `finished` being the number of all operations
    /// and `in_flight` false gives at the end.
    pub fn check<P: Pmem>(
        &self,
        volume: &Volume<P>,
        finished: usize,
        in_flight: bool,
    ) -> Vec<Violation> {
        let mut found = check_volume(volume);
        match see(volume) {
            Ok(seen) => found.extend(self.check_seen(&seen, finished, in_flight)),
            Err(e) => found.push(Violation::new(Kind::Unreadable, format!("tree: {e}"))),
        }
        found
    }

    /// As [`Oracle::check`], of the tree alone: for callers that have read it by other means.
    pub fn check_seen(&self, seen: &Seen, finished: usize, in_flight: bool) -> Vec<Violation> {
        let old = &self.trees[finished];
        let mut found = differences(seen, old, None);
        let op = self.ops.get(finished).filter(|_| in_flight);
        if let (Some(op), false) = (op, found.is_empty()) {
            let new = &self.trees[finished + 1];
            for other in [
                Some(differences(seen, new, None)),
                partly(seen, old, new, op),
            ] {
                found = match other {
                    Some(other) if other.len() <= found.len() => other,
                    _ => found,
                };
            }
        }
        for violation in &mut found {
            self.explain(seen, violation);
        }
        found
    }

    /// Says of wrong bytes what they are.
    fn explain(&self, seen: &Seen, violation: &mut Violation) {
        let (Some(path), Some(range)) = (&violation.path, &violation.range) else {
            return;
        };
        let Some(Content::File(bytes)) = seen.get(path).map(|entry| &entry.content) else {
            return;
        };
        let at = range.start as usize / 8 * 8;
        let word = &bytes[at..bytes.len().min(at + 8)];
        violation.text = match origin(word, self.writes()) {
            _ if word.iter().all(|byte| *byte == 0) => "zeros".to_owned(),
            Some((op, from)) => format!("byte {from} of operation {op}, {}", self.ops[op]),
            None => format!("{word:02x?}, which no operation has written there"),
        };
    }

    /// The operations that put data into a file, and where.
    fn writes(&self) -> impl Iterator<Item = (usize, Range<u64>)> + '_ {
        self.ops.iter().enumerate().filter_map(|(n, op)| match *op {
            Op::Write { at, len, .. }
            | Op::Store { at, len, .. }
            | Op::StoreInSync { at, len, .. }
            | Op::Scatter { at, len, .. } => Some((n, at..at + len)),
            _ => None,
        })
    }
}

/// What the checker says of `volume`, as [`recover`] opened it, and whether the counts are right.
pub fn check_volume<P: Pmem>(volume: &Volume<P>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |problem| found.push(Violation::new(Kind::Checker, problem));
    match check(volume.pmem(), &mut report) {
        Ok(summary) => {
            let stat = volume.statfs();
            let counts = [
                ("free blocks", stat.free, summary.free_blocks),
                ("inodes in use", stat.inodes_used, summary.inodes),
                ("orphans", summary.orphans, 0),
            ];
            for (what, is, right) in counts.into_iter().filter(|(_, is, right)| is != right) {
                let text = format!("{is} {what}, not {right}");
                found.push(Violation::new(Kind::Space, text));
            }
        }
        Err(e) => found.push(Violation::new(Kind::Checker, e)),
    }
    found
}

/// How `seen` differs from `old` with one file on its way to `new`, if `op` need not happen wholly.
fn partly(seen: &Seen, old: &Tree, new: &Tree, op: &Op) -> Option<Vec<Violation>> {
    let path = match *op {
        Op::Write { path, .. }
        | Op::Punch { path, .. }
        | Op::Zero { path, .. }
        | Op::WriteZeroes { path, .. }
        | Op::Fallocate { path, .. } => path,
        _ => return None,
    };
    let file = new.file(path).ok()?;
    let mut file = file.clone();
    file.beyond |= matches!(op, Op::Fallocate { .. });
    let partly = Partly {
        id: old.id(path).ok()?,
        new: &file,
        op,
    };
    Some(differences(seen, old, Some(&partly)))
}
