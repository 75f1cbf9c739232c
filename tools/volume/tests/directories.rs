// SPDX-License-Identifier: GPL-2.0

//! Directories against a sorted map: names added, removed and renamed while they are listed; large
//! directories; names whose hashes are equal.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use proptest::prelude::*;
use rdax_volume::env::fail_allocations_after;
use rdax_volume::files::readdir;
use rdax_volume::volume::dir::hash;
use rdax_volume::volume::error::Error;
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::Rename;

/// A directory of links to one file, so that names cost no inodes.
struct Mirror {
    vol: Vol,
    dir: Inode,
    file: Inode,
    names: BTreeSet<Vec<u8>>,
    clock: i64,
}

impl Mirror {
    fn new(bytes: u64) -> (Mirror, Shared<rdax_volume::ram::Ram>) {
        let (vol, ram) = fresh(bytes);
        let mut top = root(&vol);
        let dir = vol.create(&mut top, b"dir", &new(DIR, 1)).unwrap();
        let file = vol.create(&mut top, b"file", &new(FILE, 1)).unwrap();
        let m = Mirror {
            vol,
            dir,
            file,
            names: BTreeSet::new(),
            clock: 1,
        };
        (m, ram)
    }

    fn add(&mut self, name: &[u8]) {
        self.clock += 1;
        let now = time(self.clock);
        let done = self.vol.link(&mut self.dir, name, &mut self.file, now);
        if self.names.insert(name.to_vec()) {
            done.unwrap();
            assert_eq!((self.dir.mtime(), self.file.ctime()), (now, now));
        } else {
            assert_eq!(done, Err(Error::Exists));
        }
    }

    fn remove(&mut self, name: &[u8]) {
        self.clock += 1;
        let now = time(self.clock);
        let done = self.vol.unlink(&mut self.dir, name, &mut self.file, now);
        if self.names.remove(name) {
            done.unwrap();
            assert_eq!((self.dir.ctime(), self.file.ctime()), (now, now));
        } else {
            assert_eq!(done, Err(Error::NotFound));
        }
    }

    /// Gives the file another name in the same directory, one that is free.
    fn rename(&mut self, old: &[u8], new: &[u8]) {
        self.clock += 1;
        let done = self.vol.rename(Rename {
            src_dir: &mut self.dir,
            dst_dir: None,
            src_name: old,
            dst_name: new,
            moved: &mut self.file,
            replaced: None,
            exchange: false,
            now: time(self.clock),
        });
        if self.names.contains(new) {
            assert_eq!(done, Err(Error::Exists));
        } else if self.names.remove(old) {
            done.unwrap();
            self.names.insert(new.to_vec());
        } else {
            assert_eq!(done, Err(Error::NotFound));
        }
    }

    fn check(&mut self, batch: usize) {
        let shown = list(&self.vol, &mut self.dir, batch).unwrap();
        assert!(shown.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(shown.first().is_none_or(|e| e.0 >= 2));
        assert!(shown.iter().all(|e| e.2 == self.file.ino() && e.3 == 8));
        let names: BTreeSet<Vec<u8>> = shown.into_iter().map(|e| e.1).collect();
        assert_eq!(names, self.names);
        assert_eq!(self.dir.size() % 4096, 0);
        if self.names.is_empty() {
            assert_eq!(self.dir.size(), 4096);
        }
    }

    fn finish(mut self, ram: &Shared<rdax_volume::ram::Ram>) {
        for name in &self.names {
            let found = self.vol.lookup(&mut self.dir, name).unwrap().unwrap();
            assert_eq!(found.ino, self.file.ino());
        }
        assert_eq!(self.vol.lookup(&mut self.dir, b"not there"), Ok(None));
        self.check(7);
        assert_clean(&**ram);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Add(Vec<u8>),
    Remove(usize),
    Rename(usize, Vec<u8>),
    List(usize),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => "[a-z]{1,12}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(1u8..=255, 1..=255).prop_map(|v| {
            let plain: Vec<u8> = v.into_iter().map(|b| if b == b'/' { b'_' } else { b }).collect();
            if plain == b"." || plain == b".." { b"dots".to_vec() } else { plain }
        }),
        1 => (1..60u32).prop_map(|i| format!("{i}").repeat(200).into_bytes()[..200].to_vec()),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => name().prop_map(Op::Add),
        5 => any::<usize>().prop_map(Op::Remove),
        4 => (any::<usize>(), name()).prop_map(|(i, n)| Op::Rename(i, n)),
        1 => (1..9usize).prop_map(Op::List),
    ]
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn names_come_and_go(ops in proptest::collection::vec(op(), 1..600)) {
        let (mut m, ram) = Mirror::new(16 << 20);
        for op in ops {
            let pick = |i: usize| {
                let n = m.names.len();
                m.names.iter().nth(i % n.max(1)).cloned().unwrap_or(b"none".to_vec())
            };
            match op {
                Op::Add(n) => m.add(&n),
                Op::Remove(i) => { let n = pick(i); m.remove(&n) }
                Op::Rename(i, to) => { let n = pick(i); m.rename(&n, &to) }
                Op::List(batch) => m.check(batch),
            }
        }
        m.finish(&ram);
    }
}

