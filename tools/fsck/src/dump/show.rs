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
use rdax_volume::volume::{inode as volume_inode, orphan, super_block, Error};
use serde_json::json;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::node::{digits, Node};

/// A structure at a byte address that the title has at its end.
fn at(what: &'static str, title: &str, at: u64) -> Node {
    Node::new(what, format!("{title} at {at:#x}")).value("at", at)
}

/// Ends a structure that cannot be read.
fn unreadable(node: Node) -> Node {
    node.field("unreadable", true)
}

/// Both superblocks.
pub fn super_blocks(pmem: &dyn Pmem) -> Node {
    let copy_at = super_block::copy_at(pmem.len());
    let first = at("superblock", "superblock", 0).value("copy", false);
    let copy = at("superblock", "copy of the superblock", copy_at).value("copy", true);
    Node::new("superblocks", "superblocks").parts([(first, 0), (copy, copy_at)].map(
        |(node, at)| {
            let mut sb = SuperBlock::new_zeroed();
            match pmem.read(at, sb.as_mut_bytes()) {
                Ok(()) => one_super_block(node, &sb),
                Err(_) => unreadable(node),
            }
        },
    ))
}

fn one_super_block(node: Node, sb: &SuperBlock) -> Node {
    let label = sb.label.split(|b| *b == 0).next().unwrap_or_default();
    node.bytes("magic", &sb.magic)
        .checksum(sb.crc.get(), super_block::checksum(sb))
        .field("version", sb.version.get())
        .hex("compat", sb.compat.get())
        .hex("ro_compat", sb.ro_compat.get())
        .hex("incompat", sb.incompat.get())
        .field("uuid", digits(&sb.uuid))
        .bytes("label", label)
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
        .field("hash_key", digits(&sb.hash_key))
        .field("made_sec", sb.made_sec.get())
        .field("block", sb.block.get())
        .field("generation", sb.generation.get())
}

/// The lanes, with both headers each, and the entries of transactions that are not retired.
pub fn journal(media: &Media<'_>) -> Node {
    let lanes = (0..media.geo.lane_count).map(|lane| {
        let lane_at = media.geo.lane_at(lane);
        let mut body = env::Vec::new();
        let state = journal::inspect(media.pmem, &media.geo, lane, &mut body);
        let (state, says) = match &state {
            Ok((_, LaneState::Retired)) => ("retired", "quiet".to_owned()),
            Ok((_, LaneState::Logged)) => ("logged", "to be replayed".to_owned()),
            Ok((_, LaneState::Torn)) => ("torn", "last transaction was not logged".to_owned()),
            Err(e @ Error::Media { .. }) => ("unreadable", e.to_string()),
            Err(e) => ("damaged", e.to_string()),
        };
        let headers = (0..2).map(|slot| header(media, lane_at + slot * 64));
        let mut words = body.iter().map(|word| word.get()).collect::<Vec<_>>();
        words.reverse();
        at("lane", &format!("lane {lane}"), lane_at)
            .value("lane", lane)
            .text("state", says)
            .value("state", state)
            .parts(headers)
            .parts(std::iter::from_fn(|| entry(&mut words)))
    });
    Node::new("journal", "journal").parts(lanes)
}

/// Whether the transaction of a header is retired, if the header says so, and in words.
fn retired(h: &LaneHeader) -> (Option<bool>, String) {
    let seq = h.seq.get();
    match h.retired {
        word if word == retired_word(seq) => (Some(true), "yes".to_owned()),
        word if word == unretired_word(seq) => (Some(false), "no".to_owned()),
        word => (None, format!("{:#x}, which says neither", word.get())),
    }
}

fn header(media: &Media<'_>, header_at: u64) -> Node {
    let node = at("header", "header", header_at);
    let Some(h) = media.get::<LaneHeader>(header_at) else {
        return unreadable(node);
    };
    let (retired, says) = retired(&h);
    node.checksum(h.crc.get(), crc(media.geo.seed, &h.as_bytes()[..56]))
        .field("seq", h.seq.get())
        .text("retired", says)
        .value("retired", retired)
        .value("retired_word", h.retired.get())
        .field("lane", h.lane.get())
        .field("body_len", h.body_len.get())
        .hex("body_crc", h.body_crc.get().into())
        .field("free_blocks", h.free_blocks.get())
        .field("used_inodes", h.used_inodes.get())
}

