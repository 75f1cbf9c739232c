// SPDX-License-Identifier: GPL-2.0

//! What faults, and operations that take pages from a file, do to which of its pages: a file of
//! three chunks, each with all of its pages, and one thread. (The model has two pages, and many
//! threads.)

use std::collections::BTreeSet;
use std::ops::Range;

use dax_model::track::ahead::Ask;
use dax_model::track::chunk::HOLES;
use dax_model::track::fault::{ahead, Outcome};
use dax_model::track::layout;
use dax_model::track::machine::{Event, Failure, Tracking};
use dax_model::track::page_set::PageSet;

mod world;

use world::{Has, Pmd, Pte, World, CHUNK};

/// The first page of the chunk in the middle, and of the next one.
const FIRST: u64 = CHUNK;
const END: u64 = 2 * CHUNK;
/// A block that a folio can begin with.
const ALIGNED: u64 = 50 * CHUNK;
/// A block that none can.
const BLOCK: u64 = 10 * CHUNK + 3;

/// A file without a hole, in one piece that is not aligned.
fn data() -> World {
    World::new().with(0, 3 * CHUNK, Has::Data(BLOCK))
}

/// A file whose second chunk can be mapped in one piece.
fn aligned() -> World {
    World::new().with(FIRST, CHUNK, Has::Data(ALIGNED))
}

fn set(pages: Range<u64>) -> BTreeSet<u64> {
    pages.collect()
}

/// A store to a hole asks for `pages`.
fn asking(world: &World, pages: Range<u64>) -> Ask {
    let mut ask = Ask::page(pages.start);
    ask.pages = pages;
    ask.stream = Some(2);
    *world.asks.borrow_mut() = Some(ask.clone());
    ask
}

/// Which pages have data.
fn data_of(world: &World) -> BTreeSet<u64> {
    let is_data = |page: &u64| matches!(world.has(*page), Has::Data(_));
    (0..3 * CHUNK).filter(is_data).collect()
}

#[test]
fn as_many_pages_are_mapped_ahead_as_the_row_has() {
    let rows = [0, 7, 8, 9, 63, 64, 65, 512].map(ahead);
    assert_eq!(rows, [0, 0, 8, 9, 63, 64, 64, 64]);
}

/// After which stores of a row, up or down, the pages up to which one can be stored to.
#[test]
fn a_row_is_mapped_ahead() {
    let faults = [
        (8, 16),
        (17, 34),
        (35, 70),
        (71, 135),
        (136, 200),
        (201, 265),
        (266, 330),
    ];
    for (up, has_cache) in [(true, true), (false, true), (true, false), (false, false)] {
        let world = data();
        world.has_cache.set(has_cache);
        let page = |n: u64| if up { FIRST + n } else { END - 1 - n };
        // Without a cache, what was settled by a sync is no row.
        for round in 0..2 {
            let mut taken = 0;
            for n in 0..300 {
                if !world.store(0, page(n)) {
                    continue;
                }
                taken += 1;
                let last = match faults.iter().find(|(at, _)| *at == n) {
                    Some((_, last)) => *last,
                    None => {
                        assert!(n < 8, "a fault at page {n} of the row");
                        n
                    }
                };
                let expected: BTreeSet<u64> = (0..=last).map(page).collect();
                assert_eq!(world.writable(0), expected, "page {n}, round {round}");
            }
            assert_eq!(taken, 15, "faults");
            world.sync().unwrap();
            assert_eq!(world.writable(0), set(0..0));
        }
        assert_eq!(world.tables.get(), 0);
        world.assert_owned();
    }
}

/// Nothing is mapped ahead outside of the file, of the chunk, and of the page table.
#[test]
fn a_row_ends_where_the_page_table_ends() {
    let up = |world: &World, from: u64, end: u64| {
        for page in from..end {
            world.store(0, page);
        }
        assert_eq!(world.writable(0), set(from..end));
    };
    up(&data(), END - 40, END);
    let world = data();
    *world.reach.borrow_mut() = FIRST..FIRST + 40;
    up(&world, FIRST, FIRST + 40);
    let world = data();
    world.pages.set(FIRST + 40);
    up(&world, FIRST, FIRST + 40);
    let down = |world: &World, first: u64, end: u64| {
        for page in (first..end).rev() {
            world.store(0, page);
        }
        assert_eq!(world.writable(0), set(first..end));
    };
    down(&data(), FIRST, FIRST + 40);
    // The neighbours have the blocks that the pages on the other side of the chunk would have.
    let world = data()
        .with(END - 9, 9, Has::Data(BLOCK))
        .with(END, 9, Has::Data(BLOCK - CHUNK + 9))
        .with(FIRST, 9, Has::Hole);
    up(&world, END - 9, END);
    world.assert_owned();
    let world = data()
        .with(FIRST, 9, Has::Data(BLOCK))
        .with(FIRST - 64, 64, Has::Data(BLOCK + CHUNK - 64))
        .with(END - 64, 64, Has::Hole);
    down(&world, FIRST, FIRST + 9);
    world.assert_owned();
    let world = data();
    *world.reach.borrow_mut() = FIRST + 20..END;
    down(&world, FIRST + 20, FIRST + 60);
}

