// SPDX-License-Identifier: GPL-2.0

//! Users without privileges, against every call: system calls, ioctls and files of sysfs with
//! arguments made up from a grammar. Nothing of others may change, no call may succeed that takes a
//! privilege, and every process can be ended. What the kernel reports, `qemu/vm` sees.

mod calls;
mod grammar;

use std::fs;
use std::os::unix::fs::{chown, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::fs::{setxattr, XattrFlags};

use crate::snapshot::Snapshot;
use crate::Mounted;

/// Who the users are.
const USER: u32 = 1000;
/// Users at a time.
const USERS: u64 = 3;
/// How long one process lives: it collects descriptors, mappings and limits.
const LIFE: u64 = 5;
const PROGRESS: Duration = Duration::from_secs(10);
/// A process that has not ended so long after it was killed hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    mounted: Mounted,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Be the user of this seed (for the program itself)
    #[arg(long, hide = true)]
    user: Option<u64>,
}

/// What belongs to others.
fn make_victim(top: &Path) -> Result<PathBuf> {
    let dir = top.join("victim");
    fs::create_dir(&dir)?;
    for (name, mode) in [("secret", 0o600), ("public", 0o644), ("program", 0o4755)] {
        let path = dir.join(name);
        fs::write(&path, format!("{name} ").repeat(3000))?;
        setxattr(&path, "user.mine", b"mine", XattrFlags::empty())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    fs::create_dir(dir.join("closed"))?;
    fs::write(dir.join("closed/inside"), "inside")?;
    fs::set_permissions(dir.join("closed"), fs::Permissions::from_mode(0o700))?;
    Ok(dir)
}

fn make_home(top: &Path, n: u64) -> Result<PathBuf> {
    let home = top.join(format!("home{n}"));
    fs::create_dir(&home)?;
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700))?;
    chown(&home, Some(USER), Some(USER))?;
    Ok(home)
}

/// What the mount looks like to everybody.
fn mount_line(top: &Path) -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let here = format!(" {} ", top.display());
    let lines: Vec<_> = mounts.lines().filter(|line| line.contains(&here)).collect();
    Ok(lines.join("\n"))
}

fn start(args: &Args, home: &Path, seed: u64) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("users")
        .args(["--user", &seed.to_string(), "--seconds", &LIFE.to_string()])
        .arg("--dir")
        .arg(&args.mounted.dir)
        .current_dir(home)
        .env_clear()
        .uid(USER)
        .gid(USER);
    Ok(command.spawn()?)
}

/// Nothing in the home of a user belongs to somebody else or gives rights to others.
fn is_theirs(dir: &Path) -> Result<Option<String>> {
    let snapshot = Snapshot::new(dir)?;
    let strange = snapshot
        .entries
        .iter()
        .find(|(_, entry)| entry.owner.0 != USER);
    Ok(strange.map(|(path, entry)| format!("{} belongs to {:?}", path.display(), entry.owner)))
}

/// Waits for the end of a process, which is killed if it does not come.
fn end(child: &mut Child, deadline: Instant) -> Result<Option<String>> {
    let mut killed = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(match status.code() {
                // 3: it could do what it must not; it has said what.
                Some(3) => Some("a call has succeeded that takes a privilege".into()),
                Some(2) => bail!("the user could not work"),
                // It may have killed itself: a stack that it unmapped, a fault beyond the end.
                _ if status.signal() == Some(libc::SIGKILL) && killed.is_none() => {
                    Some("was killed".into())
                }
                _ => None,
            });
        }
        match killed {
            None if Instant::now() > deadline => {
                child.kill()?;
                killed = Some(Instant::now());
            }
            Some(at) if at.elapsed() > PATIENCE => {
                let stack = fs::read_to_string(format!("/proc/{}/stack", child.id()));
                return Ok(Some(format!(
                    "a process cannot be killed:\n{}",
                    stack.unwrap_or_default()
                )));
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Lets users work until the time is up. Whether all held.
pub fn run(args: &Args) -> Result<bool> {
    if let Some(seed) = args.user {
        let stop = Instant::now() + Duration::from_secs(args.seconds);
        return grammar::be_user(&args.mounted.dir, seed, stop);
    }
    let top = &args.mounted.dir;
    let victim = make_victim(top)?;
    let before = Snapshot::new(&victim)?;
    let mounted = mount_line(top)?;
    let (started, mut told) = (Instant::now(), Instant::now());
    let (mut lives, mut faults) = (0, Vec::new());
    fs::create_dir_all("/tmp/torture-calls")?;
    fs::set_permissions("/tmp/torture-calls", fs::Permissions::from_mode(0o1777))?;
    let mut seed = args.seed << 32;
    while started.elapsed().as_secs() < args.seconds && faults.is_empty() {
        let mut users = Vec::new();
        for n in 0..USERS {
            let home = make_home(top, n)?;
            let child = start(args, &home, seed + n).context("cannot start a user")?;
            users.push((child, home, seed + n));
        }
        let deadline = Instant::now() + Duration::from_secs(2 * LIFE + 10);
        for (child, home, seed) in &mut users {
            let ended = end(child, deadline)?;
            faults.extend(ended.map(|what| format!("user {seed}: {what}")));
            if faults.is_empty() {
                let strange = is_theirs(home)?;
                faults.extend(strange.map(|what| format!("user {seed}: {what}")));
                fs::remove_dir_all(home)?;
            }
            lives += 1;
        }
        let after = Snapshot::new(&victim)?;
        let same = Snapshot {
            free: before.free,
            ..after
        };
        let changed = before.difference(&same);
        faults.extend(changed.map(|what| format!("users {seed} and after: {what}")));
        if mount_line(top)? != mounted {
            faults.push(format!("users {seed} and after: the mount has changed"));
        }
        seed += USERS;
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            println!("{}", figures(lives, started.elapsed(), faults.len()));
        }
    }
    for fault in &faults {
        println!("FAULT {fault}");
    }
    println!("{}", figures(lives, started.elapsed(), faults.len()));
    Ok(faults.is_empty() && lives > 0)
}

fn figures(lives: u64, took: Duration, faults: usize) -> String {
    let (mut calls, mut passed) = (0, 0);
    for file in fs::read_dir("/tmp/torture-calls")
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        let mut numbers = text
            .split_whitespace()
            .filter_map(|n| n.parse::<u64>().ok());
        calls += numbers.next().unwrap_or(0);
        passed += numbers.next().unwrap_or(0);
    }
    format!(
        "users: {calls} calls, of which {passed} passed, by {lives} processes in {} s; \
         {faults} faults",
        took.as_secs()
    )
}
