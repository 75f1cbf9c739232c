// SPDX-License-Identifier: GPL-2.0

//! The grammar of the workloads that a survey draws from: what a file or directory has been
//! through, what is done to it, in which order, how much at a time, and what is synced when.
//!
//! A workload is written as words with slashes between them, one for each dimension:
//! `file/torn/shared/write/random/4k/end/one`, `name/create/many/order/never`. The first word of a
//! dimension is the simplest.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a file has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum History {
    /// Written from one end to the other.
    Written,
    /// It is one hole.
    Hole,
    /// Its space was reserved (`fallocate`).
    Reserved,
    /// Stored to from one end to the other, through a mapping.
    Stored,
    /// Every second block of 4 KiB was written; between them are holes.
    Pieces,
    /// Its blocks were written in a random order, each with its neighbour on the device elsewhere.
    Scattered,
    /// Stored to all over, and then here and there, with syncs.
    Torn,
    /// There is nothing in it.
    Empty,
}

/// How a program gets at a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Reach {
    /// By pread(2), pwrite(2) and the like.
    Call,
    /// By a shared mapping.
    Shared,
    /// By a shared mapping of which every page was read before.
    Read,
    /// By a shared mapping without huge pages.
    Small,
    /// By a private mapping.
    Private,
    /// By a shared mapping that is made anew for each access.
    Anew,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Action {
    /// Reads.
    Read,
    /// Writes or stores.
    Write,
    /// Reads, and then writes there.
    Update,
    /// Makes a hole.
    Punch,
    /// Makes zeros (`FALLOC_FL_ZERO_RANGE`).
    Zero,
    /// Reserves space.
    Reserve,
    /// Looks for data.
    Seek,
    /// Cuts the file there, and makes it as long as before.
    Cut,
}

/// Where the next access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Pattern {
    /// After the last one.
    Up,
    /// Before it.
    Down,
    /// Two pages after it.
    Stride,
    /// After the last but three.
    Streams,
    /// Anywhere.
    Random,
    /// Anywhere in one sixteenth of the file.
    Near,
    /// Where the last one was.
    Same,
    /// At the end of the file, which grows.
    End,
}

/// How much is accessed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Size {
    /// 4 KiB.
    #[value(name = "4k")]
    Page,
    /// 8 bytes.
    #[value(name = "8")]
    Word,
    /// 100 bytes.
    #[value(name = "100")]
    Record,
    /// 64 KiB.
    #[value(name = "64k")]
    Large,
}

/// What is synced, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Sync {
    /// Nothing.
    Never,
    /// All files, at the end.
    End,
    /// The file, after each 32 accesses.
    Some,
    /// The file, after each access.
    Each,
    /// Its data, after each access.
    Data,
    /// What was accessed (`msync`), after each access.
    Range,
    /// The file system, after each 32 accesses.
    All,
}

/// How many files take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Files {
    /// 1.
    One,
    /// 64.
    Many,
}

/// What is done to names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Deed {
    /// Files are made.
    Create,
    /// Files are removed.
    Unlink,
    /// Files get another name.
    Rename,
    /// Files get another name, which another file had.
    Replace,
    /// Files get a second name.
    Link,
    /// Symbolic links are made.
    Symlink,
    /// Directories are made.
    Mkdir,
    /// Directories are removed.
    Rmdir,
    /// Files are queried by stat.
    Stat,
    /// Names are looked for that are not there.
    Miss,
    /// Files are opened and closed.
    Open,
    /// Their mode is changed.
    Chmod,
    /// They are given an extended attribute.
    Setxattr,
    /// It is read.
    Getxattr,
    /// The directory is listed; the operation is one name.
    List,
    /// Files are made, written, and synced.
    Save,
}

/// How many other names a directory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Others {
    /// None.
    None,
    /// 4,096.
    Many,
}

/// In which order names are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Order {
    /// In that in which they were made.
    Order,
    /// In a random one.
    Random,
}

/// Whether names are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Durable {
    /// No.
    Never,
    /// By fsync of the directory after each.
    Each,
}

/// Accesses to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileWork {
    /// What the files have been through.
    pub history: History,
    /// How they are accessed.
    pub reach: Reach,
    /// What is done to them.
    pub action: Action,
    /// Where.
    pub pattern: Pattern,
    /// How much at a time.
    pub size: Size,
    /// What is synced.
    pub sync: Sync,
    /// How many there are.
    pub files: Files,
}

/// Operations on names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameWork {
    /// What is done.
    pub deed: Deed,
    /// What else is there.
    pub others: Others,
    /// In which order.
    pub order: Order,
    /// Whether it is made durable.
    pub durable: Durable,
}

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Workload {
    /// Of files.
    File(FileWork),
    /// Of names.
    Name(NameWork),
}

/// What a workload has cost on one file system.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Cost {
    /// The workload.
    pub workload: String,
    /// Instructions an operation, of few.
    pub few: f64,
    /// And of four times as many.
    pub many: f64,
    /// Why it could not be measured.
    pub error: Option<String>,
}

