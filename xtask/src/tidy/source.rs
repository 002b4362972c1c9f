//! A source file as the rules see it: every line as it stands, as code
//! without comments and literals, and whether it is test code.

/// One file of the repository.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// Its lines.
    pub(crate) lines: Vec<Line>,
}

/// One line of a file.
#[derive(Debug)]
pub(crate) struct Line {
    /// As it stands.
    pub(crate) text: String,
    /// Without comments, and with literals emptied; the same as `text` for
    /// what is not Rust.
    pub(crate) code: String,
    /// Whether it is only compiled for tests.
    pub(crate) test: bool,
}

impl Source {
    pub(crate) fn new(path: String, text: String) -> Self {
        let rust = is_rust(&path);
        let code = if rust { strip(&text) } else { text.clone() };
        let mut lines: Vec<Line> = text
            .lines()
            .zip(code.lines().chain(std::iter::repeat("")))
            .map(|(text, code)| Line {
                text: text.to_owned(),
                code: code.to_owned(),
                test: false,
            })
            .collect();
        if rust {
            mark_tests(&mut lines);
        }
        let mut source = Self { path, lines };
        if rust && is_test_file(&source.path) {
            source.mark_as_test();
        }
        source
    }

    /// All of it is test code.
    pub(crate) fn mark_as_test(&mut self) {
        self.lines.iter_mut().for_each(|line| line.test = true);
    }

    /// The files, without `.rs`, of the modules that this one declares for
    /// tests only.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let folder = match name {
            "mod" | "lib" | "main" => folder,
            _ => stem,
        };
        self.lines
            .windows(2)
            .filter(|pair| pair[0].code.trim() == "#[cfg(test)]")
            .filter_map(|pair| {
                let declared = pair[1].code.trim().strip_suffix(';')?;
                let (_, module) = declared.split_once("mod ")?;
                Some(format!("{folder}/{module}"))
            })
            .collect()
    }

    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        is_rust(&self.path)
    }

    /// Every path that a `use` or the code itself names, with its line (from
    /// 1): braces of a `use` are resolved.
    pub(crate) fn named_paths(&self) -> Vec<(usize, bool, String)> {
        let mut found = vec![];
        let mut statement: Option<(usize, bool, String)> = None;
        for (index, line) in self.lines.iter().enumerate() {
            let code = line.code.trim();
            if let Some((_, _, text)) = &mut statement {
                text.push(' ');
                text.push_str(code);
            } else if code.starts_with("use ")
                || (code.starts_with("pub") && code.contains(" use "))
            {
                statement = Some((index + 1, line.test, code.to_owned()));
            } else {
                found.push((index + 1, line.test, code.to_owned()));
            }
            let ended = statement
                .as_ref()
                .is_some_and(|(_, _, text)| text.contains(';'));
            if ended && let Some((number, test, text)) = statement.take() {
                let tree = text
                    .split_once("use ")
                    .map_or("", |(_, tree)| tree)
                    .split(';')
                    .next()
                    .unwrap_or_default();
                let mut paths = vec![];
                expand("", tree, &mut paths);
                found
                    .extend(paths.into_iter().map(|path| (number, test, path)));
            }
        }
        found
    }
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

fn is_test_file(path: &str) -> bool {
    // The harness and everything in it is there for tests only.
    path.starts_with("tests/")
        || path.ends_with("/tests.rs")
        || path.contains("/tests/")
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let mut depth = 0_usize;
    let mut part = String::new();
    let mut parts = vec![];
    for character in tree.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(character);
    }
    parts.push(part);
    for part in parts.iter().map(|part| part.trim()) {
        match part.split_once('{') {
            Some((head, rest)) => {
                let inner = rest.strip_suffix('}').unwrap_or(rest);
                expand(&format!("{prefix}{}", head.trim()), inner, paths);
            }
            None if part.is_empty() => {}
            None => paths.push(format!("{prefix}{part}")),
        }
    }
}

