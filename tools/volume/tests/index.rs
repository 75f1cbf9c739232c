// SPDX-License-Identifier: GPL-2.0

//! The hash table in memory, against a plain list of what it should hold.

use rdax_volume::env::fail_allocations_after;
use rdax_volume::volume::index::Index;

/// Numbers that look random: a linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[test]
fn holds_what_a_list_holds() {
    let mut random = Random(7);
    for keys in [1, 3, 40, 100_000] {
        let mut index = Index::default();
        let mut list: Vec<(u64, u64)> = Vec::new();
        for step in 0..3000 {
            // Grows to some hundred values, and shrinks to none again.
            let grow = if step < 1500 { 3 } else { 1 };
            let key = random.below(keys) * 0x1_0000_0001;
            if random.below(4) < grow {
                index.insert(key, step).unwrap();
                list.push((key, step));
            } else if let Some(i) = list.iter().rposition(|item| item.0 == key) {
                let (_, value) = list.remove(i);
                index.remove(key, |v| *v == value);
            } else if !list.is_empty() {
                let (key, value) = list.swap_remove(random.below(list.len() as u64) as usize);
                index.remove(key, |v| *v == value);
            }
            assert_eq!(
                (index.len(), index.is_empty()),
                (list.len(), list.is_empty())
            );
            let mut found: Vec<u64> = index.all(key).copied().collect();
            let mut there: Vec<u64> = list.iter().filter(|i| i.0 == key).map(|i| i.1).collect();
            found.sort_unstable();
            there.sort_unstable();
            assert_eq!(found, there);
            assert_eq!(index.get(key).is_some(), !there.is_empty());
        }
        let mut all: Vec<(u64, u64)> = index.iter().map(|(key, value)| (key, *value)).collect();
        all.sort_unstable();
        list.sort_unstable();
        assert_eq!(all, list);
    }
}

#[test]
fn a_value_can_be_changed() {
    let mut index = Index::default();
    for key in 0..100 {
        index.insert(key % 10, key).unwrap();
    }
    // The newest of key 3.
    *index.get_mut(3).unwrap() = 1000;
    assert_eq!(index.get(3), Some(&1000));
    assert!(index.all(3).any(|value| *value == 83));
    assert!(!index.all(3).any(|value| *value == 93));
    assert_eq!(index.get_mut(11), None);
}

#[test]
fn a_value_behind_others_in_its_chain_can_be_changed() {
    /// Keys this far apart share a chain as long as there are fewer chains.
    const FAR: u64 = 1 << 20;
    let mut index = Index::default();
    for n in 0..4 {
        index.insert(3 + n * FAR, n).unwrap();
    }
    // The newest is the first.
    *index.get_mut(3).unwrap() = 1000;
    let values: Vec<Option<&u64>> = (0..4).map(|n| index.get(3 + n * FAR)).collect();
    assert_eq!(values, [Some(&1000), Some(&1), Some(&2), Some(&3)]);
    assert_eq!(index.get_mut(3 + 4 * FAR), None);
}

#[test]
fn without_memory_nothing_is_added() {
    // Both where the chains are doubled and where they are not.
    for there in 0..40 {
        let mut index = Index::default();
        for key in 0..there {
            index.insert(key, key).unwrap();
        }
        fail_allocations_after(Some(0));
        let mut added = 0;
        while added < 100 && index.insert(there + added, there + added).is_ok() {
            added += 1;
        }
        fail_allocations_after(None);
        assert!(added < 100);
        assert_eq!(index.len() as u64, there + added);
        for key in 0..there + added {
            assert_eq!(index.get(key), Some(&key));
        }
        assert_eq!(index.get(there + added), None);
    }
}