impl FileWork {
    /// Whether that makes sense, and is not the same as a simpler one.
    fn is_valid(&self) -> bool {
        let mapped = self.reach != Reach::Call;
        let by_call = !matches!(self.action, Action::Read | Action::Write | Action::Update);
        let only_reads = matches!(self.action, Action::Read | Action::Seek);
        let is_end = self.pattern == Pattern::End;
        (!by_call || (!mapped && matches!(self.size, Size::Page | Size::Large)))
            && (self.action != Action::Seek || self.size == Size::Page)
            && (!only_reads || self.sync == Sync::Never)
            && (self.sync != Sync::Range || mapped)
            && (self.reach != Reach::Private || self.sync == Sync::Never)
            && (!is_end || (!mapped && self.action == Action::Write))
            // An empty file is useful only for appends.
            && (is_end || self.history != History::Empty)
    }
}

fn any<T: ValueEnum + Copy>(random: &mut fastrand::Rng) -> T {
    let all = T::value_variants();
    all[random.usize(..all.len())]
}

fn word<T: ValueEnum>(value: &T) -> String {
    let value = value.to_possible_value().expect("no word is skipped");
    value.get_name().into()
}

/// The same, but for one dimension, which is the simplest: if it is not that already.
fn simplest<W: Copy + PartialEq, T: ValueEnum + Copy>(
    work: W,
    set: impl Fn(&mut W, T),
) -> Option<W> {
    let mut simpler = work;
    set(&mut simpler, T::value_variants()[0]);
    (simpler != work).then_some(simpler)
}

impl Workload {
    /// One at random: two out of three are of files.
    pub fn draw(random: &mut fastrand::Rng) -> Workload {
        if random.u8(..3) == 0 {
            return Workload::Name(NameWork {
                deed: any(random),
                others: any(random),
                order: any(random),
                durable: any(random),
            });
        }
        loop {
            let work = FileWork {
                history: any(random),
                reach: any(random),
                action: any(random),
                pattern: any(random),
                size: any(random),
                sync: any(random),
                files: any(random),
            };
            if work.is_valid() {
                return Workload::File(work);
            }
        }
    }

    /// All that are simpler in one dimension.
    pub fn simpler(self) -> Vec<Workload> {
        match self {
            Workload::File(work) => {
                let all = [
                    simplest(work, |work, to| work.files = to),
                    simplest(work, |work, to| work.sync = to),
                    simplest(work, |work, to| work.size = to),
                    simplest(work, |work, to| work.pattern = to),
                    simplest(work, |work, to| work.reach = to),
                    simplest(work, |work, to| work.history = to),
                ];
                let valid = all.into_iter().flatten().filter(FileWork::is_valid);
                valid.map(Workload::File).collect()
            }
            Workload::Name(work) => {
                let all = [
                    simplest(work, |work, to| work.others = to),
                    simplest(work, |work, to| work.order = to),
                    simplest(work, |work, to| work.durable = to),
                ];
                all.into_iter().flatten().map(Workload::Name).collect()
            }
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Workload::File(work) => vec![
                "file".into(),
                word(&work.history),
                word(&work.reach),
                word(&work.action),
                word(&work.pattern),
                word(&work.size),
                word(&work.sync),
                word(&work.files),
            ],
            Workload::Name(work) => vec![
                "name".into(),
                word(&work.deed),
                word(&work.others),
                word(&work.order),
                word(&work.durable),
            ],
        };
        f.write_str(&words.join("/"))
    }
}

/// The next word of a workload.
fn next<'a, T: ValueEnum>(words: &mut impl Iterator<Item = &'a str>) -> Result<T, String> {
    let word = words.next().unwrap_or("");
    T::from_str(word, false).map_err(|_| {
        let all = T::value_variants().iter();
        let names: Vec<_> = all.map(self::word).collect();
        format!("{word:?} is not one of {}", names.join(", "))
    })
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split('/');
        let work = match words.next() {
            Some("file") => {
                let work = FileWork {
                    history: next(&mut words)?,
                    reach: next(&mut words)?,
                    action: next(&mut words)?,
                    pattern: next(&mut words)?,
                    size: next(&mut words)?,
                    sync: next(&mut words)?,
                    files: next(&mut words)?,
                };
                if !work.is_valid() {
                    return Err(format!("{text} makes no sense"));
                }
                Workload::File(work)
            }
            Some("name") => Workload::Name(NameWork {
                deed: next(&mut words)?,
                others: next(&mut words)?,
                order: next(&mut words)?,
                durable: next(&mut words)?,
            }),
            _ => return Err(format!("{text}: a workload begins with file/ or name/")),
        };
        match words.next() {
            Some(word) => Err(format!("{word:?} is a word too many")),
            None => Ok(work),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_can_be_said_and_made_simpler() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let work = Workload::draw(&mut random);
            assert_eq!(work.to_string().parse(), Ok(work));
            for simpler in work.simpler() {
                assert_ne!(simpler, work);
                assert_eq!(simpler.to_string().parse(), Ok(simpler));
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, why) in [
            ("", "begins with file/ or name/"),
            ("file/hole", "\"\" is not one of call"),
            (
                "file/hole/call/fly/up/4k/never/one",
                "not one of read, write",
            ),
            ("file/hole/shared/punch/up/4k/never/one", "makes no sense"),
            ("name/create/none/order/never/one", "a word too many"),
        ] {
            let error = text.parse::<Workload>().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
