//! Giving space back: what snapshots need stays, what nobody needs goes, beside writers and after any failure.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use compline::archive::snapshots::Published;
use compline::commands::prune::of_repository;
use compline::error::{Error, ErrorKind, Result};
use compline::id::{ChunkId, PackId};
use compline::storage::{Listed, MemoryStorage, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError};
use compline::store::check::DataSubset;
use compline::store::index::Known;
use compline::store::prune::{Allowance, PruneOptions, PruneSummary};
use compline::store::session::Session;
use compline::store::{ChunkSource, Repository, Unlock, retired};
use tempfile::TempDir;

use crate::shelf::{self, State};
use crate::support::World;

pub const EVERYTHING: PruneOptions =
    PruneOptions { allowance: Allowance::Percent(0.0), wait: Duration::ZERO, dry_run: false };

pub fn prune(repository: &Repository, options: PruneOptions) -> Result<PruneSummary> {
    let world = World::new();
    let (_, summary) = of_repository(repository, options, &world.context())?;
    assert_eq!(world.problems(), Vec::<String>::new());
    Ok(summary)
}

pub fn after_nights(nights: u64) -> (Arc<MemoryStorage>, Unlock) {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    for night in 1..=nights {
        let repository = shelf::open(&storage, &unlock, None).unwrap();
        shelf::save(&repository, &World::new(), &shelf::state(night), night).unwrap();
    }
    (storage, unlock)
}

fn len(storage: &MemoryStorage, kind: ObjectKind) -> u64 {
    storage.list(kind).unwrap().iter().map(|row| row.len).sum()
}

pub fn count(storage: &MemoryStorage, kind: ObjectKind) -> usize {
    storage.list(kind).unwrap().len()
}

pub fn forget(repository: &Repository, published: &Published) {
    repository.storage().delete(&ObjectKey::Snapshot(published.id)).unwrap();
}

/// Keeps the nights that `keep` says, numbered from 1.
pub fn forget_but(repository: &Repository, keep: impl Fn(u64) -> bool) {
    for (night, published) in (1..).zip(shelf::published(repository, &World::new()).unwrap()) {
        if !keep(night) {
            forget(repository, &published);
        }
    }
}

/// Exactly these nights are there, and whole; nothing is left behind.
pub fn holds(storage: &Arc<MemoryStorage>, unlock: &Unlock, cache: Option<&TempDir>, states: &[State], what: &str) {
    let world = World::new();
    let repository = shelf::open(storage, unlock, cache.map(TempDir::path)).expect(what);
    assert_eq!(shelf::check(&repository, DataSubset::All).expect(what), Vec::<String>::new(), "{what}");
    let published = shelf::published(&repository, &world).unwrap();
    assert_eq!(published.len(), states.len(), "{what}");
    for (published, state) in published.iter().zip(states) {
        assert!(shelf::state_of(&repository, &world, published).expect(what) == *state, "{what}");
    }
}

