//! `cargo xtask tidy`: the walls and sizes of the house.
//!
//! The rules are one table ([`rules::RULES`]); each failure names the place,
//! the rule and the mend. Runs as a test too, so `cargo test` is enough.

mod rules;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use source::Source;

/// Checks the repository; prints what is against a rule.
pub(crate) fn run() -> Result<()> {
    let found = check(&crate::project::root())?;
    for violation in &found {
        eprintln!("{violation}\n");
    }
    match found.len() {
        0 => Ok(()),
        count => bail!("tidy: {count} places are against the rules"),
    }
}

/// A place that is against a rule.
#[derive(Debug)]
pub(crate) struct Violation {
    path: String,
    /// From 1; 0 stands for the file as a whole.
    line: usize,
    rule: &'static str,
    what: String,
    mend: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(
            f,
            ": {}\n  rule: {}\n  mend: {}",
            self.what, self.rule, self.mend
        )
    }
}

/// Everything under `root` that is against a rule.
pub(crate) fn check(root: &Path) -> Result<Vec<Violation>> {
    let tree = Tree::read(root)?;
    Ok(rules::check(&tree))
}

/// The files of the repository, as the rules see them.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Names in the root directory.
    top: Vec<String>,
    /// Every text file.
    files: Vec<Source>,
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        for path in files(root)? {
            let top = path.split('/').next().unwrap_or_default().to_owned();
            if !tree.top.contains(&top) {
                tree.top.push(top);
            }
            let bytes = match fs::read(root.join(&path)) {
                Ok(bytes) => bytes,
                // Deleted, but git does not know it yet.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    continue;
                }
                Err(error) => return Err(error).context(path),
            };
            // What is not text has no lines to check.
            if let Ok(text) = String::from_utf8(bytes) {
                tree.files.push(Source::new(path, text));
            }
        }
        tree.mark_test_modules();
        Ok(tree)
    }

    /// Files of modules that stand under `#[cfg(test)]` where they are
    /// declared are test code.
    fn mark_test_modules(&mut self) {
        let modules: Vec<String> =
            self.files.iter().flat_map(Source::test_modules).collect();
        for file in &mut self.files {
            let stem = file.path.trim_end_matches(".rs");
            let stem = stem.trim_end_matches("/mod");
            let test = modules.iter().any(|module| {
                stem == module || stem.starts_with(&format!("{module}/"))
            });
            if test {
                file.mark_as_test();
            }
        }
    }
}

/// The paths of all files that belong to the repository, relative to `root`:
/// what git says, or every file when this is not a git checkout.
fn files(root: &Path) -> Result<Vec<String>> {
    let git = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "--cached", "--full-name"])
        .output();
    let mut paths = match git {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(str::to_owned)
                .collect()
        }
        _ => vec![],
    };
    // New sources count before git knows them.
    for member in ["agent", "host", "protocol", "tests", "xtask"] {
        walk(&root.join(member), root, &mut paths)?;
    }
    if !root.join(".git").exists() {
        walk(root, root, &mut paths)?;
    }
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

fn walk(directory: &Path, root: &Path, paths: &mut Vec<String>) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let path: PathBuf = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            // Built or found by the fuzzer, not written.
            let made = ["target", ".git", "corpus", "artifacts", "coverage"];
            if !made.iter().any(|made| name == *made) {
                walk(&path, root, paths)?;
            }
        } else if let Ok(relative) = path.strip_prefix(root) {
            paths.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}
