// SPDX-License-Identifier: GPL-2.0

//! Runs a program with limits: a mistake may make it loop, wait or allocate for ever.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{kill_process_group, prlimit, Pid, Resource, Rlimit, Signal};

/// Bytes of address space.
const MEMORY: u64 = 6 << 30;

/// How many times its usual processor time a program may take.
pub const SLOWER: u32 = 5;

/// How a program ended.
pub enum End {
    Passed,
    /// What it died of.
    Failed(String),
}

/// The process group of a child, killed with all that is left of it.
struct Group(Child);

impl Group {
    fn kill(&self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Most often nobody is there any more.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        let _ = self.0.wait();
    }
}

fn limit(child: &Child, resource: Resource, value: u64) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let new = Rlimit {
        current: Some(value),
        maximum: Some(value + 1),
    };
    match prlimit(pid, resource, new) {
        // It has ended already.
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(e).context("prlimit"),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) if signal == Signal::XCPU.as_raw() => "loops".into(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// Runs `command`, silently, which took `usual` without a mistake.
pub fn run(command: &mut Command, usual: Duration) -> Result<End> {
    let processor = Duration::from_secs(2) + usual * SLOWER;
    // Whoever sleeps for ever uses no processor; others may be using them all.
    let patience = Duration::from_secs(60) + usual * 30;
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null());
    let child = silent.stderr(Stdio::null()).process_group(0).spawn()?;
    let mut group = Group(child);
    limit(&group.0, Resource::Cpu, processor.as_secs())?;
    limit(&group.0, Resource::As, MEMORY)?;
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = group.0.try_wait()? {
            return Ok(match status.success() {
                true => End::Passed,
                false => End::Failed(describe(status)),
            });
        }
        if start.elapsed() > patience {
            return Ok(End::Failed("hangs".into()));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> End {
        run(Command::new("sh").args(["-c", script]), Duration::ZERO).expect("sh runs")
    }

    #[test]
    fn tells_how_it_ended() {
        assert!(matches!(shell("true"), End::Passed));
        assert!(matches!(shell("exit 7"), End::Failed(how) if how == "status 7"));
        assert!(matches!(shell("kill -ABRT $$"), End::Failed(how) if how == "signal 6"));
        assert!(matches!(shell("kill -XCPU $$"), End::Failed(how) if how == "loops"));
    }
}
