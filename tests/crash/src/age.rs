// SPDX-License-Identifier: GPL-2.0

//! Waiting until what is dirty was written back without being asked for.

use std::fs;
use std::io::Result;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where rdax shows its counters, a directory for each mount.
const COUNTERS: &str = "/sys/fs/rdax";
/// How long other file systems are given.
const ELSEWHERE: Duration = Duration::from_secs(2);
/// Longest wait: by then it has to be done.
const LIMIT: Duration = Duration::from_secs(20);
/// Inodes that are dirty at a time are written back within this time of each other.
const QUIET: Duration = Duration::from_millis(300);

/// Pages written back by rdax so far; `None` if it is not mounted.
fn written_back() -> Option<u64> {
    let mounts = fs::read_dir(COUNTERS).ok()?;
    let counts = mounts.flatten().filter_map(|mount| {
        let text = fs::read_to_string(mount.path().join("pages_written_back")).ok()?;
        text.trim().parse::<u64>().ok()
    });
    counts.reduce(|sum, n| sum + n)
}

/// Waits until pages were written back by age, and no more come, or that is overdue. The flusher is
/// made quick for that. Something is dirty.
pub fn wait() -> Result<()> {
    let before = written_back();
    fs::write("/proc/sys/vm/dirty_writeback_centisecs", "10")?;
    fs::write("/proc/sys/vm/dirty_expire_centisecs", "30")?;
    let Some(before) = before else {
        sleep(ELSEWHERE);
        return Ok(());
    };
    let start = Instant::now();
    let (mut last, mut since) = (before, start);
    while (last == before || since.elapsed() < QUIET) && start.elapsed() < LIMIT {
        sleep(Duration::from_millis(20));
        let now = written_back().unwrap_or(before);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}
