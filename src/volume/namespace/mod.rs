// SPDX-License-Identifier: GPL-2.0

//! The operations on names: creating, linking, moving and removing inodes.
//!
//! Each is one transaction, durable when it returns; those that add a name may have made room for
//! it before in transactions that change nothing visible. The caller (the VFS layer) has decided
//! whether the operation is allowed and resolves `.` and `..`; invalid calls are refused.
//!
//! Link counts, `..` and timestamps are updated here because they change with the name, in its
//! transaction.

mod attr;
mod rename;

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::IntoBytes;

use super::alloc::Want;
use super::dir::{self, Entry, Listing, Name, Slot};
use super::error::{Error, Result, Structure};
use super::extent::{self, Mapping, Media};
use super::format::{
    Extent, RawInode, Time, BLOCK, INLINE_MAX, LINK_MAX, ROOT_EXTENTS, ROOT_INO, SYMLINK_MAX,
};
use super::inode::{Before, Inode, FIELDS, LINE, WHOLE};
use super::journal::Tx;
use super::orphan::OrphanReservation;
use super::pmem::Pmem;
use super::table::InodeReservation;
use super::xattr::{self, Xattr};
use super::Volume;

pub use attr::SetAttr;
pub use rename::Rename;

/// The bits of a mode that hold the file type.
const S_IFMT: u16 = 0o170000;
const S_IFDIR: u16 = 0o040000;
const S_IFLNK: u16 = 0o120000;
/// Bits of a mode below the file type; above them, the type is what directories store (`DT_*`).
const TYPE_SHIFT: u32 = 12;
/// All file types, as a set of `DT_*`: fifo, character device, directory, block device, regular
/// file, symlink, socket.
const TYPES: u16 = 0b1_0101_0101_0110;

/// The initial attributes of a new inode.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewInode {
    /// File type and permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of a device node, as the kernel's `new_encode_dev`; otherwise 0.
    pub rdev: u32,
    /// File attributes, `FS_*_FL`.
    pub attrs: u32,
    /// All its timestamps, and those of the directory.
    pub now: Time,
}

/// The inode that a name refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The inode number.
    pub ino: u64,
    /// The inode's type, `DT_*`.
    pub file_type: u8,
    /// Where the name is on the media.
    at: u64,
}

impl DirEntry {
    /// The error for an impossible name: its inode is not in use.
    pub fn corrupt(&self) -> Error {
        Error::Corrupt {
            what: Structure::DirLeaf,
            at: self.at,
        }
    }
}

/// The initial content of a new inode.
enum Content<'a> {
    Nothing,
    Directory { parent: u64 },
    Target(&'a [u8]),
}

/// A new inode: its attributes, its extended attributes, and its content.
type What<'a> = (&'a NewInode, &'a [Xattr<'a>], &'a Content<'a>);

/// Gives `raw` the number and the generation that are reserved for it.
fn number<P: Pmem>(raw: &mut RawInode, slot: &InodeReservation<'_, P>) {
    raw.ino = U64::new(slot.ino());
    raw.generation = U32::new(slot.generation());
}

/// The type of an inode as directories store it.
fn file_type(raw: &RawInode) -> u8 {
    (raw.mode.get() >> TYPE_SHIFT) as u8
}

/// Whether an inode is a directory.
fn is_dir(inode: &Inode) -> bool {
    inode.mode() & S_IFMT == S_IFDIR
}

/// The error for an impossible inode.
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

/// Sets the timestamps of a directory whose names have changed.
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
    /// Initialises `raw` as this inode: without a number, a link and content.
    fn fill(&self, raw: &mut RawInode) -> Result<()> {
        if (TYPES >> (self.mode >> TYPE_SHIFT)) & 1 == 0 {
            return Err(Error::Invalid);
        }
        let (sec, nsec) = (I64::new(self.now.sec), U32::new(self.now.nsec));
        *raw = RawInode {
            crc: U32::ZERO,
            mode: U16::new(self.mode),
            root_count: U16::ZERO,
            size: U64::ZERO,
            blocks: U64::ZERO,
            mtime_sec: sec,
            ctime_sec: sec,
            mtime_nsec: nsec,
            ctime_nsec: nsec,
            nlink: U32::ZERO,
            attrs: U32::new(self.attrs),
            generation: U32::ZERO,
            depth: 0,
            reserved0: [0; 3],
            ino: U64::ZERO,
            parent: U64::ZERO,
            atime_sec: sec,
            btime_sec: sec,
            atime_nsec: nsec,
            btime_nsec: nsec,
            uid: U32::new(self.uid),
            gid: U32::new(self.gid),
            rdev: U32::new(self.rdev),
            orphan: U32::ZERO,
            xattr_block: U64::ZERO,
            root: [Extent::default(); ROOT_EXTENTS],
        };
        Ok(())
    }
}

