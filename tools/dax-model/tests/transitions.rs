// SPDX-License-Identifier: GPL-2.0

//! Property tests: the sets against `BTreeSet`, the chunk against a plain table of pages.

use std::collections::{BTreeMap, BTreeSet};

use dax_model::track::chunk::{Entry, Run, State, Tags, Window, READS, WAY};
use dax_model::track::density::Density;
use dax_model::track::heat::{Heat, EPOCH, PATIENCE};
use dax_model::track::page_set::{PageSet, PAGES};
use dax_model::track::place::{split, Place};
use proptest::prelude::*;

type Chunk = State<Box<[u64; PAGES]>>;

fn set(pages: &BTreeSet<usize>) -> PageSet {
    let mut set = PageSet::EMPTY;
    for page in pages {
        assert!(set.insert(*page));
    }
    set
}

fn pages_of(set: &PageSet) -> impl Iterator<Item = usize> + '_ {
    (0..PAGES).filter(|page| set.contains(*page))
}

fn pages() -> impl Strategy<Value = BTreeSet<usize>> {
    prop_oneof![
        prop::collection::btree_set(0..PAGES, 0..40),
        prop::collection::btree_set(0..PAGES, 0..40)
            .prop_map(|holes| (0..PAGES).filter(|page| !holes.contains(page)).collect()),
        (0..PAGES, 0..PAGES).prop_map(|(a, b)| (a.min(b)..=a.max(b)).collect()),
        Just((0..PAGES).collect()),
    ]
}

