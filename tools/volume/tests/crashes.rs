// SPDX-License-Identifier: GPL-2.0

//! Every operation cut off at each fence, with any part of what was not durable yet: after recovery
//! the volume is as before the operation or as after it, and as after it once the operation has
//! returned. Then the checker has nothing to say, and nothing is lost.

mod common;

use common::tree::{walk, Body, Tree};
use common::*;
use rdax_volume::sim::{Bounds, Sim};
use rdax_volume::volume::alloc::Want;
use rdax_volume::volume::format::{BLOCK, ROOT_INO};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::{Rename, SetAttr};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::Volume;

const BYTES: u64 = 8 << 20;
/// States looked at for each fence, unless RDAX_CRASH_STATES says otherwise.
const PER_FENCE: u64 = 50;

type V = Volume<Shared<Sim>>;

/// The inode at a path of single names from the root.
fn at(vol: &V, path: &[&[u8]]) -> Inode {
    let mut inode = vol.iget(ROOT_INO).unwrap();
    for name in path {
        let entry = vol.lookup(&inode, name).unwrap().unwrap();
        inode = vol.iget(entry.ino).unwrap();
    }
    inode
}

/// A volume whose free blocks are full of old data, and whose lanes and inode slots were in use.
fn sim() -> Shared<Sim> {
    let sim = Shared::new(Sim::new(BYTES));
    format(&*sim);
    let vol = mount(sim.clone());
    loop {
        let Ok(reserved) = vol.reserve(Want::blocks(512)) else {
            break;
        };
        let run = reserved.run();
        sim.store_nt(run.block * BLOCK, &vec![0xee; (run.len * BLOCK) as usize])
            .unwrap();
        // Kept, so that the next one is another.
        std::mem::forget(reserved);
    }
    let vol = mount(sim.clone());
    let mut top = root(&vol);
    for mode in [DIR, FILE, FIFO] {
        let mut inode = vol.create(&mut top, b"x", &new(mode, 1)).unwrap();
        if mode == DIR {
            vol.rmdir(&mut top, b"x", &mut inode, time(1)).unwrap();
        } else {
            vol.unlink(&mut top, b"x", &mut inode, time(1)).unwrap();
        }
        vol.free_inode(inode).unwrap();
    }
    sim
}

/// What is there after mount, with the orphans worked off.
fn recovered(sim: &Sim) -> Tree {
    let vol = mount(sim);
    let tree = walk(&vol).unwrap();
    let stat = vol.statfs();
    assert_eq!(stat.inodes_used, tree.len() as u64);
    assert_eq!(assert_clean(sim), (stat.free, stat.inodes_used));
    tree
}

/// Cuts `op` off everywhere. `between` says which other states than before and after are allowed.
fn cut_everywhere(
    prepare: impl Fn(&V),
    op: impl Fn(&V),
    between: impl Fn(&Tree, &Tree, &Tree) -> bool,
) {
    let sim = sim();
    prepare(&mount(sim.clone()));
    let vol = mount(sim.clone());
    let before = walk(&vol).unwrap();
    sim.record();
    op(&vol);
    sim.mark(1);
    sim.fence().unwrap();
    let trace = sim.take_trace();
    drop(vol);
    let after = recovered(&sim);
    let (mut old, mut new) = (0, 0);
    let wanted = std::env::var("RDAX_CRASH_STATES").ok();
    let bounds = Bounds {
        per_fence: wanted.map_or(PER_FENCE, |n| n.parse().expect("a number")),
        seed: 1,
    };
    let states = trace.for_each_crash(bounds, |crash| {
        let tree = recovered(&crash.sim);
        let returned = !crash.marks.is_empty();
        if tree == after {
            new += 1;
        } else if !returned && tree == before {
            old += 1;
        } else if returned || !between(&before, &tree, &after) {
            panic!("{crash}\nbefore {before:?}\nfound {tree:?}\nafter {after:?}");
        }
    });
    println!(
        "{} fences, {states} states, {old} old, {new} new",
        trace.fences()
    );
    assert!(new > 0 && (old > 0 || before == after));
}

