// SPDX-License-Identifier: GPL-2.0

//! Memory errors: the block is written anew, which clears them, and what is lost is mended.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;

use rdax_fsck::repair::Level;
use rdax_volume::ram::Ram;
use rdax_volume::volume::format::{BLOCK, LANE_BODY, LANE_BYTES};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{Error, Result};

use crate::bed::{Bed, BYTES};
use crate::mended::{filled, kept, run, sim_of, text, tree_of};
use crate::weighed::{block_of_small, log, write};

/// A memory with bytes that are bad until the block they are in is written.
struct Bad<'a> {
    ram: &'a Ram,
    bad: Mutex<Option<Range<u64>>>,
}

impl Bad<'_> {
    fn check(&self, at: u64, len: u64) -> Result<()> {
        let bad = self.bad.lock().unwrap();
        let hits = |bad: &Range<u64>| at < bad.end && at + len > bad.start;
        match bad.as_ref().is_some_and(hits) {
            true => Err(Error::Media { at }),
            false => Ok(()),
        }
    }
}

impl Pmem for Bad<'_> {
    fn len(&self) -> u64 {
        self.ram.len()
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.check(at, buf.len() as u64)?;
        self.ram.read(at, buf)
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.check(at, bytes.len() as u64)?;
        self.ram.store(at, bytes)
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let end = at + bytes.len() as u64;
        if at % BLOCK == 0 && end % BLOCK == 0 {
            let mut bad = self.bad.lock().unwrap();
            if bad
                .as_ref()
                .is_some_and(|bad| bad.start >= at && bad.end <= end)
            {
                *bad = None;
            }
        }
        self.store(at, bytes)
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<()> {
        self.store_nt(at, &vec![0; len as usize])
    }

    fn write_back(&self, _: u64, _: u64) {}

    fn fence(&self) -> Result<()> {
        Ok(())
    }
}

/// A line of what lies at the address that `place` says is bad; no inodes but `hit` are lost.
#[track_caller]
fn bad(hit: &[&str], place: impl FnOnce(&Bed) -> u64) {
    let bed = filled();
    let before = tree_of(&bed);
    let hit: BTreeSet<u64> = hit.iter().map(|name| bed.ino(name)).collect();
    let at = place(&bed);
    let memory = Bad {
        ram: &bed.ram,
        bad: Mutex::new(Some(at..at + 64)),
    };
    let (outcome, lines) = run(&memory, Level::All);
    let said = text(&lines);
    let outcome = outcome.unwrap_or_else(|e| panic!("{e}\n{said}"));
    assert!(!lines.is_empty() && outcome.left.is_empty(), "{said}");
    assert!(memory.bad.lock().unwrap().is_none(), "still bad: {said}");
    kept(&sim_of(&bed), &before, &hit).unwrap_or_else(|e| panic!("{e}\n{said}"));
    let (again, lines) = run(&memory, Level::All);
    assert!(
        again.unwrap().left.is_empty() && lines.is_empty(),
        "{}",
        text(&lines)
    );
}

#[test]
fn at_fixed_places() {
    bad(&[], |_| 0);
    bad(&[], |_| BYTES - BLOCK);
    for lane in 0..4 {
        bad(&[], |bed| bed.lane_at(lane));
        bad(&[], |bed| bed.lane_at(lane) + 64);
    }
    bad(&[], |bed| bed.summary_at(0));
    bad(&[], |bed| bed.bitmap_at(1));
    bad(&[], |bed| bed.system_at(0));
    bad(&[], |bed| bed.system_at(1));
    bad(&[], |bed| bed.orphan_slot_at(2000));
}

/// The repair writes transactions of its own to the first lane.
#[test]
fn in_the_bodies_of_lanes() {
    for lane in 0..2 {
        for at in [LANE_BODY, BLOCK, LANE_BYTES - 64] {
            bad(&[], |bed| bed.lane_at(lane) + at);
        }
        // A transaction that is not retired: nothing of it is in place.
        bad(&[], |bed| {
            log(bed, lane, &write(block_of_small(bed) * BLOCK, 1));
            bed.lane_at(lane) + LANE_BODY
        });
    }
}

#[test]
fn in_inodes_trees_and_leaves() {
    bad(&["small"], |bed| bed.at("small"));
    bad(&[], |bed| bed.inode_chunk_at(1, bed.at("/")));
    bad(&["file"], |bed| bed.node_at("file"));
    bad(&[], |bed| bed.node_at("many"));
    bad(&[], |bed| bed.leaf_at("/"));
    bad(&[], |bed| bed.leaf_at("sub") + 64);
}

#[test]
fn in_extended_attributes() {
    bad(&["tagged"], |bed| bed.xattrs_at());
    bad(&["tagged"], |bed| (bed.value_block() + 1) * BLOCK);
}
