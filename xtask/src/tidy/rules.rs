//! The table of rules.

use super::source::Source;
use super::{Tree, Violation};

/// A rule, what it looks for, and what to do about it.
pub(crate) struct Rule {
    /// What holds, in one line.
    pub(crate) rule: &'static str,
    /// What to do where it does not.
    pub(crate) mend: &'static str,
    check: Check,
}

/// What a rule looks for.
enum Check {
    /// These words must not stand in the code of the files.
    Words { files: Files, tests: Tests, words: &'static [&'static str] },
    /// These paths must not be named in the code of the files.
    Paths { files: Files, tests: Tests, paths: &'static [&'static str] },
    /// These strings must not stand anywhere in the files.
    Strings { files: Files, strings: &'static [&'static str] },
    /// These strings must stand in this file, when it is there.
    Holds { file: &'static str, strings: &'static [&'static str] },
    /// A look of its own at every file.
    File(fn(&Source, &mut Report<'_>)),
    /// A look of its own at the whole tree.
    Tree(fn(&Tree, &mut Report<'_>)),
}

/// Which files a rule looks at.
type Files = fn(&str) -> bool;

/// Whether test code counts.
#[derive(Clone, Copy, PartialEq)]
enum Tests {
    Too,
    Free,
}

/// Takes down what a rule finds.
pub(crate) struct Report<'a> {
    rule: &'static Rule,
    found: &'a mut Vec<Violation>,
}

impl Report<'_> {
    fn add(&mut self, path: &str, line: usize, what: String) {
        self.found.push(Violation {
            path: path.to_owned(),
            line,
            rule: self.rule.rule,
            what,
            mend: self.rule.mend,
        });
    }
}

const FILE_LINES: usize = 700;
const COMMENT_REACH: usize = 12;

/// Files and folders in the root.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".deny.toml",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "agent",
    "host",
    "protocol",
    "tests",
    "xtask",
];

/// Every rule.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        rule: "ext and image know neither links nor the command line",
        mend: "move it to host/src/commands, which joins them, or pass it in",
        check: Check::Paths {
            files: ext_or_image,
            tests: Tests::Too,
            paths: &[
                "crate::remote",
                "crate::cli",
                "crate::commands",
                "std::net",
                "super::remote",
                "super::cli",
            ],
        },
    },
    Rule {
        rule: "ext is pure: no I/O, threads, clock or environment",
        mend: "let the caller read, wait or spawn, and hand the result in",
        check: Check::Paths {
            files: ext,
            tests: Tests::Free,
            paths: &[
                "std::fs",
                "std::io",
                "std::os",
                "std::thread",
                "std::time",
                "std::process",
                "std::env",
                "std::net",
                "rustix",
                "nix",
                "crate::local",
                "crate::spool",
            ],
        },
    },
    Rule {
        rule: "only agent/src/linux and agent/src/bare.rs hold `unsafe`",
        mend: "find a safe way, a crate, or move it there with its proof",
        check: Check::Words {
            files: |path| {
                rust(path)
                    && !path.starts_with("agent/src/linux/")
                    && path != "agent/src/bare.rs"
                    && !path.starts_with("agent/src/bare/")
            },
            tests: Tests::Too,
            words: &["unsafe"],
        },
    },
    Rule {
        rule: "only host/src/cli, xtask and agent/src/main.rs print",
        mend: "tell an Observer, or return an error",
        check: Check::Words {
            files: |path| {
                rust(path)
                    && !path.starts_with("host/src/cli")
                    && !path.starts_with("xtask/")
                    && path != "agent/src/main.rs"
                    && !path.ends_with("build.rs")
            },
            tests: Tests::Free,
            words: &["println!", "eprintln!", "print!", "eprint!"],
        },
    },
    Rule {
        rule: "nothing is left unfinished or switched off",
        mend: "finish it, or take it out",
        check: Check::Words {
            files: rust,
            tests: Tests::Too,
            words: &[
                "todo!",
                "unimplemented!",
                "dbg!",
                "#[ignore",
                "#[ignore]",
                "#[should_panic",
                "#[should_panic]",
            ],
        },
    },
    Rule {
        rule: "no notes of what is still to be fixed",
        mend: "fix it now, or open an issue",
        check: Check::Strings {
            files: |path| rust(path) || path.ends_with(".md"),
            strings: &[concat!("FIX", "ME"), concat!("XX", "X:")],
        },
    },
    Rule {
        rule: "lints are switched off by #[expect(.., reason = \"..\")] only",
        mend: "write #[expect(lint, reason = \"...\")]",
        check: Check::Strings {
            files: |path| rust(path) && path != "xtask/src/tidy/tests.rs",
            strings: &[concat!("#[", "allow("), concat!("#![", "allow(")],
        },
    },
    Rule {
        rule: "an #[expect(..)] says why",
        mend: "add reason = \"...\"",
        check: Check::File(expect_without_reason),
    },
    Rule {
        rule: "an unwrap outside tests has a comment `OK to unwrap: why`",
        mend: "return an error, or say directly above why it cannot fail",
        check: Check::File(unwrap_without_comment),
    },
    Rule {
        rule: "a file answers one question, in at most 700 lines with tests",
        mend: "move the tests to NAME/tests.rs, or split by question",
        check: Check::File(too_long),
    },
    Rule {
        rule: "every module says what it is for",
        mend: "begin the file with `//! ...`",
        check: Check::File(module_without_doc),
    },
    Rule {
        rule: "no path of a particular machine",
        mend: "make it relative, or take it from the environment",
        check: Check::File(machine_path),
    },
    Rule {
        rule: "protocol is no_std, safe, and its arithmetic is checked",
        mend: "put the attribute back",
        check: Check::Holds {
            file: "protocol/src/lib.rs",
            strings: &[
                "#![no_std]",
                "#![forbid(unsafe_code)]",
                "clippy::arithmetic_side_effects",
                "clippy::as_conversions",
            ],
        },
    },
    Rule {
        rule: "the agent's library is no_std, safe, its arithmetic checked",
        mend: "put the attribute back",
        check: Check::Holds {
            file: "agent/src/lib.rs",
            strings: &[
                "no_std",
                "forbid(unsafe_code)",
                "clippy::arithmetic_side_effects",
                "clippy::as_conversions",
            ],
        },
    },
    Rule {
        rule: "the arithmetic of ext is checked",
        mend: "put #![warn(clippy::arithmetic_side_effects, ..)] back",
        check: Check::Holds {
            file: "host/src/ext/mod.rs",
            strings: &[
                "clippy::arithmetic_side_effects",
                "clippy::as_conversions",
            ],
        },
    },
    Rule {
        rule: "the arithmetic of image is checked",
        mend: "put #![warn(clippy::arithmetic_side_effects, ..)] back",
        check: Check::Holds {
            file: "host/src/image/mod.rs",
            strings: &[
                "clippy::arithmetic_side_effects",
                "clippy::as_conversions",
            ],
        },
    },
    Rule {
        rule: "protocol and agent library use neither std nor a heap",
        mend: "use core, or heapless with a bound from limits.rs",
        check: Check::Paths {
            files: |path| {
                path.starts_with("protocol/src/")
                    || (path.starts_with("agent/src/")
                        && path != "agent/src/main.rs"
                        && !path.starts_with("agent/src/linux/"))
            },
            tests: Tests::Free,
            paths: &["std", "alloc"],
        },
    },
    Rule {
        rule: "versions of dependencies stand in the root manifest only",
        mend: "write `name.workspace = true`",
        check: Check::File(own_version),
    },
    Rule {
        rule: "every member takes the lints of the workspace",
        mend: "add [lints] workspace = true",
        check: Check::File(member_without_lints),
    },
    Rule {
        rule: "the top level is fixed",
        mend: "find the folder that it belongs to",
        check: Check::Tree(top_level),
    },
    Rule {
        rule: "every fuzz target is listed",
        mend: "add a [[bin]] to tests/fuzz/Cargo.toml",
        check: Check::Tree(unlisted_fuzz_target),
    },
];