/// Pages that another mapping has stored to are no row of this one.
#[test]
fn the_row_of_another_mapping_is_not_continued() {
    let world = data();
    world.is_watched.set(true);
    (FIRST..FIRST + 16).for_each(|page| assert!(world.store(0, page)));
    world.store(1, FIRST + 15);
    assert_eq!(world.writable(1), set(FIRST + 15..FIRST + 16));
    assert_eq!(world.writable(0), set(FIRST..FIRST + 16));
}

/// A row passes over what cannot be mapped at once: a hole, a bad block, the block of another file,
/// and one that would need a table. Pages that were loaded before are mapped like others.
#[test]
fn a_row_passes_over_what_needs_more_than_an_entry() {
    let odd = FIRST + 13;
    let next = FIRST + 9..FIRST + 17;
    let before = || set(FIRST + 9..odd);
    let beside = || &set(next.clone()) - &set(odd..odd + 1);
    let row = |world: &World, expected: BTreeSet<u64>| {
        for page in FIRST..FIRST + 9 {
            world.store(0, page);
        }
        let ahead = &world.writable(0) - &set(FIRST..FIRST + 9);
        assert_eq!(ahead, expected);
        assert_eq!(world.tables.get(), 0, "a table was allocated");
        world.assert_owned();
    };
    let hole = || data().with(odd, 1, Has::Hole);
    let world = hole();
    row(&world, before());
    assert_eq!(world.has(odd), Has::Hole);
    let world = hole();
    world.load(0, odd);
    row(&world, before());
    assert_eq!(world.pte(0, odd), Some(Pte::Zero));
    let world = data();
    world.bad.borrow_mut().insert(BLOCK + odd);
    row(&world, beside());
    assert_eq!(world.fault(0, odd, true), Ok(Outcome::Poisoned));
    // Only the page that is bad.
    world.load(1, odd - 1);
    let world = data();
    world.give_away(BLOCK + odd);
    row(&world, beside());
    assert_eq!(world.fault(0, odd, true), Err(Failure::UsedTwice));
    row(&data().with(odd, 100, Has::Data(2)), before());
    let world = data();
    world.load(0, odd);
    row(&world, set(next.clone()));
}

/// A store to a hole gets what it asks for, after the page or before it; zeros that were read there
/// are unmapped, and no others.
#[test]
fn a_store_to_a_hole_gets_what_it_asks_for() {
    for (first, end) in [(520, 524), (516, 521), (516, 524), (520, 521)] {
        let (first, end) = (FIRST + first, FIRST + end);
        let (at, around) = (FIRST + 520, first - 2..end + 2);
        let world = World::new();
        around.clone().for_each(|page| world.load(1, page));
        let ask = asking(&world, first..end);
        world.store(0, at);
        assert_eq!(data_of(&world), set(first..end));
        assert_eq!(*world.filled.borrow(), Some((ask, first, end - first)));
        for page in around {
            let pte = (!(first..end).contains(&page)).then_some(Pte::Zero);
            assert_eq!(world.pte(1, page), pte, "page {page} of {first}..{end}");
        }
        world.store(0, first);
        world.store(0, end - 1);
        world.assert_owned();
    }
}

/// But nothing outside of the chunk, or of the file.
#[test]
fn a_store_to_a_hole_fills_its_chunk_only() {
    let world = World::new();
    let zeros = [FIRST - 1, END];
    zeros.iter().for_each(|page| world.load(1, *page));
    asking(&world, END - 4..END + 6);
    world.store(0, END - 3);
    asking(&world, FIRST - 7..FIRST + 2);
    world.store(0, FIRST + 1);
    let filled = &set(END - 4..END) | &set(FIRST..FIRST + 2);
    assert_eq!(data_of(&world), filled);
    for page in zeros {
        assert_eq!(world.pte(1, page), Some(Pte::Zero));
    }
    let world = World::new();
    world.pages.set(FIRST + 100);
    asking(&world, FIRST + 90..FIRST + 110);
    world.store(0, FIRST + 95);
    assert_eq!(data_of(&world), set(FIRST + 90..FIRST + 100));
}

