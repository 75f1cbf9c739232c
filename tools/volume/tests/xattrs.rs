// SPDX-License-Identifier: GPL-2.0

//! Extended attributes against a map: what is known of them in memory is what the media has, after
//! every operation, also one that failed for want of memory or space.

mod common;

use std::collections::BTreeMap;

use common::*;
use rdax_volume::env::fail_allocations_after;
use rdax_volume::volume::error::{Error, Result};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::SetAttr;
use rdax_volume::volume::xattr::Must;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn name(n: u64) -> Vec<u8> {
    // Some that only their length, some that only one byte tells apart.
    let mut name = format!("user.{}", "n".repeat(1 + n as usize % 7)).into_bytes();
    let i = name.len() - 1 - n as usize % 3 % (name.len() - 5);
    name[i] = b'a' + (n / 7) as u8;
    name
}

fn all(vol: &Vol, inode: &mut Inode) -> Result<Model> {
    let mut names = Vec::new();
    vol.list_xattrs(inode, &mut |name| names.push(name.to_vec()))?;
    let mut all = Model::new();
    for name in names {
        let mut value = vec![0; vol.get_xattr(inode, &name, |_| None)?];
        assert_eq!(
            vol.get_xattr(inode, &name, |_| Some(&mut value))?,
            value.len()
        );
        assert_eq!(all.insert(name, value), None);
    }
    Ok(all)
}

/// One operation on some name, done to `model` as well if it succeeds.
fn change(vol: &Vol, file: &mut Inode, model: &mut Model, random: &mut Random) -> Result<()> {
    let name = name(random.below(140));
    let len = match random.below(8) {
        0 => 0,
        1..=4 => random.below(60),
        5 | 6 => random.below(600),
        _ => random.below(20_000),
    };
    let value = vec![random.below(256) as u8; len as usize];
    let (value, must) = match random.below(8) {
        0 => (None, Must::Exist),
        1 => (Some(&value[..]), Must::BeNew),
        2 => (Some(&value[..]), Must::Exist),
        _ => (Some(&value[..]), Must::Whatever),
    };
    let there = model.contains_key(&name);
    let set = SetAttr::default();
    let result = vol.set_xattr(file, &name, value, must, &set);
    match (must, there) {
        (Must::BeNew, true) => assert!(matches!(result, Err(Error::Exists | Error::NoMemory))),
        (Must::Exist, false) => assert!(matches!(result, Err(Error::NoXattr | Error::NoMemory))),
        _ => {}
    }
    result?;
    match value {
        Some(value) => model.insert(name, value.to_vec()),
        None => model.remove(&name),
    };
    Ok(())
}

fn known_is_true(seed: u64) {
    let (vol, ram) = fresh(16 << 20);
    let mut dir = root(&vol);
    let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
    let mut model = Model::new();
    let mut random = Random(seed);
    let (mut done, mut no_memory, mut no_space) = (0, 0, 0);
    for _ in 0..800 {
        if random.below(8) == 0 {
            drop(file.take_knowledge());
        }
        if random.below(3) == 0 {
            fail_allocations_after(Some(random.below(8) as u32));
        }
        let result = change(&vol, &mut file, &mut model, &mut random);
        fail_allocations_after(None);
        match result {
            Ok(()) => done += 1,
            Err(Error::NoMemory) => no_memory += 1,
            Err(Error::NoSpace) => no_space += 1,
            Err(Error::Exists | Error::NoXattr) => {}
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(all(&vol, &mut file).unwrap(), model);
        let mut anew = vol.iget(file.ino()).unwrap();
        assert_eq!(anew.blocks(), file.blocks());
        assert_eq!(all(&vol, &mut anew).unwrap(), model);
    }
    assert!(
        done > 200 && no_memory > 20 && no_space > 0,
        "{done} {no_memory} {no_space}"
    );
    drop(vol);
    assert_clean(&ram);
}

#[test]
fn known_is_true_a() {
    known_is_true(1);
}

#[test]
fn known_is_true_b() {
    known_is_true(2);
}

#[test]
fn a_value_that_is_replaced_stays_in_its_place() {
    let (vol, _ram) = fresh(16 << 20);
    let mut dir = root(&vol);
    let mut file = vol.create(&mut dir, b"file", &new(FILE, 1)).unwrap();
    let set = SetAttr::default();
    let put = |file: &mut Inode, n: u8, value: &[u8]| {
        let name = [b'u', b's', b'e', b'r', b'.', b'a' + n];
        vol.set_xattr(file, &name, Some(value), Must::Whatever, &set)
    };
    for n in 0..26 {
        put(&mut file, n, &[n; 40]).unwrap();
    }
    let mut order = Vec::new();
    vol.list_xattrs(&mut file, &mut |name| order.push(name.to_vec()))
        .unwrap();
    put(&mut file, 7, &[200; 40]).unwrap();
    let mut after = Vec::new();
    vol.list_xattrs(&mut file, &mut |name| after.push(name.to_vec()))
        .unwrap();
    assert_eq!(order, after);
    let mut value = [0; 40];
    vol.get_xattr(&mut file, b"user.h", |_| Some(&mut value))
        .unwrap();
    assert_eq!(value, [200; 40]);
}
