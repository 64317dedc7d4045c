//! The modules of both crates stand in floors, and a module uses modules of lower floors only, so
//! that there is no circle.
//!
//! A file that declares modules lists them by floor, the lowest first: a floor is a group of `mod`
//! lines without an empty line between them. A file with modules of its own, as `journal.rs` with
//! `journal/`, stands above all of these.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Where a module stands: its floor in the crate, and then in the module around it. The parent of
/// modules stands above them all.
type Place = Vec<usize>;

struct Crate {
    /// Path of a module, as `journal::queue`, to its place and source.
    modules: BTreeMap<String, (Place, String)>,
}

/// The source without comments and tests.
fn code(path: &Path) -> String {
    let source = fs::read_to_string(path).unwrap();
    let lines = source.lines().filter_map(|line| line.split("//").next());
    let code: Vec<&str> = lines.collect();
    let code = code.join("\n");
    code.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap()
        .to_string()
}

/// The modules that a file declares without a body, each with its floor.
fn declared(source: &str) -> Vec<(String, usize)> {
    let mut floor = 0;
    let mut declared = Vec::new();
    for line in source.lines() {
        let line = line.trim_start_matches("pub ");
        match line
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        {
            Some(name) => declared.push((name.to_string(), floor)),
            None => floor += usize::from(line.trim().is_empty()),
        }
    }
    declared
}

impl Crate {
    fn read(source: &Path) -> Self {
        let mut found = Self {
            modules: BTreeMap::new(),
        };
        found.add(source, &code(&source.join("lib.rs")), "", &[]);
        found
    }

    fn add(&mut self, folder: &Path, source: &str, prefix: &str, place: &[usize]) {
        for (name, floor) in declared(source) {
            let path = format!("{prefix}{name}");
            let source = code(&folder.join(format!("{name}.rs")));
            let mut place = place.to_vec();
            place.push(floor);
            self.add(&folder.join(&name), &source, &format!("{path}::"), &place);
            place.push(usize::MAX);
            self.modules.insert(path, (place, source));
        }
    }

    /// The modules that a module names by `crate::` or `super::`.
    fn used_by(&self, module: &str, source: &str) -> Vec<String> {
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let mut used = Vec::new();
        let words: Vec<&str> = source.split("crate::").skip(1).collect();
        used.extend(words.into_iter().flat_map(|rest| paths("", rest)));
        // In a file without a parent, `super` is that of an inline module.
        if !parent.is_empty() {
            let words: Vec<&str> = source.split("super::").skip(1).collect();
            used.extend(words.into_iter().flat_map(|rest| paths(parent, rest)));
        }
        used.iter().map(|path| self.module_of(path)).collect()
    }

    /// The module in which an item lies; the crate's root for an item of no module.
    fn module_of(&self, item: &str) -> String {
        let mut path = item;
        loop {
            if self.modules.contains_key(path) {
                return path.to_string();
            }
            match path.rsplit_once("::") {
                Some((outer, _)) => path = outer,
                None => return "(lib.rs)".to_string(),
            }
        }
    }
}

/// The paths that stand behind `crate::` or `super::`: one, or those between braces.
fn paths(prefix: &str, rest: &str) -> Vec<String> {
    let is_path = |character: char| character.is_alphanumeric() || "_:".contains(character);
    let path = |rest: &str| {
        let end = rest.find(|character| !is_path(character));
        let path = rest[..end.unwrap_or(rest.len())].trim_end_matches(':');
        let parts = [prefix, path].into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("::")
    };
    match rest.strip_prefix('{') {
        Some(list) => {
            let list = list.split('}').next().unwrap();
            assert!(!list.contains('{'), "braces within braces: {list}");
            list.split(',').map(|one| path(one.trim())).collect()
        }
        None => vec![path(rest)],
    }
}

/// What is wrong with a crate, and how many uses were looked at.
fn faults(of: &Crate) -> (Vec<String>, usize) {
    let (mut faults, mut uses) = (Vec::new(), 0);
    for (module, (place, source)) in &of.modules {
        for used in of.used_by(module, source) {
            uses += 1;
            if used == *module
                || of
                    .modules
                    .get(&used)
                    .is_some_and(|(lower, _)| lower < place)
            {
                continue;
            }
            faults.push(format!("{module} uses {used}"));
        }
    }
    (faults, uses)
}

#[test]
fn a_module_uses_modules_of_lower_floors_only() {
    let native = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for name in ["native_registry", "registry_core"] {
        let (faults, uses) = faults(&Crate::read(&native.join(name).join("src")));
        assert!(faults.is_empty(), "{name}: {}", faults.join("; "));
        assert!(uses > 20, "{name}: only {uses} uses were found");
    }
}

#[test]
fn a_circle_is_found() {
    let place = |floor| vec![floor, usize::MAX];
    let module = |floor, source: &str| (place(floor), source.to_string());
    let circle = Crate {
        modules: BTreeMap::from([
            (
                "low".to_string(),
                module(0, "use crate::high::{Item, other};"),
            ),
            ("high".to_string(), module(1, "crate::low::item()")),
            (
                "high::one".to_string(),
                (vec![1, 0, usize::MAX], "use super::Item;".to_string()),
            ),
            ("root".to_string(), module(2, "use crate::Item;")),
        ]),
    };
    let (faults, _) = faults(&circle);
    assert_eq!(
        faults,
        ["high::one uses high", "low uses high", "root uses (lib.rs)"]
    );
}
