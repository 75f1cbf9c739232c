// SPDX-License-Identifier: GPL-2.0

//! The trial of a damaged volume: the checker, a mount by the volume's own code, as the kernel does
//! it, and the repair, also one that is cut off. Nothing may panic, loop for ever or access memory
//! outside the device; if the checker finds nothing, nothing may fail; a repaired volume is sound
//! and has everything that the damage did not hit.

use std::cell::RefCell;
use std::panic::{catch_unwind, AssertUnwindSafe};

use fastrand::Rng;
use rdax_fsck::repair::{repair, restore_super_blocks, Level, Line};
use rdax_volume::overlay::Overlay;
use rdax_volume::volume::check::{check, Problem};
use rdax_volume::volume::error::{Error, Result};
use rdax_volume::volume::format::{SuperBlock, ROOT_INO};
use rdax_volume::volume::pmem::{read_struct, Pmem};
use rdax_volume::volume::super_block::copy_at;
use rdax_volume::volume::{MountOptions, Volume};

use super::change::Hits;
use super::cow::{Cow, Stop};
use super::history::Base;
use super::see::{walk, Body, Tree};
use super::user::User;

/// Lines that one step may read and store: a hundred times the most that any has needed.
const LINES: u64 = 100_000_000;
/// Operations of a user of a mounted volume.
const STEPS: usize = 12;

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The violated rule.
    pub rule: &'static str,
    pub detail: String,
}

impl Fault {
    /// The same for faults of one cause, as far as known: without its numbers.
    pub fn signature(&self) -> String {
        let end = self.detail.find([';', '\n']).unwrap_or(self.detail.len());
        let line = &self.detail[..end];
        let mut text = format!("{}: ", self.rule);
        for c in line.chars() {
            match c.is_ascii_hexdigit() && (c.is_ascii_digit() || text.ends_with('#')) {
                true if text.ends_with('#') => {}
                true => text.push('#'),
                false => text.push(c),
            }
        }
        text
    }
}

/// What a trial has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The checker had nothing to say.
    pub clean: bool,
    /// It could be mounted as it was.
    pub mounted: bool,
    /// A walk or an operation met the damage.
    pub met: bool,
    /// Recovery completed transactions.
    pub replayed: bool,
    /// The repair changed it.
    pub repaired: bool,
    /// The repair says that it can do nothing.
    pub hopeless: bool,
    /// The repair was cut off, and done again.
    pub cut: bool,
}

thread_local! {
    /// Where and why this thread has last paniced.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Makes panics be recorded instead of printed, for the whole process.
pub fn remember_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANIC.with(|text| *text.borrow_mut() = info.to_string().replace('\n', " "));
    }));
}

type Verdict<T> = std::result::Result<T, Fault>;

fn fault<T>(rule: &'static str, detail: impl Into<String>) -> Verdict<T> {
    let detail = detail.into();
    Err(Fault { rule, detail })
}

/// Runs one step. `Ok(None)`: it was cut off on purpose.
fn step<T>(what: &str, run: impl FnOnce() -> T) -> Verdict<Option<T>> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Ok(Some(value)),
        Err(reason) => match reason.downcast_ref::<Stop>() {
            Some(Stop::Cut) => Ok(None),
            Some(Stop::Endless) => fault("goes on for ever", what),
            None => {
                let text = PANIC.with(|text| text.take());
                fault("panics", format!("{what}: {text}"))
            }
        },
    }
}

fn whole<T>(what: &str, run: impl FnOnce() -> T) -> Verdict<T> {
    step(what, run).map(|value| value.expect("is not cut off"))
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().take(5).map(Problem::to_string).collect();
    lines.join("; ")
}

/// What `fsck.rdax -n` finds, which replays the journal in memory.
pub fn examine(cow: &Cow<'_>) -> Result<Vec<Problem>> {
    let mut found = Vec::new();
    let view = Overlay::new(cow);
    match Volume::mount(&view, MountOptions::default()) {
        Ok(_) => check(&view, &mut |problem| found.push(problem))?,
        Err(e) => {
            let summary = check(cow, &mut |problem| found.push(problem))?;
            if found.is_empty() {
                // It says that it cannot be mounted, and must say why.
                return Err(e);
            }
            summary
        }
    };
    Ok(found)
}

/// A mount as the kernel does it, and everything visible then.
struct Mounted {
    tree: Tree,
    errors: Vec<String>,
    replayed: bool,
}

/// Errors of a user that say nothing about the volume.
fn is_users(error: Error) -> bool {
    !matches!(
        error,
        Error::Corrupt { .. } | Error::Media { .. } | Error::Stale
    )
}

