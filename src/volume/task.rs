// SPDX-License-Identifier: GPL-2.0

//! Operations on a range of a file that take several transactions, and are atomic nevertheless.
//!
//! The operation takes effect with the first transaction: the orphan file records the work, and
//! after a crash the next mount does it. If one of the others fails, for lack of memory, the inode
//! records the rest ([`Rest`]). The file looks as if the work were done, and it is done before
//! anything else changes the file.

use super::error::{Error, Result};
use super::extent::{self, Edited, Media};
use super::file::{check_file, Map};
use super::format::{RawInode, WORK_CUT, WORK_UNWRITE};
use super::inode::{Before, Inode, WHOLE};
use super::journal::Tx;
use super::orphan::OrphanReservation;
use super::pmem::Pmem;
use super::Volume;

/// The kind of work on the blocks of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// They become a hole, and are freed.
    Cut,
    /// Data among them becomes unwritten.
    Unwrite,
}

impl Work {
    /// Its code in the orphan file.
    pub(super) fn on_media(self) -> u32 {
        match self {
            Work::Cut => WORK_CUT,
            Work::Unwrite => WORK_UNWRITE,
        }
    }

    /// From its code in the orphan file.
    pub(super) fn of_media(work: u32) -> Option<Work> {
        match work {
            WORK_CUT => Some(Work::Cut),
            WORK_UNWRITE => Some(Work::Unwrite),
            _ => None,
        }
    }
}

/// Work on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The kind.
    pub work: Work,
    /// The file blocks: the first, and the first after them.
    pub keys: (u64, u64),
}

/// The rest of a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    task: Task,
    /// Why it was not done.
    pub(super) why: Error,
}

impl Rest {
    /// The mapping that the file shows instead of `map`, which is that of `file_block` on the
    /// media.
    pub(super) fn shown(&self, map: Map, file_block: u64) -> Map {
        let (from, to) = self.task.keys;
        let len = map.file_blocks();
        if file_block >= to || file_block + len <= from {
            return map;
        }
        if file_block < from {
            return map.first(from - file_block);
        }
        let map = map.first(len.min(to - file_block));
        match (self.task.work, map) {
            (Work::Cut, _) => Map::Hole {
                len: map.file_blocks(),
            },
            (Work::Unwrite, Map::Run { block, len }) => Map::Unwritten { block, len },
            (Work::Unwrite, map) => map,
        }
    }
}

impl Task {
    /// Logs as much of the task as one transaction can do. Returns the end of the remaining range,
    /// and the changed leaf.
    fn step<P: Pmem>(
        &self,
        tx: &mut Tx<'_, P>,
        media: &Media<'_, P>,
        inode: &mut Inode,
    ) -> Result<(Option<u64>, Edited)> {
        match self.work {
            Work::Cut => extent::cut(tx, media, inode, self.keys),
            Work::Unwrite => extent::unwrite(tx, media, inode, self.keys),
        }
    }
}

impl<P: Pmem> Volume<P> {
    /// Makes room in the tree for the entries that `task` adds.
    pub(super) fn room_for(&self, inode: &mut Inode, task: &Task) -> Result<()> {
        let (from, to) = task.keys;
        match task.work {
            Work::Unwrite => {
                extent::make_room(self, inode, from, 2)?;
                extent::make_room(self, inode, to - 1, 1)?;
            }
            Work::Cut => {}
        }
        Ok(())
    }

