// SPDX-License-Identifier: GPL-2.0

//! The VM: booted once and saved, resumed for each workload with the plugin that records it.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use pmem_crash_model::trace::{Event, Trace};
use rdax_volume::ram::Ram;
use rdax_volume::volume::alloc::Want;
use rdax_volume::volume::format::BLOCK;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{MountOptions, Volume};
use serde::{Deserialize, Serialize};

/// Bytes of the NVDIMM, as qemu/vm takes them: the least it can have, and what XFS needs.
const PMEM: &str = "32M";
const PMEM_XFS: &str = "64M";
/// What the guest runs: see the file.
const GUEST: &str = include_str!("guest.sh");
/// What free blocks are full of.
const OLD: u8 = 0xee;
/// A workload that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(600);
/// A saved VM that does nothing for this long after it is resumed never will. This was seen once in
/// some hundred, and the reason is unknown; another one is saved then.
const TRIAL: Duration = Duration::from_secs(60);
const TRIALS: usize = 3;
/// What the kernel says when something is wrong: a string a line.
const REPORTS: &str = include_str!("../../../../qemu/reports");

/// A file system that can be explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    Rdax,
    Ext4,
    Xfs,
}

impl FileSystem {
    /// As `mount -t` takes it.
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Rdax => "rdax",
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    /// What the guest runs to mount the device.
    pub fn mount(self) -> &'static str {
        match self {
            FileSystem::Rdax => "mount -t rdax /dev/pmem0 /mnt/pmem",
            FileSystem::Ext4 => "mount -t ext4 -o dax=always /dev/pmem0 /mnt/pmem",
            FileSystem::Xfs => "mount -t xfs -o dax=always /dev/pmem0 /mnt/pmem",
        }
    }
}

/// A saved VM in which the file system is mounted and nothing has happened yet.
pub struct Machine {
    /// The checkout.
    top: PathBuf,
    dir: tempfile::TempDir,
    /// Options of QEMU.
    args: Vec<String>,
    /// First physical byte of the NVDIMM.
    region: u64,
    /// Where the device begins on the NVDIMM, and its bytes.
    pub device: Range<u64>,
    /// The NVDIMM. Free blocks have old bytes.
    pub base: Vec<u8>,
}

/// What a workload did.
pub struct Recording {
    pub trace: Trace,
    /// How long the VM took.
    pub took: Duration,
    /// Processor time that QEMU had.
    pub processor: Duration,
}

/// A process that does not outlive its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; either way nobody waits for it any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processor time that process `id` had so far.
fn processor_time(id: u32) -> Option<Duration> {
    // What sysconf(_SC_CLK_TCK) is on every Linux.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in parentheses, may have spaces. After it, the 12th and 13th are the times.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * (ticks()? + ticks()?))
}

/// A number in hexadecimal, as sysfs prints it.
fn hex(text: Option<&str>) -> Option<u64> {
    u64::from_str_radix(text?.strip_prefix("0x")?, 16).ok()
}

/// Fills the free blocks of a volume with old bytes. A new device has only zeros, and exposing one
/// block of it instead of another would go unnoticed.
fn soil(device: &mut [u8]) -> rdax_volume::volume::Result<()> {
    let ram = Ram::new(device.len() as u64);
    ram.store(0, device)?;
    let volume = Volume::mount(ram, MountOptions::default())?;
    let mut reserved = Vec::new();
    while let Ok(blocks) = volume.reserve(Want::blocks(512)) {
        let run = blocks.run();
        device[(run.block * BLOCK) as usize..((run.block + run.len) * BLOCK) as usize].fill(OLD);
        reserved.push(blocks);
    }
    Ok(())
}