proptest! {
    #[test]
    fn sets_agree_with_btreeset(a in pages(), b in pages(), first in 0..PAGES, last in 0..PAGES) {
        let (x, y) = (set(&a), set(&b));
        prop_assert_eq!(pages_of(&x).collect::<BTreeSet<_>>(), a.clone());
        prop_assert_eq!(x.count(), a.len());
        prop_assert_eq!(x.is_empty(), a.is_empty());
        prop_assert_eq!(x.and(&y), set(&a.intersection(&b).copied().collect()));
        prop_assert_eq!(x.intersects(&y), !a.is_disjoint(&b));
        let before = (0..first).rev().take_while(|page| a.contains(page)).count();
        prop_assert_eq!(x.run_before(first), before);
        let after = (first + 1..PAGES).take_while(|page| a.contains(page)).count();
        prop_assert_eq!(x.run_after(first), after);
        let mut both = x;
        both.insert_all(&y);
        prop_assert_eq!(both, set(&a.union(&b).copied().collect()));
        let mut rest = x;
        rest.remove_all(&y);
        prop_assert_eq!(rest, set(&a.difference(&b).copied().collect()));
        let words = std::array::from_fn(|i| (0..64).fold(0, |word, bit| {
            word | (u64::from(a.contains(&(i * 64 + bit))) << bit)
        }));
        prop_assert_eq!(PageSet::from_words(words), x);
        prop_assert_eq!(x.next_gap(first), (first..PAGES).find(|p| !a.contains(p)).unwrap_or(PAGES));
        prop_assert_eq!(PageSet::range(first, last), set(&(first..=last).collect()));
        prop_assert_eq!(x.next(first), a.range(first..).next().copied());
        let mut out = x;
        prop_assert_eq!(out.remove(first), a.contains(&first));
        prop_assert!(!out.contains(first));
        let beyond = PAGES + first;
        prop_assert!(!out.insert(beyond) && !out.contains(beyond) && !out.remove(beyond));
        prop_assert_eq!((out.next(beyond), out.next_gap(beyond)), (None, PAGES));
    }

    #[test]
    fn runs_are_maximal_and_cover(a in pages()) {
        let x = set(&a);
        let runs: Vec<_> = x.runs().collect();
        let covered: BTreeSet<usize> = runs.iter().flat_map(|(p, n)| *p..*p + *n).collect();
        prop_assert_eq!(covered, a);
        for pair in runs.windows(2) {
            prop_assert!(pair[0].0 + pair[0].1 < pair[1].0);
        }
    }

    /// Any order of mapping, filling and forgetting, with blocks that jump: the chunk remembers
    /// every block, asks for the zero page to be unmapped exactly where it may be mapped, and for
    /// a folio to be associated exactly once.
    #[test]
    fn a_chunk_remembers(steps in prop::collection::vec((0..4u8, 0..PAGES, 0..4u64, 1..60usize), 1..120)) {
        let mut chunk = Chunk::new();
        let mut model: BTreeMap<usize, Option<u64>> = BTreeMap::new();
        for (kind, page, piece, len) in steps {
            let block = piece * 100_000 + page as u64;
            let range = PageSet::range(page, (page + len - 1).min(PAGES - 1));
            match kind {
                0 => {
                    if chunk.entry(page) == Entry::Absent {
                        chunk.map_zero(page);
                        model.insert(page, None);
                    }
                }
                1 => {
                    let block = match chunk.entry(page) {
                        Entry::Present(block) => block,
                        _ => block,
                    };
                    let table = chunk.needs_table(page, block).then(|| Box::new([0; PAGES]));
                    let todo = chunk.map_block(page, block, table);
                    let before = model.insert(page, Some(block));
                    prop_assert_eq!(todo.unmap_zero, before == Some(None));
                    prop_assert_eq!(todo.associate, !matches!(before, Some(Some(_))));
                }
                2 => {
                    let stale = chunk.fill(&range);
                    for p in pages_of(&range) {
                        let was_zero = model.get(&p) == Some(&None);
                        prop_assert_eq!(stale.contains(p), was_zero);
                        if was_zero {
                            model.remove(&p);
                        }
                    }
                }
                _ => {
                    let gone = chunk.forget(&range);
                    for p in pages_of(&range) {
                        prop_assert_eq!(gone.contains(p), matches!(model.remove(&p), Some(Some(_))));
                    }
                }
            }
            for p in 0..PAGES {
                let expect = match model.get(&p) {
                    None => Entry::Absent,
                    Some(None) => Entry::Zero,
                    Some(Some(block)) => Entry::Present(*block),
                };
                prop_assert_eq!(chunk.entry(p), expect);
            }
            let mut seen = BTreeSet::new();
            let mut last = None;
            for run in chunk.runs(&PageSet::range(0, PAGES - 1)) {
                for i in 0..run.len {
                    let expect = model.get(&(run.page + i)).copied();
                    prop_assert_eq!(expect, Some(Some(run.block + i as u64)));
                    seen.insert(run.page + i);
                }
                prop_assert_ne!(last, Some((run.page, run.block)), "two runs that are one");
                last = Some((run.page + run.len, run.block + run.len as u64));
            }
            prop_assert_eq!(seen.len(), chunk.present().count());
        }
    }

    /// The mark of a chunk is set exactly while it has a dirty page.
    #[test]
    fn the_mark_follows_the_tags(steps in prop::collection::vec((0..3u8, 0..PAGES, 1..80usize), 1..80)) {
        let mut tags = Tags::new();
        let mut mark = false;
        let mut model = BTreeSet::new();
        for (kind, page, len) in steps {
            let last = (page + len - 1).min(PAGES - 1);
            let range = PageSet::range(page, last);
            match kind {
                0 => {
                    let tagged = tags.set_page(page);
                    prop_assert_eq!(tagged.newly, usize::from(model.insert(page)));
                    mark |= tagged.set_mark;
                }
                1 => {
                    let seen = tags.dirty_in(&range);
                    let expect: BTreeSet<usize> = model.range(page..=last).copied().collect();
                    prop_assert_eq!(*seen.pages(), set(&expect));
                    let (taken, clear) = tags.take(seen.write_protected());
                    prop_assert_eq!(taken.written_back(), expect.len());
                    mark &= !clear;
                    model.retain(|p| !range.contains(*p));
                }
                _ => {
                    if tags.forget(&range) {
                        mark = false;
                    }
                    model.retain(|p| !range.contains(*p));
                }
            }
            prop_assert_eq!(mark, !model.is_empty());
            for p in 0..PAGES {
                let dirty = tags.dirty_in(&PageSet::range(p, p));
                prop_assert_eq!(!dirty.pages().is_empty(), model.contains(&p));
            }
        }
    }
}

