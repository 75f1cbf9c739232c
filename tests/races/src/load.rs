// SPDX-License-Identifier: GPL-2.0

//! What uses the file system meanwhile: processes that map, store, write, read, make and remove
//! files, and take whatever answer they get. One that is killed by a signal is replaced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use rdax_test_sys::{Map, PAGE};
use rustix::mm::{Advice, MsyncFlags};

/// Pages of a file.
const PAGES: usize = 64;
/// Files that all processes use.
const FILES: usize = 4;

/// Processes that put load on the file system.
pub struct Load {
    dir: PathBuf,
    processes: Mutex<Vec<Child>>,
    paused: AtomicBool,
}

impl Load {
    /// None yet.
    pub fn new(dir: &Path) -> Self {
        Load {
            dir: dir.into(),
            processes: Mutex::new(Vec::new()),
            paused: AtomicBool::new(true),
        }
    }

    /// Starts it.
    pub fn start(&self, processes: usize) -> Result<()> {
        self.paused.store(false, SeqCst);
        let mut running = self.processes.lock().unwrap();
        for nth in running.len()..processes {
            running.push(spawn(&self.dir, nth as u64)?);
        }
        Ok(())
    }

    /// Ends it, and with it all use of the file system.
    pub fn stop(&self) {
        self.paused.store(true, SeqCst);
        let mut running = self.processes.lock().unwrap();
        running.iter_mut().for_each(|process| {
            let _ = process.kill();
        });
        running.drain(..).for_each(|mut process| {
            let _ = process.wait();
        });
    }

    /// Replaces who was killed, until `done`.
    pub fn keep_up(&self, done: &AtomicBool) {
        while !done.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
            let mut running = self.processes.lock().unwrap();
            if self.paused.load(SeqCst) {
                continue;
            }
            for (nth, process) in running.iter_mut().enumerate() {
                if process.try_wait().is_ok_and(|end| end.is_some()) {
                    if let Ok(new) = spawn(&self.dir, nth as u64) {
                        *process = new;
                    }
                }
            }
        }
    }
}

fn spawn(dir: &Path, nth: u64) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("--load")
        .arg(dir)
        .arg("--seed")
        .arg(nth.to_string());
    Ok(command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?)
}

/// One process: does not return but for want of a directory.
pub fn run(dir: &Path, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed ^ u64::from(std::process::id()));
    loop {
        if turn(dir, &mut random).is_err() {
            // Not there, frozen away, or gone.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn open(dir: &Path, random: &mut fastrand::Rng) -> io::Result<File> {
    let name = dir.join(format!("file{}", random.usize(..FILES)));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(name)?;
    if file.metadata()?.len() < (PAGES * PAGE) as u64 / 2 {
        file.set_len((PAGES * PAGE) as u64)?;
    }
    Ok(file)
}

fn turn(dir: &Path, random: &mut fastrand::Rng) -> io::Result<()> {
    // Never in the directory below the mount point: that is in memory.
    let parent = dir.parent().unwrap_or(dir);
    if fs::metadata(dir)?.dev() == fs::metadata(parent)?.dev() {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    match random.u8(..8) {
        0..=2 => {
            let file = open(dir, random)?;
            let map = Map::shared(&file, PAGES * PAGE)?;
            for _ in 0..random.usize(1..200) {
                let at = random.usize(..PAGES * PAGE);
                match random.u8(..8) {
                    0 => map.msync(0, PAGES * PAGE, MsyncFlags::SYNC)?,
                    1 => drop(map.load(at)),
                    2 => map.advise(at / PAGE * PAGE, PAGE, Advice::LinuxDontNeed)?,
                    _ => map.store(at, random.u8(..)),
                }
            }
        }
        3 | 4 => {
            let file = open(dir, random)?;
            let data = vec![random.u8(..); random.usize(1..4 * PAGE)];
            for _ in 0..8 {
                file.write_all_at(&data, random.u64(..(PAGES * PAGE) as u64))?;
            }
            file.sync_data()?;
        }
        5 => {
            let file = open(dir, random)?;
            let mut data = vec![0; random.usize(1..16 * PAGE)];
            file.read_at(&mut data, random.u64(..(PAGES * PAGE) as u64))?;
        }
        6 => {
            let name = dir.join(format!("temporary{}", random.u8(..16)));
            fs::write(&name, vec![1; random.usize(..3 * PAGE)])?;
            fs::rename(&name, dir.join(format!("temporary{}", random.u8(..16))))?;
            let map = Map::shared(&open(dir, random)?, PAGE)?;
            map.store(0, 1);
            fs::remove_file(dir.join(format!("temporary{}", random.u8(..16))))?;
        }
        _ => {
            let directory = dir.join(format!("directory{}", random.u8(..4)));
            let _ = fs::create_dir(&directory);
            fs::read_dir(dir)?.count();
            fs::remove_dir(&directory)?;
        }
    }
    Ok(())
}