impl Machine {
    /// Boots a VM from the checkout `top`, with `module` instead of the one built there if it is
    /// given, and saves it: with a new `fs` mounted, or with nothing on the device and all that it
    /// takes to mount one.
    pub fn boot(top: &Path, module: Option<&Path>, fs: FileSystem, mounted: bool) -> Result<Self> {
        let mut trials = 0;
        loop {
            let machine = Machine::save(top, module, fs, mounted)?;
            trials += 1;
            match machine.resume(&machine.base, "true", &[], TRIAL) {
                Err(e) if trials < TRIALS => {
                    eprintln!("the saved VM cannot be resumed ({e:#}); another one is saved");
                }
                tried => return tried.map(|_| machine),
            }
        }
    }

    fn save(top: &Path, module: Option<&Path>, fs: FileSystem, mounted: bool) -> Result<Self> {
        let ours = fs == FileSystem::Rdax;
        let pmem = match fs {
            FileSystem::Xfs => PMEM_XFS,
            _ => PMEM,
        };
        let dir = tempfile::Builder::new().prefix("rdax-crash.").tempdir()?;
        let mut vm = Command::new(top.join("qemu/vm"));
        vm.args([
            "--icount", "--pmem", pmem, "--mem", "512M", "--append", "nokaslr",
        ]);
        vm.args(["--fs", if mounted && ours { "rdax" } else { "none" }]);
        vm.args(["--timeout", "900", "--snapshot"]).arg(dir.path());
        if let Some(module) = module {
            vm.arg("--module").arg(module);
        }
        // The others are made by the guest, on a device that is full of old bytes.
        let peer = match ours {
            true => String::new(),
            false => format!("peer={} mounted={mounted}\n", fs.name()),
        };
        vm.arg("--").arg(peer + GUEST);
        let status = vm.stdin(Stdio::null()).status()?;
        ensure!(
            status.success(),
            "the VM cannot be booted and saved: qemu/vm: {status}"
        );
        let args = fs::read_to_string(dir.path().join("args"))?;
        let job = fs::read_to_string(dir.path().join("job"))?;
        let mut words = job.split_whitespace();
        let places = (
            hex(words.next()),
            hex(words.next()),
            words.next().map(str::parse::<u64>),
        );
        let (Some(region), Some(device), Some(Ok(bytes))) = places else {
            bail!("the guest says of its memory: {job}");
        };
        let mut base = fs::read(dir.path().join("pmem0"))?;
        let device: Range<u64> = device - region..device - region + bytes;
        ensure!(
            device.end <= base.len() as u64,
            "a device beyond its NVDIMM: {job}"
        );
        if mounted && ours {
            soil(&mut base[device.start as usize..device.end as usize])
                .map_err(|e| anyhow!("the new file system: {e}"))?;
        }
        Ok(Machine {
            top: top.to_owned(),
            args: args.lines().map(str::to_owned).collect(),
            dir,
            region,
            device,
            base,
        })
    }

