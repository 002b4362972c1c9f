//! `cargo xtask build-initrd`: the file that one boots on a machine whose
//! disks are to be rescued.
//!
//! It holds the agent, the modules that lead to disks, and nothing else: no
//! shell, no libc, no secret. The same input gives the same bytes. What the
//! agent does once it runs is the agent's own matter; what passes between the
//! two is this:
//!
//! - `/e2wire-agent`: the agent; `/init` is a link to it, unless the initrd
//!   is appended to another one, whose `/init` has to stay.
//! - `/e2wire/modules.list`: modules to load, a path a line, in order.
//! - `/e2wire/cmdline`: parameters as on the kernel's command line, which has
//!   the last word.
//! - `/e2wire/firmware`: firmware, by the names that modules have for it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};

use archive::Entry;
use firmware::Firmware;
use kernel::KernelConfig;
use manifest::{FileDigest, Manifest, PackedAgent, PackedFile};
use modules::{ModuleTree, Selection};
pub(crate) use options::Options;

use crate::project::parsed;

mod archive;
mod firmware;
mod kernel;
mod manifest;
mod modinfo;
mod modules;
mod options;
mod profile;
mod segment;
#[cfg(test)]
mod tests;

/// Where the agent finds what is meant for it, without the leading slash.
const FOLDER: &str = "e2wire";
const AGENT: &str = "e2wire-agent";
const MODULES_FOLDER: &str = "e2wire/modules";
const MODULES_LIST: &str = "e2wire/modules.list";
const PARAMETERS: &str = "e2wire/cmdline";
const FIRMWARE_FOLDER: &str = "e2wire/firmware";

