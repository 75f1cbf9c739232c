// SPDX-License-Identifier: GPL-2.0

//! One file system in one VM.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use rdax_bench::workload::{Cost, Workload};
use rdax_bench::{Results, MEASURED};
use serde::de::DeserializeOwned;

/// How VMs are booted.
pub struct Vm<'a> {
    /// Program that boots one: qemu/vm.
    pub program: &'a Path,
    /// Directory that the guest puts its results in.
    pub out: &'a Path,
    /// Seconds that a VM may take.
    pub timeout: u64,
}

/// Where the guest has its share, and what it is to measure.
const GUEST: &str = "cd / && exec rdax-bench --dir /mnt/pmem --progress";

impl Vm<'_> {
    /// Measures the rows on `fs`, with a large file of `large_mib` MiB and a large directory of
    /// `names` names. The line of progress starts with `place`.
    pub fn measure(&self, fs: &str, place: &str, large_mib: u64, names: u64) -> Result<Results> {
        // The other files of rdax-bench need less than the half GiB; a tmpfs may have half of the
        // memory.
        let what = format!("--remount --large {large_mib} --names {names}");
        let results: Results = self.run(fs, place, large_mib + 512, &what, fs)?;
        ensure!(
            results.file_system == fs,
            "what was measured is {}",
            results.file_system
        );
        Ok(results)
    }

    /// Measures workloads on `fs`.
    pub fn survey(&self, fs: &str, place: &str, workloads: &[Workload]) -> Result<Vec<Cost>> {
        let path = self.out.join("survey.txt");
        let lines: Vec<String> = workloads.iter().map(Workload::to_string).collect();
        fs::write(&path, lines.join("\n") + "\n").with_context(|| path.display().to_string())?;
        let what = "--survey /share/survey.txt";
        let costs: Vec<Cost> = self.run(fs, place, 512, what, &format!("{fs}-survey"))?;
        ensure!(costs.len() == workloads.len(), "not all was measured");
        Ok(costs)
    }

    /// Has `what` measured in a VM with a device of `mib` MiB; its results are in NAME.json.
    fn run<T: DeserializeOwned>(
        &self,
        fs: &str,
        place: &str,
        mib: u64,
        what: &str,
        name: &str,
    ) -> Result<T> {
        let name = format!("{name}.json");
        let path = self.out.join(&name);
        // What an earlier run left must not be taken for this one's.
        if path.exists() {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        let guest = format!("{GUEST} {what} --json /share/{name}");
        self.boot(self.command(fs, mib, &guest), place)?;
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    fn command(&self, fs: &str, mib: u64, guest: &str) -> Command {
        // An NVDIMM is a multiple of 16 MiB.
        let device = mib.next_multiple_of(16);
        let memory = 2 * device + 512;
        let mut command = Command::new(self.program);
        command
            .args(["--icount", "--fs", fs])
            .args([
                "--pmem",
                &format!("{device}M"),
                "--mem",
                &format!("{memory}M"),
            ])
            .args(["--timeout", &self.timeout.to_string(), "--share"])
            .arg(self.out);
        if fs == "xfs" {
            command.args(["--mkfs-opts", "-m reflink=0"]);
        }
        command.arg("--").arg(guest);
        command
    }

    fn boot(&self, mut command: Command, place: &str) -> Result<()> {
        let start = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| self.program.display().to_string())?;
        let bar = progress(place);
        let mut done = 0;
        let stderr = child.stderr.take().context("no pipe")?;
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            if let Some(operation) = line.strip_prefix(MEASURED) {
                done += 1;
                bar.set_message(format!("{done} operations, {operation}"));
            } else {
                bar.suspend(|| eprintln!("{line}"));
            }
        }
        let status = child.wait()?;
        bar.finish_and_clear();
        if !status.success() {
            bail!("{} ended with {status}", self.program.display());
        }
        eprintln!(
            "{place}: {done} operations in {} s",
            start.elapsed().as_secs()
        );
        Ok(())
    }
}

/// A line on the terminal that moves.
fn progress(place: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(
        ProgressStyle::with_template("{spinner} {prefix} {elapsed}: {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.set_prefix(String::from(place));
    bar.set_message("the VM boots");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
