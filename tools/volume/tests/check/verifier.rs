// SPDX-License-Identifier: GPL-2.0

//! The verifier of inode records and the checker agree: with one field of a record damaged, and its
//! checksum right, what is refused when the inode is read is reported, and what is reported of the
//! record alone is refused.

use std::mem::offset_of;

use rdax_volume::volume::check::{Kind, Problem};
use rdax_volume::volume::error::{Error, Structure};
use rdax_volume::volume::format::{Extent, RawInode, BLOCK, MAX_FILE, ROOT_EXTENTS};
use rdax_volume::volume::inode::Inode;
use zerocopy::{FromBytes, IntoBytes};

use crate::bed::{lines, mount, Bed};

/// A field of the record, or half of an entry of its root: its offset and bytes.
type Field = (String, usize, usize);

macro_rules! fields {
    ($($field:ident: $bytes:expr),* $(,)?) => {
        vec![$((stringify!($field).to_string(), offset_of!(RawInode, $field), $bytes)),*]
    };
}

fn fields() -> Vec<Field> {
    let mut fields = fields![
        mode: 2, root_count: 2, size: 8, blocks: 8, mtime_sec: 8, ctime_sec: 8, mtime_nsec: 4,
        ctime_nsec: 4, nlink: 4, attrs: 4, generation: 4, depth: 1, ino: 8, parent: 8, atime_sec: 8,
        btime_sec: 8, atime_nsec: 4, btime_nsec: 4, uid: 4, gid: 4, rdev: 4, orphan: 4,
        xattr_block: 8,
    ];
    for entry in 0..ROOT_EXTENTS {
        let at = offset_of!(RawInode, root) + entry * size_of::<Extent>();
        fields.push((format!("key {entry}"), at, 8));
        fields.push((format!("value {entry}"), at + 8, 8));
    }
    fields
}

/// What to put into a field of `bytes` bytes that holds `old`.
fn values(old: u64, bytes: usize) -> Vec<u64> {
    let max = u64::MAX >> (64 - 8 * bytes);
    let mut values = vec![0, 1, 2, 256, 1_000_000_000, BLOCK, 4096 + 1];
    values.extend([MAX_FILE, MAX_FILE + 1, (1 << 63) - BLOCK, max, max >> 1]);
    values.extend([
        old.wrapping_add(1),
        old.wrapping_sub(1),
        old ^ (max / 2 + 1),
    ]);
    // Each kind of file.
    values.extend(
        (0..16)
            .filter(|_| bytes == 2)
            .map(|kind| (kind << 12) | (old & 0o7777)),
    );
    // Another length, an unwritten extent, another level of a key.
    values.extend(
        [40, 52, 63]
            .into_iter()
            .filter(|bit| *bit < 8 * bytes)
            .map(|bit| old ^ (1 << bit)),
    );
    values.iter_mut().for_each(|value| *value &= max);
    values.retain(|value| *value != old);
    values.sort_unstable();
    values.dedup();
    values
}

/// Whether a problem is one of the record itself, which nothing but the record and the superblock
/// is needed to see.
fn of_the_record(problem: &Problem, at: u64) -> bool {
    problem.what == Structure::Inode
        && problem.at == at
        && matches!(
            problem.kind,
            Kind::Mode(_)
                | Kind::Size(_)
                | Kind::Nanoseconds { .. }
                | Kind::Misplaced { .. }
                | Kind::TreeDepth(_)
                | Kind::TreeCount(_)
                | Kind::ExtentOrder { .. }
                | Kind::ExtentRange { .. }
                | Kind::ExtentFlags { .. }
                | Kind::ExtentLength { .. }
                | Kind::OutsideData { .. }
                | Kind::NoFirstLeaf
                | Kind::Reserved("rdev" | "parent")
        )
}

/// A copy of `raw` with `value` in a field.
fn with(raw: &RawInode, (_, at, bytes): &Field, value: u64) -> RawInode {
    let mut raw = raw.clone();
    raw.as_mut_bytes()[*at..at + bytes].copy_from_slice(&value.to_le_bytes()[..*bytes]);
    raw
}

#[test]
fn a_damaged_field_is_refused_and_reported() {
    let bed = Bed::new();
    let (mut refused, mut harmless) = (0, 0);
    for name in [
        "/", "file", "small", "fifo", "char", "short", "long", "tagged", "dir", "many", "orphan",
    ] {
        let (ino, at, raw) = (bed.ino(name), bed.at(name), bed.raw(name));
        for field in fields() {
            let (what, offset, bytes) = &field;
            let mut old = [0; 8];
            old[..*bytes].copy_from_slice(&raw.as_bytes()[*offset..offset + bytes]);
            for value in values(u64::from_le_bytes(old), *bytes) {
                bed.inode_at(at, |raw_now| *raw_now = with(&raw, &field, value));
                let case = format!("{name}: {what} = {value:#x}");
                let found = bed.problems();
                let read = mount(&bed.ram).iget(ino);
                match read {
                    Ok(_) => {
                        let missed: Vec<_> = found
                            .iter()
                            .filter(|problem| of_the_record(problem, at))
                            .cloned()
                            .collect();
                        assert!(missed.is_empty(), "{case} is believed: {}", lines(&missed));
                        harmless += 1;
                    }
                    Err(error) => {
                        let what = Structure::Inode;
                        assert_eq!(error, Error::Corrupt { what, at }, "{case}");
                        assert!(!found.is_empty(), "{case} is refused, and not reported");
                        refused += 1;
                    }
                }
            }
        }
        bed.inode_at(at, |raw_now| *raw_now = raw);
        bed.expect(&[]);
    }
    println!("{refused} records were refused, {harmless} were not");
    assert!(refused > 1000, "the damage is too mild");
}

#[test]
fn what_was_refused_is_no_inode() {
    let bed = Bed::new();
    bed.inode("long", |raw| {
        raw.size = zerocopy::little_endian::U64::new((1 << 63) - BLOCK)
    });
    let volume = mount(&bed.ram);
    let mut inode = Inode::blank();
    let read = volume.iget_into(bed.ino("long"), &mut inode);
    let (what, at) = (Structure::Inode, bed.at("long"));
    assert_eq!(read, Err(Error::Corrupt { what, at }));
    assert!(inode.is_blank());
}

#[test]
fn every_byte_of_a_record_is_in_a_field() {
    let mut bytes = [0; size_of::<RawInode>()];
    for (_, at, len) in fields() {
        bytes[at..at + len].iter_mut().for_each(|byte| *byte += 1);
    }
    let crc = offset_of!(RawInode, crc);
    bytes[crc..crc + 4].fill(1);
    // Reserved bytes mean nothing.
    let reserved = offset_of!(RawInode, reserved0);
    bytes[reserved..reserved + 3].fill(1);
    assert_eq!(bytes, [1; size_of::<RawInode>()]);
    assert!(RawInode::read_from_bytes(&bytes).is_ok());
}
