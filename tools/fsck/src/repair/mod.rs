// SPDX-License-Identifier: GPL-2.0

//! Repairing a volume: repairs what the checker reports, and runs the checker again, until it finds
//! nothing or nothing more can be done.
//!
//! The checker's problems are processed in *stages*, those that others depend on first: a round
//! does one stage, so that no consequence of another problem is repaired. Nothing is guessed: a
//! structure is rebuilt from sound structures that name it, or it is removed, and a line says so.
//!
//! Every change is a transaction of the volume's own journal ([`log`]), or writes to blocks that
//! nothing refers to, or replaces one damaged line by a sound one. New blocks are marked before
//! they are used, old ones freed when nothing else is wrong any more. So after an interrupted
//! repair the next one repairs the volume, and loses nothing more.

mod dir;
mod inode;
mod links;
mod log;
mod safe;
mod space;
mod system;
mod tree;
mod xattr;

use std::collections::HashSet;

use rdax_volume::volume::check::{self, Kind, Problem, Summary};
use rdax_volume::volume::error::{Error, Result, Structure};
use rdax_volume::volume::format::BLOCK;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{MountOptions, Volume};

pub use safe::is_safe;
pub use system::restore_super_blocks;

use crate::media::Media;
use log::Log;
use space::Named;

/// The most rounds: far more than any damage has needed. Each does all of a stage.
const ROUNDS: usize = 200;

/// The most rounds without progress: more will not help.
const IN_VAIN: u32 = 3;

/// What may be repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Only if everything that is wrong can be computed from sound structures ([`is_safe`]).
    Safe,
    /// Everything, although names, files or parts of files are given up.
    All,
}

/// A line about the repair.
#[derive(Clone, Debug)]
pub enum Line {
    /// What the checker found first.
    Found(Box<Problem>),
    /// What was done, or could not be.
    Done(String),
}

/// The end of a repair.
#[derive(Debug)]
pub struct Outcome {
    /// What the volume holds now.
    pub summary: Summary,
    /// What is still wrong with it.
    pub left: Vec<Problem>,
    /// Files whose removal or truncation could not be finished.
    pub unfinished: bool,
}

/// A repair in progress.
struct Repair<'a, 's> {
    media: Media<'a>,
    log: Log<'a>,
    /// The chunk where the last free blocks were found.
    cursor: u64,
    /// Blocks that sound structures name, in the bitmaps of their chunks; known once one is taken.
    named: Option<Named>,
    /// Blocks for nodes of a tree, taken before others.
    spare: Vec<u64>,
    /// A system inode, or a chunk of the inode table, lacks space.
    short: bool,
    said: &'a mut Said<'s>,
}

/// Says each thing once.
struct Said<'a> {
    say: &'a mut dyn FnMut(Line),
    done: HashSet<String>,
}

impl Said<'_> {
    fn say(&mut self, line: String) {
        if self.done.insert(line.clone()) {
            (self.say)(Line::Done(line));
        }
    }
}

/// Repairs the volume on `pmem`, whose superblocks are sound, and reports to `say` what it finds
/// and does.
///
/// Fails as [`check::check`] does, and where the device cannot be written.
pub fn repair(pmem: &dyn Pmem, level: Level, say: &mut dyn FnMut(Line)) -> Result<Outcome> {
    let mut said = Said {
        say,
        done: HashSet::new(),
    };
    replay(pmem, &mut said);
    let (mut last, mut in_vain) = (None, 0);
    for _ in 0..ROUNDS {
        // A transaction that was replayed may have damaged one.
        restore_super_blocks(pmem, said.say)?;
        let mut problems = Vec::new();
        let summary = check::check(pmem, &mut |problem| problems.push(problem))?;
        in_vain = if last.as_ref() == Some(&problems) {
            in_vain + 1
        } else {
            0
        };
        if last.replace(problems.clone()).is_none() {
            for problem in &problems {
                (said.say)(Line::Found(Box::new(problem.clone())));
            }
        }
        if problems.is_empty() {
            match finish_orphans(pmem, &mut said) {
                // Freed inodes and blocks are counted and checked as well.
                Ok(n) if n > 0 => continue,
                result => {
                    return Ok(Outcome {
                        summary,
                        left: problems,
                        unfinished: result.is_err(),
                    })
                }
            }
        }
        let may = level == Level::All || problems.iter().all(is_safe);
        if !may || in_vain == IN_VAIN || !round(pmem, &problems, &mut said)? {
            return Ok(Outcome {
                summary,
                left: problems,
                unfinished: false,
            });
        }
    }
    let mut left = Vec::new();
    let summary = check::check(pmem, &mut |problem| left.push(problem))?;
    Ok(Outcome {
        summary,
        left,
        unfinished: false,
    })
}

