//! The files to read.

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file of the package.
pub struct Source {
    /// Path below the package, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// Where `Cargo.toml` lies.
pub fn package_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `directory` of the package.
pub fn sources(directory: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&package_root(), Path::new(directory), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no sources in {directory}: the rules would hold of nothing");
    found
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(root.join(directory)).unwrap() {
        let name = entry.unwrap().file_name();
        let path = directory.join(&name);
        if root.join(&path).is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(root.join(&path)).unwrap();
            found.push(Source { path: path.to_str().unwrap().to_owned(), text });
        }
    }
}

impl Source {
    /// `foo/tests.rs`: all of it is tests.
    pub fn is_tests_of_its_parent(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The lines before the unit tests, numbered from 1.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_all_tests = self.path.starts_with("src/") && self.is_tests_of_its_parent();
        let lines = (1..).zip(self.text.lines());
        lines.take_while(move |(_, line)| !is_all_tests && !line.starts_with("#[cfg(test)]"))
    }

    /// The files that may hold this one's `mod` line, and the name in it. Roots of crates need none.
    pub fn declared_in(&self) -> Option<(Vec<String>, String)> {
        let (directory, file) = self.path.rsplit_once('/')?;
        let name = match file.strip_suffix(".rs")? {
            "mod" => directory.rsplit('/').next()?,
            name => name,
        };
        let depth = directory.split('/').count();
        let is_root = match (directory, name) {
            ("src", "lib" | "main") | ("tests", _) => true,
            (_, "main") => directory.starts_with("tests/") && depth == 2,
            _ => false,
        };
        if is_root {
            return None;
        }
        let parents = match directory {
            "src" => vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()],
            _ => vec![format!("{directory}.rs"), format!("{directory}/main.rs")],
        };
        Some((parents, name.to_owned()))
    }

    /// Whether there is a line `mod name;`.
    pub fn declares(&self, name: &str) -> bool {
        let declaration = format!("mod {name};");
        self.text.lines().any(|line| {
            let line = line.trim_start();
            line == declaration
                || line.strip_prefix("pub").is_some_and(|rest| rest.ends_with(&format!(" {declaration}")))
        })
    }
}

/// The part of `line` that is code, as far as one line can tell.
pub fn without_comment(line: &str) -> &str {
    line.find("//").filter(|at| !line[..*at].ends_with(':')).map_or(line, |at| &line[..at])
}