/// The next entry of a body, whose words come from the end of `words`.
fn entry(words: &mut Vec<u64>) -> Option<Node> {
    let head = words.pop()?;
    let kind = head & ((1 << ENTRY_KIND_BITS) - 1);
    let count = (head >> ENTRY_KIND_BITS) & ((1 << ENTRY_COUNT_BITS) - 1);
    let place = head >> (ENTRY_KIND_BITS + ENTRY_COUNT_BITS);
    let title = match kind {
        ENTRY_WRITE => "write",
        ENTRY_ZERO => "zero",
        ENTRY_ALLOC => "alloc",
        ENTRY_FREE => "free",
        ENTRY_INODE_ALLOC => "inode alloc",
        ENTRY_INODE_FREE => "inode free",
        _ => "no entry",
    };
    let node = Node::new("entry", title).value("kind", title);
    Some(match kind {
        ENTRY_WRITE => {
            let what: Vec<u64> = (0..count).map_while(|_| words.pop()).collect();
            let text: Vec<String> = what.iter().map(|word| format!("{word:016x}")).collect();
            node.hex("at", place * 8)
                .text("words", text.join(" "))
                .value("words", what)
        }
        ENTRY_ZERO => node
            .hex("at", place * 8 + count)
            .field("len", words.pop().unwrap_or(0)),
        ENTRY_ALLOC | ENTRY_FREE => node
            .field("block", place)
            .field("len", words.pop().unwrap_or(0)),
        ENTRY_INODE_ALLOC | ENTRY_INODE_FREE => node.hex("chunk", place * 8).field("slot", count),
        _ => node.hex("head", head),
    })
}

