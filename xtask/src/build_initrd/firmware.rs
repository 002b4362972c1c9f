//! Firmware files: modules name what they may ask for, a folder (usually
//! `/lib/firmware`) has some of it.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::modules::Module;

/// The largest firmware of a server's adapter is a few MiB.
const FIRMWARE_SIZE_MAX: u64 = 64 * 1024 * 1024;

/// What the chosen modules may ask for.
#[derive(Debug, Default)]
pub(crate) struct Firmware {
    /// Name and bytes, decompressed.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Name, and the first module that names it.
    pub(crate) missing: Vec<(String, String)>,
}

/// Collects from `folder` what `modules` name.
///
/// # Errors
///
/// A file that is there cannot be read.
pub(crate) fn collect(
    modules: &[Module],
    folder: Option<&Path>,
) -> Result<Firmware> {
    let mut seen = BTreeSet::new();
    let mut firmware = Firmware::default();
    for module in modules {
        for name in &module.info.firmware {
            if !seen.insert(name.as_str()) {
                continue;
            }
            match folder.and_then(|folder| find(folder, name)) {
                Some(path) => {
                    firmware.files.push((name.clone(), read(&path)?));
                }
                None => {
                    firmware.missing.push((name.clone(), module.name.clone()));
                }
            }
        }
    }
    firmware.files.sort_unstable();
    Ok(firmware)
}

/// The file for a name, as it is or compressed as the kernel's own loader
/// would take it. A name that leads out of the folder finds nothing.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let plain =
        Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
    if !plain || name.is_empty() {
        return None;
    }
    ["", ".xz", ".zst"]
        .iter()
        .map(|suffix| folder.join(format!("{name}{suffix}")))
        .find(|path| path.is_file())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let named = || format!("cannot read firmware {}", path.display());
    let file = File::open(path).with_context(named)?;
    let reader: Box<dyn Read> =
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => Box::new(liblzma::read::XzDecoder::new(file)),
            Some("zst") => Box::new(zstd::stream::Decoder::new(file)?),
            _ => Box::new(file),
        };
    let mut bytes = Vec::new();
    let limit = FIRMWARE_SIZE_MAX.saturating_add(1);
    reader.take(limit).read_to_end(&mut bytes).with_context(named)?;
    ensure!(
        u64::try_from(bytes.len())? <= FIRMWARE_SIZE_MAX,
        "firmware {} is larger than 64 MiB unpacked",
        path.display()
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::build_initrd::modinfo::ModuleInfo;

    fn module(name: &str, firmware: &[&str]) -> Module {
        let firmware = firmware.iter().map(|&name| name.to_owned()).collect();
        Module {
            name: name.to_owned(),
            path: format!("kernel/{name}.ko"),
            bytes: Vec::new(),
            info: ModuleInfo { firmware, ..ModuleInfo::default() },
        }
    }

    #[test]
    fn what_is_there_is_taken_once_and_what_is_not_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bnx2")).unwrap();
        fs::write(folder.path().join("bnx2/a.fw"), b"plain").unwrap();
        let packed = zstd::encode_all(b"packed".as_slice(), 3).unwrap();
        fs::write(folder.path().join("b.fw.zst"), packed).unwrap();
        let modules = [
            module("bnx2", &["bnx2/a.fw", "gone.fw"]),
            module("other", &["b.fw", "gone.fw", "bnx2/a.fw"]),
        ];
        let firmware = collect(&modules, Some(folder.path())).unwrap();
        assert_eq!(
            firmware.files,
            [
                ("b.fw".to_owned(), b"packed".to_vec()),
                ("bnx2/a.fw".to_owned(), b"plain".to_vec()),
            ]
        );
        assert_eq!(
            firmware.missing,
            [("gone.fw".to_owned(), "bnx2".to_owned())]
        );
        assert_eq!(collect(&modules, None).unwrap().missing.len(), 3);
    }

    #[test]
    fn a_name_never_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(folder.path().join("secret"), b"secret").unwrap();
        let absolute = folder.path().join("secret");
        let names = ["../secret", "", ".", absolute.to_str().unwrap()];
        let firmware = collect(&[module("m", &names)], Some(&inner)).unwrap();
        assert!(firmware.files.is_empty());
        assert_eq!(firmware.missing.len(), names.len());
    }
}
