// SPDX-License-Identifier: GPL-2.0

//! Damaged volumes of the series of `rdax-torture`, mounted by the module: what the host says of
//! one the kernel says, too, and whatever it meets, calls fail with errors of damage and end.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use fastrand::Rng;
use rdax_torture::damage::cow::{Cow, PAGE};
use rdax_torture::damage::series::{base, Image, PER_BASE};
use rdax_torture::damage::trial::examine;
use rdax_volume::volume::{MountOptions, Volume};
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// How many bytes of a file are read at each of a few places.
const PIECE: usize = 1 << 16;

#[derive(clap::Args)]
pub struct Args {
    /// The device whose content is given up
    #[arg(long, default_value = "/dev/pmem1")]
    device: PathBuf,
    #[arg(long, default_value = "/mnt/torture")]
    dir: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// So many volumes
    #[arg(long, default_value_t = 500)]
    images: u64,
    /// End after so many seconds all the same
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// The number of the volume that is tried goes to this file
    #[arg(long)]
    current: Option<PathBuf>,
}

/// Errors that calls on a damaged volume may have.
const DAMAGE: [i32; 3] = [libc::EUCLEAN, libc::EIO, libc::EROFS];
/// And those of calls that make no sense for what is there.
const USERS: [i32; 12] = [
    libc::ENOSPC,
    libc::EEXIST,
    libc::ENOENT,
    libc::ENOTEMPTY,
    libc::EPERM,
    libc::EMLINK,
    libc::ENOTSUP,
    libc::EFBIG,
    libc::EISDIR,
    libc::EINVAL,
    libc::ENODATA,
    libc::ELOOP,
];

/// What is seen of one mounted volume.
#[derive(Default)]
struct Seen {
    calls: u64,
    damage: u64,
    /// Errors that a damaged volume must not give.
    strange: Vec<String>,
}

impl Seen {
    fn call<T>(&mut self, what: &str, path: &Path, result: io::Result<T>) -> Option<T> {
        self.calls += 1;
        match result {
            Ok(value) => Some(value),
            Err(e) => {
                let errno = e.raw_os_error().unwrap_or(0);
                if DAMAGE.contains(&errno) || errno == libc::ESTALE {
                    self.damage += 1;
                } else if !USERS.contains(&errno) {
                    self.strange.push(format!("{what} {}: {e}", path.display()));
                }
                None
            }
        }
    }

    fn read(&mut self, path: &Path, size: u64) {
        let Some(file) = self.call("open", path, File::open(path)) else {
            return;
        };
        let mut buffer = vec![0; PIECE];
        let places = (0..size.min(1 << 20)).step_by(PIECE);
        for at in places.chain([size / 2, size.saturating_sub(100)]) {
            // Off the largest offset, where damage has put the end.
            if at < i64::MAX as u64 - PIECE as u64 {
                self.call("read", path, file.read_at(&mut buffer, at));
            }
        }
    }

    fn attributes(&mut self, path: &Path) {
        let mut names = vec![0; 1 << 16];
        let listed = rustix::fs::llistxattr(path, &mut names[..]);
        let Some(len) = self.call("listxattr", path, listed.map_err(io::Error::from)) else {
            return;
        };
        let mut value = vec![0; 1 << 16];
        for name in names[..len]
            .split(|&b| b == 0)
            .filter(|name| !name.is_empty())
        {
            let got = rustix::fs::lgetxattr(path, name, &mut value[..]);
            self.call("getxattr", path, got.map_err(io::Error::from));
        }
    }

    /// Looks at everything below `path`, up to `left` names.
    fn walk(&mut self, path: &Path, depth: u32, left: &mut u32) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let Some(info) = self.call("lstat", path, fs::symlink_metadata(path)) else {
            return files;
        };
        self.attributes(path);
        if info.is_symlink() {
            self.call("readlink", path, fs::read_link(path));
        } else if info.is_file() {
            self.read(path, info.len());
            files.push(path.to_owned());
        } else if info.is_dir() && depth < 30 {
            let entries = self.call("readdir", path, fs::read_dir(path));
            for entry in entries.into_iter().flatten() {
                if *left == 0 {
                    break;
                }
                *left -= 1;
                match self.call("readdir", path, entry) {
                    Some(entry) => files.extend(self.walk(&entry.path(), depth + 1, left)),
                    None => break,
                }
            }
        }
        files
    }

    /// Changes something here and there.
    fn change(&mut self, top: &Path, files: &[PathBuf], rng: &mut Rng) {
        for n in 0..6 {
            let new = top.join(format!("new{n}"));
            self.call("write", &new, fs::write(&new, vec![n; 9000]));
            let to = top.join(format!("moved{n}"));
            self.call("rename", &new, fs::rename(&new, &to));
            let dir = top.join(format!("dir{n}"));
            self.call("mkdir", &dir, fs::create_dir(&dir));
            self.call("link", &to, fs::hard_link(&to, dir.join("link")));
            let set = rustix::fs::setxattr(
                &to,
                "user.torture",
                &[n; 3000],
                rustix::fs::XattrFlags::empty(),
            );
            self.call("setxattr", &to, set.map_err(io::Error::from));
            let Some(path) = rng.choice(files) else {
                continue;
            };
            let opened = OpenOptions::new().write(true).open(path);
            if let Some(file) = self.call("open", path, opened) {
                let at = rng.u64(0..200_000);
                self.call("write", path, file.write_at(&[7; 5000], at));
                self.call("truncate", path, file.set_len(rng.u64(0..100_000)));
                let punch =
                    rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
                let punched = rustix::fs::fallocate(&file, punch, at, 50_000);
                self.call("punch", path, punched.map_err(io::Error::from));
                self.call("fsync", path, file.sync_all());
            }
            if rng.bool() {
                self.call("unlink", path, fs::remove_file(path));
            }
        }
    }
}

