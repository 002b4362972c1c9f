//! The filesystems that are measured: real ext4, filled by the kernel through
//! a loop mount, cached under `target/bench`.
//!
//! Names, sizes and links are those of this machine's /usr, repeated below
//! folders named like releases, with attributes, hard links, fragmented files
//! and deletions; then inodes are touched until the journal has wrapped.
//! Contents are allocated but never written, so that the files stay sparse;
//! only `data` holds real bytes.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2wire_tests::{target, tools};
use rustix::fs::{FallocateFlags, XattrFlags, fallocate, setxattr, syncfs};

/// A filesystem to be measured.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    gib: u64,
    inodes: usize,
    /// More options of mke2fs.
    options: &'static [&'static str],
    features: &'static str,
    /// Whether files hold real contents.
    data: bool,
}

const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,\
                        filetype,sparse_super,large_file,extent,huge_file,\
                        flex_bg,metadata_csum,64bit,dir_nlink,extra_isize";

/// Changes when the way they are filled changes.
const GENERATION: u32 = 1;

/// All of them.
pub(crate) const SAMPLES: &[Sample] = &[
    sample("small", 1, 4_500),
    sample("medium", 16, 200_000),
    sample("large", 1024, 775_000),
    // As large, but with inode tables of less than 4 GiB: more than a normal
    // image can hold the default makes.
    Sample { options: &["-N", "15000000"], ..sample("tables", 1024, 775_000) },
    Sample {
        // As many inodes as clusters: mke2fs makes no more.
        options: &["-C", "65536", "-i", "65536"],
        features: ",bigalloc",
        ..sample("bigalloc", 16, 20_000)
    },
    Sample { data: true, ..sample("data", 6, 60_000) },
];

const fn sample(name: &'static str, gib: u64, inodes: usize) -> Sample {
    Sample { name, gib, inodes, options: &[], features: "", data: false }
}

/// Where samples and their images lie.
pub(crate) fn directory() -> PathBuf {
    target().join("bench")
}

/// An empty folder for what a bench makes.
pub(crate) fn empty_folder(name: &str) -> Result<PathBuf> {
    let folder = directory().join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

impl Sample {
    /// The image file; made when it is not in the cache.
    pub(crate) fn image(&self) -> Result<PathBuf> {
        let directory = directory();
        fs::create_dir_all(&directory)?;
        let image = directory.join(format!("{}-{GENERATION}.img", self.name));
        if image.exists() {
            return Ok(image);
        }
        eprintln!("making {} ({} GiB) ...", self.name, self.gib);
        let began = std::time::Instant::now();
        let part = image.with_extension("part");
        let mount = directory.join(format!("{}.mount", self.name));
        self.mke2fs(&part)?;
        fs::create_dir_all(&mount)?;
        let mounted = Mount::new(&part, &mount)?;
        let filled = self.fill(&mount);
        mounted.unmount()?;
        filled.with_context(|| format!("cannot fill {}", self.name))?;
        fs::rename(&part, &image)?;
        eprintln!("made in {:.0} s", began.elapsed().as_secs_f64());
        Ok(image)
    }

    fn mke2fs(&self, image: &Path) -> Result<()> {
        let _ = fs::remove_file(image);
        let output = tools::command("mke2fs")
            .args(["-q", "-F", "-b", "4096", "-I", "256", "-i", "16384"])
            .args(["-U", "5eed0000-e2e2-4e2e-8e2e-0000000000be"])
            .args(["-O", &format!("{FEATURES}{}", self.features)])
            .args([
                "-E",
                "hash_seed=5eed0000-e2e2-4e2e-8e2e-0000000000bf,\
                 lazy_itable_init=1,lazy_journal_init=1,nodiscard",
            ])
            .args(self.options)
            .arg(image)
            .arg(format!("{}G", self.gib))
            .output()?;
        ensure!(
            output.status.success(),
            "mke2fs: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn fill(&self, root: &Path) -> Result<()> {
        let tree = tree(Path::new("/usr"), self.inodes.min(60_000))?;
        let mut filler = Filler { root, inodes: 0, data: self.data };
        let mut release = 0;
        while filler.inodes < self.inodes {
            let below = PathBuf::from(format!("release-{release:03}"));
            fs::create_dir(root.join(&below))?;
            for entry in &tree {
                if filler.inodes >= self.inodes {
                    break;
                }
                filler.add(entry, &below)?;
            }
            release += 1;
        }
        fragment(root, 64.min(self.inodes / 50), 150)?;
        wrap_journal(root)
    }
}

/// A mounted image; unmounted at the latest when it is dropped.
struct Mount<'a> {
    at: &'a Path,
    mounted: bool,
}

impl<'a> Mount<'a> {
    fn new(image: &Path, at: &'a Path) -> Result<Self> {
        let status = tools::command("mount")
            .args(["-t", "ext4", "-o", "loop,nodiscard,noinit_itable"])
            .args([image, at])
            .status()?;
        ensure!(status.success(), "cannot mount {}", image.display());
        Ok(Self { at, mounted: true })
    }

    fn unmount(mut self) -> Result<()> {
        let status = tools::command("umount").arg(self.at).status()?;
        ensure!(status.success(), "cannot unmount {}", self.at.display());
        self.mounted = false;
        fs::remove_dir(self.at)?;
        Ok(())
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if self.mounted {
            // An earlier error is on its way up; this one adds nothing.
            let _ = tools::command("umount").arg(self.at).status();
        }
    }
}

/// What stands below a directory, relative to it, parents first.
struct Entry {
    path: PathBuf,
    source: PathBuf,
    kind: Kind,
}

enum Kind {
    Directory,
    File(u64),
    Link(PathBuf),
}

/// The first `most` entries below `source`, in the order of their names.
fn tree(source: &Path, most: usize) -> Result<Vec<Entry>> {
    let mut entries = vec![];
    let mut waiting = BTreeSet::from([PathBuf::new()]);
    while let Some(directory) = waiting.pop_first() {
        let Ok(listed) = fs::read_dir(source.join(&directory)) else {
            continue;
        };
        let mut names: Vec<_> = listed
            .map(|e| e.map(|e| e.file_name()))
            .collect::<Result<_, _>>()?;
        names.sort_unstable();
        for name in names {
            if entries.len() >= most {
                return Ok(entries);
            }
            let path = directory.join(name);
            let source = source.join(&path);
            let facts = fs::symlink_metadata(&source)?;
            let kind = if facts.is_dir() {
                waiting.insert(path.clone());
                Kind::Directory
            } else if facts.is_symlink() {
                Kind::Link(fs::read_link(&source)?)
            } else {
                Kind::File(facts.len())
            };
            entries.push(Entry { path, source, kind });
        }
    }
    ensure!(!entries.is_empty(), "{} is empty", source.display());
    Ok(entries)
}

struct Filler<'a> {
    root: &'a Path,
    inodes: usize,
    data: bool,
}