#[test]
fn a_page_is_hot_after_three_syncs_out_of_an_epoch() {
    let mut heat: Heat<Box<[u64; PAGES]>> = Heat::new();
    let one = PageSet::range(7, 7);
    // At the beginning of an epoch, and at its end.
    heat.synced(&one);
    (3..EPOCH).for_each(|_| heat.synced(&PageSet::EMPTY));
    heat.synced(&one);
    assert_eq!(*heat.warm(), one);
    let mut heat: Heat<Box<[u64; PAGES]>> = Heat::new();
    for round in 1..20 * usize::from(EPOCH) {
        // By chance: never twice in an epoch.
        let page = round * 5 % 100;
        heat.synced(&PageSet::range(page, page));
        assert!(heat.warm().is_empty());
    }
    // In turn with others.
    heat.cool(&PageSet::ALL);
    while heat.warm().is_empty() {
        heat.synced(&one);
        heat.synced(&PageSet::EMPTY);
        heat.synced(&PageSet::EMPTY);
    }
    assert_eq!(*heat.warm(), one);
    // The epoch ends, and with it what it knew.
    for _ in 0..EPOCH {
        heat.synced(&PageSet::EMPTY);
    }
    assert!(heat.warm().is_empty());
    // The second one is as long as they all are.
    let mut heat: Heat<Box<[u64; PAGES]>> = Heat::new();
    (1..EPOCH).for_each(|_| heat.synced(&PageSet::EMPTY));
    heat.synced(&one);
    (2..EPOCH).for_each(|_| heat.synced(&PageSet::EMPTY));
    heat.synced(&one);
    assert_eq!(*heat.warm(), one);
}

#[test]
fn a_chunk_is_dense_if_all_of_it_was_stored_to() {
    let mut content = [0u64; PAGES];
    let sample = |density: &Density, content: &[u64; PAGES]| {
        Some(density.pages(3).map(|page| content[page]))
    };
    let mut density = Density::new();
    let mut seen = PageSet::EMPTY;
    for round in 1..200 {
        assert!(!density.has_begun());
        density.begin(sample(&density, &content));
        assert!(density.has_begun());
        density.pages(3).iter().for_each(|page| {
            seen.insert(*page);
        });
        let dense = round % 2 == 0;
        match dense {
            true => content = [round; PAGES],
            // Nine pages in ten.
            false => (0..PAGES)
                .filter(|page| page % 10 != 0)
                .for_each(|page| content[page] += 1),
        }
        let found = density.end(sample(&density, &content));
        assert!(found || !dense, "round {round}");
    }
    assert!(seen.count() > PAGES / 2, "the same pages each time");
    // One page is not dense, and what cannot be read neither.
    density.begin(sample(&density, &content));
    content[density.pages(3)[0]] += 1;
    assert!(!density.end(sample(&density, &content)));
    density.begin(None);
    assert!(!density.end(sample(&density, &content)));
}

#[test]
fn a_hot_page_is_hot_until_it_is_left_alone() {
    let mut heat: Heat<Box<[u64; PAGES]>> = Heat::new();
    let (one, two) = (PageSet::range(7, 7), PageSet::range(7, 8));
    heat.synced(&one);
    assert!(heat.warm().is_empty());
    heat.synced(&two);
    assert_eq!(*heat.warm(), one);
    assert!(!heat.needs_table(&one), "for one");
    assert!(heat.heat_up(&one, |_| None).is_empty(), "cannot be read");
    assert_eq!(heat.heat_up(&one, |_| Some(1)), one);
    assert_eq!(*heat.hot(), one);
    assert!(heat.warm().is_empty());
    let found = |heat: &mut Heat<_>, now| {
        let mut cooling = heat.hot().and(&two);
        let stored_to = heat.review(&mut cooling, |_| Some(now), |_| {});
        (stored_to, cooling.is_empty())
    };
    assert_eq!(found(&mut heat, 1), (false, true));
    assert_eq!(found(&mut heat, 2), (true, true));
    for _ in 1..PATIENCE {
        assert_eq!(found(&mut heat, 2), (false, true));
    }
    assert_eq!(found(&mut heat, 2), (false, false));
    assert!(heat.cool_down(&one, |_| Some(3)), "stored to in between");
    assert!(heat.hot().is_empty() && heat.warm().is_empty());
    heat.synced(&two);
    assert_eq!(*heat.warm(), PageSet::range(8, 8), "7 begins anew");
}

