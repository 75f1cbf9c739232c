// SPDX-License-Identifier: GPL-2.0

//! Extent trees.

use rdax_fsck::repair::Level;
use rdax_volume::volume::error::Structure::{DirLeaf, ExtentNode, Inode};
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::{SuperBlock, BLOCK, CHUNK_BLOCKS};
use zerocopy::little_endian::{U16, U64};

use crate::bed::{Bed, Parts};
use crate::common::mount_only;
use crate::mended::{filled, kept, mend, mended, run, sim_of, text, tree_of};

type Found = (rdax_volume::volume::error::Structure, u64);

fn node(
    bed: &Bed,
    name: &str,
    change: impl FnOnce(&mut [rdax_volume::volume::format::Extent]),
) -> Found {
    let at = bed.node_at(name);
    bed.node(at, |_, entries| change(entries));
    (ExtentNode, at)
}

#[test]
fn node_of_a_file() {
    let said = mended(&["file"], false, |bed| {
        bed.put(bed.node_at("file") + 70, b"?");
        (ExtentNode, bed.node_at("file"))
    });
    assert!(
        said.contains("it had 21 blocks, 0 with data are left"),
        "{said}"
    );
}

#[test]
fn node_of_a_directory() {
    for offset in [0, 4, 70] {
        let said = mended(&[], false, |bed| {
            bed.put(bed.node_at("many") + offset, b"?");
            (ExtentNode, bed.node_at("many"))
        });
        assert!(said.contains("directory rebuilt with 500 names"), "{said}");
        assert!(!said.contains("lost+found"), "{said}");
        assert!(!said.contains("fields corrected"), "wrong counts: {said}");
    }
}

#[test]
fn header_of_a_node() {
    mended(&["file"], false, |bed| {
        bed.node(bed.node_at("file"), |header, _| header.level = U16::new(1));
        (ExtentNode, bed.node_at("file"))
    });
}

#[test]
fn entries_of_a_file() {
    let cut = |change: &dyn Fn(&mut [rdax_volume::volume::format::Extent])| {
        mended(&["file"], false, |bed| node(bed, "file", |e| change(e)))
    };
    cut(&|e| e[3].key = U64::new(3));
    cut(&|e| e[4].key = U64::new((1 << 52) | 8));
    cut(&|e| e[19].key = U64::new(1 << 51));
    cut(&|e| e[4] = Parts::of(8, e[4].block(), 0));
    let said = cut(&|e| e[4] = Parts::of(8, 1 << 30, 1));
    assert!(said.contains("19 with data are left"), "{said}");
}

const UNWRITTEN: u64 = 1 << 63;

#[test]
fn unwritten_blocks_stay_that() {
    // Of a tree that is rebuilt, where a block was another inode's as well.
    let bed = filled();
    let twice = bed.raw("small").root[0].block();
    node(&bed, "file", |e| {
        e[2].value |= UNWRITTEN;
        e[4] = Parts::of(8, twice, 1);
        e[4].value |= UNWRITTEN;
    });
    let sim = sim_of(&bed);
    let (_, lines) = run(&sim, Level::All);
    let vol = mount_only(&sim);
    let mut file = vol.iget(bed.ino("file")).unwrap();
    let mut is = |key: u64| vol.map(&mut file, key, 1).unwrap();
    assert!(matches!(is(4), Map::Unwritten { .. }), "{}", text(&lines));
    assert!(matches!(is(6), Map::Run { .. }));
    let mut small = vol.iget(bed.ino("small")).unwrap();
    let Map::Run { block: others, .. } = vol.map(&mut small, 0, 1).unwrap() else {
        panic!("{}", text(&lines));
    };
    assert!(matches!(is(8), Map::Unwritten { block, .. } if block != others));
}

#[test]
fn unwritten_blocks_where_there_are_none() {
    for name in ["many", "long"] {
        mended(&["long"], false, |bed| {
            match name {
                "many" => return node(bed, name, |e| e[2].value |= UNWRITTEN),
                _ => bed.inode(name, |raw| raw.root[0].value |= UNWRITTEN),
            }
            (Inode, bed.at(name))
        });
    }
}

#[test]
fn entries_of_a_directory() {
    let said = mended(&[], false, |bed| {
        node(bed, "many", |e| {
            e[2] = Parts::of(e[2].key.get(), 1 << 30, 1)
        })
    });
    assert!(said.contains("directory rebuilt with 500 names"), "{said}");
}

#[test]
fn roots() {
    for name in ["file", "many"] {
        mended(&["file"], false, |bed| {
            bed.inode(name, |raw| raw.root_count = U16::new(9));
            (Inode, bed.at(name))
        });
        mended(&["file"], false, |bed| {
            bed.inode(name, |raw| raw.depth = 8);
            (Inode, bed.at(name))
        });
    }
}