/// Runs the command with the words behind its name.
///
/// # Errors
///
/// Nothing usable was written; says what is in the way.
pub(crate) fn run(words: &[&str]) -> Result<ExitCode> {
    let options: Options = match parsed("cargo xtask build-initrd", words)? {
        Ok(options) => options,
        Err(code) => return Ok(code),
    };
    if let Err(error) = options.check() {
        eprintln!("error: {error}");
        return Ok(ExitCode::from(2));
    }
    let agent = Agent::read(&crate::agent::build()?)?;
    let built = build(&options, &agent)?;
    built.write(&options.out)?;
    print!("{}", built.report(&options));
    for problem in &built.problems {
        eprintln!("warning: {problem}");
    }
    Ok(if built.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// The agent as it is packed.
#[derive(Debug)]
struct Agent {
    build_id: String,
    /// Without symbols, debug information and log texts.
    program: Vec<u8>,
    /// The texts of its log messages.
    log_table: Vec<u8>,
}

impl Agent {
    fn read(built: &crate::agent::Agent) -> Result<Self> {
        let read = |path: &Path| {
            fs::read(path)
                .with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            build_id: built.build_id.clone(),
            program: read(&built.stripped)?,
            log_table: read(&built.defmt_table)?,
        })
    }
}

/// A finished initrd, not yet written.
#[derive(Debug)]
struct Built {
    bytes: Vec<u8>,
    segment_size: usize,
    archive_size: usize,
    manifest: Manifest,
    log_table: Vec<u8>,
    /// What to tell besides what is missing.
    problems: Vec<String>,
}

/// What is known of the kernel and what it gives.
#[derive(Default)]
struct ForKernel {
    release: Option<String>,
    selection: Selection,
    firmware: Firmware,
    problems: Vec<String>,
}

fn build(options: &Options, agent: &Agent) -> Result<Built> {
    let mut for_kernel = for_kernel(options)?;
    let parameters = options.parameters();
    let entries =
        entries(options, agent, &for_kernel.selection, &for_kernel.firmware);
    let archive = archive::newc_archive(&entries)?;
    let segment = segment::segment(&archive, options.compress)?;
    let segment_size = segment.len();
    let (form, appended_to, bytes) = match &options.append_to {
        None => ("initrd", None, segment),
        Some(path) => {
            let named = || format!("cannot append to {}", path.display());
            let base = fs::read(path).with_context(named)?;
            let joined =
                segment::append(&base, &segment).with_context(named)?;
            ("segment", Some(FileDigest::of(&base)), joined)
        }
    };
    if options.modules_dir.is_none() {
        let mut problem = "without --modules-dir only drivers that are built \
                           into the kernel will be there"
            .to_owned();
        if options.append_to.is_some() {
            problem.push_str(
                ": the agent does not load the modules that the other \
                 initrd holds",
            );
        }
        for_kernel.problems.push(problem);
    }
    let mut manifest = Manifest {
        version: 1,
        form,
        compression: options.compress.to_string(),
        output: FileDigest::of(&bytes),
        appended_to,
        agent: PackedAgent {
            build_id: agent.build_id.clone(),
            license: "MIT OR Apache-2.0",
            version: env!("CARGO_PKG_VERSION"),
        },
        parameters,
        kernel_release: for_kernel.release,
        files: entries.iter().map(PackedFile::from).collect(),
        modules: Vec::new(),
        built_in_drivers: Vec::new(),
        missing_drivers: Vec::new(),
        missing_firmware: Vec::new(),
    };
    manifest.take_selection(&for_kernel.selection);
    manifest.take_firmware(&for_kernel.firmware);
    Ok(Built {
        bytes,
        segment_size,
        archive_size: archive.len(),
        manifest,
        log_table: agent.log_table.clone(),
        problems: for_kernel.problems,
    })
}

/// Looks at the kernel, as far as the options lead to one.
fn for_kernel(options: &Options) -> Result<ForKernel> {
    let mut found = ForKernel::default();
    let tree =
        options.modules_dir.as_deref().map(ModuleTree::open).transpose()?;
    let config = match (&options.kernel_config, &tree) {
        (Some(path), _) => Some(KernelConfig::read(path)?),
        (None, Some(tree)) => kernel::find_config(tree.root(), tree.release())
            .map(|path| KernelConfig::read(&path))
            .transpose()?,
        (None, None) => None,
    };
    if let Some(config) = &config {
        let wants_network =
            options.net.is_some_and(|n| n != options::Net::None);
        let option = options.compress.config_option();
        let lacking = kernel::lacking(config, option, wants_network);
        ensure!(lacking.is_empty(), "{}", lacking.join("\n"));
    } else if let Some(option) = options.compress.config_option() {
        found.problems.push(format!(
            "no kernel configuration found (--kernel-config): make sure that \
             the kernel has {option}=y"
        ));
    }
    let Some(tree) = tree else { return Ok(found) };
    check_image(options, &tree)?;
    let drivers = options.profile.drivers();
    found.selection = tree.select(&drivers, config.as_ref())?;
    let folder = options.firmware_dir.clone().or_else(|| {
        let root = tree.root().ancestors().nth(2)?;
        Some(root.join("firmware")).filter(|folder| folder.is_dir())
    });
    found.firmware =
        firmware::collect(&found.selection.modules, folder.as_deref())?;
    let missing = found.selection.missing.len();
    if missing > 0 && tree.release().contains("cloud") {
        found.problems.push(format!(
            "{} is a cloud kernel: made for virtual machines, it has no \
             drivers for most adapters of real ones. For hardware boot the \
             standard kernel with its own modules",
            tree.release()
        ));
    }
    found.release = Some(tree.release().to_owned());
    Ok(found)
}

fn check_image(options: &Options, tree: &ModuleTree) -> Result<()> {
    let image = match &options.kernel {
        Some(path) => path.clone(),
        None => match kernel::find_image(tree.root(), tree.release()) {
            Some(path) => path,
            None => return Ok(()),
        },
    };
    let release = kernel::image_release(&image)?;
    if release != tree.release() {
        bail!(
            "kernel {} is release {release}, the modules in {} are for {}: \
             it would load none of them",
            image.display(),
            tree.root().display(),
            tree.release()
        );
    }
    Ok(())
}

/// What goes into the archive. A folder comes before what it holds, or the
/// kernel would not make the file.
fn entries(
    options: &Options,
    agent: &Agent,
    selection: &Selection,
    firmware: &Firmware,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    if options.append_to.is_none() {
        // In the other form these may be links in the initrd before ours,
        // and the kernel would replace a link by the folder.
        entries.extend(["dev", "proc", "sys"].map(Entry::directory));
        entries.push(Entry::device("dev/console", 5, 1));
        entries.push(Entry::device("dev/null", 1, 3));
    }
    entries.push(Entry::file(AGENT, 0o755, agent.program.clone()));
    if options.append_to.is_none() {
        entries.push(Entry::symlink("init", AGENT));
    }
    entries.push(Entry::directory(FOLDER));
    let parameters = format!("{}\n", options.parameters());
    entries.push(Entry::file(PARAMETERS, 0o644, parameters.into_bytes()));
    if !selection.modules.is_empty() {
        let mut list = String::new();
        entries.push(Entry::directory(MODULES_FOLDER));
        for module in &selection.modules {
            let path = format!("{MODULES_FOLDER}/{}.ko", module.name);
            list.push('/');
            list.push_str(&path);
            list.push('\n');
            entries.push(Entry::file(&path, 0o644, module.bytes.clone()));
        }
        entries.push(Entry::file(MODULES_LIST, 0o644, list.into_bytes()));
    }
    if !firmware.files.is_empty() {
        entries.push(Entry::directory(FIRMWARE_FOLDER));
        let mut made = std::collections::BTreeSet::new();
        for (name, bytes) in &firmware.files {
            let path = format!("{FIRMWARE_FOLDER}/{name}");
            for (at, _) in name.match_indices('/') {
                let folder = name.get(..at).unwrap_or_default();
                if made.insert(folder.to_owned()) {
                    let folder = format!("{FIRMWARE_FOLDER}/{folder}");
                    entries.push(Entry::directory(&folder));
                }
            }
            entries.push(Entry::file(&path, 0o644, bytes.clone()));
        }
    }
    entries
}

impl Built {
    fn is_complete(&self) -> bool {
        self.manifest.missing_drivers.is_empty()
            && self.manifest.missing_firmware.is_empty()
    }

    fn log_table_path(&self, out: &Path) -> PathBuf {
        let id = &self.manifest.agent.build_id;
        out.with_file_name(format!("e2wire-agent-{id}.defmt"))
    }

    /// Writes the initrd, its manifest and the log table, each whole or not
    /// at all: the output may be a machine's only way to boot.
    fn write(&self, out: &Path) -> Result<()> {
        let mut manifest = serde_json::to_string_pretty(&self.manifest)?;
        manifest.push('\n');
        write_whole(&self.log_table_path(out), &self.log_table)?;
        write_whole(&manifest_path(out), manifest.as_bytes())?;
        write_whole(out, &self.bytes)
    }

    fn report(&self, options: &Options) -> String {
        let mut text = String::new();
        let manifest = &self.manifest;
        let out = options.out.display();
        let mut say = |line: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
        };
        say(format!("{out}: {} bytes", self.bytes.len()));
        say(format!(
            "  agent {} and {} modules, {} bytes unpacked, {} as {}",
            manifest.agent.build_id,
            manifest.modules.len(),
            self.archive_size,
            self.segment_size,
            manifest.compression
        ));
        say(format!("  manifest: {}", manifest_path(&options.out).display()));
        let table = self.log_table_path(&options.out);
        say(format!("  log table: {}", table.display()));
        if !manifest.built_in_drivers.is_empty() {
            let names = manifest.built_in_drivers.join(", ");
            say(format!("  built into the kernel: {names}"));
        }
        if !manifest.missing_drivers.is_empty() {
            let names = manifest.missing_drivers.join(", ");
            say(format!("  NOT THERE, drivers: {names}"));
        }
        for (module, names) in manifest.missing_firmware_by_module() {
            let names = names.join(", ");
            say(format!("  NOT THERE, firmware for {module}: {names}"));
        }
        if !self.is_complete() {
            say("  What is not there matters only where a machine has such \
                 an adapter."
                .to_owned());
        }
        if !manifest.missing_firmware.is_empty() {
            say("  Firmware comes from packages such as \
                 firmware-misc-nonfree; --firmware-dir says where it lies."
                .to_owned());
        }
        say(format!("  parameters baked in: {}", manifest.parameters));
        let line = options.kernel_command_line();
        say(format!("\nKernel command line:\n  {line}"));
        say(format!("\nGRUB:\n{}", self.grub_entry(options, &line)));
        text
    }

    fn grub_entry(&self, options: &Options, line: &str) -> String {
        let release = self.manifest.kernel_release.as_deref();
        let release = release.unwrap_or("RELEASE");
        let name = options
            .out
            .file_name()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
        format!(
            "  menuentry 'e2wire rescue' --id e2wire {{\n    \
             search --no-floppy --set=root --file /boot/{name}\n    \
             linux /boot/vmlinuz-{release} {line}\n    \
             initrd /boot/{name}\n  }}\n  \
             (where /boot is a filesystem of its own, leave /boot out; \
             `grub-reboot e2wire` boots it once)"
        )
    }
}

fn manifest_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".manifest.json");
    name.into()
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let named = || format!("cannot write {}", path.display());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new()
        .prefix(".e2wire-")
        .permissions(public_file())
        .tempfile_in(folder)
        .with_context(named)?;
    fs::write(file.path(), bytes).with_context(named)?;
    file.as_file().sync_all().with_context(named)?;
    file.persist(path).with_context(named)?;
    Ok(())
}

/// There is no secret in an initrd, and boot servers run as other users.
fn public_file() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}