fn nothing_between(_: &Tree, _: &Tree, _: &Tree) -> bool {
    false
}

/// A test of one operation on what was prepared.
macro_rules! atomic {
    ($($name:ident: |$p:ident| $prepare:block |$v:ident| $op:block)*) => {$(
        #[test]
        fn $name() {
            cut_everywhere(|$p: &V| $prepare, |$v: &V| $op, nothing_between);
        }
    )*};
}

fn make(vol: &V, path: &[&[u8]], mode: u16) -> Inode {
    let (name, dir) = path.split_last().unwrap();
    vol.create(&mut at(vol, dir), name, &new(mode, 3)).unwrap()
}

/// A file with `n` extents, every second block, each with other content.
fn sparse(vol: &V, name: &[u8], n: u64) -> Inode {
    let mut file = make(vol, &[name], FILE);
    for i in 0..n {
        let byte = i as u8 | 1;
        write(
            vol,
            &mut file,
            i * 2 * BLOCK,
            &[byte; BLOCK as usize],
            time(4),
        )
        .unwrap();
    }
    file
}

/// Two directories, a file and a directory in the first, a file in the second.
fn two_dirs(vol: &V) {
    make(vol, &[b"a"], DIR);
    make(vol, &[b"b"], DIR);
    make(vol, &[b"a", b"f"], FILE);
    make(vol, &[b"a", b"d"], DIR);
    let mut g = make(vol, &[b"b", b"g"], FILE);
    write(vol, &mut g, 0, b"g's content", time(4)).unwrap();
}

fn rename(vol: &V, src: &[&[u8]], dst: &[&[u8]], exchange: bool) {
    let (src_name, src_dir) = src.split_last().unwrap();
    let (dst_name, dst_dir) = dst.split_last().unwrap();
    let mut from = at(vol, src_dir);
    let mut to = (src_dir != dst_dir).then(|| at(vol, dst_dir));
    let there = vol.lookup(to.as_ref().unwrap_or(&from), dst_name).unwrap();
    let mut replaced = there.map(|e| vol.iget(e.ino).unwrap());
    let mut moved = at(vol, src);
    vol.rename(Rename {
        src_dir: &mut from,
        dst_dir: to.as_mut(),
        src_name,
        dst_name,
        moved: &mut moved,
        replaced: replaced.as_mut(),
        exchange,
        now: time(9),
    })
    .unwrap();
}

/// Names until the next one makes the leaf split: each takes 280 bytes, and 14 fit.
fn full_leaf(vol: &V) {
    make(vol, &[b"d"], DIR);
    for i in 0..14u8 {
        make(vol, &[b"d", &[b'a' + i; 255]], FIFO);
    }
}