/// Whole pages at an address that direct I/O accepts.
fn aligned(bytes: usize) -> Vec<u8> {
    // The allocator aligns no more than a type asks for; a large buffer has a page within.
    vec![0; bytes + PAGE]
}

fn start(buffer: &[u8]) -> usize {
    buffer.as_ptr().align_offset(PAGE)
}

/// The device, past every cache.
struct Device(File);

impl Device {
    fn open(path: &Path) -> Result<Device> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        let opened = options.open(path);
        Ok(Device(opened.with_context(|| path.display().to_string())?))
    }

    fn put(&self, content: &[u8]) -> Result<()> {
        let mut buffer = aligned(content.len());
        let at = start(&buffer);
        buffer[at..at + content.len()].copy_from_slice(content);
        self.0.write_all_at(&buffer[at..at + content.len()], 0)?;
        Ok(())
    }

    fn get(&self, len: usize) -> Result<Vec<u8>> {
        let mut buffer = aligned(len);
        let at = start(&buffer);
        self.0.read_exact_at(&mut buffer[at..at + len], 0)?;
        Ok(buffer[at..at + len].to_vec())
    }
}

#[derive(Default)]
struct Totals {
    images: u64,
    mounted: u64,
    refused: u64,
    calls: u64,
    damage: u64,
    clean: u64,
    faults: u64,
}

impl Totals {
    fn fault(&mut self, args: &Args, number: u64, what: &str) {
        self.faults += 1;
        println!(
            "FAULT image {number}: {what}\n    again: tests/torture/run --part images --seed {} \
             --from {number} --images 1",
            args.seed
        );
    }

    fn figures(&self, took: Duration) -> String {
        format!(
            "images: {} in {} s: {} mounted, {} refused, {} calls, of which {} met damage; \
             {} sound all the same; {} faults",
            self.images,
            took.as_secs(),
            self.mounted,
            self.refused,
            self.calls,
            self.damage,
            self.clean,
            self.faults
        )
    }
}

/// One volume: mounted, looked at, used, unmounted.
fn one(args: &Args, device: &Device, image: &Image<'_>, totals: &mut Totals) -> Result<()> {
    let cow = image.device(image.all());
    let mut content = image.base.bytes.clone();
    cow.changed(|at, page| content[at as usize..][..PAGE].copy_from_slice(page));
    device.put(&content)?;
    let clean = examine(&cow).is_ok_and(|problems| problems.is_empty());
    let on_host = Volume::mount(&cow.copy(u64::MAX), MountOptions::default()).is_ok();
    let mut rng = Rng::with_seed(image.number);
    let on_error = ["errors=continue", "errors=remount-ro"][rng.usize(0..2)];
    let on_error = std::ffi::CString::new(on_error)?;
    totals.images += 1;
    totals.clean += u64::from(clean);
    let flags = MountFlags::empty();
    if let Err(e) = mount(&args.device, &args.dir, "rdax", flags, on_error.as_c_str()) {
        totals.refused += 1;
        if clean {
            totals.fault(args, image.number, &format!("clean, but not mounted: {e}"));
        }
        // EINVAL: no volume, for what is said of it.
        if ![libc::EUCLEAN, libc::EIO, libc::EINVAL, libc::EROFS].contains(&e.raw_os_error()) {
            totals.fault(args, image.number, &format!("refused with {e}"));
        }
        return Ok(());
    }
    totals.mounted += 1;
    if !on_host {
        totals.fault(
            args,
            image.number,
            "mounted by the kernel, refused by the host",
        );
    }
    let mut seen = Seen::default();
    let files = seen.walk(&args.dir, 0, &mut 3000);
    if clean && seen.damage > 0 {
        totals.fault(args, image.number, "clean, but calls met damage");
    }
    seen.change(&args.dir, &files, &mut rng);
    totals.calls += seen.calls;
    totals.damage += seen.damage;
    if let Some(strange) = seen.strange.first() {
        totals.fault(args, image.number, strange);
    }
    unmount(&args.dir, UnmountFlags::empty()).context("cannot unmount")?;
    if clean {
        let content = device.get(content.len())?;
        match examine(&Cow::new(&content)) {
            Ok(problems) if problems.is_empty() => {}
            Ok(problems) => totals.fault(args, image.number, &format!("used: {}", problems[0])),
            Err(e) => totals.fault(args, image.number, &format!("used: {e}")),
        }
    }
    Ok(())
}

/// Tries the volumes of the series. Whether all held.
pub fn run(args: &Args) -> Result<bool> {
    fs::create_dir_all(&args.dir)?;
    let device = Device::open(&args.device)?;
    let (started, mut told) = (Instant::now(), Instant::now());
    let mut totals = Totals::default();
    let mut number = args.from;
    'all: while number < args.from + args.images {
        let end = (number / PER_BASE + 1) * PER_BASE;
        let base = base(args.seed, number);
        while number < end.min(args.from + args.images) {
            if started.elapsed().as_secs() > args.seconds {
                break 'all;
            }
            if let Some(current) = &args.current {
                fs::write(current, format!("{number}\n"))?;
            }
            let image = Image::new(&base, args.seed, number);
            one(args, &device, &image, &mut totals).with_context(|| format!("image {number}"))?;
            number += 1;
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                println!("{}", totals.figures(started.elapsed()));
            }
        }
    }
    println!("{}", totals.figures(started.elapsed()));
    if totals.images == 0 {
        bail!("no volume was tried");
    }
    Ok(totals.faults == 0)
}
