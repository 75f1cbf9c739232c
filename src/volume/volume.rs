// SPDX-License-Identifier: GPL-2.0

//! A mounted volume.

use zerocopy::IntoBytes;

use super::alloc::Groups;
use super::error::{Error, Result, Structure};
use super::extent::Media;
use super::format::{SuperBlock, BLOCK, INODE_BYTES, ORPHAN_INO, TABLE_INO};
use super::inode::{self, Inode};
use super::journal::{self, Journal, LaneState, Recovered};
use super::num::{to_i64, to_u64};
use super::orphan::Orphans;
use super::pmem::Pmem;
use super::super_block::{self, Geometry};
use super::table::Table;
use crate::env::{Counter, Lock};

/// How a volume is mounted.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountOptions {
    /// The caller will change nothing. Recovery still completes what a crash interrupted.
    pub read_only: bool,
    /// The device must not be written, not even by recovery.
    pub write_protected: bool,
}

/// Remarkable facts about a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notes {
    /// The first superblock could not be used, for this reason; its copy was.
    pub copy_served: Option<Error>,
    /// Transactions that recovery replayed.
    pub replayed: u32,
    /// Transactions that recovery found begun but not logged, and cancelled.
    pub cancelled: u32,
}

/// Sizes and counts of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Blocks that files may use, in use or free.
    pub blocks: u64,
    /// Free blocks. What is reserved is not free.
    pub free: u64,
    /// Those of them that are not reserved for the nodes of trees: [`Geometry::reserve`].
    pub available: u64,
    /// Inodes in use.
    pub inodes_used: u64,
    /// Inodes that could be created: free slots, and inodes for which there is space.
    pub inodes_free: u64,
}

/// A mounted volume on the persistent memory `P`.
///
/// All operations take `&self` and may run on many threads at a time. The caller holds exclusive
/// access to every `&mut Inode` of a call, and shared access to every `&Inode`, until it returns.
pub struct Volume<P: Pmem> {
    pub(super) pmem: P,
    pub(super) geo: Geometry,
    pub(super) groups: Groups,
    pub(super) journal: Journal,
    pub(super) table: Table,
    pub(super) orphans: Orphans,
    /// Free blocks without those reserved.
    pub(super) free: Counter,
    /// Inodes in use and reserved.
    pub(super) used_inodes: Counter,
    sb: SuperBlock,
    /// The label, which can change, and the generation of the superblocks.
    label: Lock<([u8; 32], u64)>,
    /// Byte address of the lane whose transaction could not be completed, or 0.
    failed: Counter,
    notes: Notes,
}

/// Reads the system inode `ino` in `slot`, or if that is damaged, its copy. Its size fits the
/// volume.
#[inline(never)]
fn system_inode<P: Pmem>(pmem: &P, geo: &Geometry, slot: u64, ino: u64) -> Result<Inode> {
    let first = geo.system_inode_at(slot);
    let mut inode = Inode::blank();
    let mut why = Ok(());
    for at in [first, geo.system_copy_at(slot)] {
        let read = inode::read(pmem, geo.seed, at, ino, &mut inode);
        why = match read {
            Ok(()) if inode.size() <= geo.blocks * BLOCK => {
                inode.at = first;
                return Ok(inode);
            }
            Ok(()) => {
                let what = Structure::Inode;
                why.and(Err(Error::Corrupt { what, at }))
            }
            Err(e) => why.and(Err(e)),
        };
    }
    why.and(Err(Error::Invalid))
}

#[inline(never)]
fn open_table<P: Pmem>(pmem: &P, geo: &Geometry) -> Result<Table> {
    Ok(Table::new(system_inode(pmem, geo, 0, TABLE_INO)?)?)
}

#[inline(never)]
fn open_orphans<P: Pmem>(pmem: &P, geo: &Geometry) -> Result<Orphans> {
    let inode = system_inode(pmem, geo, 1, ORPHAN_INO)?;
    Orphans::read(&Media { pmem, geo }, inode)
}