/// The inode in the slot at `at`.
pub fn inode(media: &Media<'_>, slot_at: u64) -> Node {
    let node = at("inode", "inode slot", slot_at);
    let Some(raw) = media.get::<RawInode>(slot_at) else {
        return unreadable(node);
    };
    let ino = raw.ino.get();
    let in_use = media.inode_at(ino) == Some(slot_at) && media.inode(ino).is_some();
    let node = node
        .field("ino", ino)
        .checksum(raw.crc.get(), volume_inode::checksum(&raw, media.geo.seed))
        .field("in_use", in_use)
        .text("mode", format!("{:#o}", raw.mode.get()))
        .value("mode", raw.mode.get())
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
        .time("mtime", raw.mtime_sec.get(), raw.mtime_nsec.get())
        .time("ctime", raw.ctime_sec.get(), raw.ctime_nsec.get())
        .time("atime", raw.atime_sec.get(), raw.atime_nsec.get())
        .time("btime", raw.btime_sec.get(), raw.btime_nsec.get())
        .parts(xattrs(media, &raw));
    let size = raw.size.get() as usize;
    if file_type(&raw) == 10 && size <= INLINE_MAX {
        return node.bytes("target", &raw.root.as_bytes()[..size]);
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
    let title = format!("extended attributes in block {block}");
    let shown = Node::new("extended attributes", title).value("in_block", block);
    let Some((records, whole)) = media.xattrs(raw) else {
        return Some(shown.flag("damaged", true));
    };
    let attributes = records.iter().map(|xattr| {
        let len = xattr.head.value_len();
        let node = Node::new("attribute", "attribute")
            .bytes("name", &xattr.name)
            .field("len", len);
        if xattr.head.runs == 0 {
            let value = xattr.body.get(..len).unwrap_or_default();
            return node.bytes("value", value);
        }
        let runs = xattr.runs().map(|run| {
            Node::new("run", "run")
                .field("block", run.block)
                .field("len", run.len)
        });
        let damaged = media.xattr_value(xattr).is_none();
        node.hex("value_crc", xattr.head.value_crc.get().into())
            .field("value_damaged", damaged)
            .parts(runs)
    });
    let shown = shown.flag("damaged", false).parts(attributes);
    Some(shown.flag("broken_off", !whole))
}

fn extent(entry: &Extent, height: u8) -> Node {
    let key = entry.key.get();
    if height > 0 {
        return Node::new("child", "child")
            .hex("key", key)
            .field("block", entry.value.get());
    }
    let m = unpack(entry);
    Node::new("extent", "extent")
        .hex("key", key)
        .field("block", m.block)
        .field("len", m.len)
        .flag("unwritten", m.unwritten)
}

/// The tree of the inode in the slot at `at`, with its nodes.
pub fn tree(media: &Media<'_>, slot_at: u64) -> Result<Node> {
    let raw: RawInode = media.get(slot_at).context("the inode cannot be read")?;
    let count = usize::from(raw.root_count.get()).min(ROOT_EXTENTS);
    let title = format!("extents of inode {}", raw.ino);
    let root = at("extent tree", &title, slot_at)
        .value("ino", raw.ino.get())
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
    let node = Node::new("node", format!("node in block {block}")).value("in_block", block);
    let content = block
        .checked_mul(BLOCK)
        .and_then(|at| media.bytes(at, BLOCK as usize));
    let Some(content) = content else {
        return unreadable(node);
    };
    let head = size_of::<NodeHeader>();
    let Ok((h, rest)) = NodeHeader::read_from_prefix(&content) else {
        return unreadable(node);
    };
    let count = usize::from(h.count.get()).min(NODE_EXTENTS);
    let sum = crc(
        media.geo.seed,
        &content[..head + count * size_of::<Extent>()],
    );
    let shown = node
        .field("magic", h.magic.get() == NODE_MAGIC)
        .checksum(h.crc.get(), sum)
        .field("level", h.level.get())
        .field("owner", h.owner.get())
        .field("generation", h.generation.get())
        .field("block", h.block.get())
        .field("count", h.count.get());
    let here = h.magic.get() == NODE_MAGIC && h.level.get() == u16::from(height);
    let shown = shown.value("misplaced", !here);
    if !here {
        return shown.text("not", "a node of this tree at this place");
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
    let (slot_at, raw) = media
        .inode(ino)
        .with_context(|| format!("inode {ino} is not in use or damaged"))?;
    anyhow::ensure!(file_type(&raw) == DT_DIR, "inode {ino} is no directory");
    let leaves = media
        .extents(&raw)
        .into_iter()
        .map(|m| leaf(media, m.block));
    Ok(at("directory", &format!("directory {ino}"), slot_at)
        .value("ino", ino)
        .field("parent", raw.parent.get())
        .field("nlink", raw.nlink.get())
        .field("size", raw.size.get())
        .parts(leaves))
}

fn leaf(media: &Media<'_>, block: u64) -> Node {
    let node = at("leaf", "leaf", block * BLOCK);
    let Some(content) = media.bytes(block * BLOCK, BLOCK as usize) else {
        return unreadable(node);
    };
    let Ok((h, _)) = LeafHeader::read_from_prefix(&content) else {
        return unreadable(node);
    };
    let mut records = Vec::new();
    let seed = record_seed(media.geo.seed, h.owner.get(), block);
    let end = Media::records(
        &content,
        seed,
        &media.nameless,
        &mut |offset, len, record| {
            let node = Node::new("record", format!("{offset:#05x}"))
                .value("offset", offset)
                .field("len", len)
                .flag("damaged", record.is_none());
            records.push(match record {
                None => node,
                Some((head, _)) if head.ino.get() == 0 => node.flag("free", true),
                Some((head, name)) => node
                    .flag("free", false)
                    .field("ino", head.ino.get())
                    .field("type", head.file_type)
                    .hex("cookie", head.cookie.get())
                    .bytes("name", name),
            });
        },
    );
    let shown = node
        .field("magic", h.magic.get() == LEAF_MAGIC)
        .checksum(h.crc.get(), crc(media.geo.seed, h.as_bytes()))
        .field("owner", h.owner.get())
        .hex("key", h.key.get())
        .field("block", h.block.get());
    match end {
        end if end == content.len() => shown,
        end => shown.hex("broken_off_at", end as u64),
    }
    .parts(records)
}

/// The inode chunks.
pub fn inodes(media: &Media<'_>) -> Node {
    let chunks = (0..media.inode_chunks()).map(|index| {
        let first = index * INODE_CHUNK_SLOTS;
        let chunk_at = media.inode_at(first);
        let place = chunk_at.map_or("nowhere".to_owned(), |at| format!("{at:#x}"));
        let node = Node::new("inode chunk", format!("chunk {index} at {place}"))
            .value("index", index)
            .value("at", chunk_at);
        let Some((_, header)) = media.inode_chunk(index) else {
            return node.text("header", "damaged").value("damaged", true);
        };
        let inodes = (first + 1..first + INODE_CHUNK_SLOTS).filter(|ino| {
            let slot = ino % INODE_CHUNK_SLOTS;
            (header.bitmap[(slot / 64) as usize].get() >> (slot % 64)) & 1 == 1
        });
        let inodes = inodes.map(|ino| {
            let node = Node::new("inode", format!("inode {ino}")).value("ino", ino);
            match media.inode(ino) {
                Some((at, raw)) => node
                    .value("damaged", false)
                    .hex("at", at)
                    .text("mode", format!("{:#o}", raw.mode.get()))
                    .value("mode", raw.mode.get())
                    .field("nlink", raw.nlink.get())
                    .field("size", raw.size.get()),
                None => node.field("damaged", true),
            }
        });
        node.value("damaged", false)
            .field("free", header.free.get())
            .parts(inodes)
    });
    Node::new("inode table", "inode table").parts(chunks)
}

/// Free space.
pub fn alloc(media: &Media<'_>) -> Node {
    let chunks = (0..media.geo.chunks).map(|chunk| {
        let first = chunk * CHUNK_BLOCKS;
        let node = Node::new("chunk", format!("chunk {chunk}, blocks from {first}"))
            .value("chunk", chunk)
            .value("block", first);
        let summary: Option<Summary> = media.get(media.geo.summary_at(chunk));
        let (Some(bitmap), Some(summary)) = (media.bitmap(chunk), summary) else {
            return unreadable(node);
        };
        let sum = crc32c(crc32c(media.geo.seed, &bitmap), &summary.as_bytes()[4..]);
        let sum = crc32c(sum, &chunk.to_le_bytes());
        let clear: u32 = bitmap.iter().map(|byte| byte.count_zeros()).sum();
        let shown = node
            .field("free", summary.free.get())
            .checksum(summary.crc.get(), sum);
        if u32::from(summary.free.get()) == clear {
            let runs = free_runs(&bitmap, first);
            let values = runs
                .iter()
                .map(|run| json!({"block": run.0, "len": run.1 - run.0 + 1}));
            return shown
                .text("runs", runs_text(&runs))
                .value("runs", values.collect::<Vec<_>>());
        }
        shown.field("clear_bits", clear)
    });
    Node::new("free space", "free space").parts(chunks)
}

/// The free blocks of a bitmap: the first and the last of each run.
fn free_runs(bitmap: &[u8; 64], first: u64) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let free = |bit: &u64| (bitmap[(bit / 8) as usize] >> (bit % 8)) & 1 == 0;
    for block in (0..CHUNK_BLOCKS).filter(free).map(|bit| first + bit) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == block => *last = block,
            _ => runs.push((block, block)),
        }
    }
    runs
}

