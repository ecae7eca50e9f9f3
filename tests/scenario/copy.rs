//! A copy is what was copied, with other keys or the same; whatever stops it, the next one goes on and makes no third.

use std::sync::{Arc, Barrier};
use std::thread;

use compline::archive::copy::{Copier, Outcome};
use compline::clock::Clock;
use compline::commands::copy::{CopyReport, Wish, of_repositories};
use compline::commands::{App, forget};
use compline::error::Result;
use compline::observer::Counter;
use compline::storage::{MemoryStorage, ObjectKind};
use compline::store::check::DataSubset;
use compline::store::config::Config;
use compline::store::{Repository, Unlock};
use tempfile::TempDir;

use crate::faulty_storage::{Fault, FaultyStorage};
use crate::prune::{EVERYTHING, prune};
use crate::shelf::{self, State};
use crate::support::World;

const NIGHTS: u64 = 3;

/// A repository of some nights.
fn source() -> (Arc<MemoryStorage>, Unlock) {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    for night in 1..=NIGHTS {
        shelf::save(&shelf::open(&storage, &unlock, None).unwrap(), &World::new(), &shelf::state(night), night)
            .unwrap();
    }
    (storage, unlock)
}

/// An empty repository with the keys of `source`.
fn twin(source: &Repository) -> (Arc<MemoryStorage>, Unlock) {
    let storage = Arc::new(MemoryStorage::new());
    let (unlock, _) = Unlock::new_key_file().unwrap();
    let config = Config { pack_len: 1 << 16, frame_len: 1 << 14, ..Config::new(World::new().clock.now()) };
    source.create_twin(&*storage, &unlock, "twin", &config).unwrap();
    (storage, unlock)
}

fn stranger() -> (Arc<MemoryStorage>, Unlock) {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    (storage, unlock)
}

fn copy(source: &Repository, target: &Repository, world: &World) -> Result<CopyReport> {
    let app = App { context: world.context(), ledger: &world.ledger, variable: &|_| None };
    of_repositories(app, source, target, &Wish::Fitting(forget::Only::default()), false)
}

fn states(repository: &Repository) -> Vec<State> {
    let world = World::new();
    let all = shelf::published(repository, &world).unwrap();
    all.iter().map(|one| shelf::state_of(repository, &world, one).unwrap()).collect()
}

#[track_caller]
fn assert_copied(source: &Repository, target: &Repository) {
    let (from, to) =
        (shelf::published(source, &World::new()).unwrap(), shelf::published(target, &World::new()).unwrap());
    assert_eq!(from.len(), to.len());
    for (from, to) in from.iter().zip(&to) {
        let mut expected = from.snapshot.clone();
        expected.original = Some(from.id);
        for (component, copied) in expected.components.iter_mut().zip(&to.snapshot.components) {
            component.root.clone_from(&copied.root);
        }
        assert_eq!(to.snapshot, expected, "the record keeps everything but its roots");
    }
    assert!(states(source) == states(target));
    assert_eq!(shelf::check(target, DataSubset::All).unwrap(), Vec::<String>::new());
    assert!(target.storage().list(ObjectKind::Session).unwrap().is_empty(), "a session was left behind");
}

#[test]
fn a_copy_with_other_keys_is_what_was_copied_in_as_few_bytes() {
    let (storage, unlock) = source();
    let source = shelf::open(&storage, &unlock, None).unwrap();
    let (there, key) = stranger();
    let cache = TempDir::new().unwrap();
    let target = shelf::open(&there, &key, Some(cache.path())).unwrap();
    let report = copy(&source, &target, &World::new()).unwrap();
    assert_eq!((report.count("copied"), report.shares_keys), (3, false));
    assert_copied(&source, &target);
    assert!(report.chunks_delta > 0, "what were deltas are deltas again");
    let len = |repository: &Repository| -> u64 {
        repository.storage().list(ObjectKind::Pack).unwrap().iter().map(|row| row.len).sum()
    };
    assert!(len(&target) < len(&source) + len(&source) / 10, "{} for {}", len(&target), len(&source));

    let again = copy(&source, &target, &World::new()).unwrap();
    assert_eq!((again.count("there"), again.bytes_stored), (3, 0));
    shelf::save(&source, &World::new(), &shelf::state(4), 4).unwrap();
    let world = World::new();
    // Another process: what is known of names is in the cache.
    let target = shelf::open(&there, &key, Some(cache.path())).unwrap();
    let fourth = copy(&source, &target, &world).unwrap();
    assert_eq!((fourth.count("there"), fourth.count("copied")), (3, 1));
    let logical: u64 = shelf::state(4).values().map(|bytes| bytes.len() as u64).sum();
    // Of the compressed rows all of their plain bytes are new, and stored as a delta.
    assert!(fourth.bytes_new < logical / 2, "{} of {logical} bytes were new", fourth.bytes_new);
    assert_copied(&source, &target);
}

