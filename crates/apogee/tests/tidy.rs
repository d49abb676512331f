//! The rules of `ARCHITECTURE.md` and of our style that a machine can check.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "sources are its input")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Columns of a line.
const LINE_MAX: usize = 100;
/// Lines of a function.
const FUNCTION_MAX: usize = 70;
/// Lines of a file, without its tests.
const FILE_MAX: usize = 800;

/// What is longer and may be, as long as it does not grow: path, function or nothing, lines.
/// Tables and the `match` over one are here to stay, everything else waits for a better idea.
const RATCHET: &[(&str, &str, usize)] = &[
    ("crates/wire/src/remoting/requests.rs", "", 2500),
    ("crates/types/src/settings/keys.rs", "", 400),
];

/// Which of our crates each may use: what `ARCHITECTURE.md` draws.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("wire", &["types"]),
    ("store", &["types"]),
    ("net", &["wire", "types"]),
    ("control", &["types"]),
    ("broker", &["store", "types"]),
    ("client", &["net", "wire", "types"]),
    ("listeners", &["client", "broker", "control", "net", "store", "wire", "types"]),
    ("sim", &["listeners", "client", "broker", "control", "net", "store", "wire", "types"]),
];

/// Licences under which we take code from others.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

struct Source {
    /// Relative to the workspace.
    path: String,
    text: String,
}

impl Source {
    /// The lines before `mod tests`.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = |line: &str| line.starts_with("#[cfg(test)]");
        (1..).zip(self.text.lines()).take_while(move |(_, line)| !tests(line))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().into()
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for dir in ["crates", "xtask"] {
        collect(&root().join(dir), &mut found);
    }
    assert!(10 < found.len(), "the sources are where the test looks");
    found
}

fn collect(dir: &Path, found: &mut Vec<Source>) {
    for entry in dir.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path: relative, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
}

fn limit(path: &str, function: &str, default: usize) -> usize {
    let entry = RATCHET.iter().find(|(file, name, _)| *file == path && *name == function);
    entry.map_or(default, |(.., lines)| *lines)
}

#[track_caller]
fn nothing(offences: &str) {
    assert!(offences.is_empty(), "\n{offences}");
}

#[test]
fn every_file_starts_with_its_charter() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    nothing(&silent.map(|source| source.path + "\n").collect::<String>());
}

#[test]
fn no_line_is_too_wide_and_nothing_is_left_to_do() {
    // In two pieces, so that this file does not offend.
    let unfinished = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!(")];
    let unfinished = unfinished.into_iter().chain([concat!("unimplemented", "!(")]);
    let mut offences = String::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            if LINE_MAX < line.chars().count() {
                writeln!(offences, "{}:{number}: too wide", source.path).unwrap();
            }
            if unfinished.clone().any(|word| line.contains(word)) {
                writeln!(offences, "{}:{number}: unfinished", source.path).unwrap();
            }
        }
    }
    nothing(&offences);
}

#[test]
fn files_and_functions_do_not_grow_too_long() {
    let mut offences = String::new();
    for source in sources() {
        let lines = source.production().count();
        let max = limit(&source.path, "", FILE_MAX);
        if max < lines && !source.path.contains("/tests/") {
            writeln!(offences, "{}: {lines} lines, at most {max}", source.path).unwrap();
        }
        for (name, lines) in functions(&source) {
            let max = limit(&source.path, &name, FUNCTION_MAX);
            if max < lines {
                writeln!(offences, "{}: {name}: {lines} lines, at most {max}", source.path)
                    .unwrap();
            }
        }
    }
    nothing(&offences);
}

