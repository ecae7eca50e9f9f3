//! A crash at any storage call of `prune` loses nothing that is kept, and the next run goes on.

use std::collections::HashSet;
use std::sync::Arc;

use compline::error::ErrorKind;
use compline::storage::{MemoryStorage, ObjectKey, ObjectKind, Storage};
use compline::store::{Unlock, retired};
use tempfile::TempDir;

use crate::faulty_storage::{Fault, FaultyStorage};
use crate::prune::{EVERYTHING, after_nights, count, forget_but, holds, prune};
use crate::shelf;
use crate::support::World;

/// Nights that are kept.
const KEPT: [u64; 2] = [3, 5];
/// One case in so many is tried, unless all are asked for.
const STRIDE: u64 = 17;

/// Nights that are forgotten and nights that are kept, packs that are needed in part, deltas whose bases only other deltas
/// need, a pack that no segment lists, and the list of a run that died, with packs that are needed and others on it.
fn before() -> (MemoryStorage, Unlock) {
    let (storage, unlock) = after_nights(5);
    let repository = shelf::open(&storage, &unlock, None).unwrap();
    assert!(shelf::deltas(&repository).0 > 0);
    forget_but(&repository, |night| KEPT.contains(&night));
    let packs = storage.list(ObjectKind::Pack).unwrap();
    let ids = packs.iter().filter_map(|row| if let ObjectKey::Pack(id) = row.key { Some(id) } else { None });
    retired::publish(&repository, &ids.step_by(3).collect::<Vec<_>>(), &World::new().context()).unwrap();
    let segments = storage.list(ObjectKind::Segment).unwrap();
    storage.delete(&segments[0].key).unwrap();
    (MemoryStorage::clone(&storage), unlock)
}

/// The cache of a machine that has seen `storage`.
fn warm_cache(storage: &MemoryStorage, unlock: &Unlock) -> TempDir {
    let cache = TempDir::new().unwrap();
    let repository = shelf::open(&Arc::new(storage.clone()), unlock, Some(cache.path())).unwrap();
    repository.refresh(&World::new().context()).unwrap();
    cache
}

/// Whether every case is tried: minutes, not seconds.
fn tries_all() -> bool {
    std::env::var_os("COMPLINE_TEST_EVERY_CALL").is_some()
}

/// A machine whose pruning failed, with the cache it had then.
struct Wreck<'w> {
    remains: Arc<MemoryStorage>,
    unlock: &'w Unlock,
    cache: Option<&'w TempDir>,
    what: &'w str,
}

impl Wreck<'_> {
    /// Everything that is kept is whole, seen with the cache and without; and nothing else is there.
    fn holds(&self, nights: &[u64]) {
        let states: Vec<_> = nights.iter().map(|night| shelf::state(*night)).collect();
        holds(&self.remains, self.unlock, None, &states, self.what);
        if self.cache.is_some() {
            holds(&self.remains, self.unlock, self.cache, &states, self.what);
        }
    }

    /// What nobody is there to do any more ends with the process; this one lives on.
    fn end_sessions(&self) {
        for row in self.remains.list(ObjectKind::Session).unwrap() {
            self.remains.delete(&row.key).unwrap();
        }
    }

    fn open(&self) -> compline::store::Repository {
        shelf::open(&self.remains, self.unlock, self.cache.map(TempDir::path)).expect(self.what)
    }

    /// The next backup succeeds, and the next prune leaves nothing over, nor anything behind.
    fn goes_on(&self) {
        shelf::save(&self.open(), &World::new(), &shelf::state(6), 6).expect(self.what);
        self.holds(&[3, 5, 6]);
        prune(&self.open(), EVERYTHING).expect(self.what);
        self.holds(&[3, 5, 6]);
        let left = [ObjectKind::Session, ObjectKind::Retired].map(|kind| count(&self.remains, kind));
        assert_eq!(left, [0, 0], "{}: sessions and lists are left", self.what);
        let again = prune(&self.open(), EVERYTHING).expect(self.what);
        assert_eq!((again.packs_deleted, again.decision.bytes_left), (0, 0), "{}: {again:?}", self.what);
    }
}

fn every_call_fails(keep_cache: bool) {
    let (before, unlock) = before();
    let cache = || keep_cache.then(|| warm_cache(&before, &unlock));
    let run = |storage: &Arc<FaultyStorage>, cache: Option<&TempDir>| {
        shelf::open(storage, &unlock, cache.map(TempDir::path)).and_then(|repository| prune(&repository, EVERYTHING))
    };
    let counting = Arc::new(FaultyStorage::counting(before.clone()));
    let summary = run(&counting, cache().as_ref()).unwrap();
    assert!(summary.packs_deleted > 3 && summary.decision.packs_rewritten > 3, "{summary:?}");
    let calls = counting.calls();
    let (mut tried, mut missed, mut hit) = (0, 0, HashSet::new());
    for (at, fault) in (0..calls).flat_map(|at| Fault::ALL.map(|fault| (at, fault))) {
        if !tries_all() && !(at * 4 + fault as u64).is_multiple_of(STRIDE) {
            continue;
        }
        let cache = cache();
        let storage = Arc::new(FaultyStorage::failing(before.clone(), at, fault));
        let result = run(&storage, cache.as_ref());
        let what = format!("{fault:?} at call {at} of {calls}, cache kept: {keep_cache}");
        tried += 1;
        if !storage.was_hit() {
            result.expect(&what);
            missed += 1;
            continue;
        }
        hit.insert(at);
        match result {
            // A session that can't be ended is found dead by the next run.
            // What can't be read once is read again.
            Ok(_) => assert!(
                storage.hit_the_end() || (matches!(fault, Fault::Refused | Fault::AnswerLost) && storage.hit_a_read()),
                "{what}: not noticed"
            ),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Storage, "{what}: {}", error.chain()),
        }
        let remains = Arc::new(storage.remains());
        let wreck = Wreck { remains, unlock: &unlock, cache: cache.as_ref(), what: &what };
        wreck.holds(&KEPT);
        wreck.end_sessions();
        wreck.goes_on();
    }
    println!("prune: {tried} faults at {} of {calls} calls, {missed} of them never reached", hit.len());
    assert!(missed * 10 <= tried, "{missed} of {tried} faults were never hit");
}

#[test]
fn a_prune_that_fails_at_any_call_loses_nothing_and_the_next_one_finishes() {
    every_call_fails(false);
}

#[test]
fn a_prune_that_fails_at_any_call_leaves_a_cache_that_is_right() {
    every_call_fails(true);
}

#[test]
fn a_prune_that_dies_again_and_again_is_finished_by_the_one_that_lives() {
    let (before, unlock) = before();
    let mut storage = before;
    let mut deaths = 0;
    // Each run comes a little further than the one before, with what that one left.
    for at in (20..).step_by(20) {
        let dying = Arc::new(FaultyStorage::failing(storage.clone(), at, Fault::DiedAfter));
        let result = shelf::open(&dying, &unlock, None).and_then(|repository| prune(&repository, EVERYTHING));
        let is_done = result.is_ok() && !dying.was_hit();
        storage = dying.remains();
        let what = format!("death {deaths} at call {at}");
        let wreck = Wreck { remains: Arc::new(storage.clone()), unlock: &unlock, cache: None, what: &what };
        wreck.holds(&KEPT);
        wreck.end_sessions();
        storage = MemoryStorage::clone(&wreck.remains);
        if is_done {
            wreck.goes_on();
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 2);
}
