// SPDX-License-Identifier: GPL-2.0

//! A user: calls with arguments at the edges, with those of other kinds, and with nonsense.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use rdax_test_sys::{interrupt_every, Map, PAGE};
use rustix::process::{setrlimit, Resource, Rlimit};

use super::calls::{Arg, Call, CALLS, REQUESTS};

/// Bytes of the memory that calls get; behind it is nothing.
const MEMORY: usize = 1 << 20;
/// Most descriptors that a user collects: lower ones are its own.
const FDS: i64 = 200;
/// Calls between two looks at the clock.
const BATCH: u32 = 200;

const NUMBERS: [i64; 24] = [
    0,
    1,
    2,
    7,
    8,
    255,
    256,
    511,
    4095,
    4096,
    4097,
    65536,
    2 << 20,
    (2 << 20) + 1,
    1 << 31,
    (1 << 31) - 1,
    1 << 32,
    1 << 40,
    1 << 52,
    i64::MAX,
    i64::MAX - 4095,
    i64::MIN,
    -1,
    -4096,
];

const NAMES: [&str; 22] = [
    "a",
    "b",
    "c",
    "d",
    "d/a",
    "d/b",
    "d/..",
    ".",
    "..",
    "",
    "/",
    "a/",
    "../victim",
    "../victim/secret",
    "../victim/public",
    "../victim/program",
    "../victim/new",
    "../victim/closed/inside",
    "/proc/self/mem",
    "/proc/self/fd/5",
    "/dev/pmem0",
    "/dev/shm/x",
];

const XATTRS: [&str; 12] = [
    "user.a",
    "user.b",
    "user.",
    "user",
    "trusted.a",
    "security.capability",
    "security.selinux",
    "system.posix_acl_access",
    "system.posix_acl_default",
    "system.rdax",
    "rdax",
    "",
];

struct User {
    rng: Rng,
    /// Memory of the user's.
    memory: Map,
    mapped: Vec<i64>,
    paths: Vec<CString>,
    xattrs: Vec<CString>,
    calls: u64,
    passed: u64,
}

/// Memory with nothing behind it.
fn memory() -> Result<Map> {
    let mut map = Map::anonymous(MEMORY + PAGE)?;
    map.shorten(MEMORY)?;
    Ok(map)
}

fn paths(top: &Path) -> Vec<CString> {
    let mut paths: Vec<Vec<u8>> = NAMES.iter().map(|name| name.as_bytes().to_vec()).collect();
    paths.push(vec![b'n'; 255]);
    paths.push(vec![b'n'; 256]);
    paths.push("d/".repeat(2040).into_bytes());
    paths.push(vec![0xff, 0xfe]);
    paths.push(top.as_os_str().as_bytes().to_vec());
    for dir in ["/sys/fs/rdax", "/sys/fs/rdax/pmem0"] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            paths.push(entry.path().as_os_str().as_bytes().to_vec());
        }
    }
    let whole = paths.into_iter().filter_map(|path| CString::new(path).ok());
    whole.collect()
}

impl User {
    fn number(&mut self) -> i64 {
        match self.rng.u8(0..4) {
            0 => self.rng.i64(..),
            1 => self.rng.i64(0..70_000),
            _ => NUMBERS[self.rng.usize(0..NUMBERS.len())],
        }
    }

    /// An address in the memory of the user, sometimes elsewhere.
    fn buffer(&mut self) -> i64 {
        let at = match self.rng.u8(0..24) {
            0 => return [0, 1, -1, i64::MIN, 0x7fff_ffff_f000][self.rng.usize(0..5)],
            1 => MEMORY - self.rng.usize(0..64),
            2 => return self.mapped(),
            3..=8 => self.rng.usize(0..MEMORY),
            _ => self.rng.usize(0..MEMORY / 8) * 8,
        };
        (self.memory.address() + at) as i64
    }

    fn mapped(&mut self) -> i64 {
        let at = self.rng.choice(&self.mapped).copied().unwrap_or(0);
        match self.rng.u8(0..6) {
            0 => at + self.rng.i64(0..5000),
            1 => at + self.rng.i64(0..600) * 4096,
            _ => at,
        }
    }

    fn fd(&mut self) -> i64 {
        match self.rng.u8(0..20) {
            0 => -1,
            1 => self.number(),
            _ => self.rng.i64(3..40),
        }
    }