#[test]
fn what_was_forgotten_goes_and_what_is_kept_comes_back_as_it_was() {
    for keep in [[1, 5], [3, 3], [5, 5], [1, 2], [4, 8]] {
        let (storage, unlock) = after_nights(8);
        let cache = TempDir::new().unwrap();
        let repository = shelf::open(&storage, &unlock, Some(cache.path())).unwrap();
        assert!(shelf::deltas(&repository).0 > 0);
        forget_but(&repository, |night| keep.contains(&night));
        let before = len(&storage, ObjectKind::Pack);
        let rehearsal = prune(&repository, PruneOptions { dry_run: true, ..EVERYTHING }).unwrap();
        assert_eq!(len(&storage, ObjectKind::Pack), before);
        let summary = prune(&repository, EVERYTHING).unwrap();
        assert_eq!(summary.decision, rehearsal.decision);
        let after = len(&storage, ObjectKind::Pack);
        assert_eq!(before - summary.bytes_deleted + summary.bytes_written, after);
        assert!(after < before, "{keep:?}: {before} became {after}");
        let mut nights = keep.to_vec();
        nights.dedup();
        let states: Vec<State> = nights.iter().map(|night| shelf::state(*night)).collect();
        for cache in [None, Some(&cache)] {
            holds(&storage, &unlock, cache, &states, &format!("{keep:?}"));
        }
        assert_eq!((count(&storage, ObjectKind::Session), count(&storage, ObjectKind::Retired)), (0, 0));
        // Nothing more to do.
        let again = prune(&shelf::open(&storage, &unlock, None).unwrap(), EVERYTHING).unwrap();
        assert_eq!((again.packs_deleted, again.decision.bytes_left), (0, 0), "{keep:?}");
        // The next night finds what it needs.
        let repository = shelf::open(&storage, &unlock, Some(cache.path())).unwrap();
        shelf::save(&repository, &World::new(), &shelf::state(9), 9).unwrap();
        let states: Vec<State> = states.into_iter().chain([shelf::state(9)]).collect();
        holds(&storage, &unlock, None, &states, &format!("{keep:?}, and a night"));
    }
}

#[test]
fn without_snapshots_nothing_stays() {
    let (storage, unlock) = after_nights(2);
    let repository = shelf::open(&storage, &unlock, None).unwrap();
    forget_but(&repository, |_| false);
    prune(&repository, EVERYTHING).unwrap();
    for kind in [ObjectKind::Pack, ObjectKind::Segment, ObjectKind::Session, ObjectKind::Retired] {
        assert_eq!(count(&storage, kind), 0, "{kind:?}");
    }
}

#[test]
fn a_reader_whose_index_is_old_looks_again() {
    let (storage, unlock) = after_nights(6);
    let cache = TempDir::new().unwrap();
    let reader = shelf::open(&storage, &unlock, Some(cache.path())).unwrap();
    reader.refresh(&World::new().context()).unwrap();
    let pruner = shelf::open(&storage, &unlock, None).unwrap();
    forget_but(&pruner, |night| night == 4);
    assert!(prune(&pruner, EVERYTHING).unwrap().decision.packs_rewritten > 0);
    let world = World::new();
    let published = shelf::published(&reader, &world).unwrap();
    assert!(shelf::state_of(&reader, &world, &published[0]).unwrap() == shelf::state(4));
    assert_eq!(world.problems(), Vec::<String>::new());
}

#[test]
fn a_running_writer_is_waited_for_and_nothing_is_deleted_meanwhile() {
    let (storage, unlock) = after_nights(3);
    let repository = shelf::open(&storage, &unlock, None).unwrap();
    forget_but(&repository, |night| night == 2);
    let packs = count(&storage, ObjectKind::Pack);
    let writer = Session::begin(&repository, "backup", &World::new().context()).unwrap();
    let summary = prune(&repository, EVERYTHING).unwrap();
    assert_eq!((summary.packs_deleted, summary.writers_waited_for.len()), (0, 1), "{summary:?}");
    assert!(summary.writers_waited_for[0].starts_with("backup on "), "{summary:?}");
    assert_eq!((count(&storage, ObjectKind::Pack), count(&storage, ObjectKind::Retired)), (packs, 0));
    writer.end();
    assert!(prune(&repository, EVERYTHING).unwrap().packs_deleted > 0);
    holds(&storage, &unlock, None, &[shelf::state(2)], "after the writer");
}