    /// Does `task` on a file without unfinished work, together with `change`.
    #[inline(never)]
    pub(super) fn carry_out(
        &self,
        inode: &mut Inode,
        task: Task,
        change: impl FnOnce(&mut Tx<'_, P>, &mut RawInode) -> Result<()>,
    ) -> Result<()> {
        // Without nodes, one transaction is enough.
        let orphan = match inode.raw.depth > 0 && inode.raw.orphan.get() == 0 {
            true => Some(self.reserve_orphan()?),
            false => None,
        };
        let before = inode.before::<WHOLE>();
        match self.first_step(inode, &before, &task, orphan, change) {
            Ok(None) => Ok(()),
            Ok(Some(to)) => {
                let keys = (task.keys.0, to);
                self.go_on(inode, Task { keys, ..task })
            }
            Err(error) => {
                inode.restore(&before);
                Err(error)
            }
        }
    }

    fn first_step(
        &self,
        inode: &mut Inode,
        before: &Before<WHOLE>,
        task: &Task,
        orphan: Option<OrphanReservation<'_, P>>,
        change: impl FnOnce(&mut Tx<'_, P>, &mut RawInode) -> Result<()>,
    ) -> Result<Option<u64>> {
        let media = Media::of(self);
        let mut tx = self.begin()?;
        change(&mut tx, &mut inode.raw)?;
        let (left, edited) = task.step(&mut tx, &media, inode)?;
        if left.is_some() {
            // Damage is found before the operation takes effect.
            extent::verify(&media, &before.raw()?, inode.at, task.keys)?;
            if let Some(orphan) = orphan {
                tx.attach_orphan(orphan, &mut inode.raw, Some(*task))?;
            }
        }
        inode.log_change(&mut tx, before)?;
        tx.commit()?;
        inode.keep(edited);
        Ok(left)
    }

    /// Does the rest of a task that has begun. Fails only if the volume has failed; after other
    /// errors, the rest is recorded.
    #[inline(never)]
    pub(super) fn go_on(&self, inode: &mut Inode, mut task: Task) -> Result<()> {
        loop {
            let before = inode.before::<WHOLE>();
            match self.next_step(inode, &before, &task) {
                Ok(Some(to)) => task.keys.1 = to,
                Ok(None) => {
                    inode.rest = None;
                    return Ok(());
                }
                Err(why) => {
                    inode.restore(&before);
                    inode.rest = Some(Rest { task, why });
                    return self.check_failed();
                }
            }
        }
    }

    fn next_step(
        &self,
        inode: &mut Inode,
        before: &Before<WHOLE>,
        task: &Task,
    ) -> Result<Option<u64>> {
        let mut tx = self.begin()?;
        let (left, edited) = task.step(&mut tx, &Media::of(self), inode)?;
        // Without a name, the inode stays there until it is freed.
        if left.is_none() && inode.nlink() > 0 {
            tx.detach_orphan(&mut inode.raw)?;
        }
        inode.log_change(&mut tx, before)?;
        tx.commit()?;
        inode.keep(edited);
        Ok(left)
    }

    /// Does the unfinished work on a file, before something else changes it. Fails as that does.
    #[inline]
    pub(super) fn finish_rest(&self, inode: &mut Inode) -> Result<()> {
        match inode.rest {
            Some(rest) => self.do_rest(inode, rest),
            None => Ok(()),
        }
    }

    #[inline(never)]
    fn do_rest(&self, inode: &mut Inode, rest: Rest) -> Result<()> {
        self.room_for(inode, &rest.task)?;
        self.go_on(inode, rest.task)?;
        inode.rest.map_or(Ok(()), |rest| Err(rest.why))
    }

    /// Finds the unfinished work of `inode`, which was just read.
    pub(super) fn read_rest(&self, inode: &mut Inode) -> Result<()> {
        inode.rest = None;
        let Some(slot) = inode.raw.orphan.get().checked_sub(1) else {
            return Ok(());
        };
        if inode.nlink() > 0 && check_file(inode).is_ok() {
            let task = self.task_of(inode, slot)?;
            inode.rest = task.map(|task| Rest {
                task,
                why: Error::NoMemory,
            });
        }
        Ok(())
    }

    /// Does the unfinished work of `inode`, which has a name, and removes it from the orphan file:
    /// a mount does this with operations that a crash has interrupted.
    pub(super) fn finish(&self, inode: &mut Inode) -> Result<()> {
        self.finish_rest(inode)?;
        if inode.raw.orphan.get() == 0 {
            return Ok(());
        }
        let before = inode.before::<WHOLE>();
        let mut tx = self.begin()?;
        let result = tx
            .detach_orphan(&mut inode.raw)
            .and_then(|()| inode.log_change(&mut tx, &before))
            .and_then(|()| tx.commit());
        if result.is_err() {
            inode.restore(&before);
        }
        result
    }
}
