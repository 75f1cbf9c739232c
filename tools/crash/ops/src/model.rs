// SPDX-License-Identifier: GPL-2.0

//! A model of the file system: the tree after each operation, with what of mapped stores may be
//! missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::data::fill;
use crate::op::{Op, Path, Rename};

/// Bytes of a cache line.
pub const LINE: u64 = 64;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// The content of a line.
pub type Line = [u8; LINE as usize];

/// A regular file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// What a reader sees.
    pub data: Vec<u8>,
    /// Lines, by number, that may also be found otherwise: all that they may hold, the last one
    /// being what a reader sees. Past the end of the file they hold zeros.
    pub open: BTreeMap<u64, Vec<Line>>,
    /// It may have blocks beyond its end.
    pub beyond: bool,
}

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    File(File),
    Dir,
    Symlink(String),
    Fifo,
    Device,
}

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub body: Body,
    /// Permissions.
    pub mode: u16,
    /// Seconds of the last change, if they were set.
    pub mtime: Option<i64>,
    /// Extended attributes.
    pub xattrs: BTreeMap<&'static str, Vec<u8>>,
}

/// Why an operation cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing has this name. (The parent is reported first.)
    Missing(Path),
    /// The file is shorter than that.
    TooShort(Path),
    /// It has no such attribute.
    NoXattr(Path, &'static str),
    /// The name is taken.
    Exists,
    /// A directory is not empty.
    NotEmpty,
    /// It is of another type than it takes, would make a loop, or does nothing.
    Senseless,
}

/// A number that stands for an inode.
pub type Id = u32;

/// All names, and what they stand for. The root is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    pub names: BTreeMap<String, Id>,
    pub nodes: BTreeMap<Id, Arc<Node>>,
    next: Id,
}

/// The directory that `path` is in; empty for the root.
fn parent(path: Path) -> Path {
    path.rfind('/').map_or("", |slash| &path[..slash])
}

/// Whether `path` lies below `dir`.
fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.starts_with('/'))
}

impl File {
    /// What line `n` holds for a reader.
    fn line(&self, n: u64) -> Line {
        let mut line = [0; LINE as usize];
        let start = ((n * LINE) as usize).min(self.data.len());
        let end = (start + line.len()).min(self.data.len());
        line[..end - start].copy_from_slice(&self.data[start..end]);
        line
    }

    /// Overwrites the bytes from `at` on, durably, also in what open lines may hold.
    fn overwrite(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        if self.data.len() < end as usize {
            self.data.resize(end as usize, 0);
        }
        self.data[at as usize..end as usize].copy_from_slice(bytes);
        for (n, choices) in self.open.range_mut(at / LINE..end.div_ceil(LINE)) {
            let (from, to) = (at.max(n * LINE), end.min((n + 1) * LINE));
            for choice in choices {
                choice[(from - n * LINE) as usize..(to - n * LINE) as usize]
                    .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
            }
        }
    }

    /// Sets the size.
    fn resize(&mut self, size: u64) {
        let old = self.data.len() as u64;
        if size < old {
            // What a shorter file leaves of its last line is zero if it grows again.
            let end = size.next_multiple_of(LINE).min(old);
            self.overwrite(size, &vec![0; (end - size) as usize]);
            self.open.split_off(&size.div_ceil(LINE));
            self.beyond = false;
        }
        self.data.resize(size as usize, 0);
    }

    /// Stores `bytes` from `at` on through a mapping, word by word. What is past the end is lost.
    fn store(&mut self, at: u64, bytes: &[u8]) {
        for (i, word) in bytes.chunks(8).enumerate() {
            let to = at + i as u64 * 8;
            let kept = (self.data.len() as u64).saturating_sub(to).min(8) as usize;
            let (n, word) = (to / LINE, &word[..kept]);
            if kept == 0 {
                break;
            }
            let line = self.line(n);
            let choices = self.open.entry(n).or_insert_with(|| vec![line]);
            let mut now = choices[choices.len() - 1];
            now[(to - n * LINE) as usize..][..kept].copy_from_slice(word);
            choices.push(now);
            self.data[to as usize..][..kept].copy_from_slice(word);
        }
    }

