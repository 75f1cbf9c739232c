// SPDX-License-Identifier: GPL-2.0

//! Volumes that were in use: files, directories, links, attributes, unwritten extents, removed
//! inodes that are still open, and transactions that a crash has cut off, in several lanes at a
//! time.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use rdax_fsck::media::{file_type, Media, DT_LNK};
use rdax_volume::env::set_cpu;
use rdax_volume::files::write;
use rdax_volume::ram::Ram;
use rdax_volume::volume::error::Result;
use rdax_volume::volume::format::{Time, BLOCK, INLINE_MAX, ROOT_INO};
use rdax_volume::volume::mkfs;
use rdax_volume::volume::namespace::{NewInode, Rename, SetAttr};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::super_block;
use rdax_volume::volume::xattr::Must;
use rdax_volume::volume::{MountOptions, Volume};

use super::cow::Cow;
use super::place::{places, Place};
use super::see::{walk, Tree};
use super::user::User;

/// How long a thread may take to its end or its crash: less, unless others that have crashed keep
/// it from that.
const PATIENCE: Duration = Duration::from_secs(2);

/// A volume that was in use, and what is known of it.
pub struct Base {
    pub bytes: Vec<u8>,
    /// The same device at an earlier time.
    pub stale: Vec<u8>,
    /// Its structures.
    pub places: Vec<Place>,
    /// What a mount has to show.
    pub tree: Tree,
    /// Of each block: the inode whose data or large value it holds, or 0.
    owners: Vec<u64>,
    /// Nearly no block is free: a repair may lack the space it needs.
    pub full: bool,
    /// Transactions that recovery has to complete.
    pub logged: u32,
    /// Inodes that it has to free or to cut.
    pub orphans: u64,
}

thread_local! {
    /// Fences until the crash of this thread.
    static FENCES: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// A memory on which threads crash, each at a fence of its own: it stops there, with what it holds,
/// until all do.
struct Crashing {
    ram: Ram,
    crashed: AtomicBool,
    /// Threads that have crashed or are done.
    stopped: Mutex<usize>,
    changed: Condvar,
}

impl Crashing {
    fn stopped(&self) -> MutexGuard<'_, usize> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_stopped(&self) {
        *self.stopped() += 1;
        self.changed.notify_all();
    }

    /// Waits until this many have crashed or are done, or one blocks another.
    fn wait_for(&self, count: usize) {
        let stopped = self.stopped();
        let _ = self
            .changed
            .wait_timeout_while(stopped, PATIENCE, |stopped| *stopped < count);
    }

    /// From here on nothing reaches the media, and whoever waits goes on.
    fn crash(&self) {
        let _stopped = self.stopped();
        self.crashed.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    fn is_crashed(&self) -> bool {
        self.crashed.load(Ordering::SeqCst)
    }

    fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.ram.len() as usize];
        self.ram.read(0, &mut bytes).expect("reads");
        bytes
    }
}

