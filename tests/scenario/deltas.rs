//! Of what changed a little only the change is stored, night after night, and every night comes back as it was.

use std::sync::Arc;

use compline::chunker::Profile;
use compline::observer::Counter;
use compline::storage::{MemoryStorage, ObjectKind, Storage};
use compline::store::check::DataSubset;
use compline::store::{DeltaPolicy, Repository, Unlock};
use tempfile::TempDir;

use crate::shelf::{self, State};
use crate::support::World;
use crate::support::dump::Dump;
use crate::support::nasty::noise;

const NIGHTS: u64 = 14;

/// A storage, and what was put in.
struct Shelf {
    storage: Arc<MemoryStorage>,
    unlock: Unlock,
    saved: Vec<State>,
}

impl Shelf {
    fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let unlock = shelf::create(&*storage);
        Self { storage, unlock, saved: Vec::new() }
    }

    /// Without a cache: all that is known comes out of the storage.
    fn open(&self) -> Repository {
        shelf::open(&self.storage, &self.unlock, None).unwrap()
    }

    fn len(&self) -> u64 {
        let kinds = [ObjectKind::Pack, ObjectKind::Segment, ObjectKind::Snapshot];
        kinds.iter().flat_map(|kind| self.storage.list(*kind).unwrap()).map(|row| row.len).sum()
    }

    /// Saves a night; how many bytes the storage has more.
    fn save(&mut self, repository: &Repository, state: State) -> u64 {
        self.save_cut(repository, state, "db-text")
    }

    fn save_cut(&mut self, repository: &Repository, state: State, profile: &str) -> u64 {
        let before = self.len();
        let (world, night) = (World::new(), self.saved.len() as u64);
        shelf::save_cut(repository, &world, &state, night, Profile::named(profile).unwrap()).unwrap();
        assert_eq!(world.problems(), Vec::<String>::new());
        self.saved.push(state);
        self.len() - before
    }

    /// Every night comes back out of `repository`, and nothing is wrong.
    fn holds(&self, repository: &Repository) {
        assert_eq!(shelf::check(repository, DataSubset::All).unwrap(), Vec::<String>::new());
        let world = World::new();
        let published = shelf::published(repository, &world).unwrap();
        assert_eq!(published.len(), self.saved.len());
        for (night, (published, saved)) in published.iter().zip(&self.saved).enumerate() {
            let found = shelf::state_of(repository, &world, published).unwrap();
            assert!(found == *saved, "night {night} is not what was saved");
        }
    }

    /// So many nights of a dump, each by a writer without a cache.
    fn of_nights(nights: u64) -> Self {
        let mut shelf = Self::new();
        for night in 0..nights {
            shelf.save(&shelf.open(), dump(night));
        }
        shelf
    }
}

fn one(name: &str, bytes: Vec<u8>) -> State {
    State::from([(name.to_owned(), bytes)])
}

fn dump(night: u64) -> State {
    one("dump", Dump::new(7, 12_000).after(night).text())
}

fn delete_segments(storage: &MemoryStorage) {
    for row in storage.list(ObjectKind::Segment).unwrap() {
        storage.delete(&row.key).unwrap();
    }
}

#[test]
fn nights_of_a_dump_cost_their_changes_with_a_cache_without_and_without_an_index() {
    let mut shelf = Shelf::new();
    let cache = TempDir::new().unwrap();
    let mut table = Dump::new(7, 12_000);
    let warm = shelf::open(&shelf.storage, &shelf.unlock, Some(cache.path())).unwrap();
    let first = shelf.save(&warm, one("dump", table.text()));
    let mut growths = Vec::new();
    for night in 1..NIGHTS {
        table.pass_day();
        let repository = match night {
            1..=5 => shelf::open(&shelf.storage, &shelf.unlock, Some(cache.path())).unwrap(),
            6..=9 => shelf.open(),
            _ => {
                delete_segments(&shelf.storage);
                shelf.open()
            }
        };
        let growth = shelf.save(&repository, one("dump", table.text()));
        // Where the segments are gone, the writer lists all packs again.
        let listed: u64 = shelf.storage.list(ObjectKind::Segment).unwrap().iter().map(|row| row.len).sum();
        let growth = if night > 9 { growth - listed } else { growth };
        growths.push(growth);
    }
    // The eighth is made of the first, whose rows have changed eight times as often. What is known of the last chunks when
    // the next one comes depends on how busy the machine is: without deltas each night costs as much as the first.
    assert!(growths.iter().all(|growth| *growth < first / 2), "{growths:?} on {first}");
    // A tenth of it is the parity of the snapshots and of short packs.
    assert!(growths.iter().sum::<u64>() < first * 3, "{growths:?} on {first}");
    let (count, depth) = shelf::deltas(&shelf.open());
    assert!(count as u64 > NIGHTS * 10, "{count} deltas");
    assert!((2..=DeltaPolicy::default().depth_max).contains(&depth), "{depth} deep");
    shelf.holds(&warm);
    shelf.holds(&shelf.open());
    delete_segments(&shelf.storage);
    shelf.holds(&shelf.open());
}

