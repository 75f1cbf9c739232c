// SPDX-License-Identifier: GPL-2.0

//! What a page table holds that is neither a page nor nothing: the markers of userfaultfd where no
//! page is mapped, and guard pages. Accesses there end, in every kind of mapping.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{ensure, Context, Result};

use crate::sys::{check, create, filled, in_child, read_at, spawn, write_at, End, Map, PAGE};
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    (
        "loads and stores at markers of userfaultfd end, and reach the file",
        write_protect_markers,
    ),
    (
        "2 MiB that userfaultfd write-protects are loaded from and stored to",
        huge_markers,
    ),
    (
        "a marker that a sync or a truncation leaves behind",
        markers_left,
    ),
    ("guard pages end in SIGSEGV, and go", guard_pages),
];

const HUGE: usize = 2 << 20;
/// A fault that never ends is found by this, in seconds.
const LIMIT: u32 = 30;

const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;

/// Of linux/userfaultfd.h.
const UFFD_API: u64 = 0xaa;
const UFFD_USER_MODE_ONLY: i32 = 1;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_WRITEPROTECT: u64 = 0xc018_aa06;
const MODE_WP: u64 = 1 << 1;
const WRITEPROTECT_WP: u64 = 1;

/// Tracks stores to a mapping by write-protecting it (`UFFD_FEATURE_WP_ASYNC`).
pub struct Watch(OwnedFd);

impl Watch {
    /// Of `len` bytes of `map`.
    pub fn new(map: &Map, len: usize) -> Result<Watch> {
        let flags = libc::O_CLOEXEC | UFFD_USER_MODE_ONLY;
        // SAFETY: a plain system call.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let fd = check(fd as i32).context("userfaultfd")?;
        // SAFETY: it is new and ours.
        let watch = Watch(unsafe { OwnedFd::from_raw_fd(fd) });
        watch.ioctl(UFFDIO_API, [UFFD_API, UFFD_FEATURE_WP_ASYNC, 0])?;
        watch.ioctl(UFFDIO_REGISTER, [map.at(0) as u64, len as u64, MODE_WP, 0])?;
        Ok(watch)
    }

    /// Write-protects `len` bytes of `map` from `at`: pages that are not mapped get markers.
    fn protect(&self, map: &Map, at: usize, len: usize) -> Result<()> {
        self.ioctl(
            UFFDIO_WRITEPROTECT,
            [map.at(at) as u64, len as u64, WRITEPROTECT_WP],
        )
    }

    fn ioctl<const N: usize>(&self, request: u64, mut argument: [u64; N]) -> Result<()> {
        // SAFETY: the argument is as large as the request says, and the call fills it at most.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument.as_mut_ptr()) })
            .with_context(|| format!("request {request:#x} of userfaultfd"))?;
        Ok(())
    }
}

/// Runs `work` in a child that is killed if it takes too long.
fn ends(work: impl FnOnce() -> Result<()>) -> Result<()> {
    in_child(|| {
        // SAFETY: a plain system call.
        unsafe { libc::alarm(LIMIT) };
        work()
    })
}

/// A file of four pages: the first two have blocks, the others are holes.
fn half(place: &Place) -> Result<File> {
    let file = filled(&place.fresh("a"), 2)?;
    file.set_len(4 * PAGE as u64)?;
    Ok(file)
}