atomic! {
    create_file: |_p| {} |v| {
        v.create(&mut root(v), b"file", &new(FILE, 5)).unwrap();
    }
    create_directory: |_p| {} |v| {
        v.create(&mut root(v), b"dir", &new(DIR, 5)).unwrap();
    }
    create_in_a_full_leaf: |p| { full_leaf(p) } |v| {
        v.create(&mut at(v, &[b"d"]), &[b'z'; 255], &new(FILE, 5)).unwrap();
    }
    create_with_a_new_inode_chunk: |p| {
        let mut dir = make(p, &[b"d"], DIR);
        let mut file = make(p, &[b"first"], FILE);
        while file.ino() % 256 != 255 {
            let name = format!("{}", file.ino());
            file = p.create(&mut dir, name.as_bytes(), &new(FIFO, 1)).unwrap();
        }
    } |v| {
        v.create(&mut root(v), b"last", &new(FILE, 5)).unwrap();
    }
    short_symlink: |_p| {} |v| {
        v.symlink(&mut root(v), b"link", &[b'x'; 128], &new(0o777, 5)).unwrap();
    }
    long_symlink: |_p| {} |v| {
        v.symlink(&mut root(v), b"link", &[b'x'; 4095], &new(0o777, 5)).unwrap();
    }
    temporary_file: |_p| {} |v| {
        v.tmpfile(&new(FILE, 5)).unwrap();
    }
    link: |p| { two_dirs(p) } |v| {
        let mut f = at(v, &[b"a", b"f"]);
        v.link(&mut at(v, &[b"b"]), b"another", &mut f, time(5)).unwrap();
    }
    unlink_one_of_two: |p| {
        two_dirs(p);
        let mut f = at(p, &[b"a", b"f"]);
        p.link(&mut at(p, &[b"b"]), b"another", &mut f, time(5)).unwrap();
    } |v| {
        let mut f = at(v, &[b"a", b"f"]);
        v.unlink(&mut at(v, &[b"b"]), b"another", &mut f, time(5)).unwrap();
    }
    unlink_last: |p| { two_dirs(p) } |v| {
        let mut g = at(v, &[b"b", b"g"]);
        v.unlink(&mut at(v, &[b"b"]), b"g", &mut g, time(5)).unwrap();
    }
    unlink_and_free: |p| { two_dirs(p) } |v| {
        let mut g = at(v, &[b"b", b"g"]);
        v.unlink(&mut at(v, &[b"b"]), b"g", &mut g, time(5)).unwrap();
        v.free_inode(g).unwrap();
    }
    unlink_the_last_name_of_a_leaf: |p| {
        full_leaf(p);
        make(p, &[b"d", &[b'z'; 255]], FIFO);
        // Until a leaf other than the first has one name.
        let mut d = at(p, &[b"d"]);
        assert_eq!(d.size(), 2 * BLOCK);
        let shown = list(p, &d, 100).unwrap();
        for (_, name, ino, _) in shown.into_iter().rev().skip(1) {
            let mut f = p.iget(ino).unwrap();
            p.unlink(&mut d, &name, &mut f, time(5)).unwrap();
            p.free_inode(f).unwrap();
        }
        assert_eq!(d.size(), 2 * BLOCK);
    } |v| {
        let mut d = at(v, &[b"d"]);
        let (_, name, ino, _) = list(v, &d, 9).unwrap().remove(0);
        v.unlink(&mut d, &name, &mut v.iget(ino).unwrap(), time(5)).unwrap();
        assert_eq!(d.size(), BLOCK);
    }
    remove_directory: |p| { two_dirs(p) } |v| {
        let mut d = at(v, &[b"a", b"d"]);
        v.rmdir(&mut at(v, &[b"a"]), b"d", &mut d, time(5)).unwrap();
    }
    rename_in_place: |p| { two_dirs(p) } |v| {
        rename(v, &[b"a", b"f"], &[b"a", b"new name"], false);
    }
    rename_over_a_file: |p| { two_dirs(p) } |v| {
        rename(v, &[b"a", b"f"], &[b"b", b"g"], false);
    }
    rename_directory: |p| { two_dirs(p) } |v| {
        rename(v, &[b"a", b"d"], &[b"b", b"e"], false);
    }
    rename_over_a_directory: |p| {
        two_dirs(p);
        make(p, &[b"b", b"e"], DIR);
    } |v| {
        rename(v, &[b"a", b"d"], &[b"b", b"e"], false);
    }
    rename_into_a_full_leaf: |p| { full_leaf(p); make(p, &[b"f"], FILE); } |v| {
        rename(v, &[b"f"], &[b"d", &[b'z'; 255]], false);
    }
    exchange_directory_and_file: |p| { two_dirs(p) } |v| {
        rename(v, &[b"a", b"d"], &[b"b", b"g"], true);
    }
    exchange_in_place: |p| { two_dirs(p) } |v| {
        rename(v, &[b"a", b"d"], &[b"a", b"f"], true);
    }
    change_attributes: |p| { two_dirs(p) } |v| {
        let set = SetAttr {
            mode: Some(0o600),
            uid: Some(7),
            atime: Some(time(8)),
            ctime: Some(time(8)),
            ..SetAttr::default()
        };
        v.set_attr(&mut at(v, &[b"a", b"f"]), &set).unwrap();
    }
    fill_between_extents: |p| { sparse(p, b"file", 3); } |v| {
        v.fill(&mut at(v, &[b"file"]), 1, 9, Some(time(5))).unwrap();
    }
    fill_with_a_full_root: |p| { sparse(p, b"file", 8); } |v| {
        v.fill(&mut at(v, &[b"file"]), 100, 5, Some(time(5))).unwrap();
    }
    extend_over_old_bytes: |p| {
        let mut file = make(p, &[b"file"], FILE);
        write(p, &mut file, 0, &[1; 3000], time(1)).unwrap();
        p.truncate(&mut file, 10, time(1)).unwrap();
    } |v| {
        let mut file = at(v, &[b"file"]);
        v.truncate(&mut file, 9000, time(5)).unwrap();
    }
    append: |p| { sparse(p, b"file", 1); } |v| {
        let mut file = at(v, &[b"file"]);
        let reserved = v.reserve(v.want(&file, 1, 3).unwrap()).unwrap();
        let run = reserved.run();
        v.pmem().store_nt(run.block * BLOCK, &vec![5; (run.len * BLOCK) as usize]).unwrap();
        v.insert(&mut file, 1, reserved, Some(BLOCK * 3 + 5), time(5)).unwrap();
    }
    append_in_the_last_block: |p| {
        let mut file = make(p, &[b"file"], FILE);
        write(p, &mut file, 0, b"start", time(1)).unwrap();
    } |v| {
        write(v, &mut at(v, &[b"file"]), 5, &[7; 300], time(5)).unwrap();
    }
    truncate_in_one: |p| { sparse(p, b"file", 6); } |v| {
        v.truncate(&mut at(v, &[b"file"]), 3 * BLOCK + 9, time(5)).unwrap();
    }
    punch_inside_an_extent: |p| {
        let mut file = make(p, &[b"file"], FILE);
        write(p, &mut file, 0, &[3; 10 * BLOCK as usize], time(1)).unwrap();
    } |v| {
        v.punch(&mut at(v, &[b"file"]), 4, 2, time(5)).unwrap();
    }
    punch_several: |p| { sparse(p, b"file", 7); } |v| {
        v.punch(&mut at(v, &[b"file"]), 1, 9, time(5)).unwrap();
    }
}

