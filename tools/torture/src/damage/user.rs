// SPDX-License-Identifier: GPL-2.0

//! A user of a volume: random operations, as the VFS layer passes them on. What fails, fails; the
//! caller judges.

use std::collections::BTreeSet;

use fastrand::Rng;
use rdax_volume::files::{list, write};
use rdax_volume::volume::error::{Error, Result};
use rdax_volume::volume::format::{Time, BLOCK, ROOT_INO};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::{NewInode, Rename, SetAttr};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::xattr::Must;
use rdax_volume::volume::Volume;

const FILE: u16 = 0o100_644;
const DIR: u16 = 0o040_755;
/// Most names that a user remembers: damage can make it look as if there were any number.
const NAMES_MAX: usize = 2000;
/// Files do not grow beyond this, but by holes.
const FILE_BYTES: u64 = 400_000;

/// A name that was seen.
#[derive(Clone)]
struct Named {
    dir: u64,
    name: Vec<u8>,
    ino: u64,
}

/// Somebody who uses the volume `vol`.
pub struct User<'v, 'r, P: Pmem> {
    vol: &'v Volume<P>,
    rng: &'r mut Rng,
    dirs: Vec<u64>,
    names: Vec<Named>,
    clock: i64,
    /// One in this many inodes that lose their last name stays in use.
    pub keep_one_in: u32,
}

fn is_dir(inode: &Inode) -> bool {
    inode.mode() >> 12 == 0o4
}

fn is_file(inode: &Inode) -> bool {
    inode.mode() >> 12 == 0o10
}

impl<'v, 'r, P: Pmem> User<'v, 'r, P> {
    /// Looks around first.
    pub fn new(vol: &'v Volume<P>, rng: &'r mut Rng) -> Self {
        let clock = rng.i64(1_000_000..2_000_000);
        let mut user = User {
            vol,
            rng,
            dirs: Vec::new(),
            names: Vec::new(),
            clock,
            keep_one_in: u32::MAX,
        };
        let (mut todo, mut known) = (vec![ROOT_INO], BTreeSet::from([ROOT_INO]));
        while let Some(dir) = todo.pop() {
            let Ok(mut inode) = vol.iget(dir) else {
                continue;
            };
            if !is_dir(&inode) {
                continue;
            }
            user.dirs.push(dir);
            for (_, name, ino, kind) in list(vol, &mut inode, 50).unwrap_or_default() {
                if user.names.len() < NAMES_MAX {
                    user.names.push(Named { dir, name, ino });
                }
                if kind == 4 && known.insert(ino) {
                    todo.push(ino);
                }
            }
        }
        user
    }

    fn now(&mut self) -> Time {
        self.clock += self.rng.i64(0..5);
        Time {
            sec: self.clock,
            nsec: self.rng.u32(0..1_000_000_000),
        }
    }

    fn new_inode(&mut self, mode: u16) -> NewInode {
        NewInode {
            mode,
            uid: self.rng.u32(0..3) * 1000,
            gid: self.rng.u32(0..3) * 100,
            rdev: if mode >> 12 == 0o2 { 0x103 } else { 0 },
            attrs: 0,
            now: self.now(),
        }
    }

    /// A directory, the root more often than others.
    fn dir(&mut self) -> Result<Inode> {
        let ino = match self.rng.u8(0..3) {
            0 => ROOT_INO,
            _ => *self.rng.choice(&self.dirs).unwrap_or(&ROOT_INO),
        };
        let inode = self.vol.iget(ino)?;
        match is_dir(&inode) {
            true => Ok(inode),
            false => Err(Error::NotFound),
        }
    }

    fn any(&mut self) -> Result<Named> {
        self.rng.choice(&self.names).cloned().ok_or(Error::NotFound)
    }

    fn file(&mut self) -> Result<Inode> {
        for _ in 0..20 {
            let inode = self.any().and_then(|named| self.vol.iget(named.ino))?;
            if is_file(&inode) {
                return Ok(inode);
            }
        }
        Err(Error::NotFound)
    }

    fn name(&mut self) -> Vec<u8> {
        let n = self.rng.u32(0..100_000);
        let mut name = format!("{n}").into_bytes();
        if self.rng.u8(0..4) == 0 {
            name.resize(self.rng.usize(name.len()..=255), b'n');
        }
        name
    }

    /// Notes that `inode` has the name `name` in `dir`.
    fn named(&mut self, dir: u64, name: Vec<u8>, inode: &Inode) {
        let ino = inode.ino();
        if is_dir(inode) && !self.dirs.contains(&ino) {
            self.dirs.push(ino);
        }
        self.names.push(Named { dir, name, ino });
    }

