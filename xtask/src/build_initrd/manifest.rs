//! The account of an initrd: every file with its digest, every module with
//! its licence, what was asked for and what is missing. It says nothing that
//! differs between two builds of the same thing.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    archive::{Entry, Node},
    firmware::Firmware,
    modules::{Module, Selection},
};

/// `OUTPUT.manifest.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Manifest {
    /// The version of this form.
    pub(crate) version: u32,
    /// `initrd`, or `segment` behind another initrd's.
    pub(crate) form: &'static str,
    /// How it is compressed.
    pub(crate) compression: String,
    /// Digest and size of the whole output.
    pub(crate) output: FileDigest,
    /// The initrd that it was appended to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) appended_to: Option<FileDigest>,
    /// The agent's build and licence.
    pub(crate) agent: PackedAgent,
    /// The parameters that are baked in.
    pub(crate) parameters: String,
    /// The release of the kernel that the modules fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kernel_release: Option<String>,
    /// What is packed, in order.
    pub(crate) files: Vec<PackedFile>,
    /// Modules in the order of loading.
    pub(crate) modules: Vec<PackedModule>,
    /// Drivers that this kernel has built in.
    pub(crate) built_in_drivers: Vec<String>,
    /// Drivers that were asked for and are not there.
    pub(crate) missing_drivers: Vec<String>,
    /// Firmware that modules name and that is not there.
    pub(crate) missing_firmware: Vec<MissingFirmware>,
}

/// The size and SHA-256 of some bytes.
#[derive(Debug, Serialize)]
pub(crate) struct FileDigest {
    size_bytes: usize,
    sha256: String,
}

/// The agent.
#[derive(Debug, Serialize)]
pub(crate) struct PackedAgent {
    /// What the linker calls this build.
    pub(crate) build_id: String,
    /// Its licence.
    pub(crate) license: &'static str,
    /// Its version.
    pub(crate) version: &'static str,
}

/// One entry of the archive.
#[derive(Debug, Serialize)]
pub(crate) struct PackedFile {
    path: String,
    mode: String,
    #[serde(flatten)]
    content: PackedContent,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
enum PackedContent {
    Directory,
    File(FileDigest),
    Symlink { target: String },
    CharacterDevice { major: u32, minor: u32 },
}

/// One module.
#[derive(Debug, Serialize)]
pub(crate) struct PackedModule {
    name: String,
    path: String,
    license: String,
    depends: Vec<String>,
    #[serde(flatten)]
    digest: FileDigest,
}

/// A firmware file that is not there.
#[derive(Debug, Serialize)]
pub(crate) struct MissingFirmware {
    name: String,
    module: String,
}

impl FileDigest {
    /// Of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let sha256 = digest.iter().map(|b| format!("{b:02x}")).collect();
        Self { size_bytes: bytes.len(), sha256 }
    }
}

impl From<&Entry> for PackedFile {
    fn from(entry: &Entry) -> Self {
        let content = match &entry.node {
            Node::Directory => PackedContent::Directory,
            Node::File(bytes) => PackedContent::File(FileDigest::of(bytes)),
            Node::Symlink(target) => {
                PackedContent::Symlink { target: target.clone() }
            }
            Node::CharacterDevice(major, minor) => {
                PackedContent::CharacterDevice { major: *major, minor: *minor }
            }
        };
        Self {
            path: entry.path.clone(),
            mode: format!("{:o}", entry.mode),
            content,
        }
    }
}

impl From<&Module> for PackedModule {
    fn from(module: &Module) -> Self {
        Self {
            name: module.name.clone(),
            path: module.path.clone(),
            license: module.info.license.clone(),
            depends: module.info.depends.clone(),
            digest: FileDigest::of(&module.bytes),
        }
    }
}

impl Manifest {
    /// Notes what came of the choice of drivers.
    pub(crate) fn take_selection(&mut self, selection: &Selection) {
        self.modules =
            selection.modules.iter().map(PackedModule::from).collect();
        self.built_in_drivers.clone_from(&selection.built_in);
        self.missing_drivers.clone_from(&selection.missing);
    }

    /// The firmware that is not there, for each module that names it.
    pub(crate) fn missing_firmware_by_module(
        &self,
    ) -> BTreeMap<&str, Vec<&str>> {
        let mut modules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for firmware in &self.missing_firmware {
            let names = modules.entry(&firmware.module).or_default();
            names.push(&firmware.name);
        }
        modules
    }

    /// Notes which firmware is not there.
    pub(crate) fn take_firmware(&mut self, firmware: &Firmware) {
        self.missing_firmware = firmware
            .missing
            .iter()
            .map(|(name, module)| MissingFirmware {
                name: name.clone(),
                module: module.clone(),
            })
            .collect();
    }
}
