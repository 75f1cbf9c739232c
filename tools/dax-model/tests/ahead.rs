// SPDX-License-Identifier: GPL-2.0

//! What stores to holes are given ahead.

use dax_model::track::ahead::{Ask, Stream};
use dax_model::track::page_set::PAGES;
use proptest::prelude::*;

const CHUNK: u64 = PAGES as u64;

/// Stores to `pages`, each of which gets all that it asks for, unless it has it; returns how many
/// had to be given something, and all that was given.
fn given(pages: impl Iterator<Item = u64>) -> (usize, std::collections::BTreeSet<u64>) {
    let mut stream = Stream::NONE;
    let mut all = std::collections::BTreeSet::new();
    let mut times = 0;
    for page in pages {
        if all.contains(&page) {
            continue;
        }
        let ask = stream.next(page, 0).unwrap_or(Ask::page(page));
        assert!(ask.pages.contains(&page));
        stream = Stream::of(&ask, ask.pages.start, ask.pages.end - ask.pages.start);
        all.extend(ask.pages);
        times += 1;
    }
    (times, all)
}

#[test]
fn a_stream_gets_twice_as_much_each_time() {
    let n = 16 * CHUNK;
    let (up, all) = given(0..n);
    assert_eq!((up, all.len() as u64), (9 + 16, n));
    let (down, all) = given((0..n).rev());
    assert_eq!((down, all.len() as u64), (9 + 16, n));
    // Every second page: those between are given, too.
    let (second, all) = given((0..n).step_by(2));
    assert!(second < 9 + 18 && all.len() as u64 == n, "{second}");
    // Every third is another program's way.
    let (third, all) = given((0..n).step_by(3));
    assert_eq!(third, all.len());
}

#[test]
fn what_is_no_stream_gets_a_page() {
    let ask = Ask::page(7);
    assert_eq!((ask.pages.clone(), ask.stream), (7..8, None));
    let stream = Stream::of(&ask, 7, 1);
    for page in [0, 4, 10, 1 << 50] {
        assert_eq!(stream.next(page, 0), None, "{page}");
    }
    for (page, pages) in [(8, 8..10), (9, 8..11), (6, 5..7), (5, 4..7)] {
        let next = stream.next(page, 3).unwrap();
        assert_eq!((next.pages, next.stream), (pages, Some(3)), "{page}");
    }
    assert_eq!(Stream::NONE.next(0, 0), None);
    // Right behind, and before, what it was given: each number of pages is remembered.
    for len in 1..=CHUNK {
        let stream = Stream::of(&ask, 700, len);
        assert_eq!(
            stream.next(700 + len, 0).unwrap().pages,
            700 + len..702 + len
        );
        assert_eq!(stream.next(699, 0).unwrap().pages, 698..700);
    }
    // At the beginning of the file.
    let stream = Stream::of(&ask, 1, 1);
    assert_eq!(stream.next(0, 0).unwrap().pages, 0..1);
}

proptest! {
    /// Whatever comes before, the page is among those that are asked for, which are few.
    #[test]
    fn the_page_is_asked_for(
        start in prop_oneof![0..2000_u64, (1 << 51) - 5000..(1_u64 << 51) - 3000],
        steps in prop::collection::vec((-30..30_i64, 1..=CHUNK), 1..60),
    ) {
        let mut stream = Stream::NONE;
        let mut page = start;
        for (step, most) in steps {
            let ask = stream.next(page, 1).unwrap_or(Ask::page(page));
            prop_assert!(ask.pages.contains(&page));
            let len = ask.pages.end - ask.pages.start;
            prop_assert!(len <= CHUNK + 16);
            prop_assert_eq!(Stream::from_bits(stream.bits()), stream);
            let first = ask.pages.start.max(page.saturating_sub(most - 1));
            stream = Stream::of(&ask, first, (ask.pages.end - first).min(most));
            page = page.saturating_add_signed(step);
        }
    }
}