/// What is before the page is filled with it if it is of the same kind.
#[test]
fn a_store_fills_what_is_of_one_kind() {
    let at = FIRST + 20;
    // Unwritten, and then a hole; and the other way round.
    for (before, behind) in [
        (Has::Unwritten(3000), Has::Hole),
        (Has::Hole, Has::Unwritten(3000)),
    ] {
        let world = World::new().with(at - 4, 4, before).with(at, 4, behind);
        asking(&world, at - 4..at + 2);
        world.store(0, at);
        assert_eq!(world.has(at - 1), before.plus(3));
        assert!(data_of(&world).is_superset(&set(at..at + 1)));
    }
}

/// A bad block that reads as zeros stays so, beside a page that is stored to.
#[test]
fn a_store_makes_no_bad_block_data() {
    let at = FIRST + 20;
    for (bad, ask, filled) in [
        (at + 1, at..at + 2, at..at + 1),
        (at + 3, at..at + 4, at..at + 1),
        (at + 3, at - 2..at + 4, at..at + 1),
        (at - 2, at - 2..at + 4, at..at + 4),
        (at + 4, at - 2..at + 4, at - 2..at + 4),
    ] {
        let world = World::new().with(at - 4, 20, Has::Unwritten(3000));
        world.bad.borrow_mut().insert(3000 + bad - (at - 4));
        asking(&world, ask);
        world.store(0, at);
        assert_eq!(data_of(&world), set(filled));
    }
}

/// Where space is in pieces, or little is left, the page that is stored to gets a block, and no
/// other does that was asked for before it.
#[test]
fn the_page_itself_has_priority() {
    let at = FIRST + 20;
    for (free, piece) in [(1, 1), (100, 1), (100, 2), (100, 4)] {
        let world = World::new();
        world.free.set(free);
        world.piece.set(piece);
        world.load(1, at - 4);
        let ask = asking(&world, at - 4..at + 4);
        world.store(0, at);
        assert_eq!(data_of(&world), set(at..at + 1));
        assert_eq!(*world.filled.borrow(), Some((ask.alone(at), at, 1)));
        assert_eq!(world.pte(1, at - 4), Some(Pte::Zero));
    }
    // What follows the page is filled as far as possible.
    let world = World::new();
    world.piece.set(2);
    let ask = asking(&world, at..at + 4);
    world.store(0, at);
    assert_eq!(*world.filled.borrow(), Some((ask, at, 2)));
    let world = World::new();
    world.free.set(0);
    for pages in [at - 4..at + 4, at..at + 1] {
        asking(&world, pages);
        assert_eq!(world.fault(0, at, true), Err(Failure::Device));
    }
    assert_eq!(data_of(&world), set(0..0));
}

/// The sixteenth store to a hole of a chunk fills all that can be filled; zeros that were read are
/// unmapped there.
#[test]
fn one_of_many_stores_fills_the_chunk() {
    let all = u64::MAX;
    for (can, filled, last) in [(all, CHUNK, 7), (100, 100, 7), (100, 100, 501), (0, 0, 7)] {
        let world = World::new();
        let zeros = [0, 99, 100, 300, 511].map(|n| FIRST + n);
        zeros.iter().for_each(|page| world.load(1, *page));
        world.fills_all.set(can);
        let pages = (1..u64::from(HOLES)).map(|n| FIRST + 310 + 3 * n);
        for page in pages.clone() {
            world.store(0, page);
        }
        let alone: BTreeSet<u64> = pages.collect();
        assert_eq!(data_of(&world), alone, "a sparse file is filled");
        let last = FIRST + last;
        world.store(0, last);
        let expected = &(&alone | &set(FIRST..FIRST + filled)) | &set(last..last + 1);
        assert_eq!(data_of(&world), expected);
        for page in zeros {
            let pte = (page >= FIRST + filled).then_some(Pte::Zero);
            assert_eq!(world.pte(1, page), pte, "page {page}");
        }
        world.assert_owned();
    }
}