/// Few fingerprints need no table, and are still known when there are more.
#[test]
fn fingerprints_outgrow_their_place() {
    let mut heat: Heat<Box<[u64; PAGES]>> = Heat::new();
    let (few, all) = (PageSet::range(8, 11), PageSet::range(8, 12));
    assert!(heat.needs_table(&all) && !heat.needs_table(&few));
    assert_eq!(heat.heat_up(&few, |page| Some(page as u64)), few);
    let one_more = PageSet::range(12, 12);
    assert!(heat.needs_table(&one_more) && !heat.needs_table(&PageSet::EMPTY));
    assert!(
        heat.heat_up(&one_more, |_| Some(12)).is_empty(),
        "without a place"
    );
    heat.set_table(Box::new([0; PAGES]));
    assert_eq!(heat.heat_up(&one_more, |page| Some(page as u64)), one_more);
    let mut cooling = all;
    let moved = heat.review(&mut cooling, |page| Some(page as u64), |_| {});
    assert!(!moved, "a page that changed its place is not stored to");
    for stored in 8..13 {
        let mut cooling = all;
        let fingerprint = |page: usize| Some(page as u64 + u64::from(page == stored));
        assert!(heat.review(&mut cooling, fingerprint, |_| {}), "{stored}");
        let mut cooling = all;
        assert!(heat.review(&mut cooling, |page| Some(page as u64), |_| {}));
    }
    // What has cooled makes room for others, and is not mistaken for them.
    heat.cool(&all);
    assert!(heat.needs_table(&all), "a table without a fingerprint");
    assert!(!heat.needs_table(&few));
    assert_eq!(heat.heat_up(&few, |_| Some(1)), few);
    heat.cool(&PageSet::range(9, 9));
    let other = PageSet::range(30, 30);
    assert_eq!(heat.heat_up(&other, |_| Some(2)), other);
    let mut cooling = *heat.hot();
    let same = |page| Some(if page == 30 { 2 } else { 1 });
    assert!(!heat.review(&mut cooling, same, |_| {}));
    // All four places are free again.
    heat.cool(&PageSet::ALL);
    let others = PageSet::range(40, 43);
    assert_eq!(heat.heat_up(&others, |_| Some(3)), others);
}

/// A page that is hot again has all of its patience, however long it was left alone before.
#[test]
fn patience_begins_anew() {
    let one = PageSet::range(7, 7);
    for left_alone in 0..PATIENCE {
        let mut heat: Heat<Box<[u64; PAGES]>> = Heat::new();
        for syncs in [left_alone, PATIENCE - 1] {
            assert_eq!(heat.heat_up(&one, |_| Some(1)), one);
            for nth in 0..syncs {
                let mut cooling = one;
                assert!(!heat.review(&mut cooling, |_| Some(1), |_| {}));
                assert!(cooling.is_empty(), "{left_alone}, then {nth}");
            }
            heat.cool(&one);
        }
    }
}

/// Where most of many hot pages are left alone, they are cold at once; a few, and those among
/// others that are stored to, have patience.
#[test]
fn many_that_are_left_alone_are_not_waited_for() {
    for (hot, stored, patient) in [
        (31, 0, true),
        (32, 0, false),
        (32, 4, true),
        (300, 33, false),
        (300, 34, true),
    ] {
        let mut heat: Heat<Box<[u64; PAGES]>> = Heat::new();
        let pages = PageSet::range(0, hot - 1);
        (0..2).for_each(|_| heat.synced(&pages));
        heat.set_table(Box::new([0; PAGES]));
        assert_eq!(heat.heat_up(&pages, |_| Some(1)), pages);
        let mut cooling = pages;
        let mut kept = PageSet::EMPTY;
        let now = |page| Some(if page < stored { 2 } else { 1 });
        let moved = heat.review(&mut cooling, now, |page| {
            kept.insert(page);
        });
        assert_eq!(moved, stored > 0);
        let stays = if patient { hot } else { stored };
        assert_eq!(kept.count(), stays, "{hot} {stored}");
        assert_eq!(cooling.count(), hot - stays);
        assert!(!kept.intersects(&cooling));
    }
}

