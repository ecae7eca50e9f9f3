//! Any number of runs at once, in one repository and with one cache, without a lock that can go stale.

use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;

use compline::archive::snapshots::Published;
use compline::storage::{LocalStorage, MemoryStorage, Storage};
use compline::store::check::DataSubset;
use compline::store::{Repository, Unlock};
use tempfile::TempDir;

use crate::shelf;
use crate::support::World;

/// Two writers of four nights each, and a reader all the while.
fn two_writers_and_a_reader<S: Storage + 'static>(storage: &Arc<S>, unlock: &Unlock, caches: [Option<&Path>; 3]) {
    let open = |cache| shelf::open(storage, unlock, cache).unwrap();
    shelf::save(&open(caches[0]), &World::new(), &shelf::state(1), 1).unwrap();
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for (writer, cache) in (0_u64..).zip(&caches[..2]) {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for night in 0..4 {
                    let night = 2 + night * 2 + writer;
                    shelf::save(&open(*cache), &World::new(), &shelf::state(night), night).unwrap();
                }
            });
        }
        scope.spawn(|| {
            start.wait();
            while read_all(&open(caches[2])) < 9 {}
        });
    });
    let repository = open(None);
    assert_eq!(read_all(&repository), 9);
    assert_eq!(shelf::check(&repository, DataSubset::All).unwrap(), Vec::<String>::new());
}

/// Every snapshot is whole the moment it is listed. How many there are.
fn read_all(repository: &Repository) -> usize {
    let world = World::new();
    let published = shelf::published(repository, &world).unwrap();
    for published in &published {
        let night = published_night(published);
        let state = shelf::state_of(repository, &world, published).unwrap();
        assert!(state == shelf::state(night), "night {night} is not what was captured");
    }
    published.len()
}

fn published_night(published: &Published) -> u64 {
    let first = World::new().clock.0;
    u64::try_from(published.snapshot.time.duration_since(first).as_hours() / 24).unwrap()
}

#[test]
fn writers_with_caches_of_their_own_share_a_directory() {
    let scratch = TempDir::new().unwrap();
    let storage = Arc::new(LocalStorage::create(scratch.path().join("repository")).unwrap());
    let unlock = shelf::create(&*storage);
    let caches = ["one", "two", "three"].map(|name| scratch.path().join(name));
    two_writers_and_a_reader(&storage, &unlock, [0, 1, 2].map(|at| Some(caches[at].as_path())));
}

#[test]
fn writers_may_share_one_cache() {
    let cache = TempDir::new().unwrap();
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    two_writers_and_a_reader(&storage, &unlock, [Some(cache.path()); 3]);
}