#[test]
fn no_chain_is_longer_than_the_policy_allows() {
    let mut lens = Vec::new();
    for depth_max in [0, 1, 3] {
        let mut shelf = Shelf::new();
        for night in 0..10 {
            let mut repository = shelf.open();
            repository.set_delta_policy(DeltaPolicy { depth_max, ..DeltaPolicy::default() });
            shelf.save(&repository, one("dump", Dump::new(7, 4000).after(night).text()));
        }
        shelf.holds(&shelf.open());
        let (count, depth) = shelf::deltas(&shelf.open());
        assert_eq!(depth, depth_max);
        assert_eq!(count == 0, depth_max == 0);
        lens.push(shelf.len());
    }
    assert!(lens.is_sorted_by(|a, b| a > b), "longer chains cost less: {lens:?}");
}

#[test]
fn nights_that_are_forgotten_and_their_packs_leave_the_others_readable() {
    let shelf = Shelf::of_nights(6);
    for gone in [2, 3, 5] {
        let storage = Arc::new(MemoryStorage::clone(&shelf.storage));
        let repository = shelf::open(&storage, &shelf.unlock, None).unwrap();
        let world = World::new();
        let published = shelf::published(&repository, &world).unwrap();
        // What no other night needs, its deltas included.
        let needed = crate::lost_bases::packs_of_nights(&repository, (0..6).filter(|night| *night != gone));
        let all = crate::lost_bases::packs_of_nights(&repository, 0..6);
        let own: Vec<_> = all.difference(&needed).collect();
        assert!(gone == 5 || own.len() <= all.len() / 6, "{}", own.len());
        assert!(gone != 5 || !own.is_empty(), "the newest night has packs of its own");
        storage.delete(&compline::storage::ObjectKey::Snapshot(published[gone].id)).unwrap();
        for pack in own {
            storage.delete(&compline::storage::ObjectKey::Pack(*pack)).unwrap();
        }
        let repository = shelf::open(&storage, &shelf.unlock, None).unwrap();
        let left = shelf::published(&repository, &world).unwrap();
        let saved = (0..).zip(&shelf.saved).filter(|(night, _)| *night != gone);
        for (published, (night, saved)) in left.iter().zip(saved) {
            let found = shelf::state_of(&repository, &world, published).unwrap();
            assert!(found == *saved, "night {night} without night {gone}");
        }
    }
}

#[test]
fn two_writers_that_know_nothing_of_each_other_make_deltas_of_the_same_and_of_each_others_chunks() {
    let mut shelf = Shelf::new();
    let caches = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let warm = |shelf: &Shelf, at: usize| shelf::open(&shelf.storage, &shelf.unlock, Some(caches[at].path())).unwrap();
    shelf.save(&warm(&shelf, 0), dump(0));
    for night in 1..5 {
        // Both begin before either has stored anything, from the same parent.
        let repositories = [warm(&shelf, 0), warm(&shelf, 1)];
        let others = State::from([("dump".to_owned(), Dump::new(7, 12_000).after(night * 2).text())]);
        let states = [dump(night), others];
        let start = std::sync::Barrier::new(2);
        let number = shelf.saved.len() as u64;
        std::thread::scope(|scope| {
            for (at, (repository, state)) in repositories.iter().zip(&states).enumerate() {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let profile = Profile::named("db-text").unwrap();
                    shelf::save_cut(repository, &World::new(), state, number + at as u64, profile).unwrap();
                });
            }
        });
        shelf.saved.extend(states);
    }
    shelf.holds(&shelf.open());
    shelf.holds(&warm(&shelf, 0));
    shelf.holds(&warm(&shelf, 1));
}

#[test]
fn a_chunk_that_one_stores_whole_and_another_as_a_delta_is_read_from_either() {
    let mut shelf = Shelf::new();
    shelf.save(&shelf.open(), dump(0));
    // Two copies of the storage go separate ways and are put together again.
    let apart = Arc::new(MemoryStorage::clone(&shelf.storage));
    shelf.save(&shelf.open(), dump(1));
    let mut other = shelf::open(&apart, &shelf.unlock, None).unwrap();
    other.set_delta_policy(DeltaPolicy { depth_max: 0, ..DeltaPolicy::default() });
    let profile = Profile::named("db-text").unwrap();
    shelf::save_cut(&other, &World::new(), &dump(1), 2, profile).unwrap();
    shelf.saved.push(dump(1));
    for key in apart.keys() {
        let _is_there = shelf.storage.put_new(&key, &apart.get(&key).unwrap());
    }
    let chunks = |storage: &Arc<MemoryStorage>| {
        let repository = shelf::open(storage, &shelf.unlock, None).unwrap();
        repository.refresh(&World::new().context()).unwrap();
        repository.index().totals().unwrap().chunks
    };
    assert!(chunks(&shelf.storage) > chunks(&apart), "some chunks are there twice");
    shelf.holds(&shelf.open());
    // What goes on from there is a delta of either.
    shelf.save(&shelf.open(), dump(2));
    shelf.holds(&shelf.open());
}

