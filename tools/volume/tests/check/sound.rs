// SPDX-License-Identifier: GPL-2.0

//! Volumes that nothing is wrong with: new ones, and after operations of all kinds.

use proptest::prelude::*;
use rdax_volume::files::readdir;
use rdax_volume::ram::Ram;
use rdax_volume::volume::format::{Time, BLOCK, MIN_BYTES, ROOT_INO};
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::Rename;
use rdax_volume::volume::{Error, Result, Volume};

use crate::bed::{format, lines, mount, new_inode, problems, Bed, NOW};

#[test]
fn new_volumes() {
    // The smallest, one with a partial last chunk, one with several blocks of bitmaps.
    for bytes in [MIN_BYTES, MIN_BYTES + 7 * BLOCK + 4000, 300 << 20] {
        let ram = Ram::new(bytes);
        format(&ram);
        let (summary, found) = problems(&ram);
        assert_eq!(lines(&found), "", "{bytes}");
        assert_eq!(summary.blocks, bytes / BLOCK);
        assert_eq!(
            (summary.inodes, summary.directories, summary.orphans),
            (1, 1, 0)
        );
        assert_eq!(summary.free_blocks, mount(&ram).statfs().free);
    }
}

#[test]
fn a_volume_with_something_of_everything() {
    let bed = Bed::new();
    let (summary, found) = problems(&bed.ram);
    assert_eq!(lines(&found), "");
    let stat = mount(&bed.ram).statfs();
    assert_eq!(
        (summary.inodes, summary.free_blocks),
        (stat.inodes_used, stat.free)
    );
    assert_eq!((summary.directories, summary.orphans), (4, 1));
    // Finishing the orphans leaves none.
    assert_eq!(mount(&bed.ram).recover_orphans(), Ok(1));
    let (after, found) = problems(&bed.ram);
    assert_eq!(lines(&found), "");
    assert_eq!((after.inodes, after.orphans), (summary.inodes - 1, 0));
}