#[test]
fn a_copy_with_the_same_keys_takes_frames_and_deltas_as_they_are() {
    let (storage, unlock) = source();
    let source = shelf::open(&storage, &unlock, None).unwrap();
    let (there, key) = twin(&source);
    let target = shelf::open(&there, &key, None).unwrap();
    let report = copy(&source, &target, &World::new()).unwrap();
    assert_eq!((report.count("copied"), report.shares_keys), (3, true));
    assert_copied(&source, &target);
    assert_eq!(shelf::deltas(&source), shelf::deltas(&target));
    let roots = |repository: &Repository| -> Vec<Option<String>> {
        let all = shelf::published(repository, &World::new()).unwrap();
        all.iter().map(|one| one.snapshot.components[0].root.clone()).collect()
    };
    assert_eq!(roots(&source), roots(&target), "names are the same");
}

#[test]
fn a_twin_that_has_written_itself_takes_only_deltas_whose_bases_lie_less_deep() {
    let (storage, unlock) = source();
    let source = shelf::open(&storage, &unlock, None).unwrap();
    let (there, key) = twin(&source);
    let target = shelf::open(&there, &key, None).unwrap();
    // The same versions in another order: what is a base there is a delta here.
    for night in (2..=NIGHTS).rev() {
        shelf::save(&target, &World::new(), &shelf::state(night), night + 10).unwrap();
    }
    copy(&source, &target, &World::new()).unwrap();
    assert_eq!(states(&target)[..3], states(&source)[..]);
    assert_eq!(shelf::check(&target, DataSubset::All).unwrap(), Vec::<String>::new());
    let first = shelf::published(&target, &World::new()).unwrap().into_iter().skip(3);
    first.for_each(|own| assert!(target.remove_snapshot(own.id).unwrap()));
    prune(&target, EVERYTHING).unwrap();
    assert_copied(&source, &target);
}

#[test]
fn a_fault_at_any_call_of_either_side_leaves_nothing_half_and_the_next_copy_goes_on() {
    let (storage, unlock) = source();
    let source = MemoryStorage::clone(&storage);
    let (there, key) = stranger();
    let (twin_there, twin_key) = twin(&shelf::open(&storage, &unlock, None).unwrap());
    for (there, key) in [(there, key), (twin_there, twin_key)] {
        let empty = MemoryStorage::clone(&there);
        let run = |from: &Arc<FaultyStorage>, to: &Arc<FaultyStorage>| {
            let source = shelf::open(from, &unlock, None)?;
            copy(&source, &shelf::open(to, &key, None)?, &World::new())
        };
        let (from, to) =
            (Arc::new(FaultyStorage::counting(source.clone())), Arc::new(FaultyStorage::counting(empty.clone())));
        run(&from, &to).unwrap();
        let step = 1 + to.calls() / 25;
        for fault in Fault::ALL {
            for at in (0..to.calls()).step_by(usize::try_from(step).unwrap()) {
                let what = format!("{fault:?} at call {at} of the target");
                let faulty = Arc::new(FaultyStorage::failing(empty.clone(), at, fault));
                let _failed = run(&Arc::new(FaultyStorage::counting(source.clone())), &faulty);
                assert!(faulty.was_hit(), "{what}");
                go_on(&source, &unlock, faulty.remains(), &key, &what);
            }
        }
        for at in (0..from.calls()).step_by(usize::try_from(1 + from.calls() / 25).unwrap()) {
            let what = format!("a refusal at call {at} of the source");
            let to = Arc::new(FaultyStorage::counting(empty.clone()));
            let _failed = run(&Arc::new(FaultyStorage::failing(source.clone(), at, Fault::Refused)), &to);
            go_on(&source, &unlock, to.remains(), &key, &what);
        }
    }
}

/// Every snapshot that is there is whole, and the next copy completes the rest.
#[track_caller]
fn go_on(source: &MemoryStorage, unlock: &Unlock, remains: MemoryStorage, key: &Unlock, what: &str) {
    let source = shelf::open(&Arc::new(source.clone()), unlock, None).unwrap();
    let target = shelf::open(&Arc::new(remains), key, None).expect(what);
    let all = states(&source);
    assert!(states(&target).iter().all(|state| all.contains(state)), "{what}");
    copy(&source, &target, &World::new()).expect(what);
    assert!(states(&target) == all, "{what}");
    assert_eq!(shelf::check(&target, DataSubset::All).expect(what), Vec::<String>::new(), "{what}");
}

