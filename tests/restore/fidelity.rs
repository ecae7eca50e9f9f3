//! What is restored equals what was captured: bytes, holes and all metadata.

use compline::archive::restore::{RestoreOptions, restore_tree};
use tempfile::TempDir;

use crate::support::World;
use crate::support::compare::assert_equal;
use crate::support::memory::MemoryArchive;
use crate::support::nasty;

#[test]
fn a_nasty_tree_comes_back_identical() {
    let scratch = TempDir::new().unwrap();
    let (source, target) = (scratch.path().join("source"), scratch.path().join("target"));
    let skipped = nasty::build(&source);
    println!("not built here: {skipped:?}");
    let mut archive = MemoryArchive::new();
    let root = archive.capture(&source);
    let world = World::new();
    let summary =
        restore_tree(&archive, &archive, &root, &target, &RestoreOptions::default(), &world.context()).unwrap();
    assert_eq!(world.problems(), Vec::<String>::new());
    assert_equal(&source, &target);
    assert_eq!(summary.problems, 0);
}