/// Stores that are given more than a block, and those where space is scarce, do not count.
#[test]
fn streams_and_little_space_fill_no_chunk() {
    let world = World::new();
    world.is_scarce.set(true);
    let free = world.free.get();
    for n in 0..40 {
        world.store(0, FIRST + 5 * n);
    }
    assert_eq!(world.free.get(), free - 40);
    let world = World::new();
    for n in 0..40 {
        let at = FIRST + 5 * n;
        asking(&world, at..at + 2);
        world.store(0, at);
    }
    assert_eq!(world.free.get(), free - 80);
}

/// Who reads a hole is counted once.
#[test]
fn loads_of_holes_are_counted() {
    let world = World::new();
    world.load(0, FIRST);
    assert_eq!(*world.counts.borrow(), [(Event::HoleRead, 1)]);
    let world = World::new();
    assert_eq!(world.fault_huge(0, FIRST, false), Ok(Outcome::Inserted(())));
    assert_eq!(world.pmd(0, 1), Some(Pmd::Zeros));
    assert_eq!(*world.counts.borrow(), [(Event::HoleRead, 1)]);
}

/// Blocks that follow each other are one piece, though in several extents; others are not.
#[test]
fn contiguous_extents_are_mapped_in_one_piece() {
    let mapped = Ok(Outcome::Inserted(()));
    let world = aligned();
    world.cuts.borrow_mut().extend([FIRST + 100, FIRST + 300]);
    assert_eq!(world.fault_huge(0, FIRST + 7, false), mapped);
    assert_eq!(world.fault_huge(0, FIRST + 7, true), mapped);
    let (block, writable) = (ALIGNED, true);
    assert_eq!(world.pmd(0, 1), Some(Pmd::Huge { block, writable }));
    assert_eq!(world.dirty(1), PageSet::ALL);
    world.assert_owned();
    for write in [true, false] {
        let world = aligned().with(FIRST + 100, CHUNK - 100, Has::Data(ALIGNED + 101));
        assert_eq!(world.fault_huge(0, FIRST, write), Ok(Outcome::ByPages));
        let world = aligned().with(CHUNK * 2 - 1, 1, Has::Data(BLOCK));
        assert_eq!(world.fault_huge(0, FIRST, write), Ok(Outcome::ByPages));
    }
}

/// The file must have all of the pages: its blocks may go on behind its end.
#[test]
fn a_chunk_that_the_file_ends_in_is_mapped_by_pages() {
    for (pages, outcome) in [
        (END, Outcome::Inserted(())),
        (END - 1, Outcome::ByPages),
        (END - 2, Outcome::ByPages),
    ] {
        for write in [true, false] {
            let world = aligned();
            world.pages.set(pages);
            assert_eq!(world.fault_huge(0, FIRST, write), Ok(outcome));
        }
    }
}

/// A store to 2 MiB fills no hole of a sparse file, and makes unwritten blocks data only if there
/// are 512, and aligned.
#[test]
fn a_store_to_2_mib_fills_only_what_is_mapped_in_one_piece() {
    let by_pages = Ok(Outcome::ByPages);
    let world = World::new();
    assert_eq!(world.fault_huge(0, FIRST + 7, true), by_pages);
    assert_eq!(data_of(&world), set(0..0));
    for (len, block) in [(100, ALIGNED), (CHUNK, BLOCK), (CHUNK - 1, ALIGNED)] {
        let world = World::new().with(FIRST, len, Has::Unwritten(block));
        assert_eq!(world.fault_huge(0, FIRST, true), by_pages);
        assert_eq!(data_of(&world), set(0..0));
    }
    let world = World::new().with(FIRST, CHUNK, Has::Unwritten(ALIGNED));
    assert_eq!(
        world.fault_huge(0, FIRST + 7, true),
        Ok(Outcome::Inserted(()))
    );
    assert_eq!(data_of(&world), set(FIRST..END));
    // All of a hole, of a file that is written from one end to the other.
    let world = World::new();
    *world.asks.borrow_mut() = Some(Ask::chunk(FIRST));
    assert_eq!(
        world.fault_huge(0, FIRST + 7, true),
        Ok(Outcome::Inserted(()))
    );
    assert_eq!(data_of(&world), set(FIRST..END));
}

/// A store whose times cannot move does not happen, and nothing is dirty.
#[test]
fn a_store_that_moves_no_time_is_refused() {
    let world = aligned();
    world.times_fail.set(true);
    assert_eq!(world.fault_huge(0, FIRST, true), Err(Failure::Device));
    assert_eq!(world.fault(1, FIRST, true), Err(Failure::Device));
    assert_eq!(world.pmd(0, 1), None);
    assert!(world.dirty(1).is_empty());
}

