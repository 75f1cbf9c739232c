// SPDX-License-Identifier: GPL-2.0

//! What evicted inodes leave behind, where memory is short.

use dax_model::env::{fail_allocations_after, Vec};
use dax_model::track::left::{LeftBehind, Pinned};

fn pages(n: u64) -> Vec<Pinned> {
    let mut pages = Vec::new();
    for page in 0..n {
        let block = 100 + page;
        pages.push(Pinned { page, block }).unwrap();
    }
    pages
}

/// The pages that inode `ino` gets back, until `adopt` has no memory for one more than `most`.
fn take(left: &mut LeftBehind, ino: u64, most: usize) -> (Vec<Pinned>, Result<(), ()>) {
    let mut got = Vec::new();
    let result = left.give_back(ino, |pinned| {
        if got.len() == most {
            return Err(());
        }
        got.push(*pinned).map_err(|_| ())
    });
    (got, result)
}

/// An inode is read again, gets some of its pages back, fails for want of memory, and is evicted:
/// the next time it gets all of them.
#[test]
fn pages_come_back_all_or_later() {
    for most in 0..4 {
        let mut left = LeftBehind::new();
        left.add(7, false, pages(4)).unwrap();
        left.add(8, true, pages(2)).unwrap();
        let (got, result) = take(&mut left, 7, most);
        assert!(result.is_err() && got.len() == most);
        fail_allocations_after(Some(0));
        let added = left.add(7, false, got);
        fail_allocations_after(None);
        assert!(added.is_ok(), "no memory for what was there before");
        let (mut got, result) = take(&mut left, 7, usize::MAX);
        assert!(result.is_ok());
        got.sort_by_key(|pinned| pinned.page);
        assert_eq!(*got, *pages(4), "failed after {most}");
        assert_eq!(take(&mut left, 7, usize::MAX).0.len(), 0);
        assert_eq!(left.iter_mut().count(), 1, "the other");
    }
}

#[test]
fn what_has_no_name_is_freed_without_its_pages() {
    let mut left = LeftBehind::new();
    assert!(left.is_empty() && left.any_page().is_none());
    left.add(7, true, Vec::new()).unwrap();
    assert!(!left.is_empty() && left.any_page().is_none());
    left.add(8, true, pages(1)).unwrap();
    left.add(9, false, pages(1)).unwrap();
    assert_eq!((left.take_free(), left.take_free()), (Some(7), None));
    assert_eq!(
        left.any_page(),
        Some(Pinned {
            page: 0,
            block: 100
        })
    );
    left.iter_mut().for_each(|left| left.pages.clear());
    left.remove_released();
    assert!(left.any_page().is_none());
    assert_eq!((left.take_free(), left.take_free()), (Some(8), None));
    assert!(left.is_empty());
}

#[test]
fn without_memory_the_pages_are_given_back() {
    let mut left = LeftBehind::new();
    let given = pages(3);
    fail_allocations_after(Some(0));
    let added = left.add(7, false, given);
    fail_allocations_after(None);
    assert_eq!(added.map_err(|pages| pages.len()), Err(3));
    assert!(left.is_empty() && left.pop().is_none());
}

/// An inode that left pages behind and is evicted again: one entry, with all pages; and it is to
/// be freed if it has lost its name at either time.
#[test]
fn what_is_left_twice_is_one_entry() {
    for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut left = LeftBehind::new();
        left.add(7, first, pages(2)).unwrap();
        left.add(7, second, pages(100)).unwrap();
        assert_eq!(left.iter_mut().count(), 1);
        let entry = left.pop().unwrap();
        assert_eq!((entry.unlinked, entry.pages.len()), (first || second, 102));
    }
}

#[test]
fn without_memory_for_more_pages_an_entry_stays_as_it_was() {
    let mut left = LeftBehind::new();
    left.add(7, false, pages(2)).unwrap();
    let given = pages(100);
    fail_allocations_after(Some(0));
    let added = left.add(7, true, given);
    fail_allocations_after(None);
    assert_eq!(added.map_err(|pages| pages.len()), Err(100));
    let entry = left.pop().unwrap();
    assert_eq!((entry.unlinked, entry.pages.len()), (false, 2));
}

/// What room was made for can be added without memory: of an inode that is known, among others,
/// and of one that is not.
#[test]
fn there_is_room_for_what_was_announced() {
    let mut left = LeftBehind::new();
    for ino in 0..20 {
        left.reserve(ino, 1).unwrap();
        let given = pages(1);
        fail_allocations_after(Some(0));
        let added = left.add(ino, false, given);
        fail_allocations_after(None);
        assert!(added.is_ok(), "no room for inode {ino}");
    }
    for ino in [7, 0, 19] {
        left.reserve(ino, 100).unwrap();
        let given = pages(100);
        fail_allocations_after(Some(0));
        let added = left.add(ino, false, given);
        fail_allocations_after(None);
        assert!(added.is_ok(), "no room for more pages of inode {ino}");
    }
}

/// Every entry without a page goes, wherever it is in the list.
#[test]
fn all_that_is_released_goes() {
    for released in 0..16 {
        let mut left = LeftBehind::new();
        for ino in 0..4 {
            let nr = u64::from(released & (1 << ino) == 0);
            left.add(ino, false, pages(nr)).unwrap();
        }
        left.remove_released();
        let nr = 4 - (released as u32).count_ones();
        assert_eq!(left.iter_mut().count(), nr as usize, "{released:b}");
        assert!(left.iter_mut().all(|left| !left.pages.is_empty()));
    }
}
