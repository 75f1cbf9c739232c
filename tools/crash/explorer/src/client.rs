// SPDX-License-Identifier: GPL-2.0

//! The databases on a recovered volume, opened by their library on the host.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rdax_crash_ops::{check_volume, see, Content, Kind, Seen, Violation};
use rdax_volume::volume::Volume;

use crate::image::Image;
use crate::subject::Judge;

/// Whether the file only concerns running processes: the next one that opens the database recreates
/// it.
fn is_transient(path: &str) -> bool {
    path == "lock.mdb" || path.ends_with("-shm")
}

/// Looks at the files of one client.
pub struct Databases {
    /// `rdax-crash-guest`, which has the libraries. In a separate process: a damaged file may crash
    /// them.
    program: PathBuf,
    name: String,
    seed: u64,
    /// Where the files are put.
    dir: tempfile::TempDir,
    /// The verdicts on files that were checked before.
    known: RefCell<HashMap<u64, Option<String>>>,
}

impl Databases {
    /// Of the client `name`, with the programs of the checkout `top`.
    pub fn new(top: &Path, name: &str, seed: u64) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("rdax-crash-client.");
        Ok(Databases {
            program: top.join("build/bin/rdax-crash-guest"),
            name: name.to_owned(),
            seed,
            // In memory, if there is such a place.
            dir: builder
                .tempdir_in("/dev/shm")
                .or_else(|_| builder.tempdir())?,
            known: RefCell::default(),
        })
    }

    /// The library's verdict on the files in `seen`. Nothing if they are right.
    fn verdict(&self, seen: &Seen, finished: usize, in_flight: bool) -> Result<Option<String>> {
        let files = || {
            seen.iter()
                .filter_map(|(path, entry)| match &entry.content {
                    Content::File(bytes) if !is_transient(path) => Some((path, bytes)),
                    _ => None,
                })
        };
        let mut hasher = DefaultHasher::new();
        (finished, in_flight).hash(&mut hasher);
        files().for_each(|file| file.hash(&mut hasher));
        let key = hasher.finish();
        if let Some(known) = self.known.borrow().get(&key) {
            return Ok(known.clone());
        }
        let dir = self.dir.path().join("files");
        fs::create_dir(&dir)?;
        for (path, bytes) in files() {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().context("a path without a directory")?)?;
            fs::write(path, bytes)?;
        }
        let output = Command::new(&self.program)
            .args(["check-client", "--dir"])
            .arg(&dir)
            .args([&self.name, &self.seed.to_string()])
            .args(["--finished", &finished.to_string()])
            .args(in_flight.then_some("--in-flight"))
            .stdin(Stdio::null())
            .output()
            .with_context(|| self.program.display().to_string())?;
        fs::remove_dir_all(&dir)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let verdict = match output.status.success() {
            true => None,
            false => Some(format!("{} ({})", said.trim_end(), output.status)),
        };
        self.known.borrow_mut().insert(key, verdict.clone());
        Ok(verdict)
    }
}

impl Judge for Databases {
    fn check(
        &self,
        volume: &Volume<Image<'_>>,
        finished: usize,
        in_flight: bool,
    ) -> Vec<Violation> {
        let mut found = check_volume(volume);
        match see(volume) {
            Ok(seen) => match self.verdict(&seen, finished, in_flight) {
                Ok(None) => {}
                Ok(Some(said)) => found.push(Violation::new(Kind::Database, said)),
                Err(e) => found.push(Violation::new(
                    Kind::Database,
                    format!("not checked: {e:#}"),
                )),
            },
            Err(e) => found.push(Violation::new(Kind::Unreadable, format!("tree: {e}"))),
        }
        found
    }
}