#[test]
fn a_writer_does_not_rely_on_what_is_on_a_list_nor_on_deltas_of_it() {
    let (storage, unlock) = after_nights(4);
    let world = World::new();
    for only in [1, 2, 3, 4] {
        let copy = Arc::new(MemoryStorage::clone(&storage));
        let repository = shelf::open(&copy, &unlock, None).unwrap();
        let packs = copy.list(ObjectKind::Pack).unwrap();
        let ids = packs.iter().filter_map(|row| if let ObjectKey::Pack(id) = row.key { Some(id) } else { None });
        // Every so many-th pack is on its way out.
        let listed: Vec<_> = ids.step_by(only).collect();
        retired::publish(&repository, &listed, &world.context()).unwrap();
        let cache = TempDir::new().unwrap();
        let writer = shelf::open(&copy, &unlock, Some(cache.path())).unwrap();
        // Its parent has all of it, in packs that are listed.
        shelf::save(&writer, &World::new(), &shelf::state(4), 5).unwrap();
        let repository = shelf::open(&copy, &unlock, None).unwrap();
        forget_but(&repository, |night| night == 5);
        for id in listed {
            copy.delete(&ObjectKey::Pack(id)).unwrap();
        }
        for row in copy.list(ObjectKind::Segment).unwrap() {
            copy.delete(&row.key).unwrap();
        }
        holds(&copy, &unlock, None, &[shelf::state(4)], &format!("every {only}th pack"));
    }
}

#[test]
fn what_a_dead_run_retired_is_put_elsewhere_if_it_is_needed_after_all() {
    let (storage, unlock) = after_nights(3);
    let repository = shelf::open(&storage, &unlock, None).unwrap();
    let packs = storage.list(ObjectKind::Pack).unwrap();
    let ids = packs.iter().filter_map(|row| if let ObjectKey::Pack(id) = row.key { Some(id) } else { None });
    retired::publish(&repository, &ids.step_by(2).collect::<Vec<_>>(), &World::new().context()).unwrap();
    let summary = prune(&repository, PruneOptions { allowance: Allowance::Unlimited, ..EVERYTHING }).unwrap();
    assert!(summary.decision.packs_rewritten > 0 && summary.packs_deleted > 0, "{summary:?}");
    assert_eq!(count(&storage, ObjectKind::Retired), 0);
    holds(&storage, &unlock, None, &[1, 2, 3].map(shelf::state), "after the dead run");
}

#[test]
fn what_dead_runs_retired_twice_is_put_elsewhere_once() {
    let (storage, unlock) = after_nights(2);
    let packs = || -> Vec<_> {
        let packs = storage.list(ObjectKind::Pack).unwrap();
        packs.into_iter().filter_map(|row| if let ObjectKey::Pack(id) = row.key { Some(id) } else { None }).collect()
    };
    let list = |packs: &[_]| {
        let repository = shelf::open(&storage, &unlock, None).unwrap();
        retired::publish(&repository, packs, &World::new().context()).unwrap();
    };
    let first = packs();
    list(&first);
    // Everything is stored again, and listed by another run that dies.
    shelf::save(&shelf::open(&storage, &unlock, None).unwrap(), &World::new(), &shelf::state(2), 3).unwrap();
    let second: Vec<_> = packs().into_iter().filter(|id| !first.contains(id)).collect();
    assert!(second.len() > 3);
    list(&second);
    let repository = shelf::open(&storage, &unlock, None).unwrap();
    prune(&repository, PruneOptions { allowance: Allowance::Unlimited, ..EVERYTHING }).unwrap();
    assert_eq!(count(&storage, ObjectKind::Retired), 0);
    assert!(packs().iter().all(|id| !first.contains(id) && !second.contains(id)));
    holds(&storage, &unlock, None, &[1, 2, 2].map(shelf::state), "after both");
}

