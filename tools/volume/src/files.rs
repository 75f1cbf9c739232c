// SPDX-License-Identifier: GPL-2.0

//! Files and directories as the VFS layer reads and writes them, for tests and tools that use a
//! volume without a kernel.

use crate::volume::dir::DirEntryRef;
use crate::volume::error::Result;
use crate::volume::file::Map;
use crate::volume::format::{Time, BLOCK};
use crate::volume::inode::Inode;
use crate::volume::pmem::Pmem;
use crate::volume::Volume;

/// Writes `data` at `pos` as the VFS layer does: straight into blocks that are mapped, reserved
/// blocks for holes, the size last.
pub fn write<P: Pmem>(
    vol: &Volume<P>,
    inode: &mut Inode,
    pos: u64,
    data: &[u8],
    now: Time,
) -> Result<()> {
    let mut at = pos;
    let end = pos + data.len() as u64;
    while at < end {
        let block = at / BLOCK;
        let left = end.div_ceil(BLOCK) - block;
        let bytes = |from: u64, to: u64| &data[(from - pos) as usize..(to - pos) as usize];
        match vol.map(inode, block, left)? {
            Map::Run { block: first, len } => {
                let to = end.min((block + len) * BLOCK);
                vol.pmem()
                    .store_nt(first * BLOCK + at % BLOCK, bytes(at, to))?;
                at = to;
            }
            Map::Unwritten { block: first, len } => {
                let to = end.min((block + len) * BLOCK);
                vol.pmem()
                    .store_nt(first * BLOCK + at % BLOCK, bytes(at, to))?;
                // What fits one piece is one transaction with its size.
                let whole = at == pos && to == end;
                vol.convert(inode, at..to, whole.then_some(end), now)?;
                if whole {
                    return Ok(());
                }
                at = to;
            }
            Map::Hole { len } => {
                let reserved = vol.reserve_several(vol.want(inode, block, len)?)?;
                let blocks = reserved.blocks();
                let to = end.min((block + blocks) * BLOCK);
                let mut content = vec![0; (blocks * BLOCK) as usize];
                let skip = (at % BLOCK) as usize;
                content[skip..skip + (to - at) as usize].copy_from_slice(bytes(at, to));
                let mut rest = &content[..];
                for run in reserved.runs() {
                    let (part, after) = rest.split_at((run.len * BLOCK) as usize);
                    vol.pmem().store_nt(run.block * BLOCK, part)?;
                    rest = after;
                }
                // What fits one piece is one transaction with its size.
                let whole = at == pos && to == end;
                vol.insert(inode, block, reserved, whole.then_some(end), now)?;
                if whole {
                    return Ok(());
                }
                at = to;
            }
        }
    }
    if end <= inode.size() {
        return vol.pmem().fence();
    }
    vol.extend(inode, end, pos, Some(now))
}

/// Reads up to `len` bytes at `pos`, not past the size.
pub fn read<P: Pmem>(vol: &Volume<P>, inode: &mut Inode, pos: u64, len: u64) -> Result<Vec<u8>> {
    let end = (pos + len).min(inode.size());
    let mut out = Vec::new();
    let mut at = pos;
    while at < end {
        let block = at / BLOCK;
        let (to, from) = match vol.map(inode, block, end.div_ceil(BLOCK) - block)? {
            Map::Run { block: first, len } => (
                end.min((block + len) * BLOCK),
                Some(first * BLOCK + at % BLOCK),
            ),
            Map::Hole { len } | Map::Unwritten { len, .. } => {
                (end.min((block + len) * BLOCK), None)
            }
        };
        let mut part = vec![0; (to - at) as usize];
        if let Some(from) = from {
            vol.pmem().read(from, &mut part)?;
        }
        out.extend_from_slice(&part);
        at = to;
    }
    Ok(out)
}

/// A name as readdir shows it: cookie, name, inode number, type.
pub type Shown = (u64, Vec<u8>, u64, u8);

/// Shows the names of a directory with a cookie above `after` to `emit`, until it returns false.
pub fn readdir<P: Pmem>(
    vol: &Volume<P>,
    dir: &mut Inode,
    after: u64,
    emit: &mut dyn FnMut(&DirEntryRef<'_>) -> bool,
) -> Result<()> {
    let mut next = Some(after + 1);
    while let Some(from) = next {
        let Some(listing) = vol.readdir(dir, from)? else {
            break;
        };
        next = listing.show(vol, emit)?;
    }
    Ok(())
}

/// Every name of a directory, `batch` names a call.
pub fn list<P: Pmem>(vol: &Volume<P>, dir: &mut Inode, batch: usize) -> Result<Vec<Shown>> {
    let mut all: Vec<Shown> = Vec::new();
    loop {
        let after = all.last().map_or(1, |e| e.0);
        let mut n = 0;
        readdir(vol, dir, after, &mut |e| {
            all.push((e.cookie, e.name.to_vec(), e.ino, e.file_type));
            n += 1;
            n < batch
        })?;
        if n < batch {
            return Ok(all);
        }
    }
}
