// SPDX-License-Identifier: GPL-2.0

//! What every repair must achieve: damage is reported and repaired for good; nothing that was not
//! damaged is lost, wherever the repair is cut off.

use std::collections::BTreeSet;
use std::panic::{catch_unwind, AssertUnwindSafe};

use rdax_fsck::repair::{repair, restore_super_blocks, Level, Line, Outcome};
use rdax_volume::sim::{Bounds, Image, Sim};
use rdax_volume::volume::error::{Result, Structure};
use rdax_volume::volume::extent::unpack;
use rdax_volume::volume::format::BLOCK;
use rdax_volume::volume::namespace::SetAttr;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::xattr::Must;

use crate::bed::{mount, Bed, BYTES};
use crate::common::mount_only;
use crate::common::tree::{walk, Body, Tree};

/// Crash states looked at for each fence, unless RDAX_CRASH_STATES says otherwise.
const PER_FENCE: u64 = 3;

/// Other inodes with extended attributes than "tagged": of each type, with and without a tree.
pub const ALSO_TAGGED: [&str; 6] = ["small", "dir", "many", "short", "long", "fifo"];

/// The bed with data in its files that is nowhere else, and more inodes with extended attributes.
pub fn filled() -> Bed {
    let bed = Bed::new();
    for name in ["file", "small", "twin1", "twin2"] {
        let raw = bed.raw(name);
        let extents: Vec<_> = match raw.depth {
            0 => raw.root[..raw.root_count.get().into()].to_vec(),
            _ => bed
                .get::<[rdax_volume::volume::format::Extent; 20]>(bed.node_at(name) + 64)
                .to_vec(),
        };
        for m in extents.iter().map(unpack) {
            for block in m.block..m.block + m.len {
                let line = format!("{name} block {block} ");
                let bytes: Vec<u8> = line.bytes().cycle().take(BLOCK as usize).collect();
                bed.ram.store(block * BLOCK, &bytes).unwrap();
            }
        }
    }
    let vol = mount(&bed.ram);
    for name in ALSO_TAGGED {
        let mut inode = vol.iget(bed.ino(name)).unwrap();
        for (attribute, len) in [("user.a", 20), ("user.b", 9000), ("user.c", 513)] {
            let value: Vec<u8> = format!("{name} {attribute} ")
                .bytes()
                .cycle()
                .take(len)
                .collect();
            let (attribute, set) = (attribute.as_bytes(), SetAttr::default());
            vol.set_xattr(&mut inode, attribute, Some(&value), Must::BeNew, &set)
                .unwrap();
        }
    }
    drop(vol);
    bed
}

/// The same content in memory that can be cut off.
pub fn sim_of(bed: &Bed) -> Sim {
    let mut bytes = vec![0; BYTES as usize];
    bed.ram.read(0, &mut bytes).unwrap();
    let mut image = Image::default();
    for (at, block) in (0..)
        .step_by(BLOCK as usize)
        .zip(bytes.chunks(BLOCK as usize))
    {
        if block.iter().any(|&b| b != 0) {
            image.write(at, block);
        }
    }
    Sim::from_image(BYTES, image)
}

/// As `fsck.rdax` does it. Returns also what was said.
pub fn run(pmem: &dyn Pmem, level: Level) -> (Result<Outcome>, Vec<Line>) {
    let mut lines = Vec::new();
    let mut say = |line| lines.push(line);
    let result = restore_super_blocks(pmem, &mut say).and_then(|()| repair(pmem, level, &mut say));
    (result, lines)
}

