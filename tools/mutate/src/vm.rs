// SPDX-License-Identifier: GPL-2.0

//! The tests of tests/vm, run with a mistake each: many in one boot, and those alone that reach it.
//! tests/mutants/guest is the other half.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use rustix::process::{kill_process_group, Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::make::Places;
use crate::mutation::{hash, Mutation};
use crate::results::{Layer, Results, Verdict};

/// The devices of the machine, as tests/run has them.
const PMEM: &str = "512M,32M";
/// Loads the module itself, and would forget the mistake.
const NOT_USED: [&str; 1] = ["stress_remount"];
/// What a machine may take to start, and to end.
const BOOT: Duration = Duration::from_secs(240);
/// In the guest, what a test may take beside what it usually does.
const SLACK: u64 = 20;
/// Machines that end before they have done anything, one after the other.
const BAD_BOOTS: usize = 3;

/// A test, and what is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Test {
    name: String,
    seconds: f64,
    reached: BTreeSet<u32>,
}

/// What the tests reach, with one module.
#[derive(Serialize, Deserialize)]
struct Coverage {
    module: u64,
    tests: Vec<Test>,
}

/// How the layer is run.
pub struct Settings<'a> {
    pub places: &'a Places,
    /// Tests with these names, or all; a * at the end stands for any rest.
    pub tests: &'a [String],
    /// Tests of one mutation that take longer together are not all run.
    pub patience: Duration,
}

/// A line of the list that the guest works through.
struct Line {
    mutation: u32,
    /// Seconds that one test may take.
    limit: u64,
    tests: Vec<String>,
}

impl Line {
    fn text(&self) -> String {
        format!(
            "{} {} {}\n",
            self.mutation,
            self.limit,
            self.tests.join(" ")
        )
    }
}

/// What a boot came to.
struct Boot {
    /// How many results there are.
    results: usize,
    /// The mutation and the test that were being run when the machine ended.
    current: Option<(u32, String)>,
    how: String,
}

