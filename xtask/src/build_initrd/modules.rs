//! A kernel's modules directory, and from it the modules that a choice of
//! drivers needs, in an order in which they can be loaded.
//!
//! The modules themselves say what they need, so `modules.dep` (which only
//! `depmod` on an installed system makes) is not read.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    kernel::KernelConfig,
    modinfo::{self, ModuleInfo, canonical},
};

/// A kernel's modules directory (`/lib/modules/RELEASE`).
pub(crate) struct ModuleTree {
    root: PathBuf,
    release: String,
    /// By canonical name: where below the root.
    files: BTreeMap<String, PathBuf>,
    /// What is built into the kernel; none if the directory does not tell.
    built_in: Option<BTreeSet<String>>,
    /// Aliases of built-in modules, as far as the directory tells.
    built_in_aliases: BTreeSet<String>,
    /// Who answers to an alias; made when it is first needed.
    aliases: OnceCell<BTreeMap<String, Vec<String>>>,
}

/// A module to load.
#[derive(Debug)]
pub(crate) struct Module {
    /// Its canonical name.
    pub(crate) name: String,
    /// Where it lies below the modules directory, without the ending of a
    /// compression.
    pub(crate) path: String,
    /// The ELF file.
    pub(crate) bytes: Vec<u8>,
    /// What it says about itself.
    pub(crate) info: ModuleInfo,
}

/// What came of a choice of drivers.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// In the order of loading.
    pub(crate) modules: Vec<Module>,
    /// Drivers that need no module.
    pub(crate) built_in: Vec<String>,
    /// Drivers that this kernel does not have, with the reason if it is not
    /// plain absence.
    pub(crate) missing: Vec<String>,
}

