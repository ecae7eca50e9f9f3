//! A storage where each call costs a way over the network: a machine that was there before makes few of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use compline::storage::{Listed, MemoryStorage, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError};
use compline::store::check::DataSubset;
use tempfile::TempDir;

use crate::shelf;
use crate::support::World;
use crate::support::dump::Dump;

/// Counts the calls to a storage that says it is far away.
#[derive(Default)]
struct Remote {
    objects: MemoryStorage,
    calls: Mutex<BTreeMap<(&'static str, ObjectKind), u64>>,
    /// Packs that are put wait until so many are.
    wanted_at_once: usize,
    waiting: (Mutex<usize>, Condvar),
}

impl Remote {
    fn count(&self, call: &'static str, kind: ObjectKind) {
        *self.calls.lock().unwrap().entry((call, kind)).or_default() += 1;
    }

    /// The calls since the last time.
    fn taken(&self) -> BTreeMap<(&'static str, ObjectKind), u64> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

impl Storage for Remote {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.count("put", key.kind());
        if key.kind() == ObjectKind::Pack {
            let mut waiting = self.waiting.0.lock().unwrap();
            *waiting += 1;
            self.waiting.1.notify_all();
            let too_few = |waiting: &mut usize| *waiting < self.wanted_at_once;
            let waited = self.waiting.1.wait_timeout_while(waiting, Duration::from_secs(60), too_few).unwrap();
            assert!(!waited.1.timed_out(), "they come one by one");
        }
        self.objects.put_new(key, bytes)
    }
    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.count("put", key.kind());
        self.objects.replace(key, bytes)
    }
    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        self.count("get", key.kind());
        self.objects.get(key)
    }
    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.count("get", key.kind());
        self.objects.get_range(key, range)
    }
    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        self.count("len", key.kind());
        self.objects.len(key)
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        self.count("list", kind);
        self.objects.list(kind)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        self.count("delete", key.kind());
        self.objects.delete(key)
    }
    fn location(&self) -> String {
        "far away".to_owned()
    }
    fn is_remote(&self) -> bool {
        true
    }
}

/// Looks at everything in the newest snapshot but contents.
fn look(remote: &Arc<Remote>, unlock: &compline::store::Unlock, cache: &Path) -> usize {
    let repository = shelf::open(remote, unlock, Some(cache)).unwrap();
    let world = World::new();
    let published = shelf::published(&repository, &world).unwrap().pop().unwrap();
    shelf::paths(&repository, &world, &published).unwrap().len()
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn a_machine_that_was_there_before_looks_without_reading_trees_or_snapshots() {
    let remote = Arc::new(Remote::default());
    let unlock = shelf::create(&remote.objects);
    let caches = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    for night in 1..=3 {
        let repository = shelf::open(&remote, &unlock, Some(caches[0].path())).unwrap();
        shelf::save(&repository, &World::new(), &shelf::state(night), night).unwrap();
    }
    let open_calls = |calls: &BTreeMap<(&'static str, ObjectKind), u64>, kind| {
        calls.iter().filter(|((call, of), _)| *call == "get" && *of == kind).map(|(_, count)| *count).sum::<u64>()
    };
    remote.taken();
    // Who wrote them has copies; who comes for the first time gets them, once.
    for (cache, expected) in [(&caches[0], false), (&caches[1], true), (&caches[1], false)] {
        let count = look(&remote, &unlock, cache.path());
        assert_eq!(count, shelf::state(3).len());
        let calls = remote.taken();
        let gets = [ObjectKind::Snapshot, ObjectKind::Pack].map(|kind| open_calls(&calls, kind) > 0);
        assert_eq!(gets, [expected; 2], "{calls:?}");
    }
    // Copies that are not what they were are fetched again, and go with their originals.
    let copies =
        caches[1].path().join(std::fs::read_dir(caches[1].path()).unwrap().next().unwrap().unwrap().file_name());
    let copies = copies.join("copies");
    for file in files_below(&copies) {
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, b"something else").unwrap();
    }
    assert_eq!(look(&remote, &unlock, caches[1].path()), shelf::state(3).len());
    let repository = shelf::open(&remote, &unlock, Some(caches[1].path())).unwrap();
    crate::prune::forget_but(&repository, |_| false);
    crate::prune::prune(&repository, crate::prune::EVERYTHING).unwrap();
    repository.settle(&World::new().context()).unwrap();
    repository.list_snapshots().unwrap();
    assert_eq!(files_below(&copies), Vec::<PathBuf>::new());
}

#[test]
fn a_check_reads_what_is_stored_and_not_a_copy_of_it() {
    let remote = Arc::new(Remote::default());
    let unlock = shelf::create(&remote.objects);
    let cache = TempDir::new().unwrap();
    let repository = shelf::open(&remote, &unlock, Some(cache.path())).unwrap();
    let id = shelf::save(&repository, &World::new(), &shelf::state(1), 1).unwrap();
    let open = || shelf::open(&remote, &unlock, Some(cache.path())).unwrap();
    assert_eq!(shelf::check(&open(), DataSubset::All).unwrap(), Vec::<String>::new());
    remote.objects.replace(&ObjectKey::Snapshot(id), b"nothing").unwrap();
    assert!(!shelf::check(&open(), DataSubset::Nothing).unwrap().is_empty());
    assert_eq!(look(&remote, &unlock, cache.path()), shelf::state(1).len(), "the copy is as good as ever");
}

#[test]
fn several_packs_are_under_way_at_once() {
    let remote = Arc::new(Remote { wanted_at_once: 3, ..Remote::default() });
    let unlock = shelf::create(&remote.objects);
    let repository = shelf::open(&remote, &unlock, None).unwrap();
    shelf::save(&repository, &World::new(), &shelf::state(1), 1).unwrap();
}

#[test]
fn an_unchanged_night_costs_a_handful_of_calls() {
    let remote = Arc::new(Remote::default());
    let unlock = shelf::create(&remote.objects);
    let cache = TempDir::new().unwrap();
    for night in 1..=2 {
        let repository = shelf::open(&remote, &unlock, Some(cache.path())).unwrap();
        remote.taken();
        shelf::save(&repository, &World::new(), &shelf::state(1), night).unwrap();
    }
    // Without the three that opening takes.
    let calls = remote.taken();
    assert!(calls.values().sum::<u64>() <= 12, "{calls:?}");
}

#[test]
fn what_a_next_night_is_made_of_is_fetched_in_long_pieces_and_once() {
    let remote = Arc::new(Remote::default());
    let unlock = shelf::create(&remote.objects);
    let cache = TempDir::new().unwrap();
    let repository = shelf::open(&remote, &unlock, Some(cache.path())).unwrap();
    let dump = |days| shelf::State::from([("dump.sql".to_owned(), Dump::new(1, 40_000).after(days).text())]);
    shelf::save(&repository, &World::new(), &dump(0), 1).unwrap();
    let packs = remote.objects.list(ObjectKind::Pack).unwrap();
    let pieces: u64 = packs.iter().map(|pack| pack.len.div_ceil(512 << 10)).sum();
    remote.taken();
    shelf::save(&repository, &World::new(), &dump(1), 2).unwrap();
    let calls = remote.taken();
    assert!(shelf::deltas(&repository).0 > 10, "it is made of what was there");
    assert!(calls[&("get", ObjectKind::Pack)] <= pieces, "{calls:?} for {pieces} pieces");
}