/// Marks what stands under `#[cfg(test)]` or `#[test]`, to the end of its
/// item.
fn mark_tests(lines: &mut [Line]) {
    let mut index = 0;
    while index < lines.len() {
        let code = lines[index].code.trim();
        let begins = code.starts_with("#[cfg(test)]")
            || code.starts_with("#[cfg(all(test")
            || code.starts_with("#[test]")
            || code.starts_with("proptest!");
        if !begins {
            index += 1;
            continue;
        }
        let mut depth = 0_usize;
        let mut opened = false;
        while let Some(line) = lines.get_mut(index) {
            line.test = true;
            let attribute = line.code.trim_start().starts_with("#[");
            for character in line.code.chars() {
                match character {
                    '{' => {
                        depth += 1;
                        opened = true;
                    }
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            let ended = depth == 0
                && (opened || (!attribute && line.code.contains(';')));
            index += 1;
            if ended {
                break;
            }
        }
    }
}

/// Rust without its comments, and with strings and character literals
/// emptied. Line breaks stay where they are.
fn strip(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let mut code = String::with_capacity(text.len());
    let mut index = 0;
    while index < characters.len() {
        match (at(index), at(index + 1)) {
            ('/', '/') => {
                while index < characters.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            ('/', '*') => {
                let mut depth = 0_usize;
                loop {
                    match (at(index), at(index + 1)) {
                        ('/', '*') => {
                            depth += 1;
                            index += 2;
                        }
                        ('*', '/') => {
                            depth -= 1;
                            index += 2;
                            if depth == 0 {
                                break;
                            }
                        }
                        (other, _) => {
                            if other == '\n' {
                                code.push('\n');
                            }
                            index += 1;
                        }
                    }
                    if index >= characters.len() {
                        break;
                    }
                }
            }
            ('r', '"' | '#') if !ends_in_word(&code) => {
                index = raw_string(&characters, index, &mut code);
            }
            ('"', _) => {
                index = quoted(&characters, index, &mut code);
            }
            ('\'', _) => {
                // A lifetime has no closing quote behind one character.
                let literal = at(index + 1) == '\\' || at(index + 2) == '\'';
                if literal {
                    index = quoted(&characters, index, &mut code);
                } else {
                    code.push('\'');
                    index += 1;
                }
            }
            (other, _) => {
                code.push(other);
                index += 1;
            }
        }
    }
    code
}

fn ends_in_word(code: &str) -> bool {
    code.chars()
        .next_back()
        .is_some_and(|last| last.is_alphanumeric() || last == '_')
        // b"..." and br"..." are literals, not names.
        && !code.ends_with('b')
}

/// Empties the literal that starts at `index` with its quote; answers where
/// it ends.
fn quoted(characters: &[char], index: usize, code: &mut String) -> usize {
    let quote = characters[index];
    code.push(quote);
    let mut index = index + 1;
    while let Some(&character) = characters.get(index) {
        index += 1;
        if character == '\\' {
            if characters.get(index) == Some(&'\n') {
                code.push('\n');
            }
            index += 1;
        } else if character == quote {
            break;
        } else if character == '\n' {
            code.push('\n');
        }
    }
    code.push(quote);
    index
}

/// Empties the raw string that starts at `index` with `r`; passes over an
/// `r#name`.
fn raw_string(characters: &[char], index: usize, code: &mut String) -> usize {
    let hashes = characters[index + 1..]
        .iter()
        .take_while(|character| **character == '#')
        .count();
    let mut at = index + 1 + hashes;
    if characters.get(at) != Some(&'"') {
        code.push('r');
        return index + 1;
    }
    code.push('"');
    at += 1;
    while let Some(&character) = characters.get(at) {
        at += 1;
        if character == '\n' {
            code.push('\n');
        }
        let closes = character == '"'
            && characters[at..]
                .iter()
                .take(hashes)
                .filter(|character| **character == '#')
                .count()
                == hashes;
        if closes {
            at += hashes;
            break;
        }
    }
    code.push('"');
    at
}