/// Mounts, looks at everything, and uses it.
fn mount(cow: &Cow<'_>, rng: &mut Rng) -> Result<Mounted> {
    let vol = Volume::mount(cow, MountOptions::default())?;
    let mut errors = Vec::new();
    // The kernel continues if orphans are damaged.
    match vol.recover_orphans() {
        Ok(_) => {}
        Err(e @ (Error::Corrupt { .. } | Error::Media { .. })) => {
            errors.push(format!("orphans: {e}"));
        }
        Err(e) => return Err(e),
    }
    let root = vol.iget(ROOT_INO)?;
    if root.mode() >> 12 != 0o4 {
        return Err(Error::Invalid);
    }
    let replayed = vol.notes().replayed > 0;
    let (tree, damaged) = walk(&vol);
    errors.extend(damaged.iter().map(|(ino, e)| format!("inode {ino}: {e}")));
    let mut user = User::new(&vol, rng);
    for _ in 0..STEPS {
        match user.step() {
            Err(e) if !is_users(e) => errors.push(format!("an operation: {e}")),
            _ => {}
        }
    }
    Ok(Mounted {
        tree,
        errors,
        replayed,
    })
}

/// Fails unless everything in `before` is in `after`, except what was hit.
fn kept(before: &Tree, after: &Tree, hits: &Hits) -> std::result::Result<(), String> {
    if hits.all {
        return Ok(());
    }
    for (ino, was) in before.iter().filter(|(ino, _)| !hits.inodes.contains(ino)) {
        let Some(is) = after.get(ino) else {
            return Err(format!("inode {ino} is lost"));
        };
        if (was.mode, was.owner) != (is.mode, is.owner) {
            return Err(format!("mode or owner of inode {ino}: {was:?}, now {is:?}"));
        }
        if was.xattrs != is.xattrs {
            return Err(format!("attributes of inode {ino}"));
        }
        match (&was.body, &is.body) {
            (Body::Dir(was), Body::Dir(is)) if !hits.dirs.contains(ino) => {
                for (name, to) in was.iter().filter(|(_, to)| !hits.inodes.contains(&to.0)) {
                    let hit = hits.names.contains(&(*ino, name.clone()));
                    if !hit && is.get(name) != Some(to) {
                        return Err(format!("a name of directory {ino}: {to:?}"));
                    }
                }
            }
            (Body::Dir(_), Body::Dir(_)) => {}
            (a, b) if a != b => return Err(format!("content of inode {ino}")),
            _ if (was.size, was.mtime) != (is.size, is.mtime) => {
                return Err(format!("size or time of inode {ino}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A damaged volume, and what may have been lost.
pub struct Trial<'a> {
    pub base: &'a Base,
    pub hits: Hits,
    /// Chooses what the user does, and where a repair is cut off.
    pub seed: u64,
}

impl Trial<'_> {
    fn rng(&self) -> Rng {
        Rng::with_seed(self.seed)
    }

    /// Tries it all on the device `cow`, which stays as it is.
    pub fn run(&self, cow: &Cow<'_>) -> Verdict<Seen> {
        let mut seen = Seen::default();
        let view = cow.copy(LINES);
        let found = whole("the check", || examine(&view))?;
        seen.clean = found.as_ref().is_ok_and(Vec::is_empty);
        self.as_it_is(cow, &mut seen)?;
        self.repaired(cow, &mut seen)?;
        if self.seed % 4 == 0 && !seen.hopeless {
            self.cut_off(cow, &mut seen)?;
        }
        if self.seed % 4 == 1 {
            let view = cow.copy(LINES);
            whole("the safe repair", || mend(&view, Level::Safe).0)?.ok();
        }
        Ok(seen)
    }

    /// It is mounted without a repair.
    fn as_it_is(&self, cow: &Cow<'_>, seen: &mut Seen) -> Verdict<()> {
        let view = cow.copy(LINES);
        let result = whole("the mount", || mount(&view, &mut self.rng()))?;
        if let Ok(mounted) = &result {
            seen.mounted = true;
            seen.met = !mounted.errors.is_empty();
            seen.replayed = mounted.replayed;
        }
        match result {
            _ if !seen.clean => Ok(()),
            Err(e) => fault("said to be clean, but not mounted", e.to_string()),
            Ok(mounted) => {
                self.is_whole(&mounted, "said to be clean, but")?;
                self.is_sound(&view, "used, after a check that said clean")
            }
        }
    }

    /// What was mounted had no errors and all that was not hit.
    fn is_whole(&self, mounted: &Mounted, when: &'static str) -> Verdict<()> {
        if let Some(error) = mounted.errors.first() {
            return fault(when, error.clone());
        }
        if self.base.full {
            return Ok(());
        }
        match kept(&self.base.tree, &mounted.tree, &self.hits) {
            Ok(()) => Ok(()),
            Err(what) => fault("lost, though not hit", format!("{when}: {what}")),
        }
    }

    fn is_sound(&self, cow: &Cow<'_>, when: &'static str) -> Verdict<()> {
        let view = cow.copy(LINES);
        match whole("the second check", || examine(&view))? {
            Ok(problems) if problems.is_empty() => Ok(()),
            Ok(problems) => fault(when, lines(&problems)),
            Err(e) => fault(when, e.to_string()),
        }
    }

    /// It is repaired, and then has to be sound.
    fn repaired(&self, cow: &Cow<'_>, seen: &mut Seen) -> Verdict<()> {
        let view = cow.copy(LINES);
        let (result, said) = whole("the repair", || mend(&view, Level::All))?;
        seen.repaired = view.stores() > 0;
        match result {
            Err(e) if self.hits.supers.len() < 2 && !self.is_newer(cow, &e) => {
                fault("not repaired", format!("{e}\n{said}"))
            }
            Err(_) => {
                seen.hopeless = true;
                Ok(())
            }
            Ok(left) if !left.is_empty() => match self.lacks_space(&said) {
                true => Ok(()),
                false => fault("left by the repair", format!("{}\n{said}", lines(&left))),
            },
            Ok(_) => self.is_mended(&view, "repaired, but").map_err(|mut fault| {
                fault.detail += &format!("\n{said}");
                fault
            }),
        }
    }

    /// Whether the first superblock is newer than its copy (a change of the label was cut off), and
    /// is refused as that of newer code.
    fn is_newer(&self, cow: &Cow<'_>, why: &Error) -> bool {
        let generation = |at| read_struct(cow, at).map_or(0, |sb: SuperBlock| sb.generation.get());
        let refused = matches!(why, Error::Unsupported { .. } | Error::Version { .. });
        refused && generation(0) > generation(copy_at(cow.len()))
    }

    /// On a full volume a repair may lack the space for what it finds, and says so.
    fn lacks_space(&self, said: &str) -> bool {
        self.base.full && said.contains("no space left")
    }

    fn is_mended(&self, cow: &Cow<'_>, when: &'static str) -> Verdict<()> {
        self.is_sound(cow, when)?;
        let view = cow.copy(LINES);
        let (_, said) = whole("the second repair", || mend(&view, Level::All))?;
        if !said.is_empty() || view.stores() > 0 {
            return fault("a second repair finds something", said);
        }
        let view = cow.copy(LINES);
        match whole("the mount after a repair", || mount(&view, &mut self.rng()))? {
            Err(e) => return fault("repaired, but not mounted", e.to_string()),
            Ok(mounted) => self.is_whole(&mounted, when)?,
        }
        self.is_sound(&view, "used after a repair")
    }

    /// The repair is cut off somewhere, and done again.
    fn cut_off(&self, cow: &Cow<'_>, seen: &mut Seen) -> Verdict<()> {
        let mut rng = self.rng();
        let view = cow.copy(LINES);
        // Most repairs are short.
        let most = [5, 50, 500][rng.usize(0..3)];
        let store = rng.u64(0..most);
        view.cut_after(store);
        if step("the repair that is cut off", || mend(&view, Level::All))?.is_some() {
            return Ok(());
        }
        seen.cut = true;
        let view = view.copy(LINES);
        let (result, said) = whole("the repair after one", || mend(&view, Level::All))?;
        let result = match result {
            Err(e) => fault("not repaired after a cut", e.to_string()),
            Ok(left) if !left.is_empty() => match self.lacks_space(&said) {
                true => Ok(()),
                false => fault("left by the repair after a cut", lines(&left)),
            },
            Ok(_) => self.is_mended(&view, "repaired after a cut, but"),
        };
        result.map_err(|mut fault| {
            fault.detail += &format!("\ncut off at store {store}; after that:\n{said}");
            fault
        })
    }
}

/// As `fsck.rdax -y` does it, or `-p`. Returns what is left, and what was said.
fn mend(cow: &Cow<'_>, level: Level) -> (Result<Vec<Problem>>, String) {
    let mut said = String::new();
    let mut say = |line: Line| {
        said += &match line {
            Line::Found(problem) => format!("{problem}\n"),
            Line::Done(text) => format!("-> {text}\n"),
        }
    };
    let result = restore_super_blocks(cow, &mut say).and_then(|()| repair(cow, level, &mut say));
    (result.map(|outcome| outcome.left), said)
}