    /// Resumes the VM and runs `command` in it, until QEMU ends, which is waited for for
    /// `patience`; with `more` options of QEMU. What it has written is in the directory that is
    /// returned, with the name of each port; and the processor time that QEMU had.
    fn resume(
        &self,
        pmem: &[u8],
        command: &str,
        more: &[&str],
        patience: Duration,
    ) -> Result<(tempfile::TempDir, Duration)> {
        let start = Instant::now();
        let dir = tempfile::Builder::new()
            .prefix("rdax-crash-run.")
            .tempdir()?;
        let file = |name: &str| dir.path().join(name);
        fs::write(file("pmem0"), pmem)?;
        fs::write(file("job.in"), format!("{command}\n"))?;
        let state = self.dir.path().join("state");
        // For QEMU's monitor. What the shared file of the NVDIMM has is not in the state.
        let resume = format!(
            "migrate_set_capability x-ignore-shared on\nmigrate_incoming file:{}\n",
            state.display()
        );
        fs::write(file("resume"), resume)?;
        let child = Command::new(self.top.join("scripts/from-toolchain"))
            .arg("qemu-system-x86_64")
            .args(&self.args)
            .args(more)
            .args(["-incoming", "defer", "-mon", "chardev=monitor"])
            .args(["-chardev", "stdio,id=monitor,signal=off"])
            .current_dir(dir.path())
            .stdin(File::open(file("resume"))?)
            .stdout(Stdio::null())
            .stderr(File::create(file("qemu.log"))?)
            .spawn()
            .context("QEMU")?;
        let mut child = Process(child);
        let mut processor = Duration::ZERO;
        let status = loop {
            // Up to now: it is gone once it has ended.
            processor = processor_time(child.0.id()).unwrap_or(processor);
            if let Some(status) = child.0.try_wait()? {
                break status;
            }
            ensure!(start.elapsed() < patience, "no end after {patience:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        let said = |name: &str| fs::read_to_string(file(name)).unwrap_or_default();
        let log = said("kernel.log");
        let is_report = |line: &&str| REPORTS.lines().any(|report| line.contains(report));
        if let Some(line) = log.lines().find(is_report) {
            bail!("the kernel reported: {line}");
        }
        ensure!(status.success(), "QEMU: {status}: {}", said("qemu.log"));
        Ok((dir, processor))
    }

    /// Runs `command` without recording it. Returns the processor time that QEMU had.
    pub fn run(&self, command: &str) -> Result<Duration> {
        let (dir, processor) = self.resume(&self.base, command, &[], PATIENCE)?;
        let said = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        let good = said("status").trim_end() == "0";
        ensure!(good, "{command}: {}", said("stderr"));
        Ok(processor)
    }

    /// Runs `command`, which ends with the mark that ends the recording, and returns what was
    /// recorded, after having checked that it explains what is on the NVDIMM now.
    pub fn record(&self, command: &str) -> Result<Recording> {
        let start = Instant::now();
        let plugin = format!(
            "{},start={:#x},len={},out=trace",
            self.top.join("build/lib/libpmem_crash_plugin.so").display(),
            self.region,
            self.base.len(),
        );
        let (dir, processor) = self.resume(&self.base, command, &["-plugin", &plugin], PATIENCE)?;
        let stderr = fs::read_to_string(dir.path().join("stderr"))?;
        let trace = File::open(dir.path().join("trace"))?;
        let trace = Trace::read(trace).with_context(|| stderr.trim_end().to_owned())?;
        self.compare(&trace, &fs::read(dir.path().join("pmem0"))?)?;
        Ok(Recording {
            trace,
            took: start.elapsed(),
            processor,
        })
    }

    /// Runs `command`, which mounts the device, with the content `image` on it. Returns what the
    /// device has when it was unmounted; if the command failed, what it said.
    pub fn try_image(&self, image: &[u8], command: &str) -> Result<Result<Vec<u8>, String>> {
        let mut pmem = self.base.clone();
        let device = self.device.start as usize..self.device.end as usize;
        pmem[device.clone()].copy_from_slice(image);
        let (dir, _) = self.resume(&pmem, command, &[], PATIENCE)?;
        let said = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        if said("status").trim_end() != "0" {
            return Ok(Err(said("stderr")));
        }
        Ok(Ok(fs::read(dir.path().join("pmem0"))?[device].to_vec()))
    }

    /// Fails unless the stores of `trace` make of the first content the `last` one.
    fn compare(&self, trace: &Trace, last: &[u8]) -> Result<()> {
        let mut replayed = self.base.clone();
        for event in &trace.events {
            if let Event::Store { at, len, value, .. } = event {
                let len = usize::from(*len);
                replayed[*at as usize..][..len].copy_from_slice(&value[..len]);
            }
        }
        let differ = replayed.iter().zip(last).position(|(a, b)| a != b);
        if let Some(at) = differ {
            bail!("the recording misses a store: byte {at:#x} of the NVDIMM is not as replayed");
        }
        Ok(())
    }
}
