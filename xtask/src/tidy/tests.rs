use super::rules::{RULES, check};
use super::source::Source;
use super::{Tree, Violation};

fn found(path: &str, text: &str) -> Vec<Violation> {
    let tree = Tree {
        top: vec![],
        files: vec![Source::new(path.to_owned(), text.to_owned())],
    };
    check(&tree)
}

#[test]
fn the_repository_keeps_every_rule() {
    let found = super::check(&crate::project::root()).unwrap();
    let list: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", list.join("\n\n"));
}

/// File, its text, and what of it must be found on which line.
const BAD: &[(&str, &str, usize, &str)] = &[
    ("host/src/ext/a.rs", "//! A.\nuse crate::remote::Link;", 2, "neither"),
    ("host/src/ext/a.rs", "//! A.\nuse crate::{cli, error};", 2, "neither"),
    (
        "host/src/image/a.rs",
        "//! A.\nuse std::{\n    fmt,\n    net::TcpStream,\n};",
        2,
        "neither",
    ),
    ("host/src/ext/a.rs", "//! A.\nuse std::fs::File;", 2, "pure"),
    ("host/src/ext/a.rs", "//! A.\nlet t = std::time::now();", 2, "pure"),
    ("host/src/ext/a.rs", "//! A.\nrustix::fs::sync();", 2, "pure"),
    ("host/src/a.rs", "//! A.\nunsafe { f() }", 2, "unsafe"),
    ("agent/src/read.rs", "//! A.\nunsafe { f() }", 2, "unsafe"),
    ("host/src/local.rs", "//! A.\nprintln!(\"x\");", 2, "print"),
    ("agent/src/read.rs", "//! A.\neprint!(\"x\");", 2, "print"),
    ("host/src/a.rs", "//! A.\nfn f() { todo!() }", 2, "unfinished"),
    ("host/src/a.rs", "//! A.\n#[test]\n#[ignore]\nfn f() {}", 3, "unfini"),
    (
        "host/src/a.rs",
        "//! A.\n#[test]\n#[should_panic(expected = \"\")]\nfn f() {}",
        3,
        "unfinished",
    ),
    ("host/src/a.rs", concat!("//! A.\n// FIX", "ME: later"), 2, "notes"),
    ("host/src/a.rs", "//! A.\n#[allow(dead_code)]", 2, "lints"),
    ("host/src/a.rs", "//! A.\n#[expect(dead_code)]\nfn f() {}", 2, "why"),
    (
        "host/src/a.rs",
        "//! A.\n#[expect(\n  dead_code\n)]\nlet reason = 1;",
        2,
        "why",
    ),
    ("host/src/a.rs", "//! A.\nlet x = y.unwrap();", 2, "unwrap"),
    (
        "host/src/a.rs",
        "//! A.\n// OK to unwrap: no\nlet z = 1;\nlet x = y.expect(\"\");",
        4,
        "unwrap",
    ),
    ("host/src/a.rs", "fn f() {}", 1, "what it is for"),
    ("README.md", "see /home/me/notes", 1, "machine"),
    ("host/src/a.rs", "//! A.\nlet p = \"/root/x\";", 2, "machine"),
    ("protocol/src/lib.rs", "//! A.\n#![no_std]", 0, "protocol is"),
    ("agent/src/lib.rs", "//! A.", 0, "agent's library"),
    ("host/src/ext/mod.rs", "//! A.", 0, "arithmetic of ext"),
    ("host/src/image/mod.rs", "//! A.", 0, "arithmetic of image"),
    ("protocol/src/a.rs", "//! A.\nuse std::fmt;", 2, "nor a heap"),
    ("agent/src/a.rs", "//! A.\nuse alloc::vec::Vec;", 2, "nor a heap"),
    (
        "host/Cargo.toml",
        "[dependencies]\na = \"1\"\n[lints]\nworkspace = true",
        2,
        "versions",
    ),
    (
        "host/Cargo.toml",
        "[dev-dependencies]\na = { version = \"1\" }\n[lints]\nworkspace = true",
        2,
        "versions",
    ),
    ("host/Cargo.toml", "[dependencies]\na.workspace = true", 0, "lints"),
    ("tests/fuzz/fuzz_targets/walk.rs", "//! A.\nfn f() {}", 0, "fuzz target"),
];

#[test]
fn what_is_against_a_rule_is_found_where_it_is() {
    for (path, text, line, rule) in BAD {
        let found = found(path, text);
        assert!(
            found.iter().any(|violation| {
                violation.line == *line && violation.rule.contains(rule)
            }),
            "{path}: {text:?}: found {found:#?}"
        );
    }
}

