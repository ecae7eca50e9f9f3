//! A host with a write-only key backs up, finds what is stored already, and reads nothing back.

use std::sync::Arc;

use compline::error::ErrorKind;
use compline::storage::{MemoryStorage, ObjectKey, ObjectKind, Storage};
use compline::store::check::DataSubset;
use compline::store::{ChunkSource, Repository, Unlock};
use tempfile::TempDir;

use crate::faulty_storage::{Fault, FaultyStorage};
use crate::prune::{EVERYTHING, prune};
use crate::shelf::{self, State};
use crate::support::World;

/// A repository, a key that can read, and one that can't.
fn repository() -> (Arc<MemoryStorage>, Unlock, Unlock) {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    let (host, _) = Unlock::new_key_file().unwrap();
    let full = shelf::open(&storage, &unlock, None).unwrap();
    full.add_write_only_key(&host, "host", jiff::Timestamp::UNIX_EPOCH).unwrap();
    (storage, unlock, host)
}

fn states(repository: &Repository) -> Vec<State> {
    let world = World::new();
    let all = shelf::published(repository, &world).unwrap();
    all.iter().map(|one| shelf::state_of(repository, &world, one).unwrap()).collect()
}

fn packs_len(storage: &MemoryStorage) -> u64 {
    storage.list(ObjectKind::Pack).unwrap().iter().map(|row| row.len).sum()
}

#[test]
fn what_a_write_only_host_saves_others_read_and_it_can_not() {
    let (storage, unlock, host) = repository();
    let cache = TempDir::new().unwrap();
    let writer = shelf::open(&storage, &host, Some(cache.path())).unwrap();
    assert!(!writer.can_read());
    for night in 1..=3 {
        shelf::save(&writer, &World::new(), &shelf::state(night), night).unwrap();
    }
    let before = packs_len(&storage);
    shelf::save(&writer, &World::new(), &shelf::state(3), 4).unwrap();
    // A few trees name times.
    assert!(packs_len(&storage) < before + before / 20, "what is stored is found");

    let full = shelf::open(&storage, &unlock, None).unwrap();
    assert_eq!(states(&full), [1, 2, 3, 3].map(shelf::state));
    assert_eq!(shelf::deltas(&full), (0, 0), "nobody who can't read has a base");
    assert_eq!(shelf::check(&full, DataSubset::All).unwrap(), Vec::<String>::new());

    let id = full.list_snapshots().unwrap()[0];
    let chunk = full.chunk_id(&shelf::state(1)["only in night 1"]);
    for writer in [&writer, &shelf::open(&storage, &host, None).unwrap()] {
        let world = World::new();
        writer.refresh(&world.context()).unwrap();
        let refused = [
            writer.read_snapshot(id).unwrap_err(),
            shelf::published(writer, &world).unwrap_err(),
            writer.reader(world.context()).get(&chunk).unwrap_err(),
            writer.add_key(&unlock, "", jiff::Timestamp::UNIX_EPOCH).unwrap_err(),
        ];
        assert!(refused.iter().all(|error| error.kind() == ErrorKind::WrongKey), "{refused:?}");
    }
}

#[test]
fn both_sorts_of_hosts_share_chunks_and_what_is_rewritten_can_be_read() {
    let (storage, unlock, host) = repository();
    let full = shelf::open(&storage, &unlock, None).unwrap();
    shelf::save(&full, &World::new(), &shelf::state(1), 1).unwrap();
    let before = packs_len(&storage);
    let writer = shelf::open(&storage, &host, None).unwrap();
    shelf::save(&writer, &World::new(), &shelf::state(1), 2).unwrap();
    assert!(packs_len(&storage) < before + before / 20);
    shelf::save(&writer, &World::new(), &shelf::state(2), 3).unwrap();
    let full = shelf::open(&storage, &unlock, None).unwrap();
    // Over what a host wrote that can't read, one that can makes deltas.
    shelf::save(&full, &World::new(), &shelf::state(3), 4).unwrap();
    assert!(shelf::deltas(&full).0 > 0);
    let all = shelf::published(&full, &World::new()).unwrap();
    full.remove_snapshot(all[1].id).unwrap();
    prune(&full, EVERYTHING).unwrap();
    assert_eq!(states(&full), [1, 2, 3].map(shelf::state));
    assert_eq!(shelf::check(&full, DataSubset::All).unwrap(), Vec::<String>::new());
}

