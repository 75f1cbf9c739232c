// SPDX-License-Identifier: GPL-2.0

//! The model of the cache: what is durable when, and what a crash may leave.

use pmem_crash_model::media::{change, line, Content, Media, LINE};
use pmem_crash_model::trace::{Event, Through, STORE_MAX};
use proptest::prelude::*;

fn store(at: u64, bytes: &[u8], through: Through) -> Event {
    let mut value = [0; STORE_MAX];
    value[..bytes.len()].copy_from_slice(bytes);
    let len = bytes.len() as u8;
    Event::Store {
        at,
        len,
        value,
        through,
    }
}

fn replayed(events: &[Event]) -> Media {
    let mut media = Media::new(vec![0; 256]);
    events.iter().for_each(|event| media.replay(event));
    media
}

/// The contents of the only open line, as its first eight bytes.
fn firsts(media: &Media) -> Vec<u64> {
    let open = media.open();
    assert_eq!(open.len(), 1);
    let word = |content: &Content| u64::from_le_bytes(content[..8].try_into().unwrap());
    open[0].1.iter().map(word).collect()
}

#[test]
fn durable_by_write_back_and_fence_only() {
    let stored = store(64, &[7], Through::Cache);
    let write_back = Event::WriteBack { at: 100 };
    for (events, durable) in [
        (vec![stored], false),
        (vec![stored, Event::Fence], false),
        (vec![stored, write_back], false),
        (vec![write_back, stored, Event::Fence], false),
        (
            vec![stored, Event::WriteBack { at: 0 }, Event::Fence],
            false,
        ),
        (vec![stored, Event::Fence, write_back], false),
        (vec![stored, write_back, Event::Fence], true),
        (
            vec![
                stored,
                write_back,
                Event::Mark { kind: 1, number: 2 },
                Event::Fence,
            ],
            true,
        ),
    ] {
        let media = replayed(&events);
        assert_eq!(media.durable()[64] == 7, durable, "{events:?}");
        assert_eq!(media.open().is_empty(), durable, "{events:?}");
    }
}

#[test]
fn past_the_cache_needs_the_fence_alone() {
    let stored = store(0, &[1; 8], Through::Past);
    assert_eq!(
        firsts(&replayed(&[stored])),
        [0, u64::from_le_bytes([1; 8])]
    );
    assert!(replayed(&[stored, Event::Fence]).open().is_empty());
    // It takes along what the cache had of the line, and nothing that comes later.
    let (old, new) = (
        store(0, &[9], Through::Cache),
        store(0, &[5], Through::Cache),
    );
    let media = replayed(&[old, stored, new, Event::Fence]);
    assert_eq!(media.durable()[..8], [1; 8]);
    assert_eq!(firsts(&media).len(), 2);
}

#[test]
fn a_locked_instruction_is_no_fence() {
    let stored = store(0, &[1], Through::Cache);
    let locked = store(64, &[2], Through::Locked);
    let media = replayed(&[stored, Event::WriteBack { at: 0 }, locked]);
    assert_eq!(media.open().len(), 2);
}

#[test]
fn a_crash_leaves_a_prefix() {
    let events: Vec<Event> = (1..=3).map(|n| store(0, &[n], Through::Cache)).collect();
    assert_eq!(firsts(&replayed(&events)), [0, 1, 2, 3]);
    // Written back after the second one: that much is there after the fence.
    let written = Event::WriteBack { at: 0 };
    let media = replayed(&[events[0], events[1], written, events[2], Event::Fence]);
    assert_eq!(firsts(&media), [2, 3]);
}

#[test]
fn eight_bytes_are_not_torn_and_sixteen_are() {
    let media = replayed(&[store(8, &[1; 8], Through::Cache)]);
    assert_eq!(media.open()[0].1.len(), 2);
    let media = replayed(&[store(8, &[1; 16], Through::Cache)]);
    assert_eq!(media.open()[0].1.len(), 3);
    // Across two lines, and not aligned.
    let media = replayed(&[store(60, &[1; 8], Through::Cache)]);
    let open = media.open();
    assert_eq!([open[0].0, open[1].0], [0, LINE]);
    assert_eq!(open[0].1.last().unwrap()[60..], [1; 4]);
    assert_eq!(open[1].1.last().unwrap()[..5], [1, 1, 1, 1, 0]);
}

#[test]
fn what_changes_nothing_is_not_open() {
    assert!(replayed(&[store(0, &[0; 8], Through::Cache)])
        .open()
        .is_empty());
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let through = prop_oneof![
        Just(Through::Cache),
        Just(Through::Past),
        Just(Through::Locked)
    ];
    let stored = (0..240_u64, prop::collection::vec(0..3_u8, 1..=16), through)
        .prop_map(|(at, bytes, through)| store(at, &bytes, through));
    let written = (0..256_u64).prop_map(|at| Event::WriteBack { at });
    prop::collection::vec(
        prop_oneof![4 => stored, 2 => written, 1 => Just(Event::Fence)],
        0..60,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The newest contents are what the program sees, the first are what is durable, and the sum
    /// tells contents apart however they came about.
    #[test]
    fn contents_and_sums(events in events()) {
        let media = replayed(&events);
        let mut seen = vec![0; 256];
        for event in &events {
            if let Event::Store { at, len, value, .. } = event {
                seen[*at as usize..][..usize::from(*len)]
                    .copy_from_slice(&value[..usize::from(*len)]);
            }
        }
        let mut newest = media.durable().to_vec();
        for (at, contents) in media.open() {
            prop_assert_eq!(line(media.durable(), at), &contents[0]);
            newest[at as usize..][..64].copy_from_slice(contents.last().unwrap());
        }
        prop_assert_eq!(&newest, &seen);
        let zero = vec![0; 256];
        let lines = (0..256).step_by(64);
        let sum = lines.map(|at| change(at, line(&zero, at), line(media.durable(), at)));
        prop_assert_eq!(sum.fold(0, u128::wrapping_add), media.sum());
        prop_assert_eq!(media.sum() == 0, media.durable() == zero);
        prop_assert_eq!(media.drain(), seen);
    }
}