pub fn text(lines: &[Line]) -> String {
    let lines = lines.iter().map(|line| match line {
        Line::Found(problem) => problem.to_string(),
        Line::Done(text) => format!("-> {text}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Repairs everything, and fails unless nothing is wrong then and a second repair has nothing to
/// do.
pub fn mend(sim: &Sim) -> Result<String, String> {
    let (outcome, lines) = run(sim, Level::All);
    let said = text(&lines);
    let outcome = outcome.map_err(|e| format!("{e}\n{said}"))?;
    if !outcome.left.is_empty() || outcome.unfinished {
        return Err(format!(
            "left: {}\n{said}",
            crate::bed::lines(&outcome.left)
        ));
    }
    sim.reset_stats();
    let (again, lines) = run(sim, Level::All);
    let stats = sim.stats();
    if again.is_err() || !lines.is_empty() || stats.lines_stored + stats.lines_nt > 0 {
        return Err(format!(
            "a second repair found: {}\nthe first: {said}",
            text(&lines)
        ));
    }
    Ok(said)
}

/// Fails unless everything in `before` is there, as it was, but for the inodes in `hit`. Of a
/// directory only that it is there: names may be lost with leaves.
pub fn kept(sim: &Sim, before: &Tree, hit: &BTreeSet<u64>) -> Result<(), String> {
    let after = walk(&mount_only(sim)).map_err(|e| format!("walking: {e}"))?;
    for (ino, was) in before.iter().filter(|(ino, _)| !hit.contains(ino)) {
        let Some(is) = after.get(ino) else {
            return Err(format!("inode {ino} is lost"));
        };
        let dir = matches!(was.body, Body::Dir(_));
        let same = dir || (was.body == is.body && was.mtime == is.mtime);
        if was.mode != is.mode || was.xattrs != is.xattrs || !same {
            return Err(format!("inode {ino} is not what it was"));
        }
    }
    Ok(())
}

/// What can be seen of a sound volume.
pub fn tree_of(bed: &Bed) -> Tree {
    walk(&mount_only(&sim_of(bed))).unwrap()
}

/// Repairs the bed after `damage`, which says which structure it has damaged and where, and changes
/// no other inodes than `hit`. With `safe`, `-p` repairs it, too; else `-p` does nothing.
#[track_caller]
pub fn mended(hit: &[&str], safe: bool, damage: impl Fn(&Bed) -> (Structure, u64)) -> String {
    let bed = filled();
    let before = tree_of(&bed);
    let hit: BTreeSet<u64> = hit.iter().map(|name| bed.ino(name)).collect();
    let (what, at) = damage(&bed);
    let damaged = sim_of(&bed).content();
    let copy = || Sim::from_image(BYTES, damaged.clone());

    let sim = copy();
    let (outcome, lines) = run(&sim, Level::Safe);
    let named = |line: &Line| matches!(line, Line::Found(p) if (p.what, p.at) == (what, at));
    assert!(
        lines.iter().any(named),
        "{what} at {at:#x} is not named:\n{}",
        text(&lines)
    );
    if safe {
        assert!(outcome.unwrap().left.is_empty(), "{}", text(&lines));
        kept(&sim, &before, &hit).unwrap();
    } else {
        assert!(!outcome.unwrap().left.is_empty(), "{}", text(&lines));
        let done = lines.iter().any(|line| matches!(line, Line::Done(_)));
        assert!(!done, "-p has done something:\n{}", text(&lines));
    }

    let sim = copy();
    sim.record();
    let (_, lines) = run(&sim, Level::All);
    let trace = sim.take_trace();
    let said = text(&lines);
    mend(&sim).unwrap_or_else(|e| panic!("{e}\nafter: {said}"));
    kept(&sim, &before, &hit).unwrap_or_else(|e| panic!("{e}\n{said}"));

    let states = std::env::var("RDAX_CRASH_STATES").ok();
    let bounds = Bounds {
        per_fence: states.map_or(PER_FENCE, |n| n.parse().expect("a number")),
        seed: 1,
    };
    trace.for_each_crash(bounds, |crash| {
        let result = catch_unwind(AssertUnwindSafe(|| {
            mend(&crash.sim).and_then(|_| kept(&crash.sim, &before, &hit))
        }));
        match result {
            Ok(Ok(())) => {}
            Ok(Err(e)) => panic!("{crash}: {e}\nthe first repair: {said}"),
            Err(_) => panic!("{crash}: panicked\nthe first repair: {said}"),
        }
    });
    said
}