/// A cold page begins anew: no state of it is left, and no state of the others is lost.
#[test]
fn a_page_that_was_cooled_is_as_new() {
    let (one, two) = (PageSet::range(7, 7), PageSet::range(7, 8));
    for syncs in 0..3 {
        let mut heat: Heat<Box<[u64; PAGES]>> = Heat::new();
        for _ in 0..syncs {
            heat.synced(&two);
        }
        heat.cool(&one);
        for more in 0..3 {
            assert_eq!(heat.warm().contains(7), more > 1, "{syncs} + {more}");
            assert_eq!(
                heat.warm().contains(8),
                syncs + more > 1,
                "{syncs} + {more}"
            );
            heat.synced(&two);
        }
    }
}

/// A hot page that cools down reports whether it was stored to.
#[test]
fn who_cools_down_says_whether_it_was_stored_to() {
    for (now, stored_to) in [(Some(1), false), (Some(2), true), (None, false)] {
        let mut heat: Heat<Box<[u64; PAGES]>> = Heat::new();
        let two = PageSet::range(7, 8);
        heat.synced(&two);
        heat.synced(&two);
        heat.set_table(Box::new([0; PAGES]));
        assert_eq!(heat.heat_up(&two, |_| Some(1)), two);
        let changed = |page| if page == 7 { now } else { Some(1) };
        assert_eq!(heat.cool_down(&two, changed), stored_to);
    }
}

/// A chunk of which every page was forgotten remembers nothing.
#[test]
fn a_chunk_that_was_forgotten_is_as_new() {
    let mut chunk = Chunk::new();
    let mut tags = Tags::new();
    for page in [7, 8] {
        let _ = chunk.map_block(page, 1000, Some(Box::new([0; PAGES])));
        let _ = tags.set_page(page);
    }
    chunk.map_zero(9);
    let seen = tags.dirty_in(&PageSet::ALL).write_protected();
    chunk.settle(&seen);
    assert_eq!(*chunk.settled(), PageSet::range(7, 8));
    chunk.heat.synced(&PageSet::range(7, 8));
    chunk.heat.synced(&PageSet::range(7, 7));
    assert_eq!(*chunk.heat.warm(), PageSet::range(7, 7));
    assert_eq!(chunk.forget(&PageSet::range(7, 9)), PageSet::range(7, 8));
    assert!(chunk.settled().is_empty() && chunk.heat.warm().is_empty());
    assert!(!chunk.needs_table(7, 5) && !chunk.needs_table(8, 1));
    assert_eq!(chunk.entry(9), Entry::Absent);
    chunk.heat.synced(&PageSet::range(7, 8));
    assert!(chunk.heat.warm().is_empty(), "both begin anew");
}

/// A chunk whose pages are stored to and synced, as `sync.rs` does it, by one task.
struct Stored {
    chunk: Chunk,
    tags: Tags,
    content: [u64; PAGES],
    media: [u64; PAGES],
    writable: PageSet,
    /// Stored to since the last sync, and no fault moved the times meanwhile.
    unseen: PageSet,
    /// Faulted on since the last sync.
    faulted: PageSet,
}

/// What a sync does.
#[derive(Clone, Copy)]
enum Sync {
    /// fsync, and whether the device has a write cache.
    File { cache: bool },
    /// sync, freeze, and the like.
    All,
}

impl Stored {
    fn new() -> Self {
        Stored {
            chunk: Chunk::new(),
            tags: Tags::new(),
            content: [0; PAGES],
            media: [0; PAGES],
            writable: PageSet::EMPTY,
            unseen: PageSet::EMPTY,
            faulted: PageSet::EMPTY,
        }
    }

    fn store(&mut self, page: usize) {
        self.content[page] += 1;
        if self.writable.insert(page) {
            self.chunk.unsettle_page(page);
            let _ = self.tags.set_page(page);
            self.faulted.insert(page);
        }
        if !self.faulted.contains(page) {
            self.unseen.insert(page);
        }
    }

