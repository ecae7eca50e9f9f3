//! The same through a real repository: captured by the real walk, packed, sealed, indexed, and read back.

use std::path::Path;

use compline::archive::restore::{RestoreOptions, restore_tree};
use compline::archive::{ArchivePath, ArchiveReader, ArchiveWriter, CaptureSink, Content, Entry, FilesSource};
use compline::chunker::Profile;
use compline::clock::Clock;
use compline::storage::MemoryStorage;
use compline::store::{Repository, Unlock};

use crate::support::compare::assert_equal;
use crate::support::{World, nasty};
use crate::Place;

fn repository(world: &World) -> Repository {
    let storage = MemoryStorage::new();
    let (unlock, _) = Unlock::new_key_file().unwrap();
    Repository::create(&storage, &unlock, "test", world.clock.now()).unwrap();
    Repository::open(Box::new(storage), &unlock, None).unwrap()
}

/// Captures `source`; gives the root of the component.
fn capture(repository: &Repository, source: &Path, world: &World) -> Entry {
    let mut writer = ArchiveWriter::new(repository, false, Vec::new(), world.context()).unwrap();
    let mut component = writer.component("files", Profile::default(), None, world.context());
    component.put_files(&FilesSource { paths: vec![source.to_path_buf()], ..FilesSource::default() }).unwrap();
    let finished = component.finish().unwrap();
    assert_eq!(world.ledger.problems(), Vec::new());
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
    let reader = ArchiveReader::new(&repository, world.context());
    let entry = reader.entry(&root, &ArchivePath::from_path(&place.source()).unwrap()).unwrap();
    let options = RestoreOptions { verify: true, ..RestoreOptions::default() };
    let trees = |content: &Content| reader.tree(content);
    let summary = restore_tree(reader.chunks(), &trees, &entry, &place.target(), &options, &world.context()).unwrap();
    assert_eq!((world.problems(), summary.problems), (Vec::new(), 0));
    assert_equal(&place.source(), &place.target());
}
