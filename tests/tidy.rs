//! What Cargo and clippy can't check, checked by reading the sources: that arrows between layers point down, that
//! every file says what it is and is reached, that files stay short, that words keep their meaning, and that
//! `format-spec/constants.toml` and the code agree. A failure names the file, the line, the rule and the way out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by stopping"
)]

#[path = "tidy/constants.rs"]
mod constants;
#[path = "tidy/documentation.rs"]
mod documentation;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/words.rs"]
mod words;

use sources::{Source, package_root, sources};

/// Lines without tests that a file may have. When a file needs a table of contents, it is a folder.
const LINES_MAX: usize = 700;

/// Files that were longer when the rule came, with their length then. A number here may fall, never rise.
const LONGER: [(&str, usize); 0] = [];

/// Fails with every finding at once, so that one run is enough.
fn report(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "\n{rule}\n\n  {}\n", findings.join("\n  "));
}

#[test]
fn arrows_between_layers_point_down_only() {
    let findings: Vec<_> = sources("src").iter().flat_map(layers::violations).collect();
    report(
        "A module may use modules of lower layers only. The picture is in src/lib.rs, the table in tests/tidy/layers.rs. \
         Move the code to the layer it belongs to, or let the lower layer take what it needs as a parameter.",
        &findings,
    );
}

#[test]
fn every_file_says_what_it_is() {
    let unnamed = |source: &Source| !source.text.starts_with("//! ") && !source.is_tests_of_its_parent();
    let findings: Vec<_> =
        sources("src").iter().filter(|source| unnamed(source)).map(|source| source.path.clone()).collect();
    report("The first line of a file is `//! ` and says what the file is: the argument, not the steps.", &findings);
}

#[test]
fn files_stay_short() {
    let mut findings = Vec::new();
    for source in sources("src").into_iter().filter(|source| !source.is_tests_of_its_parent()) {
        let lines = source.code_lines().count();
        let longer = LONGER.iter().find(|(path, _)| *path == source.path);
        let max = longer.map_or(LINES_MAX, |(_, lines)| *lines);
        if lines > max {
            findings.push(format!("{}: {lines} lines without tests, {max} are allowed", source.path));
        }
        if longer.is_some() && lines <= LINES_MAX {
            findings.push(format!("{}: is short enough now; take it out of LONGER", source.path));
        }
    }
    report("Files are short enough to need no table of contents. Make a folder of what has grown.", &findings);
}

#[test]
fn every_file_is_reached_by_a_mod_line() {
    let mut findings = Vec::new();
    for tree in ["src", "tests"] {
        let all = sources(tree);
        for source in &all {
            let Some((parents, name)) = source.declared_in() else { continue };
            // What the tests share may be named by any of them, with `#[path]`.
            let may_declare = |candidate: &&Source| tree == "tests" || parents.contains(&candidate.path);
            if !all.iter().filter(may_declare).any(|candidate| candidate.declares(&name)) {
                findings.push(format!("{}: no `mod {name};` in {}", source.path, parents.join(" or ")));
            }
        }
    }
    report("The compiler never sees a file that no `mod` line names. Add the line or remove the file.", &findings);
}

#[test]
fn words_keep_their_meaning() {
    let findings: Vec<_> = sources("src").iter().flat_map(words::refused_words).collect();
    report(
        "One word, one meaning: format-spec/01-terms.md has the words, tests/tidy/words.rs the refused ones.",
        &findings,
    );
}

#[test]
fn tests_wait_for_events_and_never_for_time() {
    let mut findings: Vec<_> = sources("tests").iter().flat_map(|source| words::sleeps(source, 0)).collect();
    findings.extend(sources("src").iter().flat_map(|source| words::sleeps(source, source.code_lines().count())));
    report(
        "A test that sleeps is slow today and fails tomorrow. Wait for the event: a line, an exit, a channel.",
        &findings,
    );
}

#[test]
fn constants_of_the_specification_are_those_of_the_code() {
    let root = package_root();
    if !root.join("format-spec").exists() {
        return;
    }
    let text = std::fs::read_to_string(root.join("format-spec/constants.toml"));
    let text = text.expect("format-spec/ has a constants.toml, which says what the code's constants are");
    report(
        "format-spec/constants.toml and the code say the same. The table in tests/tidy/constants.rs tells which constant \
         of the code stands for which name; a change of a number is a change of the format.",
        &constants::differences(&text, constants::TABLE, &|path| std::fs::read_to_string(root.join(path)).ok()),
    );
}

#[test]
fn the_documentation_has_every_error_code_and_its_exit_code() {
    let findings = documentation::undocumented_errors(&documentation::page("exit-codes-and-errors.md"));
    report("docs/src/exit-codes-and-errors.md has one row for each kind of src/error.rs, and no others.", &findings);
}

#[test]
fn the_documentation_has_every_kind_of_component_and_all_its_keys() {
    let findings = documentation::undocumented_kinds(&documentation::page("kinds.md"));
    report("docs/src/kinds.md has a section for each kind of src/components.rs, and names all its keys.", &findings);
}

#[test]
fn the_summary_has_every_page_of_the_documentation() {
    let findings = documentation::lost_pages();
    report("docs/src/SUMMARY.md names every page, and every page is there.", &findings);
}

#[test]
fn every_plan_in_the_documentation_is_valid() {
    let findings = documentation::invalid_plans();
    report(
        "A block ```toml of README.md or docs/src that begins with `format = ` is a whole plan, and valid.",
        &findings,
    );
}
