// SPDX-License-Identifier: GPL-2.0

//! Workloads by name.

use std::fmt;

use crate::model::Tree;
use crate::op::Op;
use crate::{ace, random, scenario};

/// Operations one after the other, on a file system that is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name: one of [`names`].
    pub name: String,
    /// What it was made from besides.
    pub seed: u64,
    /// The operations. Each succeeds.
    pub ops: Vec<Op>,
    /// How many of them, at the beginning, only prepare the others: crashes there are not tested.
    pub setup: usize,
}

impl Workload {
    /// Whether it needs mappings, or a kernel's write-back: the volume alone has neither.
    pub fn is_mapped(&self) -> bool {
        self.ops.iter().any(Op::is_mapped)
    }

    /// The tree before each operation, and after the last.
    ///
    /// # Panics
    ///
    /// If an operation cannot succeed.
    pub(crate) fn trees(&self) -> Vec<Tree> {
        let mut tree = Tree::default();
        let mut trees = vec![tree.clone()];
        for (number, op) in self.ops.iter().enumerate() {
            let applied = tree.apply(number, op);
            assert!(applied.is_ok(), "{}: {op}: {applied:?}", self.name);
            trees.push(tree.clone());
        }
        trees
    }
}

/// The operations, one a line, with their numbers.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, op) in self.ops.iter().enumerate() {
            let setup = if number < self.setup { " (setup)" } else { "" };
            writeln!(f, "{number:3} {op}{setup}")?;
        }
        Ok(())
    }
}

/// The name of a sequence of operations: `write-foo-0+4096,unlink-A.foo`.
pub(crate) fn slug(ops: &[Op]) -> String {
    let ops: Vec<String> = ops.iter().map(Op::to_string).collect();
    ops.join(",").replace(' ', "-").replace('/', ".")
}

/// All names of workloads: `mmap:...`, the scenarios of mappings; `data:...`, edges of writes, and
/// `random:...`, which depend on the seed; `ace1:...` and `ace2:...`, all sequences of one and of
/// two operations.
pub fn names() -> Vec<String> {
    let mut names = scenario::names();
    names.extend(random::names());
    names.extend(ace::names());
    names
}

/// The workload of that name, `None` if there is none. Only those of `random:` depend on `seed`.
pub fn workload(name: &str, seed: u64) -> Option<Workload> {
    let (setup, ops) = scenario::ops(name)
        .or_else(|| random::ops(name, seed))
        .or_else(|| ace::ops(name))?;
    Some(Workload {
        name: name.to_owned(),
        seed,
        setup: setup.len(),
        ops: setup.into_iter().chain(ops).collect(),
    })
}