    fn forget(&mut self, dir: u64, name: &[u8]) {
        self.names.retain(|n| (n.dir, &n.name[..]) != (dir, name));
    }

    /// The inode has lost a name.
    fn left(&mut self, mut inode: Inode) -> Result<()> {
        if inode.nlink() > 0 {
            return Ok(());
        }
        let ino = inode.ino();
        self.dirs.retain(|&dir| dir != ino);
        match self.rng.u32(0..self.keep_one_in) {
            0 => Ok(()),
            _ => self.vol.free_inode(&mut inode),
        }
    }

    /// One operation.
    pub fn step(&mut self) -> Result<()> {
        match self.rng.u8(0..32) {
            0..=5 => self.create(),
            6..=7 => self.link(),
            8..=10 => self.remove(),
            11..=12 => self.rename(),
            13..=24 => self.change(),
            25..=27 => self.xattr(),
            28..=30 => self.attributes(),
            _ => self
                .vol
                .set_label(["", "one", "another label"][self.rng.usize(0..3)]),
        }
    }

    fn create(&mut self) -> Result<()> {
        let mut dir = self.dir()?;
        let name = self.name();
        let inode = match self.rng.u8(0..10) {
            0..=4 => {
                let new = self.new_inode(FILE);
                let mut inode = self.vol.create(&mut dir, &name, &new)?;
                self.named(dir.ino(), name, &inode);
                return self.write(&mut inode);
            }
            5..=6 => {
                let new = self.new_inode(DIR);
                self.vol.create(&mut dir, &name, &new)?
            }
            7 => {
                let mode = [0o010_600, 0o020_600, 0o060_600, 0o140_777][self.rng.usize(0..4)];
                let new = self.new_inode(mode);
                self.vol.create(&mut dir, &name, &new)?
            }
            8 => {
                let len = [1, 60, 128, 129, 700, 4095][self.rng.usize(0..6)];
                let new = self.new_inode(0o777);
                self.vol.symlink(&mut dir, &name, &vec![b't'; len], &new)?
            }
            _ => {
                let new = self.new_inode(FILE);
                let mut inode = self.vol.tmpfile(&new)?;
                self.write(&mut inode)?;
                return self.left(inode);
            }
        };
        self.named(dir.ino(), name, &inode);
        Ok(())
    }

    fn link(&mut self) -> Result<()> {
        let mut dir = self.dir()?;
        let mut inode = self.any().and_then(|named| self.vol.iget(named.ino))?;
        if is_dir(&inode) || inode.nlink() == 0 {
            return Err(Error::NotFound);
        }
        let (name, now) = (self.name(), self.now());
        self.vol.link(&mut dir, &name, &mut inode, now)?;
        self.named(dir.ino(), name, &inode);
        Ok(())
    }

    fn remove(&mut self) -> Result<()> {
        let Named { dir, name, ino } = self.any()?;
        let (mut parent, mut inode) = (self.vol.iget(dir)?, self.vol.iget(ino)?);
        let now = self.now();
        match is_dir(&inode) {
            true => self.vol.rmdir(&mut parent, &name, &mut inode, now)?,
            false => self.vol.unlink(&mut parent, &name, &mut inode, now)?,
        }
        self.forget(dir, &name);
        self.left(inode)
    }

    /// Whether `dir` is `ino`, or somewhere below it, or that cannot be told.
    fn is_below(&self, dir: u64, ino: u64) -> bool {
        let mut at = dir;
        for _ in 0..100 {
            if at == ino {
                return true;
            }
            if at == ROOT_INO {
                return false;
            }
            match self.vol.iget(at) {
                Ok(inode) if is_dir(&inode) => at = inode.parent(),
                _ => return true,
            }
        }
        true
    }

