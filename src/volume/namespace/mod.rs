// SPDX-License-Identifier: GPL-2.0

//! The operations on names: what makes, links, moves and removes inodes.
//!
//! Each is one transaction, durable when it returns; those that add a name may have made room for
//! it before in transactions that change nothing visible. The caller (the VFS layer) has decided
//! whether the operation is allowed and resolves `.` and `..`; a call that makes no sense is
//! refused, not carried out.
//!
//! Link counts, `..` and times are kept here because they change with the name, in its transaction.

mod attr;
mod rename;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::alloc::Want;
use super::dir::{self, DirEntryRef, Entry, Name};
use super::error::{Error, Result, Structure};
use super::extent::{self, Mapping, Media};
use super::format::{RawInode, Time, BLOCK, INLINE_MAX, LINK_MAX, ROOT_INO, SYMLINK_MAX};
use super::inode::Inode;
use super::journal::Tx;
use super::orphan::OrphanReservation;
use super::pmem::Pmem;
use super::Volume;

pub use attr::SetAttr;
pub use rename::Rename;

/// The bits of a mode that say the file type.
const S_IFMT: u16 = 0o170000;
const S_IFDIR: u16 = 0o040000;
const S_IFLNK: u16 = 0o120000;
/// Bits of a mode below the file type; above them, the type is what directories store (`DT_*`).
const TYPE_SHIFT: u32 = 12;
/// Every file type there is, as a set of `DT_*`: fifo, character device, directory, block device,
/// regular file, symlink, socket.
const TYPES: u16 = 0b1_0101_0101_0110;

/// What a new inode starts with.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewInode {
    /// File type and permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of a device node, as the kernel's `new_encode_dev`; else 0.
    pub rdev: u32,
    /// File attributes, `FS_*_FL`.
    pub attrs: u32,
    /// All its times, and those of the directory.
    pub now: Time,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The inode number.
    pub ino: u64,
    /// The inode's type, `DT_*`.
    pub file_type: u8,
}

/// What a new inode contains from the start.
enum Content<'a> {
    Nothing,
    Directory { parent: u64 },
    Target(&'a [u8]),
}

/// The type of an inode as directories store it.
fn file_type(raw: &RawInode) -> u8 {
    (raw.mode.get() >> TYPE_SHIFT) as u8
}

/// Whether an inode is a directory.
fn is_dir(inode: &Inode) -> bool {
    inode.mode() & S_IFMT == S_IFDIR
}

/// The error for an inode that cannot be as it is.
fn corrupt(inode: &Inode) -> Error {
    Error::Corrupt {
        what: Structure::Inode,
        at: inode.at(),
    }
}

/// Fails with [`Error::Invalid`] unless `dir` is a directory.
fn check_dir(dir: &Inode) -> Result<()> {
    if is_dir(dir) {
        Ok(())
    } else {
        Err(Error::Invalid)
    }
}

/// Fails with [`Error::NotFound`] if the directory is removed: it gets no more names.
fn check_alive(dir: &Inode) -> Result<()> {
    check_dir(dir)?;
    if dir.nlink() == 0 {
        return Err(Error::NotFound);
    }
    Ok(())
}

/// Sets the times of a directory whose names have changed.
fn changed(raw: &mut RawInode, now: Time) {
    raw.set_mtime(now);
    raw.set_ctime(now);
}

/// Changes the number of links by `delta`.
fn add_links(raw: &mut RawInode, delta: i32) -> Result<()> {
    match raw.nlink.get().checked_add_signed(delta) {
        Some(n) if n <= LINK_MAX => {
            raw.nlink = U32::new(n);
            Ok(())
        }
        _ => Err(Error::TooManyLinks),
    }
}

