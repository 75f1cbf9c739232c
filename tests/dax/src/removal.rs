// SPDX-License-Identifier: GPL-2.0

//! The device is taken away (its driver unbound), comes back, and belongs to somebody else, while
//! the mount that had it is still in use.
//!
//! Each scenario leaves a new volume mounted where it found one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use rdax_test_sys::{run_when_idle, Map, Userfault, PAGE};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::pipe;
use rustix::thread::gettid;

use crate::common::{
    create, errno, filled, long, open, read_at, read_page, vmsplice, wait_until, write_at,
};
use crate::counters::Counters;
use crate::evict::run_on;
use crate::{Place, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    ("a write that sleeps in its copy", write_sleeps),
    ("a read that sleeps in its copy", read_sleeps),
    ("a write in the middle of its copy", write_copies),
    ("the device comes back", comes_back),
    ("pages that an evicted inode left pinned", |place| {
        pinned(place, false)
    }),
    ("pages of an open file that are pinned", |place| {
        pinned(place, true)
    }),
];

/// What the next owner has on the device.
const NEXT: u8 = 0x77;
/// What is written to the mount that has lost it.
const LATE: u8 = 0xdd;

/// The driver of a device.
struct Driver {
    block: PathBuf,
    device: String,
    driver: PathBuf,
}

impl Driver {
    fn of(place: &Place) -> Result<Self> {
        let sys = place.counters.device();
        let device = fs::canonicalize(sys.join("device"))?;
        let name = device.file_name().context("no device")?;
        Ok(Driver {
            block: Path::new("/dev").join(sys.file_name().context("no name")?),
            device: name.to_string_lossy().into_owned(),
            driver: fs::canonicalize(device.join("driver"))?,
        })
    }

    fn unbind(&self) -> Result<()> {
        Ok(fs::write(self.driver.join("unbind"), &self.device)?)
    }

    /// Removes the device in another thread, which must not take long.
    fn unbind_at_once(&self) -> Result<()> {
        std::thread::scope(|scope| {
            let unbind = scope.spawn(|| self.unbind());
            if !wait_until(|| unbind.is_finished()) {
                eprintln!("removal of the device does not end");
                std::process::exit(1);
            }
            unbind.join().unwrap()
        })
    }

    fn bind(&self) -> Result<()> {
        fs::write(self.driver.join("bind"), &self.device)?;
        ensure!(wait_until(|| self.block.exists()), "no block device");
        Ok(())
    }

    /// All bytes of the device, past the page cache.
    fn open(&self) -> Result<File> {
        open(&self.block, OFlags::RDWR | OFlags::EXCL)
    }

    /// The device gets a new owner, all of whose bytes are [`NEXT`].
    fn take_over(&self) -> Result<()> {
        let device = self.open()?;
        let piece = vec![NEXT; 1 << 20];
        for at in 0..self.len()? >> 20 {
            write_at(&device, &piece, (at << 20) as usize)?;
        }
        Ok(device.sync_all()?)
    }

    fn len(&self) -> Result<u64> {
        let sectors = fs::read_to_string(
            Path::new("/sys/class/block")
                .join(self.block.file_name().context("no name")?)
                .join("size"),
        )?;
        Ok(sectors.trim().parse::<u64>()? * 512)
    }

    /// Not a byte of the new owner's has changed.
    fn is_untouched(&self) -> Result<()> {
        let device = self.open()?;
        let differ = (0..self.len()? >> 20)
            .map(|at| read_at(&device, 1 << 20, (at << 20) as usize))
            .map(|piece: Result<Vec<u8>>| Ok(piece?.iter().filter(|b| **b != NEXT).count()))
            .sum::<Result<usize>>()?;
        ensure!(
            differ == 0,
            "{differ} bytes of the next owner's have changed"
        );
        Ok(())
    }
}