#[test]
fn a_writer_that_was_taken_for_dead_publishes_nothing_that_is_gone() {
    let (storage, unlock) = after_nights(2);
    let world = World::new();
    let writer = shelf::open(&storage, &unlock, None).unwrap();
    // It finds the second night stored, and relies on it.
    let result = shelf::save_and_meanwhile(
        &writer,
        &world,
        &shelf::state(2),
        3,
        || (),
        || {
            let pruner = shelf::open(&storage, &unlock, None).unwrap();
            for row in storage.list(ObjectKind::Session).unwrap() {
                storage.delete(&row.key).unwrap();
            }
            forget_but(&pruner, |_| false);
            assert!(prune(&pruner, EVERYTHING).unwrap().packs_deleted > 0);
        },
    );
    let error = result.unwrap_err();
    assert!(error.to_string().contains("given back meanwhile"), "{error:?}");
    holds(&storage, &unlock, None, &[], "nothing was published");
    shelf::save(&shelf::open(&storage, &unlock, None).unwrap(), &world, &shelf::state(2), 3).unwrap();
    holds(&storage, &unlock, None, &[shelf::state(2)], "again");
    // One that was ended too early and lost nothing is none the worse.
    let repository = shelf::open(&storage, &unlock, None).unwrap();
    shelf::save_and_meanwhile(
        &repository,
        &world,
        &shelf::state(3),
        4,
        || (),
        || {
            for row in storage.list(ObjectKind::Session).unwrap() {
                storage.delete(&row.key).unwrap();
            }
        },
    )
    .unwrap();
    holds(&storage, &unlock, None, &[2, 3].map(shelf::state), "ended and lost nothing");
    assert_eq!(count(&storage, ObjectKind::Session), 0);
}

#[test]
fn a_snapshot_that_appears_while_packs_are_retired_keeps_them() {
    let (storage, unlock) = after_nights(3);
    let pruner = shelf::open(&storage, &unlock, None).unwrap();
    let second = shelf::published(&pruner, &World::new()).unwrap().remove(1);
    let record = storage.get(&ObjectKey::Snapshot(second.id)).unwrap().to_vec();
    forget_but(&pruner, |night| night == 3);
    // Between the first look and the second, as a writer does that was waited for.
    let world = World::new();
    let mut looks = 0;
    let mut seen = HashSet::new();
    let mut reach = |liveness: &mut compline::store::index::Liveness<'_>| {
        looks += 1;
        if looks == 2 {
            storage.put_new(&ObjectKey::Snapshot(second.id), &record).unwrap();
        }
        for published in shelf::published(&pruner, &world)? {
            if seen.insert(published.id) {
                let chunks = pruner.reader(world.context());
                compline::archive::reach::reach(&chunks, &published.snapshot, liveness, &world.context())?;
            }
        }
        Ok(())
    };
    let summary = compline::store::prune::run(&pruner, EVERYTHING, &mut reach, &world.context()).unwrap();
    assert!(summary.packs_spared > 0, "{summary:?}");
    holds(&storage, &unlock, None, &[2, 3].map(shelf::state), "spared");
}

#[test]
fn many_small_packs_and_segments_become_few() {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    let state = |night: u64| State::from([("note".to_owned(), crate::support::nasty::noise(night, 2000))]);
    for night in 1..=40 {
        let repository = shelf::open(&storage, &unlock, None).unwrap();
        shelf::save(&repository, &World::new(), &state(night), night).unwrap();
    }
    let (packs, segments) = (count(&storage, ObjectKind::Pack), count(&storage, ObjectKind::Segment));
    let summary = prune(
        &shelf::open(&storage, &unlock, None).unwrap(),
        PruneOptions { allowance: Allowance::default(), ..EVERYTHING },
    )
    .unwrap();
    assert_eq!(summary.packs_spared, 0);
    let (packs_now, segments_now) = (count(&storage, ObjectKind::Pack), count(&storage, ObjectKind::Segment));
    assert!(
        packs_now * 5 < packs && segments_now * 5 < segments,
        "{packs} to {packs_now}, {segments} to {segments_now}"
    );
    holds(&storage, &unlock, None, &(1..=40).map(state).collect::<Vec<_>>(), "joined");
}