impl NewInode {
    /// The inode, without a number and a link.
    fn raw(&self) -> Result<RawInode> {
        if (TYPES >> (self.mode >> TYPE_SHIFT)) & 1 == 0 {
            return Err(Error::Invalid);
        }
        let mut raw = RawInode::new_zeroed();
        raw.mode = U16::new(self.mode);
        raw.uid = U32::new(self.uid);
        raw.gid = U32::new(self.gid);
        raw.rdev = U32::new(self.rdev);
        raw.attrs = U32::new(self.attrs);
        raw.set_atime(self.now);
        raw.set_btime(self.now);
        changed(&mut raw, self.now);
        Ok(raw)
    }
}

/// Fills in the content of a new inode, whose number is set: blocks of its own are allocated and
/// pre-written.
fn put_content<P: Pmem>(
    tx: &mut Tx<'_, P>,
    raw: &mut RawInode,
    content: &Content<'_>,
) -> Result<()> {
    match *content {
        Content::Nothing => return Ok(()),
        Content::Directory { parent } => {
            let block = tx.alloc(Want::blocks(1))?.block;
            raw.root[0] = dir::init(tx, raw.ino.get(), block)?;
            raw.size = U64::new(BLOCK);
            raw.parent = U64::new(parent);
            raw.nlink = U32::new(2);
        }
        Content::Target(target) => {
            raw.size = U64::new(target.len() as u64);
            if target.len() <= INLINE_MAX {
                raw.root.as_mut_bytes()[..target.len()].copy_from_slice(target);
                return Ok(());
            }
            let block = tx.alloc(Want::blocks(1))?.block;
            tx.init(block * BLOCK, target)?;
            raw.root[0] = extent::pack(Mapping {
                key: 0,
                block,
                len: 1,
            });
        }
    }
    raw.root_count = U16::new(1);
    raw.blocks = U64::new(1);
    Ok(())
}

