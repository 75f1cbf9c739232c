// SPDX-License-Identifier: GPL-2.0

//! The entries of a transaction's body: written, read, and applied in place.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::BODY_MAX;
use crate::env::Vec;
use crate::volume::alloc::{bits, Run};
use crate::volume::error::{Error, Result};
use crate::volume::format::{
    LogEntry, BLOCK, ENTRY_ALLOC, ENTRY_FREE, ENTRY_INODE_ALLOC, ENTRY_INODE_FREE, ENTRY_WRITE,
    INODES_PER_CHUNK, INODE_CHUNK_BLOCKS,
};
use crate::volume::persist::Dirty;
use crate::volume::pmem::Pmem;
use crate::volume::super_block::Geometry;
use crate::volume::table;

/// Bytes of an entry's head.
pub(super) const HEAD: usize = size_of::<LogEntry>();

/// Entries are padded to this many bytes.
const ALIGN: usize = 8;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// Bytes to write.
    Write { at: u64, bytes: &'a [u8] },
    /// Blocks to mark.
    Blocks { run: Run, used: bool },
    /// An inode to mark: the byte address of its chunk's header, and its slot.
    Inode { header: u64, slot: u64, used: bool },
}

/// Bytes that an entry with `payload` bytes takes.
pub(super) const fn size(payload: usize) -> usize {
    HEAD + payload.next_multiple_of(ALIGN)
}

impl Entry<'_> {
    /// Appends the entry to `body`. Fails with [`Error::Invalid`] if it does not fit.
    pub(super) fn log(self, body: &mut Vec<u8>) -> Result<()> {
        let (kind, len, at, bytes) = match self {
            Entry::Write { at, bytes } => (ENTRY_WRITE, bytes.len() as u64, at, bytes),
            Entry::Blocks { run, used } => {
                let kind = if used { ENTRY_ALLOC } else { ENTRY_FREE };
                (kind, run.len, run.block, [].as_slice())
            }
            Entry::Inode { header, slot, used } => {
                let kind = if used {
                    ENTRY_INODE_ALLOC
                } else {
                    ENTRY_INODE_FREE
                };
                (kind, slot, header, [].as_slice())
            }
        };
        if size(bytes.len()) > BODY_MAX - body.len() {
            return Err(Error::Invalid);
        }
        let head = LogEntry {
            kind: U32::new(kind),
            len: U32::new(u32::try_from(len).map_err(|_| Error::Invalid)?),
            at: U64::new(at),
        };
        body.extend_from_slice(head.as_bytes())?;
        body.extend_from_slice(bytes)?;
        let padding = bytes.len().next_multiple_of(ALIGN) - bytes.len();
        if let Some(padding) = [0; ALIGN].get(..padding) {
            body.extend_from_slice(padding)?;
        }
        Ok(())
    }

    /// Takes the first entry off `body`. None if it is no entry, or names a place that it must not.
    pub(super) fn parse<'a>(body: &mut &'a [u8], geo: &Geometry) -> Option<Entry<'a>> {
        let (head, rest) = LogEntry::read_from_prefix(body).ok()?;
        let (len, at) = (u64::from(head.len.get()), head.at.get());
        *body = rest;
        match head.kind.get() {
            ENTRY_WRITE => {
                let bytes = rest.get(..head.len.get() as usize)?;
                *body = rest.get(bytes.len().next_multiple_of(ALIGN)..)?;
                geo.contains(at, len).then_some(Entry::Write { at, bytes })
            }
            kind @ (ENTRY_ALLOC | ENTRY_FREE) => {
                let run = Run { block: at, len };
                let used = kind == ENTRY_ALLOC;
                (len > 0 && geo.is_data(at, len)).then_some(Entry::Blocks { run, used })
            }
            kind @ (ENTRY_INODE_ALLOC | ENTRY_INODE_FREE) => {
                let used = kind == ENTRY_INODE_ALLOC;
                let inside = at % BLOCK == 0
                    && geo.is_data(at / BLOCK, INODE_CHUNK_BLOCKS)
                    && (1..INODES_PER_CHUNK).contains(&len);
                inside.then_some(Entry::Inode {
                    header: at,
                    slot: len,
                    used,
                })
            }
            _ => None,
        }
    }

    /// Makes the change in place. Doing it again changes nothing. The caller holds the lock of the
    /// allocation group or of the inode slots, or is recovery.
    pub(super) fn apply<P: Pmem, S>(
        self,
        dirty: &mut Dirty<'_, P, S>,
        pmem: &P,
        geo: &Geometry,
    ) -> Result<()> {
        match self {
            Entry::Write { at, bytes } => dirty.store(at, bytes),
            Entry::Blocks { run, used } => bits::apply(dirty, pmem, geo, run, used),
            Entry::Inode { header, slot, used } => table::apply(dirty, pmem, header, slot, used),
        }
    }
}