#[test]
fn packs_that_the_index_hears_of_when_they_are_gone_are_not_relied_on() {
    let (storage, unlock) = after_nights(2);
    let cache = TempDir::new().unwrap();
    let pruner = shelf::open(&storage, &unlock, None).unwrap();
    let packs = storage.list(ObjectKind::Pack).unwrap();
    let read = |row: &compline::storage::Listed| match row.key {
        ObjectKey::Pack(id) => pruner.read_pack_entry(id, row.len).unwrap(),
        _ => unreachable!(),
    };
    let entries: Vec<_> = packs.iter().map(read).collect();
    forget_but(&pruner, |_| false);
    prune(&pruner, EVERYTHING).unwrap();
    // Another process of this machine read the footers before, and takes them in only now.
    let late = || shelf::open(&storage, &unlock, Some(cache.path())).unwrap().index().add_packs(&entries).unwrap();
    let writer = shelf::open(&storage, &unlock, Some(cache.path())).unwrap();
    let world = World::new();
    let error = shelf::save_and_meanwhile(&writer, &world, &shelf::state(2), 3, late, || ()).unwrap_err();
    assert!(error.to_string().contains("given back meanwhile"), "{error:?}");
    holds(&storage, &unlock, None, &[], "nothing was published");
    let writer = shelf::open(&storage, &unlock, Some(cache.path())).unwrap();
    shelf::save(&writer, &world, &shelf::state(2), 3).unwrap();
    holds(&storage, &unlock, Some(&cache), &[shelf::state(2)], "again");
}

/// Storage as a machine sees it while another one works.
#[derive(Default)]
struct Overtaken {
    storage: Arc<MemoryStorage>,
    /// Somebody puts this right after packs were listed.
    late: Mutex<Option<(ObjectKey, Vec<u8>)>>,
    /// A pack that was deleted, and that a mounted directory goes on to list, with its length.
    remembered: Option<Listed>,
}

impl Storage for Overtaken {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> std::result::Result<(), StorageError> {
        self.storage.put_new(key, bytes)
    }
    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> std::result::Result<(), StorageError> {
        self.storage.replace(key, bytes)
    }
    fn get(&self, key: &ObjectKey) -> std::result::Result<ObjectBytes, StorageError> {
        self.storage.get(key)
    }
    fn get_range(&self, key: &ObjectKey, range: std::ops::Range<u64>) -> std::result::Result<Vec<u8>, StorageError> {
        self.storage.get_range(key, range)
    }
    fn len(&self, key: &ObjectKey) -> std::result::Result<u64, StorageError> {
        match &self.remembered {
            Some(row) if row.key == *key => Ok(row.len),
            _ => self.storage.len(key),
        }
    }
    fn list(&self, kind: ObjectKind) -> std::result::Result<Vec<Listed>, StorageError> {
        let mut listed = self.storage.list(kind)?;
        if kind == ObjectKind::Pack {
            listed.extend(self.remembered.iter().map(|row| Listed { key: row.key, len: row.len }));
            if let Some((key, bytes)) = self.late.lock().unwrap().take() {
                self.storage.put_new(&key, &bytes)?;
            }
        }
        Ok(listed)
    }
    fn delete(&self, key: &ObjectKey) -> std::result::Result<(), StorageError> {
        self.storage.delete(key)
    }
    fn location(&self) -> String {
        self.storage.location()
    }
}

#[test]
fn a_pack_that_is_only_remembered_by_a_mounted_directory_is_gone() {
    let (storage, unlock) = after_nights(1);
    let remembered = Some(Listed { key: ObjectKey::Pack(PackId::from_bytes([7; 32])), len: 1000 });
    let mounted = Arc::new(Overtaken { storage: storage.clone(), remembered, ..Overtaken::default() });
    let repository = shelf::open(&mounted, &unlock, None).unwrap();
    let world = World::new();
    shelf::save(&repository, &world, &shelf::state(2), 2).unwrap();
    assert_eq!(world.problems(), Vec::<String>::new());
    holds(&storage, &unlock, None, &[1, 2].map(shelf::state), "beside what is remembered");
}

