// SPDX-License-Identifier: GPL-2.0

//! Mistakes in the code of rdax, made mechanically, as switches at run time: whether the tests find
//! them. `Documentation/mutations.rst` tells more.

#![forbid(unsafe_code)]

mod build;
mod choice;
mod edit;
mod find;
mod host;
mod make;
mod mutation;
mod process;
mod results;
mod smoke;
mod survivors;
mod table;
mod tree;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::choice::Choice;
use crate::make::Places;
use crate::results::{Layer, Results};

/// Make mistakes in the code of rdax, and see whether the tests find them
#[derive(Parser)]
#[command(name = "rdax-mutants")]
struct Cli {
    /// The checkout
    #[arg(long, default_value = ".", global = true)]
    top: PathBuf,
    /// Where the mutated tree and the results are
    #[arg(long, default_value = "build/mutants", global = true)]
    out: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Make the mutated tree, and find the mutations that do not compile
    Make {
        /// Compile it for the host alone
        #[arg(long)]
        no_kernel: bool,
    },
    /// Run the tests of a layer with one mutation at a time
    Run(Run),
    /// Print what caught what, and what survives without a reason
    Table {
        #[command(flatten)]
        choice: Choice,
    },
    /// Make and run those of a list, which all have to be caught by the tests on the host
    Smoke {
        /// The list
        #[arg(long, default_value = "tests/mutants/smoke.toml")]
        list: PathBuf,
    },
    /// Print a list for smoke, of mutations that the host's tests have caught
    Pick {
        #[command(flatten)]
        choice: Choice,
    },
}

#[derive(Args)]
struct Run {
    /// Which tests
    #[arg(long, value_enum, default_value = "host")]
    layer: Layer,
    #[command(flatten)]
    choice: Choice,
    /// The tests of these packages alone
    #[arg(long)]
    package: Vec<String>,
    /// Of these, the test programs with these names alone
    #[arg(long)]
    program: Vec<String>,
    /// In the VM, the tests of these names alone; a * at the end stands for any rest
    #[arg(long)]
    test: Vec<String>,
    /// Mutations tried at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Of one mutation, run tests that take so long together, not more (90s, 2m)
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// On the host, use no test that takes longer
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    longest: Duration,
    /// Begin no mutation after this time
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    budget: Duration,
    /// Those again that no test caught
    #[arg(long)]
    again: bool,
}

/// Runs a layer for those of the choice that no layer has caught and this one has not tried.
fn run(places: &Places, args: &Run) -> Result<()> {
    let all = mutation::load(&places.out)?;
    let mut results = Results::load(&places.out)?;
    let mut chosen = args.choice.of(&all);
    chosen.retain(|mutation| {
        let tried = results.get(&mutation.key, args.layer).is_some();
        results.caught(&mutation.key).is_none() && (args.again || !tried)
    });
    println!("{} mutations to try", chosen.len());
    let limit = Instant::now() + args.budget;
    match args.layer {
        Layer::Host => {
            let settings = host::Settings {
                top: &places.top,
                out: &places.out,
                packages: &args.package,
                programs: &args.program,
                jobs: args.jobs,
                patience: args.patience,
                longest: args.longest,
            };
            host::layer(&settings, &chosen, &mut results, limit)
        }
        Layer::Vm => {
            let settings = vm::Settings {
                places,
                tests: &args.test,
                patience: args.patience,
            };
            vm::layer(&settings, &chosen, &mut results, limit)
        }
    }
}

fn table(places: &Places, choice: &Choice) -> Result<()> {
    let all = mutation::load(&places.out)?;
    let results = Results::load(&places.out)?;
    let survivors = survivors::load(&places.top.join("tests/mutants/survivors.toml"))?;
    table::print(&choice.of(&all), &results, &survivors);
    Ok(())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Places::new(&cli.top, &cli.out).and_then(|places| match cli.what {
        What::Make { no_kernel } => make::make(&places, !no_kernel, &|_| true).map(|()| true),
        What::Run(args) => run(&places, &args).map(|()| true),
        What::Table { choice } => table(&places, &choice).map(|()| true),
        What::Smoke { list } => smoke::smoke(&places, &list),
        What::Pick { choice } => smoke::pick(&places, &choice).map(|()| true),
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("rdax-mutants: {e:#}");
            ExitCode::from(2)
        }
    }
}
