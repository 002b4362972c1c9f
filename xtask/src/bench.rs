//! `cargo xtask bench`: how fast e2wire is beside e2image, in ratios.
//!
//! Both sides run in turn on the same filesystems, warm and cold, after one
//! run that does not count; medians count, with their spread. Absolute times
//! say nothing about another machine and are shown only for orientation.
//! `local` images here, `link` over serial lines and TCP.

mod figure;
mod link;
mod local;
mod measure;
mod samples;

use anyhow::{Context, Result, bail, ensure};

use e2wire_tests::tools;
use samples::{SAMPLES, Sample};

const USAGE: &str = "\
usage: cargo xtask bench local [--only small,medium,large,tables,bigalloc,data,empty]
                               [--pairs N] [--json]
       cargo xtask bench link [--only small,medium] [--pairs N] [--json]";

/// What is measured.
pub(crate) struct Options {
    samples: Vec<&'static Sample>,
    empty: bool,
    pairs: usize,
    json: bool,
}

/// Runs the measurements that `arguments` name.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let mut options = Options {
        samples: SAMPLES.iter().collect(),
        empty: true,
        pairs: 5,
        json: false,
    };
    let mut words = arguments.iter().copied();
    let measured = match words.next() {
        Some("local") => local::run,
        Some("link") => {
            only(&mut options, "small,medium")?;
            link::run
        }
        _ => bail!("{USAGE}"),
    };
    while let Some(word) = words.next() {
        match word {
            "--json" => options.json = true,
            "--only" => only(&mut options, words.next().context(USAGE)?)?,
            "--pairs" => {
                options.pairs = words.next().context(USAGE)?.parse()?;
                ensure!(options.pairs > 0, "at least one pair");
            }
            _ => bail!("{USAGE}"),
        }
    }
    ensure!(
        tools::is_root(),
        "the samples are filled through a loop mount, and caches are dropped: \
         run this as root"
    );
    measured(&options)
}

fn only(options: &mut Options, names: &str) -> Result<()> {
    options.samples.clear();
    options.empty = false;
    for name in names.split(',') {
        if name == "empty" {
            options.empty = true;
            continue;
        }
        let sample = SAMPLES.iter().find(|sample| sample.name == name);
        let sample = sample.with_context(|| format!("no sample {name}"))?;
        options.samples.push(sample);
    }
    Ok(())
}
