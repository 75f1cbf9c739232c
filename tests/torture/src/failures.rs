// SPDX-License-Identifier: GPL-2.0

//! Allocations that fail: the first of an operation, then the second, and so on, until it passes
//! without a failure (`/proc/thread-self/fail-nth`, a kernel with CONFIG_FAILSLAB). An operation
//! that fails has changed nothing, and says ENOMEM.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};

use crate::operations::{Operation, ALL};
use crate::snapshot::Snapshot;
use crate::Mounted;

/// More allocations than any operation makes.
const MOST: u32 = 2000;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    mounted: Mounted,
    /// A volume that is mounted and unmounted, too
    #[arg(long)]
    device: Option<PathBuf>,
    /// Begin no operation after so many seconds
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Only operations with this in their name
    #[arg(long, default_value = "")]
    only: String,
}

/// The switch of this thread.
struct FailNth(File);

impl FailNth {
    fn open() -> Result<Self> {
        let mut options = OpenOptions::new();
        let path = "/proc/thread-self/fail-nth";
        let opened = options.read(true).write(true).open(path);
        Ok(FailNth(
            opened.context("this kernel cannot make allocations fail")?,
        ))
    }

    /// Runs `call` with its `n`-th allocation failing. Returns whether there was an n-th.
    fn run(&self, n: u32, call: impl FnOnce() -> io::Result<()>) -> Result<(io::Result<()>, bool)> {
        self.0.write_all_at(n.to_string().as_bytes(), 0)?;
        let result = call();
        let mut left = [0; 16];
        let len = self.0.read_at(&mut left, 0)?;
        self.0.write_all_at(b"0", 0)?;
        let left = String::from_utf8_lossy(&left[..len]);
        Ok((result, left.trim_end().trim_end_matches('\0') == "0"))
    }
}

/// Forgets what can be read again, so that an operation has to.
fn forget() {
    let _ = fs::write("/proc/sys/vm/drop_caches", "2");
}

#[derive(Default)]
struct Totals {
    operations: u32,
    injected: u32,
    failed: u32,
    passed_all_the_same: u32,
    faults: BTreeMap<String, String>,
}

impl Totals {
    fn fault(&mut self, name: &str, n: u32, what: &str) {
        println!("FAULT {name}, allocation {n}: {what}");
        self.faults
            .entry(name.into())
            .or_insert_with(|| what.into());
    }

    fn figures(&self, took: Duration) -> String {
        format!(
            "failures: {} operations, {} allocations failed in {} s: {} calls failed and changed \
             nothing, {} passed all the same; {} faults",
            self.operations,
            self.injected,
            took.as_secs(),
            self.failed,
            self.passed_all_the_same,
            self.faults.len()
        )
    }
}

struct Failures<'a> {
    top: &'a Path,
    switch: FailNth,
    totals: Totals,
    /// Directories made so far.
    made: u32,
}

impl Failures<'_> {
    fn prepared(&mut self, operation: &Operation) -> Result<PathBuf> {
        self.made += 1;
        let dir = self.top.join(format!("try{}", self.made));
        fs::create_dir(&dir)?;
        (operation.prepare)(&dir).with_context(|| operation.name.to_string())?;
        Ok(dir)
    }

    /// Makes each allocation of `operation` fail. With `cold`, little is in memory before.
    fn each(&mut self, operation: &Operation, cold: bool) -> Result<()> {
        let name = operation.name;
        let mut dir = self.prepared(operation)?;
        for n in 1..MOST {
            if cold {
                forget();
            }
            let before = Snapshot::new(&dir)?;
            if cold {
                forget();
            }
            let (result, injected) = self.switch.run(n, || (operation.run)(&dir))?;
            if !injected {
                result.with_context(|| format!("{name}, without a failure"))?;
                fs::remove_dir_all(&dir)?;
                return Ok(());
            }
            self.totals.injected += 1;
            match result {
                Ok(()) => {
                    self.totals.passed_all_the_same += 1;
                    fs::remove_dir_all(&dir)?;
                    dir = self.prepared(operation)?;
                }
                Err(e) => {
                    self.totals.failed += 1;
                    if e.raw_os_error() != Some(libc::ENOMEM) {
                        self.totals.fault(name, n, &format!("fails with {e}"));
                    }
                    let difference = before.difference(&Snapshot::new(&dir)?);
                    if let Some(what) = difference.filter(|_| !operation.changes_content) {
                        self.totals.fault(name, n, &format!("failed, but {what}"));
                        fs::remove_dir_all(&dir)?;
                        dir = self.prepared(operation)?;
                    }
                }
            }
        }
        bail!("{name} never ends to allocate")
    }

    /// The same for a mount and its end.
    fn mount(&mut self, device: &Path) -> Result<()> {
        let dir = Path::new("/mnt/torture");
        fs::create_dir_all(dir)?;
        for n in 1..MOST {
            let flags = MountFlags::empty();
            let (result, injected) = self.switch.run(n, || {
                Ok(mount(device, dir, "rdax", flags, None::<&std::ffi::CStr>)?)
            })?;
            let is_mounted = result.is_ok();
            if let Err(e) = result {
                if !injected {
                    return Err(e).context("mount, without a failure");
                }
                self.totals.failed += 1;
                if e.raw_os_error() != Some(libc::ENOMEM) {
                    self.totals.fault("mount", n, &format!("fails with {e}"));
                }
            }
            if is_mounted {
                let (gone, _) = self
                    .switch
                    .run(n, || Ok(unmount(dir, UnmountFlags::empty())?))?;
                if gone.is_err() {
                    unmount(dir, UnmountFlags::empty()).context("cannot unmount")?;
                }
            }
            if !injected {
                self.totals.operations += 1;
                return Ok(());
            }
            self.totals.injected += 1;
            self.totals.passed_all_the_same += u32::from(is_mounted);
        }
        bail!("mount never ends to allocate")
    }
}

/// Makes the knobs of the kernel let every allocation of this thread fail, and none of others.
fn set_knobs() {
    for (knob, value) in [
        ("failslab/ignore-gfp-wait", "N"),
        ("failslab/verbose", "0"),
        ("failslab/probability", "0"),
        ("fail_page_alloc/ignore-gfp-wait", "N"),
        ("fail_page_alloc/ignore-gfp-highmem", "N"),
        ("fail_page_alloc/min-order", "0"),
        ("fail_page_alloc/verbose", "0"),
        ("fail_page_alloc/probability", "0"),
    ] {
        // Without one of them the others do.
        let _ = fs::write(format!("/sys/kernel/debug/{knob}"), value);
    }
}

/// Tries all operations. Whether all held.
pub fn run(args: &Args) -> Result<bool> {
    let switch = FailNth::open()?;
    set_knobs();
    let (started, mut told) = (Instant::now(), Instant::now());
    let mut failures = Failures {
        top: &args.mounted.dir,
        switch,
        totals: Totals::default(),
        made: 0,
    };
    let chosen = ALL.iter().filter(|o| o.name.contains(&args.only));
    for (operation, cold) in chosen.flat_map(|o| [(o, false), (o, true)]) {
        if started.elapsed().as_secs() > args.seconds {
            break;
        }
        failures.each(operation, cold)?;
        failures.totals.operations += 1;
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            println!("{}", failures.totals.figures(started.elapsed()));
        }
    }
    if let Some(device) = &args.device {
        failures.mount(device)?;
    }
    println!("{}", failures.totals.figures(started.elapsed()));
    Ok(failures.totals.faults.is_empty() && failures.totals.operations > 0)
}
