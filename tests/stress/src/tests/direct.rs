// SPDX-License-Identifier: GPL-2.0

//! read(2) and write(2) whose buffer is a mapping of the same file.

use std::fs::File;

use anyhow::{ensure, Context, Result};

use crate::record::{describe_slot, SLOT};
use crate::slots::{Owner, Rule, SlotFile, Tracked, View};
use crate::sys::{self, Map, PAGE};
use crate::test::{nothing, Test, Worker};

/// I/O from a mapping to its own file and back.
pub const DIRECT: Test = Test {
    name: "direct",
    about: "O_DIRECT and buffered I/O whose buffer maps the same file, the same page, a hole",
    setup: |setup| {
        let (size, workers) = (setup.run().size, setup.run().workers);
        let bytes = size / 4 / u64::from(workers);
        for worker in 0..workers {
            setup.half_filled(
                &format!("file{worker}"),
                bytes,
                Owner::Slots(1),
                Rule::Exact,
            )?;
        }
        Ok(())
    },
    run: direct,
    finish: nothing,
    keep: true,
};

/// One worker's view of its file: the slots, and beside them as many pages to copy to, which lie
/// past the slots until the end of the test.
struct Scene<'a> {
    file: &'a Tracked,
    buffered: File,
    direct: File,
    map: Map,
}

fn direct(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[w.index as usize];
    let buffered = sys::open(&file.path)?;
    buffered.set_len(2 * file.bytes())?;
    let direct = sys::open_direct(&file.path)?;
    let map = Map::shared(&buffered, 0, 2 * file.bytes()).context("mmap")?;
    let scene = Scene {
        file,
        buffered,
        direct,
        map,
    };
    while w.running() {
        for _ in 0..4 {
            let slot = w.own(file, 0);
            file.must_store(&w.log, &scene.map, 0, slot)?;
        }
        let pages = w.pages(file, 8);
        let len = pages.end - pages.start;
        let copy = file.bytes() + pages.start;
        let fd = if w.rng.bool() {
            &scene.direct
        } else {
            &scene.buffered
        };
        match w.rng.u32(0..6) {
            // Out of the mapping into other pages, perhaps holes.
            0 => {
                scene.maybe_punch(w, copy, len)?;
                whole(
                    scene.map.write_from(pages.start, len, fd, copy),
                    len,
                    "write",
                )?;
            }
            // Into the mapping from other pages; perhaps the buffer is a hole.
            1 => {
                scene.maybe_punch(w, copy, len)?;
                whole(scene.map.read_into(copy, len, fd, pages.start), len, "read")?;
            }
            // The same pages on both sides.
            2 => {
                whole(
                    scene.map.write_from(pages.start, len, fd, pages.start),
                    len,
                    "write",
                )?;
                whole(
                    scene.map.write_from(pages.start, len, fd, copy),
                    len,
                    "write",
                )?;
            }
            3 => {
                whole(
                    scene.map.read_into(pages.start, len, fd, pages.start),
                    len,
                    "read",
                )?;
                whole(scene.map.read_into(copy, len, fd, pages.start), len, "read")?;
            }
            // From the copy back to where it came from.
            4 => {
                whole(
                    scene.map.write_from(pages.start, len, fd, copy),
                    len,
                    "write",
                )?;
                whole(
                    scene.map.write_from(copy, len, fd, pages.start),
                    len,
                    "write",
                )?;
            }
            // A hole as the source: zeroes arrive, and arrive again over data.
            _ => {
                scene.copy_hole(fd, copy)?;
                whole(
                    scene.map.write_from(pages.start, len, fd, copy),
                    len,
                    "write",
                )?;
            }
        }
        scene.compare(file, &pages, copy)?;
        match w.rng.u32(0..4) {
            0 => file.fsync(&w.log, &scene.buffered, false)?,
            1 => file.msync(&w.log, &scene.map, 0, pages)?,
            _ => (),
        }
        w.count(6);
    }
    drop(scene.map);
    scene.buffered.set_len(file.bytes())?;
    Ok(())
}

/// A transfer of `len` bytes must be whole.
fn whole(result: std::io::Result<usize>, len: u64, what: &str) -> Result<()> {
    let done = result.with_context(|| format!("{what}(2) with a mapping as buffer"))?;
    ensure!(
        done as u64 == len,
        "{what}(2) of {len} bytes with a mapping as buffer did {done}"
    );
    Ok(())
}

impl Scene<'_> {
    fn maybe_punch(&self, w: &mut Worker, offset: u64, len: u64) -> Result<()> {
        if w.rng.bool() {
            sys::punch(&self.buffered, offset, len).context("punch")?;
        }
        Ok(())
    }

    /// Makes the page at `copy` a hole, copies it out of the mapping over data in the page that
    /// ends the file, and looks for anything but zeroes there.
    fn copy_hole(&self, fd: &File, copy: u64) -> Result<()> {
        let last = 2 * self.file.bytes() - PAGE;
        if last == copy {
            return Ok(());
        }
        let filled = self.map.store(last, &[0x5a; PAGE as usize]);
        ensure!(filled.is_ok(), "{filled:?} inside of the file");
        sys::punch(&self.buffered, copy, PAGE).context("punch")?;
        whole(self.map.write_from(copy, PAGE, fd, last), PAGE, "write")?;
        let mut found = [0xff; PAGE as usize];
        ensure!(
            self.map.load(last, &mut found).is_ok(),
            "a fault inside of the file"
        );
        ensure!(
            found == [0; PAGE as usize],
            self.file.mismatch(
                last / SLOT,
                "zeroes of a hole".into(),
                format!("{:02x}", found[0])
            )
        );
        Ok(())
    }

    /// The pages and their copy hold what the ledger says, mapped and read.
    fn compare(&self, file: &SlotFile, pages: &std::ops::Range<u64>, copy: u64) -> Result<()> {
        for slot in file.covered(pages) {
            let moved = (copy - pages.start) / SLOT + slot;
            let expected = file.identity(slot).contents(self.file.ledger.stored(slot));
            for (view, how) in [
                (View::Map(&self.map), "mapped"),
                (View::Read(&self.buffered), "read"),
            ] {
                for place in [slot, moved] {
                    let found = view.slot(place)?.unwrap_or([0; SLOT as usize]);
                    ensure!(
                        found == expected,
                        file.mismatch(
                            place,
                            describe_slot(&expected),
                            format!("{} ({how})", describe_slot(&found))
                        )
                    );
                }
            }
        }
        Ok(())
    }
}