impl<P: Pmem> Volume<P> {
    fn name<'a>(&self, bytes: &'a [u8]) -> Result<Name<'a>> {
        Name::new(&self.super_block().hash_key, bytes)
    }

    /// The entry of `name` in `dir`, which must stand for inode `ino`.
    fn entry(&self, dir: &Inode, name: &Name<'_>, ino: u64) -> Result<Entry> {
        match dir::find(&Media::of(self), dir.raw(), dir.at(), name)? {
            Some(entry) if entry.ino == ino => Ok(entry),
            Some(_) => Err(Error::Invalid),
            None => Err(Error::NotFound),
        }
    }

    /// Looks a name up. `None` if the directory does not have it.
    ///
    /// Fails with [`Error::NameTooLong`], with [`Error::Invalid`] if `dir` is no directory or the
    /// name none that a directory can hold, and with [`Error::Corrupt`].
    pub fn lookup(&self, dir: &Inode, name: &[u8]) -> Result<Option<DirEntry>> {
        check_dir(dir)?;
        let name = self.name(name)?;
        let found = dir::find(&Media::of(self), dir.raw(), dir.at(), &name)?;
        Ok(found.map(|entry| DirEntry {
            ino: entry.ino,
            file_type: entry.file_type,
        }))
    }

    /// Shows the names with a cookie above `after` to `emit`, in the order of their cookies, until
    /// it returns false. A name that is there all the time is shown exactly once to a reader who
    /// goes on from the last cookie seen, whatever else comes and goes.
    pub fn readdir(
        &self,
        dir: &Inode,
        after: u64,
        emit: &mut dyn FnMut(&DirEntryRef<'_>) -> bool,
    ) -> Result<()> {
        check_dir(dir)?;
        dir::read(&Media::of(self), dir.raw(), dir.at(), after, emit)
    }

    /// Makes a file, directory, device node, fifo or socket.
    ///
    /// Fails with [`Error::Exists`], [`Error::NoSpace`], [`Error::TooManyLinks`] for one directory
    /// more than `dir` can count, [`Error::NotFound`] if `dir` is removed.
    pub fn create(&self, dir: &mut Inode, name: &[u8], new: &NewInode) -> Result<Inode> {
        let content = match new.mode & S_IFMT {
            S_IFLNK => return Err(Error::Invalid),
            S_IFDIR => Content::Directory { parent: dir.ino() },
            _ => Content::Nothing,
        };
        self.add(dir, name, new, &content)
    }

    /// Makes a symlink to `target`, 1 to [`SYMLINK_MAX`] bytes. The type in `new.mode` is set here.
    pub fn symlink(
        &self,
        dir: &mut Inode,
        name: &[u8],
        target: &[u8],
        new: &NewInode,
    ) -> Result<Inode> {
        if target.is_empty() {
            return Err(Error::Invalid);
        }
        if target.len() > SYMLINK_MAX {
            return Err(Error::NameTooLong);
        }
        let new = NewInode {
            mode: new.mode & !S_IFMT | S_IFLNK,
            ..*new
        };
        self.add(dir, name, &new, &Content::Target(target))
    }

    fn add(
        &self,
        dir: &mut Inode,
        name: &[u8],
        new: &NewInode,
        content: &Content<'_>,
    ) -> Result<Inode> {
        check_alive(dir)?;
        let name = self.name(name)?;
        let mut raw = new.raw()?;
        raw.nlink = U32::new(1);
        let directory = matches!(content, Content::Directory { .. });
        if directory && dir.nlink() >= LINK_MAX {
            return Err(Error::TooManyLinks);
        }
        let place = dir::prepare(self, dir, &name)?;
        let slot = self.reserve_inode()?;
        raw.ino = U64::new(slot.ino());
        let mut parent = dir.raw().clone();
        changed(&mut parent, new.now);
        add_links(&mut parent, directory.into())?;

        let mut tx = self.begin()?;
        put_content(&mut tx, &mut raw, content)?;
        let (ino, kind) = (slot.ino(), file_type(&raw));
        dir::insert(&mut tx, &place, ino, kind)?;
        dir.log(&mut tx, &mut parent)?;
        let inode = tx.create_inode(slot, raw)?;
        tx.commit()?;
        dir.set(parent);
        Ok(inode)
    }

    /// Reads the target of a symlink into `buf`, and returns its length. What does not fit is left
    /// out.
    pub fn read_link(&self, inode: &Inode, buf: &mut [u8]) -> Result<usize> {
        let raw = inode.raw();
        let size = usize::try_from(raw.size.get()).unwrap_or(usize::MAX);
        if raw.mode.get() & S_IFMT != S_IFLNK {
            return Err(Error::Invalid);
        }
        let corrupt = corrupt(inode);
        if size == 0 || size > SYMLINK_MAX {
            return Err(corrupt);
        }
        let len = size.min(buf.len());
        if size <= INLINE_MAX {
            buf[..len].copy_from_slice(&raw.root.as_bytes()[..len]);
            return Ok(len);
        }
        match extent::lookup(&Media::of(self), raw, inode.at(), 0)?.floor {
            Some(m) if m.key == 0 => {
                self.pmem().read(m.block * BLOCK, &mut buf[..len])?;
                Ok(len)
            }
            _ => Err(corrupt),
        }
    }

    /// Makes a file without a name, in the orphan file until it gets one by [`Volume::link`].
    pub fn tmpfile(&self, new: &NewInode) -> Result<Inode> {
        let mut raw = new.raw()?;
        if matches!(raw.mode.get() & S_IFMT, S_IFDIR | S_IFLNK) {
            return Err(Error::Invalid);
        }
        let slot = self.reserve_inode()?;
        let orphan = self.reserve_orphan()?;
        raw.ino = U64::new(slot.ino());
        let mut tx = self.begin()?;
        tx.attach_orphan(orphan, &mut raw)?;
        let inode = tx.create_inode(slot, raw)?;
        tx.commit()?;
        Ok(inode)
    }

    /// Gives `target`, no directory, one more name. A file without one, from [`Volume::tmpfile`],
    /// leaves the orphan file.
    pub fn link(&self, dir: &mut Inode, name: &[u8], target: &mut Inode, now: Time) -> Result<()> {
        check_alive(dir)?;
        let name = self.name(name)?;
        if is_dir(target) {
            return Err(Error::Invalid);
        }
        let mut raw = target.raw().clone();
        add_links(&mut raw, 1)?;
        raw.set_ctime(now);
        let place = dir::prepare(self, dir, &name)?;
        let mut parent = dir.raw().clone();
        changed(&mut parent, now);

        let mut tx = self.begin()?;
        let (ino, kind) = (target.ino(), file_type(&raw));
        dir::insert(&mut tx, &place, ino, kind)?;
        if target.nlink() == 0 {
            tx.detach_orphan(&mut raw)?;
        }
        dir.log(&mut tx, &mut parent)?;
        target.log(&mut tx, &mut raw)?;
        tx.commit()?;
        dir.set(parent);
        target.set(raw);
        Ok(())
    }

    /// Removes `name`, which stands for `target`, no directory. Without a name left, the inode is in
    /// the orphan file until [`Volume::free_inode`].
    pub fn unlink(
        &self,
        dir: &mut Inode,
        name: &[u8],
        target: &mut Inode,
        now: Time,
    ) -> Result<()> {
        if is_dir(target) {
            return Err(Error::Invalid);
        }
        self.remove(dir, name, target, now)
    }

    /// Removes the directory `target`, which `name` stands for. It is in the orphan file until
    /// [`Volume::free_inode`].
    ///
    /// Fails with [`Error::NotEmpty`].
    pub fn rmdir(&self, dir: &mut Inode, name: &[u8], target: &mut Inode, now: Time) -> Result<()> {
        if !is_dir(target) || target.ino() == ROOT_INO || target.parent() != dir.ino() {
            return Err(Error::Invalid);
        }
        self.remove(dir, name, target, now)
    }

    fn remove(&self, dir: &mut Inode, name: &[u8], target: &mut Inode, now: Time) -> Result<()> {
        check_dir(dir)?;
        let name = self.name(name)?;
        let entry = self.entry(dir, &name, target.ino())?;
        let mut raw = target.raw().clone();
        let orphan = self.drop_link(target, &mut raw, now)?;
        let mut parent = dir.raw().clone();
        changed(&mut parent, now);
        if is_dir(target) {
            add_links(&mut parent, -1).map_err(|_| corrupt(dir))?;
        }

        let media = Media::of(self);
        let mut tx = self.begin()?;
        dir::remove(&mut tx, &media, &mut parent, dir.at(), &entry, None)?;
        if let Some(orphan) = orphan {
            tx.attach_orphan(orphan, &mut raw)?;
        }
        dir.log(&mut tx, &mut parent)?;
        target.log(&mut tx, &mut raw)?;
        tx.commit()?;
        dir.set(parent);
        target.set(raw);
        Ok(())
    }

    /// Takes one name from `raw`, the new state of `target`; a directory, which must be empty, has
    /// only one. Returns the orphan slot it needs to have if that was the last one.
    fn drop_link(
        &self,
        target: &Inode,
        raw: &mut RawInode,
        now: Time,
    ) -> Result<Option<OrphanReservation<'_, P>>> {
        if is_dir(target) {
            if !dir::is_empty(&Media::of(self), target.raw(), target.at())? {
                return Err(Error::NotEmpty);
            }
            raw.nlink = U32::ZERO;
        } else {
            // It has a name, so it has a link.
            add_links(raw, -1).map_err(|_| corrupt(target))?;
        }
        raw.set_ctime(now);
        // One whose truncation is not finished has a slot already.
        if raw.nlink.get() == 0 && raw.orphan.get() == 0 {
            Ok(Some(self.reserve_orphan()?))
        } else {
            Ok(None)
        }
    }
}
