//! What a kernel module says about itself: the `.modinfo` section, which is a
//! list of NUL-terminated `key=value` texts.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use object::{Object as _, ObjectSection as _};

/// No driver is a tenth as large; a file that unpacks to more is hostile.
const MODULE_SIZE_MAX: u64 = 256 * 1024 * 1024;

/// The endings of the forms in which distributions ship modules.
pub(crate) const SUFFIXES: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// The facts of one module.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ModuleInfo {
    /// Modules whose symbols it uses.
    pub(crate) depends: Vec<String>,
    /// Modules or aliases that should be there before it.
    pub(crate) soft_before: Vec<String>,
    /// Modules or aliases that should come after it.
    pub(crate) soft_after: Vec<String>,
    /// Other names it answers to, with shell wildcards.
    pub(crate) aliases: Vec<String>,
    /// Firmware files it may ask for.
    pub(crate) firmware: Vec<String>,
    /// Its licence.
    pub(crate) license: String,
    /// The kernel release it was built for, the first word of `vermagic`.
    pub(crate) release: String,
}

/// A module's name with `_` for `-`: the kernel takes them for the same.
pub(crate) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The module name in a file name, if it is a module's.
pub(crate) fn name_of_file(file_name: &str) -> Option<String> {
    SUFFIXES
        .iter()
        .find_map(|suffix| file_name.strip_suffix(suffix))
        .filter(|name| !name.is_empty())
        .map(canonical)
}

/// The module's ELF file, decompressed.
///
/// # Errors
///
/// The file cannot be read or decompressed, or is absurdly large.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>> {
    let named = || format!("cannot read module {}", path.display());
    let file = File::open(path).with_context(named)?;
    let mut reader: Box<dyn Read> =
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => Box::new(liblzma::read::XzDecoder::new(file)),
            Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
            Some("zst") => Box::new(zstd::stream::Decoder::new(file)?),
            _ => Box::new(file),
        };
    let mut bytes = Vec::new();
    let limit = MODULE_SIZE_MAX.saturating_add(1);
    reader.by_ref().take(limit).read_to_end(&mut bytes).with_context(named)?;
    ensure!(
        u64::try_from(bytes.len())? <= MODULE_SIZE_MAX,
        "module {} is larger than 256 MiB unpacked: not a real one",
        path.display()
    );
    Ok(bytes)
}

/// Reads the `.modinfo` section of a module's ELF file.
///
/// # Errors
///
/// It is not a 64-bit x86 relocatable ELF file with such a section.
pub(crate) fn parse(elf: &[u8]) -> Result<ModuleInfo> {
    let file = object::read::elf::ElfFile64::<object::Endianness>::parse(elf)
        .context("not a 64-bit ELF file")?;
    if file.architecture() != object::Architecture::X86_64 {
        bail!(
            "built for {:?}; the agent runs on x86-64 only",
            file.architecture()
        );
    }
    ensure!(
        file.kind() == object::ObjectKind::Relocatable,
        "an ELF file, but not a relocatable one as modules are"
    );
    let section = file
        .section_by_name(".modinfo")
        .context("it has no .modinfo section")?;
    let data = section.data().context("its .modinfo lies outside the file")?;
    let mut info = ModuleInfo::default();
    for entry in data.split(|&byte| byte == 0) {
        let text = String::from_utf8_lossy(entry);
        if let Some((key, value)) = text.split_once('=') {
            info.take(key, value);
        }
    }
    Ok(info)
}

impl ModuleInfo {
    fn take(&mut self, key: &str, value: &str) {
        let printable: String =
            value.chars().filter(|c| !c.is_control()).collect();
        match key {
            "depends" => self.depends.extend(
                printable
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(canonical),
            ),
            "softdep" => self.take_softdep(&printable),
            "alias" => self.aliases.push(canonical(&printable)),
            "firmware" => self.firmware.push(printable),
            "license" => self.license = printable,
            "vermagic" => {
                if let Some(release) = printable.split(' ').next() {
                    release.clone_into(&mut self.release);
                }
            }
            _ => {}
        }
    }

    /// `pre: a b post: c`, in any order.
    fn take_softdep(&mut self, value: &str) {
        let mut after = false;
        for word in value.split_whitespace() {
            match word {
                "pre:" => after = false,
                "post:" => after = true,
                name if after => self.soft_after.push(canonical(name)),
                name => self.soft_before.push(canonical(name)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
