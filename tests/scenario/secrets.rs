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
