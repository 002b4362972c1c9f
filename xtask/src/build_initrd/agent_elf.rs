//! The agent's program file: proof that a kernel can start it with nothing
//! else present, the copy that goes into the initrd, and the table that turns
//! its log frames into text.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use object::{
    Object as _, ObjectSection as _,
    elf::{ET_EXEC, PT_DYNAMIC, PT_INTERP},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

type Elf<'data> = object::read::elf::ElfFile64<'data, object::Endianness>;

/// An agent that can be packed.
#[derive(Debug)]
pub(crate) struct AgentElf {
    /// What the linker calls this build, in hexadecimal.
    pub(crate) build_id: String,
    /// The program without symbols and debug information.
    pub(crate) stripped: Vec<u8>,
    /// An ELF file with nothing but the log table; none if the agent has no
    /// log messages.
    pub(crate) log_table: Option<Vec<u8>>,
}

/// Reads the freshly built agent.
///
/// # Errors
///
/// It is not a static program for x86-64, or `objcopy` (Debian package
/// binutils) fails.
pub(crate) fn read(path: &Path) -> Result<AgentElf> {
    let bytes = fs::read(path)
        .with_context(|| format!("cannot read agent {}", path.display()))?;
    let build_id = check(&bytes)
        .with_context(|| format!("agent {} cannot boot", path.display()))?;
    let stripped = objcopy(path, &["--strip-all", "--remove-section=.defmt"])?;
    check(&stripped).context("objcopy damaged the agent")?;
    let has_table = Elf::parse(&*bytes)?.section_by_name(".defmt").is_some();
    let log_table = if has_table {
        Some(objcopy(path, &["--only-section=.defmt"])?)
    } else {
        None
    };
    Ok(AgentElf { build_id, stripped, log_table })
}

/// Checks that nothing but a kernel is needed to start the program, and
/// returns its build id.
fn check(bytes: &[u8]) -> Result<String> {
    let file = Elf::parse(bytes).context("not a 64-bit ELF file")?;
    let endian = file.endian();
    let header = file.elf_header();
    ensure!(
        file.architecture() == object::Architecture::X86_64,
        "built for {:?}, not for x86-64",
        file.architecture()
    );
    ensure!(
        header.e_type(endian) == ET_EXEC,
        "not a program at a fixed address: its log messages could not be \
         named, and a position-independent one needs a loader"
    );
    ensure!(file.entry() != 0, "it has no entry point");
    for segment in file.elf_program_headers() {
        match segment.p_type(endian) {
            PT_INTERP => bail!("it wants a dynamic loader: not static"),
            PT_DYNAMIC => bail!("it is dynamically linked: not static"),
            _ => {}
        }
    }
    let entry_is_code = file.sections().any(|section| {
        section.kind() == object::SectionKind::Text
            && (section.address()
                ..section.address().saturating_add(section.size()))
                .contains(&file.entry())
    });
    ensure!(entry_is_code, "its entry point is not in its code");
    let id = file.build_id()?.context("it carries no build id")?;
    Ok(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn objcopy(path: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = tempfile::NamedTempFile::new()?;
    let status = Command::new("objcopy")
        .args(arguments)
        .arg(path)
        .arg(output.path())
        .status()
        .context("cannot run objcopy (Debian package binutils)")?;
    ensure!(status.success(), "objcopy {arguments:?} failed: {status}");
    Ok(fs::read(output.path())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build_initrd::tests::made::module_elf;

    fn complaint(bytes: &[u8]) -> String {
        format!("{:#}", check(bytes).unwrap_err())
    }

    #[test]
    fn a_dynamic_program_is_refused() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(complaint(&own).contains("not a program at a fixed address"));
        // The same program, if it claimed a fixed address.
        let mut own = own;
        own[16] = 2;
        assert!(complaint(&own).contains("static"));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(complaint(b"#!/bin/sh").contains("not a 64-bit ELF"));
        assert!(complaint(&module_elf(&[])).contains("fixed address"));
    }
}
