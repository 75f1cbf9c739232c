// SPDX-License-Identifier: GPL-2.0

//! What many scenarios use.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use rdax_test_sys::{fork, freeze, Child, End, Map, PAGE};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::Place;

/// `FALLOC_FL_PUNCH_HOLE`, with the flag that it wants.
pub const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// The errno of a system call that failed.
pub fn errno<T>(result: Result<T, impl Into<anyhow::Error>>) -> Option<Errno> {
    let error = result.err()?.into();
    let cause = error.root_cause();
    let errno = cause.downcast_ref::<Errno>().copied();
    errno.or_else(|| Errno::from_io_error(cause.downcast_ref::<io::Error>()?))
}

/// syncfs(2) of the file system of `file`.
pub fn syncfs(file: &File) -> Result<()> {
    rustix::fs::syncfs(file).context("syncfs")
}

/// Opens `path` for reading and writing, made empty.
pub fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| path.display().to_string())
}

/// open(2) of what is there.
pub fn open(path: &Path, flags: OFlags) -> Result<File> {
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// A file of `pages` pages that all have blocks, each full of its number + 1.
pub fn filled(path: &Path, pages: usize) -> Result<File> {
    let file = create(path)?;
    for page in 0..pages {
        write_at(&file, &[(page as u8).wrapping_add(1); PAGE], page * PAGE)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// pwrite(2), whole.
pub fn write_at(file: &File, data: &[u8], at: usize) -> Result<()> {
    file.write_all_at(data, at as u64)?;
    Ok(())
}

/// pread(2), whole.
pub fn read_at(file: &File, len: usize, at: usize) -> Result<Vec<u8>> {
    let mut data = vec![0; len];
    file.read_exact_at(&mut data, at as u64)?;
    Ok(data)
}

/// A setting in /proc/sys/vm, as long as it lives.
pub struct Sysctl {
    path: PathBuf,
    before: String,
}

impl Sysctl {
    /// Sets `name` to `value`.
    pub fn set(name: &str, value: &str) -> Result<Sysctl> {
        let path = Path::new("/proc/sys/vm").join(name);
        let before = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        fs::write(&path, value).with_context(|| path.display().to_string())?;
        Ok(Sysctl { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, &self.before);
    }
}

/// Runs `work` in a child; its error becomes exit status 1.
pub fn spawn(work: impl FnOnce() -> Result<()>) -> Result<Child> {
    Ok(fork(|| match work() {
        Ok(()) => 0,
        Err(error) => {
            println!("        in a child: {error:#}");
            1
        }
    })?)
}

/// Runs `work` in a child, which has to succeed.
pub fn in_child(work: impl FnOnce() -> Result<()>) -> Result<()> {
    match spawn(work)?.wait()? {
        End::Exit(0) => Ok(()),
        end => bail!("child ended with {end:?}"),
    }
}

/// Runs `access` in a child, which has to die of SIGBUS.
pub fn dies_of_sigbus(what: &str, access: impl FnOnce()) -> Result<()> {
    let child = spawn(|| {
        access();
        Ok(())
    })?;
    let end = child.wait()?;
    ensure!(
        end == End::Signal(Signal::BUS.as_raw()),
        "{what}: {end:?}, not SIGBUS"
    );
    Ok(())
}

/// Pins page `at` of `map` by putting it into `pipe`, uncopied.
pub fn vmsplice(pipe: &OwnedFd, map: &Map, at: usize) -> Result<()> {
    let n = map.splice(at, PAGE, pipe)?;
    ensure!(n == PAGE, "vmsplice took {n} bytes");
    Ok(())
}

/// Reads one page from a pipe.
pub fn read_page(pipe: &OwnedFd) -> Result<[u8; PAGE]> {
    let mut data = [0; PAGE];
    File::from(pipe.try_clone()?).read_exact(&mut data)?;
    Ok(data)
}

/// fallocate(2).
pub fn fallocate(file: &File, mode: FallocateFlags, at: usize, len: u64) -> rustix::io::Result<()> {
    rustix::fs::fallocate(file, mode, at as u64, len)
}

/// Free blocks of the file system of `path`.
pub fn free_blocks(path: &Path) -> Result<u64> {
    Ok(rustix::fs::statfs(path)?.f_bavail)
}

/// Runs `work`, which has to wait for the page that the pipe `(reader, writer)` pins, until after
/// `meanwhile`. Up to then the page begins with `value`.
pub fn waits_for_pin(
    (reader, writer): (OwnedFd, OwnedFd),
    value: u8,
    work: impl FnOnce() -> Result<()> + Send,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let work = scope.spawn(work);
        std::thread::sleep(Duration::from_millis(200));
        ensure!(!work.is_finished(), "it did not wait for the pin");
        meanwhile()?;
        ensure!(read_page(&reader)?[0] == value, "the pinned page changed");
        drop((reader, writer));
        ensure!(
            wait_until(|| work.is_finished()),
            "it did not go on without the pin"
        );
        work.join().unwrap()
    })
}

/// How long something may take that takes a moment on a machine that has nothing else to do: a
/// minute, times `SLOWDOWN`, which tests/run sets for a slow kernel.
pub fn long() -> Duration {
    let slowdown = std::env::var("SLOWDOWN").unwrap_or_default();
    Duration::from_secs(60) * slowdown.parse().unwrap_or(1)
}

/// Waits until `done` is true; false if it takes too [`long`].
pub fn wait_until(mut done: impl FnMut() -> bool) -> bool {
    let (start, most) = (Instant::now(), long());
    while !done() {
        if start.elapsed() > most {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Has the kernel write out all inodes, of which `pages` pages are dirty, and then drop those that
/// nobody uses. (One whose times are dirty stays, and so do its pages.)
pub fn drop_inodes(place: &Place, pages: u64) -> Result<()> {
    place.counters.expect(&[("pages_written_back", pages)], || {
        // All is clean then, pinned or not.
        let dir = File::open(&place.dir)?;
        freeze(&dir, true)?;
        freeze(&dir, false)?;
        // The flusher has to come, and has the last one in its hands for a moment still.
        let _expire = Sysctl::set("dirty_expire_centisecs", "1")?;
        let _writeback = Sysctl::set("dirty_writeback_centisecs", "10")?;
        std::thread::sleep(Duration::from_millis(800));
        Ok(fs::write("/proc/sys/vm/drop_caches", "2")?)
    })
}