/// Files that keep every rule although they look as if they did not.
const GOOD: &[(&str, &str)] = &[
    ("host/src/ext/a.rs", "//! Not std::fs, not println!.\nfn f() {}"),
    ("host/src/ext/a.rs", "//! A.\nlet s = \"unsafe println! todo!\";"),
    ("host/src/ext/a.rs", "//! A.\nlet s = r#\"a \" unsafe\"#;"),
    ("host/src/ext/a.rs", "//! A.\nlet c = '\"'; // unsafe\nlet d = '\"';"),
    ("host/src/ext/a.rs", "//! A.\nfn f<'a>(x: &'a str) {} /* todo!\n */"),
    ("host/src/ext/a.rs", "//! A.\nlet k = SourceKind::Remote;"),
    ("host/src/ext/a.rs", "//! A.\nself.std.fs();\nlet rustix_like = 1;"),
    ("host/src/a.rs", "//! A.\n#![forbid(unsafe_code)]"),
    ("agent/src/linux/a.rs", "//! A.\nunsafe { f() }"),
    ("host/src/cli/a.rs", "//! A.\nprintln!(\"x\");"),
    (
        "host/src/ext/a.rs",
        "//! A.\n#[cfg(test)]\nmod tests {\n use std::fs;\n fn f() {\n \
         a.unwrap();\n }\n}",
    ),
    (
        "host/src/a.rs",
        "//! A.\n// OK to unwrap: checked\n// above.\nlet x = y\n  .z()\n  \
         .unwrap();",
    ),
    ("host/src/a.rs", "//! A.\n#[expect(x, reason = \"y\")]\nfn f() {}"),
    (
        "host/src/a.rs",
        "//! A.\n#[expect(\n  x,\n  reason = \"y\"\n)]\nfn f() {}",
    ),
    ("protocol/src/a.rs", "//! A.\nuse core::fmt;\nlet x = a.std;"),
    ("protocol/src/a.rs", "//! A.\n#[cfg(test)]\nmod tests;\nfn f() {}"),
    ("README.md", "target/work/x and /dev/home"),
    (
        "host/Cargo.toml",
        "[dependencies]\na = { workspace = true, features = [\"x\"] }\n\
         [lints]\nworkspace = true",
    ),
];

#[test]
fn what_only_looks_like_it_is_left_alone() {
    for (path, text) in GOOD {
        let found = found(path, text);
        assert!(found.is_empty(), "{path}: {text:?}: found {found:#?}");
    }
}

#[test]
fn test_code_ends_where_its_item_ends() {
    let text = "//! A.\n#[cfg(test)]\nmod tests;\n\nfn f() { a.unwrap(); }";
    assert_eq!(found("host/src/a.rs", text).len(), 1);
    let text = "//! A.\n#[test]\nfn t() {\n a.unwrap();\n}\nfn f() {\n \
                a.unwrap();\n}";
    assert_eq!(found("host/src/a.rs", text).len(), 1);
}

#[test]
fn a_module_declared_for_tests_is_test_code() {
    let source =
        |path: &str, text: &str| Source::new(path.to_owned(), text.to_owned());
    let unwrap = "//! B.\nfn f() { a.unwrap(); }";
    let mut tree = Tree {
        top: vec![],
        files: vec![
            source("host/src/a/mod.rs", "//! A.\n#[cfg(test)]\nmod b;"),
            source("host/src/a/b.rs", unwrap),
            source("host/src/c.rs", "//! C.\n#[cfg(test)]\npub(crate) mod d;"),
            source("host/src/c/d/mod.rs", unwrap),
            source("host/src/b.rs", unwrap),
        ],
    };
    tree.mark_test_modules();
    let found = check(&tree);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].path, "host/src/b.rs");
}

#[test]
fn a_stranger_in_the_root_is_found() {
    let tree = Tree { top: vec!["scripts".to_owned()], files: vec![] };
    let found = check(&tree);
    assert_eq!(found.len(), 1);
    assert!(found[0].rule.contains("top level"));
}

#[test]
fn a_long_file_is_found() {
    let text = "//! A.\n".to_owned() + &"\n".repeat(700);
    let found = found("host/src/a.rs", &text);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].what, "701 lines");
}

#[test]
fn every_rule_has_a_sample_that_breaks_it() {
    for rule in RULES {
        let broken = BAD.iter().any(|(path, text, ..)| {
            found(path, text)
                .iter()
                .any(|violation| violation.rule == rule.rule)
        });
        // These two have tests of their own above.
        let own = rule.rule.starts_with("the top level")
            || rule.rule.starts_with("a file answers");
        assert!(broken || own, "no sample breaks: {}", rule.rule);
    }
}
