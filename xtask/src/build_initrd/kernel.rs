//! What is known of the kernel that shall boot the initrd: its configuration
//! and its image, found where distributions put them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// A kernel's configuration (`/boot/config-RELEASE`).
#[derive(Debug)]
pub(crate) struct KernelConfig {
    path: PathBuf,
    options: BTreeMap<String, String>,
}

impl KernelConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is no kernel configuration.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!("cannot read kernel configuration {}", path.display())
        })?;
        let config = Self::parse(path, &text);
        ensure!(
            !config.options.is_empty(),
            "{} is not a kernel configuration",
            path.display()
        );
        Ok(config)
    }

    /// Takes the text of a configuration that was read from `path`.
    pub(crate) fn parse(path: &Path, text: &str) -> Self {
        let options = text
            .lines()
            .filter(|line| line.starts_with("CONFIG_"))
            .filter_map(|line| line.split_once('='))
            .map(|(option, value)| (option.to_owned(), value.to_owned()))
            .collect();
        Self { path: path.to_owned(), options }
    }

    /// Whether the option is built in (`=y`; not a module).
    pub(crate) fn is_built_in(&self, option: &str) -> bool {
        self.options.get(option).is_some_and(|value| value == "y")
    }

    /// Where it was read.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The configuration that belongs to a modules directory, if one is found.
pub(crate) fn find_config(modules: &Path, release: &str) -> Option<PathBuf> {
    beside(modules, release, "config", &["config", "build/.config"])
}

/// The kernel image that belongs to a modules directory, if one is found.
pub(crate) fn find_image(modules: &Path, release: &str) -> Option<PathBuf> {
    beside(modules, release, "vmlinuz", &["vmlinuz"])
}

fn beside(
    modules: &Path,
    release: &str,
    kind: &str,
    inside: &[&str],
) -> Option<PathBuf> {
    // ROOT/lib/modules/RELEASE, or ROOT/usr/lib/modules/RELEASE.
    let in_boot = modules
        .ancestors()
        .skip(3)
        .take(2)
        .map(|root| root.join(format!("boot/{kind}-{release}")));
    inside
        .iter()
        .map(|name| modules.join(name))
        .chain(in_boot)
        .find(|path| path.is_file())
}

/// The release of a kernel image in bzImage form.
///
/// Linux documents the header in Documentation/arch/x86/boot.rst: `HdrS` at
/// 0x202, and at 0x20e the place of the version text, less 0x200.
///
/// # Errors
///
/// It cannot be read or is not such an image.
pub(crate) fn image_release(path: &Path) -> Result<String> {
    let image = fs::read(path)
        .with_context(|| format!("cannot read kernel {}", path.display()))?;
    release_in_header(&image)
        .with_context(|| format!("{} is not an x86 bzImage", path.display()))
}

fn release_in_header(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let low = *image.get(0x20e)?;
    let high = *image.get(0x20f)?;
    let at = usize::from(u16::from_le_bytes([low, high])).checked_add(0x200)?;
    let text = image.get(at..)?;
    let end = text.iter().take(256).position(|&b| b == 0 || b == b' ')?;
    let release = std::str::from_utf8(text.get(..end)?).ok()?;
    release
        .chars()
        .all(|c| c.is_ascii_graphic())
        .then(|| release.to_owned())
        .filter(|release| !release.is_empty())
}

/// What the agent cannot do without, and why.
const NEEDED: &[(&str, &str)] = &[
    ("CONFIG_BLK_DEV_INITRD", "the kernel must take an initrd at all"),
    ("CONFIG_BINFMT_ELF", "the agent is an ELF program"),
    ("CONFIG_DEVTMPFS", "the agent finds disks and consoles in /dev"),
    ("CONFIG_PROC_FS", "the agent reads its options from /proc"),
    ("CONFIG_SYSFS", "the agent learns about disks from /sys"),
];

/// Complaints about a kernel that could not boot this initrd.
pub(crate) fn lacking(
    config: &KernelConfig,
    compression: Option<&'static str>,
    network: bool,
) -> Vec<String> {
    let mut needed = NEEDED.to_vec();
    if let Some(option) = compression {
        needed.push((option, "this initrd is compressed so (--compress)"));
    }
    if network {
        needed.push(("CONFIG_INET", "the network is asked for (--net)"));
    }
    needed
        .into_iter()
        .filter(|(option, _)| !config.is_built_in(option))
        .map(|(option, why)| {
            format!("{} lacks {option}=y: {why}", config.path().display())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_built_in_options_count() {
        let text = "# CONFIG_RD_XZ is not set\nCONFIG_RD_ZSTD=y\n\
                    CONFIG_RD_GZIP=m\nCONFIG_BLK_DEV_INITRD=y\n\
                    CONFIG_BINFMT_ELF=y\nCONFIG_DEVTMPFS=y\n\
                    CONFIG_PROC_FS=y\nCONFIG_SYSFS=y\n";
        let config = KernelConfig::parse(Path::new("config-1"), text);
        assert!(lacking(&config, Some("CONFIG_RD_ZSTD"), false).is_empty());
        let complaints = lacking(&config, Some("CONFIG_RD_GZIP"), true);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("config-1 lacks CONFIG_RD_GZIP=y"));
        assert!(complaints[1].contains("CONFIG_INET"));
    }

    #[test]
    fn the_release_stands_in_the_image() {
        let mut image = vec![0; 0x600];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&[0x00, 0x02]);
        image[0x400..0x40d].copy_from_slice(b"6.1.0-56 (x@y");
        assert_eq!(release_in_header(&image).as_deref(), Some("6.1.0-56"));
        for cut in [0, 0x203, 0x20e, 0x20f, 0x401] {
            assert_eq!(release_in_header(&image[..cut]), None);
        }
        image[0x20f] = 0xff;
        assert_eq!(release_in_header(&image), None);
        assert_eq!(release_in_header(b"MZ"), None);
    }

    #[test]
    fn a_kernel_is_found_beside_its_modules() {
        let root = tempfile::tempdir().unwrap();
        let modules = root.path().join("lib/modules/1.2.3");
        fs::create_dir_all(&modules).unwrap();
        assert_eq!(find_config(&modules, "1.2.3"), None);
        let boot = root.path().join("boot");
        fs::create_dir_all(&boot).unwrap();
        fs::write(boot.join("config-1.2.3"), "").unwrap();
        fs::write(boot.join("vmlinuz-1.2.3"), "").unwrap();
        let config = find_config(&modules, "1.2.3").unwrap();
        assert_eq!(config, boot.join("config-1.2.3"));
        let image = find_image(&modules, "1.2.3").unwrap();
        assert_eq!(image, boot.join("vmlinuz-1.2.3"));
        assert!(KernelConfig::read(&config).is_err());
    }
}
