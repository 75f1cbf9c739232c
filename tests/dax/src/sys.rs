// SPDX-License-Identifier: GPL-2.0

//! System calls that std lacks, as far as the scenarios need them.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::{freeze, Place};

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// The result of a system call that returns -1 on failure.
pub fn check(status: libc::c_int) -> io::Result<libc::c_int> {
    if status == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(status)
}

/// As [`check`], for calls that return a length.
pub fn check_len(status: isize) -> io::Result<usize> {
    usize::try_from(status).map_err(|_| io::Error::last_os_error())
}

/// The errno of a system call that failed.
pub fn errno<T>(result: Result<T>) -> Option<i32> {
    result
        .err()?
        .root_cause()
        .downcast_ref::<io::Error>()?
        .raw_os_error()
}

/// syncfs(2) of the file system of `file`.
pub fn syncfs(file: &File) -> Result<()> {
    // SAFETY: a plain system call.
    check(unsafe { libc::syncfs(file.as_raw_fd()) }).context("syncfs")?;
    Ok(())
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

/// A file of `pages` pages that all have blocks, each full of its number + 1.
pub fn filled(path: &Path, pages: usize) -> Result<File> {
    let file = create(path)?;
    for page in 0..pages {
        write_at(&file, &[page as u8 + 1; PAGE], page * PAGE)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// pwrite(2), whole.
pub fn write_at(file: &File, data: &[u8], at: usize) -> Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, at as u64)?;
    Ok(())
}

/// pread(2), whole.
pub fn read_at(file: &File, len: usize, at: usize) -> Result<Vec<u8>> {
    let mut data = vec![0; len];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut data, at as u64)?;
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

/// A mapping; offsets are bytes from its start.
pub struct Map {
    base: *mut u8,
    len: usize,
}

// SAFETY: all accesses are volatile, and racing is what some scenarios are about.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes of `file` from 0, shared, readable and writable.
    pub fn shared(file: &File, len: usize) -> Result<Map> {
        Map::new(
            file,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
        )
    }

    /// Maps `len` bytes of memory that is no file's.
    pub fn anonymous(len: usize) -> Result<Map> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        Map::of(-1, len, protection, flags, 0)
    }

    /// Maps `len` bytes of `file` from 0, private, readable and writable.
    pub fn private(file: &File, len: usize) -> Result<Map> {
        Map::new(
            file,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE,
        )
    }

    /// Maps `len` bytes of `file` from 0.
    pub fn new(file: &File, len: usize, protection: i32, flags: i32) -> Result<Map> {
        Map::at_offset(file, len, protection, flags, 0)
    }

    /// Maps `len` bytes of `file` from `offset`.
    pub fn at_offset(
        file: &File,
        len: usize,
        protection: i32,
        flags: i32,
        offset: i64,
    ) -> Result<Map> {
        Map::of(file.as_raw_fd(), len, protection, flags, offset)
    }

    fn of(fd: i32, len: usize, protection: i32, flags: i32, offset: i64) -> Result<Map> {
        // SAFETY: the kernel picks the address.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("mmap");
        }
        Ok(Map {
            base: base.cast(),
            len,
        })
    }

    /// The address of byte `at`.
    pub fn at(&self, at: usize) -> *mut u8 {
        assert!(at < self.len);
        self.base.wrapping_add(at)
    }

    /// Stores one byte.
    pub fn store(&self, at: usize, value: u8) {
        // SAFETY: inside the mapping; a fault that fails ends the process, as some want it to.
        unsafe { self.at(at).write_volatile(value) };
    }

    /// Loads one byte.
    pub fn load(&self, at: usize) -> u8 {
        // SAFETY: as for `store`.
        unsafe { self.at(at).read_volatile() }
    }

    /// msync(2) of `len` bytes from `at`.
    pub fn msync(&self, at: usize, len: usize, flags: i32) -> Result<()> {
        // SAFETY: changes no memory.
        check(unsafe { libc::msync(self.at(at).cast(), len, flags) }).context("msync")?;
        Ok(())
    }

    /// madvise(2) of `len` bytes from `at`.
    pub fn advise(&self, at: usize, len: usize, advice: i32) -> Result<()> {
        // SAFETY: the mapping holds nothing that Rust relies on.
        check(unsafe { libc::madvise(self.at(at).cast(), len, advice) }).context("madvise")?;
        Ok(())
    }

    /// mprotect(2) of the whole.
    pub fn protect(&self, protection: i32) -> Result<()> {
        // SAFETY: as for `advise`.
        check(unsafe { libc::mprotect(self.base.cast(), self.len, protection) })
            .context("mprotect")?;
        Ok(())
    }

    /// Moves the mapping to another address (mremap).
    pub fn move_away(&mut self) -> Result<()> {
        // SAFETY: reserves a range of addresses and gives it to mremap, which replaces it.
        unsafe {
            let to = libc::mmap(
                std::ptr::null_mut(),
                self.len,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            let moved = libc::mremap(
                self.base.cast(),
                self.len,
                self.len,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                to,
            );
            if moved == libc::MAP_FAILED {
                return Err(io::Error::last_os_error()).context("mremap");
            }
            self.base = moved.cast();
        }
        Ok(())
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// With a status.
    Exit(i32),
    /// By a signal.
    Signal(i32),
}

/// A child process; to be waited for.
pub struct Child(libc::pid_t);

impl Child {
    /// Waits for its end.
    pub fn wait(self) -> Result<End> {
        let mut status = 0;
        // SAFETY: the child is ours, and the status a local.
        check(unsafe { libc::waitpid(self.0, &mut status, 0) })?;
        Ok(if libc::WIFSIGNALED(status) {
            End::Signal(libc::WTERMSIG(status))
        } else {
            End::Exit(libc::WEXITSTATUS(status))
        })
    }
}

/// Runs `work` in a child; its error becomes exit status 1.
pub fn spawn(work: impl FnOnce() -> Result<()>) -> Result<Child> {
    // SAFETY: the scenarios that fork have one thread.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        let status = match work() {
            Ok(()) => 0,
            Err(error) => {
                println!("        in a child: {error:#}");
                1
            }
        };
        // SAFETY: ends the child.
        unsafe { libc::_exit(status) };
    }
    Ok(Child(pid))
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
        end == End::Signal(libc::SIGBUS),
        "{what}: {end:?}, not SIGBUS"
    );
    Ok(())
}