impl Pmem for Crashing {
    fn len(&self) -> u64 {
        self.ram.len()
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.ram.read(at, buf)
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<()> {
        match self.is_crashed() {
            true => Ok(()),
            false => self.ram.store(at, bytes),
        }
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.store(at, bytes)
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<()> {
        match self.is_crashed() {
            true => Ok(()),
            false => self.ram.zero_nt(at, len),
        }
    }

    fn write_back(&self, _at: u64, _len: u64) {}

    fn fence(&self) -> Result<()> {
        FENCES.set(FENCES.get().saturating_sub(1));
        if FENCES.get() == 0 && !self.is_crashed() {
            self.has_stopped();
            let mut stopped = self.stopped();
            while !self.is_crashed() {
                stopped = self
                    .changed
                    .wait(stopped)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
        Ok(())
    }
}

type Vol<'a> = Volume<&'a Crashing>;

fn time(n: i64) -> Time {
    Time { sec: n, nsec: 9 }
}

fn new(mode: u16) -> NewInode {
    NewInode {
        mode,
        uid: 1000,
        gid: 100,
        now: time(1),
        ..NewInode::default()
    }
}

/// Makes what the thread `n` will use, and nobody else.
fn prepare(vol: &Vol<'_>, n: usize) -> Result<u64> {
    let mut root = vol.iget(ROOT_INO)?;
    let mut dir = vol.create(&mut root, format!("own{n}").as_bytes(), &new(0o040_755))?;
    for name in [&b"one"[..], b"two"] {
        let mut file = vol.create(&mut dir, name, &new(0o100_644))?;
        write(vol, &mut file, 0, &[n as u8 + 1; 9000], time(2))?;
    }
    Ok(dir.ino())
}

/// An operation of a thread, in its directory.
fn operation(vol: &Vol<'_>, dir: u64, which: u8) -> Result<()> {
    let mut dir = vol.iget(dir)?;
    let mut get = |name: &[u8]| -> Result<_> {
        let entry = vol.lookup(&mut dir, name)?;
        vol.iget(entry.map_or(0, |e| e.ino))
    };
    let (mut one, mut two) = (get(b"one")?, get(b"two")?);
    match which {
        0 => vol.create(&mut dir, b"three", &new(0o100_644)).map(drop),
        1 => vol.unlink(&mut dir, b"one", &mut one, time(3)),
        2 => write(vol, &mut one, 8192, &[7; 20_000], time(3)),
        3 => vol.truncate(&mut one, 5, time(3)),
        4 => vol.create(&mut dir, b"sub", &new(0o040_755)).map(drop),
        5 => {
            let (value, set) = ([9; 3000], SetAttr::default());
            vol.set_xattr(&mut one, b"user.big", Some(&value), Must::BeNew, &set)
        }
        6 => vol.link(&mut dir, b"linked", &mut one, time(3)),
        _ => vol.rename(Rename {
            src_dir: &mut dir,
            dst_dir: None,
            src_name: b"one",
            dst_name: b"two",
            moved: &mut one,
            replaced: Some(&mut two),
            exchange: which == 7,
            now: time(3),
        }),
    }
}

/// Several threads work at a time and crash together.
fn crash_together(memory: &Crashing, rng: &mut Rng, threads: usize) -> Result<()> {
    let vol = Volume::mount(memory, MountOptions::default())?;
    let mut dirs = Vec::new();
    for n in 0..threads {
        dirs.push(prepare(&vol, n)?);
    }
    std::thread::scope(|scope| {
        for (n, &dir) in dirs.iter().enumerate() {
            let (fences, which, vol) = (rng.u32(1..4), rng.u8(0..9), &vol);
            scope.spawn(move || {
                set_cpu(n + 1);
                FENCES.set(fences);
                // What it did is on the media.
                let _ = operation(vol, dir, which);
                if FENCES.get() > 0 {
                    memory.has_stopped();
                }
            });
            memory.wait_for(n + 1);
        }
        memory.crash();
    });
    Ok(())
}

/// Uses the volume for `steps` operations. Returns the device in the middle of that.
fn live(memory: &Crashing, rng: &mut Rng, steps: usize, full: bool) -> Result<Vec<u8>> {
    let vol = Volume::mount(memory, MountOptions::default())?;
    vol.recover_orphans()?;
    let mut user = User::new(&vol, rng);
    user.keep_one_in = 10;
    let middle = steps / 3;
    let mut stale = Vec::new();
    for step in 0..steps {
        // The user's errors are the user's; the volume is asked at the end.
        let _ = user.step();
        if step == middle {
            stale = memory.content();
        }
    }
    drop(user);
    // A directory with many names, and a file with many extents.
    let mut root = vol.iget(ROOT_INO)?;
    if rng.bool() {
        let mut dir = vol.create(&mut root, b"many", &new(0o040_755))?;
        for n in 0..rng.u32(50..400) {
            vol.create(&mut dir, format!("{n:050}").as_bytes(), &new(0o010_600))?;
        }
    }
    if rng.bool() {
        let mut file = vol.create(&mut root, b"holes", &new(0o100_644))?;
        for n in 0..rng.u64(9..400) {
            write(&vol, &mut file, 2 * n * BLOCK, &n.to_le_bytes(), time(4))?;
        }
    }
    if full {
        let mut file = vol.create(&mut root, b"rest", &new(0o100_644))?;
        let mut at = 0;
        while let Ok(len) = vol.preallocate(&mut file, at, u64::MAX >> 20, time(4)) {
            at += len;
        }
    }
    Ok(stale)
}

/// A new volume on `memory`.
fn make(memory: &Crashing, rng: &mut Rng) -> Result<()> {
    let options = mkfs::Options {
        uuid: rng.u128(..).to_le_bytes(),
        label: "torture",
        hash_key: rng.u128(..).to_le_bytes(),
        now: time(0),
        bytes: None,
    };
    mkfs::format(memory, &options)?;
    Ok(())
}

/// Of each block the inode whose data, leaf or large value it holds.
fn owners(view: &Cow<'_>) -> Vec<u64> {
    let mut owners = vec![0; (view.len() / BLOCK) as usize];
    let (sb, geo) = super_block::read_at(view, 0).expect("a sound superblock");
    let media = Media::new(view, sb, geo);
    for (ino, raw) in media.inodes() {
        let inline = file_type(&raw) == DT_LNK && raw.size.get() <= INLINE_MAX as u64;
        let mut runs = media.xattr_runs(&raw);
        if !inline {
            runs.extend(media.extents(&raw));
        }
        for block in runs.iter().flat_map(|m| m.block..m.block + m.len) {
            owners[block as usize] = ino;
        }
    }
    owners
}

impl Base {
    /// Blocks that hold data of files, leaves, or large values.
    pub fn owned(&self) -> impl Iterator<Item = u64> + '_ {
        let blocks = (0..).zip(&self.owners);
        blocks.filter(|(_, &ino)| ino != 0).map(|(block, _)| block)
    }

    /// The inode whose `block` is.
    pub fn owner(&self, block: u64) -> Option<u64> {
        self.owners
            .get(block as usize)
            .copied()
            .filter(|&ino| ino != 0)
    }

    /// The volume of the seed `seed`, always the same one.
    pub fn new(seed: u64) -> Base {
        let mut rng = Rng::with_seed(seed);
        set_cpu(0);
        let mib = [8, 8, 8, 9, 12, 16, 24, 32][rng.usize(0..8)];
        let memory = Crashing {
            ram: Ram::new(mib << 20),
            crashed: AtomicBool::new(false),
            stopped: Mutex::new(0),
            changed: Condvar::new(),
        };
        let full = rng.u8(0..8) == 0;
        make(&memory, &mut rng).expect("makes a volume");
        let steps = rng.usize(60..500);
        let stale = live(&memory, &mut rng, steps, full).expect("can be used");
        let threads = rng.usize(0..5);
        if threads > 0 && !full {
            crash_together(&memory, &mut rng, threads).expect("can be used by threads");
        }
        Base::of(memory.content(), stale, full)
    }

    fn of(bytes: Vec<u8>, stale: Vec<u8>, full: bool) -> Base {
        let view = Cow::new(&bytes);
        let vol = Volume::mount(&view, MountOptions::default()).expect("mounts");
        let logged = vol.notes().replayed;
        let orphans = vol.recover_orphans().expect("frees the orphans");
        let (tree, errors) = walk(&vol);
        assert!(errors.is_empty(), "an undamaged volume: {errors:?}");
        drop(vol);
        let mut problems = Vec::new();
        let sound = rdax_volume::volume::check::check(&view, &mut |p| problems.push(p));
        assert!(
            sound.is_ok() && problems.is_empty(),
            "an undamaged volume: {problems:?}"
        );
        let view = Cow::new(&bytes);
        Base {
            places: places(&view),
            owners: owners(&view),
            tree,
            full,
            logged,
            orphans,
            bytes,
            stale,
        }
    }
}
