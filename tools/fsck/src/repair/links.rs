// SPDX-License-Identifier: GPL-2.0

//! The links between structures: orphan slots, link counts, parents, and lost+found.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rdax_volume::volume::check::{Kind, Problem};
use rdax_volume::volume::error::{Error, Result, Structure};
use rdax_volume::volume::format::{OrphanSlot, Time, ATTR_DAX, ROOT_INO};
use rdax_volume::volume::namespace::NewInode;
use rdax_volume::volume::orphan;
use rdax_volume::volume::{MountOptions, Volume};
use zerocopy::little_endian::{U32, U64};
use zerocopy::IntoBytes;

use super::dir::Name;
use super::{is_local, of, Repair};
use crate::media::{file_type, DT_DIR};

/// The directory for inodes that have lost their names.
const LOST_AND_FOUND: &[u8] = b"lost+found";
/// A directory for the superuser only: the inodes in it have lost the directories that protected
/// them.
const LOST_AND_FOUND_MODE: u16 = 0o040700;
/// The most numbers tried for a name that is taken.
const TRIES: u32 = 1000;

/// `bytes`, or `bytes` with a number.
fn numbered(bytes: &[u8], n: u32) -> Vec<u8> {
    match n {
        0 => bytes.to_vec(),
        n => [bytes, format!(".{n}").as_bytes()].concat(),
    }
}

impl Repair<'_, '_> {
    /// Slots of the orphan file, and inodes that are not in the one they name.
    pub(super) fn orphan_slots(&mut self, problems: &[Problem]) -> Result<bool> {
        let mut done = false;
        for problem in of(problems, Structure::Orphan) {
            if problem.kind == Kind::Unreadable {
                continue;
            }
            self.log
                .commit(&[(problem.at, vec![0; size_of::<OrphanSlot>()])])?;
            self.say(format!("orphan slot at {:#x} emptied", problem.at));
            done = true;
        }
        for problem in problems {
            let (Kind::OrphanSlot { slot }, Some(ino)) = (problem.kind, problem.ino) else {
                continue;
            };
            let Some((at, mut raw)) = self.media.inode(ino).filter(|_| !done) else {
                continue;
            };
            let place = self.orphan_at(slot);
            let empty = place.and_then(|at| self.media.get::<OrphanSlot>(at));
            if let (Some(place), true) = (place, empty.is_some_and(|slot| slot.ino.get() == 0)) {
                let entry = orphan::unlinked(self.media.geo.seed, ino, slot);
                self.log.commit(&[(place, entry.as_bytes().to_vec())])?;
                self.say(format!("inode {ino}: entered in the orphan file again"));
                return Ok(true);
            }
            raw.orphan = U32::ZERO;
            self.put_inode(at, raw)?;
            self.say(format!("inode {ino}: not in the orphan file any more"));
            done = true;
        }
        Ok(done)
    }

    /// Link counts and parents. An inode in the orphan file that is not removed leaves it.
    pub(super) fn links(&mut self, problems: &[Problem]) -> Result<bool> {
        let (mut fields, mut keep) = (BTreeMap::<u64, Vec<Kind>>::new(), BTreeSet::new());
        for problem in of(problems, Structure::Inode) {
            let Some(ino) = problem.ino else { continue };
            match problem.kind {
                Kind::Links { counted: 0, .. } | Kind::RemovedNotEmpty | Kind::OrphanNamed => {
                    keep.insert(ino);
                }
                Kind::Links { .. } | Kind::Parent { .. } => {
                    fields.entry(ino).or_default().push(problem.kind);
                }
                _ => {}
            }
        }
        let done = !fields.is_empty() || !keep.is_empty();
        for ino in keep {
            let Some((at, mut raw)) = self.media.inode(ino) else {
                continue;
            };
            let slot = raw.orphan.get().checked_sub(1);
            let slot = slot.and_then(|slot| self.orphan_at(slot.into()));
            raw.orphan = U32::ZERO;
            // An inode without a link is free: it gets one until links are counted.
            raw.nlink = U32::new(raw.nlink.get().max(1));
            rdax_volume::volume::inode::seal(&mut raw, self.media.geo.seed);
            let mut writes = vec![(at, raw.as_bytes().to_vec())];
            writes.extend(slot.map(|slot| (slot, vec![0; size_of::<OrphanSlot>()])));
            self.log.commit(&writes)?;
            self.say(format!("inode {ino}: not removed, out of the orphan file"));
        }
        for (ino, kinds) in fields {
            let Some((at, mut raw)) = self.media.inode(ino) else {
                continue;
            };
            for kind in kinds {
                match kind {
                    // The last report has the number found; the first may only say that there are
                    // too many.
                    Kind::Links { counted, .. } => raw.nlink = U32::new(counted as u32),
                    Kind::Parent { found, .. } => raw.parent = U64::new(found.max(ROOT_INO)),
                    _ => {}
                }
                self.say(format!("inode {ino}: corrected: {kind}"));
            }
            self.put_inode(at, raw)?;
        }
        Ok(done)
    }

