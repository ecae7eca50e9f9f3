//! With `delete`, the target becomes the snapshot and nothing more; nothing outside it is touched.

use compline::archive::restore::{Overwrite, RestoreOptions};

use crate::support::compare::assert_equal;
use crate::support::{is_root, nasty};
use crate::{Place, names};

fn delete() -> RestoreOptions {
    RestoreOptions { delete: true, ..RestoreOptions::default() }
}

fn exclude(pattern: &str) -> RestoreOptions {
    let set = globset::GlobSetBuilder::new().add(globset::Glob::new(pattern).unwrap()).build().unwrap();
    RestoreOptions { exclude: Some(set), ..delete() }
}

#[test]
fn what_the_snapshot_lacks_goes_and_the_rest_stays() {
    let mut place = Place::new();
    place.write("kept/file", "x");
    let root = place.capture();
    place.restore_well(&root, &RestoreOptions::default());
    place.write_target("extra", "x");
    place.write_target("kept/extra/deep/file", "x");
    std::os::unix::fs::symlink("/etc", place.target().join("kept/link")).unwrap();
    assert_eq!(place.restore_well(&root, &RestoreOptions::default()).files_deleted, 0);
    let summary = place.restore_well(&root, &delete());
    assert_eq!(summary.files_deleted, 5);
    assert_eq!(names(&place.target()), ["kept/", "kept/file"]);
    assert_equal(&place.source(), &place.target());
}

#[test]
fn a_nasty_tree_can_be_deleted_whole() {
    let mut place = Place::new();
    std::fs::create_dir(place.source()).unwrap();
    let root = place.capture();
    nasty::build(&place.target().join("nasty"));
    place.restore_well(&root, &delete());
    assert_eq!(names(&place.target()), Vec::<String>::new());
}

#[test]
fn links_are_removed_and_never_followed() {
    let mut place = Place::new();
    std::fs::create_dir(place.source()).unwrap();
    let root = place.capture();
    let outside = place.scratch.path().join("outside");
    crate::write(&outside.join("file"), "precious");
    std::fs::create_dir(place.target()).unwrap();
    std::os::unix::fs::symlink(&outside, place.target().join("link")).unwrap();
    place.restore_well(&root, &delete());
    assert_eq!(names(&place.target()), Vec::<String>::new());
    assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"precious");
}

#[test]
fn what_a_pattern_leaves_out_is_not_deleted_either() {
    let mut place = Place::new();
    place.write("file", "x");
    let root = place.capture();
    for name in ["a/keep.log", "a/gone", "b/gone", "keep.log", "gone"] {
        place.write_target(name, "x");
    }
    place.restore_well(&root, &exclude("**/*.log"));
    assert_eq!(names(&place.target()), ["a/", "a/keep.log", "file", "keep.log"]);
}

#[test]
fn a_directory_in_the_way_of_a_file_goes_only_with_delete() {
    let mut place = Place::new();
    place.write("name", "a file");
    let root = place.capture();
    place.write_target("name/inner/file", "x");
    let (_, problems) = place.restore_badly(&root, &RestoreOptions::default());
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("/name: "), "{problems:?}");
    assert_eq!(place.read_target("name/inner/file"), b"x");
    place.restore_well(&root, &delete());
    assert_eq!(place.read_target("name"), b"a file");
}

#[test]
fn an_empty_directory_in_the_way_of_a_file_goes() {
    let mut place = Place::new();
    place.write("name", "a file");
    let root = place.capture();
    std::fs::create_dir_all(place.target().join("name")).unwrap();
    place.restore_well(&root, &RestoreOptions::default());
    assert_eq!(place.read_target("name"), b"a file");
}

#[test]
fn nothing_is_deleted_from_a_directory_whose_tree_cannot_be_read() {
    let mut place = Place::new();
    place.write("directory/file", "x");
    let root = place.capture();
    place.write_target("directory/mine", "x");
    let compline::archive::EntryKind::Directory(content) = &root.kind else { panic!("a directory") };
    let tree = compline::archive::restore::TreeSource::tree(&place.archive, content).unwrap();
    let compline::archive::EntryKind::Directory(inner) = &tree.entries[0].kind else { panic!("a directory") };
    place.archive.lost.lock().unwrap().extend(place.archive.chunk_ids(inner));
    let (_, problems) = place.restore_badly(&root, &delete());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(names(&place.target()), ["directory/", "directory/mine"]);
}

#[test]
fn delete_and_never_together_remove_and_do_not_overwrite() {
    let mut place = Place::new();
    place.write("file", "snapshot");
    let root = place.capture();
    place.write_target("file", "mine");
    place.write_target("extra", "x");
    place.restore_well(&root, &RestoreOptions { overwrite: Overwrite::Never, ..delete() });
    assert_eq!(names(&place.target()), ["file"]);
    assert_eq!(place.read_target("file"), b"mine");
}

#[test]
fn another_file_system_below_the_target_is_left_alone() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    std::fs::create_dir(place.source()).unwrap();
    let root = place.capture();
    let Some(mounted) = crate::SmallDisk::mount(&place.target().join("extra/mounted")) else { return };
    crate::write(&mounted.path.join("file"), "precious");
    let (_, problems) = place.restore_badly(&root, &delete());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("another file system"));
    assert_eq!(std::fs::read(mounted.path.join("file")).unwrap(), b"precious");
}
