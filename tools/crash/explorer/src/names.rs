// SPDX-License-Identifier: GPL-2.0

//! The names of places on a volume: which structure a line belongs to, or which byte of which file.

use rdax_volume::ram::Ram;
use rdax_volume::volume::file::Map;
use rdax_volume::volume::format::{
    LeafHeader, NodeHeader, BLOCK, INODE_BYTES, INODE_CHUNK_SLOTS, LANE_BODY, LANE_BYTES,
    LEAF_MAGIC, NODE_MAGIC,
};
use rdax_volume::volume::pmem::{read_struct, Pmem, LINE};
use rdax_volume::volume::{MountOptions, Volume};

/// Inodes are looked for up to this number: workloads make few.
const INODES: u64 = 1024;

/// Names the places of one image.
pub struct Names {
    volume: Option<Volume<Ram>>,
}

impl Names {
    /// Of the volume in `image`. If that cannot be mounted, places have only their addresses.
    pub fn new(image: &[u8]) -> Self {
        let ram = Ram::new(image.len() as u64);
        let volume = ram
            .store(0, image)
            .and_then(|()| Volume::mount(ram, MountOptions::default()));
        Names {
            volume: volume.ok(),
        }
    }

    /// The name of the line at byte `at` of the device.
    pub fn line(&self, at: u64) -> String {
        let name = self.volume.as_ref().map(|volume| {
            fixed(volume, at)
                .or_else(|| inode(volume, at))
                .or_else(|| block(volume, at))
                .unwrap_or_else(|| format!("byte {} of block {}, free", at % BLOCK, at / BLOCK))
        });
        match name {
            Some(name) => format!("{at:#x} ({name})"),
            None => format!("{at:#x}"),
        }
    }
}

/// A structure with a place of its own.
fn fixed(volume: &Volume<Ram>, at: u64) -> Option<String> {
    let geo = volume.geometry();
    let (block, within) = (at / BLOCK, at % BLOCK);
    let lanes = geo.lane_at(0)..geo.lane_at(geo.lane_count);
    Some(if block == 0 {
        format!("superblock, byte {within}")
    } else if block == geo.data_end() + 1 {
        format!("copy of the superblock, byte {within}")
    } else if block == geo.system_block || block == geo.data_end() {
        let which =
            ["of the inode table", "of the orphan file"].get((within / INODE_BYTES) as usize);
        let line = within % INODE_BYTES / LINE;
        format!(
            "{}system inode {}, line {line}",
            if block == geo.system_block {
                ""
            } else {
                "copy of "
            },
            which.unwrap_or(&"without use")
        )
    } else if lanes.contains(&at) {
        let (lane, within) = (
            (at - lanes.start) / LANE_BYTES,
            (at - lanes.start) % LANE_BYTES,
        );
        match within.checked_sub(LANE_BODY) {
            Some(body) => format!("journal lane {lane}, byte {body} of the body"),
            None => format!("journal lane {lane}, header {}", within / LINE),
        }
    } else if block >= geo.summary_block && block < geo.bitmap_block {
        format!("summaries from chunk {}", (at - geo.summary_at(0)) / 8)
    } else if block >= geo.bitmap_block && at < geo.bitmap_at(geo.chunks) {
        format!("bitmap of chunk {}", (at - geo.bitmap_at(0)) / LINE)
    } else {
        return None;
    })
}

/// A line of an inode or of the header of a chunk of the inode table, or a byte of a file.
fn inode(volume: &Volume<Ram>, at: u64) -> Option<String> {
    for ino in 1..INODES {
        let Ok(mut inode) = volume.iget(ino) else {
            continue;
        };
        let slot = inode.at();
        if (slot..slot + INODE_BYTES).contains(&at) {
            return Some(format!("inode {ino}, line {}", (at - slot) / LINE));
        }
        let header = slot - ino % INODE_CHUNK_SLOTS * INODE_BYTES;
        if (header..header + INODE_BYTES).contains(&at) {
            return Some(format!("header of inode chunk {}", ino / INODE_CHUNK_SLOTS));
        }
        let end = inode.size().div_ceil(BLOCK);
        let mut file_block = 0;
        // Only of regular files: of others there is an error, and the next one's turn.
        while let Ok(map) = volume.map(&mut inode, file_block, end.max(1)) {
            file_block += match map {
                Map::Run { block, len } | Map::Unwritten { block, len } => {
                    let run = block * BLOCK..(block + len) * BLOCK;
                    if run.contains(&at) {
                        let byte = file_block * BLOCK + (at - run.start);
                        return Some(format!("data of inode {ino}, byte {byte:#x}"));
                    }
                    len
                }
                Map::Hole { len } => len,
            };
            if file_block >= end {
                break;
            }
        }
    }
    None
}

/// A block that says what it is.
fn block(volume: &Volume<Ram>, at: u64) -> Option<String> {
    let (start, within) = (at - at % BLOCK, at % BLOCK);
    let leaf: LeafHeader = read_struct(volume.pmem(), start).ok()?;
    if leaf.magic.get() == LEAF_MAGIC && leaf.block.get() == at / BLOCK {
        return Some(format!(
            "directory leaf of inode {}, byte {within}",
            leaf.owner
        ));
    }
    let node: NodeHeader = read_struct(volume.pmem(), start).ok()?;
    if node.magic.get() == NODE_MAGIC && node.block.get() == at / BLOCK {
        return Some(format!(
            "extent node of inode {}, byte {within}",
            node.owner
        ));
    }
    None
}
