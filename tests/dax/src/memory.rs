// SPDX-License-Identifier: GPL-2.0

//! Kernel memory: what the file system remembers of a file is charged to the memory cgroup of who
//! made it remember, and is given back when that one is full.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{ensure, Context, Result};
use rdax_test_sys::{End, Map, PAGE};
use rustix::fs::FallocateFlags;
use rustix::mount::{mount, MountFlags};
use rustix::pipe::pipe;

use crate::common::{create, fallocate, read_page, spawn, vmsplice, wait_until};
use crate::hot::WARM_UP;
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("loads of a sparse file, in a small memory cgroup", loads),
    ("stores to a sparse file, in a small memory cgroup", stores),
    ("tables of chunks, in a small memory cgroup", tables),
    (
        "what is mapped, dirty and pinned outlives reclaim",
        outlives,
    ),
    ("what is known of an open directory", directory),
    ("what is known of an open file of many extents", extents),
];

const CHUNK: usize = 2 << 20;
/// Bytes that a group may have.
const LIMIT: u64 = 8 << 20;
/// More than that in the slab, and it was not charged.
const GROWTH: u64 = 2 * LIMIT;
/// Chunks of a mapping; the mapping slides over the file.
const WINDOW: usize = 250;

/// A memory cgroup with a limit.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Group> {
        let root = PathBuf::from("/sys/fs/cgroup");
        if !root.join("cgroup.controllers").exists() {
            mount("cgroup2", &root, "cgroup2", MountFlags::empty(), None).context("cgroup2")?;
        }
        let group = Group(root.join("rdax-dax-test"));
        let _ = fs::remove_dir(&group.0);
        fs::write(root.join("cgroup.subtree_control"), "+memory").context("memory controller")?;
        fs::create_dir(&group.0)?;
        fs::write(group.0.join("memory.max"), LIMIT.to_string())?;
        Ok(group)
    }

    /// Runs `work` in a child in the group; it must not be killed. Returns by how many bytes the
    /// slab grew.
    fn run(&self, work: impl FnOnce() -> Result<()>) -> Result<u64> {
        let before = slab()?;
        let child = spawn(|| {
            fs::write(self.0.join("cgroup.procs"), "0")?;
            work()
        })?;
        let end = child.wait()?;
        ensure!(end == End::Exit(0), "in the group: {end:?}");
        Ok(slab()?.saturating_sub(before))
    }

    /// Bytes of the slab that it is charged for.
    fn slab(&self) -> Result<u64> {
        let text = fs::read_to_string(self.0.join("memory.stat"))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("slab "));
        Ok(bytes.context("no slab in memory.stat")?.parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Bytes of the kernel's slab.
fn slab() -> Result<u64> {
    meminfo("Slab:")
}

/// Bytes that /proc/meminfo says of `what`.
fn meminfo(what: &'static str) -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|line| line.starts_with(what));
    let mut words = line.context(what)?.split_whitespace();
    let kib: u64 = words.nth(1).context(what)?.parse()?;
    Ok(kib << 10)
}

/// Bytes of the slab that were freed, and given back, and that KASAN keeps for a while: up to a
/// 32nd of the memory.
fn quarantine() -> Result<u64> {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    match symbols.contains(" kasan_quarantine_put") {
        true => Ok(meminfo("MemTotal:")? / 32),
        false => Ok(0),
    }
}

/// Calls `access` with each of the `chunks` of `file`, as a mapping of [`WINDOW`] and a byte in it.
fn slide(file: &File, chunks: usize, access: impl Fn(&Map, usize)) -> Result<()> {
    for first in (0..chunks).step_by(WINDOW) {
        let map = Map::shared_at(file, (first * CHUNK) as u64, WINDOW * CHUNK)?;
        (0..WINDOW.min(chunks - first)).for_each(|chunk| access(&map, chunk * CHUNK));
    }
    Ok(())
}

/// Runs `access` on each of the `chunks` of a new sparse file, in a small group.
fn in_group(place: &Place, chunks: usize, access: impl Fn(&Map, usize)) -> Result<()> {
    let file = create(&place.fresh("sparse"))?;
    file.set_len((chunks * CHUNK) as u64)?;
    let group = Group::new()?;
    let before = place.counters.read("chunks_reclaimed")?;
    let grew = group.run(|| slide(&file, chunks, access))?;
    let reclaimed = place.counters.read("chunks_reclaimed")? - before;
    ensure!(
        grew < GROWTH + quarantine()?,
        "the slab grew by {} MiB, the limit is {}",
        grew >> 20,
        LIMIT >> 20
    );
    ensure!(reclaimed > 0, "nothing was reclaimed");
    Ok(())
}

fn loads(place: &Place) -> Result<()> {
    in_group(place, 20_000, |map, at| {
        map.load(at);
    })
}

fn stores(place: &Place) -> Result<()> {
    let chunks = 10_000;
    in_group(place, chunks, |map, at| map.store(at, 5))?;
    let file = File::open(place.dir.join("sparse"))?;
    for chunk in (0..chunks).step_by(97) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, (chunk * CHUNK) as u64)?;
        ensure!(byte == [5], "chunk {chunk} lost its store");
    }
    fs::remove_file(place.dir.join("sparse"))?;
    Ok(())
}