#[test]
fn data_in_two_files() {
    // The file that had the block keeps its data, whichever comes first.
    for (damaged, other) in [("twin1", "twin2"), ("twin2", "twin1")] {
        let said = mended(&[damaged], false, |bed| {
            let block = bed.raw(other).root[0].block();
            bed.inode(damaged, |raw| raw.root[0] = Parts::of(0, block, 1));
            (Inode, bed.at("twin2"))
        });
        assert!(
            said.contains("1 blocks that another inode has, too, copied"),
            "{said}"
        );
    }
}

#[test]
fn metadata_in_a_file() {
    // A file that comes before the others and has their blocks: each keeps what it had.
    let long = |bed: &Bed| bed.raw("long").root[0].block();
    mended(&["small"], false, |bed| {
        let block = long(bed);
        bed.inode("small", |raw| raw.root[0] = Parts::of(0, block, 1));
        (Inode, bed.at("long"))
    });
    mended(&["small"], false, |bed| {
        let block = bed.node_at("many") / BLOCK;
        bed.inode("small", |raw| raw.root[0] = Parts::of(0, block, 1));
        (Inode, bed.at("many"))
    });
    mended(&["small"], false, |bed| {
        let block = bed.raw("sub").root[0].block();
        bed.inode("small", |raw| raw.root[0] = Parts::of(0, block, 1));
        (Inode, bed.at("sub"))
    });
}

#[test]
fn no_first_leaf() {
    mended(&["dir"], false, |bed| {
        let block = bed.raw("dir").root[0].block();
        bed.inode("dir", |raw| raw.root[0] = Parts::of(5, block, 1));
        (Inode, bed.at("dir"))
    });
}

#[test]
fn leaf_that_is_none() {
    // The directory's only leaf is somewhere else; the right one is found again.
    let said = mended(&[], false, |bed| {
        let free = bed.free_block();
        bed.mark(free, true);
        bed.inode("dir", |raw| raw.root[0] = Parts::of(0, free, 1));
        (DirLeaf, free * BLOCK)
    });
    assert!(!said.contains("lost+found"), "{said}");
}

/// Marks all blocks in use but `free`.
fn fill(bed: &Bed, free: &[u64]) {
    for chunk in 0..bed.get::<SuperBlock>(0).chunks.get() {
        bed.bitmap(chunk, |bitmap, summary| {
            bitmap.fill(0xff);
            for bit in free.iter().filter(|block| *block / CHUNK_BLOCKS == chunk) {
                bitmap[(bit % CHUNK_BLOCKS / 8) as usize] &= !(1 << (bit % 8));
            }
            let free: u32 = bitmap.iter().map(|byte| byte.count_zeros()).sum();
            summary.free = U16::new(free as u16);
        });
    }
}

/// Repairs the bed after `damage`, and fails unless all but "file" is what it was.
fn others_kept(damage: impl Fn(&Bed)) -> String {
    let bed = filled();
    let before = tree_of(&bed);
    damage(&bed);
    let sim = sim_of(&bed);
    let said = mend(&sim).unwrap();
    let hit = [bed.ino("file")].into();
    kept(&sim, &before, &hit).unwrap_or_else(|e| panic!("{e}\n{said}"));
    said
}

/// The checker does not look into attributes whose block is a file's, too, and their values are
/// marked free: they are not overwritten.
#[test]
fn blocks_of_what_another_has() {
    others_kept(|bed| {
        let (value, other) = (bed.value_block(), bed.free_block());
        assert!(value < other);
        fill(bed, &[value, value + 1, other]);
        let twice = bed.xattrs_at() / BLOCK;
        node(bed, "file", |e| e[4] = Parts::of(8, twice, 1));
    });
}

/// A file whose tree is impossible has an attribute's blocks, too, and one block is free: it is the
/// file that loses some.
#[test]
fn impossible_tree_without_space() {
    let said = others_kept(|bed| {
        fill(bed, &[bed.free_block()]);
        let twice = bed.value_block();
        node(bed, "file", |e| {
            e[4] = Parts::of(8, twice, 2);
            e[5] = e[4];
        });
    });
    assert!(!said.contains("-> inode 10: "), "{said}");
}

/// So does one that has more blocks than it says: it is where the checker meets them first.
#[test]
fn blocks_that_a_file_does_not_count() {
    let said = others_kept(|bed| {
        let twice = bed.value_block();
        node(bed, "file", |e| e[4] = Parts::of(8, twice, 2));
    });
    assert!(!said.contains("-> inode 10: "), "{said}");
    assert!(
        said.contains("2 blocks that another inode has, too, copied"),
        "{said}"
    );
}

/// An extent over all of the volume, and all of it is in use.
#[test]
fn extent_over_everything() {
    let said = others_kept(|bed| {
        let sb: SuperBlock = bed.get(0);
        let (from, to) = (sb.data_block.get(), sb.blocks.get() - 2);
        node(bed, "file", |e| {
            e[19] = Parts::of(e[19].key.get(), from, to - from)
        });
    });
    assert!(said.contains("19 with data are left"), "{said}");
}