#[test]
fn a_write_only_host_whose_session_was_ended_sees_what_it_has_lost() {
    for takes_a_pack in [false, true] {
        let (storage, unlock, host) = repository();
        let writer = shelf::open(&storage, &host, None).unwrap();
        shelf::save(&writer, &World::new(), &shelf::state(1), 1).unwrap();
        let meanwhile = || {
            for row in storage.list(ObjectKind::Session).unwrap() {
                storage.delete(&row.key).unwrap();
            }
            if takes_a_pack {
                let first = storage.list(ObjectKind::Pack).unwrap()[0].key;
                storage.delete(&first).unwrap();
            }
        };
        let saved = shelf::save_and_meanwhile(&writer, &World::new(), &shelf::state(1), 2, || {}, meanwhile)
            .map_err(|error| error.kind());
        let full = shelf::open(&storage, &unlock, None).unwrap();
        if takes_a_pack {
            assert_eq!(saved, Err(ErrorKind::Storage));
            assert_eq!(full.list_snapshots().unwrap().len(), 1);
        } else {
            assert!(saved.is_ok());
            assert_eq!(states(&full), [1, 1].map(shelf::state));
        }
    }
}

#[test]
fn a_fault_at_any_call_of_a_write_only_host_leaves_only_whole_snapshots() {
    let (storage, unlock, host) = repository();
    shelf::save(&shelf::open(&storage, &host, None).unwrap(), &World::new(), &shelf::state(1), 1).unwrap();
    let before = MemoryStorage::clone(&storage);
    let run = |storage: &Arc<FaultyStorage>| {
        shelf::save(&shelf::open(storage, &host, None)?, &World::new(), &shelf::state(2), 2)
    };
    let counting = Arc::new(FaultyStorage::counting(before.clone()));
    run(&counting).unwrap();
    for fault in Fault::ALL {
        for at in 0..counting.calls() {
            let what = format!("{fault:?} at call {at}");
            let faulty = Arc::new(FaultyStorage::failing(before.clone(), at, fault));
            let _failed = run(&faulty);
            assert!(faulty.was_hit(), "{what}");
            let remains = Arc::new(faulty.remains());
            let full = shelf::open(&remains, &unlock, None).expect(&what);
            let left = states(&full);
            assert!(left == [shelf::state(1)] || left == [shelf::state(1), shelf::state(2)], "{what}");
            assert_eq!(shelf::check(&full, DataSubset::All).expect(&what), Vec::<String>::new(), "{what}");
            let again = shelf::open(&remains, &host, None).expect(&what);
            shelf::save(&again, &World::new(), &shelf::state(2), 3).expect(&what);
            assert!(states(&shelf::open(&remains, &unlock, None).unwrap()).last() == Some(&shelf::state(2)), "{what}");
        }
    }
}

#[test]
fn a_repository_keeps_a_key_that_can_read() {
    let (storage, unlock, host) = repository();
    let full = shelf::open(&storage, &unlock, None).unwrap();
    let current = full.current_key().id;
    assert_eq!(full.remove_key(current).unwrap_err().kind(), ErrorKind::Usage);
    let kinds: Vec<&str> = full.list_keys().unwrap().iter().map(|key| key.kind).collect();
    assert!(kinds.contains(&"key-file") && kinds.contains(&"key-file, write-only"), "{kinds:?}");
    // A changed right is another object: the plain part is sealed along.
    let id = shelf::open(&storage, &host, None).unwrap().current_key().id;
    let mut object = storage.get(&ObjectKey::Key(id)).unwrap().to_vec();
    object[60] ^= 16;
    storage.overwrite(&ObjectKey::Key(id), &object);
    assert!(!shelf::open(&storage, &host, None).is_ok_and(|repository| repository.can_read()));
}
