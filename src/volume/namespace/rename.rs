// SPDX-License-Identifier: GPL-2.0

//! Rename: to a free name, over a name, and the exchange of two names.

use zerocopy::little_endian::U64;

use super::{add_links, changed, check_alive, corrupt, file_type, is_dir};
use crate::volume::dir;
use crate::volume::error::{Error, Result};
use crate::volume::extent::Media;
use crate::volume::format::{RawInode, Time};
use crate::volume::inode::Inode;
use crate::volume::journal::Tx;
use crate::volume::pmem::Pmem;
use crate::volume::Volume;

/// What to rename. All inodes are different ones.
pub struct Rename<'a> {
    /// The directory that has the name.
    pub src_dir: &'a mut Inode,
    /// The directory that gets it; `None` if it is the same.
    pub dst_dir: Option<&'a mut Inode>,
    /// The name.
    pub src_name: &'a [u8],
    /// The new name.
    pub dst_name: &'a [u8],
    /// What the name stands for.
    pub moved: &'a mut Inode,
    /// What the new name stands for; `None` if it is free. A directory is replaced by directories
    /// only, anything else by anything else.
    pub replaced: Option<&'a mut Inode>,
    /// The two names change places; then `replaced` is there, and of any type.
    pub exchange: bool,
    /// Time of the change.
    pub now: Time,
}

impl Rename<'_> {
    /// The directory of the new name.
    fn dst(&self) -> &Inode {
        self.dst_dir.as_deref().unwrap_or(self.src_dir)
    }

    /// Fails unless the arguments make sense together.
    fn check(&self) -> Result<()> {
        check_alive(self.src_dir)?;
        check_alive(self.dst())?;
        let dirs = [self.src_dir.ino(), self.dst().ino()];
        let replaced = self.replaced.as_deref();
        let twice = dirs.contains(&self.moved.ino())
            || (self.dst_dir.is_some() && dirs[0] == dirs[1])
            || replaced.is_some_and(|r| r.ino() == self.moved.ino() || dirs.contains(&r.ino()));
        let fits = match replaced {
            Some(r) => self.exchange || is_dir(r) == is_dir(self.moved),
            None => !self.exchange,
        };
        let at_home = |inode: &Inode, dir: u64| !is_dir(inode) || inode.parent() == dir;
        if twice
            || !fits
            || !at_home(self.moved, dirs[0])
            || !replaced.is_none_or(|r| at_home(r, dirs[1]))
        {
            return Err(Error::Invalid);
        }
        Ok(())
    }
}

/// The changed copies of the inodes that a rename concerns.
struct Changed {
    src: RawInode,
    /// `None` if it is the same directory.
    dst: Option<RawInode>,
    moved: RawInode,
    replaced: Option<RawInode>,
}

impl Changed {
    fn new(r: &Rename<'_>) -> Changed {
        let mut new = Changed {
            src: r.src_dir.raw().clone(),
            dst: r.dst_dir.as_ref().map(|dir| dir.raw().clone()),
            moved: r.moved.raw().clone(),
            replaced: r.replaced.as_ref().map(|inode| inode.raw().clone()),
        };
        changed(&mut new.src, r.now);
        new.moved.set_ctime(r.now);
        if let Some(dst) = &mut new.dst {
            changed(dst, r.now);
            if is_dir(r.moved) {
                new.moved.parent = dst.ino;
            }
        }
        new
    }

    /// Counts `n` directories as moved from the source to the target directory.
    fn move_dirs(&mut self, n: i32) -> Result<()> {
        if let Some(dst) = &mut self.dst {
            add_links(dst, n)?;
            add_links(&mut self.src, -n)?;
        }
        Ok(())
    }