impl<P: Pmem> Volume<P> {
    /// Opens the volume on `pmem` and completes the transactions that a crash interrupted.
    ///
    /// Nothing is written before every check has passed. Fails as [`super_block::read`] does; with
    /// [`Error::Unsupported`] if unknown features forbid writing, and writing is requested or
    /// needed for recovery; with [`Error::WriteProtected`] if recovery is needed and the device
    /// must not be written; with [`Error::Corrupt`] for a damaged lane or system inode.
    // Not inlined, here and where it says so below: the kernel's stack is small.
    #[inline(never)]
    pub fn mount(pmem: P, options: MountOptions) -> Result<Self> {
        let mut read = super_block::read(&pmem)?;
        let (geo, bits) = (read.geo, read.unknown_ro_compat);
        if bits != 0 && !options.read_only {
            return Err(Error::Unsupported { bits, ro: true });
        }
        let write = bits == 0 && !options.write_protected;
        let lanes = journal::recover(&pmem, &geo, write)?.ok_or(if bits == 0 {
            Error::WriteProtected
        } else {
            Error::Unsupported { bits, ro: false }
        })?;
        let mut notes = Notes {
            copy_served: read.copy_served,
            replayed: 0,
            cancelled: 0,
        };
        let (mut free, mut used) = (
            to_i64(read.sb.free_blocks.get()),
            to_i64(read.sb.used_inodes.get()),
        );
        for lane in lanes.iter() {
            free = free.wrapping_add(lane.free_blocks);
            used = used.wrapping_add(lane.used_inodes);
            match lane.was {
                LaneState::Retired => {}
                LaneState::Logged => notes.replayed += 1,
                LaneState::Torn => notes.cancelled += 1,
            }
        }
        let most_inodes = geo.blocks * (BLOCK / INODE_BYTES);
        if !(0..=to_i64(geo.blocks)).contains(&free) || !(0..=to_i64(most_inodes)).contains(&used) {
            return Err(Error::Corrupt {
                what: Structure::Lane,
                at: geo.lane_at(0),
            });
        }
        // A crash may have interrupted a change of the superblock itself.
        if notes.replayed > 0 {
            read = super_block::read(&pmem)?;
            notes.copy_served = read.copy_served;
        }
        Volume::open(pmem, &read, &lanes, notes, (free, used))
    }

    /// The volume whose superblock is `read`, with the `lanes` after recovery, the `notes` about
    /// it, and the numbers of free blocks and of inodes in use.
    #[inline(never)]
    fn open(
        pmem: P,
        read: &super_block::Read,
        lanes: &[Recovered],
        notes: Notes,
        (free, used): (i64, i64),
    ) -> Result<Self> {
        let geo = read.geo;
        Ok(Volume {
            groups: Groups::new(&geo)?,
            journal: Journal::new(lanes, &geo)?,
            table: open_table(&pmem, &geo)?,
            orphans: open_orphans(&pmem, &geo)?,
            free: Counter::new(free),
            used_inodes: Counter::new(used),
            label: Lock::new((read.sb.label, read.sb.generation.get()))?,
            failed: Counter::new(0),
            notes,
            sb: read.sb.clone(),
            geo,
            pmem,
        })
    }

    /// The memory that it is stored in.
    pub fn pmem(&self) -> &P {
        &self.pmem
    }

    /// The superblock as it was at mount. For the label see [`Volume::label`].
    pub fn super_block(&self) -> &SuperBlock {
        &self.sb
    }

    /// The layout.
    pub fn geometry(&self) -> &Geometry {
        &self.geo
    }

    /// The media to read trees from.
    pub(super) fn media(&self) -> Media<'_, P> {
        Media {
            pmem: &self.pmem,
            geo: &self.geo,
        }
    }

    /// Remarkable facts about the mount.
    pub fn notes(&self) -> Notes {
        self.notes
    }

    /// Sizes and counts, exact while nobody changes anything.
    pub fn statfs(&self) -> StatFs {
        let (free, available) = (self.free_blocks(), self.available_blocks());
        let inodes_used = to_u64(self.used_inodes.get());
        let slots = self.inode_slots();
        StatFs {
            blocks: self.geo.data_end() - self.geo.data_block,
            free,
            available,
            inodes_used,
            inodes_free: slots.saturating_sub(inodes_used) + super::table::slots_in(available),
        }
    }

    /// The label, padded with zero bytes.
    pub fn label(&self) -> [u8; 32] {
        self.label.lock().0
    }

    /// Changes the label: at most 32 bytes of UTF-8 without zero bytes. Not called within a
    /// transaction.
    ///
    /// Fails with [`Error::Invalid`] for another label.
    pub fn set_label(&self, label: &str) -> Result<()> {
        let mut current = self.label.lock();
        let bytes = super_block::label(label)?;
        let generation = current.1.wrapping_add(1);
        // In two transactions: while one superblock changes, the other is intact, since mount reads
        // them before it recovers.
        for at in [0, super_block::copy_at(self.geo.blocks * BLOCK)] {
            let mut old = self.sb.clone();
            self.pmem.read(at, old.as_mut_bytes())?;
            let mut new = self.sb.clone();
            new.label = bytes;
            new.generation.set(generation);
            super_block::seal(&mut new, at);
            let mut tx = self.begin()?;
            tx.update(at, old.as_bytes(), new.as_bytes())?;
            tx.commit()?;
        }
        *current = (bytes, generation);
        Ok(())
    }

    /// Whether a transaction could not be completed. Then nothing can be changed any more, the
    /// metadata in place may lack the rest of that transaction, and only recovery at the next mount
    /// helps.
    pub fn is_failed(&self) -> bool {
        self.failed.get() != 0
    }

    pub(super) fn check_failed(&self) -> Result<()> {
        match self.failed.get() {
            0 => Ok(()),
            at => Err(Error::Media { at: to_u64(at) }),
        }
    }

    /// The transaction in the lane at byte `at` could not be completed.
    pub(super) fn fail(&self, at: u64) {
        if self.failed.get() == 0 {
            self.failed.add(to_i64(at));
        }
    }
}
