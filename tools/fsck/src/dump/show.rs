// SPDX-License-Identifier: GPL-2.0

//! Each structure as a [`Node`]: its fields, its address, and whether it is sound.

use anyhow::{Context, Result};
use rdax_fsck::media::{file_type, Media, DT_DIR};
use rdax_volume::env::{self, crc32c};
use rdax_volume::volume::check::crc;
use rdax_volume::volume::extent::unpack;
use rdax_volume::volume::format::*;
use rdax_volume::volume::journal::{self, retired_word, unretired_word, LaneState};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{inode as volume_inode, orphan, super_block};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::node::Node;

fn hex(at: u64) -> String {
    format!("{at:#x}")
}

fn bytes(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    digits.concat()
}

/// Bytes of names, of any kind, on one line.
fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn unreadable(title: String) -> Node {
    Node::new(title).field("unreadable", true)
}

/// Both superblocks.
pub fn super_blocks(pmem: &dyn Pmem) -> Node {
    let copy = super_block::copy_at(pmem.len());
    let both = [("superblock", 0), ("copy of the superblock", copy)];
    Node::new("superblocks").parts(both.map(|(name, at)| {
        let title = format!("{name} at {at:#x}");
        let mut sb = SuperBlock::new_zeroed();
        match pmem.read(at, sb.as_mut_bytes()) {
            Ok(()) => one_super_block(title, &sb),
            Err(_) => unreadable(title),
        }
    }))
}

fn one_super_block(title: String, sb: &SuperBlock) -> Node {
    let label = sb.label.split(|b| *b == 0).next().unwrap_or_default();
    Node::new(title)
        .field("magic", text(&sb.magic))
        .checksum(sb.crc.get(), super_block::checksum(sb))
        .field("version", sb.version.get())
        .field("compat", hex(sb.compat.get()))
        .field("ro_compat", hex(sb.ro_compat.get()))
        .field("incompat", hex(sb.incompat.get()))
        .field("uuid", bytes(&sb.uuid))
        .field("label", text(label))
        .field("blocks", sb.blocks.get())
        .field("system_block", sb.system_block.get())
        .field("lanes_block", sb.lanes_block.get())
        .field("lane_count", sb.lane_count.get())
        .field("lane_bytes", sb.lane_bytes.get())
        .field("summary_block", sb.summary_block.get())
        .field("bitmap_block", sb.bitmap_block.get())
        .field("chunks", sb.chunks.get())
        .field("data_block", sb.data_block.get())
        .field("free_blocks", sb.free_blocks.get())
        .field("used_inodes", sb.used_inodes.get())
        .field("root_ino", sb.root_ino.get())
        .field("hash_key", bytes(&sb.hash_key))
        .field("made_sec", sb.made_sec.get())
        .field("block", sb.block.get())
        .field("generation", sb.generation.get())
}

/// The lanes, with both headers each, and the entries of transactions that are not retired.
pub fn journal(media: &Media<'_>) -> Node {
    let lanes = (0..media.geo.lane_count).map(|lane| {
        let at = media.geo.lane_at(lane);
        let mut body = env::Vec::new();
        let state = journal::inspect(media.pmem, &media.geo, lane, &mut body);
        let says = match &state {
            Ok((_, LaneState::Retired)) => "quiet".to_owned(),
            Ok((_, LaneState::Logged)) => "to be replayed".to_owned(),
            Ok((_, LaneState::Torn)) => "last transaction was not logged".to_owned(),
            Err(e) => e.to_string(),
        };
        let headers = (0..2).map(|slot| header(media, at + slot * 64));
        let mut words = body.iter().map(|word| word.get()).collect::<Vec<_>>();
        words.reverse();
        Node::new(format!("lane {lane} at {at:#x}"))
            .field("state", says)
            .parts(headers)
            .parts(std::iter::from_fn(|| entry(&mut words)))
    });
    Node::new("journal").parts(lanes)
}

/// The fields of a header that describe its transaction.
fn retired(h: &LaneHeader) -> String {
    let seq = h.seq.get();
    match h.retired {
        word if word == retired_word(seq) => "yes".to_owned(),
        word if word == unretired_word(seq) => "no".to_owned(),
        word => format!("{:#x}, which says neither", word.get()),
    }
}