/// Without memory for a chunk a fault fails, once. A chunk that a fault finds is used again.
#[test]
fn a_fault_makes_a_chunk_or_uses_it() {
    let world = data();
    world.no_memory.set(true);
    assert_eq!(world.fault(0, FIRST, true), Err(Failure::Device));
    assert_eq!(world.attempts.get(), 1);
    assert!(world.tracker.is_unused());
    world.no_memory.set(false);
    world.load(0, FIRST);
    assert_eq!(world.uses.get(), 0);
    world.load(0, FIRST + 1);
    world.load(1, FIRST);
    assert_eq!(world.uses.get(), 2);
}

/// The marker of a page that is not mapped does not keep it from being mapped.
#[test]
fn a_marker_goes() {
    for write in [true, false] {
        let world = data();
        world.mark(0, FIRST);
        assert_eq!(world.fault(0, FIRST, write), Ok(Outcome::Inserted(())));
    }
}

/// A hot page that becomes part of a folio moves the times if it was stored to since the last sync,
/// and only then.
#[test]
fn a_hot_page_that_is_joined_moves_the_times_for_a_store() {
    for stored in [false, true] {
        let world = aligned();
        for _ in 0..3 {
            world.store(1, FIRST);
            world.sync().unwrap();
        }
        assert!(world.state(1).heat.hot().contains(0));
        if stored {
            assert!(!world.store(1, FIRST));
        }
        let touched = world.touched.get();
        world.map_anew(1);
        assert_eq!(world.fault_huge(0, FIRST, false), Ok(Outcome::Inserted(())));
        assert!(world.state(1).heat.hot().is_empty());
        assert_eq!(world.touched.get() - touched, u32::from(stored));
    }
}

/// A folio of which a page is bad is not mapped in one piece again; one beside it does not matter.
#[test]
fn a_folio_with_a_bad_page_is_mapped_by_pages() {
    for (bad, outcome) in [
        (ALIGNED - 1, Outcome::Inserted(())),
        (ALIGNED, Outcome::ByPages),
        (ALIGNED + 511, Outcome::ByPages),
        (ALIGNED + 512, Outcome::Inserted(())),
    ] {
        let world = aligned();
        assert_eq!(world.fault_huge(0, FIRST, false), Ok(Outcome::Inserted(())));
        world.bad.borrow_mut().insert(bad);
        assert_eq!(world.fault_huge(1, FIRST, false), Ok(outcome));
    }
}

/// A store to a page splits 2 MiB that nobody has pinned, and loads do not join them at once.
#[test]
fn a_store_to_a_page_splits_2_mib() {
    for pinned in [true, false] {
        let world = aligned();
        let load = || world.fault_huge(0, FIRST, false);
        assert_eq!(load(), Ok(Outcome::Inserted(())));
        if pinned {
            world.pins.borrow_mut().insert(ALIGNED + 5);
        }
        world.store(1, FIRST + 5);
        assert_eq!(world.state(1).is_huge(), pinned);
        world.assert_owned();
        world.pins.borrow_mut().clear();
        world.map_anew(1);
        world.map_anew(0);
        let joined = match pinned {
            true => Outcome::Inserted(()),
            false => Outcome::ByPages,
        };
        assert_eq!(load(), Ok(joined));
        world.assert_owned();
    }
}

/// 2 MiB that are mapped are unmapped, and split; if a page is pinned they stay as they are.
#[test]
fn a_folio_is_split_if_nobody_has_it_pinned() {
    for pinned in [false, true] {
        let world = aligned();
        assert_eq!(world.fault_huge(0, FIRST, false), Ok(Outcome::Inserted(())));
        if pinned {
            world.pins.borrow_mut().insert(ALIGNED + 511);
        }
        let chunk = world.chunk(1);
        let split = layout::split_huge(&world, chunk, &mut world.state(1));
        assert_eq!((split, world.state(1).is_huge()), (!pinned, pinned));
        assert_eq!(world.pmd(0, 1), None);
        world.assert_owned();
    }
}