#[test]
fn it_becomes_empty_again() {
    let (mut m, ram) = Mirror::new(16 << 20);
    let free = m.vol.free_blocks();
    let mut random = Random(5);
    for round in 0..4 {
        for i in 0..2_000u64 {
            m.add(format!("{round}-{}", i * i).as_bytes());
        }
        m.check(1000);
        assert!(m.dir.size() > 10 * 4096);
        while !m.names.is_empty() {
            let i = random.below(m.names.len().min(50) as u64) as usize;
            let name = m.names.iter().nth(i).cloned().unwrap();
            m.remove(&name);
        }
        m.check(3);
        // Every leaf is gone but the first, and every node but those above it.
        let kept = u64::from(m.dir.raw().depth);
        assert_eq!(m.vol.free_blocks(), free - kept);
    }
    m.finish(&ram);
}

#[test]
fn listing_while_names_change() {
    let (mut m, ram) = Mirror::new(16 << 20);
    let stay: Vec<Vec<u8>> = (0..1_500)
        .map(|i| format!("stay{i}").into_bytes())
        .collect();
    for name in &stay {
        m.add(name);
    }
    let mut seen: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut cookie = 1;
    let mut step = 0;
    loop {
        let mut part = Vec::new();
        readdir(&m.vol, &mut m.dir, cookie, &mut |e| {
            part.push((e.cookie, e.name.to_vec()));
            part.len() < 5
        })
        .unwrap();
        let Some(last) = part.last() else { break };
        cookie = last.0;
        for (_, name) in part {
            *seen.entry(name).or_default() += 1;
        }
        // Splits and removes leaves before and after the reader.
        for i in 0..12 {
            m.add(format!("come{}", step * 12 + i).as_bytes());
        }
        if step % 2 == 1 {
            for i in 0..20 {
                let name = format!("come{}", step / 2 * 20 + i).into_bytes();
                m.remove(&name);
            }
        }
        step += 1;
    }
    for name in &stay {
        assert_eq!(
            seen.get(name),
            Some(&1),
            "{}",
            String::from_utf8_lossy(name)
        );
    }
    assert!(seen.values().all(|&n| n == 1));
    m.finish(&ram);
}

#[test]
fn bad_names_are_refused() {
    let (mut m, ram) = Mirror::new(8 << 20);
    let long = [b'x'; 256];
    let now = time(1);
    for (name, error) in [
        (&b""[..], Error::Invalid),
        (b".", Error::Invalid),
        (b"..", Error::Invalid),
        (b"a/b", Error::Invalid),
        (b"a\0b", Error::Invalid),
        (&long, Error::NameTooLong),
    ] {
        assert_eq!(m.vol.link(&mut m.dir, name, &mut m.file, now), Err(error));
        assert_eq!(m.vol.lookup(&mut m.dir, name), Err(error));
    }
    m.add(&long[..255]);
    m.add(b"...");
    m.finish(&ram);
}