fn header(media: &Media<'_>, at: u64) -> Node {
    let title = format!("header at {at:#x}");
    let Some(h) = media.get::<LaneHeader>(at) else {
        return unreadable(title);
    };
    Node::new(title)
        .checksum(h.crc.get(), crc(media.geo.seed, &h.as_bytes()[..56]))
        .field("seq", h.seq.get())
        .field("retired", retired(&h))
        .field("lane", h.lane.get())
        .field("body_len", h.body_len.get())
        .field("body_crc", hex(h.body_crc.get().into()))
        .field("free_blocks", h.free_blocks.get())
        .field("used_inodes", h.used_inodes.get())
}

/// The next entry of a body, whose words come from the end of `words`.
fn entry(words: &mut Vec<u64>) -> Option<Node> {
    let head = words.pop()?;
    let kind = head & ((1 << ENTRY_KIND_BITS) - 1);
    let count = (head >> ENTRY_KIND_BITS) & ((1 << ENTRY_COUNT_BITS) - 1);
    let place = head >> (ENTRY_KIND_BITS + ENTRY_COUNT_BITS);
    let node = |name: &str| Node::new(name.to_owned());
    Some(match kind {
        ENTRY_WRITE => {
            let what = (0..count).map_while(|_| words.pop());
            let what: Vec<String> = what.map(|word| format!("{word:016x}")).collect();
            node("write")
                .field("at", hex(place * 8))
                .field("words", what.join(" "))
        }
        ENTRY_ZERO => node("zero")
            .field("at", hex(place * 8 + count))
            .field("len", words.pop().unwrap_or(0)),
        ENTRY_ALLOC | ENTRY_FREE => {
            let name = if kind == ENTRY_ALLOC { "alloc" } else { "free" };
            node(name)
                .field("block", place)
                .field("len", words.pop().unwrap_or(0))
        }
        ENTRY_INODE_ALLOC | ENTRY_INODE_FREE => {
            let name = if kind == ENTRY_INODE_ALLOC {
                "inode alloc"
            } else {
                "inode free"
            };
            node(name)
                .field("chunk", hex(place * 8))
                .field("slot", count)
        }
        _ => node("no entry").field("head", hex(head)),
    })
}

/// The inode in the slot at `at`.
pub fn inode(media: &Media<'_>, at: u64) -> Node {
    let title = format!("inode slot at {at:#x}");
    let Some(raw) = media.get::<RawInode>(at) else {
        return unreadable(title);
    };
    let time = |sec: i64, nsec: u32| format!("{sec}.{nsec:09}");
    let ino = raw.ino.get();
    let in_use = media.inode_at(ino) == Some(at) && media.inode(ino).is_some();
    let node = Node::new(title)
        .field("ino", ino)
        .checksum(raw.crc.get(), volume_inode::checksum(&raw, media.geo.seed))
        .field("in_use", in_use)
        .field("mode", format!("{:#o}", raw.mode.get()))
        .field("nlink", raw.nlink.get())
        .field("uid", raw.uid.get())
        .field("gid", raw.gid.get())
        .field("size", raw.size.get())
        .field("blocks", raw.blocks.get())
        .field("generation", raw.generation.get())
        .nonzero("attrs", raw.attrs.get().into())
        .nonzero("parent", raw.parent.get())
        .nonzero("rdev", raw.rdev.get().into())
        .nonzero("orphan", raw.orphan.get().into())
        .nonzero("xattr_block", raw.xattr_block.get())
        .field("mtime", time(raw.mtime_sec.get(), raw.mtime_nsec.get()))
        .field("ctime", time(raw.ctime_sec.get(), raw.ctime_nsec.get()))
        .field("atime", time(raw.atime_sec.get(), raw.atime_nsec.get()))
        .field("btime", time(raw.btime_sec.get(), raw.btime_nsec.get()))
        .parts(xattrs(media, &raw));
    let size = raw.size.get() as usize;
    if file_type(&raw) == 10 && size <= INLINE_MAX {
        return node.field("target", text(&raw.root.as_bytes()[..size]));
    }
    let count = usize::from(raw.root_count.get());
    node.field("depth", raw.depth)
        .field("root_count", count)
        .parts(
            raw.root[..count.min(ROOT_EXTENTS)]
                .iter()
                .map(|e| extent(e, raw.depth)),
        )
}

