// SPDX-License-Identifier: GPL-2.0

//! Removing a range from a file, and inserting one: everything behind it moves to other offsets.
//!
//! No data is touched: the extents get other keys. A new tree with all of them replaces the old one
//! in one transaction. The extents of a removed range with many extents stay in the new tree at
//! first, at keys that no file reaches, and are freed afterwards.

use zerocopy::little_endian::U64;

use super::error::{Error, Result};
use super::extent::{self, joins, sub_blocks, Mapping, Media, Whole, KEY_END};
use super::file::{check_file, end_of, modified, FILE_END};
use super::format::{Time, BLOCK, MAX_FILE};
use super::inode::{Before, Inode, WHOLE};
use super::num::to_i64;
use super::orphan::OrphanReservation;
use super::pmem::Pmem;
use super::task::{Task, Work};
use super::Volume;
use crate::env::Vec;

/// The most extents of a range that are freed in the transaction that removes it.
const FREE_MAX: usize = 256;

/// The extents of a file, being listed anew.
struct Listed(Vec<Mapping>);

impl Listed {
    /// Adds the part of `m`, an extent of the old file, in `from..to`, moved by `by` blocks.
    fn add(&mut self, m: &Mapping, from: u64, to: u64, by: i64) -> Result<()> {
        let (start, end) = (m.key.max(from), m.end().min(to));
        if start >= end {
            return Ok(());
        }
        let new = Mapping {
            key: start.checked_add_signed(by).ok_or(Error::TooBig)?,
            ..m.part(start, end)
        };
        if new.end() > FILE_END {
            return Err(Error::TooBig);
        }
        if let Some(last) = self.0.last_mut() {
            if joins(last, &new) {
                last.len += new.len;
                return Ok(());
            }
        }
        Ok(self.0.push(new)?)
    }
}

impl<P: Pmem> Volume<P> {
    /// Removes the file blocks `file_block..file_block + len` from the file, and frees their
    /// blocks: everything behind them moves forward, and the size shrinks. Sets the timestamps.
    ///
    /// Very many extents are freed in separate transactions, after the one that removes them. Fails
    /// with [`Error::Invalid`] if the range reaches the end of the file, and with [`Error::TooBig`]
    /// if the file has more extents than one transaction can move (some 100,000).
    #[inline(never)]
    pub fn collapse(&self, inode: &mut Inode, file_block: u64, len: u64, now: Time) -> Result<()> {
        check_file(inode)?;
        let end = end_of(file_block, len)?;
        if end * BLOCK >= inode.size() {
            return Err(Error::Invalid);
        }
        self.finish_rest(inode)?;
        let old = extent::read_whole(&Media::of(self), inode)?;
        let (mut new, mut gone) = (Listed(Vec::new()), Listed(Vec::new()));
        for m in old.extents.iter() {
            new.add(m, 0, file_block, 0)?;
            gone.add(m, file_block, end, 0)?;
            new.add(m, end, u64::MAX, -to_i64(len))?;
        }
        let mut task = None;
        if gone.0.len() > FREE_MAX {
            for m in gone.0.iter() {
                let key = FILE_END + (m.key - file_block);
                new.0.push(Mapping { key, ..*m })?;
            }
            gone.0.clear();
            task = Some(Task {
                work: Work::Cut,
                keys: (FILE_END, KEY_END),
            });
        }
        let size = inode.size() - len * BLOCK;
        self.put_extents(inode, &old, (&new.0, &gone.0), size, task, now)
    }

    /// Inserts a hole of `len` blocks into the file before `file_block`: everything from there on
    /// moves back, and the size grows. Sets the timestamps.
    ///
    /// Fails with [`Error::Invalid`] if `file_block` is not within the file, and with
    /// [`Error::TooBig`] past the largest file, or as [`Volume::collapse`].
    #[inline(never)]
    pub fn make_gap(&self, inode: &mut Inode, file_block: u64, len: u64, now: Time) -> Result<()> {
        check_file(inode)?;
        end_of(file_block, len)?;
        if file_block * BLOCK >= inode.size() {
            return Err(Error::Invalid);
        }
        let size = inode.size() + len * BLOCK;
        if size > MAX_FILE {
            return Err(Error::TooBig);
        }
        self.finish_rest(inode)?;
        let old = extent::read_whole(&Media::of(self), inode)?;
        let mut new = Listed(Vec::new());
        for m in old.extents.iter() {
            new.add(m, 0, file_block, 0)?;
            new.add(m, file_block, u64::MAX, to_i64(len))?;
        }
        self.put_extents(inode, &old, (&new.0, &[]), size, None, now)
    }

    /// Replaces the extents `old` of the file by `new`, frees those that are `gone`, and sets the
    /// size. Then does `task`.
    fn put_extents(
        &self,
        inode: &mut Inode,
        old: &Whole,
        extents: (&[Mapping], &[Mapping]),
        size: u64,
        task: Option<Task>,
        now: Time,
    ) -> Result<()> {
        let orphan = match task.is_some() && inode.raw.orphan.get() == 0 {
            true => Some(self.reserve_orphan()?),
            false => None,
        };
        let before = inode.before::<WHOLE>();
        inode.raw.size = U64::new(size);
        modified(&mut inode.raw, now);
        let result = self.put_extents_at(inode, &before, old, extents, orphan, task);
        if result.is_err() {
            inode.restore(&before);
            return result;
        }
        match task {
            Some(task) => self.go_on(inode, task),
            None => Ok(()),
        }
    }

    fn put_extents_at(
        &self,
        inode: &mut Inode,
        before: &Before<WHOLE>,
        old: &Whole,
        (new, gone): (&[Mapping], &[Mapping]),
        orphan: Option<OrphanReservation<'_, P>>,
        task: Option<Task>,
    ) -> Result<()> {
        let mut tx = self.begin()?;
        if let Some(orphan) = orphan {
            tx.attach_orphan(orphan, &mut inode.raw, task)?;
        }
        for m in gone {
            tx.free(m.block, m.len)?;
            sub_blocks(&mut inode.raw, m.len);
        }
        extent::replace(&mut tx, inode, old, new)?;
        inode.log_change(&mut tx, before)?;
        tx.commit()
    }
}
