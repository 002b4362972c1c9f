//! `cargo xtask agent`: the freestanding agent, built the one right way and
//! checked before anybody boots it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Object, ObjectSection, ObjectSymbol};

use crate::project::{cargo, root, run};

/// The most bytes of the stripped agent.
pub(crate) const STRIPPED_BYTES_MAX: u64 = 640 * 1024;
/// The most bytes that the agent may use in all.
pub(crate) const MEMORY_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A freestanding agent on disk.
#[derive(Debug)]
pub(crate) struct Agent {
    /// The whole ELF with its debug information, for humans and `gdb`.
    pub(crate) elf: PathBuf,
    /// What is booted: without symbols, debug information and log texts.
    pub(crate) stripped: PathBuf,
    /// The texts of its log messages, by build id.
    pub(crate) defmt_table: PathBuf,
    /// What the agent says in its Hello, in hexadecimal.
    pub(crate) build_id: String,
    /// Bytes of the stripped file.
    pub(crate) stripped_bytes: u64,
    /// Bytes of memory that are set aside when it starts.
    pub(crate) static_bytes: u64,
}

/// Builds, checks and strips the freestanding agent in the project's target
/// folder.
pub(crate) fn build() -> Result<Agent> {
    let target = target_folder();
    let mut command = cargo(&[
        "build",
        "--quiet",
        "--locked",
        "--profile",
        "agent",
        "--package",
        "e2wire-agent",
        "--features",
        "bare",
    ]);
    command
        .arg("--target-dir")
        .arg(&target)
        .env("E2WIRE_AGENT_BARE", "1")
        .env("DEFMT_LOG", "debug")
        .env("CFLAGS_x86_64_unknown_linux_gnu", c_flags()?)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags()?);
    run(command)?;
    let elf = target.join("agent/e2wire-agent");
    inspect(&elf)
        .with_context(|| format!("{} is not fit to boot", elf.display()))
}

/// `cargo xtask agent`.
pub(crate) fn run_command() -> Result<()> {
    let agent = build()?;
    println!("agent       {}", agent.stripped.display());
    println!("with debug  {}", agent.elf.display());
    println!("log texts   {}", agent.defmt_table.display());
    println!("build id    {}", agent.build_id);
    println!(
        "size        {} of {} bytes",
        agent.stripped_bytes, STRIPPED_BYTES_MAX
    );
    println!(
        "memory      {} of {} bytes",
        agent.static_bytes, MEMORY_BYTES_MAX
    );
    Ok(())
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |path| root().join(path))
}

/// Where cargo keeps the sources of dependencies.
fn cargo_home() -> Result<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