/// The extended attributes in the block that `raw` names.
fn xattrs(media: &Media<'_>, raw: &RawInode) -> Option<Node> {
    let block = raw.xattr_block.get();
    if block == 0 {
        return None;
    }
    let shown = Node::new(format!("extended attributes in block {block}"));
    let Some((records, whole)) = media.xattrs(raw) else {
        return Some(shown.field("damaged", true));
    };
    let attributes = records.iter().map(|xattr| {
        let len = xattr.head.value_len();
        let node = Node::new("attribute")
            .field("name", text(&xattr.name))
            .field("len", len);
        if xattr.head.runs == 0 {
            let value = xattr.body.get(..len).unwrap_or_default();
            return node.field("value", text(value));
        }
        let runs = xattr.runs().map(|run| {
            Node::new("run")
                .field("block", run.block)
                .field("len", run.len)
        });
        let damaged = media.xattr_value(xattr).is_none();
        let crc = hex(xattr.head.value_crc.get().into());
        node.field("value_crc", crc)
            .field("value_damaged", damaged)
            .parts(runs)
    });
    let shown = shown.parts(attributes);
    Some(match whole {
        true => shown,
        false => shown.field("broken_off", true),
    })
}

fn extent(entry: &Extent, height: u8) -> Node {
    let key = format!("{:#x}", entry.key.get());
    if height > 0 {
        return Node::new("child")
            .field("key", key)
            .field("block", entry.value.get());
    }
    let m = unpack(entry);
    let shown = Node::new("extent")
        .field("key", key)
        .field("block", m.block)
        .field("len", m.len);
    match m.unwritten {
        true => shown.field("unwritten", true),
        false => shown,
    }
}

/// The tree of the inode in the slot at `at`, with its nodes.
pub fn tree(media: &Media<'_>, at: u64) -> Result<Node> {
    let raw: RawInode = media.get(at).context("the inode cannot be read")?;
    let count = usize::from(raw.root_count.get()).min(ROOT_EXTENTS);
    let root = Node::new(format!("extents of inode {} at {at:#x}", raw.ino))
        .checksum(raw.crc.get(), volume_inode::checksum(&raw, media.geo.seed))
        .field("depth", raw.depth);
    Ok(root.parts(below(media, &raw.root[..count], raw.depth.min(7))))
}

fn below(media: &Media<'_>, entries: &[Extent], height: u8) -> Vec<Node> {
    let below_one = |entry: &Extent| {
        let shown = extent(entry, height);
        match height {
            0 => shown,
            // The level decreases each time, so this ends.
            _ => shown.part(node(media, entry.value.get(), height - 1)),
        }
    };
    entries.iter().map(below_one).collect()
}

fn node(media: &Media<'_>, block: u64, height: u8) -> Node {
    let title = format!("node in block {block}");
    let content = block
        .checked_mul(BLOCK)
        .and_then(|at| media.bytes(at, BLOCK as usize));
    let Some(content) = content else {
        return unreadable(title);
    };
    let head = size_of::<NodeHeader>();
    let Ok((h, rest)) = NodeHeader::read_from_prefix(&content) else {
        return unreadable(title);
    };
    let count = usize::from(h.count.get()).min(NODE_EXTENTS);
    let sum = crc(
        media.geo.seed,
        &content[..head + count * size_of::<Extent>()],
    );
    let shown = Node::new(title)
        .field("magic", h.magic.get() == NODE_MAGIC)
        .checksum(h.crc.get(), sum)
        .field("level", h.level.get())
        .field("owner", h.owner.get())
        .field("generation", h.generation.get())
        .field("block", h.block.get())
        .field("count", h.count.get());
    if h.magic.get() != NODE_MAGIC || h.level.get() != u16::from(height) {
        return shown.field("not", "a node of this tree at this place");
    }
    let entries: Vec<Extent> = rest
        .chunks_exact(size_of::<Extent>())
        .take(count)
        .filter_map(|entry| Extent::read_from_bytes(entry).ok())
        .collect();
    shown.parts(below(media, &entries, height))
}