/// Completes the transactions in the journal, as a mount does. If this fails, the check reports it.
fn replay(pmem: &dyn Pmem, said: &mut Said<'_>) {
    if let Ok(volume) = Volume::mount(pmem, MountOptions::default()) {
        if volume.notes().replayed > 0 {
            said.say("journal replayed".into());
        }
    }
}

/// Completes the removals and truncations that were in progress.
fn finish_orphans(pmem: &dyn Pmem, said: &mut Said<'_>) -> Result<u64> {
    let result =
        Volume::mount(pmem, MountOptions::default()).and_then(|volume| volume.recover_orphans());
    match result {
        Ok(0) => {}
        Ok(n) => said.say(format!("{n} removed or truncated files finished")),
        Err(e) => said.say(format!("removed files not finished: {e}")),
    }
    result
}

/// Does the first stage that has something to do. False if none has.
fn round(pmem: &dyn Pmem, problems: &[Problem], said: &mut Said<'_>) -> Result<bool> {
    if heal(pmem, problems, said)? || system::lanes(pmem, problems, said)? {
        return Ok(true);
    }
    let (sb, geo) = rdax_volume::volume::super_block::read_at(pmem, 0)?;
    let mut media = Media::new(pmem, sb, geo);
    let lacks_names = |p: &&Problem| match p.kind {
        Kind::Unreachable => true,
        Kind::Links { stored, counted } => stored > counted,
        _ => false,
    };
    media.nameless = problems
        .iter()
        .filter(lacks_names)
        .filter_map(|p| p.ino)
        .collect();
    let mut repair = Repair {
        media,
        log: Log::open(pmem, &geo, 0)?,
        cursor: 0,
        named: None,
        spare: Vec::new(),
        short: false,
        said,
    };
    stages(&mut repair, problems)
}

fn stages(repair: &mut Repair<'_, '_>, problems: &[Problem]) -> Result<bool> {
    for stage in [
        Repair::inode_table,
        Repair::inode_chunks,
        Repair::orphan_file,
        Repair::wrong_trees,
        Repair::bitmaps,
        Repair::inodes,
        Repair::xattrs,
        Repair::trees,
        Repair::leaves,
        Repair::counters,
        Repair::orphan_slots,
        Repair::links,
        Repair::loops,
        Repair::unreachable,
        Repair::leaks,
    ] {
        if stage(repair, problems)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Rewrites the unreadable blocks with what of them can be read: that makes bad media good. The
/// unreadable content is then damaged, and is repaired as such.
fn heal(pmem: &dyn Pmem, problems: &[Problem], said: &mut Said<'_>) -> Result<bool> {
    const PIECE: usize = 256;
    let mut done = false;
    let unreadable = |p: &&Problem| matches!(p.kind, Kind::Unreadable | Kind::NoHeader);
    for problem in problems.iter().filter(unreadable) {
        // A summary is unreadable if its bitmap is.
        let mut places = vec![problem.at];
        if problem.what == Structure::Bitmap {
            let (_, geo) = rdax_volume::volume::super_block::read_at(pmem, 0)?;
            places.push(geo.bitmap_at((problem.at - geo.summary_at(0)) / 8));
        }
        // A value has no address of its own in what is reported.
        if let (Structure::Xattr, Some(ino)) = (problem.what, problem.ino) {
            let (sb, geo) = rdax_volume::volume::super_block::read_at(pmem, 0)?;
            let media = Media::new(pmem, sb, geo);
            let inode = media.inode(ino);
            let runs = inode.map_or(Vec::new(), |(_, raw)| media.xattr_runs(&raw));
            let blocks = runs.iter().flat_map(|m| m.block..m.block + m.len);
            places.extend(blocks.map(|block| block * BLOCK));
        }
        for at in places {
            let at = at - at % BLOCK;
            let mut bytes = vec![0; BLOCK as usize];
            if pmem.read(at, &mut bytes).is_ok() {
                continue;
            }
            for (offset, piece) in (0..).step_by(PIECE).zip(bytes.chunks_exact_mut(PIECE)) {
                if pmem.read(at + offset, piece).is_err() {
                    piece.fill(0);
                }
            }
            pmem.store_nt(at, &bytes)?;
            pmem.fence()?;
            pmem.read(at, &mut bytes)?;
            done = true;
            said.say(format!(
                "block at {at:#x}: memory error cleared, its content is lost"
            ));
        }
    }
    Ok(done)
}

impl Repair<'_, '_> {
    fn say(&mut self, line: String) {
        self.said.say(line);
    }
}

/// The problems about structures of one kind.
fn of(problems: &[Problem], what: Structure) -> impl Iterator<Item = &Problem> {
    problems.iter().filter(move |problem| problem.what == what)
}

/// Whether an error only means that this cannot be repaired.
fn is_local(error: &Error) -> bool {
    matches!(error, Error::NoSpace | Error::Invalid)
}