/// A pipe: (read end, write end).
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array has room for both.
    check(unsafe { libc::pipe(fds.as_mut_ptr()) })?;
    // SAFETY: both are new and ours.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Pins page `at` of `map` by putting it into `pipe`, uncopied.
pub fn vmsplice(pipe: &OwnedFd, map: &Map, at: usize) -> Result<()> {
    let iov = libc::iovec {
        iov_base: map.at(at).cast(),
        iov_len: PAGE,
    };
    // SAFETY: the page is mapped.
    let n = check_len(unsafe { libc::vmsplice(pipe.as_raw_fd(), &iov, 1, 0) })?;
    ensure!(n == PAGE, "vmsplice took {n} bytes");
    Ok(())
}

/// Reads one page from a pipe.
pub fn read_page(pipe: &OwnedFd) -> Result<[u8; PAGE]> {
    let mut data = [0; PAGE];
    let mut done = 0;
    while done < PAGE {
        let rest = &mut data[done..];
        // SAFETY: the buffer is that long.
        done += check_len(unsafe {
            libc::read(pipe.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len())
        })?;
    }
    Ok(data)
}

/// fallocate(2).
pub fn fallocate(file: &File, mode: i32, at: usize, len: u64) -> io::Result<()> {
    // SAFETY: a plain system call.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, at as i64, len as i64) })?;
    Ok(())
}

/// Free blocks of the file system of `path`.
pub fn free_blocks(path: &Path) -> Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: zero is a valid statfs, filled by the call.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string.
    check(unsafe { libc::statfs(path.as_ptr(), &mut stat) })?;
    Ok(stat.f_bavail)
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
        freeze::ioctl(&dir, freeze::FIFREEZE)?;
        freeze::ioctl(&dir, freeze::FITHAW)?;
        // The flusher has to come, and has the last one in its hands for a moment still.
        let _expire = Sysctl::set("dirty_expire_centisecs", "1")?;
        let _writeback = Sysctl::set("dirty_writeback_centisecs", "10")?;
        std::thread::sleep(Duration::from_millis(800));
        Ok(fs::write("/proc/sys/vm/drop_caches", "2")?)
    })
}