    /// Logs the inodes, commits, and makes the copies the inodes.
    fn commit<P: Pmem>(mut self, mut tx: Tx<'_, P>, r: Rename<'_>) -> Result<()> {
        r.src_dir.log(&mut tx, &mut self.src)?;
        r.moved.log(&mut tx, &mut self.moved)?;
        if let (Some(inode), Some(raw)) = (&r.dst_dir, &mut self.dst) {
            inode.log(&mut tx, raw)?;
        }
        if let (Some(inode), Some(raw)) = (&r.replaced, &mut self.replaced) {
            inode.log(&mut tx, raw)?;
        }
        tx.commit()?;
        r.src_dir.set(self.src);
        r.moved.set(self.moved);
        if let (Some(inode), Some(raw)) = (r.dst_dir, self.dst) {
            inode.set(raw);
        }
        if let (Some(inode), Some(raw)) = (r.replaced, self.replaced) {
            inode.set(raw);
        }
        Ok(())
    }
}

impl<P: Pmem> Volume<P> {
    /// Renames, in one transaction: after a crash, either the old or the new state is there.
    ///
    /// What is replaced loses a name as by [`Volume::unlink`] or [`Volume::rmdir`]. The caller has
    /// made sure that no directory is moved into itself or below.
    pub fn rename(&self, mut r: Rename<'_>) -> Result<()> {
        r.check()?;
        if r.exchange {
            return self.exchange(r);
        }
        let src_name = self.name(r.src_name)?;
        let dst_name = self.name(r.dst_name)?;
        let media = Media::of(self);
        // This may move the old name to another leaf, so it comes first.
        let place = match (&r.replaced, &mut r.dst_dir) {
            (Some(_), _) => None,
            (None, Some(dir)) => Some(dir::prepare(self, dir, &dst_name)?),
            (None, None) => Some(dir::prepare(self, r.src_dir, &dst_name)?),
        };
        let from = self.entry(r.src_dir, &src_name, r.moved.ino())?;
        let mut new = Changed::new(&r);
        let mut orphan = None;
        let mut over = None;
        if let (Some(target), Some(raw)) = (&r.replaced, &mut new.replaced) {
            over = Some(self.entry(r.dst(), &dst_name, target.ino())?);
            orphan = self.drop_link(target, raw, r.now)?;
            if is_dir(target) {
                let dst = new.dst.as_mut().unwrap_or(&mut new.src);
                add_links(dst, -1).map_err(|_| corrupt(r.dst()))?;
            }
        }
        new.move_dirs(is_dir(r.moved).into())?;

        let mut tx = self.begin()?;
        let (ino, kind) = (r.moved.ino(), file_type(&new.moved));
        if let Some(place) = &place {
            dir::insert(&mut tx, place, ino, kind)?;
        }
        if let Some(entry) = &over {
            dir::replace(&mut tx, &media, entry, ino, kind)?;
        }
        let keep = r.dst_dir.is_none().then_some(&dst_name);
        dir::remove(&mut tx, &media, &mut new.src, r.src_dir.at(), &from, keep)?;
        if let (Some(orphan), Some(raw)) = (orphan, &mut new.replaced) {
            tx.attach_orphan(orphan, raw)?;
        }
        new.commit(tx, r)
    }

    fn exchange(&self, r: Rename<'_>) -> Result<()> {
        let src_name = self.name(r.src_name)?;
        let dst_name = self.name(r.dst_name)?;
        let media = Media::of(self);
        let other = r.replaced.as_deref().ok_or(Error::Invalid)?;
        let from = self.entry(r.src_dir, &src_name, r.moved.ino())?;
        let to = self.entry(r.dst(), &dst_name, other.ino())?;
        let mut new = Changed::new(&r);
        new.move_dirs(i32::from(is_dir(r.moved)) - i32::from(is_dir(other)))?;
        let src_ino = r.src_dir.ino();
        if let Some(raw) = &mut new.replaced {
            raw.set_ctime(r.now);
            if is_dir(other) {
                raw.parent = U64::new(src_ino);
            }
        }

        let mut tx = self.begin()?;
        let kind = file_type(&new.moved);
        dir::replace(&mut tx, &media, &to, r.moved.ino(), kind)?;
        let kind = file_type(other.raw());
        dir::replace(&mut tx, &media, &from, other.ino(), kind)?;
        new.commit(tx, r)
    }
}
