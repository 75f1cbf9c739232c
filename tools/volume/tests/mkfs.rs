// SPDX-License-Identifier: GPL-2.0

//! Making a volume, mounting it, and refusing to.

mod media;

use std::sync::Arc;

use media::{bytes, format, free_blocks, made, mount, used_inodes, NOW, SMALL};
use rdax_volume::sim::{Bounds, Sim};
use rdax_volume::volume::check;
use rdax_volume::volume::error::{Error, Structure};
use rdax_volume::volume::format::{BLOCK, CHUNK_BLOCKS, ROOT_INO, VERSION};
use rdax_volume::volume::mkfs::{self, Options};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::MountOptions;
use rdax_volume::volume::Volume;

const OPTIONS: Options<'static> = Options {
    uuid: [1; 16],
    label: "label",
    hash_key: [2; 16],
    now: NOW,
    bytes: None,
};

fn refused(sim: &Arc<Sim>, read_only: bool) -> Error {
    let before = bytes(sim, 0, sim.len());
    let options = MountOptions {
        read_only,
        ..MountOptions::default()
    };
    let error = Volume::mount(sim.clone(), options).err().expect("refused");
    assert_eq!(
        before,
        bytes(sim, 0, sim.len()),
        "a refused device was written"
    );
    error
}

/// Stores `new` over byte `at` of the superblocks and, if asked, corrects their checksums.
fn change(sim: &Sim, at: usize, new: &[u8], seal: bool) {
    for start in [0, sim.len() - BLOCK] {
        let mut sb = bytes(&sim, start, 512);
        sb[at..at + new.len()].copy_from_slice(new);
        if seal {
            sb[8..12].fill(0);
            let crc = rdax_volume::env::crc32c(0, &sb);
            sb[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        sim.store(start, &sb).unwrap();
    }
}

#[test]
fn a_new_volume_mounts_and_is_sound() {
    for size in [SMALL, SMALL + 5 * BLOCK + 123, 64 << 20, 1 << 30] {
        let sim = made(size);
        let mut problems = Vec::new();
        check::check(&*sim, &mut |p| problems.push(format!("{p}"))).unwrap();
        assert!(problems.is_empty(), "{size}: {problems:?}");
        let vol = mount(sim);
        let root = vol.iget(ROOT_INO).unwrap();
        assert_eq!(
            (root.mode(), root.nlink(), root.size()),
            (0o40755, 2, BLOCK)
        );
        assert_eq!(
            (root.parent(), root.mtime(), root.btime()),
            (ROOT_INO, NOW, NOW)
        );
        assert_eq!(used_inodes(&vol).len(), 1);
        let stat = vol.statfs();
        assert_eq!(stat.free, free_blocks(&vol));
        // All but the table, the orphan file and the leaf of the root.
        assert_eq!(stat.blocks - stat.free, 16 + 16 + 1);
        assert_eq!(stat.inodes_used, 1);
        assert_eq!(vol.notes().copy_served, None);
        assert_eq!(vol.notes().replayed, 0);
    }
}

#[test]
fn a_clean_mount_writes_nothing() {
    let sim = made(SMALL);
    sim.reset_stats();
    mount(sim.clone());
    let stats = sim.stats();
    assert_eq!(
        (stats.lines_stored, stats.lines_nt, stats.fences),
        (0, 0, 0)
    );
}

#[test]
fn whole_chunks_stay_whole() {
    let vol = mount(made(64 << 20));
    let used = media::used_blocks(&vol);
    for (i, chunk) in used.chunks(CHUNK_BLOCKS as usize).enumerate() {
        let whole = chunk.iter().all(|used| !used);
        assert_eq!(whole, i != 0 && i != 31, "chunk {i}");
    }
}

#[test]
fn too_small_too_large_and_bad_labels() {
    let small = Sim::new(SMALL - BLOCK);
    let too_small = Error::TooSmall {
        need: SMALL,
        have: SMALL - BLOCK,
    };
    assert_eq!(mkfs::format(&small, &OPTIONS), Err(too_small));
    assert_eq!(refused(&Arc::new(small), false), too_small);

    let sim = Sim::new(SMALL);
    let sized = |bytes| Options {
        bytes: Some(bytes),
        ..OPTIONS
    };
    assert_eq!(
        mkfs::format(&sim, &sized(SMALL - 1)),
        Err(Error::TooSmall {
            need: SMALL,
            have: SMALL - 1
        })
    );
    assert_eq!(
        mkfs::format(&sim, &sized(SMALL + 1)),
        Err(Error::TooSmall {
            need: SMALL + 1,
            have: SMALL
        })
    );
    let huge = Sim::new((1 << 52) + BLOCK);
    assert_eq!(mkfs::format(&huge, &OPTIONS), Err(Error::TooBig));
    for label in ["a\0b", "123456789012345678901234567890123"] {
        let options = Options { label, ..OPTIONS };
        assert_eq!(mkfs::format(&sim, &options), Err(Error::Invalid));
    }
    // None of these has touched the device.
    assert_eq!(refused(&Arc::new(sim), false), Error::NotRdax);
}

#[test]
fn a_volume_smaller_than_its_device() {
    let sim = Arc::new(Sim::new(SMALL * 2));
    let options = Options {
        bytes: Some(SMALL),
        ..OPTIONS
    };
    mkfs::format(&sim, &options).unwrap();
    assert_eq!(
        mount(sim).statfs().blocks + 2,
        SMALL / BLOCK - mount(made(SMALL)).geometry().data_block
    );
}

#[test]
fn the_copy_serves() {
    let sim = made(SMALL);
    sim.store(0, &[0; 4096]).unwrap();
    assert_eq!(mount(sim.clone()).notes().copy_served, Some(Error::NotRdax));
    let sim = made(SMALL);
    sim.store(100, &[1]).unwrap();
    let corrupt = Error::Corrupt {
        what: Structure::SuperBlock,
        at: 0,
    };
    assert_eq!(mount(sim.clone()).notes().copy_served, Some(corrupt));
    // Also after a change of the label, which repairs the first.
    mount(sim.clone()).set_label("new").unwrap();
    assert_eq!(mount(sim).notes().copy_served, None);
    let sim = made(SMALL);
    sim.poison(0, 1);
    assert_eq!(mount(sim).notes().copy_served, Some(Error::Media { at: 0 }));
}

#[test]
fn the_copy_does_not_serve_another_file_system() {
    let sim = made(SMALL);
    sim.store(0, &[0; 4096]).unwrap();
    // As ext4 does: its superblock is at byte 1024, its magic 56 bytes further.
    sim.store(1024 + 56, &[0x53, 0xef]).unwrap();
    assert_eq!(refused(&sim, false), Error::NotRdax);
}

#[test]
fn bad_superblocks_are_refused() {
    assert_eq!(refused(&Arc::new(Sim::new(SMALL)), false), Error::NotRdax);
    let sim = made(SMALL);
    change(&sim, 100, &[99], false);
    assert_eq!(
        refused(&sim, false),
        Error::Corrupt {
            what: Structure::SuperBlock,
            at: 0
        }
    );
    // A newer version, and features.
    let sim = made(SMALL);
    change(&sim, 12, &(VERSION + 1).to_le_bytes(), true);
    let found = VERSION + 1;
    assert_eq!(refused(&sim, true), Error::Version { found });
    let sim = made(SMALL);
    change(&sim, 32, &[4], true);
    assert_eq!(
        refused(&sim, true),
        Error::Unsupported { bits: 4, ro: false }
    );
    let sim = made(SMALL);
    change(&sim, 24, &[4], true);
    assert_eq!(
        refused(&sim, false),
        Error::Unsupported { bits: 4, ro: true }
    );
    let options = MountOptions {
        read_only: true,
        ..MountOptions::default()
    };
    Volume::mount(sim, options).unwrap();
    let sim = made(SMALL);
    change(&sim, 16, &[4], true);
    mount(sim);
    // A device that was cut, with its copy.
    let sim = made(SMALL * 2);
    let cut = Arc::new(Sim::from_image(SMALL, sim.content()));
    assert_eq!(
        refused(&cut, false),
        Error::TooSmall {
            need: SMALL * 2,
            have: SMALL
        }
    );
}

#[test]
fn no_geometry_that_could_do_harm_is_believed() {
    // The fields from `blocks` to `root_ino`, each set to numbers that do not fit.
    for field in (88..176).step_by(4) {
        for value in [0, 1, 0xffff, u32::MAX] {
            let sim = made(SMALL);
            let old = bytes(&sim, field, 4);
            change(&sim, field as usize, &value.to_le_bytes(), true);
            // Fewer lanes, and other counts, could be true.
            let possible = (field == 112 && value == 1) || (field >= 152 && value < 2);
            if old != value.to_le_bytes() && !possible {
                refused(&sim, false);
            }
        }
    }
}

#[test]
fn interrupted_formatting_leaves_no_volume() {
    let sim = made(SMALL);
    let other = Options {
        label: "other",
        ..OPTIONS
    };
    sim.record();
    mkfs::format(&sim, &other).unwrap();
    let trace = sim.take_trace();
    let bounds = Bounds {
        per_fence: 200,
        seed: 1,
    };
    let (mut old, mut none, mut new) = (0, 0, 0);
    let count = trace.for_each_crash(bounds, |crash| {
        match Volume::mount(&crash.sim, MountOptions::default()) {
            Ok(vol) => match &vol.label()[..5] {
                b"other" => {
                    // One superblock may be missing, but nothing else.
                    if vol.notes().copy_served.is_some() {
                        vol.set_label("other").unwrap();
                    }
                    let mut problems = Vec::new();
                    check::check(&crash.sim, &mut |p| problems.push(p.to_string())).unwrap();
                    problems.retain(|p| !p.contains("superblock"));
                    assert!(problems.is_empty(), "{problems:?}: {crash}");
                    new += 1;
                }
                _ => {
                    assert_eq!(crash.fences, 0, "{crash}");
                    old += 1;
                }
            },
            Err(
                Error::NotRdax
                | Error::Corrupt {
                    what: Structure::SuperBlock,
                    ..
                },
            ) => none += 1,
            Err(e) => panic!("{e}: {crash}"),
        }
    });
    assert_eq!(count, old + none + new);
    assert!(old > 0 && none > 0 && new > 0, "{old} {none} {new}");
}

#[test]
fn the_label_changes_atomically() {
    let sim = made(SMALL);
    let vol = mount(sim.clone());
    sim.record();
    vol.set_label("another one").unwrap();
    assert_eq!(&vol.label()[..12], b"another one\0");
    assert_eq!(vol.set_label(&"x".repeat(33)), Err(Error::Invalid));
    let trace = sim.take_trace();
    trace.for_each_crash(
        Bounds {
            per_fence: 500,
            seed: 3,
        },
        |crash| {
            let vol = mount(&crash.sim);
            assert_eq!(vol.notes().copy_served, None, "{crash}");
            let label = vol.label();
            assert!(
                &label[..5] == b"test\0" || &label[..12] == b"another one\0",
                "{crash}"
            );
        },
    );
    // The copy has it too.
    for damaged in [false, true] {
        if damaged {
            sim.store(0, &[0; 64]).unwrap();
        }
        let label = mount(sim.clone()).label();
        assert_eq!(&label[..12], b"another one\0");
    }
}

#[test]
fn formatting_again_forgets_everything() {
    let sim = made(SMALL);
    {
        let vol = mount(sim.clone());
        let slot = vol.reserve_inode().unwrap();
        let raw = vol.iget(ROOT_INO).unwrap().raw().clone();
        let mut tx = vol.begin().unwrap();
        tx.create_inode(slot, raw).unwrap();
        tx.commit().unwrap();
    }
    format(&sim);
    let vol = mount(sim);
    assert_eq!(used_inodes(&vol).len(), 1);
    assert_eq!(vol.statfs().inodes_used, 1);
    free_blocks(&vol);
}