fn write_protect_markers(place: &Place) -> Result<()> {
    let file = half(place)?;
    ends(|| {
        let map = Map::shared(&file, 4 * PAGE)?;
        let watch = Watch::new(&map, 4 * PAGE)?;
        watch.protect(&map, 0, 4 * PAGE)?;
        ensure!(map.load(PAGE) == 2 && map.load(3 * PAGE) == 0);
        (0..4).for_each(|page| map.store(page * PAGE + 9, 7));
        // What was write-protected while it was mapped, and is unmapped then.
        watch.protect(&map, 0, 4 * PAGE)?;
        map.advise(0, 4 * PAGE, libc::MADV_DONTNEED)?;
        (0..4).for_each(|page| map.store(page * PAGE + 10, map.load(page * PAGE + 9)));
        Ok(())
    })?;
    for page in 0..4 {
        ensure!(read_at(&file, 2, page * PAGE + 9)? == [7, 7]);
    }
    ends(|| {
        let map = Map::private(&file, 4 * PAGE)?;
        let watch = Watch::new(&map, 4 * PAGE)?;
        watch.protect(&map, 0, 4 * PAGE)?;
        ensure!(map.load(9) == 7);
        map.store(9, 8);
        map.store(PAGE + 9, 8);
        ensure!(map.load(9) == 8 && map.load(PAGE + 9) == 8);
        Ok(())
    })?;
    ensure!(read_at(&file, 1, 9)? == [7], "a private store shows");
    Ok(())
}

fn huge_markers(place: &Place) -> Result<()> {
    let file = create(&place.fresh("a"))?;
    write_at(&file, &vec![5; 2 * HUGE], 0)?;
    ends(|| {
        let map = Map::shared(&file, 2 * HUGE)?;
        let watch = Watch::new(&map, 2 * HUGE)?;
        // The first is mapped by then, the second is not.
        place.counters.expect(&[("huge_faults", 0)], || {
            map.store(0, 6);
            Ok(())
        })?;
        watch.protect(&map, 0, 2 * HUGE)?;
        for at in [0, 3 * PAGE, HUGE, HUGE + 3 * PAGE] {
            ensure!(map.load(at + 1) == 5);
            map.store(at, 7);
            map.store(at + PAGE, 8);
        }
        Ok(())
    })?;
    file.sync_all()?;
    for at in [0, 3 * PAGE, HUGE, HUGE + 3 * PAGE] {
        ensure!(read_at(&file, 1, at)? == [7] && read_at(&file, 1, at + PAGE)? == [8]);
    }
    Ok(())
}

fn markers_left(place: &Place) -> Result<()> {
    let file = half(place)?;
    ends(|| {
        let map = Map::shared(&file, 4 * PAGE)?;
        let watch = Watch::new(&map, 4 * PAGE)?;
        (0..4).for_each(|page| map.store(page * PAGE, 7));
        watch.protect(&map, 0, 4 * PAGE)?;
        file.sync_all()?;
        file.set_len(PAGE as u64)?;
        file.set_len(4 * PAGE as u64)?;
        ensure!(map.load(0) == 7 && map.load(2 * PAGE) == 0);
        watch.protect(&map, 0, 4 * PAGE)?;
        // A hole that was loaded from, and is filled behind the back of the mapping.
        write_at(&file, &[9], 2 * PAGE)?;
        ensure!(map.load(2 * PAGE) == 9);
        map.store(2 * PAGE, 10);
        map.store(3 * PAGE, 10);
        Ok(())
    })?;
    ensure!(read_at(&file, 1, 2 * PAGE)? == [10] && read_at(&file, 1, 3 * PAGE)? == [10]);
    Ok(())
}

fn guard_pages(place: &Place) -> Result<()> {
    let file = half(place)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    map.advise(0, 4 * PAGE, MADV_GUARD_INSTALL)?;
    let dies = |access: &dyn Fn()| -> Result<()> {
        let child = spawn(|| {
            // SAFETY: a plain system call.
            unsafe { libc::alarm(LIMIT) };
            access();
            Ok(())
        })?;
        let end = child.wait()?;
        ensure!(end == End::Signal(libc::SIGSEGV), "{end:?}, not SIGSEGV");
        Ok(())
    };
    for page in 0..4 {
        dies(&|| {
            map.load(page * PAGE);
        })?;
        dies(&|| map.store(page * PAGE, 1))?;
    }
    map.advise(0, 4 * PAGE, MADV_GUARD_REMOVE)?;
    ensure!(map.load(PAGE) == 2 && map.load(2 * PAGE) == 0);
    map.store(2 * PAGE, 3);
    ensure!(read_at(&file, 1, 2 * PAGE)? == [3]);
    Ok(())
}
