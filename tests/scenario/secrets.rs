//! Whoever holds the storage and no key reads nothing in it, and other users of the machine don't even hold it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use compline::storage::LocalStorage;
use tempfile::TempDir;

use crate::shelf;
use crate::support::World;

fn everything_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.clone());
        if path.is_dir() {
            everything_below(&path, found);
        }
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[test]
fn storage_tells_no_content_no_name_and_no_label_and_belongs_to_its_owner_alone() {
    let scratch = TempDir::new().unwrap();
    let root = scratch.path().join("repository");
    let storage = Arc::new(LocalStorage::create(&root).unwrap());
    let unlock = shelf::create(&*storage);
    let mut state = shelf::state(1);
    state.insert("directory-of-test/file-of-test".to_owned(), b"content of test".repeat(2000));
    let repository = shelf::open(&storage, &unlock, None).unwrap();
    shelf::save(&repository, &World::new(), &state, 1).unwrap();
    let mut paths = vec![root.clone()];
    everything_below(&root, &mut paths);
    assert!(paths.len() > 10, "{paths:?}");
    let texts = ["of-test", "content of test", "only in night", "changes", "db-page", "complete"];
    let noise = &state["big/0"][1000..1032];
    for path in paths {
        let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        let name = path.strip_prefix(scratch.path()).unwrap().to_str().unwrap().as_bytes().to_vec();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        for text in texts.iter().map(|text| text.as_bytes()).chain([noise]) {
            assert!(!contains(&bytes, text) && !contains(&name, text), "{}", path.display());
        }
    }
}

const PASSPHRASE: &str = "passphrase-of-test";

/// Runs the program of a careless user, whose files everybody could read.
fn careless(scratch: &Path, words: &str) -> std::process::Output {
    let program = env!("CARGO_BIN_EXE_compline");
    std::process::Command::new("sh")
        .args(["-c", &format!("umask 0; exec {program} --cache-dir cache {words}")])
        .current_dir(scratch)
        .env("COMPLINE_PASSWORD", PASSPHRASE)
        .env("HOME", scratch)
        .output()
        .unwrap()
}

#[test]
fn whatever_the_umask_what_is_made_belongs_to_its_owner_alone() {
    let scratch = TempDir::new().unwrap();
    std::fs::write(scratch.path().join("file"), "content").unwrap();
    for words in [
        "-r keyed --key-file key init",
        "-r keyed --key-file key backup file",
        "-r keyed --key-file key prune",
        "-r locked init",
        "-r locked backup file",
        "-r locked check --read-data",
    ] {
        let output = careless(scratch.path(), words);
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for made in ["keyed", "locked", "cache", "key"] {
        let mut paths = vec![scratch.path().join(made)];
        if paths[0].is_dir() {
            let top = paths[0].clone();
            everything_below(&top, &mut paths);
            assert!(paths.len() > 2, "{paths:?}");
        }
        for path in paths {
            let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        }
    }
}

#[test]
fn nothing_that_is_printed_tells_a_secret() {
    let scratch = TempDir::new().unwrap();
    std::fs::write(scratch.path().join("file"), "content").unwrap();
    let mut printed = Vec::new();
    for words in [
        "-v -r keyed --key-file key init",
        "-v -r keyed --key-file key backup file",
        "-v -r keyed --key-file key check --read-data",
        "-v --json -r keyed --key-file key key list",
        "-v -r locked init",
        "-v -r locked backup file",
        "-v -r locked key list",
        // And what goes wrong.
        "-v -r keyed backup file",
        "-v -r locked --key-file key backup file",
        "-v -r nowhere backup file",
        "-v -r locked cat latest:/nothing",
    ] {
        let output = careless(scratch.path(), words);
        printed.extend(output.stdout);
        printed.extend(output.stderr);
    }
    let key = std::fs::read_to_string(scratch.path().join("key")).unwrap();
    let key = key.lines().rev().find(|line| line.len() >= 32).unwrap().trim().to_owned();
    for secret in [PASSPHRASE, &key[..16], &key[key.len() - 16..]] {
        assert!(!contains(&printed, secret.as_bytes()), "{}", String::from_utf8_lossy(&printed));
    }
    assert!(printed.len() > 500);
}
