// SPDX-License-Identifier: GPL-2.0

//! As many transactions as there can be: names and attributes that come and go, by several threads,
//! until the machine is killed.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::Result;
use rustix::fs::{setxattr, XattrFlags};

use crate::Mounted;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    mounted: Mounted,
    #[arg(long, default_value_t = 4)]
    threads: usize,
}

fn round(dir: &Path) -> io::Result<()> {
    let (name, other) = (dir.join("name"), dir.join("other"));
    File::create(&name)?.set_len(9000)?;
    setxattr(&name, "user.load", &[1; 100], XattrFlags::empty())?;
    fs::hard_link(&name, &other)?;
    fs::remove_file(&name)?;
    fs::rename(&other, &name)?;
    fs::remove_file(&name)
}

/// Ends only with an error.
pub fn run(args: &Args) -> Result<bool> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|n| {
                scope.spawn(move || -> io::Result<()> {
                    let dir = args.mounted.dir.join(format!("load{n}"));
                    fs::create_dir_all(&dir)?;
                    let _ = fs::remove_file(dir.join("other"));
                    loop {
                        round(&dir)?;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("does not panic")?;
        }
        Ok(false)
    })
}
