// SPDX-License-Identifier: GPL-2.0

//! What caught what, and what nothing caught.

use std::collections::BTreeMap;

use crate::mutation::Mutation;
use crate::results::{Layer, Results};
use crate::survivors::Survivor;

/// One row: a room.
#[derive(Default)]
struct Row {
    made: usize,
    tried: usize,
    caught: BTreeMap<Layer, usize>,
    explained: usize,
    unexplained: usize,
}

impl Row {
    fn add(&mut self, other: &Row) {
        self.made += other.made;
        self.tried += other.tried;
        for (layer, n) in &other.caught {
            *self.caught.entry(*layer).or_default() += n;
        }
        self.explained += other.explained;
        self.unexplained += other.unexplained;
    }

    fn print(&self, name: &str) {
        let caught = |layer| self.caught.get(&layer).copied().unwrap_or(0);
        let share = 100.0 * self.unexplained as f64 / self.tried.max(1) as f64;
        println!(
            "{name:<10} {:>7} {:>7} {:>7} {:>7} {:>10} {:>12} {share:>6.1} %",
            self.made,
            self.tried,
            caught(Layer::Host),
            caught(Layer::Vm),
            self.explained,
            self.unexplained
        );
    }
}

/// Whether a layer has tried `mutation`.
fn was_tried(mutation: &Mutation, results: &Results) -> bool {
    [Layer::Host, Layer::Vm]
        .iter()
        .any(|layer| results.get(&mutation.key, *layer).is_some())
}

/// Prints the table of `mutations`, and those of them that survive without a reason. Returns how
/// many these are.
pub fn print(mutations: &[&Mutation], results: &Results, survivors: &[Survivor]) -> usize {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut open = Vec::new();
    let mut used = vec![false; survivors.len()];
    for mutation in mutations {
        let row = rows.entry(&mutation.room).or_default();
        row.made += 1;
        let mut explained = false;
        for (entry, used) in survivors.iter().zip(&mut used) {
            if entry.is(mutation) {
                *used = true;
                explained = true;
            }
        }
        if !was_tried(mutation, results) {
            continue;
        }
        row.tried += 1;
        match results.caught(&mutation.key) {
            Some((layer, _)) => *row.caught.entry(layer).or_default() += 1,
            None if explained => row.explained += 1,
            None => {
                row.unexplained += 1;
                open.push(*mutation);
            }
        }
    }
    for (entry, _) in survivors.iter().zip(used).filter(|(_, used)| !used) {
        println!(
            "explains nothing: {} {} {}",
            entry.file,
            entry.function.as_deref().unwrap_or(""),
            entry.original.as_deref().unwrap_or("")
        );
    }
    for mutation in &open {
        println!("survives: {}", mutation.describe());
    }
    println!(
        "{:<10} {:>7} {:>7} {:>7} {:>7} {:>10} {:>12}",
        "room", "made", "tried", "host", "VM", "explained", "unexplained"
    );
    let mut all = Row::default();
    for (name, row) in &rows {
        row.print(name);
        all.add(row);
    }
    all.print("all");
    open.len()
}
