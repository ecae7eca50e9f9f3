//! Vectors on disk: `valid/NAME.hex` with `valid/NAME.json`, `invalid/NAME.hex` with `invalid/NAME.expect`.
//!
//! The first word of a name says what the bytes are. `given` in the JSON is what a reader must know besides: keys,
//! lengths; in an expectation it is the second line. `cargo nextest run --run-ignored only regenerate` writes all of them
//! anew from `valid.rs` and `invalid.rs`; a difference in what git shows is a change of the format.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{invalid, shapes, valid};

/// Bytes, and what they mean.
pub struct Vector {
    pub name: String,
    pub bytes: Vec<u8>,
    pub given: Value,
}

pub fn vector(name: &str, given: Value, bytes: Vec<u8>) -> Vector {
    Vector { name: name.to_owned(), bytes, given }
}

pub fn directory(which: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/vectors").join(which)
}

/// 32 bytes a line.
fn to_text(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| compline::id::to_hex(line) + "\n").collect()
}

pub fn from_text(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "an odd number of digits");
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks_exact(2).map(byte).collect()
}

/// What the bytes are: the first word of the name.
pub fn shape(name: &str) -> &str {
    name.split('-').next().unwrap()
}

fn names(which: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(directory(which)).expect("the vectors are there");
    let paths = files.map(|file| file.unwrap().path());
    paths.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn read(which: &str, file: String) -> String {
    let path = directory(which).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_valid_vector_decodes_to_its_meaning_and_encodes_back_to_the_same_bytes() {
    let names = names("valid");
    assert!(names.len() >= 30, "only {} vectors were found", names.len());
    for name in names {
        let bytes = from_text(&read("valid", format!("{name}.hex")));
        let expected: Value = serde_json::from_str(&read("valid", format!("{name}.json"))).unwrap();
        let (meaning, encoded) =
            shapes::decode(shape(&name), &bytes, &expected["given"]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(meaning, expected["meaning"], "{name}");
        assert!(encoded == bytes, "{name} encodes to\n{}", to_text(&encoded));
    }
}

#[test]
fn every_invalid_vector_is_refused_with_its_error() {
    let names = names("invalid");
    assert!(names.len() >= 60, "only {} vectors were found", names.len());
    for name in names {
        let bytes = from_text(&read("invalid", format!("{name}.hex")));
        let expectation = read("invalid", format!("{name}.expect"));
        let mut lines = expectation.lines();
        let expected = lines.next().unwrap();
        let given = lines.next().map_or(Value::Null, |line| serde_json::from_str(line).unwrap());
        match shapes::decode(shape(&name), &bytes, &given) {
            Ok((meaning, _)) => panic!("{name} was taken for {meaning}"),
            Err(error) => assert_eq!(error, expected, "{name}"),
        }
    }
}

#[test]
fn every_prefix_of_a_vector_is_refused() {
    for vector in valid::all() {
        // A lineage has as many bases as there is room for in the extension, a recipe as many records. Parity heals what is cut off.
        // Corrections that are missing are zeros, and may be right; what comes of them is proved.
        if matches!(shape(&vector.name), "cuts" | "snapshot" | "config" | "lineage" | "parity" | "recipe" | "reflate") {
            continue;
        }
        let step = (vector.bytes.len() / 200).max(1);
        for len in (0..vector.bytes.len()).step_by(step) {
            let found = shapes::decode(shape(&vector.name), &vector.bytes[..len], &vector.given);
            assert!(found.is_err(), "{} cut to {len} bytes was taken for {found:?}", vector.name);
        }
    }
}

#[test]
fn the_vectors_are_those_that_the_generator_makes() {
    let made: BTreeSet<String> = valid::all().into_iter().map(|vector| vector.name).collect();
    assert_eq!(made, names("valid"));
    let made: BTreeSet<String> = invalid::all().into_iter().map(|vector| vector.name).collect();
    let missing: Vec<_> = made.difference(&names("invalid")).cloned().collect();
    assert!(missing.is_empty(), "run regenerate: {missing:?}");
}

#[test]
#[ignore = "writes format-spec/vectors anew"]
fn regenerate() {
    for which in ["valid", "invalid"] {
        std::fs::create_dir_all(directory(which)).unwrap();
    }
    let write = |path: PathBuf, text: String| std::fs::write(path, text).unwrap();
    for Vector { name, bytes, given } in valid::all() {
        let (meaning, _) =
            shapes::decode(shape(&name), &bytes, &given).unwrap_or_else(|error| panic!("{name}: {error}"));
        let json = serde_json::json!({ "given": given, "meaning": meaning });
        write(directory("valid").join(format!("{name}.hex")), to_text(&bytes));
        write(directory("valid").join(format!("{name}.json")), serde_json::to_string_pretty(&json).unwrap() + "\n");
    }
    for Vector { name, bytes, given } in invalid::all() {
        let error = match shapes::decode(shape(&name), &bytes, &given) {
            Ok((meaning, _)) => panic!("{name} is valid: {meaning}"),
            Err(error) => error,
        };
        let given = if given.is_null() { String::new() } else { format!("{given}\n") };
        write(directory("invalid").join(format!("{name}.hex")), to_text(&bytes));
        write(directory("invalid").join(format!("{name}.expect")), format!("{error}\n{given}"));
    }
}