fn run(program: &str, args: &[&Path]) -> Result<()> {
    let output = Command::new(program).args(args).output()?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A new volume on the device, mounted at `at`.
fn mount_new(driver: &Driver, at: &Path) -> Result<()> {
    run("mkfs.rdax", &["-q".as_ref(), "-f".as_ref(), &driver.block])?;
    run(
        "mount",
        &["-t".as_ref(), "rdax".as_ref(), &driver.block, at],
    )
}

/// The scenarios' end: the dead mount goes, and a new volume is mounted there.
fn again(place: &Place, driver: &Driver) -> Result<()> {
    run("umount", &[&place.dir])?;
    mount_new(driver, &place.dir)
}

/// Anonymous memory of which some pages come when a scenario wants: who touches one sleeps.
struct Missing {
    map: Map,
    pages: usize,
    present: usize,
    watch: Userfault,
}

impl Missing {
    /// `pages` pages, of which the first `present` are full of `value`, and the others are missing.
    fn new(pages: usize, present: usize, value: u8) -> Result<Self> {
        let map = Map::anonymous(pages * PAGE)?;
        (0..present * PAGE).for_each(|at| map.store(at, value));
        let watch = Userfault::missing(&map, present * PAGE, (pages - present) * PAGE)?;
        Ok(Missing {
            map,
            pages,
            present,
            watch,
        })
    }

    /// Waits until somebody sleeps for a page that is missing.
    fn wait_for_sleeper(&self) -> Result<()> {
        let sleeps = self.watch.wait_for_sleeper(long())?;
        ensure!(sleeps, "nobody touched a missing page");
        // It is about to sleep.
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }

    /// The missing pages come, full of `value`.
    fn come(&self, value: u8) -> Result<()> {
        for nth in self.present..self.pages {
            self.watch.come(&self.map, nth * PAGE, &[value; PAGE])?;
        }
        Ok(())
    }
}

/// How many pages a copy is of that sleeps in the middle.
const PAGES: usize = 32;

fn write_sleeps(place: &Place) -> Result<()> {
    let driver = Driver::of(place)?;
    let file = filled(&place.fresh("file"), PAGES)?;
    let memory = Missing::new(PAGES, PAGES / 2, 1)?;
    std::thread::scope(|scope| {
        let write = scope.spawn(|| memory.map.write_from(0, PAGES * PAGE, &file, 0));
        memory.wait_for_sleeper()?;
        driver.unbind_at_once()?;
        driver.bind()?;
        driver.take_over()?;
        memory.come(LATE)?;
        let written = write.join().unwrap();
        ensure!(
            written.as_ref().is_ok_and(|n| *n <= PAGES / 2 * PAGE)
                || written.as_ref().is_err_and(|e| e.errno() == Errno::IO),
            "{written:?}"
        );
        driver.is_untouched()
    })?;
    drop(file);
    again(place, &driver)
}

fn read_sleeps(place: &Place) -> Result<()> {
    let driver = Driver::of(place)?;
    let file = filled(&place.fresh("file"), PAGES)?;
    let memory = Missing::new(PAGES, PAGES / 2, 0)?;
    std::thread::scope(|scope| {
        let read = scope.spawn(|| memory.map.read_into(0, PAGES * PAGE, &file, 0));
        memory.wait_for_sleeper()?;
        driver.unbind_at_once()?;
        driver.bind()?;
        driver.take_over()?;
        memory.come(0)?;
        let read = read.join().unwrap();
        ensure!(
            read.as_ref().is_ok_and(|n| *n <= PAGES / 2 * PAGE)
                || read.as_ref().is_err_and(|e| e.errno() == Errno::IO),
            "{read:?}"
        );
        let seen = (0..PAGES * PAGE).filter(|at| memory.map.load(*at) == NEXT);
        let seen = seen.count();
        ensure!(seen == 0, "{seen} bytes of the next owner's were read");
        Ok(())
    })?;
    drop(file);
    again(place, &driver)
}

/// A copy that does not sleep, but has little of its processor: removal waits for it all the same.
fn write_copies(place: &Place) -> Result<()> {
    const LEN: usize = 32 << 20;
    /// By then, removal is over that does not wait.
    const LONG: Duration = Duration::from_millis(1500);
    let driver = Driver::of(place)?;
    let file = create(&place.fresh("file"))?;
    let data = vec![LATE; LEN];
    write_at(&file, &data, 0)?;
    let (busy, end) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (started, copier) = channel();
        let (file, data, busy, end) = (&file, &data, &busy, &end);
        let write = scope.spawn(move || {
            run_on(1)?;
            run_when_idle()?;
            started.send(gettid().as_raw_nonzero())?;
            while !end.load(Relaxed) {
                write_at(file, data, 0)?;
            }
            anyhow::Ok(())
        });
        scope.spawn(move || {
            let _ = run_on(1);
            while !end.load(Relaxed) {
                match busy.load(Relaxed) {
                    true => std::hint::spin_loop(),
                    false => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let copier = copier.recv();
        end.store(copier.is_err(), Relaxed);
        let stack = format!("/proc/self/task/{}/stack", copier?);
        let copies = || fs::read_to_string(&stack).is_ok_and(|at| at.contains("flushcache"));
        // Until the other thread takes the processor in the middle of a copy.
        let found = (0..200).any(|_| {
            busy.store(false, Relaxed);
            std::thread::sleep(Duration::from_millis(7));
            busy.store(true, Relaxed);
            std::thread::sleep(Duration::from_millis(20));
            copies()
        });
        let (start, unbind) = (Instant::now(), scope.spawn(|| driver.unbind()));
        while !unbind.is_finished() && start.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Once it is over, no copy begins.
        let too_early = unbind.is_finished() && copies();
        if too_early {
            println!("        the device is gone, and a copy to it goes on");
        }
        end.store(true, Relaxed);
        let written = write.join().unwrap();
        ensure!(wait_until(|| unbind.is_finished()), "removal does not end");
        unbind.join().unwrap()?;
        ensure!(found, "no copy was interrupted");
        ensure!(!too_early, "a copy was not waited for");
        ensure!(errno(written) == Some(Errno::IO), "the write did not fail");
        Ok(())
    })?;
    drop(file);
    driver.bind()?;
    again(place, &driver)
}

fn comes_back(place: &Place) -> Result<()> {
    let driver = Driver::of(place)?;
    let file = filled(&place.fresh("file"), 4)?;
    let map = Map::shared(&file, 4 * PAGE)?;
    map.store(0, LATE);
    driver.unbind_at_once()?;
    ensure!(
        place.counters.read("fences").is_err(),
        "the counters of a device that is gone are shown"
    );
    driver.bind()?;
    let second = std::env::current_dir()?.join("second");
    fs::create_dir_all(&second)?;
    mount_new(&driver, &second)?;
    let counters = Counters::find(&second)?;
    let before = counters.read("fences")?;
    write_at(&create(&second.join("new"))?, b"new", 0)?;
    ensure!(
        counters.read("fences")? > before,
        "whose counters are these?"
    );
    // The dead one stays dead.
    ensure!(errno(file.sync_all()) == Some(Errno::IO));
    ensure!(errno(read_at(&file, 1, 0)) == Some(Errno::IO));
    ensure!(errno(create(&place.dir.join("other"))) == Some(Errno::IO));
    drop((map, file));
    run("umount", &[&place.dir])?;
    counters
        .read("fences")
        .context("the other's counters went")?;
    ensure!(fs::read(second.join("new"))? == b"new");
    run("umount", &[&second])?;
    run("fsck.rdax", &["-n".as_ref(), &driver.block])?;
    mount_new(&driver, &place.dir)
}

/// Removal waits for a pinned page of a file, which is open, or has no name and has left memory.
fn pinned(place: &Place, open: bool) -> Result<()> {
    let driver = Driver::of(place)?;
    let path = place.fresh("file");
    let (reader, writer) = pipe()?;
    let file = filled(&path, 4)?;
    {
        let map = Map::shared(&file, 4 * PAGE)?;
        vmsplice(&writer, &map, PAGE)?;
    }
    let file = open.then_some(file);
    if !open {
        fs::remove_file(&path)?;
    }
    std::thread::scope(|scope| {
        let unbind = scope.spawn(|| driver.unbind());
        std::thread::sleep(std::time::Duration::from_millis(300));
        ensure!(!unbind.is_finished(), "the pin was not waited for");
        ensure!(read_page(&reader)? == [2; PAGE]);
        drop((reader, writer));
        ensure!(wait_until(|| unbind.is_finished()), "removal does not end");
        unbind.join().unwrap()
    })?;
    drop(file);
    driver.bind()?;
    again(place, &driver)
}