/// Everything in `tree` that is against a rule, in the order of the files.
pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = vec![];
    for rule in RULES {
        let report = &mut Report { rule, found: &mut found };
        if let Check::Tree(check) = rule.check {
            check(tree, report);
        }
        for file in &tree.files {
            check_file(file, report);
        }
    }
    found.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    found
}

fn check_file(file: &Source, report: &mut Report<'_>) {
    match report.rule.check {
        Check::Words { files, tests, words } if files(&file.path) => {
            for (index, line) in file.lines.iter().enumerate() {
                if line.test && tests == Tests::Free {
                    continue;
                }
                for word in words {
                    if has_word(&line.code, word) {
                        report.add(&file.path, index + 1, format!("`{word}`"));
                    }
                }
            }
        }
        Check::Paths { files, tests, paths } if files(&file.path) => {
            for (number, test, code) in file.named_paths() {
                if test && tests == Tests::Free {
                    continue;
                }
                for path in paths {
                    if has_path(&code, path) {
                        report.add(&file.path, number, format!("`{path}`"));
                    }
                }
            }
        }
        Check::Strings { files, strings } if files(&file.path) => {
            for (index, line) in file.lines.iter().enumerate() {
                for string in strings {
                    if line.text.contains(string) {
                        let what = format!("`{string}`");
                        report.add(&file.path, index + 1, what);
                    }
                }
            }
        }
        Check::Holds { file: path, strings } if path == file.path => {
            for string in strings {
                if !file.lines.iter().any(|line| line.code.contains(string)) {
                    report.add(&file.path, 0, format!("lacks `{string}`"));
                }
            }
        }
        Check::File(check) => check(file, report),
        _ => {}
    }
}