#[test]
fn a_segment_that_names_gone_packs_after_packs_were_listed_proves_nothing() {
    let (storage, unlock) = after_nights(1);
    let [row] = &storage.list(ObjectKind::Segment).unwrap()[..] else { panic!("one segment") };
    let segment = (row.key, storage.get(&row.key).unwrap().to_vec());
    let pruner = || shelf::open(&storage, &unlock, None).unwrap();
    forget_but(&pruner(), |_| false);
    prune(&pruner(), EVERYTHING).unwrap();
    let overtaken = Arc::new(Overtaken { storage: storage.clone(), ..Overtaken::default() });
    let writer = shelf::open(&overtaken, &unlock, None).unwrap();
    // While it is taken for dead what it uploaded goes; and when it has looked what is left, the segment comes that lists the
    // same chunks in packs that went before.
    let meanwhile = || {
        for row in storage.list(ObjectKind::Session).unwrap() {
            storage.delete(&row.key).unwrap();
        }
        assert!(prune(&pruner(), EVERYTHING).unwrap().packs_deleted > 0);
        *overtaken.late.lock().unwrap() = Some(segment);
    };
    let error = shelf::save_and_meanwhile(&writer, &World::new(), &shelf::state(1), 2, || (), meanwhile).unwrap_err();
    assert!(error.to_string().contains("given back meanwhile"), "{error:?}");
    assert_eq!(count(&storage, ObjectKind::Snapshot), 0);
}

/// Chunks of which no more can be read after some.
struct Vanishing<'c> {
    chunks: &'c dyn ChunkSource,
    left: AtomicI64,
}

impl ChunkSource for Vanishing<'_> {
    fn get(&self, id: &ChunkId) -> Result<Vec<u8>> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return self.chunks.get(id);
        }
        Err(Error::new(ErrorKind::Damaged, "It is gone"))
    }
    fn get_many(&self, ids: &[ChunkId], deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync)) -> Result<()> {
        ids.iter().enumerate().try_for_each(|(at, id)| deliver(at, &self.get(id)?))
    }
}

#[test]
fn a_snapshot_that_goes_while_it_is_walked_hides_nothing_that_others_share_with_it() {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    // Many directories, nearly all of them in both snapshots.
    let state = |night: u64| -> State {
        let file = |at: u64| (format!("{}/{}/{at}", at % 4, at % 3), crate::support::nasty::noise(at, 3000));
        (0..60).map(file).chain([(format!("0/night {night}"), vec![b'x'; 10])]).collect()
    };
    for night in 1..=2 {
        let repository = shelf::open(&storage, &unlock, None).unwrap();
        shelf::save(&repository, &World::new(), &state(night), night).unwrap();
    }
    let repository = shelf::open(&storage, &unlock, None).unwrap();
    let world = World::new();
    let published = shelf::published(&repository, &world).unwrap();
    let chunks = repository.reader(world.context());
    let live = |first: Option<i64>| -> (bool, Vec<u64>) {
        let mut liveness = repository.index().liveness().unwrap();
        let mut walk = |chunks: &dyn ChunkSource, at: usize| {
            compline::archive::reach::reach(chunks, &published[at].snapshot, &mut liveness, &world.context())
        };
        let ended = first.is_none_or(|left| walk(&Vanishing { chunks: &chunks, left: left.into() }, 0).is_ok());
        walk(&chunks, 1).unwrap();
        let usage = liveness.usage(&HashSet::new(), &HashSet::new(), Known::ALL).unwrap();
        (ended, usage.packs.iter().map(|pack| pack.live_len).collect())
    };
    let (_, needed) = live(None);
    let mut ends = 0;
    for left in 0.. {
        let (ended, found) = live(Some(left));
        let is_all = needed.iter().zip(&found).all(|(needed, found)| found >= needed);
        assert!(is_all, "gone after {left} chunks: {found:?} of {needed:?}");
        ends = left;
        if ended {
            break;
        }
    }
    assert!(ends > 8, "{ends} chunks were walked");
}
