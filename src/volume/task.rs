// SPDX-License-Identifier: GPL-2.0

//! Operations on a range of a file that take several transactions, and yet happen at once.
//!
//! With the first transaction the operation has happened: the orphan file says what is to be done,
//! and after a crash the next mount does it. If one of the others fails, for lack of memory, what
//! is left is remembered in the inode ([`Rest`]); the file is shown as if it were done, and it is
//! done before anything else changes the file.

use super::error::{Error, Result};
use super::extent::{self, Edited, Media};
use super::file::{check_file, Map};
use super::format::{RawInode, WORK_CUT, WORK_UNWRITE};
use super::inode::{Before, Inode, WHOLE};
use super::journal::Tx;
use super::orphan::OrphanReservation;
use super::pmem::Pmem;
use super::Volume;

/// What is done to the blocks of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// They become a hole, and are freed.
    Cut,
    /// Those that are data become unwritten.
    Unwrite,
}

impl Work {
    /// As the orphan file says it.
    pub(super) fn on_media(self) -> u32 {
        match self {
            Work::Cut => WORK_CUT,
            Work::Unwrite => WORK_UNWRITE,
        }
    }

    /// What the orphan file says.
    pub(super) fn of_media(work: u32) -> Option<Work> {
        match work {
            WORK_CUT => Some(Work::Cut),
            WORK_UNWRITE => Some(Work::Unwrite),
            _ => None,
        }
    }
}

/// Something to be done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// What.
    pub work: Work,
    /// The file blocks: the first, and the first after them.
    pub keys: (u64, u64),
}

/// What is left of a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    task: Task,
    /// Why it was not done.
    pub(super) why: Error,
}

impl Rest {
    /// What the file shows of `map`, which is that of `file_block` on the media.
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
    /// Logs what one transaction can do of the task. Returns the end of the range that is left, and
    /// the leaf that has changed.
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

    /// Does `task` to a file, of which nothing is left to do, and `change` with it.
    #[inline(never)]
    pub(super) fn carry_out(
        &self,
        inode: &mut Inode,
        task: Task,
        change: impl FnOnce(&mut Tx<'_, P>, &mut RawInode) -> Result<()>,
    ) -> Result<()> {
        // A root alone takes one transaction.
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
            // What is damaged is found before anything has happened.
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

    /// Does what is left of a task that has begun. It fails only if the volume has; what cannot be
    /// done else is remembered.
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
        // Without a name, it stays there until it is freed.
        if left.is_none() && inode.nlink() > 0 {
            tx.detach_orphan(&mut inode.raw)?;
        }
        inode.log_change(&mut tx, before)?;
        tx.commit()?;
        inode.keep(edited);
        Ok(left)
    }

    /// Does what is left to do to a file, before something else changes it. Fails as that does.
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

    /// Finds out what is left to do to `inode`, which was just read.
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

    /// Does what is left to do to `inode`, which has a name, and takes it out of the orphan file:
    /// what a mount does with an operation that a crash has interrupted.
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