/// A directory with its leaves and entries.
pub fn directory(media: &Media<'_>, ino: u64) -> Result<Node> {
    let (at, raw) = media
        .inode(ino)
        .with_context(|| format!("inode {ino} is not in use or damaged"))?;
    anyhow::ensure!(file_type(&raw) == DT_DIR, "inode {ino} is no directory");
    let leaves = media
        .extents(&raw)
        .into_iter()
        .map(|m| leaf(media, m.block));
    Ok(Node::new(format!("directory {ino} at {at:#x}"))
        .field("parent", raw.parent.get())
        .field("nlink", raw.nlink.get())
        .field("size", raw.size.get())
        .parts(leaves))
}

fn leaf(media: &Media<'_>, block: u64) -> Node {
    let at = block * BLOCK;
    let title = format!("leaf at {at:#x}");
    let Some(content) = media.bytes(at, BLOCK as usize) else {
        return unreadable(title);
    };
    let Ok((h, _)) = LeafHeader::read_from_prefix(&content) else {
        return unreadable(title);
    };
    let mut records = Vec::new();
    let seed = record_seed(media.geo.seed, h.owner.get(), block);
    let end = Media::records(
        &content,
        seed,
        &media.nameless,
        &mut |offset, len, record| {
            let node = Node::new(format!("{offset:#05x}")).field("len", len);
            records.push(match record {
                None => node.field("damaged", true),
                Some((head, _)) if head.ino.get() == 0 => node.field("free", true),
                Some((head, name)) => node
                    .field("ino", head.ino.get())
                    .field("type", head.file_type)
                    .field("cookie", hex(head.cookie.get()))
                    .field("name", text(name)),
            });
        },
    );
    let shown = Node::new(title)
        .field("magic", h.magic.get() == LEAF_MAGIC)
        .checksum(h.crc.get(), crc(media.geo.seed, h.as_bytes()))
        .field("owner", h.owner.get())
        .field("key", hex(h.key.get()))
        .field("block", h.block.get());
    match end {
        end if end == content.len() => shown,
        end => shown.field("broken_off_at", hex(end as u64)),
    }
    .parts(records)
}

/// The inode chunks.
pub fn inodes(media: &Media<'_>) -> Node {
    let chunks = (0..media.inode_chunks()).map(|index| {
        let first = index * INODE_CHUNK_SLOTS;
        let Some((at, header)) = media.inode_chunk(index) else {
            let at = media.inode_at(first).map_or("nowhere".into(), hex);
            return Node::new(format!("chunk {index} at {at}")).field("header", "damaged");
        };
        let inodes = (first + 1..first + INODE_CHUNK_SLOTS).filter(|ino| {
            let slot = ino % INODE_CHUNK_SLOTS;
            (header.bitmap[(slot / 64) as usize].get() >> (slot % 64)) & 1 == 1
        });
        let inodes = inodes.map(|ino| {
            let node = Node::new(format!("inode {ino}"));
            match media.inode(ino) {
                Some((at, raw)) => node
                    .field("at", hex(at))
                    .field("mode", format!("{:#o}", raw.mode.get()))
                    .field("nlink", raw.nlink.get())
                    .field("size", raw.size.get()),
                None => node.field("damaged", true),
            }
        });
        Node::new(format!("chunk {index} at {at:#x}"))
            .field("free", header.free.get())
            .parts(inodes)
    });
    Node::new("inode table").parts(chunks)
}

/// Free space.
pub fn alloc(media: &Media<'_>) -> Node {
    let chunks = (0..media.geo.chunks).map(|chunk| {
        let title = format!("chunk {chunk}, blocks from {}", chunk * CHUNK_BLOCKS);
        let summary: Option<Summary> = media.get(media.geo.summary_at(chunk));
        let (Some(bitmap), Some(summary)) = (media.bitmap(chunk), summary) else {
            return unreadable(title);
        };
        let sum = crc32c(crc32c(media.geo.seed, &bitmap), &summary.as_bytes()[4..]);
        let sum = crc32c(sum, &chunk.to_le_bytes());
        let clear: u32 = bitmap.iter().map(|byte| byte.count_zeros()).sum();
        let shown = Node::new(title)
            .field("free", summary.free.get())
            .checksum(summary.crc.get(), sum);
        if u32::from(summary.free.get()) == clear {
            return shown.field("runs", free_runs(&bitmap, chunk * CHUNK_BLOCKS));
        }
        shown.field("clear_bits", clear)
    });
    Node::new("free space").parts(chunks)
}

