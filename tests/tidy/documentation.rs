//! What the documentation must not forget.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use compline::components::{KINDS, Kind};
use compline::error::ErrorKind;
use compline::plan::Plan;

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
    let written = written_pages();
    named.symmetric_difference(&written).map(|name| format!("docs/src/{name}")).collect()
}

/// What is wrong with the plans that readers will copy.
pub fn invalid_plans() -> Vec<String> {
    // Seen from docs/src, where the pages lie.
    let pages: Vec<_> = written_pages().into_iter().chain(["../../README.md".to_owned()]).collect();
    let plans = pages.iter().flat_map(|name| plans_of(&page(name)).into_iter().map(move |plan| (name, plan)));
    let loaded: Vec<_> = plans.map(|(name, plan)| Plan::load(Path::new(name), &plan)).collect();
    assert!(loaded.len() >= 2, "the documentation shows no plans: the rule would hold of nothing");
    loaded.into_iter().filter_map(Result::err).map(|error| error.chain()).collect()
}

fn plans_of(page: &str) -> Vec<String> {
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.starts_with("format = ")).map(str::to_owned).collect()
}

fn written_pages() -> BTreeSet<String> {
    let entries = fs::read_dir(package_root().join("docs/src")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| *name != "SUMMARY.md").collect()
}
