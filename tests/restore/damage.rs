//! What is wrong with one file costs that file; what is wrong with everything stops the restore.

use std::sync::atomic::Ordering;

use compline::archive::restore::{RestoreOptions, TreeSource};
use compline::archive::{Content, Entry, EntryKind};
use compline::error::ErrorKind;

use crate::support::nasty::noise;
use crate::{Place, names};

fn content(place: &Place, root: &Entry, name: &str) -> Content {
    let EntryKind::Directory(tree) = &root.kind else { panic!("a directory") };
    let tree = place.archive.tree(tree).unwrap();
    match &tree.get(name.as_bytes()).unwrap().kind {
        EntryKind::File(content) => content.clone(),
        _ => panic!("a file"),
    }
}

fn lose(place: &Place, root: &Entry, name: &str, piece: usize) {
    let id = content(place, root, name).pieces[piece].id;
    place.archive.lost.lock().unwrap().insert(id);
}

#[test]
fn a_damaged_chunk_costs_its_file_and_no_other() {
    let mut place = Place::new();
    for at in 0..50 {
        place.write(&format!("file {at}"), noise(at, 1000));
    }
    let root = place.capture();
    lose(&place, &root, "file 7", 0);
    lose(&place, &root, "file 31", 0);
    let (summary, problems) = place.restore_badly(&root, &RestoreOptions::default());
    assert_eq!((summary.files_restored, problems.len()), (48, 2), "{problems:?}");
    assert!(problems.iter().all(|problem| problem.contains("1000 of 1000 bytes")), "{problems:?}");
    let left = names(&place.target());
    assert_eq!(left.len(), 48);
    assert!(!left.contains(&"file 7".to_owned()));
}

#[test]
fn of_a_file_with_a_damaged_chunk_the_rest_is_saved_and_never_taken_as_right() {
    let mut place = Place::new();
    place.write("file", noise(1, 200_000));
    let root = place.capture();
    lose(&place, &root, "file", 1);
    let (_, problems) = place.restore_badly(&root, &RestoreOptions::default());
    assert_eq!(problems.len(), 1);
    let mut expected = noise(1, 200_000);
    expected[65_536..131_072].fill(0);
    assert_eq!(place.read_target("file"), expected);
    place.archive.lost.lock().unwrap().clear();
    place.restore_well(&root, &RestoreOptions::default());
    crate::support::compare::assert_equal(&place.source(), &place.target());
}

#[test]
fn a_file_is_never_replaced_by_a_damaged_one() {
    let mut place = Place::new();
    place.write("file", noise(1, 200_000));
    let root = place.capture();
    lose(&place, &root, "file", 2);
    place.write_target("file", "old but whole");
    let (_, problems) = place.restore_badly(&root, &RestoreOptions::default());
    assert_eq!(problems.len(), 1);
    assert_eq!(names(&place.target()), ["file"]);
    assert_eq!(place.read_target("file"), b"old but whole");
}

#[test]
fn a_damaged_content_list_costs_what_it_lists() {
    let mut place = Place::new();
    place.write("file", noise(1, 3 << 20));
    place.write("other", "other");
    let root = place.capture();
    assert_eq!(content(&place, &root, "file").depth, 1);
    lose(&place, &root, "file", 1);
    let (summary, problems) = place.restore_badly(&root, &RestoreOptions::default());
    assert_eq!((summary.files_restored, problems.len()), (1, 1));
    let mut expected = noise(1, 3 << 20);
    expected[1 << 20..2 << 20].fill(0);
    assert_eq!(place.read_target("file"), expected);
}

#[test]
fn a_damaged_tree_costs_its_directory() {
    let mut place = Place::new();
    place.write("bad/file", "x");
    place.write("good/file", "x");
    let root = place.capture();
    let EntryKind::Directory(tree) = &root.kind else { panic!("a directory") };
    let tree = place.archive.tree(tree).unwrap();
    let EntryKind::Directory(bad) = &tree.get(b"bad").unwrap().kind else { panic!("a directory") };
    place.archive.lost.lock().unwrap().extend(place.archive.chunk_ids(bad));
    let (_, problems) = place.restore_badly(&root, &RestoreOptions::default());
    assert_eq!(problems.len(), 1);
    assert_eq!(names(&place.target()), ["bad/", "good/", "good/file"]);
}

#[test]
fn a_chunk_of_another_length_than_the_tree_says_is_refused() {
    let mut place = Place::new();
    let mut file = place.archive.file(b"file", b"twelve bytes");
    let EntryKind::File(content) = &mut file.kind else { panic!("a file") };
    (content.len, content.pieces[0].len) = (7, 7);
    let (_, problems) = place.restore_badly(&file, &RestoreOptions::default());
    assert_eq!(problems.len(), 1);
    assert_eq!(names(&place.target()), Vec::<String>::new());
}

#[test]
fn a_hard_link_to_a_file_that_cannot_be_read_is_a_problem_of_its_own() {
    let mut place = Place::new();
    place.write("a", "content");
    std::fs::hard_link(place.source().join("a"), place.source().join("b")).unwrap();
    let root = place.capture();
    lose(&place, &root, "a", 0);
    let (_, problems) = place.restore_badly(&root, &RestoreOptions::default());
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn a_full_disk_stops_the_restore_and_says_so() {
    if !crate::support::is_root() {
        return;
    }
    let mut place = Place::new();
    place.write("big", noise(1, 3 << 20));
    place.write("small", "x");
    let root = place.capture();
    let Some(_disk) = crate::SmallDisk::mount(&place.target()) else { return };
    let (done, world) = place.restore(&root, &RestoreOptions::default());
    let error = done.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(error.to_string().contains("/target/big"), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("Free some space")));
    assert_eq!(world.problems(), Vec::<String>::new());
}

#[test]
fn a_target_that_is_a_file_is_an_error_that_names_it() {
    let mut place = Place::new();
    place.write("file", "x");
    let root = place.capture();
    std::fs::write(place.target(), "a file").unwrap();
    let (done, _) = place.restore(&root, &RestoreOptions::default());
    let error = done.unwrap_err();
    assert!(error.to_string().contains("/target"), "{error}");
    assert_eq!(place.archive.delivered.load(Ordering::SeqCst), 0);
}