#[test]
fn what_is_hardly_text_comes_back_as_it_was() {
    let mut shelf = Shelf::new();
    let huge = noise(1, 20 << 20);
    let mut nights = vec![huge.clone(), huge.clone(), huge];
    nights[1][10 << 20] ^= 1;
    nights[2].truncate(5 << 20);
    nights.extend([vec![0; 3_000_001], vec![0; 3_000_000], noise(2, 1), Vec::new(), noise(3, 511), noise(3, 513)]);
    // Periodic: every copy could lie anywhere.
    nights.extend([b"abc".repeat(400_000), b"abcd".repeat(300_000), b"abc".repeat(400_001)]);
    let mut growths = Vec::new();
    for bytes in nights {
        growths.push(shelf.save(&shelf.open(), one("odd", bytes)));
    }
    assert!(growths[1] < 20_000 && growths[2] < 20_000, "a byte costs {growths:?}");
    assert!(growths[4] < 20_000, "{growths:?}");
    shelf.holds(&shelf.open());
}

#[test]
fn another_chunk_length_and_another_name_between_nights_break_nothing() {
    let mut shelf = Shelf::new();
    let mut growths = Vec::new();
    for (night, profile) in (0..).zip(["db-text", "default", "db-page", "db-text", "db-text"]) {
        growths.push(shelf.save_cut(&shelf.open(), dump(night), profile));
    }
    assert!(growths[1..].iter().all(|growth| *growth < growths[0] / 10 * 9), "{growths:?}");
    assert!(growths[4] < growths[0] / 3, "{growths:?}");
    shelf.holds(&shelf.open());
}

#[test]
fn a_dump_under_another_name_is_found_by_what_it_resembles() {
    let mut shelf = Shelf::new();
    let cache = TempDir::new().unwrap();
    let open = |shelf: &Shelf| shelf::open(&shelf.storage, &shelf.unlock, Some(cache.path())).unwrap();
    let first = shelf.save_cut(&open(&shelf), one("monday", Dump::new(7, 12_000).text()), "default");
    let text = Dump::new(7, 12_000).after(1).text();
    let second = shelf.save_cut(&open(&shelf), one("tuesday", text), "default");
    assert!(second < first / 4 * 3, "{second} on {first}");
    assert!(shelf::deltas(&shelf.open()).0 > 0);
    shelf.holds(&shelf.open());
}

#[test]
fn two_new_files_that_are_alike_in_one_run_break_nothing() {
    let mut shelf = Shelf::new();
    let (one, two) = (Dump::new(7, 6000), Dump::new(7, 6000).after(2));
    let state = State::from([("one".to_owned(), one.text()), ("two".to_owned(), two.text())]);
    shelf.save(&shelf.open(), state);
    let state = State::from([("one".to_owned(), two.text()), ("two".to_owned(), one.after(3).text())]);
    shelf.save(&shelf.open(), state);
    shelf.holds(&shelf.open());
}

#[test]
fn a_rehearsal_with_deltas_stores_nothing_and_tells_what_the_run_costs() {
    let shelf = Shelf::of_nights(2);
    let before = shelf.storage.keys();
    let state = dump(2);
    let rehearsed = World::new();
    shelf::rehearse(&shelf.open(), &rehearsed, &state, Profile::named("db-text").unwrap()).unwrap();
    assert_eq!(shelf.storage.keys(), before);
    let real = World::new();
    shelf::save_cut(&shelf.open(), &real, &state, 2, Profile::named("db-text").unwrap()).unwrap();
    for counter in [Counter::BytesNew, Counter::ChunksNew, Counter::ChunksDelta] {
        assert_eq!(rehearsed.ledger.get(counter), real.ledger.get(counter), "{counter:?}");
    }
    assert!(real.ledger.get(Counter::ChunksDelta) > 10);
    let (rehearsed, real) = (rehearsed.ledger.get(Counter::BytesStored), real.ledger.get(Counter::BytesStored));
    // The segment and the snapshot are what a rehearsal can't tell.
    assert!(rehearsed <= real && real - rehearsed < real / 2, "{rehearsed} of {real}");
}

/// A chunk is never stored twice by one writer that knows of it.
#[test]
fn a_night_that_goes_back_to_an_older_one_stores_no_content() {
    let mut shelf = Shelf::of_nights(3);
    let world = World::new();
    let profile = Profile::named("db-text").unwrap();
    shelf::save_cut(&shelf.open(), &world, &dump(1), 3, profile).unwrap();
    shelf.saved.push(dump(1));
    assert_eq!(world.ledger.get(Counter::BytesNew), 0);
    shelf.holds(&shelf.open());
}
