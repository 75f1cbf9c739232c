// SPDX-License-Identifier: GPL-2.0

//! The operations of workloads on the volume itself, without a kernel: data is written as
//! `src/vfs/io.rs` and `src/vfs/allocate.rs` do it.

use std::sync::Arc;

use rdax_crash_ops::{fill, Op, Rename};
use rdax_volume::sim::{Image, Sim};
use rdax_volume::volume::alloc::Want;
use rdax_volume::volume::error::{Error, Result};
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::{Time, BLOCK, ROOT_INO};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::{self, NewInode, SetAttr};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::xattr::Must;
use rdax_volume::volume::{mkfs, MountOptions, Volume};

/// Bytes of the volumes: as few as can be.
const BYTES: u64 = 8 << 20;
/// Blocks that hold something old: more than a workload uses.
const OLD: u64 = 256;

/// An empty volume whose free blocks, those that are given out first, hold old data.
pub fn empty() -> Image {
    let sim = Arc::new(Sim::new(BYTES));
    let options = mkfs::Options {
        uuid: [1; 16],
        label: "",
        hash_key: *b"an ordinary key!",
        now: time(0),
        bytes: None,
    };
    mkfs::format(&sim, &options).expect("formats");
    let volume = Volume::mount(sim.clone(), MountOptions::default()).expect("mounts");
    let mut reserved = Vec::new();
    let mut blocks = 0;
    while blocks < OLD {
        let reservation = volume.reserve(Want::blocks(OLD)).expect("has space");
        let run = reservation.run();
        let old = vec![0xee; (run.len * BLOCK) as usize];
        sim.store_nt(run.block * BLOCK, &old).expect("stores");
        blocks += run.len;
        reserved.push(reservation);
    }
    drop(reserved);
    sim.content()
}

/// Time `n` of a test.
fn time(n: i64) -> Time {
    Time {
        sec: 1_000_000 + n,
        nsec: 5,
    }
}

/// A volume in use.
pub struct Host {
    pub sim: Arc<Sim>,
    volume: Volume<Arc<Sim>>,
}

/// The directory of a path, and the name in it.
fn split(path: &str) -> (&str, &[u8]) {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    (dir, name.as_bytes())
}

impl Host {
    /// Mounts the volume in `image`.
    pub fn new(image: Image) -> Self {
        let sim = Arc::new(Sim::from_image(BYTES, image));
        let volume = Volume::mount(sim.clone(), MountOptions::default()).expect("mounts");
        Host { sim, volume }
    }