/// "10-12 14".
fn runs_text(runs: &[(u64, u64)]) -> String {
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
    let slots = slots.filter_map(|(index, slot_at)| {
        let slot: OrphanSlot = media.get(slot_at)?;
        let sum = orphan::checksum(media.geo.seed, &slot, index);
        let used = slot.as_bytes().iter().any(|b| *b != 0);
        used.then(|| {
            at("orphan slot", &format!("slot {index}"), slot_at)
                .value("slot", index)
                .field("ino", slot.ino.get())
                .nonzero("work", slot.work.get().into())
                .nonzero("from", slot.from.get())
                .nonzero("to", slot.to.get())
                .checksum(slot.crc.get(), sum)
        })
    });
    Node::new("orphan file", "orphan file").parts(slots)
}

/// Blocks as what they look like, and as bytes.
pub fn blocks(media: &Media<'_>, first: u64, count: u64) -> Result<Node> {
    let end = first.checked_add(count).context("no such block")?;
    anyhow::ensure!(
        end <= media.pmem.len() / BLOCK,
        "the device has no block {}",
        end - 1
    );
    let blocks = (first..end).map(|block| one_block(media, block));
    Ok(Node::new("blocks", "blocks").parts(blocks))
}

fn one_block(media: &Media<'_>, block: u64) -> Node {
    let title = format!("block {block}");
    let shown = at("block", &title, block * BLOCK).value("block", block);
    let Some(content) = media.bytes(block * BLOCK, BLOCK as usize) else {
        return unreadable(shown);
    };
    let word = u32::from_le_bytes([content[4], content[5], content[6], content[7]]);
    let shown = shown
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
        Node::new("bytes", format!("{:#05x}", i * 32))
            .value("offset", i * 32)
            .field("hex", digits(line))
            .text("text", line.escape_ascii().to_string())
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
