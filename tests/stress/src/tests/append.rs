// SPDX-License-Identifier: GPL-2.0

//! Files that grow under their readers.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::{ensure, Context, Result};
use rdax_test_sys::Fault;

use crate::record::{describe_slot, SLOT};
use crate::slots::Tracked;
use crate::stream;
use crate::sys::{Map, PAGE};
use crate::test::{nothing, Test, Worker};

/// Appends by write(2), read through mappings.
pub const APPEND: Test = Test {
    name: "append",
    about: "appends of any length by write(2), truncation to nothing; readers map past the end",
    setup: |setup| {
        let (size, workers) = (setup.run().size, setup.run().workers.div_ceil(2));
        let bytes = size / 2 / u64::from(workers);
        for writer in 0..workers {
            let path = setup.run().dir.join(format!("log{writer}"));
            std::fs::File::create_new(&path)?;
            setup.stream(path, bytes / PAGE * PAGE)?;
        }
        Ok(())
    },
    run: append,
    finish: nothing,
    keep: true,
};

fn append(w: &mut Worker) -> Result<()> {
    if w.index % 2 == 0 {
        return writer(w);
    }
    while w.running() {
        let files = &w.run.files;
        let file = &files[w.rng.usize(0..files.len())];
        look(w, file)?;
        w.count(1);
    }
    Ok(())
}

fn writer(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[(w.index / 2) as usize];
    let mut fd = OpenOptions::new().append(true).open(&file.path)?;
    let (mut round, mut size) = (1, 0);
    begin_and(w, file, round, size, || Ok(()))?;
    while w.running() {
        let most = if w.one_in(4) { 12_000 } else { 300 };
        let len = w.rng.u64(1..=most);
        if size + len > file.bytes() {
            round += 1;
            size = 0;
            begin_and(w, file, round, size, || fd.set_len(0).context("truncate"))?;
        }
        let bytes = stream::bytes(file, round, size, size + len);
        size += len;
        begin_and(w, file, round, size, || {
            let wrote = fd.write(&bytes).context("append")?;
            ensure!(
                wrote == bytes.len(),
                "write(2) of {} wrote {wrote}",
                bytes.len()
            );
            Ok(())
        })?;
        match w.rng.u32(0..16) {
            0 => file.fsync(&w.log, &fd, false)?,
            1 => file.fsync(&w.log, &fd, true)?,
            _ => (),
        }
        w.count(1);
    }
    Ok(())
}

fn begin_and(
    w: &Worker,
    file: &Tracked,
    round: u64,
    size: u64,
    change: impl FnOnce() -> Result<()>,
) -> Result<()> {
    file.ledger
        .begin(&w.log, 0, stream::generation(round, size))?;
    change()?;
    file.ledger.finish(0);
    Ok(())
}

/// Maps all the file may become and looks at a few places.
fn look(w: &mut Worker, file: &Tracked) -> Result<()> {
    let fd = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&file.path)?;
    let map = Map::shared(&fd, 0, file.bytes()).context("mmap")?;
    for _ in 0..16 {
        let (round, size) = stream::position(file.ledger.stored(0));
        if size == 0 {
            std::thread::yield_now();
            continue;
        }
        // Mostly near the end, where pages appear.
        let back = if w.rng.bool() {
            size
        } else {
            size.min(2 * PAGE)
        };
        let slot = (size - w.rng.u64(1..=back)) / SLOT;
        let mut found = [0; SLOT as usize];
        let loaded = map.load(slot * SLOT, &mut found);
        if stream::position(file.ledger.begun(0)).0 != round {
            continue;
        }
        ensure!(
            loaded != Err(Fault::Bus),
            file.mismatch(slot, format!("{size} bytes at least"), "SIGBUS".into())
        );
        let expected = stream::contents(file, round, slot);
        let known = ((size - slot * SLOT) as usize).min(found.len());
        let held = found[..known] == expected[..known]
            && found[known..]
                .iter()
                .zip(&expected[known..])
                .all(|(f, e)| *f == 0 || f == e);
        ensure!(
            held,
            file.mismatch(
                slot,
                format!("round {round}"),
                format!("{} (mapped)", describe_slot(&found))
            )
        );
    }
    Ok(())
}