fn rust(path: &str) -> bool {
    path.ends_with(".rs")
}

fn ext(path: &str) -> bool {
    path.starts_with("host/src/ext/")
}

fn ext_or_image(path: &str) -> bool {
    ext(path) || path.starts_with("host/src/image/")
}

const fn in_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Whether `word` stands in `code` and not inside a longer name.
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        let inner = |edge: Option<char>, neighbour: Option<char>| {
            edge.is_some_and(in_word) && neighbour.is_some_and(in_word)
        };
        !inner(word.chars().next(), before)
            && !inner(word.chars().next_back(), after)
    })
}

/// Whether `code` names `path` or something below it.
fn has_path(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(start, _)| {
        let before = code[..start].trim_start_matches("::");
        let after = &code[start + path.len()..];
        // A crate by itself must be followed by a path or be the whole.
        let single = !path.contains("::");
        let goes_on = after.starts_with("::") || after.is_empty();
        !before.ends_with(in_word)
            && !before.ends_with(':')
            && !after.starts_with(in_word)
            && (!single || (goes_on && !before.ends_with('.')))
    })
}

fn expect_without_reason(file: &Source, report: &mut Report<'_>) {
    if !file.is_rust() {
        return;
    }
    for (index, line) in file.lines.iter().enumerate() {
        let begins = ["#[expect(", "#![expect("]
            .iter()
            .any(|attribute| line.code.contains(attribute));
        let reason = || {
            file.lines[index..]
                .iter()
                .take(COMMENT_REACH)
                .scan(false, |ended, line| {
                    let goes_on = !*ended;
                    *ended = line.code.contains(")]");
                    goes_on.then_some(line)
                })
                .any(|line| line.code.contains("reason"))
        };
        if begins && !reason() {
            report.add(&file.path, index + 1, "no reason given".to_owned());
        }
    }
}

fn unwrap_without_comment(file: &Source, report: &mut Report<'_>) {
    if !file.is_rust() {
        return;
    }
    for (index, line) in file.lines.iter().enumerate() {
        let call = [".unwrap()", ".expect(\"", ".unwrap_err()", ".expect_err("]
            .iter()
            .find(|call| line.code.contains(**call));
        let Some(call) = call else { continue };
        if !line.test && !explained(file, index) {
            report.add(&file.path, index + 1, format!("`{call}`"));
        }
    }
}

