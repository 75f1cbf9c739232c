// SPDX-License-Identifier: GPL-2.0

//! Rename: to a free name, over a name, and the exchange of two names.

use zerocopy::little_endian::U32;

use super::{add_links, changed, check_alive, corrupt, entry, file_type, is_dir, number, NewInode};
use crate::volume::dir::{self, Entry, Name, Slot};
use crate::volume::error::{Error, Result};
use crate::volume::extent::Media;
use crate::volume::format::Time;
use crate::volume::inode::{Before, Inode, FIELDS, LINE, WHOLE};
use crate::volume::journal::Tx;
use crate::volume::pmem::Pmem;
use crate::volume::table::InodeReservation;
use crate::volume::xattr::{self, Xattr};
use crate::volume::Volume;

/// What to rename. All inodes are distinct.
pub struct Rename<'a> {
    /// The directory that has the name.
    pub src_dir: &'a mut Inode,
    /// The directory that gets it; `None` if it is the same.
    pub dst_dir: Option<&'a mut Inode>,
    /// The name.
    pub src_name: &'a [u8],
    /// The new name.
    pub dst_name: &'a [u8],
    /// The inode with the old name.
    pub moved: &'a mut Inode,
    /// The inode with the new name; `None` if it is free. A directory can replace only a directory,
    /// anything else anything but a directory.
    pub replaced: Option<&'a mut Inode>,
    /// The two names are exchanged; then `replaced` is set, and of any type.
    pub exchange: bool,
    /// Time of the change.
    pub now: Time,
}

impl Rename<'_> {
    /// The directory of the new name.
    fn dst(&self) -> &Inode {
        self.dst_dir.as_deref().unwrap_or(self.src_dir)
    }

    /// The same, to change.
    fn dst_mut(&mut self) -> &mut Inode {
        self.dst_dir.as_deref_mut().unwrap_or(self.src_dir)
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

/// The original state of the inodes that a rename concerns.
struct Unchanged<const N: usize> {
    src: Before<N>,
    /// `None` if it is the same directory.
    dst: Option<Before<LINE>>,
    moved: Before<FIELDS>,
    replaced: Option<Before<FIELDS>>,
}

impl<const N: usize> Unchanged<N> {
    /// Saves the inodes of `r`, which changes the first `N` bytes of the source directory.
    fn new(r: &Rename<'_>) -> Self {
        Unchanged {
            src: r.src_dir.before(),
            dst: r.dst_dir.as_ref().map(|dir| dir.before()),
            moved: r.moved.before(),
            replaced: r.replaced.as_ref().map(|inode| inode.before()),
        }
    }

    /// Logs how the inodes differ from their original state.
    fn log<P: Pmem>(&self, tx: &mut Tx<'_, P>, r: &mut Rename<'_>) -> Result<()> {
        r.src_dir.log_change(tx, &self.src)?;
        r.moved.log_change(tx, &self.moved)?;
        if let (Some(inode), Some(before)) = (&mut r.dst_dir, &self.dst) {
            inode.log_change(tx, before)?;
        }
        if let (Some(inode), Some(before)) = (&mut r.replaced, &self.replaced) {
            inode.log_change(tx, before)?;
        }
        Ok(())
    }

    /// Restores the inodes.
    fn restore(&self, r: &mut Rename<'_>) {
        r.src_dir.restore(&self.src);
        r.moved.restore(&self.moved);
        if let (Some(inode), Some(before)) = (&mut r.dst_dir, &self.dst) {
            inode.restore(before);
        }
        if let (Some(inode), Some(before)) = (&mut r.replaced, &self.replaced) {
            inode.restore(before);
        }
    }
}

/// A new inode that will have the old name.
struct Left<'v, 'a, P: Pmem> {
    slot: InodeReservation<'v, P>,
    xattrs: &'a [Xattr<'a>],
    /// Everything except its slot.
    inode: &'a mut Inode,
}