/// Enough extents for several leaves of the tree.
const MANY: u64 = 300;

#[test]
fn truncate_in_several() {
    let op = |v: &V| {
        let mut file = at(v, &[b"file"]);
        v.truncate(&mut file, 3 * BLOCK, time(5)).unwrap();
    };
    cut_everywhere(|p| drop(sparse(p, b"file", MANY)), op, nothing_between);
}

#[test]
fn unlink_and_free_in_several() {
    let op = |v: &V| {
        let mut file = at(v, &[b"file"]);
        v.unlink(&mut root(v), b"file", &mut file, time(5)).unwrap();
        v.free_inode(file).unwrap();
    };
    cut_everywhere(|p| drop(sparse(p, b"file", MANY)), op, nothing_between);
}

#[test]
fn punch_in_several() {
    let op = |v: &V| {
        let mut file = at(v, &[b"file"]);
        v.punch(&mut file, 1, 2 * MANY - 3, time(5)).unwrap();
    };
    // A hole grows from the end; nothing else changes.
    let between = |before: &Tree, found: &Tree, after: &Tree| {
        let content = |tree: &Tree| {
            let file = tree.values().find(|s| matches!(s.body, Body::File(_)));
            match &file.unwrap().body {
                Body::File(bytes) => bytes.clone(),
                _ => unreachable!(),
            }
        };
        let (old, now, new) = (content(before), content(found), content(after));
        let done = now
            .iter()
            .zip(&old)
            .rposition(|(a, b)| a == b && *a != 0 && *b != 0);
        let last = 2 * BLOCK as usize * (MANY as usize - 1);
        let kept = now[..last]
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |i| i + 1);
        done.is_some() && now[..kept] == old[..kept] && now[kept..] == new[kept..]
    };
    cut_everywhere(|p| drop(sparse(p, b"file", MANY)), op, between);
}