/// One operation; numbers choose among what is there.
#[derive(Clone, Debug)]
enum Op {
    Create {
        dir: usize,
        name: u8,
        mode: u16,
    },
    Symlink {
        dir: usize,
        name: u8,
        len: usize,
    },
    Link {
        dir: usize,
        name: u8,
        from: u8,
    },
    Remove {
        dir: usize,
        name: u8,
        keep: bool,
    },
    Rename {
        from: (usize, u8),
        to: (usize, u8),
        exchange: bool,
    },
    Tmpfile,
    Fill {
        dir: usize,
        name: u8,
        block: u64,
        len: u64,
    },
    Truncate {
        dir: usize,
        name: u8,
        size: u64,
    },
    Punch {
        dir: usize,
        name: u8,
        block: u64,
        len: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let place = || (0..4_usize, 0..24_u8);
    let mode = prop_oneof![
        4 => Just(0o100644),
        3 => Just(0o040755),
        1 => prop::sample::select(vec![0o010600, 0o020600, 0o060600, 0o140600]),
    ];
    prop_oneof![
        6 => (place(), mode).prop_map(|((dir, name), mode)| Op::Create { dir, name, mode }),
        1 => (place(), 1..4096_usize).prop_map(|((dir, name), len)| Op::Symlink { dir, name, len }),
        2 => (place(), 0..24_u8).prop_map(|((dir, name), from)| Op::Link { dir, name, from }),
        4 => (place(), any::<bool>())
            .prop_map(|((dir, name), keep)| Op::Remove { dir, name, keep }),
        4 => (place(), place(), any::<bool>())
            .prop_map(|(from, to, exchange)| Op::Rename { from, to, exchange }),
        1 => Just(Op::Tmpfile),
        6 => (place(), 0..200_u64, 1..8_u64)
            .prop_map(|((dir, name), block, len)| Op::Fill { dir, name, block, len }),
        2 => (place(), 0..1_000_000_u64)
            .prop_map(|((dir, name), size)| Op::Truncate { dir, name, size }),
        2 => (place(), 0..200_u64, 1..50_u64)
            .prop_map(|((dir, name), block, len)| Op::Punch { dir, name, block, len }),
    ]
}

fn name(n: u8) -> Vec<u8> {
    // Long names, so that few fill a leaf.
    format!("{n}-{}", "n".repeat(usize::from(n) * 10)).into_bytes()
}

/// Directory `n`: the root, or the first directories in it.
fn directory(vol: &Volume<&Ram>, n: usize) -> Result<Inode> {
    let mut root = vol.iget(ROOT_INO)?;
    let mut dirs = vec![ROOT_INO];
    readdir(vol, &mut root, 0, &mut |entry| {
        if entry.file_type == 4 {
            dirs.push(entry.ino);
        }
        true
    })?;
    vol.iget(dirs[n % dirs.len()])
}

fn target(vol: &Volume<&Ram>, dir: &mut Inode, n: u8) -> Result<Inode> {
    let found = vol.lookup(dir, &name(n))?.ok_or(Error::NotFound)?;
    vol.iget(found.ino)
}

/// Whether directory `below` is `dir` or below it.
fn is_below(vol: &Volume<&Ram>, below: u64, dir: u64) -> Result<bool> {
    let mut at = below;
    loop {
        if at == dir {
            return Ok(true);
        }
        let parent = vol.iget(at)?.parent();
        if parent == at {
            return Ok(false);
        }
        at = parent;
    }
}

fn is_dir(inode: &Inode) -> bool {
    inode.mode() >> 12 == 4
}

fn rename(
    vol: &Volume<&Ram>,
    from: (usize, u8),
    to: (usize, u8),
    exchange: bool,
    now: Time,
) -> Result<()> {
    let (mut src, mut dst) = (directory(vol, from.0)?, directory(vol, to.0)?);
    let mut moved = target(vol, &mut src, from.1)?;
    let mut replaced = match target(vol, &mut dst, to.1) {
        Err(Error::NotFound) => None,
        found => Some(found?),
    };
    // What the kernel refuses before it calls a file system.
    let same_inode = replaced.as_ref().is_some_and(|r| r.ino() == moved.ino());
    let loops = is_dir(&moved) && is_below(vol, dst.ino(), moved.ino())?
        || exchange
            && match &replaced {
                Some(r) => is_dir(r) && is_below(vol, src.ino(), r.ino())?,
                None => true,
            };
    let kinds = !exchange
        && replaced
            .as_ref()
            .is_some_and(|r| is_dir(r) != is_dir(&moved));
    let onto_dir = replaced
        .as_ref()
        .is_some_and(|r| r.ino() == src.ino() || r.ino() == dst.ino());
    let moves_dir = moved.ino() == src.ino() || moved.ino() == dst.ino();
    if same_inode || loops || kinds || onto_dir || moves_dir {
        return Err(Error::Invalid);
    }
    let mut dst = (src.ino() != dst.ino()).then_some(dst);
    vol.rename(Rename {
        src_dir: &mut src,
        dst_dir: dst.as_mut(),
        src_name: &name(from.1),
        dst_name: &name(to.1),
        moved: &mut moved,
        replaced: replaced.as_mut(),
        exchange,
        now,
    })?;
    match replaced {
        Some(mut inode) if inode.nlink() == 0 => vol.free_inode(&mut inode),
        _ => Ok(()),
    }
}

fn apply(vol: &Volume<&Ram>, op: &Op) -> Result<()> {
    match *op {
        Op::Create { dir, name: n, mode } => {
            let mut dir = directory(vol, dir)?;
            vol.create(&mut dir, &name(n), &new_inode(mode, 0))
                .map(|_| ())
        }
        Op::Symlink { dir, name: n, len } => {
            let mut dir = directory(vol, dir)?;
            let target = vec![b't'; len];
            vol.symlink(&mut dir, &name(n), &target, &new_inode(0o120777, 0))
                .map(|_| ())
        }
        Op::Link { dir, name: n, from } => {
            let mut root = vol.iget(ROOT_INO)?;
            let mut inode = target(vol, &mut root, from)?;
            if is_dir(&inode) {
                return Err(Error::Invalid);
            }
            vol.link(&mut directory(vol, dir)?, &name(n), &mut inode, NOW)
        }
        Op::Remove { dir, name: n, keep } => {
            let mut dir = directory(vol, dir)?;
            let mut inode = target(vol, &mut dir, n)?;
            if is_dir(&inode) {
                vol.rmdir(&mut dir, &name(n), &mut inode, NOW)?;
            } else {
                vol.unlink(&mut dir, &name(n), &mut inode, NOW)?;
            }
            if inode.nlink() == 0 && !keep {
                vol.free_inode(&mut inode)?;
            }
            Ok(())
        }
        Op::Rename { from, to, exchange } => rename(vol, from, to, exchange, NOW),
        Op::Tmpfile => vol.tmpfile(&new_inode(0o100600, 0)).map(|_| ()),
        Op::Fill {
            dir,
            name: n,
            block,
            len,
        } => {
            let mut inode = target(vol, &mut directory(vol, dir)?, n)?;
            match block % 3 {
                0 => vol.preallocate(&mut inode, block, len, NOW).map(|_| ()),
                1 => vol.unwrite(&mut inode, block, len, NOW).map(drop),
                _ => vol.fill(&mut inode, block, len, Some(NOW)).map(|_| ()),
            }
        }
        Op::Truncate { dir, name: n, size } => {
            let mut inode = target(vol, &mut directory(vol, dir)?, n)?;
            vol.truncate(&mut inode, size, NOW)
        }
        Op::Punch {
            dir,
            name: n,
            block,
            len,
        } => {
            let mut inode = target(vol, &mut directory(vol, dir)?, n)?;
            vol.punch(&mut inode, block, len, NOW)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever is done, the volume is sound after it, in use and mounted again.
    #[test]
    fn after_operations(ops in prop::collection::vec(op(), 1..400)) {
        let ram = Ram::new(MIN_BYTES);
        format(&ram);
        let vol = mount(&ram);
        let mut done = 0;
        for op in &ops {
            match apply(&vol, op) {
                Ok(()) => done += 1,
                Err(
                    Error::NotFound | Error::Exists | Error::NotEmpty | Error::Invalid
                    | Error::NoSpace | Error::TooBig,
                ) => {}
                Err(e) => panic!("{op:?}: {e}"),
            }
        }
        let (summary, found) = problems(&ram);
        prop_assert_eq!(lines(&found), "", "after {} operations", done);
        let stat = vol.statfs();
        prop_assert_eq!((summary.inodes, summary.free_blocks), (stat.inodes_used, stat.free));
        drop(vol);
        let orphans = mount(&ram).recover_orphans();
        prop_assert_eq!(orphans, Ok(summary.orphans));
        let (after, found) = problems(&ram);
        prop_assert_eq!(lines(&found), "");
        prop_assert_eq!(after.orphans, 0);
    }
}
