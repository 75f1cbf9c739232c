// SPDX-License-Identifier: GPL-2.0

//! Recordings: what is written is read, and what is not whole is refused.

use pmem_crash_model::trace::{Error, Event, Through, Trace, Writer};

fn events() -> Vec<Event> {
    let mut value = [0; 16];
    value[..3].copy_from_slice(&[1, 2, 3]);
    let store = |through| Event::Store {
        at: 4093,
        len: 3,
        value,
        through,
    };
    let (kind, number) = (1, u64::MAX);
    vec![
        store(Through::Cache),
        store(Through::Past),
        store(Through::Locked),
        Event::WriteBack { at: 4000 },
        Event::Fence,
        Event::Mark { kind, number },
    ]
}

fn written(events: &[Event]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, 4096).unwrap();
    events.iter().for_each(|event| writer.push(event).unwrap());
    writer.finish().unwrap();
    bytes
}

#[test]
fn what_is_written_is_read() {
    let trace = Trace::read(&written(&events())[..]).unwrap();
    assert_eq!((trace.len, trace.events), (4096, events()));
}

#[test]
fn what_is_cut_off_is_refused() {
    let whole = written(&events());
    for len in 8..whole.len() {
        assert!(
            matches!(Trace::read(&whole[..len]), Err(Error::CutOff)),
            "{len}"
        );
    }
    assert!(matches!(Trace::read(&whole[1..]), Err(Error::Foreign)));
}

#[test]
fn what_lies_outside_is_refused() {
    let outside = Event::WriteBack { at: 4097 };
    assert!(matches!(
        Trace::read(&written(&[outside])[..]),
        Err(Error::Damaged(16))
    ));
    let mut unknown = written(&[Event::Fence]);
    unknown[16] = 99;
    assert!(matches!(Trace::read(&unknown[..]), Err(Error::Damaged(16))));
}
