//! What the documentation must not forget.

use std::collections::BTreeSet;
use std::fs;

use compline::components::{KINDS, Kind};
use compline::error::ErrorKind;

use crate::sources::package_root;

/// A page of the book.
pub fn page(name: &str) -> String {
    let path = package_root().join("docs/src").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Codes without a right row, and rows without a code.
pub fn undocumented_errors(page: &str) -> Vec<String> {
    let expected: BTreeSet<_> =
        ErrorKind::ALL.iter().map(|kind| format!("| {} | {} |", kind.code(), kind.exit_code())).collect();
    let rows = page.lines().filter(|line| line.starts_with("| C-"));
    let actual: BTreeSet<_> = rows.map(|row| row.split_inclusive('|').take(3).collect::<String>()).collect();
    expected.symmetric_difference(&actual).map(|row| format!("{row} is missing on one side")).collect()
}

/// Kinds without a section, and keys that their section doesn't name.
pub fn undocumented_kinds(page: &str) -> Vec<String> {
    KINDS.iter().flat_map(|kind| undocumented_keys(page, kind)).collect()
}

fn undocumented_keys(page: &str, kind: &Kind) -> Vec<String> {
    let heading = format!("## `{}`\n", kind.name);
    let Some((_, section)) = page.split_once(&heading) else {
        return vec![format!("there is no section {}", heading.trim_end())];
    };
    let section = section.split("\n## ").next().unwrap_or(section);
    let missing = kind.fields.iter().filter(|field| !section.contains(&format!("`{}`", field.name)));
    missing.map(|field| format!("{} does not name `{}`", heading.trim_end(), field.name)).collect()
}

/// Pages that the summary lacks, or that it promises and nobody wrote.
pub fn lost_pages() -> Vec<String> {
    let summary = page("SUMMARY.md");
    let named: BTreeSet<_> =
        summary.split('(').skip(1).filter_map(|rest| rest.split_once(')')).map(|(name, _)| name.to_owned()).collect();
    let entries = fs::read_dir(package_root().join("docs/src")).unwrap();
    let written = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let written: BTreeSet<_> = written.filter(|name| *name != "SUMMARY.md").collect();
    named.symmetric_difference(&written).map(|name| format!("docs/src/{name}")).collect()
}
