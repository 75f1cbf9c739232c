// SPDX-License-Identifier: GPL-2.0

//! What has failed has changed nothing.

mod common;

use common::*;
use rdax_volume::volume::error::Error;
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::BLOCK;

/// A file of more extents than one transaction can move keeps them when that is refused.
#[test]
fn a_range_that_cannot_be_taken_out_stays() {
    let (vol, ram) = fresh(512 << 20);
    let mut file = vol.create(&mut root(&vol), b"file", &new(FILE, 1)).unwrap();
    // Each second block of unwritten extents becomes data.
    let extents = 100_000;
    let mut at = 0;
    while at < extents {
        let len = extents - at;
        at += vol.preallocate(&mut file, at, len, time(2)).unwrap().len;
    }
    for block in (0..extents).step_by(2) {
        vol.fill(&mut file, block, 1, None).unwrap();
    }
    let size = extents * BLOCK;
    vol.extend(&mut file, size, size, None).unwrap();
    let (free, raw) = (vol.free_blocks(), file.raw().clone());
    let error = vol.collapse(&mut file, 1, 1000, time(3));
    assert_eq!(error, Err(Error::TooBig));
    assert_eq!((vol.free_blocks(), file.raw()), (free, &raw));
    for block in 0..1002 {
        let map = vol.map(&file, block, 1).unwrap();
        assert_eq!(matches!(map, Map::Run { .. }), block % 2 == 0, "{block}");
    }
    assert_eq!(assert_clean(&*ram).0, free);
}