impl ModuleTree {
    /// Opens the modules directory of one kernel.
    ///
    /// # Errors
    ///
    /// It cannot be read, or holds no modules.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let root = root.canonicalize().with_context(|| {
            format!("cannot open modules directory {}", root.display())
        })?;
        let release = root
            .file_name()
            .and_then(|name| name.to_str())
            .context("a modules directory is named after a kernel release")?
            .to_owned();
        let mut files = BTreeMap::new();
        // As depmod does by default: what was added replaces what came along.
        for folder in ["kernel", "weak-updates", "extra", "updates"] {
            collect(&root, Path::new(folder), &mut files)?;
        }
        ensure!(
            !files.is_empty(),
            "{} holds no kernel modules; give the directory of one kernel, as \
             in /lib/modules/6.1.0-56-amd64",
            root.display()
        );
        let built_in =
            fs::read_to_string(root.join("modules.builtin")).ok().map(|list| {
                list.lines()
                    .filter_map(|line| line.rsplit('/').next())
                    .filter_map(modinfo::name_of_file)
                    .collect()
            });
        let built_in_aliases = built_in_aliases(&root);
        let aliases = OnceCell::new();
        Ok(Self { root, release, files, built_in, built_in_aliases, aliases })
    }

    /// The kernel release that the directory is named after.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    /// Where the directory is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The modules that `drivers` (name, configuration option) need.
    ///
    /// # Errors
    ///
    /// A module that is needed is broken, or was built for another release
    /// than the directory's name says: the kernel would refuse it.
    pub(crate) fn select(
        &self,
        drivers: &[(String, Option<&str>)],
        config: Option<&KernelConfig>,
    ) -> Result<Selection> {
        let mut selection = Selection::default();
        let mut state = BTreeMap::new();
        for (name, option) in drivers {
            match self.resolve(name) {
                Resolution::Modules(names) => {
                    for module in names {
                        let loaded =
                            self.visit(&module, &mut state, &mut selection)?;
                        if let Err(lacking) = loaded {
                            selection.missing.push(format!(
                                "{name} (needs {lacking}, which is not in {})",
                                self.root.display()
                            ));
                        }
                    }
                }
                Resolution::BuiltIn => selection.built_in.push(name.clone()),
                Resolution::Unknown => {
                    let built_in = self.built_in.is_none()
                        && option.is_some_and(|option| {
                            config.is_some_and(|c| c.is_built_in(option))
                        });
                    if built_in {
                        selection.built_in.push(name.clone());
                    } else {
                        selection.missing.push(name.clone());
                    }
                }
            }
        }
        Ok(selection)
    }

    /// Adds `name` behind everything it needs. The inner error names the
    /// module that it needs and that is not there.
    fn visit(
        &self,
        name: &str,
        state: &mut BTreeMap<String, Option<String>>,
        selection: &mut Selection,
    ) -> Result<std::result::Result<(), String>> {
        if let Some(outcome) = state.get(name) {
            return Ok(outcome.clone().map_or(Ok(()), Err));
        }
        // Set first: modules that need each other must not turn us in
        // circles. The kernel loads no such pair, so any order will do.
        state.insert(name.to_owned(), None);
        let Some(path) = self.files.get(name) else {
            state.insert(name.to_owned(), Some(name.to_owned()));
            return Ok(Err(name.to_owned()));
        };
        let full = self.root.join(path);
        let bytes = modinfo::read_module(&full)?;
        let info = modinfo::parse(&bytes).with_context(|| {
            format!("{} is not a kernel module", full.display())
        })?;
        if !info.release.is_empty() && info.release != self.release {
            bail!(
                "{} was built for kernel {}, but its directory is named {}: \
                 no kernel would load both this and its neighbours",
                full.display(),
                info.release,
                self.release
            );
        }
        for alias in &info.soft_before {
            self.visit_soft(alias, state, selection)?;
        }
        for dependency in &info.depends {
            if let Err(lacking) = self.visit(dependency, state, selection)? {
                state.insert(name.to_owned(), Some(lacking.clone()));
                return Ok(Err(lacking));
            }
        }
        let after = info.soft_after.clone();
        selection.modules.push(Module {
            name: name.to_owned(),
            path: uncompressed_path(path)?,
            bytes,
            info,
        });
        for alias in &after {
            self.visit_soft(alias, state, selection)?;
        }
        Ok(Ok(()))
    }

    /// A soft dependency is loaded if it is there and not missed if not.
    fn visit_soft(
        &self,
        alias: &str,
        state: &mut BTreeMap<String, Option<String>>,
        selection: &mut Selection,
    ) -> Result<()> {
        if let Resolution::Modules(names) = self.resolve(alias) {
            for name in names {
                // What it lacks itself is not missed either.
                let _ = self.visit(&name, state, selection)?;
            }
        }
        Ok(())
    }

    fn resolve(&self, name: &str) -> Resolution {
        if self.files.contains_key(name) {
            return Resolution::Modules(vec![name.to_owned()]);
        }
        if self.built_in.as_ref().is_some_and(|names| names.contains(name)) {
            return Resolution::BuiltIn;
        }
        let aliases = self.aliases.get_or_init(|| self.read_aliases());
        if let Some(names) = aliases.get(name) {
            return Resolution::Modules(names.clone());
        }
        if self.built_in_aliases.contains(name) {
            return Resolution::BuiltIn;
        }
        Resolution::Unknown
    }

    /// From `modules.alias` where `depmod` made one, else from all modules.
    /// Patterns are left out: soft dependencies name things outright.
    fn read_aliases(&self) -> BTreeMap<String, Vec<String>> {
        let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut add = |alias: &str, name: &str| {
            if !alias.contains('*') && self.files.contains_key(name) {
                let names = aliases.entry(canonical(alias)).or_default();
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        };
        if let Ok(list) = fs::read_to_string(self.root.join("modules.alias")) {
            for line in list.lines() {
                let mut words = line.split_whitespace();
                if let (Some("alias"), Some(alias), Some(name)) =
                    (words.next(), words.next(), words.next())
                {
                    add(alias, &canonical(name));
                }
            }
            return aliases;
        }
        for (name, path) in &self.files {
            // A broken module is an error only if it is needed by name.
            let info = modinfo::read_module(&self.root.join(path))
                .and_then(|bytes| modinfo::parse(&bytes));
            if let Ok(info) = info {
                for alias in &info.aliases {
                    add(alias, name);
                }
            }
        }
        aliases
    }
}

enum Resolution {
    Modules(Vec<String>),
    BuiltIn,
    Unknown,
}

/// `modules.builtin.modinfo`: NUL-terminated `module.key=value` texts.
fn built_in_aliases(root: &Path) -> BTreeSet<String> {
    let Ok(texts) = fs::read(root.join("modules.builtin.modinfo")) else {
        return BTreeSet::new();
    };
    texts
        .split(|&byte| byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .filter_map(|text| text.split_once('.'))
        .filter_map(|(_, entry)| entry.strip_prefix("alias="))
        .map(canonical)
        .collect()
}

/// Adds the modules below `root/folder`. Symbolic links to folders are not
/// followed: `build` and `source` lead out of the tree.
fn collect(
    root: &Path,
    folder: &Path,
    files: &mut BTreeMap<String, PathBuf>,
) -> Result<()> {
    let full = root.join(folder);
    if !full.is_dir() {
        return Ok(());
    }
    let named = || format!("cannot list {}", full.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(&full).with_context(named)? {
        entries.push(entry.with_context(named)?);
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = folder.join(entry.file_name());
        if entry.file_type().with_context(named)?.is_dir() {
            collect(root, &path, files)?;
        } else if let Some(name) =
            entry.file_name().to_str().and_then(modinfo::name_of_file)
        {
            files.insert(name, path);
        }
    }
    Ok(())
}

fn uncompressed_path(path: &Path) -> Result<String> {
    let text = path.to_str().context("a module's path is not text")?;
    let end = text.rfind(".ko").context("a module's path ends in .ko")?;
    Ok(format!("{}.ko", text.get(..end).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
