// SPDX-License-Identifier: GPL-2.0

//! Which states are looked at.

use std::collections::BTreeSet;

use pmem_crash_model::states::{each, Line, Random};

fn lines(contents: &[usize], decides: impl Fn(usize) -> bool) -> Vec<Line> {
    let lines = contents.iter().enumerate();
    let line = |(i, contents): (usize, &usize)| Line {
        contents: *contents,
        decides: decides(i),
    };
    lines.map(line).collect()
}

fn all(lines: &[Line], limit: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut states = Vec::new();
    each(lines, limit, &mut Random::new(seed), &mut |picks| {
        states.push(picks.to_vec())
    });
    for picks in &states {
        assert_eq!(picks.len(), lines.len());
        assert!(picks
            .iter()
            .zip(lines)
            .all(|(pick, line)| *pick < line.contents));
    }
    states
}

#[test]
fn few_are_looked_at_all_and_once() {
    let states = all(&lines(&[2, 3, 4], |_| false), 24, 1);
    assert_eq!(states.len(), 24);
    assert_eq!(states.iter().collect::<BTreeSet<_>>().len(), 24);
    assert_eq!(all(&[], 1, 1), [Vec::<usize>::new()]);
}

#[test]
fn of_many_the_telling_ones() {
    let many = lines(&[3; 40], |i| i < 4);
    let states: BTreeSet<Vec<usize>> = all(&many, 400, 1).into_iter().collect();
    assert!(states.len() < 1000);
    assert!(states.contains(&vec![0; 40]));
    assert!(states.contains(&vec![2; 40]));
    for single in 0..40 {
        let alone: Vec<usize> = (0..40).map(|i| if i == single { 2 } else { 0 }).collect();
        let lacking: Vec<usize> = alone.iter().map(|pick| 2 - pick).collect();
        assert!(
            states.contains(&alone) && states.contains(&lacking),
            "{single}"
        );
    }
    // Every combination of the four that decide, without the others and with them.
    for rest in [0, 2] {
        let mut found = BTreeSet::new();
        for picks in states
            .iter()
            .filter(|picks| picks[4..].iter().all(|pick| *pick == rest))
        {
            found.insert(&picks[..4]);
        }
        assert_eq!(found.len(), 81);
    }
}

#[test]
fn very_many_are_sampled_within_the_limit() {
    let states = all(&lines(&[2; 5000], |i| i % 2 == 0), 100, 1);
    assert!((50..300).contains(&states.len()), "{}", states.len());
}

#[test]
fn a_seed_chooses() {
    let many = lines(&[2; 100], |_| true);
    assert_eq!(all(&many, 50, 7), all(&many, 50, 7));
    assert_ne!(all(&many, 50, 7), all(&many, 50, 8));
}
