//! A crash at any storage call loses nothing that was published, and the next run goes on from what was uploaded.

use std::collections::HashSet;
use std::sync::Arc;

use compline::clock::Clock;
use compline::error::{ErrorKind, Result};
use compline::id::{ChunkId, PackId};
use compline::observer::Counter;
use compline::storage::{MemoryStorage, ObjectKey, ObjectKind, Storage};
use compline::store::check::DataSubset;
use compline::store::{Repository, Unlock};
use tempfile::TempDir;

use crate::faulty_storage::{Fault, FaultyStorage};
use crate::shelf::{self, State};
use crate::support::World;

/// A storage with so many nights in it.
fn after_nights(nights: u64) -> (MemoryStorage, Unlock) {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    for night in 1..=nights {
        let repository = shelf::open(&storage, &unlock, None).unwrap();
        shelf::save(&repository, &World::new(), &shelf::state(night), night).unwrap();
    }
    (MemoryStorage::clone(&storage), unlock)
}

/// The cache of a machine that has seen `storage`.
fn warm_cache(storage: &MemoryStorage, unlock: &Unlock) -> TempDir {
    let cache = TempDir::new().unwrap();
    let repository = shelf::open(&Arc::new(storage.clone()), unlock, Some(cache.path())).unwrap();
    repository.refresh(&World::new().context()).unwrap();
    cache
}

fn chunks_of_packs(repository: &Repository, without: &HashSet<PackId>) -> HashSet<ChunkId> {
    let listed = repository.storage().list(ObjectKind::Pack).unwrap();
    let packs = listed.into_iter().filter_map(|row| match row.key {
        ObjectKey::Pack(id) if !without.contains(&id) => Some(repository.read_pack_entry(id, row.len).unwrap()),
        _ => None,
    });
    packs.flat_map(|pack| pack.frames).flat_map(|frame| frame.chunks).map(|(id, _)| id).collect()
}

fn packs(storage: &MemoryStorage) -> HashSet<PackId> {
    let listed = storage.list(ObjectKind::Pack).unwrap();
    listed.into_iter().filter_map(|row| if let ObjectKey::Pack(id) = row.key { Some(id) } else { None }).collect()
}

fn run_night<S: Storage + 'static>(
    storage: &Arc<S>,
    unlock: &Unlock,
    cache: Option<&TempDir>,
    (state, night): (&State, u64),
) -> Result<u64> {
    let world = World::new();
    let repository = shelf::open(storage, unlock, cache.map(TempDir::path))?;
    shelf::save(&repository, &world, state, night)?;
    Ok(world.ledger.get(Counter::ChunksNew))
}

/// Night `night` fails at every call in every way; what is left is looked at and used.
fn every_call_fails(night: u64, keep_cache: bool) {
    let (before, unlock) = after_nights(night - 1);
    let state = shelf::state(night);
    let cache = || keep_cache.then(|| warm_cache(&before, &unlock));
    let counting = Arc::new(FaultyStorage::counting(before.clone()));
    let chunks_in_all = run_night(&counting, &unlock, cache().as_ref(), (&state, night)).unwrap();
    assert!(counting.calls() > 8, "a scenario of {} calls proves little", counting.calls());
    let has_deltas = shelf::deltas(&shelf::open(&Arc::new(counting.remains()), &unlock, None).unwrap()).0 > 0;
    assert_eq!(has_deltas, night > 1, "night {night}");
    let (mut missed, mut survived) = (0, 0);
    for fault in Fault::ALL {
        for at in 0..counting.calls() {
            let cache = cache();
            let storage = Arc::new(FaultyStorage::failing(before.clone(), at, fault));
            let result = run_night(&storage, &unlock, cache.as_ref(), (&state, night));
            let what = format!("night {night}, {fault:?} at call {at}, cache kept: {keep_cache}");
            if !storage.was_hit() {
                // Threads that read bases share what they read or don't, as it happens.
                result.expect(&what);
                missed += 1;
                continue;
            }
            if storage.hit_a_read() && matches!(fault, Fault::AnswerLost | Fault::DiedAfter) {
                continue; // The same as the one before.
            }
            let is_done = result.is_ok();
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Storage, "{what}: {}", error.chain());
            } else {
                // A base that can't be had costs the delta, not the backup; a session that can't be ended is found dead.
                let costs_a_delta = has_deltas && fault == Fault::Refused;
                let costs_nothing = storage.hit_the_end() || (keep_cache && storage.hit_a_key());
                assert!(costs_a_delta || costs_nothing, "{what}: not noticed");
                survived += u64::from(!costs_nothing);
            }
            let remains = Arc::new(storage.remains());
            let seen = survives(&remains, &unlock, cache.as_ref(), night, &what);
            assert!(!is_done || seen as u64 == night, "{what}: it said that it was saved");
            let repository = shelf::open(&remains, &unlock, None).unwrap();
            let uploaded = chunks_of_packs(&repository, &packs(&before)).len() as u64;
            let chunks_new = run_night(&remains, &unlock, cache.as_ref(), (&state, night + 1)).expect(&what);
            assert_eq!(chunks_new, chunks_in_all - uploaded, "{what}: uploaded packs are not used again");
            assert_eq!(survives(&remains, &unlock, cache.as_ref(), night, &what), seen + 1);
        }
    }
    assert!(missed * 10 <= counting.calls() * 4, "{missed} of four times {} calls were never hit", counting.calls());
    assert_eq!(survived > 0, has_deltas, "of {} calls", counting.calls());
}