/// The free blocks of a bitmap: "10-12 14".
fn free_runs(bitmap: &[u8; 64], first: u64) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let free = |bit: &u64| (bitmap[(bit / 8) as usize] >> (bit % 8)) & 1 == 0;
    for block in (0..CHUNK_BLOCKS).filter(free).map(|bit| first + bit) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == block => *last = block,
            _ => runs.push((block, block)),
        }
    }
    let run = |(from, to): &(u64, u64)| match from == to {
        true => from.to_string(),
        false => format!("{from}-{to}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(" ")
}

/// The slots of the orphan file that are in use.
pub fn orphans(media: &Media<'_>) -> Node {
    let blocks = media
        .system_inode(1)
        .map_or(Vec::new(), |raw| media.extents(&raw));
    let per_block = BLOCK / size_of::<OrphanSlot>() as u64;
    let slots = blocks.into_iter().flat_map(|m| {
        let size = size_of::<OrphanSlot>() as u64;
        (0..m.len * per_block).map(move |i| (m.key * per_block + i, m.block * BLOCK + i * size))
    });
    let slots = slots.filter_map(|(index, at)| {
        let slot: OrphanSlot = media.get(at)?;
        let sum = orphan::checksum(media.geo.seed, &slot, index);
        let used = slot.as_bytes().iter().any(|b| *b != 0);
        used.then(|| {
            Node::new(format!("slot {index} at {at:#x}"))
                .field("ino", slot.ino.get())
                .nonzero("work", slot.work.get().into())
                .nonzero("from", slot.from.get())
                .nonzero("to", slot.to.get())
                .checksum(slot.crc.get(), sum)
        })
    });
    Node::new("orphan file").parts(slots)
}

/// Blocks as what they look like, and as bytes.
pub fn blocks(media: &Media<'_>, first: u64, count: u64) -> Result<Node> {
    let end = first.checked_add(count).context("no such block")?;
    anyhow::ensure!(
        end <= media.pmem.len() / BLOCK,
        "the device has no block {}",
        end - 1
    );
    Ok(Node::new("blocks").parts((first..end).map(|block| one_block(media, block))))
}

fn one_block(media: &Media<'_>, block: u64) -> Node {
    let title = format!("block {block} at {:#x}", block * BLOCK);
    let Some(content) = media.bytes(block * BLOCK, BLOCK as usize) else {
        return unreadable(title);
    };
    let word = u32::from_le_bytes([content[4], content[5], content[6], content[7]]);
    let shown = Node::new(title)
        .field("in_use", media.is_used(block))
        .field("area", area(media, block));
    let shown = match word {
        LEAF_MAGIC => shown.part(leaf(media, block)),
        INODE_CHUNK_MAGIC => shown.field("looks_like", "the first block of an inode chunk"),
        _ if word as u16 == NODE_MAGIC => shown.part(node(media, block, content[8])),
        _ => shown,
    };
    // Lines of zeros are omitted.
    let lines = content
        .chunks(32)
        .enumerate()
        .filter(|(_, line)| line.iter().any(|b| *b != 0));
    shown.parts(lines.map(|(i, line)| {
        Node::new(format!("{:#05x}", i * 32))
            .field("hex", bytes(line))
            .field("text", text(line))
    }))
}

/// Which part of the volume a block lies in.
fn area(media: &Media<'_>, block: u64) -> &'static str {
    let geo = &media.geo;
    let areas = [
        (geo.blocks, "past the end"),
        (geo.data_end() + 1, "copy of the superblock"),
        (geo.data_end(), "copy of the system inodes"),
        (geo.data_block, "data"),
        (geo.bitmap_block, "bitmaps"),
        (geo.summary_block, "summary"),
        (geo.lanes_block, "journal lanes"),
        (geo.system_block, "system inodes"),
    ];
    let found = areas.iter().find(|(first, _)| block >= *first);
    found.map_or("superblock", |(_, name)| name)
}
