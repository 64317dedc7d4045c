//! `UNSAFE.md` is about the sources as they are.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// How often the word stands in each function, by file and function.
type Times = BTreeMap<(String, String), usize>;

fn native() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The word that stands behind `word`.
fn behind<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(word)?;
    let end = rest.find(|character: char| !(character.is_alphanumeric() || character == '_'))?;
    Some(&rest[..end]).filter(|name| !name.is_empty())
}

/// The sources of a crate, each with the name that the list has for it.
fn sources(of: &str, prefix: &str) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(native().join(of).join("src")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| {
        let file = path.file_name().unwrap().to_str().unwrap();
        (format!("{prefix}{file}"), path)
    };
    paths.map(named).collect()
}

fn in_sources() -> Times {
    let mut times = Times::new();
    let (library, prefetch) = (
        sources("native_registry", ""),
        sources("prefetch", "prefetch/"),
    );
    for (file, path) in library.into_iter().chain(prefetch) {
        let mut function = "(no function)".to_string();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let code = line.split("//").next().unwrap();
            if let Some(name) = behind(code, "fn ") {
                function = name.to_string();
            }
            let words =
                code.split(|character: char| !(character.is_alphanumeric() || character == '_'));
            let here = words.filter(|word| *word == "unsafe").count();
            if here > 0 {
                *times.entry((file.clone(), function.clone())).or_default() += here;
            }
        }
    }
    times
}

/// The rows of the list: where, how often, and which test.
fn listed() -> Vec<(String, String, usize, String, String)> {
    let text = fs::read_to_string(native().join("UNSAFE.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let place: Vec<&str> = cells[1].split('`').collect();
        let (source, name) = cells[5].split_once(' ').unwrap();
        (
            place[1].to_string(),
            place[3].to_string(),
            cells[2].parse().unwrap(),
            source.trim_matches('`').to_string(),
            name.trim_matches('"').to_string(),
        )
    })
    .collect()
}

#[test]
fn every_unsafe_is_listed() {
    let rows = listed().into_iter();
    let listed: Times = rows
        .map(|(file, function, times, ..)| ((file, function), times))
        .collect();
    assert_eq!(
        in_sources(),
        listed,
        "in the sources, and in native/UNSAFE.md"
    );
}

#[test]
fn every_test_that_the_list_names_is_there() {
    let tests = native().join("../test/workflow_metal/registration/native_registry");
    for (file, function, _, test, name) in listed() {
        if test == "none:" {
            continue;
        }
        let source =
            fs::read_to_string(tests.join(&test)).unwrap_or_else(|error| panic!("{test}: {error}"));
        assert!(
            source.contains(&format!("test \"{name}\"")),
            "{file} {function}: {test} has no test \"{name}\""
        );
    }
}

#[test]
fn the_core_forbids_it() {
    let root = fs::read_to_string(native().join("registry_core/src/lib.rs")).unwrap();
    assert!(root.contains("#![forbid(unsafe_code)]"));
}