/// Name and length of each function. In formatted code a function ends at the first `}` that is as
/// deep as its `fn`.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let mut open: Vec<(usize, String, usize)> = Vec::new();
    let mut found = Vec::new();
    for (number, line) in source.production() {
        let depth = line.len() - line.trim_start().len();
        if let Some(name) = function_name(line) {
            open.push((depth, name, number));
        }
        if line.trim_end() == format!("{}}}", " ".repeat(depth))
            && let Some(at) = open.iter().rposition(|(start, ..)| *start == depth)
        {
            let (_, name, start) = open.swap_remove(at);
            found.push((name, number - start + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let words = line.trim_start();
    let before = words.split("fn ").next()?;
    let is_head = before.split_whitespace().all(|word| {
        word.starts_with("pub")
            || word.ends_with(')')
            || ["const", "async", "unsafe"].contains(&word)
    });
    let rest = words.strip_prefix(before)?.strip_prefix("fn ")?;
    // A function on one line or without a body has no end to wait for.
    let ends_here = words.ends_with('}') || words.ends_with(';');
    (is_head && !ends_here).then(|| rest.split(['(', '<']).next().unwrap_or(rest).to_owned())
}

/// Tables of a manifest: section -> names of its dependencies.
fn dependencies(manifest: &str) -> BTreeMap<String, Vec<String>> {
    let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.into();
        } else if let Some((name, _)) = line.split_once(['=', '.'])
            && section.ends_with("dependencies")
            && !line.starts_with('#')
        {
            sections.entry(section.clone()).or_default().push(name.trim().into());
        }
    }
    sections
}

fn manifests() -> Vec<(String, BTreeMap<String, Vec<String>>)> {
    let mut crates: Vec<PathBuf> =
        root().join("crates").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    crates.push(root().join("xtask"));
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        Some((name, dependencies(&std::fs::read_to_string(path.join("Cargo.toml")).ok()?)))
    };
    crates.into_iter().filter_map(read).collect()
}

#[test]
fn rooms_know_only_what_lies_below_them() {
    let mut offences = String::new();
    for (room, sections) in manifests() {
        let Some((_, below)) = ARROWS.iter().find(|(name, _)| *name == room) else { continue };
        let used = sections.get("dependencies").into_iter().flatten();
        for other in used.filter_map(|name| name.strip_prefix("apogee-")) {
            if !below.contains(&other) {
                writeln!(offences, "{room} must not use {other}").unwrap();
            }
        }
    }
    nothing(&offences);
}

#[test]
fn every_dependency_is_used() {
    let sources = sources();
    let mut offences = String::new();
    for (room, sections) in manifests() {
        let dir = if room == "xtask" { "xtask/".into() } else { format!("crates/{room}/") };
        let own: Vec<_> = sources.iter().filter(|source| source.path.starts_with(&dir)).collect();
        for name in sections.into_values().flatten() {
            let word = name.replace('-', "_");
            if !own.iter().any(|source| source.text.contains(&word)) {
                writeln!(offences, "{room} does not use {name}").unwrap();
            }
        }
    }
    nothing(&offences);
}

/// A setting that nothing reads would be a promise that nobody keeps.
#[test]
fn every_setting_is_read_somewhere() {
    let sources = sources();
    let (tables, others): (Vec<_>, Vec<_>) =
        sources.iter().partition(|source| source.path.starts_with("crates/types/src/settings"));
    let mut offences = String::new();
    let mut fields = 0;
    for line in tables.iter().flat_map(|source| source.text.lines()) {
        let Some((key, rest)) = line.trim().strip_prefix('"').and_then(|it| it.split_once("\" "))
        else {
            continue;
        };
        let Some((field, _)) = rest.split_once(':').filter(|(it, _)| !it.contains(' ')) else {
            continue;
        };
        fields += 1;
        let is_read = others.iter().any(|source| has_word(&source.text, field));
        if !is_read {
            writeln!(offences, "{key}: nothing reads {field}").unwrap();
        }
    }
    assert!(40 < fields, "the tables are where the test looks");
    nothing(&offences);
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c == '_' || c.is_ascii_alphanumeric();
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

#[test]
fn every_licence_is_one_that_we_accept() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let mut offences = String::new();
    for package in metadata["packages"].as_array().unwrap() {
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_accepted(licence) {
            writeln!(offences, "{}: {licence}", package["name"]).unwrap();
        }
    }
    nothing(&offences);
}

/// An expression of `OR`, `AND` and `/` over names; brackets group alternatives of an `AND`.
fn is_accepted(licence: &str) -> bool {
    let accepted = |name: &str| LICENCES.contains(&name.trim());
    let any = |alternatives: &str| {
        let alternatives = alternatives.trim_matches(|c| "() ".contains(c)).replace('/', " OR ");
        alternatives.split(" OR ").any(accepted)
    };
    licence.split(" AND ").all(any)
}