/// Fills in the content of a new inode, whose number is set: allocates its blocks and pre-writes
/// them.
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
            raw.root[0] = extent::pack(Mapping::new(0, block, 1));
        }
    }
    raw.root_count = U16::new(1);
    extent::add_blocks(raw, 1);
    Ok(())
}

/// The result of the lookup of a name, which must refer to inode `ino`. (By reference: entries are
/// large.)
fn entry(found: &Result<Option<Entry>>, ino: u64) -> Result<&Entry> {
    match found {
        Ok(Some(entry)) if entry.ino == ino => Ok(entry),
        Ok(Some(_)) => Err(Error::Invalid),
        Ok(None) => Err(Error::NotFound),
        Err(error) => Err(*error),
    }
}

impl<P: Pmem> Volume<P> {
    fn name<'a>(&self, bytes: &'a [u8]) -> Result<Name<'a>> {
        Name::new(&self.super_block().hash_key, bytes)
    }

    /// Looks a name up. `None` if the directory does not have it.
    ///
    /// Fails with [`Error::NameTooLong`], with [`Error::Invalid`] if `dir` is no directory or the
    /// name is not valid in a directory, and with [`Error::Corrupt`].
    pub fn lookup(&self, dir: &mut Inode, name: &[u8]) -> Result<Option<DirEntry>> {
        check_dir(dir)?;
        let name = self.name(name)?;
        let found = dir::find(&Media::of(self), dir, &name)?;
        Ok(found.map(|entry| DirEntry {
            ino: entry.ino,
            file_type: entry.file_type,
            at: entry.at(),
        }))
    }

    /// Looks up the next names of `dir`, those with a cookie of `from` or above, in the order of
    /// their cookies. `None` if there are none beyond. [`Listing::show`] shows them, and needs no
    /// access to `dir`; the caller keeps its names unchanged until then. A reader that continues
    /// after the last cookie seen gets each name that exists all the time exactly once, whatever
    /// other names are added and removed.
    pub fn readdir(&self, dir: &mut Inode, from: u64) -> Result<Option<Listing>> {
        check_dir(dir)?;
        dir::list(&Media::of(self), dir, from)
    }

    /// Creates a file, directory, device node, fifo or socket with the extended attributes
    /// `xattrs`, of different names. `inode`, a blank one, becomes it; after an error it is
    /// unusable.
    ///
    /// Fails with [`Error::Exists`], [`Error::NoSpace`], [`Error::TooManyLinks`] if `dir` cannot
    /// count one more directory, [`Error::NotFound`] if `dir` is removed.
    pub fn create_into(
        &self,
        dir: &mut Inode,
        name: &[u8],
        new: &NewInode,
        xattrs: &[Xattr<'_>],
        inode: &mut Inode,
    ) -> Result<()> {
        let content = match new.mode & S_IFMT {
            S_IFLNK => return Err(Error::Invalid),
            S_IFDIR => Content::Directory { parent: dir.ino() },
            _ => Content::Nothing,
        };
        self.add(dir, name, (new, xattrs, &content), inode)
    }

    /// Creates a symlink to `target`, 1 to [`SYMLINK_MAX`] bytes. The type in `new.mode` is set
    /// here. `inode`, a blank one, becomes it.
    pub fn symlink_into(
        &self,
        dir: &mut Inode,
        name: &[u8],
        target: &[u8],
        new: &NewInode,
        xattrs: &[Xattr<'_>],
        inode: &mut Inode,
    ) -> Result<()> {
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
        self.add(dir, name, (&new, xattrs, &Content::Target(target)), inode)
    }

    fn add(&self, dir: &mut Inode, name: &[u8], what: What<'_>, inode: &mut Inode) -> Result<()> {
        let (new, _, content) = what;
        check_alive(dir)?;
        let name = self.name(name)?;
        new.fill(&mut inode.raw)?;
        inode.raw.nlink = U32::new(1);
        let directory = matches!(content, Content::Directory { .. });
        if directory && dir.nlink() >= LINK_MAX {
            return Err(Error::TooManyLinks);
        }
        let place = dir::prepare(self, dir, &name);
        let place = place.as_ref().map_err(|error| *error)?;
        let slot = self.reserve_inode()?;
        let before = dir.before();
        let result = self.add_at(dir, &before, place, slot, what, inode);
        match result {
            Ok(()) => dir::inserted(dir, place),
            Err(_) => {
                dir.restore(&before);
                inode.at = 0;
            }
        }
        result
    }

    /// Adds the name of `place`, and `inode`, which does not have its content and its number yet.
    fn add_at(
        &self,
        dir: &mut Inode,
        before: &Before<LINE>,
        place: &Slot<'_>,
        slot: InodeReservation<'_, P>,
        (new, xattrs, content): What<'_>,
        inode: &mut Inode,
    ) -> Result<()> {
        let ino = slot.ino();
        number(&mut inode.raw, &slot);
        changed(&mut dir.raw, new.now);
        add_links(
            &mut dir.raw,
            matches!(content, Content::Directory { .. }).into(),
        )?;
        let mut tx = self.begin()?;
        put_content(&mut tx, &mut inode.raw, content)?;
        xattr::create(&mut tx, &mut inode.raw, xattrs)?;
        dir::insert(&mut tx, place, ino, file_type(&inode.raw))?;
        dir.log_change(&mut tx, before)?;
        tx.create_inode_at(slot, inode)?;
        tx.commit()
    }

    /// Reads the target of a symlink into `buf`, and returns its length. Cuts it if it does not
    /// fit.
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
        match extent::lookup(&Media::of(self), None, raw, inode.at(), 0)?.floor {
            Some(m) if m.key == 0 && !m.unwritten => {
                self.pmem().read(m.block * BLOCK, &mut buf[..len])?;
                Ok(len)
            }
            _ => Err(corrupt),
        }
    }

    /// Creates a file without a name, in the orphan file until it gets one by [`Volume::link`].
    /// `inode`, a blank one, becomes it.
    pub fn tmpfile_into(
        &self,
        new: &NewInode,
        xattrs: &[Xattr<'_>],
        inode: &mut Inode,
    ) -> Result<()> {
        new.fill(&mut inode.raw)?;
        if matches!(new.mode & S_IFMT, S_IFDIR | S_IFLNK) {
            return Err(Error::Invalid);
        }
        let slot = self.reserve_inode()?;
        let orphan = self.reserve_orphan()?;
        number(&mut inode.raw, &slot);
        let result = self.begin().and_then(|mut tx| {
            xattr::create(&mut tx, &mut inode.raw, xattrs)?;
            tx.attach_orphan(orphan, &mut inode.raw, None)?;
            tx.create_inode_at(slot, inode)?;
            tx.commit()
        });
        if result.is_err() {
            inode.at = 0;
        }
        result
    }

    /// Gives `target`, no directory, one more name. If it had none, from [`Volume::tmpfile_into`],
    /// this removes it from the orphan file.
    pub fn link(&self, dir: &mut Inode, name: &[u8], target: &mut Inode, now: Time) -> Result<()> {
        check_alive(dir)?;
        let name = self.name(name)?;
        if is_dir(target) {
            return Err(Error::Invalid);
        }
        self.finish_rest(target)?;
        let place = dir::prepare(self, dir, &name)?;
        let (dir_before, before) = (dir.before::<LINE>(), target.before());
        let result = self.link_at(dir, &place, target, (&dir_before, &before), now);
        match result {
            Ok(()) => dir::inserted(dir, &place),
            Err(_) => {
                dir.restore(&dir_before);
                target.restore(&before);
            }
        }
        result
    }

    fn link_at(
        &self,
        dir: &mut Inode,
        place: &Slot<'_>,
        target: &mut Inode,
        (dir_before, before): (&Before<LINE>, &Before<FIELDS>),
        now: Time,
    ) -> Result<()> {
        changed(&mut dir.raw, now);
        target.raw.set_ctime(now);
        let unnamed = target.nlink() == 0;
        add_links(&mut target.raw, 1)?;
        let mut tx = self.begin()?;
        dir::insert(&mut tx, place, target.ino(), file_type(&target.raw))?;
        if unnamed {
            tx.detach_orphan(&mut target.raw)?;
        }
        dir.log_change(&mut tx, dir_before)?;
        target.log_change(&mut tx, before)?;
        tx.commit()
    }

    /// Removes `name`, which refers to `target`, no directory. Without a name left, the inode is in
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

    /// Removes the directory `target`, to which `name` refers. It is in the orphan file until
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
        let found = dir::find(&Media::of(self), dir, &name);
        let entry = entry(&found, target.ino())?;
        // Freeing a leaf changes the root.
        match dir::takes_leaf(entry, None) {
            false => self.remove_entry::<LINE>(dir, entry, target, now),
            true => self.remove_entry::<WHOLE>(dir, entry, target, now),
        }
    }

    /// Removes `entry`, which refers to `target`, and thereby changes the first `N` bytes of `dir`.
    fn remove_entry<const N: usize>(
        &self,
        dir: &mut Inode,
        entry: &Entry,
        target: &mut Inode,
        now: Time,
    ) -> Result<()> {
        let (dir_before, before) = (dir.before::<N>(), target.before());
        let result = self.remove_at(dir, entry, target, (&dir_before, &before), now);
        match result {
            Ok(()) => dir::removed(dir, entry),
            Err(_) => {
                dir.restore(&dir_before);
                target.restore(&before);
            }
        }
        result
    }

    fn remove_at<const N: usize>(
        &self,
        dir: &mut Inode,
        entry: &Entry,
        target: &mut Inode,
        (dir_before, before): (&Before<N>, &Before<FIELDS>),
        now: Time,
    ) -> Result<()> {
        let orphan = self.drop_link(target, now)?;
        changed(&mut dir.raw, now);
        if is_dir(target) {
            add_links(&mut dir.raw, -1).map_err(|_| corrupt(dir))?;
        }
        let mut tx = self.begin()?;
        dir::remove(&mut tx, &Media::of(self), dir, entry, None)?;
        if let Some(orphan) = orphan {
            tx.attach_orphan(orphan, &mut target.raw, None)?;
        }
        dir.log_change(&mut tx, dir_before)?;
        target.log_change(&mut tx, before)?;
        tx.commit()
    }

    /// Removes one name from `target`, which the caller restores after an error; a directory, which
    /// must be empty, has only one. Returns the orphan slot that it needs if that was the last
    /// name.
    fn drop_link(&self, target: &mut Inode, now: Time) -> Result<Option<OrphanReservation<'_, P>>> {
        if is_dir(target) {
            if !dir::is_empty(&Media::of(self), target)? {
                return Err(Error::NotEmpty);
            }
            target.raw.nlink = U32::ZERO;
        } else {
            // It has a name, so it has a link.
            add_links(&mut target.raw, -1).map_err(|_| corrupt(target))?;
        }
        target.raw.set_ctime(now);
        // An inode with an unfinished truncation has a slot already.
        if target.nlink() == 0 && target.raw.orphan.get() == 0 {
            Ok(Some(self.reserve_orphan()?))
        } else {
            Ok(None)
        }
    }
}

/// The same with inodes as results: for the host.
#[cfg(not(MODULE))]
impl<P: Pmem> Volume<P> {
    /// As [`Volume::create_into`].
    pub fn create(&self, dir: &mut Inode, name: &[u8], new: &NewInode) -> Result<Inode> {
        let mut inode = Inode::blank();
        self.create_into(dir, name, new, &[], &mut inode)?;
        Ok(inode)
    }

    /// As [`Volume::symlink_into`].
    pub fn symlink(
        &self,
        dir: &mut Inode,
        name: &[u8],
        target: &[u8],
        new: &NewInode,
    ) -> Result<Inode> {
        let mut inode = Inode::blank();
        self.symlink_into(dir, name, target, new, &[], &mut inode)?;
        Ok(inode)
    }

    /// As [`Volume::tmpfile_into`].
    pub fn tmpfile(&self, new: &NewInode) -> Result<Inode> {
        let mut inode = Inode::blank();
        self.tmpfile_into(new, &[], &mut inode)?;
        Ok(inode)
    }
}