impl Filler<'_> {
    fn add(&mut self, entry: &Entry, below: &Path) -> Result<()> {
        let path = self.root.join(below).join(&entry.path);
        self.inodes += 1;
        match &entry.kind {
            Kind::Directory => fs::create_dir(&path)?,
            Kind::Link(target) => symlink(target, &path)?,
            Kind::File(_) if self.data => {
                // A file that we may not read is only a name less.
                let _ = fs::copy(&entry.source, &path);
            }
            Kind::File(bytes) => {
                let file = File::create(&path)?;
                let bytes = (*bytes).min(1 << 20);
                if bytes > 0 {
                    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
                }
                if self.inodes.is_multiple_of(7) {
                    // Unique, so that no two inodes share a block.
                    let value = format!("{:0300}", self.inodes);
                    let name = "user.digest";
                    let flags = XattrFlags::empty();
                    setxattr(&path, name, value.as_bytes(), flags)?;
                }
                if self.inodes.is_multiple_of(31) {
                    let mut link = path.clone().into_os_string();
                    link.push(".hard-link");
                    fs::hard_link(&path, link)?;
                }
                if self.inodes.is_multiple_of(37) {
                    fs::remove_file(&path)?;
                    self.inodes -= 1;
                }
            }
        }
        Ok(())
    }
}

/// `files` files that grow in turn by one block each, and of which every
/// third is deleted.
fn fragment(root: &Path, files: usize, blocks: u64) -> Result<()> {
    let directory = root.join("fragmented");
    fs::create_dir(&directory)?;
    let path = |index: usize| directory.join(format!("log-{index:03}"));
    let handles: Vec<File> = (0..files)
        .map(|index| File::create(path(index)))
        .collect::<Result<_, _>>()?;
    for block in 0..blocks {
        for file in &handles {
            // Every second block, so that no two extents can be joined.
            let at = 2 * block * 4096;
            fallocate(file, FallocateFlags::empty(), at, 4096)?;
        }
    }
    for index in (0..files).step_by(3) {
        fs::remove_file(path(index))?;
    }
    Ok(())
}

/// Touches inodes until more was written to the journal than it can hold.
fn wrap_journal(root: &Path) -> Result<()> {
    let whole = OpenOptions::new().read(true).open(root)?;
    syncfs(&whole)?;
    for pass in 0..60_u32 {
        let (written, holds) = journal_blocks(root)?;
        if written > holds + holds / 10 {
            return Ok(());
        }
        let mut touched = 0_u32;
        let mut waiting = vec![root.to_owned()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    waiting.push(entry.path());
                } else if entry.file_type()?.is_file() {
                    touch(&entry.path(), pass)?;
                    touched += 1;
                    if touched.is_multiple_of(20_000) {
                        syncfs(&whole)?;
                    }
                }
            }
        }
        // What is created and deleted at once is in the journal only.
        for round in 0..50 {
            let path = root.join(format!("passing-{round}"));
            fs::write(&path, b"x")?;
            syncfs(&whole)?;
            fs::remove_file(&path)?;
            syncfs(&whole)?;
        }
    }
    Ok(())
}

fn touch(path: &Path, pass: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let mode = if pass.is_multiple_of(2) { 0o600 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// How many blocks went to the journal since the mount, and how many it
/// holds.
fn journal_blocks(root: &Path) -> Result<(u64, u64)> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let device = mounts
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(_, rest)| {
            rest.split(' ').next().is_some_and(|at| Path::new(at) == root)
        })
        .map(|(device, _)| device)
        .context("not mounted")?;
    let name = device.trim_start_matches("/dev/");
    let info = fs::read_to_string(format!("/proc/fs/jbd2/{name}-8/info"))?;
    let number = |label: &str| -> Option<u64> {
        let line = info.lines().find(|line| line.contains(label))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let transactions = number(" transactions").context("no transactions")?;
    let each = number(" logged blocks per transaction").unwrap_or(0);
    let stats = tools::command("dumpe2fs").arg("-h").arg(device).output()?;
    let stats = String::from_utf8_lossy(&stats.stdout).into_owned();
    let holds = stats
        .lines()
        .find_map(|line| line.strip_prefix("Total journal blocks:"))
        .context("no journal")?
        .trim()
        .parse()?;
    Ok((transactions * each, holds))
}