    fn rename(&mut self) -> Result<()> {
        let from = self.any()?;
        let over = match self.rng.bool() {
            true => Some(self.any()?),
            false => None,
        };
        let exchange = over.is_some() && self.rng.bool();
        let mut src = self.vol.iget(from.dir)?;
        let mut dst = match &over {
            Some(over) => self.vol.iget(over.dir)?,
            None => self.dir()?,
        };
        let mut moved = self.vol.iget(from.ino)?;
        let mut replaced = match &over {
            Some(over) => Some(self.vol.iget(over.ino)?),
            None => None,
        };
        let crossed = replaced.as_ref().is_some_and(|r| {
            r.ino() == moved.ino() || (exchange && is_dir(r) && self.is_below(src.ino(), r.ino()))
        });
        if crossed || (is_dir(&moved) && self.is_below(dst.ino(), moved.ino())) {
            return Err(Error::NotFound);
        }
        let name = match &over {
            Some(over) => over.name.clone(),
            None => self.name(),
        };
        let now = self.now();
        let same = src.ino() == dst.ino();
        let (src_ino, dst_ino) = (src.ino(), dst.ino());
        self.vol.rename(Rename {
            src_dir: &mut src,
            dst_dir: (!same).then_some(&mut dst),
            src_name: &from.name,
            dst_name: &name,
            moved: &mut moved,
            replaced: replaced.as_mut(),
            exchange,
            now,
        })?;
        self.forget(src_ino, &from.name);
        self.forget(dst_ino, &name);
        self.named(dst_ino, name, &moved);
        match replaced {
            Some(inode) if exchange => {
                self.named(src_ino, from.name, &inode);
                Ok(())
            }
            Some(inode) => self.left(inode),
            None => Ok(()),
        }
    }

    fn write(&mut self, inode: &mut Inode) -> Result<()> {
        let at = match self.rng.u8(0..8) {
            0 => self.rng.u64(0..1 << 40),
            1..=3 => inode.size().min(FILE_BYTES),
            _ => self.rng.u64(0..FILE_BYTES),
        };
        let len = [1, 100, 4096, 5000, 30_000][self.rng.usize(0..5)];
        let byte = self.rng.u8(1..);
        let data: Vec<u8> = (0..len)
            .map(|n| byte.wrapping_add((n / 64) as u8))
            .collect();
        let now = self.now();
        write(self.vol, inode, at, &data, now)
    }

    fn change(&mut self) -> Result<()> {
        let mut inode = self.file()?;
        let (at, len) = (self.rng.u64(0..100), self.rng.u64(1..20));
        let now = self.now();
        let vol = self.vol;
        match self.rng.u8(0..16) {
            0..=4 => self.write(&mut inode),
            5 => {
                let size = self.rng.u64(0..FILE_BYTES);
                vol.truncate(&mut inode, size, now)
            }
            6 => vol.truncate(&mut inode, 0, now),
            7..=8 => vol.preallocate(&mut inode, at, len, now).map(drop),
            9 => vol.fill(&mut inode, at, len, Some(now)).map(drop),
            10 => vol.punch(&mut inode, at, len, now),
            11 => vol.unwrite(&mut inode, at, len, now).map(drop),
            12 => vol.collapse(&mut inode, at, len, now),
            13 => vol.make_gap(&mut inode, at, len, now),
            // Many extents.
            _ => {
                for n in 0..self.rng.u64(1..30) {
                    let block = (at + n) * 2;
                    match vol.fill(&mut inode, block, 1, Some(now)) {
                        Ok(run) => {
                            let data = [self.rng.u8(1..); BLOCK as usize];
                            vol.pmem().store_nt(run.block * BLOCK, &data)?;
                        }
                        Err(Error::Exists) => {}
                        Err(e) => return Err(e),
                    }
                    let end = (block + 1) * BLOCK;
                    vol.extend(&mut inode, end, end, Some(now))?;
                }
                Ok(())
            }
        }
    }

    fn xattr(&mut self) -> Result<()> {
        let mut inode = self.any().and_then(|named| self.vol.iget(named.ino))?;
        let name = format!("user.{}", self.rng.u8(0..6));
        let len = [0, 3, 200, 512, 513, 9000, 40_000][self.rng.usize(0..7)];
        let value = vec![self.rng.u8(..); len];
        let value = (self.rng.u8(0..4) > 0).then_some(&value[..]);
        let set = SetAttr {
            ctime: Some(self.now()),
            ..SetAttr::default()
        };
        let must = match value {
            Some(_) => Must::Whatever,
            None => Must::Exist,
        };
        self.vol
            .set_xattr(&mut inode, name.as_bytes(), value, must, &set)
    }

    fn attributes(&mut self) -> Result<()> {
        let mut inode = self.any().and_then(|named| self.vol.iget(named.ino))?;
        let now = self.now();
        if self.rng.bool() {
            return self.vol.touch(&mut inode, now, now, now);
        }
        let set = SetAttr {
            mode: Some(inode.mode() & !0o7777 | self.rng.u16(0..0o10000)),
            uid: Some(self.rng.u32(..)),
            ctime: Some(now),
            ..SetAttr::default()
        };
        self.vol.set_attr(&mut inode, &set)
    }
}