    /// The bytes `from..to` are durable.
    fn sync(&mut self, from: u64, to: u64) {
        let (first, end) = (from / LINE, to.div_ceil(LINE));
        self.open.retain(|n, _| !(first..end).contains(n));
    }
}

impl Tree {
    /// What `path` stands for.
    pub fn get(&self, path: Path) -> Result<&Arc<Node>, Refused> {
        self.id(path).map(|id| &self.nodes[&id])
    }

    /// The number of what `path` stands for.
    pub fn id(&self, path: Path) -> Result<Id, Refused> {
        self.check_parent(path)?;
        self.names.get(path).copied().ok_or(Refused::Missing(path))
    }

    /// The file at `path`.
    pub fn file(&self, path: Path) -> Result<&File, Refused> {
        match &self.get(path)?.body {
            Body::File(file) => Ok(file),
            _ => Err(Refused::Senseless),
        }
    }

    /// The content of file `id`. `None` if it is not there, or no file.
    pub fn content(&self, id: Id) -> Option<&[u8]> {
        match &self.nodes.get(&id)?.body {
            Body::File(file) => Some(&file.data),
            _ => None,
        }
    }

    fn node_mut(&mut self, path: Path) -> Result<&mut Node, Refused> {
        let id = self.id(path)?;
        let node = self.nodes.get_mut(&id).ok_or(Refused::Missing(path))?;
        Ok(Arc::make_mut(node))
    }

    /// What `path` stands for, to change its attributes: no symlink, which would be followed.
    fn own_mut(&mut self, path: Path) -> Result<&mut Node, Refused> {
        match self.get(path)?.body {
            Body::Symlink(_) => Err(Refused::Senseless),
            _ => self.node_mut(path),
        }
    }

