//! What the documentation says of plans.

use std::fs;
use std::path::PathBuf;

use compline::plan::{Plan, json_schema};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_example_plan_is_valid_and_captures_the_database_before_the_uploads_it_names() {
    let path = root().join("examples/plan.toml");
    let plan = Plan::load(&path, &fs::read_to_string(&path).unwrap()).unwrap();
    let names: Vec<_> = plan.in_capture_order().map(|component| component.name().to_owned()).collect();
    assert_eq!(names, ["database", "uploads", "packages"]);
}

#[test]
fn the_plan_in_the_readme_is_valid() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    assert_eq!(Plan::load(&root().join("README.md"), text).unwrap().components().len(), 2);
}

#[test]
fn the_page_of_the_plan_names_every_key_that_the_schema_has() {
    let page = fs::read_to_string(root().join("docs/src/plan.md")).unwrap();
    let schema = json_schema();
    let none = case(&schema, "none");
    let keep = "/properties/retention/properties/keep";
    for (table, place) in [("the top level", ""), ("repository", "/properties/repository"), ("keep", keep)]
        .into_iter()
        .map(|(table, pointer)| (table, schema.pointer(pointer).unwrap()))
        .chain(["platform", "defaults", "retention"].map(|name| (name, &schema["properties"][name])))
        .chain([("component", none)])
    {
        for key in place["properties"].as_object().unwrap().keys() {
            let named = [format!("`{key}`"), format!("`[{key}]`"), format!("`[[{key}]]`")];
            assert!(named.iter().any(|name| page.contains(name)), "docs/src/plan.md does not name {key} of {table}");
        }
    }
}

/// Many of its keys are keys of `[repository]`, too.
#[test]
fn the_section_of_copies_names_every_key_of_theirs() {
    let page = fs::read_to_string(root().join("docs/src/plan.md")).unwrap();
    let (_, section) = page.split_once("\n## `[[copy]]`\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let schema = json_schema();
    let keys = schema.pointer("/properties/copy/items/properties").unwrap().as_object().unwrap();
    assert!(keys.contains_key("limit_upload"));
    for key in keys.keys() {
        assert!(section.contains(&format!("| `{key}` |")), "the section of [[copy]] does not name {key}");
    }
}

/// The part of the schema for components of `kind`; kind none has the common keys only.
fn case<'s>(schema: &'s Value, kind: &str) -> &'s Value {
    let cases = schema.pointer("/properties/component/items/allOf").unwrap().as_array().unwrap();
    &cases.iter().find(|case| case["if"]["properties"]["kind"]["const"] == kind).unwrap()["then"]
}