    /// `write_back_chunk()`. When it returns, each store to the range has moved the times, and is
    /// durable.
    fn sync(&mut self, range: &PageSet, how: Sync) {
        let (keep, flush) = match how {
            Sync::File { cache } => (true, cache),
            Sync::All => (false, true),
        };
        let mut cold = self.tags.dirty_in(range);
        if !flush {
            cold.leave_out(self.chunk.settled());
        }
        let heat = &mut self.chunk.heat;
        let content = &self.content;
        let fingerprint = |page: usize| Some(content[page]);
        let mut written = *cold.pages();
        let mut stored_to = false;
        let mut cooling = heat.hot().and(cold.pages());
        if keep {
            stored_to = heat.review(&mut cooling, fingerprint, |page| {
                cold.keep(page).written_back();
            });
            let warm = heat.warm().and(cold.pages());
            if heat.needs_table(&warm) {
                heat.set_table(Box::new([0; PAGES]));
            }
            let fresh = heat.heat_up(&warm, fingerprint);
            (0..PAGES)
                .filter(|page| fresh.contains(*page))
                .for_each(|page| {
                    cold.keep(page).written_back();
                });
        }
        self.writable.remove_all(cold.pages());
        if !cooling.is_empty() {
            stored_to |= heat.cool_down(&cooling, fingerprint);
        }
        let protected = cold.write_protected();
        heat.synced(protected.pages());
        if flush {
            self.tags.take(protected).0.written_back();
            while let Some(page) = written.next(0) {
                self.media[page] = self.content[page];
                written.remove(page);
            }
        } else {
            self.chunk.settle(&protected);
        }
        assert!(
            stored_to || self.unseen.and(range).is_empty(),
            "the times did not move"
        );
        self.unseen.remove_all(range);
        self.faulted.remove_all(range);
        let open = self.writable.and(range);
        let hot = self.chunk.heat.hot().and(range);
        assert_eq!(open, hot.and(&open), "writable, and nobody looks");
        let dirty = *self.tags.dirty_in(range).pages();
        assert_eq!(hot, dirty.and(&hot));
        if flush {
            assert_eq!(hot, dirty);
            let durable = |page| self.media[page] == self.content[page];
            assert!(pages_of(range).all(durable), "not durable");
        }
    }
}

#[test]
fn a_store_moves_the_times_wherever_the_page_is_on_its_way_from_hot_to_cold() {
    let all = PageSet::ALL;
    for other in [false, true] {
        for quiet in 1..=3 * usize::from(PATIENCE) {
            let mut chunk = Stored::new();
            for _ in 0..3 {
                chunk.store(0);
                chunk.sync(&all, Sync::File { cache: true });
            }
            assert!(chunk.writable.contains(0));
            for i in 1..=quiet {
                if other && i == quiet {
                    chunk.store(40);
                }
                chunk.sync(&all, Sync::File { cache: true });
                let patient = i < usize::from(PATIENCE);
                assert_eq!(chunk.writable.contains(0), patient, "after {i} syncs");
            }
            chunk.store(0);
            chunk.sync(&all, Sync::File { cache: true });
        }
    }
}

proptest! {
    #[test]
    fn every_store_moves_the_times_and_is_durable(
        steps in prop::collection::vec((0..16u8, 0..4usize, 0..4usize), 1..200)
    ) {
        let mut chunk = Stored::new();
        for (kind, a, b) in steps {
            match kind {
                0..=3 => chunk.store(a),
                4 => chunk.sync(&PageSet::ALL, Sync::All),
                _ => {
                    let range = PageSet::range(a.min(b), a.max(b));
                    chunk.sync(&range, Sync::File { cache: kind > 7 });
                }
            }
        }
    }
}

#[test]
fn a_row_is_counted_on_both_sides() {
    let mut tags = Tags::new();
    let _ = tags.set(&PageSet::range(3, 5));
    let _ = tags.set(&PageSet::range(8, 8));
    let rows = [2, 6, 7, 9, 10].map(|page| tags.row_beside(page));
    assert_eq!(rows, [3, 3, 1, 1, 0]);
}

