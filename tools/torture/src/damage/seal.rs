// SPDX-License-Identifier: GPL-2.0

//! Checksums made right, for the content that a structure has now.

use rdax_volume::env::crc32c;
use rdax_volume::volume::check::crc;
use rdax_volume::volume::format::{
    Dirent, LaneHeader, NodeHeader, Summary, SuperBlock, XattrHeader, BLOCK, LANE_BODY, LANE_BYTES,
};
use zerocopy::{FromBytes, IntoBytes};

use super::change::Draft;
use super::place::{Kind, Place};

/// The structure that `bytes` begins with.
fn view<T: FromBytes + zerocopy::Immutable>(bytes: &[u8]) -> T {
    T::read_from_prefix(bytes).expect("long enough").0
}

/// Bytes of a lane header under its checksum.
const HEADER_COVERED: usize = std::mem::offset_of!(LaneHeader, retired);

/// Gives the structure at `place` the checksum of what it holds.
pub fn seal(draft: &mut Draft<'_, '_>, place: &Place) {
    let at = place.at;
    let crc = |bytes: &[u8]| crc(place.seed, bytes);
    let whole = draft.read(at, place.len);
    let mut put = |sum: u32, field: u64| draft.store(at + field, &sum.to_le_bytes());
    match place.kind {
        Kind::SuperBlock => {
            let mut sb: SuperBlock = view(&whole);
            rdax_volume::volume::super_block::seal(&mut sb, at);
            draft.store(at, sb.as_bytes());
        }
        Kind::LaneHeader => put(crc(&whole[..HEADER_COVERED]), 0),
        Kind::LaneBody => {
            // The header that names it: its lane begins before the body.
            let header_at = place.header;
            let mut header: LaneHeader = view(&draft.read(header_at, size_of::<LaneHeader>()));
            let len = u64::from(header.body_len.get()).min(LANE_BYTES - LANE_BODY);
            let body = draft.read(at, len as usize);
            header.body_crc.set(crc32c(place.seed, &body));
            header.crc.set(crc(&header.as_bytes()[..HEADER_COVERED]));
            draft.store(header_at, header.as_bytes());
        }
        Kind::Summary | Kind::Bitmap => {
            // One seals the other; `header` is the summary's address, `number` the chunk's.
            let bitmap = draft.read(place.bitmap, 64);
            let mut summary: Summary = view(&draft.read(place.header, size_of::<Summary>()));
            let sum = crc32c(crc32c(place.seed, &bitmap), &summary.as_bytes()[4..]);
            summary.crc.set(crc32c(sum, &place.number.to_le_bytes()));
            draft.store(place.header, summary.as_bytes());
        }
        Kind::InodeChunk | Kind::SystemInode | Kind::Inode | Kind::LeafHeader => {
            put(crc(&whole), 0)
        }
        Kind::Node => {
            let header: NodeHeader = view(&whole);
            let used = size_of::<NodeHeader>() + usize::from(header.count.get()) * 16;
            put(crc(&whole[..used.min(whole.len())]), 0);
        }
        Kind::Record => {
            let head: Dirent = view(&whole);
            let used = size_of::<Dirent>() + usize::from(head.name_len);
            // A name that has grown may go beyond the leaf.
            let left = BLOCK - at % BLOCK;
            let bytes = draft.read(at, used.min(left as usize));
            draft.store(at, &crc(&bytes).to_le_bytes());
        }
        Kind::Xattrs => {
            let header: XattrHeader = view(&whole);
            let used = (header.len.get() as usize).clamp(size_of::<XattrHeader>(), whole.len());
            put(crc(&whole[..used]), 0);
        }
        Kind::OrphanSlot => {
            let sum = crc32c(crc32c(place.seed, &whole[..8]), &whole[12..]);
            let sum = crc32c(sum, &place.number.to_le_bytes());
            put(sum, 8);
        }
    }
}