/// Two names with the same hash under [`HASH_KEY`], found by a search over 2^28 of them.
const TWINS: [&[u8]; 2] = [b"hqtdrbaa", b"obcjsgaa"];

#[test]
fn names_with_one_hash() {
    assert_eq!(hash(&HASH_KEY, TWINS[0]), hash(&HASH_KEY, TWINS[1]));
    let (mut m, ram) = Mirror::new(16 << 20);
    for i in 0..300 {
        m.add(format!("other{i}").as_bytes());
    }
    for _ in 0..3 {
        for name in TWINS {
            m.add(name);
        }
        let cookies: Vec<u64> = list(&m.vol, &mut m.dir, 1)
            .unwrap()
            .into_iter()
            .filter(|e| TWINS.contains(&&e.1[..]))
            .map(|e| e.0)
            .collect();
        assert_eq!(cookies.len(), 2);
        assert_eq!(cookies[0] >> 11, cookies[1] >> 11);
        m.remove(TWINS[0]);
        assert!(m.vol.lookup(&mut m.dir, TWINS[1]).unwrap().is_some());
        m.remove(TWINS[1]);
    }
    m.add(TWINS[1]);
    m.rename(TWINS[1], TWINS[0]);
    m.finish(&ram);
}

fn many(count: u64, bytes: u64) {
    let (mut m, ram) = Mirror::new(bytes);
    let start = std::time::Instant::now();
    let name = |i: u64| format!("file-{i:08}");
    for i in 0..count {
        m.clock += 1;
        let now = time(m.clock);
        m.vol
            .link(&mut m.dir, name(i).as_bytes(), &mut m.file, now)
            .unwrap();
    }
    println!("{count} added in {:?}", start.elapsed());
    let start = std::time::Instant::now();
    for i in (0..count).step_by(7) {
        assert!(m
            .vol
            .lookup(&mut m.dir, name(i).as_bytes())
            .unwrap()
            .is_some());
    }
    println!("a seventh looked up in {:?}", start.elapsed());
    let start = std::time::Instant::now();
    let shown = list(&m.vol, &mut m.dir, 1000).unwrap();
    assert_eq!(shown.len() as u64, count);
    let names: BTreeSet<&[u8]> = shown.iter().map(|e| &e.1[..]).collect();
    assert_eq!(names.len() as u64, count);
    println!("listed in {:?}", start.elapsed());
    println!(
        "leaves {}, depth {}, {} bytes a name",
        m.dir.size() / 4096,
        m.dir.raw().depth,
        m.dir.size() / count
    );
    assert_clean(&*ram);
    let start = std::time::Instant::now();
    for (_, name, _, _) in &shown {
        m.vol
            .unlink(&mut m.dir, name, &mut m.file, time(m.clock))
            .unwrap();
    }
    println!("removed in {:?}", start.elapsed());
    assert_eq!(m.dir.size(), 4096);
    assert_clean(&*ram);
}

#[test]
fn a_hundred_thousand_names() {
    many(100_000, 64 << 20);
}

#[test]
#[ignore = "takes a minute"]
fn a_million_names() {
    many(1_000_000, 256 << 20);
}

#[test]
fn what_is_known_of_leaves_survives_failures() {
    let (mut m, ram) = Mirror::new(16 << 20);
    let mut failed = 0;
    for i in 0..2000u32 {
        // Every third name comes back and goes again.
        let name = format!("name {}", if i % 3 == 0 { i / 7 } else { i }).into_bytes();
        m.clock += 1;
        let now = time(m.clock);
        fail_allocations_after(Some(i % 11));
        let there = m.names.contains(&name);
        let done = if there {
            m.vol.unlink(&mut m.dir, &name, &mut m.file, now)
        } else {
            m.vol.link(&mut m.dir, &name, &mut m.file, now)
        };
        fail_allocations_after(None);
        match done {
            Ok(()) if there => assert!(m.names.remove(&name)),
            Ok(()) => assert!(m.names.insert(name)),
            Err(Error::NoMemory) => failed += 1,
            Err(e) => panic!("{e}"),
        }
    }
    assert!(failed > 20, "{failed}");
    m.finish(&ram);
}