/// Whether a comment above the statement of this line says why it is OK.
fn explained(file: &Source, index: usize) -> bool {
    for line in file.lines[..index].iter().rev().take(COMMENT_REACH) {
        let text = line.text.trim();
        if text.starts_with("//") {
            if text.contains("OK to unwrap:") {
                return true;
            }
        } else if text.is_empty() || text.ends_with([';', '{', '}']) {
            return false;
        }
    }
    false
}

fn too_long(file: &Source, report: &mut Report<'_>) {
    let lines = file.lines.len();
    if file.is_rust() && lines > FILE_LINES {
        report.add(&file.path, 0, format!("{lines} lines"));
    }
}

fn module_without_doc(file: &Source, report: &mut Report<'_>) {
    let first = file.lines.iter().find(|line| !line.text.trim().is_empty());
    let documented =
        first.is_some_and(|line| line.text.trim().starts_with("//!"));
    if file.is_rust() && !file.path.ends_with("/tests.rs") && !documented {
        report.add(&file.path, 1, "no `//!` at its beginning".to_owned());
    }
}

fn machine_path(file: &Source, report: &mut Report<'_>) {
    const PLACES: &[&str] = &["/work/", "/root/", "/home/", "/Users/"];
    if file.path == "xtask/src/tidy/rules.rs"
        || file.path == "xtask/src/tidy/tests.rs"
    {
        return;
    }
    for (index, line) in file.lines.iter().enumerate() {
        for place in PLACES {
            let alone = line.text.match_indices(place).any(|(start, _)| {
                let before = line.text[..start].chars().next_back();
                !before.is_some_and(|character| {
                    in_word(character) || ".-/}".contains(character)
                })
            });
            if alone {
                report.add(&file.path, index + 1, format!("`{place}`"));
            }
        }
    }
}

fn is_member_manifest(path: &str) -> bool {
    path.ends_with("/Cargo.toml") && !path.starts_with("tests/fuzz/")
}

fn own_version(file: &Source, report: &mut Report<'_>) {
    if !is_member_manifest(&file.path) {
        return;
    }
    let mut dependencies = false;
    for (index, line) in file.lines.iter().enumerate() {
        let text = line.text.trim();
        if text.starts_with('[') {
            dependencies = text.contains("dependencies");
        } else if dependencies
            && text.contains('=')
            && !text.starts_with('#')
            && !text.contains("workspace = true")
        {
            report.add(&file.path, index + 1, format!("`{text}`"));
        }
    }
}

fn member_without_lints(file: &Source, report: &mut Report<'_>) {
    let text: Vec<&str> =
        file.lines.iter().map(|line| line.text.trim()).collect();
    let lints =
        text.windows(2).any(|pair| pair == ["[lints]", "workspace = true"]);
    if is_member_manifest(&file.path) && !lints {
        report.add(&file.path, 0, "no [lints]".to_owned());
    }
}

fn top_level(tree: &Tree, report: &mut Report<'_>) {
    for name in &tree.top {
        if !TOP.contains(&name.as_str()) {
            report.add(name, 0, "is not one of the entries".to_owned());
        }
    }
}

fn unlisted_fuzz_target(tree: &Tree, report: &mut Report<'_>) {
    const TARGETS: &str = "tests/fuzz/fuzz_targets/";
    let manifest =
        tree.files.iter().find(|file| file.path == "tests/fuzz/Cargo.toml");
    for file in &tree.files {
        let Some(name) = file.path.strip_prefix(TARGETS) else { continue };
        let entry = format!("path = \"fuzz_targets/{name}\"");
        let listed = manifest.is_some_and(|manifest| {
            manifest.lines.iter().any(|line| line.text.trim() == entry)
        });
        if rust(name) && !name.contains('/') && !listed {
            report.add(&file.path, 0, "is not listed".to_owned());
        }
    }
}