    fn at(&self, path: &str) -> Result<Inode> {
        let mut inode = self.volume.iget(ROOT_INO)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let entry = self.volume.lookup(&mut inode, name.as_bytes())?;
            inode = self.volume.iget(entry.ok_or(Error::NotFound)?.ino)?;
        }
        Ok(inode)
    }

    /// Does `op`, which is operation `number` of its workload.
    ///
    /// # Panics
    ///
    /// If it needs a mapping.
    pub fn perform(&self, number: usize, op: &Op) -> Result<()> {
        let now = time(number as i64 + 1);
        match *op {
            Op::Creat { path } => self.make(path, 0o100_644, 0, now),
            Op::Mkdir { path } => self.make(path, 0o040_755, 0, now),
            Op::Mkfifo { path } => self.make(path, 0o010_600, 0, now),
            Op::Mknod { path } => self.make(path, 0o020_600, 0x103, now),
            Op::Symlink { path, len } => {
                let (dir, name) = split(path);
                let new = NewInode {
                    mode: 0o777,
                    now,
                    ..NewInode::default()
                };
                let target = Op::target(len);
                let dir = &mut self.at(dir)?;
                self.volume.symlink(dir, name, target.as_bytes(), &new)?;
                Ok(())
            }
            Op::Link { from, to } => {
                let (dir, name) = split(to);
                let target = &mut self.at(from)?;
                self.volume.link(&mut self.at(dir)?, name, target, now)
            }
            Op::Unlink { path } => {
                let (dir, name) = split(path);
                let mut target = self.at(path)?;
                let dir = &mut self.at(dir)?;
                self.volume.unlink(dir, name, &mut target, now)?;
                self.forget(target)
            }
            Op::Rmdir { path } => {
                let (dir, name) = split(path);
                let mut target = self.at(path)?;
                let dir = &mut self.at(dir)?;
                self.volume.rmdir(dir, name, &mut target, now)?;
                self.forget(target)
            }
            Op::Rename { from, to, how } => self.rename(from, to, how, now),
            Op::Write { path, at, len } => {
                let mut bytes = vec![0; len as usize];
                fill(number, at, &mut bytes);
                self.write(&mut self.at(path)?, at, &bytes, now)
            }
            Op::Truncate { path, size } => self.volume.truncate(&mut self.at(path)?, size, now),
            Op::Fallocate {
                path,
                at,
                len,
                keep_size,
            } => {
                let inode = &mut self.at(path)?;
                let grows = !keep_size && at + len > inode.size();
                let zero_from = if grows {
                    inode.size().max(at)
                } else {
                    at + len
                };
                let stored = self.provide(inode, at, at + len, zero_from, false, now)?;
                let stored_from = inode.size().max(at);
                match grows {
                    true => self.volume.extend(inode, at + len, stored_from, Some(now)),
                    false => self.complete(stored),
                }
            }
            Op::Punch { path, at, len } => self.punch(&mut self.at(path)?, at, at + len, now),
            Op::Zero { path, at, len } => self.zero(&mut self.at(path)?, at, at + len, now),
            Op::WriteZeroes { path, at, len } => {
                let inode = &mut self.at(path)?;
                let stored = self.provide(inode, at, at + len, at, true, now)?;
                self.complete(stored)
            }
            Op::Chmod { path, mode } => {
                let set = SetAttr {
                    mode: Some(mode),
                    ctime: Some(now),
                    ..SetAttr::default()
                };
                self.volume.set_attr(&mut self.at(path)?, &set)
            }
            Op::Utimes { path, mtime } => {
                let set = Time {
                    sec: mtime,
                    nsec: 0,
                };
                self.volume.touch(&mut self.at(path)?, set, set, now)
            }
            Op::Setxattr { path, name, len } => {
                let mut value = vec![0; len];
                fill(number, 0, &mut value);
                self.set_xattr(path, name, Some(&value), now)
            }
            Op::Removexattr { path, name } => self.set_xattr(path, name, None, now),
            Op::Fsync { .. } | Op::Fdatasync { .. } => Ok(()),
            _ => panic!("{op} needs a kernel"),
        }
    }

    fn set_xattr(&self, path: &str, name: &str, value: Option<&[u8]>, now: Time) -> Result<()> {
        let set = SetAttr {
            ctime: Some(now),
            ..SetAttr::default()
        };
        let must = match value {
            Some(_) => Must::Whatever,
            None => Must::Exist,
        };
        let inode = &mut self.at(path)?;
        self.volume
            .set_xattr(inode, name.as_bytes(), value, must, &set)
    }

    fn make(&self, path: &str, mode: u16, rdev: u32, now: Time) -> Result<()> {
        let (dir, name) = split(path);
        let new = NewInode {
            mode,
            rdev,
            now,
            ..NewInode::default()
        };
        self.volume.create(&mut self.at(dir)?, name, &new)?;
        Ok(())
    }

    /// Nobody uses `inode` any more: without a name, it goes.
    fn forget(&self, mut inode: Inode) -> Result<()> {
        match inode.nlink() {
            0 => self.volume.free_inode(&mut inode),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &str, to: &str, how: Rename, now: Time) -> Result<()> {
        let ((src_dir, src_name), (dst_dir, dst_name)) = (split(from), split(to));
        let mut replaced = match how {
            Rename::Plain | Rename::NoReplace => None,
            Rename::Over | Rename::Exchange => Some(self.at(to)?),
        };
        let mut dst = self.at(dst_dir)?;
        self.volume.rename(namespace::Rename {
            src_dir: &mut self.at(src_dir)?,
            dst_dir: (src_dir != dst_dir).then_some(&mut dst),
            src_name,
            dst_name,
            moved: &mut self.at(from)?,
            replaced: replaced.as_mut(),
            exchange: how == Rename::Exchange,
            now,
        })?;
        match replaced {
            Some(inode) => self.forget(inode),
            None => Ok(()),
        }
    }

    fn write(&self, inode: &mut Inode, start: u64, bytes: &[u8], now: Time) -> Result<()> {
        let (volume, pmem) = (&self.volume, self.volume.pmem());
        let end = start + bytes.len() as u64;
        let part = |from: u64, to: u64| &bytes[(from - start) as usize..(to - start) as usize];
        let mut stored = false;
        let mut at = start;
        while at < end {
            let (first, head) = (at / BLOCK, at % BLOCK);
            let left = end.div_ceil(BLOCK) - first;
            match volume.map(inode, first, left)? {
                Map::Run { block, len } => {
                    let to = end.min((first + len) * BLOCK);
                    pmem.store_nt(block * BLOCK + head, part(at, to))?;
                    stored = true;
                    if to > inode.size() {
                        volume.extend(inode, to, at, Some(now))?;
                        stored = false;
                    }
                    at = to;
                }
                Map::Unwritten { block, len } => {
                    let to = end.min((first + len) * BLOCK);
                    pmem.store_nt(block * BLOCK + head, part(at, to))?;
                    volume.convert(inode, at..to, Some(to), now)?;
                    stored = false;
                    at = to;
                }
                Map::Hole { .. } => {
                    let reserved = volume.reserve_several(volume.want(inode, first, left)?)?;
                    let to = end.min((first + reserved.blocks()) * BLOCK);
                    let (mut from, mut head) = (at, head);
                    for run in reserved.runs() {
                        let byte = run.block * BLOCK;
                        let until = to.min(from - head + run.len * BLOCK);
                        let used = until - (from - head);
                        pmem.store_nt(byte + head, part(from, until))?;
                        pmem.zero_nt(byte, head)?;
                        pmem.zero_nt(byte + used, run.len * BLOCK - used)?;
                        (from, head) = (until, 0);
                    }
                    volume.insert(inode, first, reserved, Some(to), now)?;
                    stored = false;
                    at = to;
                }
            }
        }
        if stored {
            pmem.fence()?;
        }
        Ok(())
    }

    /// Blocks for the bytes `start..end`, of which those from `zero_from` on become zero. Returns
    /// whether zeros were stored that no fence has followed.
    fn provide(
        &self,
        inode: &mut Inode,
        start: u64,
        end: u64,
        zero_from: u64,
        as_data: bool,
        now: Time,
    ) -> Result<bool> {
        let last = end.div_ceil(BLOCK);
        let mut block = start / BLOCK;
        let mut stored = false;
        // Before it, what is data stays as it is.
        let kept = if zero_from < end {
            zero_from / BLOCK
        } else {
            last
        };
        while block < last {
            block += match self.volume.map(inode, block, last - block)? {
                Map::Hole { len } | Map::Unwritten { len, .. } if as_data => {
                    stored = false;
                    self.volume.fill(inode, block, len, Some(now))?.len
                }
                Map::Hole { len } => {
                    stored = false;
                    let len = len.max(kept.saturating_sub(block));
                    self.volume.preallocate(inode, block, len, now)?
                }
                Map::Unwritten { len, .. } => len,
                Map::Run { block: at, len } => {
                    let from = zero_from.max(start).max(block * BLOCK);
                    let to = end.min((block + len) * BLOCK);
                    if from < to {
                        let byte = at * BLOCK + from - block * BLOCK;
                        self.volume.pmem().zero_nt(byte, to - from)?;
                        stored = true;
                    }
                    len
                }
            };
        }
        Ok(stored)
    }

    fn punch(&self, inode: &mut Inode, start: u64, end: u64, now: Time) -> Result<()> {
        let mut stored = self.zero_edges(inode, start, end)?;
        if start.div_ceil(BLOCK) < end / BLOCK {
            let first = start.div_ceil(BLOCK);
            self.volume.punch(inode, first, end / BLOCK - first, now)?;
            stored = false;
        }
        self.complete(stored)
    }

    fn zero(&self, inode: &mut Inode, start: u64, end: u64, now: Time) -> Result<()> {
        let mut stored = self.zero_edges(inode, start, end)?;
        if start.div_ceil(BLOCK) < end / BLOCK {
            let first = start.div_ceil(BLOCK);
            stored &= !self
                .volume
                .unwrite(inode, first, end / BLOCK - first, now)?;
        }
        stored |= self.provide(inode, start, end, end, false, now)?;
        self.complete(stored)
    }

    fn complete(&self, stored: bool) -> Result<()> {
        match stored {
            true => self.volume.pmem().fence(),
            false => Ok(()),
        }
    }

    /// Zeroes what is not whole blocks of `start..end`, if it is data. Returns whether any was.
    fn zero_edges(&self, inode: &mut Inode, start: u64, end: u64) -> Result<bool> {
        let (first, last) = (start.div_ceil(BLOCK), end / BLOCK);
        let mut stored = self.zero_edge(inode, start, end.min(first * BLOCK))?;
        if first <= last {
            stored |= self.zero_edge(inode, last * BLOCK, end)?;
        }
        Ok(stored)
    }

    fn zero_edge(&self, inode: &mut Inode, from: u64, to: u64) -> Result<bool> {
        if from >= to {
            return Ok(false);
        }
        match self.volume.map(inode, from / BLOCK, 1)? {
            Map::Hole { .. } | Map::Unwritten { .. } => Ok(false),
            Map::Run { block, .. } => {
                let byte = block * BLOCK + from % BLOCK;
                self.volume.pmem().zero_nt(byte, to - from)?;
                Ok(true)
            }
        }
    }
}
