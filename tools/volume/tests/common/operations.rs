// SPDX-License-Identifier: GPL-2.0

//! One of each operation, on a small volume prepared for it: what crashes, full devices and lack of
//! memory are tried on.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use rdax_volume::sim::Sim;
use rdax_volume::volume::alloc::Want;
use rdax_volume::volume::dir::hash;
use rdax_volume::volume::error::{Error, Result};
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::{BLOCK, ROOT_INO};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::{Rename, SetAttr};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::xattr::Must;
use rdax_volume::volume::Volume;

use super::*;

/// Bytes of the volumes.
pub const BYTES: u64 = 8 << 20;
/// Extents of a file whose tree has several leaves.
pub const MANY: u64 = 300;

/// The volumes: on a memory that can be cut off and made to fail.
pub type V = Volume<Shared<Sim>>;

/// An operation.
pub struct Operation {
    pub name: &'static str,
    /// Makes the volume what the operation needs.
    pub prepare: fn(&V) -> Result<()>,
    pub run: fn(&V) -> Result<()>,
}

/// Lists operations.
macro_rules! operations {
    ($($name:ident: |$p:ident| $prepare:block |$v:ident| $run:block)*) => {
        pub const ALL: &[Operation] = &[$(Operation {
            name: stringify!($name),
            prepare: |$p: &V| { $prepare; Ok(()) },
            run: |$v: &V| { $run; Ok(()) },
        }),*];
    };
}

/// A volume whose free blocks are full of old data, and whose lanes and inode slots were in use.
pub fn sim() -> Shared<Sim> {
    let sim = Shared::new(Sim::new(BYTES));
    format(&*sim);
    let vol = mount(sim.clone());
    let mut reserved = Vec::new();
    while let Ok(r) = vol.reserve(Want::blocks(512)) {
        let run = r.run();
        let old = vec![0xee; (run.len * BLOCK) as usize];
        sim.store_nt(run.block * BLOCK, &old).unwrap();
        reserved.push(r);
    }
    drop(reserved);
    let mut top = root(&vol);
    for mode in [DIR, FILE, FIFO] {
        let mut inode = vol.create(&mut top, b"x", &new(mode, 1)).unwrap();
        if mode == DIR {
            vol.rmdir(&mut top, b"x", &mut inode, time(1)).unwrap();
        } else {
            vol.unlink(&mut top, b"x", &mut inode, time(1)).unwrap();
        }
        vol.free_inode(&mut inode).unwrap();
    }
    sim
}

/// Fills the volume with a file, and takes `n` single blocks of it out again.
pub fn in_pieces<P: Pmem>(vol: &Volume<P>, n: u64) -> Result<()> {
    let mut top = root(vol);
    let mut big = vol.create(&mut top, b"big", &new(FILE, 1))?;
    let mut at = 0;
    while let Ok(run) = vol.fill(&mut big, at, 4096, None) {
        at += run.len;
    }
    (0..n).try_for_each(|i| vol.punch(&mut big, 2 * i + 1, 1, time(1)))
}

/// An inode that an operation has in memory. What it was in the end is kept, for
/// [`take_dropped`].
pub struct Held(Option<Inode>);

thread_local! {
    static DROPPED: RefCell<Vec<Inode>> = const { RefCell::new(Vec::new()) };
}

/// The inodes that operations had in memory since this was called last, as they were in the end.
pub fn take_dropped() -> Vec<Inode> {
    DROPPED.take()
}

impl Deref for Held {
    type Target = Inode;