/// Everything that is published is whole. How much that is.
fn survives(storage: &Arc<MemoryStorage>, unlock: &Unlock, cache: Option<&TempDir>, night: u64, what: &str) -> usize {
    let world = World::new();
    let repository = shelf::open(storage, unlock, cache.map(TempDir::path)).expect(what);
    assert_eq!(shelf::check(&repository, DataSubset::All).expect(what), Vec::<String>::new(), "{what}");
    let published = shelf::published(&repository, &world).unwrap();
    assert!(published.len() as u64 >= night - 1, "{what}: a snapshot is lost");
    for (at, snapshot) in (1..).zip(&published) {
        let state = shelf::state_of(&repository, &world, snapshot).expect(what);
        assert!(state == shelf::state(at.min(night)), "{what}: snapshot {at} is not what was captured");
    }
    published.len()
}

#[test]
fn a_first_backup_that_fails_at_any_call_leaves_nothing_half_done() {
    every_call_fails(1, false);
}

#[test]
fn a_second_backup_that_fails_at_any_call_keeps_the_first() {
    every_call_fails(2, false);
}

#[test]
fn a_machine_that_keeps_its_cache_goes_on_from_what_it_uploaded() {
    every_call_fails(1, true);
    every_call_fails(2, true);
}

#[test]
fn a_failed_init_can_be_repeated_and_a_finished_one_opens() {
    let now = World::new().clock.now();
    let (unlock, _) = Unlock::new_key_file().unwrap();
    let counting = FaultyStorage::counting(MemoryStorage::new());
    Repository::create(&counting, &unlock, "first", now).unwrap();
    for fault in Fault::ALL {
        for at in 0..counting.calls() {
            let what = format!("{fault:?} at call {at}");
            let storage = FaultyStorage::failing(MemoryStorage::new(), at, fault);
            let created = Repository::create(&storage, &unlock, "first", now);
            assert!(storage.was_hit(), "{what}");
            let remains = Arc::new(storage.remains());
            let again = Repository::create(&*remains, &unlock, "first", now);
            // The first attempt may have come to its end without knowing.
            if created.is_ok() || again.is_err() {
                assert_eq!(again.err().map(|error| error.kind()), Some(ErrorKind::RepositoryExists), "{what}");
            }
            let repository = shelf::open(&remains, &unlock, None).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            shelf::save(&repository, &World::new(), &shelf::state(1), 1).expect(&what);
        }
    }
}

#[test]
fn keys_that_fail_to_change_leave_one_that_opens() {
    type Change = fn(&Repository, &Unlock) -> Result<()>;
    let now = World::new().clock.now();
    let add: Change = |repository, new| repository.add_key(new, "", World::new().clock.now()).map(drop);
    let remove: Change = |repository, _| {
        let other = repository.list_keys()?.into_iter().find(|key| !key.current).unwrap();
        repository.remove_key(other.id)
    };
    let change: Change = |repository, new| {
        let old = repository.current_key().id;
        repository.add_key(new, "", World::new().clock.now())?;
        repository.remove_key(old)
    };
    let (before, unlock) = after_nights(1);
    let (other, _) = Unlock::new_key_file().unwrap();
    let (new, _) = Unlock::new_key_file().unwrap();
    let before = Arc::new(before);
    shelf::open(&before, &unlock, None).unwrap().add_key(&other, "other", now).unwrap();
    for (name, change) in [("add", add), ("remove", remove), ("change", change)] {
        let run = |storage: &Arc<FaultyStorage>| shelf::open(storage, &unlock, None).and_then(|r| change(&r, &new));
        let counting = Arc::new(FaultyStorage::counting(MemoryStorage::clone(&before)));
        run(&counting).unwrap();
        for fault in Fault::ALL {
            for at in 0..counting.calls() {
                let what = format!("{name}, {fault:?} at call {at}");
                let storage = Arc::new(FaultyStorage::failing(MemoryStorage::clone(&before), at, fault));
                // A key that can't be read does no harm while another one opens.
                if let Err(error) = run(&storage) {
                    assert_eq!(error.kind(), ErrorKind::Storage, "{what}: {}", error.chain());
                }
                assert!(storage.was_hit(), "{what}");
                let remains = Arc::new(storage.remains());
                let opened = [&unlock, &new].map(|unlock| shelf::open(&remains, unlock, None));
                assert!(opened.iter().any(Result::is_ok), "{what}: locked out");
                for repository in opened.into_iter().flatten() {
                    assert_eq!(shelf::check(&repository, DataSubset::All).unwrap(), Vec::<String>::new(), "{what}");
                }
            }
        }
    }
}