    /// Cuts one loop of directories: one of them loses its name.
    pub(super) fn loops(&mut self, problems: &[Problem]) -> Result<bool> {
        let found = problems.iter().find(|problem| problem.kind == Kind::Loop);
        let Some(ino) = found.and_then(|problem| problem.ino) else {
            return Ok(false);
        };
        let mut done = false;
        for (dir, block, offset) in self.names_of(ino) {
            done |= self.remove_entry(dir, block, offset)?;
        }
        self.say(format!(
            "inode {ino}: taken out of the directories that are their own ancestors"
        ));
        Ok(done)
    }

    /// Puts inodes that no directory names into lost+found.
    pub(super) fn unreachable(&mut self, problems: &[Problem]) -> Result<bool> {
        let lost: BTreeSet<u64> = problems
            .iter()
            .filter(|problem| problem.kind == Kind::Unreachable)
            .filter_map(|problem| problem.ino)
            .collect();
        if lost.is_empty() {
            return Ok(false);
        }
        let dir = match self.lost_and_found() {
            Ok(Some(dir)) => dir,
            // Created just now: the next round sees it.
            Ok(None) => return Ok(true),
            Err(e) => {
                self.say(format!("no directory for what was lost: {e}"));
                return Ok(false);
            }
        };
        let Some((at, raw)) = self.media.inode(dir) else {
            return Ok(false);
        };
        let mut taken: HashSet<Vec<u8>> = HashSet::new();
        for m in self.media.extents(&raw) {
            let entries = self.media.entries(dir, m.block).into_iter();
            taken.extend(entries.map(|entry| entry.name));
        }
        let mut names = Vec::new();
        for &ino in &lost {
            let Some((_, target)) = self.media.inode(ino) else {
                continue;
            };
            let plain = format!("#{ino}").into_bytes();
            let mut bytes = (0..TRIES).map(|n| numbered(&plain, n));
            if let Some(bytes) = bytes.find(|bytes| taken.insert(bytes.clone())) {
                names.push(Name {
                    bytes,
                    ino,
                    file_type: file_type(&target),
                    cookie: 0,
                });
            }
        }
        match self.rebuild_directory(dir, at, raw, false, names) {
            Ok(()) => {
                for ino in lost {
                    self.say(format!("inode {ino}: put into lost+found as #{ino}"));
                }
                Ok(true)
            }
            Err(e) if is_local(&e) => {
                self.say(format!("lost+found: {e}"));
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// The directory lost+found. `None` if it was created just now.
    fn lost_and_found(&mut self) -> Result<Option<u64>> {
        let volume = Volume::mount(self.media.pmem, MountOptions::default())?;
        let mut root = volume.iget(ROOT_INO)?;
        for n in 0..TRIES {
            let name = numbered(LOST_AND_FOUND, n);
            match volume.lookup(&mut root, &name)? {
                Some(entry) if entry.file_type == DT_DIR => return Ok(Some(entry.ino)),
                Some(_) => continue,
                None => {}
            }
            let new = NewInode {
                mode: LOST_AND_FOUND_MODE,
                attrs: root.attrs() & ATTR_DAX,
                now: Time {
                    sec: self.media.sb.made_sec.get(),
                    nsec: 0,
                },
                ..NewInode::default()
            };
            volume.create(&mut root, &name, &new)?;
            let name = String::from_utf8_lossy(&name).into_owned();
            self.say(format!("/{name} made"));
            return Ok(None);
        }
        Err(Error::Exists)
    }
}