/// A process group that does not outlive its owner.
struct Group(std::process::Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // It has ended, most often.
            let _ = kill_process_group(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Puts the tests of tests/vm into the new directory `dir`, a script each.
fn scripts(places: &Places, dir: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(dir);
    let program = places.top.join("tests/lib/vm-tests");
    let status = Command::new(program).arg(dir).status()?;
    ensure!(status.success(), "tests/lib/vm-tests: {status}");
    Ok(())
}

/// Boots a machine that works through `lines`, until it ends, or does nothing for longer than a
/// test may take, or `end` has come. `take` gets each line of the results as it comes.
fn boot(
    places: &Places,
    lines: &[Line],
    end: Instant,
    take: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Boot> {
    let share = places.out.join("share");
    let _ = fs::remove_dir_all(&share);
    fs::create_dir_all(share.join("logs"))?;
    fs::create_dir_all(share.join("reached"))?;
    scripts(places, &share.join("vm"))?;
    let tests = places.top.join("tests");
    fs::copy(tests.join("lib/guest"), share.join("guest"))?;
    fs::copy(tests.join("mutants/guest"), share.join("mutants"))?;
    let list: String = lines.iter().map(Line::text).collect();
    fs::write(share.join("list"), list)?;
    fs::write(share.join("results"), "")?;
    let child = Command::new(places.top.join("qemu/vm"))
        .args([
            "--fs",
            "none",
            "--pmem",
            PMEM,
            "--append",
            "softlockup_panic=1",
        ])
        .arg("--module")
        .arg(places.module().join("rdax.ko"))
        .arg("--share")
        .arg(&share)
        .args(["--", "STRESS_SECONDS=10 bash /share/mutants"])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(places.out.join("vm.log"))?)
        .spawn()
        .context("qemu/vm")?;
    let mut group = Group(child);
    let longest = lines.iter().map(|line| line.limit).max().unwrap_or(0);
    // The guest's own limit comes first, if anything still runs there.
    let patience = Duration::from_secs(longest * 2 + 120);
    let (mut seen, mut moved, mut patient) = (String::new(), Instant::now(), BOOT);
    let mut taken = 0;
    let how = loop {
        // Asked before the results are read: what has ended writes no more.
        let status = group.0.try_wait()?;
        let results = read(&share.join("results"));
        for line in results.split_inclusive('\n').skip(taken) {
            if let Some(line) = line.strip_suffix('\n') {
                take(line)?;
                taken += 1;
            }
        }
        if let Some(status) = status {
            break match status.code() {
                Some(99) => "the kernel reported".to_owned(),
                Some(code) => format!("the machine ended, status {code}"),
                None => "the machine was killed".to_owned(),
            };
        }
        let now = results + &read(&share.join("current"));
        if now != seen {
            (seen, moved, patient) = (now, Instant::now(), patience);
        }
        if moved.elapsed() > patient {
            break "the machine hangs".to_owned();
        }
        if Instant::now() > end {
            break "the time is over".to_owned();
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    drop(group);
    let current = read(&share.join("current"));
    let current = current
        .trim_end()
        .split_once(' ')
        .and_then(|(number, test)| {
            // The guest's own end, where it gave up on the machine, has a result.
            Some((number.parse().ok()?, test.to_owned()))
        });
    Ok(Boot {
        results: taken,
        current,
        how,
    })
}

/// The numbers in what the guest has put down of the module's parameter.
fn reached(text: &str) -> BTreeSet<u32> {
    let digits = text.chars().filter_map(|c| c.to_digit(16));
    let bits = digits.zip(0u32..).flat_map(|(digit, place)| {
        (0..4).filter_map(move |bit| ((digit >> bit) & 1 == 1).then_some(place * 4 + bit))
    });
    bits.collect()
}

/// The names of the tests that are meant.
fn names(settings: &Settings<'_>) -> Result<Vec<String>> {
    let dir = settings.places.out.join("vm-tests");
    scripts(settings.places, &dir)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".sh").filter(|name| *name != "lib") else {
            continue;
        };
        let meant = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        };
        if (settings.tests.is_empty() || settings.tests.iter().any(meant))
            && !NOT_USED.contains(&name)
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "no test in tests/vm is called so");
    Ok(names)
}

/// Runs each test once without a mistake, unless it is known what it reaches with this module.
fn coverage(settings: &Settings<'_>, end: Instant) -> Result<Vec<Test>> {
    let places = settings.places;
    let module = fs::read(places.module().join("rdax.ko"))
        .context("the mutated module: rdax-mutants make builds it")?;
    let module = hash(&[&String::from_utf8_lossy(&module)]);
    let path = places.out.join("vm-coverage.json");
    let old = fs::read(&path).ok();
    let old = old.and_then(|text| serde_json::from_slice::<Coverage>(&text).ok());
    let mut tests = match old {
        Some(old) if old.module == module => old.tests,
        _ => Vec::new(),
    };
    let wanted = names(settings)?;
    let mut left: Vec<String> = wanted
        .iter()
        .filter(|name| !tests.iter().any(|test| test.name == **name))
        .cloned()
        .collect();
    while !left.is_empty() && Instant::now() < end {
        let line = Line {
            mutation: 0,
            limit: 600,
            tests: left.clone(),
        };
        let done = boot(places, &[line], end, &mut |result| {
            let mut words = result.split(' ').skip(1);
            let (Some(name), Some(time), Some(status)) = (words.next(), words.next(), words.next())
            else {
                bail!("the guest says: {result}");
            };
            left.retain(|other| other != name);
            let reached = reached(&read(&places.out.join("share/reached").join(name)));
            let seconds = time.parse::<f64>()? / 1000.0;
            println!(
                "{name}: {seconds:.1} s, status {status}, reaches {}",
                reached.len()
            );
            // One that does not pass without a mistake finds none.
            let reached = if status == "0" {
                reached
            } else {
                BTreeSet::new()
            };
            tests.push(Test {
                name: name.to_owned(),
                seconds,
                reached,
            });
            let tests = tests.clone();
            fs::write(&path, serde_json::to_vec(&Coverage { module, tests })?)?;
            Ok(())
        })?;
        if let Some((_, name)) = done.current {
            eprintln!("not used: {name}: {}", done.how);
            left.retain(|other| *other != name);
        } else if done.results == 0 {
            bail!("{}: {}", done.how, read(&places.out.join("vm.log")));
        }
    }
    tests.retain(|test| wanted.contains(&test.name));
    tests.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    Ok(tests)
}

/// The line of the list for `mutation`, and how many tests reach it.
fn line(settings: &Settings<'_>, tests: &[Test], mutation: &Mutation) -> (Line, usize) {
    let reaching = tests
        .iter()
        .filter(|test| test.reached.contains(&mutation.id));
    let (mut chosen, mut seconds, mut longest) = (Vec::new(), 0.0, 0.0f64);
    for test in reaching.clone() {
        seconds += test.seconds;
        if !chosen.is_empty() && seconds > settings.patience.as_secs_f64() {
            break;
        }
        longest = longest.max(test.seconds);
        chosen.push(test.name.clone());
    }
    let line = Line {
        mutation: mutation.id,
        limit: longest.ceil() as u64 * 3 + SLACK,
        tests: chosen,
    };
    (line, reaching.count())
}

/// Runs the layer for `mutations`.
pub fn layer(
    settings: &Settings<'_>,
    mutations: &[&Mutation],
    results: &mut Results,
    end: Instant,
) -> Result<()> {
    let tests = coverage(settings, end)?;
    let known: BTreeMap<u32, &Mutation> = mutations.iter().map(|m| (m.id, *m)).collect();
    let mut put = |id: u32, caught: Option<(String, String)>| -> Result<()> {
        let Some(mutation) = known.get(&id) else {
            bail!("the guest names mutation {id}, which was not to be tried");
        };
        let (line, reaching) = line(settings, &tests, mutation);
        match &caught {
            Some((test, _)) => println!("caught by {test}: {}", mutation.describe()),
            None => println!(
                "survives {} of {reaching}: {}",
                line.tests.len(),
                mutation.describe()
            ),
        }
        let verdict = Verdict {
            caught,
            reaching,
            run: line.tests.len(),
        };
        results.put(&mutation.key, Layer::Vm, verdict)?;
        results.save()
    };
    let mut left = Vec::new();
    for mutation in mutations {
        let (line, reaching) = line(settings, &tests, mutation);
        match reaching {
            0 => put(mutation.id, None)?,
            _ => left.push(line),
        }
    }
    let mut bad = 0;
    while !left.is_empty() && Instant::now() < end {
        let mut tried = BTreeSet::new();
        let done = boot(settings.places, &left, end, &mut |result| {
            let mut words = result.splitn(4, ' ');
            let id: u32 = words.next().unwrap_or_default().parse()?;
            let caught = match words.next() {
                Some("caught") => {
                    let test = words.next().unwrap_or_default().to_owned();
                    Some((test, words.next().unwrap_or_default().to_owned()))
                }
                _ => None,
            };
            tried.insert(id);
            put(id, caught)
        })?;
        left.retain(|line| !tried.contains(&line.mutation));
        if Instant::now() > end {
            break;
        }
        let current = done
            .current
            .filter(|(id, _)| left.iter().any(|line| line.mutation == *id));
        bad = match done.results == 0 && current.is_none() {
            true => bad + 1,
            false => 0,
        };
        ensure!(
            bad < BAD_BOOTS,
            "{}: {}",
            done.how,
            read(&settings.places.out.join("vm.log"))
        );
        if let Some((id, test)) = current {
            put(id, Some((test, done.how)))?;
            left.retain(|line| line.mutation != id);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_four_switches_each() {
        assert_eq!(reached("1080\n"), BTreeSet::from([0, 11]));
    }
}