/// The lookups of the names that a rename concerns.
struct Places<'a> {
    from: &'a Entry,
    /// The new name, of the target directory.
    dst_name: Name<'a>,
    /// The place for it if the name is free.
    free: Option<&'a Slot<'a>>,
    /// The entry that has the name if it is not.
    over: Option<&'a Entry>,
}

impl Places<'_> {
    /// The new name, if it is in the directory of the old.
    fn keep(&self, r: &Rename<'_>) -> Option<&Name<'_>> {
        r.dst_dir.is_none().then_some(&self.dst_name)
    }
}

/// Updates the timestamps of all inodes that `r` concerns, and the parent of a directory that
/// moves.
fn change(r: &mut Rename<'_>) {
    changed(&mut r.src_dir.raw, r.now);
    r.moved.raw.set_ctime(r.now);
    if let Some(dst) = &mut r.dst_dir {
        changed(&mut dst.raw, r.now);
        if is_dir(r.moved) {
            r.moved.raw.parent = dst.raw.ino;
        }
    }
}

/// Counts `n` directories as moved from the source to the target directory.
fn move_dirs(r: &mut Rename<'_>, n: i32) -> Result<()> {
    if let Some(dst) = &mut r.dst_dir {
        add_links(&mut dst.raw, n)?;
        add_links(&mut r.src_dir.raw, -n)?;
    }
    Ok(())
}

impl<P: Pmem> Volume<P> {
    /// Renames, in one transaction: after a crash, the state is either the old or the new one.
    ///
    /// A replaced inode loses a name as by [`Volume::unlink`] or [`Volume::rmdir`]. The caller has
    /// made sure that no directory is moved into itself or below.
    // Not inlined: the kernel's stack is small.
    #[inline(never)]
    pub fn rename(&self, r: Rename<'_>) -> Result<()> {
        r.check()?;
        if r.exchange {
            return self.exchange(r);
        }
        self.rename_leaving(r, None)
    }

