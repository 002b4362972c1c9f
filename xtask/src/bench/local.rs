//! Imaging on this machine: time, system calls, bytes read, memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use e2wire_tests::{binaries, oracle, tools};

use super::Options;
use super::figure::{Figure, Figures, Goal, float};
use super::measure::{
    Cost, command, drop_caches, median, run as measure, system_calls,
};
use super::samples::empty_folder;

/// One thing that both sides do, each writing the given file.
struct Job {
    what: &'static str,
    theirs: Maker,
    ours: Maker,
    cold: bool,
}

struct Bench<'a> {
    options: &'a Options,
    e2wire: PathBuf,
    out: PathBuf,
    figures: Figures,
}

/// Measures what `options` name; fails when a target is missed.
pub(super) fn run(options: &Options) -> Result<()> {
    let out = empty_folder("out")?;
    let e2wire = binaries::build_in("release", "e2wire", "e2wire");
    let mut bench =
        Bench { options, e2wire, out, figures: Figures::new(options.json) };
    for sample in &options.samples {
        let image = sample.image()?;
        bench.sample(sample.name, &image)?;
    }
    if options.empty {
        bench.empty()?;
    }
    fs::remove_dir_all(&bench.out)?;
    bench.figures.judge()
}

impl Bench<'_> {
    fn sample(&mut self, name: &'static str, image: &Path) -> Result<()> {
        match name {
            "data" => return self.with_data(name, image),
            "tables" => return self.normal(name, image),
            _ => {}
        }
        let goal = |medium, large| match name {
            "medium" => Goal::AtLeast(medium),
            "large" => Goal::AtLeast(large),
            _ => Goal::None,
        };
        let cold_goal = match name {
            "large" => Goal::AtLeast(4.0),
            _ => Goal::None,
        };
        let raw = self.pairs(name, image, &self.raw("raw, warm", false))?;
        self.ratio("1", name, "raw, warm: times faster", &raw, goal(3., 5.));
        let cold = self.pairs(name, image, &self.raw("raw, cold", true))?;
        self.ratio("1", name, "raw, cold: times faster", &cold, cold_goal);
        let synced = self.pairs(name, image, &self.synced())?;
        let what = "raw, on the disk: times faster";
        self.ratio("1", name, what, &synced, Goal::None);
        self.calls(name, image)?;
        self.reads(name, image)?;
        let memory = raw.iter().map(|(_, ours)| ours.memory).max();
        let goal = if name == "large" { Goal::AtMost(64.) } else { Goal::None };
        self.memory(name, memory.unwrap_or(0), goal);
        Ok(())
    }

    fn image(&self, arguments: &'static [&'static str]) -> Maker {
        let e2wire = self.e2wire.clone();
        Box::new(move |image, out| {
            let mut command = command(&e2wire, ["image", "-q"]);
            command.args(arguments).arg(image).arg(out);
            command
        })
    }

    fn raw(&self, what: &'static str, cold: bool) -> Job {
        let ours = self.image(RAW);
        Job { what, theirs: e2image(&["-r"]), ours, cold }
    }

    fn synced(&self) -> Job {
        let theirs: Maker = Box::new(|image, out| {
            let mut shell = Command::new("sh");
            shell.args(["-c", "e2image -r \"$1\" \"$2\" && sync -f \"$2\""]);
            shell.arg("sh").args([image, out]);
            shell
        });
        let ours = self.image(&RAW[1..]);
        Job { what: "raw, on the disk", theirs, ours, cold: false }
    }

    /// Runs both in turn; the first pair does not count.
    fn pairs(
        &self,
        name: &str,
        image: &Path,
        job: &Job,
    ) -> Result<Vec<(Cost, Cost)>> {
        let out = self.out.join("image");
        let mut pairs = vec![];
        for pair in 0..=self.options.pairs {
            let mut costs = [Cost::default(); 2];
            for (cost, make) in costs.iter_mut().zip([&job.theirs, &job.ours]) {
                clear(&out);
                if job.cold {
                    drop_caches()?;
                }
                *cost = measure(make(image, &out), None)
                    .with_context(|| format!("{name}: {}", job.what))?;
            }
            if pair > 0 {
                pairs.push(costs.into());
            }
        }
        clear(&out);
        Ok(pairs)
    }

    fn ratio(
        &mut self,
        target: &'static str,
        sample: &'static str,
        what: &'static str,
        pairs: &[(Cost, Cost)],
        goal: Goal,
    ) {
        let side = |pick: fn(&(Cost, Cost)) -> f64| -> f64 {
            median(&pairs.iter().map(pick).collect::<Vec<_>>()).0
        };
        let theirs = side(|pair| pair.0.seconds);
        let ours = side(|pair| pair.1.seconds);
        let ratios: Vec<f64> =
            pairs.iter().map(|(a, b)| a.seconds / b.seconds).collect();
        let (_, low, high) = median(&ratios);
        self.figures.add(Figure {
            target,
            sample,
            what,
            value: theirs / ours,
            spread: (low, high),
            goal,
            note: format!("{theirs:.3} s and {ours:.3} s"),
        });
    }

    fn calls(&mut self, name: &'static str, image: &Path) -> Result<()> {
        let out = self.out.join("image");
        let mut counts = [0_u64; 2];
        for (count, make) in
            counts.iter_mut().zip([e2image(&["-r"]), self.image(RAW)])
        {
            clear(&out);
            *count = system_calls(&make(image, &out), &self.out)?;
        }
        let [theirs, ours] = counts;
        let note = format!("{theirs} and {ours}");
        let what = "raw: part of the system calls";
        let value = float(ours) / float(theirs);
        self.figures.exact("2", name, what, value, Goal::AtMost(0.1), note);
        Ok(())
    }

    /// How often each selected byte is read.
    fn reads(&mut self, name: &'static str, image: &Path) -> Result<()> {
        let Ok(blocks) = oracle::block_list(image, 0, &[]) else {
            bail!("e2image refuses {name}");
        };
        let selected = float(u64::try_from(blocks.len())? * 4096);
        let jobs: [(&'static str, &'static [&'static str], f64); 4] = [
            ("raw: reads of a byte", RAW, 1.1),
            ("qcow2 compact: reads of a byte", COMPACT, 1.1),
            ("qcow2 classic: reads of a byte", CLASSIC, 1.3),
            ("raw to a pipe: reads of a byte", RAW, 1.3),
        ];
        for (what, arguments, most) in jobs {
            let out = self.out.join("image");
            clear(&out);
            let make = self.image(arguments);
            let cost = if what.contains("pipe") {
                measure(make(image, Path::new("-")), None)?
            } else {
                measure(make(image, &out), None)?
            };
            let note = format!(
                "{:.0} of {:.0} MB",
                float(cost.read) / 1e6,
                selected / 1e6
            );
            let value = float(cost.read) / selected;
            self.figures.exact(
                "2",
                name,
                what,
                value,
                Goal::AtMost(most),
                note,
            );
        }
        clear(&self.out.join("image"));
        Ok(())
    }

    fn normal(&mut self, name: &'static str, image: &Path) -> Result<()> {
        let job = Job {
            what: "normal",
            theirs: e2image(&[]),
            ours: self.image(&["--no-sync", "--format", "normal"]),
            cold: false,
        };
        // e2image takes most of a minute for each.
        let fewer = Bench {
            options: &Options {
                samples: vec![],
                empty: false,
                pairs: self.options.pairs.min(2),
                json: false,
            },
            e2wire: self.e2wire.clone(),
            out: self.out.clone(),
            figures: Figures::new(self.options.json),
        };
        let pairs = fewer.pairs(name, image, &job)?;
        let goal = Goal::AtLeast(15.);
        self.ratio("3", name, "normal: times faster", &pairs, goal);
        let read = pairs.iter().map(|(_, ours)| ours.read).max();
        let gigabytes = float(read.unwrap_or(0)) / 1e9;
        let what = "normal: GB read";
        let note = String::new();
        self.figures.exact("3", name, what, gigabytes, Goal::AtMost(0.6), note);
        Ok(())
    }

    fn with_data(&mut self, name: &'static str, image: &Path) -> Result<()> {
        let mut job = Job {
            what: "raw with data",
            theirs: e2image(&["-ra"]),
            ours: self.image(&["--no-sync", "--format", "raw", "--data"]),
            cold: true,
        };
        let pairs = self.pairs(name, image, &job)?;
        let goal = Goal::AtLeast(5.);
        self.ratio("4", name, "-a, cold: times faster", &pairs, goal);
        job.theirs = Box::new(|image, out| {
            let mut command = tools::command("cp");
            command.arg("--sparse=always").args([image, out]);
            command
        });
        let pairs = self.pairs(name, image, &job)?;
        let goal = Goal::AtLeast(1. / 1.3);
        let what = "-a, cold: times as fast as cp";
        self.ratio("4", name, what, &pairs, goal);
        Ok(())
    }

    fn memory(&mut self, sample: &'static str, bytes: u64, goal: Goal) {
        let value = float(bytes) / f64::from(1 << 20);
        let what = "raw: MiB of memory";
        self.figures.exact("5", sample, what, value, goal, String::new());
    }

    /// A filesystem of 64 TiB without files. It is larger than a file may be
    /// on ext4, so it lies in memory.
    fn empty(&mut self) -> Result<()> {
        let scratch = tempfile_in("/dev/shm")?;
        let image = scratch.join("empty.img");
        let made = self.empty_in(&image);
        fs::remove_dir_all(&scratch)?;
        made
    }

    fn empty_in(&mut self, image: &Path) -> Result<()> {
        let status = tools::command("mke2fs")
            .args(["-q", "-F", "-b", "4096", "-O"])
            .arg(
                "none,has_journal,extent,64bit,flex_bg,metadata_csum,\
                  sparse_super,huge_file,dir_index,filetype",
            )
            .args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"])
            .arg(image)
            .arg("64T")
            .stderr(std::process::Stdio::null())
            .status()?;
        ensure!(status.success(), "mke2fs cannot make 64 TiB in memory");
        let out = image.with_file_name("image.qcow2");
        let make = self.image(COMPACT);
        let cost = measure(make(image, &out), None)?;
        let value = float(cost.memory) / f64::from(1 << 20);
        let what = "64 TiB, qcow2: MiB of memory";
        let note = format!("{:.1} s", cost.seconds);
        self.figures.exact("5", "empty", what, value, Goal::AtMost(256.), note);
        Ok(())
    }
}

/// Makes the command that images a file to another.
type Maker = Box<dyn Fn(&Path, &Path) -> Command>;

const RAW: &[&str] = &["--no-sync", "--format", "raw"];
const COMPACT: &[&str] = &["--no-sync", "--format", "qcow2"];
const CLASSIC: &[&str] =
    &["--no-sync", "--format", "qcow2", "--qcow2-layout", "classic"];

/// Takes away an image and what stands beside it: every output is fresh.
fn clear(out: &Path) {
    for suffix in ["", ".manifest.json", ".digests"] {
        let mut name = out.as_os_str().to_owned();
        name.push(suffix);
        // It may not be there.
        let _ = fs::remove_file(name);
    }
}

fn e2image(options: &'static [&'static str]) -> Maker {
    Box::new(move |image, out| {
        let mut command = tools::command("e2image");
        command.args(options).args([image, out]);
        command
    })
}

fn tempfile_in(directory: &str) -> Result<PathBuf> {
    let path =
        Path::new(directory).join(format!("e2wire-{}", std::process::id()));
    fs::create_dir(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}
