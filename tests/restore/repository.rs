//! The same through a real repository: captured by the real walk, packed, sealed, indexed, and read back.

use std::path::Path;

use compline::archive::restore::{RestoreOptions, restore_tree};
use compline::archive::{ArchivePath, ArchiveReader, ArchiveWriter, CaptureSink, Entry, FilesSource};
use compline::chunker::Profile;
use compline::clock::Clock;
use compline::storage::MemoryStorage;
use compline::store::{Repository, Unlock};

use crate::Place;
use crate::support::compare::assert_equal;
use crate::support::{World, is_root, nasty};

fn repository(world: &World) -> Repository {
    let storage = MemoryStorage::new();
    let (unlock, _) = Unlock::new_key_file().unwrap();
    Repository::create(&storage, &unlock, "test", world.clock.now()).unwrap();
    Repository::open(Box::new(storage), &unlock, None).unwrap()
}

/// Captures `source`; gives the root of the component. Problems are told to the world.
fn capture(repository: &Repository, source: &Path, world: &World) -> Entry {
    let mut writer = ArchiveWriter::new(repository, false, Vec::new(), world.context()).unwrap();
    let mut component = writer.component("files", Profile::default(), None, world.context());
    component.put_files(&FilesSource { paths: vec![source.to_path_buf()], ..FilesSource::default() }).unwrap();
    let finished = component.finish().unwrap();
    // Everything is stored; only the snapshot that would name the root isn't published.
    writer.discard().unwrap();
    finished.root
}

#[test]
fn a_nasty_tree_goes_through_a_repository_and_comes_back_identical() {
    let (place, world) = (Place::new(), World::new());
    nasty::build(&place.source());
    let repository = repository(&world);
    let root = capture(&repository, &place.source(), &world);
    assert_eq!(world.problems(), Vec::<String>::new());
    let reader = ArchiveReader::new(&repository, world.context());
    let entry = reader.entry(&root, &ArchivePath::from_path(&place.source()).unwrap()).unwrap();
    let options = RestoreOptions { verify: true, ..RestoreOptions::default() };
    let summary = restore_tree(reader.chunks(), &reader, &entry, &place.target(), &options, &world.context()).unwrap();
    assert_eq!((world.problems(), summary.problems), (Vec::new(), 0));
    assert_equal(&place.source(), &place.target());
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem_and_everything_else_is_captured() {
    if is_root() {
        let test = "repository::a_file_that_cannot_be_read_is_one_problem_and_everything_else_is_captured";
        return crate::as_nobody(test);
    }
    let (place, world) = (Place::new(), World::new());
    place.write("before", "x");
    place.write("zzz", "x");
    nasty::build_unreadable(&place.source());
    let repository = repository(&world);
    let root = capture(&repository, &place.source(), &world);
    let problems = world.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("/source/unreadable: "), "{problems:?}");
    let reader = ArchiveReader::new(&repository, world.context());
    let entry = reader.entry(&root, &ArchivePath::from_path(&place.source()).unwrap()).unwrap();
    let options = RestoreOptions::default();
    restore_tree(reader.chunks(), &reader, &entry, &place.target(), &options, &world.context()).unwrap();
    assert_eq!(crate::names(&place.target()), ["before", "zzz"]);
}