    /// Renames, no exchange, and leaves a new inode at the old name, in the same transaction: a
    /// whiteout, which hides the name below in an overlay. `inode`, a blank one, becomes it, with
    /// the extended attributes `xattrs`; after an error it is unusable.
    #[inline(never)]
    pub fn rename_whiteout(
        &self,
        r: Rename<'_>,
        new: &NewInode,
        xattrs: &[Xattr<'_>],
        inode: &mut Inode,
    ) -> Result<()> {
        r.check()?;
        new.fill(&mut inode.raw)?;
        if r.exchange || is_dir(inode) {
            return Err(Error::Invalid);
        }
        inode.raw.nlink = U32::new(1);
        let slot = self.reserve_inode()?;
        number(&mut inode.raw, &slot);
        let left = Left {
            slot,
            xattrs,
            inode: &mut *inode,
        };
        let result = self.rename_leaving(r, Some(left));
        if result.is_err() {
            inode.at = 0;
        }
        result
    }

    /// Renames, no exchange. The old name refers to `left`, if given, or is removed.
    fn rename_leaving(&self, mut r: Rename<'_>, left: Option<Left<'_, '_, P>>) -> Result<()> {
        let src_name = self.name(r.src_name)?;
        let dst_name = self.name(r.dst_name)?;
        // This may move the old name to another leaf, so it comes first.
        let free = match r.replaced {
            Some(_) => None,
            None => Some(dir::prepare(self, r.dst_mut(), &dst_name)?),
        };
        let media = Media::of(self);
        let from = dir::find(&media, r.src_dir, &src_name);
        let from = entry(&from, r.moved.ino())?;
        let replaced = r.replaced.as_deref().map(Inode::ino);
        let over = replaced.map(|ino| (dir::find(&media, r.dst_mut(), &dst_name), ino));
        let over = match &over {
            Some((found, ino)) => Some(entry(found, *ino)?),
            None => None,
        };
        let places = Places {
            from,
            dst_name,
            free: free.as_ref(),
            over,
        };
        // Freeing a leaf changes the root.
        match left.is_none() && dir::takes_leaf(places.from, places.keep(&r)) {
            false => self.rename_between::<LINE>(r, &places, left),
            true => self.rename_between::<WHOLE>(r, &places, left),
        }
    }

    /// Renames between `places`, and thereby changes the first `N` bytes of the source directory.
    #[inline(never)]
    fn rename_between<const N: usize>(
        &self,
        mut r: Rename<'_>,
        places: &Places<'_>,
        left: Option<Left<'_, '_, P>>,
    ) -> Result<()> {
        let before = Unchanged::<N>::new(&r);
        let goes = left.is_none();
        let result = self.rename_at(&mut r, places, &before, left);
        match result {
            Ok(()) => {
                if let Some(place) = places.free {
                    dir::inserted(r.dst_mut(), place);
                }
                if goes {
                    dir::removed(r.src_dir, places.from);
                }
            }
            Err(_) => before.restore(&mut r),
        }
        result
    }

    fn rename_at<const N: usize>(
        &self,
        r: &mut Rename<'_>,
        places: &Places<'_>,
        before: &Unchanged<N>,
        left: Option<Left<'_, '_, P>>,
    ) -> Result<()> {
        change(r);
        let mut orphan = None;
        if let Some(target) = &mut r.replaced {
            orphan = self.drop_link(target, r.now)?;
            if is_dir(target) {
                let dst = r.dst_mut();
                add_links(&mut dst.raw, -1).map_err(|_| corrupt(dst))?;
            }
        }
        move_dirs(r, is_dir(r.moved).into())?;

        let media = Media::of(self);
        let mut tx = self.begin()?;
        let (ino, kind) = (r.moved.ino(), file_type(&r.moved.raw));
        if let Some(place) = places.free {
            dir::insert(&mut tx, place, ino, kind)?;
        }
        if let Some(entry) = places.over {
            dir::replace(&mut tx, &media, entry, ino, kind)?;
        }
        match left {
            None => dir::remove(&mut tx, &media, r.src_dir, places.from, places.keep(r))?,
            Some(left) => {
                let raw = &mut left.inode.raw;
                xattr::create(&mut tx, raw, left.xattrs)?;
                dir::replace(&mut tx, &media, places.from, raw.ino.get(), file_type(raw))?;
                tx.create_inode_at(left.slot, left.inode)?;
            }
        }
        if let (Some(orphan), Some(target)) = (orphan, &mut r.replaced) {
            tx.attach_orphan(orphan, &mut target.raw, None)?;
        }
        before.log(&mut tx, r)?;
        tx.commit()
    }

    #[inline(never)]
    fn exchange(&self, mut r: Rename<'_>) -> Result<()> {
        let src_name = self.name(r.src_name)?;
        let dst_name = self.name(r.dst_name)?;
        let other = r.replaced.as_deref().ok_or(Error::Invalid)?.ino();
        let media = Media::of(self);
        let from = dir::find(&media, r.src_dir, &src_name);
        let from = entry(&from, r.moved.ino())?;
        let to = dir::find(&media, r.dst_mut(), &dst_name);
        let to = entry(&to, other)?;
        let before = Unchanged::new(&r);
        let result = self.exchange_at(&mut r, [from, to], &before);
        if result.is_err() {
            before.restore(&mut r);
        }
        result
    }

    fn exchange_at(
        &self,
        r: &mut Rename<'_>,
        [from, to]: [&Entry; 2],
        before: &Unchanged<LINE>,
    ) -> Result<()> {
        change(r);
        let src_ino = r.src_dir.raw.ino;
        let mut dirs = i32::from(is_dir(r.moved));
        let (ino, kind) = (r.moved.ino(), file_type(&r.moved.raw));
        let media = Media::of(self);
        let mut tx = self.begin()?;
        dir::replace(&mut tx, &media, to, ino, kind)?;
        if let Some(other) = &mut r.replaced {
            other.raw.set_ctime(r.now);
            if is_dir(other) {
                dirs -= 1;
                other.raw.parent = src_ino;
            }
            dir::replace(&mut tx, &media, from, other.ino(), file_type(&other.raw))?;
        }
        move_dirs(r, dirs)?;
        before.log(&mut tx, r)?;
        tx.commit()
    }
}