/// No path of this machine reaches the ELF, so that another folder gives the
/// same bytes.
fn remapped() -> Result<[(PathBuf, &'static str); 3]> {
    Ok([
        (target_folder(), "/target"),
        (root(), "/e2wire"),
        (cargo_home()?, "/cargo"),
    ])
}

fn rust_flags() -> Result<OsString> {
    let mut flags = OsString::new();
    // Of several that match, rustc takes the last: the innermost goes there.
    for (i, (from, to)) in remapped()?.into_iter().rev().enumerate() {
        if i > 0 {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

/// For zstd: nothing that needs a C library, whatever the compiler's own
/// defaults are, and none of the strategies above level 9.
fn c_flags() -> Result<OsString> {
    let mut flags = OsString::from(
        "-ffreestanding -fno-stack-protector -fno-pic -U_FORTIFY_SOURCE \
         -fcf-protection=none -DZSTD_DISABLE_ASM=1 \
         -DZSTD_STRIP_ERROR_STRINGS=1 -DZSTD_TRACE=0 \
         -DZSTD_EXCLUDE_BTLAZY2_BLOCK_COMPRESSOR \
         -DZSTD_EXCLUDE_BTOPT_BLOCK_COMPRESSOR \
         -DZSTD_EXCLUDE_BTULTRA_BLOCK_COMPRESSOR",
    );
    for (from, to) in remapped()? {
        ensure!(
            !from.to_string_lossy().contains(' '),
            "the C compiler's flags cannot hold the space in {}",
            from.display()
        );
        flags.push(" -ffile-prefix-map=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

/// Checks the ELF and writes what is made of it.
fn inspect(elf: &Path) -> Result<Agent> {
    let bytes = std::fs::read(elf)?;
    check_is_static(&bytes)?;
    let file = object::File::parse(bytes.as_slice())?;
    check_symbols(&file)?;
    let static_bytes = memory_of(&bytes)?;
    ensure!(
        static_bytes <= MEMORY_BYTES_MAX,
        "it sets {static_bytes} bytes of memory aside, more than \
         {MEMORY_BYTES_MAX}"
    );
    let build_id = file.build_id()?.context("it has no build id")?;
    let build_id: String =
        build_id.iter().map(|byte| format!("{byte:02x}")).collect();

    let stripped = elf.with_extension("stripped");
    objcopy(&["--strip-all", "--remove-section=.defmt"], elf, &stripped)?;
    let stripped_bytes = std::fs::metadata(&stripped)?.len();
    ensure!(
        stripped_bytes <= STRIPPED_BYTES_MAX,
        "it has {stripped_bytes} bytes, more than {STRIPPED_BYTES_MAX}"
    );
    let defmt_table = elf.with_file_name(format!("{build_id}.defmt"));
    objcopy(&["--only-section=.defmt"], elf, &defmt_table)?;
    Ok(Agent {
        elf: elf.to_owned(),
        stripped,
        defmt_table,
        build_id,
        stripped_bytes,
        static_bytes,
    })
}

fn check_is_static(bytes: &[u8]) -> Result<()> {
    let header = object::elf::FileHeader64::<object::Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    ensure!(
        header.e_type(endian) == object::elf::ET_EXEC,
        "it is position-independent, so its log messages have no numbers"
    );
    ensure!(header.e_entry(endian) != 0, "it has no entry point");
    for segment in header.program_headers(endian, bytes)? {
        match segment.p_type(endian) {
            object::elf::PT_INTERP => bail!("it wants an interpreter"),
            object::elf::PT_DYNAMIC => bail!("it wants a dynamic linker"),
            object::elf::PT_TLS => {
                bail!("it wants thread-local storage, which nobody sets up")
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_symbols(file: &object::File<'_>) -> Result<()> {
    for symbol in file.symbols() {
        let name = symbol.name().unwrap_or_default();
        ensure!(
            !name.contains("__rust_alloc") && !name.contains("__rdl_alloc"),
            "it has an allocator: `{name}`"
        );
        ensure!(
            !symbol.is_undefined() || name.is_empty(),
            "`{name}` is nowhere defined"
        );
    }
    ensure!(
        file.section_by_name(".defmt").is_some_and(|s| s.size() > 0),
        "it has no texts for its log messages"
    );
    Ok(())
}

/// Bytes of all segments once they are loaded, in whole pages.
fn memory_of(bytes: &[u8]) -> Result<u64> {
    let header = object::elf::FileHeader64::<object::Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let page = 4096;
    let mut sum = 0;
    for segment in header.program_headers(endian, bytes)? {
        if segment.p_type(endian) == object::elf::PT_LOAD {
            let start = segment.p_vaddr(endian) / page;
            let end = segment.p_vaddr(endian) + segment.p_memsz(endian);
            sum += (end.div_ceil(page) - start) * page;
        }
    }
    Ok(sum)
}

fn objcopy(arguments: &[&str], from: &Path, to: &Path) -> Result<()> {
    let mut command = std::process::Command::new("objcopy");
    let output = command
        .args(arguments)
        .arg(from)
        .arg(to)
        .output()
        .context("objcopy is in the Debian package binutils")?;
    // It warns of segments that are empty on purpose; only failure counts.
    ensure!(
        output.status.success(),
        "objcopy failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