#[test]
fn a_huge_chunk_is_one_run_and_becomes_dirty_as_one() {
    let mut chunk = Chunk::new();
    chunk.map_zero(3);
    assert!(chunk.may_map_huge(true));
    assert!(chunk.map_huge(5120), "the zero page has to go");
    let runs: Vec<_> = chunk.runs(&PageSet::ALL).collect();
    assert!(matches!(
        runs[..],
        [Run {
            page: 0,
            block: 5120,
            len: PAGES
        }]
    ));
    let mut tags = Tags::new();
    assert_eq!(
        (tags.set_page(9).newly, tags.set(&PageSet::ALL).newly),
        (1, PAGES - 1)
    );
    // A sync of one page makes one clean, and the next store small pages.
    let seen = tags.dirty_in(&PageSet::range(4, 4));
    let (taken, clean) = tags.take(seen.write_protected());
    assert_eq!((taken.written_back(), clean), (1, false));
    chunk.store_small();
    assert!(chunk.may_map_huge(false) && !chunk.may_map_huge(true));
    chunk.store_whole();
    assert!(chunk.may_map_huge(true));
    chunk.split();
    assert!(!chunk.is_huge() && chunk.entry(511) == Entry::Present(5631));
    assert_eq!(tags.dirty_in(&PageSet::ALL).pages().count(), PAGES - 1);
    chunk.join();
    assert!(chunk.present().is_empty() && !chunk.map_huge(1024));
    chunk.never_huge();
    assert!(!chunk.may_map_huge(false));
    assert_eq!(chunk.forget(&PageSet::ALL), PageSet::ALL);
    assert!(!chunk.is_huge());
}

/// A chunk that was split is joined again for loads: after [`READS`], and after twice as many each
/// time; at once if all of it was stored to.
#[test]
fn a_chunk_that_was_split_waits_for_loads() {
    let mut chunk = Chunk::new();
    let wait = |chunk: &mut Chunk| {
        let mut loads = 0;
        while !chunk.may_map_huge(false) {
            chunk.read_page();
            loads += 1;
        }
        loads
    };
    for times in [1, 2, 4, 8] {
        chunk.was_split();
        assert_eq!(wait(&mut chunk), times * READS);
    }
    chunk.was_split();
    chunk.store_whole();
    assert_eq!(wait(&mut chunk), 0);
    chunk.was_split();
    assert_eq!(wait(&mut chunk), READS, "it begins anew");
}

#[test]
fn as_many_loads_make_way_as_are_asked_to() {
    let mut chunk = Chunk::new();
    assert!(!chunk.gives_way());
    chunk.make_way();
    assert!((0..WAY).all(|_| chunk.gives_way()));
    assert!(!chunk.gives_way());
}

/// What was found out about pages one by one does not matter to the folio.
#[test]
fn pages_that_are_joined_begin_anew() {
    let mut chunk = Chunk::new();
    let one = PageSet::range(7, 7);
    (0..2).for_each(|_| chunk.heat.synced(&one));
    assert_eq!(*chunk.heat.warm(), one);
    chunk.join();
    assert!(chunk.heat.warm().is_empty());
}

#[test]
fn a_page_that_is_kept_is_one() {
    let mut tags = Tags::new();
    let _ = tags.set(&PageSet::range(3, 5));
    let mut seen = tags.dirty_in(&PageSet::ALL);
    assert_eq!(seen.keep(4).written_back(), 1);
    assert_eq!(seen.pages().count(), 2);
}

/// Pages at the edges of the chunks around the fifth of a file, and others.
fn page_of_file() -> impl Strategy<Value = u64> {
    let edge = (3u64..9, 0u64..5).prop_map(|(chunk, i)| chunk * PAGES as u64 + i - 2);
    prop_oneof![
        edge,
        3 * PAGES as u64..9 * PAGES as u64,
        Just(0),
        Just(u64::MAX)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A range has of a chunk the pages that are in both.
    #[test]
    fn a_range_is_clipped_to_the_page(first in page_of_file(), last in page_of_file()) {
        let place = Place::new(5);
        let pages = (5 * PAGES as u64)..(6 * PAGES as u64);
        prop_assert_eq!((place.first_page(), place.last_page()), (pages.start, pages.end - 1));
        prop_assert_eq!(place.end(), pages.end);
        let clipped = place.clip(first, last);
        for (page, nth) in pages.zip(0..) {
            prop_assert_eq!(clipped.contains(nth), first <= page && page <= last);
            prop_assert_eq!(split(page), (place.index(), nth));
        }
    }
}

#[test]
fn windows_cover_what_they_reached_and_no_more() {
    let window = Window {
        seq: 3,
        first: 10,
        end: 20,
    };
    assert!(window.covers(4, 0, 10));
    assert!(window.covers(4, 19, 30));
    assert!(!window.covers(4, 0, 9));
    assert!(!window.covers(4, 20, 30));
    assert!(!window.covers(3, 0, 30));
    let empty = Window { end: 10, ..window };
    assert!(!empty.covers(4, 0, 9));
    assert!(!empty.covers(4, 10, 30));
}
