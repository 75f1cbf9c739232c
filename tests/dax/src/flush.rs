// SPDX-License-Identifier: GPL-2.0

//! What reaches the device beside the cache lines: MAP_SYNC where its DAX is synchronous, and
//! flushes where it is not.

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use rdax_test_sys::{Map, PAGE};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

use crate::common::{create, errno, fallocate, filled, read_at, syncfs, write_at};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("MAP_SYNC, where DAX is synchronous", map_sync),
    ("flushes of the device, where it is not", flushes),
    (
        "a change of metadata is flushed before it returns",
        metadata,
    ),
];

impl Place {
    /// Whether what has left the CPU's cache is durable: on NVDIMMs, not on virtio-pmem.
    pub fn is_synchronous(&self) -> Result<bool> {
        let device = self.counters.device();
        let device = fs::canonicalize(&device).with_context(|| device.display().to_string())?;
        Ok(!device.to_string_lossy().contains("/virtio"))
    }
}

const TRACING: &str = "/sys/kernel/tracing";

/// Counts the flushes that the driver is asked for.
struct Flushes;

impl Flushes {
    fn new() -> Result<Self> {
        let control = Path::new(TRACING);
        fs::write(control.join("kprobe_events"), "p:rdax_flush nvdimm_flush")?;
        fs::write(control.join("events/kprobes/rdax_flush/enable"), "1")?;
        Ok(Flushes)
    }

    fn count(&self) -> Result<u64> {
        let profile = fs::read_to_string(Path::new(TRACING).join("kprobe_profile"))?;
        let mut words = profile.split_whitespace();
        words
            .find(|word| *word == "rdax_flush")
            .and_then(|_| words.next()?.parse().ok())
            .context("no rdax_flush in kprobe_profile")
    }

    fn during(&self, work: impl FnOnce() -> Result<()>) -> Result<u64> {
        let before = self.count()?;
        work()?;
        Ok(self.count()? - before)
    }
}

impl Drop for Flushes {
    fn drop(&mut self) {
        let control = Path::new(TRACING);
        let _ = fs::write(control.join("events/kprobes/rdax_flush/enable"), "0");
        let _ = fs::write(control.join("kprobe_events"), "");
    }
}

fn map_sync(place: &Place) -> Result<()> {
    let file = create(&place.fresh("a"))?;
    file.set_len(4 * PAGE as u64)?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let map = |flags| Map::new(&file, 4 * PAGE, protection, flags);
    map(MapFlags::SHARED_VALIDATE)?.store(0, 6);
    let synced = map(MapFlags::SHARED_VALIDATE | MapFlags::SYNC);
    if !place.is_synchronous()? {
        ensure!(errno(synced) == Some(Errno::OPNOTSUPP), "MAP_SYNC");
        return Ok(());
    }
    let synced = synced?;
    file.sync_all()?;
    // A store to a hole: block and size are durable before it can happen.
    let lines = place.counters.read("journal_lines")?;
    synced.store(PAGE, 7);
    ensure!(place.counters.read("journal_lines")? > lines);
    // msync works as everywhere.
    place
        .counters
        .expect(&[("pages_written_back", 1), ("fences", 1)], || {
            Ok(synced.msync(0, 4 * PAGE, MsyncFlags::SYNC)?)
        })?;
    ensure!(read_at(&file, 1, PAGE)? == [7]);
    Ok(())
}

fn flushes(place: &Place) -> Result<()> {
    let file = filled(&place.fresh("a"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    let flushes = Flushes::new()?;
    let each = u64::from(!place.is_synchronous()?);
    let expect = |what: &str, times: u64, work: &dyn Fn() -> Result<()>| {
        let got = flushes.during(work)?;
        ensure!(
            got == times * each,
            "{what}: {got} flushes, not {}",
            times * each
        );
        Ok(())
    };
    expect("stores", 0, &|| {
        (0..4).for_each(|page| map.store(page * PAGE, 9));
        Ok(())
    })?;
    expect("msync", 1, &|| Ok(map.msync(0, PAGE, MsyncFlags::SYNC)?))?;
    expect("msync of what is clean", 0, &|| {
        Ok(map.msync(0, PAGE, MsyncFlags::SYNC)?)
    })?;
    expect("fdatasync of three pages", 1, &|| Ok(file.sync_data()?))?;
    map.store(0, 10);
    expect("write(2), and what was stored", 2, &|| {
        write_at(&file, b"x", PAGE)?;
        Ok(file.sync_data()?)
    })?;
    map.store(0, 11);
    let got = flushes.during(|| syncfs(&file))?;
    // The VFS flushes the block device itself, too.
    ensure!(got >= each, "syncfs: {got} flushes");
    Ok(())
}

fn metadata(place: &Place) -> Result<()> {
    let flushes = Flushes::new()?;
    let file = create(&place.fresh("a"))?;
    let least = u64::from(!place.is_synchronous()?);
    let path = place.dir.join("b");
    let works: [(&str, &dyn Fn() -> Result<()>); 4] = [
        ("fallocate", &|| {
            Ok(fallocate(
                &file,
                FallocateFlags::empty(),
                0,
                4 * PAGE as u64,
            )?)
        }),
        ("create", &|| create(&path).map(|_| ())),
        ("unlink", &|| Ok(fs::remove_file(&path)?)),
        ("truncate", &|| Ok(file.set_len(PAGE as u64)?)),
    ];
    for (what, work) in works {
        let got = flushes.during(work)?;
        ensure!(
            got >= least && (least > 0 || got == 0),
            "{what}: {got} flushes"
        );
    }
    Ok(())
}
