// SPDX-License-Identifier: GPL-2.0

//! Names, links and renames against a model of a file system, with mounts in between: after each
//! sequence everything that can be seen is compared, and the checker has nothing to say.

mod common;

use std::collections::BTreeMap;

use common::tree::{see, walk, Body, Seen, Tree};
use common::*;
use proptest::prelude::*;
use rdax_volume::ram::Ram;
use rdax_volume::volume::error::{Error, Result};
use rdax_volume::volume::format::ROOT_INO;
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::{Rename, SetAttr};

type Name = Vec<u8>;

#[derive(Clone, Debug)]
enum Op {
    Make(usize, Name, Make),
    Tmpfile,
    Link(usize, usize, Name),
    Remove(usize),
    Rename(usize, usize, Name),
    Exchange(usize, usize),
    Write(usize, Vec<u8>),
    Chmod(usize, u16),
    Free(usize),
    Remount,
}

#[derive(Clone, Debug)]
enum Make {
    Node(u16),
    Symlink(usize),
}

/// A volume, and what it should hold: a tree in which inodes without a name are kept too.
struct Mirror {
    vol: Vol,
    ram: Shared<Ram>,
    tree: Tree,
    clock: i64,
}

/// The names of a directory.
fn names(tree: &mut Tree, dir: u64) -> &mut BTreeMap<Name, (u64, u8)> {
    match &mut tree.get_mut(&dir).unwrap().body {
        Body::Dir(names) => names,
        other => panic!("{other:?}"),
    }
}

impl Mirror {
    fn new() -> Mirror {
        let (vol, ram) = fresh(8 << 20);
        let tree = walk(&vol).unwrap();
        Mirror {
            vol,
            ram,
            tree,
            clock: 0,
        }
    }

    fn get(&self, ino: u64) -> Inode {
        self.vol.iget(ino).unwrap()
    }

    fn is_dir(&self, ino: u64) -> bool {
        matches!(self.tree[&ino].body, Body::Dir(_))
    }

    fn pick(&self, i: usize, of: impl Fn(&Seen) -> bool) -> Option<u64> {
        let all: Vec<u64> = self
            .tree
            .iter()
            .filter(|(_, seen)| of(seen))
            .map(|(ino, _)| *ino)
            .collect();
        (!all.is_empty()).then(|| all[i % all.len()])
    }

    fn pick_dir(&self, i: usize) -> u64 {
        self.pick(i, |s| s.nlink > 0 && matches!(s.body, Body::Dir(_)))
            .unwrap()
    }

    /// Directory, name and inode of an entry.
    fn pick_entry(&self, i: usize) -> Option<(u64, Name, u64)> {
        let mut all = Vec::new();
        for (dir, seen) in &self.tree {
            if let Body::Dir(names) = &seen.body {
                all.extend(names.iter().map(|(name, e)| (*dir, name.clone(), e.0)));
            }
        }
        (!all.is_empty()).then(|| all.swap_remove(i % all.len()))
    }

    fn touch(&mut self, ino: u64, content: bool) {
        let now = time(self.clock);
        let seen = self.tree.get_mut(&ino).unwrap();
        seen.ctime = now;
        if content {
            seen.mtime = now;
        }
    }

    fn add_links(&mut self, ino: u64, n: i32) {
        let seen = self.tree.get_mut(&ino).unwrap();
        seen.nlink = seen.nlink.checked_add_signed(n).unwrap();
    }

    fn kind(&self, ino: u64) -> u8 {
        (self.tree[&ino].mode >> 12) as u8
    }

    /// Whether `ino` is `dir` or above it.
    fn is_above(&self, ino: u64, mut dir: u64) -> bool {
        while dir != ino && dir != ROOT_INO {
            dir = self.tree[&dir].parent;
        }
        dir == ino
    }

