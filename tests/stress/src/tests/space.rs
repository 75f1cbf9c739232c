// SPDX-License-Identifier: GPL-2.0

//! Holes, and what happens when there is nothing left to fill them with.

use std::fs::File;
use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use rdax_test_sys::Fault;

use crate::rest;
use crate::slots::{Owner, Rule, Tracked, View, SLOTS_PER_PAGE};
use crate::sys::{self, Map, PAGE};
use crate::test::{nothing, Run, Setup, Skip, Test, Worker};

/// A slot is punched after so many generations.
const CYCLE: u64 = 16;

/// Holes filled by mapping and by write(2), and made again.
pub const HOLES: Test = Test {
    name: "holes",
    about: "a sparse file filled by stores and by write(2), punched again, read by all",
    setup: |setup| {
        let (size, workers) = (setup.run().size, setup.run().workers);
        setup.file("file", size, Owner::Pages(workers), Rule::Exact)?;
        setup.cycle(CYCLE);
        Ok(())
    },
    run: holes,
    finish: nothing,
    keep: true,
};

fn holes(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[0];
    let (fd, map) = file.open()?;
    while w.running() {
        let slot = w.own(file, w.index);
        let page = slot / SLOTS_PER_PAGE * SLOTS_PER_PAGE;
        let page = page..page + SLOTS_PER_PAGE;
        let to = w.rng.u64(slot..page.end) + 1;
        let done = match w.rng.u32(0..8) {
            0 => file.punch(&w.log, &fd, page)?,
            1..=2 if !(slot..to).any(|slot| file.full(slot)) => {
                file.write(&w.log, &fd, slot..to)?
            }
            _ if file.full(slot) => file.punch(&w.log, &fd, page)?,
            _ => file.must_store(&w.log, &map, 0, slot).map(|()| true)?,
        };
        ensure!(done, "no space for a write(2) to a hole, or to punch one");
        match w.rng.u32(0..16) {
            0 => file.fsync(&w.log, &fd, false)?,
            1..=3 => {
                let range = w.pages(file, 8);
                file.msync(&w.log, &map, 0, range)?;
            }
            _ => (),
        }
        for _ in 0..2 {
            let slot = w.rng.u64(0..file.slots);
            let view = if w.rng.bool() {
                View::Map(&map)
            } else {
                View::Read(&fd)
            };
            file.check(view, slot)?;
        }
        // The page just changed, as the other way of looking sees it.
        file.check(View::Map(&map), slot)?;
        file.check(View::Read(&fd), slot)?;
        w.count(1);
    }
    Ok(())
}

/// Bytes left free for the workers to fight for.
const LEFT: u64 = 3 << 20;
/// A volume with more free bytes than this is not filled.
const MOST: u64 = 8 << 30;
const BALLAST: &str = "ballast";

/// No space: SIGBUS at the store and ENOSPC from write(2), and nothing lost.
pub const ENOSPC: Test = Test {
    name: "enospc",
    about: "fills the volume: SIGBUS or ENOSPC, what was stored stays, the space comes back",
    setup: enospc_setup,
    run: enospc,
    finish: enospc_finish,
    keep: false,
};

fn enospc_setup(setup: &mut Setup) -> Result<()> {
    let workers = setup.run().workers;
    for worker in 0..workers {
        let bytes = LEFT + setup.run().size;
        setup.file(&format!("own{worker}"), bytes, Owner::Slots(1), Rule::Exact)?;
        setup.cycle(CYCLE);
    }
    let ballast = File::create_new(setup.run().dir.join(BALLAST))?;
    if sys::is_tmpfs(&ballast)? {
        bail!(Skip(
            "tmpfs takes space for holes that are only read".into()
        ));
    }
    sys::syncfs(&ballast)?;
    let free = sys::free_space(&ballast)?;
    if free > MOST {
        bail!(Skip(format!(
            "{} MiB are free, too many to fill",
            free >> 20
        )));
    }
    setup.run().mark.store(free, Relaxed);
    fill(&ballast)
}

/// Allocates all but [`LEFT`] bytes. The space that a file system says is free may also have to
/// hold what it needs to give it out, so an allocation refused is tried again with half of it.
fn fill(ballast: &File) -> Result<()> {
    let (mut end, mut most) = (0, u64::MAX);
    loop {
        let free = sys::free_space(ballast)?;
        let len = free.saturating_sub(LEFT).min(most) / PAGE * PAGE;
        if len == 0 {
            return Ok(());
        }
        match sys::fallocate(ballast, end, len) {
            Ok(()) => end += len,
            Err(error) if error.kind() == ErrorKind::StorageFull => most = len / 2,
            Err(error) => return Err(error).context("fallocate"),
        }
    }
}

fn enospc(w: &mut Worker) -> Result<()> {
    let file = &w.run.files[w.index as usize];
    let (fd, map) = file.open()?;
    let mut used = Vec::new();
    let (mut refused, mut tries) = (0u64, 0);
    // So many random slots are in more pages than are free, whatever the other workers take: on a
    // slow machine time is up before.
    let enough = 2 * file.pages();
    while w.running() || (refused == 0 && tries < enough) {
        tries += 1;
        let slot = w.own(file, 0);
        let kept = if file.full(slot) {
            true
        } else if w.one_in(3) {
            file.write(&w.log, &fd, slot..slot + 1)?
        } else {
            match file.store(&w.log, &map, 0, slot)? {
                Ok(()) => true,
                Err(Fault::Bus) => false,
                Err(Fault::Segv) => bail!("SIGSEGV in a mapping that is writable"),
            }
        };
        w.count(1);
        if kept {
            used.push(slot);
            continue;
        }
        refused += 1;
        file.check(View::Map(&map), slot)?;
        // Others have to get their share before it is given back.
        if refused % 8 != 0 {
            continue;
        }
        file.fsync(&w.log, &fd, false)?;
        give_back(w, file, &fd, &map, &mut used)?;
    }
    ensure!(
        refused > 0,
        "the volume never was full: this run tells nothing"
    );
    Ok(())
}

/// Checks all slots stored to, and punches their pages.
fn give_back(w: &Worker, file: &Tracked, fd: &File, map: &Map, used: &mut Vec<u64>) -> Result<()> {
    for &slot in &*used {
        file.check(View::Map(map), slot)?;
        file.check(View::Read(fd), slot)?;
    }
    // A volume must not be so full that nothing can be freed. XFS can be.
    let strict = crate::counters::is_rdax(&w.run.dir)?;
    for slot in used.drain(..) {
        let page = slot / SLOTS_PER_PAGE * SLOTS_PER_PAGE;
        let punched = file.punch(&w.log, fd, page..page + SLOTS_PER_PAGE)?;
        ensure!(punched || !strict, "no space to punch a hole");
    }
    Ok(())
}

fn enospc_finish(run: &Run) -> Result<()> {
    for file in &run.files {
        rest::check_all(file)?;
    }
    std::fs::remove_file(run.dir.join(BALLAST))?;
    for file in &run.files {
        sys::open(&file.path)?.set_len(0)?;
    }
    let dir = File::open(&run.dir)?;
    let before = run.mark.load(Relaxed);
    // rdax gives space back before the call returns; others may do it a little later.
    let slack = if crate::counters::is_rdax(&run.dir)? {
        0
    } else {
        before / 50
    };
    let mut free = 0;
    for _ in 0..50 {
        sys::syncfs(&dir)?;
        free = sys::free_space(&dir)?;
        if free + slack >= before || slack == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(
        free.abs_diff(before) <= slack,
        "MISMATCH {}: expected {before} bytes free as before, found {free}",
        run.dir.display()
    );
    Ok(())
}