#[test]
fn two_copies_at_once_make_one_of_each_snapshot() {
    let (storage, unlock) = source();
    for is_twin in [false, true] {
        let source = shelf::open(&storage, &unlock, None).unwrap();
        let (there, key) = if is_twin { twin(&source) } else { stranger() };
        let start = Barrier::new(2);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let source = shelf::open(&storage, &unlock, None).unwrap();
                    let target = shelf::open(&there, &key, None).unwrap();
                    start.wait();
                    copy(&source, &target, &World::new()).unwrap();
                });
            }
        });
        assert_copied(&source, &shelf::open(&there, &key, None).unwrap());
    }
}

#[test]
fn what_is_forgotten_and_reclaimed_beside_a_copy_is_passed_over_and_the_rest_is_copied() {
    for is_twin in [false, true] {
        let (storage, unlock) = source();
        let source = shelf::open(&storage, &unlock, None).unwrap();
        let (there, key) = if is_twin { twin(&source) } else { stranger() };
        let target = shelf::open(&there, &key, None).unwrap();
        let world = World::new();
        let all = shelf::published(&source, &world).unwrap();
        let copier = Copier::new(&source, &target, world.context()).unwrap();
        // The index of the source has seen everything where it was. Now another process moves it.
        let first = copier.copy(&all[0], &[]).unwrap();
        let other = shelf::open(&storage, &unlock, None).unwrap();
        other.remove_snapshot(all[1].id).unwrap();
        prune(&other, EVERYTHING).unwrap();
        assert!(matches!(copier.copy(&all[1], &[]).unwrap(), Outcome::Forgotten));
        let third = copier.copy(&all[2], &[]).unwrap();
        assert!(matches!((first, third), (Outcome::Copied(_), Outcome::Copied(_))));
        drop(copier);
        // A prune of the target takes away what the copy of the forgotten one left.
        prune(&shelf::open(&there, &key, None).unwrap(), EVERYTHING).unwrap();
        let target = shelf::open(&there, &key, None).unwrap();
        assert_eq!(states(&target), [shelf::state(1), shelf::state(3)]);
        assert_eq!(shelf::check(&target, DataSubset::All).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn prunes_of_both_sides_run_beside_copies() {
    let (storage, unlock) = source();
    let source = shelf::open(&storage, &unlock, None).unwrap();
    for (there, key) in [stranger(), twin(&source)] {
        let open = || (shelf::open(&storage, &unlock, None).unwrap(), shelf::open(&there, &key, None).unwrap());
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    let (source, target) = open();
                    let brief = compline::store::prune::PruneOptions { wait: std::time::Duration::ZERO, ..EVERYTHING };
                    prune(&source, brief).unwrap();
                    prune(&target, brief).unwrap();
                }
            });
            let mut succeeded = 0;
            for _ in 0..6 {
                let (source, target) = open();
                let all = shelf::published(&target, &World::new()).unwrap();
                for one in all {
                    assert!(target.remove_snapshot(one.id).unwrap());
                }
                let copied = copy(&source, &target, &World::new());
                // A pack that was counted on may be taken away; then the copy says so and publishes nothing.
                if let Ok(report) = copied {
                    assert_eq!(report.count("copied"), 3, "{:?}", report.snapshots);
                    assert!(states(&target) == states(&source));
                    succeeded += 1;
                }
            }
            assert!(succeeded > 0, "no copy came through");
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let (source, target) = open();
        copy(&source, &target, &World::new()).unwrap();
        assert!(states(&target) == states(&source));
        assert_eq!(shelf::check(&target, DataSubset::All).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn what_was_sent_is_neither_read_nor_sent_again() {
    let (storage, unlock) = source();
    let source = shelf::open(&storage, &unlock, None).unwrap();
    let (there, key) = stranger();
    let cache = TempDir::new().unwrap();
    let target = shelf::open(&there, &key, Some(cache.path())).unwrap();
    copy(&source, &target, &World::new()).unwrap();
    for one in shelf::published(&target, &World::new()).unwrap() {
        target.remove_snapshot(one.id).unwrap();
    }
    // As after a kill before the first record: everything is there and nothing is published.
    let world = World::new();
    let report = copy(&source, &shelf::open(&there, &key, Some(cache.path())).unwrap(), &world).unwrap();
    assert_eq!((report.count("copied"), report.chunks_new), (3, 0));
    let logical: u64 = (1..=NIGHTS).flat_map(shelf::state).map(|(_, bytes)| bytes.len() as u64).sum();
    let fetched = world.ledger.get(Counter::BytesFetched);
    assert!(fetched < logical / 20, "{fetched} of {logical} bytes were read again");
}