    fn run(&mut self, op: &Op) {
        self.clock += 1;
        let now = time(self.clock);
        match op {
            Op::Make(dir, name, make) => {
                let at = self.pick_dir(*dir);
                let mut dir = self.get(at);
                let made = match make {
                    Make::Node(mode) => self.vol.create(&mut dir, name, &new(*mode, self.clock)),
                    Make::Symlink(len) => {
                        let target = vec![b't'; *len];
                        let new = new(0o777, self.clock);
                        self.vol.symlink(&mut dir, name, &target, &new)
                    }
                };
                if names(&mut self.tree, at).contains_key(name) {
                    assert_eq!(made.unwrap_err(), Error::Exists);
                    return;
                }
                let mut inode = made.unwrap();
                let (mode, body) = match make {
                    Make::Node(FILE) => (FILE, Body::File(Vec::new())),
                    Make::Node(DIR) => (DIR, Body::Dir(BTreeMap::new())),
                    Make::Node(mode) => (*mode, Body::Nothing),
                    Make::Symlink(len) => (0o120_777, Body::Link(vec![b't'; *len])),
                };
                let is_dir = mode == DIR;
                let seen = Seen {
                    mode,
                    nlink: 1 + u32::from(is_dir),
                    parent: if is_dir { at } else { 0 },
                    mtime: now,
                    ctime: now,
                    xattrs: BTreeMap::new(),
                    body,
                };
                assert_eq!(see(&self.vol, &mut inode).unwrap(), seen);
                assert!(self.tree.insert(inode.ino(), seen).is_none());
                let entry = (inode.ino(), (mode >> 12) as u8);
                names(&mut self.tree, at).insert(name.clone(), entry);
                self.add_links(at, is_dir.into());
                self.touch(at, true);
            }
            Op::Tmpfile => {
                let mut inode = self.vol.tmpfile(&new(FILE, self.clock)).unwrap();
                let seen = see(&self.vol, &mut inode).unwrap();
                assert_eq!((seen.nlink, seen.ctime), (0, now));
                self.tree.insert(inode.ino(), seen);
            }
            Op::Link(target, dir, name) => {
                let linkable = |s: &Seen| !matches!(s.body, Body::Dir(_));
                let Some(ino) = self.pick(*target, linkable) else {
                    return;
                };
                let at = self.pick_dir(*dir);
                let (mut dir, mut inode) = (self.get(at), self.get(ino));
                let done = self.vol.link(&mut dir, name, &mut inode, now);
                if names(&mut self.tree, at).contains_key(name) {
                    assert_eq!(done, Err(Error::Exists));
                    return;
                }
                done.unwrap();
                let entry = (ino, self.kind(ino));
                names(&mut self.tree, at).insert(name.clone(), entry);
                self.add_links(ino, 1);
                self.touch(ino, false);
                self.touch(at, true);
            }
            Op::Remove(i) => {
                let Some((at, name, ino)) = self.pick_entry(*i) else {
                    return;
                };
                let (mut dir, mut inode) = (self.get(at), self.get(ino));
                if !self.is_dir(ino) {
                    let refused = self.vol.rmdir(&mut dir, &name, &mut inode, now);
                    assert_eq!(refused, Err(Error::Invalid));
                    self.vol.unlink(&mut dir, &name, &mut inode, now).unwrap();
                    self.add_links(ino, -1);
                } else {
                    let refused = self.vol.unlink(&mut dir, &name, &mut inode, now);
                    assert_eq!(refused, Err(Error::Invalid));
                    let done = self.vol.rmdir(&mut dir, &name, &mut inode, now);
                    if !names(&mut self.tree, ino).is_empty() {
                        assert_eq!(done, Err(Error::NotEmpty));
                        return;
                    }
                    done.unwrap();
                    self.add_links(ino, -2);
                    self.add_links(at, -1);
                }
                names(&mut self.tree, at).remove(&name);
                self.touch(ino, false);
                self.touch(at, true);
                assert_eq!(see(&self.vol, &mut inode).unwrap(), self.tree[&ino]);
            }
            Op::Rename(i, dir, new_name) => {
                let Some((from, name, ino)) = self.pick_entry(*i) else {
                    return;
                };
                let to = self.pick_dir(*dir);
                let over = names(&mut self.tree, to).get(new_name).map(|e| e.0);
                // What the caller of the volume sees to.
                if over == Some(ino)
                    || self.is_above(ino, to)
                    || over.is_some_and(|o| self.is_dir(o) && self.is_above(o, from))
                {
                    return;
                }
                let done = self.rename(from, &name, ino, to, new_name, over, false);
                if let Some(over) = over {
                    if self.is_dir(over) != self.is_dir(ino) {
                        assert_eq!(done, Err(Error::Invalid));
                        return;
                    }
                    if self.is_dir(over) && !names(&mut self.tree, over).is_empty() {
                        assert_eq!(done, Err(Error::NotEmpty));
                        return;
                    }
                }
                done.unwrap();
                if let Some(over) = over {
                    let was_dir = self.is_dir(over);
                    self.add_links(over, if was_dir { -2 } else { -1 });
                    self.add_links(to, if was_dir { -1 } else { 0 });
                    self.touch(over, false);
                }
                names(&mut self.tree, from).remove(&name);
                let entry = (ino, self.kind(ino));
                names(&mut self.tree, to).insert(new_name.clone(), entry);
                self.moved(ino, from, to);
            }
            Op::Exchange(i, j) => {
                let Some((from, name, ino)) = self.pick_entry(*i) else {
                    return;
                };
                let Some((to, other_name, other)) = self.pick_entry(*j) else {
                    return;
                };
                if ino == other || self.is_above(ino, to) || self.is_above(other, from) {
                    return;
                }
                self.rename(from, &name, ino, to, &other_name, Some(other), true)
                    .unwrap();
                let entry = (other, self.kind(other));
                names(&mut self.tree, from).insert(name, entry);
                let entry = (ino, self.kind(ino));
                names(&mut self.tree, to).insert(other_name, entry);
                self.moved(ino, from, to);
                self.moved(other, to, from);
            }
            Op::Write(i, bytes) => {
                let file = |s: &Seen| matches!(s.body, Body::File(_));
                let Some(ino) = self.pick(*i, file) else {
                    return;
                };
                let mut inode = self.get(ino);
                let size = inode.size();
                if size < 20_000 {
                    write(&self.vol, &mut inode, size, bytes, now).unwrap();
                    if let Body::File(content) = &mut self.tree.get_mut(&ino).unwrap().body {
                        content.extend_from_slice(bytes);
                    }
                } else {
                    self.vol.truncate(&mut inode, 0, now).unwrap();
                    self.tree.get_mut(&ino).unwrap().body = Body::File(Vec::new());
                }
                self.touch(ino, true);
            }
            Op::Chmod(i, mode) => {
                let ino = self.pick(*i, |_| true).unwrap();
                let set = SetAttr {
                    mode: Some(*mode),
                    ctime: Some(now),
                    ..SetAttr::default()
                };
                self.vol.set_attr(&mut self.get(ino), &set).unwrap();
                let seen = self.tree.get_mut(&ino).unwrap();
                seen.mode = seen.mode & 0o170_000 | mode & 0o7777;
                seen.ctime = now;
            }
            Op::Free(i) => {
                let Some(ino) = self.pick(*i, |s| s.nlink == 0) else {
                    return;
                };
                self.vol.free_inode(&mut self.get(ino)).unwrap();
                self.tree.remove(&ino);
                assert_eq!(self.vol.iget(ino).unwrap_err(), Error::Stale);
            }
            Op::Remount => {
                let vol = mount_only(self.ram.clone());
                let orphans = self.tree.values().filter(|s| s.nlink == 0).count();
                assert_eq!(vol.recover_orphans(), Ok(orphans as u64));
                self.vol = vol;
                self.tree.retain(|_, s| s.nlink > 0);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn rename(
        &self,
        from: u64,
        name: &[u8],
        ino: u64,
        to: u64,
        new_name: &[u8],
        over: Option<u64>,
        exchange: bool,
    ) -> Result<()> {
        let (mut src_dir, mut moved) = (self.get(from), self.get(ino));
        let mut dst_dir = (to != from).then(|| self.get(to));
        let mut replaced = over.map(|ino| self.get(ino));
        self.vol.rename(Rename {
            src_dir: &mut src_dir,
            dst_dir: dst_dir.as_mut(),
            src_name: name,
            dst_name: new_name,
            moved: &mut moved,
            replaced: replaced.as_mut(),
            exchange,
            now: time(self.clock),
        })?;
        // What the call left in memory is what is on the media.
        let inodes = [Some(src_dir), dst_dir, Some(moved), replaced];
        for inode in inodes.into_iter().flatten() {
            assert_eq!(inode.raw(), self.get(inode.ino()).raw());
        }
        Ok(())
    }

    /// `ino` went from one directory to another.
    fn moved(&mut self, ino: u64, from: u64, to: u64) {
        if self.is_dir(ino) {
            self.add_links(from, -1);
            self.add_links(to, 1);
            self.tree.get_mut(&ino).unwrap().parent = to;
        }
        self.touch(ino, false);
        self.touch(from, true);
        self.touch(to, true);
    }

    fn check(&self) {
        let named: Tree = self
            .tree
            .iter()
            .filter(|(_, s)| s.nlink > 0)
            .map(|(ino, s)| (*ino, s.clone()))
            .collect();
        let walked = walk(&self.vol).unwrap();
        for (ino, seen) in &named {
            assert_eq!(walked.get(ino), Some(seen), "inode {ino}");
        }
        assert_eq!(walked.len(), named.len());
        let stat = self.vol.statfs();
        assert_eq!(stat.inodes_used, self.tree.len() as u64);
        assert_eq!(assert_clean(&*self.ram), (stat.free, stat.inodes_used));
    }
}

fn name() -> impl Strategy<Value = Name> {
    prop_oneof![
        4 => "[a-f]".prop_map(String::into_bytes),
        1 => ("[a-f]", 200..255usize).prop_map(|(c, n)| c.repeat(n).into_bytes()),
        2 => "[a-z]{8}".prop_map(String::into_bytes),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let i = || any::<usize>();
    let make = prop_oneof![
        4 => Just(Make::Node(FILE)),
        4 => Just(Make::Node(DIR)),
        1 => Just(Make::Node(FIFO)),
        1 => prop_oneof![Just(1), Just(128), Just(129), Just(4095)].prop_map(Make::Symlink),
    ];
    prop_oneof![
        8 => (i(), name(), make).prop_map(|(d, n, m)| Op::Make(d, n, m)),
        1 => Just(Op::Tmpfile),
        3 => (i(), i(), name()).prop_map(|(t, d, n)| Op::Link(t, d, n)),
        4 => i().prop_map(Op::Remove),
        8 => (i(), i(), name()).prop_map(|(e, d, n)| Op::Rename(e, d, n)),
        3 => (i(), i()).prop_map(|(a, b)| Op::Exchange(a, b)),
        2 => (i(), proptest::collection::vec(1..255u8, 1..9000)).prop_map(|(f, b)| Op::Write(f, b)),
        1 => (i(), 0..0o10000u16).prop_map(|(f, m)| Op::Chmod(f, m)),
        2 => i().prop_map(Op::Free),
        1 => Just(Op::Remount),
    ]
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn names_links_and_renames(ops in proptest::collection::vec(op(), 1..200)) {
        let mut m = Mirror::new();
        for (i, op) in ops.iter().enumerate() {
            m.run(op);
            if i % 16 == 0 {
                m.check();
            }
        }
        m.check();
        m.run(&Op::Remount);
        m.check();
    }
}

/// Renames `a` to `b`.
fn try_rename(
    vol: &Vol,
    src_dir: &mut Inode,
    dst_dir: Option<&mut Inode>,
    moved: &mut Inode,
    replaced: Option<&mut Inode>,
    exchange: bool,
) -> Result<()> {
    vol.rename(Rename {
        src_dir,
        dst_dir,
        src_name: b"a",
        dst_name: b"b",
        moved,
        replaced,
        exchange,
        now: time(2),
    })
}

#[test]
fn calls_that_make_no_sense_are_refused() {
    let (vol, ram) = fresh(8 << 20);
    let mut top = root(&vol);
    let mut a = vol.create(&mut top, b"a", &new(DIR, 1)).unwrap();
    let mut b = vol.create(&mut top, b"b", &new(DIR, 1)).unwrap();
    let mut f = vol.create(&mut a, b"f", &new(FILE, 1)).unwrap();
    let now = time(2);
    let before = walk(&vol).unwrap();

    let invalid = [
        vol.create(&mut top, b"x", &new(0o030_000, 2)).map(drop),
        vol.create(&mut top, b"x", &new(0o120_777, 2)).map(drop),
        vol.create(&mut f, b"x", &new(FILE, 2)).map(drop),
        vol.symlink(&mut top, b"x", b"", &new(0o777, 2)).map(drop),
        vol.tmpfile(&new(DIR, 2)).map(drop),
        vol.link(&mut top, b"x", &mut a, now),
        vol.link(&mut f, b"x", &mut top, now),
        vol.unlink(&mut a, b"f", &mut b, now),
        vol.rmdir(&mut top, b"a", &mut b, now),
        vol.rmdir(&mut b, b"a", &mut a, now),
        vol.unlink(&mut top, b"a", &mut f, now),
        vol.read_link(&f, &mut [0; 9]).map(drop),
        vol.readdir(&mut f, 0).map(drop),
        vol.free_inode(&mut f.clone()),
    ];
    for (i, result) in invalid.into_iter().enumerate() {
        assert_eq!(result, Err(Error::Invalid), "{i}");
    }
    assert_eq!(
        vol.symlink(&mut top, b"x", &[b't'; 4096], &new(0o777, 2))
            .map(drop),
        Err(Error::NameTooLong)
    );
    assert_eq!(vol.unlink(&mut b, b"f", &mut f, now), Err(Error::NotFound));

    // Renames with an inode in two places, or one that is not where it is said to be.
    let mut top2 = top.clone();
    let refused = try_rename(&vol, &mut top, Some(&mut top2), &mut a, Some(&mut b), false);
    assert_eq!(refused, Err(Error::Invalid));
    let refused = try_rename(&vol, &mut top, None, &mut a, Some(&mut top2), false);
    assert_eq!(refused, Err(Error::Invalid));
    let refused = try_rename(&vol, &mut top, None, &mut a, None, true);
    assert_eq!(refused, Err(Error::Invalid));
    let refused = try_rename(&vol, &mut top, None, &mut a, Some(&mut f), false);
    assert_eq!(refused, Err(Error::Invalid));
    let refused = try_rename(&vol, &mut top, None, &mut f, Some(&mut b), true);
    assert_eq!(refused, Err(Error::Invalid));
    let refused = try_rename(&vol, &mut top, None, &mut a, None, false);
    assert_eq!(refused, Err(Error::Exists));
    let refused = try_rename(&vol, &mut b, None, &mut f, None, false);
    assert_eq!(refused, Err(Error::NotFound));

    // A removed directory gets no names.
    vol.rmdir(&mut top, b"b", &mut b, now).unwrap();
    assert_eq!(
        vol.create(&mut b, b"x", &new(FILE, 2)).map(drop),
        Err(Error::NotFound)
    );
    assert_eq!(vol.link(&mut b, b"x", &mut f, now), Err(Error::NotFound));
    vol.free_inode(&mut b).unwrap();

    let mut after = walk(&vol).unwrap();
    assert_eq!(after.len() + 1, before.len());
    assert_eq!(after.remove(&f.ino()).as_ref(), before.get(&f.ino()));
    assert_clean(&*ram);
}

#[test]
fn a_new_user_of_a_number_has_another_generation() {
    let (vol, _) = fresh(8 << 20);
    let mut top = root(&vol);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..600 {
        let mut f = vol.create(&mut top, b"f", &new(FILE, 1)).unwrap();
        assert!(seen.insert((f.ino(), f.generation())));
        vol.unlink(&mut top, b"f", &mut f, time(2)).unwrap();
        vol.free_inode(&mut f).unwrap();
    }
}