    /// What `path` stands for, to change its extended attributes: only files and directories have
    /// any.
    fn xattrs_mut(&mut self, path: Path) -> Result<&mut BTreeMap<&'static str, Vec<u8>>, Refused> {
        match self.get(path)?.body {
            Body::File(_) | Body::Dir => Ok(&mut self.node_mut(path)?.xattrs),
            _ => Err(Refused::Senseless),
        }
    }

    /// The file at `path`, to change it.
    fn file_mut(&mut self, path: Path) -> Result<&mut File, Refused> {
        match &mut self.node_mut(path)?.body {
            Body::File(file) => Ok(file),
            _ => Err(Refused::Senseless),
        }
    }

    /// The file at `path`, whose content changes, and with it its time.
    fn content_mut(&mut self, path: Path) -> Result<&mut File, Refused> {
        self.file(path)?;
        self.node_mut(path)?.mtime = None;
        self.file_mut(path)
    }

    fn is_dir(&self, path: Path) -> Result<bool, Refused> {
        Ok(self.get(path)?.body == Body::Dir)
    }

    fn check_parent(&self, path: Path) -> Result<(), Refused> {
        let parent = parent(path);
        match parent.is_empty() || self.is_dir(parent)? {
            true => Ok(()),
            false => Err(Refused::Senseless),
        }
    }

    fn check_free(&self, path: Path) -> Result<(), Refused> {
        match self.id(path) {
            Ok(_) => Err(Refused::Exists),
            Err(Refused::Missing(missing)) if missing == path => Ok(()),
            Err(refused) => Err(refused),
        }
    }

    fn check_empty(&self, dir: Path) -> Result<(), Refused> {
        match self.names.keys().any(|name| is_below(name, dir)) {
            true => Err(Refused::NotEmpty),
            false => Ok(()),
        }
    }

    /// Fails unless the file at `path` has `end` bytes.
    fn check_len(&self, path: Path, end: u64) -> Result<(), Refused> {
        match self.file(path)?.data.len() as u64 >= end {
            true => Ok(()),
            false => Err(Refused::TooShort(path)),
        }
    }

    /// The names in the directory of `path` change, and so does its time.
    fn touch_parent(&mut self, path: Path) -> Result<(), Refused> {
        let parent = parent(path);
        if !parent.is_empty() {
            self.node_mut(parent)?.mtime = None;
        }
        Ok(())
    }

    fn make(&mut self, path: Path, mode: u16, body: Body) -> Result<(), Refused> {
        self.check_free(path)?;
        self.touch_parent(path)?;
        self.names.insert(path.to_owned(), self.next);
        let node = Node {
            body,
            mode,
            mtime: None,
            xattrs: BTreeMap::new(),
        };
        self.nodes.insert(self.next, Arc::new(node));
        self.next += 1;
        Ok(())
    }

    /// Takes the name `path` away, and what it stands for if it was the last one.
    fn remove(&mut self, path: Path) -> Result<(), Refused> {
        let id = self.id(path)?;
        self.touch_parent(path)?;
        self.names.remove(path);
        if !self.names.values().any(|other| *other == id) {
            self.nodes.remove(&id);
        }
        Ok(())
    }

    /// Gives what is at `from`, and below, the name `to`.
    fn move_name(names: &mut BTreeMap<String, Id>, from: &str, to: &str) {
        let moved: Vec<String> = names
            .keys()
            .filter(|name| *name == from || is_below(name, from))
            .cloned()
            .collect();
        for name in moved {
            if let Some(id) = names.remove(&name) {
                names.insert(format!("{to}{}", &name[from.len()..]), id);
            }
        }
    }

    fn rename(&mut self, from: Path, to: Path, how: Rename) -> Result<(), Refused> {
        let moved = self.id(from)?;
        if is_below(to, from) || is_below(from, to) {
            return Err(Refused::Senseless);
        }
        match how {
            Rename::Plain | Rename::NoReplace => self.check_free(to)?,
            Rename::Over | Rename::Exchange => {
                if self.id(to)? == moved {
                    return Err(Refused::Senseless);
                }
            }
        }
        if how == Rename::Over {
            if self.is_dir(from)? != self.is_dir(to)? {
                return Err(Refused::Senseless);
            }
            self.check_empty(to)?;
            self.remove(to)?;
        }
        self.touch_parent(from)?;
        self.touch_parent(to)?;
        if how == Rename::Exchange {
            Self::move_name(&mut self.names, to, "\0");
            Self::move_name(&mut self.names, from, to);
            Self::move_name(&mut self.names, "\0", from);
        } else {
            Self::move_name(&mut self.names, from, to);
        }
        Ok(())
    }

    /// Everything that was stored through mappings is durable.
    fn sync_all(&mut self) {
        for node in self.nodes.values_mut() {
            if matches!(&node.body, Body::File(file) if !file.open.is_empty()) {
                if let Body::File(file) = &mut Arc::make_mut(node).body {
                    file.open.clear();
                }
            }
        }
    }

    /// Does operation `number` of a workload, which is `op`. If it is refused, the tree may be of
    /// no more use.
    pub fn apply(&mut self, number: usize, op: &Op) -> Result<(), Refused> {
        if !op.is_sound() {
            return Err(Refused::Senseless);
        }
        let data = |at: u64, len: u64| {
            let mut bytes = vec![0; len as usize];
            fill(number, at, &mut bytes);
            bytes
        };
        match *op {
            Op::Creat { path } => self.make(path, 0o644, Body::File(File::default())),
            Op::Mkdir { path } => self.make(path, 0o755, Body::Dir),
            Op::Mkfifo { path } => self.make(path, 0o600, Body::Fifo),
            Op::Mknod { path } => self.make(path, 0o600, Body::Device),
            Op::Symlink { path, len } => self.make(path, 0o777, Body::Symlink(Op::target(len))),
            Op::Link { from, to } => {
                if self.is_dir(from)? {
                    return Err(Refused::Senseless);
                }
                self.check_free(to)?;
                self.touch_parent(to)?;
                self.names.insert(to.to_owned(), self.id(from)?);
                Ok(())
            }
            Op::Unlink { path } => match self.is_dir(path)? {
                true => Err(Refused::Senseless),
                false => self.remove(path),
            },
            Op::Rmdir { path } => match self.is_dir(path)? {
                true => self.check_empty(path).and_then(|()| self.remove(path)),
                false => Err(Refused::Senseless),
            },
            Op::Rename { from, to, how } => self.rename(from, to, how),
            Op::Write { path, at, len } => {
                self.content_mut(path)?.overwrite(at, &data(at, len));
                Ok(())
            }
            Op::Truncate { path, size } => {
                self.content_mut(path)?.resize(size);
                Ok(())
            }
            Op::Fallocate {
                path,
                at,
                len,
                keep_size,
            } => {
                let file = self.content_mut(path)?;
                if at + len > file.data.len() as u64 {
                    match keep_size {
                        true => file.beyond = true,
                        false => file.resize(at + len),
                    }
                }
                Ok(())
            }
            Op::Punch { path, at, len } => {
                let file = self.content_mut(path)?;
                let end = (at + len).min(file.data.len() as u64);
                if at < end {
                    file.overwrite(at, &vec![0; (end - at) as usize]);
                }
                Ok(())
            }
            Op::Zero { path, at, len } | Op::WriteZeroes { path, at, len } => {
                self.check_len(path, at + len)?;
                self.content_mut(path)?
                    .overwrite(at, &vec![0; len as usize]);
                Ok(())
            }
            Op::Chmod { path, mode } => {
                self.own_mut(path)?.mode = mode;
                Ok(())
            }
            Op::Utimes { path, mtime } => {
                self.own_mut(path)?.mtime = Some(mtime);
                Ok(())
            }
            Op::Setxattr { path, name, len } => {
                let value = data(0, len as u64);
                self.xattrs_mut(path)?.insert(name, value);
                Ok(())
            }
            Op::Removexattr { path, name } => match self.xattrs_mut(path)?.remove(name) {
                Some(_) => Ok(()),
                None => Err(Refused::NoXattr(path, name)),
            },
            Op::Fsync { path }
            | Op::Fdatasync { path }
            | Op::FsyncOther { path }
            | Op::FdatasyncTwice { path } => {
                self.file_mut(path)?.sync(0, u64::MAX);
                Ok(())
            }
            Op::Store { path, at, len } | Op::StoreInSync { path, at, len } => {
                let page = (at + len - 1) / PAGE * PAGE;
                self.check_len(path, (at + len).min(page + 1))?;
                self.content_mut(path)?.store(at, &data(at, len));
                Ok(())
            }
            Op::Scatter { path, at, len } => {
                self.check_len(path, at + len)?;
                let file = self.content_mut(path)?;
                for at in op.scattered() {
                    file.store(at, &data(at, 8));
                }
                Ok(())
            }
            Op::Load { path, at, len } => self.check_len(path, at + len),
            Op::MapSync { path } => self.check_len(path, 1),
            Op::Unmap { path } => self.file(path).map(|_| ()),
            Op::Evict => Ok(()),
            Op::Flush { path, at, len } => {
                self.check_len(path, at + len)?;
                self.file_mut(path)?.sync(at, at + len);
                Ok(())
            }
            Op::Msync { path, at, len } => {
                self.check_len(path, at + len)?;
                let (first, end) = (at / PAGE, (at + len).div_ceil(PAGE));
                self.file_mut(path)?.sync(first * PAGE, end * PAGE);
                Ok(())
            }
            Op::Sync | Op::Age | Op::Freeze => {
                self.sync_all();
                Ok(())
            }
        }
    }
}