/// A part of 2 MiB goes: the rest belongs to the file.
#[test]
fn the_rest_of_2_mib_stays() {
    for (first, last) in [(0, 255), (255, 511), (0, 510), (1, 511), (0, 511), (7, 7)] {
        let world = aligned();
        assert_eq!(world.fault_huge(0, FIRST, true), Ok(Outcome::Inserted(())));
        let (first, last) = (FIRST + first, FIRST + last);
        world
            .without_faults(|lock| layout::break_layout(&world, lock, first, last))
            .unwrap();
        let gone = PageSet::range((first - FIRST) as usize, (last - FIRST) as usize);
        assert!(!world.state(1).present().intersects(&gone));
        assert_eq!(world.state(1).present().count(), 512 - gone.count());
        assert!(!world.state(1).is_huge() && !world.was_not_idle.get());
        world.assert_owned();
    }
}

/// What cannot be made durable is not taken from the file.
#[test]
fn a_failed_sync_ends_a_truncation() {
    let world = data();
    world.store(0, FIRST);
    world.fence_fails.set(true);
    let truncate = || world.without_faults(|lock| layout::break_layout(&world, lock, FIRST, END));
    assert_eq!(truncate(), Err(Failure::Device));
    assert!(world.was_told.get());
    assert!(world.state(1).present().contains(0));
    world.assert_owned();
    world.fence_fails.set(false);
    assert_eq!(truncate(), Ok(()));
    assert!(world.state(1).present().is_empty());
    world.assert_owned();
}

/// A chunk is not given up while the device is gone, a mapping locked, a page pinned, or what is
/// dirty cannot be made durable.
#[test]
fn a_chunk_is_given_up_with_all_its_pages_or_not_at_all() {
    let reasons: [fn(&World, bool); 6] = [
        |_, _| {},
        |world, on| world.is_gone.set(on),
        |world, on| world.is_locked.set(on),
        |world, on| world.is_usable.set(!on),
        |world, on| world.fence_fails.set(on),
        |world, on| match on {
            true => drop(world.pins.borrow_mut().insert(BLOCK + FIRST)),
            false => world.pins.borrow_mut().clear(),
        },
    ];
    for (nth, reason) in reasons.iter().enumerate() {
        let world = data();
        world.store(0, FIRST);
        world.load(0, END - 1);
        let reclaim = || {
            let mut removed = false;
            let chunk = world.chunk(1);
            let given_up = layout::reclaim(&world, chunk, || removed = true);
            assert_eq!(given_up, removed, "{nth}");
            assert_eq!(world.state(1).present().is_empty(), removed, "{nth}");
            world.assert_owned();
            removed
        };
        reason(&world, true);
        assert_eq!(reclaim(), nth == 0, "{nth}");
        reason(&world, false);
        assert!(reclaim(), "{nth}");
        assert!(world.dirty(1).is_empty());
    }
}

/// All pages are taken from the file before it says that it has none, each after it was unmapped
/// and its pins have ended.
#[test]
fn a_file_is_detached_from_all_its_pages() {
    let world = data();
    for page in [0, 1, FIRST, END - 1, 3 * CHUNK - 1] {
        world.store(0, page);
        world.load(1, page);
    }
    world.pins.borrow_mut().insert(BLOCK);
    world.without_faults(|_| layout::detach(&world));
    for index in 0..3 {
        assert!(world.state(index).present().is_empty());
        assert!(world.dirty(index as usize).is_empty());
    }
    for page in [0, 1, FIRST, END - 1, 3 * CHUNK - 1] {
        assert_eq!((world.pte(0, page), world.pte(1, page)), (None, None));
        assert_eq!(world.owner(BLOCK + page), None);
    }
    assert!(!dax_model::track::machine::Machine::is_owner(&world));
}

/// Zeros are unmapped where a hole was filled, and nothing else is.
#[test]
fn a_hole_that_is_filled_is_unmapped_to_the_page() {
    let at = FIRST + 20;
    let world = data().with(at, 3, Has::Hole);
    (at - 1..at + 4).for_each(|page| world.load(0, page));
    layout::hole_filled(&world, at, 0);
    assert_eq!(*world.unmapped.borrow(), []);
    world.set(at, 2, Has::Data(BLOCK + at));
    layout::hole_filled(&world, at, 2);
    assert_eq!(*world.unmapped.borrow(), [(at, at + 1)]);
    let ptes = (at - 1..at + 4).map(|page| world.pte(0, page));
    let data = |page: u64| Some(Pte::Ro(BLOCK + page));
    let expected = [data(at - 1), None, None, Some(Pte::Zero), data(at + 3)];
    assert_eq!(ptes.collect::<Vec<_>>(), expected);
    assert!(world.store(0, at + 1));
    // Nobody has mapped it.
    layout::hole_filled(&World::new(), at, 2);
}