/// Where pages of a chunk do not follow each other on the media, it has a table of their blocks;
/// and one of fingerprints where many of them are hot. Both are charged.
fn tables(place: &Place) -> Result<()> {
    const CHUNKS: usize = 100;
    let file = create(&place.fresh("pieces"))?;
    fallocate(
        &file,
        FallocateFlags::empty(),
        0,
        ((CHUNKS + 1) * CHUNK) as u64,
    )?;
    for chunk in 0..CHUNKS {
        let at = chunk * CHUNK + 50 * PAGE;
        fallocate(&file, FallocateFlags::COLLAPSE_RANGE, at, PAGE as u64)?;
    }
    let group = Group::new()?;
    group.run(|| {
        let map = Map::shared(&file, CHUNKS * CHUNK)?;
        let store = |value| {
            for chunk in 0..CHUNKS {
                let pages = [0, 1, 2, 100, 101, 102].iter();
                pages.for_each(|page| map.store(chunk * CHUNK + page * PAGE, value));
            }
        };
        let before = group.slab()?;
        let grows = |tables: usize| {
            // It is counted after a while.
            let enough = before + (tables * CHUNKS * PAGE) as u64;
            wait_until(|| group.slab().is_ok_and(|slab| slab >= enough))
        };
        store(0);
        ensure!(grows(1), "tables of blocks are not charged");
        for round in 1..=WARM_UP {
            file.sync_data()?;
            store(round);
        }
        ensure!(grows(2), "tables of fingerprints are not charged");
        Ok(())
    })?;
    Ok(fs::remove_file(place.dir.join("pieces"))?)
}

fn outlives(place: &Place) -> Result<()> {
    let file = create(&place.fresh("a"))?;
    file.write_all_at(&[1; 4 * PAGE], 0)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    let pipe = pipe()?;
    for round in 0..20u8 {
        map.store(0, round);
        ensure!(map.load(PAGE) == 1);
        if round == 10 {
            vmsplice(&pipe.1, &map, 2 * PAGE)?;
        }
        // Each drops what was not used since the one before.
        (0..3).try_for_each(|_| fs::write("/proc/sys/vm/drop_caches", "2"))?;
        ensure!(map.load(0) == round && map.load(2 * PAGE) == 1);
    }
    ensure!(read_page(&pipe.0)? == [1; PAGE]);
    place.counters.expect(&[("pages_written_back", 1)], || {
        map.store(3 * PAGE, 9);
        file.sync_all()?;
        Ok(())
    })
}

/// Has the kernel drop what it can, which takes something of what is known of an inode.
fn forget(place: &Place) -> Result<()> {
    let before = place.counters.read("inodes_forgotten")?;
    (0..3).try_for_each(|_| fs::write("/proc/sys/vm/drop_caches", "2"))?;
    let forgotten = place.counters.read("inodes_forgotten")? - before;
    ensure!(forgotten > 0, "nothing was forgotten");
    Ok(())
}

fn extents(place: &Place) -> Result<()> {
    let file = create(&place.fresh("extents"))?;
    let at = |n: u64| 2 * n * PAGE as u64;
    for n in 0..1000 {
        file.write_all_at(&[n as u8; PAGE], at(n))?;
    }
    for n in 0..1000 {
        if n % 300 == 7 {
            forget(place)?;
            file.write_all_at(&[9; PAGE], at(n) + PAGE as u64)?;
        }
        let mut page = [0; PAGE];
        file.read_exact_at(&mut page, at(n))?;
        ensure!(page == [n as u8; PAGE], "extent {n}");
    }
    Ok(())
}

fn directory(place: &Place) -> Result<()> {
    let dir = place.dir.join("names");
    fs::create_dir(&dir)?;
    let names: Vec<PathBuf> = (0..300).map(|n| dir.join(n.to_string())).collect();
    names
        .iter()
        .try_for_each(|name| File::create(name).map(drop))?;
    let _open = File::open(&dir)?;
    forget(place)?;
    for name in &names {
        ensure!(name.exists(), "{} is gone", name.display());
        fs::remove_file(name)?;
    }
    Ok(fs::remove_dir(&dir)?)
}