    fn deref(&self) -> &Inode {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Inode {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        DROPPED.with_borrow_mut(|dropped| dropped.extend(self.0.take()));
    }
}

/// The inode at a path of single names from the root.
pub fn at(vol: &V, path: &[&[u8]]) -> Result<Held> {
    let mut inode = vol.iget(ROOT_INO)?;
    for name in path {
        let entry = vol.lookup(&mut inode, name)?.ok_or(Error::NotFound)?;
        inode = vol.iget(entry.ino)?;
    }
    Ok(Held(Some(inode)))
}

fn make(vol: &V, path: &[&[u8]], mode: u16) -> Result<Inode> {
    let (name, dir) = path.split_last().unwrap();
    vol.create(&mut *at(vol, dir)?, name, &new(mode, 3))
}

/// A file with `n` extents, every second block, each with other content.
fn sparse(vol: &V, n: u64) -> Result<Inode> {
    let mut file = make(vol, &[b"file"], FILE)?;
    for i in 0..n {
        let bytes = [i as u8 | 1; BLOCK as usize];
        write(vol, &mut file, i * 2 * BLOCK, &bytes, time(4))?;
    }
    Ok(file)
}

/// A file with `n` unwritten blocks and no size.
fn preallocated(vol: &V, n: u64) -> Result<Inode> {
    let mut file = make(vol, &[b"file"], FILE)?;
    assert_eq!(vol.preallocate(&mut file, 0, n, time(4))?, n);
    Ok(file)
}

/// Two directories, a file and a directory in the first, a file in the second.
fn two_dirs(vol: &V) -> Result<()> {
    make(vol, &[b"a"], DIR)?;
    make(vol, &[b"b"], DIR)?;
    make(vol, &[b"a", b"f"], FILE)?;
    make(vol, &[b"a", b"d"], DIR)?;
    let mut g = make(vol, &[b"b", b"g"], FILE)?;
    write(vol, &mut g, 0, b"g's content", time(4))
}

/// Names until the next one makes the leaf split: each takes 280 bytes, and 14 fit.
fn full_leaf(vol: &V) -> Result<()> {
    make(vol, &[b"d"], DIR)?;
    for i in 0..14u8 {
        make(vol, &[b"d", &[b'a' + i; 255]], FIFO)?;
    }
    Ok(())
}

/// A directory with two leaves, and a name in the second only.
fn leaf_of_one(vol: &V) -> Result<()> {
    full_leaf(vol)?;
    make(vol, &[b"d", &[b'z'; 255]], FIFO)?;
    let mut d = at(vol, &[b"d"])?;
    assert_eq!(d.size(), 2 * BLOCK);
    // The last one in the order of hashes is in the second leaf.
    for (_, name, _, _) in list(vol, &mut d, 100)?.into_iter().rev().skip(1) {
        remove(vol, &mut d, &name)?;
    }
    assert_eq!(d.size(), 2 * BLOCK);
    Ok(())
}

/// Removes a name and what it stands for, a file.
fn remove(vol: &V, dir: &mut Inode, name: &[u8]) -> Result<()> {
    let entry = vol.lookup(dir, name)?.ok_or(Error::NotFound)?;
    let mut inode = vol.iget(entry.ino)?;
    vol.unlink(dir, name, &mut inode, time(5))?;
    vol.free_inode(&mut inode)
}

/// Renames by `how`, which is told all but whether it is an exchange.
fn rename_by(
    vol: &V,
    src: &[&[u8]],
    dst: &[&[u8]],
    how: impl FnOnce(Rename<'_>) -> Result<()>,
) -> Result<()> {
    let (src_name, src_dir) = src.split_last().unwrap();
    let (dst_name, dst_dir) = dst.split_last().unwrap();
    let mut from = at(vol, src_dir)?;
    let mut to = at(vol, dst_dir)?;
    let mut replaced = match vol.lookup(&mut to, dst_name)? {
        Some(entry) => Some(vol.iget(entry.ino)?),
        None => None,
    };
    let same = from.ino() == to.ino();
    how(Rename {
        src_dir: &mut from,
        dst_dir: (!same).then_some(&mut *to),
        src_name,
        dst_name,
        moved: &mut *at(vol, src)?,
        replaced: replaced.as_mut(),
        exchange: false,
        now: time(9),
    })
}

fn rename(vol: &V, src: &[&[u8]], dst: &[&[u8]], exchange: bool) -> Result<()> {
    rename_by(vol, src, dst, |r| vol.rename(Rename { exchange, ..r }))
}

fn whiteout(vol: &V, src: &[&[u8]], dst: &[&[u8]]) -> Result<()> {
    let xattrs: [(&[u8], &[u8]); 1] = [(b"security.a", b"label")];
    let mut inode = Inode::blank();
    rename_by(vol, src, dst, |r| {
        vol.rename_whiteout(r, &new(0o020_000, 9), &xattrs, &mut inode)
    })
}

fn set_xattr(vol: &V, path: &[&[u8]], name: &[u8], value: Option<&[u8]>, must: Must) -> Result<()> {
    let set = SetAttr {
        mode: Some(0o640),
        ctime: Some(time(7)),
        ..SetAttr::default()
    };
    vol.set_xattr(&mut *at(vol, path)?, name, value, must, &set)
}

/// A file with a small attribute and a large one.
fn attributes(vol: &V) -> Result<()> {
    two_dirs(vol)?;
    set_xattr(vol, &[b"a", b"f"], b"user.small", Some(b"x"), Must::BeNew)?;
    set_xattr(
        vol,
        &[b"a", b"f"],
        b"user.large",
        Some(&[9; 8193]),
        Must::BeNew,
    )
}

operations! {
    create_file: |_p| {} |v| {
        v.create(&mut *at(v, &[])?, b"file", &new(FILE, 5))?;
    }
    create_directory: |_p| {} |v| {
        v.create(&mut *at(v, &[])?, b"dir", &new(DIR, 5))?;
    }
    create_in_a_full_leaf: |p| { full_leaf(p)? } |v| {
        v.create(&mut *at(v, &[b"d"])?, &[b'z'; 255], &new(FILE, 5))?;
    }
    create_in_a_leaf_to_compact: |p| {
        // Every second record is free, so two thirds of a leaf are, but no longer name fits.
        make(p, &[b"d"], DIR)?;
        for i in 0..60u8 {
            make(p, &[b"d", &[i + 128; 40]], FIFO)?;
        }
        let mut d = at(p, &[b"d"])?;
        for i in (0..60u8).step_by(2) {
            remove(p, &mut d, &[i + 128; 40])?;
        }
    } |v| {
        v.create(&mut *at(v, &[b"d"])?, &[b'z'; 255], &new(FILE, 5))?;
    }
    create_with_a_new_inode_chunk: |p| {
        let mut dir = make(p, &[b"d"], DIR)?;
        let mut file = make(p, &[b"first"], FILE)?;
        while file.ino() != 255 {
            let name = format!("{}", file.ino());
            file = p.create(&mut dir, name.as_bytes(), &new(FIFO, 1))?;
        }
    } |v| {
        v.create(&mut *at(v, &[])?, b"last", &new(FILE, 5))?;
    }
    short_symlink: |_p| {} |v| {
        v.symlink(&mut *at(v, &[])?, b"link", &[b'x'; 128], &new(0o777, 5))?;
    }
    long_symlink: |_p| {} |v| {
        v.symlink(&mut *at(v, &[])?, b"link", &[b'x'; 4095], &new(0o777, 5))?;
    }
    temporary_file: |_p| {} |v| {
        v.tmpfile(&new(FILE, 5))?;
    }
    link_a_temporary_file: |_p| {} |v| {
        let mut file = v.tmpfile(&new(FILE, 5))?;
        v.link(&mut *at(v, &[])?, b"name", &mut file, time(5))?;
    }
    link: |p| { two_dirs(p)? } |v| {
        let mut f = at(v, &[b"a", b"f"])?;
        v.link(&mut *at(v, &[b"b"])?, b"another", &mut f, time(5))?;
    }
    unlink_one_of_two: |p| {
        two_dirs(p)?;
        let mut f = at(p, &[b"a", b"f"])?;
        p.link(&mut *at(p, &[b"b"])?, b"another", &mut f, time(5))?;
    } |v| {
        let mut f = at(v, &[b"a", b"f"])?;
        v.unlink(&mut *at(v, &[b"b"])?, b"another", &mut f, time(5))?;
    }
    unlink_last: |p| { two_dirs(p)? } |v| {
        let mut g = at(v, &[b"b", b"g"])?;
        v.unlink(&mut *at(v, &[b"b"])?, b"g", &mut g, time(5))?;
    }
    unlink_and_free: |p| { two_dirs(p)? } |v| {
        remove(v, &mut *at(v, &[b"b"])?, b"g")?;
    }
    rename_in_a_leaf_of_one: |p| { leaf_of_one(p)? } |v| {
        let mut d = at(v, &[b"d"])?;
        let name = list(v, &mut d, 9)?.remove(0).1;
        // One of these belongs into the same leaf: that of the upper half of the hashes.
        let mut near = (0u8..).map(|i| [i; 9]).filter(|n| hash(&HASH_KEY, n) >> 51 == 1);
        let near = near.find(|n| !n.contains(&b'/') && n[0] > 0).unwrap();
        rename(v, &[b"d", &name], &[b"d", &near], false)?;
        // The rename is done, whether or not this can be read.
        if let Ok(d) = v.iget(d.ino()) {
            assert_eq!(d.size(), 2 * BLOCK);
        }
    }
    unlink_the_last_name_of_a_leaf: |p| { leaf_of_one(p)? } |v| {
        let mut d = at(v, &[b"d"])?;
        let name = list(v, &mut d, 9)?.remove(0).1;
        let mut f = at(v, &[b"d", &name])?;
        v.unlink(&mut d, &name, &mut f, time(5))?;
        assert_eq!(d.size(), BLOCK);
    }
    remove_directory: |p| { two_dirs(p)? } |v| {
        let mut d = at(v, &[b"a", b"d"])?;
        v.rmdir(&mut *at(v, &[b"a"])?, b"d", &mut d, time(5))?;
    }
    rename_in_place: |p| { two_dirs(p)? } |v| {
        rename(v, &[b"a", b"f"], &[b"a", b"new name"], false)?;
    }
    rename_over_a_file: |p| { two_dirs(p)? } |v| {
        rename(v, &[b"a", b"f"], &[b"b", b"g"], false)?;
    }
    rename_directory: |p| { two_dirs(p)? } |v| {
        rename(v, &[b"a", b"d"], &[b"b", b"e"], false)?;
    }
    rename_over_a_directory: |p| {
        two_dirs(p)?;
        make(p, &[b"b", b"e"], DIR)?;
    } |v| {
        rename(v, &[b"a", b"d"], &[b"b", b"e"], false)?;
    }
    rename_into_a_full_leaf: |p| { full_leaf(p)?; make(p, &[b"f"], FILE)?; } |v| {
        rename(v, &[b"f"], &[b"d", &[b'z'; 255]], false)?;
    }
    rename_and_leave_a_whiteout: |p| { two_dirs(p)? } |v| {
        whiteout(v, &[b"a", b"f"], &[b"a", b"new name"])?;
    }
    rename_over_and_leave_a_whiteout: |p| { leaf_of_one(p)?; two_dirs(p)?; } |v| {
        let mut d = at(v, &[b"d"])?;
        let name = list(v, &mut d, 9)?.remove(0).1;
        whiteout(v, &[b"d", &name], &[b"b", b"g"])?;
        // The rename is done, whether or not this can be read.
        if let Ok(d) = v.iget(d.ino()) {
            assert_eq!(d.size(), 2 * BLOCK);
        }
    }
    rename_directory_and_leave_a_whiteout: |p| { two_dirs(p)? } |v| {
        whiteout(v, &[b"a", b"d"], &[b"b", b"e"])?;
    }
    exchange_directory_and_file: |p| { two_dirs(p)? } |v| {
        rename(v, &[b"a", b"d"], &[b"b", b"g"], true)?;
    }
    exchange_in_place: |p| { two_dirs(p)? } |v| {
        rename(v, &[b"a", b"d"], &[b"a", b"f"], true)?;
    }
    change_attributes: |p| { two_dirs(p)? } |v| {
        let set = SetAttr {
            mode: Some(0o600),
            uid: Some(7),
            atime: Some(time(8)),
            ctime: Some(time(8)),
            ..SetAttr::default()
        };
        v.set_attr(&mut *at(v, &[b"a", b"f"])?, &set)?;
    }
    create_with_attributes: |_p| {} |v| {
        let large = [8; 5000];
        let xattrs: [(&[u8], &[u8]); 2] = [(b"security.a", b"label"), (b"system.b", &large)];
        let mut inode = Inode::blank();
        v.create_into(&mut *at(v, &[])?, b"dir", &new(DIR, 5), &xattrs, &mut inode)?;
    }
    first_attribute: |p| { two_dirs(p)? } |v| {
        set_xattr(v, &[b"a", b"f"], b"user.a", Some(b"value"), Must::BeNew)?;
    }
    large_attribute: |p| { attributes(p)? } |v| {
        set_xattr(v, &[b"a", b"f"], b"user.new", Some(&[7; 65536]), Must::Whatever)?;
    }
    replace_an_attribute: |p| { attributes(p)? } |v| {
        set_xattr(v, &[b"a", b"f"], b"user.small", Some(&[6; 300]), Must::Exist)?;
    }
    replace_a_large_attribute: |p| { attributes(p)? } |v| {
        set_xattr(v, &[b"a", b"f"], b"user.large", Some(&[5; 9000]), Must::Whatever)?;
    }
    remove_a_large_attribute: |p| { attributes(p)? } |v| {
        set_xattr(v, &[b"a", b"f"], b"user.large", None, Must::Exist)?;
    }
    remove_the_last_attribute: |p| {
        two_dirs(p)?;
        set_xattr(p, &[b"a", b"f"], b"user.a", Some(b"value"), Must::BeNew)?;
    } |v| {
        set_xattr(v, &[b"a", b"f"], b"user.a", None, Must::Whatever)?;
    }
    unlink_and_free_with_attributes: |p| { attributes(p)? } |v| {
        remove(v, &mut *at(v, &[b"a"])?, b"f")?;
    }
    fill_between_extents: |p| { sparse(p, 3)?; } |v| {
        v.fill(&mut *at(v, &[b"file"])?, 1, 9, Some(time(5)))?;
    }
    fill_with_a_full_root: |p| { sparse(p, 8)?; } |v| {
        v.fill(&mut *at(v, &[b"file"])?, 100, 5, Some(time(5)))?;
    }
    preallocate: |p| { sparse(p, 3)?; } |v| {
        v.preallocate(&mut *at(v, &[b"file"])?, 1, 9, time(5))?;
    }
    preallocate_many_holes: |p| { sparse(p, MANY)?; } |v| {
        v.preallocate(&mut *at(v, &[b"file"])?, 100, 200, time(5))?;
    }
    preallocate_where_a_leaf_is_split: |p| { sparse(p, 256)?; } |v| {
        // The first leaf has 251 extents; half of them go to a new one.
        v.preallocate(&mut *at(v, &[b"file"])?, 240, 100, time(5))?;
    }
    preallocate_at_the_end_of_a_leaf: |p| { sparse(p, 256)?; } |v| {
        v.preallocate(&mut *at(v, &[b"file"])?, 498, 10, time(5))?;
    }
    preallocate_before_all: |p| {
        let mut file = sparse(p, MANY)?;
        p.punch(&mut file, 0, 17, time(4))?;
    } |v| {
        v.preallocate(&mut *at(v, &[b"file"])?, 3, 20, time(5))?;
    }
    preallocate_where_space_is_in_pieces: |p| {
        sparse(p, 3)?;
        in_pieces(p, 60)?;
    } |v| {
        v.preallocate(&mut *at(v, &[b"file"])?, 1, 30, time(5))?;
    }
    fill_inside_unwritten: |p| { preallocated(p, 9)?; } |v| {
        v.fill(&mut *at(v, &[b"file"])?, 3, 2, Some(time(5)))?;
    }
    write_to_unwritten: |p| { preallocated(p, 9)?; } |v| {
        write(v, &mut *at(v, &[b"file"])?, BLOCK + 100, &[4; 6000], time(5))?;
    }
    append_to_unwritten: |p| {
        let mut file = preallocated(p, 9)?;
        write(p, &mut file, 0, &[1; 4000], time(4))?;
    } |v| {
        // The size passes what is between as well.
        write(v, &mut *at(v, &[b"file"])?, BLOCK + 100, &[4; 9000], time(5))?;
    }
    fill_unwritten_with_a_full_root: |p| {
        let mut file = sparse(p, 7)?;
        p.preallocate(&mut file, 100, 9, time(4))?;
    } |v| {
        v.fill(&mut *at(v, &[b"file"])?, 103, 2, Some(time(5)))?;
    }
    unwrite_an_extent: |p| { sparse(p, 4)?; } |v| {
        v.unwrite(&mut *at(v, &[b"file"])?, 1, 2, time(5))?;
    }
    unwrite_in_several: |p| { sparse(p, MANY)?; } |v| {
        v.unwrite(&mut *at(v, &[b"file"])?, 1, 2 * MANY - 3, time(5))?;
    }
    unwrite_over_unwritten: |p| {
        let mut file = sparse(p, MANY)?;
        p.preallocate(&mut file, 9, 1, time(4))?;
    } |v| {
        v.unwrite(&mut *at(v, &[b"file"])?, 8, 3, time(5))?;
    }
    unwrite_inside_an_extent: |p| {
        let mut file = make(p, &[b"file"], FILE)?;
        write(p, &mut file, 0, &[3; 10 * BLOCK as usize], time(1))?;
    } |v| {
        v.unwrite(&mut *at(v, &[b"file"])?, 4, 2, time(5))?;
    }
    punch_inside_unwritten: |p| { preallocated(p, 9)?; } |v| {
        v.punch(&mut *at(v, &[b"file"])?, 4, 2, time(5))?;
    }
    collapse_inside_unwritten: |p| {
        let mut file = preallocated(p, 9)?;
        write(p, &mut file, 0, &[3; 5000], time(4))?;
        p.extend(&mut file, 9 * BLOCK, 9 * BLOCK, None)?;
    } |v| {
        v.collapse(&mut *at(v, &[b"file"])?, 1, 3, time(5))?;
    }
    extend_over_old_bytes: |p| {
        let mut file = make(p, &[b"file"], FILE)?;
        p.fill(&mut file, 0, 2, None)?;
        write(p, &mut file, 0, &[1; 3000], time(1))?;
        // What a write leaves that is cut off before it sets the size.
        let first = match p.map(&mut file, 0, 2)? {
            Map::Run { block, .. } => block,
            _ => unreachable!(),
        };
        p.pmem().store_nt(first * BLOCK + 3000, &[2; 5192])?;
    } |v| {
        let mut file = at(v, &[b"file"])?;
        v.truncate(&mut file, 9000, time(5))?;
    }
    append: |p| { sparse(p, 1)?; } |v| {
        let mut file = at(v, &[b"file"])?;
        let reserved = v.reserve_several(v.want(&mut file, 1, 3)?)?;
        for run in reserved.runs() {
            v.pmem().store_nt(run.block * BLOCK, &vec![5; (run.len * BLOCK) as usize])?;
        }
        v.insert(&mut file, 1, reserved, Some(BLOCK * 3 + 5), time(5))?;
    }
    append_where_space_is_in_pieces: |p| {
        make(p, &[b"file"], FILE)?;
        in_pieces(p, 60)?;
    } |v| {
        let mut file = at(v, &[b"file"])?;
        let reserved = v.reserve_several(v.want(&mut file, 0, 8)?)?;
        for run in reserved.runs() {
            v.pmem().store_nt(run.block * BLOCK, &vec![5; (run.len * BLOCK) as usize])?;
        }
        let size = reserved.blocks() * BLOCK - 5;
        v.insert(&mut file, 0, reserved, Some(size), time(5))?;
    }
    append_in_the_last_block: |p| {
        let mut file = make(p, &[b"file"], FILE)?;
        write(p, &mut file, 0, b"start", time(1))?;
    } |v| {
        write(v, &mut *at(v, &[b"file"])?, 5, &[7; 300], time(5))?;
    }
    truncate_in_one: |p| { sparse(p, 6)?; } |v| {
        v.truncate(&mut *at(v, &[b"file"])?, 3 * BLOCK + 9, time(5))?;
    }
    truncate_inside_a_block: |p| { sparse(p, 6)?; } |v| {
        v.truncate(&mut *at(v, &[b"file"])?, 4 * BLOCK + 9, time(5))?;
    }
    truncate_in_several_inside_a_block: |p| { sparse(p, MANY)?; } |v| {
        v.truncate(&mut *at(v, &[b"file"])?, 4 * BLOCK + 4095, time(5))?;
    }
    truncate_in_several: |p| { sparse(p, MANY)?; } |v| {
        v.truncate(&mut *at(v, &[b"file"])?, 3 * BLOCK, time(5))?;
    }
    unlink_and_free_in_several: |p| { sparse(p, MANY)?; } |v| {
        remove(v, &mut *at(v, &[])?, b"file")?;
    }
    punch_inside_an_extent: |p| {
        let mut file = make(p, &[b"file"], FILE)?;
        write(p, &mut file, 0, &[3; 10 * BLOCK as usize], time(1))?;
    } |v| {
        v.punch(&mut *at(v, &[b"file"])?, 4, 2, time(5))?;
    }
    punch_several: |p| { sparse(p, 7)?; } |v| {
        v.punch(&mut *at(v, &[b"file"])?, 1, 9, time(5))?;
    }
    punch_in_several: |p| { sparse(p, MANY)?; } |v| {
        v.punch(&mut *at(v, &[b"file"])?, 1, 2 * MANY - 3, time(5))?;
    }
    collapse_inside_an_extent: |p| {
        let mut file = make(p, &[b"file"], FILE)?;
        let bytes: Vec<u8> = (0..10).flat_map(|i| [i + 1; BLOCK as usize]).collect();
        write(p, &mut file, 0, &bytes[..bytes.len() - 9], time(1))?;
    } |v| {
        v.collapse(&mut *at(v, &[b"file"])?, 4, 2, time(5))?;
    }
    collapse_many: |p| { sparse(p, MANY)?; } |v| {
        v.collapse(&mut *at(v, &[b"file"])?, 1, 20, time(5))?;
    }
    collapse_nearly_all: |p| { sparse(p, MANY)?; } |v| {
        v.collapse(&mut *at(v, &[b"file"])?, 3, 2 * MANY - 100, time(5))?;
    }
    insert_inside_an_extent: |p| {
        let mut file = make(p, &[b"file"], FILE)?;
        write(p, &mut file, 0, &[3; 10 * BLOCK as usize], time(1))?;
    } |v| {
        v.make_gap(&mut *at(v, &[b"file"])?, 4, 7, time(5))?;
    }
    insert_with_a_full_root: |p| {
        let mut file = sparse(p, 7)?;
        write(p, &mut file, 14 * BLOCK, &[3; 2 * BLOCK as usize], time(1))?;
    } |v| {
        let mut file = at(v, &[b"file"])?;
        v.make_gap(&mut file, 15, 1, time(5))?;
        assert_eq!(file.raw().depth, 1);
    }
    insert_many: |p| { sparse(p, MANY)?; } |v| {
        v.make_gap(&mut *at(v, &[b"file"])?, 9, 5, time(5))?;
    }
}