    fn arg(&mut self, arg: Arg) -> i64 {
        if self.rng.u8(0..60) == 0 {
            return self.number();
        }
        match arg {
            Arg::Fd => self.fd(),
            Arg::DirFd => match self.rng.u8(0..4) {
                0 => self.fd(),
                _ => libc::AT_FDCWD.into(),
            },
            Arg::Path => {
                let n = match self.rng.bool() {
                    true => self.rng.usize(0..6),
                    false => self.rng.usize(0..self.paths.len()),
                };
                self.paths[n].as_ptr() as i64
            }
            Arg::Xattr => {
                let n = self.rng.usize(0..self.xattrs.len());
                self.xattrs[n].as_ptr() as i64
            }
            Arg::Buffer => self.buffer(),
            Arg::Len => match self.rng.u8(0..4) {
                0 => self.number(),
                _ => self.rng.i64(0..20_000),
            },
            Arg::Offset => match self.rng.u8(0..3) {
                0 => self.number(),
                _ => self.rng.i64(0..300_000),
            },
            Arg::Flags => match self.rng.u8(0..4) {
                0 => self.number(),
                1 => 0,
                _ => (1 << self.rng.u32(0..32)) | (1 << self.rng.u32(0..32)),
            },
            Arg::Small => self.rng.i64(0..40),
            Arg::Mode => i64::from(self.rng.u32(0..0o20_0000)),
            Arg::Mapped => self.mapped(),
            Arg::Id => [0, 1000, 1001, -1, i64::from(u32::MAX)][self.rng.usize(0..5)],
            Arg::Request => match self.rng.u8(0..8) {
                0 => i64::from(self.rng.u32(..)),
                1 => {
                    let (group, number) =
                        (b"fXrv\x94\x12\x15"[self.rng.usize(0..7)], self.rng.u8(..));
                    let size = i64::from(self.rng.u16(0..300));
                    let direction = self.rng.i64(0..4);
                    (direction << 30) | (size << 16) | (i64::from(group) << 8) | i64::from(number)
                }
                _ => REQUESTS[self.rng.usize(0..REQUESTS.len())].0 as i64,
            },
            Arg::Is(number) => number,
        }
    }

    /// Puts numbers into the memory, so that structures there make some sense.
    fn scribble(&mut self) {
        let (at, value) = (self.rng.usize(0..MEMORY / 8), self.number());
        let value = match self.rng.u8(0..4) {
            0 => self.buffer(),
            1 => self.rng.i64(3..40),
            _ => value,
        };
        self.memory.store_words(at * 8, &value.to_ne_bytes());
    }

    /// Makes a call. Returns whether it must have failed and has not.
    fn call(&mut self, call: &Call) -> Option<String> {
        let mut args = [0; 6];
        for (value, &arg) in args.iter_mut().zip(call.args) {
            *value = self.arg(arg);
        }
        let [a, b, c, d, e, f] = args;
        if call.number == libc::SYS_fchownat && (c as i32, d as i32) == (-1, -1) {
            // Linux lets everybody do this, whoever owns the file: it moves the status change time.
            return None;
        }
        // SAFETY: what calls change of this process is its own memory at addresses of the grammar:
        // the memory above, mappings of files made here, and nonsense. Where that hits something of
        // the program, it dies, and another one goes on.
        let result = unsafe { libc::syscall(call.number, a, b, c, d, e, f) };
        self.calls += 1;
        if result == -1 {
            return None;
        }
        self.passed += 1;
        if call.number == libc::SYS_mmap {
            self.mapped.push(result);
            if self.mapped.len() > 50 {
                let n = self.rng.usize(0..50);
                let old = self.mapped.swap_remove(n);
                // SAFETY: a mapping of a file that was made here.
                unsafe { libc::munmap(old as *mut _, 4096) };
            }
        }
        let request = REQUESTS.iter().find(|r| r.0 as i64 == b);
        let is_ioctl = call.number == libc::SYS_ioctl;
        let privileged = call.privileged || (is_ioctl && request.is_some_and(|r| r.1));
        privileged.then(|| format!("{}({a:#x}, {b:#x}, {c:#x}, {d:#x}, {e:#x})", call.name))
    }
}

/// Makes calls until `stop`. False if one has succeeded that must not.
pub fn be_user(top: &Path, seed: u64, stop: Instant) -> Result<bool> {
    for (resource, most) in [
        (Resource::Nofile, FDS as u64),
        (Resource::Core, 0),
        (Resource::As, 256 << 20),
    ] {
        let (current, maximum) = (Some(most), Some(most));
        setrlimit(resource, Rlimit { current, maximum })?;
    }
    // Calls that wait are interrupted.
    interrupt_every(Duration::from_millis(50))?;
    fs::create_dir("d")?;
    for name in ["a", "b", "d/a"] {
        fs::File::create(name)?.write_all(&[5; 30_000])?;
    }
    let mut user = User {
        rng: Rng::with_seed(seed),
        memory: memory()?,
        mapped: Vec::new(),
        paths: paths(top),
        xattrs: XATTRS
            .iter()
            .filter_map(|name| CString::new(*name).ok())
            .collect(),
        calls: 0,
        passed: 0,
    };
    for _ in 0..5000 {
        user.scribble();
    }
    let counts = format!("/tmp/torture-calls/{seed}");
    while Instant::now() < stop {
        for _ in 0..BATCH {
            user.scribble();
            let call = &CALLS[user.rng.usize(0..CALLS.len())];
            if let Some(call) = user.call(call) {
                fs::write(&counts, format!("{} {}\n", user.calls, user.passed))?;
                println!("FAULT user {seed}: {call} has succeeded");
                std::process::exit(3);
            }
            if user.rng.u8(0..4) == 0 {
                // Room for new ones.
                let fd = user.rng.i32(3..FDS as i32);
                // SAFETY: a descriptor that only calls of the grammar have opened.
                unsafe { libc::close(fd) };
            }
        }
        fs::write(&counts, format!("{} {}\n", user.calls, user.passed))?;
    }
    Ok(true)
}
